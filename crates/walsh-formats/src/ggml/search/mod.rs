//! The search for scales: what encoders do beyond rounding.
//!
//! A block's values are looked at in runs, which have a scale each, side by side: all sums go along runs, so that the
//! compiler makes one lane of a register of each. The error that is made small is that of squares, each weighed with
//! the importance of its column and, as large weights matter more to a model than small ones, with about the size of
//! the value.

mod affine;
mod points;
mod symmetric;

pub(super) use affine::{Affine, Spans};
pub(super) use points::{Found, Lattice, by_value};
pub(super) use symmetric::{Even, Grid, Symmetric};

use half::f16;

/// How many values are searched at once: a block of the K types, and eight blocks of the types of 32 values.
pub(super) const GROUP: usize = 256;

/// A group of values, in units of a power of two near the largest.
pub(super) struct Group {
    values: [f32; GROUP],
    /// How much a squared error counts; the largest is 1.
    weights: [f32; GROUP],
    unit: f32,
}

/// Values of several runs side by side: value `i` of run `l` at `[i][l]`.
pub(super) struct Runs<const N: usize, const L: usize> {
    values: [[f32; L]; N],
    weights: [[f32; L]; N],
    /// The sum of a run's weights.
    weight: [f32; L],
}

impl Group {
    /// `importance` has a number for each value, none of them negative or without an end; without it all count alike.
    pub(super) fn new(values: &[f32; GROUP], importance: Option<&[f32; GROUP]>) -> Group {
        // What is smaller is zero in half precision, whatever the type.
        const TINY: f32 = 1e-15;
        let peak = values
            .iter()
            .fold(0.0, |peak, value| larger(peak, value.abs()));
        if peak < TINY {
            return Group {
                values: [0.0; GROUP],
                weights: [1.0; GROUP],
                unit: 1.0,
            };
        }
        // A power of two changes no value but the exponent.
        let unit = f32::from_bits(peak.to_bits() & 0xff80_0000);
        let values = values.map(|value| value / unit);
        let mean = values.iter().map(|value| value * value).sum::<f32>() * (2.0 / GROUP as f32);
        let most = importance.map_or(0.0, |all| all.iter().copied().fold(0.0, larger));
        let mut weights = values.map(|value| (mean + value * value).sqrt());
        if let Some(importance) = importance.filter(|_| most > 0.0) {
            for (weight, importance) in weights.iter_mut().zip(importance) {
                // A column that no text has reached yet is not one that may become anything.
                *weight *= larger(importance / most, 1e-5);
            }
        }
        Group {
            values,
            weights,
            unit,
        }
    }

    /// The group's runs of `N` values.
    pub(super) fn runs<const N: usize, const L: usize>(&self) -> Runs<N, L> {
        const { assert!(N * L == GROUP) };
        let mut runs = Runs {
            values: [[0.0; L]; N],
            weights: [[0.0; L]; N],
            weight: [0.0; L],
        };
        for i in 0..N {
            for l in 0..L {
                runs.values[i][l] = self.values[N * l + i];
                runs.weights[i][l] = self.weights[N * l + i];
                runs.weight[l] += runs.weights[i][l];
            }
        }
        runs
    }

    /// The half that a scale in units of the group is stored as; `None` where it is too large.
    fn half(&self, scale: f32) -> Option<f16> {
        super::parts::half(scale * self.unit)
    }

    /// A stored scale in units of the group.
    fn scale(&self, half: f16) -> f32 {
        half.to_f32() / self.unit
    }
}

/// The larger number, as one instruction: of two that cannot be compared, the second.
#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

/// The smaller number.
#[inline(always)]
fn smaller(a: f32, b: f32) -> f32 {
    if a < b { a } else { b }
}

/// The nearest integer, even of two, of a number below 2^22.
#[inline(always)]
fn rounded(value: f32) -> f32 {
    const SHIFT: f32 = 12_582_912.0;
    (value + SHIFT) - SHIFT
}

/// The nearest integer from `least` to `most`.
#[inline(always)]
fn rounded_within(value: f32, least: f32, most: f32) -> f32 {
    rounded(smaller(larger(value, least), most))
}

/// 1 / scale, or 0 of zero.
#[inline(always)]
fn inverse(scale: f32) -> f32 {
    let is_zero = scale == 0.0;
    let inverse = 1.0 / if is_zero { 1.0 } else { scale };
    if is_zero { 0.0 } else { inverse }
}

/// a / b, or `other` where `b` is not above zero. (Divided either way, so that lanes need not part.)
#[inline(always)]
fn ratio(a: f32, b: f32, other: f32) -> f32 {
    let is_there = b > 0.0;
    let ratio = a / if is_there { b } else { 1.0 };
    if is_there { ratio } else { other }
}

/// The scale of whole numbers from `least` to `most` that is nearest to ideal scales: the sum of their squared
/// distances, each times its weight, is the smallest of all candidates'.
fn common_scale<const L: usize>(
    ideal: &[f32; L],
    weight: &[f32; L],
    (least, most): (f32, f32),
) -> f32 {
    const STEPS: i8 = 12;
    let mut peak = 0.0f32;
    for &scale in ideal {
        if scale.abs() > peak.abs() {
            peak = scale;
        }
    }
    if peak == 0.0 {
        return 0.0;
    }
    let mut best = (f32::INFINITY, 0.0);
    for end in [least, most] {
        for step in -STEPS..=STEPS {
            if end == 0.0 {
                continue;
            }
            let inverse = end * (1.0 + f32::from(step) / 8.0 / most) / peak;
            let (mut along, mut square) = (0.0, 0.0);
            let whole = ideal.map(|scale| rounded_within(scale * inverse, least, most));
            for l in 0..L {
                along += weight[l] * whole[l] * ideal[l];
                square += weight[l] * whole[l] * whole[l];
            }
            let scale = ratio(along, square, 0.0);
            let mut error = 0.0;
            for l in 0..L {
                let apart = ideal[l] - scale * whole[l];
                error += weight[l] * apart * apart;
            }
            if error < best.0 {
                best = (error, scale);
            }
        }
    }
    best.1
}
