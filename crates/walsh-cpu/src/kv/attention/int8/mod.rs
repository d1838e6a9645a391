//! Int8 attention: over codes, in integers.
//!
//! A tile of codes becomes bytes, one per number: its centroid on a grid of 255 steps. Queries and weights are integers
//! of 16 bits, in two parts as the instruction set multiplies them, relative to the largest of their row, so that their
//! rounding does not matter beside the codec's. The grid's does a little: its error has a variance of step²/12 at most,
//! below a hundredth of what four bits lose. Devices with activations in f32 do not come here.

mod fused;
pub(super) mod kernels;
#[cfg(target_arch = "x86_64")]
mod rows;

use std::ops::Range;

use walsh_core::Activations;
use walsh_formats::kv::RowCodec;

use self::kernels::{Collect, Dots, Integers, Places, Sums, Weights};
use super::job::{Block, Run};
use super::kernels::Weigh;
use super::scratch::Scratch;
use super::shape;
use super::zones::{Zone, cached};
use crate::kv::codec;
use crate::kv::codec::codebook::bytes::{self, Book, Codes};
use crate::simd::{LANES, Token};
use crate::target::Target;

/// The codes of a cache that attention reads as integers.
pub(super) struct Int8 {
    key: Book,
    value: Book,
    /// Where in the sums over values each number of a head is.
    places: Places,
    /// The same where values are multiplied as they are decoded.
    fused_places: Option<Places>,
    /// The most query rows whose keys are multiplied as they are decoded, and whose values are.
    key_rows: usize,
    value_rows: usize,
}

impl Int8 {
    /// None where attention over these codecs is in f32: on devices whose activations are, on instruction sets that have
    /// no kernels for it, and where bytes do not hold the centroids.
    pub(super) fn of(key: &RowCodec, value: &RowCodec, target: Target) -> Option<Self> {
        if target.activations != Activations::Int8 {
            return None;
        }
        let (key_rows, value_rows) = target.token().facts().fused_rows?;
        let head_dim = key.head_dim();
        let (key, value) = (codec::book(key)?, codec::book(value)?);
        let sums = shape::byte_width(head_dim);
        Some(Self {
            places: Places::new(bytes::value_places(value.bits, head_dim), sums),
            fused_places: fused::takes_values(value.bits, head_dim)
                .then(|| Places::new(fused::value_places(head_dim), sums)),
            key,
            value,
            key_rows,
            value_rows,
        })
    }

    /// The places of the sums over values where a block's are multiplied as they are decoded.
    fn fused_places(&self, block: &Block) -> Option<&Places> {
        let places = self.fused_places.as_ref()?;
        (block.rows <= self.value_rows).then_some(places)
    }
}

/// Attends a block, whose queries are loaded, to the codes of its part of the context.
pub(super) fn attend(
    job: Run<'_>,
    int8: &Int8,
    block: &Block,
    scratch: &mut Scratch<'_>,
    part: &Range<usize>,
) {
    let shape = &job.shape;
    let Range {
        start: mut first,
        end,
    } = Zone::Codes.seen_of_part(&job, block, part);
    if first >= end {
        return;
    }
    let (rows, d, wide) = (block.rows, shape.head_dim, shape.byte_width());
    let order = bytes::key_order(int8.key.bits);
    for row in 0..rows {
        let query = &scratch.rotated[row * d..(row + 1) * d];
        let bytes = &mut scratch.int8.queries[2 * row * d..2 * (row + 1) * d];
        let terms = kernels::integers(job.set, query, bytes, &order);
        scratch.int8.query_terms[row] = Integers {
            factor: terms.factor * int8.key.step,
            ..terms
        };
        scratch.int8.carried[row] = 1.0;
    }
    scratch.int8.sums[..rows * wide].fill(0.0);
    while first < end {
        let count = attend_tile(job, int8, block, scratch, first..end);
        first += count;
    }
    let fused_places = int8.fused_places(block);
    for row in 0..rows {
        let collect = Collect {
            sums: &scratch.int8.sums[row * wide..(row + 1) * wide],
            places: fused_places.unwrap_or(&int8.places),
            carried: scratch.int8.carried[row],
            out: &mut scratch.out[row * d..(row + 1) * d],
        };
        kernels::collect(job.set, collect);
    }
}

/// Writes the scores of a tile's keys; `bytes` has room for them.
fn score(set: Token, int8: &Int8, dots: &mut Dots<'_>, bytes: &mut [u8], codes: Codes<'_>) {
    #[cfg(target_arch = "x86_64")]
    if let Some(s) = rows::takes(set, dots.rows, codes.book.bits, dots.head_dim) {
        return rows::scores(s, dots, codes);
    }
    if dots.rows <= int8.key_rows {
        fused::scores(set, dots, codes);
    } else {
        bytes::key_bytes(set, codes, bytes);
        kernels::scores(set, dots, bytes, codes.rows.count().div_ceil(LANES));
    }
}

/// Attends to a tile at the beginning of some positions; returns how many it has.
fn attend_tile(
    job: Run<'_>,
    int8: &Int8,
    block: &Block,
    scratch: &mut Scratch<'_>,
    left: Range<usize>,
) -> usize {
    let shape = &job.shape;
    let (d, stride) = (shape.head_dim, shape.byte_tile());
    // Codes of keys and values lie in the same slots.
    let (at, area) = ((left.start, left.len().min(stride)), &mut scratch.int8);
    let [key_room, value_room] = &mut area.joined;
    let keys = job.job().key.tile(job, block, at, key_room);
    let values = job.job().value.tile(job, block, at, value_room);
    let count = keys.count();
    let whole = count.next_multiple_of(LANES);
    let existing = cached(&job, block);
    let mut dots = Dots {
        queries: area.queries,
        terms: area.query_terms,
        out: area.scores,
        stride,
        rows: block.rows,
        head_dim: d,
    };
    let codes = Codes {
        book: &int8.key,
        rows: keys,
        head_dim: d,
        next: values.address(0),
    };
    score(job.set, int8, &mut dots, area.bytes, codes);
    for (side, rows, factors) in [
        (&job.key, keys, &mut *area.key_factors),
        (&job.value, values, &mut *area.value_factors),
    ] {
        let factors = &mut factors[..whole];
        codec::row_factors(job.set, &side.stored.decoder, rows, factors);
    }
    for row in 0..block.rows {
        let token = block.tokens.start + row / shape.group();
        let visible = Zone::Codes.visible(&job, block.position(token), &existing);
        let first = visible.start.max(left.start);
        let end = visible.end.min(left.start + count);
        let mut weights = Weights {
            weigh: Weigh {
                scores: &mut area.scores[row * stride..][..whole],
                first: first.saturating_sub(left.start),
                end: end.saturating_sub(left.start),
                key_factors: &area.key_factors[..whole],
                offset: scratch.offsets[row],
                value_factors: &area.value_factors[..whole],
            },
            bytes: &mut area.weights[2 * row * stride..2 * (row + 1) * stride],
        };
        let (alpha, terms) = kernels::weights(
            job.set,
            &mut weights,
            job.softcap,
            &mut scratch.running[row],
        );
        scratch.alphas[row] = alpha;
        area.carried[row] *= alpha;
        area.weight_terms[row] = Integers {
            factor: terms.factor * int8.value.step,
            ..terms
        };
    }
    let mut sums = Sums {
        weights: area.weights,
        terms: area.weight_terms,
        alphas: scratch.alphas,
        quads: count.div_ceil(4),
        stride,
        out: area.sums,
        rows: block.rows,
        wide: shape.byte_width(),
    };
    let codes = Codes {
        book: &int8.value,
        rows: values,
        head_dim: d,
        next: keys.address(keys.distance(count)),
    };
    if int8.fused_places(block).is_some() {
        fused::values(job.set, &mut sums, codes);
    } else {
        bytes::value_bytes(job.set, codes, area.bytes);
        kernels::values(job.set, &mut sums, area.bytes);
    }
    count
}
