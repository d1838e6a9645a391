//! `POST /v1/embeddings`.

use std::sync::Arc;

use axum::extract::State;
use axum::{Extension, Json};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};
use walsh_runtime::{Pooling, Request};

use super::completions::Prompts;
use crate::answer::{Answer, Answers};
use crate::api::Failures;
use crate::body::Body;
use crate::error::{ApiError, Result};
use crate::knobs;
use crate::{App, Asked};

/// The most texts of a request, as OpenAI has it.
const MOST_TEXTS: usize = 2048;

#[derive(Deserialize, utoipa::ToSchema)]
struct Embeddings {
    model: Option<String>,
    input: Prompts,
    encoding_format: Option<String>,
    dimensions: Option<usize>,
    pooling: Option<String>,
}

/// Makes vectors of texts: of the last layer's output behind its norm, the mean over the text or that of its last token,
/// of length 1. Where nothing is asked for it is what the model was trained for, and the mean with others.
#[utoipa::path(
    post,
    path = "/v1/embeddings",
    request_body = Embeddings,
    responses((status = 200, description = "The vectors", body = Value, content_type = "application/json"), Failures)
)]
pub(crate) async fn embeddings(
    State(app): State<Arc<App>>,
    Extension(asked): Extension<Asked>,
    Body(body): Body,
) -> Result<Json<Value>> {
    let asks: Embeddings = knobs::read(&body)?;
    let place = app.models.place()?;
    let as_base64 = match asks.encoding_format.as_deref() {
        None | Some("float") => false,
        Some("base64") => true,
        Some(other) => {
            let message = format!("encoding_format is {other:?}: give float or base64");
            return Err(ApiError::field("encoding_format", message));
        }
    };
    let asked_for = asks.pooling.as_deref().map(|name| {
        Pooling::named(name).ok_or_else(|| {
            let message = format!("pooling is {name:?}: give mean or last");
            ApiError::field("pooling", message)
        })
    });
    let asked_for = asked_for.transpose()?;
    let served = app.models.get(asks.model.as_deref()).await?;
    let config = served.engine.model().config();
    let (width, own) = (config.width, config.pooling);
    let pooling = asked_for.or(own).unwrap_or(Pooling::Mean);
    if let Some(dimensions) = asks.dimensions.filter(|dimensions| *dimensions != width) {
        let message = format!(
            "dimensions is {dimensions}: this model's vectors have {width}, and cannot be cut"
        );
        return Err(ApiError::field("dimensions", message));
    }
    let (task, with) = (Arc::clone(&app), Arc::clone(&served));
    let answers = tokio::task::spawn_blocking(move || -> Result<Answers> {
        let tokenizer = with.engine.model().tokenizer();
        let prompts = asks.input.tokens(tokenizer, "input")?;
        if prompts.len() > MOST_TEXTS {
            let message = format!("input has {} texts: at most {MOST_TEXTS}", prompts.len());
            return Err(ApiError::field("input", message));
        }
        let tokens = prompts.iter().map(Vec::len).sum();
        let ask = |prompt| {
            let request = Request {
                max_tokens: Some(0),
                pooling: Some(pooling),
                client: asked.client.clone(),
                deadline: asked.deadline,
                adapters: with.adapters.clone(),
                ..Request::new(prompt)
            };
            Answer::new(&task, &with, request, None)
        };
        let answers: Result<Vec<Answer>> = prompts.into_iter().map(ask).collect();
        Ok(Answers::new(answers?, tokens, place))
    });
    let wholes = answers.await??.whole().await?;
    let (mut data, mut tokens) = (Vec::new(), 0);
    for (index, whole) in wholes.iter().enumerate() {
        tokens += whole.ended()?.figures.prompt_tokens;
        let missing = || ApiError::internal("an answer has no vector, which is a fault of Walsh");
        let vector = normalised(whole.embedding.as_ref().ok_or_else(missing)?);
        let embedding = match as_base64 {
            false => json!(vector),
            true => {
                let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
                BASE64_STANDARD.encode(bytes).into()
            }
        };
        data.push(json!({ "object": "embedding", "index": index, "embedding": embedding }));
    }
    Ok(Json(json!({
        "object": "list",
        "data": data,
        "model": served.name,
        "pooling": pooling.name(),
        "usage": { "prompt_tokens": tokens, "total_tokens": tokens },
    })))
}

/// A vector of length 1 in the same direction.
fn normalised(vector: &[f32]) -> Vec<f32> {
    let square = |x: &f32| f64::from(*x) * f64::from(*x);
    let length = vector.iter().map(square).sum::<f64>().sqrt();
    let scale = if length > 0.0 { 1.0 / length } else { 0.0 };
    vector
        .iter()
        .map(|x| (f64::from(*x) * scale) as f32)
        .collect()
}
