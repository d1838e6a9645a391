//! Adapters that become part of a model's weights.

use super::pair::{Adapter, Base, Pair};
use crate::source::{Source, Tensor};
use crate::{Error, Result};

/// What is added to a tensor's rows.
#[derive(Debug)]
pub(crate) struct Addition {
    pair: Pair,
    scale: f32,
}

impl Addition {
    /// Adds it to a row.
    pub(crate) fn add(&self, row: usize, values: &mut [f32]) {
        let Pair {
            rank,
            columns,
            a,
            b,
            ..
        } = &self.pair;
        let b = &b[row * rank..(row + 1) * rank];
        for (b, a) in b.iter().zip(a.chunks_exact(*columns)) {
            let factor = self.scale * b;
            for (value, a) in values.iter_mut().zip(a) {
                *value += factor * a;
            }
        }
    }
}

impl Source<'_> {
    /// What adapters are read by.
    pub fn base(&self) -> Base<'_> {
        let heads = self.number("attention.head_count").unwrap_or(0);
        Base {
            architecture: self.architecture(),
            heads,
            kv_heads: self.number("attention.head_count_kv").unwrap_or(heads),
        }
    }

    /// Adds adapters, each times a scale, to the weights that they are for: their values are so wherever they are read.
    ///
    /// # Errors
    /// When an adapter has something for a weight that the model has not, or of another shape, is there twice, or its scale
    /// is not finite.
    pub fn merge(&mut self, adapters: Vec<(Adapter, f32)>) -> Result<()> {
        for (index, (adapter, _)) in adapters.iter().enumerate() {
            let same = |(other, _): &&(Adapter, f32)| other.pairs == adapter.pairs;
            if let Some((other, _)) = adapters[..index].iter().find(same) {
                return Err(Error::adapter(
                    &adapter.path,
                    format!(
                        "it is the same adapter as {}: give it once, with the sum of the scales",
                        other.path.display()
                    ),
                ));
            }
        }
        adapters
            .into_iter()
            .try_for_each(|(adapter, scale)| self.merge_one(adapter, scale))
    }

    fn merge_one(&mut self, adapter: Adapter, scale: f32) -> Result<()> {
        let Adapter { path, pairs, .. } = adapter;
        let wrong = |what: String| Err(Error::adapter(&path, what));
        if !scale.is_finite() {
            return wrong(format!("its scale is {scale}, not a finite number"));
        }
        for (product, pair) in pairs {
            let name = format!("{product}.weight");
            let scaled = format!("{product}.scale");
            if self.tensors.iter().any(|tensor| tensor.name == scaled) {
                return wrong(format!(
                    "{name} has a scale beside it in the model, and nothing can be added to such weights"
                ));
            }
            let found = self.tensors.iter_mut().find(|tensor| tensor.name == name);
            let Some(tensor) = found else {
                return wrong(format!(
                    "it has something for {name}, which the model has not: it is an adapter of another model"
                ));
            };
            let shape = [pair.rows as u64, pair.columns as u64];
            if tensor.shape != shape {
                return wrong(format!(
                    "what it has for {name} has the shape {shape:?}, and the model's is {:?}: it is an adapter of another model",
                    tensor.shape
                ));
            }
            if scale != 0.0 {
                tensor.additions.push(Addition { pair, scale });
            }
        }
        Ok(())
    }
}

impl Tensor<'_> {
    /// Whether its values are others than those that are stored.
    pub(crate) fn is_merged(&self) -> bool {
        !self.additions.is_empty()
    }
}
