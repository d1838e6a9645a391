//! AVX-512 F, BW, DQ, VL and VNNI: one register holds the sixteen lanes.

use std::arch::x86_64::*;

use super::{Avx2, Bytes, Simd, Sixteen, Table, operations};

mod products;

/// 512-bit vectors, on a machine that has AVX-512 F, BW, DQ, VL and VNNI.
#[derive(Clone, Copy)]
pub(crate) struct Avx512(());

/// The bit position of each lane's nibble in the double word that it takes it from.
const NIBBLE_SHIFT: [u32; 16] = [0, 0, 4, 4, 8, 8, 12, 12, 16, 16, 20, 20, 24, 24, 28, 28];

/// The words of four rows, each beside the same of the others; then, in each of four, byte by byte.
static ROW_ORDER: [[u8; 64]; 2] = {
    let mut order = [[0; 64]; 2];
    let mut i = 0;
    while i < 64 {
        order[0][i] = if i % 4 == 0 {
            (i / 4 % 4 * 4 + i / 16) as u8
        } else {
            0
        };
        order[1][i] = (i % 4 * 4 + i / 4 % 4) as u8;
        i += 1;
    }
    order
};

impl Avx512 {
    /// # Safety
    /// The machine has AVX2, FMA and F16C, and AVX-512 F, BW, DQ, VL and VNNI.
    #[inline(always)]
    pub(crate) unsafe fn new_unchecked() -> Self {
        Self(())
    }

    /// The set that this one has, too.
    #[inline(always)]
    fn avx2(self) -> Avx2 {
        // SAFETY: what this token stands for includes it.
        unsafe { Avx2::new_unchecked() }
    }

    operations! {
        /// Entries of a table of 128 numbers by the low seven bits of each lane.
        fn quarters(self, t: &[__m512; 8], index: __m512i) -> __m512 {
            let odd = _mm512_test_epi32_mask(index, _mm512_set1_epi32(32));
            let upper = _mm512_test_epi32_mask(index, _mm512_set1_epi32(64));
            let (a, b) = (
                _mm512_permutex2var_ps(t[0], index, t[1]),
                _mm512_permutex2var_ps(t[2], index, t[3]),
            );
            let (c, d) = (
                _mm512_permutex2var_ps(t[4], index, t[5]),
                _mm512_permutex2var_ps(t[6], index, t[7]),
            );
            let low = _mm512_mask_mov_ps(a, odd, b);
            _mm512_mask_mov_ps(low, upper, _mm512_mask_mov_ps(c, odd, d))
        }

        /// Eight 32-bit words of sixteen rows, word by word, from row i in the lower half of vector i and row i + 8 in its
        /// upper half: what is done within halves does both.
        fn words_of_rows(self, r: [__m512i; 8]) -> [__m512i; 8] {
            let mut t = r;
            for i in 0..4 {
                t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
                t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
            }
            let mut u = t;
            for q in [0, 4] {
                u[q] = _mm512_unpacklo_epi64(t[q], t[q + 2]);
                u[q + 1] = _mm512_unpackhi_epi64(t[q], t[q + 2]);
                u[q + 2] = _mm512_unpacklo_epi64(t[q + 1], t[q + 3]);
                u[q + 3] = _mm512_unpackhi_epi64(t[q + 1], t[q + 3]);
            }
            // Quarters of u[j]: words j and 4 + j of rows 0 to 3, then of rows 8 to 11; of u[4 + j]: the rows 4 on.
            let first = _mm512_setr_epi64(0, 1, 8, 9, 4, 5, 12, 13);
            let second = _mm512_setr_epi64(2, 3, 10, 11, 6, 7, 14, 15);
            let mut out = u;
            for j in 0..4 {
                out[j] = _mm512_permutex2var_epi64(u[j], first, u[4 + j]);
                out[4 + j] = _mm512_permutex2var_epi64(u[j], second, u[4 + j]);
            }
            out
        }

        /// Numbers of four bits of 32 bytes, one a byte.
        unsafe fn fours(self, p: *const u8, left: usize) -> __m512i {
            let packed = if left >= 64 {
                _mm256_loadu_si256(p.cast())
            } else {
                _mm256_maskz_loadu_epi8((1u32 << (left / 2)) - 1, p.cast())
            };
            let words = _mm512_cvtepu8_epi16(packed);
            let both = _mm512_or_si512(words, _mm512_slli_epi16::<4>(words));
            _mm512_and_si512(both, _mm512_set1_epi8(15))
        }

        /// Numbers of two bits of sixteen bytes, one a byte.
        unsafe fn twos(self, p: *const u8, left: usize) -> __m512i {
            let packed = if left >= 64 {
                _mm_loadu_si128(p.cast())
            } else {
                _mm_maskz_loadu_epi8(((1u32 << (left / 4)) - 1) as __mmask16, p.cast())
            };
            let words = _mm512_cvtepu8_epi32(packed);
            let halves = _mm512_or_si512(words, _mm512_slli_epi32::<12>(words));
            let quarters = _mm512_or_si512(halves, _mm512_slli_epi32::<6>(halves));
            _mm512_and_si512(quarters, _mm512_set1_epi8(3))
        }

        /// Bits, one a byte.
        unsafe fn ones(self, p: *const u8, left: usize) -> __mmask64 {
            if left >= 64 {
                return p.cast::<u64>().read_unaligned();
            }
            let mut bytes = [0u8; 8];
            p.copy_to_nonoverlapping(bytes.as_mut_ptr(), left / 8);
            u64::from_le_bytes(bytes)
        }

        /// Bytes of a table of four parts by the bits of an index: the four lowest, the fifth and the sixth.
        fn among_four(self, t: &[__m512i; 4], low: __m512i, odd: __mmask64, upper: __mmask64) -> __m512i {
            let below = _mm512_shuffle_epi8(t[0], low);
            let below = _mm512_mask_shuffle_epi8(below, odd, t[1], low);
            let above = _mm512_shuffle_epi8(t[2], low);
            let above = _mm512_mask_shuffle_epi8(above, odd, t[3], low);
            _mm512_mask_mov_epi8(below, upper, above)
        }

        /// The table's bytes for the lower and the upper fours of bits of each byte.
        fn nibbles_of(self, table: &[__m512i; 4], bytes: __m512i) -> [__m512i; 2] {
            let mask = _mm512_set1_epi8(15);
            let upper = _mm512_and_si512(_mm512_srli_epi16::<4>(bytes), mask);
            [
                _mm512_shuffle_epi8(table[0], _mm512_and_si512(bytes, mask)),
                _mm512_shuffle_epi8(table[0], upper),
            ]
        }

        /// Writes the table's bytes for the fours of bits of four vectors.
        unsafe fn store_nibbles(self, table: &[__m512i; 4], codes: [__m512i; 4], out: *mut u8) {
            for (i, codes) in codes.into_iter().enumerate() {
                let [even, odd] = self.nibbles_of(table, codes);
                self.store_b(out.add(128 * i), even);
                self.store_b(out.add(128 * i + 64), odd);
            }
        }

        /// 32 bytes of two rows, one in each half.
        unsafe fn halves(self, low: *const u8, high: *const u8) -> __m512i {
            let low = _mm512_castsi256_si512(_mm256_loadu_si256(low.cast()));
            _mm512_inserti64x4::<1>(low, _mm256_loadu_si256(high.cast()))
        }

        /// The lower halves of two vectors, and the upper halves.
        fn regroup(self, a: __m512i, b: __m512i) -> [__m512i; 2] {
            [
                _mm512_inserti64x4::<1>(a, _mm512_castsi512_si256(b)),
                _mm512_shuffle_i64x2::<0b11_10_11_10>(a, b),
            ]
        }
    }
}

impl Simd for Avx512 {
    type F = __m512;
    type I = __m512i;
    type D = [__m512d; 2];

    // Eight bytes are broadcast, so that even lanes see the low double word and odd lanes the high one.
    const ORDER: [u8; 16] = [0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15];
    const SCORE_ROWS: usize = 8;
    const WIDE: bool = true;
    const FUSED_ROWS: Option<(usize, usize)> = Some((
        <Self as Bytes>::FUSED_KEY_ROWS,
        <Self as Bytes>::FUSED_VALUE_ROWS,
    ));
    const VALUE_ROWS: usize = 6;

    operations! {
        fn splat(self, x: f32) -> __m512 { _mm512_set1_ps(x) }
        unsafe fn load(self, p: *const f32) -> __m512 { _mm512_loadu_ps(p) }
        unsafe fn store(self, p: *mut f32, a: __m512) { _mm512_storeu_ps(p, a) }
        fn add(self, a: __m512, b: __m512) -> __m512 { _mm512_add_ps(a, b) }
        fn sub(self, a: __m512, b: __m512) -> __m512 { _mm512_sub_ps(a, b) }
        fn mul(self, a: __m512, b: __m512) -> __m512 { _mm512_mul_ps(a, b) }
        fn div(self, a: __m512, b: __m512) -> __m512 { _mm512_div_ps(a, b) }
        fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 { _mm512_fmadd_ps(a, b, c) }
        fn max(self, a: __m512, b: __m512) -> __m512 { _mm512_max_ps(a, b) }
        fn min(self, a: __m512, b: __m512) -> __m512 { _mm512_min_ps(a, b) }
        fn abs(self, a: __m512) -> __m512 { _mm512_abs_ps(a) }
        fn zero_below(self, a: __m512, x: __m512, limit: __m512) -> __m512 {
            _mm512_maskz_mov_ps(_mm512_cmp_ps_mask::<_CMP_NLT_UQ>(x, limit), a)
        }
        fn keep(self, a: __m512, first: i32, end: i32) -> __m512 {
            let before_end = (1u32 << end.clamp(0, 16)) - 1;
            let before_first = (1u32 << first.clamp(0, 16)) - 1;
            let mask = (before_end & !before_first) as __mmask16;
            _mm512_mask_mov_ps(_mm512_set1_ps(f32::NEG_INFINITY), mask, a)
        }
        fn pick_below(self, x: __m512, limit: __m512, a: __m512, b: __m512) -> __m512 {
            _mm512_mask_mov_ps(b, _mm512_cmp_ps_mask::<_CMP_LT_OQ>(x, limit), a)
        }
        fn reduce_max(self, a: __m512) -> f32 { _mm512_reduce_max_ps(a) }
        fn reduce_add(self, a: __m512) -> f32 {
            let halves = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps::<1>(a));
            self.avx2().reduce_eight(halves)
        }
        fn sums(self, rows: &[__m512; 16]) -> __m512 {
            // Half of each of two vectors is kept, the other halves change places, and one addition serves both.
            let mut halves = [_mm512_setzero_ps(); 8];
            for i in 0..8 {
                let (a, b) = (rows[i], rows[i + 8]);
                let kept = _mm512_mask_mov_ps(a, 0xff00, b);
                halves[i] = _mm512_add_ps(kept, _mm512_shuffle_f32x4::<0x4e>(a, b));
            }
            let crossed = _mm512_setr_epi64(2, 3, 8, 9, 6, 7, 12, 13);
            let mut quarters = [_mm512_setzero_pd(); 4];
            for i in 0..4 {
                let (a, b) = (halves[i], halves[i + 4]);
                let kept = _mm512_mask_mov_ps(a, 0xf0f0, b);
                let other = _mm512_permutex2var_pd(_mm512_castps_pd(a), crossed, _mm512_castps_pd(b));
                quarters[i] = _mm512_castps_pd(_mm512_add_ps(kept, _mm512_castpd_ps(other)));
            }
            let mut pairs = [_mm512_setzero_ps(); 2];
            for i in 0..2 {
                let (a, b) = (quarters[i], quarters[i + 2]);
                let low = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
                pairs[i] = _mm512_add_ps(low, _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)));
            }
            let [a, b] = pairs;
            let even = _mm512_mask_mov_ps(a, 0xaaaa, _mm512_moveldup_ps(b));
            let odd = _mm512_mask_mov_ps(b, 0x5555, _mm512_movehdup_ps(a));
            _mm512_add_ps(even, odd)
        }
        fn zeros(self) -> [__m512d; 2] { [_mm512_setzero_pd(); 2] }
        fn add_squares(self, s: [__m512d; 2], a: __m512) -> [__m512d; 2] {
            let low = _mm512_cvtps_pd(_mm512_castps512_ps256(a));
            let high = _mm512_cvtps_pd(_mm512_extractf32x8_ps::<1>(a));
            [_mm512_fmadd_pd(low, low, s[0]), _mm512_fmadd_pd(high, high, s[1])]
        }
        fn reduce_doubles(self, s: [__m512d; 2]) -> f64 {
            let eight = _mm512_add_pd(s[0], s[1]);
            let four = _mm256_add_pd(_mm512_castpd512_pd256(eight), _mm512_extractf64x4_pd::<1>(eight));
            self.avx2().reduce_four(four)
        }
        fn butterfly<const H: usize>(self, a: __m512) -> __m512 {
            let other = match H {
                1 => _mm512_permute_ps::<0xb1>(a),
                2 => _mm512_permute_ps::<0x4e>(a),
                4 => _mm512_shuffle_f32x4::<0xb1>(a, a),
                _ => _mm512_shuffle_f32x4::<0x4e>(a, a),
            };
            // A product with ±1 is exact, so that one fused operation gives sums and differences.
            _mm512_fmadd_ps(a, self.load(super::vectors::ALTERNATING[H.ilog2() as usize].as_ptr()), other)
        }
        fn splat_i(self, x: u32) -> __m512i { _mm512_set1_epi32(x as i32) }
        unsafe fn load_i(self, p: *const u32) -> __m512i { _mm512_loadu_si512(p.cast()) }
        fn and(self, a: __m512i, b: __m512i) -> __m512i { _mm512_and_si512(a, b) }
        fn or(self, a: __m512i, b: __m512i) -> __m512i { _mm512_or_si512(a, b) }
        fn xor(self, a: __m512i, b: __m512i) -> __m512i { _mm512_xor_si512(a, b) }
        fn add_i(self, a: __m512i, b: __m512i) -> __m512i { _mm512_add_epi32(a, b) }
        fn sub_i(self, a: __m512i, b: __m512i) -> __m512i { _mm512_sub_epi32(a, b) }
        fn shr(self, a: __m512i, count: __m512i) -> __m512i { _mm512_srlv_epi32(a, count) }
        fn shl<const N: u32>(self, a: __m512i) -> __m512i { _mm512_slli_epi32::<N>(a) }
        fn bits(self, a: __m512) -> __m512i { _mm512_castps_si512(a) }
        fn of_bits(self, a: __m512i) -> __m512 { _mm512_castsi512_ps(a) }
        fn number(self, a: __m512i) -> __m512 { _mm512_cvtepi32_ps(a) }
        fn pick_bits(self, mask: u32, a: __m512, b: __m512) -> __m512 {
            _mm512_mask_mov_ps(b, mask as __mmask16, a)
        }
        fn add_if_less(self, n: __m512i, a: __m512, b: __m512, step: u32) -> __m512i {
            let less = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b);
            _mm512_mask_add_epi32(n, less, n, _mm512_set1_epi32(step as i32))
        }
        fn truncate(self, a: __m512) -> __m512i { _mm512_cvttps_epi32(a) }
        unsafe fn store_u16(self, p: *mut u8, a: __m512i) { _mm256_storeu_si256(p.cast(), _mm512_cvtepi32_epi16(a)) }
        unsafe fn store_bits<const WIDTH: usize>(self, p: *mut u8, a: __m512i) {
            if WIDTH == 1 {
                return p.cast::<u16>().write_unaligned(_mm512_test_epi32_mask(a, _mm512_set1_epi32(1)));
            }
            let low = _mm512_and_si512(a, _mm512_set1_epi32((1 << WIDTH) - 1));
            self.avx2().store_bits_of_bytes::<WIDTH>(p, _mm512_cvtepi32_epi8(low))
        }
        unsafe fn store_u8(self, p: *mut u8, a: __m512i) { _mm_storeu_si128(p.cast(), _mm512_cvtepi32_epi8(a)) }
        unsafe fn load_u8(self, p: *const u8) -> __m512i { _mm512_cvtepu8_epi32(_mm_loadu_si128(p.cast())) }
        unsafe fn load_i8(self, p: *const u8) -> __m512 {
            _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(p.cast())))
        }
        unsafe fn load_f16(self, p: *const u8) -> __m512 { _mm512_cvtph_ps(_mm256_loadu_si256(p.cast())) }
        unsafe fn store_f16(self, p: *mut u8, a: __m512) {
            _mm256_storeu_si256(p.cast(), _mm512_cvtps_ph::<{ _MM_FROUND_TO_NEAREST_INT }>(a))
        }
        unsafe fn load_bf16(self, p: *const u8) -> __m512 {
            let words = _mm512_cvtepu16_epi32(_mm256_loadu_si256(p.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(words))
        }
        unsafe fn nibbles(self, p: *const u8) -> __m512i {
            let words = _mm512_set1_epi64(p.cast::<i64>().read_unaligned());
            _mm512_srlv_epi32(words, self.load_i(NIBBLE_SHIFT.as_ptr()))
        }
        unsafe fn half(self, p: *const u8) -> f32 {
            _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(i32::from(p.cast::<u16>().read_unaligned()))))
        }
        fn to_half(self, x: f32) -> u16 { self.avx2().to_half(x) }
        unsafe fn columns(self, rows: Sixteen) -> [__m512i; 8] {
            let mut r = [_mm512_setzero_si512(); 8];
            for i in 0..8 {
                let low = _mm512_castsi256_si512(_mm256_loadu_si256(rows.row(i).cast()));
                r[i] = _mm512_inserti64x4::<1>(low, _mm256_loadu_si256(rows.row(i + 8).cast()));
            }
            self.words_of_rows(r)
        }
        unsafe fn short_columns(self, rows: Sixteen, bytes: usize) -> [__m512i; 8] {
            let some = (1u32 << bytes) - 1;
            let mut r = [_mm512_setzero_si512(); 8];
            for i in 0..8 {
                let low = _mm512_castsi256_si512(_mm256_maskz_loadu_epi8(some, rows.row(i).cast()));
                let high = _mm256_maskz_loadu_epi8(some, rows.row(i + 8).cast());
                r[i] = _mm512_inserti64x4::<1>(low, high);
            }
            self.words_of_rows(r)
        }
        fn lookup<const BITS: usize>(self, table: &Table<'_, Self>, index: __m512i) -> __m512 {
            let t = &table.parts;
            match BITS {
                2..=4 => _mm512_permutexvar_ps(index, t[0]),
                5 => _mm512_permutex2var_ps(t[0], index, t[1]),
                6 => {
                    let upper = _mm512_test_epi32_mask(index, _mm512_set1_epi32(32));
                    let low = _mm512_permutex2var_ps(t[0], index, t[1]);
                    _mm512_mask_mov_ps(low, upper, _mm512_permutex2var_ps(t[2], index, t[3]))
                }
                7 => self.quarters(t, index),
                _ => {
                    // A gather costs dozens of cycles on many machines. The table is odd: look up the magnitude among
                    // the 128 positive entries, mirrored below 128, and put the sign back.
                    let positive = _mm512_set1_epi32(128);
                    let below = _mm512_testn_epi32_mask(index, positive);
                    let mirrored = _mm512_mask_xor_epi32(index, below, index, _mm512_set1_epi32(127));
                    let size = _mm512_castps_si512(self.quarters(t, mirrored));
                    let sign = _mm512_set1_epi32(i32::MIN);
                    _mm512_castsi512_ps(_mm512_mask_or_epi32(size, below, size, sign))
                }
            }
        }
        fn transpose(self, rows: &mut [__m512; 16]) {
            // Pairs of 32-bit lanes, then pairs of 64 bits, then quarters of the registers.
            let mut t = *rows;
            for i in 0..8 {
                t[2 * i] = _mm512_unpacklo_ps(rows[2 * i], rows[2 * i + 1]);
                t[2 * i + 1] = _mm512_unpackhi_ps(rows[2 * i], rows[2 * i + 1]);
            }
            let mut u = t;
            for q in [0, 4, 8, 12] {
                let (a, b) = (_mm512_castps_pd(t[q]), _mm512_castps_pd(t[q + 2]));
                let (c, d) = (_mm512_castps_pd(t[q + 1]), _mm512_castps_pd(t[q + 3]));
                u[q] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
                u[q + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
                u[q + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(c, d));
                u[q + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(c, d));
            }
            for j in 0..4 {
                let low = _mm512_shuffle_f32x4::<0x88>(u[j], u[4 + j]);
                let high = _mm512_shuffle_f32x4::<0xdd>(u[j], u[4 + j]);
                let low2 = _mm512_shuffle_f32x4::<0x88>(u[8 + j], u[12 + j]);
                let high2 = _mm512_shuffle_f32x4::<0xdd>(u[8 + j], u[12 + j]);
                rows[j] = _mm512_shuffle_f32x4::<0x88>(low, low2);
                rows[8 + j] = _mm512_shuffle_f32x4::<0xdd>(low, low2);
                rows[4 + j] = _mm512_shuffle_f32x4::<0x88>(high, high2);
                rows[12 + j] = _mm512_shuffle_f32x4::<0xdd>(high, high2);
            }
        }
    }
}

impl Bytes for Avx512 {
    type B = __m512i;
    /// Sums with the high bytes of integers, and with the low ones.
    type Sums = [__m512i; 2];

    // Their sums with two vectors of values take half of the registers.
    const FUSED_KEY_ROWS: usize = 4;
    const FUSED_VALUE_ROWS: usize = 4;

    operations! {
        unsafe fn load_b(self, p: *const u8) -> __m512i { _mm512_loadu_si512(p.cast()) }
        fn prefetch(self, p: *const u8) { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
        unsafe fn store_b(self, p: *mut u8, a: __m512i) { _mm512_storeu_si512(p.cast(), a) }
        fn nothing(self) -> [__m512i; 2] { [_mm512_setzero_si512(); 2] }
        fn dot(self, sums: [__m512i; 2], a: __m512i, first: &[i8; 4], second: &[i8; 4]) -> [__m512i; 2] {
            let high = _mm512_set1_epi32(first.as_ptr().cast::<i32>().read_unaligned());
            let low = _mm512_set1_epi32(second.as_ptr().cast::<i32>().read_unaligned());
            [_mm512_dpbusd_epi32(sums[0], a, high), _mm512_dpbusd_epi32(sums[1], a, low)]
        }
        fn number_of(self, sums: [__m512i; 2], less: i32) -> __m512 {
            let both = _mm512_add_epi32(_mm512_slli_epi32::<8>(sums[0]), sums[1]);
            _mm512_cvtepi32_ps(_mm512_sub_epi32(both, _mm512_set1_epi32(less)))
        }
        fn split(self, a: __m512, high: &mut [i8; 16], low: &mut [i8; 16]) -> __m512i {
            let whole = _mm512_cvtps_epi32(a);
            let above = _mm512_srai_epi32::<8>(_mm512_add_epi32(whole, _mm512_set1_epi32(128)));
            _mm_storeu_si128(high.as_mut_ptr().cast(), _mm512_cvtepi32_epi8(above));
            _mm_storeu_si128(low.as_mut_ptr().cast(), _mm512_cvtepi32_epi8(whole));
            whole
        }
        fn reduce_add_i(self, a: __m512i) -> i32 { _mm512_reduce_add_epi32(a) }
        fn table(self, numbers: &[u8; 64]) -> [__m512i; 4] {
            let mut parts = [_mm512_setzero_si512(); 4];
            for (i, part) in parts.iter_mut().enumerate() {
                *part = _mm512_broadcast_i32x4(_mm_loadu_si128(numbers.as_ptr().add(16 * i).cast()));
            }
            parts
        }
        fn wide_nibbles(self, table: &[__m512i; 4], rows: [&[u8; 64]; 4], out: &mut [u8; 512]) {
            let out = out.as_mut_ptr();
            let codes = [
                self.read_b(rows[0]),
                self.read_b(rows[1]),
                self.read_b(rows[2]),
                self.read_b(rows[3]),
            ];
            self.store_nibbles(table, self.interleave(codes), out);
        }
        fn half_nibbles(self, table: &[__m512i; 4], rows: [[&[u8; 32]; 4]; 2], out: &mut [u8; 512]) {
            let out = out.as_mut_ptr();
            let [first, second] = rows;
            let codes = [
                self.halves(first[0].as_ptr(), second[0].as_ptr()),
                self.halves(first[1].as_ptr(), second[1].as_ptr()),
                self.halves(first[2].as_ptr(), second[2].as_ptr()),
                self.halves(first[3].as_ptr(), second[3].as_ptr()),
            ];
            let [a, b, c, d] = self.interleave(codes);
            let ([a, b], [c, d]) = (self.regroup(a, b), self.regroup(c, d));
            self.store_nibbles(table, [a, c, b, d], out);
        }
        fn row_order(self) -> [__m512i; 2] {
            let load = |at: &[u8; 64]| _mm512_loadu_si512(at.as_ptr().cast());
            // The compiler would build other permutations out of these, and more of them, if it knew them.
            let [words, each] = std::hint::black_box(&ROW_ORDER);
            [load(words), load(each)]
        }
        fn nibbles_of_rows(self, t: &[__m512i; 4], order: &[__m512i; 2], rows: [&[u8; 16]; 4]) -> [__m512i; 2] {
            let part = |i: usize| _mm_loadu_si128(rows[i].as_ptr().cast());
            let bytes = _mm512_castsi128_si512(part(0));
            let bytes = _mm512_mask_broadcast_i32x4(bytes, 0x00f0, part(1));
            let bytes = _mm512_mask_broadcast_i32x4(bytes, 0x0f00, part(2));
            let bytes = _mm512_mask_broadcast_i32x4(bytes, 0xf000, part(3));
            let [words, each] = *order;
            let bytes = _mm512_shuffle_epi8(_mm512_permutexvar_epi32(words, bytes), each);
            self.nibbles_of(t, bytes)
        }
        fn permute(self, a: __m512, order: &[i32; 16]) -> __m512 {
            _mm512_permutexvar_ps(_mm512_loadu_si512(order.as_ptr().cast()), a)
        }
        unsafe fn gather(self, p: *const f32, places: *const i32) -> __m512 {
            _mm512_i32gather_ps::<4>(_mm512_loadu_si512(places.cast()), p)
        }
        fn interleave(self, rows: [__m512i; 4]) -> [__m512i; 4] {
            let [a, b, c, d] = rows;
            let (ab, cd) = (_mm512_unpacklo_epi8(a, b), _mm512_unpacklo_epi8(c, d));
            let (high_ab, high_cd) = (_mm512_unpackhi_epi8(a, b), _mm512_unpackhi_epi8(c, d));
            [
                _mm512_unpacklo_epi16(ab, cd),
                _mm512_unpackhi_epi16(ab, cd),
                _mm512_unpacklo_epi16(high_ab, high_cd),
                _mm512_unpackhi_epi16(high_ab, high_cd),
            ]
        }
        fn numbers_of_word<const BITS: usize>(
            self,
            t: &[__m512i; 4],
            at: usize,
            low: __m512i,
            (high, bit): (__m512i, usize),
        ) -> __m512i {
            let bits = if BITS < 4 { 2 } else { 4 };
            let shift = _mm_cvtsi32_si128((at * bits) as i32);
            let low = _mm512_srl_epi32(low, shift);
            let low = _mm512_and_si512(low, _mm512_set1_epi8((1 << bits) - 1));
            // The bytes of the high plane that belong to the four bytes of the word: one, or two.
            let words = _mm512_set4_epi32(0x0c0c_0c0c, 0x0808_0808, 0x0404_0404, 0);
            let place = (bit / 8) as i32 * 0x0101_0101;
            let place = place + if BITS == 5 { 0 } else { 0x0101_0000 };
            let places = _mm512_add_epi32(words, _mm512_set1_epi32(place));
            let part = _mm512_shuffle_epi8(high, places);
            match BITS {
                2 | 4 => _mm512_shuffle_epi8(t[0], low),
                3 => {
                    let of_bytes = _mm512_set1_epi32(0x1001_1001 << at);
                    let upper = _mm512_test_epi8_mask(part, of_bytes);
                    let index = _mm512_mask_add_epi8(low, upper, low, _mm512_set1_epi8(4));
                    _mm512_shuffle_epi8(t[0], index)
                }
                5 => {
                    let of_bytes = _mm512_set1_epi32(0x4010_0401 << at);
                    let upper = _mm512_test_epi8_mask(part, of_bytes);
                    let found = _mm512_shuffle_epi8(t[0], low);
                    _mm512_mask_shuffle_epi8(found, upper, t[1], low)
                }
                _ => {
                    let of_bytes = 0x1001_1001 << (2 * at);
                    let odd = _mm512_test_epi8_mask(part, _mm512_set1_epi32(of_bytes));
                    let upper = _mm512_test_epi8_mask(part, _mm512_set1_epi32(of_bytes << 1));
                    self.among_four(t, low, odd, upper)
                }
            }
        }
        unsafe fn numbers<const BITS: usize>(
            self,
            t: &[__m512i; 4],
            (row, high_at): (*const u8, usize),
            first: usize,
            left: usize,
        ) -> __m512i {
            let high = row.add(high_at);
            match BITS {
                2 => _mm512_shuffle_epi8(t[0], self.twos(row.add(first / 4), left)),
                3 => {
                    let low = self.twos(row.add(first / 4), left);
                    let upper = self.ones(high.add(first / 8), left);
                    let index = _mm512_mask_add_epi8(low, upper, low, _mm512_set1_epi8(4));
                    _mm512_shuffle_epi8(t[0], index)
                }
                4 => _mm512_shuffle_epi8(t[0], self.fours(row.add(first / 2), left)),
                5 => {
                    let low = self.fours(row.add(first / 2), left);
                    let upper = self.ones(high.add(first / 8), left);
                    let found = _mm512_shuffle_epi8(t[0], low);
                    _mm512_mask_shuffle_epi8(found, upper, t[1], low)
                }
                _ => {
                    let low = self.fours(row.add(first / 2), left);
                    let part = self.twos(high.add(first / 4), left);
                    let odd = _mm512_test_epi8_mask(part, _mm512_set1_epi8(1));
                    let upper = _mm512_test_epi8_mask(part, _mm512_set1_epi8(2));
                    self.among_four(t, low, odd, upper)
                }
            }
        }
    }
}
