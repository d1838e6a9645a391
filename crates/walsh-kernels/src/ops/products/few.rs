//! Of two to sixty-four rows of input, by products of matrices of halves or of bfloat16.

use walsh_core::{Buffer, Result};
use walsh_formats::DType;

use super::super::blocks::type_constant;
use super::joined::{Parts, Products, RESERVED, ROWS_BUFFERS, Then, tables};
use super::{before, packed};
use crate::args::args;
use crate::kernel::{Kernel, Native, Platform, Variant};
use crate::lower::{Limits, Lowering, layout};

/// Threads of the group that makes the input's form.
const THREADS: u64 = 256;

/// Simdgroups of a group: the more, the less often the input is read, and the longer they wait for each other.
const SIMDS: [u64; 2] = [4, 8];

/// The most simdgroups that a multiprocessor has room for: sums of many columns take registers.
fn resident_simds(tiles: u64) -> u64 {
    if tiles > 4 { 8 } else { 16 }
}

/// The fewest that keep it busy.
const FEWEST_SIMDS: u64 = 8;

/// Simdgroups of a group where a multiprocessor has little memory.
const SMALL_SIMDS: [u64; 2] = [4, 2];

/// Stages that a group's beginning and end take as long as.
const AROUND: u64 = 2;

/// The most slots of a group's ring.
const MOST_SLOTS: u64 = 4;

/// The most rows of input.
const MOST_ROWS: u64 = 64;

/// The rows of a weight that a simdgroup takes.
const UNIT_ROWS: u64 = 16;

/// The 32-bit words of the input's form for each 32 numbers of eight rows.
const FORM_WORDS: u64 = 128;

args! {
    /// Arguments of `round_rows`.
    RoundRowsArgs {
        /// Rows of the input.
        rows: u32,
        /// Blocks of 32 in a row.
        blocks: u32,
        /// Added to the mean square, where they are made by a norm.
        eps: f32,
        /// Fills the struct up to a multiple of eight bytes.
        unused: u32,
    }

    /// Arguments of `matmul_few`.
    MatMulFewArgs {
        /// The bytes of a row of each weight.
        row_bytes: [u64; 4],
        /// Rows of each weight.
        n: [u32; 4],
        /// The first of its units of rows, among those of all.
        first_unit: [u32; 4],
        /// Blocks in a row of the weights.
        blocks: u32,
        /// Pieces of such a row.
        stages: u32,
        /// Units of all weights.
        units: u32,
        /// The weights with a bias, a bit each.
        biased: u32,
        /// Rows of the input.
        rows: u32,
        /// Fills the struct up to a multiple of eight bytes.
        unused: u32,
    }
}

pub(super) static ROUND_ROWS: Kernel = Kernel {
    name: "round_rows",
    includes: before::INCLUDES,
    tables: crate::kernel::no_tables,
    text: "",
    native: &[Native {
        platform: Platform::Cuda,
        text: include_str!("../../../kernels/cuda/round_rows.cu"),
    }],
    constants: &["THREADS", "TILES", "HALVES", "BEFORE", "HELD"],
    args: layout::<RoundRowsArgs>(),
    buffers: &before::BUFFERS,
    shared: true,
};

pub(super) static MATMUL_FEW: Kernel = Kernel {
    name: "matmul_few",
    includes: &[],
    tables: tables_of_few,
    text: "",
    native: &[Native {
        platform: Platform::Cuda,
        text: include_str!("../../../kernels/cuda/matmul_few.cu"),
    }],
    constants: &[
        "THREADS",
        "RESIDENT",
        "DYNAMIC",
        "CLUSTER",
        "TYPE",
        "STAGE_BLOCKS",
        "TILES",
        "SLOTS",
        "ADD",
    ],
    args: layout::<MatMulFewArgs>(),
    buffers: &ROWS_BUFFERS,
    shared: false,
};

fn tables_of_few(variant: &Variant) -> String {
    tables(
        variant,
        include_str!("../../../kernels/cuda/cluster_sums.h"),
        concat!(
            include_str!("../../../kernels/cuda/packed_rows.h"),
            include_str!("../../../kernels/cuda/few_rows.h")
        ),
    )
}

/// How a launch is cut.
pub(crate) struct Shape {
    /// Tiles of eight rows of input.
    tiles: u64,
    /// Simdgroups of a group, each with sixteen rows of a weight.
    simds: u64,
    /// Groups that share such rows.
    cluster: u64,
    /// Groups that a multiprocessor has room for.
    resident: u64,
    /// Slots of a group's ring.
    slots: u64,
    /// The memory of a group.
    dynamic: u64,
    /// Blocks of a row of the weights.
    blocks: u64,
    /// Stages of one.
    stages: u64,
}

/// Blocks of a stage.
fn stage(dtype: DType) -> u64 {
    match (dtype.block_len(), dtype.block_bytes()) {
        (256, 181..) => 1,
        (256, _) => 2,
        (_, 25..) => 8,
        _ => 16,
    }
}

/// The bytes of a slot of a ring.
fn slot_bytes(dtype: DType, simds: u64, tiles: u64) -> u64 {
    let parts = stage(dtype) * dtype.block_len() as u64 / 32;
    let sides = if packed::halved(dtype) {
        stage(dtype)
    } else {
        0
    };
    simds * packed::slot_bytes(dtype, stage(dtype)) + 4 * FORM_WORDS * (parts + sides) * tiles
}

/// How the launch is cut.
pub(super) fn shape(products: &Products, limits: &Limits) -> Option<Shape> {
    let rows = products.input().row_count();
    let dtype = products.products[0].weight.dtype();
    let fits = products.norm.is_none()
        && !matches!(products.then, Then::Gated { .. })
        && rows <= MOST_ROWS
        && packed::knows(dtype)
        && packed::countable(products);
    if !fits {
        return None;
    }
    let tiles = rows.div_ceil(8).next_power_of_two();
    let blocks = products.input().row_len() / dtype.block_len() as u64;
    let stages = blocks.div_ceil(stage(dtype));
    let units = u64::from(products.parts(UNIT_ROWS).units);
    let room = u64::from(limits.fragment_bytes) + RESERVED;
    let cut = |simds: u64, fewest: u64, cluster: u64| {
        let bytes = slot_bytes(dtype, simds, tiles);
        let most = (resident_simds(tiles) / simds).max(1);
        let least = fewest.div_ceil(simds).min(most);
        (least..=most).rev().find_map(|resident| {
            let slots = ((room / resident - RESERVED) / bytes).min(MOST_SLOTS);
            let dynamic = (slots * bytes).max((simds * 512 + 128) * tiles);
            (slots >= 2 && dynamic + RESERVED <= room).then_some(Shape {
                tiles,
                simds,
                cluster,
                resident,
                slots,
                dynamic,
                blocks,
                stages,
            })
        })
    };
    let most = u64::from(limits.cluster_groups).min(stages);
    let best = |all: &[u64], fewest: u64| {
        let cuts = all.iter();
        let cuts = cuts.flat_map(|&simds| (1..=most).filter_map(move |c| cut(simds, fewest, c)));
        // What multiprocessors do until the last group has ended.
        cuts.min_by_key(|cut| {
            let groups = units.div_ceil(cut.simds) * cut.cluster;
            let waves = groups.div_ceil(u64::from(limits.multiprocessors) * cut.resident);
            waves * (stages.div_ceil(cut.cluster) + AROUND) * cut.resident * cut.simds
        })
    };
    best(&SIMDS, FEWEST_SIMDS).or_else(|| best(&SMALL_SIMDS, 1))
}

/// Adds the launch, and the one that makes the input's form for it.
pub(super) fn lower(products: &Products, shape: &Shape, lowering: &mut Lowering<'_>) -> Result<()> {
    let form = rounded(products, shape, lowering)?;
    let variant = Variant::new(
        &MATMUL_FEW,
        &[
            ("THREADS", 32 * shape.simds as i64),
            ("RESIDENT", shape.resident as i64),
            ("DYNAMIC", shape.dynamic as i64),
            ("CLUSTER", shape.cluster as i64),
            ("TYPE", type_constant(products.products[0].weight.dtype())),
            (
                "STAGE_BLOCKS",
                stage(products.products[0].weight.dtype()) as i64,
            ),
            ("TILES", shape.tiles as i64),
            ("SLOTS", shape.slots as i64),
            ("ADD", i64::from(products.addend().is_some())),
        ],
    );
    let Parts {
        row_bytes,
        n,
        first_unit,
        units,
        biased,
        ..
    } = products.parts(UNIT_ROWS);
    let args = MatMulFewArgs {
        row_bytes,
        n,
        first_unit,
        blocks: shape.blocks as u32,
        stages: shape.stages as u32,
        units,
        biased,
        rows: products.input().row_count() as u32,
        unused: 0,
    };
    let spans = products.spans(&form, lowering);
    let groups = u64::from(units).div_ceil(shape.simds) * shape.cluster;
    lowering.dispatch(variant, [groups, 1, 1], &args, spans)
}

/// An input as halves or as bfloat16, in so many tiles.
#[derive(PartialEq)]
struct Rounded {
    tiles: u64,
    blocks: u64,
    halves: bool,
}

/// The input rounded, tile by tile, made once for all products of it that read it so.
fn rounded(products: &Products, shape: &Shape, lowering: &mut Lowering<'_>) -> Result<Buffer> {
    let input = products.input();
    let blocks = input.row_len() / 32;
    let tiles = shape.tiles;
    let halves = packed::halved(products.products[0].weight.dtype());
    let what = Rounded {
        tiles,
        blocks,
        halves,
    };
    let sources = vec![input.span()];
    if let Some(form) = lowering.known(&what, &sources) {
        return Ok(form);
    }
    // Halves have as many words again for each 256 numbers.
    let parts = blocks + if halves { blocks / 8 } else { 0 };
    let form = lowering.workspace(4 * FORM_WORDS * parts * tiles)?;
    let args = RoundRowsArgs {
        rows: input.row_count() as u32,
        blocks: blocks as u32,
        eps: 0.0,
        unused: 0,
    };
    let variant = Variant::new(
        &ROUND_ROWS,
        &[
            ("THREADS", THREADS as i64),
            ("TILES", tiles as i64),
            ("HALVES", i64::from(halves)),
            ("BEFORE", 0),
            ("HELD", 1),
        ],
    );
    // A simdgroup takes 256 numbers of a row.
    let groups = (8 * tiles * blocks.div_ceil(8)).div_ceil(THREADS / 32);
    let spans = before::nothing_before(input, &form, lowering);
    lowering.dispatch(variant, [groups, 1, 1], &args, spans)?;
    lowering.derives();
    lowering.keep(what, sources, form.clone());
    Ok(form)
}
