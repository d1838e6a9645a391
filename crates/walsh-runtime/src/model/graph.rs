//! A model as a list of ops.

mod beside;
mod block;
mod convolution;
mod hybrid;
mod inputs;
mod intermediates;
mod layerwise;

use std::ops::Range;

use walsh::ops::{Add, ArgMax, EmbeddingRows, MatMulTopK, RmsNorm, Scale, SoftCap, TopK};
use walsh::{Device, Recorder, Screen, Step, Tensor};

use super::adapters::Applied;
use super::config::ModelConfig;
use super::memory::LayerMemory;
use super::weights::Weights;
use crate::Result;
use block::Block;
use intermediates::Part;

pub(crate) use intermediates::{Intermediates, Reading, Taps, TopTokens};
pub(crate) use layerwise::Layerwise;

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
            memory: self.memory,
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
            memory: self.memory,
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
        match &self.weights.inputs {
            Some(inputs) => block.embed_for_layers(inputs),
            None => Ok(()),
        }
    }

    /// Records a block. `pending` is whether the stream lacks what the block
    /// before computed; whether it lacks this one's comes back. Behind the last block
    /// the stream is whole.
    fn push_layer(&self, block: &mut Block<'_>, index: usize, pending: bool) -> Result<bool> {
        let layer = &self.weights.layers[index];
        let input = block.norm_stream(pending, layer.attention_norm.as_ref())?;
        block.mix(&input, layer, index)?;
        let pending = block.end_part(layer.attention_post_norm.as_ref())?;
        if let Some(beside) = &layer.beside {
            block.experts_beside(beside)?;
        }
        let input = block.norm_stream(pending, layer.feed_forward_norm.as_ref())?;
        block.feed_forward(&input, layer, index)?;
        if let Some(beside) = &layer.beside {
            block.join_beside(beside)?;
        }
        let pending = block.end_part(layer.feed_forward_post_norm.as_ref())?;
        if let Some(input) = &layer.input {
            block.take_in(input, index)?;
        }
        if let Some(factor) = layer.scale {
            block.scale_stream(factor)?;
        }
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
