//! `Metric` → a row of `MetricBatch` for each of its points (station 2).
//!
//! Every kind is kept: gauge, sum, histogram, exponential histogram, summary, with exemplars as a JSON array of
//! `{time_unix_nano, value, trace_id, span_id, attributes}`. Not kept, because the schema has no place for them:
//! description, metadata, zero threshold, schema URLs, scope version and attributes. A point of a metric without a name
//! is a reject, and so is a histogram whose bucket counts and bounds do not fit together.

use faultline_core::{MetricBatchBuilder, MetricPoint};

use super::{
    Cx, Scratch, Visit, nanos,
    spans::{attributes_member, close_array},
    value::{RecordError, Writer, close_object, hex_id, push_f64, push_i64},
    wire::{Fields, Value, WireError},
};

const GAUGE: u32 = 5;
const SUM: u32 = 7;
const HISTOGRAM: u32 = 9;
const EXPONENTIAL_HISTOGRAM: u32 = 10;
const SUMMARY: u32 = 11;

/// Lists of one point.
#[derive(Default)]
pub(super) struct Lists {
    counts: Vec<u64>,
    negative_counts: Vec<u64>,
    bounds: Vec<f64>,
    values: Vec<f64>,
}

pub(super) struct Metrics<'c> {
    pub(super) cx: Cx<'c>,
    pub(super) scratch: &'c mut Scratch,
    pub(super) builder: &'c mut MetricBatchBuilder,
}

/// Reads one metric down to the frames of its points, exactly as far as [`Metrics::item`] relies on it.
pub(super) fn check_frames(metric: &[u8]) -> Result<(), WireError> {
    let (_, data) = shared(metric)?;
    let mut points = Fields::new(data);
    while let Some((number, value)) = points.next_field()? {
        if number == 1 {
            value.bytes(1)?;
        }
    }
    Ok(())
}

/// What the points of one metric share.
#[derive(Clone, Copy)]
struct Shared<'a> {
    data: u32,
    name: &'a [u8],
    unit: &'a [u8],
    temporality: &'static str,
    monotonic: Option<bool>,
}

/// The metric's own fields and the message that holds its points.
fn shared(metric: &[u8]) -> Result<(Shared<'_>, &[u8]), WireError> {
    let mut shared = Shared { data: 0, name: &[], unit: &[], temporality: "", monotonic: None };
    let mut data = &[][..];
    let mut fields = Fields::new(metric);
    while let Some((number, value)) = fields.next_field()? {
        match number {
            1 => shared.name = value.bytes(1)?,
            3 => shared.unit = value.bytes(3)?,
            GAUGE | SUM | HISTOGRAM | EXPONENTIAL_HISTOGRAM | SUMMARY => {
                shared.data = number;
                data = value.bytes(number)?;
            }
            _ => {}
        }
    }
    if let SUM | HISTOGRAM | EXPONENTIAL_HISTOGRAM = shared.data {
        let mut fields = Fields::new(data);
        while let Some((number, value)) = fields.next_field()? {
            match number {
                2 => {
                    shared.temporality = match value.int32(2)? {
                        1 => "delta",
                        2 => "cumulative",
                        _ => "",
                    };
                }
                3 if shared.data == SUM => shared.monotonic = Some(value.varint(3)? != 0),
                _ => {}
            }
        }
        if shared.data == SUM {
            shared.monotonic.get_or_insert(false);
        }
    }
    Ok((shared, data))
}

impl Visit for Metrics<'_> {
    fn resource(&mut self, message: &[u8]) {
        self.cx.enter_resource(message);
    }

    fn scope(&mut self, message: &[u8]) {
        self.cx.enter_scope(message);
    }

    fn item(&mut self, metric: &[u8]) -> Result<(), WireError> {
        let (shared, data) = shared(metric)?;
        let mut points = Fields::new(data);
        while let Some((number, value)) = points.next_field()? {
            if number == 1 {
                let point = value.bytes(1)?;
                if let Err(error) = self.cx.admit().and_then(|()| self.point(shared, point)) {
                    self.cx.reject(&error, point);
                }
            }
        }
        Ok(())
    }
}

impl Metrics<'_> {
    fn point(&mut self, shared: Shared<'_>, message: &[u8]) -> Result<(), RecordError> {
        if shared.name.is_empty() {
            return Err(RecordError::Inconsistent("metric name: required"));
        }
        let mut writer = Writer::new(self.cx.limits, self.cx.caps);
        let Scratch { attributes, events: exemplars, lists, .. } = &mut *self.scratch;
        attributes.clear();
        exemplars.clear();
        lists.counts.clear();
        lists.negative_counts.clear();
        lists.bounds.clear();
        lists.values.clear();
        let mut n_attributes = 0;
        let mut point = MetricPoint {
            name: writer.text("metric name", shared.name)?,
            unit: writer.text("unit", shared.unit)?,
            temporality: shared.temporality,
            monotonic: shared.monotonic,
            service_name: &self.cx.resource.service_name,
            resource: &self.cx.resource.text,
            scope_name: &self.cx.scope_name,
            ..MetricPoint::default()
        };
        let wire = |error| RecordError::Wire("metric point", error);
        let mut fields = Fields::new(message);
        while let Some((number, value)) = fields.next_field().map_err(wire)? {
            // Start and time have the same numbers in every kind of point.
            match number {
                2 => point.start_time_unix_nano = nanos(value.fixed64(2).map_err(wire)?),
                3 => point.time_unix_nano = nanos(value.fixed64(3).map_err(wire)?),
                _ => {
                    let part = match shared.data {
                        GAUGE | SUM => number_field(&mut point, number, value),
                        HISTOGRAM => histogram_field(&mut point, lists, number, value),
                        EXPONENTIAL_HISTOGRAM => exponential_field(&mut point, lists, number, value),
                        _ => summary_field(&mut point, lists, number, value),
                    };
                    match part.map_err(wire)? {
                        Part::Done => {}
                        Part::Attribute(attribute) => {
                            writer.attribute("attributes", attributes, &mut n_attributes, attribute)?;
                        }
                        Part::Exemplar(message) => exemplar(&mut writer, exemplars, message)?,
                    }
                }
            }
        }
        match shared.data {
            GAUGE => point.kind = "gauge",
            SUM => point.kind = "sum",
            HISTOGRAM => {
                point.kind = "histogram";
                point.count.get_or_insert(0);
                let fits = lists.counts.len() == lists.bounds.len() + 1;
                if !(fits || lists.counts.is_empty() && lists.bounds.is_empty()) {
                    let reason = "bucket_counts: must be one more than explicit_bounds, or both empty";
                    return Err(RecordError::Inconsistent(reason));
                }
            }
            EXPONENTIAL_HISTOGRAM => {
                point.kind = "exponential_histogram";
                point.count.get_or_insert(0);
                point.scale.get_or_insert(0);
                point.zero_count.get_or_insert(0);
            }
            _ => {
                point.kind = "summary";
                point.count.get_or_insert(0);
                point.sum.get_or_insert(0.0);
            }
        }
        if point.time_unix_nano == 0 {
            point.time_unix_nano = self.cx.received_unix_nano;
        }
        point.attributes = close_object("attributes", attributes)?;
        point.exemplars = close_array("exemplars", exemplars)?;
        point.bucket_counts = &lists.counts;
        point.negative_bucket_counts = &lists.negative_counts;
        point.bounds = &lists.bounds;
        point.quantile_values = &lists.values;
        self.builder.push(&point);
        Ok(())
    }
}

/// What a field of a point was, apart from what went into the point at once.
enum Part<'a> {
    Done,
    Attribute(&'a [u8]),
    Exemplar(&'a [u8]),
}

/// `NumberDataPoint`.
fn number_field<'a>(point: &mut MetricPoint<'_>, number: u32, value: Value<'a>) -> Result<Part<'a>, WireError> {
    match number {
        4 => (point.value_double, point.value_int) = (Some(value.double(4)?), None),
        #[allow(clippy::cast_possible_wrap, reason = "sfixed64")]
        6 => (point.value_double, point.value_int) = (None, Some(value.fixed64(6)? as i64)),
        5 => return value.bytes(5).map(Part::Exemplar),
        7 => return value.bytes(7).map(Part::Attribute),
        8 => point.flags = flags(value.varint(8)?),
        _ => {}
    }
    Ok(Part::Done)
}

/// `HistogramDataPoint`.
fn histogram_field<'a>(
    point: &mut MetricPoint<'_>,
    lists: &mut Lists,
    number: u32,
    value: Value<'a>,
) -> Result<Part<'a>, WireError> {
    match number {
        4 => point.count = Some(value.fixed64(4)?),
        5 => point.sum = Some(value.double(5)?),
        6 => fixed64s(6, value, |count| lists.counts.push(count))?,
        7 => fixed64s(7, value, |bits| lists.bounds.push(f64::from_bits(bits)))?,
        8 => return value.bytes(8).map(Part::Exemplar),
        9 => return value.bytes(9).map(Part::Attribute),
        10 => point.flags = flags(value.varint(10)?),
        11 => point.min = Some(value.double(11)?),
        12 => point.max = Some(value.double(12)?),
        _ => {}
    }
    Ok(Part::Done)
}

/// `ExponentialHistogramDataPoint`.
fn exponential_field<'a>(
    point: &mut MetricPoint<'_>,
    lists: &mut Lists,
    number: u32,
    value: Value<'a>,
) -> Result<Part<'a>, WireError> {
    match number {
        1 => return value.bytes(1).map(Part::Attribute),
        4 => point.count = Some(value.fixed64(4)?),
        5 => point.sum = Some(value.double(5)?),
        6 => point.scale = Some(value.sint32(6)?),
        7 => point.zero_count = Some(value.fixed64(7)?),
        8 => point.positive_offset = Some(buckets(value.bytes(8)?, &mut lists.counts)?),
        9 => point.negative_offset = Some(buckets(value.bytes(9)?, &mut lists.negative_counts)?),
        10 => point.flags = flags(value.varint(10)?),
        11 => return value.bytes(11).map(Part::Exemplar),
        12 => point.min = Some(value.double(12)?),
        13 => point.max = Some(value.double(13)?),
        _ => {}
    }
    Ok(Part::Done)
}

/// `SummaryDataPoint`.
fn summary_field<'a>(
    point: &mut MetricPoint<'_>,
    lists: &mut Lists,
    number: u32,
    value: Value<'a>,
) -> Result<Part<'a>, WireError> {
    match number {
        4 => point.count = Some(value.fixed64(4)?),
        5 => point.sum = Some(value.double(5)?),
        6 => {
            let (mut quantile, mut at) = (0.0, 0.0);
            let mut fields = Fields::new(value.bytes(6)?);
            while let Some((number, value)) = fields.next_field()? {
                match number {
                    1 => quantile = value.double(1)?,
                    2 => at = value.double(2)?,
                    _ => {}
                }
            }
            lists.bounds.push(quantile);
            lists.values.push(at);
        }
        7 => return value.bytes(7).map(Part::Attribute),
        8 => point.flags = flags(value.varint(8)?),
        _ => {}
    }
    Ok(Part::Done)
}

#[allow(clippy::cast_possible_truncation, reason = "protobuf keeps the low 32 bits of a uint32")]
fn flags(value: u64) -> u32 {
    value as u32
}

/// `Buckets` {offset 1, bucket_counts 2}: the counts go to `counts`, the offset comes back.
fn buckets(message: &[u8], counts: &mut Vec<u64>) -> Result<i32, WireError> {
    counts.clear();
    let mut offset = 0;
    let mut fields = Fields::new(message);
    while let Some((number, value)) = fields.next_field()? {
        match (number, value) {
            (1, value) => offset = value.sint32(1)?,
            (2, Value::Varint(count)) => counts.push(count),
            (2, value) => {
                let mut packed = Fields::new(value.bytes(2)?);
                while !packed.is_empty() {
                    counts.push(packed.varint()?);
                }
            }
            _ => {}
        }
    }
    Ok(offset)
}

/// A repeated 64-bit field, packed or not.
fn fixed64s(number: u32, value: Value<'_>, mut push: impl FnMut(u64)) -> Result<(), WireError> {
    if let Value::Fixed64(bits) = value {
        push(bits);
        return Ok(());
    }
    let mut packed = Fields::new(value.bytes(number)?);
    while !packed.is_empty() {
        push(packed.fixed64()?);
    }
    Ok(())
}

/// `Exemplar` {time 2, as_double 3, span_id 4, trace_id 5, as_int 6, filtered_attributes 7}.
fn exemplar(writer: &mut Writer<'_>, out: &mut Vec<u8>, message: &[u8]) -> Result<(), RecordError> {
    const FIELD: &str = "exemplars";
    let wire = |error| RecordError::Wire(FIELD, error);
    let (mut time, mut span_id, mut trace_id) = (0, &[][..], &[][..]);
    let mut number_value = None;
    let mut fields = Fields::new(message);
    while let Some((number, value)) = fields.next_field().map_err(wire)? {
        match number {
            2 => time = nanos(value.fixed64(2).map_err(wire)?),
            3 | 6 => number_value = Some((number, value.fixed64(number).map_err(wire)?)),
            4 => span_id = value.bytes(4).map_err(wire)?,
            5 => trace_id = value.bytes(5).map_err(wire)?,
            _ => {}
        }
    }
    out.extend_from_slice(if out.is_empty() { b"[{\"time_unix_nano\":" } else { b",{\"time_unix_nano\":" });
    push_i64(out, time);
    out.extend_from_slice(b",\"value\":");
    match number_value {
        Some((3, bits)) => push_f64(out, f64::from_bits(bits)),
        #[allow(clippy::cast_possible_wrap, reason = "sfixed64")]
        Some((_, bits)) => push_i64(out, bits as i64),
        None => out.extend_from_slice(b"null"),
    }
    let (mut trace_digits, mut span_digits) = ([0; 32], [0; 16]);
    let trace_id = hex_id::<16>("exemplars.trace_id", trace_id, &mut trace_digits)?;
    let span_id = hex_id::<8>("exemplars.span_id", span_id, &mut span_digits)?;
    for (key, id) in [(&b",\"trace_id\":\""[..], trace_id), (b",\"span_id\":\"", span_id)] {
        if !id.is_empty() {
            out.extend_from_slice(key);
            out.extend_from_slice(id.as_bytes());
            out.push(b'"');
        }
    }
    attributes_member(writer, FIELD, out, message, 7)?;
    out.push(b'}');
    Ok(())
}
