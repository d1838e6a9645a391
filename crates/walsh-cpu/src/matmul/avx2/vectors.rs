//! Vectors of eight words: decoding of packed rows.

use std::arch::x86_64::*;
use std::ops::Range;

use walsh_formats::ggml::IQ4_VALUES;

use super::{Avx2, Codes, MULTIPLY_ADD, add_dot, pairs_in_16_bits, transpose_quads, widen_pairs};
use crate::matmul::contract::Job;
use crate::matmul::layout::{BlockQ8, LANES};

use crate::matmul::blocks::{Decode, IQ4_CODES};
use crate::matmul::columns::{self, Columns, Vectors};
use crate::matmul::stream::{self, Packed};
use crate::matmul::x86;

/// The most dot products that are added one after another.
const CHAIN: usize = 4;

/// # Safety
/// As for [`Kernel`](crate::matmul::contract::Kernel).
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn packed_row<B: Columns, const DOT: u8>(job: &Job, _: &mut [u8]) {
    // SAFETY: the caller's.
    unsafe { stream::packed_row::<Avx2<DOT>, B>(job) }
}

/// # Safety
/// As for [`Kernel`](crate::matmul::contract::Kernel).
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn packed_rows<B: Columns, const DOT: u8>(job: &Job, scratch: &mut [u8]) {
    // SAFETY: the caller's.
    unsafe { stream::product::<Avx2<DOT>, Packed, B>(job, scratch) }
}

/// Writes words of sixteen rows side by side.
///
/// # Safety
/// As for [`Transposition`](crate::matmul::contract::Transposition).
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn transpose(rows: &[*const u8; LANES], words: usize, to: *mut u8) {
    let to = to.cast::<u32>();
    // SAFETY: the caller's.
    unsafe {
        for word in (0..words / 4 * 4).step_by(4) {
            for half in 0..2 {
                let quad = |row: usize| _mm_loadu_si128(rows[8 * half + row].add(4 * word).cast());
                for (i, column) in transpose_quads(quad).into_iter().enumerate() {
                    let to = to.add((word + i) * LANES + 8 * half);
                    _mm256_storeu_si256(to.cast(), column);
                }
            }
        }
        for word in words / 4 * 4..words {
            for (lane, row) in rows.iter().enumerate() {
                let word_of_row = row.cast::<u32>().add(word).read_unaligned();
                to.add(word * LANES + lane).write_unaligned(word_of_row);
            }
        }
    }
}

impl<const DOT: u8> Vectors for Avx2<DOT> {
    type Words = __m256i;
    type Floats = __m256;
    const LANES: usize = 8;
    const SIGNED: bool = DOT == MULTIPLY_ADD;

    #[inline(always)]
    fn fetch_ahead(at: *const u8, bytes: usize) {
        x86::fetch_ahead(at, bytes);
    }

    #[inline(always)]
    unsafe fn load(from: *const u8) -> __m256i {
        // SAFETY: the caller's.
        unsafe { _mm256_loadu_si256(from.cast()) }
    }

    #[inline(always)]
    unsafe fn store(words: __m256i, to: *mut u8) {
        // SAFETY: the caller's.
        unsafe { _mm256_storeu_si256(to.cast(), words) }
    }

    #[inline(always)]
    unsafe fn broadcast(from: *const i32) -> __m256i {
        // SAFETY: the caller's.
        unsafe { broadcast(from) }
    }

    #[inline(always)]
    unsafe fn load_halves(from: *const u8) -> __m256 {
        // SAFETY: the caller's.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.cast())) }
    }

    #[inline(always)]
    unsafe fn load_floats(from: *const f32) -> __m256 {
        // SAFETY: the caller's.
        unsafe { _mm256_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn store_floats(floats: __m256, to: *mut f32) {
        // SAFETY: the caller's.
        unsafe { _mm256_storeu_ps(to, floats) }
    }

    #[inline(always)]
    unsafe fn bytes(value: u8) -> __m256i {
        // SAFETY: the caller's.
        unsafe { _mm256_set1_epi8(value as i8) }
    }

    #[inline(always)]
    unsafe fn ints(value: i32) -> __m256i {
        // SAFETY: the caller's.
        unsafe { _mm256_set1_epi32(value) }
    }

    #[inline(always)]
    unsafe fn floats(value: f32) -> __m256 {
        // SAFETY: the caller's.
        unsafe { _mm256_set1_ps(value) }
    }

    #[inline(always)]
    unsafe fn and(a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: the caller's.
        unsafe { _mm256_and_si256(a, b) }
    }

    #[inline(always)]
    unsafe fn or(a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: the caller's.
        unsafe { _mm256_or_si256(a, b) }
    }

    #[inline(always)]
    unsafe fn xor(a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: the caller's.
        unsafe { _mm256_xor_si256(a, b) }
    }

    #[inline(always)]
    unsafe fn and_or(a: __m256i, b: __m256i, c: __m256i) -> __m256i {
        // SAFETY: the caller's.
        unsafe { _mm256_or_si256(_mm256_and_si256(a, b), c) }
    }

    #[inline(always)]
    unsafe fn shr(words: __m256i, by: usize) -> __m256i {
        // SAFETY: the caller's.
        unsafe { _mm256_srl_epi32(words, _mm_cvtsi32_si128(by as i32)) }
    }

    #[inline(always)]
    unsafe fn shl(words: __m256i, by: usize) -> __m256i {
        // SAFETY: the caller's.
        unsafe { _mm256_sll_epi32(words, _mm_cvtsi32_si128(by as i32)) }
    }

    #[inline(always)]
    unsafe fn moved(words: __m256i, from: usize, to: usize) -> __m256i {
        // SAFETY: the caller's.
        unsafe {
            if from < to {
                Self::shl(words, to - from)
            } else {
                Self::shr(words, from - to)
            }
        }
    }

    #[inline(always)]
    unsafe fn signed_top_byte(words: __m256i) -> __m256i {
        // SAFETY: the caller's.
        unsafe { _mm256_srai_epi32::<24>(words) }
    }

    #[inline(always)]
    unsafe fn look_up(indices: __m256i) -> __m256i {
        // SAFETY: the caller's.
        unsafe {
            let table = if Self::SIGNED {
                IQ4_VALUES.as_ptr().cast::<u8>()
            } else {
                IQ4_CODES.as_ptr()
            };
            let table = _mm256_broadcastsi128_si256(_mm_loadu_si128(table.cast()));
            _mm256_shuffle_epi8(table, indices)
        }
    }

    #[inline(always)]
    unsafe fn fifth_bits(words: __m256i, quad: usize) -> __m256i {
        // SAFETY: the caller's.
        unsafe {
            // The four bits are the upper half of a byte, which goes to all four bytes of the word; each keeps its own
            // bit, and the least of that and 16 is 16 or nothing.
            let upper = if quad.is_multiple_of(2) {
                Self::shl(words, 4)
            } else {
                words
            };
            let byte = _mm256_set1_epi32(0x0101_0101 * (quad as i32 / 2));
            let first = _mm256_setr_epi32(
                0,
                0x0404_0404,
                0x0808_0808,
                0x0c0c_0c0c,
                0,
                0x0404_0404,
                0x0808_0808,
                0x0c0c_0c0c,
            );
            let spread = _mm256_shuffle_epi8(upper, _mm256_or_si256(first, byte));
            let own = _mm256_and_si256(spread, _mm256_set1_epi32(0x8040_2010u32 as i32));
            _mm256_min_epu8(own, Self::bytes(16))
        }
    }

    #[inline(always)]
    unsafe fn widen(words: __m256i) -> [__m256; 2] {
        // SAFETY: the caller's.
        unsafe {
            // Lower halves, then upper ones, in each half of the vector; then in all of it.
            let halves = _mm256_setr_epi8(
                0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15, 0, 1, 4, 5, 8, 9, 12, 13, 2,
                3, 6, 7, 10, 11, 14, 15,
            );
            let halves = _mm256_permute4x64_epi64::<0xd8>(_mm256_shuffle_epi8(words, halves));
            [
                _mm256_cvtph_ps(_mm256_castsi256_si128(halves)),
                _mm256_cvtph_ps(_mm256_extracti128_si256::<1>(halves)),
            ]
        }
    }

    #[inline(always)]
    unsafe fn to_floats(ints: __m256i) -> __m256 {
        // SAFETY: the caller's.
        unsafe { _mm256_cvtepi32_ps(ints) }
    }

    #[inline(always)]
    unsafe fn add(a: __m256, b: __m256) -> __m256 {
        // SAFETY: the caller's.
        unsafe { _mm256_add_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn sub(a: __m256, b: __m256) -> __m256 {
        // SAFETY: the caller's.
        unsafe { _mm256_sub_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn mul(a: __m256, b: __m256) -> __m256 {
        // SAFETY: the caller's.
        unsafe { _mm256_mul_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn mul_add(a: __m256, b: __m256, c: __m256) -> __m256 {
        // SAFETY: the caller's.
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    unsafe fn add_products<B: Decode>(
        mut sums: __m256i,
        codes: &columns::Codes<Self>,
        quads: Range<usize>,
        record: *const BlockQ8,
    ) -> __m256i {
        // SAFETY: the caller's.
        unsafe {
            if DOT == MULTIPLY_ADD {
                let together = const { pairs_in_16_bits(B::TOP) };
                let mut first = quads.start;
                while first < quads.end {
                    let mut pairs = _mm256_setzero_si256();
                    for quad in first..quads.end.min(first + together) {
                        let values = _mm256_set1_epi32((*record).quads[quad]);
                        let products = Codes::of_signed::<B>(codes[quad]).times::<B>(values);
                        pairs = _mm256_add_epi16(pairs, products);
                    }
                    sums = _mm256_add_epi32(sums, widen_pairs(pairs));
                    first += together;
                }
            } else {
                // Two chains where one has eight links: an out-of-order processor does not look far enough ahead to hide the
                // latency of so many.
                let chain = quads.len().min(CHAIN);
                let mut others = _mm256_setzero_si256();
                for quad in quads.start..quads.start + chain {
                    let values = _mm256_set1_epi32((*record).quads[quad]);
                    sums = add_dot::<DOT>(sums, codes[quad], values);
                }
                for quad in quads.start + chain..quads.end {
                    let values = _mm256_set1_epi32((*record).quads[quad]);
                    others = add_dot::<DOT>(others, codes[quad], values);
                }
                sums = _mm256_add_epi32(sums, others);
            }
        }
        sums
    }
}

/// A number in all lanes, from memory. (The compiler would work on the number first and then spread it, on units that
/// the decoder needs.)
///
/// # Safety
/// The number is readable, and the machine has AVX2.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn broadcast(from: *const i32) -> __m256i {
    let vector;
    // SAFETY: the caller's.
    unsafe {
        std::arch::asm!(
            "vpbroadcastd {vector}, dword ptr [{from}]",
            vector = lateout(ymm_reg) vector,
            from = in(reg) from,
            options(pure, readonly, nostack, preserves_flags),
        );
    }
    vector
}
