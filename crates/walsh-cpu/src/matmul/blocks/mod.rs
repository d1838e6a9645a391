//! Blocks as integer codes with a scale and a minimum for each run of them: what every product kernel computes on.
//!
//! A decoded value is `scale · code − minimum` with an unsigned 8-bit code. Types that are symmetric about zero have
//! their offset in the minimum. Each family of types has a file with its decoders: along a row ([`Decode`]), into wide
//! registers ([`Wide`]), and, for the types of [`with_columns`], across rows, a row to each lane ([`Columns`]).

#![cfg_attr(
    not(target_arch = "x86_64"),
    allow(dead_code, reason = "weights are packed on x86 alone")
)]

use walsh_formats::DType;
use walsh_formats::ggml::Block;
pub(super) use walsh_formats::with_block;

use crate::simd::{Primitives, Register, Unpack};

mod across;
mod along;
mod float4;
mod grid;
#[cfg(target_arch = "x86_64")]
mod grid_wide;
mod iq4;
mod k;
mod legacy;
mod mlx;
mod mlx_small;
mod small;
mod ternary;
#[cfg(target_arch = "x86_64")]
mod wide;

pub(super) use across::{Codes, Kept, Run, SideBySide};
#[cfg(target_arch = "x86_64")]
pub(super) use wide::Group;

/// Where a block's decoded form goes: slices of exactly `LEN`, `LEN / RUN` and `LEN / RUN` elements.
pub(super) struct Decoded<'a> {
    pub(super) codes: &'a mut [u8],
    pub(super) scales: &'a mut [f32],
    pub(super) mins: &'a mut [f32],
}

/// A block type that decodes to codes, scales and minima.
pub(super) trait Decode: Block {
    /// The values of a block.
    const LEN: usize = Self::DTYPE.block_len();
    /// How many consecutive values share a scale: 16 or 32.
    const RUN: usize;
    /// The largest code. Codes that take all of eight bits may be multiplied as signed numbers, 128 less.
    const TOP: u8;
    /// The code that stands for zero, in types that are symmetric about it: the minimum is that many scales. Types with
    /// minima of their own have none.
    const ZERO: Option<u8>;

    /// Decodes one block.
    fn decode<P: Primitives>(&self, p: P, out: Decoded<'_>);
}

/// The minimum of a run whose codes are multiplied as signed numbers, 128 less than they are.
#[inline(always)]
pub(super) fn signed_min<S: Register>(s: S, scale: S::Numbers, min: S::Numbers) -> S::Numbers {
    s.sub(min, s.mul(scale, s.numbers(128.0)))
}

/// The code that stands for zero as a power of two: sums of a symmetric type's codes times activations start from the
/// negated sum of the activations, shifted by it, and have no minimum to lose.
pub(super) const fn zero_shift(zero: Option<u8>) -> Option<usize> {
    match zero {
        None => None,
        Some(zero) => {
            assert!(zero.is_power_of_two());
            Some(zero.trailing_zeros() as usize)
        }
    }
}

/// A block type that decodes side by side.
pub(super) trait Columns: Decode {
    /// Decodes what all parts of a block share.
    fn start<W: SideBySide>(blocks: W, kept: &mut Kept<W::Set>);

    /// The scale and the minimum of a run of a block that has been started.
    fn run<S: Unpack>(s: S, kept: &Kept<S>, run: usize) -> Run<S>;

    /// The codes of a part of a block. The parts are asked for in order, with the same `kept`.
    fn codes<W: SideBySide>(blocks: W, part: Part, kept: &mut Kept<W::Set>) -> Codes<W::Set>;
}

/// 32 consecutive values of a block.
#[derive(Clone, Copy)]
pub(super) struct Part {
    /// Those from 32 times it on.
    pub(super) index: usize,
    /// Whether codes that take all eight bits are asked for as signed numbers. Otherwise they are raised by 128.
    pub(super) signed: bool,
}

/// Evaluates an expression in which a name stands for the block struct of a type that decodes side by side, or another
/// for types that do not. What decodes side by side is packed; what has to be looked up in tables larger than a register
/// is not.
macro_rules! with_columns {
    ($dtype:expr, $block:ident => $body:expr, else => $other:expr) => {
        $crate::matmul::blocks::with_columns!(@ $dtype, $block => $body, $other;
            Q4_0 BlockQ4_0, Q4_1 BlockQ4_1, Q5_0 BlockQ5_0, Q5_1 BlockQ5_1, Q8_0 BlockQ8_0,
            Q2K BlockQ2K, Q3K BlockQ3K, Q4K BlockQ4K, Q5K BlockQ5K, Q6K BlockQ6K,
            IQ4NL BlockIq4Nl, IQ4XS BlockIq4Xs, MXFP4 BlockMxfp4, NVFP4 BlockNvfp4,
            TQ2_0 BlockTq2_0, Q1_0 BlockQ1_0, Q2_0 BlockQ2_0,
            MLX2 BlockMlx2, MLX3 BlockMlx3, MLX4 BlockMlx4, MLX5 BlockMlx5, MLX6 BlockMlx6,
            MLX8 BlockMlx8, MLX2G32 BlockMlx2G32, MLX3G32 BlockMlx3G32, MLX6G32 BlockMlx6G32,
            MLX8G32 BlockMlx8G32)
    };
    (@ $dtype:expr, $block:ident => $body:expr, $other:expr; $($variant:ident $type:ident),*) => {
        match $dtype {
            $(walsh_formats::DType::$variant => {
                type $block = walsh_formats::ggml::$type;
                $body
            })*
            _ => $other,
        }
    };
}
pub(super) use with_columns;

/// Whether a type decodes side by side.
pub(super) fn is_side_by_side(dtype: DType) -> bool {
    fn decodes<B: Columns>() -> bool {
        true
    }
    with_columns!(dtype, B => decodes::<B>(), else => false)
}

/// A block type that decodes into registers of 64 bytes.
#[cfg(target_arch = "x86_64")]
pub(super) trait Wide: Decode {
    /// Decodes the values of some blocks: of 256 values, or of two blocks of 32.
    fn wide(s: crate::simd::Avx512, blocks: &[Self]) -> Group;
}

/// A block type with all decoders that this machine's architecture has.
#[cfg(target_arch = "x86_64")]
pub(super) trait Decoders: Wide {}

#[cfg(target_arch = "x86_64")]
impl<B: Wide> Decoders for B {}

/// A block type with all decoders that this machine's architecture has.
#[cfg(not(target_arch = "x86_64"))]
pub(super) trait Decoders: Decode {}

#[cfg(not(target_arch = "x86_64"))]
impl<B: Decode> Decoders for B {}

#[cfg(test)]
mod tests {
    use half::f16;

    use super::*;
    use crate::matmul::testing::{block_types, random_weights};
    use crate::simd::Portable;

    #[test]
    fn halves_widen_exactly() {
        for bits in 0..=u16::MAX {
            let half = f16::from_bits(bits);
            let wide = Portable::new().widen(half);
            assert!(
                wide.to_bits() == half.to_f32().to_bits() || wide.is_nan() && half.is_nan(),
                "{bits:#x}"
            );
        }
    }

    #[test]
    fn blocks_decode_to_the_reference_values() {
        for dtype in block_types() {
            let values = 1024;
            let bytes = random_weights(dtype, 1, values, 7);
            let mut expected = vec![0.0; values];
            walsh_formats::ggml::decode(dtype, &bytes, &mut expected).unwrap();
            let decoded = with_block!(dtype, B => decode_row::<B>(&bytes), else => unreachable!());
            for (i, (&found, &expected)) in decoded.iter().zip(&expected).enumerate() {
                let error = (found - expected).abs();
                assert!(
                    error <= 1e-4 * expected.abs().max(0.1),
                    "{dtype} {i}: {found} {expected}"
                );
            }
        }
    }

    fn decode_row<B: Decode>(bytes: &[u8]) -> Vec<f32> {
        let mut row = Vec::new();
        for block in bytes.chunks_exact(size_of::<B>()) {
            let block: B = bytemuck::pod_read_unaligned(block);
            let (mut codes, mut scales, mut mins) = (
                vec![0; B::LEN],
                vec![0.0; B::LEN / B::RUN],
                vec![0.0; B::LEN / B::RUN],
            );
            let out = Decoded {
                codes: &mut codes,
                scales: &mut scales,
                mins: &mut mins,
            };
            block.decode(Portable::new(), out);
            row.extend(
                codes
                    .iter()
                    .enumerate()
                    .map(|(i, &code)| scales[i / B::RUN] * f32::from(code) - mins[i / B::RUN]),
            );
        }
        row
    }
}
