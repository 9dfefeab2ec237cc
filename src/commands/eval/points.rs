//! Series and machines as detectors are handed them: row after row in order of time, each a window of its own.
//!
//! What `aiops`, `wsd`, `donut`, `nab`, `smd` and `asd` share. A detector that can be fitted on nothing warms up by itself:
//! it is replayed from the first row on. Another is fitted on the first [`FIT_SHARE`] of the training part, as one window, and
//! replayed from there. What it says about the rest of the training part fixes its threshold. A detector of groups that
//! calibrates itself is fitted on all of the training part. No label comes in here.

use std::{ops::Range, sync::Arc, time::Instant};

use faultline_core::{
    Detector, DetectorError, GroupWindow, Score, SeriesKind, SeriesWindow, Signal, Window, WindowKey,
};
use faultline_detectors::{Entry, REGISTRY, calibrate::Calibration};

use super::{Args, sessions::is_wanted, verdicts::Verdicts};

/// Rows handed over at a time, a window each.
const BATCH: usize = 256;

/// Share of the training part that a detector is fitted on which does not warm up by itself.
const FIT_SHARE: f64 = 0.6;

/// Share of the scores that fix a threshold which may be abnormal: `detection.contamination`. Nobody marks them, and they hold
/// the anomalies that they hold.
const CONTAMINATION: f64 = 0.05;

/// The p-values one of which may be chosen for all series of a set, on the labels of their first halves.
pub const LEVELS: [f64; 10] = [0.1, 0.03, 0.01, 3e-3, 1e-3, 3e-4, 1e-4, 1e-5, 1e-6, 1e-8];

/// The row of what a user gets without configuring anything.
const DEFAULT: &str = "default";

/// Whether the scores of a detector are surprises in nats whatever was seen in training: p = exp(−score).
fn is_self_calibrated(entry: &Entry) -> bool {
    entry.is_self_calibrated
}

/// The points of a series, or those of all metrics of a machine side by side.
pub struct Rows<'a> {
    key: WindowKey,
    service: Arc<str>,
    /// The metrics of a machine; none for a series.
    columns: Vec<Arc<str>>,
    start_unix_nano: i64,
    step_nanos: i64,
    values: &'a [f64],
}

impl<'a> Rows<'a> {
    /// One series, at a regular step.
    pub fn of_series(key: [&str; 2], start_unix_nano: i64, step_nanos: i64, values: &'a [f64]) -> Self {
        Self { columns: Vec::new(), ..Self::of_machine(key, 0, start_unix_nano, step_nanos, values) }
    }

    /// One machine, row after row.
    pub fn of_machine(
        key: [&str; 2],
        n_columns: usize,
        start_unix_nano: i64,
        step_nanos: i64,
        values: &'a [f64],
    ) -> Self {
        let [stream, session] = key;
        Self {
            key: WindowKey { stream: stream.into(), session: session.into() },
            service: stream.into(),
            columns: (0..n_columns).map(|idx| format!("metric {idx}").into()).collect(),
            start_unix_nano,
            step_nanos,
            values,
        }
    }

    pub fn len(&self) -> usize {
        self.values.len() / self.columns.len().max(1)
    }

    /// 0 for a series.
    pub fn n_columns(&self) -> usize {
        self.columns.len()
    }

    pub fn step_nanos(&self) -> i64 {
        self.step_nanos
    }

    /// Number of the step of the first row.
    pub fn first_step(&self) -> i64 {
        self.start_unix_nano.div_euclid(self.step_nanos.max(1))
    }

    pub fn name(&self) -> &str {
        &self.key.session
    }

    /// Row after row.
    pub fn values(&self) -> &'a [f64] {
        self.values
    }

    fn window(&self, rows: Range<usize>) -> Window<'_> {
        let Self { key, service, columns, step_nanos, .. } = self;
        let n_before = i64::try_from(rows.start).unwrap_or(i64::MAX);
        let start_unix_nano = self.start_unix_nano.saturating_add(step_nanos.saturating_mul(n_before));
        if columns.is_empty() {
            return Window::Series(SeriesWindow {
                key,
                kind: SeriesKind::Gauge,
                start_unix_nano,
                step_nanos: *step_nanos,
                points: &self.values[rows],
                records: &[],
                service,
            });
        }
        Window::Group(GroupWindow {
            key,
            columns,
            start_unix_nano,
            step_nanos: *step_nanos,
            n_rows: rows.len(),
            values: &self.values[rows.start * columns.len()..rows.end * columns.len()],
            service,
        })
    }
}

/// What was made of rows.
pub struct Scored {
    /// One a row; not a number where nothing is said: in gaps, while warming up, on rows that were fitted on.
    pub scores: Vec<f64>,
    /// The score from which on a row is flagged.
    pub threshold: f64,
    /// The same for each of [`LEVELS`]; none where thresholds are not made of p-values.
    pub levels: Vec<f64>,
    /// Wall time of the rows after the training part.
    pub seconds: f64,
    /// What the detector itself says of each row, where it tells more than a score; it then decides.
    pub verdicts: Option<Verdicts>,
}

impl Scored {
    /// Scores that a threshold decides on.
    pub fn by_threshold(scores: Vec<f64>, threshold: f64, seconds: f64) -> Self {
        Self { scores, threshold, levels: Vec::new(), seconds, verdicts: None }
    }

    /// What a detector that cannot be fitted makes of `n_rows`.
    pub fn nothing(n_rows: usize) -> Self {
        Self::by_threshold(vec![f64::NAN; n_rows], f64::INFINITY, 0.0)
    }
}

/// What is judged: a detector with a seed, or what a user gets.
pub struct Contender {
    /// As rows name it.
    pub name: String,
    /// Where anything random is in it.
    pub seed: Option<u64>,
    /// One detector, or several of which any may flag; none for a trivial baseline (`trivial`).
    pub members: Vec<&'static Entry>,
}

impl Contender {
    /// The trivial baselines and every detector of `signal` that the command line asks for, by seed, then what a user gets
    /// by default.
    pub fn all(args: &Args, signal: Signal) -> Vec<Self> {
        let entries = || REGISTRY.iter().filter(move |entry| entry.signal == signal);
        let mut all = Self::trivial(args, signal);
        for entry in entries().filter(|entry| is_wanted(args, entry.name)) {
            let seeds: Vec<Option<u64>> =
                if entry.is_seeded { args.seeds.iter().copied().map(Some).collect() } else { vec![None] };
            all.extend(seeds.into_iter().map(|seed| Self { name: entry.name.to_owned(), seed, members: vec![entry] }));
        }
        if is_wanted(args, DEFAULT) {
            let members: Vec<&'static Entry> = entries().filter(|entry| entry.is_default).collect();
            if members.is_empty() {
                eprintln!("no detector of these windows runs by default, so there is no row `{DEFAULT}`");
            } else {
                let seed = args.seeds.first().copied().filter(|_| members.iter().any(|entry| entry.is_seeded));
                all.push(Self { name: DEFAULT.to_owned(), seed, members });
            }
        }
        all
    }

    /// Every row scored, the first `n_train` of which say where a p-value of `significance` is. None when no member can be
    /// fitted. Scores of several members are their surprises, −ln p, of which the largest counts.
    pub fn scored(&self, rows: &Rows<'_>, n_train: usize, significance: f64) -> anyhow::Result<Option<Scored>> {
        let seed = self.seed.unwrap_or(1);
        if self.members.is_empty() {
            return Ok(Some(self.trivially_scored(rows, n_train, significance)));
        }
        if let [entry] = self.members.as_slice() {
            let own = replay(entry, seed, rows, n_train)?;
            return Ok(own.map(|Replay { scores, seconds }| {
                let own = Thresholds::of(entry, &scores[..n_train]);
                let levels = LEVELS.iter().map(|level| own.at(*level)).collect();
                Scored { levels, ..Scored::by_threshold(scores, own.at(significance), seconds) }
            }));
        }
        let mut joint: Option<Scored> = None;
        for entry in &self.members {
            let Some(own) = replay(entry, seed, rows, n_train)? else { continue };
            let joint = joint.get_or_insert_with(|| Scored::nothing(rows.len()));
            joint.threshold = -significance.ln();
            joint.levels = LEVELS.iter().map(|level| -level.ln()).collect();
            joint.seconds += own.seconds;
            raise(&mut joint.scores, &surprises(entry, &own.scores, n_train));
        }
        Ok(joint)
    }
}

/// The scores of one detector as it gives them.
pub struct Replay {
    /// As [`Scored::scores`].
    pub scores: Vec<f64>,
    /// As [`Scored::seconds`].
    pub seconds: f64,
}

/// Fits and replays one detector. None when it cannot be fitted on the first `n_train` rows.
pub fn replay(entry: &Entry, seed: u64, rows: &Rows<'_>, n_train: usize) -> anyhow::Result<Option<Replay>> {
    let Some((mut detector, first)) = fitted(entry, seed, rows, n_train)? else { return Ok(None) };
    let mut scores = vec![f64::NAN; first];
    scores.reserve_exact(rows.len() - first);
    score(&mut *detector, rows, first..n_train, &mut scores);
    let started = Instant::now();
    score(&mut *detector, rows, n_train..rows.len(), &mut scores);
    Ok(Some(Replay { scores, seconds: started.elapsed().as_secs_f64() }))
}

/// A detector, and the first row that it is to score.
type Fitted = (Box<dyn Detector>, usize);

fn fitted(entry: &Entry, seed: u64, rows: &Rows<'_>, n_train: usize) -> Result<Option<Fitted>, DetectorError> {
    let config = entry.default_config();
    // Nothing has to be held out for its threshold. A series is replayed all the same, so that there is a labelled one.
    if is_self_calibrated(entry) && entry.signal == Signal::Groups && n_train > 0 {
        return entry.fit(&config, &[rows.window(0..n_train)], seed).map(|detector| Some((detector, n_train)));
    }
    match entry.fit(&config, &[], seed) {
        Err(DetectorError::Fit { .. }) => {}
        fitted => return fitted.map(|detector| Some((detector, 0))),
    }
    let cut = (n_train as f64 * FIT_SHARE) as usize;
    if cut == 0 {
        return Ok(None);
    }
    match entry.fit(&config, &[rows.window(0..cut)], seed) {
        Err(DetectorError::Fit { .. }) => Ok(None),
        fitted => fitted.map(|detector| Some((detector, cut))),
    }
}

fn score(detector: &mut dyn Detector, rows: &Rows<'_>, part: Range<usize>, all: &mut Vec<f64>) {
    let mut scores: Vec<Option<Score>> = Vec::with_capacity(BATCH);
    for start in part.clone().step_by(BATCH) {
        let end = part.end.min(start + BATCH);
        let windows: Vec<Window<'_>> = (start..end).map(|row| rows.window(row..row + 1)).collect();
        scores.clear();
        detector.score(&windows, &mut scores);
        let value = |score: &Option<Score>| score.map(|score| score.value).filter(|value| value.is_finite());
        all.extend(scores.iter().map(|score| value(score).unwrap_or(f64::NAN)));
    }
}

/// The scores from which on p-values are small, by what was said of the training part.
struct Thresholds(Option<Calibration>);

impl Thresholds {
    fn of(entry: &Entry, train: &[f64]) -> Self {
        let is_calibrated = !is_self_calibrated(entry);
        Self(is_calibrated.then(|| Calibration::robust(train, CONTAMINATION, entry.is_surprise)))
    }

    /// The score from which on the p-value is at most `significance`.
    fn at(&self, significance: f64) -> f64 {
        match &self.0 {
            Some(calibration) => calibration.threshold(significance).unwrap_or(f64::INFINITY),
            None => -significance.ln(),
        }
    }
}

/// For scores of no detector the score from which on the p-value is at most `significance`.
pub fn calibrated(train: &[f64], significance: f64) -> f64 {
    Calibration::robust(train, CONTAMINATION, false).threshold(significance).unwrap_or(f64::INFINITY)
}

/// The same for surprises of which the largest of `n_columns` counts.
pub fn joint_threshold(entry: &Entry, train: &[f64], significance: f64, n_columns: usize) -> f64 {
    if is_self_calibrated(entry) {
        return -(significance / n_columns.max(1) as f64).ln();
    }
    calibrated(train, significance)
}

/// The scores as surprises, −ln p, by what was said of the first `n_train` rows.
pub fn surprises(entry: &Entry, scores: &[f64], n_train: usize) -> Vec<f64> {
    if is_self_calibrated(entry) {
        return scores.to_vec();
    }
    let calibration = Calibration::robust(&scores[..n_train], CONTAMINATION, entry.is_surprise);
    let surprise = |score: &f64| if score.is_nan() { f64::NAN } else { -calibration.p_value(*score).ln() };
    scores.iter().map(surprise).collect()
}

/// Takes the larger score of each row; what is not a number loses.
pub fn raise(scores: &mut [f64], others: &[f64]) {
    scores.iter_mut().zip(others).for_each(|(score, other)| *score = score.max(*other));
}

#[cfg(test)]
pub mod tests {
    use clap::Parser as _;

    use super::*;

    /// The arguments of `faultline eval` with this command line after it.
    pub fn args(line: &[&str]) -> Args {
        #[derive(clap::Parser)]
        struct Command {
            #[command(flatten)]
            args: Args,
        }
        Command::parse_from(std::iter::once("eval").chain(line.iter().copied())).args
    }

    #[test]
    fn a_row_is_a_window_at_its_own_time() {
        let values = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        let series = Rows::of_series(["aiops", "kpi"], 600, 60, &values);
        let window = series.window(2..3);
        let point = window.as_series().expect("a series");
        assert_eq!((series.len(), point.points, point.start_unix_nano), (6, &[3.0][..], 720));
        let machine = Rows::of_machine(["smd", "m-1"], 2, 0, 60, &values);
        let window = machine.window(1..3);
        let rows = window.as_group().expect("rows");
        assert_eq!((machine.len(), rows.row(0), rows.row(1)), (3, &[3.0, 4.0][..], &[5.0, 6.0][..]));
        assert_eq!((rows.n_rows, rows.columns.len(), rows.start_unix_nano), (2, 2, 60));
    }

    #[test]
    fn a_larger_score_is_taken_and_silence_loses() {
        let mut scores = [f64::NAN, 1.0, 3.0, f64::NAN];
        raise(&mut scores, &[2.0, f64::NAN, 1.0, f64::NAN]);
        assert_eq!((scores[0], scores[1], scores[2], scores[3].is_nan()), (2.0, 1.0, 3.0, true));
    }

    #[test]
    fn surprises_rise_with_scores_and_gaps_stay_gaps() {
        let entry = faultline_detectors::entry("donut").expect("registered");
        let scores: Vec<f64> = (0..1_000).map(f64::from).chain([f64::NAN, 5_000.0]).collect();
        let surprises = surprises(entry, &scores, 1_000);
        assert!(surprises[1_000].is_nan() && surprises[500] > surprises[10] && surprises[1_001] > surprises[999]);
        let threshold = Thresholds::of(entry, &scores[..1_000]).at(1e-2);
        assert!((980.0..=1_000.0).contains(&threshold), "{threshold}");
    }

    #[test]
    fn detectors_come_by_seed_and_the_default_only_where_there_is_one() {
        let all = Contender::all(&args(&["aiops", "--seeds", "1,2", "--detector", "donut"]), Signal::Series);
        let shown: Vec<_> = all.iter().map(|contender| (contender.name.as_str(), contender.seed)).collect();
        assert_eq!(shown, [("donut", Some(1)), ("donut", Some(2))]);
        let default = Contender::all(&args(&["aiops", "--detector", "default"]), Signal::Series);
        let there_is = REGISTRY.iter().any(|entry| entry.signal == Signal::Series && entry.is_default);
        assert_eq!(default.len(), usize::from(there_is));
    }
}
