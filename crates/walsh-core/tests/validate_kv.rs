//! The checks of ops on caches: what fits passes, and each thing that does not is named.

mod common;

use common::{bad, f32s, fake, good, hollow, i32s, shifted};
use walsh_core::ops::{Attention, Direction, Fresh, KvDecode, KvStore, Mask, Rotate, VectorSpace};
use walsh_core::{CacheKind, CacheSide, KvCache, KvCacheOptions, Tensor};
use walsh_formats::DType;

/// One more than what a kernel's counters hold.
const TOO_LONG: u64 = 1 << 31;

fn options() -> KvCacheOptions {
    KvCacheOptions::global("tq4".parse().expect("a spec"), 2, 64, 16)
}

/// A cache of 2 KV heads of 64 numbers and 16 positions.
fn cache() -> KvCache {
    KvCache::new(&fake().0, options()).expect("a cache")
}

#[test]
fn kv_store() {
    let op = || KvStore {
        keys: Some(f32s(&[3, 2, 64])),
        values: Some(f32s(&[3, 2, 64])),
        positions: i32s(&[3]),
        sequences: None,
        cache: cache(),
    };
    good(op());
    for dtype in [DType::F16, DType::BF16] {
        let vectors = || Some(hollow(dtype, &[3, 2, 64]));
        let (keys, values) = (vectors(), vectors());
        good(KvStore {
            keys: keys.clone(),
            values,
            ..op()
        });
        bad(KvStore { keys, ..op() }, &["values", dtype.name()]);
    }
    for dtype in [DType::Q8_0, DType::I32] {
        let keys = Some(hollow(dtype, &[3, 2, 64]));
        bad(
            KvStore {
                values: keys.clone(),
                keys,
                ..op()
            },
            &["keys", "f32, f16 or bf16"],
        );
        bad(
            KvStore {
                keys: None,
                values: Some(hollow(dtype, &[3, 2, 64])),
                ..op()
            },
            &["values", "f32, f16 or bf16"],
        );
    }
    for shape in [&[3, 2, 32][..], &[3, 1, 64], &[3, 128], &[0, 2, 64]] {
        let keys = Some(f32s(shape));
        bad(KvStore { keys, ..op() }, &["keys"]);
        let values = Some(f32s(shape));
        bad(
            KvStore {
                keys: None,
                values,
                ..op()
            },
            &["values"],
        );
    }
    good(KvStore { keys: None, ..op() });
    good(KvStore {
        values: None,
        ..op()
    });
    bad(
        KvStore {
            keys: None,
            values: None,
            ..op()
        },
        &["keys", "neither"],
    );
    let values = Some(f32s(&[2, 2, 64]));
    bad(KvStore { values, ..op() }, &["values", "[3, 2, 64]"]);
    let positions = i32s(&[2]);
    bad(KvStore { positions, ..op() }, &["positions", "[3]"]);
    let cache = cache();
    let codes = &cache.key().rows.codes;
    let keys = Tensor::new(codes.buffer().clone(), 0, DType::F32, &[1, 2, 64]);
    bad(
        KvStore {
            keys: Some(keys.expect("within the codes")),
            values: Some(f32s(&[1, 2, 64])),
            positions: i32s(&[1]),
            cache,
            sequences: None,
        },
        &["cache", "overlapping"],
    );
}

#[test]
fn kv_decode() {
    let op = || KvDecode {
        cache: cache(),
        side: CacheSide::Keys,
        positions: i32s(&[3]),
        sequences: None,
        space: VectorSpace::Model,
        output: f32s(&[3, 2, 64]),
    };
    good(op());
    for dtype in [DType::F16, DType::BF16] {
        let output = hollow(dtype, &[3, 2, 64]);
        good(KvDecode { output, ..op() });
    }
    let output = hollow(DType::Q8_0, &[3, 2, 64]);
    bad(KvDecode { output, ..op() }, &["output", "f32, f16 or bf16"]);
    for shape in [&[3, 2, 32][..], &[3, 1, 64], &[3, 128], &[0, 2, 64]] {
        let output = f32s(shape);
        bad(KvDecode { output, ..op() }, &["output"]);
    }
    let positions = i32s(&[2]);
    bad(KvDecode { positions, ..op() }, &["positions", "[3]"]);
    let sequences = Some(i32s(&[2]));
    bad(KvDecode { sequences, ..op() }, &["sequences", "[3]"]);
    let options = KvCacheOptions {
        kind: CacheKind::Ring,
        capacity: 2,
        ..options()
    };
    let cache = KvCache::new(&fake().0, options).unwrap();
    bad(
        KvDecode { cache, ..op() },
        &["output", "at most 2 tokens", "of 3"],
    );
    let cache = op().cache;
    let codes = cache.key().rows.codes.buffer().clone();
    let output = Tensor::new(codes, 0, DType::F16, &[3, 2, 64]).unwrap();
    bad(
        KvDecode {
            cache: cache.clone(),
            output: output.clone(),
            ..op()
        },
        &["output", "overlapping"],
    );
    good(KvDecode {
        side: CacheSide::Values,
        cache,
        output,
        ..op()
    });
}

#[test]
fn rotate() {
    let op = |dtype, head_dim| Rotate {
        input: hollow(dtype, &[3, 2, head_dim]),
        direction: Direction::Forward,
        output: hollow(dtype, &[3, 2, head_dim]),
    };
    for head_dim in [16, 64, 80, 96, 112, 128, 160, 192, 256, 512] {
        good(op(DType::F32, head_dim));
    }
    for head_dim in [0, 8, 24, 72, 100, 144, 288, 1024, TOO_LONG] {
        bad(op(DType::F32, head_dim), &["input", &head_dim.to_string()]);
    }
    bad(op(DType::Q8_0, 64), &["input", "f32, f16 or bf16"]);
    let good_op = || op(DType::F16, 64);
    let output = f32s(&[3, 2, 64]);
    bad(
        Rotate {
            output,
            ..good_op()
        },
        &["output", "f16"],
    );
    let output = hollow(DType::F16, &[3, 64]);
    bad(
        Rotate {
            output,
            ..good_op()
        },
        &["output", "[3, 2, 64]"],
    );
    let input = f32s(&[6, 64]);
    bad(Rotate { input, ..good_op() }, &["input", "3 dimensions"]);
    let input = good_op().input;
    good(Rotate {
        output: input.clone(),
        input: input.clone(),
        ..good_op()
    });
    bad(
        Rotate {
            output: shifted(&input, 128),
            input,
            ..good_op()
        },
        &["output", "partly overlapping"],
    );
}

#[test]
fn attention() {
    let op = || Attention {
        query: f32s(&[3, 6, 64]),
        fresh: None,
        cache: cache(),
        positions: i32s(&[3]),
        sequences: None,
        mask: Mask::causal(64),
        sinks: None,
        output: f32s(&[3, 6, 64]),
    };
    let masked = |mask: Mask| Attention { mask, ..op() };
    let plain = Mask::causal(64);
    good(op());
    good(masked(Mask {
        scale: -0.5,
        window: Some(1),
        softcap: Some(30.0),
    }));
    let shaped = |shape: &[u64]| Attention {
        query: f32s(shape),
        output: f32s(shape),
        positions: i32s(&shape[..1]),
        ..op()
    };
    bad(shaped(&[3, 5, 64]), &["query", "2 KV heads", "5 heads"]);
    bad(shaped(&[3, 6, 32]), &["query", "[3, 6, 64]"]);
    bad(shaped(&[3, 384]), &["query", "3 dimensions"]);
    bad(shaped(&[0, 6, 64]), &["query", "2^31 - 1"]);
    bad(shaped(&[3, 0, 64]), &["query", "2^31 - 1"]);
    let positions = i32s(&[4]);
    bad(Attention { positions, ..op() }, &["positions", "[3]"]);
    let output = f32s(&[3, 6, 32]);
    bad(Attention { output, ..op() }, &["output", "[3, 6, 64]"]);
    let output = f32s(&[3, 6, 64]);
    bad(
        Attention {
            query: output.clone(),
            output,
            ..op()
        },
        &["output", "overlapping"],
    );
    let of_cache = cache();
    let inside = Tensor::new(
        of_cache.value().rows.codes.buffer().clone(),
        0,
        DType::F32,
        &[1, 2, 64],
    );
    bad(
        Attention {
            cache: of_cache,
            output: inside.expect("within the codes"),
            ..shaped(&[1, 2, 64])
        },
        &["output", "apart from the cache"],
    );
    for scale in [f32::NAN, f32::INFINITY] {
        bad(masked(Mask { scale, ..plain }), &["mask.scale"]);
    }
    let window = Some(0);
    bad(masked(Mask { window, ..plain }), &["mask.window"]);
    for softcap in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        let softcap = Some(softcap);
        bad(masked(Mask { softcap, ..plain }), &["mask.softcap"]);
    }

    let prefill = |keys: Tensor, values: Tensor| Attention {
        query: f32s(&[3, 6, 64]),
        fresh: Some(Fresh { keys, values }),
        cache: cache(),
        positions: i32s(&[3]),
        mask: plain,
        output: f32s(&[3, 6, 64]),
        sequences: None,
        sinks: None,
    };
    let fresh = || f32s(&[3, 2, 64]);
    good(prefill(fresh(), fresh()));
    bad(
        prefill(f32s(&[2, 2, 64]), f32s(&[2, 2, 64])),
        &["keys", "3 tokens"],
    );
    let half = || hollow(DType::F16, &[3, 2, 64]);
    bad(prefill(half(), half()), &["keys", "f32"]);
    bad(prefill(fresh(), half()), &["values", "f32"]);
    bad(prefill(f32s(&[3, 6, 64]), fresh()), &["keys", "[3, 2, 64]"]);
    let keys = f32s(&[3, 6, 64]);
    let inside = Tensor::new(keys.buffer().clone(), 0, DType::F32, &[3, 2, 64]);
    bad(
        Attention {
            output: keys,
            ..prefill(inside.expect("within"), fresh())
        },
        &["output", "overlapping"],
    );
}
