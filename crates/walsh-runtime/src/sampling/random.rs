//! Random numbers that are the same on every machine.

use walsh::formats::random::SplitMix64;

/// A seed that differs from run to run, and is short enough to type.
#[must_use]
pub fn drawn_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::process::id()) & 0xffff_ffff
}

/// The stream of random numbers of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Random {
    seed: u64,
    stream: SplitMix64,
}

impl Random {
    /// The stream of a seed, from its start.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::at(seed, seed)
    }

    /// A stream that was left in a state.
    pub(crate) fn at(seed: u64, state: u64) -> Self {
        Self {
            seed,
            stream: SplitMix64(state),
        }
    }

    /// What it started from.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Where it is: what [`at`](Self::at) takes.
    pub(crate) fn state(&self) -> u64 {
        self.stream.0
    }

    /// The next number, from 0 to below 1.
    pub(super) fn uniform(&mut self) -> f64 {
        self.stream.uniform()
    }
}
