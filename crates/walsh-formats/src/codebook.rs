//! Lloyd-Max codebooks of the standard normal distribution.
//!
//! A codebook of `b` bits has `2^b` centroids that minimise the mean squared error of quantising N(0,1): each
//! centroid is the mean of its cell, each boundary the midpoint of its neighbours (Lloyd 1982, Max 1960). They are
//! computed at first use by Newton's method, so no table can be wrong or unconverged.

use std::sync::OnceLock;

/// The bits per number of a codebook codec.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TqBits {
    /// 4 centroids.
    B2,
    /// 8 centroids.
    B3,
    /// 16 centroids.
    B4,
    /// 32 centroids.
    B5,
    /// 64 centroids.
    B6,
    /// 256 centroids.
    B8,
}

impl TqBits {
    /// Every width, ascending.
    pub const ALL: [TqBits; 6] = [
        TqBits::B2,
        TqBits::B3,
        TqBits::B4,
        TqBits::B5,
        TqBits::B6,
        TqBits::B8,
    ];

    /// The number of bits.
    pub const fn get(self) -> usize {
        match self {
            TqBits::B2 => 2,
            TqBits::B3 => 3,
            TqBits::B4 => 4,
            TqBits::B5 => 5,
            TqBits::B6 => 6,
            TqBits::B8 => 8,
        }
    }

    /// The width of `bits` bits, if there is one.
    pub fn from_bits(bits: usize) -> Option<Self> {
        Self::ALL.into_iter().find(|b| b.get() == bits)
    }

    /// The widths of the bit planes, in storage order; the first holds the low bits.
    pub const fn planes(self) -> &'static [usize] {
        match self {
            TqBits::B2 => &[2],
            TqBits::B3 => &[2, 1],
            TqBits::B4 => &[4],
            TqBits::B5 => &[4, 1],
            TqBits::B6 => &[4, 2],
            TqBits::B8 => &[8],
        }
    }
}

/// The centroids and boundaries of one bit width, symmetric about zero and ascending.
#[derive(Debug)]
pub struct Codebook {
    /// `2^b` centroids.
    pub centroids: Vec<f32>,
    /// `2^b − 1` cell boundaries; a number's code is how many of them lie strictly below it.
    pub boundaries: Vec<f32>,
    /// The centroids before rounding to single precision.
    pub exact: Vec<f64>,
}

impl Codebook {
    /// The code of `u`: the number of boundaries strictly below it.
    #[inline]
    pub fn code(&self, u: f32) -> u8 {
        self.boundaries.partition_point(|b| *b < u) as u8
    }

    /// [`code`](Self::code) against boundaries that are not rounded to single precision.
    #[inline]
    pub fn code_f64(&self, u: f64) -> u8 {
        let at = self.boundaries.partition_point(|b| f64::from(*b) < u);
        // Rounding moves a boundary by less than its distance to the next, so only the nearest two can be misjudged.
        let below = at.saturating_sub(1);
        let above = (at + 1).min(self.boundaries.len());
        let exact = |i: usize| 0.5 * (self.exact[i] + self.exact[i + 1]);
        (below + (below..above).filter(|i| exact(*i) < u).count()) as u8
    }

    /// The mean squared error of quantising N(0,1) with this codebook, in closed form.
    pub fn mean_squared_error(&self) -> f64 {
        let n = self.exact.len();
        // Σ ∫ (x − c)² φ = 1 − Σ c·(2·∫xφ − c·∫φ), by symmetry twice the positive half.
        2.0 * (0..n / 2)
            .map(|i| {
                let cell = Cell::of(&self.exact[n / 2..], i);
                let c = self.exact[n / 2 + i];
                cell.second_moment() - 2.0 * c * cell.mean * cell.mass + c * c * cell.mass
            })
            .sum::<f64>()
    }
}

/// The codebook of a bit width, computed once per process.
///
/// ```
/// use walsh_formats::{codebook::codebook, kv::TqBits};
/// let book = codebook(TqBits::B2);
/// assert!((book.centroids[3] - 1.510_418).abs() < 1e-6);
/// assert_eq!(book.code(0.5), 2);
/// ```
pub fn codebook(bits: TqBits) -> &'static Codebook {
    static BOOKS: [OnceLock<Codebook>; TqBits::ALL.len()] =
        [const { OnceLock::new() }; TqBits::ALL.len()];
    BOOKS[bits as usize].get_or_init(|| build(bits.get()))
}

fn build(bits: usize) -> Codebook {
    let half = solve(1 << (bits - 1));
    let exact: Vec<f64> = half
        .iter()
        .rev()
        .map(|c| -c)
        .chain(half.iter().copied())
        .collect();
    Codebook {
        centroids: exact.iter().map(|c| *c as f32).collect(),
        boundaries: exact
            .windows(2)
            .map(|w| (0.5 * (w[0] + w[1])) as f32)
            .collect(),
        exact,
    }
}

/// The positive centroids: the root of cᵢ − E[x | cell i], by Newton with a tridiagonal Jacobian.
fn solve(n: usize) -> Vec<f64> {
    // At high resolution the optimal point density is that of N(0, 3), whose quantiles start the iteration.
    let mut c: Vec<f64> = (0..n)
        .map(|i| 3f64.sqrt() * upper_quantile((n - i) as f64 - 0.5, n))
        .collect();
    for _ in 0..100 {
        let cells: Vec<Cell> = (0..n).map(|i| Cell::of(&c, i)).collect();
        let residual: Vec<f64> = (0..n).map(|i| c[i] - cells[i].mean).collect();
        let step = tridiagonal(&cells, &residual);
        let largest = step.iter().fold(0f64, |a, s| a.max(s.abs()));
        // A full step may pass a neighbour far from the root: halve it until the order holds.
        let mut damping = 1.0;
        let next = loop {
            let next: Vec<f64> = c.iter().zip(&step).map(|(c, s)| c - damping * s).collect();
            if next[0] > 0.0 && next.windows(2).all(|w| w[0] < w[1]) {
                break next;
            }
            damping *= 0.5;
        };
        c = next;
        if largest < 1e-13 {
            break;
        }
    }
    c
}

/// Solves the Newton system J·step = residual, where row i of J touches centroids i − 1, i and i + 1.
fn tridiagonal(cells: &[Cell], residual: &[f64]) -> Vec<f64> {
    let n = cells.len();
    let mut upper = vec![0.0; n];
    let mut step = vec![0.0; n];
    for i in 0..n {
        // A boundary is the midpoint of two centroids, hence the halves; the outermost is fixed at zero or infinity.
        let low = if i > 0 {
            0.5 * cells[i].mean_by_low()
        } else {
            0.0
        };
        let high = if i + 1 < n {
            0.5 * cells[i].mean_by_high()
        } else {
            0.0
        };
        let (previous_upper, previous_step) = if i > 0 {
            (upper[i - 1], step[i - 1])
        } else {
            (0.0, 0.0)
        };
        let pivot = 1.0 - low - high + low * previous_upper;
        upper[i] = -high / pivot;
        step[i] = (residual[i] + low * previous_step) / pivot;
    }
    for i in (0..n.saturating_sub(1)).rev() {
        step[i] -= upper[i] * step[i + 1];
    }
    step
}

/// One cell of N(0,1): its borders, its probability and its mean.
struct Cell {
    low: f64,
    high: f64,
    mass: f64,
    mean: f64,
}

impl Cell {
    /// Cell `i` of the positive centroids `c`; the first begins at zero, the last has no end.
    fn of(c: &[f64], i: usize) -> Self {
        let low = if i == 0 { 0.0 } else { 0.5 * (c[i - 1] + c[i]) };
        let high = if i + 1 == c.len() {
            f64::INFINITY
        } else {
            0.5 * (c[i] + c[i + 1])
        };
        let mass = 0.5 * (libm::erfc(low / 2f64.sqrt()) - libm::erfc(high / 2f64.sqrt()));
        // φ(low) − φ(high) without cancellation.
        let first = density(low) * -libm::expm1(0.5 * (low * low - high * high));
        Self {
            low,
            high,
            mass,
            mean: first / mass,
        }
    }

    /// ∂mean/∂low.
    fn mean_by_low(&self) -> f64 {
        density(self.low) * (self.mean - self.low) / self.mass
    }

    /// ∂mean/∂high.
    fn mean_by_high(&self) -> f64 {
        density(self.high) * (self.high - self.mean) / self.mass
    }

    /// ∫ x²φ over the cell.
    fn second_moment(&self) -> f64 {
        let high = if self.high.is_finite() {
            self.high * density(self.high)
        } else {
            0.0
        };
        self.low * density(self.low) - high + self.mass
    }
}

/// The density φ of N(0,1).
fn density(x: f64) -> f64 {
    libm::exp(-0.5 * x * x) / (2.0 * std::f64::consts::PI).sqrt()
}

/// The x ≥ 0 with P(|N(0,1)| > x) = rank/n, by bisection.
fn upper_quantile(rank: f64, n: usize) -> f64 {
    let (mut low, mut high) = (0.0, 10.0);
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if libm::erfc(middle / 2f64.sqrt()) > rank / n as f64 {
            low = middle;
        } else {
            high = middle;
        }
    }
    low
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mean_squared_errors_are_those_of_the_optimum() {
        let known = [
            (TqBits::B2, 0.117482),
            (TqBits::B3, 0.0345477),
            (TqBits::B4, 0.00950101),
            (TqBits::B5, 0.00250467),
            (TqBits::B6, 0.000644240),
            (TqBits::B8, 0.0000411851),
        ];
        for (bits, mse) in known {
            let got = codebook(bits).mean_squared_error();
            assert!((got / mse - 1.0).abs() < 5e-6, "{bits:?}: {got} for {mse}");
        }
    }

    #[test]
    fn centroids_are_the_means_of_their_cells() {
        for bits in TqBits::ALL {
            let half = &codebook(bits).exact[1 << (bits.get() - 1)..];
            for i in 0..half.len() {
                let mean = Cell::of(half, i).mean;
                assert!(
                    (half[i] - mean).abs() < 1e-12,
                    "{bits:?} {i}: {} for {mean}",
                    half[i]
                );
            }
        }
    }

    #[test]
    fn codebooks_are_symmetric_and_ascend() {
        for bits in TqBits::ALL {
            let book = codebook(bits);
            let n = book.centroids.len();
            assert_eq!(n, 1 << bits.get());
            assert_eq!(book.boundaries.len(), n - 1);
            assert_eq!(book.boundaries[n / 2 - 1], 0.0);
            assert!(book.centroids.windows(2).all(|w| w[0] < w[1]));
            for i in 0..n {
                assert_eq!(book.centroids[i], -book.centroids[n - 1 - i]);
            }
        }
    }

    #[test]
    fn a_boundary_belongs_to_the_cell_below_it() {
        let book = codebook(TqBits::B4);
        assert_eq!(book.code(0.0), 7);
        assert_eq!(book.code(f32::MIN_POSITIVE), 8);
        assert_eq!(book.code(f32::NEG_INFINITY), 0);
        assert_eq!(book.code(9.0), 15);
        for (i, b) in book.boundaries.iter().enumerate() {
            assert_eq!(usize::from(book.code(*b)), i);
            let exact = 0.5 * (book.exact[i] + book.exact[i + 1]);
            assert_eq!(usize::from(book.code_f64(exact)), i);
            assert_eq!(usize::from(book.code_f64(exact + 1e-12)), i + 1);
            assert_eq!(usize::from(book.code_f64(exact - 1e-12)), i);
        }
    }
}
