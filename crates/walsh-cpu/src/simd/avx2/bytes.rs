//! AVX2: bytes are multiplied as integers of 16 bits, two by two.
//!
//! Products of bytes with bytes (`vpmaddubsw`) saturate, and need two of them for an integer of 16 bits. Widened to 16
//! bits, which costs two operations for all query rows, bytes need one, and one sum.

use std::arch::x86_64::*;

use super::{Avx2, two};
use crate::simd::{Bytes, operations};

/// Sixty-four bytes.
type B = [__m256i; 2];

/// The address of bytes of which only `exist` may be read: of a copy, followed by zeros, where a vector has more.
///
/// # Safety
/// They may be read.
#[inline(always)]
unsafe fn readable<const N: usize>(p: *const u8, exist: usize, copy: &mut [u8; N]) -> *const u8 {
    if exist >= N {
        return p;
    }
    // SAFETY: so many bytes may be read; no more than the array has.
    unsafe { p.copy_to_nonoverlapping(copy.as_mut_ptr(), exist) };
    copy.as_ptr()
}

impl Avx2 {
    operations! {
        /// Numbers of four bits of 32 bytes, one a byte.
        ///
        /// # Safety
        /// The row has `left` numbers here.
        unsafe fn fours(self, p: *const u8, left: usize) -> B {
            let mut copy = [0; 32];
            let p = readable(p, left / 2, &mut copy);
            two!(i => {
                let words = _mm256_cvtepu8_epi16(_mm_loadu_si128(p.add(16 * i).cast()));
                let both = _mm256_or_si256(words, _mm256_slli_epi16::<4>(words));
                _mm256_and_si256(both, _mm256_set1_epi8(15))
            })
        }

        /// Numbers of two bits of sixteen bytes, one a byte.
        ///
        /// # Safety
        /// As for [`fours`](Avx2::fours).
        unsafe fn twos(self, p: *const u8, left: usize) -> B {
            let mut copy = [0; 16];
            let p = readable(p, left / 4, &mut copy);
            two!(i => {
                let words = _mm256_cvtepu8_epi32(_mm_loadl_epi64(p.add(8 * i).cast()));
                let halves = _mm256_or_si256(words, _mm256_slli_epi32::<12>(words));
                let quarters = _mm256_or_si256(halves, _mm256_slli_epi32::<6>(halves));
                _mm256_and_si256(quarters, _mm256_set1_epi8(3))
            })
        }

        /// Bits, one a byte: all of its bits where it is set.
        ///
        /// # Safety
        /// As for [`fours`](Avx2::fours).
        unsafe fn ones(self, p: *const u8, left: usize) -> B {
            let mut copy = [0; 8];
            let p = readable(p, left / 8, &mut copy);
            let places = _mm256_setr_epi64x(
                0,
                0x0101_0101_0101_0101,
                0x0202_0202_0202_0202,
                0x0303_0303_0303_0303,
            );
            let bit = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64 as i64);
            two!(i => {
                let bits = _mm256_set1_epi32(p.add(4 * i).cast::<i32>().read_unaligned());
                self.are_set(_mm256_shuffle_epi8(bits, places), bit)
            })
        }

        /// Which bytes have the bit of theirs in `bits`.
        fn are_set(self, bytes: __m256i, bits: __m256i) -> __m256i {
            _mm256_cmpeq_epi8(_mm256_and_si256(bytes, bits), bits)
        }

        /// Bytes of a table by the bits of an index: the lowest, below `upper`, and those of `BITS` above them, as masks.
        fn found<const BITS: usize>(self, t: &[B; 4], low: __m256i, upper: [__m256i; 2]) -> __m256i {
            let [odd, above] = upper;
            let part = [t[0][0], t[1][0], t[2][0], t[3][0]];
            match BITS {
                2 | 4 => _mm256_shuffle_epi8(part[0], low),
                3 => {
                    let fourth = _mm256_and_si256(odd, _mm256_set1_epi8(4));
                    _mm256_shuffle_epi8(part[0], _mm256_or_si256(low, fourth))
                }
                5 => _mm256_blendv_epi8(
                    _mm256_shuffle_epi8(part[0], low),
                    _mm256_shuffle_epi8(part[1], low),
                    odd,
                ),
                _ => {
                    let below = _mm256_blendv_epi8(
                        _mm256_shuffle_epi8(part[0], low),
                        _mm256_shuffle_epi8(part[1], low),
                        odd,
                    );
                    let over = _mm256_blendv_epi8(
                        _mm256_shuffle_epi8(part[2], low),
                        _mm256_shuffle_epi8(part[3], low),
                        odd,
                    );
                    _mm256_blendv_epi8(below, over, above)
                }
            }
        }

        /// The table's bytes for the numbers at the `place`th of each byte of the low plane. Bytes of the high plane lie
        /// where the bytes are whose numbers they belong to.
        pub(crate) fn numbers_of_bytes<const BITS: usize>(
            self,
            t: &[B; 4],
            place: usize,
            low: __m256i,
            high: __m256i,
        ) -> __m256i {
            let bits = if BITS < 4 { 2 } else { 4 };
            let shift = _mm_cvtsi32_si128((place * bits) as i32);
            let mask = _mm256_set1_epi8((1 << bits) - 1);
            let of_bytes = match BITS {
                3 => 0x1001_1001 << place,
                5 => 0x4010_0401 << place,
                _ => 0x1001_1001 << (2 * place),
            };
            let odd = self.are_set(high, _mm256_set1_epi32(of_bytes));
            let above = self.are_set(high, _mm256_set1_epi32(of_bytes << 1));
            let low = _mm256_and_si256(_mm256_srl_epi32(low, shift), mask);
            self.found::<BITS>(t, low, [odd, above])
        }

        /// Words of the bytes of four vectors at one place, sixteen by sixteen.
        fn interleaved(self, rows: [__m256i; 4]) -> [__m256i; 4] {
            let [a, b, c, d] = rows;
            let (ab, cd) = (_mm256_unpacklo_epi8(a, b), _mm256_unpacklo_epi8(c, d));
            let (high_ab, high_cd) = (_mm256_unpackhi_epi8(a, b), _mm256_unpackhi_epi8(c, d));
            [
                _mm256_unpacklo_epi16(ab, cd),
                _mm256_unpackhi_epi16(ab, cd),
                _mm256_unpacklo_epi16(high_ab, high_cd),
                _mm256_unpackhi_epi16(high_ab, high_cd),
            ]
        }

        /// The table's bytes for the lower and the upper fours of bits of each byte.
        fn nibbles_of(self, table: &[B; 4], bytes: __m256i) -> [__m256i; 2] {
            let mask = _mm256_set1_epi8(15);
            let upper = _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), mask);
            [
                _mm256_shuffle_epi8(table[0][0], _mm256_and_si256(bytes, mask)),
                _mm256_shuffle_epi8(table[0][0], upper),
            ]
        }

        /// Writes the table's bytes for the fours of bits of 32 bytes of four rows, of each four that they interleave to
        /// at one of `out`: the lower, and 64 bytes behind them the upper.
        ///
        /// # Safety
        /// The pointers are valid for so many bytes.
        unsafe fn store_nibbles(self, table: &[B; 4], rows: [*const u8; 4], out: [*mut u8; 4]) {
            let codes = self.interleaved([
                _mm256_loadu_si256(rows[0].cast()),
                _mm256_loadu_si256(rows[1].cast()),
                _mm256_loadu_si256(rows[2].cast()),
                _mm256_loadu_si256(rows[3].cast()),
            ]);
            for i in 0..4 {
                let [even, odd] = self.nibbles_of(table, codes[i]);
                _mm256_storeu_si256(out[i].cast(), even);
                _mm256_storeu_si256(out[i].add(64).cast(), odd);
            }
        }
    }
}

impl Bytes for Avx2 {
    type B = B;
    type Sums = [__m256i; 2];

    // See `rows` for what is done instead.
    const FUSED_KEY_ROWS: usize = 0;
    const FUSED_VALUE_ROWS: usize = 2;

    operations! {
        unsafe fn load_b(self, p: *const u8) -> B {
            [_mm256_loadu_si256(p.cast()), _mm256_loadu_si256(p.add(32).cast())]
        }
        fn prefetch(self, p: *const u8) { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
        unsafe fn store_b(self, p: *mut u8, a: B) {
            _mm256_storeu_si256(p.cast(), a[0]);
            _mm256_storeu_si256(p.add(32).cast(), a[1]);
        }
        fn nothing(self) -> [__m256i; 2] { [_mm256_setzero_si256(); 2] }
        fn dot(self, sums: [__m256i; 2], a: B, first: &[i8; 4], second: &[i8; 4]) -> [__m256i; 2] {
            // Bytes 0 and 2 of each four, and bytes 1 and 3.
            let first = _mm256_set1_epi32(first.as_ptr().cast::<i32>().read_unaligned());
            let second = _mm256_set1_epi32(second.as_ptr().cast::<i32>().read_unaligned());
            let mask = _mm256_set1_epi16(255);
            two!(i => {
                let even = _mm256_madd_epi16(_mm256_and_si256(a[i], mask), first);
                let odd = _mm256_madd_epi16(_mm256_srli_epi16::<8>(a[i]), second);
                _mm256_add_epi32(sums[i], _mm256_add_epi32(even, odd))
            })
        }
        fn number_of(self, sums: [__m256i; 2], less: i32) -> [__m256; 2] {
            let less = _mm256_set1_epi32(less);
            two!(i => _mm256_cvtepi32_ps(_mm256_sub_epi32(sums[i], less)))
        }
        fn split(self, a: [__m256; 2], first: &mut [i8; 16], second: &mut [i8; 16]) -> [__m256i; 2] {
            let whole = two!(i => _mm256_cvtps_epi32(a[i]));
            let words = _mm256_packs_epi32(whole[0], whole[1]);
            let words = _mm256_permute4x64_epi64::<0xd8>(words);
            // Of each four words the even ones, then the odd ones.
            let apart = _mm256_setr_epi8(
                0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15,
                0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15,
            );
            let pairs = _mm256_permute4x64_epi64::<0xd8>(_mm256_shuffle_epi8(words, apart));
            _mm_storeu_si128(first.as_mut_ptr().cast(), _mm256_castsi256_si128(pairs));
            _mm_storeu_si128(second.as_mut_ptr().cast(), _mm256_extracti128_si256::<1>(pairs));
            whole
        }
        fn reduce_add_i(self, a: [__m256i; 2]) -> i32 {
            let a = _mm256_add_epi32(a[0], a[1]);
            let a = _mm_add_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256::<1>(a));
            let a = _mm_add_epi32(a, _mm_shuffle_epi32::<0x4e>(a));
            _mm_cvtsi128_si32(_mm_add_epi32(a, _mm_shuffle_epi32::<0xb1>(a)))
        }
        fn table(self, numbers: &[u8; 64]) -> [B; 4] {
            let mut parts = [[_mm256_setzero_si256(); 2]; 4];
            for (i, part) in parts.iter_mut().enumerate() {
                let sixteen = _mm_loadu_si128(numbers.as_ptr().add(16 * i).cast());
                *part = [_mm256_broadcastsi128_si256(sixteen); 2];
            }
            parts
        }
        fn wide_nibbles(self, table: &[B; 4], rows: [&[u8; 64]; 4], out: &mut [u8; 512]) {
            let out = out.as_mut_ptr();
            let rows = rows.map(|row| row.as_ptr());
            self.store_nibbles(table, rows, [out, out.add(128), out.add(256), out.add(384)]);
            let rows = [rows[0].add(32), rows[1].add(32), rows[2].add(32), rows[3].add(32)];
            let out = out.add(32);
            self.store_nibbles(table, rows, [out, out.add(128), out.add(256), out.add(384)]);
        }
        fn half_nibbles(self, table: &[B; 4], rows: [[&[u8; 32]; 4]; 2], out: &mut [u8; 512]) {
            let out = out.as_mut_ptr();
            let rows = rows.map(|rows| rows.map(|row| row.as_ptr()));
            self.store_nibbles(table, rows[0], [out, out.add(32), out.add(128), out.add(160)]);
            let out = out.add(256);
            self.store_nibbles(table, rows[1], [out, out.add(32), out.add(128), out.add(160)]);
        }
        fn row_order(self) -> [B; 2] { [[_mm256_setzero_si256(); 2]; 2] }
        fn nibbles_of_rows(self, t: &[B; 4], _order: &[B; 2], rows: [&[u8; 16]; 4]) -> [B; 2] {
            let a = _mm_loadu_si128(rows[0].as_ptr().cast());
            let b = _mm_loadu_si128(rows[1].as_ptr().cast());
            let c = _mm_loadu_si128(rows[2].as_ptr().cast());
            let d = _mm_loadu_si128(rows[3].as_ptr().cast());
            let (ab, cd) = (_mm_unpacklo_epi8(a, b), _mm_unpacklo_epi8(c, d));
            let (high_ab, high_cd) = (_mm_unpackhi_epi8(a, b), _mm_unpackhi_epi8(c, d));
            let bytes = [
                _mm256_set_m128i(_mm_unpackhi_epi16(ab, cd), _mm_unpacklo_epi16(ab, cd)),
                _mm256_set_m128i(
                    _mm_unpackhi_epi16(high_ab, high_cd),
                    _mm_unpacklo_epi16(high_ab, high_cd),
                ),
            ];
            let [a, b] = [self.nibbles_of(t, bytes[0]), self.nibbles_of(t, bytes[1])];
            [[a[0], b[0]], [a[1], b[1]]]
        }
        fn permute(self, a: [__m256; 2], order: &[i32; 16]) -> [__m256; 2] {
            two!(i => {
                let places = _mm256_loadu_si256(order.as_ptr().add(8 * i).cast());
                // Bit 3 chooses between the registers.
                let upper = _mm256_castsi256_ps(_mm256_slli_epi32::<28>(places));
                _mm256_blendv_ps(
                    _mm256_permutevar8x32_ps(a[0], places),
                    _mm256_permutevar8x32_ps(a[1], places),
                    upper,
                )
            })
        }
        unsafe fn gather(self, p: *const f32, places: *const i32) -> [__m256; 2] {
            two!(i => _mm256_i32gather_ps::<4>(p, _mm256_loadu_si256(places.add(8 * i).cast())))
        }
        fn interleave(self, rows: [B; 4]) -> [B; 4] {
            let [a, b, c, d] = rows;
            let mut out = rows;
            for i in 0..2 {
                let words = self.interleaved([a[i], b[i], c[i], d[i]]);
                for j in 0..4 {
                    out[j][i] = words[j];
                }
            }
            out
        }
        fn numbers_of_word<const BITS: usize>(
            self,
            t: &[B; 4],
            at: usize,
            low: [__m256i; 2],
            (high, bit): ([__m256i; 2], usize),
        ) -> B {
            // The bytes of the high plane that belong to the four bytes of the word: one, or two.
            let place = (bit / 8) as i32 * 0x0101_0101 + if BITS == 5 { 0 } else { 0x0101_0000 };
            let words = _mm_setr_epi32(0, 0x0404_0404, 0x0808_0808, 0x0c0c_0c0c);
            let places = _mm_add_epi32(words, _mm_set1_epi32(place));
            let places = _mm256_broadcastsi128_si256(places);
            two!(i => {
                let part = _mm256_shuffle_epi8(high[i], places);
                self.numbers_of_bytes::<BITS>(t, at, low[i], part)
            })
        }
        unsafe fn numbers<const BITS: usize>(
            self,
            t: &[B; 4],
            (row, high_at): (*const u8, usize),
            first: usize,
            left: usize,
        ) -> B {
            let high = row.add(high_at);
            let low = match BITS {
                2 | 3 => self.twos(row.add(first / 4), left),
                _ => self.fours(row.add(first / 2), left),
            };
            let none = [_mm256_setzero_si256(); 2];
            let [odd, above] = match BITS {
                2 | 4 => [none, none],
                3 | 5 => [self.ones(high.add(first / 8), left), none],
                _ => {
                    let part = self.twos(high.add(first / 4), left);
                    let (one, two) = (_mm256_set1_epi8(1), _mm256_set1_epi8(2));
                    [
                        two!(i => self.are_set(part[i], one)),
                        two!(i => self.are_set(part[i], two)),
                    ]
                }
            };
            two!(i => self.found::<BITS>(t, low[i], [odd[i], above[i]]))
        }
    }
}
