//! What a store writes.

use half::f16;
use safetensors::SafeTensors;
use walsh_core::CacheKind;
use walsh_core::ops::Mask;
use walsh_cpu::Isa;

use crate::support::{Fixture, KEYS, Sizes, VALUES, device, exact, rows_of};

const SIZES: Sizes = Sizes {
    heads: 2,
    kv_heads: 2,
    head_dim: 64,
    capacity: 50,
    kind: CacheKind::Global,
};

const SPECS: [&str; 13] = [
    "f32",
    "f16",
    "bf16",
    "q8_0",
    "q5_0",
    "tq2",
    "tq3",
    "tq4",
    "tq5",
    "tq6",
    "tq8",
    "tq4+norm",
    "tq8+norot",
];

#[test]
fn every_set_writes_the_bytes_of_the_row_codec() {
    for head_dim in [64, 80, 128, 256, 384, 512] {
        for spec in SPECS {
            if spec.starts_with('q') && head_dim == 80 {
                continue;
            }
            let sizes = Sizes { head_dim, ..SIZES };
            for isa in Isa::available() {
                let fixture = Fixture::new(device(isa, 2), spec, sizes);
                fixture.store(0..20);
                for (side, seed) in [(fixture.cache.key(), KEYS), (fixture.cache.value(), VALUES)] {
                    let (codes, scales) = fixture.bytes(side);
                    let source = rows_of(&sizes, seed, 0..20);
                    let (code, scale) =
                        (side.rows.codec.code_bytes(), side.rows.codec.scale_bytes());
                    let mut scratch = vec![0.0; head_dim];
                    let (mut row_codes, mut row_scales) = (vec![0; code], vec![0; scale]);
                    for (i, row) in source.chunks(head_dim).enumerate() {
                        side.rows
                            .codec
                            .encode_row(row, &mut scratch, &mut row_codes, &mut row_scales)
                            .unwrap();
                        let slot = i % 2 * 50 + i / 2;
                        let what = format!("{isa} {spec} D={head_dim} row {i}");
                        assert_eq!(codes[slot * code..][..code], row_codes, "{what}");
                        assert_eq!(scales[slot * scale..][..scale], row_scales, "{what}");
                    }
                    assert!(
                        codes[20 * code..50 * code].iter().all(|b| *b == 0),
                        "slots past the last are untouched"
                    );
                }
            }
        }
    }
}

/// The file is of an independent program. What is stored as a value comes out of attention to it alone.
#[test]
fn every_width_and_convention_is_stored_and_read_as_the_golden_file_has_it() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../walsh-formats/tests/golden/tq.safetensors"
    );
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    for (isa, head_dim) in Isa::available()
        .into_iter()
        .flat_map(|isa| [64, 80, 96, 112, 256, 320, 512].map(|head_dim| (isa, head_dim)))
    {
        let floats = |name: &str| -> Vec<f32> {
            let data = file.tensor(&format!("d{head_dim}.{name}")).unwrap().data();
            let numbers = data.as_chunks::<4>().0.iter();
            numbers.map(|b| f32::from_le_bytes(*b)).collect()
        };
        let source = floats("source");
        let size = source[..head_dim].iter().map(|x| f64::from(*x).powi(2));
        let size = size.sum::<f64>().sqrt();
        for (bits, (suffix, convention)) in [2, 3, 4, 5, 6, 8]
            .into_iter()
            .flat_map(|bits| [("", "fitted"), ("+norm", "norm")].map(|kind| (bits, kind)))
        {
            let name = format!("tq{bits}.{convention}");
            let sizes = Sizes {
                heads: 1,
                kv_heads: 1,
                head_dim,
                ..SIZES
            };
            let fixture = Fixture::new(exact(isa, 1), &format!("tq{bits}{suffix}"), sizes);
            fixture.store_rows(0..3, &source, &source).unwrap();
            let (codes, scales) = fixture.bytes(fixture.cache.value());
            let golden = |what: &str| file.tensor(&format!("d{head_dim}.{name}.{what}")).unwrap();
            let expected = golden("codes").data();
            assert_eq!(codes[..expected.len()], *expected, "{isa} {name} codes");
            let expected = golden("scales").data();
            let codec = &fixture.cache.value().rows.codec;
            let (gain, group_len) = (codec.gain(), codec.group_len());
            // How much larger each scale is than the golden file's, which is of rows and no cache's.
            let mut raised = vec![1.0; expected.len()];
            if gain == 1.0 {
                assert_eq!(scales[..expected.len()], *expected, "{isa} {name} scales");
            } else {
                let halves = |bytes: &[u8]| -> Vec<f32> {
                    let halves = bytes.as_chunks::<2>().0.iter();
                    halves.map(|b| f16::from_le_bytes(*b).to_f32()).collect()
                };
                let pairs = halves(&scales).into_iter().zip(halves(expected));
                raised = pairs.map(|(scale, plain)| scale / plain).collect();
                // Both are rounded to halves.
                let is_near = |raised: &f32| (raised / gain - 1.0).abs() < 1e-3;
                assert!(
                    raised.iter().all(is_near),
                    "{isa} {name}: {raised:?} for {gain}"
                );
            }
            let query = vec![1.0; head_dim];
            let first = Fixture::new(exact(isa, 1), &format!("tq{bits}{suffix}"), sizes);
            let row = &source[..head_dim];
            first.store_rows(0..1, row, row).unwrap();
            let read = first.decode_queries(0..1, &query, Mask::causal(head_dim as u64));
            // As it lies, where each group has its scale.
            let mut decoded = floats(&format!("{name}.decoded"));
            if gain != 1.0 {
                let rotation = codec.rotation().expect("a codec that rotates");
                rotation.forward(&mut decoded);
                for (group, raised) in decoded.chunks_mut(group_len).zip(&raised) {
                    group.iter_mut().for_each(|number| *number *= raised);
                }
                rotation.inverse(&mut decoded);
            }
            for (a, b) in read.unwrap().iter().zip(decoded) {
                let error = f64::from((a - b).abs());
                assert!(
                    error <= 1e-6 * size,
                    "{isa} D={head_dim} {name}: {a} for {b}"
                );
            }
        }
    }
}

#[test]
fn the_split_over_calls_does_not_matter() {
    for kind in [CacheKind::Global, CacheKind::Ring] {
        let sizes = Sizes { kind, ..SIZES };
        let bytes = |splits: &[usize]| {
            let fixture = Fixture::new(device(Isa::detect(), 2), "k=tq5,v=tq4", sizes);
            for pair in splits.windows(2) {
                fixture.store(pair[0]..pair[1]);
            }
            (
                fixture.bytes(fixture.cache.key()),
                fixture.bytes(fixture.cache.value()),
            )
        };
        assert_eq!(bytes(&[0, 50]), bytes(&[0, 1, 2, 30, 50]));
        if kind == CacheKind::Ring {
            assert_eq!(bytes(&[0, 173]), bytes(&[0, 49, 50, 51, 120, 173]));
            assert_eq!(bytes(&[0, 173]), bytes(&[123, 173]));
        }
    }
}

#[test]
fn the_split_over_calls_does_not_matter_to_an_overlay() {
    for (kind, ends) in [(CacheKind::Global, [50, 50]), (CacheKind::Ring, [173, 60])] {
        for end in ends {
            let bytes = |splits: &[usize]| {
                let fixture = Fixture::with_overlay(
                    device(Isa::detect(), 2),
                    "k=tq5,v=tq4",
                    Sizes { kind, ..SIZES },
                    (3, 7, 4),
                );
                for pair in splits.windows(2) {
                    fixture.store(pair[0]..pair[1]);
                }
                let cache = &fixture.cache;
                let read = |tensor: &walsh_core::Tensor| {
                    let mut bytes = vec![0; tensor.bytes() as usize];
                    fixture.device.read_bytes(tensor, &mut bytes).unwrap();
                    bytes
                };
                cache.tensors().map(read).collect::<Vec<_>>()
            };
            let whole = bytes(&[0, end]);
            assert_eq!(whole.len(), 6, "codes and scales, and an overlay, twice");
            assert_eq!(whole, bytes(&[0, 1, 2, 5, 30, 31, 49, end]));
            assert_eq!(whole, bytes(&[0, 40, end]));
        }
    }
}

#[test]
fn bad_vectors_are_errors() {
    for isa in Isa::available() {
        for spec in ["f32", "f16", "bf16", "q8_0", "tq4", "tq8+norm"] {
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let fixture = Fixture::new(device(isa, 2), spec, SIZES);
                let keys = rows_of(&SIZES, KEYS, 0..4);
                let mut values = rows_of(&SIZES, VALUES, 0..4);
                values[3 * 128 + 17] = bad;
                let wrong = fixture
                    .store_rows(0..4, &keys, &values)
                    .unwrap_err()
                    .to_string();
                assert!(
                    wrong.contains("KvStore") && wrong.contains("only finite"),
                    "{isa} {spec}: {wrong}"
                );
                let untouched = fixture.bytes(fixture.cache.key()).0.iter().all(|b| *b == 0);
                assert!(untouched, "{isa} {spec}: nothing is written");
                // The device goes on working.
                fixture.store(0..4);
            }
        }
        for spec in ["f16", "tq4", "q8_0"] {
            let fixture = Fixture::new(device(isa, 2), spec, SIZES);
            let keys = vec![1e30; 128];
            let wrong = fixture
                .store_rows(0..1, &keys, &keys)
                .unwrap_err()
                .to_string();
            assert!(wrong.contains("out of the range"), "{isa} {spec}: {wrong}");
            let untouched = fixture.bytes(fixture.cache.key()).0.iter().all(|b| *b == 0);
            assert!(untouched, "{isa} {spec}: nothing is written");
        }
    }
}

#[test]
fn a_position_past_the_cache_is_an_error_before_anything_is_written() {
    let fixture = Fixture::new(device(Isa::detect(), 2), "tq4", SIZES);
    let rows = rows_of(&SIZES, KEYS, 40..51);
    let wrong = fixture
        .store_rows(40..51, &rows, &rows)
        .unwrap_err()
        .to_string();
    assert!(
        wrong.contains("position 50 does not fit the cache, which holds 50"),
        "{wrong}"
    );
    assert!(fixture.bytes(fixture.cache.key()).0.iter().all(|b| *b == 0));
}

#[test]
fn zero_and_tiny_vectors_decode_to_zero() {
    for isa in Isa::available() {
        for spec in ["tq2", "tq3", "tq4", "tq8", "tq4+norm", "f16"] {
            for size in [0.0, 1e-30, 1e-41] {
                let fixture = Fixture::new(device(isa, 1), spec, SIZES);
                let rows = vec![size; 128];
                fixture.store_rows(0..1, &rows, &rows).unwrap();
                let back = fixture.decoded(fixture.cache.key());
                assert!(
                    back[..64].iter().all(|v| v.abs() <= 2.0 * size),
                    "{isa} {spec}"
                );
            }
        }
    }
}
