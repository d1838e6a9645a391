//! The families of codecs, a file or folder each as in [`walsh_formats::kv`]: how the CPU writes and reads their rows.
//!
//! What goes by families does so here, and nothing compiles without all of them.

mod blocks;
pub(super) mod codebook;
mod floats;
pub(super) mod limits;
pub(super) mod numbers;
mod scales;

use walsh_formats::kv::{BlockCodec, FloatCodec, RowCodec, Storage};

use self::codebook::bytes::Book;
use self::numbers::{KeyPanel, Reader, Rows, ValueRows, width};
use self::scales::Scales;
use crate::simd::{LANES, Simd, Token, entries};

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

/// Encodes a row, rotated if the encoder takes it so, bit for bit as the codec does it; false if there is no kernel for its
/// length or the row needs the codec's own care, such as for a NaN. `codes` and `scales` are then unspecified.
pub(super) fn encode(
    set: Token,
    encoder: &Encoder,
    row: &[f32],
    codes: &mut [u8],
    scales: &mut [u8],
) -> bool {
    // Each family's kernels stand for themselves: together they would all have the stack of the largest.
    row.len().is_multiple_of(LANES)
        && match encoder {
            Encoder::Float(codec) => floats::encode(set, *codec, row, codes),
            Encoder::Block(codec) => blocks::encode(set, *codec, row, codes),
            Encoder::Codebook(encoder) => encoder.encode(set, row, codes, scales),
        }
}

/// What reads rows of a codec.
pub(super) struct Decoder {
    pub(super) codec: RowCodec,
    scales: Scales,
    family: Family,
}

enum Family {
    Float(FloatCodec),
    Block(BlockCodec),
    Codebook(codebook::Decoder),
}

impl Decoder {
    pub(super) fn new(codec: RowCodec) -> Self {
        let family = match codec.storage() {
            Storage::Float(float) => Family::Float(float),
            Storage::Block(block) => Family::Block(block),
            Storage::Codebook(tq) => Family::Codebook(codebook::Decoder::new(tq.bits, &codec)),
        };
        Self {
            scales: Scales::of(&codec),
            codec,
            family,
        }
    }

    /// Whether value rows come out in the set's lane order.
    pub(super) fn reordered(&self) -> bool {
        match &self.family {
            Family::Float(_) | Family::Block(_) => false,
            Family::Codebook(codes) => codes.reordered(),
        }
    }

    /// Whether rows are read where they lie, by [`read`].
    pub(super) fn is_read(&self) -> bool {
        let numbers = match &self.family {
            Family::Float(_) | Family::Block(_) => true,
            Family::Codebook(codes) => codes.is_read(),
        };
        // A row of several scales has no factor for the whole of it.
        numbers && !self.scales.are_several() && self.codec.head_dim().is_multiple_of(LANES)
    }

    /// Whether rows are plain singles, which need no decoding.
    pub(super) fn is_plain(&self) -> bool {
        matches!(self.family, Family::Float(FloatCodec::F32))
    }
}

/// Tells a reader how the numbers of rows are read, of a decoder whose rows [are](Decoder::is_read).
#[inline(always)]
pub(super) fn read<S: Simd, R: Reader<S>>(s: S, decoder: &Decoder, reader: R) {
    match &decoder.family {
        Family::Float(codec) => floats::read(s, *codec, reader),
        Family::Block(codec) => blocks::read(s, *codec, reader),
        Family::Codebook(codes) => codebook::read(s, codes, reader),
    }
}

entries! {
    /// Decodes keys to panels, `[count / 16 rounded up][width][16]`, without the scales of codecs that have one per
    /// row. A *panel* holds 16 positions side by side, so that scores come out as vectors over positions with no reduction
    /// across lanes. Positions past the count repeat the last one.
    pub(super) fn key_panels(decoder: &Decoder, rows: Rows<'_>, out: &mut [f32]) = decode_keys
}

/// See [`key_panels`].
#[inline(always)]
fn decode_keys<S: Simd>(s: S, decoder: &Decoder, rows: Rows<'_>, out: &mut [f32]) {
    let head_dim = decoder.codec.head_dim();
    let columns = rows.count().div_ceil(LANES) * width(head_dim);
    let panels = out.as_chunks_mut().0[..columns].chunks_exact_mut(width(head_dim));
    for (first, out) in (0..rows.count()).step_by(LANES).zip(panels) {
        let panel = KeyPanel {
            rows,
            first,
            head_dim,
            out: &mut *out,
        };
        match &decoder.family {
            Family::Float(codec) => floats::read(s, *codec, panel),
            Family::Block(codec) => blocks::read(s, *codec, panel),
            Family::Codebook(codes) => codebook::key_panel(s, codes, panel),
        }
        if decoder.scales.are_several() {
            decoder.scales.scale_panel(s, rows, first, out);
        }
    }
}

entries! {
    /// Decodes values to rows, `[count][width]`, without the scales of codecs that have one per row. Where they [come out
    /// in the set's lane order](Decoder::reordered), the output undoes it once at the end.
    pub(super) fn value_rows(decoder: &Decoder, rows: Rows<'_>, out: &mut [f32]) = decode_values
}

/// See [`value_rows`].
#[inline(always)]
fn decode_values<S: Simd>(s: S, decoder: &Decoder, rows: Rows<'_>, out: &mut [f32]) {
    let values = ValueRows {
        rows,
        head_dim: decoder.codec.head_dim(),
        out: &mut *out,
    };
    match &decoder.family {
        Family::Float(codec) => floats::read(s, *codec, values),
        Family::Block(codec) => blocks::read(s, *codec, values),
        Family::Codebook(codes) => codebook::value_rows(s, codes, values),
    }
    if decoder.scales.are_several() {
        decoder.scales.scale_rows(s, rows, out);
    }
}

entries! {
    /// Writes the factor of each row: its scale where the codec has one per row, else 1. Rows past the count get 1.
    pub(super) fn row_factors(decoder: &Decoder, rows: Rows<'_>, out: &mut [f32]) = factors
}

/// See [`row_factors`].
#[inline(always)]
fn factors<S: Simd>(s: S, decoder: &Decoder, rows: Rows<'_>, out: &mut [f32]) {
    decoder.scales.of_rows(s, rows, out);
}

/// The numbers of a codec as bytes; none where bytes do not hold them.
pub(super) fn book(codec: &RowCodec) -> Option<Book> {
    match codec.storage() {
        Storage::Float(_) | Storage::Block(_) => None,
        Storage::Codebook(tq) => Book::of(tq.bits, codec),
    }
}
