//! How a model's text comes to standard output.
//!
//! Through a pipe it is what the model wrote, byte for byte. On a terminal lines
//! break between words, and characters that would steer the terminal are shown by
//! their numbers.

use std::io::{self, IsTerminal};

use crate::failure::Outcome;
use crate::output;
use crate::terminal::{columns, push_visible, tab, width};

/// Where a text is printed, piece by piece.
#[derive(Debug)]
pub(crate) struct Page {
    /// On a terminal.
    lines: Option<Lines>,
    ends_line: bool,
}

impl Page {
    /// Standard output, with lines that break between words where `wrap` says so
    /// and it is a terminal.
    pub(crate) fn new(wrap: bool) -> Self {
        let is_terminal = io::stdout().is_terminal();
        Self {
            lines: is_terminal.then(|| Lines::new(wrap)),
            ends_line: false,
        }
    }

    pub(crate) fn print(&mut self, piece: &str) -> Outcome {
        if piece.is_empty() {
            return Ok(());
        }
        self.ends_line = piece.ends_with('\n');
        match &mut self.lines {
            None => output::print(piece),
            Some(lines) => output::print(&lines.push(piece, columns(io::stdout()))),
        }
    }

    /// Prints what was held back, and ends the last line.
    pub(crate) fn end(&mut self) -> Outcome {
        let mut rest = match &mut self.lines {
            None => String::new(),
            Some(lines) => lines.end(columns(io::stdout())),
        };
        if !self.ends_line {
            rest.push('\n');
        }
        output::print(&rest)
    }
}

/// Lines on a terminal. The latest word is held back until it is known to be
/// whole.
#[derive(Debug)]
struct Lines {
    wrap: bool,
    column: usize,
    /// Spaces before the word.
    gap: usize,
    word: String,
    word_width: usize,
    is_return: bool,
}

impl Lines {
    fn new(wrap: bool) -> Self {
        Self {
            wrap,
            column: 0,
            gap: 0,
            word: String::new(),
            word_width: 0,
            is_return: false,
        }
    }

    /// What to print, now that these characters follow.
    fn push(&mut self, piece: &str, columns: usize) -> String {
        let mut out = String::new();
        for character in piece.chars() {
            // The end of a line may be written as two characters.
            if std::mem::take(&mut self.is_return) && character != '\n' {
                self.put('\r', columns, &mut out);
            }
            match character {
                '\r' => self.is_return = true,
                '\n' => {
                    out.push_str(&self.flush(columns));
                    out.push('\n');
                    self.column = 0;
                }
                ' ' | '\t' => {
                    out.push_str(&self.word(columns));
                    self.gap += match character {
                        '\t' => tab(self.column + self.gap),
                        _ => 1,
                    };
                }
                character => self.put(character, columns, &mut out),
            }
        }
        if !self.wrap {
            out.push_str(&self.flush(columns));
        }
        out
    }

    /// Adds a character to the word. Lines break before and after each that is
    /// wide, as those of Chinese and Japanese are; a word longer than a line breaks
    /// where the line ends.
    fn put(&mut self, character: char, columns: usize, out: &mut String) {
        let size = width(character);
        let indent = if self.column == 0 { self.gap } else { 0 };
        let is_full = indent + self.word_width + size > columns;
        if (size > 1 || is_full) && !self.word.is_empty() {
            out.push_str(&self.word(columns));
        }
        let before = self.word.len();
        push_visible(character, &mut self.word);
        self.word_width += self.word[before..].chars().map(width).sum::<usize>();
        if size > 1 {
            out.push_str(&self.word(columns));
        }
    }

    /// The word, and the spaces before it or the end of the line in their place.
    fn word(&mut self, columns: usize) -> String {
        if self.word.is_empty() {
            return String::new();
        }
        let gap = std::mem::take(&mut self.gap);
        let word = std::mem::take(&mut self.word);
        let size = std::mem::take(&mut self.word_width);
        if self.wrap && self.column > 0 && size > 0 && self.column + gap + size > columns {
            self.column = size;
            return format!("\n{word}");
        }
        self.column += gap + size;
        if self.column > columns {
            self.column %= columns;
        }
        format!("{:gap$}{word}", "")
    }

    /// All that is left of a text.
    fn end(&mut self, columns: usize) -> String {
        let mut out = String::new();
        if std::mem::take(&mut self.is_return) {
            self.put('\r', columns, &mut out);
        }
        out + &self.flush(columns)
    }

    /// The word that was held back, and spaces.
    fn flush(&mut self, columns: usize) -> String {
        let mut out = self.word(columns);
        let gap = std::mem::take(&mut self.gap);
        if self.column + gap <= columns {
            self.column += gap;
            out.push_str(&" ".repeat(gap));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrapped(pieces: &[&str], columns: usize, wrap: bool) -> String {
        let mut lines = Lines::new(wrap);
        let mut out = String::new();
        for piece in pieces {
            out.push_str(&lines.push(piece, columns));
        }
        out + &lines.end(columns)
    }

    #[test]
    fn lines_break_between_words() {
        let text = "The quick brown fox\n  jumps an\tox.\n";
        let expected = "The quick\nbrown fox\n  jumps an\nox.\n";
        assert_eq!(wrapped(&[text], 10, true), expected);
        let characters: Vec<String> = text.chars().map(String::from).collect();
        let characters: Vec<&str> = characters.iter().map(String::as_str).collect();
        assert_eq!(wrapped(&characters, 10, true), expected);
        assert_eq!(
            wrapped(&["abcdefghijklm no"], 5, true),
            "abcde\nfghij\nklm\nno"
        );
        assert_eq!(wrapped(&["a abcdefg"], 5, true), "a\nabcde\nfg");
        assert_eq!(wrapped(&["漢字漢字 ab"], 5, true), "漢字\n漢字\nab");
        assert_eq!(wrapped(&["12345 6 "], 5, true), "12345\n6 ");
    }

    #[test]
    fn without_wrapping_nothing_is_held_back() {
        let mut lines = Lines::new(false);
        assert_eq!(lines.push("The qu", 5), "The qu");
        assert_eq!(lines.push("ick \n", 5), "ick \n");
    }

    #[test]
    fn what_steers_a_terminal_is_text() {
        for wrap in [true, false] {
            let shown = wrapped(&["a\x1b]0;x\x07\r", "\nb\rc\r"], 80, wrap);
            assert_eq!(shown, "a\\u{1b}]0;x\\u{7}\nb\\rc\\r");
        }
    }
}
