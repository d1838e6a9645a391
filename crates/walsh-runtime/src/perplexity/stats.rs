//! The figures of a perplexity run, accumulated over scored positions.

/// Running sums over one SPEC's scored predictions.
#[derive(Debug, Default, Clone)]
pub(crate) struct Scores {
    count: u64,
    loss: f64,
    loss_squared: f64,
    divergences: Vec<f32>,
    same_top: u64,
}

/// One prediction, scored.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Scored {
    /// −ln p(target).
    pub(crate) loss: f64,
    /// KL(reference ‖ this) in nats.
    pub(crate) divergence: f64,
    /// Whether the likeliest token is the reference's.
    pub(crate) same_top: bool,
}

impl Scores {
    pub(crate) fn add(&mut self, scored: Scored) {
        self.count += 1;
        self.loss += scored.loss;
        self.loss_squared += scored.loss * scored.loss;
        self.divergences.push(scored.divergence as f32);
        self.same_top += u64::from(scored.same_top);
    }

    /// exp(mean loss).
    pub(crate) fn perplexity(&self) -> f64 {
        self.mean_loss().exp()
    }

    /// The standard error of the perplexity: that of the mean loss, carried
    /// through the exponential.
    pub(crate) fn standard_error(&self) -> f64 {
        if self.count < 2 {
            return 0.0;
        }
        let mean = self.mean_loss();
        let variance = (self.loss_squared / self.count as f64 - mean * mean).max(0.0);
        mean.exp() * (variance / (self.count - 1) as f64).sqrt()
    }

    pub(crate) fn mean_divergence(&self) -> f64 {
        self.divergences.iter().map(|&x| f64::from(x)).sum::<f64>() / self.count.max(1) as f64
    }

    /// The standard error of the mean divergence.
    pub(crate) fn divergence_standard_error(&self) -> f64 {
        if self.count < 2 {
            return 0.0;
        }
        let mean = self.mean_divergence();
        let squares = self
            .divergences
            .iter()
            .map(|&x| (f64::from(x) - mean).powi(2));
        let count = self.count as f64;
        (squares.sum::<f64>() / count / (count - 1.0)).sqrt()
    }

    /// The divergence that the given fraction of positions stays below,
    /// interpolated between neighbours.
    pub(crate) fn divergence_percentile(&self, fraction: f64) -> f64 {
        let mut sorted = self.divergences.clone();
        sorted.sort_unstable_by(f32::total_cmp);
        let Some(last) = sorted.len().checked_sub(1) else {
            return 0.0;
        };
        let at = fraction * last as f64;
        let below = (at.floor() as usize).min(last);
        let above = (below + 1).min(last);
        let part = at - below as f64;
        f64::from(sorted[below]) * (1.0 - part) + f64::from(sorted[above]) * part
    }

    /// The fraction of positions whose likeliest token is the reference's.
    pub(crate) fn same_top(&self) -> f64 {
        self.same_top as f64 / self.count.max(1) as f64
    }

    fn mean_loss(&self) -> f64 {
        self.loss / self.count.max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scores(losses: &[f64]) -> Scores {
        let mut scores = Scores::default();
        for (i, &loss) in losses.iter().enumerate() {
            scores.add(Scored {
                loss,
                divergence: i as f64,
                same_top: i % 4 != 0,
            });
        }
        scores
    }

    #[test]
    fn perplexity_and_its_error() {
        let scores = scores(&[1.0, 2.0, 3.0, 2.0]);
        assert!((scores.perplexity() - 2.0f64.exp()).abs() < 1e-12);
        // Population variance 0.5 over 4 − 1.
        let want = 2.0f64.exp() * (0.5f64 / 3.0).sqrt();
        assert!((scores.standard_error() - want).abs() < 1e-12);
    }

    #[test]
    fn divergences() {
        let scores = scores(&[0.0; 101]);
        assert!((scores.mean_divergence() - 50.0).abs() < 1e-12);
        // The variance of 0 … 100 is (101² − 1)/12 = 850.
        let error = scores.divergence_standard_error();
        assert!((error - (850.0f64 / 100.0).sqrt()).abs() < 1e-12);
        assert!((scores.divergence_percentile(0.99) - 99.0).abs() < 1e-9);
        assert!((scores.divergence_percentile(0.995) - 99.5).abs() < 1e-9);
        assert!((scores.same_top() - 75.0 / 101.0).abs() < 1e-12);
    }

    #[test]
    fn nothing_scored_gives_no_division_by_zero() {
        let scores = Scores::default();
        assert_eq!(scores.divergence_percentile(0.99), 0.0);
        assert_eq!(scores.mean_divergence(), 0.0);
        assert_eq!(scores.divergence_standard_error(), 0.0);
        assert_eq!(scores.standard_error(), 0.0);
    }
}
