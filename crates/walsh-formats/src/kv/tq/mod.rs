//! Codebook codecs, `tqB`: one scale, or one for each half of more than 256 numbers, codes of the Lloyd-Max codebook of
//! `B` bits, packed without padding (after TurboQuant, arXiv 2504.19874).

pub mod pack;
mod search;

use half::f16;

use super::family::{Bounds, Encoded, Family, HALF_BOUND, Refusal, Source};
use crate::DType;
use crate::codebook::{Codebook, TqBits, codebook};
use crate::rotation::MAX_HEAD_DIM;
use search::{normalise, quantise, search, square_sum};

pub use search::{SCALE_CANDIDATES, TINY_SIGMA, lane_sum};

/// The most numbers that share a scale.
pub const MAX_GROUP: usize = 256;

/// What a codebook codec stores as the scale of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ScaleKind {
    /// The least-squares factor of the chosen centroids, in half precision; the encoder tries several quantisations
    /// and keeps the best.
    LeastSquares,
    /// The mlx-native convention, in single precision: the L2 norm of a group that is the whole head, the root mean
    /// square of each half of a head of more than 256. Numbers of such a half are multiplied by the factor before they are
    /// quantised, and divided by it when they are decoded.
    Norm(NormFactor),
}

/// The factor of [`ScaleKind::Norm`], from 1/64 to 64: what the root mean square of each half of a head of more than 256
/// numbers becomes before the nearest centroids are sought. Shorter heads have the factor 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NormFactor(u32);

impl NormFactor {
    /// The deviation that the codebooks are made for.
    pub const ONE: Self = Self(1f32.to_bits());

    /// A factor; `None` when it is not from 1/64 to 64.
    pub fn new(factor: f32) -> Option<Self> {
        (1.0 / 64.0..=64.0)
            .contains(&factor)
            .then_some(Self(factor.to_bits()))
    }

    /// The number.
    pub const fn get(self) -> f32 {
        f32::from_bits(self.0)
    }
}

impl ScaleKind {
    /// Both of them, norms with the factor 1.
    pub const ALL: [ScaleKind; 2] = [ScaleKind::LeastSquares, ScaleKind::Norm(NormFactor::ONE)];
}

/// A codebook codec.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tq {
    /// Bits per number.
    pub bits: TqBits,
    /// The convention of the stored scale.
    pub scale: ScaleKind,
    /// Whether vectors are rotated before they are quantised.
    pub rotate: bool,
}

impl Tq {
    /// The codec that `tqB` names: rotated, with least-squares scales.
    pub const fn new(bits: TqBits) -> Self {
        Self {
            bits,
            scale: ScaleKind::LeastSquares,
            rotate: true,
        }
    }

    /// The name, without options.
    pub(super) fn name(self) -> String {
        format!("tq{}", self.bits.get())
    }
}

impl Family for Tq {
    fn refuses(&self, head_dim: usize) -> Option<&'static str> {
        // Groups are whole vectors of sixteen.
        let whole = if head_dim > MAX_GROUP { 32 } else { 16 };
        if !head_dim.is_multiple_of(whole) {
            return Some(
                "it must be a multiple of 16 up to 256 and of 32 above; f16 takes this size",
            );
        }
        let scaled = matches!(self.scale, ScaleKind::Norm(factor) if factor != NormFactor::ONE);
        (scaled && head_dim <= MAX_GROUP).then_some(
            "a factor of +norm is for heads of more than 256; +norm without one takes this size",
        )
    }

    fn code_bytes(&self, head_dim: usize) -> usize {
        head_dim * self.bits.get() / 8
    }

    fn groups(&self, head_dim: usize) -> usize {
        head_dim.div_ceil(MAX_GROUP)
    }

    fn scale_dtype(&self) -> Option<DType> {
        match self.scale {
            ScaleKind::LeastSquares => Some(DType::F16),
            ScaleKind::Norm(_) => Some(DType::F32),
        }
    }

    fn scale_factor(&self, head_dim: usize) -> f32 {
        match self.scale {
            ScaleKind::Norm(_) if self.groups(head_dim) == 1 => {
                (1.0 / (head_dim as f64).sqrt()) as f32
            }
            ScaleKind::Norm(factor) => 1.0 / factor.get(),
            ScaleKind::LeastSquares => 1.0,
        }
    }

    fn codebook(&self) -> Option<&'static Codebook> {
        Some(codebook(self.bits))
    }

    fn bounds(&self, group_len: usize) -> Bounds {
        let norm = match self.scale {
            // The scales are 0.9 to 1.2 times the root mean square, but for groups of few magnitudes: to 2.5 times where all
            // share the innermost cell, to 4.5 where one number of 256 is all that there is.
            ScaleKind::LeastSquares => HALF_BOUND / 5.0 * (group_len as f64).sqrt(),
            // A factor below 1 makes more of them when they are decoded.
            ScaleKind::Norm(factor) => f64::from(f32::MAX) * f64::from(factor.get().min(1.0)),
        };
        let number = f64::INFINITY;
        Bounds { number, norm }
    }

    fn encode(&self, source: Source<'_>, out: Encoded<'_>) -> Result<(), Refusal> {
        let head_dim = source.row.len();
        let groups = self.groups(head_dim);
        let group_len = head_dim / groups;
        let mut unpacked = [0u8; MAX_HEAD_DIM];
        let unpacked = &mut unpacked[..head_dim];
        let stored = match self.scale {
            ScaleKind::LeastSquares => {
                self.quantise_fitted(source, (group_len, out.gain), unpacked)?
            }
            ScaleKind::Norm(factor) => {
                self.quantise_normed(&source, (group_len, factor), unpacked)?
            }
        };
        for (group, scale) in stored[..groups].iter().enumerate() {
            match self.scale {
                ScaleKind::LeastSquares => out.scales[2 * group..][..2]
                    .copy_from_slice(&f16::from_f32(*scale).to_le_bytes()),
                ScaleKind::Norm(_) => {
                    out.scales[4 * group..][..4].copy_from_slice(&scale.to_le_bytes());
                }
            }
        }
        pack::pack(self.bits, unpacked, out.codes);
        Ok(())
    }

    fn decode(&self, codes: &[u8], scales: &[u8], out: &mut [f32]) {
        let head_dim = out.len();
        let centroids = &codebook(self.bits).centroids;
        let mut unpacked = [0u8; MAX_HEAD_DIM];
        let unpacked = &mut unpacked[..head_dim];
        pack::unpack(self.bits, codes, unpacked);
        let group_len = head_dim / self.groups(head_dim);
        for (group, values) in out.chunks_exact_mut(group_len).enumerate() {
            let scale = self.decode_scale(scales, group, head_dim);
            for (value, code) in values.iter_mut().zip(&unpacked[group * group_len..]) {
                *value = centroids[usize::from(*code)] * scale;
            }
        }
    }
}

impl Tq {
    /// Quantises a row by the least-squares convention; returns the scale of each group, times `gain`.
    fn quantise_fitted(
        self,
        source: Source<'_>,
        (group_len, gain): (usize, f32),
        codes: &mut [u8],
    ) -> Result<[f32; 2], Refusal> {
        let rotated = source.rotated_mut();
        let book = codebook(self.bits);
        let mut stored = [0f32; 2];
        let groups = rotated
            .chunks_exact_mut(group_len)
            .zip(codes.chunks_exact_mut(group_len));
        for ((values, codes), stored) in groups.zip(&mut stored) {
            let sigma = (square_sum(values) / group_len as f64).sqrt() as f32;
            if sigma == 0.0 {
                // All codes of a zero vector are alike; the scale makes it zero.
                codes.fill(book.code(0.0));
                continue;
            }
            if !sigma.is_finite() {
                return Err(Refusal::OutOfRange(f64::from(sigma)));
            }
            normalise(values, sigma);
            *stored = sigma * search(book, values, codes) * gain;
            if !f16::from_f32(*stored).is_finite() {
                return Err(Refusal::OutOfRange(f64::from(sigma)));
            }
        }
        Ok(stored)
    }

    /// Quantises a row by the norm convention; returns the scale of each group.
    fn quantise_normed(
        self,
        source: &Source<'_>,
        (group_len, factor): (usize, NormFactor),
        codes: &mut [u8],
    ) -> Result<[f32; 2], Refusal> {
        let mut rotated = [0f64; MAX_HEAD_DIM];
        let rotated = &mut rotated[..source.row.len()];
        for (r, x) in rotated.iter_mut().zip(source.row) {
            *r = f64::from(*x);
        }
        if let Some(rotation) = source.rotation {
            rotation.forward_f64(rotated);
        }
        let whole = group_len == rotated.len();
        let book = codebook(self.bits);
        let mut stored = [0f32; 2];
        let groups = rotated
            .chunks_exact(group_len)
            .zip(codes.chunks_exact_mut(group_len));
        for ((values, codes), stored) in groups.zip(&mut stored) {
            let norm = square_sum(values).sqrt();
            let sigma = norm / (group_len as f64).sqrt();
            *stored = if whole { norm } else { sigma } as f32;
            if !stored.is_finite() {
                return Err(Refusal::OutOfRange(norm));
            }
            if sigma == 0.0 {
                codes.fill(book.code(0.0));
                continue;
            }
            quantise(book, values, sigma / f64::from(factor.get()), codes);
        }
        Ok(stored)
    }

    /// The factor of a group's centroids: its stored scale times [`scale_factor`](Family::scale_factor).
    fn decode_scale(self, scales: &[u8], group: usize, head_dim: usize) -> f32 {
        match self.scale {
            ScaleKind::LeastSquares => {
                f16::from_le_bytes([scales[2 * group], scales[2 * group + 1]]).to_f32()
            }
            ScaleKind::Norm(_) => {
                let at = 4 * group;
                f32::from_le_bytes([scales[at], scales[at + 1], scales[at + 2], scales[at + 3]])
                    * self.scale_factor(head_dim)
            }
        }
    }
}
