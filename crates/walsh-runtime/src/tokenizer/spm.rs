//! SentencePiece's byte-pair encoding: any two neighbours merge whose joined text is a token, the best
//! score first.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::vocab::{Vocab, char_len};
use crate::error::{Error, Result};

/// What SentencePiece writes for a space: U+2581.
pub(super) const SPACE: &[u8] = "\u{2581}".as_bytes();

/// The scores of a vocabulary and its tokens for single bytes.
#[derive(Debug)]
pub(super) struct Scores {
    scores: Vec<f32>,
    /// What each byte of a character without a token becomes.
    bytes: Box<[u32; 256]>,
}

impl Scores {
    /// `scores` has one finite value per token; a byte without a token of its own becomes `unknown`.
    pub(super) fn new(vocab: &Vocab, scores: Vec<f32>, unknown: Option<u32>) -> Result<Scores> {
        if scores.len() != vocab.len() {
            return Err(Error::tokenizer(format!(
                "{} scores for {} tokens: convert the model again",
                scores.len(),
                vocab.len()
            )));
        }
        if let Some(at) = scores.iter().position(|score| !score.is_finite()) {
            return Err(Error::tokenizer(format!(
                "the score of token {at} is not finite: convert the model again"
            )));
        }
        let mut bytes = Box::new([0; 256]);
        for byte in 0..=255u8 {
            bytes[usize::from(byte)] = vocab
                .find(format!("<0x{byte:02X}>").as_bytes())
                .or_else(|| vocab.find(&[byte]))
                .or(unknown)
                .ok_or_else(|| {
                    Error::tokenizer(format!(
                        "there is no token for the byte 0x{byte:02X}: convert the model again"
                    ))
                })?;
        }
        Ok(Scores { scores, bytes })
    }
}

/// A stretch of the text; length 0 once it has merged into its left neighbour.
struct Symbol {
    start: u32,
    len: u32,
    left: u32,
    right: u32,
}

const NONE: u32 = u32::MAX;

/// Two neighbours that can merge into `len` bytes.
struct Pair {
    score: f32,
    left: u32,
    right: u32,
    len: u32,
}

impl Ord for Pair {
    /// The greatest merges first: the best score, the leftmost of equals.
    fn cmp(&self, other: &Pair) -> Ordering {
        let by_score = self.score.partial_cmp(&other.score);
        by_score
            .unwrap_or(Ordering::Equal)
            .then(other.left.cmp(&self.left))
    }
}

impl PartialOrd for Pair {
    fn partial_cmp(&self, other: &Pair) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Pair {
    fn eq(&self, other: &Pair) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Pair {}

impl Scores {
    /// Appends the tokens of `text`, whose spaces are already U+2581. The text need not be UTF-8.
    pub(super) fn encode(&self, vocab: &Vocab, text: &[u8], out: &mut Vec<i32>) {
        let mut symbols = Vec::with_capacity(text.len());
        let mut start = 0;
        while start < text.len() {
            let len = char_len(text[start]).min(text.len() - start);
            let at = symbols.len() as u32;
            symbols.push(Symbol {
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

        let mut queue = BinaryHeap::new();
        let propose = |queue: &mut BinaryHeap<Pair>, symbols: &[Symbol], left: u32| {
            let first = &symbols[left as usize];
            let right = first.right;
            if right != NONE {
                let len = first.len + symbols[right as usize].len;
                let joined = &text[first.start as usize..][..len as usize];
                if let Some(id) = vocab.find_plain(joined) {
                    let score = self.scores[id as usize];
                    queue.push(Pair {
                        score,
                        left,
                        right,
                        len,
                    });
                }
            }
        };
        for left in 0..symbols.len() as u32 {
            propose(&mut queue, &symbols, left);
        }
        while let Some(pair) = queue.pop() {
            let (left, right) = (pair.left as usize, pair.right as usize);
            let (left_len, right_len) = (symbols[left].len, symbols[right].len);
            // A pair is out of date when one of its halves has merged with something else since.
            if left_len == 0 || right_len == 0 || left_len + right_len != pair.len {
                continue;
            }
            let after = symbols[right].right;
            symbols[right].len = 0;
            symbols[left].len = pair.len;
            symbols[left].right = after;
            if after != NONE {
                symbols[after as usize].left = pair.left;
            }
            let before = symbols[left].left;
            if before != NONE {
                propose(&mut queue, &symbols, before);
            }
            propose(&mut queue, &symbols, pair.left);
        }

        let mut at = 0;
        while at != NONE {
            let symbol = &symbols[at as usize];
            let bytes = &text[symbol.start as usize..][..symbol.len as usize];
            match vocab.find_plain(bytes) {
                Some(id) => out.push(id as i32),
                None => out.extend(bytes.iter().map(|&b| self.bytes[usize::from(b)] as i32)),
            }
            at = symbol.right;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::vocab::Kind;
    use super::*;

    fn model(tokens: &[(&str, f32)]) -> (Vocab, Scores) {
        let mut vocab = Vocab::with_capacity(tokens.len());
        vocab.push(b"<unk>", Kind::Unknown).unwrap();
        let mut scores = vec![0.0];
        for (text, score) in tokens {
            vocab.push(text.as_bytes(), Kind::Normal).unwrap();
            scores.push(*score);
        }
        let scores = Scores::new(&vocab, scores, Some(0)).unwrap();
        (vocab, scores)
    }

    #[test]
    fn the_best_score_merges_first() {
        let (vocab, scores) = model(&[
            ("a", -9.0),
            ("b", -9.0),
            ("ab", -2.0),
            ("ba", -1.0),
            ("<0xC3>", -9.0),
        ]);
        let encode = |text: &[u8]| {
            let mut out = Vec::new();
            scores.encode(&vocab, text, &mut out);
            out
        };
        assert_eq!(encode(b"aba"), [1, 4]);
        assert_eq!(encode(b"abab"), [1, 4, 2]);
        assert_eq!(encode("é".as_bytes()), [5, 0]);
        assert_eq!(encode(b"a\xc3"), [1, 5]);
        assert!(encode(b"").is_empty());
    }

    #[test]
    fn bad_scores_are_errors() {
        let mut vocab = Vocab::with_capacity(1);
        vocab.push(b"a", Kind::Normal).unwrap();
        let error = |scores, unknown| {
            Scores::new(&vocab, scores, unknown)
                .unwrap_err()
                .to_string()
        };
        assert!(error(vec![], None).contains("0 scores for 1 tokens"));
        assert!(error(vec![f32::NAN], None).contains("not finite"));
        assert!(error(vec![0.0], None).contains("byte 0x00"));
    }
}
