//! GGML's blocks: layouts, and reference decoding and encoding.
//!
//! The decoders are the definition of what a stored tensor means; kernels are tested against them. They
//! agree bit for bit with the Python package `gguf`, as do the encoders for the types that it encodes.

mod blocks;
mod decode;
mod encode;
mod random;

use crate::dtype::DType;
use crate::error::FormatError;

pub use blocks::*;
pub use decode::{decode, scale_min_k4};
pub use encode::{ENCODABLE, encode};
pub use random::random;

#[cfg(target_endian = "big")]
compile_error!("GGML's blocks are little-endian and are read in place");

/// The values that the 4-bit indices of IQ4_NL and IQ4_XS stand for.
pub const IQ4_VALUES: [i8; 16] = [
    -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113,
];

/// Checks that `values` are whole blocks and that they take `found` bytes.
fn check_length(dtype: DType, values: usize, found: usize) -> Result<(), FormatError> {
    let bytes = dtype
        .row_bytes(values as u64)
        .ok_or(FormatError::PartialBlock { dtype, values })?;
    if bytes != found as u64 {
        return Err(FormatError::ByteLength {
            dtype,
            values,
            expected: usize::try_from(bytes).unwrap_or(usize::MAX),
            found,
        });
    }
    Ok(())
}
