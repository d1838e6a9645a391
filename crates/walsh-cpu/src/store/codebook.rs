//! Codebook codecs with least-squares scales.
//!
//! Codebooks are symmetric: a number's code follows from its sign and from how many positive boundaries lie below its
//! magnitude. So do both sums of a candidate scale, because a number and its centroid have the same sign.

use walsh_formats::codebook::Codebook;
use walsh_formats::kv;

use crate::lanes::{Lanes, Table, table_numbers};

const LANES: usize = 16;
const COUNT: usize = kv::SCALE_CANDIDATES.len();

/// The candidate scales below 1, which numbers are divided by, and those above.
const SMALLER: [usize; 3] = [1, 3, 5];
const LARGER: [usize; 3] = [2, 4, 6];

/// The most boundaries that lie between a number at the scale 1 and at any other candidate, on either side.
const REACH: usize = 3;

/// The lines that 8-bit codes are guessed by, one for each of equal parts of the magnitudes.
const LINES: usize = 16;

/// A sum of this and a small number is that number rounded to a whole one, which the low bits hold.
const WHOLE: f32 = 1.5 * 8_388_608.0;

/// The tables of a codebook, of magnitudes.
pub(super) struct Tables {
    /// By how many boundaries lie below a magnitude: its centroid, those of the next cells, and those of the cells before.
    centroids: [Vec<f32>; 1 + 2 * REACH],
    /// In the same way: the boundary above it, the next ones, and those below it.
    boundaries: [Vec<f32>; 2 * REACH],
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
        let (centroids, boundaries) = (&book.centroids[half..], &book.boundaries[half..]);
        // The search for three bits serves two bits, too: nothing lies above the boundaries that follow.
        let table = |number: &dyn Fn(isize) -> f32| {
            let numbers: Vec<f32> = (0..half.max(4) as isize).map(number).collect();
            table_numbers(&numbers)
        };
        let reach = REACH as isize;
        let boundary = |i: isize| match usize::try_from(i) {
            // No magnitude is below this.
            Err(_) => -1.0,
            Ok(i) => boundaries.get(i).copied().unwrap_or(f32::INFINITY),
        };
        let centroid = |i: isize| centroids[i.clamp(0, half as isize - 1) as usize];
        Self {
            centroids: std::array::from_fn(|k| {
                let shift = if k <= REACH {
                    k as isize
                } else {
                    reach - k as isize
                };
                table(&|i| centroid(i + shift))
            }),
            boundaries: std::array::from_fn(|k| {
                let shift = if k < REACH {
                    k as isize
                } else {
                    reach - 1 - k as isize
                };
                table(&|i| boundary(i + shift))
            }),
            guess: Guess::of(boundaries),
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
///
/// # Safety
/// The machine has the instruction set. The values are whole vectors.
#[inline(always)]
pub(super) unsafe fn sigma<S: Lanes>(values: &[f32]) -> f32 {
    // SAFETY: the caller's.
    unsafe {
        let mut squares = S::zeros();
        for chunk in values.chunks_exact(LANES) {
            squares = S::add_squares(squares, S::load(chunk.as_ptr()));
        }
        (S::reduce_doubles(squares) / values.len() as f64).sqrt() as f32
    }
}

/// The quantiser of codes of `BITS`: `INDEX` of them, one less but at least 2, say how many boundaries lie below.
pub(super) struct Quantiser<'a, S: Lanes, const BITS: usize, const INDEX: usize> {
    centroids: [Table<S>; 1 + 2 * REACH],
    boundaries: [Table<S>; 2 * REACH],
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
    /// The same for boundaries: −1 where the next smaller one must lie strictly below.
    before: S::I,
    /// What the number of boundaries below is turned into the code with.
    flip: S::I,
}

/// A number times a centroid, and the centroid's square.
#[derive(Clone, Copy)]
struct Fit<S: Lanes> {
    dot: S::F,
    square: S::F,
}

impl<S: Lanes> Fit<S> {
    /// # Safety
    /// The machine has the instruction set.
    #[inline(always)]
    unsafe fn of(size: S::F, c: S::F) -> Self {
        // SAFETY: the caller's.
        unsafe {
            Self {
                dot: S::mul(size, c),
                square: S::mul(c, c),
            }
        }
    }

    /// `a` where the first number is below the second, else `b`.
    ///
    /// # Safety
    /// The machine has the instruction set.
    #[inline(always)]
    unsafe fn pick((x, limit): (S::F, S::F), a: Self, b: Self) -> Self {
        // SAFETY: the caller's.
        unsafe {
            Self {
                dot: S::pick_below(x, limit, a.dot, b.dot),
                square: S::pick_below(x, limit, a.square, b.square),
            }
        }
    }
}

/// The sums of all candidates: of products, and eight further on of squares.
struct Sums<S: Lanes>([S::F; 16]);

impl<S: Lanes> Sums<S> {
    /// # Safety
    /// The machine has the instruction set.
    #[inline(always)]
    unsafe fn add(&mut self, candidate: usize, fit: Fit<S>) {
        // SAFETY: the caller's.
        unsafe {
            self.0[candidate] = S::add(self.0[candidate], fit.dot);
            self.0[candidate + 8] = S::add(self.0[candidate + 8], fit.square);
        }
    }
}

/// An array of what is made of the elements of one.
macro_rules! each {
    ($f:path, ($array:expr), $($i:literal),*) => { [$($f(&$array[$i])),*] };
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
                centroids: each!(Table::new, (tables.centroids), 0, 1, 2, 3, 4, 5, 6),
                boundaries: each!(Table::new, (tables.boundaries), 0, 1, 2, 3, 4, 5),
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
                before: S::add_if_less(S::splat_i(u32::MAX), zero, u, 1),
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
                let boundary = S::lookup::<INDEX>(&self.boundaries[0], at);
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
        unsafe { S::add_if_less(below, S::lookup::<INDEX>(&self.boundaries[0], below), x, 1) }
    }

    /// How many boundaries candidates can pass on either side.
    const STEPS: usize = match BITS {
        2..=4 => 1,
        5 => 2,
        _ => REACH,
    };

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
            let mut sums = Sums::<S>([S::splat(0.0); 16]);
            for chunk in values.chunks_exact(LANES) {
                let unit = Self::unit(chunk.as_ptr(), inverse);
                if BITS == 8 {
                    for (k, inverse) in inverses.into_iter().enumerate() {
                        let below = self.below(Self::scaled(&unit, S::splat(inverse)));
                        let c = S::lookup::<INDEX>(&self.centroids[0], below);
                        sums.add(k, Fit::of(unit.size, c));
                    }
                    continue;
                }
                let below = self.below(Self::scaled(&unit, S::splat(1.0)));
                sums.add(0, self.fit(&unit, below, 0));
                self.passed(&unit, below, &inverses, &mut sums);
            }
            // What is left over gains nothing.
            sums.0[15] = S::splat(1.0);
            let sums = S::sums(&sums.0);
            let mut gains = [0f32; 8];
            for (k, gain) in gains.iter_mut().enumerate() {
                *gain = sums[k] * sums[k] / sums[k + 8];
            }
            // The first of the largest, without a branch that nobody can foresee.
            let (mut best, mut gain) = (0, gains[0]);
            for (k, found) in gains.into_iter().enumerate().take(COUNT).skip(1) {
                best = if found > gain { k } else { best };
                gain = if found > gain { found } else { gain };
            }
            (inverses[best], sums[best] / sums[best + 8])
        }
    }

    /// The fit of the centroid of the cell, or of one beside it.
    ///
    /// # Safety
    /// The machine has the instruction set.
    #[inline(always)]
    unsafe fn fit(&self, unit: &Unit<S>, below: S::I, cell: usize) -> Fit<S> {
        // SAFETY: the caller's.
        unsafe { Fit::of(unit.size, S::lookup::<INDEX>(&self.centroids[cell], below)) }
    }

    /// Adds the fits of all candidates but 1. They are so close to it, and boundaries of up to 6 bits so far apart, that
    /// a number is in its own cell or in one of the next.
    ///
    /// # Safety
    /// The machine has the instruction set.
    #[inline(always)]
    unsafe fn passed(
        &self,
        unit: &Unit<S>,
        below: S::I,
        inverses: &[f32; COUNT],
        sums: &mut Sums<S>,
    ) {
        // SAFETY: the caller's.
        unsafe {
            let own = self.fit(unit, below, 0);
            for (side, candidates) in [SMALLER, LARGER].into_iter().enumerate() {
                // What a number is at a scale is compared with numbers that stay: the next smaller boundary where the
                // boundary itself counts as below.
                let (mut limits, mut fits) = ([S::splat(0.0); REACH], [own; REACH]);
                for i in 0..Self::STEPS {
                    let limit = S::lookup::<INDEX>(&self.boundaries[REACH * side + i], below);
                    limits[i] = S::from_bits(S::add_i(S::bits(limit), unit.before));
                    fits[i] = self.fit(unit, below, REACH * side + i + 1);
                }
                for k in candidates {
                    let x = S::mul(unit.size, S::splat(inverses[k]));
                    let mut fit = own;
                    for i in 0..Self::STEPS {
                        fit = if side == 0 {
                            Fit::pick((limits[i], x), fits[i], fit)
                        } else {
                            Fit::pick((limits[i], x), fit, fits[i])
                        };
                    }
                    sums.add(k, fit);
                }
            }
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
    fn candidates_reach_no_further_than_the_search_looks() {
        let scales = kv::SCALE_CANDIDATES;
        let ratios = SMALLER
            .map(|k| 1.0 / scales[k])
            .into_iter()
            .chain(LARGER.map(|k| scales[k]));
        let widest = ratios.fold(1.0, f32::max);
        let mut seen = [SMALLER, LARGER].concat();
        seen.sort_unstable();
        assert!(scales[0] == 1.0 && seen == [1, 2, 3, 4, 5, 6]);
        assert!(
            SMALLER.iter().all(|k| scales[*k] < 1.0) && LARGER.iter().all(|k| scales[*k] > 1.0)
        );
        let steps = [
            (TqBits::B2, Quantiser::<crate::lanes::Portable, 2, 2>::STEPS),
            (TqBits::B3, Quantiser::<crate::lanes::Portable, 3, 2>::STEPS),
            (TqBits::B4, Quantiser::<crate::lanes::Portable, 4, 3>::STEPS),
            (TqBits::B5, Quantiser::<crate::lanes::Portable, 5, 4>::STEPS),
            (TqBits::B6, Quantiser::<crate::lanes::Portable, 6, 5>::STEPS),
        ];
        for (bits, steps) in steps {
            let boundaries = &codebook(bits).boundaries;
            let positive = &boundaries[boundaries.len() / 2 + 1..];
            for i in 0..positive.len().saturating_sub(steps) {
                // One boundary more than the search looks at is never passed.
                assert!(
                    positive[i + steps] / positive[i] > 1.001 * widest,
                    "{bits:?}: {i}"
                );
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
