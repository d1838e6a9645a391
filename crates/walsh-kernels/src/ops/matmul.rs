//! Matrix products.

use walsh_core::ops::MatMul;
use walsh_core::{Activations, Buffer, Result, Span, Tensor};

use super::blocks::{self, Form, block, form, matrix_form, type_constant};
use super::products::Products;
use crate::args::args;
use crate::kernel::{Kernel, Native, Platform, Variant, reads, writes};
use crate::lower::{Limits, Lowering, layout};

/// Threads of a group.
pub(super) const THREADS: i64 = 128;

/// Simdgroups of a group.
pub(super) const SIMDS: u64 = THREADS as u64 / 32;

/// The most groups that share a tile.
const MOST_PARTS: u64 = 8;

/// The 32-bit words that 32 activations take in 8 bits.
const ACTIVATION_WORDS: u64 = 12;

/// Rows of activations are filled up to whole columns of tasks, one for each lane.
const COLUMN: u64 = 32;

/// The most rows of input of a product that is not computed in tiles.
pub(super) const FEW_ROWS: u64 = 32;

/// The rows of the weight of a tile.
pub(super) const TILE_N: u64 = 64;

/// The rows of the input of a tile, and the threadgroup memory that a device must have for it; the best first.
const TILES_M: [(u32, u32); 2] = [(128, 48 << 10), (64, 32 << 10)];

/// The form of a product's input that its kernel reads.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum InputForm {
    /// In 8 bits.
    Quantised {
        /// Blocks of 32 numbers in a row, which is filled up to whole columns: tensors of the same memory may have rows
        /// of other lengths.
        blocks: u64,
        /// Runs of 32 numbers that lie together for each task of the weights.
        runs: usize,
        /// How often what rounding left is rounded again.
        planes: u64,
    },
    /// As bfloat16, number by number, however long the rows are.
    Narrow,
}

args! {
    /// Arguments of `quantise`.
    QuantiseArgs {
        /// Rows of the input.
        rows: u32,
        /// Blocks of 32 in a row.
        blocks: u32,
    }

    /// Arguments of `matmul_blocks`.
    MatMulArgs {
        /// The bytes of a row of the weight.
        row_bytes: u64,
        /// Rows of the input.
        rows: u32,
        /// Rows of the weight.
        n: u32,
        /// Blocks in a row of the weight.
        blocks: u32,
        /// Simdgroups that share a panel.
        split: u32,
        /// Whether there is a bias.
        biased: u32,
        /// Slots that share a row of the input, in products with experts.
        slots: u32,
    }

    /// Arguments of `narrow_rows`.
    NarrowArgs {
        /// Half the count of numbers.
        pairs: u32,
    }

    /// Arguments of `matmul_tiles`.
    TilesArgs {
        /// The bytes of a row of the weight.
        row_bytes: u64,
        /// Rows of the input.
        rows: u32,
        /// Rows of the weight.
        n: u32,
        /// Blocks in a row of the weight.
        blocks: u32,
        /// Blocks of each group that shares a tile, in whole steps.
        share: u32,
        /// Whether there is a bias.
        biased: u32,
        /// Fills the struct up to a multiple of eight bytes.
        unused: u32,
    }

    /// Arguments of `sum_parts`.
    SumPartsArgs {
        /// Numbers of the output.
        count: u32,
        /// Numbers of the bias.
        n: u32,
        /// How many matrices are added up.
        parts: u32,
        /// Whether there is a bias.
        biased: u32,
    }

    /// Arguments of `matmul_floats`.
    MatMulFloatsArgs {
        /// The bytes of a row of the weight.
        row_bytes: u64,
        /// Rows of the input.
        rows: u32,
        /// Rows of the weight.
        n: u32,
        /// Numbers in a row.
        k: u32,
        /// Simdgroups that share a row of the weight.
        split: u32,
        /// Whether there is a bias.
        biased: u32,
        /// Slots that share a row of the input, in products with experts.
        slots: u32,
    }
}

static QUANTISE: Kernel = Kernel {
    name: "quantise",
    includes: &[include_str!("../../kernels/activations.h")],
    tables: crate::kernel::no_tables,
    text: include_str!("../../kernels/quantise.h"),
    native: &[],
    constants: &["THREADS", "RUNS", "PLANES"],
    args: layout::<QuantiseArgs>(),
    buffers: &[reads("input", "float"), writes("output", "uint")],
    shared: false,
};

static MATMUL_BLOCKS: Kernel = Kernel {
    name: "matmul_blocks",
    includes: &[
        include_str!("../../kernels/blocks.h"),
        include_str!("../../kernels/unit.h"),
        include_str!("../../kernels/stage.h"),
        include_str!("../../kernels/activations.h"),
        include_str!("../../kernels/dot.h"),
    ],
    tables: blocks::tables,
    text: include_str!("../../kernels/matmul_blocks.h"),
    native: &[],
    constants: &["THREADS", "TYPE", "ALIGN", "PANEL", "ROWS", "PLANES"],
    args: layout::<MatMulArgs>(),
    buffers: &[
        reads("weight", "uchar"),
        reads("input", "uint"),
        reads("bias", "float"),
        writes("output", "float"),
    ],
    shared: true,
};

static NARROW_ROWS: Kernel = Kernel {
    name: "narrow_rows",
    includes: &[include_str!("../../kernels/bfloat.h")],
    tables: crate::kernel::no_tables,
    text: include_str!("../../kernels/narrow_rows.h"),
    native: &[],
    constants: &["THREADS"],
    args: layout::<NarrowArgs>(),
    buffers: &[reads("input", "float"), writes("output", "uint")],
    shared: false,
};

static MATMUL_TILES: Kernel = Kernel {
    name: "matmul_tiles",
    includes: &[
        include_str!("../../kernels/blocks.h"),
        include_str!("../../kernels/unit.h"),
        include_str!("../../kernels/bfloat.h"),
        include_str!("../../kernels/tiles.h"),
    ],
    tables: blocks::matrix_tables,
    text: include_str!("../../kernels/matmul_tiles.h"),
    native: &[Native {
        platform: Platform::Cuda,
        text: include_str!("../../kernels/cuda/matmul_tiles.cu"),
    }],
    constants: &["THREADS", "TYPE", "ALIGN", "TILE_M"],
    args: layout::<TilesArgs>(),
    buffers: &[
        reads("weight", "uchar"),
        reads("input", "uint"),
        reads("bias", "float"),
        writes("output", "float"),
    ],
    shared: true,
};

static SUM_PARTS: Kernel = Kernel {
    name: "sum_parts",
    includes: &[],
    tables: crate::kernel::no_tables,
    text: include_str!("../../kernels/sum_parts.h"),
    native: &[],
    constants: &["THREADS"],
    args: layout::<SumPartsArgs>(),
    buffers: &[
        reads("parts", "float"),
        reads("bias", "float"),
        writes("output", "float"),
    ],
    shared: false,
};

static MATMUL_FLOATS: Kernel = Kernel {
    name: "matmul_floats",
    includes: &[],
    tables: blocks::tables,
    text: include_str!("../../kernels/matmul_floats.h"),
    native: &[],
    constants: &["THREADS", "TYPE", "WIDE", "ROWS"],
    args: layout::<MatMulFloatsArgs>(),
    buffers: &[
        reads("weight", "uchar"),
        reads("input", "float"),
        reads("bias", "float"),
        writes("output", "float"),
    ],
    shared: true,
};

pub(crate) const KERNELS: &[&Kernel] = &[
    &QUANTISE,
    &NARROW_ROWS,
    &MATMUL_BLOCKS,
    &MATMUL_TILES,
    &SUM_PARTS,
    &MATMUL_FLOATS,
];

pub(crate) fn lower(op: &MatMul, lowering: &mut Lowering<'_>) -> Result<()> {
    lowering.countable(&[&op.input, &op.output])?;
    if let Some((form, tile)) = matrix_form(op.weight.dtype()).zip(tile_rows(op, lowering)) {
        return with_tiles(op, (&form, tile), lowering);
    }
    match form(op.weight.dtype()) {
        Some(form) => with_blocks(op, &form, lowering),
        None => with_floats(op, lowering),
    }
}

/// A product's sizes as kernels count them.
struct Sizes {
    rows: u32,
    n: u32,
    k: u32,
    row_bytes: u64,
}

fn sizes(op: &MatMul) -> Sizes {
    let [n, k] = [op.weight.shape()[0], op.weight.shape()[1]];
    Sizes {
        rows: op.input.shape()[0] as u32,
        n: n as u32,
        k: k as u32,
        row_bytes: op.weight.bytes() / n,
    }
}

/// The rows of a tile, where there are rows enough, and threadgroup memory, to decode a weight once for many of them. A
/// device that does not multiply matrices of bfloat16 takes many rows as it takes few.
fn tile_rows(op: &MatMul, lowering: &Lowering<'_>) -> Option<u32> {
    let Limits {
        threadgroup_bytes: memory,
        bfloat_matrices: true,
        ..
    } = lowering.limits()
    else {
        return None;
    };
    let (rows, _) = TILES_M.iter().find(|(_, bytes)| memory >= *bytes)?;
    let whole = op
        .weight
        .row_len()
        .is_multiple_of(block(op.weight.dtype()).0 as u64);
    let many = op.input.shape()[0] > FEW_ROWS && !Products::join(op, &lowering.limits());
    // Tiles round their input and the weights.
    (whole && many && planes(lowering) == 1).then_some(*rows)
}

/// How often an input is rounded to 8 bits: once, or, for the precision of single floats, what that leaves twice more.
pub(super) fn planes(lowering: &Lowering<'_>) -> u64 {
    match lowering.limits().activations {
        Activations::Int8 => 1,
        Activations::F32 => 3,
    }
}

/// The widest loads that a tensor's rows allow, of those that kernels know.
pub(super) fn row_alignment(tensor: &Tensor, row_bytes: u64) -> i64 {
    match 1 << (tensor.offset() | row_bytes).trailing_zeros().min(4) {
        16 => 16,
        4 | 8 => 4,
        narrow => narrow,
    }
}

/// How many rows of input the kernel for `rows` takes at a time.
fn row_bucket(rows: u32) -> i64 {
    match rows {
        1 => 1,
        2..=4 => 4,
        _ => 8,
    }
}

/// How many simdgroups share a row that is read in `stages`: as many as it takes to have `wanted` of them.
pub(super) fn split(stages: u64, panels: u64, wanted: u64) -> u64 {
    let mut split = 1;
    while split < SIMDS && split * 2 <= stages && panels * split < wanted {
        split *= 2;
    }
    split
}

fn with_blocks(op: &MatMul, form: &Form, lowering: &mut Lowering<'_>) -> Result<()> {
    let Sizes {
        rows,
        n,
        k,
        row_bytes,
    } = sizes(op);
    let input = quantised(&op.input, form.runs, lowering)?;
    let blocks = u64::from(k) / op.weight.dtype().block_len() as u64;
    let stages = blocks.div_ceil(form.stage as u64);
    // Two rows of the weight share what is read of the input, once there are enough of them for the whole device.
    let wanted = u64::from(lowering.limits().multiprocessors) * 16;
    let panel = if u64::from(n) >= wanted { 2 } else { 1 };
    let panels = u64::from(n).div_ceil(panel);
    let split = split(stages, panels, wanted * 2);
    let bucket = row_bucket(rows);
    let variant = Variant::new(
        &MATMUL_BLOCKS,
        &[
            ("THREADS", THREADS),
            ("TYPE", type_constant(op.weight.dtype())),
            ("ALIGN", row_alignment(&op.weight, row_bytes)),
            ("PANEL", panel as i64),
            ("ROWS", bucket),
            ("PLANES", planes(lowering) as i64),
        ],
    );
    let args = MatMulArgs {
        row_bytes,
        rows,
        n,
        blocks: blocks as u32,
        split: split as u32,
        biased: u32::from(op.bias.is_some()),
        slots: 1,
    };
    let groups = [
        panels.div_ceil(SIMDS / split),
        u64::from(rows).div_ceil(bucket as u64),
        1,
    ];
    let spans = spans(op, input.span(), lowering);
    lowering.dispatch(variant, groups, &args, spans)?;
    lowering.computes(op.clone());
    Ok(())
}

fn spans(op: &MatMul, input: Span, lowering: &Lowering<'_>) -> Vec<Span> {
    let bias = lowering.span(op.bias.as_ref());
    vec![op.weight.span(), input, bias, op.output.span()]
}

/// The input in the form that a kernel reads, computed once for all products of that kernel.
fn derive(
    input: &Tensor,
    what: InputForm,
    lowering: &mut Lowering<'_>,
    compute: impl FnOnce(&mut Lowering<'_>) -> Result<Buffer>,
) -> Result<Buffer> {
    let sources = vec![input.span()];
    if let Some(buffer) = lowering.known(&what, &sources) {
        return Ok(buffer);
    }
    let buffer = compute(lowering)?;
    lowering.keep(what, sources, buffer.clone());
    Ok(buffer)
}

/// The input in 8 bits, for weights whose tasks are of so many runs.
pub(super) fn quantised(
    input: &Tensor,
    runs: usize,
    lowering: &mut Lowering<'_>,
) -> Result<Buffer> {
    let planes = planes(lowering);
    let [rows, blocks] = [input.shape()[0], input.row_len() / 32];
    let what = InputForm::Quantised {
        blocks,
        runs,
        planes,
    };
    derive(input, what, lowering, |lowering| {
        let tasks = (blocks / runs as u64).next_multiple_of(COLUMN);
        let words = rows * planes * tasks * runs as u64 * ACTIVATION_WORDS;
        if words > i32::MAX as u64 {
            return Err(lowering.unsupported(format_args!(
                "the 8-bit form of {input} takes 2^31 words or more"
            )));
        }
        let buffer = lowering.workspace(4 * words)?;
        let variant = Variant::new(
            &QUANTISE,
            &[
                ("THREADS", THREADS),
                ("RUNS", runs as i64),
                ("PLANES", planes as i64),
            ],
        );
        let args = QuantiseArgs {
            rows: rows as u32,
            blocks: blocks as u32,
        };
        let groups = [(rows * blocks).div_ceil(THREADS as u64 / 8), 1, 1];
        let spans = vec![input.span(), buffer.span()];
        lowering.dispatch(variant, groups, &args, spans)?;
        lowering.derives();
        Ok(buffer)
    })
}

/// The input as bfloat16.
fn narrow(input: &Tensor, lowering: &mut Lowering<'_>) -> Result<Buffer> {
    derive(input, InputForm::Narrow, lowering, |lowering| {
        let pairs = input.elements() / 2;
        let buffer = lowering.workspace(4 * pairs)?;
        let variant = Variant::new(&NARROW_ROWS, &[("THREADS", THREADS)]);
        let args = NarrowArgs {
            pairs: pairs as u32,
        };
        let groups = [pairs.div_ceil(THREADS as u64), 1, 1];
        let spans = vec![input.span(), buffer.span()];
        lowering.dispatch(variant, groups, &args, spans)?;
        Ok(buffer)
    })
}

fn with_tiles(op: &MatMul, (form, tile): (&Form, u32), lowering: &mut Lowering<'_>) -> Result<()> {
    let Sizes {
        rows, n, row_bytes, ..
    } = sizes(op);
    let input = narrow(&op.input, lowering)?;
    let dtype = op.weight.dtype();
    let variant = Variant::new(
        &MATMUL_TILES,
        &[
            ("THREADS", THREADS),
            ("TYPE", type_constant(dtype)),
            ("ALIGN", row_alignment(&op.weight, row_bytes)),
            ("TILE_M", i64::from(tile)),
        ],
    );
    let blocks = op.weight.row_len() / block(dtype).0 as u64;
    let steps = blocks.div_ceil(form.step);
    let tiles = [
        u64::from(n).div_ceil(TILE_N),
        u64::from(rows).div_ceil(u64::from(tile)),
    ];
    // Tiles that leave multiprocessors idle are shared by groups, each with some steps, which are added up behind them.
    let wanted = u64::from(lowering.limits().multiprocessors) * 2;
    let share = steps.div_ceil((wanted / (tiles[0] * tiles[1])).clamp(1, MOST_PARTS));
    let parts = steps.div_ceil(share);
    let args = TilesArgs {
        row_bytes,
        rows,
        n,
        blocks: blocks as u32,
        share: (share * form.step) as u32,
        biased: u32::from(op.bias.is_some() && parts == 1),
        unused: 0,
    };
    let groups = [tiles[0], tiles[1], parts];
    let mut spans = spans(op, input.span(), lowering);
    if parts == 1 {
        return lowering.dispatch(variant, groups, &args, spans);
    }
    let sums = lowering.workspace(parts * op.output.bytes())?;
    let [bias, output] = [spans[2].clone(), spans[3].clone()];
    spans[2] = lowering.nothing();
    spans[3] = sums.span();
    lowering.dispatch(variant, groups, &args, spans)?;
    let variant = Variant::new(&SUM_PARTS, &[("THREADS", THREADS)]);
    let args = SumPartsArgs {
        count: op.output.elements() as u32,
        n,
        parts: parts as u32,
        biased: u32::from(op.bias.is_some()),
    };
    let groups = [op.output.elements().div_ceil(THREADS as u64), 1, 1];
    let spans = vec![sums.span(), bias, output];
    lowering.dispatch(variant, groups, &args, spans)?;
    lowering.release(sums);
    Ok(())
}

fn with_floats(op: &MatMul, lowering: &mut Lowering<'_>) -> Result<()> {
    let Sizes {
        rows,
        n,
        k,
        row_bytes,
    } = sizes(op);
    let wide = row_alignment(&op.weight, row_bytes) == 16
        && row_alignment(&op.input, 4 * u64::from(k)) == 16
        && k.is_multiple_of(8);
    let bucket = row_bucket(rows);
    let wanted = u64::from(lowering.limits().multiprocessors) * 32;
    let split = split(u64::from(k).div_ceil(1024), u64::from(n), wanted);
    let variant = Variant::new(
        &MATMUL_FLOATS,
        &[
            ("THREADS", THREADS),
            ("TYPE", type_constant(op.weight.dtype())),
            ("WIDE", i64::from(wide)),
            ("ROWS", bucket),
        ],
    );
    let args = MatMulFloatsArgs {
        row_bytes,
        rows,
        n,
        k,
        split: split as u32,
        biased: u32::from(op.bias.is_some()),
        slots: 1,
    };
    let groups = [
        u64::from(n).div_ceil(SIMDS / split),
        u64::from(rows).div_ceil(bucket as u64),
        1,
    ];
    let spans = spans(op, op.input.span(), lowering);
    lowering.dispatch(variant, groups, &args, spans)?;
    lowering.computes(op.clone());
    Ok(())
}
