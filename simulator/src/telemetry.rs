//! What comes out: spans and log records as plain values, which the binary encodes as OTLP.

use std::{borrow::Cow, fmt::Write, sync::Arc};

/// Everything that finished or was logged since the last call, in time order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Telemetry {
    /// Spans, in order of their end.
    pub spans: Vec<SimSpan>,
    /// Log records, in order of their time.
    pub logs: Vec<SimLog>,
}

/// OpenTelemetry span kinds that the simulation uses; the numbers are the protocol's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum SpanKind {
    /// A visit, seen from the service.
    Server = 2,
    /// A call, seen from the caller.
    Client = 3,
}

/// OpenTelemetry span status; the numbers are the protocol's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum SpanStatus {
    /// Nothing to complain about.
    Unset = 0,
    /// Failed.
    Error = 2,
}

/// An attribute value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Text.
    Text(Cow<'static, str>),
    /// Whole number.
    Int(i64),
}

/// An attribute.
pub type Attribute = (&'static str, Value);

/// One finished span. Add the wall-clock time of virtual 0 to its times.
#[derive(Clone, Debug, PartialEq)]
pub struct SimSpan {
    /// Trace id; never zero.
    pub trace_id: [u8; 16],
    /// Span id; never zero.
    pub span_id: [u8; 8],
    /// The caller's span; `None` for the user's request.
    pub parent_span_id: Option<[u8; 8]>,
    /// Operation.
    pub name: Arc<str>,
    /// Server or client.
    pub kind: SpanKind,
    /// `service.name` of the resource.
    pub service: Arc<str>,
    /// Virtual nanoseconds.
    pub start_ns: u64,
    /// Virtual nanoseconds.
    pub end_ns: u64,
    /// Whether it failed.
    pub status: SpanStatus,
    /// Why it failed; empty otherwise.
    pub status_message: String,
    /// Attributes by the semantic conventions: `http.*` or `db.*`, `server.address`, `error.type`.
    pub attributes: Vec<Attribute>,
    /// Exceptions.
    pub events: Vec<SimEvent>,
}

/// Something that happened within a span.
#[derive(Clone, Debug, PartialEq)]
pub struct SimEvent {
    /// Virtual nanoseconds.
    pub time_ns: u64,
    /// Name, such as `exception`.
    pub name: &'static str,
    /// Attributes.
    pub attributes: Vec<Attribute>,
}

/// One log record. Add the wall-clock time of virtual 0 to its time.
#[derive(Clone, Debug, PartialEq)]
pub struct SimLog {
    /// Virtual nanoseconds.
    pub time_ns: u64,
    /// OpenTelemetry severity number.
    pub severity_number: u8,
    /// `service.name` of the resource.
    pub service: Arc<str>,
    /// Message.
    pub body: String,
    /// Trace and span; `None` for what a service logs by the clock.
    pub trace: Option<([u8; 16], [u8; 8])>,
    /// Attributes.
    pub attributes: Vec<Attribute>,
}

impl SimLog {
    /// `INFO`, `WARN` or `ERROR`.
    #[must_use]
    pub fn severity_text(&self) -> &'static str {
        match self.severity_number {
            ..9 => "DEBUG",
            9..13 => "INFO",
            13..17 => "WARN",
            17.. => "ERROR",
        }
    }
}

impl Telemetry {
    /// Whether nothing happened.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty() && self.logs.is_empty()
    }

    /// Every field of every record as text, one a line: what the determinism tests compare.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for span in &self.spans {
            let _ = writeln!(text, "{span:?}");
        }
        for log in &self.logs {
            let _ = writeln!(text, "{log:?}");
        }
        text
    }
}
