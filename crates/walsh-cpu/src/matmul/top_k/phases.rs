//! The phases of a search.

use std::ops::Range;
use std::sync::Arc;

use walsh_core::ops::{MatMulTopK, Operation};

use super::{PART, PIECE, Sizes};
use crate::lowering::Fault;
use crate::matmul::coarse::{COLUMNS, Norms, span};
use crate::matmul::contract::{InputLayout, Operands, Source};
use crate::matmul::layout::{BLOCK, BlockQ8};
use crate::matmul::plan::ProductPlan;
use crate::memory::View;
use crate::ops::select::{Candidate, largest_of, not_a_number};
use crate::simd::{Token, versions};
use crate::team::{Phase, Scratch, fetch};

/// From this span of an input on, no row is left out: products might overflow.
const LARGEST_SPAN: f32 = 1e24;

/// How many rows ahead of the one that is multiplied are fetched.
const AHEAD: usize = 4;

/// What the phases of a search share.
pub(super) struct Search {
    pub(super) set: Token,
    pub(super) sizes: Sizes,
    pub(super) exact: ProductPlan,
    pub(super) weight: View<u8>,
    pub(super) input: View<u8>,
    pub(super) reach: View<f32>,
    pub(super) scores: View<f32>,
    pub(super) more: View<f32>,
    pub(super) of_parts: View<f32>,
    pub(super) bound: View<f32>,
    pub(super) of_pieces: View<f32>,
    pub(super) rows: View<i32>,
    pub(super) values: View<f32>,
    pub(super) indices: View<i32>,
    pub(super) fault: Arc<Fault>,
}

impl Search {
    /// The products of some rows; they go into the scores too.
    ///
    /// # Safety
    /// The rows are the weight's, nothing else touches their scores, and nobody writes what products read.
    unsafe fn multiply(&self, rows: &[u32], scratch: &mut [u8]) -> Vec<f32> {
        // SAFETY: nobody writes what products read, as this method asks.
        let operands = unsafe {
            Operands {
                weight: self.weight.all(),
                input: self.input.all(),
                bias: None,
                output: self.scores.parts(),
            }
        };
        let row_bytes = self.weight.len() / self.sizes.n;
        let ahead = |row: u32| {
            let row = self.weight.base().wrapping_add(row as usize * row_bytes);
            (0..row_bytes)
                .step_by(64)
                .for_each(|at| fetch(row.wrapping_add(at)));
        };
        let mut products = Vec::with_capacity(rows.len());
        rows.iter().take(AHEAD).for_each(|row| ahead(*row));
        for (index, row) in rows.iter().enumerate() {
            if let Some(next) = rows.get(index + AHEAD) {
                ahead(*next);
            }
            let row = *row as usize;
            // SAFETY: the rows' scores are this item's, as this method asks.
            unsafe {
                self.exact.run_row(row, operands, scratch);
                products.push(self.scores.slice(row..row + 1)[0]);
            }
        }
        products
    }

    fn cost(&self, share: u64) -> u64 {
        // A few numbers of each row, and whole rows of some.
        self.sizes.n as u64 / 4 + self.weight.len() as u64 / 15 / share
    }
}

/// Takes the columns that are kept apart out of the input, and finds its span.
pub(super) struct Columns {
    pub(super) layout: InputLayout,
    pub(super) about: View<u32>,
    /// The input as products with the copy read it.
    pub(super) input: (InputLayout, View<u8>),
    pub(super) values: View<f32>,
    pub(super) prepared: View<u8>,
    pub(super) bound: View<f32>,
}

impl Phase for Columns {
    fn items(&self) -> usize {
        1
    }

    fn cost(&self) -> u64 {
        self.input.1.len() as u64
    }

    unsafe fn run(&self, _: Range<usize>, _: &mut Scratch) {
        let (layout, input) = &self.input;
        // SAFETY: the list orders these after the writes, and this is the one item. The room for the prepared columns is
        // what their layout asks for, on a cache line of its own.
        unsafe {
            let (columns, lost) = self.about.slice(0..COLUMNS + 1).split_at(COLUMNS);
            let values = self.values.slice_mut(0..COLUMNS);
            let input = layout.single_row(input.all());
            let all: f64 = input.iter().map(BlockQ8::squares).sum();
            let mut apart = 0.0;
            for (value, column) in values.iter_mut().zip(columns) {
                let column = *column as usize;
                *value = input[column / BLOCK].value(column % BLOCK);
                apart += f64::from(*value).powi(2);
            }
            let to = self.prepared.parts();
            self.layout.prepare(0..1, Source::of(values), to);
            let kept = &self.layout.single_row(self.prepared.all())[0];
            let lost_of_kept: f64 = values
                .iter()
                .enumerate()
                .map(|(i, value)| f64::from(value - kept.value(i)).powi(2))
                .sum();
            // The values were rounded to 32 bits: a difference of their squares may be short by as much.
            let rest = (all - apart).max(0.0) + 1e-6 * all + lost_of_kept;
            let norms = Norms {
                input: all.sqrt(),
                rest: rest.sqrt(),
                kept: kept.squares().sqrt(),
            };
            self.bound.slice_mut(1..2)[0] = span(&norms, f32::from_bits(lost[0]));
        }
    }
}

/// Computes the products of the rows of each part whose products with the copy are largest.
pub(super) struct LargestOfParts(pub(super) Arc<Search>);

impl Phase for LargestOfParts {
    fn items(&self) -> usize {
        self.0.sizes.parts()
    }

    fn cost(&self) -> u64 {
        self.0.cost(1000)
    }

    fn scratch_bytes(&self) -> usize {
        self.0.exact.scratch_bytes()
    }

    unsafe fn run(&self, items: Range<usize>, scratch: &mut Scratch) {
        let Search { sizes, .. } = *self.0;
        for part in items {
            let rows = part * PART..((part + 1) * PART).min(sizes.n);
            // SAFETY: the scores of these rows, and the part's results, are this item's.
            let (scores, found) = unsafe {
                let scores = self.0.scores.slice_mut(rows.clone());
                for (score, more) in scores.iter_mut().zip(self.0.more.slice(rows.clone())) {
                    *score += more;
                }
                let results = part * sizes.k..(part + 1) * sizes.k;
                (&*scores, self.0.of_parts.slice_mut(results))
            };
            found.fill(f32::NEG_INFINITY);
            // With a product that is not a number the span is none either, and no row is left out.
            let Ok(largest) = largest_of(scores, sizes.k) else {
                continue;
            };
            let row = |found: &Candidate| (rows.start + found.index) as u32;
            let largest: Vec<u32> = largest.iter().map(row).collect();
            // SAFETY: as above.
            let products = unsafe { self.0.multiply(&largest, scratch.bytes()) };
            found[..products.len()].copy_from_slice(&products);
        }
    }
}

/// Finds the bound that all of the largest products reach.
pub(super) struct Bound(pub(super) Arc<Search>);

impl Phase for Bound {
    fn items(&self) -> usize {
        1
    }

    fn cost(&self) -> u64 {
        self.0.of_parts.len() as u64
    }

    unsafe fn run(&self, _: Range<usize>, _: &mut Scratch) {
        let sizes = self.0.sizes;
        // SAFETY: the list orders these after the writes, and this is the one item.
        let (found, bound) = unsafe {
            (
                self.0.of_parts.slice_mut(0..self.0.of_parts.len()),
                self.0.bound.slice_mut(0..2),
            )
        };
        let reaches = bound[1] < LARGEST_SPAN && !found.iter().any(|x| x.is_nan());
        bound[0] = match reaches {
            true => {
                let order = |a: &f32, b: &f32| b.total_cmp(a);
                *found.select_nth_unstable_by(sizes.k - 1, order).1
            }
            false => f32::NEG_INFINITY,
        };
    }
}

/// Computes the products that may reach the bound, and keeps the largest of each piece.
pub(super) struct ThoseThatReach(pub(super) Arc<Search>);

impl Phase for ThoseThatReach {
    fn items(&self) -> usize {
        self.0.sizes.pieces()
    }

    fn cost(&self) -> u64 {
        self.0.cost(100)
    }

    fn scratch_bytes(&self) -> usize {
        4 * PIECE + self.0.exact.scratch_bytes()
    }

    unsafe fn run(&self, items: Range<usize>, scratch: &mut Scratch) {
        let Search { sizes, set, .. } = *self.0;
        let (room, scratch) = scratch.bytes().split_at_mut(4 * PIECE);
        let room: &mut [u32] = bytemuck::cast_slice_mut(room);
        // SAFETY: the list orders this after the write.
        let [bound, span] = unsafe { *self.0.bound.slice(0..2).as_array().unwrap_or(&[0.0; 2]) };
        for piece in items {
            let rows = piece * PIECE..((piece + 1) * PIECE).min(sizes.n);
            let results = piece * sizes.k..(piece + 1) * sizes.k;
            // SAFETY: the scores of these rows, and the piece's results, are this item's.
            let (values, indices, scores) = unsafe {
                (
                    self.0.of_pieces.slice_mut(results.clone()),
                    self.0.rows.slice_mut(results),
                    Scores {
                        scores: self.0.scores.slice(rows.clone()),
                        reach: self.0.reach.slice(rows.clone()),
                        span,
                        bound,
                    },
                )
            };
            let count = those_that_reach(set, scores, rows.start as u32, room);
            let reaching = &room[..count];
            // SAFETY: as above; the scores have been looked at.
            let exact = unsafe { self.0.multiply(reaching, scratch) };
            values.fill(f32::NEG_INFINITY);
            indices.fill(NOBODY);
            let Ok(largest) = largest_of(&exact, sizes.k.min(exact.len())) else {
                self.0.fault.report(not_a_number(MatMulTopK::NAME, 0));
                return;
            };
            for (slot, found) in largest.iter().enumerate() {
                values[slot] = found.value;
                indices[slot] = reaching[found.index] as i32;
            }
        }
    }
}

/// In the place of a row: there was none.
const NOBODY: i32 = -1;

/// Products with the copy, and what they may be off by.
#[derive(Clone, Copy)]
struct Scores<'a> {
    scores: &'a [f32],
    reach: &'a [f32],
    span: f32,
    bound: f32,
}

versions! {
    /// Writes the rows whose products may reach the bound, the first row being `first`; returns how many they are.
    fn those_that_reach(rows: Scores<'_>, first: u32, found: &mut [u32]) -> usize {
        const LANES: usize = 16;
        let Scores { scores, reach, span, bound } = rows;
        let mut count = 0;
        let (whole, last) = scores.as_chunks::<LANES>();
        let (whole_reach, last_reach) = reach.as_chunks::<LANES>();
        let mut row = first;
        for (scores, reach) in whole.iter().zip(whole_reach) {
            let mut short = [0u32; LANES];
            let mut all = 1;
            for i in 0..LANES {
                // What is not a number is not short of it.
                short[i] = u32::from(scores[i] + reach[i] * span < bound);
                all &= short[i];
            }
            if all == 0 {
                for (i, short) in short.iter().enumerate() {
                    // The place behind the last is written in vain.
                    found[count.min(PIECE - 1)] = row + i as u32;
                    count += usize::from(*short == 0);
                }
            }
            row += LANES as u32;
        }
        for (score, reach) in last.iter().zip(last_reach) {
            let short = score + reach * span < bound;
            if !short {
                found[count] = row;
                count += 1;
            }
            row += 1;
        }
        count
    }
}

/// The largest of the pieces' largest.
pub(super) struct Largest(pub(super) Arc<Search>);

impl Phase for Largest {
    fn items(&self) -> usize {
        1
    }

    fn cost(&self) -> u64 {
        4 * self.0.of_pieces.len() as u64
    }

    unsafe fn run(&self, _: Range<usize>, _: &mut Scratch) {
        let k = self.0.sizes.k;
        // SAFETY: the list orders these reads after the writes.
        let (found, rows) = unsafe { (self.0.of_pieces.all(), self.0.rows.all()) };
        let somebody = rows.iter().zip(found).filter(|(row, _)| **row != NOBODY);
        let mut largest: Vec<Candidate> = somebody
            .map(|(row, value)| Candidate {
                value: *value,
                index: *row as usize,
            })
            .collect();
        if largest.len() > k {
            largest.select_nth_unstable(k - 1);
            largest.truncate(k);
        }
        largest.sort_unstable();
        // SAFETY: this is the one item.
        let (values, indices) = unsafe {
            (
                self.0.values.slice_mut(0..k),
                self.0.indices.slice_mut(0..k),
            )
        };
        for ((found, value), index) in largest.iter().zip(values).zip(indices) {
            *value = found.value;
            *index = found.index as i32;
        }
    }
}
