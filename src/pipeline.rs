//! The whole path in one place: stations 3 to 10, one function each, in order, joined by bounded channels.
//!
//! ```text
//! sources ─▶ accept ─▶ parse ─▶ keep ─▶ detect (window, score, alert) ─▶ localize ─▶ publish
//!   1, 2        3         4        5           6        7      8             9          10
//! ```
//!
//! Every station owns a thread and everything it mutates; a batch is handed on, never shared. A full channel makes the
//! station before it wait, so pressure travels back to the sources, which refuse or stop reading. When the last source
//! lets go of its outlet the channels close one after the other and every station drains before it returns.
//! The stations from `parse` to `localize` are deterministic: the same batches give the same alerts and incidents. Of a live
//! feed one thing is not: how much it brings while detectors are fitted, which is then judged at once.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::Context;
use faultline_api::Order;
use faultline_core::{
    Alert, Batch, BoxFuture, Delivery, Outlet, OutletError, Parser, RecordId, Sink, SpanBatch, Template, TemplateId,
};
use faultline_detectors::{
    Telemetry,
    lifecycle::{Monitor, MonitorEvent, Replacement},
    telemetry::Judged,
    windowing::Windower,
};
use faultline_parsers::{DrainStats, LogParser};
use faultline_rca::Correlator;
use faultline_store::Store;
use tokio::sync::mpsc;

use crate::{
    channel::{Receiver, Sender, channel},
    config::Config,
    dead_letters::DeadLetters,
    fits::{self, Fits},
    publication::{MAX_MERGED, Publication, write},
    station_counts,
    verdicts::{Judges, Verdicts},
};

/// Deliveries the outlet holds before sources are told to come back later, and those of a file, which can wait.
const OUTLET_DEPTH: usize = 64;
const FILE_OUTLET_DEPTH: usize = 8;
/// How often segments that are due are looked after, and, while it is quiet, sessions that have fallen silent.
const IDLE: Duration = Duration::from_millis(500);
/// Records of a file that are judged at once while the detectors warm up.
const WARM_UP_PIECE: usize = 256;
/// Records that may wait for the end of a fit before the sources are made to wait too.
const MAX_WAITING: usize = 1_000_000;
/// The shortest time between two writes of alerts: what happens meanwhile is merged.
const PUBLISH_INTERVAL: Duration = Duration::from_millis(100);
/// How long alerts that could not be written wait for the next attempt when nothing else happens.
const RETRY: Duration = Duration::from_secs(5);
/// How often it is written how the detectors do.
const STATUS_INTERVAL: Duration = Duration::from_secs(2);
/// Batches between two saves of the template counts.
const TEMPLATE_INTERVAL: u64 = 256;

/// A running path.
pub struct Pipeline {
    outlet: Arc<ChannelOutlet>,
    stations: Vec<(&'static str, JoinHandle<anyhow::Result<()>>)>,
    progress: Arc<Progress>,
    orders: Orders,
}

/// What operators have ordered, by detector or alert, and the detect station has not carried out yet.
pub type Orders = Arc<Mutex<Vec<(String, Order)>>>;

/// What the path has done so far, for progress bars, `/readyz` and the closing line of a replay.
#[derive(Debug, Default)]
pub struct Progress {
    /// Records accepted at station 3.
    pub n_records: AtomicU64,
    /// Alerts raised at station 8.
    pub n_alerts: AtomicU64,
    /// Share of the warm-up that is done, in thousandths.
    warm_up: AtomicU64,
    /// The last record that the detectors were fitted on; 0 while there is none.
    fitted_until: AtomicU64,
    /// Detectors in service.
    fitted: Mutex<Vec<&'static str>>,
}

impl Progress {
    /// Share of the warm-up that is done, 0 to 1.
    pub fn warm_up(&self) -> f64 {
        f64::from(u32::try_from(self.warm_up.load(Ordering::Relaxed)).unwrap_or(1000)) / 1000.0
    }

    /// The last record that the detectors were fitted on, once they were.
    pub fn fitted_until(&self) -> Option<RecordId> {
        Some(self.fitted_until.load(Ordering::Relaxed)).filter(|record| *record > 0)
    }

    /// Detectors in service, in registry order.
    pub fn fitted(&self) -> Vec<&'static str> {
        self.fitted.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes note of detectors that came fitted.
    fn fitted_before(&self, monitor: &Monitor) {
        let names = monitor.models().iter().map(|model| model.name());
        self.fitted.lock().unwrap_or_else(PoisonError::into_inner).extend(names);
    }

    /// Tells operators what happened to a detector, and remembers which are in service.
    pub fn report(&self, event: &MonitorEvent) {
        let mut fitted = self.fitted.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            MonitorEvent::Fitted { detector, version, n_training, n_calibration, n_outliers } => {
                fitted.push(detector);
                tracing::info!(detector, version, n_training, n_calibration, n_outliers, "detector fitted");
            }
            MonitorEvent::FitFailed { detector, reason } => {
                tracing::warn!(detector, reason, "detector could not be fitted and does not run");
            }
            MonitorEvent::WarmUpRestarted => tracing::warn!("no detector could be fitted; the warm-up starts again"),
            MonitorEvent::Sidelined { detector, reason } => {
                fitted.retain(|name| name != detector);
                metrics::counter!("faultline_detector_sidelined_total", "detector" => *detector).increment(1);
                tracing::error!(detector, reason, "detector returned something that is no score and is sidelined");
            }
            MonitorEvent::Drifted { detector, excess } => {
                metrics::counter!("faultline_detector_drifted_total", "detector" => *detector).increment(1);
                let share = format!("{:.0} %", 100.0 * excess);
                tracing::warn!(
                    detector,
                    share,
                    "detector has drifted: so many sessions more than expected are abnormal to it"
                );
            }
            MonitorEvent::TemplatesMerged { detector, share } => {
                let share = format!("{:.0} %", 100.0 * share);
                tracing::warn!(
                    detector,
                    share,
                    "the parser has merged templates that so many sessions of this detector's fit hold; a model fitted on \
                     recent sessions will be offered"
                );
            }
            MonitorEvent::ShadowFitted { detector, version, abnormal_share, active_abnormal_share } => {
                tracing::warn!(
                    detector,
                    version = format!("{version:016x}"),
                    abnormal_share,
                    active_abnormal_share,
                    "a model fitted on recent sessions waits for its promotion (POST /api/v1/detectors/{detector}/promote)"
                );
            }
            MonitorEvent::ShadowFailed { detector, reason } => {
                tracing::warn!(detector, reason, "no model could be fitted on recent sessions");
            }
            MonitorEvent::Replaced { detector, from, to, cause } => {
                let cause = match cause {
                    Replacement::Promotion => "promotion",
                    Replacement::Rollback => "rollback",
                };
                metrics::counter!("faultline_detector_replaced_total", "detector" => *detector, "cause" => cause)
                    .increment(1);
                let (from, to) = (format!("{from:016x}"), format!("{to:016x}"));
                tracing::warn!(detector, from, to, cause, "another model of this detector decides from now on");
            }
        }
    }
}

/// What a source is to the pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feed {
    /// A file: it waits while detectors are fitted, so that the same file gives the same alerts.
    File,
    /// Live telemetry: it is taken while detectors are fitted, and judged afterwards.
    Live,
}

/// What a batch did to the templates.
struct Changed {
    /// Those that it founded or widened.
    templates: Vec<Template>,
    /// Those that it merged, with the ones that took their place.
    aliases: Vec<(TemplateId, TemplateId)>,
}

/// A parsed batch, and what it did to the templates.
struct Parsed {
    batch: Option<Batch>,
    changed: Changed,
}

/// A batch that is in the store, and what it did to the templates.
type Kept = (Batch, Changed);

/// The alerts of one batch together with the spans that passed with it: what station 9 works on.
struct Finding {
    spans: Option<SpanBatch>,
    alerts: Vec<Alert>,
    /// Event time up to which the log records are complete.
    watermark_unix_nano: i64,
}

impl Pipeline {
    /// Builds the stations from the configuration and starts them.
    ///
    /// `monitor` comes fitted, or cold and will warm up; `sinks` are told of every alert and incident after the store.
    pub fn start(
        config: &Config,
        store: &Store,
        monitor: Monitor,
        feed: Feed,
        sinks: Vec<Box<dyn Sink>>,
    ) -> anyhow::Result<Self> {
        let parser = LogParser::new(config.parser.clone())?;
        let windower = Windower::new(config.windowing.clone())?.following(&config.detection.adaptation);
        let windower = if monitor.reads_numbers() { windower.with_numbers() } else { windower };
        let correlator = Correlator::new(config.rca.clone())?;
        let progress = Arc::new(Progress::default());
        let first_record = store.next_record_id();
        let dead_letters = DeadLetters::new(store.dir());

        let (outlet, deliveries) = mpsc::channel(if feed == Feed::File { FILE_OUTLET_DEPTH } else { OUTLET_DEPTH });
        let (to_parse, accepted) = channel("parse");
        let (to_keep, parsed) = channel("keep");
        let (to_detect, kept) = channel("detect");
        let (to_localize, findings) = channel("localize");
        let (to_publish, publications) = channel("publish");

        let (keep_store, detect_store, publish_store) = (store.clone(), store.clone(), store.clone());
        let orders = Orders::default();
        let verdicts = Verdicts::new(store.clone(), &config.windowing);
        let telemetry = Telemetry::new(&config.telemetry(), &config.monitor())?;
        let detectors =
            Detectors { monitor, telemetry, feed, store: detect_store, orders: Arc::clone(&orders), verdicts };
        let (accept_progress, detect_progress) = (Arc::clone(&progress), Arc::clone(&progress));
        let stations = vec![
            station("accept", move || accept(deliveries, &to_parse, first_record, dead_letters, &accept_progress))?,
            station("parse", move || parse(&accepted, &to_keep, parser))?,
            station("keep", move || keep(&parsed, &to_detect, &keep_store))?,
            station("detect", move || detect(&kept, &to_localize, windower, detectors, &detect_progress))?,
            station("localize", move || localize(&findings, &to_publish, correlator))?,
            station("publish", move || publish(&publications, &publish_store, sinks))?,
        ];
        Ok(Self { outlet: Arc::new(ChannelOutlet(outlet)), stations, progress, orders })
    }

    /// Takes orders for detectors.
    pub fn orders(&self) -> Orders {
        Arc::clone(&self.orders)
    }

    /// Where sources put their batches.
    pub fn outlet(&self) -> Arc<dyn Outlet> {
        Arc::clone(&self.outlet) as Arc<dyn Outlet>
    }

    /// What has happened so far.
    pub fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.progress)
    }

    /// Closes the path and waits until every station has drained. Sources must have let go of their outlets.
    pub fn drain(self) -> anyhow::Result<()> {
        drop(self.outlet);
        for (name, handle) in self.stations {
            let outcome = handle.join().map_err(|_| anyhow::anyhow!("station {name} panicked"))?;
            outcome.with_context(|| format!("station {name}"))?;
        }
        Ok(())
    }
}

/// Station 3: numbers the records and takes responsibility. The only place that acknowledges.
///
/// The journal goes here (part 4); until then responsibility is held in memory, and the configuration says so.
fn accept(
    mut deliveries: mpsc::Receiver<Delivery>,
    to_parse: &Sender<Batch>,
    first_record: u64,
    mut dead_letters: DeadLetters,
    progress: &Progress,
) -> anyhow::Result<()> {
    let mut next_record = first_record;
    while let Some(delivery) = deliveries.blocking_recv() {
        let n_records = delivery.batch.n_records() as u64;
        dead_letters.keep(&delivery.position.source, &delivery.rejects);
        to_parse.send(delivery.batch.numbered_from(next_record))?;
        next_record += n_records;
        progress.n_records.fetch_add(n_records, Ordering::Relaxed);
        delivery.ack.done();
    }
    Ok(())
}

/// Station 4: log bodies become templates, parameters and session keys.
fn parse(accepted: &Receiver<Batch>, to_keep: &Sender<Parsed>, mut parser: LogParser) -> anyhow::Result<()> {
    let mut n_batches = 0_u64;
    while let Some(batch) = accepted.recv() {
        let batch = match batch {
            Batch::Logs(logs) => Batch::Logs(parser.parse(logs)),
            other => other,
        };
        n_batches += 1;
        let changed = parser.drain_changes();
        let is_due = n_batches.is_multiple_of(TEMPLATE_INTERVAL);
        if is_due || n_batches == 1 {
            count_templates(&parser);
        }
        let templates = if is_due { parser.templates() } else { changed };
        let aliases = parser.drain_aliases();
        to_keep.send(Parsed { batch: Some(batch), changed: Changed { templates, aliases } })?;
    }
    count_templates(&parser);
    // The last word on counts.
    let changed = Changed { templates: parser.templates(), aliases: Vec::new() };
    to_keep.send(Parsed { batch: None, changed })
}

/// What the parser has done so far, over all streams.
fn count_templates(parser: &LogParser) {
    let stats = parser.drain_stats();
    let total = |of: fn(&DrainStats) -> u64| stats.iter().map(|(_, stats)| of(stats)).sum::<u64>();
    metrics::counter!("faultline_parser_lines_total").absolute(total(|stats| stats.lines));
    metrics::counter!("faultline_parser_templates_created_total").absolute(total(|stats| stats.created));
    metrics::counter!("faultline_parser_templates_evicted_total").absolute(total(|stats| stats.evicted));
    metrics::counter!("faultline_parser_templates_merged_total").absolute(total(|stats| stats.merged));
    metrics::counter!("faultline_parser_limited_lines_total").absolute(total(|stats| stats.limited_lines));
    metrics::counter!("faultline_parser_cut_lines_total").absolute(total(|stats| stats.cut_lines + stats.cut_tokens));
    metrics::counter!("faultline_parser_unmatched_headers_total").absolute(parser.stats().unmatched_headers);
}

/// Station 5: batches to Parquet segments. A batch is in the store before a detector sees it, so that the lines behind
/// an alert can always be found.
fn keep(parsed: &Receiver<Parsed>, to_detect: &Sender<Kept>, store: &Store) -> anyhow::Result<()> {
    let mut last_look = Instant::now();
    while let Some(message) = parsed.recv_timeout(IDLE) {
        if last_look.elapsed() >= IDLE {
            last_look = Instant::now();
            if let Err(error) = store.close_aged() {
                report_failed_write("segments", &error);
            }
        }
        let Some(Parsed { batch, changed }) = message else { continue };
        // In this order: a template that was founded and merged by one batch ends as merged.
        let written = store.put_templates(&changed.templates).and_then(|()| store.put_aliases(&changed.aliases));
        if let Err(error) = written {
            report_failed_write("templates", &error);
        }
        let Some(batch) = batch else { continue };
        if let Err(error) = store.append(&batch) {
            report_failed_write(batch.table(), &error);
        }
        to_detect.send((batch, changed))?;
    }
    store.close().context("closing the last segments")
}

fn report_failed_write(what: &'static str, error: &(dyn std::error::Error + 'static)) {
    metrics::counter!("faultline_store_failed_writes_total", "what" => what).increment(1);
    tracing::error!(what, error, "could not write to the store; records go on to detection but are not kept");
}

/// What the detect station works with besides its sessions.
struct Detectors {
    /// Those of logs.
    monitor: Monitor,
    /// Those of metrics and traces, with their windows.
    telemetry: Telemetry,
    feed: Feed,
    /// Where it is written how the detectors do.
    store: Store,
    orders: Orders,
    verdicts: Verdicts,
}

impl Detectors {
    /// Carries out what operators have ordered.
    fn obey(&mut self, progress: &Progress) {
        let orders = std::mem::take(&mut *self.orders.lock().unwrap_or_else(PoisonError::into_inner));
        for (detector, order) in orders {
            let monitor = self.telemetry.monitor_of(&detector).unwrap_or(&mut self.monitor);
            let event = match order {
                Order::Promote => monitor.promote(&detector),
                Order::RollBack => monitor.roll_back(&detector),
                Order::Judge => {
                    self.verdicts.look();
                    continue;
                }
            };
            match event {
                Some(event) => progress.report(&event),
                None => tracing::warn!(detector, ?order, "there is no model to do that with any more"),
            }
        }
    }

    /// One round of stations 6 to 8 over metrics and traces; the budget is shared with the detectors of logs.
    fn judge_telemetry(&mut self, progress: &Progress) -> Vec<Alert> {
        let Judged { alerts, events } = self.telemetry.judge();
        events.iter().for_each(|event| progress.report(event));
        self.telemetry.share_budget_with(self.monitor.n_judging());
        self.monitor.share_budget_with(self.telemetry.n_judging());
        alerts
    }

    /// How far the detectors are. What has had no input does not count, unless nothing has.
    fn report_warm_up(&self, progress: &Progress) {
        let logs = self.monitor.progress();
        let share = match self.telemetry.progress() {
            Some(others) if logs > 0.0 => others.min(logs),
            Some(others) => others,
            None if logs == 0.0 && self.telemetry.n_judging() > 0 => 1.0,
            None => logs,
        };
        progress.warm_up.store((share * 1000.0) as u64, Ordering::Relaxed);
        let n_alerts = self.monitor.alert_stats().n_alerts + self.telemetry.n_alerts();
        progress.n_alerts.store(n_alerts, Ordering::Relaxed);
    }

    /// Writes how the detectors do.
    fn tell(&self, time_unix_nano: i64) {
        let mut status = self.monitor.status(time_unix_nano);
        status.extend(self.telemetry.status());
        let (series, traces, services) = self.telemetry.stats();
        station_counts::tell("series", &series);
        station_counts::tell("traces", &traces);
        station_counts::tell("services", &services);
        for detector in &status {
            let name = detector.detector.clone();
            metrics::gauge!("faultline_detector_drift", "detector" => name.clone()).set(detector.drift);
            metrics::gauge!("faultline_detector_alerts_per_day", "detector" => name.clone())
                .set(detector.alerts_per_day);
            metrics::gauge!("faultline_detector_false_alerts_per_day", "detector" => name.clone())
                .set(detector.false_per_day);
            if let Some(promised) = detector.promised_per_day {
                metrics::gauge!("faultline_detector_promised_alerts_per_day", "detector" => name).set(promised);
            }
        }
        if !status.is_empty()
            && let Err(error) = self.store.put_detectors(&status)
        {
            report_failed_write("detectors", &error);
        }
    }
}

/// Stations 6 to 8: records are filed under their session, points under their series, spans under their trace; what has
/// news is scored, scores become alerts.
fn detect(
    kept: &Receiver<Kept>,
    to_localize: &Sender<Finding>,
    mut windower: Windower,
    mut detectors: Detectors,
    progress: &Progress,
) -> anyhow::Result<()> {
    let mut last_logs = Instant::now();
    let mut last_telemetry = Instant::now();
    let mut newest_unix_nano = i64::MIN;
    let mut fits = Fits::default();
    let mut n_waiting = 0;
    let mut last_told = Instant::now();
    let feed = detectors.feed;
    if feed == Feed::Live {
        detectors.monitor = detectors.monitor.deferring_fits();
        detectors.telemetry = detectors.telemetry.deferring_fits();
    }
    progress.fitted_before(&detectors.monitor);
    loop {
        detectors.obey(progress);
        // A file has nobody who could judge, and the same file is to give the same alerts.
        if feed == Feed::Live {
            let Detectors { monitor: logs, telemetry, verdicts, .. } = &mut detectors;
            verdicts.apply_next(&mut Judges { logs, telemetry, windower: &windower });
        }
        if last_told.elapsed() >= STATUS_INTERVAL {
            last_told = Instant::now();
            detectors.tell(windower.watermark_unix_nano());
        }
        let mut spans = None;
        let mut is_idle = false;
        match kept.recv_timeout(IDLE) {
            Some(Some((Batch::Logs(logs), Changed { templates, aliases }))) => {
                if detectors.monitor.is_in_service() {
                    windower.watch_deploys();
                }
                windower.know(&logs, &templates);
                detectors.monitor.merged(&aliases).iter().for_each(|event| progress.report(event));
                for deploy in windower.take_deploys() {
                    metrics::counter!("faultline_deploys_total", "service" => deploy.service.to_string()).increment(1);
                    tracing::info!(service = %deploy.service, version = %deploy.version,
                        "a new version of a service: templates that it founds count as new since the deploy");
                }
                let mut first = 0;
                // A file is judged in pieces until its warm-up is over, so that a large batch is not learned to its end.
                while feed == Feed::File && !detectors.monitor.is_in_service() && logs.len() - first > WARM_UP_PIECE {
                    windower.push(&logs.slice(first, WARM_UP_PIECE));
                    let alerts = judge(&mut windower, &mut detectors.monitor, progress);
                    let watermark_unix_nano = windower.watermark_unix_nano();
                    to_localize.send(Finding { spans: None, alerts, watermark_unix_nano })?;
                    first += WARM_UP_PIECE;
                }
                windower.push(&logs.slice(first, logs.len() - first));
                last_logs = Instant::now();
                newest_unix_nano = windower.newest_unix_nano();
                n_waiting += logs.len();
            }
            Some(Some((Batch::Spans(batch), _))) => {
                detectors.telemetry.push_spans(&batch);
                last_telemetry = Instant::now();
                spans = Some(batch);
            }
            Some(Some((Batch::Metrics(batch), _))) => {
                detectors.telemetry.push_metrics(&batch);
                last_telemetry = Instant::now();
            }
            Some(None) => is_idle = true,
            None => break,
        }
        // Without records time passes nevertheless: sessions and steps end. Of a file only where it makes us wait.
        if feed == Feed::Live || is_idle {
            if newest_unix_nano > i64::MIN && last_logs.elapsed() >= IDLE {
                windower.advance_to(newest_unix_nano.saturating_add(nanos_since(last_logs)));
            }
            if last_telemetry.elapsed() >= IDLE {
                detectors.telemetry.rest(nanos_since(last_telemetry));
            }
        }
        let mut alerts = detectors.judge_telemetry(progress);
        let telemetry_watermark = detectors.telemetry.watermark_unix_nano().unwrap_or(i64::MIN);
        if let Some(running) = fits.logs.take() {
            if !running.is_finished() && n_waiting < MAX_WAITING {
                fits.logs = Some(running);
                // Metrics and spans go on; the windower keeps the records, and their watermark waits with them.
                to_localize.send(Finding { spans, alerts, watermark_unix_nano: telemetry_watermark })?;
                continue;
            }
            fits::conclude(running, &mut detectors.monitor, progress)?;
        }
        alerts.extend(judge(&mut windower, &mut detectors.monitor, progress));
        detectors.report_warm_up(progress);
        let watermark_unix_nano = windower.watermark_unix_nano().max(telemetry_watermark);
        to_localize.send(Finding { spans, alerts, watermark_unix_nano })?;
        // A file has nobody who could promote a model, and the same file is to give the same alerts.
        if feed == Feed::Live {
            n_waiting =
                if fits.begin(&mut detectors.monitor, &mut detectors.telemetry, progress)? { 0 } else { n_waiting };
        }
    }
    fits.finish(&mut detectors.monitor, &mut detectors.telemetry, progress)?;
    windower.finish();
    let mut alerts = judge(&mut windower, &mut detectors.monitor, progress);
    alerts.extend(detectors.monitor.finish());
    let Judged { alerts: last, events } = detectors.telemetry.finish();
    alerts.extend(last);
    events.iter().for_each(|event| progress.report(event));
    detectors.report_warm_up(progress);
    detectors.tell(windower.watermark_unix_nano());
    let telemetry_watermark = detectors.telemetry.watermark_unix_nano().unwrap_or(i64::MIN);
    let watermark_unix_nano = windower.watermark_unix_nano().max(telemetry_watermark);
    to_localize.send(Finding { spans: None, alerts, watermark_unix_nano })
}

/// Event time that passes with the clock while nothing comes.
fn nanos_since(last: Instant) -> i64 {
    i64::try_from(last.elapsed().as_nanos()).unwrap_or(i64::MAX)
}

/// One round of stations 6 to 8 over the sessions with news.
fn judge(windower: &mut Windower, monitor: &mut Monitor, progress: &Progress) -> Vec<Alert> {
    let windows = windower.ready();
    let scores = monitor.score(&windows);
    let mut alerts = monitor.alert(&windows, &scores.scored);
    // Score before learn, always; what alerted is not learned.
    monitor.learn(&windows, &scores.scored);
    drop(windows);
    windower.settle_first(scores.n_taken);
    alerts.extend(monitor.advance_to(windower.watermark_unix_nano()));

    for event in scores.events.iter().chain(&monitor.adapt()) {
        progress.report(event);
    }
    progress.fitted_until.store(monitor.fitted_until().unwrap_or(0), Ordering::Relaxed);
    alerts
}

/// Station 9: alerts that belong together become one incident with ranked causes.
fn localize(
    findings: &Receiver<Finding>,
    to_publish: &Sender<Publication>,
    mut correlator: Correlator,
) -> anyhow::Result<()> {
    while let Some(Finding { spans, mut alerts, watermark_unix_nano }) = findings.recv() {
        if let Some(spans) = &spans {
            correlator.observe(spans);
        }
        correlator.advance_to(watermark_unix_nano);
        let update = correlator.update(&alerts);
        for alert in &mut alerts {
            alert.incident = correlator.incident_of(alert.id);
        }
        to_publish.send(Publication::new(alerts, update))?;
    }
    to_publish.send(Publication::new(Vec::new(), correlator.finish()))
}

/// Station 10: alerts and incidents to the database, then to everyone who listens. What comes in a burst is merged and
/// written in one transaction; what could not be written is offered again with the next.
fn publish(publications: &Receiver<Publication>, store: &Store, mut sinks: Vec<Box<dyn Sink>>) -> anyhow::Result<()> {
    let mut unwritten = Publication::default();
    let mut next_write = Instant::now();
    loop {
        let next = if unwritten.is_empty() { publications.recv().map(Some) } else { publications.recv_timeout(RETRY) };
        let Some(next) = next else { break };
        let mut n_told = next.as_ref().map_or(0, Publication::len);
        let mut rounds: Vec<Publication> = next.into_iter().collect();
        while n_told > 0 && n_told < MAX_MERGED {
            match publications.recv_timeout(next_write.saturating_duration_since(Instant::now())) {
                Some(Some(later)) => {
                    n_told += later.len();
                    rounds.push(later);
                }
                Some(None) | None => break,
            }
        }
        let publication = Publication::merged(rounds);
        if publication.is_empty() && unwritten.is_empty() {
            continue;
        }
        unwritten = write(store, unwritten, &publication);
        if publication.is_empty() {
            continue;
        }
        for sink in &mut sinks {
            if let Err(error) = sink.publish(&publication.alerts, &publication.incidents) {
                metrics::counter!("faultline_sink_failures_total", "sink" => sink.name().to_owned()).increment(1);
                tracing::error!(sink = sink.name(), error, "a sink did not take alerts");
            }
        }
        next_write = Instant::now() + PUBLISH_INTERVAL;
    }
    if !unwritten.is_empty() {
        write(store, unwritten, &Publication::default());
    }
    Ok(())
}

/// Starts the thread of one station.
fn station(
    name: &'static str,
    body: impl FnOnce() -> anyhow::Result<()> + Send + 'static,
) -> anyhow::Result<(&'static str, JoinHandle<anyhow::Result<()>>)> {
    let handle = std::thread::Builder::new().name(format!("faultline-{name}")).spawn(body)?;
    Ok((name, handle))
}

/// The way into the path for sources.
struct ChannelOutlet(mpsc::Sender<Delivery>);

impl Outlet for ChannelOutlet {
    fn try_send(&self, delivery: Delivery) -> Result<(), OutletError> {
        self.0.try_send(delivery).map_err(|error| match error {
            mpsc::error::TrySendError::Full(delivery) => OutletError::Full(Box::new(delivery)),
            mpsc::error::TrySendError::Closed(delivery) => OutletError::Closed(Box::new(delivery)),
        })
    }

    fn send(&self, delivery: Delivery) -> BoxFuture<'_, Result<(), OutletError>> {
        Box::pin(async { self.0.send(delivery).await.map_err(|error| OutletError::Closed(Box::new(error.0))) })
    }
}
