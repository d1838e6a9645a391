//! Codebook codecs with least-squares scales.
//!
//! Codebooks are symmetric: a number's code follows from its sign and from how many positive boundaries lie below its
//! magnitude. So do both sums of a candidate scale, because a number and its centroid have the same sign.

use walsh_formats::codebook::Codebook;
use walsh_formats::kv;

use crate::simd::{Simd, Table, table_numbers};

const LANES: usize = 16;
const COUNT: usize = kv::SCALE_CANDIDATES.len();

/// The candidate scales below 1, which numbers are divided by, and those above.
const SMALLER: [usize; 3] = [1, 3, 5];
const LARGER: [usize; 3] = [2, 4, 6];

/// The lines that 8-bit codes are guessed by, one for each of equal parts of the magnitudes.
const LINES: usize = 16;

/// A sum of this and a small number is that number rounded to a whole one, which the low bits hold.
const WHOLE: f32 = 1.5 * 8_388_608.0;

/// The tables of a codebook, of magnitudes, by how many positive boundaries lie below one.
pub(super) struct Tables {
    /// The centroid of the cell, of the next one and of the one before.
    centroids: [Vec<f32>; 3],
    /// The boundary above the cell and the one below it.
    boundaries: [Vec<f32>; 2],
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
        let table = |number: &dyn Fn(usize) -> f32| {
            let numbers: Vec<f32> = (0..half.max(4)).map(number).collect();
            table_numbers(&numbers)
        };
        let centroid = |i: usize| centroids[i.min(half - 1)];
        let boundary = |i: usize| boundaries.get(i).copied().unwrap_or(f32::INFINITY);
        Self {
            centroids: [
                table(&|i| centroid(i)),
                table(&|i| centroid(i + 1)),
                table(&|i| centroid(i.saturating_sub(1))),
            ],
            boundaries: [
                table(&|i| boundary(i)),
                // Every magnitude is above this.
                table(&|i| if i == 0 { -1.0 } else { boundary(i - 1) }),
            ],
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
pub(super) unsafe fn sigma<S: Simd>(values: &[f32]) -> f32 {
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
pub(super) struct Quantiser<'a, S: Simd, const BITS: usize, const INDEX: usize> {
    centroids: [Table<S>; 3],
    boundaries: [Table<S>; 2],
    slopes: Table<S>,
    starts: Table<S>,
    guess: &'a Guess,
}

/// Numbers as the search sees them.
struct Unit<S: Simd> {
    numbers: S::F,
    size: S::F,
    /// 1 where the number is negative: it lies above a boundary in magnitude even when it is on it, as the next larger
    /// magnitude strictly does.
    next: S::I,
}

/// A number times a centroid, and the centroid's square.
#[derive(Clone, Copy)]
struct Fit<S: Simd> {
    dot: S::F,
    square: S::F,
}

impl<S: Simd> Fit<S> {
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
struct Sums<S: Simd>([S::F; 16]);

impl<S: Simd> Sums<S> {
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

impl<'a, S: Simd, const BITS: usize, const INDEX: usize> Quantiser<'a, S, BITS, INDEX> {
    /// # Safety
    /// The machine has the instruction set.
    #[inline(always)]
    pub(super) unsafe fn new(tables: &'a Tables) -> Self {
        const { assert!(INDEX + 1 == BITS || (INDEX == 2 && BITS == 2)) };
        let (c, b) = (&tables.centroids, &tables.boundaries);
        // SAFETY: the caller's; the tables outlive this.
        unsafe {
            Self {
                centroids: [Table::new(&c[0]), Table::new(&c[1]), Table::new(&c[2])],
                boundaries: [Table::new(&b[0]), Table::new(&b[1])],
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
            let numbers = S::mul(S::load(p), inverse);
            Unit {
                numbers,
                size: S::abs(numbers),
                next: S::shr(S::bits(numbers), S::splat_i(31)),
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
                // Boundaries are so far apart that there is at most one between a number at the scale 1 and at any other,
                // or with more than 4 bits between it at one scale and at the next.
                let below = self.below(Self::scaled(&unit, S::splat(1.0)));
                sums.add(0, self.fit(&unit, below, 0));
                if BITS <= 4 {
                    self.beside(&unit, below, &inverses, &mut sums);
                } else {
                    self.onwards(&unit, below, &inverses, &mut sums);
                }
            }
            // What is left over gains nothing.
            sums.0[15] = S::splat(1.0);
            let all = S::sums(&sums.0);
            let mut sums = [0f32; LANES];
            S::store(sums.as_mut_ptr(), all);
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

    /// Adds the fits of all candidates but 1, where a number is in its own cell or in the one beside it.
    ///
    /// # Safety
    /// The machine has the instruction set.
    #[inline(always)]
    unsafe fn beside(
        &self,
        unit: &Unit<S>,
        below: S::I,
        inverses: &[f32; COUNT],
        sums: &mut Sums<S>,
    ) {
        // SAFETY: the caller's.
        unsafe {
            let own = self.fit(unit, below, 0);
            for side in [0, 1] {
                // Numbers at every scale are compared with what stays: with the next smaller limit where the boundary
                // itself counts as below.
                let limit = S::lookup::<INDEX>(&self.boundaries[side], below);
                let limit = S::from_bits(S::sub_i(S::bits(limit), unit.next));
                let other = self.fit(unit, below, 1 + side);
                let (above, under) = if side == 0 {
                    (other, own)
                } else {
                    (own, other)
                };
                for k in [SMALLER, LARGER][side] {
                    let x = S::mul(unit.size, S::splat(inverses[k]));
                    sums.add(k, Fit::pick((limit, x), above, under));
                }
            }
        }
    }

    /// Adds the fits of all candidates but 1, going from one to the next.
    ///
    /// # Safety
    /// The machine has the instruction set.
    #[inline(always)]
    unsafe fn onwards(
        &self,
        unit: &Unit<S>,
        below: S::I,
        inverses: &[f32; COUNT],
        sums: &mut Sums<S>,
    ) {
        // SAFETY: the caller's.
        unsafe {
            let (mut up, mut down) = (below, below);
            // Less by one, so that a boundary which does not lie strictly below is above.
            let before = S::sub_i(unit.next, S::splat_i(1));
            for (smaller, larger) in SMALLER.into_iter().zip(LARGER) {
                up = self.step(up, Self::scaled(unit, S::splat(inverses[smaller])));
                sums.add(smaller, self.fit(unit, up, 0));
                let x = S::bits(S::mul(unit.size, S::splat(inverses[larger])));
                let limit = S::lookup::<INDEX>(&self.boundaries[1], down);
                down = S::add_if_less(down, S::from_bits(S::add_i(x, before)), limit, u32::MAX);
                sums.add(larger, self.fit(unit, down, 0));
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
                store_planes::<S, BITS>(codes, (at + i * LANES, count), Self::code(&unit, below));
            }
        }
    }

    /// Quantises numbers as they are, into a byte each.
    ///
    /// # Safety
    /// The machine has the instruction set. The numbers are whole vectors.
    #[inline(always)]
    pub(super) unsafe fn codes(&self, values: &[f32], codes: &mut [u8]) {
        let one = 1.0;
        for (chunk, out) in values
            .chunks_exact(LANES)
            .zip(codes.chunks_exact_mut(LANES))
        {
            // SAFETY: the caller's.
            unsafe {
                let unit = Self::unit(chunk.as_ptr(), S::splat(one));
                let below = self.below(Self::scaled(&unit, S::splat(one)));
                S::store_u8(out.as_mut_ptr(), Self::code(&unit, below));
            }
        }
    }

    /// The codes of numbers by how many boundaries lie below their magnitudes: from the middle up where a number is above
    /// zero, else down. Bits above the low `BITS` are unspecified.
    ///
    /// # Safety
    /// The machine has the instruction set.
    #[inline(always)]
    unsafe fn code(unit: &Unit<S>, below: S::I) -> S::I {
        // SAFETY: the caller's.
        unsafe {
            let half = S::splat_i((1 << (BITS - 1)) - 1);
            S::xor(below, S::add_if_less(half, S::splat(0.0), unit.numbers, 1))
        }
    }
}

/// Stores sixteen codes from the `at`-th of `count` on, as [`kv::pack`] lays them out.
///
/// # Safety
/// The machine has the instruction set. `codes` are valid for all planes.
#[inline(always)]
unsafe fn store_planes<S: Simd, const BITS: usize>(
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
    use crate::simd::entries;
    use walsh_formats::codebook::codebook;
    use walsh_formats::kv::TqBits;

    #[test]
    fn candidates_reach_no_further_than_the_search_looks() {
        let scales = kv::SCALE_CANDIDATES;
        let mut seen = [SMALLER, LARGER].concat();
        seen.sort_unstable();
        assert!(scales[0] == 1.0 && seen == [1, 2, 3, 4, 5, 6]);
        // How far it is from the scale 1 to the furthest, and from one to the next.
        let (mut furthest, mut step) = (1f32, 1f32);
        for side in [SMALLER, LARGER] {
            let side = side.map(|k| scales[k]);
            for (i, scale) in side.into_iter().enumerate() {
                let before = if i == 0 { 1.0 } else { side[i - 1] };
                assert!((scale < before) == (side[0] < 1.0));
                furthest = furthest.max(scale).max(1.0 / scale);
                step = step.max(scale / before).max(before / scale);
            }
        }
        for bits in TqBits::ALL.into_iter().filter(|bits| *bits != TqBits::B8) {
            let boundaries = &codebook(bits).boundaries;
            let reach = if bits <= TqBits::B4 { furthest } else { step };
            for pair in boundaries[boundaries.len() / 2 + 1..].windows(2) {
                assert!(pair[1] / pair[0] > 1.001 * reach, "{bits:?}: {pair:?}");
            }
        }
    }

    unsafe fn codes_of<S: Simd>(tables: &Tables, bits: TqBits, x: &[f32], codes: &mut [u8]) {
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
