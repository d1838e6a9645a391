//! GGML's blocks of 32 numbers with a scale.

use bytemuck::{Pod, Zeroable};
use walsh_formats::kv::BlockCodec;

use super::limits::{Within, is_number};
use super::numbers::{Numbers, Reader};
use crate::simd::{LANES, Simd, entries};

/// The numbers of a block.
const BLOCK: usize = 32;

/// Hundredths of a nanosecond that encoding a number takes.
pub(super) const COST: u64 = 30;

entries! {
    /// Encodes a row; false where it needs the codec's own care. `codes` are then unspecified.
    pub(super) fn encode(codec: BlockCodec, row: &[f32], codes: &mut [u8]) -> bool = encode_row
}

#[inline(always)]
fn encode_row<S: Simd>(s: S, codec: BlockCodec, row: &[f32], codes: &mut [u8]) -> bool {
    match codec {
        BlockCodec::Q8_0 => encode_q8_0(s, row, codes),
        BlockCodec::Q5_0 => encode_signed::<S, 5>(s, row, codes),
        BlockCodec::Q4_0 => encode_signed::<S, 4>(s, row, codes),
    }
}

/// The two vectors of a block.
#[inline(always)]
fn halves<S: Simd>(s: S, values: &[f32; BLOCK]) -> [S::F; 2] {
    let (halves, _) = values.as_chunks();
    [s.read(&halves[0]), s.read(&halves[1])]
}

/// 1 / scale, or 0 where that is no number.
#[inline(always)]
fn inverse(scale: f32) -> f32 {
    let inverse = 1.0 / scale;
    if inverse.is_finite() { inverse } else { 0.0 }
}

#[inline(always)]
fn encode_q8_0<S: Simd>(s: S, row: &[f32], codes: &mut [u8]) -> bool {
    let mut finite = Within::below(s, f32::INFINITY);
    let sign = s.splat_i(0x8000_0000);
    // The largest number below a half: its sum with a number, without its fraction, is that number rounded, with
    // halves away from zero.
    let half = s.splat_i(0.5f32.to_bits() - 1);
    let mut numbers = true;
    for (values, block) in row
        .as_chunks::<BLOCK>()
        .0
        .iter()
        .zip(codes.chunks_exact_mut(2 + BLOCK))
    {
        let v = halves(s, values);
        let size = [s.abs(v[0]), s.abs(v[1])];
        finite.note(size[0]);
        finite.note(size[1]);
        let scale = s.reduce_max(s.max(size[0], size[1])) / 127.0;
        let inverse = s.splat(inverse(scale));
        let scale = s.to_half(scale);
        numbers &= is_number(scale);
        block[..2].copy_from_slice(&scale.to_le_bytes());
        for (v, out) in v.into_iter().zip(block[2..].chunks_exact_mut(LANES)) {
            let y = s.mul(v, inverse);
            let half = s.of_bits(s.or(s.and(s.bits(y), sign), half));
            // SAFETY: sixteen bytes.
            unsafe { s.store_u8(out.as_mut_ptr(), s.truncate(s.add(y, half))) };
        }
    }
    numbers && finite.all()
}

/// Codes of 4 or 5 bits around the middle, scaled so that the largest magnitude gets the lowest: q4_0 and q5_0.
#[inline(always)]
fn encode_signed<S: Simd, const BITS: usize>(s: S, row: &[f32], codes: &mut [u8]) -> bool {
    let fifth = if BITS == 5 { 4 } else { 0 };
    let offset = (1 << (BITS - 1)) as f32;
    let mut finite = Within::below(s, f32::INFINITY);
    let centre = s.splat(offset + 0.5);
    // Without its fraction this is the highest code.
    let most = s.splat(2.0 * offset - 0.5);
    let mut numbers = true;
    let blocks = codes.chunks_exact_mut(2 + fifth + BLOCK / 2);
    for (values, block) in row.as_chunks::<BLOCK>().0.iter().zip(blocks) {
        let v = halves(s, values);
        finite.note(s.abs(v[0]));
        finite.note(s.abs(v[1]));
        let scale = peak(s, v, values) / -offset;
        let inverse = s.splat(inverse(scale));
        let scale = s.to_half(scale);
        numbers &= is_number(scale);
        block[..2].copy_from_slice(&scale.to_le_bytes());
        let mut c = [s.splat_i(0); 2];
        for i in 0..2 {
            let y = s.add(s.mul(v[i], inverse), centre);
            c[i] = s.truncate(s.min(y, most));
        }
        if BITS == 5 {
            for i in 0..2 {
                let bits = s.shr(c[i], s.splat_i(4));
                // SAFETY: sixteen bits.
                unsafe { s.store_bits::<1>(block[2 + 2 * i..][..2].as_mut_ptr(), bits) };
                c[i] = s.and(c[i], s.splat_i(15));
            }
        }
        let both = s.or(c[0], s.shl::<4>(c[1]));
        // SAFETY: sixteen bytes.
        unsafe { s.store_u8(block[2 + fifth..][..LANES].as_mut_ptr(), both) };
    }
    numbers && finite.all()
}

/// The first number of the largest magnitude of a block, which is given twice.
#[inline(always)]
fn peak<S: Simd>(s: S, v: [S::F; 2], values: &[f32]) -> f32 {
    let zero = s.splat(0.0);
    let high = s.reduce_max(s.max(v[0], v[1]));
    let low = s.reduce_max(s.max(s.sub(zero, v[0]), s.sub(zero, v[1])));
    if high > low {
        high
    } else if low > high {
        -low
    } else {
        // Both signs have it, or all are zero.
        let first = values.iter().find(|x| x.abs() == high.abs());
        first.copied().unwrap_or(0.0)
    }
}

/// Reads rows of a type.
#[inline(always)]
pub(super) fn read<S: Simd, R: Reader<S>>(s: S, codec: BlockCodec, reader: R) {
    match codec {
        BlockCodec::Q8_0 => reader.read(s, Q8),
        BlockCodec::Q5_0 => reader.read(s, Q5),
        BlockCodec::Q4_0 => reader.read(s, Q4),
    }
}

#[derive(Clone, Copy)]
struct Q8;
#[derive(Clone, Copy)]
struct Q5;
#[derive(Clone, Copy)]
struct Q4;

/// Implements [`Numbers`] for blocks of 32 numbers, of which a row has whole ones.
macro_rules! blocks {
    ($name:ty, $block:ty, $s:ident, $from:ident => $body:block) => {
        impl<S: Simd> Numbers<S> for $name {
            type Pair = $block;
            type Half = [u8; 0];
            const SCALED: bool = true;

            #[inline(always)]
            fn pair(self, $s: S, from: &$block) -> [S::F; 2] {
                // SAFETY: a half-precision number has two bytes.
                let d = $s.splat(unsafe { $s.half(from.scale.as_ptr()) });
                let [a, b] = self.unscaled($s, from);
                [$s.mul(a, d), $s.mul(b, d)]
            }

            #[inline(always)]
            fn unscaled(self, $s: S, $from: &$block) -> [S::F; 2] {
                $body
            }

            fn half(self, _: S, _: &[u8; 0]) -> S::F {
                unreachable!("rows of whole blocks end with one")
            }
        }
    };
}

/// A half-precision scale and 32 signed bytes.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct BlockQ8 {
    scale: [u8; 2],
    codes: [[u8; LANES]; 2],
}

blocks!(Q8, BlockQ8, s, block => {
    [s.read_i8(&block.codes[0]), s.read_i8(&block.codes[1])]
});

/// A half-precision scale and 16 bytes: their low halves are the first numbers and their high halves the last ones, from
/// −8 on.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct BlockQ4 {
    scale: [u8; 2],
    codes: [u8; LANES],
}

blocks!(Q4, BlockQ4, s, block => {
    let [first, second] = nibble_pair(s, &block.codes);
    [s.sub(first, s.splat(8.0)), s.sub(second, s.splat(8.0))]
});

/// As q4_0 with a word of fifth bits before the bytes, from −16 on.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct BlockQ5 {
    scale: [u8; 2],
    high: [u8; 4],
    codes: [u8; LANES],
}

blocks!(Q5, BlockQ5, s, block => {
    let (upper, lower) = (s.splat(0.0), s.splat(16.0));
    let high = u32::from_le_bytes(block.high);
    let [first, second] = nibble_pair(s, &block.codes);
    [
        s.sub(first, s.pick_bits(high, upper, lower)),
        s.sub(second, s.pick_bits(high >> 16, upper, lower)),
    ]
});

/// The low and the high halves of sixteen bytes, as numbers.
#[inline(always)]
fn nibble_pair<S: Simd>(s: S, bytes: &[u8; LANES]) -> [S::F; 2] {
    let bytes = s.read_u8(bytes);
    [
        s.number(s.and(bytes, s.splat_i(15))),
        s.number(s.shr(bytes, s.splat_i(4))),
    ]
}
