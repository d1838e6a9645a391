//! `<tool_call><function=name><parameter=key>value</parameter></function></tool_call>`.
//!
//! A value is text as it is where its schema asks for a string, and JSON where it asks for something else.

use serde_json::Value;

use super::calls::{Calls, Took};
use super::family::{Family, Lookout, Out};
use super::json::escape;
use super::tool::LONGEST_NAME;

const BEGIN: &str = "<tool_call>";
const END: &str = "</tool_call>";
const FUNCTION: &str = "<function=";
const PARAMETER: &str = "<parameter=";
const PARAMETER_END: &str = "</parameter>";
const FUNCTION_END: &str = "</function>";

/// The ends of a value: the line's end before it is part of it.
const VALUE_ENDS: [&str; 2] = ["\n</parameter>", PARAMETER_END];

/// The longest name of a parameter, in bytes.
const LONGEST_KEY: usize = 256;

#[derive(Debug, Default)]
pub(super) struct Coder {
    marks: Lookout,
    state: State,
    /// What has come since a call may have begun.
    raw: String,
    /// The parameters of the call's schema.
    properties: Value,
    any_parameter: bool,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Text,
    /// Within the outer mark, before a function; whether one has been called.
    Block {
        called: bool,
    },
    /// Calls as JSON, as some write them even so.
    Json(Box<Calls>),
    Name(String),
    /// Between parameters.
    Function,
    Key(String),
    Value(Parameter),
}

#[derive(Debug)]
struct Parameter {
    types: Types,
    /// Whether something came of it.
    begun: bool,
    /// All of it, where it is not given out as it comes.
    kept: String,
}

/// The types of values that a schema allows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Types(Vec<String>);

impl Types {
    /// By all that a schema says of it; nothing where that leaves it open.
    pub(super) fn of(schema: &Value) -> Self {
        let mut types = Vec::new();
        if !Self::add(schema, &mut types) {
            types.clear();
        }
        Self(types)
    }

    /// Whether it is known which there are.
    fn add(schema: &Value, types: &mut Vec<String>) -> bool {
        let values = |key: &str| schema.get(key).and_then(Value::as_array);
        let mut push = |name: &str| {
            if !types.iter().any(|known| known == name) {
                types.push(name.to_owned());
            }
        };
        match schema.get("type") {
            Some(Value::String(name)) => {
                push(name);
                return true;
            }
            Some(Value::Array(names)) => {
                names.iter().filter_map(Value::as_str).for_each(push);
                return true;
            }
            _ => {}
        }
        if let Some(value) = schema.get("const") {
            push(kind(value));
            return true;
        }
        if let Some(values) = values("enum") {
            values.iter().map(kind).for_each(push);
            return true;
        }
        let of = values("anyOf").or_else(|| values("oneOf"));
        of.is_some_and(|of| of.iter().all(|schema| Self::add(schema, types)))
    }

    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|known| known == name)
    }

    /// Whether only texts are allowed.
    pub(super) fn is_text(&self) -> bool {
        self.0 == ["string"]
    }

    /// Whether texts are allowed, among others.
    pub(super) fn has_text(&self) -> bool {
        self.has("string")
    }

    /// Those that are not text.
    pub(super) fn others(&self) -> Vec<&str> {
        let names = self.0.iter().map(String::as_str);
        names.filter(|name| *name != "string").collect()
    }

    /// A value as JSON.
    pub(super) fn json(&self, text: &str) -> String {
        let plain = text.trim();
        // Templates print them as Python does.
        let plain = match plain {
            "True" if self.0.is_empty() || self.has("boolean") => "true",
            "False" if self.0.is_empty() || self.has("boolean") => "false",
            "None" if self.0.is_empty() || self.has("null") => "null",
            _ => plain,
        };
        let value: Option<Value> = serde_json::from_str(plain).ok();
        let fits = value.as_ref().is_some_and(|value| {
            let kind = kind(value);
            self.0.is_empty()
                || kind != "string" && self.has(kind)
                || kind == "integer" && self.has("number")
                || !self.has_text()
        });
        match fits {
            true => plain.to_owned(),
            false => Value::from(text).to_string(),
        }
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

impl Coder {
    /// What has come since a call may have begun is text.
    fn give_up(&mut self, out: &mut Out) {
        out.text(&std::mem::take(&mut self.raw));
        out.text(&self.marks.finish());
        self.state = State::Text;
    }

    /// Looks for marks with nothing but space before them; `None` where there is something else.
    fn mark(&mut self, c: char, marks: &[&'static str]) -> Option<Option<&'static str>> {
        if c.is_whitespace() && self.marks.is_clear() {
            self.raw.push(c);
            return Some(None);
        }
        let mut other = None;
        let mark = self.marks.push(c, marks, &mut |c| {
            other.get_or_insert_with(String::new).push(c);
        });
        match other {
            None => {
                self.raw.push_str(mark.unwrap_or_default());
                Some(mark)
            }
            Some(other) => {
                self.raw.push_str(&other);
                None
            }
        }
    }

    fn value(&mut self, c: char, out: &mut Out) {
        let State::Value(parameter) = &mut self.state else {
            return;
        };
        let is_text = parameter.types.is_text();
        let end = self.marks.push(c, &VALUE_ENDS, &mut |c| {
            // The line's end behind the mark is part of it.
            let first = !std::mem::replace(&mut parameter.begun, true);
            if first && c == '\n' {
                return;
            }
            if is_text {
                let mut text = String::new();
                escape(&mut text, c);
                out.arguments(&text);
            } else {
                parameter.kept.push(c);
            }
        });
        if end.is_some() {
            match is_text {
                true => out.arguments("\""),
                false => out.arguments(&parameter.types.json(&parameter.kept)),
            }
            self.state = State::Function;
        }
    }

    fn key(&mut self, key: &str, out: &mut Out) {
        let types = self.properties.get(key).map(Types::of).unwrap_or_default();
        let comma = if std::mem::replace(&mut self.any_parameter, true) {
            ", "
        } else {
            ""
        };
        let quote = if types.is_text() { "\"" } else { "" };
        let key = Value::from(key).to_string();
        out.arguments(&format!("{comma}{key}: {quote}"));
        self.state = State::Value(Parameter {
            types,
            begun: false,
            kept: String::new(),
        });
    }

    fn name(&mut self, name: &str, out: &mut Out) -> bool {
        let Some(tool) = out.tool(name) else {
            return false;
        };
        self.properties = tool.parameters["properties"].clone();
        self.any_parameter = false;
        out.call(name);
        out.arguments("{");
        self.raw.clear();
        self.state = State::Function;
        true
    }

    /// Takes a character; gives it back where it is still to be read as text.
    fn step(&mut self, c: char, out: &mut Out) -> bool {
        match &mut self.state {
            State::Text => return false,
            State::Value(_) => self.value(c, out),
            State::Json(calls) => match calls.push(c, out) {
                Took::More => {}
                Took::Last => self.state = State::Text,
                Took::Not => {
                    self.state = State::Text;
                    return false;
                }
            },
            State::Block { called } => {
                let called = *called;
                if !called && self.marks.is_clear() && "{[".contains(c) {
                    let calls = Calls::new(&std::mem::take(&mut self.raw), Some(END), false);
                    self.state = State::Json(Box::new(calls));
                    return self.step(c, out);
                }
                let marks: &[&'static str] = if called {
                    &[FUNCTION, END]
                } else {
                    &[FUNCTION]
                };
                match self.mark(c, marks) {
                    Some(None) => {}
                    Some(Some(FUNCTION)) => self.state = State::Name(String::new()),
                    Some(Some(_)) => {
                        self.raw.clear();
                        self.state = State::Text;
                    }
                    None => {
                        let back = self.raw.pop();
                        self.give_up(out);
                        return back.is_none_or(|back| self.again(back, out));
                    }
                }
            }
            State::Name(name) if c == '>' => {
                let name = std::mem::take(name);
                self.raw.push(c);
                if !self.name(name.trim(), out) {
                    self.give_up(out);
                }
            }
            State::Name(name) => {
                let fits = name.len() < LONGEST_NAME && c != '<' && c != '\n';
                if !fits {
                    self.give_up(out);
                    return false;
                }
                name.push(c);
                self.raw.push(c);
            }
            State::Function => match self.mark(c, &[PARAMETER, FUNCTION_END]) {
                Some(None) => {}
                Some(Some(PARAMETER)) => self.state = State::Key(String::new()),
                Some(Some(_)) => {
                    out.arguments("}");
                    self.raw.clear();
                    self.state = State::Block { called: true };
                }
                None => {
                    let back = self.raw.pop();
                    self.give_up(out);
                    return back.is_none_or(|back| self.again(back, out));
                }
            },
            State::Key(key) if c == '>' => {
                let key = std::mem::take(key);
                self.raw.clear();
                self.key(key.trim(), out);
            }
            State::Key(key) => {
                if key.len() >= LONGEST_KEY || c == '<' || c == '\n' {
                    self.give_up(out);
                    return false;
                }
                key.push(c);
                self.raw.push(c);
            }
        }
        true
    }

    /// Reads the last character of what was no mark as text.
    fn again(&mut self, c: char, out: &mut Out) -> bool {
        self.text(c, out);
        true
    }

    fn text(&mut self, c: char, out: &mut Out) {
        let mark = self.marks.push(c, &[BEGIN, FUNCTION], &mut |c| out.char(c));
        if let Some(mark) = mark {
            self.raw = mark.to_owned();
            self.state = match mark {
                BEGIN => State::Block { called: false },
                // Some begin with it at once.
                _ => State::Name(String::new()),
            };
        }
    }
}

impl Family for Coder {
    fn push(&mut self, c: char, out: &mut Out) {
        if !self.step(c, out) {
            self.text(c, out);
        }
    }

    fn finish(&mut self, out: &mut Out) {
        match &mut self.state {
            State::Json(calls) => calls.finish(out),
            State::Value(parameter) => {
                // What is known of a text comes out, of another value what can be one.
                if !parameter.types.is_text() {
                    out.arguments(&parameter.kept);
                }
            }
            // The beginning of an end says nothing.
            State::Function | State::Block { called: true } => {}
            State::Key(_) => {}
            State::Text | State::Block { .. } | State::Name(_) => self.give_up(out),
        }
    }
}
