//! Dialogues as a template can write them.

use serde_json::{Map, Value, json};
use twox_hash::XxHash3_128;

use super::form::{Form, Format};
use super::pythonic::{BEGIN, END};
use crate::Result;
use crate::chat::context::Context;
use crate::chat::jinja::Json;
use crate::chat::template::Template;

type Message = Map<String, Value>;

/// How many characters a call's id has with Mistral's templates.
const ID: usize = 9;

impl Form {
    /// Changes messages where the template could not write them.
    pub(in super::super) fn adapt(
        &self,
        template: &Template,
        messages: &mut Vec<Message>,
        tools: &[Value],
    ) -> Result<()> {
        if self.described {
            *messages = as_text(std::mem::take(messages));
            if !tools.is_empty() {
                let system = *self.system.get_or_init(|| knows_system(template));
                tell(messages, &description(tools), system);
            }
            return Ok(());
        }
        match self.format {
            Format::Llama => *messages = one_by_one(std::mem::take(messages)),
            Format::Harmony => {
                messages.iter_mut().for_each(think);
                *messages = one_by_one(std::mem::take(messages));
            }
            Format::Mistral => messages.iter_mut().for_each(shorten_ids),
            Format::Pythonic if !self.writes_calls => messages.iter_mut().for_each(write_calls),
            Format::Pythonic => messages.iter_mut().for_each(fill),
            Format::Hermes | Format::Coder | Format::Gemma(_) => {}
        }
        Ok(())
    }
}

/// Whether a template writes a system message.
fn knows_system(template: &Template) -> bool {
    const WORD: &str = "\u{fdd0}";
    let message = |role: &str, content: &str| {
        Json::Map(vec![
            ("role".to_string(), role.into()),
            ("content".to_string(), content.into()),
        ])
    };
    let mut context = Context::of(&[], true);
    context.messages = vec![message("system", WORD), message("user", "Hello")];
    let text = context.render(template);
    text.is_ok_and(|text| text.contains(WORD))
}

/// What a model is told of tools by a template that tells it nothing.
fn description(tools: &[Value]) -> String {
    let mut text = "# Tools\n\nYou can call functions to help with a request. Each line between <tools> and </tools> describes one in JSON, with the JSON schema of its parameters:\n<tools>".to_string();
    for tool in tools {
        text.push('\n');
        text.push_str(&tool["function"].to_string());
    }
    text.push_str("\n</tools>\n\nTo call a function, write its name and its arguments as one JSON object between <tool_call> and </tool_call>, and nothing behind it:\n<tool_call>\n{\"name\": \"NAME\", \"arguments\": {\"PARAMETER\": VALUE}}\n</tool_call>\nWrite one such block for each call. What a function gives comes back between <tool_response> and </tool_response>. When no function is needed, answer in plain words.");
    text
}

/// Puts a text into the system message, or the first of the user where there can be none.
fn tell(messages: &mut Vec<Message>, text: &str, system: bool) {
    let first = messages.first().map(|message| message["role"].clone());
    let role = if system { "system" } else { "user" };
    let said = content(messages.first());
    if !system && first.as_ref().is_some_and(|first| first == "system") {
        messages.remove(0);
        let text = format!("{said}\n\n{text}");
        return tell(messages, text.trim_start(), false);
    }
    if first.is_some_and(|first| first == role)
        && let Some(message) = messages.first_mut()
    {
        let both = match system {
            true => format!("{said}\n\n{text}"),
            false => format!("{text}\n\n{said}"),
        };
        message.insert("content".into(), both.trim_start().into());
        return;
    }
    let message = json!({"role": role, "content": text});
    messages.splice(0..0, message.as_object().cloned());
}

fn content(message: Option<&Message>) -> String {
    let content = message.and_then(|message| message.get("content")?.as_str());
    content.unwrap_or_default().to_owned()
}

/// Messages without calls and tools' answers: calls as a model is asked to write them, answers as the user's. What follows
/// an answer from the user is one message with it, as many templates want users and assistants to take turns.
fn as_text(messages: Vec<Message>) -> Vec<Message> {
    let mut out: Vec<Message> = Vec::with_capacity(messages.len());
    let mut after_answer = false;
    for mut message in messages {
        let mut text = content(Some(&message));
        for call in message.remove("tool_calls").iter().flat_map(list) {
            let call = &call["function"];
            let call = json!({"name": call["name"], "arguments": call["arguments"]});
            if !text.is_empty() {
                text.push('\n');
            }
            text.push_str(&format!("<tool_call>\n{call}\n</tool_call>"));
        }
        let is_answer = message["role"] == "tool";
        if is_answer {
            text = format!("<tool_response>\n{text}\n</tool_response>");
            message.retain(|name, _| name == "role");
            message.insert("role".into(), "user".into());
        }
        if after_answer
            && message["role"] == "user"
            && let Some(last) = out.last_mut()
        {
            let both = format!("{}\n{text}", content(Some(last)));
            last.insert("content".into(), both.into());
        } else {
            message.insert("content".into(), text.into());
            out.push(message);
        }
        after_answer = is_answer;
    }
    out
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Messages with one call each, each before its answer.
fn one_by_one(messages: Vec<Message>) -> Vec<Message> {
    let mut out = Vec::with_capacity(messages.len());
    let mut rest = messages.into_iter().peekable();
    while let Some(mut message) = rest.next() {
        let calls = message
            .get("tool_calls")
            .map(list)
            .unwrap_or_default()
            .to_vec();
        if calls.len() < 2 {
            out.push(message);
            continue;
        }
        let mut answers = Vec::new();
        while let Some(answer) = rest.next_if(|next| next["role"] == "tool") {
            answers.push(answer);
        }
        for call in calls {
            let id = call.get("id").cloned();
            message.insert("tool_calls".into(), Value::Array(vec![call]));
            out.push(message.clone());
            message.insert("content".into(), "".into());
            message.remove("reasoning_content");
            message.remove("thinking");
            // Without ids answers are in the order of the calls.
            let at = match &id {
                Some(id) => answers
                    .iter()
                    .position(|a| a.get("tool_call_id") == Some(id)),
                None => (!answers.is_empty()).then_some(0),
            };
            out.extend(at.map(|at| answers.remove(at)));
        }
        out.append(&mut answers);
    }
    out
}

/// Gives reasoning the name that gpt-oss's template has for it, which takes what is said before a call for reasoning too.
fn think(message: &mut Message) {
    let reasoning = message.get("reasoning_content").and_then(Value::as_str);
    let reasoning = reasoning.filter(|reasoning| !reasoning.is_empty());
    let Some(reasoning) = reasoning.map(str::to_owned) else {
        return;
    };
    let said = content(Some(message));
    let thinking = if !message.contains_key("tool_calls") || said.is_empty() {
        reasoning
    } else {
        message.insert("content".into(), "".into());
        format!("{reasoning}\n\n{said}")
    };
    message.entry("thinking").or_insert(thinking.into());
}

/// Puts calls into the text of a message, as Python writes them.
fn write_calls(message: &mut Message) {
    let calls = message.remove("tool_calls");
    let calls: Vec<String> = calls.iter().flat_map(list).map(written).collect();
    let mut text = content(Some(message));
    if !calls.is_empty() {
        text.push_str(&format!("{BEGIN}[{}]{END}", calls.join(", ")));
    }
    message.insert("content".into(), text.into());
}

fn written(call: &Value) -> String {
    let call = &call["function"];
    let arguments = call["arguments"].as_object().into_iter().flatten();
    let arguments: Vec<String> = arguments
        .map(|(name, value)| format!("{name}={}", literal(value)))
        .collect();
    let name = call["name"].as_str().unwrap_or_default();
    format!("{name}({})", arguments.join(", "))
}

/// A value as Python writes it.
fn literal(value: &Value) -> String {
    match value {
        Value::Null => "None".into(),
        Value::Bool(true) => "True".into(),
        Value::Bool(false) => "False".into(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(literal).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Object(members) => {
            let pair = |(key, value): (&String, &Value)| {
                format!("{}: {}", Value::from(key.as_str()), literal(value))
            };
            let pairs: Vec<String> = members.iter().map(pair).collect();
            format!("{{{}}}", pairs.join(", "))
        }
        plain => plain.to_string(),
    }
}

/// Gives reasoning the name that LFM2.5's template has for it, and a message a text, without which that fails.
fn fill(message: &mut Message) {
    let is_none = message.get("content").is_none_or(Value::is_null);
    if is_none {
        message.insert("content".into(), "".into());
    }
    if let Some(reasoning) = message.get("reasoning_content").cloned() {
        message.entry("thinking").or_insert(reasoning);
    }
}

/// Gives calls and their answers ids of the length that Mistral's templates ask for; equal ones stay equal.
fn shorten_ids(message: &mut Message) {
    let calls = message.get_mut("tool_calls").and_then(Value::as_array_mut);
    for call in calls.into_iter().flatten().filter_map(Value::as_object_mut) {
        let id = call.get("id").and_then(Value::as_str).unwrap_or_default();
        let id = short(id);
        call.insert("id".into(), id.into());
    }
    if let Some(id) = message.get("tool_call_id").and_then(Value::as_str) {
        let id = short(id);
        message.insert("tool_call_id".into(), id.into());
    }
}

fn short(id: &str) -> String {
    const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    if id.len() == ID && id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return id.to_owned();
    }
    let mut hash = XxHash3_128::oneshot(id.as_bytes());
    let digit = |_| {
        let digit = DIGITS[(hash % 36) as usize];
        hash /= 36;
        char::from(digit)
    };
    (0..ID).map(digit).collect()
}
