//! OTLP over real sockets into `faultline run`: what is acknowledged is in Parquet and countable by SQL.

use opentelemetry_proto::tonic::{
    collector::metrics::v1::{ExportMetricsServiceRequest, metrics_service_client::MetricsServiceClient},
    common::v1::{AnyValue, KeyValue, any_value},
    metrics::v1::{Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, metric, number_data_point},
    resource::v1::Resource,
};
use serde_json::Value;

use crate::service::Service;

const SECOND: u64 = 1_000_000_000;
const START: u64 = 1_790_000_000 * SECOND;

fn text(value: &str) -> AnyValue {
    AnyValue { value: Some(any_value::Value::StringValue(value.into())) }
}

fn resource(service: &str) -> Option<Resource> {
    let attributes = vec![KeyValue { key: "service.name".into(), value: Some(text(service)), ..KeyValue::default() }];
    Some(Resource { attributes, ..Resource::default() })
}

#[test]
fn metrics_are_kept_and_the_service_reports_on_itself() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let service = Service::start(dir.path(), &[]);
    assert_ne!(service.otlp_grpc, service.otlp_http, "two receivers, two free ports");
    let point = NumberDataPoint {
        time_unix_nano: START,
        value: Some(number_data_point::Value::AsInt(i64::MAX)),
        ..NumberDataPoint::default()
    };
    let metric = Metric {
        name: "queue.depth".into(),
        data: Some(metric::Data::Gauge(Gauge { data_points: vec![point] })),
        ..Metric::default()
    };
    let scope_metrics = vec![ScopeMetrics { metrics: vec![metric], ..ScopeMetrics::default() }];
    let request = ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: resource("shop"),
            scope_metrics,
            ..ResourceMetrics::default()
        }],
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut client =
            MetricsServiceClient::connect(format!("http://{}", service.otlp_grpc)).await.expect("the receiver listens");
        client.export(request).await.expect("accepted");
    });
    let rows = service.wait_for("the metric point in SQL", |service| {
        let rows = service.query("SELECT name, value_int FROM metrics");
        (!rows.is_empty()).then_some(rows)
    });
    assert_eq!(rows, [[Value::from("queue.depth"), Value::from(i64::MAX)]], "all 64 bits");

    let url = format!("http://{}/metrics", service.api);
    let page = ureq::get(&url).call().expect("metrics").body_mut().read_to_string().expect("text");
    assert!(page.contains("faultline_receiver_accepted_metric_points_total"), "{page}");
    assert!(page.contains("faultline_build_info"), "{page}");
    assert_eq!(service.get("/readyz")["status"], "ready");
    assert_eq!(service.stop(), 143);
}

#[test]
fn two_processes_do_not_share_a_data_directory() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let service = Service::start(dir.path(), &[]);
    let second = std::process::Command::new(env!("CARGO_BIN_EXE_faultline"))
        .args(["run", "--set", "api.endpoint=127.0.0.1:0", "--set", "ingest.otlp.grpc.endpoint=127.0.0.1:0"])
        .args(["--set", "ingest.otlp.http.endpoint=127.0.0.1:0", "--data-dir"])
        .arg(dir.path())
        .output()
        .expect("the binary runs");
    assert!(!second.status.success());
    let message = String::from_utf8_lossy(&second.stderr);
    assert!(message.contains("another faultline"), "{message}");
    service.kill();
}
