//! Matrices of 8-bit floats with scales beside them, as folders of safetensors have them.
//!
//! A value is a float of four bits of exponent and three of fraction (E4M3 without infinities, of the OCP's specification
//! of 8-bit floats) times a scale that a rectangle of the matrix shares.

use half::{bf16, f16};

use crate::dtype::DType;
use crate::error::FormatError;
use crate::ggml::{self, e8m0, ue4m3};

/// The rows of a matrix.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    /// The values of a row.
    pub columns: usize,
    /// The rows and columns of a rectangle that shares a scale. Those at the ends of the matrix may be smaller.
    pub block: [usize; 2],
    /// The codes, a byte each.
    pub codes: &'a [u8],
    /// The scales, rectangle after rectangle along the rows.
    pub scales: &'a [u8],
    /// Their type; [`DType::U8`] where they are powers of two in a byte (E8M0).
    pub numbers: DType,
}

/// The number that a byte stands for.
///
/// ```
/// use walsh_formats::fp8::e4m3;
/// assert_eq!([e4m3(0x38), e4m3(0xfe), e4m3(1)], [1.0, -448.0, 2f32.powi(-9)]);
/// assert!(e4m3(0x7f).is_nan());
/// ```
#[inline]
pub const fn e4m3(bits: u8) -> f32 {
    if bits & 0x7f == 0x7f {
        return f32::NAN;
    }
    let magnitude = 2.0 * ue4m3(bits);
    if bits & 0x80 == 0 {
        magnitude
    } else {
        -magnitude
    }
}

impl Rows<'_> {
    /// Decodes a row to single precision: each product is rounded once. NaN gives NaN.
    ///
    /// # Panics
    /// When there is no such row, or `out` has not its size.
    pub fn decode(&self, row: usize, out: &mut [f32]) {
        let [high, wide] = self.block;
        let first = row / high * self.columns.div_ceil(wide);
        let codes = &self.codes[row * self.columns..][..self.columns];
        let runs = out.chunks_mut(wide).zip(codes.chunks(wide));
        for (run, (values, codes)) in runs.enumerate() {
            let scale = self.scale(first + run);
            for (value, code) in values.iter_mut().zip(codes) {
                *value = e4m3(*code) * scale;
            }
        }
    }

    /// Writes a row as values of a type.
    ///
    /// # Errors
    /// Those of [`ggml::encode`], such as for NaN.
    ///
    /// # Panics
    /// When there is no such row.
    pub fn pack(&self, row: usize, dtype: DType, out: &mut [u8]) -> Result<(), FormatError> {
        let mut values = vec![0.0; self.columns];
        self.decode(row, &mut values);
        ggml::encode(dtype, &values, out)
    }

    /// Whether all values are ones of bfloat16: scales are powers of two.
    pub fn is_bfloat(&self) -> bool {
        let bytes = if self.numbers == DType::U8 {
            1
        } else {
            self.numbers.block_bytes()
        };
        let mut scales = (0..self.scales.len() / bytes).map(|index| self.scale(index));
        // The smallest code times the smallest of these is a subnormal number of bfloat16.
        scales.all(|scale| scale.to_bits() << 9 == 0 && scale >= 2f32.powi(-117))
    }

    fn scale(&self, index: usize) -> f32 {
        let pair = || [self.scales[2 * index], self.scales[2 * index + 1]];
        match self.numbers {
            DType::U8 if self.scales[index] == u8::MAX => f32::NAN,
            DType::U8 => 2.0 * e8m0(self.scales[index]),
            DType::F16 => f16::from_le_bytes(pair()).to_f32(),
            DType::BF16 => bf16::from_le_bytes(pair()).to_f32(),
            _ => f32::from_le_bytes(std::array::from_fn(|i| self.scales[4 * index + i])),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By the definition of the format, in double precision.
    #[test]
    fn bytes_are_floats_of_four_and_three_bits() {
        for bits in 0..=u8::MAX {
            let (exponent, fraction) = (i32::from(bits >> 3 & 15), f64::from(bits & 7) / 8.0);
            let magnitude = match exponent {
                0 => fraction * 2f64.powi(-6),
                _ => (1.0 + fraction) * 2f64.powi(exponent - 7),
            };
            let expected = if bits < 128 { magnitude } else { -magnitude };
            match bits & 0x7f {
                0x7f => assert!(e4m3(bits).is_nan()),
                _ => assert_eq!(f64::from(e4m3(bits)), expected, "{bits:#x}"),
            }
        }
    }

    #[test]
    fn rectangles_share_scales() {
        // Three rows of five, in rectangles of two by three: 1 everywhere but for the scales.
        let scales: Vec<u8> = [1.0f32, 2.0, 4.0, 3.0]
            .iter()
            .flat_map(|x| x.to_le_bytes())
            .collect();
        let rows = Rows {
            columns: 5,
            block: [2, 3],
            codes: &[0x38; 15],
            scales: &scales,
            numbers: DType::F32,
        };
        let row = |row| {
            let mut out = [0.0; 5];
            rows.decode(row, &mut out);
            out
        };
        assert_eq!(row(1), [1.0, 1.0, 1.0, 2.0, 2.0]);
        assert_eq!(row(2), [4.0, 4.0, 4.0, 3.0, 3.0]);
        assert!(!rows.is_bfloat());
        let powers = Rows {
            block: [3, 5],
            scales: &[0x7f],
            numbers: DType::U8,
            ..rows
        };
        assert!(powers.is_bfloat());
        let mut out = [0.0; 5];
        powers.decode(2, &mut out);
        assert_eq!(out, [1.0; 5]);
        assert!(
            !Rows {
                scales: &[0xff],
                ..powers
            }
            .is_bfloat()
        );
    }
}
