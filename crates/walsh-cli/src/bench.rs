//! `walsh bench`.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use walsh_runtime::{
    BenchOptions, BenchReport, BenchTest, Model, PrefixOptions, ProfileOptions, ProfileRow, bench,
    prefix, profile,
};

use crate::args::Bench;
use crate::failure::{Failure, Outcome};
use crate::output::{self, Notes, Table, shown};
use crate::progress::Steps;
use crate::{interrupt, models};

pub(crate) fn run(args: &Bench) -> Outcome {
    let notes = Notes::for_figures(args.json);
    let (model, cancel) = match &args.synthetic {
        Some(synthetic) => {
            let device = models::device(&args.model.on, &args.model.cache)?;
            let model = Model::synthetic(&device, synthetic)?;
            let model = model.with_adapters(&args.lora.lora)?;
            (model, interrupt::on_interrupt()?)
        }
        None => {
            let cancel = interrupt::on_interrupt()?;
            let model = models::open_adapted((&args.model, &args.lora), &notes, &cancel)?;
            (model, cancel)
        }
    };
    models::say_unfitted(&model, &args.kv, &notes)?;
    if args.profile {
        return profiles(&model, args, &cancel);
    }
    if let Some(shared) = args.shared {
        return prefixes(&model, args, (shared.get(), cancel));
    }
    let options = BenchOptions {
        prompt: args.prompt,
        generate: args.generate,
        depths: args.depth.clone(),
        kv: args.kv.clone(),
        sequences: args.sequences.clone(),
        repetitions: args.repetitions.map(usize::from),
        cancel,
    };
    let steps = Steps::new("tests", &notes);
    let tests = [args.prompt, args.generate];
    let tests = tests.iter().filter(|&&tokens| tokens > 0).count();
    let tests = match args.sequences.len() {
        0 => tests,
        several => several,
    };
    let total = tests * args.depth.len() * args.kv.len();
    let mut done = 0;
    let report = bench(&model, &options, &mut |result| {
        done += 1;
        steps.show(done, total);
        steps.note(format_args!(
            "{} of {}{} at depth {}, {}: {:.1} tokens per second",
            name(result.test),
            result.tokens,
            match result.sequences {
                1 => String::new(),
                several => format!(" in {several} texts"),
            },
            result.depth,
            result.kv,
            result.tokens_per_second
        ));
    })?;
    drop(steps);
    print(&report, args)?;
    if report.cancelled {
        notes.note(format_args!("interrupted: not all tests were done"));
        return Err(Failure::Interrupted);
    }
    Ok(())
}

fn print(report: &BenchReport, args: &Bench) -> Outcome {
    if args.json {
        return output::print_json(report);
    }
    let submits = report
        .results
        .iter()
        .any(|result| result.submit_microseconds.is_some());
    let mut headings = vec!["test", "tokens", "depth", "kv", "tokens/s", "min", "max"];
    let several = !args.sequences.is_empty();
    if several {
        headings.insert(3, "sequences");
    }
    headings.extend(submits.then_some("host µs"));
    let mut table = Table::new(&headings);
    for result in &report.results {
        let mut cells = vec![
            name(result.test).to_owned(),
            result.tokens.to_string(),
            result.depth.to_string(),
            result.kv.clone(),
            format!("{:.1}", result.tokens_per_second),
            format!("{:.1}", result.min),
            format!("{:.1}", result.max),
        ];
        if several {
            cells.insert(3, result.sequences.to_string());
        }
        if submits {
            let time = result.submit_microseconds;
            cells.push(time.map_or("-".to_owned(), |time| format!("{time:.1}")));
        }
        table.row(cells);
    }
    let packed = match report.packed_bytes {
        0 => String::new(),
        packed => format!(", {} of weights packed", output::bytes(packed)),
    };
    let screen = match report.screen_bytes {
        0 => String::new(),
        screen => format!(", {} to find the likeliest token", output::bytes(screen)),
    };
    output::print(&format!(
        "{} on {}, {} threads{packed}{screen}\n{table}",
        shown(&report.model),
        report.device,
        report.threads
    ))
}

/// The first token behind a text that is read, and behind one that begins like it.
fn prefixes(model: &Model, args: &Bench, (shared, cancel): (usize, Arc<AtomicBool>)) -> Outcome {
    let options = PrefixOptions {
        shared,
        own: 20,
        kv: args.kv.clone(),
        repetitions: args.repetitions.map_or(3, usize::from),
        folder: args.prefix_folder.clone(),
        cancel,
    };
    let results = prefix(model, &options)?;
    if args.json {
        return output::print_json(&results);
    }
    let headings = [
        "kv",
        "in common",
        "not read",
        "first ms",
        "again ms",
        "ratio",
        "restarted ms",
        "ratio",
    ];
    let mut table = Table::new(&headings);
    for result in results {
        let restarted = |shown: &dyn Fn(f64) -> f64| {
            let shown = result.restarted_seconds.map(shown);
            shown.map_or("-".to_owned(), |number| format!("{number:.1}"))
        };
        table.row(vec![
            result.kv.clone(),
            result.shared.to_string(),
            result.reused.to_string(),
            format!("{:.1}", 1e3 * result.first_seconds),
            format!("{:.1}", 1e3 * result.again_seconds),
            format!("{:.1}", result.first_seconds / result.again_seconds),
            restarted(&|seconds| 1e3 * seconds),
            restarted(&|seconds| result.first_seconds / seconds),
        ]);
    }
    let properties = model.device().properties();
    output::print(&format!("{} on {properties}\n{table}", shown(model.name())))
}

/// Where the time of a decoded token goes, for each codec and depth.
fn profiles(model: &Model, args: &Bench, cancel: &Arc<AtomicBool>) -> Outcome {
    let mut reports = Vec::new();
    for kv in &args.kv {
        for &depth in &args.depth {
            let options = ProfileOptions {
                depth,
                kv: kv.clone(),
                tokens: args.generate,
                cancel: Arc::clone(cancel),
            };
            reports.push(profile(model, &options)?);
        }
    }
    if args.json {
        return output::print_json(&reports);
    }
    reports.iter().try_for_each(|report| {
        let host = report.submit_microseconds.map_or(String::new(), |time| {
            format!(", of which {time:.1} µs to hand it over")
        });
        output::print(&format!(
            "{} on {}, {} at depth {}\n\
             a token takes {:.1} µs{host}; its kernels, one by one, {:.1} µs\n\n{}\n{}\n",
            shown(&report.model),
            report.device,
            report.kv,
            report.depth,
            report.replay_microseconds,
            report.kernel_microseconds,
            rows("op", &report.ops),
            rows("kernel", &report.kernels),
        ))
    })
}

fn rows(heading: &str, rows: &[ProfileRow]) -> Table {
    let mut table = Table::new(&[heading, "calls", "µs", "share", "bytes", "GB/s"]);
    let dash = || "-".to_owned();
    for row in rows {
        table.row(vec![
            row.name.clone(),
            row.calls.to_string(),
            format!("{:.1}", row.microseconds),
            format!("{:.1}%", 100.0 * row.share),
            row.bytes.map_or_else(dash, output::bytes),
            row.gigabytes_per_second
                .map_or_else(dash, |rate| format!("{rate:.1}")),
        ]);
    }
    table
}

fn name(test: BenchTest) -> &'static str {
    match test {
        BenchTest::Prefill => "prefill",
        BenchTest::Decode => "decode",
    }
}
