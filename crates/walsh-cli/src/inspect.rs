//! `walsh inspect`.

use std::path::Path;

use serde_json::json;
use walsh_convert::Files;
use walsh_runtime::{CalibrationOptions, Inspection, LayerHeads, Model, inspect};

use crate::args::Inspect;
use crate::failure::Outcome;
use crate::output::{self, Notes, Table, abridged, bytes, shown};
use crate::{interrupt, models};

pub(crate) fn run(args: &Inspect) -> Outcome {
    let target = args.model.as_ref().unwrap_or(&args.target);
    let notes = Notes::for_figures(args.json);
    let path = models::resolve(target, &args.cache, &notes, &interrupt::on_interrupt()?)?;
    if args.tensors {
        return list(&path, args.json);
    }
    let device = walsh::open("cpu:threads=1,packing=never")?;
    let calibrations = CalibrationOptions {
        folder: models::kept_folder(&args.cache),
        ..CalibrationOptions::default()
    };
    let model = Model::open_with(&device, path, calibrations)?;
    models::say_unfitted(&model, &args.kv, &notes)?;
    let context = args.context.map_or(0, usize::from);
    let inspection = inspect(&model, &args.kv, context)?;
    if args.json {
        return output::print_json(&inspection);
    }
    output::print(&describe(&inspection))
}

/// Prints every tensor of a file.
fn list(path: &Path, is_json: bool) -> Outcome {
    let files = Files::open(path)?;
    let source = files.source()?;
    if is_json {
        let tensors = source.tensors.iter().map(|tensor| {
            json!({
                "name": tensor.name,
                "shape": tensor.shape,
                "type": tensor.dtype.name(),
                "bytes": tensor.bytes(),
            })
        });
        return output::print_json(&json!({ "tensors": tensors.collect::<Vec<_>>() }));
    }
    let mut table = Table::new(&["tensor", "shape", "type", "size"]);
    for tensor in &source.tensors {
        let shape: Vec<String> = tensor.shape.iter().map(u64::to_string).collect();
        table.row(vec![
            shown(&tensor.name).to_string(),
            shape.join("×"),
            tensor.dtype.to_string(),
            bytes(tensor.bytes()),
        ]);
    }
    output::print(&table.to_string())
}

fn describe(model: &Inspection) -> String {
    let shape = &model.shape;
    let windows = shape.window.map_or(String::new(), |window| {
        format!(
            "\na window of {window} tokens on {} layers, counted from 0: {}\nall other layers attend globally",
            shape.sliding_layers.len(),
            ranges(&shape.sliding_layers)
        )
    });
    let states = shape.state_bytes.map_or(String::new(), |state| {
        format!(
            "\nno keys and values on {} layers, counted from 0: {}; they keep {} of a text, whatever its length",
            shape.recurrent_layers.len(),
            ranges(&shape.recurrent_layers),
            bytes(state)
        )
    });
    let sharing = match shape.sharing_layers.as_slice() {
        [] => String::new(),
        layers => format!(
            "\nno keys and values of their own on {} layers, counted from 0: {}; they attend to those of earlier layers",
            layers.len(),
            ranges(layers)
        ),
    };
    let experts = match (shape.experts, shape.experts_used) {
        (Some(count), Some(used)) => match shape.experts_beside {
            None => format!(" in each of {count} experts, {used} to a token"),
            Some(inner) => {
                format!(", and {inner} in each of {count} experts beside it, {used} to a token")
            }
        },
        _ => String::new(),
    };
    let embeddings = shape.per_layer_width.map_or(String::new(), |width| {
        format!("\nan embedding of {width} numbers of each token for each layer")
    });
    let dense = shape.dense_feed_forward.map_or(String::new(), |inner| {
        format!(
            "\nno experts but a feed-forward part of {inner} on {} layers, counted from 0: {}",
            shape.dense_layers.len(),
            ranges(&shape.dense_layers)
        )
    });
    let pooling = shape.pooling.map_or(String::new(), |pooling| {
        format!("\nmakes one vector of a text, with {pooling} pooling, and no texts")
    });
    let heads = match shape.unlike_heads.as_slice() {
        [] => format!("{} KV heads of {}", shape.kv_heads, shape.head_dim),
        kinds => {
            let kind = |kind: &LayerHeads| {
                let (heads, dim) = (kind.kv_heads, kind.head_dim);
                format!(
                    "{heads} KV heads of {dim} on layers {}",
                    ranges(&kind.layers)
                )
            };
            kinds.iter().map(kind).collect::<Vec<_>>().join(", ")
        }
    };
    let mut types = Table::new(&["type", "tensors", "weights", "size", "share"]);
    let total: u64 = model.tensors.iter().map(|share| share.bytes).sum();
    for share in &model.tensors {
        types.row(vec![
            share.dtype.to_owned(),
            share.count.to_string(),
            share.elements.to_string(),
            bytes(share.bytes),
            format!("{:.1}%", 100.0 * share.bytes as f64 / total.max(1) as f64),
        ]);
    }
    let session = format!("at {} tokens", model.context);
    let free = model.available_bytes;
    let total = |cost: u64| match free {
        Some(free) if free < cost => format!("{}, too much", bytes(cost)),
        _ => bytes(cost),
    };
    let mut kv = Table::new(&["SPEC", "bytes/token", "bits/value", &session]);
    for cost in &model.kv {
        kv.row(match (cost.bytes_per_token, cost.bits_per_value) {
            (Some(size), Some(bits)) => vec![
                cost.kv.clone(),
                size.to_string(),
                format!("{bits:.2}"),
                cost.session_bytes.map_or(String::new(), total),
            ],
            _ => vec![
                cost.kv.clone(),
                "-".to_owned(),
                "-".to_owned(),
                "does not fit".to_owned(),
            ],
        });
    }
    let mut meanings = String::new();
    for cost in &model.kv {
        let why_not = cost.why_not.as_ref();
        let why_not = why_not.map_or(String::new(), |why| format!(" ({why})"));
        meanings.push_str(&format!("  {}: {}{why_not}\n", cost.kv, cost.meaning));
    }
    let mut metadata = String::new();
    for entry in &model.metadata {
        let length = entry
            .length
            .map_or(String::new(), |length| format!(" ({length} elements)"));
        metadata.push_str(&format!(
            "  {} = {}{length}\n",
            shown(&entry.key),
            abridged(&entry.value)
        ));
    }
    format!(
        "{name}, {architecture}, {parameters:.1} million weights, {size}\n\
         {path}\n\
         {layers} layers of width {width}, feed-forward {feed_forward}{experts}{dense}{embeddings}{pooling}{windows}{states}{sharing}\n\
         {queries} query heads and {heads}\n\
         vocabulary of {vocabulary}, trained for a context of {context}\n\
         \nWeights by type\n{types}\
         \nKV cache, all layers{of_them} (sliding layers keep their window and the chunk in flight)\n{kv}{free}\
         \n{meanings}\
         \nMetadata\n{metadata}",
        free = free.map_or(String::new(), |free| {
            format!("  {} of memory are free\n", bytes(free))
        }),
        name = shown(&model.name),
        architecture = shown(model.architecture),
        parameters = model.parameters as f64 / 1e6,
        size = bytes(model.file_bytes),
        path = shown(&model.path),
        layers = shape.layers,
        width = shape.width,
        feed_forward = shape.feed_forward,
        experts = experts,
        of_them = match shape.recurrent_layers.len() + shape.sharing_layers.len() {
            0 => String::new(),
            without => format!(
                " that have one, {} of {}",
                shape.layers - without,
                shape.layers
            ),
        },
        queries = shape.heads,
        vocabulary = shape.vocabulary,
        context = shape.context,
    )
}

/// Ascending numbers, neighbours together: `0–4, 6, 8–9`.
fn ranges(numbers: &[usize]) -> String {
    let mut text = Vec::new();
    for run in numbers.chunk_by(|before, after| before + 1 == *after) {
        text.push(match run {
            [first, .., last] => format!("{first}–{last}"),
            run => run.iter().map(usize::to_string).collect(),
        });
    }
    text.join(", ")
}
