//! `bgl-windows`: BGL's event stream in order, in windows of 20 events every ten, of which one is anomalous when any of its
//! events is.
//!
//! Detectors see the stream as they would in service, as one endless run of records: each event is fresh once, in steps
//! of ten, with the records before it as context. A window is anomalous when either of its two steps is, so nothing looks
//! ahead. Labels are not used for fitting; the training part is taken as it comes.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

use faultline_core::{
    Alert, AlertId, AlertState, Detector, DetectorError, LogEntry, LogWindow, Numbers, Score, Signal, TemplateTexts,
    Window, WindowKey, WindowState,
};
use faultline_datasets::{
    Confusion, ResultRow, Usage, average_precision,
    loaders::bgl::{BglTemplate, BglTemplates, BglWindows},
    usage::reset_peak_rss,
};
use faultline_detectors::{
    Entry, REGISTRY,
    calibrate::Calibration,
    lifecycle::{Monitor, MonitorConfig, WarmUp},
};

use super::Args;

/// Windows of the complete stream. The one in the middle is where the second half begins, whose events others publish
/// figures on: event 2,373,100 of 4,746,210. What is given may end earlier.
const COMPLETE: usize = 474_620;

/// Share of the windows that is fitted on.
const TRAIN_SHARE: f64 = 0.01;

/// Share of the steps of a normal stream that a calibrated detector may flag, as in `hdfs-deeplog`.
const SIGNIFICANCE: f64 = 2e-3;

/// Records handed to a detector at a time, in windows.
const CHUNK: usize = 4096;

/// One endless run of records.
pub struct Stream {
    entries: Vec<LogEntry>,
    key: WindowKey,
    services: Vec<Arc<str>>,
}

impl Stream {
    /// Such files hold no times. BGL wrote a line every four seconds on average, in bursts of many a second; with 300 ms the
    /// default episode gap of a minute is 200 records, after which the severe-incident detector, too, holds an incident to
    /// be over.
    pub const SPACING_NANOS: i64 = 300_000_000;

    /// The lengths at which the windowing station closes an endless stream and what it carries over, by default.
    const CAP: usize = 1024;
    const CONTEXT: usize = 32;

    pub fn of(records: impl Iterator<Item = BglTemplate>) -> Self {
        let entry = |(idx, template): (usize, BglTemplate)| LogEntry {
            template: faultline_core::TemplateId(template.id),
            time_unix_nano: idx as i64 * Self::SPACING_NANOS,
            record: idx as u64 + 1,
            service: 0,
            severity_number: template.severity_number,
            is_since_deploy: false,
        };
        Self {
            entries: records.enumerate().map(entry).collect(),
            key: WindowKey { stream: "eval".into(), session: "eval".into() },
            services: vec!["".into()],
        }
    }

    /// The record that an event time belongs to.
    pub fn record_at(&self, time_unix_nano: i64) -> usize {
        usize::try_from(time_unix_nano / Self::SPACING_NANOS).unwrap_or(0).min(self.entries.len().saturating_sub(1))
    }

    /// The records of `range` as the windowing station hands them out once each piece is over.
    pub fn pieces(&self, range: Range<usize>) -> Vec<Window<'_>> {
        let mut windows = Vec::new();
        let mut at = range.start;
        while at < range.end {
            let context = Self::CONTEXT.min(at - range.start);
            let end = (at - context + Self::CAP).min(range.end);
            windows.push(self.window(at - context..end, context, 0, WindowState::Closed));
            at = end;
        }
        windows
    }

    /// The records of `range` as they come, `size` at a time.
    pub fn steps(&self, range: Range<usize>, size: usize) -> impl Iterator<Item = Window<'_>> {
        range.clone().step_by(size).map(move |at| {
            let context = Self::CONTEXT.min(at);
            let end = (at + size).min(range.end);
            self.window(at - context..end, context, (at - context) as u64, WindowState::Open)
        })
    }

    fn window(&self, range: Range<usize>, fresh: usize, n_dropped: u64, state: WindowState) -> Window<'_> {
        Window::Log(LogWindow {
            key: &self.key,
            records: &self.entries[range],
            numbers: Numbers::default(),
            fresh,
            n_dropped,
            state,
            is_stream: true,
            services: &self.services,
            templates: TemplateTexts::NONE,
        })
    }
}

/// The score of each step; the lowest where the detector has nothing to say.
pub fn score_steps(detector: &mut dyn Detector, stream: &Stream, range: Range<usize>, size: usize) -> Vec<f64> {
    let mut all = Vec::with_capacity(range.len().div_ceil(size));
    let mut steps = stream.steps(range, size).peekable();
    let mut scores: Vec<Option<Score>> = Vec::with_capacity(CHUNK);
    while steps.peek().is_some() {
        let windows: Vec<Window<'_>> = steps.by_ref().take(CHUNK).collect();
        scores.clear();
        detector.score(&windows, &mut scores);
        all.extend(scores.iter().map(|score| score.map_or(f64::NEG_INFINITY, |score| score.value)));
    }
    all
}

/// What a user gets without configuring anything.
pub struct Product {
    /// −log10 of the least p-value that any detector gives each step.
    pub scores: Vec<f64>,
    /// Whether an alert began in each step, or went on in it.
    pub flagged: Vec<bool>,
    /// The alerts as they were last told.
    pub alerts: Vec<Alert>,
    /// What it took to score, alert and learn.
    pub elapsed: Duration,
}

/// All detectors with their defaults, warmed up on `train` and then handed `test` in steps of `size` records.
pub fn product(
    seed: u64,
    stream: &Stream,
    train: Range<usize>,
    test: Range<usize>,
    size: usize,
) -> anyhow::Result<Product> {
    let warm_up = WarmUp { records: Some(train.len() as u64), ..WarmUp::default() };
    let mut monitor = Monitor::new(MonitorConfig { warm_up, seed, ..MonitorConfig::default() })?;
    for window in stream.pieces(train) {
        monitor.process(&[window]);
    }
    anyhow::ensure!(monitor.is_in_service(), "the detectors did not warm up on the training part");
    // A warm-up that is longer than a monitor keeps ends early, and what is left of it may alert.
    monitor.finish();
    let bar = crate::progress::bar(test.len() as u64, "default");
    let started = Instant::now();
    let (mut scores, mut flagged) = (Vec::new(), Vec::new());
    let mut alerts: BTreeMap<AlertId, Alert> = BTreeMap::new();
    for window in stream.steps(test, size) {
        let Some((start, _)) = window.as_log().map(LogWindow::span_unix_nano) else { continue };
        alerts.extend(monitor.advance_to(start).into_iter().map(|alert| (alert.id, alert)));
        let outcome = monitor.process(&[window]);
        scores.push(outcome.scored.iter().map(|scored| -scored.p_value.log10()).fold(0.0, f64::max));
        let is_here = |alert: &Alert| alert.state == AlertState::Firing && alert.end_unix_nano >= start;
        flagged.push(outcome.alerts.iter().any(is_here));
        alerts.extend(outcome.alerts.into_iter().map(|alert| (alert.id, alert)));
        bar.inc(size as u64);
    }
    bar.finish_and_clear();
    alerts.extend(monitor.finish().into_iter().map(|alert| (alert.id, alert)));
    Ok(Product { scores, flagged, alerts: alerts.into_values().collect(), elapsed: started.elapsed() })
}

/// A stretch of the stream in windows, of which the first `n_train` are fitted on.
#[derive(Debug, PartialEq)]
struct Part {
    name: &'static str,
    windows: Range<usize>,
    n_train: usize,
}

/// What can be judged of a stream of which `n` windows are given.
fn parts(n: usize) -> Vec<Part> {
    let share = |n: usize| (n as f64 * TRAIN_SHARE) as usize;
    let half = COMPLETE / 2;
    let parts = [
        Part { name: "bgl, whole stream", windows: 0..n, n_train: share(n) },
        Part { name: "bgl, second half", windows: half..n, n_train: share(COMPLETE - half) },
        Part { name: "bgl, second half after the first", windows: 0..n, n_train: half },
    ];
    parts.into_iter().filter(|part| part.n_train > 0 && part.windows.start + part.n_train < n).collect()
}

/// What a detector made of the test part, by windows.
struct Judged {
    scores: Vec<f64>,
    flagged: Vec<bool>,
    threshold: Option<f64>,
    rule: &'static str,
    elapsed: Duration,
}

/// Runs the protocol.
pub fn bgl_windows(args: &Args, report: &mut dyn FnMut(ResultRow)) -> anyhow::Result<()> {
    let files = super::locate(args, "bgl")?;
    let windows = BglWindows::load(&files.data)?;
    let templates = BglTemplates::of_windows(&files.data)?;
    let stream = Stream::of(windows.events.iter().map(|event| templates.of(*event)));
    let wanted = |name: &str| args.detector.is_empty() || args.detector.iter().any(|wanted| wanted == name);
    for part in parts(windows.len()) {
        let first = part.windows.start + part.n_train;
        let truth = &windows.anomalous[first..part.windows.end];
        let records = |windows: Range<usize>| windows.start * BglWindows::STRIDE..windows.end * BglWindows::STRIDE;
        let train = records(part.windows.start..first);
        // The last window ends with a step more than there are windows.
        let test = records(first..part.windows.end + 1);
        let mut tell = |name: &str, seed: Option<u64>, before: &Usage, judged: &Judged| {
            let counts = Confusion::of(judged.flagged.iter().copied().zip(truth.iter().copied()));
            let mut row = ResultRow::new("bgl-windows", part.name, name)
                .with_confusion(&counts)
                .with_extra("rule", judged.rule)
                .with_extra("threshold", judged.threshold)
                .with_extra("n_train", part.n_train)
                .with_extra("n_known_events", templates.len());
            row.seed = seed;
            row.auprc = average_precision(&judged.scores, truth);
            row.records_per_second = Some(test.len() as f64 / judged.elapsed.as_secs_f64());
            row.cpu_seconds = Usage::now().cpu_seconds_since(before);
            row.peak_rss_bytes = Usage::now().peak_rss_bytes;
            report(row);
        };
        for entry in REGISTRY.iter().filter(|entry| entry.signal == Signal::Logs && wanted(entry.name)) {
            let seeds: Vec<Option<u64>> =
                if entry.is_seeded { args.seeds.iter().copied().map(Some).collect() } else { vec![None] };
            for seed in seeds {
                reset_peak_rss();
                let before = Usage::now();
                if let Some(judged) = judge(entry, seed, &stream, train.clone(), test.clone())? {
                    tell(entry.name, seed, &before, &judged);
                }
            }
        }
        if wanted("default") {
            reset_peak_rss();
            let before = Usage::now();
            let product = product(args.seeds[0], &stream, train.clone(), test.clone(), BglWindows::STRIDE)?;
            let judged = Judged {
                scores: of_windows(&product.scores, f64::max),
                flagged: of_windows(&product.flagged, |a, b| a || b),
                threshold: None,
                rule: "alerts of all detectors with their defaults",
                elapsed: product.elapsed,
            };
            tell("default", Some(args.seeds[0]), &before, &judged);
        }
    }
    Ok(())
}

/// Fits, fixes the threshold, then scores the test part. None for a detector that judges no streams.
fn judge(
    entry: &Entry,
    seed: Option<u64>,
    stream: &Stream,
    train: Range<usize>,
    test: Range<usize>,
) -> anyhow::Result<Option<Judged>> {
    let (config, seed) = (entry.default_config(), seed.unwrap_or(1));
    let fit_until = match entry.published_threshold {
        Some(_) => train.end,
        None => train.start + train.len() * 7 / 10 / BglWindows::STRIDE * BglWindows::STRIDE,
    };
    let mut detector = match entry.fit(&config, &stream.pieces(train.start..fit_until), seed) {
        Ok(detector) => detector,
        Err(DetectorError::Fit { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let (threshold, rule) = match entry.published_threshold {
        Some(threshold) => (threshold, "published threshold"),
        None => {
            let held_out = score_steps(&mut *detector, stream, fit_until..train.end, BglWindows::STRIDE);
            let threshold = Calibration::fit(&held_out).threshold(SIGNIFICANCE).unwrap_or(f64::INFINITY);
            // Calibration means "from here on", the comparison below means "above".
            (threshold.next_down(), "calibrated on the last 30 % of training")
        }
    };
    let started = Instant::now();
    let scores = score_steps(&mut *detector, stream, test, BglWindows::STRIDE);
    let elapsed = started.elapsed();
    if scores.iter().all(|score| *score == f64::NEG_INFINITY) {
        return Ok(None);
    }
    let scores = of_windows(&scores, f64::max);
    let flagged = scores.iter().map(|score| *score > threshold).collect();
    Ok(Some(Judged { scores, flagged, threshold: Some(threshold).filter(|it| it.is_finite()), rule, elapsed }))
}

/// Each window is two steps.
fn of_windows<T: Copy>(steps: &[T], join: impl Fn(T, T) -> T) -> Vec<T> {
    const { assert!(BglWindows::WINDOW == 2 * BglWindows::STRIDE) };
    steps.windows(2).map(|pair| join(pair[0], pair[1])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(n: u64) -> Stream {
        Stream::of((1..=n).map(|id| BglTemplate { id, severity_number: 9 }))
    }

    #[test]
    fn every_record_is_fresh_once_in_steps_and_in_pieces() {
        let stream = stream(3_000);
        let fresh = |windows: Vec<Window<'_>>| -> Vec<u64> {
            let logs = windows.iter().filter_map(Window::as_log);
            logs.flat_map(|log| log.fresh_records().iter().map(|record| record.record)).collect()
        };
        assert_eq!(fresh(stream.steps(500..2_995, 10).collect()), (501..=2_995).collect::<Vec<u64>>());
        assert_eq!(fresh(stream.pieces(500..3_000)), (501..=3_000).collect::<Vec<u64>>());
        for window in stream.pieces(500..3_000) {
            let log = window.as_log().expect("a log");
            assert!(log.records.len() <= Stream::CAP && log.is_stream);
            assert!(log.records[0].record > 500, "nothing from before the part");
        }
        let second = stream.steps(0..100, 10).nth(1).expect("there are ten");
        assert_eq!(second.as_log().map(|log| (log.fresh, log.records.len())), Some((10, 20)));
    }

    #[test]
    fn the_parts_follow_from_what_is_given() {
        let n_train = |n| parts(n).iter().map(|part| (part.windows.clone(), part.n_train)).collect::<Vec<_>>();
        assert_eq!(n_train(1_000), [(0..1_000, 10)], "no second half in there");
        assert_eq!(
            n_train(379_696),
            [(0..379_696, 3_796), (237_310..379_696, 2_373), (0..379_696, 237_310)],
            "the first four fifths"
        );
        assert_eq!(n_train(COMPLETE)[0], (0..COMPLETE, 4_746));
        assert_eq!(parts(50), [], "one percent of fifty windows is none");
    }

    #[test]
    fn a_window_is_as_bad_as_the_worse_of_its_steps() {
        assert_eq!(of_windows(&[0.0, 3.0, 1.0, 0.0], f64::max), [3.0, 3.0, 1.0]);
        assert_eq!(of_windows(&[false, true, false], |a, b| a || b), [true, true]);
    }

    #[test]
    fn the_product_alerts_where_a_quiet_stream_turns_fatal() {
        let template = |idx: usize| match idx {
            9_505 | 9_506 => BglTemplate { id: 99, severity_number: 21 },
            _ => BglTemplate { id: 1 + idx as u64 % 3, severity_number: 9 },
        };
        let stream = Stream::of((0..12_000).map(template));
        let product = product(1, &stream, 0..8_000, 8_000..12_000, 10).expect("it runs");
        let severe: Vec<&Alert> = product.alerts.iter().filter(|alert| alert.detector == "severe-incident").collect();
        assert_eq!(severe.len(), 1, "one incident, one alert: {severe:?}");
        assert_eq!(stream.record_at(severe[0].start_unix_nano), 9_505);
        assert!(product.flagged[150] && !product.flagged[149], "flagged in the step of records 9,500 to 9,509");
        assert_eq!(product.flagged.len(), 400);
    }
}
