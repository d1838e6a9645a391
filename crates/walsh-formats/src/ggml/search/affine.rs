//! Types whose values are a scale times the code, and a minimum.

use half::f16;

use super::{GROUP, Group, Runs, common_scale, inverse, larger, ratio, rounded_within, smaller};

/// What a search found for a group whose runs share scales of their scales and minima.
pub(in crate::ggml) struct Affine<const L: usize> {
    /// The scale of the scales.
    pub(in crate::ggml) d: f16,
    /// The scale of the minima.
    pub(in crate::ggml) dmin: f16,
    /// The runs' whole scales.
    pub(in crate::ggml) scales: [f32; L],
    /// The runs' whole minima, which are subtracted.
    pub(in crate::ggml) minima: [f32; L],
    /// The codes, in the order of the values.
    pub(in crate::ggml) codes: [u8; GROUP],
}

/// What a search found for runs with a scale and a minimum each.
pub(in crate::ggml) struct Spans<const L: usize> {
    /// The scales.
    pub(in crate::ggml) d: [f16; L],
    /// The minima, which are added.
    pub(in crate::ggml) m: [f16; L],
    /// The codes, in the order of the values.
    pub(in crate::ggml) codes: [u8; GROUP],
}

/// Sums over a run, each times the weight.
#[derive(Clone, Copy)]
struct Sums<const L: usize> {
    codes: [f32; L],
    squares: [f32; L],
    along: [f32; L],
    error: [f32; L],
}

/// Scales and minima (which are added) of least error, and sums at them.
struct Fit<const L: usize> {
    gain: [f32; L],
    scale: [f32; L],
    min: [f32; L],
    squares: [f32; L],
}

/// How many scales are tried to either side of the range's.
const STEPS: i8 = 4;

impl<const N: usize, const L: usize> Runs<N, L> {
    #[inline(always)]
    fn affine_sums(&self, scale: &[f32; L], min: &[f32; L], most: f32) -> Sums<L> {
        let inverse = scale.map(inverse);
        let mut sums = Sums {
            codes: [0.0; L],
            squares: [0.0; L],
            along: [0.0; L],
            error: [0.0; L],
        };
        for (values, weights) in self.values.iter().zip(&self.weights) {
            for l in 0..L {
                let code = rounded_within((values[l] - min[l]) * inverse[l], 0.0, most);
                let weighed = weights[l] * code;
                sums.codes[l] += weighed;
                sums.squares[l] += weighed * code;
                sums.along[l] += weighed * values[l];
                let apart = values[l] - (scale[l] * code + min[l]);
                sums.error[l] += weights[l] * apart * apart;
            }
        }
        sums
    }

    /// The weighed sum of a run's values.
    fn along(&self) -> [f32; L] {
        let mut along = [0.0; L];
        for (values, weights) in self.values.iter().zip(&self.weights) {
            for l in 0..L {
                along[l] += weights[l] * values[l];
            }
        }
        along
    }

    /// The least and the largest value of each run.
    fn bounds(&self) -> ([f32; L], [f32; L]) {
        let (mut low, mut high) = (self.values[0], self.values[0]);
        for values in &self.values {
            for l in 0..L {
                low[l] = smaller(low[l], values[l]);
                high[l] = larger(high[l], values[l]);
            }
        }
        (low, high)
    }

    /// Scales and minima, up to zero, of least error.
    #[inline(always)]
    fn affine_fit(&self, most: f32) -> Fit<L> {
        let (low, high) = self.bounds();
        let low = low.map(|low| smaller(low, 0.0));
        let value = self.along();
        // A run of one value has no scale.
        let mut fit = Fit {
            gain: [-1.0; L],
            scale: [0.0; L],
            min: low,
            squares: [0.0; L],
        };
        let mut consider = |scale: [f32; L], min: [f32; L]| {
            let sums = self.affine_sums(&scale, &min, most);
            for l in 0..L {
                let (squares, along) = (sums.squares[l], sums.along[l]);
                let (determinant, scale, min) = self.solved(l, &sums, &value);
                let has_both = determinant > 1e-6 * self.weight[l] * squares;
                // Without a minimum.
                let is_alone = (min > 0.0) | !has_both;
                let alone = ratio(along, squares, 0.0);
                let scale = if is_alone { alone } else { scale };
                let min = if is_alone { 0.0 } else { min };
                let gain = scale * along + min * value[l];
                let is_better = (gain > fit.gain[l]) & (scale > 0.0);
                fit.gain[l] = if is_better { gain } else { fit.gain[l] };
                fit.scale[l] = if is_better { scale } else { fit.scale[l] };
                fit.min[l] = if is_better { min } else { fit.min[l] };
                fit.squares[l] = if is_better { squares } else { fit.squares[l] };
            }
            (fit.scale, fit.min)
        };
        let mut found = ([0.0; L], low);
        for (scale, min) in tries(low, high, most) {
            found = consider(scale, min);
        }
        for _ in 0..3 {
            found = consider(found.0, found.1);
        }
        fit
    }

    /// Scales and minima of any sign of least error.
    ///
    /// Where one value counts for nearly all, what least squares find is lost in rounding: what they find is kept only where
    /// the error itself is smaller.
    #[inline(always)]
    fn free_fit(&self, most: f32) -> ([f32; L], [f32; L]) {
        let (low, high) = self.bounds();
        let value = self.along();
        let mut least = [f32::INFINITY; L];
        // A run of one value has no scale.
        let (mut scales, mut minima) = ([0.0; L], low);
        let mut consider = |scale: [f32; L], min: [f32; L]| {
            let sums = self.affine_sums(&scale, &min, most);
            for l in 0..L {
                let is_better = (sums.error[l] < least[l]) & (scale[l] > 0.0);
                least[l] = if is_better { sums.error[l] } else { least[l] };
                scales[l] = if is_better { scale[l] } else { scales[l] };
                minima[l] = if is_better { min[l] } else { minima[l] };
            }
            let solved: [_; L] = std::array::from_fn(|l| self.solved(l, &sums, &value));
            let solved = (
                solved.map(|(_, scale, _)| scale),
                solved.map(|(_, _, min)| min),
            );
            (solved, (scales, minima))
        };
        let mut found = ([0.0; L], low);
        for (scale, min) in tries(low, high, most) {
            let (solved, _) = consider(scale, min);
            (_, found) = consider(solved.0, solved.1);
        }
        for _ in 0..3 {
            let (solved, _) = consider(found.0, found.1);
            (_, found) = consider(solved.0, solved.1);
        }
        found
    }

    /// The scale and the minimum of a run that least squares give for its codes, and the determinant of their equations.
    #[inline(always)]
    fn solved(&self, l: usize, sums: &Sums<L>, value: &[f32; L]) -> (f32, f32, f32) {
        let (codes, squares, along) = (sums.codes[l], sums.squares[l], sums.along[l]);
        let weight = self.weight[l];
        let determinant = weight * squares - codes * codes;
        let per = ratio(1.0, determinant, 0.0);
        let scale = (weight * along - value[l] * codes) * per;
        let min = (squares * value[l] - codes * along) * per;
        (determinant, scale, min)
    }

    fn affine_codes(&self, scale: &[f32; L], min: &[f32; L], most: f32) -> [u8; GROUP] {
        let mut codes = [0; GROUP];
        for l in 0..L {
            let inverse = inverse(scale[l]);
            for i in 0..N {
                let code = rounded_within((self.values[i][l] - min[l]) * inverse, 0.0, most);
                codes[N * l + i] = code as u8;
            }
        }
        codes
    }
}

/// Scales and minima to begin with: the least value has code 0, or is cut off by half a step.
#[inline(always)]
fn tries<const L: usize>(
    low: [f32; L],
    high: [f32; L],
    most: f32,
) -> impl Iterator<Item = ([f32; L], [f32; L])> {
    [0.0, 0.5].into_iter().flat_map(move |cut| {
        (-STEPS..=STEPS).map(move |step| {
            let codes = most + cut + f32::from(step) / f32::from(STEPS);
            let scale: [f32; L] = std::array::from_fn(|l| (high[l] - low[l]) / codes);
            (scale, std::array::from_fn(|l| low[l] + cut * scale[l]))
        })
    })
}

/// A group's scales on the way.
#[derive(Clone, Copy)]
struct State<const L: usize> {
    d: f16,
    dmin: f16,
    scales: [f32; L],
    minima: [f32; L],
}

impl<const L: usize> State<L> {
    /// What the runs are decoded with: scales, and minima to be added.
    #[inline(always)]
    fn stored(&self, group: &Group) -> ([f32; L], [f32; L]) {
        let (d, dmin) = (group.scale(self.d), group.scale(self.dmin));
        (
            self.scales.map(|scale| d * scale),
            self.minima.map(|min| -dmin * min),
        )
    }
}

impl<const L: usize> Affine<L> {
    /// Codes up to `most` of runs of `N` values, with whole scales and minima up to `levels`; `None` where the scale of the
    /// scales or of the minima is too large.
    #[inline(always)]
    pub(in crate::ggml) fn of<const N: usize>(
        group: &Group,
        most: f32,
        levels: f32,
    ) -> Option<Self> {
        let runs: Runs<N, L> = group.runs();
        let fit = runs.affine_fit(most);
        let minima = fit.min.map(|min| -min);
        let d = group.half(common_scale(&fit.scale, &fit.squares, (0.0, levels)))?;
        let dmin = group.half(common_scale(&minima, &runs.weight, (0.0, levels)))?;
        let whole = |ideal: f32, unit: f32| rounded_within(ideal * inverse(unit), 0.0, levels);
        let mut state = State {
            d,
            dmin,
            scales: fit.scale.map(|scale| whole(scale, group.scale(d))),
            minima: minima.map(|min| whole(min, group.scale(dmin))),
        };
        let mut least = f32::INFINITY;
        let value = runs.along();
        for _ in 0..2 {
            let (next, error, sums) = runs.neighbours(group, state, (most, levels), &value);
            if error >= least {
                break;
            }
            (state, least) = (next, error);
            let Some(better) = runs.rescaled(group, state, &sums, &value) else {
                break;
            };
            let (scale, min) = better.stored(group);
            let error: f32 = runs.affine_sums(&scale, &min, most).error.iter().sum();
            if error >= least {
                break;
            }
            state = better;
        }
        let (scale, min) = state.stored(group);
        Some(Affine {
            d: state.d,
            dmin: state.dmin,
            scales: state.scales,
            minima: state.minima,
            codes: runs.affine_codes(&scale, &min, most),
        })
    }
}

impl<const N: usize, const L: usize> Runs<N, L> {
    /// Each run's best of the whole scales next to its own, each with its minimum and the one that fits its codes best.
    #[inline(always)]
    fn neighbours(
        &self,
        group: &Group,
        state: State<L>,
        (most, levels): (f32, f32),
        value: &[f32; L],
    ) -> (State<L>, f32, Sums<L>) {
        let (d, dmin) = (group.scale(state.d), group.scale(state.dmin));
        let per_min = inverse(dmin);
        let mut chosen = state;
        let mut best = Sums {
            codes: [0.0; L],
            squares: [0.0; L],
            along: [0.0; L],
            error: [f32::INFINITY; L],
        };
        for step in [0.0, -1.0, 1.0] {
            let scales = state
                .scales
                .map(|scale| smaller(larger(scale + step, 0.0), levels));
            let stored = scales.map(|scale| d * scale);
            let mut minima = state.minima;
            for _ in 0..2 {
                let sums = self.affine_sums(&stored, &minima.map(|min| -dmin * min), most);
                for l in 0..L {
                    let is_better = sums.error[l] < best.error[l];
                    let pick = |a: f32, b: f32| if is_better { a } else { b };
                    chosen.scales[l] = pick(scales[l], chosen.scales[l]);
                    chosen.minima[l] = pick(minima[l], chosen.minima[l]);
                    best.codes[l] = pick(sums.codes[l], best.codes[l]);
                    best.squares[l] = pick(sums.squares[l], best.squares[l]);
                    best.along[l] = pick(sums.along[l], best.along[l]);
                    best.error[l] = pick(sums.error[l], best.error[l]);
                    let fitting = (stored[l] * sums.codes[l] - value[l]) / self.weight[l];
                    minima[l] = rounded_within(fitting * per_min, 0.0, levels);
                }
            }
        }
        (chosen, best.error.iter().sum(), best)
    }

    /// The same whole scales and minima with the scales of least error for their codes.
    fn rescaled(
        &self,
        group: &Group,
        state: State<L>,
        sums: &Sums<L>,
        value: &[f32; L],
    ) -> Option<State<L>> {
        let mut matrix = [0.0f64; 3];
        let mut right = [0.0f64; 2];
        for l in 0..L {
            let (s, m) = (f64::from(state.scales[l]), f64::from(state.minima[l]));
            matrix[0] += s * s * f64::from(sums.squares[l]);
            matrix[1] += s * m * f64::from(sums.codes[l]);
            matrix[2] += m * m * f64::from(self.weight[l]);
            right[0] += s * f64::from(sums.along[l]);
            right[1] += m * f64::from(value[l]);
        }
        // Values are d·s·q − dmin·m: the second unknown is −dmin.
        let determinant = matrix[0] * matrix[2] - matrix[1] * matrix[1];
        let (d, dmin) = if determinant > 1e-9 * matrix[0] * matrix[2] {
            (
                (right[0] * matrix[2] - right[1] * matrix[1]) / determinant,
                (right[0] * matrix[1] - right[1] * matrix[0]) / determinant,
            )
        } else if matrix[0] > 0.0 && matrix[2] == 0.0 {
            (right[0] / matrix[0], 0.0)
        } else {
            return None;
        };
        if d <= 0.0 || dmin < 0.0 {
            return None;
        }
        Some(State {
            d: group.half(d as f32)?,
            dmin: group.half(dmin as f32)?,
            ..state
        })
    }
}

impl<const L: usize> Spans<L> {
    /// Codes up to `most` of runs of `N` values with a scale and a minimum each; `None` where one is too large.
    #[inline(always)]
    pub(in crate::ggml) fn of<const N: usize>(group: &Group, most: f32) -> Option<Self> {
        let runs: Runs<N, L> = group.runs();
        let (scale, min) = runs.free_fit(most);
        let (mut d, mut m) = ([f16::ZERO; L], [f16::ZERO; L]);
        for l in 0..L {
            d[l] = group.half(scale[l])?;
            m[l] = group.half(min[l])?;
        }
        let scale = d.map(|half| group.scale(half));
        let min = m.map(|half| group.scale(half));
        Some(Spans {
            d,
            m,
            codes: runs.affine_codes(&scale, &min, most),
        })
    }
}
