//! Products with few rows of activations, for instruction sets whose registers do not hold a decoded group: each group
//! of a weight row is decoded to the stack, once for all rows of activations.

use std::marker::PhantomData;

use super::blocks::{Decode, signed_min};
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

/// A row of activations: its codes, and the scales and the sums of each group's runs.
#[derive(Clone, Copy)]
struct Activations<'a> {
    codes: &'a [[i8; BLOCK]],
    floats: &'a [f32],
}

impl<'a> Activations<'a> {
    #[inline(always)]
    fn of<B: Decode>(job: &Job<'a>, row: usize) -> Self {
        let parts = RowParts::new(job.shape.k);
        let runs_at = if B::RUN == 16 {
            parts.runs_of_16()
        } else {
            parts.runs_of_32()
        };
        let bytes = job.quantised_row(row);
        Activations {
            codes: bytemuck::cast_slice(&bytes[..parts.runs_of_32()]),
            floats: bytemuck::cast_slice(
                &bytes[runs_at..][..2 * size_of::<f32>() * parts.groups * (GROUP / B::RUN)],
            ),
        }
    }
}

/// The kernel for block-quantised weights and `M` rows.
pub(super) struct Rows<B, const M: usize>(PhantomData<B>);

impl<P: RowProducts, B: Decode, const M: usize> Body<P> for Rows<B, M> {
    #[inline(always)]
    fn product(p: P, job: &Job<'_>, _: &mut [u8]) {
        let (s, k) = (p.set(), job.shape.k);
        let mut group = Group {
            codes: [[0; BLOCK]; GROUP / BLOCK],
            scales: [0.0; RUNS],
            mins: [0.0; RUNS],
        };
        let rows: [_; M] = std::array::from_fn(|m| Activations::of::<B>(job, m));
        for column in job.columns.clone() {
            let mut sums = [Sum::<P>::zero(p); M];
            let groups = job.blocks::<B>(column).chunks_exact(GROUP / B::LEN);
            let rest = groups.remainder();
            // A constant count lets the compiler unroll whole groups.
            for (index, blocks) in groups.enumerate() {
                let step = (index, GROUP);
                add_group::<P, B, M>(p, (blocks, step), &mut group, &rows, &mut sums);
            }
            if !rest.is_empty() {
                group.scales = [0.0; RUNS];
                group.mins = [0.0; RUNS];
                let step = (k / GROUP, k % GROUP);
                add_group::<P, B, M>(p, (rest, step), &mut group, &rows, &mut sums);
            }
            for (m, sum) in sums.into_iter().enumerate() {
                job.put(m, column, s.total(s.sub(sum.products, sum.minima)));
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

/// Adds the products of a group of a weight row: the blocks of its `count` values, all of a group's or the last of a row.
#[inline(always)]
fn add_group<P: RowProducts, B: Decode, const M: usize>(
    p: P,
    (blocks, (index, count)): (&[B], (usize, usize)),
    group: &mut Group,
    rows: &[Activations<'_>; M],
    sums: &mut [Sum<P>; M],
) {
    let runs = GROUP / B::RUN;
    let to = Staged {
        codes: group.codes.as_flattened_mut(),
        scales: &mut group.scales,
        mins: &mut group.mins,
    };
    stage_plainly(p.set(), &blocks[..count / B::LEN], to);
    for (row, sum) in rows.iter().zip(sums) {
        let floats = &row.floats[index * 2 * runs..][..2 * runs];
        let values = &row.codes[index * (GROUP / BLOCK)..][..count / BLOCK];
        let products = scaled_runs::<P, B>(p, group, floats, sum);
        for (block, values) in values.iter().enumerate() {
            let scales = Scales {
                first: products[block * (BLOCK / B::RUN)],
                second: (B::RUN == 16).then(|| products[2 * block + 1]),
                top: B::TOP,
            };
            sum.products = p.add_block(sum.products, &group.codes[block], values, scales);
        }
    }
}

/// The products of a group's scales with those of a row of activations, which are before the sums in `floats`; its minima
/// are added to the sum.
#[inline(always)]
fn scaled_runs<P: Products, B: Decode>(
    p: P,
    group: &Group,
    floats: &[f32],
    sum: &mut Sum<P>,
) -> [f32; RUNS] {
    let s = p.set();
    let runs = GROUP / B::RUN;
    let mut products = [0.0f32; RUNS];
    let (scales, sums) = floats[..2 * runs].split_at(runs);
    for run in (0..runs).step_by(P::Set::LANES) {
        // SAFETY: the lanes divide the runs, of which there are so many scales and sums.
        unsafe {
            let weight = s.load_numbers(group.scales.as_ptr().add(run));
            let scale = s.mul(weight, s.load_numbers(scales.as_ptr().add(run)));
            s.store_numbers(products.as_mut_ptr().add(run), scale);
            // Codes of eight bits are multiplied as signed numbers, which stand for zero themselves where there are no minima.
            if B::TOP != 255 || B::ZERO.is_none() {
                let mut mins = s.load_numbers(group.mins.as_ptr().add(run));
                if B::TOP == 255 {
                    mins = signed_min(s, weight, mins);
                }
                let sums = s.load_numbers(sums.as_ptr().add(run));
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
    fn product(p: P, job: &Job<'_>, _: &mut [u8]) {
        let (s, k) = (p.set(), job.shape.k);
        let step = const { if F::UNIT > 32 { F::UNIT } else { 32 } };
        let pair = 2 * P::Set::LANES;
        let mut loaded = [0.0f32; GROUP];
        let input = job.floats();
        let rows: [&[f32]; M] = std::array::from_fn(|m| &input[m * k..][..k]);
        for column in job.columns.clone() {
            let weights = job.weight_row(column);
            let mut sums = [[s.numbers(0.0); 2]; M];
            let whole = k / step * step;
            for index in (0..whole).step_by(step) {
                F::load_all(s, weights, index, &mut loaded[..step]);
                // SAFETY: a step before the end of rows of `k` values.
                unsafe { add_floats::<P, M>(p, &loaded[..step], (&rows, index), &mut sums) };
            }
            // Only floats, loaded in any number, leave a rest that is no multiple of two registers' lanes.
            let rest = &mut loaded[..k - whole];
            F::load_all(s, weights, whole, rest);
            let (pairs, rest) = rest.split_at(rest.len() / pair * pair);
            // SAFETY: pairs of what is left of rows of `k` values.
            unsafe { add_floats::<P, M>(p, pairs, (&rows, whole), &mut sums) };
            for (m, [a, b]) in sums.into_iter().enumerate() {
                let mut sum = s.total(s.add(a, b));
                for (value, weight) in rows[m][k - rest.len()..].iter().zip(rest) {
                    sum += weight * *value;
                }
                job.put(m, column, sum);
            }
        }
    }
}

/// Adds the products of some weights, a multiple of two registers' lanes, with as many values of `M` rows from one on.
///
/// # Safety
/// The rows have so many values.
#[inline(always)]
unsafe fn add_floats<P: Products, const M: usize>(
    p: P,
    weights: &[f32],
    (rows, index): (&[&[f32]; M], usize),
    sums: &mut [[Numbers<P>; 2]; M],
) {
    let (s, lanes) = (p.set(), P::Set::LANES);
    for (pair, weights) in weights.chunks_exact(2 * lanes).enumerate() {
        // SAFETY: two registers of weights, and of the values of each row, of which there are as many.
        unsafe {
            let first = s.load_numbers(weights.as_ptr());
            let second = s.load_numbers(weights.as_ptr().add(lanes));
            for (row, [a, b]) in rows.iter().zip(sums.iter_mut()) {
                let values = row.as_ptr().add(index + 2 * lanes * pair);
                *a = s.mul_add(first, s.load_numbers(values), *a);
                *b = s.mul_add(second, s.load_numbers(values.add(lanes)), *b);
            }
        }
    }
}
