//! The words and signs of a C++ text, without comments.

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A name or a keyword.
    Word,
    /// A number, with its suffix.
    Number,
    /// Text between quotes.
    Quoted,
    /// One sign, or two that belong together.
    Sign,
}

/// A token and its line, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token<'a> {
    pub(super) kind: Kind,
    pub(super) text: &'a str,
    pub(super) line: usize,
}

/// Pairs of signs that mean something of their own to the rules.
const PAIRS: [&str; 6] = ["&&", "||", "::", "[[", "->", "=="];

/// The tokens of a text. Lines that begin with `#` are among them, sign by sign.
pub(super) fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut line = 1;
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let (kind, length) = if let Some(comment) = comment(rest) {
            (None, comment)
        } else if first.is_whitespace() {
            (None, first.len_utf8())
        } else if first.is_ascii_digit() {
            (Some(Kind::Number), number(rest))
        } else if is_word(first) {
            (
                Some(Kind::Word),
                rest.find(|c| !is_word(c)).unwrap_or(rest.len()),
            )
        } else if first == '"' || first == '\'' {
            let end = rest[1..].find(first).map_or(rest.len(), |at| at + 2);
            (Some(Kind::Quoted), end)
        } else if PAIRS.iter().any(|pair| rest.starts_with(pair)) {
            (Some(Kind::Sign), 2)
        } else {
            (Some(Kind::Sign), first.len_utf8())
        };
        let (text, behind) = rest.split_at(length);
        if let Some(kind) = kind {
            tokens.push(Token { kind, text, line });
        }
        line += text.matches('\n').count();
        rest = behind;
    }
    tokens
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// The length of the comment that a text begins with, if it does.
fn comment(text: &str) -> Option<usize> {
    if text.starts_with("//") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    let inside = text.strip_prefix("/*")?;
    Some(inside.find("*/").map_or(text.len(), |at| at + 4))
}

/// The length of the number that a text begins with: digits, letters and points, and signs behind an exponent's letter.
fn number(text: &str) -> usize {
    let mut before = ' ';
    let hexadecimal = text.starts_with("0x");
    let ends = |c: char| {
        let exponent = !hexadecimal && matches!(before, 'e' | 'E') && matches!(c, '+' | '-');
        before = c;
        !(is_word(c) || c == '.' || exponent)
    };
    text.find(ends).unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_fall_into_words_numbers_and_signs() {
        let text = "a->b /* c\n */ && 1.5e-3f//x\n[[0xe+y\"in (\"";
        let given: Vec<_> = tokens(text).iter().map(|t| (t.text, t.line)).collect();
        let expected = [
            ("a", 1),
            ("->", 1),
            ("b", 1),
            ("&&", 2),
            ("1.5e-3f", 2),
            ("[[", 3),
            ("0xe", 3),
            ("+", 3),
            ("y", 3),
            ("\"in (\"", 3),
        ];
        assert_eq!(given, expected);
    }
}
