//! What a model has written, told apart into reasoning, text and calls as it comes.

use std::fmt;

use super::super::Template;
use super::coder::Coder;
use super::harmony::Harmony;
use super::hermes::Hermes;
use super::json::write;
use super::llama::Llama;
use super::mistral::Mistral;
use super::reasoning::{Reasoning, Said};
use super::{Format, Tool};

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

/// Reads what a model writes. What comes of it does not depend on how the text is cut into pieces.
///
/// A call is given out as soon as its tool is known, and its arguments as they come: where a model ends amid them, or goes
/// on with what is no JSON, they are what they are by then, and what follows is text. What is no call of one of the tools
/// is text too, with its marks.
pub struct OutputParser {
    /// Whether there is reasoning to tell apart; `None` where the family does it.
    reasoning: Option<Reasoning>,
    family: Box<dyn Family>,
    out: Out,
    shows_control: bool,
}

/// A form of calls.
pub(super) trait Family: Send + Sync {
    /// Takes a character.
    fn push(&mut self, c: char, out: &mut Out);
    /// The text has ended.
    fn finish(&mut self, out: &mut Out);
}

impl OutputParser {
    /// For what follows a prompt, whose text this is. Without tools there are no calls.
    #[must_use]
    pub fn new(template: &Template, prompt_text: &str, tools: &[Tool]) -> Self {
        let form = &template.form;
        let harmony = form.format == Format::Harmony;
        let reasoning = match harmony {
            true => None,
            false => Some(Reasoning::new(prompt_text, &form.reasoning)),
        };
        let family: Box<dyn Family> = match form.format {
            Format::Harmony => Box::new(Harmony::new(prompt_text)),
            _ if tools.is_empty() => Box::new(Plain),
            Format::Hermes => Box::new(Hermes::default()),
            Format::Coder => Box::new(Coder::default()),
            Format::Llama => Box::new(Llama::default()),
            Format::Mistral => Box::new(Mistral::default()),
        };
        let shows_control = form.controls.iter().any(|(name, _)| {
            let of_calls = form.format.markers().contains(name);
            harmony || !of_calls || !tools.is_empty()
        });
        Self {
            reasoning,
            family,
            out: Out {
                tools: tools.to_vec(),
                ..Out::default()
            },
            shows_control,
        }
    }

    /// Whether some of the marks are control tokens, so that those have to be part of the text that is
    /// [`push`](Self::push)ed, by their names.
    #[must_use]
    pub fn shows_control(&self) -> bool {
        self.shows_control
    }

    /// Takes a piece of the text; gives what is certain by it.
    pub fn push(&mut self, text: &str) -> Vec<Delta> {
        let mut said = Vec::new();
        for c in text.chars() {
            match &mut self.reasoning {
                None => self.family.push(c, &mut self.out),
                Some(reasoning) => {
                    reasoning.push(c, &mut said);
                    self.hear(&mut said);
                }
            }
        }
        std::mem::take(&mut self.out.deltas)
    }

    /// The text has ended: gives what was held back.
    pub fn finish(&mut self) -> Vec<Delta> {
        let mut said = Vec::new();
        if let Some(reasoning) = &mut self.reasoning {
            reasoning.finish(&mut said);
            self.hear(&mut said);
        }
        self.family.finish(&mut self.out);
        self.out.end();
        std::mem::take(&mut self.out.deltas)
    }

    fn hear(&mut self, said: &mut Vec<Said>) {
        for said in said.drain(..) {
            match said {
                Said::Reasoning(text) => self.out.reasoning(&text),
                Said::Answer(text) => {
                    for c in text.chars() {
                        self.family.push(c, &mut self.out);
                    }
                }
            }
        }
    }
}

impl fmt::Debug for OutputParser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OutputParser")
            .field("calls", &self.out.calls)
            .finish_non_exhaustive()
    }
}

/// Text without calls.
struct Plain;

impl Family for Plain {
    fn push(&mut self, c: char, out: &mut Out) {
        out.char(c);
    }

    fn finish(&mut self, _: &mut Out) {}
}

/// What is given out.
#[derive(Debug, Default)]
pub(super) struct Out {
    tools: Vec<Tool>,
    deltas: Vec<Delta>,
    /// White space that is text if text follows, and nothing before and behind calls.
    space: String,
    /// How many calls there were.
    calls: usize,
    /// Whether a call came last.
    called: bool,
}

impl Out {
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

    fn end(&mut self) {
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
