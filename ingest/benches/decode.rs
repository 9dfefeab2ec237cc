//! Stations 1 and 2 on one core: OTLP log requests to batches beside `prost` alone, and lines of a file to batches.
//!
//! The request is the shape of `research/build.md` section 5: 1000 records, 20 resources, six attributes a record, about
//! 330 bytes each. File lines are HDFS's, made up here; name a real file in `FAULTLINE_BENCH_LOG` to read that instead.
#![allow(missing_docs, reason = "criterion's macros")]

use std::{hint::black_box, io::Cursor, path::Path};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use faultline_ingest::{
    FileReader, FilesConfig,
    decode::{DecodeLimits, Decoder, Encoding, OtlpSignal},
};
use opentelemetry_proto::tonic::{
    collector::logs::v1::ExportLogsServiceRequest,
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
    resource::v1::Resource,
};
use prost::Message;

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.into(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

fn text(value: &str) -> Value {
    Value::StringValue(value.into())
}

fn log_request(n_resources: u64, n_records: u64) -> ExportLogsServiceRequest {
    let record = |n: u64| LogRecord {
        time_unix_nano: 1_700_000_000_000_000_000 + n,
        observed_time_unix_nano: 1_700_000_000_500_000_000 + n,
        severity_number: 9,
        severity_text: "INFO".into(),
        body: Some(AnyValue {
            value: Some(text(&format!(
                "order {n} of user {} placed: 3 items, card ending 4242 was charged",
                n * 7919 % 1000
            ))),
        }),
        attributes: vec![
            attribute("http.request.method", text("POST")),
            attribute("url.path", text("/api/checkout")),
            attribute("http.response.status_code", Value::IntValue(200)),
            attribute("user.id", text(&format!("user-{:08}", n * 104_729 % 100_000_000))),
            attribute("cache.hit", Value::BoolValue(n.is_multiple_of(3))),
            attribute("duration_ms", Value::DoubleValue(12.5 + n as f64 / 8.0)),
        ],
        trace_id: (n + 1).to_be_bytes().repeat(2),
        span_id: (n + 1).to_be_bytes().to_vec(),
        ..LogRecord::default()
    };
    let resource = |n: u64| Resource {
        attributes: vec![
            attribute("service.name", text(&format!("service-{n}"))),
            attribute("service.instance.id", text(&format!("pod-{n}-7d9f8b6c5d"))),
            attribute("k8s.namespace.name", text("shop")),
        ],
        ..Resource::default()
    };
    let per_resource = n_records / n_resources;
    ExportLogsServiceRequest {
        resource_logs: (0..n_resources)
            .map(|n| ResourceLogs {
                resource: Some(resource(n)),
                scope_logs: vec![ScopeLogs {
                    scope: Some(InstrumentationScope { name: "checkout".into(), ..InstrumentationScope::default() }),
                    log_records: (n * per_resource..(n + 1) * per_resource).map(record).collect(),
                    ..ScopeLogs::default()
                }],
                ..ResourceLogs::default()
            })
            .collect(),
    }
}

fn decode(c: &mut Criterion) {
    let request = log_request(20, 1000);
    let (protobuf, json) = (request.encode_to_vec(), serde_json::to_vec(&request).expect("plain structs"));
    for (name, n_bytes) in [("bytes", protobuf.len() as u64), ("records", 1000)] {
        let mut group = c.benchmark_group(format!("decode/logs_1000x20/{}_{name}", protobuf.len()));
        group.throughput(if name == "bytes" { Throughput::Bytes(n_bytes) } else { Throughput::Elements(n_bytes) });
        let mut decoder = Decoder::new(DecodeLimits::default());
        group.bench_function("protobuf_to_batch", |b| {
            b.iter(|| decoder.decode(OtlpSignal::Logs, Encoding::Protobuf, black_box(&protobuf), 1).expect("valid"));
        });
        group.bench_function("prost_alone", |b| {
            b.iter(|| ExportLogsServiceRequest::decode(black_box(&protobuf[..])).expect("valid"));
        });
        group.finish();
    }
    let mut group = c.benchmark_group(format!("decode/logs_1000x20/{}_json_bytes", json.len()));
    group.throughput(Throughput::Bytes(json.len() as u64));
    let mut decoder = Decoder::new(DecodeLimits::default());
    group.bench_function("json_to_batch", |b| {
        b.iter(|| decoder.decode(OtlpSignal::Logs, Encoding::Json, black_box(&json), 1).expect("valid"));
    });
    group.finish();
}

fn hdfs_lines() -> Vec<u8> {
    if let Ok(path) = std::env::var("FAULTLINE_BENCH_LOG") {
        return std::fs::read(&path).expect("FAULTLINE_BENCH_LOG names a file that can be read");
    }
    let line = |n: u64| {
        let block = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 1;
        format!(
            "081109 2036{:02} {} INFO dfs.DataNode$PacketResponder: Received block blk_{block} of size 67108864 from /10.250.{}.{}\n",
            n % 60,
            n % 400,
            n % 20,
            n % 250
        )
    };
    (0..200_000).map(line).collect::<String>().into_bytes()
}

fn files(c: &mut Criterion) {
    let lines = hdfs_lines();
    let n_lines = memchr::memchr_iter(b'\n', &lines).count() as u64;
    let packed = zstd::encode_all(&lines[..], 3).expect("in memory");
    for (name, bytes) in [("text", &lines), ("text_zstd", &packed)] {
        let mut group = c.benchmark_group(format!("file/{name}/{n_lines}_lines"));
        group.sample_size(20).throughput(Throughput::Elements(n_lines));
        group.bench_function("to_batches", |b| {
            b.iter_batched(
                || Cursor::new(bytes.clone()),
                |input| {
                    let reader = FileReader::from_reader(Path::new("hdfs.log"), input, &FilesConfig::default());
                    let batches = reader.expect("plain text").map(|batch| batch.expect("in memory").batch.n_records());
                    assert_eq!(batches.sum::<usize>() as u64, n_lines);
                },
                criterion::BatchSize::LargeInput,
            );
        });
        group.finish();
    }
}

criterion_group!(benches, decode, files);
criterion_main!(benches);
