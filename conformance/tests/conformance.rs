//! Runs every case on every target, and says which backends ran.
//!
//! `--help` says what it takes.

mod simulated;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use conformance::cases::{Table, tables};
use conformance::{Arguments, Asked, Bound, HELP, Problem, TEAMS, Target, missing, targets};
use walsh::Activations;

/// Targets that are worked on in turn, and how many workers do so, each with its own.
struct Crew {
    workers: Vec<Vec<Target>>,
    /// Where it runs but a share of long tables: what decides which.
    sample: Option<u64>,
    /// Where each case runs with one size of team: whose turn the first is.
    turn: Option<usize>,
}

impl Crew {
    /// Of how many neighbouring cases of a table it runs one, and which.
    fn share(&self, table: &Table) -> (usize, usize) {
        let first = |seed| (seed % table.share as u64) as usize;
        self.sample
            .map_or((1, 0), |seed| (table.share, first(seed)))
    }
}

/// For each case that failed, the targets that complain, with what.
type Failures = BTreeMap<String, Vec<(String, String)>>;

/// The devices, one after the other; beside them the simulator on as many threads as the machine runs.
fn crews(arguments: &Arguments, seed: u64) -> Result<Vec<Crew>, String> {
    let explain = |error: walsh::Error| error.to_string();
    let mut crews = Vec::new();
    let mut devices = targets().map_err(explain)?;
    devices.retain(|target| arguments.has(&target.name));
    if !devices.is_empty() {
        let in_turn = arguments.samples() && devices.iter().any(|target| target.team.is_some());
        crews.push(Crew {
            workers: vec![devices],
            sample: None,
            turn: in_turn.then_some(seed as usize % TEAMS.len()),
        });
    }
    if arguments.has("sim") {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let workers = (0..threads).map(|_| {
            let exact = simulated::with(seed, Activations::F32)?;
            Ok(vec![simulated::target(seed)?, exact])
        });
        crews.push(Crew {
            workers: workers.collect::<Result<_, _>>().map_err(explain)?,
            sample: arguments.samples().then_some(seed),
            turn: None,
        });
    }
    if crews.is_empty() {
        return Err(format!("no device is called {:?}", arguments.devices));
    }
    Ok(crews)
}

fn main() -> ExitCode {
    let started = Instant::now();
    let outcome = match Asked::read(std::env::args().skip(1)) {
        Ok(Asked::Help) => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Ok(Asked::Run(arguments)) => run(&arguments, started),
        Err(error) => Err(error),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("conformance: {error}");
        ExitCode::FAILURE
    })
}

/// Runs what is asked for, or lists it.
fn run(arguments: &Arguments, started: Instant) -> Result<ExitCode, String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let of_now = now.map_or(1, |since| u64::from(since.subsec_nanos()));
    let seed = arguments.seed.unwrap_or(of_now);
    let crews = crews(arguments, seed)?;
    let (mut passed, mut failed, mut filtered) = (0, 0, 0);
    for table in tables().filter(|table| arguments.wants_table(table.op)) {
        let outcome = run_table(table, &crews, arguments);
        filtered += outcome.filtered;
        passed += outcome.cases - outcome.failures.len();
        failed += outcome.failures.len();
        outcome.print(table.op);
    }
    if arguments.list {
        return Ok(ExitCode::SUCCESS);
    }
    let alone = |target: &Target| match target.extends {
        true => format!("{} (products alone)", target.name),
        false => target.name.clone(),
    };
    let names: Vec<String> = crews
        .iter()
        .flat_map(|crew| &crew.workers[0])
        .map(alone)
        .collect();
    println!(
        "\nran on: {} (simulator's seed {:#x})",
        names.join(", "),
        seed
    );
    println!("did not run: {}", missing().join(", "));
    for crew in &crews {
        if crew.turn.is_some() {
            println!("cpu ran each case with one of {TEAMS:?} threads, in turn (--all runs all)");
        }
        for table in tables().filter(|table| crew.share(table).0 > 1) {
            let (share, first) = crew.share(table);
            let (op, name) = (table.op, &crew.workers[0][0].name);
            println!(
                "{name} ran one in {share} cases of {op}, from number {first} on (--all runs all)"
            );
        }
    }
    println!(
        "\ntest result: {}. {passed} passed; {failed} failed; 0 ignored; 0 measured; {filtered} filtered out; finished in {:.2}s\n",
        if failed == 0 { "ok" } else { "FAILED" },
        started.elapsed().as_secs_f64()
    );
    Ok(if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// What became of a table's cases.
#[derive(Default)]
struct Outcome {
    cases: usize,
    filtered: usize,
    failures: Failures,
    seconds: f64,
}

impl Outcome {
    fn print(&self, op: &str) {
        for (problem, complaints) in &self.failures {
            let (first, what) = &complaints[0];
            let others: Vec<&str> = complaints[1..]
                .iter()
                .map(|(name, _)| name.as_str())
                .collect();
            let others = if others.is_empty() {
                "none".into()
            } else {
                others.join(" ")
            };
            println!("FAILED {problem} on {first}: {what}\n    also on: {others}");
        }
        if self.cases > 0 && self.seconds > 0.0 {
            let (cases, wrong, seconds) = (self.cases, self.failures.len(), self.seconds);
            println!("{op}: {cases} cases, {wrong} failed, {seconds:.2} s");
        }
    }
}

fn run_table(table: &Table, crews: &[Crew], arguments: &Arguments) -> Outcome {
    let begun = Instant::now();
    let mut outcome = Outcome::default();
    let failures = Mutex::new(Failures::new());
    std::thread::scope(|scope| {
        let mut queues = Vec::new();
        for crew in crews {
            let targets = crew.workers.iter().flatten();
            if targets.filter(|t| t.is_for(table.op)).count() == 0 {
                continue;
            }
            let (queue, problems) = sync_channel::<Task>(8);
            let problems = Arc::new(Mutex::new(problems));
            queues.push((queue, crew.share(table)));
            for targets in &crew.workers {
                let (problems, failures, turn) = (problems.clone(), &failures, crew.turn);
                let takes = move |target: &Target, number| {
                    target.is_for(table.op)
                        && turn.is_none_or(|turn| target.has_turn(turn + number))
                };
                scope.spawn(move || work(targets, takes, &problems, failures));
            }
        }
        if queues.is_empty() {
            return;
        }
        // The reference works ahead of the devices.
        let mut wanted = 0;
        for (number, problem) in table.problems().enumerate() {
            if !number.is_multiple_of(arguments.every) || !arguments.wants(&problem.name) {
                outcome.filtered += 1;
                continue;
            }
            if arguments.list {
                outcome.cases += 1;
                println!("{}: test", problem.name);
                continue;
            }
            let takes = |(_, (share, first)): &&(_, (usize, usize))| wanted % share == *first;
            let takers: Vec<&SyncSender<_>> = queues.iter().filter(takes).map(|(q, _)| q).collect();
            wanted += 1;
            if takers.is_empty() {
                outcome.filtered += 1;
                continue;
            }
            outcome.cases += 1;
            let problem = Arc::new(problem);
            let send = |queue: &&SyncSender<_>| queue.send((wanted, Arc::clone(&problem))).is_ok();
            assert!(takers.iter().all(send), "a worker ended early");
        }
    });
    outcome.failures = failures.into_inner().unwrap_or_default();
    if !arguments.list {
        outcome.seconds = begun.elapsed().as_secs_f64();
    }
    outcome
}

/// A problem, and its number among those that run.
type Task = (usize, Arc<Problem>);

/// Runs the problems that come on the targets of a worker that take them.
fn work(
    targets: &[Target],
    takes: impl Fn(&Target, usize) -> bool,
    problems: &Mutex<Receiver<Task>>,
    failures: &Mutex<Failures>,
) {
    let next = || problems.lock().ok()?.recv().ok();
    while let Some((number, problem)) = next() {
        for target in targets.iter().filter(|target| takes(target, number)) {
            let outcome = Bound::new(&problem, target)
                .map_err(|error| error.to_string())
                .and_then(|bound| bound.verify());
            if let (Err(what), Ok(mut failures)) = (outcome, failures.lock()) {
                let complaints = failures.entry(format!("{problem:?}")).or_default();
                complaints.push((target.name.clone(), what));
            }
        }
    }
}
