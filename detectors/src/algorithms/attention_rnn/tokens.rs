//! The token level of the attention model at work: a word is a symbol, a line the text. What a line scores is kept by line,
//! and with tiers by the lines before it as well; what is missing is computed for all windows of a call together.

use std::collections::BTreeMap;

use faultline_core::{Evidence, LogWindow, RecordId, Score, Window, hash::StableHash};
use rustc_hash::FxHashMap;

use super::{
    Config, MAX_ATTENDED, MAX_CACHE_BYTES, MAX_WORD_NLL, groups,
    kernel::Predictor,
    lines::{Layout, Lines, Place},
    look::{Look, surprise},
    shape::Symbol,
    words::{MAX_WORDS, Words, shortened},
};
use crate::evidence;

/// Runs of lines whose words share a call of the network: a bound on what it puts out.
const RUNS: usize = 16;

/// Words whose surprise is listed in the figures, the most surprising first.
const MAX_LISTED: usize = 8;

/// What the token level knows beside its network.
#[derive(Debug)]
pub struct Tokens {
    pub words: Words,
    pub layout: Layout,
    /// Rows that the cache may have.
    max_rows: usize,
    cache: Cache,
}

/// What is known of runs of lines. Exact: a row says what the network says.
#[derive(Debug, Default)]
struct Cache {
    lines: Lines,
    row_of: FxHashMap<Box<[usize]>, usize>,
    /// For each row the mean surprise of the words of the judged line, nats.
    surprises: Vec<f64>,
}

impl Tokens {
    pub fn new(config: &Config, words: Words) -> Self {
        let layout = Layout::of(config, &words);
        // A key and its place, and at worst a line of its own.
        let row_bytes = 8 * (layout.n_before + 1) + 2 * MAX_WORDS + 128;
        let max_rows = (MAX_CACHE_BYTES / row_bytes).clamp(1, config.cache_contexts);
        Self { words, layout, max_rows, cache: Cache::default() }
    }

    /// The surprise of the most surprising judged line, nats a word.
    pub fn score(&mut self, predictor: &Predictor, windows: &[Window<'_>], scores: &mut Vec<Option<Score>>) {
        // Half of the cache is for what is known, half for what a group of windows may bring.
        let half = (self.max_rows / 2).max(1);
        let sizes: Vec<usize> =
            windows.iter().map(|window| window.as_log().map_or(0, |log| log.records.len())).collect();
        for group in groups(&sizes, half) {
            if self.cache.row_of.len().max(self.cache.lines.n_lines()) > half {
                self.cache = Cache::default();
            }
            self.score_group(predictor, &windows[group], scores);
        }
    }

    fn score_group(&mut self, predictor: &Predictor, windows: &[Window<'_>], scores: &mut Vec<Option<Score>>) {
        let Self { words, layout, cache, .. } = self;
        let mut missing: Vec<Box<[usize]>> = Vec::new();
        // For each judged record its row in the cache.
        let mut rows: Vec<usize> = Vec::new();
        let mut numbers = Vec::new();
        for log in windows.iter().filter_map(Window::as_log) {
            for key in cache.lines.keys(words, layout, log, &mut numbers) {
                let n_rows = cache.row_of.len();
                let row = cache.row_of.get(key).copied().unwrap_or_else(|| {
                    missing.push(key.into());
                    cache.row_of.insert(key.into(), n_rows);
                    n_rows
                });
                rows.push(row);
            }
        }
        for keys in missing.chunks(RUNS) {
            let runs: Vec<Vec<&[Symbol]>> = keys.iter().map(|key| cache.lines.run(key)).collect();
            cache.surprises.extend(surprises_of(predictor, layout, &runs));
        }
        let mut rows = rows.into_iter();
        for window in windows {
            let mut worst: Option<Score> = None;
            if let Some(log) = window.as_log() {
                for (culprit, row) in layout.judged(log).zip(&mut rows) {
                    let value = cache.surprises[row];
                    if worst.is_none_or(|worst| value > worst.value) {
                        worst = Some(Score { value, culprit });
                    }
                }
            }
            scores.push(worst);
        }
    }

    /// Why the line of the record at `culprit` of `log` was a surprise to the model of this version.
    pub fn explain(&self, predictor: &Predictor, version: u64, log: &LogWindow<'_>, culprit: usize) -> Evidence {
        let (words, layout) = (&self.words, &self.layout);
        let record = log.records[culprit];
        let first = culprit.saturating_sub(layout.n_before);
        let lines: Vec<Box<[Symbol]>> =
            log.records[first..=culprit].iter().map(|record| words.line(log, record.template)).collect();
        let mut run: Vec<&[Symbol]> = vec![&[][..]; layout.n_before - (culprit - first)];
        run.extend(lines.iter().map(|line| &line[..]));
        let line = run[layout.n_before];
        let looks: Vec<Look> =
            layout.positions(line.len()).map(|position| look(predictor, layout, &run, position)).collect();
        let mut order: Vec<usize> = (0..looks.len()).collect();
        order.sort_by(|&a, &b| looks[b].nll.total_cmp(&looks[a].nll));
        let (position, own) = (order[0], &looks[order[0]]);
        let shown = words.shown(log, record.template, line);
        let mean = looks.iter().map(|look| look.nll).sum::<f64>() / looks.len() as f64;
        let mut figures: BTreeMap<String, f64> = [
            ("nll".to_owned(), mean),
            ("n_words".to_owned(), line.len() as f64),
            ("word".to_owned(), (position + 1) as f64),
            ("word_nll".to_owned(), own.nll),
            ("rank".to_owned(), own.rank() as f64),
            ("n_symbols".to_owned(), layout.shape.n_outputs() as f64),
        ]
        .into();
        for &position in order.iter().take(MAX_LISTED) {
            figures.insert(format!("nll_word_{}", position + 1), looks[position].nll);
        }
        let places: Vec<(Place, f64)> = own
            .attended
            .iter()
            .filter_map(|attended| Some((layout.place_of(&run, position, attended.idx)?, attended.weight)))
            .collect();
        let mut deciding: Vec<RecordId> = Vec::new();
        for (place, weight) in places.iter().take(MAX_ATTENDED) {
            let name = if place.back == 0 {
                format!("attention_word_{}", place.word + 1)
            } else {
                let before = log.records[culprit - place.back].record;
                deciding.push(before);
                format!("attention_record_{before}")
            };
            *figures.entry(name).or_default() += weight;
        }
        let seed = StableHash::new().number(version).number(record.record).finish();
        own.test_by_masking(predictor, seed, &mut figures);
        let mut summary = match log.templates.get(record.template) {
            None if !words.wordings.contains_key(&record.template) => {
                format!("template {} has no text and is read as an unknown word: ", record.template)
            }
            _ => format!("template {} reads unlike training, {mean:.2} nats a word: ", record.template),
        };
        summary += &self.what_came(own, position, shown.get(position));
        if let Some((place, _)) = places.first() {
            let (highlighted, share) = own.highlighted();
            let template = log.records[culprit - place.back].template;
            let text =
                if place.back == 0 { shown } else { words.shown(log, template, run[layout.n_before - place.back]) };
            let of = if place.back == 0 { String::new() } else { format!(" of template {template} before") };
            let first = format!("word {} `{}`{of}", place.word + 1, text[place.word]);
            let share = 100.0 * share;
            summary += &match highlighted.len() {
                1 => format!("; {share:.0} % of the attention was on {first}"),
                n => format!("; {share:.0} % of the attention was on {n} words, {first} first"),
            };
        }
        Evidence {
            summary,
            seen: Some(record.template),
            expected: Vec::new(),
            culprit: Some(record.record),
            records: evidence::around(log.records, culprit, deciding.into_iter()),
            figures,
        }
    }

    /// What came at a position, and what was expected; `word` is none for the end.
    fn what_came(&self, look: &Look, position: usize, word: Option<&String>) -> String {
        let percent = 100.0 * (-look.nll).exp();
        let came = match word {
            None => format!("its end after word {position} was held to be {percent:.2} % likely"),
            Some(word) if look.is_unseen() => format!("word {} `{word}` never occurred in training", position + 1),
            Some(word) if look.next == self.layout.shape.unknown() => {
                format!(
                    "word {} `{word}` is new or rare, and any such was held to be {percent:.2} % likely",
                    position + 1
                )
            }
            Some(word) => format!("word {} `{word}` was held to be {percent:.2} % likely", position + 1),
        };
        let expected = look.expected();
        let (symbol, probability) = expected[0];
        let likeliest = match self.words.words.get(symbol) {
            Some(word) => format!("`{}`", shortened(word)),
            None if symbol == usize::from(self.layout.shape.outside()) => "its end".to_owned(),
            None => "a new or rare word".to_owned(),
        };
        format!("{came}; {likeliest} was likeliest with {:.1} %", 100.0 * probability)
    }

    /// Runs of lines that are cached.
    #[cfg(test)]
    pub fn n_cached(&self) -> usize {
        self.cache.row_of.len()
    }
}

/// What was expected at a position of the last line of `run`, and where the attention went.
fn look(predictor: &Predictor, layout: &Layout, run: &[&[Symbol]], position: usize) -> Look {
    let mut context = Vec::new();
    layout.context_into(run, position, &mut context);
    let next = layout.next(run[layout.n_before], position);
    Look::of(predictor, context, next, MAX_WORD_NLL, |idx| layout.place_of(run, position, idx).is_some())
}

/// For each run the mean surprise at the words of its last line, nats.
fn surprises_of(predictor: &Predictor, layout: &Layout, runs: &[Vec<&[Symbol]>]) -> Vec<f64> {
    let shape = layout.shape;
    let mut contexts: Vec<Symbol> = Vec::new();
    let mut next: Vec<Symbol> = Vec::new();
    let mut ends: Vec<usize> = Vec::with_capacity(runs.len());
    for run in runs {
        let line = run[layout.n_before];
        for position in layout.positions(line.len()) {
            layout.context_into(run, position, &mut contexts);
            next.push(layout.next(line, position));
        }
        ends.push(next.len());
    }
    let contexts: Vec<&[Symbol]> = contexts.chunks_exact(shape.context_length()).collect();
    let predicted = predictor.predict(&contexts).log_probabilities;
    let rows = predicted.chunks_exact(shape.n_outputs()).zip(&next);
    let nlls: Vec<f64> = rows
        .map(|(row, next)| row.get(usize::from(*next)).map_or(MAX_WORD_NLL, |&own| surprise(own, MAX_WORD_NLL)))
        .map(f64::from)
        .collect();
    let mut begin = 0;
    ends.into_iter()
        .map(|end| {
            let own = &nlls[begin..end];
            begin = end;
            own.iter().sum::<f64>() / own.len() as f64
        })
        .collect()
}
