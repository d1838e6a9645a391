//! `<|tool_call_start|>[name(key="text", other=3), name()]<|tool_call_end|>`, as LFM2 has it: calls as Python writes them.
//!
//! After the chat templates of LiquidAI's models. Values are Python's literals, and JSON's `true`, `false` and `null`. One of
//! those templates puts texts between quotes without escaping those within: a quote ends a text where what follows it can
//! follow a value.

use serde_json::Value;

use super::coder::Types;
use super::family::{Family, Lookout, Out};
use super::json::escape;
use super::tool::{LONGEST_NAME, is_name};

/// What calls stand between.
pub(super) const BEGIN: &str = "<|tool_call_start|>";
pub(super) const END: &str = "<|tool_call_end|>";

/// What no key without quotes has in it.
pub(super) const NO_KEY: &str = ",()[]{}\"'<=";

/// The longest key, in bytes.
const LONGEST_KEY: usize = 256;

/// How deep values may nest: what reads them as JSON has a bound too.
const DEEPEST: usize = 100;

#[derive(Debug, Default)]
pub(super) struct Pythonic {
    text: Lookout,
    state: State,
    /// What is open, the call's arguments first.
    open: Vec<Frame>,
    /// The schema of the next value.
    next: Value,
    /// What may be the mark at the end.
    held: String,
}

/// Arguments, a dictionary, or a list.
#[derive(Debug)]
struct Frame {
    end: char,
    /// What stands between a key and its value; none in lists.
    link: Option<char>,
    schema: Value,
    any: bool,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Text,
    /// Before the parenthesis of a call: all that has come since the last call or the mark, which is a part of it.
    Head(String),
    /// Before a key, or an end.
    Key,
    /// In a key without quotes.
    InKey(String),
    /// Behind a key between quotes.
    Link,
    /// Before a value, or a list's end.
    Value,
    /// In a value that is no text.
    Plain(String),
    InText(Quoted),
    /// Behind a value.
    Behind,
    /// Behind a call; behind the list of calls.
    Between,
    Over,
}

/// A text between quotes.
#[derive(Debug)]
struct Quoted {
    quote: char,
    is_key: bool,
    /// The text, where it is looked at once it is whole.
    kept: Option<String>,
    /// What has come of an escape, behind its backslash.
    escape: Option<String>,
    /// The first half of a character that takes two escapes.
    half: Option<u32>,
    /// A quote that may be the last, and white space behind it.
    closing: String,
}

/// What a character was to a text.
enum Fed {
    Part,
    /// The text has ended before it.
    Behind,
}

impl Quoted {
    fn new(quote: char, is_key: bool, kept: bool) -> Self {
        Self {
            quote,
            is_key,
            kept: kept.then(String::new),
            escape: None,
            half: None,
            closing: String::new(),
        }
    }

    fn push(&mut self, c: char, out: &mut Out) -> Fed {
        if !self.closing.is_empty() {
            if c.is_whitespace() {
                self.closing.push(c);
                return Fed::Part;
            }
            if ",)]}:<".contains(c) {
                return Fed::Behind;
            }
            for c in std::mem::take(&mut self.closing).chars() {
                self.say(c, out);
            }
        }
        match &mut self.escape {
            Some(escape) => {
                escape.push(c);
                self.unescape(out);
            }
            None if c == '\\' => self.escape = Some(String::new()),
            None if c == self.quote => self.closing.push(c),
            None => self.say(c, out),
        }
        Fed::Part
    }

    /// Looks at what has come of an escape, and says what it stands for once that is known.
    fn unescape(&mut self, out: &mut Out) {
        let Some(escape) = self.escape.take() else {
            return;
        };
        let mut chars = escape.chars();
        let Some(kind) = chars.next() else {
            return;
        };
        let digits = chars.as_str();
        let plain = match kind {
            'n' => Some('\n'),
            't' => Some('\t'),
            'r' => Some('\r'),
            'b' => Some('\u{8}'),
            'f' => Some('\u{c}'),
            'a' => Some('\u{7}'),
            'v' => Some('\u{b}'),
            '0' => Some('\0'),
            '\\' | '\'' | '"' | '/' => Some(kind),
            _ => None,
        };
        let count = match kind {
            'x' => 2,
            'u' => 4,
            'U' => 8,
            _ => 0,
        };
        if let Some(c) = plain {
            self.say(c, out);
        } else if digits.len() < count && digits.chars().all(|c| c.is_ascii_hexdigit()) {
            self.escape = Some(escape);
        } else if let (1.., Ok(code)) = (count, u32::from_str_radix(digits, 16)) {
            self.say_code(code, out);
        } else {
            // What is no escape stands for itself.
            self.say('\\', out);
            for c in escape.chars() {
                self.say(c, out);
            }
        }
    }

    fn say_code(&mut self, code: u32, out: &mut Out) {
        if (0xd800..0xdc00).contains(&code) {
            self.end_half(out);
            self.half = Some(code);
            return;
        }
        let code = match (self.half, code) {
            (Some(half), 0xdc00..0xe000) => {
                self.half = None;
                0x10000 + ((half - 0xd800) << 10) + (code - 0xdc00)
            }
            _ => code,
        };
        self.say(
            char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER),
            out,
        );
    }

    /// The first half of a character is none without the second.
    fn end_half(&mut self, out: &mut Out) {
        if self.half.take().is_some() {
            self.write(char::REPLACEMENT_CHARACTER, out);
        }
    }

    fn say(&mut self, c: char, out: &mut Out) {
        self.end_half(out);
        self.write(c, out);
    }

    fn write(&mut self, c: char, out: &mut Out) {
        match &mut self.kept {
            Some(kept) => kept.push(c),
            None => {
                let mut text = String::new();
                escape(&mut text, c);
                out.arguments(&text);
            }
        }
    }
}

impl Pythonic {
    /// Takes a character; gives it back where it is no part of a call.
    fn step(&mut self, c: char, out: &mut Out) -> bool {
        match &mut self.state {
            State::Text => false,
            State::Head(_) => self.head(c, out),
            State::InText(text) => match text.push(c, out) {
                Fed::Part => true,
                Fed::Behind => self.end_text(out) && self.step(c, out),
            },
            State::InKey(_) => self.in_key(c, out),
            State::Plain(_) => self.plain(c, out),
            _ if c == '<' || !self.held.is_empty() => self.mark(c, out),
            _ if c.is_whitespace() => true,
            State::Key => self.key(c, out),
            State::Link => {
                self.state = State::Value;
                c == ':'
            }
            State::Value => self.value(c, out),
            State::Behind => match c {
                ',' => {
                    let has_keys = self.open.last().is_some_and(|frame| frame.link.is_some());
                    self.state = if has_keys { State::Key } else { State::Value };
                    true
                }
                _ => self.close(c, out),
            },
            State::Between => match c {
                ',' => {
                    self.state = State::Head(c.to_string());
                    true
                }
                ']' => {
                    self.state = State::Over;
                    true
                }
                _ => false,
            },
            State::Over => false,
        }
    }

    /// Looks for the name of a tool and the parenthesis behind it.
    fn head(&mut self, c: char, out: &mut Out) -> bool {
        let State::Head(raw) = &mut self.state else {
            return false;
        };
        let before = raw.strip_prefix(BEGIN);
        let said = before.unwrap_or(raw.strip_prefix(',').unwrap_or(raw));
        let said = said.trim_start();
        let said = match before {
            Some(_) => said.strip_prefix('[').unwrap_or(said).trim_start(),
            None => said,
        };
        if c == '(' {
            let found = out.tool(said.trim_end());
            let found = found.map(|tool| (tool.name.clone(), tool.parameters.clone()));
            raw.push(c);
            match found {
                None => {
                    out.text(&std::mem::take(raw));
                    self.state = State::Text;
                }
                Some((name, schema)) => {
                    out.call(&name);
                    self.next = schema;
                    self.open(c, out);
                }
            }
            return true;
        }
        let is_begun = !said.is_empty();
        let fits = match c {
            '[' => before.is_some_and(|before| before.trim().is_empty()),
            _ if c.is_whitespace() => true,
            _ => {
                let name = format!("{said}{c}");
                name.len() <= LONGEST_NAME && is_name(&name)
            }
        };
        // White space ends a name.
        if fits && !(is_begun && said.ends_with(char::is_whitespace) && !c.is_whitespace()) {
            raw.push(c);
            return true;
        }
        out.text(&std::mem::take(raw));
        false
    }

    /// Looks for the mark at the end where there is no text.
    fn mark(&mut self, c: char, out: &mut Out) -> bool {
        self.held.push(c);
        if self.held == END {
            self.held.clear();
            self.close_all(out);
            return true;
        }
        if END.starts_with(&self.held) {
            return true;
        }
        let mut held = std::mem::take(&mut self.held);
        held.pop();
        self.state = State::Text;
        out.text(&held);
        false
    }

    fn key(&mut self, c: char, out: &mut Out) -> bool {
        let in_call = self
            .open
            .last()
            .is_some_and(|frame| frame.link == Some('='));
        match c {
            ')' | '}' => self.close(c, out),
            '"' | '\'' if !in_call => {
                self.state = State::InText(Quoted::new(c, true, true));
                true
            }
            '"' | '\'' | '(' | '[' | ']' | '{' | ',' | '=' | ':' => false,
            _ => {
                self.state = State::InKey(c.to_string());
                true
            }
        }
    }

    fn in_key(&mut self, c: char, out: &mut Out) -> bool {
        let State::InKey(key) = &mut self.state else {
            return false;
        };
        if self.open.last().is_some_and(|frame| frame.link == Some(c)) {
            let key = key.trim().to_owned();
            self.say_key(&key, out);
            self.state = State::Value;
            return true;
        }
        key.push(c);
        key.len() <= LONGEST_KEY && !NO_KEY.contains(c)
    }

    fn say_key(&mut self, key: &str, out: &mut Out) {
        let mut written = Value::from(key).to_string();
        written.push_str(": ");
        if let Some(frame) = self.open.last_mut() {
            if std::mem::replace(&mut frame.any, true) {
                written.insert_str(0, ", ");
            }
            let schema = frame.schema["properties"].get(key);
            self.next = schema.cloned().unwrap_or_default();
        }
        out.arguments(&written);
    }

    /// The first character of a value.
    fn value(&mut self, c: char, out: &mut Out) -> bool {
        let ends_list = self
            .open
            .last()
            .is_some_and(|f| f.link.is_none() && f.end == c);
        match c {
            _ if ends_list => return self.close(c, out),
            '{' | '[' | '(' => {
                self.begin_value(out);
                if self.open.len() == DEEPEST {
                    return false;
                }
                self.open(c, out);
            }
            '"' | '\'' => {
                self.begin_value(out);
                let types = Types::of(&self.next);
                let is_other = !types.has_text() && !types.others().is_empty();
                if !is_other {
                    out.arguments("\"");
                }
                self.state = State::InText(Quoted::new(c, false, is_other));
            }
            _ => {
                self.begin_value(out);
                self.state = State::Plain(String::new());
                return self.step(c, out);
            }
        }
        true
    }

    /// A value of a list stands behind a comma, and is of what the list's schema says.
    fn begin_value(&mut self, out: &mut Out) {
        if let Some(list) = self.open.last_mut().filter(|frame| frame.link.is_none()) {
            if std::mem::replace(&mut list.any, true) {
                out.arguments(", ");
            }
            self.next = list.schema.get("items").cloned().unwrap_or_default();
        }
    }

    fn open(&mut self, c: char, out: &mut Out) {
        let in_call = !self.open.is_empty();
        let (end, link) = match c {
            '(' if !in_call => (')', Some('=')),
            '{' => ('}', Some(':')),
            '(' => (')', None),
            _ => (']', None),
        };
        out.arguments(if link.is_some() { "{" } else { "[" });
        self.open.push(Frame {
            end,
            link,
            schema: std::mem::take(&mut self.next),
            any: false,
        });
        self.state = match link {
            Some(_) => State::Key,
            None => State::Value,
        };
    }

    fn close(&mut self, c: char, out: &mut Out) -> bool {
        let Some(frame) = self.open.pop_if(|frame| frame.end == c) else {
            return false;
        };
        out.arguments(if frame.link.is_some() { "}" } else { "]" });
        self.state = match self.open.is_empty() {
            true => State::Between,
            false => State::Behind,
        };
        true
    }

    /// The mark at the end has come, whatever was open: small models leave parentheses out.
    fn close_all(&mut self, out: &mut Out) {
        while let Some(frame) = self.open.pop() {
            out.arguments(if frame.link.is_some() { "}" } else { "]" });
        }
        self.state = State::Text;
    }

    /// A text has ended, and what ended it is behind it.
    fn end_text(&mut self, out: &mut Out) -> bool {
        let State::InText(mut text) = std::mem::replace(&mut self.state, State::Behind) else {
            return false;
        };
        text.end_half(out);
        match text.kept {
            Some(key) if text.is_key => {
                self.say_key(&key, out);
                self.state = State::Link;
                return key.len() <= LONGEST_KEY;
            }
            Some(kept) => out.arguments(&Types::of(&self.next).json(&kept)),
            None => out.arguments("\""),
        }
        true
    }

    fn plain(&mut self, c: char, out: &mut Out) -> bool {
        let State::Plain(text) = &mut self.state else {
            return false;
        };
        let types = Types::of(&self.next);
        if c == ',' || self.open.last().is_some_and(|frame| frame.end == c) {
            out.arguments(&types.json(text.trim()));
            self.state = State::Behind;
            return self.step(c, out);
        }
        text.push(c);
        if let Some(said) = text.strip_suffix(END) {
            out.arguments(&types.json(said.trim()));
            self.close_all(out);
        }
        true
    }
}

impl Family for Pythonic {
    fn push(&mut self, c: char, out: &mut Out) {
        if !matches!(self.state, State::Text) {
            if self.step(c, out) {
                return;
            }
            // What was given out of a call stays.
            self.state = State::Text;
            self.open.clear();
            self.held.clear();
        }
        if self.text.push(c, &[BEGIN], &mut |c| out.char(c)).is_some() {
            self.state = State::Head(BEGIN.to_owned());
        }
    }

    fn finish(&mut self, out: &mut Out) {
        out.text(&self.text.finish());
        match &self.state {
            // A comma behind a call says nothing.
            State::Head(raw) if raw.trim() != "," => out.text(raw),
            State::InText(text) if !text.closing.is_empty() && !text.is_key => {
                self.end_text(out);
            }
            // What can be one.
            State::Plain(text) => out.arguments(text),
            // The beginning of an end says nothing.
            _ => {}
        }
    }
}
