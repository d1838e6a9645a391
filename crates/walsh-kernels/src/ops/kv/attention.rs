//! Attention: queries turned, passes over zones of positions, their merge.

use walsh_core::ops::{Attention, Fresh};
use walsh_core::{Buffer, KvRows, KvSide, Result, Span, Tensor};

use super::codec::{self, Constants};
use super::slot_mapping::{page_size, slot_mapping};
use super::store::ROTATION;
use crate::args::args;
use crate::kernel::{Kernel, Variant, reads, writes};
use crate::lower::{Lowering, layout};

const THREADS: i64 = 128;

/// Positions that a group of a pass takes at a time.
const BLOCK: u64 = THREADS as u64;

/// The most parts that a context is cut into.
const MOST_PARTS: u64 = 256;

args! {
    /// Arguments of `attention_query`.
    AttentionQueryArgs {
        /// Query vectors.
        vectors: u32,
        /// Query heads.
        heads: u32,
        /// Query heads per KV head.
        group: u32,
        /// What queries are multiplied by.
        scale: f32,
    }

    /// Arguments of `attention_pass`.
    AttentionPassArgs {
        /// Where the statistics begin in the partial results, in numbers.
        statistics: u64,
        /// Query heads.
        heads: u32,
        /// Query heads per KV head.
        group: u32,
        /// KV heads.
        kv_heads: u32,
        /// Rows of a unit: those of all tokens, or with sequences of one.
        unit_rows: u32,
        /// Tiles of a unit.
        tiles: u32,
        /// Numbers from one query vector to the next.
        query_stride: u32,
        /// Parts of this pass.
        parts: u32,
        /// Parts of all passes.
        all_parts: u32,
        /// The first part of this pass among all.
        first_part: u32,
        /// Positions that a query sees; 0 for all.
        window: u32,
        /// Whether the cache ends before the run of tokens.
        prefill: u32,
        /// Slots per KV head of the cache.
        capacity: u32,
        /// Rows per KV head of what keys are read from.
        key_slots: u32,
        /// The same for values.
        value_slots: u32,
        /// Whether keys are read from the overlay.
        key_overlaid: u32,
        /// The same for values.
        value_overlaid: u32,
        /// The overlay's first tokens.
        first: u32,
        /// The overlay's recent tokens.
        recent: u32,
        /// The overlay's slots of recent tokens.
        ring: u32,
        /// What queries are multiplied by here.
        scale: f32,
        /// The bound of scores; 0 for none.
        softcap: f32,
        /// What the keys' stored scales are multiplied by.
        key_factor: f32,
        /// The same for values.
        value_factor: f32,
        /// Entries of the page table per sequence.
        per_sequence: u32,
    }

    /// Arguments of `attention_combine`.
    AttentionCombineArgs {
        /// Where the statistics begin in the partial results, in numbers.
        statistics: u64,
        /// Query heads.
        heads: u32,
        /// Parts of all passes.
        all_parts: u32,
        /// Those of stored keys and values, which come first.
        stored_parts: u32,
        /// Nothing.
        padding: u32,
    }
}

pub(super) static ATTENTION_QUERY: Kernel = Kernel {
    name: "attention_query",
    includes: &[ROTATION],
    tables: codec::rotation_tables,
    text: include_str!("../../../kernels/attention_query.h"),
    native: &[],
    constants: &[
        "THREADS",
        "HEAD_DIM",
        "EQUALISER",
        "CENTER",
        "ROTATE",
        "ORDER",
    ],
    args: layout::<AttentionQueryArgs>(),
    buffers: &[
        reads("query", "float"),
        reads("equaliser", "float"),
        reads("center", "float"),
        writes("output", "float"),
    ],
    shared: true,
};

pub(super) static ATTENTION_PASS: Kernel = Kernel {
    name: "attention_pass",
    includes: &[include_str!("../../../kernels/kv_decode.h")],
    tables: codec::decoder_tables,
    text: include_str!("../../../kernels/attention_pass.h"),
    native: &[],
    constants: &[
        "THREADS",
        "HEAD_DIM",
        "ROWS",
        "ZONE",
        "PAGE",
        "CENTER",
        "KEY_KIND",
        "KEY_BITS",
        "KEY_BYTES",
        "VALUE_KIND",
        "VALUE_BITS",
        "VALUE_BYTES",
    ],
    args: layout::<AttentionPassArgs>(),
    buffers: &[
        reads("query", "float"),
        reads("keys", "uchar"),
        reads("key_scales", "uchar"),
        reads("values", "uchar"),
        reads("value_scales", "uchar"),
        reads("slot_mapping", "int"),
        reads("table", "int"),
        reads("status", "uint"),
        writes("partial", "float"),
    ],
    shared: true,
};

pub(super) static ATTENTION_COMBINE: Kernel = Kernel {
    name: "attention_combine",
    includes: &[ROTATION],
    tables: codec::rotation_tables,
    text: include_str!("../../../kernels/attention_combine.h"),
    native: &[],
    constants: &["THREADS", "HEAD_DIM", "SINKS", "ROTATE", "ORDER"],
    args: layout::<AttentionCombineArgs>(),
    buffers: &[
        reads("partial", "float"),
        reads("sinks", "float"),
        reads("status", "uint"),
        writes("output", "float"),
    ],
    shared: true,
};

/// Adds the dispatches of attention.
pub(crate) fn attention(op: &Attention, lowering: &mut Lowering<'_>) -> Result<()> {
    Attend { op }.lower(lowering)
}

/// Where a zone's positions are read from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Zone {
    Codes = 0,
    Overlay = 1,
    Fresh = 2,
}

/// One pass over a zone.
struct Pass {
    zone: Zone,
    parts: u64,
    first_part: u64,
}

/// What all passes share.
struct Shared {
    /// Rows that share a pass.
    rows: u64,
    unit_rows: u64,
    units: u64,
    all_parts: u64,
    slot_mapping: Buffer,
    partial: Buffer,
    /// Where the statistics begin, in numbers.
    statistics: u64,
}

/// Rows of the queries: where they are, how far apart, and what they lack.
struct Queries {
    span: Span,
    stride: u64,
    scale: f32,
    /// Whether a vector is followed by its product with the centre.
    center: bool,
}

/// An op as it is lowered.
struct Attend<'a> {
    op: &'a Attention,
}

impl Attend<'_> {
    fn head_dim(&self) -> u64 {
        self.op.cache.head_dim()
    }

    fn tokens(&self) -> u64 {
        self.op.query.shape()[0]
    }

    fn heads(&self) -> u64 {
        self.op.query.shape()[1]
    }

    fn group(&self) -> u64 {
        self.heads() / self.op.cache.kv_heads()
    }

    fn lower(&self, lowering: &mut Lowering<'_>) -> Result<()> {
        lowering.countable(&[&self.op.query])?;
        let cache = &self.op.cache;
        for side in [cache.key(), cache.value()] {
            let rows = side.rows.codes.shape()[0] * side.rows.codes.shape()[1];
            if rows > u64::from(u32::MAX) {
                return Err(lowering.unsupported("the cache has 2^32 rows or more"));
            }
        }
        let tokens = (&self.op.positions, self.op.sequences.as_ref());
        let slot_mapping = slot_mapping(tokens, self.op.token_limits(), cache, lowering)?;
        let (units, unit_rows) = match self.op.sequences {
            None => (1, self.tokens() * self.group()),
            Some(_) => (self.tokens(), self.group()),
        };
        let rows = self.rows(unit_rows);
        let tiles = units * unit_rows.div_ceil(rows);
        let window = self.op.mask.window.map_or(u64::MAX, u64::from);
        let seen = cache.capacity().min(window.saturating_add(self.tokens()));
        let mut zones = vec![(Zone::Codes, seen)];
        zones.extend(
            cache
                .overlay()
                .map(|overlay| (Zone::Overlay, overlay.slots())),
        );
        zones.extend(self.op.fresh.as_ref().map(|_| (Zone::Fresh, self.tokens())));
        let (mut passes, mut all_parts, mut stored_parts) = (Vec::new(), 0, 0);
        for (zone, positions) in zones {
            let groups = tiles * cache.kv_heads();
            let parts = parts(positions, groups, lowering.limits().multiprocessors);
            passes.push(Pass {
                zone,
                parts,
                first_part: all_parts,
            });
            all_parts += parts;
            stored_parts += if zone == Zone::Fresh { 0 } else { parts };
        }
        let vectors = self.tokens() * self.heads();
        let statistics = vectors * all_parts * self.head_dim();
        if vectors * all_parts * (self.head_dim() + 2) > i32::MAX as u64 {
            return Err(lowering.unsupported(
                "its partial results are 2^31 numbers or more: use fewer tokens at a time",
            ));
        }
        let partial = lowering.workspace((statistics + 2 * vectors * all_parts) * 4)?;
        let shared = Shared {
            rows,
            unit_rows,
            units,
            all_parts,
            slot_mapping,
            partial,
            statistics,
        };
        let (queries, turned) = self.queries(lowering)?;
        for pass in &passes {
            self.pass(pass, &queries, &shared, lowering)?;
        }
        self.combine(&shared, stored_parts, lowering)?;
        lowering.release(shared.partial);
        if let Some(turned) = turned {
            lowering.release(turned);
        }
        Ok(())
    }

    /// Rows that share a pass: as many as registers hold the sums of.
    fn rows(&self, unit_rows: u64) -> u64 {
        let most = match self.head_dim() {
            ..=256 => 8,
            _ => 4,
        };
        unit_rows.next_power_of_two().min(most)
    }

    /// The queries as stored keys meet them, and the workspace that they are in.
    fn queries(&self, lowering: &mut Lowering<'_>) -> Result<(Queries, Option<Buffer>)> {
        let preparation = self.op.cache.preparation();
        let codec = &self.op.cache.key().rows.codec;
        let rotates = codec.rotation().is_some();
        if !rotates && preparation.equaliser.is_none() && preparation.center.is_none() {
            return Ok((self.plain_queries(), None));
        }
        let stride = self.head_dim() + 4;
        let vectors = self.tokens() * self.heads();
        let turned = lowering.workspace(vectors * stride * 4)?;
        let variant = Variant::new(
            &ATTENTION_QUERY,
            &[
                ("THREADS", THREADS),
                ("HEAD_DIM", self.head_dim() as i64),
                ("EQUALISER", i64::from(preparation.equaliser.is_some())),
                ("CENTER", i64::from(preparation.center.is_some())),
                ("ROTATE", i64::from(rotates)),
                ("ORDER", codec::order(codec)),
            ],
        );
        let args = AttentionQueryArgs {
            vectors: vectors as u32,
            heads: self.heads() as u32,
            group: self.group() as u32,
            scale: self.op.mask.scale,
        };
        let nothing = lowering.nothing();
        let span = |tensor: &Option<Tensor>| {
            tensor
                .as_ref()
                .map_or_else(|| nothing.clone(), Tensor::span)
        };
        let spans = vec![
            self.op.query.span(),
            span(&preparation.equaliser),
            span(&preparation.center),
            turned.span(),
        ];
        let groups = [vectors.div_ceil(THREADS as u64 / 16), 1, 1];
        lowering.dispatch(variant, groups, &args, spans)?;
        let queries = Queries {
            span: turned.span(),
            stride,
            scale: 1.0,
            center: preparation.center.is_some(),
        };
        Ok((queries, Some(turned)))
    }

    /// The queries as the model has them.
    fn plain_queries(&self) -> Queries {
        Queries {
            span: self.op.query.span(),
            stride: self.head_dim(),
            scale: self.op.mask.scale,
            center: false,
        }
    }

    fn pass(
        &self,
        pass: &Pass,
        turned: &Queries,
        shared: &Shared,
        lowering: &mut Lowering<'_>,
    ) -> Result<()> {
        let plain = self.plain_queries();
        let queries = if pass.zone == Zone::Fresh {
            &plain
        } else {
            turned
        };
        let [key, value] = self.sides(pass.zone, lowering);
        let variant = Variant::new(
            &ATTENTION_PASS,
            &[
                ("THREADS", THREADS),
                ("HEAD_DIM", self.head_dim() as i64),
                ("ROWS", shared.rows as i64),
                ("ZONE", pass.zone as i64),
                ("PAGE", page_size(&self.op.cache)),
                ("CENTER", i64::from(queries.center)),
                ("KEY_KIND", key.constants.kind),
                ("KEY_BITS", key.constants.bits),
                ("KEY_BYTES", key.constants.bytes),
                ("VALUE_KIND", value.constants.kind),
                ("VALUE_BITS", value.constants.bits),
                ("VALUE_BYTES", value.constants.bytes),
            ],
        );
        let (overlay, table) = (self.op.cache.overlay(), self.op.cache.table());
        let tiles = shared.unit_rows.div_ceil(shared.rows);
        let args = AttentionPassArgs {
            statistics: shared.statistics,
            heads: self.heads() as u32,
            group: self.group() as u32,
            kv_heads: self.op.cache.kv_heads() as u32,
            unit_rows: shared.unit_rows as u32,
            tiles: tiles as u32,
            query_stride: queries.stride as u32,
            parts: pass.parts as u32,
            all_parts: shared.all_parts as u32,
            first_part: pass.first_part as u32,
            window: self.op.mask.window.unwrap_or(0),
            prefill: u32::from(self.op.fresh.is_some()),
            capacity: self.op.cache.capacity() as u32,
            key_slots: key.slots,
            value_slots: value.slots,
            key_overlaid: u32::from(key.overlaid),
            value_overlaid: u32::from(value.overlaid),
            first: overlay.map_or(0, |overlay| overlay.tokens.first),
            recent: overlay.map_or(0, |overlay| overlay.tokens.recent),
            ring: overlay.map_or(0, |overlay| overlay.ring() as u32),
            scale: queries.scale,
            softcap: self.op.mask.softcap.unwrap_or(0.0),
            key_factor: key.factor,
            value_factor: value.factor,
            per_sequence: table.map_or(0, |table| table.shape()[1] as u32),
        };
        let spans = vec![
            queries.span.clone(),
            key.codes,
            key.scales,
            value.codes,
            value.scales,
            shared.slot_mapping.span(),
            table.map_or_else(|| lowering.nothing(), Tensor::span),
            lowering.verdict(),
            shared.partial.span(),
        ];
        let groups = [pass.parts, shared.units * tiles, self.op.cache.kv_heads()];
        lowering.dispatch(variant, groups, &args, spans)
    }

    /// What a zone's keys and values are read from.
    fn sides(&self, zone: Zone, lowering: &Lowering<'_>) -> [Rows; 2] {
        if let (Zone::Fresh, Some(Fresh { keys, values })) = (zone, &self.op.fresh) {
            return [keys, values].map(|numbers| Rows {
                constants: Constants::plain(self.head_dim() as i64),
                codes: numbers.span(),
                scales: lowering.nothing(),
                slots: 0,
                overlaid: false,
                factor: 1.0,
            });
        }
        let rows = |side: &KvSide| match (&side.overlay, zone) {
            (Some(overlay), Zone::Overlay) => Rows::of(overlay, true, lowering),
            _ => Rows::of(&side.rows, false, lowering),
        };
        [rows(self.op.cache.key()), rows(self.op.cache.value())]
    }

    fn combine(
        &self,
        shared: &Shared,
        stored_parts: u64,
        lowering: &mut Lowering<'_>,
    ) -> Result<()> {
        let codec = &self.op.cache.value().rows.codec;
        let variant = Variant::new(
            &ATTENTION_COMBINE,
            &[
                ("THREADS", THREADS),
                ("HEAD_DIM", self.head_dim() as i64),
                ("SINKS", i64::from(self.op.sinks.is_some())),
                ("ROTATE", i64::from(codec.rotation().is_some())),
                ("ORDER", codec::order(codec)),
            ],
        );
        let args = AttentionCombineArgs {
            statistics: shared.statistics,
            heads: self.heads() as u32,
            all_parts: shared.all_parts as u32,
            stored_parts: stored_parts as u32,
            padding: 0,
        };
        let sinks = self.op.sinks.as_ref();
        let spans = vec![
            shared.partial.span(),
            sinks.map_or_else(|| lowering.nothing(), Tensor::span),
            lowering.verdict(),
            self.op.output.span(),
        ];
        let groups = [self.tokens() * self.heads(), 1, 1];
        lowering.dispatch(variant, groups, &args, spans)
    }
}

/// Rows of keys or values as a pass reads them.
struct Rows {
    constants: Constants,
    codes: Span,
    scales: Span,
    slots: u32,
    overlaid: bool,
    factor: f32,
}

impl Rows {
    fn of(rows: &KvRows, overlaid: bool, lowering: &Lowering<'_>) -> Self {
        Self {
            constants: Constants::of(&rows.codec),
            codes: rows.codes.span(),
            scales: rows
                .scales
                .as_ref()
                .map_or_else(|| lowering.nothing(), Tensor::span),
            slots: rows.codes.shape()[1] as u32,
            overlaid,
            factor: rows.codec.scale_factor(),
        }
    }
}

/// How many parts a pass over `positions` is cut into, so that all multiprocessors find work when it has `groups` groups
/// uncut.
fn parts(positions: u64, groups: u64, multiprocessors: u32) -> u64 {
    let wanted = (4 * u64::from(multiprocessors)).div_ceil(groups);
    wanted.min(positions.div_ceil(BLOCK)).clamp(1, MOST_PARTS)
}
