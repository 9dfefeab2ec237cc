//! How long the present run of a series is, as a probability of each length.
//!
//! Adams and MacKay, algorithm 1: each hypothesis, a run that began at some point, predicts the next point by what it has seen
//! (Student's t, from a normal of unknown mean and variance under a normal-inverse-gamma prior), gains or loses by how well it did,
//! goes on with probability 1 − h and ends with h, where a new run begins. The 128 likeliest hypotheses are kept.
//!
//! Beyond the paper, each because real series need it:
//! - A point is an outlier with probability `outlier_share`, of a Cauchy distribution ten units wide around the run, and teaches
//!   the run as much as it belongs to it. So a lone spike is no change. Without this every spike of eight deviations was two.
//! - A point counts as (1 − ρ)/(1 + ρ) points, ρ being the correlation of neighbours about the likeliest run: its probability
//!   is taken to that power, as for a posterior that is coarsened (Miller and Dunson, "Robust Bayesian Inference via Coarsening",
//!   Journal of the American Statistical Association 2019). So a series that wanders does not change all the time: with
//!   ρ = .9 there were 486 changes in 20,000 points without this, and none with it.
//! - A run remembers `MEMORY` points.

use crate::bytes::{Reader, Writer};

/// Hypotheses that are kept.
pub const MOST_RUNS: usize = 128;

/// The prior of a run: how many points its mean is worth, half of how many its variance is, and half their sum of squares.
const PRIOR_WEIGHT: f64 = 0.1;
const PRIOR_SHAPE: f64 = 1.0;
const PRIOR_SQUARES: f64 = 1.0;

/// Width of the outliers' distribution.
const OUTLIER_WIDTH: f64 = 10.0;

/// Points that a run remembers, in weight.
const MEMORY: f64 = 10_000.0;

/// Points that the correlation of neighbours is taken over.
const CORRELATION_MEMORY: f64 = 500.0;

/// No series is taken to be more correlated.
const MOST_CORRELATED: f64 = 0.98;

/// By how much, in nats, a point may be likelier in a run than as an outlier until the latter is left out.
const CLEAR: f64 = 20.0;

/// What is held to be known of all series.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Beliefs {
    /// Probability that a run ends with a point: h.
    pub hazard: f64,
    /// Probability that a point is an outlier.
    pub outlier_share: f64,
}

/// See the file's documentation. Values are in units of the series' scale, about its middle.
#[derive(Clone, Debug, PartialEq)]
pub struct Runs {
    n_runs: usize,
    /// Index of the likeliest one.
    likeliest: usize,
    ln_p: [f32; MOST_RUNS],
    /// Points since it began, up to 65,535.
    age: [u16; MOST_RUNS],
    /// Points that it has learned from, outliers and correlation allowed for.
    weight: [f32; MOST_RUNS],
    mean: [f32; MOST_RUNS],
    /// Half the sum of squares about the mean, with the prior.
    squares: [f32; MOST_RUNS],
    /// Deviation of the last point from the likeliest run, in that run's deviations.
    last: f64,
    /// Mean product of neighbours, and mean square.
    product: f64,
    square: f64,
    n_pairs: u32,
}

/// A run as it is told of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Run {
    /// Points since it began.
    pub age: u16,
    /// Their mean.
    pub mean: f64,
}

impl Runs {
    /// Nothing has been seen: a run begins.
    pub fn new() -> Self {
        let mut runs = Self {
            n_runs: 0,
            likeliest: 0,
            ln_p: [0.0; MOST_RUNS],
            age: [0; MOST_RUNS],
            weight: [0.0; MOST_RUNS],
            mean: [0.0; MOST_RUNS],
            squares: [0.0; MOST_RUNS],
            last: 0.0,
            product: 0.0,
            square: 0.0,
            n_pairs: 0,
        };
        runs.begin(0, 0.0);
        runs
    }

    /// Takes a finite point.
    pub fn observe(&mut self, point: f64, beliefs: &Beliefs) {
        let worth = self.worth(point);
        let mut best = f32::NEG_INFINITY;
        for run in 0..self.n_runs {
            let ln_density = self.learn(run, point, worth, beliefs);
            self.ln_p[run] += (worth * ln_density) as f32;
            best = best.max(self.ln_p[run]);
        }
        let total: f64 = self.ln_p[..self.n_runs].iter().map(|ln_p| f64::from(ln_p - best).exp()).sum();
        let shift = (-beliefs.hazard).ln_1p() - f64::from(best) - total.ln();
        let (mut least, mut most) = (0, 0);
        for run in 0..self.n_runs {
            self.ln_p[run] = (f64::from(self.ln_p[run]) + shift) as f32;
            if self.ln_p[run] > self.ln_p[most] {
                most = run;
            }
            if self.ln_p[run] < self.ln_p[least] {
                least = run;
            }
        }
        self.likeliest = most;
        let place = if self.n_runs < MOST_RUNS { self.n_runs } else { least };
        self.begin(place, beliefs.hazard.ln());
    }

    /// −ln of the probability that the run is older than `recent` points.
    pub fn surprise(&self, recent: u16) -> f64 {
        /// Surprises end here, where single precision does.
        const MOST: f64 = 100.0;
        let ages = self.age[..self.n_runs].iter();
        let (mut old, mut all) = (0.0, 0.0);
        for (age, ln_p) in ages.zip(&self.ln_p) {
            let p = f64::from(*ln_p).exp();
            all += p;
            old += if *age > recent { p } else { 0.0 };
        }
        if old <= 0.0 { MOST } else { (all / old).ln().clamp(0.0, MOST) }
    }

    /// The likeliest run.
    pub fn likeliest(&self) -> Run {
        Run { age: self.age[self.likeliest], mean: f64::from(self.mean[self.likeliest]) }
    }

    /// How likely each age is, in no order: for tests.
    #[cfg(test)]
    pub fn probabilities(&self) -> impl Iterator<Item = (u16, f64)> + '_ {
        self.age[..self.n_runs].iter().zip(&self.ln_p).map(|(age, ln_p)| (*age, f64::from(*ln_p).exp()))
    }

    fn begin(&mut self, place: usize, ln_p: f64) {
        self.ln_p[place] = ln_p as f32;
        self.age[place] = 0;
        self.weight[place] = 0.0;
        self.mean[place] = 0.0;
        self.squares[place] = PRIOR_SQUARES as f32;
        self.n_runs = self.n_runs.max(place + 1);
    }

    /// How many points the next one counts for, by how alike neighbours have been.
    fn worth(&mut self, point: f64) -> f64 {
        /// Correlations of few pairs are taken for smaller than they are.
        const CAUTION: f64 = 20.0;
        const FARTHEST: f64 = 4.0;
        let run = self.likeliest;
        let variance = f64::from(self.squares[run]) / (PRIOR_SHAPE + f64::from(self.weight[run]) / 2.0);
        let deviation = variance.sqrt().max(f64::MIN_POSITIVE);
        let now = ((point - f64::from(self.mean[run])) / deviation).clamp(-FARTHEST, FARTHEST);
        if self.age[run] > 1 {
            self.n_pairs = self.n_pairs.saturating_add(1);
            let share = (1.0 / (f64::from(self.n_pairs) + CAUTION)).max(1.0 / CORRELATION_MEMORY);
            self.product += share * (now * self.last - self.product);
            self.square += share * (now * now - self.square);
        }
        self.last = now;
        if self.square <= 0.0 {
            return 1.0;
        }
        let correlation = (self.product / self.square).clamp(0.0, MOST_CORRELATED);
        (1.0 - correlation) / (1.0 + correlation)
    }

    /// A run learns a point, and says the logarithm of the density that it held it to have before.
    fn learn(&mut self, run: usize, point: f64, worth: f64, beliefs: &Beliefs) -> f64 {
        let (weight, mean, squares) =
            (f64::from(self.weight[run]), f64::from(self.mean[run]), f64::from(self.squares[run]));
        let (kappa, alpha) = (PRIOR_WEIGHT + weight, PRIOR_SHAPE + weight / 2.0);
        let distance = point - mean;
        let spread = 2.0 * squares * (kappa + 1.0) / kappa;
        let inlier = ln_gamma_ratio(alpha)
            - 0.5 * (std::f64::consts::PI * spread).ln()
            - (alpha + 0.5) * (distance * distance / spread).ln_1p();
        let (ln_density, belongs) = mixed(inlier, distance, beliefs.outlier_share);
        let gained = belongs * worth;
        let mut squares = squares + gained * kappa * distance * distance / (2.0 * (kappa + gained));
        let mut weight = weight + gained;
        if weight > MEMORY {
            squares = PRIOR_SQUARES + (squares - PRIOR_SQUARES) * MEMORY / weight;
            weight = MEMORY;
        }
        self.weight[run] = weight as f32;
        self.mean[run] = (mean + gained * distance / (kappa + gained)) as f32;
        self.squares[run] = squares as f32;
        self.age[run] = self.age[run].saturating_add(1);
        ln_density
    }

    pub fn write(&self, writer: &mut Writer) {
        writer.number(self.n_runs as u64);
        writer.number(self.likeliest as u64);
        for values in [&self.ln_p, &self.weight, &self.mean, &self.squares] {
            writer.floats(&values[..self.n_runs]);
        }
        writer.shorts(&self.age[..self.n_runs]);
        for value in [self.last, self.product, self.square] {
            writer.double(value);
        }
        writer.word(self.n_pairs);
    }

    pub fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let n_runs = reader.length(size_of::<f32>()).filter(|n| (1..=MOST_RUNS).contains(n))?;
        let likeliest = usize::try_from(reader.number()?).ok().filter(|run| *run < n_runs)?;
        let mut runs = Self { n_runs, likeliest, ..Self::new() };
        for values in [&mut runs.ln_p, &mut runs.weight, &mut runs.mean, &mut runs.squares] {
            for value in &mut values[..n_runs] {
                *value = reader.float()?;
            }
        }
        for age in &mut runs.age[..n_runs] {
            *age = reader.short()?;
        }
        let is_sound = |squares: &f32| *squares > 0.0;
        if !runs.squares[..n_runs].iter().all(is_sound) || runs.weight[..n_runs].iter().any(|weight| *weight < 0.0) {
            return None;
        }
        (runs.last, runs.product, runs.square) = (reader.double()?, reader.double()?, reader.double()?);
        runs.n_pairs = reader.word()?;
        Some(runs)
    }
}

/// The logarithm of a density where a point may be an outlier, and how far the point belongs to the run.
fn mixed(inlier: f64, distance: f64, outlier_share: f64) -> (f64, f64) {
    if outlier_share <= 0.0 {
        return (inlier, 1.0);
    }
    let inlier = inlier + (-outlier_share).ln_1p();
    let width = distance / OUTLIER_WIDTH;
    let outlier = (outlier_share / (std::f64::consts::PI * OUTLIER_WIDTH * (1.0 + width * width))).ln();
    if inlier - outlier > CLEAR {
        return (inlier, 1.0);
    }
    let larger = inlier.max(outlier);
    let ln_density = larger + (-(inlier - outlier).abs()).exp().ln_1p();
    (ln_density, (inlier - ln_density).exp())
}

/// ln Γ(x + ½) − ln Γ(x): Stirling's series from 8 on, the recurrence below.
fn ln_gamma_ratio(x: f64) -> f64 {
    let (mut x, mut product) = (x, 1.0);
    while x < 8.0 {
        product *= (x + 0.5) / x;
        x += 1.0;
    }
    let inverse = 1.0 / x;
    let square = inverse * inverse;
    0.5 * x.ln() - inverse * (0.125 - square * (1.0 / 192.0 - square / 640.0)) - product.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAPER: Beliefs = Beliefs { hazard: 0.1, outlier_share: 0.0 };

    #[test]
    fn ratios_of_gamma_functions_are_those_of_half_integers() {
        // Γ(n + ½) / Γ(n) = √π (2n)! / (4ⁿ n! (n − 1)!), by its recurrence from √π/2 at 1.
        let mut ratio = std::f64::consts::PI.sqrt() / 2.0;
        for n in 1..40 {
            let x = f64::from(n);
            assert!((ln_gamma_ratio(x) - ratio.ln()).abs() < 1e-9, "{n}");
            ratio *= (x + 0.5) / x;
        }
    }

    /// ln of the density of points under one run: closed form, which knows nothing of predictions.
    fn ln_marginal(points: &[f64]) -> f64 {
        let n = points.len() as f64;
        let mean = points.iter().sum::<f64>() / n;
        let scatter: f64 = points.iter().map(|point| (point - mean).powi(2)).sum();
        let (kappa, alpha) = (PRIOR_WEIGHT + n, PRIOR_SHAPE + n / 2.0);
        let squares = PRIOR_SQUARES + scatter / 2.0 + PRIOR_WEIGHT * n * mean * mean / (2.0 * kappa);
        // ln Γ(1 + n/2) − ln Γ(1), in steps of a half.
        let ln_gamma: f64 = (0..points.len()).map(|step| ln_gamma_ratio(1.0 + step as f64 / 2.0)).sum();
        ln_gamma + PRIOR_SHAPE * PRIOR_SQUARES.ln() - alpha * squares.ln() + 0.5 * (PRIOR_WEIGHT / kappa).ln()
            - n / 2.0 * std::f64::consts::TAU.ln()
    }

    #[test]
    fn run_lengths_are_as_probable_as_the_sum_over_all_segmentations_says() {
        let points = [0.3, -0.5, 0.4, -0.2, 12.1, 11.2, 12.4, 11.6, 12.3];
        let n = points.len();
        // ends[t]: the density of the first t points where a run ends with the last of them.
        let mut ends = vec![1.0];
        let of_run = |from: usize, to: usize, ends: &[f64]| {
            let survived = (1.0 - PAPER.hazard).powi((to - from) as i32 - 1);
            ends[from] * survived * ln_marginal(&points[from..to]).exp()
        };
        for to in 1..=n {
            let density: f64 = (0..to).map(|from| of_run(from, to, &ends)).sum();
            ends.push(density * PAPER.hazard);
        }
        let mut expected: Vec<f64> = (0..n).map(|from| of_run(from, n, &ends) * (1.0 - PAPER.hazard)).collect();
        expected.push(ends[n]);
        let total: f64 = expected.iter().sum();
        let mut runs = Runs::new();
        for point in points {
            runs.observe(point, &PAPER);
            assert!(runs.product <= 0.0, "neighbours are unlike, so that each point counts whole");
        }
        assert_eq!(runs.n_runs, n + 1);
        for (age, probability) in runs.probabilities() {
            let known = expected[n - usize::from(age)] / total;
            assert!((probability - known).abs() < 1e-4 * known + 1e-6, "age {age}: {probability}, not {known}");
        }
        assert_eq!(runs.likeliest().age, 5);
    }

    #[test]
    fn what_is_truncated_is_the_least_likely() {
        let beliefs = Beliefs { hazard: 0.004, outlier_share: 0.001 };
        let mut runs = Runs::new();
        for idx in 0..2_000 {
            runs.observe(if idx % 2 == 0 { 0.7 } else { -0.7 }, &beliefs);
        }
        let total: f64 = runs.probabilities().map(|(_, p)| p).sum();
        assert!((total - 1.0).abs() < 1e-3, "{total}");
        assert_eq!((runs.n_runs, runs.likeliest().age), (MOST_RUNS, 2_000));
        assert!(runs.surprise(20) < 0.2, "{}", runs.surprise(20));
        assert!(runs.age.contains(&0) && runs.age.contains(&1), "new runs have a place");
    }

    #[test]
    fn a_point_is_an_outlier_as_far_as_it_is_one() {
        let (ln_density, belongs) = mixed(-1.0, 0.5, 0.001);
        assert!((ln_density + 1.0).abs() < 0.01 && belongs > 0.999);
        let (ln_density, belongs) = mixed(-200.0, 20.0, 0.001);
        assert!((-14.0..-11.0).contains(&ln_density) && belongs < 1e-60, "{ln_density}, {belongs}");
        assert_eq!(mixed(-200.0, 20.0, 0.0), (-200.0, 1.0));
    }
}
