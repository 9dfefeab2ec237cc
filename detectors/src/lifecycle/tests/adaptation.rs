//! Drift, shadows, promotion and rollback; poisoning.

use faultline_core::{LogEntry, LogWindow, TemplateId, Window};
use serde_json::json;

use super::{super::*, config, warmed_up};
use crate::{
    algorithm::Algorithm,
    algorithms::deeplog::{self, DeepLog},
    testing::{Session, score_all, synthetic},
};

/// The sessions of `synthetic`, two seconds apart, from the `first`-th on, each with a step more before its end.
fn changed(seed: u64, first: i64, n: usize) -> Vec<Session> {
    let sessions = synthetic(seed, n, 0.0).into_iter().map(|(mut session, _)| {
        let last = session.records[session.records.len() - 1];
        session.records.push(LogEntry { template: TemplateId(61), record: last.record + 1, ..last });
        session.key.session = format!("{seed}-{}", session.key.session).into();
        session.records.iter_mut().for_each(|entry| entry.time_unix_nano += first * 2_000_000_000);
        session
    });
    sessions.collect()
}

fn adapting(promotion: Promotion) -> Monitor {
    let adaptation = AdaptationConfig { promotion, recent_sessions: 400, ..AdaptationConfig::default() };
    warmed_up(MonitorConfig { adaptation, ..config(300) })
}

fn state_of(monitor: &Monitor, detector: &str) -> DetectorStatus {
    let status = monitor.status(0).into_iter().find(|status| status.detector == detector);
    status.expect("it is in service")
}

#[test]
fn a_changed_system_is_told_of_and_an_operator_promotes_what_fits_it() {
    let mut monitor = adapting(Promotion::Manual);
    let version = state_of(&monitor, "ngram").model_version;
    let mut events = Vec::new();
    for session in changed(2, 300, 1_200) {
        events.extend(monitor.process(&[session.closed()]).events);
    }
    let drifted =
        |event: &MonitorEvent| matches!(event, MonitorEvent::Drifted { detector: "ngram", excess } if *excess > 0.5);
    assert!(events.iter().any(drifted), "{events:?}");
    assert!(!events.iter().any(|event| matches!(event, MonitorEvent::Replaced { .. })), "nothing swaps itself");
    let status = state_of(&monitor, "ngram");
    assert_eq!((status.state, status.model_version), (ModelState::Drifted, version));
    let shadow = status.shadow.expect("one was fitted");
    assert!(shadow.abnormal_share < 0.05 && shadow.active_abnormal_share > 0.9, "{shadow:?}");

    let Some(MonitorEvent::Replaced { from, to, .. }) = monitor.promote("ngram") else { panic!("there is a shadow") };
    assert_eq!((from, to), (version, shadow.model_version));
    assert_eq!(state_of(&monitor, "ngram").state, ModelState::Active);
    let session = &changed(3, 1_500, 1)[0];
    let outcome = monitor.process(&[session.closed()]);
    let p_value = outcome.scored.iter().find(|scored| scored.detector == "ngram").map(|scored| scored.p_value);
    assert!(p_value.is_some_and(|p_value| p_value > 0.01), "{p_value:?}");

    monitor.roll_back("ngram").expect("the one before is kept");
    assert_eq!(state_of(&monitor, "ngram").model_version, version);
    assert_eq!(monitor.roll_back("length"), None, "never replaced");
    assert_eq!(monitor.promote("ngram"), None, "no shadow is left");
}

#[test]
fn where_the_policy_says_so_a_shadow_that_fits_promotes_itself() {
    let mut monitor = adapting(Promotion::Automatic);
    let sessions = changed(2, 300, 1_200);
    let events: Vec<_> = sessions.iter().flat_map(|session| monitor.process(&[session.closed()]).events).collect();
    let is_promotion = |event: &MonitorEvent| {
        matches!(event, MonitorEvent::Replaced { detector: "ngram", cause: Replacement::Promotion, .. })
    };
    assert!(events.iter().any(is_promotion), "{events:?}");
    let later = changed(3, 1_500, 200);
    let outcomes: Vec<_> = later.iter().map(|session| monitor.process(&[session.closed()])).collect();
    let alerts: Vec<_> = outcomes
        .iter()
        .flat_map(|outcome| &outcome.alerts)
        .map(|alert| (&alert.detector, &alert.evidence.summary, alert.p_value))
        .collect();
    assert!(alerts.len() <= 2, "{alerts:?}");
}

#[test]
fn a_normal_stream_neither_drifts_nor_is_refitted() {
    let mut monitor = adapting(Promotion::Automatic);
    for (session, _) in synthetic(5, 3_000, 0.02) {
        assert_eq!(monitor.process(&[session.closed()]).events, []);
    }
}

#[test]
fn a_flooded_service_teaches_no_faster_than_its_quota() {
    let adaptation = AdaptationConfig { max_sessions_per_minute: 10, ..AdaptationConfig::default() };
    let mut monitor = warmed_up(MonitorConfig { adaptation, ..config(300) });
    // Thirty a minute come.
    for (session, _) in synthetic(5, 600, 0.0) {
        monitor.process(&[session.closed()]);
    }
    assert!((200..=210).contains(&monitor.recent.n_taken()), "{}", monitor.recent.n_taken());
}

/// A slow poisoner slips a known step into a place where it does not belong, in one session of twenty-five.
#[test]
fn slow_poison_teaches_a_naive_model_and_not_this_one() {
    let tiny = json!({"hidden": 12, "layers": 1, "epochs": 20, "max_training_windows": 60_000});
    let detectors = [("deeplog".to_owned(), tiny)].into();
    let mut monitor = warmed_up(MonitorConfig { detectors, ..config(300) });
    let mut naive = DeepLog::load(
        &serde_json::from_value(monitor.models()[0].config().clone()).expect("its own"),
        &monitor.models()[0].detector().snapshot().expect("plain numbers"),
    )
    .expect("just written");

    let attack = |name: &str| Session::of(name, &[11, 12, 51, 21, 22, 41, 42, 51, 52]);
    let is_caught = |model: &mut deeplog::Model, cut: f64| {
        score_all(model, &[attack("x").closed()])[0].is_some_and(|score| score.value >= cut)
    };
    let cut = monitor.models()[0].calibration().threshold(0.01).expect("it is calibrated");
    assert!(is_caught(&mut naive, cut), "at first");
    let mut n_caught = 0;
    for (n, (session, _)) in synthetic(6, 1_000, 0.0).into_iter().enumerate() {
        let session = if n % 25 == 0 { attack(&format!("attack-{n}")) } else { session };
        let outcome = monitor.process(&[session.closed()]);
        if n % 25 == 0 {
            n_caught += usize::from(outcome.scored.iter().any(|scored| scored.p_value <= 0.01));
            naive.update(&[session.closed()], cut);
        }
    }
    assert!(!is_caught(&mut naive, cut), "who learns from everything has learned it");
    assert_eq!(n_caught, 40, "every one, to the last");
    assert!(monitor.begin_shadow_fit().is_none(), "and one in twenty-five is no drift");
    let taught: Vec<Window<'_>> = monitor.recent.windows();
    let place = |log: &&LogWindow<'_>| log.records.get(2).is_some_and(|record| record.template.0 == 51);
    assert!(taught.len() > 900 && taught.iter().filter_map(Window::as_log).filter(place).count() == 0);
}
