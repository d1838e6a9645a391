//! Storing keys and values.

use walsh_core::formats::DType;
use walsh_core::ops::KvStore;
use walsh_core::{Buffer, CacheSide, KvRows, KvSide, Result, Tensor};

use super::codec::{self, Constants};
use super::slot_mapping::slot_mapping;
use crate::args::args;
use crate::check::CheckKind;
use crate::dispatch::Dispatch;
use crate::kernel::{Kernel, Variant, reads, writes};
use crate::lower::{Lowering, layout};

const THREADS: i64 = 128;

/// The most vectors of a side for which a whole group searches for a scale: one such takes a third of the time, and many
/// together keep a device busy by themselves.
const FEW_VECTORS: u64 = 128;

args! {
    /// Arguments of `kv_inspect`.
    KvInspectArgs {
        /// Vectors of a side.
        vectors: u32,
        /// Which vectors are looked at, keys before values: from the first on, below the end.
        first: u32,
        /// See `first`.
        end: u32,
        /// KV heads.
        kv_heads: u32,
        /// The number of the check.
        check: u32,
        /// Magnitudes stay below this, for keys and for values.
        most: [f32; 2],
        /// Norms stay below this, times 2⁻⁷⁰.
        norm: [f32; 2],
    }

    /// Arguments of `kv_store`.
    KvStoreArgs {
        /// Vectors to store.
        vectors: u32,
        /// KV heads.
        kv_heads: u32,
        /// Slots per KV head.
        slots: u32,
        /// Which number of an entry is the slot.
        field: u32,
        /// What the root mean square of a half becomes before it is quantised by norm.
        factor: f32,
    }
}

/// Whether the vectors that an inspection looks at are of single floats.
pub(crate) fn is_of_floats(inspection: &Dispatch) -> bool {
    codec::source(DType::F32) == Some(inspection.variant.constant("SOURCE") as u32)
}

pub(super) const SOURCE: &str = include_str!("../../../kernels/kv_source.h");
pub(super) const ROTATION: &str = include_str!("../../../kernels/rotation.h");
pub(crate) const FINDING: &str = include_str!("../../../kernels/kv_finding.h");
const EXACT: &str = include_str!("../../../kernels/exact.h");
const ENCODE: &str = include_str!("../../../kernels/kv_encode.h");

pub(crate) static KV_INSPECT: Kernel = Kernel {
    name: "kv_inspect",
    includes: &[SOURCE, FINDING],
    tables: codec::kind_numbers,
    text: include_str!("../../../kernels/kv_inspect.h"),
    native: &[],
    constants: &["THREADS", "HEAD_DIM", "SOURCE", "EQUALISER", "CENTER"],
    args: layout::<KvInspectArgs>(),
    buffers: &[
        reads("keys", "uchar"),
        reads("values", "uchar"),
        reads("equaliser", "float"),
        reads("center", "float"),
        writes("status", "uint"),
    ],
    shared: false,
};

pub(super) static KV_STORE: Kernel = Kernel {
    name: "kv_store",
    includes: &[SOURCE, ROTATION, EXACT, ENCODE],
    tables: codec::encoder_tables,
    text: include_str!("../../../kernels/kv_store.h"),
    native: &[],
    constants: &[
        "THREADS",
        "HEAD_DIM",
        "SOURCE",
        "EQUALISER",
        "CENTER",
        "KIND",
        "BITS",
        "CODE_BYTES",
        "ROTATE",
        "ORDER",
        "TEAMS",
    ],
    args: layout::<KvStoreArgs>(),
    buffers: &[
        reads("source", "uchar"),
        reads("slot_mapping", "int"),
        reads("status", "uint"),
        writes("codes", "uchar"),
        writes("scales", "uchar"),
        reads("equaliser", "float"),
        reads("center", "float"),
    ],
    shared: true,
};

/// What keys or values stay below so that all rows of a side can hold them.
fn side_limits(side: &KvSide) -> (f32, f32) {
    let all = std::iter::once(&side.rows).chain(&side.overlay);
    let least = |(number, norm): (f64, f64), rows: &KvRows| {
        let bounds = rows.codec.bounds();
        (bounds.number.min(number), bounds.norm.min(norm))
    };
    let (most, norm) = all.fold((f64::INFINITY, f64::INFINITY), least);
    (most as f32, (norm * 2f64.powi(-70)) as f32)
}

/// The type of vectors, as kinds are numbered.
fn source_type(numbers: &Tensor, lowering: &Lowering<'_>) -> Result<i64> {
    codec::source(numbers.dtype())
        .map(i64::from)
        .ok_or_else(|| lowering.unsupported("keys and values are not floats"))
}

pub(crate) fn store(op: &KvStore, lowering: &mut Lowering<'_>) -> Result<()> {
    for (_, source) in op.sides() {
        lowering.countable(&[source])?;
    }
    let slot_mapping = slot_mapping(
        (&op.positions, op.sequences.as_ref()),
        op.token_limits(),
        Some(&op.cache),
        lowering,
    )?;
    inspect(op, lowering)?;
    let cache = &op.cache;
    for (which, source) in op.sides() {
        let what = Storing {
            op,
            source,
            prepared: which == CacheSide::Keys,
            slot_mapping: &slot_mapping,
        };
        let side = cache.side(which);
        what.rows(&side.rows, 2, lowering)?;
        if let Some(overlay) = &side.overlay {
            what.rows(overlay, 3, lowering)?;
        }
    }
    Ok(())
}

fn inspect(op: &KvStore, lowering: &mut Lowering<'_>) -> Result<()> {
    let (most, norm): (Vec<f32>, Vec<f32>) = [op.cache.key(), op.cache.value()]
        .into_iter()
        .map(side_limits)
        .unzip();
    let check = lowering.check(CheckKind::Vectors {
        positions: op.positions.span(),
        kv_heads: op.cache.kv_heads(),
        codecs: [op.cache.codecs().key, op.cache.codecs().value].map(|codec| codec.to_string()),
    })?;
    let vectors = op.positions.elements() * op.cache.kv_heads();
    let first = if op.keys.is_some() { 0 } else { vectors };
    let end = if op.values.is_some() {
        2 * vectors
    } else {
        vectors
    };
    // Where there are keys and values, they are of one type.
    let vectors_type = |(_, vectors): (CacheSide, &Tensor)| source_type(vectors, lowering);
    let source = op.sides().next().map(vectors_type).transpose()?;
    let args = KvInspectArgs {
        vectors: vectors as u32,
        first: first as u32,
        end: end as u32,
        kv_heads: op.cache.kv_heads() as u32,
        check,
        most: [most[0], most[1]],
        norm: [norm[0], norm[1]],
    };
    let preparation = op.cache.preparation();
    let variant = Variant::new(
        &KV_INSPECT,
        &[
            ("THREADS", THREADS),
            ("HEAD_DIM", op.cache.head_dim() as i64),
            ("SOURCE", source.unwrap_or_default()),
            ("EQUALISER", i64::from(preparation.equaliser.is_some())),
            ("CENTER", i64::from(preparation.center.is_some())),
        ],
    );
    let span = |tensor: &Option<Tensor>| lowering.span(tensor.as_ref());
    let spans = vec![
        span(&op.keys),
        span(&op.values),
        span(&preparation.equaliser),
        span(&preparation.center),
        lowering.status(),
    ];
    let groups = [(end - first).div_ceil(THREADS as u64 / 32), 1, 1];
    lowering.dispatch(variant, groups, &args, spans)
}

/// One side of a store.
struct Storing<'a> {
    op: &'a KvStore,
    source: &'a Tensor,
    /// Whether the cache's preparation is for this side.
    prepared: bool,
    slot_mapping: &'a Buffer,
}

impl Storing<'_> {
    /// Encodes into rows; `field` says which slot of an entry is theirs.
    fn rows(&self, rows: &KvRows, field: u32, lowering: &mut Lowering<'_>) -> Result<()> {
        let cache = &self.op.cache;
        let constants = Constants::of(&rows.codec);
        let preparation = cache.preparation();
        let [equaliser, center] = [&preparation.equaliser, &preparation.center]
            .map(|tensor| tensor.as_ref().filter(|_| self.prepared));
        // Rows in double precision take twice the threadgroup memory: of the longest there are half as many in a group.
        let by_norm = codec::is_by_norm(&rows.codec);
        let threads = match by_norm && cache.head_dim() > 256 {
            true => THREADS / 2,
            false => THREADS,
        };
        let vectors = self.op.positions.elements() * cache.kv_heads();
        let teams = match codec::is_fitted(&rows.codec) && vectors <= FEW_VECTORS {
            true => threads / 16,
            false => 1,
        };
        let variant = Variant::new(
            &KV_STORE,
            &[
                ("THREADS", threads),
                ("HEAD_DIM", cache.head_dim() as i64),
                ("SOURCE", source_type(self.source, lowering)?),
                ("EQUALISER", i64::from(equaliser.is_some())),
                ("CENTER", i64::from(center.is_some())),
                ("KIND", constants.kind),
                ("BITS", constants.bits),
                ("CODE_BYTES", constants.bytes),
                ("ROTATE", i64::from(rows.codec.rotation().is_some())),
                ("ORDER", codec::order(&rows.codec)),
                ("TEAMS", teams),
            ],
        );
        let args = KvStoreArgs {
            vectors: vectors as u32,
            kv_heads: cache.kv_heads() as u32,
            slots: rows.codes.shape()[1] as u32,
            field,
            factor: codec::store_factor(&rows.codec),
        };
        let span = |tensor: Option<&Tensor>| lowering.span(tensor);
        let spans = vec![
            self.source.span(),
            self.slot_mapping.span(),
            lowering.verdict(),
            rows.codes.span(),
            span(rows.scales.as_ref()),
            span(equaliser),
            span(center),
        ];
        let groups = [vectors.div_ceil((threads / 16 / teams) as u64), 1, 1];
        lowering.dispatch(variant, groups, &args, spans)
    }
}
