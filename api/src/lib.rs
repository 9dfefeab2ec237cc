//! Station 10, the reading side: alerts, incidents, templates and SQL over HTTP; health and metrics; and what people have to
//! say: verdicts on alerts, orders for detectors. Independent of OTLP, which arrives elsewhere.
//!
//! [`install_metrics`] once, make an [`ApiState`], then [`serve`] the [`router`]. All state lives in the store; a handler
//! checks the request, reads on a blocking thread and shapes JSON ([`dto`]). Errors become answers in one file, [`errors`].
//! Limits: 256 KiB a body, 60 s a request (a query stops itself before that), 1000 items a page.

#![allow(clippy::disallowed_methods, reason = "edge crate: requests are timed and metrics drained by the clock")]

mod detectors;
pub mod dto;
pub mod errors;
pub mod evidence;
pub mod feedback;
mod health;
mod params;
mod routes;
mod telemetry;

use std::{future::Future, sync::Arc, time::Duration};

use axum::{
    Extension, Json, Router,
    extract::{DefaultBodyLimit, OriginalUri},
    http::{HeaderValue, Method, StatusCode, header},
    middleware,
    response::{IntoResponse, Response},
};
use faultline_store::Store;
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::json;
use tokio::net::TcpListener;
use tower_http::timeout::TimeoutLayer;
use utoipa::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

pub use errors::ApiError;
pub use health::Readiness;
pub use telemetry::install_metrics;

/// Largest request body.
pub const MAX_BODY_BYTES: usize = 256 << 10;

/// Longest request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// What the handlers share. Cheap to clone.
#[derive(Clone)]
pub struct ApiState {
    /// Where everything is read from.
    pub store: Store,
    /// What `/readyz` says.
    pub readiness: Readiness,
    /// What `/metrics` renders, from [`install_metrics`].
    pub metrics: PrometheusHandle,
    /// Carries out what an operator orders; none where no detectors run.
    pub operator: Option<Operator>,
}

/// What an operator may order for a detector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Let its shadow decide.
    Promote,
    /// Bring the model back that decided before.
    RollBack,
    /// Look at the verdict that waits in the store; of an alert, not of a detector.
    Judge,
}

/// Takes an order for the detector of this name, or the alert of this id. It is carried out between two rounds of judging.
pub type Operator = Arc<dyn Fn(&str, Order) + Send + Sync>;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "faultline",
        description = "What is breaking, why, and the evidence: alerts, incidents, log templates and SQL over all telemetry.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
        contact(),
    ),
    tags(
        (name = "alerts", description = "Calibrated, deduplicated statements that one session behaves abnormally"),
        (name = "incidents", description = "Alerts that belong together, with ranked suspects"),
        (name = "templates", description = "What log lines are once their variable parts are taken out"),
        (name = "detectors", description = "How detectors do: promised against observed, drift, models that wait for promotion"),
        (name = "query", description = "SQL over everything, read-only and bounded"),
        (name = "operating", description = "Health and metrics"),
    )
)]
struct Documentation;

/// Every route with its documentation.
fn documented() -> OpenApiRouter<ApiState> {
    OpenApiRouter::with_openapi(Documentation::openapi())
        .routes(routes!(routes::alerts))
        .routes(routes!(routes::alert))
        .routes(routes!(feedback::give))
        .routes(routes!(routes::incidents))
        .routes(routes!(routes::incident))
        .routes(routes!(routes::templates))
        .routes(routes!(routes::template))
        .routes(routes!(detectors::list))
        .routes(routes!(detectors::promote))
        .routes(routes!(detectors::roll_back))
        .routes(routes!(routes::query))
        .routes(routes!(openapi_json))
        .routes(routes!(index))
        .routes(routes!(health::livez))
        .routes(routes!(health::readyz))
        .routes(routes!(health::dash_healthy))
        .routes(routes!(health::dash_ready))
        .routes(routes!(telemetry::metrics))
}

/// The whole API.
pub fn router(state: ApiState) -> Router {
    let (router, documentation) = documented().split_for_parts();
    let text = documentation.to_json().expect("the document is made of strings and numbers");
    router
        .fallback(unknown_route)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(Extension(OpenApiText(text.into())))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, REQUEST_TIMEOUT))
        .layer(middleware::map_response(finish))
        .layer(middleware::from_fn(telemetry::count))
        .with_state(state)
}

/// Serves `router` on `listener` until `stop` resolves, then lets requests under way finish.
///
/// # Errors
/// When the socket fails.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<(), ApiError> {
    axum::serve(listener, router).with_graceful_shutdown(stop).await.map_err(ApiError::Serve)
}

#[derive(Clone)]
struct OpenApiText(Arc<str>);

/// This API, described.
#[utoipa::path(get, path = "/api/v1/openapi.json", tag = "operating", responses(
    (status = 200, description = "OpenAPI 3.1", content_type = "application/json"),
))]
async fn openapi_json(Extension(OpenApiText(text)): Extension<OpenApiText>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], text.to_string()).into_response()
}

/// Where to begin.
#[utoipa::path(get, path = "/", tag = "operating", responses(
    (status = 200, description = "Links to everything else", content_type = "application/json"),
))]
async fn index() -> Json<serde_json::Value> {
    Json(json!({
        "name": "faultline",
        "links": {
            "alerts": "/api/v1/alerts",
            "incidents": "/api/v1/incidents",
            "templates": "/api/v1/templates",
            "detectors": "/api/v1/detectors",
            "query": "/api/v1/query",
            "openapi": "/api/v1/openapi.json",
            "live": "/livez",
            "ready": "/readyz",
            "metrics": "/metrics",
        },
    }))
}

async fn unknown_route(OriginalUri(uri): OriginalUri) -> ApiError {
    ApiError::UnknownRoute { path: uri.path().into() }
}

async fn method_not_allowed(method: Method, OriginalUri(uri): OriginalUri) -> ApiError {
    ApiError::MethodNotAllowed { path: uri.path().into(), method: method.to_string() }
}

/// Gives the answer of the timeout layer, which has no body, the shape of every other error; forbids guessing of types.
async fn finish(response: Response) -> Response {
    let mut response = if response.status() == StatusCode::GATEWAY_TIMEOUT {
        ApiError::TimedOut { limit_secs: REQUEST_TIMEOUT.as_secs() }.into_response()
    } else {
        response
    };
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
