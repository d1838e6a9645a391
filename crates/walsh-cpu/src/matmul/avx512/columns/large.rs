//! The types with blocks of 256 values.

use std::arch::x86_64::*;
use std::mem::offset_of;

use walsh_formats::ggml::{BlockIq4Xs, BlockQ2K, BlockQ3K, BlockQ4K, BlockQ5K, BlockQ6K};

use super::{
    Codes, Columns, Kept, Run, Words, and, and_or, bytes, each, nibbles, scaled_byte, shift, turn,
    widen_high, widen_low,
};
use crate::matmul::avx512::decode::look_up;

/// A scale or minimum of each row: byte `run` of `ints`, times its factor.
///
/// # Safety
/// Both have been kept, and the machine has AVX-512.
#[inline(always)]
unsafe fn scaled(kept: &Kept, ints: usize, run: usize, factor: usize) -> __m512 {
    // SAFETY: the caller's.
    unsafe {
        let words = kept.ints[ints + run / 4].assume_init();
        scaled_byte(words, run % 4, kept.factors[factor].assume_init())
    }
}

/// The lower and the upper half of each word, widened.
#[inline(always)]
fn keep_factors(words: __m512i, kept: &mut Kept) {
    kept.factors[0].write(widen_low(words));
    kept.factors[1].write(widen_high(words));
}

/// Eight scales and eight minima of the types `q4_K` and `q5_K`.
///
/// # Safety
/// As for [`Columns::start`].
#[inline(always)]
unsafe fn start_asymmetric(blocks: impl Words, at: usize, kept: &mut Kept) {
    // SAFETY: the caller's.
    unsafe {
        let [factors, a, b, c] = blocks.columns(at);
        keep_factors(factors, kept);
        let high = |words| and(shift(words, 2), bytes(0x30));
        kept.ints[0].write(and(a, bytes(0x3f)));
        kept.ints[1].write(and_or(c, bytes(15), high(a)));
        kept.ints[2].write(and(b, bytes(0x3f)));
        kept.ints[3].write(and_or(shift(c, 4), bytes(15), high(b)));
    }
}

/// A run of the types `q4_K` and `q5_K`.
///
/// # Safety
/// As for [`Columns::run`].
#[inline(always)]
unsafe fn asymmetric_run(kept: &Kept, run: usize) -> Run {
    // SAFETY: the caller's.
    unsafe {
        Run {
            scale: scaled(kept, 0, run, 0),
            min: scaled(kept, 2, run, 1),
        }
    }
}

/// The nibbles of `q4_K` and `q5_K`: 32 bytes serve two parts.
///
/// # Safety
/// As for [`Columns::codes`].
#[inline(always)]
unsafe fn nibble_parts(blocks: impl Words, at: usize, part: usize, kept: &mut Kept) -> Codes {
    // SAFETY: the caller's; the even part, which comes first, keeps what the odd one reads.
    unsafe {
        if part.is_multiple_of(2) {
            blocks.keep(at + 16 * part, &mut kept.low[..8]);
        }
        let (at, by) = (at + part / 2 * 32, 4 * (part % 2));
        each!(|quad| and(shift(blocks.kept(at, &kept.low[..8], quad), by), bytes(15)))
    }
}

impl Columns for BlockQ4K {
    #[inline(always)]
    unsafe fn start(blocks: impl Words, kept: &mut Kept) {
        // SAFETY: the caller's.
        unsafe { start_asymmetric(blocks, offset_of!(Self, d), kept) }
    }

    #[inline(always)]
    unsafe fn run(kept: &Kept, run: usize) -> Run {
        // SAFETY: the caller's.
        unsafe { asymmetric_run(kept, run) }
    }

    #[inline(always)]
    unsafe fn codes(blocks: impl Words, part: usize, kept: &mut Kept) -> Codes {
        // SAFETY: the caller's.
        unsafe { nibble_parts(blocks, offset_of!(Self, qs), part, kept) }
    }
}

impl Columns for BlockQ5K {
    #[inline(always)]
    unsafe fn start(blocks: impl Words, kept: &mut Kept) {
        // SAFETY: the caller's.
        unsafe { start_asymmetric(blocks, offset_of!(Self, d), kept) }
    }

    #[inline(always)]
    unsafe fn run(kept: &Kept, run: usize) -> Run {
        // SAFETY: the caller's.
        unsafe { asymmetric_run(kept, run) }
    }

    #[inline(always)]
    unsafe fn codes(blocks: impl Words, part: usize, kept: &mut Kept) -> Codes {
        // SAFETY: the caller's; the first part keeps the bits of all.
        unsafe {
            if part == 0 {
                blocks.keep(offset_of!(Self, qh), &mut kept.high);
            }
            let codes = nibble_parts(blocks, offset_of!(Self, qs), part, kept);
            // Bit `part` of a byte goes to bit 4.
            each!(|quad| {
                let bits = blocks.kept(offset_of!(Self, qh), &kept.high, quad);
                let bits = turn(bits, (part + 28) % 32);
                and_or(bits, bytes(16), codes[quad])
            })
        }
    }
}

impl Columns for BlockQ6K {
    #[inline(always)]
    unsafe fn start(blocks: impl Words, kept: &mut Kept) {
        // SAFETY: the caller's.
        unsafe {
            let ints = blocks.columns(offset_of!(Self, scales));
            for (to, ints) in kept.ints.iter_mut().zip(ints) {
                to.write(ints);
            }
            kept.factors[0].write(blocks.halves(offset_of!(Self, d)));
        }
    }

    #[inline(always)]
    unsafe fn run(kept: &Kept, run: usize) -> Run {
        // SAFETY: the caller's.
        unsafe {
            let ints = kept.ints[run / 4].assume_init();
            let up = _mm_cvtsi32_si128(24 - 8 * (run as i32 % 4));
            let int = _mm512_srai_epi32::<24>(_mm512_sll_epi32(ints, up));
            let d = kept.factors[0].assume_init();
            Run {
                scale: _mm512_mul_ps(_mm512_cvtepi32_ps(int), d),
                min: _mm512_setzero_ps(),
            }
        }
    }

    #[inline(always)]
    unsafe fn codes(blocks: impl Words, part: usize, kept: &mut Kept) -> Codes {
        // SAFETY: the caller's; the first part of each half keeps what the next three read.
        unsafe {
            let (half, quarter) = (part / 4, part % 4);
            let low = offset_of!(Self, ql) + 64 * half;
            let high = offset_of!(Self, qh) + 32 * half;
            if quarter == 0 {
                blocks.keep(low, &mut kept.low);
                blocks.keep(high, &mut kept.high);
            }
            let first = quarter % 2 * 8;
            // Two bits of a byte go to bits 4 and 5.
            each!(|quad| {
                let low = blocks.kept(low, &kept.low, first + quad);
                let low = and(shift(low, quarter / 2 * 4), bytes(15));
                let bits = blocks.kept(high, &kept.high, quad);
                and_or(turn(bits, (2 * quarter + 28) % 32), bytes(0x30), low)
            })
        }
    }
}

/// The two-bit codes of `q2_K` and `q3_K`: 32 bytes serve four parts.
///
/// # Safety
/// As for [`Columns::codes`].
#[inline(always)]
unsafe fn bit_pairs(blocks: impl Words, at: usize, part: usize, kept: &mut Kept) -> Codes {
    // SAFETY: the caller's; the first part of each half keeps what the next three read.
    unsafe {
        if part.is_multiple_of(4) {
            blocks.keep(at + 8 * part, &mut kept.low[..8]);
        }
        let (at, by) = (at + part / 4 * 32, part % 4 * 2);
        each!(|quad| and(shift(blocks.kept(at, &kept.low[..8], quad), by), bytes(3)))
    }
}

/// A run of a type whose integer scales are 32 too large.
///
/// # Safety
/// The factor and −32 times it have been kept, and the machine has AVX-512.
#[inline(always)]
unsafe fn offset_run(int: __m512i, kept: &Kept) -> Run {
    // SAFETY: the caller's.
    unsafe {
        let (d, offset) = (kept.factors[0].assume_init(), kept.factors[1].assume_init());
        Run {
            scale: _mm512_fmadd_ps(_mm512_cvtepi32_ps(int), d, offset),
            min: _mm512_setzero_ps(),
        }
    }
}

impl Columns for BlockQ2K {
    #[inline(always)]
    unsafe fn start(blocks: impl Words, kept: &mut Kept) {
        const { assert!(offset_of!(BlockQ2K, dmin) == offset_of!(BlockQ2K, d) + 2) };
        // SAFETY: the caller's.
        unsafe {
            let ints = blocks.columns(offset_of!(Self, scales));
            for (to, ints) in kept.ints.iter_mut().zip(ints) {
                to.write(ints);
            }
            keep_factors(blocks.word(offset_of!(Self, d)), kept);
        }
    }

    #[inline(always)]
    unsafe fn run(kept: &Kept, run: usize) -> Run {
        // SAFETY: the caller's.
        unsafe {
            let ints = kept.ints[run / 4].assume_init();
            let nibble = |by: usize, factor: usize| {
                let int = and(shift(ints, 8 * (run % 4) + by), _mm512_set1_epi32(15));
                _mm512_mul_ps(_mm512_cvtepi32_ps(int), kept.factors[factor].assume_init())
            };
            Run {
                scale: nibble(0, 0),
                min: nibble(4, 1),
            }
        }
    }

    #[inline(always)]
    unsafe fn codes(blocks: impl Words, part: usize, kept: &mut Kept) -> Codes {
        // SAFETY: the caller's.
        unsafe { bit_pairs(blocks, offset_of!(Self, qs), part, kept) }
    }
}

impl Columns for BlockQ3K {
    #[inline(always)]
    unsafe fn start(blocks: impl Words, kept: &mut Kept) {
        // SAFETY: the caller's.
        unsafe {
            let word = |i: usize| blocks.word(offset_of!(Self, scales) + 4 * i);
            let (a, b, high) = (word(0), word(1), word(2));
            let d = blocks.halves(offset_of!(Self, d));
            let ints = [
                and_or(a, bytes(15), and(_mm512_slli_epi32::<4>(high), bytes(0x30))),
                and_or(b, bytes(15), and(_mm512_slli_epi32::<2>(high), bytes(0x30))),
                and_or(shift(a, 4), bytes(15), and(high, bytes(0x30))),
                and_or(shift(b, 4), bytes(15), and(shift(high, 2), bytes(0x30))),
            ];
            for (to, ints) in kept.ints.iter_mut().zip(ints) {
                to.write(ints);
            }
            kept.factors[0].write(d);
            kept.factors[1].write(_mm512_mul_ps(d, _mm512_set1_ps(-32.0)));
        }
    }

    #[inline(always)]
    unsafe fn run(kept: &Kept, run: usize) -> Run {
        // SAFETY: the caller's.
        unsafe {
            let ints = kept.ints[run / 4].assume_init();
            let int = and(shift(ints, 8 * (run % 4)), _mm512_set1_epi32(255));
            offset_run(int, kept)
        }
    }

    #[inline(always)]
    unsafe fn codes(blocks: impl Words, part: usize, kept: &mut Kept) -> Codes {
        // SAFETY: the caller's; the first part keeps the bits of all.
        unsafe {
            if part == 0 {
                blocks.keep(offset_of!(Self, hmask), &mut kept.high);
            }
            let codes = bit_pairs(blocks, offset_of!(Self, qs), part, kept);
            // Bit `part` of a byte goes to bit 2.
            each!(|quad| {
                let bits = blocks.kept(offset_of!(Self, hmask), &kept.high, quad);
                let bits = turn(bits, (part + 30) % 32);
                and_or(bits, bytes(4), codes[quad])
            })
        }
    }
}

impl Columns for BlockIq4Xs {
    #[inline(always)]
    unsafe fn start(blocks: impl Words, kept: &mut Kept) {
        const { assert!(offset_of!(BlockIq4Xs, scales_h) == offset_of!(BlockIq4Xs, d) + 2) };
        // SAFETY: the caller's.
        unsafe {
            let first = blocks.word(offset_of!(Self, d));
            let d = widen_low(first);
            kept.ints[0].write(first);
            kept.ints[1].write(blocks.word(offset_of!(Self, scales_l)));
            kept.factors[0].write(d);
            kept.factors[1].write(_mm512_mul_ps(d, _mm512_set1_ps(-32.0)));
        }
    }

    #[inline(always)]
    unsafe fn run(kept: &Kept, run: usize) -> Run {
        // SAFETY: the caller's.
        unsafe {
            let (first, low) = (kept.ints[0].assume_init(), kept.ints[1].assume_init());
            let high = and(shift(first, 16 + 2 * run), _mm512_set1_epi32(3));
            let high = _mm512_slli_epi32::<4>(high);
            let int = and_or(shift(low, 4 * run), _mm512_set1_epi32(15), high);
            offset_run(int, kept)
        }
    }

    #[inline(always)]
    unsafe fn codes(blocks: impl Words, part: usize, _: &mut Kept) -> Codes {
        // SAFETY: the caller's.
        unsafe {
            let indices = nibbles(blocks.columns(offset_of!(Self, qs) + 16 * part));
            each!(|quad| look_up(indices[quad]))
        }
    }
}
