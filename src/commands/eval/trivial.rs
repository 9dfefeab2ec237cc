//! Baselines that no detector may lose to: flagging every row, flagging at random, and the mean distance of all metrics of a
//! machine from their means. The first two say what a metric gives for nothing: the kd7 rule is kind to random scores.

use faultline_core::{Signal, hash::StableHash};

use super::{
    Args,
    points::{Contender, Rows, Scored, calibrated},
    sessions::{FLAG_ALL, is_wanted},
};

/// Scores drawn from a hash of seed, series and row.
pub const RANDOM: &str = "random";

/// The mean over metrics of their distance from their mean in training, in standard deviations.
pub const MEAN_Z: &str = "mean-z";

/// Least standard deviation of a metric; those of machines are between 0 and 1.
const LEAST_DEVIATION: f64 = 0.01;

/// Most standard deviations that one metric counts, so that a dead sensor does not rule.
const MOST_Z: f64 = 30.0;

/// Whether there is a baseline of this name.
pub fn is_known(name: &str) -> bool {
    [FLAG_ALL, RANDOM, MEAN_Z].contains(&name)
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
        if signal == Signal::Groups && is_wanted(args, MEAN_Z) {
            all.push(of(MEAN_Z, None));
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
            MEAN_Z => {
                let usual: Vec<(f64, f64)> = (0..width)
                    .map(|column| mean_and_deviation(&rows.values()[..n_train * width], width, column))
                    .collect();
                let scores = by_row(&mut |_, row| mean_z(row, &usual));
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
            MEAN_Z => format!("p <= {significance} by calibration on {part}"),
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

/// What is not a number counts as usual.
fn mean_z(row: &[f64], usual: &[(f64, f64)]) -> f64 {
    let z = |(value, (mean, deviation)): (&f64, &(f64, f64))| {
        if value.is_finite() { ((value - mean) / deviation).abs().min(MOST_Z) } else { 0.0 }
    };
    row.iter().zip(usual).map(z).sum::<f64>() / usual.len().max(1) as f64
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
}
