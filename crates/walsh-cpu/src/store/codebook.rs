//! Codebook codecs with least-squares scales.
//!
//! Codebooks are symmetric: a number's code follows from its sign and from how many positive boundaries lie below its
//! magnitude. So do both sums of a candidate scale, because a number and its centroid have the same sign.

use walsh_formats::codebook::Codebook;
use walsh_formats::kv::{self, lane_sum};

use crate::lanes::{Lanes, Table, table_numbers};

const LANES: usize = 16;
const COUNT: usize = kv::SCALE_CANDIDATES.len();

/// The candidate scales from the largest to the smallest, so that codes rise from one to the next.
const DESCENDING: [usize; COUNT] = [6, 4, 2, 0, 1, 3, 5];

/// The lines that 8-bit codes are guessed by, one for each of equal parts of the magnitudes.
const LINES: usize = 16;

/// A sum of this and a small number is that number rounded to a whole one, which the low bits hold.
const WHOLE: f32 = 1.5 * 8_388_608.0;

/// The tables of a codebook, of magnitudes.
pub(super) struct Tables {
    centroids: Vec<f32>,
    /// The positive boundaries, then infinity.
    boundaries: Vec<f32>,
    guess: Guess,
}

/// How many positive boundaries of 8-bit codes lie below a magnitude, guessed: that number, or one less.
struct Guess {
    /// What magnitudes are cut to, just above the last boundary.
    top: f32,
    /// A magnitude times this is nearest to the number of its line.
    parts: f32,
    /// The lines, near the number of boundaries less a half.
    slopes: Vec<f32>,
    starts: Vec<f32>,
}

impl Tables {
    pub(super) fn of(book: &Codebook) -> Self {
        let half = book.centroids.len() / 2;
        let guess = Guess::of(&book.boundaries[half..]);
        // The search for three bits serves two bits, too: nothing lies above the boundaries that follow.
        let mut boundaries = book.boundaries[half..].to_vec();
        boundaries.resize(half.max(4), f32::INFINITY);
        let mut centroids = book.centroids[half..].to_vec();
        centroids.resize(half.max(4), 0.0);
        Self {
            centroids: table_numbers(&centroids),
            boundaries: table_numbers(&boundaries),
            guess,
        }
    }
}

impl Guess {
    fn of(boundaries: &[f32]) -> Self {
        let last = boundaries[boundaries.len() - 1];
        let top = last * 1.0001;
        let parts = (LINES as f32 - 0.51) / top;
        // A line for each pair of boundaries: j at the j-th, so that the number below is what this is rounded up to.
        let below = |x: f64| {
            let j = boundaries
                .partition_point(|b| f64::from(*b) < x)
                .min(boundaries.len() - 1);
            let low = if j == 0 {
                0.0
            } else {
                f64::from(boundaries[j - 1])
            };
            let high = f64::from(boundaries[j]);
            j as f64 - (high - x) / (high - low)
        };
        let (slopes, starts): (Vec<f32>, Vec<f32>) = (0..LINES)
            .map(|line| {
                let end = |side: f64| (line as f64 + side) / f64::from(parts);
                let (low, high) = (end(-0.5).max(0.0), end(0.5));
                let slope = (below(high) - below(low)) / (high - low);
                (slope as f32, (below(low) - slope * low) as f32)
            })
            .unzip();
        Self {
            top,
            parts,
            slopes: table_numbers(&slopes),
            starts: table_numbers(&starts),
        }
    }
}

/// The root mean square, summed as the codec sums it.
#[inline(always)]
pub(super) fn sigma(values: &[f32]) -> f32 {
    let mut lanes = [0.0f64; LANES];
    for chunk in values.as_chunks::<LANES>().0 {
        for i in 0..LANES {
            lanes[i] += f64::from(chunk[i]) * f64::from(chunk[i]);
        }
    }
    (lane_sum(lanes) / values.len() as f64).sqrt() as f32
}

/// The quantiser of codes of `BITS`: `INDEX` of them, one less but at least 2, say how many boundaries lie below.
pub(super) struct Quantiser<'a, S: Lanes, const BITS: usize, const INDEX: usize> {
    centroids: Table<S>,
    boundaries: Table<S>,
    slopes: Table<S>,
    starts: Table<S>,
    guess: &'a Guess,
}

/// Numbers as the search sees them.
struct Unit<S: Lanes> {
    size: S::F,
    /// 1 but for numbers above zero. A number below zero lies above a boundary in magnitude even when it is on it: the
    /// next larger magnitude does strictly.
    next: S::I,
    /// What the number of boundaries below is turned into the code with.
    flip: S::I,
}

impl<'a, S: Lanes, const BITS: usize, const INDEX: usize> Quantiser<'a, S, BITS, INDEX> {
    /// # Safety
    /// The machine has the instruction set.
    #[inline(always)]
    pub(super) unsafe fn new(tables: &'a Tables) -> Self {
        const { assert!(INDEX + 1 == BITS || (INDEX == 2 && BITS == 2)) };
        // SAFETY: the caller's; the tables outlive this.
        unsafe {
            Self {
                centroids: Table::new(&tables.centroids),
                boundaries: Table::new(&tables.boundaries),
                slopes: Table::new(&tables.guess.slopes),
                starts: Table::new(&tables.guess.starts),
                guess: &tables.guess,
            }
        }
    }

    /// # Safety
    /// The machine has the instruction set; `p` is valid for sixteen numbers.
    #[inline(always)]
    unsafe fn unit(p: *const f32, inverse: S::F) -> Unit<S> {
        // SAFETY: the caller's.
        unsafe {
            let u = S::mul(S::load(p), inverse);
            let zero = S::splat(0.0);
            let half = 1 << (BITS - 1);
            Unit {
                size: S::abs(u),
                next: S::add_if_less(S::splat_i(1), zero, u, u32::MAX),
                flip: S::add_if_less(S::splat_i(half - 1), zero, u, 1),
            }
        }
    }

    /// The magnitude that boundaries must lie strictly below, at a scale.
    ///
    /// # Safety
    /// The machine has the instruction set.
    #[inline(always)]
    unsafe fn scaled(unit: &Unit<S>, inverse: S::F) -> S::F {
        // SAFETY: the caller's.
        unsafe { S::from_bits(S::add_i(S::bits(S::mul(unit.size, inverse)), unit.next)) }
    }

    /// How many positive boundaries lie strictly below magnitudes; bits above the low `INDEX` are unspecified.
    ///
    /// # Safety
    /// The machine has the instruction set.
    #[inline(always)]
    unsafe fn below(&self, x: S::F) -> S::I {
        // SAFETY: the caller's.
        unsafe {
            if BITS == 8 {
                let x = S::min(x, S::splat(self.guess.top));
                let line = S::fma(x, S::splat(self.guess.parts), S::splat(WHOLE));
                let slope = S::lookup::<4>(&self.slopes, S::bits(line));
                let start = S::lookup::<4>(&self.starts, S::bits(line));
                let guess = S::max(S::fma(x, slope, start), S::splat(0.0));
                return self.step(S::bits(S::add(guess, S::splat(WHOLE))), x);
            }
            // A binary search, one bit at a time.
            let mut below = S::splat_i(0);
            for bit in (0..INDEX).rev() {
                let at = S::add_i(below, S::splat_i((1 << bit) - 1));
                let boundary = S::lookup::<INDEX>(&self.boundaries, at);
                below = S::add_if_less(below, boundary, x, 1 << bit);
            }
            below
        }
    }

    /// One boundary more where that is below the magnitude.
    ///
    /// # Safety
    /// The machine has the instruction set.
    #[inline(always)]
    unsafe fn step(&self, below: S::I, x: S::F) -> S::I {
        // SAFETY: the caller's.
        unsafe { S::add_if_less(below, S::lookup::<INDEX>(&self.boundaries, below), x, 1) }
    }

    /// The best candidate for numbers that are brought to unit root mean square by `inverse`: the inverse of its scale,
    /// and ⟨u,c⟩/⟨c,c⟩.
    ///
    /// # Safety
    /// The machine has the instruction set. The numbers are whole vectors.
    #[inline(always)]
    pub(super) unsafe fn best(&self, values: &[f32], inverse: f32) -> (f32, f32) {
        let inverses = kv::SCALE_CANDIDATES.map(|candidate| 1.0 / candidate);
        // SAFETY: the caller's.
        unsafe {
            let inverse = S::splat(inverse);
            // ⟨u,c⟩ and ⟨c,c⟩ of all candidates side by side, so that their long chains overlap.
            let (mut dots, mut squares) = ([S::splat(0.0); COUNT], [S::splat(0.0); COUNT]);
            for chunk in values.chunks_exact(LANES) {
                let unit = Self::unit(chunk.as_ptr(), inverse);
                let smallest = S::splat(inverses[DESCENDING[0]]);
                let mut below = self.below(Self::scaled(&unit, smallest));
                for (i, k) in DESCENDING.into_iter().enumerate() {
                    if i > 0 {
                        let x = Self::scaled(&unit, S::splat(inverses[k]));
                        // Scales are so close, and boundaries of up to 6 bits so far apart, that there is never more
                        // than one between two candidates.
                        below = if BITS == 8 {
                            self.below(x)
                        } else {
                            self.step(below, x)
                        };
                    }
                    let c = S::lookup::<INDEX>(&self.centroids, below);
                    dots[k] = S::add(dots[k], S::mul(unit.size, c));
                    squares[k] = S::add(squares[k], S::mul(c, c));
                }
            }
            let (mut best, mut gain, mut fit) = (0, f32::NEG_INFINITY, (0.0, 1.0));
            for k in 0..COUNT {
                let (dot, square) = (S::reduce_add(dots[k]), S::reduce_add(squares[k]));
                let found = dot * dot / square;
                if found > gain {
                    (best, gain, fit) = (k, found, (dot, square));
                }
            }
            (inverses[best], fit.0 / fit.1)
        }
    }

    /// Quantises numbers into the planes of codes from `at` on, of a row of `count` numbers.
    ///
    /// # Safety
    /// The machine has the instruction set. `codes` are valid for the row, and the numbers whole vectors of it.
    #[inline(always)]
    pub(super) unsafe fn pack(
        &self,
        values: &[f32],
        inverses: (f32, f32),
        (at, count): (usize, usize),
        codes: *mut u8,
    ) {
        // SAFETY: the caller's.
        unsafe {
            let inverses = (S::splat(inverses.0), S::splat(inverses.1));
            for (i, chunk) in values.chunks_exact(LANES).enumerate() {
                let unit = Self::unit(chunk.as_ptr(), inverses.0);
                let below = self.below(Self::scaled(&unit, inverses.1));
                store_planes::<S, BITS>(codes, (at + i * LANES, count), S::xor(below, unit.flip));
            }
        }
    }
}

/// Stores sixteen codes from the `at`-th of `count` on, as [`kv::pack`] lays them out.
///
/// # Safety
/// The machine has the instruction set. `codes` are valid for all planes.
#[inline(always)]
unsafe fn store_planes<S: Lanes, const BITS: usize>(
    codes: *mut u8,
    (at, count): (usize, usize),
    code: S::I,
) {
    // SAFETY: the caller's.
    unsafe {
        match BITS {
            2 => S::store_bits::<2>(codes.add(at / 4), code),
            4 => S::store_bits::<4>(codes.add(at / 2), code),
            3 => {
                S::store_bits::<2>(codes.add(at / 4), code);
                let high = S::shr(code, S::splat_i(2));
                S::store_bits::<1>(codes.add(count / 4 + at / 8), high);
            }
            5 => {
                S::store_bits::<4>(codes.add(at / 2), code);
                let high = S::shr(code, S::splat_i(4));
                S::store_bits::<1>(codes.add(count / 2 + at / 8), high);
            }
            6 => {
                S::store_bits::<4>(codes.add(at / 2), code);
                let high = S::shr(code, S::splat_i(4));
                S::store_bits::<2>(codes.add(count / 2 + at / 4), high);
            }
            _ => S::store_u8(codes.add(at), code),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;
    use crate::lanes::entries;
    use walsh_formats::codebook::codebook;
    use walsh_formats::kv::TqBits;

    #[test]
    fn no_two_boundaries_lie_between_neighbouring_candidates() {
        let ratio = |pair: &[usize]| kv::SCALE_CANDIDATES[pair[0]] / kv::SCALE_CANDIDATES[pair[1]];
        let widest = DESCENDING.windows(2).map(ratio).fold(1.0, f32::max);
        for bits in TqBits::ALL.into_iter().filter(|bits| *bits != TqBits::B8) {
            let boundaries = &codebook(bits).boundaries;
            for pair in boundaries[boundaries.len() / 2 + 1..].windows(2) {
                assert!(pair[1] / pair[0] > 1.001 * widest, "{bits:?}: {pair:?}");
            }
        }
    }

    unsafe fn codes_of<S: Lanes>(tables: &Tables, bits: TqBits, x: &[f32], codes: &mut [u8]) {
        let at = (0, x.len());
        let codes = codes.as_mut_ptr();
        // SAFETY: the caller's.
        unsafe {
            match bits {
                TqBits::B2 => Quantiser::<S, 2, 2>::new(tables).pack(x, (1.0, 1.0), at, codes),
                TqBits::B3 => Quantiser::<S, 3, 2>::new(tables).pack(x, (1.0, 1.0), at, codes),
                TqBits::B4 => Quantiser::<S, 4, 3>::new(tables).pack(x, (1.0, 1.0), at, codes),
                TqBits::B5 => Quantiser::<S, 5, 4>::new(tables).pack(x, (1.0, 1.0), at, codes),
                TqBits::B6 => Quantiser::<S, 6, 5>::new(tables).pack(x, (1.0, 1.0), at, codes),
                TqBits::B8 => Quantiser::<S, 8, 7>::new(tables).pack(x, (1.0, 1.0), at, codes),
            }
        }
    }

    entries! {
        fn codes_with(tables: &Tables, bits: TqBits, x: &[f32], codes: &mut [u8]) = codes_of
    }

    #[test]
    fn codes_on_and_beside_boundaries_and_between_them() {
        for bits in TqBits::ALL {
            let book = codebook(bits);
            let tables = Tables::of(book);
            let mut x = vec![0.0, -0.0, 1e-40, -1e-40, 100.0, -100.0];
            for b in &book.boundaries {
                x.extend([*b, b.next_up(), b.next_down()]);
            }
            // The ends of the lines of 8 bits are among these, and all between them.
            x.extend((-5_000..5_000).map(|i| i as f32 * 1e-3));
            x.resize(x.len().next_multiple_of(16), 0.0);
            let expected: Vec<u8> = x.iter().map(|x| book.code(*x)).collect();
            let mut packed = vec![0; x.len() * bits.get() / 8];
            kv::pack::pack(bits, &expected, &mut packed);
            for isa in Isa::available() {
                let mut got = vec![0; packed.len()];
                // SAFETY: the set is available; there are as many codes as numbers.
                unsafe { codes_with(isa, &tables, bits, &x, &mut got) };
                let mut codes = vec![0; x.len()];
                kv::pack::unpack(bits, &got, &mut codes);
                for (i, x) in x.iter().enumerate() {
                    assert_eq!(codes[i], expected[i], "{isa} {bits:?} {x}");
                }
                assert_eq!(got, packed, "{isa} {bits:?}");
            }
        }
    }
}
