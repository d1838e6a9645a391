//! Of many rows of input, on Hopper's tensor cores.

use std::fmt::Write;

use walsh_core::{Buffer, Result};
use walsh_formats::DType;

use super::super::blocks::{block, is_float, type_constant};
use super::super::matmul::FEW_ROWS;
use super::joined::{Parts, Products, RESERVED, ROWS_BUFFERS, Then, tables};
use super::{before, packed};
use crate::args::args;
use crate::kernel::{Kernel, Native, Platform, Variant};
use crate::lower::{Limits, Lowering, layout};

/// Threads of the group that makes a row of the input's form: many where there are multiprocessors for all groups at once.
fn form_threads(rows: u64, limits: &Limits) -> u64 {
    match rows {
        few if few <= u64::from(limits.multiprocessors) => 1024,
        _ => 256,
    }
}

/// Numbers of a stage of the weights: of floats, which take more bytes, the fewer.
fn depth(dtype: DType) -> u64 {
    if is_float(dtype) { 128 } else { 256 }
}

/// Numbers of a slab of the input.
const SLAB: u64 = 64;

/// The rows of a weight that a warpgroup takes.
const UNIT_ROWS: u64 = 64;

/// Simdgroups of a warpgroup.
const SIMDS: u64 = 4;

/// Rows of input that a group takes at a time. Of blocks, fewer than 64 rows of input are multiplied sooner by `matmul_few`.
fn columns(dtype: DType) -> &'static [u64] {
    match is_float(dtype) {
        true => &[16, 32, 64, 128, 256],
        false => &[64, 128, 256],
    }
}

/// How many groups may share the stages of the same rows: few values, as each is a kernel of its own.
const CLUSTERS: [u64; 4] = [1, 2, 4, 8];

/// Warpgroups of a group, which share what is read of the input, and the most groups of a multiprocessor: sums of many columns take
/// registers.
fn warpgroups(columns: u64) -> (u64, u64) {
    match columns {
        ..=64 => (1, 4),
        _ => (2, 1),
    }
}

/// The most slots of a ring of weights.
const MOST_SLOTS: u64 = 4;

/// The most slots of a ring of the input.
const MOST_INPUT_SLOTS: u64 = 16;

/// Slabs that come together: as many as leave room for two slots of four groups.
fn together(columns: u64) -> u64 {
    match columns {
        ..=64 => 2,
        _ => 1,
    }
}

/// Enough slots, and the fewest: `matmul_wgmma.cu` says why.
fn input_slots(dtype: DType, columns: u64) -> [u64; 2] {
    let read = match (dtype, together(columns)) {
        (DType::Q6K, 1) => 2,
        _ => 1,
    };
    let fewest = 2 * read + warpgroups(columns).0 - 1;
    [8 / together(columns), fewest]
}

/// Stages that a group's beginning and end take as long as.
const AROUND: u64 = 2;

/// The cycles that a warpgroup's stage takes of a multiprocessor: the more columns, the less of them the weights' decoding is, or,
/// of floats, their way. Of blocks as measured on an H200, of floats from the rate of its tensor cores and of its memory.
fn stage_cycles(dtype: DType, columns: u64) -> u64 {
    match is_float(dtype) {
        true => 600 + 9 * columns / 4,
        false => 950 + 9 * columns / 2,
    }
}

args! {
    /// Arguments of `slab_rows`.
    SlabRowsArgs {
        /// Rows of the input.
        rows: u32,
        /// Blocks of 32 in a row.
        blocks: u32,
        /// Slabs of 64.
        slabs: u32,
        /// Rows of the form.
        padded: u32,
        /// Rows whose slabs lie together.
        columns: u32,
        /// Added to the mean square, where they are made by a norm.
        eps: f32,
    }

    /// Arguments of `matmul_wgmma`.
    MatMulWgmmaArgs {
        /// The bytes of a row of each weight.
        row_bytes: [u64; 4],
        /// Rows of each weight.
        n: [u32; 4],
        /// The first of its units of rows, among those of all.
        first_unit: [u32; 4],
        /// Blocks in a row of the weights.
        blocks: u32,
        /// Stages of one.
        stages: u32,
        /// Slabs of 64 numbers of the input.
        slabs: u32,
        /// Units of all weights.
        units: u32,
        /// The weights with a bias, a bit each.
        biased: u32,
        /// Rows of the input.
        rows: u32,
        /// Rows of its form.
        padded: u32,
        /// Fills the struct up to a multiple of eight bytes.
        unused: u32,
    }
}

pub(super) static SLAB_ROWS: Kernel = Kernel {
    name: "slab_rows",
    includes: before::INCLUDES,
    tables: crate::kernel::no_tables,
    text: "",
    native: &[Native {
        platform: Platform::Cuda,
        text: include_str!("../../../kernels/cuda/slab_rows.cu"),
    }],
    constants: &["THREADS", "HALVES", "BEFORE", "HELD"],
    args: layout::<SlabRowsArgs>(),
    buffers: &before::BUFFERS,
    shared: true,
};

pub(super) static MATMUL_WGMMA: Kernel = Kernel {
    name: "matmul_wgmma",
    includes: &[],
    tables: tables_of_wgmma,
    text: "",
    native: &[Native {
        platform: Platform::Cuda,
        text: include_str!("../../../kernels/cuda/matmul_wgmma.cu"),
    }],
    constants: &[
        "THREADS",
        "RESIDENT",
        "DYNAMIC",
        "CLUSTER",
        "TYPE",
        "STAGE_BLOCKS",
        "COLUMNS",
        "SLOTS",
        "INPUT_SLOTS",
        "TOGETHER",
        "ADD",
    ],
    args: layout::<MatMulWgmmaArgs>(),
    buffers: &ROWS_BUFFERS,
    shared: false,
};

fn tables_of_wgmma(variant: &Variant) -> String {
    let mut text = tables(
        variant,
        include_str!("../../../kernels/cuda/cluster_sums.h"),
        include_str!("../../../kernels/cuda/packed_rows.h"),
    );
    let halves = packed::is_halved(variant.constant("TYPE"));
    text.push_str(&multiply_tile(variant.constant("COLUMNS"), halves));
    text
}

/// The instruction that multiplies 64 x 16 numbers of the weight with 16 x `columns` of the input: its operands are as many as
/// there are columns.
fn multiply_tile(columns: i64, halves: bool) -> String {
    let kind = if halves { "f16" } else { "bf16" };
    let sums = columns / 2;
    let list = |item: &dyn Fn(i64) -> String, count: i64| {
        (0..count).map(item).collect::<Vec<_>>().join(", ")
    };
    let mut text = String::from(
        "// sums += a.b\n\
         inline void multiply_tile(float (&sums)[COLUMNS / 2], const uint (&a)[4], ulong b) {\n",
    );
    let _ = write!(
        text,
        "    asm volatile(\"{{\\n.reg .pred adds;\\nsetp.eq.u32 adds, 0, 0;\\n\"\n\
         \x20                \"wgmma.mma_async.sync.aligned.m64n{columns}k16.f32.{kind}.{kind} {{{sums_at}}}, {{{a_at}}}, %{b_at}, adds, 1, 1, 0;\\n}}\"\n\
         \x20                : {sums_are}\n\
         \x20                : {a_are}, \"l\"(b));\n}}\n",
        sums_at = list(&|i| format!("%{i}"), sums),
        a_at = list(&|i| format!("%{}", sums + i), 4),
        b_at = sums + 4,
        sums_are = list(&|i| format!("\"+f\"(sums[{i}])"), sums),
        a_are = list(&|i| format!("\"r\"(a[{i}])"), 4),
    );
    text
}

/// How a launch is cut.
pub(crate) struct Shape {
    /// Rows of input that a group takes.
    columns: u64,
    /// Warpgroups of a group, each with 64 rows of a weight.
    warpgroups: u64,
    /// Groups that share such rows.
    cluster: u64,
    /// Groups that a multiprocessor has room for.
    resident: u64,
    /// Slots of a group's ring of weights.
    slots: u64,
    /// Slots of its ring of the input.
    input_slots: u64,
    /// The memory of a group.
    dynamic: u64,
    /// Blocks of a row of the weights.
    blocks: u64,
    /// Stages of one.
    stages: u64,
    /// Slabs of the input.
    slabs: u64,
    /// Rows of the input's form.
    padded: u64,
}

/// Blocks of a stage.
fn stage(dtype: DType) -> u64 {
    depth(dtype) / block(dtype).0 as u64
}

/// The slots of the rings of weights and of the input, and a group's memory, where it may have so many bytes.
fn rings(dtype: DType, columns: u64, warpgroups: u64, bytes: u64) -> Option<(u64, u64, u64)> {
    let simds = warpgroups * SIMDS;
    let weights = simds * packed::slot_bytes(dtype, stage(dtype));
    let input = together(columns) * 128 * columns + 16;
    let fits = |(fewest, slots): (u64, u64)| {
        let left = bytes.checked_sub(slots * weights)?;
        let input_slots = (left / input).min(MOST_INPUT_SLOTS);
        (input_slots >= fewest).then_some((slots, input_slots))
    };
    let wanted = input_slots(dtype, columns).into_iter();
    let mut wanted =
        wanted.flat_map(|fewest| (2..=MOST_SLOTS).rev().map(move |slots| (fewest, slots)));
    let (slots, input_slots) = wanted.find_map(fits)?;
    // And a power of each column.
    let sums = 4 * columns * (simds * 16 + 5);
    let dynamic = (slots * weights + input_slots * input).max(sums);
    (dynamic <= bytes).then_some((slots, input_slots, dynamic))
}

/// How the launch is cut.
pub(super) fn shape(products: &Products, limits: &Limits) -> Option<Shape> {
    let rows = products.input().row_count();
    let dtype = products.products[0].weight.dtype();
    let width = products.input().row_len();
    let fits = limits.warpgroup_matrices
        && products.norm.is_none()
        && !matches!(products.then, Then::Gated { .. })
        && match is_float(dtype) {
            true => width.is_multiple_of(block(dtype).0 as u64),
            // Fewer rows are multiplied sooner by `matmul_few`.
            false => rows > FEW_ROWS && packed::knows(dtype),
        }
        && packed::countable(products);
    if !fits {
        return None;
    }
    let stages = width.div_ceil(depth(dtype));
    let units = u64::from(products.parts(UNIT_ROWS).units);
    let room = u64::from(limits.fragment_bytes) + RESERVED;
    let cut = |columns: u64, cluster: u64| {
        let (warpgroups, most) = warpgroups(columns);
        (1..=most).rev().find_map(|resident| {
            let bytes = room / resident - RESERVED;
            let (slots, input_slots, dynamic) = rings(dtype, columns, warpgroups, bytes)?;
            Some(Shape {
                columns,
                warpgroups,
                cluster,
                resident,
                slots,
                input_slots,
                dynamic,
                blocks: width / block(dtype).0 as u64,
                stages,
                slabs: width.div_ceil(SLAB),
                padded: rows.next_multiple_of(columns),
            })
        })
    };
    // Twice as many columns as there are rows are never better.
    let all = columns(dtype).iter().copied();
    let columns =
        all.filter(|columns| (*columns < 2 * rows || *columns == 16) && *columns >= rows.min(64));
    let most = u64::from(limits.cluster_groups).min(stages);
    let cuts = columns.flat_map(|columns| {
        let clusters = CLUSTERS.into_iter().filter(|cluster| *cluster <= most);
        clusters.filter_map(move |cluster| cut(columns, cluster))
    });
    // What multiprocessors do until the last group has ended.
    cuts.min_by_key(|cut| {
        let tiles = cut.padded / cut.columns;
        let groups = units.div_ceil(cut.warpgroups) * tiles * cut.cluster;
        let waves = groups.div_ceil(u64::from(limits.multiprocessors) * cut.resident);
        let stages = stages.div_ceil(cut.cluster) + AROUND;
        waves * stages * cut.resident * cut.warpgroups * stage_cycles(dtype, cut.columns)
    })
}

/// Adds the launch, and the one that makes the input's form for it.
pub(super) fn lower(products: &Products, shape: &Shape, lowering: &mut Lowering<'_>) -> Result<()> {
    let form = slabs(products, shape, lowering)?;
    let dtype = products.products[0].weight.dtype();
    let variant = Variant::new(
        &MATMUL_WGMMA,
        &[
            ("THREADS", (32 * SIMDS * shape.warpgroups) as i64),
            ("RESIDENT", shape.resident as i64),
            ("DYNAMIC", shape.dynamic as i64),
            ("CLUSTER", shape.cluster as i64),
            ("TYPE", type_constant(dtype)),
            ("STAGE_BLOCKS", stage(dtype) as i64),
            ("COLUMNS", shape.columns as i64),
            ("SLOTS", shape.slots as i64),
            ("INPUT_SLOTS", shape.input_slots as i64),
            ("TOGETHER", together(shape.columns) as i64),
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
    let args = MatMulWgmmaArgs {
        row_bytes,
        n,
        first_unit,
        blocks: shape.blocks as u32,
        stages: shape.stages as u32,
        slabs: shape.slabs as u32,
        units,
        biased,
        rows: products.input().row_count() as u32,
        padded: shape.padded as u32,
        unused: 0,
    };
    let spans = products.spans(&form, lowering);
    let tiles = shape.padded / shape.columns;
    let groups = u64::from(units).div_ceil(shape.warpgroups) * tiles * shape.cluster;
    lowering.dispatch(variant, [groups, 1, 1], &args, spans)
}

/// An input as halves or as bfloat16, in slabs of so many rows.
#[derive(PartialEq)]
struct Slabs {
    blocks: u64,
    padded: u64,
    columns: u64,
    halves: bool,
}

/// The input rounded, slab by slab, made once for all products of it that read it so.
fn slabs(products: &Products, shape: &Shape, lowering: &mut Lowering<'_>) -> Result<Buffer> {
    let input = products.input();
    let halves = packed::halved(products.products[0].weight.dtype());
    let what = Slabs {
        blocks: input.row_len() / 32,
        padded: shape.padded,
        columns: shape.columns,
        halves,
    };
    let sources = vec![input.span()];
    if let Some(form) = lowering.known(&what, &sources) {
        return Ok(form);
    }
    let powers = if halves { 4 } else { 0 };
    let form = lowering.workspace((128 * shape.slabs + powers) * shape.padded)?;
    let args = SlabRowsArgs {
        rows: input.row_count() as u32,
        blocks: what.blocks as u32,
        slabs: shape.slabs as u32,
        padded: shape.padded as u32,
        columns: shape.columns as u32,
        eps: 0.0,
    };
    let threads = form_threads(shape.padded, &lowering.limits());
    let variant = Variant::new(
        &SLAB_ROWS,
        &[
            ("THREADS", threads as i64),
            ("HALVES", i64::from(halves)),
            ("BEFORE", 0),
            ("HELD", 1),
        ],
    );
    let spans = before::nothing_before(input, &form, lowering);
    lowering.dispatch(variant, [shape.padded, 1, 1], &args, spans)?;
    lowering.derives();
    lowering.keep(what, sources, form.clone());
    Ok(form)
}
