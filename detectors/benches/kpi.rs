//! Points a second on one core through the detectors of KPIs: `cargo bench -p faultline-detectors --bench kpi`. The bar is a
//! million for the cheap ones and a hundred thousand for Donut with 64 samples; `change-point` weighs 128 run lengths a point
//! and is not cheap.
//!
//! Alone: one series or instance in long windows, which is what the arithmetic costs. Together: ten thousand series whose windows hold
//! one point each, as in service, where the states have to come from memory. The models are warm when the clock starts. Of
//! instances an element is a cell, a value of one column in one row. What all this takes in memory: `examples/series_memory.rs`.

use std::{hint::black_box, sync::Arc, time::Duration};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use faultline_core::{Detector, GroupWindow, SeriesWindow, Window, WindowKey};
use faultline_detectors::{
    entry,
    testing::{GroupFixture, SeriesFixture},
};
use serde_json::{Value, json};

const CHEAP: [&str; 5] = ["robust-z", "moving-average", "holt-winters", "heavy-tail", "profile-forecast"];
const N_POINTS: usize = 100_000;
const N_SERIES: usize = 10_000;
const N_ROWS: usize = 2_000;

fn fit(name: &str, config: &Value, training: &[Window<'_>]) -> Box<dyn Detector> {
    entry(name).and_then(|entry| entry.fit(config, training, 0)).unwrap_or_else(|error| panic!("{error}"))
}

/// The same points again, so many steps later.
fn later<'a>(series: &'a SeriesFixture, points: &'a [f64], step: i64) -> Window<'a> {
    Window::Series(SeriesWindow {
        key: &series.key,
        kind: faultline_core::SeriesKind::Gauge,
        start_unix_nano: step * SeriesFixture::STEP_NANOS,
        step_nanos: SeriesFixture::STEP_NANOS,
        points,
        records: &[],
        service: &series.key.stream,
    })
}

fn alone(criterion: &mut Criterion) {
    let series = SeriesFixture::seasonal("load", 1, 0, N_POINTS, 0.001);
    let one_look = json!({"epochs": 1, "max_windows": 1024, "first_samples": 64});
    let two_looks = json!({"epochs": 1, "max_windows": 1024});
    let cases = CHEAP.map(|name| (name, name, Value::Null, N_POINTS)).into_iter().chain([
        ("change-point", "change-point", Value::Null, N_POINTS / 10),
        ("donut", "donut_64_samples_each", one_look, N_POINTS / 10),
        ("donut", "donut_64_samples_where_they_matter", two_looks, N_POINTS / 10),
    ]);
    let mut group = criterion.benchmark_group("kpi/alone");
    for (name, id, config, n_points) in cases {
        let mut model = fit(name, &config, &[series.window(0..10_000)]);
        let (points, mut step, mut scores) = (&series.points[..n_points], 10_000, Vec::new());
        group.throughput(Throughput::Elements(n_points as u64));
        group.bench_function(format!("{id}/{n_points}_points"), |bencher| {
            bencher.iter(|| {
                scores.clear();
                model.score(&[later(&series, points, step)], &mut scores);
                step += n_points as i64;
                black_box(scores.len())
            });
        });
    }
    group.finish();
}

fn together(criterion: &mut Criterion) {
    let series: Vec<SeriesFixture> = (0..N_SERIES as u64)
        .map(|idx| SeriesFixture::seasonal(&format!("http.server.duration{{route=/{idx}}} p99"), idx, 0, 300, 0.0))
        .collect();
    let training: Vec<Window<'_>> = series.iter().map(SeriesFixture::whole).collect();
    let mut group = criterion.benchmark_group("kpi/together");
    group.throughput(Throughput::Elements(N_SERIES as u64));
    for name in CHEAP {
        let mut model = fit(name, &Value::Null, &training);
        let (mut step, mut scores) = (300, Vec::new());
        group.bench_function(format!("{name}/{N_SERIES}_series"), |bencher| {
            bencher.iter_batched(
                || {
                    step += 1;
                    let at = (step % 300) as usize;
                    series.iter().map(|own| later(own, &own.points[at..=at], step)).collect::<Vec<Window<'_>>>()
                },
                |windows| {
                    scores.clear();
                    model.score(&windows, &mut scores);
                    scores.len()
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

fn instances(criterion: &mut Criterion) {
    let key = WindowKey { stream: Arc::from("cart"), session: Arc::from("cart-1") };
    let mut group = criterion.benchmark_group("kpi/instances");
    for n_columns in [38, 128] {
        // Copies of a few columns, shifted against each other.
        let rows = GroupFixture::coupled("cart-1", 1, 0, N_ROWS, 0.0).values;
        let cell = |row: usize, column: usize| rows[(row + 7 * column) % N_ROWS * 6 + column % 6];
        let values: Vec<f64> = (0..N_ROWS)
            .flat_map(|row| (0..n_columns).map(move |column| (row, column)))
            .map(|(row, column)| cell(row, column))
            .collect();
        let columns: Vec<Arc<str>> = (0..n_columns).map(|column| Arc::from(format!("metric {column}"))).collect();
        let window = |first_row: i64| {
            Window::Group(GroupWindow {
                key: &key,
                columns: &columns,
                start_unix_nano: first_row * GroupFixture::STEP_NANOS,
                step_nanos: GroupFixture::STEP_NANOS,
                n_rows: N_ROWS,
                values: &values,
                service: &key.stream,
            })
        };
        group.throughput(Throughput::Elements((N_ROWS * n_columns) as u64));
        for name in ["mahalanobis", "birch"] {
            let mut model = fit(name, &Value::Null, &[window(0)]);
            let (mut first_row, mut scores) = (0, Vec::new());
            group.bench_function(format!("{name}/{n_columns}_columns/{N_ROWS}_rows"), |bencher| {
                bencher.iter(|| {
                    first_row += N_ROWS as i64;
                    scores.clear();
                    model.score(&[window(first_row)], &mut scores);
                    black_box(scores.len())
                });
            });
        }
        group.bench_function(format!("mahalanobis/{n_columns}_columns/fit"), |bencher| {
            bencher.iter(|| fit("mahalanobis", &Value::Null, &[window(0)]).version());
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
    targets = alone, together, instances
}
criterion_main!(benches);
