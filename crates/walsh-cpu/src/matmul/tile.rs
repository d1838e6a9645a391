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
pub(super) struct Staged {
    pub(super) codes: *mut u8,
    pub(super) scales: *mut f32,
    pub(super) mins: *mut f32,
}

/// How the panels of a set of products are filled from rows as a file has them.
pub(super) trait Stage: Products {
    /// Decodes `values` values from the block `blocks` on.
    ///
    /// # Safety
    /// The blocks are readable, and the destination has room.
    #[inline(always)]
    unsafe fn stage<B: Decoders>(self, blocks: *const B, values: usize, to: Staged) {
        // SAFETY: the caller's.
        unsafe { stage_plainly(self.set(), blocks, values, to) }
    }
}

/// [`Stage::stage`] by the plain decoders, as vectorised for the caller's instruction set.
///
/// # Safety
/// As there.
#[inline(always)]
pub(super) unsafe fn stage_plainly<B: Decode>(
    p: impl Primitives,
    blocks: *const B,
    values: usize,
    to: Staged,
) {
    let runs = B::LEN / B::RUN;
    for block in 0..values / B::LEN {
        // SAFETY: the caller's.
        unsafe {
            let out = Decoded {
                codes: std::slice::from_raw_parts_mut(to.codes.add(block * B::LEN), B::LEN),
                scales: std::slice::from_raw_parts_mut(to.scales.add(block * runs), runs),
                mins: std::slice::from_raw_parts_mut(to.mins.add(block * runs), runs),
            };
            (*blocks.add(block)).decode(p, out);
        }
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
    pub(super) job: &'a Job,
    pub(super) tiles: Tiles,
    /// The rows of the item's tiles.
    pub(super) rows: Range<usize>,
    pub(super) panels: usize,
    lanes: usize,
    staging: *mut u8,
    panel: *mut u8,
    panel_bytes: usize,
    /// For each row the sums with the item's panels, `stride` floats.
    pub(super) sums: *mut f32,
}

impl<'a> Item<'a> {
    #[inline(always)]
    pub(super) fn new(job: &'a Job, lanes: usize, scratch: &mut [u8]) -> Item<'a> {
        let (Arrangement::Tiles(tiles) | Arrangement::FloatTiles(tiles)) = job.arrangement else {
            unreachable!("tiled products are planned with tiles");
        };
        let rows = tiles.start(job.tiles.start)..tiles.start(job.tiles.end);
        let space = Space::new(lanes, rows.len());
        let panels = job.columns.len().div_ceil(lanes);
        assert!(panels <= PANELS && scratch.len() >= space.bytes());
        let staging = scratch.as_mut_ptr();
        // SAFETY: within the scratch memory by the assertion.
        let (panel, sums) = unsafe {
            let panel = staging.add(space.staging);
            (panel, panel.add(PANELS * space.panel).cast::<f32>())
        };
        Item {
            job,
            tiles,
            rows,
            panels,
            lanes,
            staging,
            panel,
            panel_bytes: space.panel,
            sums,
        }
    }

    /// Sweeps every panel by every tile of the item. `row_bytes` are those of a tile's row and step.
    ///
    /// # Safety
    /// The panels are filled for the steps, and `sweep` may be called for them.
    #[inline(always)]
    unsafe fn sweep_all(
        &self,
        steps: Range<usize>,
        row_bytes: usize,
        sweep: impl Fn(usize, &Sweep),
    ) {
        let all_steps = if row_bytes == size_of::<BlockQ8>() {
            self.job.shape.k / BLOCK
        } else {
            self.job.shape.k
        };
        let stride = self.stride();
        for tile in self.job.tiles.clone() {
            let rows = self.tiles.rows(tile);
            for panel in 0..self.panels {
                // SAFETY: a row of a tile takes `row_bytes` for each step, so that tiles lie where their first row
                // says; the sums hold `stride` floats for each row of the item.
                unsafe {
                    let offset = (rows.start * all_steps + rows.len() * steps.start) * row_bytes;
                    let first_sum = (rows.start - self.rows.start) * stride + panel * self.lanes;
                    sweep(
                        rows.len(),
                        &Sweep {
                            panel: self.panel(panel),
                            tile: self.job.operands.input.add(offset),
                            steps: steps.len(),
                            sums: self.sums.add(first_sum),
                            stride,
                            first: steps.start == 0,
                        },
                    );
                }
            }
        }
    }

    /// Where a panel is decoded to.
    ///
    /// # Safety
    /// The panel is one of the item's.
    #[inline(always)]
    pub(super) unsafe fn panel(&self, panel: usize) -> *mut u8 {
        // SAFETY: the caller's.
        unsafe { self.panel.add(panel * self.panel_bytes) }
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

    /// Writes the sums to the output.
    ///
    /// # Safety
    /// All of K has been swept, and the item's part of the output is this thread's.
    #[inline(always)]
    pub(super) unsafe fn finish(&self) {
        let (n, columns) = (self.job.shape.n, self.job.columns.clone());
        let stride = self.stride();
        for row in self.rows.clone() {
            // SAFETY: the item's rows and columns lie within the output, and its sums within scratch.
            unsafe {
                let sums = std::slice::from_raw_parts(
                    self.sums.add((row - self.rows.start) * stride),
                    columns.len(),
                );
                let output = self.job.operands.output.add(row * n + columns.start);
                let output = std::slice::from_raw_parts_mut(output, columns.len());
                match self.job.operands.bias {
                    None => output.copy_from_slice(sums),
                    Some(bias) => {
                        let bias =
                            std::slice::from_raw_parts(bias.add(columns.start), columns.len());
                        for ((output, sum), bias) in output.iter_mut().zip(sums).zip(bias) {
                            *output = sum + bias;
                        }
                    }
                }
            }
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
    ///
    /// # Safety
    /// As for [`Body::product`].
    unsafe fn fill(p: P, item: &Item<'_>, panel: usize, values: Range<usize>);
}

/// The kernel for block-quantised weights, whose panels `F` fills, with at most `MOST` rows in a tile.
pub(super) struct Tiled<F, B, const MOST: usize>(PhantomData<(F, B)>);

impl<P: Products, F: Fill<P, B>, B: Decode, const MOST: usize> Body<P> for Tiled<F, B, MOST> {
    #[inline(always)]
    unsafe fn product(p: P, job: &Job, scratch: &mut [u8]) {
        let item = Item::new(job, P::Set::LANES, scratch);
        for values in pieces(job.shape.k, UNIT, PIECE) {
            // SAFETY: the caller's; the panels are filled before they are swept.
            unsafe {
                for panel in 0..item.panels {
                    F::fill(p, &item, panel, values.clone());
                }
                let steps = values.start / BLOCK..values.end / BLOCK;
                item.sweep_all(steps, size_of::<BlockQ8>(), |rows, sweep| {
                    sweep_codes::<P, B, MOST>(p, rows, sweep);
                });
            }
        }
        // SAFETY: the caller's.
        unsafe { item.finish() };
    }
}

/// Filling from rows as a file has them.
pub(super) struct FromRows;

impl<P: Stage, B: Decoders> Fill<P, B> for FromRows {
    #[inline(always)]
    unsafe fn fill(p: P, item: &Item<'_>, panel: usize, values: Range<usize>) {
        const RUNS: usize = PIECE / 16;
        let lanes = P::Set::LANES;
        let codes = item.staging;
        // SAFETY: the staging area holds `PIECE` codes and twice `RUNS` floats for each lane.
        let scales = unsafe { codes.add(lanes * PIECE).cast::<f32>() };
        for (lane, row) in item.panel_rows(panel).enumerate() {
            // SAFETY: weight rows hold whole blocks; the codes and scales of a piece fit the staging area's rows.
            unsafe {
                let blocks = item.job.weight_row(row).cast::<B>();
                let blocks = blocks.add(values.start / B::LEN);
                let scales = scales.add(lane * RUNS);
                let to = Staged {
                    codes: codes.add(lane * PIECE),
                    scales,
                    mins: scales.add(lanes * RUNS),
                };
                p.stage(blocks, values.len(), to);
            }
        }
        let bytes = panel_block(lanes, B::RUN);
        let runs = BLOCK / B::RUN;
        // SAFETY: the panel holds `bytes` for each block: 8 columns of quads, then each run's scales and minima.
        unsafe {
            let panel = item.panel(panel);
            let from = Staging {
                rows: codes,
                stride: PIECE,
            };
            from.transpose(p.set(), values.len() / 4, |column| {
                panel.add(column / 8 * bytes + column % 8 * lanes * 4)
            });
            for min in 0..2 {
                let from = Staging {
                    rows: scales.add(min * lanes * RUNS).cast(),
                    stride: 4 * RUNS,
                };
                from.transpose(p.set(), values.len() / B::RUN, |run| {
                    let block = panel.add(run / runs * bytes + lanes * BLOCK);
                    block.add((run % runs * 2 + min) * lanes * 4)
                });
            }
        }
    }
}

/// As many rows of 32-bit words as a register has lanes, readable up to the next multiple of four words.
struct Staging {
    rows: *const u8,
    /// The bytes of a row.
    stride: usize,
}

impl Staging {
    /// Transposes so many words of the rows: those at `i` go to `place(i)`.
    ///
    /// # Safety
    /// The rows have them, and every place takes a register.
    #[inline(always)]
    unsafe fn transpose<S: Register>(&self, s: S, words: usize, place: impl Fn(usize) -> *mut u8) {
        for word in (0..words).step_by(4) {
            // SAFETY: the caller's.
            unsafe {
                let columns = s.columns(|row| self.rows.add(row * self.stride + 4 * word));
                for (i, column) in columns.into_iter().enumerate() {
                    if word + i < words {
                        s.store_words(place(word + i), column);
                    }
                }
            }
        }
    }
}

/// The kernel for floats: for weights that are, or are decoded to them.
pub(super) struct FloatTiled<F, const MOST: usize>(PhantomData<F>);

impl<P: Products, F: Float<P::Set>, const MOST: usize> Body<P> for FloatTiled<F, MOST> {
    #[inline(always)]
    unsafe fn product(p: P, job: &Job, scratch: &mut [u8]) {
        let (s, lanes) = (p.set(), P::Set::LANES);
        let item = Item::new(job, lanes, scratch);
        for values in pieces(job.shape.k, F::UNIT.max(4), FLOAT_PIECE) {
            for panel in 0..item.panels {
                for (lane, row) in item.panel_rows(panel).enumerate() {
                    // SAFETY: the row has `k` values, and the staging area `FLOAT_PIECE` floats for each lane.
                    unsafe {
                        let weights = job.weight_row(row);
                        let floats = item.staging.cast::<f32>().add(lane * FLOAT_PIECE);
                        let floats = std::slice::from_raw_parts_mut(floats, values.len());
                        F::load_all(s, weights, values.start, floats);
                    }
                }
                // SAFETY: the panel holds a register for each value.
                unsafe {
                    let panel = item.panel(panel);
                    let from = Staging {
                        rows: item.staging,
                        stride: 4 * FLOAT_PIECE,
                    };
                    from.transpose(s, values.len(), |column| panel.add(column * lanes * 4));
                }
            }
            // SAFETY: the caller's; the panels are filled.
            unsafe {
                item.sweep_all(values, 4, |rows, sweep| {
                    sweep_floats::<P, MOST>(p, rows, sweep)
                });
            }
        }
        // SAFETY: the caller's.
        unsafe { item.finish() };
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
