//! A block's walk over the positions that it sees.
//!
//! Positions lie in *zones*: the first and the most recent ones where the cache has an overlay, the others in between,
//! and a chunk's own. Each query sees a range of positions of each zone, and a zone is passed in tiles.

use std::ops::Range;

use walsh_formats::DType;

use super::coded;
use super::direct;
use super::job::{Block, Fresh, Job, Scratch, Shape, Side, Stored, TILE};
use super::kernels::{self, Running, Scores, Values, Weigh};
use super::output;
use super::queries::{self, Preparation, Query};
use super::tile::{self, Decoder, LANES, Rows};
use crate::team::fetch;

/// Where positions are read from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Zone {
    /// The overlay's first tokens.
    First,
    /// The codes.
    Codes,
    /// The overlay's most recent tokens.
    Recent,
    /// The chunk's own keys and values.
    Fresh,
}

/// The zones of a cache, in the order in which they are passed.
const CACHED: [Zone; 3] = [Zone::First, Zone::Codes, Zone::Recent];

impl Zone {
    /// The positions of the zone for a query at a position.
    fn positions(self, job: &Job, query: usize) -> Range<usize> {
        let first = job.overlay.first;
        let recent = (query + 1).saturating_sub(job.overlay.recent).max(first);
        match self {
            Zone::First => 0..first,
            Zone::Codes => first..recent,
            Zone::Recent => recent..query + 1,
            Zone::Fresh => 0..query + 1,
        }
    }

    /// The positions that a query sees of those that exist.
    pub(super) fn visible(self, job: &Job, query: usize, existing: &Range<usize>) -> Range<usize> {
        let zone = self.positions(job, query);
        let first = (query + 1).saturating_sub(job.window);
        let first = first.max(existing.start).max(zone.start);
        first..(query + 1).min(existing.end).min(zone.end)
    }

    /// The positions that some query of a block sees.
    fn seen(self, job: &Job, block: &Block, existing: &Range<usize>) -> Range<usize> {
        if self == Zone::Recent && job.overlay.recent == 0 {
            // What each query sees is empty, but between what the first and the last see lie the block's own positions.
            return 0..0;
        }
        let (first, last) = block.positions();
        self.visible(job, first, existing).start..self.visible(job, last, existing).end
    }

    /// The cached positions of a part that some query of a block sees.
    pub(super) fn seen_of_part(
        self,
        job: &Job,
        block: &Block,
        part: &Range<usize>,
    ) -> Range<usize> {
        let seen = self.seen(job, block, &cached(job, block));
        seen.start.max(part.start)..seen.end.min(part.end)
    }
}

/// Attends one block: its part of the context, or all of it.
///
/// # Safety
/// As for [`Job::run`].
pub(super) unsafe fn attend(job: &Job, block: &Block, scratch: &Scratch) {
    // SAFETY: the caller's.
    unsafe {
        let seen = cached_part(job, block);
        fetch_first(job, block, &seen);
        load_queries(job, block, scratch, !seen.is_empty());
        for row in 0..block.rows {
            let sink = !job.sinks.is_null() && block.part == 0;
            let running = if sink {
                Running {
                    max: job.sinks.add(job.head(block, row)).read(),
                    sum: 1.0,
                }
            } else {
                Running::EMPTY
            };
            scratch.running.add(row).write(running);
        }
        let width = job.shape.width();
        std::slice::from_raw_parts_mut(scratch.out, block.rows * width).fill(0.0);
        if !seen.is_empty() {
            for zone in CACHED {
                match &job.coded {
                    Some(coded) if zone == Zone::Codes => {
                        coded::attend(job, coded, block, scratch, &seen);
                    }
                    _ => attend_cache(job, block, scratch, (zone, &seen)),
                }
            }
        }
        if block.parts > 1 {
            output::leave_partial(job, block, scratch);
            return;
        }
        if !seen.is_empty() {
            for row in 0..block.rows {
                let sums = scratch.out.add(row * width);
                output::restore_row(job, std::slice::from_raw_parts_mut(sums, width));
            }
        }
        if let Some(fresh) = job.fresh {
            attend_fresh(job, block, scratch, fresh);
        }
        for row in 0..block.rows {
            let sum = (*scratch.running.add(row)).sum;
            let sums = scratch.out.add(row * width);
            output::finish(job, job.vector(block, row), sums, sum);
        }
        if job.parts > 1 {
            output::leave_whole(job, block);
        }
    }
}

/// The positions that the cache holds of a block's sequence: a ring's last `capacity`.
pub(super) fn cached(job: &Job, block: &Block) -> Range<usize> {
    let end = job.cached_end(block);
    end.saturating_sub(job.shape.capacity)..end
}

/// The cached positions that some query of a block sees.
pub(super) fn seen(job: &Job, block: &Block) -> Range<usize> {
    let existing = cached(job, block);
    let (first, last) = block.positions();
    let first = (first + 1).saturating_sub(job.window).max(existing.start);
    first..(last + 1).min(existing.end)
}

/// Those that the block's part covers.
fn cached_part(job: &Job, block: &Block) -> Range<usize> {
    let Range { start, end } = seen(job, block);
    if block.parts == 1 || start >= end {
        return start..end;
    }
    let tiles = (end - start).div_ceil(TILE).div_ceil(block.parts);
    let first = start + block.part * tiles * TILE;
    first..(first + tiles * TILE).min(end)
}

/// The bytes of a zone's keys, and of its values, that are asked for before any is read.
const FETCHED: usize = 16 << 10;

/// Asks for what the block reads first of each zone: behind other layers nothing of it is in the caches, and runs of rows
/// are too short for the machine to see them coming.
fn fetch_first(job: &Job, block: &Block, part: &Range<usize>) {
    let head = block.sequence * job.shape.kv_heads + block.kv_head;
    for zone in CACHED {
        let Range { start: first, end } = zone.seen_of_part(job, block, part);
        if first >= end {
            continue;
        }
        for side in [&job.key, &job.value] {
            let (stored, slot, follow) = side.place(job, zone, first);
            let rows = stored.rows(head, slot, (end - first).min(follow));
            let bytes = (rows.count * rows.stride).min(FETCHED);
            for at in (0..bytes).step_by(64) {
                fetch(rows.codes.wrapping_add(at));
            }
        }
    }
}

/// Readies the block's queries, as the model has them and as the cached keys are.
unsafe fn load_queries(job: &Job, block: &Block, scratch: &Scratch, cached: bool) {
    let (d, width) = (job.shape.head_dim, job.shape.width());
    // SAFETY: the query holds these vectors, the scratch these rows, and what keys are prepared with this head.
    unsafe {
        let of_head = |numbers: *const f32| match numbers.is_null() {
            true => None,
            false => Some(std::slice::from_raw_parts(
                numbers.add(block.kv_head * d),
                d,
            )),
        };
        let preparation = Preparation {
            scale: job.scale,
            center: of_head(job.center),
            equaliser: of_head(job.equaliser),
            rotation: job.key.stored.decoder.codec.rotation(),
        };
        for row in 0..block.rows {
            let query = Query {
                source: std::slice::from_raw_parts(job.query.add(job.vector(block, row) * d), d),
                scaled: std::slice::from_raw_parts_mut(scratch.original.add(row * width), width),
                prepared: cached.then(|| {
                    std::slice::from_raw_parts_mut(scratch.rotated.add(row * width), width)
                }),
            };
            let offset = queries::prepare(job.isa, &preparation, query);
            scratch.offsets.add(row).write(offset);
        }
    }
}

/// What a tile of positions is attended to with.
struct TileRun<'a> {
    zone: Zone,
    /// The tile's positions.
    positions: Range<usize>,
    queries: *const f32,
    key: (&'a Decoder, Rows),
    value: (&'a Decoder, Rows),
    /// The positions that exist, before causality and window.
    existing: Range<usize>,
}

impl Side {
    /// Where the positions of a zone lie from one on, the slot, and how many follow each other there.
    pub(super) fn place(&self, job: &Job, zone: Zone, position: usize) -> (&Stored, usize, usize) {
        match (&self.overlay, zone) {
            (Some(overlay), Zone::First) => (overlay, position, job.overlay.first - position),
            (Some(overlay), Zone::Recent) => {
                let slot = position % job.overlay.ring;
                (overlay, job.overlay.first + slot, job.overlay.ring - slot)
            }
            _ => {
                let slot = position % job.shape.capacity;
                (&self.stored, slot, job.shape.capacity - slot)
            }
        }
    }
}

unsafe fn attend_cache(
    job: &Job,
    block: &Block,
    scratch: &Scratch,
    (zone, part): (Zone, &Range<usize>),
) {
    let existing = cached(job, block);
    let head = block.sequence * job.shape.kv_heads + block.kv_head;
    let Range {
        start: mut first,
        end,
    } = zone.seen_of_part(job, block, part);
    while first < end {
        let (key, key_slot, keys) = job.key.place(job, zone, first);
        let (value, value_slot, values) = job.value.place(job, zone, first);
        let count = (end - first).min(job.shape.tile()).min(keys).min(values);
        let tile = TileRun {
            zone,
            positions: first..first + count,
            queries: scratch.rotated,
            key: (&key.decoder, key.rows(head, key_slot, count)),
            value: (&value.decoder, value.rows(head, value_slot, count)),
            existing: existing.clone(),
        };
        // SAFETY: the caller's; the slots are among those of the rows.
        unsafe { attend_tile(job, block, scratch, &tile) };
        first += count;
    }
}

unsafe fn attend_fresh(job: &Job, block: &Block, scratch: &Scratch, fresh: Fresh) {
    let Shape {
        kv_heads, head_dim, ..
    } = job.shape;
    let existing = block.start..block.start + block.all.len();
    let seen = Zone::Fresh.seen(job, block, &existing);
    let mut first = seen.start;
    while first < seen.end {
        let count = (seen.end - first).min(job.shape.tile());
        let token = block.all.start + first - block.start;
        let rows = |numbers: *const f32| Rows {
            codes: numbers
                .wrapping_add((token * kv_heads + block.kv_head) * head_dim)
                .cast(),
            stride: kv_heads * head_dim * size_of::<f32>(),
            scales: std::ptr::null(),
            count,
        };
        let tile = TileRun {
            zone: Zone::Fresh,
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
    let width = job.shape.width();
    let (key, keys) = tile.key;
    let (value, values) = tile.value;
    let count = keys.count;
    // SAFETY: the caller's; the scratch holds a tile, its scores and its factors.
    unsafe {
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
        if direct::serves(&key.codec, block.rows) {
            let scores = direct::Scores {
                decoder: key,
                keys,
                queries: tile.queries,
                out: scratch.scores,
                stride: TILE,
                rows: block.rows,
            };
            direct::scores(job.isa, scores);
        } else {
            tile::key_panels(job.isa, key, keys, scratch.tile);
            let scores = Scores {
                queries: tile.queries,
                panels: scratch.tile,
                out: scratch.scores,
                stride: TILE,
                rows: block.rows,
                panel_count: count.div_ceil(LANES),
                head_dim: width,
            };
            kernels::scores(job.isa, scores);
        }
        for row in 0..block.rows {
            let token = block.tokens.start + row / job.shape.group();
            let visible = tile
                .zone
                .visible(job, block.position(token), &tile.existing);
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
                offset: match tile.zone {
                    Zone::Fresh => 0.0,
                    _ => *scratch.offsets.add(row),
                },
                value_factors: scratch.value_factors,
                softcap: job.softcap,
            };
            *scratch.alphas.add(row) =
                kernels::weigh(job.isa, weigh, &mut *scratch.running.add(row));
        }
        if direct::serves(&value.codec, block.rows) && !out_of_order(job, tile) {
            let values = direct::Values {
                decoder: value,
                values,
                weights: scratch.scores,
                stride: TILE,
                alphas: scratch.alphas,
                out: scratch.out,
                rows: block.rows,
            };
            direct::values(job.isa, values);
            return;
        }
        let (rows, value_stride) = value_rows(job, scratch, tile);
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
                head_dim: width,
            },
        );
    }
}

/// Whether a tile's values are in another order than the sums.
fn out_of_order(job: &Job, tile: &TileRun) -> bool {
    // The chunk's own values are summed last, when the sums are the model's.
    let summed_in_lanes = tile.zone != Zone::Fresh && job.summed_in_lanes();
    tile::reordered(tile.value.0.codec.codec()) != summed_in_lanes
}

/// A tile's value rows in the order of the sums, and the distance between them.
unsafe fn value_rows(job: &Job, scratch: &Scratch, tile: &TileRun) -> (*const f32, usize) {
    let width = job.shape.width();
    let (decoder, rows) = tile.value;
    let codec = decoder.codec.codec();
    let out_of_order = out_of_order(job, tile);
    let whole = job.shape.head_dim == width;
    if codec.dense() == Some(DType::F32) && whole && !out_of_order {
        return (rows.codes.cast::<f32>(), rows.stride / size_of::<f32>());
    }
    // SAFETY: the caller's; the scratch holds a tile.
    unsafe {
        tile::value_rows(job.isa, decoder, rows, scratch.tile);
        if out_of_order {
            let decoded = std::slice::from_raw_parts_mut(scratch.tile, rows.count * width);
            output::reorder(job.isa, decoded, !tile::reordered(codec));
        }
    }
    (scratch.tile.cast_const(), width)
}
