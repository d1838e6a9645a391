//! Products with few rows of activations, for instruction sets whose registers do not hold a decoded group: each group
//! of a weight row is decoded to the stack, once for all rows of activations.

use super::blocks::Decode;
use super::contract::Job;
use super::layout::{GROUP, RowParts};
use super::tile::{Stage, Staged};

/// The runs of a group, at most.
const RUNS: usize = GROUP / 16;

/// Up to 256 decoded values. Runs past the last have zero scales and minima.
#[repr(align(64))]
pub(super) struct Group {
    pub(super) codes: [u8; GROUP],
    pub(super) scales: [f32; RUNS],
    pub(super) mins: [f32; RUNS],
}

/// The activations of a group.
#[derive(Clone, Copy)]
pub(super) struct Values {
    pub(super) codes: *const i8,
    /// The runs' scales.
    pub(super) scales: *const f32,
    /// The runs' sums.
    pub(super) sums: *const f32,
}

/// What an instruction set brings to these products.
pub(super) trait DotIsa {
    /// A running sum.
    type Sum: Copy;

    /// A sum of nothing.
    ///
    /// # Safety
    /// The instruction set is available.
    unsafe fn zero() -> Self::Sum;

    /// Adds the products of the first `count` values, whole runs of 32, of a group.
    ///
    /// # Safety
    /// The pointers are good for 256 values, and the instruction set is available.
    unsafe fn add<B: Decode>(group: &Group, values: Values, count: usize, sum: &mut Self::Sum);

    /// The sum as one number.
    ///
    /// # Safety
    /// The instruction set is available.
    unsafe fn total(sum: Self::Sum) -> f32;
}

/// A work item with `M` rows of activations.
///
/// # Safety
/// The instruction set of `T` is available, and the job is what [`Job`] asks for.
#[inline(always)]
pub(super) unsafe fn product<T: DotIsa + Stage<B>, B: Decode, const M: usize>(job: &Job) {
    let k = job.shape.k;
    let mut group = Group {
        codes: [0; GROUP],
        scales: [0.0; RUNS],
        mins: [0.0; RUNS],
    };
    // SAFETY: weight rows are whole blocks; activations are padded to whole groups.
    unsafe {
        for column in job.columns.clone() {
            let mut sums = [T::zero(); M];
            let blocks = job.weight_row(column).cast::<B>();
            // A constant count lets the compiler unroll whole groups.
            for index in 0..k / GROUP {
                let blocks = blocks.add(index * (GROUP / B::LEN));
                step::<T, B, M>(
                    Step {
                        job,
                        index,
                        blocks,
                        count: GROUP,
                    },
                    &mut group,
                    &mut sums,
                );
            }
            if !k.is_multiple_of(GROUP) {
                let index = k / GROUP;
                let blocks = blocks.add(index * (GROUP / B::LEN));
                group.scales = [0.0; RUNS];
                group.mins = [0.0; RUNS];
                step::<T, B, M>(
                    Step {
                        job,
                        index,
                        blocks,
                        count: k % GROUP,
                    },
                    &mut group,
                    &mut sums,
                );
            }
            for (m, sum) in sums.into_iter().enumerate() {
                job.put(m, column, T::total(sum));
            }
        }
    }
}

/// A group of a weight row.
struct Step<'a, B> {
    job: &'a Job,
    index: usize,
    blocks: *const B,
    /// Its values: all of a group's, or the last of a row.
    count: usize,
}

/// Adds the products of a group.
///
/// # Safety
/// As for [`product`].
#[inline(always)]
unsafe fn step<T: DotIsa + Stage<B>, B: Decode, const M: usize>(
    step: Step<'_, B>,
    group: &mut Group,
    sums: &mut [T::Sum; M],
) {
    let parts = RowParts::new(step.job.shape.k);
    let (runs_at, runs) = if B::RUN == 16 {
        (parts.runs_of_16(), 16)
    } else {
        (parts.runs_of_32(), 8)
    };
    // SAFETY: the caller's.
    unsafe {
        let to = Staged {
            codes: group.codes.as_mut_ptr(),
            scales: group.scales.as_mut_ptr(),
            mins: group.mins.as_mut_ptr(),
        };
        T::stage(step.blocks, step.count, to);
        for (m, sum) in sums.iter_mut().enumerate() {
            let row = step.job.operands.input.add(m * parts.stride());
            let scales = row.add(runs_at).cast::<f32>().add(step.index * 2 * runs);
            let values = Values {
                codes: row.add(step.index * GROUP).cast::<i8>(),
                scales,
                sums: scales.add(runs),
            };
            T::add::<B>(group, values, step.count, sum);
        }
    }
}
