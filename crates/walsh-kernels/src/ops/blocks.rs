//! What the kernels' texts know of block types, generated from `walsh-formats`.

use std::fmt::Write;

use walsh_formats::DType;
use walsh_formats::ggml::{self, FP4_VALUES, IQ4_VALUES, POWERS_OF_3, Role, SUPER_BLOCK};

use crate::kernel::Variant;
use crate::tables::{table, words};

/// The types by the names that the texts use: their own, in capitals.
fn names() -> impl Iterator<Item = (String, DType)> {
    let stored = DType::ALL.iter().filter(|dtype| dtype.file_id().is_some());
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
    signs: usize,
    /// `None` where no half-precision number of its own is a block's scale.
    d: Option<usize>,
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
    /// Blocks of a step of the tiled product: an even number of tasks.
    pub(crate) step: u64,
}

/// The fields that runs have their scales in.
const SCALES: [Role; 4] = [
    Role::Scales,
    Role::SpreadScale,
    Role::FloatScales,
    Role::PowerScale,
];

/// Whether runs have words of their own for their codes.
fn is_apart(dtype: DType) -> bool {
    let is_of_ggml = matches!(
        dtype,
        DType::IQ4XS | DType::NVFP4 | DType::Q1_0 | DType::Q2_0
    );
    is_of_ggml || is_of_mlx(dtype)
}

/// Whether a type is one of MLX's groups.
fn is_of_mlx(dtype: DType) -> bool {
    dtype.file_id().is_some() && dtype.ggml_id().is_none()
}

/// The form of a type; `None` for those that have no blocks.
pub(crate) fn form(dtype: DType) -> Option<Form> {
    let block = ggml::form(dtype)?;
    // blocks.h knows these types: how it reads the scales of another is to be written there.
    let halves = match dtype {
        DType::Q2K | DType::Q3K | DType::Q6K => 2,
        DType::NVFP4 | DType::IQ2S | DType::IQ2XS | DType::IQ1M => 2,
        DType::Q4_0 | DType::Q4_1 | DType::Q5_0 | DType::Q5_1 | DType::Q8_0 | DType::IQ4NL => 1,
        DType::Q4K | DType::Q5K | DType::IQ4XS | DType::MXFP4 => 1,
        DType::IQ3S | DType::IQ3XXS | DType::IQ2XXS | DType::IQ1S => 1,
        DType::TQ1_0 | DType::TQ2_0 | DType::Q1_0 | DType::Q2_0 => 1,
        DType::MLX2 | DType::MLX3 | DType::MLX4 | DType::MLX5 | DType::MLX6 | DType::MLX8 => 1,
        DType::MLX2G32 | DType::MLX3G32 | DType::MLX6G32 | DType::MLX8G32 => 1,
        DType::F32 | DType::F16 | DType::BF16 | DType::I32 | DType::U8 => return None,
    };
    let at = |role| block.at(role).unwrap_or(0);
    let is_large = dtype.block_len() == SUPER_BLOCK;
    let parts = if is_large { 2 } else { 1 };
    let runs = dtype.block_len() / 32 / parts;
    let codes = block.field(Role::Codes)?;
    // 32 bytes hold a code of each value of a run, but where a run has bytes of its own.
    let apart = is_apart(dtype) || ggml::grid(dtype).is_some();
    let count = |bytes: usize| match apart {
        true => bytes / (4 * runs * parts),
        false => (bytes / 4).min(8),
    };
    let low = count(codes.bytes);
    let high = block.field(Role::HighCodes);
    let high = high.map_or(Words::default(), |field| Words {
        at: field.at,
        step: field.bytes.saturating_sub(32),
        count: count(field.bytes),
    });
    Some(Form {
        low: Words {
            at: codes.at,
            step: if is_large { codes.bytes / parts } else { 0 },
            count: low,
        },
        high,
        signs: at(Role::Signs),
        d: block.at(Role::Scale),
        minimum: block.at(Role::Minimum).or(block.at(Role::MinimumScale)),
        scales: at(SCALES
            .into_iter()
            .find(|role| block.at(*role).is_some())
            .unwrap_or(Role::Scales)),
        scales_high: at(Role::HighScales),
        halves,
        zero: block.zero,
        runs,
        parts,
        stage: match dtype {
            _ if is_large => 16,
            DType::Q8_0 | DType::MLX8 | DType::MLX6G32 | DType::MLX8G32 => 64 / runs,
            _ => 128 / runs,
        },
        // As many bytes of each row as a tile has room for.
        step: match dtype {
            _ if is_large => 1,
            DType::MLX8 => 2,
            _ => 4,
        },
    })
}

/// Numbers of a block of floats, and of what a block of any other type is a multiple of.
const FLOATS: usize = 32;

/// Numbers of a block, and its bytes: rows of halves and of bfloat16 are read in blocks, too, where those are multiplied as
/// matrices.
pub(super) fn block(dtype: DType) -> (usize, usize) {
    match is_float(dtype) {
        true => (FLOATS, FLOATS * dtype.block_bytes()),
        false => (dtype.block_len(), dtype.block_bytes()),
    }
}

/// Whether numbers are stored as what tensor cores multiply.
pub(super) fn is_float(dtype: DType) -> bool {
    matches!(dtype, DType::F16 | DType::BF16)
}

/// The form of a type whose products are computed in tiles or by matrices.
pub(super) fn matrix_form(dtype: DType) -> Option<Form> {
    let words = Words {
        count: 1,
        ..Words::default()
    };
    let floats = Form {
        low: words,
        high: Words::default(),
        signs: 0,
        d: None,
        minimum: None,
        scales: 0,
        scales_high: 0,
        halves: 1,
        zero: 0,
        runs: 1,
        parts: 1,
        stage: 1,
        step: 2,
    };
    form(dtype).or(is_float(dtype).then_some(floats))
}

/// The widest loads that every block and wide field of a row allows that begins at such a multiple, in bytes.
pub(super) fn alignment(dtype: DType) -> u64 {
    match block(dtype).1 {
        bytes if bytes % 16 == 0 => 16,
        bytes if bytes % 4 == 0 => 4,
        bytes if bytes % 2 == 0 => 2,
        _ => 1,
    }
}

/// What a variant's constant `TYPE` holds for a type.
pub(crate) fn type_constant(dtype: DType) -> i64 {
    dtype.file_id().map_or(-1, i64::from)
}

/// The type that a variant is for, by the names of the texts; for blocks, their form.
pub(crate) fn tables(variant: &Variant) -> String {
    text(variant.constant("TYPE"), form)
}

/// The same, floats as blocks as well.
pub(super) fn matrix_tables(variant: &Variant) -> String {
    matrix_tables_of(variant.constant("TYPE"))
}

/// The same of a type by its constant.
pub(super) fn matrix_tables_of(stored: i64) -> String {
    text(stored, matrix_form)
}

fn text(stored: i64, form: fn(DType) -> Option<Form>) -> String {
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
            ("BLOCK_BYTES", number(block(dtype).1)),
            ("FLOATS", i64::from(is_float(dtype))),
            ("BLOCK_ALIGN", alignment(dtype) as i64),
            ("PARTS", number(form.parts)),
            ("RUNS", number(form.runs)),
            ("HALVES", number(form.halves)),
            ("STAGE", number(form.stage)),
            ("STEP_BLOCKS", form.step as i64),
            ("LOW", number(form.low.count)),
            ("LOW_AT", number(form.low.at)),
            ("LOW_STEP", number(form.low.step)),
            ("HIGH", number(form.high.count)),
            ("HIGH_AT", number(form.high.at)),
            ("HIGH_STEP", number(form.high.step)),
            ("SIGNS_AT", number(form.signs)),
            ("D_AT", form.d.map_or(-1, number)),
            ("M_AT", form.minimum.map_or(-1, number)),
            ("SCALES_AT", number(form.scales)),
            ("SCALES_HIGH_AT", number(form.scales_high)),
            ("APART", i64::from(is_apart(dtype))),
            (
                "MLX",
                if is_of_mlx(dtype) {
                    ggml::form(dtype).map_or(0, |form| form.bits.into())
                } else {
                    0
                },
            ),
            ("ZERO", i64::from(form.zero)),
            (
                "POINTS",
                ggml::grid(dtype).map_or(0, |grid| number(32 / grid.values)),
            ),
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
    if let Some((dtype, _)) = blocks {
        text.push_str(&values(dtype));
        text.push_str(&points(dtype));
        text.push_str(&words("POWERS_OF_3", &POWERS_OF_3.map(u32::from)));
    }
    text
}

/// The values of 4-bit indices, four to a word.
fn values(dtype: DType) -> String {
    let values = match dtype {
        DType::MXFP4 | DType::NVFP4 => FP4_VALUES,
        _ => IQ4_VALUES,
    };
    let word = |bytes: &[i8; 4]| u32::from_le_bytes(bytes.map(|byte| byte.cast_unsigned()));
    let values = values.as_chunks::<4>().0.iter().map(word);
    table("uint", "VALUES", values.map(|word| format!("{word:#x}u")))
}

/// The points of a type's grid, a byte for each value. Those that are shifted by eighths are in eighths, raised by 128.
fn points(dtype: DType) -> String {
    let Some(grid) = ggml::grid(dtype) else {
        return table("uint", "GRID", [0u32]);
    };
    let is_shifted = matches!(dtype, DType::IQ1S | DType::IQ1M);
    let code = |value: i8| match is_shifted {
        true => 128u8.wrapping_add_signed(8 * value),
        false => value.cast_unsigned(),
    };
    let point = |point| {
        let values = (0..grid.values).rev();
        values.fold(0u64, |word, i| {
            word << 8 | u64::from(code(grid.value(point, i)))
        })
    };
    let points = (0..grid.points.len()).map(point);
    match grid.values {
        8 => table("ulong", "GRID", points.map(|point| format!("{point:#x}ul"))),
        _ => table("uint", "GRID", points.map(|point| format!("{point:#x}u"))),
    }
}
