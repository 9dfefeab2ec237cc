//! What OTLP/JSON allows and other decoders lose, one by one; and what a record is rejected for.
#![allow(
    clippy::unwrap_used,
    clippy::needless_pass_by_value,
    clippy::type_complexity,
    reason = "a test may panic; helpers take what tests hold"
)]

use arrow::array::{Array, AsArray};
use faultline_core::{Batch, LogBatch, MetricBatch, SpanBatch, batch::dict_value};
use faultline_ingest::decode::{DecodeError, DecodeLimits, Decoded, Decoder, Encoding, OtlpSignal};
use serde_json::{Value, json};

const RECEIVED: i64 = 42;

fn decode_with(limits: DecodeLimits, signal: OtlpSignal, json: &str) -> Result<Decoded, DecodeError> {
    Decoder::new(limits).decode(signal, Encoding::Json, json.as_bytes(), RECEIVED)
}

fn log_records(records: &str) -> String {
    format!(r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{records}]}}]}}]}}"#)
}

fn logs_of(decoded: Decoded) -> (LogBatch, Vec<String>) {
    let reasons = decoded.rejects.into_iter().map(|reject| reject.reason).collect();
    match decoded.batch {
        Batch::Logs(batch) => (batch, reasons),
        other => panic!("expected logs, got {}", other.table()),
    }
}

fn logs(records: &str) -> (LogBatch, Vec<String>) {
    logs_of(decode_with(DecodeLimits::default(), OtlpSignal::Logs, &log_records(records)).unwrap())
}

/// One record that must be good.
fn log(record: &str) -> LogBatch {
    let (batch, reasons) = logs(record);
    assert!(reasons.is_empty(), "{reasons:?}");
    assert_eq!(batch.len(), 1);
    batch
}

/// The reason why one record is rejected, while a good one beside it is kept.
fn reason(record: &str) -> String {
    let (batch, reasons) = logs(&format!(r#"{record},{{"body":{{"stringValue":"good"}}}}"#));
    assert_eq!(batch.body().value(0), "good");
    assert_eq!(batch.len(), 1);
    let [reason] = &reasons[..] else { panic!("{reasons:?}") };
    reason.clone()
}

fn body(any_value: &str) -> String {
    log(&format!(r#"{{"body":{any_value}}}"#)).body().value(0).to_owned()
}

fn number_point(point: &str) -> MetricBatch {
    let request = format!(
        r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{{"name":"m","gauge":{{"dataPoints":[{point}]}}}}]}}]}}]}}"#
    );
    let decoded = decode_with(DecodeLimits::default(), OtlpSignal::Metrics, &request).unwrap();
    assert!(decoded.rejects.is_empty(), "{:?}", decoded.rejects);
    let Batch::Metrics(batch) = decoded.batch else { panic!("expected metrics") };
    assert_eq!(batch.len(), 1);
    batch
}

#[test]
fn integers_of_64_bits_are_strings_or_numbers() {
    for time in ["\"1700000000000000001\"", "1700000000000000001"] {
        assert_eq!(log(&format!(r#"{{"timeUnixNano":{time}}}"#)).time_unix_nano().value(0), 1_700_000_000_000_000_001);
    }
    for value in [i64::MIN, -1, 0, 5, i64::MAX] {
        for text in [format!("\"{value}\""), value.to_string()] {
            assert_eq!(body(&format!(r#"{{"intValue":{text}}}"#)), value.to_string());
            assert_eq!(number_point(&format!(r#"{{"asInt":{text}}}"#)).value_int().value(0), value);
        }
    }
    assert_eq!(number_point(r#"{"asInt":1e3}"#).value_int().value(0), 1000);
    assert_eq!(log(r#"{"flags":"1"}"#).flags().value(0), 1);
}

#[test]
fn null_is_the_same_as_absent_everywhere() {
    let batch = log(
        r#"{"timeUnixNano":null,"severityNumber":null,"severityText":null,"body":null,"attributes":null,"flags":null,
            "traceId":null,"spanId":null,"eventName":null}"#,
    );
    assert_eq!(batch.time_unix_nano().value(0), RECEIVED);
    assert!(batch.attributes().is_null(0) && batch.trace_id().is_null(0) && batch.severity_number().is_null(0));
    assert_eq!(body(r#"{"stringValue":null}"#), "");
    assert_eq!(body(r#"{"arrayValue":{"values":[null,{"intValue":1},{}]}}"#), "[null,1,null]");
    assert_eq!(body(r#"{"arrayValue":{"values":null}}"#), "[]");
    assert_eq!(body(r#"{"kvlistValue":{"values":[{"key":"a","value":null}]}}"#), r#"{"a":null}"#);
    assert_eq!(body(r#"{"arrayValue":null,"stringValue":"a"}"#), "a");
    for request in [
        "{}",
        r#"{"resourceLogs":null}"#,
        r#"{"resourceLogs":[]}"#,
        r#"{"resourceLogs":[{"resource":null,"scopeLogs":null}]}"#,
        r#"{"resourceLogs":[{"scopeLogs":[{"scope":null,"logRecords":null}]}]}"#,
        r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[null]}]}]}"#,
    ] {
        let decoded = decode_with(DecodeLimits::default(), OtlpSignal::Logs, request).unwrap();
        assert_eq!((decoded.batch.n_records(), decoded.n_rejected), (0, 0), "{request}");
    }
    let request =
        r#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"name":"m","sum":null,"gauge":{"dataPoints":null}}]}]}]}"#;
    assert_eq!(decode_with(DecodeLimits::default(), OtlpSignal::Metrics, request).unwrap().batch.n_records(), 0);
}

#[test]
fn doubles_that_are_no_json_numbers_are_strings_and_none_is_lost() {
    for (text, value) in [("NaN", f64::NAN), ("Infinity", f64::INFINITY), ("-Infinity", f64::NEG_INFINITY)] {
        assert_eq!(body(&format!(r#"{{"doubleValue":"{text}"}}"#)), format!("\"{text}\""));
        let got = number_point(&format!(r#"{{"asDouble":"{text}"}}"#)).value_double().value(0);
        assert_eq!(got.to_bits(), value.to_bits(), "{text}");
    }
    assert_eq!(body(r#"{"doubleValue":1.5}"#), "1.5");
    assert_eq!(body(r#"{"doubleValue":"-2.5e-3"}"#), "-0.0025");
    assert_eq!(number_point(r#"{"asDouble":7}"#).value_double().value(0).to_bits(), 7.0_f64.to_bits());
    assert_eq!(number_point(r#"{"asDouble":-0.0}"#).value_double().value(0).to_bits(), (-0.0_f64).to_bits());
    // A fast reader of decimals is one bit off here.
    for value in ["-7.103902713632545e43", "-4.218928737604783e290", "9007199254740993"] {
        for text in [value.to_owned(), format!("\"{value}\"")] {
            let got = number_point(&format!(r#"{{"asDouble":{text}}}"#)).value_double().value(0);
            assert_eq!(got.to_bits(), value.parse::<f64>().unwrap().to_bits(), "{text}");
        }
    }
    for wrong in ["\"inf\"", "1e999", "true", "{}", "\"\"", "[1]"] {
        let reason = reason(&format!(r#"{{"body":{{"doubleValue":{wrong}}}}}"#));
        assert!(reason.starts_with("doubleValue: not a number"), "{wrong}: {reason}");
    }
}

#[test]
fn ids_are_hexadecimal_in_either_case() {
    for id in
        ["5B8EFFF798038103D269B633813FC60C", "5b8efff798038103d269b633813fc60c", "5b8EFFf798038103d269b633813fc60C"]
    {
        let batch = log(&format!(r#"{{"traceId":"{id}","spanId":"EEE19B7EC3C1B174"}}"#));
        assert_eq!(batch.trace_id().value(0), "5b8efff798038103d269b633813fc60c");
        assert_eq!(batch.span_id().value(0), "eee19b7ec3c1b174");
    }
    let batch = log(&format!(r#"{{"traceId":"","spanId":"{}"}}"#, "0".repeat(16)));
    assert!(batch.trace_id().is_null(0) && batch.span_id().is_null(0));
    assert_eq!(reason(r#"{"traceId":"abcd"}"#), "trace_id: must be 16 bytes, got 2");
    assert!(reason(r#"{"traceId":"abc"}"#).starts_with("traceId: not hexadecimal"));
    assert!(reason(r#"{"spanId":"zz"}"#).starts_with("spanId: not hexadecimal"));
}

#[test]
fn enums_are_integers_only() {
    assert_eq!(log(r#"{"severityNumber":9}"#).severity_number().value(0), 9);
    assert!(reason(r#"{"severityNumber":"SEVERITY_NUMBER_INFO"}"#).starts_with("severityNumber: must be an integer"));
    assert!(reason(r#"{"severityNumber":"9"}"#).starts_with("severityNumber: must be an integer"));
    assert!(log(r#"{"severityNumber":99}"#).severity_number().is_null(0));
}

#[test]
fn unknown_and_snake_case_keys_are_ignored() {
    let batch = log(
        r#"{"time_unix_nano":"5","severity_text":"x","new":{"deep":[1,{"a":[]}]},"body":{"newValue":[[]],"stringValue":"a"},
            "droppedAttributesCount":7}"#,
    );
    assert_eq!(batch.time_unix_nano().value(0), RECEIVED);
    assert!(dict_value(batch.severity_text(), 0).is_none());
    assert_eq!(batch.body().value(0), "a");
}

#[test]
fn bytes_are_base64_in_any_dress() {
    for text in ["+/8A", "-_8A", "+/8=", "+/8", "-_8"] {
        let expected = if text.ends_with('A') { "\"+/8A\"" } else { "\"+/8=\"" };
        assert_eq!(body(&format!(r#"{{"bytesValue":"{text}"}}"#)), expected);
    }
    assert!(reason(r#"{"body":{"bytesValue":"*"}}"#).starts_with("bytesValue: not base64"));
}

#[test]
fn keys_come_in_any_order() {
    let request = r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"attributes":[{"value":{"boolValue":true},"key":"b"}]}],
        "scope":{"name":"lib"}}],"resource":{"attributes":[{"value":{"stringValue":"cart"},"key":"service.name"}]}}]}"#;
    let (batch, _) = logs_of(decode_with(DecodeLimits::default(), OtlpSignal::Logs, request).unwrap());
    assert_eq!(dict_value(batch.service_name(), 0), Some("cart"));
    assert_eq!(dict_value(batch.scope_name(), 0), Some("lib"));
    assert_eq!(batch.attributes().value(0), r#"{"b":true}"#);
    assert_eq!(dict_value(batch.resource(), 0), Some(r#"{"service.name":"cart"}"#));
}

#[test]
fn times_fall_back_to_observed_and_then_to_receipt() {
    let batch = log(r#"{"observedTimeUnixNano":"7"}"#);
    assert_eq!((batch.time_unix_nano().value(0), batch.observed_time_unix_nano().value(0)), (7, 7));
    let batch = log("{}");
    assert_eq!(batch.time_unix_nano().value(0), RECEIVED);
    assert!(batch.observed_time_unix_nano().is_null(0));
}

#[test]
fn escapes_and_control_characters_survive_into_the_attribute_text() {
    let text = "quote \" back \\ line \n nul \u{0} é 🦀";
    let record =
        json!({ "attributes": [{ "key": text, "value": { "stringValue": text } }], "body": { "stringValue": text } });
    let batch = log(&record.to_string());
    assert_eq!(batch.body().value(0), text);
    assert_eq!(serde_json::from_str::<Value>(batch.attributes().value(0)).unwrap(), json!({ text: text }));
}

#[test]
fn a_request_that_is_no_json_or_the_wrong_shape_is_refused_whole() {
    for request in
        ["", "[]", "5", "{", "{}x", r#"{"resourceLogs":5}"#, r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":{}}]}]}"#]
    {
        let outcome = decode_with(DecodeLimits::default(), OtlpSignal::Logs, request);
        assert!(matches!(outcome, Err(DecodeError::Json(_))), "{request}");
    }
    let outcome =
        Decoder::new(DecodeLimits::default()).decode(OtlpSignal::Logs, Encoding::Json, b"{\"a\":\"\xff\"}", 0);
    assert!(matches!(outcome, Err(DecodeError::Utf8)));
}

fn nested(depth: usize) -> String {
    let open = r#"{"arrayValue":{"values":["#.repeat(depth);
    let close = "]}}".repeat(depth);
    format!(r#"{open}{{"intValue":"1"}}{close}"#)
}

#[test]
fn values_nest_to_the_limit_and_a_deeper_record_is_rejected() {
    assert_eq!(body(&nested(64)), format!("{}1{}", "[".repeat(64), "]".repeat(64)));
    assert_eq!(reason(&format!(r#"{{"body":{}}}"#, nested(65))), "body: nested deeper than 64 levels (max_nesting)");
    let deep = format!(r#"{{"attributes":[{{"key":"a","value":{}}}]}}"#, nested(5000));
    assert_eq!(reason(&deep), "attributes: nested deeper than 64 levels (max_nesting)");
    // Even where nobody looks, and far beyond any stack.
    let unknown = format!(r#"{{"unknown":{}{}}}"#, "[".repeat(1_000_000), "]".repeat(1_000_000));
    assert_eq!(log(&unknown).len(), 1);
    let decoded =
        decode_with(DecodeLimits::default(), OtlpSignal::Logs, &log_records(&format!(r#"{{"body":{}}}"#, nested(65))));
    assert_eq!(decoded.unwrap().caps.nested_too_deep, 1);
}

#[test]
fn a_bad_resource_rejects_its_records_and_no_others() {
    let request = format!(
        r#"{{"resourceLogs":[{{"resource":{{"attributes":[{{"key":"a","value":{}}}]}},
            "scopeLogs":[{{"logRecords":[{{}},{{}}]}}]}},{{"scopeLogs":[{{"logRecords":[{{}}]}}]}}]}}"#,
        nested(65)
    );
    let decoded = decode_with(DecodeLimits::default(), OtlpSignal::Logs, &request).unwrap();
    assert_eq!((decoded.batch.n_records(), decoded.n_rejected), (1, 2));
    assert_eq!(decoded.rejects[0].reason, "resource.attributes: nested deeper than 64 levels (max_nesting)");
}

#[test]
fn a_reject_keeps_the_text_of_the_record() {
    let request = log_records(r#"{"body":{"stringValue":"ok"}},{"traceId":"ab"},{"traceId":5}"#);
    let decoded = decode_with(DecodeLimits::default(), OtlpSignal::Logs, &request).unwrap();
    let mut raws: Vec<_> = decoded.rejects.iter().map(|reject| String::from_utf8_lossy(&reject.raw)).collect();
    raws.sort();
    assert_eq!(raws, [r#"{"traceId":"ab"}"#, r#"{"traceId":5}"#]);
    assert_eq!(decoded.n_rejected, 2);
}

#[test]
fn caps_cut_and_count() {
    let limits = DecodeLimits { max_attributes: 2, max_string_bytes: 4, max_records: 3, ..DecodeLimits::default() };
    let attributes: Vec<_> =
        (0..5).map(|n| json!({ "key": format!("k{n}"), "value": { "stringValue": "aaaé" } })).collect();
    let record = json!({ "attributes": attributes, "body": { "stringValue": "12345" } }).to_string();
    let request = log_records(&[&*record, "{}", "{}", "{}", "{}"].join(","));
    let decoded = decode_with(limits, OtlpSignal::Logs, &request).unwrap();
    assert_eq!(decoded.caps.attributes_dropped, 3);
    assert_eq!(decoded.caps.strings_truncated, 3);
    assert_eq!((decoded.caps.records_over, decoded.n_rejected), (2, 2));
    let (batch, reasons) = logs_of(decoded);
    assert_eq!(batch.attributes().value(0), r#"{"k0":"aaa","k1":"aaa"}"#);
    assert_eq!(batch.body().value(0), "1234");
    assert_eq!(reasons[0], "more than 3 records in one request (max_records)");
}

#[test]
fn rejects_are_kept_up_to_a_limit_and_counted_beyond() {
    let request = log_records(&vec![r#"{"traceId":"ab"}"#; 1500].join(","));
    let decoded = decode_with(DecodeLimits::default(), OtlpSignal::Logs, &request).unwrap();
    assert_eq!((decoded.rejects.len(), decoded.n_rejected), (1000, 1500));
}

#[test]
fn a_span_without_valid_ids_is_a_reject() {
    let good = r#""traceId":"0af7651916cd43dd8448eb211c80319c","spanId":"b7ad6b7169203331""#;
    let zero = r#""traceId":"00000000000000000000000000000000","spanId":"b7ad6b7169203331""#;
    let request = format!(
        r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{{{good}}},{{"name":"x"}},{{{zero}}},
            {{{good},"parentSpanId":"abcd"}},{{{good},"links":[{{"traceId":"ab"}}]}}]}}]}}]}}"#
    );
    let decoded = decode_with(DecodeLimits::default(), OtlpSignal::Traces, &request).unwrap();
    let reasons: Vec<_> = decoded.rejects.iter().map(|reject| &*reject.reason).collect();
    assert_eq!(
        reasons,
        [
            "trace_id: required and not all zero",
            "trace_id: required and not all zero",
            "parent_span_id: must be 8 bytes, got 2",
            "links.trace_id: must be 16 bytes, got 1",
        ]
    );
    let Batch::Spans(batch) = decoded.batch else { panic!("expected spans") };
    let batch: SpanBatch = batch;
    assert_eq!(batch.len(), 1);
    assert_eq!(batch.span_id().value(0), "b7ad6b7169203331");
}

#[test]
fn a_histogram_whose_lists_do_not_fit_is_a_reject() {
    let request = r#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"name":"h","histogram":{"aggregationTemporality":2,
        "dataPoints":[{"count":"3","bucketCounts":["1","2"],"explicitBounds":[0.5]},
                      {"count":3,"bucketCounts":[1,2],"explicitBounds":[0.5,1]}]}}]}]}]}"#;
    let decoded = decode_with(DecodeLimits::default(), OtlpSignal::Metrics, request).unwrap();
    assert_eq!(decoded.rejects[0].reason, "bucket_counts: must be one more than explicit_bounds, or both empty");
    let Batch::Metrics(batch) = decoded.batch else { panic!("expected metrics") };
    assert_eq!(dict_value(batch.temporality(), 0), Some("cumulative"));
    assert_eq!(batch.bucket_counts().value(0).as_primitive::<arrow::datatypes::UInt64Type>().values(), &[1, 2]);
}
