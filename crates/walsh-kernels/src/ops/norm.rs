//! Root-mean-square norms.

use walsh_core::ops::RmsNorm;
use walsh_core::{Result, Tensor};

use crate::args::args;
use crate::kernel::{Kernel, Variant, no_tables, reads, writes};
use crate::lower::{Lowering, layout};

args! {
    /// Arguments of `rms_norm`.
    RmsNormArgs {
        /// Numbers per row.
        width: u32,
        /// Added to the mean square.
        eps: f32,
    }
}

static RMS_NORM: Kernel = Kernel {
    name: "rms_norm",
    includes: &[],
    tables: no_tables,
    text: include_str!("../../kernels/rms_norm.h"),
    native: &[],
    constants: &["THREADS", "HELD", "BEFORE", "WEIGHT", "AFTER"],
    args: layout::<RmsNormArgs>(),
    buffers: &[
        reads("input", "float"),
        reads("addend", "float"),
        writes("sum", "float"),
        reads("weight", "float"),
        reads("after", "float"),
        writes("output", "float"),
    ],
    shared: true,
};

pub(crate) const KERNELS: &[&Kernel] = &[&RMS_NORM];

pub(crate) fn lower(op: &RmsNorm, lowering: &mut Lowering<'_>) -> Result<()> {
    lowering.countable(&[&op.input])?;
    let width = op.input.row_len();
    let threads = match width {
        0..=256 => 32,
        257..=1024 => 128,
        _ => 1024,
    };
    // Numbers of a thread, where they fit registers.
    let held = match width.div_ceil(threads as u64) {
        few @ 0..=8 => few.next_power_of_two() as i64,
        _ => 0,
    };
    let variant = Variant::new(
        &RMS_NORM,
        &[
            ("THREADS", threads),
            ("HELD", held),
            ("BEFORE", i64::from(op.before.is_some())),
            ("WEIGHT", i64::from(op.weight.is_some())),
            ("AFTER", i64::from(op.after.is_some())),
        ],
    );
    let span = |tensor: Option<&Tensor>| lowering.span(tensor);
    let before = op.before.as_ref();
    let spans = vec![
        op.input.span(),
        span(before.map(|before| &before.addend)),
        span(before.map(|before| &before.sum)),
        span(op.weight.as_ref()),
        span(op.after.as_ref()),
        op.output.span(),
    ];
    let args = RmsNormArgs {
        width: width as u32,
        eps: op.eps,
    };
    lowering.dispatch(variant, [op.input.row_count(), 1, 1], &args, spans)?;
    lowering.computes(op.clone());
    Ok(())
}
