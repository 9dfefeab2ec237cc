//! Why a request was not taken, and how each transport says so.

use std::time::Duration;

use axum::body::Body;
use http::{HeaderValue, Response, StatusCode, header};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::decode::{DecodeError, Encoding};

/// What overloaded senders are told to wait at least.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Why a request was not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error("the request cannot be decoded")]
    Undecodable(#[source] DecodeError),
    #[error("the compressed body cannot be inflated")]
    Inflate(#[source] std::io::Error),
    #[error("the request body broke off")]
    BrokenBody(#[source] axum::Error),
    #[error("{0}")]
    Malformed(&'static str),
    #[error("the request is larger than {limit} bytes (ingest.otlp.max_request_bytes)")]
    TooLarge { limit: usize },
    #[error("the pipeline is full")]
    Full,
    #[error("too many requests in flight")]
    TooManyRequests,
    #[error("too many bytes in flight (ingest.otlp.max_inflight_bytes)")]
    TooManyBytes,
    #[error("the request took longer than ingest.otlp.read_timeout_ms to arrive")]
    ReadTimeout,
    #[error("the records could not be stored")]
    NotStored,
    #[error("the records were not stored within ingest.otlp.ack_timeout_ms")]
    AckTimeout,
    #[error("shutting down")]
    Stopping,
    #[error("only POST is allowed")]
    Method,
    #[error("no such path")]
    Path,
    #[error("the content type must be application/x-protobuf or application/json")]
    ContentType,
    #[error("the content encoding must be gzip, zstd or identity")]
    ContentEncoding,
    #[error("decoding failed")]
    Internal,
}

impl Refusal {
    /// Label of `faultline_receiver_refused_requests_total`.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Undecodable(_) | Self::Malformed(_) => "undecodable",
            Self::Inflate(_) => "inflate",
            Self::BrokenBody(_) => "broken_body",
            Self::TooLarge { .. } => "too_large",
            Self::Full => "pipeline_full",
            Self::TooManyRequests => "max_concurrent_requests",
            Self::TooManyBytes => "max_inflight_bytes",
            Self::ReadTimeout => "read_timeout",
            Self::NotStored => "not_stored",
            Self::AckTimeout => "ack_timeout",
            Self::Stopping => "stopping",
            Self::Method => "method",
            Self::Path => "path",
            Self::ContentType => "content_type",
            Self::ContentEncoding => "content_encoding",
            Self::Internal => "internal",
        }
    }

    /// Set when the sender should try the same request again.
    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Full
            | Self::TooManyRequests
            | Self::TooManyBytes
            | Self::ReadTimeout
            | Self::NotStored
            | Self::AckTimeout
            | Self::Stopping => Some(RETRY_AFTER),
            _ => None,
        }
    }

    fn code(&self) -> Code {
        match self {
            Self::TooLarge { .. } => Code::ResourceExhausted,
            Self::Method | Self::ContentEncoding => Code::Unimplemented,
            Self::Path => Code::NotFound,
            Self::Internal => Code::Internal,
            refusal if refusal.retry_after().is_some() => Code::Unavailable,
            _ => Code::InvalidArgument,
        }
    }

    fn http_status(&self) -> StatusCode {
        match self {
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Full => StatusCode::TOO_MANY_REQUESTS,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Path => StatusCode::NOT_FOUND,
            Self::ContentType | Self::ContentEncoding => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            refusal if refusal.retry_after().is_some() => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::BAD_REQUEST,
        }
    }

    /// The whole chain on one line; each cause says only its own part.
    fn message(&self) -> String {
        let mut message = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            message.push_str(": ");
            message.push_str(&error.to_string());
            cause = error.source();
        }
        message
    }

    /// As gRPC says it.
    pub(super) fn to_grpc(&self) -> Status {
        match self.retry_after() {
            Some(delay) => {
                Status::with_error_details(self.code(), self.message(), ErrorDetails::with_retry_info(Some(delay)))
            }
            None => Status::new(self.code(), self.message()),
        }
    }

    /// As HTTP says it: the status code and a `google.rpc.Status` in the request's own encoding.
    pub(super) fn to_http(&self, encoding: Encoding) -> Response<Body> {
        let (content_type, body) = match encoding {
            Encoding::Protobuf => {
                let details = match self.retry_after() {
                    Some(delay) => ErrorDetails::with_retry_info(Some(delay)),
                    None => ErrorDetails::new(),
                };
                // The details of a gRPC status are the encoded google.rpc.Status.
                let status = Status::with_error_details(self.code(), self.message(), details);
                (PROTOBUF, status.details().to_vec())
            }
            Encoding::Json => {
                let details: Vec<_> = self
                    .retry_after()
                    .map(|delay| {
                        serde_json::json!({
                            "@type": "type.googleapis.com/google.rpc.RetryInfo",
                            "retryDelay": format!("{}s", delay.as_secs()),
                        })
                    })
                    .into_iter()
                    .collect();
                let code = self.code() as i32;
                let status = serde_json::json!({ "code": code, "message": self.message(), "details": details });
                (JSON, status.to_string().into_bytes())
            }
        };
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.http_status();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        if let Some(delay) = self.retry_after() {
            headers.insert(header::RETRY_AFTER, delay.as_secs().into());
        }
        match self {
            Self::Method => {
                headers.insert(header::ALLOW, HeaderValue::from_static("POST"));
            }
            Self::ContentEncoding => {
                headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip, zstd, identity"));
            }
            _ => {}
        }
        response
    }
}

pub(super) const PROTOBUF: &str = "application/x-protobuf";
pub(super) const JSON: &str = "application/json";
