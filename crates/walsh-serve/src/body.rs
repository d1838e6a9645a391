//! The bodies of requests, and what their addresses say: with errors as clients expect them.

use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, FailedToBufferBody};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::timeout;

use crate::Asked;
use crate::error::ApiError;

/// The longest that a body may take, whatever its parts do.
const BODY_TIME: Duration = Duration::from_secs(300);

/// A body of JSON: an object.
pub(crate) struct Body(pub(crate) Value);

/// A body of JSON, whatever it is.
pub(crate) struct AnyBody(pub(crate) Value);

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let AnyBody(value) = AnyBody::from_request(request, state).await?;
        match value.is_object() {
            true => Ok(Self(value)),
            false => Err(ApiError::bad("the body is no JSON object")),
        }
    }
}

impl<S: Send + Sync> FromRequest<S> for AnyBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        // A page elsewhere can have a browser send other types without asking first.
        let kind = request.headers().get(header::CONTENT_TYPE);
        let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim();
        if !kind.eq_ignore_ascii_case("application/json") {
            let message = format!("the body's content-type is {kind:?}: give application/json");
            return Err(ApiError::with_status(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                message,
            ));
        }
        let asked = request.extensions().get::<Asked>();
        let left = asked.and_then(|asked| asked.deadline).map(|deadline| {
            let now = Instant::now();
            deadline.saturating_duration_since(now)
        });
        let time = left.map_or(BODY_TIME, |left| left.min(BODY_TIME));
        let bytes = timeout(time, Bytes::from_request(request, state)).await;
        let bytes = bytes.map_err(|_| late())?.map_err(refused)?;
        let value: Value = serde_json::from_slice(&bytes)
            .map_err(|error| ApiError::bad(format!("the body is no JSON: {error}")))?;
        Ok(Self(value))
    }
}

/// A part of the path.
pub(crate) struct InPath(pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for InPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(part)) => Ok(Self(part)),
            Err(error) => Err(ApiError::bad(format!("the path: {}", error.body_text()))),
        }
    }
}

/// What is asked for behind the path.
pub(crate) struct InQuery<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for InQuery<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        match Query::try_from_uri(&parts.uri) {
            Ok(Query(query)) => Ok(Self(query)),
            Err(error) => Err(ApiError::bad(format!("the query: {}", error.body_text()))),
        }
    }
}

fn late() -> ApiError {
    let message = "the body did not come whole in the time that a request may take";
    ApiError::with_status(StatusCode::REQUEST_TIMEOUT, message)
}

fn refused(rejection: BytesRejection) -> ApiError {
    match rejection {
        BytesRejection::FailedToBufferBody(FailedToBufferBody::LengthLimitError(_)) => {
            let message = "the body is larger than this server takes: --max-body says how much";
            ApiError::with_status(StatusCode::PAYLOAD_TOO_LARGE, message)
        }
        rejection => {
            let message = format!("the body did not come whole: {rejection}");
            ApiError::with_status(StatusCode::REQUEST_TIMEOUT, message)
        }
    }
}
