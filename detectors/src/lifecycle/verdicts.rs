//! Station 8, what comes back: verdicts of people on alerts, and merges of templates from the parser.
//!
//! A **false positive** goes to the detector that alerted: it learns that what it found in that session is normal, down to the
//! raw score from which on a session is abnormal to it at all (`cut_of`). Only that detector learns, and only the model that
//! decides; the session joins the recent ones, so that a shadow fitted later learns it as well. A **true positive** takes the
//! session out of these. Who may say so, and how often, is for the caller to know: a verdict is trusted.
//!
//! A **merge** of templates takes ids away from models that know them. Survivors are older than what they take in, so models know
//! them; but what a session looks like changes. Models are not touched: nothing tells how a network that knew two templates apart
//! would see one. Sessions that are still to be fitted on are renamed, and when the templates merged since the fit were in more
//! than [`DRIFTED`] of the sessions, a shadow is fitted as if the model had drifted. Unlike drift this does not void its verdicts:
//! whoever can make the parser merge templates must not decide what is learned.

use std::sync::Arc;

use faultline_core::{Alert, TemplateId, TemplateTexts, Window};

use super::{Monitor, MonitorEvent, Phase};
use crate::{drift::DRIFTED, model::Model};

/// Why a detector has learned nothing from a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotLearned {
    /// Its records are gone from memory.
    #[error("the session is no longer held")]
    NotHeld,
    /// The detector that alerted does not run any more, or scores no more.
    #[error("the detector that alerted is not in service")]
    NoModel,
}

/// Templates that were merged since a model was fitted.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Merged {
    /// Share of the sessions it was fitted on that hold one of them, at most 1.
    pub(super) share: f64,
    /// How many recent sessions there had been when that share became too large.
    pub(super) since: Option<u64>,
}

impl Monitor {
    /// A person says that `alert` was false: the detector that raised it takes the session for normal, with the names and texts
    /// that windows have by now. Says how many things it has changed.
    ///
    /// # Errors
    /// When the session is no longer held, or the detector does not score.
    pub fn accept(
        &mut self,
        alert: &Alert,
        services: &[Arc<str>],
        templates: &TemplateTexts,
    ) -> Result<usize, NotLearned> {
        let session = self.alerted.get(alert.id).ok_or(NotLearned::NotHeld)?.clone();
        self.accept_window(alert, &session.window(services, templates))
    }

    /// The same with the session that `alert` was about, for one that is no longer held.
    ///
    /// # Errors
    /// When the detector does not score.
    pub fn accept_window(&mut self, alert: &Alert, window: &Window<'_>) -> Result<usize, NotLearned> {
        let Phase::Service(models) = &mut self.phase else { return Err(NotLearned::NoModel) };
        let own = models.iter_mut().find(|model| model.name() == alert.detector && model.sidelined().is_none());
        let model = own.ok_or(NotLearned::NoModel)?;
        let cut = cut_of(model, self.config.alerting.significance, alert.score);
        let n_learned = model.accept(window, cut);
        if let Some(log) = window.as_log().filter(|log| log.is_closed() && !log.is_stream) {
            self.recent.admit(&self.config.adaptation, log);
        }
        Ok(n_learned)
    }

    /// A person says that `alert` was right: its session teaches no model. Says how many sessions were taken out.
    pub fn confirm(&mut self, alert: &Alert) -> usize {
        self.recent.remove(&alert.stream, &alert.session, &alert.evidence.records)
    }

    /// The parser has merged templates (first) into others (second).
    pub fn merged(&mut self, aliases: &[(TemplateId, TemplateId)]) -> Vec<MonitorEvent> {
        self.renames.extend(aliases);
        self.note_merged(aliases)
    }

    /// Looks how much of what the models know these merges have made void.
    pub(super) fn note_merged(&mut self, aliases: &[(TemplateId, TemplateId)]) -> Vec<MonitorEvent> {
        let share: f64 = aliases.iter().map(|(alias, _)| self.vocabulary.forget(*alias)).sum();
        let mut events = Vec::new();
        let detectors: Vec<&'static str> = self.models().iter().map(Model::name).collect();
        for detector in detectors.into_iter().filter(|_| share > 0.0) {
            let merged = self.merged.entry(detector).or_default();
            merged.share = (merged.share + share).min(1.0);
            if merged.share > DRIFTED && merged.since.is_none() {
                merged.since = Some(self.recent.n_taken());
                events.push(MonitorEvent::TemplatesMerged { detector, share: merged.share });
            }
        }
        events
    }
}

/// The least raw score whose p-value is within `significance`, and no more than the `score` of the alert.
///
/// Not the least score that alerts at present: what is accepted may be frequent, and the more there is of something
/// unlikely, the less unlikely it has to be to be a discovery. Above `significance` it never is.
fn cut_of(model: &Model, significance: f64, score: f64) -> f64 {
    model.calibration().threshold(significance).unwrap_or(f64::INFINITY).min(score)
}
