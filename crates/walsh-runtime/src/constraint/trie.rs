//! A vocabulary by its tokens' bytes.

use llguidance::toktrie::{TokRxInfo, TokTrie};

use crate::tokenizer::Tokenizer;
use crate::{Error, Result};

/// The longest token that the trie can hold, in bytes: a longer one is not chosen under a constraint.
const LONGEST_TOKEN: usize = 1024;

/// The most bytes of all tokens, and the most tokens, that the trie can count.
const MOST_BYTES: usize = (1 << 22) - 1;

/// The tokens of text by the bytes that they add to it; those that are none behind a byte that no text has, by their
/// names, so that grammars can name them; those that end a text as its ends.
///
/// # Errors
/// When no token ends a text, or there is more than the trie can count.
pub(super) fn of(tokenizer: &Tokenizer) -> Result<TokTrie> {
    let ends: Vec<u32> = tokenizer.ends().iter().map(|id| *id as u32).collect();
    let Some(end) = ends.first() else {
        return Err(Error::constraint(
            "the model's vocabulary has no token that ends a text: use another model",
        ));
    };
    let words: Vec<Vec<u8>> = (0..tokenizer.vocab_size() as i32)
        .map(|token| word(tokenizer, token))
        .collect();
    let bytes: usize = words.iter().map(Vec::len).sum();
    if bytes.max(words.len()) > MOST_BYTES {
        return Err(Error::constraint(format!(
            "the model's vocabulary has {} tokens of {bytes} bytes, and constraints know at most {MOST_BYTES} of both: use another model",
            words.len()
        )));
    }
    let info = TokRxInfo::new(words.len() as u32, *end);
    Ok(TokTrie::from(&info, &words).with_eos_tokens(&ends))
}

/// What the trie has a token by; nothing for one that no text can have.
fn word(tokenizer: &Tokenizer, token: i32) -> Vec<u8> {
    const MARK: u8 = TokTrie::SPECIAL_TOKEN_MARKER;
    let bytes = tokenizer.token_bytes(token);
    let word = if tokenizer.is_control(token) || tokenizer.is_end(token) {
        [&[MARK], &*bytes].concat()
    } else if bytes.contains(&MARK) {
        // UTF-8 has no such byte.
        Vec::new()
    } else {
        bytes.into_owned()
    };
    match word.len() {
        ..=LONGEST_TOKEN => word,
        _ => Vec::new(),
    }
}
