use std::collections::BTreeMap;

use faultline_core::SpanRecord;
use proptest::prelude::*;

use super::*;

/// What a window of a series is to a property: where it starts, its step, its points.
type Run = (i64, i64, Vec<f64>);

/// Checks every window that is ready, settles them, and adds the runs of each series to `runs`.
fn collect(station: &mut SeriesStation, runs: &mut BTreeMap<String, Vec<Run>>) {
    for window in station.ready() {
        if let Some(series) = window.as_series() {
            assert!(!series.points.is_empty(), "{series:?}");
            assert!(series.step_nanos > 0 && series.start_unix_nano % series.step_nanos == 0, "{series:?}");
            assert!(series.points.iter().all(|value| value.is_nan() || value.is_finite()), "{series:?}");
            assert_eq!(series.points.len(), series.records.len());
            let run = (series.start_unix_nano, series.step_nanos, series.points.to_vec());
            let key = format!("{} {}", series.key.stream, series.key.session);
            runs.entry(key).or_default().push(run);
        }
        if let Some(group) = window.as_group() {
            assert_eq!(group.values.len(), group.n_rows * group.columns.len());
            assert!(group.n_rows > 0 && group.start_unix_nano % group.step_nanos == 0, "{group:?}");
            assert!(group.values.iter().all(|value| value.is_nan() || value.is_finite()), "{group:?}");
        }
    }
    station.settle();
}

/// One after the other, without a gap that would have been filled: none of up to `max_gap` steps.
fn assert_contiguous(runs: &BTreeMap<String, Vec<Run>>, max_gap: i64) {
    for (key, runs) in runs {
        for pair in runs.windows(2) {
            let ((start, step, points), (next, next_step, _)) = (&pair[0], &pair[1]);
            assert_eq!(step, next_step, "{key}");
            let n_missing = (next - start) / step - points.len() as i64;
            assert!(n_missing == 0 || n_missing > max_gap, "{key}: {n_missing} steps are missing");
        }
    }
}

/// Form, time, value, whole number.
type Wild = (u8, i64, f64, i64);

fn wild_time() -> impl Strategy<Value = i64> {
    prop_oneof![
        any::<i64>(),
        Just(i64::MIN),
        Just(i64::MAX),
        Just(0),
        (0..1_000i64).prop_map(|s| s * SECOND),
        (0..1_000_000i64).prop_map(|s| s * SECOND),
    ]
}

fn wild_points() -> impl Strategy<Value = Vec<Wild>> {
    let value = prop_oneof![any::<f64>(), Just(f64::NAN), Just(f64::INFINITY), -10.0..10.0f64];
    proptest::collection::vec((0..9u8, wild_time(), value, any::<i64>()), 1..200)
}

fn runs_of(config: &SeriesConfig, points: &[Wild], cut: usize) -> (BTreeMap<String, Vec<Run>>, SeriesStats) {
    let mut station = station(config.clone());
    let mut runs = BTreeMap::new();
    for chunk in points.chunks(cut) {
        let lists: Vec<([u64; 3], [f64; 2])> = chunk
            .iter()
            .map(|(_, _, value, whole)| ([whole.unsigned_abs(), 1, u64::MAX], [*value, *whole as f64]))
            .collect();
        let built: Vec<MetricPoint<'_>> = chunk
            .iter()
            .zip(&lists)
            .map(|((form, time, value, whole), (counts, bounds))| MetricPoint {
                name: ["a", "b"][usize::from(form % 2)],
                kind: ["gauge", "sum", "histogram", "exponential_histogram", "summary"][usize::from(form / 2)],
                temporality: if whole % 3 == 0 { "delta" } else { "cumulative" },
                monotonic: Some(whole % 2 == 0),
                service_name: "cart",
                time_unix_nano: *time,
                start_time_unix_nano: *whole,
                value_double: (whole % 5 != 0).then_some(*value),
                value_int: Some(*whole),
                count: Some(whole.unsigned_abs()),
                sum: Some(*value),
                min: Some(*value),
                bucket_counts: counts,
                bounds,
                quantile_values: bounds,
                scale: Some(*whole as i32 % 32),
                positive_offset: Some(*whole as i32),
                negative_offset: Some(*whole as i32),
                negative_bucket_counts: counts,
                attributes: if form % 3 == 0 { r#"{"k":[1,{"a":null}]}"# } else { "" },
                ..MetricPoint::default()
            })
            .collect();
        station.push_metrics(&batch(&built));
        collect(&mut station, &mut runs);
    }
    station.finish();
    collect(&mut station, &mut runs);
    (runs, station.stats())
}

fn spans_of(config: &SeriesConfig, spans: &[Wild], cut: usize) -> BTreeMap<String, Vec<Run>> {
    let mut station = station(config.clone());
    let mut runs = BTreeMap::new();
    for chunk in spans.chunks(cut) {
        let built: Vec<SpanRecord<'_>> = chunk
            .iter()
            .map(|(form, time, _, whole)| SpanRecord {
                name: ["a", "b", "c"][usize::from(form % 3)],
                kind: i32::from(*form),
                service_name: ["", "cart"][usize::from(form % 2)],
                start_time_unix_nano: *time,
                end_time_unix_nano: time.saturating_add(*whole),
                status_code: i32::from(*form) % 3,
                ..SpanRecord::default()
            })
            .collect();
        station.push_spans(&red::spans(&built));
        for (_, time, _, whole) in chunk {
            let call = Call { start_unix_nano: *time, duration_nanos: *whole, ..Call::default() };
            station.push_call("cart", ["a", "b"][usize::from(whole % 2 == 0)], &call);
        }
        collect(&mut station, &mut runs);
    }
    station.finish();
    collect(&mut station, &mut runs);
    runs
}

/// A series at a regular step with jitter and missing points, and what each point is worth.
fn regular_points() -> impl Strategy<Value = Vec<(i64, f64)>> {
    proptest::collection::vec((0..4u8, -3_000..3_000i64, -1e6..1e6f64), 5..60).prop_map(|points| {
        let numbered = points.into_iter().zip(1..);
        // The first ones, from which the step is found, are all there.
        let kept = numbered.filter(|((missing, ..), minute)| *minute <= 4 || *missing > 0);
        kept.map(|((_, jitter_ms, value), minute)| ((minute * 60_000 + jitter_ms) * 1_000_000, value)).collect()
    })
}

#[test]
fn a_flood_of_attributes_and_instances_is_refused_and_takes_little_room() {
    const BATCH: usize = 10_000;
    let mut station = station(SeriesConfig { max_series: 1_000, ..SeriesConfig::default() });
    for first in (0..10 * BATCH).step_by(BATCH) {
        let texts: Vec<(String, String)> = (first..first + BATCH)
            .map(|n| (format!(r#"{{"user":"{n}"}}"#), format!(r#"{{"service.instance.id":"pod-{n}"}}"#)))
            .collect();
        let points: Vec<_> = texts
            .iter()
            .map(|(attributes, resource)| MetricPoint { attributes, resource, ..gauge("requests", 60, 1.0) })
            .collect();
        station.push_metrics(&batch(&points));
        station.settle();
    }
    let stats = station.stats();
    assert_eq!((stats.n_points, stats.n_series, stats.n_refused), (1_000, 1_000, 99_000));
    assert!(stats.n_refused_series > 0 && stats.n_instances <= 65_536, "{stats:?}");
    assert!(station.bytes() < 32 << 20, "{} bytes", station.bytes());
}

proptest! {
    #[test]
    fn whatever_comes_is_shown_regularly_or_counted(points in wild_points(), cut in 1..50usize, max_series in 1..20usize) {
        let config = SeriesConfig { max_series, ..SeriesConfig::default() };
        let (_, stats) = runs_of(&config, &points, cut);
        prop_assert!(stats.n_series <= max_series);
        let left_out = stats.n_no_value + stats.n_non_finite + stats.n_duplicate + stats.n_late + stats.n_strange
            + stats.n_out_of_range + stats.n_conflicting + stats.n_refused + stats.n_resets + stats.n_backwards;
        // Some are counted twice (used, but in the wrong order or with something odd about them), none never.
        prop_assert!(stats.n_points + left_out >= points.len() as u64, "{stats:?}");
        prop_assert!(stats.n_points <= points.len() as u64);
    }

    #[test]
    fn windows_of_a_series_follow_one_another(
        points in proptest::collection::vec((0..4u8, 0..80_000i64, -1e6..1e6f64, 0..1_000i64), 1..200),
        cut in 1..50usize,
        lateness_s in 0..200u64,
        fixed in any::<bool>(),
    ) {
        let points: Vec<Wild> = points.into_iter().map(|(form, s, value, whole)| (form, s * SECOND, value, whole)).collect();
        let config = SeriesConfig {
            allowed_lateness_ms: lateness_s * 1_000,
            step_ms: fixed.then_some(60_000),
            max_gap_steps: 5,
            // A series that was dropped and has come back is a new one.
            retire_after_ms: u64::MAX,
            ..SeriesConfig::default()
        };
        let (runs, _) = runs_of(&config, &points, cut);
        assert_contiguous(&runs, 5);
    }

    #[test]
    fn the_same_input_gives_the_same_windows(points in wild_points(), cut in 1..50usize) {
        let config = SeriesConfig::default();
        let (once, again) = (runs_of(&config, &points, cut), runs_of(&config, &points, cut));
        prop_assert_eq!(format!("{once:?}"), format!("{again:?}"));
        let (once, again) = (spans_of(&config, &points, cut), spans_of(&config, &points, cut));
        prop_assert_eq!(format!("{once:?}"), format!("{again:?}"));
    }

    #[test]
    fn how_a_regular_series_is_cut_into_batches_makes_no_difference(points in regular_points(), cut in 1..20usize) {
        let values_of = |cut: usize| {
            let mut station = station(SeriesConfig::default());
            let (mut runs, mut values) = (BTreeMap::new(), Vec::new());
            for chunk in points.chunks(cut) {
                let built: Vec<_> = chunk
                    .iter()
                    .map(|(time, value)| MetricPoint { time_unix_nano: *time, ..gauge("cpu", 0, *value) })
                    .collect();
                station.push_metrics(&batch(&built));
                collect(&mut station, &mut runs);
            }
            station.finish();
            collect(&mut station, &mut runs);
            for (start, step, points) in runs.into_values().flatten() {
                for (nth, value) in points.into_iter().enumerate() {
                    values.push((start / step + nth as i64, value.to_bits()));
                }
            }
            (values, station.stats().n_late)
        };
        let (whole, n_late) = values_of(points.len());
        prop_assert_eq!(n_late, 0);
        prop_assert_eq!(values_of(cut), (whole, 0));
    }

    #[test]
    fn spans_of_any_time_and_length_are_shown_regularly(points in wild_points(), cut in 1..50usize) {
        let config = SeriesConfig { max_gap_steps: 5, max_operations: 2, ..SeriesConfig::default() };
        let runs = spans_of(&config, &points, cut);
        prop_assert!(runs.len() <= 40, "{} series", runs.len());
    }
}
