//! Where hybrids leave what they have beside attention and a feed-forward part.

use walsh::formats::DType;
use walsh::{Device, Tensor};

use crate::Result;
use crate::model::config::{DeltaConfig, ExpertsConfig, ModelConfig};

/// A tensor whose rows are made of pairs, the first and the second of each to be told apart.
#[derive(Debug, Clone)]
pub(in super::super) struct Pairs {
    /// `[rows, pairs, 2, width]`.
    pub(in super::super) both: Tensor,
    /// `i32 [rows · pairs]`: where the first of each are, and the second.
    pub(in super::super) places: [Tensor; 2],
}

impl Pairs {
    pub(in super::super) fn new(device: &Device, [rows, pairs, width]: [usize; 3]) -> Result<Self> {
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

    /// `[rows, pairs, 2 · width]`.
    pub(in super::super) fn joined(&self) -> Result<Tensor> {
        let [rows, pairs, width] = [0, 1, 3].map(|dim| self.both.shape()[dim]);
        Ok(self.both.reshape(&[rows, pairs, 2 * width])?)
    }

    pub(in super::super) fn rows(&self, rows: usize) -> Result<Self> {
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
pub(in super::super) struct Recurrence {
    /// `[rows, channels]`: queries, keys and values, before the convolution and behind it.
    pub(in super::super) mixed: Tensor,
    pub(in super::super) convolved: Tensor,
    /// `[rows, heads, value_dim]`.
    pub(in super::super) gate: Tensor,
    pub(in super::super) output: Tensor,
    /// `[rows, heads]`.
    pub(in super::super) decay: Tensor,
    pub(in super::super) rate: Tensor,
    /// Both, where one product has them.
    pub(in super::super) steps: Pairs,
}

/// The intermediates of an expert that all tokens share.
#[derive(Debug)]
pub(in super::super) struct Shared {
    /// `[rows, inner]`.
    pub(in super::super) gate: Tensor,
    pub(in super::super) up: Tensor,
    /// `[rows, 1, width]`.
    pub(in super::super) result: Tensor,
    /// `[rows, 1]`.
    pub(in super::super) logits: Tensor,
    pub(in super::super) ids: Tensor,
    pub(in super::super) weights: Tensor,
}

/// What hybrids need beside.
#[derive(Debug)]
pub(in super::super) struct Hybrid {
    pub(in super::super) recurrence: Recurrence,
    /// Of each head its query and its gate.
    pub(in super::super) queries: Pairs,
    /// `[rows, heads, head_dim]`.
    pub(in super::super) gate: Tensor,
    pub(in super::super) shared: Option<Shared>,
}

impl Hybrid {
    pub(in super::super) fn new(
        device: &Device,
        config: &ModelConfig,
        rows: usize,
    ) -> Result<Option<Self>> {
        let Some((recurrent, delta)) = config.recurrent.and_then(|all| Some((all, all.delta?)))
        else {
            return Ok(None);
        };
        let floats = |shape: &[usize]| {
            let shape: Vec<u64> = shape.iter().map(|size| *size as u64).collect();
            device.zeros(DType::F32, &shape)
        };
        let DeltaConfig {
            heads,
            key_heads,
            value_dim,
            ..
        } = delta;
        let head_dim = config.most(|layer| layer.head_dim);
        let recurrence = Recurrence {
            mixed: floats(&[rows, recurrent.channels])?,
            convolved: floats(&[rows, recurrent.channels])?,
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
            queries: Pairs::new(device, [rows, config.heads, head_dim])?,
            gate: floats(&[rows, config.heads, head_dim])?,
            shared: config.experts.and_then(shared).transpose()?,
        }))
    }

    pub(in super::super) fn rows(&self, rows: usize) -> Result<Self> {
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
    pub(in super::super) fn asked(&self) -> Result<Tensor> {
        let both = &self.queries.both;
        let rows = both.shape()[0];
        Ok(both.reshape(&[rows, both.elements() / rows])?)
    }
}
