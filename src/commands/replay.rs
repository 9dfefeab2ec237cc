//! `faultline replay`: a file goes down the live path, and its alerts are judged where labels are given.
//!
//! The path is `pipeline.rs`, the very one that `run` uses; only the source differs. Labels are read after the last
//! alert and never reach the pipeline.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};

use anyhow::Context;
use faultline_core::{Alert, AlertId, Incident, IncidentId, RecordId, Sink, Source};
use faultline_datasets::{
    Confusion,
    loaders::labels::{Labels, SessionLabels},
    metrics::episode_hits,
};
use faultline_ingest::{FileSource, FilesConfig};
use faultline_store::Store;
use serde_json::{Map, Value, json};

use crate::{
    commands::{ConfigArgs, run::monitor},
    config::Config,
    evidence,
    exit::{self, Exit},
    out::outln,
    pipeline::{Feed, Pipeline},
    progress,
};

/// Alerts that the text output shows with their records; the rest is counted.
const SHOWN: usize = 10;

/// Arguments of `faultline replay`.
#[derive(clap::Args)]
pub struct Args {
    /// The log: plain, .gz or .zst; OTLP/JSON lines as .jsonl; `-` for standard input.
    file: PathBuf,
    /// Labels to judge the alerts by: `BlockId,Label` a line, or one label for each line of the log.
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
    /// Line format, masks and session key of a known system, such as hdfs or bgl.
    #[arg(long, value_name = "NAME")]
    preset: Option<String>,
    /// Fit on the first part of the lines, a share between 0 and 1, and judge the sessions that begin after it.
    #[arg(long, value_name = "SHARE")]
    train: Option<f64>,
    /// Fitted detectors from `faultline fit`; nothing is then learned from this file first.
    #[arg(long, value_name = "FILE", conflicts_with = "train")]
    models: Option<PathBuf>,
    /// Keep records, alerts and incidents here, for `faultline query` and `faultline run`; otherwise they are deleted.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Alerts as JSON lines, then one line with totals.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArgs,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let mut config = args.config.load_with(args.preset.as_deref())?;
    if let Some(share) = args.train {
        train_on_first(&mut config, &args.file, share)?;
    }
    let scratch = tempfile::tempdir().context("making a temporary data directory")?;
    let data_dir = args.data_dir.clone().unwrap_or_else(|| scratch.path().to_owned());
    let replayed = replay(&config, &args.file, &data_dir, args.models.as_deref())?;
    let judgement = match &args.labels {
        Some(path) => Some(judge(&replayed, &Labels::read(path)?)?),
        None => None,
    };
    if args.json { print_json(&replayed, judgement.as_ref()) } else { print_text(&replayed, judgement.as_ref()) }
}

/// Makes the warm-up end after the first `share` of the lines.
pub fn train_on_first(config: &mut Config, file: &Path, share: f64) -> anyhow::Result<()> {
    if !(share > 0.0 && share < 1.0) {
        return Err(Exit::new(exit::USAGE, format!("--train {share}: expected a share between 0 and 1")).into());
    }
    if file == Path::new("-") {
        let message = "--train needs a file: how many lines standard input has is not known in advance";
        return Err(Exit::new(exit::USAGE, message).into());
    }
    let n_lines = faultline_datasets::lines::count(file)?;
    config.detection.warm_up.sessions = None;
    config.detection.warm_up.span_ms = None;
    config.detection.warm_up.records = Some(((n_lines as f64 * share) as u64).max(1));
    Ok(())
}

/// What came of a replay.
pub struct Replayed {
    /// The alerts as they were last published, in order of start, then id.
    pub alerts: Vec<Alert>,
    /// The incidents likewise.
    pub incidents: Vec<Incident>,
    /// Lines read.
    pub n_lines: u64,
    /// The last record that was used for the warm-up; `None` when the detectors came fitted or never were.
    pub fitted_until: Option<RecordId>,
    /// Detectors that scored.
    pub fitted: Vec<&'static str>,
    /// From the first byte to the last alert.
    pub elapsed: Duration,
    /// Where the records are.
    pub store: Store,
}

/// Sends `file` down the path and waits for the last alert.
pub fn replay(config: &Config, file: &Path, data_dir: &Path, models: Option<&Path>) -> anyhow::Result<Replayed> {
    let started = Instant::now();
    if file != Path::new("-") && !file.is_file() {
        return Err(Exit::new(exit::IO, format!("no file {}", file.display())).into());
    }
    let files = FilesConfig { paths: vec![file.display().to_string()], ..config.ingest.files.clone() };
    let source = FileSource::new(files);
    let mut storage = config.storage.clone();
    // Judging a replay asks the store for every session at once.
    storage.query_max_rows = 100_000_000;
    storage.query_max_result_bytes = 4 << 30;
    let store =
        Store::open(data_dir, storage).with_context(|| format!("opening the data directory {}", data_dir.display()))?;
    let published = Published::default();
    let pipeline =
        Pipeline::start(config, &store, monitor(config, models)?, Feed::File, vec![Box::new(published.clone())])?;
    let progress = pipeline.progress();
    let bar = progress::lines(&file.display().to_string());

    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        let outlet = pipeline.outlet();
        let run = Box::new(source).run(outlet, Box::pin(std::future::pending()));
        let mut run = std::pin::pin!(run);
        loop {
            let tick = tokio::time::sleep(Duration::from_millis(100));
            tokio::select! {
                outcome = &mut run => break outcome,
                () = tick => bar.set_position(progress.n_records.load(Ordering::Relaxed)),
            }
        }
    })?;
    pipeline.drain()?;
    bar.finish_and_clear();

    let (alerts, incidents) = published.take();
    Ok(Replayed {
        alerts,
        incidents,
        n_lines: progress.n_records.load(Ordering::Relaxed),
        fitted_until: progress.fitted_until(),
        fitted: progress.fitted(),
        elapsed: started.elapsed(),
        store,
    })
}

/// How the alerts compare with the labels, a detector each and `any` for all together.
pub struct Judgement {
    /// What was judged: `sessions` or `lines`.
    pub unit: &'static str,
    /// Counts and figures by detector.
    pub detectors: BTreeMap<String, Verdict>,
}

/// How one detector did.
pub struct Verdict {
    pub n_alerts: usize,
    pub counts: Confusion,
    /// For labels by line: runs of anomalous lines, and how many of them an alert points into.
    pub episodes: Option<(u64, u64)>,
}

/// Compares alerts with labels. Sessions that began during the warm-up are left out.
pub fn judge(replayed: &Replayed, labels: &Labels) -> anyhow::Result<Judgement> {
    let mut names: Vec<String> = replayed.fitted.iter().map(|name| (*name).to_owned()).collect();
    names.push("any".into());
    let of = |name: &str, alert: &&Alert| name == "any" || alert.detector == name;
    let mut detectors = BTreeMap::new();
    match labels {
        Labels::Sessions(labels) => {
            let judged = judged_sessions(replayed, labels)?;
            for name in names {
                let alerts: Vec<&Alert> = replayed.alerts.iter().filter(|alert| of(&name, alert)).collect();
                let flagged: BTreeSet<&str> = alerts.iter().map(|alert| alert.session.as_str()).collect();
                let pairs = judged.iter().map(|(session, label)| (flagged.contains(session.as_str()), *label));
                let verdict = Verdict { n_alerts: alerts.len(), counts: Confusion::of(pairs), episodes: None };
                detectors.insert(name, verdict);
            }
            Ok(Judgement { unit: "sessions", detectors })
        }
        Labels::Lines(labels) => {
            let skip = replayed.fitted_until.unwrap_or(0) as usize;
            let truth = labels.get(skip..).unwrap_or_default();
            for name in names {
                let alerts: Vec<&Alert> = replayed.alerts.iter().filter(|alert| of(&name, alert)).collect();
                let lines: BTreeSet<usize> = alerts
                    .iter()
                    .filter_map(|alert| alert.evidence.culprit)
                    .filter_map(|record| (record as usize).checked_sub(skip + 1))
                    .collect();
                let hits = episode_hits(&lines.iter().copied().collect::<Vec<_>>(), truth);
                let counts = Confusion::of(truth.iter().enumerate().map(|(idx, label)| (lines.contains(&idx), *label)));
                let episodes = Some((hits.n_hit, hits.n_episodes));
                detectors.insert(name, Verdict { n_alerts: alerts.len(), counts, episodes });
            }
            Ok(Judgement { unit: "lines", detectors })
        }
    }
}

/// Labelled sessions whose first record came after the warm-up.
fn judged_sessions(replayed: &Replayed, labels: &SessionLabels) -> anyhow::Result<Vec<(String, bool)>> {
    let sql = "SELECT session, min(record_id) FROM logs WHERE session IS NOT NULL GROUP BY session ORDER BY session";
    let rows = replayed.store.query(sql)?.rows;
    let fitted_until = replayed.fitted_until.unwrap_or(0);
    let mut judged = Vec::new();
    for row in &rows {
        let (Some(session), Some(first)) = (row[0].as_str(), row[1].as_u64()) else { continue };
        if first > fitted_until
            && let Some(label) = labels.get(session)
        {
            judged.push((session.to_owned(), label));
        }
    }
    if judged.is_empty() {
        let message = format!(
            "none of the {} labelled sessions began after the warm-up ({} sessions in the log): do the labels and the \
             session key fit this log?",
            labels.len(),
            rows.len()
        );
        return Err(Exit::new(exit::UNAVAILABLE, message).into());
    }
    Ok(judged)
}

fn print_json(replayed: &Replayed, judgement: Option<&Judgement>) -> anyhow::Result<()> {
    for alert in &replayed.alerts {
        outln!("{}", serde_json::to_string(alert)?);
    }
    let mut totals = Map::new();
    totals.insert("n_lines".into(), replayed.n_lines.into());
    totals.insert("n_templates".into(), count(&replayed.store, "templates")?);
    totals.insert("n_alerts".into(), replayed.alerts.len().into());
    totals.insert("n_incidents".into(), replayed.incidents.len().into());
    totals.insert("last_warm_up_record".into(), replayed.fitted_until.into());
    totals.insert("seconds".into(), replayed.elapsed.as_secs_f64().into());
    totals.insert("lines_per_second".into(), rate(replayed).into());
    if let Some(judgement) = judgement {
        totals.insert("judged".into(), judgement.unit.into());
        let verdicts = judgement.detectors.iter().map(|(name, verdict)| (name.clone(), figures(verdict)));
        totals.insert("detectors".into(), Value::Object(verdicts.collect()));
    }
    outln!("{}", Value::Object(totals));
    Ok(())
}

fn figures(verdict: &Verdict) -> Value {
    let counts = &verdict.counts;
    let mut figures = json!({
        "alerts": verdict.n_alerts, "n": counts.n(), "tp": counts.true_positives, "fp": counts.false_positives,
        "fn": counts.false_negatives, "precision": counts.precision(), "recall": counts.recall(), "f1": counts.f1(),
    });
    if let Some((n_hit, n_episodes)) = verdict.episodes {
        figures["episodes_hit"] = n_hit.into();
        figures["episodes"] = n_episodes.into();
    }
    figures
}

fn print_text(replayed: &Replayed, judgement: Option<&Judgement>) -> anyhow::Result<()> {
    outln!(
        "{} lines in {:.1} s ({:.0} lines/s), {} templates, {} alerts, {} incidents",
        replayed.n_lines,
        replayed.elapsed.as_secs_f64(),
        rate(replayed),
        count(&replayed.store, "templates")?,
        replayed.alerts.len(),
        replayed.incidents.len()
    );
    match replayed.fitted_until {
        Some(record) => outln!("fitted on the first {record} lines: {}", replayed.fitted.join(", ")),
        None if replayed.fitted.is_empty() => {
            outln!("nothing was fitted: the warm-up was not over at the end; try --train 0.3");
        }
        None => {}
    }
    for alert in replayed.alerts.iter().take(SHOWN) {
        outln!(
            "\n{} {} by {} on {} (p = {:.1e})",
            alert.id,
            alert.severity.name(),
            alert.detector,
            alert.session,
            alert.p_value
        );
        outln!("  {}", alert.evidence.summary);
        let records = replayed.store.records_behind(alert)?;
        let mark = |record: RecordId| if alert.evidence.culprit == Some(record) { '>' } else { ' ' };
        for line in &records.lines {
            outln!("  {} {}", mark(line.record_id), line.raw);
        }
        for (record, text) in evidence::texts(&records) {
            outln!("  {} {text}", mark(record));
        }
    }
    if replayed.alerts.len() > SHOWN {
        outln!("\n... and {} more; --json prints all, --data-dir keeps them", replayed.alerts.len() - SHOWN);
    }
    if let Some(judgement) = judgement {
        outln!(
            "\n{:16} {:>8} {:>8} {:>9} {:>7} {:>7}",
            "detector",
            "alerts",
            judgement.unit,
            "precision",
            "recall",
            "F1"
        );
        for (name, verdict) in &judgement.detectors {
            let share = |figure: Option<f64>| figure.map_or_else(|| "-".to_owned(), |figure| format!("{figure:.3}"));
            let counts = &verdict.counts;
            outln!(
                "{name:16} {:>8} {:>8} {:>9} {:>7} {:>7}",
                verdict.n_alerts,
                counts.n(),
                share(counts.precision()),
                share(counts.recall()),
                share(counts.f1())
            );
        }
    }
    Ok(())
}

fn rate(replayed: &Replayed) -> f64 {
    replayed.n_lines as f64 / replayed.elapsed.as_secs_f64()
}

fn count(store: &Store, table: &str) -> anyhow::Result<Value> {
    Ok(store.query(&format!("SELECT count(*) FROM {table}"))?.rows[0][0].clone())
}

/// Collects what is published, the latest state of each alert and incident.
#[derive(Clone, Default)]
struct Published(Arc<Mutex<Latest>>);

/// The latest state of each.
type Latest = (BTreeMap<AlertId, Alert>, BTreeMap<IncidentId, Incident>);

impl Published {
    fn take(&self) -> (Vec<Alert>, Vec<Incident>) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (alerts, incidents) = std::mem::take(&mut *held);
        let mut alerts: Vec<Alert> = alerts.into_values().collect();
        // An incident that another one has absorbed has no alert left.
        let alive: BTreeSet<IncidentId> = alerts.iter().filter_map(|alert| alert.incident).collect();
        let mut incidents: Vec<Incident> =
            incidents.into_values().filter(|incident| alive.contains(&incident.id)).collect();
        alerts.sort_by_key(|alert| (alert.start_unix_nano, alert.id));
        incidents.sort_by_key(|incident| (incident.start_unix_nano, incident.id));
        (alerts, incidents)
    }
}

impl Sink for Published {
    fn name(&self) -> &'static str {
        "replay"
    }

    fn publish(
        &mut self,
        alerts: &[Alert],
        incidents: &[Incident],
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.0.extend(alerts.iter().map(|alert| (alert.id, alert.clone())));
        for incident in incidents {
            for id in &incident.alerts {
                if let Some(alert) = held.0.get_mut(id) {
                    alert.incident = Some(incident.id);
                }
            }
            held.1.insert(incident.id, incident.clone());
        }
        Ok(())
    }
}
