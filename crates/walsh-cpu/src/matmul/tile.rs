//! Register-tiled products of many rows of activations.
//!
//! A *panel* is a few weight rows, one to a vector lane, over a piece of K: quads of codes, interleaved so that one
//! vector holds four consecutive codes of every row, and each run's scales and minima as vectors. A panel is decoded
//! into the worker's scratch once and then swept by tiles of activations, whose values are broadcast. Sums over a piece
//! stay in registers; sums over all of K lie in scratch until the item is finished.

use std::marker::PhantomData;
use std::ops::Range;

use super::blocks::{Decode, Decoded, Decoders};
use super::contract::Job;
use super::float::Float;
use super::kernel::Body;
use super::layout::{Arrangement, BLOCK, BlockQ8, Tiles};
use super::sweep::{Sweep, sweep_codes, sweep_floats};
use crate::simd::{Primitives, Products, Register};

/// The most values of K that a panel covers: panel and tile stay in the first-level cache.
const PIECE: usize = 768;

/// Pieces are a multiple of it: the largest block.
const UNIT: usize = 256;

/// The most panels of one work item.
pub(super) const PANELS: usize = 4;

/// The most values of K that a panel of floats covers: a multiple of the largest block.
const FLOAT_PIECE: usize = 256;

/// Where a part of a row is decoded to, with room for the next multiple of 64 values.
pub(super) struct Staged<'a> {
    pub(super) codes: &'a mut [u8],
    pub(super) scales: &'a mut [f32],
    pub(super) mins: &'a mut [f32],
}

/// How the panels of a set of products are filled from rows as a file has them.
pub(super) trait Stage: Products {
    /// Decodes some blocks.
    #[inline(always)]
    fn stage<B: Decoders>(self, blocks: &[B], to: Staged<'_>) {
        stage_plainly(self.set(), blocks, to);
    }
}

/// [`Stage::stage`] by the plain decoders, as vectorised for the caller's instruction set.
#[inline(always)]
pub(super) fn stage_plainly<B: Decode>(p: impl Primitives, blocks: &[B], to: Staged<'_>) {
    let runs = B::LEN / B::RUN;
    let codes = to.codes.chunks_exact_mut(B::LEN);
    let floats = to
        .scales
        .chunks_exact_mut(runs)
        .zip(to.mins.chunks_exact_mut(runs));
    for ((block, codes), (scales, mins)) in blocks.iter().zip(codes).zip(floats) {
        block.decode(
            p,
            Decoded {
                codes,
                scales,
                mins,
            },
        );
    }
}

/// The bytes of one block of a panel.
pub(super) const fn panel_block(lanes: usize, run: usize) -> usize {
    lanes * BLOCK + 2 * (BLOCK / run) * lanes * 4
}

/// Where things lie in the scratch memory of an item.
struct Space {
    /// The row-major codes and scales that a panel is made from.
    staging: usize,
    panel: usize,
    sums: usize,
}

impl Space {
    /// The offsets of the parts are 0, `staging` and `staging + PANELS · panel`.
    const fn new(lanes: usize, rows: usize) -> Space {
        let quantised = lanes * (PIECE + 2 * 4 * PIECE / 16);
        let floats = lanes * FLOAT_PIECE * 4;
        let panel = PIECE / BLOCK * panel_block(lanes, 16);
        Space {
            staging: if quantised > floats {
                quantised
            } else {
                floats
            },
            panel: if panel > floats { panel } else { floats },
            sums: rows * PANELS * lanes * 4,
        }
    }

    const fn bytes(&self) -> usize {
        self.staging + PANELS * self.panel + self.sums
    }
}

/// The scratch bytes of an item of `rows` rows of activations.
pub(super) fn scratch_bytes(lanes: usize, rows: usize) -> usize {
    Space::new(lanes, rows).bytes()
}

/// The item that a product function works on, with its place in scratch.
pub(super) struct Item<'a> {
    pub(super) job: &'a Job<'a>,
    pub(super) tiles: Tiles,
    /// The rows of the item's tiles.
    pub(super) rows: Range<usize>,
    pub(super) panels: usize,
    lanes: usize,
    staging: &'a mut [u8],
    /// The panels, `panel_bytes` each.
    panel: &'a mut [u8],
    panel_bytes: usize,
    /// For each row the sums with the item's panels, `stride` floats.
    pub(super) sums: &'a mut [f32],
}

impl<'a> Item<'a> {
    #[inline(always)]
    pub(super) fn new(job: &'a Job<'a>, lanes: usize, scratch: &'a mut [u8]) -> Item<'a> {
        let (Arrangement::Tiles(tiles) | Arrangement::FloatTiles(tiles)) = job.arrangement else {
            unreachable!("tiled products are planned with tiles");
        };
        let rows = tiles.start(job.tiles.start)..tiles.start(job.tiles.end);
        let space = Space::new(lanes, rows.len());
        let panels = job.columns.len().div_ceil(lanes);
        assert!(panels <= PANELS);
        let (staging, rest) = scratch[..space.bytes()].split_at_mut(space.staging);
        let (panel, sums) = rest.split_at_mut(PANELS * space.panel);
        Item {
            job,
            tiles,
            rows,
            panels,
            lanes,
            staging,
            panel,
            panel_bytes: space.panel,
            sums: bytemuck::cast_slice_mut(sums),
        }
    }

    /// Sweeps every panel by every tile of the item. `row_bytes` are those of a tile's row and step.
    #[inline(always)]
    fn sweep_all(
        &mut self,
        steps: Range<usize>,
        (input, row_bytes): (&[u8], usize),
        sweep: impl Fn(usize, &mut Sweep<'_>),
    ) {
        let all_steps = if row_bytes == size_of::<BlockQ8>() {
            self.job.shape.k / BLOCK
        } else {
            self.job.shape.k
        };
        let stride = self.stride();
        for tile in self.job.tiles.clone() {
            let rows = self.tiles.rows(tile);
            // A row of a tile takes `row_bytes` for each step, so that tiles lie where their first row says.
            let offset = (rows.start * all_steps + rows.len() * steps.start) * row_bytes;
            let tile = &input[offset..][..rows.len() * steps.len() * row_bytes];
            for panel in 0..self.panels {
                let first_sum = (rows.start - self.rows.start) * stride + panel * self.lanes;
                sweep(
                    rows.len(),
                    &mut Sweep {
                        panel: &self.panel[panel * self.panel_bytes..][..self.panel_bytes],
                        tile,
                        steps: steps.len(),
                        sums: &mut self.sums[first_sum..],
                        stride,
                        first: steps.start == 0,
                    },
                );
            }
        }
    }

    /// Where a panel is decoded to.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    pub(super) fn panel(&mut self, panel: usize) -> &mut [u8] {
        &mut self.panel[panel * self.panel_bytes..][..self.panel_bytes]
    }

    /// How many sums a row has.
    #[inline(always)]
    pub(super) fn stride(&self) -> usize {
        self.panels * self.lanes
    }

    /// The weight rows of a panel.
    #[inline(always)]
    pub(super) fn panel_rows(&self, panel: usize) -> Range<usize> {
        let start = self.job.columns.start + panel * self.lanes;
        start..(start + self.lanes).min(self.job.columns.end)
    }

    /// Writes the sums to the output, when all of K has been swept.
    #[inline(always)]
    pub(super) fn finish(&self) {
        let columns = self.job.columns.clone();
        for (row, sums) in self.rows.clone().zip(self.sums.chunks_exact(self.stride())) {
            self.job.put_all(row, columns.start, &sums[..columns.len()]);
        }
    }
}

/// Divides `0..k` into pieces of at most `most` values, all but the last a multiple of `unit`.
#[inline(always)]
pub(super) fn pieces(k: usize, unit: usize, most: usize) -> impl Iterator<Item = Range<usize>> {
    let units = k.div_ceil(unit);
    let count = k.div_ceil(most);
    (0..count).map(move |piece| {
        let start = piece * units / count * unit;
        start..((piece + 1) * units / count * unit).min(k)
    })
}

/// How an item's panels are filled: from what form of the weight.
pub(super) trait Fill<P, B> {
    /// Decodes a piece of some weight rows into a panel. Lanes without a row keep whatever was in them: their sums are
    /// never read.
    fn fill(p: P, item: &mut Item<'_>, panel: usize, values: Range<usize>);
}

/// The kernel for block-quantised weights, whose panels `F` fills, with at most `MOST` rows in a tile.
pub(super) struct Tiled<F, B, const MOST: usize>(PhantomData<(F, B)>);

impl<P: Products, F: Fill<P, B>, B: Decode, const MOST: usize> Body<P> for Tiled<F, B, MOST> {
    #[inline(always)]
    fn product(p: P, job: &Job<'_>, scratch: &mut [u8]) {
        let mut item = Item::new(job, P::Set::LANES, scratch);
        let input = (
            bytemuck::cast_slice(job.tile_blocks()),
            size_of::<BlockQ8>(),
        );
        for values in pieces(job.shape.k, UNIT, PIECE) {
            for panel in 0..item.panels {
                F::fill(p, &mut item, panel, values.clone());
            }
            let steps = values.start / BLOCK..values.end / BLOCK;
            item.sweep_all(steps, input, |rows, sweep| {
                sweep_codes::<P, B, MOST>(p, rows, sweep);
            });
        }
        item.finish();
    }
}

/// Filling from rows as a file has them.
pub(super) struct FromRows;

impl<P: Stage, B: Decoders> Fill<P, B> for FromRows {
    #[inline(always)]
    fn fill(p: P, item: &mut Item<'_>, panel: usize, values: Range<usize>) {
        const RUNS: usize = PIECE / 16;
        let lanes = P::Set::LANES;
        let rows = item.panel_rows(panel);
        let (codes, floats) = item.staging.split_at_mut(lanes * PIECE);
        let floats = &mut floats[..2 * lanes * RUNS * size_of::<f32>()];
        let (scales, mins) = floats.split_at_mut(lanes * RUNS * size_of::<f32>());
        for (lane, row) in rows.enumerate() {
            let part = lane * RUNS * size_of::<f32>()..(lane + 1) * RUNS * size_of::<f32>();
            let to = Staged {
                codes: &mut codes[lane * PIECE..][..PIECE],
                scales: bytemuck::cast_slice_mut(&mut scales[part.clone()]),
                mins: bytemuck::cast_slice_mut(&mut mins[part]),
            };
            let blocks = item.job.blocks::<B>(row);
            p.stage(&blocks[values.start / B::LEN..values.end / B::LEN], to);
        }
        // The panel holds so many bytes for each block: 8 columns of quads, then each run's scales and minima.
        let bytes = panel_block(lanes, B::RUN);
        let runs = BLOCK / B::RUN;
        let panel = &mut item.panel[panel * item.panel_bytes..][..item.panel_bytes];
        let from = Staging {
            rows: codes,
            stride: PIECE,
        };
        from.transpose(
            p.set(),
            values.len() / 4,
            (panel, |column| column / 8 * bytes + column % 8 * lanes * 4),
        );
        for (min, floats) in [scales, mins].into_iter().enumerate() {
            let from = Staging {
                rows: floats,
                stride: 4 * RUNS,
            };
            from.transpose(
                p.set(),
                values.len() / B::RUN,
                (panel, |run| {
                    let block = run / runs * bytes + lanes * BLOCK;
                    block + (run % runs * 2 + min) * lanes * 4
                }),
            );
        }
    }
}

/// As many rows of 32-bit words as a register has lanes.
struct Staging<'a> {
    rows: &'a [u8],
    /// The bytes of a row.
    stride: usize,
}

impl Staging<'_> {
    /// Transposes so many words of the rows: those at `i` go to the register's bytes from `place(i)` on.
    #[inline(always)]
    fn transpose<S: Register>(
        &self,
        s: S,
        words: usize,
        (to, place): (&mut [u8], impl Fn(usize) -> usize),
    ) {
        // Words are read four by four.
        assert!(4 * words.next_multiple_of(4) <= self.stride);
        let rows = self.rows[..S::LANES * self.stride].as_ptr();
        for word in (0..words).step_by(4) {
            // SAFETY: the rows have four words from this one on.
            let columns = unsafe { s.columns(|row| rows.add(row * self.stride + 4 * word)) };
            for (i, column) in columns.into_iter().enumerate() {
                if word + i < words {
                    let to = &mut to[place(word + i)..][..4 * S::LANES];
                    // SAFETY: room for a register.
                    unsafe { s.store_words(to.as_mut_ptr(), column) };
                }
            }
        }
    }
}

/// The kernel for floats: for weights that are, or are decoded to them.
pub(super) struct FloatTiled<F, const MOST: usize>(PhantomData<F>);

impl<P: Products, F: Float<P::Set>, const MOST: usize> Body<P> for FloatTiled<F, MOST> {
    #[inline(always)]
    fn product(p: P, job: &Job<'_>, scratch: &mut [u8]) {
        let (s, lanes) = (p.set(), P::Set::LANES);
        let mut item = Item::new(job, lanes, scratch);
        let input = (bytemuck::cast_slice(job.floats()), size_of::<f32>());
        for values in pieces(job.shape.k, F::UNIT.max(4), FLOAT_PIECE) {
            for panel in 0..item.panels {
                let rows = item.panel_rows(panel);
                let staging: &mut [f32] = bytemuck::cast_slice_mut(item.staging);
                for (row, floats) in rows.zip(staging.chunks_exact_mut(FLOAT_PIECE)) {
                    let weights = job.weight_row(row);
                    F::load_all(s, weights, values.start, &mut floats[..values.len()]);
                }
                let to = &mut item.panel[panel * item.panel_bytes..][..item.panel_bytes];
                let from = Staging {
                    rows: item.staging,
                    stride: 4 * FLOAT_PIECE,
                };
                from.transpose(s, values.len(), (to, |column| column * lanes * 4));
            }
            item.sweep_all(values, input, |rows, sweep| {
                sweep_floats::<P, MOST>(p, rows, sweep);
            });
        }
        item.finish();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_k() {
        for k in [1, 31, 32, 256, 576, 768, 800, 4096, 14336, 14368] {
            let all: Vec<_> = pieces(k, UNIT, PIECE).collect();
            assert_eq!((all[0].start, all[all.len() - 1].end), (0, k));
            assert!(
                all.windows(2)
                    .all(|pair| pair[0].end == pair[1].start && pair[0].end % UNIT == 0)
            );
            assert!(
                all.iter()
                    .all(|piece| piece.len() <= PIECE && !piece.is_empty()),
                "{all:?}"
            );
        }
    }
}
