//! The scorer of the Numenta Anomaly Benchmark: early detections inside of windows are rewarded, false ones fined.
//!
//! Lavin and Ahmad, "Evaluating Real-time Anomaly Detection Algorithms: the Numenta Anomaly Benchmark" (ICMLA 2015), as its
//! version 1.1 computes it. With s(y) = 2 / (1 + e^(5y)) - 1, and s(y) = -1 from y = 3 on:
//! - the first flagged row of a window of w rows earns s(-d/w) / s(-1), d counting rows to the window's end, its last row 1;
//!   further ones in it earn nothing;
//! - a flagged row outside costs s(d/(w-1)), d rows after the last window before it; -1 where there is none;
//! - a window without a flagged row costs 1.
//!
//! A [`Profile`] weighs the three; the sum is put between that of flagging nothing, 0, and that of flagging each window's
//! first row and nothing else, 100. The first 15 % of a series, at most 750 rows, are not judged. One threshold holds for the
//! whole corpus. NAB takes the one with the best sum, with sight of the labels: [`Corpus::best`], an oracle's. A threshold
//! fixed beforehand is judged by [`Corpus::at`].
//!
//! Scores of different series are compared with each other, so they have to mean the same. Windows are long (a tenth of a
//! series together), which is kind to random scores: they reach 9 to 19 of 100. Checked: the detector `windowedGaussian`, computed
//! anew, has its published figures under each profile (`tests/real_data.rs`).
//!
//! Cost: one sort for the sweep (n log n), one pass for a threshold; 32 bytes a row.

use std::ops::Range;

/// Share of a series that is not judged.
const PROBATION: f64 = 0.15;
/// Of at most this many rows.
const PROBATION_ROWS: f64 = 5_000.0;

/// What is weighed how.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    /// Its name, as NAB has it.
    pub name: String,
    /// What a window found at its first row earns.
    pub true_positive: f64,
    /// What a false detection far behind a window costs.
    pub false_positive: f64,
    /// What a missed window costs.
    pub false_negative: f64,
}

impl Profile {
    /// NAB's three: `standard`, `reward_low_FP_rate`, `reward_low_FN_rate`.
    #[must_use]
    pub fn published() -> [Self; 3] {
        let profile = |name: &str, false_positive, false_negative| Self {
            name: name.to_owned(),
            true_positive: 1.0,
            false_positive,
            false_negative,
        };
        [
            profile("standard", 0.11, 1.0),
            profile("reward_low_FP_rate", 0.22, 1.0),
            profile("reward_low_FN_rate", 0.11, 2.0),
        ]
    }
}

/// Rows at the begin of a series of `n_rows` that are not judged.
#[must_use]
pub fn n_probation(n_rows: usize) -> usize {
    (PROBATION * n_rows as f64).floor().min(PROBATION * PROBATION_ROWS) as usize
}

/// Between 1, early in a window, and -1, far behind it; 0 at its end.
fn scaled_sigmoid(position: f64) -> f64 {
    if position >= 3.0 { -1.0 } else { 2.0 / (1.0 + (5.0 * position).exp()) - 1.0 }
}

/// The scores of every judged row with what flagging the row is worth.
#[derive(Clone, Debug, Default)]
pub struct Corpus {
    rows: Vec<Row>,
    n_windows: usize,
}

#[derive(Clone, Copy, Debug)]
struct Row {
    score: f64,
    /// Not yet weighed: above 0 in a window, at most 0 outside.
    worth: f64,
    window: Option<usize>,
}

/// What a threshold reaches.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outcome {
    /// Rows that score at least this are flagged; infinite where nothing is.
    pub threshold: f64,
    /// 0 for flagging nothing, 100 for the perfect detector; negative for many false detections.
    pub score: f64,
    /// The weighed sum, before it is put between these two.
    pub sum: f64,
    /// Windows there are.
    pub n_windows: usize,
    /// Windows with a flagged row.
    pub n_found: usize,
    /// Flagged rows outside of windows.
    pub n_false: usize,
}

impl Corpus {
    /// A corpus without a series.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one series: a score for each of its rows, and its windows as ranges of rows, in order and without overlap.
    /// A window all of which lies in the part that is not judged is not counted.
    pub fn add(&mut self, scores: &[f64], windows: &[Range<usize>]) {
        let earliest = scaled_sigmoid(-1.0);
        // `windows[..next]` end before the row; `counted` is the last that a judged row lay in.
        let (mut next, mut counted) = (0, None);
        for (row, &score) in scores.iter().enumerate().skip(n_probation(scores.len())) {
            while windows.get(next).is_some_and(|window| window.end <= row) {
                next += 1;
            }
            let (worth, window) = if let Some(window) = windows.get(next).filter(|window| window.contains(&row)) {
                if counted != Some(next) {
                    counted = Some(next);
                    self.n_windows += 1;
                }
                let position = -((window.end - row) as f64 / window.len() as f64);
                (scaled_sigmoid(position) / earliest, Some(self.n_windows - 1))
            } else if let Some(before) = next.checked_sub(1).and_then(|last| windows.get(last)) {
                // Behind a window of a single row everything is far behind.
                let position = (row + 1 - before.end) as f64 / before.len().saturating_sub(1) as f64;
                (scaled_sigmoid(position), None)
            } else {
                (-1.0, None)
            };
            self.rows.push(Row { score, worth, window });
        }
    }

    /// What flagging every row that scores at least `threshold` reaches; NaN is never flagged. None when there is no window.
    #[must_use]
    pub fn at(&self, threshold: f64, profile: &Profile) -> Option<Outcome> {
        let mut tally = Tally::new(self.n_windows, profile);
        self.rows.iter().filter(|row| row.score >= threshold).for_each(|row| tally.flag(row));
        tally.outcome(threshold)
    }

    /// The best that any one threshold reaches, as NAB reports it; of equally good thresholds the highest. None when there is
    /// no window.
    #[must_use]
    pub fn best(&self, profile: &Profile) -> Option<Outcome> {
        let mut rows: Vec<&Row> = self.rows.iter().filter(|row| !row.score.is_nan()).collect();
        rows.sort_by(|a, b| b.score.total_cmp(&a.score));
        let mut tally = Tally::new(self.n_windows, profile);
        let mut best = tally.outcome(f64::INFINITY)?;
        for tied in rows.chunk_by(|a, b| a.score == b.score) {
            tied.iter().for_each(|row| tally.flag(row));
            let outcome = tally.outcome(tied[0].score)?;
            if outcome.sum > best.sum {
                best = outcome;
            }
        }
        Some(best)
    }
}

/// The sum while rows are flagged one after the other, in any order.
struct Tally<'p> {
    profile: &'p Profile,
    /// What the earliest flagged row of each window is worth; 0 while there is none.
    found: Vec<f64>,
    n_found: usize,
    earned: f64,
    n_false: usize,
    fined: f64,
}

impl<'p> Tally<'p> {
    fn new(n_windows: usize, profile: &'p Profile) -> Self {
        Self { profile, found: vec![0.0; n_windows], n_found: 0, earned: 0.0, n_false: 0, fined: 0.0 }
    }

    fn flag(&mut self, row: &Row) {
        let Some(window) = row.window else {
            self.n_false += 1;
            self.fined += row.worth;
            return;
        };
        let found = &mut self.found[window];
        if row.worth > *found {
            self.n_found += usize::from(*found == 0.0);
            self.earned += row.worth - *found;
            *found = row.worth;
        }
    }

    fn outcome(&self, threshold: f64) -> Option<Outcome> {
        let n_windows = self.found.len();
        if n_windows == 0 {
            return None;
        }
        let Profile { true_positive, false_positive, false_negative, .. } = self.profile;
        let missed = (n_windows - self.n_found) as f64;
        let sum = true_positive * self.earned + false_positive * self.fined - false_negative * missed;
        let (nothing, perfect) = (-false_negative * n_windows as f64, true_positive * n_windows as f64);
        let score = 100.0 * (sum - nothing) / (perfect - nothing);
        Some(Outcome { threshold, score, sum, n_windows, n_found: self.n_found, n_false: self.n_false })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scores(n: usize, flagged: &[(usize, f64)]) -> Vec<f64> {
        let mut scores = vec![0.0; n];
        flagged.iter().for_each(|(row, score)| scores[*row] = *score);
        scores
    }

    fn close(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-9, "{a} is not {b}");
    }

    #[test]
    fn the_sigmoid_is_that_of_the_paper() {
        close(scaled_sigmoid(-1.0), 0.986_614_298_151_430_3);
        close(scaled_sigmoid(-0.5), 0.848_283_639_957_512_8);
        close(scaled_sigmoid(0.0), 0.0);
        close(scaled_sigmoid(1.0), -0.986_614_298_151_430_3);
        assert_eq!(scaled_sigmoid(3.0), -1.0);
    }

    #[test]
    fn at_most_750_rows_are_not_judged() {
        let lengths = [0, 6, 7, 40, 1_127, 4_032, 4_999, 5_000, 22_695].map(n_probation);
        assert_eq!(lengths, [0, 0, 1, 6, 169, 604, 749, 750, 750]);
    }

    #[test]
    fn nothing_scores_0_and_perfection_100() {
        let windows = [12..20, 28..32];
        for profile in Profile::published() {
            let mut corpus = Corpus::new();
            corpus.add(&[0.5; 40], &windows);
            let nothing = corpus.at(0.6, &profile).expect("windows");
            assert_eq!((nothing.score, nothing.n_found, nothing.n_false), (0.0, 0, 0));
            let mut corpus = Corpus::new();
            corpus.add(&scores(40, &[(12, 0.9), (13, 0.95), (28, 0.7), (3, 1.0)]), &windows);
            corpus.add(&scores(40, &[(20, 0.8)]), std::slice::from_ref(&(20..39)));
            let perfect = corpus.best(&profile).expect("windows");
            close(perfect.score, 100.0);
            assert_eq!((perfect.threshold, perfect.n_found, perfect.n_false), (0.7, 3, 0));
        }
        let mut none = Corpus::new();
        none.add(&[1.0; 40], &[]);
        assert_eq!(none.best(&Profile::published()[0]), None);
    }

    /// Computed by a script from the paper's formulas; the first flagged row lies in the part that is not judged.
    #[test]
    fn a_small_case_has_the_score_of_the_formulas() {
        let flagged = [(2, 1.0), (8, 0.9), (14, 0.8), (17, 0.7), (21, 0.6), (34, 0.5)];
        let mut corpus = Corpus::new();
        corpus.add(&scores(40, &flagged), &[12..20, 28..32]);
        let [standard, low_fp, low_fn] = Profile::published();
        let at = |threshold, profile| corpus.at(threshold, profile).expect("windows");
        // Row 14: s(-6/8) / s(-1). Row 21: s(2/7). Row 34: s(3/3).
        close(at(0.8, &standard).sum, 0.966_989_087_800_060_5 - 0.11 - 1.0);
        close(at(0.6, &standard).sum, 0.966_989_087_800_060_5 - 0.11 * 1.613_357_260_395_382_5 - 1.0);
        let shown = |profile| [0.95, 0.85, 0.75, 0.55, 0.5].map(|threshold| at(threshold, profile).score);
        let expected = [
            [0.0, -2.75, 46.424_727_195_001_5, 44.737_994_728_914_2, 42.024_805_408_997_8],
            [0.0, -5.5, 43.674_727_195_001_5, 40.301_262_262_826_9, 34.874_883_622_994_0],
            [0.0, -1.833_333_333_333_3, 47.616_484_796_667_7, 46.491_996_485_942_8, 44.683_203_605_998_5],
        ];
        for (profile, expected) in [&standard, &low_fp, &low_fn].into_iter().zip(expected) {
            shown(profile).into_iter().zip(expected).for_each(|(score, expected)| close(score, expected));
        }
        let last = at(0.5, &standard);
        assert_eq!((last.n_windows, last.n_found, last.n_false), (2, 1, 3));
        assert_eq!(corpus.best(&standard).expect("windows").threshold, 0.8);
        // Flagging everything finds both windows at once, which pays where a missed one costs twice.
        assert_eq!(corpus.best(&low_fn).expect("windows").threshold, 0.0);
        close(corpus.best(&low_fn).expect("windows").score, 63.090_475_536_094_1);
    }

    #[test]
    fn odd_windows_are_no_trouble() {
        let [standard, ..] = Profile::published();
        let mut corpus = Corpus::new();
        // In the part that is not judged; of one row; beyond the end.
        corpus.add(&scores(40, &[(21, 1.0)]), &[0..3, 20..21, 50..60]);
        let outcome = corpus.at(1.0, &standard).expect("a window");
        assert_eq!((outcome.n_windows, outcome.n_found, outcome.n_false), (1, 0, 1));
        close(outcome.sum, -1.11);
        corpus.add(&[f64::NAN; 40], std::slice::from_ref(&(20..30)));
        assert_eq!(corpus.at(f64::NEG_INFINITY, &standard).expect("windows").n_false, 33);
    }

    proptest! {
        #[test]
        fn no_threshold_beats_the_best(
            points in proptest::collection::vec(0u8..8, 10..80),
            first in 2usize..8,
            length in 1usize..20,
        ) {
            let scores: Vec<f64> = points.iter().map(|point| f64::from(*point)).collect();
            let mut corpus = Corpus::new();
            corpus.add(&scores, &[first..first + length, first + length + 3..first + 2 * length + 4]);
            for profile in Profile::published() {
                let Some(best) = corpus.best(&profile) else { continue };
                let again = corpus.at(best.threshold, &profile).expect("windows");
                prop_assert!((again.sum - best.sum).abs() < 1e-9);
                for threshold in 0..9 {
                    let other = corpus.at(f64::from(threshold), &profile).expect("windows");
                    prop_assert!(other.sum <= best.sum + 1e-9);
                }
            }
        }
    }
}
