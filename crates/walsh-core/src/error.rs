use walsh_formats::FormatError;
use walsh_formats::kv::KvError;

/// The result of every fallible call of this crate and of the backends.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong between describing an op and reading its result.
///
/// Each message is one line that says what was expected and what was given.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An argument of an op or of a constructor does not fit.
    #[error("{op}: {argument} must be {expected}, but is {given}")]
    InvalidArgument {
        /// The op or constructor that was called.
        op: &'static str,
        /// The argument's field name.
        argument: &'static str,
        /// What is accepted.
        expected: String,
        /// What was passed.
        given: String,
    },
    /// A backend has no implementation of an op for these types or shapes.
    #[error("{op} is not supported by the {backend} backend: {why}")]
    Unsupported {
        /// The op that was asked for.
        op: &'static str,
        /// The backend's name.
        backend: &'static str,
        /// The reason, and what would work instead where there is something.
        why: String,
    },
    /// A value that is known only when the op runs (a token id, a position, a
    /// key vector) is out of range or not finite.
    #[error("{op}: {message}")]
    Value {
        /// The op that met the value.
        op: &'static str,
        /// What the value was and what is accepted.
        message: String,
    },
    /// The device cannot provide this much memory.
    #[error("{device}: no memory for {bytes} bytes")]
    OutOfMemory {
        /// The device's name.
        device: String,
        /// How much was asked for.
        bytes: u64,
    },
    /// The device failed, or could not be opened.
    #[error("{device}: {message}")]
    Device {
        /// The device's name.
        device: String,
        /// What happened.
        message: String,
    },
    /// Stored data is malformed.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// A KV codec cannot be used as asked.
    #[error(transparent)]
    Kv(#[from] KvError),
}

impl Error {
    /// An [`Error::InvalidArgument`] from anything printable.
    pub fn argument(
        op: &'static str,
        argument: &'static str,
        expected: impl std::fmt::Display,
        given: impl std::fmt::Display,
    ) -> Self {
        Self::InvalidArgument {
            op,
            argument,
            expected: expected.to_string(),
            given: given.to_string(),
        }
    }
}
