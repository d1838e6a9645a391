//! Blocks as integer codes with a scale and a minimum for each run of them: what every product kernel computes on.
//!
//! A decoded value is `scale · code − minimum` with an unsigned 8-bit code. Types that are symmetric about zero have
//! their offset in the minimum. The decoders are plain loops that the compiler vectorises for whichever instruction set
//! they are inlined into.

use half::f16;
use walsh_formats::ggml::{
    Block, BlockIq4Nl, BlockIq4Xs, BlockQ2K, BlockQ3K, BlockQ4_0, BlockQ4_1, BlockQ4K, BlockQ5_0,
    BlockQ5_1, BlockQ5K, BlockQ6K, BlockQ8_0, IQ4_VALUES,
};

/// What the signed entries of the 4-bit table are raised by to make unsigned codes.
pub(super) const IQ4_OFFSET: i32 = 128;

/// The 4-bit table as unsigned codes.
pub(super) const IQ4_CODES: [u8; 16] = {
    let mut codes = [0; 16];
    let mut i = 0;
    while i < 16 {
        codes[i] = (IQ4_VALUES[i] as i32 + IQ4_OFFSET) as u8;
        i += 1;
    }
    codes
};

/// The steps of decoding for which the compiler does not find an instruction set's own instructions.
pub(super) trait Primitives {
    /// The value of a half-precision number.
    ///
    /// # Safety
    /// The instruction set is available.
    unsafe fn widen(half: f16) -> f32;

    /// Widens consecutive numbers, which need not be aligned.
    ///
    /// # Safety
    /// As for [`Primitives::widen`]; `from` points to as many numbers as `to` takes.
    #[inline(always)]
    unsafe fn widen_all(from: *const f16, to: &mut [f32]) {
        for (i, to) in to.iter_mut().enumerate() {
            // SAFETY: the caller's.
            *to = unsafe { Self::widen(from.add(i).read_unaligned()) };
        }
    }

    /// Replaces indices into the 4-bit table by its codes.
    ///
    /// # Safety
    /// The instruction set is available.
    #[inline(always)]
    unsafe fn look_up(indices: [u8; 32]) -> [u8; 32] {
        each(indices, |index| IQ4_CODES[usize::from(index & 15)])
    }
}

/// The steps without special instructions.
pub(super) struct Plain;

impl Primitives for Plain {
    #[inline(always)]
    unsafe fn widen(half: f16) -> f32 {
        // Numbers below the normal range are scaled up by an exact product; infinities and NaN get the exponent that
        // the shift leaves them short of.
        let bits = u32::from(half.to_bits());
        let magnitude = (bits & 0x7fff) << 13;
        let value = if magnitude >= 0x0f80_0000 {
            f32::from_bits(magnitude | 0x7f80_0000)
        } else if magnitude >= 0x0080_0000 {
            f32::from_bits(magnitude + 0x3800_0000)
        } else {
            (magnitude >> 13) as f32 * f32::from_bits(0x3380_0000)
        };
        f32::from_bits(value.to_bits() | (bits & 0x8000) << 16)
    }
}

/// Where a block's decoded form goes: slices of exactly `LEN`, `LEN / RUN` and `LEN / RUN` elements.
pub(super) struct Decoded<'a> {
    pub(super) codes: &'a mut [u8],
    pub(super) scales: &'a mut [f32],
    pub(super) mins: &'a mut [f32],
}

/// A block type that decodes to codes, scales and minima.
pub(super) trait Decode: Block {
    /// The values of a block.
    const LEN: usize = Self::DTYPE.block_len();
    /// How many consecutive values share a scale: 16 or 32.
    const RUN: usize;
    /// The largest code. Types that have all of 255 are symmetric about 128.
    const TOP: u8;
    /// The code that stands for zero, in types that are symmetric about it: the minimum is that many scales. Types with
    /// minima of their own have none.
    const ZERO: Option<u8>;

    /// Decodes one block.
    ///
    /// # Safety
    /// The instruction set of `P` is available.
    unsafe fn decode<P: Primitives>(&self, out: Decoded<'_>);
}

/// The code that stands for zero as a power of two: sums of a symmetric type's codes times activations start from the
/// negated sum of the activations, shifted by it, and have no minimum to lose.
pub(super) const fn zero_shift(zero: Option<u8>) -> Option<i32> {
    match zero {
        None => None,
        Some(zero) => {
            assert!(zero.is_power_of_two());
            Some(zero.trailing_zeros() as i32)
        }
    }
}

// Each helper reads its operands whole before it writes: otherwise the compiler, which cannot see that they are apart,
// goes byte by byte.

/// The first `N` bytes.
#[inline(always)]
fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[..N]);
    array
}

/// Each byte, changed. (`map` of an array is not always inlined, and is then compiled without the instruction set.)
#[inline(always)]
fn each<const N: usize>(mut bytes: [u8; N], change: impl Fn(u8) -> u8) -> [u8; N] {
    for byte in &mut bytes {
        *byte = change(*byte);
    }
    bytes
}

/// Puts the low nibbles of `packed` into the first half of `codes`, the high ones into the second.
#[inline(always)]
fn nibbles<const N: usize>(packed: [u8; N], codes: &mut [u8]) {
    codes[..N].copy_from_slice(&each(packed, |byte| byte & 15));
    codes[N..2 * N].copy_from_slice(&each(packed, |byte| byte >> 4));
}

/// Ors what `bits` gives for each byte of `mask` into 32 codes.
#[inline(always)]
fn or_bits(mask: [u8; 32], codes: &mut [u8], bits: impl Fn(u8) -> u8) {
    let mut all: [u8; 32] = array(codes);
    for (code, byte) in all.iter_mut().zip(mask) {
        *code |= bits(byte);
    }
    codes.copy_from_slice(&all);
}

/// Adds 16 to the codes whose bit is set.
#[inline(always)]
fn fifth_bits(bits: [u8; 4], codes: &mut [u8]) {
    for (codes, byte) in codes.chunks_exact_mut(8).zip(bits) {
        // Each byte keeps one bit of the eight; adding carries it to the top, from where it moves to bit 4.
        let spread = u64::from(byte).wrapping_mul(0x0101_0101_0101_0101) & 0x8040_2010_0804_0201;
        let fifth = (spread + 0x7f7f_7f7f_7f7f_7f7f) >> 3 & 0x1010_1010_1010_1010;
        let all = u64::from_le_bytes(array(codes)) | fifth;
        codes.copy_from_slice(&all.to_le_bytes());
    }
}

/// The eight 6-bit scales and eight 6-bit minima of the types `q4_K` and `q5_K`.
#[inline(always)]
pub(super) fn scales_and_mins(packed: &[u8; 12]) -> [u8; 16] {
    let word =
        |i: usize| u32::from_le_bytes([packed[i], packed[i + 1], packed[i + 2], packed[i + 3]]);
    let (scales, mins, rest) = (word(0), word(4), word(8));
    let words = [
        scales & 0x3f3f_3f3f,
        (rest & 0x0f0f_0f0f) | (scales >> 2 & 0x3030_3030),
        mins & 0x3f3f_3f3f,
        (rest >> 4 & 0x0f0f_0f0f) | (mins >> 2 & 0x3030_3030),
    ];
    bytemuck::cast(words)
}

/// The sixteen scales of `q3_K`, as stored: 32 too large.
#[inline(always)]
pub(super) fn q3_scales(packed: &[u8; 12]) -> [u8; 16] {
    let word =
        |i: usize| u32::from_le_bytes([packed[i], packed[i + 1], packed[i + 2], packed[i + 3]]);
    let (a, b, high) = (word(0), word(4), word(8));
    let words = [
        (a & 0x0f0f_0f0f) | (high << 4 & 0x3030_3030),
        (b & 0x0f0f_0f0f) | (high << 2 & 0x3030_3030),
        (a >> 4 & 0x0f0f_0f0f) | (high & 0x3030_3030),
        (b >> 4 & 0x0f0f_0f0f) | (high >> 2 & 0x3030_3030),
    ];
    bytemuck::cast(words)
}

/// The eight scales of `iq4_xs`, as stored: 32 too large.
#[inline(always)]
pub(super) fn iq4_xs_scales(block: &BlockIq4Xs) -> [u8; 8] {
    std::array::from_fn(|run| {
        let low = block.scales_l[run / 2] >> (4 * (run % 2)) & 15;
        low | ((block.scales_h >> (2 * run) & 3) as u8) << 4
    })
}

/// Decoders of the types with one scale, and perhaps a minimum, for a block of 32.
macro_rules! small_block {
    ($type:ident, $top:literal, $zero:expr, |$block:ident, $codes:ident| $fill:expr, |$scale:ident, $widen:ident| $min:expr) => {
        impl Decode for $type {
            const RUN: usize = 32;
            const TOP: u8 = $top;
            const ZERO: Option<u8> = $zero;

            #[inline(always)]
            unsafe fn decode<P: Primitives>(&self, out: Decoded<'_>) {
                let $block = self;
                let $codes: &mut [u8] = &mut out.codes[..32];
                $fill;
                // SAFETY: the caller's.
                let $widen = |half| unsafe { P::widen(half) };
                let $scale = $widen($block.d);
                out.scales[0] = $scale;
                out.mins[0] = $min;
            }
        }
    };
}

small_block!(
    BlockQ4_0,
    15,
    Some(8),
    |block, codes| nibbles(block.qs, codes),
    |d, _widen| 8.0 * d
);
small_block!(
    BlockQ4_1,
    15,
    None,
    |block, codes| nibbles(block.qs, codes),
    |_d, widen| -widen(block.m)
);
small_block!(
    BlockQ5_0,
    31,
    Some(16),
    |block, codes| {
        nibbles(block.qs, codes);
        fifth_bits(block.qh, codes);
    },
    |d, _widen| 16.0 * d
);
small_block!(
    BlockQ5_1,
    31,
    None,
    |block, codes| {
        nibbles(block.qs, codes);
        fifth_bits(block.qh, codes);
    },
    |_d, widen| -widen(block.m)
);
small_block!(
    BlockQ8_0,
    255,
    Some(128),
    |block, codes| codes.copy_from_slice(&each::<32>(bytemuck::cast(block.qs), |code| code ^ 0x80)),
    |d, _widen| 128.0 * d
);
small_block!(
    BlockIq4Nl,
    255,
    Some(IQ4_OFFSET as u8),
    |block, codes| {
        nibbles(block.qs, codes);
        // SAFETY: the caller's.
        let looked_up = unsafe { P::look_up(array(codes)) };
        codes.copy_from_slice(&looked_up);
    },
    |d, _widen| IQ4_OFFSET as f32 * d
);

/// Fills in runs from integer scales: `scale[j] = d · ints[j]` and `min[j] = offset · scale[j]`.
#[inline(always)]
fn symmetric_runs(out: &mut Decoded<'_>, d: f32, offset: f32, ints: impl Iterator<Item = i32>) {
    for ((scale, min), int) in out.scales.iter_mut().zip(&mut *out.mins).zip(ints) {
        *scale = d * int as f32;
        *min = offset * *scale;
    }
}

/// Fills in eight runs from the bytes that [`scales_and_mins`] returns.
#[inline(always)]
fn asymmetric_runs(out: &mut Decoded<'_>, d: f32, dmin: f32, ints: &[u8; 16]) {
    for (scale, &int) in out.scales.iter_mut().zip(&ints[..8]) {
        *scale = d * f32::from(int);
    }
    for (min, &int) in out.mins.iter_mut().zip(&ints[8..]) {
        *min = dmin * f32::from(int);
    }
}

/// The low two bits of the codes of `q2_K` and `q3_K`.
#[inline(always)]
fn pairs_of_bits(packed: &[u8; 64], codes: &mut [u8]) {
    for (codes, packed) in codes.chunks_exact_mut(128).zip(packed.chunks_exact(32)) {
        let packed: [u8; 32] = array(packed);
        for (shift, codes) in codes.chunks_exact_mut(32).enumerate() {
            codes.copy_from_slice(&each(packed, |byte| byte >> (2 * shift) & 3));
        }
    }
}

/// Ors bit `s` of `mask[i]`, moved to bit `to`, into code `32·s + i`.
#[inline(always)]
fn bit_planes(mask: [u8; 32], to: u32, codes: &mut [u8]) {
    for (plane, codes) in codes.chunks_exact_mut(32).enumerate() {
        or_bits(mask, codes, |byte| (byte >> plane & 1) << to);
    }
}

impl Decode for BlockQ2K {
    const RUN: usize = 16;
    const TOP: u8 = 3;
    const ZERO: Option<u8> = None;

    #[inline(always)]
    unsafe fn decode<P: Primitives>(&self, out: Decoded<'_>) {
        pairs_of_bits(&self.qs, out.codes);
        // SAFETY: the caller's.
        let (d, dmin) = unsafe { (P::widen(self.d), P::widen(self.dmin)) };
        for ((scale, min), &byte) in out.scales.iter_mut().zip(out.mins).zip(&self.scales) {
            *scale = d * f32::from(byte & 15);
            *min = dmin * f32::from(byte >> 4);
        }
    }
}

impl Decode for BlockQ3K {
    const RUN: usize = 16;
    const TOP: u8 = 7;
    const ZERO: Option<u8> = Some(4);

    #[inline(always)]
    unsafe fn decode<P: Primitives>(&self, mut out: Decoded<'_>) {
        pairs_of_bits(&self.qs, out.codes);
        bit_planes(self.hmask, 2, out.codes);
        // SAFETY: the caller's.
        let d = unsafe { P::widen(self.d) };
        let ints = q3_scales(&self.scales);
        symmetric_runs(&mut out, d, 4.0, ints.iter().map(|&s| i32::from(s) - 32));
    }
}

impl Decode for BlockQ4K {
    const RUN: usize = 32;
    const TOP: u8 = 15;
    const ZERO: Option<u8> = None;

    #[inline(always)]
    unsafe fn decode<P: Primitives>(&self, mut out: Decoded<'_>) {
        for (packed, codes) in self.qs.chunks_exact(32).zip(out.codes.chunks_exact_mut(64)) {
            nibbles::<32>(array(packed), codes);
        }
        // SAFETY: the caller's.
        let (d, dmin) = unsafe { (P::widen(self.d), P::widen(self.dmin)) };
        asymmetric_runs(&mut out, d, dmin, &scales_and_mins(&self.scales));
    }
}

impl Decode for BlockQ5K {
    const RUN: usize = 32;
    const TOP: u8 = 31;
    const ZERO: Option<u8> = None;

    #[inline(always)]
    unsafe fn decode<P: Primitives>(&self, mut out: Decoded<'_>) {
        for (packed, codes) in self.qs.chunks_exact(32).zip(out.codes.chunks_exact_mut(64)) {
            nibbles::<32>(array(packed), codes);
        }
        bit_planes(self.qh, 4, out.codes);
        // SAFETY: the caller's.
        let (d, dmin) = unsafe { (P::widen(self.d), P::widen(self.dmin)) };
        asymmetric_runs(&mut out, d, dmin, &scales_and_mins(&self.scales));
    }
}

impl Decode for BlockQ6K {
    const RUN: usize = 16;
    const TOP: u8 = 63;
    const ZERO: Option<u8> = Some(32);

    #[inline(always)]
    unsafe fn decode<P: Primitives>(&self, mut out: Decoded<'_>) {
        for half in 0..2 {
            let codes = &mut out.codes[128 * half..128 * half + 128];
            nibbles::<64>(array(&self.ql[64 * half..]), codes);
            let high: [u8; 32] = array(&self.qh[32 * half..]);
            for (shift, codes) in codes.chunks_exact_mut(32).enumerate() {
                or_bits(high, codes, |byte| (byte >> (2 * shift) & 3) << 4);
            }
        }
        // SAFETY: the caller's.
        let d = unsafe { P::widen(self.d) };
        symmetric_runs(&mut out, d, 32.0, self.scales.iter().map(|&s| i32::from(s)));
    }
}

impl Decode for BlockIq4Xs {
    const RUN: usize = 32;
    const TOP: u8 = 255;
    const ZERO: Option<u8> = Some(IQ4_OFFSET as u8);

    #[inline(always)]
    unsafe fn decode<P: Primitives>(&self, mut out: Decoded<'_>) {
        for (packed, codes) in self.qs.chunks_exact(16).zip(out.codes.chunks_exact_mut(32)) {
            nibbles::<16>(array(packed), codes);
            // SAFETY: the caller's.
            let looked_up = unsafe { P::look_up(array(codes)) };
            codes.copy_from_slice(&looked_up);
        }
        // SAFETY: the caller's.
        let d = unsafe { P::widen(self.d) };
        let ints = iq4_xs_scales(self);
        symmetric_runs(
            &mut out,
            d,
            IQ4_OFFSET as f32,
            ints.iter().map(|&s| i32::from(s) - 32),
        );
    }
}

pub(super) use walsh_formats::with_block;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matmul::testing::{block_types, random_weights};

    #[test]
    fn halves_widen_exactly() {
        for bits in 0..=u16::MAX {
            let half = f16::from_bits(bits);
            // SAFETY: needs no instruction set.
            let wide = unsafe { Plain::widen(half) };
            assert!(
                wide.to_bits() == half.to_f32().to_bits() || wide.is_nan() && half.is_nan(),
                "{bits:#x}"
            );
        }
    }

    #[test]
    fn blocks_decode_to_the_reference_values() {
        for dtype in block_types() {
            let values = 1024;
            let bytes = random_weights(dtype, 1, values, 7);
            let mut expected = vec![0.0; values];
            walsh_formats::ggml::decode(dtype, &bytes, &mut expected).unwrap();
            let decoded = with_block!(dtype, B => decode_row::<B>(&bytes), else => unreachable!());
            for (i, (&found, &expected)) in decoded.iter().zip(&expected).enumerate() {
                let error = (found - expected).abs();
                assert!(
                    error <= 1e-4 * expected.abs().max(0.1),
                    "{dtype} {i}: {found} {expected}"
                );
            }
        }
    }

    fn decode_row<B: Decode>(bytes: &[u8]) -> Vec<f32> {
        let mut row = Vec::new();
        for block in bytes.chunks_exact(size_of::<B>()) {
            let block: B = bytemuck::pod_read_unaligned(block);
            let (mut codes, mut scales, mut mins) = (
                vec![0; B::LEN],
                vec![0.0; B::LEN / B::RUN],
                vec![0.0; B::LEN / B::RUN],
            );
            let out = Decoded {
                codes: &mut codes,
                scales: &mut scales,
                mins: &mut mins,
            };
            // SAFETY: needs no instruction set.
            unsafe { block.decode::<Plain>(out) };
            row.extend(
                codes
                    .iter()
                    .enumerate()
                    .map(|(i, &code)| scales[i / B::RUN] * f32::from(code) - mins[i / B::RUN]),
            );
        }
        row
    }
}
