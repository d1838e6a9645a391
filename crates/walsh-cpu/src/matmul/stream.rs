//! Products whose weight is decoded as many rows at a time as a vector has lanes, and is multiplied before it leaves the
//! registers: with one row of activations, or with all rows of a tile.
//!
//! With several rows the running sums lie in memory, in the first-level cache: each takes one load and one store for a
//! block of 32 values, beside the ten operations or so of its arithmetic, and any number of rows goes through one loop.
//! Decoding fills the units that multiplying leaves idle.

use std::marker::PhantomData;
use std::ops::Range;

use super::blocks::{Codes, Columns, Kept, Part, Run, signed_min, zero_shift};
use super::contract::Job;
use super::kernel::Body;
use super::layout::{BLOCK, BlockQ8, GROUP, LANES};
use super::panels::{PackedPanel, Panel, StoredRows, for_parts, row_starts};
use super::tile::{Item, pieces};
use crate::simd::{ColumnProducts, Gather, Numbers, Quads, Register, Unpack};

/// The most rows of a tile.
pub(super) const ROWS: usize = 64;

/// The most values of K that all tiles and panels of an item go through before the next: a tile of so many stays in the
/// second-level cache.
const PIECE: usize = 4096;

/// The form of a weight.
pub(super) trait Form<P> {
    /// Adds the products of some blocks of the weight rows of a panel, as many as there are lanes or fewer, and a tile.
    fn sweep<B: Columns, const TOGETHER: usize>(
        p: P,
        tile: &mut Tile<'_>,
        rows: Range<usize>,
        blocks: Range<usize>,
    );
}

/// Packed weights.
pub(super) struct Packed;

impl<P: ColumnProducts> Form<P> for Packed {
    #[inline(always)]
    fn sweep<B: Columns, const TOGETHER: usize>(
        p: P,
        tile: &mut Tile<'_>,
        rows: Range<usize>,
        blocks: Range<usize>,
    ) {
        let panel = PackedPanel::of(p.set(), tile.job, rows.start);
        // SAFETY: a sweep's blocks are some of those of K, which a panel's rows have.
        unsafe { tile.run::<P, B, TOGETHER>(p, panel, blocks) };
    }
}

/// Weights as a file has them.
pub(super) struct Stored;

impl<P: ColumnProducts<Set: Gather>> Form<P> for Stored {
    #[inline(always)]
    fn sweep<B: Columns, const TOGETHER: usize>(
        p: P,
        tile: &mut Tile<'_>,
        rows: Range<usize>,
        blocks: Range<usize>,
    ) {
        let rows = &row_starts(tile.job, rows);
        let panel = StoredRows::new(p.set(), rows);
        // SAFETY: as for packed weights.
        unsafe { tile.run::<P, B, TOGETHER>(p, panel, blocks) };
    }
}

/// The kernel for several rows, of which `TOGETHER` are multiplied side by side.
pub(super) struct Streamed<F, B, const TOGETHER: usize>(PhantomData<(F, B)>);

impl<P: ColumnProducts, F: Form<P>, B: Columns, const TOGETHER: usize> Body<P>
    for Streamed<F, B, TOGETHER>
{
    #[inline(always)]
    fn product(p: P, job: &Job<'_>, scratch: &mut [u8]) {
        let lanes = P::Set::LANES;
        let item = Item::new(job, lanes, scratch);
        let (input, all_steps) = (job.tile_blocks(), job.shape.k / BLOCK);
        let stride = item.stride();
        for values in pieces(job.shape.k, GROUP, PIECE) {
            for index in job.tiles.clone() {
                // A row of a tile takes a block for each step, so that tiles lie where their first row says.
                let rows = item.tiles.rows(index);
                let first = rows.start * all_steps + rows.len() * (values.start / BLOCK);
                let first_sum = (rows.start - item.rows.start) * stride;
                for panel in 0..item.panels {
                    let weight_rows = item.panel_rows(panel);
                    let sums = &mut item.sums[first_sum + panel * lanes..];
                    let mut tile = Tile {
                        job,
                        input: &input[first..][..rows.len() * (values.len() / BLOCK)],
                        rows: rows.len(),
                        sums: &mut sums[..(rows.len() - 1) * stride + lanes],
                        stride,
                    };
                    if values.start == 0 {
                        tile.clear(p.set());
                    }
                    let blocks = values.start / B::LEN..values.end / B::LEN;
                    F::sweep::<B, TOGETHER>(p, &mut tile, weight_rows, blocks);
                }
            }
        }
        item.finish();
    }
}

/// A tile of activations and where its sums with the weight rows go.
pub(super) struct Tile<'a> {
    job: &'a Job<'a>,
    /// The tile's blocks, each step's side by side.
    input: &'a [BlockQ8],
    rows: usize,
    /// A register for each row.
    sums: &'a mut [f32],
    /// The floats between the sums of two rows.
    stride: usize,
}

impl Tile<'_> {
    /// Sets the sums to zero.
    #[inline(always)]
    fn clear<S: Register>(&mut self, s: S) {
        for sums in self.sums.chunks_mut(self.stride) {
            // SAFETY: room for a register.
            unsafe { s.store_numbers(sums[..S::LANES].as_mut_ptr(), s.numbers(0.0)) };
        }
    }

    /// Adds the products of some blocks of the weight's rows.
    ///
    /// # Safety
    /// The panel has the blocks.
    #[inline(always)]
    unsafe fn run<P: ColumnProducts, B: Columns, const TOGETHER: usize>(
        &mut self,
        p: P,
        panel: impl Panel<Set = P::Set>,
        range: Range<usize>,
    ) {
        let s = p.set();
        let rows = self.rows;
        assert!(self.sums.len() >= (rows - 1) * self.stride + P::Set::LANES);
        let mut kept = Kept::new(s);
        let parts = const { B::LEN / BLOCK };
        let first = range.start;
        for block in range {
            let input = &self.input[(block - first) * parts * rows..][..parts * rows];
            // SAFETY: the range is some of the blocks of the weight's rows.
            let blocks = unsafe { panel.block::<B>(block) };
            B::start(blocks, &mut kept);
            for_parts!(B, |index| {
                panel.fetch_ahead::<B>(block * (B::LEN / BLOCK) + index);
                let codes = B::codes(blocks, part::<P>(index), &mut kept);
                let pair = Pair::of::<B>(s, &kept, index);
                let mut row = 0;
                // SAFETY: rows of the tile, for each of which there is a register of sums, and a block of this part, as cut
                // above.
                unsafe {
                    let input = input.get_unchecked(index * rows..(index + 1) * rows);
                    while rows - row >= TOGETHER {
                        self.add::<P, B, TOGETHER>(p, (pair, &codes), input, row);
                        row += TOGETHER;
                    }
                    if TOGETHER > 4 && rows - row >= 4 {
                        self.add::<P, B, 4>(p, (pair, &codes), input, row);
                        row += 4;
                    }
                    if TOGETHER > 2 && rows - row >= 2 {
                        self.add::<P, B, 2>(p, (pair, &codes), input, row);
                        row += 2;
                    }
                    if TOGETHER > 1 && rows > row {
                        self.add::<P, B, 1>(p, (pair, &codes), input, row);
                    }
                }
            });
        }
    }

    /// Adds the products of 32 values of each weight row and `ROWS` rows from `row` on.
    ///
    /// # Safety
    /// The tile has the rows, and registers of sums for them.
    #[inline(always)]
    unsafe fn add<P: ColumnProducts, B: Columns, const ROWS: usize>(
        &mut self,
        p: P,
        (pair, codes): (Pair<P::Set>, &Codes<P::Set>),
        input: &[BlockQ8],
        row: usize,
    ) {
        let s = p.set();
        // SAFETY: `input` has a block of each of the tile's rows, and there is a register of sums each `stride` floats.
        unsafe {
            let values = &*input.as_ptr().add(row).cast::<[BlockQ8; ROWS]>();
            let totals = multiply::<P, B, ROWS>(p, pair, codes, values);
            for (of, total) in totals.into_iter().enumerate() {
                let sums = self.sums.as_mut_ptr().add((row + of) * self.stride);
                let scale = s.numbers(values[of].scale);
                let sum = s.mul_add(total, scale, s.load_numbers(sums));
                s.store_numbers(sums, sum);
            }
        }
    }
}

/// The runs of 32 values: two of 16, or one.
#[derive(Clone, Copy)]
struct Pair<S: Register>([Run<S>; 2]);

impl<S: Unpack> Pair<S> {
    /// The runs of part `part` of a block that has been started.
    #[inline(always)]
    fn of<B: Columns>(s: S, kept: &Kept<S>, part: usize) -> Pair<S> {
        if B::RUN < BLOCK {
            Pair([B::run(s, kept, 2 * part), B::run(s, kept, 2 * part + 1)])
        } else {
            let run = B::run(s, kept, part);
            Pair([run, run])
        }
    }
}

/// A part with codes as they are multiplied.
#[inline(always)]
fn part<P: ColumnProducts>(index: usize) -> Part {
    Part {
        index,
        signed: P::SIGNED,
    }
}

/// The products of 32 values with some rows of activations, but for the scales of those.
#[inline(always)]
fn multiply<P: ColumnProducts, B: Columns, const ROWS: usize>(
    p: P,
    pair: Pair<P::Set>,
    codes: &Codes<P::Set>,
    rows: &[BlockQ8; ROWS],
) -> [Numbers<P>; ROWS] {
    let s = p.set();
    // Signed codes stand for zero themselves.
    let signed = P::SIGNED && B::TOP == 255;
    let mut values = [&rows[0].quads; ROWS];
    for (values, row) in values.iter_mut().zip(rows) {
        *values = &row.quads;
    }
    let mut totals = [s.numbers(0.0); ROWS];
    for (run, Run { scale, min }) in pair.0.into_iter().enumerate().take(BLOCK / B::RUN) {
        let sum = |row: usize| s.broadcast(&rows[row].sums[BlockQ8::sum_of(B::RUN, run)]);
        let mut dots = [s.words(0); ROWS];
        if let (Some(shift), false) = (const { zero_shift(B::ZERO) }, signed) {
            for (row, dots) in dots.iter_mut().enumerate() {
                *dots = s.shl(sum(row), shift);
            }
        }
        let quads = Quads {
            range: run * B::RUN / 4..(run + 1) * B::RUN / 4,
            top: B::TOP,
        };
        p.add(&mut dots, codes, values, quads);
        for (row, total) in totals.iter_mut().enumerate() {
            let dots = s.to_numbers(dots[row]);
            *total = if run == 0 {
                s.mul(dots, scale)
            } else {
                s.mul_add(dots, scale, *total)
            };
            if B::ZERO.is_none() {
                let min = if signed {
                    signed_min(s, scale, min)
                } else {
                    min
                };
                *total = s.mul_add(s.to_numbers(sum(row)), min, *total);
            }
        }
    }
    totals
}

/// The kernel for packed weights and one row, whose sums stay in registers.
pub(super) struct PackedRow<B>(PhantomData<B>);

impl<P: ColumnProducts, B: Columns> Body<P> for PackedRow<B> {
    #[inline(always)]
    fn product(p: P, job: &Job<'_>, _: &mut [u8]) {
        let s = p.set();
        let (lanes, parts) = (P::Set::LANES, PackedPanel::<P::Set>::PARTS);
        let blocks = job.shape.k / B::LEN;
        let input = job.tile_blocks();
        assert!(blocks * B::LEN <= input.len() * BLOCK);
        // Registers that take a part of a panel's rows take it block by block: all parts read the same lines, and all but the
        // first find them in the first-level cache.
        let together = if parts == 1 { blocks } else { 1 };
        for first in job.columns.clone().step_by(LANES) {
            let columns = first..(first + LANES).min(job.columns.end);
            let panel = PackedPanel::of(s, job, first);
            let mut sums = [0.0f32; LANES];
            // SAFETY: a panel has all blocks of its rows, and the input a part for each 32 values, as measured.
            unsafe {
                for start in (0..blocks).step_by(together) {
                    let range = start..(start + together).min(blocks);
                    for part in 0..parts {
                        let sums = sums.as_mut_ptr().add(part * lanes);
                        let sum = (range.clone(), s.load_numbers(sums));
                        let sum = add_row::<P, B>(p, panel.part(part), input.as_ptr(), sum);
                        s.store_numbers(sums, sum);
                    }
                }
            }
            job.put_all(0, first, &sums[..columns.len()]);
        }
    }
}

/// Adds the products of some blocks of packed rows and one row of activations to sums.
///
/// # Safety
/// The panel has the blocks, and the input a part for each 32 values up to them.
#[inline(always)]
unsafe fn add_row<P: ColumnProducts, B: Columns>(
    p: P,
    panel: PackedPanel<'_, P::Set>,
    input: *const BlockQ8,
    (range, mut sum): (Range<usize>, Numbers<P>),
) -> Numbers<P> {
    let s = p.set();
    let mut kept = Kept::new(s);
    // SAFETY: blocks of the panel, and the parts of the input that belong to them. (Measured part by part, they would keep
    // the compiler from multiplying with memory.)
    unsafe {
        let mut input = input.add(range.start * (B::LEN / BLOCK));
        for block in range {
            let blocks = panel.block::<B>(block);
            B::start(blocks, &mut kept);
            for_parts!(B, |index| {
                panel.fetch_ahead::<B>(block * (B::LEN / BLOCK) + index);
                let codes = B::codes(blocks, part::<P>(index), &mut kept);
                let values = &*input.cast::<[BlockQ8; 1]>();
                let pair = Pair::of::<B>(s, &kept, index);
                let [total] = multiply::<P, B, 1>(p, pair, &codes, values);
                sum = s.mul_add(total, s.numbers(values[0].scale), sum);
                input = input.add(1);
            });
        }
    }
    sum
}
