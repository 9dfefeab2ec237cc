//! Station 8, first half: raw scores become p-values, so that one significance means the same for every detector.
//!
//! In the body of the calibration scores the p-value is the conformal one, (1 + #{scores ≥ s}) / (n + 1): whatever
//! the distribution, a normal window gets p ≤ α with probability at most α (Vovk, Gammerman and Shafer, "Algorithmic
//! Learning in a Random World", 2005). It can never be below 1/(n+1); so beyond the largest calibration score a tail of
//! the generalised Pareto family takes over, as in SPOT (Siffer, Fouque, Termier and Largouet, "Anomaly Detection in
//! Streams with Extreme Value Theory", KDD 2017): p = 1/(n+1) · (1 + γ(s − max)/σ)^(−1/γ).
//!
//! Differs from SPOT: the tail begins at the largest score instead of a high quantile, so that the data decide wherever there
//! are data; γ and σ come from probability-weighted moments (Hosking and Wallis, Technometrics 1987), which need no
//! search and hold for few excesses; γ is kept within 0 to ½, as a bounded tail would call anything beyond its end
//! impossible. With too few distinct scores for a fit, the tail is a heavy one (γ = ½) of a scale that the spread of the
//! scores gives, or, when all scores are equal, a tenth of a unit.
//!
//! A warm-up may hold a few anomalies, which would hide all later ones of their kind. [`Calibration::robust`] leaves out
//! scores that lie together, far from the rest, up to a share that the user allows. The price: a kind of normal session that is
//! that rare and that different alerts.
//!
//! Cost: a binary search a p-value. Memory: at most [`MAX_DISTINCT`] distinct scores. Fails when normal operation changes:
//! p-values then come out too small until it is fitted anew or has observed enough.

use serde::{Deserialize, Serialize};

/// Distinct scores kept; neighbours are merged beyond it, towards the larger p-value.
pub const MAX_DISTINCT: usize = 4096;

/// Scores after which the older ones begin to count half.
const MAX_SCORES: u64 = 1 << 16;

/// Scores that are observed before they are merged in.
const MAX_PENDING: usize = 256;

/// What scores of normal windows look like. See the file's documentation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    n_scores: u64,
    /// Whether scores are surprises in nats, so that no p-value is below exp(-score).
    is_surprise: bool,
    /// Scores that were left out as abnormal, ascending.
    #[serde(with = "exact::list")]
    outliers: Vec<f64>,
    /// Distinct scores, ascending.
    steps: Vec<Step>,
    tail: Tail,
    /// Observed but not yet merged in.
    #[serde(with = "exact::list")]
    pending: Vec<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Step {
    #[serde(with = "exact")]
    score: f64,
    /// Scores that are equal to it or larger.
    n_at_least: u64,
}

/// Generalised Pareto survival function of the excess over the largest score.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Tail {
    #[serde(with = "exact")]
    scale: f64,
    #[serde(with = "exact")]
    shape: f64,
}

impl Calibration {
    /// Calibrates on scores of held-out normal windows. Non-finite ones are left out. Without any score every p-value
    /// is 1.
    #[must_use]
    pub fn fit(scores: &[f64]) -> Self {
        Self::robust(scores, 0.0, false)
    }

    /// Calibrates on scores of held-out windows of which a share of up to `contamination` may be abnormal. `is_surprise`
    /// says that a score is −ln of how often the like of it is seen.
    #[must_use]
    pub fn robust(scores: &[f64], contamination: f64, is_surprise: bool) -> Self {
        let mut scores: Vec<f64> = scores.iter().copied().filter(|score| score.is_finite()).collect();
        scores.sort_by(f64::total_cmp);
        let outliers = scores.split_off(first_outlier(&scores, contamination));
        let mut calibration = Self {
            n_scores: 0,
            is_surprise,
            outliers,
            steps: Vec::new(),
            tail: Tail { scale: 1.0, shape: 0.5 },
            pending: Vec::new(),
        };
        calibration.merge(scores);
        calibration
    }

    /// The p-values of the scores it rests on, and of those it left out.
    pub fn own_p_values(&self) -> impl Iterator<Item = f64> + '_ {
        let mut n_larger = 0;
        let body = self.steps.iter().rev().flat_map(move |step| {
            let n = step.n_at_least - std::mem::replace(&mut n_larger, step.n_at_least);
            std::iter::repeat_n(step.score, n as usize)
        });
        body.chain(self.outliers.iter().copied()).map(|score| self.p_value(score))
    }

    /// Scores that were left out as abnormal.
    #[must_use]
    pub fn n_outliers(&self) -> usize {
        self.outliers.len()
    }

    /// Probability that a normal window scores `score` or more. Never increases with the score; 1 for a score that is
    /// not a number.
    #[must_use]
    pub fn p_value(&self, score: f64) -> f64 {
        let least = if self.is_surprise && !score.is_nan() { (-score).exp().min(1.0) } else { 0.0 };
        self.by_rank(score).max(least)
    }

    fn by_rank(&self, score: f64) -> f64 {
        let Some(largest) = self.steps.last() else { return 1.0 };
        if score.is_nan() {
            return 1.0;
        }
        let n_scores = self.n_scores as f64;
        if score > largest.score {
            return (self.tail.survival(score - largest.score) / (n_scores + 1.0)).max(f64::MIN_POSITIVE);
        }
        let first_at_least = self.steps.partition_point(|step| step.score < score);
        (1.0 + self.steps[first_at_least].n_at_least as f64) / (n_scores + 1.0)
    }

    /// Takes the score of another normal window into account, in blocks of 256. Once there are 65,536 the older ones
    /// fade.
    pub fn observe(&mut self, score: f64) {
        if score.is_finite() {
            self.pending.push(score);
        }
        if self.pending.len() >= MAX_PENDING {
            let pending = std::mem::take(&mut self.pending);
            self.merge(pending);
        }
    }

    /// Scores it rests on.
    #[must_use]
    pub fn n_scores(&self) -> u64 {
        self.n_scores
    }

    /// The score from which on the p-value is at most `significance`; none when no finite score reaches it.
    #[must_use]
    pub fn threshold(&self, significance: f64) -> Option<f64> {
        let at_most = |score: f64| self.p_value(score) <= significance;
        let largest = self.steps.last()?.score;
        if let Some(step) = self.steps.iter().find(|step| at_most(step.score)) {
            return Some(step.score);
        }
        let mut above = self.tail.scale;
        while !at_most(largest + above) {
            above *= 2.0;
            if !(largest + above).is_finite() {
                return None;
            }
        }
        let (mut low, mut high) = (largest, largest + above);
        for _ in 0..64 {
            let middle = low + (high - low) / 2.0;
            if at_most(middle) { high = middle } else { low = middle }
        }
        Some(high)
    }

    fn merge(&mut self, mut scores: Vec<f64>) {
        // Adding zero turns -0.0 into 0.0, so that equal scores have one representation.
        scores.iter_mut().for_each(|score| *score += 0.0);
        let mut n_larger = 0;
        let mut counts: Vec<(f64, u64)> = Vec::with_capacity(self.steps.len() + scores.len());
        for step in self.steps.iter().rev() {
            counts.push((step.score, step.n_at_least - n_larger));
            n_larger = step.n_at_least;
        }
        counts.extend(scores.into_iter().map(|score| (score, 1)));
        counts.sort_by(|a, b| a.0.total_cmp(&b.0));
        counts.dedup_by(|later, kept| {
            let same = later.0 == kept.0;
            kept.1 += if same { later.1 } else { 0 };
            same
        });
        if counts.iter().map(|count| count.1).sum::<u64>() > MAX_SCORES {
            halve(&mut counts);
        }
        thin(&mut counts);
        let mut n_at_least = 0;
        self.steps.clear();
        for &(score, count) in counts.iter().rev() {
            n_at_least += count;
            self.steps.push(Step { score, n_at_least });
        }
        self.steps.reverse();
        self.n_scores = n_at_least;
        self.tail = Tail::fit(&counts, n_at_least);
    }
}

/// Index of the first of the abnormal scores among the sorted `scores`, their number when there are none.
///
/// Abnormal are at most a share `contamination` of them that lie together beyond a gap, and are far more than an
/// exponential tail would put there. The tail's scale comes from the upper quarter of the scores below that share, as
/// if those beyond were unknown (censored); it is 1 at least, the unit in which detectors score. Fewer than five are left
/// in: so few may be the end of a heavy tail.
fn first_outlier(scores: &[f64], contamination: f64) -> usize {
    const FEWEST: usize = 5;
    /// The gap before the lump, as a share of its excess. In a heavy tail the fifth score from the end has one in ten such.
    const GAP: f64 = 0.25;
    let n = scores.len();
    let n_suspects = (contamination * n as f64) as usize;
    if n_suspects < FEWEST {
        return n;
    }
    let first_suspect = n - n_suspects;
    let start = first_suspect * 3 / 4;
    let (threshold, censored_at) = (scores[start], scores[first_suspect - 1]);
    let excesses: f64 = scores[start..first_suspect].iter().map(|score| score - threshold).sum();
    let n_known = (first_suspect - start) as f64;
    let scale = ((excesses + n_suspects as f64 * (censored_at - threshold)) / n_known).max(1.0);
    (first_suspect..=n - FEWEST)
        .find(|&idx| {
            let (gap, excess) = (scores[idx] - scores[idx - 1], scores[idx] - threshold);
            let n_expected = (n - start) as f64 * (-excess / scale).exp();
            let n_found = (n - idx) as f64;
            gap >= scale.max(GAP * excess) && n_found > n_expected + 6.0 * n_expected.sqrt() + 3.0
        })
        .unwrap_or(n)
}

/// Halves how many scores there are at or above each. The largest goes: the second of n scores stands in the tail where the
/// first of n/2 does.
fn halve(counts: &mut Vec<(f64, u64)>) {
    let (mut n_at_least, mut n_kept) = (0u64, 0);
    for count in counts.iter_mut().rev() {
        n_at_least += count.1;
        count.1 = n_at_least / 2 - n_kept;
        n_kept += count.1;
    }
    counts.retain(|count| count.1 > 0);
}

/// Merges neighbours until at most [`MAX_DISTINCT`] scores are left. A merged score takes the larger value, which only
/// raises p-values; the upper half, where alerts are decided, stays exact.
fn thin(counts: &mut Vec<(f64, u64)>) {
    if counts.len() <= MAX_DISTINCT {
        return;
    }
    let exact = MAX_DISTINCT / 2;
    let body = counts.len() - exact;
    let each = body.div_ceil(exact);
    let mut merged: Vec<(f64, u64)> = counts[..body]
        .chunks(each)
        .filter_map(|chunk| Some((chunk.last()?.0, chunk.iter().map(|count| count.1).sum())))
        .collect();
    merged.extend_from_slice(&counts[body..]);
    *counts = merged;
}

impl Tail {
    /// Fits the excesses of the top scores and moves the start of the tail to the largest score: the excess of a
    /// generalised Pareto variable over a higher threshold is one again, with the scale grown by γ times the way.
    fn fit(counts: &[(f64, u64)], n_scores: u64) -> Self {
        const MIN_EXCESSES: u64 = 20;
        const MIN_DISTINCT: usize = 8;
        let Some(&(largest, _)) = counts.last() else { return Self { scale: 1.0, shape: 0.5 } };
        let wanted = (n_scores / 50).max(MIN_EXCESSES);
        let mut n_excesses = 0;
        let mut first = counts.len();
        while first > 0 && n_excesses < wanted {
            first -= 1;
            n_excesses += counts[first].1;
        }
        if first == 0 || n_scores < 10 * MIN_EXCESSES || counts.len() - first < MIN_DISTINCT {
            return Self::guess(counts, largest);
        }
        let threshold = counts[first - 1].0;
        // Probability-weighted moments a0 = E[X] and a1 = E[X(1-F)], ties in one term.
        let n = n_excesses as f64;
        let (mut a0, mut a1, mut n_smaller) = (0.0, 0.0, 0.0);
        for &(score, count) in &counts[first..] {
            let (excess, count) = (score - threshold, count as f64);
            let mean_larger = n - n_smaller - (count + 1.0) / 2.0;
            a0 += count * excess / n;
            a1 += count * excess * mean_larger / (n - 1.0) / n;
            n_smaller += count;
        }
        let shape = (2.0 - a0 / (a0 - 2.0 * a1)).clamp(0.0, 0.5);
        let scale = a0 * (1.0 - shape) + shape * (largest - threshold);
        if scale.is_finite() && scale > 0.0 { Self { scale, shape } } else { Self::guess(counts, largest) }
    }

    /// A heavy tail for scores that are too few or too alike to fit one.
    fn guess(counts: &[(f64, u64)], largest: f64) -> Self {
        let n: f64 = counts.iter().map(|count| count.1 as f64).sum();
        let mean = counts.iter().map(|&(score, count)| score * count as f64).sum::<f64>() / n;
        let variance = counts.iter().map(|&(score, count)| (score - mean).powi(2) * count as f64).sum::<f64>() / n;
        let last_gap = if counts.len() > 1 { largest - counts[counts.len() - 2].0 } else { 0.0 };
        let spread = variance.sqrt().max(last_gap / 2.0);
        let scale = if spread.is_finite() { spread } else { largest.abs() };
        Self { scale: scale.max(0.05 * largest.abs().max(1.0)), shape: 0.5 }
    }

    fn survival(self, excess: f64) -> f64 {
        if self.shape < 1e-9 {
            (-excess / self.scale).exp()
        } else {
            (1.0 + self.shape * excess / self.scale).powf(-1.0 / self.shape)
        }
    }
}

/// Floats as their bits, because JSON text may come back one bit off, and a tie with a score must stay a tie.
pub(crate) mod exact {
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(value.to_bits())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        u64::deserialize(deserializer).map(f64::from_bits)
    }

    pub mod list {
        use serde::{Deserialize, Deserializer, Serializer};

        pub fn serialize<S: Serializer>(values: &[f64], serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_seq(values.iter().map(|value| value.to_bits()))
        }

        pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<f64>, D::Error> {
            Ok(Vec::<u64>::deserialize(deserializer)?.into_iter().map(f64::from_bits).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-12
    }

    #[test]
    fn in_the_body_the_p_value_is_conformal() {
        let calibration = Calibration::fit(&[1.0, 2.0, 2.0, 3.0]);
        assert!(close(calibration.p_value(0.5), 1.0));
        assert!(close(calibration.p_value(2.0), 4.0 / 5.0));
        assert!(close(calibration.p_value(2.5), 2.0 / 5.0));
        assert!(close(calibration.p_value(3.0), 2.0 / 5.0));
    }

    #[test]
    fn beyond_the_data_p_values_keep_falling() {
        let calibration = Calibration::fit(&[0.0; 100]);
        assert!(close(calibration.p_value(0.0), 1.0));
        let far: Vec<f64> = [0.01, 0.1, 1.0, 10.0, 1e6].iter().map(|&score| calibration.p_value(score)).collect();
        assert!(far[0] < 1.0 / 101.0 && far.is_sorted_by(|a, b| a > b), "{far:?}");
        assert!(far[2] < 1e-3, "a whole unit beyond a hundred equal scores is significant: {far:?}");
        let calibration = Calibration::fit(&[0.0; 10]);
        assert!(calibration.p_value(0.5) > 1e-3, "ten scores are not enough to be sure");
    }

    #[test]
    fn an_exponential_tail_is_extrapolated_to_its_true_quantile() {
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let scores: Vec<f64> = (0..5_000).map(|_| -(1.0 - rng.random::<f64>()).ln()).collect();
        let calibration = Calibration::fit(&scores);
        for exponent in [4.0, 6.0] {
            let p = calibration.p_value(exponent * std::f64::consts::LN_10);
            assert!(p.log10() < -exponent + 1.0 && p.log10() > -exponent - 1.0, "1e-{exponent}: {p:e}");
        }
        let threshold = calibration.threshold(1e-3).expect("within reach");
        assert!((threshold - 1e3f64.ln()).abs() < 0.7, "{threshold}");
    }

    #[test]
    fn without_scores_nothing_is_significant() {
        assert_eq!(Calibration::fit(&[]).p_value(1e9), 1.0);
        assert_eq!(Calibration::fit(&[f64::NAN, f64::INFINITY]).n_scores(), 0);
        assert_eq!(Calibration::fit(&[1.0]).p_value(f64::NAN), 1.0);
    }

    #[test]
    fn observed_scores_count_and_memory_stays_bounded() {
        let mut calibration = Calibration::fit(&[]);
        for score in 0..100_000u32 {
            calibration.observe(f64::from(score.wrapping_mul(2_654_435_761) >> 8));
        }
        assert!(calibration.steps.len() <= MAX_DISTINCT);
        assert!((MAX_SCORES / 2..=MAX_SCORES).contains(&calibration.n_scores()), "{}", calibration.n_scores());
        let median = f64::from(1u32 << 23);
        assert!((calibration.p_value(median) - 0.5).abs() < 0.02, "{}", calibration.p_value(median));
    }

    #[test]
    fn a_detached_lump_of_high_scores_is_left_out_of_a_contaminated_calibration() {
        let mut rng = ChaCha8Rng::seed_from_u64(11);
        let normal = |rng: &mut ChaCha8Rng| -(1.0 - rng.random::<f64>()).ln();
        let clean: Vec<f64> = (0..2_000).map(|_| normal(&mut rng)).collect();
        let poisoned: Vec<f64> = clean.iter().copied().chain((0..40).map(|_| 20.0 + normal(&mut rng))).collect();
        assert_eq!(Calibration::robust(&clean, 0.05, false).n_outliers(), 0);
        assert_eq!(Calibration::robust(&poisoned, 0.0, false).n_outliers(), 0);
        let robust = Calibration::robust(&poisoned, 0.05, false);
        assert_eq!(robust.n_outliers(), 40);
        assert!(robust.p_value(20.0) < 1e-6 && Calibration::fit(&poisoned).p_value(20.0) > 0.01);
        assert_eq!(robust.own_p_values().count(), 2_040);
        // More than the share is a mode of its own.
        let two_modes: Vec<f64> = clean.iter().copied().chain(std::iter::repeat_n(20.0, 200)).collect();
        assert_eq!(Calibration::robust(&two_modes, 0.05, false).n_outliers(), 0);
    }

    #[test]
    fn a_heavy_tail_is_no_contamination() {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let scores: Vec<f64> = (0..5_000).map(|_| (1.0 - rng.random::<f64>()).powf(-0.5)).collect();
        assert!(Calibration::robust(&scores, 0.05, false).n_outliers() < 10);
    }

    #[test]
    fn a_surprise_is_never_rarer_than_it_says() {
        let calibration = Calibration::robust(&[0.0; 1_000], 0.05, true);
        assert!(close(calibration.p_value(4.0), (-4f64).exp()));
        assert!(close(calibration.p_value(0.0), 1.0));
    }

    proptest! {
        #[test]
        fn a_higher_score_never_has_a_higher_p_value(
            scores in prop::collection::vec(prop_oneof![Just(0.0), -5.0..5.0f64, 0.0..1e9f64], 0..400),
            mut probes in prop::collection::vec(prop_oneof![-10.0..10.0f64, -1e12..1e12f64], 2..50),
            contamination in prop_oneof![Just(0.0), 0.0..0.4f64],
            is_surprise: bool,
        ) {
            let calibration = Calibration::robust(&scores, contamination, is_surprise);
            probes.extend(&scores);
            probes.sort_by(f64::total_cmp);
            let p_values: Vec<f64> = probes.iter().map(|&score| calibration.p_value(score)).collect();
            prop_assert!(p_values.is_sorted_by(|a, b| a >= b));
            prop_assert!(p_values.iter().all(|p| (0.0..=1.0).contains(p) && *p > 0.0));
        }

        #[test]
        fn a_calibration_comes_back_bit_for_bit(
            scores in prop::collection::vec(-1e3..1e3f64, 0..300),
            observed in prop::collection::vec(0.0..1.0f64, 0..10),
        ) {
            let mut calibration = Calibration::fit(&scores);
            observed.iter().for_each(|&score| calibration.observe(score));
            let text = serde_json::to_string(&calibration).expect("numbers");
            prop_assert_eq!(serde_json::from_str::<Calibration>(&text).expect("its own"), calibration);
        }
    }
}
