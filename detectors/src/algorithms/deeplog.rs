//! DeepLog: an LSTM predicts the next template of a session from the ten before it, others forecast the parameters.
//!
//! Station 7. Du, Li, Zheng, Srikumar, "DeepLog: Anomaly Detection and Diagnosis from System Logs through Deep
//! Learning", CCS 2017. The log-key model (section 3.1) is trained in `net` and served by `kernel`: a record is
//! judged by the rank of its template among the predictions (the paper's rule: anomalous beyond the top g) and, among
//! equal ranks, by its negative log-likelihood; a window by the worst of its fresh records. A template that training
//! did not hold is worst of all. The parameter-value models (3.2) are in `values`, the update from false positives
//! (3.3) in `update`, the workflows (4) in `workflow`, which the evidence quotes.
//!
//! How g is calibrated: in service by the calibration of scores, which are ranks: it puts the cut where held-out
//! sessions want it, so that `top_g` only says what the evidence shows as expected. At the fit with `top_g` 0: every
//! tenth training session is held out of the first four fifths of the training; g is then the smallest number with
//! which at most `g_share` of them hold a template beyond the top g; then the network sees them too. A score is the rank
//! plus 9 − g, so that 10 always is the first rank beyond g. On the paper's HDFS split, judged at 10, that gives g = 6
//! or 7 and F1 .936, .940, .945 for three seeds, no better than the paper's 9, which stays the default.
//!
//! Cost: a prediction is about 1 MFLOP, so what it says is kept in an exact cache by context (on HDFS the 1,000
//! commonest contexts cover 92 % of records), and those that are missing are computed for all windows of a call
//! together. Training sees each distinct context once an epoch, however often it occurred. Memory: the cache,
//! `cache_contexts` rows of 8 bytes a template, 64 MiB at most.
//!
//! When it fails: on streams whose templates churn (everything new is an anomaly; pair it with a cap on reports), on
//! sessions that interleave unrelated work (use a finer session key), and on a record that is unlikely but not
//! impossible in its place: with 15 templates the top 9 are most of them. Training on anomalies makes them normal,
//! though a few in a hundred do little harm.
//!
//! Differences from the paper, besides those that the parts name:
//! - The end of a session is a symbol that is predicted like a template when the session closes, so that a session
//!   which stops early is seen; and contexts before the h-th record are filled up with a start symbol, so that the
//!   first records are judged as well.
//! - The end is judged by its likelihood alone: whether it comes ninth or fourteenth among symbols that are all held to
//!   be impossible is chance, and differs from seed to seed. It is put on the scale of ranks so that 5 nats (1
//!   session in 128 ends there), which hardly any normal HDFS session exceeds, counts as rank g + 1, and each further
//!   halving as two ranks more. Parameters are put on the same scale, from `value_confidence` on.
//! - A context weighs `count^tempering` in training, so that rare paths of normal operation are learned too.
//! - In service the threshold is not g: calibration picks the cut on held-out scores.
//! - `learn` does nothing: learning from every window would let a patient attacker teach the model.

mod explain;
mod kernel;
mod lstm;
mod net;
mod serve;
mod snapshot;
mod update;
mod values;
mod vocabulary;
mod workflow;

use faultline_core::{Detector, DetectorError, Evidence, LogWindow, Score, Signal, Window, hash::StableHash};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::{
    kernel::Predictor,
    net::{Schedule, Shape},
    serve::{Cache, PAPER_G, Scratch},
    snapshot::{Learned, decode, encode},
    values::Values,
    vocabulary::{examples_of, vocabulary_of},
};
pub use self::{
    update::Update,
    workflow::{Node, Order, Position, Workflows},
};
use crate::{algorithm::Algorithm, ranges::Ranges};

/// Hyperparameters of [`DeepLog`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Records before the judged one that the model sees: the paper's h.
    pub window: usize,
    /// Predictions that count as normal, and that the evidence shows: the paper's g. A score of 10 is the rank after
    /// them; in service the calibration of scores moves the cut from there. 0 chooses g at the fit, on held-out
    /// sessions: for a short fit, or data with more or fewer branches than the paper's.
    pub top_g: usize,
    /// Share of the training sessions, evenly spread, that are held out to choose g. They are learned from afterwards.
    pub held_out: f64,
    /// Share of the held-out sessions that may hold a template beyond the top g.
    pub g_share: f64,
    /// Width of each LSTM layer: the paper's α.
    pub hidden: usize,
    /// LSTM layers: the paper's L.
    pub layers: usize,
    /// Passes over the distinct contexts in training. Fewer are made when `max_training_windows` is reached.
    pub epochs: usize,
    /// Contexts in one optimizer step.
    pub batch: usize,
    /// Adam's step size at the start. Lower it when a fit reports that it diverged.
    pub learning_rate: f64,
    /// A context that occurred n times weighs n to this power: 1 as in the paper, 0 all alike.
    pub tempering: f64,
    /// Templates the model knows, the most frequent first; others count as unseen.
    pub max_templates: usize,
    /// Distinct contexts kept for training, the most frequent first: a memory bound.
    pub max_contexts: usize,
    /// Contexts computed in all of training, a time bound: about 5,000 to 15,000 a second on one core.
    pub max_training_windows: usize,
    /// Contexts whose predictions are kept, a memory bound as are 64 MiB; the cache is emptied when it is full.
    pub cache_contexts: usize,
    /// Templates whose parameters are forecast, the most frequent first of those whose parameters vary; each costs
    /// the fit 120 small optimizer steps. 0 forecasts none.
    pub value_models: usize,
    /// Whether the numbers in a record (sizes, durations, counts; the first four) are forecast beside the time since
    /// the record before it. Off by default: that it finds failures has not been shown on any data, and an unusual size
    /// is more often an unusual request than a failure. Set where sizes or durations in the texts tell of trouble. A
    /// template then needs 500 records in the training.
    pub parameters: bool,
    /// Confidence of the interval in which a parameter is expected: beyond it a record scores as beyond the top g.
    pub value_confidence: f64,
    /// Contexts of the fit that are learned again when the model is updated, the most frequent first.
    pub rehearsed_contexts: usize,
    /// Optimizer steps that an update from false positives may take.
    pub update_steps: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            window: 10,
            top_g: 9,
            held_out: 0.1,
            g_share: 0.005,
            hidden: 64,
            layers: 2,
            epochs: 40,
            batch: 256,
            learning_rate: 5e-3,
            tempering: 0.3,
            max_templates: 1024,
            max_contexts: 65_536,
            max_training_windows: 500_000,
            cache_contexts: 65_536,
            value_models: 32,
            parameters: false,
            value_confidence: 0.9999,
            rehearsed_contexts: 512,
            update_steps: 100,
        }
    }
}

/// See the file's documentation.
pub struct DeepLog;

/// Optimizer steps below which a fit does not stop, however few the contexts are.
const MIN_STEPS: usize = 200;

/// Held-out sessions below which g stays the paper's.
const MIN_HELD_OUT: usize = 20;

/// Share of the training that is on all sessions, after g is chosen.
const SETTLING: f64 = 0.2;

/// A fitted model.
#[derive(Debug)]
pub struct Model {
    config: Config,
    version: u64,
    learned: Learned,
    /// Serves the weights of `learned`.
    predictor: Predictor,
    /// Holds what `predictor` said.
    cache: Cache,
    scratch: Scratch,
}

impl Algorithm for DeepLog {
    const NAME: &'static str = "deeplog";
    const SUMMARY: &'static str = "a template that an LSTM did not expect after the ten before it";
    const PAPER: &'static str = "Du, Li, Zheng, Srikumar: DeepLog: Anomaly Detection and Diagnosis from System Logs \
                                 through Deep Learning, CCS 2017";
    const SIGNAL: Signal = Signal::Logs;
    /// g = 9: rank 10 and beyond.
    const PUBLISHED_THRESHOLD: Option<f64> = Some(10.0);
    const IS_SEEDED: bool = true;
    /// A member of the ensemble.
    const IS_DEFAULT: bool = false;

    type Config = Config;
    type Model = Model;

    fn reads_numbers(config: &Config) -> bool {
        config.parameters && config.value_models > 0
    }

    fn fit(config: &Config, training: &[Window<'_>], seed: u64) -> Result<Model, DetectorError> {
        check(config)?;
        let windows: Vec<&LogWindow<'_>> = training.iter().filter_map(Window::as_log).collect();
        let vocabulary = vocabulary_of(config, &windows);
        let examples = examples_of(config, &vocabulary, &windows);
        let refuse = |reason: &str| DetectorError::Fit { detector: Self::NAME.to_owned(), reason: reason.to_owned() };
        if examples.next.is_empty() {
            return Err(refuse("no training window holds a record"));
        }
        let shape = vocabulary.shape(config);
        let n_contexts = examples.next.len();
        let n_steps = (config.epochs * n_contexts.div_ceil(config.batch)).max(MIN_STEPS);
        let n_steps = n_steps.min(config.max_training_windows.div_ceil(config.batch.min(n_contexts)));
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let initial = net::initial_weights(shape, &mut rng);
        let mut schedule =
            Schedule { steps: 0..n_steps, n_steps, batch: config.batch, learning_rate: config.learning_rate };
        let learned = Learned {
            weights: initial,
            g: if config.top_g == 0 { PAPER_G } else { config.top_g },
            rehearsed: examples.first(config.rehearsed_contexts, config.window),
            values: Values::fit(config, &windows, seed),
            workflows: Workflows::mine(&windows),
            vocabulary,
        };
        let mut model = Model::new(config, 0, shape, learned);
        let every = (1.0 / config.held_out).round() as usize;
        if config.top_g == 0 && windows.len() >= MIN_HELD_OUT * every {
            // g is chosen before the network has seen the held-out sessions; the rest of the training is on all of
            // them.
            let is_held_out = |idx: usize| idx % every == every - 1;
            let side = |held_out: bool| {
                let own = windows.iter().enumerate().filter(move |(idx, _)| is_held_out(*idx) == held_out);
                own.map(|(_, log)| *log).collect::<Vec<_>>()
            };
            let n_first = (n_steps as f64 * (1.0 - SETTLING)) as usize;
            schedule.steps = 0..n_first;
            let first = examples_of(config, &model.learned.vocabulary, &side(false));
            model.set_weights(shape, net::train(shape, &model.learned.weights, &first, &schedule, &mut rng));
            model.learned.g = model.calibrated_g(&side(true), config.g_share);
            schedule.steps = n_first..n_steps;
        }
        model.set_weights(shape, net::train(shape, &model.learned.weights, &examples, &schedule, &mut rng));
        if !model.learned.weights.iter().all(|weight| weight.is_finite()) {
            return Err(refuse("training diverged; lower `learning_rate`"));
        }
        let state = encode(shape, &model.learned, 0);
        model.version = StableHash::new().bytes(&state).text(&format!("{config:?}")).finish();
        Ok(model)
    }

    fn load(config: &Config, snapshot: &[u8]) -> Result<Model, DetectorError> {
        check(config)?;
        let refuse = |reason: String| DetectorError::Snapshot { detector: Self::NAME.to_owned(), reason };
        let (version, shape, learned) = decode(snapshot).map_err(refuse)?;
        let wanted = learned.vocabulary.shape(config);
        for (key, wanted, found) in [
            ("window", wanted.window, shape.window),
            ("hidden", wanted.hidden, shape.hidden),
            ("layers", wanted.layers, shape.layers),
        ] {
            if wanted != found {
                return Err(refuse(format!("it was fitted with `{key}` {found}, the configuration says {wanted}")));
            }
        }
        Ok(Model::new(config, version, shape, learned))
    }
}

fn check(config: &Config) -> Result<(), DetectorError> {
    let ranges = Ranges(DeepLog::NAME);
    ranges.within([
        ("window", config.window, 1..=256),
        ("top_g", config.top_g, 0..=1024),
        ("hidden", config.hidden, 1..=1024),
        ("layers", config.layers, 1..=8),
        ("epochs", config.epochs, 1..=10_000),
        ("batch", config.batch, 1..=8192),
        ("max_templates", config.max_templates, 1..=65_000),
        ("max_contexts", config.max_contexts, 1..=10_000_000),
        ("max_training_windows", config.max_training_windows, 1..=usize::MAX),
        ("cache_contexts", config.cache_contexts, 1..=10_000_000),
        ("value_models", config.value_models, 0..=1024),
        ("rehearsed_contexts", config.rehearsed_contexts, 1..=1_000_000),
        ("update_steps", config.update_steps, 1..=1_000_000),
    ])?;
    ranges.within([
        ("held_out", config.held_out, 0.01..=0.5),
        ("g_share", config.g_share, 0.0..=0.5),
        ("tempering", config.tempering, 0.0..=1.0),
        ("value_confidence", config.value_confidence, 0.5..=1.0 - 1e-12),
    ])?;
    ranges.above_zero("learning_rate", config.learning_rate)
}

impl Model {
    fn new(config: &Config, version: u64, shape: Shape, learned: Learned) -> Self {
        let predictor = Predictor::new(shape, &learned.weights);
        let (cache, scratch) = (Cache::default(), Scratch::default());
        Self { config: config.clone(), version, learned, predictor, cache, scratch }
    }

    fn set_weights(&mut self, shape: Shape, weights: Vec<f32>) {
        self.predictor = Predictor::new(shape, &weights);
        self.learned.weights = weights;
        self.cache = Cache::default();
    }

    /// Predictions that count as normal.
    #[must_use]
    pub fn g(&self) -> usize {
        self.learned.g
    }

    /// What normal sessions do, step by step.
    #[must_use]
    pub fn workflows(&self) -> &Workflows {
        &self.learned.workflows
    }
}

impl Detector for Model {
    fn name(&self) -> &'static str {
        DeepLog::NAME
    }

    fn version(&self) -> u64 {
        self.version
    }

    fn signal(&self) -> Signal {
        DeepLog::SIGNAL
    }

    fn score(&mut self, windows: &[Window<'_>], scores: &mut Vec<Option<Score>>) {
        self.score_all(windows, scores);
    }

    fn explain(&self, window: &Window<'_>, score: &Score) -> Evidence {
        self.evidence(window, score)
    }

    /// Does nothing; [`Self::accept`] learns, from what a person has marked.
    fn learn(&mut self, _windows: &[Window<'_>]) {}

    /// Updates with it, again while that helps: where `cut` asks for little of a network, one update does.
    fn accept(&mut self, window: &Window<'_>, cut: f64) -> usize {
        const MAX_UPDATES: usize = 3;
        // Scores are kept in single precision: what scored `cut` is to count as such.
        let cut = cut - 1e-6 * cut.abs();
        let mut n_learned = 0;
        for _ in 0..MAX_UPDATES {
            let Update { n_before, n_after, .. } = self.update(&[*window], cut);
            n_learned += n_before.saturating_sub(n_after);
            if n_after == 0 || n_after >= n_before {
                break;
            }
        }
        n_learned
    }

    fn snapshot(&self) -> Result<Vec<u8>, DetectorError> {
        Ok(encode(self.learned.vocabulary.shape(&self.config), &self.learned, self.version))
    }
}

#[cfg(test)]
mod tests;
