//! The parts of a transformer block as ops.

use std::ops::Range;

use walsh::ops::{
    Attention, ExpertMatMul, ExpertRoute, ExpertSum, Fresh, GatedActivation, KvStore, Mask,
    RmsNorm, Rope, RopeConfig, Scale, Scoring, SumBefore,
};
use walsh::{KvCache, Recorder, Tensor};

use super::intermediates::{Heads, Intermediates, Mixture, Part, Reading, Taps, beginning};
use crate::Result;
use crate::model::adapters::Applied;
use crate::model::config::{ExpertsConfig, LayerConfig, ModelConfig};
use crate::model::memory::LayerMemory;
use crate::model::weights::{Attending, Layer, Linear, Mixer};

/// Records the parts of one transformer block after another.
pub(super) struct Block<'a> {
    pub(super) config: &'a ModelConfig,
    /// Of each layer.
    pub(super) memory: &'a [LayerMemory],
    pub(super) a: &'a Intermediates,
    /// What the rows attend over, in their order.
    pub(super) parts: Vec<Part>,
    /// `i32 [rows]`: each row's sequence, where there are several.
    pub(super) sequences: Option<Tensor>,
    /// The adapters of the rows, where they have any.
    pub(super) adapters: Option<Applied>,
    /// Where inputs of products are copied to.
    pub(super) taps: Option<&'a Taps>,
    pub(super) list: Recorder,
}

impl Block<'_> {
    /// hidden = norm(stream), after adding what is pending in hidden to the
    /// stream; what the next part takes. Without a norm that is the stream, in
    /// which nothing is missing then.
    pub(super) fn norm_stream(&mut self, pending: bool, weight: Option<&Tensor>) -> Result<Tensor> {
        let a = self.a;
        let Some(weight) = weight else {
            debug_assert!(
                !pending,
                "parts without norms before them have norms behind"
            );
            return Ok(a.stream.clone());
        };
        let (input, before) = if pending {
            let before = SumBefore {
                addend: a.stream.clone(),
                sum: a.stream.clone(),
            };
            (a.hidden.clone(), Some(before))
        } else {
            (a.stream.clone(), None)
        };
        self.list.push(RmsNorm {
            input,
            before,
            weight: Some(weight.clone()),
            eps: self.config.norm_eps,
            after: None,
            output: a.hidden.clone(),
        })?;
        Ok(a.hidden.clone())
    }

    /// Ends a part whose output is in hidden. With a norm of its own it joins
    /// the stream at once; without, the next norm adds it. Returns whether it is
    /// still pending.
    pub(super) fn end_part(&mut self, norm: Option<&Tensor>) -> Result<bool> {
        let a = self.a;
        if self.config.residual_scale != 1.0 {
            self.list.push(Scale {
                input: a.hidden.clone(),
                factor: self.config.residual_scale,
                output: a.hidden.clone(),
            })?;
        }
        let Some(weight) = norm else {
            return Ok(true);
        };
        self.list.push(RmsNorm {
            input: a.hidden.clone(),
            before: None,
            weight: Some(weight.clone()),
            eps: self.config.norm_eps,
            after: Some(a.stream.clone()),
            output: a.stream.clone(),
        })?;
        Ok(false)
    }

    /// output = norm(input).
    pub(super) fn norm_into(
        &mut self,
        input: &Tensor,
        weight: Option<&Tensor>,
        output: &Tensor,
    ) -> Result<()> {
        self.list.push(RmsNorm {
            input: input.clone(),
            before: None,
            weight: weight.cloned(),
            eps: self.config.norm_eps,
            after: None,
            output: output.clone(),
        })?;
        Ok(())
    }

    /// stream = factor · stream, in which nothing is missing.
    pub(super) fn scale_stream(&mut self, factor: f32) -> Result<()> {
        let stream = &self.a.stream;
        self.list.push(Scale {
            input: stream.clone(),
            factor,
            output: stream.clone(),
        })?;
        Ok(())
    }

    /// hidden = what a layer takes of the tokens before, by attention or from its state.
    pub(super) fn mix(&mut self, input: &Tensor, layer: &Layer, index: usize) -> Result<()> {
        let a = self.a;
        match (&layer.mixer, self.memory[index].state()) {
            (Mixer::Attention(attention), None) => self.attention(input, attention, index),
            (Mixer::Recurrent(recurrent), Some(state)) => {
                let config = self.config.recurrent.and_then(|config| config.delta);
                match (config, &a.hybrid) {
                    (Some(config), Some(hybrid)) => {
                        self.recur(input, (recurrent, &config), (hybrid, state))
                    }
                    _ => unreachable!("layers of the delta rule are of hybrids"),
                }
            }
            (Mixer::Convolution(convolution), Some(state)) => match &a.convolved {
                Some(convolved) => self.convolve(input, convolution, (convolved, state)),
                None => unreachable!("convolutions have room for what comes of them"),
            },
            _ => unreachable!("a layer's memory is that of its kind"),
        }
    }

    fn attention(&mut self, input: &Tensor, layer: &Attending, index: usize) -> Result<()> {
        let a = self.a;
        let heads = a.heads(self.config, index)?;
        self.tap(input, |taps| &taps.attention)?;
        let queries = match &a.hybrid {
            Some(hybrid) => hybrid.asked()?,
            None => flat(&heads.query)?,
        };
        // One after the other, so that devices may join neighbours; what adapters add comes behind all of them.
        let (keys, values) = (flat(&heads.key)?, flat(&heads.value)?);
        let mut products = vec![(&layer.query, &queries)];
        if let Some(stored) = &layer.stored {
            products.push((&stored.key, &keys));
            products.extend(stored.value.as_ref().map(|value| (value, &values)));
        }
        self.linears(input, &products)?;
        if let Some(hybrid) = &a.hybrid {
            self.part_queries(&heads.query, hybrid)?;
        }
        self.norm_heads(layer, &heads)?;
        self.rotate(layer, &heads, index)?;
        let source = self.config.source(index);
        let Some(cache) = self.memory[source].cache() else {
            unreachable!("what layers attend to has a cache");
        };
        let (is_first, is_last) = (index == source, index == self.config.last_reader(source));
        let parts = self.parts.clone();
        let stores = |reading, now: bool| {
            let parts = parts.iter();
            parts.filter(move |part| now && part.reading == reading)
        };
        for part in stores(Reading::Codes, is_first) {
            self.store(part, &heads, cache)?;
        }
        for part in &parts {
            let (config, sinks) = (&self.config.layers[index], layer.sinks.as_ref());
            self.attend(part, (config, sinks), (&heads, cache))?;
        }
        // All that read the chunk's own keys and values find what was stored as it was before the chunk.
        for part in stores(Reading::CodesAndFresh, is_last) {
            self.store(part, &heads, cache)?;
        }
        if let Some(hybrid) = &a.hybrid {
            self.gate_attended(&heads.attended, hybrid)?;
        }
        let attended = flat(&heads.attended)?;
        self.tap(&attended, |taps| &taps.attended)?;
        self.linear(&layer.output, &attended, &a.hidden)
    }

    /// The norms of queries, keys and values, of each head or of all of them together.
    fn norm_heads(&mut self, layer: &Attending, heads: &Heads) -> Result<()> {
        let stored = layer.stored.as_ref();
        if self.config.architecture.has_unlike_layers()
            && let Some(stored) = stored
        {
            let input = match stored.value {
                Some(_) => &heads.value,
                // The norm of keys comes later.
                None => &heads.key,
            };
            self.norm_into(input, None, &heads.value)?;
        }
        let key_norm = stored.and_then(|stored| stored.key_norm.as_ref());
        for (norm, heads) in [
            (layer.query_norm.as_ref(), &heads.query),
            (key_norm, &heads.key),
        ] {
            if let Some(weight) = norm {
                let heads = match weight.elements() == heads.row_len() {
                    true => heads.clone(),
                    false => flat(heads)?,
                };
                self.norm_into(&heads, Some(weight), &heads)?;
            }
        }
        Ok(())
    }

    fn rotate(&mut self, layer: &Attending, heads: &Heads, index: usize) -> Result<()> {
        let Some(rope) = &self.config.layers[index].rope else {
            return Ok(());
        };
        let queries = RopeConfig {
            temperature: self.config.query_temperature,
            ..rope.clone()
        };
        let keys = layer.stored.as_ref().map(|_| (&heads.key, rope.clone()));
        for (heads, config) in [(&heads.query, queries)].into_iter().chain(keys) {
            self.list.push(Rope {
                input: heads.clone(),
                positions: self.a.positions.clone(),
                config,
                output: heads.clone(),
            })?;
        }
        Ok(())
    }

    /// Stores the keys and values of a part's rows.
    fn store(&mut self, Part { rows, .. }: &Part, heads: &Heads, cache: &KvCache) -> Result<()> {
        self.list.push(KvStore {
            keys: Some(heads.key.rows(rows.clone())?),
            values: Some(heads.value.rows(rows.clone())?),
            positions: self.a.positions.rows(rows.clone())?,
            sequences: self.sequences_of(rows)?,
            cache: cache.clone(),
        })?;
        Ok(())
    }

    /// Lets a part's rows attend.
    fn attend(
        &mut self,
        part: &Part,
        (config, sinks): (&LayerConfig, Option<&Tensor>),
        (heads, cache): (&Heads, &KvCache),
    ) -> Result<()> {
        let rows = &part.rows;
        let of_part = |tensor: &Tensor| tensor.rows(rows.clone());
        let fresh = match part.reading {
            Reading::Codes => None,
            Reading::CodesAndFresh => Some(Fresh {
                keys: of_part(&heads.key)?,
                values: of_part(&heads.value)?,
            }),
        };
        self.list.push(Attention {
            query: of_part(&heads.query)?,
            fresh,
            cache: cache.clone(),
            positions: of_part(&self.a.positions)?,
            sequences: self.sequences_of(rows)?,
            mask: Mask {
                scale: self.config.attention_scale,
                window: config.window.map(|window| window as u32),
                softcap: self.config.attention_softcap,
            },
            sinks: sinks.cloned(),
            output: of_part(&heads.attended)?,
        })?;
        Ok(())
    }

    fn sequences_of(&self, rows: &Range<u64>) -> Result<Option<Tensor>> {
        let of_rows = |sequences: &Tensor| sequences.rows(rows.clone());
        Ok(self.sequences.as_ref().map(of_rows).transpose()?)
    }

    pub(super) fn feed_forward(
        &mut self,
        input: &Tensor,
        layer: &Layer,
        index: usize,
    ) -> Result<()> {
        let a = self.a;
        self.tap(input, |taps| &taps.feed_forward)?;
        if let (Some(experts), Some(router), Some(mixture)) =
            (&self.config.experts, &layer.router, &a.mixture)
        {
            return self.experts(input, layer, (experts, router, mixture));
        }
        let shape = [
            input.shape()[0],
            self.config.layers[index].feed_forward as u64,
        ];
        let (gate, up) = (beginning(&a.gate, &shape)?, beginning(&a.up, &shape)?);
        self.linears(input, &[(&layer.gate, &gate), (&layer.up, &up)])?;
        self.activate(&gate, &up)?;
        self.tap(&gate, |taps| &taps.down)?;
        self.linear(&layer.down, &gate, &a.hidden)
    }

    /// The product of rows, with what their adapters add to it.
    pub(super) fn linear(
        &mut self,
        linear: &Linear,
        input: &Tensor,
        output: &Tensor,
    ) -> Result<()> {
        self.linears(input, &[(linear, output)])
    }

    /// The same of one input. What adapters add comes behind all of them, so that devices may join neighbours as they do
    /// without.
    pub(super) fn linears(
        &mut self,
        input: &Tensor,
        products: &[(&Linear, &Tensor)],
    ) -> Result<()> {
        for &(linear, output) in products {
            linear.record(&mut self.list, input, output)?;
        }
        let Some(adapters) = &self.adapters else {
            return Ok(());
        };
        for &(linear, output) in products {
            adapters.record(&mut self.list, linear, [input, output])?;
        }
        Ok(())
    }

    /// gate = activation(gate) · up.
    pub(super) fn activate(&mut self, gate: &Tensor, up: &Tensor) -> Result<()> {
        self.list.push(GatedActivation {
            gate: gate.clone(),
            up: up.clone(),
            activation: self.config.activation,
            output: gate.clone(),
        })?;
        Ok(())
    }

    /// Copies an input of products, where that is wanted.
    fn tap(&mut self, input: &Tensor, which: impl Fn(&Taps) -> &Tensor) -> Result<()> {
        if let Some(taps) = self.taps {
            self.list.push(Scale {
                input: input.clone(),
                factor: 1.0,
                output: beginning(which(taps), input.shape())?,
            })?;
        }
        Ok(())
    }

    fn experts(
        &mut self,
        input: &Tensor,
        layer: &Layer,
        (experts, router, mixture): (&ExpertsConfig, &Linear, &Mixture),
    ) -> Result<()> {
        let a = self.a;
        if let (Some(expert), Some(hybrid)) = (&layer.shared, &a.hybrid) {
            self.share(input, expert, hybrid)?;
        }
        self.linear(router, input, &mixture.logits)?;
        let bias = layer.router_bias.as_ref();
        self.route((experts.scoring, bias), mixture, &mixture.weights)?;
        let inner = layer.gate.weight.shape()[1];
        let shape = [input.shape()[0], experts.used as u64, inner];
        let (gate, up) = (beginning(&a.gate, &shape)?, beginning(&a.up, &shape)?);
        self.expert_product((&layer.gate, mixture), input, &gate)?;
        self.expert_product((&layer.up, mixture), input, &up)?;
        self.activate(&gate, &up)?;
        self.tap(&gate, |taps| &taps.down)?;
        self.expert_product((&layer.down, mixture), &gate, &mixture.results)?;
        self.sum_experts(mixture, &a.hidden)?;
        match &a.hybrid {
            Some(hybrid) => self.add_shared(hybrid),
            None => Ok(()),
        }
    }
}

impl Block<'_> {
    /// Chooses each row's experts by their logits.
    pub(super) fn route(
        &mut self,
        (scoring, bias): (Scoring, Option<&Tensor>),
        mixture: &Mixture,
        weights: &Tensor,
    ) -> Result<()> {
        self.list.push(ExpertRoute {
            logits: mixture.logits.clone(),
            bias: bias.cloned(),
            scoring,
            scale: 1.0,
            ids: mixture.ids.clone(),
            weights: weights.clone(),
        })?;
        Ok(())
    }

    /// Products of rows with the weights of the experts that they go to.
    pub(super) fn expert_product(
        &mut self,
        (linear, mixture): (&Linear, &Mixture),
        input: &Tensor,
        output: &Tensor,
    ) -> Result<()> {
        self.list.push(ExpertMatMul {
            weight: linear.weight.clone(),
            ids: mixture.ids.clone(),
            input: input.clone(),
            bias: linear.bias.clone(),
            output: output.clone(),
        })?;
        Ok(())
    }

    /// output = what the experts of a row give, by their weights.
    pub(super) fn sum_experts(&mut self, mixture: &Mixture, output: &Tensor) -> Result<()> {
        self.list.push(ExpertSum {
            input: mixture.results.clone(),
            weights: mixture.weights.clone(),
            onto: None,
            output: output.clone(),
        })?;
        Ok(())
    }
}

/// `[rows, heads, head_dim]` as `[rows, heads · head_dim]`.
pub(super) fn flat(heads: &Tensor) -> Result<Tensor> {
    let rows = heads.shape()[0];
    Ok(heads.reshape(&[rows, heads.elements() / rows])?)
}
