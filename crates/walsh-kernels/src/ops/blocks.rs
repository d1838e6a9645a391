//! What the kernels' texts know of block types, generated from `walsh-formats`.

use std::fmt::Write;
use std::mem::offset_of;

use walsh_formats::DType;
use walsh_formats::ggml::{
    BlockIq4Nl, BlockIq4Xs, BlockQ2K, BlockQ3K, BlockQ4_0, BlockQ4_1, BlockQ4K, BlockQ5_0,
    BlockQ5_1, BlockQ5K, BlockQ6K, BlockQ8_0, IQ4_VALUES,
};

use crate::kernel::Variant;
use crate::tables::table;

/// The types by the names that the texts use.
const NAMES: [(&str, DType); 16] = [
    ("F32", DType::F32),
    ("F16", DType::F16),
    ("BF16", DType::BF16),
    ("Q4_0", DType::Q4_0),
    ("Q4_1", DType::Q4_1),
    ("Q5_0", DType::Q5_0),
    ("Q5_1", DType::Q5_1),
    ("Q8_0", DType::Q8_0),
    ("Q2_K", DType::Q2K),
    ("Q3_K", DType::Q3K),
    ("Q4_K", DType::Q4K),
    ("Q5_K", DType::Q5K),
    ("Q6_K", DType::Q6K),
    ("IQ4_NL", DType::IQ4NL),
    ("IQ4_XS", DType::IQ4XS),
    ("I32", DType::I32),
];

/// Words that lie at `at` for the first part of a block, and `step` bytes further for the next.
#[derive(Clone, Copy)]
struct Words {
    at: usize,
    step: usize,
    count: usize,
}

/// The form of a block type, as `blocks.h` describes it.
#[derive(Clone, Copy)]
pub(crate) struct Form {
    low: Words,
    high: Words,
    d: usize,
    minimum: Option<usize>,
    scales: usize,
    scales_high: usize,
    /// Scales per 32 values.
    halves: usize,
    /// The code that stands for zero.
    zero: u32,
    /// Runs of 32 values in a task.
    pub(crate) runs: usize,
    /// Tasks in a block.
    pub(crate) parts: usize,
    /// Blocks of a stage.
    pub(crate) stage: usize,
}

/// A type of one scale for each block of 32, whose block is one task.
const SMALL: Form = Form {
    low: words(0, 0, 4),
    high: words(0, 0, 0),
    d: 0,
    minimum: None,
    scales: 0,
    scales_high: 0,
    halves: 1,
    zero: 0,
    runs: 1,
    parts: 1,
    stage: 128,
};

/// A type of blocks of 256, whose halves are tasks.
const LARGE: Form = Form {
    runs: 4,
    parts: 2,
    stage: 16,
    ..SMALL
};

impl Form {
    /// Blocks of a step of the tiled product: an even number of tasks.
    pub(crate) fn step(&self) -> u64 {
        if self.parts == 1 { 4 } else { 1 }
    }
}

const fn words(at: usize, step: usize, count: usize) -> Words {
    Words { at, step, count }
}

/// The form of a type; `None` for those that have no blocks.
pub(crate) fn form(dtype: DType) -> Option<Form> {
    Some(match dtype {
        DType::Q4_0 => Form {
            d: offset_of!(BlockQ4_0, d),
            low: words(offset_of!(BlockQ4_0, qs), 0, 4),
            zero: 8,
            ..SMALL
        },
        DType::Q4_1 => Form {
            d: offset_of!(BlockQ4_1, d),
            minimum: Some(offset_of!(BlockQ4_1, m)),
            low: words(offset_of!(BlockQ4_1, qs), 0, 4),
            ..SMALL
        },
        DType::Q5_0 => Form {
            d: offset_of!(BlockQ5_0, d),
            low: words(offset_of!(BlockQ5_0, qs), 0, 4),
            high: words(offset_of!(BlockQ5_0, qh), 0, 1),
            zero: 16,
            ..SMALL
        },
        DType::Q5_1 => Form {
            d: offset_of!(BlockQ5_1, d),
            minimum: Some(offset_of!(BlockQ5_1, m)),
            low: words(offset_of!(BlockQ5_1, qs), 0, 4),
            high: words(offset_of!(BlockQ5_1, qh), 0, 1),
            ..SMALL
        },
        DType::Q8_0 => Form {
            d: offset_of!(BlockQ8_0, d),
            low: words(offset_of!(BlockQ8_0, qs), 0, 8),
            stage: 64,
            ..SMALL
        },
        DType::IQ4NL => Form {
            d: offset_of!(BlockIq4Nl, d),
            low: words(offset_of!(BlockIq4Nl, qs), 0, 4),
            ..SMALL
        },
        DType::Q2K => Form {
            d: offset_of!(BlockQ2K, d),
            minimum: Some(offset_of!(BlockQ2K, dmin)),
            low: words(offset_of!(BlockQ2K, qs), 32, 8),
            scales: offset_of!(BlockQ2K, scales),
            halves: 2,
            ..LARGE
        },
        DType::Q3K => Form {
            d: offset_of!(BlockQ3K, d),
            low: words(offset_of!(BlockQ3K, qs), 32, 8),
            high: words(offset_of!(BlockQ3K, hmask), 0, 8),
            scales: offset_of!(BlockQ3K, scales),
            halves: 2,
            zero: 4,
            ..LARGE
        },
        DType::Q4K => Form {
            d: offset_of!(BlockQ4K, d),
            minimum: Some(offset_of!(BlockQ4K, dmin)),
            low: words(offset_of!(BlockQ4K, qs), 64, 8),
            scales: offset_of!(BlockQ4K, scales),
            ..LARGE
        },
        DType::Q5K => Form {
            d: offset_of!(BlockQ5K, d),
            minimum: Some(offset_of!(BlockQ5K, dmin)),
            low: words(offset_of!(BlockQ5K, qs), 64, 8),
            high: words(offset_of!(BlockQ5K, qh), 0, 8),
            scales: offset_of!(BlockQ5K, scales),
            ..LARGE
        },
        DType::Q6K => Form {
            d: offset_of!(BlockQ6K, d),
            low: words(offset_of!(BlockQ6K, ql), 64, 8),
            high: words(offset_of!(BlockQ6K, qh), 32, 8),
            scales: offset_of!(BlockQ6K, scales),
            halves: 2,
            zero: 32,
            ..LARGE
        },
        DType::IQ4XS => Form {
            d: offset_of!(BlockIq4Xs, d),
            low: words(offset_of!(BlockIq4Xs, qs), 64, 4),
            scales: offset_of!(BlockIq4Xs, scales_l),
            scales_high: offset_of!(BlockIq4Xs, scales_h),
            ..LARGE
        },
        DType::F32 | DType::F16 | DType::BF16 | DType::I32 | DType::U8 => return None,
    })
}

/// What a variant's constant `TYPE` holds for a type.
pub(crate) fn type_constant(dtype: DType) -> i64 {
    dtype.ggml_id().map_or(-1, i64::from)
}

/// The type that a variant is for, by the names of the texts; for blocks, their form.
pub(crate) fn tables(variant: &Variant) -> String {
    let stored = variant.constant("TYPE");
    let mut constants: Vec<(&str, i64)> = NAMES
        .iter()
        .map(|(name, dtype)| (*name, type_constant(*dtype)))
        .collect();
    constants.push(("STORED", stored));
    let dtype = NAMES
        .iter()
        .map(|(_, dtype)| *dtype)
        .find(|dtype| type_constant(*dtype) == stored);
    if let Some((dtype, form)) = dtype.and_then(|dtype| Some((dtype, form(dtype)?))) {
        let number = |value: usize| value as i64;
        // The widest loads that every block and wide field of a staged row allows.
        let align = match dtype.block_bytes() {
            bytes if bytes % 16 == 0 => 16,
            bytes if bytes % 4 == 0 => 4,
            _ => 2,
        };
        constants.extend([
            ("BLOCK_BYTES", number(dtype.block_bytes())),
            ("BLOCK_ALIGN", align),
            ("PARTS", number(form.parts)),
            ("RUNS", number(form.runs)),
            ("HALVES", number(form.halves)),
            ("STAGE", number(form.stage)),
            ("STEP_BLOCKS", form.step() as i64),
            ("LOW", number(form.low.count)),
            ("LOW_AT", number(form.low.at)),
            ("LOW_STEP", number(form.low.step)),
            ("HIGH", number(form.high.count)),
            ("HIGH_AT", number(form.high.at)),
            ("HIGH_STEP", number(form.high.step)),
            ("D_AT", number(form.d)),
            ("M_AT", form.minimum.map_or(-1, number)),
            ("SCALES_AT", number(form.scales)),
            ("SCALES_HIGH_AT", number(form.scales_high)),
            ("ZERO", i64::from(form.zero)),
            (
                "MINIMA",
                i64::from(form.zero != 0 || form.minimum.is_some()),
            ),
        ]);
    }
    let in_blocks = constants.len() > NAMES.len() + 1;
    let mut text = String::from("enum : int {\n");
    for (name, value) in constants {
        let _ = writeln!(text, "    {name} = {value},");
    }
    text.push_str("};\n");
    if in_blocks {
        text.push_str(&iq4_words());
    }
    text
}

/// The values of the 4-bit indices of IQ4, four to a word.
fn iq4_words() -> String {
    let words = IQ4_VALUES.as_chunks::<4>().0.iter().map(|bytes| {
        format!(
            "{:#x}u",
            u32::from_le_bytes(bytes.map(|byte| byte.cast_unsigned()))
        )
    });
    table("uint", "IQ4_WORDS", words)
}
