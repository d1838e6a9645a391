//! Rows whose numbers are read where they lie, thirty-two at a time: dense types, and codes of whole bytes.

use crate::simd::{LANES, Simd, Table};

/// How numbers of a row are read.
pub(super) trait Numbers<S: Simd>: Copy {
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

/// Evaluates an expression with what reads a dense type.
macro_rules! with_numbers {
    ($dtype:expr, $numbers:ident => $body:expr) => {{
        use $crate::kv::attention::dense;
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
pub(super) struct Codes<'a, S: Simd>(pub(super) &'a Table<'a, S>);

/// Implements [`Numbers`] for types whose numbers follow each other.
macro_rules! plain {
    ($name:ty, $bytes:literal, $load:ident) => {
        impl<S: Simd> Numbers<S> for $name {
            const NUMBER: usize = $bytes;

            #[inline(always)]
            unsafe fn pair(self, s: S, row: *const u8, pair: usize) -> [S::F; 2] {
                // SAFETY: the caller's: the row has these numbers.
                unsafe {
                    [
                        self.chunk(s, row, 2 * pair),
                        self.chunk(s, row, 2 * pair + 1),
                    ]
                }
            }

            #[inline(always)]
            unsafe fn chunk(self, s: S, row: *const u8, chunk: usize) -> S::F {
                // SAFETY: the caller's: the row has these numbers.
                unsafe { s.$load(row.add($bytes * LANES * chunk).cast()) }
            }
        }
    };
}

plain!(F32, 4, load);
plain!(F16, 2, load_f16);
plain!(Bf16, 2, load_bf16);

impl<S: Simd> Numbers<S> for Codes<'_, S> {
    #[inline(always)]
    unsafe fn pair(self, s: S, row: *const u8, pair: usize) -> [S::F; 2] {
        // SAFETY: the caller's: the row has these numbers.
        unsafe {
            [
                self.chunk(s, row, 2 * pair),
                self.chunk(s, row, 2 * pair + 1),
            ]
        }
    }

    #[inline(always)]
    unsafe fn chunk(self, s: S, row: *const u8, chunk: usize) -> S::F {
        // SAFETY: the caller's: the row has these numbers.
        unsafe { s.lookup::<8>(self.0, s.load_u8(row.add(LANES * chunk))) }
    }
}

/// Implements [`Numbers`] for blocks of 32 numbers, of which a row has whole ones.
macro_rules! blocks {
    ($name:ty, $bytes:literal, $s:ident, $block:ident => $body:block) => {
        impl<S: Simd> Numbers<S> for $name {
            const BLOCK: usize = $bytes;

            #[inline(always)]
            unsafe fn pair(self, $s: S, row: *const u8, pair: usize) -> [S::F; 2] {
                // SAFETY: the caller's: a whole block, which begins with its scale.
                unsafe {
                    let d = $s.splat($s.half(row.add($bytes * pair)));
                    let [a, b] = self.unscaled($s, row, pair);
                    [$s.mul(a, d), $s.mul(b, d)]
                }
            }

            #[inline(always)]
            unsafe fn unscaled(self, $s: S, row: *const u8, pair: usize) -> [S::F; 2] {
                // SAFETY: the caller's: a whole block.
                unsafe {
                    let $block = row.add($bytes * pair);
                    $body
                }
            }

            #[inline(always)]
            unsafe fn chunk(self, $s: S, row: *const u8, chunk: usize) -> S::F {
                // SAFETY: the caller's: the row has these numbers.
                unsafe {
                    let [first, second] = self.pair($s, row, chunk / 2);
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
blocks!(Q8, 34, s, block => {
    [s.load_i8(block.add(2)), s.load_i8(block.add(18))]
});

// A half-precision scale and 16 bytes: their low halves are the first numbers and their high halves the last ones, from
// −8 on.
blocks!(Q4, 18, s, block => {
    let [first, second] = nibble_pair(s, block.add(2));
    [s.sub(first, s.splat(8.0)), s.sub(second, s.splat(8.0))]
});

// As q4_0 with a word of fifth bits before the bytes, from −16 on.
blocks!(Q5, 22, s, block => {
    let (upper, lower) = (s.splat(0.0), s.splat(16.0));
    let high = block.add(2).cast::<u32>().read_unaligned();
    let [first, second] = nibble_pair(s, block.add(6));
    [
        s.sub(first, s.pick_bits(high, upper, lower)),
        s.sub(second, s.pick_bits(high >> 16, upper, lower)),
    ]
});

/// The scales of a block of up to sixteen rows, `stride` bytes apart; those past the last row are the last one again.
///
/// # Safety
/// The rows have this block.
#[inline(always)]
pub(super) unsafe fn scales<S: Simd>(s: S, block: *const u8, stride: usize, count: usize) -> S::F {
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

/// The low and the high halves of sixteen bytes, as numbers.
#[inline(always)]
unsafe fn nibble_pair<S: Simd>(s: S, p: *const u8) -> [S::F; 2] {
    // SAFETY: the caller's: the row has these numbers.
    unsafe {
        let bytes = s.load_u8(p);
        [
            s.number(s.and(bytes, s.splat_i(15))),
            s.number(s.shr(bytes, s.splat_i(4))),
        ]
    }
}
