//! An LSTM language model with dot-product attention, which shows what it looked at when a record surprised it.
//!
//! Station 7. Brown, Tuor, Hutchinson, Nichols, "Recurrent Neural Network Attention Mechanisms for Interpretable System Log
//! Anomaly Detection", MLCS 2018 (arXiv 1803.04967). An LSTM reads a session's templates into states h(1) … h(t).
//! What comes next is predicted from the last state and from an attended value a = d·V over the earlier states V, where
//! d = softmax(q·Kᵀ) and K = tanh(V·Wᵃ). The five variants are five origins of the query q:
//! `fixed` one vector for all; `syntax` one for each position in the session; `semantic-1` q = tanh(h(t)·W); `semantic-2`
//! the LSTM writes it, as further cells of its own state; `tiered` a second LSTM reads a summary of each segment of the context,
//! its last state beside its attended value (the mean in the model without attention), and its state is an input to the
//! next segment. `bidirectional` reads what comes after a record too, from the far end towards it. The network is trained in
//! `net` and served by `kernel`.
//!
//! The score is the cross-entropy of the most surprising record, in nats. The paper averages over a line's tokens
//! and then takes a user's worst line; a record is to us what a line is there. A mean over the session would fall as the
//! session grows, and with it a finding that was there; a maximum can only rise, and is the same whether a session comes
//! whole or in pieces.
//!
//! The attention is evidence, but not yet an explanation: a model may attend to what does not matter to it. So an
//! explanation is put to the test: the records with most of the attention are masked, and the score must fall by more than
//! when as many others are. The figure `faithfulness` is the difference in nats; at or below zero the heat map is not to be
//! trusted.
//!
//! Cost: 0.1 MFLOP a prediction and side; predictions are kept in an exact cache by context, as DeepLog's are. Training sees
//! each distinct context once an epoch. Memory: the cache, 64 MiB at most.
//!
//! When it fails: as DeepLog does, on templates that churn and on sessions that interleave unrelated work. In both directions
//! a record is judged `window` records late, because its followers must be known first, and a record that follows from an
//! anomaly may be excused by it.
//!
//! Differences from the paper:
//! - Its tokens are the words or characters of a line. Detectors see templates, so these are the tokens, a session is the
//!   text, and a tier's segment of `segment` records is what a line is there. There is no token level below the template.
//! - A record is predicted from a bounded context of `window` records, so that a prediction can be cached.
//! - Records are masked at random in training, with the symbol that also stands for unknown templates: a masked record is
//!   then something that the model knows, and not a novelty of its own.
//! - The forget gates begin nearly shut, so that the attention rather than the LSTM learns to reach back. Begun open, as
//!   is usual, the states that follow a record carry it along, and the attention may settle on any of them. That it still
//!   can is why faithfulness is measured for each finding.
//! - The end of a session is predicted as a template is; contexts are weighted `count^tempering`; both as in DeepLog here.
//! - In both directions each side has an attention of its own; evidence shows the mean of the two.
//! - It is fitted once, not day by day; `learn` does nothing.

mod contexts;
mod kernel;
mod net;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use faultline_core::{
    Detector, DetectorError, Evidence, Expected, LogWindow, Score, Signal, TemplateId, Window, hash::StableHash,
};
use rand::{SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use rustc_hash::FxHashMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::{
    contexts::{Reading, Vocabulary, examples_of},
    kernel::Predictor,
    net::{Schedule, Symbol},
};
use crate::{algorithm::Algorithm, evidence, snapshot};

/// Where the attention's query comes from: the paper's five variants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Attention {
    /// One learned query for every prediction.
    #[serde(rename = "fixed")]
    Fixed,
    /// One learned query for each position in the session, up to `window`.
    #[serde(rename = "syntax")]
    Syntax,
    /// A function of the LSTM's state.
    #[serde(rename = "semantic-1")]
    Semantic1,
    /// A part of the LSTM's state.
    #[serde(rename = "semantic-2")]
    Semantic2,
    /// A fixed query within each segment, whose summaries a second LSTM reads.
    #[serde(rename = "tiered")]
    Tiered,
}

impl Attention {
    /// Every variant.
    pub const ALL: [Self; 5] = [Self::Fixed, Self::Syntax, Self::Semantic1, Self::Semantic2, Self::Tiered];
}

/// Which records a prediction rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Those before it.
    Forward,
    /// Those before and after it: a record is judged when `window` more have come or the session has ended.
    Bidirectional,
}

/// Hyperparameters of [`AttentionRnn`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where the attention's query comes from: `fixed`, `syntax`, `semantic-1`, `semantic-2` or `tiered`.
    pub attention: Attention,
    /// `forward`, or `bidirectional` to judge a record by what follows as well, `window` records later.
    pub direction: Direction,
    /// Records on each side of the judged one that the model sees.
    pub window: usize,
    /// Records in a segment of the `tiered` variant, less than `window`. The others ignore it.
    pub segment: usize,
    /// Width of the LSTM.
    pub hidden: usize,
    /// Width of the attention's keys and queries.
    pub attention_width: usize,
    /// Passes over the distinct contexts in training. Fewer are made when `max_training_windows` is reached.
    pub epochs: usize,
    /// Contexts in one optimizer step.
    pub batch: usize,
    /// Adam's step size at the start. Lower it when a fit reports that it diverged.
    pub learning_rate: f64,
    /// A context that occurred n times weighs n to this power: 1 as it is, 0 all alike.
    pub tempering: f64,
    /// Probability with which a record of a context is masked in training. Without it, masking says nothing about
    /// faithfulness.
    pub masking: f64,
    /// Templates the model knows, the most frequent first; others count as unseen.
    pub max_templates: usize,
    /// Distinct contexts kept for training, the most frequent first: a memory bound.
    pub max_contexts: usize,
    /// Contexts computed in all of training, a time bound. One in both directions counts twice.
    pub max_training_windows: usize,
    /// Contexts whose predictions are kept, a memory bound as are 64 MiB; the cache is emptied when it is full.
    pub cache_contexts: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            attention: Attention::Semantic1,
            direction: Direction::Forward,
            window: 10,
            segment: 4,
            hidden: 32,
            attention_width: 16,
            epochs: 20,
            batch: 128,
            learning_rate: 1e-2,
            tempering: 0.3,
            masking: 0.15,
            max_templates: 1024,
            max_contexts: 65_536,
            max_training_windows: 200_000,
            cache_contexts: 65_536,
        }
    }
}

/// See the file's documentation.
pub struct AttentionRnn;

/// Optimizer steps below which a fit does not stop, however few the contexts are.
const MIN_STEPS: usize = 200;

/// Negative log-likelihood of what the model holds to be impossible, nats, and of a template that training did not hold. No
/// surprise counts for more.
const MAX_NLL: f32 = 30.0;

/// Bytes that the cache may take, however many contexts the configuration allows.
const MAX_CACHE_BYTES: usize = 64 << 20;

/// Records that count as highlighted: the fewest that hold half of the attention, and no more than these.
const MAX_HIGHLIGHTED: usize = 3;

/// Sets of other records that the highlighted ones are compared with.
const N_RANDOM: usize = 32;

/// Records whose attention is listed in the figures, the most attended first.
const MAX_ATTENDED: usize = 8;

/// Expectations that an alert lists.
const MAX_EXPECTED: usize = 5;

/// A fitted model.
#[derive(Debug)]
pub struct Model {
    config: Config,
    version: u64,
    vocabulary: Vocabulary,
    weights: Vec<f32>,
    predictor: Predictor,
    cache: Cache,
}

/// What is known of contexts. Exact: a row says what the network says.
#[derive(Debug, Default)]
struct Cache {
    row_of: FxHashMap<Box<[Symbol]>, usize>,
    /// For each row the surprise of every output symbol, nats.
    surprises: Vec<f32>,
}

impl Algorithm for AttentionRnn {
    const NAME: &'static str = "attention-rnn";
    const SUMMARY: &'static str =
        "a template that an LSTM with attention did not expect; shows the records it looked at";
    const PAPER: &'static str = "Brown, Tuor, Hutchinson, Nichols: Recurrent Neural Network Attention Mechanisms for \
                                 Interpretable System Log Anomaly Detection, MLCS 2018";
    const SIGNAL: Signal = Signal::Logs;
    const PUBLISHED_THRESHOLD: Option<f64> = None;
    const IS_SEEDED: bool = true;
    const IS_DEFAULT: bool = false;

    type Config = Config;
    type Model = Model;

    fn fit(config: &Config, training: &[Window<'_>], seed: u64) -> Result<Model, DetectorError> {
        check(config)?;
        let refuse = |reason: &str| DetectorError::Fit { detector: Self::NAME.to_owned(), reason: reason.to_owned() };
        let windows: Vec<&LogWindow<'_>> = training.iter().filter_map(Window::as_log).collect();
        let vocabulary = Vocabulary::of(config, &windows);
        let examples = examples_of(config, &vocabulary, &windows);
        if examples.next.is_empty() {
            return Err(refuse("no training window holds a record"));
        }
        let shape = vocabulary.shape(config);
        let n_contexts = examples.next.len();
        let n_steps = (config.epochs * n_contexts.div_ceil(config.batch)).max(MIN_STEPS);
        let n_steps = n_steps.min(config.max_training_windows.div_ceil(shape.n_sides * config.batch.min(n_contexts)));
        let schedule = Schedule {
            n_steps,
            batch: config.batch,
            learning_rate: config.learning_rate,
            masking: config.masking,
            seed,
        };
        let weights = net::train(shape, &examples, &schedule);
        if !weights.iter().all(|weight| weight.is_finite()) {
            return Err(refuse("training diverged; lower `learning_rate`"));
        }
        let mut model = Model::new(config, 0, vocabulary, weights);
        let state = snapshot::encode(Self::NAME, &model.state())?;
        model.version = StableHash::new().bytes(&state).text(&format!("{config:?}")).finish();
        Ok(model)
    }

    fn load(config: &Config, snapshot: &[u8]) -> Result<Model, DetectorError> {
        check(config)?;
        let refuse = |reason: String| DetectorError::Snapshot { detector: Self::NAME.to_owned(), reason };
        let state: State = snapshot::decode(Self::NAME, snapshot)?;
        let fitted = [
            ("attention", format!("{:?}", state.attention), format!("{:?}", config.attention)),
            ("direction", format!("{:?}", state.direction), format!("{:?}", config.direction)),
            ("window", state.window.to_string(), config.window.to_string()),
            ("segment", state.segment.to_string(), config.segment.to_string()),
            ("hidden", state.hidden.to_string(), config.hidden.to_string()),
            ("attention_width", state.attention_width.to_string(), config.attention_width.to_string()),
        ];
        for (key, found, wanted) in fitted {
            if found != wanted {
                return Err(refuse(format!("it was fitted with `{key}` {found}, the configuration says {wanted}")));
            }
        }
        if state.templates.len() > MAX_TEMPLATES {
            return Err(refuse(format!("it knows {} templates", state.templates.len())));
        }
        let templates = state.templates.into_iter().map(TemplateId).collect();
        let vocabulary = Vocabulary::new(templates, state.knows_end);
        let bytes = STANDARD.decode(state.weights).map_err(|error| refuse(format!("its weights: {error}")))?;
        let n_weights = vocabulary.shape(config).n_weights();
        if bytes.len() != 4 * n_weights {
            return Err(refuse(format!("it holds {} bytes of weights, not {}", bytes.len(), 4 * n_weights)));
        }
        let weights: Vec<f32> =
            bytes.chunks_exact(4).map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])).collect();
        if !weights.iter().all(|weight| weight.is_finite()) {
            return Err(refuse("a weight is not a number".to_owned()));
        }
        Ok(Model::new(config, state.version, vocabulary, weights))
    }
}

/// What a snapshot holds.
#[derive(Serialize, Deserialize)]
struct State {
    version: u64,
    attention: Attention,
    direction: Direction,
    window: usize,
    segment: usize,
    hidden: usize,
    attention_width: usize,
    knows_end: bool,
    templates: Vec<u64>,
    /// Little-endian f32 in base64.
    weights: String,
}

/// Symbols must stay below 2^16.
const MAX_TEMPLATES: usize = 65_000;

fn check(config: &Config) -> Result<(), DetectorError> {
    let refuse = |reason: String| DetectorError::Config { detector: AttentionRnn::NAME.to_owned(), reason };
    for (key, value, most) in [
        ("window", config.window, 256),
        ("segment", config.segment, 256),
        ("hidden", config.hidden, 1024),
        ("attention_width", config.attention_width, 1024),
        ("epochs", config.epochs, 10_000),
        ("batch", config.batch, 8192),
        ("max_templates", config.max_templates, MAX_TEMPLATES),
        ("max_contexts", config.max_contexts, 10_000_000),
        ("max_training_windows", config.max_training_windows, usize::MAX),
        ("cache_contexts", config.cache_contexts, 10_000_000),
    ] {
        if value == 0 || value > most {
            return Err(refuse(format!("key `{key}`: {value} is not from 1 to {most}")));
        }
    }
    if config.attention == Attention::Tiered && config.segment >= config.window {
        return Err(refuse(format!("key `segment`: {} is not less than `window` {}", config.segment, config.window)));
    }
    if !(config.learning_rate > 0.0 && config.learning_rate <= 1.0) {
        return Err(refuse(format!("key `learning_rate`: {} is not above 0 and at most 1", config.learning_rate)));
    }
    if !(0.0..=1.0).contains(&config.tempering) {
        return Err(refuse(format!("key `tempering`: {} is not from 0 to 1", config.tempering)));
    }
    if !(0.0..=0.9).contains(&config.masking) {
        return Err(refuse(format!("key `masking`: {} is not from 0 to 0.9", config.masking)));
    }
    Ok(())
}

impl Model {
    fn new(config: &Config, version: u64, vocabulary: Vocabulary, weights: Vec<f32>) -> Self {
        let predictor = Predictor::new(vocabulary.shape(config), &weights);
        Self { config: config.clone(), version, vocabulary, weights, predictor, cache: Cache::default() }
    }

    fn state(&self) -> State {
        let bytes: Vec<u8> = self.weights.iter().flat_map(|weight| weight.to_le_bytes()).collect();
        State {
            version: self.version,
            attention: self.config.attention,
            direction: self.config.direction,
            window: self.config.window,
            segment: self.config.segment,
            hidden: self.config.hidden,
            attention_width: self.config.attention_width,
            knows_end: self.vocabulary.knows_end,
            templates: self.vocabulary.templates.iter().map(|template| template.0).collect(),
            weights: STANDARD.encode(bytes),
        }
    }

    /// Scores `windows`, of which no more than the cache holds contexts are new to it.
    fn score_group(&mut self, windows: &[Window<'_>], scores: &mut Vec<Option<Score>>) {
        let shape = self.vocabulary.shape(&self.config);
        let (length, n_outputs) = (shape.context_length(), shape.n_outputs());
        let mut missing: Vec<Symbol> = Vec::new();
        // For each prediction its row in the cache and what came.
        let mut judged: Vec<(usize, Symbol)> = Vec::new();
        let mut context = Vec::with_capacity(length);
        for log in windows.iter().filter_map(Window::as_log) {
            let reading = self.vocabulary.read(shape, log);
            for position in reading.judged.clone() {
                context.clear();
                reading.context_into(position, &mut context);
                let n_rows = self.cache.row_of.len();
                let row = self.cache.row_of.get(context.as_slice()).copied().unwrap_or_else(|| {
                    missing.extend_from_slice(&context);
                    self.cache.row_of.insert(context.as_slice().into(), n_rows);
                    n_rows
                });
                judged.push((row, reading.next(position)));
            }
        }
        let missing: Vec<&[Symbol]> = missing.chunks_exact(length).collect();
        let predicted = self.predictor.predict(&missing).log_probabilities;
        self.cache.surprises.extend(predicted.iter().map(|&log_probability| surprise(log_probability)));
        let mut judged = judged.into_iter();
        for window in windows {
            let mut worst: Option<Score> = None;
            if let Some(log) = window.as_log() {
                for (position, (row, next)) in self.vocabulary.judged(shape, log).zip(&mut judged) {
                    let surprises = &self.cache.surprises[row * n_outputs..][..n_outputs];
                    let value = f64::from(surprises.get(usize::from(next)).copied().unwrap_or(MAX_NLL));
                    if worst.is_none_or(|worst| value > worst.value) {
                        // The end of the session is the doing of its last record.
                        worst = Some(Score { value, culprit: position.min(log.records.len() - 1) });
                    }
                }
            }
            scores.push(worst);
        }
    }

    /// What came at a position, what was expected, and where the attention went.
    fn look(&self, reading: &Reading, position: usize) -> Look {
        let mut context = Vec::new();
        reading.context_into(position, &mut context);
        let predictions = self.predictor.predict(&[&context]);
        let next = reading.next(position);
        let mut attended: Vec<Attended> = (0..context.len())
            .filter(|&idx| predictions.attention[idx] > 0.0)
            .filter_map(|idx| {
                let record = reading.record_of(position, idx)?;
                Some(Attended { idx, record, weight: f64::from(predictions.attention[idx]) })
            })
            .collect();
        attended.sort_by(|a, b| b.weight.total_cmp(&a.weight).then_with(|| a.idx.cmp(&b.idx)));
        let log_probabilities = predictions.log_probabilities;
        let nll = log_probabilities.get(usize::from(next)).map_or(MAX_NLL, |&own| surprise(own));
        Look { position, context, next, nll: f64::from(nll), log_probabilities, attended }
    }

    /// How far the surprise falls when the highlighted records are masked, and how far, on average, when as many are that
    /// were drawn from all that were attended to. The latter is none where there are no others.
    fn falls(&self, look: &Look, seed: u64) -> Option<(f64, Option<f64>)> {
        let n_highlighted = look.n_highlighted();
        if n_highlighted == 0 || usize::from(look.next) >= look.log_probabilities.len() {
            return None;
        }
        let unknown = self.vocabulary.shape(&self.config).unknown();
        let masked = |attended: &[Attended]| {
            let mut context = look.context.clone();
            attended.iter().for_each(|attended| context[attended.idx] = unknown);
            context
        };
        let mut contexts = vec![masked(&look.attended[..n_highlighted])];
        if look.attended.len() > n_highlighted {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let mut others = look.attended.clone();
            for _ in 0..N_RANDOM {
                let (drawn, _) = others.partial_shuffle(&mut rng, n_highlighted);
                contexts.push(masked(drawn));
            }
        }
        let contexts: Vec<&[Symbol]> = contexts.iter().map(Vec::as_slice).collect();
        let rows = self.predictor.predict(&contexts).log_probabilities;
        let mut falls = rows
            .chunks_exact(look.log_probabilities.len())
            .map(|row| look.nll - f64::from(surprise(row[usize::from(look.next)])));
        let highlighted = falls.next()?;
        let random: Vec<f64> = falls.collect();
        let mean = (!random.is_empty()).then(|| random.iter().sum::<f64>() / random.len() as f64);
        Some((highlighted, mean))
    }
}

/// −ln p, nats.
fn surprise(log_probability: f32) -> f32 {
    (-log_probability).clamp(0.0, MAX_NLL)
}

/// One prediction with all that is to be said about it.
struct Look {
    position: usize,
    context: Vec<Symbol>,
    next: Symbol,
    nll: f64,
    log_probabilities: Vec<f32>,
    /// The most attended first.
    attended: Vec<Attended>,
}

/// A record and the attention it received.
#[derive(Clone, Copy)]
struct Attended {
    /// Its place in the context.
    idx: usize,
    /// Its place in the window.
    record: usize,
    weight: f64,
}

impl Look {
    /// How many of the most attended records are highlighted.
    fn n_highlighted(&self) -> usize {
        let mut sum = 0.0;
        let below_half = self.attended.iter().take_while(|attended| {
            let is_below = sum < 0.5;
            sum += attended.weight;
            is_below
        });
        below_half.count().min(MAX_HIGHLIGHTED)
    }
}

impl Detector for Model {
    fn name(&self) -> &'static str {
        AttentionRnn::NAME
    }

    fn version(&self) -> u64 {
        self.version
    }

    fn signal(&self) -> Signal {
        AttentionRnn::SIGNAL
    }

    /// The surprise of the most surprising judged record, nats.
    fn score(&mut self, windows: &[Window<'_>], scores: &mut Vec<Option<Score>>) {
        let shape = self.vocabulary.shape(&self.config);
        let n_judged = |window: &Window<'_>| window.as_log().map_or(0, |log| self.vocabulary.judged(shape, log).len());
        let sizes: Vec<usize> = windows.iter().map(n_judged).collect();
        let bytes = 4 * shape.n_outputs() + 2 * shape.context_length() + 48;
        let max_rows = (MAX_CACHE_BYTES / bytes).clamp(1, self.config.cache_contexts);
        let mut begin = 0;
        while begin < windows.len() {
            let mut end = begin + 1;
            let mut n_contexts = sizes[begin];
            while end < windows.len() && n_contexts + sizes[end] <= max_rows {
                n_contexts += sizes[end];
                end += 1;
            }
            if self.cache.row_of.len() + n_contexts > max_rows {
                self.cache = Cache::default();
            }
            self.score_group(&windows[begin..end], scores);
            begin = end;
        }
    }

    fn explain(&self, window: &Window<'_>, score: &Score) -> Evidence {
        let Some((log, culprit)) = window.as_log().and_then(|log| Some((log, log.records.get(score.culprit)?))) else {
            return Evidence { summary: "the window holds no record".to_owned(), ..Evidence::default() };
        };
        let shape = self.vocabulary.shape(&self.config);
        let reading = self.vocabulary.read(shape, log);
        // Where the last record is the culprit, it or the end after it decided: whichever was the greater surprise.
        let candidates = reading.judged.clone().filter(|&position| {
            position == score.culprit || (position == log.records.len() && score.culprit + 1 == position)
        });
        let looks = candidates.map(|position| self.look(&reading, position));
        let Some(look) = looks.reduce(|best, look| if look.nll > best.nll { look } else { best }) else {
            return Evidence {
                summary: "nothing of the window is there to be judged".to_owned(),
                ..Evidence::default()
            };
        };
        let n_outputs = shape.n_outputs();
        let mut order: Vec<usize> = (0..n_outputs).collect();
        order.sort_by(|&a, &b| look.log_probabilities[b].total_cmp(&look.log_probabilities[a]));
        let probability = |symbol: usize| f64::from(look.log_probabilities[symbol].exp());
        let template_of = |symbol: usize| self.vocabulary.templates.get(symbol).copied();
        let expected = order
            .iter()
            .filter_map(|&symbol| Some(Expected { template: template_of(symbol)?, probability: probability(symbol) }))
            .take(MAX_EXPECTED)
            .collect();
        let likeliest = match template_of(order[0]) {
            Some(template) => format!("template {template}"),
            None => "the end of the session".to_owned(),
        };
        let likeliest = format!("{likeliest} was likeliest with {:.1} %", 100.0 * probability(order[0]));
        let percent = 100.0 * (-look.nll).exp();
        let is_end = look.position == log.records.len();
        let is_unseen = usize::from(look.next) >= n_outputs;
        let template = culprit.template;
        let mut summary = if is_end {
            format!("the session ended after template {template}, held to be {percent:.2} % likely; {likeliest}")
        } else if is_unseen {
            format!("template {template} never occurred in training; {likeliest}")
        } else {
            format!("template {template} was held to be {percent:.2} % likely in its place; {likeliest}")
        };
        let rank = 1 + look.log_probabilities.iter().filter(|&&other| surprise(other) < look.nll as f32).count();
        let mut figures: std::collections::BTreeMap<String, f64> = [
            ("nll".to_owned(), look.nll),
            ("rank".to_owned(), if is_unseen { n_outputs + 1 } else { rank } as f64),
            ("n_symbols".to_owned(), n_outputs as f64),
        ]
        .into();
        let highlighted = &look.attended[..look.n_highlighted()];
        for attended in look.attended.iter().take(MAX_ATTENDED) {
            figures.insert(format!("attention_record_{}", log.records[attended.record].record), attended.weight);
        }
        if let Some(first) = highlighted.first() {
            let seen = log.records[first.record].template;
            let share = 100.0 * highlighted.iter().map(|attended| attended.weight).sum::<f64>();
            summary += &match highlighted.len() {
                1 => format!("; {share:.0} % of the attention was on template {seen}"),
                n => format!("; {share:.0} % of the attention was on {n} records, template {seen} first"),
            };
        }
        let seed = StableHash::new().number(self.version).number(culprit.record).finish();
        if let Some((fall, random)) = self.falls(&look, seed) {
            figures.insert("fall_highlighted_nats".to_owned(), fall);
            if let Some(random) = random {
                figures.insert("fall_random_nats".to_owned(), random);
                figures.insert("faithfulness".to_owned(), fall - random);
            }
        }
        let shown = look.attended.iter().take(MAX_ATTENDED).map(|attended| log.records[attended.record].record);
        Evidence {
            summary,
            seen: (!is_end).then_some(template),
            expected,
            culprit: Some(culprit.record),
            records: evidence::around(log.records, score.culprit, shown),
            figures,
        }
    }

    /// Does nothing: learning from every window would let a patient attacker teach the model.
    fn learn(&mut self, _windows: &[Window<'_>]) {}

    fn snapshot(&self) -> Result<Vec<u8>, DetectorError> {
        snapshot::encode(AttentionRnn::NAME, &self.state())
    }
}

#[cfg(test)]
mod tests;
