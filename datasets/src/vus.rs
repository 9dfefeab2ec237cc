//! VUS-PR: how well scores rank anomalous stretches, whatever the tolerance at their edges. Needs no threshold.
//!
//! Paparrizos, Boniol, Palpanas, Tsay, Elmore, Franklin: "Volume Under the Surface: A New Accuracy Evaluation Measure for
//! Time-Series Anomaly Detection" (VLDB 2022), as the packages `vus` 0.0.6 and TSB-AD 1.5 compute it (the tests hold their figures).
//! For a buffer of l points, a point at distance d <= l/2 from a run of anomalous points has the label sqrt(1 - d/l); where
//! several runs reach, the labels add up to at most 1. Runs whose buffers touch are one. At a threshold, with TP the
//! sum of the labels of the flagged, and P that of the runs:
//! - precision is TP / flagged;
//! - recall is TP / (P + half of the flagged labels outside of the runs), at most 1, times the share of runs, buffers
//!   included, that hold a flagged point.
//!
//! The area under precision over recall (a sum of steps over 250 thresholds at equal ranks) is averaged over l = 0, 1, ... L.
//! It rewards being near, so it says little about delay: print it beside plain average precision. TSB-AD takes the period
//! of a series for L; figures with different L do not compare.
//!
//! Where two runs reach a point its label is 1, as each adds at least sqrt(1/2). So the two shortest distances of a point
//! say what its label is for every l, and no label is ever written out. Cost: one sort (n log n), then for each l one pass over
//! the points within L/2 of a run: n log n + L n at most, against 250 L n of the packages.

use crate::series_metrics::runs;

/// Thresholds tried, as the packages do.
const N_THRESHOLDS: usize = 250;

/// A normal point near a run.
struct Near {
    /// To the nearest edge of a run.
    distance: usize,
    /// To the second nearest, of another run or of the run on the other side.
    second: usize,
    /// First threshold that flags it.
    rank: usize,
}

/// VUS-PR of `scores` with buffers of 0 to `max_buffer` points. NaN counts as the lowest score. None when nothing is
/// anomalous.
///
/// # Panics
/// When there is not one label for each score.
#[must_use]
pub fn vus_pr(scores: &[f64], anomalous: &[bool], max_buffer: usize) -> Option<f64> {
    assert_eq!(scores.len(), anomalous.len(), "one label a score");
    let runs = runs(anomalous);
    if runs.is_empty() {
        return None;
    }
    let ranks = ranks(scores);
    let near = near(anomalous, &ranks, max_buffer / 2);
    let n_flagged = cumulated(ranks.iter().map(|rank| (*rank, 1.0)));
    let hits = ranks.iter().zip(anomalous).filter(|(_, is)| **is).map(|(rank, _)| (*rank, 1.0));
    let n_hits = cumulated(hits);
    let n_anomalous = n_hits[N_THRESHOLDS - 1];

    // The first threshold that flags a point of the run or of its buffers.
    let mut first_hit: Vec<usize> =
        runs.iter().map(|run| ranks[run.clone()].iter().copied().min().unwrap_or(N_THRESHOLDS - 1)).collect();
    let mut volume = 0.0;
    for buffer in 0..=max_buffer {
        let reach = buffer / 2;
        if reach > 0 && buffer.is_multiple_of(2) {
            for (run, first) in runs.iter().zip(&mut first_hit) {
                let before = run.start.checked_sub(reach).map(|at| ranks[at]);
                let after = ranks.get(run.end - 1 + reach).copied();
                *first = before.into_iter().chain(after).fold(*first, usize::min);
            }
        }
        let labels = near.iter().filter(|point| point.distance <= reach).map(|point| {
            let is_full = point.second <= reach;
            (point.rank, if is_full { 1.0 } else { (1.0 - point.distance as f64 / buffer as f64).sqrt() })
        });
        let around = cumulated(labels);
        let mut joined: Vec<usize> = Vec::with_capacity(runs.len());
        for (idx, first) in first_hit.iter().enumerate() {
            let touches = idx > 0 && runs[idx - 1].end - 1 + 2 * reach >= runs[idx].start;
            match joined.last_mut().filter(|_| touches) {
                Some(last) => *last = (*last).min(*first),
                None => joined.push(*first),
            }
        }
        let n_joined = joined.len() as f64;
        let found = cumulated(joined.into_iter().map(|first| (first, 1.0)));

        let mut recall_before = 0.0;
        for k in 0..N_THRESHOLDS {
            let true_positives = n_hits[k] + around[k];
            let recall = (true_positives / (n_anomalous + around[k] / 2.0)).min(1.0) * found[k] / n_joined;
            volume += (recall - recall_before) * true_positives / n_flagged[k];
            recall_before = recall;
        }
    }
    Some(volume / (max_buffer + 1) as f64)
}

/// For each score the first threshold, counted from the highest, that it reaches.
fn ranks(scores: &[f64]) -> Vec<usize> {
    let known = |score: f64| if score.is_nan() { f64::NEG_INFINITY } else { score };
    let mut descending: Vec<f64> = scores.iter().map(|score| known(*score)).collect();
    descending.sort_by(|a, b| b.total_cmp(a));
    let last = descending.len() - 1;
    let step = last as f64 / (N_THRESHOLDS - 1) as f64;
    let mut thresholds: Vec<f64> =
        (0..N_THRESHOLDS).map(|k| descending[((k as f64 * step) as usize).min(last)]).collect();
    // Whatever the rounding, the lowest score is the last threshold and flags everything.
    thresholds[N_THRESHOLDS - 1] = descending[last];
    scores.iter().map(|score| thresholds.partition_point(|threshold| *threshold > known(*score))).collect()
}

/// The normal points within `reach` of a run.
fn near(anomalous: &[bool], ranks: &[usize], reach: usize) -> Vec<Near> {
    const FAR: usize = usize::MAX;
    // The two shortest distances of each point: to ends of runs before it, then to starts of runs behind it.
    let mut shortest = vec![(FAR, FAR); anomalous.len()];
    let (mut last, mut one_before) = (None, None);
    for (at, is) in anomalous.iter().enumerate() {
        if *is {
            if at == 0 || !anomalous[at - 1] {
                one_before = last;
            }
            last = Some(at);
        } else {
            let distance = |end: Option<usize>| end.map_or(FAR, |end| at - end);
            shortest[at] = (distance(last), distance(one_before));
        }
    }
    let (mut last, mut one_before) = (None, None);
    for (at, is) in anomalous.iter().enumerate().rev() {
        if *is {
            if !anomalous.get(at + 1).copied().unwrap_or(false) {
                one_before = last;
            }
            last = Some(at);
        } else {
            let distance = |start: Option<usize>| start.map_or(FAR, |start| start - at);
            let (before, behind) = (shortest[at], (distance(last), distance(one_before)));
            let second = before.0.max(behind.0).min(before.1).min(behind.1);
            shortest[at] = (before.0.min(behind.0), second);
        }
    }
    let is_near = |at: &usize| !anomalous[*at] && shortest[*at].0 <= reach;
    (0..anomalous.len())
        .filter(is_near)
        .map(|at| Near { distance: shortest[at].0, second: shortest[at].1, rank: ranks[at] })
        .collect()
}

/// How much has come up to each threshold.
fn cumulated(weights: impl Iterator<Item = (usize, f64)>) -> [f64; N_THRESHOLDS] {
    let mut sums = [0.0; N_THRESHOLDS];
    weights.for_each(|(rank, weight)| sums[rank] += weight);
    for k in 1..N_THRESHOLDS {
        sums[k] += sums[k - 1];
    }
    sums
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn close(a: Option<f64>, b: f64) {
        let a = a.expect("something is anomalous");
        assert!((a - b).abs() < 1e-9, "{a} is not {b}");
    }

    fn lifted(anomalous: &[bool], lift: f64, normal: impl Fn(usize) -> f64) -> Vec<f64> {
        anomalous.iter().enumerate().map(|(at, is)| normal(at) + if *is { lift } else { 0.0 }).collect()
    }

    /// What `RangeAUC_volume_opt` of the packages `vus` 0.0.6 and `TSB-AD` 1.5 says; both agree to the last digit.
    #[test]
    fn figures_are_those_of_the_authors_packages() {
        let anomalous = [3, 4, 11].iter().fold([false; 16], |mut all, at| {
            all[*at] = true;
            all
        });
        let scores = [0.1, 0.2, 0.1, 0.3, 0.9, 0.8, 0.2, 0.1, 0.1, 0.2, 0.6, 0.5, 0.4, 0.1, 0.0, 0.2];
        for (max_buffer, expected) in [
            (0, 0.583_333_333_333_333_3),
            (1, 0.583_333_333_333_333_3),
            (4, 0.773_331_599_641_497_8),
            (6, 0.824_521_589_947_759_5),
        ] {
            close(vus_pr(&scores, &anomalous, max_buffer), expected);
        }

        // More points than thresholds; runs at both ends, runs near each other, a run of one point.
        let runs = [0..3, 100..120, 131..132, 140..141, 300..360, 590..600];
        let anomalous: Vec<bool> = (0..600).map(|at| runs.iter().any(|run| run.contains(&at))).collect();
        let scores = lifted(&anomalous, 0.3, |at| ((at * 7_919) % 1_009) as f64 / 1_009.0);
        for (max_buffer, expected) in [
            (0, 0.469_626_471_358_201_7),
            (10, 0.541_186_716_685_401_3),
            (50, 0.628_307_776_895_212_6),
            (101, 0.707_036_758_892_358_1),
        ] {
            close(vus_pr(&scores, &anomalous, max_buffer), expected);
        }
        let tied = lifted(&anomalous, 0.25, |at| ((at * 37) % 7) as f64 / 7.0);
        close(vus_pr(&tied, &anomalous, 0), 0.355_490_241_553_792_3);
        close(vus_pr(&tied, &anomalous, 20), 0.429_031_882_549_509_1);

        // Every other point: all buffers overlap.
        let anomalous: Vec<bool> = (0..600).map(|at| at % 2 == 1).collect();
        let scores = lifted(&anomalous, 0.0, |at| ((at * 7_919) % 1_009) as f64 / 1_009.0);
        close(vus_pr(&scores, &anomalous, 8), 0.889_658_028_212_528_2);
    }

    #[test]
    fn without_an_anomaly_there_is_no_figure() {
        assert_eq!(vus_pr(&[1.0, 2.0], &[false, false], 5), None);
        assert_eq!(vus_pr(&[], &[], 5), None);
        close(vus_pr(&[f64::NAN], &[true], 3), 1.0);
    }

    /// The definition written down: labels for every point, flags for every threshold.
    fn by_definition(scores: &[f64], anomalous: &[bool], max_buffer: usize) -> f64 {
        let n = scores.len();
        let runs = runs(anomalous);
        let mut descending = scores.to_vec();
        descending.sort_by(|a, b| b.total_cmp(a));
        let mut volume = 0.0;
        for buffer in 0..=max_buffer {
            let reach = buffer / 2;
            let mut labels: Vec<f64> = anomalous.iter().map(|is| f64::from(u8::from(*is))).collect();
            for run in &runs {
                for distance in 1..=reach {
                    let label = (1.0 - distance as f64 / buffer as f64).sqrt();
                    for at in run.start.checked_sub(distance).into_iter().chain([run.end - 1 + distance]) {
                        labels.get_mut(at).into_iter().for_each(|it| *it = (*it + label).min(1.0));
                    }
                }
            }
            let mut wide: Vec<std::ops::Range<usize>> = Vec::new();
            for run in &runs {
                let (from, to) = (run.start.saturating_sub(reach), (run.end + reach).min(n));
                match wide.last_mut().filter(|last| last.end > from) {
                    Some(last) => last.end = to,
                    None => wide.push(from..to),
                }
            }
            let mut before = 0.0;
            for k in 0..N_THRESHOLDS {
                let idx = (k as f64 * ((n - 1) as f64 / (N_THRESHOLDS - 1) as f64)) as usize;
                let threshold = descending[if k == N_THRESHOLDS - 1 { n - 1 } else { idx }];
                let flagged: Vec<usize> = (0..n).filter(|at| scores[*at] >= threshold).collect();
                let sum = |wanted: bool| -> f64 {
                    flagged.iter().filter(|at| anomalous[**at] == wanted).map(|at| labels[*at]).sum()
                };
                let found = wide.iter().filter(|run| flagged.iter().any(|at| run.contains(at))).count();
                let n_anomalous = anomalous.iter().filter(|is| **is).count() as f64;
                let hits = sum(true) + sum(false);
                let recall = (hits / (n_anomalous + sum(false) / 2.0)).min(1.0) * found as f64 / wide.len() as f64;
                volume += (recall - before) * hits / flagged.len() as f64;
                before = recall;
            }
        }
        volume / (max_buffer + 1) as f64
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn the_short_way_agrees_with_the_definition(
            points in proptest::collection::vec((0u8..20, proptest::bool::weighted(0.2)), 1..60),
            max_buffer in 0usize..14,
        ) {
            let scores: Vec<f64> = points.iter().map(|point| f64::from(point.0)).collect();
            let anomalous: Vec<bool> = points.iter().map(|point| point.1).collect();
            match vus_pr(&scores, &anomalous, max_buffer) {
                None => prop_assert!(anomalous.iter().all(|is| !is)),
                Some(volume) => {
                    let expected = by_definition(&scores, &anomalous, max_buffer);
                    prop_assert!((volume - expected).abs() < 1e-9, "{volume} is not {expected}");
                    prop_assert!((0.0..=1.0 + 1e-9).contains(&volume));
                }
            }
        }
    }
}
