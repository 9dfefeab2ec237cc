//! Donut: a variational auto-encoder has learned what windows of a series look like; a point that it would hardly make
//! up is abnormal.
//!
//! Station 7. Xu, Chen, Zhao, Li, Bu, Li, Liu, Zhao, Pei, Feng, Chen, Wang, Qiao, "Unsupervised Anomaly Detection via
//! Variational Auto-Encoder for Seasonal KPIs in Web Applications", WWW 2018. A window of 120 points is encoded as a
//! normal distribution over z, five numbers; a sample of z is decoded as a normal distribution of each point. What a
//! model does not reconstruct is what its windows did not have. Training (`net`) is by the M-ELBO, which leaves out
//! what is missing, and makes some points missing on purpose; `kernel` serves the weights; `judge` fills gaps and
//! scores.
//!
//! The score is that of the last point of its window: the negative reconstruction log-probability, nats, less the
//! median that the series had in training. That difference is ours: one calibration serves all series, and what is
//! usual differs by several nats between a smooth one and a noisy one. Within a series the order is the paper's. Of a
//! window with several new points the worst counts. A point is judged where half of the 120 is known; a gap is not.
//!
//! Samples: the paper takes 1024 of z a point; here they are 64. That is 1.8 MFLOP a point, so it is done in two looks:
//! eight samples for every point, the other 56 for points whose first look gives more than it gave for .95 of the
//! training. The others keep the mean of eight: they lie in the body of the scores, where p-values are large. What is
//! beyond has the score of 64 samples to the last bit. With `first_samples` as large as `samples` every point gets them
//! all.
//!
//! Cost at the defaults: about 0.35 MFLOP a point in the mean (0.05 to encode, 0.2 for eight samples, 0.08 for second
//! looks, which an abnormal stretch makes more of), 1.2 MFLOP more where the window has a gap. A fit takes at most 960
//! steps of 256 windows a series, 0.09 GFLOP each. On one core of a Xeon beside another job 198,000 points/s, 38,600 with
//! all samples for each (`benches/kpi.rs`). Memory: about 0.5 MB for each series that has a model.
//!
//! When it fails: on series without a habit; on seasons much longer than a window, whose shape within two hours is all
//! it sees; after a level shift, where all points are abnormal until it is fitted anew; and for as long as a spike is
//! within the window it may disturb the points after it. A series that was constant in training has no model and is
//! silent.
//!
//! Differences from the paper:
//! - No labels: a point is left out of the loss only where it is missing. So the mean and deviation that a series is
//!   standardised by are those of the points within three interquartile ranges of the quartiles, and what is fed to the
//!   networks ends at ten deviations.
//! - 30 epochs of at most 8192 windows instead of 256 of all, though 400 steps at least, with half a cosine for Adam's
//!   step size instead of a factor each ten epochs. This is to keep a fit within a CPU's reach; it has not been tuned on
//!   data.
//! - No part of the training is held out to choose among epochs.
//! - Injected gaps are drawn anew for each window, and are, like other gaps, fed as the mean.
//! - Windows of which less than half is known are neither learned nor judged.
//! - `learn` does nothing: learning from every point would let what is slow enough become normal.

mod explain;
mod judge;
mod kernel;
mod net;
mod series;
mod snapshot;

use std::collections::BTreeMap;

use faultline_core::{Detector, DetectorError, Evidence, Score, SeriesWindow, Signal, Window, hash::StableHash};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::{
    judge::{CHUNK, Draws, Judge, Looks, Scratch},
    kernel::Kernel,
    net::{Schedule, Shape, Windows},
    series::{History, Standard, Training, is_judged},
    snapshot::Learned,
};
use crate::{algorithm::Algorithm, ranges::Ranges};

/// Hyperparameters of [`Donut`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Points that the model sees at a time, of which the last is judged: the paper's W.
    pub window: usize,
    /// Width of the hidden layers, two in the encoder and two in the decoder.
    pub hidden: usize,
    /// Numbers that a window is encoded as: the paper's K.
    pub latent: usize,
    /// Passes over the windows of a series in training. Raise it where a fit may take longer.
    pub epochs: usize,
    /// Windows in one pass; of a longer series each pass takes others. A time bound.
    pub max_windows: usize,
    /// Windows in one optimizer step.
    pub batch: usize,
    /// Adam's step size at the start. Lower it when a fit reports that it diverged.
    pub learning_rate: f64,
    /// Probability with which a point is made a gap in training: the paper's λ. Without it the model does not learn to
    /// do without a point.
    pub missing_injection: f64,
    /// Times that the gaps of a window are filled in anew before it is judged: the paper's M. 0 leaves them at the
    /// mean.
    pub imputations: usize,
    /// Samples of z that a score rests on: the paper's L.
    pub samples: usize,
    /// Samples of z that a point gets at first. Only where they give more than they gave for .95 of the training does
    /// it get the rest. As many as `samples`: every point gets them all.
    pub first_samples: usize,
    /// Series that have a model, those that appear first; others are silent. A bound on time and memory: each takes a
    /// fit of its own and half a megabyte.
    pub max_series: usize,
    /// Points of a series in training below which it has no model.
    pub min_points: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            window: 120,
            hidden: 100,
            latent: 5,
            epochs: 30,
            max_windows: 8192,
            batch: 256,
            learning_rate: 1e-3,
            missing_injection: 0.01,
            imputations: 10,
            samples: 64,
            first_samples: 8,
            max_series: 64,
            min_points: 1200,
        }
    }
}

/// See the file's documentation.
pub struct Donut;

/// Optimizer steps below which a fit does not stop, however few the windows are.
const MIN_STEPS: usize = 400;

/// Training windows, evenly spread, that say what scores are usual.
const MAX_SCORED: usize = 2048;

/// Share of the training's first looks above which a point gets a second one.
const LOOK_AGAIN: f64 = 0.95;

/// A fitted model.
#[derive(Debug)]
pub struct Model {
    config: Config,
    version: u64,
    learned: Learned,
    draws: Draws,
    scratch: Scratch,
    /// Windows to judge, reused.
    known: Vec<f32>,
}

/// What is known of one series.
#[derive(Debug)]
struct Series {
    step_nanos: i64,
    standard: Standard,
    /// Median of its surprises in training, nats.
    typical: f64,
    /// The surprise from which on a point gets a second look.
    look_again_from: f64,
    /// In the order of [`Shape::layers`].
    weights: Vec<f32>,
    /// Serves the weights.
    kernel: Kernel,
    history: History,
}

impl Algorithm for Donut {
    const NAME: &'static str = "donut";
    const SUMMARY: &'static str = "a point of a series that an auto-encoder of its windows would hardly make up";
    const PAPER: &'static str = "Xu et al.: Unsupervised Anomaly Detection via Variational Auto-Encoder for Seasonal \
                                 KPIs in Web Applications, WWW 2018";
    const SIGNAL: Signal = Signal::Series;
    const PUBLISHED_THRESHOLD: Option<f64> = None;
    const IS_SEEDED: bool = true;
    const IS_DEFAULT: bool = false;

    type Config = Config;
    type Model = Model;

    fn fit(config: &Config, training: &[Window<'_>], seed: u64) -> Result<Model, DetectorError> {
        check(config)?;
        let windows: Vec<&SeriesWindow<'_>> = training.iter().filter_map(Window::as_series).collect();
        let draws = Draws::new(config, seed);
        let mut series = BTreeMap::new();
        let (mut n_varying, mut scratch) = (0, Scratch::default());
        for training in Training::of(&windows, config.max_series, config.min_points, config.window) {
            let Some(standard) = Standard::of(&training.points) else { continue };
            let known = training.windows(standard, config.window);
            if known.ends.is_empty() {
                continue;
            }
            n_varying += 1;
            if let Some(own) = Series::fit(config, &training, standard, &known, (&draws, seed), &mut scratch) {
                series.insert(training.key.clone(), own);
            }
        }
        if series.is_empty() {
            let reason = match n_varying {
                0 => format!("no series varies and has {} points (`min_points`)", config.min_points),
                _ => "training diverged; lower `learning_rate`".to_owned(),
            };
            return Err(DetectorError::Fit { detector: Self::NAME.to_owned(), reason });
        }
        let learned = Learned { shape: shape(config), seed, series };
        let state = snapshot::encode(&learned, 0);
        let version = StableHash::new().bytes(&state).text(&format!("{config:?}")).finish();
        Ok(Model { config: config.clone(), version, learned, draws, scratch, known: Vec::new() })
    }

    fn load(config: &Config, snapshot: &[u8]) -> Result<Model, DetectorError> {
        check(config)?;
        let refuse = |reason: String| DetectorError::Snapshot { detector: Self::NAME.to_owned(), reason };
        let (version, learned) = snapshot::decode(snapshot).map_err(refuse)?;
        let (wanted, found) = (shape(config), learned.shape);
        for (key, wanted, found) in [
            ("window", wanted.window, found.window),
            ("hidden", wanted.hidden, found.hidden),
            ("latent", wanted.latent, found.latent),
        ] {
            if wanted != found {
                return Err(refuse(format!("it was fitted with `{key}` {found}, the configuration says {wanted}")));
            }
        }
        let draws = Draws::new(config, learned.seed);
        let (config, scratch) = (config.clone(), Scratch::default());
        Ok(Model { config, version, learned, draws, scratch, known: Vec::new() })
    }
}

fn shape(config: &Config) -> Shape {
    Shape { window: config.window, hidden: config.hidden, latent: config.latent }
}

fn check(config: &Config) -> Result<(), DetectorError> {
    let ranges = Ranges(Donut::NAME);
    ranges.within([
        ("window", config.window, 2..=1024),
        ("hidden", config.hidden, 1..=1024),
        ("latent", config.latent, 1..=64),
        ("epochs", config.epochs, 1..=10_000),
        ("max_windows", config.max_windows, 1..=10_000_000),
        ("batch", config.batch, 1..=8192),
        ("imputations", config.imputations, 0..=100),
        ("samples", config.samples, 1..=1024),
        ("first_samples", config.first_samples, 1..=1024),
        ("max_series", config.max_series, 1..=4096),
        ("min_points", config.min_points, config.window..=usize::MAX),
    ])?;
    ranges.within([("missing_injection", config.missing_injection, 0.0..=0.9)])?;
    ranges.above_zero("learning_rate", config.learning_rate)
}

impl Series {
    /// Fits to the windows of a training part; none where training diverged. A series' model does not depend on the
    /// others.
    fn fit(
        config: &Config,
        training: &Training<'_>,
        standard: Standard,
        known: &Windows,
        (draws, seed): (&Draws, u64),
        scratch: &mut Scratch,
    ) -> Option<Self> {
        let (shape, n_windows) = (shape(config), known.ends.len());
        let seed = StableHash::new().number(seed).text(&training.key.stream).text(&training.key.session).finish();
        let n_steps = (config.epochs * n_windows.min(config.max_windows).div_ceil(config.batch)).max(MIN_STEPS);
        let schedule = Schedule {
            n_steps,
            batch: config.batch,
            learning_rate: config.learning_rate,
            injection: config.missing_injection,
            seed,
        };
        let weights = net::train(shape, known, &schedule);
        if !weights.iter().all(|weight| weight.is_finite()) {
            return None;
        }
        let kernel = Kernel::new(shape, &weights);
        let spread = (0..n_windows).step_by(n_windows.div_ceil(MAX_SCORED));
        let judged = spread.map(|idx| known.of(idx, config.window)).filter(|window| is_judged(window));
        let judged: Vec<f32> = judged.flatten().copied().collect();
        let first = config.first_samples.min(config.samples);
        let (looks, mut surprises) = (Looks { first, all: first, from: f64::INFINITY }, Vec::new());
        Judge { shape, kernel: &kernel, draws }.surprises(&judged, looks, scratch, &mut surprises);
        surprises.retain(|surprise| surprise.is_finite());
        surprises.sort_by(f64::total_cmp);
        let quantile = |share: f64| surprises.get((surprises.len() as f64 * share) as usize).copied();
        Some(Self {
            step_nanos: training.step_nanos,
            standard,
            typical: quantile(0.5)?,
            look_again_from: quantile(LOOK_AGAIN)?,
            weights,
            kernel,
            history: training.history(standard, config.window),
        })
    }
}

impl Model {
    /// The score of the worst new point; none where no point can be judged.
    fn score_series(&mut self, window: &SeriesWindow<'_>) -> Option<Score> {
        let Self { config, learned: Learned { shape, series, .. }, draws, scratch, known, .. } = self;
        let own = series.get_mut(window.key).filter(|own| own.step_nanos == window.step_nanos)?;
        let (length, standard) = (shape.window, own.standard);
        let looks = Looks { first: config.first_samples, all: config.samples, from: own.look_again_from };
        let (mut judged, mut surprises) = (Vec::new(), Vec::new());
        let mut worst: Option<Score> = None;
        own.history.begin(window.first_step(), length);
        for (chunk, points) in window.points.chunks(CHUNK).enumerate() {
            own.history.extend(points.iter().map(|&point| standard.standardised(point)));
            known.clear();
            judged.clear();
            surprises.clear();
            for idx in 0..points.len() {
                let recent = own.history.window(points.len() - 1 - idx, length);
                if is_judged(recent) {
                    known.extend_from_slice(recent);
                    judged.push(chunk * CHUNK + idx);
                }
            }
            let judge = Judge { shape: *shape, kernel: &own.kernel, draws };
            judge.surprises(known, looks, scratch, &mut surprises);
            for (&culprit, surprise) in judged.iter().zip(&surprises) {
                let value = surprise - own.typical;
                if value.is_finite() && worst.is_none_or(|worst| value > worst.value) {
                    worst = Some(Score { value, culprit });
                }
            }
        }
        worst
    }
}

impl Detector for Model {
    fn name(&self) -> &'static str {
        Donut::NAME
    }

    fn version(&self) -> u64 {
        self.version
    }

    fn signal(&self) -> Signal {
        Donut::SIGNAL
    }

    /// How much less likely the worst new point is than is usual for its series, nats.
    fn score(&mut self, windows: &[Window<'_>], scores: &mut Vec<Option<Score>>) {
        for window in windows {
            let score = window.as_series().and_then(|series| self.score_series(series));
            scores.push(score);
        }
    }

    fn explain(&self, window: &Window<'_>, score: &Score) -> Evidence {
        match window.as_series() {
            Some(series) => self.evidence(series, score),
            None => Evidence { summary: "the window holds no series".to_owned(), ..Evidence::default() },
        }
    }

    /// Does nothing: learning from every point would let what is slow enough become normal.
    fn learn(&mut self, _windows: &[Window<'_>]) {}

    fn snapshot(&self) -> Result<Vec<u8>, DetectorError> {
        Ok(snapshot::encode(&self.learned, self.version))
    }
}

#[cfg(test)]
mod tests;
