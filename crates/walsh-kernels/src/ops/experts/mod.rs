//! Mixtures of experts.

mod tiles;

use walsh_core::ops::{ExpertMatMul, ExpertRoute, ExpertSum, Scoring};
use walsh_core::{Result, Span, Tensor};

use super::blocks::{self, Form, form, matrix_form, type_constant};
use super::embedding::check_ids;
use super::matmul::{
    MatMulArgs, MatMulFloatsArgs, SIMDS, THREADS, planes, quantised, row_alignment, split,
};
use crate::args::args;
use crate::check::CheckKind;
use crate::kernel::{Kernel, Variant, no_tables, reads, writes};
use crate::lower::{Lowering, layout};

args! {
    /// Arguments of `expert_route`.
    ExpertRouteArgs {
        /// Experts to choose from.
        experts: u32,
        /// How many are chosen.
        used: u32,
        /// What weights are multiplied by.
        scale: f32,
        /// The number of the check of logits.
        check: u32,
    }

    /// Arguments of `expert_sum`.
    ExpertSumArgs {
        /// Numbers of the output.
        count: u32,
        /// Numbers of a row.
        width: u32,
        /// Slots of a token.
        slots: u32,
    }

}

static ROUTE: Kernel = Kernel {
    name: "expert_route",
    includes: &[include_str!("../../../kernels/best.h")],
    tables: no_tables,
    text: include_str!("../../../kernels/experts_route.h"),
    native: &[],
    constants: &["THREADS", "SCORING", "BIASED", "MOST_EXPERTS"],
    args: layout::<ExpertRouteArgs>(),
    buffers: &[
        reads("logits", "float"),
        reads("bias", "float"),
        writes("ids", "int"),
        writes("weights", "float"),
        writes("status", "uint"),
    ],
    shared: true,
};

static SUM: Kernel = Kernel {
    name: "expert_sum",
    includes: &[],
    tables: no_tables,
    text: include_str!("../../../kernels/experts_sum.h"),
    native: &[],
    constants: &["THREADS", "ONTO"],
    args: layout::<ExpertSumArgs>(),
    buffers: &[
        reads("input", "float"),
        reads("weights", "float"),
        reads("onto", "float"),
        writes("output", "float"),
    ],
    shared: false,
};

static BLOCKS: Kernel = Kernel {
    name: "expert_blocks",
    includes: &[
        include_str!("../../../kernels/blocks.h"),
        include_str!("../../../kernels/unit.h"),
        include_str!("../../../kernels/stage.h"),
        include_str!("../../../kernels/activations.h"),
        include_str!("../../../kernels/dot.h"),
        include_str!("../../../kernels/matmul_blocks.h"),
    ],
    tables: blocks::tables,
    text: include_str!("../../../kernels/experts_blocks.h"),
    native: &[],
    constants: &["THREADS", "TYPE", "ALIGN", "PANEL", "ROWS", "PLANES"],
    args: layout::<MatMulArgs>(),
    buffers: &[
        reads("weight", "uchar"),
        reads("input", "uint"),
        reads("bias", "float"),
        reads("ids", "int"),
        reads("verdict", "uint"),
        writes("output", "float"),
    ],
    shared: true,
};

static FLOATS: Kernel = Kernel {
    name: "expert_floats",
    includes: &[include_str!("../../../kernels/matmul_floats.h")],
    tables: blocks::tables,
    text: include_str!("../../../kernels/experts_floats.h"),
    native: &[],
    constants: &["THREADS", "TYPE", "WIDE", "ROWS"],
    args: layout::<MatMulFloatsArgs>(),
    buffers: &[
        reads("weight", "uchar"),
        reads("input", "float"),
        reads("bias", "float"),
        reads("ids", "int"),
        reads("verdict", "uint"),
        writes("output", "float"),
    ],
    shared: true,
};

pub(crate) const KERNELS: &[&Kernel] = &[&ROUTE, &SUM, &BLOCKS, &FLOATS];

pub(crate) use tiles::KERNELS as TILE_KERNELS;

pub(crate) fn route(op: &ExpertRoute, lowering: &mut Lowering<'_>) -> Result<()> {
    lowering.countable(&[&op.logits])?;
    let check = lowering.check(CheckKind::Logits)?;
    let scoring = match op.scoring {
        Scoring::Softmax => 0,
        Scoring::SoftmaxOfChosen => 1,
        Scoring::Sigmoid { normalised } => 2 + i64::from(normalised),
    };
    let variant = Variant::new(
        &ROUTE,
        &[
            ("THREADS", 32),
            ("SCORING", scoring),
            ("BIASED", i64::from(op.bias.is_some())),
            ("MOST_EXPERTS", ExpertRoute::MOST_EXPERTS as i64),
        ],
    );
    let args = ExpertRouteArgs {
        experts: op.logits.row_len() as u32,
        used: op.ids.row_len() as u32,
        scale: op.scale,
        check,
    };
    let spans = vec![
        op.logits.span(),
        lowering.span(op.bias.as_ref()),
        op.ids.span(),
        op.weights.span(),
        lowering.status(),
    ];
    lowering.dispatch(variant, [op.logits.shape()[0], 1, 1], &args, spans)
}

pub(crate) fn sum(op: &ExpertSum, lowering: &mut Lowering<'_>) -> Result<()> {
    lowering.countable(&[&op.weights, &op.output])?;
    let onto = i64::from(op.onto.is_some());
    let variant = Variant::new(&SUM, &[("THREADS", THREADS), ("ONTO", onto)]);
    let count = op.output.elements();
    let args = ExpertSumArgs {
        count: count as u32,
        width: op.output.row_len() as u32,
        slots: op.weights.row_len() as u32,
    };
    let spans = vec![
        op.input.span(),
        op.weights.span(),
        lowering.span(op.onto.as_ref()),
        op.output.span(),
    ];
    lowering.dispatch(
        variant,
        [count.div_ceil(THREADS as u64), 1, 1],
        &args,
        spans,
    )
}

/// The products of an op, as kernels count them.
struct Sizes {
    experts: u64,
    n: u64,
    k: u64,
    row_bytes: u64,
    slots: u64,
    /// Slots that share a row of the input.
    each: u64,
}

pub(crate) fn products(op: &ExpertMatMul, lowering: &mut Lowering<'_>) -> Result<()> {
    lowering.countable(&[&op.ids, &op.input, &op.output])?;
    let [experts, n, k] = op.weight_sizes();
    let sizes = Sizes {
        experts,
        n,
        k,
        row_bytes: op.weight.bytes() / (experts * n),
        slots: op.ids.elements(),
        each: op.slots_to_a_row(),
    };
    // Kernels count the rows of all weights, and the groups of all slots, in 32 bits.
    if experts * n > i32::MAX as u64 {
        return Err(lowering.unsupported("the experts have 2^31 rows or more"));
    }
    checked(&op.ids, experts, lowering)?;
    let tile = tiles::rows(op, &sizes, lowering);
    if let Some((form, tile)) = matrix_form(op.weight.dtype()).zip(tile) {
        return tiles::lower(op, &sizes, (&form, tile), lowering);
    }
    match form(op.weight.dtype()) {
        Some(form) => with_blocks(op, &sizes, &form, lowering),
        None => with_floats(op, &sizes, lowering),
    }
}

/// Ids that a check has looked at.
#[derive(PartialEq)]
struct Checked {
    experts: u64,
}

/// Checks ids, once for all products that take them.
fn checked(ids: &Tensor, experts: u64, lowering: &mut Lowering<'_>) -> Result<()> {
    let sources = vec![ids.span()];
    if lowering.known(&Checked { experts }, &sources).is_some() {
        return Ok(());
    }
    let kind = CheckKind::Experts {
        ids: ids.span(),
        experts,
    };
    check_ids(ids, experts, kind, lowering)?;
    // What is derived has memory, though nothing is written to this.
    let token = lowering.workspace(4)?;
    lowering.keep(Checked { experts }, sources, token);
    Ok(())
}

/// The buffers of a product whose input is in some form, up to the ids.
fn spans(op: &ExpertMatMul, input: Span, last: [Span; 2], lowering: &Lowering<'_>) -> Vec<Span> {
    let mut spans = vec![op.weight.span(), input, lowering.span(op.bias.as_ref())];
    spans.extend(last);
    spans
}

/// The input as rows.
fn rows(op: &ExpertMatMul, k: u64) -> Result<Tensor> {
    op.input.reshape(&[op.input.row_count(), k])
}

fn with_blocks(
    op: &ExpertMatMul,
    sizes: &Sizes,
    form: &Form,
    lowering: &mut Lowering<'_>,
) -> Result<()> {
    let input = quantised(&rows(op, sizes.k)?, form.runs, lowering)?;
    let dtype = op.weight.dtype();
    let blocks = sizes.k / dtype.block_len() as u64;
    let stages = blocks.div_ceil(form.stage as u64);
    let wanted = u64::from(lowering.limits().multiprocessors) * 16;
    let panel = if sizes.n * sizes.slots >= wanted {
        2
    } else {
        1
    };
    let panels = sizes.n.div_ceil(panel);
    let split = split(stages, panels * sizes.slots, wanted * 2);
    let variant = Variant::new(
        &BLOCKS,
        &[
            ("THREADS", THREADS),
            ("TYPE", type_constant(dtype)),
            ("ALIGN", row_alignment(&op.weight, sizes.row_bytes)),
            ("PANEL", panel as i64),
            ("ROWS", 1),
            ("PLANES", planes(lowering) as i64),
        ],
    );
    let args = MatMulArgs {
        row_bytes: sizes.row_bytes,
        rows: 1,
        n: sizes.n as u32,
        blocks: blocks as u32,
        split: split as u32,
        biased: u32::from(op.bias.is_some()),
        slots: sizes.each as u32,
    };
    let groups = [sizes.n.div_ceil(SIMDS / split * panel) * sizes.slots, 1, 1];
    let last = [op.ids.span(), lowering.verdict()];
    let mut spans = spans(op, input.span(), last, lowering);
    spans.push(op.output.span());
    lowering.dispatch(variant, groups, &args, spans)
}

fn with_floats(op: &ExpertMatMul, sizes: &Sizes, lowering: &mut Lowering<'_>) -> Result<()> {
    let wide = row_alignment(&op.weight, sizes.row_bytes) == 16
        && row_alignment(&op.input, 4 * sizes.k) == 16
        && sizes.k.is_multiple_of(8);
    let wanted = u64::from(lowering.limits().multiprocessors) * 32;
    let split = split(sizes.k.div_ceil(1024), sizes.n * sizes.slots, wanted);
    let variant = Variant::new(
        &FLOATS,
        &[
            ("THREADS", THREADS),
            ("TYPE", type_constant(op.weight.dtype())),
            ("WIDE", i64::from(wide)),
            ("ROWS", 1),
        ],
    );
    let args = MatMulFloatsArgs {
        row_bytes: sizes.row_bytes,
        rows: 1,
        n: sizes.n as u32,
        k: sizes.k as u32,
        split: split as u32,
        biased: u32::from(op.bias.is_some()),
        slots: sizes.each as u32,
    };
    let groups = [sizes.n.div_ceil(SIMDS / split) * sizes.slots, 1, 1];
    let last = [op.ids.span(), lowering.verdict()];
    let mut spans = spans(op, op.input.span(), last, lowering);
    spans.push(op.output.span());
    lowering.dispatch(variant, groups, &args, spans)
}
