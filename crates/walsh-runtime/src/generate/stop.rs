//! Texts that end a text.

use crate::tokenizer::Tokenizer;
use crate::{Error, Result};

/// A text as it comes, and where it is to stop.
///
/// It ends where the first stop text to be complete begins, however the text is cut
/// into pieces. What may be the beginning of one is held back until that is certain.
#[derive(Debug)]
pub(crate) struct Stops {
    stops: Vec<String>,
    /// Control tokens with such a name, and which: they are no part of the text.
    tokens: Vec<(i32, usize)>,
    /// All of the text so far, what is held back included.
    text: String,
    /// How much of it was handed out.
    shown: usize,
    /// Which of them came up.
    found: Option<usize>,
}

impl Stops {
    /// # Errors
    /// When a stop text is empty: it would be everywhere.
    pub(crate) fn new(stops: &[String], tokenizer: &Tokenizer) -> Result<Self> {
        if stops.iter().any(String::is_empty) {
            return Err(Error::option("stop", "a text", "empty"));
        }
        let control = |(which, stop): (usize, &String)| {
            let token = tokenizer.token(stop)?;
            tokenizer.is_control(token).then_some((token, which))
        };
        Ok(Self {
            tokens: stops.iter().enumerate().filter_map(control).collect(),
            stops: stops.to_vec(),
            text: String::new(),
            shown: 0,
            found: None,
        })
    }

    /// Whether a token ends the text by itself.
    pub(crate) fn is_stop(&mut self, token: i32) -> bool {
        let found = self.tokens.iter().find(|(id, _)| *id == token);
        self.found = found.map(|(_, which)| *which);
        self.found.is_some()
    }

    /// Takes the next piece, and returns where the text ends, if it does: bytes from
    /// its beginning. What is behind them is gone then.
    pub(crate) fn push(&mut self, piece: &str) -> Option<usize> {
        let unseen = self.text.len();
        self.text.push_str(piece);
        let complete = |stop: &String| {
            // Nothing was complete before this piece.
            let first = unseen.saturating_sub(stop.len() - 1).max(self.shown);
            let first = self.text.floor_char_boundary(first);
            let start = first + self.text[first..].find(stop)?;
            Some((start + stop.len(), start))
        };
        let stops = self.stops.iter().enumerate();
        let found = stops.filter_map(|(which, stop)| Some((complete(stop)?, which)));
        let ((_, start), which) = found.min()?;
        self.found = Some(which);
        self.text.truncate(start);
        Some(start)
    }

    /// The stop text that came up, if one did.
    pub(crate) fn found(&self) -> Option<&str> {
        self.found.map(|which| self.stops[which].as_str())
    }

    /// What can be handed out now.
    pub(crate) fn take(&mut self) -> String {
        let held = self.stops.iter().map(|stop| self.beginning(stop)).max();
        self.take_until(self.text.len() - held.unwrap_or(0))
    }

    /// All that was held back, when nothing follows that could complete it.
    pub(crate) fn take_all(&mut self) -> String {
        self.take_until(self.text.len())
    }

    /// A part of the text so far.
    pub(crate) fn text(&self, from: usize) -> &str {
        self.text.get(from..).unwrap_or_default()
    }

    /// How many bytes of the text's end are the beginning of a stop text.
    fn beginning(&self, stop: &str) -> usize {
        let rest = &self.text[self.shown..];
        let most = rest.len().min(stop.len() - 1);
        let begins = |length: &usize| {
            let end = &rest.as_bytes()[rest.len() - length..];
            stop.as_bytes().starts_with(end)
        };
        (1..=most).rev().find(begins).unwrap_or(0)
    }

    fn take_until(&mut self, end: usize) -> String {
        let text = self.text[self.shown..end].to_owned();
        self.shown = end;
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stops(stops: &[&str]) -> Stops {
        Stops {
            stops: stops.iter().map(ToString::to_string).collect(),
            tokens: Vec::new(),
            text: String::new(),
            shown: 0,
            found: None,
        }
    }

    /// What is handed out at each piece, and whether the text stopped.
    fn run(mut stops: Stops, pieces: &[&str]) -> (Vec<String>, bool) {
        let mut out = Vec::new();
        for piece in pieces {
            let stopped = stops.push(piece).is_some();
            out.push(if stopped {
                stops.take_all()
            } else {
                stops.take()
            });
            if stopped {
                return (out, true);
            }
        }
        out.push(stops.take_all());
        (out, false)
    }

    #[test]
    fn what_may_be_a_beginning_is_held_back() {
        let (out, stopped) = run(
            stops(&["END", "\n\n"]),
            &["aE", "N", "x\n", "\ty E", "ND z"],
        );
        assert_eq!(out, ["a", "", "ENx", "\n\ty ", ""]);
        assert!(stopped);
        let (out, stopped) = run(stops(&["END"]), &["a", "E"]);
        assert_eq!((out.concat().as_str(), stopped), ("aE", false));
        let (out, stopped) = run(stops(&["aab"]), &["aa", "a", "b"]);
        assert_eq!((out.concat().as_str(), stopped), ("a", true));
    }

    #[test]
    fn the_pieces_make_no_difference() {
        for (given, text, expected) in [
            (&["c", "bcd"][..], "abcd", "ab"),
            (&["bcd", "cd"], "abcd", "a"),
            (&["ü", "日本"], "x日ü", "x日"),
            (&["日本"], "日日本", "日"),
            (&["."], ".", ""),
            (&["abab"], "abaabab", "aba"),
            (&[], "all", "all"),
        ] {
            let whole = run(stops(given), &[text]).0.concat();
            assert_eq!(whole, expected);
            let letters: Vec<String> = text.chars().map(String::from).collect();
            let letters: Vec<&str> = letters.iter().map(String::as_str).collect();
            assert_eq!(run(stops(given), &letters).0.concat(), expected);
            for cut in text.char_indices().map(|(at, _)| at) {
                let (first, rest) = text.split_at(cut);
                assert_eq!(run(stops(given), &[first, rest]).0.concat(), expected);
            }
        }
    }
}
