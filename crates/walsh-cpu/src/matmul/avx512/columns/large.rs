//! The types with blocks of 256 values.

use std::arch::x86_64::*;
use std::mem::{MaybeUninit, offset_of};

use walsh_formats::ggml::{BlockIq4Xs, BlockQ2K, BlockQ3K, BlockQ4K, BlockQ5K, BlockQ6K};

use super::{
    Blocks, Codes, Columns, Packed, Runs, and, and_or, bytes, each, nibbles, scaled_byte, shift,
    turn, widen_high, widen_low,
};
use crate::matmul::avx512::decode::look_up;

/// Transposes `16 · N / 4` bytes from `at` on.
///
/// # Safety
/// As for [`Blocks::columns`].
#[inline(always)]
unsafe fn keep<const N: usize>(blocks: Blocks, at: usize, to: &mut [MaybeUninit<__m512i>; N]) {
    for (chunk, to) in to.chunks_exact_mut(4).enumerate() {
        // SAFETY: the caller's.
        let columns = unsafe { blocks.columns(at + 16 * chunk) };
        for (to, column) in to.iter_mut().zip(columns) {
            to.write(column);
        }
    }
}

/// Transposes 32 bytes from `at` on.
///
/// # Safety
/// As for [`Blocks::columns`].
#[inline(always)]
unsafe fn keep_8(blocks: Blocks, at: usize, to: &mut [MaybeUninit<__m512i>]) {
    if let Some(to) = to.first_chunk_mut::<8>() {
        // SAFETY: the caller's.
        unsafe { keep(blocks, at, to) }
    }
}

/// Eight scales and eight minima of the types `q4_K` and `q5_K`.
///
/// # Safety
/// As for [`Columns::runs`].
#[inline(always)]
unsafe fn asymmetric_runs(blocks: Blocks, at: usize, to: &mut Runs) {
    // SAFETY: the caller's.
    unsafe {
        let [factors, a, b, c] = blocks.columns(at);
        let (d, dmin) = (widen_low(factors), widen_high(factors));
        let high = |words| and(shift(words, 2), bytes(0x30));
        let ints = [
            and(a, bytes(0x3f)),
            and_or(c, bytes(15), high(a)),
            and(b, bytes(0x3f)),
            and_or(shift(c, 4), bytes(15), high(b)),
        ];
        for run in 0..8 {
            to.scales[run].write(scaled_byte(ints[run / 4], run % 4, d));
            to.mins[run].write(scaled_byte(ints[2 + run / 4], run % 4, dmin));
        }
    }
}

/// The nibbles of `q4_K` and `q5_K`: 32 bytes serve two parts.
///
/// # Safety
/// As for [`Columns::codes`].
#[inline(always)]
unsafe fn nibble_parts(blocks: Blocks, at: usize, part: usize, packed: &mut Packed) -> Codes {
    // SAFETY: the caller's; the even part, which comes first, keeps what the odd one reads.
    unsafe {
        if part.is_multiple_of(2) {
            keep_8(blocks, at + 16 * part, &mut packed.low);
        }
        let by = 4 * (part % 2);
        each!(|quad| and(shift(packed.low[quad].assume_init(), by), bytes(15)))
    }
}

impl Columns for BlockQ4K {
    #[inline(always)]
    unsafe fn runs(blocks: Blocks, to: &mut Runs) {
        // SAFETY: the caller's.
        unsafe { asymmetric_runs(blocks, offset_of!(Self, d), to) }
    }

    #[inline(always)]
    unsafe fn codes(blocks: Blocks, part: usize, packed: &mut Packed) -> Codes {
        // SAFETY: the caller's.
        unsafe { nibble_parts(blocks, offset_of!(Self, qs), part, packed) }
    }
}

impl Columns for BlockQ5K {
    #[inline(always)]
    unsafe fn runs(blocks: Blocks, to: &mut Runs) {
        // SAFETY: the caller's.
        unsafe { asymmetric_runs(blocks, offset_of!(Self, d), to) }
    }

    #[inline(always)]
    unsafe fn codes(blocks: Blocks, part: usize, packed: &mut Packed) -> Codes {
        // SAFETY: the caller's; the first part keeps the bits of all.
        unsafe {
            if part == 0 {
                keep(blocks, offset_of!(Self, qh), &mut packed.high);
            }
            let codes = nibble_parts(blocks, offset_of!(Self, qs), part, packed);
            // Bit `part` of a byte goes to bit 4.
            each!(|quad| {
                let bits = turn(packed.high[quad].assume_init(), (part + 28) % 32);
                and_or(bits, bytes(16), codes[quad])
            })
        }
    }
}

impl Columns for BlockQ6K {
    #[inline(always)]
    unsafe fn runs(blocks: Blocks, to: &mut Runs) {
        // SAFETY: the caller's.
        unsafe {
            let ints = blocks.columns(offset_of!(Self, scales));
            let d = blocks.halves(offset_of!(Self, d));
            for run in 0..16 {
                let up = _mm_cvtsi32_si128(24 - 8 * (run as i32 % 4));
                let int = _mm512_srai_epi32::<24>(_mm512_sll_epi32(ints[run / 4], up));
                to.scales[run].write(_mm512_mul_ps(_mm512_cvtepi32_ps(int), d));
            }
        }
    }

    #[inline(always)]
    unsafe fn codes(blocks: Blocks, part: usize, packed: &mut Packed) -> Codes {
        // SAFETY: the caller's; the first part of each half keeps what the next three read.
        unsafe {
            let (half, quarter) = (part / 4, part % 4);
            if quarter == 0 {
                keep(blocks, offset_of!(Self, ql) + 64 * half, &mut packed.low);
                keep(blocks, offset_of!(Self, qh) + 32 * half, &mut packed.high);
            }
            let low = &packed.low[quarter % 2 * 8..][..8];
            // Two bits of a byte go to bits 4 and 5.
            each!(|quad| {
                let low = and(shift(low[quad].assume_init(), quarter / 2 * 4), bytes(15));
                let bits = turn(packed.high[quad].assume_init(), (2 * quarter + 28) % 32);
                and_or(bits, bytes(0x30), low)
            })
        }
    }
}

/// The two-bit codes of `q2_K` and `q3_K`: 32 bytes serve four parts.
///
/// # Safety
/// As for [`Columns::codes`].
#[inline(always)]
unsafe fn bit_pairs(blocks: Blocks, at: usize, part: usize, packed: &mut Packed) -> Codes {
    // SAFETY: the caller's; the first part of each half keeps what the next three read.
    unsafe {
        if part.is_multiple_of(4) {
            keep_8(blocks, at + 8 * part, &mut packed.low);
        }
        let by = part % 4 * 2;
        each!(|quad| and(shift(packed.low[quad].assume_init(), by), bytes(3)))
    }
}

impl Columns for BlockQ2K {
    #[inline(always)]
    unsafe fn runs(blocks: Blocks, to: &mut Runs) {
        const { assert!(offset_of!(BlockQ2K, dmin) == offset_of!(BlockQ2K, d) + 2) };
        // SAFETY: the caller's.
        unsafe {
            let ints = blocks.columns(offset_of!(Self, scales));
            let factors = blocks.words(offset_of!(Self, d));
            let (d, dmin) = (widen_low(factors), widen_high(factors));
            for run in 0..16 {
                let (low, high) = (
                    and(ints[run / 4], bytes(15)),
                    and(shift(ints[run / 4], 4), bytes(15)),
                );
                to.scales[run].write(scaled_byte(low, run % 4, d));
                to.mins[run].write(scaled_byte(high, run % 4, dmin));
            }
        }
    }

    #[inline(always)]
    unsafe fn codes(blocks: Blocks, part: usize, packed: &mut Packed) -> Codes {
        // SAFETY: the caller's.
        unsafe { bit_pairs(blocks, offset_of!(Self, qs), part, packed) }
    }
}

impl Columns for BlockQ3K {
    #[inline(always)]
    unsafe fn runs(blocks: Blocks, to: &mut Runs) {
        const { assert!(offset_of!(BlockQ3K, d) == offset_of!(BlockQ3K, scales) + 12) };
        // SAFETY: the caller's; two bytes of codes come before the scales.
        unsafe {
            let words = blocks.columns(offset_of!(Self, scales) - 2);
            let word = |i: usize| {
                let low = _mm512_srli_epi32::<16>(words[i]);
                _mm512_or_si512(low, _mm512_slli_epi32::<16>(words[i + 1]))
            };
            let (a, b, high) = (word(0), word(1), word(2));
            let d = widen_high(words[3]);
            let ints = [
                and_or(a, bytes(15), and(_mm512_slli_epi32::<4>(high), bytes(0x30))),
                and_or(b, bytes(15), and(_mm512_slli_epi32::<2>(high), bytes(0x30))),
                and_or(shift(a, 4), bytes(15), and(high, bytes(0x30))),
                and_or(shift(b, 4), bytes(15), and(shift(high, 2), bytes(0x30))),
            ];
            let offset = _mm512_mul_ps(d, _mm512_set1_ps(-32.0));
            for run in 0..16 {
                let int = and(shift(ints[run / 4], 8 * (run % 4)), _mm512_set1_epi32(255));
                to.scales[run].write(_mm512_fmadd_ps(_mm512_cvtepi32_ps(int), d, offset));
            }
        }
    }

    #[inline(always)]
    unsafe fn codes(blocks: Blocks, part: usize, packed: &mut Packed) -> Codes {
        // SAFETY: the caller's; the first part keeps the bits of all.
        unsafe {
            if part == 0 {
                keep(blocks, offset_of!(Self, hmask), &mut packed.high);
            }
            let codes = bit_pairs(blocks, offset_of!(Self, qs), part, packed);
            // Bit `part` of a byte goes to bit 2.
            each!(|quad| {
                let bits = turn(packed.high[quad].assume_init(), (part + 30) % 32);
                and_or(bits, bytes(4), codes[quad])
            })
        }
    }
}

impl Columns for BlockIq4Xs {
    #[inline(always)]
    unsafe fn runs(blocks: Blocks, to: &mut Runs) {
        const { assert!(offset_of!(BlockIq4Xs, scales_h) == offset_of!(BlockIq4Xs, d) + 2) };
        const { assert!(offset_of!(BlockIq4Xs, scales_l) == offset_of!(BlockIq4Xs, d) + 4) };
        // SAFETY: the caller's.
        unsafe {
            let [first, low, ..] = blocks.columns(offset_of!(Self, d));
            let d = widen_low(first);
            let offset = _mm512_mul_ps(d, _mm512_set1_ps(-32.0));
            for run in 0..8 {
                let high = and(shift(first, 16 + 2 * run), _mm512_set1_epi32(3));
                let high = _mm512_slli_epi32::<4>(high);
                let int = and_or(shift(low, 4 * run), _mm512_set1_epi32(15), high);
                to.scales[run].write(_mm512_fmadd_ps(_mm512_cvtepi32_ps(int), d, offset));
            }
        }
    }

    #[inline(always)]
    unsafe fn codes(blocks: Blocks, part: usize, _: &mut Packed) -> Codes {
        // SAFETY: the caller's.
        unsafe {
            let indices = nibbles(blocks.columns(offset_of!(Self, qs) + 16 * part));
            each!(|quad| look_up(indices[quad]))
        }
    }
}
