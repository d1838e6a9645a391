//! The caches of an engine: pages of all layers, and the tables that say whose they are.

mod layers;
mod resize;
mod sizes;

use std::ops::Range;

use walsh::{Device, KvCache, KvRows, KvSide, LayerKv, Tensor};

use self::layers::Layers;
pub(super) use self::resize::Moves;
pub(super) use self::sizes::{Plan, Sizes};
use super::left::Left;
use super::options::EngineOptions;
use super::pages::{PAGE, PageCopy, PageGroup};
use crate::model::memory::LayerMemory;
use crate::{Model, Result};

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

impl Caches {
    /// Empty caches of the sizes of a plan.
    pub(super) fn new(
        (model, options): (&Model, &EngineOptions),
        sizes: &Sizes,
        plan: &Plan,
    ) -> Result<Self> {
        let specs = model.layer_specs(&options.kv)?;
        let layers = Layers {
            model,
            specs: &specs,
            options,
        };
        let sequences = options.sequences + plan.copies.unwrap_or(0);
        let device = model.device();
        let mut groups = Vec::new();
        for (size, pages) in sizes.groups.iter().zip(&plan.pages) {
            let shape = (options.sequences, options.context);
            let pages = PageGroup::new(size.window, shape, *pages);
            groups.push(Group::new(pages, layers.table(sequences)?));
        }
        let mut memory: Vec<LayerMemory> = Vec::new();
        let calibration = specs.iter().any(LayerKv::needs_calibration);
        let calibration = calibration.then(|| model.calibration()).transpose()?;
        for (index, layer) in model.config().layers.iter().enumerate() {
            let window = layers.window(layer);
            let group = sizes.groups.iter().position(|size| size.window == window);
            let group = group.filter(|_| layer.is_cached());
            let preparation = match calibration.filter(|_| specs[index].needs_calibration()) {
                Some(found) if layer.is_cached() => {
                    Some(found.layers[index].preparation(device, layer, &specs[index])?)
                }
                _ => None,
            };
            if let Some(group) = group {
                groups[group].layers.push(index);
            }
            let pages = group.map(|group| (plan.pages[group], &groups[group].table));
            memory.push(layers.memory(index, (sequences, pages), preparation)?);
        }
        Ok(Self {
            layers: memory,
            groups,
            copies: plan.copies,
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
            all.extend(slots_of_layer(&self.layers[*layer])?);
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
            pieces.extend(overlays_of_layer(layer, slot)?);
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

/// The pages of a layer: of each KV head's codes, or scales, `[slots, width]`.
fn slots_of_layer(layer: &LayerMemory) -> Result<Vec<Tensor>> {
    let mut all = Vec::new();
    let sides = layer.cache().into_iter().flat_map(sides);
    for tensor in sides.flat_map(|side| tensors(&side.rows)) {
        let [heads, slots, width] = [0, 1, 2].map(|dim| tensor.shape()[dim]);
        for head in 0..heads {
            all.push(tensor.rows(head..head + 1)?.reshape(&[slots, width])?);
        }
    }
    Ok(all)
}

/// What a slot has in a layer's overlays, or its state.
fn overlays_of_layer(layer: &LayerMemory, slot: usize) -> Result<Vec<Tensor>> {
    let cache = match layer {
        LayerMemory::Cache(cache) => cache,
        LayerMemory::State(state) => return state.slot(slot),
        LayerMemory::Shared => return Ok(Vec::new()),
    };
    let first = slot as u64 * cache.kv_heads();
    let overlays = sides(cache).filter_map(|side| side.overlay.as_ref());
    let of = |tensor: &Tensor| Ok(tensor.rows(first..first + cache.kv_heads())?);
    overlays.flat_map(tensors).map(of).collect()
}
