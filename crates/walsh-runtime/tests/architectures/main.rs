//! Each architecture against transformers: tiny random models, whose logits were computed there by `make.py`.

use std::path::{Path, PathBuf};

use serde_json::Value;
use walsh_runtime::{Model, Session, SessionOptions};

/// How far logits may be off, as a share of the largest: sums of f32 in another order, and a cache of f16, whose numbers
/// are off by one in 2,048 at most.
const TOLERANCE: f64 = 1e-3;

struct Golden {
    path: PathBuf,
    tokens: Vec<i32>,
    logits: Vec<Vec<f64>>,
}

fn golden() -> Vec<Golden> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/architectures");
    let files = std::fs::read_dir(&folder).expect("the folder");
    let mut paths: Vec<PathBuf> = files.map(|file| file.expect("a file").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|kind| kind == "gguf"));
    paths.sort();
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(path.with_extension("json")).expect("logits");
        let json: Value = serde_json::from_str(&text).expect("JSON");
        let row = |row: &Value| -> Vec<f64> {
            let numbers = row.as_array().expect("a row").iter();
            numbers.map(|x| x.as_f64().expect("a number")).collect()
        };
        Golden {
            path,
            tokens: row(&json["tokens"]).iter().map(|x| *x as i32).collect(),
            logits: json["logits"]
                .as_array()
                .expect("rows")
                .iter()
                .map(row)
                .collect(),
        }
    };
    paths.into_iter().map(read).collect()
}

fn session(golden: &Golden, device: &str) -> Session {
    let device = walsh::open(device).expect("the processor");
    let model = Model::open(&device, &golden.path).expect("the model");
    let options = SessionOptions {
        context: 64,
        kv: "f16".parse().expect("a SPEC"),
        chunk: 8,
        ..SessionOptions::default()
    };
    model.session(options).expect("a session")
}

#[track_caller]
fn assert_near(golden: &Golden, position: usize, given: &[f32]) -> f64 {
    let expected = &golden.logits[position];
    let largest = expected.iter().fold(0.0f64, |most, x| most.max(x.abs()));
    let pairs = expected.iter().zip(given);
    let off = pairs.fold(0.0f64, |most, (x, y)| most.max((x - f64::from(*y)).abs()));
    let share = off / largest;
    let name = golden.path.display();
    assert!(
        share < TOLERANCE,
        "{name}: position {position} is off by {share:.2e}"
    );
    share
}

/// In whole chunks, a token at a time, and in chunks behind tokens.
#[test]
fn logits_are_those_of_transformers() {
    let all = golden();
    assert!(all.len() >= 7, "{} models", all.len());
    for golden in &all {
        let mut most = 0.0f64;
        for device in ["cpu:threads=1", "cpu:threads=2,isa=portable"] {
            let last = golden.tokens.len() - 1;
            let mut session = session(golden, device);
            session.prefill(&golden.tokens).expect("read");
            most = most.max(assert_near(golden, last, session.logits()));
            session.truncate(0).expect("cut back");
            for (position, &token) in golden.tokens.iter().enumerate() {
                session.decode(token).expect("read");
                most = most.max(assert_near(golden, position, session.logits()));
            }
            session.truncate(0).expect("cut back");
            let (first, rest) = golden.tokens.split_at(3);
            for &token in first {
                session.decode(token).expect("read");
            }
            session.prefill(rest).expect("read");
            most = most.max(assert_near(golden, last, session.logits()));
        }
        let name = golden.path.file_stem().expect("a name").display();
        println!("{name}: off by {most:.1e} of the largest logit at most");
    }
}
