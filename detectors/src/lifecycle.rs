//! Stations 7 and 8 over time: the detectors of one deployment through warm-up, fitting, calibration and service.
//!
//! A monitor has the detectors of one kind of window: those of logs have one ([`Monitor::new`]), those of metrics and traces
//! have theirs in [`crate::telemetry`]. What is said of sessions here holds for traces, and for a service within one step.
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
//! What a session waits for may be overdue while it has no news: [`Monitor::advance_to`] asks the models, and what they tell
//! alerts as a score does, in the same episode and the same account; nothing is learned from it.
//!
//! A session that is open when warm-up ends is scored from its next window on. A model that returns a non-finite score is
//! sidelined: it says so once, in an event, and scores no more.
//!
//! The stations can be called one by one ([`Monitor::score`], [`Monitor::alert`], [`Monitor::learn`]) or in one go
//! ([`Monitor::process`]). Memory: the warm-up's records, then the models. Fails when warm-up is not
//! mostly normal: detectors with `min_support` 1 take whatever they saw for normal.

mod alerted;
pub(crate) mod collector;
mod config;
mod kept;
pub(crate) mod renames;
mod verdicts;

use std::collections::BTreeMap;

use faultline_core::{Alert, DetectorStatus, ModelState, RecordId, Signal, TemplateTexts, Window};
use serde_json::Value;

use self::{
    alerted::Alerted,
    collector::{Collector, split},
    renames::{Renames, Vocabulary},
    verdicts::Merged,
};
pub use self::{
    config::{MonitorConfig, WarmUp},
    verdicts::NotLearned,
};
use crate::{
    adaptation::{AdaptationConfig, Promotion, Recent, Shadow, ShadowConfig, ShadowJob, Shadows, Verdict},
    alerting::{AlertConfig, AlertStats, Alerter, Scored},
    drift::DRIFTED,
    error::Error,
    model::{Artifact, Model, Provenance},
    registry::{Entry, REGISTRY, entry},
};

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
    /// So large a share of recent sessions is abnormal to this model that it no longer describes the system.
    Drifted {
        /// Its name.
        detector: &'static str,
        /// Share of recent sessions beyond what its calibration allows.
        excess: f64,
    },
    /// The parser has merged templates that so large a share of the sessions of its fit hold that this model no longer knows the
    /// system's words; one fitted on recent sessions will be offered.
    TemplatesMerged {
        /// Its name.
        detector: &'static str,
        /// Share of the sessions it was fitted on.
        share: f64,
    },
    /// A model fitted on recent sessions scores in the shadow of the drifted one and waits for its promotion.
    ShadowFitted {
        /// Name of the detector.
        detector: &'static str,
        /// Version of the shadow.
        version: u64,
        /// Share of held-back sessions that are abnormal to it, and to the model that decides.
        abnormal_share: f64,
        /// See `abnormal_share`.
        active_abnormal_share: f64,
    },
    /// No shadow could be fitted.
    ShadowFailed {
        /// Name of the detector.
        detector: &'static str,
        /// Why.
        reason: String,
    },
    /// Another model of this detector decides from now on.
    Replaced {
        /// Name of the detector.
        detector: &'static str,
        /// Version of the model that decided until now.
        from: u64,
        /// Version of the model that decides.
        to: u64,
        /// Why.
        cause: Replacement,
    },
}

/// Why a model took the place of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replacement {
    /// A shadow was promoted.
    Promotion,
    /// The model before it was brought back.
    Rollback,
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
    /// What its detectors score.
    signal: Signal,
    /// Whether they say themselves how unlikely something is, so that no calibration can have drifted.
    is_self_calibrated: bool,
    phase: Phase,
    alerter: Alerter,
    fitted_until: Option<RecordId>,
    defers_fits: bool,
    /// What detectors said about the sessions that have ended, by window, until it has been learned from.
    ended: Vec<(usize, Vec<Verdict>)>,
    recent: Recent,
    /// For each detector that has drifted, how many recent sessions there had been by then.
    drifted: BTreeMap<&'static str, u64>,
    shadows: Vec<Shadow>,
    /// Models that decided before those that do, to return to.
    previous: Vec<Model>,
    alerted: Alerted,
    renames: Renames,
    /// Of the sessions that the models were fitted on.
    vocabulary: Vocabulary,
    /// For each detector the templates that were merged since its fit.
    merged: BTreeMap<&'static str, Merged>,
    /// What happened as time passed, for the next [`Self::score`] to tell.
    events: Vec<MonitorEvent>,
}

#[derive(Debug)]
enum Phase {
    WarmUp(Collector),
    /// The fit runs elsewhere.
    Fitting,
    Service(Vec<Model>),
}

impl Monitor {
    /// A monitor of the log detectors of a configuration, at the start of its warm-up.
    ///
    /// # Errors
    /// When a detector or one of its keys is unknown (the nearest one is named), none is enabled, or a value is out of
    /// range.
    pub fn new(config: MonitorConfig) -> Result<Self, Error> {
        Self::of(Signal::Logs, false, config)
    }

    /// A monitor of those detectors of a configuration that score `signal` and calibrate themselves, or do not. The
    /// former need no warm-up and are in service at once; so is a monitor without detectors, which says nothing.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub(crate) fn of(signal: Signal, is_self_calibrated: bool, mut config: MonitorConfig) -> Result<Self, Error> {
        config.check()?;
        let alerter = Alerter::new(config.alerting.clone())?;
        config.detectors.retain(|name, _| {
            entry(name).is_ok_and(|entry| entry.signal == signal && entry.is_self_calibrated == is_self_calibrated)
        });
        let is_empty = config.detectors.is_empty();
        let phase = if is_empty { Phase::Service(Vec::new()) } else { Phase::WarmUp(Collector::default()) };
        let mut monitor = Self::with(config, signal, phase, alerter);
        if is_self_calibrated {
            monitor.is_self_calibrated = true;
            monitor.events = monitor.end_warm_up();
        }
        Ok(monitor)
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
        prime(&mut alerter, &models);
        Ok(Self::with(config, Signal::Logs, Phase::Service(models), alerter))
    }

    fn with(config: MonitorConfig, signal: Signal, phase: Phase, alerter: Alerter) -> Self {
        Self {
            config,
            signal,
            is_self_calibrated: false,
            phase,
            alerter,
            fitted_until: None,
            defers_fits: false,
            ended: Vec::new(),
            recent: Recent::default(),
            drifted: BTreeMap::new(),
            shadows: Vec::new(),
            previous: Vec::new(),
            alerted: Alerted::default(),
            renames: Renames::default(),
            vocabulary: Vocabulary::default(),
            merged: BTreeMap::new(),
            events: Vec::new(),
        }
    }

    /// The same with another way to follow a system that changes: for a monitor that came fitted.
    ///
    /// # Errors
    /// When a value is out of range.
    pub fn adapting(mut self, adaptation: AdaptationConfig) -> Result<Self, Error> {
        adaptation.check()?;
        self.config.adaptation = adaptation;
        Ok(self)
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

    /// Whether one of its detectors reads `LogWindow::numbers`: only then are they worth keeping.
    #[must_use]
    pub fn reads_numbers(&self) -> bool {
        let reads = |(name, own): (&String, &Value)| entry(name).is_ok_and(|entry| entry.reads_numbers(own));
        self.config.detectors.iter().any(reads)
    }

    /// How much of the warm-up is done, 0 to 0.99; 1 once in service.
    #[must_use]
    pub fn progress(&self) -> f64 {
        match &self.phase {
            Phase::WarmUp(collector) => collector.progress(&self.config.warm_up, self.signal).min(0.99),
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

    /// Whether any detector is enabled.
    pub(crate) fn has_detectors(&self) -> bool {
        !self.config.detectors.is_empty()
    }

    /// Whether this detector is one of its own.
    pub(crate) fn has_detector(&self, name: &str) -> bool {
        self.config.detectors.contains_key(name)
    }

    /// Detectors of it that have judged something.
    #[must_use]
    pub fn n_judging(&self) -> usize {
        self.alerter.ledgers().iter().filter(|ledger| ledger.n_sessions > 0).count()
    }

    /// Lets so many detectors of other monitors have their share of the budget.
    pub fn share_budget_with(&mut self, n_others: usize) {
        self.alerter.share_budget_with(n_others);
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
        let mut events = events;
        events.extend(self.adapt());
        if !self.defers_fits
            && let Some(job) = self.begin_shadow_fit()
        {
            events.extend(self.conclude_shadows(job.run()));
        }
        Outcome { scored, alerts, events }
    }

    /// Station 7: raw scores and their p-values. During warm-up the windows are collected instead, and the models are
    /// fitted when there are enough.
    pub fn score(&mut self, windows: &[Window<'_>]) -> Scores {
        let mut events = std::mem::take(&mut self.events);
        let (mut first, mut n_taken) = (0, windows.len());
        if let Phase::WarmUp(collector) = &mut self.phase {
            first = windows.len();
            for (idx, window) in windows.iter().enumerate() {
                collector.take(window);
                if collector.progress(&self.config.warm_up, self.signal) >= 1.0 {
                    first = idx + 1;
                    collector.know(window);
                    break;
                }
            }
            if self.defers_fits {
                n_taken = first;
            } else if collector.progress(&self.config.warm_up, self.signal) >= 1.0 {
                events.extend(self.end_warm_up());
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
                if let Some(shift) = self.alerter.shift_of(model.name()) {
                    scored[from..].iter_mut().for_each(|scored| model.shift(shift, scored));
                }
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
        for (idx, window) in windows.iter().enumerate().filter(|(_, window)| window.is_closed()) {
            self.ended.push((idx, self.alerter.close(window.key())));
        }
        let alerts = self.alerter.drain();
        self.alerted.keep(windows, &alerts);
        alerts
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
        for model in &mut *models {
            model.learn(&normal);
        }
        let significance = self.config.alerting.significance;
        for (idx, verdicts) in self.ended.drain(..) {
            if let Some(log) = windows[idx].as_log() {
                let is_void = |detector: &str| self.drifted.contains_key(detector);
                self.recent.take(&self.config.adaptation, log, &verdicts, is_void, significance);
            }
        }
        if let Some(log) = windows.last().and_then(Window::as_log)
            && self.is_shadow_wanted()
        {
            self.recent.know(log.templates);
        }
    }

    /// Looks whether detectors have drifted, or have come back.
    pub fn adapt(&mut self) -> Vec<MonitorEvent> {
        let mut events = Vec::new();
        for ledger in self.alerter.ledgers().iter().filter(|_| !self.is_self_calibrated) {
            let (detector, excess) = (ledger.detector, ledger.drift.excess());
            if ledger.drift.is_drifted() && !self.drifted.contains_key(detector) {
                self.drifted.insert(detector, self.recent.n_taken());
                events.push(MonitorEvent::Drifted { detector, excess });
            } else if excess < DRIFTED / 2.0 {
                self.drifted.remove(detector);
            }
        }
        events
    }

    /// Whether a detector has drifted, or knows too many templates that are no more.
    fn is_shadow_wanted(&self) -> bool {
        !self.drifted.is_empty() || self.merged.values().any(|merged| merged.since.is_some())
    }

    /// A fit on recent sessions, once a detector has drifted, or its templates were merged, and half of what is kept of them came
    /// after that. Service goes on meanwhile; its result goes to [`Self::conclude_shadows`].
    pub fn begin_shadow_fit(&mut self) -> Option<ShadowJob> {
        if !self.is_shadow_wanted() {
            return None;
        }
        let enough = (self.config.adaptation.recent_sessions / 2) as u64;
        let is_due = |detector: &str| {
            let since_drift = self.drifted.get(detector).copied();
            let since_merge = self.merged.get(detector).and_then(|merged| merged.since);
            let is_past = |since: u64| self.recent.n_taken() - since >= enough;
            [since_drift, since_merge].into_iter().flatten().any(is_past)
                && self.shadows.iter().all(|shadow| shadow.model.name() != detector)
        };
        let models = self.models().iter().filter(|model| is_due(model.name()));
        let detectors = models.map(|model| (model.name(), model.config().clone())).collect();
        let MonitorConfig { calibration_share, contamination, seed, .. } = self.config;
        let significance = self.config.alerting.significance;
        let config = ShadowConfig { calibration_share, contamination, significance, seed };
        let job = self.recent.shadow_job(detectors, config, &self.renames)?;
        // Whatever comes of it, the next one waits for as many sessions again.
        let n_taken = self.recent.n_taken();
        self.drifted.values_mut().for_each(|at_drift| *at_drift = n_taken);
        self.merged.values_mut().filter_map(|merged| merged.since.as_mut()).for_each(|since| *since = n_taken);
        Some(job)
    }

    /// Takes fitted shadows, and promotes those that deserve it where the configuration says so.
    pub fn conclude_shadows(&mut self, shadows: Shadows) -> Vec<MonitorEvent> {
        let Shadows { fitted, failed } = shadows;
        let failed = failed.into_iter().map(|(detector, reason)| MonitorEvent::ShadowFailed { detector, reason });
        let mut events: Vec<MonitorEvent> = failed.collect();
        for shadow in fitted {
            let detector = shadow.model.name();
            events.push(MonitorEvent::ShadowFitted {
                detector,
                version: shadow.model.version(),
                abnormal_share: shadow.status.abnormal_share,
                active_abnormal_share: shadow.status.active_abnormal_share,
            });
            let is_promoted = self.config.adaptation.promotion == Promotion::Automatic
                && shadow.deserves_promotion(self.config.alerting.significance);
            self.shadows.push(shadow);
            if is_promoted {
                events.extend(self.promote(detector));
            }
        }
        events
    }

    /// Lets the shadow of a detector decide. Nothing happens when there is none.
    pub fn promote(&mut self, detector: &str) -> Option<MonitorEvent> {
        let idx = self.shadows.iter().position(|shadow| shadow.model.name() == detector)?;
        let Shadow { model, last_record, .. } = self.shadows.remove(idx);
        self.fitted_until = self.fitted_until.max(Some(last_record));
        self.replace(model, Replacement::Promotion)
    }

    /// Brings back the model that decided before the one that does. Nothing happens when there is none.
    pub fn roll_back(&mut self, detector: &str) -> Option<MonitorEvent> {
        let idx = self.previous.iter().position(|model| model.name() == detector)?;
        let model = self.previous.remove(idx);
        self.shadows.retain(|shadow| shadow.model.name() != detector);
        self.replace(model, Replacement::Rollback)
    }

    fn replace(&mut self, model: Model, cause: Replacement) -> Option<MonitorEvent> {
        let Phase::Service(models) = &mut self.phase else { return None };
        let active = models.iter_mut().find(|active| active.name() == model.name())?;
        let detector = model.name();
        let replaced = std::mem::replace(active, model);
        self.alerter.forget(detector);
        prime(&mut self.alerter, std::slice::from_ref(active));
        let event = MonitorEvent::Replaced { detector, from: replaced.version(), to: active.version(), cause };
        self.drifted.remove(detector);
        self.merged.remove(detector);
        self.previous.retain(|previous| previous.name() != detector);
        self.previous.push(replaced);
        Some(event)
    }

    /// How the detectors in service do, as of this event time.
    #[must_use]
    pub fn status(&self, time_unix_nano: i64) -> Vec<DetectorStatus> {
        let budget = self.config.alerting.budget;
        let ledgers = self.alerter.ledgers();
        let status = |model: &Model| {
            let detector = model.name();
            let ledger = ledgers.iter().find(|ledger| ledger.detector == detector)?;
            let state = match model.sidelined() {
                Some(_) => ModelState::Sidelined,
                None if self.drifted.contains_key(detector) => ModelState::Drifted,
                None => ModelState::Active,
            };
            let shadow = self.shadows.iter().find(|shadow| shadow.model.name() == detector);
            let previous = self.previous.iter().find(|previous| previous.name() == detector);
            Some(DetectorStatus {
                detector: detector.to_owned(),
                model_version: model.version(),
                state,
                time_unix_nano,
                n_sessions: ledger.n_sessions,
                n_alerts: ledger.n_alerts,
                sessions_per_day: ledger.sessions_per_day().unwrap_or(0.0),
                promised_per_day: budget.a_day().map(|budget| {
                    // Others have the share of who has not judged anything.
                    if ledger.n_sessions > 0 { budget / self.alerter.n_detectors() as f64 } else { 0.0 }
                }),
                alerts_per_day: ledger.alerts_per_day().unwrap_or(0.0),
                false_per_day: ledger.false_per_day().unwrap_or(0.0),
                false_discovery_rate: ledger.level(&self.config.alerting),
                drift: if self.is_self_calibrated { 0.0 } else { ledger.drift.excess() },
                merged_share: self.merged.get(detector).map_or(0.0, |merged| merged.share),
                shadow: shadow.map(|shadow| shadow.status.clone()),
                previous_version: previous.map(Model::version),
            })
        };
        self.models().iter().filter_map(status).collect()
    }

    /// The input is complete up to this event time: alerts that have been quiet are resolved, and what should have happened by
    /// now and has not may alert. To be called when the windows up to this time have been scored.
    pub fn advance_to(&mut self, watermark_unix_nano: i64) -> Vec<Alert> {
        self.alerter.advance_to(watermark_unix_nano);
        let Phase::Service(models) = &mut self.phase else { return self.alerter.drain() };
        for (idx, model) in models.iter_mut().enumerate() {
            match model.advance(idx, watermark_unix_nano) {
                Ok(overdue) => {
                    for (overdue, mut scored) in overdue {
                        if let Some(shift) = self.alerter.shift_of(model.name()) {
                            model.shift(shift, &mut scored);
                        }
                        let window = overdue.window(TemplateTexts::NONE);
                        self.alerter.observe_overdue(&window, &scored, model.detector());
                    }
                }
                Err(reason) => self.events.push(MonitorEvent::Sidelined { detector: model.name(), reason }),
            }
        }
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
        let collector = std::mem::take(collector);
        let job = FitJob { config: self.config.clone(), collector, renames: self.renames.clone() };
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
        if collector.progress(&self.config.warm_up, self.signal) < 1.0 {
            return None;
        }
        let collector = std::mem::take(collector);
        self.phase = Phase::Fitting;
        Some(FitJob { config: self.config.clone(), collector, renames: self.renames.clone() })
    }

    /// Takes fitted models into service.
    pub fn conclude(&mut self, fitted: Fitted) -> Vec<MonitorEvent> {
        let Fitted { models, mut events, last_record, vocabulary } = fitted;
        if models.is_empty() {
            events.push(MonitorEvent::WarmUpRestarted);
            self.phase = Phase::WarmUp(Collector::default());
            return events;
        }
        prime(&mut self.alerter, &models);
        self.fitted_until = Some(last_record);
        self.vocabulary = vocabulary;
        self.phase = Phase::Service(models);
        // Templates that were merged while the fit ran: it knows them under their old ids.
        events.extend(self.note_merged(&self.renames.pairs()));
        events
    }
}

/// A warm-up that is complete: everything that fitting needs, to be run on any thread.
#[derive(Debug)]
pub struct FitJob {
    config: MonitorConfig,
    collector: Collector,
    renames: Renames,
}

/// What came of a [`FitJob`].
#[derive(Debug)]
pub struct Fitted {
    models: Vec<Model>,
    events: Vec<MonitorEvent>,
    last_record: RecordId,
    vocabulary: Vocabulary,
}

impl FitJob {
    /// Fits and calibrates every enabled detector.
    #[must_use]
    pub fn run(self) -> Fitted {
        let Self { config, mut collector, renames } = self;
        collector.rename(&renames);
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
        let vocabulary = Vocabulary::of(&windows);
        Fitted { models, events, last_record: collector.last_record, vocabulary }
    }
}

/// Lets the alerter begin with what the calibrations know.
fn prime(alerter: &mut Alerter, models: &[Model]) {
    for model in models {
        let Provenance { n_training, n_calibration, start_unix_nano, end_unix_nano, .. } = model.provenance();
        let span = end_unix_nano.saturating_sub(start_unix_nano);
        alerter.prime(model.name(), model.calibration(), n_training + n_calibration, span);
    }
}

#[cfg(test)]
mod tests;
