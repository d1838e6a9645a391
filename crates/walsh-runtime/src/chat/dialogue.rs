//! Conversations with tools, and the prompts that they become.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::context::Context;
use super::jinja::Json;
use super::template::Template;
use super::tools::{Tool, is_name};
use super::wrong::{shown, wrong};
use crate::conversation::Prompt;
use crate::tokenizer::{Special, Tokenizer};
use crate::{Error, Result};

/// The longest name of a role, in bytes.
const LONGEST_ROLE: usize = 64;

/// A conversation as clients send it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Dialogue {
    /// Each with `role` and `content` (text; null or absent for none), and what else the template knows: `reasoning_content`,
    /// `tool_calls` (of each, `function.name` and `function.arguments`, an object or its JSON text), `tool_call_id`, `name`.
    pub messages: Vec<Map<String, Value>>,
    /// What the model may call, as OpenAI has it: `{"type": "function", "function": {…}}`.
    pub tools: Vec<Value>,
    /// What the template may be set by, such as `enable_thinking`.
    pub variables: Map<String, Value>,
    /// Whether the last message, an assistant's, is to be gone on with.
    pub continues: bool,
}

/// What a template makes of a dialogue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatPrompt {
    /// The text, as the template writes it.
    pub text: String,
    /// Its tokens, of which none comes from a name in what somebody said.
    pub tokens: Vec<i32>,
    /// Where in the tokens messages end: see [`Request::checkpoints`](crate::Request::checkpoints).
    pub checkpoints: Vec<usize>,
}

impl Template {
    /// The prompt of a dialogue, which ends where the assistant's answer begins or goes on.
    ///
    /// A template that knows no tools, or lets them be called in a form that is none of Walsh's, has them described in a
    /// system message. One whose form has no more than one call in a message gets several of a message in several.
    ///
    /// # Errors
    /// [`Error::Dialogue`] when a message, a tool or a variable is malformed; else as [`render`](Self::render).
    pub fn prompt(&self, dialogue: &Dialogue, tokenizer: &Tokenizer) -> Result<ChatPrompt> {
        let context = dialogue.context(self)?;
        let prompt = Prompt::of(self, &context, tokenizer, Special::Text)?;
        let tokens = prompt.first_tokens(tokenizer)?;
        let checkpoints = Prompt::ends_of_messages(self, &context, tokenizer, &tokens);
        Ok(ChatPrompt {
            text: prompt.text,
            tokens,
            checkpoints,
        })
    }
}

impl Dialogue {
    /// What the template is given.
    pub(super) fn context(&self, template: &Template) -> Result<Context> {
        for tool in &self.tools {
            Tool::parse(tool)?;
        }
        let mut messages = self.checked()?;
        template.form.adapt(template, &mut messages, &self.tools)?;
        let described = template.form.is_described();
        let tools = match self.tools.is_empty() || described {
            true => Json::Null,
            false => Json::List(self.tools.iter().map(to_json).collect::<Result<_>>()?),
        };
        let mut context = Context {
            messages: Vec::new(),
            tools,
            variables: self.checked_variables(template)?,
            answer: !self.continues,
            cut: None,
        };
        let messages = messages
            .into_iter()
            .map(|message| to_json(&Value::Object(message)));
        context.messages = messages.collect::<Result<_>>()?;
        if self.continues {
            self.cut(template, &mut context)?;
        }
        Ok(context)
    }

    /// The messages in one form, each with a role and a text.
    fn checked(&self) -> Result<Vec<Map<String, Value>>> {
        if self.messages.is_empty() {
            return Err(wrong("messages must be at least one, but there is none"));
        }
        let mut names: HashMap<String, Value> = HashMap::new();
        let mut checked = Vec::with_capacity(self.messages.len());
        for (index, message) in self.messages.iter().enumerate() {
            let place = format!("messages[{index}]");
            let mut message = message.clone();
            let role = message.get("role").and_then(Value::as_str);
            let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
            let role = role.filter(|role| {
                !role.is_empty() && role.len() <= LONGEST_ROLE && role.chars().all(is_plain)
            });
            let Some(role) = role else {
                return Err(wrong(format!(
                    "{place}.role must be a word such as user, but is {}",
                    shown(message.get("role"))
                )));
            };
            let is_tool = role == "tool";
            match message.get("content") {
                Some(Value::String(_)) => {}
                None | Some(Value::Null) => {
                    message.insert("content".into(), "".into());
                }
                other => {
                    let shown = shown(other);
                    return Err(wrong(format!(
                        "{place}.content must be text, but is {shown}"
                    )));
                }
            }
            match message.remove("tool_calls") {
                None | Some(Value::Null) => {}
                Some(Value::Array(calls)) if calls.is_empty() => {}
                Some(Value::Array(calls)) => {
                    let calls = calls.iter().enumerate().map(|(at, call)| {
                        let call = checked_call(call, &format!("{place}.tool_calls[{at}]"))?;
                        if let Some(id) = call["id"].as_str() {
                            names.insert(id.to_owned(), call["function"]["name"].clone());
                        }
                        Ok(call)
                    });
                    let calls = calls.collect::<Result<_>>()?;
                    message.insert("tool_calls".into(), Value::Array(calls));
                }
                other => {
                    let shown = shown(other.as_ref());
                    let what = format!("{place}.tool_calls must be a list, but is {shown}");
                    return Err(wrong(what));
                }
            }
            // Some templates name the tool whose answer it is, where clients give the call's id alone.
            let id = message.get("tool_call_id").and_then(Value::as_str);
            let name = id.and_then(|id| names.get(id)).cloned();
            if let Some(name) = name.filter(|_| is_tool && !message.contains_key("name")) {
                message.insert("name".into(), name);
            }
            checked.push(message);
        }
        Ok(checked)
    }

    /// The variables, none of which is what the dialogue or the model says itself.
    fn checked_variables(&self, template: &Template) -> Result<Vec<(String, Json)>> {
        let variable = |(name, value): (&String, &Value)| {
            let own = ["messages", "tools", "add_generation_prompt"].contains(&name.as_str());
            if own || template.tokens.iter().any(|(token, _)| token == name) {
                return Err(wrong(format!(
                    "a variable of the template must not be named {name}, which Walsh sets itself"
                )));
            }
            Ok((name.clone(), to_json(value)?))
        };
        self.variables.iter().map(variable).collect()
    }

    /// Puts a character behind the last message, by which its place in the text is found.
    fn cut(&self, template: &Template, context: &mut Context) -> Result<()> {
        let last = self.messages.last();
        let role = last.and_then(|message| message.get("role")?.as_str());
        let calls = last.is_some_and(|message| message.contains_key("tool_calls"));
        if role != Some("assistant") || calls {
            return Err(wrong(
                "the last message must be an assistant's without tool calls to be gone on with: leave that out, or end with such a message",
            ));
        }
        let free = ('\u{fdd0}'..='\u{fdef}')
            .rev()
            .find(|&c| !context.has(c) && !template.source.contains(c));
        let Some(Json::Map(entries)) = context.messages.last_mut() else {
            return Ok(());
        };
        let content = entries.iter_mut().find(|(name, _)| name == "content");
        if let (Some(free), Some((_, Json::Str(text)))) = (free, content) {
            text.push(free);
            context.cut = Some(free);
            return Ok(());
        }
        Err(Error::template(
            "messages have all 32 characters from U+FDD0 to U+FDEF in them: leave one out",
        ))
    }
}

/// A call with its arguments as an object.
fn checked_call(call: &Value, place: &str) -> Result<Value> {
    let function = call.get("function").and_then(Value::as_object);
    let name = function.and_then(|function| function.get("name")?.as_str());
    let Some(name) = name.filter(|name| is_name(name)) else {
        let name = function.and_then(|function| function.get("name"));
        return Err(wrong(format!(
            "{place}.function.name must be a tool's name, but is {}",
            shown(name)
        )));
    };
    let given = function.and_then(|function| function.get("arguments"));
    let arguments = match given {
        None | Some(Value::Null) => Some(json!({})),
        Some(Value::String(text)) if text.trim().is_empty() => Some(json!({})),
        Some(Value::String(text)) => serde_json::from_str(text).ok(),
        Some(value) => Some(value.clone()),
    };
    let Some(arguments) = arguments.filter(Value::is_object) else {
        return Err(wrong(format!(
            "{place}.function.arguments must be an object, but is {}",
            shown(given)
        )));
    };
    let mut checked = call.as_object().cloned().unwrap_or_default();
    let function = json!({"name": name, "arguments": arguments});
    checked.entry("type").or_insert("function".into());
    checked.insert("function".into(), function);
    Ok(Value::Object(checked))
}

fn to_json(value: &Value) -> Result<Json> {
    use serde::Deserialize;
    Json::deserialize(value).map_err(|error| wrong(error.to_string()))
}
