//! Calls as objects of JSON that have a name and arguments.

use serde_json::{Map, Value};

use super::family::Out;
use super::json::{Fed, Follower, write};

/// What became of a character.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Took {
    /// It was taken, and more is to come.
    More,
    /// It was the last.
    Last,
    /// It is no part of this. What is of no use of what came before was given out as text.
    Not,
}

/// Calls one after the other, in a list or without, up to a mark that ends them if there is one.
#[derive(Debug)]
pub(super) struct Calls {
    /// What came since the last call.
    raw: String,
    call: Option<Call>,
    end: Option<&'static str>,
    /// What may be the beginning of that.
    held: String,
    in_list: bool,
    any: bool,
    /// Whether an object without arguments is a call.
    needs_arguments: bool,
}

impl Calls {
    /// Those behind `mark`.
    pub(super) fn new(mark: &str, end: Option<&'static str>, needs_arguments: bool) -> Self {
        Self {
            raw: mark.to_owned(),
            call: None,
            end,
            held: String::new(),
            in_list: false,
            any: false,
            needs_arguments,
        }
    }

    pub(super) fn push(&mut self, c: char, out: &mut Out) -> Took {
        if let Some(call) = &mut self.call {
            match call.push(c, out) {
                Took::More => return Took::More,
                Took::Last => {
                    self.called();
                    return Took::More;
                }
                Took::Not if call.is_complete() => self.called(),
                Took::Not => {
                    self.give_up(out);
                    return Took::Not;
                }
            }
        }
        if let Some(end) = self.end.filter(|_| self.any) {
            self.held.push(c);
            if self.held == end {
                return Took::Last;
            }
            if end.starts_with(self.held.as_str()) {
                return Took::More;
            }
            self.held.pop();
            if !self.held.is_empty() {
                self.give_up(out);
                return Took::Not;
            }
        }
        match c {
            '{' => self.call = Some(Call::new(self.needs_arguments)),
            '[' if !self.any && !self.in_list && !self.needs_arguments => self.in_list = true,
            ']' if self.any && self.in_list => {
                self.in_list = false;
                self.raw.clear();
                return match self.end {
                    None => Took::Last,
                    Some(_) => Took::More,
                };
            }
            // Small models close more than they have opened.
            ',' | ';' | '}' if self.any => {}
            _ if c.is_whitespace() => {}
            _ => {
                self.give_up(out);
                return Took::Not;
            }
        }
        if self.call.is_none() {
            self.raw.push(c);
        }
        Took::More
    }

    fn called(&mut self) {
        self.call = None;
        self.raw.clear();
        self.any = true;
    }

    /// What came since the last call is text, unless it is a call that was given out.
    fn give_up(&mut self, out: &mut Out) {
        let call = self.call.take();
        if call.as_ref().is_some_and(|call| call.said) {
            return;
        }
        out.text(&std::mem::take(&mut self.raw));
        out.text(&call.map(|call| call.raw).unwrap_or_default());
        out.text(&std::mem::take(&mut self.held));
    }

    /// The text has ended.
    pub(super) fn finish(&mut self, out: &mut Out) {
        // What ends or separates calls says nothing.
        if self.call.is_some() || !self.any {
            self.give_up(out);
        }
    }
}

/// One call.
#[derive(Debug)]
struct Call {
    /// All of it, until its name was given out.
    raw: String,
    place: Place,
    key: String,
    value: Follower,
    /// The text of a value that is looked at once it is whole.
    kept: String,
    name: Option<String>,
    arguments: Option<String>,
    /// Whether it is within the object of `function`.
    inner: bool,
    needs_arguments: bool,
    /// Whether its name was given out.
    said: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    KeyOrEnd,
    Key,
    InKey,
    Colon,
    Value,
    InValue,
    Stream,
    Behind,
}

impl Call {
    /// One whose brace has come.
    fn new(needs_arguments: bool) -> Self {
        Self {
            raw: "{".into(),
            place: Place::KeyOrEnd,
            key: String::new(),
            value: Follower::default(),
            kept: String::new(),
            name: None,
            arguments: None,
            inner: false,
            needs_arguments,
            said: false,
        }
    }

    /// Whether its arguments were given out as a whole.
    fn is_complete(&self) -> bool {
        self.said && self.place != Place::Stream
    }

    fn push(&mut self, c: char, out: &mut Out) -> Took {
        let took = self.take(c, out);
        if took != Took::Not && !self.said {
            self.raw.push(c);
        }
        took
    }

    fn take(&mut self, c: char, out: &mut Out) -> Took {
        let space = matches!(c, ' ' | '\t' | '\n' | '\r');
        match self.place {
            Place::InKey | Place::InValue | Place::Stream => return self.part(c, out),
            _ if space => {}
            Place::KeyOrEnd | Place::Key if c == '"' => {
                self.place = Place::InKey;
                self.restart();
                return self.part(c, out);
            }
            Place::KeyOrEnd | Place::Behind if c == '}' => return self.close(out),
            Place::Behind if c == ',' => self.place = Place::Key,
            Place::Colon if c == ':' => self.place = Place::Value,
            Place::Value => return self.begin_value(c, out),
            _ => return Took::Not,
        }
        Took::More
    }

    fn restart(&mut self) {
        self.value = Follower::default();
        self.kept.clear();
    }

    fn is_arguments(&self) -> bool {
        matches!(self.key.as_str(), "arguments" | "parameters")
    }

    fn begin_value(&mut self, c: char, out: &mut Out) -> Took {
        self.restart();
        self.place = Place::InValue;
        if self.is_arguments() {
            if self.said || self.arguments.is_some() || !"{\"n".contains(c) {
                return Took::Not;
            }
            if let (Some(name), '{') = (&self.name, c) {
                if !out.knows(name) {
                    return Took::Not;
                }
                out.call(name);
                self.said = true;
                self.place = Place::Stream;
            }
        } else if self.key == "function" && c == '{' && !self.inner {
            self.inner = true;
            self.place = Place::KeyOrEnd;
            return Took::More;
        }
        self.part(c, out)
    }

    /// A character of a key or a value.
    fn part(&mut self, c: char, out: &mut Out) -> Took {
        let in_text = self.value.is_in_text();
        let fed = self.value.push(c);
        match fed {
            Fed::Part | Fed::Last if self.place == Place::Stream => out.argument(c, in_text),
            Fed::Part | Fed::Last => write(&mut self.kept, c, in_text),
            Fed::Behind => {}
            Fed::Wrong => return Took::Not,
        }
        if fed == Fed::Part {
            return Took::More;
        }
        let place = std::mem::replace(&mut self.place, Place::Behind);
        match place {
            Place::InKey => {
                let Ok(key) = serde_json::from_str(&self.kept) else {
                    return Took::Not;
                };
                self.key = key;
                self.place = Place::Colon;
            }
            Place::InValue if !self.end_value() => return Took::Not,
            _ => {}
        }
        match fed {
            Fed::Behind => self.take(c, out),
            _ => Took::More,
        }
    }

    /// Keeps a value that is one of a call's.
    fn end_value(&mut self) -> bool {
        let is_name = self.key == "name" || self.key == "function";
        if is_name {
            let Ok(Value::String(name)) = serde_json::from_str(&self.kept) else {
                return false;
            };
            // Both can be there, one of them for what the call is.
            if self.name.is_some() {
                return self.name.as_ref() == Some(&name);
            }
            self.name = Some(name);
        } else if self.is_arguments() {
            let arguments = match serde_json::from_str(&self.kept) {
                Ok(Value::Null) => Some("{}".to_owned()),
                Ok(Value::Object(_)) => Some(self.kept.clone()),
                Ok(Value::String(text)) if text.trim().is_empty() => Some("{}".to_owned()),
                Ok(Value::String(text)) => serde_json::from_str::<Map<String, Value>>(&text)
                    .is_ok()
                    .then_some(text),
                _ => None,
            };
            self.arguments = arguments;
            return self.arguments.is_some();
        }
        true
    }

    /// An object ends.
    fn close(&mut self, out: &mut Out) -> Took {
        if self.inner {
            self.inner = false;
            self.place = Place::Behind;
            return Took::More;
        }
        if self.said {
            return Took::Last;
        }
        let arguments = match self.arguments.take() {
            None if self.needs_arguments => return Took::Not,
            None => "{}".to_owned(),
            Some(arguments) => arguments,
        };
        let name = self.name.take().filter(|name| out.knows(name));
        let Some(name) = name else {
            return Took::Not;
        };
        out.call(&name);
        out.arguments(&arguments);
        self.said = true;
        Took::Last
    }
}
