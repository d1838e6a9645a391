//! What kernels are chosen by.

use walsh_core::Activations;

use crate::isa::Isa;

/// What kernels are chosen by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target {
    pub(crate) isa: Isa,
    pub(crate) threads: usize,
    pub(crate) activations: Activations,
}
