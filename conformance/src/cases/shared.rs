//! What the tables have in common.

use walsh::DType;

use crate::{Problem, Rng};

/// The cases of one op.
#[derive(Debug, Clone, Copy)]
pub struct Table {
    /// The op's name.
    pub op: &'static str,
    /// Of so many neighbouring cases one shows on a slow target what all of them show.
    pub share: usize,
    cases: fn() -> Problems,
}

impl Table {
    pub(super) const fn new(op: &'static str, cases: fn() -> Problems) -> Table {
        Table::sampled(1, op, cases)
    }

    /// A table of which every so many-th case is enough for a slow target.
    pub(super) const fn sampled(share: usize, op: &'static str, cases: fn() -> Problems) -> Table {
        Table { op, share, cases }
    }

    /// The cases one by one, each with what the reference gives for it.
    pub fn problems(&self) -> impl Iterator<Item = Problem> {
        (self.cases)()
    }
}

/// The cases of a table.
pub(super) type Problems = Box<dyn Iterator<Item = Problem>>;

/// The generator of a case, seeded by its name so that each case can be run
/// alone.
pub(super) fn rng(name: &str) -> (u64, Rng) {
    let seed = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (seed, Rng(seed))
}

/// The product of a shape's dimensions.
pub(super) fn count(shape: &[u64]) -> usize {
    shape.iter().product::<u64>() as usize
}

/// The types that a weight may have.
pub(crate) fn weight_types() -> impl Iterator<Item = DType> {
    DType::ALL.iter().copied().filter(|dtype| dtype.is_real())
}
