//! Real vocabularies: token ids and chat templates equal to llama.cpp's.
//!
//! The models are fetched into the user's cache folder, once.

use std::fs::File;

use memmap2::Mmap;
use serde::Deserialize;
use walsh::formats::gguf::Gguf;
use walsh_runtime::Watch;
use walsh_runtime::chat::{Message, Template};
use walsh_runtime::store::{Store, StoreOptions};
use walsh_runtime::tokenizer::{Decoder, Special, Tokenizer};

/// What `tools/peer_tokens.py` writes.
#[derive(Deserialize)]
struct Golden {
    add_bos: bool,
    bos: i32,
    ends: Vec<i32>,
    parsed: Vec<Vec<i32>>,
    text: Vec<Vec<i32>>,
}

/// The model's file, which nothing changes while a test runs.
fn open(name: &str) -> Mmap {
    let store = Store::open(StoreOptions::default()).unwrap();
    let path = store
        .pull(name, &Watch::default(), &mut |_| {})
        .unwrap_or_else(|error| {
            panic!("this test needs the model {name}, which cannot be fetched: {error}")
        });
    // SAFETY: the store never writes to a file that is in place.
    unsafe { Mmap::map(&File::open(path).unwrap()).unwrap() }
}

fn hard_strings() -> Vec<Vec<u8>> {
    let strings: Vec<String> =
        serde_json::from_str(include_str!("../../../tests/data/hard_strings.json")).unwrap();
    let byte = |hex: &str, at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    let bytes = |hex: &String| (0..hex.len()).step_by(2).map(|at| byte(hex, at)).collect();
    strings.iter().map(bytes).collect()
}

fn check(name: &str, golden: &str) -> Tokenizer {
    let file = open(name);
    let golden: Golden = serde_json::from_str(golden).unwrap();
    let tokenizer = Tokenizer::from_gguf(&Gguf::parse(&file).unwrap()).unwrap();
    assert_eq!(tokenizer.add_bos(), golden.add_bos);
    assert_eq!(tokenizer.bos(), Some(golden.bos));
    let ids = 0..tokenizer.vocab_size() as i32;
    let ends: Vec<i32> = ids.filter(|&id| tokenizer.is_end(id)).collect();
    assert_eq!(ends, golden.ends);
    let strings = hard_strings();
    assert_eq!(strings.len(), golden.parsed.len());
    for (at, text) in strings.iter().enumerate() {
        let shown = String::from_utf8_lossy(text);
        let parsed = tokenizer.encode_bytes(text, Special::Parse).unwrap();
        assert_eq!(
            parsed, golden.parsed[at],
            "{at}: {shown:?}, special tokens parsed"
        );
        let plain = tokenizer.encode_bytes(text, Special::Text).unwrap();
        assert_eq!(
            plain, golden.text[at],
            "{at}: {shown:?}, special tokens as text"
        );

        // Text without control tokens comes back as it was, in one go and token by token. SentencePiece
        // cannot tell its sign for a space, U+2581, from a space.
        let control = plain.iter().any(|&id| tokenizer.is_control(id));
        if std::str::from_utf8(text).is_ok() && !control && !shown.contains('\u{2581}') {
            assert_eq!(tokenizer.decode(&plain), shown, "{at}");
            let mut decoder = Decoder::new();
            let mut streamed = String::new();
            for &id in &plain {
                let piece = decoder.push(&tokenizer, id);
                assert!(
                    !piece.contains('\u{fffd}') || shown.contains('\u{fffd}'),
                    "{at}: {piece:?}"
                );
                streamed.push_str(&piece);
            }
            streamed.push_str(&decoder.finish());
            assert_eq!(streamed, shown, "{at}");
        }
    }
    tokenizer
}

#[test]
fn smollm2_tokens_are_llama_cpps() {
    let golden = include_str!("../../../tests/golden/tokens-smollm2-135m.json");
    let tokenizer = check("smollm2-135m", golden);
    let prompt = |text| tokenizer.encode_prompt(text, Special::Parse).unwrap();
    assert_eq!(
        prompt("The capital of France is"),
        [504, 3575, 282, 4649, 314]
    );
    assert_eq!(tokenizer.token("<|im_end|>"), Some(2));
    assert_eq!(tokenizer.decode(&[1, 504, 2]), "The");
    assert_eq!(tokenizer.token_bytes(2).as_ref(), b"<|im_end|>");
    assert_eq!(tokenizer.token_bytes(-1).as_ref(), b"");
    assert_eq!(tokenizer.token_bytes(1 << 30).as_ref(), b"");
}

#[test]
fn gemma3_tokens_are_llama_cpps() {
    let golden = include_str!("../../../tests/golden/tokens-gemma3-270m.json");
    let tokenizer = check("gemma3-270m", golden);
    let prompt = |text| tokenizer.encode_prompt(text, Special::Parse).unwrap();
    assert_eq!(
        prompt("The capital of France is"),
        [2, 818, 5279, 529, 7001, 563]
    );
    assert_eq!(prompt(""), [2]);

    // Half a character is held back until the text ends.
    let bytes = tokenizer
        .encode_bytes(&[0xe2, 0x82], Special::Text)
        .unwrap();
    let mut decoder = Decoder::new();
    for id in bytes {
        assert_eq!(decoder.push(&tokenizer, id), "");
    }
    assert_eq!(decoder.finish(), "\u{fffd}");
    assert_eq!(decoder.finish(), "");
}

#[test]
fn the_chat_template_renders_like_jinja() {
    #[derive(Deserialize)]
    struct Talk {
        messages: Vec<Line>,
        add_generation_prompt: bool,
        text: String,
    }
    #[derive(Deserialize)]
    struct Line {
        role: String,
        content: String,
    }
    let file = open("smollm2-135m");
    let gguf = Gguf::parse(&file).unwrap();
    let tokenizer = Tokenizer::from_gguf(&gguf).unwrap();
    let template = Template::from_gguf(&gguf, &tokenizer).unwrap();
    let golden = include_str!("../../../tests/golden/chat-smollm2-135m.json");
    let talks: Vec<Talk> = serde_json::from_str(golden).unwrap();
    assert_eq!(talks.len(), 8);
    for talk in talks {
        let lines = talk.messages.into_iter();
        let messages: Vec<Message> = lines
            .map(|line| Message {
                role: line.role,
                content: line.content,
            })
            .collect();
        let text = template
            .render(&messages, talk.add_generation_prompt)
            .unwrap();
        assert_eq!(text, talk.text);
    }
}

#[test]
fn a_base_model_has_no_chat_template() {
    let file = open("gemma3-270m");
    let gguf = Gguf::parse(&file).unwrap();
    let tokenizer = Tokenizer::from_gguf(&gguf).unwrap();
    let error = Template::from_gguf(&gguf, &tokenizer)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("has none") && !error.contains('\n'),
        "{error}"
    );
}
