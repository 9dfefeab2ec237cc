//! One alert an episode: a score passes when it is above every score of the last so many steps.
//!
//! The scores that can still be in the way of later ones, each larger than the next, oldest first: the usual monotonic queue of
//! a sliding maximum, of at most eight entries. Where it is full the last entry stands for the new one, too: later, and as
//! large as it was, so that rather too little passes than too much. On NAB the bound costs nothing; four entries would cost
//! a point.

use crate::bytes::{Reader, Writer};

const MAX_PEAKS: usize = 8;

/// See the file's documentation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Refractory {
    /// Steps and scores.
    peaks: [(i64, f64); MAX_PEAKS],
    n_peaks: usize,
}

impl Refractory {
    /// One that nothing has come to.
    pub fn new() -> Self {
        Self { peaks: [(0, 0.0); MAX_PEAKS], n_peaks: 0 }
    }

    /// Whether a score, not below 0, is above all that came in the `n_steps` before. Steps rise.
    pub fn passes(&mut self, step: i64, score: f64, n_steps: i64) -> bool {
        let since = step.saturating_sub(n_steps);
        let n_over = self.peaks[..self.n_peaks].partition_point(|peak| peak.0 < since);
        self.peaks.copy_within(n_over..self.n_peaks, 0);
        self.n_peaks -= n_over;
        let largest = if self.n_peaks > 0 { self.peaks[0].1 } else { 0.0 };
        if score > 0.0 {
            self.n_peaks = self.peaks[..self.n_peaks].partition_point(|peak| peak.1 > score);
            if self.n_peaks < MAX_PEAKS {
                self.peaks[self.n_peaks] = (step, score);
                self.n_peaks += 1;
            } else {
                self.peaks[MAX_PEAKS - 1].0 = step;
            }
        }
        score > largest
    }

    pub fn write(&self, writer: &mut Writer) {
        writer.number(self.n_peaks as u64);
        for (step, score) in &self.peaks[..self.n_peaks] {
            writer.integer(*step);
            writer.double(*score);
        }
    }

    pub fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let n_peaks = reader.length(size_of::<(i64, f64)>()).filter(|n| *n <= MAX_PEAKS)?;
        let mut refractory = Self { n_peaks, ..Self::new() };
        for peak in &mut refractory.peaks[..n_peaks] {
            *peak = (reader.integer()?, reader.double()?);
        }
        Some(refractory)
    }
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn passed(scores: &[f64], n_steps: i64) -> Vec<usize> {
        let mut refractory = Refractory::new();
        let steps = (0_i64..).zip(scores);
        let passes: Vec<bool> = steps.map(|(step, score)| refractory.passes(step, *score, n_steps)).collect();
        (0..scores.len()).filter(|idx| passes[*idx]).collect()
    }

    /// As it is defined.
    fn above_all_before(scores: &[f64], n_steps: usize) -> Vec<usize> {
        let largest = |idx: usize| scores[idx.saturating_sub(n_steps)..idx].iter().copied().fold(0.0, f64::max);
        (0..scores.len()).filter(|idx| scores[*idx] > largest(*idx)).collect()
    }

    #[test]
    fn only_what_is_above_all_of_the_last_steps_passes() {
        assert_eq!(passed(&[1.0, 1.0, 2.0, 1.5, 0.0, 1.9, 2.0], 3), [0, 2, 6]);
        assert_eq!(passed(&[3.0, 2.0, 1.0, 0.5], 2), [0]);
        assert_eq!(passed(&[1.0, 1.0, 0.0, 0.5], 0), [0, 1, 3], "no steps: whatever is above 0");
    }

    #[test]
    fn rare_scores_are_judged_as_if_all_of_them_were_kept() {
        let mut rng = ChaCha8Rng::seed_from_u64(4);
        let scores: Vec<f64> =
            (0..20_000).map(|_| if rng.random_bool(0.05) { rng.random_range(0.0..10.0) } else { 0.0 }).collect();
        for n_steps in [1, 10, 100] {
            assert_eq!(passed(&scores, n_steps as i64), above_all_before(&scores, n_steps), "{n_steps} steps");
        }
    }

    #[test]
    fn a_long_decline_lets_rather_less_pass() {
        let decline: Vec<f64> = (0..200).map(|idx| 200.0 - f64::from(idx)).chain([100.0; 1]).collect();
        let (bounded, exact) = (passed(&decline, 40), above_all_before(&decline, 40));
        assert!(bounded.iter().all(|idx| exact.contains(idx)), "{bounded:?} of {exact:?}");
    }
}
