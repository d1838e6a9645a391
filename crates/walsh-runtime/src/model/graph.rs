//! A model as a list of ops.

mod block;
mod hybrid;
mod layerwise;

use std::ops::Range;

use walsh::formats::DType;
use walsh::ops::{Add, ArgMax, EmbeddingRows, MatMulTopK, RmsNorm, Scale, SoftCap, TopK};
use walsh::{Device, Recorder, Screen, Step, Tensor};

use super::adapters::Applied;
use super::config::ModelConfig;
use super::memory::LayerMemory;
use super::weights::Weights;
use crate::Result;
use block::Block;
use hybrid::Hybrid;

pub(crate) use layerwise::Layerwise;

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
struct Part {
    reading: Reading,
    rows: Range<u64>,
}

/// What is wanted behind a single token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// The logits.
    Logits,
    /// The logits and the likeliest token.
    Likeliest,
    /// So many of the likeliest tokens, by the model's screen.
    TopK(usize),
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
    fn first(&self, count: usize) -> Result<[Tensor; 2]> {
        let count = count as u64;
        let first = |all: &Tensor| all.rows(0..count)?.reshape(&[1, count]);
        Ok([first(&self.logits)?, first(&self.tokens)?])
    }
}

/// What a mixture of experts needs beside gates.
#[derive(Debug)]
struct Mixture {
    /// `[rows, experts]`.
    logits: Tensor,
    /// `i32 [rows, used]`.
    ids: Tensor,
    /// `[rows, used]`.
    weights: Tensor,
    /// `[rows, used, width]`.
    results: Tensor,
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
    stream: Tensor,
    /// A block's input or output.
    pub(crate) hidden: Tensor,
    /// `[rows, heads, head_dim]`, after RoPE.
    pub(crate) query: Tensor,
    /// `[rows, kv_heads, head_dim]`, after RoPE.
    pub(crate) key: Tensor,
    /// `[rows, kv_heads, head_dim]`.
    pub(crate) value: Tensor,
    attended: Tensor,
    /// `[rows, feed_forward]`, or of each expert of a row `[rows, used, feed_forward]`.
    gate: Tensor,
    up: Tensor,
    mixture: Option<Mixture>,
    hybrid: Option<Hybrid>,
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
        let heads = |heads: usize| {
            let shape = [rows as u64, heads as u64, config.head_dim as u64];
            device.zeros(DType::F32, &shape)
        };
        let inner = |config: &ModelConfig| {
            let (rows, inner) = (rows as u64, config.feed_forward as u64);
            match &config.experts {
                Some(experts) => device.zeros(DType::F32, &[rows, experts.used as u64, inner]),
                None => device.zeros(DType::F32, &[rows, inner]),
            }
        };
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
            query: heads(config.heads)?,
            key: heads(config.kv_heads)?,
            value: heads(config.kv_heads)?,
            attended: heads(config.heads)?,
            gate: inner(config)?,
            up: inner(config)?,
            mixture: mixture.transpose()?,
            hybrid: Hybrid::new(device, config, rows)?,
        })
    }

    /// What a block leaves to the next one.
    pub(crate) fn state(&self) -> [&Tensor; 2] {
        [&self.stream, &self.hidden]
    }

    /// The same, for the first `rows` rows.
    fn rows(&self, rows: usize) -> Result<Self> {
        let first = |tensor: &Tensor| tensor.rows(0..rows as u64);
        Ok(Self {
            ids: first(&self.ids)?,
            positions: first(&self.positions)?,
            logits: self.logits.clone(),
            likeliest: self.likeliest.clone(),
            top: self.top.clone(),
            stream: first(&self.stream)?,
            hidden: first(&self.hidden)?,
            query: first(&self.query)?,
            key: first(&self.key)?,
            value: first(&self.value)?,
            attended: first(&self.attended)?,
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
            hybrid: match &self.hybrid {
                None => None,
                Some(hybrid) => Some(hybrid.rows(rows)?),
            },
        })
    }
}

/// Copies of what a block's products take as their inputs, but the router's of experts.
#[derive(Debug)]
pub(crate) struct Taps {
    /// `[rows, width]`: of queries, keys and values.
    pub(crate) attention: Tensor,
    /// `[rows, heads, head_dim]`: of the attention's output.
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
            attended: like(&intermediates.attended)?,
            feed_forward: like(&intermediates.hidden)?,
            down: like(&intermediates.gate)?,
        })
    }
}

/// What lists are recorded from.
pub(crate) struct Graph<'a> {
    pub(crate) device: &'a Device,
    pub(crate) config: &'a ModelConfig,
    pub(crate) weights: &'a Weights,
    /// What finds the likeliest tokens, for lists that do.
    pub(crate) screen: Option<&'a Screen>,
    /// Of each layer.
    pub(crate) memory: &'a [LayerMemory],
    pub(crate) intermediates: &'a Intermediates,
    /// The adapters of rows, where they have any.
    pub(crate) adapters: Option<&'a Applied>,
}

impl Graph<'_> {
    /// From the ids of `rows` tokens to the residual stream behind the last
    /// block; what their keys and values are is stored, and states go on to the last.
    pub(crate) fn body(&self, rows: usize, reading: Reading) -> Result<Step> {
        let a = self.intermediates.rows(rows)?;
        let mut block = self.block(&a, reading)?;
        self.push_body(&mut block)?;
        Ok(block.list.finish()?)
    }

    /// The same for tokens of several sequences, each row's in `sequences`: first
    /// `decoded` rows that attend over stored codes, then `prefilled` ones that attend
    /// over their chunk's own keys and values too.
    pub(crate) fn batch(
        &self,
        decoded: usize,
        prefilled: usize,
        sequences: &Tensor,
    ) -> Result<Step> {
        let rows = decoded + prefilled;
        let a = self.intermediates.rows(rows)?;
        let (middle, end) = (decoded as u64, rows as u64);
        let mut parts = vec![
            Part {
                reading: Reading::Codes,
                rows: 0..middle,
            },
            Part {
                reading: Reading::CodesAndFresh,
                rows: middle..end,
            },
        ];
        parts.retain(|part| !part.rows.is_empty());
        let mut block = Block {
            config: self.config,
            a: &a,
            parts,
            sequences: Some(sequences.rows(0..end)?),
            adapters: self.adapters_of(rows)?,
            taps: None,
            list: self.device.record(),
        };
        self.push_body(&mut block)?;
        Ok(block.list.finish()?)
    }

    /// From rows of the residual stream, whose numbers are in `rows`, to their logits,
    /// and to the likeliest token of each if there is room for it.
    pub(crate) fn heads(&self, rows: &Tensor, likeliest: Option<&Tensor>) -> Result<Step> {
        let a = self.intermediates;
        let count = rows.elements();
        let mut list = self.device.record();
        let hidden = self.push_vectors(&mut list, rows)?;
        self.push_logits(&mut list, &hidden)?;
        if let Some(likeliest) = likeliest {
            list.push(ArgMax {
                input: a.logits.rows(0..count)?,
                output: likeliest.clone(),
            })?;
        }
        Ok(list.finish()?)
    }

    /// From the same rows to what the output norm makes of them, in `hidden`.
    pub(crate) fn vectors(&self, rows: &Tensor) -> Result<Step> {
        let mut list = self.device.record();
        self.push_vectors(&mut list, rows)?;
        Ok(list.finish()?)
    }

    /// From the first `rows` rows of the residual stream to what logits are products of, in `hidden`.
    pub(crate) fn states(&self, rows: usize) -> Result<Step> {
        let mut list = self.device.record();
        self.push_output_norm_of(&mut list, 0..rows as u64)?;
        Ok(list.finish()?)
    }

    fn push_vectors(&self, list: &mut Recorder, rows: &Tensor) -> Result<Tensor> {
        let a = self.intermediates;
        let hidden = a.hidden.rows(0..rows.elements())?;
        list.push(EmbeddingRows {
            table: a.stream.clone(),
            ids: rows.clone(),
            scale: 1.0,
            output: hidden.clone(),
        })?;
        self.push_output_norm(list, hidden.clone(), &hidden)?;
        Ok(hidden)
    }

    /// One token, from its id to what is wanted behind it.
    pub(crate) fn token(&self, wanted: Wanted) -> Result<Step> {
        let a = self.intermediates.rows(1)?;
        let mut block = self.block(&a, Reading::Codes)?;
        self.push_body(&mut block)?;
        match wanted {
            Wanted::Logits => self.push_head(&mut block.list, 0, 1)?,
            Wanted::TopK(count) => self.push_search(&mut block.list, count)?,
            Wanted::Likeliest => {
                self.push_head(&mut block.list, 0, 1)?;
                block.list.push(ArgMax {
                    input: a.logits.rows(0..1)?,
                    output: a.likeliest.clone(),
                })?;
            }
        }
        Ok(block.list.finish()?)
    }

    fn push_body(&self, block: &mut Block<'_>) -> Result<()> {
        self.embed(block)?;
        let mut pending = false;
        for index in 0..self.memory.len() {
            pending = self.push_layer(block, index, pending)?;
        }
        Ok(())
    }

    /// One block alone, the first from the ids. The blocks' lists, run in order,
    /// leave each block's queries, keys and values to be read in between.
    pub(crate) fn layer(&self, rows: usize, index: usize, reading: Reading) -> Result<Step> {
        let a = self.intermediates.rows(rows)?;
        self.single_layer(self.block(&a, reading)?, index)
    }

    /// The same for all rows that there is room for, which leaves copies of its products' inputs.
    pub(crate) fn tapped_layer(&self, index: usize, reading: Reading, taps: &Taps) -> Result<Step> {
        let block = Block {
            taps: Some(taps),
            ..self.block(self.intermediates, reading)?
        };
        self.single_layer(block, index)
    }

    fn single_layer(&self, mut block: Block<'_>, index: usize) -> Result<Step> {
        let pending = match index.checked_sub(1) {
            None => {
                self.embed(&mut block)?;
                false
            }
            Some(before) => self.weights.layers[before].feed_forward_post_norm.is_none(),
        };
        self.push_layer(&mut block, index, pending)?;
        Ok(block.list.finish()?)
    }

    fn block<'b>(
        &'b self,
        intermediates: &'b Intermediates,
        reading: Reading,
    ) -> Result<Block<'b>> {
        let rows = intermediates.ids.elements();
        Ok(Block {
            config: self.config,
            a: intermediates,
            parts: vec![Part {
                reading,
                rows: 0..rows,
            }],
            sequences: None,
            adapters: self.adapters_of(rows as usize)?,
            taps: None,
            list: self.device.record(),
        })
    }

    /// Those of the first rows.
    fn adapters_of(&self, rows: usize) -> Result<Option<Applied>> {
        let adapters = self.adapters.map(|adapters| adapters.of_rows(rows));
        Ok(adapters.transpose()?.flatten())
    }

    fn embed(&self, block: &mut Block<'_>) -> Result<()> {
        block.list.push(EmbeddingRows {
            table: self.weights.embedding.clone(),
            ids: block.a.ids.clone(),
            scale: self.config.embedding_scale,
            output: block.a.stream.clone(),
        })?;
        Ok(())
    }

    /// Records a block. `pending` is whether the stream lacks what the block
    /// before computed; whether it lacks this one's comes back. Behind the last block
    /// the stream is whole.
    fn push_layer(&self, block: &mut Block<'_>, index: usize, pending: bool) -> Result<bool> {
        let layer = &self.weights.layers[index];
        let input = block.norm_stream(pending, layer.attention_norm.as_ref())?;
        let config = &self.config.layers[index];
        block.mix(&input, layer, (config, &self.memory[index]))?;
        let pending = block.end_part(layer.attention_post_norm.as_ref())?;
        let input = block.norm_stream(pending, layer.feed_forward_norm.as_ref())?;
        block.feed_forward(&input, layer)?;
        let pending = block.end_part(layer.feed_forward_post_norm.as_ref())?;
        let is_last = index + 1 == self.memory.len();
        if is_last && pending {
            let a = block.a;
            block.list.push(Add {
                a: a.stream.clone(),
                b: a.hidden.clone(),
                output: a.stream.clone(),
            })?;
        }
        Ok(pending && !is_last)
    }

    /// From `count` rows of the residual stream to logits.
    pub(crate) fn head(&self, first: usize, count: usize) -> Result<Step> {
        let mut list = self.device.record();
        self.push_head(&mut list, first, count)?;
        Ok(list.finish()?)
    }

    /// From rows of the residual stream to what logits are products of.
    fn push_output_norm(&self, list: &mut Recorder, rows: Tensor, hidden: &Tensor) -> Result<()> {
        list.push(RmsNorm {
            input: rows,
            before: None,
            weight: Some(self.weights.output_norm.clone()),
            eps: self.config.norm_eps,
            after: None,
            output: hidden.clone(),
        })?;
        Ok(())
    }

    /// The same of neighbouring rows, in their place.
    fn push_output_norm_of(&self, list: &mut Recorder, rows: Range<u64>) -> Result<Tensor> {
        let a = self.intermediates;
        let hidden = a.hidden.rows(rows.clone())?;
        self.push_output_norm(list, a.stream.rows(rows)?, &hidden)?;
        Ok(hidden)
    }

    /// From the first row of the residual stream to what its logits are products of, which
    /// is returned, and from the logits to the `count` likeliest tokens.
    pub(crate) fn search(&self, count: usize) -> Result<(Step, Tensor)> {
        let mut list = self.device.record();
        let inputs = self.push_output_norm_of(&mut list, 0..1)?;
        let [values, indices] = self.intermediates.top.first(count)?;
        list.push(TopK {
            input: self.intermediates.logits.rows(0..1)?,
            values,
            indices,
        })?;
        Ok((list.finish()?, inputs))
    }

    /// From the first row of the residual stream to the `count` likeliest next tokens.
    fn push_search(&self, list: &mut Recorder, count: usize) -> Result<()> {
        let input = self.push_output_norm_of(list, 0..1)?;
        let [values, indices] = self.intermediates.top.first(count)?;
        list.push(MatMulTopK {
            weight: self.weights.output.weight.clone(),
            screen: self.screen.cloned(),
            input,
            values,
            indices,
        })?;
        Ok(())
    }

    fn push_head(&self, list: &mut Recorder, first: usize, count: usize) -> Result<()> {
        let hidden = self.push_output_norm_of(list, first as u64..(first + count) as u64)?;
        self.push_logits(list, &hidden)
    }

    /// From what logits are products of to the logits, in the first rows.
    fn push_logits(&self, list: &mut Recorder, hidden: &Tensor) -> Result<()> {
        let logits = self.intermediates.logits.rows(0..hidden.shape()[0])?;
        self.weights.output.record(list, hidden, &logits)?;
        if self.config.logit_scale != 1.0 {
            list.push(Scale {
                input: logits.clone(),
                factor: self.config.logit_scale,
                output: logits.clone(),
            })?;
        }
        if let Some(cap) = self.config.logit_softcap {
            list.push(SoftCap {
                input: logits.clone(),
                cap,
                output: logits,
            })?;
        }
        Ok(())
    }
}
