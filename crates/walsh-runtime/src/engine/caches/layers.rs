//! The layers of a model as an engine keeps them.

use walsh::{CacheKind, DType, KeyPreparation, KvCache, KvCacheOptions, LayerKv, Tensor};

use super::super::options::EngineOptions;
use super::super::pages::PAGE;
use crate::model::memory::{LayerMemory, LayerState};
use crate::session::cache_options;
use crate::{LayerConfig, Model, Result, SessionOptions};

/// The layers of a model, and how they are kept.
pub(super) struct Layers<'a> {
    pub(super) model: &'a Model,
    pub(super) specs: &'a [LayerKv],
    pub(super) options: &'a EngineOptions,
}

impl Layers<'_> {
    /// Those that keep keys and values, with how they do.
    pub(super) fn cached(&self) -> impl Iterator<Item = (&LayerConfig, &LayerKv)> {
        let config = self.model.config();
        let of = |index: usize| (&config.layers[index], &self.specs[index]);
        config.cached_layers().map(of)
    }

    /// How far back a layer sees, where its pages can be given back before the sequence ends.
    pub(super) fn window(&self, layer: &LayerConfig) -> Option<usize> {
        let within = |window: &usize| window + self.options.chunk + PAGE < self.options.context;
        layer.window.filter(within)
    }

    pub(super) fn cache(
        &self,
        layer: &LayerConfig,
        kv: &LayerKv,
        (sequences, kind): (usize, CacheKind),
    ) -> KvCacheOptions {
        let options = SessionOptions {
            context: self.options.context,
            kv: self.options.kv.clone(),
            chunk: self.options.chunk,
            // Besides a sequence's next token, those that it may go on with are read.
            scored: 1 + self.options.look_up,
        };
        KvCacheOptions {
            sequences: sequences as u64,
            capacity: self.options.context.next_multiple_of(PAGE) as u64,
            kind,
            ..cache_options(layer, kv, &options)
        }
    }

    /// The bytes of a sequence's overlays and states; `None` where there are none.
    pub(super) fn overlay_bytes(&self) -> Result<Option<u64>> {
        let states = self.model.config().state_bytes();
        let mut bytes = (states > 0).then_some(states);
        for (layer, kv) in self.cached() {
            let cache = self.cache(layer, kv, (1, CacheKind::Global));
            let Some(overlay) = cache.overlay else {
                continue;
            };
            for codec in [kv.codecs.key, kv.codecs.value] {
                if let Some(kept) = overlay.tokens.side(codec, cache.head_dim as usize) {
                    let side = layer.row_bytes(kept)? * overlay.slots();
                    bytes = Some(bytes.unwrap_or(0) + side);
                }
            }
        }
        Ok(bytes)
    }

    /// An empty table of pages for so many sequences.
    pub(super) fn table(&self, sequences: usize) -> Result<Tensor> {
        let entries = self.options.context.div_ceil(PAGE) as u64;
        let device = self.model.device();
        Ok(device.zeros(DType::I32, &[sequences as u64, entries])?)
    }

    /// What a layer remembers of so many sequences: in so many pages and by a table, or where it has none a state or nothing.
    pub(super) fn memory(
        &self,
        index: usize,
        (sequences, pages): (usize, Option<(usize, &Tensor)>),
        preparation: Option<KeyPreparation>,
    ) -> Result<LayerMemory> {
        let (device, config) = (self.model.device(), self.model.config());
        let layer = &config.layers[index];
        if layer.shares.is_some() {
            return Ok(LayerMemory::Shared);
        }
        let Some((pages, table)) = pages else {
            let missing = || walsh::Error::argument("KvCache", "pages", "those of a group", "none");
            let recurrent = config.recurrent.ok_or_else(missing)?;
            return Ok(LayerMemory::State(LayerState::new(
                device, &recurrent, sequences,
            )?));
        };
        let kind = CacheKind::Paged {
            pages: pages as u64,
        };
        let cache = self.cache(layer, &self.specs[index], (sequences, kind));
        let mut cache = KvCache::new(device, cache)?.with_table(table.clone())?;
        if let Some(preparation) = preparation {
            cache = cache.with_preparation(preparation)?;
        }
        Ok(cache.into())
    }
}
