//! Decoding weight rows side by side: a row to each 32-bit lane, four consecutive codes to a lane.
//!
//! The words of a block are those of packed panels, or of rows that are transposed as they are read, before their codes are
//! unpacked. What decoding needs of an instruction set is [`Vectors`]; all types are decoded by one code.

use std::mem::{MaybeUninit, offset_of};
use std::ops::Range;

use walsh_formats::ggml::{BlockIq4Nl, BlockQ4_0, BlockQ4_1, BlockQ5_0, BlockQ5_1, BlockQ8_0};

use super::blocks::Decode;
use super::layout::BlockQ8;

mod fill;
mod large;
mod words;

pub(super) use fill::FromPanels;
pub(super) use words::{PackedPanel, Panel, Words};

/// Vectors of 32-bit lanes, as an instruction set has them.
///
/// # Safety
/// Whoever calls a method is on a machine that has the instruction set; and whatever is read or written through a pointer
/// is readable or writable, at any address.
pub(super) trait Vectors: Copy {
    /// Words, or four bytes each.
    type Words: Copy;
    /// Numbers of single precision.
    type Floats: Copy;
    /// The lanes of a vector: a divisor of the rows of a packed panel.
    const LANES: usize;
    /// Whether full 8-bit codes are multiplied as signed numbers. Otherwise they are raised by 128.
    const SIGNED: bool;

    /// Fetches as many of the bytes that come later in a stream as are read now, from `at` on. There may be none.
    fn fetch_ahead(at: *const u8, bytes: usize);
    unsafe fn load(from: *const u8) -> Self::Words;
    unsafe fn store(words: Self::Words, to: *mut u8);
    /// A number in all lanes.
    unsafe fn broadcast(from: *const i32) -> Self::Words;
    /// As many half-precision numbers as there are lanes, side by side.
    unsafe fn load_halves(from: *const u8) -> Self::Floats;
    unsafe fn load_floats(from: *const f32) -> Self::Floats;
    unsafe fn store_floats(floats: Self::Floats, to: *mut f32);

    unsafe fn bytes(value: u8) -> Self::Words;
    unsafe fn ints(value: i32) -> Self::Words;
    unsafe fn floats(value: f32) -> Self::Floats;

    unsafe fn and(a: Self::Words, b: Self::Words) -> Self::Words;
    unsafe fn or(a: Self::Words, b: Self::Words) -> Self::Words;
    unsafe fn xor(a: Self::Words, b: Self::Words) -> Self::Words;
    /// `a & b | c`.
    unsafe fn and_or(a: Self::Words, b: Self::Words, c: Self::Words) -> Self::Words;
    /// Each word shifted towards its lowest bit.
    unsafe fn shr(words: Self::Words, by: usize) -> Self::Words;
    /// Each word shifted towards its highest bit.
    unsafe fn shl(words: Self::Words, by: usize) -> Self::Words;
    /// Each word with bit `from` of its bytes at bit `to` of them. Other bits may be those of another byte.
    unsafe fn moved(words: Self::Words, from: usize, to: usize) -> Self::Words;
    /// The highest byte of each word, as a signed number.
    unsafe fn signed_top_byte(words: Self::Words) -> Self::Words;
    /// The code that each byte, below 16, is the index of in the 4-bit table.
    unsafe fn look_up(indices: Self::Words) -> Self::Words;
    /// Bits `4 · quad` to `4 · quad + 3` of each word as bits 4 of its bytes.
    unsafe fn fifth_bits(words: Self::Words, quad: usize) -> Self::Words;

    /// The lower halves and the upper halves of the words as half-precision numbers.
    unsafe fn widen(words: Self::Words) -> [Self::Floats; 2];
    unsafe fn to_floats(ints: Self::Words) -> Self::Floats;
    unsafe fn add(a: Self::Floats, b: Self::Floats) -> Self::Floats;
    unsafe fn sub(a: Self::Floats, b: Self::Floats) -> Self::Floats;
    unsafe fn mul(a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// `a · b + c`.
    unsafe fn mul_add(a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats;

    /// Adds the products of some quads of a block's codes and a record's values to each lane.
    unsafe fn add_products<B: Decode>(
        sums: Self::Words,
        codes: &Codes<Self>,
        quads: Range<usize>,
        record: *const BlockQ8,
    ) -> Self::Words;
}

/// The vectors of the words.
pub(super) type Of<W> = <W as Words>::Vectors;

/// The scale and the minimum of a run of each row.
#[derive(Clone, Copy)]
pub(super) struct Run<V: Vectors> {
    pub(super) scale: V::Floats,
    /// Zero for types with a zero.
    pub(super) min: V::Floats,
}

/// What the parts of a block share: words that were transposed, and the scales of the scales.
pub(super) struct Kept<V: Vectors> {
    low: [MaybeUninit<V::Words>; 16],
    high: [MaybeUninit<V::Words>; 8],
    /// Integer scales, and minima, a byte to a run.
    ints: [MaybeUninit<V::Words>; 4],
    factors: [MaybeUninit<V::Floats>; 2],
}

impl<V: Vectors> Kept<V> {
    #[inline(always)]
    pub(super) const fn new() -> Kept<V> {
        Kept {
            low: [const { MaybeUninit::uninit() }; 16],
            high: [const { MaybeUninit::uninit() }; 8],
            ints: [const { MaybeUninit::uninit() }; 4],
            factors: [const { MaybeUninit::uninit() }; 2],
        }
    }
}

/// 32 codes of every row, in quads.
pub(super) type Codes<V> = [<V as Vectors>::Words; 8];

/// A block type that decodes side by side.
pub(super) trait Columns: Decode {
    /// Decodes what all parts of a block share.
    ///
    /// # Safety
    /// The blocks are readable, and the machine has the instruction set.
    unsafe fn start<W: Words>(blocks: W, kept: &mut Kept<W::Vectors>);

    /// The scale and the minimum of a run.
    ///
    /// # Safety
    /// The block has been started, and the machine has the instruction set.
    unsafe fn run<V: Vectors>(kept: &Kept<V>, run: usize) -> Run<V>;

    /// The codes of values `32 · part` to `32 · part + 31` of a block. The parts of a block are asked for in order, with
    /// the same `kept`.
    ///
    /// # Safety
    /// As for [`Columns::start`].
    unsafe fn codes<W: Words>(
        blocks: W,
        part: usize,
        kept: &mut Kept<W::Vectors>,
    ) -> Codes<W::Vectors>;
}

/// The parts of a block, one after the other, unrolled: what shifts and masks a part needs is known when this is compiled.
macro_rules! for_parts {
    ($block:ident, |$part:ident| $body:expr) => {{
        for_parts!(@ 0, $part, $body);
        if $block::LEN > BLOCK {
            for_parts!(@ 1, $part, $body);
            for_parts!(@ 2, $part, $body);
            for_parts!(@ 3, $part, $body);
            for_parts!(@ 4, $part, $body);
            for_parts!(@ 5, $part, $body);
            for_parts!(@ 6, $part, $body);
            for_parts!(@ 7, $part, $body);
        }
    }};
    (@ $number:literal, $part:ident, $body:expr) => {{
        let $part: usize = $number;
        $body;
    }};
}

pub(super) use for_parts;

/// Every vector of codes, changed. (`map` of an array is not always inlined, and is then compiled without the
/// instruction set.)
macro_rules! each {
    (|$index:ident| $codes:expr) => {
        [
            each!(@ $index = 0, $codes),
            each!(@ $index = 1, $codes),
            each!(@ $index = 2, $codes),
            each!(@ $index = 3, $codes),
            each!(@ $index = 4, $codes),
            each!(@ $index = 5, $codes),
            each!(@ $index = 6, $codes),
            each!(@ $index = 7, $codes),
        ]
    };
    (@ $index:ident = $number:literal, $codes:expr) => {{
        let $index: usize = $number;
        $codes
    }};
}

use each;

/// The bits of `mask` of each byte, once the words are shifted to the right.
///
/// # Safety
/// The machine has the instruction set.
#[inline(always)]
unsafe fn field<V: Vectors>(words: V::Words, by: usize, mask: u8) -> V::Words {
    // SAFETY: the caller's.
    unsafe { V::and(V::shr(words, by), V::bytes(mask)) }
}

/// Byte `index` of each word, times a scale.
///
/// # Safety
/// The machine has the instruction set.
#[inline(always)]
unsafe fn scaled_byte<V: Vectors>(words: V::Words, index: usize, scale: V::Floats) -> V::Floats {
    // SAFETY: the caller's.
    unsafe {
        let ints = V::and(V::shr(words, 8 * index), V::ints(255));
        V::mul(V::to_floats(ints), scale)
    }
}

/// The codes of nibbles: the low ones of four columns, then the high ones.
///
/// # Safety
/// The machine has the instruction set.
#[inline(always)]
unsafe fn nibbles<V: Vectors>(packed: [V::Words; 4]) -> Codes<V> {
    // SAFETY: the caller's.
    unsafe { each!(|quad| field::<V>(packed[quad % 4], quad / 4 * 4, 15)) }
}

/// The codes of the 4-bit table whose indices are nibbles.
///
/// # Safety
/// The machine has the instruction set.
#[inline(always)]
unsafe fn looked_up<V: Vectors>(packed: [V::Words; 4]) -> Codes<V> {
    // SAFETY: the caller's.
    unsafe {
        let indices = nibbles::<V>(packed);
        each!(|quad| V::look_up(indices[quad]))
    }
}

/// Adds 16 to the codes whose bit is set: bit `i` of a row's word is of value `i`.
///
/// # Safety
/// The machine has the instruction set.
#[inline(always)]
unsafe fn fifth_bits<V: Vectors>(codes: Codes<V>, bits: V::Words) -> Codes<V> {
    // SAFETY: the caller's.
    unsafe { each!(|quad| V::or(codes[quad], V::fifth_bits(bits, quad))) }
}

/// Types with blocks of 32 values: their codes, and where their scale and minimum lie.
macro_rules! small_columns {
    ($type:ident, |$blocks:ident: $words:ident| $codes:expr, $min:tt) => {
        impl Columns for $type {
            #[inline(always)]
            unsafe fn start<W: Words>(blocks: W, kept: &mut Kept<W::Vectors>) {
                // SAFETY: the caller's.
                unsafe { small_columns!(@start $min, blocks, kept, Self, Of<W>) }
            }

            #[inline(always)]
            unsafe fn run<V: Vectors>(kept: &Kept<V>, _: usize) -> Run<V> {
                // SAFETY: the caller's.
                unsafe {
                    Run {
                        scale: kept.factors[0].assume_init(),
                        min: small_columns!(@min $min, kept, V),
                    }
                }
            }

            #[inline(always)]
            unsafe fn codes<$words: Words>($blocks: $words, _: usize, _: &mut Kept<$words::Vectors>) -> Codes<$words::Vectors> {
                // SAFETY: the caller's.
                unsafe { $codes }
            }
        }
    };
    (@start no_min, $blocks:ident, $kept:ident, $type:ty, $vectors:ty) => {{
        $kept.factors[0].write($blocks.halves(offset_of!($type, d)));
    }};
    (@start min, $blocks:ident, $kept:ident, $type:ty, $vectors:ty) => {{
        const { assert!(offset_of!($type, m) == offset_of!($type, d) + 2) };
        let [d, m] = <$vectors>::widen($blocks.word(offset_of!($type, d)));
        $kept.factors[0].write(d);
        $kept.factors[1].write(<$vectors>::sub(<$vectors>::floats(0.0), m));
    }};
    (@min no_min, $kept:ident, $vectors:ty) => {
        <$vectors>::floats(0.0)
    };
    (@min min, $kept:ident, $vectors:ty) => {
        $kept.factors[1].assume_init()
    };
}

small_columns!(
    BlockQ4_0,
    |blocks: W| nibbles::<Of<W>>(blocks.columns(offset_of!(Self, qs))),
    no_min
);
small_columns!(
    BlockQ4_1,
    |blocks: W| nibbles::<Of<W>>(blocks.columns(offset_of!(Self, qs))),
    min
);
small_columns!(
    BlockQ5_0,
    |blocks: W| fifth_bits::<Of<W>>(
        nibbles::<Of<W>>(blocks.columns(offset_of!(Self, qs))),
        blocks.word(offset_of!(Self, qh))
    ),
    no_min
);
small_columns!(
    BlockQ5_1,
    |blocks: W| fifth_bits::<Of<W>>(
        nibbles::<Of<W>>(blocks.columns(offset_of!(Self, qs))),
        blocks.word(offset_of!(Self, qh))
    ),
    min
);
small_columns!(
    BlockQ8_0,
    |blocks: W| {
        let at = offset_of!(Self, qs);
        let halves = [blocks.columns(at), blocks.columns(at + 16)];
        each!(|quad| {
            let codes = halves[quad / 4][quad % 4];
            if Of::<W>::SIGNED {
                codes
            } else {
                Of::<W>::xor(codes, Of::<W>::bytes(0x80))
            }
        })
    },
    no_min
);
small_columns!(
    BlockIq4Nl,
    |blocks: W| looked_up::<Of<W>>(blocks.columns(offset_of!(Self, qs))),
    no_min
);
