//! What can be wrong.

use std::io;
use std::path::{Path, PathBuf};

use walsh_formats::FormatError;
use walsh_formats::gguf::GgufError;

/// The result of most of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a model cannot be read, planned or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file cannot be read.
    #[error("cannot read {}: {why}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// A file is no GGUF file, or a damaged one.
    #[error("{}: {error}", path.display())]
    Gguf {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: GgufError,
    },
    /// An adapter cannot be used, or not with a model.
    #[error("{}: {what}", path.display())]
    Adapter {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The model to be written cannot be one.
    #[error(transparent)]
    Written(#[from] GgufError),
    /// A tensor's values cannot be encoded.
    #[error("tensor {tensor}: {error}")]
    Values {
        /// The tensor.
        tensor: String,
        /// What is wrong with its values.
        error: FormatError,
    },
    /// What was asked for does not go together.
    #[error("{0}")]
    Asked(String),
    /// The output cannot be written.
    #[error("cannot write: {0}")]
    Output(#[from] io::Error),
    /// It was cancelled.
    #[error("cancelled")]
    Cancelled,
}

impl Error {
    pub(crate) fn adapter(path: &Path, what: impl ToString) -> Error {
        Error::Adapter {
            path: path.to_owned(),
            what: what.to_string(),
        }
    }

    pub(crate) fn file(path: &Path, why: impl ToString) -> Error {
        Error::File {
            path: path.to_owned(),
            why: why.to_string(),
        }
    }
}
