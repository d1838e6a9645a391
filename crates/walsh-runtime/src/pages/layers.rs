//! The layers of a model as texts in pages keep them.

use walsh::{CacheKind, KvCacheOptions, LayerKv};

use super::group::PAGE;
use crate::session::cache_options;
use crate::{LayerConfig, Model, Result, SessionOptions};

/// The layers of a model, and how they are kept.
pub(crate) struct Layers<'a> {
    pub(crate) model: &'a Model,
    pub(crate) specs: &'a [LayerKv],
    /// With the defaults filled in.
    pub(crate) options: &'a SessionOptions,
}

/// What layers that see equally far back take.
#[derive(Debug)]
pub(crate) struct GroupSize {
    pub(crate) window: Option<usize>,
    /// Bytes of a page of all its layers.
    pub(crate) page_bytes: u64,
    /// The most pages of a sequence, which there are at least.
    pub(crate) least: usize,
}

impl Layers<'_> {
    /// Those that keep keys and values, with how they do.
    pub(crate) fn cached(&self) -> impl Iterator<Item = (&LayerConfig, &LayerKv)> {
        let config = self.model.config();
        let of = |index: usize| (&config.layers[index], &self.specs[index]);
        config.cached_layers().map(of)
    }

    /// How far back a layer sees, where its pages can be given back before the sequence ends.
    pub(super) fn window(&self, layer: &LayerConfig) -> Option<usize> {
        let within = |window: &usize| window + self.options.chunk + PAGE < self.options.context;
        layer.window.filter(within)
    }

    /// Those that see equally far back, together.
    pub(crate) fn groups(&self) -> Result<Vec<GroupSize>> {
        let all = self.options.context.div_ceil(PAGE);
        let mut groups: Vec<GroupSize> = Vec::new();
        for (layer, kv) in self.cached() {
            let window = self.window(layer);
            let index = groups.iter().position(|group| group.window == window);
            let index = index.unwrap_or_else(|| {
                // A window and a chunk begin and end within pages.
                let most = window.map(|window| (window + self.options.chunk).div_ceil(PAGE) + 1);
                groups.push(GroupSize {
                    window,
                    page_bytes: 0,
                    least: most.map_or(all, |most| most.min(all)),
                });
                groups.len() - 1
            });
            for codec in [kv.codecs.key, kv.codecs.value] {
                groups[index].page_bytes += layer.row_bytes(codec)? * PAGE as u64;
            }
        }
        Ok(groups)
    }

    /// How a layer keeps the keys and values of so many sequences in so many pages.
    pub(super) fn cache(&self, index: usize, (sequences, pages): (usize, usize)) -> KvCacheOptions {
        let layer = &self.model.config().layers[index];
        KvCacheOptions {
            sequences: sequences as u64,
            capacity: self.options.context.next_multiple_of(PAGE) as u64,
            kind: CacheKind::Paged {
                pages: pages as u64,
            },
            ..cache_options(layer, &self.specs[index], self.options)
        }
    }

    /// The bytes of a sequence's overlays and states; `None` where there are none.
    pub(crate) fn overlay_bytes(&self) -> Result<Option<u64>> {
        let states = self.model.config().state_bytes();
        let mut bytes = (states > 0).then_some(states);
        for (layer, kv) in self.cached() {
            let cache = cache_options(layer, kv, self.options);
            let Some(overlay) = cache.overlay else {
                continue;
            };
            for codec in [kv.codecs.key, kv.codecs.value] {
                if let Some(kept) = overlay.tokens.side(codec, layer.head_dim) {
                    let side = layer.row_bytes(kept)? * overlay.slots();
                    bytes = Some(bytes.unwrap_or(0) + side);
                }
            }
        }
        Ok(bytes)
    }
}
