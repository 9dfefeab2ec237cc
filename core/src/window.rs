//! What a detector sees: a run of records, of points or of spans for one key (stations 6 and 7).
//!
//! Windows borrow from the windowing station's session table, so handing one to ten detectors copies nothing.
//! Labels have no field here on purpose: they never reach a detector.

use std::sync::Arc;

use crate::{
    series::{GroupWindow, SeriesWindow},
    service::ServiceWindow,
    template::{RecordId, TemplateId, TemplateTexts},
    trace::TraceWindow,
};

/// Which kind of telemetry a detector scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Signal {
    /// Log records, as runs of template ids.
    Logs,
    /// Metrics, one series at a time.
    Series,
    /// Metrics, all series of one instance side by side.
    Groups,
    /// Traces, as trees of spans.
    Traces,
    /// Traces, as what those of one step spent in and around one service.
    Services,
}

impl Signal {
    /// Lower-case name of the telemetry, as in labels and configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Logs => "logs",
            Self::Series | Self::Groups => "metrics",
            Self::Traces | Self::Services => "traces",
        }
    }
}

/// Identity of a window's run of records.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WindowKey {
    /// The stream the records belong to: what a parser preset or a deployment calls one system.
    pub stream: Arc<str>,
    /// The session within it: a trace id, a block id, a host.
    pub session: Arc<str>,
}

/// Index into [`LogWindow::services`].
pub type ServiceIdx = u32;

/// One log record as detectors see it. 32 bytes, copied freely.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// Its template.
    pub template: TemplateId,
    /// Event time, nanoseconds since the epoch.
    pub time_unix_nano: i64,
    /// Where the whole record is to be found.
    pub record: RecordId,
    /// Which service wrote it.
    pub service: ServiceIdx,
    /// OpenTelemetry severity number, 0 (unset) to 24.
    pub severity_number: u8,
    /// Whether its template was first written by a new version of its service, after the detectors were fitted.
    pub is_since_deploy: bool,
}

/// The most numbers of one record that are kept: the first ones.
pub const MAX_NUMBERS: usize = 4;

/// The numbers in the text of one record, in their order. 16 bytes, copied freely.
#[derive(Clone, Copy, Debug)]
pub struct RecordNumbers([f32; MAX_NUMBERS]);

impl Default for RecordNumbers {
    /// None. What is not a number marks the places that are not taken.
    fn default() -> Self {
        Self([f32::NAN; MAX_NUMBERS])
    }
}

impl RecordNumbers {
    /// The first [`MAX_NUMBERS`] of `numbers` that are finite; no more of them are asked for.
    #[must_use]
    pub fn of(numbers: impl IntoIterator<Item = f32>) -> Self {
        let mut own = Self::default();
        let finite = numbers.into_iter().filter(|number| number.is_finite());
        own.0.iter_mut().zip(finite).for_each(|(place, number)| *place = number);
        own
    }

    /// The numbers.
    #[must_use]
    pub fn as_slice(&self) -> &[f32] {
        let n_numbers = self.0.iter().position(|number| number.is_nan()).unwrap_or(MAX_NUMBERS);
        &self.0[..n_numbers]
    }
}

impl PartialEq for RecordNumbers {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}

/// The numbers in the texts of a window's records, beside them. Kept only where a detector reads them, and then one
/// entry for each record; [`Numbers::default`] is what there is otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Numbers<'a>(&'a [RecordNumbers]);

impl<'a> Numbers<'a> {
    /// Those of a window: an entry for each of its records, or no entry at all.
    #[must_use]
    pub fn new(numbers: &'a [RecordNumbers]) -> Self {
        Self(numbers)
    }

    /// Those of the window's record `idx`, at most [`MAX_NUMBERS`]; empty where it has none or none are kept.
    #[must_use]
    pub fn of(self, idx: usize) -> &'a [f32] {
        self.0.get(idx).map_or(&[][..], RecordNumbers::as_slice)
    }

    /// Those of the records from `first` on, an entry for each; empty where none are kept.
    #[must_use]
    pub fn tail(self, first: usize) -> &'a [RecordNumbers] {
        self.0.get(first..).unwrap_or_default()
    }
}

/// Whether more records of a session may follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowState {
    /// More records may come.
    Open,
    /// The session has ended: by its gap in event time, its length cap, or the end of the input.
    Closed,
}

/// The records of one session so far, of which the tail is new.
#[derive(Clone, Copy, Debug)]
pub struct LogWindow<'a> {
    /// Which session.
    pub key: &'a WindowKey,
    /// Its records in event-time order: context first, then the fresh ones.
    pub records: &'a [LogEntry],
    /// The numbers in their texts, where a detector reads them: sizes in bytes, durations in microseconds, others as
    /// written.
    pub numbers: Numbers<'a>,
    /// `records[fresh..]` have not been scored before; everything before is context.
    pub fresh: usize,
    /// How many still older records the length cap has cut off the front.
    pub n_dropped: u64,
    /// Whether more may come.
    pub state: WindowState,
    /// Whether the records have no session key: all that one service writes, in pieces that end at a pause or at the
    /// length cap. Where a piece begins and ends says nothing about the system.
    pub is_stream: bool,
    /// Service names by [`LogEntry::service`].
    pub services: &'a [Arc<str>],
    /// Template texts, for detectors that read words; a template may be missing.
    pub templates: &'a TemplateTexts,
}

impl<'a> LogWindow<'a> {
    /// The records that this window adds.
    #[must_use]
    pub fn fresh_records(&self) -> &'a [LogEntry] {
        &self.records[self.fresh..]
    }

    /// Event-time span of the fresh records (of all records when none is fresh): start and end, both inclusive.
    #[must_use]
    pub fn span_unix_nano(&self) -> (i64, i64) {
        let run = if self.fresh < self.records.len() { self.fresh_records() } else { self.records };
        match (run.first(), run.last()) {
            (Some(first), Some(last)) => (first.time_unix_nano, last.time_unix_nano),
            _ => (0, 0),
        }
    }

    /// Whether the session has ended.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.state == WindowState::Closed
    }

    /// The record that a score names.
    #[must_use]
    pub fn culprit(&self, idx: usize) -> Option<Culprit<'a>> {
        let record = self.records.get(idx)?;
        let service = self.services.get(record.service as usize);
        Some(Culprit {
            time_unix_nano: record.time_unix_nano,
            service: service.map_or("", |service| &**service),
            severity_number: record.severity_number,
        })
    }
}

/// What a detector sees.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Window<'a> {
    /// A run of log records.
    Log(LogWindow<'a>),
    /// A run of points of one series.
    Series(SeriesWindow<'a>),
    /// A run of points of all series of one instance.
    Group(GroupWindow<'a>),
    /// One trace.
    Trace(TraceWindow<'a>),
    /// One service within one step.
    Service(ServiceWindow<'a>),
}

/// The item of a window that decided a score, as an alert tells of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Culprit<'a> {
    /// Event time, nanoseconds since the epoch.
    pub time_unix_nano: i64,
    /// Service that it came from; empty when not known.
    pub service: &'a str,
    /// OpenTelemetry severity number, 0 where there is none.
    pub severity_number: u8,
}

impl<'a> Window<'a> {
    /// The kind of telemetry in it.
    #[must_use]
    pub fn signal(&self) -> Signal {
        match self {
            Self::Log(_) => Signal::Logs,
            Self::Series(_) => Signal::Series,
            Self::Group(_) => Signal::Groups,
            Self::Trace(_) => Signal::Traces,
            Self::Service(_) => Signal::Services,
        }
    }

    /// The log window, where it is one.
    #[must_use]
    pub fn as_log(&self) -> Option<&LogWindow<'a>> {
        if let Self::Log(window) = self { Some(window) } else { None }
    }

    /// The run of points of one series, where it is one.
    #[must_use]
    pub fn as_series(&self) -> Option<&SeriesWindow<'a>> {
        if let Self::Series(window) = self { Some(window) } else { None }
    }

    /// The run of points of one instance, where it is one.
    #[must_use]
    pub fn as_group(&self) -> Option<&GroupWindow<'a>> {
        if let Self::Group(window) = self { Some(window) } else { None }
    }

    /// The trace, where it is one.
    #[must_use]
    pub fn as_trace(&self) -> Option<&TraceWindow<'a>> {
        if let Self::Trace(window) = self { Some(window) } else { None }
    }

    /// What one service did within one step, where it is that.
    #[must_use]
    pub fn as_service(&self) -> Option<&ServiceWindow<'a>> {
        if let Self::Service(window) = self { Some(window) } else { None }
    }

    /// Which session, series, instance, trace or service it belongs to.
    #[must_use]
    pub fn key(&self) -> &'a WindowKey {
        match self {
            Self::Log(window) => window.key,
            Self::Series(window) => window.key,
            Self::Group(window) => window.key,
            Self::Trace(window) => window.key,
            Self::Service(window) => window.key,
        }
    }

    /// Event time of its first and of its last new item, both inclusive; of all items where none is new.
    #[must_use]
    pub fn span_unix_nano(&self) -> (i64, i64) {
        match self {
            Self::Log(window) => window.span_unix_nano(),
            Self::Series(window) => window.span_unix_nano(),
            Self::Group(window) => window.span_unix_nano(),
            Self::Trace(window) => window.span_unix_nano(),
            Self::Service(window) => window.span_unix_nano(),
        }
    }

    /// The item that a score names, where there is such an item.
    #[must_use]
    pub fn culprit(&self, idx: usize) -> Option<Culprit<'a>> {
        match self {
            Self::Log(window) => window.culprit(idx),
            Self::Series(window) => window.culprit(idx),
            Self::Group(window) => window.culprit(idx),
            Self::Trace(window) => window.culprit(idx),
            Self::Service(window) => window.culprit(idx),
        }
    }

    /// Whether nothing of its session has come before. A series, an instance or a service has no session: each
    /// of its windows counts.
    #[must_use]
    pub fn is_first(&self) -> bool {
        match self {
            Self::Log(window) => window.fresh == 0 && window.n_dropped == 0,
            Self::Series(_) | Self::Group(_) | Self::Trace(_) | Self::Service(_) => true,
        }
    }

    /// Whether nothing more of its session will come. A series or a service goes on; its windows are judged as they
    /// are.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        match self {
            Self::Log(window) => window.is_closed(),
            Self::Series(_) | Self::Group(_) | Self::Service(_) => false,
            Self::Trace(_) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_and_its_numbers_stay_small() {
        assert_eq!((size_of::<LogEntry>(), size_of::<RecordNumbers>()), (32, 16));
    }

    #[test]
    fn the_first_finite_numbers_are_kept_and_absence_is_empty() {
        let both = [RecordNumbers::of([1.0, f32::NAN, 2.0, f32::INFINITY, 3.0, 4.0, 5.0]), RecordNumbers::default()];
        let numbers = Numbers::new(&both);
        assert_eq!(numbers.of(0), [1.0, 2.0, 3.0, 4.0]);
        assert!(numbers.of(1).is_empty() && numbers.of(2).is_empty() && Numbers::default().of(0).is_empty());
        assert_eq!((numbers.tail(1).len(), numbers.tail(2).len(), Numbers::default().tail(1).len()), (1, 0, 0));
        assert!(both[1] == RecordNumbers::default() && both[0] != both[1]);
    }
}
