//! What a model's metadata says about its shape.

use std::path::Path;

use walsh::formats::gguf::Metadata;
use walsh::ops::{Activation, Pairing, RopeConfig, RopeScaling};

use crate::{Error, Result};

/// The families of models that run, by `general.architecture`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    /// Llama 1 to 3, Mistral, SmolLM and others of the same form.
    Llama,
    /// Qwen 2 and 2.5.
    Qwen2,
    /// Qwen 3, dense.
    Qwen3,
    /// Gemma 2.
    Gemma2,
    /// Gemma 3, text.
    Gemma3,
}

impl Architecture {
    /// Every architecture, with its name in GGUF files.
    pub const ALL: &'static [(&'static str, Architecture)] = &[
        ("llama", Architecture::Llama),
        ("qwen2", Architecture::Qwen2),
        ("qwen3", Architecture::Qwen3),
        ("gemma2", Architecture::Gemma2),
        ("gemma3", Architecture::Gemma3),
    ];

    fn named(name: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, architecture)| *architecture)
    }

    /// The name in GGUF files.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(_, architecture)| *architecture == self)
            .map_or("", |(name, _)| name)
    }

    fn is_gemma(self) -> bool {
        matches!(self, Self::Gemma2 | Self::Gemma3)
    }

    /// Layers come in periods of this many; the last of each attends globally,
    /// or, in Gemma 2, the odd ones.
    fn window_period(self) -> Option<usize> {
        match self {
            Self::Gemma2 => Some(2),
            Self::Gemma3 => Some(6),
            _ => None,
        }
    }
}

/// What differs from layer to layer.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerConfig {
    /// How many positions a query sees; `None` for all.
    pub window: Option<usize>,
    /// The layer's rotary embedding.
    pub rope: RopeConfig,
}

/// A model's shape.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// The family.
    pub architecture: Architecture,
    /// The width of the residual stream.
    pub width: usize,
    /// The width inside the feed-forward part.
    pub feed_forward: usize,
    /// Query heads.
    pub heads: usize,
    /// KV heads.
    pub kv_heads: usize,
    /// Numbers per head.
    pub head_dim: usize,
    /// How many tokens the vocabulary has.
    pub vocabulary: usize,
    /// The context that the model was trained for, in tokens.
    pub context: usize,
    /// The epsilon of the norms.
    pub norm_eps: f32,
    /// What embeddings are multiplied by.
    pub embedding_scale: f32,
    /// What attention scores are multiplied by.
    pub attention_scale: f32,
    /// The bound of attention scores.
    pub attention_softcap: Option<f32>,
    /// The bound of logits.
    pub logit_softcap: Option<f32>,
    /// The gate's function.
    pub activation: Activation,
    /// One entry per layer.
    pub layers: Vec<LayerConfig>,
}

/// Sizes above this are a damaged file, and would overflow products of three.
const LARGEST: u64 = 1 << 24;

impl ModelConfig {
    /// Reads the shape from metadata. `vocabulary` is the number of rows of the
    /// embedding table, `factors` the `rope_freqs.weight` tensor if there is
    /// one.
    ///
    /// # Errors
    /// A one-line reason when the architecture is unknown or a value is missing,
    /// of the wrong type or out of range.
    pub(super) fn read(
        path: &Path,
        metadata: &Metadata<'_>,
        vocabulary: usize,
        factors: Option<Vec<f32>>,
    ) -> Result<Self> {
        let name = metadata.str("general.architecture")?;
        let Some(architecture) = Architecture::named(name) else {
            let known: Vec<_> = Architecture::ALL.iter().map(|(name, _)| *name).collect();
            return Err(Error::model(
                path,
                format!(
                    "the architecture {name:?} is not supported: use a model of one of {}",
                    known.join(", ")
                ),
            ));
        };
        Reader {
            path,
            metadata,
            architecture,
        }
        .config(vocabulary, factors)
    }
}

struct Reader<'m, 'a> {
    path: &'m Path,
    metadata: &'m Metadata<'a>,
    architecture: Architecture,
}

/// Returns with a one-line reason.
macro_rules! reject {
    ($reader:ident, $($reason:tt)*) => {
        return Err(Error::model($reader.path, format!($($reason)*)))
    };
}

impl Reader<'_, '_> {
    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.architecture.name())
    }

    fn size(&self, name: &str) -> Result<u64> {
        Ok(self.metadata.u64(&self.key(name))?)
    }

    fn opt_size(&self, name: &str) -> Result<Option<u64>> {
        Ok(self.metadata.opt_u64(&self.key(name))?)
    }

    fn opt_f32(&self, name: &str) -> Result<Option<f32>> {
        Ok(self.metadata.opt_f32(&self.key(name))?)
    }

    fn config(&self, vocabulary: usize, factors: Option<Vec<f32>>) -> Result<ModelConfig> {
        let architecture = self.architecture;
        if self.opt_size("expert_count")?.is_some_and(|n| n > 0) {
            reject!(
                self,
                "mixture-of-experts models are not supported: use a dense model"
            );
        }
        let layers = self.size("block_count")?;
        let width = self.size("embedding_length")?;
        let feed_forward = self.size("feed_forward_length")?;
        let heads = self.size("attention.head_count")?;
        let kv_heads = self.opt_size("attention.head_count_kv")?.unwrap_or(heads);
        let context = self.size("context_length")?;
        for (name, value) in [
            ("block_count", layers),
            ("embedding_length", width),
            ("feed_forward_length", feed_forward),
            ("attention.head_count", heads),
            ("attention.head_count_kv", kv_heads),
            ("context_length", context),
        ] {
            if value == 0 || value > LARGEST {
                reject!(
                    self,
                    "metadata key {} is {value}, which no model has: download it again",
                    self.key(name)
                );
            }
        }
        if heads % kv_heads != 0 {
            reject!(
                self,
                "{heads} query heads are not a multiple of {kv_heads} KV heads: download it again"
            );
        }
        let head_dim = match self.opt_size("attention.key_length")? {
            Some(length) => length,
            None if width % heads == 0 => width / heads,
            None => reject!(
                self,
                "a width of {width} is not a multiple of {heads} heads, and the head size is not stated"
            ),
        };
        let value_length = self.opt_size("attention.value_length")?.unwrap_or(head_dim);
        if value_length != head_dim || head_dim == 0 || head_dim > LARGEST {
            reject!(
                self,
                "key heads of {head_dim} and value heads of {value_length} numbers are not supported: they must be equal"
            );
        }
        let Some(norm_eps) = self.opt_f32("attention.layer_norm_rms_epsilon")? else {
            reject!(
                self,
                "metadata key {} is missing",
                self.key("attention.layer_norm_rms_epsilon")
            );
        };
        let layer_configs = self.layers(layers as usize, head_dim, factors)?;
        let largest_gemma = match architecture {
            Architecture::Gemma2 => layers == 46,
            Architecture::Gemma3 => layers == 62,
            _ => false,
        };
        // Gemma's 27B models divide by the width per head instead of the head size.
        let scale_dim = if largest_gemma {
            width / heads
        } else {
            head_dim
        };
        let attention_scale = match self.opt_f32("attention.scale")? {
            Some(scale) => scale,
            None => (1.0 / (scale_dim as f64).sqrt()) as f32,
        };
        let softcap = |key: &str, default: f32| -> Result<Option<f32>> {
            let fallback = (architecture == Architecture::Gemma2).then_some(default);
            Ok(self.opt_f32(key)?.or(fallback).filter(|cap| *cap != 0.0))
        };
        Ok(ModelConfig {
            architecture,
            width: width as usize,
            feed_forward: feed_forward as usize,
            heads: heads as usize,
            kv_heads: kv_heads as usize,
            head_dim: head_dim as usize,
            vocabulary,
            context: context as usize,
            norm_eps,
            embedding_scale: if architecture.is_gemma() {
                (width as f32).sqrt()
            } else {
                1.0
            },
            attention_scale,
            attention_softcap: softcap("attn_logit_softcapping", 50.0)?,
            logit_softcap: softcap("final_logit_softcapping", 30.0)?,
            activation: if architecture.is_gemma() {
                Activation::GeluTanh
            } else {
                Activation::Silu
            },
            layers: layer_configs,
        })
    }

    /// The windows and rotary embeddings of all layers.
    fn layers(
        &self,
        count: usize,
        head_dim: u64,
        factors: Option<Vec<f32>>,
    ) -> Result<Vec<LayerConfig>> {
        let dims = self.opt_size("rope.dimension_count")?.unwrap_or(head_dim);
        let scaling = self.scaling()?;
        let global = RopeConfig {
            dims,
            base: self.opt_f32("rope.freq_base")?.unwrap_or(10_000.0),
            pairing: if self.architecture == Architecture::Llama {
                Pairing::Pairwise
            } else {
                Pairing::HalfSplit
            },
            scaling,
            factors,
        };
        let default_window = match self.architecture {
            Architecture::Gemma2 => Some(4096),
            _ => None,
        };
        let window = match self.architecture.window_period() {
            Some(_) => self
                .opt_size("attention.sliding_window")?
                .or(default_window)
                .filter(|window| *window > 0),
            None => None,
        };
        let local = match self.architecture {
            // Gemma 3's sliding layers keep the short base and are not stretched.
            Architecture::Gemma3 => RopeConfig {
                base: self.opt_f32("rope.freq_base_swa")?.unwrap_or(10_000.0),
                scaling: RopeScaling::None,
                ..global.clone()
            },
            _ => global.clone(),
        };
        let period = self.architecture.window_period().unwrap_or(1);
        let layer = |index: usize| match window {
            Some(window) if index % period < period - 1 => LayerConfig {
                window: Some(window.min(LARGEST) as usize),
                rope: local.clone(),
            },
            _ => LayerConfig {
                window: None,
                rope: global.clone(),
            },
        };
        Ok((0..count).map(layer).collect())
    }

    fn scaling(&self) -> Result<RopeScaling> {
        let kind = self.metadata.opt_str(&self.key("rope.scaling.type"))?;
        let factor = match self.opt_f32("rope.scaling.factor")? {
            Some(factor) => Some(factor),
            None => self.opt_f32("rope.scale_linear")?,
        };
        // A factor of 0 stands for none in some files.
        let factor = factor.filter(|factor| *factor != 0.0).unwrap_or(1.0);
        let scaling = match kind {
            Some("none") => RopeScaling::None,
            None | Some("linear") if factor == 1.0 => RopeScaling::None,
            None | Some("linear") => RopeScaling::Linear { factor },
            Some("yarn") => RopeScaling::Yarn {
                factor,
                original_context: match self.opt_size("rope.scaling.original_context_length")? {
                    Some(context) => context.min(LARGEST) as u32,
                    None => self.size("context_length")?.min(LARGEST) as u32,
                },
                extrapolation: self.opt_f32("rope.scaling.yarn_ext_factor")?.unwrap_or(1.0),
                attention_factor: self.opt_f32("rope.scaling.attn_factor")?.unwrap_or(1.0),
                beta_fast: self.opt_f32("rope.scaling.yarn_beta_fast")?.unwrap_or(32.0),
                beta_slow: self.opt_f32("rope.scaling.yarn_beta_slow")?.unwrap_or(1.0),
            },
            Some(other) => reject!(
                self,
                "the RoPE scaling {other:?} is not supported: use a model with none, linear or yarn"
            ),
        };
        Ok(scaling)
    }
}
