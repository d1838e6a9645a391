//! `walsh bench`.

use walsh_runtime::{BenchOptions, BenchTest, Model, bench};

use crate::args::Bench;
use crate::failure::Outcome;
use crate::models;
use crate::output::{self, Table};

pub(crate) fn run(args: &Bench) -> Outcome {
    let model = match &args.synthetic {
        Some(synthetic) => {
            let device = models::device(&args.model.on, &args.model.cache)?;
            Model::synthetic(&device, synthetic)?
        }
        None => models::open(&args.model)?,
    };
    let options = BenchOptions {
        prompt: args.prompt,
        generate: args.generate,
        depths: args.depth.clone(),
        kv: args.kv.clone(),
        repetitions: args.repetitions.map(usize::from),
    };
    let report = bench(&model, &options, &mut |result| {
        output::note(format_args!(
            "{} of {} at depth {}, {}: {:.1} tokens per second",
            name(result.test),
            result.tokens,
            result.depth,
            result.kv,
            result.tokens_per_second
        ));
    })?;
    if args.json {
        return output::print_json(&report);
    }
    let mut table = Table::new(&["test", "tokens", "depth", "kv", "tokens/s", "min", "max"]);
    for result in &report.results {
        table.row(vec![
            name(result.test).to_owned(),
            result.tokens.to_string(),
            result.depth.to_string(),
            result.kv.clone(),
            format!("{:.1}", result.tokens_per_second),
            format!("{:.1}", result.min),
            format!("{:.1}", result.max),
        ]);
    }
    output::print(&format!(
        "{} on {}, {} threads\n{table}",
        report.model, report.device, report.threads
    ))
}

fn name(test: BenchTest) -> &'static str {
    match test {
        BenchTest::Prefill => "prefill",
        BenchTest::Decode => "decode",
    }
}
