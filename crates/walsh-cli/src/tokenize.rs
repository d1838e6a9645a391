//! `walsh tokenize`.

use serde_json::{Value, json};
use walsh_runtime::Model;
use walsh_runtime::tokenizer::{Decoder, Special, Tokenizer};

use crate::args::Tokenize;
use crate::failure::{Failure, Outcome};
use crate::output::{self, Notes};
use crate::{input, interrupt, models};

pub(crate) fn run(args: &Tokenize) -> Outcome {
    let text = input::text(args.text.as_deref(), &args.input)?.ok_or_else(|| {
        Failure::Usage(
            "there is no text: give TEXT, --prompt TEXT or --file FILE, or - to read standard input"
                .to_owned(),
        )
    })?;
    let notes = Notes::for_figures(args.json);
    let path = models::resolve(
        &args.model,
        &args.cache,
        &notes,
        &interrupt::on_interrupt()?,
    )?;
    let device = walsh::open("cpu:threads=1,packing=never")?;
    let model = Model::open(&device, path)?;
    if args.decode {
        return decode(&text, model.tokenizer(), args);
    }
    encode(&text, model.tokenizer(), args)
}

fn encode(text: &str, tokenizer: &Tokenizer, args: &Tokenize) -> Outcome {
    let special = match args.special {
        true => Special::Parse,
        false => Special::Text,
    };
    let tokens = match args.no_bos {
        true => tokenizer.encode(text, special)?,
        false => tokenizer.encode_prompt(text, special)?,
    };
    if args.ids {
        let ids: Vec<String> = tokens.iter().map(ToString::to_string).collect();
        return output::print(&format!("{}\n", ids.join(" ")));
    }
    if args.json {
        let tokens: Vec<Value> = tokens
            .iter()
            .map(|&id| json!({ "id": id, "piece": piece(tokenizer, id) }))
            .collect();
        return output::print_json(&json!({ "count": tokens.len(), "tokens": tokens }));
    }
    let lines: String = tokens
        .iter()
        .map(|&id| {
            let piece = output::shown_bytes(&tokenizer.token_bytes(id));
            format!("{id:>8}  \"{piece}\"\n")
        })
        .collect();
    output::print(&lines)
}

/// A token's text, or its bytes where they are no text of their own.
fn piece(tokenizer: &Tokenizer, id: i32) -> Value {
    let bytes = tokenizer.token_bytes(id);
    match std::str::from_utf8(&bytes) {
        Ok(text) => text.into(),
        Err(_) => bytes.to_vec().into(),
    }
}

fn decode(ids: &str, tokenizer: &Tokenizer, args: &Tokenize) -> Outcome {
    let tokens = ids
        .split(|c: char| c.is_whitespace() || matches!(c, ',' | '[' | ']'))
        .filter(|word| !word.is_empty())
        .map(|word| token(word, tokenizer.vocab_size()))
        .collect::<Outcome<Vec<i32>>>()?;
    let text = match args.special {
        true => {
            let mut decoder = Decoder::showing_control();
            let mut text: String = tokens
                .iter()
                .map(|&token| decoder.push(tokenizer, token))
                .collect();
            text.push_str(&decoder.finish());
            text
        }
        false => tokenizer.decode(&tokens),
    };
    match args.json {
        true => output::print_json(&json!({ "text": text })),
        false => output::print(&format!("{text}\n")),
    }
}

fn token(word: &str, vocabulary: usize) -> Outcome<i32> {
    let id = word.parse::<i32>().ok();
    let known = id.filter(|&id| usize::try_from(id).is_ok_and(|id| id < vocabulary));
    known.ok_or_else(|| {
        Failure::Usage(format!(
            "{word:?} is no token of this model: give ids from 0 to {}, separated by spaces or commas",
            vocabulary - 1
        ))
    })
}
