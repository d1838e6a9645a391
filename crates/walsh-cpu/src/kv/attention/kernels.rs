//! The inner loops: scores of queries against key panels, online softmax, weighted sums of values.

use bytemuck::{Pod, Zeroable};

use crate::simd::{self, LANES, Simd, entries};

/// Query rows against key panels.
#[derive(Clone, Copy)]
pub(super) struct Scores {
    /// `[rows][head_dim]`.
    pub(super) queries: *const f32,
    /// `[panels][head_dim][16]`.
    pub(super) panels: *const f32,
    /// `[rows][stride]`: the scores.
    pub(super) out: *mut f32,
    pub(super) stride: usize,
    pub(super) rows: usize,
    pub(super) panel_count: usize,
    pub(super) head_dim: usize,
}

entries! {
    /// Writes the inner product of every query row and every position of the panels.
    ///
    /// # Safety
    /// The pointers hold what their fields say.
    pub(super) unsafe fn scores(args: Scores) = score_rows
}

/// See [`scores`].
#[inline(always)]
unsafe fn score_rows<S: Simd>(s: S, args: Scores) {
    let mut row = 0;
    while row < args.rows {
        let rows = (args.rows - row).min(S::SCORE_ROWS);
        let mut panel = 0;
        while panel < args.panel_count {
            let pair = S::WIDE && panel + 2 <= args.panel_count;
            // SAFETY: rows and panels within the counts.
            unsafe {
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
            }
            panel += if pair { 2 } else { 1 };
        }
        row += rows;
    }
}

/// `R` rows against `C` panels, with `U` running sums each to hide the latency of few rows.
#[inline(always)]
unsafe fn score_block<S: Simd, const R: usize, const C: usize, const U: usize>(
    s: S,
    args: Scores,
    row: usize,
    panel: usize,
) {
    let d = args.head_dim;
    // SAFETY: the caller's pointers; head sizes are multiples of 16, hence of U.
    unsafe {
        let queries = args.queries.add(row * d);
        let panels = args.panels.add(panel * d * LANES);
        let mut sums = [[[s.splat(0.0); C]; R]; U];
        let mut dim = 0;
        while dim < d {
            for u in 0..U {
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
            dim += U;
        }
        for r in 0..R {
            for c in 0..C {
                let mut sum = sums[0][r][c];
                for part in &sums[1..] {
                    sum = s.add(sum, part[r][c]);
                }
                s.store(
                    args.out.add((row + r) * args.stride + (panel + c) * LANES),
                    sum,
                );
            }
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
#[derive(Clone, Copy)]
pub(super) struct Weigh {
    /// The scores of one row, replaced by the weights; whole vectors.
    pub(super) scores: *mut f32,
    /// How many positions the tile has.
    pub(super) count: usize,
    /// The first visible position of the tile.
    pub(super) first: usize,
    /// The end of the visible positions, above `first`.
    pub(super) end: usize,
    /// A factor of each position's score; whole vectors.
    pub(super) key_factors: *const f32,
    /// What is added to each score, after its factor.
    pub(super) offset: f32,
    /// A factor of each position's weight; whole vectors.
    pub(super) value_factors: *const f32,
    /// The bound of the scores, or zero.
    pub(super) softcap: f32,
}

entries! {
    /// Turns a row's scores into weights relative to the new maximum; returns what earlier sums must be multiplied by.
    ///
    /// # Safety
    /// As for [`scores`].
    pub(super) unsafe fn weigh(args: Weigh, running: &mut Running) -> f32 = weigh_row
}

/// See [`weigh`].
#[inline(always)]
pub(super) unsafe fn weigh_row<S: Simd>(s: S, args: Weigh, running: &mut Running) -> f32 {
    let vectors = args.count.div_ceil(LANES);
    // SAFETY: the caller's pointers.
    unsafe {
        let mut max = s.splat(running.max);
        let offset = s.splat(args.offset);
        for v in 0..vectors {
            let at = args.scores.add(v * LANES);
            let factors = s.load(args.key_factors.add(v * LANES));
            let mut score = s.fma(s.load(at), factors, offset);
            if args.softcap > 0.0 {
                let bounded = simd::tanh(s, s.mul(score, s.splat(1.0 / args.softcap)));
                score = s.mul(bounded, s.splat(args.softcap));
            }
            let start = v * LANES;
            if start < args.first || start + LANES > args.end {
                score = s.keep(
                    score,
                    args.first as i32 - start as i32,
                    args.end as i32 - start as i32,
                );
            }
            s.store(at, score);
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
        for v in 0..vectors {
            let at = args.scores.add(v * LANES);
            let p = simd::exp(s, s.sub(s.load(at), highest));
            sum = s.add(sum, p);
            s.store(at, s.mul(p, s.load(args.value_factors.add(v * LANES))));
        }
        running.max = max;
        running.sum = running.sum * alpha + s.reduce_add(sum);
        alpha
    }
}

/// Weights against value rows.
#[derive(Clone, Copy)]
pub(super) struct Values {
    /// `[rows][stride]`.
    pub(super) weights: *const f32,
    pub(super) stride: usize,
    /// `[positions]` rows of `head_dim`, `value_stride` numbers apart.
    pub(super) values: *const f32,
    pub(super) value_stride: usize,
    pub(super) positions: usize,
    /// What each row of `out` is multiplied by before.
    pub(super) alphas: *const f32,
    /// `[rows][head_dim]`.
    pub(super) out: *mut f32,
    pub(super) rows: usize,
    pub(super) head_dim: usize,
}

entries! {
    /// `out = alpha · out + weights · values`.
    ///
    /// # Safety
    /// As for [`scores`].
    pub(super) unsafe fn values(args: Values) = value_rows
}

/// See [`values`].
#[inline(always)]
unsafe fn value_rows<S: Simd>(s: S, args: Values) {
    let chunks = args.head_dim / LANES;
    let mut row = 0;
    while row < args.rows {
        let rows = (args.rows - row).min(S::VALUE_ROWS);
        let mut chunk = 0;
        while chunk < chunks {
            let wide = S::WIDE && chunk + 4 <= chunks;
            // SAFETY: rows and chunks within the counts.
            unsafe {
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
            }
            chunk += if wide { 4 } else { 1 };
        }
        row += rows;
    }
}

#[inline(always)]
unsafe fn value_block<S: Simd, const R: usize, const C: usize>(
    s: S,
    args: Values,
    row: usize,
    chunk: usize,
) {
    // SAFETY: the caller's pointers.
    unsafe {
        let out = args.out.add(row * args.head_dim + chunk * LANES);
        let weights = args.weights.add(row * args.stride);
        let mut sums = [[s.splat(0.0); C]; R];
        for r in 0..R {
            let alpha = s.splat(*args.alphas.add(row + r));
            for c in 0..C {
                sums[r][c] = s.mul(alpha, s.load(out.add(r * args.head_dim + c * LANES)));
            }
        }
        for t in 0..args.positions {
            let value = args.values.add(t * args.value_stride + chunk * LANES);
            let mut v = [s.splat(0.0); C];
            for c in 0..C {
                v[c] = s.load(value.add(c * LANES));
            }
            for r in 0..R {
                let w = s.splat(*weights.add(r * args.stride + t));
                for c in 0..C {
                    sums[r][c] = s.fma(w, v[c], sums[r][c]);
                }
            }
        }
        for r in 0..R {
            for c in 0..C {
                s.store(out.add(r * args.head_dim + c * LANES), sums[r][c]);
            }
        }
    }
}
