//! Evaluation metrics: plain window, session or line metrics, and log parsing accuracy. No point adjustment.
//!
//! A metric without a meaning (no prediction, no positive) is `None`, never 0 and never NaN. Parsing accuracy follows
//! Zhu et al., "Tools and Benchmarks for Automated Log Parsing" (ICSE-SEIP 2019) for GA, and Jiang et al., "A
//! Large-Scale Evaluation for Log Parsing Techniques: How Far Are We?" (ISSTA 2024) for PA, FGA and FTA. Average
//! precision is the step-wise sum over distinct thresholds, as in scikit-learn, so tied scores cannot be ordered in
//! anyone's favour. Cost: average precision and ROC sort (n log n); the rest is one pass.

use std::collections::{HashMap, HashSet};

/// Nanoseconds in a day.
const NANOS_PER_DAY: f64 = 86_400e9;

/// Counts of a binary decision against the truth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Confusion {
    /// Anomalies found.
    pub true_positives: u64,
    /// Normals flagged.
    pub false_positives: u64,
    /// Anomalies missed.
    pub false_negatives: u64,
    /// Normals left alone.
    pub true_negatives: u64,
}

impl Confusion {
    /// Counts `flagged` against `anomalous`.
    #[must_use]
    pub fn of(pairs: impl IntoIterator<Item = (bool, bool)>) -> Self {
        let mut counts = Self::default();
        for (flagged, anomalous) in pairs {
            counts.add(flagged, anomalous);
        }
        counts
    }

    /// Counts one decision.
    pub fn add(&mut self, flagged: bool, anomalous: bool) {
        match (flagged, anomalous) {
            (true, true) => self.true_positives += 1,
            (true, false) => self.false_positives += 1,
            (false, true) => self.false_negatives += 1,
            (false, false) => self.true_negatives += 1,
        }
    }

    /// Decisions counted.
    #[must_use]
    pub fn n(&self) -> u64 {
        self.true_positives + self.false_positives + self.false_negatives + self.true_negatives
    }

    /// Share of the flagged that is anomalous; none when nothing was flagged.
    #[must_use]
    pub fn precision(&self) -> Option<f64> {
        ratio(self.true_positives, self.true_positives + self.false_positives)
    }

    /// Share of the anomalous that is flagged; none when nothing is anomalous.
    #[must_use]
    pub fn recall(&self) -> Option<f64> {
        ratio(self.true_positives, self.true_positives + self.false_negatives)
    }

    /// Share of the normal that is left alone; none when nothing is normal.
    #[must_use]
    pub fn specificity(&self) -> Option<f64> {
        ratio(self.true_negatives, self.true_negatives + self.false_positives)
    }

    /// Harmonic mean of precision and recall: 2 TP / (2 TP + FP + FN). A detector that flags nothing scores 0 where
    /// there was something to find; none when there was nothing to find and nothing was flagged.
    #[must_use]
    pub fn f1(&self) -> Option<f64> {
        ratio(2 * self.true_positives, 2 * self.true_positives + self.false_positives + self.false_negatives)
    }

    /// Mean of recall and specificity: .5 for flagging everything, nothing, or at random.
    #[must_use]
    pub fn balanced_accuracy(&self) -> Option<f64> {
        Some((self.recall()? + self.specificity()?) / 2.0)
    }

    /// False alerts a day over a stretch of `span_nanos` of event time; none when the stretch is empty.
    #[must_use]
    pub fn false_alerts_per_day(&self, span_nanos: u64) -> Option<f64> {
        false_alerts_per_day(self.false_positives, span_nanos)
    }
}

/// `n_false` alerts over `span_nanos` of event time as a daily rate; none when the stretch is empty.
#[must_use]
pub fn false_alerts_per_day(n_false: u64, span_nanos: u64) -> Option<f64> {
    (span_nanos > 0).then(|| n_false as f64 * NANOS_PER_DAY / span_nanos as f64)
}

fn ratio(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// Runs of equal scores, highest first, as (anomalous, normal) counts. A score that is NaN counts as the lowest.
fn tied_counts(scores: &[f64], anomalous: &[bool]) -> Vec<(u64, u64)> {
    assert_eq!(scores.len(), anomalous.len(), "one label per score");
    let rank = |i: usize| if scores[i].is_nan() { f64::NEG_INFINITY } else { scores[i] };
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_unstable_by(|a, b| rank(*b).total_cmp(&rank(*a)));
    let mut runs: Vec<(u64, u64)> = Vec::new();
    let mut previous = None;
    for i in order {
        // `+ 0.0` makes the two zeros one score.
        let score = rank(i) + 0.0;
        if previous != Some(score) {
            runs.push((0, 0));
            previous = Some(score);
        }
        if let Some(run) = runs.last_mut() {
            if anomalous[i] {
                run.0 += 1;
            } else {
                run.1 += 1;
            }
        }
    }
    runs
}

/// Area under the precision-recall curve as average precision: the sum over distinct thresholds of the gain in recall
/// times the precision there. None when nothing is anomalous.
///
/// # Panics
/// When there is not one label per score.
#[must_use]
pub fn average_precision(scores: &[f64], anomalous: &[bool]) -> Option<f64> {
    let n_anomalous = anomalous.iter().filter(|label| **label).count() as f64;
    if n_anomalous == 0.0 {
        return None;
    }
    let (mut found, mut flagged, mut area) = (0.0, 0.0, 0.0);
    for (hits, misses) in tied_counts(scores, anomalous) {
        found += hits as f64;
        flagged += (hits + misses) as f64;
        area += hits as f64 / n_anomalous * (found / flagged);
    }
    Some(area.min(1.0))
}

/// Chance that a random anomaly scores above a random normal, ties counting half. None unless both kinds are there.
///
/// # Panics
/// When there is not one label per score.
#[must_use]
pub fn roc_auc(scores: &[f64], anomalous: &[bool]) -> Option<f64> {
    let n_anomalous = anomalous.iter().filter(|label| **label).count() as f64;
    let n_normal = anomalous.len() as f64 - n_anomalous;
    if n_anomalous == 0.0 || n_normal == 0.0 {
        return None;
    }
    let (mut below, mut area) = (n_normal, 0.0);
    for (hits, misses) in tied_counts(scores, anomalous) {
        below -= misses as f64;
        area += hits as f64 * (below + misses as f64 / 2.0);
    }
    Some(area / (n_anomalous * n_normal))
}

/// What a parser made of one message, or what the ground truth says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parsed<'a> {
    /// Identity of the group (template id, event id).
    pub group: &'a str,
    /// Template text.
    pub template: &'a str,
}

/// How well a parser grouped messages and wrote their templates.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ParsingAccuracy {
    /// Grouping accuracy: share of messages whose predicted group holds exactly the messages of their true group.
    pub ga: f64,
    /// Parsing accuracy: share of messages whose template text equals the true one.
    pub pa: f64,
    /// F1 of grouping accuracy over groups: a rare template counts as much as a frequent one.
    pub fga: f64,
    /// F1 over templates: a predicted template is right when all its messages have that one true template.
    pub fta: f64,
}

/// Compares a parser's output with the ground truth, message by message. None when there is no message.
///
/// # Panics
/// When the two differ in length.
#[must_use]
pub fn parsing_accuracy(predicted: &[Parsed<'_>], truth: &[Parsed<'_>]) -> Option<ParsingAccuracy> {
    assert_eq!(predicted.len(), truth.len(), "one prediction per message");
    if truth.is_empty() {
        return None;
    }
    let same_text = predicted.iter().zip(truth).filter(|(p, t)| p.template == t.template).count();

    let (predicted_groups, n_true_groups) = group_overlap(predicted, truth, |parsed| parsed.group);
    let exact = predicted_groups.values().filter(|group| group.is_exact());
    let (n_exact, n_messages) = exact.fold((0, 0), |(groups, messages), group| (groups + 1, messages + group.len));

    let (predicted_texts, n_true_texts) = group_overlap(predicted, truth, |parsed| parsed.template);
    let n_right = predicted_texts.iter().filter(|(text, group)| group.only_true == Some(**text)).count();

    let n = truth.len() as f64;
    Some(ParsingAccuracy {
        ga: n_messages as f64 / n,
        pa: same_text as f64 / n,
        fga: 2.0 * n_exact as f64 / (predicted_groups.len() + n_true_groups) as f64,
        fta: 2.0 * n_right as f64 / (predicted_texts.len() + n_true_texts) as f64,
    })
}

/// One predicted group against the true ones.
struct Overlap<'a> {
    /// Its messages.
    len: usize,
    /// The true group all of them belong to, where it is one.
    only_true: Option<&'a str>,
    /// Messages of the true group of the first message.
    true_len: usize,
}

impl Overlap<'_> {
    fn is_exact(&self) -> bool {
        self.only_true.is_some() && self.len == self.true_len
    }
}

fn group_overlap<'a>(
    predicted: &[Parsed<'a>],
    truth: &[Parsed<'a>],
    key: impl Fn(&Parsed<'a>) -> &'a str,
) -> (HashMap<&'a str, Overlap<'a>>, usize) {
    let mut true_lens: HashMap<&str, usize> = HashMap::new();
    for parsed in truth {
        *true_lens.entry(key(parsed)).or_default() += 1;
    }
    let mut groups: HashMap<&str, Overlap<'_>> = HashMap::new();
    for (p, t) in predicted.iter().zip(truth) {
        let true_group = key(t);
        let group = groups.entry(key(p)).or_insert_with(|| Overlap {
            len: 0,
            only_true: Some(true_group),
            true_len: true_lens[true_group],
        });
        group.len += 1;
        if group.only_true != Some(true_group) {
            group.only_true = None;
        }
    }
    (groups, true_lens.len())
}

/// Alerts that hit an anomalous stretch and stretches that were hit, for protocols that count episodes.
///
/// `alerts` are positions, `anomalous` the truth per position; a stretch is a run of anomalous positions. Positions
/// beyond the truth count as false.
#[must_use]
pub fn episode_hits(alerts: &[usize], anomalous: &[bool]) -> EpisodeHits {
    let mut stretch_of = vec![0_u32; anomalous.len()];
    let mut n_stretches = 0;
    for (i, label) in anomalous.iter().enumerate() {
        if *label {
            n_stretches += u32::from(i == 0 || !anomalous[i - 1]);
            stretch_of[i] = n_stretches;
        }
    }
    let mut hit = HashSet::new();
    let mut n_true_alerts = 0;
    for alert in alerts {
        if let Some(stretch) = stretch_of.get(*alert).filter(|stretch| **stretch > 0) {
            hit.insert(*stretch);
            n_true_alerts += 1;
        }
    }
    EpisodeHits {
        n_true_alerts,
        n_false_alerts: alerts.len() as u64 - n_true_alerts,
        n_hit: hit.len() as u64,
        n_episodes: u64::from(n_stretches),
    }
}

/// See [`episode_hits`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpisodeHits {
    /// Alerts inside an anomalous stretch.
    pub n_true_alerts: u64,
    /// Alerts outside of any.
    pub n_false_alerts: u64,
    /// Stretches hit at least once.
    pub n_hit: u64,
    /// Stretches there are.
    pub n_episodes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn close(a: Option<f64>, b: f64) {
        let a = a.expect("a value");
        assert!((a - b).abs() < 1e-12, "{a} is not {b}");
    }

    #[test]
    fn flexfringe_counts_on_hdfs_give_its_published_figures() {
        // Counts published for FlexFringe on the DeepLog split: .78 / 1.00 / .88.
        let counts =
            Confusion { true_positives: 16_837, false_positives: 4_764, false_negatives: 1, true_negatives: 548_602 };
        close(counts.precision(), 16_837.0 / 21_601.0);
        close(counts.recall(), 16_837.0 / 16_838.0);
        assert_eq!((counts.f1().expect("some") * 100.0).round(), 88.0);
        assert_eq!(counts.n(), 570_204);
    }

    #[test]
    fn metrics_without_a_meaning_are_none() {
        let nothing = Confusion::of([(false, false)]);
        assert_eq!((nothing.precision(), nothing.recall(), nothing.f1()), (None, None, None));
        let missed = Confusion::of([(false, true), (false, false)]);
        assert_eq!((missed.precision(), missed.recall(), missed.f1()), (None, Some(0.0), Some(0.0)));
        assert_eq!(average_precision(&[1.0], &[false]), None);
        assert_eq!(roc_auc(&[1.0], &[true]), None);
        assert_eq!(false_alerts_per_day(3, 0), None);
        assert_eq!(parsing_accuracy(&[], &[]), None);
    }

    #[test]
    fn flagging_everything_has_balanced_accuracy_one_half() {
        // Hadoop's trivial detector: F1 .915 although it knows nothing.
        let all = Confusion::of((0..961).map(|i| (true, i < 811)));
        close(all.balanced_accuracy(), 0.5);
        assert!((all.f1().expect("some") - 0.915).abs() < 0.001);
    }

    #[test]
    fn false_alerts_are_scaled_to_a_day_of_event_time() {
        close(false_alerts_per_day(3, 12 * 3_600_000_000_000), 6.0);
    }

    #[test]
    fn average_precision_equals_the_hand_computed_sum() {
        // Ranking: + - + -; AP = 1/2 * 1/1 + 1/2 * 2/3.
        close(average_precision(&[0.9, 0.8, 0.7, 0.1], &[true, false, true, false]), 0.5 + 1.0 / 3.0);
        // scikit-learn's documented example gives 0.83.
        close(average_precision(&[0.1, 0.4, 0.35, 0.8], &[false, false, true, true]), 5.0 / 6.0);
        close(roc_auc(&[0.1, 0.4, 0.35, 0.8], &[false, false, true, true]), 0.75);
    }

    #[test]
    fn tied_scores_are_one_threshold() {
        close(average_precision(&[1.0; 4], &[true, false, false, false]), 0.25);
        close(average_precision(&[1.0; 4], &[false, false, false, true]), 0.25);
        close(average_precision(&[0.0, -0.0], &[true, false]), 0.5);
        close(roc_auc(&[1.0; 4], &[true, false, false, false]), 0.5);
        close(average_precision(&[f64::NAN, 0.0], &[true, false]), 0.5);
    }

    fn messages<'a>(pairs: &[(&'a str, &'a str)]) -> Vec<Parsed<'a>> {
        pairs.iter().map(|(group, template)| Parsed { group, template }).collect()
    }

    #[test]
    fn parsing_accuracy_equals_the_hand_computed_values() {
        // True: A A A B C. Predicted: 1 1 1 2 2, so only A is grouped exactly; A's text is right, B's is right for one
        // message but its predicted group mixes two truths.
        let truth = messages(&[("A", "a <*>"), ("A", "a <*>"), ("A", "a <*>"), ("B", "b"), ("C", "c")]);
        let predicted = messages(&[("1", "a <*>"), ("1", "a <*>"), ("1", "a <*>"), ("2", "b"), ("2", "b")]);
        let accuracy = parsing_accuracy(&predicted, &truth).expect("messages");
        assert_eq!(accuracy.ga, 3.0 / 5.0);
        assert_eq!(accuracy.pa, 4.0 / 5.0);
        assert_eq!(accuracy.fga, 2.0 * 1.0 / (2.0 + 3.0));
        assert_eq!(accuracy.fta, 2.0 * 1.0 / (2.0 + 3.0));
    }

    #[test]
    fn splitting_a_group_loses_all_its_messages() {
        let truth = messages(&[("A", "a"), ("A", "a"), ("B", "b")]);
        let predicted = messages(&[("1", "a"), ("2", "a"), ("3", "b")]);
        let accuracy = parsing_accuracy(&predicted, &truth).expect("messages");
        assert_eq!((accuracy.ga, accuracy.pa), (1.0 / 3.0, 1.0));
        assert_eq!(accuracy.fga, 2.0 / 5.0);
        assert_eq!(accuracy.fta, 1.0, "by text, both predicted groups are the one template `a`");
    }

    #[test]
    fn episodes_are_runs_and_one_alert_hits_one() {
        let truth = [false, true, true, false, true, false];
        let hits = episode_hits(&[0, 2, 1, 99], &truth);
        assert_eq!(hits, EpisodeHits { n_true_alerts: 2, n_false_alerts: 2, n_hit: 1, n_episodes: 2 });
    }

    proptest! {
        #[test]
        fn f1_is_symmetric_in_decision_and_truth(pairs in prop::collection::vec(any::<(bool, bool)>(), 0..60)) {
            let there = Confusion::of(pairs.iter().copied()).f1();
            let back = Confusion::of(pairs.iter().map(|(a, b)| (*b, *a))).f1();
            prop_assert_eq!(there, back);
        }

        #[test]
        fn average_precision_lies_in_the_unit_interval_and_ignores_order(
            pairs in prop::collection::vec((0u8..6, any::<bool>()), 1..60),
        ) {
            let scores: Vec<f64> = pairs.iter().map(|(score, _)| f64::from(*score)).collect();
            let labels: Vec<bool> = pairs.iter().map(|(_, label)| *label).collect();
            let area = average_precision(&scores, &labels);
            if let Some(area) = area {
                let base = labels.iter().filter(|label| **label).count() as f64 / labels.len() as f64;
                prop_assert!((0.0..=1.0).contains(&area));
                let constant = average_precision(&vec![1.0; labels.len()], &labels).expect("has positives");
                prop_assert!((constant - base).abs() < 1e-12);
            }
            let reversed: Vec<f64> = scores.iter().rev().copied().collect();
            let labels_reversed: Vec<bool> = labels.iter().rev().copied().collect();
            let again = average_precision(&reversed, &labels_reversed);
            prop_assert_eq!(area.is_some(), again.is_some());
            if let (Some(a), Some(b)) = (area, again) {
                prop_assert!((a - b).abs() < 1e-12);
            }
        }

        #[test]
        fn a_renamed_identical_grouping_is_perfect(groups in prop::collection::vec(0u8..9, 1..80)) {
            let names: Vec<String> = groups.iter().map(|g| format!("E{g}")).collect();
            let renamed: Vec<String> = groups.iter().map(|g| format!("{}", 100 - g)).collect();
            let truth: Vec<Parsed<'_>> = names.iter().map(|n| Parsed { group: n, template: n }).collect();
            let predicted: Vec<Parsed<'_>> =
                renamed.iter().zip(&names).map(|(r, n)| Parsed { group: r, template: n }).collect();
            let accuracy = parsing_accuracy(&predicted, &truth).expect("messages");
            prop_assert_eq!(accuracy, ParsingAccuracy { ga: 1.0, pa: 1.0, fga: 1.0, fta: 1.0 });
        }
    }
}
