//! Layers that run one by one over a text.

use walsh::{CacheKind, DType, KvCache, KvCacheOptions, KvCodec, KvCodecs};

use super::{Graph, Intermediates};
use crate::model::memory::{LayerMemory, LayerState};
use crate::{Model, Result};

/// What a model's layers need to run one by one over the whole of a text, which no later token goes on from.
pub(crate) struct Layerwise<'a> {
    model: &'a Model,
    pub(crate) intermediates: Intermediates,
    memory: Vec<LayerMemory>,
}

impl<'a> Layerwise<'a> {
    /// For texts of so many tokens. Their positions are there; their ids are to be written.
    pub(crate) fn new(model: &'a Model, tokens: usize) -> Result<Self> {
        let (device, config) = (model.device(), model.config());
        let intermediates = Intermediates::new(device, config, tokens, 1)?;
        let positions: Vec<i32> = (0..tokens).map(|position| position as i32).collect();
        device.write(&intermediates.positions, &positions)?;
        // One cache serves all layers: nothing is read from it.
        let cache = KvCache::new(
            device,
            KvCacheOptions {
                kind: CacheKind::Ring,
                ..KvCacheOptions::global(
                    KvCodecs::both(KvCodec::Dense(DType::F32)),
                    config.kv_heads as u64,
                    config.head_dim as u64,
                    1,
                )
            },
        )?;
        let cache = LayerMemory::from(cache);
        let mut memory = vec![cache; config.layers.len()];
        if let Some(recurrent) = &config.recurrent {
            // So does one state: each layer begins anew.
            let state = LayerState::new(device, recurrent, 1)?;
            for (memory, _) in memory
                .iter_mut()
                .zip(&config.layers)
                .filter(|(_, layer)| layer.recurrent)
            {
                *memory = LayerMemory::State(state.clone());
            }
        }
        Ok(Self {
            model,
            intermediates,
            memory,
        })
    }

    pub(crate) fn graph(&self) -> Graph<'_> {
        Graph {
            device: self.model.device(),
            config: self.model.config(),
            weights: self.model.weights(),
            screen: None,
            memory: &self.memory,
            intermediates: &self.intermediates,
            // What is looked at are the model's own keys and inputs.
            adapters: None,
        }
    }
}
