//! What people say of alerts, on its way from the store to the detectors (station 8).
//!
//! The store is the queue: a verdict is in it before anybody is told, and is marked once it has been applied. The detect
//! station looks when the API has taken one, and when it starts, so that a verdict given while nothing ran is applied as well.
//! One a round: a network may learn for seconds. The session of an alert is what the monitor still holds of it; after a restart,
//! or when it is too long ago, it is looked up in the store by its key, without the numbers in its texts. What cannot be found
//! teaches nothing, and the API says so. Metrics and traces are looked for in memory only.
//!
//! A verdict is applied once, to the model that decides then. A model that is fitted or loaded later knows of it only what the
//! recent sessions teach it.

use std::{collections::VecDeque, sync::Arc};

use faultline_core::{
    Alert, AlertId, Applied, LogEntry, LogWindow, Numbers, Signal, TemplateTexts, Verdict, Window, WindowKey,
    WindowState,
};
use faultline_detectors::{
    Telemetry,
    lifecycle::{Monitor, NotLearned},
    windowing::{WindowConfig, Windower},
};
use faultline_store::{SessionRecord, Store, StoreError};

/// Verdicts that are read at once.
const BATCH: usize = 64;

/// How far around an alert its session is looked for.
const REACH_NANOS: i64 = 3_600 * 1_000_000_000;

/// Records within that reach beyond which a session is not put together again.
const MAX_FOUND: usize = 4_096;

/// Everything that a verdict may be for.
pub struct Judges<'a> {
    pub logs: &'a mut Monitor,
    pub telemetry: &'a mut Telemetry,
    pub windower: &'a Windower,
}

impl Judges<'_> {
    /// Who raised `alert`.
    fn of(&mut self, alert: &Alert) -> &mut Monitor {
        self.telemetry.monitor_of(&alert.detector).unwrap_or(self.logs)
    }

    /// How many of them are fitted.
    fn n_in_service(&self) -> usize {
        usize::from(self.logs.is_in_service()) + self.telemetry.n_in_service()
    }
}

/// The verdicts that wait for the detectors. See the file's documentation.
pub struct Verdicts {
    store: Store,
    gap_nanos: i64,
    max_records: usize,
    /// Their alerts, the earliest first.
    queue: VecDeque<AlertId>,
    /// Those of detectors that are not fitted yet, and how many monitors were when that was looked at.
    aside: VecDeque<AlertId>,
    n_in_service: usize,
    /// Whether there may be more of them in the store than in the queue.
    may_be_more: bool,
}

/// Whether a verdict has been dealt with.
enum IsApplied {
    Yes,
    TooSoon,
}

/// A session put together from the store.
struct Found {
    key: WindowKey,
    records: Vec<LogEntry>,
    n_dropped: u64,
    services: Vec<Arc<str>>,
}

impl Found {
    fn window<'a>(&'a self, templates: &'a TemplateTexts) -> Window<'a> {
        Window::Log(LogWindow {
            key: &self.key,
            records: &self.records,
            numbers: Numbers::default(),
            fresh: 0,
            n_dropped: self.n_dropped,
            state: WindowState::Closed,
            is_stream: false,
            services: &self.services,
            templates,
        })
    }
}

impl Verdicts {
    /// Those of `store`, among them what nobody has applied before.
    pub fn new(store: Store, windowing: &WindowConfig) -> Self {
        let gap_nanos = i64::try_from(windowing.session_gap_ms).unwrap_or(i64::MAX).saturating_mul(1_000_000);
        let max_records = windowing.max_records_per_session;
        let (queue, aside) = (VecDeque::new(), VecDeque::new());
        Self { store, gap_nanos, max_records, queue, aside, n_in_service: 0, may_be_more: true }
    }

    /// Somebody has given one.
    pub fn look(&mut self) {
        self.may_be_more = true;
    }

    /// Applies one that waits, once there are models to apply it to.
    pub fn apply_next(&mut self, judges: &mut Judges<'_>) {
        let n_in_service = judges.n_in_service();
        if n_in_service == 0 {
            return;
        }
        if self.n_in_service != n_in_service {
            self.n_in_service = n_in_service;
            self.queue.append(&mut self.aside);
        }
        if self.queue.is_empty() && std::mem::take(&mut self.may_be_more) {
            match self.store.waiting_feedback(BATCH) {
                Ok(waiting) => {
                    self.may_be_more = waiting.len() == BATCH;
                    let waiting = waiting.iter().map(|feedback| feedback.alert);
                    self.queue.extend(waiting.filter(|alert| !self.aside.contains(alert)));
                }
                Err(error) => report(&error),
            }
        }
        let Some(alert) = self.queue.pop_front() else { return };
        match self.apply(alert, judges) {
            Ok(IsApplied::Yes) => {}
            Ok(IsApplied::TooSoon) => self.aside.push_back(alert),
            // It would be read again at once: it waits, and what comes after it, until somebody gives another one.
            Err(error) => {
                self.may_be_more = false;
                report(&error);
            }
        }
    }

    fn apply(&self, alert: AlertId, judges: &mut Judges<'_>) -> Result<IsApplied, StoreError> {
        // As it is by now: people change their minds.
        let Some(feedback) = self.store.feedback(alert)?.filter(|feedback| feedback.outcome.is_none()) else {
            return Ok(IsApplied::Yes);
        };
        let verdict = feedback.verdict;
        let applied = match self.store.alert(alert)? {
            Some(alert) if !judges.of(&alert).is_in_service() => return Ok(IsApplied::TooSoon),
            None => nothing("the alert is not in the store: nothing learned"),
            Some(alert) if verdict == Verdict::FalsePositive => self.accept(&alert, judges),
            Some(alert) => match judges.of(&alert).confirm(&alert) {
                0 => nothing("noted; the session was not among those that teach models"),
                _ => nothing("noted; the session teaches no model any more"),
            },
        };
        let Applied { n_learned, note } = &applied;
        tracing::info!(%alert, verdict = verdict.name(), n_learned, note, "a verdict on an alert was applied");
        metrics::counter!("faultline_verdicts_applied_total", "verdict" => verdict.name()).increment(1);
        self.store.settle_feedback(alert, verdict, &applied)?;
        Ok(IsApplied::Yes)
    }

    fn accept(&self, alert: &Alert, judges: &mut Judges<'_>) -> Applied {
        let windower = judges.windower;
        let monitor = judges.of(alert);
        let mut learned = monitor.accept(alert, windower.services(), windower.templates());
        if learned == Err(NotLearned::NotHeld) && alert.signal == Signal::Logs.name() {
            match self.find(alert) {
                Ok(None) => {}
                Ok(Some(found)) => learned = monitor.accept_window(alert, &found.window(windower.templates())),
                Err(error) => return nothing(&format!("the session could not be read back: {error}; nothing learned")),
            }
        }
        match learned {
            Ok(0) => nothing("nothing learned: the detector knew it all by now, or does not learn from verdicts"),
            Ok(n_learned) => Applied {
                n_learned: n_learned as u64,
                note: format!("{} has learned from the session; things changed: {n_learned}", alert.detector),
            },
            Err(reason) => nothing(&format!("{reason}: nothing learned")),
        }
    }

    /// The session of an alert out of the store: the records around its culprit without a gap between them.
    fn find(&self, alert: &Alert) -> Result<Option<Found>, StoreError> {
        let from = alert.start_unix_nano.saturating_sub(REACH_NANOS);
        let to = alert.end_unix_nano.saturating_add(REACH_NANOS);
        let all = self.store.session(&alert.session, from, to, MAX_FOUND)?;
        let is_decisive = |record: &SessionRecord| alert.evidence.culprit == Some(record.record_id);
        let Some(at) = all.iter().position(is_decisive).filter(|_| all.len() < MAX_FOUND) else { return Ok(None) };
        Ok(Some(self.put_together(alert, &all, at)))
    }

    fn put_together(&self, alert: &Alert, all: &[SessionRecord], at: usize) -> Found {
        let parts = all.chunk_by(|one, next| next.time_unix_nano.saturating_sub(one.time_unix_nano) <= self.gap_nanos);
        let mut end = 0;
        let mut own: &[SessionRecord] = &[];
        for part in parts {
            end += part.len();
            own = part;
            if at < end {
                break;
            }
        }
        let n_dropped = own.len().saturating_sub(self.max_records);
        let mut services: Vec<Arc<str>> = Vec::new();
        let records = own[n_dropped..].iter().map(|record| {
            let known = services.iter().position(|name| **name == *record.service);
            let service = known.unwrap_or_else(|| {
                services.push(Arc::from(record.service.as_str()));
                services.len() - 1
            });
            LogEntry {
                template: record.template,
                time_unix_nano: record.time_unix_nano,
                record: record.record_id,
                service: service as u32,
                severity_number: record.severity_number,
                is_since_deploy: false,
            }
        });
        let records = records.collect();
        let key = WindowKey { stream: Arc::from(alert.stream.as_str()), session: Arc::from(alert.session.as_str()) };
        Found { key, records, n_dropped: n_dropped as u64, services }
    }
}

fn nothing(note: &str) -> Applied {
    Applied { n_learned: 0, note: note.to_owned() }
}

fn report(error: &StoreError) {
    metrics::counter!("faultline_store_failed_writes_total", "what" => "feedback").increment(1);
    let error = error as &(dyn std::error::Error + 'static);
    tracing::error!(error, "a verdict could not be applied; it waits for the next verdict or start");
}

#[cfg(test)]
mod tests {
    use arrow::array::{BooleanArray, StringArray, UInt64Array};
    use faultline_core::{Batch, Feedback, LogBatchBuilder, LogRecord};
    use faultline_detectors::{
        TelemetryConfig,
        lifecycle::{MonitorConfig, WarmUp},
        testing::{Session, synthetic},
    };
    use faultline_store::StoreConfig;
    use serde_json::json;

    use super::*;

    fn telemetry() -> Telemetry {
        let detectors = [("new-template".to_owned(), json!({}))].into();
        let detection = MonitorConfig { detectors, ..MonitorConfig::default() };
        Telemetry::new(&TelemetryConfig::default(), &detection).expect("valid")
    }

    fn judges<'a>(logs: &'a mut Monitor, telemetry: &'a mut Telemetry, windower: &'a Windower) -> Judges<'a> {
        Judges { logs, telemetry, windower }
    }

    fn cold() -> Monitor {
        let detectors = [("new-template".to_owned(), json!({}))].into();
        let warm_up = WarmUp { sessions: Some(100), ..WarmUp::default() };
        Monitor::new(MonitorConfig { detectors, warm_up, ..MonitorConfig::default() }).expect("valid")
    }

    fn warm() -> Monitor {
        let mut monitor = cold();
        for (session, _) in synthetic(1, 100, 0.0) {
            monitor.process(&[session.closed()]);
        }
        assert!(monitor.is_in_service());
        monitor
    }

    /// The records of `session`, and half an hour after it more of the same key.
    fn keep(store: &Store, session: &Session) {
        let mut builder = LogBatchBuilder::default();
        let mut templates: Vec<u64> = session.records.iter().map(|record| record.template.0).collect();
        let last = session.records.last().map_or(0, |record| record.time_unix_nano);
        templates.push(77);
        let times = session.records.iter().map(|record| record.time_unix_nano).chain([last + 1_800 * 1_000_000_000]);
        for time_unix_nano in times {
            builder.push(&LogRecord { time_unix_nano, service_name: "cart", body: "x", ..LogRecord::default() });
        }
        let n = templates.len();
        let batch = builder
            .finish()
            .with_column("template_id", Arc::new(UInt64Array::from(templates)))
            .and_then(|batch| batch.with_column("session", Arc::new(StringArray::from(vec![&*session.key.session; n]))))
            .and_then(|batch| batch.with_column("session_is_stream", Arc::new(BooleanArray::from(vec![false; n]))))
            .expect("columns of the schema");
        store.append(&Batch::Logs(batch.numbered_from(1))).expect("taken");
    }

    fn say(store: &Store, alert: &Alert, verdict: Verdict) {
        let (comment, by) = (String::new(), String::new());
        let feedback = Feedback { alert: alert.id, verdict, comment, by, time_unix_nano: 1, outcome: None };
        store.put_feedback(&feedback).expect("written");
    }

    fn outcome(store: &Store, alert: &Alert) -> Option<Applied> {
        store.feedback(alert.id).expect("read").expect("somebody has said something").outcome
    }

    /// An alert on a session with an unknown template, in a store that has both.
    fn alerted(dir: &std::path::Path) -> (Store, Session, Alert) {
        let store = Store::open(dir, StoreConfig::default()).expect("opens");
        let session = Session::of("odd", &[11, 12, 99, 51]);
        let alert = warm().process(&[session.closed()]).alerts.remove(0);
        store.put_alerts(std::slice::from_ref(&alert)).expect("written");
        keep(&store, &session);
        (store, session, alert)
    }

    #[test]
    fn a_verdict_waits_for_models_and_is_applied_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let (store, session, alert) = alerted(dir.path());
        say(&store, &alert, Verdict::FalsePositive);
        let windower = Windower::new(WindowConfig::default()).expect("valid");
        // This process has never seen the session: it was given before the restart.
        let mut verdicts = Verdicts::new(store.clone(), &WindowConfig::default());
        verdicts.apply_next(&mut judges(&mut cold(), &mut telemetry(), &windower));
        assert_eq!(outcome(&store, &alert), None, "nobody could learn it yet");
        let mut monitor = warm();
        verdicts.apply_next(&mut judges(&mut monitor, &mut telemetry(), &windower));
        let applied = outcome(&store, &alert).expect("applied");
        assert_eq!(applied.note, "new-template has learned from the session; things changed: 1");
        assert_eq!(applied.n_learned, 1, "99 and not 77, which came after a gap");
        assert!(monitor.process(&[session.closed()]).alerts.is_empty());

        let version = warm().models()[0].version();
        let mut restarted = warm();
        Verdicts::new(store.clone(), &WindowConfig::default()).apply_next(&mut judges(
            &mut restarted,
            &mut telemetry(),
            &windower,
        ));
        verdicts.apply_next(&mut judges(&mut restarted, &mut telemetry(), &windower));
        assert_eq!(restarted.models()[0].version(), version, "it is not offered again");
        say(&store, &alert, Verdict::TruePositive);
        verdicts.apply_next(&mut judges(&mut restarted, &mut telemetry(), &windower));
        assert_eq!(outcome(&store, &alert), None, "nobody has said that there is one");
        verdicts.look();
        verdicts.apply_next(&mut judges(&mut restarted, &mut telemetry(), &windower));
        assert!(outcome(&store, &alert).expect("applied").note.starts_with("noted"));
    }

    #[test]
    fn what_cannot_be_found_teaches_nothing_and_says_so() {
        let dir = tempfile::tempdir().expect("a directory");
        let (store, _, alert) = alerted(dir.path());
        let elsewhere = Alert { id: AlertId(2), session: "another".to_owned(), ..alert.clone() };
        let of_another = Alert { id: AlertId(3), detector: "ngram".to_owned(), ..alert };
        store.put_alerts(&[elsewhere.clone(), of_another.clone()]).expect("written");
        say(&store, &elsewhere, Verdict::FalsePositive);
        say(&store, &of_another, Verdict::FalsePositive);
        let windower = Windower::new(WindowConfig::default()).expect("valid");
        let (mut verdicts, mut monitor) = (Verdicts::new(store.clone(), &WindowConfig::default()), warm());
        verdicts.apply_next(&mut judges(&mut monitor, &mut telemetry(), &windower));
        verdicts.apply_next(&mut judges(&mut monitor, &mut telemetry(), &windower));
        let note = |alert: &Alert| outcome(&store, alert).expect("settled all the same").note;
        assert_eq!(note(&elsewhere), "the session is no longer held: nothing learned");
        assert_eq!(note(&of_another), "the detector that alerted is not in service: nothing learned");
    }
}
