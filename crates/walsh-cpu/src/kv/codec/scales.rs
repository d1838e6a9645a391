//! The scales that lie beside the codes of a row.

use walsh_formats::DType;
use walsh_formats::kv::RowCodec;

use super::numbers::Rows;
use crate::simd::{LANES, Simd};

/// How a codec's rows are scaled.
pub(super) struct Scales {
    /// Scales of a row; none where they lie among the codes.
    groups: usize,
    /// Numbers that share one.
    len: usize,
    /// Whether they are in single precision rather than in half.
    single: bool,
    /// What those in single precision are multiplied by.
    factor: f32,
}

impl Scales {
    pub(super) fn of(codec: &RowCodec) -> Self {
        Self {
            groups: codec.groups(),
            len: codec.group_len(),
            single: codec.scale_dtype() == Some(DType::F32),
            factor: codec.scale_factor(),
        }
    }

    /// Whether a row has several scales, so that none is a factor of all of it.
    pub(super) fn are_several(&self) -> bool {
        self.groups > 1
    }

    /// Writes the factor of each row, as [`row_factors`](super::row_factors) does.
    ///
    /// # Safety
    /// The rows' scales lie in readable memory.
    #[inline(always)]
    pub(super) unsafe fn of_rows<S: Simd>(&self, s: S, rows: Rows, out: &mut [f32]) {
        if self.groups != 1 {
            out.fill(1.0);
            return;
        }
        let (stored, padding) = out.split_at_mut(rows.count.min(out.len()));
        padding.fill(1.0);
        let whole = if self.single {
            0
        } else {
            stored.len() / LANES * LANES
        };
        for first in (0..whole).step_by(LANES) {
            // SAFETY: sixteen rows below the count, and as many numbers of the output.
            unsafe {
                s.store(
                    stored.as_mut_ptr().add(first),
                    s.load_f16(rows.scales.add(2 * first)),
                )
            };
        }
        for (i, out) in stored.iter_mut().enumerate().skip(whole) {
            // SAFETY: a row below the count.
            *out = unsafe { self.of_group(s, rows, i, 0) };
        }
    }

    /// The factor of one group of a row.
    ///
    /// # Safety
    /// The row is below the count, and the codec has scales.
    #[inline(always)]
    unsafe fn of_group<S: Simd>(&self, s: S, rows: Rows, row: usize, group: usize) -> f32 {
        let at = row * self.groups + group;
        // SAFETY: the caller's.
        unsafe {
            if self.single {
                rows.scales.cast::<f32>().add(at).read_unaligned() * self.factor
            } else {
                s.half(rows.scales.add(2 * at))
            }
        }
    }

    /// Multiplies a panel of keys with the scales of their groups.
    ///
    /// # Safety
    /// The rows' scales lie in readable memory, and the panel has their numbers.
    #[inline(always)]
    pub(super) unsafe fn scale_panel<S: Simd>(
        &self,
        s: S,
        rows: Rows,
        first: usize,
        out: *mut f32,
    ) {
        for group in 0..self.groups {
            let mut factors = [0.0; LANES];
            for (i, factor) in factors.iter_mut().enumerate() {
                let row = (first + i).min(rows.count - 1);
                // SAFETY: a row below the count.
                *factor = unsafe { self.of_group(s, rows, row, group) };
            }
            for dim in group * self.len..(group + 1) * self.len {
                // SAFETY: the panel has `head_dim` vectors.
                unsafe {
                    let at = out.add(dim * LANES);
                    s.store(at, s.mul(s.load(at), s.load(factors.as_ptr())));
                }
            }
        }
    }

    /// Multiplies rows of values with the scales of their groups.
    ///
    /// # Safety
    /// The rows' scales lie in readable memory, and `out` has their numbers.
    #[inline(always)]
    pub(super) unsafe fn scale_rows<S: Simd>(&self, s: S, rows: Rows, out: *mut f32) {
        let len = self.len;
        for i in 0..rows.count {
            for group in 0..self.groups {
                // SAFETY: the rows decoded before.
                unsafe {
                    let factor = s.splat(self.of_group(s, rows, i, group));
                    for chunk in 0..len / LANES {
                        let at = out.add((i * self.groups + group) * len + chunk * LANES);
                        s.store(at, s.mul(s.load(at), factor));
                    }
                }
            }
        }
    }
}
