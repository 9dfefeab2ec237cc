//! What a trace detector sees: the spans of one trace as a tree.

use std::sync::Arc;

use crate::{
    template::RecordId,
    window::{Culprit, ServiceIdx, WindowKey},
};

/// Index into [`TraceWindow::operations`].
pub type OperationIdx = u32;

/// One span as detectors see it. 40 bytes, copied freely.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanEntry {
    /// Start, nanoseconds since the epoch.
    pub start_unix_nano: i64,
    /// End minus start, never negative.
    pub duration_nanos: i64,
    /// Where the whole span is to be found.
    pub record: RecordId,
    /// Index in [`TraceWindow::spans`] of the span that called it, always less than its own; [`SpanEntry::NO_PARENT`] for a
    /// root, and for an orphan, whose caller never came.
    pub parent: u32,
    /// Which service it ran in.
    pub service: ServiceIdx,
    /// What it did.
    pub operation: OperationIdx,
    /// OpenTelemetry span kind: 0 unspecified, 1 internal, 2 server, 3 client, 4 producer, 5 consumer.
    pub kind: u8,
    /// Whether its status is an error.
    pub is_error: bool,
    /// Whether it names a caller that never came, or that would make a circle.
    pub is_orphan: bool,
}

impl SpanEntry {
    /// [`SpanEntry::parent`] of a span that has none.
    pub const NO_PARENT: u32 = u32::MAX;

    /// Index of its caller.
    #[must_use]
    pub fn parent(&self) -> Option<usize> {
        (self.parent != Self::NO_PARENT).then_some(self.parent as usize)
    }

    /// Its end.
    #[must_use]
    pub fn end_unix_nano(&self) -> i64 {
        self.start_unix_nano.saturating_add(self.duration_nanos)
    }
}

/// One trace, as complete as it will get.
///
/// Its key has `traces` as stream and the trace id as session.
#[derive(Clone, Copy, Debug)]
pub struct TraceWindow<'a> {
    /// Which trace.
    pub key: &'a WindowKey,
    /// Its spans, callers before those they call, those of one caller by their start. Not empty.
    pub spans: &'a [SpanEntry],
    /// Spans of it that were left out, because they were too many or came too late.
    pub n_dropped: u64,
    /// Service names by [`SpanEntry::service`].
    pub services: &'a [Arc<str>],
    /// Operation names by [`SpanEntry::operation`].
    pub operations: &'a [Arc<str>],
}

impl<'a> TraceWindow<'a> {
    /// Earliest start and latest end.
    #[must_use]
    pub fn span_unix_nano(&self) -> (i64, i64) {
        let start = self.spans.iter().map(|span| span.start_unix_nano).min();
        let end = self.spans.iter().map(SpanEntry::end_unix_nano).max();
        (start.unwrap_or(0), end.unwrap_or(0))
    }

    /// The span that a score names, at its start; its severity is that of an error where it is one.
    #[must_use]
    pub fn culprit(&self, idx: usize) -> Option<Culprit<'a>> {
        const ERROR: u8 = 17;
        let span = self.spans.get(idx)?;
        Some(Culprit {
            time_unix_nano: span.start_unix_nano,
            service: self.service(span),
            severity_number: if span.is_error { ERROR } else { 0 },
        })
    }

    /// Name of a span's service; empty when not known.
    #[must_use]
    pub fn service(&self, span: &SpanEntry) -> &'a str {
        self.services.get(span.service as usize).map_or("", |name| &**name)
    }

    /// Name of a span's operation.
    #[must_use]
    pub fn operation(&self, span: &SpanEntry) -> &'a str {
        self.operations.get(span.operation as usize).map_or("", |name| &**name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_takes_forty_bytes() {
        assert_eq!(size_of::<SpanEntry>(), 40);
    }
}
