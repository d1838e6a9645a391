//! The op `MatMulTopK`: the largest products, found through a coarse copy where there is one.
//!
//! All products with the copy are computed, and those with what it leaves out of some columns. Those that are largest in each part of the rows are computed exactly: the
//! k-th largest of them is a bound that all of the k largest products reach. Every row whose product with the copy,
//! raised by its reach, does not reach that bound is left alone; the others are computed exactly, by the very kernel that
//! computes all products otherwise, and the largest of them are the answer.

use std::ops::Range;
use std::sync::Arc;

use walsh_core::ops::{MatMul, MatMulTopK, Operation, TopK};
use walsh_core::{Accesses, Buffer, Plan, Result, Span, Tensor};
use walsh_formats::DType;

use super::ActivationLayout;
use super::activations::{BLOCK, Record};
use super::coarse::{COLUMNS, FINE, Norms, Parts, span};
use super::op::{Product, plan_shape, prepared, product_plan};
use super::plan::{Operands, ProductPlan, ProductShape};
use crate::isa::Isa;
use crate::lower::{Fault, Lowering, Target, whole};
use crate::memory::View;
use crate::ops::select::{Candidate, largest_of, lower_topk_of, not_a_number};
use crate::simd::versions;
use crate::team::{Phase, Scratch, fetch};

/// The rows among which as many products as are asked for are computed for the bound.
const PART: usize = 16 << 10;

/// The rows of a work item that looks for those that reach it.
const PIECE: usize = 4 << 10;

/// The most products that are searched for: with more of them, few rows are left out.
const MOST: usize = 256;

/// From this span of an input on, no row is left out: products might overflow.
const LARGEST_SPAN: f32 = 1e24;

/// The room that prepared columns take, in numbers.
const PREPARED: usize = size_of::<Record>() / 4;

/// How many rows ahead of the one that is multiplied are fetched.
const AHEAD: usize = 4;

/// The plans of a search: of the exact products, of those with the copy, and of those with what it leaves out of some
/// columns.
struct Plans {
    exact: ProductPlan,
    coarse: ProductPlan,
    fine: ProductPlan,
}

impl Plans {
    /// `None` where all products are computed.
    fn new(op: &MatMulTopK, target: Target) -> Result<Option<Plans>> {
        let Some(screen) = &op.screen else {
            return Ok(None);
        };
        if op.input.shape()[0] > 1 || op.values.shape()[1] > MOST as u64 {
            return Ok(None);
        }
        let exact = product_plan(MatMulTopK::NAME, &op.weight, &op.input, target)?;
        let copy = |weight, k| {
            let shape = ProductShape {
                weight,
                k,
                packed: true,
                ..exact.shape()
            };
            plan_shape(MatMulTopK::NAME, shape, target)
        };
        let coarse = copy(Parts::of(screen)?.copy, exact.shape().k)?;
        let fine = copy(FINE, COLUMNS)?;
        Ok(exact.takes_single_rows().then_some(Plans {
            exact,
            coarse,
            fine,
        }))
    }
}

/// What the op will do, to look at.
pub(crate) fn plan_top_k(op: &MatMulTopK, target: Target) -> Result<Plan> {
    let name = MatMulTopK::NAME;
    let Some(Plans { exact, coarse, .. }) = Plans::new(op, target)? else {
        let product = product_plan(name, &op.weight, &op.input, target)?;
        let plan = super::op::describe(&product, target);
        return Ok(Plan {
            kernel: format!("{} + top_k.{}", plan.kernel, target.isa),
            workspace: plan.workspace + 4 * op.weight.shape()[0] * op.input.shape()[0],
            ..plan
        });
    };
    let plan = super::op::describe(&coarse, target);
    let sizes = Sizes::new(exact.shape().n, op.values.shape()[1] as usize);
    Ok(Plan {
        kernel: format!(
            "{} + search.{}.{}",
            plan.kernel,
            exact.shape().weight,
            target.isa
        ),
        pieces: plan.pieces,
        workspace: plan.workspace + exact.layout().bytes() as u64 + sizes.bytes(),
    })
}

/// Adds the phases of the op.
pub(crate) fn lower_top_k(op: &MatMulTopK, lowering: &mut Lowering) -> Result<()> {
    match (Plans::new(op, lowering.target())?, &op.screen) {
        (Some(plans), Some(screen)) => search(op, Parts::of(screen)?, plans, lowering),
        _ => all_products(op, lowering),
    }
}

/// All products into workspace, and the largest of them.
fn all_products(op: &MatMulTopK, lowering: &mut Lowering) -> Result<()> {
    let shape = [op.input.shape()[0], op.weight.shape()[0]];
    let workspace = lowering.workspace(walsh_core::tensor_bytes(DType::F32, &shape)?)?;
    let products = Tensor::new(workspace.clone(), 0, DType::F32, &shape)?;
    let product = MatMul {
        weight: op.weight.clone(),
        input: op.input.clone(),
        bias: None,
        output: products.clone(),
    };
    super::op::lower(&product, lowering)?;
    let largest = TopK {
        input: products,
        values: op.values.clone(),
        indices: op.indices.clone(),
    };
    lower_topk_of(MatMulTopK::NAME, &largest, lowering)?;
    lowering.release(workspace);
    Ok(())
}

/// How a search is divided, and where its parts lie in the workspace.
#[derive(Clone, Copy)]
struct Sizes {
    n: usize,
    k: usize,
}

impl Sizes {
    fn new(n: usize, k: usize) -> Sizes {
        Sizes { n, k }
    }

    fn parts(self) -> usize {
        self.n.div_ceil(PART)
    }

    fn pieces(self) -> usize {
        self.n.div_ceil(PIECE)
    }

    /// Products with the copy; those of rows that reach the bound become exact.
    fn scores(self) -> Range<usize> {
        0..self.n
    }

    /// Products with what the copy leaves out of some columns.
    fn more(self) -> Range<usize> {
        let start = self.scores().end.next_multiple_of(16);
        start..start + self.n
    }

    /// The input's numbers in these columns.
    fn columns(self) -> Range<usize> {
        let start = self.more().end.next_multiple_of(16);
        start..start + COLUMNS
    }

    /// The same as products read them.
    fn prepared(self) -> Range<usize> {
        let start = self.columns().end.next_multiple_of(16);
        start..start + PREPARED
    }

    /// The largest exact products of each part.
    fn of_parts(self) -> Range<usize> {
        let start = self.prepared().end.next_multiple_of(16);
        start..start + self.parts() * self.k
    }

    /// The bound, and the span of the input.
    fn bound(self) -> Range<usize> {
        let start = self.of_parts().end.next_multiple_of(16);
        start..start + 2
    }

    /// The largest exact products of each piece.
    fn of_pieces(self) -> Range<usize> {
        let start = self.bound().end.next_multiple_of(16);
        start..start + self.pieces() * self.k
    }

    /// Their rows.
    fn rows(self) -> Range<usize> {
        let start = self.of_pieces().end.next_multiple_of(16);
        start..start + self.pieces() * self.k
    }

    fn bytes(self) -> u64 {
        4 * self.rows().end as u64
    }
}

/// Adds the phases of a search.
fn search(op: &MatMulTopK, parts: Parts, plans: Plans, lowering: &mut Lowering) -> Result<()> {
    let Plans {
        exact,
        coarse,
        fine,
    } = plans;
    let sizes = Sizes::new(exact.shape().n, op.values.shape()[1] as usize);
    let (exact_input, exact_span) = prepared(&op.input, exact.layout(), lowering)?;
    let (coarse_input, coarse_span) = prepared(&op.input, coarse.layout(), lowering)?;
    let workspace = lowering.workspace(sizes.bytes())?;
    let columns = Columns {
        layout: *fine.layout(),
        about: parts.about,
        input: (*coarse.layout(), View::of_span(&coarse_span)?),
        values: part(&workspace, sizes.columns())?,
        prepared: part(&workspace, sizes.prepared())?,
        bound: part(&workspace, sizes.bound())?,
    };
    let coarse = Product {
        weight: parts.coarse,
        input: coarse_input,
        bias: None,
        output: part(&workspace, sizes.scores())?,
        plan: coarse,
    };
    let fine = Product {
        weight: parts.fine,
        input: part(&workspace, sizes.prepared())?,
        bias: None,
        output: part(&workspace, sizes.more())?,
        plan: fine,
    };
    let search = Arc::new(Search {
        isa: lowering.target().isa,
        sizes,
        weight: View::of(&op.weight)?,
        input: exact_input,
        reach: parts.reach,
        scores: part(&workspace, sizes.scores())?,
        more: part(&workspace, sizes.more())?,
        of_parts: part(&workspace, sizes.of_parts())?,
        bound: part(&workspace, sizes.bound())?,
        of_pieces: part(&workspace, sizes.of_pieces())?,
        rows: part(&workspace, sizes.rows())?,
        values: View::of(&op.values)?,
        indices: View::of(&op.indices)?,
        fault: lowering.fault(),
        exact,
    });
    // The two products run side by side; all else comes one after the other.
    let within = |numbers: Range<usize>| Span {
        buffer: workspace.clone(),
        offset: 4 * numbers.start as u64,
        bytes: 4 * numbers.len() as u64,
    };
    let accesses = |mut reads: Vec<Span>, writes: Vec<Span>| {
        reads.extend([exact_span.clone(), coarse_span.clone()]);
        Accesses { reads, writes }
    };
    let small = within(sizes.columns().start..sizes.rows().end);
    lowering.phase(&accesses(vec![], vec![small]), columns);
    let scores = within(sizes.scores());
    lowering.phase(&accesses(vec![], vec![scores]), coarse);
    let (columns, more) = (within(sizes.prepared()), within(sizes.more()));
    lowering.phase(&accesses(vec![columns], vec![more]), fine);
    let alone = || accesses(op.accesses().reads, vec![whole(&workspace)]);
    lowering.phase(&alone(), LargestOfParts(search.clone()));
    lowering.phase(&alone(), Bound(search.clone()));
    lowering.phase(&alone(), ThoseThatReach(search.clone()));
    let mut last = alone();
    last.writes.extend(op.accesses().writes);
    lowering.phase(&last, Largest(search));
    lowering.release(workspace);
    Ok(())
}

/// Numbers of a workspace.
fn part<T: bytemuck::Pod>(workspace: &Buffer, numbers: Range<usize>) -> Result<View<T>> {
    View::range(
        workspace,
        4 * numbers.start as u64,
        4 * numbers.len() as u64,
    )
}

/// What the phases of a search share.
struct Search {
    isa: Isa,
    sizes: Sizes,
    exact: ProductPlan,
    weight: View<u8>,
    input: View<u8>,
    reach: View<f32>,
    scores: View<f32>,
    more: View<f32>,
    of_parts: View<f32>,
    bound: View<f32>,
    of_pieces: View<f32>,
    rows: View<i32>,
    values: View<f32>,
    indices: View<i32>,
    fault: Arc<Fault>,
}

impl Search {
    /// Computes the products of some rows, into the scores.
    ///
    /// # Safety
    /// The rows are the weight's, nothing else touches their scores, and nobody writes what products read.
    unsafe fn multiply(&self, rows: &[u32], scratch: &mut [u8]) {
        let operands = Operands {
            weight: self.weight.base(),
            input: self.input.base(),
            bias: None,
            output: self.scores.base(),
        };
        let row_bytes = self.weight.len() / self.sizes.n;
        let ahead = |row: u32| {
            let row = self.weight.base().wrapping_add(row as usize * row_bytes);
            (0..row_bytes)
                .step_by(64)
                .for_each(|at| fetch(row.wrapping_add(at)));
        };
        rows.iter().take(AHEAD).for_each(|row| ahead(*row));
        for (index, row) in rows.iter().enumerate() {
            if let Some(next) = rows.get(index + AHEAD) {
                ahead(*next);
            }
            // SAFETY: the caller's.
            unsafe { self.exact.run_row(*row as usize, operands, scratch) };
        }
    }

    fn cost(&self, share: u64) -> u64 {
        // A few numbers of each row, and whole rows of some.
        self.sizes.n as u64 / 4 + self.weight.len() as u64 / 15 / share
    }
}

/// Takes the columns that are kept apart out of the input, and finds its span.
struct Columns {
    layout: ActivationLayout,
    about: View<u32>,
    /// The input as products with the copy read it.
    input: (ActivationLayout, View<u8>),
    values: View<f32>,
    prepared: View<u8>,
    bound: View<f32>,
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
            let input = layout.single_row(input.base());
            let all: f64 = input.iter().map(Record::squares).sum();
            let mut apart = 0.0;
            for (value, column) in values.iter_mut().zip(columns) {
                let column = *column as usize;
                *value = input[column / BLOCK].value(column % BLOCK);
                apart += f64::from(*value).powi(2);
            }
            let to = self.prepared.base();
            self.layout.prepare(0..1, self.values.base(), to);
            let kept = &self.layout.single_row(to)[0];
            let lost_of_kept: f64 = values
                .iter()
                .enumerate()
                .map(|(i, value)| f64::from(value - kept.value(i)).powi(2))
                .sum();
            // Differences of sums of squares lose a little.
            let rest = (all - apart).max(0.0) + 1e-12 * all + lost_of_kept;
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
struct LargestOfParts(Arc<Search>);

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
            unsafe {
                self.0.multiply(&largest, scratch.bytes());
                for (found, row) in found.iter_mut().zip(largest) {
                    *found = self.0.scores.slice(row as usize..row as usize + 1)[0];
                }
            }
        }
    }
}

/// Finds the bound that all of the largest products reach.
struct Bound(Arc<Search>);

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
struct ThoseThatReach(Arc<Search>);

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
        let Search { sizes, isa, .. } = *self.0;
        let (room, scratch) = scratch.bytes().split_at_mut(4 * PIECE);
        let room: &mut [u32] = bytemuck::cast_slice_mut(room);
        // SAFETY: the list orders this after the write.
        let [bound, span] = unsafe { *self.0.bound.slice(0..2).as_array().unwrap_or(&[0.0; 2]) };
        for piece in items {
            let rows = piece * PIECE..((piece + 1) * PIECE).min(sizes.n);
            let results = piece * sizes.k..(piece + 1) * sizes.k;
            // SAFETY: the scores of these rows, and the piece's results, are this item's.
            let (values, indices, reaching) = unsafe {
                let scores = self.0.scores.slice(rows.clone());
                let reach = self.0.reach.slice(rows.clone());
                let first = rows.start as u32;
                let count = those_that_reach(
                    isa,
                    Scores {
                        scores,
                        reach,
                        span,
                        bound,
                    },
                    first,
                    room,
                );
                let reaching = &room[..count];
                self.0.multiply(reaching, scratch);
                (
                    self.0.of_pieces.slice_mut(results.clone()),
                    self.0.rows.slice_mut(results),
                    reaching,
                )
            };
            values.fill(f32::NEG_INFINITY);
            indices.fill(NOBODY);
            let mut exact = Vec::with_capacity(reaching.len());
            for row in reaching {
                // SAFETY: as above.
                exact.push(unsafe { self.0.scores.slice(*row as usize..*row as usize + 1)[0] });
            }
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
        // What is not a number is not left out.
        let reaches = |score: f32, reach: f32| !(score + reach * span < bound);
        let mut count = 0;
        let (scores, last_scores) = scores.as_chunks::<LANES>();
        let (reach, last_reach) = reach.as_chunks::<LANES>();
        let mut row = first;
        for (scores, reach) in scores.iter().zip(reach) {
            let mut any = 0;
            for i in 0..LANES {
                any |= u32::from(reaches(scores[i], reach[i]));
            }
            if any > 0 {
                for i in 0..LANES {
                    // The place behind the last is written in vain.
                    found[count.min(PIECE - 1)] = row + i as u32;
                    count += usize::from(reaches(scores[i], reach[i]));
                }
            }
            row += LANES as u32;
        }
        for (score, reach) in last_scores.iter().zip(last_reach) {
            if reaches(*score, *reach) {
                found[count] = row;
                count += 1;
            }
            row += 1;
        }
        count
    }
}

/// The largest of the pieces' largest.
struct Largest(Arc<Search>);

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
