//! Attention as CUDA's own kernels have it, on fragments of matrices: decodes.

use walsh_core::ops::Attention;
use walsh_core::{Activations, CacheKind, KvCache, KvRows, Result, Tensor};

use super::super::codec::{self, Constants};
use super::super::slot_mapping::{page_size, slot_mapping};
use super::super::store::ROTATION;
use super::table::ZONES;
use super::{RESERVED, Rows};
use crate::args::args;
use crate::kernel::{Kernel, Native, Platform, Variant, reads, writes};
use crate::lower::{Limits, Lowering, layout};

/// Columns of a matrix of query rows.
const COLUMNS: u64 = 8;

/// The most query rows of a unit: with more, decoding the cache for each eight costs more than what it saves.
const MOST_ROWS: u64 = 64;

/// Places of the overlay that are taken at a time.
const OVERLAID: u64 = 16;

args! {
    /// Arguments of `attention_decode`.
    AttentionDecodeArgs {
        /// Where the statistics begin in the results, in numbers.
        statistics: u64,
        /// Query heads.
        heads: u32,
        /// Query heads per KV head.
        group: u32,
        /// KV heads.
        kv_heads: u32,
        /// Rows of all tokens, or with sequences of one.
        unit_rows: u32,
        /// Units that those rows are cut into.
        tiles: u32,
        /// All units.
        units: u32,
        /// Groups of the launch.
        groups: u32,
        /// The least tiles of a group.
        least: u32,
        /// Groups of each pair of a single unit.
        pair_groups: u32,
        /// Rows of a result.
        result_rows: u32,
        /// Positions that a query sees; 0 for all.
        window: u32,
        /// Whether the cache ends before the run of tokens.
        prefill: u32,
        /// Slots per KV head of the cache.
        capacity: u32,
        /// Whether tiles of rows can be copied 16 bytes at a time.
        aligned: u32,
        /// Rows per KV head of the keys.
        key_slots: u32,
        /// The same for values.
        value_slots: u32,
        /// Whether there is an overlay.
        overlay: u32,
        /// Its rows per KV head.
        overlay_slots: u32,
        /// The overlay's first tokens.
        first: u32,
        /// The overlay's recent tokens.
        recent: u32,
        /// The overlay's slots of recent tokens.
        ring: u32,
        /// Entries of the page table per sequence.
        per_sequence: u32,
        /// What queries are multiplied by.
        scale: f32,
        /// The bound of scores.
        softcap: f32,
        /// What the keys' stored scales are multiplied by.
        key_factor: f32,
        /// The same for values.
        value_factor: f32,
    }
}

pub(in crate::ops::kv) static ATTENTION_DECODE: Kernel = Kernel {
    name: "attention_decode",
    includes: &[
        ROTATION,
        include_str!("../../../../kernels/kv_decode.h"),
        ZONES,
        include_str!("../../../../kernels/cuda/attention_plan.h"),
        include_str!("../../../../kernels/cuda/matrices.h"),
        include_str!("../../../../kernels/cuda/fragments.h"),
        include_str!("../../../../kernels/cuda/attention_layout.h"),
        include_str!("../../../../kernels/cuda/attention_merge.h"),
    ],
    tables: codec::attention_tables,
    text: "",
    native: &[Native {
        platform: Platform::Cuda,
        text: include_str!("../../../../kernels/cuda/attention_decode.cu"),
    }],
    constants: &[
        "THREADS",
        "RESIDENT",
        "DYNAMIC",
        "HEAD_DIM",
        "COLUMNS",
        "LIVE",
        "TILE",
        "STAGES",
        "PAGE",
        "WRAPS",
        "SOFTCAP",
        "EQUALISER",
        "CENTER",
        "ROTATE",
        "KEY_TURNS",
        "VALUE_TURNS",
        "ORDER",
        "KEY_KIND",
        "KEY_BITS",
        "KEY_BYTES",
        "VALUE_KIND",
        "VALUE_BITS",
        "VALUE_BYTES",
        "OVERLAY",
        "OVERLAY_KEY_KIND",
        "OVERLAY_KEY_BYTES",
        "OVERLAY_VALUE_KIND",
        "OVERLAY_VALUE_BYTES",
        "SINKS",
    ],
    args: layout::<AttentionDecodeArgs>(),
    buffers: &[
        reads("query", "float"),
        reads("equaliser", "float"),
        reads("center", "float"),
        reads("keys", "uchar"),
        reads("key_scales", "uchar"),
        reads("values", "uchar"),
        reads("value_scales", "uchar"),
        reads("overlay_keys", "uchar"),
        reads("overlay_values", "uchar"),
        reads("slot_mapping", "int"),
        reads("table", "int"),
        reads("status", "uint"),
        reads("sinks", "float"),
        writes("partial", "float"),
        writes("counts", "uint"),
        writes("output", "float"),
    ],
    shared: false,
};

/// How a group is made up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Form {
    threads: u64,
    /// Groups of a multiprocessor.
    resident: u64,
    /// Matrices of query rows.
    columns: u64,
    /// Positions that a simdgroup takes at a time.
    tile: u64,
    /// Tiles of a simdgroup's ring.
    stages: u64,
    /// The group's memory, in bytes.
    bytes: u64,
}

/// A decode that CUDA's own kernels take.
pub(super) struct Decode<'a> {
    op: &'a Attention,
    form: Form,
    /// Rows of a unit's tokens.
    unit_rows: u64,
    units: u64,
}

impl<'a> Decode<'a> {
    /// The decode, if it is one of those that the kernels are for: halves or codes of any width that tensor cores multiply
    /// as halves without loss, head sizes of whole fragments, few query rows.
    pub(super) fn of(op: &'a Attention, limits: Limits) -> Option<Self> {
        let cache = &op.cache;
        let sides = [cache.key(), cache.value()];
        let overlaid = sides.iter().filter(|side| side.overlay.is_some()).count();
        let fits = |rows: &KvRows| codec::fits_halves(&rows.codec);
        let dense = |rows: &KvRows| rows.scales.is_none() && fits(rows);
        let all = sides
            .iter()
            .all(|side| fits(&side.rows) && side.overlay.as_ref().is_none_or(dense));
        // Halves would not be what a device that keeps to f32 is asked for.
        let exact = limits.activations == Activations::F32;
        // An overlay of one side alone would be two ranges of positions.
        if exact
            || op.fresh.is_some()
            || !all
            || overlaid == 1
            || !cache.head_dim().is_multiple_of(16)
        {
            return None;
        }
        let group = op.query.shape()[1] / cache.kv_heads();
        let (units, unit_rows) = match op.sequences {
            None => (1, op.query.shape()[0] * group),
            Some(_) => (op.query.shape()[0], group),
        };
        if unit_rows > MOST_ROWS {
            return None;
        }
        let form = Form::of(op, unit_rows, limits)?;
        Some(Self {
            op,
            form,
            unit_rows,
            units: units * unit_rows.div_ceil(form.columns * COLUMNS),
        })
    }

    /// Adds its dispatches.
    pub(super) fn lower(&self, lowering: &mut Lowering<'_>) -> Result<()> {
        let cache = &self.op.cache;
        let tokens = (&self.op.positions, self.op.sequences.as_ref());
        let mapping = slot_mapping(tokens, self.op.token_limits(), Some(cache), lowering)?;
        let groups = u64::from(lowering.limits().multiprocessors) * self.form.resident;
        let groups = groups.max(cache.kv_heads());
        let live = self.form.columns * COLUMNS;
        let result_rows = self.unit_rows.min(live);
        let results = (groups + self.units * cache.kv_heads()) * result_rows;
        let statistics = (results * cache.head_dim()).next_multiple_of(2);
        let partial = lowering.workspace((statistics + 2 * results) * 4)?;
        let counts = lowering.counts(self.units * cache.kv_heads())?;
        let [key, value] =
            [cache.key(), cache.value()].map(|side| Rows::of(&side.rows, false, lowering));
        let overlays = [cache.key(), cache.value()].map(|side| {
            side.overlay
                .as_ref()
                .map(|rows| Rows::of(rows, true, lowering))
        });
        // Without rows of its own the overlay's tokens are read as codes.
        let overlay = cache.overlay().filter(|_| overlays[0].is_some());
        let args = AttentionDecodeArgs {
            statistics,
            heads: self.op.query.shape()[1] as u32,
            group: (self.op.query.shape()[1] / cache.kv_heads()) as u32,
            kv_heads: cache.kv_heads() as u32,
            unit_rows: self.unit_rows as u32,
            tiles: self.unit_rows.div_ceil(live) as u32,
            units: self.units as u32,
            groups: groups as u32,
            least: (self.form.threads / 32) as u32,
            pair_groups: (groups / cache.kv_heads()) as u32,
            result_rows: result_rows as u32,
            window: self.op.mask.window.unwrap_or(0),
            prefill: 0,
            capacity: cache.capacity() as u32,
            aligned: u32::from(key.is_aligned() && value.is_aligned()),
            key_slots: key.slots,
            value_slots: value.slots,
            overlay: u32::from(overlays[0].is_some()),
            overlay_slots: overlays[0].as_ref().map_or(0, |rows| rows.slots),
            first: overlay.map_or(0, |overlay| overlay.tokens.first),
            recent: overlay.map_or(0, |overlay| overlay.tokens.recent),
            ring: overlay.map_or(0, |overlay| overlay.ring() as u32),
            per_sequence: cache.table().map_or(0, |table| table.shape()[1] as u32),
            scale: self.op.mask.scale,
            softcap: self.op.mask.softcap.unwrap_or(0.0),
            key_factor: key.factor,
            value_factor: value.factor,
        };
        let nothing = lowering.nothing();
        let span = |tensor: Option<&Tensor>| tensor.map_or_else(|| nothing.clone(), Tensor::span);
        let codes = |rows: &Option<Rows>| {
            rows.as_ref()
                .map_or_else(|| nothing.clone(), |rows| rows.codes.clone())
        };
        let preparation = cache.preparation();
        let spans = vec![
            self.op.query.span(),
            span(preparation.equaliser.as_ref()),
            span(preparation.center.as_ref()),
            key.codes.clone(),
            key.scales.clone(),
            value.codes.clone(),
            value.scales.clone(),
            codes(&overlays[0]),
            codes(&overlays[1]),
            mapping.span(),
            span(cache.table()),
            lowering.verdict(),
            span(self.op.sinks.as_ref()),
            partial.span(),
            counts.span(),
            self.op.output.span(),
        ];
        let variant = self.decode([&key, &value], [overlays[0].as_ref(), overlays[1].as_ref()]);
        lowering.dispatch(variant, [groups, 1, 1], &args, spans)?;
        lowering.release(partial);
        Ok(())
    }

    fn decode(&self, [key, value]: [&Rows; 2], overlays: [Option<&Rows>; 2]) -> Variant {
        let cache = &self.op.cache;
        let preparation = cache.preparation();
        let turns = [cache.key(), cache.value()].map(|side| side.rows.codec.rotation().is_some());
        let [over_key, over_value] = overlays.map(|rows| {
            rows.map_or(Constants::plain(cache.head_dim() as i64), |rows| {
                rows.constants
            })
        });
        Variant::new(
            &ATTENTION_DECODE,
            &[
                ("THREADS", self.form.threads as i64),
                ("RESIDENT", self.form.resident as i64),
                ("DYNAMIC", self.form.bytes as i64),
                ("HEAD_DIM", cache.head_dim() as i64),
                ("COLUMNS", self.form.columns as i64),
                ("LIVE", (self.form.columns * COLUMNS) as i64),
                ("TILE", self.form.tile as i64),
                ("STAGES", self.form.stages as i64),
                ("PAGE", page_size(cache)),
                ("WRAPS", i64::from(cache.kind() == CacheKind::Ring)),
                ("SOFTCAP", i64::from(self.op.mask.softcap.is_some())),
                ("EQUALISER", i64::from(preparation.equaliser.is_some())),
                ("CENTER", i64::from(preparation.center.is_some())),
                ("ROTATE", i64::from(turns.contains(&true))),
                ("KEY_TURNS", i64::from(turns[0])),
                ("VALUE_TURNS", i64::from(turns[1])),
                ("ORDER", order(cache)),
                ("KEY_KIND", key.constants.kind),
                ("KEY_BITS", key.constants.bits),
                ("KEY_BYTES", key.constants.bytes),
                ("VALUE_KIND", value.constants.kind),
                ("VALUE_BITS", value.constants.bits),
                ("VALUE_BYTES", value.constants.bytes),
                ("OVERLAY", i64::from(overlays[0].is_some())),
                ("OVERLAY_KEY_KIND", over_key.kind),
                ("OVERLAY_KEY_BYTES", over_key.bytes),
                ("OVERLAY_VALUE_KIND", over_value.kind),
                ("OVERLAY_VALUE_BYTES", over_value.bytes),
                ("SINKS", i64::from(self.op.sinks.is_some())),
            ],
        )
    }
}

/// The order of the rotation that keys or values have; of one size, they have the same.
fn order(cache: &KvCache) -> i64 {
    let sides = [cache.key(), cache.value()];
    let orders = sides.map(|side| codec::order(&side.rows.codec));
    orders[0].max(orders[1])
}

impl Form {
    /// The best form that a device has room for: threads, groups of a multiprocessor, stages and positions of a tile, as they
    /// were measured on an H200.
    fn of(op: &Attention, unit_rows: u64, limits: Limits) -> Option<Self> {
        let dim = op.cache.head_dim();
        // Sums of sixteen rows of wide heads would not fit into registers.
        let columns = if unit_rows > COLUMNS && dim <= 256 {
            2
        } else {
            1
        };
        let sums = dim * columns;
        let forms: &[_] = match sums {
            ..=128 => &[
                (192, 2, 3, 32),
                (192, 2, 2, 32),
                (192, 2, 3, 16),
                (192, 2, 2, 16),
                (256, 1, 3, 16),
                (256, 1, 2, 16),
            ],
            129..=256 => &[
                (256, 1, 3, 16),
                (256, 1, 2, 16),
                (128, 1, 3, 16),
                (128, 1, 2, 16),
            ],
            _ => &[
                (128, 1, 3, 16),
                (128, 1, 2, 16),
                (64, 1, 3, 16),
                (64, 1, 2, 16),
            ],
        };
        forms
            .iter()
            .copied()
            .map(|(threads, resident, stages, tile)| {
                let mut form = Self {
                    threads,
                    resident,
                    columns,
                    tile,
                    stages,
                    bytes: 0,
                };
                form.bytes = form.needs(op);
                form
            })
            .find(|form| {
                (form.bytes + RESERVED) * form.resident
                    <= u64::from(limits.fragment_bytes) + RESERVED
            })
    }

    /// The memory that lies in the kernel's text.
    fn needs(&self, op: &Attention) -> u64 {
        let cache = &op.cache;
        let (dim, live, simds) = (cache.head_dim(), self.columns * COLUMNS, self.threads / 32);
        let [key, value] = [cache.key(), cache.value()].map(|side| Constants::of(&side.rows.codec));
        let [key_book, value_book] =
            [cache.key(), cache.value()].map(|side| codec::book_bytes(&side.rows.codec));
        let same = key_book > 0 && key.bits == value.bits && value_book > 0;
        let books = key_book + if same { 0 } else { value_book };
        let stage = |positions: u64, rows: &KvRows| {
            let bytes = Constants::of(&rows.codec).bytes as u64;
            (positions * codec::row_stride(&rows.codec, bytes)).next_multiple_of(128)
        };
        let sides = [cache.key(), cache.value()];
        let tiles: u64 = sides.iter().map(|side| stage(self.tile, &side.rows)).sum();
        let overlaid: u64 = sides
            .iter()
            .filter_map(|side| side.overlay.as_ref())
            .map(|rows| stage(OVERLAID, rows))
            .sum();
        let paley = match order(cache) {
            1 => 0,
            _ => self.threads / 16 * dim * 4,
        };
        let queries = dim / 16 * self.columns * 256 + live * dim * 4;
        let ring = simds * (self.stages * tiles).max(overlaid) + 16;
        let scaled = sides
            .into_iter()
            .filter_map(|side| side.rows.scales.as_ref());
        let groups = scaled.map(|scales| scales.shape()[2]).max().unwrap_or(0);
        let notes = simds * self.tile * groups * 16;
        let before = books + queries + paley + (simds + 1) * live * 8 + notes;
        before.next_multiple_of(128) + ring.max(simds * live * dim * 4)
    }
}
