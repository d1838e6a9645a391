//! What all ops have in common.

use std::fmt;

use super::cost::Cost;
use crate::Result;
use crate::buffer::Span;
use crate::hazard::Accesses;

/// What every op can say of itself.
pub trait Operation {
    /// The op's name, as errors and listings show it.
    const NAME: &'static str;

    /// Checks shapes, types, sizes and overlaps.
    ///
    /// # Errors
    /// Names the first argument that does not fit, what was expected and what
    /// was given.
    fn validate(&self) -> Result<()>;

    /// What the op reads and writes.
    fn accesses(&self) -> Accesses;

    /// What it works on, as listings show it behind the op's name.
    ///
    /// # Errors
    /// When the formatter fails.
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result;

    /// The weights of products that it reads, and copies of them: they may be packed.
    fn weights(&self) -> Vec<Span> {
        Vec::new()
    }

    /// What the op costs when each sequence of a cache that it attends over holds
    /// `stored` tokens. For an op that is no matrix product and no attention, all
    /// that it reads and writes.
    fn cost(&self, _stored: u64) -> Cost {
        Cost::of_bytes(&self.accesses())
    }
}
