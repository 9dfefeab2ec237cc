//! Planar flow: steps that bend the normal posterior of z into another shape.
//!
//! Rezende and Mohamed, "Variational Inference with Normalizing Flows", ICML 2015: z' = z + û tanh(w·z + b), whose Jacobian
//! has the determinant 1 + (1 − tanh²) w·û (equations 10 to 12). û is u moved along w so that w·û = ln(1 + e^(w·u)) − 1 > −1
//! (their appendix A.1): so each step can be undone and the determinant is positive. All in double precision: it is ten numbers.

/// One step. Its weights are w, u and b.
#[derive(Clone, Debug, PartialEq)]
pub struct Planar {
    w: Vec<f64>,
    u: Vec<f64>,
    b: f64,
    /// w·u.
    dot: f64,
    /// w·w; below [`NOWHERE`] u stays where it is.
    square: f64,
    /// û.
    direction: Vec<f64>,
    /// w·û.
    reach: f64,
}

/// A w so short that it has no direction.
const NOWHERE: f64 = 1e-12;

/// Determinants are not less, so that they have a logarithm.
const MIN_DETERMINANT: f64 = 1e-12;

impl Planar {
    /// Weights of a step over so many numbers.
    pub fn n_weights(latent: usize) -> usize {
        2 * latent + 1
    }

    /// The step with these weights.
    pub fn of(weights: &[f64]) -> Self {
        let latent = weights.len() / 2;
        let (w, u, b) = (weights[..latent].to_vec(), weights[latent..2 * latent].to_vec(), weights[2 * latent]);
        let (dot, square) = (product(&w, &u), product(&w, &w));
        let reach = if square < NOWHERE { dot } else { softplus(dot) - 1.0 };
        let along = if square < NOWHERE { 0.0 } else { (reach - dot) / square };
        let direction = u.iter().zip(&w).map(|(u, w)| u + along * w).collect();
        Self { w, u, b, dot, square, direction, reach }
    }

    /// tanh(w·z + b).
    pub fn bend(&self, z: &[f64]) -> f64 {
        (product(&self.w, z) + self.b).tanh()
    }

    /// Moves a point whose [`bend`](Self::bend) is known. Logarithm of the determinant.
    pub fn apply(&self, bend: f64, z: &mut [f64]) -> f64 {
        for (z, direction) in z.iter_mut().zip(&self.direction) {
            *z += bend * direction;
        }
        self.determinant(bend).ln()
    }

    fn determinant(&self, bend: f64) -> f64 {
        (1.0 + (1.0 - bend * bend) * self.reach).max(MIN_DETERMINANT)
    }

    /// Given points, `[n, latent]`, their bends and the slopes of a loss by where they went, makes these the slopes by where
    /// they came from and writes those by the weights. The loss holds −`share` times the logarithm of each determinant.
    pub fn backward(&self, points: &[f64], bends: &[f64], share: f64, by_z: &mut [f64], gradient: &mut [f64]) {
        let Self { w, u, dot, square, direction, reach, .. } = self;
        let latent = w.len();
        let (by_w, rest) = gradient.split_at_mut(latent);
        let (by_u, by_b) = rest.split_at_mut(latent);
        by_w.fill(0.0);
        let (mut by_direction, mut by_reach, mut sum) = (vec![0.0; latent], 0.0, 0.0);
        for ((z, &bend), by_z) in points.chunks_exact(latent).zip(bends).zip(by_z.chunks_exact_mut(latent)) {
            let (steep, determinant) = (1.0 - bend * bend, self.determinant(bend));
            let by_bend = product(by_z, direction) + share * 2.0 * bend * reach / determinant;
            let by_sum = by_bend * steep;
            for idx in 0..latent {
                by_direction[idx] += bend * by_z[idx];
                by_w[idx] += by_sum * z[idx];
                by_z[idx] += by_sum * w[idx];
            }
            by_reach -= share * steep / determinant;
            sum += by_sum;
        }
        by_b[0] = sum;
        // From the direction and the reach to the w and u that they are made of.
        let (mut along, mut by_square, mut by_dot) = (0.0, 0.0, by_reach);
        if *square >= NOWHERE {
            along = (reach - dot) / square;
            let by_along = product(&by_direction, w);
            by_square = -by_along * along / square;
            by_dot = -by_along / square + (by_reach + by_along / square) / (1.0 + (-dot).exp());
        }
        for idx in 0..latent {
            by_w[idx] += along * by_direction[idx] + 2.0 * by_square * w[idx] + by_dot * u[idx];
            by_u[idx] = by_direction[idx] + by_dot * w[idx];
        }
    }
}

fn product(one: &[f64], other: &[f64]) -> f64 {
    one.iter().zip(other).map(|(one, other)| one * other).sum()
}

/// ln(1 + eˣ).
fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::networks::normals;

    fn numbers(n: usize, seed: u64) -> Vec<f64> {
        normals(n, &mut ChaCha8Rng::seed_from_u64(seed)).into_iter().map(f64::from).collect()
    }

    fn moved(step: &Planar, z: &[f64]) -> (Vec<f64>, f64) {
        let mut to = z.to_vec();
        let log = step.apply(step.bend(z), &mut to);
        (to, log)
    }

    /// Of a matrix of three rows.
    fn determinant(m: &[Vec<f64>]) -> f64 {
        let minor = |a: usize, b: usize| m[1][a] * m[2][b] - m[1][b] * m[2][a];
        m[0][0] * minor(1, 2) - m[0][1] * minor(0, 2) + m[0][2] * minor(0, 1)
    }

    #[test]
    fn the_logarithm_is_that_of_the_jacobian_and_no_step_folds() {
        for seed in 0..50 {
            // Some of them would fold space if u were taken as it is.
            let weights: Vec<f64> = numbers(7, seed).iter().map(|value| 3.0 * value).collect();
            let (step, z) = (Planar::of(&weights), numbers(3, 1_000 + seed));
            let column = |idx: usize| {
                let (mut more, mut less) = (z.clone(), z.clone());
                (more[idx], less[idx]) = (more[idx] + 1e-6, less[idx] - 1e-6);
                let (more, less) = (moved(&step, &more).0, moved(&step, &less).0);
                more.iter().zip(&less).map(|(more, less)| (more - less) / 2e-6).collect::<Vec<f64>>()
            };
            let jacobian: Vec<Vec<f64>> = (0..3).map(column).collect();
            let (found, log) = (determinant(&jacobian), moved(&step, &z).1);
            assert!(
                found > -1e-4 && (found - log.exp()).abs() < 1e-4 * found.max(1.0),
                "{found} against {}",
                log.exp()
            );
        }
    }

    #[test]
    fn no_weights_are_no_step() {
        let z = numbers(4, 1);
        assert_eq!(moved(&Planar::of(&[0.0; 9]), &z), (z.clone(), 0.0));
    }

    #[test]
    fn slopes_are_those_of_differences() {
        const SHARE: f64 = 0.7;
        let (weights, points, shares) = (numbers(7, 3), numbers(5 * 3, 4), numbers(5 * 3, 5));
        let loss = |weights: &[f64], points: &[f64]| {
            let step = Planar::of(weights);
            let rows = points.chunks_exact(3).zip(shares.chunks_exact(3));
            rows.map(|(z, shares)| {
                let (to, log) = moved(&step, z);
                product(&to, shares) - SHARE * log
            })
            .sum::<f64>()
        };
        let step = Planar::of(&weights);
        let bends: Vec<f64> = points.chunks_exact(3).map(|z| step.bend(z)).collect();
        let (mut by_z, mut gradient) = (shares.clone(), vec![0.0; 7]);
        step.backward(&points, &bends, SHARE, &mut by_z, &mut gradient);
        let slope = |values: &[f64], idx: usize, of: &dyn Fn(&[f64]) -> f64| {
            let (mut more, mut less) = (values.to_vec(), values.to_vec());
            (more[idx], less[idx]) = (more[idx] + 1e-5, less[idx] - 1e-5);
            (of(&more) - of(&less)) / 2e-5
        };
        for (idx, found) in gradient.iter().enumerate() {
            let expected = slope(&weights, idx, &|weights| loss(weights, &points));
            assert!((found - expected).abs() < 1e-7, "weight {idx}: {found} against {expected}");
        }
        for (idx, found) in by_z.iter().enumerate() {
            let expected = slope(&points, idx, &|points| loss(&weights, points));
            assert!((found - expected).abs() < 1e-7, "point {idx}: {found} against {expected}");
        }
    }
}
