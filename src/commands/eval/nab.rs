//! `nab`: the Numenta Anomaly Benchmark under its own scorer, every series replayed from its first row, row by row.
//!
//! Three rows a detector, which differ in where the threshold comes from:
//! - `fixed threshold`: for each file the score with p <= 1e-4 by calibration on the rows that NAB does not judge;
//! - `threshold of the other half`: the best for the files of even number, judged on those of odd number, and the other way round;
//! - `NAB's own (oracle threshold)`: the best for all files with sight of their labels, which is what NAB's scoreboard has.
//!
//! Scores of different files are compared as they are for the last two. `heavy-tail` is taken at its S, which is made for that, with
//! the part that is not judged as its warm-up; its fixed threshold is the S of points of which chance makes [`BY_CHANCE`] in a history. Rows are handed over as if they were a step apart, the
//! most frequent one of their file, since the clocks of some go back or stand still.

use std::{collections::BTreeMap, time::Instant};

use faultline_core::Signal;
use faultline_datasets::{
    ProtocolInfo, ResultRow, Usage,
    loaders::{Nab, NabSeries},
    nab_scorer::{Corpus, Outcome, Profile},
    usage::reset_peak_rss,
};
use faultline_detectors::{
    Algorithm,
    algorithms::heavy_tail::{self, HeavyTail},
};

use super::{
    Args,
    points::{Contender, Rows, Scored},
};

/// The p-value from which on the fixed threshold flags a row.
const SIGNIFICANCE: f64 = 1e-4;

/// False rows that cost as much as one missed window, by the weights of NAB's standard profile.
const BY_CHANCE: f64 = 1.0 / 0.11;

/// Where a file has one row: five minutes, as most files have.
const STEP_NANOS: i64 = 300_000_000_000;

/// Runs the protocol.
pub fn nab(args: &Args, info: &ProtocolInfo, report: &mut dyn FnMut(ResultRow)) -> anyhow::Result<()> {
    let files = super::locate(args, info.dataset)?;
    let nab = Nab::load(&files.data)?;
    for contender in Contender::all(args, Signal::Series) {
        reset_peak_rss();
        let before = Usage::now();
        let Some(replayed) = Replayed::of(&contender, &nab.series)? else {
            eprintln!("{}: cannot be fitted on any series", contender.name);
            continue;
        };
        for rule in RULES {
            let mut row = replayed.row(info, rule, &nab.profiles);
            row.detector.clone_from(&contender.name);
            row.seed = contender.seed;
            row.n = nab.series.len() as u64;
            row.cpu_seconds = Usage::now().cpu_seconds_since(&before);
            row.peak_rss_bytes = Usage::now().peak_rss_bytes;
            report(row);
        }
    }
    Ok(())
}

/// Where a threshold comes from.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Rule {
    Fixed,
    OtherHalf,
    Best,
}

const RULES: [Rule; 3] = [Rule::Fixed, Rule::OtherHalf, Rule::Best];

impl Rule {
    /// As rows name it.
    fn dataset(self) -> &'static str {
        match self {
            Self::Fixed => "nab, fixed threshold",
            Self::OtherHalf => "nab, threshold of the other half",
            Self::Best => "nab, NAB's own (oracle threshold)",
        }
    }
}

/// What a threshold is worth, 0 for flagging nothing and 100 for perfection.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Worth {
    score: f64,
    n_windows: usize,
    n_found: usize,
    n_false: usize,
}

impl From<Outcome> for Worth {
    fn from(outcome: Outcome) -> Self {
        let Outcome { score, n_windows, n_found, n_false, .. } = outcome;
        Self { score, n_windows, n_found, n_false }
    }
}

/// The scores of all series.
#[derive(Default)]
struct Replayed {
    /// Scores as they are.
    all: Corpus,
    /// The same, by whether the number of the file is even.
    halves: [Corpus; 2],
    /// Scores less the threshold of their file.
    above: Corpus,
    n_silent: usize,
    n_scored: usize,
    seconds: f64,
}

impl Replayed {
    /// None when there is no series that the contender can be fitted on.
    fn of(contender: &Contender, series: &[NabSeries]) -> anyhow::Result<Option<Self>> {
        let bar = crate::progress::bar(series.len() as u64, &contender.name);
        let mut own = Self::default();
        for (idx, series) in series.iter().enumerate() {
            let step_nanos = step_nanos(&series.times_unix_nano);
            let start = series.times_unix_nano.first().map_or(0, |time| time.div_euclid(step_nanos) * step_nanos);
            let name = format!("{}/{}", series.category, series.name);
            let rows = Rows::of_series(["nab", &name], start, step_nanos, &series.values);
            let n_train = series.n_probation();
            let scored = match contender.members.as_slice() {
                [entry] if entry.name == HeavyTail::NAME => Some(heavy_tail(&rows, n_train)),
                _ => contender.scored(&rows, n_train, SIGNIFICANCE)?,
            };
            let scored = scored.unwrap_or_else(|| {
                own.n_silent += 1;
                Scored::nothing(rows.len())
            });
            if scored.seconds > 0.0 {
                own.n_scored += rows.len() - n_train;
                own.seconds += scored.seconds;
            }
            let above: Vec<f64> = scored.scores.iter().map(|score| score - scored.threshold).collect();
            own.above.add(&above, &series.windows);
            own.all.add(&scored.scores, &series.windows);
            own.halves[idx % 2].add(&scored.scores, &series.windows);
            bar.inc(1);
        }
        bar.finish_and_clear();
        Ok((own.n_silent < series.len()).then_some(own))
    }

    /// The row of one rule, without whose it is.
    fn row(&self, info: &ProtocolInfo, rule: Rule, profiles: &[Profile]) -> ResultRow {
        let mut row = ResultRow::new(info.name, rule.dataset(), "").with_extra("n_silent", self.n_silent);
        for profile in profiles {
            let Some(worth) = self.worth(rule, profile) else { continue };
            row = row.with_extra(&extra_name(profile), worth.score);
            if profile.name == "standard" {
                row = row
                    .with_extra("n_windows", worth.n_windows)
                    .with_extra("n_windows_found", worth.n_found)
                    .with_extra("n_false", worth.n_false);
            }
        }
        if rule == Rule::Best
            && let Some(best) = profiles.first().and_then(|profile| self.all.best(profile))
        {
            row = row.with_extra("threshold", best.threshold);
        }
        row.records_per_second = (self.seconds > 0.0).then(|| self.n_scored as f64 / self.seconds);
        row
    }

    /// None where there is no window.
    fn worth(&self, rule: Rule, profile: &Profile) -> Option<Worth> {
        match rule {
            Rule::Fixed => self.above.at(0.0, profile).map(Worth::from),
            Rule::Best => self.all.best(profile).map(Worth::from),
            Rule::OtherHalf => {
                let [even, odd] = &self.halves;
                let judged =
                    [odd.at(even.best(profile)?.threshold, profile)?, even.at(odd.best(profile)?.threshold, profile)?];
                Some(joined(&judged, profile))
            }
        }
    }
}

/// S of every row, which is comparable between files.
fn heavy_tail(rows: &Rows<'_>, n_train: usize) -> Scored {
    let started = Instant::now();
    let config = heavy_tail::Config::default().with_probation(n_train);
    let scores = heavy_tail::judge_series(&config, rows.step_nanos(), rows.first_step(), rows.values());
    let share = (rows.len() - n_train) as f64 / rows.len().max(1) as f64;
    Scored::by_threshold(scores, heavy_tail::threshold(BY_CHANCE), started.elapsed().as_secs_f64() * share)
}

/// Parts of a corpus as one: their sums are put between those of flagging nothing and of perfection.
fn joined(parts: &[Outcome], profile: &Profile) -> Worth {
    let total = |of: fn(&Outcome) -> usize| parts.iter().map(of).sum::<usize>();
    let n_windows = total(|part| part.n_windows);
    let (nothing, perfect) = (-profile.false_negative * n_windows as f64, profile.true_positive * n_windows as f64);
    let sum: f64 = parts.iter().map(|part| part.sum).sum();
    Worth {
        score: 100.0 * (sum - nothing) / (perfect - nothing),
        n_windows,
        n_found: total(|part| part.n_found),
        n_false: total(|part| part.n_false),
    }
}

/// The name of a profile's score in rows.
fn extra_name(profile: &Profile) -> String {
    match profile.name.as_str() {
        "standard" => "nab_standard".to_owned(),
        "reward_low_FP_rate" => "nab_low_fp".to_owned(),
        "reward_low_FN_rate" => "nab_low_fn".to_owned(),
        other => format!("nab_{other}"),
    }
}

/// The most frequent distance forward between rows; of equally frequent ones the shortest.
fn step_nanos(times: &[i64]) -> i64 {
    let mut distances: BTreeMap<i64, usize> = BTreeMap::new();
    for pair in times.windows(2).filter(|pair| pair[1] > pair[0]) {
        *distances.entry(pair[1] - pair[0]).or_default() += 1;
    }
    distances.into_iter().max_by_key(|&(distance, n)| (n, -distance)).map_or(STEP_NANOS, |(distance, _)| distance)
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use faultline_datasets::protocol;

    use super::*;

    const WINDOW: Range<usize> = 200..240;

    /// Two series of 400 rows with a window each, found by the scores at its begin and flagged once more elsewhere.
    fn replayed() -> Replayed {
        let mut own = Replayed { n_scored: 680, seconds: 2.0, ..Replayed::default() };
        for (idx, threshold) in [(0, 5.0), (1, 50.0)] {
            let scores: Vec<f64> = (0..400)
                .map(|row| match row {
                    200 => 10.0,
                    380 => 7.0,
                    _ => 0.0,
                })
                .collect();
            let above: Vec<f64> = scores.iter().map(|score| score - threshold).collect();
            own.all.add(&scores, std::slice::from_ref(&WINDOW));
            own.halves[idx].add(&scores, std::slice::from_ref(&WINDOW));
            own.above.add(&above, std::slice::from_ref(&WINDOW));
        }
        own
    }

    #[test]
    fn each_rule_has_its_row_under_its_own_name() {
        let info = protocol("nab").expect("listed");
        let own = replayed();
        let row = |rule| own.row(info, rule, &Profile::published());
        let number =
            |row: &ResultRow, name: &str| row.extra[name].as_f64().unwrap_or_else(|| panic!("{name}: {row:?}"));
        let [fixed, other, best] = RULES.map(row);
        assert!((number(&best, "nab_standard") - 100.0).abs() < 1e-9, "the begin of both windows, nothing else");
        assert_eq!(number(&best, "threshold"), 10.0);
        assert!((number(&other, "nab_low_fp") - 100.0).abs() < 1e-9, "the halves are alike");
        assert_eq!((number(&other, "n_windows"), number(&other, "n_windows_found")), (2.0, 2.0));
        // The first file finds its window with one false row, the second nothing.
        assert_eq!((number(&fixed, "n_windows_found"), number(&fixed, "n_false")), (1.0, 1.0));
        assert!((number(&fixed, "nab_standard") - (50.0 - 100.0 * 0.11 / 4.0)).abs() < 1e-9, "{fixed:?}");
        assert!(best.dataset.contains("oracle") && !fixed.dataset.contains("oracle"));
        assert_eq!(fixed.records_per_second, Some(340.0));
    }

    #[test]
    fn a_threshold_of_the_other_half_is_not_its_own() {
        let mut own = Replayed::default();
        for (half, scale) in own.halves.iter_mut().zip([1.0, 100.0]) {
            let scores: Vec<f64> = (0..400).map(|row| scale * f64::from(u8::from(row == 200))).collect();
            half.add(&scores, std::slice::from_ref(&WINDOW));
        }
        let [standard, ..] = Profile::published();
        let worth = own.worth(Rule::OtherHalf, &standard).expect("windows");
        assert_eq!((worth.n_windows, worth.n_found, worth.n_false), (2, 1, 0), "100 is too high for the first");
        assert!((worth.score - 50.0).abs() < 1e-9, "{worth:?}");
    }

    #[test]
    fn heavy_tail_has_one_scale_for_all_files() {
        let mut values: Vec<f64> = (0..1_000_u64).map(|idx| (((idx * 2_654_435_761) >> 7) % 1_024) as f64).collect();
        values[700] = 1e6;
        let rows = Rows::of_series(["nab", "a"], 0, STEP_NANOS, &values);
        let scored = heavy_tail(&rows, 150);
        assert!((scored.threshold - 66_f64.ln()).abs() < 1e-12, "600 of which 9.1 come by chance");
        let flagged: Vec<usize> = (0..1_000).filter(|idx| scored.scores[*idx] >= scored.threshold).collect();
        assert!(flagged.contains(&700), "{flagged:?}");
        assert!(scored.scores[..150].iter().all(|score| score.is_nan()), "its warm-up");
    }

    #[test]
    fn the_step_is_the_most_frequent_one_forward() {
        assert_eq!(step_nanos(&[0, 10, 20, 15, 25, 25, 85]), 10);
        assert_eq!(step_nanos(&[7]), STEP_NANOS);
    }

    #[test]
    fn series_without_a_detector_that_fits_say_so() {
        let donut = faultline_detectors::entry("donut").expect("registered");
        let contender = Contender { name: "donut".to_owned(), seed: Some(1), members: vec![donut] };
        let series = NabSeries { values: vec![0.5; 400], times_unix_nano: vec![0; 400], ..NabSeries::default() };
        assert!(Replayed::of(&contender, &[series]).expect("it runs").is_none(), "60 rows are too few for it");
    }
}
