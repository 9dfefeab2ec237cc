//! `Span` → a row of `SpanBatch` (station 2).
//!
//! Events become a JSON array of `{time_unix_nano, name, attributes}`, links one of `{trace_id, span_id, attributes}`;
//! `attributes` is left out when there are none. A span without a valid trace id and span id is a reject, because
//! nothing could be joined to it. Not kept: dropped counts, a link's trace state, schema URLs, scope version and
//! attributes. A kind outside 0 to 5 or a status outside 0 to 2 counts as unspecified.

use faultline_core::{SpanBatchBuilder, SpanRecord};

use super::{
    Cx, Scratch, Visit, nanos,
    value::{RecordError, Writer, close_object, hex_id, push_i64, push_string},
    wire::{Fields, WireError},
};

pub(super) struct Spans<'c> {
    pub(super) cx: Cx<'c>,
    pub(super) scratch: &'c mut Scratch,
    pub(super) builder: &'c mut SpanBatchBuilder,
}

impl Visit for Spans<'_> {
    fn resource(&mut self, message: &[u8]) {
        self.cx.enter_resource(message);
    }

    fn scope(&mut self, message: &[u8]) {
        self.cx.enter_scope(message);
    }

    fn item(&mut self, message: &[u8]) -> Result<(), WireError> {
        if let Err(error) = self.cx.admit().and_then(|()| self.span(message)) {
            self.cx.reject(&error, message);
        }
        Ok(())
    }
}

impl Spans<'_> {
    fn span(&mut self, message: &[u8]) -> Result<(), RecordError> {
        let wire = |error| RecordError::Wire("span", error);
        let mut writer = Writer::new(self.cx.limits, self.cx.caps);
        let Scratch { attributes, events, links, .. } = &mut *self.scratch;
        for buffer in [&mut *attributes, &mut *events, &mut *links] {
            buffer.clear();
        }
        let mut n_attributes = 0;
        let (mut trace_id, mut span_id, mut parent_span_id) = (&[][..], &[][..], &[][..]);
        let (mut trace_state, mut name, mut status) = (&[][..], &[][..], &[][..]);
        let (mut kind, mut start, mut end, mut flags) = (0, 0, 0, 0);
        let mut fields = Fields::new(message);
        while let Some((number, value)) = fields.next_field().map_err(wire)? {
            match number {
                1 => trace_id = value.bytes(1).map_err(wire)?,
                2 => span_id = value.bytes(2).map_err(wire)?,
                3 => trace_state = value.bytes(3).map_err(wire)?,
                4 => parent_span_id = value.bytes(4).map_err(wire)?,
                5 => name = value.bytes(5).map_err(wire)?,
                6 => kind = value.int32(6).map_err(wire)?,
                7 => start = nanos(value.fixed64(7).map_err(wire)?),
                8 => end = nanos(value.fixed64(8).map_err(wire)?),
                9 => {
                    let attribute = value.bytes(9).map_err(wire)?;
                    writer.attribute("attributes", attributes, &mut n_attributes, attribute)?;
                }
                11 => event(&mut writer, events, value.bytes(11).map_err(wire)?)?,
                13 => link(&mut writer, links, value.bytes(13).map_err(wire)?)?,
                15 => status = value.bytes(15).map_err(wire)?,
                16 => flags = value.fixed32(16).map_err(wire)?,
                _ => {}
            }
        }
        let (mut status_code, mut status_message) = (0, &[][..]);
        let mut fields = Fields::new(status);
        while let Some((number, value)) = fields.next_field().map_err(wire)? {
            match number {
                2 => status_message = value.bytes(2).map_err(wire)?,
                3 => status_code = value.int32(3).map_err(wire)?,
                _ => {}
            }
        }
        let (start_time_unix_nano, end_time_unix_nano) = match (start, end) {
            (0, 0) => (self.cx.received_unix_nano, self.cx.received_unix_nano),
            (0, end) => (end, end),
            (start, 0) => (start, start),
            both => both,
        };
        let (mut trace_digits, mut span_digits, mut parent_digits) = ([0; 32], [0; 16], [0; 16]);
        let record = SpanRecord {
            trace_id: required("trace_id", hex_id::<16>("trace_id", trace_id, &mut trace_digits)?)?,
            span_id: required("span_id", hex_id::<8>("span_id", span_id, &mut span_digits)?)?,
            parent_span_id: hex_id::<8>("parent_span_id", parent_span_id, &mut parent_digits)?,
            name: writer.text("name", name)?,
            kind: if (0..=5).contains(&kind) { kind } else { 0 },
            service_name: &self.cx.resource.service_name,
            start_time_unix_nano,
            end_time_unix_nano,
            status_code: if (0..=2).contains(&status_code) { status_code } else { 0 },
            status_message: writer.text("status.message", status_message)?,
            attributes: close_object("attributes", attributes)?,
            events: close_array("events", events)?,
            links: close_array("links", links)?,
            trace_state: writer.text("trace_state", trace_state)?,
            flags,
            resource: &self.cx.resource.text,
            scope_name: &self.cx.scope_name,
        };
        self.builder.push(&record);
        Ok(())
    }
}

fn required<'a>(field: &'static str, id: &'a str) -> Result<&'a str, RecordError> {
    if id.is_empty() { Err(RecordError::IdMissing(field)) } else { Ok(id) }
}

/// `Span.Event` {time 1, name 2, attributes 3}.
fn event(writer: &mut Writer<'_>, out: &mut Vec<u8>, message: &[u8]) -> Result<(), RecordError> {
    const FIELD: &str = "events";
    let wire = |error| RecordError::Wire(FIELD, error);
    let (mut time, mut name) = (0, &[][..]);
    let mut fields = Fields::new(message);
    while let Some((number, value)) = fields.next_field().map_err(wire)? {
        match number {
            1 => time = nanos(value.fixed64(1).map_err(wire)?),
            2 => name = value.bytes(2).map_err(wire)?,
            _ => {}
        }
    }
    out.extend_from_slice(if out.is_empty() { b"[{\"time_unix_nano\":" } else { b",{\"time_unix_nano\":" });
    push_i64(out, time);
    out.extend_from_slice(b",\"name\":");
    push_string(out, writer.text("events.name", name)?.as_bytes());
    attributes_member(writer, FIELD, out, message, 3)?;
    out.push(b'}');
    Ok(())
}

/// `Span.Link` {trace_id 1, span_id 2, attributes 4}.
fn link(writer: &mut Writer<'_>, out: &mut Vec<u8>, message: &[u8]) -> Result<(), RecordError> {
    const FIELD: &str = "links";
    let wire = |error| RecordError::Wire(FIELD, error);
    let (mut trace_id, mut span_id) = (&[][..], &[][..]);
    let mut fields = Fields::new(message);
    while let Some((number, value)) = fields.next_field().map_err(wire)? {
        match number {
            1 => trace_id = value.bytes(1).map_err(wire)?,
            2 => span_id = value.bytes(2).map_err(wire)?,
            _ => {}
        }
    }
    let (mut trace_digits, mut span_digits) = ([0; 32], [0; 16]);
    out.extend_from_slice(if out.is_empty() { b"[{\"trace_id\":\"" } else { b",{\"trace_id\":\"" });
    out.extend_from_slice(hex_id::<16>("links.trace_id", trace_id, &mut trace_digits)?.as_bytes());
    out.extend_from_slice(b"\",\"span_id\":\"");
    out.extend_from_slice(hex_id::<8>("links.span_id", span_id, &mut span_digits)?.as_bytes());
    out.push(b'"');
    attributes_member(writer, FIELD, out, message, 4)?;
    out.push(b'}');
    Ok(())
}

/// Appends `,"attributes":{...}` with the repeated field `wanted` of `message`; nothing when there is none.
pub(super) fn attributes_member(
    writer: &mut Writer<'_>,
    field: &'static str,
    out: &mut Vec<u8>,
    message: &[u8],
    wanted: u32,
) -> Result<(), RecordError> {
    let wire = |error| RecordError::Wire(field, error);
    let before = out.len();
    out.extend_from_slice(b",\"attributes\":");
    let mut n_attributes = 0;
    let mut fields = Fields::new(message);
    while let Some((number, value)) = fields.next_field().map_err(wire)? {
        if number == wanted {
            writer.attribute(field, out, &mut n_attributes, value.bytes(wanted).map_err(wire)?)?;
        }
    }
    if n_attributes > 0 {
        out.push(b'}');
    } else {
        out.truncate(before);
    }
    Ok(())
}

/// Ends the array in `out`, if one was opened, and checks it.
pub(super) fn close_array<'a>(field: &'static str, out: &'a mut Vec<u8>) -> Result<&'a str, RecordError> {
    if !out.is_empty() {
        out.push(b']');
    }
    simdutf8::basic::from_utf8(out).map_err(|_| RecordError::Utf8(field))
}
