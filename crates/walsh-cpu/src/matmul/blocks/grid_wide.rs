//! The types whose codes are points of grids, in registers of 64 bytes.
//!
//! A point takes 16 bits, so that two registers hold 64 of them, which one permutation looks 32 indices up in. Signs are
//! masks, and a last look-up in sixteen bytes makes codes of digits and signs. The grid of `iq1_m` and `iq1_s`, of 2048
//! points, is read from memory.

use std::arch::x86_64::*;

use walsh_formats::ggml::{
    BlockIq1M, BlockIq1S, BlockIq2S, BlockIq2Xs, BlockIq2Xxs, BlockIq3S, BlockIq3Xxs, Grid,
    IQ2_S_GRID, IQ2_XS_GRID, IQ2_XXS_GRID, IQ3_S_GRID, IQ3_XXS_GRID,
};

use super::grid::{IQ1, LARGE, SMALL};
use super::wide::four;
use super::{Group, Wide};
use crate::simd::{Avx512, Primitives, Register, Unpack, operations};

/// The codes of digits, of the half of sixteen; then those of the same digits where the value is negative.
const fn signed_codes(grid: Grid, zero: u8) -> [u8; 16] {
    let (mut codes, mut digit) = ([0; 16], 0);
    let half = NEGATIVE[(grid.values == 4) as usize] as usize;
    while digit < grid.digits.len() {
        codes[digit] = zero.wrapping_add_signed(grid.digits[digit]);
        codes[digit + half] = zero.wrapping_sub(grid.digits[digit] as u8);
        digit += 1;
    }
    codes
}

/// What is added to the digits of negative values: of points of eight values, and of four.
const NEGATIVE: [u8; 2] = [4, 8];

const IQ3_S: [u8; 16] = signed_codes(IQ3_S_GRID, SMALL);
const IQ3_XXS: [u8; 16] = signed_codes(IQ3_XXS_GRID, LARGE);
const IQ2: [u8; 16] = signed_codes(IQ2_XXS_GRID, LARGE);

impl Avx512 {
    /// The points at 32 indices of 16 bits.
    ///
    /// Bits above those of the grid's size say nothing.
    #[inline(always)]
    fn points(self, grid: Grid, indices: __m512i) -> __m512i {
        let pairs = grid.points.as_chunks::<64>().0;
        let mut found = [self.no_codes(); 16];
        assert!(pairs.len() <= found.len() && pairs.len().is_power_of_two());
        // SAFETY: the token exists only where the set does, and a pair of registers is of 64 points.
        unsafe {
            for (found, pair) in found.iter_mut().zip(pairs) {
                let first = _mm512_loadu_si512(pair.as_ptr().cast());
                let second = _mm512_loadu_si512(pair.as_ptr().add(32).cast());
                *found = _mm512_permutex2var_epi16(first, indices, second);
            }
            let (mut count, mut bit) = (pairs.len(), 64);
            while count > 1 {
                let upper = _mm512_test_epi16_mask(indices, _mm512_set1_epi16(bit));
                for i in 0..count / 2 {
                    found[i] = _mm512_mask_mov_epi16(found[2 * i], upper, found[2 * i + 1]);
                }
                count /= 2;
                bit *= 2;
            }
        }
        found[0]
    }

    operations! {
        /// 32 bytes as numbers of 16 bits.
        fn shorts(self, bytes: &[u8; 32]) -> __m512i {
            _mm512_cvtepu8_epi16(_mm256_loadu_si256(bytes.as_ptr().cast()))
        }

        /// Eight of the points, of eight digits of two bits each, as digits.
        fn pairs_of_points(self, points: __m512i, vector: usize) -> __m512i {
            let first = _mm512_set1_epi16(8 * vector as i16);
            let words = _mm512_set_epi64(
                0x0007_0007_0007_0007, 0x0006_0006_0006_0006, 0x0005_0005_0005_0005, 0x0004_0004_0004_0004,
                0x0003_0003_0003_0003, 0x0002_0002_0002_0002, 0x0001_0001_0001_0001, 0,
            );
            // Each word of a point's four brings two digits down, of which the second goes to its own byte.
            let words = _mm512_permutexvar_epi16(_mm512_or_si512(words, first), points);
            let digits = _mm512_srlv_epi16(words, _mm512_set1_epi64(0x000c_0008_0004_0000));
            // The third operand selects: its bits take those of the second.
            let lower = _mm512_set1_epi16(0x00ff);
            let digits = _mm512_ternarylogic_epi32::<0xd8>(_mm512_slli_epi16::<6>(digits), digits, lower);
            _mm512_and_si512(digits, self.bytes(3))
        }

        /// Sixteen of the points, of four digits of four bits each, as digits.
        fn nibbles_of_points(self, points: __m512i, upper: bool) -> __m512i {
            let half = if upper {
                _mm512_extracti64x4_epi64::<1>(points)
            } else {
                _mm512_castsi512_si256(points)
            };
            let words = _mm512_cvtepu16_epi32(half);
            let halves = _mm512_or_si512(words, _mm512_slli_epi32::<8>(words));
            let halves = _mm512_and_si512(halves, _mm512_set1_epi32(0x00ff_00ff));
            let digits = _mm512_or_si512(halves, _mm512_slli_epi32::<4>(halves));
            _mm512_and_si512(digits, self.bytes(15))
        }

        /// The codes of digits, of which some are of negative values.
        fn signed(self, digits: __m512i, signs: u64, codes: &[u8; 16], negative: u8) -> __m512i {
            let digits = _mm512_mask_add_epi8(digits, signs, digits, self.bytes(negative));
            self.look_up(codes, digits)
        }

        /// Signs of which an even number of each eight is set: the eighth bit of each byte from the other seven.
        fn even_signs(self, sevens: __m256i) -> [u64; 4] {
            // The parity of four bits, as a topmost bit.
            let odd = _mm256_broadcastsi128_si256(_mm_set_epi64x(0x0080_8000_8000_0080, 0x8000_0080_0080_8000_u64 as i64));
            let nibbles = _mm256_set1_epi8(15);
            let low = _mm256_shuffle_epi8(odd, _mm256_and_si256(sevens, nibbles));
            let high = _mm256_and_si256(_mm256_srli_epi16::<4>(sevens), nibbles);
            let high = _mm256_shuffle_epi8(odd, high);
            let signs = _mm256_ternarylogic_epi32::<0x96>(sevens, low, high);
            let mut words = [0; 4];
            _mm256_storeu_si256(words.as_mut_ptr().cast(), signs);
            words
        }

        /// Four times seven bits of each word as bytes.
        fn sevens(self, words: __m256i) -> __m256i {
            let mask = |bits: u32| _mm256_set1_epi32(bits as i32);
            let (low, high) = (_mm256_and_si256(words, mask(0x3fff)), _mm256_slli_epi32::<2>(words));
            let pairs = _mm256_ternarylogic_epi32::<0xea>(high, mask(0x3fff_0000), low);
            let (low, high) = (_mm256_and_si256(pairs, mask(0x007f_007f)), _mm256_slli_epi32::<1>(pairs));
            _mm256_ternarylogic_epi32::<0xea>(high, mask(0x7f00_7f00), low)
        }

        /// Eight scales `unit · (number + ½)`, then `zero` times them.
        fn half_steps_of_8(self, numbers: __m256i, unit: f32, zero: u8) -> __m512 {
            let numbers = _mm512_cvtepi32_ps(_mm512_broadcast_i64x4(numbers));
            let numbers = _mm512_add_ps(numbers, self.numbers(0.5));
            _mm512_mul_ps(numbers, self.number_halves(unit, f32::from(zero) * unit))
        }

        /// Sixteen scales `unit · (nibble + ½)`.
        fn half_steps_of_16(self, packed: &[u8; 8], unit: f32) -> __m512 {
            let bytes = _mm512_cvtepu8_epi64(_mm_loadl_epi64(packed.as_ptr().cast()));
            let nibbles = _mm512_or_si512(bytes, _mm512_slli_epi64::<28>(bytes));
            let nibbles = _mm512_and_si512(nibbles, _mm512_set1_epi32(15));
            _mm512_mul_ps(_mm512_add_ps(_mm512_cvtepi32_ps(nibbles), self.numbers(0.5)), self.numbers(unit))
        }

        /// Eight words of four bytes.
        fn words_of(self, words: &[[u8; 4]; 8]) -> __m256i { _mm256_loadu_si256(words.as_ptr().cast()) }

        /// The lower and the upper four bytes of eight times eight.
        fn word_pairs(self, pairs: &[[u8; 8]; 8]) -> [__m256i; 2] {
            let both = _mm512_loadu_si512(pairs.as_ptr().cast());
            [_mm512_cvtepi64_epi32(both), _mm512_cvtepi64_epi32(_mm512_srli_epi64::<32>(both))]
        }

        /// The topmost four bits of words.
        fn top_nibbles(self, words: __m256i) -> __m256i { _mm256_srli_epi32::<28>(words) }

        /// Eight scales `d · (1 + 2 · nibble)`, then `zero` times them.
        fn scales_of_iq3_s(self, block: &BlockIq3S, zero: u8) -> __m512 {
            let bytes = _mm_cvtsi32_si128(i32::from_le_bytes(block.scales));
            let bytes = _mm256_cvtepu8_epi64(bytes);
            let nibbles = _mm256_or_si256(bytes, _mm256_slli_epi64::<28>(bytes));
            let nibbles = _mm256_and_si256(nibbles, _mm256_set1_epi32(15));
            self.half_steps_of_8(nibbles, 2.0 * self.widen(block.d), zero)
        }

        /// The indices of `iq3_s`: of the values up to 127, or of those from 128 on.
        fn indices_of_iq3_s(self, block: &BlockIq3S, upper: bool) -> __m512i {
            let high = (u64::from_le_bytes(block.qh) >> (32 * u32::from(upper))) as u32;
            let low = self.shorts(&block.qs.as_chunks().0[usize::from(upper)]);
            _mm512_mask_add_epi16(low, high, low, _mm512_set1_epi16(256))
        }

        /// The indices of `iq2_s`.
        fn indices_of_iq2_s(self, block: &BlockIq2S) -> __m512i {
            // Each byte in all words of its four, which take their two bits of it to bits 8 and 9.
            let bytes = _mm512_cvtepu8_epi64(_mm_loadl_epi64(block.qh.as_ptr().cast()));
            let words = _mm512_set1_epi64(0x8000_8000_8000_8000_u64 as i64);
            let lanes = _mm512_set_epi64(0x0808_0808_0808_0808, 0, 0x0808_0808_0808_0808, 0, 0x0808_0808_0808_0808, 0, 0x0808_0808_0808_0808, 0);
            let spread = _mm512_shuffle_epi8(bytes, _mm512_or_si512(words, lanes));
            let high = _mm512_sllv_epi16(spread, _mm512_set1_epi64(0x0002_0004_0006_0008));
            let high = _mm512_and_si512(high, _mm512_set1_epi16(0x300));
            _mm512_or_si512(self.shorts(&block.qs), high)
        }

        /// The indices of `iq2_xs`, with their signs above them, and the signs alone.
        fn indices_of_iq2_xs(self, block: &BlockIq2Xs) -> (__m512i, [u64; 4]) {
            let words = _mm512_loadu_si512(block.qs.as_ptr().cast());
            (words, self.even_signs(_mm512_cvtepi16_epi8(_mm512_srli_epi16::<9>(words))))
        }

        /// 32 numbers below 256 of as many bytes.
        fn widened(self, bytes: __m256i) -> __m512i { _mm512_cvtepu8_epi16(bytes) }

        /// The indices of `iq1_s`, and which of their points are shifted down.
        fn indices_of_iq1_s(self, block: &BlockIq1S) -> ([u16; 32], u32) {
            // Each word in all words of its four, which take their three bits of it.
            let words = _mm512_cvtepu16_epi64(_mm_loadu_si128(block.qh.as_ptr().cast()));
            let first = _mm512_set1_epi64(0x0100_0100_0100_0100);
            let second = _mm512_set_epi64(0x0808_0808_0808_0808, 0, 0x0808_0808_0808_0808, 0, 0x0808_0808_0808_0808, 0, 0x0808_0808_0808_0808, 0);
            let spread = _mm512_shuffle_epi8(words, _mm512_or_si512(first, second));
            let high = _mm512_srlv_epi16(spread, _mm512_set1_epi64(0x0009_0006_0003_0000));
            let high = _mm512_slli_epi16::<8>(_mm512_and_si512(high, _mm512_set1_epi16(7)));
            (self.stored(_mm512_or_si512(self.shorts(&block.qs), high)), _mm512_movepi16_mask(spread))
        }

        /// The same of `iq1_m`.
        fn indices_of_iq1_m(self, block: &BlockIq1M) -> ([u16; 32], u32) {
            let bytes = _mm512_cvtepu8_epi32(_mm_loadu_si128(block.qh.as_ptr().cast()));
            let nibbles = _mm512_or_si512(bytes, _mm512_slli_epi32::<12>(bytes));
            let high = _mm512_and_si512(nibbles, _mm512_set1_epi32(0x0007_0007));
            let down = _mm512_test_epi16_mask(nibbles, _mm512_set1_epi16(8));
            (self.stored(_mm512_or_si512(self.shorts(&block.qs), _mm512_slli_epi16::<8>(high))), down)
        }

        /// Numbers of 16 bits, in memory.
        fn stored(self, numbers: __m512i) -> [u16; 32] {
            let mut to = [0; 32];
            _mm512_storeu_si512(to.as_mut_ptr().cast(), numbers);
            to
        }

        /// Eight points of `iq1_m` and `iq1_s`, of which some are shifted down.
        fn shifted_points(self, indices: &[u16; 8], down: u8) -> __m512i {
            let [a, b, c, d, e, f, g, h] = *indices;
            let points = _mm512_set_epi64(point(h), point(g), point(f), point(e), point(d), point(c), point(b), point(a));
            let ones = self.bytes(1);
            _mm512_mask_sub_epi8(_mm512_add_epi8(points, ones), _mm512_movepi8_mask(_mm512_movm_epi64(down)), points, ones)
        }

        /// The scales of `iq1_s`, in eighths, and `SMALL` times them.
        fn scales_of_iq1_s(self, block: &BlockIq1S) -> __m512 {
            let words = _mm256_cvtepu16_epi32(_mm_loadu_si128(block.qh.as_ptr().cast()));
            let ints = _mm256_and_si256(_mm256_srli_epi32::<12>(words), _mm256_set1_epi32(7));
            self.half_steps_of_8(ints, 0.25 * self.widen(block.d), SMALL)
        }

        /// The scales of `iq1_m`, in eighths.
        fn scales_of_iq1_m(self, block: &BlockIq1M) -> __m512 {
            let words = _mm_loadl_epi64(block.scales.as_ptr().cast());
            let four = _mm512_permutexvar_epi32(
                _mm512_set_epi32(3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0),
                _mm512_castsi128_si512(_mm_cvtepu16_epi32(words)),
            );
            let by = _mm512_set_epi32(9, 6, 3, 0, 9, 6, 3, 0, 9, 6, 3, 0, 9, 6, 3, 0);
            let ints = _mm512_and_si512(_mm512_srlv_epi32(four, by), _mm512_set1_epi32(7));
            let steps = _mm512_add_ps(_mm512_cvtepi32_ps(ints), self.numbers(0.5));
            _mm512_mul_ps(steps, self.numbers(0.25 * self.widen(block.d())))
        }
    }

    /// A group of points of `iq1_m` and `iq1_s`.
    #[inline(always)]
    fn codes_of_shifted(self, (indices, down): ([u16; 32], u32)) -> [__m512i; 4] {
        let eights = indices.as_chunks::<8>().0;
        four!(|vector| self.shifted_points(&eights[vector], (down >> (8 * vector)) as u8))
    }

    /// A group of a type of points of eight values.
    #[inline(always)]
    fn codes_of_eights(self, points: __m512i, signs: [u64; 4]) -> [__m512i; 4] {
        four!(|vector| {
            let digits = self.pairs_of_points(points, vector);
            self.signed(digits, signs[vector], &IQ2, NEGATIVE[0])
        })
    }

    /// A group of a type of points of four values.
    #[inline(always)]
    fn codes_of_fours(
        self,
        points: [__m512i; 2],
        signs: [u64; 4],
        codes: &[u8; 16],
    ) -> [__m512i; 4] {
        four!(|vector| {
            let digits = self.nibbles_of_points(points[vector / 2], vector % 2 == 1);
            self.signed(digits, signs[vector], codes, NEGATIVE[1])
        })
    }
}

/// A point of `iq1_m` and `iq1_s`, without its shift.
#[inline(always)]
fn point(index: u16) -> i64 {
    IQ1.0[usize::from(index) % IQ1.0.len()].cast_signed()
}

/// Signs, a bit each.
#[inline(always)]
fn bits(signs: &[u8; 32]) -> [u64; 4] {
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(signs.as_chunks::<8>().0) {
        *word = u64::from_le_bytes(*bytes);
    }
    words
}

impl Wide for BlockIq3S {
    #[inline(always)]
    fn wide(s: Avx512, blocks: &[Self]) -> Group {
        let block = &blocks[0];
        let points = [
            s.points(IQ3_S_GRID, s.indices_of_iq3_s(block, false)),
            s.points(IQ3_S_GRID, s.indices_of_iq3_s(block, true)),
        ];
        Group {
            codes: s.codes_of_fours(points, bits(&block.signs), &IQ3_S),
            scales: s.scales_of_iq3_s(block, SMALL),
            mins: s.numbers(0.0),
        }
    }
}

impl Wide for BlockIq3Xxs {
    #[inline(always)]
    fn wide(s: Avx512, blocks: &[Self]) -> Group {
        let block = &blocks[0];
        let words = s.words_of(&block.signs);
        let halves = block.qs.as_chunks::<32>().0;
        let points = [
            s.points(IQ3_XXS_GRID, s.shorts(&halves[0])),
            s.points(IQ3_XXS_GRID, s.shorts(&halves[1])),
        ];
        let signs = s.even_signs(s.sevens(words));
        Group {
            codes: s.codes_of_fours(points, signs, &IQ3_XXS),
            scales: s.half_steps_of_8(s.top_nibbles(words), 0.5 * s.widen(block.d), LARGE),
            mins: s.numbers(0.0),
        }
    }
}

impl Wide for BlockIq2S {
    #[inline(always)]
    fn wide(s: Avx512, blocks: &[Self]) -> Group {
        let block = &blocks[0];
        let scales = s.half_steps_of_16(&block.scales, 0.25 * s.widen(block.d));
        Group {
            codes: s.codes_of_eights(
                s.points(IQ2_S_GRID, s.indices_of_iq2_s(block)),
                bits(&block.signs),
            ),
            scales,
            mins: s.mul(scales, s.numbers(f32::from(LARGE))),
        }
    }
}

impl Wide for BlockIq2Xs {
    #[inline(always)]
    fn wide(s: Avx512, blocks: &[Self]) -> Group {
        let block = &blocks[0];
        let (indices, signs) = s.indices_of_iq2_xs(block);
        let scales = s.half_steps_of_16(&block.scales, 0.25 * s.widen(block.d));
        Group {
            codes: s.codes_of_eights(s.points(IQ2_XS_GRID, indices), signs),
            scales,
            mins: s.mul(scales, s.numbers(f32::from(LARGE))),
        }
    }
}

impl Wide for BlockIq2Xxs {
    #[inline(always)]
    fn wide(s: Avx512, blocks: &[Self]) -> Group {
        let block = &blocks[0];
        let [indices, words] = s.word_pairs(&block.qs);
        let points = s.points(IQ2_XXS_GRID, s.widened(indices));
        Group {
            codes: s.codes_of_eights(points, s.even_signs(s.sevens(words))),
            scales: s.half_steps_of_8(s.top_nibbles(words), 0.25 * s.widen(block.d), LARGE),
            mins: s.numbers(0.0),
        }
    }
}

impl Wide for BlockIq1M {
    #[inline(always)]
    fn wide(s: Avx512, blocks: &[Self]) -> Group {
        let block = &blocks[0];
        let scales = s.scales_of_iq1_m(block);
        Group {
            codes: s.codes_of_shifted(s.indices_of_iq1_m(block)),
            scales,
            mins: s.mul(scales, s.numbers(f32::from(SMALL))),
        }
    }
}

impl Wide for BlockIq1S {
    #[inline(always)]
    fn wide(s: Avx512, blocks: &[Self]) -> Group {
        let block = &blocks[0];
        Group {
            codes: s.codes_of_shifted(s.indices_of_iq1_s(block)),
            scales: s.scales_of_iq1_s(block),
            mins: s.numbers(0.0),
        }
    }
}
