//! A model's tensors, by their part in the computation.

use walsh::{Device, Tensor};

use super::architecture::{Architecture, HeadNorms};
use super::config::{LayerConfig, ModelConfig, ROPE_FACTORS, RecurrentConfig};
use crate::{Error, Result};
pub(crate) use convolution::Convolving;
pub(crate) use hybrid::{Recurring, SharedExpert, Steps};
pub(crate) use linear::Linear;
pub(super) use loader::{Loader, Place};
pub(crate) use unlike::{Beside, Gates, LayerInput, LayerInputs};

mod convolution;
mod hybrid;
mod linear;
mod loader;
mod unlike;

/// The tensors of attention. Norms that an architecture lacks are `None`.
#[derive(Debug)]
pub(crate) struct Attending {
    /// Where attention is gated, of each head its query and its gate.
    pub(crate) query: Linear,
    pub(crate) query_norm: Option<Tensor>,
    /// None where keys and values are an earlier layer's.
    pub(crate) stored: Option<Stored>,
    /// A logit of each head that no value belongs to.
    pub(crate) sinks: Option<Tensor>,
    pub(crate) output: Linear,
}

/// The tensors of keys and values.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) key: Linear,
    /// None where values are what keys are before their norm.
    pub(crate) value: Option<Linear>,
    pub(crate) key_norm: Option<Tensor>,
}

/// What a block takes from other tokens by.
#[derive(Debug)]
pub(crate) enum Mixer {
    Attention(Box<Attending>),
    Recurrent(Box<Recurring>),
    Convolution(Box<Convolving>),
}

/// The tensors of one transformer block. Norms that an architecture lacks are
/// `None`.
#[derive(Debug)]
pub(crate) struct Layer {
    pub(crate) attention_norm: Option<Tensor>,
    pub(crate) mixer: Mixer,
    pub(crate) attention_post_norm: Option<Tensor>,
    pub(crate) feed_forward_norm: Option<Tensor>,
    /// What chooses experts, where gate, up and down are theirs.
    pub(crate) router: Option<Linear>,
    /// `[experts]`: what is added to their sigmoids for the choice alone.
    pub(crate) router_bias: Option<Tensor>,
    pub(crate) gate: Linear,
    pub(crate) up: Linear,
    pub(crate) down: Linear,
    /// The expert that all tokens share.
    pub(crate) shared: Option<SharedExpert>,
    /// Experts that stand beside gate, up and down.
    pub(crate) beside: Option<Box<Beside>>,
    pub(crate) feed_forward_post_norm: Option<Tensor>,
    /// What takes the token's embedding for this layer in.
    pub(crate) input: Option<LayerInput>,
    /// What the stream is multiplied by in the end.
    pub(crate) scale: Option<f32>,
}

/// All tensors.
#[derive(Debug)]
pub(crate) struct Weights {
    pub(crate) embedding: Tensor,
    /// What makes embeddings for each layer.
    pub(crate) inputs: Option<LayerInputs>,
    pub(crate) layers: Vec<Layer>,
    pub(crate) output_norm: Tensor,
    /// The embedding table itself where the two are tied.
    pub(crate) output: Linear,
    /// Whether the likeliest tokens are to be found without all of the output's weight.
    pub(crate) screened: bool,
}

impl Attending {
    fn products(&mut self) -> Vec<&mut Linear> {
        let mut all = vec![&mut self.query, &mut self.output];
        if let Some(Stored { key, value, .. }) = &mut self.stored {
            all.push(key);
            all.extend(value);
        }
        all
    }

    fn linears(&self) -> Vec<&Linear> {
        let stored = self.stored.iter();
        let stored = stored.flat_map(|stored| std::iter::once(&stored.key).chain(&stored.value));
        [&self.query, &self.output]
            .into_iter()
            .chain(stored)
            .collect()
    }
}

impl Layer {
    /// The tensors of its own keys and values, where it has some.
    pub(crate) fn stored(&self) -> Option<&Stored> {
        match &self.mixer {
            Mixer::Attention(attention) => attention.stored.as_ref(),
            Mixer::Recurrent(_) | Mixer::Convolution(_) => None,
        }
    }

    /// The weights of its products.
    fn products(&mut self) -> impl Iterator<Item = &mut Tensor> {
        let mixer = match &mut self.mixer {
            Mixer::Attention(attention) => attention.products(),
            Mixer::Recurrent(recurrent) => recurrent.products(),
            Mixer::Convolution(convolution) => convolution.products(),
        };
        let always = [&mut self.gate, &mut self.up, &mut self.down];
        let linears = mixer.into_iter().chain(always).chain(&mut self.router);
        let shared = self.shared.iter_mut().flat_map(SharedExpert::products);
        let beside = self.beside.iter_mut().flat_map(|beside| beside.products());
        let input = self.input.iter_mut().flat_map(LayerInput::products);
        let linears = linears.chain(shared).chain(beside).chain(input);
        linears.map(|linear| &mut linear.weight)
    }

    /// Its products of a matrix each.
    fn linears(&self) -> impl Iterator<Item = &Linear> {
        let mixer = match &self.mixer {
            Mixer::Attention(attention) => attention.linears(),
            Mixer::Recurrent(recurrent) => recurrent.linears(),
            Mixer::Convolution(convolution) => convolution.linears(),
        };
        let always = [&self.gate, &self.up, &self.down];
        let linears = mixer.into_iter().chain(always).chain(&self.router);
        let shared = self.shared.iter().flat_map(SharedExpert::linears);
        let beside = self.beside.iter().map(|beside| &beside.router);
        let input = self.input.iter().flat_map(LayerInput::linears);
        let all = linears.chain(shared).chain(beside).chain(input);
        all.filter(|linear| linear.weight.shape().len() == 2)
    }
}

impl Weights {
    /// The products of a matrix each that layers have.
    pub(super) fn linears(&self) -> impl Iterator<Item = &Linear> {
        self.layers.iter().flat_map(Layer::linears)
    }

    /// Packs the weights of all products as far as the device does, and returns the bytes that this takes. The
    /// embedding table stays as it is: rows are read from it, even where it is the output's weight too. So does the
    /// output's weight where the device can find the likeliest tokens without all of it: rows are read one by one then.
    /// Logits that are more than products have no such way.
    ///
    /// # Errors
    /// When the device fails, or was told to pack and memory is missing.
    pub(super) fn pack(&mut self, device: &Device, config: &ModelConfig) -> Result<u64> {
        let Linear { scale, bias, .. } = &self.output;
        let products = scale.is_none()
            && bias.is_none()
            && config.logit_softcap.is_none()
            && config.logit_scale == 1.0;
        self.screened = products && device.screens(&self.output.weight);
        let mut places: Vec<&mut Tensor> = Vec::new();
        if !self.screened {
            places.push(&mut self.output.weight);
        }
        places.extend(self.inputs.as_mut().map(LayerInputs::product));
        places.extend(self.layers.iter_mut().flat_map(Layer::products));
        let weights: Vec<Tensor> = places.iter().map(|weight| (**weight).clone()).collect();
        let mut bytes = 0;
        for (place, weight) in places.into_iter().zip(device.pack(&weights)?) {
            if weight.is_packed() {
                bytes += weight.bytes();
            }
            *place = weight;
        }
        Ok(bytes)
    }
}

impl Loader<'_> {
    fn layer(&self, config: &ModelConfig, index: usize) -> Result<Layer> {
        let architecture = config.architecture;
        let (biases, _) = architecture.biases();
        let name = |part: &str| format!("blk.{index}.{part}");
        let vector = |part: &str, len| self.required(&name(&format!("{part}.weight")), &[len]);
        let norm = |exists: bool, part: &str, len| exists.then(|| vector(part, len)).transpose();
        let linear = |part: &str, rows, columns| {
            self.linear(&name(part), [rows, columns], biases.contains(&part))
        };
        let (width, inner) = (config.width, config.layers[index].feed_forward);
        let pre_norms = architecture.has_pre_norms();
        let post_norms = architecture.has_post_norms();
        let mixer = match config.recurrent.filter(|_| config.layers[index].recurrent) {
            Some(recurrent) => self.with_state(config, &recurrent, index)?,
            None => Mixer::Attention(Box::new(self.attending(config, index)?)),
        };
        let experts = config.experts.filter(|_| config.layers[index].mixture);
        let [gate, up, down] = match &experts {
            Some(experts) => [
                self.experts(&name("ffn_gate_exps"), [experts.count, inner, width])?,
                self.experts(&name("ffn_up_exps"), [experts.count, inner, width])?,
                self.experts(&name("ffn_down_exps"), [experts.count, width, inner])?,
            ],
            None if architecture.is_fused() => {
                let [gate, up] = self.fused(&name("ffn_up"), [inner, inner], width)?;
                [gate, up, linear("ffn_down", width, inner)?]
            }
            None => [
                linear("ffn_gate", inner, width)?,
                linear("ffn_up", inner, width)?,
                linear("ffn_down", width, inner)?,
            ],
        };
        let router = experts.map(|experts| linear("ffn_gate_inp", experts.count, width));
        let router_bias = experts
            .filter(|_| architecture.chooses_by_bias())
            .map(|experts| self.required(&name("exp_probs_b.bias"), &[experts.count]));
        Ok(Layer {
            attention_norm: norm(pre_norms, "attn_norm", width)?,
            mixer,
            attention_post_norm: norm(post_norms, "post_attention_norm", width)?,
            feed_forward_norm: norm(pre_norms, architecture.feed_forward_norm(), width)?,
            router: router.transpose()?,
            router_bias: router_bias.transpose()?,
            gate,
            up,
            down,
            shared: self.shared_expert(config, index)?,
            beside: self.beside(config, index)?.map(Box::new),
            feed_forward_post_norm: norm(post_norms, "post_ffw_norm", width)?,
            input: self.layer_input(config, index)?,
            scale: self.layer_scale(config, index)?,
        })
    }

    fn with_state(
        &self,
        config: &ModelConfig,
        recurrent: &RecurrentConfig,
        index: usize,
    ) -> Result<Mixer> {
        Ok(match &recurrent.delta {
            Some(delta) => Mixer::Recurrent(Box::new(self.recurring(
                (config, recurrent),
                delta,
                index,
            )?)),
            None => Mixer::Convolution(Box::new(self.convolving(config, recurrent, index)?)),
        })
    }

    fn attending(&self, config: &ModelConfig, index: usize) -> Result<Attending> {
        let architecture = config.architecture;
        let (biases, _) = architecture.biases();
        let name = |part: &str| format!("blk.{index}.{part}");
        let vector = |part: &str, len| self.required(&name(&format!("{part}.weight")), &[len]);
        let norm = |exists: bool, part: &str, len| exists.then(|| vector(part, len)).transpose();
        let linear = |part: &str, rows, columns| {
            self.linear(&name(part), [rows, columns], biases.contains(&part))
        };
        let LayerConfig {
            head_dim: head,
            kv_heads,
            ..
        } = config.layers[index];
        let width = config.width;
        let (queries, keys) = (config.heads * head, kv_heads * head);
        // Of each head its query, and its gate where there is one.
        let asked = queries * if architecture.is_hybrid() { 2 } else { 1 };
        let head_norms = architecture.head_norms();
        let [query_norm, key_norm] = match head_norms {
            HeadNorms::OfRows => [queries, keys],
            _ => [head, head],
        };
        let normed = head_norms != HeadNorms::None;
        let (query, stored) = if architecture.is_fused() {
            let [query, key, value] =
                self.fused(&name("attn_qkv"), [queries, keys, keys], width)?;
            (query, Some((key, Some(value))))
        } else {
            let query = linear("attn_q", asked, width)?;
            let mut stored = None;
            if self.stores(config, index)? {
                let key = linear("attn_k", keys, width)?;
                let value = self.has_values(config, index);
                let value = value.then(|| linear("attn_v", keys, width));
                stored = Some((key, value.transpose()?));
            }
            (query, stored)
        };
        let stored = stored.map(|(key, value)| {
            Ok::<_, Error>(Stored {
                key,
                value,
                key_norm: norm(normed, "attn_k_norm", key_norm)?,
            })
        });
        Ok(Attending {
            query,
            query_norm: norm(normed, "attn_q_norm", query_norm)?,
            stored: stored.transpose()?,
            sinks: norm(architecture.has_sinks(), "attn_sinks", config.heads)?,
            output: linear("attn_output", width, queries)?,
        })
    }

    /// A bias that one layer has is there in all of them.
    fn check_biases(&self, config: &ModelConfig) -> Result<()> {
        let (parts, _) = config.architecture.biases();
        // Qwen 2's queries, keys and values have theirs together.
        let together = match config.architecture {
            Architecture::Qwen2 => parts.len(),
            _ => 1,
        };
        for parts in parts.chunks(together) {
            let layers = 0..config.layers.len();
            let names = layers.flat_map(|layer| {
                parts
                    .iter()
                    .map(move |part| format!("blk.{layer}.{part}.bias"))
            });
            let (some, lacking): (Vec<_>, Vec<_>) =
                names.partition(|name| self.places.contains_key(name));
            if let ([some, ..], [lacking, ..]) = (some.as_slice(), lacking.as_slice()) {
                return Err(Error::model(
                    self.path,
                    format!(
                        "tensor {lacking} is missing, and {some} is there: download the model again"
                    ),
                ));
            }
        }
        Ok(())
    }

    /// Refuses a file that has more than the model is made of.
    fn check_all_used(&self, config: &ModelConfig) -> Result<()> {
        let unused = self.places.iter().filter(|(_, place)| !place.used.get());
        match unused.map(|(name, _)| name).min() {
            None => Ok(()),
            Some(name) => {
                let shown: String = name.chars().take(80).collect();
                Err(Error::model(
                    self.path,
                    format!(
                        "tensor {} is of no part that {} models are known to have, and leaving it out would change what they compute: use a model without it",
                        shown.escape_debug(),
                        config.architecture.name()
                    ),
                ))
            }
        }
    }

    /// All tensors that the configuration asks for, which are all that there are.
    ///
    /// # Errors
    /// When one is missing, of another shape, or asked for by nothing.
    pub(super) fn weights(&self, config: &ModelConfig) -> Result<Weights> {
        let table = [config.vocabulary, config.width];
        let embedding = self.required("token_embd.weight", &table)?;
        let output = Linear {
            name: "output".to_owned(),
            first: 0,
            weight: match self.optional("output.weight", &table)? {
                Some(weight) => weight,
                None => embedding.clone(),
            },
            scale: self.scale("output")?,
            bias: self.bias("output", config.vocabulary, config.architecture.biases().1)?,
        };
        let layers: Result<Vec<_>> = (0..config.layers.len())
            .map(|index| self.layer(config, index))
            .collect();
        let output_norm = format!("{}.weight", config.architecture.output_norm());
        let weights = Weights {
            embedding,
            inputs: self.layer_inputs(config)?,
            layers: layers?,
            output_norm: self.required(&output_norm, &[config.width])?,
            output,
            screened: false,
        };
        self.check_biases(config)?;
        self.leave_guessing_out(config);
        // The configuration has read them.
        if config.layers.iter().any(|layer| {
            let rope = layer.rope.as_ref();
            rope.is_some_and(|rope| rope.factors.is_some())
        }) && let Some(factors) = self.places.get(ROPE_FACTORS)
        {
            factors.used.set(true);
        }
        self.check_all_used(config)?;
        Ok(weights)
    }
}
