//! What metadata says about experts, multipliers and temperatures.

use walsh::ops::{ExpertRoute, Scoring, Temperature};

use super::{Reader, keys};
use crate::{Error, Result};

/// A mixture of experts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ExpertsConfig {
    /// How many experts a layer has.
    pub count: usize,
    /// How many of them each token goes to.
    pub used: usize,
    /// What their outputs' weights are made of.
    pub scoring: Scoring,
    /// The width inside the expert that all tokens share, where there is one.
    pub shared: Option<usize>,
    /// The width inside each expert, where they stand beside a feed-forward part that all tokens pass.
    pub beside: Option<usize>,
}

impl Reader<'_, '_> {
    /// The key of the width inside the feed-forward part, or inside an expert.
    pub(super) fn feed_forward_key(&self) -> &'static str {
        let key = "expert_feed_forward_length";
        match self.architecture.has_experts() && keys::is_read(key, self.architecture) {
            true => key,
            false => "feed_forward_length",
        }
    }

    pub(super) fn experts(&self) -> Result<Option<ExpertsConfig>> {
        let beside = self.architecture.has_unlike_layers();
        if !self.architecture.has_experts() && !beside {
            return Ok(None);
        }
        if beside && self.opt_size("expert_count")?.unwrap_or(0) == 0 {
            self.equal("expert_used_count", 0)?;
            return Ok(None);
        }
        let sizes = [
            ("expert_count", ExpertRoute::MOST_EXPERTS),
            ("expert_used_count", ExpertRoute::MOST_USED),
        ];
        let [count, used] = sizes.map(|(name, most)| match self.size(name)? {
            size if (1..=most).contains(&size) => Ok(size as usize),
            size => reject!(
                self,
                "metadata key {} is {size}, but only 1 to {most} are supported: use another model",
                self.key(name)
            ),
        });
        let (count, used) = (count?, used?);
        if used > count {
            reject!(
                self,
                "metadata states that {used} of {count} experts are used: download it again"
            );
        }
        // Softmax over all, divided by the sum of the chosen, is softmax over the chosen.
        let scoring = match self.normalises()? {
            normalised if self.architecture.chooses_by_bias() => Scoring::Sigmoid { normalised },
            false => Scoring::Softmax,
            true => Scoring::SoftmaxOfChosen,
        };
        let inner = |is_there: bool, name: &str| match is_there {
            false => Ok(None),
            true => match self.size(name)? {
                inner if inner == 0 || inner > super::LARGEST => {
                    Err(self.no_model_has(name, inner))
                }
                inner => Ok(Some(inner as usize)),
            },
        };
        let shares = self.architecture.has_shared_expert();
        Ok(Some(ExpertsConfig {
            count,
            used,
            scoring,
            shared: inner(shares, "expert_shared_feed_forward_length")?,
            beside: inner(beside, "expert_feed_forward_length")?,
        }))
    }

    /// How many layers, the first of so many, have a feed-forward part of their own instead of experts.
    pub(super) fn dense_layers(&self, count: usize) -> Result<usize> {
        let key = "leading_dense_block_count";
        if !self.architecture.has_experts() {
            return Ok(count);
        }
        if !keys::is_read(key, self.architecture) {
            return Ok(0);
        }
        match self.opt_size(key)?.unwrap_or(0) {
            dense if dense < count as u64 => Ok(dense as usize),
            dense => Err(self.no_model_has(key, dense)),
        }
    }

    /// Whether the weights of a token's experts add up to one, as they do unless a file says otherwise.
    fn normalises(&self) -> Result<bool> {
        let key = "expert_weights_norm";
        if !keys::is_read(key, self.architecture) {
            return Ok(true);
        }
        let stated = self.metadata.opt_bool(&self.key(key))?;
        Ok(stated.unwrap_or(true))
    }

    /// The temperature of queries by position, of families that have one.
    pub(super) fn temperature(&self) -> Result<Option<Temperature>> {
        let (scale, length) = (
            "attention.temperature_scale",
            "attention.temperature_length",
        );
        if !keys::is_read(scale, self.architecture) {
            return Ok(None);
        }
        let context = match self.opt_size(length)? {
            Some(context) if context > 0 => context.min(super::LARGEST) as u32,
            _ => self.original_context()?,
        };
        let scale = self.positive_or_none(scale)?;
        Ok(scale.map(|scale| Temperature { scale, context }))
    }

    /// What the stretch's own magnitude is divided by: the same at a weight that the file states, for a stretch by
    /// `factor`.
    pub(super) fn mitigation(&self, factor: f32) -> Result<f32> {
        let weight = "rope.scaling.yarn_log_multiplier";
        if !keys::is_read(weight, self.architecture) {
            return Ok(1.0);
        }
        let weight = self.positive_or_none(weight)?.unwrap_or(0.0);
        Ok(1.0 + 0.1 * weight * factor.max(1.0).ln())
    }

    /// A number above zero; 0 stands for what is not set.
    fn positive_or_none(&self, name: &str) -> Result<Option<f32>> {
        match self.opt_f32(name)? {
            Some(0.0) => Ok(None),
            _ => self.positive(name),
        }
    }

    /// A factor that files of some families state, 1 for all others; 0 stands for what is not set.
    pub(super) fn multiplier(&self, name: &str) -> Result<f32> {
        match keys::is_read(name, self.architecture) {
            true => Ok(self.positive_or_none(name)?.unwrap_or(1.0)),
            false => Ok(1.0),
        }
    }
}
