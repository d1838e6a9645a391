//! What a conversation asks for, whatever interface it came by.

use std::sync::Arc;

use serde_json::{Map, Value, json};
use walsh_runtime::chat::{Dialogue, OutputParser, Tool, ToolChoice, ToolRequest};
use walsh_runtime::{Constraint, Request};

use crate::App;
use crate::answer::{Answer, Answers};
use crate::error::{About, ApiError, Result};
use crate::models::{Lent, Place};

/// A conversation, and how it is to go on.
pub(crate) struct Ask {
    pub(crate) served: Arc<Lent>,
    /// With its tools.
    pub(crate) dialogue: Dialogue,
    pub(crate) tools: Vec<Tool>,
    pub(crate) choice: ToolChoice,
    /// Whether an answer may call several tools.
    pub(crate) parallel: bool,
    /// The request, without its prompt.
    pub(crate) request: Request,
    /// By which field the form of the answer came.
    pub(crate) form: &'static str,
    /// How many answers are wanted.
    pub(crate) answers: usize,
}

/// The form of an answer that `response_format` and its like ask for.
pub(crate) fn form(format: Option<&Value>, at: &str) -> Result<Option<Constraint>> {
    let Some(format) = format.filter(|format| !format.is_null()) else {
        return Ok(None);
    };
    let schema = match format["type"].as_str() {
        Some("text") => return Ok(None),
        Some("json_object") => format
            .get("schema")
            .cloned()
            .unwrap_or(json!({"type": "object"})),
        Some("json_schema") => {
            let inner = format.get("json_schema").unwrap_or(format);
            let missing = || ApiError::field(at, format!("{at}: it has no \"schema\""));
            inner.get("schema").cloned().ok_or_else(missing)?
        }
        Some("regex") => {
            let missing = || ApiError::field(at, format!("{at}: it has no \"regex\""));
            let regex = format["regex"].as_str().ok_or_else(missing)?;
            return Ok(Some(Constraint::Regex(regex.to_owned())));
        }
        Some("grammar") => {
            let missing = || ApiError::field(at, format!("{at}: it has no \"grammar\""));
            let grammar = format["grammar"].as_str().ok_or_else(missing)?;
            return Ok(Some(Constraint::Lark(grammar.to_owned())));
        }
        other => {
            let message = format!(
                "{at}.type is {}: give text, json_object, json_schema, regex or grammar",
                other.map_or("missing".to_owned(), |other| format!("{other:?}"))
            );
            return Err(ApiError::field(at, message));
        }
    };
    Ok(Some(Constraint::JsonSchema(schema.to_string())))
}

/// The tools of a request as they are given and as they are read: none where none may be called.
pub(crate) fn tools(
    given: Option<Vec<Value>>,
    choice: &ToolChoice,
) -> Result<(Vec<Value>, Vec<Tool>)> {
    let given = given
        .filter(|_| *choice != ToolChoice::None)
        .unwrap_or_default();
    let tools = Tool::parse_all(&given);
    let tools = tools.map_err(|error| ApiError::field("tools", error.to_string()))?;
    let named = |name: &str| tools.iter().any(|tool| tool.name == name);
    let wrong = match choice {
        ToolChoice::Required if tools.is_empty() => {
            "tool_choice asks for a call, but there are no tools".to_owned()
        }
        ToolChoice::Named(name) if !named(name) => {
            format!("tool_choice: there is no tool {name:?} in tools")
        }
        _ => return Ok((given, tools)),
    };
    Err(ApiError::field("tool_choice", wrong))
}

impl Ask {
    /// Hands it to the engine.
    pub(crate) async fn submit(self, app: &Arc<App>, place: Place) -> Result<Answers> {
        let (app, form) = (Arc::clone(app), self.form);
        // Long texts, hostile templates and large schemas take their time.
        let submitted = tokio::task::spawn_blocking(move || self.submit_here(&app, place)).await?;
        submitted.map_err(|error| error.of(About::Form, form).of(About::Prompt, "messages"))
    }

    /// What counts the tokens of its prompt.
    pub(crate) fn count(self) -> impl FnOnce() -> Result<usize> + Send + 'static {
        move || {
            let tokenizer = self.served.engine.model().tokenizer();
            let prompt = self.served.template()?.prompt(&self.dialogue, tokenizer)?;
            Ok(prompt.tokens.len())
        }
    }

    fn submit_here(self, app: &Arc<App>, place: Place) -> Result<Answers> {
        let Self {
            served,
            dialogue,
            tools,
            choice,
            parallel,
            mut request,
            answers,
            form: _,
        } = self;
        let template = served.template()?;
        let tokenizer = served.engine.model().tokenizer();
        let prompt = template.prompt(&dialogue, tokenizer)?;
        let schema: Option<Value> = match &request.constraint {
            Some(Constraint::JsonSchema(schema)) => serde_json::from_str(schema).ok(),
            _ => None,
        };
        let called = template.tool_constraint(&ToolRequest {
            tools: &tools,
            choice: &choice,
            parallel,
            prompt_text: &prompt.text,
            answer: schema.as_ref(),
        })?;
        request.constraint = match (request.constraint, called) {
            (None | Some(Constraint::JsonSchema(_)), Some(called)) => Some(called),
            (form, None) if form.is_none() || tools.is_empty() => form,
            _ => {
                let message = "a regular expression or a grammar for the answer, and tools, are more than can be kept at once: leave out response_format, give it a schema, or leave out tools";
                return Err(ApiError::bad(message));
            }
        };
        app.log_text("prompt", &prompt.text);
        let parser = || OutputParser::new(template, &prompt.text, &tools);
        request.show_control = parser().shows_control();
        request.prompt = prompt.tokens;
        request.checkpoints = prompt.checkpoints;
        let ask = |index: usize| {
            let request = Request {
                seed: request.seed.wrapping_add(index as u64),
                ..request.clone()
            };
            let only = matches!(choice, ToolChoice::Required | ToolChoice::Named(_));
            Answer::new(app, &served, request, Some((parser(), only)))
        };
        let answers: Result<Vec<Answer>> = (0..answers).map(ask).collect();
        Ok(Answers::new(answers?, request.prompt.len(), place))
    }
}

/// The messages of a request, as templates read them.
pub(crate) fn messages(given: Vec<Map<String, Value>>) -> Result<Vec<Map<String, Value>>> {
    if given.is_empty() {
        return Err(ApiError::field(
            "messages",
            "messages is empty: give at least one",
        ));
    }
    let mut messages: Vec<Map<String, Value>> = Vec::with_capacity(given.len());
    for (index, mut message) in given.into_iter().enumerate() {
        let at = format!("messages[{index}]");
        let wrong = |field: &str, what: &str| {
            ApiError::field(format!("{at}.{field}"), format!("{at}.{field}: {what}"))
        };
        message.retain(|_, value| !value.is_null());
        let role = message
            .get("role")
            .and_then(Value::as_str)
            .map(str::to_owned);
        let role = match role.as_deref() {
            Some("developer") => "system",
            Some("function") => "tool",
            Some(role @ ("system" | "user" | "assistant" | "tool")) => role,
            _ => {
                return Err(wrong(
                    "role",
                    "give system, developer, user, assistant or tool",
                ));
            }
        };
        let content = match message.get("content") {
            Some(content) => text(content, &format!("{at}.content"))?,
            None if role == "assistant" => String::new(),
            None => return Err(wrong("content", "it is missing")),
        };
        message.insert("role".into(), role.into());
        message.insert("content".into(), content.into());
        messages.push(message);
    }
    Ok(messages)
}

/// The text of a message: itself, or parts.
pub(crate) fn text(content: &Value, at: &str) -> Result<String> {
    let parts = match content {
        Value::String(text) => return Ok(text.clone()),
        Value::Array(parts) => parts,
        _ => {
            return Err(ApiError::field(
                at,
                format!("{at}: give a text, or an array of parts"),
            ));
        }
    };
    let mut texts = Vec::new();
    for (index, part) in parts.iter().enumerate() {
        let at = format!("{at}[{index}]");
        match (part["type"].as_str(), part["text"].as_str()) {
            (Some("text" | "input_text" | "output_text"), Some(text)) => texts.push(text),
            (Some("refusal"), _) => texts.push(part["refusal"].as_str().unwrap_or_default()),
            (Some(kind), _) if kind != "text" => {
                let message = format!(
                    "{at}: a part of type {kind:?} cannot be read: the model reads text alone"
                );
                return Err(ApiError::field(at, message));
            }
            _ => {
                return Err(ApiError::field(
                    at.clone(),
                    format!("{at}: it has no \"type\" or no \"text\""),
                ));
            }
        }
    }
    Ok(texts.join("\n"))
}
