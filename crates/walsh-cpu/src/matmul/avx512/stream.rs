//! Products with several rows of activations: the weight is decoded sixteen rows at a time, and what is decoded is
//! multiplied with all rows of a tile before it leaves the registers.
//!
//! The running sums lie in memory, in the first-level cache: each takes one load and one store for a block of 32 values,
//! beside the ten operations or so of its arithmetic, and any number of rows goes through one loop. Decoding fills the
//! units that multiplying leaves idle.

use std::arch::x86_64::*;

use super::columns::{Blocks, Codes, Columns, LANES, Packed, Runs};
use crate::matmul::activations::{BLOCK, GROUP, Record};
use crate::matmul::blocks::zero_shift;
use crate::matmul::plan::Job;
use crate::matmul::tile::{Item, pieces};

/// The most rows of a tile.
pub(super) const ROWS: usize = 64;

/// The most values of K that all tiles and panels of an item go through before the next: a tile of so many stays in the
/// second-level cache.
const PIECE: usize = 4096;

/// How far ahead of the decoder rows are fetched, in bytes.
const AHEAD: usize = 512;

/// # Safety
/// As for [`Kernel`](crate::matmul::kernels::Kernel).
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) unsafe fn product<B: Columns>(job: &Job<'_>, scratch: &mut [u8]) {
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
                    row_bytes: job.plan.row_bytes(),
                };
                for panel in 0..item.panels {
                    if values.start == 0 {
                        sweep.clear();
                    }
                    let columns = item.panel_rows(panel);
                    let mut rows = [job.operands.weight; LANES];
                    for (lane, row) in rows.iter_mut().enumerate() {
                        // Lanes without a row repeat the last: their sums are never read.
                        *row = job.weight_row(columns.start + lane.min(columns.len() - 1));
                    }
                    sweep.run::<B>(&rows, values.start / B::LEN..values.end / B::LEN);
                    sweep.sums = sweep.sums.add(LANES);
                }
            }
        }
        item.finish();
    }
}

/// A tile of activations and where its sums with sixteen weight rows go.
struct Sweep {
    records: *const Record,
    rows: usize,
    sums: *mut f32,
    /// The floats between the sums of two rows.
    stride: usize,
    /// The bytes of a weight row.
    row_bytes: usize,
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
    unsafe fn run<B: Columns>(&self, rows: &[*const u8; LANES], range: std::ops::Range<usize>) {
        let (mut runs, mut packed) = (Runs::new(), Packed::new());
        let mut records = self.records;
        for block in range {
            let blocks = Blocks {
                rows,
                offset: block * size_of::<B>(),
            };
            // SAFETY: the caller's; the scales and minima of the block's runs have been written.
            unsafe {
                B::runs(blocks, &mut runs);
                for part in 0..B::LEN / BLOCK {
                    self.fetch_ahead::<B>(rows, block * (B::LEN / BLOCK) + part);
                    let codes = B::codes(blocks, part, &mut packed);
                    let first = part * (BLOCK / B::RUN);
                    let run = |run: usize| Run {
                        scale: runs.scales[first + run].assume_init(),
                        min: match B::ZERO {
                            Some(_) => _mm512_setzero_ps(),
                            None => runs.mins[first + run].assume_init(),
                        },
                    };
                    let second = if B::RUN == 16 { run(1) } else { run(0) };
                    self.multiply::<B>(&codes, [run(0), second], records);
                    records = records.add(self.rows);
                }
            }
        }
    }

    /// Fetches what two of the rows need for 256 values, some way ahead of block `step` of 32: each row has its turn
    /// every eight blocks, so that the fetches come evenly.
    ///
    /// # Safety
    /// The machine has AVX-512.
    #[inline(always)]
    unsafe fn fetch_ahead<B: Columns>(&self, rows: &[*const u8; LANES], step: usize) {
        const STEPS: usize = GROUP / BLOCK;
        let bytes = GROUP / B::LEN * size_of::<B>();
        let mut ahead = step / STEPS * bytes + AHEAD;
        if ahead >= self.row_bytes {
            // Past a row's end comes the next panel: the row that lies as many rows on as a panel has.
            ahead += (LANES - 1) * self.row_bytes;
        }
        for row in &rows[step % STEPS * (LANES / STEPS)..][..LANES / STEPS] {
            for line in 0..bytes.div_ceil(64) {
                // SAFETY: fetching ahead touches nothing.
                unsafe { _mm_prefetch::<_MM_HINT_T0>(row.wrapping_add(ahead + 64 * line).cast()) };
            }
        }
    }

    /// Adds the products of 32 values.
    ///
    /// # Safety
    /// The records and sums are good for the rows, and the machine has AVX-512 with VNNI.
    #[inline(always)]
    unsafe fn multiply<B: Columns>(&self, codes: &Codes, runs: [Run; 2], records: *const Record) {
        for row in 0..self.rows {
            // SAFETY: the caller's.
            unsafe {
                let record = records.add(row);
                let mut total = _mm512_setzero_ps();
                for (run, Run { scale, min }) in runs.into_iter().enumerate().take(BLOCK / B::RUN) {
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
                let sums = self.sums.add(row * self.stride);
                let scale = _mm512_set1_ps((*record).scale);
                _mm512_storeu_ps(sums, _mm512_fmadd_ps(total, scale, _mm512_loadu_ps(sums)));
            }
        }
    }
}

/// The scale and the minimum of a run of each weight row.
#[derive(Clone, Copy)]
struct Run {
    scale: __m512,
    min: __m512,
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
