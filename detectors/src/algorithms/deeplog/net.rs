//! Training of DeepLog's networks on `burn`: stacked LSTM cells, over one-hot keys with a softmax over the next for
//! the log-key model, over vectors of parameters for the value models. `kernel` serves what is trained here.
//!
//! `burn` holds the weights and runs Adam; the cells are in `lstm`.
//!
//! Cost: about 3 MFLOP a context and pass at 2 × 64 and ten steps. Every batch is padded to a multiple of [`LANES`]
//! columns.

use std::ops::Range;

use burn::{
    optim::{AdamConfig, Optimizer},
    tensor::{Device, Tensor, TensorData},
};
use rand::{RngExt, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

use super::lstm::{Lstm, values};

/// A symbol as the network knows it. One that is not below [`Shape::n_inputs`] is fed as a column of zeros: the network
/// goes on without having learned anything about it.
pub type Symbol = u16;

/// Columns of a batch are a multiple of this.
const LANES: usize = 16;

/// Sizes of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Symbols that a context may hold.
    pub n_inputs: usize,
    /// Symbols that may come next.
    pub n_outputs: usize,
    /// Length of a context.
    pub window: usize,
    /// Width of each layer.
    pub hidden: usize,
    /// Stacked layers.
    pub layers: usize,
}

impl Shape {
    /// Rows and columns of every matrix, in the order in which weights are listed.
    pub fn matrices(&self) -> Vec<[usize; 2]> {
        let gates = 4 * self.hidden;
        let mut matrices = Vec::new();
        for layer in 0..self.layers {
            let n_inputs = if layer == 0 { self.n_inputs } else { self.hidden };
            matrices.extend([[gates, n_inputs], [gates, self.hidden], [gates, 1]]);
        }
        matrices.extend([[self.n_outputs, self.hidden], [self.n_outputs, 1]]);
        matrices
    }

    /// Number of weights.
    pub fn n_weights(&self) -> usize {
        self.matrices().iter().map(|[rows, columns]| rows * columns).sum()
    }
}

/// Contexts of `window` symbols each.
pub use crate::language::Examples;

impl Examples {
    /// The first `n` of them.
    pub fn first(&self, n: usize, window: usize) -> Self {
        let n = n.min(self.next.len());
        Self { contexts: self.contexts[..n * window].to_vec(), next: self.next[..n].to_vec() }
    }

    /// Adds the others behind its own.
    pub fn extend(&mut self, others: &Self) {
        self.contexts.extend_from_slice(&others.contexts);
        self.next.extend_from_slice(&others.next);
    }

    fn context(&self, example: usize, window: usize) -> &[Symbol] {
        &self.contexts[example * window..(example + 1) * window]
    }
}

/// How to learn it.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// Steps to take of the `n_steps`; the examples are gone through, in a new order each time, until they are taken.
    pub steps: Range<usize>,
    /// Steps over which the step size falls.
    pub n_steps: usize,
    /// Contexts in one step.
    pub batch: usize,
    /// Adam's step size at the start; it falls to a fiftieth along half a cosine.
    pub learning_rate: f64,
}

/// Something to learn: what goes in, and how far what came out is off.
pub trait Task {
    /// Number of examples.
    fn len(&self) -> usize;

    /// The steps of some examples, `[n_inputs, width]` each, padded with all-zero columns.
    fn steps(&self, batch: &[usize], shape: Shape, width: usize) -> Vec<Vec<f32>>;

    /// The gradient of the loss by the outputs `[n_outputs, width]`.
    fn gradient(&self, batch: &[usize], outputs: &[f32], width: usize) -> Vec<f32>;
}

impl Task for Examples {
    fn len(&self) -> usize {
        self.next.len()
    }

    fn steps(&self, batch: &[usize], shape: Shape, width: usize) -> Vec<Vec<f32>> {
        let contexts: Vec<&[Symbol]> = batch.iter().map(|&example| self.context(example, shape.window)).collect();
        one_hot(&contexts, shape, width)
    }

    fn gradient(&self, batch: &[usize], outputs: &[f32], width: usize) -> Vec<f32> {
        // A weight is relative to the mean over all examples, not over the batch, so that the gradient is unbiased.
        let total: f32 = self.next.iter().flatten().map(|(_, weight)| weight).sum();
        let mean = total / self.next.len() as f32;
        let mut target = Target { next: vec![0.0; outputs.len()], width };
        for (column, &example) in batch.iter().enumerate() {
            for &(symbol, weight) in &self.next[example] {
                target.next[usize::from(symbol) * width + column] = weight / (mean * batch.len() as f32);
            }
        }
        target.loss(outputs).1
    }
}

/// The steps of a batch of contexts, one-hot, padded with all-zero columns.
fn one_hot(contexts: &[&[Symbol]], shape: Shape, width: usize) -> Vec<Vec<f32>> {
    (0..shape.window)
        .map(|step| {
            let mut values = vec![0.0f32; shape.n_inputs * width];
            for (column, context) in contexts.iter().enumerate() {
                if usize::from(context[step]) < shape.n_inputs {
                    values[usize::from(context[step]) * width + column] = 1.0;
                }
            }
            values
        })
        .collect()
}

/// For each step the values of `series`, `[example, window, n_inputs]`, padded likewise.
pub fn dense(series: &[&[f32]], shape: Shape, width: usize) -> Vec<Vec<f32>> {
    let value = |series: &[f32], step: usize, input: usize| series[step * shape.n_inputs + input];
    (0..shape.window)
        .map(|step| {
            let mut values = vec![0.0f32; shape.n_inputs * width];
            for (column, series) in series.iter().enumerate() {
                for input in 0..shape.n_inputs {
                    values[input * width + column] = value(series, step, input);
                }
            }
            values
        })
        .collect()
}

fn tensors(steps: Vec<Vec<f32>>, width: usize, device: &Device) -> Vec<Tensor<2>> {
    let tensor = |values: Vec<f32>| {
        let n_inputs = values.len() / width;
        Tensor::<2>::from_data(TensorData::new(values, [n_inputs, width]), device)
    };
    steps.into_iter().map(tensor).collect()
}

/// Uniform initial weights in ±1/√hidden, as PyTorch's, with the forget gate's bias at 1.
pub fn initial_weights(shape: Shape, rng: &mut ChaCha8Rng) -> Vec<f32> {
    let bound = 1.0 / (shape.hidden as f32).sqrt();
    let mut weights = Vec::with_capacity(shape.n_weights());
    for [rows, columns] in shape.matrices() {
        let is_gate_bias = columns == 1 && rows == 4 * shape.hidden;
        for row in 0..rows {
            let is_candidate = rows == 4 * shape.hidden && row / shape.hidden == 2;
            let is_forget_bias = is_gate_bias && row / shape.hidden == 1;
            for _ in 0..columns {
                let mut weight = (rng.random::<f32>() * 2.0 - 1.0) * bound;
                if is_candidate {
                    weight *= 2.0;
                }
                if is_forget_bias {
                    weight += 1.0;
                }
                weights.push(weight);
            }
        }
    }
    weights
}

/// Trains a network from `weights` on, taking examples in an order drawn from `rng`, and returns its weights in the
/// order of [`Shape::matrices`].
pub fn train(shape: Shape, weights: &[f32], task: &impl Task, schedule: &Schedule, rng: &mut ChaCha8Rng) -> Vec<f32> {
    let device = Device::flex();
    let mut matrices = matrices_of(shape, weights, &device);
    let adam = AdamConfig::new().with_epsilon(1e-8).build();
    let mut moments = vec![None; matrices.len()];
    let mut order: Vec<usize> = (0..task.len()).collect();
    let mut taken = order.len();
    for step in schedule.steps.clone() {
        if taken >= order.len() {
            order.shuffle(rng);
            taken = 0;
        }
        let batch = &order[taken..order.len().min(taken + schedule.batch)];
        taken += batch.len();
        let width = batch.len().next_multiple_of(LANES);
        let net = Lstm::of(shape, &matrices);
        let (outputs, traces) = net.forward(tensors(task.steps(batch, shape, width), width, &device));
        let d_outputs = task.gradient(batch, &values(outputs), width);
        let d_outputs = Tensor::<2>::from_data(TensorData::new(d_outputs, [shape.n_outputs, width]), &device);
        let gradients = net.backward(&d_outputs, traces);
        let progress = step as f64 / schedule.n_steps as f64;
        let rate = schedule.learning_rate * (0.02 + 0.49 * (1.0 + (std::f64::consts::PI * progress).cos()));
        drop(net);
        for ((matrix, gradient), moment) in matrices.iter_mut().zip(gradients).zip(&mut moments) {
            let stepped;
            (stepped, *moment) = adam.step(rate, matrix.clone(), gradient, moment.take());
            *matrix = stepped;
        }
    }
    matrices.into_iter().flat_map(values).collect()
}

/// Splits a list of weights into the matrices of `shape`.
fn matrices_of(shape: Shape, weights: &[f32], device: &Device) -> Vec<Tensor<2>> {
    let mut rest = weights;
    let matrix = |[rows, columns]: [usize; 2]| {
        let (own, tail) = rest.split_at(rows * columns);
        rest = tail;
        Tensor::from_data(TensorData::new(own.to_vec(), [rows, columns]), device)
    };
    shape.matrices().into_iter().map(matrix).collect()
}

/// What should have been predicted for a batch, `[n_outputs, width]`. The weights of a column need not sum to one; a
/// column without any costs nothing.
struct Target {
    next: Vec<f32>,
    width: usize,
}

impl Target {
    /// Cross-entropy of logits `[n_outputs, width]`, and its gradient by them.
    fn loss(&self, logits: &[f32]) -> (f32, Vec<f32>) {
        let width = self.width;
        let rows = || 0..logits.len() / width;
        let mut gradient = vec![0.0f32; logits.len()];
        let mut loss = 0.0;
        for column in 0..width {
            let weight: f32 = rows().map(|row| self.next[row * width + column]).sum();
            let log_sum = log_sum_exp(rows().map(|row| logits[row * width + column]));
            for at in rows().map(|row| row * width + column) {
                let log_probability = logits[at] - log_sum;
                loss -= self.next[at] * log_probability;
                gradient[at] = weight * log_probability.exp() - self.next[at];
            }
        }
        (loss, gradient)
    }
}

/// ln Σ eˣ, safe from overflow.
pub fn log_sum_exp(values: impl Iterator<Item = f32> + Clone) -> f32 {
    let max = values.clone().fold(f32::NEG_INFINITY, f32::max);
    values.map(|value| (value - max).exp()).sum::<f32>().ln() + max
}

/// For each context the log-probability of each output symbol, one row after another: what `kernel` is checked against.
#[cfg(test)]
pub fn log_probabilities(shape: Shape, weights: &[f32], contexts: &[&[Symbol]]) -> Vec<f32> {
    let device = Device::flex();
    let net = Lstm::of(shape, &matrices_of(shape, weights, &device));
    let width = contexts.len().next_multiple_of(LANES);
    let (logits, _) = net.forward(tensors(one_hot(contexts, shape, width), width, &device));
    let logits = values(logits);
    let mut rows = Vec::with_capacity(contexts.len() * shape.n_outputs);
    for column in 0..contexts.len() {
        let of = |symbol: usize| logits[symbol * width + column];
        let log_sum = log_sum_exp((0..shape.n_outputs).map(of));
        rows.extend((0..shape.n_outputs).map(|symbol| of(symbol) - log_sum));
    }
    rows
}

/// For each series of vectors what the network puts out, likewise.
#[cfg(test)]
pub fn outputs(shape: Shape, weights: &[f32], series: &[f32]) -> Vec<f32> {
    let device = Device::flex();
    let net = Lstm::of(shape, &matrices_of(shape, weights, &device));
    let series: Vec<&[f32]> = series.chunks_exact(shape.window * shape.n_inputs).collect();
    let width = series.len().next_multiple_of(LANES);
    let outputs = values(net.forward(tensors(dense(&series, shape, width), width, &device)).0);
    (0..series.len() * shape.n_outputs).map(|at| outputs[at % shape.n_outputs * width + at / shape.n_outputs]).collect()
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn the_way_back_agrees_with_finite_differences() {
        let shape = Shape { n_inputs: 4, n_outputs: 3, window: 4, hidden: 3, layers: 2 };
        let device = Device::flex();
        let weights = initial_weights(shape, &mut ChaCha8Rng::seed_from_u64(5));
        let contexts: Vec<&[Symbol]> = vec![&[0, 1, 2, 3], &[3, 3, 0, 9], &[1, 1, 2, 0]];
        let width = LANES;
        let mut target = Target { next: vec![0.0; shape.n_outputs * width], width };
        for (column, symbol) in [0, 2, 1].into_iter().enumerate() {
            target.next[symbol * width + column] = 1.0 + column as f32;
        }
        let loss_at = |weights: &[f32]| {
            let net = Lstm::of(shape, &matrices_of(shape, weights, &device));
            let (logits, traces) = net.forward(tensors(one_hot(&contexts, shape, width), width, &device));
            let (loss, d_logits) = target.loss(&values(logits));
            (loss, net, d_logits, traces)
        };
        let (_, net, d_logits, traces) = loss_at(&weights);
        let d_logits = Tensor::<2>::from_data(TensorData::new(d_logits, [shape.n_outputs, width]), &device);
        let analytic: Vec<f32> = net.backward(&d_logits, traces).into_iter().flat_map(values).collect();
        assert_eq!(analytic.len(), weights.len());
        for (i, analytic) in analytic.iter().enumerate() {
            let step = 1e-2;
            let shifted = |by: f32| {
                let mut weights = weights.clone();
                weights[i] += by;
                loss_at(&weights).0
            };
            let numeric = (shifted(step) - shifted(-step)) / (2.0 * step);
            assert!(
                (numeric - analytic).abs() < 2e-3 + 0.01 * numeric.abs(),
                "weight {i}: {analytic} against {numeric}"
            );
        }
    }
}
