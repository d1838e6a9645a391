//! Errors of types, blocks and their encoding.

use crate::dtype::DType;

/// What can be wrong with a type's name, or with values that are to be encoded or decoded.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// No type has this name.
    #[error("unknown type {name:?}: use one of {}", dtype_names())]
    UnknownType {
        /// The name that was given.
        name: String,
    },
    /// A row does not consist of whole blocks.
    #[error(
        "{values} values are not a whole number of {dtype} blocks: give a multiple of {}",
        dtype.block_len()
    )]
    PartialBlock {
        /// The type of the blocks.
        dtype: DType,
        /// The number of values given.
        values: usize,
    },
    /// The byte buffer does not have the size that the values need.
    #[error("{values} values of {dtype} take {expected} bytes, but the buffer has {found}")]
    ByteLength {
        /// The type of the blocks.
        dtype: DType,
        /// The number of values.
        values: usize,
        /// The bytes that they take.
        expected: usize,
        /// The bytes that were given.
        found: usize,
    },
    /// NaN or an infinity cannot be stored.
    #[error("value {index} is {value}: only finite values can be encoded as {dtype}")]
    NotFinite {
        /// The type to be encoded to.
        dtype: DType,
        /// Where the value stands.
        index: usize,
        /// The value.
        value: f32,
    },
    /// A finite value, or a block's scale, is too large for half precision.
    #[error("value {index} ({value:e}) is out of the range of {dtype}: scale the values down")]
    OutOfRange {
        /// The type to be encoded to.
        dtype: DType,
        /// Where the value stands; for a block type, the block's largest.
        index: usize,
        /// The value.
        value: f32,
    },
    /// A number of a group of MLX's is none that blocks have.
    #[error(
        "the group of value {value} has the scale or bias {number:e}, which blocks of {dtype} do not hold exactly: convert the model that it was quantised from"
    )]
    Inexact {
        /// The type of the blocks.
        dtype: DType,
        /// A value of the group, counted in its row.
        value: usize,
        /// The number.
        number: f32,
    },
    /// Weights are quantised in a way that is not read.
    #[error("{what}")]
    Mlx {
        /// What is not read, and what is.
        what: String,
    },
    /// An importance of values that cannot be one.
    #[error(
        "{what} given as the importance of {values} values: give as many numbers, finite and from 0 on"
    )]
    Importance {
        /// What is wrong with it.
        what: String,
        /// The number of values.
        values: usize,
    },
    /// There is no encoder (or decoder) of 32-bit floats for this type.
    #[error("{what} {dtype} is not supported: use one of {supported}")]
    Unsupported {
        /// What was asked: `encoding to` or `decoding from`.
        what: &'static str,
        /// The type.
        dtype: DType,
        /// The types for which it is possible.
        supported: String,
    },
}

fn dtype_names() -> String {
    join_names(DType::ALL)
}

pub(crate) fn join_names(dtypes: &[DType]) -> String {
    let names: Vec<&str> = dtypes.iter().map(|dtype| dtype.name()).collect();
    names.join(", ")
}
