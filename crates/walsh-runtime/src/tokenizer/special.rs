//! Finding the special tokens that lie in a text, before the text itself is put into tokens.

use std::cmp::Reverse;
use std::ops::Range;

use super::Special;
use super::vocab::{Kind, Vocab};

/// A stretch of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Ordinary text: a byte range.
    Text(Range<usize>),
    /// A special token.
    Token(u32),
}

/// The special tokens of a vocabulary.
///
/// They are found apart from the others: a user-defined token can have the text of an ordinary one.
#[derive(Debug)]
pub(super) struct SpecialTokens {
    /// The longest first.
    groups: Vec<Group>,
    /// The bytes that names of control tokens go on with, and those that they have before their last.
    later: Box<[bool; 256]>,
    earlier: Box<[bool; 256]>,
}

/// The special tokens of one length.
#[derive(Debug)]
struct Group {
    len: usize,
    /// The bytes that they start with.
    firsts: Box<[bool; 256]>,
    /// In order of their texts.
    ids: Vec<u32>,
}

impl Group {
    fn find(&self, vocab: &Vocab, text: &[u8]) -> Option<u32> {
        if !self.firsts[usize::from(*text.first()?)] {
            return None;
        }
        let at = self
            .ids
            .binary_search_by(|&id| vocab.text(id).cmp(text))
            .ok()?;
        Some(self.ids[at])
    }
}

impl SpecialTokens {
    pub(super) fn new(vocab: &Vocab) -> SpecialTokens {
        let is_special = |&id: &u32| vocab.kind(id).is_special() && !vocab.text(id).is_empty();
        let mut ids: Vec<u32> = (0..vocab.len() as u32).filter(is_special).collect();
        ids.sort_by_key(|&id| (Reverse(vocab.text(id).len()), vocab.text(id)));
        let same_len = |a: &u32, b: &u32| vocab.text(*a).len() == vocab.text(*b).len();
        let groups = ids.chunk_by(same_len).map(|ids| {
            let mut firsts = Box::new([false; 256]);
            for &id in ids {
                firsts[usize::from(vocab.text(id)[0])] = true;
            }
            Group {
                len: vocab.text(ids[0]).len(),
                firsts,
                ids: ids.to_vec(),
            }
        });
        let mut tokens = SpecialTokens {
            groups: groups.collect(),
            later: Box::new([false; 256]),
            earlier: Box::new([false; 256]),
        };
        let names: Vec<u32> = tokens.markup(vocab).collect();
        for name in names.into_iter().map(|id| vocab.text(id)) {
            for pair in name.windows(2) {
                tokens.earlier[usize::from(pair[0])] = true;
                tokens.later[usize::from(pair[1])] = true;
            }
        }
        tokens
    }

    /// Whether a text may go on with a control token's name at its start, or begin one at its end.
    pub(super) fn may_touch(&self, text: &[u8]) -> bool {
        let is = |set: &[bool; 256], byte: Option<&u8>| byte.is_some_and(|b| set[usize::from(*b)]);
        is(&self.later, text.first()) || is(&self.earlier, text.last())
    }

    /// The control tokens, and those for what has no token.
    pub(super) fn markup<'s>(&'s self, vocab: &'s Vocab) -> impl Iterator<Item = u32> + 's {
        let ids = self.groups.iter().flat_map(|group| &group.ids).copied();
        ids.filter(|&id| vocab.kind(id).is_markup())
    }

    /// Whether `text` starts with one of those.
    pub(super) fn starts_with_markup(&self, vocab: &Vocab, text: &[u8]) -> bool {
        self.groups.iter().any(|group| {
            text.get(..group.len)
                .and_then(|start| group.find(vocab, start))
                .is_some_and(|id| vocab.kind(id).is_markup())
        })
    }

    /// Cuts `text` at its special tokens. A longer token wins over a shorter one wherever they overlap,
    /// of the same length the one that starts first. Control tokens count only when they are to be parsed,
    /// and not right after `marker`.
    pub(super) fn cut(
        &self,
        vocab: &Vocab,
        text: &[u8],
        special: Special,
        marker: Option<&[u8]>,
    ) -> Vec<Part> {
        let marked = |at: usize| marker.is_some_and(|marker| text[..at].ends_with(marker));
        let wanted =
            |kind: Kind, at: usize| !kind.is_markup() || special == Special::Parse && !marked(at);
        let mut parts = Vec::new();
        if !text.is_empty() {
            parts.push(Part::Text(0..text.len()));
        }
        for group in &self.groups {
            let len = group.len;
            // The parts between the tokens found so far; they only ever get cut further.
            let mut at = 0;
            while at < parts.len() {
                let Part::Text(range) = parts[at].clone() else {
                    at += 1;
                    continue;
                };
                let mut found = Vec::new();
                let mut start = range.start;
                let mut from = range.start;
                while from + len <= range.end {
                    let id = group.find(vocab, &text[from..from + len]);
                    match id.filter(|&id| wanted(vocab.kind(id), from)) {
                        Some(id) => {
                            if start < from {
                                found.push(Part::Text(start..from));
                            }
                            found.push(Part::Token(id));
                            from += len;
                            start = from;
                        }
                        None => from += 1,
                    }
                }
                if found.is_empty() {
                    at += 1;
                    continue;
                }
                if start < range.end {
                    found.push(Part::Text(start..range.end));
                }
                let count = found.len();
                parts.splice(at..=at, found);
                at += count;
            }
        }
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longer_tokens_win_and_control_tokens_can_stay_text() {
        let mut vocab = Vocab::with_capacity(4);
        for (text, kind) in [
            (&b"<a>"[..], Kind::Control),
            (b"<a><b>", Kind::Control),
            (b"\n\n", Kind::UserDefined),
            (b"x", Kind::Normal),
            (b"", Kind::Control),
        ] {
            vocab.push(text, kind).unwrap();
        }
        let tokens = SpecialTokens::new(&vocab);
        let cut = |text: &str, special| tokens.cut(&vocab, text.as_bytes(), special, None);
        assert_eq!(cut("", Special::Parse), []);
        assert_eq!(cut("x<a", Special::Parse), [Part::Text(0..3)]);
        assert_eq!(
            cut("<a><a><b>x\n\n\n", Special::Parse),
            [
                Part::Token(0),
                Part::Token(1),
                Part::Text(9..10),
                Part::Token(2),
                Part::Text(12..13)
            ]
        );
        assert_eq!(
            cut("<a>\n\n", Special::Text),
            [Part::Text(0..3), Part::Token(2)]
        );
    }
}
