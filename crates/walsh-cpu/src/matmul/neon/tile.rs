//! The tiled kernels' inner loops.

use std::arch::aarch64::*;

use super::{Neon, NeonPrimitives, dot, dot_halves, load_codes};
use crate::matmul::blocks::{Decode, zero_shift};
use crate::matmul::contract::{Job, Kernel};
use crate::matmul::float::Float;
use crate::matmul::layout::{BLOCK, BlockQ8};
use crate::matmul::tile::{self, FromRows, Panels, Sweep, TileIsa, panel_block};

/// The most rows of a tile of quantised activations: with two vectors each of integer and float sums, what 32
/// registers hold.
pub(super) const ROWS: usize = 6;

/// The most rows of a tile of floats.
pub(super) const FLOAT_ROWS: usize = 8;

/// Two vectors of four.
pub(super) const LANES: usize = 8;

/// The kernel for block-quantised weights.
pub(super) fn product<B: Decode, const DOT: bool, const MATRIX: bool>() -> Kernel {
    if MATRIX {
        product_with_matrix::<B>
    } else if DOT {
        product_with_dot::<B>
    } else {
        product_without_dot::<B>
    }
}

/// # Safety
/// As for [`Kernel`].
#[target_feature(enable = "neon,dotprod")]
unsafe fn product_with_dot<B: Decode>(job: &Job, scratch: &mut [u8]) {
    // SAFETY: the caller's.
    unsafe { tile::product::<Neon<true, false>, FromRows, B>(job, scratch) }
}

/// # Safety
/// As for [`Kernel`].
#[target_feature(enable = "neon,i8mm")]
unsafe fn product_with_matrix<B: Decode>(job: &Job, scratch: &mut [u8]) {
    // SAFETY: the caller's.
    unsafe { tile::product::<Neon<true, true>, FromRows, B>(job, scratch) }
}

/// # Safety
/// As for [`Kernel`].
unsafe fn product_without_dot<B: Decode>(job: &Job, scratch: &mut [u8]) {
    // SAFETY: the caller's.
    unsafe { tile::product::<Neon<false, false>, FromRows, B>(job, scratch) }
}

/// # Safety
/// As for [`Kernel`].
pub(super) unsafe fn float_product<F: Float>(job: &Job, scratch: &mut [u8]) {
    // SAFETY: the caller's.
    unsafe { tile::float_product::<Neon<false, false>, F>(job, scratch) }
}

impl<const DOT: bool, const MATRIX: bool> TileIsa for Neon<DOT, MATRIX> {
    const LANES: usize = LANES;
    type Primitives = NeonPrimitives;

    #[inline(always)]
    unsafe fn transpose(
        rows: *const u32,
        stride: usize,
        columns: usize,
        place: impl Fn(usize) -> *mut u32,
    ) {
        for column in (0..columns).step_by(4) {
            for lane in [0, 4] {
                // SAFETY: the caller's.
                unsafe {
                    let row = |i: usize| vld1q_u32(rows.add((lane + i) * stride + column));
                    let (a, b, c, d) = (row(0), row(1), row(2), row(3));
                    let pairs = |a, b| {
                        (
                            vreinterpretq_u64_u32(vzip1q_u32(a, b)),
                            vreinterpretq_u64_u32(vzip2q_u32(a, b)),
                        )
                    };
                    let ((ab_low, ab_high), (cd_low, cd_high)) = (pairs(a, b), pairs(c, d));
                    let out = [
                        vzip1q_u64(ab_low, cd_low),
                        vzip2q_u64(ab_low, cd_low),
                        vzip1q_u64(ab_high, cd_high),
                        vzip2q_u64(ab_high, cd_high),
                    ];
                    for (i, out) in out.into_iter().enumerate() {
                        if column + i < columns {
                            vst1q_u32(place(column + i).add(lane), vreinterpretq_u32_u64(out));
                        }
                    }
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn sweep_floats(rows: usize, sweep: &Sweep) {
        // SAFETY: the caller's.
        unsafe {
            match rows {
                1 => multiply_floats::<1>(sweep),
                2 => multiply_floats::<2>(sweep),
                3 => multiply_floats::<3>(sweep),
                4 => multiply_floats::<4>(sweep),
                5 => multiply_floats::<5>(sweep),
                6 => multiply_floats::<6>(sweep),
                7 => multiply_floats::<7>(sweep),
                8 => multiply_floats::<8>(sweep),
                rows => unreachable!("a tile of {rows} rows"),
            }
        }
    }
}

impl<B: Decode, const DOT: bool, const MATRIX: bool> Panels<B> for Neon<DOT, MATRIX> {
    #[inline(always)]
    unsafe fn sweep(rows: usize, sweep: &Sweep) {
        // SAFETY: the caller's.
        unsafe {
            match rows {
                1 => multiply::<B, Neon<DOT, MATRIX>, 1>(sweep),
                2 => multiply::<B, Neon<DOT, MATRIX>, 2>(sweep),
                3 => multiply::<B, Neon<DOT, MATRIX>, 3>(sweep),
                4 => multiply::<B, Neon<DOT, MATRIX>, 4>(sweep),
                5 => multiply::<B, Neon<DOT, MATRIX>, 5>(sweep),
                6 => multiply::<B, Neon<DOT, MATRIX>, 6>(sweep),
                rows => unreachable!("a tile of {rows} rows"),
            }
        }
    }
}

/// The eight lanes of a panel.
type Lanes = [float32x4_t; 2];

/// Eight floats.
///
/// # Safety
/// They are readable.
#[inline(always)]
unsafe fn load(from: *const f32) -> Lanes {
    // SAFETY: the caller's.
    unsafe { [vld1q_f32(from), vld1q_f32(from.add(4))] }
}

/// The sums that a sweep starts from.
///
/// # Safety
/// The sweep's sums are good for `ROWS` rows.
#[inline(always)]
unsafe fn load_sums<const ROWS: usize>(sweep: &Sweep) -> [Lanes; ROWS] {
    // SAFETY: the caller's.
    unsafe {
        let mut sums = [[vdupq_n_f32(0.0); 2]; ROWS];
        if !sweep.first {
            for (row, sum) in sums.iter_mut().enumerate() {
                *sum = load(sweep.sums.add(row * sweep.stride));
            }
        }
        sums
    }
}

/// # Safety
/// As for [`load_sums`].
#[inline(always)]
unsafe fn store_sums<const ROWS: usize>(sweep: &Sweep, sums: [Lanes; ROWS]) {
    for (row, sum) in sums.into_iter().enumerate() {
        // SAFETY: the caller's.
        unsafe {
            let to = sweep.sums.add(row * sweep.stride);
            vst1q_f32(to, sum[0]);
            vst1q_f32(to.add(4), sum[1]);
        }
    }
}

/// How a run of a panel is multiplied.
trait Quads<B: Decode> {
    /// Adds the products of a run's codes, quads of the panel's lanes, with the activations of some rows, of which
    /// `values` gives the run's first quad.
    ///
    /// # Safety
    /// The pointers are good for a run, and the machine has the instruction set.
    unsafe fn add<const ROWS: usize>(
        dots: &mut [[int32x4_t; 2]; ROWS],
        codes: *const u8,
        values: impl Fn(usize) -> *const i32,
    );
}

impl<B: Decode, const DOT: bool, const MATRIX: bool> Quads<B> for Neon<DOT, MATRIX> {
    #[inline(always)]
    unsafe fn add<const ROWS: usize>(
        dots: &mut [[int32x4_t; 2]; ROWS],
        codes: *const u8,
        values: impl Fn(usize) -> *const i32,
    ) {
        // SAFETY: the caller's.
        unsafe {
            if MATRIX {
                return add_squares::<B, ROWS>(dots, codes, values);
            }
            for quad in 0..B::RUN / 4 {
                let codes = codes.add(quad * LANES * 4);
                let codes = [load_codes::<B>(codes), load_codes::<B>(codes.add(16))];
                for (row, dots) in dots.iter_mut().enumerate() {
                    let values = vreinterpretq_s8_s32(vdupq_n_s32(*values(row).add(quad)));
                    for (dots, codes) in dots.iter_mut().zip(codes) {
                        *dots = dot::<DOT>(*dots, codes, values);
                    }
                }
            }
        }
    }
}

/// [`Quads::add`] by squares of two rows and two lanes. The second row of the last square of an odd number is the first
/// again.
///
/// # Safety
/// As there.
#[inline(always)]
unsafe fn add_squares<B: Decode, const ROWS: usize>(
    dots: &mut [[int32x4_t; 2]; ROWS],
    codes: *const u8,
    values: impl Fn(usize) -> *const i32,
) {
    // SAFETY: the caller's; a run has an even number of quads.
    unsafe {
        // Only one for each pair of rows is used; the compiler drops the others.
        let mut squares = [[vdupq_n_s32(0); 4]; ROWS];
        for two in (0..B::RUN / 4).step_by(2) {
            let quads = |at: usize| {
                vreinterpretq_s32_s8(load_codes::<B>(codes.add(two * LANES * 4 + 16 * at)))
            };
            let (low, high) = ([quads(0), quads(2)], [quads(1), quads(3)]);
            let codes = [
                vzip1q_s32(low[0], low[1]),
                vzip2q_s32(low[0], low[1]),
                vzip1q_s32(high[0], high[1]),
                vzip2q_s32(high[0], high[1]),
            ];
            for pair in 0..ROWS.div_ceil(2) {
                let eight = |row: usize| vld1_s32(values(row.min(ROWS - 1)).add(two));
                let values = vcombine_s32(eight(2 * pair), eight(2 * pair + 1));
                for (square, codes) in squares[pair].iter_mut().zip(codes) {
                    let (values, codes) =
                        (vreinterpretq_s8_s32(values), vreinterpretq_s8_s32(codes));
                    *square = dot_halves(*square, values, codes);
                }
            }
        }
        for (row, dots) in dots.iter_mut().enumerate() {
            let square = squares[row / 2].map(|square| vreinterpretq_s64_s32(square));
            for (half, dots) in dots.iter_mut().enumerate() {
                let (a, b) = (square[2 * half], square[2 * half + 1]);
                let lanes = if row % 2 == 0 {
                    vzip1q_s64(a, b)
                } else {
                    vzip2q_s64(a, b)
                };
                *dots = vaddq_s32(*dots, vreinterpretq_s32_s64(lanes));
            }
        }
    }
}

/// # Safety
/// As for [`Panels::sweep`], with `ROWS` rows.
#[inline(always)]
unsafe fn multiply<B: Decode, T: Quads<B>, const ROWS: usize>(sweep: &Sweep) {
    // SAFETY: the caller's.
    unsafe {
        let mut sums = load_sums::<ROWS>(sweep);
        let mut panel = sweep.panel;
        let mut records = sweep.tile.cast::<BlockQ8>();
        for _ in 0..sweep.steps {
            let record = |row: usize| &*records.add(row);
            let vectors = panel.add(LANES * BLOCK).cast::<f32>();
            for run in 0..BLOCK / B::RUN {
                let run_sum = |row: usize| record(row).sums[BlockQ8::sum_of(B::RUN, run)];
                let mut dots = [[vdupq_n_s32(0); 2]; ROWS];
                // Full 8-bit codes are signed here, and stand for zero themselves.
                if let (Some(shift), true) = (const { zero_shift(B::ZERO) }, B::TOP != 255) {
                    for (row, dots) in dots.iter_mut().enumerate() {
                        *dots = [vdupq_n_s32(run_sum(row) << shift); 2];
                    }
                }
                <T as Quads<B>>::add(&mut dots, panel.add(run * B::RUN * LANES), |row| {
                    record(row).quads.as_ptr().add(run * B::RUN / 4)
                });
                let scales = load(vectors.add(2 * run * LANES));
                let mins = load(vectors.add((2 * run + 1) * LANES));
                for row in 0..ROWS {
                    for half in 0..2 {
                        let mut sum = vmulq_f32(vcvtq_f32_s32(dots[row][half]), scales[half]);
                        if B::ZERO.is_none() {
                            sum = vfmaq_n_f32(sum, mins[half], run_sum(row) as f32);
                        }
                        sums[row][half] = vfmaq_n_f32(sums[row][half], sum, record(row).scale);
                    }
                }
            }
            panel = panel.add(panel_block(LANES, B::RUN));
            records = records.add(ROWS);
        }
        store_sums(sweep, sums);
    }
}

/// # Safety
/// As for [`TileIsa::sweep_floats`], with `ROWS` rows.
unsafe fn multiply_floats<const ROWS: usize>(sweep: &Sweep) {
    // SAFETY: the caller's.
    unsafe {
        let mut sums = load_sums::<ROWS>(sweep);
        let (mut panel, mut tile) = (sweep.panel.cast::<f32>(), sweep.tile.cast::<f32>());
        for _ in 0..sweep.steps {
            let weights = load(panel);
            for (row, sum) in sums.iter_mut().enumerate() {
                for (sum, weights) in sum.iter_mut().zip(weights) {
                    *sum = vfmaq_n_f32(*sum, weights, *tile.add(row));
                }
            }
            panel = panel.add(LANES);
            tile = tile.add(ROWS);
        }
        store_sums(sweep, sums);
    }
}
