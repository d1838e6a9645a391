//! Products with several rows of activations: the weight is decoded sixteen rows at a time, and what is decoded is
//! multiplied with all rows of a tile before it leaves the registers.
//!
//! The running sums lie in memory, in the first-level cache: each takes one load and one store for a block of 32 values,
//! beside the ten operations or so of its arithmetic, and any number of rows goes through one loop. Decoding fills the
//! units that multiplying leaves idle.

use std::arch::x86_64::*;
use std::ops::Range;

use super::columns::{Codes, Columns, Kept, LANES, PackedPanel, Panel, Rows, Run, for_parts};
use crate::matmul::activations::{BLOCK, GROUP, Record};
use crate::matmul::blocks::zero_shift;
use crate::matmul::plan::Job;
use crate::matmul::tile::{Item, pieces};

/// The most rows of a tile.
pub(super) const ROWS: usize = 64;

/// The most values of K that all tiles and panels of an item go through before the next: a tile of so many stays in the
/// second-level cache.
const PIECE: usize = 4096;

/// # Safety
/// As for [`Kernel`](crate::matmul::kernels::Kernel).
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) unsafe fn product<B: Columns, const PACKED: bool>(job: &Job<'_>, scratch: &mut [u8]) {
    let item = Item::new(job, LANES, scratch);
    let all_steps = job.plan.k() / BLOCK;
    // SAFETY: the caller's; a row of a tile takes a record for each block, so that tiles lie where their first row says,
    // and the sums hold `stride` floats for each row of the item.
    unsafe {
        for values in pieces(job.plan.k(), GROUP, PIECE) {
            for tile in job.tiles.clone() {
                let rows = item.tiles.rows(tile);
                let records = rows.start * all_steps + rows.len() * (values.start / BLOCK);
                let first_sum = (rows.start - item.rows.start) * item.stride();
                let mut sweep = Sweep {
                    records: job.operands.input.cast::<Record>().add(records),
                    rows: rows.len(),
                    sums: item.sums.add(first_sum),
                    stride: item.stride(),
                };
                for panel in 0..item.panels {
                    if values.start == 0 {
                        sweep.clear();
                    }
                    let columns = item.panel_rows(panel);
                    let blocks = values.start / B::LEN..values.end / B::LEN;
                    if PACKED {
                        let panel = PackedPanel(job.weight_row(columns.start));
                        sweep.run::<B>(panel, blocks);
                    } else {
                        let rows = &panel_rows(job, columns);
                        let row_bytes = job.plan.row_bytes();
                        sweep.run::<B>(Rows { rows, row_bytes }, blocks);
                    }
                    sweep.sums = sweep.sums.add(LANES);
                }
            }
        }
        item.finish();
    }
}

/// Where the rows of a panel start. Lanes without a row repeat the last: their sums are never read.
///
/// # Safety
/// The rows are the weight's, and there is one at least.
#[inline(always)]
unsafe fn panel_rows(job: &Job<'_>, columns: Range<usize>) -> [*const u8; LANES] {
    let mut rows = [job.operands.weight; LANES];
    for (lane, row) in rows.iter_mut().enumerate() {
        // SAFETY: the caller's.
        *row = unsafe { job.weight_row(columns.start + lane.min(columns.len() - 1)) };
    }
    rows
}

/// A tile of activations and where its sums with sixteen weight rows go.
struct Sweep {
    records: *const Record,
    rows: usize,
    sums: *mut f32,
    /// The floats between the sums of two rows.
    stride: usize,
}

impl Sweep {
    /// Sets the sums to zero.
    ///
    /// # Safety
    /// The sums are good for the rows, and the machine has AVX-512.
    #[inline(always)]
    unsafe fn clear(&self) {
        for row in 0..self.rows {
            // SAFETY: the caller's.
            unsafe { _mm512_storeu_ps(self.sums.add(row * self.stride), _mm512_setzero_ps()) };
        }
    }

    /// Adds the products of some blocks of the weight's rows.
    ///
    /// # Safety
    /// The blocks are readable, the records and sums good for the rows, and the machine has AVX-512 with VNNI.
    #[inline(always)]
    unsafe fn run<B: Columns>(&self, panel: impl Panel, range: Range<usize>) {
        let mut kept = Kept::new();
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
                        let scale = _mm512_set1_ps((*record).scale);
                        let sum = _mm512_fmadd_ps(total, scale, _mm512_loadu_ps(sums));
                        _mm512_storeu_ps(sums, sum);
                    }
                    records = records.add(self.rows);
                });
            }
        }
    }
}

/// The runs of 32 values: two of 16, or one.
#[derive(Clone, Copy)]
struct Pair([Run; 2]);

impl Pair {
    /// The runs of part `part` of a block.
    ///
    /// # Safety
    /// The block has been started, and the machine has AVX-512.
    #[inline(always)]
    unsafe fn of<B: Columns>(kept: &Kept, part: usize) -> Pair {
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
    /// The record is readable, and the machine has AVX-512 with VNNI.
    #[inline(always)]
    unsafe fn multiply<B: Columns>(self, codes: &Codes, record: *const Record) -> __m512 {
        // SAFETY: the caller's.
        unsafe {
            let mut total = _mm512_setzero_ps();
            for (run, Run { scale, min }) in self.0.into_iter().enumerate().take(BLOCK / B::RUN) {
                let sum = broadcast(&raw const (*record).sums[Record::sum_of(B::RUN, run)]);
                let mut dots = match const { zero_shift(B::ZERO) } {
                    Some(shift) => _mm512_sll_epi32(sum, _mm_cvtsi32_si128(shift)),
                    None => _mm512_setzero_si512(),
                };
                for quad in run * B::RUN / 4..(run + 1) * B::RUN / 4 {
                    let values = _mm512_set1_epi32((*record).quads[quad]);
                    dots = _mm512_dpbusd_epi32(dots, codes[quad], values);
                }
                let dots = _mm512_cvtepi32_ps(dots);
                total = if run == 0 {
                    _mm512_mul_ps(dots, scale)
                } else {
                    _mm512_fmadd_ps(dots, scale, total)
                };
                if B::ZERO.is_none() {
                    total = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), min, total);
                }
            }
            total
        }
    }
}

/// The kernel for packed weights and one row: the sums stay in a register.
///
/// # Safety
/// As for [`Kernel`](crate::matmul::kernels::Kernel).
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) unsafe fn packed_row<B: Columns>(job: &Job<'_>, _: &mut [u8]) {
    let blocks = job.plan.k() / B::LEN;
    for first in job.columns.clone().step_by(LANES) {
        let columns = first..(first + LANES).min(job.columns.end);
        let mut kept = Kept::new();
        // SAFETY: the caller's; an item starts with a panel, which has all blocks of its rows, and the input a record for
        // each 32 values.
        unsafe {
            let panel = PackedPanel(job.weight_row(first));
            let mut record = job.operands.input.cast::<Record>();
            let mut sum = _mm512_setzero_ps();
            for block in 0..blocks {
                let words = panel.block::<B>(block);
                B::start(words, &mut kept);
                for_parts!(B, |part| {
                    panel.fetch_ahead::<B>(block * (B::LEN / BLOCK) + part);
                    let codes = B::codes(words, part, &mut kept);
                    let total = Pair::of::<B>(&kept, part).multiply::<B>(&codes, record);
                    sum = _mm512_fmadd_ps(total, _mm512_set1_ps((*record).scale), sum);
                    record = record.add(1);
                });
            }
            let mask = (0xffffu32 >> (LANES - columns.len())) as __mmask16;
            if let Some(bias) = job.operands.bias {
                sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(mask, bias.add(first)));
            }
            _mm512_mask_storeu_ps(job.operands.output.add(first), mask, sum);
        }
    }
}

/// A number in all lanes, from memory. (The compiler would work on the number first and then spread it, on units that
/// the decoder needs.)
///
/// # Safety
/// The number is readable, and the machine has AVX-512.
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn broadcast(from: *const i32) -> __m512i {
    let vector;
    // SAFETY: the caller's.
    unsafe {
        std::arch::asm!(
            "vpbroadcastd {vector}, dword ptr [{from}]",
            vector = lateout(zmm_reg) vector,
            from = in(reg) from,
            options(pure, readonly, nostack, preserves_flags),
        );
    }
    vector
}
