//! NEON kernels: plain ones, ones with the dot-product instruction, and tiles with the 8-bit matrix instruction.

use std::arch::aarch64::*;
use std::ops::Range;

use half::f16;

use super::blocks::{Decode, IQ4_CODES, Primitives, with_block};
use super::contract::{InputLayout, Kernel, Kernels, ProductShape};
use super::float::{Blocks, with_float};
use super::input::PlainQuantise;
use super::tile::{Stage, Staged, stage_plainly};
use crate::isa::Isa;

mod dot;
mod tile;

pub(super) static PLAIN: Kernels = table::<false, false>(Isa::Neon);
pub(super) static DOTPROD: Kernels = table::<true, false>(Isa::NeonDotprod);
pub(super) static I8MM: Kernels = table::<true, true>(Isa::NeonI8mm);

/// The kernels with or without the dot-product and the matrix instruction.
const fn table<const DOT: bool, const MATRIX: bool>(isa: Isa) -> Kernels {
    Kernels {
        isa,
        dot_rows: dot::ROWS,
        float_dot_rows: dot::ROWS,
        tile_rows: |_| tile::ROWS,
        float_tile_rows: tile::FLOAT_ROWS,
        packs: None,
        panel_rows: tile::LANES,
        prepare,
        dot: dot_kernel::<DOT>,
        tile: tile_kernel::<DOT, MATRIX>,
        float_dot: float_dot_kernel,
        float_tile: float_tile_kernel,
    }
}

struct Neon<const DOT: bool, const MATRIX: bool>;

/// # Safety
/// As for [`InputLayout::prepare`].
unsafe fn prepare(layout: &InputLayout, items: Range<usize>, input: *const f32, prepared: *mut u8) {
    // SAFETY: the caller's; the target's baseline has NEON.
    unsafe { layout.prepare_with::<PlainQuantise>(items, input, prepared) }
}

fn dot_kernel<const DOT: bool>(shape: ProductShape) -> Kernel {
    with_block!(shape.weight, B => dot::blocks::<B, DOT>(shape.m), else => unreachable!("other weights take floats"))
}

fn tile_kernel<const DOT: bool, const MATRIX: bool>(shape: ProductShape) -> Kernel {
    with_block!(shape.weight, B => tile::product::<B, DOT, MATRIX>(), else => unreachable!("other weights take floats"))
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

struct NeonPrimitives;

impl Primitives for NeonPrimitives {
    #[inline(always)]
    unsafe fn widen(half: f16) -> f32 {
        // SAFETY: the instruction set is the caller's promise.
        unsafe {
            let halves = vreinterpret_f16_u16(vdup_n_u16(half.to_bits()));
            vgetq_lane_f32::<0>(vcvt_f32_f16(halves))
        }
    }

    #[inline(always)]
    unsafe fn widen_all(from: *const f16, to: &mut [f32]) {
        let whole = to.len() / 4 * 4;
        // SAFETY: the caller's; four numbers at a time, then what is left.
        unsafe {
            for i in (0..whole).step_by(4) {
                let halves = vld1_u16(from.add(i).cast());
                vst1q_f32(
                    to.as_mut_ptr().add(i),
                    vcvt_f32_f16(vreinterpret_f16_u16(halves)),
                );
            }
            for i in whole..to.len() {
                to[i] = Self::widen(from.add(i).read_unaligned());
            }
        }
    }

    #[inline(always)]
    unsafe fn look_up(indices: [u8; 32]) -> [u8; 32] {
        let mut codes = [0; 32];
        // SAFETY: the instruction set is the caller's promise.
        unsafe {
            let table = vld1q_u8(IQ4_CODES.as_ptr());
            for half in [0, 16] {
                let found = vqtbl1q_u8(table, vld1q_u8(indices.as_ptr().add(half)));
                vst1q_u8(codes.as_mut_ptr().add(half), found);
            }
        }
        codes
    }
}

impl<B: Decode, const DOT: bool, const MATRIX: bool> Stage<B> for Neon<DOT, MATRIX> {
    #[inline(always)]
    unsafe fn stage(blocks: *const B, values: usize, to: Staged) {
        // SAFETY: the caller's.
        unsafe { stage_plainly::<B, NeonPrimitives>(blocks, values, to) }
    }
}

/// Sixteen codes as signed numbers: less 128 where they take all 8 bits. Such types are symmetric, and lose their
/// minimum with the offset.
///
/// # Safety
/// Sixteen codes are readable, and the machine has NEON.
#[inline(always)]
unsafe fn load_codes<B: Decode>(codes: *const u8) -> int8x16_t {
    // SAFETY: the caller's.
    unsafe {
        let codes = vld1q_u8(codes);
        let codes = if B::TOP == 255 {
            veorq_u8(codes, vdupq_n_u8(128))
        } else {
            codes
        };
        vreinterpretq_s8_u8(codes)
    }
}

/// Adds the products of four pairs of bytes to each 32-bit lane.
///
/// # Safety
/// The machine has NEON, and the dot-product instruction if `DOT`.
#[inline(always)]
unsafe fn dot<const DOT: bool>(sum: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: the caller's.
    unsafe {
        if DOT {
            let mut sum = sum;
            // The intrinsic is not stable. The directive lets the assembler take the instruction wherever this function
            // is inlined, or is not.
            std::arch::asm!(
                ".arch_extension dotprod",
                "sdot {sum:v}.4s, {a:v}.16b, {b:v}.16b",
                sum = inout(vreg) sum,
                a = in(vreg) a,
                b = in(vreg) b,
                options(pure, nomem, nostack, preserves_flags),
            );
            sum
        } else {
            let low = vpaddlq_s16(vmull_s8(vget_low_s8(a), vget_low_s8(b)));
            let high = vpaddlq_s16(vmull_high_s8(a, b));
            vaddq_s32(sum, vpaddq_s32(low, high))
        }
    }
}

/// Adds to [a₀·b₀, a₀·b₁, a₁·b₀, a₁·b₁] the products of the halves, eight bytes each, of two vectors.
///
/// # Safety
/// The machine has the 8-bit matrix instructions.
#[inline(always)]
unsafe fn dot_halves(mut sum: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // As for `dot`.
    // SAFETY: the caller's.
    unsafe {
        std::arch::asm!(
            ".arch_extension i8mm",
            "smmla {sum:v}.4s, {a:v}.16b, {b:v}.16b",
            sum = inout(vreg) sum,
            a = in(vreg) a,
            b = in(vreg) b,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sum
}
