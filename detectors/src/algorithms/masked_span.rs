//! Masked span: spans that the rest of their trace does not lead to expect where they are, and calls that it does lead to
//! expect and that are missing.
//!
//! Station 7. Bogatinovski, Nedelkoski, Cardoso, Kao, "Self-Supervised Anomaly Detection from Distributed Traces", UCC 2020.
//! Each span of a trace is masked in turn, and a network with attention predicts its label (service and operation) from the
//! others (`net`). Spans that are less probable than a level are errors, and a trace is as odd as it has errors: the score is
//! their number, and below one more how improbable the worst place is, so that traces without errors are in order too.
//!
//! - **The level** is the probability that only the share `error_share` of held-out traces falls below anywhere, and one in
//!   twenty at most. So a call that is rare, or one of many that may come, is no error.
//! - **What is missing**: a mask over what is there sees no call that was left out. So the end of what each span called is a
//!   place too, where nothing more came (`places`). In training half of the masked spans take with them all that their caller
//!   did from there on: what comes next is then to be told as if the caller had gone no further.
//! - **A label that training did not hold** has no probability: it is an error, and the worst of its trace.
//!
//! Times have no part in it, so traces of one shape score alike, and scores are kept by shape (`cache`).
//!
//! Differences from the paper: positions are those of a tree (caller, calls before and after, depth, and how spans stand to
//! each other) instead of a sequence; one block of attention without layer norm, in which spans do not change as they are
//! looked at, so that all masks of a trace share one pass; ends as said; the number of errors instead of their share, since a
//! long trace with one error is no better than a short one; the level by probability instead of a top k; equal shapes are
//! learned as often as the root of their count (`traces::corpus`).
//!
//! Cost at 250 labels: of a shape that is not known 42 kFLOP a place and 0.13 more for each span that it sees, two places a span;
//! of one that is known a hash a span (`benches/trace_score.rs`). A fit of 200,000 predictions is 30 GFLOP. Memory: the weights,
//! 57,000 numbers, and `cache_shapes` shapes, 4 bytes a span. Fails on what is only late; on spans beyond `max_spans`, which
//! are not judged; and where what is called next is chance, which raises the level. Traces of which spans were left out are not
//! judged, and it learns from no verdict.

mod cache;
mod explain;
mod fit;
mod net;
mod places;
#[cfg(test)]
mod tests;

use faultline_core::{Detector, DetectorError, Evidence, Score, Signal, TraceWindow, Window, hash::StableHash};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::{
    cache::{Cache, Known},
    net::{Look, Net, Shape},
    places::{Place, places_of},
};
use crate::{
    algorithm::Algorithm,
    bytes::{Magic, Reader, Writer},
    ranges::Ranges,
    traces::sequence::{Labels, MAX_LABELS, MAX_STEPS, Sequence, Step},
};

/// Hyperparameters of [`MaskedSpan`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Features of a span and of a place, an even number. Default 32.
    pub width: usize,
    /// Units of the layer above the attention. Default 64.
    pub hidden: usize,
    /// Passes over the shapes of the training. Default 30. Fewer are made when `max_training_places` is reached.
    pub epochs: usize,
    /// Traces in one optimizer step, of each at most 32 places. Default 8.
    pub batch: usize,
    /// Adam's step size at the start. Default 0.005. Lower it when a fit reports that it diverged.
    pub learning_rate: f64,
    /// Share of the held-out traces that may have an error: it sets the level below which a probability is one. Default
    /// 0.01. Raise it when training may hold failures.
    pub error_share: f64,
    /// Labels to know, the most frequent ones: a bound on memory and time. Default 1024; others count as never seen.
    pub max_labels: usize,
    /// Spans of a trace that are read, callers first: a bound on time, which grows with its square. Default 256.
    pub max_spans: usize,
    /// Shapes of traces to learn from, the most frequent ones: a bound on memory and time. Default 2048.
    pub max_shapes: usize,
    /// Predictions made in all of the training: a time bound, of 30 GFLOP with 250 labels. Default 200000.
    pub max_training_places: usize,
    /// Shapes whose scores are kept, those that came lately: a memory bound, of 16 MiB as it stands. Default 16384.
    pub cache_shapes: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            width: 32,
            hidden: 64,
            epochs: 30,
            batch: 8,
            learning_rate: 5e-3,
            error_share: 0.01,
            max_labels: 1_024,
            max_spans: 256,
            max_shapes: 2_048,
            max_training_places: 200_000,
            cache_shapes: 16_384,
        }
    }
}

impl Config {
    fn check(&self) -> Result<(), DetectorError> {
        let ranges = Ranges(MaskedSpan::NAME);
        ranges.within([
            ("width", self.width, 2..=512),
            ("hidden", self.hidden, 1..=1_024),
            ("epochs", self.epochs, 1..=10_000),
            ("batch", self.batch, 1..=1_024),
            ("max_labels", self.max_labels, 1..=MAX_LABELS),
            ("max_spans", self.max_spans, 1..=MAX_STEPS),
            ("max_shapes", self.max_shapes, 1..=1 << 20),
            ("max_training_places", self.max_training_places, 1..=1 << 40),
            ("cache_shapes", self.cache_shapes, 2..=1 << 24),
        ])?;
        if !self.shape(1).is_sound() {
            return Err(ranges.refuse("width", "it is not even, and there are two heads"));
        }
        ranges.within([("error_share", self.error_share, 0.0..=0.5)])?;
        ranges.above_zero("learning_rate", self.learning_rate)
    }

    fn shape(&self, n_labels: usize) -> Shape {
        Shape { n_labels, width: self.width, hidden: self.hidden }
    }
}

/// See the file's documentation.
pub struct MaskedSpan;

/// A fitted model.
#[derive(Debug)]
pub struct Model {
    config: Config,
    version: u64,
    learned: Learned,
    /// What `learned` said of shapes.
    cache: Cache,
    scratch: Scratch,
}

/// Everything that a model learned.
#[derive(Debug)]
struct Learned {
    labels: Labels,
    net: Net,
    /// Surprise beyond which a place is an error, nats.
    level: f64,
}

/// A trace and what the network makes of it. Made to be used again.
#[derive(Debug, Default)]
struct Scratch {
    sequence: Sequence,
    shape: Vec<u32>,
    places: Vec<Place>,
    look: Look,
}

/// No label that is known surprises by more, nats.
const MAX_NLL: f64 = 29.0;

/// Surprise of a label that training did not hold.
const UNKNOWN_NLL: f64 = 30.0;

impl Learned {
    /// Looks at the places of a trace: `told` is handed each with the surprise there and the log-probabilities.
    fn look(
        &self,
        (steps, is_cut): (&[Step], bool),
        places: &mut Vec<Place>,
        look: &mut Look,
        mut told: impl FnMut(&Place, f64, &[f32]),
    ) {
        places_of(steps, is_cut, places);
        self.net.predict(steps, places, look, |idx, row| {
            let place = &places[idx];
            let own = self.net.shape.came(place).and_then(|came| row.get(came));
            told(place, own.map_or(UNKNOWN_NLL, |own| (-f64::from(*own)).clamp(0.0, MAX_NLL)), row);
        });
    }

    /// What there is to say of a trace.
    fn judge(&self, scratch: &mut Scratch) -> Known {
        let Scratch { sequence, places, look, .. } = scratch;
        let (mut n_errors, mut worst, mut step) = (0u32, 0.0, 0);
        self.look((&sequence.steps[..], sequence.is_cut), places, look, |place, nll, _| {
            n_errors += u32::from(nll > self.level);
            if nll > worst {
                (worst, step) = (nll, place.blamed());
            }
        });
        Known { value: f64::from(n_errors) + worst / (1.0 + worst), step: step as u32 }
    }
}

impl Algorithm for MaskedSpan {
    const NAME: &'static str = "masked-span";
    const SUMMARY: &'static str = "spans that the rest of a trace does not lead to expect, and calls that are missing";
    const PAPER: &'static str = "Bogatinovski, Nedelkoski, Cardoso, Kao: Self-Supervised Anomaly Detection from Distributed \
                                 Traces, UCC 2020";
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
        let version = StableHash::new().bytes(&encode(&learned, 0)).text(&format!("{config:?}")).finish();
        Ok(Model::new(config, version, learned))
    }

    fn load(config: &Config, snapshot: &[u8]) -> Result<Model, DetectorError> {
        config.check()?;
        let refuse = |reason: String| DetectorError::Snapshot { detector: Self::NAME.to_owned(), reason };
        let (version, learned) = decode(snapshot).map_err(refuse)?;
        let found = learned.net.shape;
        for (key, wanted, found) in [("width", config.width, found.width), ("hidden", config.hidden, found.hidden)] {
            if wanted != found {
                return Err(refuse(format!("it was fitted with `{key}` {found}, the configuration says {wanted}")));
            }
        }
        Ok(Model::new(config, version, learned))
    }
}

impl Model {
    fn new(config: &Config, version: u64, learned: Learned) -> Self {
        let (cache, scratch) = (Cache::new(config.cache_shapes), Scratch::default());
        Self { config: config.clone(), version, learned, cache, scratch }
    }
}

impl Detector for Model {
    fn name(&self) -> &'static str {
        MaskedSpan::NAME
    }

    fn version(&self) -> u64 {
        self.version
    }

    fn signal(&self) -> Signal {
        MaskedSpan::SIGNAL
    }

    /// The number of errors, and a fraction for how improbable the worst place is. The culprit is the span at that place, or
    /// the caller where a call is missing.
    fn score(&mut self, windows: &[Window<'_>], scores: &mut Vec<Option<Score>>) {
        let Self { config, learned, cache, scratch, .. } = self;
        scores.extend(windows.iter().map(|window| {
            if !scratch.sequence.take(&learned.labels, window.as_trace()?, config.max_spans) {
                return None;
            }
            scratch.sequence.shape(&mut scratch.shape);
            let known = match cache.get(&scratch.shape) {
                Some(known) => known,
                None => {
                    let known = learned.judge(scratch);
                    cache.insert(scratch.shape.as_slice().into(), known);
                    known
                }
            };
            let culprit = scratch.sequence.steps.get(known.step as usize)?.span as usize;
            Some(Score { value: known.value, culprit })
        }));
    }

    fn explain(&self, window: &Window<'_>, score: &Score) -> Evidence {
        self.evidence(window, score)
    }

    /// Does nothing: what becomes a little stranger each day would become normal.
    fn learn(&mut self, _windows: &[Window<'_>]) {}

    fn snapshot(&self) -> Result<Vec<u8>, DetectorError> {
        Ok(encode(&self.learned, self.version))
    }
}

const MAGIC: Magic = *b"faultline MSpan1";

/// No part of the network is wider.
const MAX_WIDTH: usize = 1 << 12;

/// Writes a snapshot: version, labels, sizes and weights of the network, the level.
fn encode(learned: &Learned, version: u64) -> Vec<u8> {
    let mut writer = Writer::new(&MAGIC);
    writer.number(version);
    learned.labels.write(&mut writer);
    writer.number(learned.net.shape.width as u64);
    writer.number(learned.net.shape.hidden as u64);
    writer.floats(&learned.net.weights);
    writer.double(learned.level);
    writer.finish()
}

/// Reads the version and what [`encode`] wrote, or says what is wrong with it.
fn decode(snapshot: &[u8]) -> Result<(u64, Learned), String> {
    let mut reader = Reader::open(&MAGIC, snapshot)?;
    read(&mut reader)
        .filter(|_| reader.is_empty())
        .ok_or_else(|| "it is cut short, its sizes do not fit or a number is not finite".to_owned())
}

fn read(reader: &mut Reader<'_>) -> Option<(u64, Learned)> {
    let version = reader.number()?;
    let labels = Labels::read(reader)?;
    let size = |number: u64| usize::try_from(number).ok().filter(|size| *size <= MAX_WIDTH);
    let (width, hidden) = (size(reader.number()?)?, size(reader.number()?)?);
    let shape = Some(Shape { n_labels: labels.len(), width, hidden }).filter(Shape::is_sound)?;
    let weights = (0..shape.n_weights()).map(|_| reader.float()).collect::<Option<Vec<f32>>>()?;
    let level = reader.double()?;
    Some((version, Learned { labels, net: Net::new(shape, weights), level }))
}
