use faultline_core::{SpanBatchBuilder, SpanRecord};

use super::*;

const MS: i64 = 1_000_000;

/// A span that service `cart` received, by its end.
fn span(name: &str, end_ms: i64, duration_ms: i64) -> SpanRecord<'_> {
    SpanRecord {
        name,
        kind: 2,
        service_name: "cart",
        parent_span_id: "00f067aa0ba902b7",
        start_time_unix_nano: (end_ms - duration_ms) * MS,
        end_time_unix_nano: end_ms * MS,
        ..SpanRecord::default()
    }
}

pub(super) fn spans(spans: &[SpanRecord<'_>]) -> SpanBatch {
    let mut builder = SpanBatchBuilder::default();
    spans.iter().for_each(|span| builder.push(span));
    builder.finish().numbered_from(1)
}

fn push(station: &mut SeriesStation, records: &[SpanRecord<'_>]) -> Vec<String> {
    station.push_spans(&spans(records));
    show(station)
}

/// Without durations, whose quantiles are tested by themselves.
fn config() -> SeriesConfig {
    SeriesConfig { quantiles: Vec::new(), ..SeriesConfig::default() }
}

#[test]
fn spans_are_rate_and_errors_of_their_operation() {
    let mut station = station(config());
    let failed = SpanRecord { status_code: 2, ..span("GET /", 25_000, 5) };
    let first = [span("GET /", 10_000, 5), failed, span("GET /", 12_000, 5), span("POST /", 31_000, 5)];
    assert_eq!(push(&mut station, &first), NOTHING);
    // The newest end is the lateness past the end of the first step.
    let shown = push(&mut station, &[span("GET /", 40_000, 5)]);
    let expected = ["spans{operation=GET /} rate 0/30: 0.1", "spans{operation=GET /} errors 0/30: 0.3333"];
    assert_eq!(shown, expected, "the other operation has not been heard of yet");
    assert_eq!(push(&mut station, &[span("GET /", 29_000, 5)]), NOTHING);
    assert_eq!((station.stats().n_spans, station.stats().n_late_spans), (5, 1));
}

#[test]
fn an_operation_that_falls_silent_has_a_rate_of_zero_while_its_service_speaks() {
    let mut station = station(SeriesConfig { max_gap_steps: 3, ..config() });
    let shown = push(&mut station, &[span("a", 10_000, 5), span("b", 10_000, 5), span("b", 40_000, 5)]);
    assert_eq!(shown[0], "spans{operation=a} rate 0/30: 0.0333");
    // The other operation speaks from 30 to 60. From 60 to 90 none does, and nobody knows.
    let shown = push(&mut station, &[span("b", 100_000, 5)]);
    assert_eq!(shown[0], "spans{operation=a} rate 30/30: 0 -");
    assert_eq!(shown[1], "spans{operation=a} errors 30/30: - -");
    assert_eq!(shown[2], "spans{operation=b} rate 30/30: 0.0333 -");
    // After three empty steps it is no longer waited for; the other one goes on.
    let shown = push(&mut station, &[span("b", 130_000, 5), span("b", 190_000, 5)]);
    assert_eq!(shown[0], "spans{operation=a} rate 90/30: 0");
    assert_eq!(shown[2], "spans{operation=b} rate 90/30: 0.0333 0.0333 -");
    // It comes back after a silence and begins anew.
    push(&mut station, &[span("a", 200_000, 5)]);
    let shown = push(&mut station, &[span("b", 230_000, 5)]);
    assert_eq!(shown[0], "spans{operation=a} rate 180/30: 0.0333");
}

#[test]
fn durations_are_quantiles_in_milliseconds() {
    let mut station = station(SeriesConfig::default());
    let records: Vec<_> = (1..=1000).map(|ms| span("GET /", 10_000 + ms, ms)).collect();
    push(&mut station, &records);
    station.finish();
    let windows = station.ready();
    let of = |suffix: &str| {
        let window = windows.iter().find(|window| window.key().session.ends_with(suffix)).expect("it is there");
        let series = window.as_series().expect("a series");
        (series.points[0], series.records[0])
    };
    let ((median, record), (high, _)) = (of("p50"), of("p99"));
    assert!((median / 500.0 - 1.0).abs() < 0.1, "{median}");
    assert!((high / 990.0 - 1.0).abs() < 0.1, "{high}");
    assert_eq!(record, 1000, "the newest span");
}

#[test]
fn only_what_a_service_received_or_began_counts_for_its_operations() {
    let mut station = station(config());
    let client = SpanRecord { kind: 3, ..span("call", 1_000, 5) };
    let internal = SpanRecord { kind: 1, ..span("inside", 1_000, 5) };
    let job = SpanRecord { kind: 1, parent_span_id: "", ..span("job", 1_000, 5) };
    let consumer = SpanRecord { kind: 5, service_name: "", ..span("take", 1_000, 5) };
    push(&mut station, &[client, internal, job, consumer]);
    station.finish();
    let keys: Vec<String> =
        station.ready().iter().map(|window| format!("{} {}", window.key().stream, window.key().session)).collect();
    let expected = [
        "cart spans{operation=job} rate",
        "cart spans{operation=job} errors",
        "metrics spans{operation=take} rate",
        "metrics spans{operation=take} errors",
    ];
    assert_eq!(keys, expected);
}

#[test]
fn a_million_operations_are_bounded() {
    const BATCH: usize = 50_000;
    let mut station = station(SeriesConfig::default());
    for batch in 0..1_000_000 / BATCH {
        let names: Vec<String> = (0..BATCH).map(|n| format!("GET /user/{}", batch * BATCH + n)).collect();
        let records: Vec<_> = names.iter().map(|name| span(name, batch as i64 * 1_000, 5)).collect();
        push(&mut station, &records);
    }
    let stats = station.stats();
    assert_eq!((stats.n_spans, stats.n_folded_spans), (1_000_000, 999_500));
    assert_eq!((stats.n_operations, stats.n_series), (501, 2004));
    let per_series = station.bytes() / stats.n_series;
    assert!(per_series <= 600, "{per_series} bytes a series");
}

#[test]
fn spans_that_find_no_room_are_refused() {
    let mut station = station(SeriesConfig { max_series: 3, ..config() });
    push(&mut station, &[span("a", 0, 5), span("b", 0, 5), span("a", 0, 5), span("b", 0, 5)]);
    let stats = station.stats();
    assert_eq!((stats.n_spans, stats.n_refused, stats.n_series), (2, 2, 2));
}

#[test]
fn calls_have_a_clock_of_their_own() {
    let mut station = station(SeriesConfig { call_lateness_ms: 60_000, ..config() });
    // Spans are far ahead of the traces that are put together from them.
    push(&mut station, &[span("GET /", 1_000_000, 5)]);
    let call = |start_s: i64, is_error| Call { start_unix_nano: start_s * SECOND, is_error, ..Call::default() };
    station.push_call("web", "cart", &call(10, false));
    station.push_call("web", "cart", &call(20, true));
    station.push_call("web", "ads", &call(50, false));
    station.push_call("web", "cart", &call(15, false));
    assert_eq!(show(&mut station), NOTHING);
    station.push_call("web", "ads", &call(90, false));
    let shown = show(&mut station);
    assert_eq!(shown, ["calls{to=cart} rate 0/30: 0.1", "calls{to=cart} errors 0/30: 0.3333"]);
    assert_eq!(station.stats().n_late_spans, 0);
}

#[test]
fn silent_operations_are_dropped() {
    let mut station = station(SeriesConfig { retire_after_ms: 3_600_000, ..config() });
    push(&mut station, &[span("a", 0, 5), span("b", 0, 5)]);
    for minute in 1..200 {
        push(&mut station, &[span("a", minute * 60_000, 5)]);
    }
    let stats = station.stats();
    assert_eq!((stats.n_operations, stats.n_series, stats.n_retired), (1, 2, 1));
    // What is left is found where it has moved to.
    push(&mut station, &[span("b", 200 * 60_000, 5), span("a", 200 * 60_000, 5)]);
    let shown = push(&mut station, &[span("a", 201 * 60_000, 5)]);
    assert_eq!(shown.len(), 4);
    assert_eq!(shown[2], "spans{operation=b} rate 12000/30: 0.0333");
}
