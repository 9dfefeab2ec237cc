//! Seer: which service will cause the next violation of the promised quality, before it is there, from how many calls
//! wait where.
//!
//! Beside station 7 (see [`super`]). Gan, Zhang, Hu, Cheng, He, Pancholi, Delimitrou, "Seer: Leveraging Big Data to
//! Navigate the Complexity of Performance Debugging in Cloud Microservices", ASPLOS 2019. The depth of each service's
//! queue over the last ticks ([`depth`]) goes through a convolution over services and ticks, then an LSTM over the
//! ticks, and a softmax says for each service how likely it causes a violation within the horizon, or that none will
//! (`net`). Services stand in the order in which they were first called, so that neighbours call one another. Trained
//! on examples: ticks before violations whose culprit is known, and ticks before none. Ticks within a violation teach
//! nothing and are not judged: there is nothing left to anticipate.
//!
//! Cost: 0.7 MFLOP a prediction with 28 services at the defaults, three times that and an epoch each in training. Memory:
//! 150 KB of weights and the depths. Fails on faults that come without queues growing first (what is injected at once is
//! anticipated by nobody), on services that caused no violation in training, and where few calls are
//! under way, since then depths are mostly 0.
//!
//! Differs from the paper: one convolution of 3 × 3 and 4 maps instead of several, an LSTM of 32, since there are few
//! examples; ticks of a second instead of 100 ms, as spans are sparse; no counters of the hardware, which spans do not
//! have, so that it names no resource; and depths of recorded spans, which know of calls that had not ended at the
//! time, as instrumented queues do (`depth`).

pub mod depth;
mod net;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use faultline_core::{DetectorError, hash::StableHash};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::{
    depth::Depths,
    net::{Lessons, Pass, Schedule, Shape},
};
use crate::{
    bytes::{Magic, Reader, Writer},
    ranges::Ranges,
};

/// Name in errors and tables.
pub const NAME: &str = "seer";

/// An example counts at most so many times as much as it would if classes were alike in number.
const MOST_SCALE: f64 = 10.0;

/// Hyperparameters of [`Seer`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Ticks that a prediction sees. Default 16.
    pub window: usize,
    /// Ticks within which a violation is predicted. Default 10. More gives more time to act and less to go by.
    pub horizon: usize,
    /// Maps of the convolution. Default 4.
    pub channels: usize,
    /// Width of the LSTM. Default 32.
    pub hidden: usize,
    /// Passes over the examples. Default 15.
    pub epochs: usize,
    /// Examples in one step. Default 32.
    pub batch: usize,
    /// Adam's step size. Default 0.003; lower it when a fit reports that it diverged.
    pub learning_rate: f64,
    /// Services that are told apart, those called first. Default 64: a bound on time and memory.
    pub max_services: usize,
    /// Examples of a fit; of more, every so manieth. Default 20000: a time bound.
    pub max_examples: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            window: 16,
            horizon: 10,
            channels: 4,
            hidden: 32,
            epochs: 15,
            batch: 32,
            learning_rate: 3e-3,
            max_services: 64,
            max_examples: 20_000,
        }
    }
}

impl Config {
    fn check(&self) -> Result<(), DetectorError> {
        let ranges = Ranges(NAME);
        ranges.within([
            ("window", self.window, 2..=1_024),
            ("horizon", self.horizon, 1..=1_024),
            ("channels", self.channels, 1..=64),
            ("hidden", self.hidden, 1..=512),
            ("epochs", self.epochs, 1..=10_000),
            ("batch", self.batch, 1..=8_192),
            ("max_services", self.max_services, 1..=512),
            ("max_examples", self.max_examples, 2..=1 << 24),
        ])?;
        ranges.above_zero("learning_rate", self.learning_rate)
    }
}

/// A stretch of ticks in which the promise was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Its first tick.
    pub start: usize,
    /// The tick after its last.
    pub end: usize,
    /// The service that caused it.
    pub culprit: Arc<str>,
}

/// What was to be predicted at a tick.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// The last tick that is seen.
    pub tick: usize,
    /// The service that causes the violation that begins within the horizon; none where none begins.
    pub culprit: Option<Arc<str>>,
}

/// The examples of some ticks of which it is known whether promises were broken. Ticks within a violation are none, and
/// of several violations that begin within the horizon the first counts.
#[must_use]
pub fn examples(ticks: std::ops::Range<usize>, violations: &[Violation], horizon: usize) -> Vec<Example> {
    let mut found = Vec::with_capacity(ticks.len());
    for tick in ticks {
        if violations.iter().any(|violation| (violation.start..violation.end).contains(&tick)) {
            continue;
        }
        let next = violations.iter().filter(|violation| violation.start > tick && violation.start - tick <= horizon);
        let next = next.min_by_key(|violation| violation.start);
        found.push(Example { tick, culprit: next.map(|violation| Arc::clone(&violation.culprit)) });
    }
    found
}

/// See the file's documentation.
pub struct Seer;

const MAGIC: &Magic = b"faultline seer 1";

/// A fitted model.
#[derive(Debug)]
pub struct Model {
    version: u64,
    shape: Shape,
    services: Vec<Arc<str>>,
    /// Mean and deviation of the logarithm of each service's depth.
    scales: Vec<(f64, f64)>,
    weights: Vec<f64>,
    pass: Pass,
    input: Vec<f64>,
}

/// What a model foresees.
#[derive(Clone, Debug, PartialEq)]
pub struct Foresight {
    /// How likely no violation begins within the horizon, 0 to 1.
    pub none: f64,
    /// The service that is likeliest to cause one, by its place in [`Model::services`], and how likely that is.
    pub culprit: (usize, f64),
}

impl Seer {
    /// Learns from recordings, each with its examples. Examples whose window begins before the recording teach nothing, and
    /// so do culprits that are not among the services.
    ///
    /// # Errors When a value of the configuration is out of range, when no example precedes a violation or none
    /// precedes no violation, or when training diverged.
    pub fn fit_labelled(
        config: &Config,
        recordings: &[(&Depths, &[Example])],
        seed: u64,
    ) -> Result<Model, DetectorError> {
        config.check()?;
        let refuse = |reason: &str| DetectorError::Fit { detector: NAME.to_owned(), reason: reason.to_owned() };
        let mut services: Vec<Arc<str>> = Vec::new();
        for service in recordings.iter().flat_map(|(depths, _)| depths.services()) {
            if services.len() < config.max_services && !services.contains(service) {
                services.push(Arc::clone(service));
            }
        }
        let (shape, scales) = (config.shape(services.len()), scales_of(&services, recordings));
        let mut model = Model {
            version: 0,
            shape,
            services,
            scales,
            weights: Vec::new(),
            pass: Pass::default(),
            input: Vec::new(),
        };
        let lessons = model.lessons(config, recordings);
        let n_quiet = lessons.classes.iter().filter(|class| **class == 0).count();
        if n_quiet == 0 || n_quiet == lessons.classes.len() {
            return Err(refuse("it takes examples before violations with a culprit, and examples before none"));
        }
        let (epochs, batch) = (config.epochs, config.batch);
        let schedule = Schedule { epochs, batch, learning_rate: config.learning_rate, seed };
        model.weights = net::train(shape, &lessons, schedule);
        if !model.weights.iter().all(|weight| weight.is_finite()) {
            return Err(refuse("training diverged; lower `learning_rate`"));
        }
        model.version = StableHash::new().bytes(&model.encode()).text(&format!("{config:?}")).finish();
        Ok(model)
    }

    /// Loads what [`Model::snapshot`] wrote.
    ///
    /// # Errors
    /// When the snapshot is damaged or was written by something else.
    pub fn load(snapshot: &[u8]) -> Result<Model, DetectorError> {
        let refuse = |reason: String| DetectorError::Snapshot { detector: NAME.to_owned(), reason };
        let mut reader = Reader::open(MAGIC, snapshot).map_err(refuse)?;
        Model::decode(&mut reader).ok_or_else(|| refuse("its content is damaged".to_owned()))
    }

    /// A model of random weights that was taught nothing: what there is to be better than in a comparison.
    #[must_use]
    pub fn untaught(config: &Config, depths: &Depths, seed: u64) -> Model {
        let services: Vec<Arc<str>> = depths.services().iter().take(config.max_services).cloned().collect();
        let nothing: &[Example] = &[];
        let (shape, scales) = (config.shape(services.len()), scales_of(&services, &[(depths, nothing)]));
        let weights = shape.initial_weights(&mut ChaCha8Rng::seed_from_u64(seed));
        Model { version: 0, shape, services, scales, weights, pass: Pass::default(), input: Vec::new() }
    }
}

impl Config {
    fn shape(&self, services: usize) -> Shape {
        Shape { services, window: self.window, channels: self.channels, hidden: self.hidden }
    }
}

/// The place of each service in a recording.
fn places(services: &[Arc<str>], depths: &Depths) -> Vec<Option<usize>> {
    services.iter().map(|service| depths.services().iter().position(|own| own == service)).collect()
}

/// Mean and deviation of each service's depths, as logarithms.
fn scales_of(services: &[Arc<str>], recordings: &[(&Depths, &[Example])]) -> Vec<(f64, f64)> {
    let mut sums = vec![(0.0, 0.0, 0.0); services.len()];
    for (depths, _) in recordings {
        for (sums, place) in sums.iter_mut().zip(places(services, depths)) {
            for tick in 0..depths.n_ticks() {
                let depth = place.map_or(0.0, |place| f64::from(depths.depth(place, tick)).ln_1p());
                *sums = (sums.0 + 1.0, sums.1 + depth, sums.2 + depth * depth);
            }
        }
    }
    let scale = |(n, sum, squares): (f64, f64, f64)| {
        const LEAST: f64 = 1e-3;
        let mean = sum / n.max(1.0);
        (mean, (squares / n.max(1.0) - mean * mean).max(0.0).sqrt().max(LEAST))
    };
    sums.into_iter().map(scale).collect()
}

impl Model {
    /// Services that it knows, in the order in which they were first called.
    #[must_use]
    pub fn services(&self) -> &[Arc<str>] {
        &self.services
    }

    /// Changes with what was learned.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// What it foresees at the end of a tick; nothing where its window begins before the recording.
    pub fn foresee(&mut self, depths: &Depths, tick: usize) -> Option<Foresight> {
        let mut input = std::mem::take(&mut self.input);
        input.clear();
        let is_whole = self.look(depths, &places(&self.services, depths), tick, &mut input);
        let found = is_whole.then(|| {
            self.pass.run(self.shape, &self.weights, &input);
            let culprits = self.pass.shares[1..].iter().copied().enumerate();
            // The first of several.
            let culprit = culprits.reduce(|best, own| if own.1 > best.1 { own } else { best });
            Foresight { none: self.pass.shares[0], culprit: culprit.unwrap_or((0, 0.0)) }
        });
        self.input = input;
        found
    }

    /// Adds the window that ends with a tick to `to`; false where it begins before the recording.
    fn look(&self, depths: &Depths, places: &[Option<usize>], tick: usize, to: &mut Vec<f64>) -> bool {
        /// A depth is at most so many deviations from the mean: a service that was idle in training has none.
        const FAR: f64 = 10.0;
        let Some(first) = tick.saturating_add(1).checked_sub(self.shape.window) else { return false };
        for tick in first..=tick {
            to.extend(places.iter().zip(&self.scales).map(|(place, (mean, deviation))| {
                let depth = place.map_or(0.0, |place| f64::from(depths.depth(place, tick)).ln_1p());
                ((depth - mean) / deviation).clamp(-FAR, FAR)
            }));
        }
        true
    }

    fn lessons(&self, config: &Config, recordings: &[(&Depths, &[Example])]) -> Lessons {
        let class_of = |example: &Example| match &example.culprit {
            Some(culprit) => self.services.iter().position(|service| service == culprit).map(|place| place + 1),
            None => Some(0),
        };
        let all = || recordings.iter().flat_map(|(_, examples)| examples.iter());
        let n_before = all().filter(|example| example.culprit.is_some()).count();
        let n_quiet = all().count() - n_before;
        // Quiet ones fill what those before violations leave, which is half at least.
        let n_taught = n_before.min(config.max_examples / 2).max(1);
        let strides = [n_quiet.div_ceil(config.max_examples - n_taught).max(1), n_before.div_ceil(n_taught).max(1)];
        let (mut lessons, mut n_seen) = (Lessons::default(), [0_usize; 2]);
        for (depths, examples) in recordings {
            let places = places(&self.services, depths);
            for example in *examples {
                let Some(class) = class_of(example) else { continue };
                let side = usize::from(class > 0);
                n_seen[side] += 1;
                let is_skipped = n_seen[side] % strides[side] != 0;
                if !is_skipped && self.look(depths, &places, example.tick, &mut lessons.inputs) {
                    lessons.classes.push(class);
                }
            }
        }
        let mut counts = vec![0_usize; self.shape.n_classes()];
        lessons.classes.iter().for_each(|class| counts[*class] += 1);
        let n_present = counts.iter().filter(|count| **count > 0).count().max(1);
        let fair = lessons.classes.len() as f64 / n_present as f64;
        lessons.scales =
            lessons.classes.iter().map(|class| (fair / counts[*class].max(1) as f64).min(MOST_SCALE)).collect();
        lessons
    }

    /// The fitted state, which [`Seer::load`] can load again.
    #[must_use]
    pub fn snapshot(&self) -> Vec<u8> {
        self.encode()
    }

    fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new(MAGIC);
        writer.number(self.version);
        for size in [self.shape.window, self.shape.channels, self.shape.hidden, self.services.len()] {
            writer.number(size as u64);
        }
        for (service, (mean, deviation)) in self.services.iter().zip(&self.scales) {
            writer.text(service);
            writer.double(*mean);
            writer.double(*deviation);
        }
        writer.number(self.weights.len() as u64);
        self.weights.iter().for_each(|weight| writer.double(*weight));
        writer.finish()
    }

    fn decode(reader: &mut Reader<'_>) -> Option<Self> {
        /// Larger sizes are not written; products of these do not overflow.
        const MOST: u64 = 1 << 12;
        let version = reader.number()?;
        let mut size = || reader.number().filter(|size| *size <= MOST).and_then(|size| usize::try_from(size).ok());
        let (window, channels, hidden, n_services) = (size()?, size()?, size()?, size()?);
        let (mut services, mut scales) = (Vec::new(), Vec::new());
        for _ in 0..n_services {
            services.push(reader.text()?);
            let (mean, deviation) = (reader.double()?, reader.double()?);
            scales.push((mean, Some(deviation).filter(|deviation| *deviation > 0.0)?));
        }
        let shape = Shape { services: n_services, window, channels, hidden };
        let n_weights = reader.length(8)?;
        if n_weights != shape.n_weights() || window == 0 || n_services == 0 {
            return None;
        }
        let weights: Vec<f64> = (0..n_weights).map(|_| reader.double()).collect::<Option<_>>()?;
        let (pass, input) = (Pass::default(), Vec::new());
        reader.is_empty().then_some(Self { version, shape, services, scales, weights, pass, input })
    }
}
