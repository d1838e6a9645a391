//! Beginnings that texts have in common: read once, and gone on from to the bit.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use walsh_runtime::{Engine, EngineOptions, Figures, Finish, Model, Piece, Request, Stream};

use super::engine::{all, greedy, idle, options, place, places};
use super::text;
use crate::tiny::Tiny;

const SPECS: [&str; 4] = ["f16", "tq4", "4bit", "tq4;first=2;recent=5"];

fn ask(engine: &Engine, request: &Request) -> (Vec<Piece>, Figures) {
    let mut stream = engine.submit(request.clone()).expect("a stream");
    let pieces = stream.by_ref().map(|piece| piece.expect("a piece"));
    (pieces.collect(), *stream.figures().expect("an end"))
}

/// A document, and a question about it of 20 tokens.
fn about(document: &[i32], question: i32) -> Request {
    let mut prompt = document.to_vec();
    prompt.extend(text(20, 1000 + question));
    greedy(prompt, 12)
}

/// As an engine answers that keeps nothing.
fn anew(model: &Model, options: &EngineOptions, request: &Request) -> Vec<Piece> {
    let options = EngineOptions {
        keep_prefixes: false,
        ..options.clone()
    };
    ask(
        &Engine::new(model.clone(), options).expect("an engine"),
        request,
    )
    .0
}

#[test]
fn a_document_is_read_once() {
    for (_folder, model) in places() {
        for kv in SPECS {
            let options = EngineOptions {
                chunk: 64,
                ..options(kv, 12)
            };
            let engine = Engine::new(model.clone(), options.clone()).expect("an engine");
            // It ends within a page and within a chunk.
            let document = text(150, 1);
            for question in 0..4 {
                let request = Request {
                    checkpoints: vec![150, 9999],
                    ..about(&document, question)
                };
                let (pieces, figures) = ask(&engine, &request);
                assert_eq!(
                    figures.reused_tokens,
                    if question == 0 { 0 } else { 150 },
                    "{kv}"
                );
                assert_eq!(pieces, anew(&model, &options, &request), "{kv} {question}");
            }
            // The first has left all of its prompt behind; one token at least is read.
            let again = Request {
                checkpoints: vec![150],
                ..about(&document, 0)
            };
            assert_eq!(ask(&engine, &again).1.reused_tokens, 150);
            idle(&engine);
            let status = engine.status();
            assert!(
                status.pages_kept > 0 && status.reused == 4 * 150,
                "{status:?}"
            );
        }
    }
}

#[test]
fn texts_that_part_anywhere_read_less_than_a_chunk_again() {
    for (_folder, model) in places() {
        for kv in SPECS {
            for deterministic in [true, false] {
                let options = EngineOptions {
                    deterministic,
                    ..options(kv, 40)
                };
                let engine = Engine::new(model.clone(), options.clone()).expect("an engine");
                let document = text(230, 7);
                ask(&engine, &about(&document, 0));
                for (question, parting) in [40, 63, 64, 65, 128, 199, 229].into_iter().enumerate() {
                    let request = about(&document[..parting], question as i32 + 1);
                    let (pieces, figures) = ask(&engine, &request);
                    assert_eq!(figures.reused_tokens, parting / 32 * 32, "{kv} {parting}");
                    // The calls are those of a text that was read alone, but for a call that ends where they part.
                    if deterministic {
                        assert_eq!(pieces, anew(&model, &options, &request), "{kv} {parting}");
                    }
                }
            }
        }
    }
}

#[test]
fn where_texts_were_seen_to_part_the_next_goes_on() {
    let (_folder, model) = place(&Tiny::default());
    let options = EngineOptions {
        chunk: 64,
        ..options("4bit", 12)
    };
    let engine = Engine::new(model.clone(), options.clone()).expect("an engine");
    let document = text(115, 3);
    let reused: Vec<usize> = (0..4)
        .map(|question| ask(&engine, &about(&document, question)).1.reused_tokens)
        .collect();
    assert_eq!(reused, [0, 64, 115, 115]);
    let marked = Request {
        checkpoints: vec![115],
        ..about(&document, 3)
    };
    let (pieces, _) = ask(&engine, &about(&document, 3));
    assert_eq!(pieces, anew(&model, &options, &marked));
}

#[test]
fn a_conversation_goes_on_from_what_was_generated() {
    for (kv, within) in [("f16", true), ("4bit", false)] {
        let (_folder, model) = place(&Tiny::default());
        let mut options = EngineOptions {
            chunk: 64,
            ..options(kv, 12)
        };
        let first = greedy(text(70, 5), 30);
        let engine = Engine::new(model.clone(), options.clone()).expect("an engine");
        let answer: Vec<i32> = ask(&engine, &first)
            .0
            .iter()
            .filter_map(|p| p.token)
            .collect();
        assert_eq!(answer.len(), 30);
        let mut second = first.clone();
        second.prompt.extend(&answer);
        second.prompt.extend(text(20, 6));
        let (pieces, figures) = ask(&engine, &second);
        // The last of the answer was chosen, and not read.
        assert_eq!(figures.reused_tokens, 70 + 29);
        // The same calls in a session.
        let mut session = model
            .session(walsh_runtime::SessionOptions {
                context: options.context,
                kv: options.kv.clone(),
                chunk: options.chunk,
                scored: 1,
            })
            .expect("a session");
        session.prefill(&second.prompt[..70]).expect("read");
        for token in &answer[..29] {
            session.decode(*token).expect("read");
        }
        session.prefill(&second.prompt[99..]).expect("read");
        let logits = session.logits();
        let best = (0..logits.len())
            .rev()
            .max_by(|a, b| logits[*a].total_cmp(&logits[*b]));
        assert_eq!(pieces[0].token, best.map(|token| token as i32), "{kv}");
        // In the midst of an answer it goes on where pages alone say it all.
        let mut other = first.clone();
        other.prompt.extend(&answer[..11]);
        other.prompt.extend(text(9, 8));
        let found = ask(&engine, &other).1.reused_tokens;
        assert_eq!(found, if within { 81 } else { 70 }, "{kv}");
        // Who wants the bits of a prompt that is read at once has them.
        options.deterministic = true;
        let exact = Engine::new(model.clone(), options.clone()).expect("an engine");
        ask(&exact, &first);
        let (pieces, figures) = ask(&exact, &second);
        assert_eq!(figures.reused_tokens, 64);
        assert_eq!(pieces, anew(&model, &options, &second));
    }
}

#[test]
fn nobody_goes_on_from_what_has_another_salt() {
    let (_folder, model) = place(&Tiny::default());
    let engine = Engine::new(model, options("tq4", 30)).expect("an engine");
    let salted = |salt: Option<&str>| Request {
        salt: salt.map(String::from),
        ..about(&text(96, 2), 1)
    };
    for salt in [None, Some("a"), Some("b")] {
        assert_eq!(ask(&engine, &salted(salt)).1.reused_tokens, 0, "{salt:?}");
    }
    for salt in [None, Some("a"), Some("b")] {
        assert_eq!(ask(&engine, &salted(salt)).1.reused_tokens, 96, "{salt:?}");
    }
}

/// Numbers without a pattern, from a seed.
pub(super) struct Lots(pub(super) u64);

impl Lots {
    pub(super) fn below(&mut self, most: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % most
    }
}

/// The least memory that holds one text of the context's length.
pub(super) fn least_memory(model: &Model, options: &EngineOptions) -> u64 {
    let holds = |kv_memory: u64| {
        let options = EngineOptions {
            kv_memory,
            ..options.clone()
        };
        Engine::new(model.clone(), options).is_ok()
    };
    let (mut too_little, mut enough) = (1, 1 << 26);
    while enough - too_little > 1 {
        let middle = u64::midpoint(too_little, enough);
        match holds(middle) {
            true => enough = middle,
            false => too_little = middle,
        }
    }
    enough
}

/// One of a thousand: about one of a few documents, or about none.
pub(super) fn any_request(lots: &mut Lots, documents: &[Vec<i32>]) -> Request {
    let document = &documents[lots.below(documents.len())];
    let length = document.len() / 5 * lots.below(5);
    let mut prompt = document[..length].to_vec();
    prompt.extend(text(1 + lots.below(40), lots.below(6) as i32));
    Request {
        checkpoints: [vec![length], Vec::new()][lots.below(2)].clone(),
        salt: [None, None, Some("a".into())][lots.below(3)].clone(),
        priority: lots.below(3) as i32,
        ..greedy(prompt, 1 + lots.below(30))
    }
}

#[test]
fn a_thousand_that_come_and_go_are_answered_as_they_would_be_alone() {
    for ((_folder, model), kv) in
        places()
            .into_iter()
            .zip(["f16", "tq4;first=2;recent=5", "f16", "f16"])
    {
        let mut lots = Lots(9);
        let documents: Vec<Vec<i32>> = (0..3).map(|seed| text(160, seed)).collect();
        let mut options = EngineOptions {
            deterministic: true,
            ..options(kv, 8)
        };
        options.kv_memory = least_memory(&model, &options) * 2;
        let alone = EngineOptions {
            keep_prefixes: false,
            kv_memory: 0,
            sequences: 1,
            ..options.clone()
        };
        let alone = Engine::new(model.clone(), alone).expect("an engine");
        let engine = Engine::new(model, options).expect("an engine");
        let mut asked: Vec<(Request, Stream, usize)> = Vec::new();
        for number in 0..500 {
            let mut request = any_request(&mut lots, &documents);
            if number % 11 == 0 {
                request.deadline =
                    Some(Instant::now() + Duration::from_millis(lots.below(40) as u64));
            }
            let stream = engine.submit(request.clone()).expect("a stream");
            asked.push((request, stream, number));
            // Some are cancelled, some go away.
            if lots.below(8) == 0 {
                let place = lots.below(asked.len());
                match lots.below(4) {
                    0 => drop(asked.swap_remove(place)),
                    _ => asked[place].1.cancel(),
                }
            }
            if asked.len() == 100 {
                asked.drain(..).for_each(|asked| hear(&alone, asked));
            }
        }
        for asked in asked {
            hear(&alone, asked);
        }
        idle(&engine);
        let status = engine.status();
        assert!(status.reused > 1000, "{status:?}");
    }
}

/// Whoever was not ended early has what it has alone; else the beginning of it.
fn hear(alone: &Engine, (request, stream, number): (Request, Stream, usize)) {
    let request = Request {
        deadline: None,
        ..request
    };
    let (pieces, finish) = all(stream);
    let (expected, _) = ask(alone, &request);
    let heard: Vec<_> = pieces
        .iter()
        .filter(|piece| piece.token.is_some())
        .collect();
    let whole: Vec<_> = expected
        .iter()
        .filter(|piece| piece.token.is_some())
        .collect();
    match finish {
        Some(Finish::Cancelled) => assert_eq!(heard, whole[..heard.len()], "{number}"),
        _ => assert_eq!(heard, whole, "{number}"),
    }
}

#[test]
fn no_salt_makes_one_text_of_another() {
    let (_place, model) = place(&Tiny::default());
    let folder = tempfile::tempdir().expect("a temporary folder");
    let options = EngineOptions {
        prefix_folder: Some(folder.path().to_owned()),
        ..options("f16", 2)
    };
    let tokens = |start: i32| (start..start + 32).collect::<Vec<i32>>();
    let (first, second) = (tokens(1), tokens(64));
    let engine = Engine::new(model.clone(), options.clone()).expect("an engine");
    ask(&engine, &greedy([&first[..], &second, &[7]].concat(), 1));
    drop(engine);
    // What the second call adds to the first, as a salt: its length, its tokens, and that there is none.
    let mut imitated = 32u64.to_le_bytes().to_vec();
    imitated.extend(second.iter().flat_map(|token| token.to_le_bytes()));
    imitated.push(0);
    let request = Request {
        salt: Some(String::from_utf8(imitated).expect("a text")),
        ..greedy([&first[..], &[7]].concat(), 8)
    };
    let engine = Engine::new(model.clone(), options.clone()).expect("an engine");
    let (pieces, figures) = ask(&engine, &request);
    assert_eq!(figures.reused_tokens, 0);
    let none = EngineOptions {
        prefix_folder: None,
        ..options
    };
    assert_eq!(pieces, anew(&model, &none, &request));
}

/// All files below a folder's folders.
fn files(folder: &Path) -> Vec<PathBuf> {
    let inside = |folder: &Path| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(folder).expect("a folder");
        entries
            .map(|entry| entry.expect("an entry").path())
            .collect()
    };
    let stores = inside(folder).into_iter().filter(|path| path.is_dir());
    stores.flat_map(|store| inside(&store)).collect()
}

#[test]
fn what_was_read_is_found_after_a_restart() {
    for (_folder, model) in places() {
        for kv in SPECS {
            let folder = tempfile::tempdir().expect("a temporary folder");
            let options = EngineOptions {
                prefix_folder: Some(folder.path().join("made")),
                ..options(kv, 12)
            };
            let document = text(150, 1);
            let request = |question| Request {
                checkpoints: vec![150],
                ..about(&document, question)
            };
            let start = |options: &EngineOptions| {
                Engine::new(model.clone(), options.clone()).expect("an engine")
            };
            assert_eq!(ask(&start(&options), &request(0)).1.reused_tokens, 0);
            let none = EngineOptions {
                prefix_folder: None,
                ..options.clone()
            };
            for question in [1, 2] {
                let engine = start(&options);
                let (pieces, figures) = ask(&engine, &request(question));
                assert_eq!(figures.reused_tokens, 150, "{kv}");
                assert_eq!(pieces, anew(&model, &none, &request(question)), "{kv}");
                assert_eq!(engine.folder_trouble(), None);
            }
            // Nobody else's: another SPEC, another salt.
            let other = EngineOptions {
                kv: "tq6".parse().expect("a SPEC"),
                ..options.clone()
            };
            assert_eq!(ask(&start(&other), &request(0)).1.reused_tokens, 0);
            let salted = Request {
                salt: Some("mine".into()),
                ..request(0)
            };
            assert_eq!(ask(&start(&options), &salted).1.reused_tokens, 0);
            assert_eq!(ask(&start(&options), &salted).1.reused_tokens, 150);
        }
    }
}

#[test]
fn a_damaged_folder_costs_time_and_nothing_else() {
    let (_place, model) = place(&Tiny::default());
    let folder = tempfile::tempdir().expect("a temporary folder");
    let options = EngineOptions {
        prefix_folder: Some(folder.path().to_owned()),
        ..options("tq4", 12)
    };
    let start = |options: &EngineOptions| Engine::new(model.clone(), options.clone());
    let request = about(&text(150, 1), 0);
    let expected = ask(&start(&options).expect("an engine"), &request);
    let written = files(folder.path());
    // The last call of the prompt is one of them.
    assert_eq!(written.len(), 6);
    let foreign = folder.path().join("notes.txt");
    std::fs::write(&foreign, "mine").expect("written");
    type Damage<'a> = &'a dyn Fn(&Path, Vec<u8>);
    let damage: [Damage; 3] = [
        &|path, bytes| std::fs::write(path, &bytes[..bytes.len() / 2]).expect("written"),
        &|path, mut bytes| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            std::fs::write(path, bytes).expect("written");
        },
        // Another call's.
        &|path, _| assert!(std::fs::copy(&written[0], path).is_ok()),
    ];
    for damage in damage {
        let whole: Vec<Vec<u8>> = written
            .iter()
            .map(|path| std::fs::read(path).expect("read"))
            .collect();
        for (path, bytes) in written.iter().zip(&whole).skip(1) {
            damage(path, bytes.clone());
        }
        let engine = start(&options).expect("an engine");
        let (pieces, figures) = ask(&engine, &request);
        assert_eq!(pieces, expected.0);
        assert!(figures.reused_tokens < 150);
        let trouble = engine.folder_trouble().expect("a trouble");
        assert!(trouble.contains(".walsh"), "{trouble}");
        drop(engine);
        // It was written anew.
        for (path, bytes) in written.iter().zip(&whole) {
            assert_eq!(&std::fs::read(path).expect("read"), bytes);
        }
    }
    // A bound is kept to, and what is somebody else's stays.
    let bound = EngineOptions {
        prefix_folder_bytes: 100_000,
        ..options.clone()
    };
    let engine = start(&bound).expect("an engine");
    for document in 0..6 {
        ask(&engine, &about(&text(150, 20 + document), 0));
    }
    drop(engine);
    let size = |path: &PathBuf| std::fs::metadata(path).expect("a file").len();
    let left: u64 = files(folder.path()).iter().map(size).sum();
    assert!((1..=100_000).contains(&left), "{left}");
    assert_eq!(std::fs::read_to_string(&foreign).expect("read"), "mine");
    // What cannot be a folder is refused before anything is served.
    let refused = EngineOptions {
        prefix_folder: Some(foreign),
        ..options
    };
    let error = start(&refused).expect_err("a refusal").to_string();
    assert!(error.contains("notes.txt"), "{error}");
}
