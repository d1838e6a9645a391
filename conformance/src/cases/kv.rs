use walsh::formats::kv::{KvCodec, KvCodecs, Overlay, RowCodec};
use walsh::ops::{KvStore, VectorSpace};
use walsh::{
    CacheKind, CacheSide, DType, KeyPreparation, KvCache, KvCacheOptions, KvSideTensors, KvTensors,
    OverlayOptions, Result, Tensor,
};

use super::{Problems, rng};
use crate::reference::Row;
use crate::{Expected, HostTensor, Problem, Rng};

/// Encoded rows on the host. Slots that nothing was stored into have all bits set: a scale of NaN.
struct HostRows {
    codec: RowCodec,
    slots: usize,
    codes: Vec<u8>,
    scales: Vec<u8>,
}

impl HostRows {
    fn new(codec: RowCodec, heads: usize, slots: usize) -> Self {
        Self {
            slots,
            codes: vec![0xff; heads * slots * codec.code_bytes()],
            scales: vec![0xff; heads * slots * codec.scale_bytes()],
            codec,
        }
    }

    fn encode(&mut self, (head, slot): (usize, usize), numbers: &[f32]) {
        let at = head * self.slots + slot;
        let (code_bytes, scale_bytes) = (self.codec.code_bytes(), self.codec.scale_bytes());
        let codes = &mut self.codes[at * code_bytes..][..code_bytes];
        let scales = &mut self.scales[at * scale_bytes..][..scale_bytes];
        self.codec
            .encode_row(numbers, &mut vec![0.0; numbers.len()], codes, scales)
            .expect("numbers that can be stored");
    }

    /// Decodes a vector, as it lies or turned back.
    fn decode(&self, (head, slot): (usize, usize), turned_back: bool, out: &mut [f32]) {
        let at = head * self.slots + slot;
        let (code_bytes, scale_bytes) = (self.codec.code_bytes(), self.codec.scale_bytes());
        let codes = &self.codes[at * code_bytes..][..code_bytes];
        let scales = &self.scales[at * scale_bytes..][..scale_bytes];
        match turned_back {
            true => self.codec.decode_row(codes, scales, out),
            false => self.codec.decode_row_rotated(codes, scales, out),
        }
    }

    /// Codes, then scales where the codec has any.
    fn tensors(&self, heads: u64) -> Vec<HostTensor> {
        let shape = |last: usize| [heads, self.slots as u64, last as u64];
        let codes = shape(self.codec.code_bytes());
        let mut tensors = vec![HostTensor::stored(DType::U8, &codes, self.codes.clone())];
        if let Some(dtype) = self.codec.scale_dtype() {
            let scales = shape(self.codec.groups());
            tensors.push(HostTensor::stored(dtype, &scales, self.scales.clone()));
        }
        tensors
    }
}

/// A cache on the host: its layout, and the bytes of what is stored.
pub(super) struct HostCache {
    pub(super) options: KvCacheOptions,
    /// What keys are divided by, and what is subtracted from them before: `[kv_heads, head_dim]`.
    preparation: Option<[Vec<f32>; 2]>,
    /// The rows of keys and of values, and those of their overlays.
    sides: [(HostRows, Option<HostRows>); 2],
}

impl HostCache {
    pub(super) fn new(options: KvCacheOptions, prepared: bool, rng: &mut Rng) -> Self {
        let dim = options.head_dim as usize;
        let heads = (options.sequences * options.kv_heads) as usize;
        let sides = [options.codecs.key, options.codecs.value].map(|codec| {
            let rows = |codec, slots: u64| {
                let codec = RowCodec::new(codec, dim).expect("a codec");
                HostRows::new(codec, heads, slots as usize)
            };
            let overlay = options.overlay.and_then(|overlay| {
                let kept = overlay.tokens.side(codec, dim)?;
                Some(rows(kept, overlay.slots()))
            });
            (rows(codec, options.capacity), overlay)
        });
        let preparation = prepared.then(|| {
            let count = options.kv_heads as usize * dim;
            let equaliser = rng.normals(count).iter().map(|x| x.exp()).collect();
            [equaliser, rng.normals(count)]
        });
        Self {
            options,
            preparation,
            sides,
        }
    }

    /// Stores a token of a sequence, as the codec's reference encodes it.
    pub(super) fn store(&mut self, sequence: usize, row: &Row) {
        self.store_sides(sequence, row, BOTH);
    }

    /// Stores a token's keys, its values or both.
    fn store_sides(&mut self, sequence: usize, row: &Row, stored: &[CacheSide]) {
        let dim = self.options.head_dim as usize;
        let heads = self.options.kv_heads as usize;
        let slot = row.position as usize % self.options.capacity as usize;
        let overlay = self.options.overlay;
        let kept = overlay.and_then(|overlay| overlay_slot(overlay, row.position as usize));
        let mut keys = row.keys.clone();
        if let Some([equaliser, center]) = &self.preparation {
            for (k, (e, c)) in keys.iter_mut().zip(equaliser.iter().zip(center)) {
                *k = (*k - c) / e;
            }
        }
        for side in stored {
            let numbers = [&keys, &row.values][*side as usize];
            let (rows, overlay) = &mut self.sides[*side as usize];
            for (head, numbers) in numbers.chunks_exact(dim).enumerate() {
                let head = sequence * heads + head;
                rows.encode((head, slot), numbers);
                if let (Some(overlay), Some(slot)) = (overlay.as_mut(), kept) {
                    overlay.encode((head, slot), numbers);
                }
            }
        }
    }

    /// What a stored token of a sequence decodes to, from the codes or as the overlay has it.
    pub(super) fn load(&self, sequence: usize, position: i64, overlaid: bool) -> Row {
        let dim = self.options.head_dim as usize;
        let heads = self.options.kv_heads as usize;
        let slot = position as usize % self.options.capacity as usize;
        let overlay = self.options.overlay.filter(|_| overlaid);
        let kept = overlay.and_then(|overlay| overlay_slot(overlay, position as usize));
        let [mut keys, values] = [0, 1].map(|side| {
            let (rows, overlay) = &self.sides[side];
            let mut out = vec![0.0; heads * dim];
            for (head, out) in out.chunks_exact_mut(dim).enumerate() {
                let head = sequence * heads + head;
                match (overlay, kept) {
                    (Some(overlay), Some(slot)) => overlay.decode((head, slot), true, out),
                    _ => rows.decode((head, slot), true, out),
                }
            }
            out
        });
        self.unprepare(&mut keys);
        Row {
            position,
            keys,
            values,
        }
    }

    /// What the codes of a token's keys or values are in a space.
    pub(super) fn decode(
        &self,
        (side, space): (CacheSide, VectorSpace),
        sequence: usize,
        position: i32,
    ) -> Vec<f32> {
        let dim = self.options.head_dim as usize;
        let heads = self.options.kv_heads as usize;
        let slot = position as usize % self.options.capacity as usize;
        let mut out = vec![0.0; heads * dim];
        for (head, out) in out.chunks_exact_mut(dim).enumerate() {
            let at = (sequence * heads + head, slot);
            self.sides[side as usize]
                .0
                .decode(at, space != VectorSpace::Stored, out);
        }
        if side == CacheSide::Keys && space == VectorSpace::Model {
            self.unprepare(&mut out);
        }
        out
    }

    /// Brings keys of all heads back to what they were before they were prepared.
    fn unprepare(&self, keys: &mut [f32]) {
        if let Some([equaliser, center]) = &self.preparation {
            for (k, (e, c)) in keys.iter_mut().zip(equaliser.iter().zip(center)) {
                *k = *k * e + c;
            }
        }
    }

    /// The largest norm that a query vector has as it meets the stored keys, times the largest deviation of a key's
    /// numbers as they are stored.
    pub(super) fn score_deviation(&self, (queries, heads): (&[f32], usize), rows: &[Row]) -> f64 {
        let dim = self.options.head_dim as usize;
        let width = self.options.kv_heads as usize * dim;
        let group = heads * dim / width;
        let (ones, zeros) = (vec![1.0; width], vec![0.0; width]);
        let (equaliser, center) = match &self.preparation {
            Some([equaliser, center]) => (equaliser, center),
            None => (&ones, &zeros),
        };
        let largest = |squares: &mut dyn Iterator<Item = f64>| squares.fold(0.0, f64::max).sqrt();
        let query = |(index, query): (usize, &[f32])| -> f64 {
            let equaliser = &equaliser[index % heads / group * dim..][..dim];
            let numbers = query.iter().zip(equaliser);
            numbers.map(|(q, e)| f64::from(q * e).powi(2)).sum()
        };
        let key = |row: &Row| -> f64 {
            let numbers = row.keys.iter().zip(equaliser.iter().zip(center));
            let squares: Vec<f64> = numbers
                .map(|(k, (e, c))| f64::from((k - c) / e).powi(2))
                .collect();
            let of_heads = squares.chunks_exact(dim).map(|head| head.iter().sum());
            of_heads.fold(0.0, f64::max) / dim as f64
        };
        largest(&mut queries.chunks_exact(dim).enumerate().map(query))
            * largest(&mut rows.iter().map(key))
    }

    /// What is stored: codes and scales (where the codec has any) of keys, of their overlay, of values and of theirs.
    pub(super) fn tensors(&self) -> Vec<HostTensor> {
        let heads = self.options.sequences * self.options.kv_heads;
        let mut tensors = Vec::new();
        for (rows, overlay) in &self.sides {
            tensors.extend(rows.tensors(heads));
            tensors.extend(overlay.iter().flat_map(|overlay| overlay.tensors(heads)));
        }
        tensors
    }

    /// What keys are prepared with; [`bind`](Self::bind) finds it behind [`tensors`](Self::tensors).
    pub(super) fn preparation(&self) -> Vec<HostTensor> {
        let shape = [self.options.kv_heads, self.options.head_dim];
        let numbers = self.preparation.iter().flatten();
        numbers.map(|x| HostTensor::f32(&shape, x)).collect()
    }

    /// The cache over device tensors that were made from [`tensors`](Self::tensors) and
    /// [`preparation`](Self::preparation).
    pub(super) fn bind(options: KvCacheOptions, tensors: &[Tensor]) -> Result<KvCache> {
        let mut tensors = tensors.iter().cloned();
        let dim = options.head_dim as usize;
        let mut rows = |codec| -> Result<_> {
            let codec = RowCodec::new(codec, dim)?;
            let mut next = || {
                tensors.next().ok_or_else(|| {
                    walsh::Error::argument("HostCache", "tensors", "of both sides", "too few")
                })
            };
            Ok(KvTensors {
                codes: next()?,
                scales: codec.scale_dtype().map(|_| next()).transpose()?,
            })
        };
        let mut side = |codec| -> Result<_> {
            let kept = options.overlay.and_then(|o| o.tokens.side(codec, dim));
            Ok(KvSideTensors {
                rows: rows(codec)?,
                overlay: kept.map(&mut rows).transpose()?,
            })
        };
        let sides = [side(options.codecs.key)?, side(options.codecs.value)?];
        KvCache::from_tensors(options, sides)?.with_preparation(KeyPreparation {
            equaliser: tensors.next(),
            center: tensors.next(),
        })
    }
}

/// Keys and values.
const BOTH: &[CacheSide] = &[CacheSide::Keys, CacheSide::Values];

/// Where an overlay holds a position, while it does.
fn overlay_slot(overlay: OverlayOptions, position: usize) -> Option<usize> {
    let (first, ring) = (overlay.tokens.first as usize, overlay.ring() as usize);
    match position {
        position if position < first => Some(position),
        position if ring > 0 => Some(first + position % ring),
        _ => None,
    }
}

/// An overlay of some tokens in the codec that goes with the head size.
pub(super) const fn overlay(first: u32, recent: u32, slack: u64) -> OverlayOptions {
    OverlayOptions {
        tokens: Overlay {
            first,
            recent,
            codec: None,
        },
        slack,
    }
}

/// Tokens with random keys and values. Channels differ in magnitude, as keys'
/// do.
pub(super) fn tokens(rng: &mut Rng, options: &KvCacheOptions, positions: &[i32]) -> Vec<Row> {
    let dim = options.head_dim as usize;
    let width = options.kv_heads as usize * dim;
    let token = |position: &i32| {
        let mut keys = rng.normals(width);
        for (channel, key) in keys.iter_mut().enumerate() {
            *key *= if channel % 29 == 3 { 4.0 } else { 1.0 };
        }
        Row {
            position: i64::from(*position),
            keys,
            values: rng.normals(width),
        }
    };
    positions.iter().map(token).collect()
}

/// Every codec at a plain head size, and every head size in some codec.
pub(super) fn specs() -> Vec<(KvCodecs, u64)> {
    let spec = |text: &str| text.parse::<KvCodecs>().expect("a spec");
    let all = KvCodec::all().map(KvCodecs::both);
    let others = [
        "q8_0+rot",
        "q4_0+rot",
        "f16+rot",
        "tq4+norot",
        "tq4+norm",
        "k=tq5,v=tq3",
        "k=f16,v=tq8+norot",
        "k=tq4+norm,v=q8_0",
    ]
    .map(spec);
    let mut all: Vec<(KvCodecs, u64)> = all.chain(others).map(|codecs| (codecs, 64)).collect();
    for dim in [80, 96, 112, 128, 160, 192, 256, 320, 448, 512] {
        all.push((spec("f16"), dim));
        all.push((spec("tq4"), dim));
        all.push((spec("k=tq8,v=tq3"), dim));
        all.push((spec("k=tq6+norm,v=tq5+norot"), dim));
    }
    // A size that no rotation has.
    all.push((spec("k=tq5+norot,v=tq4+norm+norot"), 288));
    all
}

/// Head sizes that are no whole vectors, or no whole chunks of what a GPU takes of a head: dense types have them all.
pub(super) fn uneven() -> impl Iterator<Item = (KvCodecs, u64)> {
    let sizes = [1, 7, 16, 33, 66, 72, 100, 200, 272, 300, 511].into_iter();
    sizes.enumerate().map(|(index, dim)| {
        let text = ["f16", "f32", "k=bf16,v=f16"][index % 3];
        (text.parse().expect("a spec"), dim)
    })
}

/// How many tokens are stored where.
struct Store {
    kind: CacheKind,
    capacity: u64,
    first: i32,
    count: i32,
}

const fn store(kind: CacheKind, capacity: u64, first: i32, count: i32) -> Store {
    Store {
        kind,
        capacity,
        first,
        count,
    }
}

const STORES: &[Store] = &[
    store(CacheKind::Global, 1, 0, 1),
    store(CacheKind::Global, 24, 5, 1),
    store(CacheKind::Global, 24, 0, 24),
    store(CacheKind::Ring, 8, 1_000_005, 1),
    store(CacheKind::Ring, 8, 13, 7),
    store(CacheKind::Ring, 8, 3, 29),
];

pub(super) fn kv_store() -> Problems {
    let mut problems = Vec::new();
    for (codecs, head_dim) in specs().into_iter().chain(uneven()) {
        for (index, store) in STORES.iter().enumerate() {
            let source = [DType::F32, DType::F16, DType::BF16][index % 3];
            let options = KvCacheOptions {
                kind: store.kind,
                ..KvCacheOptions::global(codecs, [3, 1][index % 2], head_dim, store.capacity)
            };
            problems.push(problem((options, false), &[(0, store)], source, BOTH));
        }
    }
    // Overlays: calls shorter and longer than its ring, over its first tokens and behind them; prepared keys.
    for (codecs, head_dim) in [
        ("tq4", 64),
        ("k=tq5,v=tq3", 80),
        ("k=f16,v=tq2", 128),
        ("q4_0", 64),
    ] {
        let codecs = codecs.parse().expect("a spec");
        for (index, store) in STORES.iter().enumerate() {
            let kept = [overlay(4, 5, 2), overlay(0, 3, 0), overlay(6, 0, 9)][index % 3];
            let options = KvCacheOptions {
                kind: store.kind,
                overlay: Some(kept),
                ..KvCacheOptions::global(codecs, 2, head_dim, store.capacity)
            };
            let source = [DType::BF16, DType::F32, DType::F16][index % 3];
            // Of both sides, and of each alone.
            for stored in [BOTH, &BOTH[index % 2..][..1]] {
                let options = (options, index % 2 == 0);
                problems.push(problem(options, &[(0, store)], source, stored));
            }
        }
    }
    // Several sequences in one call, in any order.
    for kept in [None, Some(overlay(2, 4, 1))] {
        for kind in [CacheKind::Global, CacheKind::Ring] {
            let options = KvCacheOptions {
                sequences: 4,
                kind,
                overlay: kept,
                ..KvCacheOptions::global("tq4".parse().expect("a spec"), 2, 64, 24)
            };
            let runs = [
                (2, &store(kind, 24, 3, 5)),
                (0, &store(kind, 24, 0, 24)),
                (3, &store(kind, 24, 23, 1)),
            ];
            problems.push(problem((options, kept.is_some()), &runs, DType::F32, BOTH));
        }
    }
    Box::new(problems.into_iter())
}

/// Stores runs of tokens, each of a sequence, in one call.
fn problem(
    (options, prepared): (KvCacheOptions, bool),
    runs: &[(i32, &Store)],
    source: DType,
    stored_sides: &[CacheSide],
) -> Problem {
    let KvCacheOptions {
        codecs,
        kv_heads,
        head_dim,
        capacity,
        kind,
        ..
    } = options;
    let described: Vec<String> = runs
        .iter()
        .map(|(sequence, run)| format!("{} from {} of {sequence}", run.count, run.first))
        .collect();
    let name = format!(
        "KvStore {codecs} of {source}[{}, {kv_heads}, {head_dim}] into {kind:?} {capacity}{}{}",
        described.join(" + "),
        options.overlay.map_or(String::new(), |o| {
            format!(" overlay {}+{}", o.tokens.first, o.ring())
        }),
        if prepared { " prepared" } else { "" },
    ) + match stored_sides {
        [CacheSide::Keys] => " keys alone",
        [CacheSide::Values] => " values alone",
        _ => "",
    };
    let (seed, mut rng) = rng(&name);
    let positions: Vec<i32> = runs
        .iter()
        .flat_map(|(_, run)| run.first..run.first + run.count)
        .collect();
    let sequences: Vec<i32> = runs
        .iter()
        .flat_map(|(sequence, run)| (0..run.count).map(|_| *sequence))
        .collect();
    let mut rows = tokens(&mut rng, &options, &positions);
    rows[0].values.fill(0.0);
    let shape = [rows.len() as u64, kv_heads, head_dim];
    let [keys, values] = [
        stored(source, &shape, rows.iter_mut().map(|row| &mut row.keys)),
        stored(source, &shape, rows.iter_mut().map(|row| &mut row.values)),
    ];
    let mut cache = HostCache::new(options, prepared, &mut rng);
    let before = cache.tensors();
    for (row, sequence) in rows.iter().zip(&sequences) {
        cache.store_sides(*sequence as usize, row, stored_sides);
    }
    let mut tensors = vec![
        keys,
        values,
        HostTensor::i32(&positions),
        HostTensor::i32(&sequences),
    ];
    for (before, after) in before.into_iter().zip(cache.tensors()) {
        tensors.push(before.becomes(Expected::Exact(after.bytes)));
    }
    tensors.extend(cache.preparation());
    let several = options.sequences > 1;
    let [keys, values] = [CacheSide::Keys, CacheSide::Values].map(|s| stored_sides.contains(&s));
    Problem::new(name, seed, tensors, move |t| {
        Ok(KvStore {
            keys: keys.then(|| t[0].clone()),
            values: values.then(|| t[1].clone()),
            positions: t[2].clone(),
            sequences: several.then(|| t[3].clone()),
            cache: HostCache::bind(options, &t[4..])?,
        }
        .into())
    })
}

/// Rounds the rows to the type that they are stored from, and returns the
/// tensor that holds them.
fn stored<'a>(
    dtype: DType,
    shape: &[u64],
    rows: impl Iterator<Item = &'a mut Vec<f32>>,
) -> HostTensor {
    let mut bytes = Vec::new();
    for row in rows {
        let mut encoded = vec![0; row.len() * dtype.block_bytes()];
        walsh::formats::ggml::encode(dtype, row, &mut encoded).expect("finite numbers");
        walsh::formats::ggml::decode(dtype, &encoded, row).expect("whole numbers");
        bytes.extend(encoded);
    }
    HostTensor::stored(dtype, shape, bytes)
}
