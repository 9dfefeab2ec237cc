//! Arithmetic of the networks whose way back is written by hand (`span-lstm`, `masked-span`), and the sigmoid that all
//! networks share.
//!
//! A network is one list of weights; [`split`] names its parts. Matrices are `[inputs, outputs]`, so that a product is a sum of
//! rows, which the compiler vectorises without changing the order of sums. Everything is inlined into a pass that the
//! caller compiles for the vector units at hand (`pulp`); the lanes are fixed, so the results are the same on all of them.

/// Lanes in which sums run, as many as the widest vector holds.
const LANES: usize = 16;

/// e^x without a branch or a call, so that the compiler vectorises it; exact to about 2e−7, for |x| beyond 80 as there.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    // e^y as 2^n · e^r with |r| ≤ ln 2 / 2; adding 1.5 · 2^23 rounds to an integer and leaves it in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let y = x.clamp(-80.0, 80.0);
    let shifted = y * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = y - n * 0.693_359_4 + n * 2.121_944_4e-4;
    let e_r = 1.0 + r * (1.0 + r * (0.5 + r * (1.0 / 6.0 + r * (1.0 / 24.0 + r * (1.0 / 120.0 + r / 720.0)))));
    let two_n = f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23));
    e_r * two_n
}

/// 1 / (1 + e^−x), as exact.
#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// The hyperbolic tangent, 2σ(2x) − 1.
#[inline(always)]
pub(crate) fn tanh(x: f32) -> f32 {
    2.0 * sigmoid(2.0 * x) - 1.0
}

/// `to += by · row`.
#[inline(always)]
pub(crate) fn add_scaled(to: &mut [f32], by: f32, row: &[f32]) {
    for (to, value) in to.iter_mut().zip(row) {
        *to += by * value;
    }
}

/// Σ a b of two lists of one length.
#[inline(always)]
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    debug_assert_eq!(a.len(), b.len(), "lists of one length");
    let (a, b) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest: f32 = a.remainder().iter().zip(b.remainder()).map(|(a, b)| a * b).sum();
    let mut sums = [0.0f32; LANES];
    for (a, b) in a.zip(b) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    sums.iter().sum::<f32>() + rest
}

/// `to += inputs · matrix`, where the matrix is `[inputs, outputs]`.
#[inline(always)]
pub(crate) fn add_product(to: &mut [f32], inputs: &[f32], matrix: &[f32]) {
    let n_outputs = to.len();
    for (input, row) in inputs.iter().zip(matrix.chunks_exact(n_outputs)) {
        add_scaled(to, *input, row);
    }
}

/// The way back of [`add_product`]: adds to the gradients of the matrix and of the inputs, given that of the outputs.
#[inline(always)]
pub(crate) fn add_product_back(
    d_to: &[f32],
    inputs: &[f32],
    matrix: &[f32],
    d_matrix: &mut [f32],
    d_inputs: &mut [f32],
) {
    let rows = matrix.chunks_exact(d_to.len()).zip(d_matrix.chunks_exact_mut(d_to.len()));
    for ((input, d_input), (row, d_row)) in inputs.iter().zip(d_inputs).zip(rows) {
        add_scaled(d_row, *input, d_to);
        *d_input += dot(row, d_to);
    }
}

/// Makes log-probabilities of logits.
#[inline(always)]
pub(crate) fn log_softmax(logits: &mut [f32]) {
    let mut most = [f32::NEG_INFINITY; LANES];
    let chunks = logits.chunks_exact(LANES);
    let mut max = chunks.remainder().iter().copied().fold(f32::NEG_INFINITY, f32::max);
    for chunk in chunks {
        for lane in 0..LANES {
            most[lane] = if chunk[lane] > most[lane] { chunk[lane] } else { most[lane] };
        }
    }
    max = most.into_iter().fold(max, f32::max);
    let mut sums = [0.0f32; LANES];
    let chunks = logits.chunks_exact(LANES);
    let rest: f32 = chunks.remainder().iter().map(|logit| exp(logit - max)).sum();
    for chunk in chunks {
        for lane in 0..LANES {
            sums[lane] += exp(chunk[lane] - max);
        }
    }
    let log_sum = max + (sums.iter().sum::<f32>() + rest).ln();
    for logit in logits {
        *logit -= log_sum;
    }
}

/// The parts of a list of weights, of these sizes.
pub(crate) fn split<const N: usize>(weights: &[f32], sizes: [usize; N]) -> [&[f32]; N] {
    let mut rest = weights;
    sizes.map(|size| {
        let (own, tail) = rest.split_at(size);
        rest = tail;
        own
    })
}

/// The same of a gradient.
pub(crate) fn split_mut<const N: usize>(gradient: &mut [f32], sizes: [usize; N]) -> [&mut [f32]; N] {
    let mut rest = gradient;
    sizes.map(|size| {
        let (own, tail) = std::mem::take(&mut rest).split_at_mut(size);
        rest = tail;
        own
    })
}

/// Scales a gradient down to a norm of `most` where it is longer.
pub(crate) fn clip(gradient: &mut [f32], most: f32) {
    let norm = dot(gradient, gradient).sqrt();
    if norm > most {
        gradient.iter_mut().for_each(|own| *own *= most / norm);
    }
}

/// The step size when the share `progress` of a training is done: from `first` to a fiftieth of it along half a cosine.
pub(crate) fn rate_at(first: f64, progress: f64) -> f32 {
    (first * (0.02 + 0.49 * (1.0 + (std::f64::consts::PI * progress).cos()))) as f32
}

/// Adam (Kingma and Ba, 2015).
#[derive(Debug)]
pub(crate) struct Adam {
    mean: Vec<f32>,
    square: Vec<f32>,
    /// What is left of the zeros that both began with.
    left: [f32; 2],
}

impl Adam {
    const KEPT: [f32; 2] = [0.9, 0.999];

    /// For so many weights.
    pub fn new(n_weights: usize) -> Self {
        Self { mean: vec![0.0; n_weights], square: vec![0.0; n_weights], left: [1.0; 2] }
    }

    /// Moves the weights one step against the gradient.
    pub fn step(&mut self, weights: &mut [f32], gradient: &[f32], rate: f32) {
        const LEAST: f32 = 1e-8;
        let [kept_mean, kept_square] = Self::KEPT;
        self.left = [self.left[0] * kept_mean, self.left[1] * kept_square];
        let (mean_share, square_share) = (1.0 - self.left[0], 1.0 - self.left[1]);
        let moments = self.mean.iter_mut().zip(&mut self.square);
        for ((weight, own), (mean, square)) in weights.iter_mut().zip(gradient).zip(moments) {
            *mean = kept_mean * *mean + (1.0 - kept_mean) * own;
            *square = kept_square * *square + (1.0 - kept_square) * own * own;
            *weight -= rate * (*mean / mean_share) / ((*square / square_share).sqrt() + LEAST);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponentials_are_exact_enough_everywhere() {
        for i in -20_000..=20_000 {
            let x = i as f32 / 200.0;
            let exact = 1.0 / (1.0 + (-f64::from(x)).exp());
            assert!((f64::from(sigmoid(x)) - exact).abs() < 3e-7, "at {x}: {} against {exact}", sigmoid(x));
            assert!((f64::from(tanh(x)) - f64::from(x).tanh()).abs() < 1e-6, "at {x}: {}", tanh(x));
            let exact = f64::from(x.clamp(-80.0, 80.0)).exp();
            assert!((f64::from(exp(x)) - exact).abs() < 1e-5 * exact, "at {x}: {} against {exact}", exp(x));
        }
        assert!(sigmoid(f32::NAN).is_nan());
    }

    #[test]
    fn sums_and_products_are_those_of_single_numbers() {
        for n in [0, 1, 15, 16, 17, 50] {
            let (a, b): (Vec<f32>, Vec<f32>) = (0..n).map(|i| (i as f32, (n - i) as f32)).unzip();
            let expected: f32 = a.iter().zip(&b).map(|(a, b)| a * b).sum();
            assert!((dot(&a, &b) - expected).abs() <= 1e-5 * expected, "{n}");
            let mut rows = a.clone();
            log_softmax(&mut rows);
            let total: f32 = rows.iter().map(|own| own.exp()).sum();
            assert!(n == 0 || (total - 1.0).abs() < 1e-5, "{n}: probabilities sum to {total}");
        }
        let (matrix, mut to) = ([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [10.0, 20.0, 30.0]);
        add_product(&mut to, &[1.0, -1.0], &matrix);
        assert_eq!(to, [7.0, 17.0, 27.0]);
        let (mut d_matrix, mut d_inputs) = ([0.0; 6], [0.0; 2]);
        add_product_back(&[1.0, 0.0, 2.0], &[1.0, -1.0], &matrix, &mut d_matrix, &mut d_inputs);
        assert_eq!((d_matrix, d_inputs), ([1.0, 0.0, 2.0, -1.0, 0.0, -2.0], [7.0, 16.0]));
    }

    #[test]
    fn the_parts_of_a_list_are_its_own() {
        let mut weights = [1.0f32, 2.0, 3.0, 4.0];
        let expected: [&[f32]; 3] = [&[1.0], &[], &[2.0, 3.0, 4.0]];
        assert_eq!(split(&weights, [1, 0, 3]), expected);
        let [_, last] = split_mut(&mut weights, [2, 2]);
        last.fill(0.0);
        assert_eq!(weights, [1.0, 2.0, 0.0, 0.0]);
    }

    #[test]
    fn adam_finds_the_bottom_and_a_long_gradient_is_cut() {
        let (mut weights, mut adam) = ([3.0f32, -2.0], Adam::new(2));
        for step in 0..400 {
            let gradient = [2.0 * (weights[0] - 1.0), 8.0 * (weights[1] - 0.5)];
            adam.step(&mut weights, &gradient, rate_at(0.1, f64::from(step) / 400.0));
        }
        assert!((weights[0] - 1.0).abs() < 0.02 && (weights[1] - 0.5).abs() < 0.02, "{weights:?}");
        let mut gradient = [3.0, 4.0];
        clip(&mut gradient, 10.0);
        assert_eq!(gradient, [3.0, 4.0]);
        clip(&mut gradient, 1.0);
        assert!((gradient[0] - 0.6).abs() < 1e-6 && (gradient[1] - 0.8).abs() < 1e-6);
    }
}
