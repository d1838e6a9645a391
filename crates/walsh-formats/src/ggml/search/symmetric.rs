//! Types whose values are a scale times a number that the code stands for.

use half::f16;

use super::{GROUP, Group, Runs, common_scale, inverse, larger, ratio, rounded_within, smaller};

/// The numbers that codes stand for.
pub(in crate::ggml) trait Grid {
    /// The least and the largest number.
    const ENDS: (f32, f32);
    /// How far the searched scales lie apart, in numbers.
    const STEP: f32;
    /// Whether the largest value may be near either end of the numbers, which matters where the ends differ by much.
    const HAS_TWO_ENDS: bool;

    /// The number nearest to `value`.
    fn nearest(value: f32) -> f32;

    /// The code of a number of the grid.
    fn code(number: f32) -> u8;
}

/// The whole numbers from −`HALF` to `HALF` − 1, with codes from 0 on.
pub(in crate::ggml) struct Even<const HALF: i8>;

impl<const HALF: i8> Grid for Even<HALF> {
    const ENDS: (f32, f32) = (-(HALF as f32), HALF as f32 - 1.0);
    const STEP: f32 = 0.125;
    const HAS_TWO_ENDS: bool = HALF < 16;

    #[inline(always)]
    fn nearest(value: f32) -> f32 {
        rounded_within(value, Self::ENDS.0, Self::ENDS.1)
    }

    fn code(number: f32) -> u8 {
        (number - Self::ENDS.0) as u8
    }
}

/// What a search found: a scale for the group, or one for each run, and the codes in the order of the values.
pub(in crate::ggml) struct Symmetric<const L: usize> {
    /// The scale of the scales.
    pub(in crate::ggml) d: f16,
    /// The runs' whole scales.
    pub(in crate::ggml) scales: [f32; L],
    /// The codes.
    pub(in crate::ggml) codes: [u8; GROUP],
}

/// Sums over a run whose numbers are given by a scale.
struct Sums<const L: usize> {
    /// Of weight·number·value.
    along: [f32; L],
    /// Of weight·number².
    square: [f32; L],
    /// Of the weighed squared errors.
    error: [f32; L],
}

impl<const N: usize, const L: usize> Runs<N, L> {
    /// The sums with codes for one scale and errors against another.
    #[inline(always)]
    fn sums<G: Grid>(&self, inverse: &[f32; L], scale: &[f32; L]) -> Sums<L> {
        let mut sums = Sums {
            along: [0.0; L],
            square: [0.0; L],
            error: [0.0; L],
        };
        for (values, weights) in self.values.iter().zip(&self.weights) {
            for l in 0..L {
                let number = G::nearest(values[l] * inverse[l]);
                let weighed = weights[l] * number;
                sums.along[l] += weighed * values[l];
                sums.square[l] += weighed * number;
                let apart = values[l] - scale[l] * number;
                sums.error[l] += weights[l] * apart * apart;
            }
        }
        sums
    }

    /// The scale of least error for each run, and the sum of weight·number² at it.
    #[inline(always)]
    fn symmetric_scales<G: Grid>(&self, steps: i8) -> ([f32; L], [f32; L]) {
        let mut peak = [0.0f32; L];
        for values in &self.values {
            for l in 0..L {
                peak[l] = if values[l].abs() > peak[l].abs() {
                    values[l]
                } else {
                    peak[l]
                };
            }
        }
        let mut best = ([-1.0; L], [0.0; L], [0.0; L]);
        let mut consider = |inverse: [f32; L]| {
            let sums = self.sums::<G>(&inverse, &[0.0; L]);
            for l in 0..L {
                let scale = ratio(sums.along[l], sums.square[l], 0.0);
                let gain = scale * sums.along[l];
                let is_better = gain > best.0[l];
                best.0[l] = if is_better { gain } else { best.0[l] };
                best.1[l] = if is_better { scale } else { best.1[l] };
                best.2[l] = if is_better { sums.square[l] } else { best.2[l] };
            }
            best.1
        };
        let mut scale = [0.0; L];
        let ends = [G::ENDS.0, G::ENDS.1];
        for end in &ends[..1 + usize::from(G::HAS_TWO_ENDS)] {
            for step in -steps..=steps {
                let end = end + G::STEP * f32::from(step);
                scale = consider(peak.map(|peak| end * inverse(peak)));
            }
        }
        // Codes for the best scale, the best scale for those codes.
        for _ in 0..2 {
            scale = consider(scale.map(inverse));
        }
        (scale, best.2)
    }

    /// The codes for scales, in the order of the values.
    fn symmetric_codes<G: Grid>(&self, scale: &[f32; L]) -> [u8; GROUP] {
        let mut codes = [0; GROUP];
        for l in 0..L {
            let inverse = inverse(scale[l]);
            for i in 0..N {
                codes[N * l + i] = G::code(G::nearest(self.values[i][l] * inverse));
            }
        }
        codes
    }
}

impl<const L: usize> Symmetric<L> {
    /// Codes of runs of `N` values, whose scales are whole numbers of `range` times one for all. `None` where that is too
    /// large.
    #[inline(always)]
    pub(in crate::ggml) fn of<G: Grid, const N: usize>(
        group: &Group,
        steps: i8,
        range: (f32, f32),
    ) -> Option<Self> {
        let runs: Runs<N, L> = group.runs();
        let (ideal, square) = runs.symmetric_scales::<G>(steps);
        let mut d = group.half(common_scale(&ideal, &square, range))?;
        let unit = group.scale(d);
        let mut scales = ideal.map(|scale| rounded_within(scale * inverse(unit), range.0, range.1));
        let mut least = f32::INFINITY;
        for _ in 0..3 {
            let unit = group.scale(d);
            let (mut best, mut chosen) = ([f32::INFINITY; L], scales);
            let (mut along, mut square) = (0.0, 0.0);
            let mut parts = ([0.0; L], [0.0; L]);
            for step in [0.0, -1.0, 1.0] {
                let tried = scales.map(|scale| smaller(larger(scale + step, range.0), range.1));
                let stored = tried.map(|scale| unit * scale);
                let sums = runs.sums::<G>(&stored.map(inverse), &stored);
                for l in 0..L {
                    let is_better = sums.error[l] < best[l];
                    best[l] = if is_better { sums.error[l] } else { best[l] };
                    chosen[l] = if is_better { tried[l] } else { chosen[l] };
                    parts.0[l] = if is_better { sums.along[l] } else { parts.0[l] };
                    parts.1[l] = if is_better {
                        sums.square[l]
                    } else {
                        parts.1[l]
                    };
                }
            }
            scales = chosen;
            let error: f32 = best.iter().sum();
            if error >= least {
                break;
            }
            least = error;
            for l in 0..L {
                along += parts.0[l] * scales[l];
                square += parts.1[l] * scales[l] * scales[l];
            }
            let Some(better) = group.half(ratio(along, square, unit)) else {
                break;
            };
            let next = group.scale(better);
            let stored = scales.map(|scale| next * scale);
            let sums = runs.sums::<G>(&stored.map(inverse), &stored);
            if better == d || sums.error.iter().sum::<f32>() >= least {
                break;
            }
            d = better;
        }
        let unit = group.scale(d);
        Some(Symmetric {
            d,
            scales,
            codes: runs.symmetric_codes::<G>(&scales.map(|scale| unit * scale)),
        })
    }

    /// Codes of runs of `N` values with a half each for its scale; `None` where one is too large.
    #[inline(always)]
    pub(in crate::ggml) fn apart<G: Grid, const N: usize>(
        group: &Group,
        steps: i8,
    ) -> Option<([f16; L], [u8; GROUP])> {
        let runs: Runs<N, L> = group.runs();
        let (ideal, _) = runs.symmetric_scales::<G>(steps);
        let mut halves = [f16::ZERO; L];
        for l in 0..L {
            halves[l] = group.half(ideal[l])?;
        }
        let stored = halves.map(|half| group.scale(half));
        Some((halves, runs.symmetric_codes::<G>(&stored)))
    }
}
