//! The key-value pairs of a file, and typed access to them.

use std::collections::HashMap;

use super::error::{GgufError, shown};
use super::value::{Array, Value};

/// The metadata of a file: pairs of a key and a value, in the file's order.
///
/// The typed getters come in two kinds. `u32(key)` and its like need the key; `opt_u32(key)` and its like
/// return `None` when it is absent. Both refuse a value of another type, naming the key, what was
/// expected and what is there. Integers of any width and sign serve wherever their value fits.
#[derive(Clone, Debug, Default)]
pub struct Metadata<'a> {
    entries: Vec<(&'a str, Value<'a>)>,
    by_key: HashMap<&'a str, usize>,
}

impl<'a> Metadata<'a> {
    pub(super) fn insert(&mut self, key: &'a str, value: Value<'a>) -> Result<(), GgufError> {
        if self.by_key.insert(key, self.entries.len()).is_some() {
            return Err(GgufError::DuplicateKey { key: shown(key) });
        }
        self.entries.push((key, value));
        Ok(())
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Value<'a>> {
        self.by_key.get(key).map(|&index| &self.entries[index].1)
    }

    /// All pairs in the file's order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&'a str, &Value<'a>)> {
        self.entries.iter().map(|(key, value)| (*key, value))
    }

    /// The number of pairs.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no pairs.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn integer<T: TryFrom<i128>>(
        &self,
        key: &str,
        expected: &'static str,
    ) -> Result<Option<T>, GgufError> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        let integer = value
            .integer()
            .ok_or_else(|| wrong_type(key, expected, value))?;
        match T::try_from(integer) {
            Ok(value) => Ok(Some(value)),
            Err(_) => Err(GgufError::IntegerRange {
                key: shown(key),
                expected,
                value: integer,
            }),
        }
    }

    fn typed<T>(
        &self,
        key: &str,
        expected: &'static str,
        get: impl FnOnce(&Value<'a>) -> Option<T>,
    ) -> Result<Option<T>, GgufError> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        match get(value) {
            Some(value) => Ok(Some(value)),
            None => Err(wrong_type(key, expected, value)),
        }
    }

    /// A non-negative integer, if the key is there.
    ///
    /// # Errors
    /// [`GgufError::WrongType`] for a value that is no integer, [`GgufError::IntegerRange`] for one out of the range.
    pub fn opt_u64(&self, key: &str) -> Result<Option<u64>, GgufError> {
        self.integer(key, "u64")
    }

    /// A non-negative integer below 2^32, if the key is there.
    ///
    /// # Errors
    /// [`GgufError::WrongType`] for a value that is no integer, [`GgufError::IntegerRange`] for one out of the range.
    pub fn opt_u32(&self, key: &str) -> Result<Option<u32>, GgufError> {
        self.integer(key, "u32")
    }

    /// A 32-bit integer with a sign, if the key is there.
    ///
    /// # Errors
    /// [`GgufError::WrongType`] for a value that is no integer, [`GgufError::IntegerRange`] for one out of the range.
    pub fn opt_i32(&self, key: &str) -> Result<Option<i32>, GgufError> {
        self.integer(key, "i32")
    }

    /// A float, if the key is there; double precision is rounded.
    ///
    /// # Errors
    /// [`GgufError::WrongType`] for a value of another type.
    pub fn opt_f32(&self, key: &str) -> Result<Option<f32>, GgufError> {
        self.typed(key, "f32", |value| match *value {
            Value::F32(value) => Some(value),
            Value::F64(value) => Some(value as f32),
            _ => None,
        })
    }

    /// A boolean, if the key is there.
    ///
    /// # Errors
    /// [`GgufError::WrongType`] for a value of another type.
    pub fn opt_bool(&self, key: &str) -> Result<Option<bool>, GgufError> {
        self.typed(key, "bool", |value| match *value {
            Value::Bool(value) => Some(value),
            _ => None,
        })
    }

    /// A string, if the key is there.
    ///
    /// # Errors
    /// [`GgufError::WrongType`] for a value of another type.
    pub fn opt_str(&self, key: &str) -> Result<Option<&'a str>, GgufError> {
        self.typed(key, "string", |value| match *value {
            Value::String(value) => Some(value),
            _ => None,
        })
    }

    /// An array, if the key is there.
    ///
    /// # Errors
    /// [`GgufError::WrongType`] for a value of another type.
    pub fn opt_array(&self, key: &str) -> Result<Option<Array<'a>>, GgufError> {
        self.typed(key, "array", |value| match *value {
            Value::Array(value) => Some(value),
            _ => None,
        })
    }

    /// A non-negative integer.
    ///
    /// # Errors
    /// [`GgufError::MissingKey`] when it is not there; else as [`opt_u64`](Self::opt_u64).
    pub fn u64(&self, key: &str) -> Result<u64, GgufError> {
        required(key, self.opt_u64(key))
    }

    /// A non-negative integer below 2^32.
    ///
    /// # Errors
    /// [`GgufError::MissingKey`] when it is not there; else as [`opt_u32`](Self::opt_u32).
    pub fn u32(&self, key: &str) -> Result<u32, GgufError> {
        required(key, self.opt_u32(key))
    }

    /// A 32-bit integer with a sign.
    ///
    /// # Errors
    /// [`GgufError::MissingKey`] when it is not there; else as [`opt_i32`](Self::opt_i32).
    pub fn i32(&self, key: &str) -> Result<i32, GgufError> {
        required(key, self.opt_i32(key))
    }

    /// A float; double precision is rounded.
    ///
    /// # Errors
    /// [`GgufError::MissingKey`] when it is not there; else as [`opt_f32`](Self::opt_f32).
    pub fn f32(&self, key: &str) -> Result<f32, GgufError> {
        required(key, self.opt_f32(key))
    }

    /// A boolean.
    ///
    /// # Errors
    /// [`GgufError::MissingKey`] when it is not there; else as [`opt_bool`](Self::opt_bool).
    pub fn bool(&self, key: &str) -> Result<bool, GgufError> {
        required(key, self.opt_bool(key))
    }

    /// A string.
    ///
    /// # Errors
    /// [`GgufError::MissingKey`] when it is not there; else as [`opt_str`](Self::opt_str).
    pub fn str(&self, key: &str) -> Result<&'a str, GgufError> {
        required(key, self.opt_str(key))
    }

    /// An array.
    ///
    /// # Errors
    /// [`GgufError::MissingKey`] when it is not there; else as [`opt_array`](Self::opt_array).
    pub fn array(&self, key: &str) -> Result<Array<'a>, GgufError> {
        required(key, self.opt_array(key))
    }
}

fn required<T>(key: &str, found: Result<Option<T>, GgufError>) -> Result<T, GgufError> {
    found?.ok_or_else(|| GgufError::MissingKey { key: shown(key) })
}

fn wrong_type(key: &str, expected: &'static str, found: &Value<'_>) -> GgufError {
    GgufError::WrongType {
        key: shown(key),
        expected,
        found: found.describe(),
    }
}
