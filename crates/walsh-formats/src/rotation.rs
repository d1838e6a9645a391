//! The randomised Hadamard rotation that KV codecs apply before quantising.
//!
//! A rotation maps a vector `x` of `D` numbers to `r = H·(s∘x)/√D`, with `s` a fixed vector of signs and `H` a
//! Hadamard matrix of order `D` in natural (Sylvester) order. It is orthogonal, so inner products survive it, and
//! it spreads every outlier over all channels, so that one codebook for N(0,1) fits every vector (TurboQuant,
//! arXiv 2504.19874).
//!
//! For `D = 2^k·m` with `m` of 12, 20 or 28, `H` is the Kronecker product of the Sylvester matrix of order `2^k`
//! with a Paley matrix of order `m`: index `a·m + b` has `a` in the power of two's part and `b` in Paley's.

use std::ops::{Add, Mul, Sub};

use crate::kv::error::KvError;

/// Signs of the rotation for 512 channels: bit `j`, least significant first within a byte; a set bit means −1.
/// Smaller head sizes take the first bits.
const SIGN_BITS: [u8; 64] = [
    0xa7, 0x3b, 0x91, 0xf4, 0x6d, 0xc2, 0x58, 0x0e, 0xb3, 0x7f, 0x24, 0xd6, 0x89, 0x45, 0xea, 0x1c,
    0x63, 0xaf, 0xd8, 0x52, 0x97, 0x0b, 0xe1, 0x3d, 0x76, 0xc4, 0x19, 0xfe, 0x4a, 0x85, 0x2c, 0xdb,
    0xd3, 0x4e, 0xa8, 0x17, 0x9c, 0x5b, 0xe6, 0x31, 0x72, 0xb9, 0x0d, 0xf5, 0x43, 0x8a, 0x6e, 0xc7,
    0x58, 0x2f, 0x94, 0xe1, 0xb6, 0x3d, 0x0a, 0x7c, 0xc5, 0x61, 0xd8, 0x4f, 0xa3, 0x97, 0x1e, 0x85,
];

/// The largest head size that a rotation exists for.
pub const MAX_HEAD_DIM: usize = 512;

/// A fixed orthogonal map of `head_dim` channels: sign flips, a Hadamard transform and the factor 1/√D.
#[derive(Clone, Debug)]
pub struct Rotation {
    head_dim: usize,
    /// Order of the Paley factor, 1 when the head size is a power of two.
    order: usize,
    /// The Paley factor, row by row, entries ±1.
    matrix: Vec<f32>,
    /// The columns of the Paley factor, then its rows, each padded as [`columns`](Self::columns) says.
    padded: Vec<f32>,
    signs: Vec<f32>,
    factor: f32,
}

impl Rotation {
    /// The rotation for one head size: a power of two, or 12, 20 or 28 times one, from 8 to 512.
    ///
    /// # Errors
    /// [`KvError::HeadDim`] for any other size.
    ///
    /// ```
    /// # use walsh_formats::rotation::Rotation;
    /// let rotation = Rotation::new(128)?;
    /// let mut x = vec![0.0; 128];
    /// x[5] = 2.0;
    /// rotation.forward(&mut x);
    /// assert!(x.iter().all(|v| (v.abs() - 2.0 / 128f32.sqrt()).abs() < 1e-6));
    /// rotation.inverse(&mut x);
    /// assert!((x[5] - 2.0).abs() < 1e-6);
    /// # Ok::<(), walsh_formats::kv::KvError>(())
    /// ```
    pub fn new(head_dim: usize) -> Result<Self, KvError> {
        let order = factor_order(head_dim).ok_or(KvError::HeadDim {
            head_dim,
            codec: "a rotation".to_owned(),
            why: "the size must be a power of two, or 12, 20 or 28 times one, from 8 to 512"
                .to_owned(),
        })?;
        let matrix = paley(order);
        Ok(Self {
            head_dim,
            order,
            padded: padded(&matrix, order),
            matrix,
            signs: (0..head_dim).map(sign).collect(),
            factor: (1.0 / (head_dim as f64).sqrt()) as f32,
        })
    }

    /// Numbers per vector.
    pub fn head_dim(&self) -> usize {
        self.head_dim
    }

    /// The sign flips `s`, each +1 or −1.
    pub fn signs(&self) -> &[f32] {
        &self.signs
    }

    /// The order of the matrix that the power-of-two transform is multiplied with: 1, 12, 20 or 28.
    pub fn order(&self) -> usize {
        self.order
    }

    /// The entry of the matrix that the power-of-two transform is multiplied with, +1 or −1.
    ///
    /// # Panics
    /// If `row` or `column` is not below [`order`](Self::order).
    pub fn paley_entry(&self, row: usize, column: usize) -> f32 {
        assert!(column < self.order, "a matrix of order {}", self.order);
        self.matrix[row * self.order + column]
    }

    /// The columns of the small matrix one after the other, each followed by zeros up to a multiple of sixteen numbers;
    /// nothing where the order is 1.
    pub fn columns(&self) -> &[f32] {
        &self.padded[..self.padded.len() / 2]
    }

    /// The rows of the small matrix, padded as its [`columns`](Self::columns) are.
    pub fn rows(&self) -> &[f32] {
        &self.padded[self.padded.len() / 2..]
    }

    /// 1/√D, which both directions multiply by at the end.
    pub fn factor(&self) -> f32 {
        self.factor
    }

    /// Rotates one vector in place: `r = H·(s∘x)/√D`.
    ///
    /// # Panics
    /// If `values` is not `head_dim` long.
    pub fn forward(&self, values: &mut [f32]) {
        self.turn(values, self.factor);
    }

    /// [`forward`](Self::forward) in double precision.
    ///
    /// # Panics
    /// If `values` is not `head_dim` long.
    pub fn forward_f64(&self, values: &mut [f64]) {
        self.turn(values, 1.0 / (self.head_dim as f64).sqrt());
    }

    /// Undoes [`forward`](Self::forward) in place: `x = s∘(Hᵀ·r)/√D`.
    ///
    /// # Panics
    /// If `values` is not `head_dim` long.
    pub fn inverse(&self, values: &mut [f32]) {
        self.check(values.len());
        self.butterflies(values);
        self.paley_stage(values, true);
        for (value, sign) in values.iter_mut().zip(&self.signs) {
            *value *= self.factor * sign;
        }
    }

    fn turn<T: Real>(&self, values: &mut [T], factor: T) {
        self.check(values.len());
        for (value, sign) in values.iter_mut().zip(&self.signs) {
            *value = *value * T::from(*sign);
        }
        self.paley_stage(values, false);
        self.butterflies(values);
        for value in values.iter_mut() {
            *value = *value * factor;
        }
    }

    fn check(&self, len: usize) {
        assert_eq!(
            len, self.head_dim,
            "a rotation of {} channels",
            self.head_dim
        );
    }

    /// The power-of-two part: it mixes the blocks of `order` numbers, and is its own transpose.
    fn butterflies<T: Real>(&self, values: &mut [T]) {
        let mut half = self.order;
        while half < values.len() {
            for pair in values.chunks_exact_mut(2 * half) {
                let (low, high) = pair.split_at_mut(half);
                for (a, b) in low.iter_mut().zip(high) {
                    (*a, *b) = (*a + *b, *a - *b);
                }
            }
            half *= 2;
        }
    }

    /// The Paley part: every block of `order` numbers times the small matrix or its transpose.
    fn paley_stage<T: Real>(&self, values: &mut [T], transposed: bool) {
        let m = self.order;
        if m == 1 {
            return;
        }
        let mut block_in = [T::from(0.0); 28];
        for block in values.chunks_exact_mut(m) {
            block_in[..m].copy_from_slice(block);
            for (i, out) in block.iter_mut().enumerate() {
                *out = T::from(0.0);
                for (j, value) in block_in[..m].iter().enumerate() {
                    let at = if transposed { j * m + i } else { i * m + j };
                    *out = *out + T::from(self.matrix[at]) * *value;
                }
            }
        }
    }
}

/// The two precisions that vectors are rotated in.
trait Real: Copy + From<f32> + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> {}
impl Real for f32 {}
impl Real for f64 {}

/// The sign of channel `j`.
fn sign(j: usize) -> f32 {
    if SIGN_BITS[j / 8] >> (j % 8) & 1 == 1 {
        -1.0
    } else {
        1.0
    }
}

/// The Paley order that leaves a power of two, or `None` if the head size has no transform here.
fn factor_order(head_dim: usize) -> Option<usize> {
    if !(8..=MAX_HEAD_DIM).contains(&head_dim) {
        return None;
    }
    [1, 12, 20, 28]
        .into_iter()
        .find(|m| head_dim.is_multiple_of(*m) && (head_dim / m).is_power_of_two())
}

/// A Hadamard matrix of order 1, 12, 20 or 28, row by row.
///
/// Paley's first construction serves the prime orders 11 and 19 (three modulo four), his second the prime 13
/// (one modulo four), which doubles the conference matrix of order 14.
fn paley(order: usize) -> Vec<f32> {
    let mut matrix = vec![1.0; order * order];
    match order {
        12 | 20 => {
            let conference = conference(order - 1, -1.0);
            for i in 0..order {
                for j in 0..order {
                    matrix[i * order + j] = conference[i * order + j] + f32::from(i == j);
                }
            }
        }
        28 => {
            let conference = conference(13, 1.0);
            for i in 0..order {
                for j in 0..order {
                    let both_odd = i % 2 == 1 && j % 2 == 1;
                    let symbol = conference[(i / 2) * 14 + j / 2];
                    // A zero of the conference matrix becomes [[1, −1], [−1, −1]], a sign becomes ±[[1, 1], [1, −1]].
                    matrix[i * order + j] = match (symbol == 0.0, both_odd) {
                        (true, _) => 1.0 - 2.0 * f32::from(i % 2 == 1 || j % 2 == 1),
                        (false, true) => -symbol,
                        (false, false) => symbol,
                    };
                }
            }
        }
        _ => {}
    }
    matrix
}

/// The columns of a matrix, then its rows, each with zeros up to a multiple of sixteen numbers; nothing for an order of 1.
fn padded(matrix: &[f32], order: usize) -> Vec<f32> {
    if order == 1 {
        return Vec::new();
    }
    let zeros = order.next_multiple_of(16) - order;
    let mut padded = Vec::with_capacity(2 * order * (order + zeros));
    for transposed in [true, false] {
        for i in 0..order {
            let line = (0..order).map(|j| {
                matrix[if transposed {
                    j * order + i
                } else {
                    i * order + j
                }]
            });
            padded.extend(line.chain(std::iter::repeat_n(0.0, zeros)));
        }
    }
    padded
}

/// The bordered matrix of quadratic residues modulo the prime `q`, of order `q + 1` with a zero diagonal: its
/// first row is +1 and its first column `column`.
fn conference(q: usize, column: f32) -> Vec<f32> {
    let n = q + 1;
    let residue = |a: usize| (1..q).any(|x| x * x % q == a);
    let mut matrix = vec![0.0; n * n];
    for i in 0..n {
        for j in 0..n {
            matrix[i * n + j] = match (i, j) {
                _ if i == j => 0.0,
                (0, _) => 1.0,
                (_, 0) => column,
                _ if residue((j + q - i) % q) => 1.0,
                _ => -1.0,
            };
        }
    }
    matrix
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: [usize; 12] = [8, 24, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512];

    #[test]
    fn every_head_size_is_orthogonal() {
        for d in SIZES {
            let rotation = Rotation::new(d).unwrap();
            let columns: Vec<Vec<f32>> = (0..d)
                .map(|j| {
                    let mut e = vec![0.0; d];
                    e[j] = 1.0;
                    rotation.forward(&mut e);
                    e
                })
                .collect();
            for i in 0..d {
                for j in 0..d {
                    let dot: f64 = (0..d)
                        .map(|k| f64::from(columns[i][k]) * f64::from(columns[j][k]))
                        .sum();
                    assert!(
                        (dot - f64::from(u8::from(i == j))).abs() < 1e-6,
                        "D={d} {i},{j}: {dot}"
                    );
                }
            }
        }
    }

    #[test]
    fn the_inverse_undoes_the_rotation() {
        for d in SIZES {
            let rotation = Rotation::new(d).unwrap();
            let x: Vec<f32> = (0..d)
                .map(|i| ((i * 37 + 11) % 101) as f32 / 50.0 - 1.0)
                .collect();
            let mut y = x.clone();
            rotation.forward(&mut y);
            assert!(x.iter().zip(&y).any(|(a, b)| (a - b).abs() > 0.1));
            rotation.inverse(&mut y);
            for (a, b) in x.iter().zip(&y) {
                assert!((a - b).abs() < 1e-6, "D={d}");
            }
        }
    }

    #[test]
    fn columns_and_rows_are_those_of_the_matrix() {
        assert!(Rotation::new(64).unwrap().columns().is_empty());
        for (d, order, stride) in [(96, 12, 16), (80, 20, 32), (112, 28, 32)] {
            let rotation = Rotation::new(d).unwrap();
            let (columns, rows) = (rotation.columns(), rotation.rows());
            assert_eq!(
                (columns.len(), rows.len()),
                (order * stride, order * stride)
            );
            for i in 0..order {
                for j in 0..stride {
                    let inside = j < order;
                    let entry = |row, column| {
                        if inside {
                            rotation.paley_entry(row, column)
                        } else {
                            0.0
                        }
                    };
                    assert_eq!(
                        columns[i * stride + j],
                        entry(j, i),
                        "D={d} column {i}, {j}"
                    );
                    assert_eq!(rows[i * stride + j], entry(i, j), "D={d} row {i}, {j}");
                }
            }
        }
    }

    #[test]
    fn signs_start_the_same_at_every_size() {
        let table = Rotation::new(512).unwrap();
        // 0xa7 is 0b1010_0111: −1 at channels 0, 1, 2, 5 and 7.
        assert_eq!(
            table.signs()[..8],
            [-1.0, -1.0, -1.0, 1.0, 1.0, -1.0, 1.0, -1.0]
        );
        for d in SIZES {
            assert_eq!(Rotation::new(d).unwrap().signs(), &table.signs()[..d]);
        }
    }

    #[test]
    fn other_sizes_are_errors() {
        for d in [0, 1, 4, 36, 65, 72, 100, 321, 384 + 48, 576, 1024] {
            assert!(Rotation::new(d).is_err(), "{d}");
        }
    }
}
