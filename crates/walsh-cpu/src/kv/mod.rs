//! The KV cache: storing keys and values, and attention over them.

pub(crate) mod attention;
mod codec;
mod positions;
mod rotate;
pub(crate) mod store;
