//! Rows whose numbers are read where they lie, thirty-two at a time: dense types, and codes of whole bytes.

use super::tile::LANES;
use crate::simd::{Simd, Table};

/// How numbers of a row are read.
pub(super) trait Numbers<S: Simd>: Copy {
    /// Bytes of the blocks of 32 numbers that begin with their scale in half precision, or zero.
    const BLOCK: usize = 0;
    /// Bytes of a number of types whose rows may end within a vector of lanes, or zero.
    const NUMBER: usize = 0;

    /// Numbers `32 · pair` and on of a row.
    ///
    /// # Safety
    /// The machine has the set, and the row has these numbers.
    unsafe fn pair(self, row: *const u8, pair: usize) -> [S::F; 2];

    /// As [`pair`](Self::pair), without the scale of the block.
    ///
    /// # Safety
    /// As for [`pair`](Self::pair).
    #[inline(always)]
    unsafe fn unscaled(self, row: *const u8, pair: usize) -> [S::F; 2] {
        // SAFETY: the caller's.
        unsafe { self.pair(row, pair) }
    }

    /// Numbers `16 · chunk` and on: the last ones of a row that is not of whole pairs.
    ///
    /// # Safety
    /// As for [`pair`](Self::pair).
    unsafe fn chunk(self, row: *const u8, chunk: usize) -> S::F;

    /// Numbers `16 · chunk` and on of a row that has only `count` of them; the others are zero.
    ///
    /// # Safety
    /// As for [`pair`](Self::pair), with a count below 16.
    #[inline(always)]
    unsafe fn rest(self, row: *const u8, chunk: usize, count: usize) -> S::F {
        debug_assert!(Self::NUMBER > 0, "rows of whole blocks end with one");
        let mut padded = [0u8; LANES * size_of::<f32>()];
        // SAFETY: the caller's: so many numbers of at most four bytes, and zeros behind them.
        unsafe {
            let from = row.add(Self::NUMBER * LANES * chunk);
            padded
                .as_mut_ptr()
                .copy_from_nonoverlapping(from, Self::NUMBER * count);
            self.chunk(padded.as_ptr(), 0)
        }
    }
}

/// Evaluates an expression with what reads a dense type.
macro_rules! with_numbers {
    ($dtype:expr, $numbers:ident => $body:expr) => {{
        use $crate::attention::dense;
        match $dtype {
            DType::F32 => {
                let $numbers = dense::F32;
                $body
            }
            DType::F16 => {
                let $numbers = dense::F16;
                $body
            }
            DType::BF16 => {
                let $numbers = dense::Bf16;
                $body
            }
            DType::Q8_0 => {
                let $numbers = dense::Q8;
                $body
            }
            DType::Q5_0 => {
                let $numbers = dense::Q5;
                $body
            }
            DType::Q4_0 => {
                let $numbers = dense::Q4;
                $body
            }
            dtype => unreachable!("a codec has checked that caches hold {dtype}"),
        }
    }};
}
pub(super) use with_numbers;

#[derive(Clone, Copy)]
pub(super) struct F32;
#[derive(Clone, Copy)]
pub(super) struct F16;
#[derive(Clone, Copy)]
pub(super) struct Bf16;
#[derive(Clone, Copy)]
pub(super) struct Q8;
#[derive(Clone, Copy)]
pub(super) struct Q5;
#[derive(Clone, Copy)]
pub(super) struct Q4;

/// Codes of eight bits, without their rows' scales.
#[derive(Clone, Copy)]
pub(super) struct Codes<'a, S: Simd>(pub(super) &'a Table<S>);

/// Implements [`Numbers`] for types whose numbers follow each other.
macro_rules! plain {
    ($name:ty, $bytes:literal, $load:ident) => {
        impl<S: Simd> Numbers<S> for $name {
            const NUMBER: usize = $bytes;

            #[inline(always)]
            unsafe fn pair(self, row: *const u8, pair: usize) -> [S::F; 2] {
                // SAFETY: the caller's.
                unsafe {
                    [
                        self::chunk::<S, Self>(self, row, 2 * pair),
                        self::chunk::<S, Self>(self, row, 2 * pair + 1),
                    ]
                }
            }

            #[inline(always)]
            unsafe fn chunk(self, row: *const u8, chunk: usize) -> S::F {
                // SAFETY: the caller's.
                unsafe { S::$load(row.add($bytes * LANES * chunk).cast()) }
            }
        }
    };
}

/// [`Numbers::chunk`], for calls that name the set.
#[inline(always)]
unsafe fn chunk<S: Simd, N: Numbers<S>>(numbers: N, row: *const u8, chunk: usize) -> S::F {
    // SAFETY: the caller's.
    unsafe { numbers.chunk(row, chunk) }
}

plain!(F32, 4, load);
plain!(F16, 2, load_f16);
plain!(Bf16, 2, load_bf16);

impl<S: Simd> Numbers<S> for Codes<'_, S> {
    #[inline(always)]
    unsafe fn pair(self, row: *const u8, pair: usize) -> [S::F; 2] {
        // SAFETY: the caller's.
        unsafe { [self.chunk(row, 2 * pair), self.chunk(row, 2 * pair + 1)] }
    }

    #[inline(always)]
    unsafe fn chunk(self, row: *const u8, chunk: usize) -> S::F {
        // SAFETY: the caller's.
        unsafe { S::lookup::<8>(self.0, S::load_u8(row.add(LANES * chunk))) }
    }
}

/// Implements [`Numbers`] for blocks of 32 numbers, of which a row has whole ones.
macro_rules! blocks {
    ($name:ty, $bytes:literal, $block:ident => $body:block) => {
        impl<S: Simd> Numbers<S> for $name {
            const BLOCK: usize = $bytes;

            #[inline(always)]
            unsafe fn pair(self, row: *const u8, pair: usize) -> [S::F; 2] {
                // SAFETY: the caller's: a whole block, which begins with its scale.
                unsafe {
                    let d = S::splat(S::half(row.add($bytes * pair)));
                    let [a, b] = <Self as Numbers<S>>::unscaled(self, row, pair);
                    [S::mul(a, d), S::mul(b, d)]
                }
            }

            #[inline(always)]
            unsafe fn unscaled(self, row: *const u8, pair: usize) -> [S::F; 2] {
                // SAFETY: the caller's: a whole block.
                unsafe {
                    let $block = row.add($bytes * pair);
                    $body
                }
            }

            #[inline(always)]
            unsafe fn chunk(self, row: *const u8, chunk: usize) -> S::F {
                // SAFETY: the caller's.
                unsafe {
                    let [first, second] = <Self as Numbers<S>>::pair(self, row, chunk / 2);
                    if chunk.is_multiple_of(2) {
                        first
                    } else {
                        second
                    }
                }
            }
        }
    };
}

// A half-precision scale and 32 signed bytes.
blocks!(Q8, 34, block => {
    [S::load_i8(block.add(2)), S::load_i8(block.add(18))]
});

// A half-precision scale and 16 bytes: their low halves are the first numbers and their high halves the last ones, from
// −8 on.
blocks!(Q4, 18, block => {
    let [first, second] = nibble_pair::<S>(block.add(2));
    [S::sub(first, S::splat(8.0)), S::sub(second, S::splat(8.0))]
});

// As q4_0 with a word of fifth bits before the bytes, from −16 on.
blocks!(Q5, 22, block => {
    let (upper, lower) = (S::splat(0.0), S::splat(16.0));
    let high = block.add(2).cast::<u32>().read_unaligned();
    let [first, second] = nibble_pair::<S>(block.add(6));
    [
        S::sub(first, S::pick_bits(high, upper, lower)),
        S::sub(second, S::pick_bits(high >> 16, upper, lower)),
    ]
});

/// The scales of a block of up to sixteen rows, `stride` bytes apart; those past the last row are the last one again.
///
/// # Safety
/// The machine has the set, and the rows have this block.
#[inline(always)]
pub(super) unsafe fn scales<S: Simd>(block: *const u8, stride: usize, count: usize) -> S::F {
    // SAFETY: the caller's.
    unsafe {
        let halves: [u16; LANES] = if count >= LANES {
            std::array::from_fn(|i| block.add(i * stride).cast::<u16>().read_unaligned())
        } else {
            std::array::from_fn(|i| {
                let row = block.add(i.min(count - 1) * stride);
                row.cast::<u16>().read_unaligned()
            })
        };
        S::load_f16(halves.as_ptr().cast())
    }
}

/// The low and the high halves of sixteen bytes, as numbers.
#[inline(always)]
unsafe fn nibble_pair<S: Simd>(p: *const u8) -> [S::F; 2] {
    // SAFETY: the caller's.
    unsafe {
        let bytes = S::load_u8(p);
        [
            S::number(S::and(bytes, S::splat_i(15))),
            S::number(S::shr(bytes, S::splat_i(4))),
        ]
    }
}
