//! The OpenTelemetry Python SDK, unmodified, over gRPC and over HTTP.
//!
//! Needs a Python with `opentelemetry-sdk` and `opentelemetry-exporter-otlp`: named by `FAULTLINE_PYTHON`, else
//! `python3`. `.ci/run` installs one.

use std::{path::Path, process::Command};

use crate::{service::Service, skipped};

fn python() -> Option<String> {
    let python = std::env::var("FAULTLINE_PYTHON").unwrap_or_else(|_| "python3".into());
    let check = Command::new(&python).args(["-c", "import opentelemetry.exporter.otlp.proto.grpc"]).output().ok()?;
    check.status.success().then_some(python)
}

fn send_and_find(test: &str, transport: &str) {
    let Some(python) = python() else {
        return skipped(test, "Python with opentelemetry-exporter-otlp (FAULTLINE_PYTHON)");
    };
    let dir = tempfile::tempdir().expect("a temporary directory");
    let service = Service::start(
        dir.path(),
        &[
            "detection.warm_up.records=150",
            "windowing.session_gap_ms=500",
            "windowing.allowed_lateness_ms=100",
            "alerting.significance=0.05",
        ],
    );
    let endpoint = if transport == "grpc" { service.otlp_grpc } else { service.otlp_http };
    let script = Path::new("tests/end_to_end/otel_client.py");
    let output = Command::new(python).arg(script).args([transport, &endpoint.to_string()]).output().expect("runs");
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !complaints.contains("Failed to export"), "{complaints}");

    service.wait_for("every log record and span in SQL", |service| {
        let logs = service.query("SELECT count(*) FROM logs WHERE service_name = 'booking'");
        let spans = service.query("SELECT count(*) FROM spans WHERE service_name = 'booking'");
        (logs[0][0] == 270 && spans[0][0] == 180).then_some(())
    });
    let joined = service.query(
        "SELECT count(*) FROM logs JOIN spans ON logs.span_id = spans.span_id WHERE spans.name = 'SELECT rooms'",
    );
    assert_eq!(joined[0][0], 90, "log records carry the span they were written in");

    let alert = service.wait_for("an alert about the corrupted shard", |service| {
        let alerts = service.get("/api/v1/alerts?service=booking&detector=new-template");
        alerts["items"].as_array().and_then(|items| items.first().cloned())
    });
    let whole = service.get(&format!("/api/v1/alerts/{}", alert["id"].as_str().expect("an id")));
    assert!(whole["lines"].to_string().contains("calendar shard corrupted"), "{whole}");
    assert_eq!(service.stop(), 143);
}

#[test]
fn the_python_sdk_over_grpc_is_received_counted_and_judged() {
    send_and_find("the_python_sdk_over_grpc_is_received_counted_and_judged", "grpc");
}

#[test]
fn the_python_sdk_over_http_is_received_counted_and_judged() {
    send_and_find("the_python_sdk_over_http_is_received_counted_and_judged", "http");
}
