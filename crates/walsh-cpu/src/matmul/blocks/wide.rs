//! What families share to decode into registers of 64 bytes, in the order of the values.

use std::arch::x86_64::*;

use half::f16;
use walsh_formats::ggml::{Block, BlockIq4Xs, BlockQ3K, BlockQ6K};

use super::{Decode, Decoded};
use crate::matmul::layout::GROUP;
use crate::simd::{Avx512, Primitives, Register, Unpack, operations};

/// Up to 256 decoded values.
pub(in crate::matmul) struct Group {
    /// Codes, 64 to a vector.
    pub(in crate::matmul) codes: [__m512i; 4],
    /// For runs of 16: the scales of sixteen runs. For runs of 32: the scales of eight, then their minima.
    pub(in crate::matmul) scales: __m512,
    /// For runs of 16: the minima.
    pub(in crate::matmul) mins: __m512,
}

/// The expression for each of four vectors. (`from_fn` of an array is not always inlined, and is then compiled without
/// the instruction set.)
macro_rules! four {
    (|$vector:ident| $codes:expr) => {
        [
            four!(@ $vector = 0, $codes),
            four!(@ $vector = 1, $codes),
            four!(@ $vector = 2, $codes),
            four!(@ $vector = 3, $codes),
        ]
    };
    (@ $vector:ident = $number:literal, $codes:expr) => {{
        let $vector: usize = $number;
        $codes
    }};
}
pub(super) use four;

/// Where the permutation finds the halves `d` and `m` bytes into each of eight blocks of `size` bytes: in two vectors,
/// the second of which starts with block `second`; what lies further on is counted from the last 64 bytes.
const fn places(size: usize, second: usize, [d, m]: [usize; 2]) -> [u16; 32] {
    assert!(
        d <= 2 && m <= 2,
        "the vectors are cut for halves in a block's first four bytes"
    );
    let mut places = [0; 32];
    let mut lane = 0;
    while lane < 16 {
        let (block, at) = (lane % 8, if lane < 8 { d } else { m });
        places[lane] = if block < second {
            (block * size + at) / 2
        } else if block < 2 * second {
            32 + ((block - second) * size + at) / 2
        } else {
            // Of larger blocks than are gathered so, whose places are computed all the same, nothing comes of it.
            (64 + at).saturating_sub((8 - block) * size) / 2
        } as u16;
        lane += 1;
    }
    places
}

/// The block of eight that the second vector starts with: each vector holds the halves of four, or of three.
const fn second_vector(size: usize) -> usize {
    if 3 * size + 4 <= 64 { 4 } else { 3 }
}

/// A type with blocks of 32 values.
pub(super) trait Small: Block {
    /// The offsets of its scale and of its minimum, or twice that of its scale.
    const FIELDS: [usize; 2];
}

impl Avx512 {
    operations! {
        /// No codes.
        pub(super) fn no_codes(self) -> __m512i { _mm512_setzero_si512() }

        /// `low` in the lower half of the 64-bit lanes, `high` in the upper.
        fn halves_of(self, low: i64, high: i64) -> __m512i {
            _mm512_set_epi64(high, high, high, high, low, low, low, low)
        }

        /// `low` in the lower eight float lanes, `high` in the upper.
        pub(super) fn number_halves(self, low: f32, high: f32) -> __m512 {
            _mm512_mask_blend_ps(0xff00, _mm512_set1_ps(low), _mm512_set1_ps(high))
        }

        /// The nibbles of 16 bytes each: 32 codes each.
        pub(super) fn nibbles(self, first: &[u8; 16], second: &[u8; 16]) -> __m512i {
            let both = _mm512_broadcast_i32x4(_mm_loadu_si128(first.as_ptr().cast()));
            let second = _mm_loadu_si128(second.as_ptr().cast());
            let both = _mm512_mask_broadcast_i32x4(both, 0xff00, second);
            let shifted = _mm512_srlv_epi64(both, _mm512_set_epi64(4, 4, 0, 0, 4, 4, 0, 0));
            _mm512_and_si512(shifted, self.bytes(15))
        }

        /// The nibbles of two times 16 bytes.
        pub(super) fn nibbles_of_halves(self, packed: &[u8; 32]) -> __m512i {
            let (halves, _) = packed.as_chunks::<16>();
            self.nibbles(&halves[0], &halves[1])
        }

        /// Adds 16 to the codes whose bit is set.
        pub(super) fn with_fifth_bits(self, codes: __m512i, first: [u8; 4], second: [u8; 4]) -> __m512i {
            let (first, second) = (u32::from_le_bytes(first), u32::from_le_bytes(second));
            self.with_bits(codes, u64::from(first) | u64::from(second) << 32, 16)
        }

        /// Adds a value to the codes whose bit is set.
        pub(super) fn with_bits(self, codes: __m512i, bits: u64, value: u8) -> __m512i {
            _mm512_mask_add_epi8(codes, bits, codes, self.bytes(value))
        }

        /// Ors two bits of each code, four to a byte and in order, above the low four.
        pub(super) fn with_pairs(self, codes: __m512i, pairs: &[u8; 16]) -> __m512i {
            _mm512_or_si512(codes, _mm512_slli_epi16::<4>(self.bit_pairs_in_order(pairs)))
        }

        /// 64 bytes.
        pub(super) fn all_bytes(self, bytes: &[u8; 64]) -> __m512i { _mm512_loadu_si512(bytes.as_ptr().cast()) }

        /// Signed codes, raised by 128.
        pub(super) fn raised(self, first: &[i8; 32], second: &[i8; 32]) -> __m512i {
            let first = _mm512_castsi256_si512(_mm256_loadu_si256(first.as_ptr().cast()));
            let both = _mm512_inserti64x4::<1>(first, _mm256_loadu_si256(second.as_ptr().cast()));
            _mm512_xor_si512(both, self.bytes(0x80))
        }

        /// Small blocks as a group: their scales times 1, and what is beside them times a factor.
        pub(super) fn small_group(self, codes: [__m512i; 4], fields: __m256i, factor: f32) -> Group {
            Group {
                codes,
                scales: _mm512_mul_ps(_mm512_cvtph_ps(fields), self.number_halves(1.0, factor)),
                mins: _mm512_setzero_ps(),
            }
        }

        /// 32 bytes in both halves.
        pub(super) fn twice(self, bytes: &[u8; 32]) -> __m512i {
            _mm512_broadcast_i64x4(_mm256_loadu_si256(bytes.as_ptr().cast()))
        }

        /// 64 values of a nibble type of 256: 32 low nibbles, then 32 high ones.
        pub(super) fn nibble_runs(self, packed: &[u8; 32]) -> __m512i {
            let shifted = _mm512_srlv_epi64(self.twice(packed), self.halves_of(0, 4));
            _mm512_and_si512(shifted, self.bytes(15))
        }

        /// 64 values of a two-bit type of 256: runs `2 · vector` and `2 · vector + 1` of 32.
        pub(super) fn bit_pairs(self, packed: &[u8; 64], vector: usize) -> __m512i {
            let shift = 4 * (vector % 2) as i64;
            let (halves, _) = packed.as_chunks::<32>();
            let packed = self.twice(&halves[vector / 2]);
            let shifted = _mm512_srlv_epi64(packed, self.halves_of(shift, shift + 2));
            _mm512_and_si512(shifted, self.bytes(3))
        }

        /// Adds `value` to the codes of a vector whose bit is set in its run's plane of `mask`.
        pub(super) fn with_plane(self, codes: __m512i, mask: __m512i, vector: usize, value: u8) -> __m512i {
            let plane = |run: usize| i64::from_ne_bytes([1 << run; 8]);
            let planes = self.halves_of(plane(2 * vector), plane(2 * vector + 1));
            let set = _mm512_test_epi8_mask(mask, planes);
            _mm512_mask_add_epi8(codes, set, codes, self.bytes(value))
        }

        /// The lower and the upper nibbles of sixteen bytes.
        pub(super) fn numbers_of_nibbles(self, packed: &[u8; 16]) -> [__m512; 2] {
            let bytes = _mm512_cvtepu8_epi32(_mm_loadu_si128(packed.as_ptr().cast()));
            let low = _mm512_and_si512(bytes, _mm512_set1_epi32(15));
            [_mm512_cvtepi32_ps(low), _mm512_cvtepi32_ps(_mm512_srli_epi32::<4>(bytes))]
        }

        /// Sixteen signed bytes.
        pub(super) fn signed_numbers(self, bytes: &[i8; 16]) -> __m512 {
            _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(bytes.as_ptr().cast())))
        }

        /// Eight scales and eight minima of `q4_K` and `q5_K`, whose blocks start with what they are made of: both factors
        /// as halves, then words `a`, `b` and `c` with the scales' and minima's bits.
        pub(super) fn scales_and_mins(self, block: &[u8]) -> __m512 {
            assert!(block.len() >= 16);
            let words = _mm_loadu_si128(block.as_ptr().cast());
            let acbc = _mm_shuffle_epi32::<0b11_10_11_01>(words);
            let low = _mm_and_si128(
                _mm_srlv_epi32(acbc, _mm_set_epi32(4, 0, 0, 0)),
                _mm_set_epi32(0x0f0f_0f0f, 0x3f3f_3f3f, 0x0f0f_0f0f, 0x3f3f_3f3f),
            );
            let high = _mm_srli_epi32::<2>(_mm_shuffle_epi32::<0b10_10_01_01>(words));
            let ints = _mm_ternarylogic_epi32::<0xea>(high, _mm_set_epi32(0x3030_3030, 0, 0x3030_3030, 0), low);
            let factors = _mm512_castps128_ps512(_mm_cvtph_ps(words));
            let lanes = _mm512_set_epi32(1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0);
            _mm512_mul_ps(
                _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(ints)),
                _mm512_permutexvar_ps(lanes, factors),
            )
        }

        /// The sixteen scales of `q3_K`, whose blocks end with the scales' words `a`, `b` and `c`, and a factor.
        pub(super) fn scales_of_q3(self, block: &BlockQ3K) -> __m512 {
            let last = std::ptr::from_ref(block).add(1).cast::<__m128i>().sub(1);
            let words = _mm_bsrli_si128::<2>(_mm_loadu_si128(last));
            let abab = _mm_shuffle_epi32::<0b01_00_01_00>(words);
            let low = _mm_srlv_epi32(abab, _mm_set_epi32(4, 4, 0, 0));
            let cccc = _mm_shuffle_epi32::<0b10_10_10_10>(words);
            let high = _mm_rorv_epi32(cccc, _mm_set_epi32(2, 0, 30, 28));
            let ints = _mm_or_si128(
                _mm_and_si128(low, _mm_set1_epi8(15)),
                _mm_and_si128(high, _mm_set1_epi8(0x30)),
            );
            _mm512_cvtepi32_ps(_mm512_sub_epi32(_mm512_cvtepu8_epi32(ints), _mm512_set1_epi32(32)))
        }

        /// 64 codes of `q6_K`.
        pub(super) fn codes_of_q6(self, block: &BlockQ6K, vector: usize) -> __m512i {
            let (low, high) = (block.ql.as_chunks::<64>().0, block.qh.as_chunks::<32>().0);
            let low = _mm512_loadu_si512(low[vector / 2].as_ptr().cast());
            let high = self.twice(&high[vector / 2]);
            // Bring the two high bits to bits 4 and 5, where the low nibble ends.
            let (low, high) = if vector.is_multiple_of(2) {
                (low, _mm512_sllv_epi64(high, self.halves_of(4, 2)))
            } else {
                (_mm512_srli_epi16::<4>(low), _mm512_srlv_epi64(high, self.halves_of(0, 2)))
            };
            // The third operand selects: its bits take `low`, the others `high`.
            let code = _mm512_ternarylogic_epi32::<0xd8>(high, low, self.bytes(15));
            _mm512_and_si512(code, self.bytes(63))
        }

        /// The scales of so many blocks of `mxfp4`, then `offset` times them as minima; zeros for the others of eight.
        pub(super) fn scales_of_mxfp4(self, exponents: [u8; 8], count: usize, offset: f32) -> __m512 {
            let bytes = _mm_set1_epi64x(i64::from_le_bytes(exponents));
            let powers = self.powers(_mm512_cvtepu8_epi32(bytes));
            let live = ((1u32 << count) - 1) as __mmask16;
            _mm512_maskz_mul_ps(live | live << 8, powers, self.number_halves(1.0, offset))
        }

        /// The sixteen scales of four blocks of `nvfp4`.
        pub(super) fn scales_of_nvfp4(self, scales: [[u8; 4]; 4]) -> __m512 {
            self.small_floats(_mm512_cvtepu8_epi32(_mm_loadu_si128(scales.as_ptr().cast())))
        }

        /// The nibbles of 32 bytes: of each eight, the low ones, then the high ones.
        pub(super) fn nibbles_of_runs(self, packed: &[u8; 32]) -> __m512i {
            let bytes = _mm512_castsi256_si512(_mm256_loadu_si256(packed.as_ptr().cast()));
            let runs = _mm512_permutexvar_epi64(_mm512_set_epi64(3, 3, 2, 2, 1, 1, 0, 0), bytes);
            let shifted = _mm512_srlv_epi64(runs, _mm512_set_epi64(4, 0, 4, 0, 4, 0, 4, 0));
            _mm512_and_si512(shifted, self.bytes(15))
        }

        /// A code for each bit that is set.
        pub(super) fn bits_as(self, code: u8, bits: u64) -> __m512i {
            _mm512_maskz_set1_epi8(bits, code.cast_signed())
        }

        /// 64 values of two bits, four to a byte.
        pub(super) fn bit_pairs_in_order(self, packed: &[u8; 16]) -> __m512i {
            let words = _mm512_cvtepu8_epi32(_mm_loadu_si128(packed.as_ptr().cast()));
            let halves = _mm512_or_si512(words, _mm512_slli_epi32::<12>(words));
            let halves = _mm512_and_si512(halves, _mm512_set1_epi32(0x000f_000f));
            let bytes = _mm512_or_si512(halves, _mm512_slli_epi32::<6>(halves));
            _mm512_and_si512(bytes, self.bytes(3))
        }

        /// The scales of four times two runs, and minima that are the same.
        pub(super) fn equal_scales(self, [a, b, c, d]: [f16; 4]) -> __m512 {
            let bits = |half: f16| half.to_bits().cast_signed();
            let (a, b, c, d) = (bits(a), bits(b), bits(c), bits(d));
            _mm512_cvtph_ps(_mm256_broadcastsi128_si256(_mm_set_epi16(d, d, c, c, b, b, a, a)))
        }

        /// The scales of four times two runs, and the numbers behind them, negated, as their minima.
        pub(super) fn scales_and_negated(self, blocks: [[f16; 2]; 4]) -> __m512 {
            let word = |[d, m]: [f16; 2]| (u32::from(m.to_bits()) << 16 | u32::from(d.to_bits())).cast_signed();
            let [a, b, c, d] = blocks.map(word);
            let places = _mm256_set_epi8(
                15, 14, 15, 14, 11, 10, 11, 10, 7, 6, 7, 6, 3, 2, 3, 2,
                13, 12, 13, 12, 9, 8, 9, 8, 5, 4, 5, 4, 1, 0, 1, 0,
            );
            let halves = _mm256_broadcastsi128_si256(_mm_set_epi32(d, c, b, a));
            let numbers = _mm512_cvtph_ps(_mm256_shuffle_epi8(halves, places));
            _mm512_mul_ps(numbers, self.number_halves(1.0, -1.0))
        }

        /// Eight scales of `iq4_xs`, then `offset` times them as minima.
        pub(super) fn scales_of_iq4_xs(self, block: &BlockIq4Xs, offset: f32) -> __m512 {
            // Bits 0 to 3 of a scale are those of its nibble; bits 4 and 5 are its pair among the upper half of the
            // block's first word.
            let first = std::ptr::from_ref(block).cast::<i32>().read_unaligned();
            let turns = _mm256_set_epi32(26, 24, 22, 20, 18, 16, 14, 12);
            let high = _mm256_rorv_epi32(_mm256_set1_epi32(first), turns);
            let high = _mm256_and_si256(high, _mm256_set1_epi32(0x30));
            let low = _mm256_set1_epi32(i32::from_le_bytes(block.scales_l));
            let low = _mm256_srlv_epi32(low, _mm256_set_epi32(28, 24, 20, 16, 12, 8, 4, 0));
            let low = _mm256_and_si256(low, _mm256_set1_epi32(15));
            let ints = _mm256_sub_epi32(_mm256_or_si256(low, high), _mm256_set1_epi32(32));
            let ints = _mm512_cvtepi32_ps(_mm512_broadcast_i64x4(ints));
            let d = self.widen(block.d);
            _mm512_mul_ps(ints, self.number_halves(d, offset * d))
        }
    }

    /// A group by the decoder along a row.
    #[inline(always)]
    pub(super) fn plainly<B: Decode>(self, blocks: &[B]) -> Group {
        let (mut codes, mut scales, mut mins) = ([0; GROUP], [0.0; GROUP / 16], [0.0; GROUP / 16]);
        let runs = B::LEN / B::RUN;
        for (i, block) in blocks.iter().enumerate() {
            let out = Decoded {
                codes: &mut codes[i * B::LEN..(i + 1) * B::LEN],
                scales: &mut scales[i * runs..(i + 1) * runs],
                mins: &mut mins[i * runs..(i + 1) * runs],
            };
            block.decode(self, out);
        }
        if B::RUN == 32 {
            scales[8..].copy_from_slice(&mins[..8]);
        }
        // SAFETY: the arrays have the sizes of the registers.
        unsafe {
            Group {
                codes: four!(|vector| self.load_words(codes.as_ptr().add(64 * vector))),
                scales: self.load_numbers(scales.as_ptr()),
                mins: self.load_numbers(mins.as_ptr()),
            }
        }
    }

    /// The scales of two or eight blocks, then their minima, or the scales again.
    #[inline(always)]
    pub(super) fn gathered<B: Small>(self, blocks: &[B]) -> __m256i {
        let size = size_of::<B>();
        // SAFETY: the token exists only where the set does; blocks are plain bytes, and loads are of 64 of them.
        unsafe {
            let bytes =
                std::slice::from_raw_parts(blocks.as_ptr().cast::<u8>(), size_of_val(blocks));
            if blocks.len() == 8 && (16..=24).contains(&size) {
                let second = const { second_vector(size_of::<B>()) };
                let load = |at: usize| _mm512_loadu_si512(bytes[at..at + 64].as_ptr().cast());
                let places =
                    const { &places(size_of::<B>(), second_vector(size_of::<B>()), B::FIELDS) };
                let places = _mm512_loadu_si512(places.as_ptr().cast());
                let mut halves = _mm512_permutex2var_epi16(load(0), places, load(second * size));
                if second == 3 {
                    let last = load(8 * size - 64);
                    halves = _mm512_mask_permutexvar_epi16(halves, 0xc0c0, places, last);
                }
                return _mm512_castsi512_si256(halves);
            }
            let eight = |at: usize| {
                let half = |block: usize| match bytes.get(block * size + at..) {
                    Some(&[low, high, ..]) => i16::from_le_bytes([low, high]),
                    _ => 0,
                };
                _mm_set_epi16(
                    half(7),
                    half(6),
                    half(5),
                    half(4),
                    half(3),
                    half(2),
                    half(1),
                    half(0),
                )
            };
            let [d, m] = B::FIELDS;
            let low = eight(d);
            _mm256_set_m128i(if d == m { low } else { eight(m) }, low)
        }
    }
}
