//! The table of open traces: found by id, listed by when they will be complete, with the spans of all of them in one
//! slab, chained per trace. So a trace costs no allocation and a span exactly its 56 bytes.

use std::collections::{BTreeSet, VecDeque};

use faultline_core::SpanEntry;
use rustc_hash::FxHashMap;

/// No span: the end of a chain.
const NONE: u32 = u32::MAX;
/// In the place of a slot: the trace has been told.
const TOLD: u32 = u32::MAX;
/// A span that lasts longer is waited for as if it lasted this long, an hour: one broken clock would otherwise keep its
/// trace open for ever.
pub(super) const LONGEST_NANOS: i64 = 3_600_000_000_000;

/// A span of an open trace. Until the trace is told, [`SpanEntry::parent`] chains it to the one that came before.
#[derive(Clone, Copy, Debug)]
pub(super) struct OpenSpan {
    pub entry: SpanEntry,
    /// 0 when it has none.
    pub id: u64,
    /// 0 for a root.
    pub parent_id: u64,
}

impl OpenSpan {
    /// Its end, as far as it is waited for.
    pub fn waited_for_until(&self) -> i64 {
        self.entry.start_unix_nano.saturating_add(self.entry.duration_nanos.min(LONGEST_NANOS))
    }
}

/// When a trace is complete, and what it may hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub gap_nanos: i64,
    pub root_grace_nanos: i64,
    pub max_spans_per_trace: usize,
    pub max_told: usize,
}

/// What is known of a trace id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    New,
    Open(u32),
    Told,
}

/// What remains of a trace when its spans have been taken out.
#[derive(Debug)]
pub(super) struct Closed {
    pub text: Option<Box<str>>,
    pub n_cut: u64,
}

#[derive(Debug)]
struct OpenTrace {
    id: u128,
    /// How the id is written, unless as the number.
    text: Option<Box<str>>,
    /// Latest end, as far as it is waited for.
    end: i64,
    /// The deadline that it is listed under: its own or an earlier one.
    listed: Option<i64>,
    n_cut: u64,
    n_spans: usize,
    /// Its span that came last.
    newest: u32,
    has_root: bool,
}

impl OpenTrace {
    /// It is complete when the watermark is past this.
    fn deadline(&self, limits: &Limits) -> i64 {
        self.end.saturating_add(if self.has_root { limits.root_grace_nanos } else { limits.gap_nanos })
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct OpenTraces {
    limits: Limits,
    /// Slot of each open trace, [`TOLD`] for those that were told lately.
    by_id: FxHashMap<u128, u32>,
    slots: Vec<OpenTrace>,
    free_slots: Vec<u32>,
    /// Each open trace once. A deadline that moves later is put right when it comes up, one that moves earlier at once.
    due: BTreeSet<(i64, u128)>,
    told: VecDeque<u128>,
    spans: Vec<OpenSpan>,
    /// First of the chain of free places in `spans`.
    free_span: u32,
    n_spans: usize,
}

impl OpenTraces {
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            by_id: FxHashMap::default(),
            slots: Vec::new(),
            free_slots: Vec::new(),
            due: BTreeSet::new(),
            told: VecDeque::new(),
            spans: Vec::new(),
            free_span: NONE,
            n_spans: 0,
        }
    }

    /// Open traces.
    pub fn len(&self) -> usize {
        self.due.len()
    }

    /// Their spans.
    pub fn n_spans(&self) -> usize {
        self.n_spans
    }

    pub fn find(&self, id: u128) -> Place {
        match self.by_id.get(&id) {
            None => Place::New,
            Some(&TOLD) => Place::Told,
            Some(&slot) => Place::Open(slot),
        }
    }

    /// Opens a new trace. A span must be added at once.
    pub fn open(&mut self, id: u128, text: Option<&str>) -> u32 {
        let trace = OpenTrace {
            id,
            text: text.map(Box::from),
            end: i64::MIN,
            listed: None,
            n_cut: 0,
            n_spans: 0,
            newest: NONE,
            has_root: false,
        };
        let slot = match self.free_slots.pop() {
            Some(slot) => {
                self.slots[slot as usize] = trace;
                slot
            }
            None => {
                self.slots.push(trace);
                (self.slots.len() - 1) as u32
            }
        };
        self.by_id.insert(id, slot);
        slot
    }

    /// Adds a span to an open trace, which is waited for from `until` on at the earliest; false when it is one too many for
    /// the trace.
    pub fn add(&mut self, slot: u32, span: OpenSpan, until: i64) -> bool {
        let trace = &mut self.slots[slot as usize];
        if trace.n_spans >= self.limits.max_spans_per_trace {
            trace.n_cut += 1;
            return false;
        }
        trace.n_spans += 1;
        trace.has_root |= span.parent_id == 0;
        trace.end = trace.end.max(until);

        let chained = OpenSpan { entry: SpanEntry { parent: trace.newest, ..span.entry }, ..span };
        if self.free_span == NONE {
            trace.newest = self.spans.len() as u32;
            self.spans.push(chained);
        } else {
            trace.newest = self.free_span;
            let place = &mut self.spans[self.free_span as usize];
            self.free_span = place.entry.parent;
            *place = chained;
        }
        self.n_spans += 1;

        let deadline = trace.deadline(&self.limits);
        if trace.listed.is_none_or(|listed| deadline < listed) {
            if let Some(listed) = trace.listed.replace(deadline) {
                self.due.remove(&(listed, trace.id));
            }
            self.due.insert((deadline, trace.id));
        }
        true
    }

    /// The trace that is complete first, by its id where several are at once, if it is by `until`.
    pub fn next_due(&mut self, until: i64) -> Option<u128> {
        loop {
            let &(listed, id) = self.due.first().filter(|(listed, _)| *listed <= until)?;
            let slot = self.by_id.get(&id).copied().filter(|slot| *slot != TOLD)?;
            let trace = &mut self.slots[slot as usize];
            let deadline = trace.deadline(&self.limits);
            if deadline == listed {
                return Some(id);
            }
            trace.listed = Some(deadline);
            self.due.pop_first();
            self.due.insert((deadline, id));
        }
    }

    /// Moves the spans of an open trace to `out`, the latest to come first, and remembers the trace as told.
    pub fn close(&mut self, id: u128, out: &mut Vec<OpenSpan>) -> Option<Closed> {
        let slot = self.by_id.get_mut(&id).filter(|slot| **slot != TOLD)?;
        let slot = std::mem::replace(slot, TOLD);
        let trace = &mut self.slots[slot as usize];
        if let Some(listed) = trace.listed.take() {
            self.due.remove(&(listed, id));
        }
        let mut at = trace.newest;
        while at != NONE {
            let span = &mut self.spans[at as usize];
            out.push(*span);
            at = span.entry.parent;
            if at == NONE {
                // The whole chain becomes free: what was free before hangs on its end.
                span.entry.parent = std::mem::replace(&mut self.free_span, trace.newest);
            }
        }
        self.n_spans -= trace.n_spans;
        let closed = Closed { text: trace.text.take(), n_cut: trace.n_cut };
        self.free_slots.push(slot);
        self.told.push_back(id);
        if self.told.len() > self.limits.max_told
            && let Some(forgotten) = self.told.pop_front()
        {
            self.by_id.remove(&forgotten);
        }
        Some(closed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_span_takes_less_than_64_bytes() {
        assert_eq!(size_of::<OpenSpan>(), 56);
    }

    #[test]
    fn places_of_spans_are_used_again() {
        let limits = Limits { gap_nanos: 10, root_grace_nanos: 1, max_spans_per_trace: 100, max_told: 1 };
        let mut traces = OpenTraces::new(limits);
        let entry = SpanEntry {
            start_unix_nano: 0,
            duration_nanos: 0,
            record: 0,
            parent: SpanEntry::NO_PARENT,
            service: 0,
            operation: 0,
            kind: 0,
            is_error: false,
            is_orphan: false,
        };
        let mut out = Vec::new();
        for round in 1..=50 {
            let slots = [traces.open(2 * round, None), traces.open(2 * round + 1, None)];
            for record in 0..40 {
                let entry = SpanEntry { record, ..entry };
                let span = OpenSpan { entry, id: record + 1, parent_id: 1 };
                assert!(traces.add(slots[record as usize % 2], span, span.waited_for_until()));
            }
            for id in [2 * round, 2 * round + 1] {
                out.clear();
                assert!(traces.close(id, &mut out).is_some());
                let records: Vec<u64> = out.iter().rev().map(|span| span.entry.record).collect();
                assert!(records.iter().copied().eq((0..40).filter(|record| u128::from(record % 2) == id % 2)));
            }
        }
        assert_eq!((traces.spans.len(), traces.slots.len(), traces.n_spans(), traces.len()), (40, 2, 0, 0));
        assert_eq!(traces.by_id.len(), 1, "one told trace is remembered");
    }
}
