//! Inference of DeepLog's network without a tensor library: the weights that `net` trained, laid out for prediction.
//!
//! Where it differs from `net`: a one-hot symbol is looked up instead of multiplied; everything is row-major by context, so
//! that a context's four gates lie together; only what the next step needs is kept, in buffers that batches share. Matrix products
//! are `gemm`'s, the cell between them is compiled for the vector units of the processor it runs on. A test holds the
//! log-probabilities to within 1e-5 of those that `burn` computes.
//!
//! Cost: 1 MFLOP a context at 2 × 64 and ten steps, in `gemm`, and half as much time again for the sigmoids of the cells;
//! `benches/deeplog.rs` measures it.
//! Results do not depend on which contexts share a batch: a row is computed with the same operations in the same order wherever
//! it stands.

use gemm::Parallelism;
use pulp::{Arch, WithSimd};

use super::net::{Shape, Symbol, log_sum_exp, sigmoid};

/// Contexts that share one forward pass: their states stay in the second-level cache.
const BATCH: usize = 128;

/// Rows of a batch are a multiple of this: a product with fewer takes another path, which rounds differently.
const ROWS: usize = 16;

/// A trained network, ready to predict.
#[derive(Debug)]
pub struct Predictor {
    shape: Shape,
    /// Per symbol, and last for symbols the network does not know: its column of the first layer's input matrix plus the
    /// bias, `[n_inputs + 1, 4 * hidden]`.
    symbols: Vec<f32>,
    /// Per layer but the first, `[hidden, 4 * hidden]`: from the layer below.
    inputs: Vec<Vec<f32>>,
    /// Per layer but the first.
    biases: Vec<Vec<f32>>,
    /// Per layer, `[hidden, 4 * hidden]`: from the step before.
    recurrent: Vec<Vec<f32>>,
    /// `[hidden, n_outputs]`.
    output: Vec<f32>,
    output_bias: Vec<f32>,
    arch: Arch,
}

impl Predictor {
    /// A network of `shape` with `weights` in the order of [`Shape::matrices`].
    pub fn new(shape: Shape, weights: &[f32]) -> Self {
        let mut rest = weights;
        let mut matrices = shape.matrices().into_iter();
        // Every matrix is `[rows, columns]`; a product with a row of states needs it the other way round.
        let mut next = || {
            let [rows, columns] = matrices.next().expect("the shape lists every matrix");
            let (own, tail) = rest.split_at(rows * columns);
            rest = tail;
            transposed(own, rows, columns)
        };
        let mut predictor = Self {
            shape,
            symbols: Vec::new(),
            inputs: Vec::new(),
            biases: Vec::new(),
            recurrent: Vec::new(),
            output: Vec::new(),
            output_bias: Vec::new(),
            arch: Arch::new(),
        };
        for layer in 0..shape.layers {
            let (input, recurrent, bias) = (next(), next(), next());
            predictor.recurrent.push(recurrent);
            if layer == 0 {
                let gates = 4 * shape.hidden;
                predictor.symbols = input;
                predictor.symbols.resize((shape.n_inputs + 1) * gates, 0.0);
                for row in predictor.symbols.chunks_exact_mut(gates) {
                    row.iter_mut().zip(&bias).for_each(|(weight, bias)| *weight += bias);
                }
            } else {
                predictor.inputs.push(input);
                predictor.biases.push(bias);
            }
        }
        (predictor.output, predictor.output_bias) = (next(), next());
        predictor
    }

    /// For each context the log-probability of each output symbol, one row after another.
    pub fn log_probabilities(&self, contexts: &[&[Symbol]]) -> Vec<f32> {
        let n_outputs = self.shape.n_outputs;
        let mut rows = vec![0.0f32; contexts.len() * n_outputs];
        let width = contexts.len().min(BATCH).next_multiple_of(ROWS);
        let mut states = States {
            gates: vec![0.0; width * 4 * self.shape.hidden],
            cell: vec![vec![0.0; width * self.shape.hidden]; self.shape.layers],
            hidden: vec![vec![0.0; width * self.shape.hidden]; self.shape.layers],
            logits: vec![0.0; width * n_outputs],
        };
        for (batch, logits) in contexts.chunks(BATCH).zip(rows.chunks_mut(BATCH * n_outputs)) {
            self.forward(batch, &mut states);
            logits.copy_from_slice(&states.logits[..logits.len()]);
            for row in logits.chunks_exact_mut(n_outputs) {
                let log_sum = log_sum_exp(row.iter().copied());
                row.iter_mut().for_each(|logit| *logit -= log_sum);
            }
        }
        rows
    }

    /// Leaves the logits of `contexts` in `states`.
    fn forward(&self, contexts: &[&[Symbol]], states: &mut States) {
        let (hidden, n_outputs) = (self.shape.hidden, self.shape.n_outputs);
        let n = contexts.len().next_multiple_of(ROWS);
        let gates = &mut states.gates[..n * 4 * hidden];
        for step in 0..self.shape.window {
            let is_first = step == 0;
            for layer in 0..self.shape.layers {
                if layer == 0 {
                    for (idx, row) in gates.chunks_exact_mut(4 * hidden).enumerate() {
                        // Rows that only fill up the batch know no symbol.
                        let symbol = contexts.get(idx).map_or(usize::MAX, |context| usize::from(context[step]));
                        let symbol = symbol.min(self.shape.n_inputs);
                        row.copy_from_slice(&self.symbols[symbol * 4 * hidden..][..4 * hidden]);
                    }
                } else {
                    let bias = &self.biases[layer - 1];
                    gates.chunks_exact_mut(4 * hidden).for_each(|row| row.copy_from_slice(bias));
                    add_product(gates, &states.hidden[layer - 1], &self.inputs[layer - 1], [n, hidden, 4 * hidden]);
                }
                if !is_first {
                    add_product(gates, &states.hidden[layer], &self.recurrent[layer], [n, hidden, 4 * hidden]);
                }
                let (cell, output) = (&mut states.cell[layer], &mut states.hidden[layer]);
                self.arch.dispatch(Cells { gates, cell, output, hidden, is_first });
            }
        }
        let logits = &mut states.logits[..n * n_outputs];
        logits.chunks_exact_mut(n_outputs).for_each(|row| row.copy_from_slice(&self.output_bias));
        let last = states.hidden.last().expect("a network has a layer");
        add_product(logits, last, &self.output, [n, hidden, n_outputs]);
    }
}

/// What one batch needs, reused by the next.
struct States {
    /// `[n, 4 * hidden]`.
    gates: Vec<f32>,
    /// Per layer, `[n, hidden]`.
    cell: Vec<Vec<f32>>,
    hidden: Vec<Vec<f32>>,
    /// `[n, n_outputs]`.
    logits: Vec<f32>,
}

/// The cells of one layer at one step: gates before the sigmoid in, states and outputs out.
struct Cells<'a> {
    gates: &'a [f32],
    cell: &'a mut [f32],
    output: &'a mut [f32],
    hidden: usize,
    is_first: bool,
}

impl WithSimd for Cells<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _simd: S) {
        let Self { gates, cell, output, hidden, is_first } = self;
        let rows =
            gates.chunks_exact(4 * hidden).zip(cell.chunks_exact_mut(hidden)).zip(output.chunks_exact_mut(hidden));
        for ((gates, cell), output) in rows {
            let (input, rest) = gates.split_at(hidden);
            let (forget, rest) = rest.split_at(hidden);
            let (candidate, out) = rest.split_at(hidden);
            if is_first {
                cell.fill(0.0);
            }
            // Iterators without an index, so that the compiler sees no bounds to check and vectorises.
            let before = cell.iter_mut().zip(input).zip(forget.iter().zip(candidate));
            for ((cell, input), (forget, candidate)) in before {
                // The candidate's inner factor 2 is part of the weights: tanh is 2σ(2x) − 1.
                *cell = sigmoid(*forget) * *cell + sigmoid(*input) * (2.0 * sigmoid(*candidate) - 1.0);
            }
            for ((output, out), cell) in output.iter_mut().zip(out).zip(cell.iter()) {
                *output = sigmoid(*out) * (2.0 * sigmoid(2.0 * *cell) - 1.0);
            }
        }
    }
}

/// `to += a · b` for row-major matrices `a [n, k]` and `b [k, m]`.
fn add_product(to: &mut [f32], a: &[f32], b: &[f32], [n, k, m]: [usize; 3]) {
    assert!(to.len() >= n * m && a.len() >= n * k && b.len() >= k * m, "a matrix is shorter than its shape");
    let (columns_to, columns_a, columns_b) = (m as isize, k as isize, m as isize);
    // SAFETY: the three matrices are as long as their shapes and strides say, as just checked, and `to` is borrowed
    // exclusively.
    unsafe {
        gemm::gemm(
            n,
            m,
            k,
            to.as_mut_ptr(),
            1,
            columns_to,
            true,
            a.as_ptr(),
            1,
            columns_a,
            b.as_ptr(),
            1,
            columns_b,
            1.0,
            1.0,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

fn transposed(matrix: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    (0..columns).flat_map(|column| (0..rows).map(move |row| matrix[row * columns + column])).collect()
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::algorithms::deeplog::net;

    fn random(shape: Shape, seed: u64) -> (Vec<f32>, ChaCha8Rng) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let weights = (0..shape.n_weights()).map(|_| rng.random::<f32>() - 0.5).collect();
        (weights, rng)
    }

    #[test]
    fn it_predicts_what_burn_predicts() {
        for (layers, hidden) in [(1, 16), (2, 64), (3, 24)] {
            let shape = Shape { n_inputs: 20, n_outputs: 21, window: 10, hidden, layers };
            let (weights, mut rng) = random(shape, 7);
            // Some symbols that the network does not know.
            let contexts: Vec<Vec<Symbol>> =
                (0..300).map(|_| (0..shape.window).map(|_| rng.random_range(0..22)).collect()).collect();
            let contexts: Vec<&[Symbol]> = contexts.iter().map(Vec::as_slice).collect();
            let ours = Predictor::new(shape, &weights).log_probabilities(&contexts);
            let burn = net::log_probabilities(shape, &weights, &contexts);
            let worst = ours.iter().zip(&burn).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst < 1e-5, "{layers} × {hidden}: {worst}");
        }
    }

    #[test]
    fn a_context_is_predicted_alike_in_any_company() {
        let shape = Shape { n_inputs: 30, n_outputs: 31, window: 10, hidden: 64, layers: 2 };
        let (weights, mut rng) = random(shape, 3);
        let contexts: Vec<Vec<Symbol>> =
            (0..200).map(|_| (0..shape.window).map(|_| rng.random_range(0..30)).collect()).collect();
        let contexts: Vec<&[Symbol]> = contexts.iter().map(Vec::as_slice).collect();
        let predictor = Predictor::new(shape, &weights);
        let together = predictor.log_probabilities(&contexts);
        for (context, row) in contexts.iter().zip(together.chunks_exact(shape.n_outputs)).step_by(7) {
            assert_eq!(predictor.log_probabilities(&[context]), row);
        }
    }
}
