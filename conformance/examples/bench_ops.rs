//! Times the conformance cases: `cargo run --release -p conformance --example
//! bench_ops -- [--device SPEC]... FILTER...` prints, for each case whose name
//! holds a filter, the median time of a run and the bytes that pass per second.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use conformance::cases::TABLES;
use conformance::{Bound, Problem, Target};

/// How long a case is timed.
const TIME: Duration = Duration::from_millis(200);

fn main() -> ExitCode {
    match bench() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench_ops: {error}");
            ExitCode::FAILURE
        }
    }
}

fn bench() -> Result<(), walsh::Error> {
    let (mut devices, mut filters) = (Vec::new(), Vec::new());
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        if argument == "--device" {
            devices.extend(arguments.next());
        } else {
            filters.push(argument);
        }
    }
    if devices.is_empty() {
        devices.push("cpu".into());
    }
    let targets = devices
        .iter()
        .map(|name| Target::open(name))
        .collect::<Result<Vec<_>, _>>()?;
    for problem in TABLES.iter().flat_map(|table| table.problems()) {
        if filters.iter().any(|filter| problem.name.contains(filter)) {
            for target in &targets {
                let median = median(&problem, target)?;
                let rate = problem.bytes() as f64 / median.as_secs_f64() / 1e9;
                let (name, on) = (&problem.name, &target.name);
                println!("{:10.2} µs {rate:8.2} GB/s  {on}  {name}", micros(median));
            }
        }
    }
    Ok(())
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// The median time of a run.
fn median(problem: &Problem, target: &Target) -> Result<Duration, walsh::Error> {
    let bound = Bound::new(problem, target)?;
    bound.reset()?;
    bound.run()?;
    let mut times = Vec::new();
    let begun = Instant::now();
    while begun.elapsed() < TIME || times.len() < 5 {
        let start = Instant::now();
        bound.run()?;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    Ok(times[times.len() / 2])
}
