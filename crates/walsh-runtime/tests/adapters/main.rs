//! LoRA adapters against PEFT: tiny random models, whose logits were computed there by `make.py`.

mod engine;
mod hostile;
mod merged;
mod sessions;

use std::path::{Path, PathBuf};

use serde_json::Value;
use walsh_runtime::{Lora, Model, Session, SessionOptions};

/// How far logits may be off, as a share of the largest: sums of f32 in another order.
const TOLERANCE: f64 = 2e-5;

const DEVICES: [&str; 2] = ["cpu:threads=1", "cpu:threads=2,isa=portable"];

/// What PEFT computes with adapters, each with its scale.
struct Mixture {
    adapters: Vec<(String, f32)>,
    /// Behind some of the tokens.
    logits: Vec<(usize, Vec<f64>)>,
}

struct Golden {
    tokens: Vec<i32>,
    mixtures: Vec<Mixture>,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/adapters")
}

fn numbers(row: &Value) -> Vec<f64> {
    let numbers = row.as_array().expect("a row").iter();
    numbers.map(|x| x.as_f64().expect("a number")).collect()
}

fn golden(name: &str) -> Golden {
    let text = std::fs::read_to_string(folder().join(format!("{name}.json"))).expect("logits");
    let json: Value = serde_json::from_str(&text).expect("JSON");
    let rows: Vec<usize> = numbers(&json["rows"]).iter().map(|x| *x as usize).collect();
    let mixture = |mixture: &Value| Mixture {
        adapters: mixture["adapters"]
            .as_object()
            .expect("adapters")
            .iter()
            .map(|(name, scale)| (name.clone(), scale.as_f64().expect("a scale") as f32))
            .collect(),
        logits: mixture["logits"]
            .as_array()
            .expect("rows")
            .iter()
            .zip(&rows)
            .map(|(row, at)| (*at, numbers(row)))
            .collect(),
    };
    Golden {
        tokens: numbers(&json["tokens"]).iter().map(|x| *x as i32).collect(),
        mixtures: json["mixtures"]
            .as_array()
            .expect("mixtures")
            .iter()
            .map(mixture)
            .collect(),
    }
}

/// A model of these tests, or of those of architectures.
fn model_path(name: &str) -> PathBuf {
    let file = format!("{name}.gguf");
    let own = folder().join(&file);
    match own.is_file() {
        true => own,
        false => folder().join("../architectures").join(file),
    }
}

fn open(name: &str, device: &str) -> Model {
    let device = walsh::open(device).expect("the processor");
    Model::open(&device, model_path(name)).expect("the model")
}

/// An adapter as PEFT has saved it.
fn peft(name: &str, scale: f32) -> Lora {
    let path = folder().join(name);
    Lora { path, scale }
}

/// The same as llama.cpp's converter has written it.
fn gguf(name: &str, scale: f32) -> Lora {
    let path = folder().join(format!("{name}.gguf"));
    Lora { path, scale }
}

fn session(model: &Model) -> Session {
    let options = SessionOptions {
        context: 64,
        kv: "f32".parse().expect("a SPEC"),
        chunk: 8,
        ..SessionOptions::default()
    };
    model.session(options).expect("a session")
}

fn bits(logits: &[f32]) -> Vec<u32> {
    logits.iter().map(|logit| logit.to_bits()).collect()
}

/// How far logits are off, as a share of the largest.
fn off(expected: &[f64], given: &[f32]) -> f64 {
    let largest = expected.iter().fold(0.0f64, |most, x| most.max(x.abs()));
    let pairs = expected.iter().zip(given);
    let most = pairs.fold(0.0f64, |most, (x, y)| most.max((x - f64::from(*y)).abs()));
    most / largest
}

/// How far a model's logits are off, read at once and token by token.
fn worst(model: &Model, golden: &Golden, mixture: &Mixture) -> f64 {
    let mut most = 0.0f64;
    let mut session = session(model);
    for (at, expected) in &mixture.logits {
        session.truncate(0).expect("cut back");
        session.prefill(&golden.tokens[..=*at]).expect("read");
        most = most.max(off(expected, session.logits()));
    }
    session.truncate(0).expect("cut back");
    for (position, &token) in golden.tokens.iter().enumerate() {
        session.decode(token).expect("read");
        let expected = mixture.logits.iter().find(|(at, _)| *at == position);
        if let Some((_, expected)) = expected {
            most = most.max(off(expected, session.logits()));
        }
    }
    most
}

#[test]
fn logits_are_those_of_peft() {
    for name in ["llama", "qwen2", "phi3", "granite", "qwen3moe"] {
        let golden = golden(name);
        for device in DEVICES {
            let model = open(name, device);
            for mixture in &golden.mixtures {
                let adapters: Vec<Lora> = mixture
                    .adapters
                    .iter()
                    .map(|(name, scale)| peft(name, *scale))
                    .collect();
                let adapted = model.with_adapters(&adapters).expect("the adapters");
                let most = worst(&adapted, &golden, mixture);
                println!("{name} with {:?}: off by {most:.1e}", mixture.adapters);
                assert!(most < TOLERANCE, "{name}, {device}: {most:.2e}");
                // They show.
                assert!(worst(&model, &golden, mixture) > 0.01, "{name}");
            }
        }
    }
}

/// The factors are the same to the bit, or the two would not be found to be one adapter.
#[test]
fn adapters_of_gguf_are_those_of_peft() {
    for (model, adapter) in [
        ("llama", "llama-all"),
        ("qwen2", "qwen2-all"),
        ("phi3", "phi3-fused"),
        ("granite", "granite-queries"),
        ("qwen3moe", "qwen3moe-attention"),
    ] {
        let model = open(model, DEVICES[0]);
        let both = [peft(adapter, 1.0), gguf(adapter, 1.0)];
        let error = model.with_adapters(&both).expect_err("an error");
        assert!(
            error.to_string().contains("it is the same adapter as"),
            "{error}"
        );
        let alone = model.with_adapters(&both[1..]).expect("the adapter");
        assert_eq!(alone.adapters()[0].name, adapter);
    }
}

#[test]
fn a_scale_of_zero_gives_the_models_own_bits() {
    for device in DEVICES {
        let model = open("llama", device);
        let tokens = golden("llama").tokens;
        let logits = |model: &Model| {
            let mut session = session(model);
            session.prefill(&tokens).expect("read");
            bits(session.logits())
        };
        let none = model
            .with_adapters(&[peft("llama-all", 0.0)])
            .expect("the adapter");
        assert_eq!(logits(&none), logits(&model));
        assert_eq!(
            none.fingerprint().expect("a fingerprint"),
            model.fingerprint().expect("a fingerprint")
        );
        let all = model
            .with_adapters(&[peft("llama-all", 1.0)])
            .expect("the adapter");
        assert_ne!(logits(&all), logits(&model));
        assert_eq!(logits(&all.base()), logits(&model));
        // One that counts for nothing changes nothing of another.
        let beside = [peft("llama-some", 0.0), peft("llama-all", 1.0)];
        let beside = model.with_adapters(&beside).expect("the adapters");
        assert_eq!(logits(&beside), logits(&all));
    }
}
