//! Spans in columns.

use std::sync::Arc;

use arrow::{
    array::{
        ArrayRef, Int32Array, Int32Builder, Int64Array, Int64Builder, RecordBatch, StringArray, StringBuilder,
        StringDictionaryBuilder, TimestampNanosecondArray, TimestampNanosecondBuilder, UInt32Array, UInt32Builder,
        UInt64Array,
    },
    datatypes::{DataType, Int32Type},
};

use super::{
    DictArray, batch_type, dictionary,
    log::{append_dict, given},
    timestamp,
};

batch_type! {
    /// Spans, one row each.
    SpanBatch, "span",
    {
        /// Position among everything accepted, set at station 3; 0 before.
        record_id: UInt64Array = DataType::UInt64, No;
        /// Trace id, 32 hexadecimal digits.
        trace_id: StringArray = DataType::Utf8, No;
        /// Span id, 16 hexadecimal digits.
        span_id: StringArray = DataType::Utf8, No;
        /// Span id of the caller; null for a root span.
        parent_span_id: StringArray = DataType::Utf8, Yes;
        /// Operation name.
        name: DictArray = dictionary(), No;
        /// OpenTelemetry span kind: 0 unspecified, 1 internal, 2 server, 3 client, 4 producer, 5 consumer.
        kind: Int32Array = DataType::Int32, No;
        /// `service.name` of the resource.
        service_name: DictArray = dictionary(), Yes;
        /// Start, event time.
        start_time_unix_nano: TimestampNanosecondArray = timestamp(), No;
        /// End, event time.
        end_time_unix_nano: TimestampNanosecondArray = timestamp(), No;
        /// End minus start; never negative.
        duration_nanos: Int64Array = DataType::Int64, No;
        /// OpenTelemetry status: 0 unset, 1 ok, 2 error.
        status_code: Int32Array = DataType::Int32, No;
        /// Status message.
        status_message: StringArray = DataType::Utf8, Yes;
        /// Attributes as a JSON object; null when there are none.
        attributes: StringArray = DataType::Utf8, Yes;
        /// Events as a JSON array of {time_unix_nano, name, attributes}; null when there are none.
        events: StringArray = DataType::Utf8, Yes;
        /// Links as a JSON array of {trace_id, span_id, attributes}; null when there are none.
        links: StringArray = DataType::Utf8, Yes;
        /// W3C trace state.
        trace_state: StringArray = DataType::Utf8, Yes;
        /// W3C trace flags.
        flags: UInt32Array = DataType::UInt32, Yes;
        /// Resource attributes as a JSON object.
        resource: DictArray = dictionary(), Yes;
        /// Name of the instrumentation scope.
        scope_name: DictArray = dictionary(), Yes;
    }
}

/// One span as a decoder hands it over. Empty text means "not given".
#[derive(Clone, Copy, Debug, Default)]
pub struct SpanRecord<'a> {
    /// 32 hexadecimal digits.
    pub trace_id: &'a str,
    /// 16 hexadecimal digits.
    pub span_id: &'a str,
    /// 16 hexadecimal digits.
    pub parent_span_id: &'a str,
    /// Operation name.
    pub name: &'a str,
    /// 0 to 5.
    pub kind: i32,
    /// `service.name`.
    pub service_name: &'a str,
    /// Nanoseconds since the epoch.
    pub start_time_unix_nano: i64,
    /// Nanoseconds since the epoch.
    pub end_time_unix_nano: i64,
    /// 0, 1 or 2.
    pub status_code: i32,
    /// Status message.
    pub status_message: &'a str,
    /// JSON object.
    pub attributes: &'a str,
    /// JSON array.
    pub events: &'a str,
    /// JSON array.
    pub links: &'a str,
    /// W3C trace state.
    pub trace_state: &'a str,
    /// W3C trace flags; 0 when not given.
    pub flags: u32,
    /// JSON object.
    pub resource: &'a str,
    /// Scope name.
    pub scope_name: &'a str,
}

/// Appends spans to columns.
pub struct SpanBatchBuilder {
    trace_id: StringBuilder,
    span_id: StringBuilder,
    parent_span_id: StringBuilder,
    name: StringDictionaryBuilder<Int32Type>,
    kind: Int32Builder,
    service_name: StringDictionaryBuilder<Int32Type>,
    start: TimestampNanosecondBuilder,
    end: TimestampNanosecondBuilder,
    duration: Int64Builder,
    status_code: Int32Builder,
    status_message: StringBuilder,
    attributes: StringBuilder,
    events: StringBuilder,
    links: StringBuilder,
    trace_state: StringBuilder,
    flags: UInt32Builder,
    resource: StringDictionaryBuilder<Int32Type>,
    scope_name: StringDictionaryBuilder<Int32Type>,
    n_records: usize,
}

impl Default for SpanBatchBuilder {
    fn default() -> Self {
        Self {
            trace_id: StringBuilder::new(),
            span_id: StringBuilder::new(),
            parent_span_id: StringBuilder::new(),
            name: StringDictionaryBuilder::new(),
            kind: Int32Builder::new(),
            service_name: StringDictionaryBuilder::new(),
            start: TimestampNanosecondBuilder::new().with_timezone("UTC"),
            end: TimestampNanosecondBuilder::new().with_timezone("UTC"),
            duration: Int64Builder::new(),
            status_code: Int32Builder::new(),
            status_message: StringBuilder::new(),
            attributes: StringBuilder::new(),
            events: StringBuilder::new(),
            links: StringBuilder::new(),
            trace_state: StringBuilder::new(),
            flags: UInt32Builder::new(),
            resource: StringDictionaryBuilder::new(),
            scope_name: StringDictionaryBuilder::new(),
            n_records: 0,
        }
    }
}

impl SpanBatchBuilder {
    /// Adds one span. An end before the start counts as a duration of zero.
    pub fn push(&mut self, span: &SpanRecord<'_>) {
        self.trace_id.append_value(span.trace_id);
        self.span_id.append_value(span.span_id);
        self.parent_span_id.append_option(given(span.parent_span_id));
        self.name.append_value(span.name);
        self.kind.append_value(span.kind);
        append_dict(&mut self.service_name, span.service_name);
        self.start.append_value(span.start_time_unix_nano);
        self.end.append_value(span.end_time_unix_nano);
        self.duration.append_value(span.end_time_unix_nano.saturating_sub(span.start_time_unix_nano).max(0));
        self.status_code.append_value(span.status_code);
        self.status_message.append_option(given(span.status_message));
        self.attributes.append_option(given(span.attributes));
        self.events.append_option(given(span.events));
        self.links.append_option(given(span.links));
        self.trace_state.append_option(given(span.trace_state));
        self.flags.append_option((span.flags != 0).then_some(span.flags));
        append_dict(&mut self.resource, span.resource);
        append_dict(&mut self.scope_name, span.scope_name);
        self.n_records += 1;
    }

    /// Spans so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.n_records
    }

    /// Whether no span has been added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.n_records == 0
    }

    /// The batch; the builder is empty afterwards.
    pub fn finish(&mut self) -> SpanBatch {
        let n_records = std::mem::take(&mut self.n_records);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(UInt64Array::from_value(0, n_records)),
            Arc::new(self.trace_id.finish()),
            Arc::new(self.span_id.finish()),
            Arc::new(self.parent_span_id.finish()),
            Arc::new(self.name.finish()),
            Arc::new(self.kind.finish()),
            Arc::new(self.service_name.finish()),
            Arc::new(self.start.finish()),
            Arc::new(self.end.finish()),
            Arc::new(self.duration.finish()),
            Arc::new(self.status_code.finish()),
            Arc::new(self.status_message.finish()),
            Arc::new(self.attributes.finish()),
            Arc::new(self.events.finish()),
            Arc::new(self.links.finish()),
            Arc::new(self.trace_state.finish()),
            Arc::new(self.flags.finish()),
            Arc::new(self.resource.finish()),
            Arc::new(self.scope_name.finish()),
        ];
        let batch = RecordBatch::try_new(SpanBatch::schema(), columns).expect("the builder fills the schema's columns");
        SpanBatch::try_new(batch).expect("the builder fills the schema's columns")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_that_ends_before_it_starts_lasts_no_time() {
        let mut builder = SpanBatchBuilder::default();
        builder.push(&SpanRecord { start_time_unix_nano: 9, end_time_unix_nano: 4, name: "GET", ..Default::default() });
        assert_eq!(builder.finish().duration_nanos().value(0), 0);
    }
}
