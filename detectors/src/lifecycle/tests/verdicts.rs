//! What people say of alerts, and merges of templates.

use std::sync::Arc;

use faultline_core::{AlertId, TemplateId, TemplateTexts};
use serde_json::json;

use super::{super::*, config, warmed_up};
use crate::testing::{Session, synthetic};

const SECOND: i64 = 1_000_000_000;

/// The `n`-th session after the warm-up.
fn later(n: u32, templates: &[u64]) -> Session {
    let mut session = Session::of(&format!("later-{n}"), templates);
    for record in &mut session.records {
        record.record += 1_000_000 + u64::from(n) * 1_000;
        record.time_unix_nano += 10_000 * SECOND + i64::from(n) * 100 * SECOND;
    }
    session
}

fn with_ensemble() -> Monitor {
    let deeplog = json!({"hidden": 16, "layers": 1, "epochs": 20, "max_training_windows": 60_000});
    let mut config = config(300);
    config.detectors.retain(|name, _| ["new-template", "ngram"].contains(&name.as_str()));
    config.detectors.insert("ensemble".to_owned(), json!({"deeplog": deeplog}));
    warmed_up(config)
}

fn accept(monitor: &mut Monitor, alert: &Alert) -> Result<usize, NotLearned> {
    monitor.accept(alert, &[Arc::from("service")], TemplateTexts::NONE)
}

fn alerting(alerts: &[Alert]) -> Vec<&str> {
    alerts.iter().map(|alert| alert.detector.as_str()).collect()
}

fn merged_share(monitor: &Monitor, detector: &str) -> f64 {
    let status = monitor.status(0).into_iter().find(|status| status.detector == detector);
    status.expect("it is in service").merged_share
}

#[test]
fn what_a_person_calls_normal_alerts_no_more_and_everything_else_does() {
    let mut monitor = with_ensemble();
    let backup = [11, 12, 21, 99, 22, 41, 42, 51, 52];
    let alerts = monitor.process(&[later(1, &backup).closed()]).alerts;
    for expected in ["new-template", "ngram", "ensemble"] {
        assert!(alerting(&alerts).contains(&expected), "{:?}", alerting(&alerts));
    }
    let versions: Vec<u64> = monitor.models().iter().map(Model::version).collect();
    for alert in &alerts {
        let learned = accept(&mut monitor, alert);
        assert!(learned.is_ok_and(|n| n > 0), "{}: {learned:?}", alert.detector);
    }
    for (model, version) in monitor.models().iter().zip(versions) {
        let is_another = alerting(&alerts).contains(&model.name());
        assert_eq!(model.version() != version, is_another, "{}: who has learned is another model", model.name());
        assert_eq!(model.artifact("none").expect("written").version, model.version());
    }
    let again = monitor.process(&[later(2, &backup).closed()]).alerts;
    assert!(again.is_empty(), "{:?}", alerting(&again));
    // Piece by piece, as a growing session comes.
    let growing = later(3, &backup);
    assert!(monitor.process(&[growing.window(0, false)]).alerts.is_empty());
    assert!(monitor.process(&[growing.window(backup.len(), true)]).alerts.is_empty());
    let other = monitor.process(&[later(4, &[11, 12, 21, 98, 22, 41, 42, 51, 52]).closed()]).alerts;
    for expected in ["new-template", "ngram", "ensemble"] {
        assert!(alerting(&other).contains(&expected), "{:?}", alerting(&other));
    }
    let normal = synthetic(9, 100, 0.0);
    let n_alerts: usize = normal.iter().map(|(session, _)| monitor.process(&[session.closed()]).alerts.len()).sum();
    assert!(n_alerts <= 2, "{n_alerts} alerts: normal sessions stay normal");
}

#[test]
fn an_alert_of_an_open_session_is_accepted_with_all_that_has_come_since() {
    let mut monitor = warmed_up(config(300));
    let session = later(1, &[11, 12, 21, 99, 22, 98, 41, 42, 51, 52]);
    let mut growing = session.clone();
    growing.records.truncate(4);
    let alerts = monitor.process(&[growing.window(0, false)]).alerts;
    let alert = alerts.iter().find(|alert| alert.detector == "new-template").expect("99 is unknown");
    // It goes on, and ends, before anybody has looked.
    monitor.process(&[session.window(4, true)]);
    assert_eq!(accept(&mut monitor, alert), Ok(2), "both unknown templates");
    let again = monitor.process(&[later(2, &[11, 12, 21, 22, 98, 99, 41, 42, 51, 52]).closed()]).alerts;
    assert!(!alerting(&again).contains(&"new-template"), "{:?}", alerting(&again));
}

#[test]
fn a_session_that_was_called_normal_teaches_and_one_that_was_not_does_not() {
    let mut monitor = warmed_up(config(300));
    let alerts = monitor.process(&[later(1, &[11, 12, 99]).closed()]).alerts;
    let alert = alerts.first().expect("99 is unknown");
    let n_before = monitor.recent.windows().len();
    assert_eq!(monitor.confirm(alert), 0, "what alerted was kept out");
    accept(&mut monitor, alert).expect("it is held");
    accept(&mut monitor, alert).expect("it is held");
    assert_eq!(monitor.recent.windows().len(), n_before + 1, "once, however often it is said");
    monitor.process(&[later(2, &[11, 12, 21, 22, 41, 42, 51, 52]).closed()]);
    assert_eq!(monitor.recent.windows().len(), n_before + 2);
    assert_eq!((monitor.confirm(alert), monitor.confirm(alert)), (1, 0));
    assert_eq!(monitor.recent.windows().len(), n_before + 1, "only the session of the alert goes");
}

#[test]
fn a_session_that_is_gone_can_be_brought_back_and_nothing_is_learned_without_one() {
    let session = later(1, &[11, 12, 99]);
    let alerts = warmed_up(config(300)).process(&[session.closed()]).alerts;
    let alert = alerts.iter().find(|alert| alert.detector == "new-template").expect("99 is unknown");
    // Another process, with models of its own.
    let mut monitor = Monitor::new(config(300)).expect("valid");
    assert_eq!(accept(&mut monitor, alert), Err(NotLearned::NotHeld));
    assert_eq!(monitor.accept_window(alert, &session.closed()), Err(NotLearned::NoModel), "it warms up");
    let mut monitor = warmed_up(config(300));
    assert_eq!(accept(&mut monitor, alert), Err(NotLearned::NotHeld));
    assert_eq!(monitor.accept_window(alert, &session.closed()), Ok(1));
    assert_eq!(monitor.accept_window(alert, &session.closed()), Ok(0), "nothing is left to learn");
    let unknown = Alert { id: AlertId(7), detector: "gone".to_owned(), ..alert.clone() };
    assert_eq!(monitor.accept_window(&unknown, &session.closed()), Err(NotLearned::NoModel));
}

#[test]
fn sessions_collected_before_a_merge_are_fitted_on_under_the_new_id() {
    let mut monitor = Monitor::new(config(200)).expect("valid");
    let mut events = Vec::new();
    for (idx, (session, _)) in synthetic(1, 200, 0.0).into_iter().enumerate() {
        if idx == 100 {
            assert_eq!(monitor.merged(&[(TemplateId(21), TemplateId(20))]), [], "there is no model yet");
        }
        events.extend(monitor.process(&[session.closed()]).events);
    }
    assert_eq!(events.len(), 4, "{events:?}");
    assert_eq!(merged_share(&monitor, "ngram"), 0.0);
    let alerts = monitor.process(&[later(1, &[11, 12, 20, 22, 41, 42, 51, 52]).closed()]).alerts;
    assert!(alerts.is_empty(), "{:?}", alerting(&alerts));
}

#[test]
fn models_whose_templates_were_merged_are_offered_successors() {
    let adaptation = AdaptationConfig { recent_sessions: 400, ..AdaptationConfig::default() };
    let mut monitor = warmed_up(MonitorConfig { adaptation, ..config(300) });
    assert_eq!(monitor.merged(&[(TemplateId(77), TemplateId(76))]), [], "no model knows 77");
    assert_eq!(merged_share(&monitor, "ngram"), 0.0);
    let told = monitor.merged(&[(TemplateId(21), TemplateId(20))]);
    let is_merge = |event: &MonitorEvent| matches!(event, MonitorEvent::TemplatesMerged { share, .. } if *share > 0.3);
    assert!(told.len() == 4 && told.iter().all(is_merge), "{told:?}");
    let share = merged_share(&monitor, "ngram");
    assert!((0.3..0.7).contains(&share), "every other session holds 21: {share}");
    assert_eq!(monitor.merged(&[(TemplateId(21), TemplateId(20))]), [], "told once");

    let sessions = synthetic(7, 300, 0.0);
    let events: Vec<_> = sessions.iter().flat_map(|(session, _)| monitor.process(&[session.closed()]).events).collect();
    let is_shadow = |event: &MonitorEvent| matches!(event, MonitorEvent::ShadowFitted { detector: "ngram", .. });
    assert!(events.iter().any(is_shadow), "{events:?}");
    assert!(!events.iter().any(|event| matches!(event, MonitorEvent::Drifted { .. })), "{events:?}");
    monitor.promote("ngram").expect("there is a shadow");
    assert_eq!(merged_share(&monitor, "ngram"), 0.0);
    assert!(merged_share(&monitor, "length") > 0.3, "the others still wait");
    let outcome = monitor.process(&[later(1, &[11, 12, 20, 22, 41, 42, 51, 52]).closed()]);
    let p_value = outcome.scored.iter().find(|scored| scored.detector == "ngram").map(|scored| scored.p_value);
    assert!(p_value.is_some_and(|p_value| p_value > 0.01), "it knows the new id: {p_value:?}");
}
