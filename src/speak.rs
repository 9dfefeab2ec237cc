//! Lets the simulated application speak: its telemetry as OTLP requests, sent over a real socket like any exporter's.

use std::collections::BTreeMap;

use anyhow::Context;
use faultline_simulator::{SimLog, SimSpan, Telemetry, Value, telemetry::Attribute};
use opentelemetry_proto::tonic::{
    collector::{
        logs::v1::{ExportLogsServiceRequest, logs_service_client::LogsServiceClient},
        trace::v1::{ExportTraceServiceRequest, trace_service_client::TraceServiceClient},
    },
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span::Event},
};
use tonic::transport::Channel;

/// Spans and records in one request, at most; larger batches are cut.
const MAX_RECORDS: usize = 2_000;

/// An OTLP exporter over gRPC for simulated telemetry.
pub struct Speaker {
    logs: LogsServiceClient<Channel>,
    traces: TraceServiceClient<Channel>,
    /// Wall-clock time of virtual zero, nanoseconds since the epoch.
    epoch_ns: u64,
}

impl Speaker {
    /// Connects to a receiver; virtual time zero is `epoch_ns`.
    pub async fn connect(address: std::net::SocketAddr, epoch_ns: u64) -> anyhow::Result<Self> {
        let endpoint = Channel::from_shared(format!("http://{address}"))?;
        let channel = endpoint.connect().await.with_context(|| format!("connecting to {address}"))?;
        let (logs, traces) = (LogsServiceClient::new(channel.clone()), TraceServiceClient::new(channel));
        Ok(Self { logs, traces, epoch_ns })
    }

    /// Sends everything in `telemetry` and waits for the acknowledgements.
    pub async fn send(&mut self, telemetry: &Telemetry) -> anyhow::Result<()> {
        for spans in telemetry.spans.chunks(MAX_RECORDS) {
            let request = ExportTraceServiceRequest { resource_spans: resource_spans(spans, self.epoch_ns) };
            self.traces.export(request).await.context("sending spans")?;
        }
        for logs in telemetry.logs.chunks(MAX_RECORDS) {
            let request = ExportLogsServiceRequest { resource_logs: resource_logs(logs, self.epoch_ns) };
            self.logs.export(request).await.context("sending log records")?;
        }
        Ok(())
    }
}

fn resource_spans(spans: &[SimSpan], epoch_ns: u64) -> Vec<ResourceSpans> {
    let mut by_service: BTreeMap<&str, Vec<Span>> = BTreeMap::new();
    for span in spans {
        by_service.entry(&span.service).or_default().push(Span {
            trace_id: span.trace_id.to_vec(),
            span_id: span.span_id.to_vec(),
            parent_span_id: span.parent_span_id.map(|id| id.to_vec()).unwrap_or_default(),
            name: span.name.to_string(),
            kind: span.kind as i32,
            start_time_unix_nano: epoch_ns + span.start_ns,
            end_time_unix_nano: epoch_ns + span.end_ns,
            attributes: attributes(&span.attributes),
            events: span
                .events
                .iter()
                .map(|event| Event {
                    time_unix_nano: epoch_ns + event.time_ns,
                    name: event.name.into(),
                    attributes: attributes(&event.attributes),
                    ..Event::default()
                })
                .collect(),
            status: Some(Status { code: span.status as i32, message: span.status_message.clone() }),
            ..Span::default()
        });
    }
    let wrap = |(service, spans)| ResourceSpans {
        resource: Some(resource(service)),
        scope_spans: vec![ScopeSpans { scope: Some(scope()), spans, ..ScopeSpans::default() }],
        ..ResourceSpans::default()
    };
    by_service.into_iter().map(wrap).collect()
}

fn resource_logs(logs: &[SimLog], epoch_ns: u64) -> Vec<ResourceLogs> {
    let mut by_service: BTreeMap<&str, Vec<LogRecord>> = BTreeMap::new();
    for log in logs {
        let (trace_id, span_id) = log.trace.map(|(trace, span)| (trace.to_vec(), span.to_vec())).unwrap_or_default();
        by_service.entry(&log.service).or_default().push(LogRecord {
            time_unix_nano: epoch_ns + log.time_ns,
            observed_time_unix_nano: epoch_ns + log.time_ns,
            severity_number: i32::from(log.severity_number),
            severity_text: log.severity_text().into(),
            body: Some(text(log.body.clone())),
            attributes: attributes(&log.attributes),
            trace_id,
            span_id,
            ..LogRecord::default()
        });
    }
    let wrap = |(service, log_records)| ResourceLogs {
        resource: Some(resource(service)),
        scope_logs: vec![ScopeLogs { scope: Some(scope()), log_records, ..ScopeLogs::default() }],
        ..ResourceLogs::default()
    };
    by_service.into_iter().map(wrap).collect()
}

fn resource(service: &str) -> Resource {
    let attributes = vec![
        key_value("service.name", text(service.to_owned())),
        key_value("service.instance.id", text(format!("{service}-0"))),
        key_value("service.version", text("1.0.0".to_owned())),
    ];
    Resource { attributes, ..Resource::default() }
}

fn scope() -> InstrumentationScope {
    InstrumentationScope { name: "faultline.simulator".into(), ..InstrumentationScope::default() }
}

fn attributes(attributes: &[Attribute]) -> Vec<KeyValue> {
    attributes
        .iter()
        .map(|(name, value)| {
            let value = match value {
                Value::Text(value) => text(value.to_string()),
                Value::Int(value) => AnyValue { value: Some(any_value::Value::IntValue(*value)) },
            };
            key_value(name, value)
        })
        .collect()
}

fn key_value(key: &str, value: AnyValue) -> KeyValue {
    KeyValue { key: key.into(), value: Some(value), ..KeyValue::default() }
}

fn text(value: String) -> AnyValue {
    AnyValue { value: Some(any_value::Value::StringValue(value)) }
}
