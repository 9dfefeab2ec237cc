//! Inference of Donut's networks without a tensor library: the weights that `net` trained, laid out for prediction
//! ([`dense`](crate::networks::dense)).
//!
//! For a score only the last point of a window is decoded, so the decoder has a second head with two outputs. A test
//! holds all outputs to within 1e-5 of those that `burn` computes.
//!
//! Cost at the defaults: 52 kFLOP to encode a window, 27 to decode the last point from a sample of z, 72 to decode a
//! whole window. Results do not depend on which rows share a batch.

use pulp::Arch;

use super::net::{MIN_DEVIATION, Shape};
pub use crate::networks::dense::Layers;
use crate::networks::dense::{Dense, pass};

/// The networks of one series, ready to predict.
#[derive(Debug)]
pub struct Kernel {
    encoder: [Dense; 3],
    decoder: [Dense; 2],
    /// The decoder's head for all points of a window, and for the last one alone.
    whole: Dense,
    last: Dense,
    arch: Arch,
}

/// A deviation, given what its head put out: softplus, and a little more.
pub fn deviation(raw: f32) -> f32 {
    let softplus = if raw > 20.0 { raw } else { raw.exp().ln_1p() };
    softplus + MIN_DEVIATION
}

impl Kernel {
    /// Networks of `shape` with `weights` in the order of [`Shape::layers`].
    pub fn new(shape: Shape, weights: &[f32]) -> Self {
        let sizes = shape.layers();
        let mut rest = weights;
        let layers = sizes.map(|[inputs, outputs]| {
            let (matrix, tail) = rest.split_at(inputs * outputs);
            let (bias, tail) = tail.split_at(outputs);
            rest = tail;
            (matrix, bias)
        });
        let hidden = |idx: usize| {
            let (matrix, bias) = layers[idx];
            Dense::new(sizes[idx], 0.0, |row, column| matrix[row * bias.len() + column], |column| bias[column])
        };
        // Both heads from `first` on side by side, of each the outputs from `skipped` on.
        let heads = |first: usize, skipped: usize| {
            let [n_inputs, n_outputs] = sizes[first];
            let n_kept = n_outputs - skipped;
            let place = |column: usize| (layers[first + column / n_kept], skipped + column % n_kept);
            let weight = |row: usize, column: usize| {
                let ((matrix, _), column) = place(column);
                matrix[row * n_outputs + column]
            };
            let bias = |column: usize| {
                let ((_, bias), column) = place(column);
                bias[column]
            };
            Dense::new([n_inputs, 2 * n_kept], 1.0, weight, bias)
        };
        Self {
            encoder: [hidden(0), hidden(1), heads(2, 0)],
            decoder: [hidden(4), hidden(5)],
            whole: heads(6, 0),
            last: heads(6, shape.window - 1),
            arch: Arch::new(),
        }
    }

    /// For each window the means of z, then its deviations.
    pub fn encode(&self, windows: &[f32], layers: &mut Layers, to: &mut Vec<f32>) {
        let [first, second, heads] = &self.encoder;
        pass(self.arch, [first, second, heads], windows, layers, to);
        finish(to, heads.n_outputs());
    }

    /// For each sample of z mean and deviation of a window's last point.
    pub fn decode_last(&self, z: &[f32], layers: &mut Layers, to: &mut Vec<f32>) {
        let [first, second] = &self.decoder;
        pass(self.arch, [first, second, &self.last], z, layers, to);
        finish(to, self.last.n_outputs());
    }

    /// For each sample of z the means of a window's points, then what makes their deviations: see [`deviation`].
    pub fn decode(&self, z: &[f32], layers: &mut Layers, to: &mut Vec<f32>) {
        let [first, second] = &self.decoder;
        pass(self.arch, [first, second, &self.whole], z, layers, to);
    }
}

/// Makes deviations of the second half of each row.
fn finish(rows: &mut [f32], n_outputs: usize) {
    for row in rows.chunks_exact_mut(n_outputs) {
        row[n_outputs / 2..].iter_mut().for_each(|raw| *raw = deviation(*raw));
    }
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::algorithms::donut::net;

    fn cases() -> impl Iterator<Item = (Shape, Vec<f32>, ChaCha8Rng)> {
        let sizes = [(120, 100, 5), (30, 32, 3), (9, 7, 2), (40, 130, 20)];
        sizes.into_iter().map(|(window, hidden, latent)| {
            let shape = Shape { window, hidden, latent };
            let mut rng = ChaCha8Rng::seed_from_u64(7);
            let mut weights = net::initial_weights(shape, &mut rng);
            weights.iter_mut().for_each(|weight| *weight += 0.05 * (rng.random::<f32>() - 0.5));
            (shape, weights, rng)
        })
    }

    fn worst(ours: &[f32], burn: &[f32]) -> f32 {
        assert_eq!(ours.len(), burn.len());
        ours.iter().zip(burn).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
    }

    #[test]
    fn it_computes_what_burn_computes() {
        for (shape, weights, mut rng) in cases() {
            let kernel = Kernel::new(shape, &weights);
            let (mut layers, mut ours) = (Layers::default(), Vec::new());
            let windows = net::normals(401 * shape.window, &mut rng);
            kernel.encode(&windows, &mut layers, &mut ours);
            let off = worst(&ours, &net::encoded(shape, &weights, &windows));
            assert!(off < 1e-5, "{shape:?}: z differs by {off}");
            let z = net::normals(401 * shape.latent, &mut rng);
            let burn = net::decoded(shape, &weights, &z);
            kernel.decode(&z, &mut layers, &mut ours);
            for row in ours.chunks_exact_mut(2 * shape.window) {
                row[shape.window..].iter_mut().for_each(|raw| *raw = deviation(*raw));
            }
            let off = worst(&ours, &burn);
            assert!(off < 1e-5, "{shape:?}: windows differ by {off}");
            kernel.decode_last(&z, &mut layers, &mut ours);
            let lasts = burn.chunks_exact(2 * shape.window);
            let lasts: Vec<f32> = lasts.flat_map(|row| [row[shape.window - 1], row[2 * shape.window - 1]]).collect();
            let off = worst(&ours, &lasts);
            assert!(off < 1e-5, "{shape:?}: last points differ by {off}");
        }
    }

    #[test]
    fn a_row_is_computed_alike_in_any_company() {
        for (shape, weights, mut rng) in cases() {
            let kernel = Kernel::new(shape, &weights);
            let (mut layers, mut together, mut alone) = (Layers::default(), Vec::new(), Vec::new());
            let z = net::normals(200 * shape.latent, &mut rng);
            kernel.decode_last(&z, &mut layers, &mut together);
            for (z, row) in z.chunks_exact(shape.latent).zip(together.chunks_exact(2)).step_by(7) {
                kernel.decode_last(z, &mut layers, &mut alone);
                assert_eq!(alone, row, "{shape:?}");
            }
        }
    }

    #[test]
    fn a_deviation_is_positive_and_finite() {
        for raw in [f32::NEG_INFINITY, -1e30, -100.0, -1.0, 0.0, 19.9, 20.1, 1e30] {
            assert!(deviation(raw) >= MIN_DEVIATION && deviation(raw).is_finite(), "{raw}: {}", deviation(raw));
        }
        assert!((deviation(0.0) - (2f32.ln() + MIN_DEVIATION)).abs() < 1e-7);
    }
}
