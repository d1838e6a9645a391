//! Blocks decoded to floats, sixteen to a vector, and products of them with few rows of floats.

use std::arch::x86_64::*;
use std::marker::PhantomData;

use super::decode::{Group, Wide};
use crate::matmul::blocks::Primitives;
use crate::matmul::contract::{Job, Kernel};
use crate::matmul::float::Float;
use crate::matmul::layout::{BLOCK, GROUP};
use crate::matmul::x86::fetch_ahead;

/// The kernel for `m` rows.
pub(super) fn rows<B: Wide>(m: usize) -> Kernel {
    match m {
        1 => float_rows::<B, 1>,
        2 => float_rows::<B, 2>,
        3 => float_rows::<B, 3>,
        4 => float_rows::<B, 4>,
        _ => unreachable!("more rows are tiled"),
    }
}

/// The four vectors of floats that a vector of 64 codes stands for.
///
/// # Safety
/// The machine has AVX-512.
#[inline(always)]
unsafe fn floats<B: Wide>(group: &Group, vector: usize) -> [__m512; 4] {
    // SAFETY: the caller's.
    unsafe {
        let codes = group.codes[vector];
        let quarters = [
            _mm512_castsi512_si128(codes),
            _mm512_extracti32x4_epi32::<1>(codes),
            _mm512_extracti32x4_epi32::<2>(codes),
            _mm512_extracti32x4_epi32::<3>(codes),
        ];
        let mut values = [_mm512_setzero_ps(); 4];
        for (quarter, value) in values.iter_mut().enumerate() {
            let codes = _mm512_cvtepu8_epi32(quarters[quarter]);
            let sixteen = 4 * vector + quarter;
            let run = if B::RUN == 16 { sixteen } else { sixteen / 2 };
            let scale = lane(group.scales, run);
            // A code times its scale takes more than 24 bits in some symmetric types: they are rounded once, after the
            // code has lost its offset. In the others the product is exact, and the difference rounded once.
            *value = match B::ZERO {
                Some(zero) => {
                    let codes = _mm512_sub_epi32(codes, _mm512_set1_epi32(i32::from(zero)));
                    _mm512_mul_ps(scale, _mm512_cvtepi32_ps(codes))
                }
                None => {
                    let min = if B::RUN == 16 {
                        lane(group.mins, run)
                    } else {
                        lane(group.scales, 8 + run)
                    };
                    _mm512_fmsub_ps(scale, _mm512_cvtepi32_ps(codes), min)
                }
            };
        }
        values
    }
}

/// A lane in all lanes.
///
/// # Safety
/// The machine has AVX-512.
#[inline(always)]
unsafe fn lane(vector: __m512, lane: usize) -> __m512 {
    // SAFETY: the caller's.
    unsafe { _mm512_permutexvar_ps(_mm512_set1_epi32(lane as i32), vector) }
}

/// Where decoded values go. (A closure is not always inlined, and is then compiled without the instruction set.)
trait Sink {
    /// Takes vector `index` of a group.
    ///
    /// # Safety
    /// The group has that vector, and the machine has AVX-512.
    unsafe fn take(&mut self, index: usize, floats: __m512);
}

/// Decodes `count` values, whole blocks, of a group.
///
/// # Safety
/// The blocks are readable, and the machine has AVX-512 with VNNI.
#[inline(always)]
unsafe fn decode<B: Wide>(blocks: *const B, count: usize, mut sink: impl Sink) {
    // SAFETY: the caller's; an odd last block is decoded beside an empty one.
    unsafe {
        if count == GROUP {
            let group = B::wide::<4>(blocks);
            for vector in 0..4 {
                for (quarter, value) in floats::<B>(&group, vector).into_iter().enumerate() {
                    sink.take(4 * vector + quarter, value);
                }
            }
            return;
        }
        for value in (0..count).step_by(2 * BLOCK) {
            let blocks = blocks.add(value / B::LEN);
            let mut last = [B::zeroed(); 2];
            let whole = value + 2 * BLOCK <= count;
            let group = if whole {
                B::wide::<1>(blocks)
            } else {
                last[0] = *blocks;
                B::wide::<1>(last.as_ptr())
            };
            let quarters = if whole { 4 } else { 2 };
            let values = floats::<B>(&group, 0).into_iter().take(quarters);
            for (quarter, floats) in values.enumerate() {
                sink.take(value / 16 + quarter, floats);
            }
        }
    }
}

/// Stores the values of a group.
struct Store(*mut f32);

impl Sink for Store {
    #[inline(always)]
    unsafe fn take(&mut self, index: usize, floats: __m512) {
        // SAFETY: the caller's.
        unsafe { _mm512_storeu_ps(self.0.add(16 * index), floats) }
    }
}

/// Blocks, decoded to exactly the values that they stand for.
pub(super) struct WideBlocks<B>(PhantomData<B>);

impl<B: Wide> Float for WideBlocks<B> {
    const UNIT: usize = GROUP;

    #[inline(always)]
    unsafe fn load_all<P: Primitives>(row: *const u8, index: usize, to: &mut [f32]) {
        for (group, to) in to.chunks_mut(GROUP).enumerate() {
            // SAFETY: the caller's; the vectors of whole blocks lie within `to`.
            unsafe {
                let blocks = row.cast::<B>().add((index + group * GROUP) / B::LEN);
                decode(blocks, to.len(), Store(to.as_mut_ptr()));
            }
        }
    }
}

/// Multiplies the values of a group with `M` rows.
struct Multiply<'a, const M: usize> {
    sums: &'a mut [[__m512; 4]; M],
    /// The first row's values of the group.
    input: *const f32,
    /// How many floats lie between two rows.
    stride: usize,
}

impl<const M: usize> Sink for Multiply<'_, M> {
    #[inline(always)]
    unsafe fn take(&mut self, index: usize, floats: __m512) {
        for (m, sums) in self.sums.iter_mut().enumerate() {
            // SAFETY: the caller's.
            unsafe {
                let values = _mm512_loadu_ps(self.input.add(m * self.stride + 16 * index));
                sums[index % 4] = _mm512_fmadd_ps(floats, values, sums[index % 4]);
            }
        }
    }
}

/// # Safety
/// As for [`Kernel`].
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn float_rows<B: Wide, const M: usize>(job: &Job, _: &mut [u8]) {
    let k = job.shape.k;
    let input = job.operands.input.cast::<f32>();
    // SAFETY: the weight's rows and the input's have `k` values, whole blocks.
    unsafe {
        for column in job.columns.clone() {
            let mut weights = job.weight_row(column).cast::<B>();
            let mut sums = [[_mm512_setzero_ps(); 4]; M];
            for start in (0..k).step_by(GROUP) {
                let sink = Multiply {
                    sums: &mut sums,
                    input: input.add(start),
                    stride: k,
                };
                if start + GROUP > k {
                    decode(weights, k - start, sink);
                    break;
                }
                fetch_ahead(weights.cast(), GROUP / B::LEN * size_of::<B>());
                decode(weights, GROUP, sink);
                weights = weights.add(GROUP / B::LEN);
            }
            for (m, sums) in sums.iter().enumerate() {
                let [a, b, c, d] = *sums;
                let sum = _mm512_add_ps(_mm512_add_ps(a, b), _mm512_add_ps(c, d));
                job.put(m, column, _mm512_reduce_add_ps(sum));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;
    use crate::matmul::blocks::with_block;
    use crate::matmul::testing::{block_types, random_weights};
    use crate::matmul::x86::X86;

    /// # Safety
    /// The row has as many values as `to`, and the machine has AVX-512.
    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    unsafe fn load<B: Wide>(row: &[u8], to: &mut [f32]) {
        // SAFETY: the caller's.
        unsafe { WideBlocks::<B>::load_all::<X86>(row.as_ptr(), 0, to) }
    }

    #[test]
    fn blocks_decode_to_the_very_bits_of_the_reference() {
        if !Isa::Avx512.is_available() {
            return;
        }
        for dtype in block_types() {
            // Whole groups, a pair of blocks, and a single one.
            let lengths: &[usize] = if dtype.block_len() == 32 {
                &[32, 64, 576, 800]
            } else {
                &[256, 1024]
            };
            for &length in lengths {
                let bytes = random_weights(dtype, 1, length, 11);
                let (mut expected, mut found) = (vec![0.0; length], vec![0.0; length]);
                walsh_formats::ggml::decode(dtype, &bytes, &mut expected).unwrap();
                // SAFETY: the row has these values, and the instruction set is there.
                with_block!(dtype, B => unsafe { load::<B>(&bytes, &mut found) }, else => unreachable!());
                let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                assert!(bits(&found) == bits(&expected), "{dtype} of {length}");
            }
        }
    }
}
