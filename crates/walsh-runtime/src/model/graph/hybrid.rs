//! What hybrids have beside attention and a feed-forward part: layers that keep a state, gates of what was attended to, and
//! experts that all tokens share.

use walsh::formats::DType;
use walsh::ops::{
    Activation, DeltaRule, EmbeddingRows, ExpertRoute, ExpertSum, GatedActivation, RmsNorm,
    Scoring, ShortConv,
};
use walsh::{Device, Tensor};

use super::block::{Block, flat};
use crate::Result;
use crate::model::config::{ExpertsConfig, ModelConfig, RecurrentConfig};
use crate::model::memory::LayerState;
use crate::model::weights::{Recurring, SharedExpert, Steps};

/// A tensor whose rows are made of pairs, the first and the second of each to be told apart.
#[derive(Debug, Clone)]
struct Pairs {
    /// `[rows, pairs, 2, width]`.
    both: Tensor,
    /// `i32 [rows · pairs]`: where the first of each are, and the second.
    places: [Tensor; 2],
}

impl Pairs {
    fn new(device: &Device, [rows, pairs, width]: [usize; 3]) -> Result<Self> {
        let count = rows * pairs;
        let places = [0, 1]
            .map(|part| -> Vec<i32> { (0..count).map(|pair| (2 * pair + part) as i32).collect() });
        let tensor = |places: Vec<i32>| device.tensor(&[count as u64], &places);
        let [first, second] = places.map(tensor);
        let shape = [rows, pairs, 2, width].map(|size| size as u64);
        Ok(Self {
            both: device.zeros(DType::F32, &shape)?,
            places: [first?, second?],
        })
    }

    fn rows(&self, rows: usize) -> Result<Self> {
        let pairs = self.both.shape()[1];
        let first = |places: &Tensor| places.rows(0..rows as u64 * pairs);
        let [a, b] = &self.places;
        Ok(Self {
            both: self.both.rows(0..rows as u64)?,
            places: [first(a)?, first(b)?],
        })
    }
}

/// The intermediates of layers that keep a state.
#[derive(Debug)]
struct Recurrence {
    /// `[rows, channels]`: queries, keys and values, before the convolution and behind it.
    mixed: Tensor,
    convolved: Tensor,
    /// `[rows, heads, value_dim]`.
    gate: Tensor,
    output: Tensor,
    /// `[rows, heads]`.
    decay: Tensor,
    rate: Tensor,
    /// Both, where one product has them.
    steps: Pairs,
}

/// The intermediates of an expert that all tokens share.
#[derive(Debug)]
struct Shared {
    /// `[rows, inner]`.
    gate: Tensor,
    up: Tensor,
    /// `[rows, 1, width]`.
    result: Tensor,
    /// `[rows, 1]`.
    logits: Tensor,
    ids: Tensor,
    weights: Tensor,
}

/// What hybrids need beside.
#[derive(Debug)]
pub(super) struct Hybrid {
    recurrence: Recurrence,
    /// Of each head its query and its gate.
    queries: Pairs,
    /// `[rows, heads, head_dim]`.
    gate: Tensor,
    shared: Option<Shared>,
}

impl Hybrid {
    pub(super) fn new(device: &Device, config: &ModelConfig, rows: usize) -> Result<Option<Self>> {
        let Some(recurrent) = &config.recurrent else {
            return Ok(None);
        };
        let floats = |shape: &[usize]| {
            let shape: Vec<u64> = shape.iter().map(|size| *size as u64).collect();
            device.zeros(DType::F32, &shape)
        };
        let RecurrentConfig {
            heads,
            key_heads,
            value_dim,
            ..
        } = *recurrent;
        let recurrence = Recurrence {
            mixed: floats(&[rows, recurrent.channels()])?,
            convolved: floats(&[rows, recurrent.channels()])?,
            gate: floats(&[rows, heads, value_dim])?,
            output: floats(&[rows, heads, value_dim])?,
            decay: floats(&[rows, heads])?,
            rate: floats(&[rows, heads])?,
            steps: Pairs::new(device, [rows, key_heads, heads / key_heads])?,
        };
        let shared = |ExpertsConfig { shared, .. }| {
            let inner = shared?;
            Some((|| {
                Ok::<_, walsh::Error>(Shared {
                    gate: floats(&[rows, inner])?,
                    up: floats(&[rows, inner])?,
                    result: floats(&[rows, 1, config.width])?,
                    logits: floats(&[rows, 1])?,
                    ids: device.zeros(DType::I32, &[rows as u64, 1])?,
                    weights: floats(&[rows, 1])?,
                })
            })())
        };
        Ok(Some(Self {
            recurrence,
            queries: Pairs::new(device, [rows, config.heads, config.head_dim])?,
            gate: floats(&[rows, config.heads, config.head_dim])?,
            shared: config.experts.and_then(shared).transpose()?,
        }))
    }

    pub(super) fn rows(&self, rows: usize) -> Result<Self> {
        let first = |tensor: &Tensor| tensor.rows(0..rows as u64);
        let a = &self.recurrence;
        let shared = |shared: &Shared| {
            Ok::<_, walsh::Error>(Shared {
                gate: first(&shared.gate)?,
                up: first(&shared.up)?,
                result: first(&shared.result)?,
                logits: first(&shared.logits)?,
                ids: first(&shared.ids)?,
                weights: first(&shared.weights)?,
            })
        };
        Ok(Self {
            recurrence: Recurrence {
                mixed: first(&a.mixed)?,
                convolved: first(&a.convolved)?,
                gate: first(&a.gate)?,
                output: first(&a.output)?,
                decay: first(&a.decay)?,
                rate: first(&a.rate)?,
                steps: a.steps.rows(rows)?,
            },
            queries: self.queries.rows(rows)?,
            gate: first(&self.gate)?,
            shared: self.shared.as_ref().map(shared).transpose()?,
        })
    }

    /// Where queries go with their gates.
    pub(super) fn asked(&self) -> Result<Tensor> {
        flat(&self.queries.both)
    }
}

impl Block<'_> {
    /// Tells the first and the second of pairs apart.
    fn part(&mut self, pairs: &Pairs, parts: [&Tensor; 2]) -> Result<()> {
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
    pub(super) fn part_queries(&mut self, hybrid: &Hybrid) -> Result<()> {
        let a = self.a;
        self.part(&hybrid.queries, [&a.query, &hybrid.gate])
    }

    /// Lets what was attended to pass its gate.
    pub(super) fn gate_attended(&mut self, hybrid: &Hybrid) -> Result<()> {
        let a = self.a;
        self.list.push(GatedActivation {
            gate: hybrid.gate.clone(),
            up: a.attended.clone(),
            activation: Activation::Sigmoid,
            output: a.attended.clone(),
        })?;
        Ok(())
    }

    /// hidden = what the layer makes of the input and its state.
    pub(super) fn recur(
        &mut self,
        input: &Tensor,
        (layer, config): (&Recurring, &RecurrentConfig),
        (hybrid, state): (&Hybrid, &LayerState),
    ) -> Result<()> {
        let (a, own) = (self.a, &hybrid.recurrence);
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
            state: state.heads.clone(),
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
