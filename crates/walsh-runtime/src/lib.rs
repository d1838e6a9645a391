//! Models as lists of ops, tokenizers, sampling, sessions, perplexity and model downloads.

pub mod error;
pub mod sampling;
pub mod tokenizer;

pub use error::{Error, Result};
