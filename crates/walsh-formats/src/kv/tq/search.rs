//! The scale search and the quantisation of one group.
//!
//! Sums run in sixteen lanes that are then added pairwise, and no product is fused into a sum: every instruction set
//! can do exactly this, so that a cache's bytes do not depend on the machine.

use crate::codebook::Codebook;

/// What the search multiplies σ by before it quantises: seven steps of 5% around it. With them, the error of 4 bits
/// falls to about 0.82 at 64 numbers per group and 0.92 at 256.
pub const SCALE_CANDIDATES: [f32; 7] = [1.0, 0.95, 1.05, 0.9, 1.1, 0.85, 1.15];

/// Below this σ its reciprocal could overflow, so that values are first multiplied by the exact 2¹⁰⁰.
pub const TINY_SIGMA: f32 = 1e-30;

/// Sums sixteen lanes pairwise: 8 and 8, then 4 and 4, 2 and 2, 1 and 1.
#[inline]
pub fn lane_sum<T: Copy + std::ops::Add<Output = T>>(mut lanes: [T; 16]) -> T {
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            lanes[i] = lanes[i] + lanes[i + half];
        }
    }
    lanes[0]
}

/// Σ x² in double precision, where products of singles are exact: no magnitude of a finite vector overflows or vanishes.
pub(super) fn square_sum<T: Copy + Into<f64>>(values: &[T]) -> f64 {
    let mut lanes = [0.0f64; 16];
    for chunk in values.chunks(16) {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            let value: f64 = (*value).into();
            *lane += value * value;
        }
    }
    lane_sum(lanes)
}

/// Brings a group to unit root mean square: `values` becomes u = r/σ.
pub(super) fn normalise(values: &mut [f32], sigma: f32) {
    if sigma < TINY_SIGMA {
        let boost = 2f32.powi(100);
        let inverse = 1.0 / (sigma * boost);
        values.iter_mut().for_each(|v| *v = *v * boost * inverse);
    } else {
        let inverse = 1.0 / sigma;
        values.iter_mut().for_each(|v| *v *= inverse);
    }
}

/// Quantises a rotated group with no search, in double precision: which side of a boundary a number falls on does not
/// depend on how the rotation rounds.
pub(super) fn quantise(book: &Codebook, rotated: &[f64], sigma: f64, codes: &mut [u8]) {
    for (code, r) in codes.iter_mut().zip(rotated) {
        *code = book.code_f64(r / sigma);
    }
}

/// The least-squares fit of centroids to a group.
#[derive(Clone, Copy)]
struct Fit {
    /// ⟨u,c⟩.
    dot: f32,
    /// ⟨c,c⟩.
    square: f32,
}

impl Fit {
    /// How much of the squared norm the fit explains; the error is ⟨u,u⟩ less this.
    fn gain(self) -> f32 {
        self.dot * self.dot / self.square
    }
}

fn fit(book: &Codebook, unit: &[f32], inverse: f32) -> Fit {
    let (mut dot, mut square) = ([0.0f32; 16], [0.0f32; 16]);
    for chunk in unit.chunks(16) {
        for (i, u) in chunk.iter().enumerate() {
            let c = book.centroids[usize::from(book.code(u * inverse))];
            dot[i] += u * c;
            square[i] += c * c;
        }
    }
    Fit {
        dot: lane_sum(dot),
        square: lane_sum(square),
    }
}

/// Quantises a unit group at the best of the candidate scales; returns ⟨u,c⟩/⟨c,c⟩.
pub(super) fn search(book: &Codebook, unit: &[f32], codes: &mut [u8]) -> f32 {
    let mut best = fit(book, unit, 1.0);
    let mut best_inverse = 1.0;
    for candidate in &SCALE_CANDIDATES[1..] {
        let inverse = 1.0 / candidate;
        let found = fit(book, unit, inverse);
        if found.gain() > best.gain() {
            (best, best_inverse) = (found, inverse);
        }
    }
    for (code, u) in codes.iter_mut().zip(unit) {
        *code = book.code(u * best_inverse);
    }
    best.dot / best.square
}
