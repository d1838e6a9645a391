//! Adapters in GGUF files, as llama.cpp's `convert_lora_to_gguf.py` writes them.

use std::collections::BTreeMap;
use std::path::Path;

use walsh_formats::gguf::Gguf;

use super::pair::{Adapter, Base, Halves, Pair, Stored, alpha};
use crate::source::map;
use crate::{Error, Result};

const ALPHA: &str = "adapter.lora.alpha";

/// Keys below `adapter.` that say nothing of what is computed.
const ABOUT: &[&str] = &["adapter.lora.task_name"];

pub(super) fn read(path: &Path, base: &Base<'_>) -> Result<Adapter> {
    let bytes = map(path)?;
    let damaged = |error| Error::Gguf {
        path: path.to_owned(),
        error,
    };
    let gguf = Gguf::parse(&bytes).map_err(damaged)?;
    let wrong = |what: String| Error::adapter(path, what);
    let text = |key| gguf.metadata().opt_str(key).map_err(damaged);
    match text("general.type")? {
        Some("adapter") => {}
        kind => {
            return Err(wrong(format!(
                "general.type is {:?}, not \"adapter\": it is no LoRA adapter",
                kind.unwrap_or("missing")
            )));
        }
    }
    match text("adapter.type")? {
        Some("lora") => {}
        kind => {
            return Err(wrong(format!(
                "adapter.type is {:?}, and adapters of the type \"lora\" are applied",
                kind.unwrap_or("missing")
            )));
        }
    }
    match text("general.architecture")? {
        Some(architecture) if architecture == base.architecture => {}
        architecture => {
            return Err(wrong(format!(
                "it is an adapter of the architecture {:?}, and the model is {}: use an adapter of this model",
                architecture.unwrap_or("missing"),
                base.architecture
            )));
        }
    }
    for (key, _) in gguf.metadata().iter() {
        if key.starts_with("adapter.")
            && key != "adapter.type"
            && key != ALPHA
            && !ABOUT.contains(&key)
        {
            return Err(wrong(format!(
                "{key:?} is not known, and leaving it out could change what the adapter does"
            )));
        }
    }
    // Without an alpha the product is taken as it is.
    let alpha = gguf.metadata().opt_f32(ALPHA).map_err(damaged)?;
    let alpha = alpha.map(|value| alpha_of(value.into())).transpose();
    let alpha = alpha.map_err(&wrong)?;
    let mut halves = Halves::default();
    for tensor in gguf.tensors() {
        let (product, side) = half(tensor.name).map_err(&wrong)?;
        let stored = Stored {
            dtype: tensor.dtype,
            shape: tensor.shape.clone(),
            data: gguf.data(tensor),
        };
        let named = (tensor.name.to_owned(), stored);
        halves
            .put(product.to_owned(), side, named)
            .map_err(&wrong)?;
    }
    let mut pairs = BTreeMap::new();
    for (product, [(a_name, a), (b_name, b)]) in halves.whole().map_err(&wrong)? {
        let scale = |rank: u64| alpha.map_or(1.0, |alpha| alpha / rank as f64);
        let pair = Pair::new([&a_name, &b_name], [&a, &b], scale).map_err(&wrong)?;
        pairs.insert(product, pair);
    }
    Ok(Adapter {
        path: path.to_owned(),
        name: Adapter::name_of(path),
        pairs,
    })
}

fn alpha_of(value: f64) -> Result<f64, String> {
    alpha(ALPHA, value)
}

/// The product that a tensor is of, without `.weight`, and whether it is A or B of it.
fn half(name: &str) -> Result<(&str, usize), String> {
    let shown = || name.chars().take(80).collect::<String>();
    let (product, side) = match (name.strip_suffix(".lora_a"), name.strip_suffix(".lora_b")) {
        (Some(product), _) => (product, 0),
        (None, Some(product)) => (product, 1),
        (None, None) => {
            return Err(format!(
                "tensor {:?} is neither A nor B of a product, and leaving it out would change what the adapter does",
                shown()
            ));
        }
    };
    if product == "token_embd.weight" {
        return Err(format!(
            "tensor {:?} is of the token embeddings, which adapters are not applied to",
            shown()
        ));
    }
    match product.strip_suffix(".weight") {
        Some(product) => Ok((product, side)),
        None => Err(format!("tensor {:?} is of no weight", shown())),
    }
}
