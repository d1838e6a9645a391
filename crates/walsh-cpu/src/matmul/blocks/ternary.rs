//! `tq1_0`, `tq2_0`, `q1_0` and `q2_0`: one scale, and codes of two to four values.

use std::mem::offset_of;

use half::f16;
use walsh_formats::ggml::{BlockQ1_0, BlockQ2_0, BlockTq1_0, BlockTq2_0, ternary_digit};

use super::across::{self, bit_pairs, quads, run_without_min};
use super::along::{array, each, pairs_in_order, pairs_of_bits};
use super::{Codes, Columns, Decode, Decoded, Kept, Part, Run, SideBySide};
#[cfg(target_arch = "x86_64")]
use super::{Group, Wide, wide::four};
#[cfg(target_arch = "x86_64")]
use crate::simd::Avx512;
use crate::simd::{Primitives, Register, Unpack};

/// Fills in runs that all have the scale `d`; codes of one are zero.
#[inline(always)]
fn single_scale<P: Primitives>(p: P, d: f16, scales: &mut [f32], mins: &mut [f32]) {
    let d = p.widen(d);
    scales.fill(d);
    mins.fill(d);
}

/// The code of a set bit of `q1_0`: where instruction sets spread bits to. Half of it stands for zero.
const BIT: u8 = 16;

/// What `d` is multiplied by for the codes of `q1_0`.
const BIT_UNIT: f32 = 2.0 / BIT as f32;

/// Digit `n` of ternary numbers.
#[inline(always)]
fn digits<const N: usize>(bytes: &[u8; N], n: usize) -> [u8; N] {
    each(*bytes, |byte| ternary_digit(byte, n))
}

impl Decode for BlockTq1_0 {
    const RUN: usize = 32;
    const TOP: u8 = 2;
    const ZERO: Option<u8> = Some(1);

    #[inline(always)]
    fn decode<P: Primitives>(&self, p: P, out: Decoded<'_>) {
        let (first, rest) = out.codes.split_at_mut(5 * 32);
        let (second, last) = rest.split_at_mut(5 * 16);
        let bytes: [u8; 32] = array(&self.qs);
        for (n, codes) in first.chunks_exact_mut(32).enumerate() {
            codes.copy_from_slice(&digits(&bytes, n));
        }
        let bytes: [u8; 16] = array(&self.qs[32..]);
        for (n, codes) in second.chunks_exact_mut(16).enumerate() {
            codes.copy_from_slice(&digits(&bytes, n));
        }
        for (n, codes) in last.chunks_exact_mut(4).enumerate() {
            codes.copy_from_slice(&digits(&self.qh, n));
        }
        single_scale(p, self.d, out.scales, out.mins);
    }
}

impl Decode for BlockTq2_0 {
    const RUN: usize = 32;
    const TOP: u8 = 3;
    const ZERO: Option<u8> = Some(1);

    #[inline(always)]
    fn decode<P: Primitives>(&self, p: P, out: Decoded<'_>) {
        pairs_of_bits(&self.qs, out.codes);
        single_scale(p, self.d, out.scales, out.mins);
    }
}

impl Decode for BlockQ1_0 {
    const RUN: usize = 32;
    const TOP: u8 = BIT;
    const ZERO: Option<u8> = Some(BIT / 2);

    #[inline(always)]
    fn decode<P: Primitives>(&self, p: P, out: Decoded<'_>) {
        let words = self.qs.as_chunks::<4>().0;
        for (codes, word) in out.codes.chunks_exact_mut(32).zip(words) {
            let masks = p.masks(u32::from_le_bytes(*word));
            codes.copy_from_slice(&each(masks, |mask| mask & BIT));
        }
        let d = p.widen(self.d);
        out.scales.fill(d * BIT_UNIT);
        out.mins.fill(d);
    }
}

impl Decode for BlockQ2_0 {
    const RUN: usize = 32;
    const TOP: u8 = 3;
    const ZERO: Option<u8> = Some(1);

    #[inline(always)]
    fn decode<P: Primitives>(&self, p: P, out: Decoded<'_>) {
        pairs_in_order(self.qs, out.codes);
        single_scale(p, self.d, out.scales, out.mins);
    }
}

/// Across rows: blocks of a scale, which is multiplied by a unit, and codes by a function of the blocks, their part and what
/// is kept.
macro_rules! columns {
    ($block:ty, $unit:expr, |$blocks:ident, $part:ident, $kept:ident| $codes:expr) => {
        impl Columns for $block {
            #[inline(always)]
            fn start<W: SideBySide>(blocks: W, kept: &mut Kept<W::Set>) {
                let s = blocks.set();
                kept.factors[0] = s.mul(blocks.halves(offset_of!(Self, d)), s.numbers($unit));
            }

            #[inline(always)]
            fn run<S: Unpack>(s: S, kept: &Kept<S>, _: usize) -> Run<S> {
                run_without_min(s, kept.factors[0])
            }

            #[inline(always)]
            fn codes<W: SideBySide>(
                $blocks: W,
                $part: Part,
                $kept: &mut Kept<W::Set>,
            ) -> Codes<W::Set> {
                // Not all types keep something.
                let _ = &$kept;
                $codes
            }
        }
    };
}

columns!(BlockTq2_0, 1.0, |blocks, part, kept| bit_pairs(
    blocks,
    offset_of!(Self, qs),
    part.index,
    kept
));

columns!(BlockQ1_0, BIT_UNIT, |blocks, part, kept| {
    let s = blocks.set();
    let bits = blocks.word(offset_of!(Self, qs) + 4 * part.index);
    quads!(|quad| s.fifth_bits(bits, quad))
});

columns!(BlockQ2_0, 1.0, |blocks, part, kept| {
    across::pairs_in_order(blocks, offset_of!(Self, qs) + 8 * part.index)
});

#[cfg(target_arch = "x86_64")]
impl Wide for BlockTq1_0 {
    #[inline(always)]
    fn wide(s: Avx512, blocks: &[Self]) -> Group {
        s.plainly(blocks)
    }
}

#[cfg(target_arch = "x86_64")]
impl Wide for BlockTq2_0 {
    #[inline(always)]
    fn wide(s: Avx512, blocks: &[Self]) -> Group {
        let block = &blocks[0];
        Group {
            codes: four!(|vector| s.bit_pairs(&block.qs, vector)),
            scales: s.numbers(s.widen(block.d)),
            mins: s.numbers(0.0),
        }
    }
}

#[cfg(target_arch = "x86_64")]
impl Wide for BlockQ1_0 {
    #[inline(always)]
    fn wide(s: Avx512, blocks: &[Self]) -> Group {
        Group {
            codes: four!(|vector| {
                let bits: [u8; 8] = array(&blocks[vector / 2].qs[8 * (vector % 2)..]);
                s.bits_as(BIT, u64::from_le_bytes(bits))
            }),
            scales: s.mul(
                s.equal_scales([blocks[0].d, blocks[0].d, blocks[1].d, blocks[1].d]),
                s.number_halves(BIT_UNIT, 1.0),
            ),
            mins: s.numbers(0.0),
        }
    }
}

#[cfg(target_arch = "x86_64")]
impl Wide for BlockQ2_0 {
    #[inline(always)]
    fn wide(s: Avx512, blocks: &[Self]) -> Group {
        Group {
            codes: four!(|vector| s.bit_pairs_in_order(&blocks[vector].qs)),
            scales: s.equal_scales([blocks[0].d, blocks[1].d, blocks[2].d, blocks[3].d]),
            mins: s.numbers(0.0),
        }
    }
}
