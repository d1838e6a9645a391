//! Data at rest: GGML blocks, GGUF, weights as MLX quantises them, KV-cache codecs, rotations and codebooks.
//!
//! Everything here works on byte slices. Opening, mapping or fetching files is the caller's affair.

pub mod codebook;
#[macro_use]
pub mod dtype;
pub mod error;
pub mod fp8;
pub mod ggml;
pub mod gguf;
pub mod kv;
pub mod mlx;
pub mod random;
pub mod rotation;

pub use dtype::DType;
pub use error::FormatError;
