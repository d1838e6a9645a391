//! GGML's blocks: layouts, and reference decoding and encoding.
//!
//! The decoders are the definition of what a stored tensor means; kernels are tested against them. They
//! agree bit for bit with the Python package `gguf`, as do the encoders that round without a search.

mod blocks;
mod float4;
mod grid;
mod grids;
mod iq;
mod iq4;
mod k;
mod legacy;
mod mlx;
mod parts;
mod random;
mod reference;
mod search;
mod ternary;

pub use blocks::{Block, Field, Form, Role, form};
pub use float4::*;
pub use grid::*;
pub use iq::*;
pub use iq4::*;
pub use k::*;
pub use legacy::*;
pub use mlx::*;
pub use parts::{BLOCK, SUPER_BLOCK, e8m0, ue4m3};
pub use random::random;
pub use reference::{decode, encode, encode_weighted, encodes, searches};
pub use ternary::*;

#[cfg(target_endian = "big")]
compile_error!("GGML's blocks are little-endian and are read in place");
