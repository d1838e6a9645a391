//! Activations as the product kernels read them.
//!
//! For block-quantised weights a product's input is quantised to 8 bits, unless [`Activations`] asks for floats: every
//! 32 values share one scale, the largest magnitude over 127. The kernels also need each run's sum, because a block
//! decodes to `scale · code − minimum`: Σ w·x = Σ_runs scale·(Σ code·x) − minimum·(Σ x). A value that is not finite
//! makes the scale NaN, and with it the whole row of the output.
//!
//! Few rows lie one after the other. Many rows lie in *tiles*: the rows of a tile are interleaved as the register-tiled
//! kernels broadcast them.

use std::ops::Range;

use super::kernels::Kernels;
use super::plan::ProductShape;
use crate::isa::Isa;
use walsh_core::Activations;

/// The values that share one scale.
pub(super) const BLOCK: usize = 32;

/// Rows of quantised activations are padded with zeros to this many values.
pub(super) const GROUP: usize = 256;

/// A block of a row of a tile.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Record {
    /// The codes, four to a number.
    pub(super) quads: [i32; BLOCK / 4],
    /// What a code of one stands for.
    pub(super) scale: f32,
    /// The negated sums of the codes: of the block, of its first half and of its second.
    pub(super) sums: [i32; 3],
}

impl Record {
    /// What a code stands for.
    pub(super) fn value(&self, index: usize) -> f32 {
        let codes: [i8; BLOCK] = bytemuck::cast(self.quads);
        f32::from(codes[index]) * self.scale
    }

    /// The sum of the squares of what the codes stand for.
    pub(super) fn squares(&self) -> f64 {
        let codes: [i8; BLOCK] = bytemuck::cast(self.quads);
        let squares: i32 = codes.iter().map(|&code| i32::from(code).pow(2)).sum();
        f64::from(squares) * f64::from(self.scale).powi(2)
    }

    /// Which of the sums is that of a run, of `values` values, of the block.
    #[inline(always)]
    pub(super) const fn sum_of(values: usize, run: usize) -> usize {
        if values == BLOCK { 0 } else { 1 + run }
    }
}

/// The values of a row that one work item prepares.
const CHUNK: usize = 2048;

/// Where a row's parts lie: 256 codes, and for each group of 256 values
/// - 8 scales and 8 sums (each sum times its scale), for weights with runs of 32;
/// - 16 scales and 16 sums, for weights with runs of 16.
///
/// Each part is contiguous along the row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RowParts {
    groups: usize,
}

impl RowParts {
    pub(super) const fn new(k: usize) -> RowParts {
        RowParts {
            groups: k.div_ceil(GROUP),
        }
    }

    /// The offset of the scales and sums for runs of 32, 16 floats for each group.
    pub(super) const fn runs_of_32(self) -> usize {
        self.groups * GROUP
    }

    /// The offset of the scales and sums for runs of 16, 32 floats for each group.
    pub(super) const fn runs_of_16(self) -> usize {
        self.runs_of_32() + self.groups * 64
    }

    /// The bytes of a row.
    pub(super) const fn stride(self) -> usize {
        self.runs_of_16() + self.groups * 128
    }
}

/// The rows of each tile: as equal as can be, the larger ones first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Tiles {
    count: usize,
    rows: usize,
}

impl Tiles {
    /// Divides `rows` rows into tiles of at most `max` rows.
    pub(super) fn new(rows: usize, max: usize) -> Tiles {
        Tiles {
            count: rows.div_ceil(max),
            rows,
        }
    }

    pub(super) fn count(self) -> usize {
        self.count
    }

    /// The first row of a tile; for `tile == count()` the number of rows.
    #[inline]
    pub(super) fn start(self, tile: usize) -> usize {
        let (each, larger) = (self.rows / self.count, self.rows % self.count);
        tile * each + tile.min(larger)
    }

    /// The rows of the largest tile.
    pub(super) fn most(self) -> usize {
        self.rows.div_ceil(self.count)
    }

    #[inline]
    pub(super) fn rows(self, tile: usize) -> Range<usize> {
        self.start(tile)..self.start(tile + 1)
    }
}

/// How prepared activations are arranged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Arrangement {
    /// The input itself.
    Plain,
    /// Quantised rows, as [`RowParts`] says.
    Rows,
    /// Quantised tiles: for each block of 32 values a [`Record`] of every row.
    Tiles(Tiles),
    /// Tiles of floats: `[k][rows]`.
    FloatTiles(Tiles),
}

/// The form in which a product kernel wants its input, and the work of bringing it there.
///
/// Products whose layouts are equal can share one prepared input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ActivationLayout {
    isa: Isa,
    m: usize,
    k: usize,
    pub(super) arrangement: Arrangement,
}

impl ActivationLayout {
    /// The layout of a product's input.
    pub fn new(isa: Isa, activations: Activations, shape: ProductShape) -> ActivationLayout {
        let ProductShape {
            weight,
            m,
            k,
            packed,
            ..
        } = shape;
        let kernels = Kernels::of(isa);
        let quantised = weight.is_quantised() && activations == Activations::Int8;
        let arrangement = if quantised {
            if m <= kernels.dot_rows && !packed {
                Arrangement::Rows
            } else {
                Arrangement::Tiles(Tiles::new(m, (kernels.tile_rows)(shape)))
            }
        } else if m <= kernels.float_dot_rows {
            Arrangement::Plain
        } else {
            Arrangement::FloatTiles(Tiles::new(m, kernels.float_tile_rows))
        };
        ActivationLayout {
            isa,
            m,
            k,
            arrangement,
        }
    }

    /// Whether the kernels read the input as it is: nothing needs to be prepared.
    pub fn is_plain(&self) -> bool {
        self.arrangement == Arrangement::Plain
    }

    /// The bytes of the prepared input, which starts on a 64-byte boundary.
    pub fn bytes(&self) -> usize {
        match self.arrangement {
            Arrangement::Plain => 0,
            Arrangement::Rows => self.m * RowParts::new(self.k).stride(),
            Arrangement::Tiles(_) => self.m * (self.k / BLOCK) * size_of::<Record>(),
            Arrangement::FloatTiles(_) => self.m * self.k * 4,
        }
    }

    /// The work items of [`ActivationLayout::prepare`].
    pub fn items(&self) -> usize {
        let chunks = self.k.div_ceil(CHUNK);
        match self.arrangement {
            Arrangement::Plain => 0,
            Arrangement::Rows => self.m * chunks,
            Arrangement::Tiles(tiles) | Arrangement::FloatTiles(tiles) => tiles.count() * chunks,
        }
    }

    /// The estimated time of preparing the whole input on one thread, in nanoseconds.
    pub fn cost(&self) -> u64 {
        let per_value = if self.isa == Isa::Portable { 4 } else { 16 };
        (self.m * self.k / per_value) as u64
    }

    /// Prepares some items.
    ///
    /// # Safety
    /// `input` points to `m · k` floats and `prepared` to [`ActivationLayout::bytes`] bytes on a 64-byte boundary; no one
    /// else touches an item's part of `prepared`. The instruction set of the layout is available.
    pub unsafe fn prepare(&self, items: Range<usize>, input: *const f32, prepared: *mut u8) {
        let kernels = Kernels::of(self.isa);
        // SAFETY: the caller's.
        unsafe { (kernels.prepare)(self, items, input, prepared) }
    }

    /// [`ActivationLayout::prepare`] with an instruction set's quantiser, to be inlined where it is enabled.
    ///
    /// # Safety
    /// As for `prepare`, with the instruction set of `Q`.
    #[inline(always)]
    pub(super) unsafe fn prepare_with<Q: Quantise>(
        &self,
        items: Range<usize>,
        input: *const f32,
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
                        self.quantise_row::<Q>(values, input.add(part * self.k), row);
                    }
                    Arrangement::Tiles(tiles) => {
                        self.quantise_tile::<Q>(tiles.rows(part), values, input, prepared);
                    }
                    Arrangement::FloatTiles(tiles) => {
                        self.interleave(tiles.rows(part), values, input, prepared);
                    }
                }
            }
        }
    }

    /// The blocks of a single row of quantised activations that lies in a tile.
    ///
    /// # Safety
    /// `prepared` is what [`ActivationLayout::prepare`] has made of an input of one row, and nothing writes it meanwhile.
    pub(super) unsafe fn single_row<'p>(&self, prepared: *const u8) -> &'p [Record] {
        debug_assert!(self.m == 1 && matches!(self.arrangement, Arrangement::Tiles(_)));
        // SAFETY: a tile of one row has a record for each block.
        unsafe { std::slice::from_raw_parts(prepared.cast::<Record>(), self.k / BLOCK) }
    }

    /// # Safety
    /// `input` points to a row and `row` to its quantised form.
    #[inline(always)]
    unsafe fn quantise_row<Q: Quantise>(
        &self,
        values: Range<usize>,
        input: *const f32,
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
            for block in values.start / BLOCK..values.end / BLOCK {
                put(block, &Q::quantise(input.add(block * BLOCK)));
            }
            if values.end == self.k {
                for block in self.k / BLOCK..parts.groups * (GROUP / BLOCK) {
                    put(block, &Quantised::ZERO);
                }
            }
        }
    }

    /// # Safety
    /// `input` and `prepared` are those of `prepare`.
    #[inline(always)]
    unsafe fn quantise_tile<Q: Quantise>(
        &self,
        rows: Range<usize>,
        values: Range<usize>,
        input: *const f32,
        prepared: *mut u8,
    ) {
        let blocks = self.k / BLOCK;
        // SAFETY: a row takes a record for each block whatever the tile, so tiles lie where their first row says.
        unsafe {
            let tile = prepared.cast::<Record>().add(rows.start * blocks);
            for (lane, row) in rows.clone().enumerate() {
                for block in values.start / BLOCK..values.end / BLOCK {
                    let quantised = Q::quantise(input.add(row * self.k + block * BLOCK));
                    let [first, second] = quantised.sums;
                    tile.add(block * rows.len() + lane).write(Record {
                        quads: bytemuck::cast(quantised.codes),
                        scale: quantised.scale,
                        sums: [-(first + second), -first, -second],
                    });
                }
            }
        }
    }

    /// # Safety
    /// `input` and `prepared` are those of `prepare`.
    #[inline(always)]
    unsafe fn interleave(
        &self,
        rows: Range<usize>,
        values: Range<usize>,
        input: *const f32,
        prepared: *mut u8,
    ) {
        // SAFETY: as for `quantise_tile`, with four bytes for each value.
        unsafe {
            let tile = prepared.cast::<f32>().add(rows.start * self.k);
            let count = rows.len();
            for value in values {
                for (lane, row) in rows.clone().enumerate() {
                    tile.add(value * count + lane)
                        .write(input.add(row * self.k + value).read());
                }
            }
        }
    }
}

/// A block of activations in 8 bits.
pub(super) struct Quantised {
    pub(super) codes: [i8; BLOCK],
    pub(super) scale: f32,
    /// The sums of the two halves' codes.
    pub(super) sums: [i32; 2],
}

impl Quantised {
    const ZERO: Quantised = Quantised {
        codes: [0; BLOCK],
        scale: 0.0,
        sums: [0; 2],
    };
}

/// The scale of a block, and what to multiply its values by, from the bits of the largest magnitude.
#[inline(always)]
pub(super) fn block_scale(largest: u32) -> (f32, f32) {
    let magnitude = f32::from_bits(largest);
    if !magnitude.is_finite() {
        (f32::NAN, 0.0)
    } else if magnitude < 127.0 * f32::MIN_POSITIVE {
        // The inverse would overflow.
        (0.0, 0.0)
    } else {
        (magnitude / 127.0, 127.0 / magnitude)
    }
}

/// Adding it leaves a small number, rounded to an integer, in the low bits.
pub(super) const SHIFT: f32 = 12_582_912.0; // 1.5 · 2²³

/// How an instruction set quantises a block of activations.
pub(super) trait Quantise {
    /// Quantises 32 values.
    ///
    /// # Safety
    /// The values are readable, and the instruction set is available.
    unsafe fn quantise(values: *const f32) -> Quantised;
}

/// Quantising without special instructions.
pub(super) struct PlainQuantise;

impl Quantise for PlainQuantise {
    #[inline(always)]
    unsafe fn quantise(values: *const f32) -> Quantised {
        // SAFETY: the caller's.
        let values = unsafe { &*values.cast::<[f32; BLOCK]>() };
        // As integers, magnitudes compare like the numbers do, and infinity and NaN are above all others.
        let largest = values.iter().fold(0, |largest, value| {
            largest.max(value.to_bits() & 0x7fff_ffff)
        });
        let (scale, inverse) = block_scale(largest);
        let mut codes = [0; BLOCK];
        for (code, value) in codes.iter_mut().zip(values) {
            *code = (value * inverse + SHIFT).to_bits() as i8;
        }
        let sum = |codes: &[i8]| codes.iter().map(|&code| i32::from(code)).sum::<i32>();
        let sums = [sum(&codes[..16]), sum(&codes[16..])];
        Quantised { codes, scale, sums }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quantise(values: [f32; BLOCK]) -> Quantised {
        // SAFETY: needs no instruction set.
        unsafe { PlainQuantise::quantise(values.as_ptr()) }
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
        let k = 544;
        let input: Vec<f32> = (0..13 * k)
            .map(|i| (i as f32 * 0.37).sin() * (i as f32 * 0.0013).exp())
            .collect();
        for m in [1, 13] {
            for isa in Isa::available() {
                // The same arrangement, prepared by another instruction set.
                let shape = ProductShape {
                    weight: walsh_formats::DType::Q4_0,
                    m,
                    n: 1,
                    k,
                    packed: false,
                };
                let layout = ActivationLayout::new(isa, Activations::Int8, shape);
                let plain = ActivationLayout {
                    isa: Isa::Portable,
                    ..layout
                };
                let [found, expected] = [layout, plain].map(|layout| {
                    let mut prepared = vec![0u32; layout.bytes() / 4];
                    // SAFETY: the vector has the bytes of the layout, and this machine the instruction set.
                    unsafe {
                        layout.prepare(
                            0..layout.items(),
                            input.as_ptr(),
                            prepared.as_mut_ptr().cast(),
                        )
                    };
                    prepared
                });
                assert!(found == expected, "{isa} m={m}");
            }
        }
    }

    #[test]
    fn tiles_cover_the_rows_evenly() {
        for rows in 1..100 {
            let tiles = Tiles::new(rows, 12);
            assert_eq!((tiles.start(0), tiles.start(tiles.count())), (0, rows));
            let sizes: Vec<_> = (0..tiles.count())
                .map(|tile| tiles.rows(tile).len())
                .collect();
            assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1);
            assert!(sizes.iter().all(|&size| (1..=12).contains(&size)));
        }
    }
}
