//! The zones of positions, and which of them queries see.
//!
//! Positions lie in *zones*: the first and the most recent ones where the cache has an overlay, the others in between,
//! and a chunk's own. Each query sees a range of positions of each zone.

use std::ops::Range;

use super::job::{Block, Job, Run, Side};
use super::shape::TILE;
use crate::kv::codec::Decoder;
use crate::kv::codec::numbers::Rows;
use crate::kv::pages::PAGE;

/// Where positions are read from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Zone {
    /// The overlay's first tokens.
    First,
    /// The codes.
    Codes,
    /// The overlay's most recent tokens.
    Recent,
    /// The chunk's own keys and values.
    Fresh,
}

/// The zones of a cache, in the order in which they are passed.
pub(super) const CACHED: [Zone; 3] = [Zone::First, Zone::Codes, Zone::Recent];

impl Zone {
    /// The positions of the zone for a query at a position.
    fn positions(self, job: &Job, query: usize) -> Range<usize> {
        let first = job.overlay.first;
        let recent = (query + 1).saturating_sub(job.overlay.recent).max(first);
        match self {
            Zone::First => 0..first,
            Zone::Codes => first..recent,
            Zone::Recent => recent..query + 1,
            Zone::Fresh => 0..query + 1,
        }
    }

    /// The positions that a query sees of those that exist.
    pub(super) fn visible(self, job: &Job, query: usize, existing: &Range<usize>) -> Range<usize> {
        let zone = self.positions(job, query);
        let first = (query + 1).saturating_sub(job.window);
        let first = first.max(existing.start).max(zone.start);
        first..(query + 1).min(existing.end).min(zone.end)
    }

    /// The positions that some query of a block sees.
    pub(super) fn seen(self, job: &Job, block: &Block, existing: &Range<usize>) -> Range<usize> {
        if self == Zone::Recent && job.overlay.recent == 0 {
            // What each query sees is empty, but between what the first and the last see lie the block's own positions.
            return 0..0;
        }
        let (first, last) = block.positions();
        self.visible(job, first, existing).start..self.visible(job, last, existing).end
    }

    /// The cached positions of a part that some query of a block sees.
    pub(super) fn seen_of_part(
        self,
        job: &Job,
        block: &Block,
        part: &Range<usize>,
    ) -> Range<usize> {
        let seen = self.seen(job, block, &cached(job, block));
        seen.start.max(part.start)..seen.end.min(part.end)
    }
}

/// The positions that the cache holds of a block's sequence: a ring's last `capacity`.
pub(super) fn cached(job: &Job, block: &Block) -> Range<usize> {
    let end = job.cached_end(block);
    end.saturating_sub(job.shape.capacity)..end
}

/// The cached positions that some query of a block sees.
pub(super) fn seen(job: &Job, block: &Block) -> Range<usize> {
    let existing = cached(job, block);
    let (first, last) = block.positions();
    let first = (first + 1).saturating_sub(job.window).max(existing.start);
    first..(last + 1).min(existing.end)
}

/// Those that the block's part covers.
pub(super) fn cached_part(job: &Job, block: &Block) -> Range<usize> {
    let Range { start, end } = seen(job, block);
    if block.parts == 1 || start >= end {
        return start..end;
    }
    let tiles = (end - start).div_ceil(TILE).div_ceil(block.parts);
    let first = start + block.part * tiles * TILE;
    first..(first + tiles * TILE).min(end)
}

impl Side {
    /// Up to `most` rows of a block's zone from a position on: those that follow each other where they lie.
    pub(super) fn rows<'a>(
        &'a self,
        run: Run<'a>,
        block: &Block,
        (zone, position): (Zone, usize),
        most: usize,
    ) -> (&'a Decoder, Rows<'a>) {
        let of_sequence = block.sequence * run.shape.kv_heads + block.kv_head;
        let (stored, head, slot, follow) = match (&self.overlay, zone) {
            (Some(overlay), Zone::First) => {
                let follow = run.overlay.first - position;
                (overlay, of_sequence, position, follow)
            }
            (Some(overlay), Zone::Recent) => {
                let slot = position % run.overlay.ring;
                let follow = run.overlay.ring - slot;
                (overlay, of_sequence, run.overlay.first + slot, follow)
            }
            _ => match run.slot(block.sequence, position) {
                // Pages that happen to follow each other are taken one by one too, so that sums do not depend on it.
                Some(slot) => (&self.stored, block.kv_head, slot, PAGE - slot % PAGE),
                None => {
                    let slot = position % run.shape.capacity;
                    let follow = run.shape.capacity - slot;
                    (&self.stored, of_sequence, slot, follow)
                }
            },
        };
        let rows = run.rows(stored, (head, slot), most.min(follow));
        (&stored.decoder, rows)
    }
    /// The rows of a tile of bytes that begins at a position of the codes. In pages it ends at a multiple of its length,
    /// which is two pages at most: where those do not follow each other, their rows are copied to `room`, so that sums do
    /// not depend on it.
    pub(super) fn tile<'a>(
        &'a self,
        run: Run<'a>,
        block: &Block,
        (position, most): (usize, usize),
        room: &'a mut [u8],
    ) -> Rows<'a> {
        let rows = |position, most| self.rows(run, block, (Zone::Codes, position), most).1;
        let Some(slot) = run.slot(block.sequence, position) else {
            return rows(position, most);
        };
        let tile = run.shape.byte_tile();
        let most = most.min(tile - position % tile);
        let first = rows(position, most);
        let (count, behind) = (first.count(), position + first.count());
        if count == most {
            return first;
        }
        match run.slot(block.sequence, behind) {
            Some(next) if next == slot + count => {
                run.rows(&self.stored, (block.kv_head, slot), most)
            }
            _ => first.join(rows(behind, most - count), room),
        }
    }
}
