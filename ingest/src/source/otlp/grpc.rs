//! OTLP over gRPC: the three `Export` calls.
//!
//! Tonic serves the connection; the one message of a unary call is unframed here, because what OTLP asks for cannot be
//! had from tonic's own codec path: there a message over the limit is `OUT_OF_RANGE`, which OTLP senders retry for ever,
//! a broken gzip stream is `INTERNAL`, and inflating cannot draw on the budget that all requests share.

use std::{future::Future, net::SocketAddr, sync::Arc};

use axum::{Router, body::Body, extract::State, routing::any};
use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use prost::Message;
use tokio::net::TcpListener;
use tonic::{Status, transport::server::TcpIncoming};

use super::{
    body::Compression,
    intake::{ExportResponse, Head, Intake, Transport},
    refusal::Refusal,
};
use crate::{
    decode::{Encoding, OtlpSignal},
    error::IngestError,
};

/// Flag and length in front of a message.
const PREFIX_BYTES: usize = 5;

pub(super) async fn serve(
    listener: Option<(TcpListener, SocketAddr)>,
    intake: Arc<Intake>,
    stop: impl Future<Output = ()>,
) -> Result<(), IngestError> {
    let Some((listener, _)) = listener else { return Ok(()) };
    tonic::transport::Server::builder()
        .max_concurrent_streams(256_u32)
        .http2_keepalive_interval(Some(std::time::Duration::from_secs(60)))
        .initial_stream_window_size(1_u32 << 20)
        .initial_connection_window_size(4_u32 << 20)
        .serve_with_incoming_shutdown(router(intake), TcpIncoming::from(listener).with_nodelay(Some(true)), stop)
        .await
        .map_err(|cause| IngestError::Serve { transport: "grpc", cause: Box::new(cause) })
}

fn router(intake: Arc<Intake>) -> Router {
    let call = |signal| {
        any(move |State(intake): State<Arc<Intake>>, request: Request<Body>| async move {
            export(&intake, signal, request).await
        })
    };
    Router::new()
        .route("/opentelemetry.proto.collector.logs.v1.LogsService/Export", call(OtlpSignal::Logs))
        .route("/opentelemetry.proto.collector.trace.v1.TraceService/Export", call(OtlpSignal::Traces))
        .route("/opentelemetry.proto.collector.metrics.v1.MetricsService/Export", call(OtlpSignal::Metrics))
        .fallback(|| async { trailers_only(Status::unimplemented("no such service or method")) })
        .with_state(intake)
}

async fn export(intake: &Arc<Intake>, signal: OtlpSignal, request: Request<Body>) -> Response<Body> {
    if request.method() != Method::POST || !is_grpc(request.headers()) {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        return response;
    }
    let Some(compression) = Compression::from_header(request.headers().get("grpc-encoding")) else {
        let refusal = Refusal::ContentEncoding;
        intake.count_refused_request(Transport::Grpc, &refusal);
        let mut response = trailers_only(refusal.to_grpc());
        response.headers_mut().insert("grpc-accept-encoding", HeaderValue::from_static("identity,gzip,zstd"));
        return response;
    };
    let limit = intake.max_request_bytes();
    let head = Head { transport: Transport::Grpc, signal, encoding: Encoding::Protobuf, compression };
    let check = |body: &[u8]| prefix(body, limit).map(drop);
    let unframe = |body| unframe(body, compression, limit);
    match intake.take_with(head, request.into_body(), limit + PREFIX_BYTES, check, unframe).await {
        Ok(response) => message(&response),
        Err(refusal) => trailers_only(refusal.to_grpc()),
    }
}

fn is_grpc(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/grpc") || essence.eq_ignore_ascii_case("application/grpc+proto")
}

/// Whether the message is compressed and how long it is, once its prefix is there.
fn prefix(body: &[u8], limit: usize) -> Result<Option<(bool, usize)>, Refusal> {
    let Some((&[flag, a, b, c, d], _)) = body.split_first_chunk() else { return Ok(None) };
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    match flag {
        0 | 1 if length <= limit => Ok(Some((flag == 1, length))),
        0 | 1 => Err(Refusal::TooLarge { limit }),
        _ => Err(Refusal::Malformed("the gRPC compressed flag must be 0 or 1")),
    }
}

fn unframe(mut body: Vec<u8>, compression: Compression, limit: usize) -> Result<(Vec<u8>, Compression), Refusal> {
    let Some((is_compressed, length)) = prefix(&body, limit)? else {
        return Err(Refusal::Malformed("the call carries no message"));
    };
    if body.len() != PREFIX_BYTES + length {
        return Err(Refusal::Malformed("the call must carry exactly one whole message"));
    }
    if is_compressed && compression == Compression::None {
        return Err(Refusal::Malformed("the message is compressed but grpc-encoding is not set"));
    }
    body.drain(..PREFIX_BYTES);
    Ok((body, if is_compressed { compression } else { Compression::None }))
}

fn trailers_only(status: Status) -> Response<Body> {
    status.into_http()
}

fn message(response: &ExportResponse) -> Response<Body> {
    let length = response.encoded_len();
    let mut frame = BytesMut::with_capacity(PREFIX_BYTES + length);
    frame.put_u8(0);
    frame.put_u32(u32::try_from(length).expect("an answer is short"));
    response.encode(&mut frame).expect("a buffer takes any number of bytes");
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let body = Full::<Bytes>::new(frame.freeze()).with_trailers(std::future::ready(Some(Ok(trailers))));
    let mut response = Response::new(Body::new(body));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}
