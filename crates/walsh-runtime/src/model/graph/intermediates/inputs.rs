//! Where embeddings of tokens for each layer lie.

use walsh::formats::DType;
use walsh::{Device, Tensor};

use crate::Result;
use crate::model::config::ModelConfig;

/// What they need beside.
#[derive(Debug)]
pub(in super::super) struct Inputs {
    /// `[rows, layers, width]`: the embeddings of all layers.
    pub(in super::super) all: Tensor,
    /// The same: what is made of tokens' own embeddings.
    pub(in super::super) projected: Tensor,
    /// `[rows, width]`: those of one layer.
    pub(in super::super) one: Tensor,
    pub(in super::super) gate: Tensor,
    /// `i32 [rows]` of each layer: where its own are among those of all.
    pub(in super::super) places: Vec<Tensor>,
}

impl Inputs {
    pub(in super::super) fn new(
        device: &Device,
        config: &ModelConfig,
        rows: usize,
    ) -> Result<Option<Self>> {
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

    pub(in super::super) fn rows(&self, rows: usize) -> Result<Self> {
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
