//! Runs the GPU kernels on the host, as a hostile machine. For development only.
//!
//! The kernels' text is compiled by the host's C++ compiler with its instrumentation for threads, so that every load
//! and every store asks the simulator first. Each thread of a group is a fiber; fibers change places at collectives and
//! barriers alone, in an order drawn from a seed, and so do groups and the dispatches between two barriers.
//!
//! These end a run with an error that names the kernel, its constants, the group, the thread and the byte:
//! - a load or store outside the dispatch's buffers, its arguments, its threadgroup memory and its tables, or at an
//!   address that is no multiple of its size; a store into a buffer that the kernel said it only reads;
//! - a load of threadgroup memory that nothing wrote in this group, or of workspace that nothing wrote in this run;
//! - two threads at one byte, one of them writing, with no barrier between them that orders them;
//! - a collective or barrier that not all threads reach, or that they reach at different places;
//! - an index outside an array, a division by zero, a shift by more than a number has bits;
//! - more loads, stores and collectives than [`SimOptions::most_steps`].
//!
//! The error carries the seed, which gives the same run again. The device stays usable.

mod backend;
mod compiler;
mod fault;
mod group;
mod hooks;
mod machine;
mod memory;
mod random;
mod shadow;

pub use backend::{SimOptions, Simulator, open};
