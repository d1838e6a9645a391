//! Few query rows against rows as they are stored: numbers go from the cache to registers and nowhere else.
//!
//! Decoding a tile to scratch pays where many rows read it again. A decode has the few query heads of one KV head: each
//! vector of numbers is made once and multiplied by all of them while it is in a register. Scores then come out as sums
//! across lanes, sixteen at a time.

use std::mem::MaybeUninit;

use crate::kv::codec::numbers::{Numbers, Reader, Rows, block_scales};
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

/// Asks for so many rows from one on, as far as they exist.
#[inline(always)]
fn fetch_rows(rows: Rows, first: usize, count: usize) {
    let bytes = |row: usize| row.min(rows.count) * rows.stride;
    for at in (bytes(first)..bytes(first + count)).step_by(64) {
        fetch(rows.codes.wrapping_add(at));
    }
}

/// Query rows against rows of keys.
#[derive(Clone, Copy)]
pub(super) struct Scores<'a> {
    pub(super) decoder: &'a Decoder,
    pub(super) keys: Rows,
    /// Those of the tile behind this one.
    pub(super) ahead: Rows,
    /// `[rows][head_dim]`.
    pub(super) queries: *const f32,
    /// `[rows][stride]`: the scores, in whole vectors. Those past the keys are of no use.
    pub(super) out: *mut f32,
    pub(super) stride: usize,
    pub(super) rows: usize,
}

entries! {
    /// Writes the inner product of every query row and every key, without the scales of codecs that have one per row.
    ///
    /// # Safety
    /// The codec is [served](serves), and the pointers hold what their fields say.
    pub(super) unsafe fn scores(args: Scores<'_>) = score_rows
}

/// See [`scores`].
#[inline(always)]
unsafe fn score_rows<S: Simd>(s: S, args: Scores<'_>) {
    // SAFETY: the caller's rows and pointers.
    unsafe { codec::read(s, args.decoder, args) }
}

impl<S: Simd> Reader<S> for Scores<'_> {
    #[inline(always)]
    unsafe fn read<N: Numbers<S>>(self, s: S, numbers: N) {
        // SAFETY: the caller's rows and pointers.
        unsafe { score_all::<S, N>(s, numbers, self) }
    }
}

#[inline(always)]
unsafe fn score_all<S: Simd, N: Numbers<S>>(s: S, numbers: N, args: Scores<'_>) {
    for first in (0..args.keys.count).step_by(LANES) {
        let mut row = 0;
        while row < args.rows {
            let rows = (args.rows - row).min(4);
            // SAFETY: rows and positions within the counts.
            unsafe {
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
            }
            row += rows;
        }
    }
}

/// `R` query rows against sixteen keys, `P` of them at a time. Keys past the last one are the last one again.
#[inline(always)]
unsafe fn score_block<S: Simd, N: Numbers<S>, const R: usize, const P: usize>(
    s: S,
    numbers: N,
    args: Scores<'_>,
    row: usize,
    first: usize,
) {
    let Scores { decoder, keys, .. } = args;
    let d = decoder.codec.head_dim();
    let mut products = [[MaybeUninit::<S::F>::uninit(); LANES]; R];
    // SAFETY: the caller's rows and pointers; all products are written before they are read.
    unsafe {
        let queries = args.queries.add(row * d);
        let panel = keys.codes.add(first * keys.stride);
        let last = keys.count - 1 - first;
        // Scales of blocks are made into numbers for all keys at once.
        let mut scales = [[MaybeUninit::<f32>::uninit(); LANES]; MOST_BLOCKS];
        if N::BLOCK > 0 {
            for (block, scales) in scales[..d / 32].iter_mut().enumerate() {
                let block = panel.add(block * N::BLOCK);
                let numbers = block_scales(s, block, keys.stride, last + 1);
                s.store(scales.as_mut_ptr().cast(), numbers);
            }
        }
        for group in (0..LANES).step_by(P) {
            let mut at = [panel; P];
            for (p, at) in at.iter_mut().enumerate() {
                *at = if last >= LANES - 1 {
                    panel.add((group + p) * keys.stride)
                } else {
                    panel.add((group + p).min(last) * keys.stride)
                };
            }
            if row == 0 {
                fetch_rows(args.ahead, first + group, P);
            }
            let mut sums = [[s.splat(0.0); P]; R];
            for pair in 0..d / 32 {
                let mut q = [[s.splat(0.0); 2]; R];
                for r in 0..R {
                    let query = queries.add(r * d + 32 * pair);
                    q[r] = [s.load(query), s.load(query.add(LANES))];
                }
                for p in 0..P {
                    let mut key = numbers.unscaled(s, at[p], pair);
                    if N::BLOCK > 0 {
                        let scale = s.splat(scales.get_unchecked(pair)[group + p].assume_init());
                        key = [s.mul(key[0], scale), s.mul(key[1], scale)];
                    }
                    let [a, b] = key;
                    for r in 0..R {
                        sums[r][p] = s.fma(q[r][1], b, s.fma(q[r][0], a, sums[r][p]));
                    }
                }
            }
            if !d.is_multiple_of(32) {
                let last = d / LANES - 1;
                for p in 0..P {
                    let key = numbers.chunk(s, at[p], last);
                    for r in 0..R {
                        let q = s.load(queries.add(r * d + LANES * last));
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
            let out = args.out.add((row + r) * args.stride + first);
            let products = products[r].as_ptr().cast::<[S::F; LANES]>();
            s.store(out, s.sums(&*products));
        }
    }
}

/// Weights against rows of values.
#[derive(Clone, Copy)]
pub(super) struct Values<'a> {
    pub(super) decoder: &'a Decoder,
    pub(super) values: Rows,
    /// Those of the tile behind this one.
    pub(super) ahead: Rows,
    /// `[rows][stride]`, in whole vectors.
    pub(super) weights: *const f32,
    pub(super) stride: usize,
    /// What each row of `out` is multiplied by before.
    pub(super) alphas: *const f32,
    /// `[rows][head_dim]`.
    pub(super) out: *mut f32,
    pub(super) rows: usize,
}

entries! {
    /// `out = alpha · out + weights · values`.
    ///
    /// # Safety
    /// As for [`scores`].
    pub(super) unsafe fn values(args: Values<'_>) = value_rows
}

/// See [`values`].
#[inline(always)]
unsafe fn value_rows<S: Simd>(s: S, args: Values<'_>) {
    // SAFETY: the caller's rows and pointers.
    unsafe { codec::read(s, args.decoder, args) }
}

impl<S: Simd> Reader<S> for Values<'_> {
    #[inline(always)]
    unsafe fn read<N: Numbers<S>>(self, s: S, numbers: N) {
        // SAFETY: the caller's rows and pointers.
        unsafe { sum_all::<S, N>(s, numbers, self) }
    }
}

#[inline(always)]
unsafe fn sum_all<S: Simd, N: Numbers<S>>(s: S, numbers: N, args: Values<'_>) {
    let d = args.decoder.codec.head_dim();
    let mut row = 0;
    while row < args.rows {
        let rows = (args.rows - row).min(4);
        let mut at = 0;
        while at < d {
            // SAFETY: rows and numbers within the counts.
            at += unsafe {
                match (rows, (d - at) / 32, S::WIDE) {
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
                }
            };
        }
        row += rows;
    }
}

/// `R` rows of sums over `C` pairs of vectors from the number `at` on; returns how many numbers that is.
#[inline(always)]
unsafe fn sum_pairs<S: Simd, N: Numbers<S>, const R: usize, const C: usize>(
    s: S,
    numbers: N,
    args: Values<'_>,
    row: usize,
    at: usize,
) -> usize {
    let Values {
        decoder,
        values,
        stride,
        ..
    } = args;
    let d = decoder.codec.head_dim();
    // SAFETY: the caller's rows and pointers.
    unsafe {
        let out = args.out.add(row * d + at);
        let weights = args.weights.add(row * stride);
        let mut sums = [[[s.splat(0.0); 2]; C]; R];
        for r in 0..R {
            let alpha = s.splat(*args.alphas.add(row + r));
            for c in 0..C {
                for half in 0..2 {
                    let out = out.add(r * d + 32 * c + LANES * half);
                    sums[r][c][half] = s.mul(alpha, s.load(out));
                }
            }
        }
        for first in (0..values.count).step_by(LANES) {
            let panel = values.codes.add(first * values.stride);
            let count = LANES.min(values.count - first);
            // A block's scale goes into the weights: there are fewer of them than of its numbers.
            let mut scaled = [[[MaybeUninit::<f32>::uninit(); LANES]; C]; R];
            if N::BLOCK > 0 {
                for c in 0..C {
                    let block = panel.add((at / 32 + c) * N::BLOCK);
                    let scales = block_scales(s, block, values.stride, count);
                    for r in 0..R {
                        let weights = s.load(weights.add(r * stride + first));
                        s.store(scaled[r][c].as_mut_ptr().cast(), s.mul(weights, scales));
                    }
                }
            }
            for t in 0..count {
                let value = panel.add(t * values.stride);
                if row == 0 && at == 0 {
                    fetch_rows(args.ahead, first + t, 1);
                }
                for c in 0..C {
                    let [a, b] = numbers.unscaled(s, value, at / 32 + c);
                    for r in 0..R {
                        let w = s.splat(if N::BLOCK > 0 {
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
unsafe fn sum_chunk<S: Simd, N: Numbers<S>>(
    s: S,
    numbers: N,
    args: Values<'_>,
    rows: std::ops::Range<usize>,
    at: usize,
) -> usize {
    let d = args.decoder.codec.head_dim();
    for row in rows {
        // SAFETY: the caller's rows and pointers.
        unsafe {
            let out = args.out.add(row * d + at);
            let mut sum = s.mul(s.splat(*args.alphas.add(row)), s.load(out));
            for t in 0..args.values.count {
                let value = args.values.codes.add(t * args.values.stride);
                let weight = s.splat(*args.weights.add(row * args.stride + t));
                sum = s.fma(weight, numbers.chunk(s, value, at / LANES), sum);
            }
            s.store(out, sum);
        }
    }
    LANES
}
