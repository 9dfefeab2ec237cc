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
//! Cost: a few comparisons a session. Memory: 100 bytes a detector. Fails for a detector whose scores are nearly all equal:
//! their p-value is 1, and drift is seen only where it alerts.

use crate::discovery::HORIZON;

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
}

impl Drift {
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
        // (Σw)² / Σw² for weights that fade: n at first, twice the horizon in the end.
        let n_effective = 2.0 * self.n_sessions / (2.0 - self.n_sessions / HORIZON);
        let chance = (-DELTA.ln() / (2.0 * n_effective)).sqrt();
        let share_beyond = |(n, level): (&f64, f64)| n / self.n_sessions - level;
        let largest = self.n_at_most.iter().zip(LEVELS).map(share_beyond).fold(0.0, f64::max);
        (largest - chance).max(0.0)
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
