//! Which kernels attention takes on an H200.

use walsh_core::ops::{Attention, Fresh, Mask};
use walsh_core::{Activations, KvCache, KvCacheOptions};
use walsh_formats::DType;
use walsh_kernels::{Dispatch, Limits};

use crate::paper::{Bench, H200, h200, names};

/// Attention of so many tokens over a cache.
struct Case {
    spec: &'static str,
    tokens: u64,
    /// Query heads, KV heads and numbers of a head.
    heads: [u64; 3],
    fresh: bool,
    sequences: bool,
}

impl Case {
    fn decode(spec: &'static str, tokens: u64, heads: [u64; 3]) -> Self {
        Self {
            spec,
            tokens,
            heads,
            fresh: false,
            sequences: false,
        }
    }

    fn prefill(spec: &'static str, tokens: u64, heads: [u64; 3]) -> Self {
        Self {
            fresh: true,
            ..Self::decode(spec, tokens, heads)
        }
    }

    /// What it becomes.
    fn lowered(&self, bench: &Bench) -> Vec<Dispatch> {
        let [heads, kv_heads, dim] = self.heads;
        let codecs = self.spec.parse().unwrap();
        let mut options = KvCacheOptions::global(codecs, kv_heads, dim, 4096);
        options.sequences = if self.sequences { self.tokens } else { 1 };
        let own = || bench.tensor(DType::F32, &[self.tokens, kv_heads, dim]);
        let op = Attention {
            query: bench.tensor(DType::F32, &[self.tokens, heads, dim]),
            fresh: self.fresh.then(|| Fresh {
                keys: own(),
                values: own(),
            }),
            cache: KvCache::new(&bench.device, options).unwrap(),
            positions: bench.tensor(DType::I32, &[self.tokens]),
            sequences: self
                .sequences
                .then(|| bench.tensor(DType::I32, &[self.tokens])),
            mask: Mask::causal(dim),
            sinks: None,
            output: bench.tensor(DType::F32, &[self.tokens, heads, dim]),
        };
        bench.lower(vec![op.into()]).unwrap()
    }

    /// The kernels that it runs, behind the slot mapping.
    fn kernels(&self, bench: &Bench) -> Vec<&'static str> {
        let mut kernels = names(&self.lowered(bench));
        assert_eq!(kernels.remove(0), "kv_tokens");
        kernels.dedup();
        kernels
    }
}

const LLAMA: [u64; 3] = [32, 8, 128];
const NATIVE: [&str; 1] = ["attention_decode"];
const DIALECT: [&str; 2] = ["attention_pass", "attention_combine"];

#[test]
fn few_query_rows_take_the_kernel_of_their_own() {
    let bench = h200();
    for spec in [
        "f16",
        "q8_0",
        "q5_0",
        "q4_0",
        "tq2",
        "tq6",
        "k=tq5,v=tq3",
        "tq4+norm",
    ] {
        for dim in [16, 64, 80, 96, 112, 128, 256, 512] {
            let blocks = !spec.starts_with('q') || dim % 32 == 0;
            let codes = !spec.contains("tq") || dim >= 64;
            if blocks && codes {
                let kernels = Case::decode(spec, 1, [8, 2, dim]).kernels(&bench);
                assert_eq!(kernels, NATIVE, "{spec} {dim}");
            }
        }
    }
    assert_eq!(Case::decode("tq4", 16, LLAMA).kernels(&bench), NATIVE);
    let many = Case {
        sequences: true,
        ..Case::decode("tq4", 64, LLAMA)
    };
    assert_eq!(many.kernels(&bench), NATIVE);
}

#[test]
fn queries_are_turned_for_the_keys_and_outputs_for_the_values() {
    let bench = h200();
    for (spec, dim, turns, order) in [
        ("f16", 128, [0, 0], 1),
        ("tq4", 128, [1, 1], 1),
        ("k=tq5,v=tq4+norot", 128, [1, 0], 1),
        ("k=q8_0,v=tq8", 128, [0, 1], 1),
        ("k=q8_0,v=tq8", 96, [0, 1], 12),
        ("k=tq5,v=tq4+norot", 96, [1, 0], 12),
    ] {
        let lowered = Case::decode(spec, 1, [8, 2, dim]).lowered(&bench);
        let of = |name| lowered[1].variant.constant(name);
        assert_eq!([of("KEY_TURNS"), of("VALUE_TURNS")], turns, "{spec} {dim}");
        assert_eq!(of("ROTATE"), i64::from(turns != [0, 0]), "{spec} {dim}");
        assert_eq!(of("ORDER"), order, "{spec} {dim}");
    }
}

#[test]
fn what_it_does_not_take_goes_to_the_dialect_or_to_tiles() {
    let bench = h200();
    for (spec, heads) in [("f32", LLAMA), ("bf16", LLAMA), ("f16", [8, 2, 100])] {
        let kernels = Case::decode(spec, 1, heads).kernels(&bench);
        assert_eq!(kernels, DIALECT, "{spec}");
    }
    // A query is turned in a launch of its own there.
    let turned = ["attention_query", "attention_tiles", "attention_combine"];
    assert_eq!(Case::decode("tq4", 17, LLAMA).kernels(&bench), turned);
    assert_eq!(Case::prefill("tq4", 512, LLAMA).kernels(&bench), turned);
    let tiles = ["attention_tiles", "attention_combine"];
    assert_eq!(Case::prefill("f16", 512, LLAMA).kernels(&bench), tiles);
    // Too few rows, and sums that registers do not hold.
    assert_eq!(Case::prefill("f16", 3, LLAMA).kernels(&bench), DIALECT);
    let wide = Case::prefill("f16", 512, [16, 2, 512]).kernels(&bench);
    assert_eq!(wide, DIALECT);
}

#[test]
fn devices_that_keep_to_f32_or_lack_fragments_have_the_dialect_alone() {
    for limits in [
        Limits {
            activations: Activations::F32,
            ..H200
        },
        Limits {
            fragment_bytes: 0,
            warpgroup_matrices: false,
            cluster_groups: 1,
            ..H200
        },
    ] {
        let bench = Bench::new(limits);
        for case in [
            Case::decode("f16", 1, LLAMA),
            Case::prefill("f16", 512, LLAMA),
        ] {
            assert_eq!(case.kernels(&bench), DIALECT);
        }
    }
}

#[test]
fn groups_ask_for_no_more_than_a_device_has() {
    for room in [99 << 10, 163 << 10, 227 << 10] {
        let bench = Bench::new(Limits {
            fragment_bytes: room,
            warpgroup_matrices: false,
            cluster_groups: 1,
            ..H200
        });
        for spec in ["f16", "tq8", "k=tq8,v=tq4", "q8_0", "k=f16,v=tq8"] {
            for dim in [64, 96, 128, 256, 512] {
                let heads = [16, 4, dim];
                for case in [
                    Case::decode(spec, 1, heads),
                    Case::decode(spec, 4, heads),
                    Case::prefill(spec, 64, heads),
                ] {
                    for dispatch in case.lowered(&bench) {
                        let variant = &dispatch.variant;
                        assert!(variant.dynamic_bytes() <= room, "{variant} of {room}");
                    }
                }
            }
        }
    }
}
