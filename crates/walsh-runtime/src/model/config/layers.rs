//! What metadata says about each layer.

use walsh::formats::gguf::{Array, Value};
use walsh::ops::{Pairing, RopeConfig, RopeScaling};

use super::{HEAD_DIMS, LARGEST, LayerConfig, Reader};
use crate::model::architecture::Architecture;
use crate::{Error, Result};

/// The divisors of the rotary embedding's frequencies.
pub(in crate::model) const ROPE_FACTORS: &str = "rope_freqs.weight";

impl Reader<'_, '_> {
    /// Numbers per head: of layers that see all positions, and of those that slide.
    pub(super) fn head_dims(&self, width: u64, heads: u64) -> Result<[u64; 2]> {
        let global = match self.opt_size("attention.key_length")? {
            Some(length) => length,
            None if width.is_multiple_of(heads) => width / heads,
            None => reject!(
                self,
                "a width of {width} is not a multiple of {heads} heads, and the head size is not stated"
            ),
        };
        let sliding = match self.architecture.has_unlike_layers() {
            true => self.opt_size("attention.key_length_swa")?,
            false => None,
        };
        let sliding = sliding.unwrap_or(global);
        for head_dim in [global, sliding] {
            if !HEAD_DIMS.contains(&head_dim) {
                reject!(
                    self,
                    "a head size of {head_dim} is not supported: it must be from {} to {}",
                    HEAD_DIMS.start(),
                    HEAD_DIMS.end()
                );
            }
        }
        self.equal("attention.value_length", global)?;
        if self.architecture.window_period().is_some() {
            self.equal("attention.key_length_swa", sliding)?;
            self.equal("attention.value_length_swa", sliding)?;
        }
        Ok([global, sliding])
    }

    /// All layers, of so many query heads each.
    pub(super) fn layers(
        &self,
        count: usize,
        (heads, [global_dim, sliding_dim]): (u64, [u64; 2]),
        factors: Option<Vec<f32>>,
    ) -> Result<Vec<LayerConfig>> {
        let windows = self.windows(count)?;
        let proportional = self.architecture.has_unlike_layers();
        if proportional && factors.is_none() && windows.contains(&None) {
            reject!(
                self,
                "tensor {ROPE_FACTORS} is missing: download the model again"
            );
        }
        let global = self.global_rope(global_dim, factors)?;
        let local = self.local_rope(sliding_dim, &global)?;
        let recurrent = self.recurrent_layers(count)?;
        let shares = self.shares(&windows)?;
        let kv_heads = self.kv_heads(count, heads)?;
        let inner = self.feed_forward_key();
        let feed_forward = self.layer_sizes(inner, count)?;
        let mut feed_forward = feed_forward.ok_or_else(|| self.missing(inner))?;
        let dense = self.dense_layers(count)?;
        if self.architecture.has_experts() && dense > 0 {
            feed_forward[..dense].fill(self.size("feed_forward_length")?);
        }
        let mut layers = Vec::with_capacity(count);
        for (index, window) in windows.into_iter().enumerate() {
            for (name, size) in [
                (inner, feed_forward[index]),
                ("attention.head_count_kv", kv_heads[index]),
            ] {
                if size == 0 || size > LARGEST {
                    return Err(self.no_model_has(name, size));
                }
            }
            let kv_heads = (kv_heads[index], shares[index].map(|from| kv_heads[from]));
            if let (own, Some(shared)) = kv_heads
                && own != shared
            {
                reject!(
                    self,
                    "layer {index} has {own} KV heads, but attends to the keys and values of a layer that has {shared}: download it again"
                );
            }
            let kv_heads = kv_heads.0;
            if !heads.is_multiple_of(kv_heads) {
                reject!(
                    self,
                    "{heads} query heads are not a multiple of {kv_heads} KV heads: download it again"
                );
            }
            let (head_dim, rope) = match window {
                Some(_) => (sliding_dim, &local),
                None => (global_dim, &global),
            };
            layers.push(LayerConfig {
                window,
                rope: self.architecture.rotates(index).then(|| rope.clone()),
                recurrent: recurrent[index],
                mixture: index >= dense,
                shares: shares[index],
                kv_heads: kv_heads as usize,
                head_dim: head_dim as usize,
                feed_forward: feed_forward[index] as usize,
            });
        }
        // What guesses further tokens lies behind those that compute.
        layers.truncate(count - self.guessing_layers(count)?);
        Ok(layers)
    }

    /// The rotary embedding of layers that attend globally.
    fn global_rope(&self, head_dim: u64, factors: Option<Vec<f32>>) -> Result<RopeConfig> {
        let dims = self.opt_size("rope.dimension_count")?.unwrap_or(head_dim);
        self.check_rotating(dims, head_dim)?;
        if let Some(factors) = &factors {
            let usable = |factor: &f32| *factor > 0.0 && factor.is_finite();
            if factors.len() as u64 != dims / 2 || !factors.iter().all(usable) {
                reject!(
                    self,
                    "tensor {ROPE_FACTORS} must have {} numbers above zero, one for each two that rotate: download it again",
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

    /// The rotary embedding of layers that slide.
    fn local_rope(&self, head_dim: u64, global: &RopeConfig) -> Result<RopeConfig> {
        let local = match self.architecture {
            Architecture::Gemma2 => RopeConfig {
                base: self.positive("rope.freq_base_swa")?.unwrap_or(global.base),
                ..global.clone()
            },
            // From Gemma 3 on, sliding layers keep the short base and are not stretched.
            Architecture::Gemma3 => RopeConfig {
                base: self.positive("rope.freq_base_swa")?.unwrap_or(10_000.0),
                scaling: unstretched(global.scaling),
                ..global.clone()
            },
            Architecture::Gemma4 => RopeConfig {
                dims: self
                    .opt_size("rope.dimension_count_swa")?
                    .unwrap_or(head_dim),
                base: self.positive("rope.freq_base_swa")?.unwrap_or(10_000.0),
                scaling: unstretched(global.scaling),
                factors: None,
                ..global.clone()
            },
            _ => global.clone(),
        };
        self.check_rotating(local.dims, head_dim)?;
        if self.architecture.window_period().is_some() {
            self.equal("rope.dimension_count_swa", local.dims)?;
        }
        Ok(local)
    }

    fn check_rotating(&self, dims: u64, head_dim: u64) -> Result<()> {
        if dims == 0 || dims > head_dim || !dims.is_multiple_of(2) {
            reject!(
                self,
                "{dims} rotating numbers per head of {head_dim} are not supported: their number must be even, and at most the head size"
            );
        }
        Ok(())
    }

    /// The window of each layer.
    fn windows(&self, count: usize) -> Result<Vec<Option<usize>>> {
        let Some(period) = self.architecture.window_period() else {
            return Ok(vec![None; count]);
        };
        let pattern = "attention.sliding_window_pattern";
        let key = self.key(pattern);
        let slides: Vec<bool> = match self.metadata.get(&key) {
            Some(Value::Array(array)) => self.pattern(&key, *array, count)?,
            // Too much depends on it to be guessed.
            None if self.architecture.has_unlike_layers() => return Err(self.missing(pattern)),
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
        let window = window.filter(|window| *window > 0);
        if self.architecture.has_unlike_layers() && window.is_none() && slides.contains(&true) {
            return Err(self.missing("attention.sliding_window"));
        }
        let window = |slides: bool| window.filter(|_| slides);
        Ok(slides.into_iter().map(window).collect())
    }

    /// What holds of each layer, by an array with an entry for each.
    pub(super) fn pattern(&self, key: &str, array: Array<'_>, count: usize) -> Result<Vec<bool>> {
        self.check_entries(key, array, count)?;
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

    fn check_entries(&self, key: &str, array: Array<'_>, count: usize) -> Result<()> {
        if array.len() != count {
            reject!(
                self,
                "metadata key {key} has {} entries for {count} layers: convert the model again",
                array.len()
            );
        }
        Ok(())
    }

    /// The earlier layer that each layer takes its keys and values from, where it has none of its own: of those that have
    /// some, the last that sees equally far.
    fn shares(&self, windows: &[Option<usize>]) -> Result<Vec<Option<usize>>> {
        let (name, count) = ("attention.shared_kv_layers", windows.len());
        let sharing = match self.architecture.has_unlike_layers() {
            true => self.opt_size(name)?.unwrap_or(0),
            false => 0,
        };
        let Some(own) = (count as u64).checked_sub(sharing).filter(|own| *own > 0) else {
            reject!(
                self,
                "metadata key {} is {sharing}, but of {count} layers one at least must have keys and values of its own: download it again",
                self.key(name)
            );
        };
        let own = own as usize;
        let mut shares = vec![None; own];
        for (index, window) in windows.iter().enumerate().skip(own) {
            let source = windows[..own].iter().rposition(|other| other == window);
            if source.is_none() {
                reject!(
                    self,
                    "layer {index} has no keys and values of its own, and no layer that has some sees equally far: download it again"
                );
            }
            shares.push(source);
        }
        Ok(shares)
    }

    /// The KV heads of each layer, of so many query heads. Layers that have none are recurrent, and have as many as the others
    /// on paper.
    fn kv_heads(&self, count: usize, heads: u64) -> Result<Vec<u64>> {
        let name = "attention.head_count_kv";
        if !self.architecture.has_convolutions() {
            let stated = self.layer_sizes(name, count)?;
            return Ok(stated.unwrap_or_else(|| vec![heads; count]));
        }
        let mut attending = self.attending_heads(count)?;
        attending.retain(|heads| *heads > 0);
        let heads = self.uniform(name, &attending)?.unwrap_or(heads);
        Ok(vec![heads; count])
    }

    /// The KV heads of each layer, none of those that are convolutions.
    pub(super) fn attending_heads(&self, count: usize) -> Result<Vec<u64>> {
        let name = "attention.head_count_kv";
        self.opt_sizes(name, count)?
            .ok_or_else(|| self.missing(name))
    }

    /// A size of each layer, which only some families have different ones of.
    fn layer_sizes(&self, name: &str, count: usize) -> Result<Option<Vec<u64>>> {
        if self.architecture.has_unlike_layers() {
            return self.opt_sizes(name, count);
        }
        let size = self.opt_uniform(name, count)?;
        Ok(size.map(|size| vec![size; count]))
    }

    /// A size that is stated once, or for each of so many layers and the same for all.
    pub(super) fn opt_uniform(&self, name: &str, count: usize) -> Result<Option<u64>> {
        let Some(sizes) = self.opt_sizes(name, count)? else {
            return Ok(None);
        };
        self.uniform(name, &sizes)
    }

    /// The size that all are; none of none.
    fn uniform(&self, name: &str, sizes: &[u64]) -> Result<Option<u64>> {
        let first = sizes.first().copied();
        if let Some(other) = sizes.iter().find(|size| Some(**size) != first) {
            reject!(
                self,
                "metadata key {} is {} for one layer and {other} for another, which is not supported: use a model whose layers are alike",
                self.key(name),
                first.unwrap_or_default()
            );
        }
        Ok(first)
    }

    /// A size that is stated once, or for each of so many layers.
    fn opt_sizes(&self, name: &str, count: usize) -> Result<Option<Vec<u64>>> {
        let key = self.key(name);
        let Some(Value::Array(array)) = self.metadata.get(&key) else {
            let size = self.opt_size(name)?;
            return Ok(size.map(|size| vec![size; count]));
        };
        self.check_entries(&key, *array, count)?;
        let mut sizes = Vec::with_capacity(count);
        for size in array.i32s()? {
            match u64::try_from(size) {
                Ok(size) => sizes.push(size),
                Err(_) => reject!(
                    self,
                    "metadata key {key} is {size}, which no model has: download it again"
                ),
            }
        }
        Ok(Some(sizes))
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
