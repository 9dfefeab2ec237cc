//! Liveness and readiness.
//!
//! A part of the program that is not ready yet holds readiness with a reason (`detectors`: `warming up, 62 %`) and
//! clears it later; `/readyz` is 200 once nobody holds it. A note is shown without holding.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::ApiState;

/// Shared between the program, which sets it, and `/readyz`, which shows it.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<RwLock<BTreeMap<String, Reason>>>);

#[derive(Clone, Debug)]
struct Reason {
    text: String,
    holds: Holds,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holds {
    Yes,
    No,
}

impl Readiness {
    /// Not ready, because of `component`, until [`Readiness::clear`] or [`Readiness::note`] for the same one.
    pub fn hold(&self, component: &str, reason: impl Into<String>) {
        self.set(component, reason.into(), Holds::Yes);
    }

    /// Something to show about `component` that does not stand in the way.
    pub fn note(&self, component: &str, text: impl Into<String>) {
        self.set(component, text.into(), Holds::No);
    }

    /// Nothing to say about `component` any more.
    pub fn clear(&self, component: &str) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(component);
    }

    /// Whether nothing holds.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).values().all(|reason| reason.holds == Holds::No)
    }

    fn set(&self, component: &str, text: String, holds: Holds) {
        let mut reasons = self.0.write().unwrap_or_else(PoisonError::into_inner);
        reasons.insert(component.to_owned(), Reason { text, holds });
    }

    fn report(&self) -> HealthReport {
        let reasons = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let part = |(component, reason): (&String, &Reason)| HealthPart {
            component: component.clone(),
            status: if reason.holds == Holds::Yes { "not_ready" } else { "ready" },
            reason: reason.text.clone(),
        };
        let ready = reasons.values().all(|reason| reason.holds == Holds::No);
        HealthReport { status: if ready { "ready" } else { "not_ready" }, reasons: reasons.iter().map(part).collect() }
    }
}

/// Answer of the health routes.
#[derive(Debug, Serialize, ToSchema)]
pub struct HealthReport {
    /// `alive`, `ready` or `not_ready`.
    #[schema(example = "not_ready")]
    pub status: &'static str,
    /// What there is to say, by component.
    pub reasons: Vec<HealthPart>,
}

/// What one part of the program says about itself.
#[derive(Debug, Serialize, ToSchema)]
pub struct HealthPart {
    /// Which part.
    #[schema(example = "detectors")]
    pub component: String,
    /// `ready` or `not_ready`.
    pub status: &'static str,
    /// In words.
    #[schema(example = "warming up, 62 %")]
    pub reason: String,
}

fn alive() -> Json<HealthReport> {
    Json(HealthReport { status: "alive", reasons: Vec::new() })
}

fn readiness(state: &ApiState) -> Response {
    let report = state.readiness.report();
    let status = if report.status == "ready" { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(report)).into_response()
}

/// Whether the process answers at all.
#[utoipa::path(get, path = "/livez", tag = "operating", responses((status = 200, body = HealthReport)))]
pub(crate) async fn livez() -> Json<HealthReport> {
    alive()
}

/// Whether it takes telemetry and detects.
#[utoipa::path(get, path = "/readyz", tag = "operating", responses(
    (status = 200, description = "Ready", body = HealthReport),
    (status = 503, description = "Not ready, with the reasons", body = HealthReport),
))]
pub(crate) async fn readyz(State(state): State<ApiState>) -> Response {
    readiness(&state)
}

/// The same as `/livez`, under the name Prometheus tools look for.
#[utoipa::path(get, path = "/-/healthy", tag = "operating", responses((status = 200, body = HealthReport)))]
pub(crate) async fn dash_healthy() -> Json<HealthReport> {
    alive()
}

/// The same as `/readyz`, under the name Prometheus tools look for.
#[utoipa::path(get, path = "/-/ready", tag = "operating", responses(
    (status = 200, description = "Ready", body = HealthReport),
    (status = 503, description = "Not ready, with the reasons", body = HealthReport),
))]
pub(crate) async fn dash_ready(State(state): State<ApiState>) -> Response {
    readiness(&state)
}
