//! Evaluation metrics for series: the kd-k rule of the AIOps challenge, and episodes with their false alerts.
//!
//! **kd-k** (AIOps Challenge 2018, k = 7): a run of anomalous points is found when one of its first k + 1 points is flagged; all
//! its points then count as found, else all as missed. Points outside of runs count as they are. It rewards early detection and, unlike
//! point adjustment, a late lucky hit earns nothing; random scores still reach .22 (AIOps) to .41 (SMD), so plain metrics
//! are printed first. Gaps are neither normal nor anomalous and are left out.
//!
//! Cost: one pass for a threshold; [`Curve`] sorts once (n log n) and answers for every threshold.

use crate::metrics::Confusion;

/// Points after the first within which a run must be hit, as the challenge has it.
pub const DELAY: usize = 7;

/// Runs of anomalous points as half-open ranges, in order.
#[must_use]
pub fn runs(anomalous: &[bool]) -> Vec<std::ops::Range<usize>> {
    let mut runs: Vec<std::ops::Range<usize>> = Vec::new();
    for (idx, _) in anomalous.iter().enumerate().filter(|(_, is)| **is) {
        match runs.last_mut() {
            Some(run) if run.end == idx => run.end = idx + 1,
            _ => runs.push(idx..idx + 1),
        }
    }
    runs
}

/// Counts under the kd-k rule for scores of at least `threshold`. NaN is never flagged.
///
/// # Panics
/// When there is not one label for each score.
#[must_use]
pub fn delayed(scores: &[f64], anomalous: &[bool], threshold: f64, delay: usize) -> Confusion {
    assert_eq!(scores.len(), anomalous.len(), "one label a score");
    let mut counts = Confusion::default();
    for run in runs(anomalous) {
        let early = &scores[run.start..run.end.min(run.start + delay + 1)];
        let n = run.len() as u64;
        if early.iter().any(|score| *score >= threshold) {
            counts.true_positives += n;
        } else {
            counts.false_negatives += n;
        }
    }
    for (score, _) in scores.iter().zip(anomalous).filter(|(_, is)| !**is) {
        counts.add(*score >= threshold, false);
    }
    counts
}

/// How F1 depends on the threshold, for choosing one on a labelled part and for naming the oracle's.
#[derive(Clone, Debug)]
pub struct Curve {
    /// Threshold, true positives, false positives at that threshold; thresholds descend.
    steps: Vec<(f64, u64, u64)>,
    n_anomalous: u64,
}

impl Curve {
    /// Plain points.
    #[must_use]
    pub fn plain(scores: &[f64], anomalous: &[bool]) -> Self {
        Self::of(scores.iter().copied().zip(anomalous.iter().map(|is| (u64::from(*is), u64::from(!*is)))))
    }

    /// Under the kd-k rule: a run counts whole, at the best score of its first points.
    #[must_use]
    pub fn delayed(scores: &[f64], anomalous: &[bool], delay: usize) -> Self {
        let best = |scores: &[f64]| scores.iter().copied().fold(f64::NAN, f64::max);
        let found = runs(anomalous).into_iter().map(|run| {
            let early = run.start..run.end.min(run.start + delay + 1);
            (best(&scores[early]), (run.len() as u64, 0))
        });
        let normal = scores.iter().zip(anomalous).filter(|(_, is)| !**is).map(|(score, _)| (*score, (0, 1)));
        Self::of(found.chain(normal))
    }

    fn of(weighed: impl Iterator<Item = (f64, (u64, u64))>) -> Self {
        let (mut known, mut n_anomalous) = (Vec::new(), 0);
        for (score, (n_true, n_false)) in weighed {
            n_anomalous += n_true;
            if !score.is_nan() {
                known.push((score, n_true, n_false));
            }
        }
        known.sort_by(|a, b| b.0.total_cmp(&a.0));
        let mut steps: Vec<(f64, u64, u64)> = Vec::new();
        let (mut found, mut flagged) = (0, 0);
        for (score, n_true, n_false) in known {
            found += n_true;
            flagged += n_false;
            match steps.last_mut() {
                Some(last) if last.0 == score => *last = (score, found, flagged),
                _ => steps.push((score, found, flagged)),
            }
        }
        Self { steps, n_anomalous }
    }

    /// The threshold of the best F1 and that F1; of equal ones the highest threshold. None when there is nothing to find.
    #[must_use]
    pub fn best(&self) -> Option<(f64, f64)> {
        let f1 = |found: u64, flagged: u64| 2.0 * found as f64 / (found + flagged + self.n_anomalous) as f64;
        let mut best: Option<(f64, f64)> = None;
        for &(threshold, found, flagged) in self.steps.iter().filter(|_| self.n_anomalous > 0) {
            if best.is_none_or(|best| f1(found, flagged) > best.1) {
                best = Some((threshold, f1(found, flagged)));
            }
        }
        best
    }
}

/// What a person would have been shown: alerts, each a run of flagged points with pauses of at most `gap`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Episodes {
    /// Alerts.
    pub n_alerts: u64,
    /// Of them, those without an anomalous point within `gap` points.
    pub n_false: u64,
    /// Runs of anomalous points.
    pub n_runs: u64,
    /// Of them, those with a flagged point in or up to `gap` points after.
    pub n_found: u64,
}

impl Episodes {
    /// Counts alerts and runs.
    ///
    /// # Panics
    /// When there is not one label for each decision.
    #[must_use]
    pub fn of(flagged: &[bool], anomalous: &[bool], gap: usize) -> Self {
        assert_eq!(flagged.len(), anomalous.len(), "one label a decision");
        let joined = |single: &[bool]| {
            let mut all: Vec<std::ops::Range<usize>> = Vec::new();
            for run in runs(single) {
                match all.last_mut() {
                    Some(last) if run.start <= last.end + gap => last.end = run.end,
                    _ => all.push(run),
                }
            }
            all
        };
        Self::count(&joined(flagged), flagged, anomalous, gap)
    }

    /// The same where the detector says itself with which points alerts begin, and which belong to an episode.
    ///
    /// # Panics
    /// When there is not one label for each decision.
    #[must_use]
    pub fn of_alerts(alerts: &[bool], hot: &[bool], anomalous: &[bool], gap: usize) -> Self {
        assert_eq!((alerts.len(), hot.len()), (anomalous.len(), anomalous.len()), "one label a decision");
        let single: Vec<std::ops::Range<usize>> =
            (0..alerts.len()).filter(|idx| alerts[*idx]).map(|idx| idx..idx + 1).collect();
        let flagged: Vec<bool> = alerts.iter().zip(hot).map(|(is_alert, is_hot)| *is_alert || *is_hot).collect();
        Self::count(&single, &flagged, anomalous, gap)
    }

    fn count(alerts: &[std::ops::Range<usize>], flagged: &[bool], anomalous: &[bool], gap: usize) -> Self {
        let touches = |run: &std::ops::Range<usize>, among: &[bool], before: usize, after: usize| {
            let (from, to) = (run.start.saturating_sub(before), (run.end + after).min(among.len()));
            among[from..to].iter().any(|is| *is)
        };
        let truth = runs(anomalous);
        Self {
            n_alerts: alerts.len() as u64,
            n_false: alerts.iter().filter(|alert| !touches(alert, anomalous, gap, gap)).count() as u64,
            n_runs: truth.len() as u64,
            n_found: truth.iter().filter(|run| touches(run, flagged, 0, gap)).count() as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_run_is_found_early_or_not_at_all() {
        let anomalous: Vec<bool> = (0..30).map(|idx| (5..20).contains(&idx)).collect();
        let hit = |at: usize| (0..30).map(|idx| f64::from(u8::from(idx == at))).collect::<Vec<_>>();
        let counts = |at: usize| delayed(&hit(at), &anomalous, 0.5, 7);
        assert_eq!((counts(12).true_positives, counts(12).false_negatives), (15, 0), "the eighth point");
        assert_eq!((counts(13).true_positives, counts(13).false_negatives), (0, 15), "the ninth is too late");
        assert_eq!(counts(2).false_positives, 1);
        assert_eq!(counts(2).n(), 30);
    }

    #[test]
    fn alerts_are_counted_as_people_see_them() {
        let flags = |on: &[usize]| (0..40).map(|idx| on.contains(&idx)).collect::<Vec<_>>();
        let episodes = Episodes::of(&flags(&[3, 5, 21, 35]), &flags(&[20, 21, 22, 38]), 2);
        assert_eq!(episodes, Episodes { n_alerts: 3, n_false: 2, n_runs: 2, n_found: 1 });
    }

    #[test]
    fn alerts_that_a_detector_names_are_counted_one_by_one() {
        let flags = |on: &[usize]| (0..40).map(|idx| on.contains(&idx)).collect::<Vec<_>>();
        // Two alerts in a row within one episode, one before it that is no longer hot, one false.
        let episodes =
            Episodes::of_alerts(&flags(&[18, 20, 22, 5]), &flags(&[20, 21, 22]), &flags(&[20, 21, 22, 38]), 2);
        assert_eq!(episodes, Episodes { n_alerts: 4, n_false: 1, n_runs: 2, n_found: 1 });
    }

    proptest! {
        #[test]
        fn the_curve_agrees_with_counting(
            points in proptest::collection::vec((0u8..6, any::<bool>()), 1..60),
            delay in 0usize..4,
        ) {
            let scores: Vec<f64> = points.iter().map(|point| if point.0 == 5 { f64::NAN } else { f64::from(point.0) }).collect();
            let anomalous: Vec<bool> = points.iter().map(|point| point.1).collect();
            let f1 = |counts: Confusion| counts.f1().unwrap_or(0.0);
            if let Some((threshold, best)) = Curve::delayed(&scores, &anomalous, delay).best() {
                prop_assert!((f1(delayed(&scores, &anomalous, threshold, delay)) - best).abs() < 1e-12);
                for other in 0..5 {
                    prop_assert!(f1(delayed(&scores, &anomalous, f64::from(other), delay)) <= best + 1e-12);
                }
            }
            if let Some((threshold, best)) = Curve::plain(&scores, &anomalous).best() {
                let counts = Confusion::of(scores.iter().map(|score| *score >= threshold).zip(anomalous.iter().copied()));
                prop_assert!((f1(counts) - best).abs() < 1e-12);
            }
        }
    }
}
