//! The metadata of a tokenizer: every key under `tokenizer.ggml.` is read, known to change no token of
//! the vocabularies that are supported, or refused.

use walsh::formats::gguf::{Metadata, Value};

use crate::error::{Error, Result};

const PREFIX: &str = "tokenizer.ggml.";

/// Keys that are read, and keys that say nothing of byte pairs and SentencePiece: numbers of token types
/// and separators are for other kinds. All that end in `_token_id` name single tokens.
const KNOWN: [&str; 11] = [
    "model",
    "pre",
    "tokens",
    "token_type",
    "token_type_count",
    "scores",
    "merges",
    "add_bos_token",
    "add_eos_token",
    "add_sep_token",
    "add_space_prefix",
];

/// Refuses what would change tokens and is not done here: white space taken out, letters made small,
/// accents left out, characters replaced by a table, tokens that are never to be chosen, and keys that
/// are not known. Each is accepted where it says that nothing is to be done.
///
/// # Errors
/// Names the first such key.
pub(super) fn check(meta: &Metadata<'_>) -> Result<()> {
    for (key, value) in meta.iter() {
        let Some(name) = key.strip_prefix(PREFIX) else {
            continue;
        };
        if KNOWN.contains(&name) || name.ends_with("_token_id") || is_nothing(value) {
            continue;
        }
        return Err(Error::tokenizer(format!(
            "{key} is not supported, and may change tokens: use a model without it"
        )));
    }
    Ok(())
}

fn is_nothing(value: &Value<'_>) -> bool {
    match value {
        Value::Bool(on) => !on,
        Value::Array(array) => array.is_empty(),
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}
