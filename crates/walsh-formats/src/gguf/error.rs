//! Errors of the GGUF reader and writer.

use crate::dtype::DType;
use crate::error::join_names;

/// What can be wrong with a GGUF file, or with what is asked of it. Each message is one line and ends
/// in what to do.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum GgufError {
    /// The file does not start as GGUF does.
    #[error("not a GGUF file: {found}")]
    NotGguf {
        /// What the file seems to be instead, and what to do.
        found: String,
    },
    /// The file was written for a big-endian machine.
    #[error("the GGUF file is big-endian: use the little-endian file of this model")]
    BigEndian,
    /// The version is neither 2 nor 3.
    #[error("GGUF version {found} is not supported: convert the model to version 3")]
    Version {
        /// The file's version.
        found: u32,
    },
    /// The file ends too early.
    #[error(
        "the file ends at byte {len}, inside {what}, which needs {needed} bytes from byte {at}: download it again"
    )]
    Truncated {
        /// What was being read.
        what: String,
        /// Where it starts.
        at: u64,
        /// How many bytes it takes at least.
        needed: u64,
        /// The length of the file.
        len: u64,
    },
    /// A count is larger than the whole file could hold.
    #[error("the file's {len} bytes cannot hold {count} {what}: it is damaged, download it again")]
    Count {
        /// What is counted.
        what: String,
        /// The count that the file states.
        count: u64,
        /// The length of the file.
        len: u64,
    },
    /// A string is not UTF-8.
    #[error("{what} is not valid UTF-8: the file is damaged, download it again")]
    Utf8 {
        /// Which string.
        what: String,
    },
    /// A metadata value has a type that GGUF does not define.
    #[error(
        "metadata key {key} has the unknown value type {id}: the file is damaged or newer than this reader"
    )]
    ValueType {
        /// The key.
        key: String,
        /// The type's number.
        id: u32,
    },
    /// A boolean is neither 0 nor 1.
    #[error(
        "metadata key {key} holds a boolean of value {value}: the file is damaged, download it again"
    )]
    Bool {
        /// The key.
        key: String,
        /// The byte found.
        value: u8,
    },
    /// Arrays are nested more deeply than [`MAX_ARRAY_DEPTH`](super::MAX_ARRAY_DEPTH).
    #[error(
        "metadata key {key} nests arrays more than {} deep: convert the model again",
        super::MAX_ARRAY_DEPTH
    )]
    ArrayDepth {
        /// The key.
        key: String,
    },
    /// A key occurs twice.
    #[error("metadata key {key} occurs twice: convert the model again")]
    DuplicateKey {
        /// The key.
        key: String,
    },
    /// Two tensors have the same name.
    #[error("tensor {name} occurs twice: convert the model again")]
    DuplicateTensor {
        /// The name.
        name: String,
    },
    /// `general.alignment` is not a power of two of at least 8.
    #[error("general.alignment is {found}, not a power of two from 8 on: convert the model again")]
    Alignment {
        /// The value found.
        found: u64,
    },
    /// A tensor's type is unknown or not supported.
    #[error(
        "tensor {name} has GGML type {id}{}, which is not supported: quantise the model to one of {}",
        known.map(|known| format!(" ({known})")).unwrap_or_default(),
        ggml_names()
    )]
    TensorType {
        /// The tensor.
        name: String,
        /// The type's number.
        id: u32,
        /// The type's name where GGML has one.
        known: Option<&'static str>,
    },
    /// A tensor has more dimensions than GGML allows.
    #[error(
        "tensor {name} has {count} dimensions, more than {}: the file is damaged, download it again",
        super::MAX_DIMENSIONS
    )]
    Dimensions {
        /// The tensor.
        name: String,
        /// The number of dimensions.
        count: u32,
    },
    /// A tensor's size passes 64 bits.
    #[error(
        "tensor {name} of shape {shape:?} is larger than 2^64 bytes: the file is damaged, download it again"
    )]
    TensorSize {
        /// The tensor.
        name: String,
        /// Its shape, outermost first.
        shape: Vec<u64>,
    },
    /// A tensor's rows are not whole blocks.
    #[error(
        "tensor {name} has rows of {row} values, not a multiple of the {} of a {dtype} block: convert the model again",
        dtype.block_len()
    )]
    PartialBlock {
        /// The tensor.
        name: String,
        /// Its type.
        dtype: DType,
        /// The length of a row.
        row: u64,
    },
    /// A tensor's offset is not a multiple of the alignment.
    #[error(
        "tensor {name} lies at offset {offset}, not a multiple of {alignment}: convert the model again"
    )]
    Misaligned {
        /// The tensor.
        name: String,
        /// Its offset from the start of the tensor data.
        offset: u64,
        /// The file's alignment.
        alignment: u64,
    },
    /// A tensor's bytes lie beyond the end of the file.
    #[error(
        "tensor {name} takes {bytes} bytes at offset {offset} of the tensor data, which has only {available}: download the file again"
    )]
    OutOfFile {
        /// The tensor.
        name: String,
        /// Its offset from the start of the tensor data.
        offset: u64,
        /// Its size.
        bytes: u64,
        /// The size of the tensor data in this file.
        available: u64,
    },
    /// Two tensors share bytes.
    #[error("tensors {first} and {second} overlap: the file is damaged, download it again")]
    Overlap {
        /// The tensor that starts first.
        first: String,
        /// The tensor that starts inside it.
        second: String,
    },
    /// A key that is needed is not there.
    #[error("metadata key {key} is missing: convert the model again with a current converter")]
    MissingKey {
        /// The key.
        key: String,
    },
    /// A metadata value has another type than the one asked for.
    #[error("metadata key {key} should be {expected}, but is {found}: convert the model again")]
    WrongType {
        /// The key.
        key: String,
        /// What was asked for.
        expected: &'static str,
        /// What the file has.
        found: String,
    },
    /// An integer does not fit the type asked for.
    #[error(
        "metadata key {key} is {value}, which does not fit {expected}: convert the model again"
    )]
    IntegerRange {
        /// The key.
        key: String,
        /// What was asked for.
        expected: &'static str,
        /// The value.
        value: i128,
    },
    /// The keys or parts of a split model do not fit together.
    #[error("split model: {what}")]
    Split {
        /// What is wrong and what to do.
        what: String,
    },
    /// What is to be written is not a valid GGUF file.
    #[error("cannot write GGUF: {what}")]
    Write {
        /// What is wrong and what to do.
        what: String,
    },
}

fn ggml_names() -> String {
    let with_id: Vec<DType> = DType::ALL
        .iter()
        .copied()
        .filter(|dtype| dtype.ggml_id().is_some())
        .collect();
    join_names(&with_id)
}

/// A name out of a file in a form that is safe in a one-line message: quoted, escaped, cut short.
pub(super) fn shown(name: &str) -> String {
    const LONGEST: usize = 80;
    let mut chars = name.chars();
    let head: String = chars.by_ref().take(LONGEST).collect();
    let dots = if chars.next().is_some() { "…" } else { "" };
    format!("{head:?}{dots}")
}
