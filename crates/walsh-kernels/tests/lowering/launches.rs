//! Which dispatches become one launch.

use walsh_core::ops::{KvStore, Op};
use walsh_core::{KvCache, KvCacheOptions, OverlayOptions};
use walsh_formats::DType;
use walsh_formats::kv::Overlay;
use walsh_kernels::{Dispatch, Fusion, Platform};

use crate::paper::{h200, names, separate};

/// How many dispatches each launch has, and of which kernel.
fn launches(lowered: &[Dispatch]) -> Vec<(usize, &'static str)> {
    let launches = Fusion::launches(lowered).into_iter();
    launches
        .map(|launch| (launch.len(), names(&lowered[launch])[0]))
        .collect()
}

#[test]
fn neighbours_of_one_kernel_without_a_hazard_are_one_launch() {
    let bench = separate();
    let input = bench.tensor(DType::F32, &[1, 512]);
    let product = |dtype, n| bench.product(&bench.tensor(dtype, &[n, 512]), &input);
    let first = product(DType::Q4K, 256);
    let behind = bench.product(&bench.tensor(DType::Q4K, &[512, 256]), &first.output);
    let ops: Vec<Op> = vec![
        first.into(),
        product(DType::Q4K, 32).into(),
        product(DType::Q6K, 64).into(),
        behind.into(),
    ];
    let lowered = bench.lower(ops).unwrap();
    let quantise = (1, "quantise");
    let wanted = [
        quantise,
        (3, "matmul_blocks"),
        quantise,
        (1, "matmul_blocks"),
    ];
    assert_eq!(launches(&lowered), wanted);
    // Groups in line: those of each end where those of the next begin.
    let three = &lowered[1..4];
    let (grid, parts) = Fusion::grid(three);
    let ends: Vec<u32> = parts.chunks(4).map(|part| part[0]).collect();
    let groups = three.iter().map(|d| d.groups.iter().product::<u32>());
    let sums: Vec<u32> = groups
        .scan(0, |sum, own| {
            *sum += own;
            Some(*sum)
        })
        .collect();
    assert_eq!((grid, ends), ([sums[2], 1, 1], sums));
    // One text of each variant, and one entry point that names all.
    let fusion = Fusion::of(three);
    let source = fusion.source();
    let symbols: Vec<String> = three.iter().map(|d| d.variant.symbol()).collect();
    assert_eq!(source.matches("__global__").count(), 1);
    assert_eq!(fusion.symbol(), symbols.join("__"));
    for symbol in symbols {
        assert_eq!(
            source
                .matches(&format!("namespace {symbol}_text {{"))
                .count(),
            1
        );
    }
    // A launch alone is what its variant is.
    let alone = Fusion::of(&lowered[..1]);
    assert_eq!(alone.symbol(), lowered[0].variant.symbol());
    assert_eq!(alone.source(), lowered[0].variant.source(Platform::Cuda));
    assert_eq!(Fusion::grid(&lowered[..1]), (lowered[0].groups, Vec::new()));
}

#[test]
fn keys_values_and_their_overlays_are_stored_in_one_launch() {
    let bench = h200();
    let codecs = "tq4".parse().unwrap();
    let mut options = KvCacheOptions::global(codecs, 8, 128, 64);
    options.overlay = Some(OverlayOptions {
        tokens: Overlay {
            first: 4,
            recent: 32,
            codec: None,
        },
        slack: 0,
    });
    let numbers = || bench.tensor(DType::F32, &[1, 8, 128]);
    let store = KvStore {
        keys: Some(numbers()),
        values: Some(numbers()),
        positions: bench.tensor(DType::I32, &[1]),
        sequences: None,
        cache: KvCache::new(&bench.device, options).unwrap(),
    };
    let lowered = bench.lower(vec![store.into()]).unwrap();
    let wanted = [(1, "kv_tokens"), (1, "kv_inspect"), (4, "kv_store")];
    assert_eq!(launches(&lowered), wanted);
}
