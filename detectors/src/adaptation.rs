//! Stations 7 and 8, in the long run: what to do when normal operation has changed.
//!
//! A detector that has drifted (`drift`) is offered a successor: a **shadow**, fitted on recent sessions and compared with the
//! model that decides on later ones that neither was fitted on. It decides only once it is **promoted**, by an operator or, where
//! `promotion` says so, by itself when it explains the present and the old one does not. A **rollback** brings the model
//! before it back. Nothing is swapped because of drift alone.
//!
//! What recent sessions may teach is limited. A session that any detector found abnormal is kept out, except by those
//! that have drifted themselves, whose verdict is void; and no service may fill the memory in less time than
//! `max_sessions_per_minute` allows. So who wants an attack to be learned must make it hold a twentieth of all
//! sessions for as long as the memory reaches back, which is told to operators as drift, and then be promoted.
//!
//! Cost: a copy of each session that is kept. Memory: `recent_sessions`, at most 500,000 records (32 bytes each, 48
//! where a detector reads their numbers).

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use faultline_core::{LogEntry, LogWindow, RecordId, ShadowStatus, TemplateTexts, Window};
use rustc_hash::FxHashMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    error::Error,
    lifecycle::{
        collector::{Collected, split},
        renames::Renames,
    },
    model::Model,
    registry::REGISTRY,
};

/// Records of recent sessions that are kept.
const MAX_RECORDS: usize = 500_000;

/// Sessions without which no shadow is fitted.
const MIN_SESSIONS: usize = 200;

/// Share of the recent sessions, the latest, on which a shadow is compared with the model that decides.
const VALIDATION_SHARE: f64 = 0.2;

/// How detectors follow a system that changes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AdaptationConfig {
    /// Who puts a model that was fitted on recent sessions in the place of one that has drifted: `manual`, the default, or
    /// `automatic` when it explains held-back sessions and the old one does not.
    pub promotion: Promotion,
    /// Recent sessions that are kept to fit such a model on; 0 keeps none. Default 3400.
    pub recent_sessions: usize,
    /// Sessions of one service that are kept in a minute of event time. Default 60: with fewer, whoever floods a service
    /// teaches slower; with more, a change is followed faster.
    pub max_sessions_per_minute: u32,
    /// Milliseconds of event time after a change of a service's `service.version` in which its new templates count as new since
    /// the deploy: they are reported once and then stand for the old template they are nearest to. 0 turns this off.
    /// Default 3600000.
    pub deploy_window_ms: u64,
    /// Share of words that a new template must have in common with an old one to stand for it, 0 to 1. Default 0.5.
    pub nearest_similarity: f64,
}

impl Default for AdaptationConfig {
    fn default() -> Self {
        Self {
            promotion: Promotion::Manual,
            recent_sessions: 3_400,
            max_sessions_per_minute: 60,
            deploy_window_ms: 3_600_000,
            nearest_similarity: 0.5,
        }
    }
}

/// Who promotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Promotion {
    /// An operator.
    Manual,
    /// A shadow that is well calibrated on held-back sessions while the model that decides is not.
    Automatic,
}

impl AdaptationConfig {
    /// Refuses what is out of range.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let refuse = |key, reason: String| Err(Error::Config { key, reason });
        if !(0.0..=1.0).contains(&self.nearest_similarity) {
            let reason = format!("must be from 0 to 1, got {}", self.nearest_similarity);
            return refuse("detection.adaptation.nearest_similarity", reason);
        }
        if self.max_sessions_per_minute == 0 {
            return refuse("detection.adaptation.max_sessions_per_minute", "must be at least 1".to_owned());
        }
        Ok(())
    }
}

/// What a detector said about a session in the end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Verdict {
    /// The detector.
    pub detector: &'static str,
    /// Its largest score of the session.
    pub score: f64,
    /// What the calibration makes of that.
    pub p_value: f64,
}

/// Recent sessions that may teach. See the file's documentation.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    sessions: VecDeque<(Collected, Vec<Verdict>)>,
    n_records: usize,
    /// Sessions taken since the start.
    n_taken: u64,
    services: Vec<Arc<str>>,
    templates: TemplateTexts,
    /// By service the minute of its latest session and how many were taken in it.
    quotas: FxHashMap<u32, (i64, u32)>,
}

impl Recent {
    /// Takes a session that has ended, if it may teach.
    pub(crate) fn take(
        &mut self,
        config: &AdaptationConfig,
        window: &LogWindow<'_>,
        verdicts: &[Verdict],
        is_void: impl Fn(&str) -> bool,
        significance: f64,
    ) {
        const MINUTE_NANOS: i64 = 60_000_000_000;
        let Some(first) = window.records.first().filter(|_| config.recent_sessions > 0) else { return };
        let is_abnormal = |verdict: &Verdict| verdict.p_value <= significance && !is_void(verdict.detector);
        if verdicts.iter().any(is_abnormal) {
            return;
        }
        let minute = first.time_unix_nano.div_euclid(MINUTE_NANOS);
        let quota = self.quotas.entry(first.service).or_insert((minute, 0));
        if quota.0 != minute {
            *quota = (minute, 0);
        }
        if quota.1 >= config.max_sessions_per_minute {
            return;
        }
        quota.1 += 1;
        self.n_taken += 1;
        self.push(config, window, verdicts);
    }

    fn push(&mut self, config: &AdaptationConfig, window: &LogWindow<'_>, verdicts: &[Verdict]) {
        self.n_records += window.records.len();
        self.sessions.push_back((Collected::of(window, 0), verdicts.to_vec()));
        while self.sessions.len() > config.recent_sessions || self.n_records > MAX_RECORDS {
            let Some((oldest, _)) = self.sessions.pop_front() else { break };
            self.n_records -= oldest.records.len();
        }
        if window.services.len() > self.services.len() {
            self.services = window.services.to_vec();
        }
    }

    /// Takes a session that a person has called normal, whatever detectors had said of it.
    pub(crate) fn admit(&mut self, config: &AdaptationConfig, window: &LogWindow<'_>) {
        if config.recent_sessions > 0 && !window.records.is_empty() {
            let records: Vec<RecordId> = window.records.iter().map(|record| record.record).collect();
            self.remove(&window.key.stream, &window.key.session, &records);
            self.push(config, window, &[]);
        }
    }

    /// Drops the sessions of this key that hold one of `records`; says how many.
    pub(crate) fn remove(&mut self, stream: &str, session: &str, records: &[RecordId]) -> usize {
        let n_before = self.sessions.len();
        let n_records = &mut self.n_records;
        self.sessions.retain(|(held, _)| {
            let is_held = |record: &LogEntry| records.contains(&record.record);
            let is_it = held.is_of(stream, session) && held.records.iter().any(is_held);
            *n_records -= if is_it { held.records.len() } else { 0 };
            !is_it
        });
        n_before - self.sessions.len()
    }

    pub(crate) fn n_taken(&self) -> u64 {
        self.n_taken
    }

    /// The sessions as windows, oldest first.
    #[cfg(test)]
    pub(crate) fn windows(&self) -> Vec<Window<'_>> {
        self.sessions.iter().map(|(session, _)| session.window(&self.services, &self.templates)).collect()
    }

    /// Takes note of the texts that a fit will see, when there are others than before.
    pub(crate) fn know(&mut self, templates: &TemplateTexts) {
        if self.templates.len() != templates.len() {
            self.templates.clone_from(templates);
        }
    }

    /// Fits successors of `detectors` on what there is; none when that is too little.
    pub(crate) fn shadow_job(
        &self,
        detectors: Vec<(&'static str, Value)>,
        config: ShadowConfig,
        renames: &Renames,
    ) -> Option<ShadowJob> {
        (self.sessions.len() >= MIN_SESSIONS && !detectors.is_empty()).then(|| ShadowJob {
            detectors,
            config,
            sessions: self.sessions.iter().cloned().collect(),
            services: self.services.clone(),
            templates: self.templates.clone(),
            renames: renames.clone(),
        })
    }
}

/// How a shadow is fitted: as the model that it may succeed was.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ShadowConfig {
    pub(crate) calibration_share: f64,
    pub(crate) contamination: f64,
    pub(crate) significance: f64,
    pub(crate) seed: u64,
}

/// Everything that fitting shadows needs, to be run on any thread.
#[derive(Debug)]
pub struct ShadowJob {
    detectors: Vec<(&'static str, Value)>,
    config: ShadowConfig,
    sessions: Vec<(Collected, Vec<Verdict>)>,
    services: Vec<Arc<str>>,
    templates: TemplateTexts,
    renames: Renames,
}

/// A model beside the one that decides.
#[derive(Debug)]
pub struct Shadow {
    pub(crate) model: Model,
    pub(crate) status: ShadowStatus,
    /// The last record that it was fitted or compared on.
    pub(crate) last_record: RecordId,
}

/// What came of a [`ShadowJob`]: shadows, and for which detector there is none and why.
#[derive(Debug, Default)]
pub struct Shadows {
    pub(crate) fitted: Vec<Shadow>,
    pub(crate) failed: BTreeMap<&'static str, String>,
}

impl ShadowJob {
    /// Fits, calibrates and compares.
    #[must_use]
    pub fn run(self) -> Shadows {
        let Self { detectors, config, mut sessions, services, templates, renames } = self;
        sessions.iter_mut().for_each(|(session, _)| renames.apply(&mut session.records));
        let n_validation = (sessions.len() as f64 * VALIDATION_SHARE) as usize;
        let (fitted_on, held_back) = sessions.split_at(sessions.len() - n_validation);
        let windows: Vec<Window<'_>> =
            fitted_on.iter().map(|(session, _)| session.window(&services, &templates)).collect();
        let validation: Vec<Window<'_>> =
            held_back.iter().map(|(session, _)| session.window(&services, &templates)).collect();
        let (training, calibration) = split(&windows, config.calibration_share);
        let last_record =
            sessions.iter().flat_map(|(session, _)| session.records.iter().map(|record| record.record)).max();
        let mut shadows = Shadows::default();
        for (name, own) in detectors {
            let Some(entry) = REGISTRY.iter().find(|entry| entry.name == name) else { continue };
            let fit = Model::fit(entry, &own, &training, &calibration, config.contamination, config.seed);
            let compared = fit.map_err(|error| error.to_string()).and_then(|mut model| {
                let mut scored = Vec::new();
                model.score(0, &validation, &mut scored)?;
                let n_abnormal = scored.iter().filter(|scored| scored.p_value <= config.significance).count();
                let is_abnormal =
                    |verdict: &Verdict| verdict.detector == name && verdict.p_value <= config.significance;
                let n_active = held_back.iter().filter(|(_, verdicts)| verdicts.iter().any(is_abnormal)).count();
                let share = |n: usize| n as f64 / n_validation.max(1) as f64;
                let status = ShadowStatus {
                    model_version: model.version(),
                    n_training: training.len() as u64,
                    n_validation: n_validation as u64,
                    abnormal_share: share(n_abnormal),
                    active_abnormal_share: share(n_active),
                };
                Ok(Shadow { model, status, last_record: last_record.unwrap_or(0) })
            });
            match compared {
                Ok(shadow) => shadows.fitted.push(shadow),
                Err(reason) => {
                    shadows.failed.insert(name, reason);
                }
            }
        }
        shadows
    }
}

impl Shadow {
    /// Whether it explains the held-back sessions, and the model that decides does not: no more of them are abnormal to it than
    /// twice what was promised and chance account for, and to the other one twice as many.
    pub(crate) fn deserves_promotion(&self, significance: f64) -> bool {
        let ShadowStatus { n_validation, abnormal_share, active_abnormal_share, .. } = self.status;
        let chance = 3.0 * (significance / n_validation.max(1) as f64).sqrt();
        abnormal_share <= 2.0 * significance + chance && active_abnormal_share > 2.0 * abnormal_share
    }
}
