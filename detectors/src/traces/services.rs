//! Station 6 for services: traces become, for each service and step, the times that they spent in and around it.
//!
//! A trace alone says little about a service: one slow call is nothing. What all traces of a minute spent in it does, and
//! it does so under one key, so that a slow service is one alert however many traces went through it. For each span there
//! is its self time and, where its caller runs in another service, by how much the caller waited longer than the call
//! took: on the way into the one service and out of the other. That part is the network's, a proxy's, a full queue's.
//!
//! [`ServiceStation::push`] takes the traces that [`TraceAssembler::ready`](super::TraceAssembler::ready) shows, with their
//! [`Shape`]; [`ServiceStation::advance_to`] shows the steps that are over, [`ServiceStation::settle`] takes them as scored.
//!
//! - **A trace belongs to the step in which it ended**, as its root does then and a call that hangs is heard of no sooner. Of a
//!   step that has been shown it goes into the next one, so nothing is too late.
//! - **Many traces** of one service and step are a sample of whole traces, taken by a hash of their ids: which ones does not
//!   depend on the order in which they come. Of one trace at most [`MAX_OF_TRACE`] times of each part count.
//! - **Order** of the windows: by step, then by name of the service.
//!
//! Cost: a hash of two names and about two look-ups a span. Memory: 32 bytes a time, at most `max_entries` for each
//! service and open step, of which there are two or three. Fails where a trace has lost its spans: a call whose caller is
//! missing has no way in.

use std::{collections::BTreeMap, sync::Arc};

use faultline_core::{
    CallName, Part, RecordId, ServiceEntry, ServiceWindow, TraceWindow, Window, WindowKey, hash::StableHash,
};
use rustc_hash::FxHashMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    open::LONGEST_NANOS,
    present::{MAX_LEAP_NANOS, Present},
    shape::Shape,
};
use crate::error::Error;

/// The stream that every service belongs to.
pub const SERVICES: &str = "services";

/// Times of one trace that count for each part of one service.
pub const MAX_OF_TRACE: u32 = 64;

/// Steps that are open at a time; one more shows the earliest.
const MAX_OPEN_STEPS: usize = 128;

/// No service.
const NONE: u32 = u32::MAX;

/// How traces become what services did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ServiceConfig {
    /// Milliseconds of a step: what a service did within one is judged at once. Default 60000. Shorter steps tell sooner and
    /// know less; they should not be longer than `alerting.episode_gap_ms`, or each slow step is an alert of its own.
    pub step_ms: u64,
    /// Milliseconds of event time past its end after which a step is shown. Default 2000, which is more than traces
    /// with a root are waited for.
    pub grace_ms: u64,
    /// Times of one service and step that are kept, 32 bytes each; of more, whole traces are left out at random. Default
    /// 1024: about a hundred traces are enough to know a median.
    pub max_entries: usize,
    /// Services told apart; those of further ones are left out. Default 1000.
    pub max_services: usize,
    /// Operations and calls told apart, over all services; times of further ones are left out. Default 16384.
    pub max_names: usize,
}

impl Default for ServiceConfig {
    fn default() -> Self {
        Self { step_ms: 60_000, grace_ms: 2_000, max_entries: 1_024, max_services: 1_000, max_names: 16_384 }
    }
}

/// What the station has done so far, and what it holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ServiceStats {
    /// Traces taken.
    pub n_traces: u64,
    /// Traces that ended in a step that had been shown, and went into a later one.
    pub n_late: u64,
    /// Traces that started more than a day after all before them, left out until so many come that this is the present.
    pub n_strange: u64,
    /// Times that the input turned out to be more than a day behind the steps that had been shown.
    pub n_moved: u64,
    /// Times beyond [`MAX_OF_TRACE`] of one trace, left out.
    pub n_cut: u64,
    /// Spans of services that were too many to be told apart, or without a service.
    pub n_unnamed_services: u64,
    /// Times of operations or calls that were too many to be told apart, left out.
    pub n_unnamed: u64,
    /// Steps shown early because too many were open.
    pub n_released_early: u64,
    /// Windows shown.
    pub n_windows: u64,
    /// Steps open now.
    pub n_open_steps: usize,
    /// Operations and calls known.
    pub n_names: usize,
}

/// See the file's documentation.
#[derive(Debug)]
pub struct ServiceStation {
    config: ServiceConfig,
    step_nanos: i64,
    grace_nanos: i64,
    stream: Arc<str>,
    services: Vec<Arc<str>>,
    by_service: FxHashMap<Arc<str>, u32>,
    names: Vec<CallName>,
    by_hash: FxHashMap<u64, u32>,
    steps: BTreeMap<i64, Step>,
    /// The first step that has not been shown.
    next: i64,
    /// Newest start of a span that is believed.
    present: Present,
    shown: Vec<Shown>,
    spare: Vec<Vec<ServiceEntry>>,
    /// Of each span of the trace at hand its service and the hash of service and operation.
    spans: Vec<(u32, u64)>,
    /// Places of the bins that it has touched.
    touched: Vec<usize>,
    stats: ServiceStats,
}

#[derive(Debug, Default)]
struct Step {
    bins: Vec<Bin>,
    /// Place of each service among them.
    of_service: FxHashMap<u32, usize>,
}

/// What one service did within one step.
#[derive(Debug)]
struct Bin {
    service: u32,
    entries: Vec<ServiceEntry>,
    /// Of each trace that is kept its lot, and where its entries begin.
    traces: Vec<(u64, usize)>,
    /// Traces with a higher lot are left out.
    limit: u64,
    n_traces: u64,
    /// Number of the trace at hand, its lot, whether it has an entry, and how many of each part.
    at_hand: u64,
    lot: u64,
    is_listed: bool,
    n_of_part: [u32; 3],
}

/// A window that waits to be scored.
#[derive(Debug)]
struct Shown {
    key: WindowKey,
    start_unix_nano: i64,
    entries: Vec<ServiceEntry>,
    n_traces: u64,
}

impl ServiceStation {
    /// An empty station.
    ///
    /// # Errors
    /// When a limit is out of range.
    pub fn new(config: ServiceConfig) -> Result<Self, Error> {
        const MAX: usize = 1 << 24;
        const DAY_MS: u64 = 86_400_000;
        let refuse = |key, reason: &str| Err(Error::Config { key, reason: reason.to_owned() });
        if !(1_000..=DAY_MS).contains(&config.step_ms) {
            return refuse("step_ms", "must be from 1000 to 86400000");
        }
        if config.grace_ms > DAY_MS {
            return refuse("grace_ms", "must be at most 86400000");
        }
        // All times of one trace must fit.
        if !(256..=MAX).contains(&config.max_entries) {
            return refuse("max_entries", "must be from 256 to 16777216");
        }
        let limits = [("max_services", config.max_services), ("max_names", config.max_names)];
        if let Some((key, _)) = limits.into_iter().find(|(_, limit)| !(1..=MAX).contains(limit)) {
            return refuse(key, "must be from 1 to 16777216");
        }
        let nanos = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX).saturating_mul(1_000_000);
        Ok(Self {
            step_nanos: nanos(config.step_ms),
            grace_nanos: nanos(config.grace_ms),
            stream: Arc::from(SERVICES),
            services: Vec::new(),
            by_service: FxHashMap::default(),
            names: Vec::new(),
            by_hash: FxHashMap::default(),
            steps: BTreeMap::new(),
            next: i64::MIN,
            present: Present::default(),
            shown: Vec::new(),
            spare: Vec::new(),
            spans: Vec::new(),
            touched: Vec::new(),
            stats: ServiceStats::default(),
            config,
        })
    }

    /// Takes a trace and its shape.
    pub fn push(&mut self, trace: &TraceWindow<'_>, shape: &Shape) {
        if trace.spans.is_empty() || shape.self_nanos.len() != trace.spans.len() {
            return;
        }
        let (_, end) = trace.span_unix_nano();
        let newest = trace.spans.iter().map(|span| span.start_unix_nano).fold(i64::MIN, i64::max);
        if !self.present.admit(newest) {
            self.stats.n_strange += 1;
            return;
        }
        self.stats.n_traces += 1;
        // An absurd end would open a step that is never over.
        let newest = self.present.newest;
        let end = if end.saturating_sub(newest) > LONGEST_NANOS { newest } else { end };
        let ended = end.div_euclid(self.step_nanos);
        self.stats.n_late += u64::from(ended < self.next);
        self.identify(trace);
        self.file(ended.max(self.next), trace, shape);
        if self.steps.len() > MAX_OPEN_STEPS
            && let Some((&earliest, _)) = self.steps.first_key_value()
        {
            self.stats.n_released_early += 1;
            self.show_until(earliest.saturating_add(1));
        }
    }

    /// The input is complete up to this event time, as [`TraceAssembler::watermark_unix_nano`](super::TraceAssembler::watermark_unix_nano)
    /// tells: shows the steps that are over.
    pub fn advance_to(&mut self, watermark_unix_nano: i64) {
        let first_open = watermark_unix_nano.saturating_sub(self.grace_nanos).div_euclid(self.step_nanos);
        if self.next.saturating_sub(first_open).saturating_mul(self.step_nanos) > MAX_LEAP_NANOS {
            // The time that was reached was wrong: what is open is of it, and steps are shown anew.
            self.stats.n_moved += 1;
            self.show_until(i64::MAX);
            self.next = first_open;
            self.present = Present::default();
        }
        self.show_until(first_open);
    }

    /// Shows every step: the input has ended.
    pub fn finish(&mut self) {
        if let Some((&last, _)) = self.steps.last_key_value() {
            self.show_until(last.saturating_add(1));
        }
    }

    /// What there is to score. The same windows again until [`Self::settle`] is called.
    #[must_use]
    pub fn ready(&self) -> Vec<Window<'_>> {
        let windows = self.shown.iter().map(|shown| {
            Window::Service(ServiceWindow {
                key: &shown.key,
                start_unix_nano: shown.start_unix_nano,
                step_nanos: self.step_nanos,
                entries: &shown.entries,
                n_traces: shown.n_traces,
                names: &self.names,
                service: &shown.key.session,
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
        let n_done = n.min(self.shown.len());
        for mut shown in self.shown.drain(..n_done) {
            if self.spare.len() < MAX_SPARE {
                shown.entries.clear();
                self.spare.push(shown.entries);
            }
        }
    }

    /// Event time up to which every step has been shown, the least there is before the first: what alerts about services
    /// are to be resolved by. By the time of the traces, which is ahead of it, each step would be an episode of its own.
    #[must_use]
    pub fn watermark_unix_nano(&self) -> i64 {
        self.next.saturating_mul(self.step_nanos)
    }

    /// Counters and sizes.
    #[must_use]
    pub fn stats(&self) -> ServiceStats {
        ServiceStats { n_open_steps: self.steps.len(), n_names: self.names.len(), ..self.stats }
    }

    /// Finds the service and the hash of each span.
    fn identify(&mut self, trace: &TraceWindow<'_>) {
        self.spans.clear();
        for span in trace.spans {
            let (service, operation) = (trace.service(span), trace.operation(span));
            let idx = match self.by_service.get(service) {
                Some(&idx) => idx,
                None if service.is_empty() || self.services.len() >= self.config.max_services => NONE,
                None => {
                    let (name, idx): (Arc<str>, u32) = (Arc::from(service), self.services.len() as u32);
                    self.services.push(Arc::clone(&name));
                    self.by_service.insert(name, idx);
                    idx
                }
            };
            self.stats.n_unnamed_services += u64::from(idx == NONE);
            self.spans.push((idx, StableHash::new().text(service).text(operation).finish()));
        }
    }

    /// Puts the times of a trace where they belong.
    fn file(&mut self, step: i64, trace: &TraceWindow<'_>, shape: &Shape) {
        let Self { config, names, by_hash, steps, spare, spans, touched, stats, .. } = self;
        let lot = StableHash::new().text(&trace.key.session).finish();
        let step = steps.entry(step).or_default();
        touched.clear();
        let (into, passed) = (&mut *step, &mut *touched);
        let mut filing = Filing { config, names, by_hash, step: into, spare, touched: passed, stats, lot };
        for ((span, &(service, hash)), &own_nanos) in trace.spans.iter().zip(spans.iter()).zip(&shape.self_nanos) {
            filing.add(service, (Part::Own, hash, own_nanos, span.record), || trace.operation(span).to_owned());
            let caller = span.parent().and_then(|parent| Some((trace.spans.get(parent)?, spans.get(parent)?)));
            let Some((caller, &(caller_service, caller_hash))) = caller.filter(|caller| caller.1.0 != service) else {
                continue;
            };
            let nanos = caller.duration_nanos.saturating_sub(span.duration_nanos).max(0);
            let call = StableHash::new().number(caller_hash).number(hash).finish();
            let text = || {
                let (from, to) = (trace.service(caller), trace.service(span));
                format!("{from} {} > {to} {}", trace.operation(caller), trace.operation(span))
            };
            filing.add(service, (Part::Into, call, nanos, span.record), text);
            filing.add(caller_service, (Part::OutOf, call, nanos, span.record), text);
        }
        for &place in &*touched {
            step.bins[place].thin(config.max_entries);
        }
    }

    /// Shows the steps before `first_open`.
    fn show_until(&mut self, first_open: i64) {
        while let Some(first) = self.steps.first_entry().filter(|first| *first.key() < first_open) {
            let (step, Step { mut bins, .. }) = first.remove_entry();
            bins.sort_unstable_by(|one, other| {
                self.services[one.service as usize].cmp(&self.services[other.service as usize])
            });
            for Bin { service, entries, n_traces, .. } in bins {
                let session = Arc::clone(&self.services[service as usize]);
                self.stats.n_windows += 1;
                self.shown.push(Shown {
                    key: WindowKey { stream: Arc::clone(&self.stream), session },
                    start_unix_nano: step.saturating_mul(self.step_nanos),
                    entries,
                    n_traces,
                });
            }
        }
        self.next = self.next.max(first_open);
    }
}

/// Where the times of the trace at hand go.
struct Filing<'a> {
    config: &'a ServiceConfig,
    names: &'a mut Vec<CallName>,
    by_hash: &'a mut FxHashMap<u64, u32>,
    step: &'a mut Step,
    spare: &'a mut Vec<Vec<ServiceEntry>>,
    touched: &'a mut Vec<usize>,
    stats: &'a mut ServiceStats,
    lot: u64,
}

impl Filing<'_> {
    /// Adds a time of a service: its part, the hash of its name, how long it is, and its record.
    fn add(&mut self, service: u32, time: (Part, u64, i64, RecordId), text: impl FnOnce() -> String) {
        let (part, hash, nanos, record) = time;
        if service == NONE {
            return;
        }
        let at_hand = self.stats.n_traces;
        let Step { bins, of_service } = &mut *self.step;
        let place = *of_service.entry(service).or_insert_with(|| {
            bins.push(Bin::of(service, self.spare.pop().unwrap_or_default()));
            bins.len() - 1
        });
        let bin = &mut bins[place];
        if bin.at_hand != at_hand {
            bin.begin(at_hand, self.lot);
            self.touched.push(place);
        }
        if bin.lot > bin.limit {
            return;
        }
        let n_of_part = &mut bin.n_of_part[part as usize];
        if *n_of_part >= MAX_OF_TRACE {
            self.stats.n_cut += 1;
            return;
        }
        let name = match self.by_hash.get(&hash) {
            Some(&name) => name,
            None if self.names.len() >= self.config.max_names => {
                self.stats.n_unnamed += 1;
                return;
            }
            None => {
                let name = self.names.len() as u32;
                self.names.push(CallName { hash, text: Arc::from(text()) });
                self.by_hash.insert(hash, name);
                name
            }
        };
        *n_of_part += 1;
        if !std::mem::replace(&mut bin.is_listed, true) {
            bin.traces.push((bin.lot, bin.entries.len()));
        }
        let trace = (bin.traces.len() - 1) as u32;
        bin.entries.push(ServiceEntry { nanos, record, name, trace, part });
    }
}

impl Bin {
    fn of(service: u32, entries: Vec<ServiceEntry>) -> Self {
        Self {
            service,
            entries,
            traces: Vec::new(),
            limit: u64::MAX,
            n_traces: 0,
            at_hand: 0,
            lot: 0,
            is_listed: false,
            n_of_part: [0; 3],
        }
    }

    /// The entries that follow are those of another trace.
    fn begin(&mut self, trace: u64, lot: u64) {
        self.n_traces += 1;
        (self.at_hand, self.lot, self.is_listed, self.n_of_part) = (trace, lot, false, [0; 3]);
    }

    /// Leaves traces out until there are at most `max` entries: the limit is halved, so that it depends on all traces and
    /// not on their order.
    fn thin(&mut self, max: usize) {
        while self.entries.len() > max && self.limit > 0 {
            self.limit /= 2;
            let (mut n_traces, mut n_entries) = (0, 0);
            for idx in 0..self.traces.len() {
                let (lot, from) = self.traces[idx];
                let until = self.traces.get(idx + 1).map_or(self.entries.len(), |next| next.1);
                if lot > self.limit {
                    continue;
                }
                self.traces[n_traces] = (lot, n_entries);
                self.entries.copy_within(from..until, n_entries);
                let moved = n_entries..n_entries + (until - from);
                self.entries[moved.clone()].iter_mut().for_each(|entry| entry.trace = n_traces as u32);
                (n_traces, n_entries) = (n_traces + 1, moved.end);
            }
            self.traces.truncate(n_traces);
            self.entries.truncate(n_entries);
        }
    }
}

#[cfg(test)]
mod tests;
