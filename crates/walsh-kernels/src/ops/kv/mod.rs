//! The KV cache: where tokens go, storing them, attention, decoding and rotating.

mod attention;
mod codec;
mod decode;
mod rotate;
pub(super) mod slot_mapping;
pub(crate) mod store;

pub(crate) use attention::attention;
pub(crate) use decode::decode;
pub(crate) use rotate::rotate;
pub(crate) use store::store;

use crate::kernel::Kernel;

/// The kernels of this module.
pub(crate) const KERNELS: &[&Kernel] = &[
    &slot_mapping::KV_TOKENS,
    &store::KV_INSPECT,
    &store::KV_STORE,
    &decode::KV_DECODE_ROWS,
    &rotate::ROTATE,
    &attention::ATTENTION_QUERY,
    &attention::ATTENTION_PASS,
    &attention::ATTENTION_TILES,
    &attention::ATTENTION_COMBINE,
    &attention::ATTENTION_DECODE,
];
