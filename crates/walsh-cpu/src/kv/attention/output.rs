//! From sums to outputs: undoing the rotation, dividing by the weights, merging the parts of a context.

use super::job::{Block, Job, Run};
use super::kernels::Running;
use super::scratch::Scratch;
use super::shape::Shape;
use crate::kv::codec::numbers::reorder;
use crate::kv::rotate;
use crate::simd::{LANES, Simd, entries};

/// Brings a vector of sums from the space and order of the cached values to the model's.
pub(super) fn restore_row(job: &Job, row: &mut [f32]) {
    if job.summed_in_lanes() {
        reorder(job.set, row, false);
    }
    if let Some(rotation) = job.value.stored.decoder.codec.rotation() {
        rotate::inverse_with(job.set, rotation, row);
    }
}

/// Writes a vector of the output of this item: the sums over the sum of the weights.
pub(super) fn finish(run: Run<'_>, vector: usize, sums: &[f32], sum: f32) {
    let factor = if sum == 0.0 { 0.0 } else { 1.0 / sum };
    let d = run.shape.head_dim;
    // SAFETY: a vector is of one block, or of one item that merges, and nobody else touches it while that runs.
    let out = unsafe { run.output.slice_mut(vector * d..(vector + 1) * d) };
    scaled(run.set, &sums[..d], factor, out);
}

entries! {
    /// `out = factor · numbers`, of as many numbers.
    fn scaled(numbers: &[f32], factor: f32, out: &mut [f32]) = scaled_row
}

#[inline(always)]
fn scaled_row<S: Simd>(s: S, numbers: &[f32], factor: f32, out: &mut [f32]) {
    let (vectors, rest) = numbers.as_chunks::<LANES>();
    let (out, out_rest) = out.as_chunks_mut();
    for (out, numbers) in out.iter_mut().zip(vectors) {
        s.write(out, s.mul(s.read(numbers), s.splat(factor)));
    }
    for (out, number) in out_rest.iter_mut().zip(rest) {
        *out = factor * number;
    }
}

entries! {
    /// `out = out + factor · numbers`, of as many numbers, whole vectors.
    fn added(numbers: &[f32], factor: f32, out: &mut [f32]) = added_row
}

#[inline(always)]
fn added_row<S: Simd>(s: S, numbers: &[f32], factor: f32, out: &mut [f32]) {
    let out = out.as_chunks_mut::<LANES>().0;
    for (out, numbers) in out.iter_mut().zip(numbers.as_chunks().0) {
        s.write(out, s.fma(s.read(numbers), s.splat(factor), s.read(out)));
    }
}

/// Where a vector's partial sums and its running softmax lie in the workspace.
fn partial(job: &Job, vector: usize, part: usize) -> (usize, usize) {
    let Shape { tokens, heads, .. } = job.shape;
    let width = job.shape.width();
    let at = vector * job.parts + part;
    (at * width, tokens * heads * job.parts * width + 2 * at)
}

/// Where the workspace holds how many parts a vector has.
fn count(job: &Job, vector: usize) -> usize {
    let Shape { tokens, heads, .. } = job.shape;
    tokens * heads * job.parts * (job.shape.width() + 2) + vector
}

/// Writes numbers of the workspace that are of this item's vectors.
fn leave(run: Run<'_>, at: usize, numbers: &[f32]) {
    let Some(partials) = &run.partials else {
        return;
    };
    // SAFETY: a vector's part is of one item, and nobody else touches what is kept of it while that runs.
    unsafe { partials.slice_mut(at..at + numbers.len()) }.copy_from_slice(numbers);
}

/// Notes that a block's vectors are finished, and nothing is to be merged.
pub(super) fn leave_whole(run: Run<'_>, block: &Block) {
    for row in 0..block.rows {
        leave(run, count(&run, run.vector(block, row)), &[1.0]);
    }
}

pub(super) fn leave_partial(run: Run<'_>, block: &Block, scratch: &Scratch<'_>) {
    let rows = scratch.out.chunks_exact(run.shape.width());
    for (row, (out, running)) in rows.zip(&*scratch.running).take(block.rows).enumerate() {
        let vector = run.vector(block, row);
        let (sums, softmax) = partial(&run, vector, block.part);
        leave(run, sums, out);
        leave(run, softmax, &[running.max, running.sum]);
        if block.part == 0 {
            // Exact: far below 2²⁴.
            leave(run, count(&run, vector), &[block.parts as f32]);
        }
    }
}

impl Run<'_> {
    /// Merges the parts of one of the `tokens · heads` output vectors, if it has several, in the order of the parts.
    /// `scratch` holds a vector.
    pub(super) fn merge(self, vector: usize, scratch: &mut [f32]) {
        let Some(partials) = &self.partials else {
            return;
        };
        // SAFETY: all items have left their parts when vectors are merged, and nothing writes them then.
        let partials = unsafe { partials.all() };
        let out = &mut scratch[..self.shape.width()];
        let parts = partials[count(&self, vector)] as usize;
        if parts == 1 {
            return;
        }
        let running = |part: usize| {
            let (_, at) = partial(&self, vector, part);
            Running {
                max: partials[at],
                sum: partials[at + 1],
            }
        };
        let max = (0..parts).fold(f32::NEG_INFINITY, |max, part| max.max(running(part).max));
        out.fill(0.0);
        let mut sum = 0.0;
        for part in 0..parts {
            let found = running(part);
            if found.sum == 0.0 {
                continue;
            }
            let factor = (found.max - max).exp();
            sum += factor * found.sum;
            let (at, _) = partial(&self, vector, part);
            added(self.set, &partials[at..at + out.len()], factor, out);
        }
        restore_row(&self, out);
        finish(self, vector, out, sum);
    }
}
