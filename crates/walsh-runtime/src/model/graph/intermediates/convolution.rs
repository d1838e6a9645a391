//! Where short convolutions between gates leave what comes of them.

use walsh::formats::DType;
use walsh::{Device, Tensor};

use crate::Result;
use crate::model::config::ModelConfig;

/// The intermediates of a short convolution between two gates, `[rows, channels]` each.
#[derive(Debug)]
pub(in super::super) struct Convolved {
    /// What multiplies the input, and what multiplies the output.
    pub(in super::super) gates: [Tensor; 2],
    pub(in super::super) input: Tensor,
    pub(in super::super) output: Tensor,
}

impl Convolved {
    pub(in super::super) fn new(
        device: &Device,
        config: &ModelConfig,
        rows: usize,
    ) -> Result<Option<Self>> {
        let Some(recurrent) = config.recurrent.filter(|config| config.delta.is_none()) else {
            return Ok(None);
        };
        let shape = [rows, recurrent.channels].map(|size| size as u64);
        let floats = || device.zeros(DType::F32, &shape);
        Ok(Some(Self {
            gates: [floats()?, floats()?],
            input: floats()?,
            output: floats()?,
        }))
    }

    pub(in super::super) fn rows(&self, rows: usize) -> Result<Self> {
        let first = |tensor: &Tensor| tensor.rows(0..rows as u64);
        let [before, after] = &self.gates;
        Ok(Self {
            gates: [first(before)?, first(after)?],
            input: first(&self.input)?,
            output: first(&self.output)?,
        })
    }
}
