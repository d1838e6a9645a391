//! What metadata says about layers that keep a state.

use walsh::formats::gguf::Value;
use walsh::ops::{DeltaRule, HeadOrder, ShortConv};

use super::{LARGEST, Reader};
use crate::{Error, Result};

/// Layers of a short convolution, whose state its latest inputs are, and what comes behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecurrentConfig {
    /// The numbers of a token that pass the convolution.
    pub channels: usize,
    /// How many tokens the convolution spans.
    pub taps: usize,
    /// The gated delta rule behind it; where there is none, the convolution stands between two gates.
    pub delta: Option<DeltaConfig>,
}

/// The gated delta rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeltaConfig {
    /// Heads, each with a state.
    pub heads: usize,
    /// Heads of queries and keys, which heads share.
    pub key_heads: usize,
    /// Numbers of a query and of a key.
    pub key_dim: usize,
    /// Numbers of a value.
    pub value_dim: usize,
    /// Which key head belongs to a head.
    pub order: HeadOrder,
}

impl DeltaConfig {
    /// The numbers of all heads' values.
    pub(crate) fn values(&self) -> usize {
        self.heads * self.value_dim
    }
}

impl RecurrentConfig {
    /// The bytes of a sequence's state in one layer.
    pub(crate) fn state_bytes(&self) -> u64 {
        let delta = self.delta.map_or(0, |delta| delta.values() * delta.key_dim);
        let latest = (self.taps - 1) * self.channels;
        ((delta + latest) * size_of::<f32>()) as u64
    }
}

impl Reader<'_, '_> {
    /// The shape of layers that keep a state, of families that have some, in a stream of so many numbers.
    pub(super) fn recurrent(&self, width: u64) -> Result<Option<RecurrentConfig>> {
        if self.architecture.has_convolutions() {
            if !width.is_multiple_of(16) {
                reject!(
                    self,
                    "convolutions of {width} channels are not supported: their number must be a multiple of 16"
                );
            }
            return Ok(Some(RecurrentConfig {
                channels: width as usize,
                taps: self.taps("shortconv.l_cache")?,
                delta: None,
            }));
        }
        if !self.architecture.is_hybrid() {
            return Ok(None);
        }
        let [inner, heads, key_heads] = ["ssm.inner_size", "ssm.time_step_rank", "ssm.group_count"]
            .map(|name| match self.size(name)? {
                size if size == 0 || size > LARGEST => Err(self.no_model_has(name, size)),
                size => Ok(size),
            });
        let (inner, heads, key_heads) = (inner?, heads?, key_heads?);
        if !inner.is_multiple_of(heads) || !heads.is_multiple_of(key_heads) {
            reject!(
                self,
                "{inner} numbers of {heads} heads that share {key_heads} key heads are no whole numbers each: download it again"
            );
        }
        let key_dim = self.size("ssm.state_size")?;
        for dim in [key_dim, inner / heads] {
            let most = DeltaRule::MOST_DIM;
            if dim == 0 || dim > most || !dim.is_multiple_of(16) {
                reject!(
                    self,
                    "heads with a state of {dim} numbers are not supported: they must be a multiple of 16, at most {most}"
                );
            }
        }
        let delta = DeltaConfig {
            heads: heads as usize,
            key_heads: key_heads as usize,
            key_dim: key_dim as usize,
            value_dim: (inner / heads) as usize,
            order: self.architecture.head_order(),
        };
        Ok(Some(RecurrentConfig {
            // The queries, keys and values of all heads.
            channels: 2 * delta.key_heads * delta.key_dim + delta.values(),
            taps: self.taps("ssm.conv_kernel")?,
            delta: Some(delta),
        }))
    }

    /// How many tokens convolutions span.
    fn taps(&self, name: &str) -> Result<usize> {
        let most = ShortConv::MOST_TAPS;
        match self.size(name)? {
            taps if (2..=most).contains(&taps) => Ok(taps as usize),
            taps => reject!(
                self,
                "metadata key {} is {taps}, but only 2 to {most} are supported: use another model",
                self.key(name)
            ),
        }
    }

    /// Which of all layers keep a state.
    pub(super) fn recurrent_layers(&self, count: usize) -> Result<Vec<bool>> {
        let layers = match self.architecture {
            architecture if architecture.has_convolutions() => {
                let heads = self.attending_heads(count)?;
                heads.into_iter().map(|heads| heads == 0).collect()
            }
            architecture if architecture.is_hybrid() => self.delta_layers(count)?,
            _ => vec![false; count],
        };
        let computing = count - self.guessing_layers(count)?;
        if layers[..computing].iter().all(|recurrent| *recurrent) {
            reject!(
                self,
                "no layer attends, which no model of this family has: convert the model again"
            );
        }
        Ok(layers)
    }

    /// Which of all layers follow the delta rule.
    fn delta_layers(&self, count: usize) -> Result<Vec<bool>> {
        let key = self.key("attention.recurrent_layers");
        match self.metadata.get(&key) {
            Some(Value::Array(array)) => self.pattern(&key, *array, count),
            Some(_) => reject!(
                self,
                "metadata key {key} must have an entry for each layer: convert the model again"
            ),
            None => {
                let interval = self.opt_size("full_attention_interval")?.unwrap_or(4);
                // The last of each interval attends; of intervals of 0 none does.
                let recurs = |layer: u64| !(layer + 1).is_multiple_of(interval);
                Ok((0..count as u64).map(recurs).collect())
            }
        }
    }

    /// How many layers only guess further tokens: the last.
    pub(super) fn guessing_layers(&self, count: usize) -> Result<usize> {
        let key = "nextn_predict_layers";
        if !super::keys::is_read(key, self.architecture) {
            return Ok(0);
        }
        match self.opt_size(key)?.unwrap_or(0) {
            guessing if guessing < count as u64 => Ok(guessing as usize),
            guessing => Err(self.no_model_has(key, guessing)),
        }
    }
}
