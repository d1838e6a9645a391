//! Encoding a row sixteen numbers at a time, bit for bit as the codec does it.

use walsh_formats::kv::{self, KvCodec, RowCodec, ScaleKind, TqBits};

use super::codebook::{Quantiser, Tables, sigma};
use super::{blocks, norm};
use crate::simd::{Simd, entries};

const LANES: usize = 16;

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
    ///
    /// # Safety
    /// The machine has the instruction set. The lengths are the codec's.
    pub(super) fn encode(encoder: &Encoder, row: &[f32], codes: &mut [u8], scales: &mut [u8]) -> bool = encode_row
}

/// # Safety
/// As for [`encode`].
#[inline(always)]
unsafe fn encode_row<S: Simd>(
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
            // SAFETY: the caller's.
            return unsafe { blocks::encode::<S>(dtype, row, codes) };
        }
        (KvCodec::Tq(tq), Some(tables)) => (tq, tables),
        _ => return false,
    };
    if tq.scale == ScaleKind::Norm {
        let of = (&encoder.codec, tables, encoder.limits.as_slice());
        // SAFETY: the caller's.
        return unsafe { norm::encode::<S>(of, row, codes, scales) };
    }
    let len = encoder.codec.group_len();
    // SAFETY: the caller's.
    unsafe {
        match tq.bits {
            TqBits::B2 => fitted::<S, 2, 2>(tables, (row, len), codes, scales),
            TqBits::B3 => fitted::<S, 3, 2>(tables, (row, len), codes, scales),
            TqBits::B4 => fitted::<S, 4, 3>(tables, (row, len), codes, scales),
            TqBits::B5 => fitted::<S, 5, 4>(tables, (row, len), codes, scales),
            TqBits::B6 => fitted::<S, 6, 5>(tables, (row, len), codes, scales),
            TqBits::B8 => fitted::<S, 8, 7>(tables, (row, len), codes, scales),
        }
    }
}

/// Encodes a row, whose groups have `len` numbers, by least squares.
///
/// # Safety
/// The machine has the instruction set. `codes` and `scales` are as long as the row asks for.
#[inline(always)]
unsafe fn fitted<S: Simd, const BITS: usize, const INDEX: usize>(
    tables: &Tables,
    (row, len): (&[f32], usize),
    codes: &mut [u8],
    scales: &mut [u8],
) -> bool {
    assert!(codes.len() == row.len() * BITS / 8);
    // SAFETY: the caller's.
    let quantiser = unsafe { Quantiser::<S, BITS, INDEX>::new(tables) };
    let groups = row.chunks_exact(len).zip(scales.chunks_exact_mut(2));
    for (group, (values, scale)) in groups.enumerate() {
        // Of a row with a number that is none, this is none either.
        // SAFETY: the caller's.
        let sigma = unsafe { sigma::<S>(values) };
        if !sigma.is_finite() || sigma < kv::TINY_SIGMA {
            return false;
        }
        let inverse = 1.0 / sigma;
        // SAFETY: the caller's; the codes have been measured.
        unsafe {
            let (best, factor) = quantiser.best(values, inverse);
            let stored = S::to_half(sigma * factor);
            if !blocks::is_number(stored) {
                return false;
            }
            scale.copy_from_slice(&stored.to_le_bytes());
            let at = (group * len, row.len());
            quantiser.pack(values, (inverse, best), at, codes.as_mut_ptr());
        }
    }
    true
}
