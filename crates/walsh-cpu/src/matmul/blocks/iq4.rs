//! `iq4_nl` and `iq4_xs`: codes of four bits that stand for numbers of a table.

use std::mem::offset_of;

use walsh_formats::ggml::{BlockIq4Nl, BlockIq4Xs, IQ4_VALUES};

use super::across::{self, offset_run, quads};
use super::along::{array, nibbles, symmetric_runs};
use super::small::small_block;
use super::{Codes, Columns, Decode, Decoded, Kept, Part, Run, SideBySide};
#[cfg(target_arch = "x86_64")]
use super::{Group, Wide, wide::four};
#[cfg(target_arch = "x86_64")]
use crate::simd::Avx512;
use crate::simd::{Primitives, Register, Unpack};

/// What the signed entries of the table are raised by to make unsigned codes.
const OFFSET: u8 = 128;

/// The table as it is, as bytes.
const SIGNED: [u8; 16] = table(0);

/// The table as unsigned codes.
const CODES: [u8; 16] = table(OFFSET as i32);

const fn table(offset: i32) -> [u8; 16] {
    let mut codes = [0; 16];
    let mut i = 0;
    while i < 16 {
        codes[i] = (IQ4_VALUES[i] as i32 + offset) as u8;
        i += 1;
    }
    codes
}

/// The codes of 32 indices, which are nibbles.
#[inline(always)]
fn looked_up<P: Primitives>(p: P, packed: [u8; 16], codes: &mut [u8]) {
    nibbles(packed, codes);
    let looked_up = p.look_up_all(&CODES, array(codes));
    codes.copy_from_slice(&looked_up);
}

/// The same across rows.
#[inline(always)]
fn looked_up_across<S: Unpack>(s: S, packed: [S::Words; 4], signed: bool) -> Codes<S> {
    let indices = across::nibbles(s, packed);
    let table = if signed { &SIGNED } else { &CODES };
    quads!(|quad| s.look_up(table, indices[quad]))
}

small_block! {
    BlockIq4Nl: codes to 255, zero 128;
    along |p, block, codes| looked_up(p, block.qs, codes);
    across |s, blocks, signed| looked_up_across(s, blocks.columns(offset_of!(Self, qs)), signed);
    wide |s, a, b| s.look_up(&CODES, s.nibbles(&a.qs, &b.qs));
}

/// The eight scales of a block, as stored: 32 too large.
#[inline(always)]
fn scales(block: &BlockIq4Xs) -> [u8; 8] {
    std::array::from_fn(|run| {
        let low = block.scales_l[run / 2] >> (4 * (run % 2)) & 15;
        low | ((block.scales_h >> (2 * run) & 3) as u8) << 4
    })
}

impl Decode for BlockIq4Xs {
    const RUN: usize = 32;
    const TOP: u8 = 255;
    const ZERO: Option<u8> = Some(OFFSET);

    #[inline(always)]
    fn decode<P: Primitives>(&self, p: P, mut out: Decoded<'_>) {
        for (packed, codes) in self.qs.chunks_exact(16).zip(out.codes.chunks_exact_mut(32)) {
            looked_up(p, array(packed), codes);
        }
        let ints = scales(self);
        let ints = ints.iter().map(|&scale| i32::from(scale) - 32);
        symmetric_runs(&mut out, p.widen(self.d), f32::from(OFFSET), ints);
    }
}

impl Columns for BlockIq4Xs {
    #[inline(always)]
    fn start<W: SideBySide>(blocks: W, kept: &mut Kept<W::Set>) {
        const { assert!(offset_of!(Self, scales_h) == offset_of!(Self, d) + 2) };
        let s = blocks.set();
        let first = blocks.word(offset_of!(Self, d));
        let [d, _] = s.widen_words(first);
        kept.ints[0] = first;
        kept.ints[1] = blocks.word(offset_of!(Self, scales_l));
        kept.factors = [d, s.mul(d, s.numbers(-32.0))];
    }

    #[inline(always)]
    fn run<S: Unpack>(s: S, kept: &Kept<S>, run: usize) -> Run<S> {
        let [first, low, ..] = kept.ints;
        let high = s.shl(s.and(s.shr(first, 16 + 2 * run), s.words(3)), 4);
        offset_run(s, s.and_or(s.shr(low, 4 * run), s.words(15), high), kept)
    }

    #[inline(always)]
    fn codes<W: SideBySide>(blocks: W, part: Part, _: &mut Kept<W::Set>) -> Codes<W::Set> {
        let packed = blocks.columns(offset_of!(Self, qs) + 16 * part.index);
        looked_up_across(blocks.set(), packed, part.signed)
    }
}

#[cfg(target_arch = "x86_64")]
impl Wide for BlockIq4Xs {
    #[inline(always)]
    fn wide(s: Avx512, blocks: &[Self]) -> Group {
        let block = &blocks[0];
        Group {
            codes: four!(|vector| {
                let packed = &block.qs[32 * vector..];
                s.look_up(&CODES, s.nibbles(&array(packed), &array(&packed[16..])))
            }),
            scales: s.scales_of_iq4_xs(block, f32::from(OFFSET)),
            mins: s.numbers(0.0),
        }
    }
}
