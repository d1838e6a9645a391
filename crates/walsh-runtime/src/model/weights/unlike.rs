//! The tensors of what only families with unlike layers have: keys and values that are one or another layer's, embeddings
//! for each layer, and experts beside a feed-forward part.

use walsh::Tensor;

use super::{LayerConfig, Linear, Loader, ModelConfig};
use crate::{Error, Result};

/// What embeddings for each layer are made of.
#[derive(Debug)]
pub(crate) struct LayerInputs {
    /// `[vocabulary, layers · width]`.
    pub(crate) table: Tensor,
    /// `[layers · width, stream]`: what is made of a token's embedding, by the square root of the stream's width.
    pub(crate) projection: Linear,
    /// `[width]`: of what is made of it for each layer.
    pub(crate) norm: Tensor,
}

/// What takes a token's embedding for a layer in.
#[derive(Debug)]
pub(crate) struct LayerInput {
    /// `[width, stream]`: what decides how much of it is taken in.
    pub(crate) gate: Linear,
    /// `[stream, width]`.
    pub(crate) output: Linear,
    pub(crate) norm: Tensor,
}

/// The first products of experts.
#[derive(Debug)]
pub(crate) enum Gates {
    /// `[experts, inner, stream]` each: gate and up.
    Apart([Linear; 2]),
    /// `[experts, 2 · inner, stream]`: of each expert the gate, then up.
    Together(Linear),
}

/// Experts beside a feed-forward part that all tokens pass.
#[derive(Debug)]
pub(crate) struct Beside {
    /// `[stream]`: of what the router takes, with all that it is multiplied by.
    pub(crate) router_norm: Tensor,
    pub(crate) router: Linear,
    /// Of what experts take.
    pub(crate) norm: Tensor,
    pub(crate) gates: Gates,
    pub(crate) down: Linear,
    /// `[experts, 1, 1]`: what each expert's weight is multiplied by.
    pub(crate) scales: Tensor,
    /// Of what the experts give together.
    pub(crate) post_norm: Tensor,
    /// Of what the part gives that stands beside them.
    pub(crate) dense_post_norm: Tensor,
}

impl LayerInputs {
    pub(super) fn product(&mut self) -> &mut Tensor {
        &mut self.projection.weight
    }
}

impl LayerInput {
    pub(super) fn products(&mut self) -> [&mut Linear; 2] {
        [&mut self.gate, &mut self.output]
    }

    pub(super) fn linears(&self) -> [&Linear; 2] {
        [&self.gate, &self.output]
    }
}

impl Beside {
    pub(super) fn products(&mut self) -> Vec<&mut Linear> {
        let mut all = vec![&mut self.router, &mut self.down];
        match &mut self.gates {
            Gates::Apart(both) => all.extend(both),
            Gates::Together(both) => all.push(both),
        }
        all
    }
}

impl Loader<'_> {
    /// Whether a layer has keys and values of its own. The tensors that files have in layers without, as what was trained
    /// has them, are of no use to anything.
    pub(super) fn stores(&self, config: &ModelConfig, index: usize) -> Result<bool> {
        let layer = &config.layers[index];
        if layer.shares.is_none() {
            return Ok(true);
        }
        let keys = layer.kv_heads * layer.head_dim;
        for (part, shape) in [
            ("attn_k", &[keys, config.width][..]),
            ("attn_v", &[keys, config.width]),
            ("attn_k_norm", &[layer.head_dim]),
        ] {
            self.optional(&format!("blk.{index}.{part}.weight"), shape)?;
        }
        Ok(false)
    }

    /// Whether a layer's values have a product of their own. Those of layers that attend globally may be keys, in all of
    /// them or in none.
    pub(super) fn has_values(&self, config: &ModelConfig, index: usize) -> bool {
        let is_one = |layer: &LayerConfig| layer.is_cached() && layer.window.is_none();
        if !config.architecture.has_unlike_layers() || !is_one(&config.layers[index]) {
            return true;
        }
        let layers = config.layers.iter().enumerate();
        let mut global = layers.filter(|(_, layer)| is_one(layer));
        global.any(|(layer, _)| {
            let name = format!("blk.{layer}.attn_v.weight");
            self.places.contains_key(&name)
        })
    }

    pub(super) fn layer_inputs(&self, config: &ModelConfig) -> Result<Option<LayerInputs>> {
        let Some(width) = config.per_layer_width else {
            return Ok(None);
        };
        let all = config.layers.len() * width;
        let projection = self.linear("per_layer_model_proj", [all, config.width], false)?;
        let root = (config.width as f32).sqrt();
        Ok(Some(LayerInputs {
            table: self.required("per_layer_token_embd.weight", &[config.vocabulary, all])?,
            projection: Linear {
                scale: Some(projection.scale.unwrap_or(1.0) / root),
                ..projection
            },
            norm: self.required("per_layer_proj_norm.weight", &[width])?,
        }))
    }

    pub(super) fn layer_input(
        &self,
        config: &ModelConfig,
        index: usize,
    ) -> Result<Option<LayerInput>> {
        let Some(own) = config.per_layer_width else {
            return Ok(None);
        };
        let name = |part: &str| format!("blk.{index}.{part}");
        let width = config.width;
        Ok(Some(LayerInput {
            gate: self.linear(&name("inp_gate"), [own, width], false)?,
            output: self.linear(&name("proj"), [width, own], false)?,
            norm: self.required(&name("post_norm.weight"), &[width])?,
        }))
    }

    /// What the stream is multiplied by behind a layer: there is such a number in all layers or in none.
    pub(super) fn layer_scale(&self, config: &ModelConfig, index: usize) -> Result<Option<f32>> {
        let name = |index: usize| format!("blk.{index}.layer_output_scale.weight");
        let has_one = |index| self.places.contains_key(&name(index));
        let is_known = config.architecture.has_unlike_layers();
        if !is_known || !(0..config.layers.len()).any(has_one) {
            return Ok(None);
        }
        let scale = self.required(&name(index), &[1])?;
        Ok(self.finite(&name(index), &scale)?.first().copied())
    }

    pub(super) fn beside(&self, config: &ModelConfig, index: usize) -> Result<Option<Beside>> {
        let experts = config
            .experts
            .and_then(|all| Some((all.count, all.beside?)));
        let Some((count, inner)) = experts else {
            return Ok(None);
        };
        let name = |part: &str| format!("blk.{index}.{part}");
        let width = config.width;
        let norm = |part: &str| self.required(&name(&format!("{part}.weight")), &[width]);
        let stack = |part: &str, rows, columns| self.experts(&name(part), [count, rows, columns]);
        let gates = match self.places.contains_key(&name("ffn_gate_up_exps.weight")) {
            true => Gates::Together(stack("ffn_gate_up_exps", 2 * inner, width)?),
            false => Gates::Apart([
                stack("ffn_gate_exps", inner, width)?,
                stack("ffn_up_exps", inner, width)?,
            ]),
        };
        let factors = name("ffn_gate_inp.scale");
        let factors = self.finite(&factors, &self.required(&factors, &[width])?)?;
        let root = (width as f32).sqrt();
        let factors: Vec<f32> = factors.iter().map(|factor| factor / root).collect();
        let scales = name("ffn_down_exps.scale");
        let scales = self.finite(&scales, &self.required(&scales, &[count])?)?;
        Ok(Some(Beside {
            router_norm: self.device.tensor(&[width as u64], &factors)?,
            router: Linear {
                name: name("ffn_gate_inp"),
                first: 0,
                weight: self.required(&name("ffn_gate_inp.weight"), &[count, width])?,
                scale: None,
                bias: None,
            },
            norm: norm("pre_ffw_norm_2")?,
            gates,
            down: stack("ffn_down_exps", width, inner)?,
            scales: self.device.tensor(&[count as u64, 1, 1], &scales)?,
            post_norm: norm("post_ffw_norm_2")?,
            dense_post_norm: norm("post_ffw_norm_1")?,
        }))
    }

    /// The numbers of a vector, which count nowhere else.
    fn finite(&self, name: &str, vector: &Tensor) -> Result<Vec<f32>> {
        let numbers = self.device.read::<f32>(vector)?;
        match numbers.iter().all(|number| number.is_finite()) {
            true => Ok(numbers),
            false => Err(Error::model(
                self.path,
                format!("tensor {name} is not finite: convert the model again"),
            )),
        }
    }
}
