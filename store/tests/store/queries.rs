//! SQL over all tables, and its limits.

use faultline_core::{Alert, Classified, Domain};
use faultline_store::{AlertFilter, Store, StoreConfig, StoreError};
use serde_json::json;

use crate::fixtures::{alert, files, incident, logs, metric, one, open, open_small, rows, spans, template};

#[test]
fn every_table_exists_in_an_empty_store_and_has_no_rows() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    assert_eq!(store.next_record_id(), 1);
    for table in ["logs", "log_records", "spans", "metrics", "templates", "alerts", "incidents", "feedback"] {
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
        "SELECT 1 / (record_id - record_id) FROM logs".into(),
        "SELECT CAST(body AS BIGINT) FROM logs".into(),
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
    let config = StoreConfig { query_timeout_ms: 200, ..StoreConfig::default() };
    let store = Store::open(dir.path(), config).expect("opens");
    for endless in [
        "SELECT count(*) FROM generate_series(1, 100000000000) WHERE value % 7 = 8",
        "SELECT sum(a.value * b.value) FROM generate_series(1, 10000) a, generate_series(1, 100000000) b",
    ] {
        let error = store.query(endless).expect_err("too slow");
        assert!(matches!(error, StoreError::QueryTimeout { limit_ms: 200 }), "{error:?}");
    }
    drop(store);
    let config = StoreConfig { query_memory_bytes: 1 << 20, ..StoreConfig::default() };
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
