//! What llama-server's clients ask for.

pub(crate) mod completion;
pub(crate) mod lora;
pub(crate) mod slots;

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use walsh_runtime::chat::{Dialogue, ToolChoice};
use walsh_runtime::tokenizer::Special;

use crate::App;
use crate::api::Failures;
use crate::ask;
use crate::body::{Body, InQuery};
use crate::error::{ApiError, Result};
use crate::knobs;

/// Which model is meant.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Named {
    pub(super) model: Option<String>,
}

/// Whether the server lives.
#[utoipa::path(
    get,
    path = "/health",
    responses((status = 200, description = "It does", body = Value, content_type = "application/json"), Failures)
)]
pub(crate) async fn health() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}

/// The same, where OpenAI's paths begin.
#[utoipa::path(
    get,
    path = "/v1/health",
    responses((status = 200, description = "It does", body = Value, content_type = "application/json"), Failures)
)]
pub(crate) async fn health_too() -> Json<Value> {
    health().await
}

/// What a model is and how it is run.
#[utoipa::path(
    get,
    path = "/props",
    params(Named),
    responses((status = 200, description = "What it is", body = Value, content_type = "application/json"), Failures)
)]
pub(crate) async fn props(
    State(app): State<Arc<App>>,
    InQuery(named): InQuery<Named>,
) -> Result<Json<Value>> {
    let served = app.models.get(named.model.as_deref()).await?;
    let (engine, sampling) = (&served.engine, served.sampling);
    let (model, options) = (engine.model(), engine.options());
    let name = |token: Option<i32>| token.map(|token| model.tokenizer().token_name(token));
    Ok(Json(json!({
        "model": served.name,
        "model_alias": served.name,
        "model_path": model.path().display().to_string(),
        "device": model.device().properties().to_string(),
        "kv": options.kv.to_string(),
        "kv_bytes_per_token": model.kv_bytes_per_token(&options.kv)?,
        "context": options.context,
        "total_slots": options.sequences,
        "deterministic": options.deterministic,
        "chat_template": served.template().map(|template| template.source()).ok(),
        "bos_token": name(model.tokenizer().bos()),
        "eos_token": name(model.tokenizer().eos()),
        "modalities": { "vision": false, "audio": false },
        "default_generation_settings": {
            "n_ctx": options.context,
            "temperature": sampling.temperature,
            "top_k": sampling.top_k,
            "top_p": sampling.top_p,
            "min_p": sampling.min_p,
            "repeat_penalty": sampling.repetition_penalty,
        },
        "build_info": concat!("walsh ", env!("CARGO_PKG_VERSION")),
    })))
}

#[derive(Deserialize, utoipa::ToSchema)]
struct Tokenize {
    model: Option<String>,
    content: String,
    add_special: Option<bool>,
    parse_special: Option<bool>,
    with_pieces: Option<bool>,
}

/// The tokens of a text.
#[utoipa::path(
    post,
    path = "/tokenize",
    request_body = Tokenize,
    responses((status = 200, description = "Tokens", body = Value, content_type = "application/json"), Failures)
)]
pub(crate) async fn tokenize(State(app): State<Arc<App>>, Body(body): Body) -> Result<Json<Value>> {
    let asks: Tokenize = knobs::read(&body)?;
    let served = app.models.get(asks.model.as_deref()).await?;
    let tokens = tokio::task::spawn_blocking(move || -> Result<Value> {
        let tokenizer = served.engine.model().tokenizer();
        let special = match asks.parse_special.unwrap_or(true) {
            true => Special::Parse,
            false => Special::Text,
        };
        let tokens = match asks.add_special.unwrap_or(false) {
            true => tokenizer.encode_prompt(&asks.content, special)?,
            false => tokenizer.encode(&asks.content, special)?,
        };
        let piece = |token: &i32| {
            let bytes = tokenizer.token_bytes(*token);
            let piece = match std::str::from_utf8(&bytes) {
                Ok(text) => Value::from(text),
                Err(_) => json!(bytes.as_ref()),
            };
            json!({ "id": token, "piece": piece })
        };
        Ok(match asks.with_pieces.unwrap_or(false) {
            true => tokens.iter().map(piece).collect(),
            false => tokens.into(),
        })
    });
    Ok(Json(json!({ "tokens": tokens.await?? })))
}

#[derive(Deserialize, utoipa::ToSchema)]
struct Detokenize {
    model: Option<String>,
    tokens: Vec<i32>,
}

/// The text of tokens.
#[utoipa::path(
    post,
    path = "/detokenize",
    request_body = Detokenize,
    responses((status = 200, description = "The text", body = Value, content_type = "application/json"), Failures)
)]
pub(crate) async fn detokenize(
    State(app): State<Arc<App>>,
    Body(body): Body,
) -> Result<Json<Value>> {
    let asks: Detokenize = knobs::read(&body)?;
    let served = app.models.get(asks.model.as_deref()).await?;
    let tokenizer = served.engine.model().tokenizer();
    if let Some(id) = asks.tokens.iter().find(|id| !tokenizer.has(**id)) {
        let message = format!(
            "tokens: {id} is none of the vocabulary's {}",
            tokenizer.vocab_size()
        );
        return Err(ApiError::field("tokens", message));
    }
    Ok(Json(json!({ "content": tokenizer.decode(&asks.tokens) })))
}

#[derive(Deserialize, utoipa::ToSchema)]
struct ApplyTemplate {
    model: Option<String>,
    messages: Vec<Map<String, Value>>,
    tools: Option<Vec<Value>>,
    chat_template_kwargs: Option<Map<String, Value>>,
}

/// What a model's chat template makes of a conversation.
#[utoipa::path(
    post,
    path = "/apply-template",
    request_body = ApplyTemplate,
    responses((status = 200, description = "The prompt", body = Value, content_type = "application/json"), Failures)
)]
pub(crate) async fn apply_template(
    State(app): State<Arc<App>>,
    Body(body): Body,
) -> Result<Json<Value>> {
    let asks: ApplyTemplate = knobs::read(&body)?;
    let (tools, _) = ask::tools(asks.tools, &ToolChoice::Auto)?;
    let dialogue = Dialogue {
        messages: ask::messages(asks.messages)?,
        tools,
        variables: asks.chat_template_kwargs.unwrap_or_default(),
        continues: false,
    };
    let served = app.models.get(asks.model.as_deref()).await?;
    let prompt = tokio::task::spawn_blocking(move || -> Result<String> {
        let tokenizer = served.engine.model().tokenizer();
        Ok(served.template()?.prompt(&dialogue, tokenizer)?.text)
    });
    Ok(Json(json!({ "prompt": prompt.await?? })))
}

/// Figures in Prometheus' form.
#[utoipa::path(
    get,
    path = "/metrics",
    responses((status = 200, description = "Figures", body = String, content_type = "application/openmetrics-text"), Failures)
)]
pub(crate) async fn metrics(State(app): State<Arc<App>>) -> impl IntoResponse {
    app.models.note();
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], app.metrics.text())
}

/// The same of the engines, for the page.
#[utoipa::path(
    get,
    path = "/metrics.json",
    responses((status = 200, description = "Figures", body = Value, content_type = "application/json"), Failures)
)]
pub(crate) async fn metrics_json(State(app): State<Arc<App>>) -> Json<Value> {
    let mut models = Vec::new();
    app.models.look(|served| {
        let status = served.engine.status();
        models.push(json!({
            "model": served.name,
            "running": status.running,
            "waiting": status.waiting,
            "pages": {
                "used": status.pages_used,
                "shared": status.pages_shared,
                "kept": status.pages_kept,
                "free": status.pages - status.pages_used - status.pages_kept,
                "total": status.pages,
            },
            "steps": status.steps,
            "read": status.read,
            "reused": status.reused,
            "generated": status.generated,
            "put_off": status.put_off,
        }));
    });
    Json(json!({ "models": models }))
}
