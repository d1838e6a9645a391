use walsh::formats::kv::KvSpec;
use walsh::ops::{AttentionDecode, AttentionPrefill, Mask};
use walsh::{CacheKind, DType, KvCacheOptions};

use super::kv::{HostCache, specs, tokens};
use super::{Problems, rng};
use crate::reference::{AttentionShape, Row, attention};
use crate::{Expected, HostTensor, Problem};

/// One attention over a cache.
#[derive(Debug, Clone, Copy)]
struct Case {
    options: KvCacheOptions,
    heads: u64,
    /// The position of the first query.
    first: i32,
    /// How many queries there are.
    queries: i32,
    window: Option<u32>,
    softcap: Option<f32>,
}

impl Case {
    /// A case of a global cache that has room to spare.
    fn new(spec: KvSpec, head_dim: u64, first: i32, queries: i32) -> Self {
        Self {
            options: KvCacheOptions {
                spec,
                kv_heads: 2,
                head_dim,
                capacity: (first + queries) as u64 + 5,
                kind: CacheKind::Global,
            },
            heads: 4,
            first,
            queries,
            window: None,
            softcap: None,
        }
    }

    fn grouped(mut self, kv_heads: u64, group: u64) -> Self {
        self.options.kv_heads = kv_heads;
        self.heads = kv_heads * group;
        self
    }

    fn ring(mut self, capacity: u64, window: u32) -> Self {
        self.options.capacity = capacity;
        self.options.kind = CacheKind::Ring;
        self.window = Some(window);
        self
    }
}

/// The cases that both forms share.
fn cases(queries: &[i32]) -> Vec<Case> {
    let mut cases = Vec::new();
    for (index, (spec, head_dim)) in specs().into_iter().enumerate() {
        for first in [0, 3, 70] {
            cases.push(Case::new(
                spec,
                head_dim,
                first,
                queries[index % queries.len()],
            ));
        }
    }
    let spec = |text: &str| text.parse::<KvSpec>().expect("a spec");
    // Every group size that models use, and contexts around the sizes of tiles.
    for text in ["f16", "tq4"] {
        for group in 1..=16 {
            let base = Case::new(spec(text), 64, 37, queries[group as usize % queries.len()]);
            cases.push(base.grouped([1, 3][group as usize % 2], group));
        }
        for first in [15, 16, 31, 32, 63, 64, 127, 128, 255, 256, 257, 1000] {
            cases.push(Case::new(spec(text), 64, first, 1).grouped(1, 3));
        }
    }
    for text in ["f32", "q8_0", "tq8", "k=tq5,v=tq4+norot"] {
        for queries in queries {
            let plain = Case::new(spec(text), 128, 150, *queries).grouped(2, 3);
            for window in [1, 2, 17, 64, 10_000] {
                cases.push(Case {
                    window: Some(window),
                    ..plain
                });
            }
            cases.push(Case {
                softcap: Some(50.0),
                ..plain
            });
            cases.push(Case {
                softcap: Some(2.0),
                window: Some(33),
                ..plain
            });
        }
    }
    // A ring at every offset of its beginning.
    for first in 0..40 {
        let queries = queries[first as usize % queries.len()];
        let capacity = 16 + queries as u64;
        cases.push(Case::new(spec("tq4"), 64, first, queries).ring(capacity, 16));
    }
    cases.push(Case::new(spec("f16"), 256, 100_000, 3).ring(600, 512));
    cases
}

pub(super) fn decode() -> Problems {
    let all = cases(&[1, 2, 5, 8, 40]);
    Box::new(all.into_iter().map(|case| problem(case, false)))
}

pub(super) fn prefill() -> Problems {
    let all = cases(&[1, 7, 16, 33, 65]);
    Box::new(all.into_iter().map(|case| problem(case, true)))
}

fn problem(case: Case, prefill: bool) -> Problem {
    let Case {
        options,
        heads,
        first,
        queries,
        window,
        softcap,
    } = case;
    let name = format!(
        "Attention{} {} {:?} {}: [{queries}, {heads}/{}, {}] from {first}{}{}",
        if prefill { "Prefill" } else { "Decode" },
        options.spec,
        options.kind,
        options.capacity,
        options.kv_heads,
        options.head_dim,
        window.map_or(String::new(), |window| format!(" window {window}")),
        softcap.map_or(String::new(), |softcap| format!(" softcap {softcap}")),
    );
    let (seed, mut rng) = rng(&name);
    let positions: Vec<i32> = (first..first + queries).collect();
    // What the cache holds: all that came before, and for a decode the queries'
    // own tokens. A ring has forgotten the oldest.
    let held = if prefill { first } else { first + queries };
    let oldest = match options.kind {
        CacheKind::Global => 0,
        CacheKind::Ring => (held - options.capacity as i32).max(0),
    };
    let mut cache = HostCache::new(options);
    let before: Vec<i32> = (oldest..held).collect();
    for row in tokens(&mut rng, &options, &before) {
        cache.store(&row);
    }
    let mut rows: Vec<Row> = (oldest..held).map(|p| cache.load(i64::from(p))).collect();
    let fresh = tokens(&mut rng, &options, &positions);
    if prefill {
        rows.extend(fresh.iter().cloned());
    }
    let shape = [queries as u64, heads, options.head_dim];
    let query = rng.normals(super::count(&shape));
    let mask = Mask {
        window,
        softcap,
        ..Mask::causal(options.head_dim)
    };
    let sizes = AttentionShape {
        heads: heads as usize,
        kv_heads: options.kv_heads as usize,
        head_dim: options.head_dim as usize,
    };
    let values = attention(sizes, &query, &positions, &rows, &mask);
    let expected = HostTensor::output(DType::F32, &shape, expected(values, &rows));
    let mut tensors = vec![
        HostTensor::f32(&shape, &query),
        HostTensor::i32(&positions),
        expected,
    ];
    let kv_shape = [queries as u64, options.kv_heads, options.head_dim];
    let side = |numbers: fn(&Row) -> &Vec<f32>| {
        let all: Vec<f32> = fresh.iter().flat_map(|row| numbers(row).clone()).collect();
        HostTensor::f32(&kv_shape, &all)
    };
    tensors.extend([side(|row| &row.keys), side(|row| &row.values)]);
    tensors.extend(cache.tensors());
    Problem::new(name, seed, tensors, move |t| {
        let cache = HostCache::bind(options, &t[5..])?;
        let (query, positions, output) = (t[0].clone(), t[1].clone(), t[2].clone());
        Ok(if prefill {
            AttentionPrefill {
                query,
                keys: t[3].clone(),
                values: t[4].clone(),
                cache,
                positions,
                mask,
                output,
            }
            .into()
        } else {
            AttentionDecode {
                query,
                cache,
                positions,
                mask,
                output,
            }
            .into()
        })
    })
}

fn expected(values: Vec<f64>, rows: &[Row]) -> Expected {
    let largest = rows
        .iter()
        .flat_map(|row| &row.values)
        .fold(0.0f32, |most, value| most.max(value.abs()));
    Expected::Close {
        bounds: vec![1e-5 * f64::from(largest.max(1.0)); values.len()],
        values,
        leave: None,
        why: "f32 scores, exponentials and sums over exactly decoded codes",
    }
}
