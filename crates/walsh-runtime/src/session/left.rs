//! What a text has left behind in its caches, piece by piece, as files have it.

use std::ops::Range;

use walsh::{Device, KeyPreparation, KvCache, KvRows, Tensor};

use crate::Result;
use crate::model::memory::LayerMemory;
use crate::pages::{PageGroup, heads};

/// The most bytes that pass through the host at a time, whole rows at least.
const PIECE_BYTES: u64 = 1 << 20;

/// Rows of a file that follow each other.
pub(super) enum Rows {
    /// Those of a tensor.
    Kept(Range<u64>),
    /// So many that nobody sees any more: zeros.
    Lost(u64),
}

/// A part of a file: a matrix in pieces of whole rows.
pub(super) struct Part(Vec<Piece>);

pub(super) enum Piece {
    Kept(Tensor),
    /// So many bytes that nobody needs.
    Lost(u64),
}

impl Part {
    pub(super) fn bytes(&self) -> u64 {
        self.0.iter().map(Piece::bytes).sum()
    }

    pub(super) fn pieces(&self) -> &[Piece] {
        &self.0
    }

    /// Rows of a matrix in their order.
    fn of(matrix: &Tensor, rows: &[Rows]) -> Result<Self> {
        let row_bytes = matrix.bytes().checked_div(matrix.shape()[0]).unwrap_or(0);
        let step = PIECE_BYTES.checked_div(row_bytes).unwrap_or(1).max(1);
        let mut pieces = Vec::new();
        for rows in rows {
            match rows {
                Rows::Lost(count) => pieces.push(Piece::Lost(count * row_bytes)),
                Rows::Kept(rows) => {
                    let mut start = rows.start;
                    while start < rows.end {
                        let end = rows.end.min(start + step);
                        pieces.push(Piece::Kept(matrix.rows(start..end)?));
                        start = end;
                    }
                }
            }
        }
        Ok(Self(pieces))
    }

    fn whole(matrix: &Tensor) -> Result<Self> {
        Self::of(matrix, &[Rows::Kept(0..matrix.shape()[0])])
    }
}

impl Piece {
    pub(super) fn bytes(&self) -> u64 {
        match self {
            Self::Kept(tensor) => tensor.bytes(),
            Self::Lost(bytes) => *bytes,
        }
    }

    /// Reads it into a buffer that takes its size.
    pub(super) fn read(&self, device: &Device, buffer: &mut Vec<u8>) -> Result<()> {
        buffer.clear();
        buffer.resize(self.bytes() as usize, 0);
        if let Self::Kept(tensor) = self {
            device.read_bytes(tensor, buffer)?;
        }
        Ok(())
    }

    /// Writes as many bytes as it has.
    pub(super) fn write(&self, device: &Device, bytes: &[u8]) -> Result<()> {
        if let Self::Kept(tensor) = self {
            device.write_bytes(tensor, bytes)?;
        }
        Ok(())
    }
}

/// Where a layer's positions lie in a file, and in a slot's pages.
///
/// A sliding layer has as many rows as positions are kept of it, `ring`: position p is row p mod ring. `reached` positions
/// have been there, so that those a ring before them are lost.
pub(super) fn rows_of_layer(
    (pages, slot): (&PageGroup, usize),
    (stored, reached): (usize, usize),
    ring: Option<usize>,
) -> Vec<Rows> {
    let lost = ring.map_or(0, |ring| reached.saturating_sub(ring));
    let order = match ring.filter(|ring| stored > *ring) {
        None => [0..stored, 0..0],
        Some(ring) => {
            let turn = stored - stored % ring;
            [turn..stored, stored - ring..turn]
        }
    };
    let mut rows = Vec::new();
    for Range { start, end } in order {
        let kept = lost.clamp(start, end);
        if start < kept {
            rows.push(Rows::Lost((kept - start) as u64));
        }
        if kept < end {
            let of = pages.rows_of(slot, &(kept..end));
            rows.extend(of.into_iter().map(Rows::Kept));
        }
    }
    rows
}

/// The parts of a layer that hold what was read, `stored` positions of which lie in these rows, in a fixed order; and what
/// keys were prepared with, which belongs to the codes. Of layers that keep a state, the state.
pub(super) fn parts_of_layer(
    memory: &LayerMemory,
    (stored, rows): (usize, &[Rows]),
) -> Result<Vec<Part>> {
    let LayerMemory::Cache(cache) = memory else {
        return left_of_layer(memory, stored)?
            .iter()
            .map(Part::whole)
            .collect();
    };
    let mut parts = Vec::new();
    let kept = overlay_slots(cache, stored);
    for side in [cache.key(), cache.value()] {
        for head in heads_of(&side.rows)? {
            parts.push(Part::of(&head, rows)?);
        }
        if let Some(overlay) = &side.overlay {
            for head in heads_of(overlay)? {
                parts.push(Part::whole(&head.rows(0..kept)?)?);
            }
        }
    }
    let KeyPreparation { equaliser, center } = cache.preparation();
    for tensor in equaliser.iter().chain(center) {
        parts.push(Part::whole(tensor)?);
    }
    Ok(parts)
}

/// What a text of so many positions has in a layer beside pages: in overlays, or its state.
pub(super) fn left_of_layer(memory: &LayerMemory, stored: usize) -> Result<Vec<Tensor>> {
    let cache = match memory {
        LayerMemory::Cache(cache) => cache,
        // Nothing has a state of its own.
        LayerMemory::State(_) if stored == 0 => return Ok(Vec::new()),
        LayerMemory::State(state) => return state.slot(0),
        LayerMemory::Shared => return Ok(Vec::new()),
    };
    let kept = overlay_slots(cache, stored);
    let mut left = Vec::new();
    let overlays = [cache.key(), cache.value()].map(|side| side.overlay.as_ref());
    for overlay in overlays.into_iter().flatten() {
        for head in heads_of(overlay)? {
            left.push(head.rows(0..kept)?);
        }
    }
    Ok(left)
}

/// The slots of an overlay, from the first on, that so many positions have been written to.
fn overlay_slots(cache: &KvCache, stored: usize) -> u64 {
    let overlay = cache.overlay();
    overlay.map_or(0, |overlay| overlay.used(stored as u64))
}

/// The rows of each head: of the codes, then of the scales.
fn heads_of(rows: &KvRows) -> Result<Vec<Tensor>> {
    heads(
        [Some(&rows.codes), rows.scales.as_ref()]
            .into_iter()
            .flatten()
            .cloned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What rows a file has: of each its position in 1000 and on, where pages lie in order, or less than that where lost.
    fn rows(stored: usize, reached: usize, ring: Option<usize>) -> Vec<u64> {
        let mut pages = PageGroup::new(ring, (1, 640), 10);
        pages.take(0, &(0..640));
        let rows = rows_of_layer((&pages, 0), (stored, reached), ring);
        let numbers = rows.into_iter().flat_map(|rows| match rows {
            Rows::Kept(rows) => 1000 + rows.start..1000 + rows.end,
            Rows::Lost(count) => 0..count,
        });
        numbers.collect()
    }

    #[test]
    fn a_layer_that_sees_all_has_its_positions_in_order() {
        let all: Vec<u64> = (1000..1150).collect();
        assert_eq!(rows(150, 150, None), all);
        assert_eq!(rows(150, 300, None), all);
        assert!(rows(0, 300, None).is_empty());
    }

    #[test]
    fn a_sliding_layer_has_its_latest_positions_by_turns() {
        let of = |position: u64| 1000 + position;
        assert_eq!(rows(3, 3, Some(5)), [0, 1, 2].map(of));
        assert_eq!(rows(5, 5, Some(5)), [0, 1, 2, 3, 4].map(of));
        assert_eq!(rows(7, 7, Some(5)), [5, 6, 2, 3, 4].map(of));
        // Of eight that were there the first three are gone.
        assert_eq!(rows(7, 8, Some(5)), [1005, 1006, 0, 1003, 1004]);
        assert_eq!(rows(4, 8, Some(5)), [0, 1, 2, 1003]);
        assert_eq!(rows(2, 8, Some(5)), [0, 1]);
    }
}
