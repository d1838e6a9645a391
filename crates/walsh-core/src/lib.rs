//! Tensors over device memory, ops as plain structs, and command lists that
//! are recorded once and replayed for every token.
//!
//! - A [`Device`] allocates [`Tensor`]s and records ops.
//! - An op ([`ops`]) is a struct of tensors. It is validated and planned when it
//!   is pushed onto a [`Recorder`]; the finished [`Step`] runs as often as
//!   wanted and reads what changes from its tensors.
//! - A backend implements [`Backend`]; this crate knows none of them.

mod backend;
mod buffer;
mod device;
mod error;
mod hazard;
mod kv_cache;
mod list;
pub mod ops;
mod plan;
pub mod precision;
mod screen;
mod screening;
mod tensor;
mod tokens;
mod workspace;

pub use backend::{Backend, KernelTime, Program, Properties, Recording};
pub use buffer::{Access, Buffer, BufferId, DeviceId, HostBytes, Memory, Span};
pub use device::{Device, Element};
pub use error::{Error, Result};
pub use hazard::{Accesses, HazardTracker};
pub use kv_cache::{
    CacheKind, CacheSide, KeyPreparation, KvCache, KvCacheOptions, KvRows, KvSide, KvSideTensors,
    KvTensors, OverlayOptions,
};
pub use list::{Command, CommandList, Recorder, Step};
pub use plan::Plan;
pub use precision::Activations;
pub use screen::{Screen, ScreenPart, ScreenSample};
pub use tensor::{Tensor, tensor_bytes};
pub use tokens::{PAGE, PageLimits, PageUse, TokenLimits};
pub use workspace::{Purpose, Workspace};

pub use walsh_formats as formats;
