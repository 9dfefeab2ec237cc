//! OTLP over HTTP: `POST /v1/{logs,traces,metrics}`, protobuf and JSON.

use std::{future::Future, net::SocketAddr, sync::Arc};

use axum::{Router, body::Body, extract::State, routing::any};
use http::{HeaderMap, HeaderValue, Method, Request, Response, header};
use prost::Message;
use tokio::net::TcpListener;

use super::{
    body::Compression,
    intake::{ExportResponse, Head, Intake, Transport},
    refusal::{JSON, PROTOBUF, Refusal},
};
use crate::{
    decode::{Encoding, OtlpSignal},
    error::IngestError,
};

pub(super) async fn serve(
    listener: Option<(TcpListener, SocketAddr)>,
    intake: Arc<Intake>,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<(), IngestError> {
    let Some((listener, _)) = listener else { return Ok(()) };
    axum::serve(listener, router(intake))
        .with_graceful_shutdown(stop)
        .await
        .map_err(|cause| IngestError::Serve { transport: "http", cause: Box::new(cause) })
}

fn router(intake: Arc<Intake>) -> Router {
    let export = |signal| {
        any(move |State(intake): State<Arc<Intake>>, request: Request<Body>| async move {
            let encoding = encoding_of(request.headers());
            export(&intake, signal, encoding, request).await.unwrap_or_else(|refusal| {
                // A sender that names no encoding we know can at least read JSON.
                refusal.to_http(encoding.unwrap_or(Encoding::Json))
            })
        })
    };
    Router::new()
        .route("/v1/logs", export(OtlpSignal::Logs))
        .route("/v1/traces", export(OtlpSignal::Traces))
        .route("/v1/metrics", export(OtlpSignal::Metrics))
        .fallback(
            |headers: HeaderMap| async move { Refusal::Path.to_http(encoding_of(&headers).unwrap_or(Encoding::Json)) },
        )
        .with_state(intake)
}

async fn export(
    intake: &Arc<Intake>,
    signal: OtlpSignal,
    encoding: Option<Encoding>,
    request: Request<Body>,
) -> Result<Response<Body>, Refusal> {
    let (encoding, compression) =
        head(&request, encoding).inspect_err(|refusal| intake.count_refused_request(Transport::Http, refusal))?;
    let head = Head { transport: Transport::Http, signal, encoding, compression };
    let response = intake.take(head, request.into_body()).await?;
    let (content_type, body) = match encoding {
        Encoding::Protobuf => (PROTOBUF, response.encode_to_vec()),
        Encoding::Json => (JSON, to_json(signal, response).into_bytes()),
    };
    let mut response = Response::new(Body::from(body));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    Ok(response)
}

/// What can be refused before the body is read.
fn head(request: &Request<Body>, encoding: Option<Encoding>) -> Result<(Encoding, Compression), Refusal> {
    if request.method() != Method::POST {
        return Err(Refusal::Method);
    }
    let encoding = encoding.ok_or(Refusal::ContentType)?;
    let mut encodings = request.headers().get_all(header::CONTENT_ENCODING).iter();
    let compression = Compression::from_header(encodings.next()).ok_or(Refusal::ContentEncoding)?;
    if encodings.next().is_some() {
        return Err(Refusal::ContentEncoding);
    }
    Ok((encoding, compression))
}

/// Encoding that the content type names, whatever its parameters.
fn encoding_of(headers: &HeaderMap) -> Option<Encoding> {
    let content_type = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case(PROTOBUF) {
        Some(Encoding::Protobuf)
    } else if essence.eq_ignore_ascii_case(JSON) {
        Some(Encoding::Json)
    } else {
        None
    }
}

/// The response as OTLP/JSON has it: 64-bit integers as strings.
fn to_json(signal: OtlpSignal, response: ExportResponse) -> String {
    let Some(partial) = response.partial_success else { return "{}".into() };
    let rejected = match signal {
        OtlpSignal::Logs => "rejectedLogRecords",
        OtlpSignal::Traces => "rejectedSpans",
        OtlpSignal::Metrics => "rejectedDataPoints",
    };
    let partial = serde_json::json!({ rejected: partial.rejected.to_string(), "errorMessage": partial.error_message });
    serde_json::json!({ "partialSuccess": partial }).to_string()
}
