//! The description of all routes as OpenAPI 3.1, made of the routes themselves. Knows no route by
//! name but `/`, which the user may have too.

use std::sync::LazyLock;

use axum::body::Bytes;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};
use utoipa_axum::router::OpenApiRouter;

use super::{console, problem};

/// What is said of the whole; each route adds itself.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Tidegate",
        description = "REST beside the sockets: what is pushed and published, who is there, what \
            is kept. Every error is a problem document (RFC 9457). A token comes as \
            `Authorization: Bearer`, and where no header can be set as `?token=`. What is spoken \
            on the sockets is told by `tidegate wire`.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    paths(console::root),
    components(schemas(problem::Document<'static>)),
    security(("token" = [])),
    modifiers(&Token)
)]
struct Whole;

struct Token;

impl Modify for Token {
    fn modify(&self, whole: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .bearer_format("JWT")
            .build();
        let components = whole.components.get_or_insert_default();
        components.add_security_scheme("token", SecurityScheme::Http(scheme));
    }
}

/// An empty table with what is said of the whole.
pub(super) fn described<S>() -> OpenApiRouter<S>
where
    S: Send + Sync + Clone + 'static,
{
    OpenApiRouter::with_openapi(Whole::openapi())
}

/// `GET /openapi.json`: this document.
#[utoipa::path(
    get,
    path = "/openapi.json",
    operation_id = "openapi",
    tag = "operation",
    security(()),
    responses((status = OK, body = serde_json::Value))
)]
pub(super) async fn document() -> Response {
    static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| {
        let (_, document) = super::table().split_for_parts();
        document.to_json().unwrap_or_default().into()
    });
    ([(CONTENT_TYPE, "application/json")], DOCUMENT.clone()).into_response()
}
