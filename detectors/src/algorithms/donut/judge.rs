//! Donut's score: how unlikely the last point of a window is to be reconstructed.
//!
//! E over q(z|x) of -ln p(x_last|z), nats, as a mean over samples of z. Gaps are filled in
//! first (the paper's MCMC imputation): a window is encoded and decoded a few times, each time with a sample of z, and its
//! gaps take a sample of what comes out.
//!
//! The normal draws behind all samples are made once from the seed and are the same for each point; those of z come in
//! pairs of opposite sign, which takes half of the noise out of a mean over few of them. The mean over the first few
//! decides whether a point gets the others. One that gets them has, to the last bit, the score that it would have had
//! without the first look.
//!
//! Cost at the defaults: 52 kFLOP a point to encode, 27 for each sample of z; a window with a gap costs 124 for each of
//! the imputations besides.

use std::{f64::consts::TAU, ops::Range};

use faultline_core::hash::StableHash;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::{
    Config,
    kernel::{Kernel, Layers, deviation},
    net::{FAR, Shape, normals},
};

/// Windows that are judged together: a memory bound.
pub const CHUNK: usize = 128;

/// The normal draws that make samples.
#[derive(Debug)]
pub struct Draws {
    /// `[samples, latent]`, for the score.
    z: Vec<f32>,
    /// `[imputations, latent]` and `[imputations, window]`, for what fills gaps.
    filling_z: Vec<f32>,
    filling: Vec<f32>,
}

impl Draws {
    /// Those of a seed. More samples or imputations begin with the same ones.
    pub fn new(config: &Config, seed: u64) -> Self {
        let rng = |what: &str| ChaCha8Rng::seed_from_u64(StableHash::new().number(seed).text(what).finish());
        let pairs = normals(config.samples.div_ceil(2) * config.latent, &mut rng("samples"));
        let both = pairs.chunks_exact(config.latent).flat_map(|draw| {
            let opposite = draw.iter().map(|value| -value);
            draw.iter().copied().chain(opposite)
        });
        Self {
            z: both.take(config.samples * config.latent).collect(),
            filling_z: normals(config.imputations * config.latent, &mut rng("imputed z")),
            filling: normals(config.imputations * config.window, &mut rng("imputed points")),
        }
    }
}

/// How many samples a point gets.
#[derive(Clone, Copy, Debug)]
pub struct Looks {
    /// At first, one at least.
    pub first: usize,
    /// In all, where the first look gives this score or more.
    pub all: usize,
    /// See `all`.
    pub from: f64,
}

/// Buffers that calls share.
#[derive(Debug, Default)]
pub struct Scratch {
    layers: Layers,
    /// `[n, window]`: what is encoded, gaps filled in.
    inputs: Vec<f32>,
    /// The same of windows with gaps only.
    filled: Vec<f32>,
    /// `[n, 2 * latent]`: means, then deviations.
    posteriors: Vec<f32>,
    /// Samples of z.
    z: Vec<f32>,
    /// What the decoder says of them.
    outputs: Vec<f32>,
}

/// Judges windows of one series. They are standardised, and a gap is not a number.
#[derive(Clone, Copy, Debug)]
pub struct Judge<'a> {
    /// Sizes of its networks.
    pub shape: Shape,
    /// Its networks.
    pub kernel: &'a Kernel,
    /// What makes samples.
    pub draws: &'a Draws,
}

/// -ln p of a value that is normally distributed, nats.
fn surprise(value: f32, mean: f32, deviation: f32) -> f64 {
    let deviation = f64::from(deviation);
    let distance = (f64::from(value) - f64::from(mean)) / deviation;
    0.5 * distance * distance + deviation.ln() + 0.5 * TAU.ln()
}

/// Samples of z: for each draw the means plus as many deviations.
fn sample<'a>(posterior: &'a [f32], draw: &'a [f32]) -> impl Iterator<Item = f32> + 'a {
    let (means, deviations) = posterior.split_at(posterior.len() / 2);
    means.iter().zip(deviations).zip(draw).map(|((mean, deviation), draw)| mean + deviation * draw)
}

impl Judge<'_> {
    /// Appends the score of each of `windows`, which lie one after another.
    pub fn surprises(&self, windows: &[f32], looks: Looks, scratch: &mut Scratch, surprises: &mut Vec<f64>) {
        let length = self.shape.window;
        let n_first = looks.first.min(looks.all);
        for windows in windows.chunks(CHUNK * length) {
            self.infer(windows, scratch);
            let mut chosen: Vec<usize> = (0..windows.len() / length).collect();
            let mut sums = vec![0.0; chosen.len()];
            self.add(0..n_first, &chosen, windows, scratch, &mut sums);
            let begin = surprises.len();
            surprises.extend(sums.iter().map(|sum| sum / n_first as f64));
            chosen.retain(|&idx| surprises[begin + idx] >= looks.from);
            if n_first < looks.all && !chosen.is_empty() {
                self.add(n_first..looks.all, &chosen, windows, scratch, &mut sums);
                for idx in chosen {
                    surprises[begin + idx] = sums[idx] / looks.all as f64;
                }
            }
        }
    }

    /// For each of the first `samples` samples of z mean and deviation of the last point of a window.
    pub fn expectations(&self, window: &[f32], samples: usize) -> Vec<(f64, f64)> {
        let mut scratch = Scratch::default();
        self.infer(window, &mut scratch);
        let Scratch { layers, posteriors, z, outputs, .. } = &mut scratch;
        for draw in self.draws.z.chunks_exact(self.shape.latent).take(samples) {
            z.extend(sample(posteriors, draw));
        }
        self.kernel.decode_last(z, layers, outputs);
        outputs.chunks_exact(2).map(|output| (f64::from(output[0]), f64::from(output[1]))).collect()
    }

    /// Adds to the sums of the chosen windows the surprise at their last points under some samples of z.
    fn add(&self, samples: Range<usize>, chosen: &[usize], windows: &[f32], scratch: &mut Scratch, sums: &mut [f64]) {
        let Shape { window: length, latent, .. } = self.shape;
        let Scratch { layers, posteriors, z, outputs, .. } = scratch;
        let n_samples = samples.len();
        let draws = &self.draws.z[samples.start * latent..samples.end * latent];
        z.clear();
        for &idx in chosen {
            let posterior = &posteriors[idx * 2 * latent..][..2 * latent];
            for draw in draws.chunks_exact(latent) {
                z.extend(sample(posterior, draw));
            }
        }
        self.kernel.decode_last(z, layers, outputs);
        for (&idx, outputs) in chosen.iter().zip(outputs.chunks_exact(2 * n_samples)) {
            let last = windows[(idx + 1) * length - 1];
            for output in outputs.chunks_exact(2) {
                sums[idx] += surprise(last, output[0], output[1]);
            }
        }
    }

    /// Leaves the posteriors of windows in `scratch`.
    fn infer(&self, windows: &[f32], scratch: &mut Scratch) {
        let fed = |&value: &f32| if value.is_nan() { 0.0 } else { value.clamp(-FAR, FAR) };
        scratch.inputs.clear();
        scratch.inputs.extend(windows.iter().map(fed));
        let with_gaps: Vec<usize> = windows
            .chunks_exact(self.shape.window)
            .enumerate()
            .filter(|(_, window)| window.iter().any(|value| value.is_nan()))
            .map(|(idx, _)| idx)
            .collect();
        if !with_gaps.is_empty() {
            self.fill(windows, &with_gaps, scratch);
        }
        self.kernel.encode(&scratch.inputs, &mut scratch.layers, &mut scratch.posteriors);
    }

    /// Fills the gaps of some windows among the inputs.
    fn fill(&self, windows: &[f32], with_gaps: &[usize], scratch: &mut Scratch) {
        let Shape { window: length, latent, .. } = self.shape;
        let Scratch { layers, inputs, filled, posteriors, z, outputs } = scratch;
        filled.clear();
        for &idx in with_gaps {
            filled.extend_from_slice(&inputs[idx * length..][..length]);
        }
        let draws = self.draws.filling_z.chunks_exact(latent).zip(self.draws.filling.chunks_exact(length));
        for (of_z, of_points) in draws {
            self.kernel.encode(filled, layers, posteriors);
            z.clear();
            for posterior in posteriors.chunks_exact(2 * latent) {
                z.extend(sample(posterior, of_z));
            }
            self.kernel.decode(z, layers, outputs);
            let rows = filled.chunks_exact_mut(length).zip(outputs.chunks_exact(2 * length));
            for ((filled, output), &idx) in rows.zip(with_gaps) {
                let window = &windows[idx * length..][..length];
                for at in (0..length).filter(|&at| window[at].is_nan()) {
                    let value = output[at] + deviation(output[length + at]) * of_points[at];
                    filled[at] = value.clamp(-FAR, FAR);
                }
            }
        }
        for (filled, &idx) in filled.chunks_exact(length).zip(with_gaps) {
            inputs[idx * length..][..length].copy_from_slice(filled);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::algorithms::donut::net;

    fn config() -> Config {
        Config { window: 20, hidden: 16, latent: 3, samples: 31, ..Config::default() }
    }

    fn shape() -> Shape {
        Shape { window: 20, hidden: 16, latent: 3 }
    }

    fn kernel() -> Kernel {
        Kernel::new(shape(), &net::initial_weights(shape(), &mut ChaCha8Rng::seed_from_u64(1)))
    }

    fn surprises(draws: &Draws, windows: &[f32], looks: Looks) -> Vec<f64> {
        let (kernel, mut surprises) = (kernel(), Vec::new());
        let judge = Judge { shape: shape(), kernel: &kernel, draws };
        judge.surprises(windows, looks, &mut Scratch::default(), &mut surprises);
        surprises
    }

    #[test]
    fn draws_are_pairs_of_opposite_sign_and_the_seed_decides_them() {
        let (draws, more) = (Draws::new(&config(), 5), Draws::new(&Config { samples: 64, ..config() }, 5));
        assert_eq!((draws.z.len(), more.z.len(), draws.filling.len()), (31 * 3, 64 * 3, 10 * 20));
        assert_eq!(draws.z, more.z[..31 * 3]);
        for pair in more.z.chunks_exact(6) {
            let opposite: Vec<f32> = pair[3..].iter().map(|value| -value).collect();
            assert_eq!(pair[..3], opposite);
        }
        assert_ne!(Draws::new(&config(), 6).z, draws.z);
    }

    #[test]
    fn a_second_look_gives_the_score_of_all_samples_and_only_where_it_is_due() {
        let draws = Draws::new(&config(), 5);
        let windows = normals(300 * 20, &mut ChaCha8Rng::seed_from_u64(2));
        let all = surprises(&draws, &windows, Looks { first: 31, all: 31, from: f64::INFINITY });
        let first = surprises(&draws, &windows, Looks { first: 4, all: 4, from: f64::INFINITY });
        let mut sorted = first.clone();
        sorted.sort_by(f64::total_cmp);
        let from = sorted[270];
        let both = surprises(&draws, &windows, Looks { first: 4, all: 31, from });
        let mut n_second = 0;
        for ((both, first), all) in both.iter().zip(&first).zip(&all) {
            n_second += usize::from(*first >= from);
            assert_eq!(both, if *first >= from { all } else { first });
        }
        assert_eq!((both.len(), n_second), (300, 30));
        assert!(first.iter().zip(&all).any(|(first, all)| first != all));
    }

    #[test]
    fn a_score_is_the_mean_surprise_over_samples() {
        let draws = Draws::new(&config(), 5);
        let window = normals(20, &mut ChaCha8Rng::seed_from_u64(3));
        let weights = net::initial_weights(shape(), &mut ChaCha8Rng::seed_from_u64(1));
        let posterior = net::encoded(shape(), &weights, &window);
        let z: Vec<f32> =
            draws.z.chunks_exact(3).flat_map(|draw| sample(&posterior, draw).collect::<Vec<_>>()).collect();
        let decoded = net::decoded(shape(), &weights, &z);
        let decoded = decoded.chunks_exact(40).map(|row| surprise(window[19], row[19], row[39]));
        let expected = decoded.sum::<f64>() / 31.0;
        let ours = surprises(&draws, &window, Looks { first: 31, all: 31, from: 0.0 })[0];
        assert!((ours - expected).abs() < 1e-3, "{ours} against {expected}");
        let kernel = kernel();
        let judge = Judge { shape: shape(), kernel: &kernel, draws: &draws };
        let expectations = judge.expectations(&window, 31);
        let mean = |of: &dyn Fn(&(f64, f64)) -> f64| expectations.iter().map(of).sum::<f64>() / 31.0;
        let of_them = mean(&|(mean, deviation)| surprise(window[19], *mean as f32, *deviation as f32));
        assert!(expectations.len() == 31 && (of_them - ours).abs() < 1e-6, "{of_them} against {ours}");
    }

    #[test]
    fn gaps_are_filled_and_leave_other_windows_alone() {
        let draws = Draws::new(&config(), 5);
        let mut windows = normals(3 * 20, &mut ChaCha8Rng::seed_from_u64(4));
        let looks = Looks { first: 8, all: 8, from: 0.0 };
        let whole = surprises(&draws, &windows, looks);
        windows[25..33].fill(f32::NAN);
        let gap = surprises(&draws, &windows, looks);
        assert_eq!((gap[0], gap[2]), (whole[0], whole[2]));
        assert!(gap[1].is_finite() && gap[1] != whole[1]);
        let unfilled = surprises(&Draws::new(&Config { imputations: 0, ..config() }, 5), &windows, looks);
        assert!(unfilled[0] == gap[0] && unfilled[1] != gap[1], "{unfilled:?}");
        let alone = surprises(&draws, &windows[20..40], looks);
        assert_eq!(alone[0], gap[1], "whatever company it has");
    }
}
