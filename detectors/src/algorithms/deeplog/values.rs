//! DeepLog's parameter-value models: for each template a forecast of its parameters.
//!
//! Du et al. 2017, section 3.2: the parameters of a template's records are a multivariate time series; an LSTM
//! forecasts the next vector from the ones before, and the errors on held-out records are taken to be Gaussian: an
//! error outside the interval of a given confidence is an anomaly. The time since the previous record of the session
//! is one of the parameters.
//!
//! It is the only one so far ([`params`]): windows carry no others. Everything below takes vectors of any length.
//!
//! A parameter is put on a scale (elapsed time as ln(1 + µs)) and normalised by its mean and deviation. A template
//! whose parameters hardly vary in training, or that is too rare, has no model: recorded sessions with made-up times
//! cost nothing and score as without. The vectors before are those of the same template in the same window, so that a
//! score depends on the window alone.
//!
//! Cost: a fit of 120 small optimizer steps for each template that has a model, at most `value_models`; 10 kFLOP a
//! record of such a template. Memory: 10 kB a model. Fails where times say when a log was written and not when things
//! happened, and on times that depend on load: the interval is then wide.
//!
//! Differs from the paper:
//! - Each parameter has its own Gaussian instead of one for the mean squared error, so that the evidence names the
//!   parameter.
//! - The deviation is no smaller than what makes the largest held-out error as likely as it was frequent, because
//!   elapsed times have heavier tails than a Gaussian.

use std::collections::BTreeMap;

use faultline_core::{LogWindow, TemplateId, Window};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::{
    Config,
    kernel::Predictor,
    net::{self, Schedule, Shape, Task},
};

/// Parameters of a record.
pub const N_PARAMS: usize = 1;

/// Vectors before the judged one that a forecast sees.
const WINDOW: usize = 5;

/// Records of the session among which they are looked for.
const REACH: usize = 64;

/// Width of the one LSTM layer.
const HIDDEN: usize = 16;

/// Records of a template below which it has no model, and beyond which only some, evenly spread, are learned from.
const MIN_RECORDS: usize = 100;
const MAX_RECORDS: usize = 2500;

/// Every so many windows one is held out, to measure errors on.
const HELD_OUT: usize = 5;

/// A range of a parameter below which it does not vary: a thousandth of an elapsed time.
const MIN_RANGE: f32 = 1e-3;

/// Optimizer steps of a fit, and examples in each.
const N_STEPS: usize = 120;
const BATCH: usize = 128;

/// What is known of a record besides its template, on the scale that is forecast. None where there is nothing to
/// compare with.
pub fn params(log: &LogWindow<'_>, at: usize) -> Option<[f32; N_PARAMS]> {
    let (before, record) = (log.records.get(at.checked_sub(1)?)?, log.records.get(at)?);
    let nanos = record.time_unix_nano.saturating_sub(before.time_unix_nano).max(0);
    Some([(nanos as f64 / 1e3).ln_1p() as f32])
}

/// A parameter, as the person who reads of it knows it: elapsed milliseconds.
pub fn milliseconds(param: f64) -> f64 {
    param.exp_m1() / 1e3
}

/// A parameter that was not as forecast.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Finding {
    /// Which parameter.
    pub param: usize,
    /// What it was, and what was forecast, on the scale of [`params`].
    pub value: f64,
    /// See `value`.
    pub forecast: f64,
    /// By how many deviations.
    pub deviations: f64,
    /// −ln of how likely an error as large is.
    pub nll: f64,
}

/// The value models of all templates that have one.
#[derive(Debug, Default)]
pub struct Values {
    models: BTreeMap<TemplateId, ValueModel>,
}

/// Forecasts the parameters of one template.
#[derive(Debug)]
pub struct ValueModel {
    /// For each parameter.
    pub scales: Vec<Scale>,
    /// Of its network.
    pub weights: Vec<f32>,
    predictor: Predictor,
}

/// What one parameter is like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scale {
    /// Mean and deviation in training.
    pub mean: f32,
    /// See `mean`.
    pub deviation: f32,
    /// Mean and deviation of the held-out errors, in deviations of the parameter.
    pub error_mean: f32,
    /// See `error_mean`.
    pub error_deviation: f32,
    /// Held-out errors.
    pub n_errors: u32,
}

/// Normalised vectors, each with those before it: what a value model is fitted to.
#[derive(Debug)]
struct Series {
    n_params: usize,
    /// `[example, WINDOW, n_params + 1]`; the last input is 1 where there is a vector.
    inputs: Vec<f32>,
    /// `[example, n_params]`.
    next: Vec<f32>,
}

fn shape(n_params: usize) -> Shape {
    Shape { n_inputs: n_params + 1, n_outputs: n_params, window: WINDOW, hidden: HIDDEN, layers: 1 }
}

impl Task for Series {
    fn len(&self) -> usize {
        self.next.len() / self.n_params
    }

    fn steps(&self, batch: &[usize], shape: Shape, width: usize) -> Vec<Vec<f32>> {
        let size = shape.window * shape.n_inputs;
        let series: Vec<&[f32]> = batch.iter().map(|&example| &self.inputs[example * size..][..size]).collect();
        net::dense(&series, shape, width)
    }

    /// Of the mean squared error.
    fn gradient(&self, batch: &[usize], outputs: &[f32], width: usize) -> Vec<f32> {
        let mut gradient = vec![0.0; outputs.len()];
        for (column, &example) in batch.iter().enumerate() {
            for param in 0..self.n_params {
                let error = outputs[param * width + column] - self.next[example * self.n_params + param];
                gradient[param * width + column] = 2.0 * error / outputs.len() as f32;
            }
        }
        gradient
    }
}

/// A vector with those before it, as they were observed.
#[derive(Clone, Debug)]
pub struct Observation {
    /// At most [`WINDOW`] vectors, one after another, the latest first.
    pub before: Vec<f32>,
    /// The vector itself.
    pub next: Vec<f32>,
}

impl Observation {
    /// Of record `at` of `log`.
    fn of(log: &LogWindow<'_>, at: usize) -> Option<Self> {
        let next = params(log, at)?.to_vec();
        let template = log.records[at].template;
        let alike = (at.saturating_sub(REACH)..at).rev().filter(|&before| log.records[before].template == template);
        let before = alike.filter_map(|at| params(log, at)).take(WINDOW).flatten().collect();
        Some(Self { before, next })
    }
}

impl ValueModel {
    /// Fits to `training` and measures its errors on `held_out`. None when no parameter varies or too little is held
    /// out.
    pub fn fit(training: &[Observation], held_out: &[Observation], seed: u64) -> Option<Self> {
        let n_params = training.first()?.next.len();
        let mut scales = Vec::with_capacity(n_params);
        for param in 0..n_params {
            let values = || training.iter().map(|observation| observation.next[param]);
            let (least, most) = values().fold((f32::MAX, f32::MIN), |(a, b), value| (a.min(value), b.max(value)));
            let (mean, deviation) = moments(values());
            let is_constant = most - least < MIN_RANGE;
            let deviation = if is_constant { 0.0 } else { deviation };
            scales.push(Scale { mean, deviation, error_mean: 0.0, error_deviation: 1.0, n_errors: 0 });
        }
        if scales.iter().all(|scale| scale.deviation == 0.0) || held_out.len() < MIN_RECORDS / HELD_OUT {
            return None;
        }
        let mut series = Series { n_params, inputs: Vec::new(), next: Vec::new() };
        for observation in training {
            push_inputs(&scales, observation, &mut series.inputs);
            series.next.extend(normalised(&scales, &observation.next));
        }
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let initial = net::initial_weights(shape(n_params), &mut rng);
        let schedule = Schedule { steps: 0..N_STEPS, n_steps: N_STEPS, batch: BATCH, learning_rate: 1e-2 };
        let weights = net::train(shape(n_params), &initial, &series, &schedule, &mut rng);
        if !weights.iter().all(|weight| weight.is_finite()) {
            return None;
        }
        let mut model = Self::new(scales, weights);
        let errors = model.errors(held_out);
        for (param, scale) in model.scales.iter_mut().enumerate() {
            let own = || errors.iter().skip(param).step_by(n_params).copied();
            scale.n_errors = held_out.len() as u32;
            (scale.error_mean, scale.error_deviation) = moments(own());
            scale.error_deviation = scale.error_deviation.max(1e-3);
            let largest = own().map(|error| (error - scale.error_mean).abs()).fold(0.0, f32::max);
            scale.admit(largest);
        }
        Some(model)
    }

    /// From what is kept of a model.
    pub fn new(scales: Vec<Scale>, weights: Vec<f32>) -> Self {
        let predictor = Predictor::new(shape(scales.len()), &weights);
        Self { scales, weights, predictor }
    }

    /// Number of weights of a model of so many parameters.
    pub fn n_weights(n_params: usize) -> usize {
        shape(n_params).n_weights()
    }

    /// Normalised forecasts, `[observation, n_params]`, minus what came.
    fn errors(&self, observations: &[Observation]) -> Vec<f32> {
        let mut inputs = Vec::new();
        for observation in observations {
            push_inputs(&self.scales, observation, &mut inputs);
        }
        let mut errors = self.predictor.outputs(&inputs);
        for (errors, observation) in errors.chunks_exact_mut(self.scales.len()).zip(observations) {
            for (error, next) in errors.iter_mut().zip(normalised(&self.scales, &observation.next)) {
                *error = next - *error;
            }
        }
        errors
    }

    /// For each observation its most surprising parameter.
    pub fn judge(&self, observations: &[Observation]) -> Vec<Finding> {
        let errors = self.errors(observations);
        let finding = |(errors, observation): (&[f32], &Observation)| {
            let findings = self.scales.iter().enumerate().map(|(param, scale)| {
                let value = f64::from(observation.next[param]);
                let deviations = f64::from((errors[param] - scale.error_mean) / scale.error_deviation);
                let forecast = value - f64::from(errors[param] * scale.deviation);
                // A parameter that did not vary in training says nothing.
                let nll = if scale.deviation > 0.0 { tail_nll(deviations.abs()) } else { 0.0 };
                Finding { param, value, forecast, deviations, nll }
            });
            findings.max_by(|a, b| a.nll.total_cmp(&b.nll)).expect("a model has a parameter")
        };
        errors.chunks_exact(self.scales.len()).zip(observations).map(finding).collect()
    }

    /// Widens the interval by an observation that a person held to be normal.
    fn admit(&mut self, observation: &Observation) {
        let errors = self.errors(std::slice::from_ref(observation));
        for (scale, error) in self.scales.iter_mut().zip(errors) {
            scale.n_errors = scale.n_errors.saturating_add(1);
            scale.admit((error - scale.error_mean).abs());
        }
    }
}

impl Scale {
    /// Makes the deviation large enough that an error of `largest` is as likely as one in all errors.
    fn admit(&mut self, largest: f32) {
        let wanted = f64::from(self.n_errors + 1).ln();
        let (mut low, mut high) = (0.0, 40.0);
        for _ in 0..50 {
            let middle = (low + high) / 2.0;
            if tail_nll(middle) < wanted { low = middle } else { high = middle }
        }
        self.error_deviation = self.error_deviation.max(largest / high as f32);
    }
}

impl Values {
    /// Of the fresh records of `windows`.
    pub fn fit(config: &Config, windows: &[&LogWindow<'_>], seed: u64) -> Self {
        let mut n_records: BTreeMap<TemplateId, (usize, f32, f32)> = BTreeMap::new();
        for log in windows {
            for at in log.fresh..log.records.len() {
                let Some([elapsed]) = params(log, at) else { continue };
                let own = n_records.entry(log.records[at].template).or_insert((0, elapsed, elapsed));
                *own = (own.0 + 1, own.1.min(elapsed), own.2.max(elapsed));
            }
        }
        let mut templates: Vec<(TemplateId, usize)> = n_records
            .into_iter()
            .filter(|(_, (n, least, most))| *n >= MIN_RECORDS && most - least >= MIN_RANGE)
            .map(|(template, (n, ..))| (template, n))
            .collect();
        templates.sort_by_key(|&(template, n)| (std::cmp::Reverse(n), template));
        templates.truncate(config.value_models);
        if templates.is_empty() {
            return Self::default();
        }
        // Evenly spread over all records of a template: every so many of them.
        let mut observed: BTreeMap<TemplateId, Observed> = templates
            .into_iter()
            .map(|(template, n)| (template, Observed { every: n.div_ceil(MAX_RECORDS), ..Observed::default() }))
            .collect();
        for (idx, log) in windows.iter().enumerate() {
            for at in log.fresh..log.records.len() {
                let Some(own) = observed.get_mut(&log.records[at].template) else { continue };
                own.n_passed += 1;
                if own.n_passed % own.every == 0
                    && let Some(observation) = Observation::of(log, at)
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
        model.judge(&[Observation::of(log, at)?]).pop()
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
                if self.models.contains_key(&template)
                    && let Some(observation) = Observation::of(log, at)
                {
                    let own = by_template.entry(template).or_default();
                    own.places.push((idx, at));
                    own.observations.push(observation);
                }
            }
        }
        for (template, own) in by_template {
            for ((idx, at), finding) in own.places.into_iter().zip(self.models[&template].judge(&own.observations)) {
                found(idx, at, finding);
            }
        }
    }

    /// Takes the parameters of a record for normal.
    pub fn admit(&mut self, log: &LogWindow<'_>, at: usize) {
        let template = log.records.get(at).map(|record| record.template);
        if let Some(model) = template.and_then(|template| self.models.get_mut(&template))
            && let Some(observation) = Observation::of(log, at)
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
    n_passed: usize,
    training: Vec<Observation>,
    held_out: Vec<Observation>,
}

fn normalised<'a>(scales: &'a [Scale], vector: &'a [f32]) -> impl Iterator<Item = f32> + 'a {
    let scaled = |scale: &Scale, value: f32| (value - scale.mean) / scale.deviation;
    scales.iter().zip(vector).map(move |(s, &value)| if s.deviation > 0.0 { scaled(s, value) } else { 0.0 })
}

/// Appends `[WINDOW, n_params + 1]`.
fn push_inputs(scales: &[Scale], observation: &Observation, inputs: &mut Vec<f32>) {
    let vectors = observation.before.chunks_exact(scales.len()).take(WINDOW);
    inputs.extend(std::iter::repeat_n(0.0, (WINDOW - vectors.len()) * (scales.len() + 1)));
    for vector in vectors.rev() {
        inputs.extend(normalised(scales, vector).map(|value| value.clamp(-10.0, 10.0)));
        inputs.push(1.0);
    }
}

fn moments(values: impl Iterator<Item = f32> + Clone) -> (f32, f32) {
    let n = values.clone().count().max(1) as f64;
    let mean = values.clone().map(f64::from).sum::<f64>() / n;
    let variance = values.map(|value| (f64::from(value) - mean).powi(2)).sum::<f64>() / n;
    (mean as f32, variance.sqrt() as f32)
}

/// −ln of the probability that a Gaussian is `z` deviations or more from its mean, either way: −ln erfc(z / √2), by the
/// Chebyshev fit of Numerical Recipes, 6.2, exact to 1.2e−7 in proportion.
fn tail_nll(z: f64) -> f64 {
    const COEFFICIENTS: [f64; 10] = [
        -1.265_512_23,
        1.000_023_68,
        0.374_091_96,
        0.096_784_18,
        -0.186_288_06,
        0.278_868_07,
        -1.135_203_98,
        1.488_515_87,
        -0.822_152_23,
        0.170_872_77,
    ];
    let x = z / std::f64::consts::SQRT_2;
    let t = 1.0 / (1.0 + 0.5 * x);
    let polynomial = COEFFICIENTS.iter().rev().fold(0.0, |sum, coefficient| sum * t + coefficient);
    x * x - polynomial - t.ln()
}

#[cfg(test)]
mod tests {
    use rand::RngExt;

    use super::*;

    #[test]
    fn the_tail_is_that_of_a_gaussian() {
        for (z, probability) in
            [(0.0, 1.0), (1.0, 0.317_310_5), (1.96, 0.049_995_8), (3.0, 2.699_796e-3), (6.0, 1.973_175e-9)]
        {
            let expected = -f64::ln(probability);
            assert!((tail_nll(z) - expected).abs() < 1e-5, "{z}: {} against {expected}", tail_nll(z));
        }
        assert!(tail_nll(40.0) > 800.0 && tail_nll(40.0).is_finite());
    }

    /// Two parameters: the first alternates between 0 and 10, the second is noise around 3; the third never varies.
    fn observed(n: usize, seed: u64) -> Vec<Observation> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut vector = |at: usize| vec![(at % 2) as f32 * 10.0 + rng.random::<f32>(), 3.0 + rng.random::<f32>(), 7.0];
        let vectors: Vec<Vec<f32>> = (0..n + WINDOW).map(&mut vector).collect();
        let observation = |at: usize| Observation {
            before: vectors[at..at + WINDOW].iter().rev().flatten().copied().collect(),
            next: vectors[at + WINDOW].clone(),
        };
        (0..n).map(observation).collect()
    }

    #[test]
    fn a_vector_is_judged_by_what_was_before_it_and_the_odd_parameter_is_named() {
        let model = ValueModel::fit(&observed(600, 1), &observed(150, 2), 1).expect("two parameters vary");
        let normal = observed(100, 3);
        let findings = model.judge(&normal);
        assert!(findings.iter().all(|finding| finding.nll < 9.0), "{findings:?}");
        // A usual value, but not after the ones before.
        let mut odd = normal[4].clone();
        odd.next[0] = normal[5].next[0];
        let finding = model.judge(&[odd])[0];
        assert!(finding.param == 0 && finding.nll > 12.0, "{finding:?}");
        let usual = f64::from(normal[4].next[0]);
        assert!((finding.forecast - usual).abs() < 2.0, "{finding:?} where {usual} comes");
        let mut odd = normal[4].clone();
        odd.next[1] = 9.0;
        assert_eq!(model.judge(&[odd])[0].param, 1);
        let mut odd = normal[4].clone();
        odd.next[2] = 900.0;
        assert_eq!(model.judge(&[odd]), model.judge(&normal[4..5]), "what never varied says nothing");
    }

    #[test]
    fn what_never_varies_or_is_not_held_out_has_no_model_and_an_admitted_value_becomes_normal() {
        let constant: Vec<Observation> =
            (0..200).map(|_| Observation { before: vec![1.0; WINDOW], next: vec![1.0] }).collect();
        assert!(ValueModel::fit(&constant, &constant, 1).is_none());
        assert!(ValueModel::fit(&observed(600, 1), &observed(5, 2), 1).is_none());
        let mut model = ValueModel::fit(&observed(600, 1), &observed(150, 2), 1).expect("two parameters vary");
        let mut odd = observed(1, 3).remove(0);
        odd.next[1] = 9.0;
        let before = model.judge(std::slice::from_ref(&odd))[0].nll;
        model.admit(&odd);
        let after = model.judge(std::slice::from_ref(&odd))[0].nll;
        assert!(before > 9.0 && after < 5.1, "{before}, then {after}: no rarer than one in 152");
    }
}
