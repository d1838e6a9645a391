//! Sessions, their files, and what tells models with adapters apart.

use walsh_runtime::{Model, RestoreOptions};

use super::{bits, golden, open, peft, session};

#[test]
fn a_session_is_restored_with_the_same_adapters_alone() {
    let model = open("llama", "cpu:threads=1");
    let tokens = golden("llama").tokens;
    let adapted = |scale| -> Model {
        let adapters = [peft("llama-all", scale), peft("llama-some", 1.0)];
        model.with_adapters(&adapters).expect("the adapters")
    };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("a.walsh");
    let own = adapted(0.5);
    let mut first = session(&own);
    first.prefill(&tokens).expect("read");
    first.save(&path).expect("saved");
    let again = adapted(0.5).restore(&path, RestoreOptions::default());
    let mut again = again.expect("restored");
    let mut fork = first.fork().expect("a fork");
    for session in [&mut first, &mut again, &mut fork] {
        session.decode(7).expect("read");
    }
    assert_eq!(bits(again.logits()), bits(first.logits()));
    assert_eq!(bits(fork.logits()), bits(first.logits()));
    for other in [model.clone(), adapted(0.25)] {
        let error = other.restore(&path, RestoreOptions::default());
        let error = error.expect_err("an error").to_string();
        assert!(error.contains("llama-all=0.5, llama-some=1"), "{error}");
    }
    // And the other way round.
    let mut plain = session(&model);
    plain.prefill(&tokens).expect("read");
    plain.save(&path).expect("saved");
    assert!(model.restore(&path, RestoreOptions::default()).is_ok());
    assert!(own.restore(&path, RestoreOptions::default()).is_err());
}

/// Where a model's keys are calibrated, that is of the model without its adapters.
#[test]
fn calibrations_are_the_models_own() {
    let model = open("llama", "cpu:threads=1");
    let adapters = [peft("llama-all", 1.0)];
    let adapted = model.with_adapters(&adapters).expect("the adapters");
    let found = adapted.calibration().expect("a calibration").layers.clone();
    let other = open("llama", "cpu:threads=1");
    assert_eq!(other.calibration().expect("a calibration").layers, found);
}
