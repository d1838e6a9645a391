//! What families share to decode weight rows side by side: a row to each 32-bit lane, four consecutive codes to a lane.

use crate::simd::{Register, Unpack};

/// A word of each block.
pub(in crate::matmul) type Word<W> = <<W as SideBySide>::Set as Register>::Words;

/// A block of each of some weight rows, word by word: a vector has a row's word in each lane. The words are those of packed
/// panels, or of rows that are transposed as they are read, before their codes are unpacked.
///
/// Places in a block are in bytes; one past its end is a panic, which the compiler finds no use for.
pub(in crate::matmul) trait SideBySide: Copy {
    /// The instruction set.
    type Set: Unpack;

    fn set(self) -> Self::Set;

    /// The 16 bytes from `at` on of every row's block, as four columns of words.
    fn columns(self, at: usize) -> [Word<Self>; 4];

    /// The word at `at` of every row's block.
    fn word(self, at: usize) -> Word<Self>;

    /// The byte at `at` of every row's block, as a word.
    fn byte(self, at: usize) -> Word<Self>;

    /// The half-precision number at `at` of every row's block.
    fn halves(self, at: usize) -> <Self::Set as Register>::Numbers;

    /// Keeps the words from `at` on, a multiple of four, where reading them again costs more than reading what was kept.
    fn keep(self, at: usize, kept: &mut [Word<Self>]);

    /// Word `index` of those that [`SideBySide::keep`] was given for the same block and place.
    fn kept(self, at: usize, kept: &[Word<Self>], index: usize) -> Word<Self>;
}

/// The scale and the minimum of a run of each row.
#[derive(Clone, Copy)]
pub(in crate::matmul) struct Run<S: Register> {
    pub(in crate::matmul) scale: S::Numbers,
    /// Zero for types with a zero.
    pub(in crate::matmul) min: S::Numbers,
}

/// What the parts of a block share: words that were transposed, and the scales of the scales.
pub(in crate::matmul) struct Kept<S: Register> {
    pub(super) low: [S::Words; 16],
    pub(super) high: [S::Words; 8],
    /// Integer scales, and minima, a byte to a run.
    pub(super) ints: [S::Words; 4],
    pub(super) factors: [S::Numbers; 2],
}

impl<S: Register> Kept<S> {
    #[inline(always)]
    pub(in crate::matmul) fn new(s: S) -> Kept<S> {
        Kept {
            low: [s.words(0); 16],
            high: [s.words(0); 8],
            ints: [s.words(0); 4],
            factors: [s.numbers(0.0); 2],
        }
    }
}

/// 32 codes of every row, in quads.
pub(in crate::matmul) type Codes<S> = [<S as Register>::Words; 8];

/// Every vector of codes, changed. (`map` of an array is not always inlined, and is then compiled without the
/// instruction set.)
macro_rules! quads {
    (|$index:ident| $codes:expr) => {
        [
            quads!(@ $index = 0, $codes),
            quads!(@ $index = 1, $codes),
            quads!(@ $index = 2, $codes),
            quads!(@ $index = 3, $codes),
            quads!(@ $index = 4, $codes),
            quads!(@ $index = 5, $codes),
            quads!(@ $index = 6, $codes),
            quads!(@ $index = 7, $codes),
        ]
    };
    (@ $index:ident = $number:literal, $codes:expr) => {{
        let $index: usize = $number;
        $codes
    }};
}
pub(super) use quads;

/// The bits of `mask` of each byte, once the words are shifted to the right.
#[inline(always)]
pub(super) fn field<S: Unpack>(s: S, words: S::Words, by: usize, mask: u8) -> S::Words {
    s.and(s.shr(words, by), s.bytes(mask))
}

/// The codes of nibbles: the low ones of four columns, then the high ones.
#[inline(always)]
pub(super) fn nibbles<S: Unpack>(s: S, packed: [S::Words; 4]) -> Codes<S> {
    quads!(|quad| field(s, packed[quad % 4], quad / 4 * 4, 15))
}

/// Adds 16 to the codes whose bit is set: bit `i` of a row's word is of value `i`.
#[inline(always)]
pub(super) fn fifth_bits<S: Unpack>(s: S, codes: Codes<S>, bits: S::Words) -> Codes<S> {
    quads!(|quad| s.or(codes[quad], s.fifth_bits(bits, quad)))
}

/// The two-bit codes that lie in order from `at` on, four to a byte.
#[inline(always)]
pub(super) fn pairs_in_order<W: SideBySide>(blocks: W, at: usize) -> Codes<W::Set> {
    let s = blocks.set();
    let words = [blocks.word(at), blocks.word(at + 4)];
    quads!(|quad| {
        let byte = s.and(s.shr(words[quad / 4], 8 * (quad % 4)), s.words(255));
        let halves = s.and(s.or(byte, s.shl(byte, 12)), s.words(0x000f_000f));
        s.and(s.or(halves, s.shl(halves, 6)), s.bytes(3))
    })
}

/// The two-bit codes of types whose 32 bytes serve four parts. The first part of each half keeps what the next three read.
#[inline(always)]
pub(super) fn bit_pairs<W: SideBySide>(
    blocks: W,
    at: usize,
    part: usize,
    kept: &mut Kept<W::Set>,
) -> Codes<W::Set> {
    let s = blocks.set();
    if part.is_multiple_of(4) {
        blocks.keep(at + 8 * part, &mut kept.low[..8]);
    }
    let (at, by) = (at + part / 4 * 32, part % 4 * 2);
    quads!(|quad| field(s, blocks.kept(at, &kept.low[..8], quad), by, 3))
}

/// The lower and the upper half of each word, widened.
#[inline(always)]
pub(super) fn keep_factors<S: Unpack>(s: S, words: S::Words, kept: &mut Kept<S>) {
    kept.factors = s.widen_words(words);
}

/// The scale that blocks begin with, and the minimum behind it as what is subtracted.
#[inline(always)]
pub(super) fn keep_scale_and_minimum<W: SideBySide>(blocks: W, kept: &mut Kept<W::Set>) {
    let s = blocks.set();
    let [d, m] = s.widen_words(blocks.word(0));
    kept.factors = [d, s.sub(s.numbers(0.0), m)];
}

/// A run of a type without minima.
#[inline(always)]
pub(super) fn run_without_min<S: Register>(s: S, scale: S::Numbers) -> Run<S> {
    Run {
        scale,
        min: s.numbers(0.0),
    }
}

/// A scale or minimum of each row: byte `run` of `ints`, times its factor.
#[inline(always)]
pub(super) fn scaled<S: Unpack>(
    s: S,
    ints: &[S::Words],
    run: usize,
    factor: S::Numbers,
) -> S::Numbers {
    let ints = s.and(s.shr(ints[run / 4], 8 * (run % 4)), s.words(255));
    s.mul(s.to_numbers(ints), factor)
}

/// A run of a type whose integer scales are 32 too large: the factor and −32 times it have been kept.
#[inline(always)]
pub(super) fn offset_run<S: Unpack>(s: S, int: S::Words, kept: &Kept<S>) -> Run<S> {
    let [d, offset] = kept.factors;
    run_without_min(s, s.mul_add(s.to_numbers(int), d, offset))
}

/// Bit planes: bit `part` of byte `i` of 32 is of value `i` of a part.
#[derive(Clone, Copy)]
pub(super) struct Planes {
    /// Where the bytes lie in a block.
    pub(super) at: usize,
    /// The bit of a code that they are.
    pub(super) bit: usize,
}

impl Planes {
    /// Codes of a part with their bits of the plane. The first part keeps what all read.
    #[inline(always)]
    pub(super) fn add<W: SideBySide>(
        self,
        blocks: W,
        part: usize,
        kept: &mut Kept<W::Set>,
        codes: Codes<W::Set>,
    ) -> Codes<W::Set> {
        let s = blocks.set();
        if part == 0 {
            blocks.keep(self.at, &mut kept.high);
        }
        quads!(|quad| {
            let bits = s.moved(blocks.kept(self.at, &kept.high, quad), part, self.bit);
            s.and_or(bits, s.bytes(1 << self.bit), codes[quad])
        })
    }
}
