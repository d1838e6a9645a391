//! Errors of the library as exceptions of the package.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyModule, PyType};
use walsh::formats::FormatError;
use walsh::formats::gguf::GgufError;
use walsh::formats::kv::KvError;
use walsh_runtime::{CoreError, Error};

/// The result of what Python calls.
pub(crate) type Result<T> = std::result::Result<T, Failure>;

/// What goes wrong between Python and the library.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The library says so.
    Walsh(Error),
    /// An exception of this class, a name of `walsh._errors`.
    Named(&'static str, String),
    /// Python says so.
    Python(PyErr),
}

impl Failure {
    /// An array that is not as it must be.
    pub(crate) fn array(what: impl Into<String>) -> Self {
        Self::Named("ArrayError", what.into())
    }

    /// An argument that cannot be used.
    pub(crate) fn option(what: impl Into<String>) -> Self {
        Self::Named("OptionError", what.into())
    }

    /// A fault of ours.
    pub(crate) fn internal(what: impl Into<String>) -> Self {
        Self::Named("InternalError", what.into())
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Walsh(error)
    }
}

impl From<CoreError> for Failure {
    fn from(error: CoreError) -> Self {
        Self::Walsh(error.into())
    }
}

impl From<KvError> for Failure {
    fn from(error: KvError) -> Self {
        CoreError::from(error).into()
    }
}

impl From<FormatError> for Failure {
    fn from(error: FormatError) -> Self {
        CoreError::from(error).into()
    }
}

impl From<GgufError> for Failure {
    fn from(error: GgufError) -> Self {
        Self::Walsh(error.into())
    }
}

impl From<PyErr> for Failure {
    fn from(error: PyErr) -> Self {
        Self::Python(error)
    }
}

impl From<Failure> for PyErr {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Python(error) => error,
            Failure::Named(name, what) => named(name, what),
            Failure::Walsh(error) => named(class_of(&error), error.to_string()),
        }
    }
}

/// The class of an error of the library.
fn class_of(error: &Error) -> &'static str {
    match error {
        Error::Gguf(_)
        | Error::Model { .. }
        | Error::MakesVectors { .. }
        | Error::Adapter { .. }
        | Error::Logits { .. } => "ModelError",
        Error::Tokenizer { .. } => "TokenizerError",
        Error::Template { .. } | Error::Dialogue { .. } => "ChatError",
        Error::Sampling { .. } | Error::Option { .. } | Error::EmptyPrompt => "OptionError",
        Error::Store { .. } => "StoreError",
        Error::File { .. } | Error::Output(_) => "FileError",
        Error::Saved { .. } => "SavedError",
        Error::ContextFull { .. } => "ContextError",
        Error::NoRoom { .. } => "OutOfMemoryError",
        Error::Cancelled => "CancelledError",
        Error::Engine { .. } => "EngineError",
        Error::Constraint { .. } => "ConstraintError",
        Error::Text { .. } | Error::Measure { .. } => "MeasureError",
        Error::Core(error) => class_of_core(error),
        // The library may come to know others.
        _ => "Error",
    }
}

fn class_of_core(error: &CoreError) -> &'static str {
    match error {
        CoreError::InvalidArgument { .. } | CoreError::Value { .. } => "OptionError",
        CoreError::Unsupported { .. } | CoreError::Device { .. } => "DeviceError",
        CoreError::OutOfMemory { .. } => "OutOfMemoryError",
        CoreError::Format(_) | CoreError::Kv(_) => "FormatError",
        _ => "Error",
    }
}

/// An exception of a class of `walsh._errors`.
fn named(name: &'static str, what: String) -> PyErr {
    static MODULE: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    Python::attach(|py| {
        let module = MODULE.get_or_try_init(py, || {
            PyModule::import(py, "walsh._errors").map(Bound::unbind)
        });
        let class =
            module.and_then(|module| Ok(module.bind(py).getattr(name)?.cast_into::<PyType>()?));
        match class {
            Ok(class) => PyErr::from_type(class, (what,)),
            Err(error) => error,
        }
    })
}
