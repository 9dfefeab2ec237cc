//! Span LSTM: a span that the ones before it did not lead to expect, or that took another time than they did.
//!
//! Station 7. Nedelkoski, Cardoso, Kao, "Anomaly Detection from System Tracing Data using Multimodal Deep Learning", IEEE
//! CLOUD 2019. A trace is read as a sequence of spans (`traces::sequence`), each a label (service and operation) and a
//! time. One LSTM reads both (`net`) and predicts the label of the next span and how long it takes. A trace is as odd as its
//! least probable label, or as its largest error of a time in the deviations that errors of that label have on held-out traces
//! (the paper's Gaussian).
//!
//! - **One scale.** The two are brought to one by how seldom held-out traces have as much of either (`rarity`): the score
//!   is the larger surprise, in nats. Each counts less the logarithm of how many spans there were to be odd.
//! - **A label that training did not hold** is of a class of its own: it surprises by how many traces of the training held a
//!   label that no other trace had, which is how often new ones come.
//! - **Time** is the logarithm of the duration, in deviations of its label. Of a late span those that it called and that are
//!   as late by half at least are to blame, the deepest first: a caller waits for those it calls.
//!
//! Differences from the paper: spans come caller by caller and not by start alone, so that calls side by side have no order;
//! the end of a trace is predicted like a label, so that a trace that breaks off is seen; the time is forecast for the label
//! that came, not for whatever comes; there is no top k, since the calibration says what probability is odd; equal
//! shapes are learned as often as the root of their count (`traces::corpus`).
//!
//! Cost at 250 labels: 24 kFLOP a span (`benches/trace_score.rs`), 22 GFLOP a fit of 300,000 spans. Memory: the weights, 53,000
//! numbers, and 2,000 figures of each account. Fails where what is normal has no order; on an anomaly that many spans share a
//! little each; and on spans beyond `max_spans`, which are not judged. Traces of which spans were left out are not judged
//! either, and it learns from no verdict.

mod explain;
mod fit;
mod net;
mod rarity;
mod snapshot;
#[cfg(test)]
mod tests;

use faultline_core::{Detector, DetectorError, Evidence, Score, Signal, TraceWindow, Window, hash::StableHash};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::{
    net::{Net, Pass, Reading, Readings},
    rarity::Rarity,
};
use crate::{
    algorithm::Algorithm,
    ranges::Ranges,
    traces::sequence::{Labels, MAX_LABELS, MAX_STEPS, Sequence},
};

/// Hyperparameters of [`SpanLstm`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Units of the LSTM. Default 32; more for applications with hundreds of kinds of requests, at more time.
    pub hidden: usize,
    /// Passes over the shapes of the training. Default 30. Fewer are made when `max_training_spans` is reached.
    pub epochs: usize,
    /// Traces in one optimizer step. Default 8.
    pub batch: usize,
    /// Adam's step size at the start. Default 0.005. Lower it when a fit reports that it diverged.
    pub learning_rate: f64,
    /// Labels to know, the most frequent ones: a bound on memory and time. Default 1024; others count as never seen.
    pub max_labels: usize,
    /// Spans of a trace that are read, callers first: a time bound. Default 512.
    pub max_spans: usize,
    /// Shapes of traces to learn from, the most frequent ones: a bound on memory and time. Default 2048.
    pub max_shapes: usize,
    /// Spans read in all of the training: a time bound, of 22 GFLOP with 250 labels. Default 300000.
    pub max_training_spans: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            hidden: 32,
            epochs: 30,
            batch: 8,
            learning_rate: 5e-3,
            max_labels: 1_024,
            max_spans: 512,
            max_shapes: 2_048,
            max_training_spans: 300_000,
        }
    }
}

impl Config {
    fn check(&self) -> Result<(), DetectorError> {
        let ranges = Ranges(SpanLstm::NAME);
        ranges.within([
            ("hidden", self.hidden, 1..=512),
            ("epochs", self.epochs, 1..=10_000),
            ("batch", self.batch, 1..=1_024),
            ("max_labels", self.max_labels, 1..=MAX_LABELS),
            ("max_spans", self.max_spans, 1..=MAX_STEPS),
            ("max_shapes", self.max_shapes, 1..=1 << 20),
            ("max_training_spans", self.max_training_spans, 1..=1 << 40),
        ])?;
        ranges.above_zero("learning_rate", self.learning_rate)
    }
}

/// See the file's documentation.
pub struct SpanLstm;

/// A fitted model.
#[derive(Debug)]
pub struct Model {
    config: Config,
    version: u64,
    learned: Learned,
    scratch: Scratch,
}

/// How long the spans of one label take.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Scale {
    /// Of the logarithm of a time.
    mean: f32,
    deviation: f32,
    /// Deviation of the network's errors on held-out traces, in deviations.
    spread: f32,
}

/// Everything that a model learned.
#[derive(Debug)]
struct Learned {
    labels: Labels,
    /// By label.
    scales: Vec<Scale>,
    net: Net,
    /// How seldom figures of structure and of time are as large.
    structure: Rarity,
    time: Rarity,
    /// Surprise of a label that training did not hold, nats.
    of_unknown: f64,
}

/// A trace as the network reads it and what it makes of it. Made to be used again.
#[derive(Debug, Default)]
struct Scratch {
    sequence: Sequence,
    readings: Vec<Reading>,
    pass: Pass,
}

/// No label surprises the network by more, nats.
const MAX_NLL: f64 = 30.0;

/// Microseconds that are added to every time: less than that says nothing.
const LEAST_MICROS: f64 = 200.0;

/// The logarithm of a time.
fn log_time(duration_nanos: i64) -> f32 {
    ((duration_nanos.max(0) as f64) / 1e3 + LEAST_MICROS).ln() as f32
}

/// The time of which this is the logarithm, milliseconds.
fn ms_of(log_time: f32) -> f64 {
    ((f64::from(log_time).exp() - LEAST_MICROS) / 1e3).clamp(0.0, 1e13)
}

/// The step that stands out most in one respect, and by how much.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Odd {
    step: usize,
    /// What is compared with other traces.
    figure: f64,
    /// Of a label its surprise to the network in nats, of a time its error in deviations.
    size: f64,
}

/// What is said of one trace, surprises in nats.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Judgement {
    structure: f64,
    /// The least probable label that is known, or the end.
    label: Option<Odd>,
    /// The first of the labels that are not known, and how many there are.
    unknown: Option<(usize, usize)>,
    time: f64,
    latest: Option<Odd>,
}

impl Judgement {
    fn value(&self) -> f64 {
        self.structure.max(self.time)
    }

    fn is_of_time(&self) -> bool {
        self.time > self.structure
    }
}

impl Scratch {
    fn readings(&self) -> Readings<'_> {
        Readings { spans: &self.readings, is_whole: !self.sequence.is_cut }
    }

    /// The least probable label among those that are known, or the end.
    fn odd_label(&self, n_labels: usize) -> Option<Odd> {
        let steps = self.readings().n_steps();
        let rows = self.pass.log_probabilities.chunks_exact(n_labels + 1).take(steps).enumerate();
        let surprises = rows.filter_map(|(step, row)| {
            let label = self.readings.get(step).map_or(n_labels, |reading| usize::from(reading.symbol));
            Some((step, (-f64::from(*row.get(label)?)).clamp(0.0, MAX_NLL)))
        });
        most(surprises.map(|(step, nll)| (step, nll, nll)))
    }

    /// The errors of times whose label is known, in deviations of the label: step, label, error.
    fn errors(&self, n_labels: usize) -> impl Iterator<Item = (usize, usize, f32)> {
        let pairs = self.readings.iter().zip(&self.pass.times).enumerate();
        let errors =
            pairs.map(|(step, (reading, expected))| (step, usize::from(reading.symbol), reading.time - expected));
        errors.filter(move |(_, label, _)| *label < n_labels)
    }
}

/// Of steps with a figure and a size the one with the largest figure, less the logarithm of how many there are.
fn most(steps: impl Iterator<Item = (usize, f64, f64)>) -> Option<Odd> {
    let (mut odd, mut n_steps) = (None::<Odd>, 0usize);
    for (step, figure, size) in steps {
        n_steps += 1;
        if odd.is_none_or(|odd| figure > odd.figure) {
            odd = Some(Odd { step, figure, size });
        }
    }
    odd.map(|odd| Odd { figure: odd.figure - (n_steps as f64).ln(), ..odd })
}

/// Of errors, in deviations of their labels, the one that is largest in deviations of what is usual for errors.
fn odd_time(errors: impl Iterator<Item = (usize, usize, f32)>, scales: &[Scale]) -> Option<Odd> {
    most(errors.map(|(step, label, error)| {
        let deviations = f64::from(error / scales[label].spread);
        (step, 0.5 * deviations * deviations, deviations)
    }))
}

impl Learned {
    /// Reads a trace; false where it has no spans, or not all of them.
    fn read(&self, trace: &TraceWindow<'_>, max_spans: usize, scratch: &mut Scratch) -> bool {
        if !scratch.sequence.take(&self.labels, trace, max_spans) {
            return false;
        }
        fit::readings_of(&self.scales, trace, &scratch.sequence, &mut scratch.readings);
        let Scratch { sequence, readings, pass } = scratch;
        self.net.read(Readings { spans: readings, is_whole: !sequence.is_cut }, pass);
        true
    }

    /// What there is to say of a trace that has been read.
    fn judge(&self, scratch: &Scratch) -> Judgement {
        let n_labels = self.labels.len();
        let label = scratch.odd_label(n_labels);
        let latest = odd_time(scratch.errors(n_labels), &self.scales);
        let mut unknown =
            scratch.readings.iter().enumerate().filter(|(_, reading)| usize::from(reading.symbol) >= n_labels);
        let unknown = unknown.next().map(|(first, _)| (first, 1 + unknown.count()));
        let of_label = label.map_or(0.0, |odd| self.structure.surprise(odd.figure));
        let of_unknown = unknown.map_or(0.0, |(_, n)| self.of_unknown + (n as f64).ln());
        Judgement {
            structure: of_label.max(of_unknown),
            label,
            unknown,
            time: latest.map_or(0.0, |odd| self.time.surprise(odd.figure)),
            latest,
        }
    }

    /// The step to blame.
    fn culprit(&self, scratch: &Scratch, judgement: &Judgement) -> usize {
        let last = scratch.readings.len().saturating_sub(1);
        if !judgement.is_of_time() {
            let step = judgement.unknown.map(|(first, _)| first).or(judgement.label.map(|odd| odd.step));
            // That a trace ends is the doing of its last span.
            return step.map_or(last, |step| step.min(last));
        }
        let Some(latest) = judgement.latest else { return last };
        let (steps, end) = (&scratch.sequence.steps, scratch.sequence.steps[latest.step].end as usize);
        let below = scratch.errors(self.labels.len()).filter(|(step, ..)| (latest.step..end).contains(step));
        let is_guilty = |&(_, label, error): &(usize, usize, f32)| {
            let deviations = f64::from(error / self.scales[label].spread);
            deviations * latest.size.signum() >= 0.5 * latest.size.abs()
        };
        let guilty = below.filter(is_guilty).map(|(step, ..)| step);
        guilty.max_by_key(|&step| (steps[step].depth, std::cmp::Reverse(step))).unwrap_or(latest.step)
    }
}

impl Algorithm for SpanLstm {
    const NAME: &'static str = "span-lstm";
    const SUMMARY: &'static str = "a span, or a time of one, that an LSTM did not expect after the spans before it";
    const PAPER: &'static str = "Nedelkoski, Cardoso, Kao: Anomaly Detection from System Tracing Data using Multimodal Deep \
                                 Learning, IEEE CLOUD 2019";
    const SIGNAL: Signal = Signal::Traces;
    /// The paper's thresholds are of its own data.
    const PUBLISHED_THRESHOLD: Option<f64> = None;
    const IS_SEEDED: bool = true;
    /// A fit costs seconds, and the cheap detectors of traces come first.
    const IS_DEFAULT: bool = false;
    type Config = Config;
    type Model = Model;

    fn fit(config: &Config, training: &[Window<'_>], seed: u64) -> Result<Model, DetectorError> {
        config.check()?;
        let is_judged = |trace: &&TraceWindow<'_>| !trace.spans.is_empty() && trace.n_dropped == 0;
        let traces: Vec<&TraceWindow<'_>> = training.iter().filter_map(Window::as_trace).filter(is_judged).collect();
        let learned = fit::fit(config, &traces, seed)
            .map_err(|reason| DetectorError::Fit { detector: Self::NAME.to_owned(), reason })?;
        let state = snapshot::encode(&learned, 0);
        let version = StableHash::new().bytes(&state).text(&format!("{config:?}")).finish();
        Ok(Model { config: config.clone(), version, learned, scratch: Scratch::default() })
    }

    fn load(config: &Config, snapshot: &[u8]) -> Result<Model, DetectorError> {
        config.check()?;
        let refuse = |reason: String| DetectorError::Snapshot { detector: Self::NAME.to_owned(), reason };
        let (version, learned) = snapshot::decode(snapshot).map_err(refuse)?;
        let (wanted, found) = (config.hidden, learned.net.shape.hidden);
        if wanted != found {
            return Err(refuse(format!("it was fitted with `hidden` {found}, the configuration says {wanted}")));
        }
        Ok(Model { config: config.clone(), version, learned, scratch: Scratch::default() })
    }
}

impl Detector for Model {
    fn name(&self) -> &'static str {
        SpanLstm::NAME
    }

    fn version(&self) -> u64 {
        self.version
    }

    fn signal(&self) -> Signal {
        SpanLstm::SIGNAL
    }

    /// The larger of the surprises of structure and time, nats. The culprit is the span to blame.
    fn score(&mut self, windows: &[Window<'_>], scores: &mut Vec<Option<Score>>) {
        let Self { config, learned, scratch, .. } = self;
        scores.extend(windows.iter().map(|window| {
            let trace = window.as_trace()?;
            if !learned.read(trace, config.max_spans, scratch) {
                return None;
            }
            let judgement = learned.judge(scratch);
            let culprit = scratch.sequence.steps.get(learned.culprit(scratch, &judgement))?.span as usize;
            Some(Score { value: judgement.value(), culprit })
        }));
    }

    fn explain(&self, window: &Window<'_>, score: &Score) -> Evidence {
        self.evidence(window, score)
    }

    /// Does nothing: what becomes a little stranger each day would become normal.
    fn learn(&mut self, _windows: &[Window<'_>]) {}

    fn snapshot(&self) -> Result<Vec<u8>, DetectorError> {
        Ok(snapshot::encode(&self.learned, self.version))
    }
}
