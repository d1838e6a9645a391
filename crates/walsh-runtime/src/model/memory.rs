//! What layers remember of the tokens before: keys and values, or a state.

use walsh::formats::DType;
use walsh::{Device, KvCache, Tensor};

use super::ModelConfig;
use super::config::RecurrentConfig;
use crate::Result;

/// What a layer remembers.
#[derive(Debug, Clone)]
pub(crate) enum LayerMemory {
    /// Keys and values.
    Cache(Box<KvCache>),
    /// What all tokens before have left.
    State(LayerState),
}

/// The states of one layer, of several sequences.
#[derive(Debug, Clone)]
pub(crate) struct LayerState {
    /// `f32 [slots, taps − 1, channels]`: the latest inputs of the convolution.
    pub(crate) latest: Tensor,
    /// `f32 [slots, heads, key_dim, value_dim]`.
    pub(crate) heads: Tensor,
}

impl LayerState {
    /// So many slots.
    pub(crate) fn new(device: &Device, config: &RecurrentConfig, slots: usize) -> Result<Self> {
        let RecurrentConfig {
            heads,
            key_dim,
            value_dim,
            taps,
            ..
        } = *config;
        let zeros = |shape: &[usize]| {
            let shape: Vec<u64> = shape.iter().map(|size| *size as u64).collect();
            device.zeros(DType::F32, &shape)
        };
        Ok(Self {
            latest: zeros(&[slots, taps - 1, config.channels()])?,
            heads: zeros(&[slots, heads, key_dim, value_dim])?,
        })
    }

    /// What a slot has, in rows of a few kilobytes.
    pub(crate) fn slot(&self, slot: usize) -> Result<[Tensor; 2]> {
        let slot = slot as u64;
        let of = |all: &Tensor| {
            let own = all.rows(slot..slot + 1)?;
            let width = own.shape()[own.shape().len() - 1];
            own.reshape(&[own.elements() / width, width])
        };
        Ok([of(&self.latest)?, of(&self.heads)?])
    }
}

impl LayerMemory {
    /// The keys and values, if it is that.
    pub(crate) fn cache(&self) -> Option<&KvCache> {
        match self {
            Self::Cache(cache) => Some(cache),
            Self::State(_) => None,
        }
    }

    /// The state, if it is that.
    pub(crate) fn state(&self) -> Option<&LayerState> {
        match self {
            Self::Cache(_) => None,
            Self::State(state) => Some(state),
        }
    }
}

impl From<KvCache> for LayerMemory {
    fn from(cache: KvCache) -> Self {
        Self::Cache(Box::new(cache))
    }
}

impl ModelConfig {
    /// The bytes of a sequence's states in all layers that keep one, whatever its length; 0 where none does.
    #[must_use]
    pub fn state_bytes(&self) -> u64 {
        let layers = self.layers.iter().filter(|layer| layer.recurrent).count();
        let each = self.recurrent.map_or(0, |config| config.state_bytes());
        layers as u64 * each
    }

    /// The layers that keep keys and values, by their numbers.
    pub(crate) fn cached_layers(&self) -> impl Iterator<Item = usize> {
        let layers = self.layers.iter().enumerate();
        layers
            .filter(|(_, layer)| !layer.recurrent)
            .map(|(index, _)| index)
    }
}
