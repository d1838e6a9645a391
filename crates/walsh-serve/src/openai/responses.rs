//! `POST /v1/responses`, and the responses that are kept for later ones.

mod input;
mod kept;
mod writer;

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use walsh_runtime::chat::{Dialogue, ToolChoice};
use walsh_runtime::{Finish, Logprobs};

pub(crate) use self::kept::Kept;
use self::writer::ResponseWriter;
use super::chat_logprobs;
use crate::answer::{Ended, Whole, sum};
use crate::api::Failures;
use crate::ask::{self, Ask};
use crate::body::{Body, InPath};
use crate::error::{ApiError, Result};
use crate::knobs::{self, Knobs};
use crate::models::Lent;
use crate::{App, Asked, events, new_id, now};

#[derive(Deserialize, utoipa::ToSchema)]
struct Responses {
    model: Option<String>,
    input: Option<Value>,
    instructions: Option<String>,
    previous_response_id: Option<String>,
    tools: Option<Vec<Value>>,
    tool_choice: Option<Value>,
    parallel_tool_calls: Option<bool>,
    text: Option<Map<String, Value>>,
    reasoning: Option<Map<String, Value>>,
    max_output_tokens: Option<i64>,
    stream: Option<bool>,
    store: Option<bool>,
    background: Option<bool>,
    include: Option<Vec<String>>,
    top_logprobs: Option<usize>,
    metadata: Option<Map<String, Value>>,
    conversation: Option<Value>,
    prompt: Option<Value>,
}

/// What a response says of its request, and what it is made of.
struct Head {
    /// The response's object without its output.
    object: Value,
    id: String,
    /// The messages that were read, to go on from later; none where nothing is kept.
    messages: Option<Vec<Map<String, Value>>>,
    app: Arc<App>,
    served: Arc<Lent>,
}

/// Goes on with a conversation, of which what came before may be kept here.
#[utoipa::path(
    post,
    path = "/v1/responses",
    request_body = knobs::With<Responses>,
    responses((status = 200, description = "The response, or with `stream` server-sent events", content((Value = "application/json"), (Value = "text/event-stream"))), Failures)
)]
pub(crate) async fn respond(
    State(app): State<Arc<App>>,
    Extension(asked): Extension<Asked>,
    Body(body): Body,
) -> Result<Response> {
    let asks: Responses = knobs::read(&body)?;
    let given: Knobs = knobs::read(&body)?;
    let place = app.models.place()?;
    if asks.background == Some(true) {
        return Err(ApiError::field(
            "background",
            "background: responses are made while the client waits",
        ));
    }
    // What is kept elsewhere would be missing from the conversation.
    for (name, given) in [
        ("conversation", &asks.conversation),
        ("prompt", &asks.prompt),
    ] {
        if given.is_some() {
            let message = format!(
                "{name}: none are kept here: give input, and instructions or previous_response_id"
            );
            return Err(ApiError::field(name, message));
        }
    }
    let choice = super::chat::tool_choice(asks.tool_choice.as_ref())?;
    let tools = asks.tools.as_deref().map(input::tools).transpose()?;
    let (given_tools, tools) = ask::tools(tools, &choice)?;
    let mut messages = match &asks.previous_response_id {
        Some(id) => app.kept.messages(id)?,
        None => Vec::new(),
    };
    let missing = || ApiError::field("input", "input is missing");
    let own = input::messages(asks.input.as_ref().ok_or_else(missing)?)?;
    if !own.is_empty() || messages.is_empty() {
        ask::messages(own.clone()).map_err(input::own)?;
    }
    messages.extend(own);
    let read = ask::messages(instructed(asks.instructions.as_deref(), &messages))?;
    let format = asks.text.as_ref().and_then(|text| text.get("format"));
    let constraint = ask::form(format, "text.format")?;
    let served = app.models.get(asks.model.as_deref()).await?;
    let mut request = given.request(&served, &asked)?;
    request.constraint = constraint;
    let includes = |what: &str| asks.include.iter().flatten().any(|name| name == what);
    let top = knobs::top("top_logprobs", asks.top_logprobs.unwrap_or(0))?;
    request.top_logprobs = includes("message.output_text.logprobs").then_some(top);
    request.max_tokens = knobs::most_tokens("max_output_tokens", asks.max_output_tokens)?;
    let sampling = request.sampling;
    let mut variables = Map::new();
    if let Some(effort) = asks
        .reasoning
        .as_ref()
        .and_then(|reasoning| reasoning.get("effort")?.as_str())
    {
        variables.insert("reasoning_effort".into(), effort.into());
    }
    let parallel = asks.parallel_tool_calls.unwrap_or(true);
    let answers = Ask {
        served: Arc::clone(&served),
        dialogue: Dialogue {
            messages: read,
            tools: given_tools,
            variables,
            continues: false,
        },
        tools,
        choice: choice.clone(),
        parallel,
        request,
        form: "text.format",
        answers: 1,
    };
    let answers = answers.submit(&app, place).await?;
    let id = new_id("resp_");
    let store = asks.store.unwrap_or(true);
    let object = json!({
        "id": id,
        "object": "response",
        "created_at": now(),
        "status": "in_progress",
        "background": false,
        "error": null,
        "incomplete_details": null,
        "instructions": asks.instructions,
        "max_output_tokens": asks.max_output_tokens,
        "metadata": asks.metadata.unwrap_or_default(),
        "model": served.name,
        "output": [],
        "parallel_tool_calls": parallel,
        "previous_response_id": asks.previous_response_id,
        "reasoning": asks.reasoning.map_or_else(|| json!({ "effort": null, "summary": null }), Value::from),
        "store": store,
        "temperature": sampling.temperature,
        "text": asks.text.map_or_else(|| json!({ "format": { "type": "text" } }), Value::from),
        "tool_choice": match choice {
            ToolChoice::None => json!("none"),
            ToolChoice::Auto => json!("auto"),
            ToolChoice::Required => json!("required"),
            ToolChoice::Named(name) => json!({ "type": "function", "name": name }),
        },
        "tools": asks.tools.unwrap_or_default(),
        "top_p": sampling.top_p,
        "truncation": "disabled",
        "usage": null,
        "user": null,
    });
    let head = Head {
        served: Arc::clone(&served),
        object,
        id,
        messages: store.then_some(messages),
        app: Arc::clone(&app),
    };
    if asks.stream.unwrap_or(false) {
        return Ok(events::respond(answers, ResponseWriter::new(head)));
    }
    let whole = answers.only().await?;
    app.log_text("answer", &whole.text);
    let output = output(&whole, &head);
    let object = head.ended(whole.ended()?, output);
    Ok(Json(object).into_response())
}

/// Messages with the instructions of this request before them.
fn instructed(
    instructions: Option<&str>,
    messages: &[Map<String, Value>],
) -> Vec<Map<String, Value>> {
    let system = instructions.map(|text| {
        let message = [("role", "system"), ("content", text)];
        message
            .map(|(name, value)| (name.to_owned(), value.into()))
            .into_iter()
            .collect()
    });
    let mut all: Vec<Map<String, Value>> = system.into_iter().collect();
    all.extend_from_slice(messages);
    all
}

/// A response that is kept.
#[utoipa::path(
    get,
    path = "/v1/responses/{id}",
    params(("id" = String, Path)),
    responses((status = 200, description = "The response", body = Value, content_type = "application/json"), Failures)
)]
pub(crate) async fn get(State(app): State<Arc<App>>, InPath(id): InPath) -> Result<Json<Value>> {
    Ok(Json(app.kept.object(&id)?))
}

/// Forgets a response.
#[utoipa::path(
    delete,
    path = "/v1/responses/{id}",
    params(("id" = String, Path)),
    responses((status = 200, description = "What was forgotten", body = Value, content_type = "application/json"), Failures)
)]
pub(crate) async fn delete(State(app): State<Arc<App>>, InPath(id): InPath) -> Result<Json<Value>> {
    app.kept.remove(&id)?;
    Ok(Json(
        json!({ "id": id, "object": "response", "deleted": true }),
    ))
}

/// The items of an answer.
fn output(whole: &Whole, head: &Head) -> Vec<Value> {
    let mut items = Vec::new();
    if !whole.reasoning.is_empty() {
        items.push(reasoning_item(&new_id("rs_"), &whole.reasoning));
    }
    if !whole.text.is_empty() || whole.calls.is_empty() {
        let logprobs = whole.tokens.iter().map(|token| head.logprobs(token));
        let part = text_part(&whole.text, logprobs.collect());
        items.push(message_item(&new_id("msg_"), Some(part)));
    }
    for call in &whole.calls {
        let ids = (new_id("fc_"), new_id("call_"));
        items.push(call_item(&ids, &call.name, Some(&call.arguments)));
    }
    items
}

fn reasoning_item(id: &str, text: &str) -> Value {
    let content = json!([{ "type": "reasoning_text", "text": text }]);
    json!({ "id": id, "type": "reasoning", "summary": [], "content": content })
}

/// A message, with its text once it is complete.
fn message_item(id: &str, part: Option<Value>) -> Value {
    json!({
        "id": id,
        "type": "message",
        "status": status(part.is_some()),
        "role": "assistant",
        "content": part.into_iter().collect::<Vec<_>>(),
    })
}

fn text_part(text: &str, logprobs: Vec<Value>) -> Value {
    json!({ "type": "output_text", "text": text, "annotations": [], "logprobs": logprobs })
}

/// A call, with its arguments once they are complete.
fn call_item((id, call_id): &(String, String), name: &str, arguments: Option<&str>) -> Value {
    json!({
        "id": id,
        "type": "function_call",
        "status": status(arguments.is_some()),
        "call_id": call_id,
        "name": name,
        "arguments": arguments.unwrap_or_default(),
    })
}

fn status(is_whole: bool) -> &'static str {
    match is_whole {
        true => "completed",
        false => "in_progress",
    }
}

impl Head {
    /// What is told of a token.
    fn logprobs(&self, token: &(i32, Logprobs)) -> Value {
        chat_logprobs(self.served.engine.model().tokenizer(), token)
    }

    /// The response with all of its output; kept, if it is to be.
    fn ended(&self, ended: &Ended, output: Vec<Value>) -> Value {
        let mut object = self.object.clone();
        let whole = matches!(ended.finish, Finish::End | Finish::Stop);
        object["status"] = if whole { "completed" } else { "incomplete" }.into();
        if !whole {
            object["incomplete_details"] = json!({ "reason": "max_output_tokens" });
        }
        let tokens = sum([ended]);
        object["usage"] = json!({
            "input_tokens": tokens.prompt,
            "input_tokens_details": { "cached_tokens": tokens.cached },
            "output_tokens": tokens.generated,
            "output_tokens_details": { "reasoning_tokens": tokens.reasoning },
            "total_tokens": tokens.prompt + tokens.generated,
        });
        let said = Value::Array(output);
        if let Some(messages) = &self.messages
            && let Ok(more) = input::messages(&said)
        {
            let messages = messages.iter().cloned().chain(more).collect();
            object["output"] = said;
            self.app.kept.keep(&self.id, object.clone(), messages);
            return object;
        }
        object["output"] = said;
        object
    }
}
