//! What the forms of calls have in common: how they are read, and what is given out of what was read.

use super::json::write;
use super::tool::Tool;

/// A piece of what a model has written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delta {
    /// Of the answer.
    Text(String),
    /// Of the reasoning before it.
    Reasoning(String),
    /// A call begins.
    Call {
        /// Which of the answer's calls it is, from 0.
        index: usize,
        /// The tool that is called.
        name: String,
    },
    /// Of the JSON of a call's arguments.
    Arguments {
        /// Which of the answer's calls it is.
        index: usize,
        /// What follows the pieces before.
        text: String,
    },
}

/// A form of calls.
pub(super) trait Family: Send + Sync {
    /// Takes a character.
    fn push(&mut self, c: char, out: &mut Out);
    /// The text has ended.
    fn finish(&mut self, out: &mut Out);
}

/// What is given out.
#[derive(Debug, Default)]
pub(super) struct Out {
    tools: Vec<Tool>,
    deltas: Vec<Delta>,
    /// White space that is text if text follows, and nothing before and behind calls.
    space: String,
    /// How many calls there were.
    pub(super) calls: usize,
    /// Whether a call came last.
    called: bool,
}

impl Out {
    /// Of an answer that may call some tools.
    pub(super) fn of(tools: &[Tool]) -> Self {
        Self {
            tools: tools.to_vec(),
            ..Self::default()
        }
    }

    /// What was given out since this was last asked.
    pub(super) fn take(&mut self) -> Vec<Delta> {
        std::mem::take(&mut self.deltas)
    }

    pub(super) fn tool(&self, name: &str) -> Option<&Tool> {
        self.tools.iter().find(|tool| tool.name == name)
    }

    /// Whether there is such a tool.
    pub(super) fn knows(&self, name: &str) -> bool {
        self.tool(name).is_some()
    }

    pub(super) fn text(&mut self, text: &str) {
        text.chars().for_each(|c| self.char(c));
    }

    pub(super) fn char(&mut self, c: char) {
        if c.is_whitespace() {
            self.space.push(c);
            return;
        }
        self.called = false;
        let space = std::mem::take(&mut self.space);
        let Some(Delta::Text(text)) = self.deltas.last_mut() else {
            self.deltas.push(Delta::Text(format!("{space}{c}")));
            return;
        };
        text.push_str(&space);
        text.push(c);
    }

    pub(super) fn reasoning(&mut self, more: &str) {
        match self.deltas.last_mut() {
            Some(Delta::Reasoning(text)) => text.push_str(more),
            _ => self.deltas.push(Delta::Reasoning(more.to_owned())),
        }
    }

    pub(super) fn call(&mut self, name: &str) {
        self.space.clear();
        self.called = true;
        let (index, name) = (self.calls, name.to_owned());
        self.calls += 1;
        self.deltas.push(Delta::Call { index, name });
    }

    /// Of the arguments of the latest call.
    pub(super) fn arguments(&mut self, more: &str) {
        match self.deltas.last_mut() {
            Some(Delta::Arguments { text, .. }) => text.push_str(more),
            _ => self.deltas.push(Delta::Arguments {
                index: self.calls.saturating_sub(1),
                text: more.to_owned(),
            }),
        }
    }

    /// A character of the arguments' JSON, which may be a control character within a string.
    pub(super) fn argument(&mut self, c: char, in_text: bool) {
        let mut more = String::new();
        write(&mut more, c, in_text);
        self.arguments(&more);
    }

    pub(super) fn end(&mut self) {
        let space = std::mem::take(&mut self.space);
        if space.is_empty() || self.called {
            return;
        }
        match self.deltas.last_mut() {
            Some(Delta::Text(text)) => text.push_str(&space),
            _ => self.deltas.push(Delta::Text(space)),
        }
    }
}

/// Text in which marks are looked for.
#[derive(Debug, Default)]
pub(super) struct Lookout {
    /// What may be the beginning of one.
    held: String,
}

impl Lookout {
    /// Takes a character; gives the mark that it completes. What can be part of none is said.
    pub(super) fn push(
        &mut self,
        c: char,
        marks: &[&'static str],
        say: &mut dyn FnMut(char),
    ) -> Option<&'static str> {
        self.held.push(c);
        while !self.held.is_empty() {
            if let Some(mark) = marks.iter().find(|mark| **mark == self.held) {
                self.held.clear();
                return Some(mark);
            }
            if marks.iter().any(|mark| mark.starts_with(&self.held)) {
                return None;
            }
            say(self.held.remove(0));
        }
        None
    }

    /// Whether nothing is held back.
    pub(super) fn is_clear(&self) -> bool {
        self.held.is_empty()
    }

    /// What is held back, which is no mark.
    pub(super) fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}
