//! Products whose weight is decoded as many rows at a time as a vector has lanes, and is multiplied before it leaves the
//! registers: with one row of activations, or with all rows of a tile.
//!
//! With several rows the running sums lie in memory, in the first-level cache: each takes one load and one store for a
//! block of 32 values, beside the ten operations or so of its arithmetic, and any number of rows goes through one loop.
//! Decoding fills the units that multiplying leaves idle.

use std::marker::PhantomData;
use std::ops::Range;

use super::blocks::{Codes, Columns, Kept, Part, Run, zero_shift};
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
    /// Adds the products of some blocks of weight rows, as many as there are lanes or fewer, and a tile.
    ///
    /// # Safety
    /// The rows are those of a panel, and the tile is good for what its fields say.
    unsafe fn sweep<B: Columns, const TOGETHER: usize>(
        p: P,
        tile: &Tile<'_>,
        rows: Range<usize>,
        blocks: Range<usize>,
    );
}

/// Packed weights.
pub(super) struct Packed;

impl<P: ColumnProducts> Form<P> for Packed {
    #[inline(always)]
    unsafe fn sweep<B: Columns, const TOGETHER: usize>(
        p: P,
        tile: &Tile<'_>,
        rows: Range<usize>,
        blocks: Range<usize>,
    ) {
        // SAFETY: the caller's.
        unsafe {
            let panel = PackedPanel::of(p.set(), tile.job, rows.start);
            tile.run::<P, B, TOGETHER>(p, panel, blocks);
        }
    }
}

/// Weights as a file has them.
pub(super) struct Stored;

impl<P: ColumnProducts<Set: Gather>> Form<P> for Stored {
    #[inline(always)]
    unsafe fn sweep<B: Columns, const TOGETHER: usize>(
        p: P,
        tile: &Tile<'_>,
        rows: Range<usize>,
        blocks: Range<usize>,
    ) {
        // SAFETY: the caller's.
        unsafe {
            let rows = &row_starts(tile.job, rows);
            let panel = StoredRows::new(p.set(), rows, tile.job.row_bytes);
            tile.run::<P, B, TOGETHER>(p, panel, blocks);
        }
    }
}

/// The kernel for several rows, of which `TOGETHER` are multiplied side by side.
pub(super) struct Streamed<F, B, const TOGETHER: usize>(PhantomData<(F, B)>);

impl<P: ColumnProducts, F: Form<P>, B: Columns, const TOGETHER: usize> Body<P>
    for Streamed<F, B, TOGETHER>
{
    #[inline(always)]
    unsafe fn product(p: P, job: &Job, scratch: &mut [u8]) {
        let lanes = P::Set::LANES;
        let item = Item::new(job, lanes, scratch);
        let all_steps = job.shape.k / BLOCK;
        // SAFETY: the caller's; a row of a tile takes a block for each step, so that tiles lie where their first row says,
        // and the sums hold `stride` floats for each row of the item.
        unsafe {
            for values in pieces(job.shape.k, GROUP, PIECE) {
                for index in job.tiles.clone() {
                    let rows = item.tiles.rows(index);
                    let first = rows.start * all_steps + rows.len() * (values.start / BLOCK);
                    let first_sum = (rows.start - item.rows.start) * item.stride();
                    let mut tile = Tile {
                        job,
                        input: job.operands.input.cast::<BlockQ8>().add(first),
                        rows: rows.len(),
                        sums: item.sums.add(first_sum),
                        stride: item.stride(),
                    };
                    for panel in 0..item.panels {
                        if values.start == 0 {
                            tile.clear(p.set());
                        }
                        let blocks = values.start / B::LEN..values.end / B::LEN;
                        F::sweep::<B, TOGETHER>(p, &tile, item.panel_rows(panel), blocks);
                        tile.sums = tile.sums.add(lanes);
                    }
                }
            }
            item.finish();
        }
    }
}

/// A tile of activations and where its sums with the weight rows go.
pub(super) struct Tile<'a> {
    job: &'a Job,
    /// The tile's blocks, each step's side by side.
    input: *const BlockQ8,
    rows: usize,
    sums: *mut f32,
    /// The floats between the sums of two rows.
    stride: usize,
}

impl Tile<'_> {
    /// Sets the sums to zero.
    ///
    /// # Safety
    /// The sums are good for the rows.
    #[inline(always)]
    unsafe fn clear<S: Register>(&self, s: S) {
        for row in 0..self.rows {
            // SAFETY: the caller's.
            unsafe { s.store_numbers(self.sums.add(row * self.stride), s.numbers(0.0)) };
        }
    }

    /// Adds the products of some blocks of the weight's rows.
    ///
    /// # Safety
    /// The panel has the blocks; the input and the sums are good for the rows.
    #[inline(always)]
    unsafe fn run<P: ColumnProducts, B: Columns, const TOGETHER: usize>(
        &self,
        p: P,
        panel: impl Panel<Set = P::Set>,
        range: Range<usize>,
    ) {
        let s = p.set();
        let mut kept = Kept::new(s);
        let mut input = self.input;
        for block in range {
            // SAFETY: the caller's.
            unsafe {
                let blocks = panel.block::<B>(block);
                B::start(blocks, &mut kept);
                for_parts!(B, |index| {
                    panel.fetch_ahead::<B>(block * (B::LEN / BLOCK) + index);
                    let codes = B::codes(blocks, part::<P>(index), &mut kept);
                    let pair = Pair::of::<B>(s, &kept, index);
                    let mut row = 0;
                    while self.rows - row >= TOGETHER {
                        self.add::<P, B, TOGETHER>(p, (pair, &codes), input, row);
                        row += TOGETHER;
                    }
                    if TOGETHER > 4 && self.rows - row >= 4 {
                        self.add::<P, B, 4>(p, (pair, &codes), input, row);
                        row += 4;
                    }
                    if TOGETHER > 2 && self.rows - row >= 2 {
                        self.add::<P, B, 2>(p, (pair, &codes), input, row);
                        row += 2;
                    }
                    if TOGETHER > 1 && self.rows > row {
                        self.add::<P, B, 1>(p, (pair, &codes), input, row);
                    }
                    input = input.add(self.rows);
                });
            }
        }
    }

    /// Adds the products of 32 values of each weight row and `ROWS` rows from `row` on.
    ///
    /// # Safety
    /// As for [`run`](Tile::run), and the tile has the rows.
    #[inline(always)]
    unsafe fn add<P: ColumnProducts, B: Columns, const ROWS: usize>(
        &self,
        p: P,
        (pair, codes): (Pair<P::Set>, &Codes<P::Set>),
        input: *const BlockQ8,
        row: usize,
    ) {
        let s = p.set();
        // SAFETY: the caller's.
        unsafe {
            let values = &*input.add(row).cast::<[BlockQ8; ROWS]>();
            let totals = multiply::<P, B, ROWS>(p, pair, codes, values);
            for (of, total) in totals.into_iter().enumerate() {
                let sums = self.sums.add((row + of) * self.stride);
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
    unsafe fn product(p: P, job: &Job, _: &mut [u8]) {
        let s = p.set();
        let (lanes, parts) = (P::Set::LANES, PackedPanel::<P::Set>::PARTS);
        let blocks = job.shape.k / B::LEN;
        // Registers that take a part of a panel's rows take it block by block: all parts read the same lines, and all but the
        // first find them in the first-level cache.
        let together = if parts == 1 { blocks } else { 1 };
        for first in job.columns.clone().step_by(LANES) {
            let columns = first..(first + LANES).min(job.columns.end);
            let mut sums = [0.0f32; LANES];
            // SAFETY: the caller's; an item starts with a panel, which has all blocks of its rows, and the input a block for
            // each 32 values.
            unsafe {
                for start in (0..blocks).step_by(together) {
                    let range = start..(start + together).min(blocks);
                    for part in 0..parts {
                        let panel = PackedPanel::of(s, job, first + part * lanes);
                        let sums = sums.as_mut_ptr().add(part * lanes);
                        let sum =
                            add_row::<P, B>(p, panel, job, (range.clone(), s.load_numbers(sums)));
                        s.store_numbers(sums, sum);
                    }
                }
                if columns.len() == LANES {
                    for lane in (0..LANES).step_by(lanes) {
                        let mut sum = s.load_numbers(sums.as_ptr().add(lane));
                        if let Some(bias) = job.operands.bias {
                            sum = s.add(sum, s.load_numbers(bias.add(first + lane)));
                        }
                        s.store_numbers(job.operands.output.add(first + lane), sum);
                    }
                } else {
                    for (column, sum) in columns.zip(sums) {
                        job.put(0, column, sum);
                    }
                }
            }
        }
    }
}

/// Adds the products of some blocks of packed rows and one row of activations to sums.
///
/// # Safety
/// As for [`Body::product`], with the panel's blocks.
#[inline(always)]
unsafe fn add_row<P: ColumnProducts, B: Columns>(
    p: P,
    panel: PackedPanel<P::Set>,
    job: &Job,
    (range, mut sum): (Range<usize>, Numbers<P>),
) -> Numbers<P> {
    let s = p.set();
    let mut kept = Kept::new(s);
    // SAFETY: the caller's.
    unsafe {
        let mut input = job.operands.input.cast::<BlockQ8>();
        input = input.add(range.start * (B::LEN / BLOCK));
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
