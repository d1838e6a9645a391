//! LoRA adapters beside a model's products (Hu et al., arXiv 2106.09685): y = W x + s · B (A x), with W as it is stored.
//!
//! A [`Rack`] has the factors of all adapters that a model was given, product by product; a [`Selection`] says which of
//! them a text takes and how much of each, and [`Applied`] is what lists read of that, row by row.

mod applied;
mod lora;
mod rack;
mod selection;

use std::sync::Arc;

use twox_hash::XxHash3_128;

pub(crate) use applied::Applied;
pub use lora::{AdapterInfo, Lora};
pub(crate) use rack::Rack;
pub(crate) use selection::Selection;

use super::fingerprint::Fingerprint;

/// The adapters of a model, and what texts take of them that say nothing else.
#[derive(Clone, Default)]
pub(super) struct Adapters {
    pub(super) rack: Option<Arc<Rack>>,
    pub(super) selection: Selection,
    /// The model's name with theirs.
    named: Option<Arc<str>>,
}

impl Adapters {
    /// Those of a model of a name.
    pub(super) fn new(model: &str, rack: Arc<Rack>, selection: Selection) -> Self {
        let chosen = selection.chosen().map(|(index, scale)| {
            let name = &rack.adapters[index].name;
            format!("{name}={scale}")
        });
        let chosen: Vec<String> = chosen.collect();
        let named = match chosen.is_empty() {
            true => None,
            false => Some(format!("{model} with the adapters {}", chosen.join(", ")).into()),
        };
        Self {
            rack: Some(rack),
            selection,
            named,
        }
    }

    /// What a model is called that files are saved for.
    pub(super) fn named<'a>(&'a self, model: &'a str) -> &'a str {
        self.named.as_deref().unwrap_or(model)
    }

    /// What tells a model with these from the one without.
    pub(super) fn fingerprint(&self, model: Fingerprint) -> Fingerprint {
        match &self.rack {
            Some(rack) if !self.selection.is_empty() => {
                let mut hasher = XxHash3_128::new();
                hasher.write(model.as_bytes());
                hasher.write(&self.selection.bytes(rack));
                Fingerprint::from_bytes(hasher.finish_128().to_be_bytes())
            }
            _ => model,
        }
    }
}
