use half::f16;
use walsh::DType;
use walsh::formats::ggml;
use walsh::formats::random::SplitMix64 as Rng;

/// `count` numbers as stored bytes of a weight type: random codes, under scales
/// of weights as models have them.
///
/// # Panics
/// When `count` is no whole number of blocks.
pub(crate) fn blocks(rng: &mut Rng, dtype: DType, count: usize) -> Vec<u8> {
    assert_eq!(count % dtype.block_len(), 0);
    let Some(form) = ggml::form(dtype) else {
        let values: Vec<f32> = rng.normals(count).iter().map(|x| 0.1 * x).collect();
        let mut bytes = vec![0; count * dtype.block_bytes()];
        ggml::encode(dtype, &values, &mut bytes).expect("finite numbers");
        return bytes;
    };
    let block_bytes = dtype.block_bytes();
    let mut bytes = rng.bytes(count / dtype.block_len() * block_bytes);
    for block in bytes.chunks_exact_mut(block_bytes) {
        let scale = 0.02 * rng.normal();
        form.set_scale(block, scale);
        if let Some((at, factor)) = form.centring() {
            let minimum = factor * scale * (1.0 + 0.2 * rng.normal());
            block[at..at + 2].copy_from_slice(&f16::from_f32(minimum).to_le_bytes());
        }
    }
    bytes
}
