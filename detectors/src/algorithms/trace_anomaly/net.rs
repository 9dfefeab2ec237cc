//! The networks and how they learn: a variational auto-encoder whose posterior goes through a planar flow.
//!
//! The loss is the negative evidence lower bound, E[−ln p(x|z) − ln p(z) + ln q(z|x)] with one draw for each trace and step; every
//! slope is found by hand (`layer`, `flow` and here), and tests hold each against differences. Adam (Kingma and Ba, "Adam: A Method
//! for Stochastic Optimization", ICLR 2015), its step size along half a cosine.
//!
//! Cost: 6 FLOP a weight, trace and pass; at the defaults and 482 paths 1.4 MFLOP a trace.

use std::{f64::consts::PI, ops::Range};

use rand::{SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

use super::{dimensions::Dimensions, flow::Planar, layer::Layer};
use crate::{
    algorithms::trace_vector::PathVector,
    networks::{initial_matrix, normals},
};

/// Slope of hidden layers below 0.
const LEAK: f32 = 0.01;

/// Bounds of the logarithm of a deviation of z.
const LN_POSTERIOR: [f32; 2] = [-7.0, 5.0];

/// The largest logarithm of a deviation of a time.
const MAX_LN_DEVIATION: f32 = 3.0;

/// Size of the initial u and w of a flow's steps: nearly no step.
const INITIAL_FLOW: f32 = 0.1;

/// Norm to which the gradient of a matrix is cut, the paper's.
const MAX_NORM: f32 = 10.0;

/// Optimizer steps below which a fit does not stop, however few the traces are.
const MIN_STEPS: usize = 1000;

/// Sizes of the networks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    /// Call paths.
    pub paths: usize,
    /// Width of the hidden layers.
    pub hidden: usize,
    /// Width of z.
    pub latent: usize,
    /// Steps of the flow.
    pub flows: usize,
    /// The smallest logarithm of a deviation of a time.
    pub min_ln_deviation: f32,
}

impl Shape {
    /// The encoder's layers and the decoder's. The last of each puts out means, then logarithms of deviations.
    pub fn layers(&self) -> [Layer; 6] {
        let Self { paths, hidden, latent, .. } = *self;
        let sizes = [
            [paths, hidden],
            [hidden, hidden],
            [hidden, 2 * latent],
            [latent, hidden],
            [hidden, hidden],
            [hidden, 2 * paths],
        ];
        let mut first = 0;
        let mut slopes = [LEAK, LEAK, 1.0].into_iter().cycle();
        sizes.map(|[n_inputs, n_outputs]| {
            let layer = Layer { first, n_inputs, n_outputs, slope: slopes.next().unwrap_or(1.0) };
            first = layer.bias().end;
            layer
        })
    }

    /// Places of the weights of each step of the flow.
    pub fn steps(&self) -> impl Iterator<Item = Range<usize>> {
        let (first, n) = (self.layers()[5].bias().end, Planar::n_weights(self.latent));
        (0..self.flows).map(move |step| first + step * n..first + (step + 1) * n)
    }

    /// Number of weights.
    pub fn n_weights(&self) -> usize {
        self.layers()[5].bias().end + self.flows * Planar::n_weights(self.latent)
    }

    /// The flow that some weights make.
    pub fn flow(&self, weights: &[f32]) -> Vec<Planar> {
        let step = |place: Range<usize>| {
            let own: Vec<f64> = weights[place].iter().copied().map(f64::from).collect();
            Planar::of(&own)
        };
        self.steps().map(step).collect()
    }

    /// Initial weights.
    pub fn initial_weights(&self, rng: &mut ChaCha8Rng) -> Vec<f32> {
        let mut weights = vec![0.0; self.n_weights()];
        for layer in self.layers() {
            let matrix = initial_matrix([layer.n_inputs, layer.n_outputs], rng);
            weights[layer.matrix()].iter_mut().zip(matrix).for_each(|(weight, initial)| *weight = initial);
        }
        for step in self.steps() {
            let draws = normals(2 * self.latent, rng);
            weights[step].iter_mut().zip(draws).for_each(|(weight, draw)| *weight = INITIAL_FLOW * draw);
        }
        weights
    }
}

/// The logarithm of a deviation of z, given what its head put out.
pub fn ln_posterior(raw: f32) -> f32 {
    raw.clamp(LN_POSTERIOR[0], LN_POSTERIOR[1])
}

/// −ln p(x|z) of one trace, nats, without ln √2π for each path: `outputs` are the means of the times, then what makes their
/// deviations.
pub fn surprise(shape: &Shape, wanted: &[f32], outputs: &[f32]) -> f64 {
    let (means, raws) = outputs.split_at(wanted.len());
    let of_path = |((wanted, mean), raw): ((&f32, &f32), &f32)| {
        let ln_deviation = raw.clamp(shape.min_ln_deviation, MAX_LN_DEVIATION);
        let distance = (wanted - mean) * (-ln_deviation).exp();
        f64::from(0.5 * distance * distance + ln_deviation)
    };
    wanted.iter().zip(means).zip(raws).map(of_path).sum()
}

/// Its slopes by the outputs, times `share`. One that would drive a deviation farther out of its bounds is 0.
fn surprise_slopes(shape: &Shape, wanted: &[f32], outputs: &[f32], share: f32, to: &mut [f32]) {
    let (means, raws) = outputs.split_at(wanted.len());
    let (by_means, by_raws) = to.split_at_mut(wanted.len());
    for idx in 0..wanted.len() {
        let ln_deviation = raws[idx].clamp(shape.min_ln_deviation, MAX_LN_DEVIATION);
        let inverse = (-ln_deviation).exp();
        let distance = (wanted[idx] - means[idx]) * inverse;
        by_means[idx] = -share * distance * inverse;
        by_raws[idx] =
            within(raws[idx], [shape.min_ln_deviation, MAX_LN_DEVIATION], share * (1.0 - distance * distance));
    }
}

/// A slope, or 0 where a step against it leads away from the bounds.
fn within(raw: f32, [least, most]: [f32; 2], slope: f32) -> f32 {
    if (raw < least && slope > 0.0) || (raw > most && slope < 0.0) { 0.0 } else { slope }
}

/// Some traces.
#[derive(Debug)]
pub struct Batch {
    n: usize,
    /// `[n, paths]`.
    inputs: Vec<f32>,
    /// `[n, latent]`: what makes a sample of z.
    noise: Vec<f32>,
}

/// What the layers say of a batch, reused by the next one.
#[derive(Debug, Default)]
pub struct Work {
    encoder: [Vec<f32>; 3],
    decoder: [Vec<f32>; 3],
    /// z before each step of the flow, and after the last, `[n, latent]`.
    points: Vec<Vec<f64>>,
    /// Of each step the bends, `[n]`.
    bends: Vec<Vec<f64>>,
    /// z as the decoder takes it.
    z: Vec<f32>,
    /// Slopes by what layers put out, in turn.
    slopes: [Vec<f32>; 2],
}

/// The loss of a batch, its mean over traces, without what does not depend on the weights.
pub fn loss(shape: &Shape, weights: &[f32], batch: &Batch, work: &mut Work) -> f64 {
    let Work { encoder: [first, second, posterior], decoder: [third, fourth, outputs], points, bends, z, .. } = work;
    let (layers, latent, flow) = (shape.layers(), shape.latent, shape.flow(weights));
    layers[0].forward(weights, &batch.inputs, first);
    layers[1].forward(weights, first, second);
    layers[2].forward(weights, second, posterior); // [n, 2 latent]
    let mut sum = 0.0;
    points.resize(flow.len() + 1, Vec::new());
    bends.resize(flow.len(), Vec::new());
    points[0].clear();
    for (row, noise) in posterior.chunks_exact(2 * latent).zip(batch.noise.chunks_exact(latent)) {
        for idx in 0..latent {
            let ln_deviation = ln_posterior(row[latent + idx]);
            points[0].push(f64::from(row[idx]) + f64::from(ln_deviation).exp() * f64::from(noise[idx]));
            sum -= f64::from(ln_deviation); // ln q(z|x)
        }
    }
    for (idx, step) in flow.iter().enumerate() {
        let mut moved = std::mem::take(&mut points[idx + 1]);
        moved.clone_from(&points[idx]);
        bends[idx].clear();
        for z in moved.chunks_exact_mut(latent) {
            let bend = step.bend(z);
            sum -= step.apply(bend, z);
            bends[idx].push(bend);
        }
        points[idx + 1] = moved;
    }
    z.clear();
    for &value in &points[flow.len()] {
        sum += 0.5 * value * value; // −ln p(z)
        z.push(value as f32);
    }
    layers[3].forward(weights, z, third);
    layers[4].forward(weights, third, fourth);
    layers[5].forward(weights, fourth, outputs); // [n, 2 paths]
    let rows = batch.inputs.chunks_exact(shape.paths).zip(outputs.chunks_exact(2 * shape.paths));
    sum += rows.map(|(wanted, outputs)| surprise(shape, wanted, outputs)).sum::<f64>();
    sum / batch.n as f64
}

/// The loss, and its slopes by the weights.
pub fn loss_and_gradient(shape: &Shape, weights: &[f32], batch: &Batch, work: &mut Work, gradient: &mut [f32]) -> f64 {
    let loss = loss(shape, weights, batch, work);
    let Work { encoder, decoder, points, bends, z, slopes: [one, other] } = work;
    let (layers, latent, share) = (shape.layers(), shape.latent, 1.0 / batch.n as f64);
    one.clear();
    one.resize(decoder[2].len(), 0.0);
    let rows = batch.inputs.chunks_exact(shape.paths).zip(decoder[2].chunks_exact(2 * shape.paths));
    for ((wanted, outputs), to) in rows.zip(one.chunks_exact_mut(2 * shape.paths)) {
        surprise_slopes(shape, wanted, outputs, share as f32, to);
    }
    layers[5].backward(weights, &decoder[1], &decoder[2], one, gradient, Some(&mut *other));
    layers[4].backward(weights, &decoder[0], &decoder[1], other, gradient, Some(&mut *one));
    layers[3].backward(weights, z, &decoder[0], one, gradient, Some(&mut *other));
    let pull = points[shape.flows].iter().map(|value| value * share);
    let mut by_z: Vec<f64> = other.iter().zip(pull).map(|(slope, pull)| f64::from(*slope) + pull).collect();
    let mut of_step = vec![0.0; Planar::n_weights(latent)];
    let steps: Vec<(Planar, Range<usize>)> = shape.flow(weights).into_iter().zip(shape.steps()).collect();
    for (idx, (step, place)) in steps.into_iter().enumerate().rev() {
        step.backward(&points[idx], &bends[idx], share, &mut by_z, &mut of_step);
        gradient[place].iter_mut().zip(&of_step).for_each(|(to, slope)| *to = *slope as f32);
    }
    one.clear();
    let rows = encoder[2].chunks_exact(2 * latent).zip(batch.noise.chunks_exact(latent));
    for ((row, noise), by_z) in rows.zip(by_z.chunks_exact(latent)) {
        one.extend(by_z.iter().map(|slope| *slope as f32));
        for idx in 0..latent {
            let raw = row[latent + idx];
            let moved = f64::from(noise[idx]) * f64::from(ln_posterior(raw)).exp();
            one.push(within(raw, LN_POSTERIOR, (by_z[idx] * moved - share) as f32));
        }
    }
    layers[2].backward(weights, &encoder[1], &encoder[2], one, gradient, Some(&mut *other));
    layers[1].backward(weights, &encoder[0], &encoder[1], other, gradient, Some(&mut *one));
    layers[0].backward(weights, &batch.inputs, &encoder[0], one, gradient, None);
    loss
}

/// How to learn.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    /// Passes over the traces.
    pub epochs: usize,
    /// Traces in one pass; of more each pass takes others.
    pub max_traces: usize,
    /// Traces in one step.
    pub batch: usize,
    /// Adam's step size at the start; it falls to a fiftieth along half a cosine.
    pub learning_rate: f64,
    /// Seed of the initial weights, of the order of traces and of z.
    pub seed: u64,
}

/// Trains the networks on traces and returns their weights.
pub fn train(shape: &Shape, dimensions: &Dimensions, vectors: &[PathVector<'_>], schedule: &Schedule) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(schedule.seed);
    let mut weights = shape.initial_weights(&mut rng);
    let (mut gradient, mut adam) = (vec![0.0; weights.len()], Adam::new(weights.len()));
    let mut work = Work::default();
    let mut order: Vec<usize> = (0..vectors.len()).collect();
    let mut taken = order.len();
    let n_steps = schedule.epochs * order.len().min(schedule.max_traces).div_ceil(schedule.batch);
    let n_steps = n_steps.max(MIN_STEPS);
    let (mut batch, mut unused) = (Batch { n: 0, inputs: Vec::new(), noise: Vec::new() }, Vec::new());
    for step in 0..n_steps {
        if taken >= order.len() {
            order.shuffle(&mut rng);
            taken = 0;
        }
        let chosen = &order[taken..order.len().min(taken + schedule.batch)];
        taken += chosen.len();
        batch.inputs.clear();
        unused.clear();
        chosen.iter().for_each(|&idx| dimensions.standardise(&vectors[idx], &mut batch.inputs, &mut unused));
        (batch.n, batch.noise) = (chosen.len(), normals(chosen.len() * shape.latent, &mut rng));
        loss_and_gradient(shape, &weights, &batch, &mut work, &mut gradient);
        for layer in shape.layers() {
            clip(&mut gradient[layer.matrix()]);
            clip(&mut gradient[layer.bias()]);
        }
        shape.steps().for_each(|place| clip(&mut gradient[place]));
        let progress = step as f64 / n_steps as f64;
        adam.step(schedule.learning_rate * (0.02 + 0.49 * (1.0 + (PI * progress).cos())), &gradient, &mut weights);
    }
    weights
}

/// Cuts a gradient to [`MAX_NORM`].
fn clip(gradient: &mut [f32]) {
    let norm = gradient.iter().map(|slope| slope * slope).sum::<f32>().sqrt();
    if norm > MAX_NORM {
        gradient.iter_mut().for_each(|slope| *slope *= MAX_NORM / norm);
    }
}

/// Moments of gradients.
struct Adam {
    means: Vec<f32>,
    squares: Vec<f32>,
    /// Decays so far.
    decays: [f64; 2],
}

impl Adam {
    const DECAYS: [f32; 2] = [0.9, 0.999];

    fn new(n: usize) -> Self {
        Self { means: vec![0.0; n], squares: vec![0.0; n], decays: [1.0; 2] }
    }

    fn step(&mut self, rate: f64, gradient: &[f32], weights: &mut [f32]) {
        let [of_means, of_squares] = Self::DECAYS;
        self.decays[0] *= f64::from(of_means);
        self.decays[1] *= f64::from(of_squares);
        let rate = (rate / (1.0 - self.decays[0])) as f32;
        let scale = (1.0 / (1.0 - self.decays[1])) as f32;
        let moments = self.means.iter_mut().zip(&mut self.squares);
        for ((weight, slope), (mean, square)) in weights.iter_mut().zip(gradient).zip(moments) {
            *mean += (1.0 - of_means) * (slope - *mean);
            *square += (1.0 - of_squares) * (slope * slope - *square);
            *weight -= rate * *mean / ((*square * scale).sqrt() + 1e-8);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape { paths: 6, hidden: 5, latent: 3, flows: 2, min_ln_deviation: -2.3 };

    fn batch(n: usize, seed: u64) -> Batch {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        Batch { n, inputs: normals(n * SHAPE.paths, &mut rng), noise: normals(n * SHAPE.latent, &mut rng) }
    }

    fn weights(seed: u64) -> Vec<f32> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let (initial, draws) = (SHAPE.initial_weights(&mut rng), normals(SHAPE.n_weights(), &mut rng));
        initial.iter().zip(draws).map(|(weight, draw)| weight + 0.1 * draw).collect()
    }

    #[test]
    fn every_weight_has_one_place() {
        let mut n_owners = vec![0; SHAPE.n_weights()];
        let of_layers = SHAPE.layers().into_iter().flat_map(|layer| [layer.matrix(), layer.bias()]);
        for place in of_layers.chain(SHAPE.steps()) {
            n_owners[place].iter_mut().for_each(|n| *n += 1);
        }
        assert!(n_owners.iter().all(|n| *n == 1), "{n_owners:?}");
        assert_eq!(SHAPE.n_weights(), 35 + 30 + 36 + 20 + 30 + 72 + 2 * 7);
    }

    /// Every term by itself, from the definitions.
    #[test]
    fn the_loss_is_the_negative_evidence_lower_bound() {
        let (weights, batch) = (weights(3), batch(4, 4));
        let layers = SHAPE.layers();
        let through = |range: Range<usize>, row: &[f32]| {
            let mut row = row.to_vec();
            for layer in &layers[range] {
                let mut outputs = Vec::new();
                layer.forward(&weights, &row, &mut outputs);
                row = outputs;
            }
            row
        };
        let mut expected = 0.0;
        for (x, noise) in batch.inputs.chunks_exact(6).zip(batch.noise.chunks_exact(3)) {
            let posterior = through(0..3, x);
            let mut z: Vec<f64> = (0..3).map(|i| f64::from(posterior[i] + posterior[3 + i].exp() * noise[i])).collect();
            // ln q(z|x), without ln √2π; the noise's share does not depend on weights and is left out of both.
            expected -= posterior[3..].iter().copied().map(f64::from).sum::<f64>();
            for step in SHAPE.flow(&weights) {
                expected -= step.apply(step.bend(&z), &mut z);
            }
            expected += z.iter().map(|z| 0.5 * z * z).sum::<f64>();
            let z: Vec<f32> = z.iter().map(|z| *z as f32).collect();
            let outputs = through(3..6, &z);
            for i in 0..6 {
                let ln_deviation = outputs[6 + i].clamp(-2.3, 3.0);
                let distance = (x[i] - outputs[i]) / ln_deviation.exp();
                expected += f64::from(0.5 * distance * distance + ln_deviation);
            }
        }
        let found = loss(&SHAPE, &weights, &batch, &mut Work::default());
        assert!((found - expected / 4.0).abs() < 1e-4, "{found} against {}", expected / 4.0);
    }

    #[test]
    fn the_gradient_is_that_of_differences() {
        let (weights, batch, mut work) = (weights(5), batch(8, 6), Work::default());
        let mut gradient = vec![7.0; weights.len()];
        let found = loss_and_gradient(&SHAPE, &weights, &batch, &mut work, &mut gradient);
        assert_eq!(found, loss(&SHAPE, &weights, &batch, &mut work));
        let mut is_far = |idx: usize| {
            let mut at = |by: f32| {
                let mut weights = weights.clone();
                weights[idx] += by;
                loss(&SHAPE, &weights, &batch, &mut work)
            };
            let slope = (at(2e-3) - at(-2e-3)) / 4e-3;
            (slope - f64::from(gradient[idx])).abs() > 2e-2 + 0.02 * slope.abs()
        };
        let all = 0..SHAPE.n_weights();
        let n_far = all.filter(|&idx| is_far(idx)).count();
        // A step across the kink of a rectifier, or out of bounds, has another slope.
        assert!(n_far <= 12, "{n_far} of {}", SHAPE.n_weights());
    }

    #[test]
    fn slopes_of_the_surprise_are_those_of_differences_and_end_at_the_bounds() {
        let (wanted, outputs) = ([0.3, -4.0], [0.1, -3.0, -1.0, 0.5]);
        let mut found = [0.0; 4];
        surprise_slopes(&SHAPE, &wanted, &outputs, 2.0, &mut found);
        for (idx, found) in found.iter().enumerate() {
            let at = |by: f32| {
                let mut outputs = outputs;
                outputs[idx] += by;
                surprise(&SHAPE, &wanted, &outputs)
            };
            let slope = 2.0 * (at(1e-2) - at(-1e-2)) / 2e-2;
            assert!((slope - f64::from(*found)).abs() < 2e-3, "{idx}: {found} against {slope}");
        }
        // A deviation that would become smaller still, and one that would come back.
        surprise_slopes(&SHAPE, &[0.0, 5.0], &[0.0, 0.0, -4.0, -4.0], 1.0, &mut found);
        assert!(found[2] == 0.0 && found[3] < 0.0, "{found:?}");
    }

    #[test]
    fn training_lowers_the_loss_and_the_seed_decides() {
        let rows: Vec<(Vec<u64>, Vec<f64>)> = (0..300)
            .map(|idx| {
                let ms = f64::from(idx * 7 % 50);
                if idx % 2 == 0 { (vec![1, 2, 3], vec![ms, 2.0 * ms, 3.0]) } else { (vec![1, 4], vec![ms, 90.0 - ms]) }
            })
            .collect();
        let vectors: Vec<PathVector<'_>> = rows.iter().map(|(paths, ms)| PathVector { root: 1, paths, ms }).collect();
        let dimensions = super::super::dimensions::Census::of(&vectors).dimensions(6);
        let shape = Shape { paths: dimensions.len(), ..SHAPE };
        let schedule = Schedule { epochs: 1, max_traces: 300, batch: 32, learning_rate: 0.01, seed: 1 };
        let trained = train(&shape, &dimensions, &vectors, &schedule);
        let mut batch = Batch { n: 300, inputs: Vec::new(), noise: vec![0.1; 900] };
        vectors.iter().for_each(|vector| dimensions.standardise(vector, &mut batch.inputs, &mut Vec::new()));
        let at = |weights: &[f32]| loss(&shape, weights, &batch, &mut Work::default());
        let before = at(&shape.initial_weights(&mut ChaCha8Rng::seed_from_u64(1)));
        assert!(at(&trained) < before - 3.0, "{} from {before}", at(&trained));
        assert_eq!(train(&shape, &dimensions, &vectors, &schedule), trained);
        assert_ne!(train(&shape, &dimensions, &vectors, &Schedule { seed: 2, ..schedule }), trained);
    }
}
