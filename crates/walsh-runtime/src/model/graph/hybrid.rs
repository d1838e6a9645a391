//! What hybrids have beside attention and a feed-forward part: layers that keep a state, gates of what was attended to, and
//! experts that all tokens share.

use walsh::Tensor;
use walsh::ops::{
    Activation, DeltaRule, EmbeddingRows, ExpertRoute, ExpertSum, GatedActivation, RmsNorm,
    Scoring, ShortConv,
};

use super::block::{Block, flat};
use super::intermediates::{Hybrid, Pairs};
use crate::Result;
use crate::model::config::DeltaConfig;
use crate::model::memory::LayerState;
use crate::model::weights::{Recurring, SharedExpert, Steps};

impl Block<'_> {
    /// Tells the first and the second of pairs apart.
    pub(super) fn part(&mut self, pairs: &Pairs, parts: [&Tensor; 2]) -> Result<()> {
        let width = pairs.both.row_len();
        let table = pairs.both.reshape(&[pairs.both.row_count(), width])?;
        for (places, part) in pairs.places.iter().zip(parts) {
            self.list.push(EmbeddingRows {
                table: table.clone(),
                ids: places.clone(),
                scale: 1.0,
                output: part.reshape(&[places.elements(), width])?,
            })?;
        }
        Ok(())
    }

    /// Tells queries and their gates apart.
    pub(super) fn part_queries(&mut self, queries: &Tensor, hybrid: &Hybrid) -> Result<()> {
        self.part(&hybrid.queries, [queries, &hybrid.gate])
    }

    /// Lets what was attended to pass its gate.
    pub(super) fn gate_attended(&mut self, attended: &Tensor, hybrid: &Hybrid) -> Result<()> {
        self.list.push(GatedActivation {
            gate: hybrid.gate.clone(),
            up: attended.clone(),
            activation: Activation::Sigmoid,
            output: attended.clone(),
        })?;
        Ok(())
    }

    /// hidden = what the layer makes of the input and its state.
    pub(super) fn recur(
        &mut self,
        input: &Tensor,
        (layer, config): (&Recurring, &DeltaConfig),
        (hybrid, state): (&Hybrid, &LayerState),
    ) -> Result<()> {
        let (a, own) = (self.a, &hybrid.recurrence);
        let Some(heads) = &state.heads else {
            unreachable!("layers of the delta rule have its states");
        };
        self.linear(&layer.mixed, input, &own.mixed)?;
        self.linear(&layer.gate, input, &flat(&own.gate)?)?;
        match &layer.steps {
            Steps::Apart { decay, rate } => {
                self.linear(decay, input, &own.decay)?;
                self.linear(rate, input, &own.rate)?;
            }
            Steps::Together(both) => {
                self.linear(both, input, &flat(&own.steps.both)?)?;
                self.part(&own.steps, [&own.rate, &own.decay])?;
            }
        }
        let (positions, sequences) = (a.positions.clone(), self.sequences.clone());
        self.list.push(ShortConv {
            input: own.mixed.clone(),
            weight: layer.convolution.clone(),
            silu: true,
            state: state.latest.clone(),
            positions: positions.clone(),
            sequences: sequences.clone(),
            output: own.convolved.clone(),
        })?;
        self.list.push(DeltaRule {
            mixed: own.convolved.clone(),
            decay: own.decay.clone(),
            rate: own.rate.clone(),
            decay_bias: layer.decay_bias.clone(),
            decay_scale: layer.decay_scale.clone(),
            order: config.order,
            state: heads.clone(),
            positions,
            sequences,
            output: own.output.clone(),
        })?;
        self.list.push(RmsNorm {
            input: own.output.clone(),
            before: None,
            weight: Some(layer.norm.clone()),
            eps: self.config.norm_eps,
            after: None,
            output: own.output.clone(),
        })?;
        self.list.push(GatedActivation {
            gate: own.gate.clone(),
            up: own.output.clone(),
            activation: Activation::Silu,
            output: own.output.clone(),
        })?;
        let output = flat(&own.output)?;
        self.linear(&layer.output, &output, &a.hidden)
    }

    /// What the expert that all tokens share makes of the input, and how much of it each token takes; it is added later,
    /// since the input may be where the sum goes.
    pub(super) fn share(
        &mut self,
        input: &Tensor,
        expert: &SharedExpert,
        hybrid: &Hybrid,
    ) -> Result<()> {
        let Some(own) = &hybrid.shared else {
            return Ok(());
        };
        self.linear(&expert.gate, input, &own.gate)?;
        self.linear(&expert.up, input, &own.up)?;
        self.list.push(GatedActivation {
            gate: own.gate.clone(),
            up: own.up.clone(),
            activation: self.config.activation,
            output: own.gate.clone(),
        })?;
        self.linear(&expert.down, &own.gate, &flat(&own.result)?)?;
        self.linear(&expert.router, input, &own.logits)?;
        // Of one logit: its sigmoid.
        self.list.push(ExpertRoute {
            logits: own.logits.clone(),
            bias: None,
            scoring: Scoring::Sigmoid { normalised: false },
            scale: 1.0,
            ids: own.ids.clone(),
            weights: own.weights.clone(),
        })?;
        Ok(())
    }

    /// Adds what tokens take of the shared expert to what their own experts give.
    pub(super) fn add_shared(&mut self, hybrid: &Hybrid) -> Result<()> {
        if let Some(own) = &hybrid.shared {
            self.list.push(ExpertSum {
                input: own.result.clone(),
                weights: own.weights.clone(),
                onto: Some(self.a.hidden.clone()),
                output: self.a.hidden.clone(),
            })?;
        }
        Ok(())
    }
}
