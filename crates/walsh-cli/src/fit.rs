//! `walsh fit`.

use std::sync::Arc;

use serde_json::json;
use walsh_runtime::{Error, FitOptions, Model, Progress, Watch, fit};

use crate::args::Fit;
use crate::failure::Outcome;
use crate::output::{self, Notes, Table, shown};
use crate::progress::Steps;
use crate::{interrupt, models};

pub(crate) fn run(args: &Fit) -> Outcome {
    let notes = Notes::for_figures(args.json);
    let cancel = interrupt::on_interrupt()?;
    let model = models::open(&args.model, &notes, &cancel)?;
    let steps = Steps::new("runs of a layer", &notes);
    let fit = fit(
        &model,
        &FitOptions {
            tokens: args.tokens,
            watch: Watch {
                cancel,
                progress: Some(Arc::new(move |run: Progress| {
                    steps.show(run.done, run.total);
                })),
            },
        },
    );
    if matches!(fit, Err(Error::Cancelled)) {
        notes.note(format_args!(
            "what was measured of whole layers is kept, and the next fit of as many tokens goes on from there"
        ));
    }
    print(&model, &fit?, args)
}

fn print(model: &Model, fit: &walsh_runtime::Fit, args: &Fit) -> Outcome {
    let codecs = fit.codecs(args.budget)?;
    let spec = fit.spec(args.budget)?;
    let bits = model.kv_bits_per_value(&spec)?;
    if args.json {
        let layers = fit.layers.iter().zip(&codecs).map(|(layer, codecs)| {
            json!({
                "keys": { "kld": layer.keys, "codec": codecs.key.to_string() },
                "values": { "kld": layer.values, "codec": codecs.value.to_string() },
            })
        });
        return output::print_json(&json!({
            "model": model.name(),
            "device": model.device().properties().to_string(),
            "tokens": fit.tokens,
            "budget": args.budget,
            "kv": spec.to_string(),
            "bits_per_value": bits,
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
    output::print(&format!(
        "{} on {}, {} tokens; kld in nats where a layer's keys or values alone have 2 bits\n{table}\n\
         {} bits per value, {bits:.2} with scales:\n  {spec}\n",
        shown(model.name()),
        model.device().properties(),
        fit.tokens,
        args.budget,
    ))
}
