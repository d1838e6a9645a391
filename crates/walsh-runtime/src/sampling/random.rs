//! Random numbers that are the same on every machine.

/// A stream of random numbers: SplitMix64 (Steele, Lea and Flood, 2014).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Random {
    seed: u64,
    state: u64,
}

impl Random {
    /// The stream of a seed, from its start.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { seed, state: seed }
    }

    /// A stream that was left in a state.
    pub(crate) fn at(seed: u64, state: u64) -> Self {
        Self { seed, state }
    }

    /// What it started from.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Where it is: what [`at`](Self::at) takes.
    pub(crate) fn state(&self) -> u64 {
        self.state
    }

    /// The next number, from 0 to below 1: 53 bits.
    pub(super) fn uniform(&mut self) -> f64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.state;
        bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^= bits >> 31;
        (bits >> 11) as f64 / (1u64 << 53) as f64
    }
}
