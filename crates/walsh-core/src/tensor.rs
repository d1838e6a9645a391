use std::fmt;
use std::ops::Range;

use walsh_formats::DType;

use crate::buffer::{Access, Buffer, Span};
use crate::{Error, Result};

/// A contiguous array of numbers in a buffer.
///
/// The shape is written outermost dimension first; the last dimension is the
/// one that is contiguous and, for block types, the one that blocks run along.
/// Cloning shares the memory.
#[derive(Clone)]
pub struct Tensor {
    buffer: Buffer,
    offset: u64,
    dtype: DType,
    shape: Vec<u64>,
    bytes: u64,
}

impl Tensor {
    /// A view of `shape` numbers of `dtype` from byte `offset` of `buffer`.
    ///
    /// # Errors
    /// When the last dimension is not a whole number of blocks, the offset is
    /// not aligned to the type, the range does not lie within the buffer, or the
    /// buffer is a packed weight's.
    pub fn new(buffer: Buffer, offset: u64, dtype: DType, shape: &[u64]) -> Result<Self> {
        if buffer.access() == Access::Packed {
            return Err(Error::argument(
                "tensor",
                "buffer",
                "of numbers in order",
                "a packed weight's",
            ));
        }
        let bytes = tensor_bytes(dtype, shape)?;
        let align = alignment(dtype);
        if !offset.is_multiple_of(align) {
            return Err(Error::argument(
                "tensor",
                "offset",
                format_args!("a multiple of {align} for {dtype}"),
                offset,
            ));
        }
        match offset.checked_add(bytes) {
            Some(end) if end <= buffer.bytes() => {}
            _ => {
                return Err(Error::argument(
                    "tensor",
                    "offset",
                    format_args!(
                        "such that {bytes} bytes fit into the buffer's {}",
                        buffer.bytes()
                    ),
                    offset,
                ));
            }
        }
        Ok(Self {
            buffer,
            offset,
            dtype,
            shape: shape.to_vec(),
            bytes,
        })
    }

    /// A weight that a device has packed into a buffer.
    pub(crate) fn packed(buffer: Buffer, dtype: DType, shape: &[u64]) -> Result<Self> {
        Ok(Self {
            buffer,
            offset: 0,
            dtype,
            shape: shape.to_vec(),
            bytes: tensor_bytes(dtype, shape)?,
        })
    }

    /// Whether it is a packed weight, which products alone read: see
    /// [`Device::pack`](crate::Device::pack).
    #[must_use]
    pub fn is_packed(&self) -> bool {
        self.buffer.access() == Access::Packed
    }

    /// The buffer that holds it.
    #[must_use]
    pub fn buffer(&self) -> &Buffer {
        &self.buffer
    }

    /// Its first byte within the buffer.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The type of its numbers.
    #[must_use]
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Its dimensions, outermost first.
    #[must_use]
    pub fn shape(&self) -> &[u64] {
        &self.shape
    }

    /// Its size in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many numbers it holds.
    #[must_use]
    pub fn elements(&self) -> u64 {
        // Checked when the tensor was made.
        self.shape.iter().product()
    }

    /// The last dimension; 1 for a scalar.
    #[must_use]
    pub fn row_len(&self) -> u64 {
        self.shape.last().copied().unwrap_or(1)
    }

    /// How many rows of [`row_len`](Self::row_len) it holds.
    #[must_use]
    pub fn row_count(&self) -> u64 {
        self.shape.iter().rev().skip(1).product()
    }

    /// The byte range that it covers.
    #[must_use]
    pub fn span(&self) -> Span {
        Span {
            buffer: self.buffer.clone(),
            offset: self.offset,
            bytes: self.bytes,
        }
    }

    /// The same numbers under another shape of as many elements.
    ///
    /// # Errors
    /// When the number of elements differs, a block would be cut, or the tensor is
    /// a packed weight.
    pub fn reshape(&self, shape: &[u64]) -> Result<Self> {
        if self.is_packed() {
            return Err(Error::argument(
                "reshape",
                "tensor",
                "of numbers in order",
                "a packed weight",
            ));
        }
        let bytes = tensor_bytes(self.dtype, shape)?;
        if bytes != self.bytes {
            return Err(Error::argument(
                "reshape",
                "shape",
                format_args!("one of {} elements", self.elements()),
                format_args!("{shape:?}"),
            ));
        }
        Ok(Self {
            shape: shape.to_vec(),
            ..self.clone()
        })
    }

    /// The entries `range` of the outermost dimension.
    ///
    /// # Errors
    /// When the tensor is a scalar, the range exceeds the dimension, or the
    /// entries of a block type are not whole rows.
    pub fn rows(&self, range: Range<u64>) -> Result<Self> {
        let Some(outer) = self.shape.first().copied() else {
            return Err(Error::argument(
                "rows",
                "tensor",
                "of at least one dimension",
                self,
            ));
        };
        if self.shape.len() < 2 && self.dtype.is_quantised() {
            return Err(Error::argument(
                "rows",
                "tensor",
                "of at least two dimensions for a block type",
                self,
            ));
        }
        if range.start > range.end || range.end > outer {
            return Err(Error::argument(
                "rows",
                "range",
                format_args!("within 0..{outer}"),
                format_args!("{range:?}"),
            ));
        }
        let stride = self.bytes.checked_div(outer).unwrap_or(0);
        let mut shape = self.shape.clone();
        shape[0] = range.end - range.start;
        Self::new(
            self.buffer.clone(),
            self.offset + range.start * stride,
            self.dtype,
            &shape,
        )
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Described(self))
    }
}

impl fmt::Display for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Described(self))
    }
}

struct Described<'a>(&'a Tensor);

impl fmt::Display for Described<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:?}", self.0.dtype, self.0.shape)
    }
}

/// The bytes that `shape` numbers of `dtype` take.
///
/// # Errors
/// When the count overflows 63 bits or the last dimension cuts a block.
pub fn tensor_bytes(dtype: DType, shape: &[u64]) -> Result<u64> {
    let wrong = |expected: &str| {
        Error::argument(
            "tensor",
            "shape",
            expected,
            format_args!("{shape:?} of {dtype}"),
        )
    };
    let (row, outer) = match shape.split_last() {
        Some((row, outer)) => (*row, outer),
        None => (1, &[][..]),
    };
    // A zero dimension counts as one here, so that no product of some of the
    // dimensions overflows either.
    let product = |first: u64| {
        outer
            .iter()
            .try_fold(first.max(1), |all, dim| all.checked_mul((*dim).max(1)))
            .filter(|product| i64::try_from(*product).is_ok())
    };
    product(row).ok_or_else(|| wrong("one of fewer than 2^63 elements"))?;
    if !row.is_multiple_of(dtype.block_len() as u64) {
        return Err(wrong(&format!(
            "rows of a multiple of {} numbers",
            dtype.block_len()
        )));
    }
    let bytes = dtype
        .row_bytes(row)
        .and_then(product)
        .ok_or_else(|| wrong("one of fewer than 2^63 bytes"))?;
    Ok(if shape.contains(&0) { 0 } else { bytes })
}

/// The alignment in bytes that a tensor's offset needs.
fn alignment(dtype: DType) -> u64 {
    match dtype {
        DType::F32 | DType::I32 => 4,
        DType::U8 => 1,
        // Every block layout begins with or contains half floats.
        _ => 2,
    }
}
