//! Byte-level byte-pair encoding: GPT-2's alphabet of bytes and merges by rank.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

use super::vocab::Vocab;
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

/// Two tokens that merge into one.
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
    /// The token of each single byte; a byte without one leaves no token behind.
    bytes: Box<[Option<u32>; 256]>,
    /// Whether a piece that is a token as a whole is taken as it is.
    whole_pieces: bool,
}

/// Reads the merges, each `left right` in GPT-2's alphabet, in order of rank.
pub(super) fn read<'a>(
    vocab: &Vocab,
    merges: impl ExactSizeIterator<Item = &'a str>,
    whole_pieces: bool,
) -> Result<Merges> {
    let mut table = HashTable::with_capacity(merges.len());
    let hasher = DefaultHashBuilder::default();
    let mut joined = Vec::new();
    let mut expected = 0;
    for (rank, merge) in merges.enumerate() {
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
        if !bytes_of_text(&merge[..at], &mut joined) {
            return Err(bad("is not in the byte alphabet"));
        }
        let left_len = joined.len();
        if !append_bytes(&merge[at + 1..], &mut joined) {
            return Err(bad("is not in the byte alphabet"));
        }
        // The tokens mostly lie in the order of the merges that make them.
        let merged = match expected < vocab.len() as u32 && vocab.text(expected) == joined {
            true => Some(expected),
            false => vocab.find(&joined),
        };
        let (Some(left), Some(right), Some(merged)) = (
            vocab.find(&joined[..left_len]),
            vocab.find(&joined[left_len..]),
            merged,
        ) else {
            return Err(bad("has a token that is not in the vocabulary"));
        };
        expected = merged + 1;
        let hash = hasher.hash_one((left, right));
        let same = |other: &Merge| (other.left, other.right) == (left, right);
        if table.find(hash, same).is_none() {
            let rank = u32::try_from(rank).map_err(|_| bad("is one too many"))?;
            let merge = Merge {
                left,
                right,
                rank,
                merged,
            };
            table.insert_unique(hash, merge, |m: &Merge| hasher.hash_one((m.left, m.right)));
        }
    }
    let bytes = Box::new(std::array::from_fn(|byte| vocab.find(&[byte as u8])));
    Ok(Merges {
        table,
        hasher,
        bytes,
        whole_pieces,
    })
}

/// A token in the list of a piece's tokens; `left` and `right` are positions, `NONE` at the ends.
struct Symbol {
    token: u32,
    left: u32,
    right: u32,
}

const NONE: u32 = u32::MAX;

impl Merges {
    fn find(&self, left: u32, right: u32) -> Option<Merge> {
        self.table
            .find(self.hasher.hash_one((left, right)), |m| {
                (m.left, m.right) == (left, right)
            })
            .copied()
    }

    /// Appends the tokens of one piece: of all pairs that can merge the one with the lowest rank does,
    /// the leftmost of equals, until none can.
    pub(super) fn encode(&self, vocab: &Vocab, piece: &[u8], out: &mut Vec<i32>) {
        if self.whole_pieces
            && let Some(id) = vocab.find(piece)
        {
            out.push(id as i32);
            return;
        }
        let mut symbols: Vec<Symbol> = piece
            .iter()
            .filter_map(|&byte| self.bytes[usize::from(byte)])
            .enumerate()
            .map(|(at, token)| Symbol {
                token,
                left: (at as u32).wrapping_sub(1),
                right: at as u32 + 1,
            })
            .collect();
        let Some(last) = symbols.last_mut() else {
            return;
        };
        last.right = NONE;
        let mut queue = BinaryHeap::new();
        let propose = |queue: &mut BinaryHeap<_>, symbols: &[Symbol], left: u32| {
            let right = symbols[left as usize].right;
            if right != NONE {
                let pair = (symbols[left as usize].token, symbols[right as usize].token);
                if let Some(merge) = self.find(pair.0, pair.1) {
                    queue.push(Reverse((merge.rank, left, pair, merge.merged)));
                }
            }
        };
        for left in 0..symbols.len() as u32 {
            propose(&mut queue, &symbols, left);
        }
        while let Some(Reverse((_, left, pair, merged))) = queue.pop() {
            let symbol = &symbols[left as usize];
            let right = symbol.right;
            // A pair is out of date when one of its halves has merged with something else since.
            if symbol.token != pair.0 || right == NONE || symbols[right as usize].token != pair.1 {
                continue;
            }
            let after = symbols[right as usize].right;
            symbols[right as usize].token = NONE;
            symbols[left as usize].token = merged;
            symbols[left as usize].right = after;
            if after != NONE {
                symbols[after as usize].left = left;
            }
            let before = symbols[left as usize].left;
            if before != NONE {
                propose(&mut queue, &symbols, before);
            }
            propose(&mut queue, &symbols, left);
        }
        let mut at = 0;
        while at != NONE {
            out.push(symbols[at as usize].token as i32);
            at = symbols[at as usize].right;
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

    #[test]
    fn merges_by_rank_then_from_the_left() {
        let vocab = vocab(&["a", "b", "aa", "ab", "aab"]);
        let merges = read(&vocab, ["a a", "a b", "aa b"].into_iter(), false).unwrap();
        let encode = |text: &str| {
            let mut out = Vec::new();
            merges.encode(&vocab, text.as_bytes(), &mut out);
            out
        };
        assert_eq!(encode("aaa"), [2, 0]);
        assert_eq!(encode("aaab"), [2, 3]);
        assert_eq!(encode("aab"), [4]);
        assert_eq!(encode("bzb"), [1, 1]); // no token for z
        assert!(encode("").is_empty());
    }

    #[test]
    fn a_merge_without_its_tokens_is_an_error() {
        let vocab = vocab(&["a", "b", "ab"]);
        for (merge, why) in [
            ("a", "not two tokens"),
            ("", "not two tokens"),
            ("a c", "not in the vocabulary"),
            ("b a", "not in the vocabulary"),
            ("a ｜", "byte alphabet"),
        ] {
            let error = read(&vocab, [merge].into_iter(), false)
                .unwrap_err()
                .to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
