//! Codebook codecs with norms for scales, which are quantised in double precision.

use walsh_formats::codebook::{Codebook, codebook};
use walsh_formats::kv::{self, NormFactor, RowCodec, TqBits, lane_sum};
use walsh_formats::rotation::MAX_HEAD_DIM;

use super::quantise::{Quantiser, Tables};
use crate::simd::{LANES, Simd, entries};

/// Hundredths of a nanosecond that encoding a number takes.
pub(super) const COST: u64 = 500;

/// What encodes rows so.
pub(in crate::kv) struct Encoder {
    codec: RowCodec,
    bits: TqBits,
    factor: f64,
    tables: Tables,
    limits: Vec<f64>,
}

impl Encoder {
    pub(super) fn new((bits, factor): (TqBits, NormFactor), codec: &RowCodec) -> Self {
        let book = codebook(bits);
        Self {
            codec: codec.clone(),
            bits,
            factor: f64::from(factor.get()),
            tables: Tables::of(book),
            limits: limits(book),
        }
    }
}

/// The boundaries between centroids before these are rounded, behind −∞ and before ∞.
fn limits(book: &Codebook) -> Vec<f64> {
    let between = book.exact.windows(2).map(|pair| 0.5 * (pair[0] + pair[1]));
    [f64::NEG_INFINITY]
        .into_iter()
        .chain(between)
        .chain([f64::INFINITY])
        .collect()
}

entries! {
    /// Encodes a row that is not rotated yet; false where it needs the codec's own care.
    pub(super) fn encode(encoder: &Encoder, row: &[f32], codes: &mut [u8], scales: &mut [u8]) -> bool = encode_row
}

#[inline(always)]
fn encode_row<S: Simd>(
    s: S,
    encoder: &Encoder,
    row: &[f32],
    codes: &mut [u8],
    scales: &mut [u8],
) -> bool {
    let Encoder {
        codec,
        bits,
        factor,
        tables,
        limits,
    } = encoder;
    let len = codec.group_len();
    let mut numbers = [0f64; MAX_HEAD_DIM];
    let numbers = &mut numbers[..row.len()];
    for (number, x) in numbers.iter_mut().zip(row) {
        *number = f64::from(*x);
    }
    if let Some(rotation) = codec.rotation() {
        rotation.forward_f64(numbers);
    }
    let mut units = [0f32; MAX_HEAD_DIM];
    let units = &mut units[..row.len()];
    let groups = numbers
        .chunks_exact_mut(len)
        .zip(units.chunks_exact_mut(len));
    for ((numbers, units), scale) in groups.zip(scales.chunks_exact_mut(4)) {
        let mut lanes = [0f64; LANES];
        for chunk in numbers.as_chunks::<LANES>().0 {
            for i in 0..LANES {
                lanes[i] += chunk[i] * chunk[i];
            }
        }
        let norm = lane_sum(lanes).sqrt();
        let sigma = norm / (len as f64).sqrt();
        let stored = if codec.groups() == 1 { norm } else { sigma } as f32;
        if !stored.is_finite() || sigma == 0.0 {
            return false;
        }
        scale.copy_from_slice(&stored.to_le_bytes());
        let divisor = sigma / factor;
        for (number, unit) in numbers.iter_mut().zip(units) {
            *number /= divisor;
            *unit = *number as f32;
        }
    }
    let mut unpacked = [0u8; MAX_HEAD_DIM];
    let unpacked = &mut unpacked[..row.len()];
    match bits {
        TqBits::B2 => Quantiser::<S, 2, 2>::new(s, tables).codes(units, unpacked),
        TqBits::B3 => Quantiser::<S, 3, 2>::new(s, tables).codes(units, unpacked),
        TqBits::B4 => Quantiser::<S, 4, 3>::new(s, tables).codes(units, unpacked),
        TqBits::B5 => Quantiser::<S, 5, 4>::new(s, tables).codes(units, unpacked),
        TqBits::B6 => Quantiser::<S, 6, 5>::new(s, tables).codes(units, unpacked),
        TqBits::B8 => Quantiser::<S, 8, 7>::new(s, tables).codes(units, unpacked),
    }
    settle(limits, numbers, unpacked);
    kv::pack::pack(*bits, unpacked, codes);
    true
}

/// Codes of numbers as they are, from codes of the numbers and of the boundaries in single precision. Rounding moves both
/// by less than a boundary's distance to the next, so that no code is off by more than one.
#[inline(always)]
fn settle(limits: &[f64], numbers: &[f64], codes: &mut [u8]) {
    for (code, u) in codes.iter_mut().zip(numbers) {
        let at = usize::from(*code);
        let (low, high) = (limits[at], limits[at + 1]);
        *code = code
            .wrapping_add(u8::from(high < *u))
            .wrapping_sub(u8::from(low >= *u));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_beside_boundaries_are_settled_in_double_precision() {
        for bits in TqBits::ALL {
            let book = codebook(bits);
            let limits = limits(book);
            let mut numbers = vec![0.0, -0.0, 1e-60, -1e-60];
            for limit in &limits[1..limits.len() - 1] {
                let rounded = f64::from(*limit as f32);
                numbers.extend([*limit, limit.next_up(), limit.next_down()]);
                numbers.extend([rounded, rounded.next_up(), rounded.next_down()]);
            }
            let mut codes: Vec<u8> = numbers.iter().map(|u| book.code(*u as f32)).collect();
            settle(&limits, &numbers, &mut codes);
            for (u, code) in numbers.iter().zip(codes) {
                assert_eq!(code, book.code_f64(*u), "{bits:?} {u:e}");
            }
        }
    }
}
