use std::sync::Arc;

use faultline_core::{
    Detector, DetectorError, LogEntry, LogWindow, Numbers, Score, TemplateId, TemplateTexts, Window, WindowKey,
    WindowState,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{Config, LogSed, Model, graph::Lag};
use crate::{
    Algorithm,
    testing::{Session, score_all},
};

const MS: i64 = 1_000_000;

/// A session with millisecond times and services.
struct Trace {
    key: WindowKey,
    records: Vec<LogEntry>,
    services: Vec<Arc<str>>,
}

/// What happens to a request.
#[derive(Clone, Copy, Default)]
struct Fault {
    /// Milliseconds that the stock service loses.
    delay_ms: i64,
    /// The payment service never answers.
    payment_is_lost: bool,
}

impl Trace {
    /// A request: the front end (service 0: template 1 begins, 2 ends) asks stock (service 1) and payment (service 2);
    /// each begins (10) within 60 ms and ends (11) after 5 to 15 ms of work. A heartbeat (99) falls anywhere.
    fn of(name: &str, rng: &mut ChaCha8Rng, fault: Fault) -> Self {
        let mut lines: Vec<(i64, u64, u32)> = Vec::new();
        let begin = [(); 2].map(|()| MS + rng.random_range(0..60 * MS));
        let mut work = |extra: i64| 5 * MS + rng.random_range(0..10 * MS) + extra * MS;
        let (stock_end, payment_end) = (begin[0] + work(fault.delay_ms), begin[1] + work(0));
        lines.extend([(0, 1, 0), (begin[0], 10, 1), (stock_end, 11, 1), (begin[1], 10, 2)]);
        if !fault.payment_is_lost {
            lines.push((payment_end, 11, 2));
        }
        lines.push((stock_end.max(payment_end) + work(0), 2, 0));
        lines.push((rng.random_range(-50 * MS..100 * MS), 99, 0));
        lines.sort_unstable();
        let entry = |(idx, &(time, template, service)): (usize, &(i64, u64, u32))| LogEntry {
            template: TemplateId(template),
            time_unix_nano: time / MS * MS,
            record: idx as u64 + 1,
            service,
            severity_number: 9,
            is_since_deploy: false,
        };
        Self {
            key: WindowKey { stream: Arc::from("shop"), session: Arc::from(name) },
            records: lines.iter().enumerate().map(entry).collect(),
            services: ["front", "stock", "payment"].map(Arc::from).to_vec(),
        }
    }

    fn window(&self, n_records: usize, state: WindowState) -> Window<'_> {
        let (key, records, services) = (&self.key, &self.records[..n_records], &self.services);
        Window::Log(LogWindow {
            key,
            records,
            numbers: Numbers::default(),
            fresh: 0,
            n_dropped: 0,
            state,
            is_stream: false,
            services,
            templates: TemplateTexts::NONE,
        })
    }

    fn closed(&self) -> Window<'_> {
        self.window(self.records.len(), WindowState::Closed)
    }
}

fn traces(n: usize, seed: u64, fault: Fault) -> Vec<Trace> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..n).map(|i| Trace::of(&format!("{seed}-{i}"), &mut rng, fault)).collect()
}

fn shop() -> Model {
    let traces = traces(400, 1, Fault::default());
    let windows: Vec<Window<'_>> = traces.iter().map(Trace::closed).collect();
    LogSed::fit(&Config::default(), &windows, 0).expect("four hundred requests suffice")
}

fn score_of(model: &mut Model, window: Window<'_>) -> Score {
    score_all(model, &[window])[0].expect("it holds fresh records")
}

/// Sessions like HDFS blocks: three writers at once, whose records race, and a deletion in most sessions.
fn blocks(n: u64) -> Vec<Session> {
    let writes: [&[u64]; 3] = [
        &[1, 1, 2, 1, 3, 4, 3, 4, 5, 3, 4, 5, 5],
        &[2, 1, 1, 1, 3, 4, 5, 3, 4, 5, 3, 4, 5],
        &[1, 2, 1, 1, 3, 3, 4, 5, 4, 5, 3, 4, 5],
    ];
    (0..n)
        .map(|i| {
            let mut templates = writes[(i % 3) as usize].to_vec();
            if i % 5 != 0 {
                templates.extend([6, 6, 6, 7, 7, 7]);
            }
            Session::of(&format!("block-{i}"), &templates)
        })
        .collect()
}

fn fitted(sessions: &[Session]) -> Model {
    let windows: Vec<Window<'_>> = sessions.iter().map(Session::closed).collect();
    LogSed::fit(&Config::default(), &windows, 0).expect("enough sessions")
}

#[test]
fn the_graph_holds_the_chain_without_detours_and_drops_the_heartbeat() {
    let model = shop();
    let mut edges: Vec<(u64, u64)> = model.edges().into_iter().map(|(from, to)| (from.0, to.0)).collect();
    edges.sort_unstable();
    assert_eq!(edges, [(1, 10), (1, 10), (10, 11), (10, 11), (11, 2), (11, 2)], "one chain for each service");
    assert_eq!(model.borders(), (vec![TemplateId(1)], vec![TemplateId(2)]));
}

#[test]
fn normal_concurrent_requests_are_silent() {
    let mut model = shop();
    let scores: Vec<f64> =
        traces(500, 2, Fault::default()).iter().map(|trace| score_of(&mut model, trace.closed()).value).collect();
    let n_alarms = scores.iter().filter(|score| **score > 0.0).count();
    assert!(n_alarms <= 5, "{n_alarms} of 500: {scores:?}");
}

#[test]
fn a_planted_delay_is_a_latency_anomaly_of_the_slowed_service() {
    let mut model = shop();
    for trace in traces(50, 3, Fault { delay_ms: 120, ..Fault::default() }) {
        let score = score_of(&mut model, trace.closed());
        assert!(score.value > 5.0, "{score:?}");
        let culprit = &trace.records[score.culprit];
        assert_eq!((&*trace.services[culprit.service as usize], culprit.template.0), ("stock", 11));
        let evidence = model.explain(&trace.closed(), &score);
        assert!(evidence.summary.starts_with("latency: "), "{}", evidence.summary);
        assert!(evidence.summary.contains("template 11"), "{}", evidence.summary);
        let (lag, expected) = (evidence.figures["lag_ms"], evidence.figures["expected_lag_ms"]);
        assert!((120.0..=140.0).contains(&lag) && (10.0..60.0).contains(&expected), "{lag} {expected}");
        assert_eq!((evidence.figures["edge_from"], evidence.figures["edge_to"]), (10.0, 11.0));
    }
}

#[test]
fn a_missing_successor_is_a_sequence_anomaly_of_the_service_that_waits() {
    let mut model = shop();
    for trace in traces(50, 4, Fault { payment_is_lost: true, ..Fault::default() }) {
        let score = score_of(&mut model, trace.closed());
        let culprit = &trace.records[score.culprit];
        assert!(score.value > 5.0, "{score:?}");
        let evidence = model.explain(&trace.closed(), &score);
        assert_eq!(&*trace.services[culprit.service as usize], "payment", "{}", evidence.summary);
        assert_eq!(evidence.summary, "sequence: template 10 was not followed by template 11 by the end of the session");
        assert_eq!(evidence.expected[0].template, TemplateId(11));
        assert!(evidence.expected[0].probability > 0.99);
    }
}

#[test]
fn a_successor_that_is_long_overdue_is_missed_before_the_session_closes() {
    let mut model = shop();
    let mut trace = traces(1, 5, Fault { payment_is_lost: true, ..Fault::default() }).remove(0);
    trace.records.retain(|record| record.template.0 != 2);
    let n = trace.records.len();
    assert_eq!(score_of(&mut model, trace.window(n, WindowState::Open)).value, 0.0, "it may still come");
    let heartbeat = *trace.records.iter().find(|record| record.template.0 == 99).expect("each has one");
    trace.records.push(LogEntry { time_unix_nano: trace.records[n - 1].time_unix_nano + 5_000 * MS, ..heartbeat });
    let score = score_of(&mut model, trace.window(n + 1, WindowState::Open));
    let summary = model.explain(&trace.window(n + 1, WindowState::Open), &score).summary;
    assert!(score.value > 5.0 && summary.contains("in time"), "{score:?} {summary}");
}

#[test]
fn racing_replicas_are_silent_and_a_lost_or_surplus_record_is_not() {
    let mut model = fitted(&blocks(300));
    for block in blocks(15) {
        assert_eq!(score_of(&mut model, block.closed()).value, 0.0, "{:?}", block.key);
    }
    for (what, templates, kind) in [
        ("two writers that stop", &[1, 1, 2, 1, 3, 4, 5][..], "sequence"),
        ("a deletion without its order", &[1, 1, 2, 1, 3, 4, 3, 4, 5, 3, 4, 5, 5, 6, 6, 7, 7, 7], "redundancy"),
        ("an order without its deletion", &[1, 1, 2, 1, 3, 4, 3, 4, 5, 3, 4, 5, 5, 6, 6, 6, 7, 7], "sequence"),
        ("an unknown template", &[1, 1, 2, 1, 3, 4, 3, 4, 5, 3, 4, 5, 5, 8], "redundancy"),
    ] {
        let session = Session::of(what, templates);
        let score = score_of(&mut model, session.closed());
        let summary = model.explain(&session.closed(), &score).summary;
        assert!(score.value > 4.0 && summary.starts_with(kind), "{what}: {score:?} {summary}");
    }
}

#[test]
fn a_few_abnormal_sessions_in_training_change_neither_edges_nor_verdicts() {
    let mut sessions = blocks(300);
    sessions.extend((0..6).map(|i| Session::of(&format!("bad-{i}"), &[1, 2])));
    let mut model = fitted(&sessions);
    assert_eq!(model.edges(), fitted(&blocks(300)).edges());
    assert!(score_of(&mut model, Session::of("x", &[1, 2]).closed()).value > 3.0);
}

#[test]
fn one_outlier_does_not_stretch_a_lag_and_a_coarse_clock_does_not_shrink_it() {
    let mut samples: Vec<i64> = (0..1000).map(|i| (10 + i % 5) * MS).collect();
    samples.push(3_600_000 * MS);
    let lag = Lag::of(&mut samples);
    assert!(lag.surprise(60 * MS, MS) > 7.0, "{}", lag.surprise(60 * MS, MS));
    assert!(lag.surprise(14 * MS, MS) < 5.0, "{}", lag.surprise(14 * MS, MS));
    let second = 1000 * MS;
    let always_zero = Lag::of(&mut [0; 500]);
    assert!(always_zero.surprise(second, second) < 5.0, "one tick of a coarse clock is nothing");
    assert!(always_zero.surprise(10 * second, second) > 10.0);
    let quantile = lag.quantile_nanos(0.99, MS);
    assert!((lag.surprise(quantile as i64, MS) + 0.01f64.ln()).abs() < 0.02, "the inverse of the surprise");
}

#[test]
fn only_what_is_fresh_or_missing_counts() {
    let mut model = fitted(&blocks(300));
    let session = Session::of("old", &[8, 1, 1, 2, 1, 3, 4, 3, 4, 5, 3, 4, 5, 5]);
    assert_eq!(score_of(&mut model, session.window(1, true)).value, 0.0, "the unknown record has been reported");
    assert_eq!(score_all(&mut model, &[session.window(14, false)]), [None]);
    let session = Session::of("cut", &[3, 4]);
    let Window::Log(mut cut) = session.window(0, false) else { unreachable!("a log window") };
    cut.n_dropped = 9;
    assert_eq!(score_of(&mut model, Window::Log(cut)).value, 0.0, "what explains them has been cut off");
}

#[test]
fn a_snapshot_is_the_same_model_and_a_damaged_one_is_refused() {
    let mut model = shop();
    let bytes = model.snapshot().expect("numbers");
    let mut loaded = LogSed::load(&Config::default(), &bytes).expect("just written");
    assert_eq!((loaded.snapshot().expect("numbers"), loaded.version()), (bytes.clone(), model.version()));
    let slow = traces(3, 6, Fault { delay_ms: 80, ..Fault::default() });
    for trace in &slow {
        assert_eq!(score_of(&mut loaded, trace.closed()), score_of(&mut model, trace.closed()));
    }
    let text = String::from_utf8(bytes).expect("JSON");
    for damaged in
        [text.replace("\"to\":1,", "\"to\":1000,"), text.replace("\"n_from\":", "\"n_fron\":"), text[1..].to_owned()]
    {
        assert_ne!(damaged, text);
        let refused = LogSed::load(&Config::default(), damaged.as_bytes());
        assert!(matches!(refused, Err(DetectorError::Snapshot { .. })), "{damaged}");
    }
}

#[test]
fn a_key_out_of_range_is_named() {
    let session = Session::of("a", &[1]);
    let refused =
        |config: Config| LogSed::fit(&config, &[session.closed()], 0).map(|_| ()).expect_err("refused").to_string();
    assert!(refused(Config { confidence: 0.2, ..Config::default() }).contains("key `confidence`"));
    assert!(refused(Config { lag_quantile: 1.0, ..Config::default() }).contains("key `lag_quantile`"));
    let error = LogSed::fit(&Config::default(), &[], 0).map(|_| ()).expect_err("nothing to mine").to_string();
    assert!(error.contains("no training window"), "{error}");
}

/// The records of `session` without a session key: what one service writes.
fn stream(session: &Session, state: WindowState) -> Window<'_> {
    let Window::Log(log) = session.window(0, true) else { unreachable!("sessions are logs") };
    Window::Log(LogWindow { is_stream: true, state, ..log })
}

#[test]
fn a_stream_without_sessions_is_mined_but_not_judged() {
    let sessions = blocks(100);
    let heartbeats = Session::of("heartbeat", &[8; 50]);
    let mut windows: Vec<Window<'_>> = sessions.iter().map(Session::closed).collect();
    windows.push(stream(&heartbeats, WindowState::Open));
    let mut model = LogSed::fit(&Config::default(), &windows, 0).expect("enough sessions");
    let unknown = Session::of("heartbeat", &[8, 9]);
    assert_eq!(score_all(&mut model, &[stream(&unknown, WindowState::Open)]), [None]);
    // In a session the heartbeat of a stream is out of place.
    assert!(score_of(&mut model, Session::of("block", &[8]).closed()).value > 3.0);
}

#[test]
fn a_service_under_another_name_is_known_by_the_templates_that_only_it_writes() {
    let sessions = blocks(100);
    let mut model = fitted(&sessions);
    let renamed = [Arc::from("service-v2")];
    let Window::Log(log) = sessions[1].closed() else { unreachable!("sessions are logs") };
    let score = score_of(&mut model, Window::Log(LogWindow { services: &renamed, ..log }));
    assert_eq!(score, score_of(&mut model, Window::Log(log)));
}

mod feedback;
mod overdue;
mod streams;
