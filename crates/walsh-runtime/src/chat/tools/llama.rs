//! `{"name": …, "parameters": {…}}` as all of an answer, or behind a mark in it.

use super::calls::{Calls, Took};
use super::family::{Family, Lookout, Out};

const MARK: &str = "<|python_tag|>";

#[derive(Debug, Default)]
pub(super) struct Llama {
    state: State,
    text: Lookout,
}

#[derive(Debug, Default)]
enum State {
    /// Nothing but space has come.
    #[default]
    Start,
    Calls(Box<Calls>),
    Text,
}

impl Family for Llama {
    fn push(&mut self, c: char, out: &mut Out) {
        match &mut self.state {
            State::Start if c.is_whitespace() => return out.char(c),
            // Every object with a name is a call only if it has arguments too.
            State::Start if c == '{' => {
                self.state = State::Calls(Box::new(Calls::new("", None, true)))
            }
            State::Start => self.state = State::Text,
            State::Calls(_) | State::Text => {}
        }
        if let State::Calls(calls) = &mut self.state {
            match calls.push(c, out) {
                Took::More => return,
                Took::Last => {
                    self.state = State::Text;
                    return;
                }
                Took::Not => self.state = State::Text,
            }
        }
        if self.text.push(c, &[MARK], &mut |c| out.char(c)).is_some() {
            self.state = State::Calls(Box::new(Calls::new(MARK, None, false)));
        }
    }

    fn finish(&mut self, out: &mut Out) {
        out.text(&self.text.finish());
        if let State::Calls(calls) = &mut self.state {
            calls.finish(out);
        }
    }
}
