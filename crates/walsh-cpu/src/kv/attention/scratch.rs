//! A worker's scratch: its parts, and how long each is.
//!
//! Kernels are given slices of the parts, and measure them once for a register block: each access of its innermost loops
//! would be measured again otherwise.

use bytemuck::cast_slice_mut;

use super::int8::kernels::Integers;
use super::kernels::Running;
use super::shape::{Shape, TILE};

/// The scratch of a block, whose rows are its query vectors.
pub(super) struct Scratch<'a> {
    /// `[rows][width]`, in the space of the cached keys.
    pub(super) rotated: &'a mut [f32],
    /// `[rows][width]`, as the model has them.
    pub(super) original: &'a mut [f32],
    /// `[rows][width]`.
    pub(super) out: &'a mut [f32],
    /// `[TILE][width]`: a tile's keys as panels, then its values as rows.
    pub(super) tile: &'a mut [f32],
    /// `[rows][TILE]`.
    pub(super) scores: &'a mut [f32],
    /// `[TILE]`.
    pub(super) key_factors: &'a mut [f32],
    /// `[TILE]`.
    pub(super) value_factors: &'a mut [f32],
    /// `[rows]`.
    pub(super) alphas: &'a mut [f32],
    /// `[rows]`: what the centre took from each row's scores.
    pub(super) offsets: &'a mut [f32],
    /// `[rows]`.
    pub(super) running: &'a mut [Running],
    /// What int8 attention takes; nothing where it is in f32.
    pub(super) int8: Int8Scratch<'a>,
}

/// The scratch of int8 attention, with [`byte_tile`](Shape::byte_tile) positions and
/// [`byte_width`](Shape::byte_width) bytes of a head.
pub(super) struct Int8Scratch<'a> {
    /// The tile's keys in panels, then its values.
    pub(super) bytes: &'a mut [u8],
    /// `[positions]`.
    pub(super) key_factors: &'a mut [f32],
    /// `[positions]`.
    pub(super) value_factors: &'a mut [f32],
    /// `[rows][positions]`.
    pub(super) scores: &'a mut [f32],
    /// `[rows][2][head_dim]`: the first parts of integers, then the second.
    pub(super) queries: &'a mut [i8],
    /// `[rows]`.
    pub(super) query_terms: &'a mut [Integers],
    /// `[rows][2][positions]`.
    pub(super) weights: &'a mut [i8],
    /// `[rows]`.
    pub(super) weight_terms: &'a mut [Integers],
    /// `[rows][width]`, in the order of the values' bytes.
    pub(super) sums: &'a mut [f32],
    /// `[rows]`: what the sums of earlier zones must be multiplied by.
    pub(super) carried: &'a mut [f32],
    /// Rows of keys, then of values, that do not follow each other where they lie.
    pub(super) joined: [&'a mut [u8]; 2],
}

/// Bytes of a row of codes of fewer than eight bits, with its scales, at most.
fn most_row_bytes(shape: &Shape) -> usize {
    shape.head_dim + 2 * size_of::<f32>()
}

/// Numbers of a cache line, on which each part begins: vectors that lie across two of them take twice as long.
const LINE: usize = 64 / size_of::<f32>();

/// Numbers of each part, in the order of [`Scratch`].
fn lengths(shape: &Shape) -> [usize; 10] {
    let (rows, width) = (shape.block_rows(), shape.width());
    let running = rows * size_of::<Running>() / size_of::<f32>();
    [
        rows * width,
        rows * width,
        rows * width,
        TILE * width,
        rows * TILE,
        TILE,
        TILE,
        rows,
        rows,
        running,
    ]
    .map(|len| len.next_multiple_of(LINE))
}

/// Numbers of each part, in the order of [`Int8Scratch`].
fn int8_lengths(shape: &Shape, int8: bool) -> [usize; 12] {
    if !int8 {
        return [0; 12];
    }
    let (rows, positions) = (shape.block_rows(), shape.byte_tile());
    let terms = rows * size_of::<Integers>() / size_of::<f32>();
    let joined = positions * most_row_bytes(shape) / 4;
    [
        positions * shape.byte_width() / 4,
        positions,
        positions,
        rows * positions,
        rows * shape.head_dim / 2,
        terms,
        rows * positions / 2,
        terms,
        rows * shape.byte_width(),
        rows,
        joined,
        joined,
    ]
    .map(|len| len.next_multiple_of(LINE))
}

/// Numbers of scratch per worker, for int8 attention or attention in f32.
pub(super) fn len(shape: &Shape, int8: bool) -> usize {
    let (f32, int8) = (lengths(shape), int8_lengths(shape, int8));
    f32.iter().chain(&int8).sum()
}

/// Cuts parts of these lengths off the front of numbers.
fn cut<'a, const N: usize>(numbers: &mut &'a mut [f32], lengths: [usize; N]) -> [&'a mut [f32]; N] {
    lengths.map(|len| {
        let (part, rest) = std::mem::take(numbers).split_at_mut(len);
        *numbers = rest;
        part
    })
}

/// Divides [`len`] numbers, or more.
pub(super) fn divide<'a>(mut numbers: &'a mut [f32], shape: &Shape, int8: bool) -> Scratch<'a> {
    let [
        rotated,
        original,
        out,
        tile,
        scores,
        key_factors,
        value_factors,
        alphas,
        offsets,
        running,
    ] = cut(&mut numbers, lengths(shape));
    Scratch {
        rotated,
        original,
        out,
        tile,
        scores,
        key_factors,
        value_factors,
        alphas,
        offsets,
        running: cast_slice_mut(running),
        int8: divide_int8(numbers, int8_lengths(shape, int8)),
    }
}

fn divide_int8(mut numbers: &mut [f32], lengths: [usize; 12]) -> Int8Scratch<'_> {
    let [
        bytes,
        key_factors,
        value_factors,
        scores,
        queries,
        query_terms,
        weights,
        weight_terms,
        sums,
        carried,
        joined_keys,
        joined_values,
    ] = cut(&mut numbers, lengths);
    Int8Scratch {
        bytes: cast_slice_mut(bytes),
        key_factors,
        value_factors,
        scores,
        queries: cast_slice_mut(queries),
        query_terms: cast_slice_mut(query_terms),
        weights: cast_slice_mut(weights),
        weight_terms: cast_slice_mut(weight_terms),
        sums,
        carried,
        joined: [cast_slice_mut(joined_keys), cast_slice_mut(joined_values)],
    }
}
