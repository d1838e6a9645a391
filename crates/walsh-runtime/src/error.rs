//! The runtime's error.

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
}

/// The runtime's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;
