//! Calls counted: how many, how many failed, how long they took.
//!
//! Durations are counted in bins each twice as wide as the one before, so counts of several buckets add up and a quantile
//! is true to less than a factor of two, mostly to a few per cent, between 66 microseconds and 275 seconds. 120 bytes.

/// Bins of durations: below 2^16 ns, then a power of two each; the last one holds whatever is longer.
const N_BINS: usize = 24;
/// Bits of the longest duration in the first bin.
const FIRST_BITS: u32 = 16;

/// Calls counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallStats {
    /// Calls.
    pub n_calls: u64,
    /// Calls that failed.
    pub n_errors: u64,
    /// Sum of their durations, nanoseconds.
    pub duration_nanos: u64,
    /// Calls by duration.
    bins: [u32; N_BINS],
}

impl CallStats {
    pub(super) fn count(&mut self, is_error: bool, duration_nanos: i64) {
        let duration_nanos = duration_nanos.unsigned_abs();
        self.n_calls += 1;
        self.n_errors += u64::from(is_error);
        self.duration_nanos = self.duration_nanos.saturating_add(duration_nanos);
        let bits = u64::BITS - duration_nanos.leading_zeros();
        let bin = &mut self.bins[(bits.saturating_sub(FIRST_BITS) as usize).min(N_BINS - 1)];
        *bin = bin.saturating_add(1);
    }

    pub(super) fn add(&mut self, other: Self) {
        self.n_calls += other.n_calls;
        self.n_errors += other.n_errors;
        self.duration_nanos = self.duration_nanos.saturating_add(other.duration_nanos);
        for (bin, more) in self.bins.iter_mut().zip(other.bins) {
            *bin = bin.saturating_add(more);
        }
    }

    /// Mean duration in milliseconds; 0 when nothing was called.
    #[must_use]
    pub fn mean_ms(&self) -> f64 {
        if self.n_calls == 0 { 0.0 } else { self.duration_nanos as f64 / self.n_calls as f64 / 1e6 }
    }

    /// The duration that a share `quantile` of the calls, 0 to 1, did not exceed, in milliseconds, as if durations were
    /// spread evenly within their bin; 0 when nothing was called.
    #[must_use]
    pub fn quantile_ms(&self, quantile: f64) -> f64 {
        let n_calls: f64 = self.bins.into_iter().map(f64::from).sum();
        let rank = quantile.clamp(0.0, 1.0) * n_calls;
        let mut n_below = 0.0;
        for (n_here, bits) in self.bins.into_iter().map(f64::from).zip(FIRST_BITS..) {
            if n_here > 0.0 && n_below + n_here >= rank {
                let high = (1_u64 << bits) as f64;
                let low = if bits == FIRST_BITS { 0.0 } else { high / 2.0 };
                return (low + (high - low) * (rank - n_below) / n_here) / 1e6;
            }
            n_below += n_here;
        }
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::CallStats;

    fn of(durations_ms: impl IntoIterator<Item = i64>) -> CallStats {
        let mut stats = CallStats::default();
        durations_ms.into_iter().for_each(|ms| stats.count(false, ms * 1_000_000));
        stats
    }

    #[test]
    fn quantiles_are_true_to_a_factor_of_two_and_survive_adding_up() {
        let whole = of(1..=1_000);
        for quantile in [0.01, 0.1, 0.5, 0.9, 0.99, 1.0] {
            let (seen, truth) = (whole.quantile_ms(quantile), 1_000.0 * quantile);
            assert!(seen > truth / 2.0 && seen < truth * 2.0, "{quantile}: {seen}");
        }
        assert!((whole.quantile_ms(0.5) / 500.0 - 1.0).abs() < 0.05, "{}", whole.quantile_ms(0.5));
        let mut parts = of(1..=300);
        parts.add(of(301..=1_000));
        assert_eq!(parts, whole);
    }

    #[test]
    fn a_few_slow_calls_show_in_the_99th_percentile_and_not_in_the_median() {
        let mut stats = of([2; 97]);
        stats.add(of([4_000; 3]));
        assert!(stats.quantile_ms(0.5) < 4.2 && stats.quantile_ms(0.99) > 2_000.0);
    }

    #[test]
    fn nothing_and_absurd_durations_have_quantiles_too() {
        assert!(CallStats::default().quantile_ms(0.5).abs() < f64::EPSILON);
        let mut stats = CallStats::default();
        stats.count(true, 0);
        stats.count(true, i64::MAX);
        stats.count(true, i64::MIN);
        assert!(stats.quantile_ms(0.1) < 0.07 && stats.quantile_ms(f64::INFINITY) > 275_000.0);
    }
}
