//! The kernel table, and how each op becomes dispatches.

mod blocks;
mod elementwise;
mod embedding;
mod experts;
pub(crate) mod kv;
pub(crate) mod matmul;
pub(crate) mod norm;
pub(crate) mod products;
mod recurrent;
pub(crate) mod rope;
mod select;

use walsh_core::formats::DType;
use walsh_core::ops::{MatMulTopK, Op};
use walsh_core::{Result, Tensor};

use crate::kernel::Kernel;
use crate::lower::Lowering;

/// The table, by op.
const KERNELS: &[&[&Kernel]] = &[
    elementwise::KERNELS,
    norm::KERNELS,
    rope::KERNELS,
    select::KERNELS,
    matmul::KERNELS,
    products::KERNELS,
    embedding::KERNELS,
    experts::KERNELS,
    experts::TILE_KERNELS,
    recurrent::KERNELS,
    kv::KERNELS,
];

/// Every kernel.
#[must_use]
pub fn kernels() -> Vec<&'static Kernel> {
    KERNELS
        .iter()
        .flat_map(|group| group.iter().copied())
        .collect()
}

/// Adds the dispatches of an op.
pub(crate) fn lower(op: &Op, lowering: &mut Lowering<'_>) -> Result<()> {
    match op {
        Op::GatedActivation(op) => elementwise::gated(op, lowering),
        Op::Add(op) => elementwise::add(op, lowering),
        Op::Scale(op) => elementwise::scale(op, lowering),
        Op::SoftCap(op) => elementwise::soft_cap(op, lowering),
        Op::EmbeddingRows(op) => embedding::lower(op, lowering),
        Op::RmsNorm(op) => norm::lower(op, lowering),
        Op::Rope(op) => rope::lower(op, lowering),
        Op::ArgMax(op) => select::arg_max(op, lowering),
        Op::TopK(op) => select::top_k(op, lowering),
        Op::MatMulTopK(op) => largest_products(op, lowering),
        Op::KvStore(op) => kv::store(op, lowering),
        Op::KvDecode(op) => kv::decode(op, lowering),
        Op::Rotate(op) => kv::rotate(op, lowering),
        Op::Attention(op) => kv::attention(op, lowering),
        Op::MatMul(op) => matmul::lower(op, lowering),
        Op::ExpertRoute(op) => experts::route(op, lowering),
        Op::ExpertMatMul(op) => experts::products(op, lowering),
        Op::ExpertSum(op) => experts::sum(op, lowering),
        Op::ShortConv(op) => recurrent::conv(op, lowering),
        Op::DeltaRule(op) => recurrent::delta(op, lowering),
    }
}

/// All products into workspace, and the largest of them: there is no kernel that leaves some out.
fn largest_products(op: &MatMulTopK, lowering: &mut Lowering<'_>) -> Result<()> {
    let shape = op.products();
    let workspace = lowering.workspace(walsh_core::tensor_bytes(DType::F32, &shape)?)?;
    let products = Tensor::new(workspace.clone(), 0, DType::F32, &shape)?;
    let (product, largest) = op.through(products);
    matmul::lower(&product, lowering)?;
    select::top_k(&largest, lowering)?;
    lowering.release(workspace);
    Ok(())
}
