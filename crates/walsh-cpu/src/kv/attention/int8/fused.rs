//! Codes that are multiplied as soon as they are decoded.
//!
//! With few query rows decoding costs as much as the products. Done in turns, the two keep different units of a core busy,
//! and bytes never leave the registers. With many rows a tile is decoded once for all of them instead
//! ([`bytes`](crate::kv::codec::codebook::bytes)).

use super::kernels::{Dots, Integers, Sums, add_sums, scores_of};
use crate::kv::codec::codebook::bytes::{Codes, fetch};
use crate::kv::codec::codebook::planes::{CodeRows, Planes, Words};
use crate::kv::codec::numbers::RowsOf;
use crate::simd::{Bytes, LANES, byte_entries};

/// The numbers of a head that values are multiplied by at once: two vectors, of the lower fours of bits of 16 bytes and of
/// the upper.
const CHUNK: usize = 32;

/// Whether there is a kernel for values of so many bits.
pub(super) fn takes_values(bits: usize, head_dim: usize) -> bool {
    bits == 4 && head_dim.is_multiple_of(CHUNK)
}

/// Where in the sums over values each number of a head is.
pub(super) fn value_places(head_dim: usize) -> Vec<i32> {
    let place = |dim: usize| dim / CHUNK * CHUNK + dim % 2 * LANES + dim % CHUNK / 2;
    (0..head_dim).map(|dim| place(dim) as i32).collect()
}

byte_entries! {
    /// Writes the inner product of every query row, at most [so many](crate::simd::Simd::FUSED_ROWS), and every position;
    /// numbers of queries are in the order of [`key_order`](crate::kv::codec::codebook::bytes::key_order). Positions past
    /// the count repeat the last one.
    pub(super) fn scores(dots: &mut Dots<'_>, codes: Codes<'_>) = score_codes
}

#[inline(always)]
fn score_codes<S: Bytes>(s: S, dots: &mut Dots<'_>, codes: Codes<'_>) {
    match codes.book.bits {
        2 => score_codes_of::<S, 2>(s, dots, codes),
        3 => score_codes_of::<S, 3>(s, dots, codes),
        4 => score_codes_of::<S, 4>(s, dots, codes),
        5 => score_codes_of::<S, 5>(s, dots, codes),
        _ => score_codes_of::<S, 6>(s, dots, codes),
    }
}

#[inline(always)]
fn score_codes_of<S: Bytes, const BITS: usize>(s: S, dots: &mut Dots<'_>, codes: Codes<'_>) {
    match dots.rows {
        1 if S::FUSED_KEY_ROWS > 0 => score_panels::<S, BITS, 1>(s, dots, codes),
        2 if S::FUSED_KEY_ROWS > 1 => score_panels::<S, BITS, 2>(s, dots, codes),
        3 if S::FUSED_KEY_ROWS > 2 => score_panels::<S, BITS, 3>(s, dots, codes),
        4 if S::FUSED_KEY_ROWS > 3 => score_panels::<S, BITS, 4>(s, dots, codes),
        rows => unreachable!("{rows} rows of queries at once"),
    }
}

#[inline(always)]
fn score_panels<S: Bytes, const BITS: usize, const R: usize>(
    s: S,
    dots: &mut Dots<'_>,
    codes: Codes<'_>,
) {
    let (d, stride) = (dots.head_dim, dots.stride);
    assert_eq!(d, codes.head_dim, "queries of the keys' size");
    let panels = codes.rows.count().div_ceil(LANES);
    let queries = dots.queries[..2 * R * d].as_ptr();
    let terms: [Integers; R] = *dots
        .terms
        .first_chunk()
        .expect("what each query stands for");
    let out = dots.out[..(R - 1) * stride + panels * LANES].as_mut_ptr();
    let rows = CodeRows::<BITS>::new(codes.rows, d);
    let table = s.table(&codes.book.numbers);
    for first in (0..panels * LANES).step_by(LANES) {
        fetch(s, codes, first, LANES);
        let mut panel = Scores::<S, R> {
            simd: s,
            table,
            queries,
            head_dim: d,
            sums: [s.nothing(); R],
        };
        rows.each_word(s, first, &mut panel);
        for row in 0..R {
            // SAFETY: room for a panel's scores of each row, cut so long above.
            unsafe {
                let scores = scores_of(s, terms[row], panel.sums[row]);
                s.store(out.add(row * stride + first), scores);
            }
        }
    }
}

/// The sums of some query rows with sixteen positions.
struct Scores<S: Bytes, const R: usize> {
    simd: S,
    table: [S::B; 4],
    /// `[R][2][head_dim]`.
    queries: *const i8,
    head_dim: usize,
    sums: [S::Sums; R],
}

impl<S: Bytes, const BITS: usize, const R: usize> Words<S, BITS> for Scores<S, R> {
    #[inline(always)]
    unsafe fn word(&mut self, word: usize, low: S::I, high: (S::I, usize)) {
        let s = self.simd;
        let per_byte = 8 / Planes::of::<BITS>(0).low;
        for at in 0..per_byte {
            let keys = s.numbers_of_word::<BITS>(&self.table, at, low, high);
            for (row, sums) in self.sums.iter_mut().enumerate() {
                // SAFETY: the word is one of a head's codes, and each part of the `R` queries, which have been measured, has
                // four numbers for each four of them.
                let (first, second) = unsafe {
                    let query = self.queries.add(2 * row * self.head_dim);
                    let query = query.add(4 * (word * per_byte + at));
                    (&*query.cast(), &*query.add(self.head_dim).cast())
                };
                *sums = s.dot(*sums, keys, first, second);
            }
        }
    }
}

byte_entries! {
    /// `out = alpha · out + weights · values` for at most [so many](crate::simd::Simd::FUSED_ROWS) rows and [values that
    /// there is a kernel for](takes_values), numbers at the places of [`value_places`]. Positions past the count repeat the
    /// last one.
    pub(super) fn values(sums: &mut Sums<'_>, codes: Codes<'_>) = add_codes
}

#[inline(always)]
fn add_codes<S: Bytes>(s: S, sums: &mut Sums<'_>, codes: Codes<'_>) {
    match sums.rows {
        1 => add_chunks::<S, 1>(s, sums, codes),
        2 => add_chunks::<S, 2>(s, sums, codes),
        3 if S::FUSED_VALUE_ROWS > 2 => add_chunks::<S, 3>(s, sums, codes),
        4 if S::FUSED_VALUE_ROWS > 3 => add_chunks::<S, 4>(s, sums, codes),
        rows => unreachable!("{rows} rows of weights at once"),
    }
}

#[inline(always)]
fn add_chunks<S: Bytes, const R: usize>(s: S, args: &mut Sums<'_>, codes: Codes<'_>) {
    // The first passes over the rows, and fetches the next.
    add_chunk::<S, R, true>(s, args, codes, 0);
    for chunk in 1..codes.head_dim / CHUNK {
        add_chunk::<S, R, false>(s, args, codes, chunk);
    }
}

#[inline(always)]
fn add_chunk<S: Bytes, const R: usize, const FIRST: bool>(
    s: S,
    args: &mut Sums<'_>,
    codes: Codes<'_>,
    number: usize,
) {
    let (quads, rest) = (codes.rows.count() / 4, codes.rows.count() % 4);
    assert!(
        quads + rest.min(1) <= args.quads,
        "weights for all positions"
    );
    let mut chunk = Chunk::<S, R> {
        simd: s,
        number,
        rows: codes.rows.of(number + 1),
        weights: args.fours::<R>(0),
        table: s.table(&codes.book.numbers),
        order: s.row_order(),
        sums: [[s.nothing(); 2]; R],
    };
    // SAFETY: fours of positions below the count, for which there are weights.
    unsafe {
        for quad in 0..quads {
            if FIRST {
                fetch(s, codes, 4 * quad, 4);
            }
            chunk.add_quad(quad, 3);
        }
        if rest > 0 {
            chunk.add_quad(quads, rest - 1);
        }
    }
    for (row, sums) in chunk.sums.into_iter().enumerate() {
        for (half, sums) in sums.into_iter().enumerate() {
            add_sums(s, args, row, number * CHUNK / LANES + half, sums);
        }
    }
}

/// The sums of some rows of weights with a chunk of the values. (A closure is not always inlined, and is then compiled
/// without the instruction set.)
struct Chunk<'a, S: Bytes, const R: usize> {
    simd: S,
    /// Which of the chunks of a head.
    number: usize,
    rows: RowsOf<'a, [u8; CHUNK / 2]>,
    /// As [`Sums::fours`] gives them.
    weights: (&'a [[i8; 4]], usize),
    table: [S::B; 4],
    order: [S::B; 2],
    sums: [[S::Sums; 2]; R],
}

impl<S: Bytes, const R: usize> Chunk<'_, S, R> {
    /// Adds four positions; those past the `last` of them repeat it.
    ///
    /// # Safety
    /// The rows have the last of the positions, and there are weights for the four.
    #[inline(always)]
    unsafe fn add_quad(&mut self, quad: usize, last: usize) {
        let (s, rows, number) = (self.simd, self.rows, self.number);
        let (weights, part) = self.weights;
        // SAFETY: positions up to the last one, of which each has this chunk; weights of `R` rows of two parts.
        unsafe {
            let four = [
                rows.get(4 * quad, number),
                rows.get(4 * quad + last.min(1), number),
                rows.get(4 * quad + last.min(2), number),
                rows.get(4 * quad + last, number),
            ];
            let values = s.nibbles_of_rows(&self.table, &self.order, four);
            for (row, sums) in self.sums.iter_mut().enumerate() {
                let first = weights.get_unchecked(2 * row * part + quad);
                let second = weights.get_unchecked((2 * row + 1) * part + quad);
                for (sums, values) in sums.iter_mut().zip(values) {
                    *sums = s.dot(*sums, values, first, second);
                }
            }
        }
    }
}
