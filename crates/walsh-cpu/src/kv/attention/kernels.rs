//! The inner loops: scores of queries against key panels, online softmax, weighted sums of values.

use bytemuck::{Pod, Zeroable};

use crate::simd::{self, LANES, Simd, entries};

/// Query rows against key panels.
pub(super) struct Scores<'a> {
    /// `[rows][head_dim]`.
    pub(super) queries: &'a [f32],
    /// `[panels][head_dim][16]`.
    pub(super) panels: &'a [f32],
    /// `[rows][stride]`: the scores.
    pub(super) out: &'a mut [f32],
    pub(super) stride: usize,
    pub(super) rows: usize,
    pub(super) panel_count: usize,
    /// A multiple of 16.
    pub(super) head_dim: usize,
}

entries! {
    /// Writes the inner product of every query row and every position of the panels.
    pub(super) fn scores(args: Scores<'_>) = score_rows
}

/// See [`scores`].
#[inline(always)]
fn score_rows<S: Simd>(s: S, mut args: Scores<'_>) {
    let args = &mut args;
    let mut row = 0;
    while row < args.rows {
        let rows = (args.rows - row).min(S::SCORE_ROWS);
        let mut panel = 0;
        while panel < args.panel_count {
            let pair = S::WIDE && panel + 2 <= args.panel_count;
            match (rows, pair) {
                (1, true) => score_block::<S, 1, 2, 2>(s, args, row, panel),
                (2, true) => score_block::<S, 2, 2, 2>(s, args, row, panel),
                (3, true) => score_block::<S, 3, 2, 2>(s, args, row, panel),
                (4, true) => score_block::<S, 4, 2, 2>(s, args, row, panel),
                (5, true) => score_block::<S, 5, 2, 1>(s, args, row, panel),
                (6, true) => score_block::<S, 6, 2, 1>(s, args, row, panel),
                (7, true) => score_block::<S, 7, 2, 1>(s, args, row, panel),
                (_, true) => score_block::<S, 8, 2, 1>(s, args, row, panel),
                (1, false) => score_block::<S, 1, 1, 2>(s, args, row, panel),
                (2, false) => score_block::<S, 2, 1, 2>(s, args, row, panel),
                (3, false) => score_block::<S, 3, 1, 1>(s, args, row, panel),
                (4, false) => score_block::<S, 4, 1, 1>(s, args, row, panel),
                (5, false) => score_block::<S, 5, 1, 1>(s, args, row, panel),
                (6, false) => score_block::<S, 6, 1, 1>(s, args, row, panel),
                (7, false) => score_block::<S, 7, 1, 1>(s, args, row, panel),
                (_, false) => score_block::<S, 8, 1, 1>(s, args, row, panel),
            }
            panel += if pair { 2 } else { 1 };
        }
        row += rows;
    }
}

/// `R` rows against `C` panels, with `U` running sums each to hide the latency of few rows.
#[inline(always)]
fn score_block<S: Simd, const R: usize, const C: usize, const U: usize>(
    s: S,
    args: &mut Scores<'_>,
    row: usize,
    panel: usize,
) {
    let d = args.head_dim;
    assert!(d.is_multiple_of(U));
    let queries = args.queries[row * d..(row + R) * d].as_ptr();
    let panels = args.panels[panel * d * LANES..(panel + C) * d * LANES].as_ptr();
    let mut sums = [[[s.splat(0.0); C]; R]; U];
    let mut dim = 0;
    while dim < d {
        for u in 0..U {
            // SAFETY: `dim + u` is below `d`, and there are `R` queries and `C` panels of so many numbers and vectors.
            unsafe {
                let mut keys = [s.splat(0.0); C];
                for c in 0..C {
                    keys[c] = s.load(panels.add((c * d + dim + u) * LANES));
                }
                for r in 0..R {
                    let q = s.splat(*queries.add(r * d + dim + u));
                    for c in 0..C {
                        sums[u][r][c] = s.fma(q, keys[c], sums[u][r][c]);
                    }
                }
            }
        }
        dim += U;
    }
    for r in 0..R {
        let out = &mut args.out[(row + r) * args.stride + panel * LANES..][..C * LANES];
        for (c, out) in out.as_chunks_mut().0.iter_mut().enumerate() {
            let mut sum = sums[0][r][c];
            for part in &sums[1..] {
                sum = s.add(sum, part[r][c]);
            }
            s.write(out, sum);
        }
    }
}

/// One query row's running softmax.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(super) struct Running {
    /// The largest score so far.
    pub(super) max: f32,
    /// Σ exp(score − max) so far.
    pub(super) sum: f32,
}

impl Running {
    pub(super) const EMPTY: Running = Running {
        max: f32::NEG_INFINITY,
        sum: 0.0,
    };
}

/// What a tile of scores becomes weights with.
pub(super) struct Weigh<'a> {
    /// The scores of one row, replaced by the weights: whole vectors, the last one filled up.
    pub(super) scores: &'a mut [f32],
    /// The first visible position of the tile.
    pub(super) first: usize,
    /// The end of the visible positions.
    pub(super) end: usize,
    /// A factor of each position's score, as many as scores.
    pub(super) key_factors: &'a [f32],
    /// What is added to each score, after its factor.
    pub(super) offset: f32,
    /// A factor of each position's weight, as many as scores.
    pub(super) value_factors: &'a [f32],
}

entries! {
    /// Turns a row's scores, which `softcap` bounds if it is not zero, into weights relative to the new maximum; returns what
    /// earlier sums must be multiplied by.
    ///
    /// The bound is no field: beside the offset the two are loaded as one vector, which waits until both have been written.
    pub(super) fn weigh(args: &mut Weigh<'_>, softcap: f32, running: &mut Running) -> f32 = weigh_row
}

/// See [`weigh`].
#[inline(always)]
pub(super) fn weigh_row<S: Simd>(
    s: S,
    args: &mut Weigh<'_>,
    softcap: f32,
    running: &mut Running,
) -> f32 {
    let scores = args.scores.as_chunks_mut().0;
    if args.first >= args.end {
        for scores in scores {
            s.write(scores, s.splat(0.0));
        }
        return 1.0;
    }
    let mut max = s.splat(running.max);
    let offset = s.splat(args.offset);
    let factors = args.key_factors.as_chunks().0;
    for (v, (at, factors)) in scores.iter_mut().zip(factors).enumerate() {
        let mut score = s.fma(s.read(at), s.read(factors), offset);
        if softcap > 0.0 {
            let bounded = simd::tanh(s, s.mul(score, s.splat(1.0 / softcap)));
            score = s.mul(bounded, s.splat(softcap));
        }
        let start = v * LANES;
        if start < args.first || start + LANES > args.end {
            score = s.keep(
                score,
                args.first as i32 - start as i32,
                args.end as i32 - start as i32,
            );
        }
        s.write(at, score);
        max = s.max(max, score);
    }
    let max = s.reduce_max(max);
    let alpha = if running.max == max {
        1.0
    } else {
        (running.max - max).exp()
    };
    let mut sum = s.splat(0.0);
    let highest = s.splat(max);
    for (at, factors) in scores.iter_mut().zip(args.value_factors.as_chunks().0) {
        let p = simd::exp(s, s.sub(s.read(at), highest));
        sum = s.add(sum, p);
        s.write(at, s.mul(p, s.read(factors)));
    }
    running.max = max;
    running.sum = running.sum * alpha + s.reduce_add(sum);
    alpha
}

/// Weights against value rows.
pub(super) struct Values<'a> {
    /// `[rows][stride]`.
    pub(super) weights: &'a [f32],
    pub(super) stride: usize,
    /// `[positions]` rows of `head_dim`, `value_stride` numbers apart.
    pub(super) values: &'a [f32],
    pub(super) value_stride: usize,
    pub(super) positions: usize,
    /// What each row of `out` is multiplied by before.
    pub(super) alphas: &'a [f32],
    /// `[rows][head_dim]`.
    pub(super) out: &'a mut [f32],
    pub(super) rows: usize,
    pub(super) head_dim: usize,
}

entries! {
    /// `out = alpha · out + weights · values`.
    pub(super) fn values(args: Values<'_>) = value_rows
}

/// See [`values`].
#[inline(always)]
fn value_rows<S: Simd>(s: S, mut args: Values<'_>) {
    let args = &mut args;
    let chunks = args.head_dim / LANES;
    let mut row = 0;
    while row < args.rows {
        let rows = (args.rows - row).min(S::VALUE_ROWS);
        let mut chunk = 0;
        while chunk < chunks {
            let wide = S::WIDE && chunk + 4 <= chunks;
            match (rows, wide) {
                (1, true) => value_block::<S, 1, 4>(s, args, row, chunk),
                (2, true) => value_block::<S, 2, 4>(s, args, row, chunk),
                (3, true) => value_block::<S, 3, 4>(s, args, row, chunk),
                (4, true) => value_block::<S, 4, 4>(s, args, row, chunk),
                (5, true) => value_block::<S, 5, 4>(s, args, row, chunk),
                (_, true) => value_block::<S, 6, 4>(s, args, row, chunk),
                (1, false) => value_block::<S, 1, 1>(s, args, row, chunk),
                (2, false) => value_block::<S, 2, 1>(s, args, row, chunk),
                (3, false) => value_block::<S, 3, 1>(s, args, row, chunk),
                (4, false) => value_block::<S, 4, 1>(s, args, row, chunk),
                (5, false) => value_block::<S, 5, 1>(s, args, row, chunk),
                (_, false) => value_block::<S, 6, 1>(s, args, row, chunk),
            }
            chunk += if wide { 4 } else { 1 };
        }
        row += rows;
    }
}

#[inline(always)]
fn value_block<S: Simd, const R: usize, const C: usize>(
    s: S,
    args: &mut Values<'_>,
    row: usize,
    chunk: usize,
) {
    let (d, stride, positions) = (args.head_dim, args.stride, args.positions);
    if positions == 0 {
        return;
    }
    let weights = args.weights[row * stride..][..(R - 1) * stride + positions].as_ptr();
    let reach = (positions - 1) * args.value_stride + C * LANES;
    let values = args.values[chunk * LANES..][..reach].as_ptr();
    let out = args.out[row * d + chunk * LANES..][..(R - 1) * d + C * LANES].as_mut_ptr();
    let alphas = &args.alphas[row..row + R];
    // SAFETY: `C` vectors of each of `R` rows of the output, of as many rows of weights, and of each position's values:
    // each cut so long above.
    unsafe {
        let mut sums = [[s.splat(0.0); C]; R];
        for r in 0..R {
            let alpha = s.splat(alphas[r]);
            for c in 0..C {
                sums[r][c] = s.mul(alpha, s.load(out.add(r * d + c * LANES)));
            }
        }
        for t in 0..positions {
            let value = values.add(t * args.value_stride);
            let mut v = [s.splat(0.0); C];
            for c in 0..C {
                v[c] = s.load(value.add(c * LANES));
            }
            for r in 0..R {
                let w = s.splat(*weights.add(r * stride + t));
                for c in 0..C {
                    sums[r][c] = s.fma(w, v[c], sums[r][c]);
                }
            }
        }
        for r in 0..R {
            for c in 0..C {
                s.store(out.add(r * d + c * LANES), sums[r][c]);
            }
        }
    }
}
