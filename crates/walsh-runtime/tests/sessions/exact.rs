use walsh_runtime::{GenerateOptions, Model, RestoreOptions, Sampling, Session, SessionOptions};

use super::{Place, global, go_on, hybrid, options, places, sliding, text};

const SPECS: [&str; 5] = [
    "f16",
    "tq4",
    "tq4;first=2;recent=5",
    "4bit;overlay=off;layers=0:q8_0",
    "k=tq8,v=tq3+norot",
];

/// Reads up to `count` of 30 tokens in several ways: 19 of a prompt, 6 one by one,
/// 5 scored.
fn read(session: &mut Session, count: usize) {
    let tokens = text(30, 1);
    let tokens = &tokens[..count];
    let (prompt, rest) = tokens.split_at(count.min(19));
    let (decoded, scored) = rest.split_at(rest.len().min(6));
    if !prompt.is_empty() {
        session.prefill(prompt).expect("read");
    }
    for token in decoded {
        session.decode(*token).expect("read");
    }
    if !scored.is_empty() {
        let ended = session.score(scored, 0, &mut |_, _| Ok(()));
        ended.expect("read");
    }
}

fn new(model: &Model, kv: &str) -> Session {
    model.session(options(kv)).expect("a session")
}

fn fresh(model: &Model, kv: &str, count: usize) -> Session {
    let mut session = new(model, kv);
    read(&mut session, count);
    session
}

fn restored(place: &Place, session: &Session) -> Session {
    session.save(place.path()).expect("saved");
    let options = RestoreOptions::default();
    place
        .model
        .restore(place.path(), options)
        .expect("restored")
}

#[test]
fn a_session_goes_on_bit_for_bit_in_another_context() {
    for place in places() {
        for kv in [
            "f16",
            "tq4",
            "tq4;first=2;recent=1048576",
            "tq4;first=1048576",
        ] {
            let mut session = fresh(&place.model, kv, 30);
            session.save(place.path()).expect("saved");
            let expected = go_on(&mut session, 2);
            for context in [48, 200] {
                let options = RestoreOptions {
                    context,
                    ..RestoreOptions::default()
                };
                let restored = place.model.restore(place.path(), options);
                let mut restored = restored.expect("restored");
                assert_eq!(go_on(&mut restored, 2), expected, "{kv} in {context}");
            }
        }
    }
}

#[test]
fn a_chunk_below_what_is_scored_at_a_time_bounds_it() {
    let place = global();
    let options = SessionOptions {
        scored: 32,
        ..options("tq4")
    };
    let mut session = place.model.session(options).expect("a session");
    read(&mut session, 30);
    let mut others = [restored(&place, &session), session.fork().expect("a copy")];
    let expected = go_on(&mut session, 2);
    for other in &mut others {
        assert_eq!(go_on(other, 2), expected);
    }
}

#[test]
fn a_restored_session_goes_on_bit_for_bit() {
    for place in places() {
        for kv in SPECS {
            // Empty, within the ring, in the middle of its second round, scored.
            for count in [0, 7, 19, 25, 30] {
                let mut session = fresh(&place.model, kv, count);
                let mut restored = restored(&place, &session);
                assert_eq!(restored.tokens(), session.tokens());
                assert_eq!(restored.options(), session.options());
                assert_eq!(restored.logits(), session.logits());
                let bits = go_on(&mut restored, 5);
                assert_eq!(bits, go_on(&mut session, 5), "{kv} after {count}");
            }
        }
    }
}

#[test]
fn a_token_that_waits_is_saved_too() {
    let place = sliding();
    let options = |max_tokens| GenerateOptions {
        max_tokens: Some(max_tokens),
        sampling: Sampling::greedy(),
        ..GenerateOptions::default()
    };
    let generate = |session: &mut Session, tokens: &[i32], count| {
        let mut text = session
            .generate_from(tokens, options(count))
            .expect("a text");
        text.by_ref()
            .for_each(|piece| drop(piece.expect("a piece")));
        text.tokens().to_vec()
    };
    let mut session = new(&place.model, "tq4;first=2;recent=5");
    generate(&mut session, &text(15, 1), 9);
    let mut restored = restored(&place, &session);
    assert_eq!(restored.position(), 24);
    assert_eq!(restored.tokens(), session.tokens());
    let expected = generate(&mut session, &text(4, 2), 12);
    assert_eq!(generate(&mut restored, &text(4, 2), 12), expected);
    assert_eq!(restored.logits(), session.logits());
}

#[test]
fn a_cut_session_is_one_that_never_read_the_rest() {
    for place in places() {
        for kv in SPECS {
            let whole = fresh(&place.model, kv, 30);
            for position in 0..=30 {
                let mut cut = whole.fork().expect("a fork");
                cut.truncate(position).expect("cut");
                let mut never = fresh(&place.model, kv, position);
                assert_eq!(cut.tokens(), never.tokens());
                let bits = go_on(&mut cut, 5);
                assert_eq!(bits, go_on(&mut never, 5), "{kv} at {position}");
            }
        }
    }
}

#[test]
fn cutting_again_and_again_stays_exact() {
    for place in [sliding(), hybrid()] {
        cut_again_and_again(&place);
    }
}

fn cut_again_and_again(place: &Place) {
    let mut session = fresh(&place.model, "tq4;first=2;recent=5", 30);
    // What a cut leaves in the ring is not what lay there before.
    for position in [29, 26, 25, 22, 20, 17, 16, 9, 8, 3] {
        session.truncate(position).expect("cut");
        let mut fork = session.fork().expect("a fork");
        let mut restored = restored(place, &session);
        let expected = go_on(
            &mut fresh(&place.model, "tq4;first=2;recent=5", position),
            5,
        );
        assert_eq!(go_on(&mut fork, 5), expected, "at {position}");
        // Beyond the cut and back, in a session that was saved in between.
        assert_eq!(go_on(&mut restored, 5), expected, "at {position}");
        restored.truncate(position).expect("cut");
        assert_eq!(go_on(&mut restored, 5), expected, "at {position}");
    }
}

#[test]
fn forks_and_files_know_what_a_cut_left_in_the_ring() {
    let place = sliding();
    let mut session = fresh(&place.model, "tq4", 30);
    session.truncate(25).expect("cut");
    for position in [24, 22, 19, 8] {
        let expected = go_on(&mut fresh(&place.model, "tq4", position), 5);
        let fork = session.fork().expect("a fork");
        for mut copy in [fork, restored(&place, &session)] {
            copy.truncate(position).expect("cut");
            assert_eq!(go_on(&mut copy, 5), expected, "at {position}");
        }
    }
}

#[test]
fn cutting_off_a_token_that_waits_keeps_the_logits() {
    let place = global();
    let mut session = fresh(&place.model, "f16", 10);
    let logits = session.logits().to_vec();
    let options = GenerateOptions {
        max_tokens: Some(1),
        ..GenerateOptions::default()
    };
    let mut prompt = session.fork().expect("a fork");
    let mut text = prompt.generate_from(&[7], options).expect("a text");
    text.next();
    drop(text);
    let behind = prompt.logits().to_vec();
    prompt.truncate(11).expect("cut");
    assert_eq!((prompt.position(), prompt.logits()), (11, &behind[..]));
    prompt.truncate(10).expect("cut");
    assert!(prompt.logits().iter().all(|logit| *logit == 0.0));
    session.truncate(10).expect("nothing to cut");
    assert_eq!(session.logits(), logits);
    assert!(session.truncate(11).is_err());
    assert_eq!(session.position(), 10);
}

#[test]
fn what_was_refused_leaves_no_trace() {
    for place in [sliding(), hybrid()] {
        refuse_much(&place);
    }
}

fn refuse_much(place: &Place) {
    for count in [5, 19, 27] {
        let mut session = fresh(&place.model, "tq4;first=2;recent=5", count);
        assert!(session.prefill(&text(60, 3)).is_err(), "no room");
        assert!(session.prefill(&[1, 2, 9999]).is_err(), "no such token");
        assert!(session.decode(-1).is_err(), "no such token");
        assert!(session.score(&[4, 9999], 0, &mut |_, _| Ok(())).is_err());
        let mut failing = session.fork().expect("a fork");
        let stop = &mut |_: usize, _: &[f32]| Err(walsh_runtime::Error::EmptyPrompt);
        assert!(failing.score(&text(20, 4), 0, stop).is_err());
        assert_eq!(failing.position(), count + 4, "one step was read");
        failing.truncate(count).expect("cut");
        let expected = go_on(&mut fresh(&place.model, "tq4;first=2;recent=5", count), 5);
        assert_eq!(go_on(&mut failing, 5), expected);
        assert_eq!(session.position(), count);
        assert_eq!(go_on(&mut session, 5), expected);
    }
}

#[test]
fn a_fork_and_its_origin_go_their_own_ways() {
    for place in places() {
        let mut origin = fresh(&place.model, "k=tq5,v=tq3", 23);
        let mut fork = origin.fork().expect("a fork");
        assert_eq!(fork.logits(), origin.logits());
        // One after the other, so that shared memory would show.
        let one = go_on(&mut origin, 40);
        let other = go_on(&mut fork, 50);
        assert_ne!(one, other);
        let expected = |seed| go_on(&mut fresh(&place.model, "k=tq5,v=tq3", 23), seed);
        assert_eq!(one, expected(40));
        assert_eq!(other, expected(50));
        assert_ne!(fork.tokens(), origin.tokens());
    }
}

#[test]
fn a_restored_session_may_hold_more_than_before() {
    for place in places() {
        // With 16, the sliding layer holds all positions before and a ring after.
        for context in [16, 32] {
            let mut small = place
                .model
                .session(SessionOptions {
                    context,
                    ..options("tq4;first=2;recent=5")
                })
                .expect("a session");
            read(&mut small, context - 4);
            small.save(place.path()).expect("saved");
            let larger = RestoreOptions {
                context: 64,
                ..RestoreOptions::default()
            };
            let mut larger = place.model.restore(place.path(), larger).expect("restored");
            assert_eq!(larger.context(), 64);
            let bits = go_on(&mut larger, 5);
            let mut never_small = fresh(&place.model, "tq4;first=2;recent=5", context - 4);
            assert_eq!(bits, go_on(&mut never_small, 5));
        }
    }
}

#[test]
fn tokens_are_those_of_the_text() {
    let place = global();
    let mut session = new(&place.model, "f16");
    assert!(session.tokens().is_empty());
    session.prefill(&[1, 2, 3]).expect("read");
    session.decode(4).expect("read");
    assert_eq!(session.tokens(), [1, 2, 3, 4]);
    session.reset();
    assert!(session.tokens().is_empty());
}

#[test]
fn the_likeliest_token_is_that_of_the_logits() {
    for place in places() {
        let mut by_host = fresh(&place.model, "tq4", 19);
        let mut on_device = fresh(&place.model, "tq4", 19);
        for token in text(6, 3) {
            by_host.decode(token).expect("read");
            let largest = by_host.logits().iter().copied().fold(f32::MIN, f32::max);
            let expected = by_host.logits().iter().position(|x| *x == largest);
            let likeliest = on_device.decode_likeliest(token).expect("read");
            assert_eq!(Some(likeliest as usize), expected);
            assert!(on_device.logits().iter().all(|logit| *logit == 0.0));
        }
        assert_eq!(go_on(&mut by_host, 5), go_on(&mut on_device, 5));
    }
}

#[test]
fn a_generation_leaves_the_logits_of_its_last_token_read() {
    let place = global();
    let options = |sampling| GenerateOptions {
        max_tokens: Some(5),
        sampling,
        ..GenerateOptions::default()
    };
    let run = |sampling| {
        let mut session = new(&place.model, "f16");
        let text = session.generate_from(&text(9, 1), options(sampling));
        text.expect("a text")
            .for_each(|piece| drop(piece.expect("a piece")));
        (session.tokens().to_vec(), session.logits().to_vec())
    };
    // Keeping the single likeliest is the same choice, made by the host.
    let by_host = run(Sampling {
        temperature: 1.0,
        top_k: 1,
        ..Sampling::default()
    });
    let on_device = run(Sampling::greedy());
    assert!(on_device.1.iter().any(|logit| *logit != 0.0));
    assert_eq!(by_host, on_device);
}
