//! What each op means: scalar Rust in `f64`, written for reading.

mod attention;
mod elementwise;
mod experts;
mod norm;
mod recurrent;
mod rope;

pub use attention::{AttentionShape, Row, Softmax, attention};
pub use elementwise::{clamped_swish, gelu_tanh, sigmoid, silu, softcap};
pub use experts::{route, weighted_sum};
pub use norm::{Norm, Normed, rms_norm};
pub use recurrent::{DeltaHead, DeltaToken, short_conv};
pub use rope::rope;

use walsh::DType;
use walsh::formats::{FormatError, ggml};

/// The numbers that stored bytes stand for.
///
/// # Errors
/// When the bytes are no whole blocks.
pub fn decode(dtype: DType, bytes: &[u8]) -> Result<Vec<f32>, FormatError> {
    let values = bytes.len() / dtype.block_bytes() * dtype.block_len();
    let mut out = vec![0.0; values];
    ggml::decode(dtype, bytes, &mut out)?;
    Ok(out)
}

/// `[m, n]` = Σ_k input[m, k] · weight[n, k].
#[must_use]
pub fn matmul(input: &[f32], weight: &[f32], k: usize) -> Vec<f64> {
    let dot = |(x, w): (&f32, &f32)| f64::from(*x) * f64::from(*w);
    input
        .chunks_exact(k)
        .flat_map(|x| {
            weight
                .chunks_exact(k)
                .map(move |w| x.iter().zip(w).map(dot).sum())
        })
        .collect()
}

/// The indices of a row in descending order of its numbers, equals ascending.
#[must_use]
pub fn order(row: &[f32]) -> Vec<i32> {
    let mut indices: Vec<i32> = (0..row.len() as i32).collect();
    indices.sort_by(|a, b| row[*b as usize].total_cmp(&row[*a as usize]).then(a.cmp(b)));
    indices
}
