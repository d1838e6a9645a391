//! Products with few rows of activations.

use std::arch::x86_64::*;

use super::{Avx2, Codes, total};
use crate::matmul::blocks::Decode;
use crate::matmul::contract::{Job, Kernel};
use crate::matmul::float::Float;
use crate::matmul::layout::{BLOCK, GROUP};
use crate::matmul::rows::{self, DotIsa, Group, Values};
use crate::matmul::x86::X86;

/// The most rows of activations.
pub(super) const ROWS: usize = 4;

/// The kernel for block-quantised weights and `m` rows.
pub(super) fn blocks<B: Decode, const DOT: u8>(m: usize) -> Kernel {
    match m {
        1 => block_rows::<B, DOT, 1>,
        2 => block_rows::<B, DOT, 2>,
        3 => block_rows::<B, DOT, 3>,
        4 => block_rows::<B, DOT, 4>,
        _ => unreachable!("more rows are tiled"),
    }
}

/// # Safety
/// As for [`Kernel`].
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn block_rows<B: Decode, const DOT: u8, const M: usize>(job: &Job, _: &mut [u8]) {
    // SAFETY: the caller's.
    unsafe { rows::product::<Avx2<DOT>, B, M>(job) }
}

#[derive(Clone, Copy)]
pub(super) struct Sum {
    products: __m256,
    /// What the minima take away.
    minima: __m256,
}

impl<const DOT: u8> DotIsa for Avx2<DOT> {
    type Sum = Sum;

    #[inline(always)]
    unsafe fn zero() -> Sum {
        // SAFETY: the caller's.
        let zero = unsafe { _mm256_setzero_ps() };
        Sum {
            products: zero,
            minima: zero,
        }
    }

    #[inline(always)]
    unsafe fn add<B: Decode>(group: &Group, values: Values, count: usize, sum: &mut Sum) {
        // SAFETY: the caller's.
        unsafe {
            let mut scales = [0.0f32; 16];
            for eight in (0..256 / B::RUN).step_by(8) {
                let weight = _mm256_loadu_ps(group.scales.as_ptr().add(eight));
                let scale = _mm256_mul_ps(weight, _mm256_loadu_ps(values.scales.add(eight)));
                _mm256_storeu_ps(scales.as_mut_ptr().add(eight), scale);
                if B::TOP != 255 {
                    let mins = _mm256_loadu_ps(group.mins.as_ptr().add(eight));
                    sum.minima =
                        _mm256_fmadd_ps(mins, _mm256_loadu_ps(values.sums.add(eight)), sum.minima);
                }
            }
            for block in 0..count / BLOCK {
                let codes = Codes::load::<B>(group.codes.as_ptr().add(block * BLOCK));
                let values = _mm256_loadu_si256(values.codes.add(block * BLOCK).cast());
                let dots = _mm256_cvtepi32_ps(codes.dot::<B, DOT>(values));
                let scale = if B::RUN == 16 {
                    _mm256_set_m128(
                        _mm_set1_ps(scales[2 * block + 1]),
                        _mm_set1_ps(scales[2 * block]),
                    )
                } else {
                    _mm256_set1_ps(scales[block])
                };
                sum.products = _mm256_fmadd_ps(dots, scale, sum.products);
            }
        }
    }

    #[inline(always)]
    unsafe fn total(sum: Sum) -> f32 {
        // SAFETY: the caller's.
        unsafe { total(_mm256_sub_ps(sum.products, sum.minima)) }
    }
}

/// The kernel for floating-point weights and `m` rows.
pub(super) fn floats<F: Float>(m: usize) -> Kernel {
    match m {
        1 => float_rows::<F, 1>,
        2 => float_rows::<F, 2>,
        3 => float_rows::<F, 3>,
        4 => float_rows::<F, 4>,
        _ => unreachable!("more rows are tiled"),
    }
}

/// # Safety
/// As for [`Kernel`].
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn float_rows<F: Float, const M: usize>(job: &Job, _: &mut [u8]) {
    let step = const { if F::UNIT > 32 { F::UNIT } else { 32 } };
    let k = job.shape.k;
    let mut loaded = [0.0f32; GROUP];
    let input = job.operands.input.cast::<f32>();
    // SAFETY: the weight's rows and the input's have `k` values.
    unsafe {
        for column in job.columns.clone() {
            let weights = job.weight_row(column);
            let mut sums = [[_mm256_setzero_ps(); 2]; M];
            let whole = k / step * step;
            for index in (0..whole).step_by(step) {
                F::load_all::<X86>(weights, index, &mut loaded[..step]);
                add(&loaded[..step], input.add(index), k, &mut sums);
            }
            // Only floats, loaded in any number, leave a rest that is no multiple of 16.
            let rest = &mut loaded[..k - whole];
            F::load_all::<X86>(weights, whole, rest);
            let (pairs, rest) = rest.split_at(rest.len() / 16 * 16);
            add(pairs, input.add(whole), k, &mut sums);
            for (m, sums) in sums.iter().enumerate() {
                let mut sum = total(_mm256_add_ps(sums[0], sums[1]));
                for (index, weight) in (k - rest.len()..k).zip(rest) {
                    sum += weight * *input.add(m * k + index);
                }
                job.put(m, column, sum);
            }
        }
    }
}

/// Adds the products of some weights, a multiple of 16, with rows of `k` values.
///
/// # Safety
/// Each of the `M` rows has as many values from `input` on, and the machine has AVX2.
#[inline(always)]
unsafe fn add<const M: usize>(
    weights: &[f32],
    input: *const f32,
    k: usize,
    sums: &mut [[__m256; 2]; M],
) {
    for (pair, weights) in weights.chunks_exact(16).enumerate() {
        // SAFETY: the caller's.
        unsafe {
            let first = _mm256_loadu_ps(weights.as_ptr());
            let second = _mm256_loadu_ps(weights.as_ptr().add(8));
            for (m, [a, b]) in sums.iter_mut().enumerate() {
                let values = input.add(m * k + 16 * pair);
                *a = _mm256_fmadd_ps(first, _mm256_loadu_ps(values), *a);
                *b = _mm256_fmadd_ps(second, _mm256_loadu_ps(values.add(8)), *b);
            }
        }
    }
}
