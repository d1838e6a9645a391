//! What Python's methods of strings do.

use super::budget::{Heap, Outcome, fail};
use super::value::{Builder, Items, List, Value};

/// Python's `isspace` of a character.
pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

/// Which ends of a text are meant.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Left,
    Right,
    Both,
}

/// The text without the characters of `chars`, or without space, at its ends.
pub(super) fn strip<'text>(text: &'text str, chars: Option<&str>, side: Side) -> &'text str {
    let goes = |c: char| match chars {
        Some(chars) => chars.contains(c),
        None => is_space(c),
    };
    let text = match side {
        Side::Right => text,
        _ => text.trim_start_matches(goes),
    };
    match side {
        Side::Left => text,
        _ => text.trim_end_matches(goes),
    }
}

/// The pieces between separators, or between runs of space, cut `most` times at most, from either end.
pub(super) fn split(
    heap: &Heap,
    text: &str,
    separator: Option<&str>,
    most: usize,
    from_right: bool,
) -> Outcome<List> {
    heap.touch(text.len())?;
    let mut items = Items::new(heap)?;
    let Some(separator) = separator else {
        let mut rest = strip(
            text,
            None,
            if from_right { Side::Right } else { Side::Left },
        );
        while !rest.is_empty() {
            let cut = match from_right {
                _ if items.len() == most => None,
                true => rest
                    .char_indices()
                    .rfind(|(_, c)| is_space(*c))
                    .map(|(at, c)| (at, at + c.len_utf8())),
                false => rest
                    .char_indices()
                    .find(|(_, c)| is_space(*c))
                    .map(|(at, _)| (at, at)),
            };
            let (piece, others) = match (cut, from_right) {
                (None, _) => (rest, ""),
                (Some((start, end)), true) => (&rest[end..], &rest[..start]),
                (Some((start, _)), false) => (&rest[..start], &rest[start..]),
            };
            items.push(heap.str(piece)?)?;
            rest = strip(
                others,
                None,
                if from_right { Side::Right } else { Side::Left },
            );
        }
        if from_right {
            items.reverse();
        }
        return items.finish();
    };
    if separator.is_empty() {
        return fail("split: empty separator");
    }
    let most = most.saturating_add(1);
    if from_right {
        for piece in text.rsplitn(most, separator) {
            items.push(heap.str(piece)?)?;
        }
        items.reverse();
    } else {
        for piece in text.splitn(most, separator) {
            items.push(heap.str(piece)?)?;
        }
    }
    items.finish()
}

/// The lines of a text, with their ends if asked.
pub(super) fn lines(text: &str, keep_ends: bool) -> impl Iterator<Item = &str> {
    let is_end = |c: char| {
        matches!(
            c,
            '\n' | '\r' | '\x0b' | '\x0c' | '\x1c'..='\x1e' | '\u{85}' | '\u{2028}' | '\u{2029}'
        )
    };
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (stop, next) = match rest.find(is_end) {
            None => (rest.len(), rest.len()),
            Some(at) if rest[at..].starts_with("\r\n") => (at, at + 2),
            Some(at) => (at, at + rest[at..].chars().next().map_or(0, char::len_utf8)),
        };
        let line = &rest[..if keep_ends { next } else { stop }];
        rest = &rest[next..];
        Some(line)
    })
}

/// The text with `old` replaced by `new`, `most` times at most.
pub(super) fn replace(
    heap: &Heap,
    text: &str,
    (old, new): (&str, &str),
    most: usize,
) -> Outcome<Value> {
    heap.touch(text.len())?;
    let mut out = Builder::new(heap)?;
    let mut last = 0;
    // An empty pattern is found before each character and at the end, as in Python.
    for (start, part) in text.match_indices(old).take(most) {
        heap.step(1)?;
        out.push(&text[last..start])?;
        out.push(new)?;
        last = start + part.len();
    }
    out.push(&text[last..])?;
    Ok(Value::Str(out.finish()))
}

/// The text in a field, with `fill` beside it.
pub(super) fn pad(heap: &Heap, text: &str, width: usize, fill: (char, Side)) -> Outcome<Value> {
    let (fill, side) = fill;
    let missing = width.saturating_sub(text.chars().count());
    let left = match side {
        Side::Left => missing,
        Side::Right => 0,
        // Python puts what is odd to the left where the width is odd.
        Side::Both => missing / 2 + (missing & width & 1),
    };
    let mut buffer = [0; 4];
    let fill = &*fill.encode_utf8(&mut buffer);
    let mut out = Builder::new(heap)?;
    out.repeat(fill, left)?;
    out.push(text)?;
    out.repeat(fill, missing - left)?;
    Ok(Value::Str(out.finish()))
}

/// The byte at which a character is; the end of the text for those past it.
pub(super) fn offset(text: &str, ascii: bool, index: usize) -> usize {
    match ascii {
        true => index.min(text.len()),
        false => text
            .char_indices()
            .nth(index)
            .map_or(text.len(), |(at, _)| at),
    }
}

/// Appends a character as the first of a word.
fn push_title(out: &mut Builder, c: char) -> Outcome<()> {
    let title = match c {
        // The digraphs have a form of their own, and Georgian words begin as they go on.
        '\u{1c4}'..='\u{1c6}' => '\u{1c5}',
        '\u{1c7}'..='\u{1c9}' => '\u{1c8}',
        '\u{1ca}'..='\u{1cc}' => '\u{1cb}',
        '\u{1f1}'..='\u{1f3}' => '\u{1f2}',
        '\u{10d0}'..='\u{10ff}' => c,
        '\u{1f80}'..='\u{1faf}' => char::from_u32(c as u32 | 8).unwrap_or(c),
        '\u{1fb3}' | '\u{1fc3}' | '\u{1ff3}' => char::from_u32(c as u32 + 9).unwrap_or(c),
        '\u{1fbc}' | '\u{1fcc}' | '\u{1ffc}' => c,
        _ => {
            for (index, upper) in c.to_uppercase().enumerate() {
                match index {
                    0 => out.push_char(upper)?,
                    _ => out.push(&upper.to_lowercase().to_string())?,
                }
            }
            return Ok(());
        }
    };
    out.push_char(title)
}

/// The rest of a word in lower case, as Rust does it: a sigma at the end is a final one.
fn push_lower(out: &mut Builder, text: &str) -> Outcome<()> {
    out.push(&text.to_lowercase())
}

pub(super) fn capitalize(heap: &Heap, text: &str) -> Outcome<Value> {
    let mut out = Builder::new(heap)?;
    let mut chars = text.chars();
    if let Some(first) = chars.next() {
        push_title(&mut out, first)?;
        push_lower(&mut out, chars.as_str())?;
    }
    Ok(Value::Str(out.finish()))
}

/// Whether Python's `title` takes the character for a part of a word.
fn is_cased(c: char) -> bool {
    c.is_lowercase() || c.is_uppercase() || ('\u{1c5}'..='\u{1f2}').contains(&c) && is_title(c)
}

fn is_title(c: char) -> bool {
    matches!(c, '\u{1c5}' | '\u{1c8}' | '\u{1cb}' | '\u{1f2}')
}

/// Each word with a large first letter: a word is a run of letters that have a case.
pub(super) fn title(heap: &Heap, text: &str) -> Outcome<Value> {
    let mut out = Builder::new(heap)?;
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let next = &rest[c.len_utf8()..];
        if !is_cased(c) {
            out.push_char(c)?;
            rest = next;
            continue;
        }
        push_title(&mut out, c)?;
        let end = next.find(|c| !is_cased(c)).unwrap_or(next.len());
        push_lower(&mut out, &next[..end])?;
        rest = &next[end..];
    }
    Ok(Value::Str(out.finish()))
}

/// The words of Jinja2's filter `title`, which are those between spaces, hyphens and brackets.
pub(super) fn title_words(heap: &Heap, text: &str) -> Outcome<Value> {
    let is_border = |c: char| is_space(c) || matches!(c, '-' | '(' | '{' | '[' | '<');
    let mut out = Builder::new(heap)?;
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let border = is_border(c);
        let end = rest.find(|c| is_border(c) != border).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        if border {
            out.push(word)?;
        } else {
            out.push(&c.to_uppercase().to_string())?;
            push_lower(&mut out, &word[c.len_utf8()..])?;
        }
        rest = after;
    }
    Ok(Value::Str(out.finish()))
}

pub(super) fn swapcase(heap: &Heap, text: &str) -> Outcome<Value> {
    let mut out = Builder::new(heap)?;
    for c in text.chars() {
        match (c.is_uppercase(), c.is_lowercase()) {
            (true, _) => out.push(&c.to_lowercase().to_string())?,
            (_, true) => out.push(&c.to_uppercase().to_string())?,
            _ => out.push_char(c)?,
        }
    }
    Ok(Value::Str(out.finish()))
}

/// A text with tabs as spaces.
pub(super) fn expand_tabs(heap: &Heap, text: &str, width: usize) -> Outcome<Value> {
    let mut out = Builder::new(heap)?;
    let mut column = 0;
    for c in text.chars() {
        match c {
            '\t' if width > 0 => {
                let spaces = width - column % width;
                out.repeat(" ", spaces)?;
                column += spaces;
            }
            '\t' => {}
            '\n' | '\r' => {
                out.push_char(c)?;
                column = 0;
            }
            _ => {
                out.push_char(c)?;
                column += 1;
            }
        }
    }
    Ok(Value::Str(out.finish()))
}

/// A number with zeros between its sign and its digits.
pub(super) fn zero_fill(heap: &Heap, text: &str, width: usize) -> Outcome<Value> {
    let missing = width.saturating_sub(text.chars().count());
    let (sign, digits) = match text.starts_with(['+', '-']) {
        true => text.split_at(1),
        false => ("", text),
    };
    let mut out = Builder::new(heap)?;
    out.push(sign)?;
    out.repeat("0", missing)?;
    out.push(digits)?;
    Ok(Value::Str(out.finish()))
}

/// The tests of a text's characters, such as `isdigit`.
pub(super) fn is(text: &str, test: &str) -> Outcome<bool> {
    let all = |test: fn(char) -> bool| !text.is_empty() && text.chars().all(test);
    // Which numbers are digits and which letters are numbers is not known beyond ASCII.
    if !text.is_ascii() && matches!(test, "isdigit" | "isdecimal" | "isnumeric" | "isalnum") {
        let other = |c: char| !c.is_alphanumeric();
        let letters = |c: char| c.is_alphabetic() && !c.is_numeric();
        return match test {
            _ if text.contains(other) => Ok(false),
            "isalnum" => Ok(true),
            "isdigit" | "isdecimal" if text.contains(letters) => Ok(false),
            _ => fail(format!("{test} is supported for ASCII text alone")),
        };
    }
    Ok(match test {
        "isalpha" => all(|c| c.is_alphabetic() && !c.is_numeric()),
        "isdigit" | "isdecimal" | "isnumeric" => all(|c| c.is_ascii_digit()),
        "isalnum" => all(|c| c.is_ascii_alphanumeric()),
        "isspace" => all(is_space),
        "isascii" => text.is_ascii(),
        "isprintable" => text.chars().all(super::print::printable),
        "islower" => {
            text.contains(is_cased) && !text.contains(|c: char| c.is_uppercase() || is_title(c))
        }
        "isupper" => {
            text.contains(is_cased) && !text.contains(|c: char| c.is_lowercase() || is_title(c))
        }
        "istitle" => {
            let mut inside = false;
            for c in text.chars() {
                let large = c.is_uppercase() || is_title(c);
                if large == inside && (large || c.is_lowercase()) {
                    return Ok(false);
                }
                inside = is_cased(c);
            }
            text.contains(is_cased)
        }
        _ => return fail(format!("the method {test} of str is not supported")),
    })
}
