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
    /// Writes a row of whole vectors as integers, each sixteen in an order: their first parts in the first half of `out`,
    /// their second parts in the second, each as long as the row.
    pub(super) fn integers(row: &[f32], out: &mut [i8], order: &[i32; 16]) -> Integers = integer_row
}

/// See [`integers`]. A row that is not finite has no integers: its factor is NaN, which reaches every score.
#[inline(always)]
fn integer_row<S: Bytes>(s: S, row: &[f32], out: &mut [i8], order: &[i32; 16]) -> Integers {
    let (first, second) = out.split_at_mut(row.len());
    let row = row.as_chunks::<LANES>().0;
    let (mut largest, mut zeros) = (s.splat(0.0), s.splat(0.0));
    for numbers in row {
        let numbers = s.read(numbers);
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
    let parts = first
        .as_chunks_mut()
        .0
        .iter_mut()
        .zip(second.as_chunks_mut().0);
    for (numbers, (first, second)) in row.iter().zip(parts) {
        let numbers = s.permute(s.read(numbers), order);
        let scaled = s.mul(numbers, s.splat(inverse));
        sum = s.add_i(sum, s.split(scaled, first, second));
    }
    Integers {
        factor: if broken { f32::NAN } else { largest / LARGEST },
        excess: s.reduce_add_i(sum).wrapping_mul(128),
    }
}

/// Query rows against keys.
pub(super) struct Dots<'a> {
    /// `[rows][2][head_dim]`.
    pub(super) queries: &'a [i8],
    pub(super) terms: &'a [Integers],
    /// `[rows][stride]`.
    pub(super) out: &'a mut [f32],
    pub(super) stride: usize,
    pub(super) rows: usize,
    pub(super) head_dim: usize,
}

byte_entries! {
    /// Writes the inner product of every query row and every position of `count` panels, `[head_dim / 4][16][4]` each.
    pub(super) fn scores(args: &mut Dots<'_>, panels: &[u8], count: usize) = score_rows
}

#[inline(always)]
fn score_rows<S: Bytes>(s: S, args: &mut Dots<'_>, panels: &[u8], count: usize) {
    let panels = panels.as_chunks().0;
    let mut row = 0;
    while row < args.rows {
        // Five rows are three and two rather than four and one.
        let left = args.rows - row;
        let rows = if left == 5 { 3 } else { left.min(4) };
        let mut panel = 0;
        while panel < count {
            let left = count - panel;
            let at = (panels, panel);
            panel += match (rows, left) {
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
            };
        }
        row += rows;
    }
}

#[inline(always)]
fn score_block<S: Bytes, const R: usize, const C: usize>(
    s: S,
    args: &mut Dots<'_>,
    row: usize,
    (panels, panel): (&[[u8; 64]], usize),
) -> usize {
    let quads = args.head_dim / 4;
    let queries = &args.queries.as_chunks::<4>().0[2 * row * quads..2 * (row + R) * quads];
    let panels = &panels[panel * quads..(panel + C) * quads];
    let mut sums = [[s.nothing(); C]; R];
    for quad in 0..quads {
        // SAFETY: `C` panels, and `R` queries of two parts, of so many fours of numbers each.
        unsafe {
            let mut keys = [s.read_b(panels.get_unchecked(quad)); C];
            for c in 1..C {
                keys[c] = s.read_b(panels.get_unchecked(c * quads + quad));
            }
            for r in 0..R {
                let first = queries.get_unchecked(2 * r * quads + quad);
                let second = queries.get_unchecked((2 * r + 1) * quads + quad);
                for c in 0..C {
                    sums[r][c] = s.dot(sums[r][c], keys[c], first, second);
                }
            }
        }
    }
    for r in 0..R {
        for c in 0..C {
            let scores = scores_of(s, args.terms[row + r], sums[r][c]);
            let out = args.out[(row + r) * args.stride + (panel + c) * LANES..].first_chunk_mut();
            s.write(out.expect("whole vectors"), scores);
        }
    }
    C
}

/// A row's scores of a panel.
#[inline(always)]
pub(super) fn scores_of<S: Bytes>(s: S, terms: Integers, sums: S::Sums) -> S::F {
    s.mul(s.number_of(sums, terms.excess), s.splat(terms.factor))
}

/// What a row's scores become weights with.
pub(super) struct Weights<'a> {
    pub(super) weigh: Weigh<'a>,
    /// The first parts of the weights, then the second: half of it each.
    pub(super) bytes: &'a mut [i8],
}

byte_entries! {
    /// Turns a row's scores into weights relative to the new maximum, and those into integers relative to the largest of
    /// the tile; returns what earlier sums must be multiplied by, and what the integers stand for.
    pub(super) fn weights(args: &mut Weights<'_>, softcap: f32, running: &mut Running) -> (f32, Integers) = weight_row
}

#[inline(always)]
fn weight_row<S: Bytes>(
    s: S,
    args: &mut Weights<'_>,
    softcap: f32,
    running: &mut Running,
) -> (f32, Integers) {
    let alpha = weigh_row(s, &mut args.weigh, softcap, running);
    let scores = args.weigh.scores.as_chunks().0;
    let mut largest = s.splat(0.0);
    for scores in scores {
        largest = s.max(largest, s.read(scores));
    }
    let largest = s.reduce_max(largest);
    let inverse = if largest < 1e-30 {
        0.0
    } else {
        LARGEST / largest
    };
    let mut sum = s.splat_i(0);
    let (first, second) = args.bytes.split_at_mut(args.bytes.len() / 2);
    let parts = first
        .as_chunks_mut()
        .0
        .iter_mut()
        .zip(second.as_chunks_mut().0);
    for (scores, (first, second)) in scores.iter().zip(parts) {
        let scaled = s.mul(s.read(scores), s.splat(inverse));
        sum = s.add_i(sum, s.split(scaled, first, second));
    }
    let terms = Integers {
        factor: largest / LARGEST,
        excess: s.reduce_add_i(sum).wrapping_mul(128),
    };
    (alpha, terms)
}

/// Weights against the bytes of values.
pub(super) struct Sums<'a> {
    /// `[rows][2][stride]`.
    pub(super) weights: &'a [i8],
    pub(super) terms: &'a [Integers],
    /// What each row of `out` is multiplied by before.
    pub(super) alphas: &'a [f32],
    /// Fours of positions, at least one.
    pub(super) quads: usize,
    /// A multiple of four.
    pub(super) stride: usize,
    /// `[rows][wide]`.
    pub(super) out: &'a mut [f32],
    pub(super) rows: usize,
    pub(super) wide: usize,
}

impl<'a> Sums<'a> {
    /// Both parts of some rows' weights, by fours of positions, `stride / 4` from part to part.
    #[inline(always)]
    pub(super) fn fours<const R: usize>(&self, row: usize) -> (&'a [[i8; 4]], usize) {
        let part = self.stride / 4;
        let of_rows = &self.weights.as_chunks().0[2 * row * part..];
        (&of_rows[..(2 * R - 1) * part + self.quads], part)
    }
}

byte_entries! {
    /// `out = alpha · out + weights · values`, of `[quads][wide][4]` bytes.
    pub(super) fn values(args: &mut Sums<'_>, values: &[u8]) = value_rows
}

#[inline(always)]
fn value_rows<S: Bytes>(s: S, args: &mut Sums<'_>, values: &[u8]) {
    let values = values.as_chunks().0;
    let mut row = 0;
    while row < args.rows {
        let left = args.rows - row;
        let rows = if left == 5 { 3 } else { left.min(4) };
        let mut vector = 0;
        while vector < args.wide / LANES {
            let at = (values, vector);
            vector += match rows {
                1 if S::WIDE => value_block::<S, 1, 4>(s, args, row, at),
                2 if S::WIDE => value_block::<S, 2, 4>(s, args, row, at),
                3 if S::WIDE => value_block::<S, 3, 4>(s, args, row, at),
                4 if S::WIDE => value_block::<S, 4, 2>(s, args, row, at),
                1 => value_block::<S, 1, 2>(s, args, row, at),
                2 => value_block::<S, 2, 2>(s, args, row, at),
                3 => value_block::<S, 3, 1>(s, args, row, at),
                _ => value_block::<S, 4, 1>(s, args, row, at),
            };
        }
        row += rows;
    }
}

#[inline(always)]
fn value_block<S: Bytes, const R: usize, const C: usize>(
    s: S,
    args: &mut Sums<'_>,
    row: usize,
    (values, vector): (&[[u8; 64]], usize),
) -> usize {
    let (quads, vectors) = (args.quads, args.wide / LANES);
    let (weights, part) = args.fours::<R>(row);
    let values = &values[vector..][..(quads - 1) * vectors + C];
    let mut sums = [[s.nothing(); C]; R];
    for quad in 0..quads {
        // SAFETY: `C` vectors of each four of positions, and two parts of weights of `R` rows for them, cut so long above.
        unsafe {
            let at = quad * vectors;
            let mut bytes = [s.read_b(values.get_unchecked(at)); C];
            for c in 1..C {
                bytes[c] = s.read_b(values.get_unchecked(at + c));
            }
            for r in 0..R {
                let first = weights.get_unchecked(2 * r * part + quad);
                let second = weights.get_unchecked((2 * r + 1) * part + quad);
                for c in 0..C {
                    sums[r][c] = s.dot(sums[r][c], bytes[c], first, second);
                }
            }
        }
    }
    for r in 0..R {
        for c in 0..C {
            add_sums(s, args, row + r, vector + c, sums[r][c]);
        }
    }
    C
}

/// Adds a tile's sums of a row.
#[inline(always)]
pub(super) fn add_sums<S: Bytes>(
    s: S,
    args: &mut Sums<'_>,
    row: usize,
    vector: usize,
    sums: S::Sums,
) {
    let terms = args.terms[row];
    let sum = s.number_of(sums, terms.excess);
    let out = args.out[row * args.wide + vector * LANES..].first_chunk_mut();
    let out = out.expect("whole vectors");
    let before = s.mul(s.splat(args.alphas[row]), s.read(out));
    s.write(out, s.fma(sum, s.splat(terms.factor), before));
}

/// Where among so many sums each number of a head is.
pub(super) struct Places {
    places: Vec<i32>,
    sums: usize,
}

impl Places {
    pub(super) fn new(places: Vec<i32>, sums: usize) -> Self {
        let is_one = |place: &i32| usize::try_from(*place).is_ok_and(|place| place < sums);
        assert!(places.iter().all(is_one), "places of the sums");
        Self { places, sums }
    }
}

/// Sums in the order of the values' bytes, and the sums of other zones.
pub(super) struct Collect<'a> {
    pub(super) sums: &'a [f32],
    pub(super) places: &'a Places,
    pub(super) carried: f32,
    /// A head's numbers, whole vectors.
    pub(super) out: &'a mut [f32],
}

byte_entries! {
    /// `out = carried · out + sums`, in the model's order.
    pub(super) fn collect(args: Collect<'_>) = collect_row
}

#[inline(always)]
fn collect_row<S: Bytes>(s: S, args: Collect<'_>) {
    let Places { places, sums } = args.places;
    assert!(*sums <= args.sums.len(), "the sums of the places");
    let vectors = args.out.as_chunks_mut().0.iter_mut();
    for (out, places) in vectors.zip(places.as_chunks::<LANES>().0) {
        // SAFETY: all places are of so many sums, or there would be none.
        let sums = unsafe { s.gather(args.sums.as_ptr(), places.as_ptr()) };
        s.write(out, s.fma(s.read(out), s.splat(args.carried), sums));
    }
}
