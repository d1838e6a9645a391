//! Compares a vocabulary's token ids with those that `tools/peer_tokens.py` wrote.
//!
//! usage: check_tokens MODEL.gguf TOKENS.json HARD_STRINGS.json

use std::time::Instant;

use walsh_formats::gguf::Gguf;
use walsh_runtime::tokenizer::{Special, Tokenizer};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [model, tokens, strings, ..] = args.as_slice() else {
        return Err("usage: check_tokens MODEL.gguf TOKENS.json HARD_STRINGS.json".into());
    };
    let bytes = std::fs::read(model)?;
    let gguf = Gguf::parse(&bytes)?;
    let start = Instant::now();
    let tokenizer = Tokenizer::from_gguf(&gguf)?;
    println!(
        "{} tokens loaded in {:?}",
        tokenizer.vocab_size(),
        start.elapsed()
    );
    let expected: serde_json::Value = serde_json::from_slice(&std::fs::read(tokens)?)?;
    let strings: Vec<String> = serde_json::from_slice(&std::fs::read(strings)?)?;
    let mut wrong = 0;
    for (index, hex) in strings.iter().enumerate() {
        let text = (0..hex.len() / 2)
            .map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16))
            .collect::<Result<Vec<u8>, _>>()?;
        for (special, name) in [(Special::Parse, "parsed"), (Special::Text, "text")] {
            let ids = tokenizer.encode_bytes(&text, special)?;
            let theirs: Vec<i32> = serde_json::from_value(expected[name][index].clone())?;
            if ids != theirs {
                wrong += 1;
                let shown = String::from_utf8_lossy(&text);
                println!("{index} {name} {shown:?}\n  ours   {ids:?}\n  theirs {theirs:?}");
            }
        }
    }
    let ends: Vec<i32> = serde_json::from_value(expected["ends"].clone())?;
    let ours: Vec<i32> = (0..tokenizer.vocab_size() as i32)
        .filter(|&id| tokenizer.is_end(id))
        .collect();
    println!(
        "{wrong} of {} differ; ends {ours:?} and {ends:?}",
        2 * strings.len()
    );
    println!(
        "add_bos {} and {}, bos {:?} and {}",
        tokenizer.add_bos(),
        expected["add_bos"],
        tokenizer.bos(),
        expected["bos"]
    );
    if let Some(path) = args.get(3) {
        let text = std::fs::read_to_string(path)?;
        let start = Instant::now();
        let ids = tokenizer.encode(&text, Special::Text)?;
        println!(
            "{} bytes are {} tokens in {:?}",
            text.len(),
            ids.len(),
            start.elapsed()
        );
    }
    Ok(())
}
