//! Tools as clients name them.

use serde_json::{Value, json};

use crate::Result;
use crate::chat::wrong::{shown, wrong};

/// The longest name of a tool, in bytes.
pub(super) const LONGEST_NAME: usize = 128;

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
pub(in super::super) fn is_name(name: &str) -> bool {
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
