//! What metadata says about layers that keep a state.

use walsh::formats::gguf::Value;
use walsh::ops::{DeltaRule, HeadOrder, ShortConv};

use super::{LARGEST, Reader};
use crate::{Error, Result};

/// Layers of the gated delta rule behind a short convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecurrentConfig {
    /// Heads, each with a state.
    pub heads: usize,
    /// Heads of queries and keys, which heads share.
    pub key_heads: usize,
    /// Numbers of a query and of a key.
    pub key_dim: usize,
    /// Numbers of a value.
    pub value_dim: usize,
    /// How many tokens the convolution spans.
    pub taps: usize,
    /// Which key head belongs to a head.
    pub order: HeadOrder,
}

impl RecurrentConfig {
    /// The numbers of all heads' values.
    pub(crate) fn values(&self) -> usize {
        self.heads * self.value_dim
    }

    /// What passes the convolution: the queries, keys and values of all heads.
    pub(crate) fn channels(&self) -> usize {
        2 * self.key_heads * self.key_dim + self.values()
    }

    /// The bytes of a sequence's state in one layer.
    pub(crate) fn state_bytes(&self) -> u64 {
        let delta = self.values() * self.key_dim;
        let latest = (self.taps - 1) * self.channels();
        ((delta + latest) * size_of::<f32>()) as u64
    }
}

impl Reader<'_, '_> {
    /// The shape of layers that keep a state, of families that have some.
    pub(super) fn recurrent(&self) -> Result<Option<RecurrentConfig>> {
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
        let taps = self.size("ssm.conv_kernel")?;
        let most = ShortConv::MOST_TAPS;
        if !(2..=most).contains(&taps) {
            reject!(
                self,
                "metadata key {} is {taps}, but only 2 to {most} are supported: use another model",
                self.key("ssm.conv_kernel")
            );
        }
        Ok(Some(RecurrentConfig {
            heads: heads as usize,
            key_heads: key_heads as usize,
            key_dim: key_dim as usize,
            value_dim: (inner / heads) as usize,
            taps: taps as usize,
            order: self.architecture.head_order(),
        }))
    }

    /// Which of all layers keep a state.
    pub(super) fn recurrent_layers(&self, count: usize) -> Result<Vec<bool>> {
        if !self.architecture.is_hybrid() {
            return Ok(vec![false; count]);
        }
        let key = self.key("attention.recurrent_layers");
        let computing = count - self.guessing_layers(count)?;
        let layers = match self.metadata.get(&key) {
            Some(Value::Array(array)) => self.pattern(&key, *array, count)?,
            Some(_) => reject!(
                self,
                "metadata key {key} must have an entry for each layer: convert the model again"
            ),
            None => {
                let interval = self.opt_size("full_attention_interval")?.unwrap_or(4);
                // The last of each interval attends; of intervals of 0 none does.
                let recurs = |layer: u64| !(layer + 1).is_multiple_of(interval);
                (0..count as u64).map(recurs).collect()
            }
        };
        if layers[..computing].iter().all(|recurrent| *recurrent) {
            reject!(
                self,
                "no layer attends, which no model of this family has: convert the model again"
            );
        }
        Ok(layers)
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
