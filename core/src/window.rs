//! What a detector sees: a run of records for one key (stations 6 and 7).
//!
//! Windows borrow from the windowing station's session table, so handing one to ten detectors copies nothing.
//! Labels have no field here on purpose: they never reach a detector.

use std::sync::Arc;

use crate::template::{RecordId, TemplateId, TemplateTexts};

/// Which kind of telemetry a detector scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Signal {
    /// Log records, as runs of template ids.
    Logs,
}

impl Signal {
    /// Lower-case name as in labels and configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Logs => "logs",
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
}

/// What a detector sees.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Window<'a> {
    /// A run of log records.
    Log(LogWindow<'a>),
}

impl<'a> Window<'a> {
    /// The kind of telemetry in it.
    #[must_use]
    pub fn signal(&self) -> Signal {
        match self {
            Self::Log(_) => Signal::Logs,
        }
    }

    /// The log window, where it is one.
    #[must_use]
    pub fn as_log(&self) -> Option<&LogWindow<'a>> {
        match self {
            Self::Log(window) => Some(window),
        }
    }

    /// Which session, series or trace it belongs to.
    #[must_use]
    pub fn key(&self) -> &'a WindowKey {
        match self {
            Self::Log(window) => window.key,
        }
    }
}
