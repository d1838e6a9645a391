//! From sums to outputs: undoing the rotation, dividing by the weights, merging the parts of a context.

use super::job::{Block, Job, Scratch, Shape};
use super::kernels::Running;
use super::tile::LANES;
use crate::isa::Isa;
use crate::lanes::{order, rotate};

/// Brings a vector of sums from the space and order of the cached values to the model's.
///
/// # Safety
/// The machine has the instruction set.
pub(super) unsafe fn restore_row(job: &Job, row: &mut [f32]) {
    if job.summed_in_lanes() {
        reorder(job.isa, row, false);
    }
    if let Some(rotation) = job.value.stored.decoder.codec.rotation() {
        // SAFETY: the caller's.
        unsafe { rotate::inverse_with(job.isa, rotation, row) };
    }
}

/// Brings vectors from the model's order of channels to the lane order of codes, or back.
pub(super) fn reorder(isa: Isa, rows: &mut [f32], to_lanes: bool) {
    let order = order(isa);
    for chunk in rows.chunks_exact_mut(LANES) {
        let before: [f32; LANES] = std::array::from_fn(|i| chunk[i]);
        for (lane, element) in order.iter().enumerate() {
            let element = usize::from(*element);
            if to_lanes {
                chunk[lane] = before[element];
            } else {
                chunk[element] = before[lane];
            }
        }
    }
}

/// Writes a vector of the output: the sums over the sum of the weights.
pub(super) unsafe fn finish(job: &Job, vector: usize, sums: *const f32, sum: f32) {
    let d = job.shape.head_dim;
    let factor = if sum == 0.0 { 0.0 } else { 1.0 / sum };
    // SAFETY: the output holds this vector, and no other item writes it.
    unsafe {
        let out = job.output.add(vector * d);
        for i in 0..d {
            *out.add(i) = *sums.add(i) * factor;
        }
    }
}

/// Where a vector's partial sums and its running softmax lie in the workspace.
fn partial(job: &Job, vector: usize, part: usize) -> (usize, usize) {
    let Shape {
        tokens,
        heads,
        head_dim,
        ..
    } = job.shape;
    let at = vector * job.parts + part;
    (
        at * head_dim,
        tokens * heads * job.parts * head_dim + 2 * at,
    )
}

pub(super) unsafe fn leave_partial(job: &Job, block: &Block, scratch: &Scratch) {
    let d = job.shape.head_dim;
    for row in 0..block.rows {
        let (sums, softmax) = partial(job, job.vector(block, row), block.part);
        // SAFETY: the workspace holds every vector's parts; this item alone writes this one.
        unsafe {
            let running = *scratch.running.add(row);
            job.partials
                .add(sums)
                .copy_from_nonoverlapping(scratch.out.add(row * d), d);
            job.partials.add(softmax).write(running.max);
            job.partials.add(softmax + 1).write(running.sum);
        }
    }
}

/// Merges the parts of one vector in their order.
pub(super) unsafe fn merge(job: &Job, vector: usize, out: &mut [f32]) {
    let d = job.shape.head_dim;
    // SAFETY: the caller's: all parts are there, and nothing writes them now.
    unsafe {
        let running = |part: usize| {
            let (_, at) = partial(job, vector, part);
            Running {
                max: *job.partials.add(at),
                sum: *job.partials.add(at + 1),
            }
        };
        let max = (0..job.parts).fold(f32::NEG_INFINITY, |max, part| max.max(running(part).max));
        out.fill(0.0);
        let mut sum = 0.0;
        for part in 0..job.parts {
            let found = running(part);
            if found.sum == 0.0 {
                continue;
            }
            let factor = (found.max - max).exp();
            sum += factor * found.sum;
            let (at, _) = partial(job, vector, part);
            let sums = std::slice::from_raw_parts(job.partials.add(at), d);
            for (out, s) in out.iter_mut().zip(sums) {
                *out += factor * s;
            }
        }
        restore_row(job, out);
        finish(job, vector, out.as_ptr(), sum);
    }
}
