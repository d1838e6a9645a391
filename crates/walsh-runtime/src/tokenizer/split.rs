//! Pre-tokenizers: how a text is cut into the pieces within which byte pairs merge.
//!
//! Each is defined by a regular expression with a look-ahead, `\s+(?!\S)`. An engine with back-tracking
//! gives up on long runs of spaces, and the `tokenizers` crate then leaves the rest of the text uncut
//! without a word; these scanners do the same cuts in one pass, in linear time.

use std::ops::Range;
use std::sync::OnceLock;

use tokenizers::tokenizer::pattern::Pattern;
use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer};
use tokenizers::{Offsets, SplitDelimiterBehavior};

use crate::error::{Error, Result};

/// The pre-tokenizers of byte-level BPE vocabularies that this version knows, by the behaviour of
/// `tokenizer.ggml.pre`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Split {
    /// GPT-2's: contractions, letters, digits, other signs, spaces.
    Gpt2,
    /// Each digit alone, then as GPT-2.
    SmolLm,
    /// Llama 3's: contractions in either case, up to three digits, line ends kept with what precedes.
    Llama3,
    /// As Llama 3's with one digit.
    Qwen2,
    /// For files that name no pre-tokenizer: punctuation first, then as GPT-2, then digits by three.
    Default,
}

impl Split {
    /// The pre-tokenizer that a file's `tokenizer.ggml.pre` names.
    pub(super) fn from_name(name: &str) -> Result<Split> {
        Ok(match name {
            "gpt-2" | "phi-2" | "mpt" | "olmo" | "jais" | "exaone4" => Split::Gpt2,
            "smollm" | "starcoder" | "refact" | "codeshell" => Split::SmolLm,
            "llama-bpe" | "llama3" | "llama-v3" | "smaug-bpe" | "dbrx" => Split::Llama3,
            "qwen2" | "deepseek-r1-qwen" | "stablelm2" | "megrez" => Split::Qwen2,
            "default" | "" => Split::Default,
            other => {
                return Err(Error::tokenizer(format!(
                    "the pre-tokenizer {other:?} is not supported: use a model with smollm, llama-bpe, qwen2, gpt-2 or default"
                )));
            }
        })
    }

    /// The byte ranges of the pieces of `text`, in order and without gaps.
    pub(super) fn pieces(self, text: &str) -> Result<Vec<Range<usize>>> {
        let mut split = PreTokenizedString::from(text);
        self.pre_tokenize(&mut split)
            .map_err(|error| Error::tokenizer(error.to_string()))?;
        Ok(split
            .get_splits(OffsetReferential::Original, OffsetType::Byte)
            .into_iter()
            .map(|(_, (start, end), _)| start..end)
            .collect())
    }

    fn cut(self, text: &str) -> Vec<Range<usize>> {
        let all = 0..text.len();
        let whole = std::slice::from_ref(&all);
        match self {
            Split::Gpt2 => refine(text, whole, gpt2),
            Split::SmolLm => {
                let digits = refine(text, whole, |rest| isolate(rest, char::is_numeric, 1));
                refine(text, &digits, gpt2)
            }
            Split::Llama3 => refine(text, whole, |rest| llama3(rest, 3)),
            Split::Qwen2 => refine(text, whole, |rest| llama3(rest, 1)),
            Split::Default => {
                let marks = refine(text, whole, |rest| isolate(rest, is_mark, usize::MAX));
                let words = refine(text, &marks, gpt2);
                let numbers = refine(text, &words, |rest| {
                    isolate(rest, char::is_numeric, usize::MAX)
                });
                refine(text, &numbers, threes)
            }
        }
    }
}

impl PreTokenizer for Split {
    fn pre_tokenize(&self, text: &mut PreTokenizedString) -> tokenizers::Result<()> {
        text.split(|_, piece| piece.split(*self, SplitDelimiterBehavior::Isolated))
    }
}

impl Pattern for Split {
    fn find_matches(&self, inside: &str) -> tokenizers::Result<Vec<(Offsets, bool)>> {
        if inside.is_empty() {
            return Ok(vec![((0, 0), false)]);
        }
        let pieces = self.cut(inside);
        Ok(pieces
            .into_iter()
            .map(|p| ((p.start, p.end), true))
            .collect())
    }
}

/// Cuts every piece further: `first` gives the length in bytes, above 0, of what comes first in a text.
fn refine(text: &str, pieces: &[Range<usize>], first: impl Fn(&str) -> usize) -> Vec<Range<usize>> {
    let mut out = Vec::with_capacity(pieces.len().max(text.len() / 4));
    for piece in pieces {
        let mut start = piece.start;
        while start < piece.end {
            let end = start + first(&text[start..piece.end]);
            out.push(start..end);
            start = end;
        }
    }
    out
}

/// The length of the longest start of `text` whose characters all satisfy `test`.
fn run(text: &str, test: impl Fn(char) -> bool) -> usize {
    text.find(|c| !test(c)).unwrap_or(text.len())
}

/// As `run`, over at most `most` characters.
fn run_of(text: &str, test: impl Fn(char) -> bool, most: usize) -> usize {
    let end = text
        .char_indices()
        .nth(most)
        .map_or(text.len(), |(at, _)| at);
    run(&text[..end], test)
}

/// Runs of up to `most` characters that satisfy `test`, and what lies between them.
fn isolate(text: &str, test: fn(char) -> bool, most: usize) -> usize {
    match run_of(text, test, most) {
        0 => run(text, |c| !test(c)),
        n => n,
    }
}

/// `[0-9][0-9][0-9]` and what lies between.
fn threes(text: &str) -> usize {
    let bytes = text.as_bytes();
    let three_at = |at: usize| {
        bytes[at..]
            .iter()
            .take(3)
            .filter(|b| b.is_ascii_digit())
            .count()
            == 3
    };
    if three_at(0) {
        return 3;
    }
    (1..bytes.len())
        .find(|&at| three_at(at))
        .unwrap_or(bytes.len())
}

/// `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
fn gpt2(text: &str) -> usize {
    if let Some(n) = contraction(text, false) {
        return n;
    }
    let space = usize::from(text.starts_with(' '));
    let rest = &text[space..];
    for test in [is_letter, char::is_numeric, is_sign] {
        let n = run(rest, test);
        if n > 0 {
            return space + n;
        }
    }
    spaces(text)
}

/// `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,digits}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
fn llama3(text: &str, digits: usize) -> usize {
    if let Some(n) = contraction(text, true) {
        return n;
    }
    let first = text.chars().next().map_or(0, char::len_utf8);
    let letters = run(text, is_letter);
    if letters > 0 {
        return letters;
    }
    let numbers = run_of(text, char::is_numeric, digits);
    if numbers == 0 && !is_line_end(text.as_bytes()[0] as char) {
        let letters = run(&text[first..], is_letter);
        if letters > 0 {
            return first + letters;
        }
    }
    if numbers > 0 {
        return numbers;
    }
    let space = usize::from(text.starts_with(' '));
    let signs = run(&text[space..], is_sign);
    if signs > 0 {
        let end = space + signs;
        return end + run(&text[end..], is_line_end);
    }
    let white = run(text, char::is_whitespace);
    match text[..white].rfind(is_line_end) {
        Some(at) => at + 1,
        None => spaces(text),
    }
}

/// `\s+(?!\S)|\s+`: white space up to the one before a word, or all of it at the end.
fn spaces(text: &str) -> usize {
    let n = run(text, char::is_whitespace);
    let last = text[..n].chars().next_back().map_or(0, char::len_utf8);
    if n < text.len() && n > last {
        n - last
    } else {
        n
    }
}

fn contraction(text: &str, any_case: bool) -> Option<usize> {
    let rest = text.strip_prefix('\'')?.as_bytes();
    let same = |ending: &str| {
        rest.get(..ending.len())
            .is_some_and(|start| match any_case {
                true => start.eq_ignore_ascii_case(ending.as_bytes()),
                false => start == ending.as_bytes(),
            })
    };
    ["s", "t", "re", "ve", "m", "ll", "d"]
        .into_iter()
        .find(|ending| same(ending))
        .map(|ending| 1 + ending.len())
}

fn is_line_end(c: char) -> bool {
    matches!(c, '\r' | '\n')
}

fn is_sign(c: char) -> bool {
    !c.is_whitespace() && !c.is_numeric() && !is_letter(c)
}

/// `\p{L}`, which `char::is_alphabetic` is not: that counts marks and some numbers too.
fn is_letter(c: char) -> bool {
    static TABLE: OnceLock<Vec<(char, char)>> = OnceLock::new();
    match c {
        '\0'..='\x7f' => c.is_ascii_alphabetic(),
        _ => within(TABLE.get_or_init(|| class(r"\p{L}")), c),
    }
}

/// `[\p{P}\$\+<=>\^~\|]`
fn is_mark(c: char) -> bool {
    static TABLE: OnceLock<Vec<(char, char)>> = OnceLock::new();
    match c {
        '`' => false,
        '\0'..='\x7f' => c.is_ascii_punctuation(),
        _ => within(TABLE.get_or_init(|| class(r"\p{P}")), c),
    }
}

fn within(ranges: &[(char, char)], c: char) -> bool {
    let after = ranges.partition_point(|range| range.1 < c);
    ranges.get(after).is_some_and(|range| range.0 <= c)
}

/// The ranges of a character class, from the Unicode tables of the regular-expression parser.
fn class(pattern: &str) -> Vec<(char, char)> {
    let parsed = regex_syntax::parse(pattern).map(|hir| hir.into_kind());
    let Ok(regex_syntax::hir::HirKind::Class(regex_syntax::hir::Class::Unicode(class))) = parsed
    else {
        unreachable!("{pattern} is a character class");
    };
    class
        .ranges()
        .iter()
        .map(|r| (r.start(), r.end()))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn split(split: Split, text: &str) -> Vec<&str> {
        let pieces = split.pieces(text).unwrap();
        pieces.into_iter().map(|range| &text[range]).collect()
    }

    #[test]
    fn pieces_are_those_of_the_regular_expressions() {
        let strings: Vec<String> =
            serde_json::from_str(include_str!("../../../../tests/data/hard_strings.json")).unwrap();
        let golden: BTreeMap<String, Vec<Vec<usize>>> =
            serde_json::from_str(include_str!("../../../../tests/golden/pieces.json")).unwrap();
        assert_eq!(golden.len(), 5);
        for (name, lengths) in golden {
            let kind = Split::from_name(&name).unwrap();
            assert!(lengths.len() > 80);
            for (hex, expected) in strings.iter().zip(lengths) {
                let bytes: Vec<u8> = (0..hex.len() / 2)
                    .map(|at| u8::from_str_radix(&hex[2 * at..][..2], 16).unwrap())
                    .collect();
                let text = String::from_utf8(bytes).unwrap();
                let ours: Vec<usize> = split(kind, &text)
                    .into_iter()
                    .map(str::len)
                    .filter(|&len| len > 0)
                    .collect();
                assert_eq!(ours, expected, "{name}: {text:?}");
            }
        }
    }

    #[test]
    fn a_long_run_of_spaces_is_cut_like_a_short_one() {
        let text = format!("{}x 1", " ".repeat(3_000_000));
        let pieces = split(Split::Qwen2, &text);
        assert_eq!(pieces.len(), 4);
        assert_eq!(&pieces[1..], [" x", " ", "1"]);
    }

    #[test]
    fn unknown_names_are_refused() {
        let error = Split::from_name("tekken").unwrap_err().to_string();
        assert!(
            error.contains("\"tekken\"") && error.contains("llama-bpe"),
            "{error}"
        );
    }

    #[test]
    fn the_empty_text_has_no_pieces() {
        for kind in [
            Split::Gpt2,
            Split::SmolLm,
            Split::Llama3,
            Split::Qwen2,
            Split::Default,
        ] {
            assert!(split(kind, "").concat().is_empty());
        }
    }
}
