//! Mixtures of experts: which experts a token goes to, products with their weights, and the sum of what they give.

use std::fmt;

use walsh_formats::DType;

use super::check::Check;
use super::cost::{Cost, bytes};
use super::operation::Operation;
use crate::Result;
use crate::buffer::Span;
use crate::hazard::Accesses;
use crate::tensor::Tensor;

/// What a chosen expert's weight is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scoring {
    /// The softmax of all logits, of which the largest are taken.
    Softmax,
    /// The softmax of the chosen logits: the same as the softmax of all, divided by
    /// the sum of those taken.
    SoftmaxOfChosen,
    /// The sigmoid of each logit.
    Sigmoid {
        /// Whether the weights of a token are divided by their sum (plus 1e-20, so
        /// that there is one).
        normalised: bool,
    },
}

/// Chooses each token's experts: those with the largest logits, equals by ascending
/// number, the largest first; with a bias, those with the largest sum of sigmoid and
/// bias (DeepSeek-AI, arXiv 2412.19437). A logit that is not finite is an
/// [`Error::Value`](crate::Error::Value) when the list runs.
#[derive(Debug, Clone)]
pub struct ExpertRoute {
    /// `f32 [tokens, experts]`, at most [`MOST_EXPERTS`](Self::MOST_EXPERTS) of them.
    pub logits: Tensor,
    /// `f32 [experts]`, finite: added to sigmoids for the choice alone; no weight
    /// knows it.
    pub bias: Option<Tensor>,
    /// What weights are made of.
    pub scoring: Scoring,
    /// What weights are multiplied by in the end; finite.
    pub scale: f32,
    /// `i32 [tokens, used]`; its shape sets how many are used, from 1 to
    /// [`MOST_USED`](Self::MOST_USED).
    pub ids: Tensor,
    /// `f32 [tokens, used]`.
    pub weights: Tensor,
}

/// `output[m, s, n] = Σ_k input[m, s, k] · weight[ids[m, s], n, k] (+ bias[ids[m, s], n])`:
/// products of each token with the weights of its experts, read as they are stored. An
/// id that is no expert's is an [`Error::Value`](crate::Error::Value) when the list runs.
///
/// Backends may quantise the input as for [`MatMul`](super::MatMul).
#[derive(Debug, Clone)]
pub struct ExpertMatMul {
    /// `[E, N, K]` of any floating-point or block type, as it is stored or
    /// [packed](crate::Device::pack).
    pub weight: Tensor,
    /// `i32 [M, S]`: the experts of each token.
    pub ids: Tensor,
    /// `f32 [M, K]`, a row for all slots of a token, or `f32 [M, S, K]`.
    pub input: Tensor,
    /// `f32 [E, N]`.
    pub bias: Option<Tensor>,
    /// `f32 [M, S, N]`.
    pub output: Tensor,
}

/// `output[m] = Σ_s weights[m, s] · input[m, s] (+ onto[m])`.
#[derive(Debug, Clone)]
pub struct ExpertSum {
    /// `f32 [M, S, N]`.
    pub input: Tensor,
    /// `f32 [M, S]`.
    pub weights: Tensor,
    /// `f32 [M, N]`: what the sum is added to.
    pub onto: Option<Tensor>,
    /// `f32 [M, N]`; may be `onto` in place.
    pub output: Tensor,
}

impl ExpertRoute {
    /// The most experts that are chosen from.
    pub const MOST_EXPERTS: u64 = 512;
    /// The most experts that a token goes to.
    pub const MOST_USED: u64 = 32;
}

impl ExpertMatMul {
    /// Experts, and the weight's rows and columns of each.
    #[must_use]
    pub fn weight_sizes(&self) -> [u64; 3] {
        [0, 1, 2].map(|dim| self.weight.shape()[dim])
    }

    /// How many slots of a token share a row of the input.
    #[must_use]
    pub fn slots_to_a_row(&self) -> u64 {
        match self.input.shape().len() {
            2 => self.ids.shape()[1],
            _ => 1,
        }
    }
}

impl Operation for ExpertRoute {
    const NAME: &'static str = "ExpertRoute";

    fn validate(&self) -> Result<()> {
        let check = Check(Self::NAME);
        check.dtype("logits", &self.logits, DType::F32)?;
        check.rank("logits", &self.logits, 2)?;
        check.size("logits", &self.logits)?;
        let [tokens, experts] = [self.logits.shape()[0], self.logits.shape()[1]];
        if experts > Self::MOST_EXPERTS {
            let most = format!("of at most {} experts", Self::MOST_EXPERTS);
            return check.fail("logits", most, &self.logits);
        }
        if let Some(bias) = &self.bias {
            if !matches!(self.scoring, Scoring::Sigmoid { .. }) {
                return check.fail("bias", "none but with sigmoids", bias);
            }
            check.f32("bias", bias, &[experts])?;
        }
        check.finite("scale", self.scale)?;
        check.rank("ids", &self.ids, 2)?;
        let used = self.ids.shape()[1];
        let most = experts.min(Self::MOST_USED);
        if !(1..=most).contains(&used) {
            return check.fail("ids", format_args!("[{tokens}, 1 to {most}]"), &self.ids);
        }
        check.dtype("ids", &self.ids, DType::I32)?;
        check.shape("ids", &self.ids, &[tokens, used])?;
        check.f32("weights", &self.weights, &[tokens, used])?;
        let mut read = vec![&self.logits];
        read.extend(&self.bias);
        check.disjoint("ids", &self.ids, &read)?;
        read.push(&self.ids);
        check.disjoint("weights", &self.weights, &read)
    }

    fn accesses(&self) -> Accesses {
        let mut accesses = Accesses {
            reads: vec![self.logits.span()],
            writes: vec![self.ids.span(), self.weights.span()],
        };
        if let Some(bias) = &self.bias {
            accesses.read(bias.span());
        }
        accesses
    }

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {} -> {}", self.scoring, self.logits, self.ids)
    }
}

impl Operation for ExpertMatMul {
    const NAME: &'static str = "ExpertMatMul";

    fn validate(&self) -> Result<()> {
        let check = Check(Self::NAME);
        check.rank("weight", &self.weight, 3)?;
        check.size("weight", &self.weight)?;
        if !self.weight.dtype().is_real() {
            return check.fail("weight", "of a floating-point or block type", &self.weight);
        }
        let [experts, n, k] = self.weight_sizes();
        check.dtype("ids", &self.ids, DType::I32)?;
        check.rank("ids", &self.ids, 2)?;
        check.size("ids", &self.ids)?;
        let [tokens, slots] = [self.ids.shape()[0], self.ids.shape()[1]];
        check.dtype("input", &self.input, DType::F32)?;
        check.size("input", &self.input)?;
        if self.input.shape() != [tokens, k] && self.input.shape() != [tokens, slots, k] {
            let shapes = format!("of shape [{tokens}, {k}] or [{tokens}, {slots}, {k}]");
            return check.fail("input", shapes, &self.input);
        }
        check.f32("output", &self.output, &[tokens, slots, n])?;
        check.size("output", &self.output)?;
        if let Some(bias) = &self.bias {
            check.f32("bias", bias, &[experts, n])?;
            check.disjoint("output", &self.output, &[bias])?;
        }
        let read = [&self.weight, &self.input, &self.ids];
        check.disjoint("output", &self.output, &read)
    }

    fn accesses(&self) -> Accesses {
        let mut accesses = Accesses {
            reads: vec![self.weight.span(), self.ids.span(), self.input.span()],
            writes: vec![self.output.span()],
        };
        if let Some(bias) = &self.bias {
            accesses.read(bias.span());
        }
        accesses
    }

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            weight,
            input,
            ids,
            output,
            ..
        } = self;
        write!(f, "{input} · {weight} of {ids} -> {output}")
    }

    fn weights(&self) -> Vec<Span> {
        vec![self.weight.span()]
    }

    /// As if no two tokens had an expert in common, as far as there are experts: who
    /// shares which depends on the ids.
    fn cost(&self, _: u64) -> Cost {
        let [experts, n, k] = self.weight_sizes();
        let products = self.ids.elements();
        let read = self.weight.bytes() / experts * products.min(experts);
        Cost {
            bytes: read + bytes([&self.ids, &self.input, &self.output]),
            operations: 2 * products * n * k,
        }
    }
}

impl Operation for ExpertSum {
    const NAME: &'static str = "ExpertSum";

    fn validate(&self) -> Result<()> {
        let check = Check(Self::NAME);
        check.dtype("input", &self.input, DType::F32)?;
        check.rank("input", &self.input, 3)?;
        check.size("input", &self.input)?;
        let [tokens, slots, width] = [0, 1, 2].map(|dim| self.input.shape()[dim]);
        check.f32("weights", &self.weights, &[tokens, slots])?;
        check.f32("output", &self.output, &[tokens, width])?;
        if let Some(onto) = &self.onto {
            check.f32("onto", onto, &[tokens, width])?;
            check.in_place_or_disjoint("output", &self.output, &[onto])?;
        }
        check.disjoint("output", &self.output, &[&self.input, &self.weights])
    }

    fn accesses(&self) -> Accesses {
        let mut accesses = Accesses {
            reads: vec![self.input.span(), self.weights.span()],
            writes: vec![self.output.span()],
        };
        if let Some(onto) = &self.onto {
            accesses.read(onto.span());
        }
        accesses
    }

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} · {} -> {}", self.weights, self.input, self.output)
    }
}
