//! A dense layer in training: forward, and back by hand. `networks::dense` serves what is trained here.
//!
//! All of it is batch-major, `[batch, features]`, and the products are `faer`'s on one thread: the same on each run.

use std::ops::Range;

use faer::{Accum, MatMut, MatRef, Par, linalg::matmul::matmul};

/// Where a layer's weights are among all: its matrix, `[inputs, outputs]`, then its bias.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Layer {
    /// Place of its first weight.
    pub first: usize,
    /// Numbers that go in.
    pub n_inputs: usize,
    /// Numbers that come out.
    pub n_outputs: usize,
    /// What a sum below 0 is multiplied by: 1 for a linear layer.
    pub slope: f32,
}

impl Layer {
    /// Places of its matrix.
    pub fn matrix(&self) -> Range<usize> {
        self.first..self.first + self.n_inputs * self.n_outputs
    }

    /// Places of its bias.
    pub fn bias(&self) -> Range<usize> {
        let first = self.matrix().end;
        first..first + self.n_outputs
    }

    /// What it puts out.
    pub fn forward(&self, weights: &[f32], inputs: &[f32], to: &mut Vec<f32>) {
        to.clear();
        to.resize(inputs.len() / self.n_inputs * self.n_outputs, 0.0);
        product(to, rows(inputs, self.n_inputs), rows(&weights[self.matrix()], self.n_outputs));
        let bias = &weights[self.bias()];
        for row in to.chunks_exact_mut(self.n_outputs) {
            for (output, bias) in row.iter_mut().zip(bias) {
                let sum = *output + bias;
                *output = sum.max(sum * self.slope);
            }
        }
    }

    /// Given what went in, what came out and the slopes of the loss by that (which become those by the sums), writes the slopes
    /// by its weights to their places and those by its inputs, where these are wanted.
    pub fn backward(
        &self,
        weights: &[f32],
        inputs: &[f32],
        outputs: &[f32],
        by_outputs: &mut [f32],
        gradient: &mut [f32],
        by_inputs: Option<&mut Vec<f32>>,
    ) {
        if self.slope < 1.0 {
            for (slope, output) in by_outputs.iter_mut().zip(outputs) {
                *slope *= if *output > 0.0 { 1.0 } else { self.slope };
            }
        }
        let by_sums = rows(by_outputs, self.n_outputs);
        product(&mut gradient[self.matrix()], rows(inputs, self.n_inputs).transpose(), by_sums);
        let by_bias = &mut gradient[self.bias()];
        by_bias.fill(0.0);
        for row in by_outputs.chunks_exact(self.n_outputs) {
            for (sum, slope) in by_bias.iter_mut().zip(row) {
                *sum += slope;
            }
        }
        if let Some(by_inputs) = by_inputs {
            by_inputs.clear();
            by_inputs.resize(inputs.len(), 0.0);
            product(by_inputs, by_sums, rows(&weights[self.matrix()], self.n_outputs).transpose());
        }
    }
}

fn rows(values: &[f32], n_columns: usize) -> MatRef<'_, f32> {
    MatRef::from_row_major_slice(values, values.len() / n_columns, n_columns)
}

fn product(to: &mut [f32], lhs: MatRef<'_, f32>, rhs: MatRef<'_, f32>) {
    let to = MatMut::from_row_major_slice_mut(to, lhs.nrows(), rhs.ncols());
    matmul(to, Accum::Replace, lhs, rhs, 1.0, Par::Seq);
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::networks::normals;

    const N: usize = 4;

    fn layer(slope: f32) -> Layer {
        Layer { first: 3, n_inputs: 5, n_outputs: 6, slope }
    }

    #[test]
    fn it_is_the_sums_of_products() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let (weights, inputs) = (normals(3 + 36, &mut rng), normals(N * 5, &mut rng));
        for slope in [0.01, 1.0] {
            let (layer, mut outputs) = (layer(slope), Vec::new());
            layer.forward(&weights, &inputs, &mut outputs);
            assert_eq!(outputs.len(), N * 6);
            for (row, outputs) in inputs.chunks_exact(5).zip(outputs.chunks_exact(6)) {
                for (column, output) in outputs.iter().enumerate() {
                    let products = row.iter().enumerate().map(|(idx, input)| input * weights[3 + 6 * idx + column]);
                    let sum = products.sum::<f32>() + weights[33 + column];
                    let expected = if sum > 0.0 { sum } else { slope * sum };
                    assert!((output - expected).abs() < 1e-5, "{output} against {expected}");
                }
            }
        }
    }

    /// The loss is a weighted sum of outputs, so within the same halves of the rectifiers differences are exact.
    #[test]
    fn slopes_are_those_of_differences() {
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let (weights, inputs, shares) = (normals(3 + 36, &mut rng), normals(N * 5, &mut rng), normals(N * 6, &mut rng));
        for slope in [0.01, 1.0] {
            let layer = layer(slope);
            let loss = |weights: &[f32], inputs: &[f32]| {
                let mut outputs = Vec::new();
                layer.forward(weights, inputs, &mut outputs);
                outputs.iter().zip(&shares).map(|(output, share)| f64::from(output * share)).sum::<f64>()
            };
            let mut outputs = Vec::new();
            layer.forward(&weights, &inputs, &mut outputs);
            let (mut by_outputs, mut gradient, mut by_inputs) = (shares.clone(), vec![0.0; weights.len()], Vec::new());
            layer.backward(&weights, &inputs, &outputs, &mut by_outputs, &mut gradient, Some(&mut by_inputs));
            assert_eq!(gradient[..3], [0.0; 3], "weights of others");
            let differs = |found: f32, difference: f64| (f64::from(found) - difference / 2e-2).abs() > 5e-3;
            let n_weights = (3..weights.len()).filter(|&idx| {
                let (mut more, mut less) = (weights.clone(), weights.clone());
                (more[idx], less[idx]) = (more[idx] + 1e-2, less[idx] - 1e-2);
                differs(gradient[idx], loss(&more, &inputs) - loss(&less, &inputs))
            });
            let n_inputs = (0..inputs.len()).filter(|&idx| {
                let (mut more, mut less) = (inputs.clone(), inputs.clone());
                (more[idx], less[idx]) = (more[idx] + 1e-2, less[idx] - 1e-2);
                differs(by_inputs[idx], loss(&weights, &more) - loss(&weights, &less))
            });
            // A step across the kink of a rectifier has another slope.
            let n_kinks = n_weights.count() + n_inputs.count();
            assert!(n_kinks <= if slope < 1.0 { 12 } else { 0 }, "{n_kinks} at slope {slope}");
        }
    }
}
