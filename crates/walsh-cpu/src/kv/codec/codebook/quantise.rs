//! Quantising with a codebook, and the search for the best scale.
//!
//! Codebooks are symmetric: a number's code follows from its sign and from how many positive boundaries lie below its
//! magnitude. So do both sums of a candidate scale, because a number and its centroid have the same sign.

use walsh_formats::codebook::Codebook;
use walsh_formats::kv;

use crate::simd::{LANES, Simd, Table, table_numbers};

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
#[inline(always)]
pub(super) fn sigma<S: Simd>(s: S, values: &[f32]) -> f32 {
    let mut squares = s.zeros();
    for chunk in values.as_chunks::<LANES>().0 {
        squares = s.add_squares(squares, s.read(chunk));
    }
    (s.reduce_doubles(squares) / values.len() as f64).sqrt() as f32
}

/// The quantiser of codes of `BITS`: `INDEX` of them, one less but at least 2, say how many boundaries lie below.
pub(super) struct Quantiser<'a, S: Simd, const BITS: usize, const INDEX: usize> {
    simd: S,
    centroids: [Table<'a, S>; 3],
    boundaries: [Table<'a, S>; 2],
    slopes: Table<'a, S>,
    starts: Table<'a, S>,
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
    #[inline(always)]
    fn of(s: S, size: S::F, c: S::F) -> Self {
        Self {
            dot: s.mul(size, c),
            square: s.mul(c, c),
        }
    }

    /// `a` where the first number is below the second, else `b`.
    #[inline(always)]
    fn pick(s: S, (x, limit): (S::F, S::F), a: Self, b: Self) -> Self {
        Self {
            dot: s.pick_below(x, limit, a.dot, b.dot),
            square: s.pick_below(x, limit, a.square, b.square),
        }
    }
}

/// The sums of all candidates: of products, and eight further on of squares.
struct Sums<S: Simd>([S::F; 16]);

impl<S: Simd> Sums<S> {
    #[inline(always)]
    fn add(&mut self, s: S, candidate: usize, fit: Fit<S>) {
        self.0[candidate] = s.add(self.0[candidate], fit.dot);
        self.0[candidate + 8] = s.add(self.0[candidate + 8], fit.square);
    }
}

impl<'a, S: Simd, const BITS: usize, const INDEX: usize> Quantiser<'a, S, BITS, INDEX> {
    #[inline(always)]
    pub(super) fn new(s: S, tables: &'a Tables) -> Self {
        const { assert!(INDEX + 1 == BITS || (INDEX == 2 && BITS == 2)) };
        let (c, b) = (&tables.centroids, &tables.boundaries);
        Self {
            simd: s,
            centroids: [
                Table::new(s, &c[0]),
                Table::new(s, &c[1]),
                Table::new(s, &c[2]),
            ],
            boundaries: [Table::new(s, &b[0]), Table::new(s, &b[1])],
            slopes: Table::new(s, &tables.guess.slopes),
            starts: Table::new(s, &tables.guess.starts),
            guess: &tables.guess,
        }
    }

    #[inline(always)]
    fn unit(&self, x: &[f32; LANES], inverse: S::F) -> Unit<S> {
        let s = self.simd;
        let numbers = s.mul(s.read(x), inverse);
        Unit {
            numbers,
            size: s.abs(numbers),
            next: s.shr(s.bits(numbers), s.splat_i(31)),
        }
    }

    /// The magnitude that boundaries must lie strictly below, at a scale.
    #[inline(always)]
    fn scaled(&self, unit: &Unit<S>, inverse: S::F) -> S::F {
        let s = self.simd;
        s.of_bits(s.add_i(s.bits(s.mul(unit.size, inverse)), unit.next))
    }

    /// How many positive boundaries lie strictly below magnitudes; bits above the low `INDEX` are unspecified.
    #[inline(always)]
    fn below(&self, x: S::F) -> S::I {
        let s = self.simd;
        if BITS == 8 {
            let x = s.min(x, s.splat(self.guess.top));
            let line = s.fma(x, s.splat(self.guess.parts), s.splat(WHOLE));
            let slope = s.lookup::<4>(&self.slopes, s.bits(line));
            let start = s.lookup::<4>(&self.starts, s.bits(line));
            let guess = s.max(s.fma(x, slope, start), s.splat(0.0));
            return self.step(s.bits(s.add(guess, s.splat(WHOLE))), x);
        }
        // A binary search, one bit at a time.
        let mut below = s.splat_i(0);
        for bit in (0..INDEX).rev() {
            let at = s.add_i(below, s.splat_i((1 << bit) - 1));
            let boundary = s.lookup::<INDEX>(&self.boundaries[0], at);
            below = s.add_if_less(below, boundary, x, 1 << bit);
        }
        below
    }

    /// One boundary more where that is below the magnitude.
    #[inline(always)]
    fn step(&self, below: S::I, x: S::F) -> S::I {
        let s = self.simd;
        s.add_if_less(below, s.lookup::<INDEX>(&self.boundaries[0], below), x, 1)
    }

    /// The best candidate for numbers that are brought to unit root mean square by `inverse`: the inverse of its scale,
    /// and ⟨u,c⟩/⟨c,c⟩.
    #[inline(always)]
    pub(super) fn best(&self, values: &[f32], inverse: f32) -> (f32, f32) {
        let s = self.simd;
        let inverses = kv::SCALE_CANDIDATES.map(|candidate| 1.0 / candidate);
        let inverse = s.splat(inverse);
        // ⟨u,c⟩ and ⟨c,c⟩ of all candidates side by side, so that their long chains overlap.
        let mut sums = Sums::<S>([s.splat(0.0); 16]);
        for chunk in values.as_chunks::<LANES>().0 {
            let unit = self.unit(chunk, inverse);
            if BITS == 8 {
                for (k, inverse) in inverses.into_iter().enumerate() {
                    let below = self.below(self.scaled(&unit, s.splat(inverse)));
                    let c = s.lookup::<INDEX>(&self.centroids[0], below);
                    sums.add(s, k, Fit::of(s, unit.size, c));
                }
                continue;
            }
            // Boundaries are so far apart that there is at most one between a number at the scale 1 and at any other,
            // or with more than 4 bits between it at one scale and at the next.
            let below = self.below(self.scaled(&unit, s.splat(1.0)));
            sums.add(s, 0, self.fit(&unit, below, 0));
            if BITS <= 4 {
                self.beside(&unit, below, &inverses, &mut sums);
            } else {
                self.onwards(&unit, below, &inverses, &mut sums);
            }
        }
        // What is left over gains nothing.
        sums.0[15] = s.splat(1.0);
        let all = s.sums(&sums.0);
        let mut sums = [0f32; LANES];
        s.write(&mut sums, all);
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

    /// The fit of the centroid of the cell, or of one beside it.
    #[inline(always)]
    fn fit(&self, unit: &Unit<S>, below: S::I, cell: usize) -> Fit<S> {
        let s = self.simd;
        Fit::of(
            s,
            unit.size,
            s.lookup::<INDEX>(&self.centroids[cell], below),
        )
    }

    /// Adds the fits of all candidates but 1, where a number is in its own cell or in the one beside it.
    #[inline(always)]
    fn beside(&self, unit: &Unit<S>, below: S::I, inverses: &[f32; COUNT], sums: &mut Sums<S>) {
        let s = self.simd;
        let own = self.fit(unit, below, 0);
        for side in [0, 1] {
            // Numbers at every scale are compared with what stays: with the next smaller limit where the boundary
            // itself counts as below.
            let limit = s.lookup::<INDEX>(&self.boundaries[side], below);
            let limit = s.of_bits(s.sub_i(s.bits(limit), unit.next));
            let other = self.fit(unit, below, 1 + side);
            let (above, under) = if side == 0 {
                (other, own)
            } else {
                (own, other)
            };
            for k in [SMALLER, LARGER][side] {
                let x = s.mul(unit.size, s.splat(inverses[k]));
                sums.add(s, k, Fit::pick(s, (limit, x), above, under));
            }
        }
    }

    /// Adds the fits of all candidates but 1, going from one to the next.
    #[inline(always)]
    fn onwards(&self, unit: &Unit<S>, below: S::I, inverses: &[f32; COUNT], sums: &mut Sums<S>) {
        let s = self.simd;
        let (mut up, mut down) = (below, below);
        // Less by one, so that a boundary which does not lie strictly below is above.
        let before = s.sub_i(unit.next, s.splat_i(1));
        for (smaller, larger) in SMALLER.into_iter().zip(LARGER) {
            up = self.step(up, self.scaled(unit, s.splat(inverses[smaller])));
            sums.add(s, smaller, self.fit(unit, up, 0));
            let x = s.bits(s.mul(unit.size, s.splat(inverses[larger])));
            let limit = s.lookup::<INDEX>(&self.boundaries[1], down);
            down = s.add_if_less(down, s.of_bits(s.add_i(x, before)), limit, u32::MAX);
            sums.add(s, larger, self.fit(unit, down, 0));
        }
    }

    /// Quantises numbers into the planes of codes from `at` on, of a row of `count` numbers.
    ///
    /// # Safety
    /// `codes` are valid for the row, and the numbers whole vectors of it.
    #[inline(always)]
    pub(super) unsafe fn pack(
        &self,
        values: &[f32],
        inverses: (f32, f32),
        (at, count): (usize, usize),
        codes: *mut u8,
    ) {
        let s = self.simd;
        let inverses = (s.splat(inverses.0), s.splat(inverses.1));
        for (i, chunk) in values.as_chunks::<LANES>().0.iter().enumerate() {
            let unit = self.unit(chunk, inverses.0);
            let below = self.below(self.scaled(&unit, inverses.1));
            // SAFETY: the codes are valid for the row.
            unsafe {
                store_planes::<S, BITS>(s, codes, (at + i * LANES, count), self.code(&unit, below))
            };
        }
    }

    /// Quantises numbers as they are, into a byte each.
    #[inline(always)]
    pub(super) fn codes(&self, values: &[f32], codes: &mut [u8]) {
        let s = self.simd;
        let one = s.splat(1.0);
        for (chunk, out) in values
            .as_chunks()
            .0
            .iter()
            .zip(codes.chunks_exact_mut(LANES))
        {
            let unit = self.unit(chunk, one);
            let below = self.below(self.scaled(&unit, one));
            // SAFETY: sixteen bytes.
            unsafe { s.store_u8(out.as_mut_ptr(), self.code(&unit, below)) };
        }
    }

    /// The codes of numbers by how many boundaries lie below their magnitudes: from the middle up where a number is above
    /// zero, else down. Bits above the low `BITS` are unspecified.
    #[inline(always)]
    fn code(&self, unit: &Unit<S>, below: S::I) -> S::I {
        let s = self.simd;
        let half = s.splat_i((1 << (BITS - 1)) - 1);
        s.xor(below, s.add_if_less(half, s.splat(0.0), unit.numbers, 1))
    }
}

/// Stores sixteen codes from the `at`-th of `count` on, as [`kv::pack`] lays them out.
///
/// # Safety
/// `codes` are valid for all planes.
#[inline(always)]
unsafe fn store_planes<S: Simd, const BITS: usize>(
    s: S,
    codes: *mut u8,
    (at, count): (usize, usize),
    code: S::I,
) {
    // SAFETY: two bytes for each bit of the code, in the planes.
    unsafe {
        match BITS {
            2 => s.store_bits::<2>(codes.add(at / 4), code),
            4 => s.store_bits::<4>(codes.add(at / 2), code),
            3 => {
                s.store_bits::<2>(codes.add(at / 4), code);
                let high = s.shr(code, s.splat_i(2));
                s.store_bits::<1>(codes.add(count / 4 + at / 8), high);
            }
            5 => {
                s.store_bits::<4>(codes.add(at / 2), code);
                let high = s.shr(code, s.splat_i(4));
                s.store_bits::<1>(codes.add(count / 2 + at / 8), high);
            }
            6 => {
                s.store_bits::<4>(codes.add(at / 2), code);
                let high = s.shr(code, s.splat_i(4));
                s.store_bits::<2>(codes.add(count / 2 + at / 4), high);
            }
            _ => s.store_u8(codes.add(at), code),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;
    use crate::simd::Token;
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

    unsafe fn codes_of<S: Simd>(s: S, tables: &Tables, bits: TqBits, x: &[f32], codes: &mut [u8]) {
        let at = (0, x.len());
        let codes = codes.as_mut_ptr();
        // SAFETY: there are as many codes as the rows' bits take, as this function is given them.
        unsafe {
            match bits {
                TqBits::B2 => Quantiser::<S, 2, 2>::new(s, tables).pack(x, (1.0, 1.0), at, codes),
                TqBits::B3 => Quantiser::<S, 3, 2>::new(s, tables).pack(x, (1.0, 1.0), at, codes),
                TqBits::B4 => Quantiser::<S, 4, 3>::new(s, tables).pack(x, (1.0, 1.0), at, codes),
                TqBits::B5 => Quantiser::<S, 5, 4>::new(s, tables).pack(x, (1.0, 1.0), at, codes),
                TqBits::B6 => Quantiser::<S, 6, 5>::new(s, tables).pack(x, (1.0, 1.0), at, codes),
                TqBits::B8 => Quantiser::<S, 8, 7>::new(s, tables).pack(x, (1.0, 1.0), at, codes),
            }
        }
    }

    entries! {
        unsafe fn codes_with(tables: &Tables, bits: TqBits, x: &[f32], codes: &mut [u8]) = codes_of
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
                unsafe { codes_with(Token::of(isa), &tables, bits, &x, &mut got) };
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
