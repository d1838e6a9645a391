//! The Metal backend.
//!
//! [`open`] gives a [`Device`](walsh_core::Device) on an Apple GPU of the family Apple7 (M1, A14) or newer.
//!
//! - Kernels are the texts of [`walsh_kernels`]; Metal compiles each when a list first needs it, fast mathematics off.
//! - A run of a command list is one command buffer: dispatches side by side, with a barrier where the list has one.
//! - Memory is shared with the host: a mapped file is read where it lies, other memory of the host is copied once.
//! - A command buffer that fails is an error with the kernel's name; a GPU that is lost says so at every later call.
//!
//! All that decides is free of the platform and written against one trait of Metal's calls, which Apple's bindings
//! implement on Apple's systems, and a mock with the kernels' simulator behind it in this crate's tests. **No Apple GPU has
//! ever run it.**

// Elsewhere a build has the calls of nobody, and tests those of the mock.
#![cfg_attr(
    not(any(target_vendor = "apple", test, feature = "testing")),
    allow(dead_code)
)]

mod api;
#[cfg(target_vendor = "apple")]
mod apple;
mod backend;
mod device;
mod memory;
mod open;
mod pipelines;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;

pub use device::{MetalOptions, limits};
pub use open::{Examination, FoundGpu, examine, open, refused};
