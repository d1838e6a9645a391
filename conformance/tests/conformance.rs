//! Runs every case on every target, and says which backends ran.
//!
//! Takes a filter on case names, as the usual harness does.

use std::process::ExitCode;
use std::time::Instant;

use conformance::{Bound, Problem, Target, cases, missing_backends, targets};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let filters: Vec<&String> = arguments.iter().filter(|a| !a.starts_with('-')).collect();
    let wanted = |name: &str| filters.is_empty() || filters.iter().any(|f| name.contains(*f));
    let targets = match targets() {
        Ok(targets) => targets,
        Err(error) => {
            eprintln!("conformance: {error}");
            return ExitCode::FAILURE;
        }
    };
    let started = Instant::now();
    let (mut passed, mut failed, mut filtered) = (0, 0, 0);
    for (table, problems) in cases::tables() {
        let (problems, others): (Vec<_>, Vec<_>) =
            problems.into_iter().partition(|p| wanted(&p.name));
        filtered += others.len();
        if arguments.iter().any(|a| a == "--list") {
            problems.iter().for_each(|p| println!("{}: test", p.name));
            continue;
        }
        let begun = Instant::now();
        let mut wrong = 0;
        for problem in &problems {
            if let Some(failure) = run(problem, &targets) {
                println!("{failure}");
                wrong += 1;
            }
        }
        if !problems.is_empty() {
            println!(
                "{table}: {} cases, {wrong} failed, {:.2} s",
                problems.len(),
                begun.elapsed().as_secs_f64()
            );
        }
        failed += wrong;
        passed += problems.len() - wrong;
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
fn run(problem: &Problem, targets: &[Target]) -> Option<String> {
    let wrong = |target: &Target| {
        let outcome = Bound::new(problem, &target.device)
            .map_err(|error| error.to_string())
            .and_then(|bound| bound.verify());
        Some((target.name.clone(), outcome.err()?))
    };
    let failures: Vec<_> = targets.iter().filter_map(wrong).collect();
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
