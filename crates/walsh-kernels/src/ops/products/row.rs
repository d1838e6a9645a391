//! Of one row of input: the norm before them and what is done with them are of the same launch.

use walsh_core::Result;
use walsh_core::ops::{Activation, MatMul};

use super::super::blocks::{Form, form, type_constant};
use super::joined::{BIASES, OUTPUTS, Parts, Products, Then, WEIGHTS, tables};
use crate::args::args;
use crate::kernel::{Kernel, Native, Platform, Variant, reads, writes};
use crate::lower::{Limits, Lowering, layout};

/// Threads of a group, which has a multiprocessor for itself: half as many leave the memory waiting.
const THREADS: u64 = 512;

/// Groups that a multiprocessor has room for at least. Where memory is left, the next launch's wait there with their weights.
const RESIDENT: u64 = 1;

/// The most numbers of an input that a thread holds, four by four.
const MOST_HELD: u64 = 16;

/// Pieces of a simdgroup's ring.
const SLOTS: u64 = 2;

args! {
    /// Arguments of `matmul_row`.
    MatMulRowArgs {
        /// The bytes of a row of each weight.
        row_bytes: [u64; 4],
        /// Rows of each weight.
        n: [u32; 4],
        /// The first of its units of rows, among those of all.
        first_unit: [u32; 4],
        /// Blocks in a row of either type.
        blocks: [u32; 2],
        /// Pieces of a row of either type.
        stages: [u32; 2],
        /// Units of all weights.
        units: u32,
        /// The weights of the second type, a bit each.
        second: u32,
        /// The weights with a bias, a bit each.
        biased: u32,
        /// Numbers of the input.
        k: u32,
        /// The bytes of the input's 8-bit form.
        code_bytes: u32,
        /// Added to the norm's mean square.
        eps: f32,
    }
}

pub(super) static MATMUL_ROW: Kernel = Kernel {
    name: "matmul_row",
    includes: &[include_str!("../../../kernels/gates.h")],
    tables: tables_of_row,
    text: "",
    native: &[Native {
        platform: Platform::Cuda,
        text: include_str!("../../../kernels/cuda/matmul_row.cu"),
    }],
    constants: &[
        "THREADS", "RESIDENT", "DYNAMIC", "TYPE", "OTHER", "PANEL", "SLOTS", "HELD", "NORM",
        "GATED", "ADD",
    ],
    args: layout::<MatMulRowArgs>(),
    buffers: &[
        WEIGHTS[0],
        WEIGHTS[1],
        WEIGHTS[2],
        WEIGHTS[3],
        reads("input", "float"),
        reads("norm", "float"),
        BIASES[0],
        BIASES[1],
        BIASES[2],
        BIASES[3],
        reads("addend", "float"),
        writes("normed", "float"),
        OUTPUTS[0],
        OUTPUTS[1],
        OUTPUTS[2],
        OUTPUTS[3],
        writes("joined", "float"),
    ],
    shared: false,
};

fn tables_of_row(variant: &Variant) -> String {
    let before = concat!(
        include_str!("../../../kernels/cuda/round.h"),
        include_str!("../../../kernels/cuda/norm_factor.h"),
        include_str!("../../../kernels/cuda/row_input.h")
    );
    let piece = concat!(
        include_str!("../../../kernels/dot.h"),
        include_str!("../../../kernels/cuda/row_piece.h")
    );
    tables(variant, before, piece)
}

/// The bytes of a piece of a type's rows, as `row_piece.h` counts them.
fn slot_bytes(product: &MatMul, form: &Form, panel: u64) -> u64 {
    let block = product.weight.dtype().block_bytes() as u64;
    panel * (form.stage as u64 * block + 15 + 4).next_multiple_of(16)
}

/// What gates products, as the text numbers it; `None` where it does not have that.
fn gate(then: &Then) -> Option<i64> {
    match then {
        Then::Nothing | Then::Added { .. } => Some(0),
        Then::Gated { activation, .. } => match activation {
            Activation::Silu => Some(1),
            Activation::GeluTanh => Some(2),
            Activation::Identity | Activation::Sigmoid | Activation::ClampedSwish { .. } => None,
        },
    }
}

/// How the launch is cut.
pub(super) fn shape(products: &Products, limits: &Limits) -> Option<Shape> {
    let types = products.types();
    let gate = gate(&products.then)?;
    let gated = gate != 0;
    // The two of a gate walk in step.
    if gated && types.len() > 1 {
        return None;
    }
    let forms: Option<Vec<Form>> = types.iter().map(|p| form(p.weight.dtype())).collect();
    let forms = forms?;
    let k = products.input().row_len();
    let held = (k / 4).div_ceil(THREADS);
    let held = match products.norm {
        Some(_) if held > MOST_HELD => return None,
        Some(_) => held,
        None => held.min(MOST_HELD / 2),
    };
    let rows: u64 = products.products.iter().map(|p| p.weight.shape()[0]).sum();
    let simds = u64::from(limits.multiprocessors) * THREADS / 32;
    let panel = if gated || rows >= 2 * simds { 2 } else { 1 };
    let sizes = types.iter().zip(&forms);
    let slot = sizes.map(|(p, form)| slot_bytes(p, form, panel)).max()?;
    let code_bytes = 48 * (k / 32).next_multiple_of(4);
    let dynamic = code_bytes + THREADS / 32 * SLOTS * slot;
    let blocks = |(p, form): (&&MatMul, Form)| {
        let blocks = k / p.weight.dtype().block_len() as u64;
        [blocks, blocks.div_ceil(form.stage as u64)]
    };
    (dynamic <= u64::from(limits.fragment_bytes)).then(|| Shape {
        held,
        panel,
        gate,
        code_bytes,
        dynamic,
        blocks: types.iter().zip(forms).map(blocks).collect(),
    })
}

/// Adds the launch.
pub(super) fn lower(products: &Products, shape: &Shape, lowering: &mut Lowering<'_>) -> Result<()> {
    let types = products.types();
    let stored = |p: &&MatMul| type_constant(p.weight.dtype());
    let variant = Variant::new(
        &MATMUL_ROW,
        &[
            ("THREADS", THREADS as i64),
            ("RESIDENT", RESIDENT as i64),
            ("DYNAMIC", shape.dynamic as i64),
            ("TYPE", stored(&types[0])),
            ("OTHER", types.get(1).map_or(-1, stored)),
            ("PANEL", shape.panel as i64),
            ("SLOTS", SLOTS as i64),
            ("HELD", shape.held as i64),
            ("NORM", i64::from(products.norm.is_some())),
            ("GATED", shape.gate),
            ("ADD", i64::from(products.addend().is_some())),
        ],
    );
    let norm = products.norm.as_ref();
    let Parts {
        row_bytes,
        n,
        first_unit,
        units,
        second,
        biased,
    } = products.parts(shape.panel);
    // The two of a gate make one unit of a row of each.
    let units = if shape.gate == 0 { units } else { n[0] };
    let mut args = MatMulRowArgs {
        row_bytes,
        n,
        first_unit,
        blocks: [0; 2],
        stages: [0; 2],
        units,
        second,
        biased,
        k: products.input().row_len() as u32,
        code_bytes: shape.code_bytes as u32,
        eps: norm.map_or(0.0, |norm| norm.eps),
    };
    for (at, [blocks, stages]) in shape.blocks.iter().enumerate() {
        args.blocks[at] = *blocks as u32;
        args.stages[at] = *stages as u32;
    }
    let mut spans: Vec<_> = products.each(lowering, |p| Some(&p.weight)).collect();
    spans.push(products.input().span());
    spans.push(lowering.span(norm.and_then(|norm| norm.weight.as_ref())));
    spans.extend(products.each(lowering, |p| p.bias.as_ref()));
    spans.push(lowering.span(products.addend()));
    spans.push(lowering.span(norm.map(|norm| &norm.output)));
    spans.extend(products.each(lowering, |p| Some(&p.output)));
    spans.push(lowering.span(products.joined()));
    let groups = u64::from(units.min(lowering.limits().multiprocessors));
    lowering.dispatch(variant, [groups, 1, 1], &args, spans)
}

/// How a launch is cut.
pub(crate) struct Shape {
    /// Numbers of the input that a thread holds, four by four.
    held: u64,
    /// Rows of the weights that a simdgroup takes at a time.
    panel: u64,
    /// What the products of two weights are gated with, as the text numbers it; 0 where they are not.
    gate: i64,
    /// The bytes of the input's 8-bit form.
    code_bytes: u64,
    /// The memory of a group.
    dynamic: u64,
    /// Blocks and pieces of a row of each type.
    blocks: Vec<[u64; 2]>,
}
