//! Station 8, between calibration and alerts: how small a p-value must be, from how many there have been lately.
//!
//! The rule is that of Benjamini and Hochberg ("Controlling the False Discovery Rate", JRSS B 1995) over a horizon that
//! slides: of n recent sessions n·t would have a p-value of t or less if all were normal; where r of them
//! have, about n·t/r of those are false. A p-value is a discovery when that share is at most the wanted rate for some t from
//! it up to a cap. So a quiet stream asks for strong evidence before it alerts at all, while in a stream where a failure is
//! frequent the same failure needs less.
//!
//! Differs from the paper: the sessions are not one batch but fade exponentially, with [`HORIZON`] as their mean age; p-values
//! are counted in bins, an eighth of a decade each, rounded up. For the rate to hold p-values must be valid and not be
//! negatively dependent. Cost: constant a p-value, a scan of the bins for one below the cap. Memory: 1 KiB.

use std::sync::LazyLock;

/// Mean age, in sessions, of what is counted.
pub const HORIZON: f64 = 4096.0;

const BINS_PER_DECADE: f64 = 8.0;
/// Decades below 1 that are told apart.
const DECADES: usize = 16;
const N_BINS: usize = DECADES * BINS_PER_DECADE as usize;

/// Recent p-values of one detector. See the file's documentation.
#[derive(Clone, Debug)]
pub struct Discoveries {
    /// What the next session counts. It grows, so that the earlier ones need not be shrunk.
    weight: f64,
    n_sessions: f64,
    /// Sessions by −log10 of their p-value.
    bins: Vec<f64>,
}

impl Default for Discoveries {
    fn default() -> Self {
        Self { weight: 1.0, n_sessions: 0.0, bins: vec![0.0; N_BINS] }
    }
}

impl Discoveries {
    /// Another session has begun.
    pub fn begin_session(&mut self) {
        const MAX_WEIGHT: f64 = 1e100;
        self.weight *= 1.0 + 1.0 / HORIZON;
        self.n_sessions += self.weight;
        if self.weight > MAX_WEIGHT {
            self.bins.iter_mut().for_each(|bin| *bin /= MAX_WEIGHT);
            self.n_sessions /= MAX_WEIGHT;
            self.weight /= MAX_WEIGHT;
        }
    }

    /// A session has this p-value.
    pub fn observe(&mut self, p_value: f64) {
        self.bins[bin_of(p_value)] += self.weight;
    }

    /// The least false-discovery rate at which `p_value`, which has been observed, is a discovery (its q-value), at most 1. It
    /// is 1 above `cap`.
    #[must_use]
    pub fn q_value(&self, p_value: f64, cap: f64) -> f64 {
        if p_value.is_nan() || p_value > cap {
            return 1.0;
        }
        let own = bin_of(p_value);
        let (mut n_as_small, mut least) = (0.0, 1.0f64);
        // From the smallest p-values up; those above the cap do not count.
        for (bin, n) in self.bins.iter().enumerate().rev() {
            n_as_small += n;
            let largest = largest_of(bin);
            if bin <= own && n_as_small > 0.0 {
                least = least.min(self.n_sessions * largest / n_as_small);
            }
            if largest >= cap {
                break;
            }
        }
        least
    }
}

fn bin_of(p_value: f64) -> usize {
    let exponent = -p_value.max(f64::MIN_POSITIVE).log10() * BINS_PER_DECADE;
    // Rounding must not put an exact edge into the bin below it.
    ((exponent + 1e-9) as usize).min(N_BINS - 1)
}

/// The largest p-value of a bin.
fn largest_of(bin: usize) -> f64 {
    static LARGEST: LazyLock<[f64; N_BINS]> =
        LazyLock::new(|| std::array::from_fn(|bin| 10f64.powf(-(bin as f64) / BINS_PER_DECADE)));
    LARGEST[bin]
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn after(p_values: impl IntoIterator<Item = f64>) -> Discoveries {
        let mut discoveries = Discoveries::default();
        for p_value in p_values {
            discoveries.begin_session();
            discoveries.observe(p_value);
        }
        discoveries
    }

    #[test]
    fn a_lone_p_value_must_be_small_for_the_sessions_seen() {
        let discoveries = after((0..1000).map(|_| 0.5).chain([1e-4, 1e-5]));
        assert!(discoveries.q_value(1e-5, 0.01) <= 0.1);
        assert!(discoveries.q_value(1e-3, 0.01) > 0.1);
        assert!(after((0..1000).map(|_| 0.5).chain([1e-3])).q_value(1e-3, 0.01) > 0.1, "one in a thousand is normal");
    }

    #[test]
    fn many_of_them_need_be_less_small() {
        let discoveries = after((0..1000).map(|idx| if idx % 20 == 0 { 2e-3 } else { 0.5 }));
        assert!(discoveries.q_value(2e-3, 0.01) <= 0.1);
        assert!(discoveries.q_value(2e-3, 1e-3) > 0.1, "but never more than the cap");
    }

    #[test]
    fn a_storm_fades() {
        let mut discoveries = after((0..1000).map(|_| 1e-3));
        assert!(discoveries.q_value(5e-3, 0.01) <= 0.1);
        for _ in 0..50_000 {
            discoveries.begin_session();
        }
        discoveries.observe(5e-3);
        assert!(discoveries.q_value(5e-3, 0.01) > 0.1);
        assert!(discoveries.n_sessions.is_finite());
    }

    #[test]
    fn the_rate_holds_on_a_mixture() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let mut discoveries = Discoveries::default();
        let (mut n_true, mut n_false) = (0, 0);
        for _ in 0..200_000 {
            let is_abnormal = rng.random_bool(0.01);
            let uniform = 1.0 - rng.random::<f64>();
            let p_value = if is_abnormal { uniform * 1e-4 } else { uniform };
            discoveries.begin_session();
            discoveries.observe(p_value);
            if discoveries.q_value(p_value, 0.01) <= 0.15 {
                if is_abnormal { n_true += 1 } else { n_false += 1 }
            }
        }
        let share = f64::from(n_false) / f64::from(n_false + n_true);
        assert!(n_true > 1_800, "{n_true} of about 2000 found");
        assert!(share < 0.15, "{share:.3} of the discoveries are false");
    }
}
