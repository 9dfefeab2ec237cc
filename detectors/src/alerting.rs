//! Station 8, second half: p-values become alerts, one for each episode of one key and detector.
//!
//! A window alerts when its p-value is small enough for a false-discovery rate (see `discovery`) and for the budget of false
//! alerts a day (see `budget`). Further abnormal windows
//! of the same key and detector within the episode gap are folded into the same alert, which keeps its id, counts them and keeps the evidence
//! of the least probable. An alert fires until its session has ended or the watermark is an episode gap past its
//! latest abnormal record; one that is raised by the last window of its session fires until the latter. A session that was told to
//! be overdue, and has no news, is not quiet but silent: its alert fires until there are news or it ends, and what is said of it
//! then belongs to the same episode.
//!
//! The id is a hash of detector, model version, key and the event time of the first abnormal record: a replay writes the
//! same alerts again and never second ones. Cost: a hash lookup for each window with an alert or an end; nothing for
//! the rest. Memory: `max_open_episodes`.

use std::collections::{BTreeMap, BTreeSet};

use faultline_core::{
    Alert, AlertId, AlertState, Culprit, Detector, Evidence, Score, Severity, Signal, Window, WindowKey,
};
use rustc_hash::FxHashMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{adaptation::Verdict, budget::Budget, calibrate::Calibration, drift::Shift, error::Error, ledger::Ledger};

/// When scores become alerts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AlertConfig {
    /// False alerts that are acceptable, over all detectors: `5 per day` (minute, hour, day, week, month) or `unlimited`. Default
    /// `5 per day`. The busier the system, the stronger evidence it asks for; it does not bound alerts that are true.
    pub budget: Budget,
    /// Share of the alerts of one detector that may be false. Default 0.25. In a quiet stream it asks for stronger
    /// evidence than where failures are frequent. 1 leaves the decision to `significance`.
    pub false_discovery_rate: f64,
    /// Share of normal sessions that may alert, for each detector: a window never alerts when its p-value is above
    /// this, and is learned from only when it is. Default 0.01.
    pub significance: f64,
    /// Milliseconds of event time without an abnormal window after which an episode is over; the next
    /// abnormal window is a new alert. Default 60000.
    pub episode_gap_ms: u64,
    /// Episodes open at a time; one more ends the one that has been quiet for longest. Default 10000.
    pub max_open_episodes: usize,
}

impl Default for AlertConfig {
    fn default() -> Self {
        Self {
            budget: Budget::default(),
            false_discovery_rate: 0.25,
            significance: 0.01,
            episode_gap_ms: 60_000,
            max_open_episodes: 10_000,
        }
    }
}

/// What one model says about one window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scored {
    /// Index of the window among those that were handed in together.
    pub window: usize,
    /// Index of the model in its monitor.
    pub model: usize,
    /// Name of the detector.
    pub detector: &'static str,
    /// Version of the model.
    pub version: u64,
    /// Its raw score.
    pub score: Score,
    /// What the calibration makes of it.
    pub p_value: f64,
    /// The same where recent scores stand, at least `p_value`: what decides about an alert (see `drift`).
    pub p_recent: f64,
}

/// Counters and sizes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AlertStats {
    /// Alerts raised.
    pub n_alerts: u64,
    /// Abnormal windows that were folded into an alert raised before.
    pub n_folded: u64,
    /// Episodes that `max_open_episodes` ended early.
    pub n_evicted: u64,
    /// Episodes open now.
    pub n_open: usize,
}

/// The alerting station. See the file's documentation.
#[derive(Debug)]
pub struct Alerter {
    config: AlertConfig,
    gap_nanos: i64,
    /// In the order in which they began.
    episodes: BTreeMap<u64, Episode>,
    /// One for each detector. Few, and found by the one that was asked for last: scores come by detector.
    ledgers: Vec<Ledger>,
    last_asked: usize,
    /// Detectors elsewhere that have a share of the budget.
    n_others: usize,
    /// The worst that each detector has said about the sessions that are open.
    worst: FxHashMap<WindowKey, Vec<Verdict>>,
    by_key: FxHashMap<WindowKey, Vec<(&'static str, u64)>>,
    /// Open episodes by the event time of their latest abnormal record.
    by_end: BTreeSet<(i64, u64)>,
    /// Episodes that the next [`Self::drain`] tells of.
    changed: BTreeSet<u64>,
    n_begun: u64,
    stats: AlertStats,
}

#[derive(Debug)]
struct Episode {
    key: WindowKey,
    alert: Alert,
    /// Whether a `drain` has told of it.
    told: bool,
    /// Its place in `by_end`: when it was abnormal for the last time, or [`OVERDUE`].
    quiet_since: i64,
}

/// The session is overdue and has no news.
const OVERDUE: i64 = i64::MAX;

impl Alerter {
    /// An alerter without open episodes.
    ///
    /// # Errors
    /// When the significance or the rate is no probability or the limit is zero.
    pub fn new(config: AlertConfig) -> Result<Self, Error> {
        if !(config.significance > 0.0 && config.significance < 1.0) {
            let reason = format!("must be between 0 and 1, got {}", config.significance);
            return Err(Error::Config { key: "alerting.significance", reason });
        }
        if !(config.false_discovery_rate > 0.0 && config.false_discovery_rate <= 1.0) {
            let reason = format!("must be above 0 and at most 1, got {}", config.false_discovery_rate);
            return Err(Error::Config { key: "alerting.false_discovery_rate", reason });
        }
        if config.max_open_episodes == 0 {
            let reason = "must be at least 1".to_owned();
            return Err(Error::Config { key: "alerting.max_open_episodes", reason });
        }
        Ok(Self {
            gap_nanos: i64::try_from(config.episode_gap_ms).unwrap_or(i64::MAX).saturating_mul(1_000_000),
            config,
            episodes: BTreeMap::new(),
            ledgers: Vec::new(),
            last_asked: 0,
            n_others: 0,
            worst: FxHashMap::default(),
            by_key: FxHashMap::default(),
            by_end: BTreeSet::new(),
            changed: BTreeSet::new(),
            n_begun: 0,
            stats: AlertStats::default(),
        })
    }

    /// Whether a window with this p-value is too unlikely to be learned from. It may still be too likely for an alert.
    #[must_use]
    pub fn is_abnormal(&self, p_value: f64) -> bool {
        p_value <= self.config.significance
    }

    /// Takes the calibration of a detector for its recent sessions, so that it does not start blind: of how many sessions of
    /// the warm-up it is, and how long those took.
    pub fn prime(&mut self, detector: &'static str, calibration: &Calibration, n_sessions: u64, span_nanos: i64) {
        self.ledger_of(detector).prime(calibration, n_sessions, span_nanos);
    }

    /// Lets so many detectors elsewhere have their share of the budget.
    pub fn share_budget_with(&mut self, n_others: usize) {
        self.n_others = n_others;
    }

    /// Detectors that share the budget.
    #[must_use]
    pub fn n_detectors(&self) -> usize {
        self.ledgers.len() + self.n_others
    }

    /// How the scores of a detector have moved since it was calibrated.
    #[must_use]
    pub fn shift_of(&self, detector: &str) -> Option<Shift> {
        self.ledgers.iter().find(|ledger| ledger.detector == detector)?.drift.shift()
    }

    /// Judges one scored window. `detector` explains it if it becomes, or worsens, an alert.
    pub fn observe(&mut self, window: &Window<'_>, scored: &Scored, detector: &dyn Detector) {
        let is_any_overdue = self.by_end.last().is_some_and(|(end, _)| *end == OVERDUE);
        let is_alert = self.judge(window, scored, detector);
        // There are news of the session.
        if is_any_overdue
            && !is_alert
            && let Some(begun) = self.open_of(window.key(), scored.detector)
        {
            self.be_quiet_since(begun, |alert| alert.end_unix_nano);
        }
    }

    /// Judges records that have waited for too long in a session without news, as [`Self::observe`] judges a window. Of
    /// sessions that the detector has not judged, or that have ended since, nothing is taken.
    pub fn observe_overdue(&mut self, window: &Window<'_>, scored: &Scored, detector: &dyn Detector) {
        let judged = self.worst.get(window.key());
        let is_log = window.as_log().is_some();
        if is_log && judged.is_none_or(|pieces| pieces.iter().all(|piece| piece.detector != scored.detector)) {
            return;
        }
        if self.judge(window, scored, detector)
            && let Some(begun) = self.open_of(window.key(), scored.detector)
        {
            self.be_quiet_since(begun, |_| OVERDUE);
        }
    }

    /// Whether the window is an alert, or adds to one.
    fn judge(&mut self, window: &Window<'_>, scored: &Scored, detector: &dyn Detector) -> bool {
        let significance = self.config.significance;
        self.ledger_of(scored.detector);
        if window.is_first() {
            let n_detectors = self.n_detectors();
            self.ledgers[self.last_asked].begin_session(window.span_unix_nano().0, &self.config, n_detectors);
        }
        let p_value = scored.p_recent;
        let mut is_alert = false;
        if p_value <= significance {
            let episodes = self.by_key.get(window.key());
            // An open episode has been counted.
            let is_new = episodes.is_none_or(|open| open.iter().all(|open| open.0 != scored.detector));
            let ledger = &mut self.ledgers[self.last_asked];
            if is_new {
                ledger.discoveries.observe(p_value);
            }
            let level = ledger.level(&self.config);
            let q_value = ledger.discoveries.q_value(p_value, significance);
            is_alert = level >= 1.0 || q_value <= level;
            if is_alert && self.raise(window, scored, detector) {
                self.ledger_of(scored.detector).alerted(q_value);
            }
        }
        self.account(window, scored);
        is_alert
    }

    /// The open episode of a detector and a key.
    fn open_of(&self, key: &WindowKey, detector: &str) -> Option<u64> {
        self.by_key.get(key)?.iter().find(|open| open.0 == detector).map(|open| open.1)
    }

    /// Moves an open episode to another place among those that may be over.
    fn be_quiet_since(&mut self, begun: u64, since: impl Fn(&Alert) -> i64) {
        let Some(episode) = self.episodes.get_mut(&begun) else { return };
        self.by_end.remove(&(episode.quiet_since, begun));
        episode.quiet_since = since(&episode.alert);
        self.by_end.insert((episode.quiet_since, begun));
    }

    /// Begins an alert or adds to the one that is open; `true` when it began.
    fn raise(&mut self, window: &Window<'_>, scored: &Scored, detector: &dyn Detector) -> bool {
        let culprit = window.culprit(scored.score.culprit);
        let at = culprit.map_or_else(|| window.span_unix_nano().1, |culprit| culprit.time_unix_nano);
        if let Some(begun) = self.open_of(window.key(), scored.detector) {
            if self.fold(begun, at, culprit, window, scored, detector) {
                return false;
            }
            self.resolve(begun);
        }
        if self.by_end.len() >= self.config.max_open_episodes
            && let Some(&(_, quietest)) = self.by_end.first()
        {
            self.stats.n_evicted += 1;
            self.resolve(quietest);
        }
        self.begin(at, culprit, window, scored, detector);
        true
    }

    /// Remembers the worst of a session until it has ended.
    fn account(&mut self, window: &Window<'_>, scored: &Scored) {
        let Scored { detector, p_value, .. } = *scored;
        // A series or a service has no end at which its worst could be told.
        if matches!(window.signal(), Signal::Series | Signal::Groups | Signal::Services) {
            self.ledger_of(detector).drift.observe(p_value);
            return;
        }
        let piece = Verdict { detector, score: scored.score.value, p_value };
        let key = window.key();
        if !self.worst.contains_key(key) {
            self.worst.insert(key.clone(), Vec::new());
        }
        let Some(pieces) = self.worst.get_mut(key) else { return };
        match pieces.iter_mut().find(|known| known.detector == detector) {
            Some(known) if known.score >= piece.score => {}
            Some(known) => *known = piece,
            None => pieces.push(piece),
        }
    }

    /// How each detector does, in the order in which they were primed.
    pub(crate) fn ledgers(&self) -> &[Ledger] {
        &self.ledgers
    }

    /// Forgets what a detector has found: another model of it takes its place.
    pub(crate) fn forget(&mut self, detector: &'static str) {
        *self.ledger_of(detector) = Ledger::of(detector);
        for pieces in self.worst.values_mut() {
            pieces.retain(|piece| piece.detector != detector);
        }
    }

    /// The session has ended: its alerts that have been told of are resolved. Returns what each detector said of it in the end.
    pub fn close(&mut self, key: &WindowKey) -> Vec<Verdict> {
        let verdicts = self.worst.remove(key).unwrap_or_default();
        for verdict in &verdicts {
            self.ledger_of(verdict.detector).drift.observe(verdict.p_value);
        }
        let Some(open) = self.by_key.get(key) else { return verdicts };
        let told = |begun: &u64| self.episodes.get(begun).is_some_and(|episode| episode.told);
        let ended: Vec<u64> = open.iter().map(|open| open.1).filter(told).collect();
        for begun in ended {
            self.resolve(begun);
        }
        verdicts
    }

    /// The input is complete up to this event time: alerts that have been quiet for an episode gap are resolved.
    pub fn advance_to(&mut self, watermark_unix_nano: i64) {
        while let Some(&(end, begun)) = self.by_end.first() {
            if end.saturating_add(self.gap_nanos) >= watermark_unix_nano {
                break;
            }
            self.resolve(begun);
        }
    }

    /// The input has ended: every alert is resolved.
    pub fn finish(&mut self) {
        while let Some(&(_, begun)) = self.by_end.first() {
            self.resolve(begun);
        }
    }

    /// Alerts that are new or have changed since the last call, in the order in which they began.
    pub fn drain(&mut self) -> Vec<Alert> {
        let mut alerts = Vec::with_capacity(self.changed.len());
        for begun in std::mem::take(&mut self.changed) {
            let Some(episode) = self.episodes.get_mut(&begun) else { continue };
            if episode.alert.state == AlertState::Resolved {
                alerts.extend(self.episodes.remove(&begun).map(|episode| episode.alert));
            } else {
                episode.told = true;
                alerts.push(episode.alert.clone());
            }
        }
        alerts
    }

    /// Whether an alert fires for this key.
    #[must_use]
    pub fn is_open(&self, key: &WindowKey) -> bool {
        !self.by_key.is_empty() && self.by_key.contains_key(key)
    }

    /// Counters and sizes.
    #[must_use]
    pub fn stats(&self) -> AlertStats {
        AlertStats { n_open: self.by_end.len(), ..self.stats }
    }

    fn ledger_of(&mut self, detector: &'static str) -> &mut Ledger {
        if self.ledgers.get(self.last_asked).is_none_or(|known| known.detector != detector) {
            let found = self.ledgers.iter().position(|known| known.detector == detector);
            self.last_asked = found.unwrap_or_else(|| {
                self.ledgers.push(Ledger::of(detector));
                self.ledgers.len() - 1
            });
        }
        &mut self.ledgers[self.last_asked]
    }

    fn begin(
        &mut self,
        at: i64,
        culprit: Option<Culprit<'_>>,
        window: &Window<'_>,
        scored: &Scored,
        detector: &dyn Detector,
    ) {
        let key = window.key();
        let alert = Alert {
            id: AlertId::of(scored.detector, scored.version, &key.stream, &key.session, at),
            detector: scored.detector.to_owned(),
            model_version: scored.version,
            signal: window.signal().name().to_owned(),
            stream: key.stream.to_string(),
            session: key.session.to_string(),
            service: service_of(culprit),
            severity: severity_of(scored.p_recent, self.config.significance, culprit),
            state: AlertState::Firing,
            p_value: scored.p_recent,
            score: scored.score.value,
            start_unix_nano: at,
            end_unix_nano: at,
            n_windows: 1,
            evidence: explain(detector, window, &scored.score),
            incident: None,
        };
        let begun = self.n_begun;
        self.n_begun += 1;
        self.stats.n_alerts += 1;
        self.by_key.entry(key.clone()).or_default().push((scored.detector, begun));
        self.by_end.insert((at, begun));
        self.changed.insert(begun);
        self.episodes.insert(begun, Episode { key: key.clone(), alert, told: false, quiet_since: at });
    }

    /// Adds an abnormal window to an open episode; `false` when the episode was over by then.
    fn fold(
        &mut self,
        begun: u64,
        at: i64,
        culprit: Option<Culprit<'_>>,
        window: &Window<'_>,
        scored: &Scored,
        detector: &dyn Detector,
    ) -> bool {
        let Some(Episode { alert, quiet_since, .. }) = self.episodes.get_mut(&begun) else { return false };
        if *quiet_since != OVERDUE && at > alert.end_unix_nano.saturating_add(self.gap_nanos) {
            return false;
        }
        self.stats.n_folded += 1;
        self.changed.insert(begun);
        alert.end_unix_nano = alert.end_unix_nano.max(at);
        self.by_end.remove(&(*quiet_since, begun));
        *quiet_since = alert.end_unix_nano;
        self.by_end.insert((*quiet_since, begun));
        alert.n_windows += 1;
        alert.severity = alert.severity.max(severity_of(scored.p_recent, self.config.significance, culprit));
        if scored.p_recent < alert.p_value {
            alert.p_value = scored.p_recent;
            alert.score = scored.score.value;
            alert.service = service_of(culprit);
            alert.evidence = explain(detector, window, &scored.score);
        }
        true
    }

    fn resolve(&mut self, begun: u64) {
        let Some(episode) = self.episodes.get_mut(&begun) else { return };
        episode.alert.state = AlertState::Resolved;
        self.changed.insert(begun);
        self.by_end.remove(&(episode.quiet_since, begun));
        if let Some(open) = self.by_key.get_mut(&episode.key) {
            open.retain(|open| open.1 != begun);
            if open.is_empty() {
                self.by_key.remove(&episode.key);
            }
        }
    }
}

/// An alert is a warning. It is critical when the record that decided it is fatal, or is an error and at
/// the same time ten times less probable than an alert needs to be; it is for information when that record is a debug line.
fn severity_of(p_value: f64, significance: f64, culprit: Option<Culprit<'_>>) -> Severity {
    match culprit.map_or(0, |culprit| culprit.severity_number) {
        21.. => Severity::Critical,
        17.. if p_value <= significance / 10.0 => Severity::Critical,
        1..=8 => Severity::Info,
        _ => Severity::Warning,
    }
}

fn service_of(culprit: Option<Culprit<'_>>) -> String {
    culprit.map_or_else(String::new, |culprit| culprit.service.to_owned())
}

/// A detector's explanation, held to the size that an alert may have.
fn explain(detector: &dyn Detector, window: &Window<'_>, score: &Score) -> Evidence {
    let mut evidence = detector.explain(window, score);
    evidence.records.truncate(Evidence::MAX_RECORDS);
    evidence
}

#[cfg(test)]
mod tests {
    use faultline_core::DetectorError;

    use super::*;
    use crate::testing::Session;

    const SECOND: i64 = 1_000_000_000;

    /// Decides by the significance alone.
    fn plain() -> AlertConfig {
        AlertConfig {
            budget: Budget::UNLIMITED,
            false_discovery_rate: 1.0,
            significance: 1e-3,
            ..AlertConfig::default()
        }
    }

    /// Explains by its score.
    struct Dummy;

    impl Detector for Dummy {
        fn name(&self) -> &'static str {
            "dummy"
        }
        fn version(&self) -> u64 {
            3
        }
        fn signal(&self) -> Signal {
            Signal::Logs
        }
        fn score(&mut self, _: &[Window<'_>], _: &mut Vec<Option<Score>>) {}
        fn explain(&self, _: &Window<'_>, score: &Score) -> Evidence {
            Evidence { summary: format!("score {}", score.value), records: vec![1; 99], ..Evidence::default() }
        }
        fn learn(&mut self, _: &[Window<'_>]) {}
        fn snapshot(&self) -> Result<Vec<u8>, DetectorError> {
            Ok(Vec::new())
        }
    }

    fn scored(culprit: usize, p_value: f64) -> Scored {
        let score = Score { value: -p_value.log10(), culprit };
        Scored { window: 0, model: 0, detector: "dummy", version: 3, score, p_value, p_recent: p_value }
    }

    fn alerter(config: AlertConfig) -> Alerter {
        Alerter::new(config).expect("valid")
    }

    #[test]
    fn a_window_alerts_at_the_significance_and_not_above() {
        let mut alerter = alerter(plain());
        let session = Session::of("a", &[1, 2, 3]);
        alerter.observe(&session.closed(), &scored(1, 1.1e-3), &Dummy);
        assert_eq!(alerter.drain(), []);
        alerter.observe(&session.closed(), &scored(1, 1e-3), &Dummy);
        let alerts = alerter.drain();
        assert_eq!(alerts.len(), 1);
        let alert = &alerts[0];
        assert_eq!(alert.id, AlertId::of("dummy", 3, "test", "a", 2 * SECOND), "an id that a replay finds again");
        assert_eq!((alert.start_unix_nano, alert.n_windows), (2 * SECOND, 1));
        assert_eq!((alert.service.as_str(), alert.state), ("service", AlertState::Firing));
        assert_eq!(alert.evidence.records.len(), Evidence::MAX_RECORDS);
        assert_eq!(alerter.drain(), [], "told once");
    }

    #[test]
    fn a_quiet_stream_asks_for_stronger_evidence_than_one_that_fails_often() {
        let config = AlertConfig { budget: Budget::UNLIMITED, false_discovery_rate: 0.1, ..AlertConfig::default() };
        let sessions: Vec<Session> = (0..200).map(|idx| Session::of(&idx.to_string(), &[1])).collect();
        let n_alerts = |share_of_abnormal: usize| {
            let mut alerter = alerter(config.clone());
            for (idx, session) in sessions.iter().enumerate() {
                let p_value = if idx % share_of_abnormal == 0 { 2e-3 } else { 0.5 };
                alerter.observe(&session.closed(), &scored(0, p_value), &Dummy);
            }
            alerter.drain().len()
        };
        assert_eq!(n_alerts(200), 1, "the first session of all");
        assert!(n_alerts(10) >= 15, "one in ten is more than chance: {}", n_alerts(10));
        let mut primed = alerter(config.clone());
        primed.prime("dummy", &Calibration::fit(&vec![1.0; 1000]), 1000, 0);
        primed.observe(&sessions[0].closed(), &scored(0, 2e-3), &Dummy);
        assert_eq!(primed.drain(), [], "a thousand sessions have one of these by chance");
    }

    #[test]
    fn windows_of_one_episode_are_one_alert_with_the_evidence_of_the_worst() {
        let mut alerter = alerter(plain());
        let session = Session::of("a", &[1; 50]);
        for (culprit, p_value) in [(0, 1e-4), (20, 1e-6), (40, 1e-5)] {
            alerter.observe(&session.window(culprit, false), &scored(culprit, p_value), &Dummy);
        }
        let alerts = alerter.drain();
        assert_eq!(alerts.len(), 1);
        let alert = &alerts[0];
        assert_eq!((alert.n_windows, alert.p_value, alert.score), (3, 1e-6, 6.0));
        assert_eq!((alert.start_unix_nano, alert.end_unix_nano), (SECOND, 41 * SECOND));
        assert_eq!(alert.evidence.summary, "score 6");
    }

    #[test]
    fn an_abnormal_window_after_the_gap_is_another_alert() {
        let mut alerter = alerter(AlertConfig { episode_gap_ms: 5_000, ..plain() });
        let session = Session::of("a", &[1; 50]);
        alerter.observe(&session.window(0, false), &scored(0, 1e-4), &Dummy);
        alerter.observe(&session.window(10, false), &scored(10, 1e-4), &Dummy);
        let states: Vec<_> = alerter.drain().iter().map(|alert| (alert.start_unix_nano, alert.state)).collect();
        assert_eq!(states, [(SECOND, AlertState::Resolved), (11 * SECOND, AlertState::Firing)]);
    }

    #[test]
    fn an_alert_is_resolved_when_its_session_ends() {
        let mut alerter = alerter(plain());
        let session = Session::of("a", &[1, 2]);
        alerter.observe(&session.window(0, false), &scored(0, 1e-4), &Dummy);
        assert!(alerter.is_open(&session.key));
        assert_eq!(alerter.drain()[0].state, AlertState::Firing);
        alerter.close(&session.key);
        assert_eq!(alerter.drain()[0].state, AlertState::Resolved);
        assert!(!alerter.is_open(&session.key));
        assert_eq!(alerter.stats().n_open, 0);
    }

    #[test]
    fn an_alert_of_the_last_window_fires_until_it_has_been_quiet() {
        let mut alerter = alerter(plain());
        let session = Session::of("a", &[1, 2]);
        alerter.observe(&session.closed(), &scored(1, 1e-4), &Dummy);
        alerter.close(&session.key);
        assert_eq!(alerter.drain()[0].state, AlertState::Firing);
        alerter.advance_to(62 * SECOND);
        assert_eq!(alerter.drain(), []);
        alerter.advance_to(62 * SECOND + 1);
        assert_eq!(alerter.drain()[0].state, AlertState::Resolved);
    }

    #[test]
    fn an_overdue_session_is_one_episode_until_there_are_news_or_it_ends() {
        let session = Session::of("a", &[1; 500]);
        let overdue = session.window(500, false);
        let begun = |p_value: f64| {
            let mut alerter = alerter(plain());
            alerter.observe(&session.window(0, false), &scored(0, 0.5), &Dummy);
            alerter.observe_overdue(&overdue, &scored(0, p_value), &Dummy);
            alerter
        };
        let states = |alerts: Vec<Alert>| alerts.iter().map(|alert| (alert.id, alert.state)).collect::<Vec<_>>();
        assert_eq!(begun(0.5).drain(), []);

        let mut ends = begun(1e-4);
        let id = AlertId::of("dummy", 3, "test", "a", SECOND);
        assert_eq!(states(ends.drain()), [(id, AlertState::Firing)]);
        ends.advance_to(10_000 * SECOND);
        assert_eq!(ends.drain(), [], "silence is no quiet");
        ends.observe(&session.window(500, true), &scored(400, 1e-5), &Dummy);
        ends.close(&session.key);
        assert_eq!(states(ends.drain()), [(id, AlertState::Resolved)], "the same alert, beyond the gap");
        assert!(ends.by_end.is_empty() && ends.by_key.is_empty());

        let mut goes_on = begun(1e-4);
        goes_on.drain();
        goes_on.observe(&session.window(499, false), &scored(499, 0.5), &Dummy);
        goes_on.advance_to(10_000 * SECOND);
        assert_eq!(states(goes_on.drain()), [(id, AlertState::Resolved)], "normal news, then quiet");
        goes_on.close(&session.key);
        goes_on.observe_overdue(&overdue, &scored(0, 1e-9), &Dummy);
        assert_eq!((goes_on.drain(), goes_on.worst.len()), (Vec::new(), 0), "it has ended");
    }

    #[test]
    fn open_episodes_are_bounded_and_the_quietest_gives_way() {
        let mut alerter = alerter(AlertConfig { max_open_episodes: 2, ..plain() });
        let sessions = ["a", "b", "c"].map(|key| Session::of(key, &[1, 2, 3]));
        for (session, culprit) in sessions.iter().zip([2, 0, 1]) {
            alerter.observe(&session.closed(), &scored(culprit, 1e-4), &Dummy);
        }
        let states: Vec<_> = alerter.drain().into_iter().map(|alert| (alert.session, alert.state)).collect();
        let expected = [("a", AlertState::Firing), ("b", AlertState::Resolved), ("c", AlertState::Firing)];
        assert_eq!(states, expected.map(|(session, state)| (session.to_owned(), state)));
        assert_eq!(alerter.stats(), AlertStats { n_alerts: 3, n_folded: 0, n_evicted: 1, n_open: 2 });
    }

    #[test]
    fn the_end_of_the_input_resolves_everything() {
        let mut alerter = alerter(plain());
        let session = Session::of("a", &[1]);
        alerter.observe(&session.closed(), &scored(0, 1e-9), &Dummy);
        alerter.finish();
        assert_eq!(alerter.drain()[0].state, AlertState::Resolved);
        assert!(alerter.episodes.is_empty() && alerter.by_key.is_empty() && alerter.by_end.is_empty());
    }

    #[test]
    fn severity_follows_the_deciding_record() {
        let culprit = |severity_number| Culprit { time_unix_nano: 1, service: "cart", severity_number };
        let severity = |severity_number, p_value| severity_of(p_value, 1e-3, Some(culprit(severity_number)));
        assert_eq!(severity(9, 1e-9), Severity::Warning);
        assert_eq!(severity(5, 1e-9), Severity::Info);
        assert_eq!(severity(17, 1e-3), Severity::Warning);
        assert_eq!(severity(17, 1e-4), Severity::Critical);
        assert_eq!(severity(21, 1e-3), Severity::Critical);
        assert_eq!(severity(0, 1e-3), Severity::Warning);
    }

    #[test]
    fn a_significance_that_is_no_probability_is_refused_by_key() {
        let error = Alerter::new(AlertConfig { significance: 0.0, ..plain() }).expect_err("zero");
        assert!(error.to_string().starts_with("key `alerting.significance`"), "{error}");
    }
}
