//! The CUDA backend.
//!
//! [`open`] gives a [`Device`](walsh_core::Device) on an NVIDIA GPU. Nothing of CUDA is needed to build this crate: the
//! driver and NVRTC are loaded when a device is opened, and a machine that lacks them gets an error that says so.
//!
//! - Kernels are the texts of [`walsh_kernels`]; each is compiled by [`Nvrtc`] when a list first needs it, and kept in
//!   a folder of the caller's choice.
//! - A command list becomes a CUDA graph. A run hands it to the stream and waits; nothing is encoded again.
//! - Memory comes from an arena of large slabs, and a few bytes are written without waiting for the device.
//! - A kernel that breaks the device loses it: every later call says so, and nothing panics.

mod arena;
mod backend;
mod compile;
mod context;
mod disk;
mod driver;
mod examine;
mod graph;
mod memory;
mod modules;
mod nvrtc;
mod transfer;
mod usage;

pub use backend::{CudaOptions, Launches, open};
pub use context::limits;
pub use examine::{Examination, FoundGpu, examine};
pub use nvrtc::{Compiled, Nvrtc};
pub use usage::{Usage, VERBOSE};
