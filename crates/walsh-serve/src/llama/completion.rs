//! `POST /completion` and `POST /infill`, as llama-server's own clients know them.

use std::sync::Arc;

use axum::extract::State;
use axum::response::sse::Event;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::{Value, json};
use walsh_runtime::{Constraint, Finish, Logprobs, Request};

use crate::answer::{Answer, Answers, Ended, Said};
use crate::api::Failures;
use crate::body::Body;
use crate::error::{About, ApiError, Result};
use crate::events::{self, Writer, data};
use crate::knobs::{self, Knobs};
use crate::models::Lent;
use crate::openai::completions::{Prompts, infill};
use crate::openai::{timings, token_logprob};
use crate::{App, Asked};

#[derive(Deserialize, utoipa::ToSchema)]
struct Completion {
    model: Option<String>,
    prompt: Option<Prompts>,
    n_predict: Option<i64>,
    n_probs: Option<usize>,
    json_schema: Option<Value>,
    grammar: Option<String>,
    stream: Option<bool>,
}

#[derive(Deserialize, utoipa::ToSchema)]
struct Infill {
    input_prefix: Option<String>,
    input_suffix: Option<String>,
    input_extra: Option<Vec<Extra>>,
    prompt: Option<String>,
}

/// A file that is there besides.
#[derive(Deserialize, utoipa::ToSchema)]
struct Extra {
    filename: Option<String>,
    text: String,
}

/// Goes on with a text.
#[utoipa::path(
    post,
    path = "/completion",
    request_body = knobs::With<Completion>,
    responses((status = 200, description = "What follows the text", content((Value = "application/json"), (Value = "text/event-stream"))), Failures)
)]
pub(crate) async fn completion(
    State(app): State<Arc<App>>,
    Extension(asked): Extension<Asked>,
    Body(body): Body,
) -> Result<Response> {
    let mut asks: Completion = knobs::read(&body)?;
    let prompt = asks.prompt.take();
    let prompt = prompt.ok_or_else(|| ApiError::field("prompt", "prompt is missing"))?;
    let served = app.models.get(asks.model.as_deref()).await?;
    let with = Arc::clone(&served);
    let tokens = move || {
        let tokens = prompt.tokens(with.engine.model().tokenizer(), "prompt")?;
        let [tokens] = <[_; 1]>::try_from(tokens).map_err(|tokens| {
            let message = format!("prompt has {} texts: give one", tokens.len());
            ApiError::field("prompt", message)
        })?;
        Ok(tokens)
    };
    answer(&app, (asks, &asked, &body), served, tokens).await
}

/// Fills a gap.
#[utoipa::path(
    post,
    path = "/infill",
    request_body = knobs::With<Infill>,
    responses((status = 200, description = "What fills the gap", content((Value = "application/json"), (Value = "text/event-stream"))), Failures)
)]
pub(crate) async fn fill(
    State(app): State<Arc<App>>,
    Extension(asked): Extension<Asked>,
    Body(body): Body,
) -> Result<Response> {
    let gap: Infill = knobs::read(&body)?;
    let asks: Completion = knobs::read(&body)?;
    let served = app.models.get(asks.model.as_deref()).await?;
    let with = Arc::clone(&served);
    let tokens = move || {
        let file = |extra: Extra| (extra.filename.unwrap_or_else(|| "file".into()), extra.text);
        let files: Vec<_> = gap.input_extra.into_iter().flatten().map(file).collect();
        let before = gap.input_prefix.unwrap_or_default() + &gap.prompt.unwrap_or_default();
        let behind = gap.input_suffix.unwrap_or_default();
        infill(&files, (&before, &behind), with.engine.model().tokenizer())
    };
    answer(&app, (asks, &asked, &body), served, tokens).await
}

async fn answer(
    app: &Arc<App>,
    (asks, asked, body): (Completion, &Asked, &Value),
    served: Arc<Lent>,
    tokens: impl FnOnce() -> Result<Vec<i32>> + Send + 'static,
) -> Result<Response> {
    let given: Knobs = knobs::read(body)?;
    let place = app.models.place()?;
    if asks.grammar.is_some_and(|grammar| !grammar.is_empty()) {
        let message = "grammar: those of llama.cpp are not read: give json_schema, or response_format with a grammar in llguidance's kind of Lark at /v1/completions";
        return Err(ApiError::field("grammar", message));
    }
    let top = asks.n_probs.filter(|count| *count > 0);
    let top = top.map(|count| knobs::top("n_probs", count)).transpose()?;
    let schema = asks.json_schema.filter(|schema| !schema.is_null());
    let request = Request {
        max_tokens: knobs::most_tokens("n_predict", asks.n_predict)?,
        top_logprobs: top,
        constraint: schema.map(|schema| Constraint::JsonSchema(schema.to_string())),
        ..given.request(&served, asked)?
    };
    let (task, with) = (Arc::clone(app), Arc::clone(&served));
    let answers = tokio::task::spawn_blocking(move || -> Result<Answers> {
        let prompt = tokens()?;
        let count = prompt.len();
        let request = Request { prompt, ..request };
        let answer = Answer::new(&task, &with, request, None);
        let answer = answer.map_err(|error| error.of(About::Form, "json_schema"))?;
        Ok(Answers::new(vec![answer], count, place))
    });
    let writer = CompletionWriter { served };
    let answers = answers.await??;
    if asks.stream.unwrap_or(false) {
        return Ok(events::respond(answers, writer));
    }
    let whole = answers.only().await?;
    app.log_text("answer", &whole.text);
    let mut object = writer.end_of(whole.ended()?, &whole.text);
    if top.is_some() {
        let known = whole.tokens.iter().map(|token| writer.probabilities(token));
        object["completion_probabilities"] = known.collect();
    }
    Ok(Json(object).into_response())
}

struct CompletionWriter {
    served: Arc<Lent>,
}

impl CompletionWriter {
    /// What the last of an answer says; its text is all of it, or nothing where that has come.
    fn end_of(&self, ended: &Ended, text: &str) -> Value {
        let figures = &ended.figures;
        json!({
            "index": 0,
            "content": text,
            "id_slot": ended.slot.map_or(json!(-1), |slot| json!(slot)),
            "stop": true,
            "model": self.served.name,
            "stop_type": match ended.finish {
                Finish::End => "eos",
                Finish::Stop => "word",
                Finish::MaxTokens | Finish::ContextFull | Finish::Cancelled => "limit",
            },
            "stopping_word": ended.stop.as_deref().unwrap_or_default(),
            "tokens_predicted": figures.generated_tokens,
            "tokens_evaluated": figures.prompt_tokens,
            "tokens_cached": figures.prompt_tokens + figures.generated_tokens,
            "truncated": false,
            "timings": timings(ended),
        })
    }

    /// What is told of a token.
    fn probabilities(&self, (token, known): &(i32, Logprobs)) -> Value {
        let tokenizer = self.served.engine.model().tokenizer();
        let of = |token: i32, logprob: f32| {
            let mut entry = token_logprob(tokenizer, token, logprob);
            entry["id"] = token.into();
            entry
        };
        let mut entry = of(*token, known.token);
        entry["top_logprobs"] = known
            .top
            .iter()
            .map(|(id, logprob)| of(*id, *logprob))
            .collect();
        entry
    }
}

impl Writer for CompletionWriter {
    fn begin(&mut self) -> Vec<Event> {
        Vec::new()
    }

    fn said(&mut self, _: usize, said: Said) -> Vec<Event> {
        match said {
            Said::Prompt(_) => Vec::new(),
            Said::Piece(piece) => {
                let text = piece.text();
                let mut object = json!({ "index": 0, "content": text, "stop": false });
                match &piece.token {
                    Some(token) => {
                        object["completion_probabilities"] = json!([self.probabilities(token)]);
                    }
                    None if text.is_empty() => return Vec::new(),
                    None => {}
                }
                vec![data(&object)]
            }
            Said::End(ended) => vec![data(&self.end_of(&ended, ""))],
        }
    }

    fn end(&mut self) -> Vec<Event> {
        Vec::new()
    }

    fn failed(&mut self, error: &ApiError) -> Vec<Event> {
        vec![data(&error.body())]
    }
}
