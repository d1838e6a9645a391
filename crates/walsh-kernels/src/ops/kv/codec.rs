//! Codecs and rotations as the kernels' constants and tables know them.

use std::fmt::Write;

use walsh_core::formats::DType;
use walsh_core::formats::ggml::{self, Role};
use walsh_core::formats::kv::{
    BlockCodec, FloatCodec, MAX_GROUP, RowCodec, SCALE_CANDIDATES, ScaleKind, Storage, Tq, TqBits,
};
use walsh_core::formats::rotation::Rotation;

use crate::kernel::Variant;
use crate::tables;

/// The name of a kind of rows. The texts have a branch for each float and each convention of scales, and read blocks by
/// their form: codes around a middle, or signed bytes.
const fn name(storage: Storage) -> &'static str {
    match storage {
        Storage::Float(FloatCodec::F32) => "KIND_F32",
        Storage::Float(FloatCodec::F16) => "KIND_F16",
        Storage::Float(FloatCodec::BF16) => "KIND_BF16",
        Storage::Block(BlockCodec::Q8_0) => "KIND_Q8_0",
        Storage::Block(BlockCodec::Q5_0) => "KIND_Q5_0",
        Storage::Block(BlockCodec::Q4_0) => "KIND_Q4_0",
        Storage::Codebook(tq) => match tq.scale {
            ScaleKind::LeastSquares => "KIND_TQ_FITTED",
            ScaleKind::Norm(_) => "KIND_TQ_NORMED",
        },
    }
}

/// One storage of each kind, in the order of their numbers.
fn kinds() -> impl Iterator<Item = Storage> {
    let floats = FloatCodec::ALL.iter().copied().map(Storage::Float);
    let blocks = BlockCodec::ALL.iter().copied().map(Storage::Block);
    let books = ScaleKind::ALL.into_iter().map(|scale| {
        Storage::Codebook(Tq {
            scale,
            ..Tq::new(TqBits::B8)
        })
    });
    floats.chain(blocks).chain(books)
}

/// The number of a kind.
fn kind(storage: Storage) -> i64 {
    let others = kinds().take_while(|other| name(*other) != name(storage));
    others.count() as i64
}

/// The constants of a codec.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Constants {
    pub(super) kind: i64,
    /// Bits of a code; 1 where there are none.
    pub(super) bits: i64,
    /// Bytes of a row.
    pub(super) bytes: i64,
}

impl Constants {
    pub(super) fn of(codec: &RowCodec) -> Self {
        let storage = codec.storage();
        let bits = match storage {
            Storage::Float(_) | Storage::Block(_) => 1,
            Storage::Codebook(tq) => tq.bits.get() as i64,
        };
        Self {
            kind: kind(storage),
            bits,
            bytes: codec.code_bytes() as i64,
        }
    }

    /// Rows of plain f32.
    pub(super) fn plain(head_dim: i64) -> Self {
        Self {
            kind: kind(Storage::Float(FloatCodec::F32)),
            bits: 1,
            bytes: 4 * head_dim,
        }
    }
}

/// Whether rows are plain halves.
pub(super) fn is_halves(rows: Constants) -> bool {
    rows.kind == kind(Storage::Float(FloatCodec::F16))
}

/// Whether rows are plain f32.
pub(super) fn is_single(rows: Constants) -> bool {
    rows.kind == kind(Storage::Float(FloatCodec::F32))
}

/// Whether tensor cores multiply the numbers of rows as halves without loss, scales apart.
pub(super) fn fits_halves(codec: &RowCodec) -> bool {
    match codec.storage() {
        Storage::Float(float) => float == FloatCodec::F16,
        Storage::Block(BlockCodec::Q8_0 | BlockCodec::Q5_0 | BlockCodec::Q4_0)
        | Storage::Codebook(_) => true,
    }
}

/// The bytes of a codebook as tensor cores' operands, copies of it side by side; none of rows without.
pub(super) fn book_bytes(codec: &RowCodec) -> u64 {
    match codec.storage() {
        Storage::Codebook(tq) => match tq.bits.get() as u64 {
            bits @ ..=4 => (((1 << bits) - 1) * 17 + 1) * 128,
            bits => (1 << bits) * 128,
        },
        Storage::Float(_) | Storage::Block(_) => 0,
    }
}

/// The bytes from row to row of so many each in a group's memory, where rows of floats must not share banks.
pub(super) fn row_stride(codec: &RowCodec, bytes: u64) -> u64 {
    match codec.storage() {
        Storage::Float(_) if bytes.is_multiple_of(32) => bytes + 16,
        _ => bytes,
    }
}

/// Whether a codec has norms for scales, and is encoded in double precision.
pub(super) fn is_by_norm(codec: &RowCodec) -> bool {
    matches!(codec.storage(), Storage::Codebook(tq) if tq.scale != ScaleKind::LeastSquares)
}

/// Whether a codec has scales that are searched for.
pub(super) fn is_fitted(codec: &RowCodec) -> bool {
    matches!(codec.storage(), Storage::Codebook(tq) if tq.scale == ScaleKind::LeastSquares)
}

/// What the root mean square of a half becomes before it is quantised by norm; what scales that were searched for are
/// multiplied by.
pub(super) fn store_factor(codec: &RowCodec) -> f32 {
    match codec.storage() {
        Storage::Codebook(Tq {
            scale: ScaleKind::Norm(factor),
            ..
        }) => factor.get(),
        _ => codec.gain(),
    }
}

/// The number of a type of keys and values as an op is given them.
pub(super) fn source(dtype: DType) -> Option<u32> {
    FloatCodec::of(dtype).map(|float| kind(Storage::Float(float)) as u32)
}

/// The numbers of all kinds.
pub(super) fn kind_numbers(_: &Variant) -> String {
    numbers(&[])
}

/// The numbers of all kinds, and others that are compared with them.
fn numbers(others: &[(&str, i64)]) -> String {
    let kinds = kinds().map(|storage| (name(storage), kind(storage)));
    let mut text = String::from("enum : int {\n");
    for (name, number) in kinds.chain(others.iter().copied()) {
        let _ = writeln!(text, "    {name} = {number},");
    }
    text + "};\n"
}

/// What the texts know of kinds of rows: whether a kind has codes of a codebook, else how its blocks lie;
/// what a scale beside the codes takes; and of codes, the widths of their bit planes.
fn forms(variant: &Variant) -> String {
    // Groups of a row that has a scale for each.
    let groups = (variant.constant("HEAD_DIM") as usize).div_ceil(MAX_GROUP);
    let mut text = format!("enum : int {{ ROW_GROUPS = {groups} }};\n");
    text.push_str("template <int KIND> struct KvForm;\n");
    for storage in kinds() {
        let codebook = matches!(storage, Storage::Codebook(_));
        let scale_bytes = storage.scale_dtype().map_or(0, DType::block_bytes);
        let mut constants = vec![
            ("CODEBOOK", usize::from(codebook)),
            ("SCALE_BYTES", scale_bytes),
        ];
        let block = match storage {
            Storage::Block(codec) => ggml::form(codec.dtype()).map(|form| (codec.dtype(), form)),
            Storage::Float(_) | Storage::Codebook(_) => None,
        };
        let at = |role| block.and_then(|(_, form)| form.at(role)).unwrap_or(0);
        constants.extend([
            (
                "BLOCK_BYTES",
                block.map_or(0, |(dtype, _)| dtype.block_bytes()),
            ),
            ("CODE_BITS", block.map_or(0, |(_, form)| form.bits as usize)),
            ("ZERO", block.map_or(0, |(_, form)| form.zero as usize)),
            ("SCALE_AT", at(Role::Scale)),
            ("CODES_AT", at(Role::Codes)),
            ("HIGH_AT", at(Role::HighCodes)),
        ]);
        let _ = write!(
            text,
            "template <> struct KvForm<{}> {{ enum : int {{",
            name(storage)
        );
        for (name, value) in constants {
            let _ = write!(text, " {name} = {value},");
        }
        text.push_str(" }; };\n");
    }
    // Of a row without codes, whose width is given as 1, for the sake of the branch that is not taken.
    text.push_str("template <int BITS> struct Planes { enum : int { LOW = BITS, HIGH = 0 }; };\n");
    for bits in TqBits::ALL {
        if let [low, high] = bits.planes() {
            let bits = bits.get();
            let _ = writeln!(
                text,
                "template <> struct Planes<{bits}> {{ enum : int {{ LOW = {low}, HIGH = {high} }}; }};"
            );
        }
    }
    text
}

/// The order of a rotation's Paley factor; 1 for no rotation.
pub(super) fn order(codec: &RowCodec) -> i64 {
    codec
        .rotation()
        .map_or(1, |rotation| rotation.order() as i64)
}

/// A variant's bits of codes as a width, when the codec of that kind has a codebook.
fn width(variant: &Variant, kind_of: &str, bits: &str) -> Option<TqBits> {
    let number = variant.constant(kind_of);
    let storage = kinds().find(|storage| kind(*storage) == number);
    let has = matches!(storage, Some(Storage::Codebook(_)));
    TqBits::from_bits(variant.constant(bits) as usize).filter(|_| has)
}

/// The tables of a variant with `HEAD_DIM`, `ROTATE` and `ORDER`. What it does not read is there in name.
pub(super) fn rotation_tables(variant: &Variant) -> String {
    let head_dim = variant.constant("HEAD_DIM") as usize;
    let rotation = (variant.constant("ROTATE") == 1)
        .then(|| Rotation::new(head_dim).ok())
        .flatten();
    let Some(rotation) = rotation else {
        let none = |name: &str| tables::table("uint", name, [0u32]);
        return none("SIGNS")
            + &none("PALEY")
            + &none("PALEY_TRANSPOSED")
            + &tables::floats("ROTATION_FACTOR", &[1.0, 0.0]);
    };
    let exact = 1.0 / (head_dim as f64).sqrt();
    let factor = rotation.factor();
    tables::signs("SIGNS", &rotation)
        + &tables::paley("PALEY", &rotation, false)
        + &tables::paley("PALEY_TRANSPOSED", &rotation, true)
        + &tables::floats(
            "ROTATION_FACTOR",
            &[factor, (exact - f64::from(factor)) as f32],
        )
}

/// The tables of an encoder: those of the rotation, the codebook and the candidates of the scale search.
pub(super) fn encoder_tables(variant: &Variant) -> String {
    let book = match width(variant, "KIND", "BITS") {
        Some(bits) => {
            tables::centroids("CENTROIDS", bits)
                + &tables::boundaries("BOUNDARIES", bits)
                + &tables::boundaries_low("BOUNDARIES_LOW", bits)
        }
        None => ["CENTROIDS", "BOUNDARIES", "BOUNDARIES_LOW"]
            .map(|name| tables::floats(name, &[0.0]))
            .concat(),
    };
    let inverses = SCALE_CANDIDATES.map(|candidate| 1.0 / candidate);
    let candidates = tables::floats("INVERSE_CANDIDATES", &inverses);
    let count = format!(
        "enum : int {{ CANDIDATES = {} }};\n",
        SCALE_CANDIDATES.len()
    );
    let kinds = numbers(&[("STORED", variant.constant("KIND"))]);
    rotation_tables(variant) + &kinds + &forms(variant) + &book + &candidates + &count
}

/// The tables of what rotates alone.
pub(super) fn turning_tables(variant: &Variant) -> String {
    rotation_tables(variant) + &numbers(&[])
}

/// The tables of what decodes rows and turns them back.
pub(super) fn row_tables(variant: &Variant) -> String {
    let book = match width(variant, "KIND", "BITS") {
        Some(bits) => tables::centroids("CENTROIDS", bits),
        None => tables::floats("CENTROIDS", &[0.0]),
    };
    rotation_tables(variant) + &numbers(&[]) + &forms(variant) + &book
}

/// The tables of attention that turns queries itself.
pub(super) fn attention_tables(variant: &Variant) -> String {
    let halves = [
        ("KEY_HALVES", "KEY_KIND", "KEY_BITS"),
        ("VALUE_HALVES", "VALUE_KIND", "VALUE_BITS"),
    ]
    .map(|(name, kind, bits)| match width(variant, kind, bits) {
        Some(bits) => tables::half_pairs(name, bits),
        None => tables::known_words(name, &[0]),
    });
    rotation_tables(variant) + &decoder_tables(variant) + &halves.concat()
}

/// The tables of an attention pass: forms, and the centroids of both sides.
pub(super) fn decoder_tables(variant: &Variant) -> String {
    let books = [
        ("KEY_CENTROIDS", "KEY_KIND", "KEY_BITS"),
        ("VALUE_CENTROIDS", "VALUE_KIND", "VALUE_BITS"),
    ]
    .map(|(name, kind, bits)| match width(variant, kind, bits) {
        Some(bits) => tables::centroids(name, bits),
        None => tables::floats(name, &[0.0]),
    });
    numbers(&[]) + &forms(variant) + &books.concat()
}
