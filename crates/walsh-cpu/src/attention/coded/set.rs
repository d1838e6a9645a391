//! What attention over codes asks of an instruction set beside [`Lanes`]: products of bytes, and bytes of codes.

use crate::lanes::Lanes;

/// Vectors of 64 bytes, and their products.
///
/// # Safety of the methods
/// As of those of [`Lanes`].
pub(super) trait ByteLanes: Lanes {
    /// Sixty-four bytes.
    type B: Copy;

    unsafe fn load_b(p: *const u8) -> Self::B;
    /// Asks for 64 bytes that are read soon; any address will do.
    unsafe fn prefetch(p: *const u8);
    unsafe fn store_b(p: *mut u8, a: Self::B);
    /// Each lane of `sums` with the products of its four unsigned bytes and the four signed ones at `p`.
    unsafe fn dot(sums: Self::I, a: Self::B, p: *const i8) -> Self::I;
    /// high · 256 + low − less, wrapping, as a number.
    unsafe fn join(high: Self::I, low: Self::I, less: i32) -> Self::F;
    /// Rounds numbers below 2¹⁵ and writes high · 256 + low as signed bytes; returns them.
    unsafe fn split(a: Self::F, high: *mut i8, low: *mut i8) -> Self::I;
    unsafe fn reduce_add_i(a: Self::I) -> i32;
    /// A table of 64 bytes, sixteen of them in each part.
    unsafe fn table(numbers: &[u8; 64]) -> [Self::B; 4];
    /// The table's bytes for up to 64 codes of a row from its number `first` on, `left` of which exist; the others are
    /// some byte of the table. `planes` are the row, and where its second plane lies.
    unsafe fn numbers<const BITS: usize>(
        table: &[Self::B; 4],
        planes: (*const u8, usize),
        first: usize,
        left: usize,
    ) -> Self::B;
    /// Words of 32 bits of sixteen vectors, word by word.
    unsafe fn words(rows: &mut [Self::B; 16]);
    /// Words of the bytes of four vectors at one place. Word 4·l + k of vector j is of place 16·l + 4·j + k.
    unsafe fn interleave(rows: [Self::B; 4]) -> [Self::B; 4];
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::*;

    use super::ByteLanes;
    use crate::lanes::{Avx512, Lanes, operations};

    /// Numbers of four bits of 32 bytes, one a byte.
    #[inline(always)]
    unsafe fn fours(p: *const u8, left: usize) -> __m512i {
        // SAFETY: the caller's: the row has `left` numbers here.
        unsafe {
            let packed = if left >= 64 {
                _mm256_loadu_si256(p.cast())
            } else {
                _mm256_maskz_loadu_epi8((1u32 << (left / 2)) - 1, p.cast())
            };
            let words = _mm512_cvtepu8_epi16(packed);
            let both = _mm512_or_si512(words, _mm512_slli_epi16::<4>(words));
            _mm512_and_si512(both, _mm512_set1_epi8(15))
        }
    }

    /// Numbers of two bits of sixteen bytes, one a byte.
    #[inline(always)]
    unsafe fn twos(p: *const u8, left: usize) -> __m512i {
        // SAFETY: as above.
        unsafe {
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
    }

    /// Bits, one a byte.
    #[inline(always)]
    unsafe fn ones(p: *const u8, left: usize) -> __mmask64 {
        // SAFETY: as above.
        unsafe {
            if left >= 64 {
                return p.cast::<u64>().read_unaligned();
            }
            let mut bytes = [0u8; 8];
            p.copy_to_nonoverlapping(bytes.as_mut_ptr(), left / 8);
            u64::from_le_bytes(bytes)
        }
    }

    impl ByteLanes for Avx512 {
        type B = __m512i;

        operations! {
            fn load_b(p: *const u8) -> __m512i { _mm512_loadu_si512(p.cast()) }
            fn prefetch(p: *const u8) { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
            fn store_b(p: *mut u8, a: __m512i) { _mm512_storeu_si512(p.cast(), a) }
            fn dot(sums: __m512i, a: __m512i, p: *const i8) -> __m512i {
                _mm512_dpbusd_epi32(sums, a, _mm512_set1_epi32(p.cast::<i32>().read_unaligned()))
            }
            fn join(high: __m512i, low: __m512i, less: i32) -> __m512 {
                let both = _mm512_add_epi32(_mm512_slli_epi32::<8>(high), low);
                _mm512_cvtepi32_ps(_mm512_sub_epi32(both, _mm512_set1_epi32(less)))
            }
            fn split(a: __m512, high: *mut i8, low: *mut i8) -> __m512i {
                let whole = _mm512_cvtps_epi32(a);
                let above = _mm512_srai_epi32::<8>(_mm512_add_epi32(whole, _mm512_set1_epi32(128)));
                _mm_storeu_si128(high.cast(), _mm512_cvtepi32_epi8(above));
                _mm_storeu_si128(low.cast(), _mm512_cvtepi32_epi8(whole));
                whole
            }
            fn reduce_add_i(a: __m512i) -> i32 { _mm512_reduce_add_epi32(a) }
            fn table(numbers: &[u8; 64]) -> [__m512i; 4] {
                let mut parts = [_mm512_setzero_si512(); 4];
                for (i, part) in parts.iter_mut().enumerate() {
                    *part = _mm512_broadcast_i32x4(_mm_loadu_si128(numbers.as_ptr().add(16 * i).cast()));
                }
                parts
            }
            fn words(rows: &mut [__m512i; 16]) {
                // No closures: they would be compiled without the set's features.
                let mut singles = [_mm512_setzero_ps(); 16];
                for i in 0..16 {
                    singles[i] = _mm512_castsi512_ps(rows[i]);
                }
                Self::transpose(&mut singles);
                for i in 0..16 {
                    rows[i] = _mm512_castps_si512(singles[i]);
                }
            }
            fn interleave(rows: [__m512i; 4]) -> [__m512i; 4] {
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
        }

        #[inline(always)]
        unsafe fn numbers<const BITS: usize>(
            t: &[__m512i; 4],
            (row, high_at): (*const u8, usize),
            first: usize,
            left: usize,
        ) -> __m512i {
            // SAFETY: the caller's.
            unsafe {
                let high = row.add(high_at);
                match BITS {
                    2 => _mm512_shuffle_epi8(t[0], twos(row.add(first / 4), left)),
                    3 => {
                        let low = twos(row.add(first / 4), left);
                        let upper = ones(high.add(first / 8), left);
                        let index = _mm512_mask_add_epi8(low, upper, low, _mm512_set1_epi8(4));
                        _mm512_shuffle_epi8(t[0], index)
                    }
                    4 => _mm512_shuffle_epi8(t[0], fours(row.add(first / 2), left)),
                    5 => {
                        let low = fours(row.add(first / 2), left);
                        let upper = ones(high.add(first / 8), left);
                        let found = _mm512_shuffle_epi8(t[0], low);
                        _mm512_mask_shuffle_epi8(found, upper, t[1], low)
                    }
                    _ => {
                        let low = fours(row.add(first / 2), left);
                        let part = twos(high.add(first / 4), left);
                        let odd = _mm512_test_epi8_mask(part, _mm512_set1_epi8(1));
                        let upper = _mm512_test_epi8_mask(part, _mm512_set1_epi8(2));
                        let below = _mm512_shuffle_epi8(t[0], low);
                        let below = _mm512_mask_shuffle_epi8(below, odd, t[1], low);
                        let above = _mm512_shuffle_epi8(t[2], low);
                        let above = _mm512_mask_shuffle_epi8(above, odd, t[3], low);
                        _mm512_mask_mov_epi8(below, upper, above)
                    }
                }
            }
        }
    }
}
