//! What a model's metadata says about its shape.

use std::ops::RangeInclusive;
use std::path::Path;

use walsh::formats::gguf::{Metadata, Value};
use walsh::ops::{Activation, RopeConfig, RopeScaling, Temperature};

use super::architecture::Architecture;
use super::keys;
use crate::pooling::Pooling;
use crate::{Error, Result};

/// Returns with a one-line reason.
macro_rules! reject {
    ($reader:ident, $($reason:tt)*) => {
        return Err(Error::model($reader.path, format!($($reason)*)))
    };
}

mod experts;
mod layers;
mod recurrent;

pub use experts::ExpertsConfig;
pub(super) use layers::ROPE_FACTORS;
pub use recurrent::{DeltaConfig, RecurrentConfig};

/// What differs from layer to layer.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerConfig {
    /// How many positions a query sees; `None` for all.
    pub window: Option<usize>,
    /// The layer's rotary embedding; none where positions are not told.
    pub rope: Option<RopeConfig>,
    /// Whether it keeps a state of fixed size instead of keys and values.
    pub recurrent: bool,
    /// Whether its feed-forward part is nothing but a mixture of experts.
    pub mixture: bool,
    /// The earlier layer whose keys and values it attends to, where it has none of its own.
    pub shares: Option<usize>,
    /// KV heads.
    pub kv_heads: usize,
    /// Numbers per head.
    pub head_dim: usize,
    /// The width inside the feed-forward part, or inside each expert of a mixture.
    pub feed_forward: usize,
}

impl LayerConfig {
    /// Whether it stores keys and values.
    #[must_use]
    pub fn is_cached(&self) -> bool {
        !self.recurrent && self.shares.is_none()
    }
}

/// A model's shape.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// The family.
    pub architecture: Architecture,
    /// The width of the residual stream.
    pub width: usize,
    /// The numbers of a token's embedding for each layer, where there are such.
    pub per_layer_width: Option<usize>,
    /// The experts of the feed-forward part, or beside it.
    pub experts: Option<ExpertsConfig>,
    /// Query heads.
    pub heads: usize,
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
    /// What queries are multiplied by beside, as positions grow.
    pub query_temperature: Option<Temperature>,
    /// The bound of attention scores.
    pub attention_softcap: Option<f32>,
    /// What logits are multiplied by.
    pub logit_scale: f32,
    /// The bound of logits.
    pub logit_softcap: Option<f32>,
    /// What attention and the feed-forward part add to the stream is multiplied by.
    pub residual_scale: f32,
    /// The gate's function.
    pub activation: Activation,
    /// What layers are that keep a state, where there are some.
    pub recurrent: Option<RecurrentConfig>,
    /// How it makes one vector of a text, where that is what it was trained for: it makes no texts then.
    pub pooling: Option<Pooling>,
    /// How many layers of the file, behind all others, only guess further tokens and are left out.
    pub guessing_layers: usize,
    /// One entry per layer.
    pub layers: Vec<LayerConfig>,
}

/// Sizes above this are a damaged file, and would overflow products of three.
const LARGEST: u64 = 1 << 24;

/// More layers than this are a damaged file.
const MOST_LAYERS: u64 = 4096;

/// The head sizes that attention has.
const HEAD_DIMS: RangeInclusive<u64> = 16..=512;

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
            let name: String = name.chars().take(80).collect();
            let known: Vec<_> = Architecture::ALL.iter().map(|(name, _)| *name).collect();
            return Err(Error::model(
                path,
                format!(
                    "the architecture {name:?} is not supported: use a model of one of {}",
                    known.join(", ")
                ),
            ));
        };
        keys::check(path, metadata, architecture)?;
        Reader {
            path,
            metadata,
            architecture,
        }
        .config(
            vocabulary,
            factors.filter(|_| architecture.has_rope_factors()),
        )
    }
}

struct Reader<'m, 'a> {
    path: &'m Path,
    metadata: &'m Metadata<'a>,
    architecture: Architecture,
}

impl Reader<'_, '_> {
    fn key(&self, name: &str) -> String {
        debug_assert!(
            keys::is_read(name, self.architecture),
            "{name} is not in the table"
        );
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
        let layers = self.size("block_count")?;
        if layers == 0 || layers > MOST_LAYERS {
            return Err(self.no_model_has("block_count", layers));
        }
        let width = self.size("embedding_length")?;
        let heads = self.opt_uniform("attention.head_count", layers as usize)?;
        let heads = heads.ok_or_else(|| self.missing("attention.head_count"))?;
        let context = self.size("context_length")?;
        for (name, value) in [
            ("embedding_length", width),
            ("attention.head_count", heads),
            ("context_length", context),
        ] {
            if value == 0 || value > LARGEST {
                return Err(self.no_model_has(name, value));
            }
        }
        self.equal("embedding_length_out", width)?;
        let head_dims = self.head_dims(width, heads)?;
        let norm_eps = "attention.layer_norm_rms_epsilon";
        let Some(norm_eps) = self.positive(norm_eps)? else {
            return Err(self.missing(norm_eps));
        };
        let layer_configs = self.layers(layers as usize, (heads, head_dims), factors)?;
        let recurrent = self.recurrent(width)?;
        let largest_gemma = match architecture {
            Architecture::Gemma2 => layers == 46,
            Architecture::Gemma3 => layers == 62,
            _ => false,
        };
        let attention_scale = match self.positive("attention.scale")? {
            Some(scale) => scale,
            // Norms of queries and keys have the scale in their weights.
            None if architecture == Architecture::Gemma4 => 1.0,
            // Gemma's 27B models divide by the width per head instead of the head size.
            None if largest_gemma => (1.0 / ((width / heads) as f64).sqrt()) as f32,
            None => (1.0 / (head_dims[0] as f64).sqrt()) as f32,
        };
        let softcap = |key: &str, default: f32| -> Result<Option<f32>> {
            let fallback = (architecture == Architecture::Gemma2).then_some(default);
            match self.opt_f32(key)?.or(fallback) {
                None => Ok(None),
                // No bound, as some converters write it.
                Some(0.0) => Ok(None),
                Some(cap) if cap > 0.0 && cap.is_finite() => Ok(Some(cap)),
                Some(cap) => Err(self.out_of_range(key, cap)),
            }
        };
        Ok(ModelConfig {
            architecture,
            width: width as usize,
            per_layer_width: self.per_layer_width()?,
            experts: self.experts()?,
            heads: heads as usize,
            vocabulary,
            context: context as usize,
            norm_eps,
            embedding_scale: match architecture {
                _ if architecture.is_gemma() => (width as f32).sqrt(),
                _ => self.multiplier("embedding_scale")?,
            },
            attention_scale,
            query_temperature: self.temperature()?,
            attention_softcap: softcap("attn_logit_softcapping", 50.0)?,
            logit_scale: 1.0 / self.multiplier("logit_scale")?,
            residual_scale: self.multiplier("residual_scale")?,
            logit_softcap: softcap("final_logit_softcapping", 30.0)?,
            activation: match architecture {
                _ if architecture.is_gemma() => Activation::GeluTanh,
                Architecture::GptOss => Activation::ClampedSwish {
                    alpha: 1.702,
                    limit: 7.0,
                },
                _ => Activation::Silu,
            },
            recurrent,
            pooling: self.pooling()?,
            guessing_layers: self.guessing_layers(layers as usize)?,
            layers: layer_configs,
        })
    }

    /// The numbers of a token's embedding for each layer.
    fn per_layer_width(&self) -> Result<Option<usize>> {
        let name = "embedding_length_per_layer_input";
        if !keys::is_read(name, self.architecture) {
            return Ok(None);
        }
        match self.opt_size(name)?.unwrap_or(0) {
            0 => Ok(None),
            width if width > LARGEST => Err(self.no_model_has(name, width)),
            width => Ok(Some(width as usize)),
        }
    }

    /// How the model makes one vector of a text; none of models that make texts.
    fn pooling(&self) -> Result<Option<Pooling>> {
        let name = "pooling_type";
        match self.opt_size(name)? {
            None | Some(0) => Ok(None),
            Some(1) => Ok(Some(Pooling::Mean)),
            Some(3) => Ok(Some(Pooling::Last)),
            Some(other) => {
                let what = match other {
                    2 => " (the first token's vector)",
                    4 => " (a rank)",
                    _ => "",
                };
                reject!(
                    self,
                    "metadata key {} is {other}{what}, but only 0 (none), 1 (mean) and 3 (last) are supported: use another model",
                    self.key(name)
                )
            }
        }
    }

    fn scaling(&self) -> Result<RopeScaling> {
        let kind = self.metadata.opt_str(&self.key("rope.scaling.type"))?;
        // A factor of 0 stands for none in some files.
        let factor = match self.opt_f32("rope.scaling.factor")? {
            Some(0.0) => None,
            Some(_) => self.positive("rope.scaling.factor")?,
            None => match self.opt_f32("rope.scale_linear")? {
                None | Some(0.0) => None,
                Some(_) => self.positive("rope.scale_linear")?,
            },
        };
        let factor = factor.unwrap_or(1.0);
        let attention_factor =
            self.positive("rope.scaling.attn_factor")?.unwrap_or(1.0) / self.mitigation(factor)?;
        let (factor, extrapolation) = match kind {
            Some("none") => (1.0, 0.0),
            None | Some("linear") => (factor, 0.0),
            Some("yarn") if factor < 1.0 => {
                return Err(self.out_of_range("rope.scaling.factor", factor));
            }
            Some("yarn") => {
                let weight = "rope.scaling.yarn_ext_factor";
                match self.opt_f32(weight)? {
                    Some(stated) if !stated.is_finite() => {
                        return Err(self.out_of_range(weight, stated));
                    }
                    Some(stated) if stated >= 0.0 => (factor, stated),
                    // Below zero stands for what is not set.
                    _ => (factor, 1.0),
                }
            }
            Some(other) => reject!(
                self,
                "metadata key {} is {}, but only none, linear and yarn are supported: use another model",
                self.key("rope.scaling.type"),
                keys::shown(&Value::String(other))
            ),
        };
        if extrapolation == 0.0 && attention_factor == 1.0 {
            return Ok(match factor {
                1.0 => RopeScaling::None,
                factor => RopeScaling::Linear { factor },
            });
        }
        let number = |name: &str, default: f32| -> Result<f32> {
            Ok(self.positive(name)?.unwrap_or(default))
        };
        Ok(RopeScaling::Yarn {
            factor,
            original_context: self.original_context()?,
            extrapolation,
            attention_factor,
            beta_fast: number("rope.scaling.yarn_beta_fast", 32.0)?,
            beta_slow: number("rope.scaling.yarn_beta_slow", 1.0)?,
            rounded: self.architecture != Architecture::GptOss,
        })
    }

    /// The context of the training before a stretch, in tokens.
    fn original_context(&self) -> Result<u32> {
        let context = match self.opt_size("rope.scaling.original_context_length")? {
            Some(context) if context > 0 => context,
            _ => self.size("context_length")?,
        };
        Ok(context.min(LARGEST) as u32)
    }

    /// A number above zero, if the key is there.
    fn positive(&self, name: &str) -> Result<Option<f32>> {
        match self.opt_f32(name)? {
            Some(number) if !(number > 0.0 && number.is_finite()) => {
                Err(self.out_of_range(name, number))
            }
            number => Ok(number),
        }
    }

    /// Refuses a key that states another size than `size`; 0 stands for what is not set.
    fn equal(&self, name: &str, size: u64) -> Result<()> {
        match self.opt_size(name)? {
            Some(stated) if stated != size && stated != 0 => reject!(
                self,
                "metadata key {} is {stated}, but only {size} is supported here: use another model",
                self.key(name)
            ),
            _ => Ok(()),
        }
    }

    fn missing(&self, name: &str) -> Error {
        let key = self.key(name);
        Error::model(
            self.path,
            format!("metadata key {key} is missing: convert the model again"),
        )
    }

    fn no_model_has(&self, name: &str, value: u64) -> Error {
        let key = self.key(name);
        Error::model(
            self.path,
            format!("metadata key {key} is {value}, which no model has: download it again"),
        )
    }

    fn out_of_range(&self, name: &str, value: f32) -> Error {
        let key = self.key(name);
        Error::model(
            self.path,
            format!(
                "metadata key {key} is {value}, which is out of range: convert the model again"
            ),
        )
    }
}
