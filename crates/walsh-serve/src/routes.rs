//! What is asked for where.

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::routing::get;
use tower_http::cors::{Any, CorsLayer};
use tower_http::timeout::RequestBodyTimeoutLayer;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::error::ApiError;
use crate::guard::guard;
use crate::openai::{chat, completions, embeddings, models, responses};
use crate::options::Limits;
use crate::{App, anthropic, api, llama, page};

/// The server's service.
pub(crate) fn routes(app: &Arc<App>, limits: &Limits, origins: &[String]) -> Router {
    let (router, document) = OpenApiRouter::with_openapi(api::document())
        .routes(routes!(chat::chat))
        .routes(routes!(completions::completions))
        .routes(routes!(embeddings::embeddings))
        .routes(routes!(responses::respond))
        .routes(routes!(responses::get, responses::delete))
        .routes(routes!(models::list))
        .routes(routes!(anthropic::messages))
        .routes(routes!(anthropic::count_tokens))
        .routes(routes!(llama::completion::completion))
        .routes(routes!(llama::completion::fill))
        .routes(routes!(llama::health))
        .routes(routes!(llama::health_too))
        .routes(routes!(llama::props))
        .routes(routes!(llama::tokenize))
        .routes(routes!(llama::detokenize))
        .routes(routes!(llama::apply_template))
        .routes(routes!(llama::lora::list, llama::lora::set))
        .routes(routes!(llama::slots::list))
        .routes(routes!(llama::slots::act))
        .routes(routes!(llama::metrics))
        .routes(routes!(llama::metrics_json))
        .split_for_parts();
    let document = get(api::serve).with_state(Arc::new(document));
    let router = router
        .route("/openapi.json", document)
        // Names of models may have slashes in them.
        .route("/v1/models/{*model}", get(models::one))
        .route("/", get(page::index))
        .route("/page/{name}", get(page::file))
        .fallback(nothing_there)
        .method_not_allowed_fallback(not_so)
        .layer(DefaultBodyLimit::max(limits.body))
        .layer(RequestBodyTimeoutLayer::new(limits.read_time))
        .layer(from_fn_with_state(Arc::clone(app), guard));
    let router = match origins {
        [] => router,
        origins => router.layer(cors(origins)),
    };
    router.with_state(Arc::clone(app))
}

fn cors(origins: &[String]) -> CorsLayer {
    let layer = CorsLayer::new()
        .allow_methods([Method::GET, Method::POST, Method::DELETE])
        .allow_headers(Any)
        .expose_headers([header::HeaderName::from_static("x-request-id")]);
    match origins.iter().any(|origin| origin == "*") {
        true => layer.allow_origin(Any),
        false => {
            let values = origins
                .iter()
                .filter_map(|origin| HeaderValue::from_str(origin).ok());
            layer.allow_origin(values.collect::<Vec<_>>())
        }
    }
}

async fn nothing_there(request: Request) -> ApiError {
    let message = format!(
        "there is nothing at {} {}",
        request.method(),
        request.uri().path()
    );
    ApiError::not_found("not_found", message)
}

async fn not_so(request: Request) -> ApiError {
    let message = format!("{} is not for {}", request.method(), request.uri().path());
    ApiError::with_status(StatusCode::METHOD_NOT_ALLOWED, message)
}
