//! The inner loops of tiled products: a panel in the first-level cache, and a tile whose sums stay in registers.

use std::marker::PhantomData;

use super::blocks::{Decode, zero_shift};
use super::kernel::with_rows;
use super::layout::{BLOCK, BlockQ8};
use super::tile::panel_block;
use crate::simd::{Numbers, Products, Quads, Register, Work};

/// One sweep of a panel by a tile.
pub(super) struct Sweep {
    /// The panel; 64-byte aligned.
    pub(super) panel: *const u8,
    /// The tile's blocks, or interleaved floats, from the piece's start on.
    pub(super) tile: *const u8,
    /// The blocks, or single values for floats, of the piece.
    pub(super) steps: usize,
    /// The sums of the tile's first row: one for each lane.
    pub(super) sums: *mut f32,
    /// How many floats lie between the sums of two rows.
    pub(super) stride: usize,
    /// Whether the sums start from zero.
    pub(super) first: bool,
}

/// Adds the products of a panel of codes and a tile of quantised activations, of at most `MOST` rows, to its sums.
///
/// # Safety
/// The sweep's pointers are good for what their fields say.
#[inline(always)]
pub(super) unsafe fn sweep_codes<P: Products, B: Decode, const MOST: usize>(
    p: P,
    rows: usize,
    sweep: &Sweep,
) {
    with_rows!(rows, MOST, ROWS => p.run(CodeSweep::<B, ROWS> { sweep, block: PhantomData }));
}

/// As [`sweep_codes`], with floats.
///
/// # Safety
/// As there.
#[inline(always)]
pub(super) unsafe fn sweep_floats<P: Products, const MOST: usize>(
    p: P,
    rows: usize,
    sweep: &Sweep,
) {
    with_rows!(rows, MOST, ROWS => p.run(FloatSweep::<ROWS>(sweep)));
}

/// A sweep of `ROWS` rows, whose pointers [`sweep_codes`] has been promised.
struct CodeSweep<'a, B, const ROWS: usize> {
    sweep: &'a Sweep,
    block: PhantomData<B>,
}

/// As [`CodeSweep`], for floats.
struct FloatSweep<'a, const ROWS: usize>(&'a Sweep);

impl Sweep {
    /// The sums that a sweep starts from.
    ///
    /// # Safety
    /// The sweep's sums are good for `ROWS` rows.
    #[inline(always)]
    unsafe fn load_sums<S: Register, const ROWS: usize>(&self, s: S) -> [S::Numbers; ROWS] {
        let mut sums = [s.numbers(0.0); ROWS];
        if !self.first {
            for (row, sum) in sums.iter_mut().enumerate() {
                // SAFETY: the caller's.
                *sum = unsafe { s.load_numbers(self.sums.add(row * self.stride)) };
            }
        }
        sums
    }

    /// # Safety
    /// As for [`load_sums`](Sweep::load_sums).
    #[inline(always)]
    unsafe fn store_sums<S: Register, const ROWS: usize>(&self, s: S, sums: [S::Numbers; ROWS]) {
        for (row, sum) in sums.into_iter().enumerate() {
            // SAFETY: the caller's.
            unsafe { s.store_numbers(self.sums.add(row * self.stride), sum) };
        }
    }
}

impl<P: Products, B: Decode, const ROWS: usize> Work<P> for CodeSweep<'_, B, ROWS> {
    type Output = ();

    #[inline(always)]
    fn on(self, p: P) {
        let (s, sweep) = (p.set(), self.sweep);
        // SAFETY: promised to `sweep_codes`.
        unsafe {
            let mut sums = sweep.load_sums::<_, ROWS>(s);
            let mut step = Step {
                panel: sweep.panel,
                tile: sweep.tile.cast::<BlockQ8>(),
            };
            for _ in 0..sweep.steps {
                step.add::<P, B, ROWS>(p, &mut sums);
                step.panel = step.panel.add(panel_block(P::Set::LANES, B::RUN));
                step.tile = step.tile.add(ROWS);
            }
            sweep.store_sums(s, sums);
        }
    }
}

/// 32 values of a panel and a tile.
struct Step {
    /// 8 columns of quads, then each run's scales and minima.
    panel: *const u8,
    tile: *const BlockQ8,
}

impl Step {
    /// # Safety
    /// The panel and the tile are readable.
    #[inline(always)]
    unsafe fn add<P: Products, B: Decode, const ROWS: usize>(
        &self,
        p: P,
        sums: &mut [Numbers<P>; ROWS],
    ) {
        let (s, lanes) = (p.set(), P::Set::LANES);
        let mut block_sums = [s.numbers(0.0); ROWS];
        // SAFETY: the caller's.
        unsafe {
            let scales = self.panel.add(lanes * BLOCK).cast::<f32>();
            let row = |row: usize| &*self.tile.add(row);
            for run in 0..BLOCK / B::RUN {
                let run_sum = |of: usize| row(of).sums[BlockQ8::sum_of(B::RUN, run)];
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
                p.add_rows(&mut dots, self.panel, |of| row(of).quads.as_ptr(), quads);
                let mins = s.load_numbers(scales.add((2 * run + 1) * lanes));
                let scales = s.load_numbers(scales.add(2 * run * lanes));
                for of in 0..ROWS {
                    let dots = s.to_numbers(dots[of]);
                    let sum = &mut block_sums[of];
                    *sum = if run == 0 || !P::Set::MANY {
                        s.mul(dots, scales)
                    } else {
                        s.mul_add(dots, scales, *sum)
                    };
                    if B::ZERO.is_none() {
                        let run_sum = s.to_numbers(s.words(run_sum(of)));
                        *sum = s.mul_add(mins, run_sum, *sum);
                    }
                    if !P::Set::MANY {
                        sums[of] = s.mul_add(*sum, s.numbers(row(of).scale), sums[of]);
                    }
                }
            }
            if P::Set::MANY {
                for of in 0..ROWS {
                    sums[of] = s.mul_add(block_sums[of], s.numbers(row(of).scale), sums[of]);
                }
            }
        }
    }
}

impl<P: Products, const ROWS: usize> Work<P> for FloatSweep<'_, ROWS> {
    type Output = ();

    #[inline(always)]
    fn on(self, p: P) {
        let (s, sweep) = (p.set(), self.0);
        // SAFETY: promised to `sweep_floats`.
        unsafe {
            let mut sums = sweep.load_sums::<_, ROWS>(s);
            let (mut panel, mut tile) = (sweep.panel.cast::<f32>(), sweep.tile.cast::<f32>());
            for _ in 0..sweep.steps {
                let weights = s.load_numbers(panel);
                for (row, sum) in sums.iter_mut().enumerate() {
                    *sum = s.mul_add(weights, s.numbers(*tile.add(row)), *sum);
                }
                panel = panel.add(P::Set::LANES);
                tile = tile.add(ROWS);
            }
            sweep.store_sums(s, sums);
        }
    }
}
