//! The op `MatMul` in terms of plans.

use std::ops::Range;

use walsh_core::ops::{MatMul, Operation};
use walsh_core::{Error, Plan, Result};

use super::ActivationLayout;
use super::plan::{Operands, ProductPlan, ProductShape};
use crate::lower::{Derived, Lowering, Target};
use crate::memory::View;
use crate::team::{Phase, Scratch, Stream};
use walsh_core::Activations;

/// The plan of a validated product.
fn product_plan(op: &MatMul, target: Target) -> Result<ProductPlan> {
    let size = |size: u64| {
        usize::try_from(size).map_err(|_| unsupported("it is larger than this machine's memory"))
    };
    let shape = ProductShape {
        weight: op.weight.dtype(),
        m: size(op.input.shape()[0])?,
        n: size(op.weight.shape()[0])?,
        k: size(op.weight.shape()[1])?,
        packed: op.weight.is_packed(),
    };
    ProductPlan::new(target.isa, target.threads, target.activations, shape).map_err(unsupported)
}

fn unsupported(why: impl ToString) -> Error {
    Error::Unsupported {
        op: MatMul::NAME,
        backend: "cpu",
        why: why.to_string(),
    }
}

/// What a product will do, to look at.
pub(crate) fn plan(op: &MatMul, target: Target) -> Result<Plan> {
    let plan = product_plan(op, target)?;
    let weight = plan.shape().weight;
    // Weights of floats have no other way.
    let precision = match target.activations {
        Activations::F32 if weight.is_quantised() => ".f32",
        _ => "",
    };
    let packed = if plan.shape().packed { ".packed" } else { "" };
    let way = if plan.stream_bytes().is_some() {
        "dot"
    } else {
        "tiled"
    };
    Ok(Plan {
        kernel: format!("matmul.{weight}.{}{precision}{packed}.{way}", target.isa),
        pieces: plan.items() as u64,
        workspace: plan.layout().bytes() as u64,
    })
}

/// Adds the phases of a product. Products of one input share its preparation.
pub(crate) fn lower(op: &MatMul, lowering: &mut Lowering) -> Result<()> {
    let plan = product_plan(op, lowering.target())?;
    let layout = *plan.layout();
    let weight = View::<u8>::of(&op.weight)?;
    if plan.shape().weight.is_quantised() && !weight.base().cast::<u16>().is_aligned() {
        return Err(unsupported(
            "a block-quantised weight lies at an odd address",
        ));
    }
    let mut accesses = op.accesses();
    let input = if layout.is_plain() {
        View::<u8>::of(&op.input)?
    } else {
        let source = op.input.span();
        let bytes = layout.bytes() as u64;
        let prepared =
            lowering.derived(Derived::Activations(layout), &source, bytes, |buffer, _| {
                Ok(Prepare {
                    layout,
                    input: View::of(&op.input)?,
                    prepared: View::range(buffer, 0, bytes)?,
                })
            })?;
        accesses.read(crate::lower::whole(&prepared));
        View::range(&prepared, 0, bytes)?
    };
    let bias = op.bias.as_ref().map(View::of).transpose()?;
    let product = Product {
        plan,
        weight,
        input,
        bias,
        output: View::of(&op.output)?,
    };
    lowering.phase(&accesses, product);
    Ok(())
}

struct Prepare {
    layout: ActivationLayout,
    input: View<f32>,
    prepared: View<u8>,
}

impl Phase for Prepare {
    fn items(&self) -> usize {
        self.layout.items()
    }

    fn cost(&self) -> u64 {
        self.layout.cost()
    }

    unsafe fn run(&self, items: Range<usize>, _: &mut Scratch) {
        // SAFETY: the views have the sizes of the layout, and workspace starts on a cache line; the list's hazards keep
        // others away.
        unsafe {
            self.layout
                .prepare(items, self.input.base(), self.prepared.base())
        }
    }
}

struct Product {
    plan: ProductPlan,
    weight: View<u8>,
    input: View<u8>,
    bias: Option<View<f32>>,
    output: View<f32>,
}

impl Phase for Product {
    fn items(&self) -> usize {
        self.plan.items()
    }

    fn stream(&self) -> Option<Stream> {
        self.plan.stream_bytes().map(|item_bytes| Stream {
            start: self.weight.base(),
            item_bytes,
            bytes: self.weight.len(),
        })
    }

    fn scratch_bytes(&self) -> usize {
        self.plan.scratch_bytes()
    }

    fn cost(&self) -> u64 {
        self.plan.cost()
    }

    unsafe fn run(&self, items: Range<usize>, scratch: &mut Scratch) {
        let operands = Operands {
            weight: self.weight.base(),
            input: self.input.base(),
            bias: self.bias.as_ref().map(|bias| bias.base().cast_const()),
            output: self.output.base(),
        };
        // SAFETY: validation has checked the views' sizes against the plan's shape; the list's hazards keep others away.
        unsafe { self.plan.run(items, operands, scratch.bytes()) }
    }
}
