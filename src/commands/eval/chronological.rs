//! `hdfs-chrono`: all sessions in order of first appearance, fitted on the first 1 %, calibrated on the next 10 %, judged on
//! the rest; over ten starts, each with the sessions before it after the others.
//!
//! Nobody marks anything in the training part: it holds the failures that it holds. A detector whose paper publishes a
//! threshold is judged by it, the others by the score that a share of [`SIGNIFICANCE`] of the calibration part exceeds.
//! Sessions come in order, and a detector that learns online learns.

use std::time::Instant;

use faultline_core::Signal;
use faultline_datasets::{
    Confusion, ResultRow, Usage, average_precision,
    loaders::hdfs::ChronologicalSessions,
    protocol::{Split, rotation},
    usage::reset_peak_rss,
};
use faultline_detectors::{Entry, REGISTRY, calibrate::Calibration};
use serde_json::json;

use super::{
    Args,
    sessions::{Sessions, score_all},
};

const PROTOCOL: &str = "hdfs-chrono";
const N_OFFSETS: usize = 10;
const TRAIN_SHARE: f64 = 0.01;
const CALIBRATE_SHARE: f64 = 0.10;

/// Share of calibration sessions that a detector without a published threshold may flag.
const SIGNIFICANCE: f64 = 2e-3;

/// Runs the protocol.
pub fn hdfs_chrono(args: &Args, report: &mut dyn FnMut(ResultRow)) -> anyhow::Result<()> {
    let files = super::locate(args, "hdfs")?;
    let table = ChronologicalSessions::load(&files.data)?;
    let all: Vec<&[u16]> = table.sessions.iter().collect();
    let wanted = |name: &str| args.detector.is_empty() || args.detector.iter().any(|wanted| wanted == name);
    for entry in REGISTRY.iter().filter(|entry| entry.signal == Signal::Logs && wanted(entry.name)) {
        // Ten starts show more spread than seeds do.
        let seed = args.seeds.first().copied().unwrap_or(1);
        let mut rows = Vec::new();
        for offset in 0..N_OFFSETS {
            let order: Vec<usize> = rotation(all.len(), offset, N_OFFSETS).collect();
            let sessions = Sessions::of_events(order.iter().map(|&idx| all[idx]));
            let truth: Vec<bool> = order.iter().map(|&idx| table.anomalous[idx]).collect();
            let row = judge(entry, seed, &sessions, &truth)?;
            let row = ResultRow { dataset: format!("hdfs, start {offset} of {N_OFFSETS}"), ..row };
            report(row.clone());
            rows.push(row);
        }
        report(mean_of(entry.name, &rows));
    }
    Ok(())
}

/// Fits on the first part, fixes the threshold on the second, scores the third.
fn judge(entry: &Entry, seed: u64, sessions: &Sessions, truth: &[bool]) -> anyhow::Result<ResultRow> {
    reset_peak_rss();
    let before = Usage::now();
    let split = Split::chronological(sessions.len(), TRAIN_SHARE, CALIBRATE_SHARE);
    let mut detector = entry.fit(&entry.default_config(), &sessions.windows(split.train.clone()), seed)?;
    let calibration = score_all(&mut *detector, sessions, split.calibrate.clone(), |_| ());
    let threshold = entry
        .published_threshold
        .unwrap_or_else(|| Calibration::fit(&calibration).threshold(SIGNIFICANCE).unwrap_or(f64::INFINITY).next_down());
    let bar = crate::progress::bar(split.test.len() as u64, entry.name);
    let started = Instant::now();
    let scores = score_all(&mut *detector, sessions, split.test.clone(), |n| bar.inc(n as u64));
    let seconds = started.elapsed().as_secs_f64();
    bar.finish_and_clear();
    let truth = &truth[split.test.clone()];
    let counts = Confusion::of(scores.iter().map(|score| *score > threshold).zip(truth.iter().copied()));
    let mut row = ResultRow::new(PROTOCOL, "hdfs", entry.name)
        .with_confusion(&counts)
        .with_extra("threshold", if threshold.is_finite() { json!(threshold) } else { json!(null) });
    row.seed = entry.is_seeded.then_some(seed);
    row.auprc = average_precision(&scores, truth);
    row.records_per_second = Some(sessions.n_records_of(split.test) as f64 / seconds);
    row.cpu_seconds = Usage::now().cpu_seconds_since(&before);
    row.peak_rss_bytes = Usage::now().peak_rss_bytes;
    Ok(row)
}

/// The mean over the starts, which is the figure to quote: a single start hides the drift.
fn mean_of(detector: &str, rows: &[ResultRow]) -> ResultRow {
    let mean = |of: fn(&ResultRow) -> Option<f64>| {
        let values: Option<Vec<f64>> = rows.iter().map(of).collect();
        values.filter(|values| !values.is_empty()).map(|values| values.iter().sum::<f64>() / values.len() as f64)
    };
    let f1: Vec<_> = rows.iter().map(|row| row.f1).collect();
    let mut row = ResultRow::new(PROTOCOL, &format!("hdfs, mean of {} starts", rows.len()), detector)
        .with_extra("f1_by_start", json!(f1));
    row.n = rows.iter().map(|row| row.n).sum();
    row.seed = rows.first().and_then(|row| row.seed);
    row.precision = mean(|row| row.precision);
    row.recall = mean(|row| row.recall);
    // A start at which nothing is flagged has no precision and no F1; it counts as 0.
    row.f1 = mean(|row| Some(row.f1.unwrap_or(0.0)));
    row.auprc = mean(|row| row.auprc);
    row.records_per_second = mean(|row| row.records_per_second);
    row.cpu_seconds = rows.iter().map(|row| row.cpu_seconds).sum();
    row.peak_rss_bytes = rows.iter().filter_map(|row| row.peak_rss_bytes).max();
    row
}
