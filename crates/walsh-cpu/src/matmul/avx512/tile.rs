//! The tiled kernels' inner loops.

use std::arch::x86_64::*;

use crate::matmul::float::Float;
use crate::matmul::plan::Job;
use crate::matmul::tile::{self, Sweep, TileIsa};
use crate::matmul::x86::X86;

/// The most rows of a tile of floats.
pub(super) const ROWS: usize = 12;

const LANES: usize = 16;

pub(super) struct Avx512;

/// # Safety
/// As for `Kernel`.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) unsafe fn float_product<F: Float>(job: &Job<'_>, scratch: &mut [u8]) {
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
