//! A trace as a sequence of labels: what its spans do, in an order that does not depend on chance.
//!
//! A *label* is a service and an operation. The sequence has callers before those they call and all that one call led to
//! before the next call, as [`TraceWindow::spans`] has. Calls of one caller come by their start; those that overlap in time went
//! on side by side, and which of them began first means nothing, so they come by their label. Labels in this order,
//! each with its depth, are the *shape* of a trace: two traces of one shape made the same calls.
//!
//! Cost: a hash of two names a span, three passes without a comparison, a sort of the calls that overlap; no allocation once the
//! buffers have grown. Fails where clocks of services differ by more than a call takes: calls in a row then seem to
//! overlap, which costs what their order says.

use std::{cmp::Reverse, sync::Arc};

use faultline_core::{SpanEntry, TraceWindow, hash::StableHash};
use rustc_hash::FxHashMap;

use crate::{
    bytes::{Reader, Writer},
    language::Symbol,
};

/// The symbol of all labels that are not known.
pub(crate) const UNKNOWN: Symbol = Symbol::MAX;

/// The most labels that there may be.
pub(crate) const MAX_LABELS: usize = 65_000;

/// The most steps that a sequence may have.
pub(crate) const MAX_STEPS: usize = 4_096;

/// What a span does, and who.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Label {
    service: Arc<str>,
    operation: Arc<str>,
}

/// The labels that a model knows, the most frequent first; a symbol is an index into them.
#[derive(Debug, Default)]
pub(crate) struct Labels {
    all: Vec<Label>,
    by_hash: FxHashMap<u64, Symbol>,
}

/// A label while labels are counted.
struct Counted<'a> {
    names: (&'a str, &'a str),
    n_spans: u64,
    n_traces: u64,
    /// The last trace that had it.
    last: usize,
}

impl Labels {
    /// The `most` most frequent labels of some traces; and how many traces had one that no other had, or that is not
    /// among them: as often a label is to be expected that nobody has seen (Good and Turing).
    pub fn learn(traces: &[&TraceWindow<'_>], most: usize) -> (Self, usize) {
        let mut counts: FxHashMap<u64, Counted<'_>> = FxHashMap::default();
        for (idx, trace) in traces.iter().enumerate() {
            for span in trace.spans {
                let names = (trace.service(span), trace.operation(span));
                let counted =
                    counts.entry(hash_of(trace, span)).or_insert(Counted { names, n_spans: 0, n_traces: 0, last: idx });
                counted.n_traces += u64::from(counted.n_spans == 0 || counted.last != idx);
                counted.n_spans += 1;
                counted.last = idx;
            }
        }
        let mut kept: Vec<&Counted<'_>> = counts.values().collect();
        kept.sort_unstable_by_key(|counted| (Reverse(counted.n_spans), counted.names));
        kept.truncate(most.min(MAX_LABELS));
        let label = |counted: &&Counted<'_>| Label {
            service: Arc::from(counted.names.0),
            operation: Arc::from(counted.names.1),
        };
        let labels = Self::of(kept.iter().map(label).collect());
        let is_new = |hash: &u64| !labels.by_hash.contains_key(hash) || counts[hash].n_traces == 1;
        let has_new = |trace: &&&TraceWindow<'_>| trace.spans.iter().any(|span| is_new(&hash_of(trace, span)));
        let n_new = traces.iter().filter(has_new).count();
        (labels, n_new)
    }

    fn of(all: Vec<Label>) -> Self {
        let by_hash =
            all.iter().zip(0..).map(|(label, symbol)| (hash_of_names(&label.service, &label.operation), symbol));
        Self { by_hash: by_hash.collect(), all }
    }

    /// Number of labels.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Service and operation.
    pub fn name(&self, symbol: Symbol) -> String {
        self.all.get(usize::from(symbol)).map_or_else(
            || "a span that training did not hold".to_owned(),
            |label| format!("{} {}", label.service, label.operation),
        )
    }

    /// Writes them into a snapshot.
    pub fn write(&self, writer: &mut Writer) {
        writer.number(self.all.len() as u64);
        for label in &self.all {
            writer.text(&label.service);
            writer.text(&label.operation);
        }
    }

    /// Reads what [`Self::write`] wrote.
    pub fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let n_labels = reader.length(16).filter(|&n_labels| n_labels <= MAX_LABELS)?;
        let label = |_| Some(Label { service: reader.text()?, operation: reader.text()? });
        let all: Option<Vec<Label>> = (0..n_labels).map(label).collect();
        all.map(Self::of)
    }
}

fn hash_of(trace: &TraceWindow<'_>, span: &SpanEntry) -> u64 {
    hash_of_names(trace.service(span), trace.operation(span))
}

fn hash_of_names(service: &str, operation: &str) -> u64 {
    StableHash::new().text(service).text(operation).finish()
}

/// One span of a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// Its label, or [`UNKNOWN`].
    pub symbol: Symbol,
    /// Spans above it.
    pub depth: u16,
    /// The step that called it, or [`SpanEntry::NO_PARENT`].
    parent: u32,
    /// The step after all that it led to.
    pub end: u32,
    /// Index of its span in the trace.
    pub span: u32,
}

impl Step {
    /// The step that called it.
    pub fn parent(&self) -> Option<usize> {
        (self.parent != SpanEntry::NO_PARENT).then_some(self.parent as usize)
    }
}

/// A trace as a sequence. Made to be used again for the next trace.
#[derive(Debug, Default)]
pub(crate) struct Sequence {
    /// Its steps.
    pub steps: Vec<Step>,
    /// Whether the trace has more spans than there are steps.
    pub is_cut: bool,
    hashes: Vec<u64>,
    /// For no caller, then for each span as caller: where its calls begin in `calls`; and where the last ones end.
    first: Vec<u32>,
    calls: Vec<u32>,
    /// The step of each span.
    place: Vec<u32>,
    stack: Vec<u32>,
}

impl Sequence {
    /// Becomes the sequence of a trace, of its first `max_steps` spans where it has more; false where the trace has no spans or
    /// not all of them.
    pub fn take(&mut self, labels: &Labels, trace: &TraceWindow<'_>, max_steps: usize) -> bool {
        self.steps.clear();
        if trace.spans.is_empty() || trace.n_dropped > 0 {
            return false;
        }
        self.file_calls(trace);
        self.walk(labels, trace, max_steps.clamp(1, MAX_STEPS));
        self.is_cut = self.steps.len() < trace.spans.len();
        for idx in (0..self.steps.len()).rev() {
            if let Some(parent) = self.steps[idx].parent() {
                self.steps[parent].end = self.steps[parent].end.max(self.steps[idx].end);
            }
        }
        true
    }

    /// The shape of the trace, exactly: equal for traces that made the same calls, as far as their labels are known.
    pub fn shape(&self, to: &mut Vec<u32>) {
        to.clear();
        to.extend(self.steps.iter().map(|step| u32::from(step.depth) << 16 | u32::from(step.symbol)));
        if self.is_cut {
            // No depth is as large.
            to.push(u32::MAX);
        }
    }

    /// The calls of each caller by start, those that overlap by label.
    fn file_calls(&mut self, trace: &TraceWindow<'_>) {
        let (spans, n_spans) = (trace.spans, trace.spans.len());
        self.hashes.clear();
        self.hashes.extend(spans.iter().map(|span| hash_of(trace, span)));
        self.first.clear();
        self.first.resize(n_spans + 2, 0);
        for (idx, span) in spans.iter().enumerate() {
            self.first[caller(idx, span) + 1] += 1;
        }
        for at in 1..self.first.len() {
            self.first[at] += self.first[at - 1];
        }
        self.place.clear();
        self.place.extend_from_slice(&self.first);
        self.calls.clear();
        self.calls.resize(n_spans, 0);
        for (idx, span) in spans.iter().enumerate() {
            let place = &mut self.place[caller(idx, span)];
            self.calls[*place as usize] = idx as u32;
            *place += 1;
        }
        for ends in self.first.windows(2).filter(|ends| ends[1] - ends[0] > 1) {
            let mut calls = &mut self.calls[ends[0] as usize..ends[1] as usize];
            while let Some(&first) = calls.first() {
                let mut until = spans[first as usize].end_unix_nano();
                let is_apart = |&call: &u32| {
                    let span = &spans[call as usize];
                    let is_apart = span.start_unix_nano >= until;
                    until = until.max(span.end_unix_nano());
                    is_apart
                };
                let n_together = 1 + calls[1..].iter().position(is_apart).unwrap_or(calls.len() - 1);
                let (together, later) = std::mem::take(&mut calls).split_at_mut(n_together);
                together.sort_unstable_by_key(|&call| (self.hashes[call as usize], call));
                calls = later;
            }
        }
    }

    /// Writes the steps: callers first, and all that a call led to before the next. Nothing recurses.
    fn walk(&mut self, labels: &Labels, trace: &TraceWindow<'_>, max_steps: usize) {
        let calls_of = |caller: usize| self.first[caller] as usize..self.first[caller + 1] as usize;
        self.place.clear();
        self.place.resize(trace.spans.len(), SpanEntry::NO_PARENT);
        self.stack.clear();
        self.stack.extend(self.calls[calls_of(0)].iter().rev());
        while let Some(call) = self.stack.pop() {
            if self.steps.len() == max_steps {
                break;
            }
            let (idx, here) = (call as usize, self.steps.len() as u32);
            let parent = match caller(idx, &trace.spans[idx]).checked_sub(1) {
                Some(caller) => self.place[caller],
                None => SpanEntry::NO_PARENT,
            };
            let depth = self.steps.get(parent as usize).map_or(0, |above| above.depth + 1);
            let symbol = labels.by_hash.get(&self.hashes[idx]).copied().unwrap_or(UNKNOWN);
            self.place[idx] = here;
            self.steps.push(Step { symbol, depth, parent, end: here + 1, span: call });
            self.stack.extend(self.calls[calls_of(idx + 1)].iter().rev());
        }
    }
}

/// 0 for a span without a caller, else one more than the caller's index.
fn caller(idx: usize, span: &SpanEntry) -> usize {
    span.parent().filter(|&parent| parent < idx).map_or(0, |parent| parent + 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{TraceFixture, application};

    /// A trace of callers, services, starts and durations.
    fn trace(rows: &[(Option<u32>, &str, i64, i64)]) -> TraceFixture {
        TraceFixture::of("t", rows)
    }

    fn learn(fixtures: &[TraceFixture], most: usize) -> (Labels, usize) {
        let traces: Vec<TraceWindow<'_>> = fixtures.iter().map(TraceFixture::trace).collect();
        Labels::learn(&traces.iter().collect::<Vec<_>>(), most)
    }

    fn shape(labels: &Labels, fixture: &TraceFixture) -> Vec<u32> {
        let (mut sequence, mut shape) = (Sequence::default(), Vec::new());
        assert!(sequence.take(labels, &fixture.trace(), MAX_STEPS));
        sequence.shape(&mut shape);
        shape
    }

    #[test]
    fn calls_side_by_side_have_no_order_and_calls_in_a_row_have_one() {
        let row = [(None, "a", 0, 100), (Some(0), "b", 10, 20), (Some(0), "c", 40, 20)];
        let turned = [(None, "a", 0, 100), (Some(0), "c", 10, 20), (Some(0), "b", 40, 20)];
        let (labels, _) = learn(&[trace(&row)], 10);
        assert_ne!(shape(&labels, &trace(&row)), shape(&labels, &trace(&turned)));
        let beside = [(None, "a", 0, 100), (Some(0), "b", 10, 40), (Some(0), "c", 40, 20), (Some(0), "a", 70, 9)];
        let turned = [(None, "a", 0, 100), (Some(0), "c", 10, 40), (Some(0), "b", 40, 20), (Some(0), "a", 70, 9)];
        assert_eq!(shape(&labels, &trace(&beside)), shape(&labels, &trace(&turned)));
    }

    #[test]
    fn all_that_a_call_led_to_comes_before_the_next() {
        let rows = [
            (None, "a", 0, 100),
            (Some(0), "b", 10, 20),
            (Some(1), "c", 11, 5),
            (Some(0), "c", 40, 20),
            (None, "b", 200, 5),
        ];
        let fixture = trace(&rows);
        let (labels, _) = learn(std::slice::from_ref(&fixture), 10);
        let mut sequence = Sequence::default();
        assert!(sequence.take(&labels, &fixture.trace(), MAX_STEPS) && !sequence.is_cut);
        let ends: Vec<u32> = sequence.steps.iter().map(|step| step.end).collect();
        let depths: Vec<u16> = sequence.steps.iter().map(|step| step.depth).collect();
        let parents: Vec<Option<usize>> = sequence.steps.iter().map(Step::parent).collect();
        assert_eq!((ends, depths), (vec![4, 3, 3, 4, 5], vec![0, 1, 2, 1, 0]));
        assert_eq!(parents, [None, Some(0), Some(1), Some(0), None]);
        assert!(sequence.take(&labels, &fixture.trace(), 3) && sequence.is_cut && sequence.steps.len() == 3);
        let mut cut = fixture.clone();
        cut.n_dropped = 1;
        assert!(!sequence.take(&labels, &cut.trace(), 3), "not all spans");
        assert!(!sequence.take(&labels, &TraceFixture::empty("none").trace(), 3));
    }

    #[test]
    fn the_most_frequent_labels_are_known_and_survive_a_snapshot() {
        let fixtures: Vec<TraceFixture> = application(1, 200, 0.0).into_iter().map(|(trace, _)| trace).collect();
        let (labels, n_new) = learn(&fixtures, 100);
        assert_eq!((labels.len(), n_new), (12, 0), "six services and the calls that they make");
        let (few, n_new) = learn(&fixtures, 3);
        assert_eq!((few.len(), n_new), (3, 200), "all have labels beyond the three");
        assert_eq!(few.all, labels.all[..3]);
        let alone = trace(&[(None, "nobody", 0, 5)]);
        let (_, n_new) = learn(&[fixtures[0].clone(), fixtures[0].clone(), alone.clone()], 100);
        assert_eq!(n_new, 1, "one has a label of its own");
        assert_eq!(shape(&labels, &alone), [u32::from(UNKNOWN)]);
        let mut writer = Writer::new(b"faultline tests1");
        labels.write(&mut writer);
        let bytes = writer.finish();
        let read = Reader::open(b"faultline tests1", &bytes).ok().and_then(|mut reader| Labels::read(&mut reader));
        let read = read.expect("its own");
        assert_eq!((&read.all, &read.by_hash), (&labels.all, &labels.by_hash));
    }

    proptest! {
        #[test]
        fn every_span_is_one_step_and_what_a_call_led_to_lies_within_it(
            rows in proptest::collection::vec((any::<prop::sample::Index>(), 0..100i64, 0..50i64), 1..30),
            max_steps in 1..40usize,
        ) {
            let mut fixture = TraceFixture::empty("t");
            for (idx, (caller, start, duration)) in rows.iter().enumerate() {
                let caller = caller.index(idx + 1).checked_sub(1).map(|caller| caller as u32);
                fixture.push(caller, "a", &format!("{}", start % 3), (*start, *duration));
            }
            let mut sequence = Sequence::default();
            prop_assert!(sequence.take(&Labels::default(), &fixture.trace(), max_steps));
            let steps = &sequence.steps;
            prop_assert_eq!(steps.len(), rows.len().min(max_steps));
            prop_assert_eq!(sequence.is_cut, rows.len() > max_steps);
            let mut spans: Vec<u32> = steps.iter().map(|step| step.span).collect();
            spans.sort_unstable();
            spans.dedup();
            prop_assert_eq!(spans.len(), steps.len());
            for (idx, step) in steps.iter().enumerate() {
                prop_assert!(idx < step.end as usize && step.end as usize <= steps.len());
                let above = step.parent().map(|parent| (parent < idx, &steps[parent]));
                prop_assert!(above.is_none_or(|(is_before, above)| is_before && step.end <= above.end));
                prop_assert_eq!(usize::from(step.depth), above.map_or(0, |(_, above)| usize::from(above.depth) + 1));
                let caller = fixture.spans[step.span as usize].parent();
                prop_assert_eq!(caller, step.parent().map(|parent| steps[parent].span as usize));
            }
        }
    }
}
