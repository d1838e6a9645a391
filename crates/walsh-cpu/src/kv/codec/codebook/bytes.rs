//! Codes as bytes, for int8 attention: each number becomes its centroid on a grid of 255 steps.

use walsh_formats::codebook::codebook;
use walsh_formats::kv::{RowCodec, TqBits};

use super::planes::{Planes, Words, each_word};
use crate::kv::codec::numbers::Rows;
use crate::simd::{Bytes, LANES, byte_entries};

/// The most numbers of a codebook.
const MOST_CENTROIDS: usize = 64;

/// The centroids of a codec on a grid.
pub(in crate::kv) struct Book {
    /// 128 more than each centroid's number of steps.
    pub(in crate::kv) numbers: [u8; MOST_CENTROIDS],
    /// What a step is.
    pub(in crate::kv) step: f32,
    pub(in crate::kv) bits: usize,
}

impl Book {
    /// None where bytes do not serve: a centroid of eight bits needs more, and a row of two scales no longer has one
    /// factor for its sum.
    pub(in crate::kv::codec) fn of(bits: TqBits, codec: &RowCodec) -> Option<Self> {
        let centroids = &codebook(bits).centroids;
        if centroids.len() > MOST_CENTROIDS || codec.groups() != 1 {
            return None;
        }
        let step = best_step(centroids);
        let mut numbers = [128; MOST_CENTROIDS];
        for (number, centroid) in numbers.iter_mut().zip(centroids) {
            *number = (on_grid(*centroid, step) + 128.0) as u8;
        }
        Some(Self {
            numbers,
            step,
            bits: bits.get(),
        })
    }
}

/// How many steps a centroid is.
fn on_grid(centroid: f32, step: f32) -> f32 {
    (centroid / step).round().clamp(-127.0, 127.0)
}

/// The step that loses least, among those that reach the largest centroid with 96 to 127 of them: with few centroids
/// some step nearly divides them all.
fn best_step(centroids: &[f32]) -> f32 {
    let largest = centroids.iter().fold(0f32, |most, c| most.max(c.abs()));
    let lost = |step: f32| -> f32 {
        // Numbers near a centroid are as frequent as the normal distribution has them.
        let each = centroids.iter().map(|c| {
            let off = c - step * on_grid(*c, step);
            off * off * (-c * c / 2.0).exp()
        });
        each.sum()
    };
    let steps = (0..=248).map(|eighth| largest / (127.0 - eighth as f32 / 8.0));
    steps
        .min_by(|a, b| lost(*a).total_cmp(&lost(*b)))
        .unwrap_or(1.0)
}

/// A tile of codes.
#[derive(Clone, Copy)]
pub(in crate::kv) struct Codes<'a> {
    pub(in crate::kv) book: &'a Book,
    pub(in crate::kv) rows: Rows,
    pub(in crate::kv) head_dim: usize,
    /// The rows that are decoded next, as far apart as these: they come from memory while this tile is worked on. It is
    /// passed too quickly and in too short runs for the machine to see them coming.
    pub(in crate::kv) next: *const u8,
}

/// Asks for `count` rows of the next tile from one on.
#[inline(always)]
pub(in crate::kv) fn fetch<S: Bytes>(s: S, args: Codes<'_>, first: usize, count: usize) {
    let stride = args.rows.stride;
    for at in (first * stride..(first + count) * stride).step_by(64) {
        s.prefetch(args.next.wrapping_add(at));
    }
}

byte_entries! {
    /// Decodes keys to panels of sixteen positions, `[head_dim / 4][16][4]` bytes each, numbers in the order of
    /// [`key_order`]. Positions past the count repeat the last one.
    ///
    /// # Safety
    /// The rows lie in readable memory, and `out` has room for the panels.
    pub(in crate::kv) unsafe fn key_bytes(args: Codes<'_>, out: *mut u8) = decode_keys
}

#[inline(always)]
unsafe fn decode_keys<S: Bytes>(s: S, args: Codes<'_>, out: *mut u8) {
    // SAFETY: the caller's rows, and room for what is decoded.
    unsafe {
        match args.book.bits {
            2 => key_panels::<S, 2>(s, args, out),
            3 => key_panels::<S, 3>(s, args, out),
            4 => key_panels::<S, 4>(s, args, out),
            5 => key_panels::<S, 5>(s, args, out),
            _ => key_panels::<S, 6>(s, args, out),
        }
    }
}

#[inline(always)]
unsafe fn key_panels<S: Bytes, const BITS: usize>(s: S, args: Codes<'_>, out: *mut u8) {
    let Codes { rows, head_dim, .. } = args;
    // SAFETY: the caller's rows; rows stay below the count.
    unsafe {
        let table = s.table(&args.book.numbers);
        for first in (0..rows.count).step_by(LANES) {
            fetch(s, args, first, LANES);
            let mut panel = BytePanel {
                simd: s,
                table,
                out: out.add(first * head_dim),
            };
            each_word::<S, BITS, _>(s, rows, first, head_dim, &mut panel);
        }
    }
}

/// A panel of decoded bytes.
struct BytePanel<S: Bytes> {
    simd: S,
    table: [S::B; 4],
    out: *mut u8,
}

impl<S: Bytes, const BITS: usize> Words<S, BITS> for BytePanel<S> {
    #[inline(always)]
    unsafe fn word(&mut self, word: usize, low: S::I, high: (S::I, usize)) {
        let s = self.simd;
        let per_byte = 8 / Planes::of::<BITS>(0).low;
        for at in 0..per_byte {
            // SAFETY: the panel has these words.
            unsafe {
                let numbers = s.numbers_of_word::<BITS>(&self.table, at, low, high);
                s.store_b(self.out.add(64 * (word * per_byte + at)), numbers);
            }
        }
    }
}

/// The order of a query's numbers, sixteen by sixteen, in which key panels have them: those at the same place of four
/// bytes that follow each other stand together.
pub(in crate::kv) fn key_order(bits: usize) -> [i32; 16] {
    let per_byte = if bits < 4 { 4 } else { 2 };
    let mut order = [0; 16];
    for (i, order) in order.iter_mut().enumerate() {
        let (word, place, byte) = (i / 4 / per_byte, i / 4 % per_byte, i % 4);
        *order = (word * 4 * per_byte + byte * per_byte + place) as i32;
    }
    order
}

byte_entries! {
    /// Decodes values to `[positions / 4][wide][4]` bytes, numbers at the places of [`value_places`]. Positions past the
    /// count repeat the last one.
    ///
    /// # Safety
    /// As for [`key_bytes`].
    pub(in crate::kv) unsafe fn value_bytes(args: Codes<'_>, out: *mut u8) = decode_values
}

#[inline(always)]
unsafe fn decode_values<S: Bytes>(s: S, args: Codes<'_>, out: *mut u8) {
    // SAFETY: the caller's rows, and room for what is decoded.
    unsafe {
        match args.book.bits {
            2 => value_quads::<S, 2>(s, args, out),
            3 => value_quads::<S, 3>(s, args, out),
            4 if args.head_dim.is_multiple_of(128) => wide_value_nibbles(s, args, out),
            4 if args.head_dim == 64 => value_nibbles(s, args, out),
            4 => value_quads::<S, 4>(s, args, out),
            5 => value_quads::<S, 5>(s, args, out),
            _ => value_quads::<S, 6>(s, args, out),
        }
    }
}

#[inline(always)]
unsafe fn value_quads<S: Bytes, const BITS: usize>(s: S, args: Codes<'_>, out: *mut u8) {
    let Codes { rows, head_dim, .. } = args;
    let high_at = Planes::of::<BITS>(head_dim).high_at;
    // SAFETY: the caller's rows; rows stay below the count.
    unsafe {
        let table = s.table(&args.book.numbers);
        let mut out = out;
        for first in (0..rows.count).step_by(4) {
            fetch(s, args, first, 4);
            for dim in (0..head_dim).step_by(64) {
                let mut bytes = [table[0]; 4];
                for (i, bytes) in bytes.iter_mut().enumerate() {
                    let row = (first + i).min(rows.count - 1);
                    let row = rows.codes.add(row * rows.stride);
                    *bytes = s.numbers::<BITS>(&table, (row, high_at), dim, head_dim - dim);
                }
                for bytes in s.interleave(bytes) {
                    s.store_b(out, bytes);
                    out = out.add(64);
                }
            }
        }
    }
}

/// As [`value_quads`] for four bits and rows of whole vectors of codes: what is interleaved is codes rather than bytes.
#[inline(always)]
unsafe fn wide_value_nibbles<S: Bytes>(s: S, args: Codes<'_>, out: *mut u8) {
    let Codes { rows, head_dim, .. } = args;
    // SAFETY: the caller's rows; rows stay below the count.
    unsafe {
        let table = s.table(&args.book.numbers);
        let mut out = out;
        for first in (0..rows.count).step_by(4) {
            fetch(s, args, first, 4);
            let row = |i: usize| (first + i).min(rows.count - 1) * rows.stride;
            let starts = [row(0), row(1), row(2), row(3)];
            for at in (0..head_dim / 2).step_by(64) {
                let rows = [
                    rows.codes.add(starts[0] + at),
                    rows.codes.add(starts[1] + at),
                    rows.codes.add(starts[2] + at),
                    rows.codes.add(starts[3] + at),
                ];
                s.wide_nibbles(&table, rows, out);
                out = out.add(512);
            }
        }
    }
}

/// As [`wide_value_nibbles`] for rows of half a vector: two fours of positions at once.
#[inline(always)]
unsafe fn value_nibbles<S: Bytes>(s: S, args: Codes<'_>, out: *mut u8) {
    let Codes { rows, .. } = args;
    // SAFETY: the caller's rows; rows stay below the count. The output has room for an even number of fours of positions.
    unsafe {
        let table = s.table(&args.book.numbers);
        let mut out = out;
        for first in (0..rows.count).step_by(8) {
            fetch(s, args, first, 8);
            let row = |i: usize| {
                let row = (first + i).min(rows.count - 1);
                rows.codes.wrapping_add(row * rows.stride)
            };
            let first = [row(0), row(1), row(2), row(3)];
            let second = [row(4), row(5), row(6), row(7)];
            s.half_nibbles(&table, [first, second], out);
            out = out.add(512);
        }
    }
}

/// Where in the sums over values each number of a head is.
pub(in crate::kv) fn value_places(bits: usize, head_dim: usize) -> Vec<i32> {
    let place = |dim: usize| {
        // Word 4·l + k of vector m of what four vectors interleave to is of their byte 16·l + 4·m + k.
        let of_byte = |byte: usize| (byte % 16 / 4, 4 * (byte / 16) + byte % 4);
        match bits {
            4 if head_dim.is_multiple_of(128) => {
                let (vector, word) = of_byte(dim % 128 / 2);
                128 * (dim / 128) + 16 * (2 * vector + dim % 2) + word
            }
            4 if head_dim == 64 => {
                // Two halves are one vector.
                let (vector, word) = of_byte(dim / 2);
                16 * (2 * (vector / 2) + dim % 2) + 8 * (vector % 2) + word
            }
            _ => {
                let (vector, word) = of_byte(dim % 64);
                64 * (dim / 64) + 16 * vector + word
            }
        }
    };
    (0..head_dim).map(|dim| place(dim) as i32).collect()
}
