//! Metrics and spans over real sockets into `faultline run`: what is odd in them is an alert of its service.

use opentelemetry_proto::tonic::{
    collector::{
        metrics::v1::{ExportMetricsServiceRequest, metrics_service_client::MetricsServiceClient},
        trace::v1::{ExportTraceServiceRequest, trace_service_client::TraceServiceClient},
    },
    common::v1::{AnyValue, KeyValue, any_value},
    metrics::v1::{Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, metric, number_data_point},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span},
};
use serde_json::Value;

use crate::service::Service;

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;
const START: u64 = 1_790_000_000 * SECOND;

fn resource(service: &str) -> Option<Resource> {
    let value = Some(AnyValue { value: Some(any_value::Value::StringValue(service.into())) });
    let attributes = vec![KeyValue { key: "service.name".into(), value, ..KeyValue::default() }];
    Some(Resource { attributes, ..Resource::default() })
}

/// Something between 0 and 1 that differs from number to number.
fn wobble(number: u64) -> f64 {
    (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as f64 / (1 << 24) as f64
}

/// A trace a second from `first` on: the gateway calls the stock, which takes about `stock_ms`.
fn traces(first: u64, n: u64, stock_ms: f64) -> ExportTraceServiceRequest {
    let mut by_service = [("gateway", Vec::new()), ("stock", Vec::new())];
    for idx in first..first + n {
        let start = START + idx * SECOND;
        let own = (stock_ms * (1.0 + 0.2 * wobble(idx)) * MS as f64) as u64;
        let span = |id: u8, name: &str, kind: i32, start: u64, end: u64| Span {
            trace_id: u128::from(idx + 1).to_be_bytes().to_vec(),
            span_id: vec![id; 8],
            parent_span_id: if id == 1 { Vec::new() } else { vec![id - 1; 8] },
            name: name.into(),
            kind,
            start_time_unix_nano: start,
            end_time_unix_nano: end,
            ..Span::default()
        };
        by_service[0].1.push(span(1, "GET /", 2, start, start + own + 8 * MS));
        by_service[0].1.push(span(2, "call stock", 3, start + 3 * MS, start + own + 5 * MS));
        by_service[1].1.push(span(3, "look up", 2, start + 4 * MS, start + own + 4 * MS));
    }
    let resource_spans = by_service.into_iter().map(|(service, spans)| ResourceSpans {
        resource: resource(service),
        scope_spans: vec![ScopeSpans { spans, ..ScopeSpans::default() }],
        ..ResourceSpans::default()
    });
    ExportTraceServiceRequest { resource_spans: resource_spans.collect() }
}

/// Points of a gauge of the stock, ten seconds apart; one of them is far off.
fn gauge(n: u64, odd: u64) -> ExportMetricsServiceRequest {
    let data_points = (0..n).map(|idx| NumberDataPoint {
        time_unix_nano: START + idx * 10 * SECOND,
        value: Some(number_data_point::Value::AsDouble(if idx == odd { 900.0 } else { 50.0 + wobble(idx) })),
        ..NumberDataPoint::default()
    });
    let data = Some(metric::Data::Gauge(Gauge { data_points: data_points.collect() }));
    let metrics = vec![Metric { name: "queue.depth".into(), data, ..Metric::default() }];
    let scope_metrics = vec![ScopeMetrics { metrics, ..ScopeMetrics::default() }];
    let resource_metrics =
        vec![ResourceMetrics { resource: resource("stock"), scope_metrics, ..ResourceMetrics::default() }];
    ExportMetricsServiceRequest { resource_metrics }
}

fn alert_of(service: &Service, detector: &str) -> Value {
    service.wait_for(&format!("an alert of {detector}"), |service| {
        let alerts = service.get(&format!("/api/v1/alerts?detector={detector}"));
        alerts["items"].as_array().and_then(|items| items.first().cloned())
    })
}

#[test]
fn a_gauge_that_jumps_is_an_alert_of_its_service() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let service = Service::start(dir.path(), &[]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut client =
            MetricsServiceClient::connect(format!("http://{}", service.otlp_grpc)).await.expect("the receiver listens");
        client.export(gauge(300, 280)).await.expect("accepted");
    });
    drop(runtime);
    let alert = alert_of(&service, "profile-forecast");
    assert_eq!((&alert["service"], &alert["signal"]), (&Value::from("stock"), &Value::from("metrics")));
    let session = alert["session"].as_str().expect("text");
    assert!(session.starts_with("queue.depth"), "{session}");
    assert_eq!(service.get("/readyz")["status"], "ready");
    let url = format!("http://{}/metrics", service.api);
    service.wait_for("the station's counters", |_| {
        let page = ureq::get(&url).call().expect("metrics").body_mut().read_to_string().expect("text");
        page.contains("faultline_series_points_total 300").then_some(())
    });
    assert_eq!(service.stop(), 143);
}

#[test]
fn a_slow_service_is_an_alert_of_its_traces() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let settings = ["detection.warm_up.sessions=1000", "detection.warm_up.span_ms=900000"];
    let service = Service::start(dir.path(), &settings);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut client = runtime.block_on(async {
        TraceServiceClient::connect(format!("http://{}", service.otlp_grpc)).await.expect("the receiver listens")
    });
    runtime.block_on(client.export(traces(0, 1_200, 20.0))).expect("accepted");
    service.wait_for("the detectors of traces", |service| {
        let detectors = service.get("/api/v1/detectors");
        let items = detectors["items"].as_array()?;
        let is_there = |name: &str| items.iter().any(|item| item["name"] == name);
        (is_there("trace-vector") && is_there("service-latency")).then_some(())
    });
    runtime.block_on(client.export(traces(1_200, 120, 20.0))).expect("accepted");
    runtime.block_on(client.export(traces(1_320, 180, 400.0))).expect("accepted");
    runtime.block_on(client.export(traces(1_500, 120, 20.0))).expect("accepted");
    drop((client, runtime));
    for detector in ["trace-vector", "service-latency"] {
        let alert = alert_of(&service, detector);
        assert_eq!((&alert["service"], &alert["signal"]), (&Value::from("stock"), &Value::from("traces")), "{alert}");
    }
    let incident = service.wait_for("an incident", |service| {
        service.get("/api/v1/incidents")["items"].as_array().and_then(|items| items.first().cloned())
    });
    assert!(incident.to_string().contains("stock"), "{incident}");
    assert_eq!(service.stop(), 143);
}
