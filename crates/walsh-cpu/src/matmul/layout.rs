//! Where quantised activations lie in a prepared input, and the rows of a panel of weights.

use std::ops::Range;

use bytemuck::{Pod, Zeroable};

/// The values that share one scale.
pub(super) const BLOCK: usize = 32;

/// Rows of quantised activations are padded with zeros to this many values.
pub(super) const GROUP: usize = 256;

/// A block of a row of a tile.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct BlockQ8 {
    /// The codes, four to a number.
    pub(super) quads: [i32; BLOCK / 4],
    /// What a code of one stands for.
    pub(super) scale: f32,
    /// The negated sums of the codes: of the block, of its first half and of its second.
    pub(super) sums: [i32; 3],
}

impl BlockQ8 {
    /// What a code stands for.
    pub(super) fn value(&self, index: usize) -> f32 {
        let codes: [i8; BLOCK] = bytemuck::cast(self.quads);
        f32::from(codes[index]) * self.scale
    }

    /// The sum of the squares of what the codes stand for.
    pub(super) fn squares(&self) -> f64 {
        let codes: [i8; BLOCK] = bytemuck::cast(self.quads);
        let squares: i32 = codes.iter().map(|&code| i32::from(code).pow(2)).sum();
        f64::from(squares) * f64::from(self.scale).powi(2)
    }

    /// Which of the sums is that of a run, of `values` values, of the block.
    #[inline(always)]
    pub(super) const fn sum_of(values: usize, run: usize) -> usize {
        if values == BLOCK { 0 } else { 1 + run }
    }
}

/// The weight rows of a panel of packed weights.
pub(super) const LANES: usize = 16;

/// The values of a row of the input that one work item prepares.
pub(super) const CHUNK: usize = 2048;

/// Where a row's parts lie: 256 codes, and for each group of 256 values
/// - 8 scales and 8 sums (each sum times its scale), for weights with runs of 32;
/// - 16 scales and 16 sums, for weights with runs of 16.
///
/// Each part is contiguous along the row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RowParts {
    pub(super) groups: usize,
}

impl RowParts {
    pub(super) const fn new(k: usize) -> RowParts {
        RowParts {
            groups: k.div_ceil(GROUP),
        }
    }

    /// The offset of the scales and sums for runs of 32, 16 floats for each group.
    pub(super) const fn runs_of_32(self) -> usize {
        self.groups * GROUP
    }

    /// The offset of the scales and sums for runs of 16, 32 floats for each group.
    pub(super) const fn runs_of_16(self) -> usize {
        self.runs_of_32() + self.groups * 64
    }

    /// The bytes of a row.
    pub(super) const fn stride(self) -> usize {
        self.runs_of_16() + self.groups * 128
    }
}

/// The rows of each tile: as equal as can be, the larger ones first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Tiles {
    count: usize,
    rows: usize,
}

impl Tiles {
    /// Divides `rows` rows into tiles of at most `max` rows.
    pub(super) fn new(rows: usize, max: usize) -> Tiles {
        Tiles {
            count: rows.div_ceil(max),
            rows,
        }
    }

    pub(super) fn count(self) -> usize {
        self.count
    }

    /// The first row of a tile; for `tile == count()` the number of rows.
    #[inline]
    pub(super) fn start(self, tile: usize) -> usize {
        let (each, larger) = (self.rows / self.count, self.rows % self.count);
        tile * each + tile.min(larger)
    }

    /// The rows of the largest tile.
    pub(super) fn most(self) -> usize {
        self.rows.div_ceil(self.count)
    }

    #[inline]
    pub(super) fn rows(self, tile: usize) -> Range<usize> {
        self.start(tile)..self.start(tile + 1)
    }
}

/// How prepared activations are arranged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Arrangement {
    /// The input itself.
    Plain,
    /// Quantised rows, as [`RowParts`] says.
    Rows,
    /// Quantised tiles: for each block of 32 values a [`BlockQ8`] of every row.
    Tiles(Tiles),
    /// Tiles of floats: `[k][rows]`.
    FloatTiles(Tiles),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_cover_the_rows_evenly() {
        for rows in 1..100 {
            let tiles = Tiles::new(rows, 12);
            assert_eq!((tiles.start(0), tiles.start(tiles.count())), (0, rows));
            let sizes: Vec<_> = (0..tiles.count())
                .map(|tile| tiles.rows(tile).len())
                .collect();
            assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1);
            assert!(sizes.iter().all(|&size| (1..=12).contains(&size)));
        }
    }
}
