//! The tiled kernels' inner loops.

use std::arch::x86_64::*;

use super::decode::Wide;
use crate::matmul::blocks::zero_shift;
use crate::matmul::columns::{Columns, FromPanels};
use crate::matmul::contract::Job;
use crate::matmul::float::Float;
use crate::matmul::layout::{BLOCK, BlockQ8, GROUP};
use crate::matmul::tile::{self, FromRows, Panels, Stage, Staged, Sweep, TileIsa, panel_block};
use crate::matmul::x86::X86;

/// The most rows of a tile: with their integer and float sums, what 32 registers hold.
pub(super) const ROWS: usize = 12;

const LANES: usize = 16;

#[derive(Clone, Copy)]
pub(super) struct Avx512;

/// # Safety
/// As for `Kernel`.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) unsafe fn product<B: Wide>(job: &Job, scratch: &mut [u8]) {
    // SAFETY: the caller's.
    unsafe { tile::product::<Avx512, FromRows, B>(job, scratch) }
}

/// # Safety
/// As for `Kernel`.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) unsafe fn packed_product<B: Wide + Columns>(job: &Job, scratch: &mut [u8]) {
    // SAFETY: the caller's.
    unsafe { tile::product::<Avx512, FromPanels<Avx512>, B>(job, scratch) }
}

/// # Safety
/// As for `Kernel`.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) unsafe fn float_product<F: Float>(job: &Job, scratch: &mut [u8]) {
    // SAFETY: the caller's.
    unsafe { tile::float_product::<Avx512, F>(job, scratch) }
}

/// Calls a kernel with its number of rows as a constant.
macro_rules! with_rows {
    ($rows:expr, $kernel:ident $(, $block:ident)?; $($value:expr),*) => {
        match $rows {
            1 => $kernel::<$($block,)? 1>($($value),*),
            2 => $kernel::<$($block,)? 2>($($value),*),
            3 => $kernel::<$($block,)? 3>($($value),*),
            4 => $kernel::<$($block,)? 4>($($value),*),
            5 => $kernel::<$($block,)? 5>($($value),*),
            6 => $kernel::<$($block,)? 6>($($value),*),
            7 => $kernel::<$($block,)? 7>($($value),*),
            8 => $kernel::<$($block,)? 8>($($value),*),
            9 => $kernel::<$($block,)? 9>($($value),*),
            10 => $kernel::<$($block,)? 10>($($value),*),
            11 => $kernel::<$($block,)? 11>($($value),*),
            12 => $kernel::<$($block,)? 12>($($value),*),
            rows => unreachable!("a tile of {rows} rows"),
        }
    };
}

impl TileIsa for Avx512 {
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
                // Each 128-bit lane of `row(i)` holds four columns of one of the rows i, i + 4, i + 8 and i + 12.
                let quad = |row: usize| _mm_loadu_si128(rows.add(row * stride + column).cast());
                let row = |i: usize| {
                    let low = _mm512_inserti32x4::<1>(_mm512_castsi128_si512(quad(i)), quad(i + 4));
                    _mm512_inserti32x4::<3>(_mm512_inserti32x4::<2>(low, quad(i + 8)), quad(i + 12))
                };
                let (a, b, c, d) = (row(0), row(1), row(2), row(3));
                let (ab_low, ab_high) = (_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
                let (cd_low, cd_high) = (_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
                let out = [
                    _mm512_unpacklo_epi64(ab_low, cd_low),
                    _mm512_unpackhi_epi64(ab_low, cd_low),
                    _mm512_unpacklo_epi64(ab_high, cd_high),
                    _mm512_unpackhi_epi64(ab_high, cd_high),
                ];
                for (i, out) in out.into_iter().enumerate() {
                    if column + i < columns {
                        _mm512_storeu_si512(place(column + i).cast(), out);
                    }
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn sweep_floats(rows: usize, sweep: &Sweep) {
        // SAFETY: the caller's.
        unsafe { with_rows!(rows, multiply_floats; sweep) }
    }
}

impl<B: Wide> Panels<B> for Avx512 {
    #[inline(always)]
    unsafe fn sweep(rows: usize, sweep: &Sweep) {
        // SAFETY: the caller's.
        unsafe { with_rows!(rows, multiply, B; sweep) }
    }
}

impl<B: Wide> Stage<B> for Avx512 {
    #[inline(always)]
    unsafe fn stage(blocks: *const B, values: usize, to: Staged) {
        // SAFETY: the caller's; an odd last block is decoded beside an empty one.
        unsafe {
            for group in 0..values / GROUP {
                stage_group::<B, 4>(blocks.add(group * (GROUP / B::LEN)), group * GROUP, &to);
            }
            let whole = values / GROUP * GROUP;
            for value in (whole..values).step_by(64) {
                let blocks = blocks.add(value / B::LEN);
                if value + 64 <= values {
                    stage_group::<B, 1>(blocks, value, &to);
                } else {
                    let mut last = [B::zeroed(); 2];
                    last[0] = *blocks;
                    stage_group::<B, 1>(last.as_ptr(), value, &to);
                }
            }
        }
    }
}

/// Decodes `64 · VECTORS` values to where value `at` goes.
///
/// # Safety
/// As for [`Stage::stage`].
#[inline(always)]
unsafe fn stage_group<B: Wide, const VECTORS: usize>(blocks: *const B, at: usize, to: &Staged) {
    // SAFETY: the caller's.
    unsafe {
        let group = B::wide::<VECTORS>(blocks);
        for (vector, codes) in group.codes.into_iter().enumerate().take(VECTORS) {
            _mm512_storeu_si512(to.codes.add(at + 64 * vector).cast(), codes);
        }
        let (scales, mins) = (to.scales.add(at / B::RUN), to.mins.add(at / B::RUN));
        if B::RUN == 16 {
            _mm512_storeu_ps(scales, group.scales);
            _mm512_storeu_ps(mins, group.mins);
        } else {
            // A pair of blocks has two scales and room for two.
            let mask = if VECTORS == 4 { 0xff } else { 3 };
            _mm256_mask_storeu_ps(scales, mask, _mm512_castps512_ps256(group.scales));
            _mm256_mask_storeu_ps(mins, mask, _mm512_extractf32x8_ps::<1>(group.scales));
        }
    }
}

/// The sums that a sweep starts from.
///
/// # Safety
/// The sweep's sums are good for `ROWS` rows.
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn load_sums<const ROWS: usize>(sweep: &Sweep) -> [__m512; ROWS] {
    let mut sums = [_mm512_setzero_ps(); ROWS];
    if !sweep.first {
        for (row, sum) in sums.iter_mut().enumerate() {
            // SAFETY: the caller's.
            *sum = unsafe { _mm512_loadu_ps(sweep.sums.add(row * sweep.stride)) };
        }
    }
    sums
}

/// # Safety
/// As for [`load_sums`].
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn store_sums<const ROWS: usize>(sweep: &Sweep, sums: [__m512; ROWS]) {
    for (row, sum) in sums.into_iter().enumerate() {
        // SAFETY: the caller's.
        unsafe { _mm512_storeu_ps(sweep.sums.add(row * sweep.stride), sum) };
    }
}

/// # Safety
/// As for [`Panels::sweep`], with `ROWS` rows.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn multiply<B: Wide, const ROWS: usize>(sweep: &Sweep) {
    // SAFETY: the caller's.
    unsafe {
        let mut sums = load_sums::<ROWS>(sweep);
        let mut panel = sweep.panel;
        let mut records = sweep.tile.cast::<BlockQ8>();
        for _ in 0..sweep.steps {
            let vectors = panel.add(LANES * BLOCK).cast::<f32>();
            let mut block_sums = [_mm512_setzero_ps(); ROWS];
            for run in 0..BLOCK / B::RUN {
                let which = BlockQ8::sum_of(B::RUN, run);
                let mut dots = [_mm512_setzero_si512(); ROWS];
                if let Some(shift) = const { zero_shift(B::ZERO) } {
                    for (row, dot) in dots.iter_mut().enumerate() {
                        let sum = _mm512_set1_epi32((*records.add(row)).sums[which]);
                        *dot = _mm512_sll_epi32(sum, _mm_cvtsi32_si128(shift));
                    }
                }
                for quad in run * B::RUN / 4..(run + 1) * B::RUN / 4 {
                    let codes = _mm512_load_si512(panel.add(quad * LANES * 4).cast());
                    for (row, dot) in dots.iter_mut().enumerate() {
                        let values = _mm512_set1_epi32((*records.add(row)).quads[quad]);
                        *dot = _mm512_dpbusd_epi32(*dot, codes, values);
                    }
                }
                let scales = _mm512_load_ps(vectors.add(2 * run * LANES));
                let mins = _mm512_load_ps(vectors.add((2 * run + 1) * LANES));
                for row in 0..ROWS {
                    let dots = _mm512_cvtepi32_ps(dots[row]);
                    let sum = &mut block_sums[row];
                    *sum = if run == 0 {
                        _mm512_mul_ps(dots, scales)
                    } else {
                        _mm512_fmadd_ps(dots, scales, *sum)
                    };
                    if B::ZERO.is_none() {
                        let run_sum = _mm512_set1_epi32((*records.add(row)).sums[which]);
                        *sum = _mm512_fmadd_ps(mins, _mm512_cvtepi32_ps(run_sum), *sum);
                    }
                }
            }
            for row in 0..ROWS {
                let scale = _mm512_set1_ps((*records.add(row)).scale);
                sums[row] = _mm512_fmadd_ps(block_sums[row], scale, sums[row]);
            }
            panel = panel.add(panel_block(LANES, B::RUN));
            records = records.add(ROWS);
        }
        store_sums(sweep, sums);
    }
}

/// # Safety
/// As for [`TileIsa::sweep_floats`], with `ROWS` rows.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn multiply_floats<const ROWS: usize>(sweep: &Sweep) {
    // SAFETY: the caller's.
    unsafe {
        let mut sums = load_sums::<ROWS>(sweep);
        let (mut panel, mut tile) = (sweep.panel.cast::<f32>(), sweep.tile.cast::<f32>());
        for _ in 0..sweep.steps {
            let weights = _mm512_load_ps(panel);
            for (row, sum) in sums.iter_mut().enumerate() {
                *sum = _mm512_fmadd_ps(weights, _mm512_set1_ps(*tile.add(row)), *sum);
            }
            panel = panel.add(LANES);
            tile = tile.add(ROWS);
        }
        store_sums(sweep, sums);
    }
}
