//! The K types: blocks of 256 values, with scales of scales.

use std::mem::offset_of;

use walsh_formats::ggml::{BlockQ2K, BlockQ3K, BlockQ4K, BlockQ5K, BlockQ6K};

use super::across::{
    Planes, bit_pairs, field, keep_factors, offset_run, quads, run_without_min, scaled,
};
use super::along::{array, bit_planes, nibbles, or_bits, pairs_of_bits, symmetric_runs};
use super::{Codes, Columns, Decode, Decoded, Kept, Part, Run, SideBySide};
#[cfg(target_arch = "x86_64")]
use super::{Group, Wide, wide::four};
#[cfg(target_arch = "x86_64")]
use crate::simd::Avx512;
use crate::simd::{Primitives, Register, Unpack};

/// A little-endian word of twelve bytes.
#[inline(always)]
fn word(packed: &[u8; 12], at: usize) -> u32 {
    u32::from_le_bytes([packed[at], packed[at + 1], packed[at + 2], packed[at + 3]])
}

/// The eight 6-bit scales and eight 6-bit minima of `q4_K` and `q5_K`.
#[inline(always)]
fn scales_and_mins(packed: &[u8; 12]) -> [u8; 16] {
    let (scales, mins, rest) = (word(packed, 0), word(packed, 4), word(packed, 8));
    let words = [
        scales & 0x3f3f_3f3f,
        (rest & 0x0f0f_0f0f) | (scales >> 2 & 0x3030_3030),
        mins & 0x3f3f_3f3f,
        (rest >> 4 & 0x0f0f_0f0f) | (mins >> 2 & 0x3030_3030),
    ];
    bytemuck::cast(words)
}

/// The sixteen scales of `q3_K`, as stored: 32 too large.
#[inline(always)]
fn scales_of_q3(packed: &[u8; 12]) -> [u8; 16] {
    let (a, b, high) = (word(packed, 0), word(packed, 4), word(packed, 8));
    let words = [
        (a & 0x0f0f_0f0f) | (high << 4 & 0x3030_3030),
        (b & 0x0f0f_0f0f) | (high << 2 & 0x3030_3030),
        (a >> 4 & 0x0f0f_0f0f) | (high & 0x3030_3030),
        (b >> 4 & 0x0f0f_0f0f) | (high >> 2 & 0x3030_3030),
    ];
    bytemuck::cast(words)
}

/// Fills in runs from integer scales and minima: `scale[j] = d · ints[j]` and `min[j] = dmin · mins[j]`.
#[inline(always)]
fn asymmetric_runs(out: &mut Decoded<'_>, [d, dmin]: [f32; 2], ints: &[u8; 16]) {
    for (scale, &int) in out.scales.iter_mut().zip(&ints[..8]) {
        *scale = d * f32::from(int);
    }
    for (min, &int) in out.mins.iter_mut().zip(&ints[8..]) {
        *min = dmin * f32::from(int);
    }
}

/// The low four bits of the codes of `q4_K` and `q5_K`.
#[inline(always)]
fn nibbles_of_64(packed: &[u8; 128], codes: &mut [u8]) {
    for (packed, codes) in packed.chunks_exact(32).zip(codes.chunks_exact_mut(64)) {
        nibbles::<32>(array(packed), codes);
    }
}

impl Decode for BlockQ2K {
    const RUN: usize = 16;
    const TOP: u8 = 3;
    const ZERO: Option<u8> = None;

    #[inline(always)]
    fn decode<P: Primitives>(&self, p: P, out: Decoded<'_>) {
        pairs_of_bits(&self.qs, out.codes);
        let (d, dmin) = (p.widen(self.d), p.widen(self.dmin));
        for ((scale, min), &byte) in out.scales.iter_mut().zip(out.mins).zip(&self.scales) {
            *scale = d * f32::from(byte & 15);
            *min = dmin * f32::from(byte >> 4);
        }
    }
}

impl Decode for BlockQ3K {
    const RUN: usize = 16;
    const TOP: u8 = 7;
    const ZERO: Option<u8> = Some(4);

    #[inline(always)]
    fn decode<P: Primitives>(&self, p: P, mut out: Decoded<'_>) {
        pairs_of_bits(&self.qs, out.codes);
        bit_planes(self.hmask, 2, out.codes);
        let ints = scales_of_q3(&self.scales);
        let ints = ints.iter().map(|&scale| i32::from(scale) - 32);
        symmetric_runs(&mut out, p.widen(self.d), 4.0, ints);
    }
}

impl Decode for BlockQ4K {
    const RUN: usize = 32;
    const TOP: u8 = 15;
    const ZERO: Option<u8> = None;

    #[inline(always)]
    fn decode<P: Primitives>(&self, p: P, mut out: Decoded<'_>) {
        nibbles_of_64(&self.qs, out.codes);
        let factors = [p.widen(self.d), p.widen(self.dmin)];
        asymmetric_runs(&mut out, factors, &scales_and_mins(&self.scales));
    }
}

impl Decode for BlockQ5K {
    const RUN: usize = 32;
    const TOP: u8 = 31;
    const ZERO: Option<u8> = None;

    #[inline(always)]
    fn decode<P: Primitives>(&self, p: P, mut out: Decoded<'_>) {
        nibbles_of_64(&self.qs, out.codes);
        bit_planes(self.qh, 4, out.codes);
        let factors = [p.widen(self.d), p.widen(self.dmin)];
        asymmetric_runs(&mut out, factors, &scales_and_mins(&self.scales));
    }
}

impl Decode for BlockQ6K {
    const RUN: usize = 16;
    const TOP: u8 = 63;
    const ZERO: Option<u8> = Some(32);

    #[inline(always)]
    fn decode<P: Primitives>(&self, p: P, mut out: Decoded<'_>) {
        for half in 0..2 {
            let codes = &mut out.codes[128 * half..128 * half + 128];
            nibbles::<64>(array(&self.ql[64 * half..]), codes);
            let high: [u8; 32] = array(&self.qh[32 * half..]);
            for (shift, codes) in codes.chunks_exact_mut(32).enumerate() {
                or_bits(high, codes, |byte| (byte >> (2 * shift) & 3) << 4);
            }
        }
        let ints = self.scales.iter().map(|&scale| i32::from(scale));
        symmetric_runs(&mut out, p.widen(self.d), 32.0, ints);
    }
}

/// Keeps eight scales and eight minima of `q4_K` and `q5_K`, and their factors.
#[inline(always)]
fn start_asymmetric<W: SideBySide>(blocks: W, at: usize, kept: &mut Kept<W::Set>) {
    let s = blocks.set();
    let [factors, a, b, c] = blocks.columns(at);
    keep_factors(s, factors, kept);
    let (scales, mins) = (field(s, a, 2, 0x30), field(s, b, 2, 0x30));
    let nibbles = s.bytes(15);
    kept.ints = [
        field(s, a, 0, 0x3f),
        s.and_or(c, nibbles, scales),
        field(s, b, 0, 0x3f),
        s.and_or(s.shr(c, 4), nibbles, mins),
    ];
}

/// A run of `q4_K` and `q5_K`.
#[inline(always)]
fn asymmetric_run<S: Unpack>(s: S, kept: &Kept<S>, run: usize) -> Run<S> {
    let [d, dmin] = kept.factors;
    Run {
        scale: scaled(s, &kept.ints[..2], run, d),
        min: scaled(s, &kept.ints[2..], run, dmin),
    }
}

/// The nibbles of `q4_K` and `q5_K`: 32 bytes serve two parts. The even one, which comes first, keeps what the odd one
/// reads.
#[inline(always)]
fn nibble_parts<W: SideBySide>(
    blocks: W,
    at: usize,
    part: usize,
    kept: &mut Kept<W::Set>,
) -> Codes<W::Set> {
    let s = blocks.set();
    if part.is_multiple_of(2) {
        blocks.keep(at + 16 * part, &mut kept.low[..8]);
    }
    let (at, by) = (at + part / 2 * 32, 4 * (part % 2));
    quads!(|quad| field(s, blocks.kept(at, &kept.low[..8], quad), by, 15))
}

impl Columns for BlockQ2K {
    #[inline(always)]
    fn start<W: SideBySide>(blocks: W, kept: &mut Kept<W::Set>) {
        const { assert!(offset_of!(Self, dmin) == offset_of!(Self, d) + 2) };
        kept.ints = blocks.columns(offset_of!(Self, scales));
        keep_factors(blocks.set(), blocks.word(offset_of!(Self, d)), kept);
    }

    #[inline(always)]
    fn run<S: Unpack>(s: S, kept: &Kept<S>, run: usize) -> Run<S> {
        let (ints, [d, dmin]) = (kept.ints[run / 4], kept.factors);
        let scale = s.and(s.shr(ints, 8 * (run % 4)), s.words(15));
        let min = s.and(s.shr(ints, 8 * (run % 4) + 4), s.words(15));
        Run {
            scale: s.mul(s.to_numbers(scale), d),
            min: s.mul(s.to_numbers(min), dmin),
        }
    }

    #[inline(always)]
    fn codes<W: SideBySide>(blocks: W, part: Part, kept: &mut Kept<W::Set>) -> Codes<W::Set> {
        bit_pairs(blocks, offset_of!(Self, qs), part.index, kept)
    }
}

impl Columns for BlockQ3K {
    #[inline(always)]
    fn start<W: SideBySide>(blocks: W, kept: &mut Kept<W::Set>) {
        let s = blocks.set();
        let at = offset_of!(Self, scales);
        let (low, high) = ([blocks.word(at), blocks.word(at + 4)], blocks.word(at + 8));
        let d = blocks.halves(offset_of!(Self, d));
        // Two bits of a byte go to bits 4 and 5, beside a nibble.
        for (i, to) in kept.ints.iter_mut().enumerate() {
            let high = s.and(s.moved(high, 2 * i, 4), s.bytes(0x30));
            *to = s.and_or(s.shr(low[i % 2], i / 2 * 4), s.bytes(15), high);
        }
        kept.factors = [d, s.mul(d, s.numbers(-32.0))];
    }

    #[inline(always)]
    fn run<S: Unpack>(s: S, kept: &Kept<S>, run: usize) -> Run<S> {
        let int = s.and(s.shr(kept.ints[run / 4], 8 * (run % 4)), s.words(255));
        offset_run(s, int, kept)
    }

    #[inline(always)]
    fn codes<W: SideBySide>(blocks: W, part: Part, kept: &mut Kept<W::Set>) -> Codes<W::Set> {
        let planes = Planes {
            at: offset_of!(Self, hmask),
            bit: 2,
        };
        let codes = bit_pairs(blocks, offset_of!(Self, qs), part.index, kept);
        planes.add(blocks, part.index, kept, codes)
    }
}

impl Columns for BlockQ4K {
    #[inline(always)]
    fn start<W: SideBySide>(blocks: W, kept: &mut Kept<W::Set>) {
        start_asymmetric(blocks, offset_of!(Self, d), kept);
    }

    #[inline(always)]
    fn run<S: Unpack>(s: S, kept: &Kept<S>, run: usize) -> Run<S> {
        asymmetric_run(s, kept, run)
    }

    #[inline(always)]
    fn codes<W: SideBySide>(blocks: W, part: Part, kept: &mut Kept<W::Set>) -> Codes<W::Set> {
        nibble_parts(blocks, offset_of!(Self, qs), part.index, kept)
    }
}

impl Columns for BlockQ5K {
    #[inline(always)]
    fn start<W: SideBySide>(blocks: W, kept: &mut Kept<W::Set>) {
        start_asymmetric(blocks, offset_of!(Self, d), kept);
    }

    #[inline(always)]
    fn run<S: Unpack>(s: S, kept: &Kept<S>, run: usize) -> Run<S> {
        asymmetric_run(s, kept, run)
    }

    #[inline(always)]
    fn codes<W: SideBySide>(blocks: W, part: Part, kept: &mut Kept<W::Set>) -> Codes<W::Set> {
        let planes = Planes {
            at: offset_of!(Self, qh),
            bit: 4,
        };
        let codes = nibble_parts(blocks, offset_of!(Self, qs), part.index, kept);
        planes.add(blocks, part.index, kept, codes)
    }
}

impl Columns for BlockQ6K {
    #[inline(always)]
    fn start<W: SideBySide>(blocks: W, kept: &mut Kept<W::Set>) {
        kept.ints = blocks.columns(offset_of!(Self, scales));
        kept.factors[0] = blocks.halves(offset_of!(Self, d));
    }

    #[inline(always)]
    fn run<S: Unpack>(s: S, kept: &Kept<S>, run: usize) -> Run<S> {
        let int = s.signed_top_byte(s.shl(kept.ints[run / 4], 24 - 8 * (run % 4)));
        run_without_min(s, s.mul(s.to_numbers(int), kept.factors[0]))
    }

    #[inline(always)]
    fn codes<W: SideBySide>(blocks: W, part: Part, kept: &mut Kept<W::Set>) -> Codes<W::Set> {
        let s = blocks.set();
        let (half, quarter) = (part.index / 4, part.index % 4);
        let low = offset_of!(Self, ql) + 64 * half;
        let high = offset_of!(Self, qh) + 32 * half;
        // The first part of each half keeps what the next three read.
        if quarter == 0 {
            blocks.keep(low, &mut kept.low);
            blocks.keep(high, &mut kept.high);
        }
        let first = quarter % 2 * 8;
        // Two bits of a byte go to bits 4 and 5.
        quads!(|quad| {
            let low = field(
                s,
                blocks.kept(low, &kept.low, first + quad),
                quarter / 2 * 4,
                15,
            );
            let bits = s.moved(blocks.kept(high, &kept.high, quad), 2 * quarter, 4);
            s.and_or(bits, s.bytes(0x30), low)
        })
    }
}

#[cfg(target_arch = "x86_64")]
impl Wide for BlockQ2K {
    #[inline(always)]
    fn wide(s: Avx512, blocks: &[Self]) -> Group {
        let block = &blocks[0];
        let [scales, mins] = s.numbers_of_nibbles(&block.scales);
        Group {
            codes: four!(|vector| s.bit_pairs(&block.qs, vector)),
            scales: s.mul(scales, s.numbers(s.widen(block.d))),
            mins: s.mul(mins, s.numbers(s.widen(block.dmin))),
        }
    }
}

#[cfg(target_arch = "x86_64")]
impl Wide for BlockQ3K {
    #[inline(always)]
    fn wide(s: Avx512, blocks: &[Self]) -> Group {
        let block = &blocks[0];
        let mask = s.twice(&block.hmask);
        let scales = s.mul(s.scales_of_q3(block), s.numbers(s.widen(block.d)));
        Group {
            codes: four!(|vector| s.with_plane(s.bit_pairs(&block.qs, vector), mask, vector, 4)),
            scales,
            mins: s.mul(scales, s.numbers(4.0)),
        }
    }
}

#[cfg(target_arch = "x86_64")]
impl Wide for BlockQ4K {
    #[inline(always)]
    fn wide(s: Avx512, blocks: &[Self]) -> Group {
        let block = &blocks[0];
        Group {
            codes: four!(|vector| s.nibble_runs(&array(&block.qs[32 * vector..]))),
            scales: s.scales_and_mins(bytemuck::bytes_of(block)),
            mins: s.numbers(0.0),
        }
    }
}

#[cfg(target_arch = "x86_64")]
impl Wide for BlockQ5K {
    #[inline(always)]
    fn wide(s: Avx512, blocks: &[Self]) -> Group {
        let block = &blocks[0];
        let mask = s.twice(&block.qh);
        Group {
            codes: four!(|vector| {
                let codes = s.nibble_runs(&array(&block.qs[32 * vector..]));
                s.with_plane(codes, mask, vector, 16)
            }),
            scales: s.scales_and_mins(bytemuck::bytes_of(block)),
            mins: s.numbers(0.0),
        }
    }
}

#[cfg(target_arch = "x86_64")]
impl Wide for BlockQ6K {
    #[inline(always)]
    fn wide(s: Avx512, blocks: &[Self]) -> Group {
        let block = &blocks[0];
        let scales = s.mul(s.signed_numbers(&block.scales), s.numbers(s.widen(block.d)));
        Group {
            codes: four!(|vector| s.codes_of_q6(block, vector)),
            scales,
            mins: s.mul(scales, s.numbers(32.0)),
        }
    }
}
