//! Products with few rows of activations, for instruction sets whose registers do not hold a decoded group: each group
//! of a weight row is decoded to the stack, once for all rows of activations.

use std::marker::PhantomData;

use super::blocks::Decode;
use super::contract::Job;
use super::float::Float;
use super::kernel::Body;
use super::layout::{BLOCK, GROUP, RowParts};
use super::tile::{Staged, stage_plainly};
use crate::simd::{Numbers, Products, Register, RowProducts, Scales};

/// The most rows of activations.
pub(super) const ROWS: usize = 4;

/// The runs of a group, at most.
const RUNS: usize = GROUP / 16;

/// Up to 256 decoded values. Runs past the last have zero scales and minima.
#[repr(align(64))]
struct Group {
    codes: [[u8; BLOCK]; GROUP / BLOCK],
    scales: [f32; RUNS],
    mins: [f32; RUNS],
}

/// A group of a weight row.
struct Step<'a, B> {
    job: &'a Job,
    index: usize,
    blocks: *const B,
    /// Its values: all of a group's, or the last of a row.
    count: usize,
}

/// The kernel for block-quantised weights and `M` rows.
pub(super) struct Rows<B, const M: usize>(PhantomData<B>);

impl<P: RowProducts, B: Decode, const M: usize> Body<P> for Rows<B, M> {
    #[inline(always)]
    unsafe fn product(p: P, job: &Job, _: &mut [u8]) {
        let (s, k) = (p.set(), job.shape.k);
        let mut group = Group {
            codes: [[0; BLOCK]; GROUP / BLOCK],
            scales: [0.0; RUNS],
            mins: [0.0; RUNS],
        };
        // SAFETY: weight rows are whole blocks; activations are padded to whole groups.
        unsafe {
            for column in job.columns.clone() {
                let mut sums = [Sum::<P>::zero(p); M];
                let blocks = job.weight_row(column).cast::<B>();
                let step = |index: usize, count: usize| Step {
                    job,
                    index,
                    blocks: blocks.add(index * (GROUP / B::LEN)),
                    count,
                };
                // A constant count lets the compiler unroll whole groups.
                for index in 0..k / GROUP {
                    add_group::<P, B, M>(p, step(index, GROUP), &mut group, &mut sums);
                }
                if !k.is_multiple_of(GROUP) {
                    group.scales = [0.0; RUNS];
                    group.mins = [0.0; RUNS];
                    add_group::<P, B, M>(p, step(k / GROUP, k % GROUP), &mut group, &mut sums);
                }
                for (m, sum) in sums.into_iter().enumerate() {
                    job.put(m, column, s.total(s.sub(sum.products, sum.minima)));
                }
            }
        }
    }
}

/// A running sum.
#[derive(Clone, Copy)]
struct Sum<P: Products> {
    products: Numbers<P>,
    /// What the minima take away.
    minima: Numbers<P>,
}

impl<P: Products> Sum<P> {
    #[inline(always)]
    fn zero(p: P) -> Self {
        let zero = p.set().numbers(0.0);
        Sum {
            products: zero,
            minima: zero,
        }
    }
}

/// Adds the products of a group.
///
/// # Safety
/// As for [`Body::product`].
#[inline(always)]
unsafe fn add_group<P: RowProducts, B: Decode, const M: usize>(
    p: P,
    step: Step<'_, B>,
    group: &mut Group,
    sums: &mut [Sum<P>; M],
) {
    let parts = RowParts::new(step.job.shape.k);
    let (runs_at, runs) = if B::RUN == 16 {
        (parts.runs_of_16(), 16)
    } else {
        (parts.runs_of_32(), 8)
    };
    let to = Staged {
        codes: group.codes.as_mut_ptr().cast(),
        scales: group.scales.as_mut_ptr(),
        mins: group.mins.as_mut_ptr(),
    };
    // SAFETY: the caller's; a group has room for what is decoded, and a row of activations its parts for each group.
    unsafe {
        stage_plainly(p.set(), step.blocks, step.count, to);
        for (m, sum) in sums.iter_mut().enumerate() {
            let row = step.job.operands.input.add(m * parts.stride());
            let scales = row.add(runs_at).cast::<f32>().add(step.index * 2 * runs);
            let values = row.add(step.index * GROUP).cast::<[i8; BLOCK]>();
            let products = scaled_runs::<P, B>(p, group, scales, sum);
            for block in 0..step.count / BLOCK {
                let scales = Scales {
                    first: products[block * (BLOCK / B::RUN)],
                    second: (B::RUN == 16).then(|| products[2 * block + 1]),
                    top: B::TOP,
                };
                let values = &*values.add(block);
                sum.products = p.add_block(sum.products, &group.codes[block], values, scales);
            }
        }
    }
}

/// The products of a group's scales with those of a row of activations; its minima are added to the sum.
///
/// # Safety
/// The scales and the sums after them of a group's runs are readable.
#[inline(always)]
unsafe fn scaled_runs<P: Products, B: Decode>(
    p: P,
    group: &Group,
    scales: *const f32,
    sum: &mut Sum<P>,
) -> [f32; RUNS] {
    let s = p.set();
    let runs = GROUP / B::RUN;
    let mut products = [0.0f32; RUNS];
    // SAFETY: the caller's; the lanes divide the runs.
    unsafe {
        for run in (0..runs).step_by(P::Set::LANES) {
            let weight = s.load_numbers(group.scales.as_ptr().add(run));
            let scale = s.mul(weight, s.load_numbers(scales.add(run)));
            s.store_numbers(products.as_mut_ptr().add(run), scale);
            if B::TOP != 255 {
                let mins = s.load_numbers(group.mins.as_ptr().add(run));
                let sums = s.load_numbers(scales.add(runs + run));
                sum.minima = s.mul_add(mins, sums, sum.minima);
            }
        }
    }
    products
}

/// The kernel for floating-point weights, or blocks decoded to them, and `M` rows.
pub(super) struct FloatRows<F, const M: usize>(PhantomData<F>);

impl<P: RowProducts, F: Float<P::Set>, const M: usize> Body<P> for FloatRows<F, M> {
    #[inline(always)]
    unsafe fn product(p: P, job: &Job, _: &mut [u8]) {
        let (s, k) = (p.set(), job.shape.k);
        let step = const { if F::UNIT > 32 { F::UNIT } else { 32 } };
        let pair = 2 * P::Set::LANES;
        let mut loaded = [0.0f32; GROUP];
        let input = job.operands.input.cast::<f32>();
        // SAFETY: the weight's rows and the input's have `k` values.
        unsafe {
            for column in job.columns.clone() {
                let weights = job.weight_row(column);
                let mut sums = [[s.numbers(0.0); 2]; M];
                let whole = k / step * step;
                for index in (0..whole).step_by(step) {
                    F::load_all(s, weights, index, &mut loaded[..step]);
                    add_floats::<P, M>(p, &loaded[..step], (input.add(index), k), &mut sums);
                }
                // Only floats, loaded in any number, leave a rest that is no multiple of two registers' lanes.
                let rest = &mut loaded[..k - whole];
                F::load_all(s, weights, whole, rest);
                let (pairs, rest) = rest.split_at(rest.len() / pair * pair);
                add_floats::<P, M>(p, pairs, (input.add(whole), k), &mut sums);
                for (m, [a, b]) in sums.into_iter().enumerate() {
                    let mut sum = s.total(s.add(a, b));
                    for (index, weight) in (k - rest.len()..k).zip(rest) {
                        sum += weight * *input.add(m * k + index);
                    }
                    job.put(m, column, sum);
                }
            }
        }
    }
}

/// Adds the products of some weights, a multiple of two registers' lanes, with rows of `k` values.
///
/// # Safety
/// Each of the `M` rows has as many values from `input` on.
#[inline(always)]
unsafe fn add_floats<P: Products, const M: usize>(
    p: P,
    weights: &[f32],
    (input, k): (*const f32, usize),
    sums: &mut [[Numbers<P>; 2]; M],
) {
    let (s, lanes) = (p.set(), P::Set::LANES);
    for (pair, weights) in weights.chunks_exact(2 * lanes).enumerate() {
        // SAFETY: the caller's.
        unsafe {
            let first = s.load_numbers(weights.as_ptr());
            let second = s.load_numbers(weights.as_ptr().add(lanes));
            for (m, [a, b]) in sums.iter_mut().enumerate() {
                let values = input.add(m * k + 2 * lanes * pair);
                *a = s.mul_add(first, s.load_numbers(values), *a);
                *b = s.mul_add(second, s.load_numbers(values.add(lanes)), *b);
            }
        }
    }
}
