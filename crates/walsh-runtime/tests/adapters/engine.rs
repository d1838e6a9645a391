//! Requests with adapters of their own.

use walsh_runtime::{Engine, EngineOptions, Model, Request, Sampling, Stream};

use super::{open, peft};

/// Which adapters a request takes.
type Scales = Option<Vec<(usize, f32)>>;

fn options() -> EngineOptions {
    EngineOptions {
        context: 200,
        sequences: 4,
        chunk: 16,
        kv: "f16".parse().expect("a SPEC"),
        kv_memory: 8 << 20,
        deterministic: true,
        ..EngineOptions::default()
    }
}

fn engine(model: &Model) -> Engine {
    let adapters = [peft("llama-all", 0.0), peft("llama-some", 0.0)];
    let model = model.with_adapters(&adapters).expect("the adapters");
    Engine::new(model, options()).expect("an engine")
}

fn prompt(seed: i32) -> Vec<i32> {
    (0..37)
        .map(|i: i32| (i * i * 31 + i * 17 + seed * 101).rem_euclid(251))
        .collect()
}

fn submit(engine: &Engine, seed: i32, adapters: &Scales) -> Stream {
    let request = Request {
        max_tokens: Some(12),
        sampling: Sampling::greedy(),
        top_logprobs: Some(5),
        adapters: adapters.clone(),
        ..Request::new(prompt(seed))
    };
    engine.submit(request).expect("a stream")
}

/// Every token with its log-probabilities, as bits.
fn answer(stream: &mut Stream) -> Vec<(i32, u32)> {
    let mut answer = Vec::new();
    for piece in stream.by_ref() {
        let piece = piece.expect("a piece");
        if let (Some(token), Some(known)) = (piece.token, piece.logprobs) {
            answer.push((token, known.token.to_bits()));
            answer.extend(known.top.iter().map(|(id, p)| (*id, p.to_bits())));
        }
    }
    answer
}

fn mixtures() -> Vec<Scales> {
    vec![
        Some(vec![(0, 1.0)]),
        Some(vec![(1, 1.0)]),
        None,
        Some(vec![(0, 0.5), (1, -0.5)]),
    ]
}

/// The answers of each mixture alone and of all together, without any adapters at last.
fn alone_and_together(model: &Model) -> [Vec<Vec<(i32, u32)>>; 2] {
    let alone: Vec<_> = mixtures()
        .iter()
        .map(|adapters| answer(&mut submit(&engine(model), 1, adapters)))
        .collect();
    for (index, answer) in alone.iter().enumerate() {
        assert_eq!(answer.len(), 6 * 12);
        assert!(!alone[..index].contains(answer), "they differ");
    }
    // The model without any gives what it gives with some that nobody takes.
    let plain = Engine::new(model.base(), options()).expect("an engine");
    assert_eq!(answer(&mut submit(&plain, 1, &None)), alone[2]);
    // In a step with each other.
    let together = engine(model);
    let mut streams: Vec<_> = mixtures()
        .iter()
        .map(|adapters| submit(&together, 1, adapters))
        .collect();
    let together: Vec<_> = streams.iter_mut().map(answer).collect();
    [alone, together]
}

/// To the bit where a row's products do not depend on how many rows there are.
#[test]
fn an_answer_does_not_depend_on_the_adapters_of_others() {
    let [alone, together] = alone_and_together(&open("llama", "cpu:threads=2,isa=portable"));
    assert!(alone == together);
    // Other sets sum few rows of weights that are not packed in another order.
    let [alone, together] = alone_and_together(&open("llama", "cpu:threads=2"));
    let pairs = alone.iter().flatten().zip(together.iter().flatten());
    for (alone, together) in pairs.step_by(6) {
        let [one, other] = [alone, together].map(|(_, bits)| f32::from_bits(*bits));
        assert_eq!(alone.0, together.0);
        assert!((one - other).abs() < 1e-4, "{one} {other}");
    }
}

/// What a request says nothing of is what the model was opened with.
#[test]
fn a_request_that_says_nothing_takes_the_models_own() {
    let model = open("llama", "cpu:threads=1,isa=portable");
    let adapters = [peft("llama-all", 0.5)];
    let adapted = model.with_adapters(&adapters).expect("the adapters");
    let own = Engine::new(adapted, options()).expect("an engine");
    let expected = answer(&mut submit(&engine(&model), 2, &Some(vec![(0, 0.5)])));
    assert_eq!(answer(&mut submit(&own, 2, &None)), expected);
    let none = answer(&mut submit(&own, 2, &Some(Vec::new())));
    assert_eq!(none, answer(&mut submit(&engine(&model), 2, &None)));
    assert_ne!(none, expected);
}

#[test]
fn beginnings_are_shared_by_requests_with_the_same_adapters() {
    let model = open("llama", "cpu:threads=1,isa=portable");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let options = EngineOptions {
        prefix_folder: Some(folder.path().join("prefixes")),
        ..options()
    };
    let start = || {
        let adapters = [peft("llama-all", 0.0), peft("llama-some", 0.0)];
        let model = model.with_adapters(&adapters).expect("the adapters");
        Engine::new(model, options.clone()).expect("an engine")
    };
    let reused = |engine: &Engine, adapters: &Scales| {
        let mut stream = submit(engine, 3, adapters);
        let answer = answer(&mut stream);
        (stream.figures().expect("an end").reused_tokens, answer)
    };
    let first = start();
    let mut answers = Vec::new();
    for adapters in mixtures() {
        let (tokens, answer) = reused(&first, &adapters);
        assert_eq!(tokens, 0, "{adapters:?}");
        answers.push(answer);
    }
    for (adapters, expected) in mixtures().iter().zip(&answers) {
        assert_eq!(
            reused(&first, adapters),
            (32, expected.clone()),
            "{adapters:?}"
        );
    }
    // Others' scales are others.
    assert_eq!(reused(&first, &Some(vec![(0, 0.99)])).0, 0);
    // A slot's file has what its text takes.
    let slot = {
        let mut stream = submit(&first, 3, &mixtures()[0]);
        answer(&mut stream);
        stream.slot().expect("a slot")
    };
    let file = folder.path().join("slot.walsh");
    first.save_slot(slot, &file).expect("saved");
    drop(first);
    // From the folder, after a restart.
    let second = start();
    for (adapters, expected) in mixtures().iter().zip(&answers) {
        assert_eq!(
            reused(&second, adapters),
            (32, expected.clone()),
            "{adapters:?}"
        );
    }
    drop(second);
    let third = engine(&model);
    third.restore_slot(1, &file).expect("restored");
    assert!(reused(&third, &mixtures()[0]).0 >= 32);
    assert_eq!(reused(&third, &mixtures()[2]).0, 0);
    let plain = Engine::new(model.clone(), self::options()).expect("an engine");
    let error = plain
        .restore_slot(1, &file)
        .expect_err("an error")
        .to_string();
    assert!(
        error.contains("adapters that this model has not"),
        "{error}"
    );
}

#[test]
fn what_cannot_be_taken_is_refused() {
    let engine = engine(&open("llama", "cpu:threads=1"));
    for (adapters, words) in [
        (vec![(2, 1.0)], "adapters below the model's 2"),
        (vec![(0, 1.0), (0, 2.0)], "each adapter once"),
        (vec![(0, f32::NAN)], "finite"),
    ] {
        let request = Request {
            adapters: Some(adapters),
            ..Request::new(prompt(1))
        };
        let error = engine.submit(request).expect_err("an error").to_string();
        assert!(error.contains(words), "{error}");
    }
}
