//! Metadata values.

use std::fmt;

use super::cursor::Cursor;
use super::error::{GgufError, shown};
use super::limits::MAX_ARRAY_DEPTH;

/// The type of a metadata value, with GGUF's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum ValueType {
    /// An unsigned byte.
    U8 = 0,
    /// A signed byte.
    I8 = 1,
    /// 16 bits, unsigned.
    U16 = 2,
    /// 16 bits, signed.
    I16 = 3,
    /// 32 bits, unsigned.
    U32 = 4,
    /// 32 bits, signed.
    I32 = 5,
    /// Single precision.
    F32 = 6,
    /// One byte, 0 or 1.
    Bool = 7,
    /// UTF-8 with its length in front.
    String = 8,
    /// Values of one type.
    Array = 9,
    /// 64 bits, unsigned.
    U64 = 10,
    /// 64 bits, signed.
    I64 = 11,
    /// Double precision.
    F64 = 12,
}

impl ValueType {
    /// The type with this number.
    pub fn from_id(id: u32) -> Option<ValueType> {
        use ValueType::*;
        [
            U8, I8, U16, I16, U32, I32, F32, Bool, String, Array, U64, I64, F64,
        ]
        .into_iter()
        .find(|kind| *kind as u32 == id)
    }

    /// The bytes of a value, or the fewest that one can take for strings and arrays.
    const fn smallest(self) -> u64 {
        match self {
            ValueType::U8 | ValueType::I8 | ValueType::Bool => 1,
            ValueType::U16 | ValueType::I16 => 2,
            ValueType::U32 | ValueType::I32 | ValueType::F32 => 4,
            ValueType::U64 | ValueType::I64 | ValueType::F64 => 8,
            ValueType::String => 8,
            ValueType::Array => 12,
        }
    }

    /// Whether the type is an integer of any width.
    pub const fn is_integer(self) -> bool {
        use ValueType::*;
        matches!(self, U8 | I8 | U16 | I16 | U32 | I32 | U64 | I64)
    }

    /// GGUF's name of the type.
    pub const fn name(self) -> &'static str {
        match self {
            ValueType::U8 => "u8",
            ValueType::I8 => "i8",
            ValueType::U16 => "u16",
            ValueType::I16 => "i16",
            ValueType::U32 => "u32",
            ValueType::I32 => "i32",
            ValueType::F32 => "f32",
            ValueType::Bool => "bool",
            ValueType::String => "string",
            ValueType::Array => "array",
            ValueType::U64 => "u64",
            ValueType::I64 => "i64",
            ValueType::F64 => "f64",
        }
    }
}

impl fmt::Display for ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A metadata value; strings and arrays borrow from the file.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs)] // the variants are those of `ValueType`
pub enum Value<'a> {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    String(&'a str),
    Array(Array<'a>),
    U64(u64),
    I64(i64),
    F64(f64),
}

impl<'a> Value<'a> {
    /// The value's type.
    pub fn value_type(&self) -> ValueType {
        match self {
            Value::U8(_) => ValueType::U8,
            Value::I8(_) => ValueType::I8,
            Value::U16(_) => ValueType::U16,
            Value::I16(_) => ValueType::I16,
            Value::U32(_) => ValueType::U32,
            Value::I32(_) => ValueType::I32,
            Value::F32(_) => ValueType::F32,
            Value::Bool(_) => ValueType::Bool,
            Value::String(_) => ValueType::String,
            Value::Array(_) => ValueType::Array,
            Value::U64(_) => ValueType::U64,
            Value::I64(_) => ValueType::I64,
            Value::F64(_) => ValueType::F64,
        }
    }

    /// The value of any integer type.
    pub fn integer(&self) -> Option<i128> {
        match *self {
            Value::U8(value) => Some(value.into()),
            Value::I8(value) => Some(value.into()),
            Value::U16(value) => Some(value.into()),
            Value::I16(value) => Some(value.into()),
            Value::U32(value) => Some(value.into()),
            Value::I32(value) => Some(value.into()),
            Value::U64(value) => Some(value.into()),
            Value::I64(value) => Some(value.into()),
            _ => None,
        }
    }

    /// What the value is, for messages: `u32`, `array of 3 string`.
    pub(super) fn describe(&self) -> String {
        match self {
            Value::Array(array) => format!("array of {} {}", array.len, array.element),
            other => other.value_type().to_string(),
        }
    }

    pub(super) fn read(
        cursor: &mut Cursor<'a>,
        kind: ValueType,
        at: Place<'a>,
    ) -> Result<Value<'a>, GgufError> {
        let what = || format!("the value of metadata key {}", shown(at.key));
        Ok(match kind {
            ValueType::U8 => Value::U8(cursor.u8(what)?),
            ValueType::I8 => Value::I8(cursor.u8(what)? as i8),
            ValueType::U16 => Value::U16(cursor.u16(what)?),
            ValueType::I16 => Value::I16(cursor.u16(what)? as i16),
            ValueType::U32 => Value::U32(cursor.u32(what)?),
            ValueType::I32 => Value::I32(cursor.u32(what)? as i32),
            ValueType::F32 => Value::F32(f32::from_bits(cursor.u32(what)?)),
            ValueType::Bool => match cursor.u8(what)? {
                0 => Value::Bool(false),
                1 => Value::Bool(true),
                value => {
                    let key = shown(at.key);
                    return Err(GgufError::Bool { key, value });
                }
            },
            ValueType::String => Value::String(cursor.string(what)?),
            ValueType::Array => Value::Array(Array::read(cursor, at)?),
            ValueType::U64 => Value::U64(cursor.u64(what)?),
            ValueType::I64 => Value::I64(cursor.u64(what)? as i64),
            ValueType::F64 => Value::F64(f64::from_bits(cursor.u64(what)?)),
        })
    }
}

impl fmt::Display for Value<'_> {
    /// The value itself; of an array its type and length.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::F32(value) => write!(f, "{value}"),
            Value::F64(value) => write!(f, "{value}"),
            Value::Bool(value) => write!(f, "{value}"),
            Value::String(value) => f.write_str(value),
            Value::Array(_) => f.write_str(&self.describe()),
            integer => write!(f, "{}", integer.integer().unwrap_or_default()),
        }
    }
}

/// Where a value stands: its key, and how many arrays it lies in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Place<'a> {
    pub(super) key: &'a str,
    pub(super) depth: usize,
}

/// An array of a metadata value, decoded as it is iterated over.
///
/// Its extent in the file was checked when the file was parsed. What its elements hold is checked by
/// the accessors, whose errors name the metadata key.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Array<'a> {
    place: Place<'a>,
    element: ValueType,
    len: usize,
    bytes: &'a [u8],
}

impl<'a> Array<'a> {
    fn read(cursor: &mut Cursor<'a>, at: Place<'a>) -> Result<Array<'a>, GgufError> {
        let key = || shown(at.key);
        let what = || format!("the array of metadata key {}", key());
        if at.depth >= MAX_ARRAY_DEPTH {
            return Err(GgufError::ArrayDepth { key: key() });
        }
        let id = cursor.u32(what)?;
        let element =
            ValueType::from_id(id).ok_or_else(|| GgufError::ValueType { key: key(), id })?;
        let count = cursor.u64(what)?;
        let count = cursor.checked_count(count, element.smallest(), || {
            format!("{element} elements of metadata key {}", key())
        })?;
        let start = cursor.position();
        let inner = Place {
            depth: at.depth + 1,
            ..at
        };
        match element {
            ValueType::String => {
                for _ in 0..count {
                    cursor.string_bytes(what)?;
                }
            }
            ValueType::Array => {
                for _ in 0..count {
                    Array::read(cursor, inner)?;
                }
            }
            // No overflow: `checked_count` has made this product.
            fixed => {
                cursor.take(count * fixed.smallest(), what)?;
            }
        }
        Ok(Array {
            place: inner,
            element,
            // No truncation: every element takes a byte or more of a slice in memory.
            len: count as usize,
            bytes: cursor.since(start),
        })
    }

    /// The type of the elements.
    pub fn element_type(&self) -> ValueType {
        self.element
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The elements one after the other. A string that is not UTF-8, or a boolean other than 0 and 1, is
    /// an error at its place; the elements after it still come.
    pub fn values(&self) -> impl ExactSizeIterator<Item = Result<Value<'a>, GgufError>> + use<'a> {
        let array = *self;
        let mut cursor = Cursor::new(array.bytes);
        (0..array.len).map(move |_| {
            let read = Value::read(&mut cursor, array.element, array.place);
            read.map_err(|error| match error {
                // Positions within the array would read as positions in the file.
                GgufError::Utf8 { .. } => GgufError::Utf8 {
                    what: format!("a string of metadata key {}", shown(array.place.key)),
                },
                other => other,
            })
        })
    }

    /// The elements' bytes of an array of strings, whether or not they are UTF-8.
    ///
    /// # Errors
    /// [`GgufError::WrongType`] for an array of other elements.
    pub fn byte_strings(
        &self,
    ) -> Result<impl ExactSizeIterator<Item = &'a [u8]> + use<'a>, GgufError> {
        self.expect(self.element == ValueType::String, "array of string")?;
        let mut cursor = Cursor::new(self.bytes);
        // Parsing has read every one of these, so that the default is never used.
        Ok((0..self.len).map(move |_| cursor.string_bytes(String::new).unwrap_or_default()))
    }

    /// The elements of an array of strings. All are checked to be UTF-8 beforehand, and only once: a
    /// vocabulary has hundreds of thousands.
    ///
    /// # Errors
    /// [`GgufError::WrongType`] for an array of other elements, [`GgufError::Utf8`] for a string that is not UTF-8.
    pub fn strings(&self) -> Result<impl ExactSizeIterator<Item = &'a str> + use<'a>, GgufError> {
        let stored = self.byte_strings()?;
        let mut strings = Vec::with_capacity(self.len);
        for (index, bytes) in stored.enumerate() {
            let string = std::str::from_utf8(bytes).map_err(|_| GgufError::Utf8 {
                what: format!("string {index} of metadata key {}", shown(self.place.key)),
            })?;
            strings.push(string);
        }
        Ok(strings.into_iter())
    }

    /// The elements of an array of single-precision floats.
    ///
    /// # Errors
    /// [`GgufError::WrongType`] for an array of other elements.
    pub fn f32s(&self) -> Result<impl ExactSizeIterator<Item = f32> + use<'a>, GgufError> {
        self.expect(self.element == ValueType::F32, "array of f32")?;
        let (chunks, _) = self.bytes.as_chunks::<4>();
        Ok(chunks.iter().map(|bytes| f32::from_le_bytes(*bytes)))
    }

    /// The elements of an array of any integer type, all of which fit 32 bits with a sign.
    ///
    /// # Errors
    /// [`GgufError::WrongType`] for an array of other elements, [`GgufError::IntegerRange`] for one that does not fit.
    pub fn i32s(&self) -> Result<impl ExactSizeIterator<Item = i32> + use<'a>, GgufError> {
        let expected = "array of i32";
        if self.element == ValueType::I32 {
            let (chunks, _) = self.bytes.as_chunks::<4>();
            let integers: Vec<i32> = chunks
                .iter()
                .map(|bytes| i32::from_le_bytes(*bytes))
                .collect();
            return Ok(integers.into_iter());
        }
        self.expect(self.element.is_integer(), expected)?;
        let mut integers = Vec::with_capacity(self.len);
        for value in self.values().filter_map(|element| element.ok()?.integer()) {
            integers.push(i32::try_from(value).map_err(|_| GgufError::IntegerRange {
                key: shown(self.place.key),
                expected,
                value,
            })?);
        }
        Ok(integers.into_iter())
    }

    /// The elements of an array of booleans.
    ///
    /// # Errors
    /// [`GgufError::WrongType`] for an array of other elements, [`GgufError::Bool`] for one that is neither 0 nor 1.
    pub fn bools(&self) -> Result<impl ExactSizeIterator<Item = bool> + use<'a>, GgufError> {
        self.expect(self.element == ValueType::Bool, "array of bool")?;
        if let Some(&value) = self.bytes.iter().find(|byte| **byte > 1) {
            let key = shown(self.place.key);
            return Err(GgufError::Bool { key, value });
        }
        Ok(self.bytes.iter().map(|byte| *byte == 1))
    }

    fn expect(&self, holds: bool, expected: &'static str) -> Result<(), GgufError> {
        if holds {
            return Ok(());
        }
        Err(GgufError::WrongType {
            key: shown(self.place.key),
            expected,
            found: Value::Array(*self).describe(),
        })
    }
}
