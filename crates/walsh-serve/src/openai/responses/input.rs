//! The items of a conversation, as messages.

use serde_json::{Map, Value, json};

use crate::ask::text;
use crate::error::{ApiError, Result};

type Message = Map<String, Value>;

fn message(role: &str, content: String) -> Message {
    let mut message = Map::new();
    message.insert("role".into(), role.into());
    message.insert("content".into(), content.into());
    message
}

/// What is wrong with messages, as what is wrong with the input that they were made of.
pub(super) fn own(mut error: ApiError) -> ApiError {
    let name = |text: &str| match text.strip_prefix("messages") {
        Some(rest) => format!("input{rest}"),
        None => text.to_owned(),
    };
    error.param = error.param.as_deref().map(name);
    error.message = name(&error.message);
    error
}

/// The messages of an input: a text of the user, or items.
pub(super) fn messages(input: &Value) -> Result<Vec<Message>> {
    let items = match input {
        Value::String(text) => return Ok(vec![message("user", text.clone())]),
        Value::Array(items) => items,
        _ => {
            return Err(ApiError::field(
                "input",
                "input: give a text or an array of items",
            ));
        }
    };
    let mut messages: Vec<Message> = Vec::new();
    let mut reasoning: Option<String> = None;
    for (index, item) in items.iter().enumerate() {
        let at = format!("input[{index}]");
        let missing = |field: &str| {
            let at = format!("{at}.{field}");
            ApiError::field(at.clone(), format!("{at} is missing, or no text"))
        };
        let field = |field: &str| item[field].as_str().ok_or_else(|| missing(field));
        match item["type"].as_str().unwrap_or("message") {
            "message" => {
                let content = text(&item["content"], &format!("{at}.content"))?;
                let mut message = message(field("role")?, content);
                if message["role"] == "assistant"
                    && let Some(text) = reasoning.take()
                {
                    message.insert("reasoning_content".into(), text.into());
                }
                messages.push(message);
            }
            "function_call" => {
                let call = json!({
                    "id": field("call_id")?,
                    "type": "function",
                    "function": { "name": field("name")?, "arguments": field("arguments")? },
                });
                let last = messages
                    .last_mut()
                    .filter(|last| last["role"] == "assistant");
                let answer = match last {
                    Some(last) => last,
                    None => {
                        let mut answer = message("assistant", String::new());
                        if let Some(text) = reasoning.take() {
                            answer.insert("reasoning_content".into(), text.into());
                        }
                        messages.push(answer);
                        let place = messages.len() - 1;
                        &mut messages[place]
                    }
                };
                let calls = answer.entry("tool_calls").or_insert_with(|| json!([]));
                if let Value::Array(calls) = calls {
                    calls.push(call);
                }
            }
            "function_call_output" => {
                let output = text(&item["output"], &format!("{at}.output"))?;
                let mut message = message("tool", output);
                message.insert("tool_call_id".into(), field("call_id")?.into());
                messages.push(message);
            }
            "reasoning" => {
                let parts = item["content"].as_array().into_iter().flatten();
                let texts: Vec<&str> = parts.filter_map(|part| part["text"].as_str()).collect();
                reasoning = Some(texts.concat()).filter(|text| !text.is_empty());
            }
            other => {
                let message = format!(
                    "{at}: an item of type {other:?} cannot be read: give message, function_call, function_call_output or reasoning"
                );
                return Err(ApiError::field(at, message));
            }
        }
    }
    Ok(messages)
}

/// Tools, as chats have them.
pub(super) fn tools(tools: &[Value]) -> Result<Vec<Value>> {
    let read = |(index, tool): (usize, &Value)| match tool["type"].as_str() {
        Some("function") => {
            let mut function = tool.as_object().cloned().unwrap_or_default();
            function.shift_remove("type");
            Ok(json!({ "type": "function", "function": function }))
        }
        other => {
            let at = format!("tools[{index}]");
            let other = other.map_or("what has no type".to_owned(), |other| format!("{other:?}"));
            let message =
                format!("{at}: {other} is no tool that is here: give those of type function");
            Err(ApiError::field(at, message))
        }
    };
    tools.iter().enumerate().map(read).collect()
}
