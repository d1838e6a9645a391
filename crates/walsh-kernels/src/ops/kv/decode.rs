//! Decoding stored keys or values.

use walsh_core::ops::KvDecode;
use walsh_core::{Result, Tensor};

use super::codec::{self, Constants};
use super::slot_mapping::slot_mapping;
use super::store::ROTATION;
use crate::args::args;
use crate::kernel::{Kernel, Variant, reads, writes};
use crate::lower::{Lowering, layout};

const THREADS: i64 = 128;

args! {
    /// Arguments of `kv_decode_rows`.
    KvDecodeArgs {
        /// Vectors to decode.
        vectors: u32,
        /// KV heads.
        kv_heads: u32,
        /// Slots per KV head.
        slots: u32,
        /// The type of the output, as kinds are numbered.
        target: u32,
        /// What scales in single precision are multiplied by.
        factor: f32,
    }
}

const READ: &str = include_str!("../../../kernels/kv_decode.h");
pub(super) const BFLOAT: &str = include_str!("../../../kernels/bfloat.h");
pub(super) const TARGET: &str = include_str!("../../../kernels/kv_target.h");

pub(super) static KV_DECODE_ROWS: Kernel = Kernel {
    name: "kv_decode_rows",
    includes: &[BFLOAT, TARGET, ROTATION, READ],
    tables: codec::row_tables,
    text: include_str!("../../../kernels/kv_decode_rows.h"),
    native: &[],
    constants: &[
        "THREADS",
        "HEAD_DIM",
        "EQUALISER",
        "CENTER",
        "KIND",
        "BITS",
        "CODE_BYTES",
        "ROTATE",
        "ORDER",
    ],
    args: layout::<KvDecodeArgs>(),
    buffers: &[
        reads("codes", "uchar"),
        reads("scales", "uchar"),
        reads("slot_mapping", "int"),
        reads("status", "uint"),
        reads("equaliser", "float"),
        reads("center", "float"),
        writes("output", "uchar"),
    ],
    shared: true,
};

pub(crate) fn decode(op: &KvDecode, lowering: &mut Lowering<'_>) -> Result<()> {
    lowering.countable(&[&op.output])?;
    let slot_mapping = slot_mapping(
        (&op.positions, op.sequences.as_ref()),
        op.token_limits(),
        Some(&op.cache),
        lowering,
    )?;
    let rows = &op.cache.side(op.side).rows;
    let constants = Constants::of(&rows.codec);
    let [equaliser, center] = op.undone();
    let turns = op.turns_back();
    let variant = Variant::new(
        &KV_DECODE_ROWS,
        &[
            ("THREADS", THREADS),
            ("HEAD_DIM", op.cache.head_dim() as i64),
            ("EQUALISER", i64::from(equaliser.is_some())),
            ("CENTER", i64::from(center.is_some())),
            ("KIND", constants.kind),
            ("BITS", constants.bits),
            ("CODE_BYTES", constants.bytes),
            ("ROTATE", i64::from(turns)),
            ("ORDER", if turns { codec::order(&rows.codec) } else { 1 }),
        ],
    );
    let vectors = op.positions.elements() * op.cache.kv_heads();
    let args = KvDecodeArgs {
        vectors: vectors as u32,
        kv_heads: op.cache.kv_heads() as u32,
        slots: rows.codes.shape()[1] as u32,
        target: codec::source(op.output.dtype())
            .ok_or_else(|| lowering.unsupported("the output is not of floats"))?,
        factor: rows.codec.scale_factor(),
    };
    let span = |tensor: Option<&Tensor>| lowering.span(tensor);
    let spans = vec![
        rows.codes.span(),
        span(rows.scales.as_ref()),
        slot_mapping.span(),
        lowering.verdict(),
        span(equaliser),
        span(center),
        op.output.span(),
    ];
    let groups = [vectors.div_ceil(THREADS as u64 / 16), 1, 1];
    lowering.dispatch(variant, groups, &args, spans)
}
