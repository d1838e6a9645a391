//! The op `MatMul` in terms of plans.

use std::ops::Range;

use walsh_core::ops::{MatMul, Operation};
use walsh_core::{Activations, Error, Result, Span, Tensor};

use super::contract::{InputLayout, Operands, ProductShape, Source};
use super::layout::LANES;
use super::plan::ProductPlan;
use crate::lowering::Lowering;
use crate::memory::View;
use crate::target::Target;
use crate::team::{Phase, Scratch, Stream};

/// The plan of a validated product, which an op of this name asks for.
pub(super) fn product_plan(
    op: &'static str,
    weight: &Tensor,
    input: &Tensor,
    target: Target,
) -> Result<ProductPlan> {
    let shape = ProductShape {
        weight: weight.dtype(),
        m: size(op, input.shape()[0])?,
        n: size(op, weight.shape()[0])?,
        k: size(op, weight.shape()[1])?,
        packed: weight.is_packed(),
    };
    let plan = plan_shape(op, shape, target)?;
    check_address(op, weight)?;
    Ok(plan)
}

/// Blocks lie on even addresses.
pub(super) fn check_address(op: &'static str, weight: &Tensor) -> Result<()> {
    let start = crate::memory::address(weight.buffer(), weight.offset())?;
    if weight.dtype().is_quantised() && !start.cast::<u16>().is_aligned() {
        return Err(unsupported(
            op,
            "a block-quantised weight lies at an odd address",
        ));
    }
    Ok(())
}

/// The memory of a weight: of a packed one whole panels, which packing has made.
pub(super) fn weight_view(weight: &Tensor) -> Result<View<u8>> {
    let rows = weight.row_count();
    let stored = if weight.is_packed() {
        rows.next_multiple_of(LANES as u64)
    } else {
        rows
    };
    let bytes = weight.bytes() / rows.max(1) * stored;
    View::range(weight.buffer(), weight.offset(), bytes)
}

/// A size as this machine counts.
pub(super) fn size(op: &'static str, size: u64) -> Result<usize> {
    usize::try_from(size).map_err(|_| unsupported(op, "it is larger than this machine's memory"))
}

/// The plan of a product of this shape.
pub(super) fn plan_shape(
    op: &'static str,
    shape: ProductShape,
    target: Target,
) -> Result<ProductPlan> {
    let plan = ProductPlan::new(target.isa, target.threads, target.activations, shape);
    plan.map_err(|why| unsupported(op, why))
}

fn unsupported(op: &'static str, why: impl ToString) -> Error {
    Error::Unsupported {
        op,
        backend: "cpu",
        why: why.to_string(),
    }
}

/// What runs for a plan, for people.
pub(super) fn name(plan: &ProductPlan, target: Target) -> String {
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
    format!("matmul.{weight}.{}{precision}{packed}.{way}", target.isa)
}

/// The input of a product as its layout asks for it, and what the product reads of it. Products of one input share its
/// preparation.
pub(super) fn prepared(
    input: &Tensor,
    layout: &InputLayout,
    lowering: &mut Lowering,
) -> Result<(View<u8>, Span)> {
    if layout.is_plain() {
        return Ok((View::of(input)?, input.span()));
    }
    let bytes = layout.bytes() as u64;
    let prepared = lowering.derived(*layout, &[input.span()], bytes, |buffer, _| {
        Ok(Prepare {
            layout: *layout,
            input: View::of(input)?,
            prepared: View::range(buffer, 0, bytes)?,
        })
    })?;
    Ok((View::range(&prepared, 0, bytes)?, prepared.span()))
}

/// Adds the phases of a product.
pub(crate) fn lower(op: &MatMul, lowering: &mut Lowering) -> Result<()> {
    let name = product(op, MatMul::NAME, lowering)?;
    lowering.kernel(name);
    Ok(())
}

/// Adds the phases of a product, for an op of this name; what runs for it.
pub(super) fn product(op: &MatMul, of: &'static str, lowering: &mut Lowering) -> Result<String> {
    let plan = product_plan(of, &op.weight, &op.input, lowering.target())?;
    let name = name(&plan, lowering.target());
    let (input, read) = prepared(&op.input, plan.layout(), lowering)?;
    let mut accesses = op.accesses();
    accesses.read(read);
    let bias = op.bias.as_ref().map(View::of).transpose()?;
    let product = Product {
        plan,
        weight: weight_view(&op.weight)?,
        input,
        bias,
        output: View::of(&op.output)?,
    };
    lowering.phase(&accesses, product);
    Ok(name)
}

struct Prepare {
    layout: InputLayout,
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
        // SAFETY: the list's hazards keep others away from what is read and from the items' parts.
        unsafe {
            let source = Source::of(self.input.all());
            self.layout.prepare(items, source, self.prepared.parts());
        }
    }
}

/// Computes a product.
pub(super) struct Product {
    pub(super) plan: ProductPlan,
    pub(super) weight: View<u8>,
    pub(super) input: View<u8>,
    pub(super) bias: Option<View<f32>>,
    pub(super) output: View<f32>,
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
        // SAFETY: the list's hazards keep others away from what is read and from the items' part of the output.
        unsafe {
            let operands = Operands {
                weight: self.weight.all(),
                input: self.input.all(),
                bias: self.bias.as_ref().map(|bias| bias.all()),
                output: self.output.parts(),
            };
            self.plan.run(items, operands, scratch.bytes());
        }
    }
}
