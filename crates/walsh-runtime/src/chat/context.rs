//! What a template is given of a conversation.

use super::jinja::Json;
use super::marking::Marking;
use super::message::Message;
use super::template::Template;
use crate::Result;
use crate::tokenizer::Tokenizer;

/// A conversation as a template sees it.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    pub(super) messages: Vec<Json>,
    /// A list, or null for none.
    pub(super) tools: Json,
    /// What else the template may look at, by names.
    pub(super) variables: Vec<(String, Json)>,
    /// Whether the text ends where the assistant's answer begins.
    pub(super) answer: bool,
    /// The character at which the text is cut off: it occurs nowhere but where the last message is to be gone on with.
    pub(super) cut: Option<char>,
}

impl Context {
    /// Messages alone.
    pub(crate) fn of(messages: &[Message], answer: bool) -> Self {
        let message = |message: &Message| {
            Json::Map(vec![
                ("role".to_string(), message.role.as_str().into()),
                ("content".to_string(), message.content.as_str().into()),
            ])
        };
        Self {
            messages: messages.iter().map(message).collect(),
            tools: Json::Null,
            variables: Vec::new(),
            answer,
            cut: None,
        }
    }

    /// The conversation up to its message `end`, which is answered.
    pub(crate) fn until(&self, end: usize) -> Self {
        Self {
            messages: self.messages.iter().take(end).cloned().collect(),
            tools: self.tools.clone(),
            variables: self.variables.clone(),
            answer: true,
            cut: None,
        }
    }

    /// How many messages there are.
    pub(crate) fn len(&self) -> usize {
        self.messages.len()
    }

    /// The text that a template makes of it.
    ///
    /// # Errors
    /// As [`Template::render`].
    pub(crate) fn render(&self, template: &Template) -> Result<String> {
        let mut context = self.variables.clone();
        if !context.iter().any(|(name, _)| name == "documents") {
            context.push(("documents".to_string(), Json::Null));
        }
        context.push(("messages".to_string(), Json::List(self.messages.clone())));
        context.push(("tools".to_string(), self.tools.clone()));
        let answer = Json::Bool(self.answer);
        context.push(("add_generation_prompt".to_string(), answer));
        let mut text = template.render_context(context)?;
        if let Some(cut) = self.cut {
            let mut places = text.match_indices(cut).map(|(at, _)| at);
            let (Some(at), None) = (places.next(), places.next()) else {
                return Err(crate::Error::template(
                    "it does not write the last message as it is, so that it cannot be gone on with: end with a user's message",
                ));
            };
            text.truncate(at);
        }
        Ok(text)
    }

    /// Whether a character is anywhere in it.
    pub(crate) fn has(&self, c: char) -> bool {
        let mut values = self.messages.iter().chain([&self.tools]);
        let mut variables = self.variables.iter();
        values.any(|value| has(value, c)) || variables.any(|(_, value)| has(value, c))
    }

    /// The same with `marker` wherever a control token would be read in it; `None` where there is nothing to mark.
    pub(crate) fn marked(&self, tokenizer: &Tokenizer, marker: char) -> Option<Self> {
        let mut marking = Marking::new(tokenizer, marker);
        let messages = self
            .messages
            .iter()
            .map(|value| marking.value(value, false));
        let messages = messages.collect();
        let tools = marking.value(&self.tools, false);
        let variables = self.variables.iter();
        // What templates are set by is compared more often than it is written.
        let variables = variables.map(|(name, value)| (name.clone(), marking.value(value, true)));
        let marked = Self {
            messages,
            tools,
            variables: variables.collect(),
            answer: self.answer,
            cut: self.cut,
        };
        marking.any.then_some(marked)
    }
}

fn has(value: &Json, c: char) -> bool {
    match value {
        Json::Str(text) => text.contains(c),
        Json::List(values) => values.iter().any(|value| has(value, c)),
        Json::Map(entries) => {
            let mut entries = entries.iter();
            entries.any(|(key, value)| key.contains(c) || has(value, c))
        }
        _ => false,
    }
}
