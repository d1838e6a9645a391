//! Runs every case on every target, and says which backends ran.
//!
//! Takes a filter on case names, as the usual harness does.

use std::process::ExitCode;
use std::sync::mpsc::sync_channel;
use std::time::Instant;

use conformance::cases::TABLES;
use conformance::{Bound, Problem, Target, missing_backends, targets};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let filters: Vec<&String> = arguments.iter().filter(|a| !a.starts_with('-')).collect();
    let wanted = |name: &str| filters.is_empty() || filters.iter().any(|f| name.contains(*f));
    let list = arguments.iter().any(|argument| argument == "--list");
    let targets = match targets() {
        Ok(targets) => targets,
        Err(error) => {
            eprintln!("conformance: {error}");
            return ExitCode::FAILURE;
        }
    };
    let started = Instant::now();
    let (mut passed, mut failed, mut filtered) = (0, 0, 0);
    for table in TABLES {
        let begun = Instant::now();
        let (mut cases, mut wrong) = (0, 0);
        std::thread::scope(|scope| {
            // The reference works ahead of the devices.
            let (ahead, problems) = sync_channel(8);
            scope.spawn(move || {
                let sent = |problem| ahead.send(problem).is_ok();
                table.problems().all(sent)
            });
            for problem in problems {
                if !wanted(&problem.name) {
                    filtered += 1;
                    continue;
                }
                cases += 1;
                if list {
                    println!("{}: test", problem.name);
                } else if let Some(failure) = run(&problem, table.op, &targets) {
                    println!("{failure}");
                    wrong += 1;
                }
            }
        });
        if list {
            continue;
        }
        if cases > 0 {
            let seconds = begun.elapsed().as_secs_f64();
            let op = table.op;
            println!("{op}: {cases} cases, {wrong} failed, {seconds:.2} s");
        }
        failed += wrong;
        passed += cases - wrong;
    }
    if list {
        return ExitCode::SUCCESS;
    }
    let names: Vec<_> = targets.iter().map(|t| t.name.as_str()).collect();
    println!("\nran on: {}", names.join(" "));
    println!("did not run: {}", missing_backends().join(", "));
    println!(
        "\ntest result: {}. {passed} passed; {failed} failed; 0 ignored; 0 measured; {filtered} filtered out; finished in {:.2}s\n",
        if failed == 0 { "ok" } else { "FAILED" },
        started.elapsed().as_secs_f64()
    );
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// What went wrong with a case, if anything: the first target's complaint, and
/// which others complain.
fn run(problem: &Problem, op: &str, targets: &[Target]) -> Option<String> {
    let wrong = |target: &Target| {
        let outcome = Bound::new(problem, target)
            .map_err(|error| error.to_string())
            .and_then(|bound| bound.verify());
        Some((target.name.clone(), outcome.err()?))
    };
    let failures: Vec<_> = targets
        .iter()
        .filter(|target| target.is_for(op))
        .filter_map(wrong)
        .collect();
    let (first, what) = failures.first()?;
    let others: Vec<&str> = failures[1..]
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    Some(format!(
        "FAILED {problem:?} on {first}: {what}\n    also on: {}",
        if others.is_empty() {
            "none".into()
        } else {
            others.join(" ")
        }
    ))
}
