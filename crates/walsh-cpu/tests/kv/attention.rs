//! Attention against double precision over the decoded cache, and against the golden file.

use safetensors::SafeTensors;
use walsh_core::ops::{Attention, Fresh, Mask, Scale};
use walsh_core::{CacheKind, KvCache, KvCacheOptions};
use walsh_cpu::Isa;
use walsh_formats::DType;

use crate::support::{Fixture, Sizes, close, device, exact, gaussian, mask, near};

const GLOBAL: Sizes = Sizes {
    heads: 6,
    kv_heads: 2,
    head_dim: 64,
    capacity: 200,
    kind: CacheKind::Global,
};

/// Every codec, in one place or the other.
const SPECS: [&str; 16] = [
    "f32",
    "f16",
    "bf16",
    "q8_0",
    "k=q5_0,v=q4_0",
    "tq2",
    "tq3",
    "tq4",
    "tq5",
    "tq6",
    "tq8",
    "tq4+norm",
    "tq8+norot+norm",
    "k=tq5,v=tq3",
    "k=f16,v=tq8+norot",
    "k=tq6+norot,v=f32",
];

#[test]
fn decode_attends_over_what_is_stored() {
    for isa in Isa::available() {
        for spec in SPECS {
            let fixture = Fixture::new(exact(isa, 2), spec, GLOBAL);
            fixture.store(0..171);
            for positions in [0..1, 130..131, 170..171, 100..103, 90..171] {
                let expected = fixture.expected(positions.clone(), mask(64), None);
                let got = fixture.decode(positions.clone(), mask(64));
                close(
                    &got,
                    &expected,
                    1e-5,
                    &format!("{isa} {spec} at {positions:?}"),
                );
            }
        }
    }
}

#[test]
fn every_head_size_works() {
    for isa in Isa::available() {
        for head_dim in [16, 32, 64, 80, 96, 112, 128, 160, 192, 256, 512] {
            for spec in ["tq2", "tq3", "tq4", "tq5", "tq6", "tq8", "f16"] {
                let sizes = Sizes {
                    heads: 2,
                    kv_heads: 1,
                    head_dim,
                    capacity: 70,
                    ..GLOBAL
                };
                let fixture = Fixture::new(exact(isa, 1), spec, sizes);
                fixture.store(0..70);
                let expected = fixture.expected(68..70, mask(head_dim), None);
                let got = fixture.decode(68..70, mask(head_dim));
                close(&got, &expected, 1e-5, &format!("{isa} {spec} D={head_dim}"));
            }
        }
    }
}

#[test]
fn heads_that_are_no_whole_vectors_work_in_plain_numbers() {
    for isa in Isa::available() {
        for head_dim in [17, 20, 33, 66, 100, 136, 250, 272, 511] {
            for (spec, heads) in [("f16", 2), ("bf16", 1), ("f32", 12), ("k=f16,v=f32", 3)] {
                let sizes = Sizes {
                    heads,
                    kv_heads: 1,
                    head_dim,
                    capacity: 300,
                    ..GLOBAL
                };
                let what = format!("{isa} {spec} D={head_dim} heads {heads}");
                // Several threads: a context in parts.
                let fixture = Fixture::new(exact(isa, 3), spec, sizes);
                fixture.store(0..290);
                let mask = Mask {
                    window: Some(280),
                    ..mask(head_dim)
                };
                let expected = fixture.expected(288..290, mask, None);
                let got = fixture.decode(288..290, mask);
                close(&got, &expected, 1e-5, &what);
                let expected = fixture.expected(290..297, mask, Some(290));
                let got = fixture.prefill(290..297, mask);
                close(&got, &expected, 1e-5, &format!("{what}, a chunk"));
            }
        }
    }
}

#[test]
fn every_group_size_works() {
    for isa in Isa::available() {
        for group in 1..=16 {
            let sizes = Sizes {
                heads: 2 * group,
                kv_heads: 2,
                capacity: 90,
                ..GLOBAL
            };
            let fixture = Fixture::new(exact(isa, 2), "k=tq4,v=q8_0", sizes);
            fixture.store(0..90);
            for positions in [89..90, 80..90] {
                let expected = fixture.expected(positions.clone(), mask(64), None);
                let got = fixture.decode(positions, mask(64));
                close(&got, &expected, 1e-5, &format!("{isa} group of {group}"));
            }
        }
    }
}

#[test]
fn windows_and_soft_caps_are_applied() {
    let fixture = Fixture::new(exact(Isa::detect(), 2), "tq8", GLOBAL);
    fixture.store(0..200);
    let plain = fixture.decode(150..200, mask(64));
    for (window, softcap) in [
        (Some(1), None),
        (Some(33), None),
        (Some(64), Some(2.0)),
        (None, Some(0.7)),
        (Some(1000), None),
    ] {
        let mask = Mask {
            window,
            softcap,
            ..mask(64)
        };
        let expected = fixture.expected(150..200, mask, None);
        let got = fixture.decode(150..200, mask);
        close(
            &got,
            &expected,
            1e-5,
            &format!("window {window:?}, soft cap {softcap:?}"),
        );
        assert_eq!(window == Some(1000), got == plain);
    }
}

#[test]
fn a_ring_wraps_at_every_offset() {
    for isa in Isa::available() {
        let sizes = Sizes {
            capacity: 40,
            kind: CacheKind::Ring,
            ..GLOBAL
        };
        let fixture = Fixture::new(exact(isa, 2), "k=tq4,v=tq8", sizes);
        let mask = Mask {
            window: Some(37),
            ..mask(64)
        };
        fixture.store(0..30);
        for position in 30..130 {
            fixture.store(position..position + 1);
            let rows = if position % 3 == 0 { 4 } else { 1 };
            let positions = position + 1 - rows..position + 1;
            let expected = fixture.expected(positions.clone(), mask, None);
            let got = fixture.decode(positions, mask);
            close(&got, &expected, 1e-5, &format!("{isa} at {position}"));
        }
    }
}

#[test]
fn prefill_takes_the_chunk_unquantised() {
    for isa in Isa::available() {
        for spec in ["f32", "f16", "tq4", "k=tq8,v=f16", "k=q8_0,v=tq5"] {
            let fixture = Fixture::new(exact(isa, 2), spec, GLOBAL);
            for (start, n) in [(0, 1), (0, 97), (1, 64), (63, 65), (128, 50)] {
                fixture.store(0..start.max(1));
                for window in [None, Some(20)] {
                    let mask = Mask {
                        window,
                        softcap: Some(20.0),
                        ..mask(64)
                    };
                    let positions = start..start + n;
                    let expected = fixture.expected(positions.clone(), mask, Some(start));
                    let got = fixture.prefill(positions, mask);
                    close(
                        &got,
                        &expected,
                        1e-5,
                        &format!("{isa} {spec} {n} from {start}, {window:?}"),
                    );
                }
            }
        }
    }
}

#[test]
fn prefill_over_a_ring_reads_what_was_there_before() {
    for isa in Isa::available() {
        let sizes = Sizes {
            capacity: 32,
            kind: CacheKind::Ring,
            ..GLOBAL
        };
        let fixture = Fixture::new(exact(isa, 2), "tq8", sizes);
        let mask = Mask {
            window: Some(32),
            ..mask(64)
        };
        let mut start = 0;
        for n in [20, 50, 7, 33, 1, 64] {
            let positions = start..start + n;
            let expected = fixture.expected(positions.clone(), mask, Some(start));
            let got = fixture.prefill(positions.clone(), mask);
            close(&got, &expected, 1e-5, &format!("{isa} {n} from {start}"));
            fixture.store(positions);
            start += n;
        }
    }
}

#[test]
fn prefill_gives_what_decode_gives_over_an_exact_cache() {
    let fixture = Fixture::new(exact(Isa::detect(), 2), "f32", GLOBAL);
    fixture.store(0..60);
    let chunk = fixture.prefill(60..160, mask(64));
    fixture.store(60..160);
    for position in [60, 61, 100, 159] {
        let one = fixture.decode(position..position + 1, mask(64));
        let at = (position - 60) * one.len();
        let expected: Vec<f64> = one.iter().map(|v| f64::from(*v)).collect();
        close(
            &chunk[at..at + one.len()],
            &expected,
            2e-6,
            &format!("position {position}"),
        );
    }
}

#[test]
fn threads_do_not_change_the_result_beyond_rounding() {
    let sizes = Sizes {
        heads: 2,
        kv_heads: 1,
        capacity: 3000,
        ..GLOBAL
    };
    let alone = Fixture::new(exact(Isa::detect(), 1), "tq4", sizes);
    let shared = Fixture::new(exact(Isa::detect(), 5), "tq4", sizes);
    alone.store(0..3000);
    shared.store(0..3000);
    for position in [0, 63, 64, 700, 2999] {
        let positions = position..position + 1;
        let expected: Vec<f64> = alone
            .decode(positions.clone(), mask(64))
            .iter()
            .map(|v| f64::from(*v))
            .collect();
        let got = shared.decode(positions.clone(), mask(64));
        close(&got, &expected, 2e-6, &format!("position {position}"));
        assert_eq!(got, shared.decode(positions, mask(64)), "runs differ");
    }
}

#[test]
fn large_scores_do_not_overflow() {
    for isa in Isa::available() {
        let fixture = Fixture::new(exact(isa, 2), "f32", GLOBAL);
        fixture.store(0..100);
        let mask = Mask {
            scale: 300.0,
            ..mask(64)
        };
        let expected = fixture.expected(99..100, mask, None);
        close(&fixture.decode(99..100, mask), &expected, 1e-2, isa.name());
        let all_below = Mask {
            scale: -300.0,
            ..mask
        };
        let expected = fixture.expected(99..100, all_below, None);
        close(
            &fixture.decode(99..100, all_below),
            &expected,
            1e-2,
            isa.name(),
        );
    }
}

#[test]
fn a_nan_query_gives_nan_and_harms_no_other() {
    let devices = |isa| [(isa, exact(isa, 2)), (isa, device(isa, 2))];
    for (isa, device) in Isa::available().into_iter().flat_map(devices) {
        let fixture = Fixture::new(device, "tq4", GLOBAL);
        fixture.store(0..100);
        let mut query = fixture.queries(&(99..100));
        let clean = fixture.decode(99..100, mask(64));
        query[2 * 64 + 5] = f32::NAN;
        let got = fixture.decode_queries(99..100, &query, mask(64)).unwrap();
        assert!(got[2 * 64..3 * 64].iter().all(|v| v.is_nan()), "{isa}");
        assert_eq!(got[..2 * 64], clean[..2 * 64], "{isa}");
        assert_eq!(got[3 * 64..], clean[3 * 64..], "{isa}");
    }
}

#[test]
fn positions_past_the_cache_are_errors() {
    let fixture = Fixture::new(exact(Isa::detect(), 2), "tq4", GLOBAL);
    let query = gaussian(1, 6 * 64);
    let wrong = fixture
        .decode_queries(200..201, &query, mask(64))
        .unwrap_err()
        .to_string();
    assert!(
        wrong.contains("position 200 does not fit the cache, which holds 200"),
        "{wrong}"
    );
    assert!(fixture.decode_queries(199..200, &query, mask(64)).is_ok());
}

#[test]
fn the_golden_cases_come_out_of_the_kernels() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/golden/tq4_seed.safetensors"
    );
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    for isa in Isa::available() {
        for d in [256, 512] {
            let floats = |name: &str| -> Vec<f32> {
                let data = file.tensor(&format!("d{d}.attn.{name}")).unwrap().data();
                data.as_chunks::<4>()
                    .0
                    .iter()
                    .map(|b| f32::from_le_bytes(*b))
                    .collect()
            };
            // The file holds slots; the store takes tokens, [token][kv_head][D].
            let tokens = |name: &str, positions: std::ops::Range<usize>| -> Vec<f32> {
                let slots = floats(name);
                let row = |p: usize, h: usize| slots[(h * 96 + p % 96) * d..][..d].to_vec();
                positions
                    .flat_map(|p| [row(p, 0), row(p, 1)].concat())
                    .collect()
            };
            let query = floats("q");
            let sizes = Sizes {
                heads: 8,
                kv_heads: 2,
                head_dim: d,
                capacity: 96,
                kind: CacheKind::Global,
            };
            for (name, kind, positions, window, softcap) in [
                ("linear_len50", CacheKind::Global, 0..50, None, None),
                ("ring_start37", CacheKind::Ring, 37..133, None, None),
                (
                    "ring_start37_window64",
                    CacheKind::Ring,
                    37..133,
                    Some(64),
                    None,
                ),
                (
                    "ring_start37_softcap30",
                    CacheKind::Ring,
                    37..133,
                    None,
                    Some(30.0),
                ),
            ] {
                let fixture = Fixture::new(exact(isa, 2), "tq4+norm", Sizes { kind, ..sizes });
                let (k, v) = (
                    tokens("k", positions.clone()),
                    tokens("v", positions.clone()),
                );
                fixture.store_rows(positions.clone(), &k, &v).unwrap();
                let mask = Mask {
                    window,
                    softcap,
                    ..mask(d)
                };
                let last = positions.end - 1..positions.end;
                let got = fixture.decode_queries(last, &query, mask).unwrap();
                let expected: Vec<f64> = floats(name).iter().map(|v| f64::from(*v)).collect();
                close(&got, &expected, 1e-5, &format!("{isa} D={d} {name}"));
            }
        }
    }
}

/// The default device attends to codes in integers where its set has kernels for it, and says so. A centroid is
/// off by at most 0.0084 of a number's deviation (root mean square, that of six bits; fewer bits lose less), which is
/// what a score and a sum are off by at most, so that an output is off by √2 of it.
#[test]
fn codes_as_integers_stay_within_their_grid() {
    for isa in Isa::available() {
        for (spec, head_dim, group) in [
            ("tq2", 64, 1),
            ("tq3", 128, 2),
            ("tq4", 64, 3),
            ("tq4", 128, 4),
            ("tq5", 80, 5),
            ("tq6", 256, 6),
            ("k=tq5,v=tq3", 96, 7),
            ("k=tq6,v=tq2+norot", 112, 9),
            ("k=tq3,v=tq5", 16, 16),
            ("tq4+norm", 192, 4),
            ("tq4", 256, 4),
            ("tq2", 128, 4),
            ("tq3", 256, 1),
            ("tq4", 96, 2),
            ("tq4", 128, 1),
            ("tq5", 64, 2),
            ("tq6", 128, 3),
        ] {
            let sizes = Sizes {
                heads: 2 * group,
                head_dim,
                capacity: 400,
                ..GLOBAL
            };
            let fixture = Fixture::new(device(isa, 2), spec, sizes);
            fixture.store(0..400);
            for positions in [0..1, 16..18, 299..307, 399..400] {
                let what = format!("{isa} {spec} D={head_dim} group of {group} at {positions:?}");
                let expected = fixture.expected(positions.clone(), mask(head_dim), None);
                let got = fixture.decode(positions.clone(), mask(head_dim));
                near(&got, &expected, 0.012, &what);
                assert_eq!(got, fixture.decode(positions, mask(head_dim)), "{what}");
            }
            let windowed = Mask {
                window: Some(100),
                softcap: Some(20.0),
                ..mask(head_dim)
            };
            let expected = fixture.expected(300..399, windowed, Some(300));
            let got = fixture.prefill(300..399, windowed);
            near(
                &got,
                &expected,
                0.012,
                &format!("{isa} {spec} D={head_dim}"),
            );
        }
    }
}

#[test]
fn plans_say_which_form_attention_takes() {
    for isa in Isa::available() {
        for (fixture, integers) in [
            (
                Fixture::new(device(isa, 1), "tq4", GLOBAL),
                isa != Isa::Portable && cfg!(target_arch = "x86_64"),
            ),
            (Fixture::new(device(isa, 1), "k=tq4,v=tq8", GLOBAL), false),
            (Fixture::new(exact(isa, 1), "tq4", GLOBAL), false),
        ] {
            let kernel = fixture.decode_kernel();
            assert_eq!(kernel.ends_with(".int8"), integers, "{kernel}");
        }
    }
}

/// A context that is short when the op runs is not merged, so that attending writes the output already: it waits for whoever
/// reads what is there.
#[test]
fn attending_waits_for_readers_of_the_output() {
    const LONG: u64 = 64;
    for isa in Isa::available() {
        let device = device(isa, 2);
        let shape = [LONG, 2, 64];
        let zeros = || device.zeros(DType::F32, &shape).unwrap();
        let options = KvCacheOptions {
            codecs: "f16".parse().unwrap(),
            kv_heads: 1,
            head_dim: 64,
            capacity: 256,
            kind: CacheKind::Global,
            sequences: 1,
            overlay: None,
        };
        let positions: Vec<i32> = (0..LONG as i32).collect();
        let positions = device.tensor(&[LONG], &positions).unwrap();
        let (output, scaled) = (zeros(), zeros());
        let attend = |value: f32| {
            let row = |x: f32| device.tensor(&[LONG, 1, 64], &[x; 64 * LONG as usize]);
            Attention {
                query: zeros(),
                fresh: Some(Fresh {
                    keys: row(1.0).unwrap(),
                    values: row(value).unwrap(),
                }),
                cache: KvCache::new(&device, options).unwrap(),
                positions: positions.clone(),
                mask: Mask::causal(64),
                output: output.clone(),
                sequences: None,
                sinks: None,
            }
        };
        let double = Scale {
            input: output.clone(),
            factor: 2.0,
            output: scaled.clone(),
        };
        let mut recorder = device.record();
        recorder.push(attend(3.0)).unwrap();
        recorder.push(double).unwrap();
        recorder.push(attend(5.0)).unwrap();
        let step = recorder.finish().unwrap();
        for _ in 0..200 {
            device.run(&step).unwrap();
            for (tensor, expected) in [(&scaled, 6.0), (&output, 5.0)] {
                let found: Vec<f32> = device.read(tensor).unwrap();
                assert!(found.iter().all(|x| (x - expected).abs() < 1e-3), "{isa}");
            }
        }
    }
}
