//! Types whose codes are points of a grid: several magnitudes at once, whose signs lie beside them.
//!
//! With the scale r, a point g costs Σ w·(|x| − r·g)² = r·(r·square − along + energy / r), where along = 2·Σ w·|x|·g,
//! square = Σ w·g² and energy = Σ w·x². The first two are computed once for every point of the grid, after which each
//! further scale takes one product a point: every scale that is tried gets the best of all points, and no table of
//! neighbours is needed.

use half::f16;

use super::super::grid::Grid;
use super::{GROUP, Group, inverse, larger, ratio, rounded_within, smaller};

/// A type of `P` points of `V` values each.
pub(in crate::ggml) trait Lattice<const V: usize, const P: usize> {
    /// The values of a run, which have a scale.
    const RUN: usize;
    /// Whether of eight signs an even number is negative.
    const EVEN: bool;
    /// What a run's scale, an odd number, is multiplied by beside the block's.
    const UNIT: f32;

    /// Value `i` of point `p` at `[i][p]`.
    fn points() -> &'static [[f32; P]; V];
}

/// The points of a grid, value by value.
pub(in crate::ggml) fn by_value<const V: usize, const P: usize>(grid: &Grid) -> Box<[[f32; P]; V]> {
    let mut points = Box::new([[0.0; P]; V]);
    for (i, values) in points.iter_mut().enumerate() {
        for (p, value) in values.iter_mut().enumerate() {
            *value = f32::from(grid.value(p, i));
        }
    }
    points
}

/// What a search found.
pub(in crate::ggml) struct Found {
    /// The scale of the scales.
    pub(in crate::ggml) d: f16,
    /// The runs' scales, which stand for 1 + 2·scale.
    pub(in crate::ggml) scales: [u8; GROUP / 16],
    /// The points, in the order of the values.
    pub(in crate::ggml) points: [u16; GROUP / 4],
    /// The signs of eight values each: a set bit where one is negative.
    pub(in crate::ggml) signs: [u8; GROUP / 8],
}

/// The largest odd number that a scale stands for.
const MOST: f32 = 31.0;

/// Sums of the values that one point is for, for every point.
#[derive(Clone, Copy)]
struct Sums<const P: usize> {
    along: [f32; P],
    square: [f32; P],
    energy: f32,
}

/// A cell's choice for a scale.
#[derive(Clone, Copy)]
struct Choice {
    point: usize,
    is_negated: bool,
    /// Half of the point's sums along the values, and of squares.
    along: f32,
    square: f32,
}

impl<const P: usize> Sums<P> {
    const NONE: Sums<P> = Sums {
        along: [0.0; P],
        square: [0.0; P],
        energy: 0.0,
    };

    #[inline(always)]
    fn fill<const V: usize>(
        &mut self,
        points: &[[f32; P]; V],
        (values, weights): (&[f32], &[f32]),
        is_negated: bool,
    ) {
        let mut least = [f32::INFINITY; P];
        for ((values_of, value), weight) in points.iter().zip(values).zip(weights) {
            let along = 2.0 * weight * value.abs();
            self.energy += weight * value * value;
            for p in 0..P {
                self.along[p] += along * values_of[p];
                self.square[p] += weight * values_of[p] * values_of[p];
            }
            if is_negated {
                for p in 0..P {
                    least[p] = smaller(along * values_of[p], least[p]);
                }
            }
        }
        if is_negated {
            for p in 0..P {
                self.along[p] -= 2.0 * least[p];
            }
        }
    }

    /// What a point costs, as an integer: not negative but for rounding, floats are in the order of their bits.
    #[inline(always)]
    fn bits(&self, p: usize, r: f32, floor: f32) -> i32 {
        (r * self.square[p] - self.along[p] + floor)
            .to_bits()
            .cast_signed()
    }

    #[inline(always)]
    fn least(&self, r: f32) -> i32 {
        let floor = self.energy / r;
        let mut least = i32::MAX;
        for p in 0..P {
            least = least.min(self.bits(p, r, floor));
        }
        least
    }

    /// What the best point costs at a scale above zero.
    #[inline(always)]
    fn cost(&self, r: f32) -> f32 {
        r * f32::from_bits(self.least(r).cast_unsigned())
    }

    /// The best point.
    #[inline(always)]
    fn choice(&self, r: f32, is_negated: bool) -> Choice {
        let (least, floor) = (self.least(r), self.energy / r);
        let mut first = P as i32;
        for p in 0..P {
            let is_best = self.bits(p, r, floor) == least;
            first = first.min(if is_best { p as i32 } else { P as i32 });
        }
        // A scale that is no number has none.
        let point = (first as usize).min(P - 1);
        Choice {
            point,
            is_negated,
            along: self.along[point] / 2.0,
            square: self.square[point],
        }
    }
}

/// The cells of eight values, whose signs are one byte: one of eight values or two of four.
struct Eight<'a, const P: usize> {
    cells: &'a [Sums<P>],
    /// The same with a value negated, where one of them has to be.
    negated: &'a [Sums<P>],
}

impl<const P: usize> Eight<'_, P> {
    #[inline(always)]
    fn cost(&self, r: f32) -> f32 {
        match (self.cells, self.negated) {
            ([one], []) | (_, [one]) => one.cost(r),
            ([first, second, ..], []) => first.cost(r) + second.cost(r),
            ([first, second, ..], [other_first, other_second, ..]) => smaller(
                other_first.cost(r) + second.cost(r),
                first.cost(r) + other_second.cost(r),
            ),
            _ => 0.0,
        }
    }

    /// The choice of each cell, the same twice where there is one.
    #[inline(always)]
    fn choices(&self, r: f32) -> [Choice; 2] {
        match (self.cells, self.negated) {
            ([first, second, ..], []) => [first.choice(r, false), second.choice(r, false)],
            ([first, second, ..], [other_first, other_second, ..]) => {
                let is_first =
                    other_first.cost(r) + second.cost(r) <= first.cost(r) + other_second.cost(r);
                if is_first {
                    [other_first.choice(r, true), second.choice(r, false)]
                } else {
                    [first.choice(r, false), other_second.choice(r, true)]
                }
            }
            (_, [one, ..]) => [one.choice(r, true); 2],
            (cells, []) => [cells[0].choice(r, false); 2],
        }
    }
}

/// What a run costs at a scale.
#[inline(always)]
fn cost<const P: usize>(run: &[Eight<'_, P>], r: f32) -> f32 {
    let mut sum = 0.0;
    for eight in run {
        sum += eight.cost(r);
    }
    sum
}

/// The sums of the choices of a run at a scale: along and square.
#[inline(always)]
fn chosen<const P: usize>(run: &[Eight<'_, P>], each: usize, r: f32) -> (f32, f32) {
    let mut sums = (0.0, 0.0);
    for eight in run {
        for choice in &eight.choices(r)[..each] {
            sums.0 += choice.along;
            sums.1 += choice.square;
        }
    }
    sums
}

/// The scale of least error of a run, and the sum of squares at it.
#[inline(always)]
fn own_scale<const P: usize>(
    run: &[Eight<'_, P>],
    each: usize,
    (peak, largest): (f32, f32),
) -> (f32, f32) {
    /// How many scales are tried, from where the largest value is clipped to where it is not the largest number.
    const STEPS: u8 = 14;
    if peak == 0.0 {
        return (0.0, 0.0);
    }
    let mut found = (f32::INFINITY, 0.0);
    for step in 0..STEPS {
        let r = peak / largest * (0.6 + 0.075 * f32::from(step));
        let cost = cost(run, r);
        if cost < found.0 {
            found = (cost, r);
        }
    }
    let mut sums = chosen(run, each, found.1);
    // Points for the best scale, the best scale for those points.
    for _ in 0..2 {
        let r = ratio(sums.0, sums.1, 0.0);
        if r <= 0.0 {
            break;
        }
        found.1 = r;
        sums = chosen(run, each, r);
    }
    (found.1, sums.1)
}

/// The nearest odd number that a scale stands for.
#[inline(always)]
fn odd(value: f32) -> f32 {
    1.0 + 2.0 * rounded_within((value - 1.0) / 2.0, 0.0, (MOST - 1.0) / 2.0)
}

/// The scale of odd numbers that is nearest to ideal scales.
fn common_scale(ideal: &[f32], weight: &[f32]) -> f32 {
    const STEPS: i8 = 16;
    let peak = ideal.iter().copied().fold(0.0, larger);
    let mut best = (f32::INFINITY, 0.0);
    for step in -STEPS..=STEPS {
        let inverse = (MOST + f32::from(step) / 4.0) * inverse(peak);
        let (mut along, mut square) = (0.0, 0.0);
        for (ideal, weight) in ideal.iter().zip(weight) {
            let whole = odd(ideal * inverse);
            along += weight * whole * ideal;
            square += weight * whole * whole;
        }
        let scale = ratio(along, square, 0.0);
        let mut error = 0.0;
        for (ideal, weight) in ideal.iter().zip(weight) {
            let apart = ideal - scale * odd(ideal * inverse);
            error += weight * apart * apart;
        }
        if error < best.0 {
            best = (error, scale);
        }
    }
    best.1
}

impl Found {
    /// Points, signs and scales of a group; `None` where the scale of scales is too large.
    #[inline(always)]
    pub(in crate::ggml) fn of<T: Lattice<V, P>, const V: usize, const P: usize>(
        group: &Group,
    ) -> Option<Found> {
        let points = T::points();
        let each = 8 / V;
        let mut found = Found {
            d: f16::ZERO,
            scales: [0; GROUP / 16],
            points: [0; GROUP / 4],
            signs: [0; GROUP / 8],
        };
        for (byte, values) in found.signs.iter_mut().zip(group.values.chunks_exact(8)) {
            for (i, value) in values.iter().enumerate() {
                *byte |= u8::from(*value < 0.0) << i;
            }
        }
        // Loops rather than closures, which would be compiled for the narrowest registers.
        let signs = found.signs;
        let is_odd = |eight: usize| T::EVEN && signs[eight].count_ones() % 2 == 1;
        let odd_ones = (0..GROUP / 8).filter(|eight| is_odd(*eight)).count();
        let mut cells = vec![Sums::NONE; GROUP / V];
        let mut negated = vec![Sums::NONE; each * odd_ones];
        let mut next = 0;
        for (c, cell) in cells.iter_mut().enumerate() {
            let (values, weights) = (&group.values[V * c..], &group.weights[V * c..]);
            cell.fill(points, (&values[..V], &weights[..V]), false);
            if is_odd(c * V / 8) {
                negated[next].fill(points, (&values[..V], &weights[..V]), true);
                next += 1;
            }
        }
        let mut eights = Vec::with_capacity(GROUP / 8);
        let mut left = &negated[..];
        for (e, cells) in cells.chunks_exact(each).enumerate() {
            let (negated, rest) = left.split_at(if is_odd(e) { each } else { 0 });
            eights.push(Eight { cells, negated });
            left = rest;
        }
        let runs = T::RUN / 8;
        let mut largest = 0.0;
        for values in points {
            for value in values {
                largest = larger(*value, largest);
            }
        }
        let (mut ideal, mut square) = ([0.0; GROUP / 16], [0.0; GROUP / 16]);
        for (l, run) in eights.chunks_exact(runs).enumerate() {
            let mut peak = 0.0;
            for value in &group.values[l * T::RUN..][..T::RUN] {
                peak = larger(value.abs(), peak);
            }
            (ideal[l], square[l]) = own_scale(run, each, (peak, largest));
        }
        let count = GROUP / T::RUN;
        let half = |scale: f32| group.half(scale / T::UNIT);
        let stored = |half: f16| group.scale(half) * T::UNIT;
        let mut d = half(common_scale(&ideal[..count], &square[..count]))?;
        let mut scales = [1.0; GROUP / 16];
        for (scale, ideal) in scales.iter_mut().zip(ideal) {
            *scale = odd(ideal * inverse(stored(d)));
        }
        let mut least = f32::INFINITY;
        for _ in 0..3 {
            let unit = stored(d);
            // All points are as good at nothing.
            if unit <= 0.0 {
                break;
            }
            let (mut error, mut along, mut square) = (0.0, 0.0, 0.0);
            for (run, scale) in eights.chunks_exact(runs).zip(&mut scales) {
                let mut best = (f32::INFINITY, *scale);
                for step in [0.0, -2.0, 2.0] {
                    let tried = smaller(larger(*scale + step, 1.0), MOST);
                    let cost = cost(run, unit * tried);
                    if cost < best.0 {
                        best = (cost, tried);
                    }
                }
                *scale = best.1;
                error += best.0;
                let sums = chosen(run, each, unit * *scale);
                along += sums.0 * *scale;
                square += sums.1 * *scale * *scale;
            }
            if error >= least {
                break;
            }
            least = error;
            let Some(better) = half(ratio(along, square, unit)) else {
                break;
            };
            let next = stored(better);
            let mut again = 0.0;
            for (run, scale) in eights.chunks_exact(runs).zip(&scales) {
                again += cost(run, next * scale);
            }
            if better == d || again >= least || next <= 0.0 {
                break;
            }
            d = better;
        }
        found.d = d;
        for (code, scale) in found.scales.iter_mut().zip(scales) {
            *code = ((scale - 1.0) / 2.0) as u8;
        }
        for (e, eight) in eights.iter().enumerate() {
            let r = stored(d) * scales[8 * e / T::RUN];
            for (c, choice) in eight.choices(r)[..each].iter().enumerate() {
                found.points[each * e + c] = choice.point as u16;
                if choice.is_negated {
                    let at = 8 * e + V * c;
                    let cost = |i: usize| {
                        group.weights[at + i] * group.values[at + i].abs() * points[i][choice.point]
                    };
                    let least = (0..V).min_by(|a, b| cost(*a).total_cmp(&cost(*b)));
                    found.signs[e] ^= 1 << (V * c + least.unwrap_or(0));
                }
            }
        }
        Some(found)
    }
}
