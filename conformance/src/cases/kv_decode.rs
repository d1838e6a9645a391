use walsh::formats::ggml;
use walsh::formats::kv::KvCodecs;
use walsh::ops::{KvDecode, VectorSpace};
use walsh::{CacheKind, CacheSide, DType, KvCacheOptions};

use super::host_cache::HostCache;
use super::kv::{overlay, specs, tokens, uneven};
use super::shared::{Problems, Table, rng};
use crate::{Expected, HostTensor, Problem};

pub(super) const TABLES: &[Table] = &[Table::sampled(4, "KvDecode", kv_decode)];

/// A cache, the tokens that are stored into it, and those of them that are decoded.
struct Range {
    kind: CacheKind,
    capacity: u64,
    stored: std::ops::Range<i32>,
    decoded: std::ops::Range<i32>,
}

const fn range(
    kind: CacheKind,
    capacity: u64,
    stored: std::ops::Range<i32>,
    decoded: std::ops::Range<i32>,
) -> Range {
    Range {
        kind,
        capacity,
        stored,
        decoded,
    }
}

const RANGES: &[Range] = &[
    range(CacheKind::Global, 1, 0..1, 0..1),
    range(CacheKind::Global, 24, 0..24, 3..22),
    range(
        CacheKind::Ring,
        8,
        1_000_002..1_000_006,
        1_000_005..1_000_006,
    ),
    range(CacheKind::Global, 24, 5..12, 5..12),
    range(CacheKind::Ring, 8, 3..32, 24..32),
    range(CacheKind::Ring, 8, 3..32, 26..30),
];

const SPACES: [VectorSpace; 3] = [
    VectorSpace::Model,
    VectorSpace::Stored,
    VectorSpace::Prepared,
];

const TYPES: [DType; 3] = [DType::F32, DType::BF16, DType::F16];

fn kv_decode() -> Problems {
    let options = |codecs: KvCodecs, head_dim: u64, range: &Range| KvCacheOptions {
        kind: range.kind,
        ..KvCacheOptions::global(codecs, 3, head_dim, range.capacity)
    };
    let mut problems = Vec::new();
    for (index, (codecs, head_dim)) in specs().into_iter().chain(uneven()).enumerate() {
        for (turn, side) in [CacheSide::Keys, CacheSide::Values].into_iter().enumerate() {
            let range = &RANGES[(index + 3 * turn) % RANGES.len()];
            let decoded = Decoded {
                side,
                space: SPACES[(index + turn) % 3],
                dtype: TYPES[(index / 3 + index + turn) % 3],
            };
            let options = options(codecs, head_dim, range);
            problems.push(problem((options, index % 4 != 3), &[(0, range)], decoded));
        }
    }
    // Every space of keys that are prepared by a codec that rotates, in every type; an overlay beside them changes nothing.
    for (index, space) in SPACES.into_iter().enumerate() {
        for (turn, dtype) in TYPES.into_iter().enumerate() {
            let range = &RANGES[(index + turn) % RANGES.len()];
            let side = CacheSide::Keys;
            let options = KvCacheOptions {
                overlay: (turn == 1).then_some(overlay(4, 5, 2)),
                ..options("tq4".parse().expect("a spec"), 96, range)
            };
            let decoded = Decoded { side, space, dtype };
            problems.push(problem((options, true), &[(0, range)], decoded));
        }
    }
    // Several sequences in one call, in any order.
    for (kind, capacity) in [
        (CacheKind::Global, 24),
        (CacheKind::Ring, 24),
        (CacheKind::Paged { pages: 9 }, 128),
    ] {
        for side in [CacheSide::Keys, CacheSide::Values] {
            let end = capacity as i32;
            let runs = [
                (2, &range(kind, capacity, 3..8, 3..8)),
                (0, &range(kind, capacity, 0..end, 0..end)),
                (3, &range(kind, capacity, 20..24, 23..24)),
            ];
            let options = KvCacheOptions {
                sequences: 4,
                ..options("k=tq5,v=tq3".parse().expect("a spec"), 64, runs[0].1)
            };
            let decoded = Decoded {
                side,
                space: VectorSpace::Model,
                dtype: DType::F32,
            };
            problems.push(problem((options, true), &runs, decoded));
        }
    }
    Box::new(problems.into_iter())
}

/// What is decoded, and to what.
#[derive(Clone, Copy)]
struct Decoded {
    side: CacheSide,
    space: VectorSpace,
    dtype: DType,
}

/// Decodes runs of tokens, each of a sequence, in one call.
fn problem(
    (options, prepared): (KvCacheOptions, bool),
    runs: &[(i32, &Range)],
    Decoded { side, space, dtype }: Decoded,
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
        .map(|(sequence, run)| format!("{:?} of {sequence}", run.decoded))
        .collect();
    let name = format!(
        "KvDecode {codecs} {side} {space:?} of {kind:?} {capacity} to {dtype}[{}, {kv_heads}, {head_dim}]{}{}",
        described.join(" + "),
        if prepared { " prepared" } else { "" },
        if options.overlay.is_some() {
            " overlaid"
        } else {
            ""
        },
    );
    let (seed, mut rng) = rng(&name);
    let mut cache = HostCache::new(options, prepared, &mut rng);
    let (mut positions, mut sequences, mut numbers) = (Vec::new(), Vec::new(), Vec::new());
    for (sequence, run) in runs {
        let stored: Vec<i32> = run.stored.clone().collect();
        for row in tokens(&mut rng, &options, &stored) {
            cache.store(*sequence as usize, &row);
        }
        for position in run.decoded.clone() {
            positions.push(position);
            sequences.push(*sequence);
            numbers.extend(cache.decode((side, space), *sequence as usize, position));
        }
    }
    let mut bytes = vec![0; numbers.len() * dtype.block_bytes()];
    ggml::encode(dtype, &numbers, &mut bytes).expect("finite numbers");
    let shape = [positions.len() as u64, kv_heads, head_dim];
    let mut tensors = vec![
        HostTensor::output(dtype, &shape, Expected::Exact(bytes)),
        HostTensor::i32(&positions),
        HostTensor::i32(&sequences),
    ];
    tensors.extend(cache.tensors());
    tensors.extend(cache.preparation());
    let several = options.sequences > 1;
    Problem::new(name, seed, tensors, move |t| {
        Ok(KvDecode {
            cache: HostCache::bind(options, &t[3..])?,
            side,
            positions: t[1].clone(),
            sequences: several.then(|| t[2].clone()),
            space,
            output: t[0].clone(),
        }
        .into())
    })
}
