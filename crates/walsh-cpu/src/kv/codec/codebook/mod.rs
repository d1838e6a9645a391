//! Codebook codecs, `tqB`.

#[cfg_attr(
    not(target_arch = "x86_64"),
    allow(dead_code, reason = "no other set has products of bytes here")
)]
pub(in crate::kv) mod bytes;
mod decode;
mod fitted;
mod norm;
pub(in crate::kv) mod planes;
mod quantise;

pub(super) use self::decode::{Decoder, key_panel, read, value_rows};

use walsh_formats::kv::{RowCodec, ScaleKind, Tq};

use crate::simd::Token;

/// What encodes rows, by the convention of their scales.
pub(in crate::kv) enum Encoder {
    LeastSquares(fitted::Encoder),
    Norm(norm::Encoder),
}

impl Encoder {
    pub(super) fn new(tq: Tq, codec: &RowCodec) -> Self {
        match tq.scale {
            ScaleKind::LeastSquares => Self::LeastSquares(fitted::Encoder::new(tq.bits, codec)),
            ScaleKind::Norm(factor) => Self::Norm(norm::Encoder::new((tq.bits, factor), codec)),
        }
    }

    /// Whether a codec that rotates is given rotated rows. With norms for scales they are rotated in double precision.
    pub(super) fn takes_rotated(&self) -> bool {
        matches!(self, Self::LeastSquares(_))
    }

    /// Hundredths of a nanosecond that encoding a number takes.
    pub(super) fn cost(&self) -> u64 {
        match self {
            Self::LeastSquares(encoder) => encoder.cost(),
            Self::Norm(_) => norm::COST,
        }
    }

    /// Encodes a row; false where it needs the codec's own care. `codes` and `scales` are then unspecified.
    pub(super) fn encode(
        &self,
        set: Token,
        row: &[f32],
        codes: &mut [u8],
        scales: &mut [u8],
    ) -> bool {
        match self {
            Self::LeastSquares(encoder) => fitted::encode(set, encoder, row, codes, scales),
            Self::Norm(encoder) => norm::encode(set, encoder, row, codes, scales),
        }
    }
}
