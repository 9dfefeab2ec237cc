//! OTLP over HTTP, by a real client against the bound server.
#![allow(
    clippy::unwrap_used,
    clippy::needless_pass_by_value,
    clippy::type_complexity,
    reason = "a test may panic; helpers take what tests hold"
)]

mod common;

use common::{Behaviour, Servers, bad_record, gzip, post, record, request, send, zstd};
use faultline_core::{Batch, Position};
use faultline_ingest::OtlpConfig;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceResponse;
use prost::Message;
use serde_json::{Value, json};
use tonic_types::pb;

const PROTOBUF: &str = "application/x-protobuf";
const JSON: &str = "application/json";

fn bodies(batch: &Batch) -> Vec<String> {
    let Batch::Logs(batch) = batch else { panic!("expected logs, got {}", batch.table()) };
    batch.body().iter().map(|body| body.unwrap().to_owned()).collect()
}

fn status_pb(body: &[u8]) -> pb::Status {
    pb::Status::decode(body).expect("an error carries a google.rpc.Status")
}

#[test]
fn protobuf_and_json_are_taken_plain_and_compressed_and_answered_in_kind() {
    let servers = Servers::start(Behaviour::Accept);
    let request = request(vec![record("a"), record("b")]);
    let (protobuf, json) = (request.encode_to_vec(), serde_json::to_vec(&request).unwrap());
    let dressed = |plain: &[u8]| {
        [
            (None, plain.to_vec()),
            (Some("gzip"), gzip(plain)),
            (Some("zstd"), zstd(plain)),
            (Some("identity"), plain.to_vec()),
        ]
    };
    for (content_type, plain) in [(PROTOBUF, &protobuf), ("Application/JSON; charset=utf-8", &json)] {
        for (encoding, body) in dressed(plain) {
            let mut headers = vec![("content-type", content_type)];
            headers.extend(encoding.map(|encoding| ("content-encoding", encoding)));
            let answer = send("POST", &servers.url("/v1/logs"), &headers, &body);
            assert_eq!(answer.status, 200, "{content_type} {encoding:?}");
            if content_type == PROTOBUF {
                assert_eq!(answer.content_type, PROTOBUF);
                assert_eq!(ExportLogsServiceResponse::decode(&*answer.body).unwrap().partial_success, None);
            } else {
                assert_eq!((&*answer.content_type, &*answer.body), (JSON, &b"{}"[..]));
            }
            let deliveries = servers.pipeline.take();
            assert_eq!(bodies(&deliveries[0].batch), ["a", "b"]);
        }
    }
}

#[test]
fn all_three_signals_have_their_path_and_positions_count_records() {
    let servers = Servers::start(Behaviour::Accept);
    let logs = r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{},{}]}]}]}"#;
    let spans = r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"0af7651916cd43dd8448eb211c80319c","spanId":"b7ad6b7169203331"}]}]}]}"#;
    let metrics =
        r#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"name":"m","gauge":{"dataPoints":[{"asInt":"1"}]}}]}]}]}"#;
    for (path, body) in [("/v1/logs", logs), ("/v1/traces", spans), ("/v1/metrics", metrics)] {
        assert_eq!(post(&servers.url(path), JSON, body.as_bytes()).status, 200);
    }
    let deliveries = servers.pipeline.take();
    let tables: Vec<_> = deliveries.iter().map(|delivery| delivery.batch.table()).collect();
    assert_eq!(tables, ["logs", "spans", "metrics"]);
    let positions: Vec<_> = deliveries.into_iter().map(|delivery| delivery.position).collect();
    let at = |offset, next| Position { source: "otlp".into(), offset, next };
    assert_eq!(positions, [at(0, 2), at(2, 3), at(3, 4)]);
}

#[test]
fn an_empty_request_is_a_success_and_goes_nowhere() {
    let servers = Servers::start(Behaviour::Full);
    assert_eq!(post(&servers.url("/v1/logs"), PROTOBUF, b"").status, 200);
    assert_eq!(post(&servers.url("/v1/metrics"), JSON, b"{}").status, 200);
    assert_eq!(
        send("POST", &servers.url("/v1/logs"), &[("content-type", PROTOBUF), ("content-encoding", "gzip")], b"").status,
        200
    );
}

#[test]
fn bad_records_are_a_partial_success_with_real_counts() {
    let servers = Servers::start(Behaviour::Accept);
    let request = request(vec![bad_record(), record("good"), bad_record()]);
    let message = "2 of 3 log records rejected; first: trace_id: must be 16 bytes, got 3";

    let answer = post(&servers.url("/v1/logs"), PROTOBUF, &request.encode_to_vec());
    assert_eq!(answer.status, 200);
    let partial = ExportLogsServiceResponse::decode(&*answer.body).unwrap().partial_success.unwrap();
    assert_eq!((partial.rejected_log_records, &*partial.error_message), (2, message));
    let delivery = servers.pipeline.take().remove(0);
    assert_eq!(bodies(&delivery.batch), ["good"]);
    assert_eq!(delivery.rejects.len(), 2);
    assert_eq!(delivery.rejects[0].raw, bad_record().encode_to_vec());

    let answer = post(&servers.url("/v1/logs"), JSON, &serde_json::to_vec(&request).unwrap());
    let body: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(body, json!({ "partialSuccess": { "rejectedLogRecords": "2", "errorMessage": message } }));

    // Nothing good in it: still delivered, because the rejects are kept.
    servers.pipeline.take();
    let answer = post(&servers.url("/v1/traces"), JSON, br#"{"resourceSpans":[{"scopeSpans":[{"spans":[{}]}]}]}"#);
    let body: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(body["partialSuccess"]["rejectedSpans"], "1");
    let delivery = servers.pipeline.take().remove(0);
    assert_eq!((delivery.batch.n_records(), delivery.rejects.len()), (0, 1));
}

#[test]
fn an_undecodable_request_is_400_with_a_status_in_its_own_encoding() {
    let servers = Servers::start(Behaviour::Accept);
    let whole = request(vec![record("a")]).encode_to_vec();
    for body in [&b"not protobuf"[..], &whole[..whole.len() - 1]] {
        let answer = post(&servers.url("/v1/logs"), PROTOBUF, body);
        assert_eq!((answer.status, &*answer.content_type), (400, PROTOBUF));
        let status = status_pb(&answer.body);
        assert_eq!(status.code, tonic::Code::InvalidArgument as i32);
        assert!(status.message.starts_with("the request cannot be decoded: "), "{}", status.message);
    }
    let answer = post(&servers.url("/v1/logs"), JSON, b"{\"resourceLogs\":");
    assert_eq!((answer.status, &*answer.content_type), (400, JSON));
    let status: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(status["code"], 3);
    for (encoding, body) in
        [("gzip", &whole[..]), ("zstd", &whole), ("gzip", &gzip(&whole)[..20]), ("zstd", &zstd(&whole)[..12])]
    {
        let headers = [("content-type", PROTOBUF), ("content-encoding", encoding)];
        let answer = send("POST", &servers.url("/v1/logs"), &headers, body);
        assert_eq!(answer.status, 400, "{encoding}");
        assert!(status_pb(&answer.body).message.starts_with("the compressed body cannot be inflated"));
    }
    assert!(servers.pipeline.take().is_empty());
}

#[test]
fn other_methods_paths_types_and_encodings_are_named_for_what_they_are() {
    let servers = Servers::start(Behaviour::Accept);
    let url = servers.url("/v1/logs");
    for method in ["GET", "DELETE", "OPTIONS"] {
        let answer = send(method, &url, &[], b"");
        assert_eq!((answer.status, answer.headers["allow"].to_str().unwrap()), (405, "POST"), "{method}");
    }
    let answer = send("PUT", &url, &[("content-type", PROTOBUF)], b"");
    assert_eq!((answer.status, status_pb(&answer.body).code), (405, tonic::Code::Unimplemented as i32));
    assert_eq!(post(&servers.url("/v1/nothing"), JSON, b"{}").status, 404);
    for content_type in ["text/plain", "application/grpc", "application/jsonp", ""] {
        let answer = post(&url, content_type, b"{}");
        assert_eq!((answer.status, &*answer.content_type), (415, JSON), "{content_type}");
    }
    assert_eq!(send("POST", &url, &[], b"{}").status, 415);
    for encoding in ["br", "deflate", "gzip, gzip", "snappy"] {
        let answer = send("POST", &url, &[("content-type", JSON), ("content-encoding", encoding)], b"{}");
        assert_eq!(answer.status, 415, "{encoding}");
        assert_eq!(answer.headers["accept-encoding"], "gzip, zstd, identity");
    }
}

#[test]
fn a_pipeline_that_cannot_take_records_makes_the_sender_come_back() {
    let body = request(vec![record("a")]).encode_to_vec();
    let config = OtlpConfig { ack_timeout_ms: 1, ..OtlpConfig::default() };
    for (behaviour, expected) in
        [(Behaviour::Full, 429), (Behaviour::Fail, 503), (Behaviour::Closed, 503), (Behaviour::Hold, 503)]
    {
        let config = if behaviour == Behaviour::Hold { config.clone() } else { OtlpConfig::default() };
        let servers = Servers::with(config, behaviour);
        let answer = post(&servers.url("/v1/logs"), PROTOBUF, &body);
        assert_eq!((answer.status, answer.headers["retry-after"].to_str().unwrap()), (expected, "1"));
        let status = status_pb(&answer.body);
        assert_eq!(status.code, tonic::Code::Unavailable as i32);
        assert_eq!(status.details[0].type_url, "type.googleapis.com/google.rpc.RetryInfo");

        let answer = post(&servers.url("/v1/logs"), JSON, br#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{}]}]}]}"#);
        assert_eq!(answer.status, expected);
        let status: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(status["details"][0]["retryDelay"], "1s");
    }
}

#[test]
fn a_request_above_the_cap_is_413_plain_or_inflated_and_one_at_the_cap_is_taken() {
    let config = OtlpConfig { max_request_bytes: 100_000, ..OtlpConfig::default() };
    let servers = Servers::with(config, Behaviour::Accept);
    let sized = |n_bytes: usize| {
        let body = request(vec![record(&"x".repeat(n_bytes))]).encode_to_vec();
        let over = body.len() - n_bytes;
        request(vec![record(&"x".repeat(n_bytes - over))]).encode_to_vec()
    };
    let (fits, too_large) = (sized(100_000), sized(100_001));
    assert_eq!((fits.len(), too_large.len()), (100_000, 100_001));
    let huge = request(vec![record(&"x".repeat(10_000_000))]).encode_to_vec();
    for (encoding, dress) in
        [("identity", (|body| body.to_vec()) as fn(&[u8]) -> Vec<u8>), ("gzip", gzip), ("zstd", zstd)]
    {
        let headers = [("content-type", PROTOBUF), ("content-encoding", encoding)];
        assert_eq!(send("POST", &servers.url("/v1/logs"), &headers, &dress(&fits)).status, 200, "{encoding}");
        for body in [&too_large, &huge] {
            if encoding == "identity" && body.len() > 200_000 {
                continue; // The sender may see the connection close before it has written all of it.
            }
            let answer = send("POST", &servers.url("/v1/logs"), &headers, &dress(body));
            assert_eq!(answer.status, 413, "{encoding}");
            assert!(answer.headers.get("retry-after").is_none());
            let status = status_pb(&answer.body);
            assert_eq!(status.code, tonic::Code::ResourceExhausted as i32);
            assert!(status.details.is_empty());
        }
    }
}

#[test]
fn requests_in_flight_are_bounded_and_a_stop_waits_for_them() {
    let config = OtlpConfig { max_concurrent_requests: 1, ..OtlpConfig::default() };
    let mut servers = Servers::with(config, Behaviour::Hold);
    let url = servers.url("/v1/logs");
    let body = request(vec![record("a")]).encode_to_vec();
    std::thread::scope(|scope| {
        let first = scope.spawn(|| post(&url, PROTOBUF, &body));
        let held = servers.held.recv().unwrap();
        let second = post(&url, PROTOBUF, &body);
        assert_eq!(second.status, 503);
        assert_eq!(status_pb(&second.body).message, "too many requests in flight");
        servers.tell_to_stop();
        held.ack.done();
        assert_eq!(first.join().unwrap().status, 200);
        servers.join().unwrap();
    });
    assert!(std::net::TcpStream::connect(url["http://".len()..].split('/').next().unwrap()).is_err());
}
