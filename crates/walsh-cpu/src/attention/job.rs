//! One attention op as independent work items.
//!
//! An item is a block of query rows of one KV head over one part of the context. All heads of the group and all rows of
//! the block share one pass over the part: each tile is decoded once, scored, weighed and summed. When the context is cut
//! into parts, a second phase merges them.

use std::ops::Range;

use walsh_formats::DType;
use walsh_formats::kv::KvCodec;

use super::kernels::{self, Running, Scores, Values, Weigh};
use super::output;
use super::tile::{self, Decoder, LANES, Rows};
use crate::isa::Isa;
use crate::lanes::rotate;

/// Positions that are decoded at a time.
const TILE: usize = 64;

/// About how many query vectors share a pass.
const BLOCK: usize = 48;

/// The keys or the values of a cache.
pub(super) struct Side {
    pub(super) decoder: Decoder,
    /// `[kv_heads][capacity][code_bytes]`.
    pub(super) codes: *const u8,
    /// `[kv_heads][capacity][scale_bytes]`.
    pub(super) scales: *const u8,
}

impl Side {
    /// `count` rows of a head from a slot on.
    fn rows(&self, first: usize, count: usize) -> Rows {
        Rows {
            codes: self
                .codes
                .wrapping_add(first * self.decoder.codec.code_bytes()),
            stride: self.decoder.codec.code_bytes(),
            scales: self
                .scales
                .wrapping_add(first * self.decoder.codec.scale_bytes()),
            count,
        }
    }
}

/// A chunk's own keys and values, `f32 [n][kv_heads][head_dim]`.
#[derive(Clone, Copy)]
pub(super) struct Fresh {
    pub(super) keys: *const f32,
    pub(super) values: *const f32,
}

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
    /// Query heads per KV head.
    fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    /// Tokens per block.
    fn block_tokens(&self) -> usize {
        (BLOCK / self.group()).clamp(1, self.tokens.max(1))
    }

    fn blocks(&self) -> usize {
        self.tokens.div_ceil(self.block_tokens())
    }

    /// Query vectors per block.
    fn block_rows(&self) -> usize {
        self.block_tokens() * self.group()
    }

    /// Items per part.
    pub(super) fn items(&self) -> usize {
        self.kv_heads * self.blocks()
    }

    /// How many parts the context is cut into so that every thread finds work.
    pub(super) fn parts(&self, threads: usize) -> usize {
        let whole = self.items();
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
            self.tokens * self.heads * parts * (self.head_dim + 2)
        }
    }

    fn tile(&self) -> usize {
        if self.head_dim > 128 { TILE / 2 } else { TILE }
    }

    /// Numbers of scratch per worker.
    pub(super) fn scratch(&self) -> usize {
        let rows = self.block_rows();
        // Two forms of the queries, the outputs, the tile, its scores and factors, and the running sums.
        rows * (3 * self.head_dim + TILE + 3) + TILE * (self.head_dim + 2) + LANES
    }
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
    pub(super) key: Side,
    pub(super) value: Side,
    /// The chunk's own keys and values; the cache then ends before the first query's position.
    pub(super) fresh: Option<Fresh>,
    /// `[tokens][heads][head_dim]`.
    pub(super) query: *const f32,
    /// `[tokens]`, ascending by one.
    pub(super) positions: *const i32,
    /// `[tokens][heads][head_dim]`.
    pub(super) output: *mut f32,
    pub(super) parts: usize,
    /// [`Shape::partials`] numbers: outputs `[tokens · heads][parts][head_dim]`, then maxima and sums.
    pub(super) partials: *mut f32,
    /// What the chunk's own rows are: plain numbers.
    pub(super) plain: Decoder,
}

// SAFETY: the pointers are into tensors that the op keeps alive; items write apart from each other.
unsafe impl Send for Job {}
// SAFETY: as above.
unsafe impl Sync for Job {}

/// A worker's scratch, divided.
pub(super) struct Scratch {
    /// `[rows][head_dim]`, in the space of the cached keys.
    rotated: *mut f32,
    /// `[rows][head_dim]`, as the model has them.
    original: *mut f32,
    /// `[rows][head_dim]`.
    pub(super) out: *mut f32,
    /// A tile's keys as panels, then its values as rows.
    tile: *mut f32,
    /// `[rows][TILE]`.
    scores: *mut f32,
    key_factors: *mut f32,
    value_factors: *mut f32,
    alphas: *mut f32,
    pub(super) running: *mut Running,
}

/// A block of query vectors over a part of the context.
pub(super) struct Block {
    kv_head: usize,
    /// The block's tokens.
    tokens: Range<usize>,
    /// Query vectors: tokens × group.
    pub(super) rows: usize,
    pub(super) part: usize,
    /// The position of the op's first token.
    start: usize,
}

impl Job {
    pub(super) fn items(&self) -> usize {
        self.shape.items() * self.parts
    }

    /// A rough time in nanoseconds, from the number of visible pairs.
    pub(super) fn cost(&self) -> u64 {
        let Shape {
            tokens,
            heads,
            head_dim,
            ..
        } = self.shape;
        let cached = self.cached_end(self.first_position()).min(self.window) as u64;
        let pairs = (tokens as u64) * (cached + tokens as u64 / 2) * heads as u64;
        pairs * head_dim as u64 / 10
    }

    fn first_position(&self) -> usize {
        if self.shape.tokens == 0 {
            return 0;
        }
        // SAFETY: the positions hold `tokens` numbers.
        unsafe { self.positions.read().max(0) as usize }
    }

    /// The end of the cached positions: the chunk's start, or past the last query.
    fn cached_end(&self, start: usize) -> usize {
        let end = if self.fresh.is_some() {
            start
        } else {
            start + self.shape.tokens
        };
        if self.ring {
            end
        } else {
            end.min(self.shape.capacity)
        }
    }

    /// Does one item.
    ///
    /// # Safety
    /// The machine has the instruction set, the pointers hold what their fields say, `scratch` holds
    /// [`Shape::scratch`] numbers, and no other thread writes what is read or touches what this item writes.
    pub(super) unsafe fn run(&self, item: usize, scratch: &mut [f32]) {
        debug_assert!(scratch.len() >= self.shape.scratch());
        // SAFETY: the caller's.
        unsafe { run_item(self, item, scratch.as_mut_ptr()) }
    }

    /// Merges the parts of one of the `tokens · heads` output vectors, in the order of the parts.
    ///
    /// # Safety
    /// As for [`run`](Self::run), after all items; `scratch` holds `head_dim` numbers.
    pub(super) unsafe fn merge(&self, vector: usize, scratch: &mut [f32]) {
        // SAFETY: the caller's.
        unsafe { output::merge(self, vector, &mut scratch[..self.shape.head_dim]) }
    }

    /// The positions of the cache that a token sees.
    fn visible(&self, position: usize, cached: &Range<usize>) -> Range<usize> {
        let first = (position + 1).saturating_sub(self.window).max(cached.start);
        first..(position + 1).min(cached.end)
    }

    fn block(&self, item: usize) -> Block {
        // The last blocks see the most positions: they go first, so that no thread is left with one at the end.
        let shape = &self.shape;
        let (rest, part) = (item / self.parts, item % self.parts);
        let (block, kv_head) = (
            shape.blocks() - 1 - rest / shape.kv_heads,
            rest % shape.kv_heads,
        );
        let first = block * shape.block_tokens();
        let tokens = first..(first + shape.block_tokens()).min(shape.tokens);
        Block {
            kv_head,
            rows: tokens.len() * shape.group(),
            tokens,
            part,
            start: self.first_position(),
        }
    }

    /// Which query vector of the op a row of a block is.
    pub(super) fn vector(&self, block: &Block, row: usize) -> usize {
        let group = self.shape.group();
        let token = block.tokens.start + row / group;
        token * self.shape.heads + block.kv_head * group + row % group
    }

    /// # Safety
    /// `base` holds [`Shape::scratch`] numbers.
    unsafe fn divide(&self, base: *mut f32) -> Scratch {
        let rows = self.shape.block_rows();
        let vectors = rows * self.shape.head_dim;
        // SAFETY: the sum of the pieces is `Shape::scratch`. `Running` is two singles.
        unsafe {
            let rotated = base;
            let original = rotated.add(vectors);
            let out = original.add(vectors);
            let tile = out.add(vectors);
            let scores = tile.add(TILE * self.shape.head_dim);
            let key_factors = scores.add(rows * TILE);
            let value_factors = key_factors.add(TILE);
            let alphas = value_factors.add(TILE);
            let running = alphas.add(rows).cast::<Running>();
            Scratch {
                rotated,
                original,
                out,
                tile,
                scores,
                key_factors,
                value_factors,
                alphas,
                running,
            }
        }
    }
}

/// # Safety
/// As for [`Job::run`].
unsafe fn run_item(job: &Job, item: usize, base: *mut f32) {
    let block = job.block(item);
    // SAFETY: the caller's.
    unsafe {
        let scratch = job.divide(base);
        let seen = cached_part(job, &block);
        load_queries(job, &block, &scratch, !seen.is_empty());
        for row in 0..block.rows {
            scratch.running.add(row).write(Running::EMPTY);
        }
        std::slice::from_raw_parts_mut(scratch.out, block.rows * job.shape.head_dim).fill(0.0);
        attend_cache(job, &block, &scratch, &seen);
        if job.parts > 1 {
            output::leave_partial(job, &block, &scratch);
            return;
        }
        if !seen.is_empty() {
            for row in 0..block.rows {
                let sums = scratch.out.add(row * job.shape.head_dim);
                output::restore_row(
                    job,
                    std::slice::from_raw_parts_mut(sums, job.shape.head_dim),
                );
            }
        }
        if let Some(fresh) = job.fresh {
            attend_fresh(job, &block, &scratch, fresh);
        }
        for row in 0..block.rows {
            let sum = (*scratch.running.add(row)).sum;
            let sums = scratch.out.add(row * job.shape.head_dim);
            output::finish(job, job.vector(&block, row), sums, sum);
        }
    }
}

/// The cached positions that the block's part covers.
fn cached_part(job: &Job, block: &Block) -> Range<usize> {
    let end = job.cached_end(block.start);
    // A ring holds the last `capacity` positions.
    let cached = end.saturating_sub(job.shape.capacity)..end;
    let first = job.visible(block.start + block.tokens.start, &cached).start;
    let end = job.visible(block.start + block.tokens.end - 1, &cached).end;
    if job.parts == 1 || first >= end {
        return first..end;
    }
    let tiles = (end - first).div_ceil(TILE).div_ceil(job.parts);
    let first = first + block.part * tiles * TILE;
    first..(first + tiles * TILE).min(end)
}

/// Copies the block's queries, multiplied by the score's scale, as the model has them and as the cached keys are.
unsafe fn load_queries(job: &Job, block: &Block, scratch: &Scratch, cached: bool) {
    let d = job.shape.head_dim;
    for row in 0..block.rows {
        // SAFETY: the query holds this vector, the scratch this row.
        unsafe {
            let source = std::slice::from_raw_parts(job.query.add(job.vector(block, row) * d), d);
            let original = std::slice::from_raw_parts_mut(scratch.original.add(row * d), d);
            let rotated = std::slice::from_raw_parts_mut(scratch.rotated.add(row * d), d);
            for (out, q) in original.iter_mut().zip(source) {
                *out = q * job.scale;
            }
            if cached {
                rotated.copy_from_slice(original);
                if let Some(rotation) = job.key.decoder.codec.rotation() {
                    rotate::forward_with(job.isa, rotation, rotated);
                }
            }
        }
    }
}

/// What a tile of positions is attended to with.
struct TileRun<'a> {
    /// The tile's positions.
    positions: Range<usize>,
    queries: *const f32,
    key: (&'a Decoder, Rows),
    value: (&'a Decoder, Rows),
    /// The positions that exist, before causality and window.
    existing: Range<usize>,
}

unsafe fn attend_cache(job: &Job, block: &Block, scratch: &Scratch, seen: &Range<usize>) {
    let Shape { capacity, .. } = job.shape;
    let end = job.cached_end(block.start);
    let existing = end.saturating_sub(capacity)..end;
    let mut first = seen.start;
    while first < seen.end {
        let slot = first % capacity;
        let count = (seen.end - first)
            .min(job.shape.tile())
            .min(capacity - slot);
        let row = block.kv_head * capacity + slot;
        let tile = TileRun {
            positions: first..first + count,
            queries: scratch.rotated,
            key: (&job.key.decoder, job.key.rows(row, count)),
            value: (&job.value.decoder, job.value.rows(row, count)),
            existing: existing.clone(),
        };
        // SAFETY: the caller's; the slots are below the capacity.
        unsafe { attend_tile(job, block, scratch, &tile) };
        first += count;
    }
}

unsafe fn attend_fresh(job: &Job, block: &Block, scratch: &Scratch, fresh: Fresh) {
    let Shape {
        kv_heads,
        head_dim,
        tokens,
        ..
    } = job.shape;
    let existing = block.start..block.start + tokens;
    let seen = job
        .visible(block.start + block.tokens.start, &existing)
        .start
        ..job
            .visible(block.start + block.tokens.end - 1, &existing)
            .end;
    let mut first = seen.start;
    while first < seen.end {
        let count = (seen.end - first).min(job.shape.tile());
        let rows = |numbers: *const f32| Rows {
            codes: numbers
                .wrapping_add(((first - block.start) * kv_heads + block.kv_head) * head_dim)
                .cast(),
            stride: kv_heads * head_dim * size_of::<f32>(),
            scales: std::ptr::null(),
            count,
        };
        let tile = TileRun {
            positions: first..first + count,
            queries: scratch.original,
            key: (&job.plain, rows(fresh.keys)),
            value: (&job.plain, rows(fresh.values)),
            existing: existing.clone(),
        };
        // SAFETY: the caller's; the positions are the chunk's.
        unsafe { attend_tile(job, block, scratch, &tile) };
        first += count;
    }
}

unsafe fn attend_tile(job: &Job, block: &Block, scratch: &Scratch, tile: &TileRun) {
    let d = job.shape.head_dim;
    let (key, keys) = tile.key;
    let (value, values) = tile.value;
    let count = keys.count;
    // SAFETY: the caller's; the scratch holds a tile, its scores and its factors.
    unsafe {
        tile::key_panels(job.isa, key, keys, scratch.tile);
        tile::row_factors(
            job.isa,
            &key.codec,
            keys,
            std::slice::from_raw_parts_mut(scratch.key_factors, TILE),
        );
        tile::row_factors(
            job.isa,
            &value.codec,
            values,
            std::slice::from_raw_parts_mut(scratch.value_factors, TILE),
        );
        kernels::scores(
            job.isa,
            Scores {
                queries: tile.queries,
                panels: scratch.tile,
                out: scratch.scores,
                stride: TILE,
                rows: block.rows,
                panel_count: count.div_ceil(LANES),
                head_dim: d,
            },
        );
        for row in 0..block.rows {
            let token = block.tokens.start + row / job.shape.group();
            let visible = job.visible(block.start + token, &tile.existing);
            let first = visible.start.max(tile.positions.start);
            let end = visible.end.min(tile.positions.end);
            let scores = scratch.scores.add(row * TILE);
            if first >= end {
                std::slice::from_raw_parts_mut(scores, count).fill(0.0);
                *scratch.alphas.add(row) = 1.0;
                continue;
            }
            let weigh = Weigh {
                scores,
                count,
                first: first - tile.positions.start,
                end: end - tile.positions.start,
                key_factors: scratch.key_factors,
                value_factors: scratch.value_factors,
                softcap: job.softcap,
            };
            *scratch.alphas.add(row) =
                kernels::weigh(job.isa, weigh, &mut *scratch.running.add(row));
        }
        let plain = value.codec.codec() == KvCodec::Dense(DType::F32);
        let (rows, value_stride) = if plain {
            (values.codes.cast::<f32>(), values.stride / size_of::<f32>())
        } else {
            tile::value_rows(job.isa, value, values, scratch.tile);
            (scratch.tile.cast_const(), d)
        };
        kernels::values(
            job.isa,
            Values {
                weights: scratch.scores,
                stride: TILE,
                values: rows,
                value_stride,
                positions: count,
                alphas: scratch.alphas,
                out: scratch.out,
                rows: block.rows,
                head_dim: d,
            },
        );
    }
}
