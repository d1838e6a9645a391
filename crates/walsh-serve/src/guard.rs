//! Who may ask, and what is noted of requests.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::error::{AnthropicError, ApiError};
use crate::{App, Asked, new_id};

/// What requests can be got without a key by.
const PUBLIC: [&str; 3] = ["/", "/health", "/v1/health"];

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// What Anthropic's clients know it by.
const ANTHROPIC_REQUEST_ID: HeaderName = HeaderName::from_static("request-id");

const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// Who may ask.
pub(crate) struct Guard {
    /// Hashes of the keys; none if none are needed.
    keys: Vec<[u8; 32]>,
    /// Whether only names of this machine are names of the server: a page elsewhere whose name is made to lead here is kept
    /// out so.
    only_local_names: bool,
}

/// The address of who has connected.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) SocketAddr);

impl Guard {
    pub(crate) fn new(keys: &[String], address: SocketAddr) -> Self {
        Self {
            keys: keys.iter().map(|key| Sha256::digest(key).into()).collect(),
            only_local_names: keys.is_empty() && address.ip().is_loopback(),
        }
    }

    /// The number of the key that a request has.
    fn key(&self, headers: &HeaderMap) -> Result<usize, ApiError> {
        let bearer = headers.get(header::AUTHORIZATION).and_then(|value| {
            let value = value.to_str().ok()?;
            let (scheme, key) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then_some(key.trim())
        });
        let key = bearer.or_else(|| headers.get(API_KEY)?.to_str().ok());
        let Some(key) = key else {
            return Err(ApiError::key(
                "a key is needed: give it as 'Authorization: Bearer KEY'",
            ));
        };
        let given: [u8; 32] = Sha256::digest(key).into();
        // All of them, whichever it is.
        let mut found = None;
        for (number, key) in self.keys.iter().enumerate() {
            if bool::from(key.ct_eq(&given)) {
                found = Some(number);
            }
        }
        found.ok_or_else(|| ApiError::key("the key is wrong"))
    }

    fn check_host(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        if !self.only_local_names {
            return Ok(());
        }
        let Some(host) = headers.get(header::HOST) else {
            return Ok(());
        };
        let host = host.to_str().unwrap_or_default();
        let name = match host.strip_prefix('[') {
            Some(rest) => rest.split(']').next().unwrap_or_default(),
            None => host.split(':').next().unwrap_or_default(),
        };
        let address: Option<std::net::IpAddr> = name.parse().ok();
        let is_local = address.is_some_and(|address| address.is_loopback());
        if is_local || name.eq_ignore_ascii_case("localhost") || name.ends_with(".localhost") {
            return Ok(());
        }
        let message = format!(
            "the host {name:?} is no name of this machine's own: use 127.0.0.1, or start the server with a key"
        );
        Err(ApiError::with_status(StatusCode::FORBIDDEN, message))
    }
}

/// Lets requests in that may come, gives each a name, and logs it.
pub(crate) async fn guard(
    State(app): State<Arc<App>>,
    mut request: Request,
    next: Next,
) -> Response {
    let started = Instant::now();
    let headers = request.headers();
    let fits = |id: &&str| id.len() <= 128 && id.bytes().all(|byte| byte.is_ascii_graphic());
    let id = headers.get(&REQUEST_ID).and_then(|id| id.to_str().ok());
    let id = id
        .filter(fits)
        .map_or_else(|| new_id("req_"), str::to_owned);
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let peer = request
        .extensions()
        .get::<Peer>()
        .map(|peer| peer.0.ip().to_string());
    let is_public = PUBLIC.contains(&path.as_str()) || path.starts_with("/page/");
    let client = match app.guard.check_host(headers) {
        Err(error) => Err(error),
        Ok(()) if app.guard.keys.is_empty() || is_public => Ok(peer.clone()),
        Ok(()) => app
            .guard
            .key(headers)
            .map(|number| Some(format!("key {number}"))),
    };
    let mut response = match client {
        Ok(client) => {
            let id = id.clone();
            let deadline = app.request_time.and_then(|time| started.checked_add(time));
            let asked = Asked {
                id,
                client,
                deadline,
            };
            request.extensions_mut().insert(asked);
            next.run(request).await
        }
        Err(error) if path.starts_with("/v1/messages") => AnthropicError(error).into_response(),
        Err(error) => error.into_response(),
    };
    if let Ok(value) = HeaderValue::from_str(&id) {
        let headers = response.headers_mut();
        headers.insert(ANTHROPIC_REQUEST_ID, value.clone());
        headers.insert(REQUEST_ID, value);
    }
    tracing::info!(
        id,
        peer,
        %method,
        path,
        status = response.status().as_u16(),
        ms = started.elapsed().as_secs_f64() * 1e3,
    );
    response
}
