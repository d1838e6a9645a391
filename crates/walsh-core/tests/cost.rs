//! What ops say that they cost.

mod common;

use common::{f32s, fake, hollow, i32s};
use walsh_core::ops::{Attention, Cost, EmbeddingRows, KvStore, Mask, MatMul, Op, Scale};
use walsh_core::{KvCache, KvCacheOptions};
use walsh_formats::DType;

#[test]
fn a_product_reads_its_weight_once() {
    let op: Op = MatMul {
        weight: hollow(DType::Q4_0, &[96, 64]),
        input: f32s(&[3, 64]),
        bias: None,
        output: f32s(&[3, 96]),
    }
    .into();
    let expected = Cost {
        bytes: 96 * 36 + 4 * 3 * 64 + 4 * 3 * 96,
        operations: 2 * 3 * 96 * 64,
    };
    assert_eq!(op.cost(0), expected);
}

#[test]
fn rows_that_are_not_fetched_cost_nothing() {
    let op: Op = EmbeddingRows {
        table: hollow(DType::Q8_0, &[1000, 32]),
        ids: i32s(&[2]),
        scale: 1.0,
        output: f32s(&[2, 32]),
    }
    .into();
    assert_eq!(op.cost(0).bytes, 2 * 34 + 8 + 2 * 128);
    let (input, output) = (f32s(&[5]), f32s(&[5]));
    let factor = 2.0;
    let op: Op = Scale {
        input,
        factor,
        output,
    }
    .into();
    assert_eq!(
        op.cost(9),
        Cost {
            bytes: 40,
            operations: 0
        }
    );
}

#[test]
fn caches_cost_what_is_stored_and_seen_of_them() {
    let (device, _) = fake();
    let options = KvCacheOptions::global("tq4".parse().expect("a codec"), 2, 64, 1000);
    let cache = KvCache::new(&device, options).expect("a cache");
    let side = &cache.key().rows;
    let row = (side.codec.code_bytes() + side.codec.scale_bytes()) as u64;
    let decode = |window| -> Op {
        Attention {
            query: f32s(&[1, 4, 64]),
            fresh: None,
            cache: cache.clone(),
            positions: i32s(&[1]),
            sequences: None,
            mask: Mask {
                window,
                ..Mask::causal(64)
            },
            sinks: None,
            output: f32s(&[1, 4, 64]),
        }
        .into()
    };
    let fixed = 2 * 4 * 256 + 4;
    let cost = decode(None).cost(100);
    assert_eq!(cost.bytes, fixed + 100 * 2 * 2 * row);
    assert_eq!(cost.operations, 4 * 4 * 64 * 100);
    assert_eq!(decode(Some(30)).cost(100).bytes, fixed + 30 * 2 * 2 * row);
    assert_eq!(decode(Some(30)).cost(7).bytes, fixed + 7 * 2 * 2 * row);
    let store: Op = KvStore {
        keys: Some(f32s(&[3, 2, 64])),
        values: Some(f32s(&[3, 2, 64])),
        positions: i32s(&[3]),
        sequences: None,
        cache,
    }
    .into();
    assert_eq!(store.cost(0).bytes, 2 * 3 * 2 * 256 + 12 + 3 * 2 * 2 * row);
}
