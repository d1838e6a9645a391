use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::ops::Range;
use std::sync::Arc;

use walsh_core::ops::{ArgMax, Operation, TopK};
use walsh_core::{Error, Result};

use crate::isa::Isa;
use crate::lower::{Fault, Lowering};
use crate::memory::View;
use crate::simd::versions;
use crate::team::{Phase, Scratch};

struct ArgMaxRows {
    isa: Isa,
    width: usize,
    input: View<f32>,
    output: View<i32>,
    fault: Arc<Fault>,
}

struct TopKRows {
    width: usize,
    k: usize,
    input: View<f32>,
    values: View<f32>,
    indices: View<i32>,
    fault: Arc<Fault>,
}

pub(crate) fn lower_argmax(op: &ArgMax, lowering: &mut Lowering) -> Result<()> {
    let phase = ArgMaxRows {
        isa: lowering.target().isa,
        width: op.input.row_len() as usize,
        input: View::of(&op.input)?,
        output: View::of(&op.output)?,
        fault: lowering.fault(),
    };
    lowering.phase(&op.accesses(), phase);
    Ok(())
}

pub(crate) fn lower_topk(op: &TopK, lowering: &mut Lowering) -> Result<()> {
    let phase = TopKRows {
        width: op.input.row_len() as usize,
        k: op.values.row_len() as usize,
        input: View::of(&op.input)?,
        values: View::of(&op.values)?,
        indices: View::of(&op.indices)?,
        fault: lowering.fault(),
    };
    lowering.phase(&op.accesses(), phase);
    Ok(())
}

fn not_a_number(op: &'static str, row: usize) -> Error {
    Error::Value {
        op,
        message: format!("row {row} of the input holds a NaN"),
    }
}

versions! {
    /// The largest number, and whether there is a NaN.
    fn largest(x: &[f32]) -> (f32, bool) {
        let mut best = [f32::NEG_INFINITY; 16];
        let mut nan = [false; 16];
        let mut chunks = x.chunks_exact(16);
        for chunk in &mut chunks {
            for i in 0..16 {
                nan[i] |= chunk[i].is_nan();
                best[i] = if chunk[i] > best[i] { chunk[i] } else { best[i] };
            }
        }
        let tail = chunks.remainder();
        let found = best.iter().chain(tail).fold(f32::NEG_INFINITY, |a, b| a.max(*b));
        (found, nan.contains(&true) || tail.iter().any(|x| x.is_nan()))
    }
}

impl Phase for ArgMaxRows {
    fn items(&self) -> usize {
        self.output.len()
    }

    fn cost(&self) -> u64 {
        self.input.len() as u64 / 8
    }

    unsafe fn run(&self, items: Range<usize>, _: &mut Scratch) {
        for item in items {
            // SAFETY: the list orders this read after the input's writes.
            let row = unsafe { self.input.slice(item * self.width..(item + 1) * self.width) };
            let (best, nan) = largest(self.isa, row);
            if nan {
                self.fault.report(not_a_number(ArgMax::NAME, item));
                return;
            }
            let index = row.iter().position(|x| *x == best).unwrap_or(0);
            // SAFETY: each item writes its own number.
            let output = unsafe { self.output.slice_mut(item..item + 1) };
            output[0] = index as i32;
        }
    }
}

/// Orders the worst candidate first, so that a heap gives it up first.
#[derive(PartialEq)]
struct Candidate {
    value: f32,
    index: usize,
}

impl Eq for Candidate {}

impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> Ordering {
        other
            .value
            .partial_cmp(&self.value)
            .unwrap_or(Ordering::Equal)
            .then(self.index.cmp(&other.index))
    }
}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Phase for TopKRows {
    fn items(&self) -> usize {
        self.input.len() / self.width
    }

    fn cost(&self) -> u64 {
        self.input.len() as u64
    }

    unsafe fn run(&self, items: Range<usize>, _: &mut Scratch) {
        for item in items {
            // SAFETY: the list orders this read after the input's writes.
            let row = unsafe { self.input.slice(item * self.width..(item + 1) * self.width) };
            let mut heap = BinaryHeap::with_capacity(self.k + 1);
            for (index, &value) in row.iter().enumerate() {
                if value.is_nan() {
                    self.fault.report(not_a_number(TopK::NAME, item));
                    return;
                }
                let candidate = Candidate { value, index };
                if heap.len() < self.k {
                    heap.push(candidate);
                } else if heap.peek().is_some_and(|worst| candidate < *worst) {
                    heap.pop();
                    heap.push(candidate);
                }
            }
            let range = item * self.k..(item + 1) * self.k;
            // SAFETY: each item writes its own rows.
            let (values, indices) = unsafe {
                (
                    self.values.slice_mut(range.clone()),
                    self.indices.slice_mut(range),
                )
            };
            for (slot, candidate) in heap.into_sorted_vec().iter().enumerate() {
                values[slot] = candidate.value;
                indices[slot] = candidate.index as i32;
            }
        }
    }
}
