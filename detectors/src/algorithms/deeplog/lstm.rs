//! A stack of LSTM cells on `burn`: forward, and backward by hand.
//!
//! `burn` multiplies matrices. The cell between the products is fused by hand, forward and backward, because flex's
//! tanh and sigmoid are scalar calls into libm and its autodiff computes them twice: with them a fit takes three
//! times as long. The backward pass is checked against finite differences, in `net`.
//!
//! Everything is feature-major (`[features, batch]`), so that the four gates of a cell (input, forget, candidate,
//! output) are contiguous row blocks of one matrix. tanh is 2σ(2x) − 1; for the candidate gate the inner factor 2 is
//! part of the weights, so that one sigmoid covers all four gates.

use burn::tensor::{Tensor, TensorData};

use super::net::Shape;
use crate::networks::elementary::sigmoid;

/// The weights of one layer, each gate a block of `hidden` rows.
#[derive(Debug)]
struct Cell {
    input: Tensor<2>,
    recurrent: Tensor<2>,
    bias: Tensor<2>,
}

/// A network with its weights.
#[derive(Debug)]
pub struct Lstm {
    cells: Vec<Cell>,
    output: Tensor<2>,
    output_bias: Tensor<2>,
}

impl Lstm {
    /// A network of `matrices`, in the order of [`Shape::matrices`].
    pub fn of(shape: Shape, matrices: &[Tensor<2>]) -> Self {
        let (cells, output) = matrices.split_at(3 * shape.layers);
        let cell = |m: &[Tensor<2>]| Cell { input: m[0].clone(), recurrent: m[1].clone(), bias: m[2].clone() };
        Self {
            cells: cells.chunks_exact(3).map(cell).collect(),
            output: output[0].clone(),
            output_bias: output[1].clone(),
        }
    }

    /// Logits `[n_outputs, batch]` for one-hot steps of `[n_inputs, batch]` each, and what each layer did.
    pub fn forward(&self, steps: Vec<Tensor<2>>) -> (Tensor<2>, Vec<Trace>) {
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
    pub fn backward(&self, d_logits: &Tensor<2>, traces: Vec<Trace>) -> Vec<Tensor<2>> {
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
pub struct Trace {
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

pub fn values(tensor: Tensor<2>) -> Vec<f32> {
    tensor.try_into_vec_as::<f32>().expect("the network computes in f32")
}
