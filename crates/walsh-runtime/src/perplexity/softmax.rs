//! Log-softmax over a row of logits, with the sums in double precision.
//!
//! The exponential is a polynomial in plain arithmetic, which the compiler
//! vectorises; rows of 262,144 logits are scored by the thousand.

use crate::{Error, Result};

/// What turns a row's logits into log-probabilities.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Normaliser {
    /// The largest logit.
    max: f32,
    /// ln Σ exp(logit).
    log_sum: f64,
    /// The index of the largest logit, the first one of equals.
    pub(crate) top: usize,
}

impl Normaliser {
    /// The normaliser of a row, or nothing when the row is empty or a logit is
    /// not finite.
    pub(crate) fn new(logits: &[f32]) -> Option<Self> {
        let max = finite_max(logits)?;
        let top = logits.iter().position(|&x| x == max)?;
        let log_sum = f64::from(max) + sum_exp(logits, max).ln();
        Some(Self { max, log_sum, top })
    }

    /// ln softmax(logits)[index].
    pub(crate) fn log_probability(&self, logit: f32) -> f64 {
        f64::from(logit) - self.log_sum
    }
}

/// The natural logarithm of a token's probability by a row of logits, and
/// whether it is the likeliest there, the first of equals.
///
/// # Errors
/// When a logit is not finite, or the token is none of the row's.
pub fn log_likelihood(logits: &[f32], token: i32) -> Result<(f64, bool)> {
    let row = Normaliser::new(logits).ok_or_else(|| Error::Logits {
        what: "a logit is not finite".into(),
    })?;
    let id = usize::try_from(token).ok().filter(|id| *id < logits.len());
    let id = id.ok_or_else(|| {
        let vocabulary = logits.len();
        Error::option(
            "token",
            format_args!("below the vocabulary's {vocabulary}"),
            token,
        )
    })?;
    Ok((row.log_probability(logits[id]), row.top == id))
}

/// KL(reference ‖ other) in nats, over two rows of the same length.
pub(crate) fn divergence(reference: (&[f32], &Normaliser), other: (&[f32], &Normaliser)) -> f64 {
    let (sum, weighted) = exp_difference(reference.0, reference.1.max, other.0);
    // Rounding can leave a divergence of equal rows a hair below zero.
    (weighted / sum + other.1.log_sum - reference.1.log_sum).max(0.0)
}

const LANES: usize = 16;
/// Terms that are added in single precision before the sum moves to double.
const BLOCK: usize = 8 * LANES;

fn finite_max(logits: &[f32]) -> Option<f32> {
    const EXPONENT: u32 = 0x7f80_0000;
    let mut max = [f32::NEG_INFINITY; LANES];
    let mut bad = 0u32;
    let chunks = logits.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        let mut any = 0u32;
        for lane in 0..LANES {
            let x = chunk[lane];
            any |= u32::from(x.to_bits() & EXPONENT == EXPONENT);
            max[lane] = if x > max[lane] { x } else { max[lane] };
        }
        bad |= any;
    }
    for &x in rest {
        bad |= u32::from(!x.is_finite());
        max[0] = max[0].max(x);
    }
    let max = max.into_iter().fold(f32::NEG_INFINITY, f32::max);
    (bad == 0 && max.is_finite()).then_some(max)
}

/// exp(x) for x ≤ 0, to about 1e-7 relative; exp(−87) below −87.
#[inline(always)]
fn exp_negative(x: f32) -> f32 {
    // Adding and subtracting this rounds to the nearest integer.
    const ROUND: f32 = 12_582_912.0;
    let x = if x < -87.0 { -87.0 } else { x };
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    // ln 2 in two parts: the first has zeros at its end, so n times it is exact.
    let r = (x - n * 0.693_359_4) - n * -2.121_944_4e-4;
    let mut p = 1.0 / 5040.0;
    p = p * r + 1.0 / 720.0;
    p = p * r + 1.0 / 120.0;
    p = p * r + 1.0 / 24.0;
    p = p * r + 1.0 / 6.0;
    p = p * r + 0.5;
    p = p * r + 1.0;
    p = p * r + 1.0;
    let power = ((n as i32) + 127) as u32;
    p * f32::from_bits(power << 23)
}

/// Σ exp(x − max).
fn sum_exp(logits: &[f32], max: f32) -> f64 {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: this CPU has AVX2.
        return unsafe { sum_exp_avx2(logits, max) };
    }
    sum_exp_body(logits, max)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn sum_exp_avx2(logits: &[f32], max: f32) -> f64 {
    sum_exp_body(logits, max)
}

#[inline(always)]
fn sum_exp_body(logits: &[f32], max: f32) -> f64 {
    let mut total = 0.0f64;
    for block in logits.chunks(BLOCK) {
        let mut sums = [0.0f32; LANES];
        let chunks = block.chunks_exact(LANES);
        let rest = chunks.remainder();
        for chunk in chunks {
            for lane in 0..LANES {
                sums[lane] += exp_negative(chunk[lane] - max);
            }
        }
        for &x in rest {
            sums[0] += exp_negative(x - max);
        }
        total += f64::from(sums.iter().sum::<f32>());
    }
    total
}

/// Σ exp(x − max) and Σ exp(x − max)·(x − y), from the same exponentials.
fn exp_difference(x: &[f32], max: f32, y: &[f32]) -> (f64, f64) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: this CPU has AVX2.
        return unsafe { exp_difference_avx2(x, max, y) };
    }
    exp_difference_body(x, max, y)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn exp_difference_avx2(x: &[f32], max: f32, y: &[f32]) -> (f64, f64) {
    exp_difference_body(x, max, y)
}

#[inline(always)]
fn exp_difference_body(x: &[f32], max: f32, y: &[f32]) -> (f64, f64) {
    let mut sums = [0.0f64; LANES];
    let mut weighted = [0.0f64; LANES];
    let (xs, ys) = (x.chunks_exact(LANES), y.chunks_exact(LANES));
    let (x_rest, y_rest) = (xs.remainder(), ys.remainder());
    for (x, y) in xs.zip(ys) {
        let mut e = [0.0f32; LANES];
        for lane in 0..LANES {
            e[lane] = exp_negative(x[lane] - max);
        }
        for lane in 0..LANES {
            let e = f64::from(e[lane]);
            sums[lane] += e;
            // The difference of close logits is what counts: it is exact here.
            weighted[lane] += e * (f64::from(x[lane]) - f64::from(y[lane]));
        }
    }
    for (&x, &y) in x_rest.iter().zip(y_rest) {
        let e = f64::from(exp_negative(x - max));
        sums[0] += e;
        weighted[0] += e * (f64::from(x) - f64::from(y));
    }
    (sums.iter().sum(), weighted.iter().sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(seed: u32, len: usize, spread: f32) -> Vec<f32> {
        let mut state = seed;
        (0..len)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / (1 << 24) as f32 * spread - spread / 2.0
            })
            .collect()
    }

    fn log_softmax(row: &[f32]) -> Vec<f64> {
        let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = row.iter().map(|&x| f64::from(x - max).exp()).sum();
        row.iter()
            .map(|&x| f64::from(x) - f64::from(max) - sum.ln())
            .collect()
    }

    #[test]
    fn exponential_is_close_over_its_range() {
        for i in 0..=87_000 {
            let x = -(i as f32) / 1000.0;
            let (got, want) = (f64::from(exp_negative(x)), f64::from(x).exp());
            assert!(
                (got / want - 1.0).abs() < 3e-7,
                "exp({x}): {got} for {want}"
            );
        }
        assert!(exp_negative(-1e30) < 1e-37);
    }

    #[test]
    fn log_probabilities_are_those_of_a_double_precision_softmax() {
        for (len, spread) in [(1, 1.0), (15, 8.0), (129, 40.0), (49_153, 60.0)] {
            let logits = row(len as u32, len, spread);
            let norm = Normaliser::new(&logits).expect("finite");
            for (&x, want) in logits.iter().zip(log_softmax(&logits)) {
                assert!((norm.log_probability(x) - want).abs() < 1e-6);
            }
        }
    }

    #[test]
    fn divergence_is_that_of_its_definition() {
        for (len, noise) in [(17, 1.0), (4_099, 0.1), (49_152, 0.01)] {
            let p = row(1, len, 30.0);
            let q: Vec<f32> = p
                .iter()
                .zip(row(2, len, noise))
                .map(|(a, b)| a + b)
                .collect();
            let (lp, lq) = (log_softmax(&p), log_softmax(&q));
            let want: f64 = lp.iter().zip(&lq).map(|(a, b)| a.exp() * (a - b)).sum();
            let norms = (
                Normaliser::new(&p).expect("finite"),
                Normaliser::new(&q).expect("finite"),
            );
            let got = divergence((&p, &norms.0), (&q, &norms.1));
            assert!((got - want).abs() < 1e-7 + 1e-4 * want, "{got} for {want}");
            assert_eq!(divergence((&p, &norms.0), (&p, &norms.0)), 0.0);
        }
    }

    #[test]
    fn the_likeliest_is_the_first_of_equals() {
        let logits = [0.0, 3.0, 1.0, 3.0];
        let found = |token| log_likelihood(&logits, token).expect("finite");
        assert_eq!(
            [0, 1, 2, 3].map(|token| found(token).1),
            [false, true, false, false]
        );
        assert!((found(1).0 - log_softmax(&logits)[1]).abs() < 1e-6);
        assert_eq!(found(1).0, found(3).0);
    }

    #[test]
    fn what_has_no_likelihood_is_refused() {
        assert!(matches!(
            log_likelihood(&[0.0, f32::NAN], 0),
            Err(Error::Logits { .. })
        ));
        for token in [-1, 2] {
            let refused = log_likelihood(&[0.0, 1.0], token).expect_err("no token of two");
            assert!(
                refused.to_string().contains("below the vocabulary's 2"),
                "{refused}"
            );
        }
    }

    #[test]
    fn rows_that_are_empty_or_not_finite_have_none() {
        assert_eq!(Normaliser::new(&[]), None);
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for at in [0, 16, 32] {
                let mut logits = vec![0.5; 33];
                logits[at] = bad;
                assert_eq!(Normaliser::new(&logits), None, "{bad} at {at}");
            }
        }
    }
}
