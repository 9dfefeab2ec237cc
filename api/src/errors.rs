//! The one place where errors become HTTP answers.
//!
//! | `domain()` | `retryable()` | status | `error.code` |
//! |---|---|---|---|
//! | user | | 400 | `bad_request` |
//! | external | yes | 503 with `Retry-After` | `unavailable` |
//! | external | no | 500 | `storage_failed` |
//! | internal | | 500 | `internal` |
//!
//! What only HTTP knows (404, 405, 409, 413, 415, 504) has a variant of its own. Every body is
//! `{"error": {"code": "...", "message": "..."}}`.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use faultline_core::{Classified, Domain};
use faultline_store::StoreError;
use serde::Serialize;
use utoipa::ToSchema;

/// Why a request or the server failed.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// A query parameter that the route does not take.
    #[error("unknown parameter `{name}`; {hint}")]
    UnknownParameter {
        /// The parameter.
        name: String,
        /// The nearest valid name, or all of them.
        hint: String,
    },
    /// A query parameter whose value does not parse.
    #[error("parameter `{name}`: {reason}")]
    BadParameter {
        /// The parameter.
        name: &'static str,
        /// What is wrong with the value.
        reason: String,
    },
    /// A body that is not what the route takes.
    #[error("request body: {reason}")]
    BadBody {
        /// What is wrong with it.
        reason: String,
    },
    /// A body of another type.
    #[error("content type `{found}` is not accepted here; send application/json")]
    UnsupportedMediaType {
        /// Its `Content-Type`.
        found: String,
    },
    /// A body beyond the limit.
    #[error("the request body is larger than {limit} bytes")]
    BodyTooLarge {
        /// The limit.
        limit: usize,
    },
    /// An id that names nothing.
    #[error("there is no {kind} `{id}`")]
    UnknownId {
        /// What was looked for.
        kind: &'static str,
        /// Its id.
        id: String,
    },
    /// An order that the present state does not allow.
    #[error("{what}: {reason}")]
    Conflict {
        /// What it is about.
        what: String,
        /// Why it cannot be carried out.
        reason: &'static str,
    },
    /// A path that is no route.
    #[error("there is no route `{path}`; GET / lists them")]
    UnknownRoute {
        /// The path.
        path: String,
    },
    /// A method that the route does not take.
    #[error("`{path}` does not take {method}")]
    MethodNotAllowed {
        /// The path.
        path: String,
        /// The method.
        method: String,
    },
    /// The request took too long.
    #[error("the request took longer than {limit_secs} s")]
    TimedOut {
        /// The limit.
        limit_secs: u64,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The server could not go on.
    #[error("the API server failed on its socket (api.endpoint)")]
    Serve(#[source] std::io::Error),
    /// The metrics recorder could not be installed.
    #[error("cannot install the metrics recorder")]
    Recorder(#[source] metrics_exporter_prometheus::BuildError),
    /// A bug in faultline.
    #[error("internal error in the API: {what}")]
    Internal {
        /// What should not have happened.
        what: String,
    },
}

impl Classified for ApiError {
    fn domain(&self) -> Domain {
        match self {
            Self::Store(error) => error.domain(),
            Self::Serve(_) => Domain::External,
            Self::Recorder(_) | Self::Internal { .. } => Domain::Internal,
            _ => Domain::User,
        }
    }

    fn retryable(&self) -> bool {
        match self {
            Self::Store(error) => error.retryable(),
            Self::TimedOut { .. } => true,
            _ => false,
        }
    }
}

/// Body of every error answer.
#[derive(Debug, Serialize, ToSchema)]
pub struct ErrorBody {
    /// What went wrong.
    pub error: ErrorDetail,
}

/// What went wrong.
#[derive(Debug, Serialize, ToSchema)]
pub struct ErrorDetail {
    /// Stable, for programs.
    #[schema(example = "bad_request")]
    pub code: String,
    /// For people.
    pub message: String,
}

impl ApiError {
    fn status_and_code(&self) -> (StatusCode, &'static str) {
        match self {
            Self::UnknownId { .. } | Self::UnknownRoute { .. } => (StatusCode::NOT_FOUND, "not_found"),
            Self::Conflict { .. } => (StatusCode::CONFLICT, "conflict"),
            Self::MethodNotAllowed { .. } => (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed"),
            Self::UnsupportedMediaType { .. } => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type"),
            Self::BodyTooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large"),
            Self::TimedOut { .. } => (StatusCode::GATEWAY_TIMEOUT, "timed_out"),
            other => match (other.domain(), other.retryable()) {
                (Domain::User, _) => (StatusCode::BAD_REQUEST, "bad_request"),
                (Domain::External, true) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
                (Domain::External, false) => (StatusCode::INTERNAL_SERVER_ERROR, "storage_failed"),
                (Domain::Internal, _) => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
            },
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, code) = self.status_and_code();
        let message = with_causes(&self);
        if status == StatusCode::INTERNAL_SERVER_ERROR {
            tracing::error!(code, %message, "request failed");
        }
        let body = Json(ErrorBody { error: ErrorDetail { code: code.into(), message } });
        let mut response = (status, body).into_response();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

/// The error and its causes in one line: no message of ours repeats its source.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
