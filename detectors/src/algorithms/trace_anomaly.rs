//! Trace anomaly: a network has learned what traces look like as vectors; one that it would hardly make up is abnormal.
//!
//! Station 7. TraceAnomaly: Liu, Xu, Ouyang, Jiao, Chen, Zhang, Yang, Mo, Zeng, Xue, Pei, "Unsupervised Detection of Microservice
//! Trace Anomalies through Service-Level Deep Bayesian Networks", ISSRE 2020. A trace is the time of each of its call paths
//! (`dimensions`; the vectors, the kinds and the blame are those of [`trace_vector`]). A variational auto-encoder, the posterior of
//! which goes through a flow, learns them (`net`, `flow`, `layer`); how likely a trace is comes from importance sampling
//! (`likelihood`). A call path that no trace in training took is an anomaly at once.
//!
//! The score is how far a trace's −ln p is beyond the median of its kind, where 1 is about as far as one in twenty is (`usual`);
//! with `by_kind` off it is −ln p itself, as in the paper, in nats. Where traces of the training had paths of their own, too, an
//! unseen path weighs as much as what was as seldom among them; where training held more paths than a model can, it weighs nothing.
//! The culprit is the deepest path with half of the worst delay, else where the trace parts from the nearest kind.
//!
//! Measured by `faultline eval traceanomaly` with one seed (14,060 normal traces to learn
//! from, 3,988 for the threshold, 6,138 normal and 4,043 abnormal ones to judge), at the .99, .995, .998 and .999 quantile:
//! F1 .928, .918, .628, .549, average precision .977; with `by_kind` off .964, .948, .926, .562 and .996. [`trace_vector`], which has no
//! network, has .994 at .995 and .9999, and the largest z where no path is unseen .966. **The network adds nothing there**, so it runs on
//! request only. Nor did the flow in a model in Python: without it planted delays were found as often. Width, epochs, `min_deviation` and the value of a missing path were chosen on normal
//! traces into which anomalies were planted, without sight of abnormal ones: of delays of .2 to 1.5 s on one path .91 were found at the .995
//! quantile (`by_kind` off: .27), of single calls that the kind does not make .91 (0), of single calls left out next to none
//! (none): that is for [`trace_vector`].
//!
//! Cost at the defaults and 482 paths: a fit takes 20 passes, 1,000 steps of 128 traces at least and 2,560 at most, 0.18 GFLOP
//! each; judging takes 18 MFLOP a trace, nearly all to decode 64 samples. Fit and judging of 10,181 traces took 52 to 54 s on a core. Both are proportional to the number of paths. Memory: 0.9 MB of weights, twice, 1.7 MB
//! at the default `max_paths`; and what `trace_vector` takes.
//!
//! When it fails: times have heavy tails, to which a normal distribution is surprised without measure, so a few extreme normal
//! traces set the threshold; a path left out is within the deviation of those it belongs to; a kind of a handful of
//! traces is learned badly. Traces of which spans were left out are not judged.
//!
//! Differences from the paper:
//! - The flow is planar, the hidden layers 128 wide instead of 500, 20 epochs, 64 samples instead of 500, no penalty on weights.
//! - A path that was not taken is −4 deviations, not −1, where times are; what the network is fed ends at ±10.
//! - Thresholds come from the calibration's quantiles: the paper's p < .001 by a kernel density had recalls of .13 to .60 when
//!   others repeated it.
//! - A path that was taken several times counts with its longest call.
//! - `learn` does nothing, and a person's verdict changes nothing.
//!
//! [`trace_vector`]: super::trace_vector

mod dimensions;
mod flow;
mod layer;
mod likelihood;
mod net;
mod network;
mod snapshot;
#[cfg(test)]
mod tests;
mod usual;

use faultline_core::{Detector, DetectorError, Evidence, Score, Signal, TraceWindow, Window, hash::StableHash};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::network::{Buffers, Finding, Network};
use super::trace_vector::{Measure, Measured, name_paths};
use crate::{algorithm::Algorithm, ranges::Ranges};

/// Hyperparameters of [`TraceAnomaly`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Call paths that have a dimension, those that most traces take. Default 1024. A bound on time and memory.
    pub max_paths: usize,
    /// Kinds of traces to know, the most frequent ones. Default 4096. A memory bound.
    pub max_kinds: usize,
    /// Width of the hidden layers, two in the encoder and two in the decoder. Default 128.
    pub hidden: usize,
    /// Numbers that a trace is encoded as. Default 10.
    pub latent: usize,
    /// Steps of the flow that bends the posterior. Default 10. 0 leaves it normal.
    pub flow_steps: usize,
    /// Passes over the traces in training. Default 20.
    pub epochs: usize,
    /// Traces in one pass; of more each pass takes others. Default 16384. A time bound.
    pub max_traces: usize,
    /// Traces in one optimizer step. Default 128.
    pub batch: usize,
    /// Adam's step size at the start. Default 0.002. Lower it when a fit reports that it diverged.
    pub learning_rate: f64,
    /// The smallest deviation of a time that the network may claim, in deviations of its path. Default 0.1. Without it, what never
    /// varies would outweigh everything else.
    pub min_deviation: f64,
    /// Samples of z that a score rests on. Default 64.
    pub samples: usize,
    /// Whether a trace is held against those of its kind. Default true. Off, scores are negative log-likelihoods in nats, as
    /// in the paper: then kinds of many paths hide what is odd in the others.
    pub by_kind: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_paths: 1024,
            max_kinds: 4096,
            hidden: 128,
            latent: 10,
            flow_steps: 10,
            epochs: 20,
            max_traces: 16_384,
            batch: 128,
            learning_rate: 2e-3,
            min_deviation: 0.1,
            samples: 64,
            by_kind: true,
        }
    }
}

impl Config {
    fn check(&self) -> Result<(), DetectorError> {
        let ranges = Ranges(TraceAnomaly::NAME);
        ranges.within([
            ("max_paths", self.max_paths, 1..=1 << 14),
            ("max_kinds", self.max_kinds, 1..=1 << 20),
            ("hidden", self.hidden, 1..=1024),
            ("latent", self.latent, 1..=64),
            ("flow_steps", self.flow_steps, 0..=64),
            ("epochs", self.epochs, 1..=10_000),
            ("max_traces", self.max_traces, 1..=10_000_000),
            ("batch", self.batch, 1..=8192),
            ("samples", self.samples, 1..=4096),
        ])?;
        ranges.within([("min_deviation", self.min_deviation, 1e-4..=1.0)])?;
        ranges.above_zero("learning_rate", self.learning_rate)
    }
}

/// See the file's documentation.
pub struct TraceAnomaly;

/// A fitted model.
#[derive(Debug)]
pub struct Model {
    version: u64,
    network: Network,
    measure: Measure,
    buffers: Buffers,
}

impl Algorithm for TraceAnomaly {
    const NAME: &'static str = "trace-anomaly";
    const SUMMARY: &'static str = "a trace that an auto-encoder of call paths and their times would hardly make up";
    const PAPER: &'static str = "Liu et al.: Unsupervised Detection of Microservice Trace Anomalies through Service-Level \
                                 Deep Bayesian Networks, ISSRE 2020";
    const SIGNAL: Signal = Signal::Traces;
    const PUBLISHED_THRESHOLD: Option<f64> = None;
    const IS_SEEDED: bool = true;
    const IS_DEFAULT: bool = false;
    type Config = Config;
    type Model = Model;

    fn fit(config: &Config, training: &[Window<'_>], seed: u64) -> Result<Model, DetectorError> {
        let mut network = Network::fit(config, &Measured::of(training).vectors(), seed)?;
        name_paths(&mut network.kinds, training);
        let mut model = Model::of(0, network);
        let state = model.snapshot()?;
        model.version = StableHash::new().bytes(&state).text(&format!("{config:?}")).finish();
        Ok(model)
    }

    fn load(config: &Config, snapshot: &[u8]) -> Result<Model, DetectorError> {
        config.check()?;
        let (version, network) = snapshot::decode(snapshot, config.samples).map_err(refused)?;
        for (key, wanted, found) in [
            ("hidden", config.hidden, network.shape.hidden),
            ("latent", config.latent, network.shape.latent),
            ("flow_steps", config.flow_steps, network.shape.flows),
        ] {
            if wanted != found {
                return Err(refused(format!("it was fitted with `{key}` {found}, the configuration says {wanted}")));
            }
        }
        Ok(Model::of(version, network))
    }
}

fn refused(reason: String) -> DetectorError {
    DetectorError::Snapshot { detector: TraceAnomaly::NAME.to_owned(), reason }
}

impl Model {
    fn of(version: u64, network: Network) -> Self {
        Self { version, network, measure: Measure::default(), buffers: Buffers::default() }
    }

    fn score_trace(&mut self, trace: &TraceWindow<'_>) -> Option<Score> {
        let Self { network, measure, buffers, .. } = self;
        if !measure.take(trace) {
            return None;
        }
        let found = network.judge(&measure.vector(), buffers)?;
        Some(Score { value: found.value, culprit: measure.culprit(&network.kinds, &found.judgement)? })
    }

    /// What the network finds in a trace.
    fn finding(&self, trace: &TraceWindow<'_>) -> Option<Finding> {
        let mut measure = Measure::default();
        measure.take(trace).then(|| self.network.judge(&measure.vector(), &mut Buffers::default())).flatten()
    }
}

impl Detector for Model {
    fn name(&self) -> &'static str {
        TraceAnomaly::NAME
    }

    fn version(&self) -> u64 {
        self.version
    }

    fn signal(&self) -> Signal {
        TraceAnomaly::SIGNAL
    }

    /// How much less likely a trace is than is usual for its kind. The culprit is the span of the path to blame.
    fn score(&mut self, windows: &[Window<'_>], scores: &mut Vec<Option<Score>>) {
        for window in windows {
            let score = window.as_trace().and_then(|trace| self.score_trace(trace));
            scores.push(score);
        }
    }

    fn explain(&self, window: &Window<'_>, score: &Score) -> Evidence {
        let mut evidence = self.network.kinds.evidence(window, score);
        let Some(found) = window.as_trace().and_then(|trace| self.finding(trace)) else { return evidence };
        let nats = found.nats - found.usual_nats;
        let kind = if found.judgement.distance == 0 { "traces of its kind" } else { "the nearest kind of traces" };
        let own = if found.n_unseen > 0 {
            format!("call paths of its that no trace in training took: {}", found.n_unseen)
        } else if nats > 0.0 {
            format!("{nats:.0} nats less likely than is usual for {kind}")
        } else {
            format!("as likely as is usual for {kind}")
        };
        evidence.summary = format!("{own}; {}", evidence.summary);
        for (name, figure) in
            [("nats", found.nats), ("usual_nats", found.usual_nats), ("n_unseen_paths", found.n_unseen as f64)]
        {
            evidence.figures.insert(name.to_owned(), figure);
        }
        evidence
    }

    /// Does nothing: what takes a little longer each day would become normal.
    fn learn(&mut self, _windows: &[Window<'_>]) {}

    fn snapshot(&self) -> Result<Vec<u8>, DetectorError> {
        let kinds = serde_json::to_string(&self.network.kinds).map_err(|error| refused(error.to_string()))?;
        Ok(snapshot::encode(&self.network, self.version, &kinds))
    }
}
