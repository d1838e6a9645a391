//! `walsh perplexity`.

use walsh_runtime::{PerplexityOptions, perplexity};

use crate::args::Perplexity;
use crate::failure::{Failure, Outcome};
use crate::models;
use crate::output::{self, Table};

pub(crate) fn run(args: &Perplexity) -> Outcome {
    let text = std::fs::read(&args.file).map_err(|error| {
        Failure::run(format_args!("cannot read {}: {error}", args.file.display()))
    })?;
    let model = models::open(&args.model)?;
    let options = PerplexityOptions {
        context: args.context,
        chunks: args.chunks.map(usize::from),
        kv: args.kv.clone(),
    };
    let report = perplexity(&model, &text, &options, &mut |progress| {
        let figures: Vec<String> = args
            .kv
            .iter()
            .zip(&progress.perplexities)
            .map(|(kv, ppl)| format!("{kv} {ppl:.4}"))
            .collect();
        output::note(format_args!(
            "[{}/{}] {}",
            progress.chunk,
            progress.chunks,
            figures.join("  ")
        ));
    })?;
    if args.json {
        return output::print_json(&report);
    }
    let mut table = Table::new(&[
        "kv",
        "perplexity",
        "±",
        "kld mean",
        "kld 99%",
        "same top",
        "KV bytes/token",
    ]);
    for result in &report.results {
        table.row(vec![
            result.kv.clone(),
            format!("{:.4}", result.ppl),
            format!("{:.4}", result.ppl_stderr),
            format!("{:.6}", result.kld_mean),
            format!("{:.6}", result.kld_p99),
            format!("{:.2}%", 100.0 * result.same_top),
            result.kv_bytes_per_token.to_string(),
        ]);
    }
    output::print(&format!(
        "{} on {}, {} chunks of {} tokens; kld in nats and same top against {}\n{table}",
        report.model, report.device, report.chunks, report.context, options.kv[0]
    ))
}
