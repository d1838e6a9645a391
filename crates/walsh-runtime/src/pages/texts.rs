//! What texts have beside pages.

use std::ops::Range;

use walsh::{DType, KvCache, KvSide, KvSideTensors, KvTensors, Tensor};

use super::pool::{self, Group, Pool};
use crate::Result;
use crate::model::memory::{LayerMemory, LayerState};

/// What layers remember of a number of texts: over the pages of a pool, their own page tables, overlays and states.
pub(crate) struct Texts {
    /// Of each layer.
    pub(crate) layers: Vec<LayerMemory>,
    /// Of each group, `i32 [texts, entries]`.
    tables: Vec<Tensor>,
    /// How many texts.
    count: usize,
}

impl Texts {
    /// Empty ones; of states there are as many slots as `states` says.
    pub(crate) fn new(pool: &Pool, count: usize, states: usize) -> Result<Self> {
        let mut texts = Self {
            layers: Vec::new(),
            tables: tables(pool, count)?,
            count,
        };
        for index in 0..pool.model().config().layers.len() {
            let layer = texts.layer(pool, index, states)?;
            texts.layers.push(layer);
        }
        Ok(texts)
    }

    /// What a layer remembers of texts that have none of its overlays or states yet.
    fn layer(&self, pool: &Pool, index: usize, states: usize) -> Result<LayerMemory> {
        let config = pool.model().config();
        let layer = &config.layers[index];
        if let Some(recurrent) = config.recurrent.filter(|_| layer.recurrent) {
            let state = LayerState::new(pool.device(), &recurrent, states)?;
            return Ok(LayerMemory::State(state));
        }
        let options = pool.layers().cache(index, (self.count, 1));
        let overlay = |codec| {
            let Some(overlay) = options.overlay else {
                return Ok(None);
            };
            let kept = overlay.tokens.side(codec, layer.head_dim);
            let shape = [options.sequences * options.kv_heads, overlay.slots()];
            let kept = kept.map(|kept| pool::empty(pool.device(), (kept, layer.head_dim), shape));
            kept.transpose()
        };
        let codecs = options.codecs;
        let overlays = match layer.shares {
            Some(_) => [None, None],
            None => [overlay(codecs.key)?, overlay(codecs.value)?],
        };
        self.over(pool, index, overlays)
    }

    /// The cache of a layer over the pool's pages, where it has some.
    fn over(
        &self,
        pool: &Pool,
        index: usize,
        overlays: [Option<KvTensors>; 2],
    ) -> Result<LayerMemory> {
        let (Some(rows), Some(group)) = (pool.rows(index), pool.group_of(index)) else {
            return Ok(LayerMemory::Shared);
        };
        let [key, value] = overlays;
        let [keys, values] = rows.sides.clone();
        let side = |rows, overlay| KvSideTensors { rows, overlay };
        let options = pool.layers().cache(index, (self.count, rows.pages));
        let cache = KvCache::from_tensors(options, [side(keys, key), side(values, value)])?;
        let cache = cache.with_table(self.tables[group].clone())?;
        let cache = cache.with_preparation(pool.preparation(index).clone())?;
        Ok(cache.into())
    }

    /// Finds the pages of a layer where the pool has laid them out.
    pub(crate) fn follow(&mut self, pool: &Pool, index: usize) -> Result<()> {
        let Some(cache) = self.layers[index].cache() else {
            return Ok(());
        };
        let overlay = |side: &KvSide| {
            let overlay = side.overlay.as_ref();
            overlay.map(|rows| KvTensors {
                codes: rows.codes.clone(),
                scales: rows.scales.clone(),
            })
        };
        let overlays = [cache.key(), cache.value()].map(overlay);
        self.layers[index] = self.over(pool, index, overlays)?;
        Ok(())
    }

    /// Makes it so many texts, with tables that say nothing yet. Layers are of as many as before until each is
    /// [moved](Self::move_layer).
    pub(crate) fn resize(&mut self, pool: &Pool, count: usize) -> Result<()> {
        self.tables = tables(pool, count)?;
        self.count = count;
        Ok(())
    }

    /// Gives a layer overlays and states for as many texts as there are now, with those of `moves`: from where, and where to.
    pub(crate) fn move_layer(
        &mut self,
        pool: &Pool,
        index: usize,
        moves: &[(usize, usize)],
    ) -> Result<()> {
        let after = self.layer(pool, index, self.count)?;
        for (from, to) in moves {
            let from = overlays_of_layer(&self.layers[index], *from)?;
            for (from, to) in from.iter().zip(overlays_of_layer(&after, *to)?) {
                pool.device().copy(from, &to)?;
            }
        }
        self.layers[index] = after;
        Ok(())
    }

    /// What a text has in overlays, and its state.
    pub(crate) fn overlays(&self, text: usize) -> Result<Vec<Tensor>> {
        let mut pieces = Vec::new();
        for layer in &self.layers {
            pieces.extend(overlays_of_layer(layer, text)?);
        }
        Ok(pieces)
    }

    /// Brings the tables on the device up to date: the texts are those in these slots of the pool.
    pub(crate) fn write_tables(&self, pool: &mut Pool, slots: Range<usize>) -> Result<()> {
        let device = pool.device().clone();
        for (Group { pages, .. }, table) in pool.groups.iter_mut().zip(&self.tables) {
            for (slot, row) in pages.changes(slots.clone()) {
                let text = (slot - slots.start) as u64;
                device.write(&table.rows(text..text + 1)?, row)?;
            }
        }
        Ok(())
    }
}

/// Empty tables of pages for so many texts.
fn tables(pool: &Pool, count: usize) -> Result<Vec<Tensor>> {
    let shape = [count as u64, pool.entries() as u64];
    let table = |_: &Group| Ok(pool.device().zeros(DType::I32, &shape)?);
    pool.groups.iter().map(table).collect()
}

/// What a text has in a layer's overlays, or its state.
fn overlays_of_layer(layer: &LayerMemory, text: usize) -> Result<Vec<Tensor>> {
    let cache = match layer {
        LayerMemory::Cache(cache) => cache,
        LayerMemory::State(state) => return state.slot(text),
        LayerMemory::Shared => return Ok(Vec::new()),
    };
    let first = text as u64 * cache.kv_heads();
    let overlays = [cache.key(), cache.value()];
    let overlays = overlays.iter().filter_map(|side| side.overlay.as_ref());
    let tensors = overlays.flat_map(|rows| std::iter::once(&rows.codes).chain(&rows.scales));
    let of = |tensor: &Tensor| Ok(tensor.rows(first..first + cache.kv_heads())?);
    tensors.map(of).collect()
}
