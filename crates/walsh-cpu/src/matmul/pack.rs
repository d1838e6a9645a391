//! Packed weights: sixteen rows side by side.
//!
//! A packed weight is a row of *panels*. A panel has sixteen rows of the weight, block by block; within a block it has
//! each 32-bit word of the sixteen blocks side by side, so that one vector holds a word of every row, and what lies `at`
//! bytes into a block lies `16 · at` bytes into these. Blocks of an odd number of half-words (`q4_0`, `q5_0`, `q8_0`,
//! `iq4_nl`, `q3_K`, `q6_K`) have their scale, a half-precision number, apart: sixteen of them side by side. So a packed
//! weight is as large as its rows, rounded up to sixteen, and no bit of it is another.
//!
//! With one row of input a kernel reads a panel from end to end, as one stream, and adds up sixteen results at once,
//! without moving a code from one lane to another. What rows need for that, transposing, is done once.

use walsh_formats::DType;

use crate::isa::Isa;

/// The rows of a panel.
pub(super) const LANES: usize = 16;

/// A weight `[n, k]` that can be packed.
#[derive(Clone, Copy, Debug)]
pub struct Packing {
    n: usize,
    row_bytes: usize,
    block_bytes: usize,
}

impl Packing {
    /// How a weight of `n` rows of `k` values is packed for an instruction set; `None` where nothing would be gained:
    /// the set has no kernels for it, or there are fewer rows than a panel has.
    pub fn new(isa: Isa, weight: DType, n: usize, k: usize) -> Option<Packing> {
        let row_bytes = usize::try_from(weight.row_bytes(k as u64)?).ok()?;
        let gains = super::kernels::Kernels::of(isa).packs && weight.is_quantised() && n >= LANES;
        gains.then_some(Packing {
            n,
            row_bytes,
            block_bytes: weight.block_bytes(),
        })
    }

    /// The number of panels.
    pub fn panels(&self) -> usize {
        self.n.div_ceil(LANES)
    }

    /// The bytes of a panel.
    pub fn panel_bytes(&self) -> usize {
        LANES * self.row_bytes
    }

    /// The bytes of the packed weight.
    pub fn bytes(&self) -> usize {
        self.panels() * self.panel_bytes()
    }

    /// Packs a panel. Rows past the last are zero, which every type has zero for.
    ///
    /// # Safety
    /// `weight` points to the rows as a file has them, and `panel` to [`Packing::panel_bytes`] bytes that are this thread's.
    /// The instruction set is available.
    pub unsafe fn pack(&self, index: usize, weight: *const u8, panel: *mut u8) {
        let rows = index * LANES..((index + 1) * LANES).min(self.n);
        // SAFETY: the caller's.
        unsafe {
            if rows.len() < LANES {
                panel.write_bytes(0, self.panel_bytes());
            }
            for (lane, row) in rows.enumerate() {
                let row = weight.add(row * self.row_bytes);
                for block in (0..self.row_bytes).step_by(self.block_bytes) {
                    self.scatter(row.add(block), panel.add(LANES * block), lane);
                }
            }
        }
    }

    /// Where the half-word lies that is apart, in blocks that have one: their scale, the first or the last field.
    fn apart(&self) -> Option<usize> {
        let odd = self.block_bytes % 4 == 2;
        odd.then_some(if self.block_bytes < 40 {
            0
        } else {
            self.block_bytes - 2
        })
    }

    /// Spreads a block over its lane.
    ///
    /// # Safety
    /// The block is readable, and so many bytes for each lane are writable at `panel`.
    unsafe fn scatter(&self, block: *const u8, panel: *mut u8, lane: usize) {
        let mut at = 0;
        while at < self.block_bytes {
            let bytes = if self.apart() == Some(at) { 2 } else { 4 };
            // SAFETY: the caller's; a field of a lane lies as many fields of its size on.
            unsafe {
                let to = panel.add(LANES * at + lane * bytes);
                to.copy_from_nonoverlapping(block.add(at), bytes);
            }
            at += bytes;
        }
    }
}
