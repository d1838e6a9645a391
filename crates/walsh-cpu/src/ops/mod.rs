//! The ops around products and attention.

pub(crate) mod elementwise;
pub(crate) mod embedding;
pub(crate) mod experts;
pub(crate) mod norm;
pub(crate) mod recurrent;
pub(crate) mod rope;
pub(crate) mod select;

/// How many numbers of simple arithmetic one grab of work should hold.
const GRAIN: usize = 4096;
