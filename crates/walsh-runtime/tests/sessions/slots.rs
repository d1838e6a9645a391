//! Slots: whose they are, and their texts in files.

use std::path::Path;

use walsh_runtime::{Engine, EngineOptions, Figures, Model, Piece, Request, SlotStatus};

use super::engine::{greedy, idle, options, place, sliding};
use super::{open_on, text};
use crate::tiny::Tiny;

const SPECS: [&str; 4] = ["f16", "tq4", "4bit", "tq4;first=2;recent=5"];

/// The answer, what it took, and the slot.
fn ask(engine: &Engine, request: &Request) -> (Vec<Piece>, Figures, usize) {
    let mut stream = engine.submit(request.clone()).expect("a stream");
    let pieces = stream.by_ref().map(|piece| piece.expect("a piece"));
    let pieces = pieces.collect();
    let figures = *stream.figures().expect("an end");
    let slot = stream.slot().expect("a slot");
    idle(engine);
    (pieces, figures, slot)
}

fn start(model: &Model, options: &EngineOptions) -> Engine {
    Engine::new(model.clone(), options.clone()).expect("an engine")
}

/// A text with what was answered to it, and what is asked next.
fn next(first: &Request, answer: &[Piece]) -> Request {
    let mut prompt = first.prompt.clone();
    prompt.extend(answer.iter().filter_map(|piece| piece.token));
    prompt.extend(text(20, 9));
    greedy(prompt, 12)
}

#[test]
fn a_saved_text_is_gone_on_from_to_the_bit() {
    for tiny in [Tiny::default(), sliding()] {
        let (folder, model) = place(&tiny);
        for kv in SPECS {
            for deterministic in [false, true] {
                let options = EngineOptions {
                    deterministic,
                    ..options(kv, 12)
                };
                let path = folder.path().join("a.slot");
                let salted = |request| Request {
                    salt: Some("mine".into()),
                    ..request
                };
                let first = salted(Request {
                    checkpoints: vec![100],
                    ..greedy(text(150, 1), 30)
                });
                let engine = start(&model, &options);
                let (answer, _, slot) = ask(&engine, &first);
                let saved = engine.save_slot(slot, &path).expect("saved");
                // The last token was chosen, and not read.
                assert_eq!(saved.tokens, 150 + 29);
                assert_eq!(saved.bytes, std::fs::metadata(&path).expect("a file").len());
                let second = salted(next(&first, &answer));
                let expected = ask(&engine, &second);
                drop(engine);

                let engine = start(&model, &options);
                assert_eq!(engine.restore_slot(7, &path).expect("restored"), saved);
                assert_eq!(
                    engine.slots()[7],
                    SlotStatus {
                        request: None,
                        tokens: saved.tokens
                    }
                );
                let (pieces, figures, slot) = ask(&engine, &second);
                assert_eq!(pieces, expected.0, "{kv}");
                // Layers with a window have of a text what a token behind its end sees.
                let window = tiny.window.is_some();
                let reused = match (deterministic, window) {
                    (true, true) => 0,
                    (true, false) => 96,
                    (false, _) => 179,
                };
                assert_eq!(figures.reused_tokens, reused, "{kv}");
                // The conversation stays where it is.
                assert_eq!(slot, 7);
                // What others parted at is kept, too.
                let part = salted(Request {
                    checkpoints: vec![100],
                    ..greedy([text(100, 1), text(9, 4)].concat(), 4)
                });
                let reused = ask(&engine, &part).1.reused_tokens;
                assert!(window || reused == 100, "{kv} {reused}");
                // Nobody else's salt finds it.
                let foreign = Request {
                    salt: None,
                    ..second.clone()
                };
                assert_eq!(ask(&engine, &foreign).1.reused_tokens, 0, "{kv}");
            }
        }
    }
}

#[test]
fn a_text_that_is_erased_is_read_again_and_its_beginning_stays_for_others() {
    let (folder, model) = place(&Tiny::default());
    let engine = start(&model, &options("f16", 4));
    let document = text(128, 3);
    let about = |seed| greedy([&document[..], &text(20, seed)].concat(), 4);
    let slots = [ask(&engine, &about(1)).2, ask(&engine, &about(2)).2];
    assert_ne!(slots[0], slots[1]);
    let kept = engine.status().pages_kept;
    // 20 tokens of its question and 3 of the answer.
    assert_eq!(engine.erase_slot(slots[0]).expect("erased"), 23);
    assert_eq!(engine.slots()[slots[0]].tokens, 0);
    assert!(engine.status().pages_kept < kept);
    let nothing = engine.save_slot(slots[0], folder.path().join("b"));
    let nothing = nothing.expect_err("nothing to save").to_string();
    assert!(nothing.contains("holds no text"), "{nothing}");
    for (seed, reused) in [(2, 148), (1, 128)] {
        let mut longer = about(seed);
        longer.prompt.extend(text(9, 7));
        assert_eq!(ask(&engine, &longer).1.reused_tokens, reused);
    }
    assert_eq!(engine.erase_slot(3).expect("empty"), 0);
    for slot in [4, usize::MAX] {
        let none = engine.erase_slot(slot).expect_err("no slot").to_string();
        assert!(none.contains("there are 4"), "{none}");
    }
    let wrong = Request {
        slot: Some(4),
        ..about(1)
    };
    let wrong = engine.submit(wrong).expect_err("no slot").to_string();
    assert!(wrong.contains("slot"), "{wrong}");
}

#[test]
fn what_cannot_be_restored_is_refused_and_harms_nothing() {
    let (folder, model) = place(&Tiny::default());
    let options = options("tq4;first=2;recent=5", 4);
    let (path, bad) = (folder.path().join("a"), folder.path().join("bad"));
    let engine = start(&model, &options);
    let request = greedy(text(150, 1), 5);
    let (pieces, _, slot) = ask(&engine, &request);
    engine.save_slot(slot, &path).expect("saved");
    let whole = std::fs::read(&path).expect("read");
    let refuse = |engine: &Engine, path: &Path, what: &str| {
        let error = engine
            .restore_slot(0, path)
            .expect_err("refused")
            .to_string();
        assert!(error.contains(what), "{error}");
        assert!(!error.contains('\n'), "{error}");
        assert_eq!(engine.status().pages_used, 0);
    };
    let other = start(&model, &options);
    for end in (0..whole.len()).step_by(37) {
        std::fs::write(&bad, &whole[..end]).expect("written");
        refuse(&other, &bad, "bad");
    }
    for at in (0..whole.len()).step_by(29) {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        std::fs::write(&bad, bytes).expect("written");
        refuse(&other, &bad, "bad");
    }
    refuse(&other, &folder.path().join("absent"), "absent");
    refuse(&other, folder.path(), "folder");
    assert_eq!(ask(&other, &request).0, pieces);

    // Another SPEC, look-ups, a context that is too short, chunks that are too small, and nowhere to keep it.
    let with = |change: &dyn Fn(&mut EngineOptions)| {
        let mut options = options.clone();
        change(&mut options);
        start(&model, &options)
    };
    let spec = with(&|o| o.kv = "tq4;first=2;recent=6".parse().expect("a SPEC"));
    refuse(&spec, &path, "SPEC tq4");
    refuse(&with(&|o| o.look_up = 3), &path, "looked up");
    refuse(&with(&|o| o.context = 100), &path, "context of 100");
    refuse(&with(&|o| o.chunk = 16), &path, "reads 16 at once");
    refuse(&with(&|o| o.keep_prefixes = false), &path, "keeps no texts");
    // Another model, and a device that stores the same otherwise or not.
    let tiny = Tiny {
        name: "Other",
        first_norm: 2.0,
        ..Tiny::default()
    };
    let foreign = open_on("cpu:threads=1", &folder, "other.gguf", &tiny.gguf());
    refuse(&start(&foreign, &options), &path, "not with \"Other\"");
    let device = open_on(
        "cpu:threads=1",
        &folder,
        "model.gguf",
        &Tiny::default().gguf(),
    );
    let device = start(&device, &options);
    match walsh::open("cpu:threads=1")
        .expect("the processor")
        .properties()
        .to_string()
        == model.device().properties().to_string()
    {
        true => assert!(device.restore_slot(0, &path).is_ok()),
        false => refuse(&device, &path, "the device"),
    }
    // What is no file of a slot.
    std::fs::write(&bad, b"GGUF and so on, which is not what is wanted").expect("written");
    refuse(&other, &bad, "not saved by Walsh");
}

#[test]
fn a_slot_is_a_text_s_own_until_it_ends() {
    let (folder, model) = place(&Tiny::default());
    let spec = "f16".parse().expect("a SPEC");
    let page = model.kv_bytes_per_token(&spec).expect("bytes") * 64;
    let options = EngineOptions {
        kv_memory: 6 * page,
        ..options("f16", 4)
    };
    let engine = start(&model, &options);
    let mut streams: Vec<_> = (0..4)
        .map(|seed| {
            engine
                .submit(greedy(text(50, seed), 150))
                .expect("a stream")
        })
        .collect();
    // Whoever wants a slot waits for it.
    let wanted = Request {
        slot: Some(1),
        ..greedy(text(40, 8), 4)
    };
    let mut wanted = engine.submit(wanted).expect("a stream");
    let mut seen = std::collections::BTreeMap::new();
    for (number, stream) in streams.iter_mut().enumerate() {
        while stream.next().is_some() {
            let slot = stream.slot().expect("a slot");
            assert_eq!(*seen.entry(number as u64).or_insert(slot), slot);
            for (slot, status) in engine.slots().iter().enumerate() {
                if let Some(request) = status.request {
                    assert_eq!(*seen.entry(request).or_insert(slot), slot);
                }
            }
        }
    }
    assert!(engine.status().put_off > 0, "{:?}", engine.status());
    wanted.text().expect("an answer");
    assert_eq!(wanted.slot(), Some(1));
    // Saving waits for the text that has the slot.
    let long = Request {
        slot: Some(2),
        ..greedy(text(64, 11), 100)
    };
    let stream = engine.submit(long).expect("a stream");
    let saved = engine.save_slot(2, folder.path().join("c")).expect("saved");
    assert_eq!(saved.tokens, 64 + 99);
    assert!(stream.slot() == Some(2));
}
