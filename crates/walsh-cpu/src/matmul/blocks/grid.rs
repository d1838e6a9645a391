//! The types whose codes are points of grids: `iq3_s`, `iq3_xxs`, `iq2_s`, `iq2_xs`, `iq2_xxs`, `iq1_m` and `iq1_s`.

use walsh_formats::ggml::{
    BlockIq1M, BlockIq1S, BlockIq2S, BlockIq2Xs, BlockIq2Xxs, BlockIq3S, BlockIq3Xxs, Grid,
    IQ1_GRID, IQ2_S_GRID, IQ2_XS_GRID, IQ2_XXS_GRID, IQ3_S_GRID, IQ3_XXS_GRID,
};

use super::along::symmetric_runs;
use super::{Decode, Decoded};
use crate::simd::Primitives;

/// The code that stands for zero where values are at most 15 eighths or units of a scale.
pub(super) const SMALL: u8 = 16;

/// The code that stands for zero where they are at most 62.
pub(super) const LARGE: u8 = 64;

/// Points of eight values as the codes of positive values, eight to a word.
pub(super) struct Eights<const N: usize>(pub(super) [u64; N]);

/// Points of four.
struct Fours<const N: usize>([u32; N]);

/// The codes of a point: `zero` and `factor` times each value.
const fn codes_of(grid: Grid, point: usize, zero: u8, factor: i8) -> u64 {
    let (mut codes, mut i) = (0, 0);
    while i < grid.values {
        let code = zero.wrapping_add_signed(factor * grid.value(point, i));
        codes |= (code as u64) << (8 * i);
        i += 1;
    }
    codes
}

impl<const N: usize> Eights<N> {
    const fn of(grid: Grid, zero: u8, factor: i8) -> Self {
        assert!(grid.values == 8 && grid.points.len() == N);
        let (mut points, mut i) = ([0; N], 0);
        while i < N {
            points[i] = codes_of(grid, i, zero, factor);
            i += 1;
        }
        Eights(points)
    }

    /// The codes of four points.
    #[inline(always)]
    fn codes(&self, index: impl Fn(usize) -> usize) -> [u64; 4] {
        let mut words = [0; 4];
        for (i, word) in words.iter_mut().enumerate() {
            *word = self.0[index(i) % N];
        }
        words
    }
}

impl<const N: usize> Fours<N> {
    const fn of(grid: Grid, zero: u8) -> Self {
        assert!(grid.values == 4 && grid.points.len() == N);
        let (mut points, mut i) = ([0; N], 0);
        while i < N {
            points[i] = codes_of(grid, i, zero, 1) as u32;
            i += 1;
        }
        Fours(points)
    }

    /// The codes of eight points.
    #[inline(always)]
    fn codes(&self, index: impl Fn(usize) -> usize) -> [u64; 4] {
        let mut words = [0; 4];
        for (i, word) in words.iter_mut().enumerate() {
            let code = |i: usize| u64::from(self.0[index(i) % N]);
            *word = code(2 * i) | code(2 * i + 1) << 32;
        }
        words
    }
}

static IQ3_S: Fours<512> = Fours::of(IQ3_S_GRID, SMALL);
static IQ3_XXS: Fours<256> = Fours::of(IQ3_XXS_GRID, LARGE);
static IQ2_S: Eights<1024> = Eights::of(IQ2_S_GRID, LARGE, 1);
static IQ2_XS: Eights<512> = Eights::of(IQ2_XS_GRID, LARGE, 1);
static IQ2_XXS: Eights<256> = Eights::of(IQ2_XXS_GRID, LARGE, 1);
/// In eighths.
pub(super) static IQ1: Eights<2048> = Eights::of(IQ1_GRID, SMALL, 8);

/// The signs of 32 values of which an even number of each eight is negative: from seven bits each.
#[inline(always)]
fn even_signs(word: u32) -> u32 {
    // Seven bits to a byte.
    let pairs = word & 0x3fff | (word & 0x0fff_c000) << 2;
    let sevens = pairs & 0x007f_007f | (pairs & 0x3f80_3f80) << 1;
    let mut parity = sevens ^ sevens >> 4;
    parity ^= parity >> 2;
    parity ^= parity >> 1;
    sevens | (parity & 0x0101_0101) << 7
}

/// The runs' scales: `scale[j] = unit · (½ + nibble j)`, and what they take away.
#[inline(always)]
fn half_steps(out: &mut Decoded<'_>, unit: f32, nibble: impl Fn(usize) -> u8) {
    for (run, (scale, min)) in out.scales.iter_mut().zip(&mut *out.mins).enumerate() {
        *scale = unit * (0.5 + f32::from(nibble(run)));
        *min = f32::from(LARGE) * *scale;
    }
}

/// Nibble `i` of some bytes.
#[inline(always)]
fn nibble(bytes: &[u8], i: usize) -> u8 {
    bytes[i / 2] >> (4 * (i % 2)) & 15
}

impl Decode for BlockIq3S {
    const RUN: usize = 32;
    const TOP: u8 = SMALL + 15;
    const ZERO: Option<u8> = Some(SMALL);

    #[inline(always)]
    fn decode<P: Primitives>(&self, p: P, mut out: Decoded<'_>) {
        let signs = self.signs.as_chunks::<4>().0;
        for (run, codes) in out.codes.chunks_exact_mut(32).enumerate() {
            let (low, high) = (&self.qs[8 * run..8 * run + 8], usize::from(self.qh[run]));
            let found = IQ3_S.codes(|i| usize::from(low[i]) | high << (8 - i) & 256);
            let found = p.mirrored(found, u32::from_le_bytes(signs[run]), SMALL);
            codes.copy_from_slice(&found);
        }
        let ints = (0..8).map(|run| 1 + 2 * i32::from(nibble(&self.scales, run)));
        symmetric_runs(&mut out, p.widen(self.d), f32::from(SMALL), ints);
    }
}

impl Decode for BlockIq3Xxs {
    const RUN: usize = 32;
    const TOP: u8 = LARGE + 62;
    const ZERO: Option<u8> = Some(LARGE);

    #[inline(always)]
    fn decode<P: Primitives>(&self, p: P, mut out: Decoded<'_>) {
        for (run, codes) in out.codes.chunks_exact_mut(32).enumerate() {
            let low = &self.qs[8 * run..8 * run + 8];
            let found = IQ3_XXS.codes(|i| usize::from(low[i]));
            let signs = even_signs(u32::from_le_bytes(self.signs[run]));
            codes.copy_from_slice(&p.mirrored(found, signs, LARGE));
        }
        half_steps(&mut out, 0.5 * p.widen(self.d), |run| {
            self.signs[run][3] >> 4
        });
    }
}

impl Decode for BlockIq2S {
    const RUN: usize = 16;
    const TOP: u8 = LARGE + 43;
    const ZERO: Option<u8> = Some(LARGE);

    #[inline(always)]
    fn decode<P: Primitives>(&self, p: P, mut out: Decoded<'_>) {
        let signs = self.signs.as_chunks::<4>().0;
        for (part, codes) in out.codes.chunks_exact_mut(32).enumerate() {
            let (low, high) = (&self.qs[4 * part..4 * part + 4], usize::from(self.qh[part]));
            let found = IQ2_S.codes(|i| usize::from(low[i]) | high << (8 - 2 * i) & 0x300);
            let found = p.mirrored(found, u32::from_le_bytes(signs[part]), LARGE);
            codes.copy_from_slice(&found);
        }
        let unit = 0.25 * p.widen(self.d);
        half_steps(&mut out, unit, |run| nibble(&self.scales, run));
    }
}

impl Decode for BlockIq2Xs {
    const RUN: usize = 16;
    const TOP: u8 = LARGE + 43;
    const ZERO: Option<u8> = Some(LARGE);

    #[inline(always)]
    fn decode<P: Primitives>(&self, p: P, mut out: Decoded<'_>) {
        let parts = self.qs.chunks_exact(4);
        for (words, codes) in parts.zip(out.codes.chunks_exact_mut(32)) {
            let found = IQ2_XS.codes(|i| usize::from(words[i]));
            let seven = |i: usize| u32::from(words[i] >> 9) << (7 * i);
            let signs = even_signs(seven(0) | seven(1) | seven(2) | seven(3));
            codes.copy_from_slice(&p.mirrored(found, signs, LARGE));
        }
        let unit = 0.25 * p.widen(self.d);
        half_steps(&mut out, unit, |run| nibble(&self.scales, run));
    }
}

impl Decode for BlockIq2Xxs {
    const RUN: usize = 32;
    const TOP: u8 = LARGE + 43;
    const ZERO: Option<u8> = Some(LARGE);

    #[inline(always)]
    fn decode<P: Primitives>(&self, p: P, mut out: Decoded<'_>) {
        let runs = self.qs.iter().zip(out.codes.chunks_exact_mut(32));
        for (bytes, codes) in runs {
            let found = IQ2_XXS.codes(|i| usize::from(bytes[i]));
            let word = u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
            codes.copy_from_slice(&p.mirrored(found, even_signs(word), LARGE));
        }
        half_steps(&mut out, 0.25 * p.widen(self.d), |run| self.qs[run][7] >> 4);
    }
}

/// The codes of eight values of `iq1_m` and `iq1_s`, in eighths. Twelve bits of an index: the point, and whether it is
/// shifted down.
#[inline(always)]
fn shifted_point(index: usize) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let shift = [ONES, ONES.wrapping_neg()][index >> 11 & 1];
    IQ1.0[index % 2048].wrapping_add(shift)
}

/// The codes of 32 such values.
#[inline(always)]
fn shifted<P: Primitives>(p: P, index: impl Fn(usize) -> usize) -> [u8; 32] {
    let mut words = [0; 4];
    for (i, word) in words.iter_mut().enumerate() {
        *word = shifted_point(index(i));
    }
    p.mirrored(words, 0, SMALL)
}

/// Point `i` of a block of `iq1_m`, and whether it is shifted down.
#[inline(always)]
fn index_of_iq1_m(block: &BlockIq1M, i: usize) -> usize {
    let high = block.qh[i / 2] >> (4 * (i % 2)) & 15;
    usize::from(block.qs[i]) | usize::from(high) << 8
}

/// The same of `iq1_s`.
#[inline(always)]
fn index_of_iq1_s(block: &BlockIq1S, i: usize) -> usize {
    let word = usize::from(block.qh[i / 4]);
    usize::from(block.qs[i]) | (word >> (3 * (i % 4)) & 7 | word >> 12 & 8) << 8
}

impl Decode for BlockIq1M {
    const RUN: usize = 16;
    const TOP: u8 = SMALL + 9;
    const ZERO: Option<u8> = Some(SMALL);

    #[inline(always)]
    fn decode<P: Primitives>(&self, p: P, mut out: Decoded<'_>) {
        for (part, codes) in out.codes.chunks_exact_mut(32).enumerate() {
            let found = shifted(p, |i| index_of_iq1_m(self, 4 * part + i));
            codes.copy_from_slice(&found);
        }
        let int = |run: usize| self.scales[run / 4] >> (3 * (run % 4)) & 7;
        let ints = (0..16).map(|run| 1 + 2 * i32::from(int(run)));
        symmetric_runs(&mut out, 0.125 * p.widen(self.d()), f32::from(SMALL), ints);
    }
}

impl Decode for BlockIq1S {
    const RUN: usize = 32;
    const TOP: u8 = SMALL + 9;
    const ZERO: Option<u8> = Some(SMALL);

    #[inline(always)]
    fn decode<P: Primitives>(&self, p: P, mut out: Decoded<'_>) {
        for (part, codes) in out.codes.chunks_exact_mut(32).enumerate() {
            let found = shifted(p, |i| index_of_iq1_s(self, 4 * part + i));
            codes.copy_from_slice(&found);
        }
        let ints = self.qh.iter().map(|word| 1 + 2 * i32::from(word >> 12 & 7));
        symmetric_runs(&mut out, 0.125 * p.widen(self.d), f32::from(SMALL), ints);
    }
}
