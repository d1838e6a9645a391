//! The types with blocks of 256 values.

use std::mem::offset_of;

use walsh_formats::ggml::{BlockIq4Xs, BlockQ2K, BlockQ3K, BlockQ4K, BlockQ5K, BlockQ6K};

use super::{Codes, Columns, Kept, Of, Run, Vectors, Words, each, field, looked_up, scaled_byte};

/// A scale or minimum of each row: byte `run` of `ints`, times its factor.
///
/// # Safety
/// Both have been kept, and the machine has the instruction set.
#[inline(always)]
unsafe fn scaled<V: Vectors>(kept: &Kept<V>, ints: usize, run: usize, factor: usize) -> V::Floats {
    // SAFETY: the caller's.
    unsafe {
        let words = kept.ints[ints + run / 4].assume_init();
        scaled_byte::<V>(words, run % 4, kept.factors[factor].assume_init())
    }
}

/// The lower and the upper half of each word, widened.
///
/// # Safety
/// The machine has the instruction set.
#[inline(always)]
unsafe fn keep_factors<V: Vectors>(words: V::Words, kept: &mut Kept<V>) {
    // SAFETY: the caller's.
    let [low, high] = unsafe { V::widen(words) };
    kept.factors[0].write(low);
    kept.factors[1].write(high);
}

/// Sixteen bytes for sixteen runs.
///
/// # Safety
/// As for [`Columns::start`].
#[inline(always)]
unsafe fn keep_ints<W: Words>(blocks: W, at: usize, kept: &mut Kept<W::Vectors>) {
    // SAFETY: the caller's.
    let ints = unsafe { blocks.columns(at) };
    for (to, ints) in kept.ints.iter_mut().zip(ints) {
        to.write(ints);
    }
}

/// Bit planes: bit `part` of byte `i` of 32 is of value `i` of a part.
#[derive(Clone, Copy)]
struct Planes {
    /// Where the bytes lie in a block.
    at: usize,
    /// The bit of a code that they are.
    bit: usize,
}

impl Planes {
    /// Codes of a part with their bits of the plane. The first part keeps what all read.
    ///
    /// # Safety
    /// As for [`Columns::codes`].
    #[inline(always)]
    unsafe fn add<W: Words>(
        self,
        blocks: W,
        part: usize,
        kept: &mut Kept<W::Vectors>,
        codes: Codes<W::Vectors>,
    ) -> Codes<W::Vectors> {
        // SAFETY: the caller's.
        unsafe {
            if part == 0 {
                blocks.keep(self.at, &mut kept.high);
            }
            each!(|quad| {
                let bits = Of::<W>::moved(blocks.kept(self.at, &kept.high, quad), part, self.bit);
                Of::<W>::and_or(bits, Of::<W>::bytes(1 << self.bit), codes[quad])
            })
        }
    }
}

/// Eight scales and eight minima of the types `q4_K` and `q5_K`.
///
/// # Safety
/// As for [`Columns::start`].
#[inline(always)]
unsafe fn start_asymmetric<W: Words>(blocks: W, at: usize, kept: &mut Kept<W::Vectors>) {
    // SAFETY: the caller's.
    unsafe {
        let [factors, a, b, c] = blocks.columns(at);
        keep_factors::<Of<W>>(factors, kept);
        let (scales, mins) = (field::<Of<W>>(a, 2, 0x30), field::<Of<W>>(b, 2, 0x30));
        let nibbles = Of::<W>::bytes(15);
        kept.ints[0].write(field::<Of<W>>(a, 0, 0x3f));
        kept.ints[1].write(Of::<W>::and_or(c, nibbles, scales));
        kept.ints[2].write(field::<Of<W>>(b, 0, 0x3f));
        kept.ints[3].write(Of::<W>::and_or(Of::<W>::shr(c, 4), nibbles, mins));
    }
}

/// A run of the types `q4_K` and `q5_K`.
///
/// # Safety
/// As for [`Columns::run`].
#[inline(always)]
unsafe fn asymmetric_run<V: Vectors>(kept: &Kept<V>, run: usize) -> Run<V> {
    // SAFETY: the caller's.
    unsafe {
        Run {
            scale: scaled(kept, 0, run, 0),
            min: scaled(kept, 2, run, 1),
        }
    }
}

/// The nibbles of `q4_K` and `q5_K`: 32 bytes serve two parts.
///
/// # Safety
/// As for [`Columns::codes`].
#[inline(always)]
unsafe fn nibble_parts<W: Words>(
    blocks: W,
    at: usize,
    part: usize,
    kept: &mut Kept<W::Vectors>,
) -> Codes<W::Vectors> {
    // SAFETY: the caller's; the even part, which comes first, keeps what the odd one reads.
    unsafe {
        if part.is_multiple_of(2) {
            blocks.keep(at + 16 * part, &mut kept.low[..8]);
        }
        let (at, by) = (at + part / 2 * 32, 4 * (part % 2));
        each!(|quad| field::<Of<W>>(blocks.kept(at, &kept.low[..8], quad), by, 15))
    }
}

impl Columns for BlockQ4K {
    #[inline(always)]
    unsafe fn start<W: Words>(blocks: W, kept: &mut Kept<W::Vectors>) {
        // SAFETY: the caller's.
        unsafe { start_asymmetric(blocks, offset_of!(Self, d), kept) }
    }

    #[inline(always)]
    unsafe fn run<V: Vectors>(kept: &Kept<V>, run: usize) -> Run<V> {
        // SAFETY: the caller's.
        unsafe { asymmetric_run(kept, run) }
    }

    #[inline(always)]
    unsafe fn codes<W: Words>(
        blocks: W,
        part: usize,
        kept: &mut Kept<W::Vectors>,
    ) -> Codes<W::Vectors> {
        // SAFETY: the caller's.
        unsafe { nibble_parts(blocks, offset_of!(Self, qs), part, kept) }
    }
}

impl Columns for BlockQ5K {
    #[inline(always)]
    unsafe fn start<W: Words>(blocks: W, kept: &mut Kept<W::Vectors>) {
        // SAFETY: the caller's.
        unsafe { start_asymmetric(blocks, offset_of!(Self, d), kept) }
    }

    #[inline(always)]
    unsafe fn run<V: Vectors>(kept: &Kept<V>, run: usize) -> Run<V> {
        // SAFETY: the caller's.
        unsafe { asymmetric_run(kept, run) }
    }

    #[inline(always)]
    unsafe fn codes<W: Words>(
        blocks: W,
        part: usize,
        kept: &mut Kept<W::Vectors>,
    ) -> Codes<W::Vectors> {
        let planes = Planes {
            at: offset_of!(Self, qh),
            bit: 4,
        };
        // SAFETY: the caller's.
        unsafe {
            let codes = nibble_parts(blocks, offset_of!(Self, qs), part, kept);
            planes.add(blocks, part, kept, codes)
        }
    }
}

impl Columns for BlockQ6K {
    #[inline(always)]
    unsafe fn start<W: Words>(blocks: W, kept: &mut Kept<W::Vectors>) {
        // SAFETY: the caller's.
        unsafe {
            keep_ints(blocks, offset_of!(Self, scales), kept);
            kept.factors[0].write(blocks.halves(offset_of!(Self, d)));
        }
    }

    #[inline(always)]
    unsafe fn run<V: Vectors>(kept: &Kept<V>, run: usize) -> Run<V> {
        // SAFETY: the caller's.
        unsafe {
            let ints = kept.ints[run / 4].assume_init();
            let int = V::signed_top_byte(V::shl(ints, 24 - 8 * (run % 4)));
            let d = kept.factors[0].assume_init();
            Run {
                scale: V::mul(V::to_floats(int), d),
                min: V::floats(0.0),
            }
        }
    }

    #[inline(always)]
    unsafe fn codes<W: Words>(
        blocks: W,
        part: usize,
        kept: &mut Kept<W::Vectors>,
    ) -> Codes<W::Vectors> {
        // SAFETY: the caller's; the first part of each half keeps what the next three read.
        unsafe {
            let (half, quarter) = (part / 4, part % 4);
            let low = offset_of!(Self, ql) + 64 * half;
            let high = offset_of!(Self, qh) + 32 * half;
            if quarter == 0 {
                blocks.keep(low, &mut kept.low);
                blocks.keep(high, &mut kept.high);
            }
            let first = quarter % 2 * 8;
            // Two bits of a byte go to bits 4 and 5.
            each!(|quad| {
                let low = blocks.kept(low, &kept.low, first + quad);
                let low = field::<Of<W>>(low, quarter / 2 * 4, 15);
                let bits = blocks.kept(high, &kept.high, quad);
                let bits = Of::<W>::moved(bits, 2 * quarter, 4);
                Of::<W>::and_or(bits, Of::<W>::bytes(0x30), low)
            })
        }
    }
}

/// The two-bit codes of `q2_K` and `q3_K`: 32 bytes serve four parts.
///
/// # Safety
/// As for [`Columns::codes`].
#[inline(always)]
unsafe fn bit_pairs<W: Words>(
    blocks: W,
    at: usize,
    part: usize,
    kept: &mut Kept<W::Vectors>,
) -> Codes<W::Vectors> {
    // SAFETY: the caller's; the first part of each half keeps what the next three read.
    unsafe {
        if part.is_multiple_of(4) {
            blocks.keep(at + 8 * part, &mut kept.low[..8]);
        }
        let (at, by) = (at + part / 4 * 32, part % 4 * 2);
        each!(|quad| field::<Of<W>>(blocks.kept(at, &kept.low[..8], quad), by, 3))
    }
}

/// A run of a type whose integer scales are 32 too large.
///
/// # Safety
/// The factor and −32 times it have been kept, and the machine has the instruction set.
#[inline(always)]
unsafe fn offset_run<V: Vectors>(int: V::Words, kept: &Kept<V>) -> Run<V> {
    // SAFETY: the caller's.
    unsafe {
        let (d, offset) = (kept.factors[0].assume_init(), kept.factors[1].assume_init());
        Run {
            scale: V::mul_add(V::to_floats(int), d, offset),
            min: V::floats(0.0),
        }
    }
}

impl Columns for BlockQ2K {
    #[inline(always)]
    unsafe fn start<W: Words>(blocks: W, kept: &mut Kept<W::Vectors>) {
        const { assert!(offset_of!(BlockQ2K, dmin) == offset_of!(BlockQ2K, d) + 2) };
        // SAFETY: the caller's.
        unsafe {
            keep_ints(blocks, offset_of!(Self, scales), kept);
            keep_factors::<Of<W>>(blocks.word(offset_of!(Self, d)), kept);
        }
    }

    #[inline(always)]
    unsafe fn run<V: Vectors>(kept: &Kept<V>, run: usize) -> Run<V> {
        // SAFETY: the caller's.
        unsafe {
            let ints = kept.ints[run / 4].assume_init();
            let scale = V::and(V::shr(ints, 8 * (run % 4)), V::ints(15));
            let min = V::and(V::shr(ints, 8 * (run % 4) + 4), V::ints(15));
            Run {
                scale: V::mul(V::to_floats(scale), kept.factors[0].assume_init()),
                min: V::mul(V::to_floats(min), kept.factors[1].assume_init()),
            }
        }
    }

    #[inline(always)]
    unsafe fn codes<W: Words>(
        blocks: W,
        part: usize,
        kept: &mut Kept<W::Vectors>,
    ) -> Codes<W::Vectors> {
        // SAFETY: the caller's.
        unsafe { bit_pairs(blocks, offset_of!(Self, qs), part, kept) }
    }
}

impl Columns for BlockQ3K {
    #[inline(always)]
    unsafe fn start<W: Words>(blocks: W, kept: &mut Kept<W::Vectors>) {
        // SAFETY: the caller's.
        unsafe {
            let at = offset_of!(Self, scales);
            let (low, high) = ([blocks.word(at), blocks.word(at + 4)], blocks.word(at + 8));
            let d = blocks.halves(offset_of!(Self, d));
            // Two bits of a byte go to bits 4 and 5, beside a nibble.
            for (i, to) in kept.ints.iter_mut().enumerate() {
                let high = Of::<W>::and(Of::<W>::moved(high, 2 * i, 4), Of::<W>::bytes(0x30));
                let low = Of::<W>::shr(low[i % 2], i / 2 * 4);
                to.write(Of::<W>::and_or(low, Of::<W>::bytes(15), high));
            }
            kept.factors[0].write(d);
            kept.factors[1].write(Of::<W>::mul(d, Of::<W>::floats(-32.0)));
        }
    }

    #[inline(always)]
    unsafe fn run<V: Vectors>(kept: &Kept<V>, run: usize) -> Run<V> {
        // SAFETY: the caller's.
        unsafe {
            let ints = kept.ints[run / 4].assume_init();
            offset_run(V::and(V::shr(ints, 8 * (run % 4)), V::ints(255)), kept)
        }
    }

    #[inline(always)]
    unsafe fn codes<W: Words>(
        blocks: W,
        part: usize,
        kept: &mut Kept<W::Vectors>,
    ) -> Codes<W::Vectors> {
        let planes = Planes {
            at: offset_of!(Self, hmask),
            bit: 2,
        };
        // SAFETY: the caller's.
        unsafe {
            let codes = bit_pairs(blocks, offset_of!(Self, qs), part, kept);
            planes.add(blocks, part, kept, codes)
        }
    }
}

impl Columns for BlockIq4Xs {
    #[inline(always)]
    unsafe fn start<W: Words>(blocks: W, kept: &mut Kept<W::Vectors>) {
        const { assert!(offset_of!(BlockIq4Xs, scales_h) == offset_of!(BlockIq4Xs, d) + 2) };
        // SAFETY: the caller's.
        unsafe {
            let first = blocks.word(offset_of!(Self, d));
            let [d, _] = Of::<W>::widen(first);
            kept.ints[0].write(first);
            kept.ints[1].write(blocks.word(offset_of!(Self, scales_l)));
            kept.factors[0].write(d);
            kept.factors[1].write(Of::<W>::mul(d, Of::<W>::floats(-32.0)));
        }
    }

    #[inline(always)]
    unsafe fn run<V: Vectors>(kept: &Kept<V>, run: usize) -> Run<V> {
        // SAFETY: the caller's.
        unsafe {
            let (first, low) = (kept.ints[0].assume_init(), kept.ints[1].assume_init());
            let high = V::shl(V::and(V::shr(first, 16 + 2 * run), V::ints(3)), 4);
            let int = V::and_or(V::shr(low, 4 * run), V::ints(15), high);
            offset_run(int, kept)
        }
    }

    #[inline(always)]
    unsafe fn codes<W: Words>(
        blocks: W,
        part: usize,
        _: &mut Kept<W::Vectors>,
    ) -> Codes<W::Vectors> {
        // SAFETY: the caller's.
        unsafe { looked_up::<Of<W>>(blocks.columns(offset_of!(Self, qs) + 16 * part)) }
    }
}
