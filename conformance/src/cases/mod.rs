//! The case tables, one per op.

mod attention;
mod elementwise;
mod embedding;
mod experts;
mod host_cache;
mod kv;
mod kv_decode;
mod matmul;
mod norm;
mod recurrent;
mod rope;
mod rotate;
mod select;
mod shared;

use self::shared::Problems;
use crate::Problem;

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
    /// The cases one by one, each with what the reference gives for it.
    pub fn problems(&self) -> impl Iterator<Item = Problem> {
        (self.cases)()
    }
}

const fn table(op: &'static str, cases: fn() -> Problems) -> Table {
    Table {
        op,
        share: 1,
        cases,
    }
}

/// A table of which every so many-th case is enough for a slow target.
const fn sampled(share: usize, table: Table) -> Table {
    Table { share, ..table }
}

/// Every table.
pub const TABLES: &[Table] = &[
    table("GatedActivation", elementwise::gated),
    table("Add", elementwise::add),
    table("Scale", elementwise::scale),
    table("SoftCap", elementwise::soft_cap),
    table("RmsNorm", norm::rms_norm),
    table("Rope", rope::rope),
    table("EmbeddingRows", embedding::embedding_rows),
    table("ArgMax", select::arg_max),
    table("TopK", select::top_k),
    table("MatMul", matmul::matmul),
    table("MatMulTopK", select::matmul_top_k),
    table("ExpertRoute", experts::route),
    table("ExpertMatMul", experts::products),
    table("ExpertSum", experts::sum),
    table("ShortConv", recurrent::short_conv),
    table("DeltaRule", recurrent::delta_rule),
    table("KvStore", kv::kv_store),
    sampled(4, table("Rotate", rotate::rotate)),
    sampled(4, table("KvDecode", kv_decode::kv_decode)),
    sampled(2, table("Attention", attention::attention_op)),
];

#[cfg(test)]
mod tests {
    use super::TABLES;

    #[test]
    fn every_op_is_also_measured() {
        for table in TABLES {
            assert_eq!(walsh_bench::op_named(table.op), Some(table.op));
        }
    }
}
