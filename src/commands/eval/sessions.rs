//! `hdfs-deeplog`: whole sessions of event numbers, fitted on DeepLog's training file, judged on its two test files; and
//! the same with a share of the training sessions replaced by abnormal ones that nobody marked.
//!
//! The test sessions come in a fixed random order, because the files hold the normal ones first and some detectors learn.
//! What judges whole sessions here serves `openstack` and `hadoop` as well.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Instant,
};

use faultline_core::{
    Detector, LogEntry, LogWindow, Numbers, Score, Signal, TemplateId, TemplateTexts, Window, WindowKey, WindowState,
    hash::StableHash,
};
use faultline_datasets::{
    Confusion, ResultRow, Usage, average_precision, loaders::sessions::SessionSplit, usage::reset_peak_rss,
};
use faultline_detectors::{
    AlertConfig, Budget, Entry, REGISTRY,
    calibrate::Calibration,
    lifecycle::{Monitor, MonitorConfig, WarmUp},
};
use serde_json::{Map, Value, json};

use super::Args;

/// Sessions scored at a time: enough to batch a network over, few enough to stay in cache.
const CHUNK: usize = 4096;

/// Whole sessions in the shape detectors take.
pub struct Sessions {
    entries: Vec<LogEntry>,
    ends: Vec<usize>,
    keys: Vec<WindowKey>,
    services: Vec<Arc<str>>,
}

impl Sessions {
    /// Sessions of event numbers. Event `e` is template `e`; there is no time in such files, so the position serves.
    pub fn of_events<'a>(sessions: impl IntoIterator<Item = &'a [u16]>) -> Self {
        let mut all = Self::none("");
        for session in sessions {
            for (idx, event) in session.iter().enumerate() {
                all.entries.push(LogEntry {
                    template: TemplateId(u64::from(*event)),
                    time_unix_nano: idx as i64 * 1_000_000,
                    record: all.entries.len() as u64,
                    service: 0,
                    severity_number: 0,
                    is_since_deploy: false,
                });
            }
            all.close();
        }
        all
    }

    /// Sessions of the records of one service, each in order of time.
    pub fn of_records(sessions: impl IntoIterator<Item = Vec<LogEntry>>, service: &str) -> Self {
        let mut all = Self::none(service);
        for records in sessions {
            all.entries.extend(records);
            all.close();
        }
        all
    }

    fn none(service: &str) -> Self {
        Self { entries: Vec::new(), ends: Vec::new(), keys: Vec::new(), services: vec![service.into()] }
    }

    /// Ends a session, whose key is its number.
    fn close(&mut self) {
        let stream = self.keys.first().map_or_else(|| Arc::from("eval"), |key| Arc::clone(&key.stream));
        self.keys.push(WindowKey { stream, session: self.keys.len().to_string().into() });
        self.ends.push(self.entries.len());
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn n_records(&self) -> usize {
        self.entries.len()
    }

    /// Records of the sessions of `range`.
    pub fn n_records_of(&self, range: std::ops::Range<usize>) -> usize {
        let before = |idx: usize| if idx == 0 { 0 } else { self.ends[idx - 1] };
        before(range.end) - before(range.start)
    }

    /// The sessions of `range` as closed windows.
    pub fn windows(&self, range: std::ops::Range<usize>) -> Vec<Window<'_>> {
        range.map(|idx| self.window(idx)).collect()
    }

    fn window(&self, idx: usize) -> Window<'_> {
        let start = if idx == 0 { 0 } else { self.ends[idx - 1] };
        Window::Log(LogWindow {
            key: &self.keys[idx],
            records: &self.entries[start..self.ends[idx]],
            numbers: Numbers::default(),
            fresh: 0,
            n_dropped: 0,
            state: WindowState::Closed,
            is_stream: false,
            services: &self.services,
            templates: TemplateTexts::NONE,
        })
    }
}

/// Scores the sessions of `part` in order; a detector that has nothing to say about one gives it the lowest score.
pub fn score_all(
    detector: &mut dyn Detector,
    sessions: &Sessions,
    part: std::ops::Range<usize>,
    mut tick: impl FnMut(usize),
) -> Vec<f64> {
    let mut all = Vec::with_capacity(part.len());
    let mut scores: Vec<Option<Score>> = Vec::with_capacity(CHUNK);
    for start in part.clone().step_by(CHUNK) {
        let range = start..(start + CHUNK).min(part.end);
        scores.clear();
        detector.score(&sessions.windows(range.clone()), &mut scores);
        all.extend(scores.iter().map(|score| score.map_or(f64::NEG_INFINITY, |score| score.value)));
        tick(range.len());
    }
    all
}

/// What is fitted on. Where a paper publishes its threshold, all of it; else the sessions from `cut` on fix the threshold.
pub struct Training {
    /// The sessions.
    pub sessions: Sessions,
    /// How many come before those that fix the threshold.
    pub cut: usize,
    /// Which those are, as the rows tell.
    pub rule: &'static str,
}

impl Training {
    /// Sessions in order of time, of which the last fix the threshold.
    pub fn in_order(sessions: Sessions) -> Self {
        Self { cut: sessions.len() * 7 / 10, sessions, rule: "calibrated on the last 30 % of training" }
    }
}

/// What a detector made of the test part.
#[derive(Clone, Debug)]
pub struct Judged {
    /// Detector, baseline or `default`.
    pub name: String,
    /// Where anything random is in it.
    pub seed: Option<u64>,
    /// One a session.
    pub scores: Vec<f64>,
    /// One a session.
    pub flagged: Vec<bool>,
    /// Where several detectors decide, the sessions that each of them flags.
    pub flagged_by: Vec<(String, Vec<usize>)>,
    /// Above which score a session is flagged; not a number where that is not how it goes.
    pub threshold: f64,
    /// Where the threshold comes from.
    pub rule: &'static str,
    /// Records of the test part a second; not a number where nothing was computed.
    pub records_per_second: f64,
    /// Fit and test together.
    pub cpu_seconds: Option<f64>,
}

/// Share of normal sessions that a calibrated detector may flag.
const SIGNIFICANCE: f64 = 2e-3;

/// The row of what a user gets without configuring anything.
const DEFAULT: &str = "default";

/// The trivial baseline that calls everything anomalous.
pub const FLAG_ALL: &str = "flag-all";

/// Combinations that published baselines consist of: a session is anomalous when any part says so.
const COMBINED: &[&[&str]] = &[&["new-template", "length"], &["new-template", "length", "count-vector"]];

/// Runs the protocol.
pub fn hdfs_deeplog(args: &Args, report: &mut dyn FnMut(ResultRow)) -> anyhow::Result<()> {
    let files = super::locate(args, "hdfs")?;
    let split = SessionSplit::load(&files.data, files.train.as_deref())?;
    let training = Training::in_order(Sessions::of_events(split.train.iter()));
    let (test, truth) = shuffled_test(&split);
    judge_all(args, &training, &test, &mut |verdict| report(row("hdfs-deeplog", "hdfs", verdict, &truth)))?;
    for share in POISONED {
        for &seed in &args.seeds {
            let poisoned = Training::in_order(poisoned(&split, share, seed));
            for entry in log_detectors().filter(|entry| is_wanted(args, entry.name)) {
                let verdict = judge(entry, entry.is_seeded.then_some(seed), &poisoned, &test)?;
                let dataset = format!("hdfs, {} % of the training abnormal", share * 100.0);
                report(ResultRow { seed: Some(seed), ..row("hdfs-deeplog", &dataset, &verdict, &truth) });
            }
        }
    }
    Ok(())
}

/// Detectors that score sessions.
fn log_detectors() -> impl Iterator<Item = &'static Entry> {
    REGISTRY.iter().filter(|entry| entry.signal == Signal::Logs)
}

/// Whether the command line asks for this row, or for all.
pub fn is_wanted(args: &Args, name: &str) -> bool {
    args.detector.is_empty() || args.detector.iter().any(|wanted| wanted == name)
}

/// The test sessions of a split in a fixed random order, and which of them are abnormal.
pub fn shuffled_test(split: &SessionSplit) -> (Sessions, Vec<bool>) {
    let all: Vec<&[u16]> = split.test_normal.iter().chain(split.test_abnormal.iter()).collect();
    let n_normal = split.test_normal.len();
    let mut order: Vec<usize> = (0..all.len()).collect();
    order.sort_by_key(|&idx| StableHash::new().number(idx as u64).finish());
    let test = Sessions::of_events(order.iter().map(|&idx| all[idx]));
    (test, order.iter().map(|&idx| idx >= n_normal).collect())
}

/// Judges each detector asked for, then what a user gets by default, then the combinations. `tell` hears each verdict.
pub fn judge_all(
    args: &Args,
    training: &Training,
    test: &Sessions,
    tell: &mut dyn FnMut(&Judged),
) -> anyhow::Result<()> {
    let wanted = |name: &str| is_wanted(args, name);
    let part_of_wanted = |name: &str| COMBINED.iter().any(|parts| wanted(&parts.join("|")) && parts.contains(&name));
    let mut judged: Vec<Judged> = Vec::new();
    for entry in log_detectors().filter(|entry| wanted(entry.name) || part_of_wanted(entry.name)) {
        let seeds: Vec<Option<u64>> =
            if entry.is_seeded { args.seeds.iter().copied().map(Some).collect() } else { vec![None] };
        for seed in seeds {
            let verdict = judge(entry, seed, training, test)?;
            if wanted(entry.name) {
                tell(&verdict);
            }
            judged.push(verdict);
        }
    }
    if wanted(DEFAULT) {
        tell(&product(args.seeds[0], &training.sessions, test)?);
    }
    for parts in COMBINED.iter().filter(|parts| wanted(&parts.join("|"))) {
        let members: Vec<&Judged> =
            parts.iter().filter_map(|part| judged.iter().find(|verdict| verdict.name == *part)).collect();
        tell(&any_of(&members));
    }
    Ok(())
}

/// The verdict of [`FLAG_ALL`] on `n` sessions.
pub fn flag_all(n: usize) -> Judged {
    Judged {
        flagged_by: Vec::new(),
        name: FLAG_ALL.to_owned(),
        seed: None,
        scores: vec![1.0; n],
        flagged: vec![true; n],
        threshold: f64::NAN,
        rule: "flags everything",
        records_per_second: f64::NAN,
        cpu_seconds: None,
    }
}

/// Shares of abnormal sessions in the training data, for the rows that show what poisoning does.
const POISONED: [f64; 2] = [0.005, 0.01];

/// The training sessions with a share of abnormal ones, drawn by `seed`, slipped in at random places. They stay in the test part, where
/// they are a thousandth of the abnormal ones.
fn poisoned(split: &SessionSplit, share: f64, seed: u64) -> Sessions {
    let rank = |kind: u64, idx: usize| StableHash::new().number(seed).number(kind).number(idx as u64).finish();
    let abnormal: Vec<&[u16]> = split.test_abnormal.iter().collect();
    let mut drawn: Vec<usize> = (0..abnormal.len()).collect();
    drawn.sort_by_key(|&idx| rank(0, idx));
    drawn.truncate((split.train.len() as f64 * share).round() as usize);
    // A place in the training for each: normal sessions keep their order.
    let n_normal = split.train.len() as u64;
    let mut placed: Vec<(u64, &[u16])> = (0..).zip(split.train.iter()).map(|(at, events)| (2 * at, events)).collect();
    placed.extend(drawn.into_iter().map(|idx| (2 * (rank(1, idx) % n_normal) + 1, abnormal[idx])));
    placed.sort_by_key(|(at, _)| *at);
    Sessions::of_events(placed.into_iter().map(|(_, events)| events))
}

/// Fits, fixes the threshold, then scores the test part.
fn judge(entry: &Entry, seed: Option<u64>, training: &Training, test: &Sessions) -> anyhow::Result<Judged> {
    let Training { sessions: training, cut, rule } = training;
    let cut = *cut;
    reset_peak_rss();
    let before = Usage::now();
    let bar = crate::progress::bar(test.len() as u64, entry.name);
    let config = entry.default_config();
    let (mut detector, threshold, rule) = match entry.published_threshold {
        // The paper's rule, fitted on everything the paper fits on.
        Some(threshold) => {
            let windows = training.windows(0..training.len());
            (entry.fit(&config, &windows, seed.unwrap_or(1))?, threshold, "published threshold")
        }
        // Our rule: a part of the training sessions decides.
        None => {
            let mut detector = entry.fit(&config, &training.windows(0..cut), seed.unwrap_or(1))?;
            let held_out = score_all(&mut *detector, training, cut..training.len(), |_| ());
            let threshold = Calibration::fit(&held_out).threshold(SIGNIFICANCE).unwrap_or(f64::INFINITY);
            // Calibration means "from here on", the comparison below means "above".
            (detector, threshold.next_down(), *rule)
        }
    };
    let started = Instant::now();
    let scores = score_all(&mut *detector, test, 0..test.len(), |n| bar.inc(n as u64));
    let records_per_second = test.n_records() as f64 / started.elapsed().as_secs_f64();
    bar.finish_and_clear();
    let flagged = scores.iter().map(|score| *score > threshold).collect();
    let cpu_seconds = Usage::now().cpu_seconds_since(&before);
    Ok(Judged {
        flagged_by: Vec::new(),
        name: entry.name.into(),
        seed,
        scores,
        flagged,
        threshold,
        rule,
        records_per_second,
        cpu_seconds,
    })
}

/// What a user gets without configuring anything: the default detectors, warmed up on the training sessions, with an alert
/// as the verdict.
fn product(seed: u64, training: &Sessions, test: &Sessions) -> anyhow::Result<Judged> {
    reset_peak_rss();
    let before = Usage::now();
    let warm_up = WarmUp { sessions: Some(training.len() as u64), ..WarmUp::default() };
    // Without times there is no day over which a budget could be spent.
    let alerting = AlertConfig { budget: Budget::UNLIMITED, ..AlertConfig::default() };
    let mut monitor = Monitor::new(MonitorConfig { warm_up, seed, alerting, ..MonitorConfig::default() })?;
    let mut warm = training.windows(0..training.len());
    // The part that fixes thresholds elsewhere may come last although it is no later.
    warm.sort_by_key(|window| window.as_log().map_or(0, |log| log.span_unix_nano().0));
    monitor.process(&warm);
    anyhow::ensure!(monitor.is_in_service(), "the detectors did not warm up on the training part");
    let order: Vec<usize> = (0..test.len()).collect();
    let bar = crate::progress::bar(test.len() as u64, DEFAULT);
    let (mut scores, mut flagged) = (vec![0.0_f64; test.len()], vec![false; test.len()]);
    let mut flagged_by: BTreeMap<String, BTreeSet<usize>> = BTreeMap::new();
    let started = Instant::now();
    for chunk in order.chunks(CHUNK) {
        let windows: Vec<Window<'_>> = chunk.iter().map(|idx| test.window(*idx)).collect();
        let outcome = monitor.process(&windows);
        for scored in &outcome.scored {
            let score = &mut scores[chunk[scored.window]];
            *score = score.max(-scored.p_value.log10());
        }
        for alert in &outcome.alerts {
            let idx = alert.session.parse::<usize>()?;
            flagged[idx] = true;
            flagged_by.entry(alert.detector.clone()).or_default().insert(idx);
        }
        bar.inc(chunk.len() as u64);
    }
    bar.finish_and_clear();
    let flagged_by = flagged_by.into_iter().map(|(detector, sessions)| (detector, sessions.into_iter().collect()));
    Ok(Judged {
        flagged_by: flagged_by.collect(),
        name: DEFAULT.into(),
        seed: Some(seed),
        scores,
        flagged,
        threshold: f64::NAN,
        rule: "alerts of all detectors with their defaults",
        records_per_second: test.n_records() as f64 / started.elapsed().as_secs_f64(),
        cpu_seconds: Usage::now().cpu_seconds_since(&before),
    })
}

/// A session is flagged when any member flags it; its score is the best rank any member gives it.
fn any_of(members: &[&Judged]) -> Judged {
    let n = members.first().map_or(0, |member| member.scores.len());
    let mut scores = vec![0.0_f64; n];
    for member in members {
        for (score, rank) in scores.iter_mut().zip(ranks(&member.scores)) {
            *score = score.max(rank);
        }
    }
    Judged {
        flagged_by: Vec::new(),
        name: members.iter().map(|member| member.name.as_str()).collect::<Vec<_>>().join("|"),
        seed: None,
        scores,
        flagged: (0..n).map(|idx| members.iter().any(|member| member.flagged[idx])).collect(),
        threshold: f64::NAN,
        rule: "any of",
        records_per_second: members.iter().map(|member| member.records_per_second.recip()).sum::<f64>().recip(),
        cpu_seconds: members.iter().map(|member| member.cpu_seconds).sum(),
    }
}

/// Share of scores that lie strictly below each score: comparable between detectors.
fn ranks(scores: &[f64]) -> Vec<f64> {
    let mut sorted = scores.to_vec();
    sorted.sort_by(f64::total_cmp);
    scores.iter().map(|score| sorted.partition_point(|other| other < score) as f64 / scores.len() as f64).collect()
}

/// The row of a verdict.
pub fn row(protocol: &str, dataset: &str, verdict: &Judged, truth: &[bool]) -> ResultRow {
    let counts = Confusion::of(verdict.flagged.iter().copied().zip(truth.iter().copied()));
    let mut row = ResultRow::new(protocol, dataset, &verdict.name)
        .with_confusion(&counts)
        .with_extra("balanced_accuracy", counts.balanced_accuracy())
        .with_extra("rule", verdict.rule)
        .with_extra("threshold", if verdict.threshold.is_finite() { verdict.threshold.into() } else { Value::Null });
    let by_detector: Map<String, Value> = (verdict.flagged_by.iter())
        .map(|(detector, sessions)| {
            let n_true = sessions.iter().filter(|idx| truth[**idx]).count();
            (detector.clone(), json!({"n_flagged": sessions.len(), "n_true": n_true}))
        })
        .collect();
    if !by_detector.is_empty() {
        row = row.with_extra("by_detector", Value::Object(by_detector));
    }
    row.seed = verdict.seed;
    row.auprc = average_precision(&verdict.scores, truth);
    row.records_per_second = Some(verdict.records_per_second).filter(|rate| rate.is_finite());
    row.cpu_seconds = verdict.cpu_seconds;
    row.peak_rss_bytes = Usage::now().peak_rss_bytes;
    row
}
