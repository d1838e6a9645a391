//! Attention: queries turned, passes over zones of positions, their merge.

mod decode;
mod table;

use walsh_core::ops::{Attention, Fresh};
use walsh_core::{Activations, Buffer, KvRows, KvSide, Result, Span, Tensor};

use super::codec::{self, Constants};
use super::slot_mapping::{page_size, slot_mapping};
use crate::kernel::Variant;
use crate::lower::{Limits, Lowering};
pub(super) use decode::ATTENTION_DECODE;
use decode::Decode;
pub(super) use table::{ATTENTION_COMBINE, ATTENTION_PASS, ATTENTION_QUERY, ATTENTION_TILES};
use table::{AttentionCombineArgs, AttentionPassArgs, AttentionQueryArgs};

const THREADS: i64 = 128;

/// The fewest query rows that CUDA's own kernel for many of them gains by.
const FEWEST_ROWS: u64 = 16;

/// Threads of a group of that kernel.
const TILE_THREADS: u64 = 128;

/// Bytes of a group's memory that the driver takes for itself.
const RESERVED: u64 = 1 << 10;

/// Positions that a group of a pass takes at a time.
const BLOCK: u64 = THREADS as u64;

/// The most parts that a context is cut into.
const MOST_PARTS: u64 = 256;

/// Adds the dispatches of attention.
pub(crate) fn attention(op: &Attention, lowering: &mut Lowering<'_>) -> Result<()> {
    countable(op, lowering)?;
    match Decode::of(op, lowering.limits()) {
        Some(decode) => decode.lower(lowering),
        None => Attend { op }.lower(lowering),
    }
}

/// Fails when kernels cannot count an op's numbers or its cache's rows in 32 bits.
fn countable(op: &Attention, lowering: &Lowering<'_>) -> Result<()> {
    lowering.countable(&[&op.query])?;
    for side in [op.cache.key(), op.cache.value()] {
        let rows = side.rows.codes.shape()[0] * side.rows.codes.shape()[1];
        if rows > u64::from(u32::MAX) {
            return Err(lowering.unsupported("the cache has 2^32 rows or more"));
        }
    }
    Ok(())
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

/// How query rows share a pass.
#[derive(Clone, Copy)]
struct Tiling {
    /// Rows of a tile.
    rows: u64,
    /// Rows of a unit: those of all tokens, or with sequences of one.
    unit_rows: u64,
    /// Tiles of all units.
    tiles: u64,
    /// Whether they are those of CUDA's own kernel.
    native: bool,
}

/// What all passes share.
struct Shared {
    tiling: Tiling,
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
        let cache = &self.op.cache;
        let tokens = (&self.op.positions, self.op.sequences.as_ref());
        let slot_mapping = slot_mapping(tokens, self.op.token_limits(), Some(cache), lowering)?;
        let tiling = self.tiling(lowering.limits());
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
            let groups = tiling.tiles * cache.kv_heads();
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
            tiling,
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

    /// How query rows share a pass: as many as registers hold the sums of.
    fn tiling(&self, limits: Limits) -> Tiling {
        let tokens = self.tokens();
        if self.has_tiles(limits) {
            let rows = tile_rows(self.head_dim());
            // A sequence's last tile need not be full.
            let runs = match self.op.sequences {
                None => 0,
                Some(_) => self.op.cache.sequences().min(tokens),
            };
            return Tiling {
                rows,
                unit_rows: tokens * self.group(),
                tiles: (tokens * self.group()).div_ceil(rows) + runs,
                native: true,
            };
        }
        let (units, unit_rows) = match self.op.sequences {
            None => (1, tokens * self.group()),
            Some(_) => (tokens, self.group()),
        };
        let most = match self.head_dim() {
            ..=256 => 8,
            _ => 4,
        };
        let rows = unit_rows.next_power_of_two().min(most);
        Tiling {
            rows,
            unit_rows,
            tiles: units * unit_rows.div_ceil(rows),
            native: false,
        }
    }

    /// Whether CUDA's own kernel for many rows takes the op.
    fn has_tiles(&self, limits: Limits) -> bool {
        let exact = limits.activations == Activations::F32;
        let dim = self.head_dim();
        let many = self.tokens() * self.group() >= FEWEST_ROWS;
        !exact && many && limits.fragment_bytes > 0 && dim.is_multiple_of(16) && dim <= 256
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
        let variant = self.variant(
            pass,
            [&key, &value],
            queries.center,
            (shared, lowering.limits()),
        );
        let (overlay, table) = (self.op.cache.overlay(), self.op.cache.table());
        let tiling = shared.tiling;
        let args = AttentionPassArgs {
            statistics: shared.statistics,
            heads: self.heads() as u32,
            group: self.group() as u32,
            kv_heads: self.op.cache.kv_heads() as u32,
            unit_rows: tiling.unit_rows as u32,
            tiles: tiling.unit_rows.div_ceil(tiling.rows) as u32,
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
            tokens: self.tokens() as u32,
            sequences: u32::from(self.op.sequences.is_some()),
        };
        let spans = vec![
            queries.span.clone(),
            key.codes,
            key.scales,
            value.codes,
            value.scales,
            shared.slot_mapping.span(),
            lowering.span(table),
            lowering.verdict(),
            shared.partial.span(),
        ];
        let groups = [pass.parts, tiling.tiles, self.op.cache.kv_heads()];
        lowering.dispatch(variant, groups, &args, spans)
    }

    fn variant(
        &self,
        pass: &Pass,
        [key, value]: [&Rows; 2],
        center: bool,
        (shared, limits): (&Shared, Limits),
    ) -> Variant {
        let dim = self.head_dim();
        let rows = [
            ("ZONE", pass.zone as i64),
            ("PAGE", page_size(&self.op.cache)),
            ("CENTER", i64::from(center)),
            ("KEY_KIND", key.constants.kind),
            ("KEY_BITS", key.constants.bits),
            ("KEY_BYTES", key.constants.bytes),
            ("VALUE_KIND", value.constants.kind),
            ("VALUE_BITS", value.constants.bits),
            ("VALUE_BYTES", value.constants.bytes),
        ];
        let (kernel, form) = if shared.tiling.native {
            let form = TileForm::of(dim, [key.constants, value.constants], pass.zone, limits);
            let form = vec![
                ("THREADS", TILE_THREADS as i64),
                ("RESIDENT", form.resident as i64),
                ("DYNAMIC", form.bytes as i64),
                ("HEAD_DIM", dim as i64),
                ("ROWS", shared.tiling.rows as i64),
                ("POSITIONS", form.positions as i64),
                ("SOFTCAP", i64::from(self.op.mask.softcap.is_some())),
            ];
            (&ATTENTION_TILES, form)
        } else {
            let form = vec![
                ("THREADS", THREADS),
                ("HEAD_DIM", dim as i64),
                ("ROWS", shared.tiling.rows as i64),
            ];
            (&ATTENTION_PASS, form)
        };
        Variant::new(kernel, &[&form[..], &rows].concat())
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
            lowering.span(sinks),
            lowering.verdict(),
            self.op.output.span(),
        ];
        let groups = [self.tokens() * self.heads(), 1, 1];
        lowering.dispatch(variant, groups, &args, spans)
    }
}

/// Rows of keys or values as a pass reads them.
pub(super) struct Rows {
    pub(super) constants: Constants,
    pub(super) codes: Span,
    pub(super) scales: Span,
    pub(super) slots: u32,
    overlaid: bool,
    pub(super) factor: f32,
}

impl Rows {
    /// Whether the rows of every head begin at a multiple of 16 bytes.
    pub(super) fn is_aligned(&self) -> bool {
        let head = u64::from(self.slots) * self.constants.bytes as u64;
        self.codes.offset.is_multiple_of(16) && head.is_multiple_of(16)
    }

    pub(super) fn of(rows: &KvRows, overlaid: bool, lowering: &Lowering<'_>) -> Self {
        Self {
            constants: Constants::of(&rows.codec),
            codes: rows.codes.span(),
            scales: lowering.span(rows.scales.as_ref()),
            slots: rows.codes.shape()[1] as u32,
            overlaid,
            factor: rows.codec.scale_factor(),
        }
    }
}

/// Query rows of a group of [`ATTENTION_TILES`], as many as registers hold the sums of.
fn tile_rows(dim: u64) -> u64 {
    if dim <= 128 { 128 } else { 64 }
}

/// How [`ATTENTION_TILES`] takes a zone.
struct TileForm {
    /// Positions of a tile of keys and values.
    positions: u64,
    /// The group's memory, in bytes.
    bytes: u64,
    /// Groups of a multiprocessor.
    resident: u64,
}

impl TileForm {
    /// The largest tiles that a device has room for, with two groups to a multiprocessor if possible.
    fn of(dim: u64, sides: [Constants; 2], zone: Zone, limits: Limits) -> Self {
        // The smallest fit into what every device has that has such kernels.
        let most = if dim <= 128 && zone != Zone::Overlay {
            64
        } else {
            32
        };
        let sizes = [64, 32].into_iter().filter(|size| *size <= most);
        let room = u64::from(limits.fragment_bytes);
        let fits = |positions: &u64| Self::bytes(dim, sides, *positions) <= room;
        let positions = sizes.into_iter().find(fits).unwrap_or(16);
        let bytes = Self::bytes(dim, sides, positions);
        Self {
            positions,
            bytes,
            resident: if 2 * bytes + RESERVED <= room { 2 } else { 1 },
        }
    }

    /// What lies in a group's memory: halves of queries, keys and values, what is copied, places, notes and books.
    fn bytes(dim: u64, sides: [Constants; 2], positions: u64) -> u64 {
        let row = 2 * dim + 16;
        let side = |side: Constants| {
            let bytes = side.bytes as u64;
            match codec::is_halves(side) {
                true => 2 * positions * row,
                false if codec::is_single(side) || !bytes.is_multiple_of(4) => positions * row,
                false => positions * row + (positions * bytes).next_multiple_of(16),
            }
        };
        let [key, value] = sides.map(side);
        let rows = tile_rows(dim);
        rows * row + key + value + 3 * positions * 32 + rows * 16 + 2 * 1024
    }
}

/// How many parts a pass over `positions` is cut into, so that all multiprocessors find work when it has `groups` groups
/// uncut.
fn parts(positions: u64, groups: u64, multiprocessors: u32) -> u64 {
    let wanted = (4 * u64::from(multiprocessors)).div_ceil(groups);
    wanted.min(positions.div_ceil(BLOCK)).clamp(1, MOST_PARTS)
}
