//! What models write in conversations: calls of tools and reasoning told apart from the answer.

use std::sync::{Mutex, PoisonError};

use pyo3::prelude::*;
use serde_json::Value;
use walsh_runtime::Constraint;
use walsh_runtime::chat::{Delta, OutputParser, Tool, ToolChoice, ToolRequest};

use crate::errors::Result;
use crate::model::{PyModel, json};

/// What is asked of calls.
#[derive(Debug, FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct Calls {
    /// The text of the prompt.
    prompt: String,
    /// The tools, as JSON.
    tools: String,
    /// `none`, `auto`, `required`, or a tool's name behind `=`.
    choice: String,
    /// The schema of an answer that calls nothing, as JSON.
    answer: Option<String>,
}

/// Reads what a model writes.
#[pyclass(frozen, module = "walsh._walsh", name = "Parser")]
pub(crate) struct PyParser {
    parser: Mutex<OutputParser>,
    constraint: Option<Constraint>,
}

/// What it is (`text`, `reasoning`, `call`, `arguments`), of which call, and the text or the tool's name.
type Said = (&'static str, usize, String);

fn said(delta: Delta) -> Said {
    match delta {
        Delta::Text(text) => ("text", 0, text),
        Delta::Reasoning(text) => ("reasoning", 0, text),
        Delta::Call { index, name } => ("call", index, name),
        Delta::Arguments { index, text } => ("arguments", index, text),
    }
}

impl PyParser {
    fn with(&self, read: impl FnOnce(&mut OutputParser) -> Vec<Delta>) -> Vec<Said> {
        let mut parser = self.parser.lock().unwrap_or_else(PoisonError::into_inner);
        read(&mut parser).into_iter().map(said).collect()
    }
}

#[pymethods]
impl PyParser {
    #[new]
    fn new(model: &PyModel, calls: Calls) -> Result<Self> {
        let (_, template) = model.template()?;
        let tools = Tool::parse_all(&json::<Vec<Value>>("tools", &calls.tools)?)?;
        let choice = match calls.choice.as_str() {
            "none" => ToolChoice::None,
            "required" => ToolChoice::Required,
            named => match named.strip_prefix('=') {
                Some(name) => ToolChoice::Named(name.to_owned()),
                None => ToolChoice::Auto,
            },
        };
        let answer = calls.answer.as_deref().map(|schema| json("schema", schema));
        let answer: Option<Value> = answer.transpose()?;
        let constraint = template.tool_constraint(&ToolRequest {
            tools: &tools,
            choice: &choice,
            parallel: true,
            prompt_text: &calls.prompt,
            answer: answer.as_ref(),
        })?;
        Ok(Self {
            parser: Mutex::new(OutputParser::new(&template, &calls.prompt, &tools)),
            constraint,
        })
    }

    /// Whether control tokens have to be part of the text.
    #[getter]
    fn shows_control(&self) -> bool {
        let parser = self.parser.lock().unwrap_or_else(PoisonError::into_inner);
        parser.shows_control()
    }

    /// The form that the answer must have, if it must have any: `json_schema`, `regex` or `grammar`, and its text.
    #[getter]
    fn form(&self) -> Option<(&'static str, String)> {
        self.constraint.clone().map(|constraint| match constraint {
            Constraint::JsonSchema(schema) => ("json_schema", schema),
            Constraint::Regex(regex) => ("regex", regex),
            Constraint::Lark(grammar) => ("grammar", grammar),
        })
    }

    fn push(&self, text: &str) -> Vec<Said> {
        self.with(|parser| parser.push(text))
    }

    fn finish(&self) -> Vec<Said> {
        self.with(OutputParser::finish)
    }
}
