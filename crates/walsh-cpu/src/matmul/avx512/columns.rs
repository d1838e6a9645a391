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

/// The weight rows that are decoded together.
pub(super) const LANES: usize = 16;

/// A block of each of the rows.
#[derive(Clone, Copy)]
pub(super) struct Blocks<'a> {
    /// Where the rows start. Rows may repeat.
    pub(super) rows: &'a [*const u8; LANES],
    /// The bytes between a row's start and the block.
    pub(super) offset: usize,
}

/// The scales of a block's runs, and their minima where the type has them.
pub(super) struct Runs {
    pub(super) scales: [MaybeUninit<__m512>; 16],
    pub(super) mins: [MaybeUninit<__m512>; 16],
}

impl Runs {
    pub(super) const fn new() -> Runs {
        Runs {
            scales: [MaybeUninit::uninit(); 16],
            mins: [MaybeUninit::uninit(); 16],
        }
    }
}

/// Transposed bytes of a block that serve several runs.
pub(super) struct Packed {
    low: [MaybeUninit<__m512i>; 16],
    high: [MaybeUninit<__m512i>; 8],
}

impl Packed {
    pub(super) const fn new() -> Packed {
        Packed {
            low: [MaybeUninit::uninit(); 16],
            high: [MaybeUninit::uninit(); 8],
        }
    }
}

/// 32 codes of every row, in quads.
pub(super) type Codes = [__m512i; 8];

/// A block type that decodes side by side.
pub(super) trait Columns: Decode {
    /// Decodes the scales of all runs of a block, and the minima of types without a zero.
    ///
    /// # Safety
    /// The blocks are readable, and the machine has AVX-512.
    unsafe fn runs(blocks: Blocks, to: &mut Runs);

    /// The codes of values `32 · part` to `32 · part + 31` of a block. The parts of a block are asked for in order, with
    /// the same `packed`.
    ///
    /// # Safety
    /// As for [`Columns::runs`].
    unsafe fn codes(blocks: Blocks, part: usize, packed: &mut Packed) -> Codes;
}

impl Blocks<'_> {
    /// A number `at` bytes into a lane's block.
    ///
    /// # Safety
    /// It is readable.
    #[inline(always)]
    unsafe fn read<T>(self, lane: usize, at: usize) -> T {
        // SAFETY: the caller's.
        unsafe {
            self.rows[lane]
                .add(self.offset + at)
                .cast::<T>()
                .read_unaligned()
        }
    }

    /// The 16 bytes from `at` on of every row's block, as four columns of 32-bit words.
    ///
    /// # Safety
    /// They are readable, and the machine has AVX-512.
    #[inline(always)]
    unsafe fn columns(self, at: usize) -> [__m512i; 4] {
        // SAFETY: the caller's.
        unsafe {
            // Each 128-bit lane of `row(i)` is of one of the rows i, i + 4, i + 8 and i + 12.
            let row = |i: usize| {
                let quarter = |quarter: usize| self.read::<__m128i>(i + 4 * quarter, at);
                let rows = _mm512_castsi128_si512(quarter(0));
                let rows = _mm512_mask_broadcast_i32x4(rows, 0x00f0, quarter(1));
                let rows = _mm512_mask_broadcast_i32x4(rows, 0x0f00, quarter(2));
                _mm512_mask_broadcast_i32x4(rows, 0xf000, quarter(3))
            };
            let (a, b, c, d) = (row(0), row(1), row(2), row(3));
            let (ab_low, ab_high) = (_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
            let (cd_low, cd_high) = (_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
            [
                _mm512_unpacklo_epi64(ab_low, cd_low),
                _mm512_unpackhi_epi64(ab_low, cd_low),
                _mm512_unpacklo_epi64(ab_high, cd_high),
                _mm512_unpackhi_epi64(ab_high, cd_high),
            ]
        }
    }

    /// The word at `at` of every row's block.
    ///
    /// # Safety
    /// As for [`Blocks::columns`].
    #[inline(always)]
    unsafe fn words(self, at: usize) -> __m512i {
        // SAFETY: the caller's.
        unsafe {
            let word = |lane: usize| self.read::<i32>(lane, at);
            let four = |i: usize| _mm_set_epi32(word(i + 3), word(i + 2), word(i + 1), word(i));
            let low = _mm256_set_m128i(four(4), four(0));
            _mm512_inserti64x4::<1>(
                _mm512_castsi256_si512(low),
                _mm256_set_m128i(four(12), four(8)),
            )
        }
    }

    /// The half-precision number at `at` of every row's block.
    ///
    /// # Safety
    /// As for [`Blocks::columns`].
    #[inline(always)]
    unsafe fn halves(self, at: usize) -> __m512 {
        // SAFETY: the caller's.
        unsafe {
            let half = |lane: usize| self.read::<i16>(lane, at);
            let eight = |i: usize| {
                _mm_set_epi16(
                    half(i + 7),
                    half(i + 6),
                    half(i + 5),
                    half(i + 4),
                    half(i + 3),
                    half(i + 2),
                    half(i + 1),
                    half(i),
                )
            };
            _mm512_cvtph_ps(_mm256_set_m128i(eight(8), eight(0)))
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
            unsafe fn runs(blocks: Blocks, to: &mut Runs) {
                // SAFETY: the caller's.
                unsafe { small_columns!(@runs $min, blocks, to, Self) }
            }

            #[inline(always)]
            unsafe fn codes($blocks: Blocks, _: usize, _: &mut Packed) -> Codes {
                // SAFETY: the caller's.
                unsafe { $codes }
            }
        }
    };
    (@runs no_min, $blocks:ident, $to:ident, $type:ty) => {{
        $to.scales[0].write($blocks.halves(offset_of!($type, d)));
    }};
    (@runs min, $blocks:ident, $to:ident, $type:ty) => {{
        const { assert!(offset_of!($type, m) == offset_of!($type, d) + 2) };
        let words = $blocks.words(offset_of!($type, d));
        $to.scales[0].write(widen_low(words));
        $to.mins[0].write(_mm512_sub_ps(_mm512_setzero_ps(), widen_high(words)));
    }};
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
        blocks.words(offset_of!(Self, qh))
    ),
    no_min
);
small_columns!(
    BlockQ5_1,
    |blocks| fifth_bits(
        nibbles(blocks.columns(offset_of!(Self, qs))),
        blocks.words(offset_of!(Self, qh))
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
