//! Decoding and encoding against the Python package `gguf`: `golden/make_ggml.py` made the figures.

use safetensors::SafeTensors;
use walsh_formats::DType;
use walsh_formats::ggml::{decode, encode, encodes};

static GOLDEN: &[u8] = include_bytes!("golden/ggml.safetensors");

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
        if !dtype.is_real() {
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
        if !encodes(dtype) || matches!(dtype, DType::F32 | DType::IQ4NL) {
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
fn single_precision_is_stored_as_it_is() {
    let golden = golden();
    let values = f32s(&golden, "encode.values");
    let mut encoded = vec![0; 4 * values.len()];
    encode(DType::F32, &values, &mut encoded).unwrap();
    assert!(encoded == bytes(&golden, "encode.values"));
}

#[test]
fn iq4_nl_encodes_at_least_as_well_as_ggml() {
    let golden = golden();
    let values = f32s(&golden, "encode.values");
    let theirs = f64s(&golden, "encode.IQ4_NL.ggml_error");
    assert_eq!(theirs.len() * 32, values.len());
    let mut stored = vec![0; values.len() / 32 * 18];
    encode(DType::IQ4NL, &values, &mut stored).unwrap();
    let mut decoded = vec![0.0; values.len()];
    decode(DType::IQ4NL, &stored, &mut decoded).unwrap();
    let (mut better, mut sum, mut their_sum) = (0, 0.0, 0.0);
    for (block, &theirs) in theirs.iter().enumerate() {
        let range = 32 * block..32 * block + 32;
        let pairs = values[range.clone()].iter().zip(&decoded[range]);
        let error: f64 = pairs
            .map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2))
            .sum();
        // GGML weighs the large values more, so that a block may come out either way.
        let size: f64 = values[32 * block..32 * block + 32]
            .iter()
            .map(|a| f64::from(*a).powi(2))
            .sum();
        assert!(
            error <= 1.25 * theirs + 1e-7 * size,
            "block {block}: {error:e} against {theirs:e}"
        );
        better += usize::from(error <= theirs);
        if size > 0.0 {
            sum += error / size;
            their_sum += theirs / size;
        }
    }
    assert!(sum <= their_sum, "{sum} against {their_sum}");
    assert!(better > theirs.len() / 2, "{better} of {}", theirs.len());
}
