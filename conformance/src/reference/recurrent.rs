use super::{sigmoid, silu};

/// A channel of a sequence: what comes of its inputs, which follow on those of its state, whose latest are left there.
pub fn short_conv(
    weight: &[f32],
    state: &mut [f64],
    inputs: &[f32],
    passes_silu: bool,
) -> Vec<f64> {
    let mut outputs = Vec::new();
    for input in inputs {
        let mut latest = state.to_vec();
        latest.push(f64::from(*input));
        let sum: f64 = weight
            .iter()
            .zip(&latest)
            .map(|(weight, input)| f64::from(*weight) * input)
            .sum();
        outputs.push(if passes_silu { silu(sum) } else { sum });
        state.copy_from_slice(&latest[1..]);
    }
    outputs
}

/// A token of a head of the gated delta rule.
#[derive(Debug, Clone, Copy)]
pub struct DeltaToken<'a> {
    /// Not normalised.
    pub query: &'a [f32],
    /// Not normalised.
    pub key: &'a [f32],
    /// The value.
    pub value: &'a [f32],
    /// Before bias and scale.
    pub decay: f32,
    /// Before the sigmoid.
    pub rate: f32,
}

/// A head of the gated delta rule.
#[derive(Debug, Clone)]
pub struct DeltaHead {
    /// What is added to decays.
    pub bias: f32,
    /// What their softplus is multiplied by.
    pub scale: f32,
    /// `[key_dim, value_dim]`.
    pub state: Vec<f64>,
}

impl DeltaHead {
    /// Takes a token in; what its query reads.
    pub fn token(&mut self, token: DeltaToken<'_>) -> Vec<f64> {
        let unit = |x: &[f32]| -> Vec<f64> {
            let squares: f64 = x.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
            let norm = (squares + 1e-6).sqrt();
            x.iter().map(|x| f64::from(*x) / norm).collect()
        };
        let (query, key) = (unit(token.query), unit(token.key));
        let columns = token.value.len();
        let softplus = f64::from(token.decay + self.bias).exp().ln_1p();
        let kept = (f64::from(self.scale) * softplus).exp();
        self.state.iter_mut().for_each(|number| *number *= kept);
        let along = |state: &[f64], vector: &[f64], column: usize| -> f64 {
            let rows = state.chunks_exact(columns).zip(vector);
            rows.map(|(row, x)| row[column] * x).sum()
        };
        for column in 0..columns {
            let found = along(&self.state, &key, column);
            let change = sigmoid(f64::from(token.rate)) * (f64::from(token.value[column]) - found);
            for (row, k) in self.state.chunks_exact_mut(columns).zip(&key) {
                row[column] += k * change;
            }
        }
        let read = |column| along(&self.state, &query, column) / (key.len() as f64).sqrt();
        (0..columns).map(read).collect()
    }
}
