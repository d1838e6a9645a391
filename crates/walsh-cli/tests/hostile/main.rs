//! Damaged files, hostile templates and odd options, run from outside: nothing may panic, abort, hang, or take more memory
//! than a file is worth.
//!
//! `cargo test -p walsh-cli --test hostile` is a short run. `-- --full` is 1,500 files, 500 sessions, 150 templates and
//! 200 command lines; `-- --minutes N` goes on for so long; `-- --seed N` repeats a run. What a run failed with is left in
//! target/hostile.

#[path = "../support/mod.rs"]
mod support;

mod bytes;
mod child;
mod options;
mod templates;

use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use child::Ended;
use support::tiny::Tiny;
use walsh::formats::random::SplitMix64;

/// What a run may have beyond its file and beyond what an ordinary run has.
const MEMORY: u64 = 300 << 20;

/// How many of each kind.
#[derive(Clone, Copy)]
struct Counts {
    files: usize,
    sessions: usize,
    templates: usize,
    options: usize,
}

const SHORT: Counts = Counts {
    files: 90,
    sessions: 40,
    templates: 60,
    options: 60,
};

const FULL: Counts = Counts {
    files: 1500,
    sessions: 500,
    templates: 150,
    options: 200,
};

struct Arguments {
    counts: Counts,
    until: Option<Instant>,
    seed: u64,
}

fn arguments() -> Result<Option<Arguments>, String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let mut read = Arguments {
        counts: SHORT,
        until: None,
        seed: now.map_or(1, |since| u64::from(since.subsec_nanos())),
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut number = || {
            let value = words.next().ok_or(format!("{word} needs a number"))?;
            value
                .parse::<u64>()
                .map_err(|error| format!("{word} {value}: {error}"))
        };
        match word.as_str() {
            "--full" => read.counts = FULL,
            "--minutes" => read.until = Some(Instant::now() + Duration::from_secs(60 * number()?)),
            "--seed" => read.seed = number()?,
            // Those of the usual harness, which cargo may be given for all test programs.
            "--quiet" | "-q" | "--nocapture" | "--no-capture" => {}
            "--list" | "--help" | "-h" => return Ok(None),
            flag if flag.starts_with('-') => {
                return Err(format!("{flag}: expected --full, --minutes N or --seed N"));
            }
            filter if "hostile".contains(filter) => {}
            _ => return Ok(None),
        }
    }
    Ok(Some(read))
}

/// What runs are made of, and what became of them.
struct Trial {
    folder: support::Folder,
    kept: PathBuf,
    random: SplitMix64,
    models: Vec<Vec<u8>>,
    sessions: Vec<Vec<u8>>,
    /// What an ordinary run has in memory.
    ordinary: u64,
    passed: usize,
    failed: usize,
    /// Runs that the command did not refuse.
    went_well: usize,
    slowest: f64,
    largest: u64,
}

impl Trial {
    fn new(seed: u64) -> Self {
        let folder = support::Folder::new();
        let architecture = |architecture| Tiny {
            architecture,
            ..Tiny::default()
        };
        let window = Tiny {
            window: Some(8),
            ..architecture("gemma2")
        };
        let tinies = [Tiny::default(), architecture("qwen2"), window];
        let models: Vec<_> = tinies.iter().map(Tiny::gguf).collect();
        let mut trial = Self {
            folder,
            kept: support::root().join("target/hostile"),
            random: SplitMix64(seed),
            models,
            sessions: Vec::new(),
            ordinary: 0,
            passed: 0,
            failed: 0,
            went_well: 0,
            slowest: 0.0,
            largest: 0,
        };
        let model = trial.models[0].clone();
        trial.folder.file("ordinary.gguf", &model);
        for kv in ["f16", "tq4", "k=q8_0,v=tq2", "tq3;recent=8:f16"] {
            let ended = trial.run(&[
                "generate",
                "--model",
                "ordinary.gguf",
                "-n",
                "3",
                "--context",
                "64",
                "--kv",
                kv,
                "--save",
                "s.walsh",
                "hello",
            ]);
            assert!(ended.went_well(), "an ordinary run failed: {ended:?}");
            trial.ordinary = trial.ordinary.max(ended.memory());
            let saved = fs::read(trial.path("s.walsh"));
            trial.sessions.push(saved.expect("a saved session"));
        }
        trial
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn run(&self, arguments: &[&str]) -> Ended {
        let mut command = support::command();
        command.args(arguments);
        self.run_command(command)
    }

    fn run_command(&self, command: Command) -> Ended {
        let mut command = child::limited(command);
        command.current_dir(self.folder.path());
        child::run(&mut command, self.folder.path())
    }

    /// Notes what became of a run; `inputs` are what it was made of.
    fn note(&mut self, what: &str, ended: &Ended, inputs: &[(&str, &[u8])]) {
        let file: usize = inputs.iter().map(|(_, bytes)| bytes.len()).sum();
        self.went_well += usize::from(ended.went_well());
        self.slowest = self.slowest.max(ended.seconds());
        self.largest = self.largest.max(ended.memory());
        let Some(fault) = ended.fault(self.ordinary + MEMORY + file as u64) else {
            self.passed += 1;
            return;
        };
        self.failed += 1;
        let number = self.failed;
        println!("FAILED {number}: {what}: {fault}");
        let folder = &self.kept;
        let keep = |(name, bytes): &(&str, &[u8])| {
            fs::write(folder.join(format!("{number}-{name}")), bytes)
        };
        let kept = fs::create_dir_all(folder).and_then(|()| inputs.iter().try_for_each(keep));
        match kept {
            Ok(()) => println!("    what it was made of: {}", folder.display()),
            Err(error) => println!("    it cannot be kept: {error}"),
        }
    }

    fn file(&mut self) {
        let model = self.random.pick(&self.models).clone();
        // Metadata and the table of tensors come first.
        let bytes = bytes::damaged(&model, model.len().min(12_000), &mut self.random);
        self.folder.file("m.gguf", &bytes);
        let inputs: &[(&str, &[u8])] = &[("m.gguf", &bytes)];
        let ended = match self.random.below(3) {
            0 => self.run(&["inspect", "m.gguf"]),
            1 => self.run(&["generate", "--model", "m.gguf", "-n", "2", "--chat", "hi"]),
            _ => self.run(&[
                "generate", "--model", "m.gguf", "-n", "2", "--kv", "tq4", "hi",
            ]),
        };
        self.note("a damaged model", &ended, inputs);
    }

    fn session(&mut self) {
        let saved = self.random.pick(&self.sessions).clone();
        let bytes = bytes::session(&saved, &mut self.random);
        self.folder.file("t.walsh", &bytes);
        let command = *self.random.pick(&["generate", "chat"]);
        let mut arguments = vec![
            command,
            "--model",
            "ordinary.gguf",
            "-n",
            "2",
            "--load",
            "t.walsh",
        ];
        if command == "generate" {
            arguments.push(" more");
        }
        let ended = self.run(&arguments);
        self.note(command, &ended, &[("t.walsh", &bytes)]);
    }

    fn template(&mut self) {
        let template = templates::template(&mut self.random);
        let model = Tiny {
            // The few templates of a run live as long as it.
            chat_template: Some(Box::leak(template.clone().into_boxed_str())),
            ..Tiny::default()
        };
        self.folder.file("t.gguf", &model.gguf());
        let ended = self.run(&["generate", "--model", "t.gguf", "--chat", "-n", "2", "hi"]);
        self.note("a template", &ended, &[("template", template.as_bytes())]);
    }

    fn options(&mut self) {
        let arguments = options::arguments(&mut self.random);
        let mut command = support::command();
        command.args(["generate", "--model", "ordinary.gguf", "-n", "2"]);
        command.args(&arguments);
        let ended = self.run_command(command);
        let text = format!("{arguments:?}");
        self.note(
            &text.chars().take(400).collect::<String>(),
            &ended,
            &[("arguments", text.as_bytes())],
        );
    }

    /// One kind, so many times.
    fn kind(&mut self, name: &str, count: usize, one: fn(&mut Self)) {
        let (started, well) = (Instant::now(), self.went_well);
        (self.slowest, self.largest) = (0.0, 0);
        for _ in 0..count {
            one(self);
        }
        println!(
            "{name}: {count}, {} of them not refused, {:.1} s; the slowest {:.2} s, the largest {} MiB",
            self.went_well - well,
            started.elapsed().as_secs_f64(),
            self.slowest,
            self.largest >> 20
        );
    }

    fn all(&mut self, counts: Counts) {
        self.kind("damaged models", counts.files, Self::file);
        self.kind("damaged sessions", counts.sessions, Self::session);
        self.kind("templates", counts.templates, Self::template);
        self.kind("command lines", counts.options, Self::options);
    }
}

fn main() -> ExitCode {
    let arguments = match arguments() {
        Ok(Some(arguments)) => arguments,
        Ok(None) => {
            println!("hostile: --full, --minutes N, --seed N");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("hostile: {error}");
            return ExitCode::from(2);
        }
    };
    let started = Instant::now();
    let mut trial = Trial::new(arguments.seed);
    println!(
        "seed {}, an ordinary run has {} MiB",
        arguments.seed,
        trial.ordinary >> 20
    );
    trial.all(arguments.counts);
    while arguments.until.is_some_and(|until| Instant::now() < until) {
        trial.all(SHORT);
    }
    let (passed, failed) = (trial.passed, trial.failed);
    println!(
        "\ntest result: {}. {passed} passed; {failed} failed; 0 ignored; 0 measured; 0 filtered out; finished in {:.2}s\n",
        if failed == 0 { "ok" } else { "FAILED" },
        started.elapsed().as_secs_f64()
    );
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
