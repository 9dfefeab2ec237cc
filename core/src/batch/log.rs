//! Log records in columns.

use std::sync::Arc;

use arrow::{
    array::{
        ArrayRef, BooleanArray, Int32Builder, ListArray, ListBuilder, RecordBatch, StringArray, StringBuilder,
        StringDictionaryBuilder, TimestampNanosecondArray, TimestampNanosecondBuilder, UInt32Array, UInt32Builder,
        UInt64Array, new_null_array,
    },
    datatypes::{DataType, Field, Int32Type},
};

use super::{DictArray, batch_type, dictionary, timestamp};

batch_type! {
    /// Log records. Decoders fill everything up to `span_id`; station 3 sets `record_id`; station 4 sets the last four.
    LogBatch, "log",
    {
        /// Position among everything accepted, set at station 3; 0 before.
        record_id: UInt64Array = DataType::UInt64, No;
        /// Event time: the record's own, else when it was observed.
        time_unix_nano: TimestampNanosecondArray = timestamp(), No;
        /// When a collector or faultline first saw it.
        observed_time_unix_nano: TimestampNanosecondArray = timestamp(), Yes;
        /// OpenTelemetry severity, 1 to 24; null when unset.
        severity_number: arrow::array::Int32Array = DataType::Int32, Yes;
        /// Severity as the source spelt it.
        severity_text: DictArray = dictionary(), Yes;
        /// `service.name` of the resource.
        service_name: DictArray = dictionary(), Yes;
        /// Message text; a structured body as JSON.
        body: StringArray = DataType::Utf8, No;
        /// What stood before the body on a raw line, so that the line is `header || body`; null for structured sources.
        header: StringArray = DataType::Utf8, Yes;
        /// Attributes as a JSON object; null when there are none.
        attributes: StringArray = DataType::Utf8, Yes;
        /// Resource attributes as a JSON object.
        resource: DictArray = dictionary(), Yes;
        /// Name of the instrumentation scope.
        scope_name: DictArray = dictionary(), Yes;
        /// Name that makes the record an OpenTelemetry event.
        event_name: DictArray = dictionary(), Yes;
        /// W3C trace flags.
        flags: UInt32Array = DataType::UInt32, Yes;
        /// Trace id, 32 hexadecimal digits.
        trace_id: StringArray = DataType::Utf8, Yes;
        /// Span id, 16 hexadecimal digits.
        span_id: StringArray = DataType::Utf8, Yes;
        /// Template of the body, from station 4.
        template_id: UInt64Array = DataType::UInt64, Yes;
        /// Variable parts of the body in order, from station 4.
        params: ListArray = DataType::List(Arc::new(Field::new("item", DataType::Utf8, true))), Yes;
        /// Session key, from station 4.
        session: StringArray = DataType::Utf8, Yes;
        /// Whether the session key only names what wrote the record, such as a service or a host, and so marks neither a
        /// beginning nor an end; from station 4.
        session_is_stream: BooleanArray = DataType::Boolean, Yes;
    }
}

/// One record as a decoder hands it over. Empty text means "not given".
#[derive(Clone, Copy, Debug, Default)]
pub struct LogRecord<'a> {
    /// Event time, nanoseconds since the epoch.
    pub time_unix_nano: i64,
    /// Observed time; 0 when not given.
    pub observed_time_unix_nano: i64,
    /// 1 to 24; 0 when not given.
    pub severity_number: i32,
    /// As the source spelt it.
    pub severity_text: &'a str,
    /// `service.name`.
    pub service_name: &'a str,
    /// Message text.
    pub body: &'a str,
    /// Text before the body on a raw line.
    pub header: &'a str,
    /// JSON object.
    pub attributes: &'a str,
    /// JSON object.
    pub resource: &'a str,
    /// Scope name.
    pub scope_name: &'a str,
    /// Event name.
    pub event_name: &'a str,
    /// W3C trace flags; 0 when not given.
    pub flags: u32,
    /// 32 hexadecimal digits.
    pub trace_id: &'a str,
    /// 16 hexadecimal digits.
    pub span_id: &'a str,
}

/// Appends records to columns. No allocation per record beyond the columns' own growth.
pub struct LogBatchBuilder {
    time: TimestampNanosecondBuilder,
    observed: TimestampNanosecondBuilder,
    severity_number: Int32Builder,
    severity_text: StringDictionaryBuilder<Int32Type>,
    service_name: StringDictionaryBuilder<Int32Type>,
    body: StringBuilder,
    header: StringBuilder,
    attributes: StringBuilder,
    resource: StringDictionaryBuilder<Int32Type>,
    scope_name: StringDictionaryBuilder<Int32Type>,
    event_name: StringDictionaryBuilder<Int32Type>,
    flags: UInt32Builder,
    trace_id: StringBuilder,
    span_id: StringBuilder,
    n_records: usize,
}

impl Default for LogBatchBuilder {
    fn default() -> Self {
        Self {
            time: TimestampNanosecondBuilder::new().with_timezone("UTC"),
            observed: TimestampNanosecondBuilder::new().with_timezone("UTC"),
            severity_number: Int32Builder::new(),
            severity_text: StringDictionaryBuilder::new(),
            service_name: StringDictionaryBuilder::new(),
            body: StringBuilder::new(),
            header: StringBuilder::new(),
            attributes: StringBuilder::new(),
            resource: StringDictionaryBuilder::new(),
            scope_name: StringDictionaryBuilder::new(),
            event_name: StringDictionaryBuilder::new(),
            flags: UInt32Builder::new(),
            trace_id: StringBuilder::new(),
            span_id: StringBuilder::new(),
            n_records: 0,
        }
    }
}

impl LogBatchBuilder {
    /// Adds one record.
    pub fn push(&mut self, record: &LogRecord<'_>) {
        self.time.append_value(record.time_unix_nano);
        self.observed.append_option((record.observed_time_unix_nano != 0).then_some(record.observed_time_unix_nano));
        self.severity_number.append_option((record.severity_number != 0).then_some(record.severity_number));
        append_dict(&mut self.severity_text, record.severity_text);
        append_dict(&mut self.service_name, record.service_name);
        self.body.append_value(record.body);
        self.header.append_option(given(record.header));
        self.attributes.append_option(given(record.attributes));
        append_dict(&mut self.resource, record.resource);
        append_dict(&mut self.scope_name, record.scope_name);
        append_dict(&mut self.event_name, record.event_name);
        self.flags.append_option((record.flags != 0).then_some(record.flags));
        self.trace_id.append_option(given(record.trace_id));
        self.span_id.append_option(given(record.span_id));
        self.n_records += 1;
    }

    /// Records so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.n_records
    }

    /// Whether no record has been added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.n_records == 0
    }

    /// The batch; the builder is empty afterwards.
    pub fn finish(&mut self) -> LogBatch {
        let n_records = std::mem::take(&mut self.n_records);
        let ids = UInt64Array::from_value(0, n_records);
        let params = new_null_array(LogBatch::schema().field(16).data_type(), n_records);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(ids),
            Arc::new(self.time.finish()),
            Arc::new(self.observed.finish()),
            Arc::new(self.severity_number.finish()),
            Arc::new(self.severity_text.finish()),
            Arc::new(self.service_name.finish()),
            Arc::new(self.body.finish()),
            Arc::new(self.header.finish()),
            Arc::new(self.attributes.finish()),
            Arc::new(self.resource.finish()),
            Arc::new(self.scope_name.finish()),
            Arc::new(self.event_name.finish()),
            Arc::new(self.flags.finish()),
            Arc::new(self.trace_id.finish()),
            Arc::new(self.span_id.finish()),
            new_null_array(&DataType::UInt64, n_records),
            params,
            new_null_array(&DataType::Utf8, n_records),
            new_null_array(&DataType::Boolean, n_records),
        ];
        let batch = RecordBatch::try_new(LogBatch::schema(), columns).expect("the builder fills the schema's columns");
        LogBatch::try_new(batch).expect("the builder fills the schema's columns")
    }
}

/// A builder for the `params` column.
#[must_use]
pub fn params_builder() -> ListBuilder<StringBuilder> {
    ListBuilder::new(StringBuilder::new())
}

pub(super) fn given(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

pub(super) fn append_dict(builder: &mut StringDictionaryBuilder<Int32Type>, text: &str) {
    match given(text) {
        Some(text) => builder.append_value(text),
        None => builder.append_null(),
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, StringArray};

    use super::*;
    use crate::batch::dict_value;

    #[test]
    fn empty_fields_become_nulls_and_given_ones_come_back() {
        let mut builder = LogBatchBuilder::default();
        builder.push(&LogRecord { time_unix_nano: 5, body: "started", service_name: "cart", ..LogRecord::default() });
        builder.push(&LogRecord { body: "", trace_id: "ab", ..LogRecord::default() });
        let batch = builder.finish().numbered_from(10);
        assert_eq!(batch.len(), 2);
        assert_eq!(batch.record_id().values(), &[10, 11]);
        assert_eq!(batch.body().value(0), "started");
        assert_eq!(dict_value(batch.service_name(), 0), Some("cart"));
        assert_eq!(dict_value(batch.service_name(), 1), None);
        assert_eq!(batch.trace_id().value(1), "ab");
        assert!(batch.template_id().is_null(0));
        assert!(builder.is_empty());
    }

    #[test]
    fn a_wrong_column_is_named() {
        let batch = LogBatchBuilder::default().finish();
        let error = batch.with_column("record_id", Arc::new(StringArray::from(Vec::<String>::new()))).unwrap_err();
        assert!(error.to_string().starts_with("log batch: column record_id"), "{error}");
    }
}
