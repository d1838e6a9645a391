//! The op `MatMulTopK`: the largest products, found through a coarse copy where there is one.
//!
//! All products with the copy are computed, and those with what it leaves out of some columns. Those that are largest in each part of the rows are computed exactly: the
//! k-th largest of them is a bound that all of the k largest products reach. Every row whose product with the copy,
//! raised by its reach, does not reach that bound is left alone; the others are computed exactly, by the very kernel that
//! computes all products otherwise, and the largest of them are the answer.

mod phases;

use std::ops::Range;
use std::sync::Arc;

use phases::{Bound, Columns, Largest, LargestOfParts, Search, ThoseThatReach};
use walsh_core::ops::{MatMul, MatMulTopK, Operation, TopK};
use walsh_core::{Accesses, Buffer, Plan, Result, Span, Tensor};
use walsh_formats::DType;

use super::activations::Record;
use super::coarse::{COLUMNS, FINE, Parts};
use super::op::{Product, plan_shape, prepared, product_plan};
use super::plan::{ProductPlan, ProductShape};
use crate::lower::{Lowering, Target, whole};
use crate::memory::View;
use crate::ops::select::lower_topk_of;

/// The rows among which as many products as are asked for are computed for the bound.
const PART: usize = 16 << 10;

/// The rows of a work item that looks for those that reach it: they often stand together.
const PIECE: usize = 1 << 10;

/// The most products that are searched for: with more of them, few rows are left out.
const MOST: usize = 256;

/// The room that prepared columns take, in numbers.
const PREPARED: usize = size_of::<Record>() / 4;

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
