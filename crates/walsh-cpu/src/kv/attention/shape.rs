//! The sizes of an attention op, and how it is cut into blocks, parts and tiles.

use crate::kv::codec::numbers;

/// Positions that are decoded at a time.
pub(super) const TILE: usize = 64;

/// About how many query vectors share a pass.
const BLOCK: usize = 48;

/// Query tokens that share a pass whatever their number of vectors: those of a decode.
const DECODE_TOKENS: usize = 8;

/// Positions of the largest tile of bytes. Sums over one stay below 2³¹.
const BYTE_TILE: usize = 128;

/// The sizes of an op.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    /// Query tokens.
    pub(super) tokens: usize,
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
    pub(super) head_dim: usize,
    /// Slots per KV head.
    pub(super) capacity: usize,
}

impl Shape {
    /// Numbers of a vector in scratch: whole vectors of lanes, with zeros past the head's own.
    pub(super) fn width(&self) -> usize {
        numbers::width(self.head_dim)
    }

    /// Query heads per KV head.
    pub(super) fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    /// Tokens per block.
    pub(super) fn block_tokens(&self) -> usize {
        let tokens = (BLOCK / self.group()).max(DECODE_TOKENS);
        tokens.min(self.tokens.max(1))
    }

    pub(super) fn blocks(&self) -> usize {
        self.tokens.div_ceil(self.block_tokens())
    }

    /// Query vectors per block.
    pub(super) fn block_rows(&self) -> usize {
        self.block_tokens() * self.group()
    }

    /// Items per part.
    pub(super) fn items(&self) -> usize {
        self.kv_heads * self.blocks()
    }

    /// How many parts the context is cut into so that every thread finds work; those of one token where there are several
    /// sequences, so that the sums of none depend on the others.
    pub(super) fn parts(&self, threads: usize, several: bool) -> usize {
        let whole = if several { self.kv_heads } else { self.items() };
        if threads == 1 || whole >= 4 * threads {
            return 1;
        }
        (4 * threads)
            .div_ceil(whole)
            .min(self.capacity.div_ceil(TILE))
            .max(1)
    }

    /// Numbers of workspace for `parts` parts.
    pub(super) fn partials(&self, parts: usize) -> usize {
        if parts == 1 {
            0
        } else {
            self.tokens * self.heads * (parts * (self.width() + 2) + 1)
        }
    }

    /// Positions of a tile: a tile of wide heads takes as much of the first-level cache.
    pub(super) fn tile(&self) -> usize {
        if self.head_dim > 128 { TILE / 2 } else { TILE }
    }

    /// Positions of a tile of bytes, which leave room in the first-level cache.
    pub(super) fn byte_tile(&self) -> usize {
        if self.head_dim > 128 {
            BYTE_TILE / 2
        } else {
            BYTE_TILE
        }
    }

    /// A head's numbers in whole vectors of bytes.
    pub(super) fn byte_width(&self) -> usize {
        byte_width(self.head_dim)
    }
}

/// [`Shape::byte_width`] of a head.
pub(super) fn byte_width(head_dim: usize) -> usize {
    head_dim.next_multiple_of(64)
}
