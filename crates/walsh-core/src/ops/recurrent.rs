//! Layers that keep a state of fixed size instead of keys and values: the short convolution and the gated delta rule.
//!
//! A sequence's state lies in a slot of its own, which is what it was behind the sequence's latest token. A run of a
//! sequence's tokens that begins at position 0 takes a state of zeros, whatever the slot holds.

use std::fmt;

use walsh_formats::DType;

use super::check::Check;
use super::cost::{Cost, bytes};
use super::kv::check_sequences;
use super::operation::Operation;
use crate::Result;
use crate::buffer::Span;
use crate::hazard::Accesses;
use crate::tensor::Tensor;
use crate::tokens::TokenLimits;

/// A causal convolution of each channel over a token and those before it, and SiLU where that is asked for:
/// `output[t, c] = silu(Σ_j weight[c, j] · input[t − taps + 1 + j, c])`.
///
/// The tokens of a sequence follow each other, and their positions ascend by one; others are an
/// [`Error::Value`](crate::Error::Value) when the list runs, and no state is written then. What a token is given does not
/// depend on how a sequence was split over calls.
#[derive(Debug, Clone)]
pub struct ShortConv {
    /// `f32 [n, channels]`; the channels are a multiple of 16.
    pub input: Tensor,
    /// `f32 [channels, taps]`, the latest token's last; from 2 to [`MOST_TAPS`](Self::MOST_TAPS) taps.
    pub weight: Tensor,
    /// Whether sums pass SiLU; they are the output where they do not.
    pub silu: bool,
    /// `f32 [slots, taps − 1, channels]`: each sequence's latest inputs, the oldest first.
    pub state: Tensor,
    /// `i32 [n]`: each token's position.
    pub positions: Tensor,
    /// `i32 [n]`: each token's sequence, which is its slot; `None` when all are of the first.
    pub sequences: Option<Tensor>,
    /// `f32 [n, channels]`, apart from the input.
    pub output: Tensor,
}

/// Which key head belongs to a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HeadOrder {
    /// Neighbours share one: `head / (heads / key_heads)`.
    Grouped,
    /// They take turns: `head % key_heads`.
    Tiled,
}

/// The gated delta rule (Yang et al., arXiv 2412.06464): of each head a matrix that forgets, is corrected towards the
/// token's value where its key points, and is read where its query does. Token by token, with
/// `k̂ = k/√(k·k + ε)`, `q̂ = q/√(q·q + ε)/√key_dim`, `ε = 10⁻⁶`,
/// `a = exp(decay_scale · softplus(decay + decay_bias))` and `b = sigmoid(rate)`:
///
/// `S ← a·S;  S ← S + k̂ ⊗ b·(v − k̂·S);  output = q̂·S`
///
/// What holds of tokens, states and calls is that of [`ShortConv`].
#[derive(Debug, Clone)]
pub struct DeltaRule {
    /// `f32 [n, 2 · key_heads · key_dim + heads · value_dim]`: of each token the queries of all key heads, their keys, and
    /// the values of all heads.
    pub mixed: Tensor,
    /// `f32 [n, heads]`: how fast heads forget, before bias and scale.
    pub decay: Tensor,
    /// `f32 [n, heads]`: how far heads are corrected, before the sigmoid.
    pub rate: Tensor,
    /// `f32 [heads]`.
    pub decay_bias: Tensor,
    /// `f32 [heads]`, negative where heads forget.
    pub decay_scale: Tensor,
    /// Which key head a head takes.
    pub order: HeadOrder,
    /// `f32 [slots, heads, key_dim, value_dim]`: both sizes are multiples of 16, up to [`MOST_DIM`](Self::MOST_DIM).
    pub state: Tensor,
    /// `i32 [n]`: each token's position.
    pub positions: Tensor,
    /// `i32 [n]`: each token's sequence, which is its slot; `None` when all are of the first.
    pub sequences: Option<Tensor>,
    /// `f32 [n, heads, value_dim]`.
    pub output: Tensor,
}

/// What tokens keep to whose states are in so many slots.
fn token_limits(slots: u64) -> TokenLimits {
    TokenLimits {
        capacity: None,
        sequences: slots,
        most: None,
        pages: None,
    }
}

/// What both ops ask of positions, sequences and states.
fn check_tokens(
    check: Check,
    n: u64,
    (positions, sequences): (&Tensor, Option<&Tensor>),
) -> Result<()> {
    check.dtype("positions", positions, DType::I32)?;
    check.shape("positions", positions, &[n])?;
    check_sequences(check, sequences, n)
}

impl ShortConv {
    /// The most taps.
    pub const MOST_TAPS: u64 = 4;

    /// What its tokens must keep to when it runs.
    #[must_use]
    pub fn token_limits(&self) -> TokenLimits {
        token_limits(self.state.shape()[0])
    }

    fn inputs(&self) -> impl Iterator<Item = &Tensor> {
        [&self.input, &self.weight, &self.positions]
            .into_iter()
            .chain(&self.sequences)
    }
}

impl DeltaRule {
    /// The most numbers of a head's key, and of its value.
    pub const MOST_DIM: u64 = 256;

    /// What is added to the squares of queries and keys.
    pub const EPSILON: f32 = 1e-6;

    /// What its tokens must keep to when it runs.
    #[must_use]
    pub fn token_limits(&self) -> TokenLimits {
        token_limits(self.state.shape()[0])
    }

    /// Heads, numbers of a key and of a value.
    #[must_use]
    pub fn sizes(&self) -> [u64; 3] {
        [1, 2, 3].map(|dim| self.state.shape()[dim])
    }

    /// How many heads queries and keys have.
    #[must_use]
    pub fn key_heads(&self) -> u64 {
        let [heads, key_dim, value_dim] = self.sizes();
        self.mixed.row_len().saturating_sub(heads * value_dim) / (2 * key_dim)
    }

    fn inputs(&self) -> impl Iterator<Item = &Tensor> {
        [
            &self.mixed,
            &self.decay,
            &self.rate,
            &self.decay_bias,
            &self.decay_scale,
            &self.positions,
        ]
        .into_iter()
        .chain(&self.sequences)
    }
}

/// A state is read where a run does not begin at position 0, and written.
fn accesses<'t>(inputs: impl Iterator<Item = &'t Tensor>, written: [&Tensor; 2]) -> Accesses {
    let [state, output] = written.map(Tensor::span);
    let mut reads: Vec<Span> = inputs.map(Tensor::span).collect();
    reads.push(state.clone());
    Accesses {
        reads,
        writes: vec![state, output],
    }
}

/// A state is apart from all else, and the output too.
fn check_apart(check: Check, inputs: &[&Tensor], [state, output]: [&Tensor; 2]) -> Result<()> {
    check.disjoint("state", state, inputs)?;
    check.disjoint("output", output, inputs)?;
    check.disjoint("output", output, &[state])
}

impl Operation for ShortConv {
    const NAME: &'static str = "ShortConv";

    fn validate(&self) -> Result<()> {
        let check = Check(Self::NAME);
        check.rank("input", &self.input, 2)?;
        check.size("input", &self.input)?;
        let [n, channels] = [0, 1].map(|dim| self.input.shape()[dim]);
        if !channels.is_multiple_of(16) {
            return check.fail("input", "of a multiple of 16 channels", &self.input);
        }
        check.f32("input", &self.input, &[n, channels])?;
        check.rank("weight", &self.weight, 2)?;
        let taps = self.weight.shape()[1];
        if !(2..=Self::MOST_TAPS).contains(&taps) {
            let taps = format!("of 2 to {} taps", Self::MOST_TAPS);
            return check.fail("weight", taps, &self.weight);
        }
        check.f32("weight", &self.weight, &[channels, taps])?;
        check.rank("state", &self.state, 3)?;
        check.size("state", &self.state)?;
        let slots = self.state.shape()[0];
        check.f32("state", &self.state, &[slots, taps - 1, channels])?;
        check_tokens(check, n, (&self.positions, self.sequences.as_ref()))?;
        check.f32("output", &self.output, &[n, channels])?;
        let inputs: Vec<&Tensor> = self.inputs().collect();
        check_apart(check, &inputs, [&self.state, &self.output])
    }

    fn accesses(&self) -> Accesses {
        accesses(self.inputs(), [&self.state, &self.output])
    }

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            input,
            weight,
            output,
            ..
        } = self;
        let plain = if self.silu { "" } else { " (no SiLU)" };
        write!(f, "{input} * {weight} -> {output}{plain}")
    }

    fn cost(&self, _: u64) -> Cost {
        Cost {
            bytes: bytes(self.inputs())
                + self.output.bytes()
                + state_bytes(&self.state, &self.positions, self.sequences.as_ref()),
            operations: 0,
        }
    }
}

/// The bytes that pass when states of as many sequences as tokens can be of are read and written.
fn state_bytes(state: &Tensor, positions: &Tensor, sequences: Option<&Tensor>) -> u64 {
    let slots = state.shape()[0];
    let touched = sequences.map_or(1, |_| positions.elements().min(slots));
    2 * state.bytes() / slots * touched
}

impl Operation for DeltaRule {
    const NAME: &'static str = "DeltaRule";

    fn validate(&self) -> Result<()> {
        let check = Check(Self::NAME);
        check.rank("state", &self.state, 4)?;
        check.size("state", &self.state)?;
        check.dtype("state", &self.state, DType::F32)?;
        let [heads, key_dim, value_dim] = self.sizes();
        let fits = |dim: u64| dim.is_multiple_of(16) && dim <= Self::MOST_DIM;
        if !fits(key_dim) || !fits(value_dim) {
            let dims = format!(
                "of keys and values of a multiple of 16 numbers, at most {}",
                Self::MOST_DIM
            );
            return check.fail("state", dims, &self.state);
        }
        check.rank("mixed", &self.mixed, 2)?;
        check.size("mixed", &self.mixed)?;
        let n = self.mixed.shape()[0];
        let key_heads = self.key_heads();
        if key_heads == 0 || heads % key_heads != 0 {
            let width = format!(
                "[{n}, 2 · key heads · {key_dim} + {}], the {heads} heads a multiple of the key heads",
                heads * value_dim
            );
            return check.fail("mixed", width, &self.mixed);
        }
        let width = 2 * key_heads * key_dim + heads * value_dim;
        check.f32("mixed", &self.mixed, &[n, width])?;
        check.f32("decay", &self.decay, &[n, heads])?;
        check.f32("rate", &self.rate, &[n, heads])?;
        check.f32("decay_bias", &self.decay_bias, &[heads])?;
        check.f32("decay_scale", &self.decay_scale, &[heads])?;
        check_tokens(check, n, (&self.positions, self.sequences.as_ref()))?;
        check.f32("output", &self.output, &[n, heads, value_dim])?;
        let inputs: Vec<&Tensor> = self.inputs().collect();
        check_apart(check, &inputs, [&self.state, &self.output])
    }

    fn accesses(&self) -> Accesses {
        accesses(self.inputs(), [&self.state, &self.output])
    }

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {} ({:?})", self.mixed, self.output, self.order)
    }

    /// Of each number of a state, two products with a key, one with a query, and one with what is forgotten.
    fn cost(&self, _: u64) -> Cost {
        let [heads, key_dim, value_dim] = self.sizes();
        Cost {
            bytes: bytes(self.inputs())
                + self.output.bytes()
                + state_bytes(&self.state, &self.positions, self.sequences.as_ref()),
            operations: 7 * self.positions.elements() * heads * key_dim * value_dim,
        }
    }
}
