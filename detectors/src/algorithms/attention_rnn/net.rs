//! Training of the attention model on `burn`: forward passes are written with tensors, `burn`'s autodiff finds the way back.
//! `kernel` serves what is trained here and is held to the same predictions.
//!
//! Everything is batch-major (`[batch, features]`) and every gate has its own rows of a weight matrix, so that no step cuts
//! a tensor along its columns: autodiff answers each such cut with a zeroed tensor of the full size. A symbol selects its
//! rows of the input matrix, which therefore holds the biases too.
//!
//! Cost at the defaults: 0.16 MFLOP a context and direction forward, twice that again on the way back;
//! about 20,000 contexts a second; half of it is the scalar sigmoid and tanh of `burn-flex`.

use burn::{
    optim::{AdamConfig, Optimizer},
    tensor::{Device, Int, Tensor, TensorData, activation},
};
use rand::{RngExt, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

use super::{
    Attention,
    shape::{Part, Shape, Symbol},
};
use crate::language::Examples;

/// How to learn it.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    /// Steps to take; the examples are gone through, in a new order each time, until they are taken.
    pub n_steps: usize,
    /// Contexts in one step.
    pub batch: usize,
    /// Adam's step size at the start; it falls to a fiftieth along half a cosine.
    pub learning_rate: f64,
    /// Probability with which a symbol of a context is masked.
    pub masking: f64,
    /// Seed of the initial weights, of the order of examples and of the masks.
    pub seed: u64,
}

/// The four gates of an LSTM cell: input, forget, candidate, output.
type Gates = [Tensor<2>; 4];

/// The blocks of rows that belong to the gates.
fn gates_of(matrix: &Tensor<2>) -> Gates {
    let rows = matrix.dims()[0] / 4;
    [0, 1, 2, 3].map(|gate| matrix.clone().narrow(0, gate * rows, rows))
}

fn sum(a: Gates, b: Gates) -> Gates {
    let mut b = b.into_iter();
    a.map(|gate| gate + b.next().expect("as many gates"))
}

/// An LSTM's output and its cell.
struct State {
    output: Tensor<2>,
    cell: Tensor<2>,
}

/// One step of an LSTM whose gates have received `inputs`.
fn advance(inputs: Gates, recurrent: &Gates, before: Option<&State>) -> State {
    let [input, forget, candidate, output] = match before {
        Some(before) => sum(inputs, recurrent.clone().map(|gate| before.output.clone().matmul(gate))),
        None => inputs,
    };
    let mut cell = activation::sigmoid(input) * candidate.tanh();
    if let Some(before) = before {
        cell = cell + activation::sigmoid(forget) * before.cell.clone();
    }
    State { output: activation::sigmoid(output) * cell.clone().tanh(), cell }
}

/// The upper tier, which reads one summary a segment.
struct Upper {
    /// From a segment's last state, `[hidden, hidden]` a gate, and from its attended value.
    inputs: [Gates; 2],
    recurrent: Gates,
    bias: Gates,
    context: Gates,
}

/// The part of the network that reads one side of a context.
struct Side {
    input: Gates,
    recurrent: Gates,
    keys: Tensor<2>,
    query: Option<Tensor<2>>,
    upper: Option<Upper>,
    output_state: Tensor<2>,
    output_attended: Option<Tensor<2>>,
}

/// A network with its weights.
struct Net {
    shape: Shape,
    sides: Vec<Side>,
    output_bias: Tensor<2>,
}

/// One side of a batch of contexts.
struct Steps {
    /// For each step the symbol of each context.
    symbols: Vec<Tensor<1, Int>>,
    /// For each step 1 for what is there, 0 for what is outside.
    known: Vec<Vec<f32>>,
    /// Number of symbols in each context that are not outside.
    positions: Tensor<1, Int>,
}

impl Steps {
    fn of(shape: Shape, contexts: &[&[Symbol]], side: usize, device: &Device) -> Self {
        let window = shape.window;
        let own: Vec<&[Symbol]> = contexts.iter().map(|context| &context[side * window..][..window]).collect();
        let ints = |values: Vec<i32>| {
            let n = values.len();
            Tensor::<1, Int>::from_data(TensorData::new(values, [n]), device)
        };
        let is_known = |symbol: Symbol| symbol != shape.outside();
        Self {
            symbols: (0..window).map(|step| ints(own.iter().map(|own| i32::from(own[step])).collect())).collect(),
            known: (0..window)
                .map(|step| own.iter().map(|own| f32::from(u8::from(is_known(own[step])))).collect())
                .collect(),
            positions: ints(
                own.iter().map(|own| own.iter().filter(|&&symbol| is_known(symbol)).count() as i32).collect(),
            ),
        }
    }
}

impl Side {
    /// Logits without the bias, and for each step the attention it received, `[1, batch]`; none where a step is not
    /// attended to.
    fn forward(&self, shape: Shape, steps: &Steps) -> (Tensor<2>, Vec<Option<Tensor<2>>>) {
        let mut attention: Vec<Option<Tensor<2>>> = vec![None; shape.window];
        let segments = shape.segments();
        let mut upper: Option<State> = None;
        for (idx, segment) in segments.iter().enumerate() {
            let is_last = idx + 1 == segments.len();
            let context = match (&self.upper, &upper) {
                (Some(tier), Some(upper)) => Some(tier.context.clone().map(|gate| upper.output.clone().matmul(gate))),
                _ => None,
            };
            let mut states: Vec<State> = Vec::with_capacity(segment.len());
            for step in segment.clone() {
                let mut inputs = self.input.clone().map(|gate| gate.select(0, steps.symbols[step].clone()));
                if let Some(context) = &context {
                    inputs = sum(inputs, context.clone());
                }
                states.push(advance(inputs, &self.recurrent, states.last()));
            }
            let mut outputs: Vec<Tensor<2>> = states.into_iter().map(|state| state.output).collect();
            match &self.upper {
                Some(tier) if !is_last => {
                    let last = outputs.last().expect("a segment holds a step").clone();
                    let query = self.query.clone().expect("tiers have a query");
                    let known = &steps.known[segment.clone()];
                    let (attended, weights) = self.attend(shape, outputs, query, known);
                    attention[segment.clone()].clone_from_slice(&weights);
                    let from =
                        |summary: Tensor<2>, weights: &Gates| weights.clone().map(|gate| summary.clone().matmul(gate));
                    let inputs = sum(from(last, &tier.inputs[0]), from(attended, &tier.inputs[1]));
                    let inputs = sum(inputs, tier.bias.clone());
                    upper = Some(advance(inputs, &tier.recurrent, upper.as_ref()));
                }
                _ => {
                    let last = outputs.pop().expect("a segment holds a step");
                    let state = if shape.width() == shape.hidden {
                        last.clone()
                    } else {
                        last.clone().narrow(1, 0, shape.hidden)
                    };
                    let logits = state.clone().matmul(self.output_state.clone());
                    let Some(output_attended) = &self.output_attended else { return (logits, attention) };
                    if outputs.is_empty() {
                        return (logits, attention);
                    }
                    let query = match shape.attention {
                        Attention::Fixed | Attention::Tiered => self.query.clone().expect("a fixed query"),
                        Attention::Syntax => {
                            self.query.clone().expect("a query a position").select(0, steps.positions.clone())
                        }
                        Attention::Semantic1 => state.matmul(self.query.clone().expect("a matrix")).tanh(),
                        Attention::Semantic2 => last.narrow(1, shape.hidden, shape.attention_width),
                    };
                    let known = &steps.known[..outputs.len()];
                    let (attended, weights) = self.attend(shape, outputs, query, known);
                    attention[..weights.len()].clone_from_slice(&weights);
                    return (logits + attended.matmul(output_attended.clone()), attention);
                }
            }
        }
        unreachable!("a window holds a segment")
    }

    /// The sum of the values among `outputs`, each weighted with the softmax of its key times the query `[batch or 1, keys]`
    /// over the records that are known; and the weights.
    fn attend(
        &self,
        shape: Shape,
        outputs: Vec<Tensor<2>>,
        query: Tensor<2>,
        known: &[Vec<f32>],
    ) -> (Tensor<2>, Vec<Option<Tensor<2>>>) {
        let (n, [batch, width], device) = (outputs.len(), outputs[0].dims(), outputs[0].device());
        let mut values = Tensor::stack::<3>(outputs, 0); // [n, batch, width]
        if width != shape.hidden {
            values = values.narrow(2, 0, shape.hidden);
        }
        let keys = values.clone().reshape([n * batch, shape.hidden]).matmul(self.keys.clone()).tanh();
        let query_rows = query.dims()[0];
        let query = query.reshape([1, query_rows, shape.attention_width]);
        let scores = (keys.reshape([n, batch, shape.attention_width]) * query).sum_dim(2).reshape([n, batch]);
        let known = Tensor::<2>::from_data(TensorData::new(known.concat(), [n, batch]), &device);
        let masked = scores + (known.clone() - 1.0) * 1e9;
        let weights = activation::softmax(masked, 0) * known; // [n, batch]
        let attended = (weights.clone().reshape([n, batch, 1]) * values).sum_dim(0).reshape([batch, shape.hidden]);
        let rows = (0..n).map(|step| Some(weights.clone().narrow(0, step, 1))).collect();
        (attended, rows)
    }
}

impl Net {
    /// A network of `matrices`, in the order of [`Shape::matrices`].
    fn of(shape: Shape, matrices: &[Tensor<2>]) -> Self {
        let mut matrices = matrices.iter().cloned();
        let mut next = || matrices.next().expect("the shape lists every matrix");
        let is_tiered = shape.attention == Attention::Tiered;
        let sides = (0..shape.n_sides).map(|_| {
            let (input, recurrent, keys) = (gates_of(&next()), gates_of(&next()), next());
            let query = (shape.attention != Attention::Semantic2).then(&mut next);
            let output_state = next();
            let upper = is_tiered.then(|| {
                let both = gates_of(&next());
                let half = |half: usize| both.clone().map(|gate| gate.narrow(0, half * shape.hidden, shape.hidden));
                let inputs = [half(0), half(1)];
                Upper { inputs, recurrent: gates_of(&next()), bias: gates_of(&next()), context: gates_of(&next()) }
            });
            let output_attended = (!is_tiered).then(&mut next);
            Side { input, recurrent, keys, query, upper, output_state, output_attended }
        });
        let sides = sides.collect();
        Self { shape, sides, output_bias: next() }
    }

    /// Logits `[batch, n_outputs]`, and for each symbol of a context the attention it received.
    fn forward(&self, contexts: &[&[Symbol]], device: &Device) -> (Tensor<2>, Vec<Option<Tensor<2>>>) {
        let mut attention = Vec::with_capacity(self.shape.context_length());
        let mut logits: Option<Tensor<2>> = None;
        for (idx, side) in self.sides.iter().enumerate() {
            let (own, weights) = side.forward(self.shape, &Steps::of(self.shape, contexts, idx, device));
            attention.extend(weights);
            logits = Some(match logits {
                Some(logits) => logits + own,
                None => own,
            });
        }
        (logits.expect("a network reads a side") + self.output_bias.clone(), attention)
    }
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.try_into_vec_as::<f32>().expect("the network computes in f32")
}

/// Added to the forget gates at the start. An LSTM begins nearly forgetful, where 1 is usual: what is distant must then reach
/// the prediction through the attention, on the record itself. One that remembers from the start passes a record on from
/// state to state, and learns to attend to any of them.
const FORGET_BIAS: f32 = -3.0;

/// The same where there are tiers: within its segment, the last one is all the memory there is.
const TIERED_FORGET_BIAS: f32 = 1.0;

/// Uniform initial weights in ±1/√hidden, as PyTorch's, with a bias added to the forget gates.
pub fn initial_weights(shape: Shape, rng: &mut ChaCha8Rng) -> Vec<f32> {
    let bound = 1.0 / (shape.hidden as f32).sqrt();
    let mut weights = Vec::with_capacity(shape.n_weights());
    for (part, [rows, columns]) in shape.matrices() {
        for row in 0..rows {
            let bias = match part {
                Part::Input if row / (rows / 4) == 1 && shape.attention != Attention::Tiered => FORGET_BIAS,
                Part::Input | Part::UpperBias if row / (rows / 4) == 1 => TIERED_FORGET_BIAS,
                _ => 0.0,
            };
            weights.extend((0..columns).map(|_| (rng.random::<f32>() * 2.0 - 1.0) * bound + bias));
        }
    }
    weights
}

/// Splits a list of weights into the matrices of `shape`.
fn matrices_of(shape: Shape, weights: &[f32], device: &Device) -> Vec<Tensor<2>> {
    let mut rest = weights;
    let matrix = |(_, [rows, columns]): (Part, [usize; 2])| {
        let (own, tail) = rest.split_at(rows * columns);
        rest = tail;
        Tensor::from_data(TensorData::new(own.to_vec(), [rows, columns]), device)
    };
    shape.matrices().into_iter().map(matrix).collect()
}

/// The loss of a batch and the gradients of the matrices. `target` is `[batch, n_outputs]`.
fn loss_and_gradients(
    shape: Shape,
    matrices: &[Tensor<2>],
    contexts: &[&[Symbol]],
    target: Vec<f32>,
) -> (Tensor<1>, Vec<Tensor<2>>) {
    let leaves: Vec<Tensor<2>> = matrices.iter().map(|matrix| matrix.clone().autodiff().require_grad()).collect();
    let device = leaves[0].device();
    let (logits, _) = Net::of(shape, &leaves).forward(contexts, &device);
    let target = Tensor::<2>::from_data(TensorData::new(target, [contexts.len(), shape.n_outputs()]), &device);
    let loss = (activation::log_softmax(logits, 1) * target).sum().neg();
    let mut gradients = loss.backward();
    let gradients = leaves
        .iter()
        .zip(matrices)
        .map(|(leaf, matrix)| leaf.grad_remove(&mut gradients).unwrap_or_else(|| matrix.zeros_like()))
        .collect();
    (loss.inner(), gradients)
}

/// Trains a network and returns its weights in the order of [`Shape::matrices`].
pub fn train(shape: Shape, examples: &Examples, schedule: &Schedule) -> Vec<f32> {
    let device = Device::flex();
    let mut rng = ChaCha8Rng::seed_from_u64(schedule.seed);
    let mut matrices = matrices_of(shape, &initial_weights(shape, &mut rng), &device);
    let adam = AdamConfig::new().with_epsilon(1e-8).build();
    let mut moments = vec![None; matrices.len()];
    let total: f32 = examples.next.iter().flatten().map(|(_, weight)| weight).sum();
    let mean = total / examples.next.len() as f32;
    let mut order: Vec<usize> = (0..examples.next.len()).collect();
    let mut taken = order.len();
    let length = shape.context_length();
    for step in 0..schedule.n_steps {
        if taken >= order.len() {
            order.shuffle(&mut rng);
            taken = 0;
        }
        let batch = &order[taken..order.len().min(taken + schedule.batch)];
        taken += batch.len();
        let mut symbols: Vec<Symbol> = Vec::with_capacity(batch.len() * length);
        for &example in batch {
            symbols.extend_from_slice(&examples.contexts[example * length..][..length]);
        }
        for symbol in symbols.iter_mut().filter(|symbol| **symbol != shape.outside()) {
            if rng.random_bool(schedule.masking) {
                *symbol = shape.unknown();
            }
        }
        let contexts: Vec<&[Symbol]> = symbols.chunks_exact(length).collect();
        // A weight is relative to the mean over all examples, not over the batch, so that the gradient is unbiased.
        let mut target = vec![0.0; batch.len() * shape.n_outputs()];
        for (row, &example) in batch.iter().enumerate() {
            for &(symbol, weight) in &examples.next[example] {
                target[row * shape.n_outputs() + usize::from(symbol)] = weight / (mean * batch.len() as f32);
            }
        }
        let (_, gradients) = loss_and_gradients(shape, &matrices, &contexts, target);
        let progress = step as f64 / schedule.n_steps as f64;
        let rate = schedule.learning_rate * (0.02 + 0.49 * (1.0 + (std::f64::consts::PI * progress).cos()));
        for ((matrix, gradient), moment) in matrices.iter_mut().zip(gradients).zip(&mut moments) {
            let stepped;
            (stepped, *moment) = adam.step(rate, matrix.clone(), gradient, moment.take());
            *matrix = stepped;
        }
    }
    matrices.into_iter().flat_map(values).collect()
}

/// For each context the log-probability of each output symbol, one row after another, and the attention that each of its
/// symbols received: what `kernel` is checked against.
#[cfg(test)]
pub fn predict(shape: Shape, weights: &[f32], contexts: &[&[Symbol]]) -> (Vec<f32>, Vec<f32>) {
    let device = Device::flex();
    let net = Net::of(shape, &matrices_of(shape, weights, &device));
    let (logits, weights) = net.forward(contexts, &device);
    let mut attention = vec![0.0; contexts.len() * shape.context_length()];
    for (step, weights) in weights.into_iter().enumerate() {
        let weights = weights.map_or_else(Vec::new, values);
        for (context, weight) in weights.into_iter().enumerate() {
            attention[context * shape.context_length() + step] = weight;
        }
    }
    (values(activation::log_softmax(logits, 1)), attention)
}

/// The gradient by all weights of the loss of predicting `next` after each context.
#[cfg(test)]
pub fn gradient(shape: Shape, weights: &[f32], contexts: &[&[Symbol]], next: &[Symbol]) -> Vec<f32> {
    let mut target = vec![0.0; contexts.len() * shape.n_outputs()];
    for (row, &next) in next.iter().enumerate() {
        target[row * shape.n_outputs() + usize::from(next)] = 1.0;
    }
    let matrices = matrices_of(shape, weights, &Device::flex());
    loss_and_gradients(shape, &matrices, contexts, target).1.into_iter().flat_map(values).collect()
}
