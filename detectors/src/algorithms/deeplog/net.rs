//! Training of DeepLog's networks on `burn`: stacked LSTM cells, over one-hot keys with a softmax over the next for the log-key
//! model, over vectors of parameters for the value models. `kernel` serves what is trained here.
//!
//! `burn` holds the weights, multiplies matrices and runs Adam. The cell between the matrix products is fused by hand,
//! forward and backward, because flex's tanh and sigmoid are scalar calls into libm and its autodiff computes them twice:
//! with them a fit takes three times as long. The backward pass is checked against finite differences.
//!
//! Everything is feature-major (`[features, batch]`), so that the four gates of a cell (input, forget, candidate,
//! output) are contiguous row blocks of one matrix. tanh is 2σ(2x) − 1; for the candidate gate the inner factor 2 is part
//! of the weights, so that one sigmoid covers all four gates.
//!
//! Cost: about 3 MFLOP a context and pass at 2 × 64 and ten steps. Every batch is padded to a multiple of [`LANES`] columns.

use std::ops::Range;

use burn::{
    optim::{AdamConfig, Optimizer},
    tensor::{Device, Tensor, TensorData},
};
use rand::{RngExt, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

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

/// What to learn: distinct contexts, and for each how often each symbol came next.
#[derive(Clone, Debug)]
pub struct Examples {
    /// Contexts, `window` symbols each, one after another.
    pub contexts: Vec<Symbol>,
    /// For each context the symbols that came next, with their weight.
    pub next: Vec<Vec<(Symbol, f32)>>,
}

impl Examples {
    /// The first `n` of them.
    pub fn first(&self, n: usize, window: usize) -> Self {
        let n = n.min(self.next.len());
        Self { contexts: self.contexts[..n * window].to_vec(), next: self.next[..n].to_vec() }
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

/// The weights of one layer, each gate a block of `hidden` rows.
#[derive(Debug)]
struct Cell {
    input: Tensor<2>,
    recurrent: Tensor<2>,
    bias: Tensor<2>,
}

/// A network with its weights.
#[derive(Debug)]
struct Lstm {
    cells: Vec<Cell>,
    output: Tensor<2>,
    output_bias: Tensor<2>,
}

impl Lstm {
    /// A network of `matrices`, in the order of [`Shape::matrices`].
    fn of(shape: Shape, matrices: &[Tensor<2>]) -> Self {
        let (cells, output) = matrices.split_at(3 * shape.layers);
        let cell = |m: &[Tensor<2>]| Cell { input: m[0].clone(), recurrent: m[1].clone(), bias: m[2].clone() };
        Self {
            cells: cells.chunks_exact(3).map(cell).collect(),
            output: output[0].clone(),
            output_bias: output[1].clone(),
        }
    }

    /// Logits `[n_outputs, batch]` for one-hot steps of `[n_inputs, batch]` each, and what each layer did.
    fn forward(&self, steps: Vec<Tensor<2>>) -> (Tensor<2>, Vec<Trace>) {
        let mut traces: Vec<Trace> = Vec::with_capacity(self.cells.len());
        let mut sequence = steps;
        for cell in &self.cells {
            let trace = cell.forward(sequence);
            sequence = trace.outputs.clone();
            traces.push(trace);
        }
        let last = sequence.pop().expect("a context holds at least one symbol");
        (self.output.clone().matmul(last) + self.output_bias.clone(), traces)
    }

    /// Gradients of the matrices, in their order, given that of the logits.
    fn backward(&self, d_logits: &Tensor<2>, traces: Vec<Trace>) -> Vec<Tensor<2>> {
        let last = traces.last().and_then(|trace| trace.outputs.last()).expect("a layer and a step").clone();
        let n_steps = traces[0].outputs.len();
        let mut d_outputs: Vec<Option<Tensor<2>>> = vec![None; n_steps];
        d_outputs[n_steps - 1] = Some(self.output.clone().transpose().matmul(d_logits.clone()));
        let mut gradients = vec![d_logits.clone().sum_dim(1), d_logits.clone().matmul(last.transpose())];
        for (layer, (cell, trace)) in self.cells.iter().zip(traces).enumerate().rev() {
            let ([input, recurrent, bias], d_inputs) = cell.backward(&trace, d_outputs, layer > 0);
            d_outputs = d_inputs;
            gradients.extend([bias, recurrent, input]);
        }
        gradients.reverse();
        gradients
    }
}

/// What one layer did over the steps of a batch, kept for the way back. All vectors are `[rows, batch]`, row by row.
struct Trace {
    inputs: Vec<Tensor<2>>,
    /// `[4 * hidden, batch]`, after the sigmoid.
    gates: Vec<Vec<f32>>,
    /// `[hidden, batch]`: the cell's state, and its tanh.
    states: Vec<Vec<f32>>,
    squashed: Vec<Vec<f32>>,
    outputs: Vec<Tensor<2>>,
}

impl Cell {
    fn forward(&self, inputs: Vec<Tensor<2>>) -> Trace {
        let [hidden, n_steps] = [self.recurrent.dims()[1], inputs.len()];
        let mut trace = Trace {
            inputs,
            gates: Vec::with_capacity(n_steps),
            states: Vec::with_capacity(n_steps),
            squashed: Vec::with_capacity(n_steps),
            outputs: Vec::with_capacity(n_steps),
        };
        for step in 0..n_steps {
            let mut z = self.input.clone().matmul(trace.inputs[step].clone()) + self.bias.clone(); // [4 * hidden, batch]
            if let Some(before) = trace.outputs.last() {
                z = z + self.recurrent.clone().matmul(before.clone());
            }
            let (device, width) = (z.device(), z.dims()[1]);
            let mut gates = values(z);
            gates.iter_mut().for_each(|x| *x = sigmoid(*x));
            let n = hidden * width;
            let [input, forget, candidate, output] = blocks(&gates, n);
            let mut state = vec![0.0f32; n];
            if let Some(before) = trace.states.last() {
                for i in 0..n {
                    state[i] = forget[i] * before[i];
                }
            }
            for i in 0..n {
                state[i] += input[i] * (2.0 * candidate[i] - 1.0);
            }
            let squashed: Vec<f32> = state.iter().map(|c| 2.0 * sigmoid(2.0 * c) - 1.0).collect();
            let h: Vec<f32> = output.iter().zip(&squashed).map(|(o, c)| o * c).collect();
            trace.outputs.push(Tensor::from_data(TensorData::new(h, [hidden, width]), &device));
            trace.gates.push(gates);
            trace.states.push(state);
            trace.squashed.push(squashed);
        }
        trace
    }

    /// Gradients of the cell's weights, and of its inputs where they are wanted, given those of its outputs.
    fn backward(
        &self,
        trace: &Trace,
        mut d_outputs: Vec<Option<Tensor<2>>>,
        wants_inputs: bool,
    ) -> ([Tensor<2>; 3], Vec<Option<Tensor<2>>>) {
        let (to_inputs, to_before) = (self.input.clone().transpose(), self.recurrent.clone().transpose());
        let n_steps = trace.outputs.len();
        let [hidden, width] = trace.outputs[0].dims();
        let n = hidden * width;
        let mut d_weights = [&self.input, &self.recurrent, &self.bias].map(Tensor::zeros_like);
        let mut d_inputs: Vec<Option<Tensor<2>>> = vec![None; n_steps];
        let mut d_before: Option<Tensor<2>> = None;
        let mut d_state = vec![0.0f32; n];
        for step in (0..n_steps).rev() {
            let d_output = match (d_outputs[step].take(), d_before.take()) {
                (Some(above), Some(later)) => above + later,
                (Some(one), None) | (None, Some(one)) => one,
                (None, None) => continue,
            };
            let (device, d_output) = (d_output.device(), values(d_output));
            let [input, forget, candidate, output] = blocks(&trace.gates[step], n);
            let squashed = &trace.squashed[step][..n];
            let mut dz = vec![0.0f32; 4 * n];
            let (d_input, rest) = dz.split_at_mut(n);
            let (d_forget, rest) = rest.split_at_mut(n);
            let (d_candidate, d_out) = rest.split_at_mut(n);
            for i in 0..n {
                let d = d_state[i] + d_output[i] * output[i] * (1.0 - squashed[i] * squashed[i]);
                d_out[i] = d_output[i] * squashed[i] * output[i] * (1.0 - output[i]);
                d_input[i] = d * (2.0 * candidate[i] - 1.0) * input[i] * (1.0 - input[i]);
                d_candidate[i] = d * input[i] * 2.0 * candidate[i] * (1.0 - candidate[i]);
                d_state[i] = d * forget[i];
                d_forget[i] = d * forget[i] * (1.0 - forget[i]);
            }
            if let Some(before) = step.checked_sub(1).map(|before| &trace.states[before][..n]) {
                for i in 0..n {
                    d_forget[i] *= before[i];
                }
            } else {
                d_forget.fill(0.0);
            }
            let dz = Tensor::<2>::from_data(TensorData::new(dz, [4 * hidden, width]), &device);
            let [d_weight, d_recurrent, d_bias] = d_weights;
            let d_weight = d_weight + dz.clone().matmul(trace.inputs[step].clone().transpose());
            let d_bias = d_bias + dz.clone().sum_dim(1);
            if wants_inputs {
                d_inputs[step] = Some(to_inputs.clone().matmul(dz.clone()));
            }
            let d_recurrent = match step.checked_sub(1) {
                Some(before) => {
                    let before = trace.outputs[before].clone().transpose();
                    d_before = Some(to_before.clone().matmul(dz.clone()));
                    d_recurrent + dz.matmul(before)
                }
                None => d_recurrent,
            };
            d_weights = [d_weight, d_recurrent, d_bias];
        }
        (d_weights, d_inputs)
    }
}

/// The rows of the four gates.
fn blocks(gates: &[f32], n: usize) -> [&[f32]; 4] {
    [&gates[..n], &gates[n..2 * n], &gates[2 * n..3 * n], &gates[3 * n..4 * n]]
}

fn values(tensor: Tensor<2>) -> Vec<f32> {
    tensor.try_into_vec_as::<f32>().expect("the network computes in f32")
}

/// 1 / (1 + e^−x) without a branch or a call, so that the compiler vectorises it; exact to about 2e−7.
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    // e^y as 2^n · e^r with |r| ≤ ln 2 / 2; adding 1.5 · 2^23 rounds to an integer and leaves it in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let y = (-x).clamp(-80.0, 80.0);
    let shifted = y * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = y - n * 0.693_359_4 + n * 2.121_944_4e-4;
    let e_r = 1.0 + r * (1.0 + r * (0.5 + r * (1.0 / 6.0 + r * (1.0 / 24.0 + r * (1.0 / 120.0 + r / 720.0)))));
    let two_n = f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23));
    1.0 / (1.0 + e_r * two_n)
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

/// Trains a network from `weights` on, taking examples in an order drawn from `rng`, and returns its weights in the order of
/// [`Shape::matrices`].
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
    fn sigmoid_is_exact_enough_everywhere() {
        for i in -20_000..=20_000 {
            let x = i as f32 / 200.0;
            let exact = 1.0 / (1.0 + (-f64::from(x)).exp());
            assert!((f64::from(sigmoid(x)) - exact).abs() < 3e-7, "at {x}: {} against {exact}", sigmoid(x));
        }
        assert!(sigmoid(f32::NAN).is_nan());
    }

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
