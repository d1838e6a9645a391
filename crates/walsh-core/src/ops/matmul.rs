use walsh_formats::DType;

use super::Operation;
use super::check::Check;
use crate::Result;
use crate::hazard::Accesses;
use crate::screen::Screen;
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

/// The k largest products of each row of the input with the rows of a weight, in
/// descending order, equals by ascending index: what [`TopK`](super::TopK) finds in the
/// output of [`MatMul`], with the very bits that this gives on the device for that
/// many rows, but no tensor holds all products. A product that is not a number is an
/// [`Error::Value`](crate::Error::Value) when the list runs.
///
/// With a screen, a device may leave out rows of the weight that cannot be among the
/// largest; see [`Screen`].
#[derive(Debug, Clone)]
pub struct MatMulTopK {
    /// `[N, K]`, as [`MatMul::weight`].
    pub weight: Tensor,
    /// The weight's, from [`Device::screen`](crate::Device::screen).
    pub screen: Option<Screen>,
    /// `f32 [M, K]`.
    pub input: Tensor,
    /// `f32 [M, k]`; its shape sets k, from 1 to N.
    pub values: Tensor,
    /// `i32 [M, k]`.
    pub indices: Tensor,
}

/// Checks the factors of a product, and returns the rows of its output and their
/// length.
fn check_factors(check: Check, weight: &Tensor, input: &Tensor) -> Result<(u64, u64)> {
    check.rank("weight", weight, 2)?;
    check.size("weight", weight)?;
    if matches!(weight.dtype(), DType::I32 | DType::U8) {
        return check.fail("weight", "of a floating-point or block type", weight);
    }
    check.rank("input", input, 2)?;
    check.size("input", input)?;
    let (n, k) = (weight.shape()[0], weight.shape()[1]);
    let m = input.shape()[0];
    check.f32("input", input, &[m, k])?;
    Ok((m, n))
}

impl Operation for MatMulTopK {
    const NAME: &'static str = "MatMulTopK";

    fn validate(&self) -> Result<()> {
        let check = Check(Self::NAME);
        let (m, n) = check_factors(check, &self.weight, &self.input)?;
        check.rank("values", &self.values, 2)?;
        let k = self.values.shape()[1];
        if !(1..=n).contains(&k) {
            return check.fail("values", format_args!("[{m}, 1 to {n}]"), &self.values);
        }
        check.f32("values", &self.values, &[m, k])?;
        check.dtype("indices", &self.indices, DType::I32)?;
        check.shape("indices", &self.indices, &[m, k])?;
        if let Some(screen) = &self.screen {
            let of = screen.weight();
            if !of.span().same(&self.weight.span()) || of.shape() != self.weight.shape() {
                return check.fail("screen", format_args!("of {}", self.weight), of);
            }
        }
        check.disjoint("values", &self.values, &[&self.weight, &self.input])?;
        let read = [&self.weight, &self.input, &self.values];
        check.disjoint("indices", &self.indices, &read)
    }

    fn accesses(&self) -> Accesses {
        let mut accesses = Accesses {
            reads: vec![self.weight.span(), self.input.span()],
            writes: vec![self.values.span(), self.indices.span()],
        };
        if let Some(screen) = &self.screen {
            accesses.reads.extend(screen.spans());
        }
        accesses
    }
}

impl Operation for MatMul {
    const NAME: &'static str = "MatMul";

    fn validate(&self) -> Result<()> {
        let check = Check(Self::NAME);
        let (m, n) = check_factors(check, &self.weight, &self.input)?;
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
