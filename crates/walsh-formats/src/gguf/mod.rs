//! GGUF, the file format of GGML models: metadata, then tensors.
//!
//! The reader borrows everything from the file's bytes, usually a memory map. Versions 2 and 3 are read,
//! little-endian only. Nothing that a file states is believed before it was checked against the file's
//! length, in 64-bit arithmetic; a damaged or hostile file gives an error, not a panic, and not an
//! allocation of more than a few times its own size.
//!
//! ```
//! use walsh_formats::DType;
//! use walsh_formats::gguf::{Gguf, GgufError};
//!
//! # fn main() -> Result<(), GgufError> {
//! # let bytes: &[u8] = b"GGUF\x03\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
//! let gguf = Gguf::parse(bytes)?;
//! let name = gguf.metadata().opt_str("general.name")?.unwrap_or("a model");
//! println!("{name}: {} tensors", gguf.tensors().len());
//! for tensor in gguf.tensors() {
//!     println!("{} {:?} {}: {} bytes", tensor.name, tensor.shape, tensor.dtype, gguf.data(tensor).len());
//! }
//! # Ok(())
//! # }
//! ```

mod cursor;
mod error;
mod limits;
mod metadata;
mod split;
mod value;
pub mod write;

use std::collections::HashMap;

use crate::dtype::DType;
use cursor::Cursor;
use error::shown;

pub use error::GgufError;
pub use limits::{DEFAULT_ALIGNMENT, MAX_ARRAY_DEPTH, MAX_DIMENSIONS};
pub use metadata::Metadata;
pub use split::{Split, check_split, split_info, split_path};
pub use value::{Array, Value, ValueType};

/// A parsed file.
#[derive(Clone, Debug)]
pub struct Gguf<'a> {
    bytes: &'a [u8],
    version: u32,
    alignment: u64,
    metadata: Metadata<'a>,
    tensors: Vec<TensorInfo<'a>>,
    by_name: HashMap<&'a str, usize>,
}

/// A tensor of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo<'a> {
    /// The name.
    pub name: &'a str,
    /// How the values are stored.
    pub dtype: DType,
    /// The lengths, outermost first: a weight matrix is `[rows, columns]`, and a row is contiguous. (In the
    /// file they stand the other way round.)
    pub shape: Vec<u64>,
    /// Where the data starts, in bytes from the start of the file.
    pub offset: u64,
    /// The size of the data in bytes. The range from `offset` on lies within the file.
    pub bytes: u64,
}

impl TensorInfo<'_> {
    /// The number of values.
    pub fn values(&self) -> u64 {
        // Parsing has checked that the bytes, of which there are as many or fewer, fit 64 bits.
        self.shape.iter().product()
    }
}

impl<'a> Gguf<'a> {
    /// Parses a whole file. The tensors' data is not looked at.
    ///
    /// # Errors
    /// A [`GgufError`] that says what is wrong with the file, and where.
    pub fn parse(bytes: &'a [u8]) -> Result<Gguf<'a>, GgufError> {
        let mut cursor = Cursor::new(bytes);
        let version = read_version(&mut cursor)?;
        let header = || "the header".to_owned();
        let tensor_count = cursor.u64(header)?;
        let pair_count = cursor.u64(header)?;
        let metadata = read_metadata(&mut cursor, pair_count)?;
        let alignment = read_alignment(&metadata)?;
        let mut stated = read_tensors(&mut cursor, tensor_count)?;
        place_tensors(&cursor, alignment, &mut stated)?;

        let mut by_name = HashMap::with_capacity(stated.len());
        for (index, tensor) in stated.iter().enumerate() {
            if by_name.insert(tensor.name, index).is_some() {
                let name = shown(tensor.name);
                return Err(GgufError::DuplicateTensor { name });
            }
        }
        Ok(Gguf {
            bytes,
            version,
            alignment,
            metadata,
            tensors: stated,
            by_name,
        })
    }

    /// The version of the format: 2 or 3.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// What the tensors' offsets are multiples of, counted from the start of the tensor data, which is
    /// itself such a multiple from the start of the file.
    pub fn alignment(&self) -> u64 {
        self.alignment
    }

    /// The metadata.
    pub fn metadata(&self) -> &Metadata<'a> {
        &self.metadata
    }

    /// The tensors in the file's order.
    pub fn tensors(&self) -> &[TensorInfo<'a>] {
        &self.tensors
    }

    /// The tensor with this name.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo<'a>> {
        self.by_name.get(name).map(|&index| &self.tensors[index])
    }

    /// A tensor's bytes. Empty if the range is not in this file, which no tensor of this file is.
    pub fn data(&self, tensor: &TensorInfo<'_>) -> &'a [u8] {
        let range = || {
            let start = usize::try_from(tensor.offset).ok()?;
            let end = start.checked_add(usize::try_from(tensor.bytes).ok()?)?;
            self.bytes.get(start..end)
        };
        range().unwrap_or_default()
    }
}

fn read_version(cursor: &mut Cursor<'_>) -> Result<u32, GgufError> {
    let magic = cursor.take(4, || "the magic bytes `GGUF`".to_owned())?;
    if magic != b"GGUF" {
        return Err(GgufError::NotGguf {
            found: describe_start(magic),
        });
    }
    match cursor.u32(|| "the version".to_owned())? {
        version @ (2 | 3) => Ok(version),
        other if (1..=3).contains(&other.swap_bytes()) => Err(GgufError::BigEndian),
        found => Err(GgufError::Version { found }),
    }
}

/// What a file is that does not start with `GGUF`, as far as four bytes tell.
fn describe_start(magic: &[u8]) -> String {
    match magic {
        b"vers" => "it looks like a Git LFS pointer, fetch the file that it stands for",
        b"<!DO" | b"<htm" | b"<HTM" => "it looks like a web page, download the model again",
        b"ggml" | b"lmgg" | b"tjgg" | b"fmgg" => {
            "it is of a format older than GGUF, convert the model again"
        }
        b"PK\x03\x04" => "it is a zip archive, unpack it first",
        _ => return format!("it starts with {:02x?}, give a .gguf file", magic),
    }
    .to_owned()
}

fn read_metadata<'a>(cursor: &mut Cursor<'a>, count: u64) -> Result<Metadata<'a>, GgufError> {
    // A key's length, a type and a value of one byte.
    let count = cursor.checked_count(count, 8 + 4 + 1, || "metadata pairs".to_owned())?;
    let mut metadata = Metadata::default();
    for index in 0..count {
        let key = cursor.string(|| format!("metadata key number {index}"))?;
        let id = cursor.u32(|| format!("the type of metadata key {}", shown(key)))?;
        let kind = ValueType::from_id(id).ok_or_else(|| GgufError::ValueType {
            key: shown(key),
            id,
        })?;
        let place = value::Place { key, depth: 0 };
        metadata.insert(key, Value::read(cursor, kind, place)?)?;
    }
    Ok(metadata)
}

fn read_alignment(metadata: &Metadata<'_>) -> Result<u64, GgufError> {
    match metadata.opt_u64("general.alignment")? {
        None => Ok(DEFAULT_ALIGNMENT),
        Some(alignment) if alignment >= 8 && alignment.is_power_of_two() => Ok(alignment),
        Some(found) => Err(GgufError::Alignment { found }),
    }
}

/// Reads the tensors' descriptions; their offsets still count from the start of the tensor data.
fn read_tensors<'a>(cursor: &mut Cursor<'a>, count: u64) -> Result<Vec<TensorInfo<'a>>, GgufError> {
    // A name's length, the number of dimensions, a type and an offset.
    let count = cursor.checked_count(count, 8 + 4 + 4 + 8, || "tensors".to_owned())?;
    let mut tensors = Vec::new();
    for index in 0..count {
        let name = cursor.string(|| format!("the name of tensor number {index}"))?;
        let what = || format!("the description of tensor {}", shown(name));
        let dimensions = cursor.u32(what)?;
        if dimensions > MAX_DIMENSIONS {
            return Err(GgufError::Dimensions {
                name: shown(name),
                count: dimensions,
            });
        }
        let mut shape = Vec::with_capacity(dimensions as usize);
        for _ in 0..dimensions {
            shape.push(cursor.u64(what)?);
        }
        shape.reverse();
        let id = cursor.u32(what)?;
        let dtype = DType::from_file_id(id).ok_or_else(|| GgufError::TensorType {
            name: shown(name),
            id,
            known: unsupported_type_name(id),
        })?;
        let bytes = tensor_bytes(name, dtype, &shape)?;
        let offset = cursor.u64(what)?;
        tensors.push(TensorInfo {
            name,
            dtype,
            shape,
            offset,
            bytes,
        });
    }
    Ok(tensors)
}

fn tensor_bytes(name: &str, dtype: DType, shape: &[u64]) -> Result<u64, GgufError> {
    let too_large = || GgufError::TensorSize {
        name: shown(name),
        shape: shape.to_vec(),
    };
    let (rows, row) = match shape.split_last() {
        Some((row, rows)) => (rows, *row),
        None => (shape, 1),
    };
    if !row.is_multiple_of(dtype.block_len() as u64) {
        return Err(GgufError::PartialBlock {
            name: shown(name),
            dtype,
            row,
        });
    }
    // Values, not bytes: a dimension of 0 must not hide a product of the others that overflows.
    let nonzero = |length: &u64| (*length).max(1);
    shape
        .iter()
        .map(nonzero)
        .try_fold(1, u64::checked_mul)
        .ok_or_else(too_large)?;
    let row_bytes = dtype.row_bytes(row).ok_or_else(too_large)?;
    rows.iter()
        .try_fold(row_bytes, |bytes, length| bytes.checked_mul(*length))
        .ok_or_else(too_large)
}

/// Turns offsets within the tensor data into offsets within the file, and checks them all. The cursor
/// stands behind the last description.
fn place_tensors(
    cursor: &Cursor<'_>,
    alignment: u64,
    tensors: &mut [TensorInfo<'_>],
) -> Result<(), GgufError> {
    let end_of_header = cursor.position() as u64;
    let len = end_of_header + cursor.remaining();
    // Behind the end of a file that has no tensors, or only empty ones.
    let start = end_of_header.checked_next_multiple_of(alignment);
    let start = start.ok_or(GgufError::Alignment { found: alignment })?;
    let available = len.saturating_sub(start);
    for tensor in tensors.iter_mut() {
        let (offset, bytes) = (tensor.offset, tensor.bytes);
        if !offset.is_multiple_of(alignment) {
            return Err(GgufError::Misaligned {
                name: shown(tensor.name),
                offset,
                alignment,
            });
        }
        let end = offset.checked_add(bytes);
        let inside = end.is_some_and(|end| end <= available);
        match start.checked_add(offset) {
            Some(in_file) if inside => tensor.offset = in_file,
            _ => {
                return Err(GgufError::OutOfFile {
                    name: shown(tensor.name),
                    offset,
                    bytes,
                    available,
                });
            }
        }
    }
    check_overlap(tensors)
}

fn check_overlap(tensors: &[TensorInfo<'_>]) -> Result<(), GgufError> {
    let mut by_offset: Vec<&TensorInfo<'_>> =
        tensors.iter().filter(|tensor| tensor.bytes > 0).collect();
    by_offset.sort_by_key(|tensor| tensor.offset);
    for pair in by_offset.windows(2) {
        if pair[1].offset - pair[0].offset < pair[0].bytes {
            return Err(GgufError::Overlap {
                first: shown(pair[0].name),
                second: shown(pair[1].name),
            });
        }
    }
    Ok(())
}

/// The names of GGML's types that [`DType`] does not have, for the error message.
fn unsupported_type_name(id: u32) -> Option<&'static str> {
    Some(match id {
        9 => "q8_1",
        15 => "q8_K",
        24 => "i8",
        25 => "i16",
        27 => "i64",
        28 => "f64",
        _ => return None,
    })
}
