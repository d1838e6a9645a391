//! What the kernels' texts know of block types, generated from `walsh-formats`.

use std::fmt::Write;

use walsh_formats::DType;
use walsh_formats::ggml::{self, IQ4_VALUES, Role, SUPER_BLOCK};

use crate::kernel::Variant;
use crate::tables::table;

/// The types by the names that the texts use: GGML's, in capitals.
fn names() -> impl Iterator<Item = (String, DType)> {
    let stored = DType::ALL.iter().filter(|dtype| dtype.ggml_id().is_some());
    stored.map(|dtype| (dtype.name().to_uppercase(), *dtype))
}

/// Words that lie at `at` for the first part of a block, and `step` bytes further for the next.
#[derive(Clone, Copy, Default)]
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

impl Form {
    /// Blocks of a step of the tiled product: an even number of tasks.
    pub(crate) fn step(&self) -> u64 {
        if self.parts == 1 { 4 } else { 1 }
    }
}

/// The form of a type; `None` for those that have no blocks.
pub(crate) fn form(dtype: DType) -> Option<Form> {
    let block = ggml::form(dtype)?;
    // blocks.h knows these types: how it reads the scales of another is to be written there.
    let halves = match dtype {
        DType::Q2K | DType::Q3K | DType::Q6K => 2,
        DType::Q4_0 | DType::Q4_1 | DType::Q5_0 | DType::Q5_1 | DType::Q8_0 | DType::IQ4NL => 1,
        DType::Q4K | DType::Q5K | DType::IQ4XS => 1,
        DType::F32 | DType::F16 | DType::BF16 | DType::I32 | DType::U8 => return None,
    };
    let at = |role| block.at(role).unwrap_or(0);
    let is_large = dtype.block_len() == SUPER_BLOCK;
    let parts = if is_large { 2 } else { 1 };
    let codes = block.field(Role::Codes)?;
    // 32 bytes hold a code of each value of a run, but where nibbles of one run share bytes.
    let low = match dtype {
        DType::IQ4XS => 4,
        _ => (codes.bytes / 4).min(8),
    };
    let high = block.field(Role::HighCodes);
    let high = high.map_or(Words::default(), |field| Words {
        at: field.at,
        step: field.bytes.saturating_sub(32),
        count: (field.bytes / 4).min(8),
    });
    Some(Form {
        low: Words {
            at: codes.at,
            step: if is_large { codes.bytes / parts } else { 0 },
            count: low,
        },
        high,
        d: at(Role::Scale),
        minimum: block.at(Role::Minimum).or(block.at(Role::MinimumScale)),
        scales: at(Role::Scales),
        scales_high: at(Role::HighScales),
        halves,
        zero: block.zero,
        runs: if is_large { 4 } else { 1 },
        parts,
        stage: match (is_large, dtype) {
            (true, _) => 16,
            (false, DType::Q8_0) => 64,
            (false, _) => 128,
        },
    })
}

/// The widest loads that every block and wide field of a row allows that begins at such a multiple, in bytes.
pub(super) fn alignment(dtype: DType) -> u64 {
    match dtype.block_bytes() {
        bytes if bytes % 16 == 0 => 16,
        bytes if bytes % 4 == 0 => 4,
        _ => 2,
    }
}

/// What a variant's constant `TYPE` holds for a type.
pub(crate) fn type_constant(dtype: DType) -> i64 {
    dtype.ggml_id().map_or(-1, i64::from)
}

/// The type that a variant is for, by the names of the texts; for blocks, their form.
pub(crate) fn tables(variant: &Variant) -> String {
    tables_of(variant.constant("TYPE"))
}

/// The same of a type by its constant.
pub(super) fn tables_of(stored: i64) -> String {
    let known: Vec<(String, DType)> = names().collect();
    let mut constants: Vec<(&str, i64)> = known
        .iter()
        .map(|(name, dtype)| (name.as_str(), type_constant(*dtype)))
        .collect();
    constants.push(("STORED", stored));
    let mut dtypes = known.iter().map(|(_, dtype)| *dtype);
    let dtype = dtypes.find(|dtype| type_constant(*dtype) == stored);
    let blocks = dtype.and_then(|dtype| Some((dtype, form(dtype)?)));
    if let Some((dtype, form)) = blocks {
        let number = |value: usize| value as i64;
        constants.extend([
            ("BLOCK_BYTES", number(dtype.block_bytes())),
            ("BLOCK_ALIGN", alignment(dtype) as i64),
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
    let mut text = String::from("enum : int {\n");
    for (name, value) in constants {
        let _ = writeln!(text, "    {name} = {value},");
    }
    text.push_str("};\n");
    if blocks.is_some() {
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
