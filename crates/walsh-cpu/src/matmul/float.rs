//! Floating-point weights.

use half::f16;

use super::blocks::Primitives;

/// A floating-point storage type.
pub(super) trait Float {
    /// Value `index` of a row.
    ///
    /// # Safety
    /// The row has that value, and the instruction set of `P` is available.
    unsafe fn load<P: Primitives>(row: *const u8, index: usize) -> f32;

    /// Values of a row from `index` on.
    ///
    /// # Safety
    /// As for [`Float::load`], for every value.
    #[inline(always)]
    unsafe fn load_all<P: Primitives>(row: *const u8, index: usize, to: &mut [f32]) {
        for (i, to) in to.iter_mut().enumerate() {
            // SAFETY: the caller's.
            *to = unsafe { Self::load::<P>(row, index + i) };
        }
    }
}

/// Single precision.
pub(super) struct F32;
/// Half precision.
pub(super) struct F16;
/// The upper half of single precision.
pub(super) struct BF16;

impl Float for F32 {
    #[inline(always)]
    unsafe fn load<P: Primitives>(row: *const u8, index: usize) -> f32 {
        // SAFETY: the caller's.
        unsafe { row.cast::<f32>().add(index).read_unaligned() }
    }
}

impl Float for F16 {
    #[inline(always)]
    unsafe fn load<P: Primitives>(row: *const u8, index: usize) -> f32 {
        // SAFETY: the caller's.
        unsafe { P::widen(row.cast::<f16>().add(index).read_unaligned()) }
    }

    #[inline(always)]
    unsafe fn load_all<P: Primitives>(row: *const u8, index: usize, to: &mut [f32]) {
        // SAFETY: the caller's.
        unsafe { P::widen_all(row.cast::<f16>().add(index), to) }
    }
}

impl Float for BF16 {
    #[inline(always)]
    unsafe fn load<P: Primitives>(row: *const u8, index: usize) -> f32 {
        // SAFETY: the caller's.
        f32::from_bits(u32::from(unsafe { row.cast::<u16>().add(index).read_unaligned() }) << 16)
    }
}

/// Runs `$body` with `$float` standing for a floating-point storage type.
macro_rules! with_float {
    ($dtype:expr, $float:ident => $body:expr, else => $other:expr) => {{
        use $crate::matmul::float;
        match $dtype {
            walsh_formats::DType::F32 => {
                type $float = float::F32;
                $body
            }
            walsh_formats::DType::F16 => {
                type $float = float::F16;
                $body
            }
            walsh_formats::DType::BF16 => {
                type $float = float::BF16;
                $body
            }
            _ => $other,
        }
    }};
}
pub(super) use with_float;
