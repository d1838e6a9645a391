//! Log-probabilities by a row of logits.

/// The logarithm of a softmax's denominator, and the likeliest tokens' log-probabilities.
pub(super) struct LogSoftmax {
    pub(super) log_sum: f32,
    pub(super) top: Vec<(i32, f32)>,
}

impl LogSoftmax {
    pub(super) fn of(logits: &[f32], count: usize) -> Self {
        let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = logits.iter().map(|x| f64::from(x - most).exp()).sum();
        let log_sum = most + sum.ln() as f32;
        let mut order: Vec<usize> = (0..logits.len()).collect();
        let by_logit = |a: &usize, b: &usize| logits[*b].total_cmp(&logits[*a]).then(a.cmp(b));
        if count < order.len() && count > 0 {
            order.select_nth_unstable_by(count - 1, by_logit);
        }
        order.truncate(count);
        order.sort_unstable_by(by_logit);
        let top = order
            .into_iter()
            .map(|id| (id as i32, logits[id] - log_sum));
        Self {
            log_sum,
            top: top.collect(),
        }
    }
}
