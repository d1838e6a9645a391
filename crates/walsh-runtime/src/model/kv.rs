//! How the KV caches of a model are kept, and what they take.

use walsh::formats::kv::{KvCodec, KvSpec, LayerKv, RowCodec};

use super::{LayerConfig, Model};
use crate::session::cache_options;
use crate::{Fit, Result, SessionOptions};

impl Model {
    /// The bytes that one token takes in the KV caches of all layers, while it is
    /// within the windows of the sliding ones, beside the overlays' fixed size.
    ///
    /// # Errors
    /// When a codec does not fit the model's head size, or the SPEC's layers are
    /// not the model's.
    pub fn kv_bytes_per_token(&self, spec: &KvSpec) -> Result<u64> {
        let mut bytes = 0;
        let specs = self.layer_specs(spec)?;
        for index in self.config().cached_layers() {
            let codecs = specs[index].codecs;
            for codec in [codecs.key, codecs.value] {
                bytes += self.config().layers[index].row_bytes(codec)?;
            }
        }
        Ok(bytes)
    }

    /// The bits that the KV caches spend on a number, overlays not counted.
    ///
    /// # Errors
    /// As [`kv_bytes_per_token`](Self::kv_bytes_per_token).
    pub fn kv_bits_per_value(&self, spec: &KvSpec) -> Result<f64> {
        let config = self.config();
        let layers = config.cached_layers().map(|index| &config.layers[index]);
        let numbers: usize = layers
            .map(|layer| 2 * layer.kv_heads * layer.head_dim)
            .sum();
        Ok(8.0 * self.kv_bytes_per_token(spec)? as f64 / numbers as f64)
    }

    /// The same with the first and recent tokens counted that are also kept in a denser codec, behind so many tokens of
    /// which all layers keep all.
    ///
    /// # Errors
    /// As [`kv_bytes_per_token`](Self::kv_bytes_per_token).
    pub fn kv_bits_per_value_behind(&self, spec: &KvSpec, tokens: usize) -> Result<f64> {
        let config = self.config();
        let specs = self.layer_specs(spec)?;
        let (mut numbers, mut bytes) = (0, 0);
        for index in config.cached_layers() {
            let (layer, kv) = (&config.layers[index], &specs[index]);
            numbers += 2 * layer.kv_heads * layer.head_dim;
            let Some(overlay) = kv.overlay else { continue };
            let kept = (overlay.first as usize + overlay.recent as usize).min(tokens) as u64;
            for codec in [kv.codecs.key, kv.codecs.value] {
                if let Some(dense) = overlay.side(codec, layer.head_dim) {
                    bytes += kept * layer.row_bytes(dense)?;
                }
            }
        }
        let overlay = 8.0 * bytes as f64 / (numbers * tokens.max(1)) as f64;
        Ok(self.kv_bits_per_value(spec)? + overlay)
    }

    /// The bytes that the KV caches of a session take when the context is full:
    /// sliding layers hold their window and the chunk in flight, all others the whole
    /// context; layers that keep a [state](crate::ModelConfig::state_bytes) or share another's have none.
    ///
    /// # Errors
    /// As [`kv_bytes_per_token`](Self::kv_bytes_per_token), and when a size is out of
    /// range.
    pub fn kv_bytes(&self, options: &SessionOptions) -> Result<u64> {
        let config = self.config();
        let options = &options.resolved(self)?;
        let mut bytes = 0u64;
        let mut add = |row: u64, rows: u64| bytes = bytes.saturating_add(row.saturating_mul(rows));
        let specs = self.layer_specs(&options.kv)?;
        for (layer, kv) in config
            .cached_layers()
            .map(|at| (&config.layers[at], &specs[at]))
        {
            let cache = cache_options(layer, kv, options);
            for codec in [kv.codecs.key, kv.codecs.value] {
                add(layer.row_bytes(codec)?, cache.capacity);
                let Some(overlay) = cache.overlay else {
                    continue;
                };
                if let Some(kept) = overlay.tokens.side(codec, layer.head_dim) {
                    add(layer.row_bytes(kept)?, overlay.slots());
                }
            }
        }
        Ok(bytes)
    }

    /// How each layer is kept.
    pub(crate) fn layer_specs(&self, spec: &KvSpec) -> Result<Vec<LayerKv>> {
        let layers = self.kv_policy(spec)?.layers(self.config().layers.len());
        Ok(layers.map_err(walsh::Error::from)?)
    }

    /// What a SPEC stands for with this model: a [budget](KvSpec::budget) of fewer than 8 bits for the
    /// SPEC that [fits](Self::fit) it, and where there is no fit for the same codecs in every layer;
    /// every other SPEC for itself.
    ///
    /// # Errors
    /// As for [`fit`](Self::fit).
    pub fn kv_policy(&self, spec: &KvSpec) -> Result<KvSpec> {
        let Some(budget) = spec.budget().filter(|budget| Fit::has(*budget)) else {
            return Ok(spec.clone());
        };
        match self.fit()? {
            Some(fit) => fit.spec(budget.bits()),
            None => Ok(spec.spelled_out()),
        }
    }

    /// The fit that was kept for it (see [`fit`](crate::fit())), else the one that comes with Walsh for a model of the
    /// catalogue; none where there is neither.
    ///
    /// # Errors
    /// When the kept file is damaged, another model's or of another version.
    pub fn fit(&self) -> Result<Option<Fit>> {
        // Whatever adapters it has: a fit chooses codecs, and any do.
        let base = self.base();
        let kept = match self.kept_in() {
            Some(folder) => Fit::load(&base, folder)?,
            None => None,
        };
        match kept {
            Some(fit) => Ok(Some(fit)),
            None => Fit::shipped(&base),
        }
    }
}

impl LayerConfig {
    /// The bytes of one token's vectors of all KV heads.
    pub(crate) fn row_bytes(&self, codec: KvCodec) -> Result<u64> {
        let codec = RowCodec::new(codec, self.head_dim).map_err(walsh::Error::from)?;
        let row = codec.code_bytes() + codec.scale_bytes();
        Ok((row * self.kv_heads) as u64)
    }
}
