//! Station 6 for metrics and spans: points become regular series with explicit gaps, spans become rate, errors and durations.
//!
//! A *source* is one OpenTelemetry metric with one set of attributes on one instance. Its points become *series*, each at a
//! regular step: a gauge is its last value within the step, a sum a rate, a histogram a rate of observations, their mean and
//! quantiles, a summary likewise. Spans become the same three kinds (Wilkie's RED method) for each operation of a service
//! and, where a caller tells of them, for each pair of services. The rules are those of the OpenTelemetry metrics data model
//! (temporality, start time, resets, exponential buckets), quantiles those of Prometheus.
//!
//! [`SeriesStation::push_metrics`], [`SeriesStation::push_spans`] and [`SeriesStation::push_call`] take what has come,
//! [`SeriesStation::ready`] shows the steps that are complete, [`SeriesStation::settle`] takes them as scored.
//!
//! - **Steps** are found for each series from its first four points, which are shown together when the fourth has come.
//! - **When a step is complete** is decided by the series alone: at its point where it has one a step, else when a point of a
//!   later step has come, in both cases `allowed_lateness_ms` later in the time of its own points. So a sender whose
//!   clock is wrong harms only itself. [`SeriesStation::advance_to`] completes the rest of what a quiet input has left.
//! - **Gaps** come with the next point; after `max_gap_steps` of them a series begins anew.
//! - **Identity**: service, instance, metric, scope and attributes in any order. The key of a window has the service as
//!   stream, and `metric{attributes} made @instance` as session.
//! - **Order** of the windows: series in the order in which they were touched, then instances. None is in the order of a hash table.
//!
//! Cost: one hash of the attributes' text and two look-ups a point, no allocation for gauges and sums that are known; a
//! histogram allocates its buckets. Memory: less than 600 bytes a series at 100 bytes of name, bounded by `max_series`, see
//! [`SeriesStation::bytes`]. Whatever is not used is counted in [`SeriesStats`]. Fails when two writers send the same identity: their
//! counters take turns as resets; and when an exporter changes its interval, which shows as gaps or as values left out.

mod clock;
mod columns;
mod config;
mod exponential;
mod groups;
mod identity;
mod lookup;
mod red;
mod shown;
mod source;
mod spread;
mod stage;
mod stats;
mod table;
mod track;

use std::sync::Arc;

use arrow::array::Array;
use faultline_core::{MetricBatch, SpanBatch, Window};

use self::{
    clock::Clock,
    columns::{Form, Points, key_at, texts},
    groups::Rest,
    identity::{Index, Instances},
    lookup::Shared,
    red::{Place, Red, RedConfig},
    source::{Show, Source, Taken},
    stage::Stage,
    table::Table,
    track::{NEVER, SECOND, Timing},
};
pub use self::{config::SeriesConfig, red::Call, stats::SeriesStats};
use crate::error::Error;

/// Different texts of attributes that are remembered for each series.
const TEXTS_PER_SERIES: usize = 4;

/// The series station. See the file's documentation.
#[derive(Debug)]
pub struct SeriesStation {
    config: SeriesConfig,
    quantiles: Arc<[f64]>,
    clock: Clock,
    index: Index,
    sources: Vec<Option<Source>>,
    free: Vec<u32>,
    touched: Vec<u32>,
    /// Bounds of explicit buckets that were seen last.
    bounds: Arc<[f64]>,
    operations: Red,
    calls: Red,
    stage: Stage,
    retire_after: i64,
    /// Event time of the latest look for silent series.
    looked_at: i64,
    /// Event time of the latest look for steps that a quiet input has left.
    advanced_at: i64,
}

impl SeriesStation {
    /// An empty station.
    ///
    /// # Errors
    /// When a limit or a step is out of range.
    pub fn new(config: SeriesConfig) -> Result<Self, Error> {
        config.check()?;
        let nanos = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX).saturating_mul(1_000_000);
        let timing = Timing {
            fixed_step: config.step_ms.map(nanos),
            min_step: nanos(config.min_step_ms),
            lateness: nanos(config.allowed_lateness_ms),
            max_gap: i64::from(config.max_gap_steps),
        };
        let table = Table::new(config.max_series, config.max_label_bytes);
        let instances = Instances::new(&config.stream);
        let quantiles: Arc<[f64]> = Arc::from(config.quantiles.as_slice());
        let red = |metric, label, lateness_ms| {
            Red::new(RedConfig {
                stream: Arc::from(config.stream.as_str()),
                metric,
                label,
                step: nanos(config.red_step_ms),
                lateness: nanos(lateness_ms),
                max_operations: config.max_operations,
                quantiles: Arc::clone(&quantiles),
            })
        };
        Ok(Self {
            clock: Clock::default(),
            index: Index::new(config.max_series.saturating_mul(TEXTS_PER_SERIES)),
            sources: Vec::new(),
            free: Vec::new(),
            touched: Vec::new(),
            bounds: Arc::from([]),
            operations: red("spans", "operation", config.red_lateness_ms),
            calls: red("calls", "to", config.call_lateness_ms),
            stage: Stage::new(timing, table, instances, if config.groups { config.max_columns } else { 0 }),
            retire_after: nanos(config.retire_after_ms),
            looked_at: NEVER,
            advanced_at: NEVER,
            quantiles,
            config,
        })
    }

    /// Takes the points of a batch. None of them is late because of another one.
    pub fn push_metrics(&mut self, batch: &MetricBatch) {
        self.clock.observe(batch.time_unix_nano().values());
        let points = Points::of(batch);
        let mut shared = Shared::of(batch);
        for row in 0..batch.len() {
            if points.is_without_value(row) {
                self.stage.stats.n_no_value += 1;
                continue;
            }
            let Some(form) = points.form(row) else {
                self.stage.stats.n_unknown_kind += 1;
                continue;
            };
            if let Some(idx) = self.source_of(&points, &mut shared, row, form) {
                self.take(idx, &points, row, form);
            }
        }
        for idx in std::mem::take(&mut self.touched) {
            if let Some(source) = &mut self.sources[idx as usize] {
                source.is_touched = false;
                source.show(Show::Due, &mut self.stage);
            }
        }
        self.stage.show_touched_rows();
        self.stage.shown.trim();
    }

    /// Takes the spans of a batch: those that a service received, and those without a caller, count for their operation.
    pub fn push_spans(&mut self, batch: &SpanBatch) {
        const SERVER: i32 = 2;
        const CONSUMER: i32 = 5;
        const ERROR: i32 = 2;
        self.clock.observe(batch.end_time_unix_nano().values());
        if !self.config.red {
            return;
        }
        let (kinds, parents, statuses) = (batch.kind(), batch.parent_span_id(), batch.status_code());
        let (starts, durations, records) = (batch.start_time_unix_nano(), batch.duration_nanos(), batch.record_id());
        let (services, names) = (texts(batch.service_name()), texts(batch.name()));
        let (service_keys, name_keys) = (batch.service_name().keys(), batch.name().keys());
        let now = self.clock.now();
        // The place of the latest span of each name, with the key of its service.
        let mut places: Vec<Option<(Option<usize>, Option<Place>)>> = vec![None; names.len()];
        for row in 0..batch.len() {
            if !matches!(kinds.value(row), SERVER | CONSUMER) && parents.is_valid(row) {
                continue;
            }
            let service = key_at(service_keys, row);
            let Some(name) = key_at(name_keys, row) else { continue };
            let Some(known) = places.get_mut(name) else { continue };
            let place = match *known {
                Some((of, place)) if of == service => place,
                _ => {
                    let service_name = service.and_then(|key| services.get(key)).copied().unwrap_or_default();
                    let operation = names[name];
                    let place = self
                        .operations
                        .service(service_name)
                        .and_then(|service| self.operations.operation(service, operation, &mut self.stage));
                    *known = Some((service, place));
                    place
                }
            };
            let Some(place) = place else {
                self.stage.stats.n_refused += 1;
                continue;
            };
            self.stage.stats.n_folded_spans += u64::from(self.operations.is_others(place));
            let call = Call {
                start_unix_nano: starts.value(row),
                duration_nanos: durations.value(row),
                is_error: statuses.value(row) == ERROR,
                record: records.value(row),
            };
            self.operations.observe(place, &call, now, &mut self.stage);
        }
        self.operations.show_touched(&mut self.stage);
        self.stage.shown.trim();
    }

    /// Takes a call of one service by another, as whoever puts traces together finds them. It counts for the caller.
    pub fn push_call(&mut self, caller: &str, callee: &str, call: &Call) {
        if !self.config.red {
            return;
        }
        let place = self.calls.service(caller);
        let place = place.and_then(|service| self.calls.operation(service, callee, &mut self.stage));
        let Some(place) = place else {
            self.stage.stats.n_refused += 1;
            return;
        };
        self.stage.stats.n_folded_spans += u64::from(self.calls.is_others(place));
        self.calls.observe(place, call, self.clock.now(), &mut self.stage);
    }

    /// Completes the steps up to this time as if every series had had a later point: for a live source that has fallen
    /// quiet. Never for replayed input, whose times lie in the past.
    pub fn advance_to(&mut self, time_unix_nano: i64) {
        self.clock.advance_to(time_unix_nano);
        self.stage.floor = self.stage.floor.max(time_unix_nano);
        // All series are looked at, so not more often than steps can end.
        if time_unix_nano < self.advanced_at.saturating_add(SECOND) {
            return;
        }
        self.advanced_at = time_unix_nano;
        self.show_sources(Show::Due);
        self.operations.show_every(&mut self.stage);
        self.calls.show_every(&mut self.stage);
        self.stage.show_rows(Rest::Waits);
        self.stage.shown.trim();
    }

    /// Shows everything there is: the input has ended.
    pub fn finish(&mut self) {
        self.show_sources(Show::All);
        self.operations.finish(&mut self.stage);
        self.calls.finish(&mut self.stage);
        self.stage.show_rows(Rest::Goes);
        self.stage.shown.trim();
    }

    /// What there is to score. The same windows again until [`Self::settle`] is called.
    pub fn ready(&mut self) -> Vec<Window<'_>> {
        self.calls.show_touched(&mut self.stage);
        self.stage.shown.trim();
        let Stage { shown, table, instances, .. } = &self.stage;
        shown.windows(table, instances)
    }

    /// Takes everything that [`Self::ready`] shows as scored.
    pub fn settle(&mut self) {
        self.settle_first(usize::MAX);
    }

    /// Takes the first `n` windows that [`Self::ready`] shows as scored; it will show the others again.
    pub fn settle_first(&mut self, n: usize) {
        self.stage.shown.settle_first(n);
        // Names of windows that wait must stay.
        if self.stage.shown.is_empty() {
            self.retire_silent();
        }
    }

    /// Event time of the whole input, the least there is before the first record.
    #[must_use]
    pub fn newest_unix_nano(&self) -> i64 {
        self.clock.now()
    }

    /// Event time up to which the input is taken to be complete, as far as there is one: series have their own.
    #[must_use]
    pub fn watermark_unix_nano(&self) -> i64 {
        self.clock.now().saturating_sub(self.stage.timing.lateness)
    }

    /// Counters and sizes.
    #[must_use]
    pub fn stats(&self) -> SeriesStats {
        SeriesStats {
            n_lost: self.stage.shown.n_lost,
            n_series: self.stage.table.len(),
            n_sources: self.sources.len() - self.free.len(),
            n_operations: self.operations.n_operations() + self.calls.n_operations(),
            n_instances: self.stage.instances.len(),
            ..self.stage.stats
        }
    }

    /// Memory that series, their names and their index hold, roughly; without what waits to be settled. Looks at all of them.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let sources: usize = self.sources.iter().flatten().map(Source::heap_bytes).sum();
        let slots = self.sources.capacity() * size_of::<Option<Source>>() + self.free.capacity() * size_of::<u32>();
        let red = self.operations.bytes() + self.calls.bytes();
        sources + slots + red + self.index.bytes() + self.stage.table.bytes() + self.stage.instances.bytes()
    }

    fn show_sources(&mut self, show: Show) {
        for source in self.sources.iter_mut().flatten().filter(|source| source.is_waiting()) {
            source.show(show, &mut self.stage);
        }
    }

    /// Hands a point to its source.
    fn take(&mut self, idx: u32, points: &Points<'_>, row: usize, form: Form) {
        let Some(Some(source)) = self.sources.get_mut(idx as usize) else { return };
        let stage = &mut self.stage;
        if source.form != form {
            stage.stats.n_conflicting += 1;
            return;
        }
        source.seen = self.clock.now();
        let mut taken = source.take(points, row, &mut self.bounds, &mut stage.stats);
        if taken == Taken::Moved {
            source.restart(stage);
            taken = source.take(points, row, &mut self.bounds, &mut stage.stats);
        }
        if taken == Taken::Filed {
            if source.is_crowded() {
                source.show(Show::Due, stage);
            }
            if !std::mem::replace(&mut source.is_touched, true) {
                self.touched.push(idx);
            }
        }
    }

    /// Drops what has been silent for long, an eighth of that time apart.
    fn retire_silent(&mut self) {
        let now = self.clock.now();
        if now == NEVER || now.abs_diff(self.looked_at) < (self.retire_after / 8).unsigned_abs() {
            return;
        }
        let is_first = self.looked_at == NEVER;
        self.looked_at = now;
        if is_first {
            return;
        }
        let before = now.saturating_sub(self.retire_after);
        let Stage { table, instances, stats, .. } = &mut self.stage;
        for (slot, idx) in self.sources.iter_mut().zip(0..) {
            if let Some(gone) = slot.take_if(|source| source.seen < before) {
                table.free(&gone.outputs);
                if let Some(instance) = instances.get_mut(gone.instance) {
                    instance.n_sources -= 1;
                }
                self.free.push(idx);
                stats.n_retired += 1;
            }
        }
        let sources = &self.sources;
        self.index.retain(|idx| sources.get(idx as usize).is_some_and(Option::is_some));
        instances.retire();
        self.operations.retire(before, &mut self.stage);
        self.calls.retire(before, &mut self.stage);
    }
}

#[cfg(test)]
mod tests;
