//! Decoding stored keys or values, bit for bit as [`RowCodec::decode_row`](walsh_formats::kv::RowCodec::decode_row) does.

use std::ops::Range;

use walsh_core::Result;
use walsh_core::ops::{KvDecode, Operation};
use walsh_formats::rotation::Rotation;

use crate::kv::codec::numbers::{Rows, reorder, width};
use crate::kv::codec::{Decoder, row_factors, value_rows};
use crate::kv::pages::Pages;
use crate::kv::positions::{self, Tokens};
use crate::kv::rotate;
use crate::kv::vectors::Vectors;
use crate::lowering::Lowering;
use crate::memory::View;
use crate::simd::Token;
use crate::team::{Phase, Scratch};

struct Decode {
    set: Token,
    decoder: Decoder,
    /// Bytes of codes and of scales of a row.
    row: (usize, usize),
    slots: usize,
    capacity: usize,
    /// Where positions lie, if in pages.
    pages: Option<Pages>,
    kv_heads: usize,
    /// `[sequences · kv_heads][slots][code bytes]`; of pages, `[kv_heads][slots][code bytes]`.
    codes: View<u8>,
    /// The same of scale bytes; absent for dense codecs.
    scales: Option<View<u8>>,
    /// What is turned back.
    rotation: Option<Rotation>,
    /// `[kv_heads][head_dim]`: what is multiplied by then, and added at last.
    equaliser: Option<View<f32>>,
    center: Option<View<f32>>,
    positions: View<i32>,
    sequences: Option<View<i32>>,
    output: Vectors,
}

pub(crate) fn lower(op: &KvDecode, lowering: &mut Lowering) -> Result<()> {
    let tokens = Tokens {
        op: KvDecode::NAME,
        positions: &op.positions,
        sequences: op.sequences.as_ref(),
        limits: op.token_limits(),
    };
    let isa = lowering.target().isa;
    let rows = &op.cache.side(op.side).rows;
    let codec = &rows.codec;
    lowering.kernel(format!("kv_decode.{}.{isa}", codec.codec()));
    let checked = positions::checked(&tokens, op.cache.table(), lowering)?;
    let [equaliser, center] = op.undone().map(|tensor| tensor.map(View::of).transpose());
    let decode = Decode {
        set: lowering.target().token(),
        decoder: Decoder::new(codec.clone()),
        row: (codec.code_bytes(), codec.scale_bytes()),
        slots: rows.codes.shape()[1] as usize,
        capacity: op.cache.capacity() as usize,
        pages: Pages::of(&op.cache)?,
        kv_heads: op.cache.kv_heads() as usize,
        codes: View::of(&rows.codes)?,
        scales: rows.scales.as_ref().map(View::of).transpose()?,
        rotation: codec.rotation().filter(|_| op.turns_back()).cloned(),
        equaliser: equaliser?,
        center: center?,
        positions: View::of(&op.positions)?,
        sequences: op.sequences.as_ref().map(View::of).transpose()?,
        output: Vectors::of(&op.output)?,
    };
    let mut accesses = op.accesses();
    accesses.read(checked.span());
    lowering.phase(&accesses, decode);
    Ok(())
}

impl Decode {
    fn head_dim(&self) -> usize {
        self.decoder.codec.head_dim()
    }

    /// Decodes the vector of a token and head.
    ///
    /// # Safety
    /// Nothing writes what the op reads meanwhile.
    unsafe fn vector(&self, (token, head): (usize, usize), row: &mut [f32]) {
        // SAFETY: nothing writes what is read, as this method asks; a checked position has its slot, a checked sequence
        // its heads.
        unsafe {
            let position = self.positions.slice(token..token + 1)[0] as usize;
            let sequence = match &self.sequences {
                Some(sequences) => sequences.slice(token..token + 1)[0] as usize,
                None => 0,
            };
            let (owner, slot) = match &self.pages {
                Some(pages) => (0, pages.read().slot(sequence, position)),
                None => (sequence, position % self.capacity),
            };
            let at = (owner * self.kv_heads + head) * self.slots + slot;
            let (code_bytes, scale_bytes) = self.row;
            let codes = self.codes.slice(at * code_bytes..(at + 1) * code_bytes);
            let scales = match &self.scales {
                Some(scales) => scales.slice(at * scale_bytes..(at + 1) * scale_bytes),
                None => &[],
            };
            let rows = Rows::new(codes, (code_bytes, code_bytes), (scales, scale_bytes), 1);
            value_rows(self.set, &self.decoder, rows, row);
            let mut factor = [1.0];
            row_factors(self.set, &self.decoder, rows, &mut factor);
            if self.decoder.reordered() {
                reorder(self.set, row, false);
            }
            let row = &mut row[..self.head_dim()];
            row.iter_mut().for_each(|x| *x *= factor[0]);
            if let Some(rotation) = &self.rotation {
                rotate::inverse_with(self.set, rotation, row);
            }
            let of_head = head * row.len()..(head + 1) * row.len();
            if let Some(equaliser) = &self.equaliser {
                let equaliser = equaliser.slice(of_head.clone());
                row.iter_mut().zip(equaliser).for_each(|(x, e)| *x *= e);
            }
            if let Some(center) = &self.center {
                let center = center.slice(of_head);
                row.iter_mut().zip(center).for_each(|(x, c)| *x += c);
            }
        }
    }
}

impl Phase for Decode {
    fn items(&self) -> usize {
        self.positions.len() * self.kv_heads
    }

    fn grain(&self) -> usize {
        16
    }

    fn cost(&self) -> u64 {
        (self.items() * (self.head_dim() + 50)) as u64
    }

    fn scratch_bytes(&self) -> usize {
        width(self.head_dim()) * size_of::<f32>()
    }

    unsafe fn run(&self, items: Range<usize>, scratch: &mut Scratch) {
        let row = scratch.floats(width(self.head_dim()));
        for item in items {
            // SAFETY: a phase before has checked the positions, this item alone writes its vector, and the list orders the
            // accesses.
            unsafe {
                self.vector((item / self.kv_heads, item % self.kv_heads), row);
                self.output.put(item, &row[..self.head_dim()]);
            }
        }
    }
}
