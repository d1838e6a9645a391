//! `walsh bench-ops`.

use serde_json::json;
use walsh::{Device, Error};
use walsh_bench::{Ceilings, Effort, Measurement, Workload};

use crate::args::BenchOps;
use crate::failure::{Failure, Outcome};
use crate::models;
use crate::output::{self, Notes, Table};

pub(crate) fn run(args: &BenchOps) -> Outcome {
    let device = models::device(&args.on, &args.cache)?;
    let effort = if args.quick {
        Effort::QUICK
    } else {
        Effort::FULL
    };
    let workloads = chosen(args, effort);
    if workloads.is_empty() {
        return Err(Failure::Usage(
            "no op matches: 'walsh bench-ops --quick' lists all".to_owned(),
        ));
    }
    // Times of small sizes say nothing about a device.
    let ceilings = match args.quick {
        true => None,
        false => ceilings(&device, effort),
    };
    let notes = Notes::for_figures(args.json);
    let mut results = Vec::with_capacity(workloads.len());
    for workload in &workloads {
        let result = walsh_bench::measure(&device, workload, effort, ceilings);
        notes.note(format_args!("{}", line(&result)));
        results.push(result);
    }
    print(&device, ceilings, &results, args.json)?;
    let mut errors = results.iter().filter_map(|result| result.error.as_ref());
    match errors.next() {
        None => Ok(()),
        Some(first) => Err(Failure::run(format_args!(
            "{} of {} could not be measured: {first}",
            1 + errors.count(),
            results.len()
        ))),
    }
}

fn print(
    device: &Device,
    ceilings: Option<Ceilings>,
    results: &[Measurement],
    as_json: bool,
) -> Outcome {
    let properties = device.properties();
    if as_json {
        return output::print_json(&json!({
            "device": properties.to_string(),
            "name": properties.name,
            "parallelism": properties.parallelism,
            "ceilings": ceilings,
            "results": results,
        }));
    }
    output::print(&format!(
        "{} on {properties}{}\n{}",
        properties.name,
        ceilings.map_or(String::new(), |ceilings| format!(
            ": memory {:.1} GB/s, products {:.2} TFLOP/s",
            ceilings.bytes_per_second / 1e9,
            ceilings.operations_per_second / 1e12
        )),
        table(results)
    ))
}

fn chosen(args: &BenchOps, effort: Effort) -> Vec<Workload> {
    let is_chosen = |workload: &Workload| {
        let filter = args.filter.as_deref().unwrap_or_default();
        (args.op.is_empty() || args.op.contains(&workload.op)) && workload.name.contains(filter)
    };
    let all = walsh_bench::workloads(&effort.sizes);
    all.into_iter().filter(is_chosen).collect()
}

/// What the device can do at best; `None` where that cannot be measured, which is said.
fn ceilings(device: &Device, effort: Effort) -> Option<Ceilings> {
    let measured = || {
        Ok::<_, Error>(Ceilings {
            bytes_per_second: device.memory_bandwidth()?,
            operations_per_second: walsh_bench::product_rate(device, effort)?,
        })
    };
    match measured() {
        Ok(ceilings) => Some(ceilings),
        Err(error) => {
            output::note(format_args!("no shares are shown: {error}"));
            None
        }
    }
}

/// A result as soon as it is there.
fn line(result: &Measurement) -> String {
    match (result.microseconds, &result.error) {
        (Some(time), _) => format!("{} {}: {time:.2} µs", result.op, result.name),
        (None, Some(error)) => format!("{} {}: {error}", result.op, result.name),
        (None, None) => format!("{} {}", result.op, result.name),
    }
}

fn table(results: &[Measurement]) -> Table {
    let mut table = Table::new(&["op", "µs", "GB/s", "TFLOP/s", "share", "of"]);
    let number = |value: Option<f64>, digits: usize| {
        value.map_or("-".to_owned(), |value| format!("{value:.digits$}"))
    };
    for result in results {
        table.row(vec![
            format!("{} {}", result.op, result.name),
            number(result.microseconds, 2),
            number(result.gigabytes_per_second, 1),
            number(result.teraflops, 3),
            result
                .share
                .map_or("-".to_owned(), |share| format!("{:.0}%", 100.0 * share)),
            result.bound.unwrap_or("-").to_owned(),
        ]);
    }
    table
}
