//! Where blocks side by side come from: packed panels, and rows that are transposed as they are read.

use std::marker::PhantomData;
use std::ops::Range;

use super::blocks::{Decode, SideBySide};
use super::contract::Job;
use super::layout::{BLOCK, GROUP, LANES};
use crate::simd::{Gather, Unpack};

/// The parts of a block, one after the other, unrolled: what shifts and masks a part needs is known when this is compiled.
macro_rules! for_parts {
    ($block:ident, |$part:ident| $body:expr) => {{
        for_parts!(@ 0, $part, $body);
        if $block::LEN >= 2 * BLOCK {
            for_parts!(@ 1, $part, $body);
        }
        if $block::LEN >= 4 * BLOCK {
            for_parts!(@ 2, $part, $body);
            for_parts!(@ 3, $part, $body);
        }
        if $block::LEN >= 8 * BLOCK {
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

/// As many weight rows as a register has lanes.
pub(super) trait Panel: Copy {
    /// The instruction set.
    type Set: Unpack;
    /// A block of each row.
    type Blocks<B: Decode>: SideBySide<Set = Self::Set>;

    /// Block `index` of each row.
    ///
    /// # Safety
    /// The rows are of such blocks, and have so many.
    unsafe fn block<B: Decode>(self, index: usize) -> Self::Blocks<B>;

    /// Fetches what will be read some time after values `32 · step` to `32 · step + 31` of each row.
    fn fetch_ahead<B: Decode>(self, step: usize);
}

/// Those rows of a packed panel that a register takes.
#[derive(Clone, Copy)]
pub(super) struct PackedPanel<'a, S> {
    s: S,
    /// The panel.
    from: *const u8,
    /// Which rows: those from `LANES` of the register times it on.
    part: usize,
    weight: PhantomData<&'a [u8]>,
}

impl<'a, S: Unpack> PackedPanel<'a, S> {
    /// How many of them a panel has.
    pub(super) const PARTS: usize = LANES / S::LANES;

    /// The rows of a packed weight from `row` on, a multiple of the lanes.
    #[inline(always)]
    pub(super) fn of(s: S, job: &Job<'a>, row: usize) -> Self {
        PackedPanel {
            s,
            from: job.panel(row).as_ptr(),
            part: row % LANES / S::LANES,
            weight: PhantomData,
        }
    }
}

impl<S> PackedPanel<'_, S> {
    /// Those rows of the same panel that another register takes.
    #[inline(always)]
    pub(super) fn part(self, part: usize) -> Self {
        Self { part, ..self }
    }
}

impl<'a, S: Unpack> Panel for PackedPanel<'a, S> {
    type Set = S;
    type Blocks<B: Decode> = InPanel<'a, S, B>;

    #[inline(always)]
    unsafe fn block<B: Decode>(self, index: usize) -> InPanel<'a, S, B> {
        // SAFETY: a panel has sixteen times the bytes of each block of its rows, side by side.
        unsafe {
            let block = self.from.add(index * LANES * size_of::<B>());
            let lane = self.part * S::LANES;
            InPanel {
                s: self.s,
                words: block.add(4 * lane),
                halves: block.add(2 * lane),
                bytes: block.add(lane),
                block: PhantomData,
            }
        }
    }

    /// The first part fetches what all of them read: it comes to each line first.
    #[inline(always)]
    fn fetch_ahead<B: Decode>(self, step: usize) {
        let bytes = LANES * BLOCK * size_of::<B>() / B::LEN;
        if self.part == 0 {
            self.s
                .fetch_ahead(self.from.wrapping_add(step * bytes), bytes);
        }
    }
}

/// A block of some rows of a packed panel, which is readable: what lies `at` bytes into a block lies `16 · at` bytes into
/// these.
#[derive(Clone, Copy)]
pub(super) struct InPanel<'a, S, B> {
    s: S,
    /// The first of the rows' words at the block's start, were there one.
    words: *const u8,
    /// The same for half-words.
    halves: *const u8,
    /// The same for bytes.
    bytes: *const u8,
    block: PhantomData<&'a B>,
}

impl<S: Unpack, B: Decode> SideBySide for InPanel<'_, S, B> {
    type Set = S;

    #[inline(always)]
    fn set(self) -> S {
        self.s
    }

    #[inline(always)]
    fn columns(self, at: usize) -> [S::Words; 4] {
        [
            self.word(at),
            self.word(at + 4),
            self.word(at + 8),
            self.word(at + 12),
        ]
    }

    #[inline(always)]
    fn word(self, at: usize) -> S::Words {
        assert!(at + 4 <= size_of::<B>());
        // SAFETY: the words lie within the block of the panel.
        unsafe { self.s.load_words(self.words.add(LANES * at)) }
    }

    #[inline(always)]
    fn byte(self, at: usize) -> S::Words {
        assert!(at < size_of::<B>());
        // SAFETY: as above.
        unsafe { self.s.load_bytes(self.bytes.add(LANES * at)) }
    }

    #[inline(always)]
    fn halves(self, at: usize) -> S::Numbers {
        assert!(at + 2 <= size_of::<B>());
        // SAFETY: as above.
        unsafe { self.s.load_halves(self.halves.add(LANES * at)) }
    }

    #[inline(always)]
    fn keep(self, _: usize, _: &mut [S::Words]) {}

    #[inline(always)]
    fn kept(self, at: usize, _: &[S::Words], index: usize) -> S::Words {
        self.word(at + 4 * index)
    }
}

/// Rows of the weight as a file has them.
#[derive(Clone, Copy)]
pub(super) struct StoredRows<'a, S> {
    s: S,
    /// Where the rows start. Rows may repeat.
    rows: &'a [*const u8; LANES],
    /// The bytes of a row.
    row_bytes: usize,
}

/// How far ahead of the decoder each of sixteen rows is fetched, in bytes.
const ROW_AHEAD: usize = 512;

impl<'a, S: Gather> StoredRows<'a, S> {
    /// [Rows of a panel](row_starts) of a job.
    #[inline(always)]
    pub(super) fn new(s: S, rows: &'a RowStarts<'_>) -> Self {
        const { assert!(S::LANES == LANES) };
        StoredRows {
            s,
            rows: &rows.starts,
            row_bytes: rows.row_bytes,
        }
    }
}

/// Where the rows of a panel start.
pub(super) struct RowStarts<'a> {
    starts: [*const u8; LANES],
    row_bytes: usize,
    weight: PhantomData<&'a [u8]>,
}

/// Where the rows of a panel start. Lanes without a row repeat the last: their sums are never read.
#[inline(always)]
pub(super) fn row_starts<'a>(job: &Job<'a>, columns: Range<usize>) -> RowStarts<'a> {
    let last = columns.len() - 1;
    RowStarts {
        starts: std::array::from_fn(|lane| job.weight_row(columns.start + lane.min(last)).as_ptr()),
        row_bytes: job.row_bytes(),
        weight: PhantomData,
    }
}

impl<'a, S: Gather> Panel for StoredRows<'a, S> {
    type Set = S;
    type Blocks<B: Decode> = InRows<'a, S, B>;

    #[inline(always)]
    unsafe fn block<B: Decode>(self, index: usize) -> InRows<'a, S, B> {
        InRows {
            s: self.s,
            rows: self.rows,
            offset: index * size_of::<B>(),
            block: PhantomData,
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
                self.s.fetch(row.wrapping_add(ahead + 64 * line));
            }
        }
    }
}

/// Blocks in rows of the weight, which are readable, and transposed as they are read.
#[derive(Clone, Copy)]
pub(super) struct InRows<'a, S, B> {
    s: S,
    rows: &'a [*const u8; LANES],
    /// The bytes between a row's start and the block.
    offset: usize,
    block: PhantomData<B>,
}

impl<S: Gather, B: Decode> InRows<'_, S, B> {
    /// Where `bytes` bytes that lie `at` bytes into a lane's block are.
    #[inline(always)]
    fn place(self, lane: usize, at: usize, bytes: usize) -> *const u8 {
        assert!(at + bytes <= size_of::<B>());
        // SAFETY: within the block.
        unsafe { self.rows[lane].add(self.offset + at) }
    }
}

impl<S: Gather, B: Decode> SideBySide for InRows<'_, S, B> {
    type Set = S;

    #[inline(always)]
    fn set(self) -> S {
        self.s
    }

    #[inline(always)]
    fn columns(self, at: usize) -> [S::Words; 4] {
        // SAFETY: places of sixteen bytes.
        unsafe { self.s.columns(|lane| self.place(lane, at, 16)) }
    }

    #[inline(always)]
    fn word(self, at: usize) -> S::Words {
        // SAFETY: places of four bytes.
        unsafe { self.s.gather_words(|lane| self.place(lane, at, 4)) }
    }

    #[inline(always)]
    fn byte(self, at: usize) -> S::Words {
        // SAFETY: places of a byte.
        unsafe { self.s.gather_bytes(|lane| self.place(lane, at, 1)) }
    }

    #[inline(always)]
    fn halves(self, at: usize) -> S::Numbers {
        // SAFETY: places of two bytes.
        unsafe { self.s.gather_halves(|lane| self.place(lane, at, 2)) }
    }

    #[inline(always)]
    fn keep(self, at: usize, kept: &mut [S::Words]) {
        for (chunk, to) in kept.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            *to = self.columns(at + 16 * chunk);
        }
    }

    #[inline(always)]
    fn kept(self, _: usize, kept: &[S::Words], index: usize) -> S::Words {
        kept[index]
    }
}
