//! The largest numbers of rows.

use walsh_core::Result;
use walsh_core::ops::{ArgMax, TopK};

use crate::args::args;
use crate::check::CheckKind;
use crate::kernel::{Kernel, Variant, no_tables, reads, writes};
use crate::lower::{Lowering, layout};

const THREADS: i64 = 1024;

args! {
    /// Arguments of `arg_max` and `top_k`.
    SelectArgs {
        /// Numbers of a row.
        width: u32,
        /// How many are chosen.
        k: u32,
        /// The number of the check for NaN.
        check: u32,
    }
}

const BEST: &str = include_str!("../../kernels/best.h");

const ORDER: &str = include_str!("../../kernels/select.h");

static ARG_MAX: Kernel = Kernel {
    name: "arg_max",
    includes: &[BEST, ORDER],
    tables: no_tables,
    text: include_str!("../../kernels/arg_max.h"),
    native: &[],
    constants: &["THREADS"],
    args: layout::<SelectArgs>(),
    buffers: &[
        reads("input", "float"),
        writes("output", "int"),
        writes("status", "uint"),
    ],
    shared: true,
};

static TOP_K: Kernel = Kernel {
    name: "top_k",
    includes: &[BEST, ORDER],
    tables: no_tables,
    text: include_str!("../../kernels/top_k.h"),
    native: &[],
    constants: &["THREADS"],
    args: layout::<SelectArgs>(),
    buffers: &[
        reads("input", "float"),
        writes("values", "float"),
        writes("indices", "int"),
        writes("status", "uint"),
    ],
    shared: true,
};

pub(crate) const KERNELS: &[&Kernel] = &[&ARG_MAX, &TOP_K];

/// As many threads as a row keeps busy.
fn threads(width: u64) -> i64 {
    match width {
        0..=1024 => 32,
        1025..=8192 => 128,
        _ => THREADS,
    }
}

pub(crate) fn arg_max(op: &ArgMax, lowering: &mut Lowering<'_>) -> Result<()> {
    lowering.countable(&[&op.input])?;
    let check = lowering.check(CheckKind::Row)?;
    let [rows, width] = [0, 1].map(|dim| op.input.shape()[dim]);
    let args = SelectArgs {
        width: width as u32,
        k: 1,
        check,
    };
    let variant = Variant::new(&ARG_MAX, &[("THREADS", threads(width))]);
    let spans = vec![op.input.span(), op.output.span(), lowering.status()];
    lowering.dispatch(variant, [rows, 1, 1], &args, spans)
}

pub(crate) fn top_k(op: &TopK, lowering: &mut Lowering<'_>) -> Result<()> {
    lowering.countable(&[&op.input])?;
    let check = lowering.check(CheckKind::Row)?;
    let [rows, width] = [0, 1].map(|dim| op.input.shape()[dim]);
    let args = SelectArgs {
        width: width as u32,
        k: op.values.shape()[1] as u32,
        check,
    };
    let variant = Variant::new(&TOP_K, &[("THREADS", threads(width))]);
    let spans = vec![
        op.input.span(),
        op.values.span(),
        op.indices.span(),
        lowering.status(),
    ];
    lowering.dispatch(variant, [rows, 1, 1], &args, spans)
}
