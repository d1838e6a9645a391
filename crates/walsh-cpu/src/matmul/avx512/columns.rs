//! Decoding sixteen weight rows side by side: a row to each 32-bit lane, four consecutive codes to a lane.
//!
//! Codes are transposed as they are stored, packed, and unpacked afterwards, sixteen rows at a time; so are the scales of
//! the types with blocks of 256.

use std::arch::x86_64::*;
use std::mem::{MaybeUninit, offset_of};

use walsh_formats::ggml::{BlockIq4Nl, BlockQ4_0, BlockQ4_1, BlockQ5_0, BlockQ5_1, BlockQ8_0};

use super::decode::look_up;
use crate::matmul::blocks::{Decode, IQ4_OFFSET};

mod large;
mod words;

use words::InRows;
pub(super) use words::{PackedPanel, Panel, Rows, Words};

/// The weight rows that are decoded together.
pub(super) const LANES: usize = 16;

/// The scale and the minimum of a run of each row.
#[derive(Clone, Copy)]
pub(super) struct Run {
    pub(super) scale: __m512,
    /// Zero for types with a zero.
    pub(super) min: __m512,
}

/// What the parts of a block share: words that were transposed, and the scales of the scales.
pub(super) struct Kept {
    low: [MaybeUninit<__m512i>; 16],
    high: [MaybeUninit<__m512i>; 8],
    /// Integer scales, and minima, a byte to a run.
    ints: [MaybeUninit<__m512i>; 4],
    factors: [MaybeUninit<__m512>; 2],
}

impl Kept {
    pub(super) const fn new() -> Kept {
        Kept {
            low: [MaybeUninit::uninit(); 16],
            high: [MaybeUninit::uninit(); 8],
            ints: [MaybeUninit::uninit(); 4],
            factors: [MaybeUninit::uninit(); 2],
        }
    }
}

/// 32 codes of every row, in quads.
pub(super) type Codes = [__m512i; 8];

/// A block type that decodes side by side.
pub(super) trait Columns: Decode {
    /// Decodes what all parts of a block share.
    ///
    /// # Safety
    /// The blocks are readable, and the machine has AVX-512.
    unsafe fn start(blocks: impl Words, kept: &mut Kept);

    /// The scale and the minimum of a run.
    ///
    /// # Safety
    /// The block has been started, and the machine has AVX-512.
    unsafe fn run(kept: &Kept, run: usize) -> Run;

    /// The codes of values `32 · part` to `32 · part + 31` of a block. The parts of a block are asked for in order, with
    /// the same `kept`.
    ///
    /// # Safety
    /// As for [`Columns::start`].
    unsafe fn codes(blocks: impl Words, part: usize, kept: &mut Kept) -> Codes;
}

/// The parts of a block, one after the other, unrolled: what shifts and masks a part needs is known when this is compiled.
macro_rules! for_parts {
    ($block:ident, |$part:ident| $body:expr) => {{
        for_parts!(@ 0, $part, $body);
        if $block::LEN > BLOCK {
            for_parts!(@ 1, $part, $body);
            for_parts!(@ 2, $part, $body);
            for_parts!(@ 3, $part, $body);
            for_parts!(@ 4, $part, $body);
            for_parts!(@ 5, $part, $body);
            for_parts!(@ 6, $part, $body);
            for_parts!(@ 7, $part, $body);
        }
    }};
    (@ $number:literal, $part:ident, $body:expr) => {{
        let $part: usize = $number;
        $body;
    }};
}

pub(super) use for_parts;

/// Writes words of sixteen rows side by side.
///
/// # Safety
/// As for [`Transposition`](crate::matmul::pack::Transposition).
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(super) unsafe fn transpose(rows: &[*const u8; LANES], words: usize, to: *mut u8) {
    let blocks = InRows { rows, offset: 0 };
    let to = to.cast::<__m512i>();
    // SAFETY: the caller's.
    unsafe {
        for word in (0..words / 4 * 4).step_by(4) {
            for (i, column) in blocks.columns(4 * word).into_iter().enumerate() {
                to.add(word + i).write_unaligned(column);
            }
        }
        for word in words / 4 * 4..words {
            to.add(word).write_unaligned(blocks.word(4 * word));
        }
    }
}

#[inline(always)]
fn bytes(value: u8) -> __m512i {
    // SAFETY: callers have AVX-512.
    unsafe { _mm512_set1_epi8(value as i8) }
}

/// The lower half of each word as half-precision numbers.
#[inline(always)]
fn widen_low(words: __m512i) -> __m512 {
    // SAFETY: callers have AVX-512.
    unsafe { _mm512_cvtph_ps(_mm512_cvtepi32_epi16(words)) }
}

/// The upper half of each word as half-precision numbers.
#[inline(always)]
fn widen_high(words: __m512i) -> __m512 {
    // SAFETY: callers have AVX-512.
    unsafe { widen_low(_mm512_srli_epi32::<16>(words)) }
}

/// Shifts each word to the right.
#[inline(always)]
fn shift(words: __m512i, by: usize) -> __m512i {
    // SAFETY: callers have AVX-512.
    unsafe { _mm512_srl_epi32(words, _mm_cvtsi32_si128(by as i32)) }
}

/// Turns each word to the right.
#[inline(always)]
fn turn(words: __m512i, by: usize) -> __m512i {
    // SAFETY: callers have AVX-512.
    unsafe { _mm512_rorv_epi32(words, _mm512_set1_epi32(by as i32)) }
}

#[inline(always)]
fn and(a: __m512i, b: __m512i) -> __m512i {
    // SAFETY: callers have AVX-512.
    unsafe { _mm512_and_si512(a, b) }
}

/// `a & b | c`.
#[inline(always)]
fn and_or(a: __m512i, b: __m512i, c: __m512i) -> __m512i {
    // SAFETY: callers have AVX-512.
    unsafe { _mm512_ternarylogic_epi32::<0xea>(a, b, c) }
}

/// Byte `index` of each word, times a scale.
#[inline(always)]
fn scaled_byte(words: __m512i, index: usize, scale: __m512) -> __m512 {
    // SAFETY: callers have AVX-512.
    unsafe {
        let ints = and(shift(words, 8 * index), _mm512_set1_epi32(255));
        _mm512_mul_ps(_mm512_cvtepi32_ps(ints), scale)
    }
}

/// The codes of nibbles: the low ones of four columns, then the high ones.
#[inline(always)]
fn nibbles(packed: [__m512i; 4]) -> Codes {
    let [a, b, c, d] = packed;
    let (low, mask) = (|x| and(x, bytes(15)), bytes(15));
    let high = |x| and(shift(x, 4), mask);
    [
        low(a),
        low(b),
        low(c),
        low(d),
        high(a),
        high(b),
        high(c),
        high(d),
    ]
}

/// Every vector of codes, changed. (`map` of an array is not always inlined, and is then compiled without the
/// instruction set.)
macro_rules! each {
    (|$index:ident| $codes:expr) => {
        [
            each!(@ $index = 0, $codes),
            each!(@ $index = 1, $codes),
            each!(@ $index = 2, $codes),
            each!(@ $index = 3, $codes),
            each!(@ $index = 4, $codes),
            each!(@ $index = 5, $codes),
            each!(@ $index = 6, $codes),
            each!(@ $index = 7, $codes),
        ]
    };
    (@ $index:ident = $number:literal, $codes:expr) => {{
        let $index: usize = $number;
        $codes
    }};
}

use each;

/// Adds 16 to the codes whose bit is set: bit `i` of a row's word is of value `i`.
#[inline(always)]
fn fifth_bits(codes: Codes, bits: __m512i) -> Codes {
    /// What the four bits of an index add to a quad.
    const QUADS: [u32; 16] = {
        let mut quads = [0; 16];
        let mut index = 0;
        while index < 16 {
            let mut bit = 0;
            while bit < 4 {
                quads[index] |= (index as u32 >> bit & 1) << (8 * bit + 4);
                bit += 1;
            }
            index += 1;
        }
        quads
    };
    // SAFETY: callers have AVX-512. The permutation looks at the low four bits of an index alone.
    unsafe {
        let quads = _mm512_loadu_si512(QUADS.as_ptr().cast());
        each!(|quad| {
            let added = _mm512_permutexvar_epi32(shift(bits, 4 * quad), quads);
            _mm512_or_si512(codes[quad], added)
        })
    }
}

/// Types with blocks of 32 values: their codes, and where their scale and minimum lie.
macro_rules! small_columns {
    ($type:ident, |$blocks:ident| $codes:expr, $min:tt) => {
        impl Columns for $type {
            #[inline(always)]
            unsafe fn start(blocks: impl Words, kept: &mut Kept) {
                // SAFETY: the caller's.
                unsafe { small_columns!(@start $min, blocks, kept, Self) }
            }

            #[inline(always)]
            unsafe fn run(kept: &Kept, _: usize) -> Run {
                // SAFETY: the caller's.
                unsafe {
                    Run {
                        scale: kept.factors[0].assume_init(),
                        min: small_columns!(@min $min, kept),
                    }
                }
            }

            #[inline(always)]
            unsafe fn codes($blocks: impl Words, _: usize, _: &mut Kept) -> Codes {
                // SAFETY: the caller's.
                unsafe { $codes }
            }
        }
    };
    (@start no_min, $blocks:ident, $kept:ident, $type:ty) => {{
        $kept.factors[0].write($blocks.halves(offset_of!($type, d)));
    }};
    (@start min, $blocks:ident, $kept:ident, $type:ty) => {{
        const { assert!(offset_of!($type, m) == offset_of!($type, d) + 2) };
        let words = $blocks.word(offset_of!($type, d));
        $kept.factors[0].write(widen_low(words));
        $kept.factors[1].write(_mm512_sub_ps(_mm512_setzero_ps(), widen_high(words)));
    }};
    (@min no_min, $kept:ident) => {
        _mm512_setzero_ps()
    };
    (@min min, $kept:ident) => {
        $kept.factors[1].assume_init()
    };
}

small_columns!(
    BlockQ4_0,
    |blocks| nibbles(blocks.columns(offset_of!(Self, qs))),
    no_min
);
small_columns!(
    BlockQ4_1,
    |blocks| nibbles(blocks.columns(offset_of!(Self, qs))),
    min
);
small_columns!(
    BlockQ5_0,
    |blocks| fifth_bits(
        nibbles(blocks.columns(offset_of!(Self, qs))),
        blocks.word(offset_of!(Self, qh))
    ),
    no_min
);
small_columns!(
    BlockQ5_1,
    |blocks| fifth_bits(
        nibbles(blocks.columns(offset_of!(Self, qs))),
        blocks.word(offset_of!(Self, qh))
    ),
    min
);
small_columns!(
    BlockQ8_0,
    |blocks| {
        let at = offset_of!(Self, qs);
        let halves = [blocks.columns(at), blocks.columns(at + 16)];
        each!(|quad| _mm512_xor_si512(halves[quad / 4][quad % 4], bytes(0x80)))
    },
    no_min
);
small_columns!(
    BlockIq4Nl,
    |blocks| {
        let indices = nibbles(blocks.columns(offset_of!(Self, qs)));
        each!(|quad| look_up(indices[quad]))
    },
    no_min
);

const _: () = assert!(IQ4_OFFSET == 128);
