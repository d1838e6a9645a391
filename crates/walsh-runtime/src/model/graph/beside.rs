//! Experts beside a feed-forward part that all tokens pass.

use walsh::ops::{ExpertMatMul, RmsNorm};

use super::block::Block;
use crate::Result;
use crate::model::weights::{Beside, Gates};

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
        self.linear(&weights.router, &own.hidden, &mixture.logits)?;
        let (chosen, scaled) = (mixture.weights.shape(), own.unscaled.shape());
        self.route(
            (experts.scoring, None),
            mixture,
            &own.unscaled.reshape(chosen)?,
        )?;
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
