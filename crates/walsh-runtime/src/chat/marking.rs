//! Keeping the names of control tokens text in all that a conversation consists of.

use super::jinja::Json;
use crate::tokenizer::Tokenizer;

/// What templates compare with words of their own.
const WORDS: [&str; 8] = [
    "role",
    "type",
    "name",
    "id",
    "tool_call_id",
    "required",
    "enum",
    "format",
];

/// Puts a marker before control tokens' names.
pub(super) struct Marking<'t> {
    tokenizer: &'t Tokenizer,
    marker: char,
    /// Whether anything was marked.
    pub(super) any: bool,
}

impl<'t> Marking<'t> {
    pub(super) fn new(tokenizer: &'t Tokenizer, marker: char) -> Self {
        Self {
            tokenizer,
            marker,
            any: false,
        }
    }

    /// A value with marks in its texts and names. Words are marked where they have a token's name in them, and not where
    /// they could be a part of one: a template that finds no `function` or `text` would take another way.
    pub(super) fn value(&mut self, value: &Json, words: bool) -> Json {
        match value {
            Json::Str(text) => Json::Str(self.text(text, words)),
            Json::List(values) => Json::List(
                values
                    .iter()
                    .map(|value| self.value(value, words))
                    .collect(),
            ),
            Json::Map(entries) => {
                let entry = |(key, value): &(String, Json)| {
                    let words = words || WORDS.contains(&key.as_str());
                    (self.text(key, true), self.value(value, words))
                };
                Json::Map(entries.iter().map(entry).collect())
            }
            other => other.clone(),
        }
    }

    fn text(&mut self, text: &str, word: bool) -> String {
        let is_word = |c: char| c.is_ascii_alphanumeric() || "_-.$".contains(c);
        if word && text.chars().all(is_word) && !self.tokenizer.names_control(text) {
            return text.to_string();
        }
        match self.tokenizer.mark(text, self.marker) {
            Some(marked) => {
                self.any = true;
                marked
            }
            None => text.to_string(),
        }
    }
}
