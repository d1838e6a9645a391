//! Texts of several pages: what is cut off, shared and taken up again is what a session of its own would have.

use std::path::PathBuf;

use walsh_runtime::{Model, RestoreOptions, Session, SessionOptions};

use super::{Place, convolving, global, go_on, places, sliding, text};

/// Windows of 12 positions and chunks of 24 leave pages behind well before the context ends.
fn new(model: &Model, kv: &str) -> Session {
    let options = SessionOptions {
        context: 400,
        kv: kv.parse().expect("a SPEC"),
        chunk: 24,
        scored: 4,
    };
    model.session(options).expect("a session")
}

/// Reads up to `count` of 300 tokens: 250 of a prompt, 30 one by one, 20 scored.
fn fresh(model: &Model, kv: &str, count: usize) -> Session {
    let mut session = new(model, kv);
    let tokens = text(300, 1);
    let tokens = &tokens[..count];
    let (prompt, rest) = tokens.split_at(count.min(250));
    let (decoded, scored) = rest.split_at(rest.len().min(30));
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
    session
}

fn restored(place: &Place, session: &Session) -> Session {
    session.save(place.path()).expect("saved");
    let options = RestoreOptions::default();
    let restored = place.model.restore(place.path(), options);
    restored.expect("restored")
}

#[test]
fn what_is_cut_off_is_as_if_it_had_never_been_read() {
    for place in places() {
        for kv in ["f16", "tq4;first=2;recent=5"] {
            let whole = fresh(&place.model, kv, 300);
            let saved = restored(&place, &whole);
            for position in [300, 299, 281, 260, 257, 256, 255, 193, 128, 64, 63, 0] {
                let mut never = fresh(&place.model, kv, position);
                let expected = go_on(&mut never, 5);
                for origin in [&whole, &saved] {
                    let mut cut = origin.fork().expect("a fork");
                    cut.truncate(position).expect("cut");
                    assert_eq!(cut.tokens(), &whole.tokens()[..position]);
                    // What a cut has left behind is taken up as well.
                    let mut again = restored(&place, &cut);
                    assert_eq!(go_on(&mut again, 5), expected, "{kv} at {position}");
                    assert_eq!(go_on(&mut cut, 5), expected, "{kv} at {position}");
                }
            }
            // Nobody has written to what the forks shared.
            let mut whole = whole;
            let expected = go_on(&mut fresh(&place.model, kv, 300), 7);
            assert_eq!(go_on(&mut whole, 7), expected, "{kv}");
        }
    }
}

#[test]
fn forks_on_many_threads_go_their_own_ways() {
    const FORKS: i32 = 9;
    for place in [global(), sliding(), convolving()] {
        let kv = "tq4;first=2;recent=5";
        let origin = fresh(&place.model, kv, 270);
        let run = |session: &mut Session, seed| {
            let mut bits = go_on(session, seed);
            // Together they need more pages than a context has.
            session.prefill(&text(90, seed + 3)).expect("read");
            bits.extend(go_on(session, seed + 4));
            bits
        };
        let forks: Vec<Vec<u32>> = std::thread::scope(|scope| {
            let threads = (0..FORKS).map(|seed| {
                let mut fork = origin.fork().expect("a fork");
                scope.spawn(move || {
                    let bits = run(&mut fork, seed);
                    let mut second = fork.fork().expect("a fork of it");
                    drop(fork);
                    second.truncate(270).expect("cut");
                    assert_eq!(run(&mut second, seed), bits);
                    bits
                })
            });
            let threads: Vec<_> = threads.collect();
            let ended = threads.into_iter().map(|thread| thread.join());
            ended.map(|bits| bits.expect("no panic")).collect()
        });
        for (seed, bits) in forks.iter().enumerate() {
            let mut alone = fresh(&place.model, kv, 270);
            assert_eq!(&run(&mut alone, seed as i32), bits, "fork {seed}");
        }
        let mut origin = origin;
        let mut alone = fresh(&place.model, kv, 270);
        assert_eq!(run(&mut origin, 50), run(&mut alone, 50));
    }
}

#[test]
fn a_fork_outlives_its_origin() {
    let place = sliding();
    let mut origin = fresh(&place.model, "q8_0", 140);
    let mut fork = origin.fork().expect("a fork");
    origin.reset();
    go_on(&mut origin, 9);
    drop(origin);
    let mut next = fork.fork().expect("a fork");
    let expected = go_on(&mut fresh(&place.model, "q8_0", 140), 5);
    assert_eq!(go_on(&mut fork, 5), expected);
    drop(fork);
    assert_eq!(go_on(&mut next, 5), expected);
}

/// Files of sessions whose caches were contiguous, and rings where layers slide: 150 tokens were read of which the
/// last three were cut off again. Their models are those of the tests here.
#[test]
fn files_of_contiguous_caches_are_taken_up() {
    for (name, place, kv) in [
        ("global", global(), "f16"),
        ("sliding", sliding(), "tq4;first=2;recent=5"),
    ] {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sessions/golden");
        let file = PathBuf::from(folder).join(format!("{name}.walsh"));
        let restored = place.model.restore(&file, RestoreOptions::default());
        let mut restored = restored.expect("restored");
        let tokens = text(150, 1);
        assert_eq!(restored.tokens(), &tokens[..147]);
        let options = restored.options().clone();
        assert_eq!(options.kv, kv.parse().expect("a SPEC"));
        let mut session = place.model.session(options).expect("a session");
        session.prefill(&tokens[..130]).expect("read");
        for token in &tokens[130..144] {
            session.decode(*token).expect("read");
        }
        let scored = session.score(&tokens[144..147], 0, &mut |_, _| Ok(()));
        scored.expect("read");
        let numbers = |session: &mut Session| -> Vec<f32> {
            let bits = go_on(session, 5);
            bits.into_iter().map(f32::from_bits).collect()
        };
        let (found, expected) = (numbers(&mut restored), numbers(&mut session));
        let square = |x: f32| f64::from(x).powi(2);
        let off: f64 = found
            .iter()
            .zip(&expected)
            .map(|(a, b)| square(a - b))
            .sum();
        let size: f64 = expected.iter().map(|x| square(*x)).sum();
        let off = (off / size).sqrt();
        // Sums in another order, and instruction sets, change the last bits of what is stored; a position in another's
        // place makes it above 0.1.
        println!("{name}: off by {off:.1e}");
        assert!(off < 0.02, "{name}: {off}");
    }
}
