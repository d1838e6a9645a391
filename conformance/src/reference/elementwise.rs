/// `x · sigmoid(x)`.
#[must_use]
pub fn silu(x: f64) -> f64 {
    x / (1.0 + (-x).exp())
}

/// GELU in its tanh form.
#[must_use]
pub fn gelu_tanh(x: f64) -> f64 {
    let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3));
    0.5 * x * (1.0 + inner.tanh())
}

/// `cap · tanh(x / cap)`.
#[must_use]
pub fn softcap(x: f64, cap: f64) -> f64 {
    cap * (x / cap).tanh()
}
