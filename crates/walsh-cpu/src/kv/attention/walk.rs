//! A block's walk over the positions that it sees.
//!
//! Zone by zone, and a zone in tiles.

use std::ops::Range;

use super::direct;
use super::int8;
use super::job::{Block, Fresh, Job, Run};
use super::kernels::{self, Running, Scores, Values, Weigh};
use super::output;
use super::queries::{self, Preparation, Query};
use super::scratch::{self, Scratch};
use super::shape::TILE;
use super::zones::{CACHED, Zone, cached, cached_part, seen};
use crate::kv::codec::numbers::{Rows, reorder};
use crate::kv::codec::{self, Decoder};
use crate::simd::LANES;
use crate::team::fetch;

impl Run<'_> {
    /// Does one item; `scratch` holds [its](scratch::len) numbers.
    pub(super) fn attend(self, item: usize, scratch: &mut [f32]) {
        // The last blocks see the most positions: they go first, so that no thread is left with one at the end.
        let shape = &self.shape;
        let (rest, turn) = (item / self.parts, item % self.parts);
        let (block, kv_head) = (
            shape.blocks() - 1 - rest / shape.kv_heads,
            rest % shape.kv_heads,
        );
        let first = block * shape.block_tokens();
        let mut left = first..(first + shape.block_tokens()).min(shape.tokens);
        let mut block = self.next_block((kv_head, turn), &mut left);
        while let Some(this) = block {
            block = self.next_block((kv_head, turn), &mut left);
            let mut scratch = scratch::divide(scratch, shape, self.int8.is_some());
            attend(self, (&this, block.as_ref()), &mut scratch);
        }
    }

    /// The block of the first of some tokens' sequences that has a part for a turn; takes its tokens, and those of sequences
    /// that have none.
    fn next_block(
        &self,
        (kv_head, turn): (usize, usize),
        left: &mut Range<usize>,
    ) -> Option<Block> {
        while left.start < left.end {
            let next = left.start;
            let sequence = self.sequence_of(next);
            let of_it = |token: &usize| self.sequence_of(*token) == sequence;
            let all = if self.sequences.is_none() {
                0..self.shape.tokens
            } else {
                let start = (0..=next).rev().take_while(of_it).last().unwrap_or(next);
                start..next + (next..self.shape.tokens).take_while(of_it).count()
            };
            // A sequence's blocks begin at its own first token, wherever that is among the op's: how its sums are cut must
            // not depend on the others. An item does those that begin among its tokens.
            // Where the cache alone is read, that is true of a sequence's tokens, too: one that was looked up has the sums that
            // it has when it is decoded by itself.
            let alone = self.sequences.is_some() && self.fresh.is_none();
            let most = if alone { 1 } else { self.shape.block_tokens() };
            let within = (next - all.start) % most;
            let tokens = next..all.end.min(next + most - within);
            left.start = tokens.end;
            if within > 0 {
                continue;
            }
            let mut block = Block {
                kv_head,
                sequence,
                rows: tokens.len() * self.shape.group(),
                part: 0,
                parts: 1,
                start: self.position_of(all.start),
                all,
                tokens,
            };
            block.parts = self.parts_of(seen(self, &block).len());
            // Few parts are those of items far apart, which are of different threads, and other items' for each sequence.
            let scaled = (turn + next) % self.parts * block.parts;
            if scaled % self.parts < block.parts {
                block.part = scaled / self.parts;
                return Some(block);
            }
        }
        None
    }
}

/// Attends one block: its part of the context, or all of it. What it reads last is read while the first of the block behind
/// it comes.
fn attend(job: Run<'_>, (block, next): (&Block, Option<&Block>), scratch: &mut Scratch<'_>) {
    let seen = cached_part(&job, block);
    fetch_first(job, block, &seen);
    load_queries(job, block, scratch, !seen.is_empty());
    for row in 0..block.rows {
        let sinks = job.job().sinks.as_ref().filter(|_| block.part == 0);
        let running = match sinks {
            Some(sinks) => {
                let head = job.head(block, row);
                Running {
                    max: job.read(sinks, head..head + 1)[0],
                    sum: 1.0,
                }
            }
            None => Running::EMPTY,
        };
        scratch.running[row] = running;
    }
    let width = job.shape.width();
    scratch.out[..block.rows * width].fill(0.0);
    if !seen.is_empty() {
        for zone in CACHED {
            match &job.job().int8 {
                Some(int8) if zone == Zone::Codes => {
                    int8::attend(job, int8, block, scratch, &seen);
                }
                _ => attend_cache(job, (block, next), scratch, (zone, &seen)),
            }
        }
    }
    if block.parts > 1 {
        output::leave_partial(job, block, scratch);
        return;
    }
    if !seen.is_empty() {
        for sums in scratch.out[..block.rows * width].chunks_exact_mut(width) {
            output::restore_row(&job, sums);
        }
    }
    if let Some(fresh) = &job.job().fresh {
        attend_fresh(job, block, scratch, fresh);
    }
    for row in 0..block.rows {
        let (sums, sum) = (&scratch.out[row * width..], scratch.running[row].sum);
        output::finish(job, job.vector(block, row), sums, sum);
    }
    if job.parts > 1 {
        output::leave_whole(job, block);
    }
}

/// The bytes of a zone's keys, and of its values, that are asked for before any is read.
const FETCHED: usize = 4 << 10;

/// Asks for what the block reads first of each zone: behind other layers nothing of it is in the caches, and runs of rows
/// are too short for the machine to see them coming.
fn fetch_first(job: Run<'_>, block: &Block, part: &Range<usize>) {
    for zone in CACHED {
        let Range { start: first, end } = zone.seen_of_part(&job, block, part);
        if first >= end {
            continue;
        }
        for side in [&job.job().key, &job.job().value] {
            let (_, rows) = side.rows(job, block, (zone, first), end - first);
            for at in (0..rows.distance(rows.count()).min(FETCHED)).step_by(64) {
                fetch(rows.address(at));
            }
        }
    }
}

/// Readies the block's queries, as the model has them and as the cached keys are.
fn load_queries(job: Run<'_>, block: &Block, scratch: &mut Scratch<'_>, cached: bool) {
    let (d, width) = (job.shape.head_dim, job.shape.width());
    let preparation = Preparation {
        scale: job.scale,
        center: job.of_head(&job.job().center, block.kv_head),
        equaliser: job.of_head(&job.job().equaliser, block.kv_head),
        rotation: job.key.stored.decoder.codec.rotation(),
    };
    for row in 0..block.rows {
        let vector = job.vector(block, row);
        let query = Query {
            source: job.read(&job.job().query, vector * d..(vector + 1) * d),
            scaled: &mut scratch.original[row * width..(row + 1) * width],
            prepared: cached.then(|| &mut scratch.rotated[row * width..(row + 1) * width]),
        };
        scratch.offsets[row] = queries::prepare(job.set, &preparation, query);
    }
}

/// What a tile of positions is attended to with.
struct TileRun<'a> {
    zone: Zone,
    /// The tile's positions.
    positions: Range<usize>,
    key: (&'a Decoder, Rows<'a>),
    value: (&'a Decoder, Rows<'a>),
    /// The keys and the values that are read behind it; none behind the last.
    ahead: [Rows<'a>; 2],
    /// The positions that exist, before causality and window.
    existing: Range<usize>,
}

fn attend_cache(
    job: Run<'_>,
    (block, next): (&Block, Option<&Block>),
    scratch: &mut Scratch<'_>,
    (zone, part): (Zone, &Range<usize>),
) {
    let existing = cached(&job, block);
    let Range {
        start: mut first,
        end,
    } = zone.seen_of_part(&job, block, part);
    while first < end {
        let most = (end - first).min(job.shape.tile());
        let (key, keys) = job.job().key.rows(job, block, (zone, first), most);
        let (value, values) = job.job().value.rows(job, block, (zone, first), most);
        let count = keys.count().min(values.count());
        let behind = if first + count < end {
            Some((block, first + count..end))
        } else {
            next.map(|next| {
                (
                    next,
                    zone.seen_of_part(&job, next, &cached_part(&job, next)),
                )
            })
        };
        let ahead =
            [(&job.job().key, keys), (&job.job().value, values)].map(
                |(side, rows)| match &behind {
                    Some((block, left)) if !left.is_empty() => {
                        let most = left.len().min(job.shape.tile());
                        side.rows(job, block, (zone, left.start), most).1
                    }
                    _ => rows.first(0),
                },
            );
        let tile = TileRun {
            zone,
            positions: first..first + count,
            key: (key, keys.first(count)),
            value: (value, values.first(count)),
            ahead,
            existing: existing.clone(),
        };
        attend_tile(job, block, scratch, &tile);
        first += count;
    }
}

fn attend_fresh(job: Run<'_>, block: &Block, scratch: &mut Scratch<'_>, fresh: &Fresh) {
    let existing = block.start..block.start + block.all.len();
    let seen = Zone::Fresh.seen(&job, block, &existing);
    let mut first = seen.start;
    while first < seen.end {
        let count = (seen.end - first).min(job.shape.tile());
        let from = (block.kv_head, block.all.start + first - block.start);
        let [keys, values] =
            [&fresh.keys, &fresh.values].map(|numbers| job.fresh_rows(numbers, from, count));
        let tile = TileRun {
            zone: Zone::Fresh,
            positions: first..first + count,
            key: (&job.plain, keys),
            value: (&job.plain, values),
            ahead: [keys.first(0), values.first(0)],
            existing: existing.clone(),
        };
        attend_tile(job, block, scratch, &tile);
        first += count;
    }
}

fn attend_tile(job: Run<'_>, block: &Block, scratch: &mut Scratch<'_>, tile: &TileRun<'_>) {
    let width = job.shape.width();
    let (key, keys) = tile.key;
    let (value, values) = tile.value;
    let count = keys.count();
    let whole = count.next_multiple_of(LANES);
    let queries = match tile.zone {
        Zone::Fresh => &scratch.original,
        Zone::First | Zone::Codes | Zone::Recent => &scratch.rotated,
    };
    codec::row_factors(job.set, key, keys, scratch.key_factors);
    codec::row_factors(job.set, value, values, scratch.value_factors);
    if direct::serves(key, block.rows) {
        let scores = direct::Scores {
            decoder: key,
            keys,
            ahead: tile.ahead[0],
            queries,
            out: scratch.scores,
            stride: TILE,
            rows: block.rows,
        };
        direct::scores(job.set, scores);
    } else {
        codec::key_panels(job.set, key, keys, scratch.tile);
        let scores = Scores {
            queries,
            panels: scratch.tile,
            out: scratch.scores,
            stride: TILE,
            rows: block.rows,
            panel_count: count.div_ceil(LANES),
            head_dim: width,
        };
        kernels::scores(job.set, scores);
    }
    for row in 0..block.rows {
        let token = block.tokens.start + row / job.shape.group();
        let visible = tile
            .zone
            .visible(&job, block.position(token), &tile.existing);
        let first = visible.start.max(tile.positions.start);
        let end = visible.end.min(tile.positions.end);
        let mut weigh = Weigh {
            scores: &mut scratch.scores[row * TILE..][..whole],
            first: first.saturating_sub(tile.positions.start),
            end: end.saturating_sub(tile.positions.start),
            key_factors: &scratch.key_factors[..whole],
            offset: match tile.zone {
                Zone::Fresh => 0.0,
                Zone::First | Zone::Codes | Zone::Recent => scratch.offsets[row],
            },
            value_factors: &scratch.value_factors[..whole],
        };
        scratch.alphas[row] =
            kernels::weigh(job.set, &mut weigh, job.softcap, &mut scratch.running[row]);
    }
    if direct::serves(value, block.rows) && !out_of_order(&job, tile) {
        let values = direct::Values {
            decoder: value,
            values,
            ahead: tile.ahead[1],
            weights: scratch.scores,
            stride: TILE,
            alphas: scratch.alphas,
            out: scratch.out,
            rows: block.rows,
        };
        direct::values(job.set, values);
        return;
    }
    let (rows, value_stride) = value_rows(&job, scratch.tile, tile);
    kernels::values(
        job.set,
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

/// Whether a tile's values are in another order than the sums.
fn out_of_order(job: &Job, tile: &TileRun) -> bool {
    // The chunk's own values are summed last, when the sums are the model's.
    let summed_in_lanes = tile.zone != Zone::Fresh && job.summed_in_lanes();
    tile.value.0.reordered() != summed_in_lanes
}

/// A tile's value rows in the order of the sums, and the distance between them.
fn value_rows<'a>(job: &Job, decoded: &'a mut [f32], tile: &TileRun<'a>) -> (&'a [f32], usize) {
    let width = job.shape.width();
    let (decoder, rows) = tile.value;
    let out_of_order = out_of_order(job, tile);
    let whole = job.shape.head_dim == width;
    if decoder.is_plain()
        && whole
        && !out_of_order
        && let Some(plain) = rows.singles()
    {
        return plain;
    }
    codec::value_rows(job.set, decoder, rows, decoded);
    if out_of_order {
        let decoded = &mut decoded[..rows.count() * width];
        reorder(job.set, decoded, !decoder.reordered());
    }
    (decoded, width)
}
