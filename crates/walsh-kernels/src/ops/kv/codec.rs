//! Codecs and rotations as the kernels' constants and tables know them.

use walsh_core::formats::DType;
use walsh_core::formats::kv::{KvCodec, RowCodec, SCALE_CANDIDATES, ScaleKind, Tq, TqBits};
use walsh_core::formats::rotation::Rotation;

use crate::kernel::Variant;
use crate::tables;

/// The kind of codebooks with norms for scales, which are encoded in double precision.
pub(super) const NORM_KIND: i64 = 7;

/// The constants of a codec: see kernels/kv_encode.h.
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
        let (kind, bits) = match codec.codec() {
            KvCodec::Dense(dtype) | KvCodec::Rotated(dtype) => match dtype {
                DType::F32 => (0, 1),
                DType::F16 => (1, 1),
                DType::BF16 => (2, 1),
                DType::Q8_0 => (3, 1),
                DType::Q5_0 => (4, 1),
                // `RowCodec` holds no other dense type.
                _ => (5, 1),
            },
            KvCodec::Tq(Tq { bits, scale, .. }) => match scale {
                ScaleKind::LeastSquares => (6, bits.get() as i64),
                ScaleKind::Norm => (NORM_KIND, bits.get() as i64),
            },
        };
        Self {
            kind,
            bits,
            bytes: codec.code_bytes() as i64,
        }
    }

    /// Rows of plain f32.
    pub(super) fn plain(head_dim: i64) -> Self {
        Self {
            kind: 0,
            bits: 1,
            bytes: 4 * head_dim,
        }
    }
}

/// The order of a rotation's Paley factor; 1 for no rotation.
pub(super) fn order(codec: &RowCodec) -> i64 {
    codec
        .rotation()
        .map_or(1, |rotation| rotation.order() as i64)
}

/// A variant's bits of codes as a width, when the codec of that kind has a codebook.
fn width(variant: &Variant, kind: &str, bits: &str) -> Option<TqBits> {
    let has = variant.constant(kind) >= 6;
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
    rotation_tables(variant) + &book + &candidates + &count
}

/// The tables of an attention pass: the centroids of both sides.
pub(super) fn decoder_tables(variant: &Variant) -> String {
    [
        ("KEY_CENTROIDS", "KEY_KIND", "KEY_BITS"),
        ("VALUE_CENTROIDS", "VALUE_KIND", "VALUE_BITS"),
    ]
    .map(|(name, kind, bits)| match width(variant, kind, bits) {
        Some(bits) => tables::centroids(name, bits),
        None => tables::floats(name, &[0.0]),
    })
    .concat()
}
