//! One attention op as independent work items.
//!
//! An item is a block of query rows of one KV head over one part of the context. All heads of the group and all rows of
//! the block share one pass over the part: each tile is decoded once, scored, weighed and summed. When the context is cut
//! into parts, a second phase merges them.

use std::ops::{Deref, Range};

use bytemuck::Pod;

use super::int8::Int8;
use super::scratch;
use super::shape::{Shape, TILE};
use crate::kv::codec::Decoder;
use crate::kv::codec::numbers::Rows;
use crate::kv::pages::Pages;
use crate::memory::View;
use crate::simd::Token;

/// Positions that are worth a part of their own: fewer take less time than a part's queries and its merging do.
const PART: usize = 2 * TILE;

/// Encoded rows of all KV heads.
pub(super) struct Stored {
    pub(super) decoder: Decoder,
    /// `[sequences · kv_heads][slots][code_bytes]`; of pages, `[kv_heads][slots][code_bytes]`.
    pub(super) codes: View<u8>,
    /// The same of `scale_bytes`; absent for dense codecs.
    pub(super) scales: Option<View<u8>>,
    /// Slots per KV head.
    pub(super) slots: usize,
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
pub(super) struct Fresh {
    pub(super) keys: View<f32>,
    pub(super) values: View<f32>,
}

/// An attention op, ready to run.
pub(super) struct Job {
    pub(super) set: Token,
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
    /// `[kv_heads][head_dim]`: what keys were divided by.
    pub(super) equaliser: Option<View<f32>>,
    /// `[kv_heads][head_dim]`: what was subtracted from keys.
    pub(super) center: Option<View<f32>>,
    /// The chunk's own keys and values; the cache then ends before the first query's position.
    pub(super) fresh: Option<Fresh>,
    /// `[tokens][heads][head_dim]`.
    pub(super) query: View<f32>,
    /// `[tokens]`, ascending by one within a sequence.
    pub(super) positions: View<i32>,
    /// `[tokens]`: each token's sequence; the first of all where absent.
    pub(super) sequences: Option<View<i32>>,
    /// `[heads]`.
    pub(super) sinks: Option<View<f32>>,
    /// `[tokens][heads][head_dim]`.
    pub(super) output: View<f32>,
    /// The codes as integers, or none where attention is in f32.
    pub(super) int8: Option<Int8>,
    /// The most parts of a context.
    pub(super) parts: usize,
    /// [`Shape::partials`] numbers: outputs `[tokens · heads][parts][width]`, then maxima and sums, then how many
    /// parts each vector has. Absent where there is one part.
    pub(super) partials: Option<View<f32>>,
    /// What the chunk's own rows are: plain numbers.
    pub(super) plain: Decoder,
}

/// A job while it runs.
#[derive(Clone, Copy)]
pub(super) struct Run<'a> {
    job: &'a Job,
}

impl Deref for Run<'_> {
    type Target = Job;

    fn deref(&self) -> &Job {
        self.job
    }
}

impl<'a> Run<'a> {
    /// # Safety
    /// While this lives, nothing writes what the op reads, and nothing else touches the vectors of the items that it is
    /// given.
    pub(super) unsafe fn new(job: &'a Job) -> Self {
        Self { job }
    }

    pub(super) fn job(self) -> &'a Job {
        self.job
    }

    /// Numbers of a tensor that the op reads.
    pub(super) fn read<T: Pod>(self, view: &'a View<T>, range: Range<usize>) -> &'a [T] {
        // SAFETY: nothing writes what the op reads while it runs.
        unsafe { view.slice(range) }
    }

    /// A vector of numbers of each KV head, for one of them.
    pub(super) fn of_head(
        self,
        numbers: &'a Option<View<f32>>,
        kv_head: usize,
    ) -> Option<&'a [f32]> {
        let d = self.shape.head_dim;
        let of_head = |view| self.read(view, kv_head * d..(kv_head + 1) * d);
        numbers.as_ref().map(of_head)
    }

    /// Which slot a position of a sequence is in, if in pages.
    pub(super) fn slot(self, sequence: usize, position: usize) -> Option<usize> {
        let pages = self.job.pages.as_ref()?;
        // SAFETY: nothing writes what the op reads while it runs.
        Some(unsafe { pages.read() }.slot(sequence, position))
    }

    /// `count` rows of a head from a slot on.
    pub(super) fn rows(
        self,
        stored: &'a Stored,
        (head, slot): (usize, usize),
        count: usize,
    ) -> Rows<'a> {
        let first = head * stored.slots + slot;
        let of_rows = |bytes: usize| first * bytes..(first + count) * bytes;
        let codec = &stored.decoder.codec;
        let (code_bytes, scale_bytes) = (codec.code_bytes(), codec.scale_bytes());
        let scales = match &stored.scales {
            Some(scales) => self.read(scales, of_rows(scale_bytes)),
            None => &[],
        };
        let codes = self.read(&stored.codes, of_rows(code_bytes));
        Rows::new(
            codes,
            (code_bytes, code_bytes),
            (scales, scale_bytes),
            count,
        )
    }

    /// `count` of the chunk's own rows of a KV head from a token on.
    pub(super) fn fresh_rows(
        self,
        numbers: &'a View<f32>,
        (kv_head, token): (usize, usize),
        count: usize,
    ) -> Rows<'a> {
        let Shape {
            kv_heads, head_dim, ..
        } = self.shape;
        let first = (token * kv_heads + kv_head) * head_dim;
        let numbers = self.read(numbers, first..numbers.len());
        let (stride, row) = (
            kv_heads * head_dim * size_of::<f32>(),
            head_dim * size_of::<f32>(),
        );
        Rows::new(
            bytemuck::cast_slice(numbers),
            (stride, row),
            (&[], 0),
            count,
        )
    }
}

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
    /// Numbers of scratch per worker.
    pub(super) fn scratch(&self) -> usize {
        scratch::len(&self.shape, self.int8.is_some())
    }

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
        // SAFETY: asked for while the op runs, or right before: positions are written by then.
        unsafe { self.positions.slice(token..token + 1)[0].max(0) as usize }
    }

    pub(super) fn sequence_of(&self, token: usize) -> usize {
        match &self.sequences {
            None => 0,
            // SAFETY: as above.
            Some(sequences) => unsafe { sequences.slice(token..token + 1)[0].max(0) as usize },
        }
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
