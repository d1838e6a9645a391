//! Quantising activations.

use std::arch::x86_64::*;
use std::ops::Range;

use crate::matmul::contract::InputLayout;
use crate::matmul::input::{Quantise, Quantised, block_scale};
use crate::matmul::layout::BLOCK;

struct Avx512Quantise;

impl Quantise for Avx512Quantise {
    #[inline(always)]
    unsafe fn quantise(values: *const f32) -> Quantised {
        // SAFETY: the caller's.
        unsafe {
            let (first, second) = (
                _mm512_loadu_ps(values),
                _mm512_loadu_ps(values.add(BLOCK / 2)),
            );
            // As integers, magnitudes compare like the numbers do, and infinity and NaN are above all others.
            let magnitude = |half: __m512| _mm512_castps_si512(_mm512_abs_ps(half));
            let largest = _mm512_max_epu32(magnitude(first), magnitude(second));
            let (scale, inverse) = block_scale(_mm512_reduce_max_epu32(largest));
            let inverse = _mm512_set1_ps(inverse);
            let code = |half: __m512| {
                _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(half, inverse)))
            };
            let codes = _mm256_set_m128i(code(second), code(first));
            let sums = _mm256_dpbusd_epi32(_mm256_setzero_si256(), _mm256_set1_epi8(1), codes);
            let sums = _mm256_hadd_epi32(sums, sums);
            let sums = _mm256_hadd_epi32(sums, sums);
            let first = _mm256_castsi256_si128(sums);
            let second = _mm256_extracti128_si256::<1>(sums);
            let mut out = Quantised {
                codes: [0; BLOCK],
                scale,
                sums: [_mm_cvtsi128_si32(first), _mm_cvtsi128_si32(second)],
            };
            _mm256_storeu_si256(out.codes.as_mut_ptr().cast(), codes);
            out
        }
    }
}

/// # Safety
/// As for [`InputLayout::prepare`].
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) unsafe fn prepare(
    layout: &InputLayout,
    items: Range<usize>,
    input: *const f32,
    prepared: *mut u8,
) {
    // SAFETY: the caller's.
    unsafe { layout.prepare_with::<Avx512Quantise>(items, input, prepared) }
}
