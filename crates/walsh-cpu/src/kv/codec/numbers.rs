//! Rows whose numbers are read where they lie, thirty-two at a time: what families give, and how tiles are decoded from it.

use crate::isa::Isa;
use crate::simd::{Facts, LANES, Simd};

/// Numbers of a head's vector in scratch, where zeros fill the last vector of lanes.
pub(in crate::kv) fn width(head_dim: usize) -> usize {
    head_dim.next_multiple_of(LANES)
}

/// Brings vectors from the model's order of channels to the lane order of codes, or back.
pub(in crate::kv) fn reorder(isa: Isa, rows: &mut [f32], to_lanes: bool) {
    let order = Facts::of(isa).order;
    for chunk in rows.chunks_exact_mut(LANES) {
        let before: [f32; LANES] = std::array::from_fn(|i| chunk[i]);
        for (lane, element) in order.iter().enumerate() {
            let element = usize::from(*element);
            if to_lanes {
                chunk[lane] = before[element];
            } else {
                chunk[element] = before[lane];
            }
        }
    }
}

/// Rows of one KV head that lie at a fixed distance from each other.
#[derive(Clone, Copy)]
pub(in crate::kv) struct Rows {
    /// The first row's codes.
    pub(in crate::kv) codes: *const u8,
    /// Bytes from row to row.
    pub(in crate::kv) stride: usize,
    /// The first row's scales; unused for dense codecs.
    pub(in crate::kv) scales: *const u8,
    /// How many rows there are, at least one.
    pub(in crate::kv) count: usize,
}

/// How numbers of a row are read.
pub(in crate::kv) trait Numbers<S: Simd>: Copy {
    /// Bytes of the blocks of 32 numbers that begin with their scale in half precision, or zero.
    const BLOCK: usize = 0;
    /// Bytes of a number of types whose rows may end within a vector of lanes, or zero.
    const NUMBER: usize = 0;

    /// Numbers `32 · pair` and on of a row.
    ///
    /// # Safety
    /// The row has these numbers.
    unsafe fn pair(self, s: S, row: *const u8, pair: usize) -> [S::F; 2];

    /// As [`pair`](Self::pair), without the scale of the block.
    ///
    /// # Safety
    /// As for [`pair`](Self::pair).
    #[inline(always)]
    unsafe fn unscaled(self, s: S, row: *const u8, pair: usize) -> [S::F; 2] {
        // SAFETY: the caller's: the row has these numbers.
        unsafe { self.pair(s, row, pair) }
    }

    /// Numbers `16 · chunk` and on: the last ones of a row that is not of whole pairs.
    ///
    /// # Safety
    /// As for [`pair`](Self::pair).
    unsafe fn chunk(self, s: S, row: *const u8, chunk: usize) -> S::F;

    /// Numbers `16 · chunk` and on of a row that has only `count` of them; the others are zero.
    ///
    /// # Safety
    /// As for [`pair`](Self::pair), with a count below 16.
    #[inline(always)]
    unsafe fn rest(self, s: S, row: *const u8, chunk: usize, count: usize) -> S::F {
        debug_assert!(Self::NUMBER > 0, "rows of whole blocks end with one");
        let mut padded = [0u8; LANES * size_of::<f32>()];
        // SAFETY: the caller's: so many numbers of at most four bytes, and zeros behind them.
        unsafe {
            let from = row.add(Self::NUMBER * LANES * chunk);
            padded
                .as_mut_ptr()
                .copy_from_nonoverlapping(from, Self::NUMBER * count);
            self.chunk(s, padded.as_ptr(), 0)
        }
    }
}

/// What is done with rows once it is known how their numbers are read.
pub(in crate::kv) trait Reader<S: Simd> {
    /// Reads rows.
    ///
    /// # Safety
    /// The rows are of numbers that are read so.
    unsafe fn read<N: Numbers<S>>(self, s: S, numbers: N);
}

/// Decodes a panel of keys, of the rows from `first` on.
pub(super) struct KeyPanel {
    pub(super) rows: Rows,
    pub(super) first: usize,
    pub(super) head_dim: usize,
    pub(super) out: *mut f32,
}

impl<S: Simd> Reader<S> for KeyPanel {
    #[inline(always)]
    unsafe fn read<N: Numbers<S>>(self, s: S, numbers: N) {
        let Self {
            rows,
            first,
            head_dim: d,
            out,
        } = self;
        // SAFETY: the caller's rows; `row` stays below the count.
        unsafe {
            let row = |i: usize| {
                let row = (first + i).min(rows.count - 1);
                rows.codes.add(row * rows.stride)
            };
            for pair in 0..d / 32 {
                let mut blocks = [[s.splat(0.0); LANES]; 2];
                for i in 0..LANES {
                    [blocks[0][i], blocks[1][i]] = numbers.pair(s, row(i), pair);
                }
                for (half, block) in blocks.iter_mut().enumerate() {
                    store_columns(s, block, out.add((2 * pair + half) * LANES * LANES));
                }
            }
            for chunk in d / 32 * 2..d.div_ceil(LANES) {
                let mut block = [s.splat(0.0); LANES];
                for (i, slot) in block.iter_mut().enumerate() {
                    *slot = last_numbers(s, numbers, row(i), chunk, d);
                }
                store_columns(s, &mut block, out.add(chunk * LANES * LANES));
            }
        }
    }
}

/// A vector of lanes behind the whole pairs of a row of `d` numbers.
#[inline(always)]
unsafe fn last_numbers<S: Simd, N: Numbers<S>>(
    s: S,
    numbers: N,
    row: *const u8,
    chunk: usize,
    d: usize,
) -> S::F {
    // SAFETY: the caller's rows, and room for what is decoded.
    unsafe {
        match d - chunk * LANES {
            LANES.. => numbers.chunk(s, row, chunk),
            count => numbers.rest(s, row, chunk, count),
        }
    }
}

/// Sixteen numbers of sixteen rows, number by number.
#[inline(always)]
unsafe fn store_columns<S: Simd>(s: S, block: &mut [S::F; LANES], out: *mut f32) {
    // SAFETY: the caller's: the output holds 256 numbers.
    unsafe {
        s.transpose(block);
        for (i, column) in block.iter().enumerate() {
            s.store(out.add(i * LANES), *column);
        }
    }
}

/// Decodes rows of values.
pub(super) struct ValueRows {
    pub(super) rows: Rows,
    pub(super) head_dim: usize,
    pub(super) out: *mut f32,
}

impl<S: Simd> Reader<S> for ValueRows {
    #[inline(always)]
    unsafe fn read<N: Numbers<S>>(self, s: S, numbers: N) {
        let Self {
            rows,
            head_dim: d,
            out,
        } = self;
        for i in 0..rows.count {
            // SAFETY: the caller's rows; `i` is below the count.
            unsafe {
                let (row, out) = (rows.codes.add(i * rows.stride), out.add(i * width(d)));
                for pair in 0..d / 32 {
                    let [a, b] = numbers.pair(s, row, pair);
                    s.store(out.add(32 * pair), a);
                    s.store(out.add(32 * pair + LANES), b);
                }
                for chunk in d / 32 * 2..d.div_ceil(LANES) {
                    s.store(
                        out.add(LANES * chunk),
                        last_numbers(s, numbers, row, chunk, d),
                    );
                }
            }
        }
    }
}

/// The scales of a block of up to sixteen rows, `stride` bytes apart; those past the last row are the last one again.
///
/// # Safety
/// The rows have this block.
#[inline(always)]
pub(in crate::kv) unsafe fn block_scales<S: Simd>(
    s: S,
    block: *const u8,
    stride: usize,
    count: usize,
) -> S::F {
    // SAFETY: the caller's: the row has these numbers.
    unsafe {
        let halves: [u16; LANES] = if count >= LANES {
            std::array::from_fn(|i| block.add(i * stride).cast::<u16>().read_unaligned())
        } else {
            std::array::from_fn(|i| {
                let row = block.add(i.min(count - 1) * stride);
                row.cast::<u16>().read_unaligned()
            })
        };
        s.load_f16(halves.as_ptr().cast())
    }
}
