//! From sums to outputs: undoing the rotation, dividing by the weights, merging the parts of a context.

use super::job::{Block, Job};
use super::kernels::Running;
use super::scratch::Scratch;
use super::shape::Shape;
use crate::kv::codec::numbers::reorder;
use crate::kv::rotate;
use crate::simd::{LANES, Simd, entries};

/// Brings a vector of sums from the space and order of the cached values to the model's.
pub(super) fn restore_row(job: &Job, row: &mut [f32]) {
    if job.summed_in_lanes() {
        reorder(job.isa, row, false);
    }
    if let Some(rotation) = job.value.stored.decoder.codec.rotation() {
        rotate::inverse_with(job.isa, rotation, row);
    }
}

/// Writes a vector of the output: the sums over the sum of the weights.
///
/// # Safety
/// The output holds this vector, and no other item writes it.
pub(super) unsafe fn finish(job: &Job, vector: usize, sums: &[f32], sum: f32) {
    let factor = if sum == 0.0 { 0.0 } else { 1.0 / sum };
    let d = job.shape.head_dim;
    let sums = sums[..d].as_ptr();
    // SAFETY: the caller's; the sums have been measured.
    unsafe { scaled(job.isa, sums, factor, job.output.add(vector * d), d) };
}

entries! {
    /// `out = factor · numbers`.
    ///
    /// # Safety
    /// Both hold `d` numbers.
    unsafe fn scaled(numbers: *const f32, factor: f32, out: *mut f32, d: usize) = scaled_row
}

#[inline(always)]
unsafe fn scaled_row<S: Simd>(s: S, numbers: *const f32, factor: f32, out: *mut f32, d: usize) {
    let whole = d / LANES * LANES;
    for at in (0..whole).step_by(LANES) {
        // SAFETY: the caller's vectors.
        unsafe { s.store(out.add(at), s.mul(s.load(numbers.add(at)), s.splat(factor))) };
    }
    for at in whole..d {
        // SAFETY: the caller's vectors.
        unsafe { out.add(at).write(factor * numbers.add(at).read()) };
    }
}

entries! {
    /// `out = out + factor · numbers`.
    ///
    /// # Safety
    /// As for [`scaled`], and `d` is a multiple of 16.
    unsafe fn added(numbers: *const f32, factor: f32, out: *mut f32, d: usize) = added_row
}

#[inline(always)]
unsafe fn added_row<S: Simd>(s: S, numbers: *const f32, factor: f32, out: *mut f32, d: usize) {
    for at in (0..d).step_by(LANES) {
        // SAFETY: the caller's vectors.
        unsafe {
            let sum = s.fma(
                s.load(numbers.add(at)),
                s.splat(factor),
                s.load(out.add(at)),
            );
            s.store(out.add(at), sum);
        }
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

/// Notes that a block's vectors are finished, and nothing is to be merged.
///
/// # Safety
/// No other item writes these vectors' counts.
pub(super) unsafe fn leave_whole(job: &Job, block: &Block) {
    for row in 0..block.rows {
        // SAFETY: the workspace holds every vector's count.
        unsafe {
            job.partials
                .add(count(job, job.vector(block, row)))
                .write(1.0)
        };
    }
}

pub(super) unsafe fn leave_partial(job: &Job, block: &Block, scratch: &Scratch<'_>) {
    let rows = scratch.out.chunks_exact(job.shape.width());
    for (row, (out, running)) in rows.zip(&*scratch.running).take(block.rows).enumerate() {
        let vector = job.vector(block, row);
        let (sums, softmax) = partial(job, vector, block.part);
        // SAFETY: the workspace holds every vector's parts; this item alone writes this one.
        unsafe {
            job.partials
                .add(sums)
                .copy_from_nonoverlapping(out.as_ptr(), out.len());
            job.partials.add(softmax).write(running.max);
            job.partials.add(softmax + 1).write(running.sum);
            if block.part == 0 {
                // Exact: far below 2²⁴.
                job.partials
                    .add(count(job, vector))
                    .write(block.parts as f32);
            }
        }
    }
}

impl Job {
    /// Merges the parts of one of the `tokens · heads` output vectors, in the order of the parts.
    ///
    /// # Safety
    /// As for [`run`](Self::run), after all items; `scratch` holds a vector.
    pub(super) unsafe fn merge(&self, vector: usize, scratch: &mut [f32]) {
        // SAFETY: the caller's.
        unsafe { merge(self, vector, &mut scratch[..self.shape.width()]) }
    }
}

/// Merges the parts of one vector in their order, if it has several.
unsafe fn merge(job: &Job, vector: usize, out: &mut [f32]) {
    let d = job.shape.width();
    // SAFETY: the caller's: all parts are there, and nothing writes them now.
    unsafe {
        let parts = job.partials.add(count(job, vector)).read() as usize;
        if parts == 1 {
            return;
        }
        let running = |part: usize| {
            let (_, at) = partial(job, vector, part);
            Running {
                max: *job.partials.add(at),
                sum: *job.partials.add(at + 1),
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
            let (at, _) = partial(job, vector, part);
            added(job.isa, job.partials.add(at), factor, out.as_mut_ptr(), d);
        }
        restore_row(job, out);
        finish(job, vector, out, sum);
    }
}
