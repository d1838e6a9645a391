use walsh::formats::kv::{KvCodecs, RowCodec};
use walsh::ops::KvStore;
use walsh::{CacheKind, DType, KvCache, KvCacheOptions, KvSideTensors, KvTensors, Result, Tensor};

use super::{Problems, rng};
use crate::reference::Row;
use crate::{Expected, HostTensor, Problem, Rng};

/// A cache on the host: its layout, and the bytes of what is stored.
pub(super) struct HostCache {
    pub(super) options: KvCacheOptions,
    codecs: [RowCodec; 2],
    /// Codes, then scales, of keys and of values. Slots that nothing was stored
    /// into have all bits set: a scale of NaN.
    bytes: [[Vec<u8>; 2]; 2],
}

impl HostCache {
    pub(super) fn new(options: KvCacheOptions) -> Self {
        let codec = |codec| RowCodec::new(codec, options.head_dim as usize).expect("a codec");
        let codecs = [codec(options.codecs.key), codec(options.codecs.value)];
        let rows = (options.kv_heads * options.capacity) as usize;
        let bytes = |codec: &RowCodec| {
            [
                vec![0xff; rows * codec.code_bytes()],
                vec![0xff; rows * codec.scale_bytes()],
            ]
        };
        Self {
            options,
            bytes: [bytes(&codecs[0]), bytes(&codecs[1])],
            codecs,
        }
    }

    /// Stores a token, as the codec's reference encodes it.
    pub(super) fn store(&mut self, row: &Row) {
        let dim = self.options.head_dim as usize;
        let capacity = self.options.capacity as usize;
        let slot = row.position as usize % capacity;
        for (side, numbers) in [&row.keys, &row.values].into_iter().enumerate() {
            let codec = &self.codecs[side];
            let [codes, scales] = &mut self.bytes[side];
            for (head, numbers) in numbers.chunks_exact(dim).enumerate() {
                let at = head * capacity + slot;
                let codes = &mut codes[at * codec.code_bytes()..][..codec.code_bytes()];
                let scales = &mut scales[at * codec.scale_bytes()..][..codec.scale_bytes()];
                codec
                    .encode_row(numbers, &mut vec![0.0; dim], codes, scales)
                    .expect("numbers that can be stored");
            }
        }
    }

    /// What a stored token decodes to.
    pub(super) fn load(&self, position: i64) -> Row {
        let dim = self.options.head_dim as usize;
        let capacity = self.options.capacity as usize;
        let slot = position as usize % capacity;
        let [keys, values] = [0, 1].map(|side| {
            let codec = &self.codecs[side];
            let [codes, scales] = &self.bytes[side];
            let mut out = vec![0.0; self.options.kv_heads as usize * dim];
            for (head, out) in out.chunks_exact_mut(dim).enumerate() {
                let at = head * capacity + slot;
                let codes = &codes[at * codec.code_bytes()..][..codec.code_bytes()];
                let scales = &scales[at * codec.scale_bytes()..][..codec.scale_bytes()];
                codec.decode_row(codes, scales, out);
            }
            out
        });
        Row {
            position,
            keys,
            values,
        }
    }

    /// Its tensors: codes and scales (where the codec has any) of keys, then of
    /// values.
    pub(super) fn tensors(&self) -> Vec<HostTensor> {
        let rows = [self.options.kv_heads, self.options.capacity];
        let mut tensors = Vec::new();
        for (codec, [codes, scales]) in self.codecs.iter().zip(&self.bytes) {
            let shape = [rows[0], rows[1], codec.code_bytes() as u64];
            tensors.push(HostTensor::stored(DType::U8, &shape, codes.clone()));
            if let Some(dtype) = codec.scale_dtype() {
                let shape = [rows[0], rows[1], codec.groups() as u64];
                tensors.push(HostTensor::stored(dtype, &shape, scales.clone()));
            }
        }
        tensors
    }

    /// The cache over device tensors that were made from
    /// [`tensors`](Self::tensors).
    pub(super) fn bind(options: KvCacheOptions, tensors: &[Tensor]) -> Result<KvCache> {
        let mut tensors = tensors.iter().cloned();
        let [key, value] = [options.codecs.key, options.codecs.value].map(|codec| -> Result<_> {
            let codec = RowCodec::new(codec, options.head_dim as usize)?;
            let mut next = || {
                tensors.next().ok_or_else(|| {
                    walsh::Error::argument("HostCache", "tensors", "of both sides", "too few")
                })
            };
            Ok(KvTensors {
                codes: next()?,
                scales: codec.scale_dtype().map(|_| next()).transpose()?,
            })
        });
        KvCache::from_tensors(options, [key?, value?])
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
    let mut all: Vec<(KvCodecs, u64)> = [
        "f32",
        "f16",
        "bf16",
        "q8_0",
        "q5_0",
        "q4_0",
        "tq2",
        "tq3",
        "tq4",
        "tq5",
        "tq6",
        "tq8",
        "tq4+norot",
        "tq4+norm",
        "k=tq5,v=tq3",
        "k=f16,v=tq8+norot",
        "k=tq4+norm,v=q8_0",
    ]
    .map(|text| (spec(text), 64))
    .to_vec();
    for dim in [80, 96, 112, 128, 160, 192, 256, 512] {
        all.push((spec("f16"), dim));
        all.push((spec("tq4"), dim));
        all.push((spec("k=tq8,v=tq3"), dim));
        all.push((spec("k=tq6+norm,v=tq5+norot"), dim));
    }
    all
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
    for (spec, head_dim) in specs() {
        for (index, store) in STORES.iter().enumerate() {
            let source = [DType::F32, DType::F16, DType::BF16][index % 3];
            let options = KvCacheOptions {
                codecs: spec,
                kv_heads: [3, 1][index % 2],
                head_dim,
                capacity: store.capacity,
                kind: store.kind,
                sequences: 1,
                overlay: None,
            };
            problems.push(problem(options, store, source));
        }
    }
    Box::new(problems.into_iter())
}

fn problem(options: KvCacheOptions, store: &Store, source: DType) -> Problem {
    let KvCacheOptions {
        spec,
        kv_heads,
        head_dim,
        capacity,
        kind,
    } = options;
    let (first, count) = (store.first, store.count);
    let name = format!(
        "KvStore {spec sequences: None,
} of {source}[{count}, {kv_heads}, {head_dim}] from {first} into {kind:?} {capacity}"
    );
    let (seed, mut rng) = rng(&name);
    let positions: Vec<i32> = (first..first + count).collect();
    let mut rows = tokens(&mut rng, &options, &positions);
    rows[0].values.fill(0.0);
    let shape = [count as u64, kv_heads, head_dim];
    let [keys, values] = [
        stored(source, &shape, rows.iter_mut().map(|row| &mut row.keys)),
        stored(source, &shape, rows.iter_mut().map(|row| &mut row.values)),
    ];
    let mut cache = HostCache::new(options);
    let before = cache.tensors();
    rows.iter().for_each(|row| cache.store(row));
    let mut tensors = vec![keys, values, HostTensor::i32(&positions)];
    for (before, after) in before.into_iter().zip(cache.tensors()) {
        tensors.push(before.becomes(Expected::Exact(after.bytes)));
    }
    Problem::new(name, seed, tensors, move |t| {
        Ok(KvStore {
            keys: t[0].clone(),
            values: t[1].clone(),
            positions: t[2].clone(),
            cache: HostCache::bind(options, &t[3..])?,
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
