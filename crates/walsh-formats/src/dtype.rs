//! The storage types of tensors.

use std::fmt;
use std::str::FromStr;

use crate::error::FormatError;

/// What is known of one type.
struct Layout {
    name: &'static str,
    file_id: Option<u32>,
    block_len: usize,
    block_bytes: usize,
}

/// The first of the numbers that types of Walsh's own have in files, far from GGML's.
const OWN: u32 = 0x5741_4c00;

/// Declares the types: each with its name and its number in files, which is GGML's below [`OWN`], and how many values a block holds in how many bytes,
/// with the struct of [`crate::ggml`] that says which.
macro_rules! dtypes {
    (($d:tt) $(
        $(#[$doc:meta])*
        $variant:ident = $name:literal, $file_id:expr, $len:literal in $bytes:literal $(of $block:ident)?;
    )*) => {
        /// How a tensor's values are stored: GGML's types, groups of MLX's as blocks, and plain bytes.
        ///
        /// A quantised type stores `block_len` consecutive values of a row in `block_bytes` bytes. The layouts
        /// are those of GGML but for the types of MLX; [`crate::ggml`] has them as structs.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum DType {
            $($(#[$doc])* $variant,)*
        }

        impl DType {
            /// Every type, in the order of the declaration.
            pub const ALL: &'static [DType] = &[$(DType::$variant),*];

            const fn layout(self) -> Layout {
                match self {
                    $(DType::$variant => Layout {
                        name: $name,
                        file_id: $file_id,
                        block_len: $len,
                        block_bytes: $bytes,
                    },)*
                }
            }
        }

        /// Evaluates an expression in which a name stands for the block struct of a [`DType`], or another for types
        /// without blocks.
        ///
        /// ```
        /// use walsh_formats::{DType, with_block};
        /// let bytes = |dtype| with_block!(dtype, B => size_of::<B>(), else => 0);
        /// assert_eq!((bytes(DType::Q4_0), bytes(DType::F16)), (18, 0));
        /// ```
        #[macro_export]
        macro_rules! with_block {
            ($d dtype:expr, $d block:ident => $d body:expr, else => $d other:expr) => {
                match $d dtype {
                    $($($crate::DType::$variant => {
                        type $d block = $crate::ggml::$block;
                        $d body
                    })?)*
                    _ => $d other,
                }
            };
        }
    };
}

dtypes! {
    ($)

    /// IEEE 754 single precision.
    F32 = "f32", Some(0), 1 in 4;
    /// IEEE 754 half precision.
    F16 = "f16", Some(1), 1 in 2;
    /// The upper half of an `F32`.
    BF16 = "bf16", Some(30), 1 in 2;
    /// 32-bit signed integers: token ids and positions.
    I32 = "i32", Some(26), 1 in 4;
    /// Bytes without a meaning of their own, such as packed codes. Not a GGML type.
    U8 = "u8", None, 1 in 1;
    /// 4 bits, blocks of 32 with one scale.
    Q4_0 = "q4_0", Some(2), 32 in 18 of BlockQ4_0;
    /// 4 bits, blocks of 32 with a scale and a minimum.
    Q4_1 = "q4_1", Some(3), 32 in 20 of BlockQ4_1;
    /// 5 bits, blocks of 32 with one scale.
    Q5_0 = "q5_0", Some(6), 32 in 22 of BlockQ5_0;
    /// 5 bits, blocks of 32 with a scale and a minimum.
    Q5_1 = "q5_1", Some(7), 32 in 24 of BlockQ5_1;
    /// 8 bits, blocks of 32 with one scale.
    Q8_0 = "q8_0", Some(8), 32 in 34 of BlockQ8_0;
    /// 2 bits, blocks of 256; every 16 values have a 4-bit scale and minimum.
    Q2K = "q2_K", Some(10), 256 in 84 of BlockQ2K;
    /// 3 bits, blocks of 256; every 16 values have a 6-bit scale.
    Q3K = "q3_K", Some(11), 256 in 110 of BlockQ3K;
    /// 4 bits, blocks of 256; every 32 values have a 6-bit scale and minimum.
    Q4K = "q4_K", Some(12), 256 in 144 of BlockQ4K;
    /// 5 bits, blocks of 256; every 32 values have a 6-bit scale and minimum.
    Q5K = "q5_K", Some(13), 256 in 176 of BlockQ5K;
    /// 6 bits, blocks of 256; every 16 values have an 8-bit scale.
    Q6K = "q6_K", Some(14), 256 in 210 of BlockQ6K;
    /// 4-bit indices into a fixed table, blocks of 32 with one scale.
    IQ4NL = "iq4_nl", Some(20), 32 in 18 of BlockIq4Nl;
    /// 4-bit indices into a fixed table, blocks of 256; every 32 values have a 6-bit scale.
    IQ4XS = "iq4_xs", Some(23), 256 in 136 of BlockIq4Xs;
    /// 4-bit floats (E2M1), blocks of 32 with a power of two for their scale.
    MXFP4 = "mxfp4", Some(39), 32 in 17 of BlockMxfp4;
    /// 4-bit floats (E2M1), blocks of 64; every 16 values have an 8-bit float (UE4M3) for their scale.
    NVFP4 = "nvfp4", Some(40), 64 in 36 of BlockNvfp4;
    /// Points of a grid of 512 for every 4 values, and signs, blocks of 256; every 32 values have a 4-bit scale.
    IQ3S = "iq3_s", Some(21), 256 in 110 of BlockIq3S;
    /// Points of a grid of 256 for every 4 values, and signs, blocks of 256; every 32 values have a 4-bit scale.
    IQ3XXS = "iq3_xxs", Some(18), 256 in 98 of BlockIq3Xxs;
    /// Points of a grid of 1024 for every 8 values, and signs, blocks of 256; every 16 values have a 4-bit scale.
    IQ2S = "iq2_s", Some(22), 256 in 82 of BlockIq2S;
    /// Points of a grid of 512 for every 8 values, and signs, blocks of 256; every 16 values have a 4-bit scale.
    IQ2XS = "iq2_xs", Some(17), 256 in 74 of BlockIq2Xs;
    /// Points of a grid of 256 for every 8 values, and signs, blocks of 256; every 32 values have a 4-bit scale.
    IQ2XXS = "iq2_xxs", Some(16), 256 in 66 of BlockIq2Xxs;
    /// Points of a grid of 2048 for every 8 values, blocks of 256; every 16 values have a 3-bit scale, every 8 a shift.
    IQ1M = "iq1_m", Some(29), 256 in 56 of BlockIq1M;
    /// Points of a grid of 2048 for every 8 values, blocks of 256; every 32 values have a 3-bit scale and a shift.
    IQ1S = "iq1_s", Some(19), 256 in 50 of BlockIq1S;
    /// Three values, five to a byte, blocks of 256 with one scale.
    TQ1_0 = "tq1_0", Some(34), 256 in 54 of BlockTq1_0;
    /// Three values in 2 bits each, blocks of 256 with one scale.
    TQ2_0 = "tq2_0", Some(35), 256 in 66 of BlockTq2_0;
    /// 1 bit, blocks of 128 with one scale.
    Q1_0 = "q1_0", Some(41), 128 in 18 of BlockQ1_0;
    /// 2 bits, blocks of 64 with one scale.
    Q2_0 = "q2_0", Some(42), 64 in 18 of BlockQ2_0;
    /// MLX's 2 bits, groups of 64 with a scale and a bias. Not a GGML type.
    MLX2 = "mlx2", Some(OWN + 2), 64 in 20 of BlockMlx2;
    /// MLX's 3 bits, groups of 64 with a scale and a bias. Not a GGML type.
    MLX3 = "mlx3", Some(OWN + 3), 64 in 28 of BlockMlx3;
    /// MLX's 4 bits, groups of 64 with a scale and a bias. Not a GGML type.
    MLX4 = "mlx4", Some(OWN + 4), 64 in 36 of BlockMlx4;
    /// MLX's 5 bits, groups of 64 with a scale and a bias. Not a GGML type.
    MLX5 = "mlx5", Some(OWN + 5), 64 in 44 of BlockMlx5;
    /// MLX's 6 bits, groups of 64 with a scale and a bias. Not a GGML type.
    MLX6 = "mlx6", Some(OWN + 6), 64 in 52 of BlockMlx6;
    /// MLX's 8 bits, groups of 64 with a scale and a bias. Not a GGML type.
    MLX8 = "mlx8", Some(OWN + 8), 64 in 68 of BlockMlx8;
    /// MLX's 2 bits, groups of 32 with a scale and a bias. Not a GGML type.
    MLX2G32 = "mlx2_32", Some(OWN + 34), 32 in 12 of BlockMlx2G32;
    /// MLX's 3 bits, groups of 32 with a scale and a bias. Not a GGML type.
    MLX3G32 = "mlx3_32", Some(OWN + 35), 32 in 16 of BlockMlx3G32;
    /// MLX's 6 bits, groups of 32 with a scale and a bias. Not a GGML type.
    MLX6G32 = "mlx6_32", Some(OWN + 38), 32 in 28 of BlockMlx6G32;
    /// MLX's 8 bits, groups of 32 with a scale and a bias. Not a GGML type.
    MLX8G32 = "mlx8_32", Some(OWN + 40), 32 in 36 of BlockMlx8G32;
}

impl DType {
    /// The type with this number in GGUF files.
    pub fn from_file_id(id: u32) -> Option<DType> {
        DType::ALL
            .iter()
            .copied()
            .find(|dtype| dtype.file_id() == Some(id))
    }

    /// The type's number in GGML; `U8` has none, and types of Walsh's own have none.
    pub const fn ggml_id(self) -> Option<u32> {
        match self.layout().file_id {
            Some(id) if id < OWN => Some(id),
            _ => None,
        }
    }

    /// The type's number in GGUF files: GGML's, or one of Walsh's own, in files that nothing else reads. `U8` has none.
    pub const fn file_id(self) -> Option<u32> {
        self.layout().file_id
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

    /// Whether it stores real numbers: all types but `I32` and `U8` do.
    pub const fn is_real(self) -> bool {
        !matches!(self, DType::I32 | DType::U8)
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

    /// The name of the type, such as `q4_K`: GGML's where it is one of its types.
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
            if let Some(id) = dtype.file_id() {
                assert_eq!(DType::from_file_id(id), Some(dtype));
            }
        }
        assert_eq!(DType::from_file_id(4), None);
        assert_eq!(DType::from_file_id(u32::MAX), None);
        assert_eq!(DType::MLX4.ggml_id(), None);
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
