//! The tensors of layers that are gated short convolutions.

use walsh::Tensor;
use walsh::formats::DType;

use super::{Linear, Loader, ModelConfig};
use crate::model::config::RecurrentConfig;
use crate::{Error, Result};

/// The tensors of a short convolution between two gates.
#[derive(Debug)]
pub(crate) struct Convolving {
    /// What multiplies the input, what multiplies the output, and the input: neighbouring rows of one tensor.
    pub(crate) gates: [Linear; 2],
    pub(crate) input: Linear,
    /// `[channels, taps]`.
    pub(crate) convolution: Tensor,
    pub(crate) output: Linear,
}

impl Convolving {
    pub(super) fn linears(&self) -> Vec<&Linear> {
        let [before, after] = &self.gates;
        vec![before, after, &self.input, &self.output]
    }

    pub(super) fn products(&mut self) -> Vec<&mut Linear> {
        let [before, after] = &mut self.gates;
        vec![before, after, &mut self.input, &mut self.output]
    }
}

impl Loader<'_> {
    pub(super) fn convolving(
        &self,
        config: &ModelConfig,
        recurrent: &RecurrentConfig,
        index: usize,
    ) -> Result<Convolving> {
        let name = |part: &str| format!("blk.{index}.shortconv.{part}");
        let (width, channels) = (config.width, recurrent.channels);
        let [before, after, input] = self.fused(&name("in_proj"), [channels; 3], width)?;
        Ok(Convolving {
            gates: [before, after],
            input,
            convolution: self.kernel(&name("conv.weight"), recurrent)?,
            output: self.linear(&name("out_proj"), [width, channels], false)?,
        })
    }

    /// What a short convolution multiplies by.
    pub(super) fn kernel(&self, name: &str, recurrent: &RecurrentConfig) -> Result<Tensor> {
        let kernel = self.required(name, &[recurrent.channels, recurrent.taps])?;
        match kernel.dtype() {
            DType::F32 => Ok(kernel),
            other => Err(Error::model(
                self.path,
                format!("tensor {name} is {other}, but must be f32: convert the model again"),
            )),
        }
    }
}
