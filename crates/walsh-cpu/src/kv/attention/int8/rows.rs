//! Scores of few query rows on AVX2, position by position.
//!
//! Words of sixteen positions side by side ([`fused`](super::fused)) need their sums, the words and each integer of a
//! query in all lanes: more than sixteen registers. Here the lanes are numbers of one position, queries are read as they
//! lie, and the lanes of eight positions' sums are added at the end.

use std::arch::x86_64::*;
use std::mem::MaybeUninit;

use super::kernels::Dots;
use crate::kv::codec::codebook::bytes::{Codes, fetch};
use crate::kv::codec::codebook::planes::Planes;
use crate::simd::{Avx2, Bytes, LANES, Token, compiled_for, operations};

/// The most query rows: their sums leave room for what is decoded.
const ROWS: usize = 4;

/// Positions whose sums are added up together.
const GROUP: usize = 8;

/// Numbers of 32 bytes of the low plane.
const fn block(bits: usize) -> usize {
    if bits < 4 { 128 } else { 64 }
}

/// The set's token, if it has a kernel for so many query rows and such keys.
pub(super) fn takes(set: Token, rows: usize, bits: usize, head_dim: usize) -> Option<Avx2> {
    match set {
        Token::Avx2(s) if rows <= ROWS && head_dim.is_multiple_of(block(bits)) => Some(s),
        _ => None,
    }
}

impl Avx2 {
    operations! {
        /// The words of two vectors at even places, and those at odd places.
        fn every_second(self, a: __m256i, b: __m256i) -> [__m256i; 2] {
            let (a, b) = (_mm256_castsi256_ps(a), _mm256_castsi256_ps(b));
            let even = _mm256_castps_si256(_mm256_shuffle_ps::<0x88>(a, b));
            let odd = _mm256_castps_si256(_mm256_shuffle_ps::<0xdd>(a, b));
            [
                _mm256_permute4x64_epi64::<0xd8>(even),
                _mm256_permute4x64_epi64::<0xd8>(odd),
            ]
        }

        /// The bytes of the high plane that belong to 32 bytes of the low plane, each where that byte is.
        ///
        /// # Safety
        /// They may be read.
        unsafe fn high_bytes<const BITS: usize>(self, p: *const u8) -> __m256i {
            match BITS {
                2 | 4 => _mm256_setzero_si256(),
                5 => {
                    let places = _mm256_setr_epi32(
                        0,
                        0x0101_0101,
                        0x0202_0202,
                        0x0303_0303,
                        0x0404_0404,
                        0x0505_0505,
                        0x0606_0606,
                        0x0707_0707,
                    );
                    let eight = _mm256_set1_epi64x(p.cast::<i64>().read_unaligned());
                    _mm256_shuffle_epi8(eight, places)
                }
                _ => {
                    let sixteen = _mm256_broadcastsi128_si256(_mm_loadu_si128(p.cast()));
                    let places = _mm256_setr_epi64x(
                        0x0303_0202_0101_0000,
                        0x0707_0606_0505_0404,
                        0x0b0b_0a0a_0909_0808,
                        0x0f0f_0e0e_0d0d_0c0c,
                    );
                    _mm256_shuffle_epi8(sixteen, places)
                }
            }
        }

        /// The sum of the lanes of each of eight vectors.
        ///
        /// # Safety
        /// There are eight vectors.
        unsafe fn totals(self, sums: *const __m256i) -> __m256i {
            let pairs = [
                _mm256_hadd_epi32(sums.read(), sums.add(1).read()),
                _mm256_hadd_epi32(sums.add(2).read(), sums.add(3).read()),
                _mm256_hadd_epi32(sums.add(4).read(), sums.add(5).read()),
                _mm256_hadd_epi32(sums.add(6).read(), sums.add(7).read()),
            ];
            let low = _mm256_hadd_epi32(pairs[0], pairs[1]);
            let high = _mm256_hadd_epi32(pairs[2], pairs[3]);
            _mm256_add_epi32(
                _mm256_permute2x128_si256::<0x20>(low, high),
                _mm256_permute2x128_si256::<0x31>(low, high),
            )
        }
    }
}

/// As [`fused::scores`](super::fused::scores), of what [there is a kernel for](takes).
pub(super) fn scores(s: Avx2, dots: &mut Dots<'_>, codes: Codes<'_>) {
    // SAFETY: the token exists only where the set does.
    unsafe { compiled(s, dots, codes) }
}

compiled_for! {
    Avx2:
    fn compiled(s: Avx2, dots: &mut Dots<'_>, codes: Codes<'_>) {
        match codes.book.bits {
            2 => scores_of::<2>(s, dots, codes),
            3 => scores_of::<3>(s, dots, codes),
            4 => scores_of::<4>(s, dots, codes),
            5 => scores_of::<5>(s, dots, codes),
            _ => scores_of::<6>(s, dots, codes),
        }
    }
}

#[inline(always)]
fn scores_of<const BITS: usize>(s: Avx2, dots: &mut Dots<'_>, codes: Codes<'_>) {
    match dots.rows {
        1 => score_groups::<BITS, 1>(s, dots, codes),
        2 => score_groups::<BITS, 2>(s, dots, codes),
        3 => score_groups::<BITS, 3>(s, dots, codes),
        ROWS => score_groups::<BITS, ROWS>(s, dots, codes),
        rows => unreachable!("{rows} rows of queries at once"),
    }
}

/// Room for the integers of queries, vectors of sixteen.
type Queries = [MaybeUninit<__m256i>; 2 * ROWS * MAX_HEAD / 32];

/// The largest head.
const MAX_HEAD: usize = 512;

/// Copies the integers of `R` queries in the order in which [`row_sums`] reads them: for each 32 bytes of the low plane
/// and each place of a number in a byte, those of the bytes at even places and at odd places for each query.
#[inline(always)]
fn arrange<const BITS: usize, const R: usize>(s: Avx2, dots: &Dots<'_>, out: &mut Queries) {
    let (d, size) = (dots.head_dim, block(BITS));
    let places = size / 32;
    assert!(d <= MAX_HEAD && R <= ROWS);
    let queries = dots.queries[..2 * R * d].as_ptr();
    let out: *mut __m256i = out.as_mut_ptr().cast();
    for at in 0..d / size {
        for part in 0..2 * R {
            // SAFETY: whole blocks of so many parts of queries, and a copy as long as they are.
            unsafe {
                let p: *const __m256i = queries.add(part * d + at * size).cast();
                let out = out.add(at * places * 2 * R + part);
                let [a, b] = s.every_second(p.read_unaligned(), p.add(1).read_unaligned());
                if places == 2 {
                    out.write(a);
                    out.add(2 * R).write(b);
                } else {
                    let [c, e] =
                        s.every_second(p.add(2).read_unaligned(), p.add(3).read_unaligned());
                    let ([first, third], [second, fourth]) =
                        (s.every_second(a, c), s.every_second(b, e));
                    out.write(first);
                    out.add(2 * R).write(second);
                    out.add(4 * R).write(third);
                    out.add(6 * R).write(fourth);
                }
            }
        }
    }
}

#[inline(always)]
fn score_groups<const BITS: usize, const R: usize>(s: Avx2, dots: &mut Dots<'_>, codes: Codes<'_>) {
    let (count, d) = (codes.rows.count(), dots.head_dim);
    let table = s.table(&codes.book.numbers);
    let rows = codes.rows.of::<u8>(d * BITS / 8);
    let mut queries: Queries = [MaybeUninit::uninit(); 2 * ROWS * MAX_HEAD / 32];
    arrange::<BITS, R>(s, dots, &mut queries);
    // All of them are written for each group; nothing clears them before.
    let mut sums = [[MaybeUninit::uninit(); GROUP]; R];
    for first in (0..count).step_by(GROUP) {
        fetch(s, codes, first, GROUP);
        for i in 0..GROUP {
            // SAFETY: a row has the codes of `d` numbers, as measured, and the queries of so many are arranged.
            let of_rows = unsafe {
                let row = rows.row_or_last(first + i).as_ptr();
                row_sums::<BITS, R>(s, &table, queries.as_ptr().cast(), row, d)
            };
            for r in 0..R {
                sums[r][i].write(of_rows[r]);
            }
        }
        for r in 0..R {
            let terms = dots.terms[r];
            let out: &mut [f32; GROUP] = dots.out[r * dots.stride + first..]
                .first_chunk_mut()
                .expect("room for whole vectors");
            // SAFETY: eight sums have been written, and there is room for as many scores; the token has the set.
            unsafe {
                let sum = _mm256_sub_epi32(
                    s.totals(sums[r].as_ptr().cast()),
                    _mm256_set1_epi32(terms.excess),
                );
                let scores = _mm256_mul_ps(_mm256_cvtepi32_ps(sum), _mm256_set1_ps(terms.factor));
                _mm256_storeu_ps(out.as_mut_ptr(), scores);
            }
        }
    }
    if count.div_ceil(GROUP) % 2 == 1 {
        let end = count.next_multiple_of(LANES);
        for r in 0..R {
            let at = r * dots.stride + end;
            dots.out[at - GROUP..at].fill(0.0);
        }
    }
}

/// Eight sums of the products of each query, [in order](arrange), and a row of `d` codes, to be added.
///
/// # Safety
/// The row has as many codes, in whole blocks, and `R` queries as many numbers.
#[inline(always)]
unsafe fn row_sums<const BITS: usize, const R: usize>(
    s: Avx2,
    table: &[<Avx2 as Bytes>::B; 4],
    queries: *const __m256i,
    row: *const u8,
    d: usize,
) -> [__m256i; R] {
    let (planes, size) = (Planes::of::<BITS>(d), block(BITS));
    let places = 8 / planes.low;
    // SAFETY: the token has the set; whole blocks of the row's codes and of the queries, of which both have `d / size`.
    unsafe {
        let mut sums = [_mm256_setzero_si256(); R];
        let even_bytes = _mm256_set1_epi16(255);
        for at in 0..d / size {
            let low = _mm256_loadu_si256(row.add(32 * at).cast());
            let high = row.add(planes.high_at + at * size * (BITS - planes.low) / 8);
            let high = s.high_bytes::<BITS>(high);
            let queries = queries.add(at * places * 2 * R);
            for place in 0..places {
                let numbers = s.numbers_of_bytes::<BITS>(table, place, low, high);
                let even = _mm256_and_si256(numbers, even_bytes);
                let odd = _mm256_srli_epi16::<8>(numbers);
                for r in 0..R {
                    let query = queries.add(2 * (place * R + r));
                    let first = _mm256_madd_epi16(even, query.read());
                    let second = _mm256_madd_epi16(odd, query.add(1).read());
                    sums[r] = _mm256_add_epi32(sums[r], _mm256_add_epi32(first, second));
                }
            }
        }
        sums
    }
}
