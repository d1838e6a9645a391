//! Anthropic's interface: `POST /v1/messages` and `POST /v1/messages/count_tokens`.

mod read;
mod write;

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde_json::{Value, json};

use self::read::Messages;
use self::write::{MessageWriter, message};
use crate::api::Failures;
use crate::body::Body;
use crate::error::{AnthropicError, ApiError, Result};
use crate::knobs::{self, Knobs};
use crate::{App, Asked, events, new_id};

/// Answers a conversation.
#[utoipa::path(
    post,
    path = "/v1/messages",
    request_body = knobs::With<Messages>,
    responses((status = 200, description = "The message, or with `stream` server-sent events", content((Value = "application/json"), (Value = "text/event-stream"))), Failures)
)]
pub(crate) async fn messages(
    State(app): State<Arc<App>>,
    Extension(asked): Extension<Asked>,
    body: Result<Body>,
) -> std::result::Result<Response, AnthropicError> {
    Ok(answer(&app, &asked, &body?.0).await?)
}

async fn answer(app: &Arc<App>, asked: &Asked, body: &Value) -> Result<Response> {
    let asks: Messages = knobs::read(body)?;
    let given: Knobs = knobs::read(body)?;
    let place = app.models.place()?;
    let most = match asks.max_tokens {
        None => Err(ApiError::field("max_tokens", "max_tokens is missing")),
        Some(0) => Err(ApiError::field(
            "max_tokens",
            "max_tokens is 0: give 1 or more",
        )),
        Some(most) => Ok(most),
    }?;
    let stream = asks.stream.unwrap_or(false);
    let client = asks
        .metadata
        .as_ref()
        .and_then(|metadata| metadata["user_id"].as_str());
    let asked = Asked {
        client: client.map(str::to_owned).or_else(|| asked.client.clone()),
        ..asked.clone()
    };
    let served = app.models.get(asks.model.as_deref()).await?;
    let mut request = given.request(&served, &asked)?;
    request.max_tokens = Some(most);
    let ask = asks.ask(Arc::clone(&served), request)?;
    let answers = ask.submit(app, place).await?;
    let id = new_id("msg_");
    if stream {
        let writer = MessageWriter::new(id, served.name.clone(), &answers);
        return Ok(events::respond(answers, writer));
    }
    let whole = answers.only().await?;
    app.log_text("answer", &whole.text);
    Ok(Json(message(&id, &served.name, &whole)?).into_response())
}

/// Counts the tokens of a conversation's prompt.
#[utoipa::path(
    post,
    path = "/v1/messages/count_tokens",
    request_body = knobs::With<Messages>,
    responses((status = 200, description = "The number", body = Value, content_type = "application/json"), Failures)
)]
pub(crate) async fn count_tokens(
    State(app): State<Arc<App>>,
    Extension(asked): Extension<Asked>,
    body: Result<Body>,
) -> std::result::Result<Json<Value>, AnthropicError> {
    let asks: Messages = knobs::read(&body?.0)?;
    let served = app.models.get(asks.model.as_deref()).await?;
    let request = Knobs::default().request(&served, &asked)?;
    let count = asks.ask(served, request)?.count();
    let count = tokio::task::spawn_blocking(count)
        .await
        .map_err(ApiError::from)??;
    Ok(Json(json!({ "input_tokens": count })))
}
