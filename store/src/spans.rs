//! Spans as evidence shows them (station 10), found by [`lookup`](crate::lookup).

use std::collections::BTreeMap;

use arrow::{
    array::{AsArray, RecordBatch},
    compute::cast,
    datatypes::{DataType, Int32Type, Int64Type, TimestampNanosecondType, UInt64Type},
    error::ArrowError,
};
use faultline_core::RecordId;

use crate::lookup::{Shown, text_at};

/// A span as a person wants to see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// Its id.
    pub record_id: RecordId,
    /// Its trace, 32 hexadecimal digits.
    pub trace_id: String,
    /// Its id within the trace, 16 hexadecimal digits.
    pub span_id: String,
    /// Span that called it; none for a root.
    pub parent_span_id: Option<String>,
    /// Service that it ran in; empty where the source names none.
    pub service: String,
    /// Operation.
    pub name: String,
    /// OpenTelemetry span kind, 0 to 5; see [`Span::kind_name`].
    pub kind: i32,
    /// Start, event time.
    pub start_unix_nano: i64,
    /// End minus start, never negative.
    pub duration_nanos: i64,
    /// OpenTelemetry status, 0 to 2; see [`Span::status_name`].
    pub status_code: i32,
    /// What the service said of the status.
    pub status_message: Option<String>,
}

impl Span {
    /// `unspecified`, `internal`, `server`, `client`, `producer` or `consumer`.
    #[must_use]
    pub fn kind_name(&self) -> &'static str {
        match self.kind {
            1 => "internal",
            2 => "server",
            3 => "client",
            4 => "producer",
            5 => "consumer",
            _ => "unspecified",
        }
    }

    /// `unset`, `ok` or `error`.
    #[must_use]
    pub fn status_name(&self) -> &'static str {
        match self.status_code {
            1 => "ok",
            2 => "error",
            _ => "unset",
        }
    }
}

impl Shown for Span {
    const COLUMNS: &'static [&'static str] = &[
        "record_id",
        "trace_id",
        "span_id",
        "parent_span_id",
        "service_name",
        "name",
        "kind",
        "start_time_unix_nano",
        "duration_nanos",
        "status_code",
        "status_message",
    ];

    fn push(batch: &RecordBatch, found: &mut BTreeMap<RecordId, Self>) -> Result<(), ArrowError> {
        let record_id = batch.column(0).as_primitive::<UInt64Type>();
        let trace_id = batch.column(1).as_string::<i32>();
        let span_id = batch.column(2).as_string::<i32>();
        let parent_span_id = batch.column(3).as_string::<i32>();
        let service = cast(batch.column(4), &DataType::Utf8)?;
        let service = service.as_string::<i32>();
        let name = cast(batch.column(5), &DataType::Utf8)?;
        let name = name.as_string::<i32>();
        let kind = batch.column(6).as_primitive::<Int32Type>();
        let start = batch.column(7).as_primitive::<TimestampNanosecondType>();
        let duration_nanos = batch.column(8).as_primitive::<Int64Type>();
        let status_code = batch.column(9).as_primitive::<Int32Type>();
        let status_message = batch.column(10).as_string::<i32>();
        for row in 0..batch.num_rows() {
            let span = Self {
                record_id: record_id.value(row),
                trace_id: trace_id.value(row).to_owned(),
                span_id: span_id.value(row).to_owned(),
                parent_span_id: text_at(parent_span_id, row),
                service: text_at(service, row).unwrap_or_default(),
                name: name.value(row).to_owned(),
                kind: kind.value(row),
                start_unix_nano: start.value(row),
                duration_nanos: duration_nanos.value(row),
                status_code: status_code.value(row),
                status_message: text_at(status_message, row),
            };
            found.insert(span.record_id, span);
        }
        Ok(())
    }
}
