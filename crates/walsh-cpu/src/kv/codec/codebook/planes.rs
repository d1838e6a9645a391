//! Codes as they lie in a row, in planes of bits.

use std::mem::MaybeUninit;

use crate::kv::codec::numbers::{Rows, RowsOf};
use crate::simd::{LANES, Simd, Sixteen};

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
    /// It is one of the words of a row.
    unsafe fn word(&mut self, word: usize, low: S::I, high: (S::I, usize));
}

/// Rows of codes of so many bits, measured once for all panels of them.
pub(in crate::kv) struct CodeRows<'a, const BITS: usize> {
    codes: RowsOf<'a, u8>,
    /// Numbers of a row.
    d: usize,
}

impl<'a, const BITS: usize> CodeRows<'a, BITS> {
    pub(in crate::kv) fn new(rows: Rows<'a>, d: usize) -> Self {
        let codes = rows.of(d * BITS / 8);
        Self { codes, d }
    }

    /// Passes the words of sixteen rows from `first` on; rows past the count are the last one.
    #[inline(always)]
    pub(in crate::kv) fn each_word<S: Simd, W: Words<S, BITS>>(
        &self,
        s: S,
        first: usize,
        each: &mut W,
    ) {
        let (bytes, last) = (self.d * BITS / 8, self.codes.count() - 1 - first);
        let mut copies = [[MaybeUninit::<u8>::uninit(); MOST_BYTES]; LANES];
        let mut rows = Sixteen::new(self.codes.row(first).as_ptr(), self.codes.stride());
        if last < LANES - 1 {
            for (i, copy) in copies.iter_mut().enumerate() {
                let row = self.codes.row(first + i.min(last));
                // SAFETY: bytes that are initialised are as well ones that need not be.
                let row = unsafe { &*(std::ptr::from_ref(row) as *const [MaybeUninit<u8>]) };
                copy[..bytes].copy_from_slice(row);
            }
            rows = Sixteen::new(copies.as_ptr().cast(), MOST_BYTES);
        }
        // SAFETY: sixteen rows of `d` numbers.
        unsafe { words_of::<S, BITS, W>(s, rows, self.d, each) };
    }
}

/// The most bytes of a row: 512 numbers of 8 bits.
const MOST_BYTES: usize = 512;

/// Passes the words of sixteen rows.
///
/// # Safety
/// They are of `d` numbers.
#[inline(always)]
unsafe fn words_of<S: Simd, const BITS: usize, W: Words<S, BITS>>(
    s: S,
    rows: Sixteen,
    d: usize,
    each: &mut W,
) {
    let planes = Planes::of::<BITS>(d);
    let row_bytes = d * BITS / 8;
    // SAFETY: sixteen rows of `row_bytes` bytes: where their planes end, whole words or what is left of one are read.
    unsafe {
        let mut high_words = [s.splat_i(0); MAX_HIGH_WORDS];
        let mut word = 0;
        while planes.high > 0 && 4 * word < row_bytes - planes.high_at {
            let (columns, skip) = eight_words(s, rows, planes.high_at + 4 * word, row_bytes);
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
            let columns = s.columns(rows.again().from(4 * word));
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
            let (columns, skip) = eight_words(s, rows, 4 * word, row_bytes);
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
    rows: Sixteen,
    at: usize,
    row_bytes: usize,
) -> ([S::I; 8], usize) {
    let back = (at + 32).saturating_sub(row_bytes).next_multiple_of(4);
    let short = back >= 32 || back > at;
    let rows = rows.from(if short { at } else { at - back });
    // SAFETY: 32 bytes of each row, or what it has from `at` on, which is all that is read of it.
    unsafe {
        if short {
            (s.short_columns(rows, row_bytes - at), 0)
        } else {
            (s.columns(rows), back / 4)
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
