//! DeepLog at work: scores of windows from predictions that are cached by context, and from forecasts of parameters.
//!
//! The cache is an automaton: a known context and the next symbol lead to the next known context without a hash. What
//! is missing is computed for all windows of a call together, whatever sessions they belong to.

use std::f64::consts::LN_2;

use faultline_core::{Score, Window};
use rustc_hash::FxHashMap;

use super::{Model, net::Symbol, snapshot::Learned, values::Finding};

/// The paper's g, for which a score is a rank.
pub const PAPER_G: usize = 9;

/// Negative log-likelihood of what the model holds to be impossible, nats. No surprise counts for more.
pub const MAX_NLL: f64 = 30.0;

/// What such a surprise scores.
const WORST: f64 = MAX_NLL / LN_2;

/// The end of a session is as odd as rank g + 1 where 1 session in 128 ends: 7 ln 2 nats.
const END_NLL: f64 = 7.0 * LN_2;

/// What is known of contexts, a row each. Exact: a row says what the network says.
#[derive(Debug, Default)]
pub struct Cache {
    row_of: FxHashMap<Box<[Symbol]>, usize>,
    /// Scores of every template that may come next, and of the end.
    scores: Vec<f32>,
    /// The row of the context that a symbol leads to, where it has been looked up once: records of a known path then
    /// cost an array lookup instead of a hash of their context.
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
pub struct Scratch {
    /// The padded symbols of the windows, one window after another.
    symbols: Vec<Symbol>,
    /// For each prediction its row in the cache.
    rows: Vec<usize>,
}

/// How one prediction turned out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Surprise {
    /// What came.
    pub what: What,
    /// 1 for the likeliest.
    pub rank: usize,
    /// Negative log-likelihood, nats.
    pub nll: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A template of the vocabulary.
    Known,
    /// A template outside it.
    Unseen,
    /// The end of the session.
    End,
}

impl Surprise {
    /// `log_probabilities` holds those of the known templates, then that of the end. `next` is none for the end.
    pub fn of(next: Option<Symbol>, log_probabilities: &[f32]) -> Self {
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

    /// The rank, moved so that a score from 10 to 11 means rank g + 1. The fraction orders equal ranks by likelihood.
    pub fn score(self, g: usize) -> f64 {
        let by_rank = self.rank as f64 + self.nll / (1.0 + self.nll) + PAPER_G as f64 - g as f64;
        match self.what {
            What::Known => by_rank,
            What::Unseen => by_rank.max(WORST),
            What::End => (10.0 + 2.0 * (self.nll - END_NLL) / LN_2).clamp(1.0, WORST),
        }
    }
}

/// What a finding about a parameter scores: 10 at the confidence given, and two more for each halving beyond.
pub fn value_score(finding: &Finding, confidence: f64) -> f64 {
    let at_confidence = -(1.0 - confidence).ln();
    (10.0 + 2.0 * (finding.nll - at_confidence) / LN_2).clamp(1.0, WORST)
}

impl Model {
    /// Scores `windows`, of which no more than the cache holds contexts are new to it.
    pub(super) fn score_group(&mut self, windows: &[Window<'_>], scores: &mut Vec<Option<Score>>) {
        let Self { config, learned: Learned { vocabulary, g, values, .. }, predictor, cache, scratch, .. } = self;
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
            push_scores(row, *g, &mut cache.scores);
        }
        let first = scores.len();
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
                        unseen_score(n_outputs, *g)
                    };
                    if worst.is_none_or(|worst| value > worst.value) {
                        // The end of the session is the doing of its last record.
                        worst = Some(Score { value, culprit: position.min(log.records.len() - 1) });
                    }
                }
            }
            scores.push(worst);
        }
        let confidence = config.value_confidence;
        values.judge(windows, |idx, culprit, finding| {
            let value = value_score(&finding, confidence);
            let is_judged = windows[idx].as_log().is_some_and(|log| vocabulary.positions(log, h).contains(&culprit));
            if let Some(worst) = scores[first + idx].as_mut()
                && is_judged
                && value > worst.value
            {
                *worst = Score { value, culprit };
            }
        });
    }

    /// Scores `windows` in groups, each as large as the cache allows.
    pub(super) fn score_all(&mut self, windows: &[Window<'_>], scores: &mut Vec<Option<Score>>) {
        let n_positions = |window: &Window<'_>| {
            window.as_log().map_or(0, |log| self.learned.vocabulary.positions(log, self.config.window).len())
        };
        let sizes: Vec<usize> = windows.iter().map(n_positions).collect();
        let max_rows =
            (MAX_CACHE_BYTES / (8 * self.learned.vocabulary.n_symbols())).clamp(1, self.config.cache_contexts);
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
}

/// What a template outside the vocabulary scores, rounded as the others are.
pub fn unseen_score(n_outputs: usize, g: usize) -> f64 {
    let surprise = Surprise { what: What::Unseen, rank: n_outputs + 1, nll: MAX_NLL };
    f64::from(surprise.score(g) as f32)
}

/// Appends the score of every symbol, and last that of the end, given their log-probabilities.
pub fn push_scores(log_probabilities: &[f32], g: usize, scores: &mut Vec<f32>) {
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
        scores[first + symbol] = surprise.score(g) as f32;
    }
}
