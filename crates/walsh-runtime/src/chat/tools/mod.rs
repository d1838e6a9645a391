//! Tools that a model may call: how it is told of them, and what it writes to call one.

mod adapt;
mod calls;
mod coder;
mod constraint;
mod harmony;
mod hermes;
mod json;
mod llama;
mod mistral;
mod output;
mod reasoning;
#[cfg(test)]
mod tests;

use std::sync::OnceLock;

use serde_json::{Value, json};

use super::dialogue::{shown, wrong};
use crate::Result;
use crate::tokenizer::Tokenizer;

pub use constraint::ToolRequest;
pub use output::{Delta, OutputParser};

/// The longest name of a tool, in bytes.
const LONGEST_NAME: usize = 128;

/// What a model may call.
#[derive(Clone, Debug, PartialEq)]
pub struct Tool {
    /// By what it is called.
    pub name: String,
    /// What it does, in words.
    pub description: Option<String>,
    /// The JSON schema of its arguments, an object's.
    pub parameters: Value,
    /// Whether calls must have arguments of that schema.
    pub strict: bool,
}

impl Tool {
    /// Reads a tool as OpenAI has it: `{"type": "function", "function": {"name", "description", "parameters", "strict"}}`.
    ///
    /// # Errors
    /// [`Error::Dialogue`](crate::Error::Dialogue) when it is no function, has no usable name, or parameters that are no
    /// object's schema.
    pub fn parse(tool: &Value) -> Result<Self> {
        let kind = tool.get("type");
        let function = tool.get("function").and_then(Value::as_object);
        let (Some("function") | None, Some(function)) = (kind.and_then(Value::as_str), function)
        else {
            return Err(wrong(format!(
                "a tool must be {{\"type\": \"function\", \"function\": {{…}}}}, but is {}",
                shown(Some(tool))
            )));
        };
        let name = function.get("name").and_then(Value::as_str);
        let Some(name) = name.filter(|name| is_name(name)) else {
            return Err(wrong(format!(
                "a tool's name must be 1 to {LONGEST_NAME} of the characters A-Z, a-z, 0-9, _, -, ., : and /, but is {}",
                shown(function.get("name"))
            )));
        };
        let description = match function.get("description") {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) => Some(text.clone()),
            other => {
                let shown = shown(other);
                return Err(wrong(format!(
                    "the description of the tool {name} must be text, but is {shown}"
                )));
            }
        };
        let parameters = match function.get("parameters") {
            None | Some(Value::Null) => json!({"type": "object", "properties": {}}),
            Some(given @ Value::Object(schema)) => {
                let kind = schema.get("type");
                if kind.is_some_and(|kind| kind != "object") {
                    return Err(wrong(format!(
                        "the parameters of the tool {name} must be of the type object, but are of {}",
                        shown(kind)
                    )));
                }
                given.clone()
            }
            other => {
                let shown = shown(other);
                return Err(wrong(format!(
                    "the parameters of the tool {name} must be a JSON schema, an object, but are {shown}"
                )));
            }
        };
        let strict = match function.get("strict") {
            None | Some(Value::Null) => false,
            Some(Value::Bool(strict)) => *strict,
            other => {
                let shown = shown(other);
                return Err(wrong(format!(
                    "strict of the tool {name} must be true or false, but is {shown}"
                )));
            }
        };
        Ok(Self {
            name: name.to_owned(),
            description,
            parameters,
            strict,
        })
    }

    /// Reads a list of tools.
    ///
    /// # Errors
    /// As [`parse`](Self::parse), and when two have the same name.
    pub fn parse_all(tools: &[Value]) -> Result<Vec<Self>> {
        let mut parsed: Vec<Self> = Vec::with_capacity(tools.len());
        for tool in tools {
            let tool = Self::parse(tool)?;
            if parsed.iter().any(|other| other.name == tool.name) {
                let name = tool.name;
                return Err(wrong(format!(
                    "two tools are named {name}: give each a name of its own"
                )));
            }
            parsed.push(tool);
        }
        Ok(parsed)
    }
}

/// Whether a tool can have this name.
pub(super) fn is_name(name: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "_-.:/".contains(c);
    !name.is_empty() && name.len() <= LONGEST_NAME && name.chars().all(is_part)
}

/// Whether a model may call tools, or must.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ToolChoice {
    /// It may not.
    None,
    /// It may.
    #[default]
    Auto,
    /// It must call one.
    Required,
    /// It must call this one.
    Named(String),
}

/// The form in which a model calls tools.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// `<tool_call>{"name": …, "arguments": {…}}</tool_call>`, as Hermes and Qwen have it.
    Hermes,
    /// `<tool_call><function=name><parameter=key>value</parameter></function></tool_call>`, as Qwen3-Coder has it.
    Coder,
    /// `{"name": …, "parameters": {…}}` and nothing else, as Llama 3 has it.
    Llama,
    /// `[TOOL_CALLS][{"name": …, "arguments": {…}}]`, or with names behind the marker, as Mistral's models have it.
    Mistral,
    /// Messages to `functions.name`, as gpt-oss has it.
    Harmony,
}

impl Format {
    /// The markers that a call consists of.
    fn markers(self) -> &'static [&'static str] {
        match self {
            Self::Hermes | Self::Coder => &["<tool_call>", "</tool_call>"],
            Self::Llama => &["<|python_tag|>"],
            Self::Mistral => &["[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"],
            Self::Harmony => &harmony::MARKERS,
        }
    }
}

/// How a model is told of tools, and calls them.
#[derive(Clone, Debug)]
pub(super) struct Form {
    format: Format,
    /// Whether the template is told nothing of tools, and a system message describes them.
    described: bool,
    /// Whether the template knows a system message, once that was asked.
    system: OnceLock<bool>,
    /// Whether names lie behind markers, not in JSON, and ids behind them.
    named: bool,
    ids: bool,
    /// The marks of reasoning that the template has.
    reasoning: Vec<reasoning::Marks>,
    /// The control tokens among all markers, by their names.
    controls: Vec<(&'static str, i32)>,
}

impl Form {
    /// The form by the text of a template, and whether that looks at `tools`.
    pub(super) fn of(source: &str, knows_tools: bool) -> Self {
        let has = |text: &str| source.contains(text);
        let format = if has("<|channel|>") && has("<|message|>") {
            Some(Format::Harmony)
        } else if has("[TOOL_CALLS]") {
            Some(Format::Mistral)
        } else if has("<tool_call>") && has("<function=") {
            Some(Format::Coder)
        } else if has("<tool_call>") && !has("<arg_key>") {
            Some(Format::Hermes)
        } else if has("ipython") && has("\"parameters\": ") {
            Some(Format::Llama)
        } else {
            None
        };
        let harmony = format == Some(Format::Harmony);
        let reasoning = reasoning::MARKS.into_iter();
        Self {
            // Messages of harmony are read whether or not its template knows tools.
            format: format
                .filter(|_| knows_tools || harmony)
                .unwrap_or(Format::Hermes),
            described: !harmony && (!knows_tools || format.is_none()),
            system: OnceLock::new(),
            named: has("[ARGS]"),
            ids: has("[CALL_ID]"),
            reasoning: reasoning.filter(|marks| has(marks.end)).collect(),
            controls: Vec::new(),
        }
    }

    /// Notes which markers are control tokens.
    pub(super) fn learn(&mut self, tokenizer: &Tokenizer) {
        let marks = reasoning::MARKS
            .iter()
            .flat_map(|marks| [marks.begin, marks.end]);
        let markers = self.format.markers().iter().copied().chain(marks);
        let token = |marker| {
            let token = tokenizer.token(marker)?;
            let steers = tokenizer.is_control(token) || tokenizer.is_end(token);
            steers.then_some((marker, token))
        };
        self.controls = markers.filter_map(token).collect();
    }

    /// Whether tools are described in a system message.
    pub(super) fn is_described(&self) -> bool {
        self.described
    }

    /// The control token that a marker is, if it is one.
    fn control(&self, marker: &str) -> Option<i32> {
        let mut controls = self.controls.iter();
        controls
            .find(|(name, _)| *name == marker)
            .map(|(_, token)| *token)
    }
}
