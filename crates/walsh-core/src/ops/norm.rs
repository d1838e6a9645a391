use std::fmt;

use super::check::Check;
use super::operation::Operation;
use crate::Result;
use crate::hazard::Accesses;
use crate::tensor::Tensor;
use walsh_formats::DType;

/// Root-mean-square normalisation over the last dimension
/// (Zhang and Sennrich, arXiv 1910.07467), with the residual additions that
/// surround it in transformer blocks:
///
/// `x = input (+ before.addend)`, `y = x / √(mean(x²) + eps) (· weight)`,
/// `output = y (+ after)`.
#[derive(Debug, Clone)]
pub struct RmsNorm {
    /// `f32 [.., width]`.
    pub input: Tensor,
    /// Adds a residual before the norm, and keeps the sum.
    pub before: Option<SumBefore>,
    /// `f32 [width]`.
    pub weight: Option<Tensor>,
    /// Added to the mean square; above 0.
    pub eps: f32,
    /// `f32`, the input's shape: added to the normalised result.
    pub after: Option<Tensor>,
    /// `f32`, the input's shape. May be `input` or `after` in place.
    pub output: Tensor,
}

/// The residual that an [`RmsNorm`] adds to its input first.
#[derive(Debug, Clone)]
pub struct SumBefore {
    /// `f32`, the input's shape.
    pub addend: Tensor,
    /// Receives input + addend; may be either of the two in place.
    pub sum: Tensor,
}

impl Operation for RmsNorm {
    const NAME: &'static str = "RmsNorm";

    fn validate(&self) -> Result<()> {
        let check = Check(Self::NAME);
        check.dtype("input", &self.input, DType::F32)?;
        check.size("input", &self.input)?;
        if self.input.shape().is_empty() {
            return check.fail("input", "of at least one dimension", &self.input);
        }
        check.positive("eps", self.eps)?;
        let shape = self.input.shape();
        let mut inputs = vec![&self.input];
        if let Some(before) = &self.before {
            check.f32("before.addend", &before.addend, shape)?;
            check.f32("before.sum", &before.sum, shape)?;
            inputs.push(&before.addend);
            check.in_place_or_disjoint("before.sum", &before.sum, &inputs)?;
            check.disjoint("output", &self.output, &[&before.sum])?;
        }
        if let Some(after) = &self.after {
            check.f32("after", after, shape)?;
            if let Some(before) = &self.before {
                check.disjoint("after", after, &[&before.sum])?;
            }
            inputs.push(after);
        }
        if let Some(weight) = &self.weight {
            check.f32("weight", weight, &[self.input.row_len()])?;
            check.disjoint("output", &self.output, &[weight])?;
            if let Some(before) = &self.before {
                check.disjoint("before.sum", &before.sum, &[weight])?;
            }
        }
        check.f32("output", &self.output, shape)?;
        check.in_place_or_disjoint("output", &self.output, &inputs)
    }

    fn accesses(&self) -> Accesses {
        let mut accesses = Accesses::default();
        accesses.read(self.input.span()).write(self.output.span());
        if let Some(before) = &self.before {
            accesses.read(before.addend.span()).write(before.sum.span());
        }
        for tensor in self.weight.iter().chain(&self.after) {
            accesses.read(tensor.span());
        }
        accesses
    }

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}", self.input, self.output)
    }
}
