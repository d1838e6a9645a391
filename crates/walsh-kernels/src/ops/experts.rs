//! Mixtures of experts.

use walsh_core::ops::{ExpertMatMul, ExpertRoute, ExpertSum, Scoring};
use walsh_core::{Buffer, Result, Span, Tensor};

use super::blocks::{self, Form, form, type_constant};
use super::embedding::check_ids;
use super::matmul::{
    MatMulArgs, MatMulFloatsArgs, SIMDS, THREADS, TILE_N, TILED_ROWS, TilesArgs, planes, quantised,
    row_alignment, split,
};
use crate::args::args;
use crate::check::CheckKind;
use crate::kernel::{Kernel, Native, Platform, Variant, no_tables, reads, writes};
use crate::lower::{Limits, Lowering, layout};

/// Threads of the group that puts slots in order.
const ORDER_THREADS: i64 = 512;

/// The most experts whose slots are put in order.
const MOST_ORDERED: u64 = 1024;

/// The slots of an expert, on average, from which its weight is worth decoding for all of them together.
const TILED_SLOTS: u64 = 4;

/// The threadgroup memory of tiles of up to 64 rows.
const TILES_BYTES: u32 = 32 << 10;

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

    /// Arguments of `expert_order`.
    ExpertOrderArgs {
        /// Slots of all tokens.
        slots: u32,
        /// Experts.
        experts: u32,
        /// The most tiles.
        tiles: u32,
    }

    /// Arguments of `expert_gather`.
    ExpertGatherArgs {
        /// Pairs of numbers in a row.
        pairs: u32,
        /// Groups that share a row.
        pieces: u32,
        /// Slots that share a row of the input.
        slots: u32,
    }

    /// Arguments of `expert_scatter`.
    ExpertScatterArgs {
        /// Numbers of a row.
        n: u32,
        /// Groups that share a row.
        pieces: u32,
    }
}

static ROUTE: Kernel = Kernel {
    name: "expert_route",
    includes: &[include_str!("../../kernels/best.h")],
    tables: no_tables,
    text: include_str!("../../kernels/experts_route.h"),
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
    text: include_str!("../../kernels/experts_sum.h"),
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
        include_str!("../../kernels/blocks.h"),
        include_str!("../../kernels/unit.h"),
        include_str!("../../kernels/stage.h"),
        include_str!("../../kernels/activations.h"),
        include_str!("../../kernels/matmul_blocks.h"),
    ],
    tables: blocks::tables,
    text: include_str!("../../kernels/experts_blocks.h"),
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
    includes: &[include_str!("../../kernels/matmul_floats.h")],
    tables: blocks::tables,
    text: include_str!("../../kernels/experts_floats.h"),
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

static ORDER: Kernel = Kernel {
    name: "expert_order",
    includes: &[],
    tables: no_tables,
    text: include_str!("../../kernels/experts_order.h"),
    native: &[],
    constants: &["THREADS", "TILE_M", "MOST_EXPERTS"],
    args: layout::<ExpertOrderArgs>(),
    buffers: &[
        reads("ids", "int"),
        writes("tiles", "uint"),
        writes("order", "uint"),
        reads("verdict", "uint"),
    ],
    shared: true,
};

static GATHER: Kernel = Kernel {
    name: "expert_gather",
    includes: &[include_str!("../../kernels/bfloat.h")],
    tables: no_tables,
    text: include_str!("../../kernels/experts_gather.h"),
    native: &[],
    constants: &["THREADS"],
    args: layout::<ExpertGatherArgs>(),
    buffers: &[
        reads("input", "float"),
        reads("order", "uint"),
        writes("output", "uint"),
    ],
    shared: false,
};

static TILES: Kernel = Kernel {
    name: "expert_tiles",
    includes: &[
        include_str!("../../kernels/blocks.h"),
        include_str!("../../kernels/unit.h"),
        include_str!("../../kernels/bfloat.h"),
        include_str!("../../kernels/tiles.h"),
    ],
    tables: blocks::tables,
    text: concat!(
        include_str!("../../kernels/matmul_tiles.h"),
        include_str!("../../kernels/experts_tiles.h")
    ),
    native: &[Native {
        platform: Platform::Cuda,
        text: concat!(
            include_str!("../../kernels/cuda/matmul_tiles.cu"),
            include_str!("../../kernels/experts_tiles.h")
        ),
    }],
    constants: &["THREADS", "TYPE", "ALIGN", "TILE_M"],
    args: layout::<TilesArgs>(),
    buffers: &[
        reads("weight", "uchar"),
        reads("input", "uint"),
        reads("bias", "float"),
        reads("tiles", "uint"),
        writes("output", "float"),
    ],
    shared: true,
};

static SCATTER: Kernel = Kernel {
    name: "expert_scatter",
    includes: &[],
    tables: no_tables,
    text: include_str!("../../kernels/experts_scatter.h"),
    native: &[],
    constants: &["THREADS"],
    args: layout::<ExpertScatterArgs>(),
    buffers: &[
        reads("results", "float"),
        reads("order", "uint"),
        writes("output", "float"),
    ],
    shared: false,
};

pub(crate) const KERNELS: &[&Kernel] = &[
    &ROUTE, &SUM, &BLOCKS, &FLOATS, &ORDER, &GATHER, &TILES, &SCATTER,
];

/// A tensor that an op may lack.
fn optional(tensor: Option<&Tensor>, lowering: &Lowering<'_>) -> Span {
    tensor.map_or_else(|| lowering.nothing(), Tensor::span)
}

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
        optional(op.bias.as_ref(), lowering),
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
        optional(op.onto.as_ref(), lowering),
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
    match form(op.weight.dtype()) {
        Some(form) => match tile_rows(op, &sizes, lowering) {
            Some(tile) => with_tiles(op, &sizes, (&form, tile), lowering),
            None => with_blocks(op, &sizes, &form, lowering),
        },
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

/// The rows of a tile, where experts have slots enough to decode their weights once for many of them.
fn tile_rows(op: &ExpertMatMul, sizes: &Sizes, lowering: &Lowering<'_>) -> Option<u32> {
    let Limits {
        threadgroup_bytes: TILES_BYTES..,
        bfloat_matrices: true,
        ..
    } = lowering.limits()
    else {
        return None;
    };
    let many = op.ids.shape()[0] >= u64::from(TILED_ROWS)
        && sizes.slots >= TILED_SLOTS * sizes.experts
        && sizes.experts <= MOST_ORDERED;
    let rows = if sizes.slots >= 48 * sizes.experts {
        64
    } else {
        32
    };
    // Tiles round their input and the weights.
    (many && planes(lowering) == 1).then_some(rows)
}

/// The buffers of a product whose input is in some form, up to the ids.
fn spans(op: &ExpertMatMul, input: Span, last: [Span; 2], lowering: &Lowering<'_>) -> Vec<Span> {
    let mut spans = vec![
        op.weight.span(),
        input,
        optional(op.bias.as_ref(), lowering),
    ];
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

/// Slots in the order of their experts, in tiles of so many rows.
#[derive(PartialEq)]
struct Ordered {
    experts: u64,
    tile: u32,
}

/// Rows of the input in that order, as bfloat16.
#[derive(PartialEq)]
struct Gathered {
    ordered: Ordered,
    k: u64,
    each: u64,
}

/// How many tiles there may be, and the buffer that says what they hold: the experts of tiles, and behind them the slots of
/// their rows.
struct Order {
    tiles: u64,
    buffer: Buffer,
}

impl Order {
    fn span(&self, first: u64, words: u64) -> Span {
        Span {
            buffer: self.buffer.clone(),
            offset: 4 * first,
            bytes: 4 * words,
        }
    }

    fn experts(&self) -> Span {
        self.span(0, self.tiles)
    }

    fn slots(&self, tile: u32) -> Span {
        self.span(self.tiles, self.tiles * u64::from(tile))
    }
}

fn order(
    op: &ExpertMatMul,
    sizes: &Sizes,
    tile: u32,
    lowering: &mut Lowering<'_>,
) -> Result<Order> {
    let experts = sizes.experts;
    let purpose = Ordered { experts, tile };
    let sources = vec![op.ids.span()];
    // Each expert with slots may have a tile that is not full.
    let tiles = sizes.slots / u64::from(tile) + experts.min(sizes.slots);
    if let Some(buffer) = lowering.known(&purpose, &sources) {
        return Ok(Order { tiles, buffer });
    }
    let buffer = lowering.workspace(4 * tiles * (1 + u64::from(tile)))?;
    let order = Order { tiles, buffer };
    let variant = Variant::new(
        &ORDER,
        &[
            ("THREADS", ORDER_THREADS),
            ("TILE_M", i64::from(tile)),
            ("MOST_EXPERTS", MOST_ORDERED as i64),
        ],
    );
    let args = ExpertOrderArgs {
        slots: sizes.slots as u32,
        experts: experts as u32,
        tiles: tiles as u32,
    };
    let spans = vec![
        op.ids.span(),
        order.experts(),
        order.slots(tile),
        lowering.verdict(),
    ];
    lowering.dispatch(variant, [1, 1, 1], &args, spans)?;
    lowering.keep(purpose, sources, order.buffer.clone());
    Ok(order)
}

fn gathered(
    op: &ExpertMatMul,
    sizes: &Sizes,
    (order, tile): (&Order, u32),
    lowering: &mut Lowering<'_>,
) -> Result<Buffer> {
    let purpose = Gathered {
        ordered: Ordered {
            experts: sizes.experts,
            tile,
        },
        k: sizes.k,
        each: sizes.each,
    };
    let sources = vec![op.input.span(), op.ids.span()];
    if let Some(buffer) = lowering.known(&purpose, &sources) {
        return Ok(buffer);
    }
    let (rows, pairs) = (order.tiles * u64::from(tile), sizes.k / 2);
    let buffer = lowering.workspace(4 * rows * pairs)?;
    let variant = Variant::new(&GATHER, &[("THREADS", THREADS)]);
    let pieces = pairs.div_ceil(THREADS as u64);
    let args = ExpertGatherArgs {
        pairs: pairs as u32,
        pieces: pieces as u32,
        slots: sizes.each as u32,
    };
    let spans = vec![op.input.span(), order.slots(tile), buffer.span()];
    lowering.dispatch(variant, [rows * pieces, 1, 1], &args, spans)?;
    lowering.keep(purpose, sources, buffer.clone());
    Ok(buffer)
}

fn with_tiles(
    op: &ExpertMatMul,
    sizes: &Sizes,
    (form, tile): (&Form, u32),
    lowering: &mut Lowering<'_>,
) -> Result<()> {
    let order = order(op, sizes, tile, lowering)?;
    let input = gathered(op, sizes, (&order, tile), lowering)?;
    let dtype = op.weight.dtype();
    let rows = order.tiles * u64::from(tile);
    if rows * sizes.n > i32::MAX as u64 {
        return Err(lowering.unsupported("the products have 2^31 elements or more"));
    }
    let results = lowering.workspace(4 * rows * sizes.n)?;
    let variant = Variant::new(
        &TILES,
        &[
            ("THREADS", THREADS),
            ("TYPE", type_constant(dtype)),
            ("ALIGN", row_alignment(&op.weight, sizes.row_bytes)),
            ("TILE_M", i64::from(tile)),
        ],
    );
    let blocks = sizes.k / dtype.block_len() as u64;
    let args = TilesArgs {
        row_bytes: sizes.row_bytes,
        rows: rows as u32,
        n: sizes.n as u32,
        blocks: blocks as u32,
        share: blocks.next_multiple_of(form.step()) as u32,
        biased: u32::from(op.bias.is_some()),
        unused: 0,
    };
    let groups = [sizes.n.div_ceil(TILE_N), order.tiles, 1];
    let last = [order.experts(), results.span()];
    let spans = spans(op, input.span(), last, lowering);
    lowering.dispatch(variant, groups, &args, spans)?;
    let variant = Variant::new(&SCATTER, &[("THREADS", THREADS)]);
    let pieces = sizes.n.div_ceil(THREADS as u64);
    let args = ExpertScatterArgs {
        n: sizes.n as u32,
        pieces: pieces as u32,
    };
    let spans = vec![results.span(), order.slots(tile), op.output.span()];
    lowering.dispatch(variant, [rows * pieces, 1, 1], &args, spans)?;
    lowering.release(results);
    Ok(())
}
