//! A block's walk over the positions that it sees.
//!
//! Positions lie in *zones*: the first and the most recent ones where the cache has an overlay, the others in between,
//! and a chunk's own. Each query sees a range of positions of each zone, and a zone is passed in tiles.

use std::ops::Range;

use walsh_formats::DType;

use super::coded;
use super::job::{Block, Fresh, Job, Scratch, Shape, Side, Stored, TILE};
use super::kernels::{self, Running, Scores, Values, Weigh};
use super::output;
use super::tile::{self, Decoder, LANES, Rows};
use crate::lanes::rotate;

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
    pub(super) fn seen(self, job: &Job, block: &Block, existing: &Range<usize>) -> Range<usize> {
        let (first, last) = block.positions();
        self.visible(job, first, existing).start..self.visible(job, last, existing).end
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
        std::slice::from_raw_parts_mut(scratch.out, block.rows * job.shape.head_dim).fill(0.0);
        if !seen.is_empty() {
            for zone in [Zone::First, Zone::Codes] {
                match &job.coded {
                    Some(coded) if zone == Zone::Codes => {
                        coded::attend(job, coded, block, scratch, &seen);
                    }
                    _ => attend_cache(job, block, scratch, (zone, &seen)),
                }
            }
            if job.overlay.recent > 0 {
                attend_cache(job, block, scratch, (Zone::Recent, &seen));
            }
        }
        if job.parts > 1 {
            output::leave_partial(job, block, scratch);
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
            attend_fresh(job, block, scratch, fresh);
        }
        for row in 0..block.rows {
            let sum = (*scratch.running.add(row)).sum;
            let sums = scratch.out.add(row * job.shape.head_dim);
            output::finish(job, job.vector(block, row), sums, sum);
        }
    }
}

/// The positions that the cache holds of a block's sequence: a ring's last `capacity`.
pub(super) fn cached(job: &Job, block: &Block) -> Range<usize> {
    let end = job.cached_end(block);
    end.saturating_sub(job.shape.capacity)..end
}

/// The cached positions that the block's part covers.
fn cached_part(job: &Job, block: &Block) -> Range<usize> {
    let existing = cached(job, block);
    let (first, last) = block.positions();
    let first = (first + 1).saturating_sub(job.window).max(existing.start);
    let end = (last + 1).min(existing.end);
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
        // SAFETY: the query holds this vector, the scratch this row, and what keys are prepared with this head.
        unsafe {
            let source = std::slice::from_raw_parts(job.query.add(job.vector(block, row) * d), d);
            let original = std::slice::from_raw_parts_mut(scratch.original.add(row * d), d);
            let rotated = std::slice::from_raw_parts_mut(scratch.rotated.add(row * d), d);
            for (out, q) in original.iter_mut().zip(source) {
                *out = q * job.scale;
            }
            let of_head = |numbers: *const f32| {
                (!numbers.is_null())
                    .then(|| std::slice::from_raw_parts(numbers.add(block.kv_head * d), d))
            };
            // What the scores of stored keys lack: the product of the query and the centre.
            let offset = of_head(job.center).map_or(0.0, |center| {
                original.iter().zip(center).map(|(q, c)| q * c).sum()
            });
            scratch.offsets.add(row).write(offset);
            if cached {
                rotated.copy_from_slice(original);
                if let Some(equaliser) = of_head(job.equaliser) {
                    for (q, e) in rotated.iter_mut().zip(equaliser) {
                        *q *= e;
                    }
                }
                if let Some(rotation) = job.key.stored.decoder.codec.rotation() {
                    rotate::forward_with(job.isa, rotation, rotated);
                }
            }
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
    let seen = zone.seen(job, block, &existing);
    let head = block.sequence * job.shape.kv_heads + block.kv_head;
    let mut first = seen.start.max(part.start);
    let end = seen.end.min(part.end);
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
                head_dim: d,
            },
        );
    }
}

/// A tile's value rows in the order of the sums, and the distance between them.
unsafe fn value_rows(job: &Job, scratch: &Scratch, tile: &TileRun) -> (*const f32, usize) {
    let d = job.shape.head_dim;
    let (decoder, rows) = tile.value;
    let codec = decoder.codec.codec();
    // The chunk's own values are summed last, when the sums are the model's.
    let summed_in_lanes = tile.zone != Zone::Fresh && job.summed_in_lanes();
    let in_lanes = tile::reordered(codec);
    if codec.dense() == Some(DType::F32) && in_lanes == summed_in_lanes {
        return (rows.codes.cast::<f32>(), rows.stride / size_of::<f32>());
    }
    // SAFETY: the caller's; the scratch holds a tile.
    unsafe {
        tile::value_rows(job.isa, decoder, rows, scratch.tile);
        if in_lanes != summed_in_lanes {
            let decoded = std::slice::from_raw_parts_mut(scratch.tile, rows.count * d);
            output::reorder(job.isa, decoded, summed_in_lanes);
        }
    }
    (scratch.tile.cast_const(), d)
}
