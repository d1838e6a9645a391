//! The CPU backend: a worker team and kernels for AVX2, AVX-VNNI, AVX-512, NEON
//! and portable Rust.
//!
//! [`open`] gives a [`Device`](walsh_core::Device). Ops are lowered into
//! *phases* of independent work items, which a team of workers shares; a
//! barrier lies only where a hazard is.

mod backend;
mod bandwidth;
mod dispatch;
mod free;
mod isa;
mod kv;
mod lowering;
mod matmul;
mod memory;
mod ops;
mod simd;
mod target;
mod team;

pub use backend::{CpuOptions, Threads, open};
pub use isa::{Isa, UnknownIsa};
pub use matmul::{PackWeights, UnknownPacking};
pub use walsh_core::Activations;
