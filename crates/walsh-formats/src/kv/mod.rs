//! KV-cache codecs: what one key or value vector becomes in the cache.
//!
//! A codec is dense (a GGML type) or a rotated codebook codec, `tqB`: rotate the vector, take one scale, or one for each
//! half of more than 256 numbers, quantise to the Lloyd-Max codebook of `B` bits, pack without padding (after TurboQuant,
//! arXiv 2504.19874). Keys and values choose independently: [`KvCodecs`] is the pair of one cache, [`RowCodec`] binds a
//! codec to a head size. [`KvSpec`] is what users write: the pair, what keys are prepared with, which tokens are kept
//! in a denser codec, and which layers differ.

mod encode;
mod error;
pub mod pack;
mod row;
mod spec;
mod text;

#[cfg(test)]
mod tests;

pub use encode::{SCALE_CANDIDATES, TINY_SIGMA, lane_sum};
pub use error::KvError;
pub use row::RowCodec;
pub use spec::{Budget, KvSpec, LayerKv, LayerRange, Overlay};

use crate::DType;

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

/// What a codebook codec stores as the scale of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ScaleKind {
    /// The least-squares factor of the chosen centroids, in half precision; the encoder tries several quantisations
    /// and keeps the best.
    LeastSquares,
    /// The mlx-native convention, in single precision: the L2 norm of a group that is the whole head, the root mean
    /// square of each half of a head of more than 256.
    Norm,
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
}

/// How keys or values are stored. Its text form is `f16`, `q8_0`, `q4_0+rot`, `tq4`, `tq8+norot`, `tq4+norm`, …
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KvCodec {
    /// A GGML type: one of [`KvCodec::DENSE`].
    Dense(DType),
    /// A GGML type of the rotated vector.
    Rotated(DType),
    /// A codebook codec.
    Tq(Tq),
}

impl KvCodec {
    /// The dense types that a cache can hold.
    pub const DENSE: [DType; 6] = [
        DType::F32,
        DType::F16,
        DType::BF16,
        DType::Q8_0,
        DType::Q5_0,
        DType::Q4_0,
    ];

    /// Whether vectors are rotated before they are stored.
    pub const fn rotates(self) -> bool {
        match self {
            KvCodec::Dense(_) => false,
            KvCodec::Rotated(_) => true,
            KvCodec::Tq(tq) => tq.rotate,
        }
    }

    /// The same codec, of vectors that are rotated before they are stored or of plain ones.
    #[must_use]
    pub const fn with_rotation(self, rotate: bool) -> Self {
        match self {
            KvCodec::Dense(dtype) | KvCodec::Rotated(dtype) if rotate => KvCodec::Rotated(dtype),
            KvCodec::Dense(dtype) | KvCodec::Rotated(dtype) => KvCodec::Dense(dtype),
            KvCodec::Tq(tq) => KvCodec::Tq(Tq { rotate, ..tq }),
        }
    }

    /// The GGML type, unless it is a codebook codec.
    pub const fn dense(self) -> Option<DType> {
        match self {
            KvCodec::Dense(dtype) | KvCodec::Rotated(dtype) => Some(dtype),
            KvCodec::Tq(_) => None,
        }
    }
}

/// The codecs of a cache's keys and values. Its text form is one codec for both, `tq4`, or a pair, `k=tq5,v=tq4`.
///
/// ```
/// use walsh_formats::kv::KvCodecs;
/// let codecs: KvCodecs = "k=f16,v=tq8+norot".parse()?;
/// assert_eq!(codecs.to_string(), "k=f16,v=tq8+norot");
/// assert_eq!("tq4".parse::<KvCodecs>()?.to_string(), "tq4");
/// # Ok::<(), walsh_formats::kv::KvError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KvCodecs {
    /// How keys are stored.
    pub key: KvCodec,
    /// How values are stored.
    pub value: KvCodec,
}

impl KvCodecs {
    /// The same codec for keys and values.
    pub const fn both(codec: KvCodec) -> Self {
        Self {
            key: codec,
            value: codec,
        }
    }
}
