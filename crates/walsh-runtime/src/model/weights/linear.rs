//! What products multiply by.

use walsh::ops::{Add, MatMul, Scale};
use walsh::{Recorder, Tensor};

use crate::Result;

/// A matrix product's weight, or those of experts, with its optional bias.
#[derive(Debug, Clone)]
pub(crate) struct Linear {
    /// The name of its tensor without `.weight`.
    pub(crate) name: String,
    /// The row of that tensor that it begins at.
    pub(crate) first: u64,
    pub(crate) weight: Tensor,
    /// What the product is multiplied by before the bias is added, where a file has it beside the weight.
    pub(crate) scale: Option<f32>,
    pub(crate) bias: Option<Tensor>,
}

impl Linear {
    /// Records the product of rows.
    pub(crate) fn record(
        &self,
        list: &mut Recorder,
        input: &Tensor,
        output: &Tensor,
    ) -> Result<()> {
        let bias = self.bias.clone();
        let (early, late) = match self.scale {
            None => (bias, None),
            Some(_) => (None, bias),
        };
        list.push(MatMul {
            weight: self.weight.clone(),
            input: input.clone(),
            bias: early,
            output: output.clone(),
        })?;
        if let Some(factor) = self.scale {
            list.push(Scale {
                input: output.clone(),
                factor,
                output: output.clone(),
            })?;
        }
        if let Some(bias) = late {
            list.push(Add {
                a: output.clone(),
                b: bias,
                output: output.clone(),
            })?;
        }
        Ok(())
    }
}
