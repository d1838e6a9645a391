//! Attention over codes in integers.
//!
//! A tile of codes becomes bytes, one per number: its centroid on a grid of 255 steps. Queries and weights are integers
//! of 16 bits, in two parts as the instruction set multiplies them, relative to the largest of their row, so that their
//! rounding does not matter beside the codec's. The grid's does a little: its error has a variance of step²/12 at most,
//! below a hundredth of what four bits lose. Devices with activations in f32 do not come here.

mod fused;
mod kernels;
#[cfg(target_arch = "x86_64")]
mod rows;

use std::ops::Range;

use walsh_core::Activations;
use walsh_formats::kv::RowCodec;

use self::kernels::{Collect, Dots, Integers, Sums, Weights};
use super::job::{Block, Job, Scratch, Shape};
use super::kernels::Weigh;
use super::zones::{Zone, cached};
use crate::isa::Isa;
use crate::kv::codec;
use crate::kv::codec::codebook::bytes::{self, Book, Codes};
use crate::simd::LANES;
use crate::target::Target;

/// Positions of the largest tile. Sums over one stay below 2³¹.
const MOST_POSITIONS: usize = 128;

/// The codes of a cache that attention reads as integers.
pub(super) struct Int8 {
    key: Book,
    value: Book,
    /// Where in the sums over values each number of a head is.
    places: Vec<i32>,
    /// The same where values are multiplied as they are decoded.
    fused_places: Option<Vec<i32>>,
}

impl Int8 {
    /// None where attention over these codecs is in f32: on devices whose activations are, on instruction sets that have
    /// no kernels for it, and where bytes do not hold the centroids.
    pub(super) fn of(key: &RowCodec, value: &RowCodec, target: Target) -> Option<Self> {
        let has_kernels = matches!(target.isa.base(), Isa::Avx2 | Isa::Avx512);
        if !has_kernels || target.activations != Activations::Int8 {
            return None;
        }
        let head_dim = key.head_dim();
        let (key, value) = (codec::book(key)?, codec::book(value)?);
        Some(Self {
            places: bytes::value_places(value.bits, head_dim),
            fused_places: fused::takes_values(value.bits, head_dim)
                .then(|| fused::value_places(head_dim)),
            key,
            value,
        })
    }

    /// The places of the sums over values where a block's are multiplied as they are decoded.
    fn fused_places(&self, isa: Isa, block: &Block) -> Option<&Vec<i32>> {
        let places = self.fused_places.as_ref()?;
        (block.rows <= fused::most_rows(isa).1).then_some(places)
    }

    /// Numbers of scratch beside those of attention in f32.
    pub(super) fn scratch(shape: &Shape, rows: usize) -> usize {
        let (positions, wide) = (positions(shape), wide(shape));
        // The tile's bytes, two factors of each position, and of each row its scores, its query and its weights as bytes,
        // its sums, and five numbers.
        positions * (wide / 4 + 2)
            + rows * (positions + shape.head_dim / 2 + positions / 2 + wide + 5)
    }
}

/// Positions of a tile, whose bytes leave room in the first-level cache.
fn positions(shape: &Shape) -> usize {
    if shape.head_dim > 128 {
        MOST_POSITIONS / 2
    } else {
        MOST_POSITIONS
    }
}

/// A head's numbers in whole vectors of bytes.
fn wide(shape: &Shape) -> usize {
    shape.head_dim.next_multiple_of(64)
}

/// The scratch of this form of attention.
struct Area {
    /// The tile's keys in panels, then its values.
    bytes: *mut u8,
    key_factors: *mut f32,
    value_factors: *mut f32,
    /// `[rows][positions]`.
    scores: *mut f32,
    /// `[rows][2][head_dim]`: the first parts of integers, then the second.
    queries: *mut i8,
    query_terms: *mut Integers,
    /// `[rows][2][positions]`.
    weights: *mut i8,
    weight_terms: *mut Integers,
    /// `[rows][wide]`, in the order of the values' bytes.
    sums: *mut f32,
    /// `[rows]`: what the sums of earlier zones must be multiplied by.
    carried: *mut f32,
}

/// # Safety
/// `base` holds [`Int8::scratch`] numbers.
unsafe fn divide(base: *mut f32, shape: &Shape, rows: usize) -> Area {
    let (positions, wide) = (positions(shape), wide(shape));
    // SAFETY: the sum of the pieces is `Int8::scratch`. `Integers` is two words.
    unsafe {
        let key_factors = base.add(positions * wide / 4);
        let value_factors = key_factors.add(positions);
        let scores = value_factors.add(positions);
        let queries = scores.add(rows * positions);
        let query_terms = queries.add(rows * shape.head_dim / 2);
        let weights = query_terms.add(2 * rows);
        let weight_terms = weights.add(rows * positions / 2);
        let sums = weight_terms.add(2 * rows);
        let carried = sums.add(rows * wide);
        Area {
            bytes: base.cast(),
            key_factors,
            value_factors,
            scores,
            queries: queries.cast(),
            query_terms: query_terms.cast(),
            weights: weights.cast(),
            weight_terms: weight_terms.cast(),
            sums,
            carried,
        }
    }
}

/// Attends a block to the codes of its part of the context.
///
/// # Safety
/// As for [`Job::run`]; the block's queries are loaded.
pub(super) unsafe fn attend(
    job: &Job,
    int8: &Int8,
    block: &Block,
    scratch: &Scratch,
    part: &Range<usize>,
) {
    let shape = &job.shape;
    let Range {
        start: mut first,
        end,
    } = Zone::Codes.seen_of_part(job, block, part);
    if first >= end {
        return;
    }
    let (rows, d, wide) = (block.rows, shape.head_dim, wide(shape));
    // SAFETY: the caller's; the pieces of the scratch are as long as their comments say.
    unsafe {
        let area = divide(scratch.int8, shape, rows);
        let order = bytes::key_order(int8.key.bits);
        for row in 0..rows {
            let query = scratch.rotated.add(row * d);
            let bytes = area.queries.add(2 * row * d);
            let terms = kernels::integers(job.isa, query, bytes, d, &order);
            area.query_terms.add(row).write(Integers {
                factor: terms.factor * int8.key.step,
                ..terms
            });
            area.carried.add(row).write(1.0);
        }
        std::slice::from_raw_parts_mut(area.sums, rows * wide).fill(0.0);
        while first < end {
            let count = attend_tile(job, (int8, &area), block, scratch, first..end);
            first += count;
        }
        let fused_places = int8.fused_places(job.isa, block);
        for row in 0..rows {
            let collect = Collect {
                sums: area.sums.add(row * wide),
                places: fused_places.unwrap_or(&int8.places),
                carried: *area.carried.add(row),
                out: scratch.out.add(row * d),
            };
            kernels::collect(job.isa, collect);
        }
    }
}

/// Writes the scores of a tile's keys; `bytes` has room for them.
///
/// # Safety
/// As for [`fused::scores`].
unsafe fn score(isa: Isa, dots: Dots, codes: Codes<'_>, bytes: *mut u8) {
    // SAFETY: the caller's.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        if let Some(s) = rows::takes(isa, dots.rows, codes.book.bits, dots.head_dim) {
            return rows::scores(s, dots, codes);
        }
        if dots.rows <= fused::most_rows(isa).0 {
            fused::scores(isa, dots, codes);
        } else {
            bytes::key_bytes(isa, codes, bytes);
            kernels::scores(isa, dots, bytes, codes.rows.count.div_ceil(LANES));
        }
    }
}

/// Attends to a tile at the beginning of some positions; returns how many it has.
unsafe fn attend_tile(
    job: &Job,
    (int8, area): (&Int8, &Area),
    block: &Block,
    scratch: &Scratch,
    left: Range<usize>,
) -> usize {
    let shape = &job.shape;
    let (d, stride) = (shape.head_dim, positions(shape));
    let head = block.sequence * shape.kv_heads + block.kv_head;
    // Codes of keys and values lie in the same slots.
    let (_, slot, follow) = job.key.place(job, Zone::Codes, left.start);
    let count = left.len().min(stride).min(follow);
    let keys = job.key.stored.rows(head, slot, count);
    let values = job.value.stored.rows(head, slot, count);
    let existing = cached(job, block);
    // SAFETY: the caller's; slots are among those of the rows, and the scratch holds a tile.
    unsafe {
        let dots = Dots {
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
            next: values.codes,
        };
        score(job.isa, dots, codes, area.bytes);
        for (side, rows, factors) in [
            (&job.key, keys, area.key_factors),
            (&job.value, values, area.value_factors),
        ] {
            let factors = std::slice::from_raw_parts_mut(factors, count.next_multiple_of(LANES));
            codec::row_factors(job.isa, &side.stored.decoder, rows, factors);
        }
        for row in 0..block.rows {
            let token = block.tokens.start + row / shape.group();
            let visible = Zone::Codes.visible(job, block.position(token), &existing);
            let first = visible.start.max(left.start);
            let end = visible.end.min(left.start + count);
            let weights = Weights {
                weigh: Weigh {
                    scores: area.scores.add(row * stride),
                    count,
                    first: first.saturating_sub(left.start),
                    end: end.saturating_sub(left.start),
                    key_factors: area.key_factors,
                    offset: *scratch.offsets.add(row),
                    value_factors: area.value_factors,
                    softcap: job.softcap,
                },
                bytes: area.weights.add(2 * row * stride),
                second: stride,
            };
            let (alpha, terms) = kernels::weights(job.isa, weights, &mut *scratch.running.add(row));
            *scratch.alphas.add(row) = alpha;
            *area.carried.add(row) *= alpha;
            area.weight_terms.add(row).write(Integers {
                factor: terms.factor * int8.value.step,
                ..terms
            });
        }
        let sums = Sums {
            weights: area.weights,
            terms: area.weight_terms,
            alphas: scratch.alphas,
            quads: count.div_ceil(4),
            stride,
            out: area.sums,
            rows: block.rows,
            wide: wide(shape),
        };
        let codes = Codes {
            book: &int8.value,
            rows: values,
            head_dim: d,
            next: keys.codes.wrapping_add(count * keys.stride),
        };
        if int8.fused_places(job.isa, block).is_some() {
            fused::values(job.isa, sums, codes);
        } else {
            bytes::value_bytes(job.isa, codes, area.bytes);
            kernels::values(job.isa, sums, area.bytes);
        }
    }
    count
}
