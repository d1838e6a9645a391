//! The tiled kernels' inner loops.

use std::arch::x86_64::*;

use super::{
    Avx2, Codes, MULTIPLY_ADD, VEX, add_dot, pairs_in_16_bits, transpose_quads, widen_pairs,
};
use crate::matmul::blocks::{Decode, zero_shift};
use crate::matmul::columns::{Columns, FromPanels};
use crate::matmul::contract::Job;
use crate::matmul::float::Float;
use crate::matmul::layout::{BLOCK, BlockQ8};
use crate::matmul::tile::{self, FromRows, Panels, Sweep, TileIsa, panel_block};
use crate::matmul::x86::X86;

/// The most rows of a tile of quantised activations: with their integer and float sums, what 16 registers hold. AVX2's
/// own instructions need sums of 16 bits beside those.
pub(super) const fn rows(dot: u8) -> usize {
    if dot == MULTIPLY_ADD { 4 } else { 6 }
}

/// The most rows of a tile of floats.
pub(super) const FLOAT_ROWS: usize = 12;

pub(super) const LANES: usize = 8;

/// # Safety
/// As for `Kernel`.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn product<B: Decode, const DOT: u8>(job: &Job, scratch: &mut [u8]) {
    // SAFETY: the caller's.
    unsafe { tile::product::<Avx2<DOT>, FromRows, B>(job, scratch) }
}

/// Panels hold codes as decoding for the dot product gives them, raised by 128 where they are full 8-bit codes, whichever
/// instructions multiply them.
///
/// # Safety
/// As for `Kernel`.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn packed_product<B: Columns, const DOT: u8>(job: &Job, scratch: &mut [u8]) {
    // SAFETY: the caller's; nothing is multiplied while panels are filled.
    unsafe { tile::product::<Avx2<DOT>, FromPanels<Avx2<VEX>>, B>(job, scratch) }
}

/// # Safety
/// As for `Kernel`.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn float_product<F: Float>(job: &Job, scratch: &mut [u8]) {
    // SAFETY: the caller's.
    unsafe { tile::float_product::<Avx2<MULTIPLY_ADD>, F>(job, scratch) }
}

impl<const DOT: u8> TileIsa for Avx2<DOT> {
    const LANES: usize = LANES;
    type Primitives = X86;

    #[inline(always)]
    unsafe fn transpose(
        rows: *const u32,
        stride: usize,
        columns: usize,
        place: impl Fn(usize) -> *mut u32,
    ) {
        for column in (0..columns).step_by(4) {
            // SAFETY: the caller's.
            unsafe {
                let quad = |row: usize| _mm_loadu_si128(rows.add(row * stride + column).cast());
                let out = transpose_quads(quad);
                for (i, out) in out.into_iter().enumerate() {
                    if column + i < columns {
                        _mm256_storeu_si256(place(column + i).cast(), out);
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
                9 => multiply_floats::<9>(sweep),
                10 => multiply_floats::<10>(sweep),
                11 => multiply_floats::<11>(sweep),
                12 => multiply_floats::<12>(sweep),
                rows => unreachable!("a tile of {rows} rows"),
            }
        }
    }
}

impl<B: Decode, const DOT: u8> Panels<B> for Avx2<DOT> {
    #[inline(always)]
    unsafe fn sweep(rows: usize, sweep: &Sweep) {
        // SAFETY: the caller's.
        unsafe {
            match rows {
                1 => multiply::<B, DOT, 1>(sweep),
                2 => multiply::<B, DOT, 2>(sweep),
                3 => multiply::<B, DOT, 3>(sweep),
                4 => multiply::<B, DOT, 4>(sweep),
                5 => multiply::<B, DOT, 5>(sweep),
                6 => multiply::<B, DOT, 6>(sweep),
                rows => unreachable!("a tile of {rows} rows"),
            }
        }
    }
}

/// The sums that a sweep starts from.
///
/// # Safety
/// The sweep's sums are good for `ROWS` rows, and the machine has AVX2.
#[inline(always)]
unsafe fn load_sums<const ROWS: usize>(sweep: &Sweep) -> [__m256; ROWS] {
    // SAFETY: the caller's.
    unsafe {
        let mut sums = [_mm256_setzero_ps(); ROWS];
        if !sweep.first {
            for (row, sum) in sums.iter_mut().enumerate() {
                *sum = _mm256_loadu_ps(sweep.sums.add(row * sweep.stride));
            }
        }
        sums
    }
}

/// # Safety
/// As for [`load_sums`].
#[inline(always)]
unsafe fn store_sums<const ROWS: usize>(sweep: &Sweep, sums: [__m256; ROWS]) {
    for (row, sum) in sums.into_iter().enumerate() {
        // SAFETY: the caller's.
        unsafe { _mm256_storeu_ps(sweep.sums.add(row * sweep.stride), sum) };
    }
}

/// # Safety
/// As for [`Panels::sweep`], with `ROWS` rows.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn multiply<B: Decode, const DOT: u8, const ROWS: usize>(sweep: &Sweep) {
    let together = const { pairs_in_16_bits(B::TOP) };
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
                let mut dots = [_mm256_setzero_si256(); ROWS];
                // Full 8-bit codes are signed for AVX2's own instructions, and stand for zero themselves.
                let offset = DOT != MULTIPLY_ADD || B::TOP != 255;
                if let (Some(shift), true) = (const { zero_shift(B::ZERO) }, offset) {
                    for (row, dots) in dots.iter_mut().enumerate() {
                        let sum = _mm256_set1_epi32(run_sum(row));
                        *dots = _mm256_sll_epi32(sum, _mm_cvtsi32_si128(shift));
                    }
                }
                let quads = run * B::RUN / 4..(run + 1) * B::RUN / 4;
                if DOT == MULTIPLY_ADD {
                    for first in quads.clone().step_by(together) {
                        let mut pairs = [_mm256_setzero_si256(); ROWS];
                        for quad in first..quads.end.min(first + together) {
                            let codes = Codes::load::<B>(panel.add(quad * LANES * 4));
                            for (row, pairs) in pairs.iter_mut().enumerate() {
                                let values = _mm256_set1_epi32(record(row).quads[quad]);
                                *pairs = _mm256_add_epi16(*pairs, codes.times::<B>(values));
                            }
                        }
                        for (dots, pairs) in dots.iter_mut().zip(pairs) {
                            *dots = _mm256_add_epi32(*dots, widen_pairs(pairs));
                        }
                    }
                } else {
                    for quad in quads {
                        let codes = _mm256_loadu_si256(panel.add(quad * LANES * 4).cast());
                        for (row, dots) in dots.iter_mut().enumerate() {
                            let values = _mm256_set1_epi32(record(row).quads[quad]);
                            *dots = add_dot::<DOT>(*dots, codes, values);
                        }
                    }
                }
                let scales = _mm256_loadu_ps(vectors.add(2 * run * LANES));
                let mins = _mm256_loadu_ps(vectors.add((2 * run + 1) * LANES));
                for row in 0..ROWS {
                    let mut sum = _mm256_mul_ps(_mm256_cvtepi32_ps(dots[row]), scales);
                    if B::ZERO.is_none() {
                        let run_sum = _mm256_cvtepi32_ps(_mm256_set1_epi32(run_sum(row)));
                        sum = _mm256_fmadd_ps(mins, run_sum, sum);
                    }
                    let scale = _mm256_set1_ps(record(row).scale);
                    sums[row] = _mm256_fmadd_ps(sum, scale, sums[row]);
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
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn multiply_floats<const ROWS: usize>(sweep: &Sweep) {
    // SAFETY: the caller's.
    unsafe {
        let mut sums = load_sums::<ROWS>(sweep);
        let (mut panel, mut tile) = (sweep.panel.cast::<f32>(), sweep.tile.cast::<f32>());
        for _ in 0..sweep.steps {
            let weights = _mm256_loadu_ps(panel);
            for (row, sum) in sums.iter_mut().enumerate() {
                *sum = _mm256_fmadd_ps(weights, _mm256_set1_ps(*tile.add(row)), *sum);
            }
            panel = panel.add(LANES);
            tile = tile.add(ROWS);
        }
        store_sums(sweep, sums);
    }
}
