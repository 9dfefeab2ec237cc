//! Points and spans a second on one core through the series station: `cargo bench -p faultline-detectors --bench series`.
//!
//! The station knows its series when the clock starts, as one in service does. Every minute each series has a point; what is
//! measured ends with the windows that a detector would be handed.

use std::{hint::black_box, time::Duration};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use faultline_core::{MetricBatch, MetricBatchBuilder, MetricPoint, SpanBatch, SpanBatchBuilder, SpanRecord};
use faultline_detectors::series::{SeriesConfig, SeriesStation};

const SECOND: i64 = 1_000_000_000;
const BATCH: usize = 8_192;
const WARM_UP_MINUTES: i64 = 6;
const MINUTES: i64 = 5;
const N_SPANS: usize = 200_000;

/// What a series is in a benchmark.
#[derive(Clone, Copy)]
enum Kind {
    Gauge,
    Counter,
    Histogram,
}

/// One point of each of `n_series`, a hundred on an instance.
fn minute(kind: Kind, n_series: usize, minute: i64) -> Vec<MetricBatch> {
    let counts: Vec<u64> = (0..16).map(|bucket| minute as u64 * (bucket % 5)).collect();
    let bounds: Vec<f64> = (0..15).map(|bucket| f64::from(bucket) * 0.1).collect();
    let texts: Vec<(String, String)> = (0..n_series)
        .map(|idx| {
            let attributes = format!(r#"{{"http.request.method":"GET","http.route":"/api/v1/things/{}"}}"#, idx % 100);
            (attributes, format!(r#"{{"service.name":"cart","service.instance.id":"cart-{:06}"}}"#, idx / 100))
        })
        .collect();
    let batches = texts.chunks(BATCH).map(|chunk| {
        let mut builder = MetricBatchBuilder::default();
        for (idx, (attributes, resource)) in chunk.iter().enumerate() {
            let point = MetricPoint {
                name: "http.server.request",
                service_name: "cart",
                time_unix_nano: minute * 60 * SECOND,
                start_time_unix_nano: SECOND,
                attributes,
                resource,
                ..MetricPoint::default()
            };
            builder.push(&match kind {
                Kind::Gauge => MetricPoint { kind: "gauge", value_double: Some(idx as f64), ..point },
                Kind::Counter => MetricPoint {
                    kind: "sum",
                    temporality: "cumulative",
                    monotonic: Some(true),
                    value_int: Some(minute * 60),
                    ..point
                },
                Kind::Histogram => MetricPoint {
                    kind: "histogram",
                    temporality: "cumulative",
                    count: Some(counts.iter().sum()),
                    sum: Some(minute as f64),
                    bucket_counts: &counts,
                    bounds: &bounds,
                    ..point
                },
            });
        }
        builder.finish().numbered_from(1)
    });
    batches.collect()
}

fn run(station: &mut SeriesStation, batches: &[MetricBatch]) {
    for batch in batches {
        station.push_metrics(batch);
        black_box(station.ready().len());
        station.settle();
    }
}

fn points(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("series/points");
    let cases = [
        ("gauges", Kind::Gauge, 10_000),
        ("gauges", Kind::Gauge, 100_000),
        ("counters", Kind::Counter, 10_000),
        ("histograms", Kind::Histogram, 10_000),
    ];
    for (name, kind, n_series) in cases {
        let batches = |minutes: std::ops::Range<i64>| -> Vec<MetricBatch> {
            minutes.flat_map(|at| minute(kind, n_series, at)).collect()
        };
        let warm_up = batches(1..1 + WARM_UP_MINUTES);
        let measured = batches(1 + WARM_UP_MINUTES..1 + WARM_UP_MINUTES + MINUTES);
        group.throughput(Throughput::Elements(n_series as u64 * MINUTES as u64));
        group.bench_function(format!("{name}/{n_series}_series"), |bencher| {
            bencher.iter_batched(
                || {
                    let mut station = SeriesStation::new(SeriesConfig::default()).expect("valid");
                    run(&mut station, &warm_up);
                    station
                },
                |mut station| {
                    run(&mut station, &measured);
                    station
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

/// Spans of fifty services with twenty operations each, in order of time.
fn span_batches() -> Vec<SpanBatch> {
    let names: Vec<String> = (0..20).map(|operation| format!("GET /api/v1/{operation}")).collect();
    let services: Vec<String> = (0..50).map(|service| format!("service-{service}")).collect();
    let rows: Vec<usize> = (0..N_SPANS).collect();
    let batches = rows.chunks(BATCH).map(|chunk| {
        let mut builder = SpanBatchBuilder::default();
        for &row in chunk {
            let start_time_unix_nano = row as i64 * 1_000_000;
            builder.push(&SpanRecord {
                trace_id: "4bf92f3577b34da6a3ce929d0e0e4736",
                span_id: "00f067aa0ba902b7",
                parent_span_id: "00f067aa0ba902b8",
                name: &names[row * 7 % names.len()],
                kind: 2,
                service_name: &services[row / 16 % services.len()],
                start_time_unix_nano,
                end_time_unix_nano: start_time_unix_nano + (row % 977) as i64 * 100_000,
                status_code: if row % 100 == 0 { 2 } else { 0 },
                ..SpanRecord::default()
            });
        }
        builder.finish().numbered_from(1)
    });
    batches.collect()
}

fn spans(criterion: &mut Criterion) {
    let batches = span_batches();
    let mut group = criterion.benchmark_group("series/spans");
    group.throughput(Throughput::Elements(N_SPANS as u64));
    group.bench_function(format!("{N_SPANS}_spans"), |bencher| {
        bencher.iter_batched(
            || SeriesStation::new(SeriesConfig::default()).expect("valid"),
            |mut station| {
                for batch in &batches {
                    station.push_spans(batch);
                    black_box(station.ready().len());
                    station.settle();
                }
                station
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

/// Ten samples in three seconds.
fn quick() -> Criterion {
    let (warm_up, measurement) = (Duration::from_secs(1), Duration::from_secs(3));
    Criterion::default().sample_size(10).warm_up_time(warm_up).measurement_time(measurement)
}

criterion_group! {
    name = benches;
    config = quick();
    targets = points, spans
}
criterion_main!(benches);
