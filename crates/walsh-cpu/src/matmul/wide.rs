//! Products on registers of 64 bytes, which hold a decoded group: weights as a file has them are decoded in the registers
//! that they are multiplied in.

use std::arch::x86_64::*;
use std::marker::PhantomData;

use super::blocks::{Decode, Decoders, Group, Wide};
use super::contract::{Job, blocks_of};
use super::float::{BF16, F16, F32, Float};
use super::kernel::Body;
use super::layout::{BLOCK, GROUP, RowParts};
use super::tile::{Stage, Staged};
use crate::simd::{Avx512, Register, Unpack, operations};

/// The most rows of floats.
pub(super) const FLOAT_ROWS: usize = 4;

/// What a kernel does with decoded groups. (A closure is not always inlined, and is then compiled without the instruction
/// set.)
trait Sink<B> {
    /// Whether the blocks are part of a stream, in which others are fetched ahead.
    const STREAM: bool;

    /// Takes `64 · vectors` values from value `at` on: of a group, or two blocks of it.
    ///
    /// # Safety
    /// They are among those that the sink was made for.
    unsafe fn take(&mut self, s: Avx512, group: &Group, at: usize, vectors: usize);
}

/// Decodes blocks: whole groups, then pairs of blocks of 32. An odd last block is decoded beside an empty one, and so are a
/// group's last larger blocks.
///
/// # Safety
/// The sink was made for the values of so many blocks.
#[inline(always)]
unsafe fn decode<B: Wide, S: Sink<B>>(s: Avx512, blocks: &[B], sink: &mut S) {
    let many = const { GROUP / B::LEN };
    let groups = blocks.len() / many;
    // SAFETY: groups are of so many of the blocks each, and what they decode to is of those that the sink was made for.
    unsafe {
        for group in 0..groups {
            let blocks = blocks.get_unchecked(group * many..(group + 1) * many);
            if S::STREAM {
                s.fetch_ahead(blocks.as_ptr().cast(), many * size_of::<B>());
            }
            sink.take(s, &B::wide(s, blocks), group * GROUP, 4);
        }
        if B::LEN == GROUP {
            return;
        }
        let (at, rest) = (groups * GROUP, &blocks[groups * many..]);
        if B::LEN > BLOCK {
            if !rest.is_empty() {
                let mut group = [B::zeroed(); GROUP / (2 * BLOCK)];
                group[..rest.len()].copy_from_slice(rest);
                let vectors = rest.len() * B::LEN / (2 * BLOCK);
                sink.take(s, &B::wide(s, &group[..many]), at, vectors);
            }
            return;
        }
        for (pair, blocks) in rest.chunks(2).enumerate() {
            let mut last = [B::zeroed(); 2];
            let blocks = if blocks.len() == 2 {
                blocks
            } else {
                last[0] = blocks[0];
                &last
            };
            sink.take(s, &B::wide(s, blocks), at + pair * 2 * BLOCK, 1);
        }
    }
}

/// The kernel for block-quantised weights and one row.
pub(super) struct Row<B>(PhantomData<B>);

impl<B: Wide> Body<Avx512> for Row<B> {
    #[inline(always)]
    fn product(s: Avx512, job: &Job<'_>, _: &mut [u8]) {
        let input = job.quantised_row(0).as_ptr();
        for column in job.columns.clone() {
            let mut dot = Dot {
                input,
                parts: RowParts::new(job.shape.k),
                products: [s.numbers(0.0); 2],
                minima: s.numbers(0.0),
            };
            // SAFETY: a row of activations has parts for all values of a row of the weight.
            unsafe { decode(s, job.blocks::<B>(column), &mut dot) };
            job.put(0, column, s.total(dot.sum::<B>(s)));
        }
    }
}

/// The products of a weight row with a row of activations.
struct Dot {
    /// The activations, whose parts are as [`RowParts`] says.
    input: *const u8,
    parts: RowParts,
    products: [__m512; 2],
    /// What the minima take away.
    minima: __m512,
}

impl Dot {
    /// Lanes that together are the sum.
    #[inline(always)]
    fn sum<B: Wide>(&self, s: Avx512) -> __m512 {
        let minima = if B::RUN == 16 {
            self.minima
        } else {
            s.upper_half(self.minima)
        };
        s.sub(s.add(self.products[0], self.products[1]), minima)
    }
}

impl<B: Wide> Sink<B> for Dot {
    const STREAM: bool = true;

    #[inline(always)]
    unsafe fn take(&mut self, s: Avx512, group: &Group, at: usize, vectors: usize) {
        let (index, pair) = (at / GROUP, at % GROUP / (2 * BLOCK));
        let input = self.input;
        // SAFETY: these values are of the row, which has codes, scales and sums for each of its groups. A pair's load passes the group's scales and sums,
        // but not the row: parts for runs of 16 follow. The lanes that it is not for are multiplied by zero.
        unsafe {
            let scales = if B::RUN == 16 {
                let floats = input.add(self.parts.runs_of_16()).cast::<f32>();
                let floats = floats.add(index * 32);
                let sums = s.load_numbers(floats.add(16));
                self.minima = s.mul_add(group.mins, sums, self.minima);
                s.mul(group.scales, s.load_numbers(floats))
            } else {
                let floats = input.add(self.parts.runs_of_32()).cast::<f32>();
                let floats = s.load_numbers(floats.add(index * 16 + pair * 2));
                let scales = s.mul(group.scales, floats);
                self.minima = s.add(self.minima, scales);
                scales
            };
            let codes = input.add(at);
            for vector in 0..vectors {
                let values = s.load_words(codes.add(vector * 64));
                let dots = s.to_numbers(s.dot(group.codes[vector], values));
                let scales = s.spread::<B>(scales, vector);
                let sum = &mut self.products[vector % 2];
                *sum = s.mul_add(dots, scales, *sum);
            }
        }
    }
}

/// The kernel for blocks as floats and one row.
pub(super) struct ExactRow<B>(PhantomData<B>);

impl<B: Wide> Body<Avx512> for ExactRow<B> {
    #[inline(always)]
    fn product(s: Avx512, job: &Job<'_>, _: &mut [u8]) {
        let row = &job.floats()[..job.shape.k];
        for column in job.columns.clone() {
            let mut multiply = Multiply {
                sums: [s.numbers(0.0); 4],
                row,
            };
            // SAFETY: the input's row has as many values as the weight's.
            unsafe { decode(s, job.blocks::<B>(column), &mut multiply) };
            put_sums(s, job, column, &[multiply.sums]);
        }
    }
}

/// Writes the sums of some rows with a row of the weight.
#[inline(always)]
fn put_sums<const M: usize>(s: Avx512, job: &Job<'_>, column: usize, sums: &[[__m512; 4]; M]) {
    for (m, &[a, b, c, d]) in sums.iter().enumerate() {
        let sum = s.total(s.add(s.add(a, b), s.add(c, d)));
        job.put(m, column, sum);
    }
}

/// Multiplies floats with a row.
struct Multiply<'a> {
    sums: [__m512; 4],
    row: &'a [f32],
}

impl<B: Wide> Sink<B> for Multiply<'_> {
    const STREAM: bool = true;

    #[inline(always)]
    unsafe fn take(&mut self, s: Avx512, group: &Group, at: usize, vectors: usize) {
        for vector in 0..vectors {
            let floats = s.floats::<B>(group, vector);
            for (quarter, floats) in floats.into_iter().enumerate() {
                let at = at + 64 * vector + 16 * quarter;
                // An odd last block has half of its pair's values.
                if at >= self.row.len() {
                    break;
                }
                // SAFETY: sixteen values of the row, which is as long as the weight's.
                let values = unsafe { s.load_numbers(self.row.as_ptr().add(at)) };
                self.sums[quarter] = s.mul_add(floats, values, self.sums[quarter]);
            }
        }
    }
}

/// Blocks, decoded to exactly the values that they stand for.
pub(super) struct WideBlocks<B>(PhantomData<B>);

impl<B: Wide> Float<Avx512> for WideBlocks<B> {
    const UNIT: usize = GROUP;

    #[inline(always)]
    fn load_all(s: Avx512, row: &[u8], index: usize, to: &mut [f32]) {
        let blocks = blocks_of::<B>(row, (index + to.len()) / B::LEN);
        // SAFETY: there is room for the values of so many blocks, or storing them fails.
        unsafe { decode(s, &blocks[index / B::LEN..], &mut Store(to)) };
    }
}

/// Stores floats.
struct Store<'a>(&'a mut [f32]);

impl<B: Wide> Sink<B> for Store<'_> {
    const STREAM: bool = false;

    #[inline(always)]
    unsafe fn take(&mut self, s: Avx512, group: &Group, at: usize, vectors: usize) {
        for vector in 0..vectors {
            let floats = s.floats::<B>(group, vector);
            let to = self.0[at + 64 * vector..].as_chunks_mut::<16>().0;
            for (to, floats) in to.iter_mut().zip(floats) {
                // SAFETY: sixteen floats.
                unsafe { s.store_numbers(to.as_mut_ptr(), floats) };
            }
        }
    }
}

impl Stage for Avx512 {
    #[inline(always)]
    fn stage<B: Decoders>(self, blocks: &[B], mut to: Staged<'_>) {
        // SAFETY: there is room for the values of so many blocks, or storing them fails.
        unsafe { decode(self, blocks, &mut to) };
    }
}

impl<B: Wide> Sink<B> for Staged<'_> {
    const STREAM: bool = false;

    #[inline(always)]
    unsafe fn take(&mut self, s: Avx512, group: &Group, at: usize, vectors: usize) {
        let runs = if B::RUN == 16 { 16 } else { 2 * vectors };
        let codes = self.codes[at..][..64 * vectors].as_chunks_mut::<64>().0;
        let scales = self.scales[at / B::RUN..][..runs].as_mut_ptr();
        let mins = self.mins[at / B::RUN..][..runs].as_mut_ptr();
        for (to, codes) in codes.iter_mut().zip(group.codes) {
            // SAFETY: sixty-four codes.
            unsafe { s.store_words(to.as_mut_ptr(), codes) };
        }
        // SAFETY: so many scales and minima, as cut above.
        unsafe {
            if B::RUN == 16 {
                s.store_numbers(scales, group.scales);
                s.store_numbers(mins, group.mins);
            } else {
                // A pair of blocks has two scales and room for two.
                s.store_halves(group.scales, scales, mins, runs);
            }
        }
    }
}

/// The kernel for floating-point weights and `M` rows.
pub(super) struct WideRows<F, const M: usize>(PhantomData<F>);

impl<F: WideFloat, const M: usize> Body<Avx512> for WideRows<F, M> {
    #[inline(always)]
    fn product(s: Avx512, job: &Job<'_>, _: &mut [u8]) {
        let k = job.shape.k;
        let input = job.floats()[..M * k].as_ptr();
        for column in job.columns.clone() {
            let weights = &job.weight_row(column)[..k * F::BYTES];
            let mut sums = [[s.numbers(0.0); 4]; M];
            let mut step = |index: usize, lane: usize, mask: __mmask16| {
                // SAFETY: the weight's row and the input's have `k` values; the mask leaves out what is past them.
                unsafe {
                    let weights = F::wide(s, weights.as_ptr(), index, mask);
                    for (m, sums) in sums.iter_mut().enumerate() {
                        let values = s.load_some(input.add(m * k + index), mask);
                        sums[lane] = s.mul_add(weights, values, sums[lane]);
                    }
                }
            };
            let whole = k / 64 * 64;
            for index in (0..whole).step_by(64) {
                for lane in 0..4 {
                    step(index + 16 * lane, lane, 0xffff);
                }
            }
            for index in (whole..k).step_by(16) {
                step(index, 0, ((1u32 << (k - index).min(16)) - 1) as __mmask16);
            }
            put_sums(s, job, column, &sums);
        }
    }
}

/// A floating-point type that loads sixteen values at a time.
pub(super) trait WideFloat {
    /// The bytes of a value.
    const BYTES: usize;

    /// Loads the values of a row from `index` on whose mask bits are set; the others are zero.
    ///
    /// # Safety
    /// The row has those values.
    unsafe fn wide(s: Avx512, row: *const u8, index: usize, mask: __mmask16) -> __m512;
}

/// Loads of a floating-point type: from the first of its values on.
macro_rules! wide_float {
    ($type:ident as $of:ty, $load:ident) => {
        impl WideFloat for $type {
            const BYTES: usize = size_of::<$of>();

            #[inline(always)]
            unsafe fn wide(s: Avx512, row: *const u8, index: usize, mask: __mmask16) -> __m512 {
                // SAFETY: the row has the values whose bits are set, and no others are touched.
                unsafe { s.$load(row.cast::<$of>().add(index), mask) }
            }
        }
    };
}

wide_float!(F32 as f32, load_some);
wide_float!(F16 as i16, load_some_f16);
wide_float!(BF16 as i16, load_some_bf16);

impl Avx512 {
    operations! {
        unsafe fn load_some(self, p: *const f32, mask: __mmask16) -> __m512 { _mm512_maskz_loadu_ps(mask, p) }

        unsafe fn load_some_f16(self, p: *const i16, mask: __mmask16) -> __m512 {
            _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, p))
        }

        unsafe fn load_some_bf16(self, p: *const i16, mask: __mmask16) -> __m512 {
            let upper = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, p));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(upper))
        }

        /// The upper eight lanes, and zeros.
        fn upper_half(self, a: __m512) -> __m512 { _mm512_maskz_mov_ps(0xff00, a) }

        /// The products of unsigned and signed bytes, added in fours.
        fn dot(self, codes: __m512i, values: __m512i) -> __m512i {
            _mm512_dpbusd_epi32(_mm512_setzero_si512(), codes, values)
        }

        /// The lower lanes at one place, and the upper ones at another: the first `count` of each, 8 at most.
        unsafe fn store_halves(self, a: __m512, low: *mut f32, high: *mut f32, count: usize) {
            let mask = ((1u32 << count) - 1) as __mmask8;
            _mm256_mask_storeu_ps(low, mask, _mm512_castps512_ps256(a));
            _mm256_mask_storeu_ps(high, mask, _mm512_extractf32x8_ps::<1>(a));
        }

        /// A lane in all lanes.
        fn lane(self, a: __m512, lane: usize) -> __m512 {
            _mm512_permutexvar_ps(_mm512_set1_epi32(lane as i32), a)
        }
    }

    /// The scales of the runs of a vector of 64 codes, each in the lanes of its run's quads: four lanes to a run of 16, eight
    /// to a run of 32.
    #[inline(always)]
    fn spread<B: Decode>(self, scales: __m512, vector: usize) -> __m512 {
        // SAFETY: the token exists only where the set does.
        unsafe {
            let runs = if B::RUN == 16 {
                let lane = _mm512_set_epi32(3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0);
                _mm512_add_epi32(lane, _mm512_set1_epi32(4 * vector as i32))
            } else {
                let lane = _mm512_set_epi32(1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0);
                _mm512_add_epi32(lane, _mm512_set1_epi32(2 * vector as i32))
            };
            _mm512_permutexvar_ps(runs, scales)
        }
    }

    /// The four vectors of floats that a vector of 64 codes stands for.
    #[inline(always)]
    fn floats<B: Decode>(self, group: &Group, vector: usize) -> [__m512; 4] {
        // SAFETY: the token exists only where the set does.
        unsafe {
            let codes = group.codes[vector];
            let quarters = [
                _mm512_castsi512_si128(codes),
                _mm512_extracti32x4_epi32::<1>(codes),
                _mm512_extracti32x4_epi32::<2>(codes),
                _mm512_extracti32x4_epi32::<3>(codes),
            ];
            let mut values = [self.numbers(0.0); 4];
            for (quarter, value) in values.iter_mut().enumerate() {
                let codes = _mm512_cvtepu8_epi32(quarters[quarter]);
                let sixteen = 4 * vector + quarter;
                let run = if B::RUN == 16 { sixteen } else { sixteen / 2 };
                let scale = self.lane(group.scales, run);
                // A code times its scale takes more than 24 bits in some symmetric types: they are rounded once, after
                // the code has lost its offset. In the others the product is exact, and the difference rounded once.
                *value = match B::ZERO {
                    Some(zero) => {
                        let codes = _mm512_sub_epi32(codes, _mm512_set1_epi32(i32::from(zero)));
                        _mm512_mul_ps(scale, _mm512_cvtepi32_ps(codes))
                    }
                    None => {
                        let min = if B::RUN == 16 {
                            self.lane(group.mins, run)
                        } else {
                            self.lane(group.scales, 8 + run)
                        };
                        _mm512_fmsub_ps(scale, _mm512_cvtepi32_ps(codes), min)
                    }
                };
            }
            values
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;
    use crate::matmul::blocks::with_block;
    use crate::matmul::testing::{block_types, random_weights};
    use crate::simd::{Products, Work};

    /// Decodes a row.
    struct Load<'a, B> {
        row: &'a [u8],
        to: &'a mut [f32],
        block: PhantomData<B>,
    }

    impl<B: Wide> Work<Avx512> for Load<'_, B> {
        type Output = ();

        #[inline(always)]
        fn on(self, s: Avx512) {
            WideBlocks::<B>::load_all(s, self.row, 0, self.to);
        }
    }

    #[test]
    fn blocks_decode_to_the_very_bits_of_the_reference() {
        if !Isa::Avx512.is_available() {
            return;
        }
        let s = Avx512::of_machine();
        for dtype in block_types() {
            // Whole groups, a pair of blocks, and a single one.
            let lengths: &[usize] = match dtype.block_len() {
                32 => &[32, 64, 576, 800],
                64 => &[64, 256, 448],
                128 => &[128, 256, 640],
                _ => &[256, 1024],
            };
            for &length in lengths {
                let row = &random_weights(dtype, 1, length, 11);
                let (mut expected, mut found) = (vec![0.0; length], vec![0.0; length]);
                walsh_formats::ggml::decode(dtype, row, &mut expected).unwrap();
                let to = &mut found;
                with_block!(dtype, B => s.run(Load::<B> { row, to, block: PhantomData }), else => unreachable!());
                let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                assert!(bits(&found) == bits(&expected), "{dtype} of {length}");
            }
        }
    }
}
