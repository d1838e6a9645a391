//! Blocks of random codes.

use half::f16;

use super::reference::check_length;
use super::{Form, decode, encode, form};
use crate::dtype::DType;
use crate::error::FormatError;
use crate::random::SplitMix64;

/// Fills `out` with random numbers of a type as weights have them: centred, of about the given standard
/// deviation, every code as likely as any other, and scales of either sign that differ from block to
/// block.
///
/// # Errors
/// When `out` is not whole blocks, or the type holds no floats.
pub fn random(
    dtype: DType,
    deviation: f32,
    random: &mut SplitMix64,
    out: &mut [u8],
) -> Result<(), FormatError> {
    let blocks = out.len() / dtype.block_bytes();
    let values = blocks * dtype.block_len();
    check_length(dtype, values, out.len())?;
    let Some(form) = form(dtype) else {
        let values: Vec<f32> = (0..values)
            .map(|_| deviation * bell(random.bits()))
            .collect();
        return encode(dtype, &values, out);
    };
    for word in out.chunks_mut(8) {
        word.copy_from_slice(&random.bits().to_le_bytes()[..word.len()]);
    }
    let measured = SAMPLE.min(blocks);
    let sample = &mut out[..measured * dtype.block_bytes()];
    for block in sample.chunks_exact_mut(dtype.block_bytes()) {
        put(&form, block, 1.0, 1.0);
    }
    let unit = deviation_of(dtype, sample)?;
    for block in out.chunks_exact_mut(dtype.block_bytes()) {
        let word = random.bits();
        let size = 0.75 + 0.5 * fraction(word);
        let sign = if word & 1 == 0 { 1.0 } else { -1.0 };
        let minimum = 0.9 + 0.2 * fraction(word << 32);
        put(&form, block, sign * size * deviation / unit, minimum);
    }
    Ok(())
}

/// How many blocks say how far the values of random codes spread.
const SAMPLE: usize = 256;

/// Sets a block's scale, and its minimum to so much of what centres the values.
fn put(form: &Form, block: &mut [u8], scale: f32, minimum: f32) {
    form.set_scale(block, scale);
    if let Some((at, factor)) = form.centring() {
        let half = f16::from_f32(factor * scale * minimum);
        block[at..at + 2].copy_from_slice(&half.to_le_bytes());
    }
}

/// The root of the values' mean square; 1 when there are none.
fn deviation_of(dtype: DType, bytes: &[u8]) -> Result<f32, FormatError> {
    let mut values = vec![0.0; bytes.len() / dtype.block_bytes() * dtype.block_len()];
    decode(dtype, bytes, &mut values)?;
    let squares: f64 = values.iter().map(|x| f64::from(*x).powi(2)).sum();
    let mean = squares / values.len().max(1) as f64;
    Ok(if mean > 0.0 { mean.sqrt() as f32 } else { 1.0 })
}

/// From 0 up to 1, from the upper bits.
fn fraction(word: u64) -> f32 {
    (word >> 40) as f32 / (1u32 << 24) as f32
}

/// The sum of four even numbers, which is near a normal one: centred, of deviation 1, within ±3.5.
fn bell(word: u64) -> f32 {
    let parts = word.to_le_bytes();
    let sum: f32 = parts
        .as_chunks::<2>()
        .0
        .iter()
        .map(|part| f32::from(u16::from_le_bytes(*part)) / 65536.0)
        .sum();
    (sum - 2.0) * 3.0f32.sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_every_type_are_centred_and_of_the_deviation() {
        let floats = DType::ALL.iter().filter(|dtype| dtype.is_real());
        for &dtype in floats {
            let blocks = 65536 / dtype.block_len();
            let mut bytes = vec![0; blocks * dtype.block_bytes()];
            random(dtype, 0.02, &mut SplitMix64(7), &mut bytes).expect("whole blocks");
            let mut values = vec![0.0; 65536];
            decode(dtype, &bytes, &mut values).expect("whole blocks");
            assert!(values.iter().all(|x| x.abs() < 0.2), "{dtype}");
            let mean = values.iter().sum::<f32>() / 65536.0;
            assert!(mean.abs() < 2e-3, "{dtype}: {mean}");
            let deviation = deviation_of(dtype, &bytes).expect("whole blocks");
            assert!((0.015..0.025).contains(&deviation), "{dtype}: {deviation}");
        }
    }

    #[test]
    fn what_has_no_numbers_is_refused() {
        let mut bits = SplitMix64(7);
        assert!(random(DType::U8, 1.0, &mut bits, &mut [0; 4]).is_err());
        assert!(random(DType::Q4K, 1.0, &mut bits, &mut [0; 100]).is_err());
        random(DType::Q4K, 1.0, &mut bits, &mut []).expect("no blocks");
    }
}
