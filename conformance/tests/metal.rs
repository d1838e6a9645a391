//! The Metal backend with no Metal: its encoder over a mock of Metal's calls, which holds it to what Metal asks for and
//! runs its dispatches on the kernels' simulator (`walsh_metal::testing`). What a GPU of Apple's makes of the texts, no
//! test here can know.

use std::path::{Path, PathBuf};

use conformance::cases::tables;
use conformance::{Bound, Target};
use walsh::{Activations, Device};
use walsh_runtime::store::{Store, StoreOptions};
use walsh_runtime::tokenizer::Special;
use walsh_runtime::{CalibrationOptions, Model, Session, SessionOptions, Watch};

fn mock(activations: Activations) -> Device {
    walsh_metal::testing::device(5, activations).expect("a mock")
}

/// The cases of each op that run through the encoder: the simulator by itself runs the others, and the encoder knows no
/// op.
const CASES: usize = 12;

#[test]
fn cases_of_every_op_run_through_the_encoder() {
    let target = |activations| Target {
        name: format!("metal's mock, activations in {activations}"),
        device: mock(activations),
        approximates: activations == Activations::Int8,
        extends: false,
        packs: false,
        team: None,
    };
    let targets = [Activations::Int8, Activations::F32].map(target);
    let mut failures = Vec::new();
    for table in tables() {
        let count = table.problems().count();
        let mut ran = 0;
        // Spread over the table, the last among them.
        for problem in table
            .problems()
            .skip((count - 1) % count.div_ceil(CASES))
            .step_by(count.div_ceil(CASES))
        {
            let target = &targets[ran % targets.len()];
            let outcome = Bound::new(&problem, target)
                .map_err(|error| error.to_string())
                .and_then(|bound| bound.verify());
            if let Err(what) = outcome {
                failures.push(format!("{problem:?} on {}: {what}", target.name));
            }
            ran += 1;
        }
        assert!(ran > 0, "{} has no cases", table.op);
        println!("{}: {ran} of {count}", table.op);
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// The likeliest token, and how far it is ahead.
fn likeliest(logits: &[f32]) -> (i32, f32) {
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]));
    (order[0] as i32, logits[order[0]] - logits[order[1]])
}

/// A session. What a model's keys are like is found once, by the device that comes first, and kept for the others.
fn session(device: &Device, path: &Path, kv: &str) -> Session {
    let calibrations = CalibrationOptions {
        folder: Some(Path::new(env!("CARGO_TARGET_TMPDIR")).join("metal")),
        ..CalibrationOptions::default()
    };
    let model = Model::open_with(device, path, calibrations).expect("the model");
    let options = SessionOptions {
        context: 64,
        kv: kv.parse().expect("a SPEC"),
        chunk: 8,
        ..SessionOptions::default()
    };
    model.session(options).expect("a session")
}

/// The tokens that a device goes on with.
fn tokens(device: &Device, path: &Path, kv: &str, prompt: &[i32], count: usize) -> Vec<i32> {
    let mut session = session(device, path, kv);
    session.prefill(prompt).expect("read");
    let mut tokens = vec![likeliest(session.logits()).0];
    while tokens.len() < count {
        session.decode(tokens[tokens.len() - 1]).expect("read");
        tokens.push(likeliest(session.logits()).0);
    }
    tokens
}

#[test]
fn tiny_models_of_every_architecture_compute_the_logits_of_the_cpu() {
    let folder =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/walsh-runtime/tests/architectures");
    let files = std::fs::read_dir(folder).expect("the folder");
    let mut paths: Vec<PathBuf> = files.map(|file| file.expect("a file").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|kind| kind == "gguf"));
    paths.sort();
    assert!(paths.len() >= 8, "{} models", paths.len());
    let metal = mock(Activations::F32);
    let cpu = walsh::open("cpu:threads=1,activations=f32").expect("the processor");
    for path in &paths {
        // Keys that differ in their last digit may be stored as another number where they lie between two: of a float that
        // is its last digit too, of codes as much as a row of them loses.
        for (kv, most) in [("f16", 1e-4), ("4bit", 1e-2)] {
            let [cpus, ours] = [&cpu, &metal].map(|device| {
                let mut session = session(device, path, kv);
                session
                    .prefill(&[1, 5, 9, 3, 7, 2, 8, 4, 6, 11])
                    .expect("read");
                session.decode(12).expect("read");
                session.logits().to_vec()
            });
            let largest = cpus.iter().fold(0.0f32, |most, x| most.max(x.abs()));
            let pairs = ours.iter().zip(&cpus);
            let off = pairs.fold(0.0f32, |most, (a, b)| most.max((a - b).abs())) / largest;
            let name = path.file_stem().unwrap_or_default().display();
            println!("{name}, {kv}: off by {off:.1e} of the largest logit");
            assert!(
                off < most,
                "{name}, {kv}: off by {off:.1e} of the largest logit"
            );
        }
    }
}

#[test]
fn smollm2_answers_through_the_encoder_with_the_tokens_of_the_cpu() {
    let store = Store::open(StoreOptions::default()).expect("the store");
    let path = store.resolve("smollm2-135m", &Watch::default(), &mut |_| {});
    let path = path.expect("the model");
    let cpu = walsh::open("cpu").expect("the processor");
    let metal = mock(Activations::Int8);
    let model = Model::open(&cpu, &path).expect("the model");
    let text = "The capital of France is";
    let prompt = model.tokenizer().encode(text, Special::Text);
    let prompt = prompt.expect("tokens");
    for kv in ["f16", "4bit"] {
        let [cpus, ours] = [&cpu, &metal].map(|device| tokens(device, &path, kv, &prompt, 3));
        println!("{kv}: {:?}", model.tokenizer().decode(&ours));
        assert_eq!(ours, cpus, "{kv}");
    }
}
