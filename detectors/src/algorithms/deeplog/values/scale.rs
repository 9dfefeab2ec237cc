//! What one parameter of a template is like: its range in training, and how far forecasts of it are off.

/// A range of a parameter, on its scale, below which it does not vary: a thousandth of an elapsed time or a number.
const MIN_RANGE: f32 = 1e-3;

/// Of so many records one may have a number beyond the interval of as high a confidence, however heavy its tail.
const FAR: f64 = 10_000.0;

/// What one parameter is like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scale {
    /// Mean and deviation in training; a deviation of 0 keeps the parameter from being judged.
    pub mean: f32,
    /// See `mean`.
    pub deviation: f32,
    /// Mean and deviation of the held-out errors, in deviations of the parameter.
    pub error_mean: f32,
    /// See `error_mean`.
    pub error_deviation: f32,
    /// Errors that were looked at.
    pub n_errors: u32,
}

impl Scale {
    /// Of a parameter with these values in training; errors are measured later. It is not judged where it hardly
    /// varies.
    pub fn of(values: &[f32]) -> Self {
        let mut range = Range::default();
        values.iter().for_each(|&value| range.take(value));
        let (mean, deviation) = moments(values);
        Self { deviation: if range.varies() { deviation } else { 0.0 }, mean, ..Self::unjudged() }
    }

    /// Of a parameter that is not to be judged.
    pub fn unjudged() -> Self {
        Self { mean: 0.0, deviation: 0.0, error_mean: 0.0, error_deviation: 1.0, n_errors: 0 }
    }

    /// Whether the parameter is judged.
    pub fn is_judged(&self) -> bool {
        self.deviation > 0.0
    }

    /// A value in deviations from the mean.
    pub fn normalised(&self, value: f32) -> f32 {
        if self.is_judged() { (value - self.mean) / self.deviation } else { 0.0 }
    }

    /// Takes the Gaussian of the held-out errors, made wide enough for the largest of them and of the `others`. Returns how
    /// far each of all errors is from its mean, the farthest first.
    pub fn measure(&mut self, held_out: &[f32], others: &[f32]) -> Vec<f32> {
        (self.error_mean, self.error_deviation) = moments(held_out);
        self.error_deviation = self.error_deviation.max(1e-3);
        self.n_errors = (held_out.len() + others.len()) as u32;
        let distance = |error: &f32| (error - self.error_mean).abs();
        let mut distances: Vec<f32> = held_out.iter().chain(others).map(distance).collect();
        distances.sort_unstable_by(|a, b| b.total_cmp(a));
        self.admit(distances.first().copied().unwrap_or(0.0));
        distances
    }

    /// Makes the deviation large enough that an error of `largest` is as likely as one in all errors.
    pub fn admit(&mut self, largest: f32) {
        let deviations = deviations_of((f64::from(self.n_errors) + 1.0).ln());
        self.error_deviation = self.error_deviation.max(largest / deviations as f32);
    }

    /// Makes it large enough for the error that one in [`FAR`] records has if the largest twentieth of `distances`,
    /// which come largest first, thins out exponentially. On the scale of numbers that is a tail of Pareto's, which
    /// sizes have.
    pub fn admit_tail(&mut self, distances: &[f32]) {
        let n_tail = (distances.len() / 20).max(5);
        let Some(&from) = distances.get(n_tail) else { return };
        let excess = distances[..n_tail].iter().map(|distance| f64::from(distance - from)).sum::<f64>() / n_tail as f64;
        let far = f64::from(from) + excess * (FAR * n_tail as f64 / distances.len() as f64).ln();
        self.error_deviation = self.error_deviation.max((far / deviations_of(FAR.ln())) as f32);
    }
}

/// The least and the largest of some values.
#[derive(Clone, Copy, Debug)]
pub struct Range {
    least: f32,
    most: f32,
}

impl Default for Range {
    fn default() -> Self {
        Self { least: f32::MAX, most: f32::MIN }
    }
}

impl Range {
    pub fn take(&mut self, value: f32) {
        (self.least, self.most) = (self.least.min(value), self.most.max(value));
    }

    /// Whether they differ by as much as a parameter that varies.
    pub fn varies(&self) -> bool {
        self.most - self.least >= MIN_RANGE
    }
}

fn moments(values: &[f32]) -> (f32, f32) {
    let n = values.len().max(1) as f64;
    let mean = values.iter().copied().map(f64::from).sum::<f64>() / n;
    let variance = values.iter().map(|&value| (f64::from(value) - mean).powi(2)).sum::<f64>() / n;
    (mean as f32, variance.sqrt() as f32)
}

/// Spearman's correlation of values with their order: near 1 or −1 for what grows or falls for good, as counters,
/// clocks and running numbers do.
pub fn trend(values: &[f32]) -> f64 {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_unstable_by(|&a, &b| values[a].total_cmp(&values[b]).then(a.cmp(&b)));
    let mut ranks = vec![0.0; values.len()];
    let mut n_below = 0;
    for ties in order.chunk_by(|&a, &b| values[a] == values[b]) {
        let rank = n_below as f64 + (ties.len() - 1) as f64 / 2.0;
        ties.iter().for_each(|&idx| ranks[idx] = rank);
        n_below += ties.len();
    }
    let middle = values.len().saturating_sub(1) as f64 / 2.0;
    let (mut both, mut of_order, mut of_ranks) = (0.0, 0.0, 0.0);
    for (idx, rank) in ranks.iter().enumerate() {
        let (place, rank) = (idx as f64 - middle, rank - middle);
        both += place * rank;
        of_order += place * place;
        of_ranks += rank * rank;
    }
    if of_ranks > 0.0 { both / (of_order * of_ranks).sqrt() } else { 0.0 }
}

/// How many deviations from its mean a Gaussian is with a probability of e^−`nll`, either way.
pub fn deviations_of(nll: f64) -> f64 {
    let (mut low, mut high) = (0.0, 40.0);
    for _ in 0..50 {
        let middle = (low + high) / 2.0;
        if tail_nll(middle) < nll { low = middle } else { high = middle }
    }
    high
}

/// −ln of the probability that a Gaussian is `z` deviations or more from its mean, either way: −ln erfc(z / √2), by the
/// Chebyshev fit of Numerical Recipes, 6.2, exact to 1.2e−7 in proportion.
pub fn tail_nll(z: f64) -> f64 {
    const COEFFICIENTS: [f64; 10] = [
        -1.265_512_23,
        1.000_023_68,
        0.374_091_96,
        0.096_784_18,
        -0.186_288_06,
        0.278_868_07,
        -1.135_203_98,
        1.488_515_87,
        -0.822_152_23,
        0.170_872_77,
    ];
    let x = z / std::f64::consts::SQRT_2;
    let t = 1.0 / (1.0 + 0.5 * x);
    let polynomial = COEFFICIENTS.iter().rev().fold(0.0, |sum, coefficient| sum * t + coefficient);
    x * x - polynomial - t.ln()
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    #[test]
    fn the_tail_is_that_of_a_gaussian() {
        for (z, probability) in
            [(0.0, 1.0), (1.0, 0.317_310_5), (1.96, 0.049_995_8), (3.0, 2.699_796e-3), (6.0, 1.973_175e-9)]
        {
            let expected = -f64::ln(probability);
            assert!((tail_nll(z) - expected).abs() < 1e-5, "{z}: {} against {expected}", tail_nll(z));
            assert!(z == 0.0 || (deviations_of(expected) - z).abs() < 1e-4, "{z}: {}", deviations_of(expected));
        }
        assert!(tail_nll(40.0) > 800.0 && tail_nll(40.0).is_finite());
    }

    #[test]
    fn what_grows_has_a_trend_and_what_repeats_has_none() {
        let counter: Vec<f32> = (0..500).map(|n| (n / 3) as f32).collect();
        assert!(trend(&counter) > 0.99, "{}", trend(&counter));
        let falling: Vec<f32> = counter.iter().map(|value| -value).collect();
        assert!(trend(&falling) < -0.99, "{}", trend(&falling));
        let steps: Vec<f32> = (0..500).map(|n| (n % 7) as f32).collect();
        assert!(trend(&steps).abs() < 0.05, "{}", trend(&steps));
        assert_eq!((trend(&[1.0; 50]), trend(&[])), (0.0, 0.0));
    }

    /// Errors of a parameter that is Pareto-distributed (index 1) on the linear scale.
    fn heavy(n: usize, seed: u64) -> Vec<f32> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        (0..n).map(|_| -(1.0 - rng.random::<f32>()).ln() - 1.0).collect()
    }

    #[test]
    fn a_heavy_tail_widens_the_interval_to_what_was_promised() {
        let far_beyond = |scale: &Scale| {
            let reach = deviations_of(FAR.ln()) as f32 * scale.error_deviation;
            heavy(200_000, 9).iter().filter(|error| (*error - scale.error_mean).abs() > reach).count()
        };
        let mut scale = Scale { deviation: 1.0, ..Scale::unjudged() };
        let distances = scale.measure(&heavy(500, 1), &heavy(2_000, 2));
        assert!(distances.is_sorted_by(|a, b| a >= b) && distances.len() == 2_500);
        scale.admit_tail(&distances);
        // One in ten thousand was promised.
        assert!(far_beyond(&scale) <= 100, "{} of 200,000", far_beyond(&scale));
        let (_, error_deviation) = moments(&heavy(500, 1));
        let narrow = Scale { error_deviation, ..scale };
        assert!(far_beyond(&narrow) > 400, "a Gaussian alone: {} of 200,000", far_beyond(&narrow));
    }
}
