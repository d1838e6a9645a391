//! Codebook codecs with least-squares scales.

use walsh_formats::codebook::codebook;
use walsh_formats::kv::{self, RowCodec, TqBits};

use super::quantise::{Quantiser, Tables, sigma};
use crate::kv::codec::limits::is_number;
use crate::simd::{Simd, entries};

/// What encodes rows so.
pub(in crate::kv) struct Encoder {
    bits: TqBits,
    tables: Tables,
    /// Numbers that share a scale.
    group_len: usize,
    /// What scales are multiplied by before they are stored.
    gain: f32,
}

impl Encoder {
    pub(super) fn new(bits: TqBits, codec: &RowCodec) -> Self {
        Self {
            bits,
            tables: Tables::of(codebook(bits)),
            group_len: codec.group_len(),
            gain: codec.gain(),
        }
    }

    /// Hundredths of a nanosecond that encoding a number takes.
    pub(super) fn cost(&self) -> u64 {
        match self.bits {
            TqBits::B2 | TqBits::B3 | TqBits::B4 => 150,
            TqBits::B5 | TqBits::B6 => 250,
            TqBits::B8 => 400,
        }
    }
}

entries! {
    /// Encodes a row that is rotated if it is to be; false where it needs the codec's own care.
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
        bits,
        tables,
        group_len: len,
        gain,
    } = encoder;
    let rows = (row, *len, *gain);
    match bits {
        TqBits::B2 => fitted::<S, 2, 2>(s, tables, rows, codes, scales),
        TqBits::B3 => fitted::<S, 3, 2>(s, tables, rows, codes, scales),
        TqBits::B4 => fitted::<S, 4, 3>(s, tables, rows, codes, scales),
        TqBits::B5 => fitted::<S, 5, 4>(s, tables, rows, codes, scales),
        TqBits::B6 => fitted::<S, 6, 5>(s, tables, rows, codes, scales),
        TqBits::B8 => fitted::<S, 8, 7>(s, tables, rows, codes, scales),
    }
}

/// Encodes a row, whose groups have `len` numbers, by least squares, and multiplies scales by `gain`.
#[inline(always)]
fn fitted<S: Simd, const BITS: usize, const INDEX: usize>(
    s: S,
    tables: &Tables,
    (row, len, gain): (&[f32], usize, f32),
    codes: &mut [u8],
    scales: &mut [u8],
) -> bool {
    assert!(codes.len() == row.len() * BITS / 8);
    let quantiser = Quantiser::<S, BITS, INDEX>::new(s, tables);
    let groups = row.chunks_exact(len).zip(scales.chunks_exact_mut(2));
    for (group, (values, scale)) in groups.enumerate() {
        // Of a row with a number that is none, this is none either.
        let sigma = sigma(s, values);
        if !sigma.is_finite() || sigma < kv::TINY_SIGMA {
            return false;
        }
        let inverse = 1.0 / sigma;
        let (best, factor) = quantiser.best(values, inverse);
        let stored = s.to_half(sigma * factor * gain);
        if !is_number(stored) {
            return false;
        }
        scale.copy_from_slice(&stored.to_le_bytes());
        let at = (group * len, row.len());
        // SAFETY: the codes have been measured.
        unsafe { quantiser.pack(values, (inverse, best), at, codes.as_mut_ptr()) };
    }
    true
}
