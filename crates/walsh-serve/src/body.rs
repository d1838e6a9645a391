//! The bodies of requests: JSON, with errors as clients expect them.

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, FailedToBufferBody};
use axum::extract::{FromRequest, Request};
use axum::http::{StatusCode, header};
use serde_json::Value;

use crate::error::ApiError;

/// A body of JSON: an object.
pub(crate) struct Body(pub(crate) Value);

impl<S: Send + Sync> FromRequest<S> for Body {
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
        let bytes = Bytes::from_request(request, state).await.map_err(refused)?;
        let value: Value = serde_json::from_slice(&bytes)
            .map_err(|error| ApiError::bad(format!("the body is no JSON: {error}")))?;
        match value.is_object() {
            true => Ok(Self(value)),
            false => Err(ApiError::bad("the body is no JSON object")),
        }
    }
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
