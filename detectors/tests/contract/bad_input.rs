//! Whatever comes of metrics and traces, no detector panics, scores are numbers, evidence is of the window, and the state can
//! be written and read: not a number, infinities, what is hardly a number and what hardly is one any more, gaps, duplicates,
//! time that goes backwards or leaps, columns that change places, orphans, circles.

use std::sync::Arc;

use faultline_core::{GroupWindow, SeriesKind, SeriesWindow, SpanBatchBuilder, SpanRecord, WindowKey};
use faultline_detectors::traces::{ServiceConfig, ServiceStation, Shape, TraceAssembler, TraceConfig};
use proptest::{collection::vec, prelude::*, sample::select};

use super::*;

const MINUTE: i64 = 60_000_000_000;

/// Most points or rows of a window.
const MOST: usize = 120;

/// Columns that there may be: those that detectors are fitted on and new ones.
const COLUMNS: [&str; 8] = ["load", "cpu", "latency", "memory", "errors", "threads", "new", "newer"];

fn value() -> impl Strategy<Value = f64> {
    let odd = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MAX, f64::MIN, 5e-324, -5e-324, 0.0, -0.0, 1e17, 1e30];
    prop_oneof![8 => 50.0..150.0f64, 1 => any::<f64>(), 2 => select(odd.to_vec())]
}

/// Mostly where the training has ended or before, so that windows overlap, leave gaps and go backwards.
fn first_step() -> impl Strategy<Value = i64> {
    prop_oneof![6 => 1_350..1_700i64, 1 => any::<i64>(), 1 => select(vec![i64::MIN, -1, 0, i64::MAX])]
}

fn step_nanos() -> impl Strategy<Value = i64> {
    prop_oneof![6 => Just(MINUTE), 1 => select(vec![1, 1_000_000_000, 60 * MINUTE, i64::MAX])]
}

/// Some of them in their order, beginning with any.
fn any_columns() -> impl Strategy<Value = Vec<Arc<str>>> {
    (0..COLUMNS.len(), vec(any::<bool>(), COLUMNS.len())).prop_map(|(first, is_there)| {
        let chosen = (0..COLUMNS.len()).map(|idx| (idx + first) % COLUMNS.len()).filter(|idx| is_there[*idx]);
        chosen.map(|idx| Arc::from(COLUMNS[idx])).collect()
    })
}

fn keys(names: [&str; 3]) -> [WindowKey; 3] {
    names.map(|name| WindowKey { stream: Arc::from("test"), session: Arc::from(name) })
}

/// Checks every detector of a signal on these windows: twice, so that everything has been before.
fn survive(signal: Signal, windows: &[Window<'_>]) {
    for entry in REGISTRY.iter().filter(|entry| entry.signal == signal) {
        let (name, mut detector) = (entry.name, load(entry));
        for _ in 0..2 {
            let scores = scores_of(&mut *detector, windows);
            for (window, score) in windows.iter().zip(&scores) {
                if let Some(score) = score {
                    check(name, window, &detector.explain(window, score));
                }
            }
            detector.learn(windows);
        }
        let snapshot = detector.snapshot().unwrap_or_else(|error| panic!("{name}: {error}"));
        let mut again = entry.load(&Value::Null, &snapshot).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(scores_of(&mut *again, windows), scores_of(&mut *detector, windows), "{name}: from its snapshot");
    }
}

fn check(name: &str, window: &Window<'_>, evidence: &Evidence) {
    assert!(!evidence.summary.is_empty() && evidence.records.len() <= Evidence::MAX_RECORDS, "{name}: {evidence:?}");
    assert!(evidence.figures.values().all(|figure| figure.is_finite()), "{name}: {:?}", evidence.figures);
    let records = records_of(window);
    let mut told = evidence.records.iter().chain(&evidence.culprit);
    assert!(told.all(|record| records.contains(record)), "{name}: records of another window");
}

/// A span: trace, its id and its caller's; start and end; kind, status and name.
type Span = ((usize, u64, u64), (i64, i64), (i32, i32, u8));

fn time() -> impl Strategy<Value = i64> {
    prop_oneof![
        8 => (0..120_000_000i64).prop_map(|micros| micros * 1_000),
        1 => select(vec![i64::MIN, -1, 0, i64::MAX]),
        1 => any::<i64>(),
    ]
}

fn any_spans() -> impl Strategy<Value = Vec<Span>> {
    vec(((0..8usize, 0..10u64, 0..10u64), (time(), time()), (-2..9i32, -1..4i32, 0..6u8)), 1..100)
}

/// All traces of these spans, and what is known of the services when they have gone through.
fn assembled(spans: &[Span], cut: usize) -> (TraceAssembler, ServiceStation) {
    const SERVICES: [&str; 6] = ["gateway", "cart", "checkout", "stock", "", "nobody"];
    let mut assembler = TraceAssembler::new(TraceConfig::default()).expect("valid");
    let id = |number: u64| if number == 0 { String::new() } else { format!("{number:016x}") };
    for (chunk, first_id) in spans.chunks(cut).zip((1..).step_by(cut)) {
        let mut builder = SpanBatchBuilder::default();
        for &((trace, span, parent), (start, end), (kind, status_code, name)) in chunk {
            builder.push(&SpanRecord {
                trace_id: &format!("{trace:032x}"),
                span_id: &id(span),
                parent_span_id: &id(parent),
                name: ["do", "call stock", ""][usize::from(name) % 3],
                kind,
                service_name: SERVICES[usize::from(name)],
                start_time_unix_nano: start,
                end_time_unix_nano: end,
                status_code,
                ..SpanRecord::default()
            });
        }
        assembler.push(&builder.finish().numbered_from(first_id));
    }
    assembler.finish();
    let mut station = ServiceStation::new(ServiceConfig::default()).expect("valid");
    for trace in assembler.ready().iter().filter_map(Window::as_trace) {
        station.push(trace, &Shape::of(trace));
    }
    station.finish();
    (assembler, station)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_comes_of_series(wild in vec((0..3usize, first_step(), step_nanos(), vec(value(), 1..MOST)), 1..10)) {
        let (keys, records) = (keys(["load", "other", "third"]), (1..).take(MOST).collect::<Vec<RecordId>>());
        let windows = wild.iter().map(|(name, first_step, step_nanos, points)| {
            Window::Series(SeriesWindow {
                key: &keys[*name],
                kind: SeriesKind::Gauge,
                start_unix_nano: first_step.saturating_mul(*step_nanos),
                step_nanos: *step_nanos,
                points,
                records: &records[..points.len()],
                service: &keys[*name].stream,
            })
        });
        survive(Signal::Series, &windows.collect::<Vec<_>>());
    }

    #[test]
    fn whatever_comes_of_instances(
        wild in vec((0..3usize, first_step(), step_nanos(), any_columns(), vec(value(), 1..MOST)), 1..10),
    ) {
        let (keys, service) = (keys(["a", "b", "c"]), Arc::<str>::from("test"));
        let windows = wild.iter().map(|(name, first_step, step_nanos, columns, values)| {
            let n_rows = values.len().checked_div(columns.len()).unwrap_or(1);
            Window::Group(GroupWindow {
                key: &keys[*name],
                columns,
                start_unix_nano: first_step.saturating_mul(*step_nanos),
                step_nanos: *step_nanos,
                n_rows,
                values: &values[..n_rows * columns.len()],
                service: &service,
            })
        });
        let windows = windows.filter(|window| window.as_group().is_some_and(|group| group.n_rows > 0));
        survive(Signal::Groups, &windows.collect::<Vec<_>>());
    }

    #[test]
    fn whatever_comes_of_spans(spans in any_spans(), cut in 1..40usize) {
        let (assembler, station) = assembled(&spans, cut);
        survive(Signal::Traces, &assembler.ready());
        survive(Signal::Services, &station.ready());
    }
}
