//! The inner loops: codes to bytes, products of bytes, weights as integers.

use super::Book;
use super::set::ByteLanes;
use crate::attention::kernels::{Running, Weigh, weigh_row};
use crate::attention::tile::{LANES, Planes, Rows};
use crate::isa::Isa;

/// The largest integer that a number becomes: 127 · 256 and no more, so that the high byte is a signed one.
const LARGEST: f32 = 32_512.0;

/// What turns sums of products with integers back into numbers.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Integers {
    /// What one of the integers stands for.
    pub(super) factor: f32,
    /// 128 times their sum, which the other side's unsigned bytes add to every product.
    pub(super) excess: i32,
}

/// Defines the entry of a function that is generic over [`ByteLanes`].
macro_rules! entries {
    ($(#[$doc:meta])* fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? = $body:path) => {
        $(#[$doc])*
        pub(super) unsafe fn $name(isa: Isa, $($arg: $ty),*) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
            unsafe fn avx512($($arg: $ty),*) $(-> $ret)? {
                use $body as body;
                // SAFETY: the caller's.
                unsafe { body::<crate::lanes::Avx512>($($arg),*) }
            }

            match isa {
                // SAFETY: a device is opened only for a set that the machine has; the rest is the caller's.
                #[cfg(target_arch = "x86_64")]
                Isa::Avx512 => unsafe { avx512($($arg),*) },
                _ => unreachable!("attention over codes on {isa} is in f32"),
            }
        }
    };
}

entries! {
    /// Writes a row as integers: high bytes at `out`, low bytes `d` behind.
    ///
    /// # Safety
    /// The row has `d` numbers, a multiple of 16, and `out` has room for twice as many bytes.
    fn integers(row: *const f32, out: *mut i8, d: usize) -> Integers = integer_row
}

/// See [`integers`]. A row that is not finite has no integers: its factor is NaN, which reaches every score.
#[inline(always)]
unsafe fn integer_row<S: ByteLanes>(row: *const f32, out: *mut i8, d: usize) -> Integers {
    // SAFETY: the caller's.
    unsafe {
        let (mut largest, mut zeros) = (S::splat(0.0), S::splat(0.0));
        for at in (0..d).step_by(LANES) {
            let numbers = S::load(row.add(at));
            largest = S::max(largest, S::abs(numbers));
            zeros = S::add(zeros, S::mul(numbers, S::splat(0.0)));
        }
        let largest = S::reduce_max(largest);
        let broken = S::reduce_add(zeros) != 0.0 || !largest.is_finite();
        // Below this no inverse is finite; what such a query adds to a score is nothing.
        let inverse = if broken || largest < 1e-30 {
            0.0
        } else {
            LARGEST / largest
        };
        let mut sum = S::splat_i(0);
        for at in (0..d).step_by(LANES) {
            let scaled = S::mul(S::load(row.add(at)), S::splat(inverse));
            sum = S::add_i(sum, S::split(scaled, out.add(at), out.add(d + at)));
        }
        Integers {
            factor: if broken { f32::NAN } else { largest / LARGEST },
            excess: 128 * S::reduce_add_i(sum),
        }
    }
}

/// A tile of codes to decode.
#[derive(Clone, Copy)]
pub(super) struct Bytes<'a> {
    pub(super) book: &'a Book,
    pub(super) rows: Rows,
    pub(super) head_dim: usize,
    pub(super) out: *mut u8,
    /// The rows that are decoded next, as far apart as these: they come from memory while this tile is worked on. It is
    /// passed too quickly and in too short runs for the machine to see them coming.
    pub(super) next: *const u8,
}

/// Asks for `count` rows of the next tile from one on.
#[inline(always)]
unsafe fn fetch<S: ByteLanes>(args: Bytes<'_>, first: usize, count: usize) {
    let stride = args.rows.stride;
    for at in (first * stride..(first + count) * stride).step_by(64) {
        // SAFETY: the caller's.
        unsafe { S::prefetch(args.next.wrapping_add(at)) };
    }
}

entries! {
    /// Decodes keys to panels of sixteen positions, `[head_dim / 4][16][4]` bytes each. Positions past the count repeat
    /// the last one.
    ///
    /// # Safety
    /// The rows lie in readable memory, and `out` has room for the panels.
    fn key_bytes(args: Bytes<'_>) = decode_keys
}

#[inline(always)]
unsafe fn decode_keys<S: ByteLanes>(args: Bytes<'_>) {
    // SAFETY: the caller's.
    unsafe {
        match args.book.bits {
            2 => key_panels::<S, 2>(args),
            3 => key_panels::<S, 3>(args),
            4 => key_panels::<S, 4>(args),
            5 => key_panels::<S, 5>(args),
            _ => key_panels::<S, 6>(args),
        }
    }
}

#[inline(always)]
unsafe fn key_panels<S: ByteLanes, const BITS: usize>(args: Bytes<'_>) {
    let Bytes { rows, head_dim, .. } = args;
    let high_at = Planes::of::<BITS>(head_dim).high_at;
    // SAFETY: the caller's; rows stay below the count.
    unsafe {
        let table = S::table(&args.book.numbers);
        for first in (0..rows.count).step_by(LANES) {
            let panel = args.out.add(first * head_dim);
            fetch::<S>(args, first, LANES);
            for dim in (0..head_dim).step_by(64) {
                let mut bytes = [table[0]; LANES];
                for (i, bytes) in bytes.iter_mut().enumerate() {
                    let row = (first + i).min(rows.count - 1);
                    let row = rows.codes.add(row * rows.stride);
                    *bytes = S::numbers::<BITS>(&table, (row, high_at), dim, head_dim - dim);
                }
                S::words(&mut bytes);
                let words = (head_dim - dim).min(64) / 4;
                let out = panel.add(dim * LANES);
                if words == LANES {
                    for (word, bytes) in bytes.iter().enumerate() {
                        S::store_b(out.add(64 * word), *bytes);
                    }
                } else {
                    for (word, bytes) in bytes[..words].iter().enumerate() {
                        S::store_b(out.add(64 * word), *bytes);
                    }
                }
            }
        }
    }
}

entries! {
    /// Decodes values to `[positions / 4][head_dim / 64 rounded up][64][4]` bytes, the places of each 64 in the order
    /// of [`ByteLanes::interleave`]. Positions past the count repeat the last one.
    ///
    /// # Safety
    /// As for [`key_bytes`].
    fn value_bytes(args: Bytes<'_>) = decode_values
}

#[inline(always)]
unsafe fn decode_values<S: ByteLanes>(args: Bytes<'_>) {
    // SAFETY: the caller's.
    unsafe {
        match args.book.bits {
            2 => value_quads::<S, 2>(args),
            3 => value_quads::<S, 3>(args),
            4 => value_quads::<S, 4>(args),
            5 => value_quads::<S, 5>(args),
            _ => value_quads::<S, 6>(args),
        }
    }
}

#[inline(always)]
unsafe fn value_quads<S: ByteLanes, const BITS: usize>(args: Bytes<'_>) {
    let Bytes { rows, head_dim, .. } = args;
    let high_at = Planes::of::<BITS>(head_dim).high_at;
    // SAFETY: the caller's; rows stay below the count.
    unsafe {
        let table = S::table(&args.book.numbers);
        let mut out = args.out;
        for first in (0..rows.count).step_by(4) {
            fetch::<S>(args, first, 4);
            for dim in (0..head_dim).step_by(64) {
                let mut bytes = [table[0]; 4];
                for (i, bytes) in bytes.iter_mut().enumerate() {
                    let row = (first + i).min(rows.count - 1);
                    let row = rows.codes.add(row * rows.stride);
                    *bytes = S::numbers::<BITS>(&table, (row, high_at), dim, head_dim - dim);
                }
                for bytes in S::interleave(bytes) {
                    S::store_b(out, bytes);
                    out = out.add(64);
                }
            }
        }
    }
}

/// Query rows against key panels.
#[derive(Clone, Copy)]
pub(super) struct Dots {
    /// `[rows][2][head_dim]`.
    pub(super) queries: *const i8,
    pub(super) terms: *const Integers,
    /// `[panels][head_dim / 4][16][4]`.
    pub(super) panels: *const u8,
    pub(super) panel_count: usize,
    /// `[rows][stride]`.
    pub(super) out: *mut f32,
    pub(super) stride: usize,
    pub(super) rows: usize,
    pub(super) head_dim: usize,
}

entries! {
    /// Writes the inner product of every query row and every position of the panels.
    ///
    /// # Safety
    /// The pointers hold what their fields say.
    fn scores(args: Dots) = score_rows
}

#[inline(always)]
unsafe fn score_rows<S: ByteLanes>(args: Dots) {
    let mut row = 0;
    while row < args.rows {
        // Five rows are three and two rather than four and one.
        let left = args.rows - row;
        let rows = if left == 5 { 3 } else { left.min(4) };
        let mut panel = 0;
        while panel < args.panel_count {
            let left = args.panel_count - panel;
            // SAFETY: rows and panels within the counts.
            let done = unsafe {
                match (rows, left) {
                    (1, 4..) => score_block::<S, 1, 4>(args, row, panel),
                    (2, 4..) => score_block::<S, 2, 4>(args, row, panel),
                    (3, 2..) => score_block::<S, 3, 2>(args, row, panel),
                    (4, 2..) => score_block::<S, 4, 2>(args, row, panel),
                    (1, _) => score_block::<S, 1, 1>(args, row, panel),
                    (2, _) => score_block::<S, 2, 1>(args, row, panel),
                    (3, _) => score_block::<S, 3, 1>(args, row, panel),
                    (_, _) => score_block::<S, 4, 1>(args, row, panel),
                }
            };
            panel += done;
        }
        row += rows;
    }
}

#[inline(always)]
unsafe fn score_block<S: ByteLanes, const R: usize, const C: usize>(
    args: Dots,
    row: usize,
    panel: usize,
) -> usize {
    let d = args.head_dim;
    // SAFETY: the caller's.
    unsafe {
        let queries = args.queries.add(2 * row * d);
        let panels = args.panels.add(panel * d * LANES);
        let mut sums = [[[S::splat_i(0); 2]; C]; R];
        for dim in (0..d).step_by(4) {
            let mut keys = [S::load_b(panels.add(dim * LANES)); C];
            for c in 1..C {
                keys[c] = S::load_b(panels.add((c * d + dim) * LANES));
            }
            for r in 0..R {
                let query = queries.add(2 * r * d + dim);
                for c in 0..C {
                    sums[r][c][0] = S::dot(sums[r][c][0], keys[c], query);
                    sums[r][c][1] = S::dot(sums[r][c][1], keys[c], query.add(d));
                }
            }
        }
        for r in 0..R {
            let terms = *args.terms.add(row + r);
            for c in 0..C {
                let sum = S::join(sums[r][c][0], sums[r][c][1], terms.excess);
                let out = args.out.add((row + r) * args.stride + (panel + c) * LANES);
                S::store(out, S::mul(sum, S::splat(terms.factor)));
            }
        }
    }
    C
}

/// What a row's scores become weights with.
#[derive(Clone, Copy)]
pub(super) struct Weights {
    pub(super) weigh: Weigh,
    /// The high bytes of the weights.
    pub(super) bytes: *mut i8,
    /// How far behind them the low bytes lie.
    pub(super) low: usize,
}

entries! {
    /// Turns a row's scores into weights relative to the new maximum, and those into integers relative to the largest of
    /// the tile; returns what earlier sums must be multiplied by, and what the integers stand for.
    ///
    /// # Safety
    /// As for [`scores`].
    fn weights(args: Weights, running: &mut Running) -> (f32, Integers) = weight_row
}

#[inline(always)]
unsafe fn weight_row<S: ByteLanes>(args: Weights, running: &mut Running) -> (f32, Integers) {
    let scores = args.weigh.scores;
    let vectors = args.weigh.count.div_ceil(LANES);
    // SAFETY: the caller's.
    unsafe {
        let alpha = if args.weigh.first >= args.weigh.end {
            for v in 0..vectors {
                S::store(scores.add(v * LANES), S::splat(0.0));
            }
            1.0
        } else {
            weigh_row::<S>(args.weigh, running)
        };
        let mut largest = S::splat(0.0);
        for v in 0..vectors {
            largest = S::max(largest, S::load(scores.add(v * LANES)));
        }
        let largest = S::reduce_max(largest);
        let inverse = if largest < 1e-30 {
            0.0
        } else {
            LARGEST / largest
        };
        let mut sum = S::splat_i(0);
        for v in 0..vectors {
            let scaled = S::mul(S::load(scores.add(v * LANES)), S::splat(inverse));
            let at = args.bytes.add(v * LANES);
            sum = S::add_i(sum, S::split(scaled, at, at.add(args.low)));
        }
        let terms = Integers {
            factor: largest / LARGEST,
            excess: 128 * S::reduce_add_i(sum),
        };
        (alpha, terms)
    }
}

/// Weights against the bytes of values.
#[derive(Clone, Copy)]
pub(super) struct Sums {
    /// `[rows][2][stride]`.
    pub(super) weights: *const i8,
    pub(super) terms: *const Integers,
    /// What each row of `out` is multiplied by before.
    pub(super) alphas: *const f32,
    /// `[quads][wide][4]`.
    pub(super) values: *const u8,
    /// Fours of positions.
    pub(super) quads: usize,
    pub(super) stride: usize,
    /// `[rows][wide]`.
    pub(super) out: *mut f32,
    pub(super) rows: usize,
    pub(super) wide: usize,
}

entries! {
    /// `out = alpha · out + weights · values`.
    ///
    /// # Safety
    /// As for [`scores`].
    fn values(args: Sums) = value_rows
}

#[inline(always)]
unsafe fn value_rows<S: ByteLanes>(args: Sums) {
    let mut row = 0;
    while row < args.rows {
        let left = args.rows - row;
        let rows = if left == 5 { 3 } else { left.min(4) };
        let mut vector = 0;
        while vector < args.wide / LANES {
            // SAFETY: rows and vectors within the counts, which are multiples of four.
            let done = unsafe {
                match rows {
                    1 => value_block::<S, 1, 4>(args, row, vector),
                    2 => value_block::<S, 2, 4>(args, row, vector),
                    3 => value_block::<S, 3, 4>(args, row, vector),
                    _ => value_block::<S, 4, 2>(args, row, vector),
                }
            };
            vector += done;
        }
        row += rows;
    }
}

#[inline(always)]
unsafe fn value_block<S: ByteLanes, const R: usize, const C: usize>(
    args: Sums,
    row: usize,
    vector: usize,
) -> usize {
    // SAFETY: the caller's.
    unsafe {
        let weights = args.weights.add(2 * row * args.stride);
        let values = args.values.add(vector * 64);
        let mut sums = [[[S::splat_i(0); 2]; C]; R];
        for quad in 0..args.quads {
            let value = values.add(quad * args.wide * 4);
            let mut bytes = [S::load_b(value); C];
            for c in 1..C {
                bytes[c] = S::load_b(value.add(64 * c));
            }
            for r in 0..R {
                let weight = weights.add(2 * r * args.stride + 4 * quad);
                for c in 0..C {
                    sums[r][c][0] = S::dot(sums[r][c][0], bytes[c], weight);
                    sums[r][c][1] = S::dot(sums[r][c][1], bytes[c], weight.add(args.stride));
                }
            }
        }
        for r in 0..R {
            let terms = *args.terms.add(row + r);
            let alpha = S::splat(*args.alphas.add(row + r));
            for c in 0..C {
                let out = args.out.add((row + r) * args.wide + (vector + c) * LANES);
                let sum = S::join(sums[r][c][0], sums[r][c][1], terms.excess);
                let before = S::mul(alpha, S::load(out));
                S::store(out, S::fma(sum, S::splat(terms.factor), before));
            }
        }
    }
    C
}

/// Sums in the order of the values' bytes, and the sums of other zones.
#[derive(Clone, Copy)]
pub(super) struct Collect {
    pub(super) sums: *const f32,
    pub(super) carried: f32,
    pub(super) out: *mut f32,
    pub(super) head_dim: usize,
}

entries! {
    /// `out = carried · out + sums`, in the model's order.
    ///
    /// # Safety
    /// As for [`scores`].
    fn collect(args: Collect) = collect_row
}

#[inline(always)]
unsafe fn collect_row<S: ByteLanes>(args: Collect) {
    for place in (0..args.head_dim).step_by(4) {
        // Four places that follow each other are four words that do.
        let (chunk, l, j) = (place / 64, place % 64 / 16, place % 16 / 4);
        for k in 0..4 {
            // SAFETY: the caller's.
            unsafe {
                let out = args.out.add(place + k);
                *out = *out * args.carried + *args.sums.add(64 * chunk + 16 * j + 4 * l + k);
            }
        }
    }
}
