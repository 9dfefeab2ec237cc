//! What an alert shows of its records: raw lines, spans or metric points.
//!
//! Its signal says which. A record that the store holds no more is left out: the alert outlives it.

use std::collections::BTreeMap;

use faultline_core::RecordId;
use faultline_store::{Line, Point, PointValue, Span, rfc3339};
use serde::Serialize;
use serde_json::{Map, Number, Value};
use utoipa::ToSchema;

/// The name that the OpenTelemetry Collector's drain processor gives the text of a record's template.
const LOG_RECORD_TEMPLATE: &str = "log.record.template";

/// A raw line behind an alert.
#[derive(Debug, Serialize, ToSchema)]
pub struct EvidenceLine {
    /// Its record id, as in the SQL table `logs`.
    pub record_id: u64,
    /// Event time.
    pub time: String,
    /// See `time`.
    pub time_unix_nano: i64,
    /// Service that wrote it; empty where the source names none.
    pub service: String,
    /// The line as it was received.
    pub raw: String,
    /// Its template.
    pub template_id: Option<u64>,
    /// Text of its template, or of the one that this was merged into.
    pub template: Option<String>,
    /// The same as OpenTelemetry attributes: `log.record.template`.
    pub attributes: BTreeMap<String, String>,
    /// Its trace.
    pub trace_id: Option<String>,
    /// Whether it decided the score.
    pub culprit: bool,
}

impl EvidenceLine {
    /// `line` with the text of its template.
    pub(crate) fn new(line: Line, template: Option<String>, culprit: Option<RecordId>) -> Self {
        let attribute = template.iter().map(|text| (LOG_RECORD_TEMPLATE.to_owned(), text.clone()));
        Self {
            record_id: line.record_id,
            time: rfc3339(line.time_unix_nano),
            time_unix_nano: line.time_unix_nano,
            service: line.service,
            raw: line.raw,
            template_id: line.template_id.map(|id| id.0),
            attributes: attribute.collect(),
            template,
            trace_id: line.trace_id,
            culprit: culprit == Some(line.record_id),
        }
    }
}

/// A span behind an alert.
#[derive(Debug, Serialize, ToSchema)]
pub struct EvidenceSpan {
    /// Its record id, as in the SQL table `spans`.
    pub record_id: u64,
    /// Its trace, 32 hexadecimal digits.
    #[schema(example = "0af7651916cd43dd8448eb211c80319c")]
    pub trace_id: String,
    /// Its id within the trace, 16 hexadecimal digits.
    #[schema(example = "b7ad6b7169203331")]
    pub span_id: String,
    /// Span that called it, 16 hexadecimal digits; null for a root.
    pub parent_span_id: Option<String>,
    /// Service that it ran in; empty where the source names none.
    pub service: String,
    /// Operation.
    #[schema(example = "GET /cart")]
    pub name: String,
    /// `unspecified`, `internal`, `server`, `client`, `producer` or `consumer`.
    pub kind: &'static str,
    /// Start, event time.
    pub start: String,
    /// See `start`.
    pub start_unix_nano: i64,
    /// End minus start, nanoseconds; never negative.
    pub duration_nanos: i64,
    /// `unset`, `ok` or `error`.
    pub status_code: &'static str,
    /// What the service said of the status.
    pub status_message: Option<String>,
    /// Whether it decided the score.
    pub culprit: bool,
}

impl EvidenceSpan {
    pub(crate) fn new(span: Span, culprit: Option<RecordId>) -> Self {
        Self {
            record_id: span.record_id,
            kind: span.kind_name(),
            status_code: span.status_name(),
            trace_id: span.trace_id,
            span_id: span.span_id,
            parent_span_id: span.parent_span_id,
            service: span.service,
            name: span.name,
            start: rfc3339(span.start_unix_nano),
            start_unix_nano: span.start_unix_nano,
            duration_nanos: span.duration_nanos,
            status_message: span.status_message,
            culprit: culprit == Some(span.record_id),
        }
    }
}

/// A metric point behind an alert. A gauge or sum has a `value`, a histogram or summary `count` and `sum`.
#[derive(Debug, Serialize, ToSchema)]
pub struct EvidencePoint {
    /// Its record id, as in the SQL table `metrics`.
    pub record_id: u64,
    /// Time of the point, event time.
    pub time: String,
    /// See `time`.
    pub time_unix_nano: i64,
    /// Service that it is of; empty where the source names none.
    pub service: String,
    /// Name of the metric.
    #[schema(example = "http.server.request.duration")]
    pub name: String,
    /// UCUM unit of `value` and `sum`, such as `ms`; null where the source gives none.
    pub unit: Option<String>,
    /// `gauge`, `sum`, `histogram`, `exponential_histogram` or `summary`.
    pub kind: String,
    /// `delta`: since the point before; `cumulative`: since the counter began; null where it has no meaning.
    pub temporality: Option<String>,
    /// What tells its series from others of the metric, by name.
    #[schema(value_type = Object)]
    pub attributes: Map<String, Value>,
    /// What a gauge or sum says, in `unit`, an integer with all its digits; null for other kinds, where nothing was
    /// recorded, and for what JSON has no number for (NaN and the infinities).
    #[schema(value_type = Option<f64>)]
    pub value: Option<Number>,
    /// Observations in a histogram or summary; null for other kinds.
    pub count: Option<u64>,
    /// Sum of these, in `unit`; null for other kinds and where the source gives none.
    pub sum: Option<f64>,
    /// Whether it decided the score.
    pub culprit: bool,
}

impl EvidencePoint {
    pub(crate) fn new(point: Point, culprit: Option<RecordId>) -> Self {
        // The decoders write a JSON object or nothing.
        let attributes = point.attributes.and_then(|text| serde_json::from_str(&text).ok());
        Self {
            record_id: point.record_id,
            time: rfc3339(point.time_unix_nano),
            time_unix_nano: point.time_unix_nano,
            service: point.service,
            name: point.name,
            unit: point.unit,
            kind: point.kind,
            temporality: point.temporality,
            attributes: attributes.unwrap_or_default(),
            value: point.value.and_then(number),
            count: point.count,
            sum: point.sum,
            culprit: culprit == Some(point.record_id),
        }
    }
}

fn number(value: PointValue) -> Option<Number> {
    match value {
        PointValue::Int(value) => Some(value.into()),
        PointValue::Double(value) => Number::from_f64(value),
    }
}
