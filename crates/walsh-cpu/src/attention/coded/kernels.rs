//! The inner loops over bytes: products, and weights as integers.

use crate::attention::kernels::{Running, Weigh, weigh_row};
use crate::attention::tile::LANES;
use crate::isa::Isa;
use crate::simd::Bytes;

/// The largest integer that a number becomes: 127 · 256 and no more, so that its high byte is a signed one where a set
/// multiplies bytes.
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

/// Defines the entry of a function that is generic over [`Bytes`].
macro_rules! entries {
    ($(#[$doc:meta])* fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? = $body:path) => {
        $(#[$doc])*
        #[cfg_attr(not(target_arch = "x86_64"), expect(unused_variables))]
        pub(super) unsafe fn $name(isa: Isa, $($arg: $ty),*) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c")]
            unsafe fn avx2($($arg: $ty),*) $(-> $ret)? {
                use $body as body;
                // SAFETY: the caller's.
                unsafe { body::<crate::simd::Avx2>($($arg),*) }
            }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
            unsafe fn avx512($($arg: $ty),*) $(-> $ret)? {
                use $body as body;
                // SAFETY: the caller's.
                unsafe { body::<crate::simd::Avx512>($($arg),*) }
            }

            match isa.base() {
                // SAFETY: a device is opened only for a set that the machine has; the rest is the caller's.
                #[cfg(target_arch = "x86_64")]
                Isa::Avx2 => unsafe { avx2($($arg),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                Isa::Avx512 => unsafe { avx512($($arg),*) },
                _ => unreachable!("attention over codes on {isa} is in f32"),
            }
        }
    };
}

entries! {
    /// Writes a row as integers, each sixteen in an order: their first parts at `out`, the second `d` bytes behind.
    ///
    /// # Safety
    /// The row has `d` numbers, a multiple of 16, and `out` has room for twice as many bytes.
    fn integers(row: *const f32, out: *mut i8, d: usize, order: &[i32; 16]) -> Integers = integer_row
}

/// See [`integers`]. A row that is not finite has no integers: its factor is NaN, which reaches every score.
#[inline(always)]
unsafe fn integer_row<S: Bytes>(
    row: *const f32,
    out: *mut i8,
    d: usize,
    order: &[i32; 16],
) -> Integers {
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
            let numbers = S::permute(S::load(row.add(at)), order);
            let scaled = S::mul(numbers, S::splat(inverse));
            sum = S::add_i(sum, S::split(scaled, out.add(at), out.add(d + at)));
        }
        Integers {
            factor: if broken { f32::NAN } else { largest / LARGEST },
            excess: S::reduce_add_i(sum).wrapping_mul(128),
        }
    }
}

pub(super) use entries;

/// Query rows against keys.
#[derive(Clone, Copy)]
pub(super) struct Dots {
    /// `[rows][2][head_dim]`.
    pub(super) queries: *const i8,
    pub(super) terms: *const Integers,
    /// `[rows][stride]`.
    pub(super) out: *mut f32,
    pub(super) stride: usize,
    pub(super) rows: usize,
    pub(super) head_dim: usize,
}

entries! {
    /// Writes the inner product of every query row and every position of `count` panels, `[head_dim / 4][16][4]` each.
    ///
    /// # Safety
    /// The pointers hold what their fields say.
    fn scores(args: Dots, panels: *const u8, count: usize) = score_rows
}

#[inline(always)]
unsafe fn score_rows<S: Bytes>(args: Dots, panels: *const u8, count: usize) {
    let mut row = 0;
    while row < args.rows {
        // Five rows are three and two rather than four and one.
        let left = args.rows - row;
        let rows = if left == 5 { 3 } else { left.min(4) };
        let mut panel = 0;
        while panel < count {
            let left = count - panel;
            let at = (panels, panel);
            // SAFETY: rows and panels within the counts.
            let done = unsafe {
                match (rows, left) {
                    (1, 4..) if S::WIDE => score_block::<S, 1, 4>(args, row, at),
                    (2, 4..) if S::WIDE => score_block::<S, 2, 4>(args, row, at),
                    (3, 2..) if S::WIDE => score_block::<S, 3, 2>(args, row, at),
                    (4, 2..) if S::WIDE => score_block::<S, 4, 2>(args, row, at),
                    (1, 2..) => score_block::<S, 1, 2>(args, row, at),
                    (2, 2..) => score_block::<S, 2, 2>(args, row, at),
                    (1, _) => score_block::<S, 1, 1>(args, row, at),
                    (2, _) => score_block::<S, 2, 1>(args, row, at),
                    (3, _) => score_block::<S, 3, 1>(args, row, at),
                    (_, _) => score_block::<S, 4, 1>(args, row, at),
                }
            };
            panel += done;
        }
        row += rows;
    }
}

#[inline(always)]
unsafe fn score_block<S: Bytes, const R: usize, const C: usize>(
    args: Dots,
    row: usize,
    (panels, panel): (*const u8, usize),
) -> usize {
    let d = args.head_dim;
    // SAFETY: the caller's.
    unsafe {
        let queries = args.queries.add(2 * row * d);
        let panels = panels.add(panel * d * LANES);
        let mut sums = [[S::nothing(); C]; R];
        for dim in (0..d).step_by(4) {
            let mut keys = [S::load_b(panels.add(dim * LANES)); C];
            for c in 1..C {
                keys[c] = S::load_b(panels.add((c * d + dim) * LANES));
            }
            for r in 0..R {
                let query = queries.add(2 * r * d + dim);
                for c in 0..C {
                    sums[r][c] = S::dot(sums[r][c], keys[c], query, query.add(d));
                }
            }
        }
        for r in 0..R {
            for c in 0..C {
                put_scores::<S>(args, row + r, panel + c, sums[r][c]);
            }
        }
    }
    C
}

/// Writes a row's scores of a panel.
///
/// # Safety
/// As for [`scores`].
#[inline(always)]
pub(super) unsafe fn put_scores<S: Bytes>(args: Dots, row: usize, panel: usize, sums: S::Sums) {
    // SAFETY: the caller's.
    unsafe {
        let terms = *args.terms.add(row);
        let sum = S::number_of(sums, terms.excess);
        let out = args.out.add(row * args.stride + panel * LANES);
        S::store(out, S::mul(sum, S::splat(terms.factor)));
    }
}

/// What a row's scores become weights with.
#[derive(Clone, Copy)]
pub(super) struct Weights {
    pub(super) weigh: Weigh,
    /// The first parts of the weights.
    pub(super) bytes: *mut i8,
    /// How far behind them the second parts lie.
    pub(super) second: usize,
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
unsafe fn weight_row<S: Bytes>(args: Weights, running: &mut Running) -> (f32, Integers) {
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
            sum = S::add_i(sum, S::split(scaled, at, at.add(args.second)));
        }
        let terms = Integers {
            factor: largest / LARGEST,
            excess: S::reduce_add_i(sum).wrapping_mul(128),
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
    /// Fours of positions.
    pub(super) quads: usize,
    pub(super) stride: usize,
    /// `[rows][wide]`.
    pub(super) out: *mut f32,
    pub(super) rows: usize,
    pub(super) wide: usize,
}

entries! {
    /// `out = alpha · out + weights · values`, of `[quads][wide][4]` bytes.
    ///
    /// # Safety
    /// As for [`scores`].
    fn values(args: Sums, values: *const u8) = value_rows
}

#[inline(always)]
unsafe fn value_rows<S: Bytes>(args: Sums, values: *const u8) {
    let mut row = 0;
    while row < args.rows {
        let left = args.rows - row;
        let rows = if left == 5 { 3 } else { left.min(4) };
        let mut vector = 0;
        while vector < args.wide / LANES {
            let at = (values, vector);
            // SAFETY: rows and vectors within the counts, which are multiples of four.
            let done = unsafe {
                match rows {
                    1 if S::WIDE => value_block::<S, 1, 4>(args, row, at),
                    2 if S::WIDE => value_block::<S, 2, 4>(args, row, at),
                    3 if S::WIDE => value_block::<S, 3, 4>(args, row, at),
                    4 if S::WIDE => value_block::<S, 4, 2>(args, row, at),
                    1 => value_block::<S, 1, 2>(args, row, at),
                    2 => value_block::<S, 2, 2>(args, row, at),
                    3 => value_block::<S, 3, 1>(args, row, at),
                    _ => value_block::<S, 4, 1>(args, row, at),
                }
            };
            vector += done;
        }
        row += rows;
    }
}

#[inline(always)]
unsafe fn value_block<S: Bytes, const R: usize, const C: usize>(
    args: Sums,
    row: usize,
    (values, vector): (*const u8, usize),
) -> usize {
    // SAFETY: the caller's.
    unsafe {
        let weights = args.weights.add(2 * row * args.stride);
        let values = values.add(vector * 64);
        let mut sums = [[S::nothing(); C]; R];
        for quad in 0..args.quads {
            let value = values.add(quad * args.wide * 4);
            let mut bytes = [S::load_b(value); C];
            for c in 1..C {
                bytes[c] = S::load_b(value.add(64 * c));
            }
            for r in 0..R {
                let weight = weights.add(2 * r * args.stride + 4 * quad);
                for c in 0..C {
                    sums[r][c] = S::dot(sums[r][c], bytes[c], weight, weight.add(args.stride));
                }
            }
        }
        for r in 0..R {
            for c in 0..C {
                add_sums::<S>(args, row + r, vector + c, sums[r][c]);
            }
        }
    }
    C
}

/// Adds a tile's sums of a row.
///
/// # Safety
/// As for [`scores`].
#[inline(always)]
pub(super) unsafe fn add_sums<S: Bytes>(args: Sums, row: usize, vector: usize, sums: S::Sums) {
    // SAFETY: the caller's.
    unsafe {
        let terms = *args.terms.add(row);
        let out = args.out.add(row * args.wide + vector * LANES);
        let sum = S::number_of(sums, terms.excess);
        let before = S::mul(S::splat(*args.alphas.add(row)), S::load(out));
        S::store(out, S::fma(sum, S::splat(terms.factor), before));
    }
}

/// Sums in the order of the values' bytes, and the sums of other zones.
#[derive(Clone, Copy)]
pub(super) struct Collect<'a> {
    pub(super) sums: *const f32,
    /// Where the sum of each number is.
    pub(super) places: &'a [i32],
    pub(super) carried: f32,
    pub(super) out: *mut f32,
}

entries! {
    /// `out = carried · out + sums`, in the model's order.
    ///
    /// # Safety
    /// As for [`scores`].
    fn collect(args: Collect<'_>) = collect_row
}

#[inline(always)]
unsafe fn collect_row<S: Bytes>(args: Collect<'_>) {
    for at in (0..args.places.len()).step_by(LANES) {
        // SAFETY: the caller's; head sizes are multiples of 16.
        unsafe {
            let out = args.out.add(at);
            let sums = S::gather(args.sums, args.places.as_ptr().add(at));
            S::store(out, S::fma(S::load(out), S::splat(args.carried), sums));
        }
    }
}
