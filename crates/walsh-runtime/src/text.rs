//! Texts from files and standard input.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use crate::{Error, Result};

/// How many bytes are looked at together where a text is read piece by piece.
const BLOCK: usize = 1 << 20;

/// A text that is being read: UTF-8, without the byte order mark that it may begin
/// with. Anything else is refused rather than guessed at.
///
/// It may come from a pipe and have no end: no more of it is read and held than is
/// asked for.
pub struct TextReader<'a> {
    input: Box<dyn Read + 'a>,
    name: String,
    /// What was read and not handed out.
    pending: Vec<u8>,
    /// How many bytes were handed out or dropped.
    passed: u64,
    has_begun: bool,
    has_ended: bool,
}

impl<'a> TextReader<'a> {
    /// The text that an input gives; messages call it by a name.
    pub fn new(name: impl Into<String>, input: impl Read + 'a) -> Self {
        Self {
            input: Box::new(input),
            name: name.into(),
            pending: Vec::new(),
            passed: 0,
            has_begun: false,
            has_ended: false,
        }
    }

    /// The text of a file or a pipe.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let file = File::open(path).map_err(|error| Error::file(path, &error))?;
        Ok(Self::new(path.display().to_string(), file))
    }

    /// The whole text, which has `most` bytes at most.
    ///
    /// # Errors
    /// When it has more, is not UTF-8, or cannot be read.
    pub fn read_all(mut self, most: usize) -> Result<String> {
        self.fill(most.saturating_add(1))?;
        if self.pending.len() > most {
            return Err(self.error(format!(
                "it has more than {most} bytes: give a shorter text"
            )));
        }
        let whole = self.pending.len();
        self.take(whole)
    }

    /// The next piece, of about a mebibyte; `None` at the end.
    ///
    /// It ends where a tokenizer finds the same tokens as in the whole text: before
    /// the space between two words, else behind a line. A text that has neither in a
    /// whole piece is cut at a character.
    pub(crate) fn next_piece(&mut self) -> Result<Option<String>> {
        self.fill(BLOCK)?;
        let end = match self.has_ended {
            true => self.pending.len(),
            false => cut(&self.pending),
        };
        match end {
            0 => Ok(None),
            _ => self.take(end).map(Some),
        }
    }

    /// Reads until so many bytes are there, or the input ends.
    fn fill(&mut self, bytes: usize) -> Result<()> {
        let missing = bytes.saturating_sub(self.pending.len());
        let mut input = self.input.by_ref().take(missing as u64);
        let read = input.read_to_end(&mut self.pending);
        let read = read.map_err(|error| match error.kind() {
            io::ErrorKind::IsADirectory => self.error("it is a folder: give a file"),
            _ => self.error(format!("it cannot be read: {error}")),
        })?;
        self.has_ended |= read < missing;
        if !self.has_begun {
            self.has_begun = true;
            self.begin()?;
        }
        Ok(())
    }

    /// Looks at what the text begins with.
    fn begin(&mut self) -> Result<()> {
        const MARK: &[u8] = "\u{feff}".as_bytes();
        if self.pending.starts_with(MARK) {
            self.pending.drain(..MARK.len());
            self.passed = MARK.len() as u64;
            return Ok(());
        }
        match other_encoding(&self.pending) {
            Some(name) => Err(self.error(format!(
                "it is in {name}: convert it to UTF-8, such as with iconv -f {name} -t UTF-8"
            ))),
            None => Ok(()),
        }
    }

    fn take(&mut self, end: usize) -> Result<String> {
        let rest = self.pending.split_off(end);
        let bytes = std::mem::replace(&mut self.pending, rest);
        match String::from_utf8(bytes) {
            Ok(text) => {
                self.passed += text.len() as u64;
                Ok(text)
            }
            Err(error) => {
                let at = error.utf8_error().valid_up_to();
                let byte = error.as_bytes()[at];
                Err(self.error(format!(
                    "byte {} is {byte:#04x}, which is no UTF-8 there: convert it to UTF-8, such as with iconv",
                    self.passed + at as u64
                )))
            }
        }
    }

    fn error(&self, what: impl Into<String>) -> Error {
        Error::Text {
            name: self.name.clone(),
            what: what.into(),
        }
    }
}

impl std::fmt::Debug for TextReader<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TextReader")
            .field("name", &self.name)
            .field("passed", &self.passed)
            .finish_non_exhaustive()
    }
}

/// The encoding that a text's first bytes are the mark of, or that of Latin letters in
/// it, where that is not UTF-8.
fn other_encoding(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0xff, 0xfe, 0, 0, ..] | [1..=255, 0, 0, 0, ..] => Some("UTF-32LE"),
        [0, 0, 0xfe, 0xff, ..] | [0, 0, 0, 1..=255, ..] => Some("UTF-32BE"),
        [0xff, 0xfe, ..] | [1..=255, 0, 1..=255, 0, ..] => Some("UTF-16LE"),
        [0xfe, 0xff, ..] | [0, 1..=255, 0, 1..=255, ..] => Some("UTF-16BE"),
        _ => None,
    }
}

/// Where a piece of a text that goes on ends.
fn cut(bytes: &[u8]) -> usize {
    let words =
        |w: &[u8]| w[0].is_ascii_alphanumeric() && w[1] == b' ' && w[2].is_ascii_alphabetic();
    let lines = |w: &[u8]| {
        let is_text = |byte: u8| !byte.is_ascii_whitespace();
        is_text(w[0]) && w[1] == b'\n' && is_text(w[2])
    };
    if let Some(at) = bytes.windows(3).rposition(words) {
        return at + 1;
    }
    if let Some(at) = bytes.windows(3).rposition(lines) {
        return at + 2;
    }
    // The last byte that begins a character: it may be incomplete.
    let begins = |byte: &u8| (*byte as i8) >= -0x40;
    match bytes.iter().rposition(begins) {
        Some(at) if at > 0 => at,
        _ => bytes.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(bytes: &[u8]) -> Result<String> {
        TextReader::new("it.txt", bytes).read_all(64)
    }

    #[track_caller]
    fn refused(bytes: &[u8], part: &str) {
        let message = whole(bytes).expect_err("refused").to_string();
        assert!(message.starts_with("it.txt: "), "{message}");
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }

    #[test]
    fn a_mark_is_dropped_at_the_very_beginning_alone() {
        assert_eq!(whole(b"\xef\xbb\xbfThe").unwrap(), "The");
        assert_eq!(whole(b"\xef\xbb\xbf").unwrap(), "");
        assert_eq!(whole(b"").unwrap(), "");
        assert_eq!(
            whole("The\u{feff}\u{feff}".as_bytes()).unwrap(),
            "The\u{feff}\u{feff}"
        );
        assert_eq!(whole("\u{feff}\u{feff}a".as_bytes()).unwrap(), "\u{feff}a");
        assert_eq!(whole(b"a\0b").unwrap(), "a\0b");
    }

    #[test]
    fn other_encodings_are_refused_by_name() {
        let wide = |text: &str| -> Vec<u16> { text.encode_utf16().collect() };
        for (order, name) in [(true, "UTF-16LE"), (false, "UTF-16BE")] {
            for text in ["\u{feff}The", "The", "\u{feff}日本"] {
                let bytes = wide(text).into_iter().flat_map(|unit| match order {
                    true => unit.to_le_bytes(),
                    false => unit.to_be_bytes(),
                });
                refused(&bytes.collect::<Vec<u8>>(), name);
            }
        }
        for text in ["\u{feff}The", "The"] {
            let little: Vec<u8> = text
                .chars()
                .flat_map(|c| u32::from(c).to_le_bytes())
                .collect();
            let big: Vec<u8> = text
                .chars()
                .flat_map(|c| u32::from(c).to_be_bytes())
                .collect();
            refused(&little, "UTF-32LE");
            refused(&big, "UTF-32BE");
        }
        refused(b"caf\xe9 au lait", "byte 3 is 0xe9");
        refused(b"\xef\xbb\xbfcaf\xe9", "byte 6 is 0xe9");
        refused("日".as_bytes().split_last().unwrap().1, "byte 0 is 0xe6");
    }

    #[test]
    fn no_more_is_read_than_is_asked_for() {
        let endless = TextReader::new("it.txt", io::repeat(b'x'));
        let message = endless.read_all(1000).expect_err("refused").to_string();
        assert!(message.contains("more than 1000 bytes"), "{message}");
        assert_eq!(whole(&[b'x'; 64]).unwrap().len(), 64);
        let mut endless = TextReader::new("it.txt", io::repeat(b'x'));
        for _ in 0..3 {
            let piece = endless.next_piece().unwrap().expect("a piece");
            assert_eq!(piece.len(), BLOCK - 1);
        }
    }

    #[test]
    fn pieces_end_between_words_or_lines_or_characters() {
        for (unit, ends) in [("one two, ", "e"), ("日本\n語", "\n"), ("日本語", "日")] {
            let text = unit.repeat(3 * BLOCK / unit.len());
            let mut reader = TextReader::new("it.txt", text.as_bytes());
            let mut pieces = Vec::new();
            while let Some(piece) = reader.next_piece().unwrap() {
                assert!(piece.len() <= BLOCK);
                pieces.push(piece);
            }
            assert_eq!(pieces.concat(), text);
            assert!(pieces.len() > 2);
            if unit != "日本語" {
                assert!(pieces[0].ends_with(ends), "{unit:?}");
            }
        }
        let mut reader = TextReader::new("it.txt", &b"ab\xff"[..]);
        assert!(reader.next_piece().is_err());
    }
}
