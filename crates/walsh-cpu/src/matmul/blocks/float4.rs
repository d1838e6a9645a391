//! `mxfp4` and `nvfp4`: floats of four bits.

use std::mem::offset_of;

use walsh_formats::ggml::{BlockMxfp4, BlockNvfp4, FP4_VALUES, e8m0, ue4m3};

use super::across::{self, field, quads, run_without_min};
use super::along::{array, nibbles};
use super::{Codes, Columns, Decode, Decoded, Kept, Part, Run, SideBySide};
#[cfg(target_arch = "x86_64")]
use super::{Group, Wide};
#[cfg(target_arch = "x86_64")]
use crate::simd::{Avx512, Register};
use crate::simd::{Primitives, Unpack};

/// The code that stands for zero.
const ZERO: u8 = 16;

/// The largest code.
const TOP: u8 = ZERO + 12;

/// The low nibbles of eight bytes.
const NIBBLES: u64 = 0x0f0f_0f0f_0f0f_0f0f;

/// The codes of indices.
const CODES: [u8; 16] = {
    let mut codes = [ZERO; 16];
    let mut i = 0;
    while i < 16 {
        codes[i] = codes[i].wrapping_add_signed(FP4_VALUES[i]);
        i += 1;
    }
    codes
};

impl Decode for BlockMxfp4 {
    const RUN: usize = 32;
    const TOP: u8 = TOP;
    const ZERO: Option<u8> = Some(ZERO);

    #[inline(always)]
    fn decode<P: Primitives>(&self, p: P, out: Decoded<'_>) {
        nibbles(self.qs, out.codes);
        let codes = p.look_up_all(&CODES, array(out.codes));
        out.codes.copy_from_slice(&codes);
        out.scales[0] = e8m0(self.e);
        out.mins[0] = f32::from(ZERO) * out.scales[0];
    }
}

impl Columns for BlockMxfp4 {
    #[inline(always)]
    fn start<W: SideBySide>(blocks: W, kept: &mut Kept<W::Set>) {
        kept.factors[0] = blocks.set().powers(blocks.byte(offset_of!(Self, e)));
    }

    #[inline(always)]
    fn run<S: Unpack>(s: S, kept: &Kept<S>, _: usize) -> Run<S> {
        run_without_min(s, kept.factors[0])
    }

    #[inline(always)]
    fn codes<W: SideBySide>(blocks: W, _: Part, _: &mut Kept<W::Set>) -> Codes<W::Set> {
        let s = blocks.set();
        let indices = across::nibbles(s, blocks.columns(offset_of!(Self, qs)));
        quads!(|quad| s.look_up(&CODES, indices[quad]))
    }
}

#[cfg(target_arch = "x86_64")]
impl Wide for BlockMxfp4 {
    #[inline(always)]
    fn wide(s: Avx512, blocks: &[Self]) -> Group {
        let (mut codes, mut exponents) = ([s.no_codes(); 4], [0; 8]);
        for (codes, pair) in codes.iter_mut().zip(blocks.chunks_exact(2)) {
            *codes = s.look_up(&CODES, s.nibbles(&pair[0].qs, &pair[1].qs));
        }
        for (exponent, block) in exponents.iter_mut().zip(blocks) {
            *exponent = block.e;
        }
        Group {
            codes,
            scales: s.scales_of_mxfp4(exponents, blocks.len(), f32::from(ZERO)),
            mins: s.numbers(0.0),
        }
    }
}

impl Decode for BlockNvfp4 {
    const RUN: usize = 16;
    const TOP: u8 = TOP;
    const ZERO: Option<u8> = Some(ZERO);

    #[inline(always)]
    fn decode<P: Primitives>(&self, p: P, out: Decoded<'_>) {
        let halves = self.qs.as_chunks::<16>().0;
        for (packed, codes) in halves.iter().zip(out.codes.chunks_exact_mut(32)) {
            let runs: [u64; 2] = bytemuck::cast(*packed);
            let low = runs.map(|run| run & NIBBLES);
            let high = runs.map(|run| run >> 4 & NIBBLES);
            let indices = [low[0], high[0], low[1], high[1]];
            codes.copy_from_slice(&p.look_up_all(&CODES, bytemuck::cast(indices)));
        }
        for ((scale, min), d) in out.scales.iter_mut().zip(out.mins).zip(self.d) {
            *scale = ue4m3(d);
            *min = f32::from(ZERO) * *scale;
        }
    }
}

impl Columns for BlockNvfp4 {
    #[inline(always)]
    fn start<W: SideBySide>(blocks: W, kept: &mut Kept<W::Set>) {
        kept.ints[0] = blocks.word(offset_of!(Self, d));
    }

    #[inline(always)]
    fn run<S: Unpack>(s: S, kept: &Kept<S>, run: usize) -> Run<S> {
        let byte = s.and(s.shr(kept.ints[0], 8 * run), s.words(255));
        run_without_min(s, s.small_floats(byte))
    }

    #[inline(always)]
    fn codes<W: SideBySide>(blocks: W, part: Part, _: &mut Kept<W::Set>) -> Codes<W::Set> {
        let s = blocks.set();
        let packed = blocks.columns(offset_of!(Self, qs) + 16 * part.index);
        quads!(|quad| {
            let packed = packed[quad / 4 * 2 + quad % 2];
            s.look_up(&CODES, field(s, packed, quad / 2 % 2 * 4, 15))
        })
    }
}

#[cfg(target_arch = "x86_64")]
impl Wide for BlockNvfp4 {
    #[inline(always)]
    fn wide(s: Avx512, blocks: &[Self]) -> Group {
        let (mut codes, mut scales) = ([s.no_codes(); 4], [[0; 4]; 4]);
        for ((codes, scales), block) in codes.iter_mut().zip(&mut scales).zip(blocks) {
            *codes = s.look_up(&CODES, s.nibbles_of_runs(&block.qs));
            *scales = block.d;
        }
        let scales = s.scales_of_nvfp4(scales);
        Group {
            codes,
            scales,
            mins: s.mul(scales, s.numbers(f32::from(ZERO))),
        }
    }
}
