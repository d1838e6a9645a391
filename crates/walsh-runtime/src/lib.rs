//! Models as lists of ops, tokenizers, sampling, sessions, perplexity and
//! model downloads.
//!
//! ```no_run
//! use walsh_runtime::{GenerateOptions, Model, SessionOptions};
//!
//! let device = walsh::cpu::open(Default::default())?;
//! let model = Model::open(&device, "model.gguf")?;
//! let mut session = model.session(SessionOptions { kv: "tq4".parse()?, ..Default::default() })?;
//! for piece in session.generate("The capital of France is", GenerateOptions::default())? {
//!     print!("{}", piece?);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Features: `cpu` (the default), `cuda` and `metal` are the backends of `walsh`; `download` is `store`, models by name.

mod batch;
mod bench;
mod calibration;
pub mod chat;
mod constraint;
mod container;
mod conversation;
#[cfg(feature = "cpu")]
mod doctor;
mod engine;
mod error;
mod fidelity;
mod fit;
mod generate;
mod importance;
mod inspect;
mod model;
mod pages;
mod perplexity;
mod pooling;
mod regular;
pub mod sampling;
mod session;
pub mod shown;
mod size;
#[cfg(feature = "download")]
pub mod store;
mod text;
pub mod tokenizer;
mod types;
mod watch;

pub use batch::{Answers, BatchOptions, BatchReport, batch, count_lines};
pub use bench::{
    BenchOptions, BenchReport, BenchResult, BenchTest, PrefixOptions, PrefixResult, ProfileOptions,
    ProfileReport, ProfileRow, bench, prefix, profile,
};
pub use calibration::{
    Calibration, CalibrationListener, CalibrationNotice, CalibrationOptions, KeyMoments,
};
pub use constraint::Constraint;
pub use container::{Replacement, check_readable, check_writable};
pub use conversation::{Conversation, Reply};
#[cfg(feature = "cpu")]
pub use doctor::{BackendState, Cpu, Diagnosis, Tool, diagnose};
pub use engine::{
    Budget, Engine, EngineOptions, EngineStatus, Logprobs, Piece, Request, SlotFile, SlotStatus,
    Stream,
};
pub use error::{Error, Result};
pub use fidelity::{
    EqualTokens, FidelityOptions, FidelityProgress, FidelityReport, FidelitySpec, FidelityTask,
    Proportion, SpecFidelity, TaskFidelity, fidelity,
};
pub use fit::{Fit, FitOptions, LayerStats, Sensitivity, SideStats, fit, stored_stats};
pub use generate::{Figures, Finish, GenerateOptions, Generation};
pub use importance::{ColumnSquares, Importance, ImportanceOptions, importance};
pub use inspect::{Inspection, KvCost, LayerHeads, MetadataEntry, Shape, TypeShare, inspect};
pub use model::{
    AdapterInfo, Architecture, DeltaConfig, ExpertsConfig, Fingerprint, LayerConfig, Lora, Model,
    ModelConfig, RecurrentConfig, Synthetic, TensorSummary,
};
pub use perplexity::{
    PerplexityOptions, PerplexityProgress, PerplexityReport, PerplexityResult, log_likelihood,
    perplexity,
};
pub use pooling::Pooling;
pub use sampling::{RecommendedSampling, Sampling};
pub use session::{DEFAULT_CONTEXT, RestoreOptions, Session, SessionOptions};
pub use size::size_text;
pub use text::TextReader;
pub use types::{TypeFacts, weight_types};
/// What ops, devices and formats find wrong.
pub use walsh::Error as CoreError;
pub use watch::{Progress, ProgressListener, Watch};

/// The README's examples, as tests.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
