//! The GPU kernels, written once.
//!
//! - `kernels/` holds their text, in a dialect of C++14 that uses the Metal Shading Language's words; the headers in
//!   `kernels/dialect/` give the words their meaning on each [`Platform`].
//! - A [`Kernel`] is an entry of the table: its text, its constants, arguments and buffers. A [`Variant`] binds the
//!   constants; [`Variant::source`] is what a platform's compiler is given.
//! - A [`List`] turns ops into [`Dispatch`]es: variants with arguments, buffers and a grid, in order.
//!
//! This crate depends on no device: backends compile variants and run dispatches.

mod args;
mod check;
mod compile;
mod dispatch;
mod fusion;
mod kernel;
mod list;
mod lower;
mod neighbours;
mod ops;
mod tables;

pub use args::{ArgsLayout, Field};
pub use check::{CHECK_PASSED, Check};
pub use compile::{complaint, in_parallel};
pub use dispatch::{Binding, Dispatch, Lowered};
pub use fusion::Fusion;
pub use kernel::{Kernel, Native, Parameter, Platform, Touch, Variant};
pub use list::{List, variants_of};
pub use lower::{Allocate, Limits};
pub use ops::kernels;
