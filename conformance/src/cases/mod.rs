//! The case tables, one per op.

mod attention;
mod elementwise;
mod embedding;
mod kv;
mod matmul;
mod norm;
mod rope;
mod select;

use walsh::DType;

use crate::{Problem, Rng};

/// Every table with its name.
#[must_use]
pub fn tables() -> Vec<(&'static str, Vec<Problem>)> {
    vec![
        ("GatedActivation", elementwise::gated()),
        ("Add", elementwise::add()),
        ("Scale", elementwise::scale()),
        ("SoftCap", elementwise::soft_cap()),
        ("RmsNorm", norm::rms_norm()),
        ("Rope", rope::rope()),
        ("EmbeddingRows", embedding::embedding_rows()),
        ("ArgMax", select::arg_max()),
        ("TopK", select::top_k()),
        ("MatMul", matmul::matmul()),
        ("KvStore", kv::kv_store()),
        ("AttentionDecode", attention::decode()),
        ("AttentionPrefill", attention::prefill()),
    ]
}

/// The generator of a case, seeded by its name so that each case can be run
/// alone.
fn rng(name: &str) -> (u64, Rng) {
    let seed = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (seed, Rng::new(seed))
}

/// The product of a shape's dimensions.
fn count(shape: &[u64]) -> usize {
    shape.iter().product::<u64>() as usize
}

/// The types that a weight may have.
fn weight_types() -> impl Iterator<Item = DType> {
    let integers = [DType::I32, DType::U8];
    DType::ALL
        .iter()
        .copied()
        .filter(move |dtype| !integers.contains(dtype))
}
