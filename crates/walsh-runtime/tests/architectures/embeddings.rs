//! Models that make one vector of a text, against transformers.

use std::path::PathBuf;

use serde_json::Value;
use walsh_runtime::{
    Engine, EngineOptions, Error, GenerateOptions, Model, Pooling, Request, inspect,
};

use super::{TOLERANCE, refusal, set};

const KEY: &str = "qwen3.pooling_type";

fn path(kind: &str) -> PathBuf {
    let folder = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/architectures/embeddings"
    );
    PathBuf::from(folder).join("qwen3").with_extension(kind)
}

fn json() -> Value {
    let text = std::fs::read_to_string(path("json")).expect("vectors");
    serde_json::from_str(&text).expect("JSON")
}

fn numbers(json: &Value) -> Vec<f64> {
    let numbers = json.as_array().expect("numbers").iter();
    numbers.map(|x| x.as_f64().expect("a number")).collect()
}

/// The file with another number for what it makes of texts.
fn with_type(pooling: u32) -> (tempfile::TempDir, PathBuf) {
    let mut bytes = std::fs::read(path("gguf")).expect("the file");
    set(&mut bytes, KEY, pooling);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("model.gguf");
    std::fs::write(&path, bytes).expect("the file is written");
    (folder, path)
}

fn open(path: &PathBuf, device: &str) -> Model {
    let device = walsh::open(device).expect("the processor");
    Model::open(&device, path).expect("the model")
}

fn engine(model: &Model) -> Engine {
    let options = EngineOptions {
        context: 64,
        kv: "f32".parse().expect("a SPEC"),
        chunk: 8,
        sequences: 2,
        ..EngineOptions::default()
    };
    Engine::new(model.clone(), options).expect("an engine")
}

#[test]
fn vectors_are_those_of_transformers() {
    let json = json();
    let tokens: Vec<i32> = numbers(&json["tokens"]).iter().map(|x| *x as i32).collect();
    for (number, pooling) in [(3, Pooling::Last), (1, Pooling::Mean)] {
        let (_folder, path) = with_type(number);
        for device in ["cpu:threads=1", "cpu:threads=2,isa=portable"] {
            let model = open(&path, device);
            assert_eq!(model.config().pooling, Some(pooling));
            let request = Request {
                max_tokens: Some(0),
                pooling: model.config().pooling,
                ..Request::new(tokens.clone())
            };
            let engine = engine(&model);
            let mut stream = engine.submit(request).expect("a stream");
            assert!(stream.next().is_none());
            let found = stream.embedding().expect("a vector");
            let length: f64 = found.iter().map(|x| f64::from(*x).powi(2)).sum();
            let expected = numbers(&json[pooling.name()]);
            assert_eq!(found.len(), expected.len());
            let largest = expected.iter().fold(0.0f64, |most, x| most.max(x.abs()));
            for (x, expected) in found.iter().zip(expected) {
                let off = (f64::from(*x) / length.sqrt() - expected).abs() / largest;
                assert!(off < TOLERANCE, "{pooling} on {device}: off by {off:.2e}");
            }
        }
    }
}

#[test]
fn what_makes_vectors_makes_no_texts() {
    let model = open(&path("gguf"), "cpu:threads=1");
    let check = |error: Error| {
        let error = error.to_string();
        assert!(
            error.contains("one vector of a text (last pooling)"),
            "{error}"
        );
        assert!(!error.contains('\n'), "{error}");
    };
    let shape = inspect(&model, &[], 64).expect("a look").shape;
    assert_eq!(shape.pooling, Some("last"));
    let mut session = model.session(Default::default()).expect("a session");
    let generated = session.generate_from(&[1, 2, 3], GenerateOptions::default());
    check(generated.err().expect("refused"));
    // Nothing was read for it.
    assert_eq!(session.position(), 0);
    for tokens in [None, Some(1)] {
        let request = Request {
            max_tokens: tokens,
            ..Request::new(vec![1, 2, 3])
        };
        check(engine(&model).submit(request).expect_err("refused"));
    }
    // Without the key, and with none, it makes texts.
    let (_folder, path) = with_type(0);
    let model = open(&path, "cpu:threads=1");
    assert_eq!(model.config().pooling, None);
    let mut session = model.session(Default::default()).expect("a session");
    assert!(
        session
            .generate_from(&[1, 2, 3], GenerateOptions::default())
            .is_ok()
    );
}

#[test]
fn other_poolings_are_refused() {
    for (number, words) in [
        (
            2,
            "pooling_type is 2 (the first token's vector), but only 0 (none), 1 (mean) and 3",
        ),
        (4, "pooling_type is 4 (a rank)"),
        (5, "pooling_type is 5, but only"),
    ] {
        let (_folder, path) = with_type(number);
        let error = refusal(path);
        assert!(error.contains(words), "{error}");
    }
}
