//! Stations 7 and 8 over time: the detectors of one deployment through warm-up, fitting, calibration and service.
//!
//! Cold start is explicit. During **warm-up** the monitor keeps the whole sessions that end (owned copies, at most
//! `max_records` records) and says how far it is. Then every enabled detector is **fitted** on most of them and
//! **calibrated** on the others, taken evenly over time, so that no threshold rests on sessions the model has seen. From the next window on it is **in service**: score, p-value, alert, then learn. Scoring always comes before
//! learning, and a window that any detector finds abnormal, or whose session has a firing alert, is learned by none: an
//! attacker cannot teach that an attack is normal.
//!
//! Calibration sessions are scored whole, while in service a growing session is scored piece by piece. Scores that add up or
//! take a maximum over records are no larger for a piece than for the whole, so this errs towards fewer alerts.
//!
//! A session that is open when warm-up ends is scored from its next window on. A model that returns a non-finite score is
//! sidelined: it says so once, in an event, and scores no more.
//!
//! The stations can be called one by one ([`Monitor::score`], [`Monitor::alert`], [`Monitor::learn`]) or in one go
//! ([`Monitor::process`]). Memory: the warm-up's records, then the models. Fails when warm-up is not
//! mostly normal: detectors with `min_support` 1 take whatever they saw for normal.

use std::{collections::BTreeMap, sync::Arc};

use faultline_core::{Alert, LogEntry, LogWindow, RecordId, Window, WindowKey, WindowState};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    alerting::{AlertConfig, AlertStats, Alerter, Scored},
    error::Error,
    model::{Artifact, Model},
    registry::{Entry, REGISTRY, entry},
};

/// Which detectors run, how they are fitted, and when their scores become alerts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MonitorConfig {
    /// Detectors to run, each with the configuration keys to change. Default: every one but `attention-rnn`, unchanged.
    pub detectors: BTreeMap<String, Value>,
    /// When there is enough normal operation to fit.
    pub warm_up: WarmUp,
    /// Share of the warm-up's sessions, taken evenly over time, that calibrate instead of fitting. Default 0.3.
    pub calibration_share: f64,
    /// Largest share of the warm-up's sessions that may be abnormal: so many scores are left out of a detector's calibration
    /// where they lie together, far from the rest. Default 0: what the warm-up holds is normal, however rare. Raise it when the
    /// warm-up is known to hold failures; a rare kind of normal session may then alert.
    pub contamination: f64,
    /// Seed of everything random in fitting. Default 0.
    pub seed: u64,
    /// When scores become alerts. A section of its own in the configuration file.
    #[serde(skip)]
    pub alerting: AlertConfig,
}

/// Warm-up is over when every condition that is given holds, or when `max_records` is reached.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct WarmUp {
    /// Ended sessions. Default 3400, so that the calibration's share is a thousand; no condition when `span_ms` or
    /// `records` is given.
    pub sessions: Option<u64>,
    /// Milliseconds of event time. Default none; a day covers a daily rhythm.
    pub span_ms: Option<u64>,
    /// Records, in ended sessions or not. Default none; for replaying a file whose first part is for training.
    pub records: Option<u64>,
    /// Records of ended sessions to keep, a memory bound (32 bytes each). Default 2000000.
    pub max_records: u64,
}

impl Default for MonitorConfig {
    fn default() -> Self {
        Self {
            detectors: REGISTRY
                .iter()
                .filter(|entry| entry.is_default)
                .map(|entry| (entry.name.to_owned(), Value::Object(Default::default())))
                .collect(),
            warm_up: WarmUp::default(),
            calibration_share: 0.3,
            contamination: 0.0,
            seed: 0,
            alerting: AlertConfig::default(),
        }
    }
}

impl Default for WarmUp {
    fn default() -> Self {
        Self { sessions: None, span_ms: None, records: None, max_records: 2_000_000 }
    }
}

impl WarmUp {
    /// Sessions that end the warm-up where no condition is given.
    const SESSIONS: u64 = 3_400;

    /// The sessions to wait for; none when only other conditions are given.
    fn sessions(&self) -> Option<u64> {
        let is_default = self.span_ms.is_none() && self.records.is_none();
        self.sessions.or(is_default.then_some(Self::SESSIONS))
    }
}

/// Something an operator should hear about.
#[derive(Clone, Debug, PartialEq)]
pub enum MonitorEvent {
    /// Warm-up is over and this detector is in service.
    Fitted {
        /// Its name.
        detector: &'static str,
        /// Version of the model.
        version: u64,
        /// Sessions it was fitted on.
        n_training: usize,
        /// Scores its calibration rests on.
        n_calibration: u64,
        /// Scores that were left out of it as abnormal.
        n_outliers: usize,
    },
    /// This detector could not be fitted and does not run.
    FitFailed {
        /// Its name.
        detector: &'static str,
        /// Why.
        reason: String,
    },
    /// No detector could be fitted: warm-up starts again.
    WarmUpRestarted,
    /// This model returned something that is no score, and scores no more.
    Sidelined {
        /// Its name.
        detector: &'static str,
        /// What it returned, and for which session.
        reason: String,
    },
}

/// Scores of one batch of windows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scores {
    /// What the models said, ordered by model, then window.
    pub scored: Vec<Scored>,
    /// What happened besides.
    pub events: Vec<MonitorEvent>,
    /// Windows that were taken. The others came after the end of the warm-up and wait for a deferred fit.
    pub n_taken: usize,
}

/// Everything that came of one batch of windows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// What the models said, ordered by model, then window.
    pub scored: Vec<Scored>,
    /// Alerts that are new or have changed.
    pub alerts: Vec<Alert>,
    /// What happened besides.
    pub events: Vec<MonitorEvent>,
}

/// The detectors of one deployment. See the file's documentation.
#[derive(Debug)]
pub struct Monitor {
    config: MonitorConfig,
    phase: Phase,
    alerter: Alerter,
    fitted_until: Option<RecordId>,
    defers_fits: bool,
}

#[derive(Debug)]
enum Phase {
    WarmUp(Collector),
    /// The fit runs elsewhere.
    Fitting,
    Service(Vec<Model>),
}

impl Monitor {
    /// A monitor at the start of its warm-up.
    ///
    /// # Errors
    /// When a detector or one of its keys is unknown (the nearest one is named), none is enabled, or a value is out of
    /// range.
    pub fn new(config: MonitorConfig) -> Result<Self, Error> {
        if config.detectors.is_empty() {
            return Err(Error::Config { key: "detectors", reason: "no detector is enabled".to_owned() });
        }
        for (name, detector_config) in &config.detectors {
            let wrap = |cause| Error::Detector { name: name.clone(), cause };
            entry(name).and_then(|entry| entry.complete_config(detector_config)).map_err(wrap)?;
        }
        if !(config.calibration_share > 0.0 && config.calibration_share < 1.0) {
            let reason = format!("must be between 0 and 1, got {}", config.calibration_share);
            return Err(Error::Config { key: "calibration_share", reason });
        }
        if !(0.0..0.5).contains(&config.contamination) {
            let reason = format!("must be from 0 to below 0.5, got {}", config.contamination);
            return Err(Error::Config { key: "contamination", reason });
        }
        if config.warm_up.max_records == 0 {
            return Err(Error::Config { key: "warm_up.max_records", reason: "must be at least 1".to_owned() });
        }
        let alerter = Alerter::new(config.alerting.clone())?;
        let phase = Phase::WarmUp(Collector::default());
        Ok(Self { config, phase, alerter, fitted_until: None, defers_fits: false })
    }

    /// A monitor in service with models that were fitted before. Their warm-up is not repeated.
    ///
    /// # Errors
    /// When there is no model or the alerting configuration is out of range.
    pub fn fitted(models: Vec<Model>, alerting: AlertConfig) -> Result<Self, Error> {
        if models.is_empty() {
            return Err(Error::Config { key: "detectors", reason: "no fitted model is given".to_owned() });
        }
        let detectors = models.iter().map(|model| (model.name().to_owned(), model.config().clone())).collect();
        let config = MonitorConfig { detectors, alerting: alerting.clone(), ..MonitorConfig::default() };
        let mut alerter = Alerter::new(alerting)?;
        for model in &models {
            alerter.prime(model.name(), model.calibration().own_p_values());
        }
        Ok(Self { config, phase: Phase::Service(models), alerter, fitted_until: None, defers_fits: false })
    }

    /// [`Self::fitted`] from artifacts.
    ///
    /// # Errors
    /// When one cannot be loaded.
    pub fn from_artifacts(artifacts: &[Artifact], alerting: AlertConfig) -> Result<Self, Error> {
        let models = artifacts.iter().map(Model::from_artifact).collect::<Result<_, _>>()?;
        Self::fitted(models, alerting)
    }

    /// The models in service as artifacts, to load again with [`Self::from_artifacts`]. Empty during warm-up.
    ///
    /// # Errors
    /// When a detector cannot write its state.
    pub fn artifacts(&self, parser_snapshot_id: &str) -> Result<Vec<Artifact>, Error> {
        self.models().iter().map(|model| model.artifact(parser_snapshot_id)).collect()
    }

    /// How much of the warm-up is done, 0 to 0.99; 1 once in service.
    #[must_use]
    pub fn progress(&self) -> f64 {
        match &self.phase {
            Phase::WarmUp(collector) => collector.progress(&self.config.warm_up).min(0.99),
            Phase::Fitting => 0.99,
            Phase::Service(_) => 1.0,
        }
    }

    /// Whether the detectors are in service.
    #[must_use]
    pub fn is_in_service(&self) -> bool {
        matches!(self.phase, Phase::Service(_))
    }

    /// The last record that the models in service were fitted on; none when they came fitted.
    #[must_use]
    pub fn fitted_until(&self) -> Option<RecordId> {
        self.fitted_until
    }

    /// The models in service; none during warm-up.
    #[must_use]
    pub fn models(&self) -> &[Model] {
        match &self.phase {
            Phase::WarmUp(_) | Phase::Fitting => &[],
            Phase::Service(models) => models,
        }
    }

    /// Counters and sizes of the alerting station.
    #[must_use]
    pub fn alert_stats(&self) -> AlertStats {
        self.alerter.stats()
    }

    /// Stations 7 and 8 in one go: score, alert, learn.
    pub fn process(&mut self, windows: &[Window<'_>]) -> Outcome {
        let Scores { scored, events, .. } = self.score(windows);
        let alerts = self.alert(windows, &scored);
        self.learn(windows, &scored);
        Outcome { scored, alerts, events }
    }

    /// Station 7: raw scores and their p-values. During warm-up the windows are collected instead, and the models are
    /// fitted when there are enough.
    pub fn score(&mut self, windows: &[Window<'_>]) -> Scores {
        let mut events = Vec::new();
        let (mut first, mut n_taken) = (0, windows.len());
        if let Phase::WarmUp(collector) = &mut self.phase {
            first = windows.len();
            for (idx, window) in windows.iter().enumerate() {
                collector.take(window);
                if collector.progress(&self.config.warm_up) >= 1.0 {
                    first = idx + 1;
                    break;
                }
            }
            if self.defers_fits {
                n_taken = first;
            } else if collector.progress(&self.config.warm_up) >= 1.0 {
                events = self.end_warm_up();
            }
        }
        let mut scored = Vec::new();
        if let Phase::Service(models) = &mut self.phase {
            for (idx, model) in models.iter_mut().enumerate() {
                let from = scored.len();
                if let Err(reason) = model.score(idx, &windows[first..], &mut scored) {
                    scored.truncate(from);
                    events.push(MonitorEvent::Sidelined { detector: model.name(), reason });
                }
                scored[from..].iter_mut().for_each(|scored| scored.window += first);
            }
        }
        Scores { scored, events, n_taken }
    }

    /// Station 8: alerts that are new or have changed.
    pub fn alert(&mut self, windows: &[Window<'_>], scored: &[Scored]) -> Vec<Alert> {
        let Phase::Service(models) = &self.phase else { return Vec::new() };
        for scored in scored {
            self.alerter.observe(&windows[scored.window], scored, models[scored.model].detector());
        }
        if self.alerter.stats().n_open > 0 {
            for window in windows.iter().filter(|window| is_closed(window)) {
                self.alerter.close(window.key());
            }
        }
        self.alerter.drain()
    }

    /// Lets the models learn from the windows that no detector found abnormal.
    pub fn learn(&mut self, windows: &[Window<'_>], scored: &[Scored]) {
        let Phase::Service(models) = &mut self.phase else { return };
        let mut abnormal = vec![false; windows.len()];
        for scored in scored.iter().filter(|scored| self.alerter.is_abnormal(scored.p_value)) {
            abnormal[scored.window] = true;
        }
        let is_normal = |&idx: &usize| !abnormal[idx] && !self.alerter.is_open(windows[idx].key());
        let normal: Vec<Window<'_>> = (0..windows.len()).filter(is_normal).map(|idx| windows[idx]).collect();
        for model in models {
            model.learn(&normal);
        }
    }

    /// The input is complete up to this event time: alerts that have been quiet are resolved.
    pub fn advance_to(&mut self, watermark_unix_nano: i64) -> Vec<Alert> {
        self.alerter.advance_to(watermark_unix_nano);
        self.alerter.drain()
    }

    /// The input has ended: every alert is resolved.
    pub fn finish(&mut self) -> Vec<Alert> {
        self.alerter.finish();
        self.alerter.drain()
    }

    /// Ends the warm-up with what there is.
    pub fn end_warm_up(&mut self) -> Vec<MonitorEvent> {
        let Phase::WarmUp(collector) = &mut self.phase else { return Vec::new() };
        let job = FitJob { config: self.config.clone(), collector: std::mem::take(collector) };
        self.conclude(job.run())
    }

    /// Leaves the fits to the caller, who asks [`Self::begin_fit`] after each call of [`Self::score`]: a fit may take
    /// seconds, in which a live stream should not wait.
    #[must_use]
    pub fn deferring_fits(self) -> Self {
        Self { defers_fits: true, ..self }
    }

    /// The fit to run, once the warm-up is complete. Until its result comes back with [`Self::conclude`], windows are to be
    /// held back.
    pub fn begin_fit(&mut self) -> Option<FitJob> {
        let Phase::WarmUp(collector) = &mut self.phase else { return None };
        if collector.progress(&self.config.warm_up) < 1.0 {
            return None;
        }
        let collector = std::mem::take(collector);
        self.phase = Phase::Fitting;
        Some(FitJob { config: self.config.clone(), collector })
    }

    /// Takes fitted models into service.
    pub fn conclude(&mut self, fitted: Fitted) -> Vec<MonitorEvent> {
        let Fitted { models, mut events, last_record } = fitted;
        if models.is_empty() {
            events.push(MonitorEvent::WarmUpRestarted);
            self.phase = Phase::WarmUp(Collector::default());
            return events;
        }
        for model in &models {
            self.alerter.prime(model.name(), model.calibration().own_p_values());
        }
        self.fitted_until = Some(last_record);
        self.phase = Phase::Service(models);
        events
    }
}

/// A warm-up that is complete: everything that fitting needs, to be run on any thread.
#[derive(Debug)]
pub struct FitJob {
    config: MonitorConfig,
    collector: Collector,
}

/// What came of a [`FitJob`].
#[derive(Debug)]
pub struct Fitted {
    models: Vec<Model>,
    events: Vec<MonitorEvent>,
    last_record: RecordId,
}

impl FitJob {
    /// Fits and calibrates every enabled detector.
    #[must_use]
    pub fn run(self) -> Fitted {
        let Self { config, collector } = self;
        let windows: Vec<Window<'_>> = collector.windows().collect();
        let (training, calibration) = split(&windows, config.calibration_share);
        let (mut models, mut events) = (Vec::new(), Vec::new());
        let enabled = |entry: &&Entry| config.detectors.contains_key(entry.name);
        for entry in REGISTRY.iter().filter(enabled) {
            let own = &config.detectors[entry.name];
            match Model::fit(entry, own, &training, &calibration, config.contamination, config.seed) {
                Ok(model) => {
                    events.push(MonitorEvent::Fitted {
                        detector: entry.name,
                        version: model.version(),
                        n_training: training.len(),
                        n_calibration: model.calibration().n_scores(),
                        n_outliers: model.calibration().n_outliers(),
                    });
                    models.push(model);
                }
                Err(error) => {
                    let reason =
                        std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
                    events.push(MonitorEvent::FitFailed { detector: entry.name, reason });
                }
            }
        }
        Fitted { models, events, last_record: collector.last_record }
    }
}

/// Divides the warm-up's sessions into training and calibration: every so many-th ended session calibrates.
///
/// Taking them evenly over time instead of the last ones keeps both parts alike when the warm-up sees something
/// begin, as the deletions in HDFS that come hours after the writes. Open sessions calibrate only where hardly any has ended.
fn split<'a>(windows: &[Window<'a>], share: f64) -> (Vec<Window<'a>>, Vec<Window<'a>>) {
    /// Ended sessions with which a calibration can do without open ones.
    const ENOUGH: usize = 100;
    let has_enough = windows.iter().filter(|window| is_closed(window)).count() >= ENOUGH;
    let (mut training, mut calibration) = (Vec::new(), Vec::new());
    let mut n_candidates = 0;
    // A little more, so that a tenth of ten is one.
    let due = |n: u64| (n as f64 * share + 1e-9) as u64;
    for window in windows {
        let is_candidate = !has_enough || is_closed(window);
        n_candidates += u64::from(is_candidate);
        if is_candidate && due(n_candidates) > due(n_candidates - 1) {
            calibration.push(*window);
        } else {
            training.push(*window);
        }
    }
    (training, calibration)
}

fn is_closed(window: &Window<'_>) -> bool {
    window.as_log().is_some_and(LogWindow::is_closed)
}

/// The sessions of the warm-up: the ended ones, whole and in the order in which they ended, and what there is of the
/// others. Without the latter a stream that never pauses would never be learned.
#[derive(Debug, Default)]
struct Collector {
    sessions: Vec<Collected>,
    open: BTreeMap<WindowKey, Collected>,
    services: Vec<Arc<str>>,
    /// Records of the sessions kept.
    n_kept: u64,
    /// Records seen, in ended sessions or not.
    n_seen: u64,
    last_record: RecordId,
    span: Option<(i64, i64)>,
}

#[derive(Debug)]
struct Collected {
    key: WindowKey,
    records: Vec<LogEntry>,
    n_dropped: u64,
    state: WindowState,
    is_stream: bool,
}

impl Collected {
    fn of(log: &LogWindow<'_>, records: &[LogEntry]) -> Self {
        Self {
            key: log.key.clone(),
            records: records.to_vec(),
            n_dropped: log.n_dropped,
            state: log.state,
            is_stream: log.is_stream,
        }
    }

    fn window<'a>(&'a self, services: &'a [Arc<str>]) -> Window<'a> {
        Window::Log(LogWindow {
            key: &self.key,
            records: &self.records,
            fresh: 0,
            n_dropped: self.n_dropped,
            state: self.state,
            is_stream: self.is_stream,
            services,
        })
    }
}

impl Collector {
    fn take(&mut self, window: &Window<'_>) {
        let Some(log) = window.as_log() else { return };
        self.n_seen += log.fresh_records().len() as u64;
        for record in log.fresh_records() {
            let at = record.time_unix_nano;
            let (start, end) = self.span.unwrap_or((at, at));
            self.span = Some((start.min(at), end.max(at)));
            self.last_record = self.last_record.max(record.record);
        }
        if log.services.len() > self.services.len() {
            self.services = log.services.to_vec();
        }
        self.n_kept += log.fresh_records().len() as u64;
        if !log.is_closed() {
            match self.open.get_mut(log.key) {
                Some(open) => open.records.extend_from_slice(log.fresh_records()),
                None => {
                    let open = Collected { n_dropped: 0, ..Collected::of(log, log.fresh_records()) };
                    self.open.insert(log.key.clone(), open);
                }
            }
            return;
        }
        self.open.remove(log.key);
        if !log.records.is_empty() {
            self.sessions.push(Collected::of(log, log.records));
        }
    }

    fn progress(&self, warm_up: &WarmUp) -> f64 {
        let share = |have: u64, want: u64| if want == 0 { 1.0 } else { have as f64 / want as f64 };
        let span_ms = self.span.map_or(0, |(start, end)| end.abs_diff(start) / 1_000_000);
        let asked = [
            warm_up.sessions().map(|want| share(self.sessions.len() as u64, want)),
            warm_up.span_ms.map(|want| share(span_ms, want)),
            warm_up.records.map(|want| share(self.n_seen, want)),
        ];
        let all = asked.into_iter().flatten().fold(1.0, f64::min);
        all.max(share(self.n_kept, warm_up.max_records)).min(1.0)
    }

    /// Open sessions first: they began before the latest ended ones, and calibration is left to whole sessions where
    /// there are enough.
    fn windows(&self) -> impl Iterator<Item = Window<'_>> {
        self.open.values().chain(&self.sessions).map(|collected| collected.window(&self.services))
    }
}

#[cfg(test)]
mod tests;
