//! Words of somebody else, such as a model's name or a template's error, for people to read.

use std::borrow::Cow;
use std::fmt::Write;
use std::path::Path;

/// Text from somewhere else, such as a model's name, on one line and without
/// anything that a terminal would obey or that hides what stands there: control
/// characters, line ends and marks of direction are written by their numbers.
pub fn shown(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_hidden) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match is_hidden(c) {
            true => out.extend(c.escape_default()),
            false => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// As [`shown`], for a path.
pub fn shown_path(path: &Path) -> String {
    shown_bytes(path.as_os_str().as_encoded_bytes())
}

/// As [`shown`], for bytes: those that are not UTF-8 are written by their numbers too.
pub fn shown_bytes(bytes: &[u8]) -> String {
    let mut out = String::new();
    for chunk in bytes.utf8_chunks() {
        out.push_str(&shown(chunk.valid()));
        for byte in chunk.invalid() {
            // Writing to a string cannot fail.
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out
}

/// Whether a terminal would obey a character, or people not see it where it stands.
pub fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c,
            // Marks, embeddings and isolates of direction; line and paragraph ends.
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
            // What has no width: a space, joiners of words, annotations, tags.
            | '\u{200b}' | '\u{2060}'..='\u{2064}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_is_shown_not_obeyed() {
        for (text, expected) in [
            ("plain text, ünïcödé, 日本, 👩\u{200d}🚀", None),
            ("\u{1b}[31mred", Some("\\u{1b}[31mred")),
            ("two\nlines\r", Some("two\\nlines\\r")),
            ("\u{202e}txt", Some("\\u{202e}txt")),
            ("\u{9b}2J\0", Some("\\u{9b}2J\\u{0}")),
        ] {
            assert_eq!(shown(text), expected.unwrap_or(text));
        }
        assert_eq!(shown_bytes(b"a\xff\n"), "a\\xff\\n");
    }
}
