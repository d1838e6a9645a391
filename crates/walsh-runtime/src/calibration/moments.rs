//! The moments of keys and queries, and what keys are prepared with by them.

use walsh::formats::kv::LayerKv;
use walsh::ops::{Pairing, RopeConfig};
use walsh::{Device, KeyPreparation};

use crate::{LayerConfig, Result};

/// The first tokens' keys are unlike all others, and an overlay holds them: they do not count.
const SKIPPED: usize = 4;

/// The share of the mean in the keys' square from which on they count as biased: what is left then differs by less than
/// a seventh of the mean.
const BIASED_SHARE: f64 = 0.98;

/// The moments of one layer's keys and queries: `[kv_heads][head_dim]` each, after RoPE.
#[derive(Debug, Clone, PartialEq)]
pub struct KeyMoments {
    /// The mean of the keys.
    pub key_mean: Vec<f32>,
    /// The mean square of the keys.
    pub key_square: Vec<f32>,
    /// The mean square of the queries that meet the head.
    pub query_square: Vec<f32>,
}

/// What calibration finds about a model's keys, one entry per layer.
#[derive(Debug, Clone, PartialEq)]
pub struct Calibration {
    /// The layers.
    pub layers: Vec<KeyMoments>,
}

impl Calibration {
    /// The layers whose keys have a mean that dwarfs how they differ, among those that `uncentered` says are stored as
    /// they are: few bits then go to what tells keys apart.
    pub(crate) fn biased_layers(&self, uncentered: impl Fn(usize) -> bool) -> Vec<usize> {
        let biased = |layer: &usize| uncentered(*layer) && self.layers[*layer].is_biased();
        (0..self.layers.len()).filter(biased).collect()
    }
}

impl KeyMoments {
    /// Those of a layer without keys.
    pub(super) fn none(layer: &LayerConfig) -> Self {
        let zeros = vec![0.0; layer.kv_heads * layer.head_dim];
        Self {
            key_mean: zeros.clone(),
            key_square: zeros.clone(),
            query_square: zeros,
        }
    }

    /// The moments of `[tokens, kv_heads, head_dim]` keys and `[tokens, heads, head_dim]` queries.
    pub(super) fn of(layer: &LayerConfig, keys: &[f32], queries: &[f32]) -> Self {
        let dim = layer.head_dim;
        let width = layer.kv_heads * dim;
        let (mut mean, mut square, mut query) = (
            vec![0.0f64; width],
            vec![0.0f64; width],
            vec![0.0f64; width],
        );
        let tokens = keys.len() / width;
        let group = queries.len() / keys.len();
        let first = SKIPPED.min(tokens.saturating_sub(1));
        let count = (tokens - first).max(1) as f64;
        for token in first..tokens {
            for (channel, key) in keys[token * width..][..width].iter().enumerate() {
                mean[channel] += f64::from(*key) / count;
                square[channel] += f64::from(*key).powi(2) / count;
            }
            let all = width * group;
            for (at, q) in queries[token * all..][..all].iter().enumerate() {
                let channel = at / dim / group * dim + at % dim;
                query[channel] += f64::from(*q).powi(2) / (count * group as f64);
            }
        }
        let singles = |numbers: Vec<f64>| numbers.into_iter().map(|x| x as f32).collect();
        Self {
            key_mean: singles(mean),
            key_square: singles(square),
            query_square: singles(query),
        }
    }

    /// Whether the mean's square is most of the keys' mean square by far.
    pub(super) fn is_biased(&self) -> bool {
        let mean: f64 = self.key_mean.iter().map(|x| f64::from(*x).powi(2)).sum();
        let square: f64 = self.key_square.iter().map(|x| f64::from(*x)).sum();
        mean > BIASED_SHARE * square
    }

    /// What is subtracted from keys: `[kv_heads][head_dim]`.
    pub(crate) fn center(&self) -> &[f32] {
        &self.key_mean
    }

    /// What keys are divided by, `[kv_heads][head_dim]`: the same for the two channels that RoPE turns into each other,
    /// and of geometric mean 1 over a head.
    pub(crate) fn equaliser(
        &self,
        rope: Option<&RopeConfig>,
        head_dim: usize,
        centered: bool,
    ) -> Vec<f32> {
        let mut out = Vec::with_capacity(self.key_square.len());
        for head in 0..self.key_square.len() / head_dim {
            let at = head * head_dim;
            let key = |channel: usize| {
                let mean = if centered {
                    self.key_mean[at + channel]
                } else {
                    0.0
                };
                f64::from(self.key_square[at + channel]) - f64::from(mean).powi(2)
            };
            let query = |channel: usize| f64::from(self.query_square[at + channel]);
            let logs: Vec<f64> = (0..head_dim)
                .map(|channel| {
                    let partner = partner(rope, channel);
                    let k = key(channel) + key(partner);
                    let q = query(channel) + query(partner);
                    // A quarter of the logarithm of squares is half that of what they are squares of.
                    let log = 0.25 * (k / q).ln();
                    if log.is_finite() { log } else { 0.0 }
                })
                .collect();
            let mean = logs.iter().sum::<f64>() / head_dim as f64;
            out.extend(
                logs.iter()
                    .map(|log| (log - mean).clamp(-8.0, 8.0).exp() as f32),
            );
        }
        out
    }

    /// What a layer's keys are prepared with.
    pub(crate) fn preparation(
        &self,
        device: &Device,
        layer: &LayerConfig,
        kv: &LayerKv,
    ) -> Result<KeyPreparation> {
        let shape = [layer.kv_heads as u64, layer.head_dim as u64];
        let rope = layer.rope.as_ref();
        let equaliser = kv
            .equalise
            .then(|| self.equaliser(rope, layer.head_dim, kv.center));
        Ok(KeyPreparation {
            equaliser: equaliser
                .map(|equaliser| device.tensor(&shape, &equaliser))
                .transpose()?,
            center: kv
                .center
                .then(|| device.tensor(&shape, self.center()))
                .transpose()?,
        })
    }
}

/// The channel of a head that RoPE turns together with this one; itself where there is none.
pub(super) fn partner(rope: Option<&RopeConfig>, channel: usize) -> usize {
    let Some(rope) = rope else {
        return channel;
    };
    let dims = rope.dims as usize;
    match rope.pairing {
        _ if channel >= dims => channel,
        Pairing::Pairwise => channel ^ 1,
        Pairing::HalfSplit if channel < dims / 2 => channel + dims / 2,
        Pairing::HalfSplit => channel - dims / 2,
    }
}
