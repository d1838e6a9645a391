//! The caches of an engine: pages of all layers, and the tables that say whose they are.

use std::ops::Range;

use walsh::{CacheKind, DType, Device, KvCache, KvCacheOptions, KvRows, KvSide, LayerKv, Tensor};

use super::left::Left;
use super::options::EngineOptions;
use super::pages::{PAGE, PageCopy, PageGroup};
use crate::model::memory::{LayerMemory, LayerState};
use crate::session::cache_options;
use crate::size::size_text;
use crate::{Error, LayerConfig, Model, Result, SessionOptions};

/// Layers that see equally far back share page numbers and a table.
pub(super) struct Group {
    pub(super) pages: PageGroup,
    /// `i32 [slots and copies, entries]`; copies have no pages.
    table: Tensor,
    /// Its layers.
    layers: Vec<usize>,
}

impl Group {
    pub(super) fn new(pages: PageGroup, table: Tensor) -> Self {
        Self {
            pages,
            table,
            layers: Vec::new(),
        }
    }
}

/// The caches of all layers.
pub(super) struct Caches {
    pub(super) layers: Vec<LayerMemory>,
    pub(super) groups: Vec<Group>,
    /// How many copies there is room for of what a slot has in overlays and states, which lie behind those of the slots;
    /// `None` where there is neither.
    pub(super) copies: Option<usize>,
    slots: usize,
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
        let (shares, copies) = layers.shares()?;
        let sequences = options.sequences + copies.unwrap_or(0);
        let device = model.device();
        let mut groups = Vec::new();
        for share in &shares {
            let sizes = (options.sequences, options.context);
            let entries = options.context.div_ceil(PAGE) as u64;
            groups.push(Group::new(
                PageGroup::new(share.window, sizes, share.pages),
                device.zeros(DType::I32, &[sequences as u64, entries])?,
            ));
        }
        let mut memory: Vec<LayerMemory> = Vec::new();
        let calibration = specs.iter().any(LayerKv::needs_calibration);
        let calibration = calibration.then(|| model.calibration()).transpose()?;
        for (index, (layer, kv)) in model.config().layers.iter().zip(&specs).enumerate() {
            if let Some(recurrent) = model.config().recurrent.filter(|_| layer.recurrent) {
                let state = LayerState::new(device, &recurrent, sequences)?;
                memory.push(LayerMemory::State(state));
                continue;
            }
            let window = layers.window(layer);
            let group = shares.iter().position(|share| share.window == window);
            let group = group.unwrap_or_default();
            groups[group].layers.push(index);
            let kind = CacheKind::Paged {
                pages: shares[group].pages as u64,
            };
            let cache = layers.cache(layer, kv, (sequences, kind));
            let cache = KvCache::new(device, cache)?;
            let mut cache = cache.with_table(groups[group].table.clone())?;
            if let Some(found) = calibration.filter(|_| kv.needs_calibration()) {
                let shape = (model.config(), layer.rope.as_ref());
                let preparation = found.layers[index].preparation(device, shape, kv)?;
                cache = cache.with_preparation(preparation)?;
            }
            memory.push(cache.into());
        }
        Ok(Self {
            layers: memory,
            groups,
            copies,
            slots: options.sequences,
        })
    }

    /// Copies the first positions of a page to another of the same group.
    pub(super) fn copy_page(&self, device: &Device, group: usize, page: PageCopy) -> Result<()> {
        for slots in self.slots_of(&self.groups[group])? {
            let of = |number: i32| {
                let first = number as u64 * PAGE as u64;
                slots.rows(first..first + page.positions as u64)
            };
            device.copy(&of(page.from)?, &of(page.to)?)?;
        }
        Ok(())
    }

    /// The pages of a group's layers: of each KV head's codes, or scales, `[slots, width]`, in an order that does not change.
    fn slots_of(&self, group: &Group) -> Result<Vec<Tensor>> {
        let mut all = Vec::new();
        for layer in &group.layers {
            let sides = self.layers[*layer].cache().into_iter().flat_map(sides);
            for tensor in sides.flat_map(|side| tensors(&side.rows)) {
                let [heads, slots, width] = [0, 1, 2].map(|dim| tensor.shape()[dim]);
                for head in 0..heads {
                    all.push(tensor.rows(head..head + 1)?.reshape(&[slots, width])?);
                }
            }
        }
        Ok(all)
    }

    /// Makes a copy of what a slot has in overlays and states.
    pub(super) fn save_overlay(&self, device: &Device, slot: usize, copy: usize) -> Result<()> {
        self.copy_overlay(device, slot, self.slots + copy)
    }

    /// Gives a slot what a copy has.
    pub(super) fn load_overlay(&self, device: &Device, copy: usize, slot: usize) -> Result<()> {
        self.copy_overlay(device, self.slots + copy, slot)
    }

    /// What a slot has at some positions; the pages are there.
    fn stored(&self, slot: usize, positions: &Range<usize>) -> Result<Vec<Tensor>> {
        let mut pieces = Vec::new();
        for group in &self.groups {
            let pages = group.pages.pages_of(slot, positions);
            let first = positions.start / PAGE;
            let rows: Vec<Range<u64>> = pages
                .iter()
                .enumerate()
                .map(|(index, page)| {
                    let page_start = (first + index) * PAGE;
                    let start = positions.start.max(page_start) - page_start;
                    let end = positions.end.min(page_start + PAGE) - page_start;
                    let at = page.unwrap_or_default() as u64 * PAGE as u64;
                    at + start as u64..at + end as u64
                })
                .collect();
            for slots in self.slots_of(group)? {
                for rows in &rows {
                    pieces.push(slots.rows(rows.clone())?);
                }
            }
        }
        Ok(pieces)
    }

    /// What a slot has in overlays, and its states.
    fn overlays(&self, slot: usize) -> Result<Vec<Tensor>> {
        let mut pieces = Vec::new();
        for layer in &self.layers {
            let cache = match layer {
                LayerMemory::Cache(cache) => cache,
                LayerMemory::State(state) => {
                    pieces.extend(state.slot(slot)?);
                    continue;
                }
            };
            let first = slot as u64 * cache.kv_heads();
            for tensor in sides(cache)
                .filter_map(|side| side.overlay.as_ref())
                .flat_map(tensors)
            {
                pieces.push(tensor.rows(first..first + cache.kv_heads())?);
            }
        }
        Ok(pieces)
    }

    /// Reads what a call has left behind in a slot.
    pub(super) fn read(
        &self,
        device: &Device,
        slot: usize,
        positions: &Range<usize>,
    ) -> Result<Left> {
        Ok(Left {
            pages: self.read_all(device, &self.stored(slot, positions)?)?,
            overlays: self.read_all(device, &self.overlays(slot)?)?,
        })
    }

    /// Reads pieces, one behind the other.
    pub(super) fn read_all(&self, device: &Device, pieces: &[Tensor]) -> Result<Vec<u8>> {
        let mut bytes = vec![0; total(pieces)];
        let mut rest = &mut bytes[..];
        for piece in pieces {
            let (first, others) = rest.split_at_mut(piece.bytes() as usize);
            device.read_bytes(piece, first)?;
            rest = others;
        }
        Ok(bytes)
    }

    /// Writes pieces, whose bytes lie one behind the other.
    pub(super) fn write_all(
        &self,
        device: &Device,
        pieces: Vec<Tensor>,
        bytes: &[u8],
    ) -> Result<()> {
        let mut rest = bytes;
        for piece in pieces {
            let (first, others) = rest.split_at(piece.bytes() as usize);
            device.write_bytes(&piece, first)?;
            rest = others;
        }
        Ok(())
    }

    /// Whether some bytes are as many as some pieces have.
    pub(super) fn fits(&self, pieces: &[Tensor], bytes: &[u8]) -> bool {
        total(pieces) == bytes.len()
    }

    /// What pages of each group hold up to a position; with each page its entry of a row.
    pub(super) fn pieces(&self, pages: &[Vec<(usize, i32)>], end: usize) -> Result<Vec<Tensor>> {
        let mut pieces = Vec::new();
        for (group, pages) in self.groups.iter().zip(pages) {
            for slots in self.slots_of(group)? {
                for (entry, page) in pages {
                    let rows = end.min((entry + 1) * PAGE).saturating_sub(entry * PAGE);
                    let at = *page as u64 * PAGE as u64;
                    pieces.push(slots.rows(at..at + rows as u64)?);
                }
            }
        }
        Ok(pieces)
    }

    /// What a copy has of overlays.
    pub(super) fn overlays_of_copy(&self, copy: usize) -> Result<Vec<Tensor>> {
        self.overlays(self.slots + copy)
    }

    /// The bytes of what a slot, or a copy, has in overlays.
    pub(super) fn overlay_bytes(&self, slot: usize) -> Result<usize> {
        Ok(total(&self.overlays(slot)?))
    }

    /// Gives a slot what a call has left behind, read by `read`, which is told how many bytes of pages and of overlays it is;
    /// whether there was something.
    pub(super) fn write(
        &self,
        device: &Device,
        (slot, positions): (usize, &Range<usize>),
        read: &dyn Fn((usize, usize)) -> Option<Left>,
    ) -> Result<bool> {
        let (pages, overlays) = (self.stored(slot, positions)?, self.overlays(slot)?);
        let Some(left) = read((total(&pages), total(&overlays))) else {
            return Ok(false);
        };
        self.write_all(device, pages, &left.pages)?;
        self.write_all(device, overlays, &left.overlays)?;
        Ok(true)
    }

    fn copy_overlay(&self, device: &Device, from: usize, to: usize) -> Result<()> {
        for (from, to) in self.overlays(from)?.iter().zip(&self.overlays(to)?) {
            device.copy(from, to)?;
        }
        Ok(())
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

fn sides(cache: &KvCache) -> impl Iterator<Item = &KvSide> {
    [cache.key(), cache.value()].into_iter()
}

/// The bytes of some pieces.
fn total(pieces: &[Tensor]) -> usize {
    pieces.iter().map(|piece| piece.bytes() as usize).sum()
}

fn tensors(rows: &KvRows) -> impl Iterator<Item = &Tensor> {
    std::iter::once(&rows.codes).chain(&rows.scales)
}

/// The layers of a model as an engine keeps them.
struct Layers<'a> {
    model: &'a Model,
    specs: &'a [LayerKv],
    options: &'a EngineOptions,
}

impl Layers<'_> {
    /// Those that keep keys and values, with how they do.
    fn cached(&self) -> impl Iterator<Item = (&LayerConfig, &LayerKv)> {
        let config = self.model.config();
        let of = |index: usize| (&config.layers[index], &self.specs[index]);
        config.cached_layers().map(of)
    }

    /// How far back a layer sees, where its pages can be given back before the sequence ends.
    fn window(&self, layer: &LayerConfig) -> Option<usize> {
        let within = |window: &usize| window + self.options.chunk + PAGE < self.options.context;
        layer.window.filter(within)
    }

    fn cache(
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
            ..cache_options(self.model.config(), layer, kv, &options)
        }
    }

    /// The bytes of a sequence's overlays and states; `None` where there are none.
    fn overlay_bytes(&self) -> Result<Option<u64>> {
        let states = self.model.config().state_bytes();
        let mut bytes = (states > 0).then_some(states);
        for (layer, kv) in self.cached() {
            let cache = self.cache(layer, kv, (1, CacheKind::Global));
            let Some(overlay) = cache.overlay else {
                continue;
            };
            for codec in [kv.codecs.key, kv.codecs.value] {
                if let Some(kept) = overlay.tokens.side(codec, cache.head_dim as usize) {
                    let side = self.model.row_bytes(kept)? * overlay.slots();
                    bytes = Some(bytes.unwrap_or(0) + side);
                }
            }
        }
        Ok(bytes)
    }

    /// The groups, with the pages that the budget has for each, and how many copies of overlays it has, if there are any.
    fn shares(&self) -> Result<(Vec<Share>, Option<usize>)> {
        let (options, chunk) = (self.options, self.options.chunk);
        let mut shares: Vec<Share> = Vec::new();
        for (layer, kv) in self.cached() {
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
        let copies = self.divide(&mut shares)?;
        Ok((shares, copies))
    }

    /// Divides the budget: overlays have what all sequences need, pages what is left or as much as they can use, and copies
    /// of overlays up to a quarter of that, or where layers keep a state as much again.
    fn divide(&self, shares: &mut [Share]) -> Result<Option<usize>> {
        let overlay = self.overlay_bytes()?;
        let sequences = self.options.sequences as u64;
        let fixed = sequences * overlay.unwrap_or(0);
        let all = |share: &Share| share.page_bytes * share.most as u64;
        let pages_of_one: u64 = shares.iter().map(all).sum();
        let keeps_copies = overlay.is_some() && self.options.keep_prefixes;
        // Pages behind which no state is kept are of no use to others: states have as much as they.
        let share = match self.model.config().recurrent {
            Some(_) => 1,
            None => 4,
        };
        let with_copies = |pages: u64| pages + if keeps_copies { pages / share } else { 0 };
        let one = fixed + pages_of_one;
        let full = fixed + with_copies(sequences * pages_of_one);
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
        let room = budget.min(full) - fixed;
        let for_pages = match keeps_copies {
            true => (room / (share + 1) * share).max(pages_of_one),
            false => room,
        };
        // Every group gets the same part of what it could use, and room for one sequence at least.
        let part = for_pages as f64 / (sequences * pages_of_one).max(1) as f64;
        let mut taken = 0;
        for share in &mut *shares {
            let most = share.most * self.options.sequences;
            share.pages = ((most as f64 * part) as usize).clamp(share.most, most);
            taken += share.pages as u64 * share.page_bytes;
        }
        let pages: usize = shares.iter().map(|share| share.pages).sum();
        Ok(overlay.map(|bytes| {
            let copies = room.saturating_sub(taken) / bytes.max(1);
            (copies as usize).min(if keeps_copies { pages } else { 0 })
        }))
    }
}
