//! The page for people.

use axum::http::{HeaderName, header};
use axum::response::{IntoResponse, Response};

use crate::body::InPath;
use crate::error::ApiError;

/// Its files, each with its text.
macro_rules! files {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../page/", $name)))),*]
    };
}

const FILES: &[(&str, &str)] = files![
    "answers.js",
    "api.js",
    "cache.js",
    "dom.js",
    "drawers.js",
    "icon.svg",
    "index.html",
    "inline.js",
    "main.js",
    "markdown.js",
    "messages.js",
    "page.css",
    "render.js",
    "settings.js",
    "sidebar.js",
    "store.js",
    "theme.js",
    "tree.js",
];

/// Nothing but what comes from here is loaded or run, and nobody frames the page.
const POLICY: &str =
    "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// `GET /`.
pub(crate) async fn index() -> Response {
    respond("index.html")
}

/// `GET /page/{name}`.
pub(crate) async fn file(InPath(name): InPath) -> Response {
    respond(&name)
}

fn respond(name: &str) -> Response {
    let Some((_, text)) = FILES.iter().find(|(file, _)| *file == name) else {
        let message = format!("there is no file {name:?} of the page");
        return ApiError::not_found("not_found", message).into_response();
    };
    let kind = match name.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "text/plain; charset=utf-8",
    };
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::CACHE_CONTROL, "no-cache"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (HeaderName::from_static("referrer-policy"), "no-referrer"),
    ];
    (headers, *text).into_response()
}
