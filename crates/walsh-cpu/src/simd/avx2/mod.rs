//! AVX2 with FMA and F16C: two registers hold the sixteen lanes.

use std::arch::x86_64::*;

use super::{Bytes, Simd, Sixteen, Table, operations};

pub(super) mod bytes;
mod products;

pub(crate) use products::{AvxVnni, pairs_in_16_bits};

/// Pairs of 256-bit vectors, on a machine that has AVX2, FMA and F16C.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(());

/// Sixteen singles.
type F = [__m256; 2];
/// Sixteen integers.
type I = [__m256i; 2];

/// The same expression for both registers.
macro_rules! two {
    ($i:ident => $body:expr) => {
        [
            {
                let $i = 0;
                $body
            },
            {
                let $i = 1;
                $body
            },
        ]
    };
}
use two;

const LANES: [i32; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

impl Avx2 {
    /// # Safety
    /// The machine has AVX2, FMA and F16C.
    #[inline(always)]
    pub(crate) unsafe fn new_unchecked() -> Self {
        Self(())
    }

    operations! {
        /// The sum of eight lanes: 4 and 4, 2 and 2, 1 and 1.
        pub(super) fn reduce_eight(self, a: __m256) -> f32 {
            let a = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let a = _mm_add_ps(a, _mm_movehl_ps(a, a));
            _mm_cvtss_f32(_mm_add_ss(a, _mm_movehdup_ps(a)))
        }

        /// The sums of eight vectors, each in the order of [`reduce_eight`](Avx2::reduce_eight).
        fn sums_eight(self, rows: [__m256; 8]) -> __m256 {
            // Half of each of two vectors is kept, the other halves change places, and one addition serves both.
            let mut halves = [_mm256_setzero_ps(); 4];
            for i in 0..4 {
                let (a, b) = (rows[i], rows[i + 4]);
                let kept = _mm256_blend_ps::<0xf0>(a, b);
                halves[i] = _mm256_add_ps(kept, _mm256_permute2f128_ps::<0x21>(a, b));
            }
            let mut pairs = [_mm256_setzero_ps(); 2];
            for i in 0..2 {
                let (a, b) = (halves[i], halves[i + 2]);
                let kept = _mm256_blend_ps::<0xcc>(a, b);
                pairs[i] = _mm256_add_ps(kept, _mm256_shuffle_ps::<0x4e>(a, b));
            }
            let [a, b] = pairs;
            let crossed = _mm256_permute_ps::<0xb1>(_mm256_blend_ps::<0x55>(a, b));
            _mm256_add_ps(_mm256_blend_ps::<0xaa>(a, b), crossed)
        }

        /// The sum of four lanes: 2 and 2, 1 and 1.
        pub(super) fn reduce_four(self, a: __m256d) -> f64 {
            let a = _mm_add_pd(_mm256_castpd256_pd128(a), _mm256_extractf128_pd::<1>(a));
            _mm_cvtsd_f64(_mm_add_sd(a, _mm_unpackhi_pd(a, a)))
        }

        /// Transposes eight rows of eight.
        fn transpose_eight(self, r: [__m256; 8]) -> [__m256; 8] {
            let mut t = r;
            for i in 0..4 {
                t[2 * i] = _mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]);
                t[2 * i + 1] = _mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]);
            }
            let mut u = t;
            for i in 0..2 {
                let q = 4 * i;
                u[q] = _mm256_shuffle_ps::<0x44>(t[q], t[q + 2]);
                u[q + 1] = _mm256_shuffle_ps::<0xee>(t[q], t[q + 2]);
                u[q + 2] = _mm256_shuffle_ps::<0x44>(t[q + 1], t[q + 3]);
                u[q + 3] = _mm256_shuffle_ps::<0xee>(t[q + 1], t[q + 3]);
            }
            let mut out = u;
            for j in 0..4 {
                out[j] = _mm256_permute2f128_ps::<0x20>(u[j], u[4 + j]);
                out[4 + j] = _mm256_permute2f128_ps::<0x31>(u[j], u[4 + j]);
            }
            out
        }

        /// Entries of a table of sixteen numbers by the low four bits of each lane.
        fn sixteen(self, t: F, index: __m256i) -> __m256 {
            // Bit 3 chooses between the halves of the table.
            let upper = _mm256_castsi256_ps(_mm256_slli_epi32::<28>(index));
            let (low, high) = (
                _mm256_permutevar8x32_ps(t[0], index),
                _mm256_permutevar8x32_ps(t[1], index),
            );
            _mm256_blendv_ps(low, high, upper)
        }

        /// The bits of a mask, within the low byte of each lane, as bytes.
        fn low_bytes(self, a: I, mask: i32) -> __m128i {
            let mask = _mm256_set1_epi32(mask);
            let words = _mm256_packus_epi32(_mm256_and_si256(a[0], mask), _mm256_and_si256(a[1], mask));
            let words = _mm256_permute4x64_epi64::<0xd8>(words);
            _mm_packus_epi16(
                _mm256_castsi256_si128(words),
                _mm256_extracti128_si256::<1>(words),
            )
        }

        /// [`Simd::store_bits`] of sixteen bytes below 2^`WIDTH`, for a `WIDTH` of 2 or 4.
        ///
        /// # Safety
        /// `p` is valid for 2·`WIDTH` bytes.
        pub(super) unsafe fn store_bits_of_bytes<const WIDTH: usize>(self, p: *mut u8, bytes: __m128i) {
            // Neighbours come together: bytes with factors of 1 and 2^WIDTH, then words.
            let pairs = _mm_maddubs_epi16(
                bytes,
                _mm_set1_epi16(if WIDTH == 4 { 0x1001 } else { 0x0401 }),
            );
            if WIDTH == 4 {
                return _mm_storel_epi64(p.cast(), _mm_packus_epi16(pairs, pairs));
            }
            let fours = _mm_madd_epi16(pairs, _mm_set1_epi32(0x0010_0001));
            let packed = _mm_packus_epi16(_mm_packus_epi32(fours, fours), fours);
            p.cast::<i32>().write_unaligned(_mm_cvtsi128_si32(packed))
        }
    }
}

impl Simd for Avx2 {
    type F = F;
    type I = I;
    type D = [__m256d; 4];

    const ORDER: [u8; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
    const SCORE_ROWS: usize = 6;
    const WIDE: bool = false;
    const FUSED_ROWS: Option<(usize, usize)> = Some((
        <Self as Bytes>::FUSED_KEY_ROWS,
        <Self as Bytes>::FUSED_VALUE_ROWS,
    ));
    const VALUE_ROWS: usize = 6;

    operations! {
        fn splat(self, x: f32) -> F { [_mm256_set1_ps(x); 2] }
        unsafe fn load(self, p: *const f32) -> F { [_mm256_loadu_ps(p), _mm256_loadu_ps(p.add(8))] }
        unsafe fn store(self, p: *mut f32, a: F) {
            _mm256_storeu_ps(p, a[0]);
            _mm256_storeu_ps(p.add(8), a[1]);
        }
        fn add(self, a: F, b: F) -> F { [_mm256_add_ps(a[0], b[0]), _mm256_add_ps(a[1], b[1])] }
        fn sub(self, a: F, b: F) -> F { [_mm256_sub_ps(a[0], b[0]), _mm256_sub_ps(a[1], b[1])] }
        fn mul(self, a: F, b: F) -> F { [_mm256_mul_ps(a[0], b[0]), _mm256_mul_ps(a[1], b[1])] }
        fn div(self, a: F, b: F) -> F { [_mm256_div_ps(a[0], b[0]), _mm256_div_ps(a[1], b[1])] }
        fn fma(self, a: F, b: F, c: F) -> F {
            [_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])]
        }
        fn max(self, a: F, b: F) -> F { [_mm256_max_ps(a[0], b[0]), _mm256_max_ps(a[1], b[1])] }
        fn min(self, a: F, b: F) -> F { two!(i => _mm256_min_ps(a[i], b[i])) }
        fn abs(self, a: F) -> F {
            let sign = _mm256_set1_ps(-0.0);
            [_mm256_andnot_ps(sign, a[0]), _mm256_andnot_ps(sign, a[1])]
        }
        fn zero_below(self, a: F, x: F, limit: F) -> F {
            two!(i => _mm256_andnot_ps(_mm256_cmp_ps::<_CMP_LT_OQ>(x[i], limit[i]), a[i]))
        }
        fn keep(self, a: F, first: i32, end: i32) -> F {
            let nothing = _mm256_set1_ps(f32::NEG_INFINITY);
            two!(i => {
                let lane = _mm256_loadu_si256(LANES.as_ptr().add(8 * i).cast());
                let inside = _mm256_andnot_si256(
                    _mm256_cmpgt_epi32(_mm256_set1_epi32(first), lane),
                    _mm256_cmpgt_epi32(_mm256_set1_epi32(end), lane),
                );
                _mm256_blendv_ps(nothing, a[i], _mm256_castsi256_ps(inside))
            })
        }
        fn pick_below(self, x: F, limit: F, a: F, b: F) -> F {
            two!(i => _mm256_blendv_ps(b[i], a[i], _mm256_cmp_ps::<_CMP_LT_OQ>(x[i], limit[i])))
        }
        fn reduce_max(self, a: F) -> f32 {
            let a = _mm256_max_ps(a[0], a[1]);
            let a = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let a = _mm_max_ps(a, _mm_movehl_ps(a, a));
            _mm_cvtss_f32(_mm_max_ss(a, _mm_movehdup_ps(a)))
        }
        fn reduce_add(self, a: F) -> f32 { self.reduce_eight(_mm256_add_ps(a[0], a[1])) }
        fn sums(self, rows: &[F; 16]) -> F {
            two!(i => {
                let mut eight = [_mm256_setzero_ps(); 8];
                for k in 0..8 {
                    let row = rows[8 * i + k];
                    eight[k] = _mm256_add_ps(row[0], row[1]);
                }
                self.sums_eight(eight)
            })
        }
        fn zeros(self) -> [__m256d; 4] { [_mm256_setzero_pd(); 4] }
        fn add_squares(self, s: [__m256d; 4], a: F) -> [__m256d; 4] {
            let mut out = s;
            for i in 0..2 {
                let low = _mm256_cvtps_pd(_mm256_castps256_ps128(a[i]));
                let high = _mm256_cvtps_pd(_mm256_extractf128_ps::<1>(a[i]));
                out[2 * i] = _mm256_fmadd_pd(low, low, s[2 * i]);
                out[2 * i + 1] = _mm256_fmadd_pd(high, high, s[2 * i + 1]);
            }
            out
        }
        fn reduce_doubles(self, s: [__m256d; 4]) -> f64 {
            self.reduce_four(_mm256_add_pd(_mm256_add_pd(s[0], s[2]), _mm256_add_pd(s[1], s[3])))
        }
        fn butterfly<const H: usize>(self, a: F) -> F {
            if H == 8 {
                return [_mm256_add_ps(a[0], a[1]), _mm256_sub_ps(a[0], a[1])];
            }
            // A product with ±1 is exact, so that one fused operation gives sums and differences.
            let signs = _mm256_loadu_ps(super::vectors::ALTERNATING[H.ilog2() as usize].as_ptr());
            two!(i => {
                let other = match H {
                    1 => _mm256_permute_ps::<0xb1>(a[i]),
                    2 => _mm256_permute_ps::<0x4e>(a[i]),
                    _ => _mm256_permute2f128_ps::<0x01>(a[i], a[i]),
                };
                _mm256_fmadd_ps(a[i], signs, other)
            })
        }
        fn splat_i(self, x: u32) -> I { [_mm256_set1_epi32(x as i32); 2] }
        unsafe fn load_i(self, p: *const u32) -> I {
            [_mm256_loadu_si256(p.cast()), _mm256_loadu_si256(p.add(8).cast())]
        }
        fn and(self, a: I, b: I) -> I { [_mm256_and_si256(a[0], b[0]), _mm256_and_si256(a[1], b[1])] }
        fn or(self, a: I, b: I) -> I { [_mm256_or_si256(a[0], b[0]), _mm256_or_si256(a[1], b[1])] }
        fn xor(self, a: I, b: I) -> I { [_mm256_xor_si256(a[0], b[0]), _mm256_xor_si256(a[1], b[1])] }
        fn add_i(self, a: I, b: I) -> I { [_mm256_add_epi32(a[0], b[0]), _mm256_add_epi32(a[1], b[1])] }
        fn sub_i(self, a: I, b: I) -> I { [_mm256_sub_epi32(a[0], b[0]), _mm256_sub_epi32(a[1], b[1])] }
        fn shr(self, a: I, count: I) -> I {
            [_mm256_srlv_epi32(a[0], count[0]), _mm256_srlv_epi32(a[1], count[1])]
        }
        fn shl<const N: u32>(self, a: I) -> I {
            let count = _mm_cvtsi32_si128(N as i32);
            [_mm256_sll_epi32(a[0], count), _mm256_sll_epi32(a[1], count)]
        }
        fn bits(self, a: F) -> I { two!(i => _mm256_castps_si256(a[i])) }
        fn of_bits(self, a: I) -> F { two!(i => _mm256_castsi256_ps(a[i])) }
        fn number(self, a: I) -> F { two!(i => _mm256_cvtepi32_ps(a[i])) }
        fn pick_bits(self, mask: u32, a: F, b: F) -> F {
            let bit = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
            two!(i => {
                let bits = _mm256_and_si256(_mm256_set1_epi32((mask >> (8 * i)) as i32), bit);
                let set = _mm256_cmpeq_epi32(bits, bit);
                _mm256_blendv_ps(b[i], a[i], _mm256_castsi256_ps(set))
            })
        }
        fn add_if_less(self, n: I, a: F, b: F, step: u32) -> I {
            let step = _mm256_set1_epi32(step as i32);
            two!(i => {
                let less = _mm256_cmp_ps::<_CMP_LT_OQ>(a[i], b[i]);
                _mm256_add_epi32(n[i], _mm256_and_si256(_mm256_castps_si256(less), step))
            })
        }
        fn truncate(self, a: F) -> I { two!(i => _mm256_cvttps_epi32(a[i])) }
        unsafe fn store_u16(self, p: *mut u8, a: I) {
            let low = _mm256_set1_epi32(0xffff);
            let words = _mm256_packus_epi32(_mm256_and_si256(a[0], low), _mm256_and_si256(a[1], low));
            _mm256_storeu_si256(p.cast(), _mm256_permute4x64_epi64::<0xd8>(words))
        }
        unsafe fn store_bits<const WIDTH: usize>(self, p: *mut u8, a: I) {
            if WIDTH == 1 {
                let bits = two!(i => _mm256_movemask_ps(_mm256_castsi256_ps(_mm256_slli_epi32::<31>(a[i]))));
                return p.cast::<u16>().write_unaligned((bits[0] | bits[1] << 8) as u16);
            }
            self.store_bits_of_bytes::<WIDTH>(p, self.low_bytes(a, (1 << WIDTH) - 1))
        }
        unsafe fn store_u8(self, p: *mut u8, a: I) { _mm_storeu_si128(p.cast(), self.low_bytes(a, 255)) }
        unsafe fn load_u8(self, p: *const u8) -> I {
            [
                _mm256_cvtepu8_epi32(_mm_loadl_epi64(p.cast())),
                _mm256_cvtepu8_epi32(_mm_loadl_epi64(p.add(8).cast())),
            ]
        }
        unsafe fn load_i8(self, p: *const u8) -> F {
            [
                _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(p.cast()))),
                _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(p.add(8).cast()))),
            ]
        }
        unsafe fn load_f16(self, p: *const u8) -> F {
            [
                _mm256_cvtph_ps(_mm_loadu_si128(p.cast())),
                _mm256_cvtph_ps(_mm_loadu_si128(p.add(16).cast())),
            ]
        }
        unsafe fn store_f16(self, p: *mut u8, a: F) {
            _mm_storeu_si128(p.cast(), _mm256_cvtps_ph::<{ _MM_FROUND_TO_NEAREST_INT }>(a[0]));
            _mm_storeu_si128(p.add(16).cast(), _mm256_cvtps_ph::<{ _MM_FROUND_TO_NEAREST_INT }>(a[1]));
        }
        unsafe fn load_bf16(self, p: *const u8) -> F {
            two!(i => {
                let words = _mm256_cvtepu16_epi32(_mm_loadu_si128(p.add(16 * i).cast()));
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(words))
            })
        }
        unsafe fn nibbles(self, p: *const u8) -> I {
            let shift = _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28);
            two!(i => {
                let word = _mm256_set1_epi32(p.add(4 * i).cast::<i32>().read_unaligned());
                _mm256_srlv_epi32(word, shift)
            })
        }
        unsafe fn half(self, p: *const u8) -> f32 {
            _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(i32::from(p.cast::<u16>().read_unaligned()))))
        }
        fn to_half(self, x: f32) -> u16 {
            _mm_cvtsi128_si32(_mm_cvtps_ph::<{ _MM_FROUND_TO_NEAREST_INT }>(_mm_set_ss(x))) as u16
        }
        unsafe fn columns(self, rows: Sixteen) -> [I; 8] {
            let mut words = [[_mm256_setzero_ps(); 8]; 2];
            for i in 0..8 {
                words[0][i] = _mm256_loadu_ps(rows.row(i).cast());
                words[1][i] = _mm256_loadu_ps(rows.row(i + 8).cast());
            }
            let (a, b) = (self.transpose_eight(words[0]), self.transpose_eight(words[1]));
            let mut out = [self.splat_i(0); 8];
            for i in 0..8 {
                out[i] = [_mm256_castps_si256(a[i]), _mm256_castps_si256(b[i])];
            }
            out
        }
        fn lookup<const BITS: usize>(self, table: &Table<'_, Self>, index: I) -> F {
            let t = &table.parts;
            match BITS {
                2 | 3 => two!(i => _mm256_permutevar8x32_ps(t[0][0], index[i])),
                4 => two!(i => self.sixteen(t[0], index[i])),
                5 => two!(i => {
                    let upper = _mm256_castsi256_ps(_mm256_slli_epi32::<27>(index[i]));
                    _mm256_blendv_ps(self.sixteen(t[0], index[i]), self.sixteen(t[1], index[i]), upper)
                }),
                _ => {
                    // Gathers are slow on many machines: sixteen loads are not slower.
                    let entries = &table.numbers[..1 << BITS];
                    let mut at = [0u8; 16];
                    let mask = self.splat_i((1 << BITS) - 1);
                    self.store_u8(at.as_mut_ptr(), self.and(index, mask));
                    let mut numbers = [0f32; 16];
                    for i in 0..16 {
                        // Masked, the index is below the count.
                        numbers[i] = *entries.get_unchecked(usize::from(at[i]));
                    }
                    self.load(numbers.as_ptr())
                }
            }
        }
        fn transpose(self, rows: &mut [F; 16]) {
            let mut quarters = [[_mm256_setzero_ps(); 8]; 4];
            for k in 0..8 {
                quarters[0][k] = rows[k][0];
                quarters[1][k] = rows[k][1];
                quarters[2][k] = rows[8 + k][0];
                quarters[3][k] = rows[8 + k][1];
            }
            let (a, b) = (self.transpose_eight(quarters[0]), self.transpose_eight(quarters[1]));
            let (c, d) = (self.transpose_eight(quarters[2]), self.transpose_eight(quarters[3]));
            for k in 0..8 {
                rows[k] = [a[k], c[k]];
                rows[8 + k] = [b[k], d[k]];
            }
        }
    }
}
