//! Which JSON key is which protobuf field, for each message of OTLP 1.11 that is decoded.

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    String,
    Base64,
    HexId,
    Bool,
    Double,
    Fixed32,
    Fixed64,
    SFixed64,
    Int64,
    UInt32,
    UInt64,
    SInt32,
    Enum,
    Message(&'static Table),
    /// A message that is rejected alone when it is wrong.
    Record(&'static Table),
}

#[derive(Debug)]
pub(super) struct Field {
    pub(super) key: &'static str,
    pub(super) number: u32,
    pub(super) kind: Kind,
    pub(super) is_list: bool,
}

#[derive(Debug)]
pub(super) struct Table {
    pub(super) fields: &'static [Field],
    /// Whether this is a level of nesting: an array or key-value list.
    pub(super) nests: bool,
}

impl PartialEq for Table {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

const fn one(key: &'static str, number: u32, kind: Kind) -> Field {
    Field { key, number, kind, is_list: false }
}

const fn list(key: &'static str, number: u32, kind: Kind) -> Field {
    Field { key, number, kind, is_list: true }
}

const fn table(fields: &'static [Field]) -> Table {
    Table { fields, nests: false }
}

static ANY_VALUE: Table = table(&[
    one("stringValue", 1, Kind::String),
    one("boolValue", 2, Kind::Bool),
    one("intValue", 3, Kind::Int64),
    one("doubleValue", 4, Kind::Double),
    one("arrayValue", 5, Kind::Message(&ARRAY_VALUE)),
    one("kvlistValue", 6, Kind::Message(&KEY_VALUE_LIST)),
    one("bytesValue", 7, Kind::Base64),
]);
static ARRAY_VALUE: Table = Table { fields: &[list("values", 1, Kind::Message(&ANY_VALUE))], nests: true };
static KEY_VALUE_LIST: Table = Table { fields: &[list("values", 1, Kind::Message(&KEY_VALUE))], nests: true };
static KEY_VALUE: Table = table(&[one("key", 1, Kind::String), one("value", 2, Kind::Message(&ANY_VALUE))]);
static RESOURCE: Table = table(&[list("attributes", 1, Kind::Message(&KEY_VALUE))]);
static SCOPE: Table = table(&[one("name", 1, Kind::String)]);

pub(super) static LOGS: Table = table(&[list("resourceLogs", 1, Kind::Message(&RESOURCE_LOGS))]);
static RESOURCE_LOGS: Table =
    table(&[one("resource", 1, Kind::Message(&RESOURCE)), list("scopeLogs", 2, Kind::Message(&SCOPE_LOGS))]);
static SCOPE_LOGS: Table =
    table(&[one("scope", 1, Kind::Message(&SCOPE)), list("logRecords", 2, Kind::Record(&LOG_RECORD))]);
static LOG_RECORD: Table = table(&[
    one("timeUnixNano", 1, Kind::Fixed64),
    one("observedTimeUnixNano", 11, Kind::Fixed64),
    one("severityNumber", 2, Kind::Enum),
    one("severityText", 3, Kind::String),
    one("body", 5, Kind::Message(&ANY_VALUE)),
    list("attributes", 6, Kind::Message(&KEY_VALUE)),
    one("flags", 8, Kind::Fixed32),
    one("traceId", 9, Kind::HexId),
    one("spanId", 10, Kind::HexId),
    one("eventName", 12, Kind::String),
]);

pub(super) static TRACES: Table = table(&[list("resourceSpans", 1, Kind::Message(&RESOURCE_SPANS))]);
static RESOURCE_SPANS: Table =
    table(&[one("resource", 1, Kind::Message(&RESOURCE)), list("scopeSpans", 2, Kind::Message(&SCOPE_SPANS))]);
static SCOPE_SPANS: Table = table(&[one("scope", 1, Kind::Message(&SCOPE)), list("spans", 2, Kind::Record(&SPAN))]);
static SPAN: Table = table(&[
    one("traceId", 1, Kind::HexId),
    one("spanId", 2, Kind::HexId),
    one("traceState", 3, Kind::String),
    one("parentSpanId", 4, Kind::HexId),
    one("name", 5, Kind::String),
    one("kind", 6, Kind::Enum),
    one("startTimeUnixNano", 7, Kind::Fixed64),
    one("endTimeUnixNano", 8, Kind::Fixed64),
    list("attributes", 9, Kind::Message(&KEY_VALUE)),
    list("events", 11, Kind::Message(&EVENT)),
    list("links", 13, Kind::Message(&LINK)),
    one("status", 15, Kind::Message(&STATUS)),
    one("flags", 16, Kind::Fixed32),
]);
static EVENT: Table = table(&[
    one("timeUnixNano", 1, Kind::Fixed64),
    one("name", 2, Kind::String),
    list("attributes", 3, Kind::Message(&KEY_VALUE)),
]);
static LINK: Table = table(&[
    one("traceId", 1, Kind::HexId),
    one("spanId", 2, Kind::HexId),
    list("attributes", 4, Kind::Message(&KEY_VALUE)),
]);
static STATUS: Table = table(&[one("message", 2, Kind::String), one("code", 3, Kind::Enum)]);

pub(super) static METRICS: Table = table(&[list("resourceMetrics", 1, Kind::Message(&RESOURCE_METRICS))]);
static RESOURCE_METRICS: Table =
    table(&[one("resource", 1, Kind::Message(&RESOURCE)), list("scopeMetrics", 2, Kind::Message(&SCOPE_METRICS))]);
static SCOPE_METRICS: Table =
    table(&[one("scope", 1, Kind::Message(&SCOPE)), list("metrics", 2, Kind::Message(&METRIC))]);
static METRIC: Table = table(&[
    one("name", 1, Kind::String),
    one("unit", 3, Kind::String),
    one("gauge", 5, Kind::Message(&GAUGE)),
    one("sum", 7, Kind::Message(&SUM)),
    one("histogram", 9, Kind::Message(&HISTOGRAM)),
    one("exponentialHistogram", 10, Kind::Message(&EXPONENTIAL_HISTOGRAM)),
    one("summary", 11, Kind::Message(&SUMMARY)),
]);
static GAUGE: Table = table(&[list("dataPoints", 1, Kind::Record(&NUMBER_POINT))]);
static SUM: Table = table(&[
    list("dataPoints", 1, Kind::Record(&NUMBER_POINT)),
    one("aggregationTemporality", 2, Kind::Enum),
    one("isMonotonic", 3, Kind::Bool),
]);
static HISTOGRAM: Table =
    table(&[list("dataPoints", 1, Kind::Record(&HISTOGRAM_POINT)), one("aggregationTemporality", 2, Kind::Enum)]);
static EXPONENTIAL_HISTOGRAM: Table =
    table(&[list("dataPoints", 1, Kind::Record(&EXPONENTIAL_POINT)), one("aggregationTemporality", 2, Kind::Enum)]);
static SUMMARY: Table = table(&[list("dataPoints", 1, Kind::Record(&SUMMARY_POINT))]);
static NUMBER_POINT: Table = table(&[
    list("attributes", 7, Kind::Message(&KEY_VALUE)),
    one("startTimeUnixNano", 2, Kind::Fixed64),
    one("timeUnixNano", 3, Kind::Fixed64),
    one("asDouble", 4, Kind::Double),
    one("asInt", 6, Kind::SFixed64),
    list("exemplars", 5, Kind::Message(&EXEMPLAR)),
    one("flags", 8, Kind::UInt32),
]);
static HISTOGRAM_POINT: Table = table(&[
    list("attributes", 9, Kind::Message(&KEY_VALUE)),
    one("startTimeUnixNano", 2, Kind::Fixed64),
    one("timeUnixNano", 3, Kind::Fixed64),
    one("count", 4, Kind::Fixed64),
    one("sum", 5, Kind::Double),
    list("bucketCounts", 6, Kind::Fixed64),
    list("explicitBounds", 7, Kind::Double),
    list("exemplars", 8, Kind::Message(&EXEMPLAR)),
    one("flags", 10, Kind::UInt32),
    one("min", 11, Kind::Double),
    one("max", 12, Kind::Double),
]);
static EXPONENTIAL_POINT: Table = table(&[
    list("attributes", 1, Kind::Message(&KEY_VALUE)),
    one("startTimeUnixNano", 2, Kind::Fixed64),
    one("timeUnixNano", 3, Kind::Fixed64),
    one("count", 4, Kind::Fixed64),
    one("sum", 5, Kind::Double),
    one("scale", 6, Kind::SInt32),
    one("zeroCount", 7, Kind::Fixed64),
    one("positive", 8, Kind::Message(&BUCKETS)),
    one("negative", 9, Kind::Message(&BUCKETS)),
    one("flags", 10, Kind::UInt32),
    list("exemplars", 11, Kind::Message(&EXEMPLAR)),
    one("min", 12, Kind::Double),
    one("max", 13, Kind::Double),
]);
static BUCKETS: Table = table(&[one("offset", 1, Kind::SInt32), list("bucketCounts", 2, Kind::UInt64)]);
static SUMMARY_POINT: Table = table(&[
    list("attributes", 7, Kind::Message(&KEY_VALUE)),
    one("startTimeUnixNano", 2, Kind::Fixed64),
    one("timeUnixNano", 3, Kind::Fixed64),
    one("count", 4, Kind::Fixed64),
    one("sum", 5, Kind::Double),
    list("quantileValues", 6, Kind::Message(&VALUE_AT_QUANTILE)),
    one("flags", 8, Kind::UInt32),
]);
static VALUE_AT_QUANTILE: Table = table(&[one("quantile", 1, Kind::Double), one("value", 2, Kind::Double)]);
static EXEMPLAR: Table = table(&[
    list("filteredAttributes", 7, Kind::Message(&KEY_VALUE)),
    one("timeUnixNano", 2, Kind::Fixed64),
    one("asDouble", 3, Kind::Double),
    one("asInt", 6, Kind::SFixed64),
    one("spanId", 4, Kind::HexId),
    one("traceId", 5, Kind::HexId),
]);
