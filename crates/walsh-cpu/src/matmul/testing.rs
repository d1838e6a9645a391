//! What the tests of this module share.

use walsh_formats::DType;

pub(super) use walsh_formats::random::SplitMix64 as Random;

/// Every block-quantised type.
pub(super) fn block_types() -> impl Iterator<Item = DType> {
    DType::ALL
        .iter()
        .copied()
        .filter(|dtype| dtype.is_quantised())
}

/// Random weights `[n, k]`.
pub(super) fn random_weights(dtype: DType, n: usize, k: usize, seed: u64) -> Vec<u8> {
    let mut random = Random(seed);
    let bytes = dtype.row_bytes((n * k) as u64).unwrap();
    let mut bytes = vec![0; bytes as usize];
    walsh_formats::ggml::random(dtype, 0.1, &mut random, &mut bytes).unwrap();
    bytes
}
