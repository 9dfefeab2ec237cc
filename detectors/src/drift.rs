//! Station 8: whether a detector's scores still look as they did when it was calibrated.
//!
//! The p-values of normal sessions are uniform or larger. So for every t the share of recent sessions with a p-value of t or
//! less exceeds t only by chance, which the inequality of Dvoretzky, Kiefer and Wolfowitz bounds for all t at once (with
//! Massart's constant, Annals of Probability 1990): by more than √(ln(1/δ) / 2n) with probability at most δ. What remains
//! beyond that bound is [`Drift::excess`]: the share of sessions that are abnormal and that the calibration does not explain.
//!
//! A failure raises it as well; p-values cannot tell a failure from a new normal. The share can: a model to which more than
//! [`DRIFTED`] of all sessions over a whole horizon are abnormal no longer describes the system, whatever the cause, and is
//! called drifted. It goes on scoring; a fit on recent sessions is offered beside it (`adaptation`).
//!
//! Until then scores that have moved are read where they stand now, as DSPOT reads a stream against its recent mean (Siffer,
//! Fouque, Termier and Largouet, KDD 2017): the calibration keeps its tail, the median and the upper quintile of recent
//! sessions say where that tail begins and how far it is stretched ([`Drift::shift`]). Both are taken only as far as they are
//! beyond chance, and only towards larger p-values; a system that is steady is judged by its calibration alone. What fails less
//! than every fifth session cannot move the quintile far. Unlike DSPOT's mean, quantiles do not follow a few huge scores.
//!
//! Cost: a few comparisons a session. Memory: 200 bytes a detector. Fails for a detector whose scores are nearly all equal:
//! their p-value is 1, and drift is seen only where it alerts. Fails, too, where only the tail grows: that is what failures
//! look like.

use crate::{calibrate::Calibration, discovery::HORIZON};

/// Unexplained share of abnormal sessions from which a detector counts as drifted.
pub const DRIFTED: f64 = 0.05;

/// Sessions before which nothing is said.
const MIN_SESSIONS: f64 = 500.0;

/// Probability with which chance alone exceeds the bound.
const DELTA: f64 = 1e-6;

/// p-values at which recent sessions are compared with the calibration.
const LEVELS: [f64; 9] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5];

/// Recent p-values of one detector, the older ones faded. See the file's documentation.
#[derive(Clone, Debug, Default)]
pub struct Drift {
    n_sessions: f64,
    n_at_most: [f64; LEVELS.len()],
    /// The score that has each of the levels as p-value.
    scores: Option<[f64; LEVELS.len()]>,
}

/// Where recent scores stand against those of the calibration.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shift {
    recent_median: f64,
    median: f64,
    /// How far apart scores lie in the calibration for one unit now, at most 1.
    shrink: f64,
}

impl Shift {
    /// What a score would have been when the calibration was made.
    #[must_use]
    pub fn undo(&self, score: f64) -> f64 {
        self.median + (score - self.recent_median) * self.shrink
    }
}

impl Drift {
    /// Nothing observed yet, against this calibration.
    #[must_use]
    pub fn against(calibration: &Calibration) -> Self {
        let mut scores = [0.0; LEVELS.len()];
        for (score, level) in scores.iter_mut().zip(LEVELS) {
            let Some(at) = calibration.threshold(level) else { return Self::default() };
            *score = at;
        }
        Self { scores: Some(scores), ..Self::default() }
    }

    /// A session has ended with this p-value.
    pub fn observe(&mut self, p_value: f64) {
        const FADE: f64 = 1.0 - 1.0 / HORIZON;
        self.n_sessions = self.n_sessions * FADE + 1.0;
        for (n, level) in self.n_at_most.iter_mut().zip(LEVELS) {
            *n = *n * FADE + f64::from(u8::from(p_value <= level));
        }
    }

    /// Share of recent sessions that are abnormal beyond what calibration and chance explain, 0 to 1.
    #[must_use]
    pub fn excess(&self) -> f64 {
        if self.n_sessions < MIN_SESSIONS {
            return 0.0;
        }
        let share_beyond = |(n, level): (&f64, f64)| n / self.n_sessions - level;
        let largest = self.n_at_most.iter().zip(LEVELS).map(share_beyond).fold(0.0, f64::max);
        (largest - self.chance()).max(0.0)
    }

    /// By how much a share may exceed its level by chance.
    fn chance(&self) -> f64 {
        // (Σw)² / Σw² for weights that fade: n at first, twice the horizon in the end.
        let n_effective = 2.0 * self.n_sessions / (2.0 - self.n_sessions / HORIZON);
        (-DELTA.ln() / (2.0 * n_effective)).sqrt()
    }

    /// How recent scores have moved; none while that may be chance.
    #[must_use]
    pub fn shift(&self) -> Option<Shift> {
        const MEDIAN: f64 = 0.5;
        const QUINTILE: f64 = 0.2;
        let scores = self.scores.filter(|_| self.n_sessions >= MIN_SESSIONS)?;
        let fitted = |level: f64| scores[LEVELS.partition_point(|known| *known < level)];
        let (median, quintile) = (fitted(MEDIAN), fitted(QUINTILE));
        let recent_median = self.recent_score(&scores, MEDIAN).max(median);
        let recent_quintile = self.recent_score(&scores, QUINTILE).max(quintile);
        let is_chance =
            LEVELS.iter().zip(self.n_at_most).all(|(level, n)| n / self.n_sessions - level <= self.chance());
        if is_chance || (recent_median <= median && recent_quintile <= quintile) {
            return None;
        }
        let shrink = (quintile - median) / (recent_quintile - recent_median);
        let shrink = if shrink.is_finite() && shrink > 0.0 { shrink.min(1.0) } else { 1.0 };
        Some(Shift { recent_median, median, shrink })
    }

    /// The score that a share of `level` of recent sessions reaches for certain, between those that are counted; the
    /// largest of these where even that is reached.
    fn recent_score(&self, scores: &[f64; LEVELS.len()], level: f64) -> f64 {
        let share = |idx: usize| self.n_at_most[idx] / self.n_sessions;
        // The levels ascend, so their scores descend and the shares that reach them ascend.
        match (0..LEVELS.len()).find(|&idx| share(idx) >= level) {
            None => f64::NEG_INFINITY,
            Some(0) => scores[0],
            Some(idx) => {
                let (share_beyond, share_at) = (share(idx - 1), share(idx));
                let way = (share_at - level) / (share_at - share_beyond).max(f64::MIN_POSITIVE);
                scores[idx] + (scores[idx - 1] - scores[idx]) * way.clamp(0.0, 1.0)
            }
        }
    }

    /// Whether the detector no longer describes the system.
    #[must_use]
    pub fn is_drifted(&self) -> bool {
        self.excess() > DRIFTED
    }
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    #[test]
    fn uniform_p_values_never_drift_and_a_changed_system_does() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut drift = Drift::default();
        for _ in 0..100_000 {
            drift.observe(1.0 - rng.random::<f64>());
            assert!(drift.excess() < 0.01, "{}", drift.excess());
        }
        for n in 0..4096 {
            drift.observe(0.3 * rng.random::<f64>());
            assert!(n > 100 || !drift.is_drifted(), "a hundred sessions are not enough");
        }
        assert!(drift.is_drifted(), "{}", drift.excess());
    }

    /// A calibration on two thousand scores of an exponential variable.
    fn calibration(rng: &mut ChaCha8Rng) -> Calibration {
        let scores: Vec<f64> = (0..2000).map(|_| -(1.0 - rng.random::<f64>()).ln()).collect();
        Calibration::fit(&scores)
    }

    #[test]
    fn scores_that_have_moved_are_read_where_they_stand() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let calibration = calibration(&mut rng);
        for (moved_by, stretched_by) in [(0.0, 1.0), (1.0, 1.0), (0.0, 2.0), (3.0, 1.5)] {
            let mut drift = Drift::against(&calibration);
            for _ in 0..20_000 {
                let score = moved_by - stretched_by * (1.0 - rng.random::<f64>()).ln();
                drift.observe(calibration.p_value(score));
            }
            let shift = drift.shift();
            if (moved_by, stretched_by) == (0.0, 1.0) {
                assert_eq!(shift, None, "chance alone moves nothing");
                continue;
            }
            let shift = shift.expect("scores have moved");
            for excess in [3.0, 5.0] {
                let read = shift.undo(moved_by + stretched_by * excess);
                assert!((read - excess).abs() < 0.7, "{read} for {excess}, {moved_by}, {stretched_by}");
            }
        }
    }

    #[test]
    fn failures_move_nothing_far() {
        let mut rng = ChaCha8Rng::seed_from_u64(4);
        let calibration = calibration(&mut rng);
        let mut drift = Drift::against(&calibration);
        for n in 0..20_000 {
            let score = if n % 10 == 0 { 40.0 } else { -(1.0 - rng.random::<f64>()).ln() };
            drift.observe(calibration.p_value(score));
        }
        let read = drift.shift().map_or(40.0, |shift| shift.undo(40.0));
        assert!(read > 20.0, "every tenth session fails: {read}");
    }

    #[test]
    fn a_few_failures_are_no_drift() {
        let mut drift = Drift::default();
        for n in 0..20_000 {
            drift.observe(if n % 33 == 0 { 1e-9 } else { 0.7 });
        }
        assert!(!drift.is_drifted(), "{}", drift.excess());
        for n in 0..20_000 {
            drift.observe(if n % 7 == 0 { 1e-9 } else { 0.7 });
        }
        assert!(drift.is_drifted(), "a seventh of all sessions is: {}", drift.excess());
    }
}
