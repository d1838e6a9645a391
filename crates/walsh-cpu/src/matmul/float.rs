//! Weights as floats: those that are stored so, and blocks that are decoded to them.

use std::marker::PhantomData;

use half::f16;

use super::blocks::{Decode, Decoded};
use super::contract::blocks_of;
use super::layout::GROUP;
use crate::simd::Primitives;

/// A storage type that the float kernels read.
pub(super) trait Float<P> {
    /// Loads start at a multiple of this, and take a multiple of it.
    const UNIT: usize;

    /// Values of a row's bytes from `index` on.
    fn load_all(p: P, row: &[u8], index: usize, to: &mut [f32]);
}

/// Single precision.
pub(super) struct F32;
/// Half precision.
pub(super) struct F16;
/// The upper half of single precision.
pub(super) struct BF16;
/// Blocks, decoded to exactly the values that they stand for.
pub(super) struct Blocks<B>(PhantomData<B>);

impl<P: Primitives> Float<P> for F32 {
    const UNIT: usize = 1;

    #[inline(always)]
    fn load_all(_: P, row: &[u8], index: usize, to: &mut [f32]) {
        assert!((index + to.len()) * size_of::<f32>() <= row.len());
        let row = row.as_ptr().cast::<f32>();
        for (i, to) in to.iter_mut().enumerate() {
            // SAFETY: the row has as many values, as measured.
            *to = unsafe { row.add(index + i).read_unaligned() };
        }
    }
}

impl<P: Primitives> Float<P> for F16 {
    const UNIT: usize = 1;

    #[inline(always)]
    fn load_all(p: P, row: &[u8], index: usize, to: &mut [f32]) {
        assert!((index + to.len()) * size_of::<f16>() <= row.len());
        // SAFETY: the row has as many values, as measured.
        unsafe { p.widen_all(row.as_ptr().cast::<f16>().add(index), to) }
    }
}

impl<P: Primitives> Float<P> for BF16 {
    const UNIT: usize = 1;

    #[inline(always)]
    fn load_all(_: P, row: &[u8], index: usize, to: &mut [f32]) {
        assert!((index + to.len()) * size_of::<u16>() <= row.len());
        let row = row.as_ptr().cast::<u16>();
        for (i, to) in to.iter_mut().enumerate() {
            // SAFETY: the row has as many values, as measured.
            let upper = unsafe { row.add(index + i).read_unaligned() };
            *to = f32::from_bits(u32::from(upper) << 16);
        }
    }
}

/// What a decoded code stands for, as the reference rounds it.
#[inline(always)]
pub(super) fn value_of<B: Decode>(code: u8, scale: f32, min: f32) -> f32 {
    // A code times its scale takes more than 24 bits in some symmetric types: they are rounded once, after the code has
    // lost its offset.
    match B::ZERO {
        Some(zero) => scale * (i32::from(code) - i32::from(zero)) as f32,
        None => scale * f32::from(code) - min,
    }
}

impl<P: Primitives, B: Decode> Float<P> for Blocks<B> {
    const UNIT: usize = B::LEN;

    #[inline(always)]
    fn load_all(p: P, row: &[u8], index: usize, to: &mut [f32]) {
        let blocks = blocks_of::<B>(row, (index + to.len()) / B::LEN);
        let (mut codes, mut scales, mut mins) = ([0; GROUP], [0.0; GROUP / 16], [0.0; GROUP / 16]);
        for (block, to) in blocks[index / B::LEN..]
            .iter()
            .zip(to.chunks_exact_mut(B::LEN))
        {
            let out = Decoded {
                codes: &mut codes[..B::LEN],
                scales: &mut scales[..B::LEN / B::RUN],
                mins: &mut mins[..B::LEN / B::RUN],
            };
            block.decode(p, out);
            for (run, to) in to.chunks_exact_mut(B::RUN).enumerate() {
                let codes = &codes[run * B::RUN..(run + 1) * B::RUN];
                let (scale, min) = (scales[run], mins[run]);
                for (to, &code) in to.iter_mut().zip(codes) {
                    *to = value_of::<B>(code, scale, min);
                }
            }
        }
    }
}

/// Runs `$body` with `$float` standing for a floating-point storage type.
macro_rules! with_float {
    ($dtype:expr, $float:ident => $body:expr, else => $other:expr) => {{
        use $crate::matmul::float;
        match $dtype {
            walsh_formats::DType::F32 => {
                type $float = float::F32;
                $body
            }
            walsh_formats::DType::F16 => {
                type $float = float::F16;
                $body
            }
            walsh_formats::DType::BF16 => {
                type $float = float::BF16;
                $body
            }
            _ => $other,
        }
    }};
}
pub(super) use with_float;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matmul::blocks::with_block;
    use crate::matmul::testing::{block_types, random_weights};
    use crate::simd::Portable;

    #[test]
    fn blocks_decode_to_the_very_bits_of_the_reference() {
        for dtype in block_types() {
            let values = 1024;
            let bytes = random_weights(dtype, 1, values, 11);
            let mut expected = vec![0.0; values];
            walsh_formats::ggml::decode(dtype, &bytes, &mut expected).unwrap();
            let mut found = vec![0.0; values];
            with_block!(dtype, B => {
                Blocks::<B>::load_all(Portable::new(), &bytes, 0, &mut found);
            }, else => unreachable!());
            for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
                assert_eq!(
                    found.to_bits(),
                    expected.to_bits(),
                    "{dtype} {i}: {found} {expected}"
                );
            }
        }
    }
}
