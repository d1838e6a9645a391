use walsh::formats::kv::{KvCodec, KvCodecs, Overlay};
use walsh::ops::KvStore;
use walsh::{CacheKind, CacheSide, DType, KvCacheOptions, OverlayOptions};

use super::host_cache::{BOTH, HostCache};
use super::shared::{Problems, Table, rng};
use crate::reference::Row;
use crate::{Expected, HostTensor, Problem, Rng};

pub(super) const TABLES: &[Table] = &[Table::sampled(3, "KvStore", kv_store)];

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
    // Factors of halves that have norms for scales.
    all.push((spec("k=tq4+norm:1.5,v=tq5+norm:0.8"), 512));
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

fn kv_store() -> Problems {
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
    // Into pages, over their edges, in any order.
    for (index, text) in [
        "tq4",
        "k=tq5,v=tq3",
        "f16",
        "q8_0+rot",
        "tq4+norm",
        "k=tq6,v=tq2",
    ]
    .into_iter()
    .enumerate()
    {
        let options = KvCacheOptions {
            sequences: 4,
            kind: CacheKind::Paged { pages: 11 },
            overlay: (index % 2 == 1).then(|| overlay(2, 4, 1)),
            ..KvCacheOptions::global(text.parse().expect("a spec"), 2, [64, 96][index % 2], 320)
        };
        let run = |first, count| store(options.kind, options.capacity, first, count);
        for runs in [
            &[(0, &run(0, 1))][..],
            &[
                (2, &run(60, 9)),
                (0, &run(0, 130)),
                (3, &run(319, 1)),
                (1, &run(64, 64)),
            ],
        ] {
            problems.push(problem((options, index % 3 == 1), runs, DType::F32, BOTH));
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
    for (row, sequence) in rows.iter().zip(&sequences) {
        cache.assign(*sequence as usize, row.position as usize);
    }
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
