//! Layers that run one by one over a text.

use super::{Graph, Intermediates};
use crate::model::memory::LayerMemory;
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
        let memory = LayerMemory::idle(device, config)?;
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
