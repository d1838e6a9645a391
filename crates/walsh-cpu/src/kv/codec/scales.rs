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
    #[inline(always)]
    pub(super) fn of_rows<S: Simd>(&self, s: S, rows: Rows<'_>, out: &mut [f32]) {
        if self.groups != 1 {
            out.fill(1.0);
            return;
        }
        let (stored, padding) = out.split_at_mut(rows.count().min(out.len()));
        padding.fill(1.0);
        let mut done = 0;
        if !self.single {
            let halves = rows.scales().as_chunks::<{ 2 * LANES }>().0;
            let whole = stored.as_chunks_mut::<LANES>().0;
            done = LANES * whole.len();
            for (out, halves) in whole.iter_mut().zip(halves) {
                s.write(out, s.read_f16(halves));
            }
        }
        for (i, out) in stored.iter_mut().enumerate().skip(done) {
            *out = self.of_group(s, rows, i, 0);
        }
    }

    /// The factor of one group of a row.
    #[inline(always)]
    fn of_group<S: Simd>(&self, s: S, rows: Rows<'_>, row: usize, group: usize) -> f32 {
        if self.single {
            f32::from_le_bytes(rows.scale(row, 4 * group)) * self.factor
        } else {
            let scale = rows.scale::<2>(row, 2 * group);
            // SAFETY: a half-precision number has two bytes.
            unsafe { s.half(scale.as_ptr()) }
        }
    }

    /// Multiplies a panel of keys with the scales of their groups.
    #[inline(always)]
    pub(super) fn scale_panel<S: Simd>(
        &self,
        s: S,
        rows: Rows<'_>,
        first: usize,
        panel: &mut [[f32; LANES]],
    ) {
        for (group, columns) in panel.chunks_exact_mut(self.len).enumerate() {
            let mut factors = [0.0; LANES];
            for (i, factor) in factors.iter_mut().enumerate() {
                let row = (first + i).min(rows.count() - 1);
                *factor = self.of_group(s, rows, row, group);
            }
            for column in columns {
                s.write(column, s.mul(s.read(column), s.read(&factors)));
            }
        }
    }

    /// Multiplies rows of values with the scales of their groups.
    #[inline(always)]
    pub(super) fn scale_rows<S: Simd>(&self, s: S, rows: Rows<'_>, out: &mut [f32]) {
        let all = out.chunks_exact_mut(self.groups * self.len);
        for (i, row) in all.take(rows.count()).enumerate() {
            for (group, numbers) in row.chunks_exact_mut(self.len).enumerate() {
                let factor = s.splat(self.of_group(s, rows, i, group));
                for at in numbers.as_chunks_mut().0 {
                    s.write(at, s.mul(s.read(at), factor));
                }
            }
        }
    }
}
