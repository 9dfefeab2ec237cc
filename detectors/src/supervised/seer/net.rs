//! The network: a convolution over services and ticks, an LSTM over the ticks, a softmax over the services and "none".
//! In double precision and by hand, with the way back checked against finite differences; it is small.
//!
//! Weights lie in one list: kernels `[channels, 3, 3]` and their biases, input weights of the LSTM `[4 hidden, services
//! × channels]`, recurrent ones `[4 hidden, hidden]`, biases `[4 hidden]`, the head `[classes, hidden]` and its biases.
//! Gates are in the order input, forget, candidate, output.

use std::ops::Range;

use rand::{RngExt, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

/// Ticks and services that a kernel sees on each side.
const REACH: usize = 1;
const KERNEL: usize = 2 * REACH + 1;

/// Adam (Kingma, Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015): its published constants.
const MEAN_DECAY: f64 = 0.9;
const SQUARE_DECAY: f64 = 0.999;
const EPSILON: f64 = 1e-8;

/// Norm to which a gradient is cut, and the penalty on squared weights.
const MOST_GRADIENT: f64 = 5.0;
const WEIGHT_DECAY: f64 = 1e-4;

/// Sizes of the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub services: usize,
    pub window: usize,
    pub channels: usize,
    pub hidden: usize,
}

/// Where the weights lie.
struct Places {
    kernels: Range<usize>,
    kernel_biases: Range<usize>,
    inputs: Range<usize>,
    recurrent: Range<usize>,
    biases: Range<usize>,
    head: Range<usize>,
    head_biases: Range<usize>,
}

impl Shape {
    /// Services and "none", which is class 0.
    pub fn n_classes(&self) -> usize {
        self.services + 1
    }

    /// Numbers of an input, tick by tick.
    pub fn n_inputs(&self) -> usize {
        self.window * self.services
    }

    fn n_maps(&self) -> usize {
        self.services * self.channels
    }

    fn places(&self) -> Places {
        let mut end = 0;
        let mut next = |n: usize| {
            end += n;
            end - n..end
        };
        Places {
            kernels: next(self.channels * KERNEL * KERNEL),
            kernel_biases: next(self.channels),
            inputs: next(4 * self.hidden * self.n_maps()),
            recurrent: next(4 * self.hidden * self.hidden),
            biases: next(4 * self.hidden),
            head: next(self.n_classes() * self.hidden),
            head_biases: next(self.n_classes()),
        }
    }

    pub fn n_weights(&self) -> usize {
        self.places().head_biases.end
    }

    /// Uniform weights in ±√(6 / (inputs + outputs)), no biases but that of the forget gates, which is 1.
    pub fn initial_weights(&self, rng: &mut ChaCha8Rng) -> Vec<f64> {
        let mut weights = vec![0.0; self.n_weights()];
        let places = self.places();
        let square = KERNEL * KERNEL;
        for (range, fans) in [
            (places.kernels, square + square * self.channels),
            (places.inputs, self.n_maps() + self.hidden),
            (places.recurrent, 2 * self.hidden),
            (places.head, self.hidden + self.n_classes()),
        ] {
            let bound = (6.0 / fans as f64).sqrt();
            weights[range].iter_mut().for_each(|weight| *weight = (2.0 * rng.random::<f64>() - 1.0) * bound);
        }
        let forget = places.biases.start + self.hidden..places.biases.start + 2 * self.hidden;
        weights[forget].fill(1.0);
        weights
    }
}

/// What one input makes of the layers. Made to be used again.
#[derive(Debug, Default)]
pub(super) struct Pass {
    /// `[window, services × channels]`.
    maps: Vec<f64>,
    /// `[window, 4 hidden]`, and `[window + 1, hidden]` of which the first is 0.
    gates: Vec<f64>,
    cells: Vec<f64>,
    states: Vec<f64>,
    /// How likely each class is.
    pub shares: Vec<f64>,
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

fn dot(one: &[f64], other: &[f64]) -> f64 {
    one.iter().zip(other).map(|(a, b)| a * b).sum()
}

/// Adds `by` times `from`.
fn add(to: &mut [f64], by: f64, from: &[f64]) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to += by * from);
}

impl Pass {
    /// The way forth.
    pub fn run(&mut self, shape: Shape, weights: &[f64], input: &[f64]) {
        let (places, hidden, n_maps) = (shape.places(), shape.hidden, shape.n_maps());
        self.maps.clear();
        for tick in 0..shape.window {
            for service in 0..shape.services {
                for channel in 0..shape.channels {
                    let kernel = &weights[places.kernels.clone()][channel * KERNEL * KERNEL..];
                    let mut sum = weights[places.kernel_biases.start + channel];
                    shape.each_seen(tick, service, |place, seen| sum += kernel[place] * input[seen]);
                    self.maps.push(sum.max(0.0));
                }
            }
        }
        self.gates.clear();
        for list in [&mut self.cells, &mut self.states] {
            list.clear();
            list.resize((shape.window + 1) * hidden, 0.0);
        }
        for tick in 0..shape.window {
            let maps = &self.maps[tick * n_maps..][..n_maps];
            let before = tick * hidden..(tick + 1) * hidden;
            for gate in 0..4 * hidden {
                let sum = weights[places.biases.start + gate]
                    + dot(&weights[places.inputs.clone()][gate * n_maps..][..n_maps], maps)
                    + dot(&weights[places.recurrent.clone()][gate * hidden..][..hidden], &self.states[before.clone()]);
                self.gates.push(if gate / hidden == 2 { sum.tanh() } else { sigmoid(sum) });
            }
            let gates = &self.gates[tick * 4 * hidden..];
            for unit in 0..hidden {
                let [input, forget, candidate, output] = [0, 1, 2, 3].map(|gate| gates[gate * hidden + unit]);
                let cell = forget * self.cells[before.start + unit] + input * candidate;
                self.cells[before.end + unit] = cell;
                self.states[before.end + unit] = output * cell.tanh();
            }
        }
        let last = &self.states[shape.window * hidden..];
        self.shares.clear();
        let head = &weights[places.head.clone()];
        self.shares.extend(
            (0..shape.n_classes())
                .map(|class| weights[places.head_biases.start + class] + dot(&head[class * hidden..][..hidden], last)),
        );
        let most = self.shares.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        self.shares.iter_mut().for_each(|share| *share = (*share - most).exp());
        let sum: f64 = self.shares.iter().sum();
        self.shares.iter_mut().for_each(|share| *share /= sum);
    }

    #[cfg(test)]
    /// The loss of an input that has been run: −ln of the share of its class.
    pub fn loss(&self, class: usize) -> f64 {
        -self.shares[class].max(1e-300).ln()
    }

    /// The way back of an input that has been run: adds `scale` times the gradient of its loss.
    pub fn back(
        &self,
        shape: Shape,
        weights: &[f64],
        (input, class): (&[f64], usize),
        scale: f64,
        gradient: &mut [f64],
    ) {
        let (places, hidden, n_maps) = (shape.places(), shape.hidden, shape.n_maps());
        let last = &self.states[shape.window * hidden..];
        let mut of_state = vec![0.0; hidden];
        for (own, share) in self.shares.iter().enumerate() {
            let off = scale * (share - f64::from(u8::from(own == class)));
            let row = places.head.start + own * hidden..places.head.start + (own + 1) * hidden;
            add(&mut gradient[row.clone()], off, last);
            gradient[places.head_biases.start + own] += off;
            add(&mut of_state, off, &weights[row]);
        }
        let mut of_cell = vec![0.0; hidden];
        let mut of_gates = vec![0.0; 4 * hidden];
        let mut of_maps = vec![0.0; n_maps];
        for tick in (0..shape.window).rev() {
            let gates = &self.gates[tick * 4 * hidden..];
            let (before, after) = (tick * hidden, (tick + 1) * hidden);
            for unit in 0..hidden {
                let [input, forget, candidate, output] = [0, 1, 2, 3].map(|gate| gates[gate * hidden + unit]);
                let squashed = self.cells[after + unit].tanh();
                let cell = of_cell[unit] + of_state[unit] * output * (1.0 - squashed * squashed);
                of_gates[unit] = cell * candidate * input * (1.0 - input);
                of_gates[hidden + unit] = cell * self.cells[before + unit] * forget * (1.0 - forget);
                of_gates[2 * hidden + unit] = cell * input * (1.0 - candidate * candidate);
                of_gates[3 * hidden + unit] = of_state[unit] * squashed * output * (1.0 - output);
                of_cell[unit] = cell * forget;
            }
            of_state.fill(0.0);
            of_maps.fill(0.0);
            let maps = &self.maps[tick * n_maps..][..n_maps];
            for (gate, of_gate) in of_gates.iter().enumerate() {
                let inputs = places.inputs.start + gate * n_maps..places.inputs.start + (gate + 1) * n_maps;
                add(&mut gradient[inputs.clone()], *of_gate, maps);
                add(&mut of_maps, *of_gate, &weights[inputs]);
                let row = places.recurrent.start + gate * hidden..places.recurrent.start + (gate + 1) * hidden;
                add(&mut gradient[row.clone()], *of_gate, &self.states[before..after]);
                add(&mut of_state, *of_gate, &weights[row]);
                gradient[places.biases.start + gate] += of_gate;
            }
            for (map, of_map) in of_maps.iter().enumerate().filter(|(map, _)| maps[*map] > 0.0) {
                let (service, channel) = (map / shape.channels, map % shape.channels);
                let first = places.kernels.start + channel * KERNEL * KERNEL;
                shape.each_seen(tick, service, |place, seen| gradient[first + place] += of_map * input[seen]);
                gradient[places.kernel_biases.start + channel] += of_map;
            }
        }
    }
}

impl Shape {
    /// The places of a kernel at a tick and service, each with the place of the input that it sees; the edge sees nothing.
    fn each_seen(&self, tick: usize, service: usize, mut look: impl FnMut(usize, usize)) {
        for row in 0..KERNEL {
            let Some(seen_tick) = (tick + row).checked_sub(REACH).filter(|seen| *seen < self.window) else { continue };
            for column in 0..KERNEL {
                let seen_service = (service + column).checked_sub(REACH).filter(|seen| *seen < self.services);
                if let Some(seen_service) = seen_service {
                    look(row * KERNEL + column, seen_tick * self.services + seen_service);
                }
            }
        }
    }
}

/// What to learn from: inputs one after the other, their classes, and how much each counts.
#[derive(Debug, Default)]
pub(super) struct Lessons {
    pub inputs: Vec<f64>,
    pub classes: Vec<usize>,
    pub scales: Vec<f64>,
}

/// How to learn.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    pub epochs: usize,
    pub batch: usize,
    pub learning_rate: f64,
    pub seed: u64,
}

/// Learns; the weights are finite or training has diverged.
pub(super) fn train(shape: Shape, lessons: &Lessons, schedule: Schedule) -> Vec<f64> {
    let mut rng = ChaCha8Rng::seed_from_u64(schedule.seed);
    let mut weights = shape.initial_weights(&mut rng);
    let n_weights = weights.len();
    let (mut means, mut squares) = (vec![0.0; n_weights], vec![0.0; n_weights]);
    let (mut pass, mut gradient, mut n_steps) = (Pass::default(), vec![0.0; n_weights], 0);
    let mut order: Vec<usize> = (0..lessons.classes.len()).collect();
    for _ in 0..schedule.epochs {
        order.shuffle(&mut rng);
        for batch in order.chunks(schedule.batch) {
            gradient.fill(0.0);
            for &lesson in batch {
                let input = &lessons.inputs[lesson * shape.n_inputs()..][..shape.n_inputs()];
                pass.run(shape, &weights, input);
                let scale = lessons.scales[lesson] / batch.len() as f64;
                pass.back(shape, &weights, (input, lessons.classes[lesson]), scale, &mut gradient);
            }
            let norm = dot(&gradient, &gradient).sqrt();
            let cut = if norm > MOST_GRADIENT { MOST_GRADIENT / norm } else { 1.0 };
            n_steps += 1;
            let fade = |decay: f64| 1.0 - decay.powi(n_steps);
            let (mean_bias, square_bias) = (fade(MEAN_DECAY), fade(SQUARE_DECAY));
            let moments = means.iter_mut().zip(&mut squares);
            for ((weight, own), (mean, square)) in weights.iter_mut().zip(&gradient).zip(moments) {
                let own = own * cut + WEIGHT_DECAY * *weight;
                *mean += (1.0 - MEAN_DECAY) * (own - *mean);
                *square += (1.0 - SQUARE_DECAY) * (own * own - *square);
                *weight -= schedule.learning_rate * (*mean / mean_bias) / ((*square / square_bias).sqrt() + EPSILON);
            }
        }
    }
    weights
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape { services: 4, window: 5, channels: 2, hidden: 3 };

    fn case(seed: u64) -> (Vec<f64>, Vec<f64>) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut weights = SHAPE.initial_weights(&mut rng);
        weights.iter_mut().for_each(|weight| *weight += 0.2 * (rng.random::<f64>() - 0.5));
        let input = (0..SHAPE.n_inputs()).map(|_| 2.0 * rng.random::<f64>() - 1.0).collect();
        (weights, input)
    }

    #[test]
    fn the_way_back_is_what_small_steps_say() {
        const STEP: f64 = 1e-6;
        for seed in 0..4 {
            let (mut weights, input) = case(seed);
            let class = seed as usize % SHAPE.n_classes();
            let mut pass = Pass::default();
            pass.run(SHAPE, &weights, &input);
            let mut gradient = vec![0.0; weights.len()];
            pass.back(SHAPE, &weights, (&input, class), 1.0, &mut gradient);
            assert!(gradient.iter().filter(|own| own.abs() > 1e-9).count() > weights.len() / 2, "hardly any moves");
            for idx in 0..weights.len() {
                let own = weights[idx];
                let mut loss_at = |weight: f64| {
                    weights[idx] = weight;
                    pass.run(SHAPE, &weights, &input);
                    pass.loss(class)
                };
                let steps = (loss_at(own + STEP) - loss_at(own - STEP)) / (2.0 * STEP);
                weights[idx] = own;
                let off = (steps - gradient[idx]).abs();
                assert!(off < 1e-6 * steps.abs().max(1.0), "weight {idx}: {steps} and {}", gradient[idx]);
            }
        }
    }

    #[test]
    fn the_first_tick_has_no_state_before_it_and_shares_sum_to_one() {
        let (weights, input) = case(7);
        let (mut pass, mut again) = (Pass::default(), Pass::default());
        pass.run(SHAPE, &weights, &input);
        again.run(SHAPE, &weights, &input);
        pass.run(SHAPE, &weights, &input);
        assert_eq!(pass.shares, again.shares, "nothing is left of an earlier run");
        assert!((pass.shares.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        assert_eq!(weights.len(), 2 * 9 + 2 + 12 * 8 + 12 * 3 + 12 + 5 * 3 + 5);
    }

    #[test]
    fn it_learns_which_service_has_begun_to_grow_and_the_same_again() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let mut lessons = Lessons::default();
        for idx in 0..200 {
            let class = idx % SHAPE.n_classes();
            for tick in 0..SHAPE.window {
                for service in 0..SHAPE.services {
                    let growth = if service + 1 == class { tick as f64 / 2.0 } else { 0.0 };
                    lessons.inputs.push(growth + 0.5 * (rng.random::<f64>() - 0.5));
                }
            }
            lessons.classes.push(class);
            lessons.scales.push(1.0);
        }
        let shape = Shape { hidden: 8, ..SHAPE };
        let schedule = Schedule { epochs: 60, batch: 16, learning_rate: 0.01, seed: 1 };
        let weights = train(shape, &lessons, schedule);
        let mut pass = Pass::default();
        let is_right = |(idx, class): (usize, &usize)| {
            pass.run(shape, &weights, &lessons.inputs[idx * shape.n_inputs()..][..shape.n_inputs()]);
            pass.shares.iter().all(|share| *share <= pass.shares[*class])
        };
        let n_right = lessons.classes.iter().enumerate().map(is_right).filter(|is_right| *is_right).count();
        assert!(n_right > 190, "{n_right} of 200");
        assert_eq!(train(shape, &lessons, schedule), weights);
    }
}
