//! The storage types of tensors.

use std::fmt;
use std::str::FromStr;

use crate::error::FormatError;

/// How a tensor's values are stored: GGML's types, and plain bytes.
///
/// A quantised type stores `block_len` consecutive values of a row in `block_bytes` bytes. The layouts
/// are those of GGML; [`crate::ggml`] has them as structs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DType {
    /// IEEE 754 single precision.
    F32,
    /// IEEE 754 half precision.
    F16,
    /// The upper half of an `F32`.
    BF16,
    /// 32-bit signed integers: token ids and positions.
    I32,
    /// Bytes without a meaning of their own, such as packed codes. Not a GGML type.
    U8,
    /// 4 bits, blocks of 32 with one scale.
    Q4_0,
    /// 4 bits, blocks of 32 with a scale and a minimum.
    Q4_1,
    /// 5 bits, blocks of 32 with one scale.
    Q5_0,
    /// 5 bits, blocks of 32 with a scale and a minimum.
    Q5_1,
    /// 8 bits, blocks of 32 with one scale.
    Q8_0,
    /// 2 bits, blocks of 256; every 16 values have a 4-bit scale and minimum.
    Q2K,
    /// 3 bits, blocks of 256; every 16 values have a 6-bit scale.
    Q3K,
    /// 4 bits, blocks of 256; every 32 values have a 6-bit scale and minimum.
    Q4K,
    /// 5 bits, blocks of 256; every 32 values have a 6-bit scale and minimum.
    Q5K,
    /// 6 bits, blocks of 256; every 16 values have an 8-bit scale.
    Q6K,
    /// 4-bit indices into a fixed table, blocks of 32 with one scale.
    IQ4NL,
    /// 4-bit indices into a fixed table, blocks of 256; every 32 values have a 6-bit scale.
    IQ4XS,
}

/// What is known of one type; the one table that every method of [`DType`] reads.
struct Layout {
    name: &'static str,
    ggml_id: Option<u32>,
    block_len: usize,
    block_bytes: usize,
}

const fn layout(name: &'static str, ggml_id: u32, block_len: usize, block_bytes: usize) -> Layout {
    Layout {
        name,
        ggml_id: Some(ggml_id),
        block_len,
        block_bytes,
    }
}

impl DType {
    /// Every type, in the order of the declaration.
    pub const ALL: &'static [DType] = &[
        DType::F32,
        DType::F16,
        DType::BF16,
        DType::I32,
        DType::U8,
        DType::Q4_0,
        DType::Q4_1,
        DType::Q5_0,
        DType::Q5_1,
        DType::Q8_0,
        DType::Q2K,
        DType::Q3K,
        DType::Q4K,
        DType::Q5K,
        DType::Q6K,
        DType::IQ4NL,
        DType::IQ4XS,
    ];

    const fn layout(self) -> Layout {
        match self {
            DType::F32 => layout("f32", 0, 1, 4),
            DType::F16 => layout("f16", 1, 1, 2),
            DType::BF16 => layout("bf16", 30, 1, 2),
            DType::I32 => layout("i32", 26, 1, 4),
            DType::U8 => Layout {
                name: "u8",
                ggml_id: None,
                block_len: 1,
                block_bytes: 1,
            },
            DType::Q4_0 => layout("q4_0", 2, 32, 18),
            DType::Q4_1 => layout("q4_1", 3, 32, 20),
            DType::Q5_0 => layout("q5_0", 6, 32, 22),
            DType::Q5_1 => layout("q5_1", 7, 32, 24),
            DType::Q8_0 => layout("q8_0", 8, 32, 34),
            DType::Q2K => layout("q2_K", 10, 256, 84),
            DType::Q3K => layout("q3_K", 11, 256, 110),
            DType::Q4K => layout("q4_K", 12, 256, 144),
            DType::Q5K => layout("q5_K", 13, 256, 176),
            DType::Q6K => layout("q6_K", 14, 256, 210),
            DType::IQ4NL => layout("iq4_nl", 20, 32, 18),
            DType::IQ4XS => layout("iq4_xs", 23, 256, 136),
        }
    }

    /// The type with this number in GGML and in GGUF files.
    pub fn from_ggml(id: u32) -> Option<DType> {
        DType::ALL
            .iter()
            .copied()
            .find(|dtype| dtype.ggml_id() == Some(id))
    }

    /// The type's number in GGML; `U8` has none.
    pub const fn ggml_id(self) -> Option<u32> {
        self.layout().ggml_id
    }

    /// How many values a block holds: 1 for types that are not quantised.
    pub const fn block_len(self) -> usize {
        self.layout().block_len
    }

    /// How many bytes a block takes.
    pub const fn block_bytes(self) -> usize {
        self.layout().block_bytes
    }

    /// Whether several values share a block.
    pub const fn is_quantised(self) -> bool {
        self.layout().block_len > 1
    }

    /// The bytes of a row of `values` values, or `None` when that is not a whole number of blocks or
    /// passes 64 bits.
    pub fn row_bytes(self, values: u64) -> Option<u64> {
        let block_len = self.block_len() as u64;
        if !values.is_multiple_of(block_len) {
            return None;
        }
        (values / block_len).checked_mul(self.block_bytes() as u64)
    }

    /// GGML's name of the type, such as `q4_K`.
    pub const fn name(self) -> &'static str {
        self.layout().name
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for DType {
    type Err = FormatError;

    /// Reads a name in either case: `q4_K` and `Q4_K` are the same.
    fn from_str(name: &str) -> Result<DType, FormatError> {
        DType::ALL
            .iter()
            .copied()
            .find(|dtype| dtype.name().eq_ignore_ascii_case(name))
            .ok_or_else(|| FormatError::UnknownType { name: name.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_ids_come_back() {
        for &dtype in DType::ALL {
            assert_eq!(dtype.name().parse::<DType>(), Ok(dtype));
            assert_eq!(dtype.name().to_uppercase().parse::<DType>(), Ok(dtype));
            if let Some(id) = dtype.ggml_id() {
                assert_eq!(DType::from_ggml(id), Some(dtype));
            }
        }
        assert_eq!(DType::from_ggml(4), None);
        assert_eq!(DType::from_ggml(u32::MAX), None);
        let error = "q4_2".parse::<DType>().unwrap_err().to_string();
        assert!(error.contains("q4_2") && error.contains("q4_K"), "{error}");
    }

    #[test]
    fn rows_are_whole_blocks() {
        assert_eq!(DType::Q4K.row_bytes(512), Some(288));
        assert_eq!(DType::Q4K.row_bytes(0), Some(0));
        assert_eq!(DType::Q4K.row_bytes(128), None);
        assert_eq!(DType::F32.row_bytes(3), Some(12));
        assert_eq!(DType::F32.row_bytes(u64::MAX), None);
    }
}
