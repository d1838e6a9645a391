//! The KV cache: where tokens go, storing them, and attention.

mod attention;
mod codec;
mod slot_mapping;
mod store;

pub(crate) use attention::attention;
pub(crate) use store::store;

use crate::kernel::Kernel;

/// The kernels of this module.
pub(crate) const KERNELS: &[&Kernel] = &[
    &slot_mapping::KV_TOKENS,
    &store::KV_INSPECT,
    &store::KV_STORE,
    &attention::ATTENTION_QUERY,
    &attention::ATTENTION_PASS,
    &attention::ATTENTION_COMBINE,
];
