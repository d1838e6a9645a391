//! What a model has written, told apart into reasoning, text and calls as it comes.

use std::fmt;

use super::coder::Coder;
use super::family::{Delta, Family, Out};
use super::form::Format;
use super::gemma::Gemma;
use super::harmony::Harmony;
use super::hermes::Hermes;
use super::llama::Llama;
use super::mistral::Mistral;
use super::pythonic::Pythonic;
use super::reasoning::{Reasoning, Said};
use super::tool::Tool;
use crate::chat::template::Template;

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
            Format::Gemma(marks) => Box::new(Gemma::new(marks)),
            Format::Pythonic => Box::new(Pythonic::default()),
        };
        let shows_control = form.controls.iter().any(|(name, _)| {
            let of_calls = form.format.markers().contains(name);
            harmony || !of_calls || !tools.is_empty()
        });
        Self {
            reasoning,
            family,
            out: Out::of(tools),
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
        self.out.take()
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
        self.out.take()
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
