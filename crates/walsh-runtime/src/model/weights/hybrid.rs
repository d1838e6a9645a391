//! The tensors of layers that keep a state, and of experts that all tokens share.

use walsh::Tensor;

use super::{Linear, Loader, ModelConfig};
use crate::Result;
use crate::model::config::{DeltaConfig, RecurrentConfig};

/// How fast heads forget, and how far they are corrected, before what each head adds to that.
#[derive(Debug)]
pub(crate) enum Steps {
    /// `[heads, width]` each.
    Apart { decay: Linear, rate: Linear },
    /// `[2 · heads, width]`: of each key head the rates of its heads, and their decays.
    Together(Linear),
}

/// The tensors of a layer that keeps a state.
#[derive(Debug)]
pub(crate) struct Recurring {
    /// Queries, keys and values, before the convolution.
    pub(crate) mixed: Linear,
    /// What the output's gate is.
    pub(crate) gate: Linear,
    pub(crate) steps: Steps,
    /// `[channels, taps]`.
    pub(crate) convolution: Tensor,
    /// `[heads]`.
    pub(crate) decay_bias: Tensor,
    /// `[heads]`.
    pub(crate) decay_scale: Tensor,
    /// `[value_dim]`: of each head's output.
    pub(crate) norm: Tensor,
    pub(crate) output: Linear,
}

/// An expert that every token goes to.
#[derive(Debug)]
pub(crate) struct SharedExpert {
    /// `[1, width]`: how much of it each token takes.
    pub(crate) router: Linear,
    pub(crate) gate: Linear,
    pub(crate) up: Linear,
    pub(crate) down: Linear,
}

impl Recurring {
    pub(super) fn linears(&self) -> Vec<&Linear> {
        let mut all = vec![&self.mixed, &self.gate, &self.output];
        match &self.steps {
            Steps::Apart { decay, rate } => all.extend([decay, rate]),
            Steps::Together(both) => all.push(both),
        }
        all
    }

    pub(super) fn products(&mut self) -> Vec<&mut Linear> {
        let mut all = vec![&mut self.mixed, &mut self.gate, &mut self.output];
        match &mut self.steps {
            Steps::Apart { decay, rate } => all.extend([decay, rate]),
            Steps::Together(both) => all.push(both),
        }
        all
    }
}

impl SharedExpert {
    pub(super) fn linears(&self) -> [&Linear; 4] {
        [&self.router, &self.gate, &self.up, &self.down]
    }

    pub(super) fn products(&mut self) -> [&mut Linear; 4] {
        [
            &mut self.router,
            &mut self.gate,
            &mut self.up,
            &mut self.down,
        ]
    }
}

impl Loader<'_> {
    pub(super) fn recurring(
        &self,
        (config, recurrent): (&ModelConfig, &RecurrentConfig),
        delta: &DeltaConfig,
        index: usize,
    ) -> Result<Recurring> {
        let name = |part: &str| format!("blk.{index}.{part}");
        let linear = |part: &str, rows, columns| self.linear(&name(part), [rows, columns], false);
        let (width, heads, values) = (config.width, delta.heads, delta.values());
        let convolution = self.kernel(&name("ssm_conv1d.weight"), recurrent)?;
        let steps = match self.places.contains_key(&name("ssm_ba.weight")) {
            true => Steps::Together(linear("ssm_ba", 2 * heads, width)?),
            false => Steps::Apart {
                decay: linear("ssm_alpha", heads, width)?,
                rate: linear("ssm_beta", heads, width)?,
            },
        };
        Ok(Recurring {
            mixed: linear("attn_qkv", recurrent.channels, width)?,
            gate: linear("attn_gate", values, width)?,
            steps,
            convolution,
            decay_bias: self.required(&name("ssm_dt.bias"), &[heads])?,
            decay_scale: self.required(&name("ssm_a"), &[heads])?,
            norm: self.required(&name("ssm_norm.weight"), &[delta.value_dim])?,
            output: linear("ssm_out", width, values)?,
        })
    }

    pub(super) fn shared_expert(
        &self,
        config: &ModelConfig,
        index: usize,
    ) -> Result<Option<SharedExpert>> {
        let Some(inner) = config.experts.and_then(|experts| experts.shared) else {
            return Ok(None);
        };
        let name = |part: &str| format!("blk.{index}.{part}");
        let linear = |part: &str, rows, columns| self.linear(&name(part), [rows, columns], false);
        let width = config.width;
        // A vector in some files.
        let gate = name("ffn_gate_inp_shexp.weight");
        let is_vector = |name: &str| {
            let place = self.places.get(name);
            place.is_some_and(|place| place.shape.len() == 1)
        };
        let router = match is_vector(&gate) {
            true => Linear {
                name: name("ffn_gate_inp_shexp"),
                first: 0,
                weight: self
                    .required(&gate, &[width])?
                    .reshape(&[1, width as u64])?,
                scale: None,
                bias: None,
            },
            false => linear("ffn_gate_inp_shexp", 1, width)?,
        };
        Ok(Some(SharedExpert {
            router,
            gate: linear("ffn_gate_shexp", inner, width)?,
            up: linear("ffn_up_shexp", inner, width)?,
            down: linear("ffn_down_shexp", width, inner)?,
        }))
    }

    /// What guesses further tokens lies in layers behind those that compute, and is left out.
    pub(super) fn leave_guessing_out(&self, config: &ModelConfig) {
        if !config.architecture.is_hybrid() {
            return;
        }
        let behind = |name: &str| {
            let layer = name.strip_prefix("blk.")?.split('.').next()?;
            layer.parse::<usize>().ok()
        };
        for (name, place) in &self.places {
            let layers = config.layers.len()..config.layers.len() + config.guessing_layers;
            if behind(name).is_some_and(|layer| layers.contains(&layer)) {
                place.used.set(true);
            }
        }
    }
}
