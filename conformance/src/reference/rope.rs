use std::f64::consts::TAU;

use walsh::ops::{Pairing, RopeConfig, RopeScaling};

/// The angle per position of pair `i`, and the factor of the rotated numbers.
fn frequency(config: &RopeConfig, i: usize) -> (f64, f64) {
    let dims = config.dims as f64;
    let base = f64::from(config.base);
    let divisor = config.factors.as_ref().map_or(1.0, |f| f64::from(f[i]));
    let plain = base.powf(-(2.0 * i as f64) / dims) / divisor;
    match config.scaling {
        RopeScaling::None => (plain, 1.0),
        RopeScaling::Linear { factor } => (plain / f64::from(factor), 1.0),
        RopeScaling::Llama3 {
            factor,
            low_frequency_factor,
            high_frequency_factor,
            original_context,
        } => {
            let context = f64::from(original_context);
            let (low, high) = (
                f64::from(low_frequency_factor),
                f64::from(high_frequency_factor),
            );
            let wavelength = TAU / plain;
            let scaled = plain / f64::from(factor);
            if wavelength < context / high {
                (plain, 1.0)
            } else if wavelength > context / low {
                (scaled, 1.0)
            } else {
                let smooth = (context / wavelength - low) / (high - low);
                ((1.0 - smooth) * scaled + smooth * plain, 1.0)
            }
        }
        RopeScaling::Yarn {
            factor,
            original_context,
            extrapolation,
            attention_factor,
            beta_fast,
            beta_slow,
            rounded,
        } => {
            let factor = f64::from(factor);
            let correction = |beta: f32| {
                dims * (f64::from(original_context) / (f64::from(beta) * TAU)).ln()
                    / (2.0 * base.ln())
            };
            let whole = |x: f64, round: fn(f64) -> f64| if rounded { round(x) } else { x };
            let low = whole(correction(beta_fast), f64::floor).max(0.0);
            let high = whole(correction(beta_slow), f64::ceil).min(dims - 1.0);
            let ramp = ((i as f64 - low) / (high - low).max(0.001)).clamp(0.0, 1.0);
            let mix = (1.0 - ramp) * f64::from(extrapolation);
            let magnitude = if extrapolation == 0.0 {
                1.0
            } else {
                1.0 + 0.1 * factor.ln()
            };
            (
                plain / factor * (1.0 - mix) + plain * mix,
                f64::from(attention_factor) * magnitude,
            )
        }
    }
}

/// Rotates the heads of each token: `input` is `[positions, heads, head_dim]`.
#[must_use]
pub fn rope(input: &[f32], positions: &[i32], head_dim: usize, config: &RopeConfig) -> Vec<f64> {
    let mut out: Vec<f64> = input.iter().map(|x| f64::from(*x)).collect();
    let token = input.len() / positions.len();
    let pairs = config.dims as usize / 2;
    for (tokens, position) in out.chunks_exact_mut(token).zip(positions) {
        let warmth = config.temperature.map_or(1.0, |of| {
            let times = (f64::from(*position) / f64::from(of.context)).floor();
            1.0 + f64::from(of.scale) * (1.0 + times).ln()
        });
        for head in tokens.chunks_exact_mut(head_dim) {
            for i in 0..pairs {
                let (first, second) = match config.pairing {
                    Pairing::Pairwise => (2 * i, 2 * i + 1),
                    Pairing::HalfSplit => (i, i + pairs),
                };
                let (frequency, magnitude) = frequency(config, i);
                let (sin, cos) = (f64::from(*position) * frequency).sin_cos();
                let magnitude = magnitude * warmth;
                let (a, b) = (head[first], head[second]);
                head[first] = (a * cos - b * sin) * magnitude;
                head[second] = (a * sin + b * cos) * magnitude;
            }
        }
    }
    out
}
