//! Codecs against the independent golden file, and their behaviour at the edges.

use safetensors::SafeTensors;

use super::*;

fn golden() -> Vec<u8> {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/golden/tq4_seed.safetensors"
    );
    std::fs::read(path).unwrap_or_else(|error| panic!("cannot read {path}: {error}"))
}

fn floats(file: &SafeTensors, name: &str) -> Vec<f32> {
    let bytes = file.tensor(name).unwrap().data();
    bytes
        .as_chunks::<4>()
        .0
        .iter()
        .map(|b| f32::from_le_bytes(*b))
        .collect()
}

/// A row's codes and scales.
struct Encoded {
    codes: Vec<u8>,
    scales: Vec<u8>,
}

fn encode(codec: &RowCodec, row: &[f32]) -> Result<Encoded, KvError> {
    let mut scratch = vec![0.0; codec.head_dim()];
    let mut codes = vec![0xa5; codec.code_bytes()];
    let mut scales = vec![0xa5; codec.scale_bytes()];
    codec.encode_row(row, &mut scratch, &mut codes, &mut scales)?;
    Ok(Encoded { codes, scales })
}

fn decode(codec: &RowCodec, row: &Encoded) -> Vec<f32> {
    let mut out = vec![f32::NAN; codec.head_dim()];
    codec.decode_row(&row.codes, &row.scales, &mut out);
    out
}

fn norm(x: &[f32]) -> f64 {
    x.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt()
}

fn distance(a: &[f32], b: &[f32]) -> f64 {
    a.iter()
        .zip(b)
        .map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2))
        .sum::<f64>()
        .sqrt()
}

/// Numbers close to N(0,1), the sum of twelve uniform ones.
fn gaussian(seed: u64, n: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut uniform = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 24) as f32
    };
    (0..n)
        .map(|_| (0..12).map(|_| uniform()).sum::<f32>() - 6.0)
        .collect()
}

fn codec(spec: &str, head_dim: usize) -> RowCodec {
    RowCodec::new(spec.parse().unwrap(), head_dim).unwrap()
}

#[test]
fn rows_match_the_golden_file() {
    let bytes = golden();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    for d in [256, 512] {
        let codec = codec("tq4+norm", d);
        let source = floats(&file, &format!("d{d}.src"));
        let rotated = floats(&file, &format!("d{d}.rotated"));
        let norms = floats(&file, &format!("d{d}.norms"));
        let decoded = floats(&file, &format!("d{d}.tq4.decoded"));
        let packed = file.tensor(&format!("d{d}.tq4.packed")).unwrap().data();
        assert_eq!(source.len(), 24 * d);
        for (i, row) in source.chunks(d).enumerate() {
            let mut turned = row.to_vec();
            codec.rotation().unwrap().forward(&mut turned);
            assert!(
                distance(&turned, &rotated[i * d..][..d]) <= 1e-6 * norm(row),
                "rotation of {i}"
            );
            let stored = encode(&codec, row).unwrap();
            assert_eq!(stored.codes, &packed[i * d / 2..][..d / 2], "D={d} row {i}");
            for (g, scale) in stored.scales.as_chunks::<4>().0.iter().enumerate() {
                let expected = norms[i * codec.groups() + g];
                assert!((f32::from_le_bytes(*scale) / expected - 1.0).abs() <= 1e-6);
            }
            let error = distance(&decode(&codec, &stored), &decoded[i * d..][..d]);
            assert!(error <= 1e-5 * norm(row), "D={d} row {i}: {error}");
        }
    }
}

#[test]
fn every_width_and_convention_matches_the_golden_file() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/tq.safetensors");
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("cannot read {path}: {error}"));
    let file = SafeTensors::deserialize(&bytes).unwrap();
    for d in [64, 80, 96, 112, 256, 320, 512] {
        let source = floats(&file, &format!("d{d}.source"));
        for (bits, (suffix, convention)) in TqBits::ALL
            .into_iter()
            .flat_map(|bits| [("", "fitted"), ("+norm", "norm")].map(|kind| (bits, kind)))
        {
            let codec = codec(&format!("tq{}{suffix}", bits.get()), d);
            let name = format!("d{d}.tq{}.{convention}", bits.get());
            let data = |what: &str| file.tensor(&format!("{name}.{what}")).unwrap().data();
            let (codes, scales) = (data("codes"), data("scales"));
            assert_eq!(codes.len(), 3 * codec.code_bytes(), "{name}");
            for (i, row) in source.chunks(d).enumerate() {
                let stored = encode(&codec, row).unwrap();
                let expected = &codes[i * codec.code_bytes()..][..codec.code_bytes()];
                assert_eq!(stored.codes, expected, "{name} row {i}");
                let expected = &scales[i * codec.scale_bytes()..][..codec.scale_bytes()];
                assert_eq!(stored.scales, expected, "{name} row {i}");
            }
            let row = Encoded {
                codes: codes[..codec.code_bytes()].to_vec(),
                scales: scales[..codec.scale_bytes()].to_vec(),
            };
            let error = distance(
                &decode(&codec, &row),
                &floats(&file, &format!("{name}.decoded")),
            );
            assert!(error <= 1e-6 * norm(&source[..d]), "{name}: {error}");
        }
    }
}

/// What a golden attention case differs in.
struct Case {
    name: &'static str,
    /// Visible positions, oldest first, as slots.
    slots: Vec<usize>,
    softcap: f64,
}

#[test]
fn attention_over_decoded_rows_matches_the_golden_file() {
    let bytes = golden();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let ring = |visible: usize| {
        (96 - visible..96)
            .map(|i| (i + 37) % 96)
            .collect::<Vec<_>>()
    };
    for d in [256, 512] {
        let codec = codec("tq4+norm", d);
        let decoded = |name: &str| -> Vec<Vec<f32>> {
            let rows = floats(&file, &format!("d{d}.attn.{name}"));
            rows.chunks(d)
                .map(|row| decode(&codec, &encode(&codec, row).unwrap()))
                .collect()
        };
        let (k, v) = (decoded("k"), decoded("v"));
        let q = floats(&file, &format!("d{d}.attn.q"));
        let cases = [
            Case {
                name: "linear_len50",
                slots: (0..50).collect(),
                softcap: 0.0,
            },
            Case {
                name: "ring_start37",
                slots: ring(96),
                softcap: 0.0,
            },
            Case {
                name: "ring_start37_window64",
                slots: ring(64),
                softcap: 0.0,
            },
            Case {
                name: "ring_start37_softcap30",
                slots: ring(96),
                softcap: 30.0,
            },
        ];
        for case in cases {
            let expected = floats(&file, &format!("d{d}.attn.{}", case.name));
            for head in 0..8 {
                let rows = |side: &'_ [Vec<f32>]| -> Vec<Vec<f32>> {
                    case.slots
                        .iter()
                        .map(|slot| side[head / 4 * 96 + slot].clone())
                        .collect()
                };
                let out = attend(&q[head * d..][..d], &rows(&k), &rows(&v), case.softcap);
                for (a, b) in out.iter().zip(&expected[head * d..]) {
                    assert!(
                        (a - f64::from(*b)).abs() <= 1e-5,
                        "D={d} {} head {head}: {a} for {b}",
                        case.name
                    );
                }
            }
        }
    }
}

/// Attention of one query over rows, in double precision.
fn attend(q: &[f32], k: &[Vec<f32>], v: &[Vec<f32>], softcap: f64) -> Vec<f64> {
    let scale = 1.0 / (q.len() as f64).sqrt();
    let scores: Vec<f64> = k
        .iter()
        .map(|k| {
            let s = scale
                * q.iter()
                    .zip(k)
                    .map(|(a, b)| f64::from(*a) * f64::from(*b))
                    .sum::<f64>();
            if softcap > 0.0 {
                softcap * (s / softcap).tanh()
            } else {
                s
            }
        })
        .collect();
    let max = scores.iter().fold(f64::NEG_INFINITY, |a, b| a.max(*b));
    let weights: Vec<f64> = scores.iter().map(|s| (s - max).exp()).collect();
    let sum: f64 = weights.iter().sum();
    (0..q.len())
        .map(|i| {
            weights
                .iter()
                .zip(v)
                .map(|(w, v)| w * f64::from(v[i]))
                .sum::<f64>()
                / sum
        })
        .collect()
}

#[test]
fn errors_shrink_with_the_bits_at_every_head_size() {
    for d in [64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512] {
        for suffix in ["", "+norm", "+norot", "+norot+norm"] {
            let mut previous = f64::INFINITY;
            for bits in TqBits::ALL {
                let codec = codec(&format!("tq{}{suffix}", bits.get()), d);
                assert_eq!(codec.code_bytes() * 8, d * bits.get());
                let mut error = 0.0;
                for seed in 0..20 {
                    let row = gaussian(seed + 1, d);
                    let back = decode(&codec, &encode(&codec, &row).unwrap());
                    error += distance(&row, &back).powi(2) / norm(&row).powi(2) / 20.0;
                }
                let optimum = codec.codebook().unwrap().mean_squared_error();
                assert!(
                    error < previous && error < 1.25 * optimum,
                    "{} D={d}: {error}",
                    codec.codec()
                );
                previous = error;
            }
        }
    }
}

#[test]
fn the_scale_search_beats_the_plain_norm() {
    for bits in ["tq3", "tq4", "tq5"] {
        let (fitted, plain) = (codec(bits, 64), codec(&format!("{bits}+norm"), 64));
        let (mut a, mut b) = (0.0, 0.0);
        for seed in 0..200 {
            let row = gaussian(seed + 7, 64);
            a += distance(&row, &decode(&fitted, &encode(&fitted, &row).unwrap())).powi(2);
            b += distance(&row, &decode(&plain, &encode(&plain, &row).unwrap())).powi(2);
        }
        assert!(a < 0.95 * b, "{bits}: {a} against {b}");
    }
}

/// Keys come back as long as they were, and values as far in their own direction, on average; codes stay what they are.
#[test]
fn scales_of_keys_and_values_are_raised_by_what_projections_lack() {
    for (bits, within) in [("tq2", 0.03), ("tq3", 0.01), ("tq4", 0.003)] {
        for head_dim in [64, 256] {
            let plain = codec(bits, head_dim);
            let (keys, values) = (plain.clone().for_keys(), plain.clone().for_values());
            // Of keys the length, of values the projection, and both as they would be unraised.
            let mut sums = [0.0; 4];
            for seed in 0..200 {
                let row = gaussian(seed + 7, head_dim);
                let dot = |a: &[f32], b: &[f32]| -> f64 {
                    a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum()
                };
                let coded = [&plain, &keys, &values].map(|codec| encode(codec, &row).unwrap());
                assert!(coded.iter().all(|one| one.codes == coded[0].codes));
                let [plain, keys, values] = [(&plain, 0), (&keys, 1), (&values, 2)]
                    .map(|(codec, at)| decode(codec, &coded[at]));
                let length = dot(&row, &row);
                sums[0] += (dot(&keys, &keys) / length).sqrt() / 200.0;
                sums[1] += dot(&values, &row) / length / 200.0;
                sums[2] += (dot(&plain, &plain) / length).sqrt() / 200.0;
                sums[3] += dot(&plain, &row) / length / 200.0;
            }
            for (raised, unraised) in [(sums[0], sums[2]), (sums[1], sums[3])] {
                assert!(
                    (raised - 1.0).abs() < within,
                    "{bits} at {head_dim}: {sums:?}"
                );
                assert!(unraised < raised, "{bits} at {head_dim}: {sums:?}");
            }
        }
    }
    for other in ["f16", "q8_0", "tq4+norm"] {
        let plain = codec(other, 64);
        assert_eq!(plain.clone().for_keys().gain(), 1.0);
        assert_eq!(plain.for_values().gain(), 1.0);
    }
}

#[test]
fn halves_are_multiplied_by_the_factor_of_their_norms() {
    let row = gaussian(11, 512);
    let plain = codec("tq4+norm", 512);
    let centroids = plain.centroids().unwrap();
    let errors = ["0.8", "1", "1.5", "16"].map(|factor| {
        let codec = codec(&format!("tq4+norm:{factor}"), 512);
        let encoded = encode(&codec, &row).unwrap();
        assert_eq!(encoded.scales, encode(&plain, &row).unwrap().scales);
        let (mut rotated, mut decoded) = (row.clone(), vec![0.0; 512]);
        codec.rotation().unwrap().forward(&mut rotated);
        codec.decode_row_rotated(&encoded.codes, &encoded.scales, &mut decoded);
        let factor: f32 = factor.parse().unwrap();
        for (at, (r, d)) in rotated.iter().zip(&decoded).enumerate() {
            let scale = encoded.scales.as_chunks::<4>().0[at / 256];
            let unit = f32::from_le_bytes(scale) / factor;
            let off = |centroid: &f32| (centroid - r / unit).abs();
            let nearest = centroids.iter().map(off).fold(f32::MAX, f32::min);
            assert!(off(&(d / unit)) < nearest + 1e-4, "{factor}: number {at}");
        }
        distance(&rotated, &decoded)
    });
    assert!(errors[1] < errors[0] && errors[1] < errors[2] && errors[2] < errors[3]);
    let wrong = RowCodec::new("tq4+norm:1.5".parse().unwrap(), 256).unwrap_err();
    assert!(wrong.to_string().contains("more than 256"), "{wrong}");
}

#[test]
fn dense_rows_are_ggml_rows() {
    let row = gaussian(3, 64);
    for (spec, bytes, tolerance) in [
        ("f32", 256, 0.0),
        ("f16", 128, 1e-3),
        ("bf16", 128, 1e-2),
        ("q8_0", 68, 1e-2),
        ("q5_0", 44, 0.1),
        ("q4_0", 36, 0.2),
    ] {
        let codec = codec(spec, 64);
        assert_eq!(
            (codec.code_bytes(), codec.groups(), codec.scale_bytes()),
            (bytes, 0, 0)
        );
        let back = decode(&codec, &encode(&codec, &row).unwrap());
        assert!(distance(&row, &back) <= tolerance * norm(&row), "{spec}");
    }
}

#[test]
fn zero_rows_stay_zero() {
    for d in [64, 96, 512] {
        for spec in [
            "tq2",
            "tq3",
            "tq4",
            "tq5",
            "tq6",
            "tq8",
            "tq4+norm",
            "tq8+norot",
            "q8_0",
            "f16",
        ] {
            let codec = codec(spec, d);
            let stored = encode(&codec, &vec![0.0; d]).unwrap();
            assert!(decode(&codec, &stored).iter().all(|v| *v == 0.0), "{spec}");
        }
    }
}

#[test]
fn extreme_magnitudes_are_exact_or_errors() {
    for d in [64, 256, 512] {
        let row = gaussian(5, d);
        for magnitude in [1e-37, 1e-30, 1e-10, 1e10, 1e30] {
            let row: Vec<f32> = row.iter().map(|v| v * magnitude).collect();
            for spec in ["tq4+norm", "tq8+norm", "tq8+norot+norm", "f32"] {
                let codec = codec(spec, d);
                let back = decode(&codec, &encode(&codec, &row).unwrap());
                let error = distance(&row, &back) / norm(&row);
                assert!(error < 0.15, "{spec} D={d} at {magnitude:e}: {error}");
            }
            for spec in ["tq4", "tq8", "f16", "q8_0"] {
                let codec = codec(spec, d);
                let stored = encode(&codec, &row);
                if magnitude > 1.0 {
                    assert!(
                        matches!(stored, Err(KvError::OutOfRange { .. })),
                        "{spec} at {magnitude:e}"
                    );
                } else {
                    // Less than half of the least half-precision number rounds to zero.
                    assert!(
                        decode(&codec, &stored.unwrap())
                            .iter()
                            .all(|v| v.abs() <= 1e-7)
                    );
                }
            }
        }
        let row: Vec<f32> = row.iter().map(|v| v * 5e37).collect();
        assert!(matches!(
            encode(&codec("tq4+norm", d), &row),
            Ok(_) | Err(KvError::OutOfRange { .. })
        ));
        assert!(matches!(
            encode(&codec("tq4", d), &row),
            Err(KvError::OutOfRange { .. })
        ));
    }
}

#[test]
fn what_is_not_finite_is_an_error() {
    for spec in ["tq4", "tq8+norot", "tq4+norm", "f32", "f16", "q8_0"] {
        let codec = codec(spec, 64);
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut row = vec![1.0; 64];
            row[17] = bad;
            assert!(
                matches!(
                    encode(&codec, &row),
                    Err(KvError::NotFinite { channel: 17, .. })
                ),
                "{spec}"
            );
        }
    }
}

#[test]
fn lengths_are_checked() {
    let codec = codec("tq4", 64);
    let (mut scratch, mut codes, mut scales) = ([0.0; 64], [0; 32], [0; 2]);
    assert!(
        codec
            .encode_row(&[0.0; 63], &mut scratch, &mut codes, &mut scales)
            .is_err()
    );
    assert!(
        codec
            .encode_row(&[0.0; 64], &mut scratch, &mut codes[..31], &mut scales)
            .is_err()
    );
    assert!(
        codec
            .encode_row(&[0.0; 64], &mut scratch, &mut codes, &mut scales[..1])
            .is_err()
    );
    assert!(
        codec
            .encode_row(&[0.0; 64], &mut scratch, &mut codes, &mut scales)
            .is_ok()
    );
}

#[test]
fn head_sizes_that_do_not_suit_are_errors() {
    for (spec, d) in [
        ("tq4", 0),
        ("tq4", 72),
        ("tq4", 100),
        ("tq4", 144),
        ("tq4", 272),
        ("tq4", 288),
        ("tq4", 1024),
        ("tq8+norot", 304),
        ("tq8+norot", 72),
        ("q8_0", 80),
        ("q4_0", 48),
        ("f16+rot", 8),
        ("f16+rot", 40),
        ("f32+rot", 72),
        ("f16", 0),
        ("f16", 513),
    ] {
        let wrong = RowCodec::new(spec.parse().unwrap(), d)
            .unwrap_err()
            .to_string();
        assert!(
            wrong.contains(spec) && wrong.contains(&d.to_string()),
            "{wrong}"
        );
    }
    assert!(RowCodec::new(KvCodec::Dense(crate::DType::Q4K), 256).is_err());
    for d in [144, 288, 480] {
        assert!(RowCodec::new("tq8+norot".parse().unwrap(), d).is_ok());
    }
}

#[test]
fn rotated_blocks_hold_the_rotated_vector() {
    for (spec, d) in [("q4_0+rot", 64), ("q8_0+rot", 96), ("f16+rot", 80)] {
        let codec = codec(spec, d);
        let row = gaussian(7, d);
        let stored = encode(&codec, &row).unwrap();
        let mut rotated = row.clone();
        codec.rotation().unwrap().forward(&mut rotated);
        let mut blocks = vec![0; codec.code_bytes()];
        crate::ggml::encode(codec.codec().dense().unwrap(), &rotated, &mut blocks).unwrap();
        assert_eq!(stored.codes, blocks, "{spec}");
        assert!(
            distance(&row, &decode(&codec, &stored)) < 0.15 * norm(&row),
            "{spec}"
        );
    }
}

#[test]
fn what_stays_below_the_bounds_is_stored() {
    let options = ["", "+rot", "+norm", "+norot", "+norot+norm"];
    let specs = KvCodec::all().flat_map(|codec| options.map(|option| format!("{codec}{option}")));
    // Not every option is every codec's.
    for spec in specs.filter(|spec| spec.parse::<KvCodec>().is_ok()) {
        for d in [64, 256, 512] {
            let codec = codec(&spec, d);
            let bounds = codec.bounds();
            let mut spike = vec![0.0; d];
            spike[d / 2] = -1.0;
            for row in [gaussian(11, d), vec![1.0; d], spike] {
                let largest = row.iter().fold(0f32, |a, v| a.max(v.abs()));
                let most = (bounds.number / f64::from(largest)).min(bounds.norm / norm(&row));
                let factor = (0.999 * most).min(f64::from(f32::MAX / largest)) as f32;
                let row: Vec<f32> = row.iter().map(|v| v * factor).collect();
                if let Err(wrong) = encode(&codec, &row) {
                    panic!("{spec} D={d}: {wrong}");
                }
            }
        }
    }
}
