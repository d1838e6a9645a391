//! `walsh fit`.

use std::num::NonZeroUsize;
use std::sync::Arc;

use serde_json::json;
use walsh::KvSpec;
use walsh_runtime::{Error, FitOptions, LayerStats, Model, Progress, Watch, fit, stored_stats};

use crate::args::Fit;
use crate::failure::Outcome;
use crate::output::{self, Notes, Table, shown};
use crate::progress::Steps;
use crate::{interrupt, models};

pub(crate) fn run(args: &Fit) -> Outcome {
    let notes = Notes::for_figures(args.json);
    let cancel = interrupt::on_interrupt()?;
    let model = models::open(&args.model, &notes, &cancel)?;
    let options = |what: &'static str| {
        let steps = Steps::new(what, &notes);
        FitOptions {
            tokens: args.tokens.map_or(0, NonZeroUsize::get),
            watch: Watch {
                cancel: cancel.clone(),
                progress: Some(Arc::new(move |run: Progress| {
                    steps.show(run.done, run.total);
                })),
            },
        }
    };
    let fit = fit(&model, &options("runs of a layer"));
    if matches!(fit, Err(Error::Cancelled)) {
        notes.note(format_args!(
            "what was measured of whole layers is kept, and the next fit of as many tokens goes on from there"
        ));
    }
    let fit = fit?;
    let spec = fit.spec(args.budget)?;
    let stats = match args.stats {
        true => stored_stats(&model, &spec, &options("layers looked at"))?,
        false => Vec::new(),
    };
    print(&model, &fit, &spec, &stats, args)
}

/// Where bits per value are said with the overlay counted, whose tokens are of a fixed number.
const BEHIND: [usize; 3] = [1 << 10, 1 << 12, 1 << 15];

/// Prints a fit, and what its SPEC stores if there are statistics of it.
fn print(
    model: &Model,
    fit: &walsh_runtime::Fit,
    spec: &KvSpec,
    stats: &[LayerStats],
    args: &Fit,
) -> Outcome {
    let codecs = fit.codecs(args.budget)?;
    let bits = model.kv_bits_per_value(spec)?;
    let behind: Vec<(usize, f64)> = BEHIND
        .into_iter()
        .map(|tokens| Ok((tokens, model.kv_bits_per_value_behind(spec, tokens)?)))
        .collect::<Result<_, Error>>()?;
    if args.json {
        let layers = fit.layers.iter().zip(&codecs).enumerate();
        let layers = layers.map(|(index, (layer, codecs))| {
            let mut sides = [
                json!({ "kld": layer.keys, "codec": codecs.key.to_string() }),
                json!({ "kld": layer.values, "codec": codecs.value.to_string() }),
            ];
            if let Some(stats) = stats.get(index) {
                for (side, stats) in sides.iter_mut().zip([stats.keys, stats.values]) {
                    side["rms"] = json!(stats.rms);
                    side["scaled_rms"] = json!(stats.scaled_rms);
                    side["squared_error"] = json!(stats.error);
                }
            }
            let [keys, values] = sides;
            json!({ "keys": keys, "values": values })
        });
        return output::print_json(&json!({
            "model": model.name(),
            "device": model.device().properties().to_string(),
            "tokens": fit.tokens,
            "budget": args.budget,
            "kv": spec.to_string(),
            "bits_per_value": bits,
            "bits_per_value_behind": behind
                .iter()
                .map(|(tokens, bits)| json!({ "tokens": tokens, "bits": bits }))
                .collect::<Vec<_>>(),
            "layers": layers.collect::<Vec<_>>(),
        }));
    }
    let mut table = Table::new(&["layer", "kld of keys", "kld of values", "keys", "values"]);
    for (index, (layer, codecs)) in fit.layers.iter().zip(&codecs).enumerate() {
        table.row(vec![
            index.to_string(),
            format!("{:.6}", layer.keys),
            format!("{:.6}", layer.values),
            codecs.key.to_string(),
            codecs.value.to_string(),
        ]);
    }
    let stored = match stats {
        [] => String::new(),
        stats => format!(
            "\nwhat is stored of these tokens: rms as it is encoded, rms over the stored scales, squared error over the square\n{}",
            stored(stats)
        ),
    };
    output::print(&format!(
        "{} on {}, {} tokens; kld in nats where a layer's keys or values alone have 2 bits\n{table}\n\
         {} bits per value, {bits:.2} with scales, and with what is kept of first and recent tokens {}:\n  {spec}\n{stored}",
        shown(model.name()),
        model.device().properties(),
        fit.tokens,
        args.budget,
        behind
            .iter()
            .map(|(tokens, bits)| format!("{bits:.2} behind {tokens} tokens"))
            .collect::<Vec<_>>()
            .join(", "),
    ))
}

/// A row per layer.
fn stored(stats: &[LayerStats]) -> Table {
    let mut table = Table::new(&[
        "layer",
        "keys: rms",
        "scaled",
        "error",
        "values: rms",
        "scaled",
        "error",
    ]);
    for (index, layer) in stats.iter().enumerate() {
        let mut row = vec![index.to_string()];
        for side in [layer.keys, layer.values] {
            row.push(format!("{:.4}", side.rms));
            row.push(
                side.scaled_rms
                    .map_or("-".into(), |rms| format!("{rms:.3}")),
            );
            row.push(format!("{:.5}", side.error));
        }
        table.row(row);
    }
    table
}
