//! What families share to decode a row: plain loops that the compiler vectorises for whichever instruction set they are
//! inlined into.
//!
//! Each helper reads its operands whole before it writes: otherwise the compiler, which cannot see that they are apart,
//! goes byte by byte.

use super::Decoded;

/// The first `N` bytes.
#[inline(always)]
pub(super) fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[..N]);
    array
}

/// Each byte, changed. (`map` of an array is not always inlined, and is then compiled without the instruction set.)
#[inline(always)]
pub(super) fn each<const N: usize>(mut bytes: [u8; N], change: impl Fn(u8) -> u8) -> [u8; N] {
    for byte in &mut bytes {
        *byte = change(*byte);
    }
    bytes
}

/// Puts the low nibbles of `packed` into the first half of `codes`, the high ones into the second.
#[inline(always)]
pub(super) fn nibbles<const N: usize>(packed: [u8; N], codes: &mut [u8]) {
    codes[..N].copy_from_slice(&each(packed, |byte| byte & 15));
    codes[N..2 * N].copy_from_slice(&each(packed, |byte| byte >> 4));
}

/// Codes of two bits: 32 bytes have those of 128 values, the first 32 in their lowest bits.
#[inline(always)]
pub(super) fn pairs_of_bits(packed: &[u8; 64], codes: &mut [u8]) {
    for (codes, packed) in codes.chunks_exact_mut(128).zip(packed.chunks_exact(32)) {
        let packed: [u8; 32] = array(packed);
        for (shift, codes) in codes.chunks_exact_mut(32).enumerate() {
            codes.copy_from_slice(&each(packed, |byte| byte >> (2 * shift) & 3));
        }
    }
}

/// Codes of two bits in order, four to a byte.
#[inline(always)]
pub(super) fn pairs_in_order<const N: usize>(packed: [u8; N], codes: &mut [u8]) {
    let mut words = [0u32; N];
    for (word, byte) in words.iter_mut().zip(packed) {
        let pairs = (u32::from(byte) | u32::from(byte) << 12) & 0x000f_000f;
        *word = (pairs | pairs << 6) & 0x0303_0303;
    }
    codes.copy_from_slice(bytemuck::bytes_of(&words));
}

/// Ors the bits of bytes, the least significant first, into as many codes as bit `to`.
#[inline(always)]
pub(super) fn or_bits_in_order<const N: usize>(bits: [u8; N], to: u32, codes: &mut [u8]) {
    for (codes, byte) in codes.chunks_exact_mut(8).zip(bits) {
        // Each byte keeps one bit of the eight; adding carries it to the top, from where it moves to its place.
        let spread = u64::from(byte).wrapping_mul(0x0101_0101_0101_0101) & 0x8040_2010_0804_0201;
        let moved = (spread + 0x7f7f_7f7f_7f7f_7f7f) >> (7 - to) & 0x0101_0101_0101_0101 << to;
        let all = u64::from_le_bytes(array(codes)) | moved;
        codes.copy_from_slice(&all.to_le_bytes());
    }
}

/// Ors what `bits` gives for each byte of `mask` into 32 codes.
#[inline(always)]
pub(super) fn or_bits(mask: [u8; 32], codes: &mut [u8], bits: impl Fn(u8) -> u8) {
    let mut all: [u8; 32] = array(codes);
    for (code, byte) in all.iter_mut().zip(mask) {
        *code |= bits(byte);
    }
    codes.copy_from_slice(&all);
}

/// Ors bit `s` of `mask[i]`, moved to bit `to`, into code `32·s + i`.
#[inline(always)]
pub(super) fn bit_planes(mask: [u8; 32], to: u32, codes: &mut [u8]) {
    for (plane, codes) in codes.chunks_exact_mut(32).enumerate() {
        or_bits(mask, codes, |byte| (byte >> plane & 1) << to);
    }
}

/// Fills in runs from integer scales: `scale[j] = d · ints[j]` and `min[j] = offset · scale[j]`.
#[inline(always)]
pub(super) fn symmetric_runs(
    out: &mut Decoded<'_>,
    d: f32,
    offset: f32,
    ints: impl Iterator<Item = i32>,
) {
    for ((scale, min), int) in out.scales.iter_mut().zip(&mut *out.mins).zip(ints) {
        *scale = d * int as f32;
        *min = offset * *scale;
    }
}
