//! `GET /lora-adapters` and `POST /lora-adapters`: a model's adapters, and what requests take of them that say nothing.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::Named;
use crate::App;
use crate::api::Failures;
use crate::body::{AnyBody, InQuery};
use crate::error::Result;
use crate::knobs::{self, LoraScale};

/// The adapters of a model.
#[utoipa::path(
    get,
    path = "/lora-adapters",
    params(Named),
    responses((status = 200, description = "The adapters", body = Value, content_type = "application/json"), Failures)
)]
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    InQuery(named): InQuery<Named>,
) -> Result<Json<Value>> {
    let served = app.models.get(named.model.as_deref()).await?;
    let adapters = served.engine.model().adapters();
    let adapters = adapters.into_iter().enumerate().map(|(id, adapter)| {
        let set = |scales: &Vec<(usize, f32)>| {
            let own = scales.iter().find(|(known, _)| *known == id);
            own.map_or(0.0, |(_, scale)| *scale)
        };
        json!({
            "id": id,
            "name": adapter.name,
            "path": adapter.path.display().to_string(),
            "scale": served.adapters.as_ref().map_or(adapter.scale, set),
        })
    });
    Ok(Json(adapters.collect()))
}

/// Sets what requests take of a model's adapters that say nothing: of those that are not in the list nothing.
#[utoipa::path(
    post,
    path = "/lora-adapters",
    params(Named),
    request_body = Vec<LoraScale>,
    responses((status = 200, description = "It is set", body = Value, content_type = "application/json"), Failures)
)]
pub(crate) async fn set(
    State(app): State<Arc<App>>,
    InQuery(named): InQuery<Named>,
    AnyBody(body): AnyBody,
) -> Result<Json<Value>> {
    let given: Vec<LoraScale> = knobs::read(&body)?;
    let served = app.models.get(named.model.as_deref()).await?;
    let scales = knobs::scales("body", &given, &served)?;
    app.models.set_scales(named.model.as_deref(), scales)?;
    Ok(Json(json!({ "success": true })))
}
