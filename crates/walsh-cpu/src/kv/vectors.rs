//! Keys or values outside of a cache: vectors in single precision, half precision or bfloat16.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use walsh_core::{Error, Result, Tensor};
use walsh_formats::DType;

use crate::memory::View;

/// A tensor of vectors.
pub(crate) enum Vectors {
    F32(View<f32>),
    F16(View<f16>),
    Bf16(View<bf16>),
}

impl Vectors {
    pub(crate) fn of(tensor: &Tensor) -> Result<Self> {
        Ok(match tensor.dtype() {
            DType::F32 => Self::F32(View::of(tensor)?),
            DType::F16 => Self::F16(View::of(tensor)?),
            DType::BF16 => Self::Bf16(View::of(tensor)?),
            _ => {
                return Err(Error::Device {
                    device: "cpu".into(),
                    message: format!("{tensor} does not hold vectors of floats"),
                });
            }
        })
    }

    /// Reads vector `index`.
    ///
    /// # Safety
    /// Nothing writes this vector now.
    pub(crate) unsafe fn get(&self, index: usize, row: &mut [f32]) {
        let at = index * row.len()..(index + 1) * row.len();
        // SAFETY: nothing writes the vector, as this method asks.
        unsafe {
            match self {
                Self::F32(view) => row.copy_from_slice(view.slice(at)),
                Self::F16(view) => view.slice(at).convert_to_f32_slice(row),
                Self::Bf16(view) => view.slice(at).convert_to_f32_slice(row),
            }
        }
    }

    /// Writes vector `index`, rounded to nearest and even.
    ///
    /// # Safety
    /// The memory is writable, and nothing else reads or writes this vector now.
    pub(crate) unsafe fn put(&self, index: usize, row: &[f32]) {
        let at = index * row.len()..(index + 1) * row.len();
        // SAFETY: nothing else touches the vector, as this method asks.
        unsafe {
            match self {
                Self::F32(view) => view.slice_mut(at).copy_from_slice(row),
                Self::F16(view) => view.slice_mut(at).convert_from_f32_slice(row),
                Self::Bf16(view) => view.slice_mut(at).convert_from_f32_slice(row),
            }
        }
    }
}
