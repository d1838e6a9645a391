//! The kernel table, and how each op becomes dispatches.

mod blocks;
mod elementwise;
mod embedding;
pub(crate) mod matmul;

use walsh_core::Result;
use walsh_core::ops::Op;

use crate::kernel::Kernel;
use crate::lower::Lowering;

/// The table, by op.
pub(crate) const KERNELS: &[&[&Kernel]] =
    &[elementwise::KERNELS, matmul::KERNELS, embedding::KERNELS];

/// Adds the dispatches of an op.
pub(crate) fn lower(op: &Op, lowering: &mut Lowering<'_>) -> Result<()> {
    match op {
        Op::GatedActivation(op) => elementwise::gated(op, lowering),
        Op::Add(op) => elementwise::add(op, lowering),
        Op::Scale(op) => elementwise::scale(op, lowering),
        Op::SoftCap(op) => elementwise::soft_cap(op, lowering),
        Op::EmbeddingRows(op) => embedding::lower(op, lowering),
        Op::MatMul(op) => matmul::lower(op, lowering),
        _ => Err(lowering.unsupported("it has no kernel for this op")),
    }
}
