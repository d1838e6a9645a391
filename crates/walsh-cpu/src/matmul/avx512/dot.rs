//! Products with few rows of activations: the weight is streamed once, and every decoded group serves all rows.

use std::arch::x86_64::*;

use walsh_formats::DType;

use super::decode::{Group, Wide};
use crate::matmul::contract::{Job, Kernel};
use crate::matmul::float::Float;
use crate::matmul::layout::{GROUP, RowParts};
use crate::matmul::x86::fetch_ahead;

/// The most rows of floats.
pub(super) const FLOAT_ROWS: usize = 4;

/// The sums of a row of activations with one weight row.
struct Sums {
    products: [__m512; 2],
    /// What the minima take away.
    minima: __m512,
}

/// The kernel for block-quantised weights and one row.
///
/// # Safety
/// As for [`Kernel`].
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) unsafe fn row<B: Wide>(job: &Job, _: &mut [u8]) {
    let k = job.shape.k;
    let place = |group, pair| Place {
        input: job.operands.input,
        parts: RowParts::new(k),
        group,
        pair,
    };
    let zero = _mm512_setzero_ps();
    // SAFETY: the weight's rows have whole blocks and the activations these parts; what lies past the last whole group
    // is taken pairwise, an odd last block with an empty one.
    unsafe {
        for column in job.columns.clone() {
            let mut sums = Sums {
                products: [zero; 2],
                minima: zero,
            };
            let mut weights = job.weight_row(column).cast::<B>();
            for group in 0..k / GROUP {
                fetch_ahead(weights.cast(), GROUP / B::LEN * size_of::<B>());
                multiply::<B, 4>(&B::wide::<4>(weights), place(group, 0), &mut sums);
                weights = weights.add(GROUP / B::LEN);
            }
            let rest = k % GROUP / B::LEN;
            for pair in 0..rest.div_ceil(2) {
                let mut last = [B::zeroed(); 2];
                let blocks = if 2 * pair + 1 < rest {
                    weights.add(2 * pair)
                } else {
                    last[0] = *weights.add(2 * pair);
                    last.as_ptr()
                };
                multiply::<B, 1>(&B::wide::<1>(blocks), place(k / GROUP, pair), &mut sums);
            }
            let minima = if B::RUN == 16 {
                sums.minima
            } else {
                _mm512_maskz_mov_ps(0xff00, sums.minima)
            };
            let products = _mm512_add_ps(sums.products[0], sums.products[1]);
            let sum = _mm512_reduce_add_ps(_mm512_sub_ps(products, minima));
            job.put(0, column, sum);
        }
    }
}

/// Where the activations of a group, or of a pair of blocks within it, are.
struct Place {
    input: *const u8,
    parts: RowParts,
    group: usize,
    pair: usize,
}

/// # Safety
/// The place is within a row of activations, and the machine has AVX-512 with VNNI.
#[inline(always)]
unsafe fn multiply<B: Wide, const VECTORS: usize>(decoded: &Group, place: Place, sums: &mut Sums) {
    // SAFETY: the caller's. A pair's load passes the group's scales and sums, but not the row: parts for runs of 16
    // follow. The lanes that it is not for are multiplied by zero.
    unsafe {
        let scales = if B::RUN == 16 {
            let floats = place
                .input
                .add(place.parts.runs_of_16())
                .cast::<f32>()
                .add(place.group * 32);
            sums.minima =
                _mm512_fmadd_ps(decoded.mins, _mm512_loadu_ps(floats.add(16)), sums.minima);
            _mm512_mul_ps(decoded.scales, _mm512_loadu_ps(floats))
        } else {
            let floats = place.input.add(place.parts.runs_of_32()).cast::<f32>();
            let floats = _mm512_loadu_ps(floats.add(place.group * 16 + place.pair * 2));
            let scales = _mm512_mul_ps(decoded.scales, floats);
            sums.minima = _mm512_add_ps(sums.minima, scales);
            scales
        };
        let codes = place.input.add(place.group * GROUP + place.pair * 64);
        for vector in 0..VECTORS {
            let values = _mm512_loadu_si512(codes.add(vector * 64).cast());
            let dots = _mm512_dpbusd_epi32(_mm512_setzero_si512(), decoded.codes[vector], values);
            // Each 32-bit lane has four values: four lanes to a run of 16, eight to a run of 32.
            let runs = if B::RUN == 16 {
                let lane = _mm512_set_epi32(3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0);
                _mm512_add_epi32(lane, _mm512_set1_epi32(4 * vector as i32))
            } else {
                let lane = _mm512_set_epi32(1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0);
                _mm512_add_epi32(lane, _mm512_set1_epi32(2 * vector as i32))
            };
            let scales = _mm512_permutexvar_ps(runs, scales);
            let sum = &mut sums.products[vector % 2];
            *sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots), scales, *sum);
        }
    }
}

/// The kernel for floating-point weights and `m` rows.
pub(super) fn floats<F: WideFloat>(m: usize) -> Kernel {
    match m {
        1 => float_rows::<F, 1>,
        2 => float_rows::<F, 2>,
        3 => float_rows::<F, 3>,
        4 => float_rows::<F, 4>,
        _ => unreachable!("more rows are tiled"),
    }
}

/// A floating-point type that loads sixteen values at a time.
pub(super) trait WideFloat: Float {
    /// Loads the values of a row from `index` on whose mask bits are set; the others are zero.
    ///
    /// # Safety
    /// The row has those values, and the machine has AVX-512.
    unsafe fn wide(row: *const u8, index: usize, mask: __mmask16) -> __m512;
}

impl WideFloat for crate::matmul::float::F32 {
    #[inline(always)]
    unsafe fn wide(row: *const u8, index: usize, mask: __mmask16) -> __m512 {
        // SAFETY: the caller's.
        unsafe { _mm512_maskz_loadu_ps(mask, row.add(4 * index).cast()) }
    }
}

impl WideFloat for crate::matmul::float::F16 {
    #[inline(always)]
    unsafe fn wide(row: *const u8, index: usize, mask: __mmask16) -> __m512 {
        // SAFETY: the caller's.
        unsafe { _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, row.add(2 * index).cast())) }
    }
}

impl WideFloat for crate::matmul::float::BF16 {
    #[inline(always)]
    unsafe fn wide(row: *const u8, index: usize, mask: __mmask16) -> __m512 {
        // SAFETY: the caller's.
        unsafe {
            let upper =
                _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, row.add(2 * index).cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(upper))
        }
    }
}

/// # Safety
/// As for [`Kernel`].
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn float_rows<F: WideFloat, const M: usize>(job: &Job, _: &mut [u8]) {
    let k = job.shape.k;
    let input = job.operands.input.cast::<f32>();
    // SAFETY: the weight's rows and the input's have `k` values; the mask leaves out what is past them.
    unsafe {
        for column in job.columns.clone() {
            let weights = job.weight_row(column);
            let mut sums = [[_mm512_setzero_ps(); 4]; M];
            let mut step = |index: usize, lane: usize, mask: __mmask16| {
                let weights = F::wide(weights, index, mask);
                for (m, sums) in sums.iter_mut().enumerate() {
                    let values = _mm512_maskz_loadu_ps(mask, input.add(m * k + index));
                    sums[lane] = _mm512_fmadd_ps(weights, values, sums[lane]);
                }
            };
            let whole = k / 64 * 64;
            for index in (0..whole).step_by(64) {
                for lane in 0..4 {
                    step(index + 16 * lane, lane, 0xffff);
                }
            }
            for index in (whole..k).step_by(16) {
                step(index, 0, ((1u32 << (k - index).min(16)) - 1) as __mmask16);
            }
            for (m, sums) in sums.iter().enumerate() {
                let [a, b, c, d] = *sums;
                let sum = _mm512_add_ps(_mm512_add_ps(a, b), _mm512_add_ps(c, d));
                job.put(m, column, _mm512_reduce_add_ps(sum));
            }
        }
    }
}

const _: () = assert!(DType::Q4K.block_len() == GROUP);
