mod adaptation;
mod verdicts;

use faultline_core::{AlertState, Detector, DetectorError, Evidence, Overdue, Score, Signal};
use serde_json::json;

use super::*;
use crate::{
    algorithm::Algorithm,
    testing::{Session, synthetic},
};

/// The cheap detectors, and a warm-up of `sessions`.
fn config(sessions: u64) -> MonitorConfig {
    let detectors = ["new-template", "length", "ngram", "count-vector"].map(|name| (name.to_owned(), json!({})));
    MonitorConfig {
        detectors: detectors.into(),
        warm_up: WarmUp { sessions: Some(sessions), ..WarmUp::default() },
        ..MonitorConfig::default()
    }
}

fn warmed_up(config: MonitorConfig) -> Monitor {
    let sessions = config.warm_up.sessions.expect("given") as usize;
    let mut monitor = Monitor::new(config).expect("valid");
    for (session, _) in synthetic(1, sessions, 0.0) {
        monitor.process(&[session.closed()]);
    }
    assert!(monitor.is_in_service());
    monitor
}

#[test]
fn warm_up_reports_progress_then_fits_and_calibrates_every_detector() {
    let mut monitor = Monitor::new(config(100)).expect("valid");
    let sessions = synthetic(1, 100, 0.0);
    let mut events = Vec::new();
    for (idx, (session, _)) in sessions.iter().enumerate() {
        assert!((monitor.progress() - idx as f64 / 100.0).abs() < 1e-9);
        assert!(!monitor.is_in_service());
        let outcome = monitor.process(&[session.closed()]);
        assert_eq!((outcome.scored.len(), outcome.alerts.len()), (0, 0));
        events.extend(outcome.events);
    }
    assert_eq!(monitor.progress(), 1.0);
    let fitted: Vec<_> = events
        .iter()
        .map(|event| match event {
            MonitorEvent::Fitted { detector, n_training, n_calibration, .. } => {
                (*detector, *n_training, *n_calibration)
            }
            other => panic!("{other:?}"),
        })
        .collect();
    let expected = ["new-template", "length", "ngram", "count-vector"].map(|name| (name, 70, 30));
    assert_eq!(fitted, expected);
}

#[test]
fn numbers_are_asked_for_where_a_detector_reads_them() {
    assert!(!Monitor::new(MonitorConfig::default()).expect("valid").reads_numbers());
    let mut with_numbers = config(100);
    with_numbers.detectors.insert("deeplog".to_owned(), json!({"parameters": true}));
    assert!(Monitor::new(with_numbers).expect("valid").reads_numbers());
}

#[test]
fn spoiled_sessions_alert_and_normal_ones_do_not() {
    let mut monitor = warmed_up(config(1_000));
    let (mut hits, mut misses, mut false_alarms) = (0, 0, 0);
    for (session, spoiled) in synthetic(2, 500, 0.1) {
        let alerted = !monitor.process(&[session.closed()]).alerts.is_empty();
        match (spoiled, alerted) {
            (true, true) => hits += 1,
            (true, false) => misses += 1,
            (false, true) => false_alarms += 1,
            (false, false) => {}
        }
    }
    assert!(hits > 30 && misses == 0 && false_alarms == 0, "{hits} hits, {misses} misses, {false_alarms} false alarms");
}

#[test]
fn a_session_open_when_warm_up_ends_is_scored_from_then_on() {
    let mut monitor = Monitor::new(config(50)).expect("valid");
    let open = Session::of("open", &[11, 12, 99]);
    let sessions = synthetic(1, 50, 0.0);
    // What a session has said by then is learned, what it says later is scored.
    monitor.process(&[Session::of("open", &[11, 12]).window(0, false)]);
    let mut batch: Vec<_> = sessions.iter().map(|(session, _)| session.closed()).collect();
    batch.push(open.window(2, false));
    let outcome = monitor.process(&batch);
    assert_eq!(outcome.events.len(), 4);
    assert!(outcome.scored.iter().all(|scored| scored.window == 50), "only what came after the warm-up is scored");
    let alerts: Vec<_> = outcome.alerts.iter().map(|alert| (alert.detector.as_str(), alert.session.as_str())).collect();
    assert_eq!(alerts, [("new-template", "open"), ("ngram", "open")]);
}

#[test]
fn what_alerted_is_not_learned() {
    let mut monitor = warmed_up(config(100));
    for round in 0..20 {
        let poison = Session::of(&format!("p{round}"), &[11, 12, 99]);
        let alerts = monitor.process(&[poison.closed()]).alerts;
        assert!(alerts.iter().any(|alert| alert.detector == "new-template"), "round {round} was taken for normal");
    }
    // The same for a harmless window of a session whose alert fires.
    let session = Session::of("s", &[99, 11, 98, 98]);
    monitor.process(&[session.window(0, false)]);
    assert!(monitor.alerter.is_open(&session.key));
}

#[test]
fn what_is_normal_is_learned_after_it_was_scored() {
    // A significance so small that nothing alerts: everything is learned.
    let alerting = AlertConfig { significance: 1e-12, ..AlertConfig::default() };
    let mut monitor = warmed_up(MonitorConfig { alerting, ..config(100) });
    let new = Session::of("n", &[11, 12, 99]);
    let score = |outcome: &Outcome| {
        outcome.scored.iter().find(|scored| scored.detector == "new-template").map(|scored| scored.score.value)
    };
    assert_eq!(score(&monitor.process(&[new.closed()])), Some(1.0));
    assert_eq!(score(&monitor.process(&[new.closed()])), Some(0.0));
}

#[test]
fn an_alert_is_resolved_with_its_session() {
    let mut monitor = warmed_up(config(100));
    let session = Session::of("s", &[11, 12, 99, 41]);
    let fired = monitor.process(&[session.window(0, false)]).alerts;
    assert!(fired.iter().all(|alert| alert.state == AlertState::Firing) && !fired.is_empty());
    let ended = monitor.process(&[session.window(4, true)]).alerts;
    let resolved: Vec<_> = ended.iter().filter(|alert| alert.state == AlertState::Resolved).map(|a| a.id).collect();
    assert_eq!(resolved, fired.iter().map(|alert| alert.id).collect::<Vec<_>>());
}

#[test]
fn the_same_input_gives_the_same_alerts() {
    let run = || {
        let mut monitor = warmed_up(config(300));
        let sessions = synthetic(3, 200, 0.2);
        let mut alerts: Vec<_> =
            sessions.iter().flat_map(|(session, _)| monitor.process(&[session.closed()]).alerts).collect();
        alerts.extend(monitor.finish());
        serde_json::to_string(&alerts).expect("alerts are JSON")
    };
    let first = run();
    assert!(first.contains("new-template"));
    assert_eq!(first, run());
}

#[test]
fn artifacts_carry_the_models_to_another_monitor() {
    let mut monitor = warmed_up(config(300));
    let artifacts = monitor.artifacts("parser-1").expect("they can be written");
    let text = serde_json::to_string(&artifacts).expect("artifacts are JSON");
    let artifacts: Vec<Artifact> = serde_json::from_str(&text).expect("its own");
    assert_eq!(artifacts[0].parser_snapshot_id, "parser-1");
    assert_eq!((artifacts[0].provenance.n_training, artifacts[0].provenance.n_calibration), (210, 90));
    let mut other = Monitor::from_artifacts(&artifacts, AlertConfig::default()).expect("they can be read");
    assert_eq!(other.progress(), 1.0);
    for (session, _) in synthetic(4, 100, 0.3) {
        assert_eq!(monitor.process(&[session.closed()]), other.process(&[session.closed()]));
    }
    let mut forged = artifacts[0].clone();
    forged.version ^= 1;
    let error = Monitor::from_artifacts(&[forged], AlertConfig::default()).expect_err("another version").to_string();
    assert!(error.contains("artifact of detector `new-template`: its snapshot is of version"), "{error}");
}

#[test]
fn warm_up_starts_again_when_nothing_can_be_fitted() {
    let detectors = [("length".to_owned(), json!({"min_support": 1000}))].into();
    let mut monitor = Monitor::new(MonitorConfig { detectors, ..config(10) }).expect("valid");
    let sessions = synthetic(1, 10, 0.0);
    let windows: Vec<_> = sessions.iter().map(|(session, _)| session.closed()).collect();
    let events = monitor.process(&windows).events;
    assert_eq!(
        events,
        [
            MonitorEvent::FitFailed {
                detector: "length",
                reason: "detector length cannot be fitted: 7 ended sessions, `min_support` asks for 1000".to_owned()
            },
            MonitorEvent::WarmUpRestarted
        ]
    );
    assert_eq!(monitor.progress(), 0.0);
}

#[test]
fn warm_up_memory_is_bounded() {
    let warm_up = WarmUp { sessions: Some(u64::MAX), span_ms: None, records: None, max_records: 400 };
    let mut monitor = Monitor::new(MonitorConfig { warm_up, ..config(1) }).expect("valid");
    let sessions = synthetic(1, 100, 0.0);
    let n_needed = sessions.iter().take_while(|(session, _)| {
        monitor.process(&[session.closed()]);
        !monitor.is_in_service()
    });
    assert!(n_needed.count() < 60);
}

#[test]
fn every_given_warm_up_condition_must_hold() {
    let warm_up = WarmUp { sessions: Some(2), span_ms: Some(10_000), records: Some(20), ..WarmUp::default() };
    let mut collector = Collector::default();
    let progress: Vec<f64> = (synthetic(1, 7, 0.0).iter())
        .map(|(session, _)| {
            collector.take(&session.closed());
            collector.progress(&warm_up, Signal::Logs)
        })
        .collect();
    assert!(progress[1] < 0.3 && progress[4] < 1.0 && progress[5] >= 1.0, "{progress:?}");
}

#[test]
fn mistakes_in_the_configuration_are_named() {
    let message = |config: MonitorConfig| {
        let error = Monitor::new(config).expect_err("a mistake");
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        format!("{error}: {}", cause.unwrap_or_default())
    };
    let with = |name: &str, value| MonitorConfig { detectors: [(name.to_owned(), value)].into(), ..config(1) };
    assert_eq!(
        message(with("new-templates", json!({}))),
        "detector `new-templates`: detector new-templates: no such detector; did you mean `new-template`?"
    );
    assert_eq!(
        message(with("ngram", json!({"max_ngram": 1}))),
        "detector `ngram`: detector ngram: unknown key `max_ngram`; did you mean `max_ngrams`?"
    );
    // Those of metrics and traces are looked at, though a monitor of logs has none of them.
    assert!(message(with("donut", json!({"windw": 1}))).starts_with("detector `donut`: "));
    assert!(Monitor::new(with("donut", json!({}))).expect("valid").models().is_empty());
    assert!(message(MonitorConfig { calibration_share: 1.0, ..config(1) }).starts_with("key `calibration_share`"));
}

/// Scores NaN when it sees template 666.
struct Odd;

#[derive(Debug)]
struct OddModel;

impl Algorithm for Odd {
    const NAME: &'static str = "odd";
    const SUMMARY: &'static str = "breaks";
    const PAPER: &'static str = "none";
    const SIGNAL: Signal = Signal::Logs;
    const PUBLISHED_THRESHOLD: Option<f64> = None;
    type Config = WarmUp;
    type Model = OddModel;

    fn fit(_: &WarmUp, _: &[Window<'_>], _: u64) -> Result<OddModel, DetectorError> {
        Ok(OddModel)
    }

    fn load(_: &WarmUp, _: &[u8]) -> Result<OddModel, DetectorError> {
        Ok(OddModel)
    }
}

impl Detector for OddModel {
    fn name(&self) -> &'static str {
        "odd"
    }
    fn version(&self) -> u64 {
        1
    }
    fn signal(&self) -> Signal {
        Signal::Logs
    }
    fn score(&mut self, windows: &[Window<'_>], scores: &mut Vec<Option<Score>>) {
        scores.extend(windows.iter().filter_map(Window::as_log).map(|log| {
            let breaks = log.records.iter().any(|record| record.template.0 == 666);
            Some(Score { value: if breaks { f64::NAN } else { 0.0 }, culprit: 0 })
        }));
    }
    fn advance(&mut self, watermark_unix_nano: i64) -> Vec<Overdue> {
        let Session { key, records, .. } = Session::of("late", &[666]);
        let score = Score { value: f64::NAN, culprit: 0 };
        let overdue = Overdue { key, silent: None, records, services: Vec::new(), is_stream: false, score };
        Vec::from_iter((watermark_unix_nano == 666).then_some(overdue))
    }
    fn explain(&self, _: &Window<'_>, _: &Score) -> Evidence {
        Evidence::default()
    }
    fn learn(&mut self, _: &[Window<'_>]) {}
    fn snapshot(&self) -> Result<Vec<u8>, DetectorError> {
        Ok(Vec::new())
    }
}

#[test]
fn a_model_that_returns_no_score_is_sidelined_loudly_and_alone() {
    static ODD: Entry = Entry::of::<Odd>();
    let normal = Session::of("a", &[1, 2]);
    let training = [normal.closed(), normal.closed()];
    let odd = Model::fit(&ODD, &Value::Null, &training, &training, 0.0, 0).expect("it fits");
    let ngram =
        Model::fit(entry("ngram").expect("listed"), &Value::Null, &training, &training, 0.0, 0).expect("it fits");
    let mut monitor = Monitor::fitted(vec![odd, ngram], AlertConfig::default()).expect("two models");
    let bad = Session::of("b", &[1, 666]);
    let outcome = monitor.process(&[normal.closed(), bad.closed()]);
    let reason = "scored NaN for session b of stream test".to_owned();
    assert_eq!(outcome.events, [MonitorEvent::Sidelined { detector: "odd", reason }]);
    assert!(outcome.scored.iter().all(|scored| scored.detector == "ngram"));
    assert_eq!(outcome.scored.len(), 2);
    assert!(monitor.models()[0].sidelined().is_some());
    let outcome = monitor.process(&[normal.closed()]);
    assert_eq!((outcome.events.len(), outcome.scored.len()), (0, 1), "said once");
}

#[test]
fn a_deferred_fit_gives_the_models_that_an_immediate_one_gives() {
    let sessions: Vec<Session> = synthetic(4, 300, 0.0).into_iter().map(|(session, _)| session).collect();
    let windows: Vec<Window<'_>> = sessions.iter().map(Session::closed).collect();
    let mut immediate = Monitor::new(config(300)).expect("valid");
    immediate.process(&windows);
    let mut deferring = Monitor::new(config(300)).expect("valid").deferring_fits();
    assert_eq!(deferring.process(&windows[..299]).events, []);
    assert!(deferring.begin_fit().is_none(), "one session is missing");
    assert_eq!(deferring.process(&windows[299..]).events, []);
    let job = deferring.begin_fit().expect("the warm-up is complete");
    assert!(!deferring.is_in_service() && deferring.progress() < 1.0 && deferring.begin_fit().is_none());
    deferring.conclude(job.run());
    let versions = |monitor: &Monitor| monitor.models().iter().map(Model::version).collect::<Vec<_>>();
    assert!(deferring.is_in_service());
    assert_eq!(versions(&deferring), versions(&immediate));
}

#[test]
fn a_model_that_is_overdue_by_no_number_is_sidelined_with_the_next_scores() {
    static ODD: Entry = Entry::of::<Odd>();
    let normal = Session::of("a", &[1, 2]);
    let training = [normal.closed(), normal.closed()];
    let odd = Model::fit(&ODD, &Value::Null, &training, &training, 0.0, 0).expect("it fits");
    let mut monitor = Monitor::fitted(vec![odd], AlertConfig::default()).expect("a model");
    assert_eq!((monitor.advance_to(665), monitor.advance_to(666)), (Vec::new(), Vec::new()));
    let reason = "scored NaN for overdue session late of stream test".to_owned();
    let outcome = monitor.process(&[normal.closed()]);
    assert_eq!(outcome.events, [MonitorEvent::Sidelined { detector: "odd", reason }]);
    assert_eq!(monitor.process(&[normal.closed()]).events, [], "said once");
}

/// LogSed alone, which decides by the significance.
fn waiting() -> Monitor {
    let alerting =
        AlertConfig { budget: crate::Budget::UNLIMITED, false_discovery_rate: 1.0, ..AlertConfig::default() };
    let detectors = [("logsed".to_owned(), json!({}))].into();
    warmed_up(MonitorConfig { detectors, alerting, ..config(1_000) })
}

/// A session that stops in the middle, and when.
fn silent() -> (Session, i64) {
    let mut session = Session::of("silent", &[11, 12, 21]);
    for (record, at) in session.records.iter_mut().zip((1..).map(|step: i64| step * 60_000_000)) {
        record.time_unix_nano = at;
    }
    (session, 180_000_000)
}

#[test]
fn a_session_that_falls_silent_alerts_when_time_passes_and_stays_one_alert_to_its_end() {
    const HOUR: i64 = 3_600_000_000_000;
    let mut monitor = waiting();
    let n_taken = monitor.recent.n_taken();
    let (session, end) = silent();
    let outcome = monitor.process(&[session.window(0, false)]);
    assert_eq!((outcome.scored.len(), outcome.alerts.len(), monitor.advance_to(end).len()), (1, 0, 0), "it may go on");
    let alerts = monitor.advance_to(end + HOUR);
    assert_eq!(alerts.len(), 1, "{alerts:?}");
    let alert = &alerts[0];
    assert_eq!((alert.state, &*alert.detector, &*alert.session), (AlertState::Firing, "logsed", "silent"));
    let summary = &alert.evidence.summary;
    assert!(summary.starts_with("sequence: template ") && summary.ends_with(" in time"), "{summary}");
    let status = monitor.status(end + HOUR).remove(0);
    assert_eq!((status.n_sessions, status.n_alerts), (1, 1));

    assert_eq!(monitor.advance_to(end + 2 * HOUR), [], "told once, and not over for being quiet");
    let ended = monitor.process(&[session.window(3, true)]).alerts;
    assert_eq!(ended.len(), 1);
    assert_eq!((ended[0].id, ended[0].state, ended[0].n_windows), (alert.id, AlertState::Resolved, 2));
    assert!(ended[0].p_value <= alert.p_value);
    assert_eq!((monitor.alert_stats().n_alerts, monitor.recent.n_taken()), (1, n_taken), "nothing is learned from it");
}

#[test]
fn nothing_is_overdue_that_a_model_has_not_judged_in_service() {
    let mut monitor = waiting();
    let (session, end) = silent();
    monitor.process(&[session.window(0, false)]);
    // As after a rollback: the model that waits is not the one that has judged.
    monitor.alerter.forget("logsed");
    assert_eq!(monitor.advance_to(end + 3_600_000_000_000), []);
}
