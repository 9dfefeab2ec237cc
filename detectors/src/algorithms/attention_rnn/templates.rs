//! The template level of the attention model at work: a record is a symbol, a session the text. What the network says of
//! a context is kept; what is missing is computed for all windows of a call together.

use std::collections::BTreeMap;

use faultline_core::{Evidence, Expected, LogWindow, Score, Window, hash::StableHash};
use rustc_hash::FxHashMap;

use super::{
    Config, MAX_ATTENDED, MAX_CACHE_BYTES, MAX_NLL,
    contexts::{Reading, Vocabulary},
    groups,
    kernel::Predictor,
    look::{Look, surprise},
    shape::{Shape, Symbol},
};
use crate::evidence;

/// Expectations that an alert lists.
const MAX_EXPECTED: usize = 5;

/// What the template level knows beside its network.
#[derive(Debug)]
pub struct Templates {
    pub vocabulary: Vocabulary,
    pub shape: Shape,
    /// Rows that the cache may have.
    max_rows: usize,
    cache: Cache,
}

/// What is known of contexts. Exact: a row says what the network says.
#[derive(Debug, Default)]
struct Cache {
    row_of: FxHashMap<Box<[Symbol]>, usize>,
    /// For each row the surprise of every output symbol, nats.
    surprises: Vec<f32>,
}

impl Templates {
    pub fn new(config: &Config, vocabulary: Vocabulary) -> Self {
        let shape = vocabulary.shape(config);
        let row_bytes = 4 * shape.n_outputs() + 2 * shape.context_length() + 48;
        let max_rows = (MAX_CACHE_BYTES / row_bytes).clamp(1, config.cache_contexts);
        Self { vocabulary, shape, max_rows, cache: Cache::default() }
    }

    /// The surprise of the most surprising judged record, nats.
    pub fn score(&mut self, predictor: &Predictor, windows: &[Window<'_>], scores: &mut Vec<Option<Score>>) {
        let n_judged =
            |window: &Window<'_>| window.as_log().map_or(0, |log| self.vocabulary.judged(self.shape, log).len());
        let sizes: Vec<usize> = windows.iter().map(n_judged).collect();
        for group in groups(&sizes, self.max_rows) {
            let n_contexts: usize = sizes[group.clone()].iter().sum();
            if self.cache.row_of.len() + n_contexts > self.max_rows {
                self.cache = Cache::default();
            }
            self.score_group(predictor, &windows[group], scores);
        }
    }

    /// Scores `windows`, of which no more than the cache holds contexts are new to it.
    fn score_group(&mut self, predictor: &Predictor, windows: &[Window<'_>], scores: &mut Vec<Option<Score>>) {
        let shape = self.shape;
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
        let predicted = predictor.predict(&missing).log_probabilities;
        self.cache.surprises.extend(predicted.iter().map(|&log_probability| surprise(log_probability, MAX_NLL)));
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
    fn look(&self, predictor: &Predictor, reading: &Reading, position: usize) -> Look {
        let mut context = Vec::new();
        reading.context_into(position, &mut context);
        let is_there = |idx: usize| reading.record_of(position, idx).is_some();
        Look::of(predictor, context, reading.next(position), MAX_NLL, is_there)
    }

    /// Why the record at `culprit` of `log` was a surprise to the model of this version.
    pub fn explain(&self, predictor: &Predictor, version: u64, log: &LogWindow<'_>, culprit: usize) -> Evidence {
        let record = log.records[culprit];
        let reading = self.vocabulary.read(self.shape, log);
        // Where the last record is the culprit, it or the end after it decided: whichever was the greater surprise.
        let candidates = reading
            .judged
            .clone()
            .filter(|&position| position == culprit || (position == log.records.len() && culprit + 1 == position));
        let looks = candidates.map(|position| (position, self.look(predictor, &reading, position)));
        let Some((position, look)) = looks.reduce(|best, own| if own.1.nll > best.1.nll { own } else { best }) else {
            return Evidence {
                summary: "nothing of the window is there to be judged".to_owned(),
                ..Evidence::default()
            };
        };
        let template_of = |symbol: usize| self.vocabulary.templates.get(symbol).copied();
        let order = look.expected();
        let expected = order
            .iter()
            .filter_map(|&(symbol, probability)| Some(Expected { template: template_of(symbol)?, probability }))
            .take(MAX_EXPECTED)
            .collect();
        let likeliest = match template_of(order[0].0) {
            Some(template) => format!("template {template}"),
            None => "the end of the session".to_owned(),
        };
        let likeliest = format!("{likeliest} was likeliest with {:.1} %", 100.0 * order[0].1);
        let percent = 100.0 * (-look.nll).exp();
        let is_end = position == log.records.len();
        let template = record.template;
        let mut summary = if is_end {
            format!("the session ended after template {template}, held to be {percent:.2} % likely; {likeliest}")
        } else if look.is_unseen() {
            format!("template {template} never occurred in training; {likeliest}")
        } else {
            format!("template {template} was held to be {percent:.2} % likely in its place; {likeliest}")
        };
        let mut figures: BTreeMap<String, f64> = [
            ("nll".to_owned(), look.nll),
            ("rank".to_owned(), look.rank() as f64),
            ("n_symbols".to_owned(), order.len() as f64),
        ]
        .into();
        let attended: Vec<(usize, f64)> = look
            .attended
            .iter()
            .filter_map(|attended| Some((reading.record_of(position, attended.idx)?, attended.weight)))
            .take(MAX_ATTENDED)
            .collect();
        for (at, weight) in &attended {
            figures.insert(format!("attention_record_{}", log.records[*at].record), *weight);
        }
        let (highlighted, share) = look.highlighted();
        if let Some((first, _)) = attended.first() {
            let (seen, share) = (log.records[*first].template, 100.0 * share);
            summary += &match highlighted.len() {
                1 => format!("; {share:.0} % of the attention was on template {seen}"),
                n => format!("; {share:.0} % of the attention was on {n} records, template {seen} first"),
            };
        }
        let seed = StableHash::new().number(version).number(record.record).finish();
        look.test_by_masking(predictor, seed, &mut figures);
        let shown = attended.iter().map(|(at, _)| log.records[*at].record);
        Evidence {
            summary,
            seen: (!is_end).then_some(template),
            expected,
            culprit: Some(record.record),
            records: evidence::around(log.records, culprit, shown),
            figures,
        }
    }

    /// Contexts that are cached.
    #[cfg(test)]
    pub fn n_cached(&self) -> usize {
        self.cache.row_of.len()
    }
}
