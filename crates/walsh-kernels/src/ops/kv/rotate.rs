//! Rotating vectors, there and back.

use walsh_core::Result;
use walsh_core::ops::{Direction, Rotate};

use super::codec;
use super::decode::{BFLOAT, TARGET};
use super::store::{ROTATION, SOURCE};
use crate::args::args;
use crate::kernel::{Kernel, Variant, reads, writes};
use crate::lower::{Lowering, layout};

const THREADS: i64 = 128;

args! {
    /// Arguments of `rotate`.
    RotateArgs {
        /// Vectors to rotate.
        vectors: u32,
        /// The type of their numbers, as kinds are numbered.
        kind: u32,
    }
}

pub(super) static ROTATE: Kernel = Kernel {
    name: "rotate",
    includes: &[BFLOAT, SOURCE, TARGET, ROTATION],
    tables: codec::turning_tables,
    text: include_str!("../../../kernels/rotate.h"),
    native: &[],
    constants: &["THREADS", "HEAD_DIM", "FORWARD", "ROTATE", "ORDER"],
    args: layout::<RotateArgs>(),
    buffers: &[reads("input", "uchar"), writes("output", "uchar")],
    shared: true,
};

pub(crate) fn rotate(op: &Rotate, lowering: &mut Lowering<'_>) -> Result<()> {
    lowering.countable(&[&op.input])?;
    let rotation = op.rotation()?;
    let variant = Variant::new(
        &ROTATE,
        &[
            ("THREADS", THREADS),
            ("HEAD_DIM", rotation.head_dim() as i64),
            ("FORWARD", i64::from(op.direction == Direction::Forward)),
            ("ROTATE", 1),
            ("ORDER", rotation.order() as i64),
        ],
    );
    let vectors = op.input.elements() / op.input.row_len();
    let args = RotateArgs {
        vectors: vectors as u32,
        kind: codec::source(op.input.dtype())
            .ok_or_else(|| lowering.unsupported("the vectors are not of floats"))?,
    };
    let groups = [vectors.div_ceil(THREADS as u64 / 16), 1, 1];
    let spans = vec![op.input.span(), op.output.span()];
    lowering.dispatch(variant, groups, &args, spans)
}
