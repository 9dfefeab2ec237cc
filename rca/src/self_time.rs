//! Ranks services by what they themselves did differently: time of their own and errors that begin with them.
//!
//! Station 9. Self time is a span's duration less the union of its children's intervals, clipped to it; an increase of
//! latency is thereby split among those who spent it (cf. the critical-path decomposition of Qiu et al., FIRM, OSDI
//! 2020, and the abnormality by comparison with a normal period of Yu et al., MicroRank, WWW 2021; the robust z-score
//! is median and MAD after Iglewicz and Hoaglin, 1993). An error counts where it begins: a failed span none of whose
//! children failed. A failed call that was not answered blames whoever the callee was waiting for at that moment,
//! down to the callee itself ([`trace`]).
//!
//! The traces of the incident (those its alerts name, else all that overlap it) are compared with the traces before.
//! A service's score is its share of the added self time, weighted by how much of the traces' time is added, plus its
//! share of the added errors, weighted by the errors a trace.
//!
//! Cost: bounded by `max_traces` on either side, a few hash look-ups a span; memory 64 bytes a span kept. Fails when
//! there is no time before, when the culprit's callers do not name it and it never answered, and when the fault shows
//! in neither time nor errors: then it has no answer and the next localizer speaks.

mod compare;
mod trace;

use std::collections::BTreeMap;

use faultline_core::{Alert, Cause, Localizer, SpanBatch};
use rustc_hash::{FxHashMap, FxHashSet};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    graph::spellings,
    intern::Names,
    registry::LocalizerKind,
    span::{Side, rows, trace_number},
};
use compare::{Comparison, Period};

/// Options of `self-time`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SelfTimeConfig {
    /// Event time of spans kept, seconds. At least the longest incident plus `baseline_seconds` is worth keeping.
    pub history_seconds: u32,
    /// The most spans kept (64 bytes each); past it the oldest ten seconds go.
    pub max_spans: usize,
    /// How long before the incident is compared with, seconds.
    pub baseline_seconds: f64,
    /// What is left out just before the incident, because a fault begins before its first alert, seconds.
    pub guard_seconds: f64,
    /// How long after its latest abnormal record the incident still counts, seconds.
    pub tail_seconds: f64,
    /// Traces that the alerts must name so that only they count as affected; with fewer, every trace of that time does.
    pub min_affected_traces: usize,
    /// The most traces looked at on either side; more are thinned out evenly.
    pub max_traces: usize,
    /// Robust z-score from which an operation's self time counts as changed.
    pub min_z: f64,
    /// Sum of all suspects' scores below which nothing has changed enough to blame anyone: the share of time added
    /// plus the share of traces with added errors.
    pub min_score: f64,
    /// The most suspects named.
    pub max_causes: usize,
}

impl Default for SelfTimeConfig {
    fn default() -> Self {
        Self {
            history_seconds: 900,
            max_spans: 500_000,
            baseline_seconds: 300.0,
            guard_seconds: 5.0,
            tail_seconds: 5.0,
            min_affected_traces: 5,
            max_traces: 2_000,
            min_z: 3.0,
            min_score: 0.02,
            max_causes: 10,
        }
    }
}

/// Width of a bucket of kept spans.
const BUCKET_NANOS: i64 = 10_000_000_000;
/// The most service, operation and address names told apart.
const MAX_NAMES: usize = 65_536;
/// The most learned callees.
const MAX_CALLEES: usize = 65_536;
/// The longest a child may come after its parent's bucket and still be brought together with it.
const MAX_TRACE_NANOS: i64 = 120_000_000_000;

/// See the module.
pub struct SelfTime {
    config: SelfTimeConfig,
    names: Names,
    services: FxHashSet<u32>,
    buckets: BTreeMap<i64, Vec<Kept>>,
    n_spans: usize,
}

/// What is kept of a span.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kept {
    pub trace: u128,
    pub span: u64,
    /// 0 for a root span.
    pub parent: u64,
    pub start: i64,
    pub end: i64,
    pub service: u32,
    pub name: u32,
    /// How a calling span names its callee; `u32::MAX` when it does not.
    pub peer: u32,
    pub side: Side,
    pub is_error: bool,
}

/// No name.
pub(crate) const NOBODY: u32 = u32::MAX;

impl LocalizerKind for SelfTime {
    const NAME: &'static str = "self-time";
    const SUMMARY: &'static str =
        "services by added self time and by errors that begin with them, against the time before";
    const PAPER: &'static str = "after Qiu et al., FIRM, OSDI 2020, and Yu et al., MicroRank, WWW 2021";
    type Config = SelfTimeConfig;

    fn new(config: Self::Config) -> Self {
        Self {
            config,
            names: Names::new(MAX_NAMES),
            services: FxHashSet::default(),
            buckets: BTreeMap::new(),
            n_spans: 0,
        }
    }
}

impl Localizer for SelfTime {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn observe(&mut self, spans: &SpanBatch) {
        for span in rows(spans) {
            let Some(service) = self.names.number(span.service) else { continue };
            self.services.insert(service);
            let peer = span.peer().and_then(|peer| self.names.number(&peer)).unwrap_or(NOBODY);
            let kept = Kept {
                trace: span.trace,
                span: span.span,
                parent: span.parent.unwrap_or(0),
                start: span.start_unix_nano,
                end: span.end_unix_nano,
                service,
                name: self.names.number(span.name).unwrap_or(NOBODY),
                peer,
                side: span.side,
                is_error: span.is_error,
            };
            self.keep(kept);
        }
    }

    fn localize(&self, alerts: &[&Alert]) -> Vec<Cause> {
        let Some(first) = alerts.iter().map(|alert| alert.start_unix_nano).min() else { return Vec::new() };
        let last = alerts.iter().map(|alert| alert.end_unix_nano).max().unwrap_or(first).max(first);
        let during = Period { from: first, until: last.saturating_add(nanos(self.config.tail_seconds)) };
        let before_until = first.saturating_sub(nanos(self.config.guard_seconds));
        let before =
            Period { from: before_until.saturating_sub(nanos(self.config.baseline_seconds)), until: before_until };

        let mut spans = self.between(before.from, during.until);
        spans.sort_unstable_by_key(|span| (span.trace, span.span, span.service, span.side as u8, span.start));
        spans.dedup_by_key(|span| (span.trace, span.span, span.service, span.side as u8));
        let traces: Vec<&[Kept]> = spans.chunk_by(|a, b| a.trace == b.trace).collect();

        let named: FxHashSet<u128> = alerts.iter().map(|alert| trace_number(&alert.session)).collect();
        let (mut affected, mut concurrent, mut earlier) = (Vec::new(), Vec::new(), Vec::new());
        for trace in traces {
            let start = trace.iter().map(|span| span.start).min().unwrap_or(0);
            let end = trace.iter().map(|span| span.end).max().unwrap_or(0);
            if named.contains(&trace[0].trace) {
                affected.push(trace);
            } else if start <= during.until && end >= during.from {
                concurrent.push(trace);
            } else if start >= before.from && end <= before.until {
                earlier.push(trace);
            }
        }
        if affected.len() < self.config.min_affected_traces {
            affected.extend(concurrent);
        }
        let max = self.config.max_traces;
        Comparison::new(self, &thin(earlier, max), &thin(affected, max)).causes()
    }
}

impl SelfTime {
    /// Keeps a span. Bounding the number of spans and buckets, and not the age, keeps one span with a wrong clock from
    /// wiping the history.
    fn keep(&mut self, span: Kept) {
        let max_buckets = (i64::from(self.config.history_seconds) * 1_000_000_000 / BUCKET_NANOS).max(1) as usize;
        self.buckets.entry(span.start.div_euclid(BUCKET_NANOS)).or_default().push(span);
        self.n_spans += 1;
        while self.buckets.len() > max_buckets || (self.n_spans > self.config.max_spans && self.buckets.len() > 1) {
            let Some((_, gone)) = self.buckets.pop_first() else { break };
            self.n_spans -= gone.len();
        }
        // All in one bucket: half of it goes, so that the cost of making room stays small.
        if self.n_spans > self.config.max_spans
            && let Some(mut only) = self.buckets.first_entry()
        {
            let n_gone = only.get().len() / 2;
            only.get_mut().drain(..n_gone);
            self.n_spans -= n_gone;
        }
    }

    /// Spans that begin between two event times, and the late part of traces that do.
    fn between(&self, from: i64, until: i64) -> Vec<Kept> {
        let until = until.saturating_add(MAX_TRACE_NANOS);
        let range = from.div_euclid(BUCKET_NANOS)..=until.div_euclid(BUCKET_NANOS);
        self.buckets.range(range).flat_map(|(_, spans)| spans.iter().copied()).collect()
    }

    pub(crate) fn name_of(&self, number: u32) -> &str {
        self.names.name(number)
    }

    /// The service that a calling span's address means, if spans of it were ever seen; else the address itself.
    pub(crate) fn service_called(&self, peer: u32) -> Option<u32> {
        let address = self.names.name(peer);
        let numbers = spellings(address).into_iter().filter_map(|name| self.names.find(name));
        numbers.into_iter().find(|number| self.services.contains(number))
    }

    /// Whom each service calls by which operation, learned from calls that were answered.
    pub(crate) fn learn_callees(&self, traces: &[&[Kept]]) -> FxHashMap<(u32, u32), u32> {
        let mut callees = FxHashMap::default();
        for trace in traces {
            for span in *trace {
                let caller = trace.binary_search_by_key(&span.parent, |other| other.span).map(|idx| &trace[idx]);
                if let Ok(caller) = caller
                    && caller.service != span.service
                    && caller.side == Side::Calling
                    && callees.len() < MAX_CALLEES
                {
                    callees.insert((caller.service, caller.name), span.service);
                }
            }
        }
        callees
    }
}

/// At most `max` of the traces, evenly. Their order is that of their random ids, so the sample is fair.
fn thin<T>(items: Vec<T>, max: usize) -> Vec<T> {
    let n_items = items.len();
    if n_items <= max {
        return items;
    }
    items
        .into_iter()
        .enumerate()
        .filter(|(idx, _)| (idx + 1) * max / n_items > idx * max / n_items)
        .map(|(_, item)| item)
        .collect()
}

fn nanos(seconds: f64) -> i64 {
    (seconds * 1e9) as i64
}

#[cfg(test)]
mod tests;
