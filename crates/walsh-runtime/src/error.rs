//! The runtime's error.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use walsh::KvSpec;
use walsh::formats::gguf::GgufError;

use crate::pooling::Pooling;
use crate::size::size_text;

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
    /// The model's chat template cannot be used.
    #[error("chat template: {what}")]
    Template {
        /// What is wrong and what to do.
        what: String,
    },
    /// A conversation is malformed.
    #[error("{what}")]
    Dialogue {
        /// What is wrong, and where.
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
    /// A text that was to be read cannot be used.
    #[error("{name}: {what}")]
    Text {
        /// The file, or what else it came from.
        name: String,
        /// What is wrong and what to do.
        what: String,
    },
    /// A file that Walsh saved cannot be used.
    #[error("{}: {what}", path.display())]
    Saved {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        what: String,
    },
    /// No token can be chosen from the logits.
    #[error("{what}: the model's weights are damaged, download it again")]
    Logits {
        /// What is wrong with them.
        what: String,
    },
    /// The file is sound, but the model in it cannot be run.
    #[error("{}: {what}", path.display())]
    Model {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        what: String,
    },
    /// A LoRA adapter cannot be applied to the model.
    #[error("{what}")]
    Adapter {
        /// Which, what is wrong and what to do.
        what: String,
    },
    /// An op failed.
    #[error(transparent)]
    Core(#[from] walsh::Error),
    /// A prompt or a continuation does not fit into the session's context.
    #[error(
        "{needed} tokens do not fit into the context of {context}: shorten the text or start with a larger context"
    )]
    ContextFull {
        /// How many tokens the session would hold.
        needed: usize,
        /// How many it can hold.
        context: usize,
    },
    /// A session's KV caches can grow to more than the device can still hold.
    #[error(
        "a KV cache of {kv} for {context} tokens can grow to {}, but {} of memory are free: ask for a context of at most {most}, or for a SPEC of fewer bits",
        size_text(*needed), size_text(*available)
    )]
    NoRoom {
        /// How many tokens the session would hold.
        context: usize,
        /// How its caches would be kept.
        kv: KvSpec,
        /// The bytes that they can grow to.
        needed: u64,
        /// The bytes that are free.
        available: u64,
        /// The largest context that would fit.
        most: usize,
    },
    /// Other engines' texts have the memory that an engine needs to begin.
    #[error(
        "the KV cache of one text takes {}, and texts of other models have what else there is of {}: come again when they have ended",
        size_text(*needed), size_text(*budget)
    )]
    MemoryInUse {
        /// The bytes of one text.
        needed: u64,
        /// The bytes of all engines together.
        budget: u64,
    },
    /// An option has a value that cannot be used.
    #[error("{option} must be {expected}, but is {given}")]
    Option {
        /// The option's name.
        option: &'static str,
        /// What is accepted.
        expected: String,
        /// What was given.
        given: String,
    },
    /// A model that was trained to make vectors of texts was asked for a text.
    #[error(
        "the model makes one vector of a text ({pooling} pooling) and no texts: ask for embeddings, or use another model"
    )]
    MakesVectors {
        /// How it makes them.
        pooling: Pooling,
    },
    /// There is nothing to continue.
    #[error(
        "the prompt is empty: give at least one word, or a model that adds a beginning-of-text token"
    )]
    EmptyPrompt,
    /// A call was ended by its [`Watch`](crate::Watch).
    #[error("cancelled before there was anything to show")]
    Cancelled,
    /// What was found cannot be written.
    #[error("the answers cannot be written: {0}")]
    Output(#[source] io::Error),
    /// An engine cannot go on.
    #[error("engine: {what}")]
    Engine {
        /// What is wrong.
        what: String,
    },
    /// A slot of an engine cannot be saved or restored.
    #[error("slot {slot}: {what}")]
    Slot {
        /// Which.
        slot: usize,
        /// What is wrong and what to do.
        what: String,
    },
    /// A text cannot be given the form that a [`Constraint`](crate::Constraint) asks for.
    #[error("constraint: {what}")]
    Constraint {
        /// What is wrong, and where.
        what: String,
    },
    /// A model cannot be measured as asked.
    #[error("{what}")]
    Measure {
        /// What is wrong and what to do.
        what: String,
    },
}

impl Error {
    pub(crate) fn tokenizer(what: impl Into<String>) -> Error {
        Error::Tokenizer { what: what.into() }
    }

    pub(crate) fn template(what: impl Into<String>) -> Error {
        Error::Template { what: what.into() }
    }

    #[cfg(feature = "download")]
    pub(crate) fn store(what: impl Into<String>) -> Error {
        Error::Store { what: what.into() }
    }

    /// What went wrong with a file or folder, in words that say what to do.
    #[must_use]
    pub fn file(path: &Path, error: &io::Error) -> Error {
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

    pub(crate) fn model(path: &Path, what: impl Into<String>) -> Error {
        Error::Model {
            path: path.to_owned(),
            what: what.into(),
        }
    }

    pub(crate) fn adapter(path: &Path, what: impl std::fmt::Display) -> Error {
        let what = format!("{}: {what}", path.display());
        Error::Adapter { what }
    }

    pub(crate) fn saved(path: &Path, what: impl Into<String>) -> Error {
        Error::Saved {
            path: path.to_owned(),
            what: what.into(),
        }
    }

    pub(crate) fn constraint(what: impl Into<String>) -> Error {
        Error::Constraint { what: what.into() }
    }

    pub(crate) fn measure(what: impl Into<String>) -> Error {
        Error::Measure { what: what.into() }
    }

    pub(crate) fn option(
        option: &'static str,
        expected: impl std::fmt::Display,
        given: impl std::fmt::Display,
    ) -> Error {
        Error::Option {
            option,
            expected: expected.to_string(),
            given: given.to_string(),
        }
    }
}

/// The runtime's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;
