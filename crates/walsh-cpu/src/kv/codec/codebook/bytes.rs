//! Codes as bytes, for int8 attention: each number becomes its centroid on a grid of 255 steps.

use walsh_formats::codebook::codebook;
use walsh_formats::kv::{RowCodec, TqBits};

use super::planes::{CodeRows, Planes, Words};
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
    pub(in crate::kv) rows: Rows<'a>,
    pub(in crate::kv) head_dim: usize,
    /// The rows that are decoded next, as far apart as these: they come from memory while this tile is worked on. It is
    /// passed too quickly and in too short runs for the machine to see them coming.
    pub(in crate::kv) next: *const u8,
}

/// Asks for `count` rows of the next tile from one on.
#[inline(always)]
pub(in crate::kv) fn fetch<S: Bytes>(s: S, args: Codes<'_>, first: usize, count: usize) {
    let mut line = args.next.wrapping_add(args.rows.distance(first));
    for _ in 0..args.rows.distance(count).div_ceil(64) {
        s.prefetch(line);
        line = line.wrapping_add(64);
    }
}

byte_entries! {
    /// Decodes keys to panels of sixteen positions, `[head_dim / 4][16][4]` bytes each, numbers in the order of
    /// [`key_order`]. Positions past the count repeat the last one.
    pub(in crate::kv) fn key_bytes(args: Codes<'_>, out: &mut [u8]) = decode_keys
}

#[inline(always)]
fn decode_keys<S: Bytes>(s: S, args: Codes<'_>, out: &mut [u8]) {
    match args.book.bits {
        2 => key_panels::<S, 2>(s, args, out),
        3 => key_panels::<S, 3>(s, args, out),
        4 => key_panels::<S, 4>(s, args, out),
        5 => key_panels::<S, 5>(s, args, out),
        _ => key_panels::<S, 6>(s, args, out),
    }
}

#[inline(always)]
fn key_panels<S: Bytes, const BITS: usize>(s: S, args: Codes<'_>, out: &mut [u8]) {
    let Codes { rows, head_dim, .. } = args;
    let table = s.table(&args.book.numbers);
    let panel_bytes = LANES * head_dim;
    let bytes = rows.count().div_ceil(LANES) * panel_bytes;
    let panels = out[..bytes].chunks_exact_mut(panel_bytes);
    let codes = CodeRows::<BITS>::new(rows, head_dim);
    for (first, out) in (0..rows.count()).step_by(LANES).zip(panels) {
        fetch(s, args, first, LANES);
        let mut panel = BytePanel {
            simd: s,
            table,
            out: out.as_chunks_mut().0,
        };
        codes.each_word(s, first, &mut panel);
    }
}

/// A panel of decoded bytes.
struct BytePanel<'a, S: Bytes> {
    simd: S,
    table: [S::B; 4],
    out: &'a mut [[u8; 64]],
}

impl<S: Bytes, const BITS: usize> Words<S, BITS> for BytePanel<'_, S> {
    #[inline(always)]
    unsafe fn word(&mut self, word: usize, low: S::I, high: (S::I, usize)) {
        let s = self.simd;
        let per_byte = 8 / Planes::of::<BITS>(0).low;
        let out = &mut self.out[word * per_byte..][..per_byte];
        for (at, out) in out.iter_mut().enumerate() {
            let numbers = s.numbers_of_word::<BITS>(&self.table, at, low, high);
            s.write_b(out, numbers);
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
    pub(in crate::kv) fn value_bytes(args: Codes<'_>, out: &mut [u8]) = decode_values
}

#[inline(always)]
fn decode_values<S: Bytes>(s: S, args: Codes<'_>, out: &mut [u8]) {
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

/// The first positions of groups of so many, and where each group's bytes go.
fn groups<const N: usize>(
    count: usize,
    bytes: usize,
    out: &mut [u8],
) -> impl Iterator<Item = (usize, &mut [u8])> {
    let out = out[..count.div_ceil(N) * bytes].chunks_exact_mut(bytes);
    (0..count).step_by(N).zip(out)
}

#[inline(always)]
fn value_quads<S: Bytes, const BITS: usize>(s: S, args: Codes<'_>, out: &mut [u8]) {
    let Codes { rows, head_dim, .. } = args;
    let high_at = Planes::of::<BITS>(head_dim).high_at;
    let table = s.table(&args.book.numbers);
    let codes = rows.of::<u8>(head_dim * BITS / 8);
    let bytes = 4 * head_dim.next_multiple_of(64);
    for (first, out) in groups::<4>(rows.count(), bytes, out) {
        fetch(s, args, first, 4);
        let mut rows = [codes.row(first).as_ptr(); 4];
        for (i, row) in rows.iter_mut().enumerate() {
            *row = codes.row_or_last(first + i).as_ptr();
        }
        let vectors = out.as_chunks_mut::<64>().0.as_chunks_mut::<4>().0;
        for (dim, out) in (0..head_dim).step_by(64).zip(vectors) {
            let mut bytes = [table[0]; 4];
            for (bytes, row) in bytes.iter_mut().zip(rows) {
                // SAFETY: a row has the codes of `head_dim` numbers, as measured, and what is left of them is said.
                *bytes = unsafe { s.numbers::<BITS>(&table, (row, high_at), dim, head_dim - dim) };
            }
            for (bytes, out) in s.interleave(bytes).into_iter().zip(out) {
                s.write_b(out, bytes);
            }
        }
    }
}

/// As [`value_quads`] for four bits and rows of whole vectors of codes: what is interleaved is codes rather than bytes.
#[inline(always)]
fn wide_value_nibbles<S: Bytes>(s: S, args: Codes<'_>, out: &mut [u8]) {
    let Codes { rows, head_dim, .. } = args;
    let table = s.table(&args.book.numbers);
    let codes = rows.of::<[u8; 64]>(head_dim / 128);
    for (first, out) in groups::<4>(rows.count(), 4 * head_dim, out) {
        fetch(s, args, first, 4);
        let row = |i: usize| codes.row_or_last(first + i);
        let rows = [row(0), row(1), row(2), row(3)];
        for (at, out) in out.as_chunks_mut().0.iter_mut().enumerate() {
            s.wide_nibbles(
                &table,
                [&rows[0][at], &rows[1][at], &rows[2][at], &rows[3][at]],
                out,
            );
        }
    }
}

/// As [`wide_value_nibbles`] for rows of half a vector: two fours of positions at once, for which the output has room.
#[inline(always)]
fn value_nibbles<S: Bytes>(s: S, args: Codes<'_>, out: &mut [u8]) {
    let Codes { rows, .. } = args;
    let table = s.table(&args.book.numbers);
    let codes = rows.of::<[u8; 32]>(1);
    for (first, out) in groups::<8>(rows.count(), 512, out) {
        fetch(s, args, first, 8);
        let row = |i: usize| &codes.row_or_last(first + i)[0];
        let rows = [
            [row(0), row(1), row(2), row(3)],
            [row(4), row(5), row(6), row(7)],
        ];
        for out in out.as_chunks_mut().0 {
            s.half_nibbles(&table, rows, out);
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
