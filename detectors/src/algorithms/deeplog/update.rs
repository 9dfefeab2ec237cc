//! DeepLog's online update: what a person marks as a false positive becomes normal, without fitting anew.
//!
//! Du et al. 2017, section 3.3: when a detected anomaly is reported to be a false positive, the weights are adjusted
//! so that the model gives the actual outcome a higher likelihood in that context. Here: the network trains on the
//! contexts of the marked windows, together with the most frequent contexts of the fit and those of earlier reports,
//! which keep it from forgetting (the paper does not say what does), until all of the marked records are within the
//! top g or `update_steps` are taken. A template that the model did not know gets an input and an output first.
//! Elapsed times and numbers of marked records widen the intervals of their value model.
//!
//! Workflows stay as they were mined: one report does not change what sessions usually do.
//!
//! Cost: at most `update_steps` optimizer steps, 25,600 contexts at the defaults. Deterministic: a model and
//! a report give one new model, of a new version. Who may report, and how often, is for the caller to say: a report
//! is trusted.

use faultline_core::{LogWindow, TemplateId, Window, hash::StableHash};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::{
    Model,
    kernel::Predictor,
    net::{self, Examples, Schedule, Shape, Symbol},
    serve::{Cache, PAPER_G, Surprise, value_score},
    snapshot::encode,
    vocabulary::{Vocabulary, examples_of},
};

/// Steps between looks at whether the report is learned.
const ROUND: usize = 10;

/// An update's share of the fit's step size.
const RATE: f64 = 0.2;

/// What an update came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Update {
    /// Records, and ends of sessions, of the report that scored as anomalies before.
    pub n_before: usize,
    /// Of the report, how many still do.
    pub n_after: usize,
    /// Templates the model did not know.
    pub n_new_templates: usize,
    /// Optimizer steps taken.
    pub n_steps: usize,
}

impl Model {
    /// Takes windows that were marked as false positives for normal: nothing in them is to score `cut` or more, the raw
    /// score from which on they became alerts (10 by the paper's rule). The version changes where anything was to be
    /// learned.
    pub fn update(&mut self, false_positives: &[Window<'_>], cut: f64) -> Update {
        let windows: Vec<&LogWindow<'_>> = false_positives.iter().filter_map(Window::as_log).collect();
        let mut update =
            Update { n_before: self.n_surprising(&windows, cut), n_after: 0, n_new_templates: 0, n_steps: 0 };
        if update.n_before == 0 {
            return update;
        }
        update.n_new_templates = self.make_room(&windows);
        for log in &windows {
            for at in log.fresh..log.records.len() {
                if self.is_odd_value(log, at, cut) {
                    self.learned.values.admit(log, at);
                }
            }
        }
        let shape = self.learned.vocabulary.shape(&self.config);
        let report = examples_of(&self.config, &self.learned.vocabulary, &windows);
        let examples = rehearsed_with(&self.learned.rehearsed, &report);
        let schedule = Schedule {
            steps: 0..ROUND,
            // The step size hardly falls: how long it takes is not known beforehand.
            n_steps: 10 * self.config.update_steps.max(ROUND),
            batch: self.config.batch,
            learning_rate: self.config.learning_rate * RATE,
        };
        let mut rng = ChaCha8Rng::seed_from_u64(self.version);
        while self.n_odd_keys(&windows, cut) > 0 && update.n_steps + ROUND <= self.config.update_steps {
            let weights = net::train(shape, &self.learned.weights, &examples, &schedule, &mut rng);
            if !weights.iter().all(|weight| weight.is_finite()) {
                break;
            }
            self.set_weights(shape, weights);
            update.n_steps += ROUND;
        }
        // So that the next update does not undo this one. The rarest contexts of the fit make room.
        let cap = self.config.rehearsed_contexts;
        let mut rehearsed = report.first(cap / 2, shape.window);
        rehearsed.extend(&self.learned.rehearsed);
        self.learned.rehearsed = rehearsed.first(cap, shape.window);
        self.cache = Cache::default();
        self.version = StableHash::new().number(self.version).bytes(&encode(shape, &self.learned, 0)).finish();
        update.n_after = self.n_surprising(&windows, cut);
        update
    }

    /// Gives the templates of `windows` that are not in the vocabulary a place in it and in the network, as far as
    /// `max_templates` allows. Returns how many.
    fn make_room(&mut self, windows: &[&LogWindow<'_>]) -> usize {
        let old = &self.learned.vocabulary;
        let fresh = windows.iter().flat_map(|log| log.fresh_records()).map(|record| record.template);
        let mut new: Vec<TemplateId> = fresh.filter(|template| !old.symbols.contains_key(template)).collect();
        new.sort_unstable();
        new.dedup();
        new.truncate(self.config.max_templates.saturating_sub(old.templates.len()));
        if new.is_empty() {
            return 0;
        }
        let templates = old.templates.iter().chain(&new).copied().collect();
        let vocabulary = Vocabulary::new(templates, old.knows_end);
        // Where each old input and output, the special one last, has moved to.
        let moved = |symbol: usize| match old.templates.get(symbol) {
            Some(template) => usize::from(vocabulary.symbols[template]),
            None if symbol == usize::from(old.unseen()) => usize::from(vocabulary.unseen()),
            None => usize::from(vocabulary.start()),
        };
        let (from, to) = (old.shape(&self.config), vocabulary.shape(&self.config));
        let weights = grown(from, to, &self.learned.weights, moved);
        let rehearsed = &mut self.learned.rehearsed;
        let symbols = rehearsed.contexts.iter_mut();
        symbols.chain(rehearsed.next.iter_mut().flatten().map(|(symbol, _)| symbol)).for_each(|symbol| {
            *symbol = moved(usize::from(*symbol)) as Symbol;
        });
        self.predictor = Predictor::new(to, &weights);
        self.learned.weights = weights;
        self.learned.vocabulary = vocabulary;
        new.len()
    }

    /// Records of `windows`, and ends, that score as anomalies.
    fn n_surprising(&self, windows: &[&LogWindow<'_>], cut: f64) -> usize {
        let odd_values =
            |log: &LogWindow<'_>| (log.fresh..log.records.len()).filter(|&at| self.is_odd_value(log, at, cut)).count();
        self.n_odd_keys(windows, cut) + windows.iter().map(|log| odd_values(log)).sum::<usize>()
    }

    fn is_odd_value(&self, log: &LogWindow<'_>, at: usize, cut: f64) -> bool {
        let finding = self.learned.values.finding(log, at);
        finding.is_some_and(|finding| value_score(&finding, self.config.value_confidence) >= cut)
    }

    fn n_odd_keys(&self, windows: &[&LogWindow<'_>], cut: f64) -> usize {
        windows.iter().flat_map(|log| self.surprises(log)).filter(|score| *score >= cut).count()
    }

    /// The scores of everything that is predicted in `log`, without the cache.
    fn surprises(&self, log: &LogWindow<'_>) -> Vec<f64> {
        let h = self.config.window;
        let padded = self.learned.vocabulary.padded(log, h);
        let positions = self.learned.vocabulary.positions(log, h);
        let contexts: Vec<&[Symbol]> = positions.clone().map(|position| &padded[position..position + h]).collect();
        let rows = self.predictor.log_probabilities(&contexts);
        let n_outputs = self.learned.vocabulary.templates.len() + 1;
        let score = |(position, row): (usize, &[f32])| {
            Surprise::of(padded.get(position + h).copied(), row).score(self.learned.g)
        };
        positions.zip(rows.chunks_exact(n_outputs)).map(score).collect()
    }

    /// The smallest g with which at most a `share` of `windows` hold a known template beyond the top g.
    pub(super) fn calibrated_g(&self, windows: &[&LogWindow<'_>], share: f64) -> usize {
        let h = self.config.window;
        let n_outputs = self.learned.vocabulary.templates.len() + 1;
        let worst_rank = |log: &&LogWindow<'_>| {
            let padded = self.learned.vocabulary.padded(log, h);
            // The end has a scale of its own.
            let positions = log.fresh..log.records.len();
            let contexts: Vec<&[Symbol]> = positions.clone().map(|position| &padded[position..position + h]).collect();
            let rows = self.predictor.log_probabilities(&contexts);
            let ranks = positions.zip(rows.chunks_exact(n_outputs)).filter_map(|(position, row)| {
                let surprise = Surprise::of(Some(padded[position + h]), row);
                (surprise.rank <= n_outputs).then_some(surprise.rank)
            });
            ranks.max().unwrap_or(1)
        };
        let mut ranks: Vec<usize> = windows.iter().map(worst_rank).collect();
        ranks.sort_unstable();
        let n_beyond = (share * ranks.len() as f64) as usize;
        ranks.get(ranks.len().saturating_sub(1 + n_beyond)).copied().unwrap_or(PAPER_G)
    }
}

/// The rehearsed examples and a report, which weighs half as much as all of them.
fn rehearsed_with(rehearsed: &Examples, report: &Examples) -> Examples {
    let total = |examples: &Examples| examples.next.iter().flatten().map(|(_, weight)| weight).sum::<f32>();
    let factor = (0.5 * total(rehearsed) / total(report).max(f32::MIN_POSITIVE)).max(1.0);
    let mut heavier = report.clone();
    heavier.next.iter_mut().flatten().for_each(|(_, weight)| *weight *= factor);
    heavier.extend(rehearsed);
    heavier
}

/// Weights of a network with more inputs and outputs that predicts what the smaller one did: a new input is fed as
/// nothing, a new output is as unlikely as the least likely bias makes it.
fn grown(from: Shape, to: Shape, weights: &[f32], moved: impl Fn(usize) -> usize) -> Vec<f32> {
    let mut rest = weights;
    let mut grown = Vec::with_capacity(to.n_weights());
    let (n_from, n_to) = (from.matrices(), to.matrices());
    for (idx, ([rows, columns], [new_rows, new_columns])) in n_from.into_iter().zip(n_to).enumerate() {
        let (own, tail) = rest.split_at(rows * columns);
        rest = tail;
        let is_output_bias = idx + 1 == 3 * from.layers + 2;
        let filling = if is_output_bias { own.iter().copied().fold(f32::INFINITY, f32::min) } else { 0.0 };
        let mut matrix = vec![filling; new_rows * new_columns];
        for row in 0..rows {
            let to_row = if new_rows == rows { row } else { moved(row) };
            for column in 0..columns {
                let to_column = if new_columns == columns { column } else { moved(column) };
                matrix[to_row * new_columns + to_column] = own[row * columns + column];
            }
        }
        grown.extend(matrix);
    }
    grown
}
