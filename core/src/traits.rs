//! The seams of the path: what a source, parser, detector, localizer, policy, environment, executor and sink must do.
//!
//! Compute traits ([`Parser`], [`Detector`], [`Localizer`], [`Policy`]) are synchronous and deterministic. Edge traits
//! ([`Source`], [`Executor`], [`Sink`]) return boxed futures, so that this crate names no async runtime.

use std::{future::Future, pin::Pin, sync::Arc};

use crate::{
    action::{Action, Outcome},
    alert::Alert,
    batch::{LogBatch, SpanBatch},
    delivery::Delivery,
    error::{Classified, Domain},
    incident::{Cause, Incident},
    score::{Evidence, Score},
    series::GroupWindow,
    template::{Template, TemplateTexts},
    window::{LogEntry, LogWindow, Numbers, Signal, Window, WindowKey, WindowState},
};

/// A future that can cross threads.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Where a source puts what it received: the bounded channel to station 3.
pub trait Outlet: Send + Sync {
    /// Offers a batch without waiting.
    ///
    /// # Errors
    /// [`OutletError::Full`] gives the batch back when the pipeline is at capacity: a push source tells its sender to
    /// come back later. [`OutletError::Closed`] when the pipeline is shutting down.
    fn try_send(&self, delivery: Delivery) -> Result<(), OutletError>;

    /// Waits for room; a pull source simply stops polling meanwhile.
    ///
    /// # Errors
    /// [`OutletError::Closed`] when the pipeline is shutting down.
    fn send(&self, delivery: Delivery) -> BoxFuture<'_, Result<(), OutletError>>;
}

/// Why an [`Outlet`] did not take a batch. The batch comes back boxed, its acknowledgement unanswered.
#[derive(Debug, thiserror::Error)]
pub enum OutletError {
    /// At capacity: try again later.
    #[error("the pipeline is at capacity")]
    Full(Box<Delivery>),
    /// Shutting down.
    #[error("the pipeline is shutting down")]
    Closed(Box<Delivery>),
}

/// Receives and decodes telemetry (stations 1 and 2).
pub trait Source: Send {
    /// Name, as in [`crate::Position::source`] and in metric labels.
    fn name(&self) -> &str;

    /// Receives until the input ends or `stop` resolves, then returns.
    fn run<'a>(
        self: Box<Self>,
        outlet: Arc<dyn Outlet>,
        stop: BoxFuture<'a, ()>,
    ) -> BoxFuture<'a, Result<(), SourceError>>
    where
        Self: 'a;
}

/// A source that could not go on.
#[derive(Debug, thiserror::Error)]
#[error("source {name}: {operation}")]
pub struct SourceError {
    /// Name of the source.
    pub name: String,
    /// What it was doing, naming the configuration key to change where there is one.
    pub operation: String,
    /// Who can do something about it.
    pub domain: Domain,
    /// The cause.
    #[source]
    pub cause: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Classified for SourceError {
    fn domain(&self) -> Domain {
        self.domain
    }

    fn retryable(&self) -> bool {
        self.domain == Domain::External
    }
}

/// Turns log bodies into templates (station 4). Never fails: a line nothing matches is its own template.
pub trait Parser: Send {
    /// The same batch with time and severity from the line header where one is configured, and with `template_id`,
    /// `params` and `session` filled in.
    fn parse(&mut self, batch: LogBatch) -> LogBatch;

    /// Templates that are new or have widened since the last call, in order of id.
    fn drain_changes(&mut self) -> Vec<Template>;

    /// Every template, in order of id.
    fn templates(&self) -> Vec<Template>;

    /// State from which an equal parser can be restored.
    fn snapshot(&self) -> Vec<u8>;
}

/// A fitted model that scores windows (station 7). There is no unfitted detector: fitting makes one.
pub trait Detector: Send {
    /// Name, as in `REGISTRY`.
    fn name(&self) -> &'static str;

    /// Changes whenever the model would score differently after a refit; part of every alert id.
    fn version(&self) -> u64;

    /// Signal it scores; it is handed windows of no other.
    fn signal(&self) -> Signal;

    /// Pushes one entry per window onto `scores`, in order: `None` while it has nothing to say (warming up, or the
    /// window holds nothing it judges).
    fn score(&mut self, windows: &[Window<'_>], scores: &mut Vec<Option<Score>>);

    /// The input is complete up to this event time: what should have happened by now and has not, each told once. For
    /// detectors that wait for records; a session without news is not shown to [`Detector::score`] again.
    fn advance(&mut self, _watermark_unix_nano: i64) -> Vec<Overdue> {
        Vec::new()
    }

    /// Why `window` got `score`. Called after [`Detector::score`] or [`Detector::advance`] and before [`Detector::learn`].
    fn explain(&self, window: &Window<'_>, score: &Score) -> Evidence;

    /// Learns from windows that are held to be normal. A detector that does not learn online ignores them.
    fn learn(&mut self, windows: &[Window<'_>]);

    /// A person says that what it found in `window` is normal: nothing in it is to score `cut` or more from now on. Says
    /// how many things it changed, 0 where it does not learn from verdicts; where it did, its version may change.
    fn accept(&mut self, _window: &Window<'_>, _cut: f64) -> usize {
        0
    }

    /// The fitted state, which the registry can load again.
    ///
    /// # Errors
    /// When the state cannot be encoded.
    fn snapshot(&self) -> Result<Vec<u8>, DetectorError>;
}

/// An instance that sends no metrics any more.
#[derive(Clone, Debug, PartialEq)]
pub struct Silent {
    /// One of its series.
    pub column: [Arc<str>; 1],
    /// Where the step of its last row begins.
    pub start_unix_nano: i64,
    /// The step.
    pub step_nanos: i64,
    /// Its service; empty when not known.
    pub service: Arc<str>,
}

/// Records of a session that have waited for too long, or an instance that is silent, as [`Detector::advance`] tells of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Overdue {
    /// Which session or instance.
    pub key: WindowKey,
    /// The instance, where it is one: there are no records then.
    pub silent: Option<Silent>,
    /// The records that wait.
    pub records: Vec<LogEntry>,
    /// Service names by [`LogEntry::service`] of these records.
    pub services: Vec<Arc<str>>,
    /// Whether the records have no session key.
    pub is_stream: bool,
    /// How abnormal that is by now; its culprit is one of these records, 0 for an instance.
    pub score: Score,
}

/// What a silent instance has sent.
const GAP: &[f64] = &[f64::NAN];

impl Overdue {
    /// Records that wait, or 1.
    #[must_use]
    pub fn n_items(&self) -> usize {
        if self.silent.is_some() { 1 } else { self.records.len() }
    }

    /// The records as an open window with nothing fresh in it, or a gap in the place of the instance's last row.
    #[must_use]
    pub fn window<'a>(&'a self, templates: &'a TemplateTexts) -> Window<'a> {
        if let Some(Silent { column, start_unix_nano, step_nanos, service }) = &self.silent {
            return Window::Group(GroupWindow {
                key: &self.key,
                columns: column,
                start_unix_nano: *start_unix_nano,
                step_nanos: *step_nanos,
                n_rows: 1,
                values: GAP,
                service,
            });
        }
        Window::Log(LogWindow {
            key: &self.key,
            records: &self.records,
            numbers: Numbers::default(),
            fresh: self.records.len(),
            n_dropped: 0,
            state: WindowState::Open,
            is_stream: self.is_stream,
            services: &self.services,
            templates,
        })
    }
}

/// A detector that could not be fitted, loaded or saved.
#[derive(Debug, thiserror::Error)]
pub enum DetectorError {
    /// Configuration that the detector does not take, naming the key.
    #[error("detector {detector}: {reason}")]
    Config {
        /// Name of the detector.
        detector: String,
        /// What is wrong, naming the key.
        reason: String,
    },
    /// Too little or unusable training data.
    #[error("detector {detector} cannot be fitted: {reason}")]
    Fit {
        /// Name of the detector.
        detector: String,
        /// What is missing.
        reason: String,
    },
    /// A snapshot that is damaged or belongs to something else.
    #[error("detector {detector}: snapshot refused: {reason}")]
    Snapshot {
        /// Name of the detector.
        detector: String,
        /// What does not match.
        reason: String,
    },
}

impl Classified for DetectorError {
    fn domain(&self) -> Domain {
        match self {
            Self::Config { .. } | Self::Fit { .. } => Domain::User,
            Self::Snapshot { .. } => Domain::External,
        }
    }

    fn retryable(&self) -> bool {
        false
    }
}

/// Ranks what may have caused an incident (station 9).
pub trait Localizer: Send {
    /// Name, as in [`Cause::localizer`].
    fn name(&self) -> &'static str;

    /// Takes note of spans as they pass, so that there is a before to compare with.
    fn observe(&mut self, spans: &SpanBatch);

    /// Suspects for an incident of these alerts, likeliest first; empty when it has nothing to go by.
    fn localize(&self, alerts: &[&Alert]) -> Vec<Cause>;
}

/// Proposes repairs (station 11).
pub trait Policy: Send {
    /// Name and version, as in [`Action::policy`].
    fn name(&self) -> &str;

    /// Actions for an incident; [`crate::ActionKind::Nothing`] or an empty list is an answer.
    fn propose(&mut self, incident: &Incident) -> Vec<Action>;
}

/// Something that actions change and that pays rewards: the simulator, or a recorded system.
pub trait Environment: Send {
    /// Back to the state that `seed` names.
    fn reset(&mut self, seed: u64);

    /// Carries out `actions` and lets `duration_ns` pass.
    fn step(&mut self, actions: &[Action], duration_ns: u64) -> Vec<Outcome>;
}

/// Carries an action out (station 12).
pub trait Executor: Send + Sync {
    /// Name, as in the audit log.
    fn name(&self) -> &str;

    /// Carries `action` out, or says why not.
    fn execute<'a>(&'a self, action: &'a Action) -> BoxFuture<'a, Outcome>;
}

/// Takes alerts and incidents out of the process (station 10).
pub trait Sink: Send {
    /// Name, as in metric labels.
    fn name(&self) -> &str;

    /// Publishes changed alerts and incidents. Called again with the same ones after a replay: the ids are the same.
    ///
    /// # Errors
    /// When they could not be handed over; the pipeline offers them again.
    fn publish(
        &mut self,
        alerts: &[Alert],
        incidents: &[Incident],
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>>;
}
