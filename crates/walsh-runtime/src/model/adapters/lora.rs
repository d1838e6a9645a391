//! Adapters as they are asked for, and as they are told of.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use walsh_convert::Adapter;

use super::selection::check_scale;
use crate::{Error, Result};

/// A LoRA adapter that a model is to have: a GGUF file or a folder that PEFT has saved, and how much of it counts.
///
/// Its text form is `PATH` or `PATH=SCALE`.
///
/// ```
/// use walsh_runtime::Lora;
///
/// let lora: Lora = "sql.gguf=0.5".parse()?;
/// assert_eq!((lora.path.to_str(), lora.scale), (Some("sql.gguf"), 0.5));
/// assert_eq!("sql.gguf".parse::<Lora>()?.scale, 1.0);
/// # Ok::<(), walsh_runtime::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Lora {
    /// The file or folder.
    pub path: PathBuf,
    /// What its products are multiplied by, besides what it says itself.
    pub scale: f32,
}

impl Lora {
    /// What the adapter is called: the name of its file without the ending, or of its folder.
    #[must_use]
    pub fn name(&self) -> String {
        Adapter::name_of(&self.path)
    }
}

impl FromStr for Lora {
    type Err = Error;

    /// What follows the last `=` is a scale if it is a number, and part of the path otherwise.
    fn from_str(text: &str) -> Result<Self> {
        let scaled = text.rsplit_once('=').and_then(|(path, scale)| {
            let scale: f32 = scale.parse().ok()?;
            Some((path, scale))
        });
        let (path, scale) = scaled.unwrap_or((text, 1.0));
        if path.is_empty() {
            return Err(Error::option("lora", "PATH or PATH=SCALE", text));
        }
        check_scale(scale)?;
        Ok(Self {
            path: PathBuf::from(path),
            scale,
        })
    }
}

impl fmt::Display for Lora {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.path.display(), self.scale)
    }
}

/// An adapter that a model has.
#[derive(Debug, Clone, PartialEq)]
pub struct AdapterInfo {
    /// The name of its file without the ending, or of its folder.
    pub name: String,
    /// The file or folder.
    pub path: PathBuf,
    /// What a text takes of it that says nothing else.
    pub scale: f32,
}
