//! The network of `span-lstm`: one LSTM layer that reads a trace span by span, label and time, with two heads: a softmax over the
//! label of the next span, and a forecast of how long the span takes that then came.
//!
//! The way back is written by hand, through the whole trace, and checked against finite differences. Cost at 32 units and
//! 250 labels: 24 kFLOP a span forward, twice that again on the way back.

use pulp::{Arch, Simd, WithSimd};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use crate::{
    language::Symbol,
    networks::elementary::{
        add_product, add_product_back, add_scaled, dot, exp, log_softmax, sigmoid, split, split_mut, tanh,
    },
};

/// What an error of a time weighs beside the surprise of a label.
const TIME_WEIGHT: f32 = 0.5;

/// Deviations from which on an error of a time counts by its size, not its square (Huber).
const ROBUST_FROM: f32 = 3.0;

/// How far from its mean a time may be that the network is fed: one that is absurd excuses no other.
const MAX_INPUT: f32 = 3.0;

/// Sizes of the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Labels that it knows.
    pub n_labels: usize,
    /// Units of the layer.
    pub hidden: usize,
}

impl Shape {
    /// Sizes of its parts: input `[n_labels + 1, 4 hidden]`, of which the last row is for the beginning; input of the time;
    /// bias; recurrent `[hidden, 4 hidden]`; the head of labels `[hidden, n_labels + 1]`, of which the last is the end, and its
    /// bias; the head of times `[n_labels, hidden]`, a row a label, and its bias. Gates are input, forget, output, candidate.
    fn sizes(&self) -> [usize; 8] {
        let Self { n_labels, hidden } = *self;
        let (gates, n_next) = (4 * hidden, n_labels + 1);
        [n_next * gates, gates, gates, hidden * gates, hidden * n_next, n_next, n_labels * hidden, n_labels]
    }

    /// Number of weights.
    pub fn n_weights(&self) -> usize {
        self.sizes().iter().sum()
    }
}

/// A span as the network reads it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reading {
    /// Its label. One that is not below [`Shape::n_labels`] is not known: the network reads on without having learned
    /// anything about it.
    pub symbol: Symbol,
    /// How long it took, in deviations of its label; 0 where that is not known.
    pub time: f32,
}

/// A trace as the network reads it.
#[derive(Clone, Copy, Debug)]
pub struct Readings<'a> {
    pub spans: &'a [Reading],
    /// Whether the trace ends here, and that is to be predicted.
    pub is_whole: bool,
}

impl Readings<'_> {
    /// Predictions to be made.
    pub fn n_steps(&self) -> usize {
        self.spans.len() + usize::from(self.is_whole)
    }
}

/// What the network makes of a trace: for each span and for the end what it expected there. Made to be used again.
#[derive(Debug, Default)]
pub struct Pass {
    /// Log-probabilities of the labels and of the end, a row a step.
    pub log_probabilities: Vec<f32>,
    /// The time that was expected of the span that came, in deviations of its label.
    pub times: Vec<f32>,
    /// A row a step: gates after their sigmoid or tanh, the cell, its tanh, the output.
    gates: Vec<f32>,
    cells: Vec<f32>,
    squashed: Vec<f32>,
    outputs: Vec<f32>,
    /// For the way back: gradients of a gate, an output and a cell.
    d_gates: Vec<f32>,
    d_output: Vec<f32>,
    d_cell: Vec<f32>,
}

impl Pass {
    fn prepare(&mut self, shape: Shape, n_steps: usize) {
        let hidden = shape.hidden;
        self.log_probabilities.resize(n_steps * (shape.n_labels + 1), 0.0);
        self.times.resize(n_steps, 0.0);
        self.gates.resize(n_steps * 4 * hidden, 0.0);
        for rows in [&mut self.cells, &mut self.squashed, &mut self.outputs] {
            rows.resize(n_steps * hidden, 0.0);
        }
        self.d_gates.resize(4 * hidden, 0.0);
        for gradient in [&mut self.d_output, &mut self.d_cell] {
            gradient.clear();
            gradient.resize(hidden, 0.0);
        }
    }
}

/// The network with its weights.
#[derive(Debug)]
pub struct Net {
    pub shape: Shape,
    pub weights: Vec<f32>,
    arch: Arch,
}

impl Net {
    /// A network of these weights.
    pub fn new(shape: Shape, weights: Vec<f32>) -> Self {
        debug_assert_eq!(weights.len(), shape.n_weights(), "weights of another shape");
        Self { shape, weights, arch: Arch::new() }
    }

    /// Uniform initial weights in ±1/√hidden, as PyTorch's, with the forget gate's bias at 1; no other bias.
    pub fn drawn(shape: Shape, rng: &mut ChaCha8Rng) -> Self {
        let bound = 1.0 / (shape.hidden as f32).sqrt();
        let mut weights: Vec<f32> = (0..shape.n_weights()).map(|_| (rng.random::<f32>() * 2.0 - 1.0) * bound).collect();
        let [_, _, bias, _, _, next_bias, _, time_bias] = split_mut(&mut weights, shape.sizes());
        bias.fill(0.0);
        bias[shape.hidden..2 * shape.hidden].fill(1.0);
        next_bias.fill(0.0);
        time_bias.fill(0.0);
        Self::new(shape, weights)
    }

    /// Fills `pass` with what is expected at each step.
    pub fn read(&self, readings: Readings<'_>, pass: &mut Pass) {
        pass.prepare(self.shape, readings.n_steps());
        self.arch.dispatch(Forward { net: self, readings, pass });
    }

    /// Adds to the gradient of all weights that of the loss of a trace, and returns the loss: the surprises of its labels in
    /// nats, and half the squared errors of its times. What `pass` held is void afterwards.
    pub fn learn(&self, readings: Readings<'_>, pass: &mut Pass, gradient: &mut [f32]) -> f32 {
        self.read(readings, pass);
        self.arch.dispatch(Backward { net: self, readings, pass, gradient })
    }
}

/// The known label of a span, as an index.
fn known(shape: Shape, reading: Reading) -> Option<usize> {
    Some(usize::from(reading.symbol)).filter(|&label| label < shape.n_labels)
}

struct Forward<'a> {
    net: &'a Net,
    readings: Readings<'a>,
    pass: &'a mut Pass,
}

impl WithSimd for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _simd: S) {
        let Self { net, readings: Readings { spans, .. }, .. } = self;
        let (shape, n_steps) = (net.shape, self.readings.n_steps());
        let (hidden, n_next) = (shape.hidden, shape.n_labels + 1);
        let [input, time, bias, recurrent, next, next_bias, time_head, time_bias] = split(&net.weights, shape.sizes());
        let Pass { log_probabilities, times, gates, cells, squashed, outputs, .. } = self.pass;
        for step in 0..n_steps {
            let gates = &mut gates[step * 4 * hidden..][..4 * hidden];
            let (cells_before, cell) = cells.split_at_mut(step * hidden);
            let (outputs_before, output) = outputs.split_at_mut(step * hidden);
            let (cell, output) = (&mut cell[..hidden], &mut output[..hidden]);
            gates.copy_from_slice(bias);
            let row = match step.checked_sub(1) {
                None => Some(shape.n_labels),
                Some(before) => {
                    add_scaled(gates, spans[before].time.clamp(-MAX_INPUT, MAX_INPUT), time);
                    add_product(gates, &outputs_before[before * hidden..], recurrent);
                    known(shape, spans[before])
                }
            };
            if let Some(row) = row {
                add_scaled(gates, 1.0, &input[row * 4 * hidden..][..4 * hidden]);
            }
            let (squeezed, candidate) = gates.split_at_mut(3 * hidden);
            squeezed.iter_mut().for_each(|gate| *gate = sigmoid(*gate));
            candidate.iter_mut().for_each(|gate| *gate = tanh(*gate));
            let (into, forget, out) = thirds(squeezed, hidden);
            match step.checked_sub(1) {
                None => cell.fill(0.0),
                Some(before) => cell.copy_from_slice(&cells_before[before * hidden..]),
            }
            let squashed = &mut squashed[step * hidden..][..hidden];
            for unit in 0..hidden {
                cell[unit] = forget[unit] * cell[unit] + into[unit] * candidate[unit];
                squashed[unit] = tanh(cell[unit]);
                output[unit] = out[unit] * squashed[unit];
            }
            let row = &mut log_probabilities[step * n_next..][..n_next];
            row.copy_from_slice(next_bias);
            add_product(row, output, next);
            log_softmax(row);
            let came = spans.get(step).and_then(|&span| known(shape, span));
            times[step] =
                came.map_or(0.0, |label| time_bias[label] + dot(output, &time_head[label * hidden..][..hidden]));
        }
    }
}

fn thirds(gates: &[f32], hidden: usize) -> (&[f32], &[f32], &[f32]) {
    (&gates[..hidden], &gates[hidden..2 * hidden], &gates[2 * hidden..3 * hidden])
}

struct Backward<'a> {
    net: &'a Net,
    readings: Readings<'a>,
    pass: &'a mut Pass,
    gradient: &'a mut [f32],
}

impl WithSimd for Backward<'_> {
    type Output = f32;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _simd: S) -> f32 {
        let Self { net, readings: Readings { spans, .. }, .. } = self;
        let (shape, n_steps) = (net.shape, self.readings.n_steps());
        let (hidden, n_next) = (shape.hidden, shape.n_labels + 1);
        let [_, _, _, recurrent, next, _, time_head, _] = split(&net.weights, shape.sizes());
        let [d_input, d_time, d_bias, d_recurrent, d_next, d_next_bias, d_time_head, d_time_bias] =
            split_mut(self.gradient, shape.sizes());
        let Pass { log_probabilities, times, gates, cells, squashed, outputs, d_gates, d_output, d_cell } = self.pass;
        let mut loss = 0.0;
        for step in (0..n_steps).rev() {
            let output = &outputs[step * hidden..][..hidden];
            let came = spans.get(step).map_or(Some(shape.n_labels), |&span| known(shape, span));
            // A label that is not known teaches nothing of what comes.
            if let Some(came) = came {
                let row = &mut log_probabilities[step * n_next..][..n_next];
                loss -= row[came];
                row.iter_mut().for_each(|own| *own = exp(*own));
                row[came] -= 1.0;
                add_scaled(d_next_bias, 1.0, row);
                add_product_back(row, output, next, d_next, d_output);
            }
            if let (Some(span), Some(label)) = (spans.get(step), came) {
                let error = times[step] - span.time;
                let size = error.abs();
                let own =
                    if size < ROBUST_FROM { 0.5 * error * error } else { ROBUST_FROM * (size - 0.5 * ROBUST_FROM) };
                loss += TIME_WEIGHT * own;
                let d_error = TIME_WEIGHT * error.clamp(-ROBUST_FROM, ROBUST_FROM);
                d_time_bias[label] += d_error;
                add_scaled(&mut d_time_head[label * hidden..][..hidden], d_error, output);
                add_scaled(d_output, d_error, &time_head[label * hidden..][..hidden]);
            }
            let (squeezed, candidate) = gates[step * 4 * hidden..][..4 * hidden].split_at(3 * hidden);
            let (into, forget, out) = thirds(squeezed, hidden);
            let squashed = &squashed[step * hidden..][..hidden];
            let (d_squeezed, d_candidate) = d_gates.split_at_mut(3 * hidden);
            let (d_into, d_rest) = d_squeezed.split_at_mut(hidden);
            let (d_forget, d_out) = d_rest.split_at_mut(hidden);
            for unit in 0..hidden {
                let d = d_cell[unit] + d_output[unit] * out[unit] * (1.0 - squashed[unit] * squashed[unit]);
                d_out[unit] = d_output[unit] * squashed[unit] * out[unit] * (1.0 - out[unit]);
                d_into[unit] = d * candidate[unit] * into[unit] * (1.0 - into[unit]);
                d_candidate[unit] = d * into[unit] * (1.0 - candidate[unit] * candidate[unit]);
                d_forget[unit] = d * forget[unit] * (1.0 - forget[unit]);
                d_cell[unit] = d * forget[unit];
            }
            d_output.fill(0.0);
            let row = match step.checked_sub(1) {
                None => {
                    d_forget.fill(0.0);
                    Some(shape.n_labels)
                }
                Some(before) => {
                    for (d_forget, cell) in d_forget.iter_mut().zip(&cells[before * hidden..]) {
                        *d_forget *= cell;
                    }
                    add_scaled(d_time, spans[before].time.clamp(-MAX_INPUT, MAX_INPUT), d_gates);
                    add_product_back(d_gates, &outputs[before * hidden..][..hidden], recurrent, d_recurrent, d_output);
                    known(shape, spans[before])
                }
            };
            add_scaled(d_bias, 1.0, d_gates);
            if let Some(row) = row {
                add_scaled(&mut d_input[row * 4 * hidden..][..4 * hidden], 1.0, d_gates);
            }
        }
        loss
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    const SHAPE: Shape = Shape { n_labels: 4, hidden: 3 };

    fn trace() -> Vec<Reading> {
        let of = |(symbol, time): (Symbol, f32)| Reading { symbol, time };
        [(0, 0.5), (2, -1.0), (3, 1.5), (Symbol::MAX, 0.0), (1, 0.25), (2, 6.0), (0, -2.0)].map(of).to_vec()
    }

    #[test]
    fn the_way_back_agrees_with_finite_differences() {
        let spans = trace();
        let net = Net::drawn(SHAPE, &mut ChaCha8Rng::seed_from_u64(5));
        for is_whole in [true, false] {
            let readings = Readings { spans: &spans, is_whole };
            let (mut pass, mut analytic) = (Pass::default(), vec![0.0; SHAPE.n_weights()]);
            net.learn(readings, &mut pass, &mut analytic);
            for (idx, analytic) in analytic.iter().enumerate() {
                let step = 1e-2;
                let mut loss_at = |by: f32| {
                    let mut weights = net.weights.clone();
                    weights[idx] += by;
                    Net::new(SHAPE, weights).learn(readings, &mut pass, &mut vec![0.0; SHAPE.n_weights()])
                };
                let numeric = (loss_at(step) - loss_at(-step)) / (2.0 * step);
                assert!(
                    (numeric - analytic).abs() < 4e-3 + 0.01 * numeric.abs(),
                    "weight {idx}: {analytic} against {numeric}"
                );
            }
        }
    }

    #[test]
    fn what_is_read_later_changes_nothing_before_and_buffers_leave_no_trace() {
        let (spans, net) = (trace(), Net::drawn(SHAPE, &mut ChaCha8Rng::seed_from_u64(6)));
        let (mut fresh, mut used) = (Pass::default(), Pass::default());
        net.read(Readings { spans: &spans, is_whole: true }, &mut used);
        assert_eq!(used.times.len(), spans.len() + 1);
        for row in used.log_probabilities.chunks_exact(SHAPE.n_labels + 1) {
            assert!((row.iter().map(|own| own.exp()).sum::<f32>() - 1.0).abs() < 1e-5);
        }
        let whole = used.log_probabilities.clone();
        let first = Readings { spans: &spans[..3], is_whole: false };
        net.read(first, &mut used);
        net.read(first, &mut fresh);
        assert_eq!((&used.log_probabilities, &used.times), (&fresh.log_probabilities, &fresh.times));
        assert_eq!(used.log_probabilities, whole[..3 * (SHAPE.n_labels + 1)]);
        net.read(Readings { spans: &[], is_whole: true }, &mut used);
        assert_eq!(used.times, [0.0]);
    }
}
