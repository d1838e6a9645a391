//! What layers remember of the tokens before: keys and values, or a state.

use walsh::formats::DType;
use walsh::{CacheKind, Device, KvCache, KvCacheOptions, KvCodec, KvCodecs, Tensor};

use super::ModelConfig;
use super::config::{LayerConfig, RecurrentConfig};
use crate::Result;

/// What a layer remembers.
#[derive(Debug, Clone)]
pub(crate) enum LayerMemory {
    /// Keys and values.
    Cache(Box<KvCache>),
    /// What all tokens before have left.
    State(LayerState),
    /// Nothing: it attends to the keys and values of another layer.
    Shared,
}

/// The states of one layer, of several sequences.
#[derive(Debug, Clone)]
pub(crate) struct LayerState {
    /// `f32 [slots, taps − 1, channels]`: the latest inputs of the convolution.
    pub(crate) latest: Tensor,
    /// `f32 [slots, heads, key_dim, value_dim]`: of the delta rule, where there is one.
    pub(crate) heads: Option<Tensor>,
}

impl LayerState {
    /// So many slots.
    pub(crate) fn new(device: &Device, config: &RecurrentConfig, slots: usize) -> Result<Self> {
        let RecurrentConfig {
            channels,
            taps,
            delta,
        } = *config;
        let zeros = |shape: &[usize]| {
            let shape: Vec<u64> = shape.iter().map(|size| *size as u64).collect();
            device.zeros(DType::F32, &shape)
        };
        Ok(Self {
            latest: zeros(&[slots, taps - 1, channels])?,
            heads: delta
                .map(|delta| zeros(&[slots, delta.heads, delta.key_dim, delta.value_dim]))
                .transpose()?,
        })
    }

    /// What a slot has, in rows of a few kilobytes.
    pub(crate) fn slot(&self, slot: usize) -> Result<Vec<Tensor>> {
        let slot = slot as u64;
        let of = |all: &Tensor| {
            let own = all.rows(slot..slot + 1)?;
            let width = own.shape()[own.shape().len() - 1];
            Ok(own.reshape(&[own.elements() / width, width])?)
        };
        [&self.latest]
            .into_iter()
            .chain(&self.heads)
            .map(of)
            .collect()
    }
}

impl LayerMemory {
    /// The keys and values, if it is that.
    pub(crate) fn cache(&self) -> Option<&KvCache> {
        match self {
            Self::Cache(cache) => Some(cache),
            Self::State(_) | Self::Shared => None,
        }
    }

    /// The state, if it is that.
    pub(crate) fn state(&self) -> Option<&LayerState> {
        match self {
            Self::Cache(_) | Self::Shared => None,
            Self::State(state) => Some(state),
        }
    }

    /// That of all layers where they run one by one over the whole of a text, which no later token goes on from: nothing is
    /// read from it, and layers that are alike have the same.
    pub(crate) fn idle(device: &Device, config: &ModelConfig) -> Result<Vec<Self>> {
        let mut caches: Vec<(&LayerConfig, KvCache)> = Vec::new();
        // One serves all: each layer begins anew.
        let state = config
            .recurrent
            .map(|config| LayerState::new(device, &config, 1));
        let state = state.transpose()?;
        let mut memory = Vec::with_capacity(config.layers.len());
        for layer in &config.layers {
            if layer.shares.is_some() {
                memory.push(Self::Shared);
                continue;
            }
            if let Some(state) = state.as_ref().filter(|_| layer.recurrent) {
                memory.push(Self::State(state.clone()));
                continue;
            }
            let shape = |layer: &LayerConfig| [layer.kv_heads, layer.head_dim].map(|n| n as u64);
            let known = caches
                .iter()
                .find(|(other, _)| shape(other) == shape(layer));
            let cache = match known {
                Some((_, cache)) => cache.clone(),
                None => {
                    let [heads, dim] = shape(layer);
                    let exact = KvCodecs::both(KvCodec::Dense(DType::F32));
                    let cache = KvCache::new(
                        device,
                        KvCacheOptions {
                            kind: CacheKind::Ring,
                            ..KvCacheOptions::global(exact, heads, dim, 1)
                        },
                    )?;
                    caches.push((layer, cache.clone()));
                    cache
                }
            };
            memory.push(cache.into());
        }
        Ok(memory)
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
            .filter(|(_, layer)| layer.is_cached())
            .map(|(index, _)| index)
    }

    /// The layer whose keys and values a layer attends to: mostly itself.
    pub(crate) fn source(&self, layer: usize) -> usize {
        self.layers[layer].shares.unwrap_or(layer)
    }

    /// The last layer that attends to a layer's keys and values.
    pub(crate) fn last_reader(&self, layer: usize) -> usize {
        let reads = |other: &LayerConfig| other.shares == Some(layer);
        self.layers.iter().rposition(reads).unwrap_or(layer)
    }

    /// The most that a layer has of something.
    pub(crate) fn most(&self, of: impl Fn(&LayerConfig) -> usize) -> usize {
        self.layers.iter().map(of).max().unwrap_or(0)
    }

    /// Whether all layers have as many KV heads of the same size, each its own.
    pub(crate) fn has_alike_heads(&self) -> bool {
        let shape = |layer: &LayerConfig| (layer.kv_heads, layer.head_dim, layer.shares);
        self.layers
            .windows(2)
            .all(|pair| shape(&pair[0]) == shape(&pair[1]))
    }
}
