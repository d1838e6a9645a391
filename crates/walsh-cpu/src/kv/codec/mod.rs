//! The families of codecs, a file or folder each as in [`walsh_formats::kv`]: how the CPU writes and reads their rows.
//!
//! What goes by families does so here, and nothing compiles without all of them.

mod blocks;
mod codebook;
mod floats;
pub(super) mod limits;

use walsh_formats::kv::{BlockCodec, FloatCodec, RowCodec, Storage};

use crate::simd::{LANES, Simd, entries};

/// What encodes rows of a codec.
pub(super) enum Encoder {
    Float(FloatCodec),
    Block(BlockCodec),
    Codebook(Box<codebook::Encoder>),
}

impl Encoder {
    pub(super) fn of(codec: &RowCodec) -> Self {
        match codec.storage() {
            Storage::Float(float) => Self::Float(float),
            Storage::Block(block) => Self::Block(block),
            Storage::Codebook(tq) => Self::Codebook(Box::new(codebook::Encoder::new(tq, codec))),
        }
    }

    /// Whether a codec that rotates is given rotated rows by those who [`encode`].
    pub(super) fn takes_rotated(&self) -> bool {
        match self {
            Self::Float(_) | Self::Block(_) => true,
            Self::Codebook(encoder) => encoder.takes_rotated(),
        }
    }

    /// About how many nanoseconds a row of so many numbers takes.
    pub(super) fn cost(&self, numbers: usize) -> u64 {
        let number = match self {
            Self::Float(_) => floats::COST,
            Self::Block(_) => blocks::COST,
            Self::Codebook(encoder) => encoder.cost(),
        };
        20 + numbers as u64 * number / 100
    }
}

entries! {
    /// Encodes a row, rotated if the encoder takes it so, bit for bit as the codec does it; false if there is no kernel for
    /// its length or the row needs the codec's own care, such as for a NaN. `codes` and `scales` are then unspecified.
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
    match encoder {
        Encoder::Float(codec) => floats::encode(s, *codec, row, codes),
        Encoder::Block(codec) => blocks::encode(s, *codec, row, codes),
        Encoder::Codebook(encoder) => codebook::encode(s, encoder, row, codes, scales),
    }
}
