//! `POST /v1/chat/completions`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::sse::Event;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use walsh_runtime::chat::{Delta, Dialogue, ToolChoice};

use super::{chat_logprobs, finish_reason, timings, usage};
use crate::answer::{Answers, Call, Ended, Said, Whole, sum};
use crate::api::Failures;
use crate::ask::{self, Ask};
use crate::body::Body;
use crate::error::{ApiError, Result};
use crate::events::{self, Writer, data};
use crate::knobs::{self, Knobs};
use crate::models::Lent;
use crate::{App, Asked, new_id, now};

/// The fields of a request but those of [`Knobs`].
#[derive(Deserialize, utoipa::ToSchema)]
struct Chat {
    model: Option<String>,
    messages: Vec<Map<String, Value>>,
    tools: Option<Vec<Value>>,
    tool_choice: Option<Value>,
    parallel_tool_calls: Option<bool>,
    response_format: Option<Value>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    logprobs: Option<bool>,
    #[schema(maximum = 20)]
    top_logprobs: Option<usize>,
    #[schema(minimum = 1, maximum = 128)]
    n: Option<usize>,
    max_tokens: Option<i64>,
    max_completion_tokens: Option<i64>,
    chat_template_kwargs: Option<Map<String, Value>>,
    reasoning_effort: Option<String>,
    continue_final_message: Option<bool>,
    functions: Option<Value>,
    prediction: Option<Value>,
}

#[derive(Deserialize, utoipa::ToSchema)]
struct StreamOptions {
    include_usage: Option<bool>,
}

/// What `tool_choice` says.
pub(super) fn tool_choice(choice: Option<&Value>) -> Result<ToolChoice> {
    let wrong = || {
        let message = "tool_choice: give \"none\", \"auto\", \"required\" or {\"type\": \"function\", \"function\": {\"name\": …}}";
        ApiError::field("tool_choice", message)
    };
    match choice {
        None | Some(Value::Null) => Ok(ToolChoice::Auto),
        Some(Value::String(word)) => match word.as_str() {
            "none" => Ok(ToolChoice::None),
            "auto" => Ok(ToolChoice::Auto),
            "required" | "any" => Ok(ToolChoice::Required),
            _ => Err(wrong()),
        },
        Some(choice) => {
            let name = choice
                .pointer("/function/name")
                .or_else(|| choice.get("name"));
            let name = name
                .and_then(Value::as_str)
                .filter(|_| choice["type"] == "function");
            name.map(|name| ToolChoice::Named(name.to_owned()))
                .ok_or_else(wrong)
        }
    }
}

/// Answers a conversation.
#[utoipa::path(
    post,
    path = "/v1/chat/completions",
    request_body = knobs::With<Chat>,
    responses((status = 200, description = "The answers, or with `stream` server-sent events of their pieces", content((Value = "application/json"), (Value = "text/event-stream"))), Failures)
)]
pub(crate) async fn chat(
    State(app): State<Arc<App>>,
    Extension(asked): Extension<Asked>,
    Body(body): Body,
) -> Result<Response> {
    let chat: Chat = knobs::read(&body)?;
    let given: Knobs = knobs::read(&body)?;
    let place = app.models.place()?;
    if chat.functions.is_some() {
        let message = "functions were replaced by tools: give those";
        return Err(ApiError::field("functions", message));
    }
    if chat.prediction.is_some() {
        tracing::warn!(
            id = asked.id,
            "prediction is left out: it changes no answer"
        );
    }
    let choice = tool_choice(chat.tool_choice.as_ref())?;
    let (given_tools, tools) = ask::tools(chat.tools, &choice)?;
    let messages = ask::messages(chat.messages)?;
    let answers = knobs::answers(chat.n)?;
    let wanted = match (chat.logprobs.unwrap_or(false), chat.top_logprobs) {
        (true, top) => Some(knobs::top("top_logprobs", top.unwrap_or(0))?),
        (false, None | Some(0)) => None,
        (false, Some(_)) => {
            let message = "top_logprobs needs logprobs to be true";
            return Err(ApiError::field("top_logprobs", message));
        }
    };
    let constraint = ask::form(chat.response_format.as_ref(), "response_format")?;
    let served = app.models.get(chat.model.as_deref()).await?;
    let mut request = given.request(&served, &asked)?;
    request.top_logprobs = wanted;
    request.constraint = constraint;
    request.max_tokens = match chat.max_completion_tokens {
        Some(most) => knobs::most_tokens("max_completion_tokens", Some(most))?,
        None => knobs::most_tokens("max_tokens", chat.max_tokens)?,
    };
    let mut variables = chat.chat_template_kwargs.unwrap_or_default();
    if let Some(effort) = chat.reasoning_effort {
        variables.entry("reasoning_effort").or_insert(effort.into());
    }
    let continues = chat.continue_final_message.unwrap_or(false);
    if continues
        && messages
            .last()
            .is_some_and(|last| last["role"] != "assistant")
    {
        let message = "continue_final_message: the last message is none of the assistant";
        return Err(ApiError::field("continue_final_message", message));
    }
    let asks = Ask {
        served: Arc::clone(&served),
        dialogue: Dialogue {
            messages,
            tools: given_tools,
            variables,
            continues,
        },
        tools,
        choice,
        parallel: chat.parallel_tool_calls.unwrap_or(true),
        request,
        form: "response_format",
        answers,
    };
    let answers = asks.submit(&app, place).await?;
    let head = Head {
        id: new_id("chatcmpl-"),
        created: now(),
        with_logprobs: wanted.is_some(),
        served,
    };
    if chat.stream.unwrap_or(false) {
        let options = chat.stream_options;
        let with_usage = options.and_then(|o| o.include_usage).unwrap_or(false);
        return Ok(events::respond(answers, ChatWriter::new(head, with_usage)));
    }
    whole(&app, answers, &head).await
}

/// What all parts of an answer have.
struct Head {
    id: String,
    created: u64,
    with_logprobs: bool,
    served: Arc<Lent>,
}

impl Head {
    fn object(&self, object: &str, choices: Value) -> Value {
        json!({
            "id": self.id,
            "object": object,
            "created": self.created,
            "model": self.served.name,
            "system_fingerprint": concat!("walsh-", env!("CARGO_PKG_VERSION")),
            "choices": choices,
        })
    }
}

/// A call of a tool, as clients read it.
pub(super) fn call(call: &Call) -> Value {
    json!({
        "id": new_id("call_"),
        "type": "function",
        "function": { "name": call.name, "arguments": call.arguments },
    })
}

/// The answers at once.
async fn whole(app: &App, answers: Answers, head: &Head) -> Result<Response> {
    let wholes = answers.whole().await?;
    let mut choices = Vec::new();
    let mut ends: Vec<&Ended> = Vec::new();
    let tokenizer = head.served.engine.model().tokenizer();
    for (index, answer) in wholes.iter().enumerate() {
        app.log_text("answer", &answer.text);
        let ended = answer.ended()?;
        ends.push(ended);
        let logprobs = head.with_logprobs.then(|| {
            let content = answer
                .tokens
                .iter()
                .map(|token| chat_logprobs(tokenizer, token));
            json!({ "content": content.collect::<Vec<_>>(), "refusal": null })
        });
        choices.push(json!({
            "index": index,
            "message": message(answer),
            "logprobs": logprobs,
            "finish_reason": finish_reason(ended),
        }));
    }
    let mut object = head.object("chat.completion", choices.into());
    object["usage"] = usage(sum(ends.iter().copied()));
    if let [ended] = ends[..] {
        object["timings"] = timings(ended);
    }
    Ok(Json(object).into_response())
}

fn message(answer: &Whole) -> Value {
    let content = match answer.text.is_empty() && !answer.calls.is_empty() {
        true => Value::Null,
        false => answer.text.as_str().into(),
    };
    let mut message = json!({ "role": "assistant", "content": content, "refusal": null });
    if !answer.reasoning.is_empty() {
        message["reasoning_content"] = answer.reasoning.as_str().into();
    }
    if !answer.calls.is_empty() {
        message["tool_calls"] = answer.calls.iter().map(call).collect();
    }
    message
}

/// The answers as they come.
struct ChatWriter {
    head: Head,
    with_usage: bool,
    begun: Vec<bool>,
    ended: Vec<Ended>,
}

impl ChatWriter {
    fn new(head: Head, with_usage: bool) -> Self {
        Self {
            head,
            with_usage,
            begun: Vec::new(),
            ended: Vec::new(),
        }
    }

    /// A part of one answer.
    fn chunk(&self, index: usize, delta: &Value, rest: (Value, Option<&str>)) -> Event {
        let (logprobs, reason) = rest;
        let mut object = self.head.object(
            "chat.completion.chunk",
            json!([{ "index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason }]),
        );
        if self.with_usage {
            object["usage"] = Value::Null;
        }
        data(&object)
    }

    fn begin_answer(&mut self, index: usize, events: &mut Vec<Event>) {
        if self.begun.len() <= index {
            self.begun.resize(index + 1, false);
        }
        if !std::mem::replace(&mut self.begun[index], true) {
            let delta = json!({ "role": "assistant", "content": "" });
            events.push(self.chunk(index, &delta, (Value::Null, None)));
        }
    }
}

/// What a delta is to clients.
fn delta(delta: Delta) -> Value {
    match delta {
        Delta::Text(text) => json!({ "content": text }),
        Delta::Reasoning(text) => json!({ "reasoning_content": text }),
        Delta::Call { index, name } => json!({ "tool_calls": [{
            "index": index,
            "id": new_id("call_"),
            "type": "function",
            "function": { "name": name, "arguments": "" },
        }] }),
        Delta::Arguments { index, text } => json!({ "tool_calls": [{
            "index": index,
            "function": { "arguments": text },
        }] }),
    }
}

impl Writer for ChatWriter {
    fn begin(&mut self) -> Vec<Event> {
        Vec::new()
    }

    fn said(&mut self, index: usize, said: Said) -> Vec<Event> {
        let mut events = Vec::new();
        self.begin_answer(index, &mut events);
        match said {
            Said::Piece(piece) => {
                let tokenizer = self.head.served.engine.model().tokenizer();
                let mut logprobs = piece.token.as_ref().map_or(Value::Null, |token| {
                    json!({ "content": [chat_logprobs(tokenizer, token)], "refusal": null })
                });
                let mut deltas: Vec<Value> = piece.deltas.into_iter().map(delta).collect();
                if deltas.is_empty() && !logprobs.is_null() {
                    deltas.push(json!({ "content": "" }));
                }
                for delta in deltas {
                    let logprobs = logprobs.take();
                    events.push(self.chunk(index, &delta, (logprobs, None)));
                }
            }
            Said::Prompt(_) => {}
            Said::End(ended) => {
                let reason = finish_reason(&ended);
                events.push(self.chunk(index, &json!({}), (Value::Null, Some(reason))));
                self.ended.push(ended);
            }
        }
        events
    }

    fn end(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        if self.with_usage {
            let mut object = self.head.object("chat.completion.chunk", json!([]));
            object["usage"] = usage(sum(&self.ended));
            if let [ended] = &self.ended[..] {
                object["timings"] = timings(ended);
            }
            events.push(data(&object));
        }
        events.push(Event::default().data("[DONE]"));
        events
    }

    fn failed(&mut self, error: &ApiError) -> Vec<Event> {
        vec![data(&error.body()), Event::default().data("[DONE]")]
    }
}
