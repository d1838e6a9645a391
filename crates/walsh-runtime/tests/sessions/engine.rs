//! Many texts at once: each as it would be alone, whatever becomes of the others.

use std::time::{Duration, Instant};

use walsh_runtime::{
    Engine, EngineOptions, Error, Finish, Model, Piece, Request, Sampling, Stream,
};

use super::{Place, of_architecture, open_on, text};
use crate::tiny::Tiny;

/// A device on which the sums of a row do not depend on how many rows there are.
const DEVICE: &str = "cpu:threads=2,isa=portable";

pub(super) fn place(tiny: &Tiny) -> (tempfile::TempDir, Model) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let model = open_on(DEVICE, &folder, "model.gguf", &tiny.gguf());
    (folder, model)
}

/// The same with caches that only grow, with windows, with states of both kinds, and with caches that layers share.
pub(super) fn places() -> [(tempfile::TempDir, Model); 5] {
    let of = |architecture| {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let bytes = of_architecture(architecture);
        let model = open_on(DEVICE, &folder, "model.gguf", &bytes);
        (folder, model)
    };
    [
        place(&Tiny::default()),
        place(&sliding()),
        of("qwen35moe"),
        of("lfm2moe"),
        of("gemma4-shared"),
    ]
}

pub(super) fn sliding() -> Tiny {
    Tiny {
        architecture: "gemma2",
        window: Some(12),
        ..Tiny::default()
    }
}

pub(super) fn options(kv: &str, sequences: usize) -> EngineOptions {
    EngineOptions {
        sequences,
        context: 320,
        kv: kv.parse().expect("a SPEC"),
        chunk: 32,
        ..EngineOptions::default()
    }
}

pub(super) fn greedy(prompt: Vec<i32>, tokens: usize) -> Request {
    Request {
        max_tokens: Some(tokens),
        sampling: Sampling::greedy(),
        top_logprobs: Some(2),
        ..Request::new(prompt)
    }
}

/// All pieces, and why the text ended.
pub(super) fn all(mut stream: Stream) -> (Vec<Piece>, Option<Finish>) {
    let pieces = stream.by_ref().map(|piece| piece.expect("a piece"));
    let pieces = pieces.collect();
    (pieces, stream.finish())
}

/// Waits until nobody is served any more.
pub(super) fn idle(engine: &Engine) {
    let start = Instant::now();
    loop {
        let status = engine.status();
        if status.running + status.waiting == 0 {
            assert_eq!(status.pages_used, 0, "{status:?}");
            return;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "{status:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_text_is_the_same_alone_and_among_others() {
    for (_folder, model) in places() {
        for kv in ["f16", "tq4", "4bit", "tq4;first=2;recent=5"] {
            let requests: Vec<Request> = (0..7)
                .map(|index| greedy(text(3 + 29 * index, index as i32), 5 + 13 * (index % 4)))
                .collect();
            let alone: Vec<_> = requests
                .iter()
                .map(|request| {
                    let engine = Engine::new(model.clone(), options(kv, 1)).expect("an engine");
                    all(engine.submit(request.clone()).expect("a stream"))
                })
                .collect();
            // With all that they need, and with so little that they must give way.
            let page = model
                .kv_bytes_per_token(&kv.parse().expect("a SPEC"))
                .expect("bytes")
                * 64;
            for kv_memory in [0, 8 * page + (1 << 18)] {
                let options = EngineOptions {
                    kv_memory,
                    ..options(kv, 4)
                };
                let engine = Engine::new(model.clone(), options).expect("an engine");
                let streams: Vec<Stream> = requests
                    .iter()
                    .map(|request| engine.submit(request.clone()).expect("a stream"))
                    .collect();
                for (stream, alone) in streams.into_iter().zip(&alone) {
                    assert_eq!(&all(stream), alone, "{kv} {kv_memory}");
                }
                idle(&engine);
            }
        }
    }
}

#[test]
fn texts_that_give_way_come_back() {
    let (_folder, model) = place(&Tiny::default());
    let spec = "f16".parse().expect("a SPEC");
    let page = model.kv_bytes_per_token(&spec).expect("bytes") * 64;
    let options = EngineOptions {
        kv_memory: 6 * page,
        ..options("f16", 4)
    };
    let engine = Engine::new(model.clone(), options).expect("an engine");
    // The last to come goes first, and gives way last.
    let requests: Vec<Request> = (0..4)
        .map(|seed| Request {
            priority: seed % 3,
            ..greedy(text(50, seed), 150)
        })
        .collect();
    let streams: Vec<Stream> = requests
        .iter()
        .map(|request| engine.submit(request.clone()).expect("a stream"))
        .collect();
    let among: Vec<_> = streams.into_iter().map(all).collect();
    assert!(engine.status().put_off > 0, "{:?}", engine.status());
    for (request, among) in requests.into_iter().zip(among) {
        assert_eq!(all(engine.submit(request).expect("a stream")), among);
    }
    idle(&engine);
}

#[test]
fn who_leaves_frees_what_it_had() {
    let (_folder, model) = place(&sliding());
    let engine = Engine::new(model, options("tq4", 3)).expect("an engine");
    let expected = all(engine.submit(greedy(text(40, 3), 60)).expect("a stream"));
    let mut dropped = Vec::new();
    for seed in 0..12 {
        let mut stream = engine
            .submit(greedy(text(90, seed), 200))
            .expect("a stream");
        match seed % 3 {
            0 => drop(stream),
            1 => stream.cancel(),
            _ => {
                let first = stream.next().expect("a piece").expect("a piece");
                assert!(first.token.is_some());
                dropped.push(stream);
            }
        }
    }
    drop(dropped);
    let late = Request {
        deadline: Some(Instant::now()),
        ..greedy(text(9, 9), 50)
    };
    let late = all(engine.submit(late).expect("a stream"));
    assert_eq!(late, (Vec::new(), Some(Finish::Cancelled)));
    assert_eq!(
        all(engine.submit(greedy(text(40, 3), 60)).expect("a stream")),
        expected
    );
    idle(&engine);
}

#[test]
fn a_higher_priority_goes_first() {
    let (_folder, model) = place(&Tiny::default());
    let engine = Engine::new(model, options("f16", 1)).expect("an engine");
    let first = engine.submit(greedy(text(30, 0), 100)).expect("a stream");
    let request = |priority| Request {
        priority,
        ..greedy(text(30, 1), 40)
    };
    let low = engine.submit(request(-1)).expect("a stream");
    let mut high = engine.submit(request(5)).expect("a stream");
    drop(first);
    assert!(high.by_ref().all(|piece| piece.is_ok()));
    // Behind it in line, the other has not ended before it.
    assert_eq!(high.finish(), Some(Finish::MaxTokens));
    assert_eq!(all(low).1, Some(Finish::MaxTokens));
}

#[test]
fn biases_and_probabilities_are_heeded() {
    let (_folder, model) = place(&Tiny::default());
    let engine = Engine::new(model.clone(), options("f16", 2)).expect("an engine");
    let plain = all(engine.submit(greedy(text(20, 1), 4)).expect("a stream")).0;
    for piece in &plain {
        let logprobs = piece.logprobs.as_ref().expect("log-probabilities");
        assert_eq!(Some(logprobs.top[0].0), piece.token);
        assert_eq!(logprobs.top[0].1, logprobs.token);
        assert!(logprobs.top[1].1 <= logprobs.top[0].1 && logprobs.top.len() == 2);
    }
    let biased = Request {
        logit_bias: vec![(77, 1e4)],
        ..greedy(text(20, 1), 3)
    };
    let biased = all(engine.submit(biased).expect("a stream")).0;
    assert!(
        biased.iter().all(|piece| piece.token == Some(77)),
        "{biased:?}"
    );
    // The model's own: it does not know of the bias.
    assert!(
        biased[0]
            .logprobs
            .as_ref()
            .expect("log-probabilities")
            .token
            < -0.1
    );
    // The engine's session and the engine agree where both read in one call.
    let mut session = model
        .session(walsh_runtime::SessionOptions {
            context: 320,
            chunk: 32,
            ..Default::default()
        })
        .expect("a session");
    session.prefill(&text(20, 1)).expect("read");
    let mut tokens = Vec::new();
    for _ in 0..4 {
        let logits = session.logits();
        let best = (0..logits.len())
            .rev()
            .max_by(|a, b| logits[*a].total_cmp(&logits[*b]));
        tokens.push(best.expect("a token") as i32);
        session
            .decode(*tokens.last().expect("a token"))
            .expect("read");
    }
    let given: Vec<i32> = plain.iter().filter_map(|piece| piece.token).collect();
    assert_eq!(given, tokens);
}

#[test]
fn who_has_no_numbers_ends_alone() {
    // Logits are products of another matrix than the one that has the embeddings.
    let (_folder, model) = place(&Tiny {
        nan_token: Some(200),
        extra: vec![("output.weight", &[260, 64])],
        ..Tiny::default()
    });
    let good: Vec<Request> = (0..3)
        .map(|seed| {
            let tokens = text(40 + 30 * seed, seed as i32).into_iter();
            Request {
                // What is generated never is the token either.
                logit_bias: vec![(200, -1e9)],
                ..greedy(tokens.map(|token| token % 200).collect(), 30)
            }
        })
        .collect();
    let engine = |sequences| Engine::new(model.clone(), options("tq4", sequences));
    let alone: Vec<_> = good
        .iter()
        .map(|request| {
            let engine = engine(1).expect("an engine");
            all(engine.submit(request.clone()).expect("a stream"))
        })
        .collect();
    let engine = engine(4).expect("an engine");
    let submit = |request: &Request| engine.submit(request.clone()).expect("a stream");
    let streams: Vec<Stream> = good.iter().map(submit).collect();
    for at in [0, 33] {
        let mut prompt = vec![7; 50];
        prompt[at] = 200;
        let mut stream = submit(&greedy(prompt, 30));
        let error = stream.by_ref().find_map(Result::err).expect("an error");
        assert!(matches!(error, Error::Logits { .. }), "{error}");
        assert!(stream.next().is_none());
    }
    for (stream, alone) in streams.into_iter().zip(&alone) {
        assert_eq!(&all(stream), alone);
    }
    idle(&engine);
}

#[test]
fn what_cannot_be_served_is_refused() {
    let (_folder, model) = place(&Tiny::default());
    let engine = Engine::new(model.clone(), options("f16", 2)).expect("an engine");
    let refused = |request: Request, words: &[&str]| {
        let error = engine.submit(request).expect_err("a refusal").to_string();
        for word in words {
            assert!(error.contains(word), "{error:?} lacks {word:?}");
        }
    };
    refused(greedy(Vec::new(), 1), &["prompt is empty"]);
    refused(greedy(text(320, 0), 1), &["321 tokens", "context of 320"]);
    refused(greedy(vec![3, 1 << 20], 1), &["token", "1048576"]);
    refused(greedy(vec![-1], 1), &["token", "-1"]);
    let bias = |bias| Request {
        logit_bias: bias,
        ..greedy(vec![1], 1)
    };
    refused(bias(vec![(-5, 1.0)]), &["token", "-5"]);
    refused(bias(vec![(5, f32::NAN)]), &["logit_bias", "NaN"]);
    let empty = Request {
        stop: vec![String::new()],
        ..greedy(vec![1], 1)
    };
    refused(empty, &["stop"]);
    // The longest prompt that fits leaves room for one token.
    let (pieces, finish) = all(engine.submit(greedy(text(319, 0), 9)).expect("a stream"));
    let tokens = pieces.iter().filter(|piece| piece.token.is_some()).count();
    assert_eq!((tokens, finish), (1, Some(Finish::ContextFull)));
    let none = all(engine.submit(greedy(text(5, 0), 0)).expect("a stream"));
    assert_eq!(none, (Vec::new(), Some(Finish::MaxTokens)));

    let new = |options: EngineOptions, words: &[&str]| {
        let error = Engine::new(model.clone(), options)
            .expect_err("a refusal")
            .to_string();
        for word in words {
            assert!(error.contains(word), "{error:?} lacks {word:?}");
        }
    };
    new(options("f16", 0), &["sequences", "between 1 and"]);
    let small = EngineOptions {
        kv_memory: 1000,
        ..options("f16", 2)
    };
    new(small, &["kv_memory", "one sequence of 320 tokens", "f16"]);
    let large = EngineOptions {
        kv_memory: u64::MAX,
        context: 1 << 29,
        ..options("f16", 1000)
    };
    new(large, &["kv_memory"]);
}

#[test]
fn streams_outlive_their_engine_with_an_error() {
    let (_folder, model) = place(&Tiny::default());
    let engine = Engine::new(model, options("f16", 1)).expect("an engine");
    let streams: Vec<Stream> = (0..3)
        .map(|seed| {
            engine
                .submit(greedy(text(30, seed), 280))
                .expect("a stream")
        })
        .collect();
    drop(engine);
    for mut stream in streams {
        let ended = stream.by_ref().find_map(Result::err);
        assert!(matches!(ended, Some(Error::Engine { .. })), "{ended:?}");
        assert!(stream.next().is_none());
    }
}

#[test]
fn the_defaults_are_those_of_the_model() {
    let place = Place::new(&Tiny::default());
    let engine = Engine::new(place.model.clone(), EngineOptions::default()).expect("an engine");
    assert_eq!(
        engine.options().context,
        place.model.config().context.min(4096)
    );
    assert!(engine.options().chunk <= engine.options().context);
    assert!(
        !all(engine.submit(greedy(text(9, 0), 3)).expect("a stream"))
            .0
            .is_empty()
    );
}
