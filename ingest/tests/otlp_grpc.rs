//! OTLP over gRPC, by the client of `opentelemetry-proto` and by hand-made calls.
#![allow(
    clippy::unwrap_used,
    clippy::needless_pass_by_value,
    clippy::type_complexity,
    reason = "a test may panic; helpers take what tests hold"
)]

mod common;

use common::{Behaviour, LOGS_CALL, Servers, bad_record, framed, gzip, record, request, status_of, zstd};
use faultline_ingest::{OtlpConfig, OtlpServers};
use opentelemetry_proto::tonic::{
    collector::{
        logs::v1::logs_service_client::LogsServiceClient,
        metrics::v1::{ExportMetricsServiceRequest, metrics_service_client::MetricsServiceClient},
        trace::v1::{ExportTraceServiceRequest, trace_service_client::TraceServiceClient},
    },
    metrics::v1::{Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, metric::Data},
    trace::v1::{ResourceSpans, ScopeSpans, Span},
};
use prost::Message;
use tonic::{Code, codec::CompressionEncoding};
use tonic_types::StatusExt;

const GRPC: (&str, &str) = ("content-type", "application/grpc");

#[test]
fn the_three_services_take_requests_plain_and_compressed() {
    let servers = Servers::start(Behaviour::Accept);
    let channel = servers.channel();
    let spans = vec![Span { trace_id: vec![1; 16], span_id: vec![2; 8], name: "GET".into(), ..Span::default() }];
    let traces = ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            scope_spans: vec![ScopeSpans { spans, ..Default::default() }],
            ..Default::default()
        }],
    };
    let data = Some(Data::Gauge(Gauge { data_points: vec![NumberDataPoint::default(), NumberDataPoint::default()] }));
    let metrics = ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            scope_metrics: vec![ScopeMetrics {
                metrics: vec![Metric { name: "m".into(), data, ..Default::default() }],
                ..Default::default()
            }],
            ..Default::default()
        }],
    };
    for compression in [None, Some(CompressionEncoding::Gzip), Some(CompressionEncoding::Zstd)] {
        let mut logs_client = LogsServiceClient::new(channel.clone());
        let mut trace_client = TraceServiceClient::new(channel.clone());
        let mut metrics_client = MetricsServiceClient::new(channel.clone());
        if let Some(encoding) = compression {
            logs_client = logs_client.send_compressed(encoding);
            trace_client = trace_client.send_compressed(encoding);
            metrics_client = metrics_client.send_compressed(encoding);
        }
        servers.runtime.block_on(async {
            let response = logs_client.export(request(vec![record("a")])).await.unwrap();
            assert_eq!(response.into_inner().partial_success, None);
            assert_eq!(trace_client.export(traces.clone()).await.unwrap().into_inner().partial_success, None);
            assert_eq!(metrics_client.export(metrics.clone()).await.unwrap().into_inner().partial_success, None);
        });
        let got: Vec<_> = servers
            .pipeline
            .take()
            .iter()
            .map(|delivery| (delivery.batch.table(), delivery.batch.n_records()))
            .collect();
        assert_eq!(got, [("logs", 1), ("spans", 1), ("metrics", 2)]);
    }
}

#[test]
fn bad_records_are_a_partial_success_with_real_counts() {
    let servers = Servers::start(Behaviour::Accept);
    let mut client = LogsServiceClient::new(servers.channel());
    let response = servers.runtime.block_on(client.export(request(vec![record("good"), bad_record()]))).unwrap();
    let partial = response.into_inner().partial_success.unwrap();
    assert_eq!(partial.rejected_log_records, 1);
    assert_eq!(partial.error_message, "1 of 2 log records rejected; first: trace_id: must be 16 bytes, got 3");
}

#[test]
fn a_pipeline_that_cannot_take_records_is_unavailable_with_retry_info() {
    for behaviour in [Behaviour::Full, Behaviour::Fail, Behaviour::Closed, Behaviour::Hold] {
        let ack_timeout_ms = if behaviour == Behaviour::Hold { 1 } else { 8_000 };
        let servers = Servers::with(OtlpConfig { ack_timeout_ms, ..OtlpConfig::default() }, behaviour);
        let mut client = LogsServiceClient::new(servers.channel());
        let status = servers.runtime.block_on(client.export(request(vec![record("a")]))).unwrap_err();
        assert_eq!(status.code(), Code::Unavailable);
        let retry_info = status.get_error_details().retry_info().cloned().unwrap();
        assert_eq!(retry_info.retry_delay.unwrap().as_secs(), 1);
    }
}

#[test]
fn an_undecodable_call_is_an_invalid_argument() {
    let servers = Servers::start(Behaviour::Accept);
    let whole = request(vec![record("a")]).encode_to_vec();
    let cut_gzip = gzip(&whole)[..15].to_vec();
    let two = [framed(0, &whole), framed(0, &whole)].concat();
    let cases: [(&str, &[(&str, &str)], bytes::Bytes); 8] = [
        ("garbage", &[GRPC], framed(0, b"not protobuf")),
        ("cut message", &[GRPC], framed(0, &whole[..whole.len() - 1])),
        ("cut frame", &[GRPC], framed(0, &whole).slice(..9)),
        ("no message", &[GRPC], bytes::Bytes::new()),
        ("two messages", &[GRPC], two.into()),
        ("strange flag", &[GRPC], framed(7, &whole)),
        ("flag without encoding", &[GRPC], framed(1, &gzip(&whole))),
        ("cut gzip", &[GRPC, ("grpc-encoding", "gzip")], framed(1, &cut_gzip)),
    ];
    for (name, headers, body) in cases {
        let response = servers.raw_call(LOGS_CALL, headers, body);
        assert_eq!(status_of(&response).code(), Code::InvalidArgument, "{name}");
    }
    // Compression is of the message, not of the call: an encoding may be named and not used.
    let response = servers.raw_call(LOGS_CALL, &[GRPC, ("grpc-encoding", "zstd")], framed(0, &whole));
    assert_eq!(response.status(), 200);
    assert_eq!(servers.pipeline.take().len(), 1);
}

#[test]
fn unknown_methods_encodings_and_content_types_are_refused() {
    let servers = Servers::start(Behaviour::Accept);
    let whole = framed(0, &request(vec![record("a")]).encode_to_vec());
    let response =
        servers.raw_call("/opentelemetry.proto.collector.logs.v1.LogsService/Import", &[GRPC], whole.clone());
    assert_eq!(status_of(&response).code(), Code::Unimplemented);
    let response = servers.raw_call(LOGS_CALL, &[GRPC, ("grpc-encoding", "snappy")], whole.clone());
    assert_eq!(status_of(&response).code(), Code::Unimplemented);
    assert_eq!(response.headers()["grpc-accept-encoding"], "identity,gzip,zstd");
    let response = servers.raw_call(LOGS_CALL, &[("content-type", "application/json")], whole);
    assert_eq!(response.status(), 415);
}

#[test]
fn a_message_above_the_cap_is_exhausted_without_retry_info() {
    let config = OtlpConfig { max_request_bytes: 100_000, ..OtlpConfig::default() };
    let servers = Servers::with(config, Behaviour::Accept);
    let huge = request(vec![record(&"x".repeat(1_000_000))]).encode_to_vec();
    for (headers, body) in [
        (&[GRPC][..], framed(0, &huge)),
        (&[GRPC, ("grpc-encoding", "gzip")], framed(1, &gzip(&huge))),
        (&[GRPC, ("grpc-encoding", "zstd")], framed(1, &zstd(&huge))),
    ] {
        let status = status_of(&servers.raw_call(LOGS_CALL, headers, body));
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert!(status.get_error_details().retry_info().is_none());
    }
}

#[test]
fn a_stop_waits_for_the_call_in_flight() {
    let mut servers = Servers::start(Behaviour::Hold);
    let mut client = LogsServiceClient::new(servers.channel());
    let call = servers.runtime.spawn(async move { client.export(request(vec![record("a")])).await });
    let held = servers.held.recv().unwrap();
    servers.tell_to_stop();
    held.ack.done();
    servers.runtime.block_on(call).unwrap().unwrap();
    servers.join().unwrap();
}

#[test]
fn an_address_that_is_taken_is_an_error_that_names_the_key() {
    let servers = Servers::start(Behaviour::Accept);
    let taken = servers.url("")["http://".len()..].to_owned();
    let mut config = common::free_ports(OtlpConfig::default());
    config.http.endpoint.clone_from(&taken);
    let error = servers.runtime.block_on(OtlpServers::bind(config)).unwrap_err();
    assert_eq!(error.to_string(), format!("cannot listen on {taken:?} (ingest.otlp.http.endpoint)"));
}

#[test]
fn each_listener_can_be_turned_off_and_wrong_values_name_their_key() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut config = common::free_ports(OtlpConfig::default());
    config.grpc.endpoint.clear();
    let servers = runtime.block_on(OtlpServers::bind(config)).unwrap();
    assert!(servers.grpc_addr().is_none() && servers.http_addr().is_some());
    let config = OtlpConfig { max_inflight_bytes: 1, ..common::free_ports(OtlpConfig::default()) };
    let error = runtime.block_on(OtlpServers::bind(config)).unwrap_err();
    assert!(error.to_string().starts_with("ingest.otlp.max_inflight_bytes: "), "{error}");
    let wrong = serde_json::from_str::<OtlpConfig>(r#"{"grpc":{"endpont":"x"}}"#).unwrap_err();
    assert!(wrong.to_string().contains("endpont"), "{wrong}");
}
