//! Where the words of sixteen blocks come from: of rows as a file has them, or of a packed panel.

use std::arch::x86_64::*;
use std::mem::MaybeUninit;

use super::LANES;
use crate::matmul::activations::{BLOCK, GROUP};
use crate::matmul::blocks::Decode;

/// A block of each of sixteen weight rows, word by word: a vector has a row's word in each lane.
pub(in crate::matmul::avx512) trait Words: Copy {
    /// The 16 bytes from `at` on of every row's block, as four columns of words.
    ///
    /// # Safety
    /// They are readable, and the machine has AVX-512.
    unsafe fn columns(self, at: usize) -> [__m512i; 4];

    /// The word at `at` of every row's block.
    ///
    /// # Safety
    /// As for [`Words::columns`].
    unsafe fn word(self, at: usize) -> __m512i;

    /// The half-precision number at `at` of every row's block.
    ///
    /// # Safety
    /// As for [`Words::columns`].
    unsafe fn halves(self, at: usize) -> __m512;

    /// Keeps the words from `at` on, a multiple of four, where reading them again costs more than reading what was kept.
    ///
    /// # Safety
    /// As for [`Words::columns`].
    unsafe fn keep(self, at: usize, kept: &mut [MaybeUninit<__m512i>]);

    /// Word `index` of those that [`Words::keep`] was given.
    ///
    /// # Safety
    /// They have been kept from the same block and place, and are readable.
    unsafe fn kept(self, at: usize, kept: &[MaybeUninit<__m512i>], index: usize) -> __m512i;
}

/// Blocks in rows of the weight, which are transposed as they are read.
#[derive(Clone, Copy)]
pub(in crate::matmul::avx512) struct InRows<'a> {
    /// Where the rows start. Rows may repeat.
    pub(in crate::matmul::avx512) rows: &'a [*const u8; LANES],
    /// The bytes between a row's start and the block.
    pub(in crate::matmul::avx512) offset: usize,
}

impl InRows<'_> {
    /// A number `at` bytes into a lane's block.
    ///
    /// # Safety
    /// It is readable.
    #[inline(always)]
    unsafe fn read<T>(self, lane: usize, at: usize) -> T {
        // SAFETY: the caller's.
        unsafe {
            self.rows[lane]
                .add(self.offset + at)
                .cast::<T>()
                .read_unaligned()
        }
    }
}

impl Words for InRows<'_> {
    #[inline(always)]
    unsafe fn columns(self, at: usize) -> [__m512i; 4] {
        // SAFETY: the caller's.
        unsafe {
            // Each 128-bit lane of `row(i)` is of one of the rows i, i + 4, i + 8 and i + 12.
            let row = |i: usize| {
                let quarter = |quarter: usize| self.read::<__m128i>(i + 4 * quarter, at);
                let rows = _mm512_castsi128_si512(quarter(0));
                let rows = _mm512_mask_broadcast_i32x4(rows, 0x00f0, quarter(1));
                let rows = _mm512_mask_broadcast_i32x4(rows, 0x0f00, quarter(2));
                _mm512_mask_broadcast_i32x4(rows, 0xf000, quarter(3))
            };
            let (a, b, c, d) = (row(0), row(1), row(2), row(3));
            let (ab_low, ab_high) = (_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
            let (cd_low, cd_high) = (_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
            [
                _mm512_unpacklo_epi64(ab_low, cd_low),
                _mm512_unpackhi_epi64(ab_low, cd_low),
                _mm512_unpacklo_epi64(ab_high, cd_high),
                _mm512_unpackhi_epi64(ab_high, cd_high),
            ]
        }
    }

    #[inline(always)]
    unsafe fn word(self, at: usize) -> __m512i {
        // SAFETY: the caller's.
        unsafe {
            let word = |lane: usize| self.read::<i32>(lane, at);
            let four = |i: usize| _mm_set_epi32(word(i + 3), word(i + 2), word(i + 1), word(i));
            let low = _mm256_set_m128i(four(4), four(0));
            _mm512_inserti64x4::<1>(
                _mm512_castsi256_si512(low),
                _mm256_set_m128i(four(12), four(8)),
            )
        }
    }

    #[inline(always)]
    unsafe fn halves(self, at: usize) -> __m512 {
        // SAFETY: the caller's.
        unsafe {
            let half = |lane: usize| self.read::<i16>(lane, at);
            let eight = |i: usize| {
                _mm_set_epi16(
                    half(i + 7),
                    half(i + 6),
                    half(i + 5),
                    half(i + 4),
                    half(i + 3),
                    half(i + 2),
                    half(i + 1),
                    half(i),
                )
            };
            _mm512_cvtph_ps(_mm256_set_m128i(eight(8), eight(0)))
        }
    }

    #[inline(always)]
    unsafe fn keep(self, at: usize, kept: &mut [MaybeUninit<__m512i>]) {
        for (chunk, to) in kept.chunks_exact_mut(4).enumerate() {
            // SAFETY: the caller's.
            let columns = unsafe { self.columns(at + 16 * chunk) };
            for (to, column) in to.iter_mut().zip(columns) {
                to.write(column);
            }
        }
    }

    #[inline(always)]
    unsafe fn kept(self, _: usize, kept: &[MaybeUninit<__m512i>], index: usize) -> __m512i {
        // SAFETY: the caller's.
        unsafe { kept[index].assume_init() }
    }
}

/// A block of each row of a packed panel: what lies `at` bytes into a block lies `16 · at` bytes into these.
#[derive(Clone, Copy)]
pub(in crate::matmul::avx512) struct InPanel(pub(in crate::matmul::avx512) *const u8);

impl Words for InPanel {
    #[inline(always)]
    unsafe fn columns(self, at: usize) -> [__m512i; 4] {
        // SAFETY: the caller's.
        unsafe {
            [
                self.word(at),
                self.word(at + 4),
                self.word(at + 8),
                self.word(at + 12),
            ]
        }
    }

    #[inline(always)]
    unsafe fn word(self, at: usize) -> __m512i {
        // SAFETY: the caller's.
        unsafe { _mm512_loadu_si512(self.0.add(LANES * at).cast()) }
    }

    #[inline(always)]
    unsafe fn halves(self, at: usize) -> __m512 {
        // SAFETY: the caller's.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(self.0.add(LANES * at).cast())) }
    }

    #[inline(always)]
    unsafe fn keep(self, _: usize, _: &mut [MaybeUninit<__m512i>]) {}

    #[inline(always)]
    unsafe fn kept(self, at: usize, _: &[MaybeUninit<__m512i>], index: usize) -> __m512i {
        // SAFETY: the caller's.
        unsafe { self.word(at + 4 * index) }
    }
}

/// Sixteen weight rows.
pub(in crate::matmul::avx512) trait Panel: Copy {
    /// A block of each row.
    type Words: Words;

    /// Block `index` of each row.
    ///
    /// # Safety
    /// The rows have so many blocks.
    unsafe fn block<B: Decode>(self, index: usize) -> Self::Words;

    /// Fetches what will be read some time after values `32 · step` to `32 · step + 31` of each row.
    fn fetch_ahead<B: Decode>(self, step: usize);
}

/// Rows of the weight as a file has them.
#[derive(Clone, Copy)]
pub(in crate::matmul::avx512) struct Rows<'a> {
    /// Where the rows start. Rows may repeat.
    pub(in crate::matmul::avx512) rows: &'a [*const u8; LANES],
    /// The bytes of a row.
    pub(in crate::matmul::avx512) row_bytes: usize,
}

/// How far ahead of the decoder each of sixteen rows is fetched, in bytes.
const ROW_AHEAD: usize = 512;

impl<'a> Panel for Rows<'a> {
    type Words = InRows<'a>;

    #[inline(always)]
    unsafe fn block<B: Decode>(self, index: usize) -> InRows<'a> {
        InRows {
            rows: self.rows,
            offset: index * size_of::<B>(),
        }
    }

    /// Fetches what two of the rows need for 256 values: each row has its turn every eight blocks, so that the fetches
    /// come evenly.
    #[inline(always)]
    fn fetch_ahead<B: Decode>(self, step: usize) {
        const STEPS: usize = GROUP / BLOCK;
        let bytes = GROUP / B::LEN * size_of::<B>();
        let mut ahead = step / STEPS * bytes + ROW_AHEAD;
        if ahead >= self.row_bytes {
            // Past a row's end comes the next panel: the row that lies as many rows on as a panel has.
            ahead += (LANES - 1) * self.row_bytes;
        }
        for row in &self.rows[step % STEPS * (LANES / STEPS)..][..LANES / STEPS] {
            for line in 0..bytes.div_ceil(64) {
                fetch(row.wrapping_add(ahead + 64 * line));
            }
        }
    }
}

/// A packed panel, from its first byte on.
#[derive(Clone, Copy)]
pub(in crate::matmul::avx512) struct PackedPanel(pub(in crate::matmul::avx512) *const u8);

/// How far ahead of the decoder packed panels are fetched, in bytes.
const PANEL_AHEAD: usize = 4096;

impl Panel for PackedPanel {
    type Words = InPanel;

    #[inline(always)]
    unsafe fn block<B: Decode>(self, index: usize) -> InPanel {
        // SAFETY: the caller's.
        InPanel(unsafe { self.0.add(index * LANES * size_of::<B>()) })
    }

    #[inline(always)]
    fn fetch_ahead<B: Decode>(self, step: usize) {
        let bytes = LANES * BLOCK * size_of::<B>() / B::LEN;
        let ahead = self.0.wrapping_add(step * bytes + PANEL_AHEAD);
        for line in 0..bytes.div_ceil(64) {
            fetch(ahead.wrapping_add(64 * line));
        }
    }
}

/// Fetches a line.
#[inline(always)]
fn fetch(line: *const u8) {
    // SAFETY: fetching touches nothing, and every machine of this family can.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(line.cast()) }
}
