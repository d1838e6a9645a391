//! AVX2 kernels, with the 8-bit dot product of VNNI where it is asked for.
//!
//! That dot product adds in 32 bits and takes any codes. AVX-VNNI encodes it with a VEX prefix, AVX-512 VNNI with an EVEX
//! prefix: which of the two a machine has is found at run time, and nothing else differs.
//!
//! AVX2's own multiply-add of bytes adds pairs of products in 16 bits. Codes up to 63 leave room for at least one more
//! pair; full 8-bit codes would overflow, so theirs are brought back to signed numbers, whose magnitude is multiplied by the
//! activation with the code's sign. Such types are symmetric, and lose their minimum with the offset.

use std::arch::x86_64::*;
use std::ops::Range;

use super::blocks::{Decode, with_block};
use super::contract::{InputLayout, Kernel, Kernels, ProductShape};
use super::float::{Blocks, with_float};
use super::input::PlainQuantise;
use super::layout::BLOCK;
use super::stream;
use super::tile::{Stage, Staged, stage_plainly};
use super::x86::X86;
use crate::isa::Isa;

mod dot;
mod tile;
mod vectors;

pub(super) static KERNELS: Kernels = table::<MULTIPLY_ADD>(Isa::Avx2);

/// The kernels with the dot product, in the encoding that this machine has.
pub(super) fn vnni() -> &'static Kernels {
    static VEX_KERNELS: Kernels = table::<VEX>(Isa::AvxVnni);
    static EVEX_KERNELS: Kernels = table::<EVEX>(Isa::AvxVnni);
    // The macro keeps what it finds.
    if is_x86_feature_detected!("avxvnni") {
        &VEX_KERNELS
    } else {
        &EVEX_KERNELS
    }
}

const fn table<const DOT: u8>(isa: Isa) -> Kernels {
    Kernels {
        isa,
        dot_rows: dot::ROWS,
        float_dot_rows: dot::ROWS,
        tile_rows: tile_rows::<DOT>,
        float_tile_rows: tile::FLOAT_ROWS,
        packs: Some(vectors::transpose),
        panel_rows: tile::LANES,
        prepare,
        dot: dot_kernel::<DOT>,
        tile: tile_kernel::<DOT>,
        float_dot: float_dot_kernel,
        float_tile: float_tile_kernel,
    }
}

/// How bytes are multiplied and added: by AVX2's instructions,
const MULTIPLY_ADD: u8 = 0;
/// by the dot product in its VEX encoding (AVX-VNNI),
const VEX: u8 = 1;
/// or in its EVEX encoding (AVX-512 VNNI and VL).
const EVEX: u8 = 2;

#[derive(Clone, Copy)]
struct Avx2<const DOT: u8>;

/// # Safety
/// As for [`InputLayout::prepare`].
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn prepare(layout: &InputLayout, items: Range<usize>, input: *const f32, prepared: *mut u8) {
    // SAFETY: the caller's.
    unsafe { layout.prepare_with::<PlainQuantise>(items, input, prepared) }
}

fn dot_kernel<const DOT: u8>(shape: ProductShape) -> Kernel {
    with_block!(shape.weight, B => dot::blocks::<B, DOT>(shape.m), else => unreachable!("other weights take floats"))
}

/// The most rows that all packed weights are streamed for. They make a single tile in either way.
const STREAM_ROWS: usize = 4;

/// Whether packed weights are decoded into registers and multiplied there: with few rows, and where products are not summed
/// over all of a block before they are widened or scaled. What a tile's rows share, loads of codes, is little beside that,
/// and their sums leave it too few registers.
fn streams<const DOT: u8>(shape: ProductShape) -> bool {
    let short = with_block!(shape.weight, B => {
        B::RUN < BLOCK || DOT == MULTIPLY_ADD && pairs_in_16_bits(B::TOP) < BLOCK / 4
    }, else => false);
    shape.packed && (shape.m <= STREAM_ROWS || short)
}

fn tile_rows<const DOT: u8>(shape: ProductShape) -> usize {
    if streams::<DOT>(shape) {
        stream::ROWS
    } else {
        tile::rows(DOT)
    }
}

fn tile_kernel<const DOT: u8>(shape: ProductShape) -> Kernel {
    with_block!(shape.weight, B => {
        match (shape.packed, streams::<DOT>(shape)) {
            _ if shape.is_packed_row() => vectors::packed_row::<B, DOT> as Kernel,
            (true, true) => vectors::packed_rows::<B, DOT>,
            (true, false) => tile::packed_product::<B, DOT>,
            (false, _) => tile::product::<B, DOT>,
        }
    }, else => unreachable!("other weights take floats"))
}

fn float_dot_kernel(shape: ProductShape) -> Kernel {
    with_block!(shape.weight, B => dot::floats::<Blocks<B>>(shape.m), else => {
        with_float!(shape.weight, F => dot::floats::<F>(shape.m), else => unreachable!("plans refuse other types"))
    })
}

fn float_tile_kernel(shape: ProductShape) -> Kernel {
    with_block!(shape.weight, B => tile::float_product::<Blocks<B>> as Kernel, else => {
        with_float!(shape.weight, F => tile::float_product::<F> as Kernel, else => unreachable!("plans refuse other types"))
    })
}

impl<B: Decode, const DOT: u8> Stage<B> for Avx2<DOT> {
    #[inline(always)]
    unsafe fn stage(blocks: *const B, values: usize, to: Staged) {
        // SAFETY: the caller's.
        unsafe { stage_plainly::<B, X86>(blocks, values, to) }
    }
}

/// Codes, ready to be multiplied: for full 8-bit codes their magnitude, and the signed code for its sign.
#[derive(Clone, Copy)]
struct Codes {
    magnitude: __m256i,
    signed: __m256i,
}

impl Codes {
    /// # Safety
    /// 32 codes are readable, and the machine has AVX2.
    #[inline(always)]
    unsafe fn load<B: Decode>(codes: *const u8) -> Codes {
        // SAFETY: the caller's.
        unsafe {
            let codes = _mm256_loadu_si256(codes.cast());
            let signed = _mm256_xor_si256(codes, _mm256_set1_epi8(-128));
            let magnitude = if B::TOP == 255 {
                _mm256_abs_epi8(signed)
            } else {
                codes
            };
            Codes { magnitude, signed }
        }
    }

    /// Codes that are signed numbers where they are full 8-bit codes.
    ///
    /// # Safety
    /// The machine has AVX2.
    #[inline(always)]
    unsafe fn of_signed<B: Decode>(signed: __m256i) -> Codes {
        let magnitude = if B::TOP == 255 {
            // SAFETY: the caller's.
            unsafe { _mm256_abs_epi8(signed) }
        } else {
            signed
        };
        Codes { magnitude, signed }
    }

    /// The activations with the signs of the codes whose magnitudes are multiplied.
    ///
    /// # Safety
    /// The machine has AVX2.
    #[inline(always)]
    unsafe fn sign<B: Decode>(self, values: __m256i) -> __m256i {
        if B::TOP == 255 {
            // SAFETY: the caller's.
            unsafe { _mm256_sign_epi8(values, self.signed) }
        } else {
            values
        }
    }

    /// The products with 32 activations, added in pairs.
    ///
    /// # Safety
    /// The machine has AVX2.
    #[inline(always)]
    unsafe fn times<B: Decode>(self, values: __m256i) -> __m256i {
        // SAFETY: the caller's.
        unsafe { _mm256_maddubs_epi16(self.magnitude, self.sign::<B>(values)) }
    }

    /// The products with 32 activations, added in fours.
    ///
    /// # Safety
    /// The machine has what `DOT` says.
    #[inline(always)]
    unsafe fn dot<B: Decode, const DOT: u8>(self, values: __m256i) -> __m256i {
        // SAFETY: the caller's.
        unsafe {
            if DOT == MULTIPLY_ADD {
                widen_pairs(self.times::<B>(values))
            } else {
                let values = self.sign::<B>(values);
                add_dot::<DOT>(_mm256_setzero_si256(), self.magnitude, values)
            }
        }
    }
}

/// Adds the products of four pairs of unsigned and signed bytes to each 32-bit lane.
///
/// # Safety
/// The machine has the dot product in the encoding `DOT`.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn add_dot<const DOT: u8>(mut sum: __m256i, codes: __m256i, values: __m256i) -> __m256i {
    // Not the intrinsics: a kernel with a feature of AVX-512 enabled would have more of it than this instruction.
    // SAFETY: the caller's.
    unsafe {
        if DOT == VEX {
            std::arch::asm!(
                "{{vex}} vpdpbusd {sum}, {codes}, {values}",
                sum = inout(ymm_reg) sum,
                codes = in(ymm_reg) codes,
                values = in(ymm_reg) values,
                options(pure, nomem, nostack, preserves_flags),
            );
        } else {
            std::arch::asm!(
                "{{evex}} vpdpbusd {sum}, {codes}, {values}",
                sum = inout(ymm_reg) sum,
                codes = in(ymm_reg) codes,
                values = in(ymm_reg) values,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        sum
    }
}

/// How many pairs of products add up in 16 bits.
const fn pairs_in_16_bits(top: u8) -> usize {
    let magnitude = if top == 255 { 128 } else { top as usize };
    i16::MAX as usize / (2 * 127 * magnitude)
}

/// The columns of eight rows of four words: each half of `row(i)` holds one of the rows i and i + 4.
///
/// # Safety
/// The machine has AVX2.
#[inline(always)]
unsafe fn transpose_quads(quad: impl Fn(usize) -> __m128i) -> [__m256i; 4] {
    // SAFETY: the caller's.
    unsafe {
        let row = |i: usize| _mm256_set_m128i(quad(i + 4), quad(i));
        let (a, b, c, d) = (row(0), row(1), row(2), row(3));
        let (ab_low, ab_high) = (_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
        let (cd_low, cd_high) = (_mm256_unpacklo_epi32(c, d), _mm256_unpackhi_epi32(c, d));
        [
            _mm256_unpacklo_epi64(ab_low, cd_low),
            _mm256_unpackhi_epi64(ab_low, cd_low),
            _mm256_unpacklo_epi64(ab_high, cd_high),
            _mm256_unpackhi_epi64(ab_high, cd_high),
        ]
    }
}

/// Adds neighbouring 16-bit numbers.
///
/// # Safety
/// The machine has AVX2.
#[inline(always)]
unsafe fn widen_pairs(pairs: __m256i) -> __m256i {
    // SAFETY: the caller's.
    unsafe { _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)) }
}

/// The sum of eight floats.
///
/// # Safety
/// The machine has AVX2.
#[inline(always)]
unsafe fn total(sum: __m256) -> f32 {
    // SAFETY: the caller's.
    unsafe {
        let sum = _mm_add_ps(_mm256_castps256_ps128(sum), _mm256_extractf128_ps::<1>(sum));
        let sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
        _mm_cvtss_f32(_mm_add_ss(sum, _mm_movehdup_ps(sum)))
    }
}

const _: () = assert!(BLOCK == 32, "a block is a vector of bytes");
