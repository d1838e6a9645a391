//! Models some of whose layers keep a state: nothing goes on from states that are not its own.

use std::sync::{Arc, Mutex};

use walsh::formats::gguf::Gguf;
use walsh_runtime::{
    Engine, EngineOptions, Error, FitOptions, ImportanceOptions, Model, Progress, Session,
    TextReader, Watch, fit, importance,
};

use super::engine::{greedy, idle};
use super::{Place, go_on, hybrid, of_architecture, open, open_on, options, text};

/// A token whose embedding is no number.
const NONE: i32 = 77;

/// A model in which a token has no numbers.
fn with_a_hole(device: &str) -> Place {
    let mut bytes = of_architecture("qwen35");
    let row = {
        let gguf = Gguf::parse(&bytes).expect("a file");
        let table = gguf.tensor("token_embd.weight").expect("the embeddings");
        let data = gguf.data(table);
        let row_bytes = data.len() / 260;
        let start = data.as_ptr() as usize - bytes.as_ptr() as usize + NONE as usize * row_bytes;
        start..start + row_bytes
    };
    for number in bytes[row].chunks_exact_mut(4) {
        number.copy_from_slice(&f32::NAN.to_le_bytes());
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let model = open_on(device, &folder, "model.gguf", &bytes);
    Place { folder, model }
}

fn read(model: &Model, tokens: &[i32]) -> Session {
    let mut session = model.session(options("f16")).expect("a session");
    session.prefill(tokens).expect("read");
    session
}

#[test]
fn a_session_goes_on_from_before_a_run_that_failed() {
    let place = with_a_hole("cpu:threads=1");
    let tokens = text(19, 1);
    let expected = go_on(&mut read(&place.model, &tokens), 5);
    for failing in [
        vec![NONE],
        vec![1, NONE, 2],
        [text(8, 2), vec![NONE]].concat(),
    ] {
        let mut session = read(&place.model, &tokens);
        assert!(session.prefill(&failing).is_err());
        // A chunk before the one that failed may have been read.
        if session.position() == tokens.len() {
            assert!(session.fork().is_err(), "nothing is known of its states");
        }
        session.truncate(tokens.len()).expect("cut back");
        assert_eq!(go_on(&mut session, 5), expected, "{failing:?}");
        assert!(session.decode(NONE).is_err());
        session.reset();
        session.prefill(&tokens).expect("read");
        assert_eq!(go_on(&mut session, 5), expected);
    }
    // Without being cut back.
    let mut session = read(&place.model, &tokens);
    assert!(session.decode(NONE).is_err());
    assert_eq!(go_on(&mut session, 5), expected);
}

#[test]
fn who_is_served_beside_a_text_that_fails_is_answered_as_if_alone() {
    let place = with_a_hole("cpu:threads=2,isa=portable");
    let engine = |sequences| {
        let options = EngineOptions {
            sequences,
            context: 320,
            chunk: 32,
            deterministic: true,
            ..EngineOptions::default()
        };
        Engine::new(place.model.clone(), options).expect("an engine")
    };
    let prompts: Vec<Vec<i32>> = (0..6)
        .map(|index| {
            let tokens = text(3 + 29 * index, index as i32);
            tokens.into_iter().filter(|token| *token != NONE).collect()
        })
        .collect();
    let answer = |engine: &Engine, prompt: &[i32]| {
        let mut stream = engine
            .submit(greedy(prompt.to_vec(), 20))
            .expect("a stream");
        let pieces: Result<Vec<_>, Error> = stream.by_ref().collect();
        pieces
    };
    let alone: Vec<_> = prompts
        .iter()
        .map(|prompt| answer(&engine(1), prompt).ok())
        .collect();
    let together = engine(8);
    for round in 0..3 {
        let mut streams = Vec::new();
        for (index, prompt) in prompts.iter().enumerate() {
            if index % 2 == 1 {
                let mut failing = text(40 * index, 9 + round);
                failing.retain(|token| *token != NONE);
                failing.push(NONE);
                let stream = together.submit(greedy(failing, 3)).expect("a stream");
                streams.push((None, stream));
            }
            let stream = together.submit(greedy(prompt.clone(), 20));
            streams.push((Some(index), stream.expect("a stream")));
        }
        for (index, mut stream) in streams {
            let pieces: Result<Vec<_>, Error> = stream.by_ref().collect();
            match index {
                None => assert!(pieces.is_err()),
                // Its own answer may come to the token, too.
                Some(index) => assert_eq!(pieces.ok(), alone[index], "{index}"),
            }
        }
    }
    idle(&together);
}

#[test]
fn cutting_back_to_where_a_prompt_begins_and_ends_reads_nothing_again() {
    let place = hybrid();
    let mut session = read(&place.model, &text(20, 1));
    session.prefill(&text(19, 2)).expect("read");
    for token in text(3, 3) {
        session.decode(token).expect("read");
    }
    let told = Arc::new(Mutex::new(Vec::new()));
    let keep = Arc::clone(&told);
    session.set_watch(Watch {
        progress: Some(Arc::new(move |progress: Progress| {
            keep.lock().expect("nobody panics").push(progress.total);
        })),
        ..Watch::default()
    });
    for position in [39, 36, 20] {
        session.truncate(position).expect("cut back");
        assert_eq!(session.position(), position);
    }
    assert!(
        told.lock()
            .expect("nobody panics")
            .iter()
            .all(|total| *total == 0)
    );
}

#[test]
fn what_states_do_not_allow_is_refused() {
    let place = hybrid();
    let looked_up = EngineOptions {
        look_up: 3,
        ..EngineOptions::default()
    };
    let error = Engine::new(place.model.clone(), looked_up).expect_err("refused");
    assert!(error.to_string().contains("look_up must be 0"), "{error}");
    let error = fit(&place.model, &FitOptions::default()).expect_err("refused");
    assert!(error.to_string().contains("keep a state"), "{error}");
    let options = ImportanceOptions {
        context: 32,
        chunks: None,
        cancel: Default::default(),
    };
    let bytes = [b'a'; 100];
    let mut reader = TextReader::new("a text", &bytes[..]);
    let found = importance(&place.model, &mut reader, &options, &mut |_, _| {});
    let error = found.expect_err("refused");
    assert!(error.to_string().contains("keep a state"), "{error}");
}

#[test]
fn saved_states_are_of_one_model() {
    let place = hybrid();
    read(&place.model, &text(9, 1))
        .save(place.path())
        .expect("saved");
    let other = tempfile::tempdir().expect("a temporary folder");
    let other = open(&other, "model.gguf", &of_architecture("qwen3next"));
    assert!(other.restore(place.path(), Default::default()).is_err());
}
