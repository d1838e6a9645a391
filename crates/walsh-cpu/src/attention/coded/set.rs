//! What attention over codes asks of an instruction set beside [`Lanes`]: products of bytes, and bytes of codes.

use crate::lanes::Lanes;

/// Vectors of 64 bytes, and their products.
///
/// # Safety of the methods
/// As of those of [`Lanes`].
pub(super) trait ByteLanes: Lanes {
    /// Sixty-four bytes.
    type B: Copy;
    /// Sixteen sums of products.
    type Sums: Copy;

    /// The most query rows whose keys are multiplied as they are decoded.
    const FUSED_KEY_ROWS: usize;
    /// The most query rows whose values are.
    const FUSED_VALUE_ROWS: usize;

    unsafe fn load_b(p: *const u8) -> Self::B;
    /// Asks for 64 bytes that are read soon; any address will do.
    unsafe fn prefetch(p: *const u8);
    unsafe fn store_b(p: *mut u8, a: Self::B);
    /// Sums of no products.
    unsafe fn nothing() -> Self::Sums;
    /// Each sum with the products of its four unsigned bytes and four integers, whose two parts are at `first` and
    /// `second` as [`split`](ByteLanes::split) writes them.
    unsafe fn dot(sums: Self::Sums, a: Self::B, first: *const i8, second: *const i8) -> Self::Sums;
    /// The sums, wrapping, − less, as numbers.
    unsafe fn number_of(sums: Self::Sums, less: i32) -> Self::F;
    /// Rounds numbers below 2¹⁵ to integers and writes them in two parts of sixteen bytes, four of each for every four
    /// integers; returns the integers.
    unsafe fn split(a: Self::F, first: *mut i8, second: *mut i8) -> Self::I;
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
    /// The table's bytes for the codes of a word of sixteen rows whose numbers are each the `at`th of their byte of the
    /// low plane. The word of the high plane begins at its bit `bit`.
    unsafe fn numbers_of_word<const BITS: usize>(
        table: &[Self::B; 4],
        at: usize,
        low: Self::I,
        high: (Self::I, usize),
    ) -> Self::B;
    /// The table's bytes for the fours of bits of 16 bytes of four rows: word `i` of the first vector is of the lower
    /// fours of each row's byte `i`, of the second of the upper.
    unsafe fn nibbles_of_rows(
        table: &[Self::B; 4],
        order: &[Self::B; 2],
        rows: [*const u8; 4],
    ) -> [Self::B; 2];
    /// Writes the table's bytes for the fours of bits of 64 bytes of four rows: those of each vector that they
    /// [interleave](ByteLanes::interleave) to, the lower, then the upper.
    unsafe fn wide_nibbles(table: &[Self::B; 4], rows: [*const u8; 4], out: *mut u8);
    /// The same of 32 bytes of two times four rows: half vectors.
    unsafe fn half_nibbles(table: &[Self::B; 4], rows: [[*const u8; 4]; 2], out: *mut u8);
    /// What [`ByteLanes::nibbles_of_rows`] permutes by.
    unsafe fn row_order() -> [Self::B; 2];
    /// Puts lanes into an order.
    unsafe fn permute(a: Self::F, order: &[i32; 16]) -> Self::F;
    /// Numbers at some places.
    unsafe fn gather(p: *const f32, places: *const i32) -> Self::F;
    /// Words of the bytes of four vectors at one place. Word 4·l + k of vector j is of place 16·l + 4·j + k.
    unsafe fn interleave(rows: [Self::B; 4]) -> [Self::B; 4];
}

#[cfg(target_arch = "x86_64")]
pub(super) mod avx2;

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::*;

    use super::ByteLanes;
    use crate::lanes::{Avx512, operations};

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

    /// Bytes of a table of four parts by the bits of an index: the four lowest, the fifth and the sixth.
    #[inline(always)]
    unsafe fn among_four(
        t: &[__m512i; 4],
        low: __m512i,
        odd: __mmask64,
        upper: __mmask64,
    ) -> __m512i {
        // SAFETY: the caller's.
        unsafe {
            let below = _mm512_shuffle_epi8(t[0], low);
            let below = _mm512_mask_shuffle_epi8(below, odd, t[1], low);
            let above = _mm512_shuffle_epi8(t[2], low);
            let above = _mm512_mask_shuffle_epi8(above, odd, t[3], low);
            _mm512_mask_mov_epi8(below, upper, above)
        }
    }

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

    /// The table's bytes for the lower and the upper fours of bits of each byte.
    #[inline(always)]
    unsafe fn nibbles_of(table: &[__m512i; 4], bytes: __m512i) -> [__m512i; 2] {
        // SAFETY: the caller's.
        unsafe {
            let mask = _mm512_set1_epi8(15);
            let upper = _mm512_and_si512(_mm512_srli_epi16::<4>(bytes), mask);
            [
                _mm512_shuffle_epi8(table[0], _mm512_and_si512(bytes, mask)),
                _mm512_shuffle_epi8(table[0], upper),
            ]
        }
    }

    /// Writes the table's bytes for the fours of bits of four vectors.
    #[inline(always)]
    unsafe fn store_nibbles(table: &[__m512i; 4], codes: [__m512i; 4], out: *mut u8) {
        for (i, codes) in codes.into_iter().enumerate() {
            // SAFETY: the caller's.
            unsafe {
                let [even, odd] = nibbles_of(table, codes);
                Avx512::store_b(out.add(128 * i), even);
                Avx512::store_b(out.add(128 * i + 64), odd);
            }
        }
    }

    /// 32 bytes of two rows, one in each half.
    #[inline(always)]
    unsafe fn halves(low: *const u8, high: *const u8) -> __m512i {
        // SAFETY: the caller's.
        unsafe {
            let low = _mm512_castsi256_si512(_mm256_loadu_si256(low.cast()));
            _mm512_inserti64x4::<1>(low, _mm256_loadu_si256(high.cast()))
        }
    }

    /// The lower halves of two vectors, and the upper halves.
    #[inline(always)]
    unsafe fn regroup(a: __m512i, b: __m512i) -> [__m512i; 2] {
        // SAFETY: the caller's.
        unsafe {
            [
                _mm512_inserti64x4::<1>(a, _mm512_castsi512_si256(b)),
                _mm512_shuffle_i64x2::<0b11_10_11_10>(a, b),
            ]
        }
    }

    impl ByteLanes for Avx512 {
        type B = __m512i;
        /// Sums with the high bytes of integers, and with the low ones.
        type Sums = [__m512i; 2];

        // Their sums with two vectors of values take half of the registers.
        const FUSED_KEY_ROWS: usize = 4;
        const FUSED_VALUE_ROWS: usize = 4;

        operations! {
            fn load_b(p: *const u8) -> __m512i { _mm512_loadu_si512(p.cast()) }
            fn prefetch(p: *const u8) { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
            fn store_b(p: *mut u8, a: __m512i) { _mm512_storeu_si512(p.cast(), a) }
            fn nothing() -> [__m512i; 2] { [_mm512_setzero_si512(); 2] }
            fn dot(sums: [__m512i; 2], a: __m512i, first: *const i8, second: *const i8) -> [__m512i; 2] {
                let high = _mm512_set1_epi32(first.cast::<i32>().read_unaligned());
                let low = _mm512_set1_epi32(second.cast::<i32>().read_unaligned());
                [_mm512_dpbusd_epi32(sums[0], a, high), _mm512_dpbusd_epi32(sums[1], a, low)]
            }
            fn number_of(sums: [__m512i; 2], less: i32) -> __m512 {
                let both = _mm512_add_epi32(_mm512_slli_epi32::<8>(sums[0]), sums[1]);
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
            fn wide_nibbles(table: &[__m512i; 4], rows: [*const u8; 4], out: *mut u8) {
                let codes = [
                    Self::load_b(rows[0]),
                    Self::load_b(rows[1]),
                    Self::load_b(rows[2]),
                    Self::load_b(rows[3]),
                ];
                store_nibbles(table, Self::interleave(codes), out);
            }
            fn half_nibbles(table: &[__m512i; 4], rows: [[*const u8; 4]; 2], out: *mut u8) {
                let [first, second] = rows;
                let codes = [
                    halves(first[0], second[0]),
                    halves(first[1], second[1]),
                    halves(first[2], second[2]),
                    halves(first[3], second[3]),
                ];
                let [a, b, c, d] = Self::interleave(codes);
                let ([a, b], [c, d]) = (regroup(a, b), regroup(c, d));
                store_nibbles(table, [a, c, b, d], out);
            }
            fn row_order() -> [__m512i; 2] {
                let load = |at: &[u8; 64]| _mm512_loadu_si512(at.as_ptr().cast());
                // The compiler would build other permutations out of these, and more of them, if it knew them.
                let [words, each] = std::hint::black_box(&ROW_ORDER);
                [load(words), load(each)]
            }
            fn nibbles_of_rows(t: &[__m512i; 4], order: &[__m512i; 2], rows: [*const u8; 4]) -> [__m512i; 2] {
                let part = |i: usize| _mm_loadu_si128(rows[i].cast());
                let bytes = _mm512_castsi128_si512(part(0));
                let bytes = _mm512_mask_broadcast_i32x4(bytes, 0x00f0, part(1));
                let bytes = _mm512_mask_broadcast_i32x4(bytes, 0x0f00, part(2));
                let bytes = _mm512_mask_broadcast_i32x4(bytes, 0xf000, part(3));
                let [words, each] = *order;
                let bytes = _mm512_shuffle_epi8(_mm512_permutexvar_epi32(words, bytes), each);
                nibbles_of(t, bytes)
            }
            fn permute(a: __m512, order: &[i32; 16]) -> __m512 {
                _mm512_permutexvar_ps(_mm512_loadu_si512(order.as_ptr().cast()), a)
            }
            fn gather(p: *const f32, places: *const i32) -> __m512 {
                _mm512_i32gather_ps::<4>(_mm512_loadu_si512(places.cast()), p)
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
        unsafe fn numbers_of_word<const BITS: usize>(
            t: &[__m512i; 4],
            at: usize,
            low: __m512i,
            (high, bit): (__m512i, usize),
        ) -> __m512i {
            // SAFETY: the caller's.
            unsafe {
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
                        among_four(t, low, odd, upper)
                    }
                }
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
                        among_four(t, low, odd, upper)
                    }
                }
            }
        }
    }
}
