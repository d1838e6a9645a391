//! Sessions that are cut back, copied, saved and taken up again, on tiny models
//! with random weights: bit for bit, or refused.

#[allow(dead_code)] // the command's tests use the rest
#[path = "../../../walsh-cli/tests/support/tiny.rs"]
mod tiny;

mod asked;
mod budgets;
mod calibrations;
mod constraints;
mod conversations;
mod engine;
mod exact;
mod files;
mod fits;
mod hostile;
mod hybrids;
mod look_up;
mod packing;
mod pages;
mod prefixes;
mod slots;
mod texts;
mod unlike;

use std::path::PathBuf;

use tiny::Tiny;
use walsh_runtime::{Model, Session, SessionOptions};

/// A model in a folder of its own.
struct Place {
    folder: tempfile::TempDir,
    model: Model,
}

impl Place {
    fn new(tiny: &Tiny) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let model = open(&folder, "model.gguf", &tiny.gguf());
        Self { folder, model }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("a.walsh")
    }
}

fn open(folder: &tempfile::TempDir, name: &str, gguf: &[u8]) -> Model {
    open_on("cpu:threads=1", folder, name, gguf)
}

fn open_on(device: &str, folder: &tempfile::TempDir, name: &str, gguf: &[u8]) -> Model {
    let path = folder.path().join(name);
    std::fs::write(&path, gguf).expect("the file is written");
    let device = walsh::open(device).expect("the processor");
    Model::open(&device, path).expect("the model")
}

/// Every layer attends to all positions.
fn global() -> Place {
    Place::new(&Tiny::default())
}

/// The first layer sees 12 positions.
fn sliding() -> Place {
    Place::new(&Tiny {
        architecture: "gemma2",
        window: Some(12),
        ..Tiny::default()
    })
}

/// A file of the tests of architectures.
fn of_architecture(name: &str) -> Vec<u8> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/architectures");
    let path = PathBuf::from(folder).join(format!("{name}.gguf"));
    std::fs::read(path).expect("the file")
}

/// Of three layers, the second attends and the others keep a state; experts, one of them shared.
fn hybrid() -> Place {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let model = open(&folder, "model.gguf", &of_architecture("qwen35moe"));
    Place { folder, model }
}

/// Of three layers, the second attends and the others are short convolutions; experts behind the first.
fn convolving() -> Place {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let model = open(&folder, "model.gguf", &of_architecture("lfm2moe"));
    Place { folder, model }
}

/// Of six layers, three slide, heads differ in size, and the last three attend to what the first have stored.
fn shared() -> Place {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let model = open(&folder, "model.gguf", &of_architecture("gemma4-shared"));
    Place { folder, model }
}

/// What is to be exact with caches that only grow, with rings, with states of both kinds, and with caches that layers share.
fn places() -> [Place; 5] {
    [global(), sliding(), hybrid(), convolving(), shared()]
}

/// Chunks of 8: a ring holds 20 positions then, and an overlay 4 more tokens than are read as recent.
fn options(kv: &str) -> SessionOptions {
    SessionOptions {
        context: 64,
        kv: kv.parse().expect("a SPEC"),
        chunk: 8,
        scored: 4,
    }
}

/// A text without a pattern.
fn text(count: usize, seed: i32) -> Vec<i32> {
    let token = |index: i32| (index * index * 31 + index * 17 + seed * 101).rem_euclid(251);
    (0..count as i32).map(token).collect()
}

/// Reads on in both ways, and returns all logits on the way, as bits.
fn go_on(session: &mut Session, seed: i32) -> Vec<u32> {
    let mut bits = Vec::new();
    let mut keep = |session: &Session| bits.extend(session.logits().iter().map(|l| l.to_bits()));
    session.prefill(&text(3, seed)).expect("read");
    keep(session);
    for token in text(3, seed + 1) {
        session.decode(token).expect("read");
        keep(session);
    }
    session.prefill(&text(11, seed + 2)).expect("read");
    keep(session);
    bits
}
