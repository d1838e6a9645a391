//! Plain floats: each number for itself.

use walsh_formats::kv::FloatCodec;

use super::limits::Within;
use crate::simd::{LANES, Simd};

/// Hundredths of a nanosecond that encoding a number takes.
pub(super) const COST: u64 = 15;

/// Encodes a row; false where it needs the codec's own care. `codes` are then unspecified.
#[inline(always)]
pub(super) fn encode<S: Simd>(s: S, codec: FloatCodec, row: &[f32], codes: &mut [u8]) -> bool {
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
