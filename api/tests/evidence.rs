//! The records behind an alert over HTTP: spans of an alert on traces, points of one on metrics, and what is gone.

use axum::{
    Router,
    body::Body,
    http::{Request, StatusCode},
};
use faultline_api::{ApiState, Readiness, router};
use faultline_core::{
    Alert, AlertId, AlertState, Batch, Evidence, LogBatchBuilder, LogRecord, MetricBatchBuilder, MetricPoint, RecordId,
    Severity, SpanBatchBuilder, SpanRecord,
};
use faultline_store::{Store, StoreConfig};
use http_body_util::BodyExt;
use metrics_exporter_prometheus::PrometheusBuilder;
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt;

const START: i64 = 1_226_349_309_000_000_000;
const SECOND: i64 = 1_000_000_000;
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

struct Fixture {
    router: Router,
    store: Store,
    _dir: TempDir,
}

/// A store with one log record (1), the two spans of a call (2 and 3) and four metric points (4 to 7).
fn fixture() -> Fixture {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Store::open(dir.path(), StoreConfig::default()).expect("opens");
    let mut logs = LogBatchBuilder::default();
    logs.push(&LogRecord { time_unix_nano: START, body: "cart is full", ..LogRecord::default() });
    store.append(&Batch::Logs(logs.finish().numbered_from(1))).expect("taken");
    store.append(&a_call().numbered_from(2)).expect("taken");
    store.append(&four_points().numbered_from(4)).expect("taken");
    let metrics = PrometheusBuilder::new().build_recorder().handle();
    let state = ApiState { store: store.clone(), readiness: Readiness::default(), metrics, operator: None };
    Fixture { router: router(state), store, _dir: dir }
}

/// The callee comes first, as exporters send them.
fn a_call() -> Batch {
    let mut builder = SpanBatchBuilder::default();
    builder.push(&SpanRecord {
        trace_id: TRACE,
        span_id: "00000000000000bb",
        parent_span_id: "00000000000000aa",
        name: "GetCart",
        kind: 2,
        service_name: "cart",
        start_time_unix_nano: START + 500,
        end_time_unix_nano: START + 700,
        status_code: 2,
        status_message: "out of memory",
        ..SpanRecord::default()
    });
    builder.push(&SpanRecord {
        trace_id: TRACE,
        span_id: "00000000000000aa",
        name: "GET /cart",
        start_time_unix_nano: START,
        end_time_unix_nano: START + SECOND,
        ..SpanRecord::default()
    });
    Batch::Spans(builder.finish())
}

/// An integer sum, a gauge that is not a number, a gauge, and a histogram.
fn four_points() -> Batch {
    let mut builder = MetricBatchBuilder::default();
    builder.push(&MetricPoint {
        name: "http.server.requests",
        unit: "{request}",
        kind: "sum",
        temporality: "cumulative",
        service_name: "cart",
        time_unix_nano: START,
        value_int: Some(i64::MAX),
        attributes: r#"{"route":"/cart","status":200}"#,
        ..MetricPoint::default()
    });
    for (seconds, value) in [(1, f64::NAN), (2, 0.25)] {
        builder.push(&MetricPoint {
            name: "cpu",
            kind: "gauge",
            time_unix_nano: START + seconds * SECOND,
            value_double: Some(value),
            ..MetricPoint::default()
        });
    }
    builder.push(&MetricPoint {
        name: "http.server.request.duration",
        unit: "ms",
        kind: "histogram",
        temporality: "delta",
        service_name: "cart",
        time_unix_nano: START + 3 * SECOND,
        count: Some(7),
        sum: Some(81.5),
        bucket_counts: &[3, 4],
        bounds: &[10.0],
        ..MetricPoint::default()
    });
    Batch::Metrics(builder.finish())
}

impl Fixture {
    /// Keeps an alert on `signal` whose evidence names `records`, the last of them the culprit, and asks for it.
    async fn alert(&self, signal: &str, records: &[RecordId]) -> Value {
        let (status, body) = self.answer(signal, records).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        body
    }

    async fn answer(&self, signal: &str, records: &[RecordId]) -> (StatusCode, Value) {
        let alert = Alert {
            id: AlertId(0x5f00_0000_0000_0001),
            detector: "any".into(),
            model_version: 1,
            signal: signal.into(),
            stream: "cart".into(),
            session: "a key".into(),
            service: "cart".into(),
            severity: Severity::Warning,
            state: AlertState::Firing,
            p_value: 1e-6,
            score: 12.5,
            start_unix_nano: START,
            end_unix_nano: START + SECOND,
            n_windows: 1,
            evidence: Evidence {
                summary: "cart is slow".into(),
                culprit: records.last().copied(),
                records: records.to_vec(),
                ..Evidence::default()
            },
            incident: None,
        };
        self.store.put_alerts(&[alert]).expect("written");
        self.get("/api/v1/alerts/5f00000000000001").await
    }

    async fn get(&self, uri: &str) -> (StatusCode, Value) {
        let request = Request::get(uri).body(Body::empty()).expect("a request");
        let response = self.router.clone().oneshot(request).await.expect("the router cannot fail");
        let status = response.status();
        let bytes = response.into_body().collect().await.expect("a whole body").to_bytes();
        (status, serde_json::from_slice(&bytes).expect("JSON"))
    }
}

#[tokio::test]
async fn an_alert_on_traces_is_shown_with_its_spans() {
    let fixture = fixture();
    for place in ["in memory", "in a segment"] {
        let alert = fixture.alert("traces", &[3, 2]).await;
        assert_eq!((&alert["signal"], &alert["evidence"]["culprit"]), (&json!("traces"), &json!(2)));
        let caller = json!({
            "record_id": 3,
            "trace_id": TRACE,
            "span_id": "00000000000000aa",
            "parent_span_id": null,
            "service": "",
            "name": "GET /cart",
            "kind": "unspecified",
            "start": "2008-11-10T20:35:09.000000000Z",
            "start_unix_nano": START,
            "duration_nanos": SECOND,
            "status_code": "unset",
            "status_message": null,
            "culprit": false,
        });
        let callee = json!({
            "record_id": 2,
            "trace_id": TRACE,
            "span_id": "00000000000000bb",
            "parent_span_id": "00000000000000aa",
            "service": "cart",
            "name": "GetCart",
            "kind": "server",
            "start": "2008-11-10T20:35:09.000000500Z",
            "start_unix_nano": START + 500,
            "duration_nanos": 200,
            "status_code": "error",
            "status_message": "out of memory",
            "culprit": true,
        });
        assert_eq!(alert["spans"], json!([caller, callee]), "{place}: in order of their start");
        assert_eq!((&alert["lines"], &alert["points"]), (&json!([]), &json!([])), "{place}");
        fixture.store.flush().expect("closes");
    }
}

#[tokio::test]
async fn an_alert_on_metrics_is_shown_with_its_points() {
    let fixture = fixture();
    for place in ["in memory", "in a segment"] {
        let alert = fixture.alert("metrics", &[4, 7, 5, 6]).await;
        let points = alert["points"].as_array().expect("points");
        let requests = json!({
            "record_id": 4,
            "time": "2008-11-10T20:35:09.000000000Z",
            "time_unix_nano": START,
            "service": "cart",
            "name": "http.server.requests",
            "unit": "{request}",
            "kind": "sum",
            "temporality": "cumulative",
            "attributes": {"route": "/cart", "status": 200},
            "value": i64::MAX,
            "count": null,
            "sum": null,
            "culprit": false,
        });
        assert_eq!(points[0], requests, "{place}: all digits");
        assert_eq!((&points[1]["record_id"], &points[1]["value"]), (&json!(5), &Value::Null), "{place}: NaN");
        assert_eq!((&points[2]["value"], &points[2]["culprit"]), (&json!(0.25), &json!(true)), "{place}");
        assert_eq!((&points[2]["unit"], &points[2]["temporality"]), (&Value::Null, &Value::Null), "{place}");
        assert_eq!((&points[2]["service"], &points[2]["attributes"]), (&json!(""), &json!({})), "{place}");
        let histogram = &points[3];
        assert_eq!((&histogram["record_id"], &histogram["value"]), (&json!(7), &Value::Null), "{place}");
        assert_eq!((&histogram["count"], &histogram["sum"]), (&json!(7), &json!(81.5)), "{place}");
        assert_eq!(points.len(), 4);
        assert_eq!((&alert["lines"], &alert["spans"]), (&json!([]), &json!([])), "{place}");
        fixture.store.flush().expect("closes");
    }
}

#[tokio::test]
async fn a_metric_that_was_made_of_spans_shows_these() {
    let fixture = fixture();
    let alert = fixture.alert("metrics", &[2]).await;
    assert_eq!(alert["points"], json!([]));
    assert_eq!(alert["spans"][0]["span_id"], json!("00000000000000bb"));
    assert_eq!(alert["spans"][0]["culprit"], json!(true));
}

#[tokio::test]
async fn records_that_are_gone_are_left_out_and_ids_of_other_signals_too() {
    let fixture = fixture();
    let ids = |alert: &Value, of: &str| {
        let records = alert[of].as_array().expect("an array").iter();
        records.map(|record| record["record_id"].as_u64().expect("a number")).collect::<Vec<_>>()
    };
    for (signal, expected) in [("logs", [vec![1], vec![], vec![]]), ("traces", [vec![], vec![2], vec![]])] {
        let alert = fixture.alert(signal, &[1, 2, 4, 404]).await;
        let shown = ["lines", "spans", "points"].map(|of| ids(&alert, of));
        assert_eq!(shown, expected, "{signal}");
        assert_eq!(alert["evidence"]["culprit"], json!(404), "the number is still told");
    }
    let alert = fixture.alert("metrics", &[1, 4, 404]).await;
    assert_eq!((ids(&alert, "points"), ids(&alert, "spans"), ids(&alert, "lines")), (vec![4], vec![], vec![]));
    let alert = fixture.alert("metrics", &[]).await;
    assert_eq!((&alert["points"], &alert["evidence"]["culprit"]), (&json!([]), &Value::Null));
}

#[tokio::test]
async fn a_damaged_segment_of_spans_is_named() {
    let fixture = fixture();
    fixture.store.flush().expect("closes");
    let dir = fixture.store.dir().join("spans");
    let segment = std::fs::read_dir(&dir).expect("listed").next().expect("one").expect("listed").path();
    let size = std::fs::metadata(&segment).expect("there").len();
    std::fs::write(&segment, vec![0; usize::try_from(size).expect("small")]).expect("written");
    let (status, body) = fixture.answer("traces", &[2]).await;
    assert_eq!((status, &body["error"]["code"]), (StatusCode::INTERNAL_SERVER_ERROR, &json!("storage_failed")));
    assert!(body["error"]["message"].as_str().expect("text").contains(".parquet"), "{body}");
    assert_eq!(fixture.answer("metrics", &[4]).await.0, StatusCode::OK, "points are elsewhere");
}

#[tokio::test]
async fn the_documentation_names_every_field_that_is_sent() {
    let fixture = fixture();
    let (_, document) = fixture.get("/api/v1/openapi.json").await;
    let schemas = &document["components"]["schemas"];
    let (logs, traces) = (fixture.alert("logs", &[1]).await, fixture.alert("traces", &[2]).await);
    let metrics = fixture.alert("metrics", &[4]).await;
    for (schema, sent) in [
        ("AlertDetail", &logs),
        ("EvidenceLine", &logs["lines"][0]),
        ("EvidenceSpan", &traces["spans"][0]),
        ("EvidencePoint", &metrics["points"][0]),
    ] {
        let documented = schemas[schema]["properties"].as_object().expect("properties");
        let sent = sent.as_object().expect("an object");
        assert_eq!(documented.keys().collect::<Vec<_>>(), sent.keys().collect::<Vec<_>>(), "{schema}");
        for (name, property) in documented {
            let is_reference = property.to_string().contains("$ref");
            assert!(property["description"].is_string() || is_reference, "{schema}.{name} is not explained");
        }
    }
}
