//! Decoding and encoding against the Python package `gguf`: `golden/make_ggml.py` made the figures.

use safetensors::SafeTensors;
use walsh_formats::DType;
use walsh_formats::ggml::{decode, encode, encode_weighted, encodes, searches};
use walsh_formats::random::SplitMix64;

static GOLDEN: &[u8] = include_bytes!("golden/ggml.safetensors");

/// The types whose encoders search, with an importance and without.
const SEARCHED: [DType; 12] = [
    DType::Q2K,
    DType::Q3K,
    DType::Q4K,
    DType::Q5K,
    DType::Q6K,
    DType::IQ4NL,
    DType::IQ4XS,
    DType::IQ3S,
    DType::IQ3XXS,
    DType::IQ2S,
    DType::IQ2XS,
    DType::IQ2XXS,
];

/// The types that are searched where there is an importance.
const SEARCHED_WITH_IMPORTANCE: [DType; 4] = [DType::Q4_0, DType::Q4_1, DType::Q5_0, DType::Q5_1];

fn golden() -> SafeTensors<'static> {
    SafeTensors::deserialize(GOLDEN).expect("the golden file is whole")
}

fn bytes(golden: &SafeTensors<'static>, name: &str) -> Vec<u8> {
    let tensor = golden.tensor(name);
    tensor
        .unwrap_or_else(|error| panic!("{name}: {error}"))
        .data()
        .to_vec()
}

fn f32s(golden: &SafeTensors<'static>, name: &str) -> Vec<f32> {
    let bytes = bytes(golden, name);
    let (chunks, rest) = bytes.as_chunks::<4>();
    assert!(rest.is_empty() && !chunks.is_empty());
    chunks
        .iter()
        .map(|bytes| f32::from_le_bytes(*bytes))
        .collect()
}

fn f64s(golden: &SafeTensors<'static>, name: &str) -> Vec<f64> {
    let bytes = bytes(golden, name);
    let (chunks, _) = bytes.as_chunks::<8>();
    chunks
        .iter()
        .map(|bytes| f64::from_le_bytes(*bytes))
        .collect()
}

#[test]
fn random_bytes_decode_as_in_gguf() {
    let golden = golden();
    let mut types = 0;
    for &dtype in DType::ALL {
        if !dtype.is_real() || dtype.ggml_id().is_none() {
            continue;
        }
        let name = dtype.name().to_uppercase();
        let stored = bytes(&golden, &format!("decode.{name}.bytes"));
        let expected = f32s(&golden, &format!("decode.{name}.values"));
        let mut decoded = vec![0.0; expected.len()];
        decode(dtype, &stored, &mut decoded).unwrap();
        for (i, (found, expected)) in decoded.iter().zip(&expected).enumerate() {
            // Which NaN an operation yields is the machine's affair.
            let same = found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan();
            assert!(same, "{dtype}: value {i} is {found:e}, not {expected:e}");
        }
        assert!(decoded.iter().filter(|value| value.is_finite()).count() > decoded.len() / 2);
        types += 1;
    }
    let made = golden.names().into_iter();
    assert_eq!(
        types,
        made.filter(|name| name.starts_with("decode.")).count() / 2
    );
}

#[test]
fn values_encode_as_in_gguf() {
    let golden = golden();
    let values = f32s(&golden, "encode.values");
    for &dtype in DType::ALL {
        if !encodes(dtype) || dtype == DType::F32 || SEARCHED.contains(&dtype) {
            continue;
        }
        let expected = bytes(
            &golden,
            &format!("encode.{}.bytes", dtype.name().to_uppercase()),
        );
        let mut encoded = vec![0; expected.len()];
        encode(dtype, &values, &mut encoded).unwrap();
        let blocks = encoded
            .chunks(dtype.block_bytes())
            .zip(expected.chunks(dtype.block_bytes()));
        for (i, (found, expected)) in blocks.enumerate() {
            let at = i * dtype.block_len();
            let source = &values[at..at + dtype.block_len()];
            assert_eq!(found, expected, "{dtype}: block {i} of {source:?}");
        }
    }
}

#[test]
fn types_that_are_searched_are_known() {
    for &dtype in DType::ALL {
        let is_searched = SEARCHED.contains(&dtype) || SEARCHED_WITH_IMPORTANCE.contains(&dtype);
        assert_eq!(searches(dtype), is_searched, "{dtype}");
    }
}

#[test]
fn single_precision_is_stored_as_it_is() {
    let golden = golden();
    let values = f32s(&golden, "encode.values");
    let mut encoded = vec![0; 4 * values.len()];
    encode(DType::F32, &values, &mut encoded).unwrap();
    assert!(encoded == bytes(&golden, "encode.values"));
}

#[test]
fn searches_find_no_more_error_than_ggml() {
    let golden = golden();
    let values = f32s(&golden, "search.values");
    let importance = f32s(&golden, "search.importance");
    let flat = vec![1.0; importance.len()];
    let weighed = SEARCHED.iter().chain(&SEARCHED_WITH_IMPORTANCE);
    let plain = SEARCHED.iter().map(|dtype| (dtype, "plain", &flat));
    for (&dtype, way, weights) in plain.chain(weighed.map(|dtype| (dtype, "weighed", &importance)))
    {
        let name = dtype.name().to_uppercase();
        let theirs = f64s(&golden, &format!("search.{name}.{way}"));
        let columns = weights.len();
        assert_eq!(theirs.len() * columns, values.len());
        let mut stored = vec![0; columns / dtype.block_len() * dtype.block_bytes()];
        let mut decoded = vec![0.0; columns];
        let (mut sum, mut their_sum) = (0.0, 0.0);
        for (row, (values, theirs)) in values.chunks(columns).zip(theirs).enumerate() {
            match way {
                "plain" => encode(dtype, values, &mut stored).unwrap(),
                _ => encode_weighted(dtype, values, weights, &mut stored).unwrap(),
            }
            decode(dtype, &stored, &mut decoded).unwrap();
            let pairs = values.iter().zip(&decoded).zip(weights);
            let error: f64 = pairs
                .map(|((a, b), w)| f64::from(*w) * (f64::from(*a) - f64::from(*b)).powi(2))
                .sum();
            // Both weigh the large values more, so that a row of few blocks that matter may come out either way.
            assert!(
                error <= 1.25 * theirs,
                "{dtype}, {way}, row {row}: {error:e} against {theirs:e}"
            );
            let size: f64 = values.iter().map(|a| f64::from(*a).powi(2)).sum();
            sum += error / size;
            their_sum += theirs / size;
        }
        assert!(
            sum <= their_sum,
            "{dtype}, {way}: {sum} against {their_sum}"
        );
    }
}

#[test]
fn a_column_that_counts_for_nearly_all_costs_no_more_than_without_an_importance() {
    let mut random = SplitMix64(5);
    for &dtype in SEARCHED.iter().chain(&SEARCHED_WITH_IMPORTANCE) {
        let mut stored = vec![0; 256 / dtype.block_len() * dtype.block_bytes()];
        let mut decoded = vec![0.0; 256];
        for spread in [1e3, 1e5] {
            for _ in 0..1000 {
                let values = random.normals(256);
                let mut weights = vec![1.0; 256];
                weights[random.below(256)] = spread;
                let mut error = |stored: &[u8]| -> f64 {
                    decode(dtype, stored, &mut decoded).unwrap();
                    let pairs = values.iter().zip(&decoded).zip(&weights);
                    pairs
                        .map(|((a, b), w)| f64::from(*w) * (f64::from(*a) - f64::from(*b)).powi(2))
                        .sum()
                };
                encode(dtype, &values, &mut stored).unwrap();
                let plain = error(&stored);
                encode_weighted(dtype, &values, &weights, &mut stored).unwrap();
                let weighed = error(&stored);
                // Where that column's value happens to be a half's, a block without may come out better.
                assert!(
                    weighed <= 4.0 * plain,
                    "{dtype}, {spread:e}: {weighed:e} against {plain:e}"
                );
            }
        }
    }
}

#[test]
fn an_importance_is_as_many_numbers_from_zero_on() {
    let mut out = [0; 144];
    for bad in [
        vec![1.0; 255],
        vec![-1.0; 256],
        vec![f32::NAN; 256],
        vec![f32::INFINITY; 256],
    ] {
        let error = encode_weighted(DType::Q4K, &[1.0; 256], &bad, &mut out).unwrap_err();
        assert!(
            error.to_string().contains("importance of 256 values"),
            "{error}"
        );
    }
    // One that says nothing is none.
    let values: Vec<f32> = (0..256).map(|i| (i as f32).sin()).collect();
    let mut plain = [0; 144];
    encode(DType::Q4K, &values, &mut plain).unwrap();
    for none in [0.0, 1.0, 3e38] {
        encode_weighted(DType::Q4K, &values, &[none; 256], &mut out).unwrap();
        assert_eq!(out, plain);
    }
}

#[test]
fn searched_blocks_need_no_whole_group() {
    let values: Vec<f32> = (0..352).map(|i| (i as f32 * 0.37).sin()).collect();
    let mut stored = [0; 11 * 18];
    encode(DType::IQ4NL, &values, &mut stored).unwrap();
    let mut decoded = [0.0; 352];
    decode(DType::IQ4NL, &stored, &mut decoded).unwrap();
    for (value, decoded) in values.iter().zip(decoded) {
        assert!((value - decoded).abs() < 0.12, "{value} became {decoded}");
    }
}
