//! The store as its users see it: what goes in comes out, across segments, restarts, crashes and damage.

use std::{fs, path::Path, sync::Arc};

use arrow::array::{StringArray, UInt64Array};
use faultline_core::{
    Alert, AlertId, AlertState, Batch, Cause, CauseKind, Classified, Domain, Evidence, Expected, Incident, IncidentId,
    LogBatchBuilder, LogRecord, MetricBatchBuilder, MetricPoint, Severity, SpanBatchBuilder, SpanRecord, Template,
    TemplateId,
};
use faultline_store::{AlertFilter, IncidentFilter, MAX_LINES, Store, StoreConfig, StoreError, TemplateFilter};
use serde_json::{Value, json};
use tempfile::TempDir;

const SECOND: i64 = 1_000_000_000;

/// Log records numbered `first..first + n`, one a second, bodies `line <id>`.
fn logs(first: u64, n: u64) -> Batch {
    let mut builder = LogBatchBuilder::default();
    for id in first..first + n {
        let body = format!("line {id}");
        let service_name = if id.is_multiple_of(2) { "cart" } else { "" };
        let (header, trace_id) = if id.is_multiple_of(3) { ("081109 203518 INFO ", "ab") } else { ("", "") };
        builder.push(&LogRecord {
            time_unix_nano: id.cast_signed() * SECOND,
            service_name,
            header,
            body: &body,
            trace_id,
            ..LogRecord::default()
        });
    }
    let templates = UInt64Array::from_iter_values((first..first + n).map(|id| id % 5));
    let batch = builder.finish().with_column("template_id", Arc::new(templates)).expect("one template a record");
    Batch::Logs(batch.numbered_from(first))
}

fn spans(first: u64, n: u64) -> Batch {
    let mut builder = SpanBatchBuilder::default();
    for id in first..first + n {
        builder.push(&SpanRecord {
            trace_id: "0af7651916cd43dd8448eb211c80319c",
            span_id: "b7ad6b7169203331",
            name: "GET /",
            service_name: "front",
            start_time_unix_nano: id.cast_signed() * SECOND,
            end_time_unix_nano: id.cast_signed() * SECOND + 5,
            ..SpanRecord::default()
        });
    }
    Batch::Spans(builder.finish().numbered_from(first))
}

fn metric(first: u64, value_double: f64) -> Batch {
    let mut builder = MetricBatchBuilder::default();
    builder.push(&MetricPoint {
        name: "http.server.duration",
        kind: "histogram",
        value_double: Some(value_double),
        bucket_counts: &[1, 2],
        bounds: &[0.5],
        time_unix_nano: 7,
        ..MetricPoint::default()
    });
    Batch::Metrics(builder.finish().numbered_from(first))
}

fn alert(n: u64, start_seconds: i64) -> Alert {
    Alert {
        id: AlertId(n),
        detector: if n.is_multiple_of(2) { "deeplog" } else { "length" }.into(),
        model_version: u64::MAX - n,
        signal: "logs".into(),
        stream: "hdfs".into(),
        session: format!("blk_{n}"),
        service: if n.is_multiple_of(3) { "cart" } else { "front" }.into(),
        severity: if n.is_multiple_of(2) { Severity::Critical } else { Severity::Info },
        state: if n.is_multiple_of(5) { AlertState::Resolved } else { AlertState::Firing },
        p_value: 1e-9,
        score: 12.5,
        start_unix_nano: start_seconds * SECOND,
        end_unix_nano: start_seconds * SECOND + 1,
        n_windows: 3,
        evidence: Evidence {
            summary: format!("alert {n}"),
            seen: Some(TemplateId(4)),
            expected: vec![Expected { template: TemplateId(2), probability: 0.9 }],
            culprit: Some(3),
            records: vec![2, 3],
            figures: [("rank".to_owned(), 12.0)].into(),
        },
        incident: None,
    }
}

fn incident(n: u64, alerts: &[u64]) -> Incident {
    Incident {
        id: IncidentId(n),
        severity: Severity::Warning,
        state: AlertState::Firing,
        start_unix_nano: n.cast_signed() * SECOND,
        end_unix_nano: n.cast_signed() * SECOND + 9,
        alerts: alerts.iter().copied().map(AlertId).collect(),
        services: vec!["cart".into(), "front".into()],
        causes: vec![Cause {
            kind: CauseKind::Service,
            name: "cart".into(),
            score: 2.0,
            confidence: 0.8,
            evidence: vec!["self time 4 times its median".into()],
            localizer: "latency".into(),
        }],
        summary: "cart is slow".into(),
    }
}

fn template(id: u64, stream: &str, text: &str) -> Template {
    Template {
        id: TemplateId(id),
        stream: stream.into(),
        text: text.into(),
        lineage: vec![text.replace("<*>", "5")],
        count: 10,
        first_seen_unix_nano: 100,
        last_seen_unix_nano: 200,
    }
}

fn open(dir: &Path) -> Store {
    Store::open(dir, StoreConfig::default()).expect("opens")
}

fn open_small(dir: &Path, segment_max_rows: usize) -> Store {
    Store::open(dir, StoreConfig { segment_max_rows, ..StoreConfig::default() }).expect("opens")
}

fn rows(store: &Store, sql: &str) -> Vec<Vec<Value>> {
    store.query(sql).unwrap_or_else(|error| panic!("{sql}: {error}")).rows
}

fn one(store: &Store, sql: &str) -> Value {
    rows(store, sql).remove(0).remove(0)
}

fn files(dir: &Path, table: &str) -> Vec<String> {
    let entries = fs::read_dir(dir.join(table)).expect("the table has a directory");
    let mut names: Vec<_> =
        entries.map(|entry| entry.expect("listed").file_name().into_string().expect("plain")).collect();
    names.sort();
    names
}

/// A process that dies: nothing is closed and nothing dropped, but its lock goes.
fn crash(store: Store, dir: &TempDir) -> TempDir {
    let after = tempfile::tempdir().expect("a directory");
    for table in ["logs", "spans", "metrics"] {
        fs::create_dir_all(after.path().join(table)).expect("made");
        for name in files(dir.path(), table) {
            fs::copy(dir.path().join(table).join(&name), after.path().join(table).join(&name)).expect("copied");
        }
    }
    for name in ["faultline.db", "faultline.db-wal"] {
        if dir.path().join(name).exists() {
            fs::copy(dir.path().join(name), after.path().join(name)).expect("copied");
        }
    }
    drop(store);
    after
}

#[test]
fn every_table_exists_in_an_empty_store_and_has_no_rows() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    assert_eq!(store.next_record_id(), 1);
    for table in ["logs", "spans", "metrics", "templates", "alerts", "incidents"] {
        assert_eq!(one(&store, &format!("SELECT count(*) FROM {table}")), json!(0), "{table}");
        let empty = store.query(&format!("SELECT * FROM {table}")).expect("runs");
        assert!(empty.rows.is_empty() && !empty.columns.is_empty() && !empty.truncated, "{table}");
    }
    assert!(store.lines(&[1, 2]).expect("runs").is_empty());
    assert_eq!(store.alerts(&AlertFilter::default()).expect("runs").items, []);
}

#[test]
fn queries_see_open_and_closed_segments_once_each() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open_small(dir.path(), 100);
    for first in (1..=250).step_by(10) {
        store.append(&logs(first, 10)).expect("taken");
    }
    assert_eq!(
        files(dir.path(), "logs")[..2],
        ["00000000000000000001-00000000000000000100.parquet", "00000000000000000101-00000000000000000200.parquet"]
    );
    assert_eq!(
        rows(&store, "SELECT count(*), count(DISTINCT record_id), min(record_id), max(record_id) FROM logs"),
        [[json!(250), json!(250), json!(1), json!(250)]]
    );
    let by_service = "SELECT service_name, count(*) FROM logs GROUP BY 1 ORDER BY 1 NULLS LAST";
    assert_eq!(rows(&store, by_service), [[json!("cart"), json!(125)], [json!(null), json!(125)]]);
    // A filter that statistics can prune, one that they cannot, and a limit below a filter.
    assert_eq!(rows(&store, "SELECT body FROM logs WHERE record_id = 150"), [[json!("line 150")]]);
    assert_eq!(rows(&store, "SELECT record_id FROM logs WHERE body = 'line 249'"), [[json!(249)]]);
    assert_eq!(rows(&store, "SELECT record_id FROM logs WHERE body LIKE '%99' LIMIT 5").len(), 2);
    assert_eq!(
        rows(&store, "SELECT time_unix_nano FROM logs WHERE time_unix_nano < '1970-01-01T00:00:02Z'"),
        [[json!("1970-01-01T00:00:01.000000000Z")]]
    );
    store.flush().expect("closes");
    assert_eq!(files(dir.path(), "logs").len(), 3);
    assert_eq!(one(&store, "SELECT count(DISTINCT record_id) FROM logs"), json!(250));
}

#[test]
fn spans_and_metrics_are_queried_with_their_types() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    store.append(&spans(1, 3)).expect("taken");
    store.append(&metric(4, f64::NAN)).expect("taken");
    store.append(&metric(5, 1.5)).expect("taken");
    for _ in ["open", "closed"] {
        assert_eq!(one(&store, "SELECT sum(duration_nanos) FROM spans WHERE service_name = 'front'"), json!(15));
        let result =
            store.query("SELECT record_id, value_double, bucket_counts, bounds FROM metrics ORDER BY 1").expect("runs");
        assert_eq!(
            result.rows,
            [[json!(4), json!(null), json!([1, 2]), json!([0.5])], [json!(5), json!(1.5), json!([1, 2]), json!([0.5])],]
        );
        let types: Vec<_> = result.columns.iter().map(|column| column.type_name.as_str()).collect();
        assert_eq!(types, ["uint64", "float64", "list<uint64>", "list<float64>"]);
        store.flush().expect("closes");
    }
}

#[test]
fn record_ids_and_records_continue_after_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    store.append(&logs(1, 10)).expect("taken");
    store.append(&spans(11, 5)).expect("taken");
    assert_eq!(store.next_record_id(), 16);
    store.close().expect("closes");
    drop(store);
    let store = open(dir.path());
    assert_eq!(store.next_record_id(), 16, "a clean restart skips none");
    store.append(&logs(16, 4)).expect("taken");
    assert_eq!(one(&store, "SELECT count(*) FROM logs"), json!(14));
    assert_eq!(store.lines(&[3, 18]).expect("found").len(), 2);
}

#[test]
fn a_crash_leaves_no_temporary_file_and_no_id_is_given_out_twice() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    store.append(&logs(1, 10)).expect("taken");
    store.flush().expect("closes");
    store.append(&logs(11, 20_000)).expect("taken");
    store.put_alerts(&[alert(1, 1)]).expect("written");
    assert_eq!(files(dir.path(), "logs").len(), 2, "the open segment is on its way to disk");
    let next = store.next_record_id();
    let dir = crash(store, &dir);
    assert_eq!(files(dir.path(), "logs").len(), 2);
    let store = open(dir.path());
    assert_eq!(files(dir.path(), "logs"), ["00000000000000000001-00000000000000000010.parquet"]);
    assert_eq!(one(&store, "SELECT count(*) FROM logs"), json!(10));
    assert!(store.next_record_id() >= next, "ids of lost records may stand in alerts");
    assert_eq!(store.alert(AlertId(1)).expect("read"), Some(alert(1, 1)));
}

#[test]
fn a_closed_segment_that_is_written_again_is_there_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    for _ in 0..2 {
        store.append(&logs(1, 10)).expect("taken");
        store.flush().expect("closes");
    }
    assert_eq!(one(&store, "SELECT count(*) FROM logs"), json!(10));
}

#[test]
fn one_process_writes_and_others_read_what_is_closed() {
    let dir = tempfile::tempdir().expect("a directory");
    let missing = Store::open_for_reading(dir.path(), StoreConfig::default()).expect_err("nothing there");
    assert!(matches!(missing, StoreError::NoData { .. }), "{missing}");
    let store = open(dir.path());
    store.append(&logs(1, 10)).expect("taken");
    store.flush().expect("closes");
    store.append(&logs(11, 10)).expect("taken");
    let second = Store::open(dir.path(), StoreConfig::default()).expect_err("held");
    assert!(matches!(second, StoreError::InUse { .. }), "{second}");
    let reader = Store::open_for_reading(dir.path(), StoreConfig::default()).expect("opens");
    assert_eq!(one(&reader, "SELECT count(*) FROM logs"), json!(10));
    assert!(matches!(reader.append(&logs(11, 1)), Err(StoreError::ReadOnly)));
    assert!(matches!(reader.put_alerts(&[alert(1, 1)]), Err(StoreError::ReadOnly)));
}

#[test]
fn a_directory_with_an_odd_name_works() {
    let dir = tempfile::tempdir().expect("a directory");
    let odd = dir.path().join("a b%20c [é]#?");
    let store = open(&odd);
    store.append(&logs(1, 10)).expect("taken");
    store.flush().expect("closes");
    assert_eq!(one(&store, "SELECT count(body) FROM logs"), json!(10));
}

#[test]
fn lines_are_found_across_segments_in_order_of_their_ids() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open_small(dir.path(), 1_000);
    for first in (1..=3_500).step_by(500) {
        store.append(&logs(first, 500)).expect("taken");
    }
    let lines = store.lines(&[3_400, 9, 1_001, 9, 99_999, 3_499]).expect("found");
    let ids: Vec<_> = lines.iter().map(|line| line.record_id).collect();
    assert_eq!(ids, [9, 1_001, 3_400, 3_499]);
    assert_eq!(lines[0].raw, "081109 203518 INFO line 9");
    assert_eq!(lines[0].trace_id.as_deref(), Some("ab"));
    assert_eq!(lines[1].raw, "line 1001");
    assert_eq!((lines[1].service.as_str(), lines[2].service.as_str()), ("", "cart"));
    assert_eq!(lines[3].time_unix_nano, 3_499 * SECOND);
    assert_eq!(lines[3].template_id, Some(TemplateId(4)));
    let error = store.lines(&vec![1; MAX_LINES + 1]).expect_err("too many");
    assert_eq!(error.domain(), Domain::User);
}

#[test]
fn a_look_up_in_a_large_segment_reads_past_its_first_row_group() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    store.append(&logs(1, 70_000)).expect("taken");
    store.append(&logs(70_001, 70_000)).expect("taken");
    store.flush().expect("closes");
    let ids = [1, 65_536, 65_537, 70_000, 70_001, 139_999, 140_000];
    let raws: Vec<_> = store.lines(&ids).expect("found").into_iter().map(|line| line.record_id).collect();
    assert_eq!(raws, ids);
}

#[test]
fn unnumbered_records_are_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut builder = LogBatchBuilder::default();
    builder.push(&LogRecord::default());
    let error = open(dir.path()).append(&Batch::Logs(builder.finish())).expect_err("no ids");
    assert!(error.to_string().contains("logs"), "{error}");
}

#[test]
fn small_batches_are_gathered_and_their_columns_survive() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    for id in 1..=1_000 {
        store.append(&logs(id, 1)).expect("taken");
    }
    assert_eq!(one(&store, "SELECT count(DISTINCT body) FROM logs"), json!(1_000));
    store.flush().expect("closes");
    assert_eq!(one(&store, "SELECT count(*) FROM logs WHERE body = 'line ' || record_id"), json!(1_000));
    assert_eq!(one(&store, "SELECT count(*) FROM logs WHERE service_name = 'cart'"), json!(500));
}

#[test]
fn writing_the_same_alerts_again_changes_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    let alerts: Vec<_> = (1..=5).map(|n| alert(n, 10)).collect();
    store.publish(&alerts, &[incident(7, &[1, 2])]).expect("written");
    let before = store.alerts(&AlertFilter::default()).expect("read");
    // A replay knows nothing yet of the incident when it writes the alerts.
    store.put_alerts(&alerts).expect("written");
    store.put_incidents(&[incident(7, &[1, 2])]).expect("written");
    assert_eq!(store.alerts(&AlertFilter::default()).expect("read"), before);
    assert_eq!(store.alert(AlertId(1)).expect("read").expect("there").incident, Some(IncidentId(7)));
    assert_eq!(one(&store, "SELECT count(*) FROM alerts"), json!(5));
    assert_eq!(one(&store, "SELECT count(*) FROM incidents"), json!(1));

    let resolved = Alert { state: AlertState::Resolved, n_windows: 9, ..alert(3, 10) };
    store.put_alerts(std::slice::from_ref(&resolved)).expect("written");
    assert_eq!(store.alert(AlertId(3)).expect("read"), Some(resolved));
}

#[test]
fn a_template_keeps_its_larger_count_and_wider_span() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    store.put_templates(&[template(1, "hdfs", "took <*> ms")]).expect("written");
    let fresh = Template {
        count: 1,
        first_seen_unix_nano: 150,
        last_seen_unix_nano: 250,
        ..template(1, "hdfs", "took <*> <*>")
    };
    store.put_templates(&[fresh]).expect("written");
    let all = store.templates(&TemplateFilter::default()).expect("read").items;
    let merged = Template { last_seen_unix_nano: 250, ..template(1, "hdfs", "took <*> <*>") };
    assert_eq!(all, [merged]);
}

#[test]
fn filters_narrow_alerts() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    let alerts: Vec<_> = (1..=12).map(|n| alert(n, n.cast_signed())).collect();
    store.publish(&alerts, &[incident(7, &[1, 2])]).expect("written");
    let ids = |filter: AlertFilter| -> Vec<u64> {
        store.alerts(&filter).expect("read").items.iter().map(|alert| alert.id.0).collect()
    };
    let all = AlertFilter::default;
    assert_eq!(ids(all()), (1..=12).rev().collect::<Vec<_>>(), "latest first");
    assert_eq!(ids(AlertFilter { service: Some("cart".into()), ..all() }), [12, 9, 6, 3]);
    assert_eq!(ids(AlertFilter { severity: Some(Severity::Info), ..all() }), [11, 9, 7, 5, 3, 1]);
    assert_eq!(ids(AlertFilter { detector: Some("deeplog".into()), ..all() }), [12, 10, 8, 6, 4, 2]);
    assert_eq!(ids(AlertFilter { state: Some(AlertState::Resolved), ..all() }), [10, 5]);
    assert_eq!(ids(AlertFilter { incident: Some(IncidentId(7)), ..all() }), [2, 1]);
    assert_eq!(
        ids(AlertFilter { from_unix_nano: Some(3 * SECOND + 1), to_unix_nano: Some(5 * SECOND), ..all() }),
        [4, 3],
        "an episode that reaches into the interval counts; one that begins at its end does not"
    );
    assert_eq!(
        ids(AlertFilter { service: Some("cart".into()), state: Some(AlertState::Firing), limit: 2, ..all() }),
        [12, 9]
    );
    for limit in [0, 1_001] {
        assert!(matches!(store.alerts(&AlertFilter { limit, ..all() }), Err(StoreError::TooMany { .. })));
    }
}

#[test]
fn paging_returns_each_row_once_while_others_arrive() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    // Equal starts, so that the id has to break ties; some before the epoch.
    let alerts: Vec<_> = (1..=40).map(|n| alert(n, n.cast_signed() / 4 - 5)).collect();
    store.put_alerts(&alerts).expect("written");
    let (mut seen, mut cursor) = (Vec::new(), None);
    loop {
        let filter = AlertFilter { limit: 7, cursor: cursor.take(), ..AlertFilter::default() };
        let page = store.alerts(&filter).expect("read");
        let newest = 1_000 + seen.len() as u64;
        seen.extend(page.items.iter().map(|alert| alert.id.0));
        // Arrives between two pages, at the front.
        store.put_alerts(&[alert(newest, 500)]).expect("written");
        match page.next_cursor {
            Some(next) => cursor = Some(next),
            None => break,
        }
    }
    let mut expected: Vec<_> = (1..=40_u64).collect();
    expected.sort_by_key(|n| (std::cmp::Reverse(n.cast_signed() / 4 - 5), *n));
    assert_eq!(seen, expected);
}

#[test]
fn incidents_are_filtered_and_paged() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    let mut incidents: Vec<_> = (1..=5).map(|n| incident(n, &[n])).collect();
    incidents[2].services = vec!["pay".into()];
    incidents[4].state = AlertState::Resolved;
    store.put_incidents(&incidents).expect("written");
    let ids = |filter: IncidentFilter| -> Vec<u64> {
        store.incidents(&filter).expect("read").items.iter().map(|incident| incident.id.0).collect()
    };
    let all = IncidentFilter::default;
    assert_eq!(ids(all()), [5, 4, 3, 2, 1]);
    assert_eq!(ids(IncidentFilter { service: Some("pay".into()), ..all() }), [3]);
    assert_eq!(ids(IncidentFilter { state: Some(AlertState::Resolved), ..all() }), [5]);
    assert_eq!(ids(IncidentFilter { severity: Some(Severity::Critical), ..all() }), [] as [u64; 0]);
    let first = store.incidents(&IncidentFilter { limit: 3, ..all() }).expect("read");
    assert_eq!(ids(IncidentFilter { cursor: first.next_cursor, ..all() }), [2, 1]);
    assert_eq!(store.incident(IncidentId(3)).expect("read"), Some(incidents[2].clone()));
    assert_eq!(store.incident(IncidentId(9)).expect("read"), None);
}

#[test]
fn templates_are_searched_literally_and_paged_by_stream() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    let templates = [
        template(9, "bgl", "disk 100% full"),
        template(3, "hdfs", "Receiving block <*>"),
        template(1 << 52, "bgl", "disk 100 full"),
        template(2, "hdfs", r"path C:\tmp_1"),
    ];
    store.put_templates(&templates).expect("written");
    let ids = |filter: TemplateFilter| -> Vec<u64> {
        store.templates(&filter).expect("read").items.iter().map(|template| template.id.0).collect()
    };
    let all = TemplateFilter::default;
    assert_eq!(ids(all()), [9, 1 << 52, 2, 3]);
    assert_eq!(ids(TemplateFilter { stream: Some("hdfs".into()), ..all() }), [2, 3]);
    assert_eq!(ids(TemplateFilter { text: Some("100%".into()), ..all() }), [9]);
    assert_eq!(ids(TemplateFilter { text: Some(r"c:\TMP_".into()), ..all() }), [2]);
    let first = store.templates(&TemplateFilter { limit: 1, ..all() }).expect("read");
    assert_eq!(ids(TemplateFilter { cursor: first.next_cursor, ..all() }), [1 << 52, 2, 3]);
    assert_eq!(store.templates_by_id(&[TemplateId(3), TemplateId(77)]).expect("read"), [templates[1].clone()]);
}

#[test]
fn a_foreign_cursor_is_the_callers_mistake() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    for cursor in ["", "s", "x123", "t00", "s00000000000000010000000000000g01", "séééééééééééééééé"] {
        let cursor = Some(cursor.to_owned());
        let error =
            store.alerts(&AlertFilter { cursor: cursor.clone(), ..AlertFilter::default() }).expect_err("foreign");
        assert_eq!(error.domain(), Domain::User, "{error}");
        let error = store.templates(&TemplateFilter { cursor, ..TemplateFilter::default() }).expect_err("foreign");
        assert_eq!(error.domain(), Domain::User, "{error}");
    }
}

#[test]
fn alerts_templates_and_incidents_join_with_records_in_sql() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    store.append(&logs(1, 10)).expect("taken");
    store.put_templates(&[template(4, "hdfs", "line <*>")]).expect("written");
    let strange = Alert { p_value: f64::NAN, ..alert(1, 1) };
    store.publish(&[strange, alert(2, 2)], &[incident(7, &[1])]).expect("written");
    assert_eq!(
        rows(&store, "SELECT t.text, count(*) FROM logs l JOIN templates t ON l.template_id = t.id GROUP BY 1"),
        [[json!("line <*>"), json!(2)]]
    );
    assert_eq!(
        rows(&store, "SELECT id, p_value, model_version, summary, incident, start_unix_nano FROM alerts ORDER BY id"),
        [
            [
                json!("0000000000000001"),
                json!(null),
                json!(u64::MAX - 1),
                json!("alert 1"),
                json!("0000000000000007"),
                json!("1970-01-01T00:00:01.000000000Z")
            ],
            [
                json!("0000000000000002"),
                json!(1e-9),
                json!(u64::MAX - 2),
                json!("alert 2"),
                json!(null),
                json!("1970-01-01T00:00:02.000000000Z")
            ],
        ]
    );
    assert_eq!(
        rows(&store, "SELECT root_cause, alerts, services FROM incidents"),
        [[json!("cart"), json!(["0000000000000001"]), json!(["cart", "front"])]]
    );
    assert_eq!(
        rows(&store, "SELECT unnest(services) AS s FROM incidents ORDER BY s"),
        [[json!("cart")], [json!("front")]]
    );
}

#[test]
fn a_large_state_table_streams_through() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    let templates: Vec<_> = (1..=10_000).map(|id| template(id, "hdfs", "x")).collect();
    store.put_templates(&templates).expect("written");
    assert_eq!(rows(&store, "SELECT count(*), sum(id) FROM templates"), [[json!(10_000), json!(50_005_000)]]);
    assert_eq!(rows(&store, "SELECT id FROM templates LIMIT 3").len(), 3);
}

#[test]
fn only_reading_statements_are_accepted() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    store.append(&logs(1, 3)).expect("taken");
    store.flush().expect("closes");
    let outside = dir.path().join("out.parquet");
    let segment = dir.path().join("logs").join(&files(dir.path(), "logs")[0]);
    for sql in [
        "CREATE TABLE t AS SELECT 1".to_owned(),
        "CREATE VIEW v AS SELECT 1".into(),
        "CREATE DATABASE d".into(),
        format!("CREATE EXTERNAL TABLE e STORED AS PARQUET LOCATION '{}'", segment.display()),
        "DROP TABLE logs".into(),
        "INSERT INTO logs SELECT * FROM logs".into(),
        "INSERT INTO templates SELECT * FROM templates".into(),
        "DELETE FROM logs".into(),
        "UPDATE logs SET body = 'x'".into(),
        "TRUNCATE TABLE logs".into(),
        format!("COPY logs TO '{}'", outside.display()),
        format!("COPY (SELECT 1) TO '{}' STORED AS PARQUET", outside.display()),
        "EXPLAIN ANALYZE INSERT INTO logs SELECT * FROM logs".into(),
        "SET datafusion.execution.batch_size = 1".into(),
        "RESET datafusion.execution.batch_size".into(),
        "PREPARE p AS SELECT 1".into(),
        "BEGIN".into(),
        "SELECT 1; SELECT 2".into(),
        "SELECT 1; DROP TABLE logs".into(),
        format!("SELECT * FROM '{}'", segment.display()),
        "SELEC 1".into(),
        "SELECT nothing FROM logs".into(),
        "SELECT * FROM nothing".into(),
        String::new(),
    ] {
        let error = store.query(&sql).err().unwrap_or_else(|| panic!("{sql} was accepted"));
        assert_eq!(error.domain(), Domain::User, "{sql}: {error:?}");
        assert!(!error.retryable(), "{sql}");
    }
    assert!(!outside.exists());
    assert_eq!(one(&store, "SELECT count(*) FROM logs"), json!(3), "nothing has changed");
    let message = store.query("DROP TABLE logs").expect_err("refused").to_string();
    assert!(message.starts_with("only one reading statement"), "{message}");
    let message = store.query("SELECT bodi FROM logs").expect_err("refused").to_string();
    assert!(message.contains("bodi") && message.contains("body"), "{message}");
    for sql in [
        "SELECT 1",
        "SELECT 1;",
        "WITH x AS (SELECT body FROM logs) SELECT * FROM x",
        "EXPLAIN SELECT * FROM logs",
        "EXPLAIN ANALYZE SELECT count(*) FROM logs",
        "SHOW TABLES",
        "SHOW COLUMNS FROM logs",
        "DESCRIBE logs",
        "VALUES (1), (2)",
        "SELECT 1 UNION ALL SELECT 2",
    ] {
        assert!(!rows(&store, sql).is_empty(), "{sql}");
    }
}

#[test]
fn answers_are_cut_at_the_row_and_byte_limits_and_say_so() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = StoreConfig { query_max_rows: 700, query_max_result_bytes: 20_000, ..StoreConfig::default() };
    let store = Store::open(dir.path(), config).expect("opens");
    store.append(&logs(1, 701)).expect("taken");
    let cut = store.query("SELECT record_id FROM logs ORDER BY record_id").expect("runs");
    assert_eq!((cut.rows.len(), cut.truncated), (700, true));
    assert_eq!(cut.rows[699], [json!(700)]);
    let whole = store.query("SELECT record_id FROM logs WHERE record_id <= 700").expect("runs");
    assert_eq!((whole.rows.len(), whole.truncated), (700, false));
    let wide = store.query("SELECT repeat(body, 50) FROM logs").expect("runs");
    assert!(wide.truncated && wide.rows.len() < 700, "{} rows", wide.rows.len());
}

#[test]
fn a_query_beyond_its_time_or_memory_is_stopped() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = StoreConfig { query_timeout_ms: 200, query_memory_bytes: 1 << 20, ..StoreConfig::default() };
    let store = Store::open(dir.path(), config).expect("opens");
    let endless = "SELECT sum(a.value * b.value) FROM generate_series(1, 10000000) a, generate_series(1, 100000) b";
    let error = store.query(endless).expect_err("too slow or too large");
    assert!(matches!(error, StoreError::QueryTimeout { limit_ms: 200 } | StoreError::QueryMemory { .. }), "{error:?}");
    let slow = "SELECT count(*) FROM generate_series(1, 100000000000) WHERE value % 7 = 8";
    let error = store.query(slow).expect_err("too slow");
    assert!(matches!(error, StoreError::QueryTimeout { limit_ms: 200 }), "{error:?}");
    let config = StoreConfig { query_memory_bytes: 1 << 20, ..StoreConfig::default() };
    drop(store);
    let store = Store::open(dir.path(), config).expect("opens");
    let large = "SELECT value FROM generate_series(1, 10000000) GROUP BY value ORDER BY value";
    let error = store.query(large).expect_err("too large");
    assert!(matches!(error, StoreError::QueryMemory { limit_bytes: 1_048_576, .. }), "{error:?}");
    assert_eq!(one(&store, "SELECT 1"), json!(1), "the store goes on");
}

#[test]
fn too_long_sql_is_refused_unread() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    let error = store.query(&format!("SELECT '{}'", "x".repeat(70_000))).expect_err("too long");
    assert!(matches!(error, StoreError::TooMany { .. }), "{error}");
    // Deep nesting is the parser's to refuse, not the stack's.
    let error = store.query(&format!("SELECT {}1{}", "(".repeat(10_000), ")".repeat(10_000))).expect_err("too deep");
    assert_eq!(error.domain(), Domain::User, "{error:?}");
}

#[test]
fn damage_is_reported_with_the_name_of_the_file() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    store.append(&logs(1, 5_000)).expect("taken");
    store.flush().expect("closes");
    let name = files(dir.path(), "logs").remove(0);
    let segment = dir.path().join("logs").join(&name);
    let whole = fs::read(&segment).expect("read");

    // Zeroes in front of the footer: found when the records are wanted.
    let mut damaged = whole.clone();
    let end = whole.len() - 8;
    let footer_bytes = u32::from_le_bytes(whole[end..end + 4].try_into().expect("four bytes")) as usize;
    damaged[4..end - footer_bytes].fill(0);
    fs::write(&segment, &damaged).expect("written");
    for error in [
        store.lines(&[1, 4_999]).expect_err("damaged"),
        store.query("SELECT max(body) FROM logs").expect_err("damaged"),
    ] {
        assert!(matches!(error, StoreError::Segment { .. }), "{error:?}");
        assert!(error.to_string().contains(&name), "{error}");
        assert_eq!(error.domain(), Domain::External);
    }
    drop(store);

    // Cut short: found when the store opens.
    fs::write(&segment, &whole[..whole.len() / 3]).expect("written");
    let error = Store::open(dir.path(), StoreConfig::default()).expect_err("cut short");
    assert!(error.to_string().contains(&name), "{error}");
    fs::write(&segment, &whole).expect("written");
    drop(open(dir.path()));

    fs::write(dir.path().join("faultline.db"), vec![b'x'; 4_096]).expect("written");
    let _ = fs::remove_file(dir.path().join("faultline.db-wal"));
    let error = Store::open(dir.path(), StoreConfig::default()).expect_err("no database");
    assert!(matches!(error, StoreError::Database { .. }), "{error:?}");
    assert!(error.to_string().contains("faultline.db"), "{error}");
}

#[test]
fn a_database_of_a_newer_faultline_is_left_alone() {
    let dir = tempfile::tempdir().expect("a directory");
    drop(open(dir.path()));
    let connection = rusqlite::Connection::open(dir.path().join("faultline.db")).expect("opens");
    connection.pragma_update(None, "user_version", 99).expect("set");
    drop(connection);
    let error = Store::open(dir.path(), StoreConfig::default()).expect_err("newer");
    assert!(matches!(error, StoreError::SchemaVersion { found: 99, .. }), "{error:?}");
}

#[test]
fn a_damaged_row_is_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    store.put_alerts(&[alert(1, 1)]).expect("written");
    let connection = rusqlite::Connection::open(dir.path().join("faultline.db")).expect("opens");
    connection.execute("UPDATE alerts SET evidence = '{'", []).expect("set");
    let error = store.alert(AlertId(1)).expect_err("damaged").to_string();
    assert!(error.contains("0000000000000001") && error.contains("evidence"), "{error}");
}

#[test]
fn records_that_cannot_be_written_yet_stay_readable() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open_small(dir.path(), 100);
    // A directory that is gone stands for a disk that is full.
    let (table, aside) = (dir.path().join("logs"), dir.path().join("aside"));
    fs::rename(&table, &aside).expect("moved");
    store.append(&logs(1, 100)).expect("taken: the segment fills, its file has to wait");
    let error = store.append(&logs(101, 10)).expect_err("full and not writable");
    assert!(error.retryable(), "{error:?}");
    assert_eq!(one(&store, "SELECT count(*) FROM logs"), json!(100));
    fs::rename(&aside, &table).expect("moved back");
    store.append(&logs(101, 10)).expect("taken now");
    store.flush().expect("closes");
    assert_eq!(rows(&store, "SELECT count(*), count(DISTINCT body) FROM logs"), [[json!(110), json!(110)]]);
}

#[test]
fn readers_and_a_writer_do_not_disturb_each_other() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open_small(dir.path(), 200);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for first in (1..=2_000).step_by(20) {
                store.append(&logs(first, 20)).expect("taken");
                store.put_alerts(&[alert(first, 1)]).expect("written");
            }
        });
        let mut counts = vec![0];
        while !writer.is_finished() {
            let count = one(&store, "SELECT count(*) FROM logs").as_u64().expect("a number");
            let distinct = rows(&store, "SELECT count(*) = count(DISTINCT record_id) FROM logs");
            assert_eq!(distinct, [[json!(true)]], "no record twice");
            counts.push(count);
        }
        assert!(counts.is_sorted(), "a record once visible stays so: {counts:?}");
    });
    assert_eq!(one(&store, "SELECT count(*) FROM logs"), json!(2_000));
    assert_eq!(one(&store, "SELECT count(*) FROM alerts"), json!(100));
}

#[test]
fn a_store_may_be_dropped_inside_an_async_runtime() {
    let dir = tempfile::tempdir().expect("a directory");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let store = open(dir.path());
    runtime.block_on(async move {
        let query = store.clone();
        let rows = tokio::task::spawn_blocking(move || query.query("SELECT 1").expect("runs").rows).await;
        assert_eq!(rows.expect("no panic"), [[json!(1)]]);
        drop(store);
    });
}

#[test]
fn body_text_in_parquet_is_what_other_tools_read() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    store.append(&logs(1, 10)).expect("taken");
    store.flush().expect("closes");
    let path = dir.path().join("logs").join(files(dir.path(), "logs").remove(0));
    let file = fs::File::open(path).expect("opens");
    let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(file).expect("a footer");
    assert_eq!(*reader.schema(), faultline_core::LogBatch::schema());
    let column = reader.metadata().row_group(0).column(0);
    assert!(matches!(column.compression(), parquet::basic::Compression::ZSTD(_)));
    let batch = reader.build().expect("reads").next().expect("a batch").expect("reads");
    let body: &StringArray = batch.column_by_name("body").expect("there").as_any().downcast_ref().expect("text");
    assert_eq!(body.value(9), "line 10");
}
