//! Cutting a text into the pieces within which byte pairs merge.
//!
//! Pre-tokenizers are defined by regular expressions, nearly all with one look-ahead, `\s+(?!\S)`. An
//! engine with back-tracking gives up on long runs of spaces or takes for ever; here automata search
//! for the expressions without it, in linear time, and what it means is done to their matches.

use std::ops::Range;

use regex_automata::Input;
use regex_automata::meta::Regex;
use regex_automata::nfa::thompson::WhichCaptures;

use crate::error::{Error, Result};

/// White space but for the last before something else, then what is left: how most expressions end.
const AHEAD: &str = r"|\s+(?!\S)|\s+";

/// One way of cutting pieces further.
#[derive(Clone, Copy, Debug)]
pub(super) enum Stage {
    /// The matches of an expression, and what lies between them. It may end with `\s+(?!\S)|\s+`.
    Matches(&'static str),
    /// Runs of numbers by three, counted from their ends. What precedes a run stays with its first one
    /// to three.
    DigitsFromRight,
    /// Runs of ASCII digits by three, counted from their ends.
    Thousands,
    /// White space without line ends, by the largest power of two from 512 down.
    SpacesByPowers,
}

/// A pre-tokenizer's stages, ready to run.
#[derive(Debug)]
pub(super) struct Split {
    cuts: Vec<Cut>,
}

#[derive(Debug)]
enum Cut {
    /// The expressions in the order of preference, and whether the last is white space of which
    /// the last stays with what follows.
    Matches {
        regex: Regex,
        ahead: bool,
    },
    Scan(fn(&str, &mut dyn FnMut(usize))),
}

impl Split {
    /// Prepares the stages.
    ///
    /// # Errors
    /// When an expression is not valid: none of the table is.
    pub(super) fn new(stages: &[Stage]) -> Result<Split> {
        let cuts = stages.iter().map(|stage| {
            Ok(match *stage {
                Stage::Matches(expression) => {
                    let plain = expression.strip_suffix(AHEAD);
                    let patterns = match plain {
                        Some(plain) => vec![plain, r"\s+"],
                        None => vec![expression],
                    };
                    let config = Regex::config().which_captures(WhichCaptures::Implicit);
                    let regex = Regex::builder()
                        .configure(config)
                        .build_many(&patterns)
                        .map_err(|error| Error::tokenizer(format!("{expression}: {error}")))?;
                    Cut::Matches {
                        regex,
                        ahead: plain.is_some(),
                    }
                }
                Stage::DigitsFromRight => Cut::Scan(digits_from_right),
                Stage::Thousands => Cut::Scan(thousands),
                Stage::SpacesByPowers => Cut::Scan(spaces_by_powers),
            })
        });
        Ok(Split {
            cuts: cuts.collect::<Result<_>>()?,
        })
    }

    /// The byte ranges of the pieces of `text`, in order, without gaps, none empty.
    pub(super) fn pieces(&self, text: &str) -> Vec<Range<usize>> {
        let mut pieces = Vec::new();
        if !text.is_empty() {
            pieces.push(0..text.len());
        }
        for cut in &self.cuts {
            let mut finer = Vec::with_capacity(pieces.len().max(text.len() / 4));
            for piece in pieces {
                let mut start = piece.start;
                let mut end = |at: usize| {
                    if piece.start + at > start {
                        finer.push(start..piece.start + at);
                        start = piece.start + at;
                    }
                };
                let inside = &text[piece.clone()];
                match cut {
                    Cut::Matches { regex, ahead } => matches(regex, *ahead, inside, &mut end),
                    Cut::Scan(scan) => scan(inside, &mut end),
                }
                end(inside.len());
            }
            pieces = finer;
        }
        pieces
    }
}

/// Calls `end` with where each match begins and ends.
fn matches(regex: &Regex, ahead: bool, text: &str, end: &mut dyn FnMut(usize)) {
    let mut at = 0;
    while at < text.len() {
        let input = Input::new(text).range(at..);
        let Some(found) = regex.search(&input) else {
            return;
        };
        let mut stop = found.end();
        // White space that something follows gives its last character up, unless that is all of it.
        if ahead && found.pattern().as_usize() == 1 && stop < text.len() {
            let last = text[..stop].chars().next_back().map_or(0, char::len_utf8);
            if stop - last > found.start() {
                stop -= last;
            }
        }
        end(found.start());
        end(stop);
        at = stop;
    }
}

fn digits_from_right(text: &str, end: &mut dyn FnMut(usize)) {
    by_threes(text, char::is_numeric, false, end);
}

fn thousands(text: &str, end: &mut dyn FnMut(usize)) {
    by_threes(text, |c| c.is_ascii_digit(), true, end);
}

/// Ends a piece before every third character from the end of each run of `digit`; before a run's first
/// one where `first` says so; and at each run's end.
fn by_threes(text: &str, digit: fn(char) -> bool, first: bool, end: &mut dyn FnMut(usize)) {
    let mut rest = 0;
    while let Some(from) = text[rest..].find(digit) {
        let from = rest + from;
        let run = &text[from..];
        let run = &run[..run.find(|c| !digit(c)).unwrap_or(run.len())];
        let count = run.chars().count();
        for (at, (offset, _)) in run.char_indices().enumerate() {
            if (count - at).is_multiple_of(3) && (at > 0 || first) {
                end(from + offset);
            }
        }
        rest = from + run.len();
        if !first {
            end(rest);
        }
    }
}

fn spaces_by_powers(text: &str, end: &mut dyn FnMut(usize)) {
    if text.contains(|c: char| !c.is_whitespace() || matches!(c, '\r' | '\n')) {
        return;
    }
    let mut left = text.chars().count();
    let mut chars = text.char_indices();
    while left > 0 {
        let mut power = 512;
        while power > left {
            power /= 2;
        }
        left -= power;
        match chars.nth(power - 1) {
            Some((at, last)) => end(at + last.len_utf8()),
            None => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::super::pre::Pre;
    use super::super::repair;
    use super::*;

    fn split(name: &str) -> Split {
        Split::new(Pre::find(name).unwrap().stages).unwrap()
    }

    fn cut<'t>(name: &str, text: &'t str) -> Vec<&'t str> {
        let pieces = split(name).pieces(text).into_iter();
        pieces.map(|range| &text[range]).collect()
    }

    /// The 32-bit FNV-1a hash.
    fn hash(text: &str) -> u32 {
        let step = |hash: u32, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
        text.bytes().fold(0x811c_9dc5, step)
    }

    #[test]
    fn pieces_are_llama_cpps() {
        let strings: Vec<String> =
            serde_json::from_str(include_str!("../../../../tests/data/hard_strings.json")).unwrap();
        let golden: BTreeMap<String, String> =
            serde_json::from_str(include_str!("../../../../tests/golden/pieces.json")).unwrap();
        let names: BTreeSet<&str> = Pre::names().collect();
        assert_eq!(
            golden.keys().map(String::as_str).collect::<BTreeSet<_>>(),
            names
        );
        for (name, hashes) in golden {
            let split = split(&name);
            assert_eq!(hashes.len(), 8 * strings.len());
            for (at, hex) in strings.iter().enumerate() {
                let bytes: Vec<u8> = (0..hex.len() / 2)
                    .map(|at| u8::from_str_radix(&hex[2 * at..][..2], 16).unwrap())
                    .collect();
                let (text, _) = repair(&bytes);
                let pieces = split.pieces(&text);
                let lengths: String = pieces.iter().map(|p| format!("{} ", p.len())).collect();
                let expected = u32::from_str_radix(&hashes[8 * at..][..8], 16).unwrap();
                assert_eq!(hash(&lengths), expected, "{name}: {text:?}: {lengths}");
            }
        }
    }

    #[test]
    fn long_runs_are_cut_in_linear_time_by_all() {
        for name in Pre::names() {
            let split = split(name);
            for unit in [" ", "\n ", "A", "1", "é", "!", "\t\u{300}"] {
                let text = format!("{}x 1", unit.repeat(5_000));
                let pieces = split.pieces(&text);
                let joined: String = pieces.iter().map(|piece| &text[piece.clone()]).collect();
                assert_eq!(joined, text, "{name}");
            }
            assert!(split.pieces("").is_empty());
        }
        assert_eq!(
            cut("qwen2", &format!("{}x 1", " ".repeat(3_000_000))).len(),
            4
        );
    }

    #[test]
    fn digits_and_spaces_are_counted_from_the_right_end() {
        assert_eq!(cut("superbpe", "a 1234567"), ["a ", "1", "234", "567"]);
        assert_eq!(cut("superbpe", "123"), ["123"]);
        assert_eq!(cut("tiny_aya", "x1234 12"), ["x", "1", "234", " ", "12"]);
        let lengths = |text: &str| -> Vec<usize> {
            cut("jais-2", text)
                .iter()
                .map(|piece| piece.len())
                .collect()
        };
        assert_eq!(lengths(&" ".repeat(1000)), [512, 256, 128, 64, 32, 8]);
        assert_eq!(lengths("    x"), [2, 1, 2]);
    }

    #[test]
    fn unknown_names_are_refused() {
        let error = Pre::find("nonsense").unwrap_err().to_string();
        assert!(
            error.contains("\"nonsense\"") && !error.contains('\n'),
            "{error}"
        );
    }
}
