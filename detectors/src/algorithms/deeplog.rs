//! DeepLog's log-key model: an LSTM predicts the next template of a session from the ten before it.
//!
//! Station 7. Du, Li, Zheng, Srikumar, "DeepLog: Anomaly Detection and Diagnosis from System Logs through Deep Learning",
//! CCS 2017, section 3.1. The network is trained in `net` and served by `kernel`. A record is judged by the rank of its template among the
//! predictions (the paper's rule: anomalous beyond the top g = 9) and, among equal ranks, by its negative log-likelihood;
//! a window by the worst of its fresh records. A template that training did not hold is worst of all.
//!
//! Cost: a prediction is about 1 MFLOP, so what it says is kept in an exact cache by context (on HDFS the 1,000 commonest
//! contexts cover 92 % of records), and those that are missing are computed for all windows of a call together. The cache is
//! an automaton: a known context and the next symbol lead to the next known context without a hash. Training sees
//! each distinct context once an epoch, however often it occurred. Memory: the cache, `cache_contexts` rows of 8 bytes a
//! template, 64 MiB at most.
//!
//! When it fails: on streams whose templates churn (everything new is an anomaly; pair it with a cap on reports), on
//! sessions that interleave unrelated work (use a finer session key), and on a record that is unlikely but not
//! impossible in its place: with 15 templates the top 9 are most of them. Training on anomalies makes them normal,
//! though a few in a hundred do little harm.
//!
//! Differences from the paper:
//! - The end of a session is a symbol that is predicted like a template when the session closes, so that a session
//!   which stops early is seen; and contexts before the h-th record are filled up with a start symbol, so that the first
//!   records are judged as well.
//! - The end is judged by its likelihood alone: whether it comes ninth or fourteenth among symbols that are all held to
//!   be impossible is chance, and differs from seed to seed. It is put on the scale of ranks so that 5 nats (1 session in
//!   150 ends there), which hardly any normal HDFS session exceeds, counts as rank 10, and each further
//!   halving as two ranks more.
//! - A context weighs `count^tempering` in training, so that rare paths of normal operation are learned too.
//! - The threshold is not g: calibration picks the cut on held-out scores. Rank 10 and beyond is a score above 10.
//! - The parameter-value model, workflow construction and the online update from feedback are not here yet; `learn` does
//!   nothing.

mod kernel;
mod net;

use std::collections::BTreeMap;

use faultline_core::{
    Detector, DetectorError, Evidence, Expected, LogWindow, Score, Signal, TemplateId, Window, hash::StableHash,
};
use rustc_hash::FxHashMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::{
    kernel::Predictor,
    net::{Examples, Schedule, Shape, Symbol},
};
use crate::{algorithm::Algorithm, evidence};

/// Hyperparameters of [`DeepLog`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Records before the judged one that the model sees: the paper's h.
    pub window: usize,
    /// Predictions shown as expected in the evidence: the paper's g. It decides nothing.
    pub top_g: usize,
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
}

impl Default for Config {
    fn default() -> Self {
        Self {
            window: 10,
            top_g: 9,
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
        }
    }
}

/// See the file's documentation.
pub struct DeepLog;

/// Optimizer steps below which a fit does not stop, however few the contexts are.
const MIN_STEPS: usize = 200;

/// Negative log-likelihood of what the model holds to be impossible, nats. No surprise counts for more.
const MAX_NLL: f64 = 30.0;

/// A fitted model.
#[derive(Debug)]
pub struct Model {
    config: Config,
    version: u64,
    vocabulary: Vocabulary,
    weights: Vec<f32>,
    predictor: Predictor,
    cache: Cache,
    scratch: Scratch,
}

/// The templates of training in order of id. Symbols are positions in it; the three after it are special.
#[derive(Debug)]
struct Vocabulary {
    templates: Vec<TemplateId>,
    symbols: FxHashMap<TemplateId, Symbol>,
    /// Whether training held closed sessions, from which the end was learned.
    knows_end: bool,
}

impl Vocabulary {
    fn new(mut templates: Vec<TemplateId>, knows_end: bool) -> Self {
        templates.sort_unstable();
        let symbols = (0..).zip(&templates).map(|(symbol, &template)| (template, symbol)).collect();
        Self { templates, symbols, knows_end }
    }

    /// Stands for what was before a session began.
    fn start(&self) -> Symbol {
        self.templates.len() as Symbol
    }

    /// Stands, as a prediction, for the end of the session.
    fn end(&self) -> Symbol {
        self.start()
    }

    /// Stands for every template outside the vocabulary.
    fn unseen(&self) -> Symbol {
        self.templates.len() as Symbol + 1
    }

    /// Symbols that records can be, the special ones included.
    fn n_symbols(&self) -> usize {
        self.templates.len() + 2
    }

    fn shape(&self, config: &Config) -> Shape {
        Shape {
            n_inputs: self.templates.len() + 1,
            n_outputs: self.templates.len() + 1,
            window: config.window,
            hidden: config.hidden,
            layers: config.layers,
        }
    }

    /// The session's symbols after `window` start symbols: the context of record i is `[i..i + window]` of it.
    fn padded(&self, log: &LogWindow<'_>, window: usize) -> Vec<Symbol> {
        let mut padded = Vec::with_capacity(window + log.records.len());
        self.pad_into(log, window, &mut padded);
        padded
    }

    fn pad_into(&self, log: &LogWindow<'_>, window: usize, padded: &mut Vec<Symbol>) {
        padded.extend(std::iter::repeat_n(self.start(), window));
        let symbol = |template: TemplateId| self.symbols.get(&template).copied().unwrap_or(self.unseen());
        padded.extend(log.records.iter().map(|record| symbol(record.template)));
    }

    /// What there is to predict in `log`: positions of fresh records, and the end once the session is closed. A record
    /// whose context the length cap has cut off is left out.
    fn positions(&self, log: &LogWindow<'_>, window: usize) -> std::ops::Range<usize> {
        let first = if log.n_dropped > 0 { log.fresh.max(window) } else { log.fresh };
        let has_end = ends(log) && self.knows_end;
        first..log.records.len() + usize::from(has_end)
    }
}

/// What is known of contexts, a row each. Exact: a row says what the network says.
#[derive(Debug, Default)]
struct Cache {
    row_of: FxHashMap<Box<[Symbol]>, usize>,
    /// Scores of every template that may come next, and of the end.
    scores: Vec<f32>,
    /// The row of the context that a symbol leads to, where it has been looked up once: records of a known path then cost
    /// an array lookup instead of a hash of their context.
    next: Vec<u32>,
}

/// See [`Cache::next`].
const UNKNOWN_ROW: u32 = u32::MAX;

/// Bytes that a cache may take, however many contexts the configuration allows.
const MAX_CACHE_BYTES: usize = 64 << 20;

impl Cache {
    /// A row for a context that has none. Its scores are to be pushed in the order of insertion.
    fn insert(&mut self, context: &[Symbol], n_symbols: usize) -> usize {
        let row = self.row_of.len();
        self.row_of.insert(context.into(), row);
        self.next.resize((row + 1) * n_symbols, UNKNOWN_ROW);
        row
    }
}

/// Buffers that calls share.
#[derive(Debug, Default)]
struct Scratch {
    /// The padded symbols of the windows, one window after another.
    symbols: Vec<Symbol>,
    /// For each prediction its row in the cache.
    rows: Vec<usize>,
}

/// How one prediction turned out.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Surprise {
    what: What,
    /// 1 for the likeliest.
    rank: usize,
    /// Negative log-likelihood, nats.
    nll: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Known,
    Unseen,
    End,
}

impl Surprise {
    /// `log_probabilities` holds those of the known templates, then that of the end. `next` is none for the end.
    fn of(next: Option<Symbol>, log_probabilities: &[f32]) -> Self {
        let end = log_probabilities.len() - 1;
        let (what, symbol) = match next.map(usize::from) {
            None => (What::End, end),
            Some(symbol) if symbol < end => (What::Known, symbol),
            Some(_) => return Self { what: What::Unseen, rank: log_probabilities.len() + 1, nll: MAX_NLL },
        };
        let own = log_probabilities[symbol];
        let rank = 1 + log_probabilities.iter().filter(|&&other| other > own).count();
        Self { what, rank, nll: (-f64::from(own)).clamp(0.0, MAX_NLL) }
    }

    /// The rank; a score from 10 to 11 means rank 10. The fraction orders equal ranks by likelihood.
    fn score(self) -> f64 {
        let by_rank = self.rank as f64 + self.nll / (1.0 + self.nll);
        let worst = MAX_NLL / std::f64::consts::LN_2;
        match self.what {
            What::Known => by_rank,
            What::Unseen => by_rank.max(worst),
            What::End => (2.0 * self.nll / std::f64::consts::LN_2 - 4.0).clamp(1.0, worst),
        }
    }
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

    type Config = Config;
    type Model = Model;

    fn fit(config: &Config, training: &[Window<'_>], seed: u64) -> Result<Model, DetectorError> {
        check(config)?;
        let windows: Vec<&LogWindow<'_>> = training.iter().filter_map(Window::as_log).collect();
        let vocabulary = vocabulary_of(config, &windows);
        let examples = examples_of(config, &vocabulary, &windows);
        if examples.next.is_empty() {
            let reason = "no training window holds a record".to_owned();
            return Err(DetectorError::Fit { detector: Self::NAME.to_owned(), reason });
        }
        let shape = vocabulary.shape(config);
        let n_contexts = examples.next.len();
        let n_steps = (config.epochs * n_contexts.div_ceil(config.batch)).max(MIN_STEPS);
        let n_steps = n_steps.min(config.max_training_windows.div_ceil(config.batch.min(n_contexts)));
        let schedule = Schedule { n_steps, batch: config.batch, learning_rate: config.learning_rate, seed };
        let weights = net::train(shape, &examples, &schedule);
        if !weights.iter().all(|weight| weight.is_finite()) {
            let reason = "training diverged; lower `learning_rate`".to_owned();
            return Err(DetectorError::Fit { detector: Self::NAME.to_owned(), reason });
        }
        let state = encode(shape, &vocabulary, &weights, 0);
        let version = StableHash::new().bytes(&state).text(&format!("{config:?}")).finish();
        Ok(Model::new(config, version, vocabulary, weights))
    }

    fn load(config: &Config, snapshot: &[u8]) -> Result<Model, DetectorError> {
        check(config)?;
        let refuse = |reason: String| DetectorError::Snapshot { detector: Self::NAME.to_owned(), reason };
        let (version, vocabulary, shape, weights) = decode(snapshot).map_err(refuse)?;
        let wanted = vocabulary.shape(config);
        for (key, wanted, found) in [
            ("window", wanted.window, shape.window),
            ("hidden", wanted.hidden, shape.hidden),
            ("layers", wanted.layers, shape.layers),
        ] {
            if wanted != found {
                return Err(refuse(format!("it was fitted with `{key}` {found}, the configuration says {wanted}")));
            }
        }
        Ok(Model::new(config, version, vocabulary, weights))
    }
}

fn check(config: &Config) -> Result<(), DetectorError> {
    let refuse = |reason: String| DetectorError::Config { detector: DeepLog::NAME.to_owned(), reason };
    for (key, value, most) in [
        ("window", config.window, 256),
        ("top_g", config.top_g, 1024),
        ("hidden", config.hidden, 1024),
        ("layers", config.layers, 8),
        ("epochs", config.epochs, 10_000),
        ("batch", config.batch, 8192),
        ("max_templates", config.max_templates, 65_000),
        ("max_contexts", config.max_contexts, 10_000_000),
        ("max_training_windows", config.max_training_windows, usize::MAX),
        ("cache_contexts", config.cache_contexts, 10_000_000),
    ] {
        if value == 0 || value > most {
            return Err(refuse(format!("key `{key}`: {value} is not from 1 to {most}")));
        }
    }
    if !(config.learning_rate > 0.0 && config.learning_rate <= 1.0) {
        return Err(refuse(format!("key `learning_rate`: {} is not above 0 and at most 1", config.learning_rate)));
    }
    if !(0.0..=1.0).contains(&config.tempering) {
        return Err(refuse(format!("key `tempering`: {} is not from 0 to 1", config.tempering)));
    }
    Ok(())
}

/// Whether the end of the session is there to be judged. A stream only pauses.
fn ends(log: &LogWindow<'_>) -> bool {
    log.is_closed() && !log.is_stream && !log.records.is_empty()
}

/// The most frequent templates of the fresh records.
fn vocabulary_of(config: &Config, windows: &[&LogWindow<'_>]) -> Vocabulary {
    let mut counts: BTreeMap<TemplateId, u64> = BTreeMap::new();
    for record in windows.iter().flat_map(|log| log.fresh_records()) {
        *counts.entry(record.template).or_default() += 1;
    }
    let mut templates: Vec<(TemplateId, u64)> = counts.into_iter().collect();
    templates.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    templates.truncate(config.max_templates);
    let knows_end = windows.iter().any(|log| ends(log));
    Vocabulary::new(templates.into_iter().map(|(template, _)| template).collect(), knows_end)
}

/// The distinct contexts with what came next, in order of context.
fn examples_of(config: &Config, vocabulary: &Vocabulary, windows: &[&LogWindow<'_>]) -> Examples {
    let mut counts: FxHashMap<Box<[Symbol]>, BTreeMap<Symbol, u64>> = FxHashMap::default();
    for log in windows {
        let padded = vocabulary.padded(log, config.window);
        for position in vocabulary.positions(log, config.window) {
            let next = padded.get(position + config.window).copied().unwrap_or(vocabulary.end());
            if next == vocabulary.unseen() {
                continue;
            }
            let context = &padded[position..position + config.window];
            match counts.get_mut(context) {
                Some(counts) => *counts.entry(next).or_default() += 1,
                None => {
                    counts.insert(context.into(), BTreeMap::from([(next, 1)]));
                }
            }
        }
    }
    let mut contexts: Vec<_> =
        counts.into_iter().map(|(context, next)| (next.values().sum::<u64>(), context, next)).collect();
    contexts.sort_unstable_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    contexts.truncate(config.max_contexts);
    let mut examples = Examples { contexts: Vec::new(), next: Vec::new() };
    for (total, context, next) in contexts {
        let factor = (total as f64).powf(config.tempering - 1.0);
        examples.contexts.extend_from_slice(&context);
        examples.next.push(next.into_iter().map(|(symbol, n)| (symbol, (n as f64 * factor) as f32)).collect());
    }
    examples
}

impl Model {
    fn new(config: &Config, version: u64, vocabulary: Vocabulary, weights: Vec<f32>) -> Self {
        let predictor = Predictor::new(vocabulary.shape(config), &weights);
        Self {
            config: config.clone(),
            version,
            vocabulary,
            weights,
            predictor,
            cache: Cache::default(),
            scratch: Scratch::default(),
        }
    }

    /// Scores `windows`, of which no more than the cache holds contexts are new to it.
    fn score_group(&mut self, windows: &[Window<'_>], scores: &mut Vec<Option<Score>>) {
        let Self { config, vocabulary, predictor, cache, scratch, .. } = self;
        let h = config.window;
        let n_outputs = vocabulary.templates.len() + 1;
        scratch.symbols.clear();
        for log in windows.iter().filter_map(Window::as_log) {
            vocabulary.pad_into(log, h, &mut scratch.symbols);
        }
        scratch.rows.clear();
        let mut missing: Vec<&[Symbol]> = Vec::new();
        let mut start = 0;
        for log in windows.iter().filter_map(Window::as_log) {
            let padded = &scratch.symbols[start..start + h + log.records.len()];
            start += padded.len();
            let mut before: Option<usize> = None;
            for position in vocabulary.positions(log, h) {
                // The context before and the symbol after it make this context.
                let step = before.map(|row| row * vocabulary.n_symbols() + usize::from(padded[position + h - 1]));
                let row = match step.map(|step| cache.next[step]) {
                    Some(row) if row != UNKNOWN_ROW => row as usize,
                    _ => {
                        let context = &padded[position..position + h];
                        let row = cache.row_of.get(context).copied().unwrap_or_else(|| {
                            missing.push(context);
                            cache.insert(context, vocabulary.n_symbols())
                        });
                        if let Some(step) = step {
                            cache.next[step] = row as u32;
                        }
                        row
                    }
                };
                scratch.rows.push(row);
                before = Some(row);
            }
        }
        for row in predictor.log_probabilities(&missing).chunks_exact(n_outputs) {
            push_scores(row, &mut cache.scores);
        }
        let (mut start, mut rows) = (0, scratch.rows.iter());
        for window in windows {
            let mut worst: Option<Score> = None;
            if let Some(log) = window.as_log() {
                let padded = &scratch.symbols[start..start + h + log.records.len()];
                start += padded.len();
                for (position, row) in vocabulary.positions(log, h).zip(&mut rows) {
                    let next = padded.get(position + h).map_or(n_outputs - 1, |&symbol| usize::from(symbol));
                    // The end has the last place; a template outside the vocabulary has none.
                    let is_known = next < n_outputs - 1 || position + h == padded.len();
                    let value = if is_known {
                        f64::from(cache.scores[row * n_outputs + next])
                    } else {
                        unseen_score(n_outputs)
                    };
                    if worst.is_none_or(|worst| value > worst.value) {
                        // The end of the session is the doing of its last record.
                        worst = Some(Score { value, culprit: position.min(log.records.len() - 1) });
                    }
                }
            }
            scores.push(worst);
        }
    }
}

/// What a template outside the vocabulary scores, rounded as the others are.
fn unseen_score(n_outputs: usize) -> f64 {
    let surprise = Surprise { what: What::Unseen, rank: n_outputs + 1, nll: MAX_NLL };
    f64::from(surprise.score() as f32)
}

/// Appends the score of every symbol, and last that of the end, given their log-probabilities.
fn push_scores(log_probabilities: &[f32], scores: &mut Vec<f32>) {
    let end = log_probabilities.len() - 1;
    let mut order: Vec<usize> = (0..log_probabilities.len()).collect();
    order.sort_unstable_by(|&a, &b| log_probabilities[b].total_cmp(&log_probabilities[a]));
    let first = scores.len();
    scores.resize(first + log_probabilities.len(), 0.0);
    let (mut rank, mut before) = (0, f32::INFINITY);
    for (place, &symbol) in order.iter().enumerate() {
        let own = log_probabilities[symbol];
        if own < before {
            (rank, before) = (place + 1, own);
        }
        let what = if symbol == end { What::End } else { What::Known };
        let surprise = Surprise { what, rank, nll: (-f64::from(own)).clamp(0.0, MAX_NLL) };
        scores[first + symbol] = surprise.score() as f32;
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
        let n_positions = |window: &Window<'_>| {
            window.as_log().map_or(0, |log| self.vocabulary.positions(log, self.config.window).len())
        };
        let sizes: Vec<usize> = windows.iter().map(n_positions).collect();
        let max_rows = (MAX_CACHE_BYTES / (8 * self.vocabulary.n_symbols())).clamp(1, self.config.cache_contexts);
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
        let h = self.config.window;
        let padded = self.vocabulary.padded(log, h);
        // Where the last record is the culprit, it or the end after it decided: whichever scored as the window did.
        let judged = self.vocabulary.positions(log, h).filter(|position| {
            *position == score.culprit || (*position == log.records.len() && score.culprit + 1 == *position)
        });
        let n_outputs = self.vocabulary.templates.len() + 1;
        let mut decided: Option<(Surprise, Vec<f32>)> = None;
        for position in judged {
            let row = self.predictor.log_probabilities(&[&padded[position..position + h]]);
            let surprise = Surprise::of(padded.get(position + h).copied(), &row);
            if decided.as_ref().is_none_or(|(before, _)| surprise.score() > before.score()) {
                decided = Some((surprise, row));
            }
        }
        let Some((surprise, row)) = decided else {
            return Evidence { summary: "nothing of the window is fresh".to_owned(), ..Evidence::default() };
        };
        let mut order: Vec<usize> = (0..n_outputs).collect();
        order.sort_by(|&a, &b| row[b].total_cmp(&row[a]));
        let expected: Vec<Expected> = order
            .iter()
            .take(self.config.top_g)
            .filter_map(|&symbol| {
                let template = *self.vocabulary.templates.get(symbol)?;
                Some(Expected { template, probability: f64::from(row[symbol].exp()) })
            })
            .collect();
        let likeliest = match self.vocabulary.templates.get(order[0]) {
            Some(template) => format!("template {template} was likeliest with {:.1} %", row[order[0]].exp() * 100.0),
            None => format!("the end of the session was likeliest with {:.1} %", row[order[0]].exp() * 100.0),
        };
        let (template, rank, percent) = (culprit.template, surprise.rank, (-surprise.nll).exp() * 100.0);
        let summary = match surprise.what {
            What::End => {
                format!("the session ended after template {template}, held to be {percent:.2} % likely; {likeliest}")
            }
            What::Unseen => format!("template {template} never occurred in training; {likeliest}"),
            What::Known => {
                format!("template {template} ranks {rank} of {n_outputs} in its place ({percent:.2} %); {likeliest}")
            }
        };
        let context = &log.records[score.culprit.saturating_sub(h)..score.culprit];
        Evidence {
            summary,
            seen: (surprise.what != What::End).then_some(culprit.template),
            expected,
            culprit: Some(culprit.record),
            records: evidence::around(log.records, score.culprit, context.iter().map(|record| record.record)),
            figures: [
                ("rank".to_owned(), surprise.rank as f64),
                ("nll".to_owned(), surprise.nll),
                ("n_symbols".to_owned(), n_outputs as f64),
            ]
            .into(),
        }
    }

    /// Does nothing: the online update from false-positive feedback belongs to the feedback loop, which does not exist
    /// yet, and learning from every window would let a patient attacker teach the model.
    fn learn(&mut self, _windows: &[Window<'_>]) {}

    fn snapshot(&self) -> Result<Vec<u8>, DetectorError> {
        Ok(encode(self.vocabulary.shape(&self.config), &self.vocabulary, &self.weights, self.version))
    }
}

/// What a snapshot begins with; the digit is the format.
const MAGIC: &[u8; 16] = b"faultlineDeepLg1";

/// A snapshot, little-endian: magic, version, window, hidden, layers, whether the end is known, number of templates,
/// templates, weights, and the stable hash of all that.
fn encode(shape: Shape, vocabulary: &Vocabulary, weights: &[f32], version: u64) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(version.to_le_bytes());
    let n_templates = vocabulary.templates.len();
    for size in [shape.window, shape.hidden, shape.layers, usize::from(vocabulary.knows_end), n_templates] {
        bytes.extend((size as u64).to_le_bytes());
    }
    bytes.extend(vocabulary.templates.iter().flat_map(|template| template.0.to_le_bytes()));
    bytes.extend(weights.iter().flat_map(|weight| weight.to_le_bytes()));
    let checksum = StableHash::new().bytes(&bytes).finish();
    bytes.extend(checksum.to_le_bytes());
    bytes
}

/// Reads what [`encode`] wrote, or says what is wrong with it.
fn decode(snapshot: &[u8]) -> Result<(u64, Vocabulary, Shape, Vec<f32>), String> {
    let body = snapshot.strip_prefix(MAGIC).ok_or("it is not a snapshot of deeplog in format 1")?;
    let (content, checksum) = snapshot.split_at(snapshot.len().saturating_sub(8));
    if body.len() < 8 || checksum != StableHash::new().bytes(content).finish().to_le_bytes() {
        return Err("its checksum does not match".to_owned());
    }
    let body = &body[..body.len() - 8];
    let number =
        |idx: usize| body.get(idx * 8..idx * 8 + 8).map(|bytes| u64::from_le_bytes(bytes.try_into().unwrap_or([0; 8])));
    let size = |idx: usize| number(idx).and_then(|n| usize::try_from(n).ok()).ok_or("it is too short");
    let (window, hidden, layers) = (size(1)?, size(2)?, size(3)?);
    let (knows_end, n_templates) = (size(4)? != 0, size(5)?);
    let templates: Option<Vec<TemplateId>> = (6..6 + n_templates).map(|idx| number(idx).map(TemplateId)).collect();
    let vocabulary = Vocabulary::new(templates.ok_or("its vocabulary is cut short")?, knows_end);
    let shape = vocabulary.shape(&Config { window, hidden, layers, ..Config::default() });
    let weights = &body[(6 + n_templates) * 8..];
    if weights.len() != shape.n_weights() * 4 {
        return Err(format!("it holds {} bytes of weights, not {}", weights.len(), shape.n_weights() * 4));
    }
    let weights = weights.chunks_exact(4).map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
    Ok((number(0).ok_or("it is too short")?, vocabulary, shape, weights.collect()))
}

#[cfg(test)]
mod tests;
