//! Texts that are generated in one call or in many, ended by a stop text, or
//! broken off.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use walsh_runtime::{
    Error, Finish, GenerateOptions, Progress, RestoreOptions, Sampling, Session, Watch,
};

use super::{Place, global, go_on, sliding, text};

const SEED: u64 = 5;

/// Warm, and with a memory of what was said.
fn sampling() -> Sampling {
    Sampling {
        temperature: 1.1,
        repetition_penalty: 1.4,
        ..Sampling::default()
    }
}

fn options(tokens: usize) -> GenerateOptions {
    GenerateOptions {
        max_tokens: Some(tokens),
        sampling: sampling(),
        ..GenerateOptions::default()
    }
}

fn seeded(place: &Place, seed: u64) -> Session {
    let mut session = place
        .model
        .session(super::options("tq4"))
        .expect("a session");
    session.set_seed(seed);
    session
}

/// What follows a prompt, and why it ended.
fn generate(session: &mut Session, prompt: &str, options: GenerateOptions) -> (String, Finish) {
    let mut generation = session.generate(prompt, options).expect("a text");
    let text = generation.by_ref().map(|piece| piece.expect("a piece"));
    let text = text.collect();
    (text, generation.finish().expect("an end"))
}

fn restored(place: &Place, session: &Session) -> Session {
    session.save(place.path()).expect("saved");
    let restored = place.model.restore(place.path(), RestoreOptions::default());
    restored.expect("restored")
}

#[test]
fn a_text_in_many_calls_is_the_text_of_one() {
    for place in [global(), sliding()] {
        let mut session = seeded(&place, SEED);
        let (whole, finish) = generate(&mut session, "Hello", options(24));
        assert_eq!(finish, Finish::MaxTokens);
        assert_eq!(session.seed(), SEED);
        for step in [1, 2, 7] {
            let mut session = seeded(&place, SEED);
            let mut parts = generate(&mut session, "Hello", options(step)).0;
            for done in (step..24).step_by(step) {
                session = match done % 2 {
                    0 => restored(&place, &session),
                    _ => session.fork().expect("a copy"),
                };
                parts += &generate(&mut session, "", options(step.min(24 - done))).0;
            }
            assert_eq!(parts, whole, "{step} at a time");
        }
    }
}

#[test]
fn a_prompt_in_two_calls_is_penalised_as_one() {
    let place = global();
    let greedy = |tokens| GenerateOptions {
        sampling: Sampling {
            temperature: 0.0,
            repetition_penalty: 30.0,
            ..Sampling::default()
        },
        ..options(tokens)
    };
    let mut session = seeded(&place, 0);
    session.prefill(&text(16, 1)).expect("read");
    let mut expected = session
        .generate_from(&text(8, 2), greedy(6))
        .expect("a text");
    expected
        .by_ref()
        .for_each(|piece| drop(piece.expect("a piece")));
    let expected = expected.tokens().to_vec();
    let read: Vec<i32> = [text(16, 1), text(8, 2)].concat();
    assert!(
        expected.iter().all(|token| !read.contains(token)),
        "{expected:?}"
    );
    let mut whole = seeded(&place, 0);
    let mut found = whole.generate_from(&read, greedy(6)).expect("a text");
    found
        .by_ref()
        .for_each(|piece| drop(piece.expect("a piece")));
    assert_eq!(found.tokens(), expected);
}

#[test]
fn another_try_is_another_text_and_a_seed_repeats_both() {
    let place = global();
    let tries = |seed| {
        let mut session = seeded(&place, seed);
        let texts = [0, 1].map(|_| {
            session.reset();
            generate(&mut session, "Hello", options(16)).0
        });
        assert_eq!(session.seed(), seed);
        texts
    };
    let [first, second] = tries(SEED);
    assert_ne!(first, second);
    assert_eq!(tries(SEED), [first.clone(), second]);
    assert_ne!(tries(SEED + 1)[0], first);
}

#[test]
fn an_empty_prompt_goes_on_wherever_the_text_was_cut() {
    for place in [global(), sliding()] {
        let all = text(21, 3);
        for position in [1, 8, 16, 19, 21] {
            let mut expected = seeded(&place, SEED);
            expected.prefill(&all[..position]).expect("read");
            let expected = generate(&mut expected, "", options(5));
            let mut cut = seeded(&place, SEED);
            cut.prefill(&all[..position]).expect("read");
            cut.prefill(&text(4, 4)).expect("read");
            cut.decode(9).expect("read");
            cut.truncate(position).expect("cut");
            let mut saved = restored(&place, &cut);
            assert_eq!(
                generate(&mut cut.fork().expect("a copy"), "", options(5)),
                expected
            );
            assert_eq!(generate(&mut cut, "", options(5)), expected);
            assert_eq!(generate(&mut saved, "", options(5)), expected);
        }
        let mut scored = seeded(&place, SEED);
        let nobody = &mut |_: usize, _: &[f32]| Ok(());
        scored.score(&all, all.len(), nobody).expect("read");
        let mut decoded = seeded(&place, SEED);
        for token in all {
            decoded.decode(token).expect("read");
        }
        let expected = generate(&mut decoded, "", options(5));
        assert_eq!(generate(&mut scored, "", options(5)).1, expected.1);
        let mut empty = seeded(&place, SEED);
        assert!(matches!(
            empty.generate("", options(1)),
            Err(Error::EmptyPrompt)
        ));
    }
}

#[test]
fn a_text_ends_where_a_stop_text_begins() {
    for place in [global(), sliding()] {
        let prompt = "To be or not";
        // A seed whose text the model does not end early.
        let long = (0..50).find_map(|seed| {
            let mut session = seeded(&place, seed);
            let (whole, finish) = generate(&mut session, prompt, options(40));
            (finish == Finish::MaxTokens).then(|| (seed, whole, session.tokens().to_vec()))
        });
        let (seed, whole, tokens) = long.expect("a long text");
        let letters: Vec<(usize, char)> = whole.char_indices().collect();
        let mut within = 0;
        for length in [1, 2, 4] {
            for window in letters.windows(length).step_by(length + 1) {
                let (first, last) = (window[0], window[length - 1]);
                let stop = &whole[first.0..last.0 + last.1.len_utf8()];
                let mut session = seeded(&place, seed);
                let stopped = GenerateOptions {
                    stop: vec!["not there".to_owned(), stop.to_owned()],
                    ..options(40)
                };
                let mut generation = session.generate(prompt, stopped).expect("a text");
                let pieces: Vec<String> =
                    generation.by_ref().map(|p| p.expect("a piece")).collect();
                assert_eq!(generation.finish(), Some(Finish::Stop), "{stop:?}");
                let expected = &whole[..whole.find(stop).expect("there")];
                assert_eq!(pieces.concat(), expected, "{stop:?}");
                // The session holds what was shown, and goes on from there.
                drop(generation);
                let held = place.model.tokenizer().decode(session.tokens());
                assert_eq!(held, format!("{prompt}{expected}"), "{stop:?}");
                within += usize::from(!tokens.starts_with(session.tokens()));
                let mut again = restored(&place, &session);
                assert_eq!(
                    generate(&mut session, "", options(3)),
                    generate(&mut again, "", options(3))
                );
            }
        }
        assert!(within > 0, "a stop text began within a token");
    }
}

#[test]
fn stop_texts_may_name_control_tokens_and_are_not_empty() {
    let place = global();
    let mut session = seeded(&place, SEED);
    let unlikely = |stop: &[&str]| GenerateOptions {
        stop: stop.iter().map(ToString::to_string).collect(),
        sampling: Sampling {
            temperature: 1000.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            ..Sampling::default()
        },
        ..options(50)
    };
    let names = ["<|im_start|>"];
    let start = place.model.tokenizer().token(names[0]).expect("a token");
    let mut found = 0;
    for seed in 0..20 {
        session.reset();
        session.set_seed(seed);
        session.prefill(&[1]).expect("read");
        let finish = generate(&mut session, "x", unlikely(&names)).1;
        assert!(!session.tokens().contains(&start));
        found += usize::from(finish == Finish::Stop);
    }
    assert!(found > 0);
    let before = session.tokens().to_vec();
    let refused = session.generate("x", unlikely(&["a", ""])).map(drop);
    let message = refused.expect_err("refused").to_string();
    assert!(message.contains("stop must be a text"), "{message}");
    assert_eq!(session.tokens(), before);
}

/// Cancels once so many tokens are read.
fn cancelled_at(tokens: usize) -> Watch {
    let cancel = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&cancel);
    Watch {
        cancel,
        progress: Some(Arc::new(move |progress: Progress| {
            flag.store(progress.done >= tokens, Ordering::Relaxed);
        })),
    }
}

#[test]
fn a_prompt_is_cancelled_between_chunks_and_read_on() {
    for place in [global(), sliding()] {
        let prompt = text(37, 6);
        let mut expected = seeded(&place, 0);
        expected.prefill(&prompt).expect("read");
        for (tokens, read) in [(0, 0), (1, 8), (16, 16), (32, 32)] {
            let mut session = seeded(&place, 0);
            session.set_watch(cancelled_at(tokens));
            let cancelled = session.prefill(&prompt);
            assert!(matches!(cancelled, Err(Error::Cancelled)));
            assert_eq!(session.tokens(), &prompt[..read]);
            session.set_watch(Watch::default());
            session.prefill(&prompt[read..]).expect("read on");
            assert_eq!(session.logits(), expected.logits());
            assert_eq!(
                go_on(&mut session, 7),
                go_on(&mut expected.fork().expect("a copy"), 7)
            );
        }
    }
}

#[test]
fn a_cancelled_prompt_leaves_the_text_before_it() {
    let place = global();
    let mut session = seeded(&place, SEED);
    generate(&mut session, "Hello", options(3));
    // The latest token waits to be read.
    let before = session.tokens().to_vec();
    let expected = generate(&mut session.fork().expect("a copy"), "", options(4));
    let watch = Watch::default();
    watch.cancel.store(true, Ordering::Relaxed);
    let cancelled = GenerateOptions {
        watch,
        ..options(3)
    };
    let error = session.generate("x", cancelled).map(drop);
    assert!(matches!(error, Err(Error::Cancelled)));
    assert_eq!(session.tokens(), before);
    assert_eq!(generate(&mut session, "", options(4)), expected);
}

#[test]
fn reading_again_is_cancelled_too() {
    let place = sliding();
    let mut session = seeded(&place, 0);
    session.prefill(&text(60, 8)).expect("read");
    session.set_watch(cancelled_at(8));
    assert!(matches!(session.truncate(30), Err(Error::Cancelled)));
    assert_eq!(session.tokens(), &text(60, 8)[..8]);
    session.set_watch(Watch::default());
    session.prefill(&text(60, 8)[8..30]).expect("read on");
    let mut expected = seeded(&place, 0);
    expected.prefill(&text(60, 8)[..30]).expect("read");
    assert_eq!(go_on(&mut session, 9), go_on(&mut expected, 9));
}
