//! `LogRecord` → a row of `LogBatch` (station 2, the hot path).
//!
//! Cost: one pass over the record's bytes and one over its attributes' JSON text; no allocation. Not kept, because the
//! schema has no place for them: `dropped_attributes_count`, schema URLs, scope version and attributes. A severity
//! number outside 1 to 24 counts as not given.

use faultline_core::{LogBatchBuilder, LogRecord};

use super::{
    Cx, Scratch, Visit, nanos,
    value::{RecordError, Writer, close_object, hex_id},
    wire::{Fields, Value, WireError},
};

pub(super) struct Logs<'c> {
    pub(super) cx: Cx<'c>,
    pub(super) scratch: &'c mut Scratch,
    pub(super) builder: &'c mut LogBatchBuilder,
}

impl Visit for Logs<'_> {
    fn resource(&mut self, message: &[u8]) {
        self.cx.enter_resource(message);
    }

    fn scope(&mut self, message: &[u8]) {
        self.cx.enter_scope(message);
    }

    fn item(&mut self, message: &[u8]) -> Result<(), WireError> {
        if let Err(error) = self.cx.admit().and_then(|()| self.log_record(message)) {
            self.cx.reject(&error, message);
        }
        Ok(())
    }
}

impl Logs<'_> {
    fn log_record(&mut self, message: &[u8]) -> Result<(), RecordError> {
        let wire = |error| RecordError::Wire("log record", error);
        let mut writer = Writer::new(self.cx.limits, self.cx.caps);
        let Scratch { attributes, body, .. } = &mut *self.scratch;
        attributes.clear();
        let mut n_attributes = 0;
        let (mut time, mut observed_time, mut severity_number, mut flags) = (0, 0, 0, 0);
        let (mut severity_text, mut any_value, mut event_name) = (&[][..], &[][..], &[][..]);
        let (mut trace_id, mut span_id) = (&[][..], &[][..]);
        let mut fields = Fields::new(message);
        while let Some((number, value)) = fields.next_field().map_err(wire)? {
            match number {
                1 => time = value.fixed64(1).map_err(wire)?,
                2 => severity_number = value.int32(2).map_err(wire)?,
                3 => severity_text = value.bytes(3).map_err(wire)?,
                5 => any_value = value.bytes(5).map_err(wire)?,
                6 => {
                    let attribute = value.bytes(6).map_err(wire)?;
                    writer.attribute("attributes", attributes, &mut n_attributes, attribute)?;
                }
                8 => flags = value.fixed32(8).map_err(wire)?,
                9 => trace_id = value.bytes(9).map_err(wire)?,
                10 => span_id = value.bytes(10).map_err(wire)?,
                11 => observed_time = value.fixed64(11).map_err(wire)?,
                12 => event_name = value.bytes(12).map_err(wire)?,
                _ => {}
            }
        }
        let body = match only_string(any_value) {
            Some(text) => writer.text("body", text)?,
            None if any_value.is_empty() => "",
            None => {
                body.clear();
                writer.value("body", body, any_value, 0)?;
                simdutf8::basic::from_utf8(body).map_err(|_| RecordError::Utf8("body"))?
            }
        };
        let (mut trace_digits, mut span_digits) = ([0; 32], [0; 16]);
        let observed_time_unix_nano = nanos(observed_time);
        let time_unix_nano = match (nanos(time), observed_time_unix_nano) {
            (0, 0) => self.cx.received_unix_nano,
            (0, observed) => observed,
            (time, _) => time,
        };
        let record = LogRecord {
            time_unix_nano,
            observed_time_unix_nano,
            severity_number: if (1..=24).contains(&severity_number) { severity_number } else { 0 },
            severity_text: writer.text("severity_text", severity_text)?,
            service_name: &self.cx.resource.service_name,
            body,
            header: "",
            attributes: close_object("attributes", attributes)?,
            resource: &self.cx.resource.text,
            scope_name: &self.cx.scope_name,
            event_name: writer.text("event_name", event_name)?,
            flags,
            trace_id: hex_id::<16>("trace_id", trace_id, &mut trace_digits)?,
            span_id: hex_id::<8>("span_id", span_id, &mut span_digits)?,
        };
        self.builder.push(&record);
        Ok(())
    }
}

/// The text of an `AnyValue` that is exactly one string, which is what nearly every body is.
#[inline]
fn only_string(any_value: &[u8]) -> Option<&[u8]> {
    let mut fields = Fields::new(any_value);
    match fields.next_field() {
        Ok(Some((1, Value::Bytes(text)))) if fields.is_empty() => Some(text),
        _ => None,
    }
}
