//! Points a second on one core through the detectors of KPIs: `cargo bench -p faultline-detectors --bench kpi`.
//!
//! Alone: one series or instance in long windows, which is what the arithmetic costs. Together: ten thousand series whose windows hold
//! one point each, as in service, where the states have to come from memory. The models are warm when the clock starts.

use std::{hint::black_box, sync::Arc};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use faultline_core::{Detector, GroupWindow, SeriesWindow, Window, WindowKey};
use faultline_detectors::{
    Algorithm,
    algorithms::{
        change_point, heavy_tail,
        mahalanobis::{self, Mahalanobis},
        profile_forecast::{self, ProfileForecast, judge_series},
    },
    testing::{GroupFixture, SeriesFixture},
};

const N_POINTS: usize = 100_000;
const N_SERIES: usize = 10_000;
const N_ROWS: usize = 2_000;

fn alone(criterion: &mut Criterion) {
    let series = SeriesFixture::seasonal("load", 1, 0, N_POINTS, 0.001);
    let config = profile_forecast::Config::default();
    let mut group = criterion.benchmark_group("kpi/profile_forecast");
    group.throughput(Throughput::Elements(N_POINTS as u64)).sample_size(10);
    group.bench_function(format!("alone/{N_POINTS}_points"), |bencher| {
        bencher.iter(|| black_box(judge_series(&config, SeriesFixture::STEP_NANOS, 0, &series.points)).len());
    });
    group.finish();
}

fn together(criterion: &mut Criterion) {
    let series: Vec<SeriesFixture> = (0..N_SERIES as u64)
        .map(|idx| SeriesFixture::seasonal(&format!("http.server.duration{{route=/{idx}}} p99"), idx, 0, 300, 0.0))
        .collect();
    let mut model = ProfileForecast::fit(&profile_forecast::Config::default(), &[], 0).expect("it needs none");
    let mut scores = Vec::new();
    for own in &series {
        model.score(&[own.whole()], &mut scores);
    }
    let mut step = 300;
    let mut group = criterion.benchmark_group("kpi/profile_forecast");
    group.throughput(Throughput::Elements(N_SERIES as u64)).sample_size(20);
    group.bench_function(format!("together/{N_SERIES}_series"), |bencher| {
        bencher.iter_batched(
            || {
                step += 1;
                let windows = series.iter().map(|own| SeriesWindow {
                    key: &own.key,
                    kind: faultline_core::SeriesKind::Gauge,
                    start_unix_nano: step * SeriesFixture::STEP_NANOS,
                    step_nanos: SeriesFixture::STEP_NANOS,
                    points: &own.points[(step % 300) as usize..][..1],
                    records: &[],
                    service: &own.key.stream,
                });
                windows.map(Window::Series).collect::<Vec<_>>()
            },
            |windows| {
                scores.clear();
                model.score(&windows, &mut scores);
                scores.len()
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
    println!("{} bytes a series", model.bytes() / N_SERIES);
}

fn tails_and_runs(criterion: &mut Criterion) {
    let series = SeriesFixture::seasonal("load", 1, 0, N_POINTS, 0.001);
    let mut group = criterion.benchmark_group("kpi");
    group.throughput(Throughput::Elements(N_POINTS as u64)).sample_size(10);
    group.bench_function(format!("heavy_tail/alone/{N_POINTS}_points"), |bencher| {
        let config = heavy_tail::Config::default();
        bencher
            .iter(|| black_box(heavy_tail::judge_series(&config, SeriesFixture::STEP_NANOS, 0, &series.points)).len());
    });
    let points = &series.points[..N_POINTS / 10];
    group.throughput(Throughput::Elements(points.len() as u64));
    group.bench_function(format!("change_point/alone/{}_points", points.len()), |bencher| {
        let config = change_point::Config::default();
        bencher.iter(|| black_box(change_point::judge_series(&config, SeriesFixture::STEP_NANOS, 0, points)).len());
    });
    group.finish();
}

fn instances(criterion: &mut Criterion) {
    let key = WindowKey { stream: Arc::from("cart"), session: Arc::from("cart-1") };
    let config = mahalanobis::Config { max_columns: 256, ..mahalanobis::Config::default() };
    let mut group = criterion.benchmark_group("kpi/mahalanobis");
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
        let mut model = Mahalanobis::fit(&config, &[window(0)], 0).expect("the rows suffice");
        let (mut first_row, mut scores) = (0, Vec::new());
        group.throughput(Throughput::Elements((N_ROWS * n_columns) as u64)).sample_size(10);
        group.bench_function(format!("{n_columns}_columns/{N_ROWS}_rows"), |bencher| {
            bencher.iter(|| {
                first_row += N_ROWS as i64;
                scores.clear();
                model.score(&[window(first_row)], &mut scores);
                black_box(scores.len())
            });
        });
        group.sample_size(10).bench_function(format!("{n_columns}_columns/fit"), |bencher| {
            bencher.iter(|| Mahalanobis::fit(&config, &[window(0)], 0).expect("the rows suffice").version());
        });
    }
    group.finish();
}

criterion_group!(benches, alone, together, tails_and_runs, instances);
criterion_main!(benches);
