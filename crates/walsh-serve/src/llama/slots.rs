//! A model's slots, as llama-server's clients list, save, restore and erase them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::extract::{FromRequest, Request, State};
use axum::http::header;
use serde::Deserialize;
use serde_json::{Value, json};
use walsh_runtime::{Error, SlotFile};

use super::Named;
use crate::App;
use crate::api::Failures;
use crate::body::{Body, InPath, InQuery};
use crate::error::{ApiError, Result};
use crate::knobs;
use crate::models::Served;

/// The most bytes of a file's name.
const LONGEST_NAME: usize = 128;

/// The slots of a model, and what they are doing.
#[utoipa::path(
    get,
    path = "/slots",
    params(Named),
    responses((status = 200, description = "The slots", body = Value, content_type = "application/json"), Failures)
)]
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    InQuery(named): InQuery<Named>,
) -> Result<Json<Value>> {
    let served = app.models.get(named.model.as_deref()).await?;
    let options = served.engine.options();
    let slots = served.engine.slots().into_iter().enumerate();
    let slot = |(id, slot): (usize, walsh_runtime::SlotStatus)| {
        json!({
            "id": id,
            "id_task": slot.request.map_or(-1, |request| request.cast_signed()),
            "n_ctx": options.context,
            "speculative": options.look_up > 0,
            "is_processing": slot.request.is_some(),
            "n_tokens": slot.tokens,
        })
    };
    Ok(Json(slots.map(slot).collect()))
}

/// What is to become of a slot.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Action {
    /// `save`, `restore` or `erase`.
    action: Option<String>,
    /// Which model is meant.
    model: Option<String>,
}

/// The file of a slot.
#[derive(Default, Deserialize, utoipa::ToSchema)]
struct Saved {
    /// A bare name, which to save and to restore needs.
    filename: Option<String>,
    /// Which model is meant, if the query does not say it.
    model: Option<String>,
}

/// Saves, restores or erases the text that a slot had last. Where a request has the slot, it is waited for.
#[utoipa::path(
    post,
    path = "/slots/{id}",
    params(("id" = String, Path), Action),
    request_body(content = Option<Saved>, content_type = "application/json"),
    responses((status = 200, description = "What was done", body = Value, content_type = "application/json"), Failures)
)]
pub(crate) async fn act(
    State(app): State<Arc<App>>,
    InPath(id): InPath,
    InQuery(asks): InQuery<Action>,
    request: Request,
) -> Result<Json<Value>> {
    let saved = match asks.action.as_deref() {
        Some("save" | "restore") => read(request).await?,
        Some("erase") if needs_body(&request) => read(request).await?,
        Some("erase") => Saved::default(),
        other => {
            let other = other.map_or("missing".to_owned(), |other| format!("{other:?}"));
            let message = format!("action is {other}: give save, restore or erase");
            return Err(ApiError::field("action", message));
        }
    };
    let name = asks.model.or(saved.model);
    let place = app.models.place()?;
    let served = app.models.get(name.as_deref()).await?;
    let slots = served.engine.options().sequences;
    let slot = id.parse().ok().filter(|slot| *slot < slots);
    let slot: usize = slot.ok_or_else(|| {
        let message = format!("there is no slot {id:?}: give a number below {slots}");
        ApiError::field("id", message)
    })?;
    let action = asks.action.unwrap_or_default();
    if action == "erase" {
        let erased = tokio::task::spawn_blocking(move || {
            let _place = place;
            served.engine.erase_slot(slot)
        });
        let erased = erased.await??;
        return Ok(Json(json!({ "id_slot": slot, "n_erased": erased })));
    }
    let (file, path) = app.slot_file(saved.filename)?;
    let started = Instant::now();
    let called = file.clone();
    let is_save = action == "save";
    let done = tokio::task::spawn_blocking(move || {
        let _place = place;
        change(&served, slot, is_save, (&called, &path))
    });
    let SlotFile { tokens, bytes } = done.await??;
    let ms = started.elapsed().as_secs_f64() * 1e3;
    Ok(Json(match is_save {
        true => json!({
            "id_slot": slot, "filename": file, "n_saved": tokens, "n_written": bytes,
            "timings": { "save_ms": ms },
        }),
        false => json!({
            "id_slot": slot, "filename": file, "n_restored": tokens, "n_read": bytes,
            "timings": { "restore_ms": ms },
        }),
    }))
}

/// Whether there is something to be read, or should be: a page elsewhere can have a browser send a request without a body,
/// but not without saying where it is from.
fn needs_body(request: &Request) -> bool {
    let headers = request.headers();
    let length = headers.get(header::CONTENT_LENGTH);
    length.is_some_and(|length| length != "0")
        || headers.contains_key(header::TRANSFER_ENCODING)
        || headers.contains_key(header::ORIGIN)
}

async fn read(request: Request) -> Result<Saved> {
    let Body(body) = Body::from_request(request, &()).await?;
    knobs::read(&body)
}

fn change(
    served: &Served,
    slot: usize,
    is_save: bool,
    (file, path): (&str, &Path),
) -> Result<SlotFile> {
    let done = match is_save {
        true => served.engine.save_slot(slot, path),
        false if path.exists() => served.engine.restore_slot(slot, path),
        false => {
            let message = format!("nothing was saved as {file:?}");
            return Err(ApiError::not_found("not_found", message).by("filename"));
        }
    };
    done.map_err(|error| said(file, error))
}

/// What is told of a file: its name, and not where it lies.
fn said(file: &str, error: Error) -> ApiError {
    match error {
        Error::Saved { what, .. } => ApiError::field("filename", format!("{file}: {what}")),
        Error::File { why, .. } => ApiError::internal(format!("{file}: {why}")),
        error => error.into(),
    }
}

impl App {
    /// The file of a bare name.
    fn slot_file(&self, name: Option<String>) -> Result<(String, PathBuf)> {
        let Some(folder) = &self.slot_folder else {
            return Err(ApiError::unsupported(
                "slots are saved and restored where the server was started with --slot-folder",
            ));
        };
        let missing = || ApiError::field("filename", "filename is missing");
        let name = name.ok_or_else(missing)?;
        let is_plain = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_');
        let is_bare = (1..=LONGEST_NAME).contains(&name.len())
            && !name.starts_with('.')
            && name.chars().all(is_plain);
        if !is_bare {
            let message = format!(
                "filename is {name:?}: give a bare name of at most {LONGEST_NAME} bytes, of letters, digits, '.', '-' and '_', that does not begin with a dot"
            );
            return Err(ApiError::field("filename", message));
        }
        let path = folder.join(&name);
        Ok((name, path))
    }
}
