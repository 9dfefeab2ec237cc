//! An LSTM language model with dot-product attention, which shows what it looked at when a record surprised it.
//!
//! Station 7. Brown, Tuor, Hutchinson, Nichols, "Recurrent Neural Network Attention Mechanisms for Interpretable System Log
//! Anomaly Detection", MLCS 2018 (arXiv 1803.04967). An LSTM reads symbols into states h(1) … h(t). What comes next is
//! predicted from the last state and from an attended value a = d·V over the earlier states V, where
//! d = softmax(q·Kᵀ) and K = tanh(V·Wᵃ). The five variants are five origins of the query q:
//! `fixed` one vector for all; `syntax` one for each position; `semantic-1` q = tanh(h(t)·W); `semantic-2` the LSTM writes
//! it, as further cells of its own state; `tiered` a second LSTM reads a summary of each segment of the context, its last
//! state beside its attended value (the mean in the model without attention), and its state is an input to the next
//! segment. `bidirectional` reads what comes after, too, from the far end towards it. The network is trained in `net` and
//! served by `kernel`. What its symbols are is the key `level`:
//!
//! `template`: the records of a session by their templates, so that it knows the order of records. A record scores its
//! cross-entropy in nats (`templates`, `contexts`).
//!
//! `token`, as in the paper: the words of a line, so that it knows wordings (`tokens`, `lines`, `words`). The line is the
//! template's text, as the parser has taken the parameters out: what it masked and what varies are words by themselves.
//! A line scores the mean cross-entropy of its words and its end. A new template scores low where it is worded like those
//! of training, and high where its words are strange: a reworded message need not be an alert. Without tiers a line is
//! read by itself, so that each is computed once; `tiered` reads the `lines` before it in the session as well.
//!
//! A session scores as its worst record, and not their mean, which would fall as the session grows, and with it a finding
//! that was there; a maximum can only rise, and is the same whether a session comes whole or in pieces. So does the paper
//! with the lines of a user.
//!
//! The attention is evidence, but not yet an explanation: a model may attend to what does not matter to it. So an
//! explanation is put to the test: the symbols with most of the attention are masked, and the score must fall by more than
//! when as many others are. The figure `faithfulness` is the difference in nats; at or below zero the heat map is not to be
//! trusted. At the token level it is about the most surprising word of the line.
//!
//! Cost: 0.1 MFLOP a prediction and side, `lines` times as much again with tiers over words; predictions are kept in an exact
//! cache by context, or by line. Training sees each distinct context once an epoch. Memory: the cache, 64 MiB at most.
//!
//! When it fails: at the template level as DeepLog does, on templates that churn and on sessions that interleave unrelated
//! work; in both directions a record is there judged `window` records late, because its followers must be known first, and
//! a record that follows from an anomaly may be excused by it. At the token level on all that is wrong but worded as
//! usual: known records missing, repeated or in disorder. Where no template has a text (event numbers), it cannot be fitted.
//!
//! Differences from the paper:
//! - Its figures are for users and days of the LANL authentication log, which is not among our data: neither level has been
//!   held against them. Its lines have fields of fixed meaning, and it reads their values; ours are masked.
//! - A symbol is predicted from a bounded context of `window` symbols a side, so that a prediction can be cached; with
//!   tiers over words of `lines` lines as well, where the paper's upper tier remembers all of a user's day.
//! - Symbols are masked at random in training, with the symbol that also stands for what is unknown: something masked is then
//!   something that the model knows, and not a novelty of its own.
//! - `<sos>` and `<eos>` are one symbol, the outside. An unknown word is predicted only where training held some (beyond
//!   `max_words`, or templates without a text); where it held none, such a word surprises by 12 nats, as one of the
//!   160,000 that it might be, and no word surprises by more. The paper has no bound.
//! - The forget gates begin nearly shut, so that the attention rather than the LSTM learns to reach back. Begun open, as
//!   is usual, the states that follow a record carry it along, and the attention may settle on any of them. That it still
//!   can is why faithfulness is measured for each finding.
//! - The end of a session is predicted as a template is; contexts (at the token level: lines) are weighted
//!   `count^tempering`; both as in DeepLog here.
//! - In both directions each side has an attention of its own; evidence shows the mean of the two. With tiers over words both
//!   sides read the lines before, and none the lines after.
//! - It is fitted once, not day by day; `learn` does nothing.

mod contexts;
mod kernel;
mod lines;
mod look;
mod net;
mod shape;
mod state;
mod templates;
mod tokens;
mod words;

use std::ops::Range;

use faultline_core::{Detector, DetectorError, Evidence, LogWindow, Score, Signal, Window, hash::StableHash};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::{
    contexts::Vocabulary, kernel::Predictor, net::Schedule, shape::Shape, templates::Templates, tokens::Tokens,
    words::Words,
};
use crate::{algorithm::Algorithm, language::Examples, ranges::Ranges};

/// What the model reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// The records of a session, by their templates.
    #[default]
    Template,
    /// The words of a line, which is the text of its template.
    Token,
}

/// Where the attention's query comes from: the paper's five variants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Attention {
    /// One learned query for every prediction.
    #[serde(rename = "fixed")]
    Fixed,
    /// One learned query for each position in the session or the line, up to `window`.
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

/// What a prediction rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// What comes before.
    Forward,
    /// What comes before and after. A record is judged when `window` more have come or the session has ended; a line at once.
    Bidirectional,
}

/// Hyperparameters of [`AttentionRnn`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// What the model reads: `template`, the order of a session's records; `token`, the words of each line, which needs texts
    /// of templates. The other keys speak of symbols where they mean either.
    pub level: Level,
    /// Where the attention's query comes from: `fixed`, `syntax`, `semantic-1`, `semantic-2` or `tiered`.
    pub attention: Attention,
    /// `forward`, or `bidirectional` to judge by what follows as well: a record `window` records later, a word at once.
    pub direction: Direction,
    /// Symbols on each side of the judged one that the model sees.
    pub window: usize,
    /// Records in a segment of the `tiered` variant at the template level, less than `window`. The others ignore it.
    pub segment: usize,
    /// Lines before the judged one that the `tiered` variant reads at the token level, the first `window` words of each. The
    /// others ignore it.
    pub lines: usize,
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
    /// A context (at the token level: a line) that occurred n times weighs n to this power: 1 as it is, 0 all alike.
    pub tempering: f64,
    /// Probability with which a symbol of a context is masked in training. Without it, masking says nothing about
    /// faithfulness.
    pub masking: f64,
    /// Templates the model knows, the most frequent first; others count as unseen. At the token level those whose wording is
    /// kept as training had it; others are read as they are worded when they come.
    pub max_templates: usize,
    /// Words the token level knows, the most frequent first.
    pub max_words: usize,
    /// Distinct contexts kept for training, the most frequent first: a memory bound.
    pub max_contexts: usize,
    /// Contexts computed in all of training, a time bound. One in both directions counts twice, and one of tiers over words
    /// once more for each of `lines`.
    pub max_training_windows: usize,
    /// Contexts (at the token level: lines) whose predictions are kept, a memory bound as are 64 MiB; the cache is emptied
    /// when it is full.
    pub cache_contexts: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            level: Level::Template,
            attention: Attention::Semantic1,
            direction: Direction::Forward,
            window: 10,
            segment: 4,
            lines: 3,
            hidden: 32,
            attention_width: 16,
            epochs: 20,
            batch: 128,
            learning_rate: 1e-2,
            tempering: 0.3,
            masking: 0.15,
            max_templates: 1024,
            max_words: 4096,
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

/// Surprise at what the model holds to be impossible, nats, and at a template that training did not hold. No surprise counts
/// for more.
const MAX_NLL: f32 = 30.0;

/// The same of words: one of 160,000. It is less, so that a single strange word does not make a line strange.
const MAX_WORD_NLL: f32 = 12.0;

/// Bytes that the cache may take, however many contexts the configuration allows.
const MAX_CACHE_BYTES: usize = 64 << 20;

/// Symbols whose attention is listed in the figures, the most attended first.
const MAX_ATTENDED: usize = 8;

/// Symbols must stay below 2^16.
const MAX_TEMPLATES: usize = 65_000;

/// Words, at most. What the network puts out for the words of a few lines is held in memory.
const MAX_VOCABULARY: usize = 16_384;

/// Symbols on a side of a context, at most.
const MAX_SIDE: usize = 1024;

/// A fitted model.
#[derive(Debug)]
pub struct Model {
    config: Config,
    version: u64,
    weights: Vec<f32>,
    predictor: Predictor,
    reader: Reader,
}

/// How windows become symbols.
#[derive(Debug)]
enum Reader {
    Templates(Templates),
    Tokens(Tokens),
}

impl Reader {
    /// What `windows` hold to be learned, and how it is read; or why there is nothing.
    fn of(config: &Config, windows: &[&LogWindow<'_>]) -> Result<(Self, Examples), &'static str> {
        if windows.iter().all(|log| log.fresh_records().is_empty()) {
            return Err("no training window holds a record");
        }
        match config.level {
            Level::Template => {
                let vocabulary = Vocabulary::of(config, windows);
                let examples = contexts::examples_of(config, &vocabulary, windows);
                Ok((Self::Templates(Templates::new(config, vocabulary)), examples))
            }
            Level::Token => {
                let words = Words::of(config, windows).ok_or(
                    "key `level`: `token` reads the texts of templates, and no template of the training has one; \
                     `template` needs none",
                )?;
                let tokens = Tokens::new(config, words);
                let examples = lines::examples_of(config, &tokens.words, &tokens.layout, windows);
                Ok((Self::Tokens(tokens), examples))
            }
        }
    }

    fn shape(&self) -> Shape {
        match self {
            Self::Templates(templates) => templates.shape,
            Self::Tokens(tokens) => tokens.layout.shape,
        }
    }
}

impl Algorithm for AttentionRnn {
    const NAME: &'static str = "attention-rnn";
    const SUMMARY: &'static str =
        "a template, or a word of one, that an LSTM with attention did not expect; shows what it looked at";
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
        let (reader, examples) = Reader::of(config, &windows).map_err(refuse)?;
        if examples.next.is_empty() {
            return Err(refuse("no training window holds a record that can be judged"));
        }
        let shape = reader.shape();
        let n_contexts = examples.next.len();
        let n_steps = (config.epochs * n_contexts.div_ceil(config.batch)).max(MIN_STEPS);
        let windows_a_context = shape.context_length() / config.window;
        let n_steps =
            n_steps.min(config.max_training_windows.div_ceil(windows_a_context * config.batch.min(n_contexts)));
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
        let mut model = Model::new(config, 0, reader, weights);
        model.version = StableHash::new().bytes(&state::encode(&model)?).text(&format!("{config:?}")).finish();
        Ok(model)
    }

    fn load(config: &Config, snapshot: &[u8]) -> Result<Model, DetectorError> {
        check(config)?;
        state::decode(config, snapshot)
    }
}

fn check(config: &Config) -> Result<(), DetectorError> {
    let ranges = Ranges(AttentionRnn::NAME);
    ranges.within([
        ("window", config.window, 1..=256),
        ("segment", config.segment, 1..=256),
        ("lines", config.lines, 1..=64),
        ("hidden", config.hidden, 1..=1024),
        ("attention_width", config.attention_width, 1..=1024),
        ("epochs", config.epochs, 1..=10_000),
        ("batch", config.batch, 1..=8192),
        ("max_templates", config.max_templates, 1..=MAX_TEMPLATES),
        ("max_words", config.max_words, 1..=MAX_VOCABULARY),
        ("max_contexts", config.max_contexts, 1..=10_000_000),
        ("max_training_windows", config.max_training_windows, 1..=usize::MAX),
        ("cache_contexts", config.cache_contexts, 1..=10_000_000),
    ])?;
    ranges.within([("tempering", config.tempering, 0.0..=1.0), ("masking", config.masking, 0.0..=0.9)])?;
    ranges.above_zero("learning_rate", config.learning_rate)?;
    let (window, segment, lines) = (config.window, config.segment, config.lines);
    match config.level {
        _ if config.attention != Attention::Tiered => Ok(()),
        Level::Template if segment >= window => {
            Err(ranges.refuse("segment", &format!("{segment} is not less than `window` {window}")))
        }
        Level::Token if (lines + 1) * window > MAX_SIDE => {
            let n_words = (lines + 1) * window;
            Err(ranges
                .refuse("lines", &format!("with `window` {window} these are {n_words} words, not up to {MAX_SIDE}")))
        }
        _ => Ok(()),
    }
}

/// Ranges of consecutive sizes whose sum is no more than `most`, or of one that is more by itself.
fn groups(sizes: &[usize], most: usize) -> Vec<Range<usize>> {
    let mut groups = Vec::new();
    let mut begin = 0;
    while begin < sizes.len() {
        let (mut end, mut sum) = (begin + 1, sizes[begin]);
        while end < sizes.len() && sum + sizes[end] <= most {
            sum += sizes[end];
            end += 1;
        }
        groups.push(begin..end);
        begin = end;
    }
    groups
}

impl Model {
    fn new(config: &Config, version: u64, reader: Reader, weights: Vec<f32>) -> Self {
        let predictor = Predictor::new(reader.shape(), &weights);
        Self { config: config.clone(), version, weights, predictor, reader }
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
        match &mut self.reader {
            Reader::Templates(templates) => templates.score(&self.predictor, windows, scores),
            Reader::Tokens(tokens) => tokens.score(&self.predictor, windows, scores),
        }
    }

    fn explain(&self, window: &Window<'_>, score: &Score) -> Evidence {
        let culprit = score.culprit;
        let Some(log) = window.as_log().filter(|log| culprit < log.records.len()) else {
            return Evidence { summary: "the window holds no record".to_owned(), ..Evidence::default() };
        };
        match &self.reader {
            Reader::Templates(templates) => templates.explain(&self.predictor, self.version, log, culprit),
            Reader::Tokens(tokens) => tokens.explain(&self.predictor, self.version, log, culprit),
        }
    }

    /// Does nothing: learning from every window would let a patient attacker teach the model.
    fn learn(&mut self, _windows: &[Window<'_>]) {}

    fn snapshot(&self) -> Result<Vec<u8>, DetectorError> {
        state::encode(self)
    }
}

#[cfg(test)]
mod tests;
