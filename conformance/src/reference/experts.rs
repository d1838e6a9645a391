use walsh::ops::Scoring;

use super::order;

/// The experts that a token goes to, and their weights.
#[must_use]
pub fn route(
    logits: &[f32],
    bias: Option<&[f32]>,
    scoring: Scoring,
    used: usize,
) -> (Vec<i32>, Vec<f64>) {
    let sigmoid = |x: f32| 1.0 / (1.0 + (-f64::from(x)).exp());
    // Without a bias a score's order is that of logits, in which no two that differ are rounded to equals.
    let mut ids = order(logits);
    if let Some(bias) = bias {
        let score = |id: &i32| sigmoid(logits[*id as usize]) + f64::from(bias[*id as usize]);
        ids.sort_by(|a, b| score(b).total_cmp(&score(a)).then(a.cmp(b)));
    }
    ids.truncate(used);
    let most = logits.iter().fold(f32::MIN, |a, b| a.max(*b));
    let raised = |x: f32| (f64::from(x) - f64::from(most)).exp();
    let chosen = ids.iter().map(|id| logits[*id as usize]);
    let weights: Vec<f64> = match scoring {
        Scoring::Softmax | Scoring::SoftmaxOfChosen => chosen.map(raised).collect(),
        Scoring::Sigmoid { .. } => chosen.map(sigmoid).collect(),
    };
    let sum = match scoring {
        Scoring::Softmax => logits.iter().map(|logit| raised(*logit)).sum(),
        Scoring::SoftmaxOfChosen => weights.iter().sum(),
        Scoring::Sigmoid { normalised: true } => weights.iter().sum::<f64>() + 1e-20,
        Scoring::Sigmoid { normalised: false } => 1.0,
    };
    (ids, weights.iter().map(|weight| weight / sum).collect())
}

/// Rows of `width` numbers, those of a token weighted and added up.
#[must_use]
pub fn weighted_sum(input: &[f32], weights: &[f32], slots: usize, width: usize) -> Vec<f64> {
    let tokens = input.chunks_exact(slots * width);
    let sum = |(rows, weights): (&[f32], &[f32])| -> Vec<f64> {
        let column = |column: usize| {
            let rows = rows.chunks_exact(width).zip(weights);
            rows.map(|(row, weight)| f64::from(row[column]) * f64::from(*weight))
                .sum()
        };
        (0..width).map(column).collect()
    };
    tokens
        .zip(weights.chunks_exact(slots))
        .flat_map(sum)
        .collect()
}
