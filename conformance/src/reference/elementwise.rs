/// `1 / (1 + e⁻ˣ)`.
#[must_use]
pub fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

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

/// `g · sigmoid(alpha · g) · (u + 1)` of a gate g that is at most the limit and u within it.
#[must_use]
pub fn clamped_swish([gate, up]: [f64; 2], alpha: f64, limit: f64) -> f64 {
    // A bound leaves what is no number.
    let below = |x: f64, most: f64| if x > most { most } else { x };
    let (gate, up) = (below(gate, limit), -below(-below(up, limit), limit));
    gate / (1.0 + (-alpha * gate).exp()) * (up + 1.0)
}
