//! Training of Donut's networks on `burn`, whose autodiff finds the way back; `kernel` serves what is trained here and
//! is held to the same outputs.
//!
//! The loss is the negative M-ELBO of the paper: what is not known of a window (gaps, and points that were
//! made one for the occasion) has no share in the reconstruction, and the prior weighs as much as there is known of the
//! window. All of it is batch-major, `[batch, features]`.
//!
//! Cost at the defaults: 58,000 weights, 0.12 MFLOP a window forward, twice that again on the way back. There is no
//! tanh and no sigmoid here; the one slow function of `burn-flex` is the softplus of the deviations.

use burn::{
    optim::{AdamConfig, Optimizer},
    tensor::{Device, Tensor, TensorData, activation},
};
use rand::{RngExt, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

use crate::networks::initial_matrix;
pub use crate::networks::normals;

/// No deviation is smaller, in deviations of the series: the paper's ε.
pub const MIN_DEVIATION: f32 = 1e-4;

/// How far from the mean a value may be that the networks are fed, in deviations of the series.
pub const FAR: f32 = 10.0;

/// Penalty on the squared weights of hidden layers.
const L2: f32 = 1e-3;

/// Norm to which the gradient of a matrix is cut.
const MAX_NORM: f32 = 10.0;

/// Sizes of the networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Points in a window: the paper's W.
    pub window: usize,
    /// Width of the hidden layers.
    pub hidden: usize,
    /// Width of z: the paper's K.
    pub latent: usize,
}

/// Layers whose weights are penalised: the hidden ones.
const HIDDEN_LAYERS: [usize; 4] = [0, 1, 4, 5];

impl Shape {
    /// Inputs and outputs of each layer: the encoder's two hidden ones, its heads for mean and deviation, and the same
    /// of the decoder. A layer's weights are its matrix, `[inputs, outputs]`, and then its bias.
    pub fn layers(&self) -> [[usize; 2]; 8] {
        let Self { window, hidden, latent } = *self;
        [
            [window, hidden],
            [hidden, hidden],
            [hidden, latent],
            [hidden, latent],
            [latent, hidden],
            [hidden, hidden],
            [hidden, window],
            [hidden, window],
        ]
    }

    /// Number of weights.
    pub fn n_weights(&self) -> usize {
        self.layers().iter().map(|[inputs, outputs]| (inputs + 1) * outputs).sum()
    }
}

/// Windows of one series.
#[derive(Debug)]
pub struct Windows {
    /// The series, standardised. A gap is not a number.
    pub values: Vec<f32>,
    /// Where each window ends.
    pub ends: Vec<usize>,
}

impl Windows {
    /// The values of window `idx`.
    pub fn of(&self, idx: usize, length: usize) -> &[f32] {
        &self.values[self.ends[idx] - length..self.ends[idx]]
    }
}

/// How to learn.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    /// Steps to take; the windows are gone through, in a new order each time, until they are taken.
    pub n_steps: usize,
    /// Windows in one step.
    pub batch: usize,
    /// Adam's step size at the start; it falls to a fiftieth along half a cosine.
    pub learning_rate: f64,
    /// Probability with which a point is made a gap.
    pub injection: f64,
    /// Seed of the initial weights, of the order of windows, of the gaps and of z.
    pub seed: u64,
}

/// One batch of windows.
#[derive(Debug)]
pub struct Batch {
    n: usize,
    /// `[n, window]`, 0 where nothing is known.
    inputs: Vec<f32>,
    /// `[n, window]`, 1 where something is known: the paper's α.
    known: Vec<f32>,
    /// `[n, latent]`: what makes a sample of z.
    noise: Vec<f32>,
}

impl Batch {
    fn draw(shape: Shape, windows: &Windows, chosen: &[usize], injection: f64, rng: &mut ChaCha8Rng) -> Self {
        let n = chosen.len();
        let mut inputs = Vec::with_capacity(n * shape.window);
        let mut known = Vec::with_capacity(n * shape.window);
        for &idx in chosen {
            for &value in windows.of(idx, shape.window) {
                let is_known = !value.is_nan() && !rng.random_bool(injection);
                inputs.push(if is_known { value.clamp(-FAR, FAR) } else { 0.0 });
                known.push(f32::from(u8::from(is_known)));
            }
        }
        Self { n, inputs, known, noise: normals(n * shape.latent, rng) }
    }
}

/// Uniform initial weights in ±√(6 / (inputs + outputs)) (Glorot and Bengio), no bias.
pub fn initial_weights(shape: Shape, rng: &mut ChaCha8Rng) -> Vec<f32> {
    let mut weights = Vec::with_capacity(shape.n_weights());
    for [inputs, outputs] in shape.layers() {
        weights.extend(initial_matrix([inputs, outputs], rng));
        weights.extend(std::iter::repeat_n(0.0, outputs));
    }
    weights
}

/// For each layer its matrix and its bias, `[1, outputs]`.
fn matrices_of(shape: Shape, weights: &[f32], device: &Device) -> Vec<Tensor<2>> {
    let mut rest = weights;
    let mut matrices = Vec::with_capacity(16);
    for [inputs, outputs] in shape.layers() {
        for rows in [inputs, 1] {
            let (own, tail) = rest.split_at(rows * outputs);
            rest = tail;
            matrices.push(Tensor::from_data(TensorData::new(own.to_vec(), [rows, outputs]), device));
        }
    }
    matrices
}

fn values(tensor: Tensor<2>) -> Vec<f32> {
    tensor.try_into_vec_as::<f32>().expect("the networks compute in f32")
}

fn layer(matrices: &[Tensor<2>], idx: usize, inputs: Tensor<2>) -> Tensor<2> {
    inputs.matmul(matrices[2 * idx].clone()) + matrices[2 * idx + 1].clone()
}

/// Two hidden layers from `first` on, then mean and deviation of what they say.
fn gaussian(matrices: &[Tensor<2>], first: usize, inputs: Tensor<2>) -> [Tensor<2>; 2] {
    let hidden = activation::relu(layer(matrices, first, inputs));
    let hidden = activation::relu(layer(matrices, first + 1, hidden)); // [batch, hidden]
    let mean = layer(matrices, first + 2, hidden.clone());
    let deviation = activation::softplus(layer(matrices, first + 3, hidden), 1.0) + MIN_DEVIATION;
    [mean, deviation]
}

/// Mean and deviation of z given windows, `[batch, latent]`.
fn encode(matrices: &[Tensor<2>], windows: Tensor<2>) -> [Tensor<2>; 2] {
    gaussian(matrices, 0, windows)
}

/// Mean and deviation of windows given z, `[batch, window]`.
fn decode(matrices: &[Tensor<2>], z: Tensor<2>) -> [Tensor<2>; 2] {
    gaussian(matrices, 4, z)
}

/// The negative M-ELBO of a batch, its mean over windows, without what does not depend on the weights.
fn loss(shape: Shape, matrices: &[Tensor<2>], batch: &Batch) -> Tensor<1> {
    let device = matrices[0].device();
    let tensor = |values: &[f32], columns: usize| {
        Tensor::<2>::from_data(TensorData::new(values.to_vec(), [batch.n, columns]), &device)
    };
    let shares = batch.known.chunks_exact(shape.window);
    let shares: Vec<f32> = shares.map(|known| known.iter().sum::<f32>() / shape.window as f32).collect();
    let inputs = tensor(&batch.inputs, shape.window);
    let [mean, deviation] = encode(matrices, inputs.clone());
    let z = mean + deviation.clone() * tensor(&batch.noise, shape.latent);
    let [x_mean, x_deviation] = decode(matrices, z.clone());
    let errors = (inputs - x_mean) / x_deviation.clone();
    let of_points = (errors.clone() * errors) * 0.5 + x_deviation.log(); // -ln p(x|z), [batch, window]
    let of_z = (z.clone() * z) * 0.5 * tensor(&shares, 1); // -β ln p(z), [batch, latent]
    let entropy = deviation.log(); // -ln q(z|x), [batch, latent]
    let sum = (of_points * tensor(&batch.known, shape.window)).sum() + of_z.sum() - entropy.sum();
    sum / batch.n as f32
}

/// The loss and the gradients of the matrices.
fn loss_and_gradients(shape: Shape, matrices: &[Tensor<2>], batch: &Batch) -> (f32, Vec<Tensor<2>>) {
    let leaves: Vec<Tensor<2>> = matrices.iter().map(|matrix| matrix.clone().autodiff().require_grad()).collect();
    let loss = loss(shape, &leaves, batch);
    let mut gradients = loss.backward();
    let of_leaf = |(leaf, matrix): (&Tensor<2>, &Tensor<2>)| {
        leaf.grad_remove(&mut gradients).unwrap_or_else(|| matrix.zeros_like())
    };
    let gradients = leaves.iter().zip(matrices).map(of_leaf).collect();
    (loss.inner().into_scalar::<f32>(), gradients)
}

fn clipped(gradient: Tensor<2>) -> Tensor<2> {
    let norm = values(gradient.clone()).iter().map(|value| value * value).sum::<f32>().sqrt();
    if norm > MAX_NORM { gradient * (MAX_NORM / norm) } else { gradient }
}

/// Trains the networks of one series and returns their weights.
pub fn train(shape: Shape, windows: &Windows, schedule: &Schedule) -> Vec<f32> {
    let device = Device::flex();
    let mut rng = ChaCha8Rng::seed_from_u64(schedule.seed);
    let mut matrices = matrices_of(shape, &initial_weights(shape, &mut rng), &device);
    let adam = AdamConfig::new().with_epsilon(1e-8).build();
    let mut moments = vec![None; matrices.len()];
    let mut order: Vec<usize> = (0..windows.ends.len()).collect();
    let mut taken = order.len();
    for step in 0..schedule.n_steps {
        if taken >= order.len() {
            order.shuffle(&mut rng);
            taken = 0;
        }
        let chosen = &order[taken..order.len().min(taken + schedule.batch)];
        taken += chosen.len();
        let batch = Batch::draw(shape, windows, chosen, schedule.injection, &mut rng);
        let (_, mut gradients) = loss_and_gradients(shape, &matrices, &batch);
        for layer in HIDDEN_LAYERS {
            let penalty = matrices[2 * layer].clone() * (2.0 * L2);
            gradients[2 * layer] = gradients[2 * layer].clone() + penalty;
        }
        let progress = step as f64 / schedule.n_steps as f64;
        let rate = schedule.learning_rate * (0.02 + 0.49 * (1.0 + (std::f64::consts::PI * progress).cos()));
        for ((matrix, gradient), moment) in matrices.iter_mut().zip(gradients).zip(&mut moments) {
            let stepped;
            (stepped, *moment) = adam.step(rate, matrix.clone(), clipped(gradient), moment.take());
            *matrix = stepped;
        }
    }
    matrices.into_iter().flat_map(values).collect()
}

/// What the encoder says of windows: for each the means of z, then its deviations. What `kernel` is checked against.
#[cfg(test)]
pub fn encoded(shape: Shape, weights: &[f32], windows: &[f32]) -> Vec<f32> {
    let device = Device::flex();
    let n = windows.len() / shape.window;
    let windows = Tensor::<2>::from_data(TensorData::new(windows.to_vec(), [n, shape.window]), &device);
    side_by_side(encode(&matrices_of(shape, weights, &device), windows), shape.latent)
}

/// What the decoder says of samples of z, likewise.
#[cfg(test)]
pub fn decoded(shape: Shape, weights: &[f32], z: &[f32]) -> Vec<f32> {
    let device = Device::flex();
    let n = z.len() / shape.latent;
    let z = Tensor::<2>::from_data(TensorData::new(z.to_vec(), [n, shape.latent]), &device);
    side_by_side(decode(&matrices_of(shape, weights, &device), z), shape.window)
}

#[cfg(test)]
fn side_by_side(tensors: [Tensor<2>; 2], columns: usize) -> Vec<f32> {
    let [means, deviations] = tensors.map(values);
    let rows = means.chunks_exact(columns).zip(deviations.chunks_exact(columns));
    rows.flat_map(|(means, deviations)| [means, deviations].concat()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape { window: 6, hidden: 5, latent: 2 };

    fn batch() -> Batch {
        let known = vec![1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 1.0];
        let inputs = vec![0.3, -1.0, 0.5, 2.0, -0.7, 0.1, 1.1, 0.0, 0.0, -0.4, 0.9, -2.0];
        Batch { n: 2, inputs, known, noise: vec![0.5, -1.2, 0.8, 0.1] }
    }

    fn weights(seed: u64) -> Vec<f32> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        initial_weights(SHAPE, &mut rng).iter().map(|weight| weight + 0.2 * (rng.random::<f32>() - 0.5)).collect()
    }

    fn loss_at(weights: &[f32], batch: &Batch) -> f32 {
        loss(SHAPE, &matrices_of(SHAPE, weights, &Device::flex()), batch).into_scalar::<f32>()
    }

    #[test]
    fn the_loss_is_the_m_elbo_of_the_paper() {
        let (weights, batch) = (weights(3), batch());
        let posteriors = encoded(SHAPE, &weights, &batch.inputs);
        let (length, latent) = (SHAPE.window, SHAPE.latent);
        let mut expected = 0.0;
        for (row, posterior) in posteriors.chunks_exact(2 * latent).enumerate() {
            let known = &batch.known[row * length..][..length];
            let share = known.iter().sum::<f32>() / length as f32;
            let z: Vec<f32> =
                (0..latent).map(|i| posterior[i] + posterior[latent + i] * batch.noise[row * latent + i]).collect();
            let x = decoded(SHAPE, &weights, &z);
            for at in 0..length {
                let error = (batch.inputs[row * length + at] - x[at]) / x[length + at];
                expected += known[at] * (0.5 * error * error + x[length + at].ln());
            }
            expected += z.iter().map(|z| 0.5 * share * z * z).sum::<f32>();
            expected -= posterior[latent..].iter().map(|deviation| deviation.ln()).sum::<f32>();
        }
        let loss = loss_at(&weights, &batch);
        assert!((loss - expected / 2.0).abs() < 1e-4, "{loss} against {}", expected / 2.0);
    }

    #[test]
    fn gradients_are_the_slopes_of_the_loss() {
        let (weights, batch) = (weights(5), batch());
        let matrices = matrices_of(SHAPE, &weights, &Device::flex());
        let (loss, gradients) = loss_and_gradients(SHAPE, &matrices, &batch);
        assert!((loss - loss_at(&weights, &batch)).abs() < 1e-5);
        let gradients: Vec<f32> = gradients.into_iter().flat_map(values).collect();
        assert_eq!(gradients.len(), weights.len());
        let n_far = gradients.iter().enumerate().step_by(3).filter(|(idx, gradient)| {
            let shifted = |by: f32| {
                let mut weights = weights.clone();
                weights[*idx] += by;
                f64::from(loss_at(&weights, &batch))
            };
            let slope = (shifted(1e-3) - shifted(-1e-3)) / 2e-3;
            (slope - f64::from(**gradient)).abs() > 2e-2 + 0.03 * slope.abs()
        });
        // A step across the kink of a rectifier has another slope.
        assert!(n_far.count() <= 2);
    }

    #[test]
    fn what_is_not_known_is_fed_as_the_mean_and_teaches_nothing() {
        let points: Vec<f32> = (0..400).map(|i| if i % 10 == 3 { f32::NAN } else { 40.0 + i as f32 }).collect();
        let windows = Windows { values: points, ends: (6..400).collect() };
        let chosen: Vec<usize> = (0..windows.ends.len()).collect();
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let plain = Batch::draw(SHAPE, &windows, &chosen, 0.0, &mut rng);
        let injected = Batch::draw(SHAPE, &windows, &chosen, 0.25, &mut rng);
        for batch in [&plain, &injected] {
            let pairs = batch.inputs.iter().zip(&batch.known);
            assert!(pairs.clone().all(|(input, known)| *input == known * FAR), "a value far out is cut");
            assert_eq!(batch.noise.len(), chosen.len() * SHAPE.latent);
        }
        let share = |batch: &Batch| batch.known.iter().sum::<f32>() / batch.known.len() as f32;
        assert!((share(&plain) - 0.9).abs() < 0.01, "{}", share(&plain));
        assert!((share(&injected) - 0.9 * 0.75).abs() < 0.03, "{}", share(&injected));
        // What stands where nothing is known makes no difference to the reconstruction.
        let gradient_by_bias = |batch: &Batch| {
            let matrices = matrices_of(SHAPE, &weights(7), &Device::flex());
            values(loss_and_gradients(SHAPE, &matrices, batch).1.swap_remove(13))
        };
        let unknown = Batch { known: vec![0.0; 12], ..batch() };
        assert!(gradient_by_bias(&unknown).iter().all(|gradient| *gradient == 0.0));
        assert!(gradient_by_bias(&batch()).iter().any(|gradient| *gradient != 0.0));
    }

    #[test]
    fn training_lowers_the_loss() {
        let values: Vec<f32> = (0..600).map(|i| (i as f32 * 0.7).sin()).collect();
        let windows = Windows { values, ends: (6..600).collect() };
        let schedule = Schedule { n_steps: 300, batch: 32, learning_rate: 0.02, injection: 0.01, seed: 1 };
        let mut rng = ChaCha8Rng::seed_from_u64(9);
        let chosen: Vec<usize> = (0..200).collect();
        let batch = Batch::draw(SHAPE, &windows, &chosen, 0.0, &mut rng);
        let trained = train(SHAPE, &windows, &schedule);
        let before = loss_at(&initial_weights(SHAPE, &mut ChaCha8Rng::seed_from_u64(1)), &batch);
        assert!(loss_at(&trained, &batch) < before - 0.3, "{} from {before}", loss_at(&trained, &batch));
        assert_eq!(train(SHAPE, &windows, &schedule), trained, "the seed decides");
        let other = train(SHAPE, &windows, &Schedule { seed: 2, ..schedule });
        assert_ne!(other, trained);
    }
}
