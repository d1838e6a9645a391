//! What each op becomes: the only place that knows them all.

use walsh_core::Result;
use walsh_core::ops::Op;

use crate::kv::{attention, decode, store, turn};
use crate::lowering::Lowering;
use crate::{matmul, ops};

/// Adds an op's phases.
pub(crate) fn lower(op: &Op, lowering: &mut Lowering) -> Result<()> {
    match op {
        Op::EmbeddingRows(op) => ops::embedding::lower(op, lowering),
        Op::RmsNorm(op) => ops::norm::lower(op, lowering),
        Op::Rope(op) => ops::rope::lower(op, lowering),
        Op::MatMul(op) => matmul::lower(op, lowering),
        Op::MatMulTopK(op) => matmul::lower_top_k(op, lowering),
        Op::KvStore(op) => store::lower(op, lowering),
        Op::KvDecode(op) => decode::lower(op, lowering),
        Op::Rotate(op) => turn::lower(op, lowering),
        Op::Attention(op) => attention::lower(op, lowering),
        Op::GatedActivation(op) => ops::elementwise::lower_gated(op, lowering),
        Op::Add(op) => ops::elementwise::lower_add(op, lowering),
        Op::Scale(op) => ops::elementwise::lower_scale(op, lowering),
        Op::SoftCap(op) => ops::elementwise::lower_softcap(op, lowering),
        Op::ArgMax(op) => ops::select::lower_argmax(op, lowering),
        Op::TopK(op) => ops::select::lower_topk(op, lowering),
        Op::ExpertRoute(op) => ops::experts::lower_route(op, lowering),
        Op::ExpertMatMul(op) => matmul::lower_experts(op, lowering),
        Op::ExpertSum(op) => ops::experts::lower_sum(op, lowering),
        Op::ShortConv(op) => ops::recurrent::lower_conv(op, lowering),
        Op::DeltaRule(op) => ops::recurrent::lower_delta(op, lowering),
    }
}
