//! Products with few rows of activations.

use std::arch::aarch64::*;

use super::{Neon, NeonPrimitives, dot, load_codes};
use crate::matmul::blocks::Decode;
use crate::matmul::contract::{Job, Kernel};
use crate::matmul::float::Float;
use crate::matmul::layout::{BLOCK, GROUP};
use crate::matmul::rows::{self, DotIsa, Group, Values};

/// The most rows of activations.
pub(super) const ROWS: usize = 4;

/// The kernel for block-quantised weights and `m` rows.
pub(super) fn blocks<B: Decode, const DOT: bool>(m: usize) -> Kernel {
    match (DOT, m) {
        (true, 1) => rows_with_dot::<B, 1>,
        (true, 2) => rows_with_dot::<B, 2>,
        (true, 3) => rows_with_dot::<B, 3>,
        (true, 4) => rows_with_dot::<B, 4>,
        (false, 1) => rows_without_dot::<B, 1>,
        (false, 2) => rows_without_dot::<B, 2>,
        (false, 3) => rows_without_dot::<B, 3>,
        (false, 4) => rows_without_dot::<B, 4>,
        _ => unreachable!("more rows are tiled"),
    }
}

/// # Safety
/// As for [`Kernel`].
#[target_feature(enable = "neon,dotprod")]
unsafe fn rows_with_dot<B: Decode, const M: usize>(job: &Job, _: &mut [u8]) {
    // SAFETY: the caller's.
    unsafe { rows::product::<Neon<true, false>, B, M>(job) }
}

/// # Safety
/// As for [`Kernel`].
unsafe fn rows_without_dot<B: Decode, const M: usize>(job: &Job, _: &mut [u8]) {
    // SAFETY: the caller's.
    unsafe { rows::product::<Neon<false, false>, B, M>(job) }
}

#[derive(Clone, Copy)]
pub(super) struct Sum {
    products: float32x4_t,
    /// What the minima take away.
    minima: float32x4_t,
}

impl<const DOT: bool, const MATRIX: bool> DotIsa for Neon<DOT, MATRIX> {
    type Sum = Sum;

    #[inline(always)]
    unsafe fn zero() -> Sum {
        // SAFETY: the caller's.
        let zero = unsafe { vdupq_n_f32(0.0) };
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
            for four in (0..256 / B::RUN).step_by(4) {
                let weight = vld1q_f32(group.scales.as_ptr().add(four));
                let scale = vmulq_f32(weight, vld1q_f32(values.scales.add(four)));
                vst1q_f32(scales.as_mut_ptr().add(four), scale);
                if B::TOP != 255 {
                    let mins = vld1q_f32(group.mins.as_ptr().add(four));
                    sum.minima = vfmaq_f32(sum.minima, mins, vld1q_f32(values.sums.add(four)));
                }
            }
            let zero = vdupq_n_s32(0);
            for block in 0..count / BLOCK {
                let codes = group.codes.as_ptr().add(block * BLOCK);
                let values = values.codes.add(block * BLOCK);
                let (first, second) = (load_codes::<B>(codes), load_codes::<B>(codes.add(16)));
                let dots = dot::<DOT>(zero, first, vld1q_s8(values));
                if B::RUN == 16 {
                    let more = dot::<DOT>(zero, second, vld1q_s8(values.add(16)));
                    sum.products =
                        vfmaq_n_f32(sum.products, vcvtq_f32_s32(dots), scales[2 * block]);
                    sum.products =
                        vfmaq_n_f32(sum.products, vcvtq_f32_s32(more), scales[2 * block + 1]);
                } else {
                    let dots = dot::<DOT>(dots, second, vld1q_s8(values.add(16)));
                    sum.products = vfmaq_n_f32(sum.products, vcvtq_f32_s32(dots), scales[block]);
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn total(sum: Sum) -> f32 {
        // SAFETY: the caller's.
        unsafe { vaddvq_f32(vsubq_f32(sum.products, sum.minima)) }
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
unsafe fn float_rows<F: Float, const M: usize>(job: &Job, _: &mut [u8]) {
    let step = const { if F::UNIT > 16 { F::UNIT } else { 16 } };
    let k = job.shape.k;
    let mut loaded = [0.0f32; GROUP];
    let input = job.operands.input.cast::<f32>();
    // SAFETY: the weight's rows and the input's have `k` values.
    unsafe {
        for column in job.columns.clone() {
            let weights = job.weight_row(column);
            let mut sums = [[vdupq_n_f32(0.0); 2]; M];
            let whole = k / step * step;
            for index in (0..whole).step_by(step) {
                F::load_all::<NeonPrimitives>(weights, index, &mut loaded[..step]);
                add(&loaded[..step], input.add(index), k, &mut sums);
            }
            // Only floats, loaded in any number, leave a rest.
            let rest = &mut loaded[..k - whole];
            F::load_all::<NeonPrimitives>(weights, whole, rest);
            for (m, sums) in sums.iter().enumerate() {
                let mut sum = vaddvq_f32(vaddq_f32(sums[0], sums[1]));
                for (index, weight) in (whole..k).zip(rest.iter()) {
                    sum += weight * *input.add(m * k + index);
                }
                job.put(m, column, sum);
            }
        }
    }
}

/// Adds the products of some weights, a multiple of 8, with rows of `k` values.
///
/// # Safety
/// Each of the `M` rows has as many values from `input` on.
#[inline(always)]
unsafe fn add<const M: usize>(
    weights: &[f32],
    input: *const f32,
    k: usize,
    sums: &mut [[float32x4_t; 2]; M],
) {
    for (pair, weights) in weights.chunks_exact(8).enumerate() {
        // SAFETY: the caller's.
        unsafe {
            let first = vld1q_f32(weights.as_ptr());
            let second = vld1q_f32(weights.as_ptr().add(4));
            for (m, [a, b]) in sums.iter_mut().enumerate() {
                let values = input.add(m * k + 8 * pair);
                *a = vfmaq_f32(*a, first, vld1q_f32(values));
                *b = vfmaq_f32(*b, second, vld1q_f32(values.add(4)));
            }
        }
    }
}
