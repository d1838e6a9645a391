//! The KV cache: storing keys and values, attention over them, and decoding them.

pub(crate) mod attention;
mod codec;
pub(crate) mod decode;
mod positions;
mod rotate;
pub(crate) mod store;
mod vectors;
