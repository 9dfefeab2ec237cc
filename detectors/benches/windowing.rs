//! Records a second on one core through the windowing station and each cheap detector, on sessions like those of HDFS:
//! some 19 records each, a hundred of them interleaved. `FAULTLINE_BENCH_ALL=1` adds the deep detectors.

use std::{hint::black_box, sync::Arc};

use arrow::array::{StringArray, UInt64Array};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use faultline_core::{LogBatch, LogBatchBuilder, LogRecord, Signal, Window};
use faultline_detectors::{
    Entry, REGISTRY,
    lifecycle::{Monitor, MonitorConfig, WarmUp},
    testing::{Session, synthetic},
    windowing::{WindowConfig, Windower},
};
use serde_json::{Value, json};

const N_SESSIONS: usize = 20_000;
const BATCH: usize = 8_192;

/// Interleaved sessions as parsed batches, in event-time order.
fn batches() -> Vec<LogBatch> {
    let mut records: Vec<(i64, String, u64)> = Vec::new();
    for (idx, (session, _)) in synthetic(1, N_SESSIONS, 0.0).into_iter().enumerate() {
        let key = format!("blk_{:019}", (idx as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 1);
        for (n, entry) in session.records.iter().chain(&session.records).enumerate() {
            // Twice the workflow, and starts 4 ms apart where a session lasts about 400 ms.
            let time = idx as i64 * 4_000_000 + n as i64 * 20_000_000;
            records.push((time, key.clone(), entry.template.0));
        }
    }
    records.sort();
    let mut first_id = 1;
    records
        .chunks(BATCH)
        .map(|chunk| {
            let mut builder = LogBatchBuilder::default();
            for (time, ..) in chunk {
                builder.push(&LogRecord {
                    time_unix_nano: *time,
                    service_name: "dfs.DataNode",
                    severity_number: 9,
                    ..LogRecord::default()
                });
            }
            let batch = builder.finish().numbered_from(first_id);
            first_id += chunk.len() as u64;
            let templates = UInt64Array::from_iter_values(chunk.iter().map(|record| record.2));
            let sessions = StringArray::from_iter_values(chunk.iter().map(|record| &record.1));
            let batch = batch.with_column("template_id", Arc::new(templates)).expect("ids");
            batch.with_column("session", Arc::new(sessions)).expect("texts")
        })
        .collect()
}

fn windowing(c: &mut Criterion) {
    let batches = batches();
    let n_records: usize = batches.iter().map(LogBatch::len).sum();
    let mut group = c.benchmark_group("windowing");
    group.throughput(Throughput::Elements(n_records as u64)).sample_size(10);
    let in_order = WindowConfig { session_gap_ms: 1_000, ..WindowConfig::default() };
    let sorted = WindowConfig { allowed_lateness_ms: 0, ..in_order.clone() };
    for (name, config) in [("incremental", &in_order), ("sorted_input", &sorted)] {
        group.bench_function(format!("{name}/{n_records}_records"), |b| {
            b.iter_batched(
                || Windower::new(config.clone()).expect("valid"),
                |mut windower| {
                    for batch in &batches {
                        windower.push(batch);
                        black_box(windower.ready().len());
                        windower.settle();
                    }
                    windower
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

fn detectors(c: &mut Criterion) {
    let all = std::env::var_os("FAULTLINE_BENCH_ALL").is_some();
    let training: Vec<Session> = synthetic(1, 3_000, 0.0).into_iter().map(|(session, _)| session).collect();
    let sessions: Vec<Session> = synthetic(2, 20_000, 0.02).into_iter().map(|(session, _)| session).collect();
    let training: Vec<Window<'_>> = training.iter().map(Session::closed).collect();
    let windows: Vec<Window<'_>> = sessions.iter().map(Session::closed).collect();
    let n_records: usize = sessions.iter().map(|session| session.records.len()).sum();
    let mut group = c.benchmark_group("score");
    group.throughput(Throughput::Elements(n_records as u64)).sample_size(10);
    let cheap = ["new-template", "length", "ngram", "count-vector"];
    let reads_logs = |entry: &&Entry| entry.signal == Signal::Logs;
    for entry in REGISTRY.iter().filter(reads_logs).filter(|entry| all || cheap.contains(&entry.name)) {
        let mut model = entry.fit(&Value::Null, &training, 0).expect("it fits");
        let mut scores = Vec::with_capacity(windows.len());
        group.bench_function(format!("{}/{n_records}_records", entry.name), |b| {
            b.iter(|| {
                scores.clear();
                model.score(&windows, &mut scores);
                black_box(scores.len())
            });
        });
    }
    group.finish();
}

fn window_to_alert(c: &mut Criterion) {
    let batches = batches();
    let n_records: usize = batches.iter().map(LogBatch::len).sum();
    let detectors = ["new-template", "length", "ngram", "count-vector"].map(|name| (name.to_owned(), json!({})));
    let warm_up = WarmUp { sessions: Some(2_000), ..WarmUp::default() };
    let config = MonitorConfig { detectors: detectors.into(), warm_up, ..MonitorConfig::default() };
    let mut group = c.benchmark_group("window_to_alert");
    group.throughput(Throughput::Elements(n_records as u64)).sample_size(10);
    group.bench_function(format!("four_baselines/{n_records}_records"), |b| {
        b.iter_batched(
            || {
                let windows = WindowConfig { session_gap_ms: 1_000, ..WindowConfig::default() };
                (Windower::new(windows).expect("valid"), Monitor::new(config.clone()).expect("valid"))
            },
            |(mut windower, mut monitor)| {
                for batch in &batches {
                    windower.push(batch);
                    black_box(monitor.process(&windower.ready()).alerts.len());
                    windower.settle();
                    monitor.advance_to(windower.watermark_unix_nano());
                }
                (windower, monitor)
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(benches, windowing, detectors, window_to_alert);
criterion_main!(benches);
