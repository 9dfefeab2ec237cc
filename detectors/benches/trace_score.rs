//! Spans a second on one core from batches to scores: assembly, trace-vector on each trace, what each service did by the
//! minute, service-latency on that. Traces of the six services of `testing`, five to nine spans each, a second apart. The
//! bar is 200,000. Beside that the networks, each alone.

use std::{hint::black_box, time::Duration};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use faultline_core::{Detector, Score, SpanBatch, SpanBatchBuilder, SpanEntry, SpanRecord, Window};
use faultline_detectors::{
    registry,
    testing::{TraceFixture, application, service_minutes},
    traces::{ServiceConfig, ServiceStation, Shape, TraceAssembler, TraceConfig},
};
use serde_json::Value;

const N_TRACES: usize = 20_000;
const BATCH: usize = 8_192;

/// Traces as batches, spans in the order in which they end.
fn batches(traces: &[(TraceFixture, bool)]) -> Vec<SpanBatch> {
    let mut spans: Vec<(&TraceFixture, &SpanEntry)> =
        traces.iter().flat_map(|(trace, _)| trace.spans.iter().map(move |span| (trace, span))).collect();
    spans.sort_by_key(|(_, span)| (span.end_unix_nano(), span.record));
    let mut first_id = 1;
    spans
        .chunks(BATCH)
        .map(|chunk| {
            let mut builder = SpanBatchBuilder::default();
            for (trace, span) in chunk {
                let id = |record: u64| format!("{record:016x}");
                let parent_span_id = span.parent().map_or(String::new(), |parent| id(trace.spans[parent].record));
                builder.push(&SpanRecord {
                    trace_id: &trace.key.session,
                    span_id: &id(span.record),
                    parent_span_id: &parent_span_id,
                    name: &trace.operations[span.operation as usize],
                    kind: i32::from(span.kind),
                    service_name: &trace.services[span.service as usize],
                    start_time_unix_nano: span.start_unix_nano,
                    end_time_unix_nano: span.end_unix_nano(),
                    ..SpanRecord::default()
                });
            }
            let batch = builder.finish().numbered_from(first_id);
            first_id += chunk.len() as u64;
            batch
        })
        .collect()
}

/// Names and snapshots of the detectors.
struct Fitted(Vec<(&'static str, Vec<u8>)>);

impl Fitted {
    fn new() -> Self {
        let fit = |name: &'static str, windows: &[Window<'_>]| {
            let entry = registry::entry(name).expect("it is listed");
            let model = entry.fit(&Value::Null, windows, 0).expect("it fits");
            (name, model.snapshot().expect("it can be written"))
        };
        let (traces, minutes) = (application(1, 5_000, 0.0), service_minutes(1, 0, 30, 0.0));
        let traces: Vec<Window<'_>> = traces.iter().map(|(trace, _)| trace.window()).collect();
        let minutes: Vec<Window<'_>> = minutes.iter().map(|(minute, _)| minute.window()).collect();
        Self(vec![fit("trace-vector", &traces), fit("service-latency", &minutes)])
    }

    fn load(&self, idx: usize) -> Box<dyn Detector> {
        let (name, snapshot) = &self.0[idx];
        let entry = registry::entry(name).expect("it is listed");
        entry.load(&Value::Null, snapshot).expect("its own snapshot")
    }
}

/// The detectors, fitted, and the stations that feed them.
struct Path {
    assembler: TraceAssembler,
    station: ServiceStation,
    shape: Shape,
    by_trace: Box<dyn Detector>,
    by_service: Box<dyn Detector>,
    scores: Vec<Option<Score>>,
}

fn fit(name: &str, windows: &[Window<'_>]) -> Box<dyn Detector> {
    let entry = registry::entry(name).expect("it is listed");
    entry.fit(&Value::Null, windows, 0).expect("it fits")
}

impl Path {
    fn new(fitted: &Fitted) -> Self {
        Self {
            assembler: TraceAssembler::new(TraceConfig::default()).expect("valid"),
            station: ServiceStation::new(ServiceConfig::default()).expect("valid"),
            shape: Shape::default(),
            by_trace: fitted.load(0),
            by_service: fitted.load(1),
            scores: Vec::new(),
        }
    }

    /// Scores what is complete.
    fn score(&mut self) {
        let windows = self.assembler.ready();
        self.scores.clear();
        self.by_trace.score(&windows, &mut self.scores);
        for trace in windows.iter().filter_map(Window::as_trace) {
            self.shape.measure(trace);
            self.station.push(trace, &self.shape);
        }
        self.assembler.settle();
        self.station.advance_to(self.assembler.watermark_unix_nano());
        let windows = self.station.ready();
        self.by_service.score(&windows, &mut self.scores);
        self.by_service.learn(&windows);
        self.station.settle();
        black_box(&self.scores);
    }
}

fn trace_score(c: &mut Criterion) {
    let batches = batches(&application(2, N_TRACES, 0.01));
    let n_spans: usize = batches.iter().map(SpanBatch::len).sum();
    let fitted = Fitted::new();
    let mut group = c.benchmark_group("trace_score");
    group.throughput(Throughput::Elements(n_spans as u64));
    group.bench_function(format!("assemble_and_score/{n_spans}_spans"), |b| {
        b.iter_batched(
            || Path::new(&fitted),
            |mut path| {
                for batch in &batches {
                    path.assembler.push(batch);
                    path.score();
                }
                path.assembler.finish();
                path.score();
                path
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

/// The detectors that are networks, each alone on traces that are complete. All shapes but a few are known to `masked-span` by
/// then, as in service.
fn networks(c: &mut Criterion) {
    let (training, traces) = (application(1, 5_000, 0.0), application(2, N_TRACES, 0.01));
    let training: Vec<Window<'_>> = training.iter().map(|(trace, _)| trace.window()).collect();
    let n_spans: usize = traces.iter().map(|(trace, _)| trace.spans.len()).sum();
    let windows: Vec<Window<'_>> = traces.iter().map(|(trace, _)| trace.window()).collect();
    let mut group = c.benchmark_group("trace_networks");
    group.throughput(Throughput::Elements(n_spans as u64));
    for name in ["span-lstm", "masked-span"] {
        let (mut detector, mut scores) = (fit(name, &training), Vec::new());
        group.bench_function(format!("{name}/{n_spans}_spans"), |b| {
            b.iter(|| {
                scores.clear();
                detector.score(&windows, &mut scores);
                black_box(&scores);
            });
        });
    }
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
    targets = trace_score, networks
}
criterion_main!(benches);
