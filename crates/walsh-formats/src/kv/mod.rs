//! KV-cache codecs: what one key or value vector becomes in the cache.
//!
//! A codec is of one of three families, each a file here: plain floats, GGML's blocks, and codebooks, `tqB`. Floats and
//! blocks are dense, that is GGML types, and rotated if asked to be; codebook codecs rotate unless asked not to. Keys and
//! values choose independently: [`KvCodecs`] is the pair of one cache, [`RowCodec`] binds a codec to a head size.
//! [`KvSpec`] is what users write: the pair, what keys are prepared with, which tokens are kept in a denser codec, and
//! which layers differ.

mod blocks;
pub(crate) mod error;
mod family;
mod floats;
mod row;
mod spec;
mod text;
mod tq;

#[cfg(test)]
mod tests;

pub use blocks::BlockCodec;
pub use error::KvError;
pub use family::Bounds;
pub use floats::FloatCodec;
pub use row::RowCodec;
pub use spec::{Budget, KvSpec, LayerKv, LayerRange, Overlay};
pub use tq::{MAX_GROUP, NormFactor, SCALE_CANDIDATES, ScaleKind, TINY_SIGMA, Tq, lane_sum, pack};

pub use crate::codebook::TqBits;

use family::Family;

use crate::DType;

/// How keys or values are stored. Its text form is `f16`, `q8_0`, `q4_0+rot`, `tq4`, `tq8+norot`, `tq4+norm`, …
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KvCodec {
    /// A GGML type: one of [`KvCodec::dense_types`].
    Dense(DType),
    /// A GGML type of the rotated vector.
    Rotated(DType),
    /// A codebook codec.
    Tq(Tq),
}

impl KvCodec {
    /// The dense types that a cache can hold.
    pub fn dense_types() -> impl Iterator<Item = DType> {
        let floats = FloatCodec::ALL.iter().map(|codec| codec.dtype());
        floats.chain(BlockCodec::ALL.iter().map(|codec| codec.dtype()))
    }

    /// Every codec without options.
    pub fn all() -> impl Iterator<Item = KvCodec> {
        let tq = TqBits::ALL
            .into_iter()
            .map(|bits| KvCodec::Tq(Tq::new(bits)));
        Self::dense_types().map(KvCodec::Dense).chain(tq)
    }

    /// The name, without options.
    fn name(self) -> String {
        match self {
            KvCodec::Dense(dtype) | KvCodec::Rotated(dtype) => dtype.name().to_owned(),
            KvCodec::Tq(tq) => tq.name(),
        }
    }

    /// The whole bits that it spends on a number, without scales.
    const fn code_bits(self) -> usize {
        match self {
            KvCodec::Dense(dtype) | KvCodec::Rotated(dtype) => {
                8 * dtype.block_bytes() / dtype.block_len()
            }
            KvCodec::Tq(tq) => tq.bits.get(),
        }
    }

    /// What is stored, rotated or not; `None` for a type that no cache holds.
    pub fn storage(self) -> Option<Storage> {
        match self {
            KvCodec::Dense(dtype) | KvCodec::Rotated(dtype) => {
                let float = FloatCodec::of(dtype).map(Storage::Float);
                float.or_else(|| BlockCodec::of(dtype).map(Storage::Block))
            }
            KvCodec::Tq(tq) => Some(Storage::Codebook(tq)),
        }
    }

    /// Whether vectors are rotated before they are stored.
    pub const fn rotates(self) -> bool {
        match self {
            KvCodec::Dense(_) => false,
            KvCodec::Rotated(_) => true,
            KvCodec::Tq(tq) => tq.rotate,
        }
    }

    /// Whether vectors are rotated unless the codec's name says otherwise: those of all codecs but GGML's types.
    pub(super) const fn turns(self) -> bool {
        self.dense().is_none()
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

    /// The GGML type, if it is one.
    pub const fn dense(self) -> Option<DType> {
        match self {
            KvCodec::Dense(dtype) | KvCodec::Rotated(dtype) => Some(dtype),
            KvCodec::Tq(_) => None,
        }
    }
}

/// What a codec stores of vectors, rotated or not: a family and which of it. A backend has a kernel for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Storage {
    /// Plain floats.
    Float(FloatCodec),
    /// GGML's blocks.
    Block(BlockCodec),
    /// Codes of a codebook.
    Codebook(Tq),
}

impl Storage {
    /// The type of the scales that lie beside the codes of a row; `None` where there are none.
    pub fn scale_dtype(&self) -> Option<DType> {
        self.family().scale_dtype()
    }

    fn family(&self) -> &dyn Family {
        match self {
            Storage::Float(codec) => codec,
            Storage::Block(codec) => codec,
            Storage::Codebook(codec) => codec,
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
