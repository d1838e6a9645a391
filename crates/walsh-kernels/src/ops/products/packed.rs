//! Rows of weights in blocks as first matrices of products on tensor cores (`packed_rows.h`).

use walsh_formats::DType;

use super::super::blocks::{alignment, block, is_float, type_constant};
use super::joined::{Products, row_bytes};

/// The kernel counts the bytes of sixteen rows in 32 bits.
const MOST_ROW_BYTES: u64 = 1 << 28;

/// Whether `packed_rows.h` reads a type's codes word by word.
pub(super) fn knows(dtype: DType) -> bool {
    matches!(
        dtype,
        DType::Q4_0
            | DType::Q4_1
            | DType::Q5_0
            | DType::Q5_1
            | DType::Q8_0
            | DType::Q2K
            | DType::Q3K
            | DType::Q4K
            | DType::Q5K
            | DType::Q6K
            | DType::IQ4NL
            | DType::IQ4XS
    )
}

/// Whether `packed_rows.h` computes in halves, or in bfloat16.
pub(super) fn halved(dtype: DType) -> bool {
    matches!(dtype, DType::Q4K | DType::Q5K | DType::Q6K | DType::F16)
}

/// The bytes of sixteen rows of so many blocks in a ring, as `packed_rows.h` counts them.
pub(super) fn slot_bytes(dtype: DType, blocks: u64) -> u64 {
    let bytes = blocks * block(dtype).1 as u64;
    let chunks = match alignment(dtype) {
        16 if is_float(dtype) => bytes / 16 + 2,
        16 => bytes / 16,
        _ => (bytes + 15 + 4).div_ceil(16) | 1,
    };
    16 * 16 * chunks
}

/// Whether rows of all weights are short enough to be counted.
pub(super) fn countable(products: &Products) -> bool {
    let mut products = products.products.iter();
    products.all(|p| row_bytes(&p.weight) < MOST_ROW_BYTES)
}

/// [`halved`] of a type by its constant.
pub(super) fn is_halved(stored: i64) -> bool {
    let halved = DType::ALL.iter().filter(|dtype| halved(**dtype));
    halved.copied().any(|dtype| type_constant(dtype) == stored)
}
