//! Dense types: halves of both kinds, and blocks of 32 numbers with a scale.

use walsh_formats::DType;

use crate::simd::Simd;

const LANES: usize = 16;

/// The numbers of a block.
const BLOCK: usize = 32;

/// Encodes a row of a dense type; false where the row needs the codec's own care. `codes` are then unspecified.
///
/// # Safety
/// The machine has the instruction set. The row is a multiple of 16 numbers, and `codes` as long as the type says.
#[inline(always)]
pub(super) unsafe fn encode<S: Simd>(dtype: DType, row: &[f32], codes: &mut [u8]) -> bool {
    // SAFETY: the caller's.
    unsafe {
        match dtype {
            DType::F32 => encode_f32::<S>(row, codes),
            DType::F16 => encode_f16::<S>(row, codes),
            DType::BF16 => encode_bf16::<S>(row, codes),
            DType::Q8_0 => encode_q8_0::<S>(row, codes),
            DType::Q4_0 => encode_signed::<S, 4>(row, codes),
            DType::Q5_0 => encode_signed::<S, 5>(row, codes),
            _ => false,
        }
    }
}

/// Sixteen lanes that are zero until a number is not below a limit, or is NaN.
#[derive(Clone, Copy)]
pub(super) struct Within<S: Simd> {
    limit: S::F,
    zeros: S::F,
}

impl<S: Simd> Within<S> {
    /// # Safety
    /// The machine has the instruction set.
    #[inline(always)]
    pub(super) unsafe fn below(limit: f32) -> Self {
        // SAFETY: the caller's.
        unsafe {
            Self {
                limit: S::splat(limit),
                zeros: S::splat(0.0),
            }
        }
    }

    /// Takes note of magnitudes.
    ///
    /// # Safety
    /// The machine has the instruction set.
    #[inline(always)]
    pub(super) unsafe fn note(&mut self, size: S::F) {
        // SAFETY: the caller's. A NaN is below nothing.
        self.zeros = unsafe { S::pick_below(size, self.limit, self.zeros, S::splat(f32::NAN)) };
    }

    /// Whether all were below the limit.
    ///
    /// # Safety
    /// The machine has the instruction set.
    #[inline(always)]
    pub(super) unsafe fn all(self) -> bool {
        // SAFETY: the caller's.
        unsafe { S::reduce_add(self.zeros) == 0.0 }
    }
}

#[inline(always)]
unsafe fn encode_f32<S: Simd>(row: &[f32], codes: &mut [u8]) -> bool {
    if !cfg!(target_endian = "little") {
        return false;
    }
    // SAFETY: the caller's; a row of f32 is four bytes a number.
    unsafe {
        let mut finite = Within::<S>::below(f32::INFINITY);
        for (chunk, out) in row
            .chunks_exact(LANES)
            .zip(codes.chunks_exact_mut(4 * LANES))
        {
            let x = S::load(chunk.as_ptr());
            finite.note(S::abs(x));
            S::store(out.as_mut_ptr().cast(), x);
        }
        finite.all()
    }
}

#[inline(always)]
unsafe fn encode_f16<S: Simd>(row: &[f32], codes: &mut [u8]) -> bool {
    // SAFETY: the caller's; a row of f16 is two bytes a number.
    unsafe {
        // From here on halves round to infinity.
        let mut within = Within::<S>::below(65_520.0);
        for (chunk, out) in row
            .chunks_exact(LANES)
            .zip(codes.chunks_exact_mut(2 * LANES))
        {
            let x = S::load(chunk.as_ptr());
            within.note(S::abs(x));
            S::store_f16(out.as_mut_ptr(), x);
        }
        within.all()
    }
}

#[inline(always)]
unsafe fn encode_bf16<S: Simd>(row: &[f32], codes: &mut [u8]) -> bool {
    // SAFETY: the caller's; a row of bf16 is two bytes a number.
    unsafe {
        // From here on numbers round to infinity.
        let mut within = Within::<S>::below(f32::from_bits(0x7f7f_8000));
        let sixteen = S::splat_i(16);
        for (chunk, out) in row
            .chunks_exact(LANES)
            .zip(codes.chunks_exact_mut(2 * LANES))
        {
            let x = S::load(chunk.as_ptr());
            within.note(S::abs(x));
            // To nearest, and to even: half less a bit, and a bit more where the last bit that stays is set.
            let bits = S::bits(x);
            let odd = S::and(S::shr(bits, sixteen), S::splat_i(1));
            let rounded = S::add_i(S::add_i(bits, S::splat_i(0x7fff)), odd);
            S::store_u16(out.as_mut_ptr(), S::shr(rounded, sixteen));
        }
        within.all()
    }
}

/// 1 / scale, or 0 where that is no number.
#[inline(always)]
fn inverse(scale: f32) -> f32 {
    let inverse = 1.0 / scale;
    if inverse.is_finite() { inverse } else { 0.0 }
}

/// Whether the bits of a half are of a number.
#[inline(always)]
pub(super) fn is_number(half: u16) -> bool {
    half & 0x7c00 != 0x7c00
}

#[inline(always)]
unsafe fn encode_q8_0<S: Simd>(row: &[f32], codes: &mut [u8]) -> bool {
    // SAFETY: the caller's; a block is a scale and a byte for each of its numbers.
    unsafe {
        let mut finite = Within::<S>::below(f32::INFINITY);
        let sign = S::splat_i(0x8000_0000);
        // The largest number below a half: its sum with a number, without its fraction, is that number rounded, with
        // halves away from zero.
        let half = S::splat_i(0.5f32.to_bits() - 1);
        let mut numbers = true;
        for (values, block) in row
            .chunks_exact(BLOCK)
            .zip(codes.chunks_exact_mut(2 + BLOCK))
        {
            let v = [
                S::load(values.as_ptr()),
                S::load(values.as_ptr().add(LANES)),
            ];
            let size = [S::abs(v[0]), S::abs(v[1])];
            finite.note(size[0]);
            finite.note(size[1]);
            let scale = S::reduce_max(S::max(size[0], size[1])) / 127.0;
            let inverse = S::splat(inverse(scale));
            let scale = S::to_half(scale);
            numbers &= is_number(scale);
            block[..2].copy_from_slice(&scale.to_le_bytes());
            for (v, out) in v.into_iter().zip(block[2..].chunks_exact_mut(LANES)) {
                let y = S::mul(v, inverse);
                let half = S::from_bits(S::or(S::and(S::bits(y), sign), half));
                S::store_u8(out.as_mut_ptr(), S::truncate(S::add(y, half)));
            }
        }
        numbers && finite.all()
    }
}

/// Codes of 4 or 5 bits around the middle, scaled so that the largest magnitude gets the lowest: q4_0 and q5_0.
#[inline(always)]
unsafe fn encode_signed<S: Simd, const BITS: usize>(row: &[f32], codes: &mut [u8]) -> bool {
    let fifth = if BITS == 5 { 4 } else { 0 };
    let offset = (1 << (BITS - 1)) as f32;
    // SAFETY: the caller's; a block is a scale, the fifth bits if there are any, and four bits for each number.
    unsafe {
        let mut finite = Within::<S>::below(f32::INFINITY);
        let centre = S::splat(offset + 0.5);
        // Without its fraction this is the highest code.
        let most = S::splat(2.0 * offset - 0.5);
        let mut numbers = true;
        let blocks = codes.chunks_exact_mut(2 + fifth + BLOCK / 2);
        for (values, block) in row.chunks_exact(BLOCK).zip(blocks) {
            let v = [
                S::load(values.as_ptr()),
                S::load(values.as_ptr().add(LANES)),
            ];
            finite.note(S::abs(v[0]));
            finite.note(S::abs(v[1]));
            let scale = peak::<S>(v, values) / -offset;
            let inverse = S::splat(inverse(scale));
            let scale = S::to_half(scale);
            numbers &= is_number(scale);
            block[..2].copy_from_slice(&scale.to_le_bytes());
            let mut c = [S::splat_i(0); 2];
            for i in 0..2 {
                let y = S::add(S::mul(v[i], inverse), centre);
                c[i] = S::truncate(S::min(y, most));
            }
            if BITS == 5 {
                for i in 0..2 {
                    let bits = S::shr(c[i], S::splat_i(4));
                    S::store_bits::<1>(block[2 + 2 * i..][..2].as_mut_ptr(), bits);
                    c[i] = S::and(c[i], S::splat_i(15));
                }
            }
            let both = S::or(c[0], S::shl::<4>(c[1]));
            S::store_u8(block[2 + fifth..][..LANES].as_mut_ptr(), both);
        }
        numbers && finite.all()
    }
}

/// The first number of the largest magnitude of a block, which is given twice.
///
/// # Safety
/// The machine has the instruction set.
#[inline(always)]
unsafe fn peak<S: Simd>(v: [S::F; 2], values: &[f32]) -> f32 {
    // SAFETY: the caller's.
    unsafe {
        let zero = S::splat(0.0);
        let high = S::reduce_max(S::max(v[0], v[1]));
        let low = S::reduce_max(S::max(S::sub(zero, v[0]), S::sub(zero, v[1])));
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
}
