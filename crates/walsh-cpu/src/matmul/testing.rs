//! What the tests of this module share.

use half::f16;
use walsh_formats::DType;

/// Every block-quantised type.
pub(super) const BLOCK_TYPES: &[DType] = &[
    DType::Q4_0,
    DType::Q4_1,
    DType::Q5_0,
    DType::Q5_1,
    DType::Q8_0,
    DType::Q2K,
    DType::Q3K,
    DType::Q4K,
    DType::Q5K,
    DType::Q6K,
    DType::IQ4NL,
    DType::IQ4XS,
];

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

/// Where a block's half-precision scales lie.
fn half_fields(dtype: DType) -> &'static [usize] {
    match dtype {
        DType::Q4_1 | DType::Q5_1 | DType::Q4K | DType::Q5K => &[0, 2],
        DType::Q2K => &[80, 82],
        DType::Q3K => &[108],
        DType::Q6K => &[208],
        _ => &[0],
    }
}

/// Random weights `[n, k]`: any codes, scales of either sign and moderate size.
pub(super) fn random_weights(dtype: DType, n: usize, k: usize, seed: u64) -> Vec<u8> {
    let mut random = Random(seed);
    if !dtype.is_quantised() {
        let values: Vec<f32> = (0..n * k).map(|_| random.normal()).collect();
        let mut bytes = vec![0; n * k * dtype.block_bytes()];
        walsh_formats::ggml::encode(dtype, &values, &mut bytes).unwrap();
        return bytes;
    }
    let blocks = n * k / dtype.block_len();
    let mut bytes: Vec<u8> = (0..blocks * dtype.block_bytes())
        .map(|_| random.next() as u8)
        .collect();
    for block in bytes.chunks_exact_mut(dtype.block_bytes()) {
        for &field in half_fields(dtype) {
            let scale = f16::from_f32(0.02 * (1.5 + random.signed()) * random.signed().signum());
            block[field..field + 2].copy_from_slice(&scale.to_le_bytes());
        }
    }
    bytes
}
