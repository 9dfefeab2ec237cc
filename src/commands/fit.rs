//! `faultline fit`: fit detectors to a log file and write them where `run` and `replay` can load them.

use std::path::PathBuf;

use anyhow::Context;
use faultline_core::{Batch, Parser, hash::StableHash};
use faultline_detectors::{
    lifecycle::{Monitor, MonitorEvent},
    windowing::Windower,
};
use faultline_ingest::FileReader;
use faultline_parsers::LogParser;

use crate::{
    commands::ConfigArgs,
    exit::{self, Exit},
    out::outln,
};

/// Arguments of `faultline fit`.
#[derive(clap::Args)]
pub struct Args {
    /// A log of normal operation: plain, .gz or .zst, or session files.
    file: PathBuf,
    /// Line format, masks and session key of a known system, such as hdfs or bgl.
    #[arg(long, value_name = "NAME")]
    preset: Option<String>,
    /// Where the fitted detectors go; `run --models` and `replay --models` load them.
    #[arg(long, value_name = "FILE", default_value = "models.json")]
    out: PathBuf,
    #[command(flatten)]
    config: ConfigArgs,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let mut config = args.config.load_with(args.preset.as_deref())?;
    // The whole file is the warm-up.
    config.detection.warm_up.records = Some(u64::MAX);
    config.detection.warm_up.sessions = None;
    let mut parser = LogParser::new(config.parser.clone())?;
    let mut monitor = Monitor::new(config.monitor())?;
    let windower = Windower::new(config.windowing.clone())?;
    let mut windower = if monitor.reads_numbers() { windower.with_numbers() } else { windower };
    let reader = FileReader::open(&args.file, &config.ingest.files)
        .map_err(|error| Exit::new(exit::IO, format!("{:#}", anyhow::Error::new(error))))?;
    let mut next_record = 1;
    for batch in reader {
        let batch = batch.with_context(|| format!("reading {}", args.file.display()))?;
        let Batch::Logs(logs) = batch.batch else { continue };
        let logs = logs.numbered_from(next_record);
        next_record += logs.len() as u64;
        windower.push(&parser.parse(logs));
        monitor.process(&windower.ready());
        windower.settle();
    }
    windower.finish();
    monitor.process(&windower.ready());
    windower.settle();

    for event in monitor.end_warm_up() {
        match event {
            MonitorEvent::Fitted { detector, n_training, n_calibration, .. } => {
                outln!("{detector}: fitted on {n_training} sessions, calibrated on {n_calibration} scores");
            }
            MonitorEvent::FitFailed { detector, reason } => eprintln!("{detector}: not fitted: {reason}"),
            MonitorEvent::WarmUpRestarted => {
                let message =
                    format!("{}: nothing could be fitted to {} records", args.file.display(), next_record - 1);
                return Err(Exit::new(exit::UNAVAILABLE, message).into());
            }
            MonitorEvent::Sidelined { detector, reason } => eprintln!("{detector}: sidelined: {reason}"),
            // These come in service only.
            MonitorEvent::Drifted { .. }
            | MonitorEvent::TemplatesMerged { .. }
            | MonitorEvent::ShadowFitted { .. }
            | MonitorEvent::ShadowFailed { .. }
            | MonitorEvent::Replaced { .. } => {}
        }
    }
    let parser_snapshot_id = format!("{:016x}", StableHash::new().bytes(&parser.snapshot()).finish());
    let artifacts = monitor.artifacts(&parser_snapshot_id)?;
    std::fs::write(&args.out, serde_json::to_vec(&artifacts)?)
        .with_context(|| format!("writing models to {}", args.out.display()))?;
    outln!("wrote {} detectors to {}", artifacts.len(), args.out.display());
    Ok(())
}
