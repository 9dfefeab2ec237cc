//! `bgl-lines`: BGL's second half line by line, in order. New templates keep coming there, so what counts is whether a
//! detector alerts once for each and then knows it; and, of what a user gets by default, how many alerts there are and how
//! many bursts of alert lines they hit.
//!
//! A burst is a longest run of alert lines with gaps of at most [`BURST_GAP`] lines, whatever their event. An alert hits it
//! when the line that began the alert is an alert line of the burst; it covers it when the alert lasts over one.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
    time::Instant,
};

use faultline_core::{Alert, Score, Window};
use faultline_datasets::{
    Confusion, ResultRow, Usage, average_precision,
    loaders::bgl::{BglLines, BglTemplates},
    metrics::episode_hits,
    usage::reset_peak_rss,
};
use faultline_detectors::Entry;
use serde_json::{Map, Value, json};

use super::{
    Args,
    sessions::Sessions,
    windows::{Product, Stream, product, score_steps},
};

/// Share of the lines that is fitted on.
const TRAIN_SHARE: f64 = 0.01;

/// Lines that are handed over at a time to what a user gets by default, as in `bgl-windows`.
const STEP: usize = 10;

/// Lines between two alert lines of one burst, at most.
const BURST_GAP: usize = 1_000;

/// Runs the protocol: line by line with the new-template detector, as fitted and learning each template after its first
/// alert, and with the severe-incident detector; then by alerts with all detectors.
pub fn bgl_lines(args: &Args, report: &mut dyn FnMut(ResultRow)) -> anyhow::Result<()> {
    let files = super::locate(args, "bgl")?;
    let lines = BglLines::load(&files.data)?;
    let n_train = (lines.len() as f64 * TRAIN_SHARE) as usize;
    let truth = &lines.alerts[n_train..];
    let wanted = |name: &str| args.detector.is_empty() || args.detector.iter().any(|wanted| wanted == name);

    for (name, learns) in [("new-template", Learns::Never), ("new-template, learning", Learns::AfterAlert)] {
        if wanted(name) {
            let before = Usage::now();
            let started = Instant::now();
            let entry = faultline_detectors::entry("new-template")?;
            let scores = score_sessions(entry, learns, &lines, n_train)?;
            report(line_row(name, entry, &scores, truth, started, &before));
        }
    }
    let stream = {
        let templates = BglTemplates::of_lines(&files.data)?;
        Stream::of(lines.events.iter().map(|event| templates.of(*event)))
    };
    if wanted("severe-incident") {
        let before = Usage::now();
        let started = Instant::now();
        let entry = faultline_detectors::entry("severe-incident")?;
        let mut detector = entry.fit(&entry.default_config(), &stream.pieces(0..n_train), 1)?;
        let scores = score_steps(&mut *detector, &stream, n_train..lines.len(), 1);
        report(line_row(entry.name, entry, &scores, truth, started, &before));
    }
    if wanted("default") {
        reset_peak_rss();
        let before = Usage::now();
        let product = product(args.seeds[0], &stream, 0..n_train, n_train..lines.len(), STEP)?;
        let mut row = alert_row(&product, &stream, &lines.alerts, n_train);
        row.seed = Some(args.seeds[0]);
        row.records_per_second = Some(truth.len() as f64 / product.elapsed.as_secs_f64());
        row.cpu_seconds = Usage::now().cpu_seconds_since(&before);
        row.peak_rss_bytes = Usage::now().peak_rss_bytes;
        report(row);
    }
    Ok(())
}

/// Each line as a session of its own, fitted on the normal ones of the training part.
fn score_sessions(entry: &Entry, learns: Learns, lines: &BglLines, n_train: usize) -> anyhow::Result<Vec<f64>> {
    let normal: Vec<[u16; 1]> = (0..n_train).filter(|&idx| !lines.alerts[idx]).map(|idx| [lines.events[idx]]).collect();
    let training = Sessions::of_events(normal.iter().map(<[u16; 1]>::as_slice));
    let test = Sessions::of_events(lines.events[n_train..].chunks(1));
    let threshold = entry.published_threshold.unwrap_or(0.0);
    let mut detector = entry.fit(&entry.default_config(), &training.windows(0..training.len()), 1)?;
    let mut scores = Vec::with_capacity(test.len());
    let mut one: Vec<Option<Score>> = Vec::new();
    for idx in 0..test.len() {
        let windows: Vec<Window<'_>> = test.windows(idx..idx + 1);
        one.clear();
        detector.score(&windows, &mut one);
        let score = one[0].map_or(f64::NEG_INFINITY, |score| score.value);
        if score > threshold && learns == Learns::AfterAlert {
            detector.learn(&windows);
        }
        scores.push(score);
    }
    Ok(scores)
}

fn line_row(name: &str, entry: &Entry, scores: &[f64], truth: &[bool], started: Instant, before: &Usage) -> ResultRow {
    let threshold = entry.published_threshold.unwrap_or(0.0);
    let flagged: Vec<bool> = scores.iter().map(|score| *score > threshold).collect();
    let alerts: Vec<usize> = (0..flagged.len()).filter(|&idx| flagged[idx]).collect();
    let hits = episode_hits(&alerts, truth);
    let counts = Confusion::of(flagged.iter().copied().zip(truth.iter().copied()));
    let mut row = ResultRow::new("bgl-lines", "bgl", name)
        .with_confusion(&counts)
        .with_extra("n_alerts", alerts.len())
        .with_extra("episodes_hit", hits.n_hit)
        .with_extra("episodes", hits.n_episodes);
    row.auprc = average_precision(scores, truth);
    row.records_per_second = Some(scores.len() as f64 / started.elapsed().as_secs_f64());
    row.cpu_seconds = Usage::now().cpu_seconds_since(before);
    row.peak_rss_bytes = Usage::now().peak_rss_bytes;
    row
}

/// Counts alerts instead of lines: all of them, then those of each detector.
fn alert_row(product: &Product, stream: &Stream, truth: &[bool], n_train: usize) -> ResultRow {
    let bursts = bursts(truth, n_train);
    let span = |alert: &Alert| stream.record_at(alert.start_unix_nano)..=stream.record_at(alert.end_unix_nano);
    let mut of_detector: BTreeMap<&str, Vec<RangeInclusive<usize>>> = BTreeMap::new();
    for alert in &product.alerts {
        of_detector.entry(&alert.detector).or_default().push(span(alert));
    }
    let all: Vec<RangeInclusive<usize>> = product.alerts.iter().map(span).collect();
    let by_detector: Map<String, Value> = of_detector
        .iter()
        .map(|(name, spans)| ((*name).to_owned(), AlertCounts::of(spans, &bursts, truth).to_json()))
        .collect();
    let mut row = ResultRow::new("bgl-lines", "bgl", "default");
    row.n = (truth.len() - n_train) as u64;
    row.extra = AlertCounts::of(&all, &bursts, truth).to_json().as_object().cloned().unwrap_or_default();
    row.with_extra("n_bursts", bursts.len())
        .with_extra("record_spacing_ms", Stream::SPACING_NANOS / 1_000_000)
        .with_extra("by_detector", by_detector)
}

/// The first and the last alert line of each burst from line `first` on.
fn bursts(truth: &[bool], first: usize) -> Vec<RangeInclusive<usize>> {
    let mut bursts: Vec<RangeInclusive<usize>> = Vec::new();
    for idx in (first..truth.len()).filter(|&idx| truth[idx]) {
        match bursts.last_mut().filter(|burst| idx - burst.end() <= BURST_GAP) {
            Some(burst) => *burst = *burst.start()..=idx,
            None => bursts.push(idx..=idx),
        }
    }
    bursts
}

#[derive(Debug, PartialEq)]
struct AlertCounts {
    n_alerts: usize,
    n_true_alerts: usize,
    n_bursts_hit: usize,
    n_bursts_covered: usize,
}

impl AlertCounts {
    /// `alerts` are from the line that began each to its last.
    fn of(alerts: &[RangeInclusive<usize>], bursts: &[RangeInclusive<usize>], truth: &[bool]) -> Self {
        let is_true = |line: usize| truth.get(line).copied().unwrap_or(false);
        let burst_of = |line: usize| bursts.iter().position(|burst| burst.contains(&line));
        let true_alerts = || alerts.iter().map(|alert| *alert.start()).filter(|&line| is_true(line));
        let hit: BTreeSet<usize> = true_alerts().filter_map(burst_of).collect();
        let is_covered = |burst: &&RangeInclusive<usize>| {
            alerts.iter().any(|alert| {
                let (start, end) = (alert.start().max(burst.start()), alert.end().min(burst.end()));
                (*start..=*end).any(is_true)
            })
        };
        Self {
            n_alerts: alerts.len(),
            n_true_alerts: true_alerts().count(),
            n_bursts_hit: hit.len(),
            n_bursts_covered: bursts.iter().filter(is_covered).count(),
        }
    }

    fn to_json(&self) -> Value {
        json!({
            "n_alerts": self.n_alerts,
            "n_true_alerts": self.n_true_alerts,
            "n_bursts_hit": self.n_bursts_hit,
            "n_bursts_covered": self.n_bursts_covered,
        })
    }
}

/// Whether a template that has alerted counts as known from then on.
#[derive(Clone, Copy, PartialEq)]
enum Learns {
    Never,
    AfterAlert,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bursts_end_at_a_long_gap_and_begin_after_training() {
        let mut truth = vec![false; 10_000];
        for line in [50, 3_000, 3_900, 4_900, 5_901] {
            truth[line] = true;
        }
        assert_eq!(bursts(&truth, 100), [3_000..=4_900, 5_901..=5_901]);
    }

    #[test]
    fn an_alert_hits_with_its_own_line_and_covers_with_all_it_lasts() {
        let mut truth = vec![false; 10_000];
        for line in [3_000, 3_900, 8_000] {
            truth[line] = true;
        }
        let bursts = bursts(&truth, 0);
        let count = |alerts: &[RangeInclusive<usize>]| AlertCounts::of(alerts, &bursts, &truth);
        let counts = |n_alerts, n_true_alerts, n_bursts_hit, n_bursts_covered| AlertCounts {
            n_alerts,
            n_true_alerts,
            n_bursts_hit,
            n_bursts_covered,
        };
        assert_eq!(count(&[3_000..=3_000, 3_900..=3_901]), counts(2, 2, 1, 1), "twice the same burst");
        assert_eq!(count(&[2_990..=3_005]), counts(1, 0, 0, 1), "began before it");
        assert_eq!(count(&[3_001..=3_899]), counts(1, 0, 0, 0), "between its lines");
        assert_eq!(count(&[]), counts(0, 0, 0, 0));
    }
}
