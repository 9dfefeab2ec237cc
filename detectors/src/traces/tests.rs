use std::collections::BTreeSet;

use arrow::array::UInt64Array;
use faultline_core::{SpanBatchBuilder, SpanRecord};
use proptest::prelude::*;

use super::*;

const MS: i64 = 1_000_000;

/// One span of a test: trace, span id, parent id (0 for a root), start and duration in milliseconds.
type Row = (u64, u64, u64, i64, i64);

fn id(number: u64) -> String {
    if number == 0 { String::new() } else { format!("{number:016x}") }
}

/// The spans as a batch; operations are named after the spans.
fn batch_of(first_id: u64, rows: &[Row]) -> SpanBatch {
    let mut builder = SpanBatchBuilder::default();
    for &(trace, span, parent, start, duration) in rows {
        builder.push(&SpanRecord {
            trace_id: &format!("{trace:032x}"),
            span_id: &id(span),
            parent_span_id: &id(parent),
            name: &span.to_string(),
            kind: 2,
            service_name: "cart",
            start_time_unix_nano: start * MS,
            end_time_unix_nano: (start + duration) * MS,
            ..SpanRecord::default()
        });
    }
    builder.finish().numbered_from(first_id)
}

fn config() -> TraceConfig {
    TraceConfig { gap_ms: 10_000, root_grace_ms: 1_000, allowed_lateness_ms: 0, ..TraceConfig::default() }
}

/// A trace as text: `trace: span span<caller ?orphan`, `+n` for spans left out.
fn text(window: &Window<'_>) -> String {
    let trace = window.as_trace().expect("a trace");
    let mut text = format!("{}:", trace.key.session.trim_start_matches('0'));
    for span in trace.spans {
        let orphan = if span.is_orphan { "?" } else { "" };
        let caller = span.parent().map_or(String::new(), |at| format!("<{}", trace.operation(&trace.spans[at])));
        text += &format!(" {orphan}{}{caller}", trace.operation(span));
    }
    if trace.n_dropped > 0 { text + &format!(" +{}", trace.n_dropped) } else { text }
}

fn show(assembler: &mut TraceAssembler) -> Vec<String> {
    let shown = assembler.ready().iter().map(text).collect();
    assembler.settle();
    shown
}

fn push(assembler: &mut TraceAssembler, rows: &[Row]) -> Vec<String> {
    assembler.push(&batch_of(1, rows));
    show(assembler)
}

fn finish(assembler: &mut TraceAssembler) -> Vec<String> {
    assembler.finish();
    show(assembler)
}

#[test]
fn a_trace_with_its_root_is_told_when_the_grace_is_over() {
    let mut assembler = TraceAssembler::new(config()).expect("valid");
    assert_eq!(push(&mut assembler, &[(1, 2, 1, 10, 50)]), [] as [&str; 0]);
    assert_eq!(push(&mut assembler, &[(1, 1, 0, 0, 100), (2, 7, 0, 50, 9_000)]), [] as [&str; 0]);
    assert_eq!(push(&mut assembler, &[(2, 8, 7, 1_100, 10)]), [] as [&str; 0], "the grace ends here");
    assert_eq!(push(&mut assembler, &[(2, 9, 7, 1_101, 10)]), ["1: 1 2<1"]);
    assert_eq!(finish(&mut assembler), ["2: 7 8<7 9<7"]);
}

#[test]
fn a_trace_without_its_root_is_waited_for_longer_as_its_caller_may_run_into_a_timeout() {
    let mut assembler = TraceAssembler::new(config()).expect("valid");
    push(&mut assembler, &[(1, 2, 1, 0, 100), (2, 5, 4, 0, 100)]);
    assert_eq!(push(&mut assembler, &[(1, 1, 0, 0, 9_000), (3, 9, 0, 9_000, 1)]), [] as [&str; 0]);
    assembler.advance_to(10_001 * MS);
    assert_eq!(show(&mut assembler), ["1: 1 2<1"]);
    assembler.advance_to(10_101 * MS);
    assert_eq!(show(&mut assembler), ["3: 9", "2: ?5"]);
    assert_eq!(assembler.stats().n_orphans, 1);
}

#[test]
fn the_lateness_is_waited_for_on_top() {
    let late = TraceConfig { allowed_lateness_ms: 5_000, ..config() };
    let mut assembler = TraceAssembler::new(late).expect("valid");
    push(&mut assembler, &[(1, 1, 0, 0, 100)]);
    assembler.advance_to(6_100 * MS);
    assert_eq!((show(&mut assembler), assembler.watermark_unix_nano()), (vec![], 1_100 * MS));
    assembler.advance_to(6_101 * MS);
    assert_eq!(show(&mut assembler), ["1: 1"]);
}

#[test]
fn interleaved_traces_are_told_apart_and_in_the_order_in_which_they_are_complete() {
    let mut assembler = TraceAssembler::new(config()).expect("valid");
    let rows =
        [(3, 2, 1, 5, 5), (1, 2, 1, 6, 1), (2, 1, 0, 0, 30), (3, 1, 0, 0, 20), (1, 1, 0, 3, 17), (2, 2, 1, 9, 1)];
    assert_eq!(push(&mut assembler, &rows), [] as [&str; 0]);
    assert_eq!(finish(&mut assembler), ["1: 1 2<1", "3: 1 2<1", "2: 1 2<1"]);
}

#[test]
fn a_batch_is_never_late_to_itself() {
    let mut assembler = TraceAssembler::new(config()).expect("valid");
    let rows = [(1, 1, 0, 60_000, 5), (2, 1, 0, 0, 5), (2, 2, 1, 50_000, 5), (3, 1, 0, 0, 9)];
    assert_eq!(push(&mut assembler, &rows), ["3: 1", "2: 1 2<1"]);
    assert_eq!(assembler.stats().n_late, 0);
}

#[test]
fn spans_whose_time_goes_backwards_find_their_open_trace() {
    let mut assembler = TraceAssembler::new(config()).expect("valid");
    push(&mut assembler, &[(1, 3, 2, 5_000, 10)]);
    push(&mut assembler, &[(1, 2, 1, 3_000, 2_900)]);
    push(&mut assembler, &[(1, 1, 0, -4_000, 9_900)]);
    assert_eq!(finish(&mut assembler), ["1: 1 2<1 3<2"]);
}

#[test]
fn late_spans_are_counted_and_kept_out_until_their_trace_is_forgotten() {
    let mut assembler = TraceAssembler::new(TraceConfig { max_told_traces: 1, ..config() }).expect("valid");
    assert_eq!(push(&mut assembler, &[(1, 1, 0, 0, 10), (2, 1, 0, 5_000, 10)]), ["1: 1"]);
    assert_eq!(push(&mut assembler, &[(1, 2, 1, 3, 4), (1, 3, 1, 3, 4)]), [] as [&str; 0]);
    assert_eq!((assembler.stats().n_late, assembler.stats().n_open), (2, 1));
    assert_eq!(push(&mut assembler, &[(3, 1, 0, 9_000, 10)]), ["2: 1"]);
    assert_eq!(push(&mut assembler, &[(1, 4, 1, 3, 4), (2, 2, 1, 3, 4)]), [] as [&str; 0], "not complete without root");
    assert_eq!((assembler.stats().n_late, assembler.stats().n_open), (3, 2));
}

#[test]
fn a_span_that_came_twice_is_told_once() {
    let mut assembler = TraceAssembler::new(config()).expect("valid");
    let rows = [(1, 1, 0, 0, 10), (1, 2, 1, 1, 2)];
    assembler.push(&batch_of(1, &rows));
    assembler.push(&batch_of(3, &rows));
    assembler.finish();
    let windows = assembler.ready();
    let records: Vec<u64> = windows[0].as_trace().expect("a trace").spans.iter().map(|span| span.record).collect();
    assert_eq!(records, [1, 2], "what came first stays");
    assert_eq!((assembler.stats().n_duplicates, assembler.stats().n_spans), (2, 4));
}

#[test]
fn orphans_and_circles_are_told_and_counted() {
    let mut assembler = TraceAssembler::new(config()).expect("valid");
    push(
        &mut assembler,
        &[(1, 1, 0, 0, 9), (1, 5, 4, 2, 1), (1, 6, 5, 3, 1), (2, 1, 2, 5, 1), (2, 2, 1, 4, 9), (3, 8, 8, 20, 1)],
    );
    assert_eq!(finish(&mut assembler), ["1: 1 ?5 6<5", "2: ?2 1<2", "3: ?8"]);
    let stats = assembler.stats();
    assert_eq!((stats.n_orphans, stats.n_circles, stats.n_traces), (1, 2, 3));
}

#[test]
fn durations_of_nothing_and_of_centuries_hold_nobody_up() {
    let mut assembler = TraceAssembler::new(config()).expect("valid");
    let mut builder = SpanBatchBuilder::default();
    let span = |trace_id: &'static str, start_time_unix_nano, end_time_unix_nano| SpanRecord {
        trace_id,
        span_id: "0000000000000001",
        name: "GET",
        start_time_unix_nano,
        end_time_unix_nano,
        ..SpanRecord::default()
    };
    builder.push(&span("0000000000000000000000000000000a", 0, 0));
    builder.push(&span("0000000000000000000000000000000b", 0, i64::MAX));
    builder.push(&span("0000000000000000000000000000000c", i64::MIN, i64::MAX));
    builder.push(&span("0000000000000000000000000000000d", 9, 3));
    assembler.push(&builder.finish());
    assert_eq!(show(&mut assembler), ["c: GET"]);
    assert_eq!(push(&mut assembler, &[(1, 1, 0, 2_000, 0)]), ["a: GET", "d: GET"]);
    assert_eq!(push(&mut assembler, &[(2, 1, 0, 3_601_001, 0)]), ["1: 1", "b: GET"]);
    assert_eq!((assembler.stats().n_overlong, assembler.stats().n_late), (2, 0));
    builder.push(&span("0000000000000000000000000000000e", i64::MAX, i64::MAX));
    assembler.push(&builder.finish());
    assert_eq!(finish(&mut assembler), ["2: 1", "e: GET"]);
}

#[test]
fn one_wrong_clock_reading_ends_no_trace_a_leap_is_believed_in_the_end_and_so_is_the_way_back() {
    const YEAR: i64 = 365 * 86_400_000;
    let mut assembler = TraceAssembler::new(config()).expect("valid");
    push(&mut assembler, &[(1, 2, 1, 0, 50)]);
    assert_eq!(push(&mut assembler, &[(9, 1, 0, 200 * YEAR, 10)]), [] as [&str; 0]);
    assert_eq!((assembler.stats().n_strange, assembler.newest_unix_nano()), (1, 0));
    let shown = push(&mut assembler, &[(1, 1, 0, 0, 100), (2, 1, 0, 1_200, 1)]);
    assert_eq!(shown, ["9: 1", "1: 1 2<1"], "the wrong one is told as if it had come at its time");
    let leap: Vec<Row> = (0..8).map(|n| (20 + n as u64, 1, 0, YEAR + n, 1)).collect();
    assert_eq!(push(&mut assembler, &leap).len(), 8, "all but the last");
    assert_eq!((assembler.stats().n_strange, assembler.newest_unix_nano()), (8, (YEAR + 7) * MS));
    for n in 0..63 {
        let shown = push(&mut assembler, &[(100 + n as u64, 2, 1, 2_000 + n, 1)]);
        assert_eq!((shown.len(), assembler.stats().n_moved), (1, 0), "told at once");
    }
    assert_eq!(push(&mut assembler, &[(200, 2, 1, 3_000, 1)]).len(), 2, "with what was open a year ahead");
    assert_eq!((assembler.stats().n_moved, assembler.newest_unix_nano()), (1, 3_000 * MS));
    assert_eq!(push(&mut assembler, &[(201, 2, 1, 3_001, 1)]), [] as [&str; 0], "it is waited for again");
}

#[test]
fn one_trace_too_many_tells_the_one_that_would_be_complete_first() {
    let mut assembler = TraceAssembler::new(TraceConfig { max_open_traces: 2, ..config() }).expect("valid");
    push(&mut assembler, &[(1, 2, 1, 0, 50), (2, 1, 0, 3, 50), (2, 2, 1, 9, 1)]);
    assert_eq!(push(&mut assembler, &[(3, 1, 0, 80, 1)]), ["2: 1 2<1"]);
    assert_eq!(push(&mut assembler, &[(4, 1, 0, 60, 1), (2, 3, 1, 60, 1)]), ["3: 1"]);
    let stats = assembler.stats();
    assert_eq!((stats.n_evicted, stats.n_open, stats.n_open_spans, stats.n_late), (2, 2, 2, 1));
}

#[test]
fn spans_of_all_open_traces_are_bounded_and_one_trace_may_be_all_there_is() {
    let mut assembler = TraceAssembler::new(TraceConfig { max_open_spans: 3, ..config() }).expect("valid");
    let rows = [(1, 1, 0, 0, 9), (1, 2, 1, 1, 1), (1, 3, 1, 2, 1), (1, 4, 1, 3, 1), (1, 5, 1, 4, 1)];
    assert_eq!(push(&mut assembler, &rows), ["1: 1 2<1 3<1"]);
    let stats = assembler.stats();
    assert_eq!((stats.n_evicted, stats.n_late, stats.n_open_spans), (1, 2, 0));
}

#[test]
fn spans_of_one_trace_are_bounded_and_it_still_ends() {
    let mut assembler = TraceAssembler::new(TraceConfig { max_spans_per_trace: 2, ..config() }).expect("valid");
    push(&mut assembler, &[(1, 1, 0, 0, 9), (1, 2, 1, 1, 1), (1, 3, 1, 2, 1), (1, 4, 1, 900, 1)]);
    assert_eq!(push(&mut assembler, &[(2, 1, 0, 1_010, 1)]), ["1: 1 2<1 +2"]);
    assert_eq!((assembler.stats().n_cut, assembler.stats().n_spans), (2, 3));
}

#[test]
fn a_million_distinct_operations_share_one_name_past_the_limit() {
    const N: u64 = 1_000_000;
    let mut assembler = TraceAssembler::new(TraceConfig { max_operations: 100, ..config() }).expect("valid");
    let rows: Vec<Row> = (0..N).map(|n| (1 + n / 10, 1 + n, 0, n as i64 / 100, 1)).collect();
    let mut n_told = 0;
    for batch in rows.chunks(50_000) {
        assembler.push(&batch_of(1, batch));
        for window in assembler.ready() {
            let trace = window.as_trace().expect("a trace");
            assert!(trace.operations.len() <= 102);
            n_told += trace.spans.len();
            let named = trace.spans.iter().filter(|span| trace.operation(span) != "*").count();
            assert_eq!(named, if n_told <= 100 { 10 } else { 0 });
        }
        assembler.settle();
    }
    assert!(n_told > 800_000, "{n_told}");
    assert_eq!(assembler.stats().n_unnamed_operations, N - 100);
}

#[test]
fn ids_that_are_none_are_refused_and_strange_ones_are_counted() {
    let mut assembler = TraceAssembler::new(config()).expect("valid");
    let mut builder = SpanBatchBuilder::default();
    let ids = [("", "1", ""), ("order-17", "root", ""), ("order-17", "leaf", "root"), ("8448EB21", "1", "")];
    for (trace_id, span_id, parent_span_id) in ids {
        builder.push(&SpanRecord { trace_id, span_id, parent_span_id, name: span_id, ..SpanRecord::default() });
    }
    assembler.push(&builder.finish());
    assert_eq!(finish(&mut assembler), ["8448EB21: 1", "order-17: root leaf<root"]);
    let stats = assembler.stats();
    assert_eq!((stats.n_refused, stats.n_odd_ids, stats.n_spans), (1, 5, 3));
}

#[test]
fn windows_are_shown_again_until_they_are_settled() {
    let mut assembler = TraceAssembler::new(config()).expect("valid");
    assembler.push(&batch_of(1, &[(1, 1, 0, 0, 1), (2, 1, 0, 1, 1), (3, 1, 0, 2, 1), (4, 1, 0, 9_000, 1)]));
    let shown = |assembler: &TraceAssembler| -> Vec<String> { assembler.ready().iter().map(text).collect() };
    assert_eq!(shown(&assembler), ["1: 1", "2: 1", "3: 1"]);
    assembler.settle_first(2);
    assert_eq!(shown(&assembler), ["3: 1"]);
    assembler.settle_first(5);
    assert_eq!(shown(&assembler), [] as [&str; 0]);
}

#[test]
fn a_window_has_the_trace_as_session_and_carries_what_the_spans_say() {
    let mut assembler = TraceAssembler::new(config()).expect("valid");
    let mut builder = SpanBatchBuilder::default();
    builder.push(&SpanRecord {
        trace_id: "0af7651916cd43dd8448eb211c80319c",
        span_id: "00f067aa0ba902b7",
        name: "GET /cart",
        kind: 3,
        service_name: "gateway",
        start_time_unix_nano: 5,
        end_time_unix_nano: 12,
        status_code: 2,
        ..SpanRecord::default()
    });
    assembler.push(&builder.finish().numbered_from(41));
    assembler.finish();
    let windows = assembler.ready();
    let trace = windows[0].as_trace().expect("a trace");
    assert_eq!((&*trace.key.stream, &*trace.key.session), ("traces", "0af7651916cd43dd8448eb211c80319c"));
    let span = trace.spans[0];
    assert_eq!((trace.service(&span), trace.operation(&span)), ("gateway", "GET /cart"));
    assert_eq!((span.start_unix_nano, span.duration_nanos, span.record), (5, 7, 41));
    assert_eq!((span.kind, span.is_error, span.is_orphan, span.parent()), (3, true, false, None));
}

#[test]
fn limits_that_cannot_work_are_refused_by_key() {
    let error = TraceAssembler::new(TraceConfig { max_open_traces: 0, ..config() }).expect_err("nothing fits");
    assert!(error.to_string().starts_with("key `max_open_traces`"), "{error}");
    let error = TraceAssembler::new(TraceConfig { root_grace_ms: 10_001, ..config() }).expect_err("too long");
    assert!(error.to_string().starts_with("key `root_grace_ms`"), "{error}");
}

/// What `core/src/trace.rs` promises of a window. Adds its records to `told`, each of them for the first time.
fn check(trace: &TraceWindow<'_>, told: &mut BTreeSet<u64>) {
    assert!(!trace.spans.is_empty());
    for (idx, span) in trace.spans.iter().enumerate() {
        assert!(span.parent().is_none_or(|parent| parent < idx), "callers come first");
        assert!(!span.is_orphan || span.parent().is_none());
        assert!(span.duration_nanos >= 0 && span.kind <= 5);
        assert!((span.service as usize) < trace.services.len() && (span.operation as usize) < trace.operations.len());
        let sibling = trace.spans[..idx].iter().rev().find(|sibling| sibling.parent == span.parent);
        assert!(sibling.is_none_or(|sibling| sibling.start_unix_nano <= span.start_unix_nano), "siblings by start");
        assert!(told.insert(span.record), "each span once");
    }
}

fn any_time() -> impl Strategy<Value = i64> {
    prop_oneof![
        8 => 0..20_000 * MS,
        1 => prop::sample::select(vec![i64::MIN, i64::MIN + 1, -1, 0, i64::MAX - 1, i64::MAX]),
        1 => any::<i64>(),
    ]
}

/// Trace, span and parent ids; start and end; kind, status and name.
type Wild = ((usize, u64, u64), (i64, i64), (i32, i32, u8));

fn wild() -> impl Strategy<Value = Vec<Wild>> {
    let ids = (0..6usize, 0..10u64, 0..10u64);
    proptest::collection::vec((ids, (any_time(), any_time()), (-2..9i32, -1..4i32, 0..9u8)), 1..120)
}

/// Spans with how long each is under way; traces begin half a second apart and are over within one second.
fn orderly() -> impl Strategy<Value = Vec<(Row, i64)>> {
    let span = (0..12u64, 1..9u64, 0..10u64, 0..700i64, 0..=250i64, 0..=2_000i64);
    proptest::collection::vec(span, 1..100).prop_map(|spans| {
        let spans = spans.into_iter().map(|(trace, span, parent, start, duration, delay)| {
            ((trace + 1, span, parent, trace as i64 * 500 + start, duration), delay)
        });
        spans.collect()
    })
}

/// All that is told of rows, cut into batches; a row's record is its number among the sorted rows.
fn told(rows: &[Row], cut: usize) -> (Vec<String>, TraceStats) {
    let mut numbered = rows.to_vec();
    numbered.sort_unstable();
    let lateness = TraceConfig { allowed_lateness_ms: 2_000, ..config() };
    let mut assembler = TraceAssembler::new(lateness).expect("valid");
    let mut shown = Vec::new();
    let mut look = |assembler: &mut TraceAssembler| {
        for window in assembler.ready() {
            let spans = window.as_trace().expect("a trace").spans.iter();
            let figures: Vec<_> = spans.map(|span| (span.record, span.start_unix_nano, span.duration_nanos)).collect();
            shown.push(format!("{} {figures:?}", text(&window)));
        }
        assembler.settle();
    };
    for rows in rows.chunks(cut) {
        let records = rows.iter().map(|row| numbered.binary_search(row).expect("it is one of them") as u64);
        let records = UInt64Array::from_iter_values(records);
        assembler.push(&batch_of(0, rows).with_column("record_id", Arc::new(records)).expect("one each"));
        look(&mut assembler);
    }
    assembler.finish();
    look(&mut assembler);
    (shown, assembler.stats())
}

proptest! {
    #[test]
    fn whatever_comes_windows_keep_their_promises_and_every_span_is_accounted_for(
        spans in wild(),
        cut in 1..40usize,
        limits in (1..6usize, 1..60usize, 1..20usize, 0..4usize, 1..4usize),
    ) {
        const TRACES: [&str; 6] = ["", "1", "2", "00000000000000000000000000000003", "no id", "0"];
        let config = TraceConfig {
            max_open_traces: limits.0,
            max_open_spans: limits.1,
            max_spans_per_trace: limits.2,
            max_told_traces: limits.3,
            max_operations: limits.4,
            ..config()
        };
        let mut assembler = TraceAssembler::new(config.clone()).expect("valid");
        let mut again = TraceAssembler::new(config).expect("valid");
        let (mut records, mut n_told) = (BTreeSet::new(), 0);
        for (batch, first_id) in spans.chunks(cut).zip((1..).step_by(cut)) {
            let mut builder = SpanBatchBuilder::default();
            for &((trace, span, parent), (start, end), (kind, status_code, name)) in batch {
                let (span_id, parent, name) = (id(span), id(parent), format!("op{name}"));
                builder.push(&SpanRecord {
                    trace_id: TRACES[trace],
                    span_id: &span_id,
                    parent_span_id: &parent,
                    name: &name,
                    kind,
                    service_name: &name[2..],
                    start_time_unix_nano: start,
                    end_time_unix_nano: end,
                    status_code,
                    ..SpanRecord::default()
                });
            }
            let batch = builder.finish().numbered_from(first_id);
            assembler.push(&batch);
            again.push(&batch);
            let windows = assembler.ready();
            prop_assert_eq!(format!("{windows:?}"), format!("{:?}", again.ready()), "the same again");
            for window in &windows {
                let trace = window.as_trace().expect("a trace");
                check(trace, &mut records);
                n_told += trace.spans.len() as u64;
                prop_assert!(trace.spans.len() <= limits.2);
                prop_assert_eq!(Shape::of(trace).paths.len(), trace.spans.len());
            }
            assembler.settle();
            again.settle();
            let stats = assembler.stats();
            prop_assert!(stats.n_open <= limits.0 && stats.n_open_spans <= limits.1);
        }
        assembler.finish();
        for window in assembler.ready() {
            let trace = window.as_trace().expect("a trace");
            check(trace, &mut records);
            n_told += trace.spans.len() as u64;
        }
        let stats = assembler.stats();
        prop_assert_eq!(stats.n_spans + stats.n_refused + stats.n_late + stats.n_cut, spans.len() as u64);
        prop_assert_eq!(n_told + stats.n_duplicates, stats.n_spans);
        prop_assert_eq!((stats.n_open, stats.n_open_spans), (0, 0));
    }

    #[test]
    fn the_order_in_which_spans_come_makes_no_difference_within_the_lateness(
        mut spans in orderly(),
        cut in 1..50usize,
    ) {
        let mut sorted: Vec<Row> = spans.iter().map(|(row, _)| *row).collect();
        sorted.sort_by_key(|row| row.3 + row.4);
        spans.sort_by_key(|(row, delay)| row.3 + row.4 + delay);
        let delayed: Vec<Row> = spans.iter().map(|(row, _)| *row).collect();
        let whole = told(&sorted, usize::MAX);
        prop_assert_eq!(whole.1.n_late, 0);
        prop_assert_eq!(told(&sorted, cut), whole.clone());
        prop_assert_eq!(told(&delayed, cut), whole.clone());
        prop_assert_eq!(told(&delayed, 1), whole.clone());
    }
}
