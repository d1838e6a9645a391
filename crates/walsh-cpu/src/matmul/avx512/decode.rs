//! Decoding into registers: 64 codes to a vector, in the order of the values.

use std::arch::x86_64::*;
use std::mem::offset_of;

use half::f16;
use walsh_formats::ggml::{
    BlockIq4Nl, BlockIq4Xs, BlockQ2K, BlockQ3K, BlockQ4_0, BlockQ4_1, BlockQ4K, BlockQ5_0,
    BlockQ5_1, BlockQ5K, BlockQ6K, BlockQ8_0,
};

use crate::matmul::blocks::{
    Decode, IQ4_CODES, IQ4_OFFSET, Primitives, iq4_xs_scales, q3_scales, scales_and_mins,
};
use crate::matmul::x86::X86;

/// Up to 256 decoded values.
pub(super) struct Group {
    /// Codes, 64 to a vector.
    pub(super) codes: [__m512i; 4],
    /// For runs of 16: the scales of sixteen runs. For runs of 32: the scales of eight, then their minima.
    pub(super) scales: __m512,
    /// For runs of 16: the minima.
    pub(super) mins: __m512,
}

/// A block type that decodes into registers.
pub(super) trait Wide: Decode {
    /// Decodes `64 · VECTORS` values; blocks of 256 values ask for four vectors.
    ///
    /// # Safety
    /// The blocks that hold the values are readable, and the machine has AVX-512 with VNNI.
    unsafe fn wide<const VECTORS: usize>(blocks: *const Self) -> Group;
}

/// The expression for each of four vectors. (`from_fn` of an array is not always inlined, and is then compiled without
/// the instruction set.)
macro_rules! four {
    (|$vector:ident| $codes:expr) => {
        [
            four!(@ $vector = 0, $codes),
            four!(@ $vector = 1, $codes),
            four!(@ $vector = 2, $codes),
            four!(@ $vector = 3, $codes),
        ]
    };
    (@ $vector:ident = $number:literal, $codes:expr) => {{
        let $vector: usize = $number;
        $codes
    }};
}

/// `low` in the lower half of the 64-bit lanes, `high` in the upper.
#[inline(always)]
fn halves(low: i64, high: i64) -> __m512i {
    // SAFETY: callers have AVX-512.
    unsafe { _mm512_set_epi64(high, high, high, high, low, low, low, low) }
}

#[inline(always)]
fn bytes(value: u8) -> __m512i {
    // SAFETY: callers have AVX-512.
    unsafe { _mm512_set1_epi8(value as i8) }
}

/// `low` in the lower eight float lanes, `high` in the upper.
#[inline(always)]
fn float_halves(low: f32, high: f32) -> __m512 {
    // SAFETY: callers have AVX-512.
    unsafe { _mm512_mask_blend_ps(0xff00, _mm512_set1_ps(low), _mm512_set1_ps(high)) }
}

/// The nibbles of 16 bytes at each pointer: 32 codes each.
///
/// # Safety
/// The bytes are readable, and the machine has AVX-512.
#[inline(always)]
unsafe fn nibbles(first: *const u8, second: *const u8) -> __m512i {
    // SAFETY: the caller's.
    unsafe {
        let both = _mm512_broadcast_i32x4(_mm_loadu_si128(first.cast()));
        let both = _mm512_mask_broadcast_i32x4(both, 0xff00, _mm_loadu_si128(second.cast()));
        let shifted = _mm512_srlv_epi64(both, _mm512_set_epi64(4, 4, 0, 0, 4, 4, 0, 0));
        _mm512_and_si512(shifted, bytes(15))
    }
}

/// The codes of IQ4 for 64 indices.
#[inline(always)]
pub(super) fn look_up(indices: __m512i) -> __m512i {
    // SAFETY: callers have AVX-512.
    unsafe {
        let table = _mm_loadu_si128(IQ4_CODES.as_ptr().cast());
        _mm512_shuffle_epi8(_mm512_broadcast_i32x4(table), indices)
    }
}

/// The half-precision numbers `offset` bytes into each of `2 · VECTORS` consecutive blocks.
///
/// # Safety
/// The blocks are readable.
#[inline(always)]
unsafe fn gather<B, const VECTORS: usize>(blocks: *const B, offset: usize) -> __m128i {
    let half = |block: usize| {
        if block < 2 * VECTORS {
            // SAFETY: the caller's.
            unsafe {
                blocks
                    .add(block)
                    .cast::<u8>()
                    .add(offset)
                    .cast::<i16>()
                    .read_unaligned()
            }
        } else {
            0
        }
    };
    // SAFETY: callers have AVX-512.
    unsafe {
        _mm_set_epi16(
            half(7),
            half(6),
            half(5),
            half(4),
            half(3),
            half(2),
            half(1),
            half(0),
        )
    }
}

/// Types with blocks of 32 values: their codes, then how the minimum comes from the scale or from its own field.
macro_rules! small_wide {
    ($type:ident, |$first:ident, $second:ident| $codes:expr, $($min:tt)*) => {
        impl Wide for $type {
            #[inline(always)]
            unsafe fn wide<const VECTORS: usize>(blocks: *const Self) -> Group {
                // SAFETY: the caller's.
                unsafe {
                    let mut codes = [_mm512_setzero_si512(); 4];
                    for (vector, codes) in codes.iter_mut().enumerate().take(VECTORS) {
                        let ($first, $second) = (&*blocks.add(2 * vector), &*blocks.add(2 * vector + 1));
                        *codes = $codes;
                    }
                    let d = gather::<Self, VECTORS>(blocks, offset_of!(Self, d));
                    let scales = small_wide!(@scales blocks, d, $($min)*);
                    Group { codes, scales, mins: _mm512_setzero_ps() }
                }
            }
        }
    };
    (@scales $blocks:ident, $d:ident, min = -m) => {{
        let m = gather::<Self, VECTORS>($blocks, offset_of!(Self, m));
        _mm512_mul_ps(_mm512_cvtph_ps(_mm256_set_m128i(m, $d)), float_halves(1.0, -1.0))
    }};
    (@scales $blocks:ident, $d:ident, min = $offset:literal * d) => {
        _mm512_mul_ps(_mm512_cvtph_ps(_mm256_broadcastsi128_si256($d)), float_halves(1.0, $offset))
    };
}

/// Adds 16 to the codes whose bit is set.
#[inline(always)]
fn fifth_bits(codes: __m512i, first: [u8; 4], second: [u8; 4]) -> __m512i {
    let mask = u64::from(u32::from_le_bytes(first)) | u64::from(u32::from_le_bytes(second)) << 32;
    // SAFETY: callers have AVX-512.
    unsafe { _mm512_mask_add_epi8(codes, mask, codes, bytes(16)) }
}

small_wide!(
    BlockQ4_0,
    |a, b| nibbles(a.qs.as_ptr(), b.qs.as_ptr()),
    min = 8.0 * d
);
small_wide!(
    BlockQ4_1,
    |a, b| nibbles(a.qs.as_ptr(), b.qs.as_ptr()),
    min = -m
);
small_wide!(
    BlockQ5_0,
    |a, b| fifth_bits(nibbles(a.qs.as_ptr(), b.qs.as_ptr()), a.qh, b.qh),
    min = 16.0 * d
);
small_wide!(
    BlockQ5_1,
    |a, b| fifth_bits(nibbles(a.qs.as_ptr(), b.qs.as_ptr()), a.qh, b.qh),
    min = -m
);
small_wide!(
    BlockQ8_0,
    |a, b| {
        let first = _mm512_castsi256_si512(_mm256_loadu_si256(a.qs.as_ptr().cast()));
        let both = _mm512_inserti64x4::<1>(first, _mm256_loadu_si256(b.qs.as_ptr().cast()));
        _mm512_xor_si512(both, bytes(0x80))
    },
    min = 128.0 * d
);
small_wide!(
    BlockIq4Nl,
    |a, b| look_up(nibbles(a.qs.as_ptr(), b.qs.as_ptr())),
    min = 128.0 * d
);

const _: () = assert!(IQ4_OFFSET == 128);

#[inline(always)]
fn widen(half: f16) -> f32 {
    // SAFETY: callers have AVX-512, and with it F16C.
    unsafe { X86::widen(half) }
}

/// 32 bytes in both halves.
#[inline(always)]
fn twice(bytes: &[u8]) -> __m512i {
    assert!(bytes.len() >= 32);
    // SAFETY: callers have AVX-512; the length is checked.
    unsafe { _mm512_broadcast_i64x4(_mm256_loadu_si256(bytes.as_ptr().cast())) }
}

/// 64 values of a nibble type of 256: 32 low nibbles, then 32 high ones.
#[inline(always)]
fn nibble_runs(packed: &[u8]) -> __m512i {
    // SAFETY: callers have AVX-512.
    unsafe { _mm512_and_si512(_mm512_srlv_epi64(twice(packed), halves(0, 4)), bytes(15)) }
}

/// 64 values of a two-bit type of 256: runs `2 · vector` and `2 · vector + 1` of 32.
#[inline(always)]
fn bit_pair_runs(packed: &[u8; 64], vector: usize) -> __m512i {
    let shift = 4 * (vector % 2) as i64;
    // SAFETY: callers have AVX-512.
    unsafe {
        let packed = twice(&packed[vector / 2 * 32..]);
        _mm512_and_si512(
            _mm512_srlv_epi64(packed, halves(shift, shift + 2)),
            bytes(3),
        )
    }
}

/// Adds `value` to the codes of a vector whose bit is set in its run's plane of `mask`.
#[inline(always)]
fn add_plane(codes: __m512i, mask: __m512i, vector: usize, value: u8) -> __m512i {
    let plane = |run: usize| i64::from_ne_bytes([1 << run; 8]);
    // SAFETY: callers have AVX-512.
    unsafe {
        let set = _mm512_test_epi8_mask(mask, halves(plane(2 * vector), plane(2 * vector + 1)));
        _mm512_mask_add_epi8(codes, set, codes, bytes(value))
    }
}

/// `d` times sixteen integers, `offset` below what is stored, and `zero` times that as minima.
#[inline(always)]
fn symmetric_runs(d: f32, ints: __m512i, zero: f32) -> (__m512, __m512) {
    // SAFETY: callers have AVX-512.
    unsafe {
        let scales = _mm512_mul_ps(_mm512_cvtepi32_ps(ints), _mm512_set1_ps(d));
        (scales, _mm512_mul_ps(scales, _mm512_set1_ps(zero)))
    }
}

/// Eight scales and eight minima of the types `q4_K` and `q5_K`.
#[inline(always)]
fn asymmetric_runs(d: f16, dmin: f16, packed: &[u8; 12]) -> __m512 {
    // SAFETY: callers have AVX-512.
    unsafe {
        let ints = scales_and_mins(packed);
        let ints = _mm512_cvtepu8_epi32(_mm_loadu_si128(ints.as_ptr().cast()));
        _mm512_mul_ps(
            _mm512_cvtepi32_ps(ints),
            float_halves(widen(d), widen(dmin)),
        )
    }
}

impl Wide for BlockQ2K {
    #[inline(always)]
    unsafe fn wide<const VECTORS: usize>(blocks: *const Self) -> Group {
        // SAFETY: the caller's.
        unsafe {
            let block = &*blocks;
            let packed = _mm_loadu_si128(block.scales.as_ptr().cast());
            let nibbles = _mm512_cvtepu8_epi32(packed);
            let scales = _mm512_and_si512(nibbles, _mm512_set1_epi32(15));
            let mins = _mm512_srli_epi32::<4>(nibbles);
            Group {
                codes: four!(|vector| bit_pair_runs(&block.qs, vector)),
                scales: _mm512_mul_ps(_mm512_cvtepi32_ps(scales), _mm512_set1_ps(widen(block.d))),
                mins: _mm512_mul_ps(_mm512_cvtepi32_ps(mins), _mm512_set1_ps(widen(block.dmin))),
            }
        }
    }
}

impl Wide for BlockQ3K {
    #[inline(always)]
    unsafe fn wide<const VECTORS: usize>(blocks: *const Self) -> Group {
        // SAFETY: the caller's.
        unsafe {
            let block = &*blocks;
            let mask = twice(&block.hmask);
            let ints = q3_scales(&block.scales);
            let ints = _mm512_cvtepu8_epi32(_mm_loadu_si128(ints.as_ptr().cast()));
            let ints = _mm512_sub_epi32(ints, _mm512_set1_epi32(32));
            let (scales, mins) = symmetric_runs(widen(block.d), ints, 4.0);
            Group {
                codes: four!(|vector| {
                    add_plane(bit_pair_runs(&block.qs, vector), mask, vector, 4)
                }),
                scales,
                mins,
            }
        }
    }
}

impl Wide for BlockQ4K {
    #[inline(always)]
    unsafe fn wide<const VECTORS: usize>(blocks: *const Self) -> Group {
        // SAFETY: the caller's.
        unsafe {
            let block = &*blocks;
            Group {
                codes: four!(|vector| nibble_runs(&block.qs[32 * vector..])),
                scales: asymmetric_runs(block.d, block.dmin, &block.scales),
                mins: _mm512_setzero_ps(),
            }
        }
    }
}

impl Wide for BlockQ5K {
    #[inline(always)]
    unsafe fn wide<const VECTORS: usize>(blocks: *const Self) -> Group {
        // SAFETY: the caller's.
        unsafe {
            let block = &*blocks;
            let mask = twice(&block.qh);
            Group {
                codes: four!(|vector| {
                    add_plane(nibble_runs(&block.qs[32 * vector..]), mask, vector, 16)
                }),
                scales: asymmetric_runs(block.d, block.dmin, &block.scales),
                mins: _mm512_setzero_ps(),
            }
        }
    }
}

impl Wide for BlockQ6K {
    #[inline(always)]
    unsafe fn wide<const VECTORS: usize>(blocks: *const Self) -> Group {
        // SAFETY: the caller's.
        unsafe {
            let block = &*blocks;
            let codes = four!(|vector| {
                let low = _mm512_loadu_si512(block.ql.as_ptr().add(vector / 2 * 64).cast());
                let high = twice(&block.qh[vector / 2 * 32..]);
                // Bring the two high bits to bits 4 and 5, where the low nibble ends.
                let (low, high) = if vector.is_multiple_of(2) {
                    (low, _mm512_sllv_epi64(high, halves(4, 2)))
                } else {
                    (
                        _mm512_srli_epi16::<4>(low),
                        _mm512_srlv_epi64(high, halves(0, 2)),
                    )
                };
                // The third operand selects: its bits take `low`, the others `high`.
                let code = _mm512_ternarylogic_epi32::<0xd8>(high, low, bytes(15));
                _mm512_and_si512(code, bytes(63))
            });
            let ints = _mm512_cvtepi8_epi32(_mm_loadu_si128(block.scales.as_ptr().cast()));
            let (scales, mins) = symmetric_runs(widen(block.d), ints, 32.0);
            Group {
                codes,
                scales,
                mins,
            }
        }
    }
}

impl Wide for BlockIq4Xs {
    #[inline(always)]
    unsafe fn wide<const VECTORS: usize>(blocks: *const Self) -> Group {
        // SAFETY: the caller's.
        unsafe {
            let block = &*blocks;
            let codes = four!(|vector| {
                let packed = block.qs.as_ptr().add(32 * vector);
                look_up(nibbles(packed, packed.add(16)))
            });
            let ints = iq4_xs_scales(block);
            let ints = _mm256_cvtepu8_epi32(_mm_loadl_epi64(ints.as_ptr().cast()));
            let ints = _mm256_sub_epi32(ints, _mm256_set1_epi32(32));
            let ints = _mm512_cvtepi32_ps(_mm512_broadcast_i64x4(ints));
            let d = widen(block.d);
            Group {
                codes,
                scales: _mm512_mul_ps(ints, float_halves(d, IQ4_OFFSET as f32 * d)),
                mins: _mm512_setzero_ps(),
            }
        }
    }
}
