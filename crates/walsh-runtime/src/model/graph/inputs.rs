//! Embeddings of tokens for each layer.

use walsh::ops::{EmbeddingRows, RmsNorm, Scale};

use super::block::Block;
use super::intermediates::Inputs;
use crate::Result;
use crate::model::weights::{LayerInput, LayerInputs};

impl Block<'_> {
    /// Makes the embeddings for all layers of the ids, and of the stream that was made of them.
    pub(super) fn embed_for_layers(&mut self, weights: &LayerInputs) -> Result<()> {
        let a = self.a;
        let Some(Inputs { all, projected, .. }) = &a.inputs else {
            return Ok(());
        };
        let [rows, layers, width] = [0, 1, 2].map(|dim| all.shape()[dim]);
        let flat = [rows, layers * width];
        self.list.push(EmbeddingRows {
            table: weights.table.clone(),
            ids: a.ids.clone(),
            scale: (width as f32).sqrt(),
            output: all.reshape(&flat)?,
        })?;
        let output = projected.reshape(&flat)?;
        self.linear(&weights.projection, &a.stream, &output)?;
        self.list.push(RmsNorm {
            input: projected.clone(),
            before: None,
            weight: Some(weights.norm.clone()),
            eps: self.config.norm_eps,
            after: Some(all.clone()),
            output: all.clone(),
        })?;
        // The sum of two is as large as one.
        self.list.push(Scale {
            input: all.clone(),
            factor: std::f32::consts::FRAC_1_SQRT_2,
            output: all.clone(),
        })?;
        Ok(())
    }

    /// stream = stream + what a layer makes of its own embeddings, as far as the stream asks for them.
    pub(super) fn take_in(&mut self, weights: &LayerInput, index: usize) -> Result<()> {
        let a = self.a;
        let Some(inputs) = &a.inputs else {
            return Ok(());
        };
        let [rows, layers, width] = [0, 1, 2].map(|dim| inputs.all.shape()[dim]);
        self.list.push(EmbeddingRows {
            table: inputs.all.reshape(&[rows * layers, width])?,
            ids: inputs.places[index].clone(),
            scale: 1.0,
            output: inputs.one.clone(),
        })?;
        self.linear(&weights.gate, &a.stream, &inputs.gate)?;
        self.activate(&inputs.gate, &inputs.one)?;
        self.linear(&weights.output, &inputs.gate, &a.hidden)?;
        self.end_part(Some(&weights.norm))?;
        Ok(())
    }
}
