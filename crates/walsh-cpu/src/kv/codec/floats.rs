//! Plain floats: each number for itself.

use walsh_formats::kv::FloatCodec;

use super::limits::Within;
use super::numbers::{Numbers, Reader};
use crate::simd::{LANES, Simd, entries};

/// Hundredths of a nanosecond that encoding a number takes.
pub(super) const COST: u64 = 15;

entries! {
    /// Encodes a row; false where it needs the codec's own care. `codes` are then unspecified.
    pub(super) fn encode(codec: FloatCodec, row: &[f32], codes: &mut [u8]) -> bool = encode_row
}

#[inline(always)]
fn encode_row<S: Simd>(s: S, codec: FloatCodec, row: &[f32], codes: &mut [u8]) -> bool {
    match codec {
        FloatCodec::F32 => encode_f32(s, row, codes),
        FloatCodec::F16 => encode_f16(s, row, codes),
        FloatCodec::BF16 => encode_bf16(s, row, codes),
    }
}

#[inline(always)]
fn encode_f32<S: Simd>(s: S, row: &[f32], codes: &mut [u8]) -> bool {
    if !cfg!(target_endian = "little") {
        return false;
    }
    let mut finite = Within::below(s, f32::INFINITY);
    for (chunk, out) in row
        .as_chunks()
        .0
        .iter()
        .zip(codes.chunks_exact_mut(4 * LANES))
    {
        let x = s.read(chunk);
        finite.note(s.abs(x));
        // SAFETY: room for sixteen numbers.
        unsafe { s.store(out.as_mut_ptr().cast(), x) };
    }
    finite.all()
}

#[inline(always)]
fn encode_f16<S: Simd>(s: S, row: &[f32], codes: &mut [u8]) -> bool {
    // From here on halves round to infinity.
    let mut within = Within::below(s, 65_520.0);
    for (chunk, out) in row
        .as_chunks()
        .0
        .iter()
        .zip(codes.chunks_exact_mut(2 * LANES))
    {
        let x = s.read(chunk);
        within.note(s.abs(x));
        // SAFETY: sixteen halves.
        unsafe { s.store_f16(out.as_mut_ptr(), x) };
    }
    within.all()
}

#[inline(always)]
fn encode_bf16<S: Simd>(s: S, row: &[f32], codes: &mut [u8]) -> bool {
    // From here on numbers round to infinity.
    let mut within = Within::below(s, f32::from_bits(0x7f7f_8000));
    let sixteen = s.splat_i(16);
    for (chunk, out) in row
        .as_chunks()
        .0
        .iter()
        .zip(codes.chunks_exact_mut(2 * LANES))
    {
        let x = s.read(chunk);
        within.note(s.abs(x));
        // To nearest, and to even: half less a bit, and a bit more where the last bit that stays is set.
        let bits = s.bits(x);
        let odd = s.and(s.shr(bits, sixteen), s.splat_i(1));
        let rounded = s.add_i(s.add_i(bits, s.splat_i(0x7fff)), odd);
        // SAFETY: sixteen halves.
        unsafe { s.store_u16(out.as_mut_ptr(), s.shr(rounded, sixteen)) };
    }
    within.all()
}

/// Reads rows of a type.
#[inline(always)]
pub(super) fn read<S: Simd, R: Reader<S>>(s: S, codec: FloatCodec, reader: R) {
    match codec {
        FloatCodec::F32 => reader.read(s, F32),
        FloatCodec::F16 => reader.read(s, F16),
        FloatCodec::BF16 => reader.read(s, Bf16),
    }
}

#[derive(Clone, Copy)]
struct F32;
#[derive(Clone, Copy)]
struct F16;
#[derive(Clone, Copy)]
struct Bf16;

/// Implements [`Numbers`] for types whose numbers follow each other.
macro_rules! plain {
    ($name:ty, $bytes:literal, $read:ident) => {
        impl<S: Simd> Numbers<S> for $name {
            type Pair = [[u8; $bytes * LANES]; 2];
            type Half = [u8; $bytes * LANES];

            #[inline(always)]
            fn pair(self, s: S, from: &Self::Pair) -> [S::F; 2] {
                [s.$read(&from[0]), s.$read(&from[1])]
            }

            #[inline(always)]
            fn half(self, s: S, from: &Self::Half) -> S::F {
                s.$read(from)
            }
        }
    };
}

plain!(F32, 4, read_f32);
plain!(F16, 2, read_f16);
plain!(Bf16, 2, read_bf16);
