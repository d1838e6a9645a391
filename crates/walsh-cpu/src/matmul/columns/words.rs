//! Where the words of blocks side by side come from.

use std::marker::PhantomData;
use std::mem::MaybeUninit;

use super::Vectors;
use crate::matmul::blocks::Decode;
use crate::matmul::contract::Job;
use crate::matmul::layout::{BLOCK, LANES};

/// A word of each block.
pub(in crate::matmul) type Word<W> = <<W as Words>::Vectors as Vectors>::Words;

/// A block of each of some weight rows, word by word: a vector has a row's word in each lane.
pub(in crate::matmul) trait Words: Copy {
    /// The vectors.
    type Vectors: Vectors;

    /// The 16 bytes from `at` on of every row's block, as four columns of words.
    ///
    /// # Safety
    /// They are readable, and the machine has the instruction set.
    unsafe fn columns(self, at: usize) -> [Word<Self>; 4];

    /// The word at `at` of every row's block.
    ///
    /// # Safety
    /// As for [`Words::columns`].
    unsafe fn word(self, at: usize) -> Word<Self>;

    /// The half-precision number at `at` of every row's block.
    ///
    /// # Safety
    /// As for [`Words::columns`].
    unsafe fn halves(self, at: usize) -> <Self::Vectors as Vectors>::Floats;

    /// Keeps the words from `at` on, a multiple of four, where reading them again costs more than reading what was kept.
    ///
    /// # Safety
    /// As for [`Words::columns`].
    unsafe fn keep(self, at: usize, kept: &mut [MaybeUninit<Word<Self>>]);

    /// Word `index` of those that [`Words::keep`] was given.
    ///
    /// # Safety
    /// They have been kept from the same block and place, and are readable.
    unsafe fn kept(self, at: usize, kept: &[MaybeUninit<Word<Self>>], index: usize) -> Word<Self>;
}

/// A block of some rows of a packed panel: what lies `at` bytes into a block lies `16 · at` bytes into these.
#[derive(Clone, Copy)]
pub(in crate::matmul) struct InPanel<V> {
    /// The first of the rows' words at the block's start, were there one.
    words: *const u8,
    /// The same for half-words.
    halves: *const u8,
    vectors: PhantomData<V>,
}

impl<V: Vectors> Words for InPanel<V> {
    type Vectors = V;

    #[inline(always)]
    unsafe fn columns(self, at: usize) -> [V::Words; 4] {
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
    unsafe fn word(self, at: usize) -> V::Words {
        // SAFETY: the caller's.
        unsafe { V::load(self.words.add(LANES * at)) }
    }

    #[inline(always)]
    unsafe fn halves(self, at: usize) -> V::Floats {
        // SAFETY: the caller's.
        unsafe { V::load_halves(self.halves.add(LANES * at)) }
    }

    #[inline(always)]
    unsafe fn keep(self, _: usize, _: &mut [MaybeUninit<V::Words>]) {}

    #[inline(always)]
    unsafe fn kept(self, at: usize, _: &[MaybeUninit<V::Words>], index: usize) -> V::Words {
        // SAFETY: the caller's.
        unsafe { self.word(at + 4 * index) }
    }
}

/// As many weight rows as a vector has lanes.
pub(in crate::matmul) trait Panel: Copy {
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

/// Those rows of a packed panel that a vector takes.
#[derive(Clone, Copy)]
pub(in crate::matmul) struct PackedPanel<V> {
    /// The panel.
    from: *const u8,
    /// Which rows: those from `LANES` of the vector times it on.
    part: usize,
    vectors: PhantomData<V>,
}

impl<V: Vectors> PackedPanel<V> {
    /// How many of them a panel has.
    pub(in crate::matmul) const PARTS: usize = LANES / V::LANES;

    /// The weight rows from `row` on, a multiple of the lanes.
    ///
    /// # Safety
    /// The weight is packed, and has the row.
    #[inline(always)]
    pub(in crate::matmul) unsafe fn of(job: &Job, row: usize) -> PackedPanel<V> {
        PackedPanel {
            // SAFETY: the caller's.
            from: unsafe { job.weight_row(row / LANES * LANES) },
            part: row % LANES / V::LANES,
            vectors: PhantomData,
        }
    }
}

impl<V: Vectors> Panel for PackedPanel<V> {
    type Words = InPanel<V>;

    #[inline(always)]
    unsafe fn block<B: Decode>(self, index: usize) -> InPanel<V> {
        // SAFETY: the caller's.
        unsafe {
            let block = self.from.add(index * LANES * size_of::<B>());
            let lane = self.part * V::LANES;
            InPanel {
                words: block.add(4 * lane),
                halves: block.add(2 * lane),
                vectors: PhantomData,
            }
        }
    }

    /// The first part fetches what all of them read: it comes to each line first.
    #[inline(always)]
    fn fetch_ahead<B: Decode>(self, step: usize) {
        let bytes = LANES * BLOCK * size_of::<B>() / B::LEN;
        if self.part == 0 {
            V::fetch_ahead(self.from.wrapping_add(step * bytes), bytes);
        }
    }
}
