//! What a request that cannot be served is answered with.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use walsh_runtime::Error;

/// An error as OpenAI's interface words it.
#[derive(Debug, Clone)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    /// What kind of error it is, in OpenAI's words.
    pub(crate) kind: &'static str,
    pub(crate) code: Option<&'static str>,
    /// The field of the request that is wrong.
    pub(crate) param: Option<String>,
    pub(crate) message: String,
    /// In how many seconds to come again.
    pub(crate) retry_after: Option<u64>,
    /// Whether it is about the form of the answer, or about a prompt that has nothing in it: whoever knows by which field
    /// that came says so.
    about: Option<About>,
}

/// What the engine finds wrong without knowing by which field it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum About {
    Form,
    Prompt,
}

pub(crate) type Result<T> = std::result::Result<T, ApiError>;

impl ApiError {
    fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            kind,
            code: None,
            param: None,
            message: message.into(),
            retry_after: None,
            about: None,
        }
    }

    /// Says which field of the request is wrong.
    pub(crate) fn by(mut self, field: &str) -> Self {
        self.param = Some(field.to_owned());
        self
    }

    /// Says by which field came what it is about.
    pub(crate) fn of(mut self, about: About, field: &str) -> Self {
        if self.about == Some(about) && self.param.is_none() {
            self.param = Some(field.to_owned());
        }
        self
    }

    /// The request is wrong.
    pub(crate) fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", message)
    }

    /// A field of the request is wrong.
    pub(crate) fn field(name: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            param: Some(name.into()),
            ..Self::bad(message)
        }
    }

    pub(crate) fn not_found(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            code: Some(code),
            ..Self::new(StatusCode::NOT_FOUND, "invalid_request_error", message)
        }
    }

    pub(crate) fn with_status(status: StatusCode, message: impl Into<String>) -> Self {
        Self::new(status, "invalid_request_error", message)
    }

    /// The server holds no conversations for Anthropic's clients, which know this code.
    pub(crate) fn thread() -> Self {
        let message = "thread: conversations are not held here: send all of it";
        Self {
            code: Some("thread_unsupported_request"),
            ..Self::field("thread", message)
        }
    }

    /// The key is missing or wrong.
    pub(crate) fn key(message: impl Into<String>) -> Self {
        Self {
            code: Some("invalid_api_key"),
            ..Self::new(StatusCode::UNAUTHORIZED, "invalid_request_error", message)
        }
    }

    /// Too many requests wait already.
    pub(crate) fn overloaded(waiting: usize) -> Self {
        let message = format!("{waiting} requests are being served or wait: come again later");
        Self {
            code: Some("rate_limit_exceeded"),
            retry_after: Some(1),
            ..Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", message)
        }
    }

    /// There is none of what was asked for here.
    pub(crate) fn unsupported(message: impl Into<String>) -> Self {
        Self {
            code: Some("unsupported"),
            ..Self::new(
                StatusCode::NOT_IMPLEMENTED,
                "invalid_request_error",
                message,
            )
        }
    }

    /// Something went wrong here.
    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", message)
    }

    /// As OpenAI's clients read it.
    pub(crate) fn body(&self) -> Value {
        json!({
            "error": {
                "message": self.message,
                "type": self.kind,
                "param": self.param,
                "code": self.code,
            }
        })
    }

    /// As Anthropic's clients read it.
    pub(crate) fn anthropic_body(&self) -> Value {
        let kind = match self.status.as_u16() {
            401 => "authentication_error",
            403 => "permission_error",
            404 => "not_found_error",
            413 => "request_too_large",
            429 => "rate_limit_error",
            503 => "overloaded_error",
            500.. => "api_error",
            _ => "invalid_request_error",
        };
        let mut error = json!({ "type": kind, "message": self.message });
        if let Some(code) = self.code {
            error["details"] = json!({ "error_code": code });
        }
        json!({ "type": "error", "error": error })
    }

    fn respond(&self, body: Value) -> Response {
        let mut response = (self.status, Json(body)).into_response();
        if let Some(seconds) = self.retry_after {
            let seconds = HeaderValue::from(seconds);
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
        }
        response
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        self.respond(self.body())
    }
}

/// The same in Anthropic's form.
pub(crate) struct AnthropicError(pub(crate) ApiError);

impl IntoResponse for AnthropicError {
    fn into_response(self) -> Response {
        self.0.respond(self.0.anthropic_body())
    }
}

impl From<ApiError> for AnthropicError {
    fn from(error: ApiError) -> Self {
        Self(error)
    }
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        match &error {
            Error::ContextFull { .. } => Self {
                code: Some("context_length_exceeded"),
                ..Self::bad(message)
            },
            Error::Option { option, .. } => Self::field(*option, message),
            Error::Sampling { name, .. } => Self::field(*name, message),
            Error::EmptyPrompt => Self {
                about: Some(About::Prompt),
                ..Self::bad(message)
            },
            Error::Constraint { .. } => Self {
                about: Some(About::Form),
                ..Self::bad(message)
            },
            // It begins with the place, where it is one of a message.
            Error::Dialogue { what } => Self {
                param: what
                    .split(' ')
                    .next()
                    .filter(|place| place.starts_with("messages"))
                    .map(str::to_owned),
                ..Self::bad(message)
            },
            Error::Template { .. }
            | Error::Text { .. }
            | Error::Tokenizer { .. }
            | Error::MakesVectors { .. }
            | Error::Slot { .. } => Self::bad(message),
            Error::NoRoom { .. } => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", message)
            }
            Error::MemoryInUse { .. } => Self {
                retry_after: Some(10),
                ..Self::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", message)
            },
            _ => Self::internal(message),
        }
    }
}

/// A thread that was to do something has panicked.
impl From<tokio::task::JoinError> for ApiError {
    fn from(_: tokio::task::JoinError) -> Self {
        Self::internal("the server failed on this request, which is a fault of Walsh")
    }
}
