//! The KV cache: storing keys and values, attention over them, decoding and rotating them.

pub(crate) mod attention;
mod codec;
pub(crate) mod decode;
mod pages;
pub(crate) mod positions;
mod rotate;
pub(crate) mod store;
pub(crate) mod turn;
mod vectors;
