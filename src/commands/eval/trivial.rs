//! Baselines that no detector may lose to: flagging every row, flagging at random, and for machines the mean distance of all metrics
//! from their means, and what is left of a row without its principal components. The first two say what a metric gives for nothing:
//! the kd7 rule is kind to random scores.

use faultline_core::{Signal, hash::StableHash};
use faultline_detectors::algorithms::mahalanobis::Eigen;

use super::{
    Args,
    points::{Contender, Rows, Scored, calibrated},
    sessions::{FLAG_ALL, is_wanted},
};

/// Scores drawn from a hash of seed, series and row.
pub const RANDOM: &str = "random";

/// The mean over metrics of their distance from their mean in training, in standard deviations.
pub const MEAN_Z: &str = "mean-z";

/// The square of what the principal components of training, those with .9 of the variance, leave of a row in standard deviations:
/// what published figures call PCA.
pub const PCA_RESIDUAL: &str = "pca-residual";

/// Share of the variance.
const KEPT: f64 = 0.9;

/// Least standard deviation of a metric; those of machines are between 0 and 1.
const LEAST_DEVIATION: f64 = 0.01;

/// Most standard deviations that one metric counts, so that a dead sensor does not rule.
const MOST_Z: f64 = 30.0;

/// Whether there is a baseline of this name.
pub fn is_known(name: &str) -> bool {
    [FLAG_ALL, RANDOM, MEAN_Z, PCA_RESIDUAL].contains(&name)
}

impl Contender {
    /// The baselines for `signal` that the command line asks for.
    pub fn trivial(args: &Args, signal: Signal) -> Vec<Self> {
        let of = |name: &str, seed| Self { name: name.to_owned(), seed, members: Vec::new() };
        let mut all = Vec::new();
        if is_wanted(args, FLAG_ALL) {
            all.push(of(FLAG_ALL, None));
        }
        if is_wanted(args, RANDOM) {
            all.extend(args.seeds.iter().map(|seed| of(RANDOM, Some(*seed))));
        }
        if signal == Signal::Groups {
            let wanted = [MEAN_Z, PCA_RESIDUAL].into_iter().filter(|name| is_wanted(args, name));
            all.extend(wanted.map(|name| of(name, None)));
        }
        all
    }

    /// What a baseline makes of rows. Unknown names flag everything.
    pub fn trivially_scored(&self, rows: &Rows<'_>, n_train: usize, significance: f64) -> Scored {
        let width = rows.n_columns().max(1);
        let is_known = |row: &[f64]| row.iter().any(|value| value.is_finite());
        let by_row = |score: &mut dyn FnMut(usize, &[f64]) -> f64| -> Vec<f64> {
            let all = rows.values().chunks_exact(width).enumerate();
            all.map(|(idx, row)| if is_known(row) { score(idx, row) } else { f64::NAN }).collect()
        };
        match self.name.as_str() {
            RANDOM => {
                let hash = StableHash::new().text(rows.name()).number(self.seed.unwrap_or(1));
                let scores =
                    by_row(&mut |idx, _| (hash.number(idx as u64).finish() >> 11) as f64 / (1_u64 << 53) as f64);
                Scored::by_threshold(scores, 1.0 - significance, 0.0)
            }
            MEAN_Z | PCA_RESIDUAL => {
                let training = &rows.values()[..n_train * width];
                let usual: Vec<(f64, f64)> =
                    (0..width).map(|column| mean_and_deviation(training, width, column)).collect();
                let scores = if self.name == MEAN_Z {
                    by_row(&mut |_, row| z(row, &usual).map(f64::abs).sum::<f64>() / width as f64)
                } else {
                    let components = components(training, &usual);
                    by_row(&mut |_, row| residual(row, &usual, &components))
                };
                let threshold = calibrated(&scores[..n_train], significance);
                Scored::by_threshold(scores, threshold, 0.0)
            }
            _ => Scored::by_threshold(by_row(&mut |_, _| 1.0), 1.0, 0.0),
        }
    }

    /// Where the threshold of a baseline comes from.
    pub fn trivial_rule(&self, significance: f64, part: &str) -> String {
        match self.name.as_str() {
            RANDOM => format!("flags {significance} of the points at random"),
            MEAN_Z | PCA_RESIDUAL => format!("p <= {significance} by calibration on {part}"),
            _ => "flags everything".to_owned(),
        }
    }
}

fn mean_and_deviation(values: &[f64], width: usize, column: usize) -> (f64, f64) {
    let own = || values.iter().skip(column).step_by(width).filter(|value| value.is_finite());
    let n = own().count().max(1) as f64;
    let mean = own().sum::<f64>() / n;
    let variance = own().map(|value| (value - mean).powi(2)).sum::<f64>() / n;
    (mean, variance.sqrt().max(LEAST_DEVIATION))
}

/// Standard deviations of each metric from its mean, at most [`MOST_Z`]. What is not a number counts as usual.
fn z(row: &[f64], usual: &[(f64, f64)]) -> impl Iterator<Item = f64> {
    row.iter().zip(usual).map(
        |(value, (mean, deviation))| {
            if value.is_finite() { ((value - mean) / deviation).clamp(-MOST_Z, MOST_Z) } else { 0.0 }
        },
    )
}

/// The principal components of the rows of `training`, the largest ones with [`KEPT`] of the variance.
fn components(training: &[f64], usual: &[(f64, f64)]) -> Vec<Vec<f64>> {
    let n = usual.len();
    let mut covariance = vec![0.0; n * n];
    for row in training.chunks_exact(n.max(1)) {
        let row: Vec<f64> = z(row, usual).collect();
        for (own, products) in row.iter().zip(covariance.chunks_exact_mut(n)) {
            products.iter_mut().zip(&row).for_each(|(product, other)| *product += own * other);
        }
    }
    let n_rows = (training.len() / n.max(1)).max(1) as f64;
    covariance.iter_mut().for_each(|product| *product /= n_rows);
    let Eigen { values, vectors } = Eigen::of(covariance, n);
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|one, other| values[*other].total_cmp(&values[*one]));
    let total: f64 = values.iter().sum();
    let (mut kept, mut sum) = (Vec::new(), 0.0);
    for idx in order {
        if sum >= KEPT * total {
            break;
        }
        sum += values[idx];
        kept.push(vectors[idx * n..(idx + 1) * n].to_vec());
    }
    kept
}

fn residual(row: &[f64], usual: &[(f64, f64)], components: &[Vec<f64>]) -> f64 {
    let row: Vec<f64> = z(row, usual).collect();
    let along = |component: &Vec<f64>| row.iter().zip(component).map(|(own, axis)| own * axis).sum::<f64>();
    let square: f64 = row.iter().map(|own| own * own).sum();
    (square - components.iter().map(|component| along(component).powi(2)).sum::<f64>()).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn baseline(name: &str, seed: Option<u64>) -> Contender {
        Contender { name: name.to_owned(), seed, members: Vec::new() }
    }

    #[test]
    fn random_scores_are_spread_evenly_and_differ_by_seed_and_series() {
        let values = [vec![0.0; 9_999], vec![f64::NAN]].concat();
        let scores = |seed, name| {
            let rows = Rows::of_series(["aiops", name], 0, 60, &values);
            baseline(RANDOM, Some(seed)).trivially_scored(&rows, 5_000, 0.01)
        };
        let one = scores(1, "a");
        assert!(one.scores[9_999].is_nan(), "a gap is not flagged");
        let n_flagged = one.scores.iter().filter(|score| **score >= one.threshold).count();
        assert!((60..=140).contains(&n_flagged), "one in a hundred, not {n_flagged}");
        assert_ne!(one.scores[..9], scores(2, "a").scores[..9]);
        assert_ne!(one.scores[..9], scores(1, "b").scores[..9]);
    }

    #[test]
    fn everything_is_flagged_but_gaps() {
        let values = [1.0, f64::NAN, 3.0];
        let rows = Rows::of_series(["aiops", "a"], 0, 60, &values);
        let all = baseline(FLAG_ALL, None).trivially_scored(&rows, 1, 0.01);
        let flagged: Vec<bool> = all.scores.iter().map(|score| *score >= all.threshold).collect();
        assert_eq!(flagged, [true, false, true]);
    }

    #[test]
    fn one_metric_far_off_raises_the_mean_of_all() {
        // Means 0 and 5, deviations 1 and the least there is.
        let values = [1.0, 5.0, -1.0, 5.0, 1.0, 5.0, -1.0, 5.0, 0.0, 5.0, 0.0, 5.1, f64::NAN, f64::NAN];
        let rows = Rows::of_machine(["smd", "m"], 2, 0, 60, &values);
        let scored = baseline(MEAN_Z, None).trivially_scored(&rows, 4, 0.01);
        assert_eq!(scored.scores[4], 0.0);
        assert!((scored.scores[5] - 5.0).abs() < 1e-9, "ten deviations of one of two: {:?}", scored.scores);
        assert!(scored.scores[6].is_nan());
    }

    #[test]
    fn what_breaks_the_bond_of_two_metrics_is_left_over() {
        // They move together; the last row but one goes as far, along the bond, the last one against it.
        let mut values: Vec<f64> =
            (0..200).flat_map(|idx| [f64::from(idx % 7), 10.0 - 2.0 * f64::from(idx % 7)]).collect();
        values.extend([6.0, -2.0, 6.0, 10.0]);
        let rows = Rows::of_machine(["smd", "m"], 2, 0, 60, &values);
        let scored = baseline(PCA_RESIDUAL, None).trivially_scored(&rows, 200, 0.01);
        assert!(scored.scores[200] < 1e-9, "{}", scored.scores[200]);
        assert!(scored.scores[201] > 1.0, "{}", scored.scores[201]);
    }
}
