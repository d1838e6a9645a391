//! The runtime's error.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use walsh_formats::gguf::GgufError;

/// What can go wrong in the runtime. Each message is one line and says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The model file cannot be read as GGUF, or lacks metadata.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// The model's vocabulary cannot be used, or a text cannot be put into its tokens.
    #[error("tokenizer: {what}")]
    Tokenizer {
        /// What is wrong and what to do.
        what: String,
    },
    /// A sampling option is out of its range.
    #[error("{name} is {value}: give a number {range}")]
    Sampling {
        /// The option.
        name: &'static str,
        /// What was given.
        value: f32,
        /// What is possible, in words.
        range: &'static str,
    },
    /// A model cannot be found, fetched or kept.
    #[error("{what}")]
    Store {
        /// What is wrong and what to do.
        what: String,
    },
    /// A file cannot be read or written.
    #[error("{}: {why}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong and what to do.
        why: String,
    },
    /// No token can be chosen from the logits.
    #[error("{what}: the model's weights are damaged, download it again")]
    Logits {
        /// What is wrong with them.
        what: String,
    },
}

impl Error {
    pub(crate) fn tokenizer(what: impl Into<String>) -> Error {
        Error::Tokenizer { what: what.into() }
    }

    pub(crate) fn store(what: impl Into<String>) -> Error {
        Error::Store { what: what.into() }
    }

    /// What went wrong with a file or folder, in words that say what to do.
    pub(crate) fn file(path: &Path, error: &io::Error) -> Error {
        let why = match error.kind() {
            ErrorKind::NotFound => "there is no such file, check the path".to_string(),
            ErrorKind::PermissionDenied => {
                "no permission, change it or give another path".to_string()
            }
            ErrorKind::ReadOnlyFilesystem => "read-only, give another path".to_string(),
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                "the disk is full, make room or give another path".to_string()
            }
            ErrorKind::NotADirectory => "not a folder, give another path".to_string(),
            ErrorKind::IsADirectory => "a folder, give a file".to_string(),
            _ => error.to_string(),
        };
        Error::File {
            path: path.to_path_buf(),
            why,
        }
    }
}

/// The runtime's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;
