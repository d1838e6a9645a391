//! The op `MatMulTopK`: the largest products, found through a coarse copy where there is one.
//!
//! All products with the copy are computed, and those with what it leaves out of some columns. Those that are largest in
//! each part of the rows are computed exactly: the k-th largest of them is a bound that all of the k largest products
//! reach. Every row whose product with the copy, raised by its reach, does not reach that bound is left alone; the others
//! are computed exactly, by the very kernel that computes all products otherwise, and the largest of them are the answer.

mod phases;

use std::sync::Arc;

use phases::{Bound, Columns, Largest, LargestOfParts, Search, ThoseThatReach};
use walsh_core::ops::{MatMulTopK, Operation};
use walsh_core::{Accesses, Buffer, Error, Result, Span, Tensor};
use walsh_formats::DType;

use super::coarse::{COLUMNS, FINE, Parts};
use super::contract::ProductShape;
use super::layout::BlockQ8;
use super::op::{Product, name, plan_shape, prepared, product_plan};
use super::plan::ProductPlan;
use crate::lowering::Lowering;
use crate::memory::View;
use crate::ops::select::lower_topk_of;
use crate::target::Target;

/// The rows among which as many products as are asked for are computed for the bound.
const PART: usize = 16 << 10;

/// The rows of a work item that looks for those that reach it: they often stand together.
const PIECE: usize = 1 << 10;

/// The most products that are searched for: with more of them, few rows are left out.
const MOST: usize = 256;

/// The room that prepared columns take, in numbers.
const PREPARED: usize = size_of::<BlockQ8>() / 4;

/// A search: the plans of the exact products, of those with the copy, and of those with what it leaves out of some
/// columns.
struct Plans {
    sizes: Sizes,
    parts: Parts,
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
        let parts = Parts::of(screen)?;
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
        let coarse = copy(parts.copy, exact.shape().k)?;
        let fine = copy(FINE, COLUMNS)?;
        Ok(exact.takes_single_rows().then_some(Plans {
            sizes: Sizes {
                n: exact.shape().n,
                k: op.values.shape()[1] as usize,
            },
            parts,
            exact,
            coarse,
            fine,
        }))
    }
}

/// Adds the phases of the op.
pub(crate) fn lower_top_k(op: &MatMulTopK, lowering: &mut Lowering) -> Result<()> {
    match Plans::new(op, lowering.target())? {
        Some(plans) => search(op, plans, lowering),
        None => all_products(op, lowering),
    }
}

/// All products into workspace, and the largest of them.
fn all_products(op: &MatMulTopK, lowering: &mut Lowering) -> Result<()> {
    let shape = op.products();
    let workspace = lowering.workspace(walsh_core::tensor_bytes(DType::F32, &shape)?)?;
    let products = Tensor::new(workspace.clone(), 0, DType::F32, &shape)?;
    let (product, largest) = op.through(products);
    let name = super::op::product(&product, MatMulTopK::NAME, lowering)?;
    lower_topk_of(MatMulTopK::NAME, &largest, lowering)?;
    lowering.kernel(format!("{name} + top_k.{}", lowering.target().isa));
    lowering.release(workspace);
    Ok(())
}

/// How a search is divided.
#[derive(Clone, Copy)]
struct Sizes {
    /// The rows of the weight.
    n: usize,
    /// The products that are wanted.
    k: usize,
}

impl Sizes {
    fn parts(self) -> usize {
        self.n.div_ceil(PART)
    }

    fn pieces(self) -> usize {
        self.n.div_ceil(PIECE)
    }
}

/// Adds the phases of a search.
fn search(op: &MatMulTopK, plans: Plans, lowering: &mut Lowering) -> Result<()> {
    let Plans {
        sizes,
        parts,
        exact,
        coarse,
        fine,
    } = plans;
    let target = lowering.target();
    let (copy, weight) = (name(&coarse, target), exact.shape().weight);
    lowering.kernel(format!("{copy} + search.{weight}.{}", target.isa));
    let (exact_input, exact_span) = prepared(&op.input, exact.layout(), lowering)?;
    let (coarse_input, coarse_span) = prepared(&op.input, coarse.layout(), lowering)?;
    let mut taken = Vec::new();
    let mut room = |numbers: usize| {
        let buffer = lowering.workspace(4 * numbers as u64)?;
        taken.push(buffer.clone());
        Ok::<_, Error>((buffer, numbers))
    };
    let (scores, more) = (room(sizes.n)?, room(sizes.n)?);
    let (values, columns, bound) = (room(COLUMNS)?, room(PREPARED)?, room(2)?);
    let of_parts = room(sizes.parts() * sizes.k)?;
    let (of_pieces, rows) = (
        room(sizes.pieces() * sizes.k)?,
        room(sizes.pieces() * sizes.k)?,
    );
    let search = Arc::new(Search {
        set: target.token(),
        sizes,
        weight: View::of(&op.weight)?,
        input: exact_input,
        reach: parts.reach,
        scores: numbers(&scores)?,
        more: numbers(&more)?,
        of_parts: numbers(&of_parts)?,
        bound: numbers(&bound)?,
        of_pieces: numbers(&of_pieces)?,
        rows: numbers(&rows)?,
        values: View::of(&op.values)?,
        indices: View::of(&op.indices)?,
        fault: lowering.fault(),
        exact,
    });
    let take_columns = Columns {
        layout: *fine.layout(),
        about: parts.about,
        input: (*coarse.layout(), View::of_span(&coarse_span)?),
        values: numbers(&values)?,
        prepared: numbers(&columns)?,
        bound: numbers(&bound)?,
    };
    let coarse = Product {
        weight: parts.coarse,
        input: coarse_input,
        bias: None,
        output: numbers(&scores)?,
        plan: coarse,
    };
    let fine = Product {
        weight: parts.fine,
        input: numbers(&columns)?,
        bias: None,
        output: numbers(&more)?,
        plan: fine,
    };
    let spans = |rooms: &[&(Buffer, usize)]| -> Vec<Span> {
        rooms.iter().map(|(buffer, _)| buffer.span()).collect()
    };
    let accesses = |reads: &[&(Buffer, usize)], writes: &[&(Buffer, usize)]| {
        let mut reads = spans(reads);
        reads.extend([exact_span.clone(), coarse_span.clone()]);
        reads.extend(op.accesses().reads);
        let writes = spans(writes);
        Accesses { reads, writes }
    };
    lowering.phase(&accesses(&[], &[&values, &columns, &bound]), take_columns);
    lowering.phase(&accesses(&[], &[&scores]), coarse);
    lowering.phase(&accesses(&[&columns], &[&more]), fine);
    lowering.phase(
        &accesses(&[&more], &[&scores, &of_parts]),
        LargestOfParts(search.clone()),
    );
    lowering.phase(&accesses(&[], &[&of_parts, &bound]), Bound(search.clone()));
    lowering.phase(
        &accesses(&[&bound], &[&scores, &of_pieces, &rows]),
        ThoseThatReach(search.clone()),
    );
    let mut last = accesses(&[&of_pieces, &rows], &[]);
    last.writes.extend(op.accesses().writes);
    lowering.phase(&last, Largest(search));
    taken
        .into_iter()
        .for_each(|buffer| lowering.release(buffer));
    Ok(())
}

/// So many numbers of a workspace.
fn numbers<T: bytemuck::Pod>((buffer, count): &(Buffer, usize)) -> Result<View<T>> {
    View::range(buffer, 0, 4 * *count as u64)
}
