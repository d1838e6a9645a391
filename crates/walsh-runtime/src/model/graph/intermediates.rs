//! What lists leave between their ops.

mod beside;
mod convolution;
mod heads;
mod hybrid;
mod inputs;

use std::ops::Range;

use walsh::formats::DType;
use walsh::{Device, Tensor};

use crate::Result;
use crate::model::config::ModelConfig;
pub(super) use beside::BesideExperts;
pub(super) use convolution::Convolved;
pub(super) use heads::{AllHeads, Heads, beginning};
pub(super) use hybrid::{Hybrid, Pairs};
pub(super) use inputs::Inputs;

/// Which keys and values a chunk's tokens attend over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Reading {
    /// The stored codes alone, the chunk's own included.
    Codes,
    /// The stored codes of earlier tokens, and the chunk's own keys and values
    /// as they were computed.
    CodesAndFresh,
}

/// Neighbouring rows of a call, and what they attend over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) reading: Reading,
    pub(super) rows: Range<u64>,
}

/// The likeliest of the next tokens, the likeliest first.
#[derive(Debug, Clone)]
pub(crate) struct TopTokens {
    /// `f32 [MOST]`: their logits.
    pub(crate) logits: Tensor,
    /// `i32 [MOST]`: their ids.
    pub(crate) tokens: Tensor,
}

impl TopTokens {
    /// The most that are looked for.
    pub(crate) const MOST: usize = 256;

    fn new(device: &Device) -> Result<Self> {
        Ok(Self {
            logits: device.zeros(DType::F32, &[Self::MOST as u64])?,
            tokens: device.zeros(DType::I32, &[Self::MOST as u64])?,
        })
    }

    /// The first `count` of both, their logits and their ids, `[1, count]`.
    pub(super) fn first(&self, count: usize) -> Result<[Tensor; 2]> {
        let count = count as u64;
        let first = |all: &Tensor| all.rows(0..count)?.reshape(&[1, count]);
        Ok([first(&self.logits)?, first(&self.tokens)?])
    }
}

/// What a mixture of experts needs beside gates.
#[derive(Debug)]
pub(super) struct Mixture {
    /// `[rows, experts]`.
    pub(super) logits: Tensor,
    /// `i32 [rows, used]`.
    pub(super) ids: Tensor,
    /// `[rows, used]`.
    pub(super) weights: Tensor,
    /// `[rows, used, width]`.
    pub(super) results: Tensor,
}

/// The intermediates of a chunk, allocated once for the largest.
#[derive(Debug)]
pub(crate) struct Intermediates {
    /// `i32 [rows]`.
    pub(crate) ids: Tensor,
    /// `i32 [rows]`.
    pub(crate) positions: Tensor,
    /// `[logit_rows, vocabulary]`.
    pub(crate) logits: Tensor,
    /// `i32 [1]`: the likeliest token by the first row of logits.
    pub(crate) likeliest: Tensor,
    pub(crate) top: TopTokens,
    /// The residual stream.
    pub(super) stream: Tensor,
    /// A block's input or output.
    pub(crate) hidden: Tensor,
    heads: AllHeads,
    /// `[rows, feed_forward]` of the layer that has most, of all experts of a row together.
    pub(super) gate: Tensor,
    pub(super) up: Tensor,
    pub(super) mixture: Option<Mixture>,
    pub(super) beside: Option<BesideExperts>,
    pub(super) hybrid: Option<Hybrid>,
    pub(super) convolved: Option<Convolved>,
    pub(super) inputs: Option<Inputs>,
}

impl Intermediates {
    /// `i32 [rows, used]`: the experts of each row, where there are any.
    pub(crate) fn experts(&self) -> Option<&Tensor> {
        Some(&self.mixture.as_ref()?.ids)
    }

    pub(crate) fn new(
        device: &Device,
        config: &ModelConfig,
        rows: usize,
        logit_rows: usize,
    ) -> Result<Self> {
        let floats =
            |rows: usize, width: usize| device.zeros(DType::F32, &[rows as u64, width as u64]);
        let used = config.experts.map_or(1, |experts| experts.used);
        let inner = config.most(|layer| match layer.mixture {
            true => used * layer.feed_forward,
            false => layer.feed_forward,
        });
        let mixture = config.experts.map(|experts| {
            let [rows, used, width] = [rows, experts.used, config.width].map(|size| size as u64);
            Ok::<_, walsh::Error>(Mixture {
                logits: device.zeros(DType::F32, &[rows, experts.count as u64])?,
                ids: device.zeros(DType::I32, &[rows, used])?,
                weights: device.zeros(DType::F32, &[rows, used])?,
                results: device.zeros(DType::F32, &[rows, used, width])?,
            })
        });
        Ok(Self {
            ids: device.zeros(DType::I32, &[rows as u64])?,
            positions: device.zeros(DType::I32, &[rows as u64])?,
            logits: floats(logit_rows, config.vocabulary)?,
            likeliest: device.zeros(DType::I32, &[1])?,
            top: TopTokens::new(device)?,
            stream: floats(rows, config.width)?,
            hidden: floats(rows, config.width)?,
            heads: AllHeads::new(device, config, rows)?,
            gate: floats(rows, inner)?,
            up: floats(rows, inner)?,
            mixture: mixture.transpose()?,
            beside: BesideExperts::new(device, config, rows)?,
            hybrid: Hybrid::new(device, config, rows)?,
            convolved: Convolved::new(device, config, rows)?,
            inputs: Inputs::new(device, config, rows)?,
        })
    }

    /// What a layer attends with; behind a run of it, what it has attended with.
    pub(crate) fn heads(&self, config: &ModelConfig, layer: usize) -> Result<Heads> {
        let (all, source) = (&self.heads, config.source(layer));
        let kept = all.kept.iter().find(|(index, _)| *index == source);
        let [key, value] = kept.map_or(&all.stored, |(_, kept)| kept);
        let layer = &config.layers[layer];
        let shape = |heads: usize| [self.ids.elements(), heads as u64, layer.head_dim as u64];
        let (queries, stored) = (shape(config.heads), shape(layer.kv_heads));
        Ok(Heads {
            query: beginning(&all.query, &queries)?,
            key: beginning(key, &stored)?,
            value: beginning(value, &stored)?,
            attended: beginning(&all.attended, &queries)?,
        })
    }

    /// What a block leaves to the next one.
    pub(crate) fn state(&self) -> [&Tensor; 2] {
        [&self.stream, &self.hidden]
    }

    /// The same, for the first `rows` rows.
    pub(super) fn rows(&self, rows: usize) -> Result<Self> {
        let first = |tensor: &Tensor| tensor.rows(0..rows as u64);
        Ok(Self {
            ids: first(&self.ids)?,
            positions: first(&self.positions)?,
            logits: self.logits.clone(),
            likeliest: self.likeliest.clone(),
            top: self.top.clone(),
            stream: first(&self.stream)?,
            hidden: first(&self.hidden)?,
            heads: self.heads.rows(rows)?,
            gate: first(&self.gate)?,
            up: first(&self.up)?,
            mixture: match &self.mixture {
                None => None,
                Some(all) => Some(Mixture {
                    logits: first(&all.logits)?,
                    ids: first(&all.ids)?,
                    weights: first(&all.weights)?,
                    results: first(&all.results)?,
                }),
            },
            beside: match &self.beside {
                None => None,
                Some(beside) => Some(beside.rows(rows)?),
            },
            hybrid: match &self.hybrid {
                None => None,
                Some(hybrid) => Some(hybrid.rows(rows)?),
            },
            convolved: match &self.convolved {
                None => None,
                Some(convolved) => Some(convolved.rows(rows)?),
            },
            inputs: match &self.inputs {
                None => None,
                Some(inputs) => Some(inputs.rows(rows)?),
            },
        })
    }
}

/// Copies of what a block's products take as their inputs, but the router's of experts.
#[derive(Debug)]
pub(crate) struct Taps {
    /// `[rows, width]`: of queries, keys and values.
    pub(crate) attention: Tensor,
    /// `[rows, heads · head_dim]` of the layer that has most: of the attention's output.
    pub(crate) attended: Tensor,
    /// `[rows, width]`: of gate and up.
    pub(crate) feed_forward: Tensor,
    /// As gate: of down.
    pub(crate) down: Tensor,
}

impl Taps {
    /// For as many rows as the intermediates have.
    pub(crate) fn new(device: &Device, intermediates: &Intermediates) -> Result<Self> {
        let like = |tensor: &Tensor| device.zeros(DType::F32, tensor.shape());
        Ok(Self {
            attention: like(&intermediates.hidden)?,
            attended: like(&intermediates.heads.attended)?,
            feed_forward: like(&intermediates.hidden)?,
            down: like(&intermediates.gate)?,
        })
    }
}
