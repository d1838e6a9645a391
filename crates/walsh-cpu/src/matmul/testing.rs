//! What the tests of this module share.

use walsh_formats::DType;

/// Every block-quantised type.
pub(super) fn block_types() -> impl Iterator<Item = DType> {
    DType::ALL
        .iter()
        .copied()
        .filter(|dtype| dtype.is_quantised())
}

/// A small generator of reproducible numbers (SplitMix64).
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// Uniform in ±1.
    pub(super) fn signed(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    /// About normal, with variance 1.
    pub(super) fn normal(&mut self) -> f32 {
        (0..6).map(|_| self.signed()).sum::<f32>() / 2f32.sqrt()
    }
}

/// Random weights `[n, k]`.
pub(super) fn random_weights(dtype: DType, n: usize, k: usize, seed: u64) -> Vec<u8> {
    let mut random = Random(seed);
    let bytes = dtype.row_bytes((n * k) as u64).unwrap();
    let mut bytes = vec![0; bytes as usize];
    walsh_formats::ggml::random(dtype, 0.1, &mut || random.next(), &mut bytes).unwrap();
    bytes
}
