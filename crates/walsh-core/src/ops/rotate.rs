use std::fmt;

use walsh_formats::rotation::{MAX_HEAD_DIM, Rotation};

use super::check::Check;
use super::operation::Operation;
use crate::hazard::Accesses;
use crate::tensor::Tensor;
use crate::{Error, Result};

/// Which way a [`Rotate`] turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// r = H·(s∘x)/√D: as codecs that rotate turn a vector before they encode it.
    Forward,
    /// x = s∘(Hᵀ·r)/√D, which undoes it.
    Inverse,
}

/// Rotates each vector of the input as the codecs of a [`KvCache`](crate::KvCache) do, or turns it back.
///
/// s are fixed signs and H is a Hadamard matrix; [`Rotation`] has them for each head size. A vector that is turned there
/// and back is the same within rounding. In half precision, numbers past its range become infinite.
#[derive(Debug, Clone)]
pub struct Rotate {
    /// `[rows, heads, head_dim]` of `f32`, `f16` or `bf16`.
    pub input: Tensor,
    /// Which way.
    pub direction: Direction,
    /// The input's shape and type; may be the input.
    pub output: Tensor,
}

impl Rotate {
    /// The rotation of the input's vectors.
    ///
    /// # Errors
    /// When their size has none: it must be a multiple of 16 up to 512 that is a power of two or 12, 20 or 28 times one.
    pub fn rotation(&self) -> Result<Rotation> {
        let head_dim = self.input.row_len();
        let wrong = || {
            Error::argument(
                Self::NAME,
                "input",
                "of head_dim a multiple of 16 up to 512 that is a power of two or 12, 20 or 28 times one",
                head_dim,
            )
        };
        if !head_dim.is_multiple_of(16) || head_dim > MAX_HEAD_DIM as u64 {
            return Err(wrong());
        }
        Rotation::new(head_dim as usize).map_err(|_| wrong())
    }
}

impl Operation for Rotate {
    const NAME: &'static str = "Rotate";

    fn validate(&self) -> Result<()> {
        let check = Check(Self::NAME);
        let Self { input, output, .. } = self;
        check.rank("input", input, 3)?;
        check.size("input", input)?;
        check.vectors("input", input)?;
        self.rotation()?;
        check.dtype("output", output, input.dtype())?;
        check.shape("output", output, input.shape())?;
        check.in_place_or_disjoint("output", output, &[input])
    }

    fn accesses(&self) -> Accesses {
        Accesses {
            reads: vec![self.input.span()],
            writes: vec![self.output.span()],
        }
    }

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {} -> {}", self.direction, self.input, self.output)
    }
}
