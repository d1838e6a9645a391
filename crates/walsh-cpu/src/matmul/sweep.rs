//! The inner loops of tiled products: a panel in the first-level cache, and a tile whose sums stay in registers.

use std::marker::PhantomData;

use super::blocks::{Decode, signed_min, zero_shift};
use super::kernel::with_rows;
use super::layout::{BLOCK, BlockQ8};
use super::tile::panel_block;
use crate::simd::{Numbers, Products, Quads, Register, Work};

/// One sweep of a panel by a tile.
pub(super) struct Sweep<'a> {
    /// The panel; 64-byte aligned.
    pub(super) panel: &'a [u8],
    /// The tile's blocks, or interleaved floats, from the piece's start on.
    pub(super) tile: &'a [u8],
    /// The blocks, or single values for floats, of the piece.
    pub(super) steps: usize,
    /// The sums, from those of the tile's first row on: one for each lane.
    pub(super) sums: &'a mut [f32],
    /// How many floats lie between the sums of two rows.
    pub(super) stride: usize,
    /// Whether the sums start from zero.
    pub(super) first: bool,
}

/// Adds the products of a panel of codes and a tile of quantised activations, of at most `MOST` rows, to its sums.
#[inline(always)]
pub(super) fn sweep_codes<P: Products, B: Decode, const MOST: usize>(
    p: P,
    rows: usize,
    sweep: &mut Sweep<'_>,
) {
    with_rows!(rows, MOST, ROWS => p.run(CodeSweep::<B, ROWS> { sweep, block: PhantomData }));
}

/// As [`sweep_codes`], with floats.
#[inline(always)]
pub(super) fn sweep_floats<P: Products, const MOST: usize>(
    p: P,
    rows: usize,
    sweep: &mut Sweep<'_>,
) {
    with_rows!(rows, MOST, ROWS => p.run(FloatSweep::<ROWS>(sweep)));
}

/// A sweep of `ROWS` rows.
struct CodeSweep<'a, 's, B, const ROWS: usize> {
    sweep: &'a mut Sweep<'s>,
    block: PhantomData<B>,
}

/// As [`CodeSweep`], for floats.
struct FloatSweep<'a, 's, const ROWS: usize>(&'a mut Sweep<'s>);

impl Sweep<'_> {
    /// The sums that a sweep starts from.
    #[inline(always)]
    fn load_sums<S: Register, const ROWS: usize>(&self, s: S) -> [S::Numbers; ROWS] {
        let mut sums = [s.numbers(0.0); ROWS];
        if !self.first {
            for (row, sum) in sums.iter_mut().enumerate() {
                let from = &self.sums[row * self.stride..][..S::LANES];
                // SAFETY: a register of numbers.
                *sum = unsafe { s.load_numbers(from.as_ptr()) };
            }
        }
        sums
    }

    #[inline(always)]
    fn store_sums<S: Register, const ROWS: usize>(&mut self, s: S, sums: [S::Numbers; ROWS]) {
        for (row, sum) in sums.into_iter().enumerate() {
            let to = &mut self.sums[row * self.stride..][..S::LANES];
            // SAFETY: room for a register.
            unsafe { s.store_numbers(to.as_mut_ptr(), sum) };
        }
    }
}

impl<P: Products, B: Decode, const ROWS: usize> Work<P> for CodeSweep<'_, '_, B, ROWS> {
    type Output = ();

    #[inline(always)]
    fn on(self, p: P) {
        let (s, sweep) = (p.set(), self.sweep);
        let mut sums = sweep.load_sums::<_, ROWS>(s);
        let bytes = panel_block(P::Set::LANES, B::RUN);
        let panel = sweep.panel[..sweep.steps * bytes].chunks_exact(bytes);
        let tile: &[BlockQ8] = bytemuck::cast_slice(sweep.tile);
        let tile = tile[..sweep.steps * ROWS].as_chunks::<ROWS>().0;
        for (panel, rows) in panel.zip(tile) {
            add_block::<P, B, ROWS>(p, panel, rows, &mut sums);
        }
        sweep.store_sums(s, sums);
    }
}

/// Adds the products of 32 values of a panel and a tile. A panel has 8 columns of quads of them, then each run's scales and
/// minima.
#[inline(always)]
fn add_block<P: Products, B: Decode, const ROWS: usize>(
    p: P,
    panel: &[u8],
    rows: &[BlockQ8; ROWS],
    sums: &mut [Numbers<P>; ROWS],
) {
    let (s, lanes) = (p.set(), P::Set::LANES);
    let mut block_sums = [s.numbers(0.0); ROWS];
    let (codes, floats) = panel[..panel_block(lanes, B::RUN)].split_at(lanes * BLOCK);
    let floats = floats.as_ptr().cast::<f32>();
    let mut values = [&rows[0].quads; ROWS];
    for (values, row) in values.iter_mut().zip(rows) {
        *values = &row.quads;
    }
    for run in 0..BLOCK / B::RUN {
        let run_sum = |of: usize| rows[of].sums[BlockQ8::sum_of(B::RUN, run)];
        let mut dots = [s.words(0); ROWS];
        // Signed codes stand for zero themselves.
        let raised = !(P::SIGNED && B::TOP == 255);
        if let (Some(shift), true) = (const { zero_shift(B::ZERO) }, raised) {
            for (row, dots) in dots.iter_mut().enumerate() {
                *dots = s.shl(s.words(run_sum(row)), shift);
            }
        }
        let quads = Quads {
            range: run * B::RUN / 4..(run + 1) * B::RUN / 4,
            top: B::TOP,
        };
        p.add_rows(&mut dots, codes, values, quads);
        // SAFETY: behind the codes a block of a panel has a register of scales and one of minima for each run.
        let [scales, mins] = unsafe {
            [
                s.load_numbers(floats.add(2 * run * lanes)),
                s.load_numbers(floats.add((2 * run + 1) * lanes)),
            ]
        };
        for of in 0..ROWS {
            let dots = s.to_numbers(dots[of]);
            let sum = &mut block_sums[of];
            *sum = if run == 0 || !P::Set::MANY {
                s.mul(dots, scales)
            } else {
                s.mul_add(dots, scales, *sum)
            };
            if B::ZERO.is_none() {
                let mins = if raised {
                    mins
                } else {
                    signed_min(s, scales, mins)
                };
                let run_sum = s.to_numbers(s.words(run_sum(of)));
                *sum = s.mul_add(mins, run_sum, *sum);
            }
            if !P::Set::MANY {
                sums[of] = s.mul_add(*sum, s.numbers(rows[of].scale), sums[of]);
            }
        }
    }
    if P::Set::MANY {
        for of in 0..ROWS {
            sums[of] = s.mul_add(block_sums[of], s.numbers(rows[of].scale), sums[of]);
        }
    }
}

impl<P: Products, const ROWS: usize> Work<P> for FloatSweep<'_, '_, ROWS> {
    type Output = ();

    #[inline(always)]
    fn on(self, p: P) {
        let (s, sweep) = (p.set(), self.0);
        let mut sums = sweep.load_sums::<_, ROWS>(s);
        let panel: &[f32] = bytemuck::cast_slice(sweep.panel);
        let panel = panel[..sweep.steps * P::Set::LANES].chunks_exact(P::Set::LANES);
        let tile: &[f32] = bytemuck::cast_slice(sweep.tile);
        let tile = tile[..sweep.steps * ROWS].as_chunks::<ROWS>().0;
        for (weights, values) in panel.zip(tile) {
            // SAFETY: a register of weights.
            let weights = unsafe { s.load_numbers(weights.as_ptr()) };
            for (value, sum) in values.iter().zip(&mut sums) {
                *sum = s.mul_add(weights, s.numbers(*value), *sum);
            }
        }
        sweep.store_sums(s, sums);
    }
}
