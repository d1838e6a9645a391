//! Products whose weight is decoded as many rows at a time as a vector has lanes, and is multiplied before it leaves the
//! registers: with one row of activations, or with all rows of a tile.
//!
//! With several rows the running sums lie in memory, in the first-level cache: each takes one load and one store for a
//! block of 32 values, beside the ten operations or so of its arithmetic, and any number of rows goes through one loop.
//! Decoding fills the units that multiplying leaves idle.

use std::ops::Range;

use super::blocks::zero_shift;
use super::columns::{Codes, Columns, Kept, PackedPanel, Panel, Run, Vectors, Words, for_parts};
use super::contract::Job;
use super::layout::{BLOCK, BlockQ8, GROUP, LANES};
use super::tile::{Item, pieces};

/// The most rows of a tile.
pub(super) const ROWS: usize = 64;

/// The most values of K that all tiles and panels of an item go through before the next: a tile of so many stays in the
/// second-level cache.
const PIECE: usize = 4096;

/// The form of a weight.
pub(super) trait Form<V: Vectors> {
    /// Adds the products of some blocks of weight rows, as many as there are lanes or fewer, and a tile.
    ///
    /// # Safety
    /// The rows are those of a panel, the sweep is good for what its fields say, and the machine has the instruction set.
    unsafe fn sweep<B: Columns>(job: &Job, rows: Range<usize>, blocks: Range<usize>, sweep: &Sweep);
}

/// Packed weights.
pub(super) struct Packed;

impl<V: Vectors> Form<V> for Packed {
    #[inline(always)]
    unsafe fn sweep<B: Columns>(
        job: &Job,
        rows: Range<usize>,
        blocks: Range<usize>,
        sweep: &Sweep,
    ) {
        // SAFETY: the caller's.
        unsafe { sweep.run::<V, B>(PackedPanel::<V>::of(job, rows.start), blocks) }
    }
}

/// The kernel for several rows, to be inlined where the instruction set is enabled.
///
/// # Safety
/// As for [`Kernel`](super::contract::Kernel).
#[inline(always)]
pub(super) unsafe fn product<V: Vectors, F: Form<V>, B: Columns>(job: &Job, scratch: &mut [u8]) {
    let item = Item::new(job, V::LANES, scratch);
    let all_steps = job.shape.k / BLOCK;
    // SAFETY: the caller's; a row of a tile takes a record for each block, so that tiles lie where their first row says,
    // and the sums hold `stride` floats for each row of the item.
    unsafe {
        for values in pieces(job.shape.k, GROUP, PIECE) {
            for tile in job.tiles.clone() {
                let rows = item.tiles.rows(tile);
                let records = rows.start * all_steps + rows.len() * (values.start / BLOCK);
                let first_sum = (rows.start - item.rows.start) * item.stride();
                let mut sweep = Sweep {
                    records: job.operands.input.cast::<BlockQ8>().add(records),
                    rows: rows.len(),
                    sums: item.sums.add(first_sum),
                    stride: item.stride(),
                };
                for panel in 0..item.panels {
                    if values.start == 0 {
                        sweep.clear::<V>();
                    }
                    let blocks = values.start / B::LEN..values.end / B::LEN;
                    F::sweep::<B>(job, item.panel_rows(panel), blocks, &sweep);
                    sweep.sums = sweep.sums.add(V::LANES);
                }
            }
        }
        item.finish();
    }
}

/// A tile of activations and where its sums with the weight rows go.
pub(super) struct Sweep {
    records: *const BlockQ8,
    rows: usize,
    sums: *mut f32,
    /// The floats between the sums of two rows.
    stride: usize,
}

impl Sweep {
    /// Sets the sums to zero.
    ///
    /// # Safety
    /// The sums are good for the rows, and the machine has the instruction set.
    #[inline(always)]
    unsafe fn clear<V: Vectors>(&self) {
        for row in 0..self.rows {
            // SAFETY: the caller's.
            unsafe { V::store_floats(V::floats(0.0), self.sums.add(row * self.stride)) };
        }
    }

    /// Adds the products of some blocks of the weight's rows.
    ///
    /// # Safety
    /// The blocks are readable, the records and sums good for the rows, and the machine has the instruction set.
    #[inline(always)]
    pub(super) unsafe fn run<V: Vectors, B: Columns>(
        &self,
        panel: impl Panel<Words: Words<Vectors = V>>,
        range: Range<usize>,
    ) {
        let mut kept = Kept::<V>::new();
        let mut records = self.records;
        for block in range {
            // SAFETY: the caller's; parts come in order, after the start of their block.
            unsafe {
                let words = panel.block::<B>(block);
                B::start(words, &mut kept);
                for_parts!(B, |part| {
                    panel.fetch_ahead::<B>(block * (B::LEN / BLOCK) + part);
                    let codes = B::codes(words, part, &mut kept);
                    let pair = Pair::of::<B>(&kept, part);
                    for row in 0..self.rows {
                        let record = records.add(row);
                        let total = pair.multiply::<B>(&codes, record);
                        let sums = self.sums.add(row * self.stride);
                        let scale = V::floats((*record).scale);
                        let sum = V::mul_add(total, scale, V::load_floats(sums));
                        V::store_floats(sum, sums);
                    }
                    records = records.add(self.rows);
                });
            }
        }
    }
}

/// The runs of 32 values: two of 16, or one.
#[derive(Clone, Copy)]
struct Pair<V: Vectors>([Run<V>; 2]);

impl<V: Vectors> Pair<V> {
    /// The runs of part `part` of a block.
    ///
    /// # Safety
    /// The block has been started, and the machine has the instruction set.
    #[inline(always)]
    unsafe fn of<B: Columns>(kept: &Kept<V>, part: usize) -> Pair<V> {
        // SAFETY: the caller's.
        unsafe {
            if B::RUN == 16 {
                Pair([B::run(kept, 2 * part), B::run(kept, 2 * part + 1)])
            } else {
                let run = B::run(kept, part);
                Pair([run, run])
            }
        }
    }

    /// The products of 32 values with a row of activations, but for the scale of those.
    ///
    /// # Safety
    /// The record is readable, and the machine has the instruction set.
    #[inline(always)]
    unsafe fn multiply<B: Columns>(self, codes: &Codes<V>, record: *const BlockQ8) -> V::Floats {
        // Signed codes stand for zero themselves.
        let signed = V::SIGNED && B::TOP == 255;
        // SAFETY: the caller's.
        unsafe {
            let mut total = V::floats(0.0);
            for (run, Run { scale, min }) in self.0.into_iter().enumerate().take(BLOCK / B::RUN) {
                let sum = V::broadcast(&raw const (*record).sums[BlockQ8::sum_of(B::RUN, run)]);
                let dots = match const { zero_shift(B::ZERO) } {
                    Some(shift) if !signed => V::shl(sum, shift as usize),
                    _ => V::ints(0),
                };
                let quads = run * B::RUN / 4..(run + 1) * B::RUN / 4;
                let dots = V::to_floats(V::add_products::<B>(dots, codes, quads, record));
                total = if run == 0 {
                    V::mul(dots, scale)
                } else {
                    V::mul_add(dots, scale, total)
                };
                if B::ZERO.is_none() {
                    total = V::mul_add(V::to_floats(sum), min, total);
                }
            }
            total
        }
    }
}

/// The kernel for packed weights and one row, whose sums stay in registers, to be inlined where the instruction set is
/// enabled.
///
/// # Safety
/// As for [`Kernel`](super::contract::Kernel).
#[inline(always)]
pub(super) unsafe fn packed_row<V: Vectors, B: Columns>(job: &Job) {
    let blocks = job.shape.k / B::LEN;
    // Vectors that take a part of a panel's rows take it block by block: all parts read the same lines, and all but the
    // first find them in the first-level cache.
    let together = match PackedPanel::<V>::PARTS {
        1 => blocks,
        _ => 1,
    };
    for first in job.columns.clone().step_by(LANES) {
        let columns = first..(first + LANES).min(job.columns.end);
        let mut sums = [0.0f32; LANES];
        // SAFETY: the caller's; an item starts with a panel, which has all blocks of its rows, and the input a record for
        // each 32 values.
        unsafe {
            for start in (0..blocks).step_by(together) {
                let range = start..(start + together).min(blocks);
                for part in 0..PackedPanel::<V>::PARTS {
                    let panel = PackedPanel::<V>::of(job, first + part * V::LANES);
                    let sums = sums.as_mut_ptr().add(part * V::LANES);
                    let sum = V::load_floats(sums);
                    V::store_floats(add_row::<V, B>(panel, job, range.clone(), sum), sums);
                }
            }
            if columns.len() == LANES {
                for lane in (0..LANES).step_by(V::LANES) {
                    let mut sum = V::load_floats(sums.as_ptr().add(lane));
                    if let Some(bias) = job.operands.bias {
                        sum = V::add(sum, V::load_floats(bias.add(first + lane)));
                    }
                    V::store_floats(sum, job.operands.output.add(first + lane));
                }
            } else {
                for (column, sum) in columns.zip(sums) {
                    job.put(0, column, sum);
                }
            }
        }
    }
}

/// Adds the products of some blocks of packed rows and one row of activations.
///
/// # Safety
/// As for [`Kernel`](super::contract::Kernel), with the panel's blocks.
#[inline(always)]
unsafe fn add_row<V: Vectors, B: Columns>(
    panel: PackedPanel<V>,
    job: &Job,
    range: Range<usize>,
    mut sum: V::Floats,
) -> V::Floats {
    let mut kept = Kept::<V>::new();
    // SAFETY: the caller's.
    unsafe {
        let mut record = job.operands.input.cast::<BlockQ8>();
        record = record.add(range.start * (B::LEN / BLOCK));
        for block in range {
            let words = panel.block::<B>(block);
            B::start(words, &mut kept);
            for_parts!(B, |part| {
                panel.fetch_ahead::<B>(block * (B::LEN / BLOCK) + part);
                let codes = B::codes(words, part, &mut kept);
                let total = Pair::of::<B>(&kept, part).multiply::<B>(&codes, record);
                sum = V::mul_add(total, V::floats((*record).scale), sum);
                record = record.add(1);
            });
        }
    }
    sum
}
