//! faultline's own metrics: the recorder behind the `metrics` facade, `/metrics`, and the counters of this server.

use std::{thread, time::Duration};

use axum::{
    extract::{MatchedPath, Request, State},
    http::header,
    middleware::Next,
    response::{IntoResponse, Response},
};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use crate::{ApiState, errors::ApiError};

/// Seconds; from a detector's microseconds to a query's half minute.
const SECONDS_BUCKETS: &[f64] =
    &[1e-5, 1e-4, 1e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// How often histograms are drained when nobody scrapes.
const UPKEEP: Duration = Duration::from_secs(5);

/// Installs the process-wide metrics recorder. Call it once, before anything counts; `version` labels
/// `faultline_build_info`.
///
/// # Errors
/// When a recorder is installed already.
pub fn install_metrics(version: &'static str) -> Result<PrometheusHandle, ApiError> {
    let handle = builder()?.install_recorder().map_err(ApiError::Recorder)?;
    describe(version);
    let drained = handle.clone();
    thread::Builder::new()
        .name("faultline-metrics".into())
        .spawn(move || {
            loop {
                thread::sleep(UPKEEP);
                drained.run_upkeep();
            }
        })
        .map_err(|error| ApiError::Internal { what: format!("cannot start the metrics thread: {error}") })?;
    Ok(handle)
}

pub(crate) fn builder() -> Result<PrometheusBuilder, ApiError> {
    PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), SECONDS_BUCKETS)
        .map_err(ApiError::Recorder)
}

pub(crate) fn describe(version: &'static str) {
    use metrics::{Unit, describe_counter, describe_gauge, describe_histogram, gauge};
    describe_gauge!("faultline_build_info", "Always 1; the label names the version.");
    gauge!("faultline_build_info", "version" => version).set(1.0);
    describe_counter!("faultline_http_requests_total", "API requests answered, by route, method and status.");
    describe_histogram!(
        "faultline_http_request_duration_seconds",
        Unit::Seconds,
        "Time from an API request to its answer, by route."
    );
    faultline_store::describe_metrics();
}

/// faultline's own metrics in the Prometheus text format.
#[utoipa::path(get, path = "/metrics", tag = "operating", responses(
    (status = 200, description = "Prometheus text format 0.0.4", body = String, content_type = "text/plain"),
))]
pub(crate) async fn metrics(State(state): State<ApiState>) -> Response {
    let content_type = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (content_type, state.metrics.render()).into_response()
}

/// Counts a request under its route's pattern, so that ids in paths make no labels.
pub(crate) async fn count(request: Request, next: Next) -> Response {
    let begin = std::time::Instant::now();
    let route = request.extensions().get::<MatchedPath>().map_or("unknown", MatchedPath::as_str).to_owned();
    let method = match request.method().as_str() {
        method @ ("GET" | "HEAD" | "POST") => method.to_owned(),
        _ => "other".to_owned(),
    };
    let response = next.run(request).await;
    let status = response.status().as_u16().to_string();
    metrics::counter!("faultline_http_requests_total", "route" => route.clone(), "method" => method, "status" => status)
        .increment(1);
    metrics::histogram!("faultline_http_request_duration_seconds", "route" => route)
        .record(begin.elapsed().as_secs_f64());
    response
}
