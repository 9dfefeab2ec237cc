//! Spans a second on one core through trace assembly, alone and with each trace's shape measured: traces of 30 spans over
//! six services, about two hundred of them under way at a time and some six thousand waited for. One in a hundred spans is
//! lost, and one in a hundred comes twice.

use std::{hint::black_box, time::Duration};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use faultline_core::{SpanBatch, SpanBatchBuilder, SpanRecord};
use faultline_detectors::traces::{Shape, TraceAssembler, TraceConfig};

const N_TRACES: u64 = 20_000;
const N_SPANS: u64 = 30;
const BATCH: usize = 8_192;
const SERVICES: [&str; 6] = ["gateway", "cart", "checkout", "stock", "payment", "mail"];

struct Span {
    trace: u64,
    span: u64,
    start: i64,
    end: i64,
}

/// Interleaved traces as batches, in the order in which the spans end. The caller of span `n` is span `(n - 1) / 3`.
fn batches() -> Vec<SpanBatch> {
    let mut spans: Vec<Span> = Vec::new();
    for trace in 0..N_TRACES {
        for span in 0..N_SPANS {
            let draw = mix(trace << 8 | span);
            let start = trace as i64 * 1_000_000 + span as i64 * 5_000_000;
            let end = start + 200_000_000 / (1 + span as i64) + (draw >> 32) as i64 % 1_000_000;
            let copies = match draw % 100 {
                0 => 0,
                1 => 2,
                _ => 1,
            };
            spans.extend((0..copies).map(|_| Span { trace, span, start, end }));
        }
    }
    spans.sort_by_key(|span| (span.end, span.trace, span.span));
    let mut first_id = 1;
    spans
        .chunks(BATCH)
        .map(|chunk| {
            let mut builder = SpanBatchBuilder::default();
            for &Span { trace, span, start, end } in chunk {
                let id = |span: u64| format!("{:016x}", mix(trace << 8 | span));
                let parent_span_id = if span == 0 { String::new() } else { id((span - 1) / 3) };
                builder.push(&SpanRecord {
                    trace_id: &format!("{:016x}{:016x}", mix(trace), mix(!trace)),
                    span_id: &id(span),
                    parent_span_id: &parent_span_id,
                    name: &format!("GET /{}/{}", span % 6, span % 10),
                    kind: 2,
                    service_name: SERVICES[(span % 6) as usize],
                    start_time_unix_nano: start,
                    end_time_unix_nano: end,
                    ..SpanRecord::default()
                });
            }
            let batch = builder.finish().numbered_from(first_id);
            first_id += chunk.len() as u64;
            batch
        })
        .collect()
}

/// Spreads a number over all bits.
fn mix(number: u64) -> u64 {
    let number = (number ^ number >> 30).wrapping_add(0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb)
}

fn traces(c: &mut Criterion) {
    let batches = batches();
    let n_spans: usize = batches.iter().map(SpanBatch::len).sum();
    let mut group = c.benchmark_group("traces");
    group.throughput(Throughput::Elements(n_spans as u64));
    let assembler = || TraceAssembler::new(TraceConfig::default()).expect("valid");
    group.bench_function(format!("assemble/{n_spans}_spans"), |b| {
        b.iter_batched(
            assembler,
            |mut assembler| {
                for batch in &batches {
                    assembler.push(batch);
                    black_box(assembler.ready().len());
                    assembler.settle();
                }
                assembler.finish();
                assembler
            },
            BatchSize::PerIteration,
        );
    });
    group.bench_function(format!("assemble_and_measure/{n_spans}_spans"), |b| {
        let mut shape = Shape::default();
        b.iter_batched(
            assembler,
            |mut assembler| {
                let mut measure = |assembler: &mut TraceAssembler| {
                    for trace in assembler.ready().iter().filter_map(|window| window.as_trace()) {
                        shape.measure(trace);
                        black_box((shape.structure(), shape.vector(trace).len()));
                    }
                    assembler.settle();
                };
                for batch in &batches {
                    assembler.push(batch);
                    measure(&mut assembler);
                }
                assembler.finish();
                measure(&mut assembler);
                assembler
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
    targets = traces
}
criterion_main!(benches);
