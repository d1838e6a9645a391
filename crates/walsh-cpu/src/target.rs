//! What kernels are chosen by.

use walsh_core::Activations;

use crate::isa::Isa;
use crate::simd::Token;

/// What kernels are chosen by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target {
    pub(crate) isa: Isa,
    pub(crate) threads: usize,
    pub(crate) activations: Activations,
}

impl Target {
    /// The token of the instruction set, which the device was opened for.
    pub(crate) fn token(&self) -> Token {
        Token::of(self.isa)
    }
}
