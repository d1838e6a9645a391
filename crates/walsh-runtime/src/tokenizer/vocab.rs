//! The vocabulary: token texts in one block of bytes, found by text through a hash table of ids.
//!
//! A map from `String` to id and its reverse would cost about 100 bytes a token; this costs the text
//! and some ten bytes, and 262,144 tokens take about 10 ms to load.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

use crate::error::{Error, Result};

/// What a token is for: the values of `tokenizer.ggml.token_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Text.
    Normal,
    /// Stands for text that has no token.
    Unknown,
    /// Steers the model; not part of the text.
    Control,
    /// Text that the model's makers added; found before anything else is split.
    UserDefined,
    /// Not in use.
    Unused,
    /// A single byte, written `<0x41>`.
    Byte,
}

impl Kind {
    /// The kind with GGUF's number `id`, if there is one; one that is undefined counts as unused.
    pub(super) fn from_gguf(id: i32) -> Option<Kind> {
        Some(match id {
            1 => Kind::Normal,
            2 => Kind::Unknown,
            3 => Kind::Control,
            4 => Kind::UserDefined,
            0 | 5 => Kind::Unused,
            6 => Kind::Byte,
            _ => return None,
        })
    }

    /// Whether such a token is looked for in a text before the text is split.
    pub(super) fn is_special(self) -> bool {
        matches!(self, Kind::Unknown | Kind::Control | Kind::UserDefined)
    }

    /// Whether such a token stays text when a text's special tokens are not to be parsed.
    pub(super) fn is_markup(self) -> bool {
        matches!(self, Kind::Unknown | Kind::Control)
    }
}

/// Tokens by id and by text. Ids are positions.
#[derive(Debug)]
pub(super) struct Vocab {
    bytes: Vec<u8>,
    ends: Vec<u32>,
    kinds: Vec<Kind>,
    by_text: HashTable<u32>,
    hasher: DefaultHashBuilder,
}

impl Vocab {
    pub(super) fn with_capacity(tokens: usize) -> Vocab {
        Vocab {
            bytes: Vec::with_capacity(tokens.saturating_mul(7)),
            ends: Vec::with_capacity(tokens),
            kinds: Vec::with_capacity(tokens),
            by_text: HashTable::with_capacity(tokens),
            hasher: DefaultHashBuilder::default(),
        }
    }

    /// Appends a token. Of two with the same text the first is the one found by text, unless the later
    /// one is ordinary text and the first is not.
    pub(super) fn push(&mut self, text: &[u8], kind: Kind) -> Result<()> {
        let id = self.ends.len();
        self.bytes.extend_from_slice(text);
        let (Ok(end), Ok(id)) = (u32::try_from(self.bytes.len()), i32::try_from(id)) else {
            return Err(Error::tokenizer(
                "the vocabulary is larger than 32-bit ids can count: use another model",
            ));
        };
        self.ends.push(end);
        self.kinds.push(kind);
        let hash = self.hasher.hash_one(text);
        let (bytes, ends, hasher) = (&self.bytes, &self.ends, &self.hasher);
        match self
            .by_text
            .find_mut(hash, |&other| span(bytes, ends, other) == text)
        {
            Some(found) => {
                if kind == Kind::Normal && self.kinds[*found as usize] != Kind::Normal {
                    *found = id as u32;
                }
            }
            None => {
                self.by_text.insert_unique(hash, id as u32, |&other| {
                    hasher.hash_one(span(bytes, ends, other))
                });
            }
        }
        Ok(())
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The text of token `id`, which must be in the vocabulary.
    pub(super) fn text(&self, id: u32) -> &[u8] {
        span(&self.bytes, &self.ends, id)
    }

    /// The kind of token `id`, which must be in the vocabulary.
    pub(super) fn kind(&self, id: u32) -> Kind {
        self.kinds[id as usize]
    }

    pub(super) fn set_kind(&mut self, id: u32, kind: Kind) {
        self.kinds[id as usize] = kind;
    }

    /// The token with this text that a text may be made of: no control token.
    pub(super) fn find_plain(&self, text: &[u8]) -> Option<u32> {
        self.find(text).filter(|&id| self.kind(id) != Kind::Control)
    }

    /// Whether [`Vocab::find_plain`] may give token `id`, which must be in the vocabulary, for this text.
    pub(super) fn is_plain(&self, id: u32, text: &[u8]) -> bool {
        self.kind(id) != Kind::Control && self.text(id) == text
    }

    /// The token with this text.
    pub(super) fn find(&self, text: &[u8]) -> Option<u32> {
        self.by_text
            .find(self.hasher.hash_one(text), |&id| self.text(id) == text)
            .copied()
    }
}

fn span<'a>(bytes: &'a [u8], ends: &[u32], id: u32) -> &'a [u8] {
    let id = id as usize;
    let start = if id == 0 { 0 } else { ends[id - 1] as usize };
    &bytes[start..ends[id] as usize]
}

/// How many bytes a character takes by its first byte, also where that byte cannot start one.
pub(super) fn char_len(first: u8) -> usize {
    match first >> 4 {
        0xf => 4,
        0xe => 3,
        0xc | 0xd => 2,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_tokens_by_text_and_prefers_ordinary_ones() {
        let mut vocab = Vocab::with_capacity(0);
        for (text, kind) in [
            (&b"<s>"[..], Kind::Control),
            (b"", Kind::Unused),
            (b"ab", Kind::Unused),
            (b"ab", Kind::Normal),
            (b"ab", Kind::Normal),
        ] {
            vocab.push(text, kind).unwrap();
        }
        assert_eq!(vocab.len(), 5);
        assert_eq!(vocab.find(b"<s>"), Some(0));
        assert_eq!(vocab.find(b"ab"), Some(3));
        assert_eq!(vocab.find(b"b"), None);
        assert_eq!(vocab.text(4), b"ab");
        assert_eq!(vocab.text(1), b"");
        for id in 0..2000 {
            vocab
                .push(format!("t{id}").as_bytes(), Kind::Normal)
                .unwrap();
        }
        for id in 0..2000u32 {
            assert_eq!(vocab.find(format!("t{id}").as_bytes()), Some(5 + id));
        }
    }
}
