//! Keeping the names of control tokens in a message text, in a prompt whose template writes control
//! tokens.
//!
//! A template is a program, and the text that it makes does not say which part of it comes from where.
//! So a character that occurs nowhere else, the *marker*, is put into the messages before a template sees
//! them: wherever a control token could be read, from there on or across a message's end. No control
//! token is found right after a marker or around one. User-defined tokens are found in any text, in a
//! message too.

use std::borrow::Cow;

use super::{Special, Tokenizer};
use crate::error::Result;

impl Tokenizer {
    /// Whether the name of a control token is in a text.
    pub(crate) fn names_control(&self, text: &str) -> bool {
        let bytes = text.as_bytes();
        (0..bytes.len()).any(|at| self.special.starts_with_markup(&self.vocab, &bytes[at..]))
    }

    /// `content` with `marker` wherever a control token would be read that it writes, or a part of;
    /// `None` where there is nothing to mark.
    ///
    /// Ends count as they are and without white space, as many templates trim what is said.
    pub(crate) fn mark(&self, content: &str, marker: char) -> Option<String> {
        let mut at: Vec<usize> = content
            .char_indices()
            .map(|(at, _)| at)
            .filter(|&at| {
                self.special
                    .starts_with_markup(&self.vocab, &content.as_bytes()[at..])
            })
            .collect();
        let trimmed = content.trim();
        let start = content.len() - content.trim_start().len();
        for (start, text) in [
            (0, content),
            (start, content.trim_start()),
            (0, content.trim_end()),
            (start, trimmed),
        ] {
            self.mark_ends(start, text, &mut at);
        }
        if at.is_empty() {
            return None;
        }
        at.sort_unstable();
        at.dedup();
        let mut marked = String::with_capacity(content.len() + at.len() * marker.len_utf8());
        let mut done = 0;
        for at in at {
            marked.push_str(&content[done..at]);
            marked.push(marker);
            done = at;
        }
        marked.push_str(&content[done..]);
        Some(marked)
    }

    /// Adds where to mark `text`, which starts at `start`, so that it neither completes a control token
    /// that was begun before it nor begins one that is completed after it.
    fn mark_ends(&self, start: usize, text: &str, at: &mut Vec<usize>) {
        let bytes = text.as_bytes();
        if bytes.is_empty() || !self.special.may_touch(bytes) {
            return;
        }
        for id in self.special.markup(&self.vocab) {
            let name = self.vocab.text(id);
            for cut in 1..name.len() {
                let (begun, rest) = name.split_at(cut);
                if bytes.starts_with(rest) || rest.starts_with(bytes) {
                    at.push(start);
                }
                if bytes.ends_with(begun) && text.is_char_boundary(bytes.len() - cut) {
                    at.push(start + bytes.len() - cut);
                }
            }
        }
    }

    /// The tokens of a template's text, with its control tokens, after the token `previous`, where no
    /// control token is found right after `marker` or around it. The markers are no part of the text.
    pub(crate) fn encode_marked(
        &self,
        previous: Option<i32>,
        text: &str,
        marker: Option<char>,
    ) -> Result<Vec<i32>> {
        self.encode_parts(text.as_bytes(), Special::Parse, previous, marker)
    }
}

/// `text` without its markers.
pub(super) fn without<'t>(text: &'t [u8], marker: Option<&[u8]>) -> Cow<'t, [u8]> {
    let Some(marker) = marker else {
        return Cow::Borrowed(text);
    };
    let mut kept = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(&first) = rest.first() {
        match rest.strip_prefix(marker) {
            Some(after) => rest = after,
            None => {
                kept.push(first);
                rest = &rest[1..];
            }
        }
    }
    Cow::Owned(kept)
}
