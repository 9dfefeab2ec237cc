//! OTLP over real sockets into `faultline run`: what is acknowledged is in Parquet, countable by SQL, and an anomaly in it
//! is an alert that can be queried.

use opentelemetry_proto::tonic::{
    collector::{
        logs::v1::{ExportLogsServiceRequest, logs_service_client::LogsServiceClient},
        metrics::v1::{ExportMetricsServiceRequest, metrics_service_client::MetricsServiceClient},
    },
    common::v1::{AnyValue, KeyValue, any_value},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
    metrics::v1::{Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, metric, number_data_point},
    resource::v1::Resource,
};
use prost::Message;
use serde_json::Value;

use crate::service::Service;

const SECOND: u64 = 1_000_000_000;
const START: u64 = 1_790_000_000 * SECOND;

fn text(value: &str) -> AnyValue {
    AnyValue { value: Some(any_value::Value::StringValue(value.into())) }
}

fn resource(service: &str, version: &str) -> Option<Resource> {
    let attribute = |key: &str, value| KeyValue { key: key.into(), value: Some(text(value)), ..KeyValue::default() };
    let attributes = vec![attribute("service.name", service), attribute("service.version", version)];
    Some(Resource { attributes, ..Resource::default() })
}

/// One request of `n` sessions of four steps each, one a second from `first`; session `odd` has a step nobody knows.
pub fn sessions(first: u64, n: u64, odd: Option<u64>) -> ExportLogsServiceRequest {
    let mut log_records = Vec::new();
    for idx in first..first + n {
        let mut trace_id = vec![0; 16];
        trace_id[8..].copy_from_slice(&(idx + 1).to_be_bytes());
        let mut steps = vec![
            format!("accepted order {idx} from customer {}", idx * 7),
            format!("reserved {} items for order {idx}", idx % 5 + 1),
            format!("charged {}.{:02} to card of customer {}", idx % 90 + 1, idx % 100, idx * 7),
            format!("order {idx} done in {} ms", idx % 40 + 3),
        ];
        if odd == Some(idx) {
            steps[2] = "payment provider returned malformed certificate chain, giving up".into();
        }
        for (step, body) in (0_u64..).zip(steps) {
            log_records.push(LogRecord {
                time_unix_nano: START + idx * SECOND + step * 5_000_000,
                body: Some(text(&body)),
                severity_number: if body.contains("malformed") { 17 } else { 9 },
                trace_id: trace_id.clone(),
                ..LogRecord::default()
            });
        }
    }
    let scope_logs = vec![ScopeLogs { log_records, ..ScopeLogs::default() }];
    ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs { resource: resource("shop", "1.0"), scope_logs, ..ResourceLogs::default() }],
    }
}

/// A warm-up that a test can fill: 60 sessions.
pub const SETTINGS: &[&str] =
    &["detection.warm_up.sessions=60", "windowing.session_gap_ms=3000", "alerting.significance=0.01"];

#[test]
fn an_anomaly_sent_over_otlp_becomes_an_alert_with_its_raw_lines() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let service = Service::start(dir.path(), SETTINGS);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut client =
            LogsServiceClient::connect(format!("http://{}", service.otlp_grpc)).await.expect("the receiver listens");
        client.export(sessions(0, 100, None)).await.expect("accepted");
        client.export(sessions(100, 40, Some(120))).await.expect("accepted");
    });
    // A client whose runtime stands still keeps its connection open for ever.
    drop(runtime);

    service.wait_for("every acknowledged record in SQL", |service| {
        let counted = service.query("SELECT count(*) FROM logs WHERE service_name = 'shop'");
        (counted[0][0] == 560).then_some(())
    });

    let alert = service.wait_for("an alert", |service| {
        let alerts = service.get("/api/v1/alerts?detector=new-template");
        alerts["items"].as_array().and_then(|items| items.first().cloned())
    });
    assert_eq!(alert["service"], "shop");
    let whole = service.get(&format!("/api/v1/alerts/{}", alert["id"].as_str().expect("an id")));
    let lines = whole["lines"].as_array().expect("the raw lines");
    let culprit = lines.iter().find(|line| line["culprit"] == Value::Bool(true)).expect("one line is the culprit");
    assert!(culprit["raw"].as_str().expect("text").contains("malformed certificate chain"), "{culprit}");

    let templates = service.get("/api/v1/templates");
    let texts: Vec<&str> =
        templates["items"].as_array().expect("templates").iter().filter_map(|t| t["text"].as_str()).collect();
    assert_eq!(texts.len(), 5, "{texts:?}");

    assert_eq!(service.stop(), 143, "SIGTERM drains and says so");

    // A restart goes on where it was: nothing lost, no number used twice.
    let service = Service::start(dir.path(), SETTINGS);
    assert_eq!(service.query("SELECT count(*), count(DISTINCT record_id) FROM logs")[0], [560, 560]);
    let body = sessions(200, 1, None).encode_to_vec();
    let response = ureq::post(&format!("http://{}/v1/logs", service.otlp_http))
        .header("content-type", "application/x-protobuf")
        .send(&body[..])
        .expect("accepted over HTTP");
    assert_eq!(response.status(), 200);
    service.wait_for("the new records", |service| {
        (service.query("SELECT count(*), count(DISTINCT record_id) FROM logs")[0] == [564, 564]).then_some(())
    });
    assert_eq!(service.stop(), 143);
}

#[test]
fn metrics_are_kept_and_the_service_reports_on_itself() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let service = Service::start(dir.path(), &[]);
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
            resource: resource("shop", "1.0"),
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
    drop(runtime);
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

#[test]
fn a_deploy_that_rewords_its_lines_is_told_of_once() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let service = Service::start(dir.path(), SETTINGS);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut client =
            LogsServiceClient::connect(format!("http://{}", service.otlp_grpc)).await.expect("the receiver listens");
        client.export(sessions(0, 100, None)).await.expect("accepted");
    });
    service.wait_for("the end of the warm-up", |service| {
        let detectors = service.get("/api/v1/detectors");
        let items = detectors["items"].as_array().expect("items");
        items.iter().any(|item| item["name"] == "ensemble").then_some(())
    });
    runtime.block_on(async {
        let mut client =
            LogsServiceClient::connect(format!("http://{}", service.otlp_grpc)).await.expect("the receiver listens");
        let mut reworded = sessions(100, 60, None);
        let logs = &mut reworded.resource_logs[0];
        logs.resource = resource("shop", "1.1");
        for record in &mut logs.scope_logs[0].log_records {
            let body = match record.body.as_ref().and_then(|body| body.value.as_ref()) {
                Some(any_value::Value::StringValue(body)) => body.replace(" to card of", " EUR to the card of"),
                other => panic!("{other:?}"),
            };
            record.body = Some(text(&body));
        }
        client.export(reworded).await.expect("accepted");
    });
    drop(runtime);
    let status = service.wait_for("sixty more sessions judged", |service| {
        let detectors = service.get("/api/v1/detectors");
        // No metrics have come.
        let is_of_logs = |item: &Value| item["name"] != "profile-forecast" && item["name"] != "mahalanobis";
        let judged = |item: &Value| !is_of_logs(item) || item["n_sessions"].as_u64().expect("a number") >= 90;
        detectors["items"].as_array().expect("items").iter().all(judged).then_some(detectors)
    });
    assert_eq!(status["promised_per_day"], 5.0, "{status}");
    let alerts = service.get("/api/v1/alerts");
    let alerts = alerts["items"].as_array().expect("items");
    let of_old_version = alerts.iter().filter(|alert| alert["detector"] != "new-template").count();
    assert_eq!(of_old_version, 0, "the reworded line stands for the old one: {alerts:?}");
    assert!(alerts.len() <= 1, "{alerts:?}");
    assert_eq!(service.stop(), 143);
}
