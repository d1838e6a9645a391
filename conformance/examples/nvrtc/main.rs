//! Compiles every kernel that the conformance cases and models need, with no GPU: `.ci/nvrtc` calls it.
//!
//! A kernel that does not compile is a failure, and so is one that a model needs and that spills more than twenty registers, or whose
//! products by warpgroups the compiler does one after the other. Kernels of models are compiled as a device compiles them, for every architecture; the others with a quicker optimiser, which takes
//! less than half the time, and for one architecture of those that kernels are chosen alike for, unless `--thorough` asks
//! for all. `--quick` leaves the cases out, and `--every` takes some of what they need and models don't.

mod recorder;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Instant;

use recorder::{CACHES, MODELS, Recorder, Wanted};
use walsh::cuda::{Nvrtc, Usage, VERBOSE};
use walsh_kernels::in_parallel;
use walsh_kernels::{Limits, Platform, Variant};

/// What `--help` prints.
const HELP: &str = "\
Compiles every kernel that the conformance cases and models need, with no GPU.

Usage: nvrtc --library FILE [OPTIONS]

Options:
      --library FILE        NVIDIA's libnvrtc
      --architecture NAME   Compiles for NAME, such as sm_90a; may be given again
      --report FILE         Writes what the kernels of models take
      --quick               Leaves out the conformance cases
      --every N             Of kernels that the cases alone need, compiles every Nth
      --thorough            Compiles all kernels as a device does and for every architecture, not those of models alone
  -h, --help                Prints this";

/// The multiprocessors of a large GPU: kernels are chosen as for one.
const MULTIPROCESSORS: u32 = 132;

/// What kernels are chosen by on a large GPU of a compute capability.
fn limits(capability: (i32, i32)) -> Limits {
    walsh::cuda::limits(capability, MULTIPROCESSORS, walsh::Activations::Int8)
}

/// What is compiled for unless the command line says otherwise: the first of what has no products of bfloat16 matrices, and
/// of each kind that has.
const ARCHITECTURES: &[&str] = &["sm_75", "sm_80", "sm_90a", "sm_100"];

/// What a GPU is compiled for, and which of the recorder's limits its kernels are chosen by.
struct Architecture {
    name: String,
    limits: usize,
}

impl Architecture {
    /// Reads a name; limits that no other architecture has yet are added to those known.
    fn read(name: String, known: &mut Vec<Limits>) -> Result<Self, String> {
        let digits = name.strip_prefix("sm_").unwrap_or("");
        let number: i32 = digits
            .trim_end_matches(|last: char| last.is_ascii_lowercase())
            .parse()
            .map_err(|_| format!("--architecture {name}: a name such as sm_90a"))?;
        let wanted = limits((number / 10, number % 10));
        let found = known.iter().position(|limits| *limits == wanted);
        let limits = found.unwrap_or_else(|| {
            known.push(wanted);
            known.len() - 1
        });
        Ok(Self { name, limits })
    }
}

/// Kernels of one text: the compiler reads the dialect once for all of them.
const BATCH: usize = 8;

/// The most bytes that a model's kernel may spill: forty-eight registers, which the nearest cache holds, of what is needed
/// behind a loop again.
const SPILLED: u32 = 192;

/// The option that has the compiler take less time.
const QUICK: &str = "--Ofast-compile=mid";

/// What the compiler says of products by warpgroups that it waits for one after the other.
const SERIALISED: &str = "wgmma.mma_async instructions are serialized";

struct Arguments {
    library: PathBuf,
    architectures: Vec<Architecture>,
    limits: Vec<Limits>,
    report: Option<PathBuf>,
    quick: bool,
    every: usize,
    thorough: bool,
}

impl Arguments {
    /// Reads the command line; `None` when it asks for help.
    fn read() -> Result<Option<Self>, String> {
        let (mut library, mut architectures, mut report) = (None, Vec::new(), None);
        let (mut quick, mut every, mut thorough) = (false, 1, false);
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
            match argument.as_str() {
                "--library" => library = Some(value()?.into()),
                "--architecture" => architectures.push(value()?),
                "--report" => report = Some(value()?.into()),
                "--quick" => quick = true,
                "--every" => {
                    let number = value()?.parse().ok().filter(|number| *number > 0);
                    every = number.ok_or("--every: a number from 1 on")?;
                }
                "--thorough" => thorough = true,
                "-h" | "--help" => return Ok(None),
                _ => return Err(format!("unknown argument {argument}: see --help")),
            }
        }
        if architectures.is_empty() {
            architectures = ARCHITECTURES.iter().map(|name| (*name).into()).collect();
        }
        let mut limits = Vec::new();
        let known = |name| Architecture::read(name, &mut limits);
        Ok(Some(Self {
            library: library.ok_or("--library FILE is missing")?,
            architectures: architectures
                .into_iter()
                .map(known)
                .collect::<Result<_, _>>()?,
            limits,
            report,
            quick,
            every,
            thorough,
        }))
    }
}

/// What the kernels take, by symbol and architecture.
type Usages = BTreeMap<(String, String), Usage>;

fn main() -> ExitCode {
    let outcome = match Arguments::read() {
        Ok(Some(arguments)) => run(&arguments),
        Ok(None) => {
            println!("{HELP}");
            Ok(true)
        }
        Err(error) => Err(error),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("nvrtc: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<bool, String> {
    let nvrtc = Nvrtc::load(Some(&arguments.library))?;
    let begun = Instant::now();
    let wanted = Recorder::wanted(arguments.limits.clone(), !arguments.quick)?;
    let hot = wanted.kernels.values().filter(|kernel| kernel.hot).count();
    println!(
        "{} kernels are wanted, {hot} of them by models ({:.1} s)",
        wanted.kernels.len(),
        begun.elapsed().as_secs_f64()
    );
    let begun = Instant::now();
    let (usages, failures) = compile(&nvrtc, &wanted, arguments);
    println!(
        "{} compiled by NVRTC {} for {}, {} failed ({:.1} s)",
        usages.len(),
        nvrtc.version(),
        names(&arguments.architectures, " "),
        failures.len(),
        begun.elapsed().as_secs_f64()
    );
    let table = table(&wanted, &usages, &arguments.architectures);
    print!("\n{table}");
    if let Some(report) = &arguments.report {
        write_report(report, &nvrtc, &table)?;
    }
    let mut wrong = failures;
    for (op, (reason, times)) in &wanted.missing {
        wrong.push(format!("{op} has no kernel {times} times, first: {reason}"));
    }
    for ((symbol, architecture), usage) in &usages {
        if usage.spilled > SPILLED && wanted.kernels[symbol].hot {
            wrong.push(format!(
                "{symbol} spills {} bytes on {architecture}",
                usage.spilled
            ));
        }
    }
    for line in &wrong {
        println!("FAILED {line}");
    }
    Ok(wrong.is_empty())
}

/// The names of architectures, with something between them.
fn names(architectures: &[Architecture], between: &str) -> String {
    let names: Vec<&str> = architectures.iter().map(|a| a.name.as_str()).collect();
    names.join(between)
}

/// A text to compile: some kernels for one architecture.
#[derive(Clone, Copy)]
struct Job<'a> {
    architecture: &'a str,
    options: &'a [String],
    batch: &'a [&'a Variant],
}

/// Compiles in batches, on as many threads as the machine runs.
fn compile(nvrtc: &Nvrtc, wanted: &Wanted, arguments: &Arguments) -> (Usages, Vec<String>) {
    let architectures = &arguments.architectures;
    let of = |at: usize, full: bool| -> Vec<&Variant> {
        let limits = architectures[at].limits;
        let is_first = architectures[..at].iter().all(|a| a.limits != limits);
        let chosen = wanted.kernels.values();
        let chosen = chosen.filter(|kernel| {
            kernel.limits.contains(&limits)
                && (kernel.hot || arguments.thorough) == full
                && (is_first || full)
        });
        let step = if full { 1 } else { arguments.every };
        let chosen = chosen.map(|kernel| &kernel.variant);
        chosen.step_by(step).collect()
    };
    let mut options = Vec::new();
    for (at, architecture) in architectures.iter().enumerate() {
        for (full, quick) in [(true, None), (false, Some(QUICK))] {
            let mut given = Nvrtc::options(&architecture.name);
            given.push(VERBOSE.into());
            given.extend(quick.map(String::from));
            options.push((architecture.name.as_str(), of(at, full), given));
        }
    }
    let jobs: Vec<Job<'_>> = options
        .iter()
        .flat_map(|(architecture, variants, options)| {
            variants.chunks(BATCH).map(move |batch| Job {
                architecture,
                options,
                batch,
            })
        })
        .collect();
    if arguments.every > 1 {
        let every = arguments.every;
        println!("of kernels that no model needs one in {every} is compiled: --thorough takes all");
    }
    let done = Mutex::new((Usages::new(), Vec::new()));
    in_parallel(jobs.len(), &|at| {
        let (usages, failures) = compile_batch(nvrtc, jobs[at]);
        let mut done = done.lock().expect("nothing panics under the lock");
        let architecture = jobs[at].architecture;
        let keyed = usages.into_iter();
        done.0
            .extend(keyed.map(|u| ((u.symbol.clone(), architecture.to_owned()), u)));
        done.1.extend(failures);
    });
    let (usages, mut failures) = done.into_inner().expect("nothing panics under the lock");
    failures.extend(compile_fusions(nvrtc, wanted, architectures));
    // A kernel that nothing is known of was not compiled, whatever the reason.
    let expected: usize = options.iter().map(|(_, variants, _)| variants.len()).sum();
    if usages.len() + failures.len() < expected {
        let missing = expected - usages.len() - failures.len();
        failures.push(format!("{missing} kernels were not compiled"));
    }
    (usages, failures)
}

/// Compiles launches of several kernels, whose entry points no kernel has by itself; what fails.
fn compile_fusions(nvrtc: &Nvrtc, wanted: &Wanted, architectures: &[Architecture]) -> Vec<String> {
    let jobs: Vec<_> = architectures
        .iter()
        .flat_map(|architecture| {
            let chosen = wanted.fusions.values();
            let chosen = chosen.filter(|(_, limits)| limits.contains(&architecture.limits));
            chosen.map(move |(fusion, _)| (&architecture.name, fusion))
        })
        .collect();
    println!("{} launches of several kernels", jobs.len());
    let failures = Mutex::new(Vec::new());
    in_parallel(jobs.len(), &|at| {
        let (architecture, fusion) = jobs[at];
        let mut options = Nvrtc::options(architecture);
        options.push(QUICK.into());
        if let Err(log) = nvrtc.compile(&fusion.source(), &options) {
            let mut failures = failures.lock().expect("nothing panics under the lock");
            failures.push(format!("{} on {architecture}: {log}", fusion.symbol()));
        }
    });
    failures
        .into_inner()
        .expect("nothing panics under the lock")
}

/// What a batch takes. One that fails is taken apart to name the kernel.
fn compile_batch(nvrtc: &Nvrtc, job: Job<'_>) -> (Vec<Usage>, Vec<String>) {
    let mut source = Variant::header(Platform::Cuda);
    for variant in job.batch {
        source.push_str(&variant.body(Platform::Cuda));
    }
    match nvrtc.compile(&source, job.options) {
        Ok(compiled) => {
            let is_quick = job.options.iter().any(|option| option == QUICK);
            let serial = compiled.log.lines();
            let serial = serial.filter(|line| !is_quick && line.contains(SERIALISED));
            let serial = serial.map(String::from).collect();
            (Usage::read(&compiled.log), serial)
        }
        Err(log) if job.batch.len() == 1 => {
            let log: Vec<&str> = log.lines().take(5).collect();
            let (variant, architecture) = (job.batch[0], job.architecture);
            let failure = format!("{variant} on {architecture}: {}", log.join("\n    "));
            (Vec::new(), vec![failure])
        }
        Err(_) => {
            let one_by_one = job.batch.chunks(1);
            let one_by_one = one_by_one.map(|batch| compile_batch(nvrtc, Job { batch, ..job }));
            let (usages, failures): (Vec<_>, Vec<_>) = one_by_one.unzip();
            (usages.concat(), failures.concat())
        }
    }
}

/// What the kernels of models take, where they are chosen.
fn table(wanted: &Wanted, usages: &Usages, architectures: &[Architecture]) -> String {
    let mut text = format!(
        "| kernel | {} |\n|---{}|\n",
        names(architectures, " | "),
        "|---:".repeat(architectures.len())
    );
    for (symbol, kernel) in wanted.kernels.iter().filter(|(_, kernel)| kernel.hot) {
        let _ = write!(text, "| `{}` |", kernel.variant);
        for architecture in architectures {
            if !kernel.limits.contains(&architecture.limits) {
                text.push_str(" - |");
                continue;
            }
            let _ = match usages.get(&(symbol.clone(), architecture.name.clone())) {
                Some(usage) => write!(
                    text,
                    " {} / {} / {} / {} |",
                    usage.registers, usage.spilled, usage.stack, usage.shared
                ),
                None => write!(text, " failed |"),
            };
        }
        text.push('\n');
    }
    text
}

fn write_report(path: &Path, nvrtc: &Nvrtc, table: &str) -> Result<(), String> {
    let text = format!(
        "# What the compiled kernels take\n\n\
         The kernels of {} with the caches {}, compiled by NVRTC {}: registers of a thread / bytes spilled / bytes of \
         a thread's stack / bytes of shared memory; a dash where another kernel is chosen. Written by `.ci/nvrtc --report {}`.\n\n{table}",
        MODELS.join(" and "),
        CACHES.join(", "),
        nvrtc.version(),
        path.display()
    );
    std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}
