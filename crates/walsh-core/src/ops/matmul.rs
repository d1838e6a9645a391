use walsh_formats::DType;

use super::Operation;
use super::check::Check;
use crate::Result;
use crate::hazard::Accesses;
use crate::tensor::Tensor;

/// `output[m, n] = Σ_k input[m, k] · weight[n, k] (+ bias[n])`, with the weight
/// read as it is stored.
///
/// Backends may quantise the input to 8 bits per number for block-quantised
/// weights, within a normalised mean squared error of 1e-4, unless the device was
/// opened not to.
#[derive(Debug, Clone)]
pub struct MatMul {
    /// `[N, K]` of any floating-point or block type, as it is stored or
    /// [packed](crate::Device::pack).
    pub weight: Tensor,
    /// `f32 [M, K]`.
    pub input: Tensor,
    /// `f32 [N]`.
    pub bias: Option<Tensor>,
    /// `f32 [M, N]`.
    pub output: Tensor,
}

impl Operation for MatMul {
    const NAME: &'static str = "MatMul";

    fn validate(&self) -> Result<()> {
        let check = Check(Self::NAME);
        check.rank("weight", &self.weight, 2)?;
        check.size("weight", &self.weight)?;
        if matches!(self.weight.dtype(), DType::I32 | DType::U8) {
            return check.fail("weight", "of a floating-point or block type", &self.weight);
        }
        check.rank("input", &self.input, 2)?;
        check.size("input", &self.input)?;
        let (n, k) = (self.weight.shape()[0], self.weight.shape()[1]);
        let m = self.input.shape()[0];
        check.f32("input", &self.input, &[m, k])?;
        check.f32("output", &self.output, &[m, n])?;
        if let Some(bias) = &self.bias {
            check.f32("bias", bias, &[n])?;
            check.disjoint("output", &self.output, &[bias])?;
        }
        check.disjoint("output", &self.output, &[&self.weight, &self.input])
    }

    fn accesses(&self) -> Accesses {
        let mut accesses = Accesses {
            reads: vec![self.weight.span(), self.input.span()],
            writes: vec![self.output.span()],
        };
        if let Some(bias) = &self.bias {
            accesses.read(bias.span());
        }
        accesses
    }
}
