//! What a model's metadata says about its shape.

use std::ops::RangeInclusive;
use std::path::Path;

use walsh::formats::gguf::{Array, Metadata, Value};
use walsh::ops::{Activation, Pairing, RopeConfig, RopeScaling, Temperature};

use super::architecture::Architecture;
use super::keys;
use crate::{Error, Result};

/// Returns with a one-line reason.
macro_rules! reject {
    ($reader:ident, $($reason:tt)*) => {
        return Err(Error::model($reader.path, format!($($reason)*)))
    };
}

mod experts;
mod recurrent;

pub use experts::ExpertsConfig;
pub use recurrent::RecurrentConfig;

/// What differs from layer to layer.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerConfig {
    /// How many positions a query sees; `None` for all.
    pub window: Option<usize>,
    /// The layer's rotary embedding; none where positions are not told.
    pub rope: Option<RopeConfig>,
    /// Whether it keeps a state of fixed size instead of keys and values.
    pub recurrent: bool,
}

/// A model's shape.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// The family.
    pub architecture: Architecture,
    /// The width of the residual stream.
    pub width: usize,
    /// The width inside the feed-forward part, or inside each expert of it.
    pub feed_forward: usize,
    /// The experts of the feed-forward part, where it is a mixture.
    pub experts: Option<ExpertsConfig>,
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
        let inner = self.feed_forward_key();
        let feed_forward = self.opt_uniform(inner, layers)?;
        let heads = self.opt_uniform("attention.head_count", layers)?;
        let kv_heads = self.opt_uniform("attention.head_count_kv", layers)?;
        let [feed_forward, heads] = [(inner, feed_forward), ("attention.head_count", heads)]
            .map(|(name, value)| value.ok_or_else(|| self.missing(name)));
        let (feed_forward, heads) = (feed_forward?, heads?);
        let kv_heads = kv_heads.unwrap_or(heads);
        let context = self.size("context_length")?;
        for (name, value) in [
            ("embedding_length", width),
            (inner, feed_forward),
            ("attention.head_count", heads),
            ("attention.head_count_kv", kv_heads),
            ("context_length", context),
        ] {
            if value == 0 || value > LARGEST {
                return Err(self.no_model_has(name, value));
            }
        }
        self.equal("embedding_length_out", width)?;
        if !heads.is_multiple_of(kv_heads) {
            reject!(
                self,
                "{heads} query heads are not a multiple of {kv_heads} KV heads: download it again"
            );
        }
        let head_dim = self.head_dim(width, heads)?;
        let norm_eps = "attention.layer_norm_rms_epsilon";
        let Some(norm_eps) = self.positive(norm_eps)? else {
            return Err(self.missing(norm_eps));
        };
        let layer_configs = self.layers(layers as usize, head_dim, factors)?;
        let recurrent = self.recurrent()?;
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
        let attention_scale = match self.positive("attention.scale")? {
            Some(scale) => scale,
            None => (1.0 / (scale_dim as f64).sqrt()) as f32,
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
            feed_forward: feed_forward as usize,
            experts: self.experts()?,
            heads: heads as usize,
            kv_heads: kv_heads as usize,
            head_dim: head_dim as usize,
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
            guessing_layers: self.guessing_layers(layers as usize)?,
            layers: layer_configs,
        })
    }

    /// Numbers per head.
    fn head_dim(&self, width: u64, heads: u64) -> Result<u64> {
        let head_dim = match self.opt_size("attention.key_length")? {
            Some(length) => length,
            None if width.is_multiple_of(heads) => width / heads,
            None => reject!(
                self,
                "a width of {width} is not a multiple of {heads} heads, and the head size is not stated"
            ),
        };
        if !HEAD_DIMS.contains(&head_dim) {
            reject!(
                self,
                "a head size of {head_dim} is not supported: it must be from {} to {}",
                HEAD_DIMS.start(),
                HEAD_DIMS.end()
            );
        }
        self.equal("attention.value_length", head_dim)?;
        if self.architecture.window_period().is_some() {
            self.equal("attention.key_length_swa", head_dim)?;
            self.equal("attention.value_length_swa", head_dim)?;
        }
        Ok(head_dim)
    }

    /// The windows and rotary embeddings of all layers.
    fn layers(
        &self,
        count: usize,
        head_dim: u64,
        factors: Option<Vec<f32>>,
    ) -> Result<Vec<LayerConfig>> {
        let global = self.global_rope(head_dim, factors)?;
        let sliding = self.sliding(count)?;
        let local = match self.architecture {
            Architecture::Gemma2 => RopeConfig {
                base: self.positive("rope.freq_base_swa")?.unwrap_or(global.base),
                ..global.clone()
            },
            // Gemma 3's sliding layers keep the short base and are not stretched.
            Architecture::Gemma3 => RopeConfig {
                base: self.positive("rope.freq_base_swa")?.unwrap_or(10_000.0),
                scaling: unstretched(global.scaling),
                ..global.clone()
            },
            _ => global.clone(),
        };
        if self.architecture.window_period().is_some() {
            self.equal("rope.dimension_count_swa", global.dims)?;
        }
        let recurrent = self.recurrent_layers(count)?;
        let layer = |(index, window): (usize, Option<usize>)| LayerConfig {
            window,
            rope: self.architecture.rotates(index).then(|| match window {
                Some(_) => local.clone(),
                None => global.clone(),
            }),
            recurrent: recurrent[index],
        };
        let layers = sliding.into_iter().enumerate().map(layer);
        // What guesses further tokens lies behind those that compute.
        Ok(layers.take(count - self.guessing_layers(count)?).collect())
    }

    /// The rotary embedding of layers that attend globally.
    fn global_rope(&self, head_dim: u64, factors: Option<Vec<f32>>) -> Result<RopeConfig> {
        let dims = self.opt_size("rope.dimension_count")?.unwrap_or(head_dim);
        if dims == 0 || dims > head_dim || !dims.is_multiple_of(2) {
            reject!(
                self,
                "{dims} rotating numbers per head of {head_dim} are not supported: their number must be even, and at most the head size"
            );
        }
        if let Some(factors) = &factors {
            let usable = |factor: &f32| *factor > 0.0 && factor.is_finite();
            if factors.len() as u64 != dims / 2 || !factors.iter().all(usable) {
                reject!(
                    self,
                    "tensor rope_freqs.weight must have {} numbers above zero, one for each two that rotate: download it again",
                    dims / 2
                );
            }
        }
        Ok(RopeConfig {
            dims,
            base: self.positive("rope.freq_base")?.unwrap_or(10_000.0),
            pairing: if self.architecture.rotates_pairwise() {
                Pairing::Pairwise
            } else {
                Pairing::HalfSplit
            },
            scaling: self.scaling()?,
            factors,
            temperature: None,
        })
    }

    /// The window of each layer.
    fn sliding(&self, count: usize) -> Result<Vec<Option<usize>>> {
        let Some(period) = self.architecture.window_period() else {
            return Ok(vec![None; count]);
        };
        let key = self.key("attention.sliding_window_pattern");
        let slides: Vec<bool> = match self.metadata.get(&key) {
            Some(Value::Array(array)) => self.pattern(&key, *array, count)?,
            stated => {
                let period = match stated {
                    Some(_) => self.metadata.u64(&key)?,
                    None => period,
                };
                // Of a period of 0 no layer is the last.
                let slides = |index| period == 0 || index % period != period - 1;
                (0..count as u64).map(slides).collect()
            }
        };
        let default = (self.architecture == Architecture::Gemma2).then_some(4096);
        let window = self.opt_size("attention.sliding_window")?.or(default);
        let window = window.map(|window| window.min(LARGEST) as usize);
        let window = |slides: bool| window.filter(|window| slides && *window > 0);
        Ok(slides.into_iter().map(window).collect())
    }

    /// Which layers slide, by an array with an entry for each.
    fn pattern(&self, key: &str, array: Array<'_>, count: usize) -> Result<Vec<bool>> {
        if array.len() != count {
            reject!(
                self,
                "metadata key {key} has {} entries for {count} layers: convert the model again",
                array.len()
            );
        }
        let slides = |value: Value<'_>| match value {
            Value::Bool(slides) => Some(slides),
            value => match value.integer() {
                Some(0) => Some(false),
                Some(1) => Some(true),
                _ => None,
            },
        };
        let slides: Option<Vec<_>> = array
            .values()
            .map(|value| value.ok().and_then(slides))
            .collect();
        match slides {
            Some(slides) => Ok(slides),
            None => reject!(
                self,
                "metadata key {key} must have an entry for each layer, true or false: convert the model again"
            ),
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

    /// A size that is stated once, or for each of `layers` layers and the same for all.
    fn opt_uniform(&self, name: &str, layers: u64) -> Result<Option<u64>> {
        let key = self.key(name);
        let Some(Value::Array(array)) = self.metadata.get(&key) else {
            return self.opt_size(name);
        };
        if array.len() as u64 != layers {
            reject!(
                self,
                "metadata key {key} has {} entries for {layers} layers: convert the model again",
                array.len()
            );
        }
        let mut sizes = array.i32s()?;
        let first = sizes.next().unwrap_or_default();
        if let Some(other) = sizes.find(|size| *size != first) {
            reject!(
                self,
                "metadata key {key} is {first} for one layer and {other} for another, which is not supported: use a model whose layers are alike"
            );
        }
        match u64::try_from(first) {
            Ok(size) => Ok(Some(size)),
            Err(_) => reject!(
                self,
                "metadata key {key} is {first}, which no model has: download it again"
            ),
        }
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

/// The scaling of layers that the stretch leaves out: what it does to magnitudes stays.
fn unstretched(scaling: RopeScaling) -> RopeScaling {
    match scaling {
        RopeScaling::Yarn {
            attention_factor: 1.0,
            ..
        } => RopeScaling::None,
        RopeScaling::Yarn {
            original_context,
            attention_factor,
            beta_fast,
            beta_slow,
            rounded,
            ..
        } => RopeScaling::Yarn {
            factor: 1.0,
            original_context,
            extrapolation: 0.0,
            attention_factor,
            beta_fast,
            beta_slow,
            rounded,
        },
        _ => RopeScaling::None,
    }
}
