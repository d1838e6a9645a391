//! What numbers are checked for as they are stored.

use crate::simd::Simd;

/// Sixteen lanes that are zero until a number is not below a limit, or is NaN.
#[derive(Clone, Copy)]
pub(in crate::kv) struct Within<S: Simd> {
    simd: S,
    limit: S::F,
    zeros: S::F,
}

impl<S: Simd> Within<S> {
    #[inline(always)]
    pub(in crate::kv) fn below(s: S, limit: f32) -> Self {
        Self {
            simd: s,
            limit: s.splat(limit),
            zeros: s.splat(0.0),
        }
    }

    /// Takes note of magnitudes.
    #[inline(always)]
    pub(in crate::kv) fn note(&mut self, size: S::F) {
        let s = self.simd;
        // A NaN is below nothing.
        self.zeros = s.pick_below(size, self.limit, self.zeros, s.splat(f32::NAN));
    }

    /// Whether all were below the limit.
    #[inline(always)]
    pub(in crate::kv) fn all(self) -> bool {
        self.simd.reduce_add(self.zeros) == 0.0
    }
}

/// Whether the bits of a half are of a number.
#[inline(always)]
pub(super) fn is_number(half: u16) -> bool {
    half & 0x7c00 != 0x7c00
}
