//! A person's verdict on an alert, from REST to the detectors of a running service and of the next one.

use faultline_core::{AlertId, Feedback, Verdict};
use faultline_store::{Store, StoreConfig};
use opentelemetry_proto::tonic::{
    collector::logs::v1::{ExportLogsServiceRequest, logs_service_client::LogsServiceClient},
    common::v1::any_value,
};
use serde_json::{Value, json};

use crate::{
    service::Service,
    telemetry::{SETTINGS, sessions},
};

fn export(service: &Service, request: ExportLogsServiceRequest) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut client =
            LogsServiceClient::connect(format!("http://{}", service.otlp_grpc)).await.expect("the receiver listens");
        client.export(request).await.expect("accepted");
    });
}

/// The same sessions with another line that nobody knows in the odd one.
fn reworded(mut request: ExportLogsServiceRequest) -> ExportLogsServiceRequest {
    let records = request.resource_logs[0].scope_logs[0].log_records.iter_mut();
    for value in records.filter_map(|record| record.body.as_mut()?.value.as_mut()) {
        if let any_value::Value::StringValue(body) = value
            && body.contains("malformed")
        {
            *body = "warehouse refuses connections until further notice".into();
        }
    }
    request
}

/// Alerts for unknown templates, the latest first, once there are `n` of them.
fn alerts(service: &Service, n: usize) -> Vec<Value> {
    service.wait_for("an alert", |service| {
        let alerts = service.get("/api/v1/alerts?detector=new-template");
        alerts["items"].as_array().filter(|items| items.len() >= n).cloned()
    })
}

fn link(alert: &Value) -> String {
    format!("/api/v1/alerts/{}", alert["id"].as_str().expect("an id"))
}

/// What came of the verdict on an alert, once the detectors have seen it.
fn applied(service: &Service, alert: &Value) -> Value {
    service.wait_for("an applied verdict", |service| {
        let feedback = service.get(&link(alert))["feedback"].clone();
        (feedback["applied"] == true).then_some(feedback)
    })
}

#[test]
fn a_false_alert_is_not_raised_again_and_a_restart_applies_what_waits() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let service = Service::start(dir.path(), SETTINGS);
    export(&service, sessions(0, 100, None));
    export(&service, sessions(100, 40, Some(120)));
    let first = alerts(&service, 1).remove(0);
    let said = json!({"verdict": "false_positive", "comment": "they renew it by hand", "by": "ann"});
    let kept = service.post(&format!("{}/feedback", link(&first)), &said);
    assert_eq!((&kept["verdict"], &kept["by"]), (&said["verdict"], &said["by"]), "{kept}");
    let feedback = applied(&service, &first);
    assert_eq!(feedback["learned"], 1, "{feedback}");

    // The same line again, and then another one.
    export(&service, sessions(140, 40, Some(160)));
    export(&service, reworded(sessions(180, 40, Some(200))));
    let all = alerts(&service, 2);
    let (second, rest) = all.split_first().expect("two alerts");
    assert_eq!(rest.len(), 1, "the accepted line is no news: {all:?}");
    assert_eq!(rest[0]["id"], first["id"]);
    let lines = service.get(&link(second))["lines"].clone();
    assert!(lines.to_string().contains("warehouse refuses"), "{lines}");
    let judged = service.get("/api/v1/alerts?verdict=false_positive");
    assert_eq!(judged["items"].as_array().expect("items").len(), 1, "{judged}");
    assert_eq!(service.stop(), 143);

    let store = Store::open(dir.path(), StoreConfig::default()).expect("nobody else holds it");
    let id: AlertId = second["id"].as_str().expect("an id").parse().expect("an id");
    let feedback = Feedback {
        alert: id,
        verdict: Verdict::FalsePositive,
        comment: String::new(),
        by: String::new(),
        time_unix_nano: 1,
        outcome: None,
    };
    store.put_feedback(&feedback).expect("written");
    drop(store);
    let service = Service::start(dir.path(), SETTINGS);
    assert_eq!(service.get(&link(second))["feedback"]["applied"], false, "there is no model yet");
    export(&service, sessions(300, 100, None));
    let feedback = applied(&service, second);
    assert!(feedback["learned"].as_u64().is_some_and(|n| n >= 1), "{feedback}");
    assert_eq!(service.get(&link(&first))["feedback"]["learned"], 1, "what was applied before stays as it is");
    assert_eq!(service.stop(), 143);
}
