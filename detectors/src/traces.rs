//! Station 6 for traces: spans become traces, one tree of spans for each trace id, in event time.
//!
//! Nothing in a trace says that it is complete, so it is waited for, as the tail sampler of the OpenTelemetry collector
//! does. Here the wait begins at the latest end among its spans and is measured by the watermark, which is the newest
//! start of a span minus the allowed lateness. It is short once the root has come, since a root mostly ends last, and
//! long as long as it has not: a call that runs into a timeout is heard of only when that is over. The watermark follows
//! starts and not ends, so that one span with an absurd end does not end every trace; nor does it follow one with an absurd
//! start (`present`).
//!
//! Three calls make a round, as with the log windows: [`TraceAssembler::push`] takes a batch, [`TraceAssembler::ready`]
//! shows the traces that are complete, each once, and [`TraceAssembler::settle`] takes them as scored.
//!
//! - **A batch is never late to itself**: the watermark moves when a batch has been filed.
//! - **Order**: traces are told in the order in which they were complete, by id where several were at once. Neither it nor
//!   the traces depend on the order in which spans came, as long as none came later than the lateness allows.
//! - **Late spans**, whose trace has been told, are counted and kept out, for as long as the trace is remembered.
//! - **Duplicates** by span id are left out, the earliest stays. **Orphans**, whose caller never came, stand beside the
//!   roots. **Circles** are cut at their earliest span.
//!
//! Cost: a hash look-up a span while filing, two sorts a trace; no allocation but for the trace's key. Memory: 56 bytes
//! an open span; everything has a limit with a counter in [`TraceStats`]. Fails when one source's clock runs ahead, for all
//! it sends: traces are then told as soon as the batch they came with is filed, and those that came in several lose the rest. A
//! span that client and server share, as Zipkin allows, counts as a duplicate.

pub(crate) mod corpus;
mod ids;
mod names;
mod open;
mod present;
pub(crate) mod sequence;
pub mod services;
pub mod shape;
mod tree;

use std::sync::Arc;

use arrow::array::Array;
use faultline_core::{SpanBatch, SpanEntry, TraceWindow, Window, WindowKey};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::{
    ids::{TraceId, span_id, trace_id},
    names::Names,
    open::{LONGEST_NANOS, Limits, OpenSpan, OpenTraces, Place},
    present::Present,
    tree::TreeBuilder,
};
pub use self::{
    services::{ServiceConfig, ServiceStation, ServiceStats},
    shape::{PathTime, Shape},
};
use crate::error::Error;

/// The stream that every trace belongs to.
pub const STREAM: &str = "traces";

/// How spans become traces.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TraceConfig {
    /// Milliseconds of event time past its latest end after which a trace is complete although its root has not come.
    /// Default 30000, as the OpenTelemetry collector's tail sampler waits: a usual timeout, and the spans above the call
    /// that waits for it come only when it is over. Lower it to the longest silence within a trace where roots never come,
    /// because whoever makes them sends no spans.
    pub gap_ms: u64,
    /// The same once the root has come: how much longer than its root a trace goes on. Default 1000; raise it when work in
    /// the background is to count as part of the request that left it.
    pub root_grace_ms: u64,
    /// Milliseconds by which the spans of one service may come after those of another; every trace waits that long.
    /// Default 5000, which is how long OpenTelemetry's SDKs collect spans before they send them; 0 for sorted input.
    pub allowed_lateness_ms: u64,
    /// Traces open at a time; one more tells the one that would be complete first. Default 100000.
    pub max_open_traces: usize,
    /// Spans of all open traces, 56 bytes each; one more tells the trace that would be complete first. Default 2000000.
    pub max_open_spans: usize,
    /// Spans of one trace; further ones are left out. Default 10000.
    pub max_spans_per_trace: usize,
    /// Traces remembered after they were told, so that their late spans make no new ones. Default 100000.
    pub max_told_traces: usize,
    /// Services told apart; further ones share the name `*`. Default 1000.
    pub max_services: usize,
    /// Operations told apart, over all services; further ones share the name `*`. Default 10000. Raising it seldom helps:
    /// names with ids in them never end.
    pub max_operations: usize,
}

impl Default for TraceConfig {
    fn default() -> Self {
        Self {
            gap_ms: 30_000,
            root_grace_ms: 1_000,
            allowed_lateness_ms: 5_000,
            max_open_traces: 100_000,
            max_open_spans: 2_000_000,
            max_spans_per_trace: 10_000,
            max_told_traces: 100_000,
            max_services: 1_000,
            max_operations: 10_000,
        }
    }
}

/// What the assembler has done so far, and what it holds. Every span that came is in exactly one of `n_spans`,
/// `n_refused`, `n_late` and `n_cut`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TraceStats {
    /// Spans taken into a trace.
    pub n_spans: u64,
    /// Spans without a trace id: refused.
    pub n_refused: u64,
    /// Spans that came after their trace had been told: kept out.
    pub n_late: u64,
    /// Spans left out because their trace had `max_spans_per_trace`.
    pub n_cut: u64,
    /// Of the spans taken, those left out of their trace because another had the same id.
    pub n_duplicates: u64,
    /// Spans told whose caller never came.
    pub n_orphans: u64,
    /// Circles of spans that call one another, each cut open at its earliest span.
    pub n_circles: u64,
    /// Spans that claim to last longer than an hour, and were waited for as if they lasted one.
    pub n_overlong: u64,
    /// Spans that start more than a day after all before them, and were waited for as if they had just come.
    pub n_strange: u64,
    /// Times that everything had long lain more than a day behind, so that this was the present.
    pub n_moved: u64,
    /// Trace and span ids that are not hexadecimal numbers of the right length, and were hashed.
    pub n_odd_ids: u64,
    /// Spans whose service name was one too many to be told apart.
    pub n_unnamed_services: u64,
    /// Spans whose operation name was one too many to be told apart.
    pub n_unnamed_operations: u64,
    /// Traces told.
    pub n_traces: u64,
    /// Of those, traces told early because `max_open_traces` or `max_open_spans` was hit.
    pub n_evicted: u64,
    /// Traces open now.
    pub n_open: usize,
    /// Their spans.
    pub n_open_spans: usize,
}

/// A trace that is complete and waits to be scored.
#[derive(Debug)]
struct Done {
    key: WindowKey,
    spans: Vec<SpanEntry>,
    n_dropped: u64,
}

/// The windowing station for spans. See the file's documentation.
#[derive(Debug)]
pub struct TraceAssembler {
    config: TraceConfig,
    stream: Arc<str>,
    lateness_nanos: i64,
    /// Newest start that is believed; the watermark follows it.
    present: Present,
    open: OpenTraces,
    services: Names,
    operations: Names,
    tree: TreeBuilder,
    done: Vec<Done>,
    spare: Vec<Vec<SpanEntry>>,
    stats: TraceStats,
}

impl TraceAssembler {
    /// An empty station.
    ///
    /// # Errors
    /// When a limit is zero or too large to count, or a trace with its root would be waited for longer than one without.
    pub fn new(config: TraceConfig) -> Result<Self, Error> {
        const MAX: usize = i32::MAX as usize;
        let refuse = |key, reason: &str| Err(Error::Config { key, reason: reason.to_owned() });
        if config.root_grace_ms > config.gap_ms {
            return refuse("root_grace_ms", "must be at most `gap_ms`");
        }
        let limits = [
            ("max_open_traces", config.max_open_traces),
            ("max_open_spans", config.max_open_spans),
            ("max_spans_per_trace", config.max_spans_per_trace),
            ("max_services", config.max_services),
            ("max_operations", config.max_operations),
        ];
        if let Some((key, _)) = limits.into_iter().find(|(_, limit)| !(1..=MAX).contains(limit)) {
            return refuse(key, "must be between 1 and 2147483647");
        }
        let nanos = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX).saturating_mul(1_000_000);
        Ok(Self {
            stream: Arc::from(STREAM),
            lateness_nanos: nanos(config.allowed_lateness_ms),
            present: Present::default(),
            open: OpenTraces::new(Limits {
                gap_nanos: nanos(config.gap_ms),
                root_grace_nanos: nanos(config.root_grace_ms),
                max_spans_per_trace: config.max_spans_per_trace,
                max_told: config.max_told_traces,
            }),
            services: Names::new(config.max_services),
            operations: Names::new(config.max_operations),
            tree: TreeBuilder::default(),
            done: Vec::new(),
            spare: Vec::new(),
            stats: TraceStats::default(),
            config,
        })
    }

    /// Takes the spans of a batch, in any order.
    pub fn push(&mut self, batch: &SpanBatch) {
        let (records, traces) = (batch.record_id(), batch.trace_id());
        let (ids, parents) = (batch.span_id(), batch.parent_span_id());
        let (starts, durations) = (batch.start_time_unix_nano(), batch.duration_nanos());
        let (kinds, statuses) = (batch.kind(), batch.status_code());
        let (services, operations) = (batch.service_name(), batch.name());
        self.services.begin(services);
        self.operations.begin(operations);
        let mut newest = i64::MIN;
        for row in 0..batch.len() {
            let Some(trace) = trace_id(traces.value(row)) else {
                self.stats.n_refused += 1;
                continue;
            };
            let (id, is_hex) = span_id(ids.value(row));
            let (parent_id, parent_is_hex) = if parents.is_null(row) { (0, true) } else { span_id(parents.value(row)) };
            let service = self.services.of_row(services, row);
            let operation = self.operations.of_row(operations, row);
            let entry = SpanEntry {
                start_unix_nano: starts.value(row),
                duration_nanos: durations.value(row).max(0),
                record: records.value(row),
                parent: SpanEntry::NO_PARENT,
                service,
                operation,
                kind: u8::try_from(kinds.value(row)).ok().filter(|kind| *kind <= 5).unwrap_or(0),
                is_error: statuses.value(row) == 2,
                is_orphan: false,
            };
            let stats = &mut self.stats;
            stats.n_odd_ids += u64::from(!trace.is_hex) + u64::from(!is_hex) + u64::from(!parent_is_hex);
            stats.n_unnamed_services += u64::from(service == Names::FOLDED);
            stats.n_unnamed_operations += u64::from(operation == Names::FOLDED);
            stats.n_overlong += u64::from(entry.duration_nanos > LONGEST_NANOS);
            newest = newest.max(entry.start_unix_nano);
            let is_strange = !self.present.admit(entry.start_unix_nano);
            stats.n_strange += u64::from(is_strange);
            let span = OpenSpan { entry, id, parent_id };
            let until = if is_strange { self.present.newest } else { span.waited_for_until() };
            self.take(trace, span, until);
        }
        // A batch of which every span was refused says nothing.
        if newest != i64::MIN && self.present.end_batch(newest) {
            // What is still open is of the time that was wrong.
            self.stats.n_moved += 1;
            self.tell_until(i64::MAX);
        }
        self.tell_until(self.watermark_unix_nano().saturating_sub(1));
    }

    /// Moves the watermark as if a span that starts at this time had come: for a live source that has fallen quiet, so
    /// that its last traces are told. Never for replayed input, whose times lie in the past.
    pub fn advance_to(&mut self, time_unix_nano: i64) {
        self.present.advance_to(time_unix_nano);
        self.tell_until(self.watermark_unix_nano().saturating_sub(1));
    }

    /// Tells every trace: the input has ended.
    pub fn finish(&mut self) {
        self.tell_until(i64::MAX);
    }

    /// The traces to score. The same again until [`Self::settle`] is called.
    #[must_use]
    pub fn ready(&self) -> Vec<Window<'_>> {
        let windows = self.done.iter().map(|done| {
            Window::Trace(TraceWindow {
                key: &done.key,
                spans: &done.spans,
                n_dropped: done.n_dropped,
                services: self.services.all(),
                operations: self.operations.all(),
            })
        });
        windows.collect()
    }

    /// Takes everything that [`Self::ready`] shows as scored, and forgets it.
    pub fn settle(&mut self) {
        self.settle_first(usize::MAX);
    }

    /// Takes the first `n` windows that [`Self::ready`] shows as scored; it will show the others again.
    pub fn settle_first(&mut self, n: usize) {
        const MAX_SPARE: usize = 1024;
        const MAX_SPARE_SPANS: usize = 256;
        let n_done = n.min(self.done.len());
        for mut done in self.done.drain(..n_done) {
            if self.spare.len() < MAX_SPARE && done.spans.capacity() <= MAX_SPARE_SPANS {
                done.spans.clear();
                self.spare.push(done.spans);
            }
        }
    }

    /// Newest start of a span; the least time there is before the first.
    #[must_use]
    pub fn newest_unix_nano(&self) -> i64 {
        self.present.newest
    }

    /// Event time up to which the input is taken to be complete.
    #[must_use]
    pub fn watermark_unix_nano(&self) -> i64 {
        self.present.newest.saturating_sub(self.lateness_nanos)
    }

    /// Counters and sizes.
    #[must_use]
    pub fn stats(&self) -> TraceStats {
        TraceStats { n_open: self.open.len(), n_open_spans: self.open.n_spans(), ..self.stats }
    }

    /// Takes a span whose trace is waited for from `until` on.
    fn take(&mut self, trace: TraceId<'_>, span: OpenSpan, until: i64) {
        let mut place = self.open.find(trace.number);
        if place != Place::Told && self.open.n_spans() >= self.config.max_open_spans {
            // Its own trace may be the one that has to go.
            self.evict();
            place = self.open.find(trace.number);
        }
        let slot = match place {
            Place::Told => {
                self.stats.n_late += 1;
                return;
            }
            Place::Open(slot) => slot,
            Place::New => {
                if self.open.len() >= self.config.max_open_traces {
                    self.evict();
                }
                self.open.open(trace.number, trace.text)
            }
        };
        let is_taken = self.open.add(slot, span, until);
        self.stats.n_spans += u64::from(is_taken);
        self.stats.n_cut += u64::from(!is_taken);
    }

    fn tell_until(&mut self, until: i64) {
        while let Some(id) = self.open.next_due(until) {
            self.tell(id);
        }
    }

    fn evict(&mut self) {
        if let Some(id) = self.open.next_due(i64::MAX) {
            self.stats.n_evicted += 1;
            self.tell(id);
        }
    }

    fn tell(&mut self, id: u128) {
        let Some(closed) = self.open.close(id, &mut self.tree.spans) else { return };
        let mut spans = self.spare.pop().unwrap_or_default();
        let flaws = self.tree.build(&mut spans);
        self.stats.n_traces += 1;
        self.stats.n_duplicates += flaws.n_duplicates;
        self.stats.n_orphans += flaws.n_orphans;
        self.stats.n_circles += flaws.n_circles;
        let session = closed.text.map_or_else(|| Arc::from(format!("{id:032x}")), Arc::from);
        let key = WindowKey { stream: Arc::clone(&self.stream), session };
        self.done.push(Done { key, spans, n_dropped: closed.n_cut });
    }
}

#[cfg(test)]
mod tests;
