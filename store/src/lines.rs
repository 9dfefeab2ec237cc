//! Log records as evidence shows them (station 10): the raw line, found by [`lookup`](crate::lookup).

use std::collections::BTreeMap;

use arrow::{
    array::{Array, AsArray, RecordBatch},
    compute::cast,
    datatypes::{DataType, TimestampNanosecondType, UInt64Type},
    error::ArrowError,
};
use faultline_core::{RecordId, TemplateId};

use crate::lookup::{Shown, text_at};

/// A log record as a person wants to see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its id.
    pub record_id: RecordId,
    /// Event time.
    pub time_unix_nano: i64,
    /// Service that wrote it; empty where the source names none.
    pub service: String,
    /// The line as it was read: `header || body`.
    pub raw: String,
    /// Its template.
    pub template_id: Option<TemplateId>,
    /// Its trace, 32 hexadecimal digits.
    pub trace_id: Option<String>,
}

impl Shown for Line {
    const COLUMNS: &'static [&'static str] =
        &["record_id", "time_unix_nano", "service_name", "body", "header", "template_id", "trace_id"];

    fn push(batch: &RecordBatch, found: &mut BTreeMap<RecordId, Self>) -> Result<(), ArrowError> {
        let record_id = batch.column(0).as_primitive::<UInt64Type>();
        let time = batch.column(1).as_primitive::<TimestampNanosecondType>();
        let service = cast(batch.column(2), &DataType::Utf8)?;
        let service = service.as_string::<i32>();
        let body = batch.column(3).as_string::<i32>();
        let header = batch.column(4).as_string::<i32>();
        let template_id = batch.column(5).as_primitive::<UInt64Type>();
        let trace_id = batch.column(6).as_string::<i32>();
        for row in 0..batch.num_rows() {
            let header = if header.is_null(row) { "" } else { header.value(row) };
            let line = Self {
                record_id: record_id.value(row),
                time_unix_nano: time.value(row),
                service: text_at(service, row).unwrap_or_default(),
                raw: format!("{header}{}", body.value(row)),
                template_id: (!template_id.is_null(row)).then(|| TemplateId(template_id.value(row))),
                trace_id: text_at(trace_id, row),
            };
            found.insert(line.record_id, line);
        }
        Ok(())
    }
}
