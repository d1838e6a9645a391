//! The parts of a transformer block as ops.

use std::ops::Range;

use walsh::ops::{
    Attention, ExpertMatMul, ExpertRoute, ExpertSum, Fresh, GatedActivation, KvStore, Mask,
    RmsNorm, Rope, RopeConfig, Scale, SumBefore,
};
use walsh::{KvCache, Recorder, Tensor};

use super::{Intermediates, Mixture, Part, Reading, Taps};
use crate::Result;
use crate::model::adapters::Applied;
use crate::model::config::{ExpertsConfig, LayerConfig, ModelConfig};
use crate::model::memory::LayerMemory;
use crate::model::weights::{Attending, Layer, Linear, Mixer};

/// Records the parts of one transformer block after another.
pub(super) struct Block<'a> {
    pub(super) config: &'a ModelConfig,
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

    /// hidden = what a layer takes of the tokens before, by attention or from its state.
    pub(super) fn mix(
        &mut self,
        input: &Tensor,
        layer: &Layer,
        (config, memory): (&LayerConfig, &LayerMemory),
    ) -> Result<()> {
        let a = self.a;
        match (&layer.mixer, memory) {
            (Mixer::Attention(attention), LayerMemory::Cache(cache)) => {
                self.attention(input, attention, (config, cache))
            }
            (Mixer::Recurrent(recurrent), LayerMemory::State(state)) => {
                match (&self.config.recurrent, &a.hybrid) {
                    (Some(config), Some(hybrid)) => {
                        self.recur(input, (recurrent, config), (hybrid, state))
                    }
                    _ => unreachable!("layers with a state are of hybrids"),
                }
            }
            _ => unreachable!("a layer's memory is that of its kind"),
        }
    }

    fn attention(
        &mut self,
        input: &Tensor,
        layer: &Attending,
        (config, cache): (&LayerConfig, &KvCache),
    ) -> Result<()> {
        let a = self.a;
        self.tap(input, |taps| &taps.attention)?;
        let queries = match &a.hybrid {
            Some(hybrid) => hybrid.asked()?,
            None => flat(&a.query)?,
        };
        let (keys, values) = (flat(&a.key)?, flat(&a.value)?);
        let products = [
            (&layer.query, &queries),
            (&layer.key, &keys),
            (&layer.value, &values),
        ];
        self.linears(input, products)?;
        if let Some(hybrid) = &a.hybrid {
            self.part_queries(hybrid)?;
        }
        for (norm, heads) in [(&layer.query_norm, &a.query), (&layer.key_norm, &a.key)] {
            if let Some(weight) = norm {
                // Of each head, or of all of them together.
                let heads = match weight.elements() == heads.row_len() {
                    true => heads.clone(),
                    false => flat(heads)?,
                };
                self.list.push(RmsNorm {
                    input: heads.clone(),
                    before: None,
                    weight: Some(weight.clone()),
                    eps: self.config.norm_eps,
                    after: None,
                    output: heads,
                })?;
            }
        }
        if let Some(rope) = &config.rope {
            let queries = RopeConfig {
                temperature: self.config.query_temperature,
                ..rope.clone()
            };
            for (heads, config) in [(&a.query, queries), (&a.key, rope.clone())] {
                self.list.push(Rope {
                    input: heads.clone(),
                    positions: a.positions.clone(),
                    config,
                    output: heads.clone(),
                })?;
            }
        }
        let parts = self.parts.clone();
        let stores = |reading| parts.iter().filter(move |part| part.reading == reading);
        for part in stores(Reading::Codes) {
            self.store(part, cache)?;
        }
        for part in &parts {
            self.attend(part, (config, layer), cache)?;
        }
        for part in stores(Reading::CodesAndFresh) {
            self.store(part, cache)?;
        }
        if let Some(hybrid) = &a.hybrid {
            self.gate_attended(hybrid)?;
        }
        self.tap(&a.attended, |taps| &taps.attended)?;
        let attended = flat(&a.attended)?;
        self.linear(&layer.output, &attended, &a.hidden)
    }

    /// Stores the keys and values of a part's rows.
    fn store(&mut self, Part { rows, .. }: &Part, cache: &KvCache) -> Result<()> {
        let a = self.a;
        self.list.push(KvStore {
            keys: Some(a.key.rows(rows.clone())?),
            values: Some(a.value.rows(rows.clone())?),
            positions: a.positions.rows(rows.clone())?,
            sequences: self.sequences_of(rows)?,
            cache: cache.clone(),
        })?;
        Ok(())
    }

    /// Lets a part's rows attend.
    fn attend(
        &mut self,
        part: &Part,
        (config, layer): (&LayerConfig, &Attending),
        cache: &KvCache,
    ) -> Result<()> {
        let (a, rows) = (self.a, &part.rows);
        let of_part = |tensor: &Tensor| tensor.rows(rows.clone());
        let fresh = match part.reading {
            Reading::Codes => None,
            Reading::CodesAndFresh => Some(Fresh {
                keys: of_part(&a.key)?,
                values: of_part(&a.value)?,
            }),
        };
        self.list.push(Attention {
            query: of_part(&a.query)?,
            fresh,
            cache: cache.clone(),
            positions: of_part(&a.positions)?,
            sequences: self.sequences_of(rows)?,
            mask: Mask {
                scale: self.config.attention_scale,
                window: config.window.map(|window| window as u32),
                softcap: self.config.attention_softcap,
            },
            sinks: layer.sinks.clone(),
            output: of_part(&a.attended)?,
        })?;
        Ok(())
    }

    fn sequences_of(&self, rows: &Range<u64>) -> Result<Option<Tensor>> {
        let of_rows = |sequences: &Tensor| sequences.rows(rows.clone());
        Ok(self.sequences.as_ref().map(of_rows).transpose()?)
    }

    pub(super) fn feed_forward(&mut self, input: &Tensor, layer: &Layer) -> Result<()> {
        let a = self.a;
        self.tap(input, |taps| &taps.feed_forward)?;
        if let (Some(experts), Some(router), Some(mixture)) =
            (&self.config.experts, &layer.router, &a.mixture)
        {
            return self.experts(input, layer, (experts, router, mixture));
        }
        self.linears(input, [(&layer.gate, &a.gate), (&layer.up, &a.up)])?;
        self.activate()?;
        self.linear(&layer.down, &a.gate, &a.hidden)
    }

    /// The product of rows, with what their adapters add to it.
    pub(super) fn linear(
        &mut self,
        linear: &Linear,
        input: &Tensor,
        output: &Tensor,
    ) -> Result<()> {
        self.linears(input, [(linear, output)])
    }

    /// The same of one input. What adapters add comes behind all of them, so that devices may join neighbours as they do
    /// without.
    fn linears<const N: usize>(
        &mut self,
        input: &Tensor,
        products: [(&Linear, &Tensor); N],
    ) -> Result<()> {
        for (linear, output) in products {
            linear.record(&mut self.list, input, output)?;
        }
        let Some(adapters) = &self.adapters else {
            return Ok(());
        };
        for (linear, output) in products {
            adapters.record(&mut self.list, linear, [input, output])?;
        }
        Ok(())
    }

    /// gate = activation(gate) · up.
    fn activate(&mut self) -> Result<()> {
        let a = self.a;
        self.list.push(GatedActivation {
            gate: a.gate.clone(),
            up: a.up.clone(),
            activation: self.config.activation,
            output: a.gate.clone(),
        })?;
        self.tap(&a.gate, |taps| &taps.down)
    }

    /// Copies an input of products, where that is wanted.
    fn tap(&mut self, input: &Tensor, which: impl Fn(&Taps) -> &Tensor) -> Result<()> {
        if let Some(taps) = self.taps {
            self.list.push(Scale {
                input: input.clone(),
                factor: 1.0,
                output: which(taps).clone(),
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
        self.list.push(ExpertRoute {
            logits: mixture.logits.clone(),
            bias: None,
            scoring: experts.scoring,
            scale: 1.0,
            ids: mixture.ids.clone(),
            weights: mixture.weights.clone(),
        })?;
        let product = |list: &mut Recorder, linear: &Linear, input: &Tensor, output: &Tensor| {
            list.push(ExpertMatMul {
                weight: linear.weight.clone(),
                ids: mixture.ids.clone(),
                input: input.clone(),
                bias: linear.bias.clone(),
                output: output.clone(),
            })
        };
        product(&mut self.list, &layer.gate, input, &a.gate)?;
        product(&mut self.list, &layer.up, input, &a.up)?;
        self.activate()?;
        product(&mut self.list, &layer.down, &a.gate, &mixture.results)?;
        self.list.push(ExpertSum {
            input: mixture.results.clone(),
            weights: mixture.weights.clone(),
            onto: None,
            output: a.hidden.clone(),
        })?;
        match &a.hybrid {
            Some(hybrid) => self.add_shared(hybrid),
            None => Ok(()),
        }
    }
}

/// `[rows, heads, head_dim]` as `[rows, heads · head_dim]`.
pub(super) fn flat(heads: &Tensor) -> Result<Tensor> {
    let rows = heads.shape()[0];
    Ok(heads.reshape(&[rows, heads.elements() / rows])?)
}
