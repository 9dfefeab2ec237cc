//! The API against a real store: goldens of every answer, filters, paging, errors, documentation, metrics.

use std::sync::{Arc, Mutex};

use arrow::array::UInt64Array;
use axum::{
    Router,
    body::Body,
    http::{Request, Response, StatusCode, header},
};
use faultline_api::{ApiState, Operator, Order, Readiness, install_metrics, router};
use faultline_core::{
    Alert, AlertId, AlertState, Applied, Batch, Cause, CauseKind, DetectorStatus, Evidence, Expected, Incident,
    IncidentId, LogBatchBuilder, LogRecord, ModelState, Severity, ShadowStatus, Template, TemplateId, Verdict,
};
use faultline_store::{Store, StoreConfig};
use http_body_util::BodyExt;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt;

const START: i64 = 1_226_349_309_000_000_000;
const SECOND: i64 = 1_000_000_000;

struct Fixture {
    router: Router,
    store: Store,
    readiness: Readiness,
    orders: Arc<Mutex<Vec<(String, Order)>>>,
    _dir: TempDir,
}

fn handle() -> PrometheusHandle {
    PrometheusBuilder::new().build_recorder().handle()
}

fn fixture() -> Fixture {
    fixture_with(StoreConfig::default(), handle())
}

fn fixture_with(config: StoreConfig, metrics: PrometheusHandle) -> Fixture {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Store::open(dir.path(), config).expect("opens");
    let readiness = Readiness::default();
    let orders: Arc<Mutex<Vec<(String, Order)>>> = Arc::default();
    let taken = Arc::clone(&orders);
    let operator: Operator =
        Arc::new(move |name: &str, order| taken.lock().expect("not poisoned").push((name.to_owned(), order)));
    let router =
        router(ApiState { store: store.clone(), readiness: readiness.clone(), metrics, operator: Some(operator) });
    Fixture { router, store, readiness, orders, _dir: dir }
}

fn alert(n: u64) -> Alert {
    Alert {
        id: AlertId(0x5f00_0000_0000_0000 + n),
        detector: if n.is_multiple_of(2) { "deeplog" } else { "length" }.into(),
        model_version: u64::MAX,
        signal: "logs".into(),
        stream: "hdfs".into(),
        session: format!("blk_{n}"),
        service: if n.is_multiple_of(3) { "cart" } else { "front" }.into(),
        severity: if n.is_multiple_of(2) { Severity::Critical } else { Severity::Info },
        state: if n.is_multiple_of(5) { AlertState::Resolved } else { AlertState::Firing },
        p_value: 1e-9,
        score: 12.5,
        start_unix_nano: START + n.cast_signed() * SECOND,
        end_unix_nano: START + n.cast_signed() * SECOND + 250_000_000,
        n_windows: 3,
        evidence: Evidence {
            summary: "saw `Exception writing block <*>` where `Received block <*>` was expected".into(),
            seen: Some(TemplateId(11)),
            expected: vec![
                Expected { template: TemplateId(10), probability: 0.75 },
                Expected { template: TemplateId(99), probability: 0.25 },
            ],
            culprit: Some(2),
            records: vec![1, 2, 404],
            figures: [("rank".to_owned(), 12.0)].into(),
        },
        incident: None,
    }
}

fn template(id: u64, text: &str) -> Template {
    Template {
        id: TemplateId(id),
        stream: "hdfs".into(),
        text: text.into(),
        lineage: vec![],
        count: id,
        first_seen_unix_nano: START,
        last_seen_unix_nano: START + 1,
    }
}

/// Two records, two templates, twelve alerts, one incident of the first two.
fn filled() -> Fixture {
    let fixture = fixture();
    fill(&fixture.store);
    fixture
}

fn fill(store: &Store) {
    let mut builder = LogBatchBuilder::default();
    builder.push(&LogRecord {
        time_unix_nano: START,
        service_name: "datanode",
        header: "081109 203509 143 INFO dfs.DataNode: ",
        body: "Received block blk_1",
        ..LogRecord::default()
    });
    builder.push(&LogRecord {
        time_unix_nano: START + SECOND,
        body: "Exception writing block blk_1",
        trace_id: "0af7651916cd43dd8448eb211c80319c",
        ..LogRecord::default()
    });
    let templates = Arc::new(UInt64Array::from(vec![10, 11]));
    let batch = builder.finish().with_column("template_id", templates).expect("one a record").numbered_from(1);
    store.append(&Batch::Logs(batch)).expect("taken");
    store
        .put_templates(&[template(10, "Received block <*>"), template(11, "Exception writing block <*>")])
        .expect("written");
    let incident = Incident {
        id: IncidentId(0xabc),
        severity: Severity::Critical,
        state: AlertState::Firing,
        start_unix_nano: START,
        end_unix_nano: START + SECOND,
        alerts: vec![alert(1).id, alert(2).id],
        services: vec!["cart".into(), "front".into()],
        causes: vec![Cause {
            kind: CauseKind::Service,
            name: "cart".into(),
            score: 2.5,
            confidence: 0.8,
            evidence: vec!["self time 41 ms against 9 ms before".into()],
            localizer: "latency".into(),
        }],
        summary: "cart is failing".into(),
    };
    store.publish(&(1..=12).map(alert).collect::<Vec<_>>(), &[incident]).expect("written");
}

async fn send(fixture: &Fixture, request: Request<Body>) -> Response<Body> {
    fixture.router.clone().oneshot(request).await.expect("the router cannot fail")
}

async fn text_of(response: Response<Body>) -> String {
    let bytes = response.into_body().collect().await.expect("a whole body").to_bytes();
    String::from_utf8(bytes.to_vec()).expect("text")
}

async fn get(fixture: &Fixture, uri: &str) -> (StatusCode, Value) {
    let response = send(fixture, Request::get(uri).body(Body::empty()).expect("a request")).await;
    let status = response.status();
    (status, serde_json::from_str(&text_of(response).await).expect("JSON"))
}

async fn ok(fixture: &Fixture, uri: &str) -> Value {
    let (status, body) = get(fixture, uri).await;
    assert_eq!(status, StatusCode::OK, "{uri}: {body}");
    body
}

async fn post(fixture: &Fixture, content_type: &str, body: impl Into<Body>) -> (StatusCode, Value) {
    post_to(fixture, "/api/v1/query", content_type, body).await
}

async fn post_to(fixture: &Fixture, uri: &str, content_type: &str, body: impl Into<Body>) -> (StatusCode, Value) {
    let request = Request::post(uri).header(header::CONTENT_TYPE, content_type).body(body.into());
    let response = send(fixture, request.expect("a request")).await;
    let status = response.status();
    (status, serde_json::from_str(&text_of(response).await).expect("JSON"))
}

async fn sql(fixture: &Fixture, sql: &str) -> (StatusCode, Value) {
    post(fixture, "application/json", json!({ "sql": sql }).to_string()).await
}

#[tokio::test]
async fn an_alert_is_shown_with_its_lines_and_the_texts_of_its_templates() {
    let fixture = filled();
    insta::assert_json_snapshot!("alert", ok(&fixture, "/api/v1/alerts/5f00000000000001").await);
}

#[tokio::test]
async fn a_page_of_alerts() {
    let fixture = filled();
    insta::assert_json_snapshot!("alerts", ok(&fixture, "/api/v1/alerts?limit=1&detector=deeplog").await);
}

#[tokio::test]
async fn incidents_show_their_ranked_causes() {
    let fixture = filled();
    let list = ok(&fixture, "/api/v1/incidents").await;
    insta::assert_json_snapshot!("incidents", list);
    assert_eq!(ok(&fixture, "/api/v1/incidents/0000000000000abc").await, list["items"][0]);
    let alerts = list["items"][0]["links"]["alerts"].as_str().expect("a link");
    assert_eq!(ok(&fixture, alerts).await["items"].as_array().expect("items").len(), 2, "the link works");
}

#[tokio::test]
async fn templates_are_listed_and_searched() {
    let fixture = filled();
    insta::assert_json_snapshot!("templates", ok(&fixture, "/api/v1/templates").await);
    let found = ok(&fixture, "/api/v1/templates?stream=hdfs&text=exception%20WRITING").await;
    assert_eq!(found["items"][0]["id"], json!(11));
    assert_eq!(found["items"].as_array().expect("items").len(), 1);
    assert_eq!(ok(&fixture, "/api/v1/templates?stream=bgl").await, json!({"items": [], "next_cursor": null}));
}

#[tokio::test]
async fn a_query_answers_columns_rows_and_whether_it_was_cut() {
    let fixture = filled();
    let (status, answer) =
        sql(&fixture, "SELECT record_id, time_unix_nano, service_name, body FROM logs ORDER BY record_id").await;
    assert_eq!(status, StatusCode::OK);
    insta::assert_json_snapshot!("query", answer);
    let (_, answer) =
        post(&fixture, "Application/JSON; charset=utf-8", r#"{"sql": "SELECT count(*) AS n FROM alerts"}"#).await;
    assert_eq!(answer, json!({"columns": [{"name": "n", "type": "int64"}], "rows": [[12]], "truncated": false}));
}

#[tokio::test]
async fn every_filter_narrows_and_they_combine() {
    let fixture = filled();
    for (query, expected) in [
        ("", vec![12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1]),
        ("?service=cart", vec![12, 9, 6, 3]),
        ("?severity=info", vec![11, 9, 7, 5, 3, 1]),
        ("?detector=length", vec![11, 9, 7, 5, 3, 1]),
        ("?state=resolved", vec![10, 5]),
        ("?incident=0000000000000abc", vec![2, 1]),
        // START + 11 s, then START + 3 s in another zone, then nanoseconds.
        ("?from=2008-11-10T20:35:20Z", vec![12, 11]),
        ("?to=2008-11-10T22:35:12%2B02:00", vec![2, 1]),
        ("?to=2008-11-10T22:35:12+02:00", vec![2, 1]),
        ("?from=1226349312000000000&to=1226349314000000000", vec![4, 3]),
        ("?service=cart&severity=critical&state=firing", vec![12, 6]),
        ("?service=", vec![]),
    ] {
        let page = ok(&fixture, &format!("/api/v1/alerts{query}")).await;
        let ids = page["items"].as_array().expect("items").iter().map(|alert| alert["id"].as_str().expect("text"));
        let expected: Vec<_> = expected.into_iter().map(|n| alert(n).id.to_string()).collect();
        assert_eq!(ids.collect::<Vec<_>>(), expected, "{query}");
    }
    for (query, n_incidents) in
        [("?service=cart", 1), ("?service=pay", 0), ("?severity=critical&state=firing", 1), ("?to=1", 0)]
    {
        let page = ok(&fixture, &format!("/api/v1/incidents{query}")).await;
        assert_eq!(page["items"].as_array().expect("items").len(), n_incidents, "{query}");
    }
}

#[tokio::test]
async fn following_cursors_to_the_end_gives_the_whole_list() {
    let fixture = filled();
    for route in ["/api/v1/alerts?limit=", "/api/v1/templates?limit=", "/api/v1/incidents?limit="] {
        let whole = ok(&fixture, &format!("{route}1000")).await;
        assert_eq!(whole["next_cursor"], json!(null), "{route}");
        for limit in [1, 5, 6, 12] {
            let (mut items, mut cursor) = (Vec::new(), String::new());
            loop {
                let page = ok(&fixture, &format!("{route}{limit}{cursor}")).await;
                items.extend(page["items"].as_array().expect("items").iter().cloned());
                match page["next_cursor"].as_str() {
                    Some(next) => cursor = format!("&cursor={next}"),
                    None => break,
                }
            }
            assert_eq!(json!(items), whole["items"], "{route}{limit}");
        }
    }
}

#[tokio::test]
async fn a_bad_parameter_is_named_with_what_would_do() {
    let fixture = filled();
    for (uri, expected) in [
        ("/api/v1/alerts?servce=cart", "unknown parameter `servce`; did you mean `service`?"),
        ("/api/v1/alerts?zzz=1", "unknown parameter `zzz`; this route takes service, severity, detector,"),
        ("/api/v1/alerts/5f00000000000001?x=1", "unknown parameter `x`; this route takes none"),
        ("/api/v1/incidents?detector=x", "unknown parameter `detector`"),
        ("/api/v1/alerts?severity=bad", "parameter `severity`: severity `bad` is none of info, warning, critical"),
        ("/api/v1/alerts?state=open", "parameter `state`: `open` is none of firing, resolved"),
        ("/api/v1/alerts?from=yesterday", "parameter `from`: `yesterday` is neither RFC 3339"),
        ("/api/v1/alerts?to=9999-01-01T00:00:00Z", "parameter `to`: `9999-01-01T00:00:00Z` is outside the years"),
        ("/api/v1/alerts?incident=zz", "parameter `incident`: `zz` is not an id"),
        ("/api/v1/alerts?verdict=no", "parameter `verdict`: verdict `no` is none of false_positive, true_positive"),
        ("/api/v1/alerts?limit=0", "parameter `limit`: `0` is not a number from 1 to 1000"),
        ("/api/v1/alerts?limit=1001", "parameter `limit`: `1001` is not"),
        ("/api/v1/alerts?limit=1&limit=2", "parameter `limit`: given more than once"),
        ("/api/v1/alerts?cursor=abc", "cursor `abc` is not one that a page of alerts returned"),
        ("/api/v1/templates?cursor=abc", "cursor `abc` is not one that a page of templates returned"),
    ] {
        let (status, body) = get(&fixture, uri).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{uri}");
        assert_eq!(body["error"]["code"], json!("bad_request"), "{uri}");
        let message = body["error"]["message"].as_str().expect("a message");
        assert!(message.starts_with(expected), "{uri}: {message}");
    }
}

#[tokio::test]
async fn what_does_not_exist_is_404_and_a_wrong_method_405() {
    let fixture = filled();
    for uri in [
        "/api/v1/alerts/ffffffffffffffff",
        "/api/v1/alerts/nonsense",
        "/api/v1/alerts/+f00000000000001",
        "/api/v1/alerts/5f0000000000001",
        "/api/v1/incidents/ffffffffffffffff",
        "/api/v1/templates/404",
        "/api/v1/templates/nonsense",
        "/api/v1/nothing",
    ] {
        let (status, body) = get(&fixture, uri).await;
        assert_eq!((status, &body["error"]["code"]), (StatusCode::NOT_FOUND, &json!("not_found")), "{uri}");
    }
    let response = send(&fixture, Request::post("/api/v1/alerts").body(Body::empty()).expect("a request")).await;
    assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(response.headers()[header::ALLOW], "GET,HEAD");
    let body: Value = serde_json::from_str(&text_of(response).await).expect("JSON");
    assert_eq!(body["error"]["message"], json!("`/api/v1/alerts` does not take POST"));
}

#[tokio::test]
async fn a_bad_query_says_what_is_wrong() {
    let fixture = filled();
    for (statement, expected) in [
        ("SELECT bodi FROM logs", "bodi"),
        ("DROP TABLE logs", "only one reading statement"),
        ("SELECT 1; SELECT 2", "statement"),
        ("", ""),
    ] {
        let (status, body) = sql(&fixture, statement).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{statement}: {body}");
        assert!(body["error"]["message"].as_str().expect("text").contains(expected), "{statement}: {body}");
    }
    for (content_type, body, status) in [
        ("application/json", "{", StatusCode::BAD_REQUEST),
        ("application/json", r#"{"sql": "SELECT 1", "extra": 1}"#, StatusCode::BAD_REQUEST),
        ("application/json", r#"{"query": "SELECT 1"}"#, StatusCode::BAD_REQUEST),
        ("application/x-www-form-urlencoded", "sql=SELECT+1", StatusCode::UNSUPPORTED_MEDIA_TYPE),
        ("text/plain", r#"{"sql": "SELECT 1"}"#, StatusCode::UNSUPPORTED_MEDIA_TYPE),
    ] {
        assert_eq!(post(&fixture, content_type, body).await.0, status, "{content_type} {body}");
    }
    let large = json!({ "sql": "x".repeat(300 << 10) }).to_string();
    let (status, body) = post(&fixture, "application/json", large).await;
    assert_eq!((status, &body["error"]["code"]), (StatusCode::PAYLOAD_TOO_LARGE, &json!("body_too_large")));
}

#[tokio::test]
async fn damage_is_the_servers_fault_and_names_the_file() {
    let fixture = filled();
    fixture.store.flush().expect("closes");
    let dir = fixture.store.dir().join("logs");
    let segment = std::fs::read_dir(&dir).expect("listed").next().expect("one").expect("listed").path();
    let size = std::fs::metadata(&segment).expect("there").len();
    std::fs::write(&segment, vec![0; usize::try_from(size).expect("small")]).expect("written");
    let (status, body) = get(&fixture, "/api/v1/alerts/5f00000000000001").await;
    assert_eq!((status, &body["error"]["code"]), (StatusCode::INTERNAL_SERVER_ERROR, &json!("storage_failed")));
    assert!(body["error"]["message"].as_str().expect("text").contains(".parquet"), "{body}");
}

#[tokio::test]
async fn too_many_queries_are_asked_to_come_back() {
    let config = StoreConfig { query_concurrency: 1, query_timeout_ms: 4_000, ..StoreConfig::default() };
    let fixture = fixture_with(config, handle());
    let slow = "SELECT count(*) FROM generate_series(1, 100000000000) WHERE value % 7 = 8";
    let (first, second) = tokio::join!(sql(&fixture, slow), sql(&fixture, slow));
    let mut statuses = [first.0, second.0];
    statuses.sort();
    assert_eq!(statuses, [StatusCode::BAD_REQUEST, StatusCode::SERVICE_UNAVAILABLE], "{first:?} {second:?}");
}

#[tokio::test]
async fn readiness_follows_what_the_program_says() {
    let fixture = fixture();
    for uri in ["/livez", "/-/healthy"] {
        assert_eq!(ok(&fixture, uri).await, json!({"status": "alive", "reasons": []}));
    }
    fixture.readiness.hold("pipeline", "starting");
    fixture.readiness.hold("detectors", "warming up, 62 %");
    for uri in ["/readyz", "/-/ready"] {
        let (status, body) = get(&fixture, uri).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        let detectors = json!({"component": "detectors", "status": "not_ready", "reason": "warming up, 62 %"});
        let pipeline = json!({"component": "pipeline", "status": "not_ready", "reason": "starting"});
        assert_eq!(body, json!({"status": "not_ready", "reasons": [detectors, pipeline]}));
    }
    fixture.readiness.clear("pipeline");
    assert!(!fixture.readiness.is_ready());
    fixture.readiness.note("detectors", "warming up, 62 %");
    assert!(fixture.readiness.is_ready());
    let body = ok(&fixture, "/readyz").await;
    assert_eq!(body["status"], json!("ready"));
    assert_eq!(body["reasons"][0]["reason"], json!("warming up, 62 %"));
    fixture.readiness.clear("detectors");
    assert_eq!(ok(&fixture, "/-/ready").await, json!({"status": "ready", "reasons": []}));
    assert_eq!(ok(&fixture, "/livez").await["status"], json!("alive"));
}

#[tokio::test]
async fn every_documented_route_is_served_and_every_reference_resolves() {
    let fixture = filled();
    let logsed = DetectorStatus { shadow: Some(shadow()), previous_version: Some(6), ..status("logsed") };
    fixture.store.put_detectors(&[logsed]).expect("written");
    let document = ok(&fixture, "/api/v1/openapi.json").await;
    assert_eq!(document["openapi"], json!("3.1.0"));
    assert_eq!(document["info"]["title"], json!("faultline"));
    let paths = document["paths"].as_object().expect("paths");
    assert_eq!(
        paths.keys().map(String::as_str).collect::<Vec<_>>(),
        [
            "/",
            "/-/healthy",
            "/-/ready",
            "/api/v1/alerts",
            "/api/v1/alerts/{id}",
            "/api/v1/alerts/{id}/feedback",
            "/api/v1/detectors",
            "/api/v1/detectors/{name}/promote",
            "/api/v1/detectors/{name}/rollback",
            "/api/v1/incidents",
            "/api/v1/incidents/{id}",
            "/api/v1/openapi.json",
            "/api/v1/query",
            "/api/v1/templates",
            "/api/v1/templates/{id}",
            "/livez",
            "/metrics",
            "/readyz",
        ]
    );
    for (path, item) in paths {
        for (method, operation) in item.as_object().expect("operations") {
            let id = match path {
                path if path.contains("incidents") => "0000000000000abc",
                path if path.contains("templates") => "10",
                _ => "5f00000000000001",
            };
            let is_verdict = path.ends_with("/feedback");
            let body = if is_verdict { r#"{"verdict": "true_positive"}"# } else { r#"{"sql": "SELECT 1"}"# };
            let uri = path.replace("{id}", id).replace("{name}", "logsed");
            let request = Request::builder().method(method.to_uppercase().as_str()).uri(uri);
            let request = request.header(header::CONTENT_TYPE, "application/json");
            let response = send(&fixture, request.body(Body::from(body)).expect("a request")).await;
            // An order is accepted, everything else is answered.
            let is_order = path.contains("{name}") || is_verdict;
            let status = if is_order { StatusCode::ACCEPTED } else { StatusCode::OK };
            assert_eq!(response.status(), status, "{method} {path}");
            assert_eq!(response.headers()["x-content-type-options"], "nosniff");
            let documented = operation["responses"][status.as_str()]["content"].as_object().expect("content");
            let sent = response.headers()[header::CONTENT_TYPE].to_str().expect("text").to_owned();
            assert!(documented.keys().any(|content_type| sent.starts_with(content_type)), "{path}: {sent}");
        }
    }
    let mut references = Vec::new();
    collect_references(&document, &mut references);
    assert!(references.len() > 10);
    for reference in references {
        let pointer = reference.strip_prefix('#').expect("a local reference");
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
    let parameters = document["paths"]["/api/v1/alerts"]["get"]["parameters"].as_array().expect("parameters");
    for parameter in parameters {
        let name = parameter["name"].as_str().expect("a name");
        assert_eq!((&parameter["in"], &parameter["required"]), (&json!("query"), &json!(false)), "{name}");
        // Documented parameters are taken: a wrong value may be refused, an unknown name may not.
        let (_, body) = get(&fixture, &format!("/api/v1/alerts?{name}=1")).await;
        assert!(!body.to_string().contains("unknown parameter"), "{name}");
    }
    assert_eq!(parameters.len(), 10);
}

fn collect_references(value: &Value, into: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            if let Some(Value::String(reference)) = fields.get("$ref") {
                into.push(reference.clone());
            }
            fields.values().for_each(|value| collect_references(value, into));
        }
        Value::Array(items) => items.iter().for_each(|value| collect_references(value, into)),
        _ => {}
    }
}

#[tokio::test]
async fn the_index_links_to_routes_that_answer() {
    let fixture = filled();
    let index = ok(&fixture, "/").await;
    for (name, link) in index["links"].as_object().expect("links") {
        let response =
            send(&fixture, Request::get(link.as_str().expect("text")).body(Body::empty()).expect("a request")).await;
        assert_ne!(response.status(), StatusCode::NOT_FOUND, "{name}");
    }
}

/// The one test that installs the process-wide recorder.
#[tokio::test]
async fn metrics_are_well_formed_prometheus_text() {
    let handle = install_metrics("1.2.3").expect("nothing is installed yet");
    assert!(install_metrics("1.2.3").is_err(), "a second recorder would count nothing");
    let fixture = fixture_with(StoreConfig::default(), handle);
    fill(&fixture.store);
    fixture.store.flush().expect("closes");
    sql(&fixture, "SELECT 1").await;
    get(&fixture, "/api/v1/alerts/5f00000000000001").await;
    get(&fixture, "/api/v1/alerts/ffffffffffffffff").await;
    get(&fixture, "/a/path/of/a/scanner").await;
    let response = send(&fixture, Request::get("/metrics").body(Body::empty()).expect("a request")).await;
    assert_eq!(response.headers()[header::CONTENT_TYPE], "text/plain; version=0.0.4; charset=utf-8");
    let text = text_of(response).await;
    for line in [
        r#"faultline_build_info{version="1.2.3"} 1"#,
        "# TYPE faultline_store_records_total counter",
        "# TYPE faultline_query_duration_seconds histogram",
        r#"faultline_http_requests_total{route="/api/v1/alerts/{id}",method="GET",status="404"}"#,
        r#"faultline_http_requests_total{route="unknown",method="GET",status="404"}"#,
        r#"faultline_query_duration_seconds_bucket{le="+Inf"}"#,
    ] {
        assert!(text.contains(line), "{line} is missing from\n{text}");
    }
    assert!(!text.contains("scanner"), "paths that callers make up are no labels");
    let mut described = std::collections::BTreeSet::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some(help) = line.strip_prefix("# HELP ") {
            described.insert(help.split(' ').next().expect("a name").to_owned());
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').expect("a name and a kind");
            assert!(described.contains(name), "{name} has no help text");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{name}: counters and only they end in _total");
        } else {
            let (series, value) = line.rsplit_once(' ').expect("a series and a value");
            assert!(value.parse::<f64>().is_ok(), "{line}");
            let name = series.split('{').next().expect("a name");
            assert!(
                name.starts_with("faultline_") && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'),
                "{line}"
            );
        }
    }
}

#[tokio::test]
async fn the_server_answers_on_a_socket_and_stops_when_told() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let fixture = fixture();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = listener.local_addr().expect("bound");
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let server = tokio::spawn(faultline_api::serve(listener, fixture.router.clone(), async move {
        let _ = stopped.await;
    }));
    let mut socket = tokio::net::TcpStream::connect(address).await.expect("connects");
    socket.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.expect("sent");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.expect("received");
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    stop.send(()).expect("still serving");
    server.await.expect("no panic").expect("a clean end");
}

fn shadow() -> ShadowStatus {
    ShadowStatus {
        model_version: 8,
        n_training: 500,
        n_validation: 100,
        abnormal_share: 0.01,
        active_abnormal_share: 0.9,
    }
}

fn status(name: &str) -> DetectorStatus {
    DetectorStatus {
        detector: name.to_owned(),
        model_version: 7,
        state: ModelState::Drifted,
        time_unix_nano: 1_700_000_000_000_000_000,
        n_sessions: 1_000,
        n_alerts: 3,
        sessions_per_day: 8_000.0,
        promised_per_day: Some(2.5),
        alerts_per_day: 4.0,
        false_per_day: 1.5,
        false_discovery_rate: 0.25,
        drift: 0.2,
        merged_share: 0.125,
        shadow: None,
        previous_version: None,
    }
}

#[tokio::test]
async fn detectors_show_what_was_promised_and_what_came() {
    let fixture = fixture();
    let empty = json!({"promised_per_day": 0.0, "alerts_per_day": 0.0, "false_per_day": 0.0, "items": []});
    assert_eq!(ok(&fixture, "/api/v1/detectors").await, empty);
    fixture.store.put_detectors(&[status("logsed"), status("ensemble")]).expect("written");
    let shown = ok(&fixture, "/api/v1/detectors").await;
    assert_eq!((&shown["promised_per_day"], &shown["alerts_per_day"]), (&json!(5.0), &json!(8.0)));
    let first = &shown["items"][0];
    assert_eq!((&first["name"], &first["state"]), (&json!("ensemble"), &json!("drifted")));
    assert_eq!((&first["model_version"], &first["shadow"]), (&json!("0000000000000007"), &Value::Null));
    assert_eq!((&first["merged_share"], &first["confirmed_false"]), (&json!(0.125), &json!(0)));
}

#[tokio::test]
async fn an_operator_promotes_a_shadow_and_rolls_back() {
    let fixture = fixture();
    let with_shadow = DetectorStatus { shadow: Some(shadow()), ..status("logsed") };
    fixture.store.put_detectors(&[with_shadow, status("ensemble")]).expect("written");
    let order = async |path: &str| {
        let response = send(&fixture, Request::post(path).body(Body::empty()).expect("a request")).await;
        let status = response.status();
        let body: Value = serde_json::from_str(&text_of(response).await).expect("JSON");
        (status, body)
    };
    let (code, body) = order("/api/v1/detectors/logsed/promote").await;
    assert_eq!((code, &body["shadow"]["model_version"]), (StatusCode::ACCEPTED, &json!("0000000000000008")));
    let (code, body) = order("/api/v1/detectors/ensemble/promote").await;
    let message = "detector `ensemble`: it has no shadow that could be promoted";
    assert_eq!((code, body), (StatusCode::CONFLICT, json!({"error": {"code": "conflict", "message": message}})));
    assert_eq!(order("/api/v1/detectors/logsed/rollback").await.0, StatusCode::CONFLICT);
    assert_eq!(order("/api/v1/detectors/deeplog/promote").await.0, StatusCode::NOT_FOUND);
    let orders = fixture.orders.lock().expect("not poisoned").clone();
    assert_eq!(orders, [("logsed".to_owned(), Order::Promote)], "only what can be done is ordered");
}

const FEEDBACK: &str = "/api/v1/alerts/5f00000000000001/feedback";

async fn judge(fixture: &Fixture, uri: &str, body: &Value) -> (StatusCode, Value) {
    post_to(fixture, uri, "application/json", body.to_string()).await
}

#[tokio::test]
async fn a_verdict_is_kept_offered_to_the_detectors_and_shown() {
    let fixture = filled();
    assert_eq!(ok(&fixture, "/api/v1/alerts/5f00000000000001").await["feedback"], Value::Null);
    let said = json!({"verdict": "false_positive", "comment": "the nightly backup", "by": "ann"});
    let (code, body) = judge(&fixture, FEEDBACK, &said).await;
    assert_eq!((code, &body["verdict"]), (StatusCode::ACCEPTED, &json!("false_positive")), "{body}");
    assert_eq!((&body["comment"], &body["by"]), (&said["comment"], &said["by"]));
    assert_eq!((&body["applied"], &body["learned"]), (&json!(false), &Value::Null));
    assert!(body["time_unix_nano"].as_i64().expect("a number") > 1_700_000_000 * SECOND, "{body}");
    let orders = fixture.orders.lock().expect("not poisoned").clone();
    assert_eq!(orders, [("5f00000000000001".to_owned(), Order::Judge)]);
    assert_eq!(ok(&fixture, "/api/v1/alerts/5f00000000000001").await["feedback"], body);

    let outcome = Applied { n_learned: 3, note: "length has learned 3 things".into() };
    fixture.store.settle_feedback(alert(1).id, Verdict::FalsePositive, &outcome).expect("written");
    let shown = ok(&fixture, "/api/v1/alerts/5f00000000000001").await["feedback"].clone();
    assert_eq!(
        (&shown["applied"], &shown["learned"], &shown["outcome"]),
        (&json!(true), &json!(3), &json!("length has learned 3 things"))
    );

    judge(&fixture, "/api/v1/alerts/5f00000000000004/feedback", &json!({"verdict": "true_positive"})).await;
    for (query, expected) in [
        ("verdict=false_positive", vec![1]),
        ("verdict=true_positive&severity=critical", vec![4]),
        ("", (1..=12).rev().collect()),
    ] {
        let page = ok(&fixture, &format!("/api/v1/alerts?{query}")).await;
        let ids: Vec<_> = page["items"].as_array().expect("items").iter().map(|item| item["id"].clone()).collect();
        let expected: Vec<_> = expected.into_iter().map(|n: u64| json!(alert(n).id.to_string())).collect();
        assert_eq!(ids, expected, "{query}");
    }
    fixture.store.put_detectors(&[status("length"), status("deeplog")]).expect("written");
    let detectors = ok(&fixture, "/api/v1/detectors").await;
    let confirmed = |idx: usize| {
        let item = &detectors["items"][idx];
        (item["name"].clone(), item["confirmed_false"].clone(), item["confirmed_true"].clone())
    };
    assert_eq!(confirmed(0), (json!("deeplog"), json!(0), json!(1)));
    assert_eq!(confirmed(1), (json!("length"), json!(1), json!(0)));
}

#[tokio::test]
async fn a_bad_verdict_is_refused_and_not_kept() {
    let fixture = filled();
    for (body, expected) in [
        (json!({"verdict": "maybe"}), "maybe"),
        (json!({"comment": "no verdict"}), "verdict"),
        (json!({"verdict": "true_positive", "reason": "x"}), "reason"),
        (json!({"verdict": "true_positive", "comment": "x".repeat(4_097)}), "`comment` has more than 4096 characters"),
        (json!({"verdict": "true_positive", "by": "x".repeat(257)}), "`by` has more than 256 characters"),
    ] {
        let (code, answer) = judge(&fixture, FEEDBACK, &body).await;
        assert_eq!((code, &answer["error"]["code"]), (StatusCode::BAD_REQUEST, &json!("bad_request")), "{answer}");
        assert!(answer["error"]["message"].as_str().expect("text").contains(expected), "{answer}");
    }
    let fits = json!({"verdict": "true_positive", "comment": "ü".repeat(4_096)});
    for id in ["ffffffffffffffff", "nonsense"] {
        let (code, answer) = judge(&fixture, &format!("/api/v1/alerts/{id}/feedback"), &fits).await;
        assert_eq!((code, &answer["error"]["code"]), (StatusCode::NOT_FOUND, &json!("not_found")));
    }
    assert_eq!(post_to(&fixture, FEEDBACK, "text/plain", "x").await.0, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert!(fixture.orders.lock().expect("not poisoned").is_empty());
    assert!(fixture.store.waiting_feedback(10).expect("read").is_empty());
    assert_eq!(judge(&fixture, FEEDBACK, &fits).await.0, StatusCode::ACCEPTED, "characters count, not bytes");
}

#[tokio::test]
async fn without_detectors_a_verdict_waits_for_the_next_run_and_a_reader_takes_none() {
    let fixture = filled();
    let without = |store: Store| {
        let state = ApiState { store, readiness: Readiness::default(), metrics: handle(), operator: None };
        Fixture {
            router: router(state),
            store: fixture.store.clone(),
            readiness: Readiness::default(),
            orders: Arc::default(),
            _dir: tempfile::tempdir().expect("a directory"),
        }
    };
    let said = json!({"verdict": "false_positive"});
    let (code, body) = judge(&without(fixture.store.clone()), FEEDBACK, &said).await;
    assert_eq!(code, StatusCode::ACCEPTED);
    assert!(body["outcome"].as_str().expect("text").contains("when faultline runs next"), "{body}");
    assert_eq!(fixture.store.waiting_feedback(10).expect("read").len(), 1);
    let reader = Store::open_for_reading(fixture.store.dir(), StoreConfig::default()).expect("opens");
    let (code, body) = judge(&without(reader), FEEDBACK, &said).await;
    assert_eq!((code, &body["error"]["code"]), (StatusCode::CONFLICT, &json!("conflict")), "{body}");
}

#[tokio::test]
async fn an_old_template_id_gives_the_template_that_took_its_place() {
    let fixture = filled();
    fixture.store.put_templates(&[template(12, "<*> writing block <*>")]).expect("written");
    fixture.store.put_aliases(&[(TemplateId(11), TemplateId(12))]).expect("written");
    let shown = ok(&fixture, "/api/v1/templates/11").await;
    assert_eq!((&shown["id"], &shown["text"]), (&json!(12), &json!("<*> writing block <*>")));
    assert_eq!(shown["aliases"], json!([11]));
    assert_eq!(ok(&fixture, "/api/v1/templates/12").await, shown);
    assert_eq!(ok(&fixture, "/api/v1/templates/10").await["aliases"], json!([]));
    let alert = ok(&fixture, "/api/v1/alerts/5f00000000000001").await;
    assert_eq!(alert["evidence"]["seen"], json!({"template_id": 11, "text": "<*> writing block <*>"}));
    assert_eq!(alert["lines"][1]["attributes"], json!({"log.record.template": "<*> writing block <*>"}));
}
