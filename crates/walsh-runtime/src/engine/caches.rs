//! The caches of an engine: pages of all layers, what its slots have beside them, and copies of that.

mod resize;
mod sizes;

use std::ops::Range;

use walsh::{Device, Tensor};

pub(super) use self::resize::Moves;
pub(super) use self::sizes::{Plan, Sizes};
use super::left::Left;
use super::options::EngineOptions;
use crate::pages::{Pool, Texts};
use crate::{Model, Result};

/// The caches of all layers.
pub(super) struct Caches {
    pub(super) pool: Pool,
    /// Those of all slots, and copies behind them, which have no pages.
    pub(super) texts: Texts,
    /// How many copies there is room for of what a slot has in overlays and states; `None` where there is neither.
    pub(super) copies: Option<usize>,
    slots: usize,
}

impl Caches {
    /// Empty caches of the sizes of a plan.
    pub(super) fn new((model, options): (&Model, &EngineOptions), plan: &Plan) -> Result<Self> {
        let slots = options.sequences;
        let pages = |group: usize, _: &_| plan.pages[group];
        let pool = Pool::new((model, &options.of_each()), slots, &pages)?;
        let count = slots + plan.copies.unwrap_or(0);
        Ok(Self {
            texts: Texts::new(&pool, count, count)?,
            pool,
            copies: plan.copies,
            slots,
        })
    }

    /// Makes a copy of what a slot has in overlays and states.
    pub(super) fn save_overlay(&self, device: &Device, slot: usize, copy: usize) -> Result<()> {
        self.copy_overlay(device, slot, self.slots + copy)
    }

    /// Gives a slot what a copy has.
    pub(super) fn load_overlay(&self, device: &Device, copy: usize, slot: usize) -> Result<()> {
        self.copy_overlay(device, self.slots + copy, slot)
    }

    /// Reads what a call has left behind in a slot.
    pub(super) fn read(
        &self,
        device: &Device,
        slot: usize,
        positions: &Range<usize>,
    ) -> Result<Left> {
        Ok(Left {
            pages: self.read_all(device, &self.pool.stored(slot, positions)?)?,
            overlays: self.read_all(device, &self.texts.overlays(slot)?)?,
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

    /// What a copy has of overlays.
    pub(super) fn overlays_of_copy(&self, copy: usize) -> Result<Vec<Tensor>> {
        self.texts.overlays(self.slots + copy)
    }

    /// The bytes of what a slot, or a copy, has in overlays.
    pub(super) fn overlay_bytes(&self, slot: usize) -> Result<usize> {
        Ok(total(&self.texts.overlays(slot)?))
    }

    /// Gives a slot what a call has left behind, read by `read`, which is told how many bytes of pages and of overlays it is;
    /// whether there was something.
    pub(super) fn write(
        &self,
        device: &Device,
        (slot, positions): (usize, &Range<usize>),
        read: &dyn Fn((usize, usize)) -> Option<Left>,
    ) -> Result<bool> {
        let pages = self.pool.stored(slot, positions)?;
        let overlays = self.texts.overlays(slot)?;
        let Some(left) = read((total(&pages), total(&overlays))) else {
            return Ok(false);
        };
        self.write_all(device, pages, &left.pages)?;
        self.write_all(device, overlays, &left.overlays)?;
        Ok(true)
    }

    fn copy_overlay(&self, device: &Device, from: usize, to: usize) -> Result<()> {
        let (from, to) = (self.texts.overlays(from)?, self.texts.overlays(to)?);
        for (from, to) in from.iter().zip(&to) {
            device.copy(from, to)?;
        }
        Ok(())
    }

    /// Brings the tables on the device up to date.
    pub(super) fn write_tables(&mut self) -> Result<()> {
        self.texts.write_tables(&mut self.pool, 0..self.slots)
    }
}

/// The bytes of some pieces.
fn total(pieces: &[Tensor]) -> usize {
    pieces.iter().map(|piece| piece.bytes() as usize).sum()
}
