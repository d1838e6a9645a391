use std::fmt;

use walsh_formats::DType;

use super::check::Check;
use super::operation::Operation;
use crate::Result;
use crate::hazard::Accesses;
use crate::tensor::Tensor;

/// The index of each row's largest number; the first of equals. A NaN is an
/// [`Error::Value`](crate::Error::Value) when the list runs.
#[derive(Debug, Clone)]
pub struct ArgMax {
    /// `f32 [n, width]`.
    pub input: Tensor,
    /// `i32 [n]`.
    pub output: Tensor,
}

/// Each row's k largest numbers, in descending order, equals by ascending
/// index. A NaN is an [`Error::Value`](crate::Error::Value) when the list runs.
#[derive(Debug, Clone)]
pub struct TopK {
    /// `f32 [n, width]`.
    pub input: Tensor,
    /// `f32 [n, k]`; its shape sets k, from 1 to width.
    pub values: Tensor,
    /// `i32 [n, k]`.
    pub indices: Tensor,
}

fn check_input(check: Check, input: &Tensor) -> Result<()> {
    check.dtype("input", input, DType::F32)?;
    check.rank("input", input, 2)?;
    check.size("input", input)
}

/// The k largest numbers of each row, of a tensor of this shape.
pub(super) fn check_largest(
    check: Check,
    [n, width]: [u64; 2],
    values: &Tensor,
    indices: &Tensor,
) -> Result<()> {
    check.rank("values", values, 2)?;
    let k = values.shape()[1];
    if !(1..=width).contains(&k) {
        return check.fail("values", format_args!("[{n}, 1 to {width}]"), values);
    }
    check.f32("values", values, &[n, k])?;
    check.dtype("indices", indices, DType::I32)?;
    check.shape("indices", indices, &[n, k])
}

impl Operation for ArgMax {
    const NAME: &'static str = "ArgMax";

    fn validate(&self) -> Result<()> {
        let check = Check(Self::NAME);
        check_input(check, &self.input)?;
        check.dtype("output", &self.output, DType::I32)?;
        check.shape("output", &self.output, &self.input.shape()[..1])?;
        check.disjoint("output", &self.output, &[&self.input])
    }

    fn accesses(&self) -> Accesses {
        Accesses {
            reads: vec![self.input.span()],
            writes: vec![self.output.span()],
        }
    }

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}", self.input, self.output)
    }
}

impl Operation for TopK {
    const NAME: &'static str = "TopK";

    fn validate(&self) -> Result<()> {
        let check = Check(Self::NAME);
        check_input(check, &self.input)?;
        let shape = [self.input.shape()[0], self.input.shape()[1]];
        check_largest(check, shape, &self.values, &self.indices)?;
        check.disjoint("values", &self.values, &[&self.input])?;
        check.disjoint("indices", &self.indices, &[&self.input, &self.values])
    }

    fn accesses(&self) -> Accesses {
        Accesses {
            reads: vec![self.input.span()],
            writes: vec![self.values.span(), self.indices.span()],
        }
    }

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}", self.input, self.indices)
    }
}
