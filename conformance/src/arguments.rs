//! The command line of the run of all cases.

use crate::cases::tables;

/// What `--help` prints.
pub const HELP: &str = "\
Runs every case on every target, and says which backends ran.

Usage: conformance [OPTIONS] [FILTER]...

A case runs when its name contains a FILTER, all without one.

Options:
      --device NAME    Runs the targets whose names begin so; may be given again (cpu, cuda:0, sim, \"cpu:threads=1\")
      --every N        Runs every Nth case of each op
      --all            Runs all cases on the simulator too, and with every size of team: where there is no FILTER, the
                       simulator otherwise runs a share of long tables, and each case runs with one size, drawn from the seed
      --seed N         What is sampled and the simulator's orders are drawn from; hexadecimal behind 0x
      --skip FILTER    Leaves out the cases whose names contain it; may be given again
      --exact          A FILTER is a whole name
      --list           Prints the names of the cases, and runs none
  -h, --help           Prints this

Of the usual harness, --nocapture, --show-output, --quiet, --color WHEN and --format pretty are taken and change nothing:
nothing is captured, and what is printed is brief.";

/// What a command line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// The help text.
    Help,
    /// A run.
    Run(Arguments),
}

/// Which cases run on what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arguments {
    /// What names of cases contain, one of them.
    pub filters: Vec<String>,
    /// What names of cases do not contain.
    pub skipped: Vec<String>,
    /// Whether filters are whole names.
    pub exact: bool,
    /// What names of targets begin with, one of them; all of them when empty.
    pub devices: Vec<String>,
    /// What is sampled and the simulator's orders are drawn from; chosen anew for each run when absent.
    pub seed: Option<u64>,
    /// Every so many-th case runs.
    pub every: usize,
    /// Whether all cases run on all targets.
    pub all: bool,
    /// Whether names are printed instead.
    pub list: bool,
}

impl Asked {
    /// Reads a command line behind the program's name.
    ///
    /// # Errors
    /// When a flag is unknown, or its value is missing or none of its values; the text says which.
    pub fn read(arguments: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let mut read = Arguments {
            filters: Vec::new(),
            skipped: Vec::new(),
            exact: false,
            devices: Vec::new(),
            seed: None,
            every: 1,
            all: false,
            list: false,
        };
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let (flag, mut joined) = match argument.split_once('=') {
                Some((flag, value)) if flag.starts_with("--") => (flag, Some(value.to_owned())),
                _ => (argument.as_str(), None),
            };
            let mut value = || {
                let value = joined.take().or_else(|| arguments.next());
                value.ok_or_else(|| format!("{flag} needs a value: see --help"))
            };
            match flag {
                "-h" | "--help" => return Ok(Self::Help),
                "--device" => read.devices.push(value()?),
                "--skip" => read.skipped.push(value()?),
                "--every" => {
                    let every = value()?;
                    let parsed = every.parse().ok().filter(|every| *every > 0);
                    read.every = parsed.ok_or(format!("--every {every}: a number from 1"))?;
                }
                "--seed" => {
                    let seed = value()?;
                    let parsed = match seed.strip_prefix("0x") {
                        Some(digits) => u64::from_str_radix(digits, 16),
                        None => seed.parse(),
                    };
                    read.seed = Some(parsed.map_err(|error| format!("--seed {seed}: {error}"))?);
                }
                "--exact" => read.exact = true,
                "--all" => read.all = true,
                "--list" => read.list = true,
                "--nocapture" | "--no-capture" | "--show-output" | "--quiet" | "-q" => {}
                "--color" => drop(value()?),
                "--format" => match value()?.as_str() {
                    "pretty" => {}
                    format => return Err(format!("--format {format}: pretty is the only one")),
                },
                _ if flag.starts_with('-') => {
                    return Err(format!("unknown flag {flag}: see --help"));
                }
                _ => {
                    read.filters.push(argument);
                    continue;
                }
            }
            if joined.is_some() {
                return Err(format!("{flag} takes no value: see --help"));
            }
        }
        Ok(Self::Run(read))
    }
}

impl Arguments {
    /// Whether a case runs.
    #[must_use]
    pub fn wants(&self, case: &str) -> bool {
        let meets = |filter: &String| match self.exact {
            true => case == filter,
            false => case.contains(filter.as_str()),
        };
        (self.filters.is_empty() || self.filters.iter().any(meets))
            && !self.skipped.iter().any(meets)
    }

    /// Whether a table may hold cases that are wanted: names begin with their op's, so filters that are all names of
    /// ops spare the reference the other tables.
    #[must_use]
    pub fn wants_table(&self, op: &str) -> bool {
        let is_op = |filter: &String| tables().any(|table| table.op == filter);
        self.filters.iter().any(|filter| filter == op)
            || !self.filters.iter().all(is_op)
            || self.filters.is_empty()
    }

    /// Whether the simulator runs a share of long tables alone, and each case one size of team.
    #[must_use]
    pub fn samples(&self) -> bool {
        !self.all && self.filters.is_empty()
    }

    /// Whether a target takes part.
    #[must_use]
    pub fn has(&self, target: &str) -> bool {
        self.devices.is_empty() || self.devices.iter().any(|name| target.starts_with(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Asked, String> {
        Asked::read(line.split_whitespace().map(String::from))
    }

    fn run(line: &str) -> Arguments {
        match read(line) {
            Ok(Asked::Run(arguments)) => arguments,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn help_is_asked_for_whatever_stands_beside_it() {
        for line in ["--help", "-h", "MatMul --every 3 --help", "--list -h"] {
            assert_eq!(read(line), Ok(Asked::Help), "{line}");
        }
    }

    #[test]
    fn what_is_not_understood_is_named() {
        for (line, named) in [
            ("--halp", "unknown flag --halp"),
            ("-x MatMul", "unknown flag -x"),
            ("--devices sim", "unknown flag --devices"),
            ("--ignored", "unknown flag --ignored"),
            ("--test-threads 1", "unknown flag --test-threads"),
            ("--device", "--device needs a value"),
            ("--every 0", "--every 0"),
            ("--every three", "--every three"),
            ("--seed 0xg", "--seed 0xg"),
            ("--list=yes", "--list takes no value"),
            ("--format json", "--format json"),
        ] {
            let error = read(line).unwrap_err();
            assert!(error.contains(named), "{line}: {error}");
        }
    }

    #[test]
    fn filters_devices_and_numbers_are_read() {
        let arguments = run("--device sim --seed 0x1f MatMul --every=3 --device=cpu -q Rope");
        assert_eq!(arguments.filters, ["MatMul", "Rope"]);
        assert_eq!(arguments.devices, ["sim", "cpu"]);
        assert_eq!((arguments.seed, arguments.every), (Some(31), 3));
        assert!(arguments.wants("MatMul q4_0 [1, 32]") && !arguments.wants("Add [3]"));
        assert!(arguments.wants_table("Rope") && !arguments.wants_table("Add"));
        assert!(arguments.has("sim,activations=f32") && !arguments.has("cuda:0"));
        assert!(!arguments.samples() && run("--skip Rope").samples() && !run("--all").samples());
        let most = run("--skip q4_0 MatMul");
        assert!(most.wants("MatMul q8_0 [1, 32]") && !most.wants("MatMul q4_0 [1, 32]"));
        let exact = Arguments {
            filters: vec!["Add [3]".into()],
            exact: true,
            ..run("")
        };
        assert!(exact.wants("Add [3]") && !exact.wants("Add [33]") && !exact.wants("Add [3] b"));
    }
}
