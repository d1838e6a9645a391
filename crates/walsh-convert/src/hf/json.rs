//! JSON files, with errors that say which file and key is meant.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::{Error, Result};

/// An object, and the file it is from.
#[derive(Clone, Debug)]
pub(super) struct Json {
    path: PathBuf,
    value: Value,
}

impl Json {
    pub(super) fn open(path: &Path) -> Result<Json> {
        let text = super::files::read(path)?;
        let value: Value =
            serde_json::from_slice(&text).map_err(|error| Error::file(path, error))?;
        if !value.is_object() {
            return Err(Error::file(path, "it is no JSON object"));
        }
        Ok(Json {
            path: path.to_owned(),
            value,
        })
    }

    /// The same where there is such a file.
    pub(super) fn open_optional(path: &Path) -> Result<Option<Json>> {
        path.is_file().then(|| Json::open(path)).transpose()
    }

    pub(super) fn wrong(&self, what: impl ToString) -> Error {
        Error::file(&self.path, what)
    }

    /// The value of a key, unless it is null.
    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        self.value.get(key).filter(|value| !value.is_null())
    }

    /// All keys and their values.
    pub(super) fn all(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.value.as_object().into_iter().flatten()
    }

    /// The object of a key as if it were a file of its own; an empty one where there is none.
    pub(super) fn within(&self, key: &str) -> Json {
        let value = self.get(key).cloned();
        Json {
            path: self.path.clone(),
            value: value.unwrap_or_else(|| Value::Object(Map::new())),
        }
    }

    pub(super) fn object(&self, key: &str) -> Result<&Map<String, Value>> {
        let value = self.get(key).and_then(Value::as_object);
        value.ok_or_else(|| self.wrong(format!("{key} is missing or no object")))
    }

    pub(super) fn array(&self, key: &str) -> Result<&[Value]> {
        let value = self.get(key).and_then(Value::as_array).map(Vec::as_slice);
        value.ok_or_else(|| self.wrong(format!("{key} is missing or no array")))
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        what: &str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        match read(value) {
            Some(value) => Ok(Some(value)),
            None => Err(self.wrong(format!("{key} is {value}, not {what}"))),
        }
    }

    /// A whole number below 2^31, as all sizes are.
    pub(super) fn opt_size(&self, key: &str) -> Result<Option<u32>> {
        self.typed(key, "a whole number below 2^31", |value| {
            let number = u32::try_from(value.as_u64()?).ok()?;
            (number < 1 << 31).then_some(number)
        })
    }

    pub(super) fn size(&self, key: &str) -> Result<u32> {
        let size = self.opt_size(key)?;
        size.ok_or_else(|| self.wrong(format!("{key} is missing")))
    }

    pub(super) fn opt_float(&self, key: &str) -> Result<Option<f64>> {
        self.typed(key, "a number", Value::as_f64)
    }

    pub(super) fn opt_bool(&self, key: &str) -> Result<Option<bool>> {
        self.typed(key, "true or false", Value::as_bool)
    }

    pub(super) fn opt_str(&self, key: &str) -> Result<Option<&str>> {
        self.typed(key, "text", Value::as_str)
    }
}
