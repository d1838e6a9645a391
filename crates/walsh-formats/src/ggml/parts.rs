//! What blocks of several families are made of: their lengths, their scales, and codes of four bits.

use half::f16;

/// The values of a block of the K types, of the IQ types but IQ4_NL, and of TQ1_0 and TQ2_0.
pub const SUPER_BLOCK: usize = 256;

/// The values of a block of most other quantised types.
pub const BLOCK: usize = 32;

/// Half of the power of two that a byte stands for: 2^(e − 128). 255 is no NaN, as in GGML.
#[inline]
pub const fn e8m0(e: u8) -> f32 {
    f32::from_bits(match e {
        0 | 1 => 0x0020_0000 << e,
        _ => (e as u32 - 1) << 23,
    })
}

/// Half of the number that a byte stands for: four bits of exponent, with a bias of 7, and three of fraction. The topmost
/// bit says nothing, and 127 is zero, as in GGML.
#[inline]
pub const fn ue4m3(bits: u8) -> f32 {
    if bits == 0x7f {
        return 0.0;
    }
    // As single precision the exponent has a bias of 127; subnormal numbers are subnormal there too. Times 2^119, exactly.
    f32::from_bits((bits as u32 & 0x7f) << 20) * f32::from_bits((119 + 127) << 23)
}

/// A scale in half precision; `None` where it is too large.
#[inline]
pub(super) fn half(value: f32) -> Option<f16> {
    let half = f16::from_f32(value);
    half.is_finite().then_some(half)
}

/// 1 / scale, or 0 where that is no number: the scale is then zero in half precision, and so is whatever is
/// decoded.
#[inline]
pub(super) fn inverse(scale: f32) -> f32 {
    let inverse = 1.0 / scale;
    if inverse.is_finite() { inverse } else { 0.0 }
}

/// Where the first value of the largest magnitude stands.
#[inline]
pub(super) fn largest(values: &[f32]) -> usize {
    let mut best = 0;
    for (i, value) in values.iter().enumerate() {
        if value.abs() > values[best].abs() {
            best = i;
        }
    }
    best
}

/// The 4-bit code of value `i` of a block of 32 whose halves share bytes.
#[inline]
pub(super) fn nibble(qs: &[u8], i: usize) -> u8 {
    (qs[i % 16] >> (4 * (i / 16))) & 15
}

/// The low four bits of 32 codes, the halves sharing bytes.
#[inline]
pub(super) fn pack_low(codes: &[u8; BLOCK]) -> [u8; 16] {
    std::array::from_fn(|i| (codes[i] & 15) | (codes[i + 16] << 4))
}
