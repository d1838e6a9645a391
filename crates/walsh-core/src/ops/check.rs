use walsh_formats::DType;

use crate::tensor::Tensor;
use crate::{Error, Result};

/// The checks that ops share, each naming the op and the argument.
#[derive(Clone, Copy)]
pub(super) struct Check(pub(super) &'static str);

impl Check {
    /// An error about `argument`.
    pub(super) fn fail<T>(
        self,
        argument: &'static str,
        expected: impl std::fmt::Display,
        given: impl std::fmt::Display,
    ) -> Result<T> {
        Err(Error::argument(self.0, argument, expected, given))
    }

    pub(super) fn dtype(self, argument: &'static str, tensor: &Tensor, dtype: DType) -> Result<()> {
        if tensor.dtype() == dtype {
            return Ok(());
        }
        self.fail(argument, dtype, tensor)
    }

    pub(super) fn rank(self, argument: &'static str, tensor: &Tensor, rank: usize) -> Result<()> {
        if tensor.shape().len() == rank {
            return Ok(());
        }
        self.fail(argument, format_args!("of {rank} dimensions"), tensor)
    }

    pub(super) fn shape(
        self,
        argument: &'static str,
        tensor: &Tensor,
        shape: &[u64],
    ) -> Result<()> {
        if tensor.shape() == shape {
            return Ok(());
        }
        self.fail(argument, format_args!("of shape {shape:?}"), tensor)
    }

    /// An `f32` tensor of this shape.
    pub(super) fn f32(self, argument: &'static str, tensor: &Tensor, shape: &[u64]) -> Result<()> {
        self.dtype(argument, tensor, DType::F32)?;
        self.shape(argument, tensor, shape)
    }

    /// Of a type that keys and values have outside of caches.
    pub(super) fn vectors(self, argument: &'static str, tensor: &Tensor) -> Result<()> {
        if matches!(tensor.dtype(), DType::F32 | DType::F16 | DType::BF16) {
            return Ok(());
        }
        self.fail(argument, "f32, f16 or bf16", tensor)
    }

    /// No dimension is zero, and each fits the 32-bit counters of kernels.
    pub(super) fn size(self, argument: &'static str, tensor: &Tensor) -> Result<()> {
        let fits = |dim: &u64| (1..=i32::MAX as u64).contains(dim);
        if tensor.shape().iter().all(fits) {
            return Ok(());
        }
        self.fail(argument, "of dimensions between 1 and 2^31 - 1", tensor)
    }

    /// The output shares no byte with an input.
    pub(super) fn disjoint(
        self,
        argument: &'static str,
        output: &Tensor,
        inputs: &[&Tensor],
    ) -> Result<()> {
        for input in inputs {
            if output.span().overlaps(&input.span()) {
                return self.fail(argument, "apart from the inputs", "overlapping one");
            }
        }
        Ok(())
    }

    /// The output is an input in place, or shares no byte with it.
    pub(super) fn in_place_or_disjoint(
        self,
        argument: &'static str,
        output: &Tensor,
        inputs: &[&Tensor],
    ) -> Result<()> {
        for input in inputs {
            let (output, input) = (output.span(), input.span());
            if output.overlaps(&input) && !output.same(&input) {
                return self.fail(
                    argument,
                    "an input in place, or apart from the inputs",
                    "partly overlapping one",
                );
            }
        }
        Ok(())
    }

    pub(super) fn finite(self, argument: &'static str, value: f32) -> Result<()> {
        if value.is_finite() {
            return Ok(());
        }
        self.fail(argument, "finite", value)
    }

    pub(super) fn positive(self, argument: &'static str, value: f32) -> Result<()> {
        if value.is_finite() && value > 0.0 {
            return Ok(());
        }
        self.fail(argument, "finite and above 0", value)
    }
}
