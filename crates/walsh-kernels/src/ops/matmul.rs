//! Matrix products.

use walsh_core::Result;
use walsh_core::ops::MatMul;

use crate::kernel::Kernel;
use crate::lower::Lowering;

/// The form of a product's input that its kernel reads.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Activations {}

pub(crate) const KERNELS: &[&Kernel] = &[];

pub(crate) fn lower(_: &MatMul, lowering: &mut Lowering<'_>) -> Result<()> {
    Err(lowering.unsupported("it has no kernel for this op"))
}
