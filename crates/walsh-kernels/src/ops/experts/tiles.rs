//! Products of many tokens with experts: slots are put in the order of their experts, in tiles of rows that are one
//! expert's, and go through the tiled product of dense weights.

use walsh_core::ops::ExpertMatMul;
use walsh_core::{Buffer, Result, Span};

use super::super::blocks::{self, Form, block, type_constant};
use super::super::matmul::{FEW_ROWS, THREADS, TILE_N, TilesArgs, planes, row_alignment};
use super::{Sizes, spans};
use crate::args::args;
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

static ORDER: Kernel = Kernel {
    name: "expert_order",
    includes: &[],
    tables: no_tables,
    text: include_str!("../../../kernels/experts_order.h"),
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
    includes: &[include_str!("../../../kernels/bfloat.h")],
    tables: no_tables,
    text: include_str!("../../../kernels/experts_gather.h"),
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
        include_str!("../../../kernels/blocks.h"),
        include_str!("../../../kernels/unit.h"),
        include_str!("../../../kernels/bfloat.h"),
        include_str!("../../../kernels/tiles.h"),
        include_str!("../../../kernels/experts_tiles.h"),
    ],
    tables: blocks::matrix_tables,
    text: include_str!("../../../kernels/matmul_tiles.h"),
    native: &[Native {
        platform: Platform::Cuda,
        text: include_str!("../../../kernels/cuda/matmul_tiles.cu"),
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
    text: include_str!("../../../kernels/experts_scatter.h"),
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

pub(crate) const KERNELS: &[&Kernel] = &[&ORDER, &GATHER, &TILES, &SCATTER];

/// The rows of a tile, where experts have slots enough to decode their weights once for many of them.
pub(super) fn rows(op: &ExpertMatMul, sizes: &Sizes, lowering: &Lowering<'_>) -> Option<u32> {
    let Limits {
        threadgroup_bytes: TILES_BYTES..,
        bfloat_matrices: true,
        ..
    } = lowering.limits()
    else {
        return None;
    };
    let many = op.ids.shape()[0] > FEW_ROWS
        && sizes.k.is_multiple_of(block(op.weight.dtype()).0 as u64)
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

pub(super) fn lower(
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
    let blocks = sizes.k / block(dtype).0 as u64;
    let args = TilesArgs {
        row_bytes: sizes.row_bytes,
        rows: rows as u32,
        n: sizes.n as u32,
        blocks: blocks as u32,
        share: blocks.next_multiple_of(form.step) as u32,
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
