//! What describes the server to programs: an OpenAPI document.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use utoipa::openapi::{
    ContentBuilder, ObjectBuilder, OpenApi, RefOr, Response, ResponseBuilder, Type,
};
use utoipa::{IntoResponses, OpenApi as _};

/// What all requests may be answered with instead of what they ask for.
pub(crate) struct Failures;

impl IntoResponses for Failures {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let text = || ObjectBuilder::new().schema_type(Type::String);
        let error = ObjectBuilder::new()
            .schema_type(Type::Object)
            .property("message", text())
            .property("type", text())
            .required("message")
            .required("type");
        let body = ObjectBuilder::new()
            .schema_type(Type::Object)
            .property("error", error)
            .required("error");
        let content = ContentBuilder::new().schema(Some(body)).build();
        let response = |what: &str| {
            let response = ResponseBuilder::new().description(what);
            response
                .content("application/json", content.clone())
                .build()
                .into()
        };
        BTreeMap::from([
            ("4XX".to_owned(), response("What is wrong with the request")),
            ("5XX".to_owned(), response("What went wrong here")),
        ])
    }
}

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Walsh",
        description = "OpenAI's and Anthropic's interfaces, and what llama-server's clients ask for besides.",
        license(name = "MIT OR Apache-2.0")
    ),
    // Names of models may have slashes in them, which it is not routed by.
    paths(crate::openai::models::one)
)]
struct Document;

/// The document without its paths.
pub(crate) fn document() -> OpenApi {
    Document::openapi()
}

/// Serves the document.
pub(crate) async fn serve(State(document): State<std::sync::Arc<OpenApi>>) -> Json<OpenApi> {
    Json(document.as_ref().clone())
}
