//! The caches of an engine: pages of all layers, and the tables that say whose they are.

use walsh::{CacheKind, DType, Device, KvCache, KvCacheOptions, LayerKv, Tensor};

use super::EngineOptions;
use super::pages::{PAGE, PageGroup};
use crate::session::cache_options;
use crate::size::size_text;
use crate::{Error, LayerConfig, Model, Result, SessionOptions};

/// Layers that see equally far back share page numbers and a table.
pub(super) struct Group {
    pub(super) pages: PageGroup,
    /// `i32 [slots, entries]`.
    table: Tensor,
}

/// The caches of all layers.
pub(super) struct Caches {
    pub(super) layers: Vec<KvCache>,
    pub(super) groups: Vec<Group>,
}

/// What a group of layers takes.
struct Share {
    window: Option<usize>,
    /// Bytes of a page of all its layers.
    page_bytes: u64,
    /// The most pages of a sequence.
    most: usize,
    pages: usize,
}

impl Caches {
    pub(super) fn new(model: &Model, options: &EngineOptions) -> Result<Self> {
        let specs = model.layer_specs(&options.kv)?;
        let layers = Layers {
            model,
            specs: &specs,
            options,
        };
        let shares = layers.shares()?;
        let device = model.device();
        let mut groups = Vec::new();
        for share in &shares {
            let sizes = (options.sequences, options.context);
            let entries = options.context.div_ceil(PAGE) as u64;
            groups.push(Group {
                pages: PageGroup::new(share.window, sizes, share.pages),
                table: device.zeros(DType::I32, &[options.sequences as u64, entries])?,
            });
        }
        let mut caches = Vec::new();
        let calibration = specs.iter().any(LayerKv::needs_calibration);
        let calibration = calibration.then(|| model.calibration()).transpose()?;
        for (index, (layer, kv)) in model.config().layers.iter().zip(&specs).enumerate() {
            let window = layers.window(layer);
            let group = shares.iter().position(|share| share.window == window);
            let group = group.unwrap_or_default();
            let kind = CacheKind::Paged {
                pages: shares[group].pages as u64,
            };
            let cache = KvCache::new(device, layers.cache(layer, kv, kind))?;
            let mut cache = cache.with_table(groups[group].table.clone())?;
            if let Some(found) = calibration.filter(|_| kv.needs_calibration()) {
                let shape = (model.config(), &layer.rope);
                let preparation = found.layers[index].preparation(device, shape, kv)?;
                cache = cache.with_preparation(preparation)?;
            }
            caches.push(cache);
        }
        Ok(Self {
            layers: caches,
            groups,
        })
    }

    /// Brings the tables on the device up to date.
    pub(super) fn write_tables(&mut self, device: &Device) -> Result<()> {
        for group in &mut self.groups {
            for (slot, row) in group.pages.changes() {
                let slot = slot as u64;
                device.write(&group.table.rows(slot..slot + 1)?, row)?;
            }
        }
        Ok(())
    }
}

/// The layers of a model as an engine keeps them.
struct Layers<'a> {
    model: &'a Model,
    specs: &'a [LayerKv],
    options: &'a EngineOptions,
}

impl Layers<'_> {
    /// How far back a layer sees, where its pages can be given back before the sequence ends.
    fn window(&self, layer: &LayerConfig) -> Option<usize> {
        let within = |window: &usize| window + self.options.chunk + PAGE < self.options.context;
        layer.window.filter(within)
    }

    fn cache(&self, layer: &LayerConfig, kv: &LayerKv, kind: CacheKind) -> KvCacheOptions {
        let options = SessionOptions {
            context: self.options.context,
            kv: self.options.kv.clone(),
            chunk: self.options.chunk,
            // A sequence decodes a token at a time.
            scored: 1,
        };
        KvCacheOptions {
            sequences: self.options.sequences as u64,
            capacity: self.options.context.next_multiple_of(PAGE) as u64,
            kind,
            ..cache_options(self.model.config(), layer, kv, &options)
        }
    }

    /// The bytes of everything but pages.
    fn fixed_bytes(&self) -> Result<u64> {
        let mut bytes = 0;
        for (layer, kv) in self.model.config().layers.iter().zip(self.specs) {
            let cache = self.cache(layer, kv, CacheKind::Global);
            let Some(overlay) = cache.overlay else {
                continue;
            };
            for codec in [kv.codecs.key, kv.codecs.value] {
                if let Some(kept) = overlay.tokens.side(codec, cache.head_dim as usize) {
                    bytes += self.model.row_bytes(kept)? * overlay.slots() * cache.sequences;
                }
            }
        }
        Ok(bytes)
    }

    /// The groups, with the pages that the budget has for each.
    fn shares(&self) -> Result<Vec<Share>> {
        let (options, chunk) = (self.options, self.options.chunk);
        let mut shares: Vec<Share> = Vec::new();
        for (layer, kv) in self.model.config().layers.iter().zip(self.specs) {
            let window = self.window(layer);
            let index = shares.iter().position(|share| share.window == window);
            let index = index.unwrap_or_else(|| {
                // A window and a chunk begin and end within pages.
                let most = match window {
                    Some(window) => (window + chunk).div_ceil(PAGE) + 1,
                    None => options.context.div_ceil(PAGE),
                };
                shares.push(Share {
                    window,
                    page_bytes: 0,
                    most: most.min(options.context.div_ceil(PAGE)),
                    pages: 0,
                });
                shares.len() - 1
            });
            for codec in [kv.codecs.key, kv.codecs.value] {
                shares[index].page_bytes += self.model.row_bytes(codec)? * PAGE as u64;
            }
        }
        self.divide(&mut shares)?;
        Ok(shares)
    }

    /// Divides the budget: windows have what all sequences need, and the others the rest, or as much as they can use.
    fn divide(&self, shares: &mut [Share]) -> Result<()> {
        let fixed = self.fixed_bytes()?;
        let all = |share: &Share| share.page_bytes * share.most as u64;
        let one: u64 = fixed + shares.iter().map(all).sum::<u64>();
        let full: u64 = fixed + self.options.sequences as u64 * shares.iter().map(all).sum::<u64>();
        let free = self.model.device().available_bytes();
        let budget = match self.options.kv_memory {
            // Half of what is free, for there is more to keep than codes.
            0 => full.min(free.map_or(u64::MAX, |free| (free / 2).max(one))),
            asked => asked,
        };
        if let Some(free) = free.filter(|free| *free < budget.min(full)) {
            return Err(Error::option(
                "kv_memory",
                format_args!("at most the {} that are free", size_text(free)),
                size_text(budget.min(full)),
            ));
        }
        if budget < one {
            return Err(Error::option(
                "kv_memory",
                format_args!(
                    "at least {}, for one sequence of {} tokens in {}",
                    size_text(one),
                    self.options.context,
                    self.options.kv,
                ),
                size_text(budget),
            ));
        }
        // Every group gets the same part of what it could use, and room for one sequence at least.
        let part = (budget - fixed) as f64 / (full - fixed).max(1) as f64;
        for share in shares {
            let most = share.most * self.options.sequences;
            share.pages = ((most as f64 * part) as usize).clamp(share.most, most);
        }
        Ok(())
    }
}
