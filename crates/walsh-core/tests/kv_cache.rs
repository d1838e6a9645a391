//! KV caches: sizes, and caches over memory of the caller's.

mod common;

use common::{assert_says, fake};
use walsh_core::ops::{Attention, KvStore, Mask, Operation};
use walsh_core::{
    CacheKind, Error, KvCache, KvCacheOptions, KvSideTensors, KvTensors, OverlayOptions, Tensor,
};
use walsh_formats::DType;
use walsh_formats::kv::Overlay;

fn options(spec: &str) -> KvCacheOptions {
    KvCacheOptions::global(spec.parse().unwrap(), 3, 64, 10)
}

#[test]
fn a_cache_takes_what_its_codecs_take() {
    let (device, _) = fake();
    for (spec, key, value) in [
        ("f32", 256, 256),
        ("f16", 128, 128),
        ("q8_0", 68, 68),
        ("tq4", 34, 34),
        ("k=tq5,v=tq3", 42, 26),
        ("k=tq8+norm,v=bf16", 68, 128),
    ] {
        let cache = KvCache::new(&device, options(spec)).unwrap();
        assert_eq!(cache.bytes(), 3 * 10 * (key + value), "{spec}");
        assert_eq!(cache.codecs().to_string(), spec);
        let spans: Vec<_> = cache.spans().collect();
        assert!(
            spans
                .iter()
                .enumerate()
                .all(|(i, a)| { spans[i + 1..].iter().all(|b| !a.overlaps(b)) })
        );
    }
}

#[test]
fn sizes_are_checked() {
    let (device, _) = fake();
    let good = options("tq4");
    let new = |options| KvCache::new(&device, options);
    for size in [0, 1 << 31, u64::MAX] {
        let capacity = size;
        assert_says(new(KvCacheOptions { capacity, ..good }), &["capacity"]);
        let kv_heads = size;
        assert_says(new(KvCacheOptions { kv_heads, ..good }), &["kv_heads"]);
        let head_dim = size;
        assert_says(new(KvCacheOptions { head_dim, ..good }), &["head_dim"]);
    }
    let head_dim = 72;
    let unsuited = new(KvCacheOptions { head_dim, ..good });
    assert!(matches!(unsuited, Err(Error::Kv(_))));
    assert_says(unsuited, &["72", "tq4"]);
    // More than the device has, and more than 63 bits of bytes.
    for capacity in [1 << 24, (1 << 31) - 1] {
        let large = KvCacheOptions { capacity, ..good };
        assert!(matches!(new(large), Err(Error::OutOfMemory { .. })));
        let kv_heads = (1 << 31) - 1;
        assert!(new(KvCacheOptions { kv_heads, ..large }).is_err());
    }
}

#[test]
fn memory_of_the_callers_must_fit() {
    let (device, _) = fake();
    let options = options("k=tq4,v=f16");
    let zeros = |dtype, shape: &[u64]| device.zeros(dtype, shape).unwrap();
    let key = KvTensors {
        codes: zeros(DType::U8, &[3, 10, 32]),
        scales: Some(zeros(DType::F16, &[3, 10, 1])),
    };
    let value = KvTensors {
        codes: zeros(DType::U8, &[3, 10, 128]),
        scales: None,
    };
    let side = |rows: KvTensors| KvSideTensors {
        rows,
        overlay: None,
    };
    let make =
        |key: KvTensors, value: KvTensors| KvCache::from_tensors(options, [side(key), side(value)]);
    assert!(make(key.clone(), value.clone()).is_ok());

    let wrong = zeros(DType::U8, &[3, 11, 32]);
    let codes = KvTensors {
        codes: wrong,
        ..key.clone()
    };
    assert_says(
        make(codes, value.clone()),
        &["codes", "u8[3, 10, 32]", "u8[3, 11, 32]"],
    );
    let bare = KvTensors {
        scales: None,
        ..key.clone()
    };
    assert_says(
        make(bare, value.clone()),
        &["scales", "f16[3, 10, 1]", "absent"],
    );
    let scaled = KvTensors {
        scales: key.scales.clone(),
        ..value.clone()
    };
    assert_says(make(key.clone(), scaled), &["scales", "absent"]);
    let scales = KvTensors {
        scales: Some(zeros(DType::F32, &[3, 10, 1])),
        ..key.clone()
    };
    assert_says(
        make(scales, value.clone()),
        &["f16[3, 10, 1]", "f32[3, 10, 1]"],
    );

    let arena = device.allocate(8192).unwrap();
    let codes =
        |offset, width| Tensor::new(arena.clone(), offset, DType::U8, &[3, 10, width]).unwrap();
    let at = |offset| KvTensors {
        codes: codes(offset, 32),
        ..key.clone()
    };
    let behind = |offset| KvTensors {
        codes: codes(offset, 128),
        scales: None,
    };
    assert!(make(at(16), behind(976)).is_ok());
    assert_says(make(at(8), behind(976)), &["codes", "multiple of 16"]);
    assert_says(
        make(at(16), behind(960)),
        &["apart from each other", "overlapping"],
    );
}

#[test]
fn slots_of_an_overlay_are_used_as_they_are_written() {
    let tokens = Overlay {
        first: 3,
        recent: 4,
        codec: None,
    };
    let overlay = OverlayOptions { tokens, slack: 2 };
    assert_eq!(overlay.slots(), 9);
    // Positions 0 to 2 lie in slots of their own, p behind them in slot 3 + p mod 6.
    for (stored, slots) in [(0, 0), (2, 2), (3, 3), (4, 7), (5, 8), (6, 9), (50, 9)] {
        assert_eq!(overlay.used(stored), slots, "{stored}");
    }
}

#[test]
fn a_ring_can_be_cut_back_as_far_as_its_window_is_whole() {
    let (device, _) = fake();
    let global = KvCache::new(&device, options("f16")).unwrap();
    assert_eq!(global.earliest_return(10, 4), 0);
    let ring = KvCacheOptions {
        kind: CacheKind::Ring,
        ..options("f16")
    };
    let ring = KvCache::new(&device, ring).unwrap();
    assert_eq!(ring.earliest_return(10, 4), 0);
    // Position 0 is lost; a query at 4 sees 1 to 4.
    assert_eq!(ring.earliest_return(11, 4), 4);
    assert_eq!(ring.earliest_return(30, 4), 23);
    assert_eq!(ring.earliest_return(30, 1), 20);
}

#[test]
fn pages_are_shared_by_sequences_and_named_by_a_table() {
    let (device, _) = fake();
    let paged = |pages, capacity| KvCacheOptions {
        kind: CacheKind::Paged { pages },
        sequences: 4,
        capacity,
        overlay: Some(OverlayOptions {
            tokens: Overlay {
                first: 3,
                recent: 4,
                codec: None,
            },
            slack: 2,
        }),
        ..options("k=tq4,v=f16")
    };
    let new = |pages, capacity| KvCache::new(&device, paged(pages, capacity));
    assert_says(new(5, 100), &["capacity", "multiple of 64"]);
    for pages in [0, 1 << 25, u64::MAX] {
        assert_says(new(pages, 128), &["pages"]);
    }
    let cache = new(5, 128).unwrap();
    // Codes are those of all pages, the overlay is each sequence's own.
    assert_eq!(cache.key().rows.codes.shape(), [3, 5 * 64, 32]);
    let overlay = cache.key().overlay.as_ref().unwrap();
    assert_eq!(overlay.codes.shape()[..2], [4 * 3, 9]);
    assert_eq!(cache.earliest_return(1000, 5), 1000 - 6 + 3);

    let table = |dtype, shape: &[u64]| device.zeros(dtype, shape).unwrap();
    let whole = cache
        .clone()
        .with_table(table(DType::I32, &[4, 2]))
        .unwrap();
    assert_eq!(whole.setting_spans().count(), 1);
    assert!(whole.table().is_some() && cache.table().is_none());
    for wrong in [table(DType::F32, &[4, 2]), table(DType::I32, &[2, 4])] {
        assert_says(cache.clone().with_table(wrong), &["table", "i32[4, 2]"]);
    }
    let inside = overlay.codes.buffer().clone();
    let inside = Tensor::new(inside, 0, DType::I32, &[4, 2]).unwrap();
    assert_says(cache.with_table(inside), &["table", "apart"]);
    let plain = KvCache::new(&device, options("f16")).unwrap();
    assert_says(
        plain.with_table(table(DType::I32, &[1, 0])),
        &["table", "absent"],
    );
}

#[test]
fn ops_need_the_table_of_a_cache_of_pages() {
    let (device, _) = fake();
    let paged = KvCacheOptions {
        kind: CacheKind::Paged { pages: 3 },
        capacity: 128,
        ..options("tq4")
    };
    let bare = KvCache::new(&device, paged).unwrap();
    let table = device.zeros(DType::I32, &[1, 2]).unwrap();
    let whole = bare.clone().with_table(table).unwrap();
    let numbers = |heads| device.zeros(DType::F32, &[2, heads, 64]).unwrap();
    let positions = device.zeros(DType::I32, &[2]).unwrap();
    let store = |cache: &KvCache| KvStore {
        keys: Some(numbers(3)),
        values: Some(numbers(3)),
        positions: positions.clone(),
        sequences: None,
        cache: cache.clone(),
    };
    let attend = |cache: &KvCache| Attention {
        query: numbers(6),
        fresh: None,
        cache: cache.clone(),
        positions: positions.clone(),
        sequences: None,
        mask: Mask::causal(64),
        sinks: None,
        output: numbers(6),
    };
    assert!(store(&whole).validate().is_ok() && attend(&whole).validate().is_ok());
    assert_says(store(&bare).validate(), &["cache", "page table"]);
    assert_says(attend(&bare).validate(), &["cache", "page table"]);
}
