//! Models out of models.
//!
//! A [`Source`] is a model as GGUF has it: metadata, and tensors whose rows can be read. It comes from a GGUF file or a
//! folder of safetensors. A [`Plan`] says which type each tensor gets ([`Mix`]); writing it streams one tensor after the other, a few rows at a
//! time on each thread.
//!
//! Nothing here opens a file to write: what is made goes to a [`std::io::Write`], so that whoever calls decides how it
//! comes into its place.

mod error;
mod hf;
mod imatrix;
mod lora;
mod mix;
mod plan;
mod source;
mod write;

pub use error::{Error, Result};
pub use hf::{Folder, kept};
pub use imatrix::{Collected, Imatrix};
pub use lora::{Adapter, Base, Pair};
pub use mix::Mix;
pub use plan::{Override, Plan, PlanOptions, Planned};
pub use source::{Files, Source, Tensor};
pub use write::{Kept, Progress, WriteOptions};
