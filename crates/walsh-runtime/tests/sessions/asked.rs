//! What requests can ask for besides text, and whose turn it is.

use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

use walsh_runtime::{
    Engine, EngineOptions, Error, Finish, Logprobs, Model, Piece, Pooling, Request, Sampling,
    Stream,
};

use super::engine::{all, greedy, idle, options, place};
use super::{SessionOptions, text};
use crate::tiny::Tiny;

fn engine(model: &Model, kv: &str) -> Engine {
    Engine::new(model.clone(), options(kv, 4)).expect("an engine")
}

/// Log-probabilities by a session's logits.
fn log_softmax(logits: &[f32]) -> Vec<f32> {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f32 = logits.iter().map(|x| (x - most).exp()).sum();
    logits.iter().map(|x| x - most - sum.ln()).collect()
}

fn close(a: f32, b: f32) -> bool {
    (a - b).abs() < 1e-3
}

#[test]
fn the_prompts_log_probabilities_are_those_of_a_session() {
    let (_folder, model) = place(&Tiny::default());
    let engine = engine(&model, "f32");
    let prompt = text(75, 3);
    let ask = |request: Request| {
        let mut stream = engine.submit(request).expect("a stream");
        let pieces = stream.by_ref().count();
        let logprobs = stream.prompt_logprobs().map(<[Logprobs]>::to_vec);
        (pieces, logprobs)
    };
    let request = Request {
        prompt_logprobs: Some(3),
        ..greedy(prompt.clone(), 2)
    };
    let (pieces, told) = ask(request.clone());
    let told = told.expect("log-probabilities");
    assert_eq!((pieces, told.len()), (2, prompt.len() - 1));
    let mut session = model
        .session(super::SessionOptions {
            context: 128,
            kv: "f32".parse().expect("a SPEC"),
            ..Default::default()
        })
        .expect("a session");
    for (read, known) in told.iter().enumerate() {
        session.decode(prompt[read]).expect("read");
        let expected = log_softmax(session.logits());
        assert!(close(known.token, expected[prompt[read + 1] as usize]));
        assert_eq!(known.top.len(), 3);
        let most = expected.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        assert!(close(known.top[0].1, most), "{read}");
        assert!(known.top.is_sorted_by(|a, b| a.1 >= b.1));
    }
    // Once more, though the beginning is kept now; with nothing to generate; and of one token, which has none.
    assert_eq!(ask(request.clone()).1.as_ref(), Some(&told));
    let nothing = Request {
        max_tokens: Some(0),
        ..request.clone()
    };
    assert_eq!(ask(nothing), (0, Some(told)));
    let short = Request {
        prompt: vec![7],
        ..request
    };
    assert_eq!(ask(short).1, Some(Vec::new()));
    assert_eq!(ask(greedy(prompt, 1)).1, None);
}

#[test]
fn a_mean_is_that_of_the_vectors_behind_each_token() {
    let (_folder, model) = place(&Tiny::default());
    let engine = engine(&model, "f32");
    let ask = |prompt: &[i32], pooling| {
        let request = Request {
            pooling: Some(pooling),
            ..greedy(prompt.to_vec(), 0)
        };
        let mut stream = engine.submit(request).expect("a stream");
        assert!(stream.next().is_none());
        assert_eq!(stream.finish(), Some(Finish::MaxTokens));
        stream.embedding().expect("a vector").to_vec()
    };
    let prompt = text(40, 5);
    let ends: Vec<Vec<f32>> = (1..=prompt.len())
        .map(|end| ask(&prompt[..end], Pooling::Last))
        .collect();
    let mean = ask(&prompt, Pooling::Mean);
    assert_eq!(mean.len(), model.config().width);
    assert!(mean.iter().any(|x| x.abs() > 0.01));
    for (place, x) in mean.iter().enumerate() {
        let expected: f32 = ends.iter().map(|end| end[place]).sum::<f32>() / ends.len() as f32;
        assert!(close(*x, expected), "{x} {expected}");
    }
    // Read in several steps, and among others.
    let long = text(300, 9);
    let alone = ask(&long, Pooling::Mean);
    let others: Vec<Stream> = (0..3)
        .map(|seed| engine.submit(greedy(text(90, seed), 20)).expect("a stream"))
        .collect();
    assert_eq!(ask(&long, Pooling::Mean), alone);
    drop(others);
    idle(&engine);
}

#[test]
fn states_are_the_vectors_of_a_text_that_goes_on() {
    let (_folder, model) = place(&Tiny::default());
    let engine = engine(&model, "f32");
    let options = SessionOptions {
        kv: "f32".parse().expect("a SPEC"),
        chunk: 16,
        ..SessionOptions::default()
    };
    let prompt = text(40, 5);
    let mut plain = model.session(options.clone()).expect("a session");
    plain.prefill(&prompt).expect("room");
    let mut session = model.session(options).expect("a session");
    let mut states: Vec<Vec<f32>> = Vec::new();
    let read = session.read_states(&prompt, &mut |at, state| {
        assert_eq!(at, states.len());
        states.push(state.to_vec());
        Ok(())
    });
    read.expect("room");
    assert_eq!(states.len(), prompt.len());
    for end in [1, 16, 17, 40] {
        let request = Request {
            pooling: Some(Pooling::Last),
            ..greedy(prompt[..end].to_vec(), 0)
        };
        let mut stream = engine.submit(request).expect("a stream");
        assert!(stream.next().is_none());
        let vector = stream.embedding().expect("a vector");
        for (state, expected) in states[end - 1].iter().zip(vector) {
            assert!(close(*state, *expected), "{state} {expected}");
        }
    }
    // It is the session that reading alone gives, to the bit.
    assert_eq!(session.tokens(), plain.tokens());
    assert_eq!(session.logits(), plain.logits());
    // What is refused is no part of the text, and what was read before stays.
    let refused = session.read_states(&text(10, 1), &mut |_, _| Err(Error::EmptyPrompt));
    assert!(matches!(refused, Err(Error::EmptyPrompt)));
    assert!(session.read_states(&[], &mut |_, _| Ok(())).is_err());
    assert!(session.read_states(&[-1], &mut |_, _| Ok(())).is_err());
    session.truncate(40).expect("what it has");
    session.prefill(&text(3, 3)).expect("room");
}

#[test]
fn penalties_are_biases_of_what_was_said() {
    let (_folder, model) = place(&Tiny::default());
    let engine = engine(&model, "f32");
    let prompt = text(20, 1);
    let request = Request {
        presence_penalty: 0.75,
        frequency_penalty: 0.5,
        ..greedy(prompt.clone(), 24)
    };
    let (pieces, _) = all(engine.submit(request).expect("a stream"));
    let said: Vec<i32> = pieces.iter().filter_map(|piece| piece.token).collect();
    let (plain, _) = all(engine.submit(greedy(prompt.clone(), 24)).expect("a stream"));
    assert_ne!(
        plain
            .iter()
            .filter_map(|piece| piece.token)
            .collect::<Vec<_>>(),
        said
    );
    for end in 0..said.len() {
        let before = &said[..end];
        let mut bias: Vec<(i32, f32)> = before.iter().map(|token| (*token, -0.5)).collect();
        let mut once: Vec<i32> = before.to_vec();
        once.sort_unstable();
        once.dedup();
        bias.extend(once.into_iter().map(|token| (token, -0.75)));
        let request = Request {
            logit_bias: bias,
            ..greedy([&prompt, before].concat(), 1)
        };
        let (next, _) = all(engine.submit(request).expect("a stream"));
        assert_eq!(next[0].token, Some(said[end]), "{end}");
        // What is told is by the model's own logits.
        let told = |piece: &Piece| piece.logprobs.as_ref().expect("log-probabilities").token;
        assert!(close(told(&next[0]), told(&pieces[end])));
    }
    for request in [
        Request {
            presence_penalty: f32::NAN,
            ..greedy(prompt.clone(), 1)
        },
        Request {
            frequency_penalty: f32::INFINITY,
            ..greedy(prompt.clone(), 1)
        },
        Request {
            prompt_logprobs: Some(1 << 20),
            ..greedy(prompt, 1)
        },
    ] {
        let error = engine.submit(request).expect_err("refused").to_string();
        assert!(error.contains("must be"), "{error}");
    }
}

#[test]
fn the_stop_text_that_came_up_is_told() {
    let (_folder, model) = place(&Tiny::default());
    let engine = engine(&model, "f16");
    let request = |stop: Vec<String>| Request {
        stop,
        ..greedy(text(9, 4), 40)
    };
    let mut stream = engine.submit(request(Vec::new())).expect("a stream");
    let whole = stream.text().expect("a text");
    assert_eq!(stream.stopped_by(), None);
    let middle: String = whole.chars().skip(4).take(1).collect();
    let stops = vec!["nowhere to be found".to_owned(), middle.clone()];
    let mut stream = engine.submit(request(stops)).expect("a stream");
    let cut = stream.text().expect("a text");
    assert_eq!(stream.stopped_by(), Some(middle.as_str()));
    assert_eq!(cut, whole[..whole.find(&middle).expect("there")]);
}

/// Wakes a thread.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

#[test]
fn a_task_is_woken_for_each_piece_and_for_the_end() {
    let (_folder, model) = place(&Tiny::default());
    let engine = engine(&model, "f16");
    let expected = all(engine.submit(greedy(text(50, 2), 30)).expect("a stream"));
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut wait = |stream: &mut Stream| {
        loop {
            match stream.poll_next(&mut context) {
                Poll::Ready(piece) => return piece,
                Poll::Pending => std::thread::park(),
            }
        }
    };
    let mut stream = engine.submit(greedy(text(50, 2), 30)).expect("a stream");
    let mut pieces = Vec::new();
    while let Some(piece) = wait(&mut stream) {
        pieces.push(piece.expect("a piece"));
    }
    assert_eq!((pieces, stream.finish()), expected);
    assert!(wait(&mut stream).is_none());
    // An engine that ends wakes who waits, too.
    let long = Request {
        max_tokens: None,
        ..greedy(text(50, 2), 0)
    };
    let mut stream = engine.submit(long).expect("a stream");
    wait(&mut stream);
    std::thread::spawn(move || drop(engine));
    let last = std::iter::from_fn(|| wait(&mut stream)).last();
    assert!(stream.finish().is_some() || last.expect("an error").is_err());
}

#[test]
fn a_short_prompt_waits_for_no_long_one() {
    let (_folder, model) = place(&Tiny::default());
    let options = EngineOptions {
        keep_prefixes: false,
        ..options("f16", 4)
    };
    let engine = Engine::new(model, options).expect("an engine");
    for _ in 0..5 {
        let mut long = engine.submit(greedy(text(310, 1), 1)).expect("a stream");
        let mut short = engine.submit(greedy(text(5, 2), 1)).expect("a stream");
        for stream in [&mut long, &mut short] {
            stream.text().expect("a text");
        }
        let time = |stream: &Stream| stream.figures().expect("figures").first_token_time;
        assert!(time(&short) < time(&long));
    }
}

#[test]
fn clients_take_turns() {
    let (_folder, model) = place(&Tiny::default());
    let engine = Engine::new(model, options("f16", 1)).expect("an engine");
    let ask = |client: &str, seed| {
        let request = Request {
            client: Some(client.to_owned()),
            sampling: Sampling::greedy(),
            max_tokens: Some(250),
            ..Request::new(text(60, seed))
        };
        engine.submit(request).expect("a stream")
    };
    let many: Vec<Stream> = (0..12).map(|seed| ask("many", seed)).collect();
    let mut one = ask("one", 99);
    one.text().expect("a text");
    let ended = one.figures().expect("figures").first_token_time;
    let mut earlier = 0;
    for mut stream in many {
        stream.text().expect("a text");
        earlier += usize::from(stream.figures().expect("figures").first_token_time < ended);
    }
    // It may have come when some had ended already, but never waits for all.
    assert!(earlier < 11, "{earlier}");
    idle(&engine);
}
