//! Names in objects of JSON that come once: a schema that lets an object have other names than it lists lets it have one
//! twice, and of two values most readers lose one.

use std::borrow::Cow;
use std::collections::HashSet;

use crate::tokenizer::Tokenizer;

/// The tokens with quotes, with how many: those that can end a name.
pub(super) fn quotes(tokenizer: &Tokenizer) -> Vec<(u32, usize, Box<[u8]>)> {
    let of = |token: i32| {
        let bytes = tokenizer.token_bytes(token);
        let quotes = bytes.iter().filter(|byte| **byte == b'"').count();
        let is_text = !tokenizer.is_control(token) && !tokenizer.is_end(token);
        (quotes > 0 && is_text).then(|| (token as u32, quotes, bytes.into()))
    };
    (0..tokenizer.vocab_size() as i32).filter_map(of).collect()
}

/// A string, as far as it has come.
#[derive(Debug, Default, Clone)]
struct Text {
    /// Between its quotes.
    raw: Vec<u8>,
    is_escaped: bool,
    is_name: bool,
}

/// Where a text of JSON is, and the names that its open objects have.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// Of each object that is open; `None` for a list.
    open: Vec<Option<HashSet<Box<[u8]>>>>,
    text: Option<Text>,
    /// Whether a string that begins next is a name.
    name_next: bool,
}

/// What a text becomes by a token, beside what it is.
struct Ahead<'a> {
    names: &'a Names,
    /// How many of its objects and lists are open still.
    left: usize,
    /// Those that the token opens, and the names that it gives.
    opened: Vec<Option<Vec<Box<[u8]>>>>,
    /// The names that it gives to one that was open.
    given: Vec<(usize, Box<[u8]>)>,
}

impl Names {
    /// The text goes on.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        for byte in bytes {
            let name = step((&mut self.text, &mut self.name_next), *byte, || {
                self.open.last().is_some_and(Option::is_some)
            });
            match (name, byte) {
                (Some(Some(name)), _) => {
                    if let Some(Some(names)) = self.open.last_mut() {
                        names.insert(name);
                    }
                }
                (Some(None), _) => {}
                (None, b'{') => self.open.push(Some(HashSet::new())),
                (None, b'[') => self.open.push(None),
                (None, b'}' | b']') => drop(self.open.pop()),
                _ => {}
            }
        }
    }

    /// How many quotes a token has at least that ends a name.
    pub(super) fn least_quotes(&self) -> usize {
        match &self.text {
            Some(text) if text.is_name => 1,
            Some(_) => 3,
            None => 2,
        }
    }

    /// Whether a token gives an object a name that it has.
    pub(super) fn doubles(&self, bytes: &[u8]) -> bool {
        let (mut text, mut name_next) = (self.text.clone(), self.name_next);
        let mut ahead = Ahead {
            names: self,
            left: self.open.len(),
            opened: Vec::new(),
            given: Vec::new(),
        };
        for byte in bytes {
            let name = step((&mut text, &mut name_next), *byte, || ahead.in_object());
            match (name, byte) {
                (Some(Some(name)), _) if !ahead.give(&name) => return true,
                (Some(_), _) => {}
                (None, b'{') => ahead.opened.push(Some(Vec::new())),
                (None, b'[') => ahead.opened.push(None),
                (None, b'}' | b']') => ahead.close(),
                _ => {}
            }
        }
        false
    }
}

impl Ahead<'_> {
    fn in_object(&self) -> bool {
        match self.opened.last() {
            Some(opened) => opened.is_some(),
            None => self.left > 0 && self.names.open[self.left - 1].is_some(),
        }
    }

    fn close(&mut self) {
        if self.opened.pop().is_none() {
            self.left = self.left.saturating_sub(1);
        }
    }

    /// Whether the innermost object did not have a name, which it has now.
    fn give(&mut self, name: &[u8]) -> bool {
        if let Some(opened) = self.opened.last_mut() {
            let names = opened.get_or_insert_default();
            let is_new = !names.iter().any(|other| **other == *name);
            names.push(name.into());
            return is_new;
        }
        let at = self.left.checked_sub(1);
        let had = at.and_then(|at| self.names.open[at].as_ref());
        let mut given = self.given.iter();
        let is_new = !had.is_some_and(|names| names.contains(name))
            && !given.any(|(left, other)| *left == self.left && **other == *name);
        self.given.push((self.left, name.into()));
        is_new
    }
}

/// Takes a byte: `None` where it is of no string, and else the name that it ends, if it does.
fn step(
    (text, name_next): (&mut Option<Text>, &mut bool),
    byte: u8,
    in_object: impl Fn() -> bool,
) -> Option<Option<Box<[u8]>>> {
    let Some(open) = text else {
        match byte {
            b'"' => {
                *text = Some(Text {
                    is_name: *name_next,
                    ..Text::default()
                });
                return Some(None);
            }
            b'{' => *name_next = true,
            b',' => *name_next = in_object(),
            b'[' | b':' => *name_next = false,
            _ => {}
        }
        return None;
    };
    match byte {
        _ if open.is_escaped => open.is_escaped = false,
        b'\\' => open.is_escaped = true,
        b'"' => {
            let ended = text.take().filter(|text| text.is_name);
            return Some(ended.map(|text| meaning(&text.raw).into()));
        }
        _ => {}
    }
    open.raw.push(byte);
    Some(None)
}

/// A string without its escapes: there is more than one way to write a name.
fn meaning(raw: &[u8]) -> Cow<'_, [u8]> {
    if !raw.contains(&b'\\') {
        return raw.into();
    }
    let quoted = [b"\"", raw, b"\""].concat();
    match serde_json::from_slice::<String>(&quoted) {
        Ok(text) => Cow::Owned(text.into_bytes()),
        Err(_) => raw.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Names {
        let mut names = Names::default();
        names.push(text.as_bytes());
        names
    }

    #[test]
    fn names_are_told_from_texts_and_objects_from_each_other() {
        for (before, token) in [
            ("{\"a\": 1, \"a", "\""),
            ("{\"a\": 1, \"", "a\": 2"),
            ("{\"a\": 1", ", \"a\""),
            ("{\"a\": {\"b\": [{\"a\": 3}]}", ",\"a\":"),
            ("{\"a\": {\"b\": 1", ",\"b\""),
            ("{\"a\": \"x", "\",\"a\":"),
            ("{\"a\\\"b\": 1, ", "\"a\\\"b\""),
            ("{\"ä\": 1, \"\\u00", "e4\""),
            ("[{\"a\": 1", ", \"b\":2,\"b\""),
            ("[", "{\"a\":1,\"a\":"),
            ("{\"a\": [{", "}],\"a\":"),
        ] {
            assert!(at(before).doubles(token.as_bytes()), "{before} {token}");
        }
        for (before, token) in [
            ("{\"a\": 1, \"", "ab\""),
            ("{\"a\": 1, \"a", "\\\""),
            ("{\"a\": ", "\"a\""),
            ("{\"a\": {", "\"a\":"),
            ("{\"a\": [{\"b\": 1},{", "\"b\":"),
            ("{\"a\": [\"a\"", ", \"a\""),
            ("{\"a\": 1}", ", \"a\""),
            ("{\"a\": \"x", "\\\",\\\"a\\\":"),
            ("[\"a\"", ",\"a\",\"a\""),
        ] {
            assert!(!at(before).doubles(token.as_bytes()), "{before} {token}");
        }
    }
}
