//! `GET /v1/models` and `GET /v1/models/{model}`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use crate::App;
use crate::api::Failures;
use crate::body::InPath;
use crate::error::Result;

fn model(app: &App, name: &str) -> Value {
    json!({
        "id": name,
        "object": "model",
        "created": app.models.started,
        "owned_by": "walsh",
    })
}

/// All of them, the one first that is meant where none is named.
#[utoipa::path(
    get,
    path = "/v1/models",
    responses((status = 200, description = "The models", body = Value, content_type = "application/json"), Failures)
)]
pub(crate) async fn list(State(app): State<Arc<App>>) -> Json<Value> {
    let models: Vec<Value> = app.models.names().map(|name| model(&app, &name)).collect();
    Json(json!({ "object": "list", "data": models }))
}

/// One of them.
#[utoipa::path(
    get,
    path = "/v1/models/{model}",
    params(("model" = String, Path, description = "Its name, which may have slashes in it")),
    responses((status = 200, description = "The model", body = Value, content_type = "application/json"), Failures)
)]
pub(crate) async fn one(State(app): State<Arc<App>>, InPath(name): InPath) -> Result<Json<Value>> {
    app.models.check(&name)?;
    Ok(Json(model(&app, &name)))
}
