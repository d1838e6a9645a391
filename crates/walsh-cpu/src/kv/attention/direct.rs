//! Few query rows against rows as they are stored: numbers go from the cache to registers and nowhere else.
//!
//! Decoding a tile to scratch pays where many rows read it again. A decode has the few query heads of one KV head: each
//! vector of numbers is made once and multiplied by all of them while it is in a register. Scores then come out as sums
//! across lanes, sixteen at a time.

use std::mem::MaybeUninit;

use crate::kv::codec::numbers::{Numbers, Reader, Rows, pair_scales};
use crate::kv::codec::{self, Decoder};
use crate::simd::{LANES, Simd, entries};
use crate::team::fetch;

/// The most query rows that are served so.
const MOST_ROWS: usize = 8;

/// The most blocks of a row.
const MOST_BLOCKS: usize = 512 / 32;

/// Whether so many query rows read a codec's rows directly.
pub(super) fn serves(decoder: &Decoder, rows: usize) -> bool {
    decoder.is_read() && rows <= MOST_ROWS
}

/// Asks for so many rows from one on, if that exists.
#[inline(always)]
fn fetch_rows(rows: Rows<'_>, first: usize, count: usize) {
    if first >= rows.count() {
        return;
    }
    let mut line = rows.address(rows.distance(first));
    for _ in 0..rows.distance(count).div_ceil(64) {
        fetch(line);
        line = line.wrapping_add(64);
    }
}

/// Query rows against rows of keys.
pub(super) struct Scores<'a> {
    pub(super) decoder: &'a Decoder,
    pub(super) keys: Rows<'a>,
    /// Those of the tile behind this one.
    pub(super) ahead: Rows<'a>,
    /// `[rows][head_dim]`.
    pub(super) queries: &'a [f32],
    /// `[rows][stride]`: the scores, in whole vectors. Those past the keys are of no use.
    pub(super) out: &'a mut [f32],
    pub(super) stride: usize,
    pub(super) rows: usize,
}

entries! {
    /// Writes the inner product of every query row and every key of a codec that is [served](serves), without the scales of
    /// codecs that have one per row.
    pub(super) fn scores(args: Scores<'_>) = score_rows
}

/// See [`scores`].
#[inline(always)]
fn score_rows<S: Simd>(s: S, args: Scores<'_>) {
    codec::read(s, args.decoder, args);
}

impl<S: Simd> Reader<S> for Scores<'_> {
    #[inline(always)]
    fn read<N: Numbers<S>>(self, s: S, numbers: N) {
        score_all::<S, N>(s, numbers, self);
    }
}

#[inline(always)]
fn score_all<S: Simd, N: Numbers<S>>(s: S, numbers: N, mut args: Scores<'_>) {
    let args = &mut args;
    for first in (0..args.keys.count()).step_by(LANES) {
        let mut row = 0;
        while row < args.rows {
            let rows = (args.rows - row).min(4);
            match (rows, S::WIDE) {
                (1, true) => score_block::<S, N, 1, 8>(s, numbers, args, row, first),
                (2, true) => score_block::<S, N, 2, 4>(s, numbers, args, row, first),
                (3, true) => score_block::<S, N, 3, 4>(s, numbers, args, row, first),
                (_, true) => score_block::<S, N, 4, 4>(s, numbers, args, row, first),
                (1, false) => score_block::<S, N, 1, 4>(s, numbers, args, row, first),
                (2, false) => score_block::<S, N, 2, 2>(s, numbers, args, row, first),
                (3, false) => score_block::<S, N, 3, 2>(s, numbers, args, row, first),
                (_, false) => score_block::<S, N, 4, 1>(s, numbers, args, row, first),
            }
            row += rows;
        }
    }
}

/// `R` query rows against sixteen keys, `P` of them at a time. Keys past the last one are the last one again.
#[inline(always)]
fn score_block<S: Simd, N: Numbers<S>, const R: usize, const P: usize>(
    s: S,
    numbers: N,
    args: &mut Scores<'_>,
    row: usize,
    first: usize,
) {
    let d = args.decoder.codec.head_dim();
    let (pairs, half) = (d / 32, !d.is_multiple_of(32));
    let queries = args.queries[row * d..(row + R) * d].as_ptr();
    let (keys, last) = (args.keys.of::<N::Pair>(pairs), args.keys.count() - 1);
    let mut products = [[MaybeUninit::<S::F>::uninit(); LANES]; R];
    // Scales of pairs are made into numbers for all keys at once.
    let mut scales = [[MaybeUninit::<f32>::uninit(); LANES]; MOST_BLOCKS];
    if N::SCALED {
        for (pair, scales) in scales[..pairs].iter_mut().enumerate() {
            // SAFETY: room for sixteen numbers.
            unsafe {
                s.store(
                    scales.as_mut_ptr().cast(),
                    pair_scales(s, keys, (first, pair)),
                )
            };
        }
    }
    for group in (0..LANES).step_by(P) {
        let mut at = [0; P];
        for (p, at) in at.iter_mut().enumerate() {
            *at = (first + group + p).min(last);
        }
        if row == 0 {
            fetch_rows(args.ahead, first + group, P);
        }
        let mut sums = [[s.splat(0.0); P]; R];
        for pair in 0..pairs {
            let mut q = [[s.splat(0.0); 2]; R];
            for r in 0..R {
                // SAFETY: `R` queries of `d` numbers, of which this pair is one.
                q[r] = unsafe {
                    let query = queries.add(r * d + 32 * pair);
                    [s.load(query), s.load(query.add(LANES))]
                };
            }
            for p in 0..P {
                // SAFETY: one of the rows, each of so many pairs.
                let mut key = numbers.unscaled(s, unsafe { keys.get(at[p], pair) });
                if N::SCALED {
                    // SAFETY: those of all pairs have been written.
                    let scale = unsafe { scales.get_unchecked(pair)[group + p].assume_init() };
                    let scale = s.splat(scale);
                    key = [s.mul(key[0], scale), s.mul(key[1], scale)];
                }
                let [a, b] = key;
                for r in 0..R {
                    sums[r][p] = s.fma(q[r][1], b, s.fma(q[r][0], a, sums[r][p]));
                }
            }
        }
        if half {
            let last = d / LANES - 1;
            let keys = args.keys.of::<N::Half>(d / LANES);
            for p in 0..P {
                let key = numbers.half(s, &keys.row_or_last(first + group + p)[last]);
                for r in 0..R {
                    // SAFETY: the last vector of one of `R` queries of `d` numbers.
                    let q = unsafe { s.load(queries.add(r * d + LANES * last)) };
                    sums[r][p] = s.fma(q, key, sums[r][p]);
                }
            }
        }
        for r in 0..R {
            for p in 0..P {
                products[r][group + p].write(sums[r][p]);
            }
        }
    }
    for r in 0..R {
        // SAFETY: groups of `P` have written all sixteen.
        let products = unsafe { &*products[r].as_ptr().cast::<[S::F; LANES]>() };
        let out = args.out[(row + r) * args.stride + first..].first_chunk_mut();
        s.write(out.expect("whole vectors"), s.sums(products));
    }
}

/// Weights against rows of values.
pub(super) struct Values<'a> {
    pub(super) decoder: &'a Decoder,
    pub(super) values: Rows<'a>,
    /// Those of the tile behind this one.
    pub(super) ahead: Rows<'a>,
    /// `[rows][stride]`, whole vectors.
    pub(super) weights: &'a [f32],
    pub(super) stride: usize,
    /// What each row of `out` is multiplied by before.
    pub(super) alphas: &'a [f32],
    /// `[rows][head_dim]`.
    pub(super) out: &'a mut [f32],
    pub(super) rows: usize,
}

entries! {
    /// `out = alpha · out + weights · values`, of a codec that is [served](serves).
    pub(super) fn values(args: Values<'_>) = value_rows
}

/// See [`values`].
#[inline(always)]
fn value_rows<S: Simd>(s: S, args: Values<'_>) {
    codec::read(s, args.decoder, args);
}

impl<S: Simd> Reader<S> for Values<'_> {
    #[inline(always)]
    fn read<N: Numbers<S>>(self, s: S, numbers: N) {
        sum_all::<S, N>(s, numbers, self);
    }
}

#[inline(always)]
fn sum_all<S: Simd, N: Numbers<S>>(s: S, numbers: N, mut args: Values<'_>) {
    let args = &mut args;
    let d = args.decoder.codec.head_dim();
    let mut row = 0;
    while row < args.rows {
        let rows = (args.rows - row).min(4);
        let mut at = 0;
        while at < d {
            at += match (rows, (d - at) / 32, S::WIDE) {
                (1, 4.., true) => sum_pairs::<S, N, 1, 4>(s, numbers, args, row, at),
                (2, 4.., true) => sum_pairs::<S, N, 2, 4>(s, numbers, args, row, at),
                (3, 4.., true) => sum_pairs::<S, N, 3, 4>(s, numbers, args, row, at),
                (1, 2.., true) => sum_pairs::<S, N, 1, 2>(s, numbers, args, row, at),
                (2, 2.., true) => sum_pairs::<S, N, 2, 2>(s, numbers, args, row, at),
                (3, 2.., true) => sum_pairs::<S, N, 3, 2>(s, numbers, args, row, at),
                (_, 2.., true) => sum_pairs::<S, N, 4, 2>(s, numbers, args, row, at),
                (1, 1.., _) => sum_pairs::<S, N, 1, 1>(s, numbers, args, row, at),
                (2, 1.., _) => sum_pairs::<S, N, 2, 1>(s, numbers, args, row, at),
                (3, 1.., _) => sum_pairs::<S, N, 3, 1>(s, numbers, args, row, at),
                (_, 1.., _) => sum_pairs::<S, N, 4, 1>(s, numbers, args, row, at),
                _ => sum_chunk::<S, N>(s, numbers, args, row..row + rows, at),
            };
        }
        row += rows;
    }
}

/// `R` rows of sums over `C` pairs of vectors from the number `at` on; returns how many numbers that is.
#[inline(always)]
fn sum_pairs<S: Simd, N: Numbers<S>, const R: usize, const C: usize>(
    s: S,
    numbers: N,
    args: &mut Values<'_>,
    row: usize,
    at: usize,
) -> usize {
    let (d, stride) = (args.decoder.codec.head_dim(), args.stride);
    let (count, pair) = (args.values.count(), at / 32);
    let values = args.values.of::<N::Pair>(pair + C);
    let weights =
        args.weights[row * stride..][..(R - 1) * stride + count.next_multiple_of(LANES)].as_ptr();
    let out = args.out[row * d + at..][..(R - 1) * d + 32 * C].as_mut_ptr();
    let alphas = &args.alphas[row..row + R];
    // SAFETY: `C` pairs of each of `R` rows of the output and of each position's values, and as many rows of weights in
    // whole vectors: each cut so long above.
    unsafe {
        let mut sums = [[[s.splat(0.0); 2]; C]; R];
        for r in 0..R {
            let alpha = s.splat(alphas[r]);
            for c in 0..C {
                for half in 0..2 {
                    let out = out.add(r * d + 32 * c + LANES * half);
                    sums[r][c][half] = s.mul(alpha, s.load(out));
                }
            }
        }
        for first in (0..count).step_by(LANES) {
            // A pair's scale goes into the weights: there are fewer of them than of its numbers.
            let mut scaled = [[[MaybeUninit::<f32>::uninit(); LANES]; C]; R];
            if N::SCALED {
                for c in 0..C {
                    let scales = pair_scales(s, values, (first, pair + c));
                    for r in 0..R {
                        let weights = s.load(weights.add(r * stride + first));
                        s.store(scaled[r][c].as_mut_ptr().cast(), s.mul(weights, scales));
                    }
                }
            }
            for t in 0..LANES.min(count - first) {
                if row == 0 && at == 0 {
                    fetch_rows(args.ahead, first + t, 1);
                }
                for c in 0..C {
                    let [a, b] = numbers.unscaled(s, values.get(first + t, pair + c));
                    for r in 0..R {
                        let w = s.splat(if N::SCALED {
                            scaled[r][c][t].assume_init()
                        } else {
                            *weights.add(r * stride + first + t)
                        });
                        sums[r][c] = [s.fma(w, a, sums[r][c][0]), s.fma(w, b, sums[r][c][1])];
                    }
                }
            }
        }
        for r in 0..R {
            for c in 0..C {
                for half in 0..2 {
                    let out = out.add(r * d + 32 * c + LANES * half);
                    s.store(out, sums[r][c][half]);
                }
            }
        }
    }
    32 * C
}

/// The sums over the last vector of values that are not of whole pairs.
#[inline(always)]
fn sum_chunk<S: Simd, N: Numbers<S>>(
    s: S,
    numbers: N,
    args: &mut Values<'_>,
    rows: std::ops::Range<usize>,
    at: usize,
) -> usize {
    let d = args.decoder.codec.head_dim();
    let values = args.values.of::<N::Half>(at / LANES + 1);
    for row in rows {
        let weights = &args.weights[row * args.stride..][..args.values.count()];
        let out = args.out[row * d + at..]
            .first_chunk_mut()
            .expect("a whole vector");
        let mut sum = s.mul(s.splat(args.alphas[row]), s.read(out));
        for (t, weight) in weights.iter().enumerate() {
            sum = s.fma(
                s.splat(*weight),
                numbers.half(s, &values.row(t)[at / LANES]),
                sum,
            );
        }
        s.write(out, sum);
    }
    LANES
}
