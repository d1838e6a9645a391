//! What characters look like on a terminal.

use unicode_width::UnicodeWidthChar;
use walsh_runtime::shown::is_hidden;

/// A character as it is put on a terminal: itself, or its number where the
/// terminal would obey it.
pub(crate) fn push_visible(character: char, out: &mut String) {
    match is_hidden(character) {
        true => out.extend(character.escape_default()),
        false => out.push(character),
    }
}

/// The columns that a character takes.
pub(crate) fn width(character: char) -> usize {
    character.width().unwrap_or(0)
}

/// The columns to the next stop of a tab.
pub(crate) fn tab(column: usize) -> usize {
    8 - column % 8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_a_terminal_is_shown_by_its_number() {
        let shown = |text: &str| {
            let mut out = String::new();
            text.chars().for_each(|c| push_visible(c, &mut out));
            out
        };
        assert_eq!(shown("aé漢\u{301}🙂"), "aé漢\u{301}🙂");
        assert_eq!(shown("\x1b[31m\r\u{9b}"), "\\u{1b}[31m\\r\\u{9b}");
        assert_eq!(shown("\u{202e}x"), "\\u{202e}x");
    }
}
