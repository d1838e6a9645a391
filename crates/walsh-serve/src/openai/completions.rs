//! `POST /v1/completions`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::sse::Event;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use walsh_runtime::tokenizer::{Special, Tokenizer};
use walsh_runtime::{Logprobs, Request};

use super::{finish_reason, finite, timings, usage};
use crate::answer::{Answer, Answers, Ended, Said, Usage, Whole};
use crate::api::Failures;
use crate::ask;
use crate::body::Body;
use crate::error::{About, ApiError, Result};
use crate::events::{self, Writer, data};
use crate::knobs::{self, Knobs};
use crate::models::Lent;
use crate::{App, Asked, new_id, now};

/// Tokens of an answer where the request does not say, as OpenAI has it.
const TOKENS: usize = 16;

#[derive(Deserialize, utoipa::ToSchema)]
struct Completions {
    model: Option<String>,
    prompt: Option<Prompts>,
    suffix: Option<String>,
    max_tokens: Option<i64>,
    n: Option<usize>,
    best_of: Option<usize>,
    echo: Option<bool>,
    logprobs: Option<usize>,
    response_format: Option<Value>,
    stream: Option<bool>,
    stream_options: Option<Value>,
}

/// One text or several, as texts or as tokens.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(
    untagged,
    expecting = "expected a text, an array of texts, an array of tokens or an array of those"
)]
pub(crate) enum Prompts {
    Text(String),
    Texts(Vec<String>),
    Tokens(Vec<i32>),
    Several(Vec<Vec<i32>>),
}

impl Prompts {
    /// Their tokens. Names of control tokens in texts stand for those: who uses this interface writes them.
    pub(crate) fn tokens(self, tokenizer: &Tokenizer, field: &str) -> Result<Vec<Vec<i32>>> {
        let encode = |text: String| Ok(tokenizer.encode_prompt(&text, Special::Parse)?);
        let prompts: Vec<Vec<i32>> = match self {
            Self::Text(text) => vec![encode(text)?],
            Self::Texts(texts) => texts.into_iter().map(encode).collect::<Result<_>>()?,
            Self::Tokens(tokens) => vec![tokens],
            Self::Several(several) => several,
        };
        let most = tokenizer.vocab_size();
        let wrong = |what: String| Err(ApiError::field(field, format!("{field}{what}")));
        match prompts.iter().flatten().find(|id| !tokenizer.has(**id)) {
            Some(id) => wrong(format!(": {id} is none of the vocabulary's {most} tokens")),
            None if prompts.is_empty() || prompts.iter().any(Vec::is_empty) => {
                wrong(" is empty: give a text".into())
            }
            None => Ok(prompts),
        }
    }
}

/// The prompt of a gap between two texts.
fn gap(before: Prompts, behind: &str, tokenizer: &Tokenizer) -> Result<Vec<Vec<i32>>> {
    let Prompts::Text(before) = before else {
        let message = "suffix goes with a prompt that is one text";
        return Err(ApiError::field("suffix", message));
    };
    let prompt = infill(&[], (&before, behind), tokenizer);
    Ok(vec![prompt.map_err(|error| error.by("suffix"))?])
}

/// The prompt of a gap between two texts, with files that are there besides: their names and texts.
pub(crate) fn infill(
    files: &[(String, String)],
    (before, behind): (&str, &str),
    tokenizer: &Tokenizer,
) -> Result<Vec<i32>> {
    let Some(marks) = tokenizer.infill() else {
        return Err(ApiError::bad(
            "this model was not trained to fill gaps: its vocabulary has no tokens for that",
        ));
    };
    let mut prompt: Vec<i32> = tokenizer
        .bos()
        .filter(|_| tokenizer.add_bos())
        .into_iter()
        .collect();
    let mut push = |mark: i32, text: &str| -> Result<()> {
        prompt.push(mark);
        prompt.extend(tokenizer.encode_after(Some(mark), text, Special::Text)?);
        Ok(())
    };
    let mut shown = String::new();
    for (name, text) in files {
        match marks.file {
            Some(mark) => push(mark, &format!("{name}\n{text}\n"))?,
            // Where files cannot be told apart, they are text in front.
            None => shown += &format!("{text}\n"),
        }
    }
    push(marks.prefix, &(shown + before))?;
    push(marks.suffix, behind)?;
    prompt.push(marks.middle);
    Ok(prompt)
}

/// Goes on with texts.
#[utoipa::path(
    post,
    path = "/v1/completions",
    request_body = knobs::With<Completions>,
    responses((status = 200, description = "What follows the texts", content((Value = "application/json"), (Value = "text/event-stream"))), Failures)
)]
pub(crate) async fn completions(
    State(app): State<Arc<App>>,
    Extension(asked): Extension<Asked>,
    Body(body): Body,
) -> Result<Response> {
    let asks: Completions = knobs::read(&body)?;
    let given: Knobs = knobs::read(&body)?;
    let place = app.models.place()?;
    let n = knobs::answers(asks.n)?;
    if let Some(best_of) = asks.best_of.filter(|best_of| *best_of != n) {
        let message = format!("best_of is {best_of}: as many answers as n says are made");
        return Err(ApiError::field("best_of", message));
    }
    let top = asks
        .logprobs
        .map(|count| knobs::top("logprobs", count))
        .transpose()?;
    let most = knobs::most_tokens("max_tokens", Some(asks.max_tokens.unwrap_or(TOKENS as i64)))?;
    let constraint = ask::form(asks.response_format.as_ref(), "response_format")?;
    let echo = asks.echo.unwrap_or(false);
    let served = app.models.get(asks.model.as_deref()).await?;
    let request = given.request(&served, &asked)?;
    let prompt = asks.prompt.unwrap_or(Prompts::Text(String::new()));
    let request = Request {
        top_logprobs: top,
        prompt_logprobs: top.filter(|_| echo),
        max_tokens: most,
        constraint,
        ..request
    };
    let suffix = asks.suffix.filter(|suffix| !suffix.is_empty());
    let (task, with) = (Arc::clone(&app), Arc::clone(&served));
    let (answers, prompts) = tokio::task::spawn_blocking(move || -> Result<_> {
        let tokenizer = with.engine.model().tokenizer();
        let prompts = match suffix {
            Some(suffix) => gap(prompt, &suffix, tokenizer)?,
            None => prompt.tokens(tokenizer, "prompt")?,
        };
        if prompts.len() * n > knobs::MOST_ANSWERS {
            let message = format!(
                "{} prompts of {n} answers each: at most {} answers",
                prompts.len(),
                knobs::MOST_ANSWERS
            );
            return Err(ApiError::field("prompt", message));
        }
        let mut answers = Vec::new();
        for prompt in &prompts {
            for index in 0..n {
                let request = Request {
                    prompt: prompt.clone(),
                    seed: request.seed.wrapping_add(index as u64),
                    ..request.clone()
                };
                let answer = Answer::new(&task, &with, request, None);
                answers.push(answer.map_err(|error| error.of(About::Form, "response_format"))?);
            }
        }
        let tokens = prompts.iter().map(Vec::len).sum();
        Ok((Answers::new(answers, tokens, place), prompts))
    })
    .await??;
    let head = Head {
        id: new_id("cmpl-"),
        created: now(),
        served,
        echo,
        with_logprobs: top.is_some(),
        n,
        prompts,
    };
    match asks.stream.unwrap_or(false) {
        true => {
            let options = asks.stream_options.unwrap_or_default();
            Ok(events::respond(
                answers,
                CompletionWriter {
                    with_usage: options["include_usage"] == true,
                    begun: vec![false; head.n * head.prompts.len()],
                    offsets: vec![0; head.n * head.prompts.len()],
                    ended: Vec::new(),
                    head,
                },
            ))
        }
        false => whole(&app, answers, &head).await,
    }
}

/// What all parts of an answer have.
struct Head {
    id: String,
    created: u64,
    served: Arc<Lent>,
    echo: bool,
    with_logprobs: bool,
    /// Answers to each prompt.
    n: usize,
    prompts: Vec<Vec<i32>>,
}

impl Head {
    fn object(&self, choices: Value) -> Value {
        json!({
            "id": self.id,
            "object": "text_completion",
            "created": self.created,
            "model": self.served.name,
            "system_fingerprint": concat!("walsh-", env!("CARGO_PKG_VERSION")),
            "choices": choices,
        })
    }

    fn tokenizer(&self) -> &Tokenizer {
        self.served.engine.model().tokenizer()
    }

    fn prompt(&self, index: usize) -> &[i32] {
        &self.prompts[index / self.n]
    }
}

/// Log-probabilities of tokens, as this interface has them: columns.
#[derive(Default)]
struct Columns {
    tokens: Vec<String>,
    logprobs: Vec<Option<f32>>,
    top: Vec<Option<Map<String, Value>>>,
    offsets: Vec<usize>,
    /// Characters so far.
    offset: usize,
}

impl Columns {
    fn push(&mut self, tokenizer: &Tokenizer, token: i32, known: Option<&Logprobs>) {
        let text = tokenizer.token_name(token);
        self.offsets.push(self.offset);
        self.offset += text.chars().count();
        self.tokens.push(text);
        self.logprobs.push(known.map(|known| finite(known.token)));
        self.top.push(known.map(|known| {
            let top = known.top.iter();
            let entry =
                |(id, logprob): &(i32, f32)| (tokenizer.token_name(*id), finite(*logprob).into());
            top.map(entry).collect()
        }));
    }

    /// The tokens of a prompt, of which the first has no log-probability.
    fn push_prompt(&mut self, head: &Head, index: usize, known: &[Logprobs]) {
        let known = std::iter::once(None).chain(known.iter().map(Some));
        for (token, known) in head.prompt(index).iter().zip(known) {
            self.push(head.tokenizer(), *token, known);
        }
    }

    fn value(&self) -> Value {
        json!({
            "tokens": self.tokens,
            "token_logprobs": self.logprobs,
            "top_logprobs": self.top,
            "text_offset": self.offsets,
        })
    }
}

/// Tokens of the requests together: those of each prompt once.
fn sum(ended: &[(usize, Ended)], n: usize) -> Usage {
    let mut usage = Usage::default();
    for (index, ended) in ended {
        if index % n == 0 {
            usage.prompt += ended.figures.prompt_tokens;
            usage.cached += ended.figures.reused_tokens;
        }
        usage.generated += ended.figures.generated_tokens;
        usage.reasoning += ended.reasoning;
    }
    usage
}

async fn whole(app: &App, answers: Answers, head: &Head) -> Result<Response> {
    let wholes = answers.whole().await?;
    let (mut choices, mut ends) = (Vec::new(), Vec::new());
    for (index, answer) in wholes.iter().enumerate() {
        app.log_text("answer", &answer.text);
        let ended = answer.ended()?;
        let tokenizer = head.tokenizer();
        let text = match head.echo {
            true => tokenizer.decode(head.prompt(index)) + &answer.text,
            false => answer.text.clone(),
        };
        choices.push(json!({
            "index": index,
            "text": text,
            "logprobs": head.with_logprobs.then(|| columns(head, index, answer)),
            "finish_reason": finish_reason(ended),
        }));
        ends.push((index, ended.clone()));
    }
    let mut object = head.object(choices.into());
    object["usage"] = usage(sum(&ends, head.n));
    if let [(_, ended)] = &ends[..] {
        object["timings"] = timings(ended);
    }
    Ok(Json(object).into_response())
}

fn columns(head: &Head, index: usize, answer: &Whole) -> Value {
    let (mut columns, tokenizer) = (Columns::default(), head.tokenizer());
    if let Some(prompt) = &answer.prompt {
        columns.push_prompt(head, index, prompt);
    }
    for (token, known) in &answer.tokens {
        columns.push(tokenizer, *token, Some(known));
    }
    columns.value()
}

/// The answers as they come.
struct CompletionWriter {
    head: Head,
    with_usage: bool,
    begun: Vec<bool>,
    /// Characters so far of each.
    offsets: Vec<usize>,
    ended: Vec<(usize, Ended)>,
}

impl CompletionWriter {
    fn chunk(&self, index: usize, text: &str, rest: (Value, Option<&str>)) -> Event {
        let (logprobs, reason) = rest;
        let mut object = self.head.object(json!([{
            "index": index,
            "text": text,
            "logprobs": logprobs,
            "finish_reason": reason,
        }]));
        if self.with_usage {
            object["usage"] = Value::Null;
        }
        data(&object)
    }
}

impl Writer for CompletionWriter {
    fn begin(&mut self) -> Vec<Event> {
        Vec::new()
    }

    fn said(&mut self, index: usize, said: Said) -> Vec<Event> {
        let mut events = Vec::new();
        // With log-probabilities it is they that come first.
        let echoes = self.head.echo && !self.begun[index];
        if echoes {
            self.begun[index] = true;
            let text = self.head.tokenizer().decode(self.head.prompt(index));
            let logprobs = match &said {
                Said::Prompt(known) => {
                    let mut columns = Columns::default();
                    columns.push_prompt(&self.head, index, known);
                    self.offsets[index] = columns.offset;
                    columns.value()
                }
                Said::Piece(_) | Said::End(_) => Value::Null,
            };
            events.push(self.chunk(index, &text, (logprobs, None)));
        }
        match said {
            Said::Prompt(_) => {}
            Said::Piece(piece) => {
                let text = piece.text();
                let logprobs = piece.token.map_or(Value::Null, |(token, known)| {
                    let mut columns = Columns {
                        offset: self.offsets[index],
                        ..Columns::default()
                    };
                    columns.push(self.head.tokenizer(), token, Some(&known));
                    self.offsets[index] = columns.offset;
                    columns.value()
                });
                if !text.is_empty() || !logprobs.is_null() {
                    events.push(self.chunk(index, &text, (logprobs, None)));
                }
            }
            Said::End(ended) => {
                let reason = finish_reason(&ended);
                events.push(self.chunk(index, "", (Value::Null, Some(reason))));
                self.ended.push((index, ended));
            }
        }
        events
    }

    fn end(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        if self.with_usage {
            let mut object = self.head.object(json!([]));
            object["usage"] = usage(sum(&self.ended, self.head.n));
            if let [(_, ended)] = &self.ended[..] {
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
