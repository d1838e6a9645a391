//! Codes as they lie in a row, in planes of bits.

use crate::kv::codec::numbers::Rows;
use crate::simd::{LANES, Simd};

/// Where the planes of a row's codes lie: the low bits first, then the high ones of widths that are no power of two.
pub(in crate::kv) struct Planes {
    pub(in crate::kv) low: usize,
    pub(in crate::kv) high: usize,
    pub(in crate::kv) high_at: usize,
}

impl Planes {
    #[inline(always)]
    pub(in crate::kv) const fn of<const BITS: usize>(d: usize) -> Self {
        let low = match BITS {
            2 | 3 => 2,
            8 => 8,
            _ => 4,
        };
        Self {
            low,
            high: BITS - low,
            high_at: d * low / 8,
        }
    }
}

/// What is done with the codes of sixteen rows, a word of 32 bits of each at a time.
pub(in crate::kv) trait Words<S: Simd, const BITS: usize> {
    /// Takes a word of the low planes, and the word of the high planes whose bits from `bit` on belong to it.
    ///
    /// # Safety
    /// It is one of the words of as many codes as [`each_word`] is given.
    unsafe fn word(&mut self, word: usize, low: S::I, high: (S::I, usize));
}

/// Passes the words of sixteen rows of codes of `d` numbers from `first` on; rows past the count are the last one.
#[inline(always)]
pub(in crate::kv) fn each_word<S: Simd, const BITS: usize, W: Words<S, BITS>>(
    s: S,
    rows: Rows<'_>,
    first: usize,
    d: usize,
    each: &mut W,
) {
    let planes = Planes::of::<BITS>(d);
    let row_bytes = d * BITS / 8;
    let codes = rows.of::<u8>(row_bytes);
    let last = rows.count() - 1 - first;
    let start = codes.row(first).as_ptr();
    let mut sources = [start; LANES];
    if last >= LANES - 1 {
        for i in 1..LANES {
            sources[i] = sources[i - 1].wrapping_add(rows.distance(1));
        }
    } else {
        for (i, source) in sources.iter_mut().enumerate() {
            *source = start.wrapping_add(rows.distance(i.min(last)));
        }
    }
    // SAFETY: sixteen rows, measured to have `row_bytes` bytes: where their planes end, whole words or what is left of one
    // are read.
    unsafe {
        let mut high_words = [s.splat_i(0); MAX_HIGH_WORDS];
        let mut word = 0;
        while planes.high > 0 && 4 * word < row_bytes - planes.high_at {
            let (columns, skip) = eight_words(s, &sources, planes.high_at + 4 * word, row_bytes);
            for column in &columns[skip..] {
                if let Some(slot) = high_words.get_mut(word) {
                    *slot = *column;
                }
                word += 1;
            }
        }
        let (words, per_word) = (planes.high_at / 4, 32 / planes.low);
        let high = |word: usize| {
            let bit = word * per_word * planes.high;
            (high_words[bit / 32], bit % 32)
        };
        let mut word = 0;
        // One by one, so that they stay in registers.
        while word + 8 <= words {
            let columns = s.columns(&sources.map(|source| source.wrapping_add(4 * word)));
            each.word(word, columns[0], high(word));
            each.word(word + 1, columns[1], high(word + 1));
            each.word(word + 2, columns[2], high(word + 2));
            each.word(word + 3, columns[3], high(word + 3));
            each.word(word + 4, columns[4], high(word + 4));
            each.word(word + 5, columns[5], high(word + 5));
            each.word(word + 6, columns[6], high(word + 6));
            each.word(word + 7, columns[7], high(word + 7));
            word += 8;
        }
        while word < words {
            let (columns, skip) = eight_words(s, &sources, 4 * word, row_bytes);
            let end = 8.min(skip + words - word);
            for column in &columns[skip..end] {
                each.word(word, *column, high(word));
                word += 1;
            }
        }
    }
}

/// The most words of a row's high plane: 512 numbers of 2 bits.
const MAX_HIGH_WORDS: usize = 32;

/// Eight 32-bit words of sixteen rows, word by word, and which of them is the one at byte `at`: near a row's end they
/// begin earlier, so as not to reach past it. Bytes past the end are zero.
///
/// # Safety
/// The rows have `row_bytes` bytes, more than `at`.
#[inline(always)]
unsafe fn eight_words<S: Simd>(
    s: S,
    sources: &[*const u8; LANES],
    at: usize,
    row_bytes: usize,
) -> ([S::I; 8], usize) {
    let back = (at + 32).saturating_sub(row_bytes).next_multiple_of(4);
    let short = back >= 32 || back > at;
    let mut starts = *sources;
    for start in &mut starts {
        *start = start.wrapping_add(if short { at } else { at - back });
    }
    // SAFETY: 32 bytes of each row, or what it has from `at` on, which is all that is read of it.
    unsafe {
        if short {
            (s.short_columns(&starts, row_bytes - at), 0)
        } else {
            (s.columns(&starts), back / 4)
        }
    }
}

/// Puts the high bits above the low ones; what lies above both is left as it is.
#[inline(always)]
pub(super) fn join<S: Simd, const BITS: usize>(s: S, low: S::I, high: S::I) -> S::I {
    match BITS {
        3 => s.or(s.and(low, s.splat_i(3)), s.shl::<2>(high)),
        _ => s.or(s.and(low, s.splat_i(15)), s.shl::<4>(high)),
    }
}
