//! What a family of codecs decides: how numbers become codes and scales, and which rows it takes.
//!
//! A family has a file: plain floats, GGML's blocks, codebooks. Rotation comes before it and is no part of it.

use super::KvError;
use crate::codebook::Codebook;
use crate::rotation::Rotation;
use crate::{DType, FormatError, ggml};

/// Magnitudes that round to infinity in half precision, from here on.
pub(super) const HALF_BOUND: f64 = 65_520.0;

/// What vectors stay below so that a codec can hold them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds {
    /// The magnitude of each number.
    pub number: f64,
    /// The norm of the vector.
    pub norm: f64,
}

/// A row that is to be encoded.
pub(super) struct Source<'a> {
    pub(super) row: &'a [f32],
    /// As many numbers, of no value.
    pub(super) scratch: &'a mut [f32],
    pub(super) rotation: Option<&'a Rotation>,
}

impl<'a> Source<'a> {
    /// The row, rotated if it is to be.
    fn rotated(self) -> &'a [f32] {
        match self.rotation {
            Some(_) => self.rotated_mut(),
            None => self.row,
        }
    }

    /// A copy of the row, rotated if it is to be.
    pub(super) fn rotated_mut(self) -> &'a mut [f32] {
        self.scratch.copy_from_slice(self.row);
        if let Some(rotation) = self.rotation {
            rotation.forward(self.scratch);
        }
        self.scratch
    }
}

/// A row's codes and scales, as long as the codec says.
pub(super) struct Encoded<'a> {
    pub(super) codes: &'a mut [u8],
    pub(super) scales: &'a mut [u8],
    /// What scales that are searched for are multiplied by.
    pub(super) gain: f32,
}

/// Why a row of finite numbers cannot be stored.
pub(super) enum Refusal {
    /// A rotated number is not finite.
    NotFinite { channel: usize, value: f32 },
    /// What is stored cannot represent this magnitude.
    OutOfRange(f64),
}

impl Refusal {
    pub(super) fn of(self, codec: &impl ToString) -> KvError {
        match self {
            Refusal::NotFinite { channel, value } => KvError::NotFinite { channel, value },
            Refusal::OutOfRange(magnitude) => KvError::OutOfRange {
                magnitude,
                codec: codec.to_string(),
            },
        }
    }
}

/// A codec of a family, as rows know it. Head sizes are those that it does not refuse.
pub(super) trait Family {
    /// Why rows of so many numbers, 1 to 512, cannot be stored; `None` when they can.
    fn refuses(&self, head_dim: usize) -> Option<&'static str>;

    /// Bytes of codes of a row.
    fn code_bytes(&self, head_dim: usize) -> usize;

    /// Scales of a row that lie beside its codes.
    fn groups(&self, _head_dim: usize) -> usize {
        0
    }

    /// The type of those scales.
    fn scale_dtype(&self) -> Option<DType> {
        None
    }

    /// What a stored scale is multiplied by when it is decoded.
    fn scale_factor(&self, _head_dim: usize) -> f32 {
        1.0
    }

    /// What codes stand for, if that is a codebook.
    fn codebook(&self) -> Option<&'static Codebook> {
        None
    }

    /// What numbers and vectors, rotated already, stay below when so many share a scale.
    fn bounds(&self, group_len: usize) -> Bounds;

    /// Encodes a row of finite numbers. Nothing is written when it is refused.
    fn encode(&self, source: Source<'_>, out: Encoded<'_>) -> Result<(), Refusal>;

    /// Decodes a row as it lies.
    fn decode(&self, codes: &[u8], scales: &[u8], out: &mut [f32]);
}

/// Declares the types of a family whose rows are rows of a GGML type.
macro_rules! types {
    ($(#[$doc:meta])* $name:ident: $($dtype:ident),*) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $(#[doc = concat!("[`DType::", stringify!($dtype), "`].")] $dtype,)*
        }

        impl $name {
            /// All of them, in the order in which they are listed to users.
            pub const ALL: &'static [Self] = &[$(Self::$dtype),*];

            /// The type.
            pub const fn dtype(self) -> DType {
                match self {
                    $(Self::$dtype => DType::$dtype,)*
                }
            }

            /// The codec of a type; `None` for types that are none of these.
            pub fn of(dtype: DType) -> Option<Self> {
                Self::ALL.iter().copied().find(|codec| codec.dtype() == dtype)
            }
        }
    };
}
pub(super) use types;

/// Bytes of a row of a GGML type, which is whole blocks.
pub(super) fn dense_bytes(dtype: DType, head_dim: usize) -> usize {
    head_dim / dtype.block_len() * dtype.block_bytes()
}

/// Encodes a row of a GGML type.
pub(super) fn encode_dense(
    dtype: DType,
    source: Source<'_>,
    out: Encoded<'_>,
) -> Result<(), Refusal> {
    let row = source.rotated();
    // Half and brain floats round a finite number past their range to infinity, and blocks hold half scales.
    let largest = row.iter().fold(0f32, |a, v| a.max(v.abs()));
    ggml::encode(dtype, row, out.codes).map_err(|wrong| match wrong {
        FormatError::NotFinite { index, value, .. } => Refusal::NotFinite {
            channel: index,
            value,
        },
        _ => Refusal::OutOfRange(f64::from(largest)),
    })
}

/// Decodes a row of a GGML type.
pub(super) fn decode_dense(dtype: DType, codes: &[u8], out: &mut [f32]) {
    // The lengths and the type were checked when the codec was made.
    if let Err(wrong) = ggml::decode(dtype, codes, out) {
        panic!("{wrong}");
    }
}
