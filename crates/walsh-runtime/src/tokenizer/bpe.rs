//! Byte-pair encoding by ranked merges, of bytes in GPT-2's alphabet or of characters.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

use super::pre::{Alphabet, Pre, Whole};
use super::vocab::{Vocab, char_len};
use crate::error::{Error, Result};

/// The byte that each character below U+0180 stands for, and whether it stands for one: GPT-2 writes
/// printable bytes as themselves and the others as the characters from U+0100 on.
const ALPHABET: [Option<u8>; 0x180] = {
    let mut table = [None; 0x180];
    let mut next = 0x100;
    let mut byte = 0;
    while byte < 0x100 {
        if matches!(byte as u8, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff) {
            table[byte] = Some(byte as u8);
        } else {
            table[next] = Some(byte as u8);
            next += 1;
        }
        byte += 1;
    }
    table
};

/// Replaces `bytes` by those that a token's text stands for; false where a character is not of GPT-2's
/// alphabet, as in the names of control tokens.
pub(super) fn bytes_of_text(text: &str, bytes: &mut Vec<u8>) -> bool {
    bytes.clear();
    append_bytes(text, bytes)
}

fn append_bytes(text: &str, bytes: &mut Vec<u8>) -> bool {
    text.chars().all(|c| {
        let byte = ALPHABET.get(c as usize).copied().flatten();
        bytes.extend(byte);
        byte.is_some()
    })
}

/// Two symbols that merge into one. A symbol is a token, or a text of the merges that is none.
#[derive(Clone, Copy, Debug)]
struct Merge {
    left: u32,
    right: u32,
    rank: u32,
    merged: u32,
}

/// The merges of a vocabulary.
#[derive(Debug)]
pub(super) struct Merges {
    table: HashTable<Merge>,
    hasher: DefaultHashBuilder,
    /// Texts of merges that are no tokens: their symbols come after the last token.
    others: HashMap<Vec<u8>, u32>,
    /// What each byte of a symbol that is no token becomes; a byte without one leaves no token behind.
    bytes: Box<[Option<u32>; 256]>,
    alphabet: Alphabet,
    whole: Whole,
}

/// Reads the merges, each `left right`, in order of rank. What a merge makes, or makes it of, need not be
/// a token: the pair merges, and what is no token in the end goes back to bytes.
///
/// # Errors
/// When one is not two texts.
pub(super) fn read<'a>(
    vocab: &Vocab,
    texts: impl ExactSizeIterator<Item = &'a str>,
    pre: &Pre,
) -> Result<Merges> {
    let mut merges = Merges {
        table: HashTable::with_capacity(texts.len()),
        hasher: DefaultHashBuilder::default(),
        others: HashMap::new(),
        bytes: Box::new(std::array::from_fn(|byte| {
            fallback(vocab, byte as u8, pre.alphabet)
        })),
        alphabet: pre.alphabet,
        whole: pre.whole,
    };
    let mut joined = Vec::new();
    let mut expected = 0;
    for (rank, merge) in texts.enumerate() {
        let bad = |why: &str| {
            Error::tokenizer(format!(
                "merge {rank}, {merge:?}, {why}: convert the model again"
            ))
        };
        // A left half may itself start with a space in old files.
        let after_first = merge.chars().next().map_or(0, char::len_utf8);
        let at = merge[after_first..]
            .find(' ')
            .ok_or_else(|| bad("is not two tokens"))?
            + after_first;
        joined.clear();
        if !merges.append(&merge[..at], &mut joined) {
            continue; // no text is written so
        }
        let left_len = joined.len();
        if !merges.append(&merge[at + 1..], &mut joined) {
            continue;
        }
        let left = merges.symbol(vocab, &joined[..left_len]);
        let right = merges.symbol(vocab, &joined[left_len..]);
        // The tokens mostly lie in the order of the merges that make them.
        let merged = match expected < vocab.len() as u32 && vocab.is_plain(expected, &joined) {
            true => expected,
            false => merges.symbol(vocab, &joined),
        };
        expected = merged.saturating_add(1);
        let rank = u32::try_from(rank).map_err(|_| bad("is one too many"))?;
        merges.insert(Merge {
            left,
            right,
            rank,
            merged,
        });
    }
    Ok(merges)
}

/// The token of a byte that no longer text has a token for: llama.cpp looks printable ones up in
/// GPT-2's alphabet, so that others are lost.
fn fallback(vocab: &Vocab, byte: u8, alphabet: Alphabet) -> Option<u32> {
    match alphabet {
        Alphabet::Bytes if byte.is_ascii_graphic() => vocab.find_plain(&[byte]),
        Alphabet::Bytes => None,
        Alphabet::Text | Alphabet::MarkedText => {
            vocab.find_plain(format!("<0x{byte:02X}>").as_bytes())
        }
    }
}

/// A symbol in the list of a piece's; `left` and `right` are positions, `NONE` at the ends.
struct Symbol {
    /// `NONE` for what is neither a token nor part of a merge, and for what has merged into its left
    /// neighbour, which is then 0 bytes long.
    symbol: u32,
    start: u32,
    len: u32,
    left: u32,
    right: u32,
}

const NONE: u32 = u32::MAX;

impl Merges {
    fn append(&self, text: &str, bytes: &mut Vec<u8>) -> bool {
        match self.alphabet {
            Alphabet::Bytes => append_bytes(text, bytes),
            Alphabet::Text | Alphabet::MarkedText => {
                bytes.extend_from_slice(text.as_bytes());
                true
            }
        }
    }

    /// The symbol of a text of the merges.
    fn symbol(&mut self, vocab: &Vocab, text: &[u8]) -> u32 {
        let found = self.known(vocab, text);
        if found != NONE {
            return found;
        }
        // Fewer than the merges' bytes, and so than a file's.
        let next = (vocab.len() + self.others.len()) as u32;
        self.others.insert(text.to_vec(), next);
        next
    }

    fn known(&self, vocab: &Vocab, text: &[u8]) -> u32 {
        vocab
            .find_plain(text)
            .or_else(|| self.others.get(text).copied())
            .unwrap_or(NONE)
    }

    /// Keeps the first merge of a pair.
    fn insert(&mut self, merge: Merge) {
        if self.find(merge.left, merge.right).is_none() {
            let hasher = &self.hasher;
            let hash = |m: &Merge| hasher.hash_one((m.left, m.right));
            self.table.insert_unique(hash(&merge), merge, hash);
        }
    }

    fn find(&self, left: u32, right: u32) -> Option<Merge> {
        self.table
            .find(self.hasher.hash_one((left, right)), |m| {
                (m.left, m.right) == (left, right)
            })
            .copied()
    }

    /// The length of the symbol that `text` starts with: a byte, or a character.
    fn first_len(&self, text: &[u8]) -> usize {
        match self.alphabet {
            Alphabet::Bytes => 1,
            Alphabet::Text | Alphabet::MarkedText => char_len(text[0]).min(text.len()),
        }
    }

    /// Appends the tokens of one piece: of all pairs that can merge the one with the lowest rank does,
    /// the leftmost of equals, until none can.
    pub(super) fn encode(&self, vocab: &Vocab, piece: &[u8], out: &mut Vec<i32>) {
        let whole = match self.whole {
            Whole::Never => false,
            Whole::LineEnds => piece.iter().all(|&byte| byte == b'\n'),
            Whole::Always => true,
        };
        if whole && let Some(id) = vocab.find_plain(piece) {
            out.push(id as i32);
            return;
        }
        let mut symbols: Vec<Symbol> = Vec::with_capacity(piece.len());
        let mut start = 0;
        while start < piece.len() {
            let len = self.first_len(&piece[start..]);
            let at = symbols.len() as u32;
            symbols.push(Symbol {
                symbol: self.known(vocab, &piece[start..start + len]),
                start: start as u32,
                len: len as u32,
                left: at.wrapping_sub(1),
                right: at + 1,
            });
            start += len;
        }
        let Some(last) = symbols.last_mut() else {
            return;
        };
        last.right = NONE;
        self.merge(&mut symbols);
        let mut at = 0;
        while at != NONE {
            let symbol = &symbols[at as usize];
            if symbol.symbol < vocab.len() as u32 {
                out.push(symbol.symbol as i32);
            } else {
                let bytes = &piece[symbol.start as usize..][..symbol.len as usize];
                let tokens = bytes.iter().filter_map(|&b| self.bytes[usize::from(b)]);
                out.extend(tokens.map(|id| id as i32));
            }
            at = symbol.right;
        }
    }

    fn merge(&self, symbols: &mut [Symbol]) {
        let mut queue = BinaryHeap::new();
        let propose = |queue: &mut BinaryHeap<_>, symbols: &[Symbol], left: u32| {
            let right = symbols[left as usize].right;
            if right != NONE {
                let pair = (
                    symbols[left as usize].symbol,
                    symbols[right as usize].symbol,
                );
                if let Some(merge) = self.find(pair.0, pair.1) {
                    queue.push(Reverse((merge.rank, left, pair, merge.merged)));
                }
            }
        };
        for left in 0..symbols.len() as u32 {
            propose(&mut queue, symbols, left);
        }
        while let Some(Reverse((_, left, pair, merged))) = queue.pop() {
            let symbol = &symbols[left as usize];
            let right = symbol.right;
            // A pair is out of date when one of its halves has merged with something else since.
            if symbol.symbol != pair.0 || right == NONE || symbols[right as usize].symbol != pair.1
            {
                continue;
            }
            let after = symbols[right as usize].right;
            let len = symbols[right as usize].len;
            symbols[right as usize].symbol = NONE;
            symbols[left as usize].symbol = merged;
            symbols[left as usize].len += len;
            symbols[left as usize].right = after;
            if after != NONE {
                symbols[after as usize].left = left;
            }
            let before = symbols[left as usize].left;
            if before != NONE {
                propose(&mut queue, symbols, before);
            }
            propose(&mut queue, symbols, left);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::vocab::Kind;
    use super::*;

    #[test]
    fn the_alphabet_has_256_bytes() {
        assert_eq!(decoded("ĠA!~"), Some(b" A!~".to_vec()));
        assert_eq!(decoded("ĊĉĀÿŃ"), Some(vec![b'\n', b'\t', 0, 0xff, 0xad]));
        assert_eq!(decoded("<｜x｜>"), None);
        let mut all: Vec<u8> = (0u32..0x180)
            .filter_map(|c| decoded(&char::from_u32(c)?.to_string()))
            .flatten()
            .collect();
        all.sort_unstable();
        assert_eq!(all, (0..=255).collect::<Vec<u8>>());
    }

    fn decoded(text: &str) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        bytes_of_text(text, &mut bytes).then_some(bytes)
    }

    fn vocab(texts: &[&str]) -> Vocab {
        let mut vocab = Vocab::with_capacity(texts.len());
        for text in texts {
            vocab.push(&decoded(text).unwrap(), Kind::Normal).unwrap();
        }
        vocab
    }

    fn gpt2() -> &'static Pre {
        Pre::find("gpt-2").unwrap()
    }

    fn encode(vocab: &Vocab, merges: &Merges, text: &str) -> Vec<i32> {
        let mut out = Vec::new();
        merges.encode(vocab, text.as_bytes(), &mut out);
        out
    }

    #[test]
    fn merges_by_rank_then_from_the_left() {
        let vocab = vocab(&["a", "b", "aa", "ab", "aab"]);
        let merges = read(&vocab, ["a a", "a b", "aa b"].into_iter(), gpt2()).unwrap();
        let encode = |text| encode(&vocab, &merges, text);
        assert_eq!(encode("aaa"), [2, 0]);
        assert_eq!(encode("aaab"), [2, 3]);
        assert_eq!(encode("aab"), [4]);
        assert_eq!(encode("bzb"), [1, 1]); // no token for z
        assert!(encode("").is_empty());
    }

    #[test]
    fn what_merges_need_not_be_a_token() {
        let vocab = vocab(&["a", "b", "c", "abc", "d"]);
        let texts = ["a b", "ab c", "c d", "x y", "a \u{ff5c}"];
        let merges = read(&vocab, texts.into_iter(), gpt2()).unwrap();
        let encode = |text| encode(&vocab, &merges, text);
        assert_eq!(encode("abc"), [3]);
        assert_eq!(encode("ab"), [0, 1]); // merged, then bytes again
        assert_eq!(encode("abd"), [0, 1, 4]);
        assert_eq!(encode("cdab"), [2, 4, 0, 1]);
        assert_eq!(encode("xya"), [0]);
    }

    #[test]
    fn characters_merge_where_the_alphabet_is_text() {
        let mut vocab = Vocab::with_capacity(8);
        for text in ["\u{2581}", "é", "\u{2581}é", "<0xC3>", "\n\n"] {
            vocab.push(text.as_bytes(), Kind::Normal).unwrap();
        }
        let pre = Pre::find("gemma4").unwrap();
        let merges = read(&vocab, ["\u{2581} é"].into_iter(), pre).unwrap();
        let encode = |text| encode(&vocab, &merges, text);
        assert_eq!(encode("\u{2581}éé"), [2, 1]);
        assert_eq!(encode("ü"), [3]); // its second byte has no token
        assert_eq!(encode("\n\n"), [4]);
        assert!(encode("\n").is_empty());
    }

    #[test]
    fn a_merge_that_is_not_two_texts_is_an_error() {
        let vocab = vocab(&["a", "b", "ab"]);
        for merge in ["a", ""] {
            let error = read(&vocab, [merge].into_iter(), gpt2())
                .unwrap_err()
                .to_string();
            assert!(error.contains("not two tokens"), "{error}");
        }
    }
}
