//! Tokens that are looked up in the text: what comes is what would have come without.

use walsh_runtime::{Constraint, Engine, EngineOptions, Request, Sampling, Stream};

use super::engine::{all, greedy, idle, options, place, sliding};
use super::text;
use crate::tiny::Tiny;

/// Texts that say the same again and again, and go on so for a while.
fn requests() -> Vec<Request> {
    let again = |seed, times| text(7, seed).repeat(times);
    let sampled = Request {
        sampling: Sampling {
            temperature: 0.4,
            ..Sampling::default()
        },
        seed: 11,
        ..greedy(again(2, 5), 60)
    };
    let biased = Request {
        logit_bias: text(7, 3).into_iter().map(|token| (token, 30.0)).collect(),
        ..greedy(again(3, 4), 50)
    };
    let formed = Request {
        constraint: Some(Constraint::Regex("(abcab){12}x".into())),
        ..greedy(b"abcababcababcab".map(i32::from).to_vec(), 70)
    };
    let penalised = Request {
        presence_penalty: 0.3,
        frequency_penalty: 0.02,
        ..greedy(again(5, 6), 40)
    };
    let plain = Request {
        top_logprobs: None,
        ..greedy(again(6, 9), 90)
    };
    // As many tokens as a step may find, and one that ends within.
    let short: Vec<Request> = (1..12).map(|tokens| greedy(again(6, 9), tokens)).collect();
    let mut requests = vec![greedy(text(90, 4), 40), greedy(again(1, 6), 80)];
    requests.extend([sampled, biased, formed, penalised, plain]);
    requests.extend(short);
    requests
}

#[test]
fn what_is_looked_up_changes_nothing() {
    for tiny in [Tiny::default(), sliding()] {
        let (_folder, model) = place(&tiny);
        for kv in ["f16", "tq4", "4bit", "tq4;first=2;recent=5"] {
            let page = model
                .kv_bytes_per_token(&kv.parse().expect("a SPEC"))
                .expect("bytes")
                * 64;
            for (look_up, kv_memory) in [(7, 0), (1, 0), (4, 8 * page + (1 << 18))] {
                let options = EngineOptions {
                    look_up,
                    kv_memory,
                    keep_prefixes: look_up == 7,
                    ..options(kv, 4)
                };
                // Overlays with more room are summed in other tiles.
                let plain = Engine::new(model.clone(), options.clone()).expect("an engine");
                let expected: Vec<_> = requests()
                    .into_iter()
                    .map(|request| all(plain.submit(request).expect("a stream")))
                    .collect();
                let engine = Engine::new(model.clone(), options).expect("an engine");
                let streams: Vec<Stream> = requests()
                    .into_iter()
                    .map(|request| Request {
                        look_up: true,
                        ..request
                    })
                    .map(|request| engine.submit(request).expect("a stream"))
                    .collect();
                for (index, (stream, expected)) in streams.into_iter().zip(&expected).enumerate() {
                    let came = all(stream);
                    let differs = came.0.iter().zip(&expected.0).position(|(a, b)| a != b);
                    let differs = differs.map(|at| (at, &came.0[at], &expected.0[at]));
                    assert_eq!(differs, None, "{kv} {look_up} {index}");
                    assert_eq!(&came, expected, "{kv} {look_up} {index}");
                }
                idle(&engine);
                let status = engine.status();
                assert!(
                    status.found > 30 && status.found < status.looked_up,
                    "{status:?}"
                );
                // What is found takes no step of its own.
                assert!(status.generated > status.found + 100, "{status:?}");
            }
        }
    }
}

#[test]
fn nothing_is_looked_up_unless_it_is_asked_for() {
    let (_folder, model) = place(&Tiny::default());
    let engine = Engine::new(model.clone(), options("f16", 2)).expect("an engine");
    let asked = Request {
        look_up: true,
        ..greedy(text(9, 1), 3)
    };
    let error = engine.submit(asked).expect_err("a refusal").to_string();
    assert!(error.contains("look_up must be false"), "{error}");
    let most = |look_up| {
        let options = EngineOptions {
            look_up,
            ..options("f16", 2)
        };
        Engine::new(model.clone(), options)
    };
    let error = most(8).expect_err("a refusal").to_string();
    assert!(error.contains("look_up must be at most 7"), "{error}");
    let engine = most(7).expect("an engine");
    let request = greedy(text(7, 1).repeat(6), 60);
    all(engine.submit(request).expect("a stream"));
    assert_eq!(engine.status().looked_up, 0);
}
