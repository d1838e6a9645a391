//! The inner loops over bytes: products, and weights as integers.

use bytemuck::{Pod, Zeroable};

use crate::kv::attention::kernels::{Running, Weigh, weigh_row};
use crate::simd::{Bytes, LANES, byte_entries};

/// The largest integer that a number becomes: 127 · 256 and no more, so that its high byte is a signed one where a set
/// multiplies bytes.
const LARGEST: f32 = 32_512.0;

/// What turns sums of products with integers back into numbers.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub(in crate::kv::attention) struct Integers {
    /// What one of the integers stands for.
    pub(in crate::kv::attention) factor: f32,
    /// 128 times their sum, which the other side's unsigned bytes add to every product.
    pub(in crate::kv::attention) excess: i32,
}

byte_entries! {
    /// Writes a row as integers, each sixteen in an order: their first parts at `out`, the second `d` bytes behind.
    ///
    /// # Safety
    /// The row has `d` numbers, a multiple of 16, and `out` has room for twice as many bytes.
    pub(super) unsafe fn integers(row: *const f32, out: *mut i8, d: usize, order: &[i32; 16]) -> Integers = integer_row
}

/// See [`integers`]. A row that is not finite has no integers: its factor is NaN, which reaches every score.
#[inline(always)]
unsafe fn integer_row<S: Bytes>(
    s: S,
    row: *const f32,
    out: *mut i8,
    d: usize,
    order: &[i32; 16],
) -> Integers {
    // SAFETY: the caller's pointers.
    unsafe {
        let (mut largest, mut zeros) = (s.splat(0.0), s.splat(0.0));
        for at in (0..d).step_by(LANES) {
            let numbers = s.load(row.add(at));
            largest = s.max(largest, s.abs(numbers));
            zeros = s.add(zeros, s.mul(numbers, s.splat(0.0)));
        }
        let largest = s.reduce_max(largest);
        let broken = s.reduce_add(zeros) != 0.0 || !largest.is_finite();
        // Below this no inverse is finite; what such a query adds to a score is nothing.
        let inverse = if broken || largest < 1e-30 {
            0.0
        } else {
            LARGEST / largest
        };
        let mut sum = s.splat_i(0);
        for at in (0..d).step_by(LANES) {
            let numbers = s.permute(s.load(row.add(at)), order);
            let scaled = s.mul(numbers, s.splat(inverse));
            sum = s.add_i(sum, s.split(scaled, out.add(at), out.add(d + at)));
        }
        Integers {
            factor: if broken { f32::NAN } else { largest / LARGEST },
            excess: s.reduce_add_i(sum).wrapping_mul(128),
        }
    }
}

/// Query rows against keys.
#[derive(Clone, Copy)]
pub(super) struct Dots {
    /// `[rows][2][head_dim]`.
    pub(super) queries: *const i8,
    pub(super) terms: *const Integers,
    /// `[rows][stride]`.
    pub(super) out: *mut f32,
    pub(super) stride: usize,
    pub(super) rows: usize,
    pub(super) head_dim: usize,
}

byte_entries! {
    /// Writes the inner product of every query row and every position of `count` panels, `[head_dim / 4][16][4]` each.
    ///
    /// # Safety
    /// The pointers hold what their fields say.
    pub(super) unsafe fn scores(args: Dots, panels: *const u8, count: usize) = score_rows
}

#[inline(always)]
unsafe fn score_rows<S: Bytes>(s: S, args: Dots, panels: *const u8, count: usize) {
    let mut row = 0;
    while row < args.rows {
        // Five rows are three and two rather than four and one.
        let left = args.rows - row;
        let rows = if left == 5 { 3 } else { left.min(4) };
        let mut panel = 0;
        while panel < count {
            let left = count - panel;
            let at = (panels, panel);
            // SAFETY: rows and panels within the counts.
            let done = unsafe {
                match (rows, left) {
                    (1, 4..) if S::WIDE => score_block::<S, 1, 4>(s, args, row, at),
                    (2, 4..) if S::WIDE => score_block::<S, 2, 4>(s, args, row, at),
                    (3, 2..) if S::WIDE => score_block::<S, 3, 2>(s, args, row, at),
                    (4, 2..) if S::WIDE => score_block::<S, 4, 2>(s, args, row, at),
                    (1, 2..) => score_block::<S, 1, 2>(s, args, row, at),
                    (2, 2..) => score_block::<S, 2, 2>(s, args, row, at),
                    (1, _) => score_block::<S, 1, 1>(s, args, row, at),
                    (2, _) => score_block::<S, 2, 1>(s, args, row, at),
                    (3, _) => score_block::<S, 3, 1>(s, args, row, at),
                    (_, _) => score_block::<S, 4, 1>(s, args, row, at),
                }
            };
            panel += done;
        }
        row += rows;
    }
}

#[inline(always)]
unsafe fn score_block<S: Bytes, const R: usize, const C: usize>(
    s: S,
    args: Dots,
    row: usize,
    (panels, panel): (*const u8, usize),
) -> usize {
    let d = args.head_dim;
    // SAFETY: the caller's pointers.
    unsafe {
        let queries = args.queries.add(2 * row * d);
        let panels = panels.add(panel * d * LANES);
        let mut sums = [[s.nothing(); C]; R];
        for dim in (0..d).step_by(4) {
            let mut keys = [s.load_b(panels.add(dim * LANES)); C];
            for c in 1..C {
                keys[c] = s.load_b(panels.add((c * d + dim) * LANES));
            }
            for r in 0..R {
                let query = queries.add(2 * r * d + dim);
                for c in 0..C {
                    sums[r][c] = s.dot(sums[r][c], keys[c], query, query.add(d));
                }
            }
        }
        for r in 0..R {
            for c in 0..C {
                put_scores(s, args, row + r, panel + c, sums[r][c]);
            }
        }
    }
    C
}

/// Writes a row's scores of a panel.
///
/// # Safety
/// As for [`scores`].
#[inline(always)]
pub(super) unsafe fn put_scores<S: Bytes>(
    s: S,
    args: Dots,
    row: usize,
    panel: usize,
    sums: S::Sums,
) {
    // SAFETY: the caller's pointers.
    unsafe {
        let terms = *args.terms.add(row);
        let sum = s.number_of(sums, terms.excess);
        let out = args.out.add(row * args.stride + panel * LANES);
        s.store(out, s.mul(sum, s.splat(terms.factor)));
    }
}

/// What a row's scores become weights with.
#[derive(Clone, Copy)]
pub(super) struct Weights {
    pub(super) weigh: Weigh,
    /// The first parts of the weights.
    pub(super) bytes: *mut i8,
    /// How far behind them the second parts lie.
    pub(super) second: usize,
}

byte_entries! {
    /// Turns a row's scores into weights relative to the new maximum, and those into integers relative to the largest of
    /// the tile; returns what earlier sums must be multiplied by, and what the integers stand for.
    ///
    /// # Safety
    /// As for [`scores`].
    pub(super) unsafe fn weights(args: Weights, running: &mut Running) -> (f32, Integers) = weight_row
}

#[inline(always)]
unsafe fn weight_row<S: Bytes>(s: S, args: Weights, running: &mut Running) -> (f32, Integers) {
    let scores = args.weigh.scores;
    let vectors = args.weigh.count.div_ceil(LANES);
    // SAFETY: the caller's pointers.
    unsafe {
        let alpha = if args.weigh.first >= args.weigh.end {
            for v in 0..vectors {
                s.store(scores.add(v * LANES), s.splat(0.0));
            }
            1.0
        } else {
            weigh_row(s, args.weigh, running)
        };
        let mut largest = s.splat(0.0);
        for v in 0..vectors {
            largest = s.max(largest, s.load(scores.add(v * LANES)));
        }
        let largest = s.reduce_max(largest);
        let inverse = if largest < 1e-30 {
            0.0
        } else {
            LARGEST / largest
        };
        let mut sum = s.splat_i(0);
        for v in 0..vectors {
            let scaled = s.mul(s.load(scores.add(v * LANES)), s.splat(inverse));
            let at = args.bytes.add(v * LANES);
            sum = s.add_i(sum, s.split(scaled, at, at.add(args.second)));
        }
        let terms = Integers {
            factor: largest / LARGEST,
            excess: s.reduce_add_i(sum).wrapping_mul(128),
        };
        (alpha, terms)
    }
}

/// Weights against the bytes of values.
#[derive(Clone, Copy)]
pub(super) struct Sums {
    /// `[rows][2][stride]`.
    pub(super) weights: *const i8,
    pub(super) terms: *const Integers,
    /// What each row of `out` is multiplied by before.
    pub(super) alphas: *const f32,
    /// Fours of positions.
    pub(super) quads: usize,
    pub(super) stride: usize,
    /// `[rows][wide]`.
    pub(super) out: *mut f32,
    pub(super) rows: usize,
    pub(super) wide: usize,
}

byte_entries! {
    /// `out = alpha · out + weights · values`, of `[quads][wide][4]` bytes.
    ///
    /// # Safety
    /// As for [`scores`].
    pub(super) unsafe fn values(args: Sums, values: *const u8) = value_rows
}

#[inline(always)]
unsafe fn value_rows<S: Bytes>(s: S, args: Sums, values: *const u8) {
    let mut row = 0;
    while row < args.rows {
        let left = args.rows - row;
        let rows = if left == 5 { 3 } else { left.min(4) };
        let mut vector = 0;
        while vector < args.wide / LANES {
            let at = (values, vector);
            // SAFETY: rows and vectors within the counts, which are multiples of four.
            let done = unsafe {
                match rows {
                    1 if S::WIDE => value_block::<S, 1, 4>(s, args, row, at),
                    2 if S::WIDE => value_block::<S, 2, 4>(s, args, row, at),
                    3 if S::WIDE => value_block::<S, 3, 4>(s, args, row, at),
                    4 if S::WIDE => value_block::<S, 4, 2>(s, args, row, at),
                    1 => value_block::<S, 1, 2>(s, args, row, at),
                    2 => value_block::<S, 2, 2>(s, args, row, at),
                    3 => value_block::<S, 3, 1>(s, args, row, at),
                    _ => value_block::<S, 4, 1>(s, args, row, at),
                }
            };
            vector += done;
        }
        row += rows;
    }
}

#[inline(always)]
unsafe fn value_block<S: Bytes, const R: usize, const C: usize>(
    s: S,
    args: Sums,
    row: usize,
    (values, vector): (*const u8, usize),
) -> usize {
    // SAFETY: the caller's pointers.
    unsafe {
        let weights = args.weights.add(2 * row * args.stride);
        let values = values.add(vector * 64);
        let mut sums = [[s.nothing(); C]; R];
        for quad in 0..args.quads {
            let value = values.add(quad * args.wide * 4);
            let mut bytes = [s.load_b(value); C];
            for c in 1..C {
                bytes[c] = s.load_b(value.add(64 * c));
            }
            for r in 0..R {
                let weight = weights.add(2 * r * args.stride + 4 * quad);
                for c in 0..C {
                    sums[r][c] = s.dot(sums[r][c], bytes[c], weight, weight.add(args.stride));
                }
            }
        }
        for r in 0..R {
            for c in 0..C {
                add_sums(s, args, row + r, vector + c, sums[r][c]);
            }
        }
    }
    C
}

/// Adds a tile's sums of a row.
///
/// # Safety
/// As for [`scores`].
#[inline(always)]
pub(super) unsafe fn add_sums<S: Bytes>(
    s: S,
    args: Sums,
    row: usize,
    vector: usize,
    sums: S::Sums,
) {
    // SAFETY: the caller's pointers.
    unsafe {
        let terms = *args.terms.add(row);
        let out = args.out.add(row * args.wide + vector * LANES);
        let sum = s.number_of(sums, terms.excess);
        let before = s.mul(s.splat(*args.alphas.add(row)), s.load(out));
        s.store(out, s.fma(sum, s.splat(terms.factor), before));
    }
}

/// Sums in the order of the values' bytes, and the sums of other zones.
#[derive(Clone, Copy)]
pub(super) struct Collect<'a> {
    pub(super) sums: *const f32,
    /// Where the sum of each number is.
    pub(super) places: &'a [i32],
    pub(super) carried: f32,
    pub(super) out: *mut f32,
}

byte_entries! {
    /// `out = carried · out + sums`, in the model's order.
    ///
    /// # Safety
    /// As for [`scores`].
    pub(super) unsafe fn collect(args: Collect<'_>) = collect_row
}

#[inline(always)]
unsafe fn collect_row<S: Bytes>(s: S, args: Collect<'_>) {
    for at in (0..args.places.len()).step_by(LANES) {
        // SAFETY: the caller's pointers; head sizes are multiples of 16.
        unsafe {
            let out = args.out.add(at);
            let sums = s.gather(args.sums, args.places.as_ptr().add(at));
            s.store(out, s.fma(s.load(out), s.splat(args.carried), sums));
        }
    }
}
