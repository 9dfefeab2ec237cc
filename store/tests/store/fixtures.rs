//! Records, alerts and stores that the tests share.

use std::{fs, path::Path, sync::Arc};

use arrow::array::UInt64Array;
use faultline_core::{
    Alert, AlertId, AlertState, Batch, Cause, CauseKind, Evidence, Expected, Incident, IncidentId, LogBatchBuilder,
    LogRecord, MetricBatchBuilder, MetricPoint, Severity, SpanBatchBuilder, SpanRecord, Template, TemplateId,
};
use faultline_store::{Store, StoreConfig};
use serde_json::Value;
use tempfile::TempDir;

pub const SECOND: i64 = 1_000_000_000;

/// Log records numbered `first..first + n`, one a second, bodies `line <id>`.
pub fn logs(first: u64, n: u64) -> Batch {
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

pub fn spans(first: u64, n: u64) -> Batch {
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

pub fn metric(first: u64, value_double: f64) -> Batch {
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

pub fn alert(n: u64, start_seconds: i64) -> Alert {
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

pub fn incident(n: u64, alerts: &[u64]) -> Incident {
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

pub fn template(id: u64, stream: &str, text: &str) -> Template {
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

pub fn open(dir: &Path) -> Store {
    Store::open(dir, StoreConfig::default()).expect("opens")
}

pub fn open_small(dir: &Path, segment_max_rows: usize) -> Store {
    Store::open(dir, StoreConfig { segment_max_rows, ..StoreConfig::default() }).expect("opens")
}

pub fn rows(store: &Store, sql: &str) -> Vec<Vec<Value>> {
    store.query(sql).unwrap_or_else(|error| panic!("{sql}: {error}")).rows
}

pub fn one(store: &Store, sql: &str) -> Value {
    rows(store, sql).remove(0).remove(0)
}

pub fn files(dir: &Path, table: &str) -> Vec<String> {
    let entries = fs::read_dir(dir.join(table)).expect("the table has a directory");
    let mut names: Vec<_> =
        entries.map(|entry| entry.expect("listed").file_name().into_string().expect("plain")).collect();
    names.sort();
    names
}

/// A process that dies: nothing is closed and nothing dropped, but its lock goes.
pub fn crash(store: Store, dir: &TempDir) -> TempDir {
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
