//! Writing GGUF files (version 3).
//!
//! ```
//! use walsh_formats::DType;
//! use walsh_formats::gguf::{Gguf, GgufError};
//! use walsh_formats::gguf::write::{NewTensor, Writer};
//!
//! # fn main() -> Result<(), GgufError> {
//! let mut writer = Writer::new();
//! writer.set("general.architecture", "llama")?;
//! writer.set("llama.block_count", 2_u32)?;
//! writer.set("tokenizer.ggml.tokens", vec!["<s>", "a", "b"])?;
//! writer.tensor(NewTensor {
//!     name: "output_norm.weight",
//!     dtype: DType::F32,
//!     shape: &[2],
//!     data: bytemuck::cast_slice(&[1.0_f32, 1.0]).into(),
//! })?;
//! let bytes = writer.to_bytes();
//! assert_eq!(Gguf::parse(&bytes)?.metadata().u32("llama.block_count")?, 2);
//! # Ok(())
//! # }
//! ```

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::io::{self, Read, Write};

use super::error::{GgufError, shown};
use super::{DEFAULT_ALIGNMENT, MAX_ARRAY_DEPTH, MAX_DIMENSIONS, Value, ValueType};
use crate::dtype::DType;

/// A metadata value to be written. `From` makes one of Rust's integers, floats, booleans, strings and
/// vectors of them.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)] // the variants are those of `ValueType`
pub enum NewValue {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    String(String),
    U64(u64),
    I64(i64),
    F64(f64),
    /// Values of one type, which an empty array must state too.
    Array(ValueType, Vec<NewValue>),
}

impl NewValue {
    /// The type of the value.
    pub fn value_type(&self) -> ValueType {
        match self {
            NewValue::U8(_) => ValueType::U8,
            NewValue::I8(_) => ValueType::I8,
            NewValue::U16(_) => ValueType::U16,
            NewValue::I16(_) => ValueType::I16,
            NewValue::U32(_) => ValueType::U32,
            NewValue::I32(_) => ValueType::I32,
            NewValue::F32(_) => ValueType::F32,
            NewValue::Bool(_) => ValueType::Bool,
            NewValue::String(_) => ValueType::String,
            NewValue::U64(_) => ValueType::U64,
            NewValue::I64(_) => ValueType::I64,
            NewValue::F64(_) => ValueType::F64,
            NewValue::Array(..) => ValueType::Array,
        }
    }

    fn check(&self, key: &str, depth: usize) -> Result<(), GgufError> {
        let NewValue::Array(element, values) = self else {
            return Ok(());
        };
        if depth >= MAX_ARRAY_DEPTH {
            let key = shown(key);
            return Err(GgufError::ArrayDepth { key });
        }
        for value in values {
            if value.value_type() != *element {
                return Err(GgufError::Write {
                    what: format!(
                        "metadata key {} mixes {element} and {}: give values of one type",
                        shown(key),
                        value.value_type()
                    ),
                });
            }
            value.check(key, depth + 1)?;
        }
        Ok(())
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            NewValue::U8(value) => out.extend(value.to_le_bytes()),
            NewValue::I8(value) => out.extend(value.to_le_bytes()),
            NewValue::U16(value) => out.extend(value.to_le_bytes()),
            NewValue::I16(value) => out.extend(value.to_le_bytes()),
            NewValue::U32(value) => out.extend(value.to_le_bytes()),
            NewValue::I32(value) => out.extend(value.to_le_bytes()),
            NewValue::F32(value) => out.extend(value.to_le_bytes()),
            NewValue::Bool(value) => out.push(u8::from(*value)),
            NewValue::String(value) => write_string(value, out),
            NewValue::U64(value) => out.extend(value.to_le_bytes()),
            NewValue::I64(value) => out.extend(value.to_le_bytes()),
            NewValue::F64(value) => out.extend(value.to_le_bytes()),
            NewValue::Array(element, values) => {
                out.extend((*element as u32).to_le_bytes());
                out.extend((values.len() as u64).to_le_bytes());
                for value in values {
                    value.write(out);
                }
            }
        }
    }
}

impl TryFrom<Value<'_>> for NewValue {
    type Error = GgufError;

    /// A copy of a file's value.
    ///
    /// # Errors
    /// Those of the elements of an array, such as text that is not UTF-8.
    fn try_from(value: Value<'_>) -> Result<NewValue, GgufError> {
        Ok(match value {
            Value::U8(value) => NewValue::U8(value),
            Value::I8(value) => NewValue::I8(value),
            Value::U16(value) => NewValue::U16(value),
            Value::I16(value) => NewValue::I16(value),
            Value::U32(value) => NewValue::U32(value),
            Value::I32(value) => NewValue::I32(value),
            Value::F32(value) => NewValue::F32(value),
            Value::Bool(value) => NewValue::Bool(value),
            Value::String(value) => NewValue::String(value.to_owned()),
            Value::U64(value) => NewValue::U64(value),
            Value::I64(value) => NewValue::I64(value),
            Value::F64(value) => NewValue::F64(value),
            Value::Array(array) => {
                let values = array.values().map(|value| NewValue::try_from(value?));
                NewValue::Array(array.element_type(), values.collect::<Result<_, _>>()?)
            }
        })
    }
}

macro_rules! from {
    ($($type:ty => $variant:ident,)*) => {$(
        impl From<$type> for NewValue {
            fn from(value: $type) -> NewValue {
                NewValue::$variant(value.into())
            }
        }

        impl From<Vec<$type>> for NewValue {
            fn from(values: Vec<$type>) -> NewValue {
                let values = values.into_iter().map(NewValue::from).collect();
                NewValue::Array(ValueType::$variant, values)
            }
        }
    )*};
}

from! {
    u8 => U8,
    i8 => I8,
    u16 => U16,
    i16 => I16,
    u32 => U32,
    i32 => I32,
    f32 => F32,
    bool => Bool,
    &str => String,
    String => String,
    u64 => U64,
    i64 => I64,
    f64 => F64,
}

/// A tensor to be written.
#[derive(Clone, Debug)]
pub struct NewTensor<'n, 'a> {
    /// The name, which no other tensor of the file has.
    pub name: &'n str,
    /// How the values are stored.
    pub dtype: DType,
    /// The lengths, outermost first: `[rows, columns]`, at most four.
    pub shape: &'n [u64],
    /// The stored values.
    pub data: Cow<'a, [u8]>,
}

#[derive(Clone, Debug)]
struct Tensor<'a> {
    name: String,
    file_id: u32,
    shape: Vec<u64>,
    bytes: u64,
    /// Empty where the data is streamed.
    data: Cow<'a, [u8]>,
}

/// Collects metadata and tensors, and writes them as one file. The tensors' data may be borrowed.
#[derive(Clone, Debug)]
pub struct Writer<'a> {
    alignment: u64,
    metadata: Vec<(String, NewValue)>,
    by_key: HashMap<String, usize>,
    tensors: Vec<Tensor<'a>>,
    names: HashSet<String>,
}

impl Default for Writer<'_> {
    fn default() -> Self {
        Self::new()
    }
}

impl<'a> Writer<'a> {
    /// A file without metadata and tensors, aligned to [`DEFAULT_ALIGNMENT`].
    pub fn new() -> Writer<'a> {
        Writer {
            alignment: DEFAULT_ALIGNMENT,
            metadata: Vec::new(),
            by_key: HashMap::new(),
            tensors: Vec::new(),
            names: HashSet::new(),
        }
    }

    /// Sets a metadata key, replacing a former value. `general.alignment` must be a `u32`, and sets the
    /// file's alignment.
    ///
    /// # Errors
    /// When the value cannot be written, such as an array that is nested too deeply, or is no alignment. Nothing is set
    /// then.
    pub fn set(&mut self, key: &str, value: impl Into<NewValue>) -> Result<(), GgufError> {
        let value = value.into();
        value.check(key, 0)?;
        if key == "general.alignment" {
            match value {
                NewValue::U32(found) if found >= 8 && found.is_power_of_two() => {
                    self.alignment = found.into();
                }
                NewValue::U32(found) => {
                    let found = found.into();
                    return Err(GgufError::Alignment { found });
                }
                other => {
                    return Err(GgufError::WrongType {
                        key: shown(key),
                        expected: "u32",
                        found: other.value_type().to_string(),
                    });
                }
            }
        }
        match self.by_key.get(key) {
            Some(&index) => self.metadata[index].1 = value,
            None => {
                self.by_key.insert(key.to_owned(), self.metadata.len());
                self.metadata.push((key.to_owned(), value));
            }
        }
        Ok(())
    }

    /// Adds a tensor. Its type must be one of GGML's, and its data must have the size that type and shape
    /// ask for.
    ///
    /// # Errors
    /// [`GgufError::Write`] for a type that is not GGML's, more than four dimensions or data of another size,
    /// [`GgufError::DuplicateTensor`] for a name that is there; and when shape and type do not go together.
    pub fn tensor(&mut self, tensor: NewTensor<'_, 'a>) -> Result<(), GgufError> {
        let NewTensor {
            name,
            dtype,
            shape,
            data,
        } = tensor;
        let bytes = super::tensor_bytes(name, dtype, shape)?;
        if bytes != data.len() as u64 {
            return Err(GgufError::Write {
                what: format!(
                    "tensor {}: {dtype} values of shape {shape:?} take {bytes} bytes, but {} are given",
                    shown(name),
                    data.len()
                ),
            });
        }
        self.declare(name, dtype, shape)?;
        if let Some(declared) = self.tensors.last_mut() {
            declared.data = data;
        }
        Ok(())
    }

    /// Adds a tensor whose data comes later, through [`stream`](Self::stream).
    ///
    /// # Errors
    /// As [`tensor`](Self::tensor).
    pub fn declare(&mut self, name: &str, dtype: DType, shape: &[u64]) -> Result<(), GgufError> {
        let fail = |what: &str| {
            let what = format!("tensor {}: {what}", shown(name));
            Err(GgufError::Write { what })
        };
        let Some(file_id) = dtype.file_id() else {
            return fail(&format!("{dtype} has no number in files, use another type"));
        };
        if shape.len() > MAX_DIMENSIONS as usize {
            return fail("it has more than four dimensions, join some");
        }
        let bytes = super::tensor_bytes(name, dtype, shape)?;
        if !self.names.insert(name.to_owned()) {
            let name = shown(name);
            return Err(GgufError::DuplicateTensor { name });
        }
        self.tensors.push(Tensor {
            name: name.to_owned(),
            file_id,
            shape: shape.to_vec(),
            bytes,
            data: Cow::Borrowed(&[]),
        });
        Ok(())
    }

    /// Writes the file. Make `out` buffered when tensors are small.
    ///
    /// # Errors
    /// Those of `out`; what was written before stays.
    pub fn write_to(&self, out: &mut impl Write) -> io::Result<()> {
        let mut header = self.header();
        self.pad(&mut header);
        out.write_all(&header)?;
        let mut padding = Vec::new();
        for tensor in &self.tensors {
            out.write_all(&tensor.data)?;
            padding.resize(self.padded(tensor.data.len()) - tensor.data.len(), 0);
            out.write_all(&padding)?;
        }
        Ok(())
    }

    /// Writes the head of the file, whose tensors' data is then put one after the other.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn stream<W: Write>(&self, mut out: W) -> io::Result<Streamed<'_, W>> {
        out.write_all(&self.head())?;
        Ok(self.go_on(out, 0))
    }

    /// Goes on with a file that has its head and the data of the first so many tensors, up to [`end_of`](Self::end_of) them.
    pub fn go_on<W: Write>(&self, out: W, tensors: usize) -> Streamed<'_, W> {
        Streamed {
            tensors: self.tensors[tensors.min(self.tensors.len())..].iter(),
            missing: 0,
            padding: 0,
            alignment: self.alignment,
            out,
        }
    }

    /// The head of the file, before the first tensor's data.
    pub fn head(&self) -> Vec<u8> {
        let mut head = self.header();
        self.pad(&mut head);
        head
    }

    /// Where the data of the first so many tensors ends in the file, with what is put behind it.
    pub fn end_of(&self, tensors: usize) -> u64 {
        let data = self.tensors.iter().take(tensors);
        let data: u64 = data
            .map(|tensor| tensor.bytes.next_multiple_of(self.alignment))
            .sum();
        self.padded(self.header().len()) as u64 + data
    }

    /// The bytes of the file.
    pub fn file_bytes(&self) -> u64 {
        self.end_of(self.tensors.len())
    }

    /// The file in memory.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.header();
        for tensor in &self.tensors {
            self.pad(&mut bytes);
            bytes.extend_from_slice(&tensor.data);
        }
        self.pad(&mut bytes);
        bytes
    }

    fn padded(&self, len: usize) -> usize {
        // No truncation: an alignment is set as a `u32`.
        len.next_multiple_of(self.alignment as usize)
    }

    fn pad(&self, bytes: &mut Vec<u8>) {
        bytes.resize(self.padded(bytes.len()), 0);
    }

    fn header(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(3_u32.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.metadata.len() as u64).to_le_bytes());
        for (key, value) in &self.metadata {
            write_string(key, &mut out);
            out.extend((value.value_type() as u32).to_le_bytes());
            value.write(&mut out);
        }
        let mut offset = 0_u64;
        for tensor in &self.tensors {
            write_string(&tensor.name, &mut out);
            out.extend((tensor.shape.len() as u32).to_le_bytes());
            for length in tensor.shape.iter().rev() {
                out.extend(length.to_le_bytes());
            }
            out.extend(tensor.file_id.to_le_bytes());
            out.extend(offset.to_le_bytes());
            offset += tensor.bytes.next_multiple_of(self.alignment);
        }
        out
    }
}

/// A file whose head is written, and whose tensors follow in the order in which they were declared.
#[derive(Debug)]
pub struct Streamed<'w, W> {
    tensors: std::slice::Iter<'w, Tensor<'w>>,
    /// What the tensor that is being put lacks.
    missing: u64,
    padding: u64,
    alignment: u64,
    out: W,
}

impl<W: Write> Streamed<'_, W> {
    /// Writes the next piece of data, which lies within one tensor.
    ///
    /// # Errors
    /// Those of the file, and [`io::ErrorKind::InvalidInput`] for more data than the tensor has.
    pub fn put(&mut self, data: &[u8]) -> io::Result<()> {
        while self.missing == 0 && !data.is_empty() {
            let Some(tensor) = self.tensors.next() else {
                return Err(misfit("data behind the last tensor"));
            };
            self.missing = tensor.bytes;
            self.padding = tensor.bytes.next_multiple_of(self.alignment) - tensor.bytes;
        }
        let Some(missing) = self.missing.checked_sub(data.len() as u64) else {
            return Err(misfit("more data than the tensor has"));
        };
        self.out.write_all(data)?;
        self.missing = missing;
        if missing == 0 {
            io::copy(&mut io::repeat(0).take(self.padding), &mut self.out)?;
            self.padding = 0;
        }
        Ok(())
    }

    /// The end of the file.
    ///
    /// # Errors
    /// Those of the file, and [`io::ErrorKind::InvalidInput`] where data is missing.
    pub fn finish(mut self) -> io::Result<W> {
        let is_whole = self.missing == 0 && self.tensors.all(|tensor| tensor.bytes == 0);
        if !is_whole {
            return Err(misfit("less data than the tensors have"));
        }
        self.out.flush()?;
        Ok(self.out)
    }
}

fn misfit(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what)
}

fn write_string(value: &str, out: &mut Vec<u8>) {
    out.extend((value.len() as u64).to_le_bytes());
    out.extend(value.as_bytes());
}
