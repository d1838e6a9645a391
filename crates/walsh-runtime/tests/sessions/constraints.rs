//! Texts that are to have a form, alone and among others.

use serde_json::json;
use walsh_runtime::{
    Constraint, Engine, EngineOptions, Error, Finish, GenerateOptions, Model, Request, Sampling,
    SessionOptions, Stream,
};

use super::{open_on, text};
use crate::tiny::Tiny;

/// A device on which the sums of a row do not depend on how many rows there are.
const DEVICE: &str = "cpu:threads=2,isa=portable";

fn place() -> (tempfile::TempDir, Model) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let model = open_on(DEVICE, &folder, "model.gguf", &Tiny::default().gguf());
    (folder, model)
}

fn options(sequences: usize) -> EngineOptions {
    EngineOptions {
        sequences,
        chunk: 32,
        ..EngineOptions::default()
    }
}

fn constraints() -> [Option<Constraint>; 5] {
    let schema = json!({
        "type": "object",
        "properties": {
            "größe": {"type": "integer", "minimum": -7, "maximum": 120},
            "of": {"enum": ["🙂", "a\"b", null]},
        },
        "required": ["größe", "of"],
        "additionalProperties": false,
    });
    let sum = "start: term (\"+\" term)~2\nterm: /[0-9]{1,2}/ | \"(\" term \"-\" /[1-9]/ \")\"";
    [
        None,
        Some(Constraint::JsonSchema(schema.to_string())),
        Some(Constraint::Regex("[A-Z]{3}-(one|two|zwölf){2}".into())),
        None,
        Some(Constraint::Lark(sum.into())),
    ]
}

fn requests() -> Vec<Request> {
    let request = |(index, constraint): (usize, Option<Constraint>)| Request {
        max_tokens: Some(90),
        constraint,
        sampling: match index % 2 {
            0 => Sampling::greedy(),
            _ => Sampling::default(),
        },
        seed: index as u64,
        ..Request::new(text(40 + 9 * index, index as i32))
    };
    let twice = constraints().into_iter().chain(constraints());
    twice.enumerate().map(request).collect()
}

fn all(mut stream: Stream) -> (String, Option<Finish>) {
    (stream.text().expect("a text"), stream.finish())
}

/// Those that ask for a form have it, alone and among others, and the others are as they are alone.
#[test]
fn texts_with_a_form_and_without_are_served_together() {
    let (_folder, model) = place();
    let requests = requests();
    let alone: Vec<(String, Option<Finish>)> = requests
        .iter()
        .map(|request| {
            let engine = Engine::new(model.clone(), options(1)).expect("an engine");
            all(engine.submit(request.clone()).expect("a stream"))
        })
        .collect();
    for (request, (text, finish)) in requests.iter().zip(&alone) {
        let Some(constraint) = &request.constraint else {
            continue;
        };
        assert_eq!(*finish, Some(Finish::End), "{text}");
        match constraint {
            Constraint::JsonSchema(_) => {
                let value: serde_json::Value = serde_json::from_str(text).expect("JSON");
                let size = value["größe"].as_i64().expect("a number");
                assert!((-7..=120).contains(&size), "{text}");
                assert!([json!("🙂"), json!("a\"b"), json!(null)].contains(&value["of"]));
            }
            Constraint::Regex(_) => {
                let (letters, words) = text.split_once('-').expect("a hyphen");
                assert!(letters.chars().all(|c| c.is_ascii_uppercase()), "{text}");
                let rest = words.replace("zwölf", "").replace("one", "");
                assert_eq!(rest.replace("two", ""), "", "{text}");
            }
            Constraint::Lark(_) => assert_eq!(text.matches('+').count(), 2, "{text}"),
        }
    }
    // With all the memory that they need, and with so little that they give way.
    let page = model.kv_bytes_per_token(&"f16".parse().expect("a SPEC"));
    let page = page.expect("bytes") * 64;
    for kv_memory in [0, 5 * page] {
        let options = EngineOptions {
            kv_memory,
            ..options(6)
        };
        let engine = Engine::new(model.clone(), options).expect("an engine");
        let submit = |request: &Request| engine.submit(request.clone()).expect("a stream");
        let streams: Vec<Stream> = requests.iter().map(submit).collect();
        for (stream, alone) in streams.into_iter().zip(&alone) {
            assert_eq!(&all(stream), alone);
        }
        assert_eq!(engine.status().put_off > 0, kv_memory > 0);
    }
}

/// A session gives the text that the engine gives, and holds it.
#[test]
fn a_session_keeps_to_a_form_too() {
    let (_folder, model) = place();
    let engine = Engine::new(model.clone(), options(1)).expect("an engine");
    for constraint in constraints() {
        let prompt = text(30, 4);
        let request = Request {
            max_tokens: Some(60),
            sampling: Sampling::greedy(),
            constraint: constraint.clone(),
            ..Request::new(prompt.clone())
        };
        let expected = all(engine.submit(request).expect("a stream"));
        let options = GenerateOptions {
            max_tokens: Some(60),
            sampling: Sampling::greedy(),
            constraint,
            ..GenerateOptions::default()
        };
        let mut session = model.session(SessionOptions::default()).expect("a session");
        let mut generation = session.generate_from(&prompt, options).expect("begun");
        let pieces: Result<String, Error> = generation.by_ref().collect();
        assert_eq!((pieces.expect("a text"), generation.finish()), expected);
    }
}

#[test]
fn what_has_no_text_is_refused_and_nobody_else_minds() {
    let (_folder, model) = place();
    let engine = Engine::new(model.clone(), options(4)).expect("an engine");
    let other = Request {
        max_tokens: Some(40),
        ..Request::new(text(20, 1))
    };
    let alone = all(engine.submit(other.clone()).expect("a stream"));
    let running = engine.submit(other).expect("a stream");
    let with = |constraint| Request {
        constraint: Some(constraint),
        ..Request::new(text(10, 2))
    };
    let impossible = Constraint::JsonSchema(json!({"enum": []}).to_string());
    let error = engine
        .submit(with(impossible.clone()))
        .expect_err("refused");
    assert!(matches!(&error, Error::Constraint { what } if what.contains("Unsatisfiable")));
    // Biases that leave nothing of what is allowed.
    let letter = model.tokenizer().token("a").expect("a token");
    let never = Request {
        logit_bias: vec![(letter, f32::NEG_INFINITY)],
        ..with(Constraint::Regex("ba".into()))
    };
    let mut stream = engine.submit(never).expect("a stream");
    let first = stream.next().expect("a piece").expect("a piece");
    assert_eq!(first.text, "b");
    let error = stream.next().expect("an error").expect_err("an error");
    assert!(matches!(&error, Error::Constraint { what } if what.contains("leave none")));
    assert_eq!(all(running), alone);

    // A session is as it was.
    let mut session = model.session(SessionOptions::default()).expect("a session");
    session.prefill(&text(9, 1)).expect("read");
    let options = GenerateOptions {
        constraint: Some(impossible),
        ..GenerateOptions::default()
    };
    let refused = session.generate_from(&text(3, 1), options).err();
    assert!(matches!(refused, Some(Error::Constraint { .. })));
    assert_eq!(session.tokens(), text(9, 1));
}
