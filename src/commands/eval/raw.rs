//! `hdfs-raw`: raw interleaved lines with times, from bytes to alerts, by the very code of `faultline replay`.

use faultline_datasets::{
    ResultRow, Usage,
    loaders::{hdfs::RawHdfs, labels::Labels},
};

use super::Args;
use crate::commands::replay::{judge, replay, train_on_first};

/// Share of the lines that is fitted on.
const TRAIN_SHARE: f64 = 0.3;

/// Runs the protocol.
pub fn hdfs_raw(args: &Args, report: &mut dyn FnMut(ResultRow)) -> anyhow::Result<()> {
    let files = super::locate(args, "hdfs")?;
    let raw = RawHdfs::load(&files.data)?;
    let mut config = args.config.load_with(Some("hdfs"))?;
    train_on_first(&mut config, &raw.log, TRAIN_SHARE)?;
    let scratch = tempfile::tempdir()?;
    let before = Usage::now();
    let replayed = replay(&config, &raw.log, scratch.path(), None)?;
    let usage = Usage::now();
    let judgement = judge(&replayed, &Labels::Sessions(raw.labels))?;
    for (name, verdict) in &judgement.detectors {
        // All detectors with their defaults is what a user gets without configuring anything.
        let name = if name == "any" { "default" } else { name };
        if !args.detector.is_empty() && !args.detector.iter().any(|wanted| wanted == name) {
            continue;
        }
        let mut row = ResultRow::new("hdfs-raw", "hdfs", name)
            .with_confusion(&verdict.counts)
            .with_extra("n_alerts", verdict.n_alerts)
            .with_extra("n_incidents", replayed.incidents.len());
        row.seed = Some(config.detection.seed);
        row.records_per_second = Some(replayed.n_lines as f64 / replayed.elapsed.as_secs_f64());
        row.cpu_seconds = usage.cpu_seconds_since(&before);
        row.peak_rss_bytes = usage.peak_rss_bytes;
        report(row);
    }
    Ok(())
}
