//! `[TOOL_CALLS][{"name": …, "arguments": {…}}, …]`, and `[TOOL_CALLS]name[ARGS]{…}`.

use super::calls::{Calls, Took};
use super::family::{Family, Lookout, Out};
use super::json::{Fed, Follower};
use super::tool::is_name;

const BEGIN: &str = "[TOOL_CALLS]";
const ARGUMENTS: &str = "[ARGS]";
const ID: &str = "[CALL_ID]";

#[derive(Debug, Default)]
pub(super) struct Mistral {
    text: Lookout,
    state: State,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Text,
    /// Behind the mark: what has come since, itself included.
    Begun(String),
    Calls(Box<Calls>),
    /// A name, and what has come since the mark.
    Named(Named),
    Arguments(Follower),
}

#[derive(Debug)]
struct Named {
    raw: String,
    name: String,
    marks: Lookout,
    /// Whether a call's id is being read, and whether its name is over.
    in_id: bool,
    over: bool,
}

impl Named {
    /// Gives whether the arguments begin with this character; `Err` where there can be none.
    fn push(&mut self, c: char, out: &Out) -> Result<bool, ()> {
        let held = self.over && !self.in_id;
        if held && c.is_whitespace() {
            self.raw.push(c);
            return Ok(false);
        }
        if c == '{' && !self.in_id && self.marks.is_clear() {
            self.name.truncate(self.name.trim_end().len());
            return out.knows(&self.name).then_some(true).ok_or(());
        }
        if held {
            return Err(());
        }
        self.raw.push(c);
        let (name, in_id) = (&mut self.name, self.in_id);
        let mark = self.marks.push(c, &[ARGUMENTS, ID], &mut |c| {
            if !in_id {
                name.push(c);
            }
        });
        match mark {
            Some(ID) => self.in_id = true,
            Some(_) => (self.in_id, self.over) = (false, true),
            None if !is_name(self.name.trim_end()) => {
                self.raw.pop();
                return Err(());
            }
            None => return Ok(false),
        }
        self.name.truncate(self.name.trim_end().len());
        Ok(false)
    }
}

impl Family for Mistral {
    fn push(&mut self, c: char, out: &mut Out) {
        match &mut self.state {
            State::Text => {}
            State::Begun(raw) => match c {
                _ if c.is_whitespace() => return raw.push(c),
                '[' | '{' => self.state = State::Calls(Box::new(Calls::new(raw, None, false))),
                _ if is_name(c.encode_utf8(&mut [0; 4])) => {
                    self.state = State::Named(Named {
                        raw: std::mem::take(raw),
                        name: String::new(),
                        marks: Lookout::default(),
                        in_id: false,
                        over: false,
                    });
                }
                _ => {
                    out.text(raw);
                    self.state = State::Text;
                }
            },
            State::Calls(_) | State::Named(_) | State::Arguments(_) => {}
        }
        match &mut self.state {
            State::Calls(calls) => match calls.push(c, out) {
                Took::More => return,
                Took::Last => return self.state = State::Text,
                Took::Not => self.state = State::Text,
            },
            State::Named(named) => match named.push(c, out) {
                Ok(false) => return,
                Ok(true) => {
                    out.call(&named.name);
                    self.state = State::Arguments(Follower::default());
                }
                Err(()) => {
                    out.text(&named.raw);
                    self.state = State::Text;
                }
            },
            _ => {}
        }
        if let State::Arguments(arguments) = &mut self.state {
            let in_text = arguments.is_in_text();
            match arguments.push(c) {
                fed @ (Fed::Part | Fed::Last) => {
                    out.argument(c, in_text);
                    if fed == Fed::Last {
                        self.state = State::Text;
                    }
                    return;
                }
                Fed::Behind | Fed::Wrong => self.state = State::Text,
            }
        }
        if self.text.push(c, &[BEGIN], &mut |c| out.char(c)).is_some() {
            self.state = State::Begun(BEGIN.to_owned());
        }
    }

    fn finish(&mut self, out: &mut Out) {
        out.text(&self.text.finish());
        match &mut self.state {
            State::Begun(raw) => out.text(raw),
            State::Named(named) => out.text(&named.raw),
            State::Calls(calls) => calls.finish(out),
            State::Text | State::Arguments(_) => {}
        }
    }
}
