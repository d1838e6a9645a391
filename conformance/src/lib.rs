//! One case table per op, run against every backend that is present.
//!
//! - [`mod@reference`] says what each op means: scalar Rust in `f64` over decoded
//!   values.
//! - [`cases`] holds the tables. A [`Problem`] is one case without a device:
//!   host tensors, how they are bound into an op, and what the op must leave in
//!   each of them.
//! - A [`Bound`] is a problem on one device, each tensor between guard bytes
//!   and each output poisoned.
//! - [`targets`] lists the devices: every backend of the build in every form
//!   that it has (instruction sets, team sizes).

mod arguments;
mod bound;
pub mod cases;
mod expected;
mod problem;
mod random;
pub mod reference;
mod target;

pub use arguments::{Arguments, Asked, HELP};
pub use bound::Bound;
pub use expected::{Approximation, Expected, Leave};
pub use problem::{Bind, HostTensor, Problem};
pub use target::{TEAMS, Target, missing, targets};
pub use walsh::formats::random::SplitMix64 as Rng;
