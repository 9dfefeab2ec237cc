//! Turns OTLP requests into batches (station 2).
//!
//! A [`Decoder`] reads one request, protobuf or JSON, and appends its records straight to the column builders of
//! `faultline_core`. Protobuf is the hot path: a flat [`wire`] reader hands out borrowed slices, attributes become JSON
//! text in a reused buffer, UTF-8 is checked once per text, and nothing is allocated per record beyond the columns' own
//! growth. JSON is first rewritten as protobuf ([`json`]), so both encodings share one mapping, one set of caps and one
//! notion of a bad record.
//!
//! **Whole or in part.** A request whose outer frames (resource, scope, record boundaries) cannot be read is an error
//! and adds nothing. Inside a sound frame a bad record (identifier of the wrong length, text that is not UTF-8, a value
//! nested too deeply, a cut field) becomes a [`Reject`] and the others are kept. A resource or scope that is bad rejects
//! the records under it.
//!
//! **`AnyValue` to JSON.** String, bool and int: themselves (ints with all 64 bits). Double: a JSON number that reads
//! back to the same bits; NaN and the infinities: the strings `"NaN"`, `"Infinity"`, `"-Infinity"`, as in OTLP/JSON.
//! Bytes: a string in base64. Array and key-value list: array and object, in order. Unset: `null`. A string body is
//! itself; any other body is its JSON text.
//!
//! **Times.** A log without `time_unix_nano` takes its observed time, else the time of receipt. A span with only one end
//! has no duration; with none it is placed at receipt. A metric point without time is placed at receipt. Times beyond
//! the year 2262 do not fit and count as not given.
//!
//! Differs from protobuf's letter in one point: when a field that may occur once occurs twice, the last (for resource and
//! scope: the first) is taken and nested messages are not merged. No encoder writes that.

pub mod json;
mod logs;
mod metrics;
mod spans;
mod value;
pub mod wire;

use faultline_core::{Batch, Classified, Domain, LogBatchBuilder, MetricBatchBuilder, Reject, SpanBatchBuilder};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::{
    value::{RecordError, Writer},
    wire::{Fields, WireError},
};

/// Which of the three OTLP signals a request carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OtlpSignal {
    /// `ExportLogsServiceRequest`, `LogsData`.
    Logs,
    /// `ExportTraceServiceRequest`, `TracesData`.
    Traces,
    /// `ExportMetricsServiceRequest`, `MetricsData`.
    Metrics,
}

impl OtlpSignal {
    /// What one record of it is called in OTLP and in metric names.
    #[must_use]
    pub fn records(self) -> &'static str {
        match self {
            Self::Logs => "log_records",
            Self::Traces => "spans",
            Self::Metrics => "metric_points",
        }
    }
}

/// How a request is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// `application/x-protobuf`.
    Protobuf,
    /// `application/json`.
    Json,
}

/// Caps that bound what one record may cost. Whoever runs faultline raises one when its counter
/// (`faultline_decode_capped_total{cap=...}`) moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DecodeLimits {
    /// Attributes kept on each resource, record, span event, link or point; further ones are dropped and counted.
    /// Default 1024.
    pub max_attributes: usize,
    /// Bytes kept of each string, body and byte value; the rest is cut off at a character and counted. Default 1 MiB.
    pub max_string_bytes: usize,
    /// Levels of arrays and key-value lists within a value; a record that nests deeper is rejected. Default 64, at most
    /// 128.
    pub max_nesting: usize,
    /// Records taken from one request; further ones are rejected, so that empty records cannot swell a small request.
    /// Default 1,000,000.
    pub max_records: usize,
}

impl Default for DecodeLimits {
    fn default() -> Self {
        Self { max_attributes: 1024, max_string_bytes: 1 << 20, max_nesting: 64, max_records: 1_000_000 }
    }
}

/// Nesting beyond which even configuration does not go: the conversion is recursive.
pub const MAX_NESTING: usize = 128;

/// A request that cannot be read at all.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Not the protobuf message of this signal.
    #[error("the request is not a protobuf message of this signal")]
    Protobuf(#[source] WireError),
    /// Not JSON, or not the JSON of this signal.
    #[error("the request is not OTLP JSON of this signal")]
    Json(#[source] serde_json::Error),
    /// JSON is UTF-8 by definition.
    #[error("the request is not UTF-8")]
    Utf8,
}

impl Classified for DecodeError {
    fn domain(&self) -> Domain {
        Domain::User
    }

    fn retryable(&self) -> bool {
        false
    }
}

/// How often a cap has bitten.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CapCounts {
    /// Attributes dropped beyond `max_attributes`.
    pub attributes_dropped: u64,
    /// Texts cut at `max_string_bytes`.
    pub strings_truncated: u64,
    /// Records rejected beyond `max_nesting`.
    pub nested_too_deep: u64,
    /// Records rejected beyond `max_records`.
    pub records_over: u64,
}

impl CapCounts {
    /// Each counter with the key of its cap.
    #[must_use]
    pub fn by_cap(&self) -> [(&'static str, u64); 4] {
        [
            ("max_attributes", self.attributes_dropped),
            ("max_string_bytes", self.strings_truncated),
            ("max_nesting", self.nested_too_deep),
            ("max_records", self.records_over),
        ]
    }
}

/// What became of everything pushed since the last [`Decoder::finish`].
#[derive(Debug)]
pub struct Decoded {
    /// The good records.
    pub batch: Batch,
    /// The first bad records, at most [`MAX_KEPT_REJECTS`].
    pub rejects: Vec<Reject>,
    /// All bad records.
    pub n_rejected: u64,
    /// How often caps have bitten.
    pub caps: CapCounts,
}

/// Rejects kept per batch with their bytes; the others are only counted.
pub const MAX_KEPT_REJECTS: usize = 1000;
/// Bytes kept of a reject.
pub const MAX_REJECT_BYTES: usize = 4096;
/// Scratch beyond this is given back after a batch, so that one huge record does not hold memory for ever.
const MAX_IDLE_SCRATCH_BYTES: usize = 1 << 20;

/// Decodes requests; holds buffers that are reused from one to the next, so keep one per thread or pool a few.
#[derive(Default)]
pub struct Decoder {
    limits: DecodeLimits,
    logs: LogBatchBuilder,
    spans: SpanBatchBuilder,
    metrics: MetricBatchBuilder,
    scratch: Scratch,
    rejects: Rejects,
    caps: CapCounts,
    transcoded: Vec<u8>,
}

/// Buffers that records are put together in.
#[derive(Default)]
struct Scratch {
    attributes: Vec<u8>,
    body: Vec<u8>,
    events: Vec<u8>,
    links: Vec<u8>,
    lists: metrics::Lists,
}

#[derive(Default)]
struct Rejects {
    kept: Vec<Reject>,
    total: u64,
}

impl Rejects {
    fn add(&mut self, reason: impl FnOnce() -> String, raw: &[u8]) {
        self.total += 1;
        if self.kept.len() < MAX_KEPT_REJECTS {
            let raw = raw[..raw.len().min(MAX_REJECT_BYTES)].to_vec();
            self.kept.push(Reject { reason: reason(), raw });
        }
    }
}

/// What the three signal decoders share while one request is walked.
struct Cx<'c> {
    limits: &'c DecodeLimits,
    caps: &'c mut CapCounts,
    rejects: &'c mut Rejects,
    received_unix_nano: i64,
    /// Original text of each record of a JSON request, in order.
    originals: &'c [&'c str],
    n_seen: usize,
    resource: Resource,
    scope_name: String,
    /// Why every record under this resource or scope is bad.
    resource_error: Option<RecordError>,
    scope_error: Option<RecordError>,
}

#[derive(Default)]
struct Resource {
    text: String,
    service_name: String,
}

impl Cx<'_> {
    /// Counts a record in; an error when this one must not be decoded.
    #[inline]
    fn admit(&mut self) -> Result<(), RecordError> {
        self.n_seen += 1;
        if self.n_seen > self.limits.max_records {
            return Err(RecordError::TooManyRecords(self.limits.max_records));
        }
        match (&self.resource_error, &self.scope_error) {
            (None, None) => Ok(()),
            (Some(error), _) | (None, Some(error)) => Err(error.clone()),
        }
    }

    /// Notes that the record just admitted is bad.
    #[cold]
    fn reject(&mut self, error: &RecordError, raw: &[u8]) {
        match error {
            RecordError::TooDeep { .. } => self.caps.nested_too_deep += 1,
            RecordError::TooManyRecords(_) => self.caps.records_over += 1,
            _ => {}
        }
        let raw = self.originals.get(self.n_seen - 1).map_or(raw, |text| text.as_bytes());
        self.rejects.add(|| error.to_string(), raw);
    }

    fn enter_resource(&mut self, message: &[u8]) {
        self.resource_error = None;
        match resource(message, self.limits, self.caps) {
            Ok(resource) => self.resource = resource,
            Err(error) => self.resource_error = Some(error),
        }
    }

    fn enter_scope(&mut self, message: &[u8]) {
        self.scope_error = None;
        self.scope_name.clear();
        let name = wire::find_bytes(message, 1).map_err(|error| RecordError::Wire("scope", error));
        let text = name.and_then(|name| {
            let mut writer = Writer::new(self.limits, self.caps);
            writer.text("scope.name", name.unwrap_or_default())
        });
        match text {
            Ok(text) => self.scope_name.push_str(text),
            Err(error) => self.scope_error = Some(error),
        }
    }
}

fn resource(message: &[u8], limits: &DecodeLimits, caps: &mut CapCounts) -> Result<Resource, RecordError> {
    const NAME: &str = "resource.attributes";
    let mut text = Vec::new();
    let mut service_name = String::new();
    let mut writer = Writer::new(limits, caps);
    let mut n_attributes = 0;
    let mut fields = Fields::new(message);
    while let Some((number, value)) = fields.next_field().map_err(|error| RecordError::Wire(NAME, error))? {
        if number == 1 {
            let attribute = value.bytes(1).map_err(|error| RecordError::Wire(NAME, error))?;
            writer.attribute(NAME, &mut text, &mut n_attributes, attribute)?;
            if let Some(name) = value::string_attribute(attribute, b"service.name") {
                service_name = writer.text("service.name", name)?.to_owned();
            }
        }
    }
    let text = value::close_object(NAME, &mut text)?.to_owned();
    Ok(Resource { text, service_name })
}

/// Receives the parts of a request in order; the three signals share their outer shape.
trait Visit {
    fn resource(&mut self, message: &[u8]);
    fn scope(&mut self, message: &[u8]);
    /// A log record, a span or a metric.
    fn item(&mut self, message: &[u8]) -> Result<(), WireError>;
}

/// Request → resources (1) → resource (1), scopes (2) → scope (1), items (2).
fn walk(request: &[u8], visit: &mut impl Visit) -> Result<(), WireError> {
    let mut resources = Fields::new(request);
    while let Some((number, value)) = resources.next_field()? {
        if number != 1 {
            continue;
        }
        let per_resource = value.bytes(1)?;
        visit.resource(wire::find_bytes(per_resource, 1)?.unwrap_or_default());
        let mut scopes = Fields::new(per_resource);
        while let Some((number, value)) = scopes.next_field()? {
            if number != 2 {
                continue;
            }
            let per_scope = value.bytes(2)?;
            visit.scope(wire::find_bytes(per_scope, 1)?.unwrap_or_default());
            let mut items = Fields::new(per_scope);
            while let Some((number, value)) = items.next_field()? {
                if number == 2 {
                    visit.item(value.bytes(2)?)?;
                }
            }
        }
    }
    Ok(())
}

/// Reads the frames only, so that a request is refused before anything of it has been kept.
struct Frames {
    signal: OtlpSignal,
}

impl Visit for Frames {
    fn resource(&mut self, _: &[u8]) {}

    fn scope(&mut self, _: &[u8]) {}

    fn item(&mut self, message: &[u8]) -> Result<(), WireError> {
        if self.signal == OtlpSignal::Metrics { metrics::check_frames(message) } else { Ok(()) }
    }
}

impl Decoder {
    /// A decoder that keeps to `limits`.
    #[must_use]
    pub fn new(limits: DecodeLimits) -> Self {
        Self { limits: DecodeLimits { max_nesting: limits.max_nesting.min(MAX_NESTING), ..limits }, ..Self::default() }
    }

    /// Adds the records of one request. `received_unix_nano` is the time of receipt, for records that name none.
    ///
    /// # Errors
    /// When the request cannot be read at all; nothing of it has been added then.
    pub fn push(
        &mut self,
        signal: OtlpSignal,
        encoding: Encoding,
        request: &[u8],
        received_unix_nano: i64,
    ) -> Result<(), DecodeError> {
        match encoding {
            Encoding::Protobuf => self.push_protobuf(signal, request, received_unix_nano, &[]),
            Encoding::Json => {
                let text = simdutf8::basic::from_utf8(request).map_err(|_| DecodeError::Utf8)?;
                let mut transcoded = std::mem::take(&mut self.transcoded);
                transcoded.clear();
                let outcome = json::to_protobuf(signal, text, self.limits.max_nesting, &mut transcoded)
                    .map_err(DecodeError::Json)
                    .and_then(|records| {
                        for (reason, raw) in records.bad {
                            self.rejects.add(|| reason, raw.as_bytes());
                        }
                        self.push_protobuf(signal, &transcoded, received_unix_nano, &records.good)
                    });
                self.transcoded = transcoded;
                outcome
            }
        }
    }

    fn push_protobuf(
        &mut self,
        signal: OtlpSignal,
        request: &[u8],
        received_unix_nano: i64,
        originals: &[&str],
    ) -> Result<(), DecodeError> {
        walk(request, &mut Frames { signal }).map_err(DecodeError::Protobuf)?;
        let cx = Cx {
            limits: &self.limits,
            caps: &mut self.caps,
            rejects: &mut self.rejects,
            received_unix_nano,
            originals,
            n_seen: 0,
            resource: Resource::default(),
            scope_name: String::new(),
            resource_error: None,
            scope_error: None,
        };
        match signal {
            OtlpSignal::Logs => {
                walk(request, &mut logs::Logs { cx, scratch: &mut self.scratch, builder: &mut self.logs })
            }
            OtlpSignal::Traces => {
                walk(request, &mut spans::Spans { cx, scratch: &mut self.scratch, builder: &mut self.spans })
            }
            OtlpSignal::Metrics => {
                walk(request, &mut metrics::Metrics { cx, scratch: &mut self.scratch, builder: &mut self.metrics })
            }
        }
        .map_err(DecodeError::Protobuf)
    }

    /// Good records of `signal` added since the last [`Decoder::finish`].
    #[must_use]
    pub fn n_records(&self, signal: OtlpSignal) -> usize {
        match signal {
            OtlpSignal::Logs => self.logs.len(),
            OtlpSignal::Traces => self.spans.len(),
            OtlpSignal::Metrics => self.metrics.len(),
        }
    }

    /// Adds a record that could not even be offered, such as an undecodable line of a file.
    pub fn push_reject(&mut self, reason: String, raw: &[u8]) {
        self.rejects.add(|| reason, raw);
    }

    /// Whether anything has been rejected since the last [`Decoder::finish`].
    #[must_use]
    pub fn has_rejects(&self) -> bool {
        self.rejects.total > 0
    }

    /// The records of `signal` added since the last call, with all rejects and counts since then.
    pub fn finish(&mut self, signal: OtlpSignal) -> Decoded {
        let batch = match signal {
            OtlpSignal::Logs => Batch::Logs(self.logs.finish()),
            OtlpSignal::Traces => Batch::Spans(self.spans.finish()),
            OtlpSignal::Metrics => Batch::Metrics(self.metrics.finish()),
        };
        for buffer in [
            &mut self.scratch.attributes,
            &mut self.scratch.body,
            &mut self.scratch.events,
            &mut self.scratch.links,
            &mut self.transcoded,
        ] {
            buffer.clear();
            buffer.shrink_to(MAX_IDLE_SCRATCH_BYTES);
        }
        let rejects = std::mem::take(&mut self.rejects);
        let caps = std::mem::take(&mut self.caps);
        Decoded { batch, rejects: rejects.kept, n_rejected: rejects.total, caps }
    }

    /// One request in, its records out.
    ///
    /// # Errors
    /// As [`Decoder::push`].
    pub fn decode(
        &mut self,
        signal: OtlpSignal,
        encoding: Encoding,
        request: &[u8],
        received_unix_nano: i64,
    ) -> Result<Decoded, DecodeError> {
        self.push(signal, encoding, request, received_unix_nano)?;
        Ok(self.finish(signal))
    }
}

/// Nanoseconds as a signed column holds them; 0 (not given) when they do not fit.
#[inline]
fn nanos(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(0)
}
