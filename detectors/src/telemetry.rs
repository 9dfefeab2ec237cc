//! Stations 6 to 8 for metrics and traces: what the windower and its monitor are to logs.
//!
//! ```text
//! metrics ──────────────▶ SeriesStation ─▶ series, instances ─▶ Monitor
//! spans ─▶ TraceAssembler ─▶ traces ───────────────────────────▶ Monitor
//!    └▶ rate, errors,   └─▶ calls ─▶ SeriesStation
//!       durations        └─▶ ServiceStation ─▶ services ───────▶ Monitor
//! ```
//!
//! Each kind of window has a [`Monitor`] for the detectors that calibrate themselves, which are in service from the first
//! window on, and one for those that warm up. A batch is pushed, then [`Telemetry::judge`] takes everything that is
//! complete through its detectors. What nobody listens to is not made: without a detector of traces no trace is put
//! together, unless metrics are made of the calls in it.
//!
//! While models are fitted elsewhere ([`Telemetry::begin_fits`]) their monitor judges nothing, unlike that of logs, for which
//! records wait: metrics and spans come at their own pace, whoever listens. Cost: that of its stations; nothing where
//! nothing has come. Memory: theirs. Fails as they do.

#[cfg(test)]
mod tests;

use faultline_core::{Alert, DetectorStatus, MetricBatch, Signal, SpanBatch, TraceWindow, Window};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    error::Error,
    lifecycle::{FitJob, Fitted, Monitor, MonitorConfig, MonitorEvent},
    registry::entry,
    series::{Call, SeriesConfig, SeriesStation, SeriesStats},
    traces::{ServiceConfig, ServiceStation, ServiceStats, Shape, TraceAssembler, TraceConfig, TraceStats},
};

/// How metrics and spans become windows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TelemetryConfig {
    /// How points and spans become series.
    pub series: SeriesConfig,
    /// How spans become traces.
    pub traces: TraceConfig,
    /// How traces become what services did.
    pub services: ServiceConfig,
}

/// The stations and detectors of metrics and traces. See the file's documentation.
#[derive(Debug)]
pub struct Telemetry {
    series: SeriesStation,
    traces: TraceAssembler,
    services: ServiceStation,
    shape: Shape,
    /// Those of each kind of window, in the order of [`KINDS`].
    lanes: Vec<Lane>,
    has_series: bool,
    has_traces: bool,
}

/// The detectors of one kind of window that start in the same way.
#[derive(Debug)]
struct Lane {
    signal: Signal,
    monitor: Monitor,
}

/// What [`Telemetry`] judges, in the order in which a round does.
const KINDS: [Signal; 4] = [Signal::Traces, Signal::Services, Signal::Series, Signal::Groups];

/// How long series are waited for when nothing comes: exporters send each minute, and where the clock of one sender is ahead,
/// the steps of the others must not be complete for that.
const SERIES_GRACE_NANOS: i64 = 60_000_000_000;

/// What came of one round.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Judged {
    /// Alerts that are new or have changed.
    pub alerts: Vec<Alert>,
    /// What happened besides.
    pub events: Vec<MonitorEvent>,
}

/// A warm-up that is complete, and the lane that it is of.
#[derive(Debug)]
pub struct LaneFit {
    lane: usize,
    job: FitJob,
}

/// What came of a [`LaneFit`].
#[derive(Debug)]
pub struct LaneFitted {
    lane: usize,
    fitted: Fitted,
}

impl LaneFit {
    /// Fits, on any thread.
    #[must_use]
    pub fn run(self) -> LaneFitted {
        LaneFitted { lane: self.lane, fitted: self.job.run() }
    }
}

impl Telemetry {
    /// The stations, and those of the detectors that score metrics or traces.
    ///
    /// # Errors
    /// When a key of a station or a detector is unknown or out of range.
    pub fn new(config: &TelemetryConfig, detection: &MonitorConfig) -> Result<Self, Error> {
        detection.check()?;
        let mut lanes = Vec::new();
        for signal in KINDS {
            for is_self_calibrated in [true, false] {
                let monitor = Monitor::of(signal, is_self_calibrated, detection.clone())?;
                if monitor.has_detectors() {
                    lanes.push(Lane { signal, monitor });
                }
            }
        }
        let has = |signals: &[Signal]| lanes.iter().any(|lane| signals.contains(&lane.signal));
        let has_series = has(&[Signal::Series, Signal::Groups]);
        let groups = config.series.groups && has(&[Signal::Groups]);
        let has_traces = has(&[Signal::Traces, Signal::Services]) || (has_series && config.series.red);
        Ok(Self {
            series: SeriesStation::new(SeriesConfig { groups, ..config.series.clone() })?,
            traces: TraceAssembler::new(config.traces.clone())?,
            services: ServiceStation::new(config.services.clone())?,
            shape: Shape::default(),
            lanes,
            has_series,
            has_traces,
        })
    }

    /// Leaves the fits to the caller, who asks [`Self::begin_fits`] after each round.
    #[must_use]
    pub fn deferring_fits(self) -> Self {
        let defer = |lane: Lane| Lane { monitor: lane.monitor.deferring_fits(), ..lane };
        Self { lanes: self.lanes.into_iter().map(defer).collect(), ..self }
    }

    /// Takes metrics.
    pub fn push_metrics(&mut self, batch: &MetricBatch) {
        if self.has_series {
            self.series.push_metrics(batch);
        }
    }

    /// Takes spans.
    pub fn push_spans(&mut self, batch: &SpanBatch) {
        if self.has_series {
            self.series.push_spans(batch);
        }
        if self.has_traces {
            self.traces.push(batch);
        }
    }

    /// Nothing has come for so long: what is only waiting for time to pass is complete. For live input, never for what is replayed.
    pub fn rest(&mut self, quiet_nanos: i64) {
        let newest = self.series.newest_unix_nano();
        if newest > i64::MIN && quiet_nanos > SERIES_GRACE_NANOS {
            self.series.advance_to(newest.saturating_add(quiet_nanos - SERIES_GRACE_NANOS));
        }
        let newest = self.traces.newest_unix_nano();
        if newest > i64::MIN {
            self.traces.advance_to(newest.saturating_add(quiet_nanos));
        }
    }

    /// Takes everything that is complete through its detectors.
    pub fn judge(&mut self) -> Judged {
        let mut judged = Judged::default();
        self.judge_traces(&mut judged);
        self.judge_services(&mut judged);
        self.judge_series(&mut judged);
        judged
    }

    /// The input has ended: everything is complete, and every alert is resolved.
    pub fn finish(&mut self) -> Judged {
        let mut judged = Judged::default();
        self.traces.finish();
        self.judge_traces(&mut judged);
        self.services.finish();
        self.judge_services(&mut judged);
        self.series.finish();
        self.judge_series(&mut judged);
        for lane in &mut self.lanes {
            judged.alerts.extend(lane.monitor.finish());
        }
        judged
    }

    fn judge_traces(&mut self, judged: &mut Judged) {
        let traces = self.traces.ready();
        for trace in traces.iter().filter_map(Window::as_trace) {
            self.shape.measure(trace);
            self.services.push(trace, &self.shape);
            if self.has_series {
                push_calls(&mut self.series, trace);
            }
        }
        let watermark = self.traces.watermark_unix_nano();
        run(&mut self.lanes, Signal::Traces, &traces, watermark, judged);
        self.traces.settle();
        self.services.advance_to(watermark);
    }

    fn judge_services(&mut self, judged: &mut Judged) {
        let windows = self.services.ready();
        run(&mut self.lanes, Signal::Services, &windows, self.services.watermark_unix_nano(), judged);
        self.services.settle();
    }

    fn judge_series(&mut self, judged: &mut Judged) {
        let watermark = self.series.watermark_unix_nano();
        let windows = self.series.ready();
        for signal in [Signal::Series, Signal::Groups] {
            let own: Vec<Window<'_>> = windows.iter().copied().filter(|window| window.signal() == signal).collect();
            run(&mut self.lanes, signal, &own, watermark, judged);
        }
        drop(windows);
        self.series.settle();
    }

    /// Fits to run, of warm-ups that have become complete. Until its result comes back with [`Self::conclude`] a lane judges
    /// nothing.
    pub fn begin_fits(&mut self) -> Vec<LaneFit> {
        let lanes = self.lanes.iter_mut().enumerate();
        lanes.filter_map(|(lane, own)| Some(LaneFit { lane, job: own.monitor.begin_fit()? })).collect()
    }

    /// Takes fitted models into service.
    pub fn conclude(&mut self, fitted: LaneFitted) -> Vec<MonitorEvent> {
        self.lanes.get_mut(fitted.lane).map_or_else(Vec::new, |lane| lane.monitor.conclude(fitted.fitted))
    }

    /// Who has this detector.
    pub fn monitor_of(&mut self, detector: &str) -> Option<&mut Monitor> {
        let signal = entry(detector).ok()?.signal;
        let mut lanes = self.lanes.iter_mut().filter(|lane| lane.signal == signal);
        lanes.find(|lane| lane.monitor.has_detector(detector)).map(|lane| &mut lane.monitor)
    }

    /// Detectors that have judged something.
    #[must_use]
    pub fn n_judging(&self) -> usize {
        self.lanes.iter().map(|lane| lane.monitor.n_judging()).sum()
    }

    /// Shares the budget among its own detectors that judge something and as many of logs.
    pub fn share_budget_with(&mut self, n_logs: usize) {
        let n_all = n_logs + self.n_judging();
        for lane in &mut self.lanes {
            lane.monitor.share_budget_with(n_all - lane.monitor.n_judging());
        }
    }

    /// How much of each warm-up that has begun is done; none where none has.
    #[must_use]
    pub fn progress(&self) -> Option<f64> {
        let begun = self.lanes.iter().map(|lane| lane.monitor.progress()).filter(|share| (0.0..1.0).contains(share));
        begun.filter(|share| *share > 0.0).reduce(f64::min)
    }

    /// Monitors whose detectors are fitted.
    #[must_use]
    pub fn n_in_service(&self) -> usize {
        self.lanes.iter().filter(|lane| lane.monitor.is_in_service()).count()
    }

    /// Alerts raised.
    #[must_use]
    pub fn n_alerts(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.monitor.alert_stats().n_alerts).sum()
    }

    /// How the detectors in service do.
    #[must_use]
    pub fn status(&self) -> Vec<DetectorStatus> {
        let time_unix_nano = self.watermark_unix_nano().unwrap_or(0);
        self.lanes.iter().flat_map(|lane| lane.monitor.status(time_unix_nano)).collect()
    }

    /// Event time up to which metrics or spans are taken to be complete, whichever is later; none before the first.
    #[must_use]
    pub fn watermark_unix_nano(&self) -> Option<i64> {
        let series = (self.series.newest_unix_nano() > i64::MIN).then(|| self.series.watermark_unix_nano());
        let traces = (self.traces.newest_unix_nano() > i64::MIN).then(|| self.traces.watermark_unix_nano());
        series.into_iter().chain(traces).max()
    }

    /// What the stations have counted.
    #[must_use]
    pub fn stats(&self) -> (SeriesStats, TraceStats, ServiceStats) {
        (self.series.stats(), self.traces.stats(), self.services.stats())
    }
}

/// Stations 7 and 8 for windows of one kind.
fn run(lanes: &mut [Lane], signal: Signal, windows: &[Window<'_>], watermark_unix_nano: i64, judged: &mut Judged) {
    for lane in lanes.iter_mut().filter(|lane| lane.signal == signal) {
        if !windows.is_empty() {
            let outcome = lane.monitor.process(windows);
            judged.alerts.extend(outcome.alerts);
            judged.events.extend(outcome.events);
        }
        judged.alerts.extend(lane.monitor.advance_to(watermark_unix_nano));
    }
}

/// The calls of one service by another, as the caller saw them where it made a span for the call.
fn push_calls(series: &mut SeriesStation, trace: &TraceWindow<'_>) {
    const CLIENT: u8 = 3;
    const PRODUCER: u8 = 4;
    for span in trace.spans {
        let Some(caller) = span.parent().and_then(|parent| trace.spans.get(parent)) else { continue };
        if caller.service == span.service {
            continue;
        }
        let seen = if matches!(caller.kind, CLIENT | PRODUCER) { caller } else { span };
        let call = Call {
            start_unix_nano: seen.start_unix_nano,
            duration_nanos: seen.duration_nanos,
            is_error: seen.is_error || span.is_error,
            record: span.record,
        };
        series.push_call(trace.service(caller), trace.service(span), &call);
    }
}
