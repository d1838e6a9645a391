//! Activations, sums and other maps of numbers.

use walsh_core::ops::{Activation, Add, GatedActivation, Scale, SoftCap};
use walsh_core::{Result, Tensor};

use crate::args::args;
use crate::kernel::{Kernel, Variant, no_tables, reads, writes};
use crate::lower::{Lowering, layout};

const THREADS: i64 = 256;

/// Numbers of a thread where they lie well.
const WIDE: u64 = 4;

args! {
    /// Arguments of `map`.
    MapArgs {
        /// Numbers of the output.
        count: u32,
        /// Numbers of `b`, which repeat.
        period: u32,
        /// The factor or the cap.
        factor: f32,
        /// The bound of a gate.
        limit: f32,
    }
}

/// What `map` computes, as its text numbers it.
#[derive(Clone, Copy)]
enum Map {
    Silu = 0,
    GeluTanh = 1,
    Add = 2,
    Scale = 3,
    SoftCap = 4,
    ClampedSwish = 5,
    Sigmoid = 6,
    Product = 7,
}

static MAP: Kernel = Kernel {
    name: "map",
    includes: &[include_str!("../../kernels/gates.h")],
    tables: no_tables,
    text: include_str!("../../kernels/map.h"),
    native: &[],
    constants: &["THREADS", "MAP", "EACH"],
    args: layout::<MapArgs>(),
    buffers: &[
        reads("a", "float"),
        reads("b", "float"),
        writes("output", "float"),
    ],
    shared: false,
};

pub(crate) const KERNELS: &[&Kernel] = &[&MAP];

fn map(
    map: Map,
    (a, b): (&Tensor, Option<&Tensor>),
    factors: [f32; 2],
    output: &Tensor,
    lowering: &mut Lowering<'_>,
) -> Result<()> {
    lowering.countable(&[a])?;
    let wide = |tensor: &Tensor| {
        tensor.offset().is_multiple_of(4 * WIDE) && tensor.elements().is_multiple_of(WIDE)
    };
    let each = match [a, output].into_iter().chain(b).all(wide) {
        true => WIDE,
        false => 1,
    };
    let variant = Variant::new(
        &MAP,
        &[
            ("THREADS", THREADS),
            ("MAP", map as i64),
            ("EACH", each as i64),
        ],
    );
    let count = a.elements();
    let args = MapArgs {
        count: count as u32,
        period: b.map_or(1, |b| b.elements() as u32),
        factor: factors[0],
        limit: factors[1],
    };
    let b = lowering.span(b);
    let groups = [count.div_ceil(each * THREADS as u64), 1, 1];
    lowering.dispatch(variant, groups, &args, vec![a.span(), b, output.span()])
}

pub(crate) fn gated(op: &GatedActivation, lowering: &mut Lowering<'_>) -> Result<()> {
    let (kind, factors) = match op.activation {
        Activation::Identity => (Map::Product, [0.0; 2]),
        Activation::Silu => (Map::Silu, [0.0; 2]),
        Activation::GeluTanh => (Map::GeluTanh, [0.0; 2]),
        Activation::Sigmoid => (Map::Sigmoid, [0.0; 2]),
        Activation::ClampedSwish { alpha, limit } => (Map::ClampedSwish, [alpha, limit]),
    };
    let operands = (&op.gate, Some(&op.up));
    map(kind, operands, factors, &op.output, lowering)?;
    lowering.computes(op.clone());
    Ok(())
}

pub(crate) fn add(op: &Add, lowering: &mut Lowering<'_>) -> Result<()> {
    let operands = (&op.a, Some(&op.b));
    map(Map::Add, operands, [0.0; 2], &op.output, lowering)?;
    lowering.computes(op.clone());
    Ok(())
}

pub(crate) fn scale(op: &Scale, lowering: &mut Lowering<'_>) -> Result<()> {
    map(
        Map::Scale,
        (&op.input, None),
        [op.factor, 0.0],
        &op.output,
        lowering,
    )
}

pub(crate) fn soft_cap(op: &SoftCap, lowering: &mut Lowering<'_>) -> Result<()> {
    map(
        Map::SoftCap,
        (&op.input, None),
        [op.cap, 0.0],
        &op.output,
        lowering,
    )
}
