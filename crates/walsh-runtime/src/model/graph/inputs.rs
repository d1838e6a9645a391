//! Embeddings of tokens for each layer.

use walsh::formats::DType;
use walsh::ops::{EmbeddingRows, RmsNorm, Scale};
use walsh::{Device, Tensor};

use super::block::{Block, linear};
use crate::Result;
use crate::model::config::ModelConfig;
use crate::model::weights::{LayerInput, LayerInputs};

/// What they need beside.
#[derive(Debug)]
pub(super) struct Inputs {
    /// `[rows, layers, width]`: the embeddings of all layers.
    all: Tensor,
    /// The same: what is made of tokens' own embeddings.
    projected: Tensor,
    /// `[rows, width]`: those of one layer.
    one: Tensor,
    gate: Tensor,
    /// `i32 [rows]` of each layer: where its own are among those of all.
    places: Vec<Tensor>,
}

impl Inputs {
    pub(super) fn new(device: &Device, config: &ModelConfig, rows: usize) -> Result<Option<Self>> {
        let Some(width) = config.per_layer_width else {
            return Ok(None);
        };
        let count = config.layers.len();
        let floats = |shape: &[usize]| {
            let shape: Vec<u64> = shape.iter().map(|size| *size as u64).collect();
            device.zeros(DType::F32, &shape)
        };
        let places = |layer: usize| {
            let places: Vec<i32> = (0..rows).map(|row| (row * count + layer) as i32).collect();
            device.tensor(&[rows as u64], &places)
        };
        Ok(Some(Self {
            all: floats(&[rows, count, width])?,
            projected: floats(&[rows, count, width])?,
            one: floats(&[rows, width])?,
            gate: floats(&[rows, width])?,
            places: (0..count).map(places).collect::<walsh::Result<_>>()?,
        }))
    }

    pub(super) fn rows(&self, rows: usize) -> Result<Self> {
        let first = |tensor: &Tensor| tensor.rows(0..rows as u64);
        Ok(Self {
            all: first(&self.all)?,
            projected: first(&self.projected)?,
            one: first(&self.one)?,
            gate: first(&self.gate)?,
            places: self
                .places
                .iter()
                .map(first)
                .collect::<walsh::Result<_>>()?,
        })
    }
}

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
        linear(&mut self.list, &weights.projection, &a.stream, &output)?;
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
        linear(&mut self.list, &weights.gate, &a.stream, &inputs.gate)?;
        self.activate(&inputs.gate, &inputs.one)?;
        linear(&mut self.list, &weights.output, &inputs.gate, &a.hidden)?;
        self.end_part(Some(&weights.norm))?;
        Ok(())
    }
}
