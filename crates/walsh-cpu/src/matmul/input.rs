//! Activations as the product kernels read them.
//!
//! For block-quantised weights a product's input is quantised to 8 bits, unless [`Activations`](walsh_core::Activations) asks for floats: every
//! 32 values share one scale, the largest magnitude over 127. The kernels also need each run's sum, because a block
//! decodes to `scale · code − minimum`: Σ w·x = Σ_runs scale·(Σ code·x) − minimum·(Σ x). A value that is not finite
//! makes the scale NaN, and with it the whole row of the output.
//!
//! Few rows lie one after the other. Many rows lie in *tiles*: the rows of a tile are interleaved as the register-tiled
//! kernels broadcast them.

use std::ops::Range;

use super::contract::{InputLayout, Source};
use super::layout::{Arrangement, BLOCK, BlockQ8, CHUNK, GROUP, RowParts};
use crate::simd::{Primitives, Quantised};

impl InputLayout {
    /// [`InputLayout::prepare`] by an instruction set, to be inlined where it is enabled.
    ///
    /// # Safety
    /// `prepared` has the bytes of the layout on a 64-byte boundary, and no one else touches the items' parts.
    #[inline(always)]
    pub(super) unsafe fn prepare_with<P: Primitives>(
        &self,
        p: P,
        items: Range<usize>,
        source: Source<'_>,
        prepared: *mut u8,
    ) {
        let chunks = self.k.div_ceil(CHUNK);
        for item in items {
            let (part, chunk) = (item / chunks, item % chunks);
            let values = chunk * CHUNK..((chunk + 1) * CHUNK).min(self.k);
            // SAFETY: an item is a row or a tile of the input, and a range of its values.
            unsafe {
                match self.arrangement {
                    Arrangement::Plain => {}
                    Arrangement::Rows => {
                        let row = prepared.add(part * RowParts::new(self.k).stride());
                        self.quantise_row(p, values, source.row(part, self.k), row);
                    }
                    Arrangement::Tiles(tiles) => {
                        let rows = tiles.rows(part);
                        self.quantise_tile(p, rows, values, (source, prepared));
                    }
                    Arrangement::FloatTiles(tiles) => {
                        self.interleave(tiles.rows(part), values, source, prepared);
                    }
                }
            }
        }
    }

    /// The blocks of a single row of quantised activations that lies in a tile, as [`InputLayout::prepare`] has made them.
    pub(super) fn single_row<'p>(&self, prepared: &'p [u8]) -> &'p [BlockQ8] {
        debug_assert!(self.m == 1 && matches!(self.arrangement, Arrangement::Tiles(_)));
        bytemuck::cast_slice(&prepared[..self.k / BLOCK * size_of::<BlockQ8>()])
    }

    /// # Safety
    /// `row` points to a row's quantised form, whose part for the values is the item's alone.
    #[inline(always)]
    unsafe fn quantise_row<P: Primitives>(
        &self,
        p: P,
        values: Range<usize>,
        input: &[f32],
        row: *mut u8,
    ) {
        let parts = RowParts::new(self.k);
        // SAFETY: the offsets are those of `RowParts`, for blocks below `groups · 8`; the input's last block is whole
        // because the weights' blocks are.
        unsafe {
            let by_32 = row.add(parts.runs_of_32()).cast::<f32>();
            let by_16 = row.add(parts.runs_of_16()).cast::<f32>();
            let put = |block: usize, quantised: &Quantised| {
                row.cast::<[i8; BLOCK]>().add(block).write(quantised.codes);
                let Quantised { scale, sums, .. } = *quantised;
                let [first, second] = sums;
                let (group, index) = (block / 8, block % 8);
                let to = by_32.add(group * 16 + index);
                to.write(scale);
                to.add(8).write((first + second) as f32 * scale);
                let to = by_16.add(group * 32 + index * 2);
                to.write(scale);
                to.add(1).write(scale);
                to.add(16).write(first as f32 * scale);
                to.add(17).write(second as f32 * scale);
            };
            let blocks = values.start / BLOCK..values.end / BLOCK;
            for (block, values) in blocks.clone().zip(&input.as_chunks().0[blocks]) {
                put(block, &p.quantise(values));
            }
            if values.end == self.k {
                for block in self.k / BLOCK..parts.groups * (GROUP / BLOCK) {
                    put(block, &NOTHING);
                }
            }
        }
    }

    /// # Safety
    /// `prepared` is that of `prepare_with`.
    #[inline(always)]
    unsafe fn quantise_tile<P: Primitives>(
        &self,
        p: P,
        rows: Range<usize>,
        values: Range<usize>,
        (source, prepared): (Source<'_>, *mut u8),
    ) {
        let blocks = self.k / BLOCK;
        // SAFETY: a row takes a q8_1 block for every 32 numbers whatever the tile, so tiles lie where their first row says.
        unsafe {
            let tile = prepared.cast::<BlockQ8>().add(rows.start * blocks);
            for (lane, row) in rows.clone().enumerate() {
                let row = source.row(row, self.k).as_chunks().0;
                let blocks = values.start / BLOCK..values.end / BLOCK;
                for (block, values) in blocks.clone().zip(&row[blocks]) {
                    let quantised = p.quantise(values);
                    let [first, second] = quantised.sums;
                    tile.add(block * rows.len() + lane).write(BlockQ8 {
                        quads: bytemuck::cast(quantised.codes),
                        scale: quantised.scale,
                        sums: [-(first + second), -first, -second],
                    });
                }
            }
        }
    }

    /// # Safety
    /// `prepared` is that of `prepare_with`.
    #[inline(always)]
    unsafe fn interleave(
        &self,
        rows: Range<usize>,
        values: Range<usize>,
        source: Source<'_>,
        prepared: *mut u8,
    ) {
        // SAFETY: as for `quantise_tile`, with four bytes for each value.
        unsafe {
            let tile = prepared.cast::<f32>().add(rows.start * self.k);
            let count = rows.len();
            for (lane, row) in rows.enumerate() {
                let row = &source.row(row, self.k)[values.clone()];
                for (value, number) in values.clone().zip(row) {
                    tile.add(value * count + lane).write(*number);
                }
            }
        }
    }
}

/// A block of zeros.
const NOTHING: Quantised = Quantised {
    codes: [0; BLOCK],
    scale: 0.0,
    sums: [0; 2],
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;
    use crate::matmul::layout::Tiles;
    use crate::matmul::portable::KERNELS;
    use crate::simd::{Portable, Token, entries};

    fn quantise(values: [f32; BLOCK]) -> Quantised {
        Portable::new().quantise(&values)
    }

    #[test]
    fn codes_and_sums_are_those_of_the_values() {
        let values: [f32; BLOCK] = std::array::from_fn(|i| (i as f32 - 11.3) * 0.37);
        let quantised = quantise(values);
        for (code, value) in quantised.codes.iter().zip(values) {
            assert!((f32::from(*code) * quantised.scale - value).abs() <= 0.5001 * quantised.scale);
        }
        let sum: i32 = quantised.codes[16..]
            .iter()
            .map(|&code| i32::from(code))
            .sum();
        assert_eq!(quantised.sums[1], sum);
    }

    #[test]
    fn extremes_do_not_overflow() {
        assert_eq!(quantise([0.0; BLOCK]).scale, 0.0);
        assert_eq!(quantise([f32::MIN_POSITIVE; BLOCK]).scale, 0.0);
        let largest = quantise([-f32::MAX; BLOCK]);
        assert_eq!((largest.codes[3], largest.scale.is_finite()), (-127, true));
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut values = [1.0; BLOCK];
            values[17] = bad;
            assert!(quantise(values).scale.is_nan());
        }
    }

    #[test]
    fn instruction_sets_quantise_alike() {
        let (m, k) = (13, 544);
        let input: Vec<f32> = (0..m * k)
            .map(|i| (i as f32 * 0.37).sin() * (i as f32 * 0.0013).exp())
            .collect();
        for arrangement in [Arrangement::Rows, Arrangement::Tiles(Tiles::new(m, 4))] {
            let layout = InputLayout {
                kernels: &KERNELS,
                m,
                k,
                arrangement,
            };
            let prepared = |isa| {
                let mut prepared = vec![0u32; layout.bytes() / 4];
                let to = bytemuck::cast_slice_mut(&mut prepared);
                prepare_with(Token::of(isa), &layout, Source::of(&input), to);
                prepared
            };
            let expected = prepared(Isa::Portable);
            for isa in Isa::available() {
                assert!(prepared(isa) == expected, "{isa} {arrangement:?}");
            }
        }
    }

    entries! {
        /// See [`prepare`].
        fn prepare_with(layout: &InputLayout, source: Source<'_>, to: &mut [u8]) = prepare
    }

    #[inline(always)]
    fn prepare<S: Primitives>(s: S, layout: &InputLayout, source: Source<'_>, to: &mut [u8]) {
        assert_eq!(to.len(), layout.bytes());
        // SAFETY: all items are this thread's, and words lie on multiples of what blocks do.
        unsafe { layout.prepare_with(s, 0..layout.items(), source, to.as_mut_ptr()) };
    }
}
