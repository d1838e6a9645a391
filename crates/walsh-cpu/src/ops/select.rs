use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::ops::Range;
use std::sync::Arc;

use walsh_core::ops::{ArgMax, Operation, TopK};
use walsh_core::{Error, Result};

use crate::lowering::{Fault, Lowering};
use crate::memory::View;
use crate::simd::{Token, versions};
use crate::team::{Phase, Scratch};

/// The numbers that one thread looks through at a time.
const PIECE: usize = 1 << 14;

/// Looks for the largest number of each piece of the rows.
struct ArgMaxPieces {
    set: Token,
    width: usize,
    input: View<f32>,
    /// `[rows, pieces]`: where it is within the row, or [`NOT_A_NUMBER`].
    places: View<i32>,
}

/// Chooses among the pieces of each row.
struct ArgMaxRows {
    width: usize,
    input: View<f32>,
    places: View<i32>,
    output: View<i32>,
    fault: Arc<Fault>,
}

/// In the place of a largest number's index: the piece holds a NaN.
const NOT_A_NUMBER: i32 = -1;

struct TopKRows {
    /// The op that asks for it.
    op: &'static str,
    width: usize,
    k: usize,
    input: View<f32>,
    values: View<f32>,
    indices: View<i32>,
    fault: Arc<Fault>,
}

pub(crate) fn lower_argmax(op: &ArgMax, lowering: &mut Lowering) -> Result<()> {
    let width = op.input.row_len() as usize;
    let rows = op.output.elements();
    let bytes = rows * width.div_ceil(PIECE) as u64 * size_of::<i32>() as u64;
    let workspace = lowering.workspace(bytes)?;
    let pieces = ArgMaxPieces {
        set: lowering.target().token(),
        width,
        input: View::of(&op.input)?,
        places: View::range(&workspace, 0, bytes)?,
    };
    let chosen = ArgMaxRows {
        width,
        input: View::of(&op.input)?,
        places: View::range(&workspace, 0, bytes)?,
        output: View::of(&op.output)?,
        fault: lowering.fault(),
    };
    let mut looked = op.accesses();
    looked.writes = vec![workspace.span()];
    lowering.phase(&looked, pieces);
    let mut choose = op.accesses();
    choose.read(workspace.span());
    lowering.phase(&choose, chosen);
    lowering.release(workspace);
    Ok(())
}

pub(crate) fn lower_topk(op: &TopK, lowering: &mut Lowering) -> Result<()> {
    lower_topk_of(TopK::NAME, op, lowering)
}

/// The same as part of another op, whose name errors have.
pub(crate) fn lower_topk_of(name: &'static str, op: &TopK, lowering: &mut Lowering) -> Result<()> {
    let phase = TopKRows {
        op: name,
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

/// An error of an op that looks for the largest numbers.
pub(crate) fn not_a_number(op: &'static str, row: usize) -> Error {
    Error::Value {
        op,
        message: format!("row {row} of the input holds a NaN"),
    }
}

/// The numbers that are compared before looking whether they hold a new largest one.
const BLOCK: usize = 512;

/// The largest number of a block, and whether there is a NaN.
#[inline(always)]
fn largest(x: &[f32]) -> (f32, bool) {
    const LANES: usize = 16;
    let (mut best, mut nan) = ([f32::NEG_INFINITY; LANES], [0u32; LANES]);
    let mut see = |i: usize, x: f32| {
        nan[i] |= u32::from(x.is_nan());
        best[i] = if x > best[i] { x } else { best[i] };
    };
    let (chunks, tail) = x.as_chunks::<LANES>();
    for chunk in chunks {
        for i in 0..LANES {
            see(i, chunk[i]);
        }
    }
    for (i, &x) in tail.iter().enumerate() {
        see(i, x);
    }
    let found = best.iter().fold(f32::NEG_INFINITY, |a, b| a.max(*b));
    (found, nan.iter().fold(0, |a, b| a | b) > 0)
}

versions! {
    /// The index of the largest number, the first of equals, or [`NOT_A_NUMBER`].
    fn index_of_largest(x: &[f32]) -> i32 {
        let (mut best, mut first, mut any_nan) = (f32::NEG_INFINITY, 0, false);
        for (block, x) in x.chunks(BLOCK).enumerate() {
            let (found, nan) = largest(x);
            any_nan |= nan;
            if found > best {
                (best, first) = (found, block * BLOCK);
            }
        }
        if any_nan {
            return NOT_A_NUMBER;
        }
        let of_block = x.iter().skip(first).position(|x| *x == best);
        (first + of_block.unwrap_or(0)) as i32
    }
}

impl Phase for ArgMaxPieces {
    fn items(&self) -> usize {
        self.places.len()
    }

    fn cost(&self) -> u64 {
        self.input.len() as u64 / 16
    }

    unsafe fn run(&self, items: Range<usize>, _: &mut Scratch) {
        let pieces = self.width.div_ceil(PIECE);
        for item in items {
            let start = item % pieces * PIECE;
            let end = (start + PIECE).min(self.width);
            let row = item / pieces * self.width;
            // SAFETY: the list orders this read after the input's writes.
            let piece = unsafe { self.input.slice(row + start..row + end) };
            let index = index_of_largest(self.set, piece);
            // SAFETY: each item writes its own number.
            let place = unsafe { self.places.slice_mut(item..item + 1) };
            place[0] = match index {
                NOT_A_NUMBER => NOT_A_NUMBER,
                index => start as i32 + index,
            };
        }
    }
}

impl Phase for ArgMaxRows {
    fn items(&self) -> usize {
        self.output.len()
    }

    fn cost(&self) -> u64 {
        self.places.len() as u64
    }

    unsafe fn run(&self, items: Range<usize>, _: &mut Scratch) {
        let pieces = self.width.div_ceil(PIECE);
        for item in items {
            // SAFETY: the list orders these reads after the writes.
            let (places, row) = unsafe {
                (
                    self.places.slice(item * pieces..(item + 1) * pieces),
                    self.input.slice(item * self.width..(item + 1) * self.width),
                )
            };
            if places.contains(&NOT_A_NUMBER) {
                self.fault.report(not_a_number(ArgMax::NAME, item));
                return;
            }
            // The first of equals, so that a later one must be larger.
            let better = |best: i32, place: i32| match row[place as usize] > row[best as usize] {
                true => place,
                false => best,
            };
            let index = places[1..].iter().copied().fold(places[0], better);
            // SAFETY: each item writes its own number.
            let output = unsafe { self.output.slice_mut(item..item + 1) };
            output[0] = index;
        }
    }
}

/// A number that may be among the largest. The largest come first in order, and equals by ascending index, so that a
/// heap gives the worst up first.
#[derive(PartialEq)]
pub(crate) struct Candidate {
    pub(crate) value: f32,
    pub(crate) index: usize,
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

/// There is a number that is none.
pub(crate) struct NotANumber;

/// The `k` largest numbers, in order.
pub(crate) fn largest_of(row: &[f32], k: usize) -> std::result::Result<Vec<Candidate>, NotANumber> {
    /// The numbers that are looked at together, of which few hold one that counts.
    const FEW: usize = 64;
    let mut heap = BinaryHeap::with_capacity(k + 1);
    for (few, numbers) in row.chunks(FEW).enumerate() {
        let (most, nan) = largest(numbers);
        if nan {
            return Err(NotANumber);
        }
        if heap.len() == k
            && heap
                .peek()
                .is_none_or(|worst: &Candidate| most <= worst.value)
        {
            continue;
        }
        for (index, &value) in numbers.iter().enumerate() {
            let index = few * FEW + index;
            let candidate = Candidate { value, index };
            if heap.len() < k {
                heap.push(candidate);
            } else if heap.peek().is_some_and(|worst| candidate < *worst) {
                heap.pop();
                heap.push(candidate);
            }
        }
    }
    Ok(heap.into_sorted_vec())
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
            let Ok(found) = largest_of(row, self.k) else {
                self.fault.report(not_a_number(self.op, item));
                return;
            };
            let range = item * self.k..(item + 1) * self.k;
            // SAFETY: each item writes its own rows.
            let (values, indices) = unsafe {
                (
                    self.values.slice_mut(range.clone()),
                    self.indices.slice_mut(range),
                )
            };
            for (slot, candidate) in found.iter().enumerate() {
                values[slot] = candidate.value;
                indices[slot] = candidate.index as i32;
            }
        }
    }
}
