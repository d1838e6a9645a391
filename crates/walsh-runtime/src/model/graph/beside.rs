//! Experts beside a feed-forward part that all tokens pass.

use walsh::formats::DType;
use walsh::ops::{ExpertMatMul, RmsNorm};
use walsh::{Device, Tensor};

use super::block::{Block, linear};
use super::hybrid::Pairs;
use crate::Result;
use crate::model::config::ModelConfig;
use crate::model::weights::{Beside, Gates};

/// What they need beside a mixture's.
#[derive(Debug)]
pub(super) struct BesideExperts {
    /// `[rows, width]`: what the router takes, then what experts do, then what they give.
    hidden: Tensor,
    /// `[rows, used, inner]`.
    gate: Tensor,
    up: Tensor,
    /// Both, where one product has them.
    both: Pairs,
    /// `[rows, used, 1]`: experts' weights before each has its scale.
    unscaled: Tensor,
}

impl BesideExperts {
    pub(super) fn new(device: &Device, config: &ModelConfig, rows: usize) -> Result<Option<Self>> {
        let experts = config.experts.and_then(|all| Some((all.used, all.beside?)));
        let Some((used, inner)) = experts else {
            return Ok(None);
        };
        let floats = |shape: &[usize]| {
            let shape: Vec<u64> = shape.iter().map(|size| *size as u64).collect();
            device.zeros(DType::F32, &shape)
        };
        Ok(Some(Self {
            hidden: floats(&[rows, config.width])?,
            gate: floats(&[rows, used, inner])?,
            up: floats(&[rows, used, inner])?,
            both: Pairs::new(device, [rows, used, inner])?,
            unscaled: floats(&[rows, used, 1])?,
        }))
    }

    pub(super) fn rows(&self, rows: usize) -> Result<Self> {
        let first = |tensor: &Tensor| tensor.rows(0..rows as u64);
        Ok(Self {
            hidden: first(&self.hidden)?,
            gate: first(&self.gate)?,
            up: first(&self.up)?,
            both: self.both.rows(rows)?,
            unscaled: first(&self.unscaled)?,
        })
    }
}

impl Block<'_> {
    /// What the experts give for the stream, in a place of their own.
    pub(super) fn experts_beside(&mut self, weights: &Beside) -> Result<()> {
        let a = self.a;
        let (Some(own), Some(mixture), Some(experts)) =
            (&a.beside, &a.mixture, &self.config.experts)
        else {
            return Ok(());
        };
        self.norm_into(&a.stream, Some(&weights.router_norm), &own.hidden)?;
        linear(
            &mut self.list,
            &weights.router,
            &own.hidden,
            &mixture.logits,
        )?;
        let (chosen, scaled) = (mixture.weights.shape(), own.unscaled.shape());
        self.route(experts.scoring, mixture, &own.unscaled.reshape(chosen)?)?;
        // By the scale of each: a product with a matrix of one number.
        self.list.push(ExpertMatMul {
            weight: weights.scales.clone(),
            ids: mixture.ids.clone(),
            input: own.unscaled.clone(),
            bias: None,
            output: mixture.weights.reshape(scaled)?,
        })?;
        self.norm_into(&a.stream, Some(&weights.norm), &own.hidden)?;
        match &weights.gates {
            Gates::Apart([gate, up]) => {
                self.expert_product((gate, mixture), &own.hidden, &own.gate)?;
                self.expert_product((up, mixture), &own.hidden, &own.up)?;
            }
            Gates::Together(both) => {
                let output = own.both.joined()?;
                self.expert_product((both, mixture), &own.hidden, &output)?;
                self.part(&own.both, [&own.gate, &own.up])?;
            }
        }
        self.activate(&own.gate, &own.up)?;
        self.expert_product((&weights.down, mixture), &own.gate, &mixture.results)?;
        self.sum_experts(mixture, &own.hidden)?;
        self.norm_into(&own.hidden, Some(&weights.post_norm), &own.hidden)
    }

    /// hidden = the norm of hidden, which the part beside them gave, + what the experts gave.
    pub(super) fn join_beside(&mut self, weights: &Beside) -> Result<()> {
        let a = self.a;
        let Some(own) = &a.beside else {
            return Ok(());
        };
        self.list.push(RmsNorm {
            input: a.hidden.clone(),
            before: None,
            weight: Some(weights.dense_post_norm.clone()),
            eps: self.config.norm_eps,
            after: Some(own.hidden.clone()),
            output: a.hidden.clone(),
        })?;
        Ok(())
    }
}
