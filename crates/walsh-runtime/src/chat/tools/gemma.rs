//! `<start_function_call>call:name{key:<escape>text<escape>,other:3}<end_function_call>`, as FunctionGemma has it, and the same
//! between Gemma 4's marks.
//!
//! After Google, "FunctionGemma formatting and best practices" (2025), which says that texts stand between two `<escape>`
//! and shows numbers, lists and objects without them. Of truth values, `null` and keys it shows nothing beyond plain names:
//! they are read as they are in JSON, and keys between two `<escape>` too. Gemma 4's chat template writes all of them so.

use serde_json::Value;

use super::coder::Types;
use super::family::{Family, Lookout, Out};
use super::json::escape;
use super::tool::{LONGEST_NAME, is_name};

/// What calls stand between, and texts in them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Marks(&'static [&'static str; 3]);

impl Marks {
    pub(super) const FUNCTION_GEMMA: Self =
        Self(&["<start_function_call>", "<end_function_call>", "<escape>"]);
    pub(super) const GEMMA_4: Self = Self(&["<|tool_call>", "<tool_call|>", "<|\"|>"]);

    pub(super) const fn begin(self) -> &'static str {
        self.0[0]
    }

    pub(super) const fn end(self) -> &'static str {
        self.0[1]
    }

    /// On both sides of a text.
    pub(super) const fn escape(self) -> &'static str {
        self.0[2]
    }

    pub(super) const fn all(self) -> &'static [&'static str] {
        self.0
    }
}

/// What stands before the name.
pub(super) const CALL: &str = "call:";

/// The longest key, in bytes.
const LONGEST_KEY: usize = 256;

/// How deep values may nest: what reads them as JSON has a bound too.
const DEEPEST: usize = 100;

#[derive(Debug)]
pub(super) struct Gemma {
    form: Marks,
    text: Lookout,
    state: State,
    /// The objects and lists that are open, the call's arguments first.
    open: Vec<Frame>,
    /// The schema of the next value.
    next: Value,
    /// What may be a mark between values.
    held: String,
    /// Where the end of a text is looked for.
    marks: Lookout,
}

/// An object or a list.
#[derive(Debug)]
struct Frame {
    is_object: bool,
    schema: Value,
    any: bool,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Text,
    /// Behind the mark: all that has come since, itself included.
    Head(String),
    /// Before a key, or an object's end.
    Key,
    /// In a key; whether it stands between marks.
    InKey(String, bool),
    Colon,
    /// Before a value, or a list's end.
    Value,
    /// In a value that is no text.
    Plain(String),
    /// In a text, which is kept where it is to be something else.
    InText(Option<String>),
    Behind,
    /// Behind the arguments.
    Over,
}

impl Gemma {
    pub(super) fn new(form: Marks) -> Self {
        Self {
            form,
            text: Lookout::default(),
            state: State::default(),
            open: Vec::new(),
            next: Value::default(),
            held: String::new(),
            marks: Lookout::default(),
        }
    }

    /// Takes a character; gives it back where it is no part of a call.
    fn step(&mut self, c: char, out: &mut Out) -> bool {
        match &mut self.state {
            State::Text => false,
            State::Head(_) => self.head(c, out),
            State::InText(_) => {
                self.in_text(c, out);
                true
            }
            State::InKey(..) => self.in_key(c, out),
            State::Plain(_) => self.plain(c, out),
            State::Key | State::Value | State::Behind | State::Over
                if c == '<' || !self.held.is_empty() =>
            {
                self.mark(c, out)
            }
            State::Over => {
                self.state = State::Text;
                false
            }
            _ if c.is_whitespace() => true,
            State::Colon => {
                self.state = State::Value;
                c == ':'
            }
            State::Key => match c {
                '}' => self.close(true, out),
                ':' | ',' | '{' | '[' | ']' => false,
                _ => {
                    self.state = State::InKey(c.to_string(), false);
                    true
                }
            },
            State::Value => self.value(c, out),
            State::Behind => match c {
                ',' => {
                    let in_object = self.open.last().is_some_and(|frame| frame.is_object);
                    self.state = if in_object { State::Key } else { State::Value };
                    true
                }
                '}' | ']' => self.close(c == '}', out),
                _ => false,
            },
        }
    }

    /// Looks for the name of a tool and the brace behind it.
    fn head(&mut self, c: char, out: &mut Out) -> bool {
        let State::Head(raw) = &mut self.state else {
            return false;
        };
        raw.push(c);
        let said = raw[self.form.begin().len()..].trim_start();
        let name = said.strip_prefix(CALL);
        if c == '{' {
            let name = name.and_then(|name| name.strip_suffix('{')).map(str::trim);
            match name.and_then(|name| out.tool(name)) {
                None => {
                    out.text(&std::mem::take(raw));
                    self.state = State::Text;
                }
                Some(tool) => {
                    let (name, schema) = (tool.name.clone(), tool.parameters.clone());
                    out.call(&name);
                    self.next = schema;
                    self.open('{', out);
                }
            }
            return true;
        }
        let fits = match name.map(str::trim) {
            None => CALL.starts_with(said),
            Some(name) => name.is_empty() || (name.len() <= LONGEST_NAME && is_name(name)),
        };
        if !fits {
            raw.pop();
            out.text(&std::mem::take(raw));
        }
        fits
    }

    /// Looks for marks where there is no value.
    fn mark(&mut self, c: char, out: &mut Out) -> bool {
        self.held.push(c);
        let (end, escape) = (self.form.end(), self.form.escape());
        if self.held == end {
            self.held.clear();
            self.close_all(out);
            return true;
        }
        let may_escape = matches!(self.state, State::Key | State::Value);
        if may_escape && self.held == escape {
            self.held.clear();
            match self.state {
                State::Key => self.state = State::InKey(String::new(), true),
                _ => self.begin_text(out),
            }
            return true;
        }
        if end.starts_with(&self.held) || (may_escape && escape.starts_with(&self.held)) {
            return true;
        }
        let mut held = std::mem::take(&mut self.held);
        match self.state {
            State::Value => {
                self.begin_value(out);
                held.pop();
                self.state = State::Plain(held);
                self.step(c, out)
            }
            State::Key => {
                held.pop();
                self.state = State::InKey(held, false);
                self.step(c, out)
            }
            _ => {
                held.pop();
                self.state = State::Text;
                out.text(&held);
                false
            }
        }
    }

    fn in_key(&mut self, c: char, out: &mut Out) -> bool {
        let State::InKey(key, marked) = &mut self.state else {
            return false;
        };
        let over = match *marked {
            true => {
                let mark = self
                    .marks
                    .push(c, &[self.form.escape()], &mut |c| key.push(c));
                mark.is_some()
            }
            false if c == ':' => true,
            false if matches!(c, '{' | '}' | ',') => return false,
            false => {
                key.push(c);
                false
            }
        };
        if !over {
            return key.len() <= LONGEST_KEY;
        }
        let key = if *marked { key.as_str() } else { key.trim() };
        let mut written = Value::from(key).to_string();
        written.push_str(": ");
        let state = if *marked { State::Colon } else { State::Value };
        if let Some(frame) = self.open.last_mut() {
            if std::mem::replace(&mut frame.any, true) {
                written.insert_str(0, ", ");
            }
            self.next = frame.schema["properties"]
                .get(key)
                .cloned()
                .unwrap_or_default();
        }
        out.arguments(&written);
        self.state = state;
        true
    }

    /// The first character of a value.
    fn value(&mut self, c: char, out: &mut Out) -> bool {
        match c {
            ']' => return self.close(false, out),
            '{' | '[' => {
                self.begin_value(out);
                if self.open.len() == DEEPEST {
                    return false;
                }
                self.open(c, out);
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
        if let Some(list) = self.open.last_mut().filter(|frame| !frame.is_object) {
            if std::mem::replace(&mut list.any, true) {
                out.arguments(", ");
            }
            self.next = list.schema.get("items").cloned().unwrap_or_default();
        }
    }

    fn open(&mut self, c: char, out: &mut Out) {
        out.arguments(c.encode_utf8(&mut [0; 4]));
        let is_object = c == '{';
        self.open.push(Frame {
            is_object,
            schema: std::mem::take(&mut self.next),
            any: false,
        });
        self.state = if is_object { State::Key } else { State::Value };
    }

    fn close(&mut self, is_object: bool, out: &mut Out) -> bool {
        let fits = self.open.last().is_some_and(|f| f.is_object == is_object);
        if fits {
            out.arguments(if is_object { "}" } else { "]" });
            self.open.pop();
            self.state = match self.open.is_empty() {
                true => State::Over,
                false => State::Behind,
            };
        }
        fits
    }

    /// The mark at the end has come, whatever was open: small models leave braces out.
    fn close_all(&mut self, out: &mut Out) {
        while let Some(frame) = self.open.pop() {
            out.arguments(if frame.is_object { "}" } else { "]" });
        }
        self.state = State::Text;
    }

    fn begin_text(&mut self, out: &mut Out) {
        self.begin_value(out);
        let types = Types::of(&self.next);
        let is_other = !types.has_text() && !types.others().is_empty();
        if !is_other {
            out.arguments("\"");
        }
        self.state = State::InText(is_other.then(String::new));
    }

    fn in_text(&mut self, c: char, out: &mut Out) {
        let State::InText(kept) = &mut self.state else {
            return;
        };
        let over = self
            .marks
            .push(c, &[self.form.escape()], &mut |c| match kept {
                Some(kept) => kept.push(c),
                None => {
                    let mut text = String::new();
                    escape(&mut text, c);
                    out.arguments(&text);
                }
            });
        if over.is_some() {
            match kept {
                Some(kept) => out.arguments(&Types::of(&self.next).json(kept)),
                None => out.arguments("\""),
            }
            self.state = State::Behind;
        }
    }

    fn plain(&mut self, c: char, out: &mut Out) -> bool {
        let State::Plain(text) = &mut self.state else {
            return false;
        };
        let in_object = self.open.last().is_some_and(|frame| frame.is_object);
        let end = if in_object { '}' } else { ']' };
        let types = Types::of(&self.next);
        if c == ',' || c == end {
            out.arguments(&types.json(text.trim()));
            self.state = State::Behind;
            return self.step(c, out);
        }
        text.push(c);
        if let Some(said) = text.strip_suffix(self.form.end()) {
            out.arguments(&types.json(said.trim()));
            self.close_all(out);
        }
        true
    }
}

impl Family for Gemma {
    fn push(&mut self, c: char, out: &mut Out) {
        if !matches!(self.state, State::Text) {
            if self.step(c, out) {
                return;
            }
            // What was given out of a call stays.
            self.state = State::Text;
            self.open.clear();
            self.held.clear();
            self.marks.finish();
        }
        let begin = self.form.begin();
        if self.text.push(c, &[begin], &mut |c| out.char(c)).is_some() {
            self.state = State::Head(begin.to_owned());
        }
    }

    fn finish(&mut self, out: &mut Out) {
        out.text(&self.text.finish());
        match &self.state {
            State::Head(raw) => out.text(raw),
            // What can be one.
            State::Plain(text) | State::InText(Some(text)) => out.arguments(text),
            // The beginning of an end says nothing.
            _ => {}
        }
    }
}
