//! Encoding a row sixteen numbers at a time, bit for bit as the codec does it.

use walsh_formats::kv::{self, KvCodec, RowCodec, ScaleKind, TqBits};

use super::codebook::{Quantiser, Tables, sigma};
use super::{blocks, norm};
use crate::simd::{LANES, Simd, entries};

/// A codec with the tables of its kernel.
pub(super) struct Encoder {
    codec: RowCodec,
    tables: Option<Tables>,
    /// Of a codec with norms for scales, the boundaries in double precision.
    limits: Vec<f64>,
}

impl Encoder {
    pub(super) fn of(codec: &RowCodec) -> Self {
        let by_norm = is_by_norm(codec.codec());
        let book = codec.codebook();
        Self {
            codec: codec.clone(),
            tables: book.map(Tables::of),
            limits: book
                .filter(|_| by_norm)
                .map(norm::limits)
                .unwrap_or_default(),
        }
    }

    /// Whether rows are given to [`encode`] rotated. With norms for scales they are rotated in double precision.
    pub(super) fn takes_rotated(&self) -> bool {
        self.codec.rotation().is_some() && !is_by_norm(self.codec.codec())
    }

    /// About how many nanoseconds a row takes.
    pub(super) fn cost(&self) -> u64 {
        // Hundredths of a nanosecond a number.
        let number = match self.codec.codec() {
            KvCodec::Dense(dtype) | KvCodec::Rotated(dtype) if dtype.block_len() > 1 => 30,
            KvCodec::Dense(_) | KvCodec::Rotated(_) => 15,
            KvCodec::Tq(tq) if tq.scale == ScaleKind::Norm => 500,
            KvCodec::Tq(tq) if tq.bits == TqBits::B8 => 400,
            KvCodec::Tq(tq) if tq.bits > TqBits::B4 => 250,
            KvCodec::Tq(_) => 150,
        };
        20 + self.codec.head_dim() as u64 * number / 100
    }
}

fn is_by_norm(codec: KvCodec) -> bool {
    matches!(codec, KvCodec::Tq(tq) if tq.scale == ScaleKind::Norm)
}

entries! {
    /// Encodes a row, rotated if the encoder takes it so; false if there is no kernel for the codec or the row needs the
    /// codec's own care, such as for a NaN. `codes` and `scales` are then unspecified.
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
    if !row.len().is_multiple_of(LANES) {
        return false;
    }
    let (tq, tables) = match (encoder.codec.codec(), &encoder.tables) {
        (KvCodec::Dense(dtype) | KvCodec::Rotated(dtype), _) => {
            return blocks::encode(s, dtype, row, codes);
        }
        (KvCodec::Tq(tq), Some(tables)) => (tq, tables),
        _ => return false,
    };
    if tq.scale == ScaleKind::Norm {
        let of = (&encoder.codec, tables, encoder.limits.as_slice());
        return norm::encode(s, of, row, codes, scales);
    }
    let len = encoder.codec.group_len();
    match tq.bits {
        TqBits::B2 => fitted::<S, 2, 2>(s, tables, (row, len), codes, scales),
        TqBits::B3 => fitted::<S, 3, 2>(s, tables, (row, len), codes, scales),
        TqBits::B4 => fitted::<S, 4, 3>(s, tables, (row, len), codes, scales),
        TqBits::B5 => fitted::<S, 5, 4>(s, tables, (row, len), codes, scales),
        TqBits::B6 => fitted::<S, 6, 5>(s, tables, (row, len), codes, scales),
        TqBits::B8 => fitted::<S, 8, 7>(s, tables, (row, len), codes, scales),
    }
}

/// Encodes a row, whose groups have `len` numbers, by least squares.
#[inline(always)]
fn fitted<S: Simd, const BITS: usize, const INDEX: usize>(
    s: S,
    tables: &Tables,
    (row, len): (&[f32], usize),
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
        let stored = s.to_half(sigma * factor);
        if !blocks::is_number(stored) {
            return false;
        }
        scale.copy_from_slice(&stored.to_le_bytes());
        let at = (group * len, row.len());
        // SAFETY: the codes have been measured.
        unsafe { quantiser.pack(values, (inverse, best), at, codes.as_mut_ptr()) };
    }
    true
}
