//! The value model of one template: a small network that forecasts the next vector of parameters, and the intervals
//! that its errors have.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::{
    Finding, MIN_RECORDS,
    observation::{Observation, WINDOW},
    scale::{Scale, tail_nll, trend},
};
use crate::algorithms::deeplog::{
    kernel::Predictor,
    net::{self, Schedule, Shape, Task},
};

/// Width of the one LSTM layer.
const HIDDEN: usize = 16;

/// Every so many windows one is held out, to measure errors on.
pub const HELD_OUT: usize = 5;

/// Records with a number, held out or not, below which it is not judged: fewer say too little of a heavy tail.
const MIN_NUMBERS: usize = 500;

/// Correlation of a number with the order of records from which on it is a counter, which leaves every range in time.
const MAX_TREND: f64 = 0.5;

/// Optimizer steps of a fit, and examples in each.
const N_STEPS: usize = 120;
const BATCH: usize = 128;

/// Forecasts the parameters of one template: its elapsed time, then its numbers.
#[derive(Debug)]
pub struct ValueModel {
    /// For each parameter.
    pub scales: Vec<Scale>,
    /// Of its network.
    pub weights: Vec<f32>,
    predictor: Predictor,
}

/// Normalised vectors, each with those before it: what a value model is fitted to.
#[derive(Debug)]
struct Series {
    n_params: usize,
    /// `[example, WINDOW, n_params + 1]`; the last input is 1 where there is a vector.
    inputs: Vec<f32>,
    /// `[example, n_params]`; what is not there is not a number.
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

    /// Of the mean squared error. What is not there teaches nothing.
    fn gradient(&self, batch: &[usize], outputs: &[f32], width: usize) -> Vec<f32> {
        let mut gradient = vec![0.0; outputs.len()];
        for (column, &example) in batch.iter().enumerate() {
            for param in 0..self.n_params {
                let next = self.next[example * self.n_params + param];
                if !next.is_nan() {
                    let error = outputs[param * width + column] - next;
                    gradient[param * width + column] = 2.0 * error / outputs.len() as f32;
                }
            }
        }
        gradient
    }
}

impl ValueModel {
    /// Fits to `training` and measures its errors on `held_out`, both in time order. None when no parameter varies or
    /// too little is held out.
    pub fn fit(training: &[Observation], held_out: &[Observation], seed: u64) -> Option<Self> {
        let n_params = training.first()?.next.len();
        let scales: Vec<Scale> = (0..n_params).map(|param| scale_of(param, training, held_out)).collect();
        if !scales.iter().any(Scale::is_judged) {
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
        let held_out = model.errors(held_out);
        // Numbers have heavier tails than one in five records shows.
        let training = if n_params > 1 { model.errors(training) } else { Vec::new() };
        let own = |errors: &[f32], param: usize| -> Vec<f32> {
            let errors = errors.iter().skip(param).step_by(n_params).copied();
            errors.filter(|error| !error.is_nan()).collect()
        };
        for (param, scale) in model.scales.iter_mut().enumerate().filter(|(_, scale)| scale.is_judged()) {
            if param == 0 {
                scale.measure(&own(&held_out, param), &[]);
            } else {
                let distances = scale.measure(&own(&held_out, param), &own(&training, param));
                scale.admit_tail(&distances);
            }
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

    /// Numbers of a record that it knows.
    pub fn n_numbers(&self) -> usize {
        self.scales.len() - 1
    }

    /// What came minus the forecast, both normalised, `[observation, n_params]`; not a number where nothing came.
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

    /// For each observation its most surprising parameter; none where nothing of it is judged.
    pub fn judge(&self, observations: &[Observation]) -> Vec<Option<Finding>> {
        let errors = self.errors(observations);
        let pairs = errors.chunks_exact(self.scales.len()).zip(observations);
        pairs.map(|(errors, observation)| self.finding(errors, observation)).collect()
    }

    fn finding(&self, errors: &[f32], observation: &Observation) -> Option<Finding> {
        let judged = |&(param, scale): &(usize, &Scale)| scale.is_judged() && !errors[param].is_nan();
        let n_judged = self.scales.iter().enumerate().filter(judged).count();
        let finding = |(param, scale): (usize, &Scale)| {
            let value = f64::from(observation.next[param]);
            let deviations = f64::from((errors[param] - scale.error_mean) / scale.error_deviation);
            let forecast = value - f64::from(errors[param] * scale.deviation);
            let spread = f64::from(scale.error_deviation * scale.deviation);
            Finding { param, value, forecast, deviations, spread, n_judged, nll: tail_nll(deviations.abs()) }
        };
        let findings = self.scales.iter().enumerate().filter(judged).map(finding);
        let worst = findings.max_by(|a, b| a.nll.total_cmp(&b.nll))?;
        // Bonferroni: the least likely of several parameters is not as unlikely as it looks.
        Some(Finding { nll: (worst.nll - (n_judged as f64).ln()).max(0.0), ..worst })
    }

    /// Widens the interval by an observation that a person held to be normal.
    pub fn admit(&mut self, observation: &Observation) {
        let errors = self.errors(std::slice::from_ref(observation));
        for (scale, error) in self.scales.iter_mut().zip(errors) {
            if scale.is_judged() && !error.is_nan() {
                scale.n_errors = scale.n_errors.saturating_add(1);
                scale.admit((error - scale.error_mean).abs());
            }
        }
    }
}

/// What parameter `param` is like in training. It is not judged where it hardly varies or too few records have it, nor,
/// as a number, where it has a trend.
fn scale_of(param: usize, training: &[Observation], held_out: &[Observation]) -> Scale {
    let present = |observations: &[Observation]| -> Vec<f32> {
        observations.iter().map(|observation| observation.next[param]).filter(|value| !value.is_nan()).collect()
    };
    let (values, n_held_out) = (present(training), present(held_out).len());
    let is_odd_number = || param > 0 && (values.len() + n_held_out < MIN_NUMBERS || trend(&values).abs() > MAX_TREND);
    if n_held_out < MIN_RECORDS / HELD_OUT || is_odd_number() {
        return Scale::unjudged();
    }
    Scale::of(&values)
}

fn normalised<'a>(scales: &'a [Scale], vector: &'a [f32]) -> impl Iterator<Item = f32> + 'a {
    scales.iter().zip(vector).map(|(scale, &value)| scale.normalised(value))
}

/// Appends `[WINDOW, n_params + 1]`. What is not there is put at its mean.
fn push_inputs(scales: &[Scale], observation: &Observation, inputs: &mut Vec<f32>) {
    let vectors = observation.before.chunks_exact(scales.len()).take(WINDOW);
    inputs.extend(std::iter::repeat_n(0.0, (WINDOW - vectors.len()) * (scales.len() + 1)));
    for vector in vectors.rev() {
        let known = |value: f32| if value.is_nan() { 0.0 } else { value.clamp(-10.0, 10.0) };
        inputs.extend(normalised(scales, vector).map(known));
        inputs.push(1.0);
    }
}
