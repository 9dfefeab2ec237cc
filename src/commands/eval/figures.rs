//! What a detector's scores of series and machines are worth: figures of each, and their mean as one result row.
//!
//! Plain points first: precision, recall, F1 and average precision over the points that were measured; a gap is neither to be
//! found nor flagged. Beside them the kd7 rule, VUS-PR with buffers of up to [`BUFFER`] points, and alerts as a person would see
//! them. A row's figures are means over the series in which there is something to find; alerts are of all series and a day of
//! one of them. Where nothing is flagged there is no precision, and the series is left out of that mean; its F1 is 0. Counts
//! and figures called `pooled` are over all points together.
//!
//! Three thresholds: the contender's own, which decides; the one of the best F1 on the labels of the training part (`labelled
//! threshold`); and the one of the best F1 on the test part (`oracle threshold`). The latter two are chosen for each series, for
//! plain points and for the kd7 rule apart. A fourth is in between: one p-value for all series (`shared level`), the one that is best on
//! the labels of their training parts; it is what a constant of a product is. Where a detector says itself which points belong to an episode and where alerts
//! begin (`verdicts`), that decides in place of a threshold: points by episodes, the kd7 rule and alerts by onsets.

use faultline_datasets::{
    Confusion, ResultRow, average_precision,
    metrics::false_alerts_per_day,
    series_metrics::{Curve, DELAY, Episodes, delayed},
    vus::vus_pr,
};
use serde_json::{Map, Value, json};

use super::{
    points::{Contender, LEVELS, Scored},
    verdicts::Verdicts,
};

/// Longest buffer of VUS-PR. TSB-AD takes the period of each series; one for all is simpler to compare.
const BUFFER: usize = 100;

/// Points without a flag after which the next one is a new alert.
const GAP: usize = 10;

/// One series or machine: what there is to find in it.
pub struct Case<'a> {
    /// Its name.
    pub name: &'a str,
    /// Nanoseconds between rows.
    pub step_nanos: i64,
    /// Whether something was measured in each row.
    pub is_known: Vec<bool>,
    /// Whether each row is anomalous; empty for the training part where that has no labels.
    pub truth: &'a [bool],
    /// Rows of the training part.
    pub n_train: usize,
}

/// Counts of plain points and under the kd7 rule.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct At {
    point: Confusion,
    delayed: Confusion,
}

/// What was reached on one case.
#[derive(Debug)]
pub struct Figures {
    name: String,
    /// Wall time that the test part covers.
    span_nanos: u64,
    threshold: f64,
    own: At,
    /// None where the training part has no labels.
    labelled: Option<At>,
    oracle: Option<At>,
    /// For each of [`LEVELS`] what it reaches on the training part, where that has labels, and on the test part.
    levels: Vec<(At, At)>,
    /// Whether the training part has something to find.
    has_lessons: bool,
    average_precision: Option<f64>,
    vus_pr: Option<f64>,
    episodes: Episodes,
}

impl Figures {
    /// Holds scores against the truth.
    pub fn of(case: &Case<'_>, scored: &Scored) -> Self {
        let (train_scores, scores) = scored.scores.split_at(case.n_train);
        let (train_known, known) = case.is_known.split_at(case.n_train);
        let n_labelled = case.truth.len().saturating_sub(known.len());
        let (train_truth, truth) = case.truth.split_at(n_labelled);
        let truth = visible(truth, known);
        let measured = || scores.iter().zip(&truth).zip(known).filter(|(_, is_known)| **is_known).map(|(pair, _)| pair);
        let verdicts = scored.verdicts.as_ref();
        let (train_onsets, onsets) =
            verdicts.map_or((train_scores, scores), |verdicts| verdicts.onsets.split_at(case.n_train));
        let at = |(point, late): (f64, f64)| At {
            point: Confusion::of(measured().map(|(score, is)| (*score >= point, *is))),
            delayed: delayed(onsets, &truth, late, DELAY),
        };
        let has_labels = n_labelled == case.n_train && n_labelled > 0;
        // Where nothing was said, no threshold finds anything.
        let from = train_scores.iter().position(|score| !score.is_nan()).unwrap_or(case.n_train);
        let lessons = if has_labels { visible(&train_truth[from..], &train_known[from..]) } else { Vec::new() };
        let labelled = has_labels.then(|| {
            let chosen = best(&train_scores[from..], &train_onsets[from..], &lessons);
            at(chosen.unwrap_or((scored.threshold, scored.threshold)))
        });
        let on_lessons = |level: f64| At {
            point: Confusion::of(train_scores[from..].iter().zip(&lessons).map(|(score, is)| (*score >= level, *is))),
            delayed: delayed(&train_onsets[from..], &lessons, level, DELAY),
        };
        let own_levels = scored.levels.iter().filter(|_| has_labels);
        let levels = own_levels.map(|level| (on_lessons(*level), at((*level, *level)))).collect();
        let (ranked, labels): (Vec<f64>, Vec<bool>) = measured().map(|(score, is)| (*score, *is)).unzip();
        let (own, episodes) = match verdicts {
            Some(verdicts) => said(verdicts, case.n_train, &truth, known),
            None => {
                let flagged: Vec<bool> = scores.iter().map(|score| *score >= scored.threshold).collect();
                (at((scored.threshold, scored.threshold)), Episodes::of(&flagged, &truth, GAP))
            }
        };
        let step_nanos = u64::try_from(case.step_nanos).unwrap_or(0);
        Self {
            name: case.name.to_owned(),
            span_nanos: step_nanos.saturating_mul(scores.len() as u64),
            threshold: scored.threshold,
            own,
            labelled,
            oracle: best(scores, onsets, &truth).map(at),
            levels,
            has_lessons: lessons.contains(&true),
            average_precision: average_precision(&ranked, &labels),
            vus_pr: vus_pr(scores, &truth, BUFFER),
            episodes,
        }
    }

    fn has_something_to_find(&self) -> bool {
        self.episodes.n_runs > 0
    }

    fn to_json(&self) -> Value {
        let labelled = self.labelled.as_ref();
        json!({
            "n": self.own.point.n(),
            "n_anomalous": self.own.point.true_positives + self.own.point.false_negatives,
            "threshold": finite(self.threshold),
            "precision": self.own.point.precision(),
            "recall": self.own.point.recall(),
            "f1": self.own.point.f1(),
            "auprc": self.average_precision,
            "kd7_f1": self.own.delayed.f1(),
            "vus_pr": self.vus_pr,
            "labelled_threshold_f1": labelled.and_then(|at| at.point.f1()),
            "oracle_threshold_f1": self.oracle.and_then(|at| at.point.f1()),
            "n_alerts": self.episodes.n_alerts,
            "n_false_alerts": self.episodes.n_false,
            "n_runs": self.episodes.n_runs,
            "n_runs_found": self.episodes.n_found,
        })
    }
}

/// What a detector itself says of the test part.
fn said(verdicts: &Verdicts, n_train: usize, truth: &[bool], known: &[bool]) -> (At, Episodes) {
    let (hot, alerts) = (&verdicts.is_hot[n_train..], &verdicts.is_alert[n_train..]);
    let measured = hot.iter().zip(truth).zip(known).filter(|(_, is_known)| **is_known);
    let onsets: Vec<f64> = alerts.iter().map(|is| f64::from(u8::from(*is))).collect();
    let at = At {
        point: Confusion::of(measured.map(|((is_hot, is), _)| (*is_hot, *is))),
        delayed: delayed(&onsets, truth, 1.0, DELAY),
    };
    (at, Episodes::of_alerts(alerts, hot, truth, GAP))
}

/// The thresholds of the best F1: of plain points, and under the kd7 rule. None where there is nothing to find.
fn best(scores: &[f64], onsets: &[f64], truth: &[bool]) -> Option<(f64, f64)> {
    Some((Curve::plain(scores, truth).best()?.0, Curve::delayed(onsets, truth, DELAY).best()?.0))
}

/// A row without a value cannot be found.
fn visible(truth: &[bool], known: &[bool]) -> Vec<bool> {
    truth.iter().zip(known).map(|(is, is_known)| *is && *is_known).collect()
}

/// A number JSON has.
fn finite(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}

/// The row of a contender: means over the cases in which there is something to find.
pub fn row(protocol: &str, dataset: &str, contender: &Contender, figures: &[Figures]) -> ResultRow {
    let rated: Vec<&Figures> = figures.iter().filter(|figure| figure.has_something_to_find()).collect();
    let mean_of = |value: &dyn Fn(&Figures) -> Option<f64>| mean(rated.iter().filter_map(|figure| value(figure)));
    let f1_of = |counts: Option<Confusion>| counts.map(|counts| counts.f1().unwrap_or(0.0));
    let own = pooled(figures.iter().map(|figure| figure.own.point));
    let late = pooled(figures.iter().map(|figure| figure.own.delayed));
    let span_nanos = figures.iter().map(|figure| figure.span_nanos).sum();
    let total = |of: fn(&Episodes) -> u64| figures.iter().map(|figure| of(&figure.episodes)).sum::<u64>();
    let (n_alerts, n_false) = (total(|it| it.n_alerts), total(|it| it.n_false));
    let [(level, shared_f1), (late_level, shared_late_f1)] =
        shared(figures).map_or([(None, None); 2], |both| both.map(|(level, f1)| (Some(level), Some(f1))));
    let by_series: Map<String, Value> = figures.iter().map(|figure| (figure.name.clone(), figure.to_json())).collect();
    let mut row = ResultRow::new(protocol, dataset, &contender.name)
        .with_confusion(&own)
        .with_extra("n_series", figures.len())
        .with_extra("n_series_rated", rated.len())
        .with_extra("kd7_f1", mean_of(&|it| f1_of(Some(it.own.delayed))))
        .with_extra("vus_pr", mean_of(&|it| it.vus_pr))
        .with_extra("vus_pr_buffer", BUFFER)
        .with_extra("pooled_f1", own.f1())
        .with_extra("pooled_kd7_f1", late.f1())
        .with_extra("labelled_threshold_f1", mean_of(&|it| f1_of(it.labelled.map(|at| at.point))))
        .with_extra("labelled_threshold_kd7_f1", mean_of(&|it| f1_of(it.labelled.map(|at| at.delayed))))
        .with_extra("shared_level", level)
        .with_extra("shared_level_f1", shared_f1)
        .with_extra("shared_level_kd7", late_level)
        .with_extra("shared_level_kd7_f1", shared_late_f1)
        .with_extra("oracle_threshold_f1", mean_of(&|it| f1_of(it.oracle.map(|at| at.point))))
        .with_extra("oracle_threshold_kd7_f1", mean_of(&|it| f1_of(it.oracle.map(|at| at.delayed))))
        .with_extra("n_alerts", n_alerts)
        .with_extra("n_false_alerts", n_false)
        // The same rate, of all alerts and of the false ones.
        .with_extra("alerts_per_day", false_alerts_per_day(n_alerts, span_nanos))
        .with_extra("false_alerts_per_day", false_alerts_per_day(n_false, span_nanos))
        .with_extra("n_runs", total(|it| it.n_runs))
        .with_extra("n_runs_found", total(|it| it.n_found))
        .with_extra("by_series", Value::Object(by_series));
    row.seed = contender.seed;
    row.precision = mean_of(&|it| it.own.point.precision());
    row.recall = mean_of(&|it| it.own.point.recall());
    row.f1 = mean_of(&|it| f1_of(Some(it.own.point)));
    row.auprc = mean_of(&|it| it.average_precision);
    row
}

/// What one p-value for all series reaches on the test parts, the best for plain points and the best under the kd7 rule on the
/// training parts, and which they are. None without labels there. A detector with constants of its own has chosen.
fn shared(figures: &[Figures]) -> Option<[(f64, f64); 2]> {
    let of_kind = |kind: fn(&At) -> &Confusion| {
        let f1 = |at: &At| kind(at).f1().unwrap_or(0.0);
        let on_training = |idx: usize| {
            let lessons = figures.iter().filter(|figure| figure.has_lessons);
            mean(lessons.filter_map(|figure| Some(f1(&figure.levels.get(idx)?.0))))
        };
        let rated = (0..LEVELS.len()).filter_map(|idx| Some((idx, on_training(idx)?)));
        let (best, _) = rated.max_by(|one, other| one.1.total_cmp(&other.1).then(other.0.cmp(&one.0)))?;
        let tested = figures.iter().filter(|figure| figure.has_something_to_find());
        // A series that cannot be fitted has no levels, and is missed.
        let on_test = mean(tested.map(|figure| figure.levels.get(best).map_or(0.0, |level| f1(&level.1))))?;
        Some((LEVELS[best], on_test))
    };
    Some([of_kind(|at| &at.point)?, of_kind(|at| &at.delayed)?])
}

fn pooled(all: impl Iterator<Item = Confusion>) -> Confusion {
    all.fold(Confusion::default(), |sum, counts| Confusion {
        true_positives: sum.true_positives + counts.true_positives,
        false_positives: sum.false_positives + counts.false_positives,
        false_negatives: sum.false_negatives + counts.false_negatives,
        true_negatives: sum.true_negatives + counts.true_negatives,
    })
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, n) = values.fold((0.0, 0_u64), |(sum, n), value| (sum + value, n + 1));
    (n > 0).then(|| sum / n as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000_000_000;

    fn contender() -> Contender {
        Contender { name: "made-up".to_owned(), seed: None, members: Vec::new() }
    }

    /// Twenty rows, the first ten of them training: a run of three in each half, the scores of `hits` 1 and else 0.
    fn figures(name: &str, hits: &[usize], anomalous: &[usize], gaps: &[usize]) -> Figures {
        let truth: Vec<bool> = (0..20).map(|idx| anomalous.contains(&idx)).collect();
        let is_known: Vec<bool> = (0..20).map(|idx| !gaps.contains(&idx)).collect();
        let score = |idx| if gaps.contains(&idx) { f64::NAN } else { f64::from(u8::from(hits.contains(&idx))) };
        let scored = Scored::by_threshold((0..20).map(score).collect(), 1.0, 1.0);
        Figures::of(&Case { name, step_nanos: MINUTE, is_known, truth: &truth, n_train: 10 }, &scored)
    }

    #[test]
    fn one_point_of_a_run_is_a_third_of_recall_and_all_of_it_under_the_delay_rule() {
        let figures = figures("a", &[3, 15], &[3, 4, 15, 16, 17], &[]);
        assert_eq!((figures.own.point.true_positives, figures.own.point.false_negatives), (1, 2));
        assert_eq!((figures.own.point.f1(), figures.own.delayed.f1()), (Some(0.5), Some(1.0)));
        assert_eq!(figures.labelled, Some(figures.own));
        assert_eq!((figures.episodes.n_alerts, figures.episodes.n_false, figures.episodes.n_found), (1, 0, 1));
    }

    #[test]
    fn a_gap_is_neither_found_nor_missed() {
        let figures = figures("a", &[15], &[15, 16, 17], &[16, 17, 19]);
        assert_eq!((figures.own.point.n(), figures.own.point.f1()), (7, Some(1.0)));
        assert_eq!(figures.average_precision, Some(1.0));
    }

    #[test]
    fn one_level_is_chosen_for_all_series_on_their_first_halves() {
        let truth: Vec<bool> = (0..20).map(|idx| [3, 4, 15, 16].contains(&idx)).collect();
        // What is found above 5 is all there is, above 2 there are false points too, and above 9 nothing.
        let scores: Vec<f64> =
            (0..20).map(|idx| if truth[idx] { 6.0 } else { f64::from(u8::from(idx % 5 == 0)) * 3.0 }).collect();
        let mut levels = vec![9.0; LEVELS.len()];
        (levels[0], levels[1]) = (2.0, 5.0);
        let figures = |name: &str, levels: Vec<f64>| {
            let scored = Scored { levels, ..Scored::by_threshold(scores.clone(), 9.0, 1.0) };
            Figures::of(
                &Case { name, step_nanos: MINUTE, is_known: vec![true; 20], truth: &truth, n_train: 10 },
                &scored,
            )
        };
        let row = row("aiops", "aiops", &contender(), &[figures("a", levels.clone()), figures("b", levels)]);
        assert_eq!((row.f1, &row.extra["shared_level"]), (Some(0.0), &json!(LEVELS[1])));
        assert_eq!((&row.extra["shared_level_f1"], &row.extra["shared_level_kd7_f1"]), (&json!(1.0), &json!(1.0)));
        let silent = super::row("aiops", "aiops", &contender(), &[figures("a", Vec::new())]);
        assert_eq!(silent.extra["shared_level_f1"], Value::Null, "constants of its own");
    }

    #[test]
    fn what_a_detector_says_decides_and_scores_only_rank() {
        let on = |at: &[usize]| (0..20).map(|idx| at.contains(&idx)).collect::<Vec<bool>>();
        let truth = on(&[15, 16, 17]);
        let verdicts = Verdicts {
            is_hot: on(&[2, 15, 16, 17, 18]),
            is_alert: on(&[2, 15]),
            onsets: (0..20).map(|idx| f64::from(u8::from(idx == 12 || idx == 16))).collect(),
        };
        // Flagging by score would find nothing.
        let scored = Scored { verdicts: Some(verdicts), ..Scored::by_threshold(vec![0.5; 20], 1.0, 1.0) };
        let case = Case { name: "a", step_nanos: MINUTE, is_known: vec![true; 20], truth: &truth, n_train: 10 };
        let figures = Figures::of(&case, &scored);
        let point = figures.own.point;
        assert_eq!((point.true_positives, point.false_positives, point.false_negatives), (3, 1, 0));
        assert_eq!(figures.own.delayed.f1(), Some(1.0), "an episode is one alert");
        let episodes = figures.episodes;
        assert_eq!((episodes.n_alerts, episodes.n_false, episodes.n_runs, episodes.n_found), (1, 0, 1, 1));
        let oracle = figures.oracle.expect("there is something to find");
        assert_eq!((oracle.delayed.true_positives, oracle.delayed.false_positives), (3, 1), "by onsets");
        assert_eq!(oracle.point.false_positives, 7, "by scores, which are all alike");
    }

    #[test]
    fn without_labels_in_training_there_is_no_labelled_threshold_and_an_oracle_is_called_one() {
        let scored = Scored::by_threshold([vec![0.0; 10], vec![0.5], vec![0.0; 9]].concat(), 1.0, 1.0);
        let truth: Vec<bool> = (0..10).map(|idx| idx == 0).collect();
        let case = Case { name: "m", step_nanos: MINUTE, is_known: vec![true; 20], truth: &truth, n_train: 10 };
        let row = row("smd", "smd", &contender(), &[Figures::of(&case, &scored)]);
        assert_eq!((row.f1, row.auprc, row.precision), (Some(0.0), Some(1.0), None));
        assert_eq!(row.extra["oracle_threshold_f1"], json!(1.0));
        assert_eq!(row.extra["labelled_threshold_f1"], Value::Null);
    }

    #[test]
    fn means_are_over_series_with_something_to_find_and_alerts_over_all() {
        let all = [
            figures("found", &[15, 16, 17], &[15, 16, 17], &[]),
            figures("missed", &[], &[15, 16, 17], &[]),
            figures("quiet", &[12], &[], &[]),
        ];
        let row = row("aiops", "aiops", &contender(), &all);
        assert_eq!((row.f1, row.recall, row.precision), (Some(0.5), Some(0.5), Some(1.0)));
        assert_eq!(row.n, 30);
        let number = |name: &str| row.extra[name].as_f64().expect(name);
        assert_eq!((number("n_series"), number("n_series_rated")), (3.0, 2.0));
        assert_eq!((number("n_alerts"), number("n_false_alerts")), (2.0, 1.0));
        assert!((number("false_alerts_per_day") - 48.0).abs() < 1e-9, "one in thirty minutes");
        assert!((number("pooled_f1") - 0.6).abs() < 1e-9, "three found, three missed, one false");
        assert_eq!(row.extra["by_series"]["quiet"]["n_alerts"], json!(1));
    }
}
