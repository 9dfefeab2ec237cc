//! Spans and metric points by their ids, and the records behind an alert of each signal.

use std::fs;

use faultline_core::{
    Alert, Batch, Classified, Domain, Evidence, MetricBatchBuilder, MetricPoint, RecordId, SpanBatchBuilder, SpanRecord,
};
use faultline_store::{MAX_IDS, Point, PointValue, Records, Span, Store, StoreConfig, StoreError};

use crate::fixtures::{SECOND, alert, files, logs, metric, open, open_small, spans};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

/// A call of the front to the cart that failed, the callee first, as exporters send them.
fn a_call(first: RecordId) -> Batch {
    let mut builder = SpanBatchBuilder::default();
    builder.push(&SpanRecord {
        trace_id: TRACE,
        span_id: "00000000000000bb",
        parent_span_id: "00000000000000aa",
        name: "GetCart",
        kind: 2,
        service_name: "cart",
        start_time_unix_nano: 10 * SECOND + 500,
        end_time_unix_nano: 10 * SECOND + 700,
        status_code: 2,
        status_message: "out of memory",
        ..SpanRecord::default()
    });
    builder.push(&SpanRecord {
        trace_id: TRACE,
        span_id: "00000000000000aa",
        name: "GET /cart",
        kind: 3,
        start_time_unix_nano: 10 * SECOND,
        end_time_unix_nano: 10 * SECOND + 900,
        ..SpanRecord::default()
    });
    Batch::Spans(builder.finish().numbered_from(first))
}

/// An integer sum, a gauge that is later than the point after it, a histogram, and a point without a value.
fn four_points(first: RecordId) -> Batch {
    let mut builder = MetricBatchBuilder::default();
    builder.push(&MetricPoint {
        name: "http.server.requests",
        unit: "{request}",
        kind: "sum",
        temporality: "cumulative",
        monotonic: Some(true),
        service_name: "cart",
        time_unix_nano: SECOND,
        value_int: Some(i64::MAX),
        attributes: r#"{"route":"/cart"}"#,
        ..MetricPoint::default()
    });
    builder.push(&MetricPoint {
        name: "cpu",
        unit: "1",
        kind: "gauge",
        service_name: "cart",
        time_unix_nano: 9 * SECOND,
        value_double: Some(0.25),
        ..MetricPoint::default()
    });
    builder.push(&MetricPoint {
        name: "latency",
        kind: "histogram",
        temporality: "delta",
        time_unix_nano: 3 * SECOND,
        count: Some(7),
        sum: Some(1.5),
        bucket_counts: &[3, 4],
        bounds: &[0.5],
        ..MetricPoint::default()
    });
    builder.push(&MetricPoint {
        name: "cpu",
        kind: "gauge",
        time_unix_nano: 4 * SECOND,
        flags: 1,
        ..MetricPoint::default()
    });
    Batch::Metrics(builder.finish().numbered_from(first))
}

fn span_ids(spans: &[Span]) -> Vec<RecordId> {
    spans.iter().map(|span| span.record_id).collect()
}

fn point_ids(points: &[Point]) -> Vec<RecordId> {
    points.iter().map(|point| point.record_id).collect()
}

#[test]
fn a_span_is_the_same_in_memory_and_in_a_segment() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    store.append(&a_call(1)).expect("taken");
    for place in ["open", "closed"] {
        let found = store.spans(&[2, 1, 2, 404]).expect("found");
        assert_eq!(span_ids(&found), [2, 1], "{place}: the caller begins first");
        let callee = Span {
            record_id: 1,
            trace_id: TRACE.into(),
            span_id: "00000000000000bb".into(),
            parent_span_id: Some("00000000000000aa".into()),
            service: "cart".into(),
            name: "GetCart".into(),
            kind: 2,
            start_unix_nano: 10 * SECOND + 500,
            duration_nanos: 200,
            status_code: 2,
            status_message: Some("out of memory".into()),
        };
        assert_eq!(found[1], callee, "{place}");
        assert_eq!((callee.kind_name(), callee.status_name()), ("server", "error"));
        let caller = &found[0];
        assert_eq!((caller.service.as_str(), &caller.parent_span_id, &caller.status_message), ("", &None, &None));
        assert_eq!((caller.kind_name(), caller.status_name()), ("client", "unset"));
        store.flush().expect("closes");
    }
    assert_eq!(files(dir.path(), "spans").len(), 1, "the second round read a segment");
}

#[test]
fn a_point_is_the_same_in_memory_and_in_a_segment() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    store.append(&four_points(1)).expect("taken");
    for place in ["open", "closed"] {
        let found = store.points(&[1, 2, 3, 4, 404]).expect("found");
        assert_eq!(point_ids(&found), [1, 3, 4, 2], "{place}: in order of time");
        let sum = Point {
            record_id: 1,
            time_unix_nano: SECOND,
            service: "cart".into(),
            name: "http.server.requests".into(),
            unit: Some("{request}".into()),
            kind: "sum".into(),
            temporality: Some("cumulative".into()),
            attributes: Some(r#"{"route":"/cart"}"#.into()),
            value: Some(PointValue::Int(i64::MAX)),
            count: None,
            sum: None,
        };
        assert_eq!(found[0], sum, "{place}");
        let histogram = &found[1];
        assert_eq!((histogram.service.as_str(), &histogram.unit, &histogram.attributes), ("", &None, &None));
        assert_eq!((histogram.value, histogram.count, histogram.sum), (None, Some(7), Some(1.5)), "{place}");
        assert_eq!((found[2].value, found[2].count, found[2].sum), (None, None, None), "{place}: nothing recorded");
        assert_eq!(found[3].value, Some(PointValue::Double(0.25)), "{place}");
        store.flush().expect("closes");
    }
    assert_eq!(files(dir.path(), "metrics").len(), 1, "the second round read a segment");
}

#[test]
fn spans_and_points_are_found_across_segments_and_in_what_is_still_open() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open_small(dir.path(), 1_000);
    for first in (1..=3_500).step_by(500) {
        store.append(&spans(first, 500)).expect("taken");
    }
    assert_eq!(files(dir.path(), "spans").len(), 3, "the rest is still in memory");
    let found = store.spans(&[3_400, 9, 1_001, 9, 99_999, 3_499, 1_000]).expect("found");
    assert_eq!(span_ids(&found), [9, 1_000, 1_001, 3_400, 3_499]);
    assert!(found.iter().all(|span| span.start_unix_nano == span.record_id.cast_signed() * SECOND));

    for id in 4_001..=4_010 {
        store.append(&metric(id, 0.5)).expect("taken");
        if id == 4_005 {
            store.flush().expect("closes");
        }
    }
    assert_eq!(
        point_ids(&store.points(&[4_010, 4_001, 4_005, 4_006, 9]).expect("found")),
        [4_001, 4_005, 4_006, 4_010]
    );
}

#[test]
fn a_look_up_of_spans_reads_past_the_first_row_group() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    store.append(&spans(1, 70_000)).expect("taken");
    store.flush().expect("closes");
    let ids = [1, 65_536, 65_537, 70_000];
    assert_eq!(span_ids(&store.spans(&ids).expect("found")), ids);
}

#[test]
fn an_id_of_another_signal_and_too_many_ids_are_told_apart() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    store.append(&logs(1, 1)).expect("taken");
    store.append(&spans(2, 1)).expect("taken");
    store.append(&metric(3, 0.5)).expect("taken");
    assert_eq!(span_ids(&store.spans(&[1, 2, 3]).expect("found")), [2]);
    assert_eq!(point_ids(&store.points(&[1, 2, 3]).expect("found")), [3]);
    assert_eq!(store.spans(&[]).expect("found"), []);
    let many = vec![1; MAX_IDS + 1];
    for error in [store.spans(&many).expect_err("too many"), store.points(&many).expect_err("too many")] {
        assert!(matches!(error, StoreError::TooMany { limit: MAX_IDS, .. }), "{error:?}");
        assert_eq!(error.domain(), Domain::User);
    }
}

#[test]
fn what_is_gone_is_left_out_and_what_is_damaged_is_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    for first in [1, 101] {
        store.append(&spans(first, 100)).expect("taken");
        store.flush().expect("closes");
    }
    store.close().expect("closes");
    drop(store);
    let table = dir.path().join("spans");
    let [old, new] = <[String; 2]>::try_from(files(dir.path(), "spans")).expect("two segments");
    fs::remove_file(table.join(old)).expect("removed");
    let store = open(dir.path());
    assert_eq!(span_ids(&store.spans(&[50, 150]).expect("found")), [150]);

    let whole = fs::read(table.join(&new)).expect("read");
    fs::write(table.join(&new), vec![0; whole.len()]).expect("written");
    let error = store.spans(&[50, 150]).expect_err("damaged");
    assert!(matches!(error, StoreError::Segment { .. }), "{error:?}");
    assert!(error.to_string().contains(&new), "{error}");
    assert_eq!(store.spans(&[50]).expect("not looked at"), []);
}

fn behind(store: &Store, signal: &str, records: &[RecordId]) -> Records {
    let evidence = Evidence { records: records.to_vec(), ..Evidence::default() };
    let alert = Alert { signal: signal.into(), evidence, ..alert(1, 1) };
    store.records_behind(&alert).expect("found")
}

#[test]
fn the_signal_of_an_alert_says_what_its_records_are() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    store.append(&logs(1, 3)).expect("taken");
    store.append(&a_call(4)).expect("taken");
    store.append(&four_points(6)).expect("taken");
    let all: Vec<RecordId> = (1..=9).collect();
    let told = |found: &Records| {
        let lines: Vec<_> = found.lines.iter().map(|line| line.record_id).collect();
        (lines, span_ids(&found.spans), point_ids(&found.points))
    };
    assert_eq!(told(&behind(&store, "logs", &all)), (vec![1, 2, 3], vec![], vec![]));
    assert_eq!(told(&behind(&store, "traces", &all)), (vec![], vec![5, 4], vec![]));
    // The error rate of an operation is a metric that was made of spans.
    assert_eq!(told(&behind(&store, "metrics", &all)), (vec![], vec![5, 4], vec![6, 8, 9, 7]));
    assert_eq!(behind(&store, "metrics", &[]), Records::default(), "an instance as a whole names no records");
    store.close().expect("closes");
    let reader = Store::open_for_reading(dir.path(), StoreConfig::default()).expect("opens");
    assert_eq!(told(&behind(&reader, "metrics", &[4, 6])), (vec![], vec![4], vec![6]));
}
