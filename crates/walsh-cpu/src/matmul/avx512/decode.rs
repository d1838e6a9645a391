//! Decoding into registers: 64 codes to a vector, in the order of the values.

use std::arch::x86_64::*;
use std::mem::offset_of;

use half::f16;
use walsh_formats::ggml::{
    BlockIq4Nl, BlockIq4Xs, BlockQ2K, BlockQ3K, BlockQ4_0, BlockQ4_1, BlockQ4K, BlockQ5_0,
    BlockQ5_1, BlockQ5K, BlockQ6K, BlockQ8_0,
};

use crate::matmul::blocks::{Decode, IQ4_CODES, IQ4_OFFSET, Primitives};
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

/// Where the permutation finds the halves `d` and `m` bytes into each of eight blocks of `size` bytes: in two vectors,
/// the second of which starts with block `second`; what lies further on is counted from the last 64 bytes.
const fn places(size: usize, second: usize, [d, m]: [usize; 2]) -> [u16; 32] {
    let mut places = [0; 32];
    let mut lane = 0;
    while lane < 16 {
        let (block, at) = (lane % 8, if lane < 8 { d } else { m });
        places[lane] = if block < second {
            (block * size + at) / 2
        } else if block < 2 * second {
            32 + ((block - second) * size + at) / 2
        } else {
            // Of larger blocks than are gathered so, whose places are computed all the same, nothing comes of it.
            (64 + at).saturating_sub((8 - block) * size) / 2
        } as u16;
        lane += 1;
    }
    places
}

/// The half-precision numbers `d` bytes into each of `2 · VECTORS` consecutive blocks, then those at `m`.
///
/// # Safety
/// The blocks are readable, and the machine has AVX-512.
#[inline(always)]
unsafe fn gather<B: Small, const VECTORS: usize>(blocks: *const B) -> __m256i {
    // SAFETY: the caller's. The loads lie within eight blocks of 18 bytes or more.
    unsafe {
        // Eight blocks are picked out of whole vectors, as long as each vector holds the halves of three of them.
        let second = const { if 3 * size_of::<B>() + 4 <= 64 { 4 } else { 3 } };
        if VECTORS == 4 && size_of::<B>() <= 24 {
            let load = |at: usize| _mm512_loadu_si512(blocks.cast::<u8>().add(at).cast());
            let places = const {
                let second = if 3 * size_of::<B>() + 4 <= 64 { 4 } else { 3 };
                places(size_of::<B>(), second, B::FIELDS)
            };
            let places = _mm512_loadu_si512(places.as_ptr().cast());
            let mut halves =
                _mm512_permutex2var_epi16(load(0), places, load(second * size_of::<B>()));
            if second == 3 {
                let last = load(8 * size_of::<B>() - 64);
                halves = _mm512_mask_permutexvar_epi16(halves, 0xc0c0, places, last);
            }
            return _mm512_castsi512_si256(halves);
        }
        let eight = |at: usize| {
            let half = |block: usize| {
                if block < 2 * VECTORS {
                    let block = blocks.add(block).cast::<u8>();
                    block.add(at).cast::<i16>().read_unaligned()
                } else {
                    0
                }
            };
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
        };
        let [d, m] = B::FIELDS;
        let low = eight(d);
        _mm256_set_m128i(if d == m { low } else { eight(m) }, low)
    }
}

/// A type with blocks of 32 values.
trait Small: Decode {
    /// The offsets of its scale and of its minimum, or twice that of its scale.
    const FIELDS: [usize; 2];
}

/// Types with blocks of 32 values: their codes, then how the minimum comes from the scale or from its own field.
macro_rules! small_wide {
    ($type:ident, |$first:ident, $second:ident| $codes:expr, $($min:tt)*) => {
        impl Small for $type {
            const FIELDS: [usize; 2] = small_wide!(@fields $($min)*);
        }

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
                    let fields = _mm512_cvtph_ps(gather::<Self, VECTORS>(blocks));
                    let scales = _mm512_mul_ps(fields, small_wide!(@factors $($min)*));
                    Group { codes, scales, mins: _mm512_setzero_ps() }
                }
            }
        }
    };
    (@fields min = -m) => {
        [offset_of!(Self, d), offset_of!(Self, m)]
    };
    (@fields min = $offset:literal * d) => {
        [offset_of!(Self, d); 2]
    };
    (@factors min = -m) => {
        float_halves(1.0, -1.0)
    };
    (@factors min = $offset:literal * d) => {
        float_halves(1.0, $offset)
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

/// Eight scales and eight minima of the types `q4_K` and `q5_K`, whose blocks start with what they are made of.
///
/// # Safety
/// 16 bytes of the block are readable, and the machine has AVX-512.
#[inline(always)]
unsafe fn asymmetric_runs(block: *const u8) -> __m512 {
    // SAFETY: the caller's.
    unsafe {
        // The words: both factors as halves, then `a`, `b` and `c` with the scales' and minima's bits.
        let words = _mm_loadu_si128(block.cast());
        let acbc = _mm_shuffle_epi32::<0b11_10_11_01>(words);
        let low = _mm_and_si128(
            _mm_srlv_epi32(acbc, _mm_set_epi32(4, 0, 0, 0)),
            _mm_set_epi32(0x0f0f_0f0f, 0x3f3f_3f3f, 0x0f0f_0f0f, 0x3f3f_3f3f),
        );
        let high = _mm_srli_epi32::<2>(_mm_shuffle_epi32::<0b10_10_01_01>(words));
        let ints = _mm_ternarylogic_epi32::<0xea>(
            high,
            _mm_set_epi32(0x3030_3030, 0, 0x3030_3030, 0),
            low,
        );
        let factors = _mm512_castps128_ps512(_mm_cvtph_ps(words));
        let lanes = _mm512_set_epi32(1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0);
        _mm512_mul_ps(
            _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(ints)),
            _mm512_permutexvar_ps(lanes, factors),
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
            // The block ends with the scales' words `a`, `b` and `c`, and its factor.
            let last = blocks.add(1).cast::<__m128i>().sub(1);
            let words = _mm_bsrli_si128::<2>(_mm_loadu_si128(last));
            let abab = _mm_shuffle_epi32::<0b01_00_01_00>(words);
            let low = _mm_srlv_epi32(abab, _mm_set_epi32(4, 4, 0, 0));
            let cccc = _mm_shuffle_epi32::<0b10_10_10_10>(words);
            let high = _mm_rorv_epi32(cccc, _mm_set_epi32(2, 0, 30, 28));
            let ints = _mm_or_si128(
                _mm_and_si128(low, _mm_set1_epi8(15)),
                _mm_and_si128(high, _mm_set1_epi8(0x30)),
            );
            let ints = _mm512_sub_epi32(_mm512_cvtepu8_epi32(ints), _mm512_set1_epi32(32));
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
                scales: asymmetric_runs(blocks.cast()),
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
                scales: asymmetric_runs(blocks.cast()),
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
            // Bits 0 to 3 of a scale are those of its nibble; bits 4 and 5 are its pair among the upper half of the
            // block's first word.
            let first = _mm256_set1_epi32(blocks.cast::<i32>().read_unaligned());
            let turns = _mm256_set_epi32(26, 24, 22, 20, 18, 16, 14, 12);
            let high = _mm256_and_si256(_mm256_rorv_epi32(first, turns), _mm256_set1_epi32(0x30));
            let low = _mm256_set1_epi32(i32::from_le_bytes(block.scales_l));
            let low = _mm256_srlv_epi32(low, _mm256_set_epi32(28, 24, 20, 16, 12, 8, 4, 0));
            let low = _mm256_and_si256(low, _mm256_set1_epi32(15));
            let ints = _mm256_sub_epi32(_mm256_or_si256(low, high), _mm256_set1_epi32(32));
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
