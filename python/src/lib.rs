//! The native part of the Python package `walsh`: classes that hold what the library has, for the package's own classes
//! to build on. `walsh/_walsh.pyi` describes it.

mod arrays;
mod cache;
mod codecs;
mod engine;
mod errors;
mod files;
mod measure;
mod model;
mod options;
mod parser;
mod processor;
mod session;
mod slot;
mod wait;

use pyo3::prelude::*;

#[pymodule]
mod _walsh {
    #[pymodule_export]
    use crate::cache::PyCache;
    #[pymodule_export]
    use crate::codecs::{
        codebook, kv_codecs, kv_decode, kv_encode, kv_layout, rotate, rotation_signs,
    };
    #[pymodule_export]
    use crate::engine::{PyBell, PyEngine, PyStream};
    #[pymodule_export]
    use crate::files::{block_decode, block_encode, block_types, gguf_parse};
    #[pymodule_export]
    use crate::measure::{PyReport, perplexity};
    #[pymodule_export]
    use crate::model::{PyModel, default_model, models};
    #[pymodule_export]
    use crate::parser::PyParser;
    #[pymodule_export]
    use crate::session::{PyGeneration, PySession};
}
