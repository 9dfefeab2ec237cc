//! The decoder against `prost` and `opentelemetry-proto`: any request, encoded by them as protobuf and as JSON, comes out as
//! the rows that a plain walk over their structs expects.
#![allow(
    clippy::unwrap_used,
    clippy::needless_pass_by_value,
    clippy::type_complexity,
    reason = "a test may panic; helpers take what tests hold"
)]

use arrow::array::{Array, AsArray};
use base64::{Engine, engine::general_purpose::STANDARD};
use faultline_core::{
    Batch, LogBatch, LogBatchBuilder, LogRecord, MetricBatch, MetricBatchBuilder, MetricPoint, SpanBatch,
    SpanBatchBuilder, SpanRecord,
};
use faultline_ingest::decode::{DecodeLimits, Decoder, Encoding, OtlpSignal};
use opentelemetry_proto::tonic::{
    collector::{
        logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest,
        trace::v1::ExportTraceServiceRequest,
    },
    common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList, any_value::Value as Any},
    logs::v1::{LogRecord as OtlpLog, ResourceLogs, ScopeLogs},
    metrics::v1::{
        Exemplar, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram, HistogramDataPoint, Metric,
        NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, Summary, SummaryDataPoint, exemplar,
        exponential_histogram_data_point::Buckets, metric::Data, number_data_point,
        summary_data_point::ValueAtQuantile,
    },
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span},
};
use proptest::{collection::vec, option, prelude::*};
use prost::Message;
use serde_json::{Map, Value, json};

const RECEIVED: i64 = 1_700_000_000_000_000_000;

// What goes in.

fn text() -> BoxedStrategy<String> {
    prop_oneof![Just(String::new()), "[a-z.]{1,9}", "\\PC{0,12}", "[\\x00-\\x7f]{0,20}"].boxed()
}

fn double() -> BoxedStrategy<f64> {
    any::<f64>().prop_filter("serde_json writes no other", |value| value.is_finite()).boxed()
}

/// For fields that are left out when they equal zero: `prost` takes -0.0 for zero, and the sign is gone.
fn unsigned_zero() -> BoxedStrategy<f64> {
    double().prop_map(|value| value + 0.0).boxed()
}

fn any_value() -> BoxedStrategy<AnyValue> {
    let leaf = prop_oneof![
        text().prop_map(Any::StringValue),
        any::<bool>().prop_map(Any::BoolValue),
        any::<i64>().prop_map(Any::IntValue),
        double().prop_map(Any::DoubleValue),
        vec(any::<u8>(), 0..9).prop_map(Any::BytesValue),
    ];
    let leaf = option::weighted(0.9, leaf).prop_map(|value| AnyValue { value });
    leaf.prop_recursive(4, 16, 4, |inner| {
        let pairs = vec((text(), option::of(inner.clone())), 0..4);
        prop_oneof![
            vec(inner, 0..4).prop_map(|values| Any::ArrayValue(ArrayValue { values })),
            pairs.prop_map(|pairs| Any::KvlistValue(KeyValueList {
                values: pairs.into_iter().map(key_value).collect()
            })),
        ]
        .prop_map(|value| AnyValue { value: Some(value) })
    })
    .boxed()
}

fn key_value((key, value): (String, Option<AnyValue>)) -> KeyValue {
    KeyValue { key, value, ..KeyValue::default() }
}

fn attributes() -> BoxedStrategy<Vec<KeyValue>> {
    vec((text(), option::weighted(0.9, any_value())).prop_map(key_value), 0..5).boxed()
}

fn id(n_bytes: usize) -> BoxedStrategy<Vec<u8>> {
    vec(1_u8.., n_bytes).boxed()
}

fn maybe_id(n_bytes: usize) -> BoxedStrategy<Vec<u8>> {
    prop_oneof![id(n_bytes), Just(Vec::new()), Just(vec![0; n_bytes])].boxed()
}

fn time() -> BoxedStrategy<u64> {
    prop_oneof![Just(0), 1_600_000_000_000_000_000..1_800_000_000_000_000_000_u64, Just(u64::MAX)].boxed()
}

fn resource() -> BoxedStrategy<Option<Resource>> {
    let service = "[a-z]{1,6}".prop_map(|name| {
        vec![key_value(("service.name".into(), Some(AnyValue { value: Some(Any::StringValue(name)) })))]
    });
    option::of((attributes(), prop_oneof![service, Just(Vec::new())]).prop_map(|(mut attributes, service)| {
        attributes.extend(service);
        Resource { attributes, ..Resource::default() }
    }))
    .boxed()
}

fn scope() -> BoxedStrategy<Option<InstrumentationScope>> {
    option::of(text().prop_map(|name| InstrumentationScope { name, version: "1".into(), ..Default::default() })).boxed()
}

fn log() -> BoxedStrategy<OtlpLog> {
    let head = (time(), time(), -1..30_i32, text());
    let tail = (maybe_id(16), maybe_id(8), any::<u32>(), text());
    (head, option::of(any_value()), attributes(), tail)
        .prop_map(|(head, body, attributes, tail)| OtlpLog {
            time_unix_nano: head.0,
            observed_time_unix_nano: head.1,
            severity_number: head.2,
            severity_text: head.3,
            body,
            attributes,
            dropped_attributes_count: 3,
            flags: tail.2,
            trace_id: tail.0,
            span_id: tail.1,
            event_name: tail.3,
        })
        .boxed()
}

fn span() -> BoxedStrategy<Span> {
    let ids = (id(16), id(8), maybe_id(8), text());
    let middle = (text(), -1..7_i32, time(), time(), attributes());
    let event = (time(), text(), attributes()).prop_map(|(time_unix_nano, name, attributes)| span::Event {
        time_unix_nano,
        name,
        attributes,
        ..Default::default()
    });
    let link = (id(16), id(8), attributes()).prop_map(|(trace_id, span_id, attributes)| span::Link {
        trace_id,
        span_id,
        attributes,
        ..Default::default()
    });
    let status = option::of((text(), -1..4_i32).prop_map(|(message, code)| Status { message, code }));
    (ids, middle, vec(event, 0..3), vec(link, 0..3), status, any::<u32>())
        .prop_map(|(ids, middle, events, links, status, flags)| Span {
            trace_id: ids.0,
            span_id: ids.1,
            parent_span_id: ids.2,
            trace_state: ids.3,
            name: middle.0,
            kind: middle.1,
            start_time_unix_nano: middle.2,
            end_time_unix_nano: middle.3,
            attributes: middle.4,
            events,
            links,
            status,
            flags,
            ..Default::default()
        })
        .boxed()
}

fn exemplar() -> BoxedStrategy<Exemplar> {
    let value =
        prop_oneof![double().prop_map(exemplar::Value::AsDouble), any::<i64>().prop_map(exemplar::Value::AsInt)];
    (attributes(), time(), maybe_id(8), maybe_id(16), option::of(value))
        .prop_map(|(filtered_attributes, time_unix_nano, span_id, trace_id, value)| Exemplar {
            filtered_attributes,
            time_unix_nano,
            span_id,
            trace_id,
            value,
        })
        .boxed()
}

fn metric() -> BoxedStrategy<Metric> {
    let shared = || (attributes(), time(), time(), any::<u32>(), vec(exemplar(), 0..3));
    let number = || {
        let value = prop_oneof![
            double().prop_map(number_data_point::Value::AsDouble),
            any::<i64>().prop_map(number_data_point::Value::AsInt)
        ];
        vec(
            (shared(), option::of(value)).prop_map(|(shared, value)| NumberDataPoint {
                attributes: shared.0,
                start_time_unix_nano: shared.1,
                time_unix_nano: shared.2,
                flags: shared.3,
                exemplars: shared.4,
                value,
            }),
            0..3,
        )
    };
    let extremes = || (any::<u64>(), option::of(double()), option::of(double()), option::of(double()));
    let buckets = prop_oneof![
        Just((Vec::new(), Vec::new())),
        vec((any::<u64>(), double()), 0..4).prop_map(|pairs| {
            let (mut counts, bounds): (Vec<u64>, Vec<f64>) = pairs.into_iter().unzip();
            counts.push(7);
            (counts, bounds)
        }),
    ];
    let histogram = (shared(), extremes(), buckets).prop_map(|(shared, extremes, buckets)| HistogramDataPoint {
        attributes: shared.0,
        start_time_unix_nano: shared.1,
        time_unix_nano: shared.2,
        flags: shared.3,
        exemplars: shared.4,
        count: extremes.0,
        sum: extremes.1,
        min: extremes.2,
        max: extremes.3,
        bucket_counts: buckets.0,
        explicit_bounds: buckets.1,
    });
    let range = || {
        option::of(
            (any::<i32>(), vec(any::<u64>(), 0..5))
                .prop_map(|(offset, bucket_counts)| Buckets { offset, bucket_counts }),
        )
    };
    let exponential = (shared(), extremes(), any::<i32>(), any::<u64>(), range(), range()).prop_map(
        |(shared, extremes, scale, zero_count, positive, negative)| ExponentialHistogramDataPoint {
            attributes: shared.0,
            start_time_unix_nano: shared.1,
            time_unix_nano: shared.2,
            flags: shared.3,
            exemplars: shared.4,
            count: extremes.0,
            sum: extremes.1,
            min: extremes.2,
            max: extremes.3,
            scale,
            zero_count,
            positive,
            negative,
            zero_threshold: 0.0,
        },
    );
    let quantiles =
        vec((unsigned_zero(), unsigned_zero()).prop_map(|(quantile, value)| ValueAtQuantile { quantile, value }), 0..4);
    let summary =
        (shared(), any::<u64>(), unsigned_zero(), quantiles).prop_map(|(shared, count, sum, quantile_values)| {
            SummaryDataPoint {
                attributes: shared.0,
                start_time_unix_nano: shared.1,
                time_unix_nano: shared.2,
                flags: shared.3,
                count,
                sum,
                quantile_values,
            }
        });
    let data = prop_oneof![
        number().prop_map(|data_points| Data::Gauge(Gauge { data_points })),
        (number(), 0..3_i32, any::<bool>()).prop_map(|(data_points, aggregation_temporality, is_monotonic)| {
            Data::Sum(Sum { data_points, aggregation_temporality, is_monotonic })
        }),
        (vec(histogram, 0..3), 0..3_i32).prop_map(|(data_points, aggregation_temporality)| {
            Data::Histogram(Histogram { data_points, aggregation_temporality })
        }),
        (vec(exponential, 0..3), 0..3_i32).prop_map(|(data_points, aggregation_temporality)| {
            Data::ExponentialHistogram(ExponentialHistogram { data_points, aggregation_temporality })
        }),
        vec(summary, 0..3).prop_map(|data_points| Data::Summary(Summary { data_points })),
    ];
    ("[a-z.]{1,9}", text(), option::of(data))
        .prop_map(|(name, unit, data)| Metric { name, unit, data, description: "d".into(), ..Default::default() })
        .boxed()
}

// What should come out, by a plain walk.

fn value_json(value: Option<&AnyValue>) -> Value {
    match value.and_then(|value| value.value.as_ref()) {
        None => Value::Null,
        Some(Any::StringValue(text)) => json!(text),
        Some(Any::BoolValue(value)) => json!(value),
        Some(Any::IntValue(value)) => json!(value),
        Some(Any::DoubleValue(value)) => json!(value),
        Some(Any::BytesValue(bytes)) => json!(STANDARD.encode(bytes)),
        Some(Any::ArrayValue(list)) => list.values.iter().map(|value| value_json(Some(value))).collect(),
        Some(Any::KvlistValue(list)) => object(&list.values),
        Some(other) => panic!("not generated: {other:?}"),
    }
}

fn object(attributes: &[KeyValue]) -> Value {
    let map: Map<_, _> = attributes.iter().map(|pair| (pair.key.clone(), value_json(pair.value.as_ref()))).collect();
    Value::Object(map)
}

fn object_text(attributes: &[KeyValue]) -> String {
    if attributes.is_empty() { String::new() } else { object(attributes).to_string() }
}

fn hex(id: &[u8]) -> String {
    if id.iter().all(|byte| *byte == 0) { String::new() } else { id.iter().map(|byte| format!("{byte:02x}")).collect() }
}

fn nanos(time: u64) -> i64 {
    i64::try_from(time).unwrap_or(0)
}

fn list_text(items: Vec<Value>) -> String {
    if items.is_empty() { String::new() } else { Value::Array(items).to_string() }
}

fn with_attributes(mut item: Value, attributes: &[KeyValue]) -> Value {
    if !attributes.is_empty() {
        item["attributes"] = object(attributes);
    }
    item
}

struct Outer {
    resource: String,
    service_name: String,
    scope_name: String,
}

fn outer(resource: Option<&Resource>, scope: Option<&InstrumentationScope>) -> Outer {
    let attributes = resource.map_or(&[][..], |resource| &resource.attributes);
    let service_name =
        attributes.iter().rev().find_map(|pair| match (&*pair.key, pair.value.as_ref()?.value.as_ref()?) {
            ("service.name", Any::StringValue(name)) => Some(name.clone()),
            _ => None,
        });
    Outer {
        resource: object_text(attributes),
        service_name: service_name.unwrap_or_default(),
        scope_name: scope.map_or_else(String::new, |scope| scope.name.clone()),
    }
}

fn expected_logs(request: &ExportLogsServiceRequest) -> LogBatch {
    let mut builder = LogBatchBuilder::default();
    for per_resource in &request.resource_logs {
        for per_scope in &per_resource.scope_logs {
            let outer = outer(per_resource.resource.as_ref(), per_scope.scope.as_ref());
            for log in &per_scope.log_records {
                let body = match log.body.as_ref().and_then(|body| body.value.as_ref()) {
                    Some(Any::StringValue(text)) => text.clone(),
                    None => String::new(),
                    _ => value_json(log.body.as_ref()).to_string(),
                };
                // A body that is set but holds nothing is `null` only inside; outside it is no body.
                let times = [nanos(log.time_unix_nano), nanos(log.observed_time_unix_nano), RECEIVED];
                builder.push(&LogRecord {
                    time_unix_nano: *times.iter().find(|time| **time != 0).unwrap(),
                    observed_time_unix_nano: times[1],
                    severity_number: if (1..=24).contains(&log.severity_number) { log.severity_number } else { 0 },
                    severity_text: &log.severity_text,
                    service_name: &outer.service_name,
                    body: &body,
                    header: "",
                    attributes: &object_text(&log.attributes),
                    resource: &outer.resource,
                    scope_name: &outer.scope_name,
                    event_name: &log.event_name,
                    flags: log.flags,
                    trace_id: &hex(&log.trace_id),
                    span_id: &hex(&log.span_id),
                });
            }
        }
    }
    builder.finish()
}

fn expected_spans(request: &ExportTraceServiceRequest) -> SpanBatch {
    let mut builder = SpanBatchBuilder::default();
    for per_resource in &request.resource_spans {
        for per_scope in &per_resource.scope_spans {
            let outer = outer(per_resource.resource.as_ref(), per_scope.scope.as_ref());
            for span in &per_scope.spans {
                let events = span.events.iter().map(|event| {
                    let item = json!({ "time_unix_nano": nanos(event.time_unix_nano), "name": event.name });
                    with_attributes(item, &event.attributes)
                });
                let links = span.links.iter().map(|link| {
                    let item = json!({ "trace_id": hex(&link.trace_id), "span_id": hex(&link.span_id) });
                    with_attributes(item, &link.attributes)
                });
                let status = span.status.clone().unwrap_or_default();
                let (start, end) = match (nanos(span.start_time_unix_nano), nanos(span.end_time_unix_nano)) {
                    (0, 0) => (RECEIVED, RECEIVED),
                    (0, end) => (end, end),
                    (start, 0) => (start, start),
                    both => both,
                };
                builder.push(&SpanRecord {
                    trace_id: &hex(&span.trace_id),
                    span_id: &hex(&span.span_id),
                    parent_span_id: &hex(&span.parent_span_id),
                    name: &span.name,
                    kind: if (0..=5).contains(&span.kind) { span.kind } else { 0 },
                    service_name: &outer.service_name,
                    start_time_unix_nano: start,
                    end_time_unix_nano: end,
                    status_code: if (0..=2).contains(&status.code) { status.code } else { 0 },
                    status_message: &status.message,
                    attributes: &object_text(&span.attributes),
                    events: &list_text(events.collect()),
                    links: &list_text(links.collect()),
                    trace_state: &span.trace_state,
                    flags: span.flags,
                    resource: &outer.resource,
                    scope_name: &outer.scope_name,
                });
            }
        }
    }
    builder.finish()
}

fn exemplars_text(exemplars: &[Exemplar]) -> String {
    let items = exemplars.iter().map(|exemplar| {
        let value = match exemplar.value {
            None => Value::Null,
            Some(exemplar::Value::AsDouble(value)) => json!(value),
            Some(exemplar::Value::AsInt(value)) => json!(value),
        };
        let mut item = json!({ "time_unix_nano": nanos(exemplar.time_unix_nano), "value": value });
        for (key, id) in [("trace_id", &exemplar.trace_id), ("span_id", &exemplar.span_id)] {
            if !hex(id).is_empty() {
                item[key] = json!(hex(id));
            }
        }
        with_attributes(item, &exemplar.filtered_attributes)
    });
    list_text(items.collect())
}

fn expected_metrics(request: &ExportMetricsServiceRequest) -> MetricBatch {
    let mut builder = MetricBatchBuilder::default();
    for per_resource in &request.resource_metrics {
        for per_scope in &per_resource.scope_metrics {
            let outer = outer(per_resource.resource.as_ref(), per_scope.scope.as_ref());
            for metric in &per_scope.metrics {
                let base = MetricPoint {
                    name: &metric.name,
                    unit: &metric.unit,
                    service_name: &outer.service_name,
                    resource: &outer.resource,
                    scope_name: &outer.scope_name,
                    ..MetricPoint::default()
                };
                expected_points(&mut builder, base, metric.data.as_ref());
            }
        }
    }
    builder.finish()
}

fn temporality(value: i32) -> &'static str {
    ["", "delta", "cumulative"][usize::try_from(value).unwrap()]
}

fn expected_points(builder: &mut MetricBatchBuilder, base: MetricPoint<'_>, data: Option<&Data>) {
    let placed = |time| if nanos(time) == 0 { RECEIVED } else { nanos(time) };
    let numbers = |builder: &mut MetricBatchBuilder, base: MetricPoint<'_>, points: &[NumberDataPoint]| {
        for point in points {
            let mut row = MetricPoint {
                start_time_unix_nano: nanos(point.start_time_unix_nano),
                time_unix_nano: placed(point.time_unix_nano),
                flags: point.flags,
                ..base
            };
            match point.value {
                None => {}
                Some(number_data_point::Value::AsDouble(value)) => row.value_double = Some(value),
                Some(number_data_point::Value::AsInt(value)) => row.value_int = Some(value),
            }
            let (attributes, exemplars) = (object_text(&point.attributes), exemplars_text(&point.exemplars));
            builder.push(&MetricPoint { attributes: &attributes, exemplars: &exemplars, ..row });
        }
    };
    match data {
        None => {}
        Some(Data::Gauge(gauge)) => numbers(builder, MetricPoint { kind: "gauge", ..base }, &gauge.data_points),
        Some(Data::Sum(sum)) => {
            let temporality = temporality(sum.aggregation_temporality);
            let base = MetricPoint { kind: "sum", temporality, monotonic: Some(sum.is_monotonic), ..base };
            numbers(builder, base, &sum.data_points);
        }
        Some(Data::Histogram(histogram)) => {
            for point in &histogram.data_points {
                builder.push(&MetricPoint {
                    kind: "histogram",
                    temporality: temporality(histogram.aggregation_temporality),
                    start_time_unix_nano: nanos(point.start_time_unix_nano),
                    time_unix_nano: placed(point.time_unix_nano),
                    flags: point.flags,
                    count: Some(point.count),
                    sum: point.sum,
                    min: point.min,
                    max: point.max,
                    bucket_counts: &point.bucket_counts,
                    bounds: &point.explicit_bounds,
                    attributes: &object_text(&point.attributes),
                    exemplars: &exemplars_text(&point.exemplars),
                    ..base
                });
            }
        }
        Some(Data::ExponentialHistogram(histogram)) => {
            for point in &histogram.data_points {
                builder.push(&MetricPoint {
                    kind: "exponential_histogram",
                    temporality: temporality(histogram.aggregation_temporality),
                    start_time_unix_nano: nanos(point.start_time_unix_nano),
                    time_unix_nano: placed(point.time_unix_nano),
                    flags: point.flags,
                    count: Some(point.count),
                    sum: point.sum,
                    min: point.min,
                    max: point.max,
                    scale: Some(point.scale),
                    zero_count: Some(point.zero_count),
                    positive_offset: point.positive.as_ref().map(|range| range.offset),
                    bucket_counts: point.positive.as_ref().map_or(&[], |range| &range.bucket_counts),
                    negative_offset: point.negative.as_ref().map(|range| range.offset),
                    negative_bucket_counts: point.negative.as_ref().map_or(&[], |range| &range.bucket_counts),
                    attributes: &object_text(&point.attributes),
                    exemplars: &exemplars_text(&point.exemplars),
                    ..base
                });
            }
        }
        Some(Data::Summary(summary)) => {
            for point in &summary.data_points {
                let at = |pick: fn(&ValueAtQuantile) -> f64| -> Vec<f64> {
                    point.quantile_values.iter().map(pick).collect()
                };
                builder.push(&MetricPoint {
                    kind: "summary",
                    start_time_unix_nano: nanos(point.start_time_unix_nano),
                    time_unix_nano: placed(point.time_unix_nano),
                    flags: point.flags,
                    count: Some(point.count),
                    sum: Some(point.sum),
                    bounds: &at(|quantile| quantile.quantile),
                    quantile_values: &at(|quantile| quantile.value),
                    attributes: &object_text(&point.attributes),
                    ..base
                });
            }
        }
    }
}

// How they are compared: JSON text by value, everything else exactly.

const JSON_COLUMNS: [&str; 5] = ["attributes", "resource", "events", "links", "exemplars"];

fn assert_same(got: &Batch, expected: &Batch) -> Result<(), TestCaseError> {
    let (got, expected) = (got.as_arrow(), expected.as_arrow());
    prop_assert_eq!(got.num_rows(), expected.num_rows());
    for (field, (got, expected)) in got.schema().fields().iter().zip(got.columns().iter().zip(expected.columns())) {
        let name = field.name();
        let as_text = |column: &dyn Array| arrow::compute::cast(column, &arrow::datatypes::DataType::Utf8).unwrap();
        if JSON_COLUMNS.contains(&name.as_str()) || name == "body" {
            let (got, expected) = (as_text(got), as_text(expected));
            for (got, expected) in got.as_string::<i32>().iter().zip(expected.as_string::<i32>()) {
                let parse = |text: Option<&str>| {
                    text.map(|text| serde_json::from_str::<Value>(text).map_err(|_| text.to_owned()))
                };
                if name == "body" {
                    prop_assert!(got == expected || parse(got) == parse(expected), "{name}: {got:?} != {expected:?}");
                } else {
                    prop_assert!(parse(got).is_none_or(|value| value.is_ok()), "{name} is not JSON: {got:?}");
                    prop_assert_eq!(parse(got), parse(expected), "{}", name);
                }
            }
        } else if matches!(field.data_type(), arrow::datatypes::DataType::Dictionary(..)) {
            prop_assert_eq!(&as_text(got), &as_text(expected), "{}", name);
        } else {
            prop_assert_eq!(got, expected, "{}", name);
        }
    }
    Ok(())
}

fn check(signal: OtlpSignal, protobuf: &[u8], json: &[u8], expected: &Batch) -> Result<(), TestCaseError> {
    let mut decoder = Decoder::new(DecodeLimits::default());
    // Twice with the same decoder, because its buffers are reused.
    for encoding in [Encoding::Protobuf, Encoding::Json, Encoding::Protobuf] {
        let request = if encoding == Encoding::Json { json } else { protobuf };
        let decoded = decoder.decode(signal, encoding, request, RECEIVED).unwrap();
        prop_assert_eq!(decoded.n_rejected, 0, "{:?}: {:?}", encoding, decoded.rejects.first());
        assert_same(&decoded.batch, expected)?;
    }
    Ok(())
}

fn config() -> ProptestConfig {
    ProptestConfig { cases: 128, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn any_log_request_decodes_to_the_rows_that_prost_sees(
        resources in vec((resource(), vec((scope(), vec(log(), 0..4)), 0..3)), 0..3),
    ) {
        let resource_logs = resources.into_iter().map(|(resource, scopes)| ResourceLogs {
            resource,
            scope_logs: scopes
                .into_iter()
                .map(|(scope, log_records)| ScopeLogs { scope, log_records, ..Default::default() })
                .collect(),
            schema_url: "s".into(),
        });
        let request = ExportLogsServiceRequest { resource_logs: resource_logs.collect() };
        let expected = Batch::Logs(expected_logs(&request));
        check(OtlpSignal::Logs, &request.encode_to_vec(), &serde_json::to_vec(&request).unwrap(), &expected)?;
    }

    #[test]
    fn any_trace_request_decodes_to_the_rows_that_prost_sees(
        resources in vec((resource(), vec((scope(), vec(span(), 0..3)), 0..3)), 0..3),
    ) {
        let resource_spans = resources.into_iter().map(|(resource, scopes)| ResourceSpans {
            resource,
            scope_spans: scopes
                .into_iter()
                .map(|(scope, spans)| ScopeSpans { scope, spans, ..Default::default() })
                .collect(),
            schema_url: "s".into(),
        });
        let request = ExportTraceServiceRequest { resource_spans: resource_spans.collect() };
        let expected = Batch::Spans(expected_spans(&request));
        check(OtlpSignal::Traces, &request.encode_to_vec(), &serde_json::to_vec(&request).unwrap(), &expected)?;
    }

    #[test]
    fn any_metric_request_decodes_to_the_rows_that_prost_sees(
        resources in vec((resource(), vec((scope(), vec(metric(), 0..3)), 0..3)), 0..3),
    ) {
        let resource_metrics = resources.into_iter().map(|(resource, scopes)| ResourceMetrics {
            resource,
            scope_metrics: scopes
                .into_iter()
                .map(|(scope, metrics)| ScopeMetrics { scope, metrics, ..Default::default() })
                .collect(),
            schema_url: "s".into(),
        });
        let request = ExportMetricsServiceRequest { resource_metrics: resource_metrics.collect() };
        let expected = Batch::Metrics(expected_metrics(&request));
        check(OtlpSignal::Metrics, &request.encode_to_vec(), &serde_json::to_vec(&request).unwrap(), &expected)?;
    }

    #[test]
    fn no_bytes_make_the_decoder_panic(
        bytes in vec(any::<u8>(), 0..200),
        text in "[\\[\\]{}:,\"a-z0-9]{0,80}",
    ) {
        let mut decoder = Decoder::new(DecodeLimits::default());
        for signal in [OtlpSignal::Logs, OtlpSignal::Traces, OtlpSignal::Metrics] {
            let _ = decoder.decode(signal, Encoding::Protobuf, &bytes, RECEIVED);
            let _ = decoder.decode(signal, Encoding::Json, text.as_bytes(), RECEIVED);
        }
    }

    #[test]
    fn a_damaged_request_never_panics_and_never_keeps_a_part_when_it_is_refused(
        logs in vec(log(), 1..4),
        metrics in vec(metric(), 1..4),
        flips in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let logs = ExportLogsServiceRequest { resource_logs: vec![ResourceLogs {
            scope_logs: vec![ScopeLogs { log_records: logs, ..Default::default() }], ..Default::default()
        }] };
        let metrics = ExportMetricsServiceRequest { resource_metrics: vec![ResourceMetrics {
            scope_metrics: vec![ScopeMetrics { metrics, ..Default::default() }], ..Default::default()
        }] };
        for (signal, mut bytes) in [(OtlpSignal::Logs, logs.encode_to_vec()), (OtlpSignal::Metrics, metrics.encode_to_vec())] {
            for (at, with) in &flips {
                let at = at.index(bytes.len());
                bytes[at] = *with;
            }
            let mut decoder = Decoder::new(DecodeLimits::default());
            for bytes in [&bytes[..], &bytes[..cut.index(bytes.len())]] {
                if decoder.decode(signal, Encoding::Protobuf, bytes, RECEIVED).is_err() {
                    prop_assert_eq!(decoder.n_records(signal), 0);
                    prop_assert!(!decoder.has_rejects());
                }
            }
        }
    }
}
