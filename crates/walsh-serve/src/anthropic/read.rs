//! What clients ask for.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value, json};
use walsh_runtime::Request;
use walsh_runtime::chat::{Dialogue, ToolChoice};

use crate::ask::{self, Ask};
use crate::error::{ApiError, Result};
use crate::models::Lent;

#[derive(Deserialize, utoipa::ToSchema)]
pub(super) struct Messages {
    pub(super) model: Option<String>,
    pub(super) max_tokens: Option<usize>,
    pub(super) stream: Option<bool>,
    pub(super) metadata: Option<Value>,
    messages: Vec<Said>,
    system: Option<Value>,
    tools: Option<Vec<Value>>,
    tool_choice: Option<Value>,
    thinking: Option<Value>,
    output_config: Option<Value>,
    /// What came before `output_config.format`.
    output_format: Option<Value>,
    thread: Option<Value>,
}

#[derive(Deserialize, utoipa::ToSchema)]
struct Said {
    role: String,
    content: Value,
}

type Message = Map<String, Value>;

fn message(role: &str, content: String) -> Message {
    let mut message = Map::new();
    message.insert("role".into(), role.into());
    message.insert("content".into(), content.into());
    message
}

impl Messages {
    /// What is asked for of a model.
    pub(super) fn ask(self, served: Arc<Lent>, mut request: Request) -> Result<Ask> {
        if self.thread.is_some() {
            return Err(ApiError::thread());
        }
        let format = self
            .output_config
            .as_ref()
            .and_then(|config| config.get("format"));
        let format = format.or(self.output_format.as_ref());
        request.constraint = ask::form(format, "output_config.format")?;
        let mut messages = Vec::new();
        if let Some(system) = &self.system {
            messages.push(message("system", ask::text(system, "system")?));
        }
        for (index, said) in self.messages.iter().enumerate() {
            said.read(&format!("messages[{index}]"), &mut messages)?;
        }
        let continues = messages
            .last()
            .is_some_and(|last| last["role"] == "assistant" && !last.contains_key("tool_calls"));
        let (choice, parallel) = tool_choice(self.tool_choice.as_ref())?;
        let tools = self.tools.as_deref().map(tools).transpose()?;
        let (given, tools) = ask::tools(tools, &choice)?;
        let mut variables = Map::new();
        if let Some(thinking) = &self.thinking {
            variables.insert(
                "enable_thinking".into(),
                (thinking["type"] != "disabled").into(),
            );
        }
        Ok(Ask {
            served,
            dialogue: Dialogue {
                messages: ask::messages(messages)?,
                tools: given,
                variables,
                continues,
            },
            tools,
            choice,
            parallel,
            request,
            form: "output_config.format",
            answers: 1,
        })
    }
}

impl Said {
    /// The messages that this one is to templates.
    fn read(&self, at: &str, messages: &mut Vec<Message>) -> Result<()> {
        let wrong = |what: String| ApiError::field(at, format!("{at}: {what}"));
        if !matches!(self.role.as_str(), "user" | "assistant") {
            return Err(wrong(format!(
                "role is {:?}: give user or assistant",
                self.role
            )));
        }
        let blocks = match &self.content {
            Value::Array(blocks) => blocks,
            content => {
                messages.push(message(&self.role, ask::text(content, at)?));
                return Ok(());
            }
        };
        let (mut texts, mut calls, mut thought) = (Vec::new(), Vec::new(), String::new());
        for block in blocks {
            let field = |name: &str| {
                let field = block[name].as_str();
                field.ok_or_else(|| wrong(format!("a block has no {name:?}")))
            };
            match block["type"].as_str() {
                Some("text") => texts.push(field("text")?.to_owned()),
                Some("thinking") => thought.push_str(field("thinking")?),
                Some("redacted_thinking") => {}
                Some("tool_use") => calls.push(json!({
                    "id": field("id")?,
                    "type": "function",
                    "function": { "name": field("name")?, "arguments": block["input"] },
                })),
                Some("tool_result") => {
                    let content = match &block["content"] {
                        Value::Null => String::new(),
                        content => ask::text(content, at)?,
                    };
                    let mut result = message("tool", content);
                    result.insert("tool_call_id".into(), field("tool_use_id")?.into());
                    messages.push(result);
                }
                Some(other) => {
                    return Err(wrong(format!(
                        "a block of type {other:?} cannot be read: the model reads text alone"
                    )));
                }
                None => return Err(wrong("a block has no \"type\"".into())),
            }
        }
        if !texts.is_empty() || !calls.is_empty() || !thought.is_empty() {
            let mut said = message(&self.role, texts.join("\n"));
            if !calls.is_empty() {
                said.insert("tool_calls".into(), calls.into());
            }
            if !thought.is_empty() {
                said.insert("reasoning_content".into(), thought.into());
            }
            messages.push(said);
        }
        Ok(())
    }
}

/// Which tool is to be called, and whether several may be.
fn tool_choice(choice: Option<&Value>) -> Result<(ToolChoice, bool)> {
    let Some(choice) = choice.filter(|choice| !choice.is_null()) else {
        return Ok((ToolChoice::Auto, true));
    };
    let parallel = choice["disable_parallel_tool_use"] != true;
    let kind = match (choice["type"].as_str(), choice["name"].as_str()) {
        (Some("none"), _) => ToolChoice::None,
        (Some("auto"), _) => ToolChoice::Auto,
        (Some("any"), _) => ToolChoice::Required,
        (Some("tool"), Some(name)) => ToolChoice::Named(name.to_owned()),
        _ => {
            let message = "tool_choice: give {\"type\": \"auto\"}, any, none, or tool with a name";
            return Err(ApiError::field("tool_choice", message));
        }
    };
    Ok((kind, parallel))
}

/// Tools, as chats have them.
fn tools(tools: &[Value]) -> Result<Vec<Value>> {
    let read = |(index, tool): (usize, &Value)| match tool["type"].as_str() {
        None | Some("custom") => Ok(json!({
            "type": "function",
            "function": {
                "name": tool["name"],
                "description": tool["description"],
                "parameters": tool["input_schema"],
            },
        })),
        Some(other) => {
            let at = format!("tools[{index}]");
            let message =
                format!("{at}: {other:?} is no tool that is here: give those with an input_schema");
            Err(ApiError::field(at, message))
        }
    };
    tools.iter().enumerate().map(read).collect()
}
