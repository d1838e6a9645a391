//! One attention op as independent work items.
//!
//! An item is a block of query rows of one KV head over one part of the context. All heads of the group and all rows of
//! the block share one pass over the part: each tile is decoded once, scored, weighed and summed. When the context is cut
//! into parts, a second phase merges them.

use std::ops::Range;

use super::int8::Int8;
use super::shape::{Shape, TILE};
use crate::isa::Isa;
use crate::kv::codec::Decoder;
use crate::kv::codec::numbers::Rows;
use crate::kv::pages::Pages;

/// Positions that are worth a part of their own: fewer take less time than a part's queries and its merging do.
const PART: usize = 2 * TILE;

/// Encoded rows of all KV heads.
pub(super) struct Stored {
    pub(super) decoder: Decoder,
    /// `[sequences · kv_heads][slots][code_bytes]`; of pages, `[kv_heads][slots][code_bytes]`.
    pub(super) codes: *const u8,
    /// The same of `scale_bytes`.
    pub(super) scales: *const u8,
    /// Slots per KV head.
    pub(super) slots: usize,
}

impl Stored {
    /// `count` rows of a head from a slot on.
    pub(super) fn rows(&self, head: usize, slot: usize, count: usize) -> Rows {
        let first = head * self.slots + slot;
        let codec = &self.decoder.codec;
        Rows {
            codes: self.codes.wrapping_add(first * codec.code_bytes()),
            stride: codec.code_bytes(),
            scales: self.scales.wrapping_add(first * codec.scale_bytes()),
            count,
        }
    }
}

/// The keys or the values of a cache.
pub(super) struct Side {
    pub(super) stored: Stored,
    pub(super) overlay: Option<Stored>,
}

/// Which positions are read from the overlay.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct OverlayMap {
    /// How many from the start.
    pub(super) first: usize,
    /// How many up to a query's own.
    pub(super) recent: usize,
    /// The slots of the recent ones, behind those of the first.
    pub(super) ring: usize,
}

/// A chunk's own keys and values, `f32 [n][kv_heads][head_dim]`.
#[derive(Clone, Copy)]
pub(super) struct Fresh {
    pub(super) keys: *const f32,
    pub(super) values: *const f32,
}

/// An attention op, ready to run. The pointers are those of its tensors.
pub(super) struct Job {
    pub(super) isa: Isa,
    pub(super) shape: Shape,
    pub(super) scale: f32,
    /// Positions that a query sees, its own included.
    pub(super) window: usize,
    /// The bound of the scores, or zero.
    pub(super) softcap: f32,
    /// Whether slots are positions modulo the capacity.
    pub(super) ring: bool,
    /// Where positions lie, if in pages.
    pub(super) pages: Option<Pages>,
    pub(super) key: Side,
    pub(super) value: Side,
    pub(super) overlay: OverlayMap,
    /// `[kv_heads][head_dim]`: what keys were divided by, or null.
    pub(super) equaliser: *const f32,
    /// `[kv_heads][head_dim]`: what was subtracted from keys, or null.
    pub(super) center: *const f32,
    /// The chunk's own keys and values; the cache then ends before the first query's position.
    pub(super) fresh: Option<Fresh>,
    /// `[tokens][heads][head_dim]`.
    pub(super) query: *const f32,
    /// `[tokens]`, ascending by one within a sequence.
    pub(super) positions: *const i32,
    /// `[tokens]`: each token's sequence, or null for the first.
    pub(super) sequences: *const i32,
    /// `[heads]`, or null.
    pub(super) sinks: *const f32,
    /// `[tokens][heads][head_dim]`.
    pub(super) output: *mut f32,
    /// The codes as integers, or none where attention is in f32.
    pub(super) int8: Option<Int8>,
    /// The most parts of a context.
    pub(super) parts: usize,
    /// [`Shape::partials`] numbers: outputs `[tokens · heads][parts][width]`, then maxima and sums, then how many
    /// parts each vector has.
    pub(super) partials: *mut f32,
    /// What the chunk's own rows are: plain numbers.
    pub(super) plain: Decoder,
}

// SAFETY: the pointers are into tensors that the op keeps alive; items write apart from each other.
unsafe impl Send for Job {}
// SAFETY: as above.
unsafe impl Sync for Job {}

/// A block of query vectors of one sequence over a part of the context.
pub(super) struct Block {
    pub(super) kv_head: usize,
    /// The sequence.
    pub(super) sequence: usize,
    /// The sequence's tokens in the op.
    pub(super) all: Range<usize>,
    /// The block's tokens among them.
    pub(super) tokens: Range<usize>,
    /// Query vectors: tokens × group.
    pub(super) rows: usize,
    /// Which part of the context.
    pub(super) part: usize,
    /// How many parts the context has.
    pub(super) parts: usize,
    /// The position of the first of all tokens.
    pub(super) start: usize,
}

impl Block {
    /// The position of a token of the op.
    pub(super) fn position(&self, token: usize) -> usize {
        self.start + token - self.all.start
    }

    /// The positions of the block's tokens, both ends included.
    pub(super) fn positions(&self) -> (usize, usize) {
        (
            self.position(self.tokens.start),
            self.position(self.tokens.end - 1),
        )
    }
}

impl Job {
    pub(super) fn items(&self) -> usize {
        self.shape.items() * self.parts
    }

    /// How many parts so many positions are cut into.
    pub(super) fn parts_of(&self, positions: usize) -> usize {
        self.parts.min(positions.div_ceil(PART)).max(1)
    }

    /// A rough time of merging the parts, in nanoseconds: none where there is one.
    pub(super) fn merge_cost(&self) -> u64 {
        let Shape {
            tokens,
            heads,
            head_dim,
            ..
        } = self.shape;
        if tokens == 0 {
            return 0;
        }
        match self.parts_of(self.cached_positions()) {
            1 => 0,
            parts => (tokens * heads * parts * head_dim) as u64 / 4,
        }
    }

    /// About how many cached positions a query sees.
    fn cached_positions(&self) -> usize {
        (self.position_of(0) + self.shape.tokens).min(self.window)
    }

    /// A rough time in nanoseconds, from the number of visible pairs.
    pub(super) fn cost(&self) -> u64 {
        let Shape {
            tokens,
            heads,
            head_dim,
            ..
        } = self.shape;
        if tokens == 0 {
            return 0;
        }
        let cached = self.cached_positions() as u64;
        let pairs = (tokens as u64) * (cached + tokens as u64 / 2) * heads as u64;
        pairs * head_dim as u64 / 10
    }

    /// Whether sums over the cache are in the lane order of codes.
    pub(super) fn summed_in_lanes(&self) -> bool {
        self.int8.is_none() && self.value.stored.decoder.reordered()
    }

    pub(super) fn position_of(&self, token: usize) -> usize {
        // SAFETY: the positions hold `tokens` numbers.
        unsafe { self.positions.add(token).read().max(0) as usize }
    }

    pub(super) fn sequence_of(&self, token: usize) -> usize {
        if self.sequences.is_null() {
            return 0;
        }
        // SAFETY: the sequences hold `tokens` numbers.
        unsafe { self.sequences.add(token).read().max(0) as usize }
    }

    /// The end of a block's cached positions: the chunk's start, or past its sequence's last query.
    pub(super) fn cached_end(&self, block: &Block) -> usize {
        let end = if self.fresh.is_some() {
            block.start
        } else {
            block.start + block.all.len()
        };
        if self.ring {
            end
        } else {
            end.min(self.shape.capacity)
        }
    }

    /// Which query vector of the op a row of a block is.
    pub(super) fn vector(&self, block: &Block, row: usize) -> usize {
        let token = block.tokens.start + row / self.shape.group();
        token * self.shape.heads + self.head(block, row)
    }

    /// Which query head a row of a block is of.
    pub(super) fn head(&self, block: &Block, row: usize) -> usize {
        let group = self.shape.group();
        block.kv_head * group + row % group
    }
}
