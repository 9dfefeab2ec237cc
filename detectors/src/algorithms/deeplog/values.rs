//! DeepLog's parameter-value models: for each template a forecast of its parameters.
//!
//! Du et al. 2017, section 3.2: the parameters of a template's records are a multivariate time series; an LSTM
//! forecasts the next vector from the ones before, and the errors on held-out records are taken to be Gaussian: an
//! error outside the interval of a given confidence is an anomaly. The time since the previous record of the session
//! is one of the parameters; with `parameters` the numbers in the record are the others, at most four, in their order.
//!
//! A parameter is put on a scale (`observation`: elapsed time as ln(1 + µs), numbers likewise, because sizes and
//! durations have heavy tails) and normalised by its mean and deviation there. A template whose parameters hardly vary
//! in training, or that is too rare, has no model: recorded sessions with made-up times cost nothing and score as
//! without. The vectors before are those of the same template in the same window, so that a score depends on the window
//! alone.
//!
//! Which number is which is told by its place among the numbers, together with how many there are. A template that
//! widens swallows a number rather than moving it, so the count changes: a record whose count is not the commonest one
//! of training is judged by its elapsed time alone, until the next fit. A number is judged only where 500 records of
//! the training have it, where it varies, and where it does not grow or fall for good: counters, clocks and running
//! numbers leave every range.
//!
//! Cost: a fit of 120 small optimizer steps for each template that has a model, at most `value_models`; 10 kFLOP a
//! record of such a template, 14 with four numbers. Memory: 10 to 13 kB a model. Fails where times say when a log was
//! written and not when things happened, on times and sizes that depend on load, on numbers that are identifiers (the
//! interval is then wide), and it does not see a number leave the one value that it always had.
//!
//! Differs from the paper:
//! - Each parameter has its own Gaussian instead of one for the mean squared error, so that the evidence names the
//!   parameter. The most surprising one counts, as much less as there are others beside it (Bonferroni): a record with
//!   four numbers is no likelier to be flagged than one with none.
//! - The deviation is no smaller than what makes the largest held-out error as likely as it was frequent, because
//!   elapsed times have heavier tails than a Gaussian. For numbers the errors in training count for this as well, and
//!   the tail is taken to go on as a power law does (`scale`): simulated on Pareto-distributed sizes without a network,
//!   a confidence of .9999 then flags 1 to 2 records in 10,000, where the Gaussian alone flags 80 to 100.
//! - Parameters that are no decimal numbers are not forecast.

mod model;
mod observation;
mod scale;

use std::{cmp::Reverse, collections::BTreeMap};

use faultline_core::{LogWindow, MAX_NUMBERS, TemplateId, Window};

use self::{
    model::HELD_OUT,
    observation::{Observation, elapsed, on_scale},
    scale::{Range, deviations_of},
};
pub use self::{
    model::ValueModel,
    observation::{milliseconds, off_scale},
    scale::Scale,
};
use super::Config;

/// Records of a template below which it has no model, and beyond which only some, evenly spread, are learned from.
const MIN_RECORDS: usize = 100;
const MAX_RECORDS: usize = 2500;

/// A parameter that was not as forecast.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Finding {
    /// Which parameter: 0 for the elapsed time, from 1 on a number.
    pub param: usize,
    /// What it was, and what was forecast, on the scale of the parameter.
    pub value: f64,
    /// See `value`.
    pub forecast: f64,
    /// By how many deviations, after what forecasts are usually off by.
    pub deviations: f64,
    /// A deviation, on the scale of the parameter.
    pub spread: f64,
    /// Parameters of the record that were judged.
    pub n_judged: usize,
    /// −ln of how likely an error as large is, in any of them.
    pub nll: f64,
}

impl Finding {
    /// From where to where it was expected at this confidence, on the scale of the parameter.
    pub fn interval(&self, confidence: f64) -> (f64, f64) {
        let middle = self.value - self.deviations * self.spread;
        let reach = deviations_of((self.n_judged as f64 / (1.0 - confidence)).ln()) * self.spread;
        (middle - reach, middle + reach)
    }
}

/// The value models of all templates that have one.
#[derive(Debug, Default)]
pub struct Values {
    models: BTreeMap<TemplateId, ValueModel>,
}

/// What the training shows of a template before anything is collected.
#[derive(Debug, Default)]
struct Seen {
    /// Records with an elapsed time or a number.
    n: usize,
    elapsed: Range,
    /// By place.
    numbers: [Range; MAX_NUMBERS],
    /// Records by how many numbers they have.
    by_count: [usize; MAX_NUMBERS + 1],
}

impl Seen {
    fn take(&mut self, elapsed: Option<f32>, numbers: &[f32]) {
        self.n += 1;
        if let Some(elapsed) = elapsed {
            self.elapsed.take(elapsed);
        }
        self.numbers.iter_mut().zip(numbers).for_each(|(range, &number)| range.take(on_scale(number)));
        self.by_count[numbers.len().min(MAX_NUMBERS)] += 1;
    }

    /// How many numbers most of its records have.
    fn n_numbers(&self) -> usize {
        (0..=MAX_NUMBERS).max_by_key(|&count| (self.by_count[count], Reverse(count))).unwrap_or(0)
    }

    fn varies(&self) -> bool {
        self.elapsed.varies() || self.numbers[..self.n_numbers()].iter().any(Range::varies)
    }
}

impl Values {
    /// Of the fresh records of `windows`.
    pub fn fit(config: &Config, windows: &[&LogWindow<'_>], seed: u64) -> Self {
        let mut seen: BTreeMap<TemplateId, Seen> = BTreeMap::new();
        for log in windows {
            for at in log.fresh..log.records.len() {
                let elapsed = elapsed(log, at);
                let numbers = if config.parameters { log.numbers.of(at) } else { &[] };
                if elapsed.is_some() || !numbers.is_empty() {
                    seen.entry(log.records[at].template).or_default().take(elapsed, numbers);
                }
            }
        }
        let mut templates: Vec<(TemplateId, Seen)> =
            seen.into_iter().filter(|(_, seen)| seen.n >= MIN_RECORDS && seen.varies()).collect();
        templates.sort_by_key(|(template, seen)| (Reverse(seen.n), *template));
        templates.truncate(config.value_models);
        if templates.is_empty() {
            return Self::default();
        }
        // Evenly spread over all records of a template: every so many of them.
        let observed = |seen: &Seen| Observed {
            every: seen.n.div_ceil(MAX_RECORDS),
            n_numbers: seen.n_numbers(),
            ..Observed::default()
        };
        let mut observed: BTreeMap<TemplateId, Observed> =
            templates.iter().map(|(template, seen)| (*template, observed(seen))).collect();
        for (idx, log) in windows.iter().enumerate() {
            for at in log.fresh..log.records.len() {
                let Some(own) = observed.get_mut(&log.records[at].template) else { continue };
                own.n_passed += 1;
                if own.n_passed % own.every == 0
                    && let Some(observation) = Observation::of(log, at, own.n_numbers)
                {
                    let side = if idx % HELD_OUT == HELD_OUT - 1 { &mut own.held_out } else { &mut own.training };
                    side.push(observation);
                }
            }
        }
        let models = observed.into_iter().filter_map(|(template, own)| {
            Some((template, ValueModel::fit(&own.training, &own.held_out, seed ^ template.0)?))
        });
        Self { models: models.collect() }
    }

    /// From what is kept of models.
    pub fn of(models: BTreeMap<TemplateId, ValueModel>) -> Self {
        Self { models }
    }

    /// By template.
    pub fn models(&self) -> &BTreeMap<TemplateId, ValueModel> {
        &self.models
    }

    /// What stands out of record `at`, where its template has a model.
    pub fn finding(&self, log: &LogWindow<'_>, at: usize) -> Option<Finding> {
        let model = self.models.get(&log.records.get(at)?.template)?;
        model.judge(&[Observation::of(log, at, model.n_numbers())?]).pop().flatten()
    }

    /// Judges the fresh records of all `windows` together and hands on each finding with its window and record.
    pub fn judge(&self, windows: &[Window<'_>], mut found: impl FnMut(usize, usize, Finding)) {
        if self.models.is_empty() {
            return;
        }
        let mut by_template: BTreeMap<TemplateId, Judged> = BTreeMap::new();
        for (idx, window) in windows.iter().enumerate() {
            let Some(log) = window.as_log() else { continue };
            for at in log.fresh..log.records.len() {
                let template = log.records[at].template;
                if let Some(model) = self.models.get(&template)
                    && let Some(observation) = Observation::of(log, at, model.n_numbers())
                {
                    let own = by_template.entry(template).or_default();
                    own.places.push((idx, at));
                    own.observations.push(observation);
                }
            }
        }
        for (template, own) in by_template {
            for ((idx, at), finding) in own.places.into_iter().zip(self.models[&template].judge(&own.observations)) {
                if let Some(finding) = finding {
                    found(idx, at, finding);
                }
            }
        }
    }

    /// Takes the parameters of a record for normal.
    pub fn admit(&mut self, log: &LogWindow<'_>, at: usize) {
        let template = log.records.get(at).map(|record| record.template);
        if let Some(model) = template.and_then(|template| self.models.get_mut(&template))
            && let Some(observation) = Observation::of(log, at, model.n_numbers())
        {
            model.admit(&observation);
        }
    }
}

/// Records of a template that are judged together: window and record of each, and what is observed.
#[derive(Debug, Default)]
struct Judged {
    places: Vec<(usize, usize)>,
    observations: Vec<Observation>,
}

/// What is collected of a template.
#[derive(Debug, Default)]
struct Observed {
    every: usize,
    n_numbers: usize,
    n_passed: usize,
    training: Vec<Observation>,
    held_out: Vec<Observation>,
}

#[cfg(test)]
mod tests;
