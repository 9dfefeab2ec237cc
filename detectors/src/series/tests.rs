mod properties;
mod red;

use faultline_core::{MetricBatchBuilder, MetricPoint};

use super::*;

fn station(config: SeriesConfig) -> SeriesStation {
    SeriesStation::new(config).expect("valid")
}

fn batch(points: &[MetricPoint<'_>]) -> MetricBatch {
    let mut builder = MetricBatchBuilder::default();
    points.iter().for_each(|point| builder.push(point));
    builder.finish().numbered_from(1)
}

/// A point of service `cart` without anything in it.
fn point<'a>(name: &'a str, kind: &'a str, time_s: i64) -> MetricPoint<'a> {
    MetricPoint { name, kind, service_name: "cart", time_unix_nano: time_s * SECOND, ..MetricPoint::default() }
}

fn gauge(name: &str, time_s: i64, value: f64) -> MetricPoint<'_> {
    MetricPoint { value_double: Some(value), ..point(name, "gauge", time_s) }
}

fn counter(name: &str, time_s: i64, value: i64, start_s: i64) -> MetricPoint<'_> {
    MetricPoint {
        temporality: "cumulative",
        monotonic: Some(true),
        value_int: Some(value),
        start_time_unix_nano: start_s * SECOND,
        ..point(name, "sum", time_s)
    }
}

fn delta(name: &str, time_s: i64, value: f64, start_s: i64) -> MetricPoint<'_> {
    MetricPoint {
        temporality: "delta",
        monotonic: Some(true),
        value_double: Some(value),
        start_time_unix_nano: start_s * SECOND,
        ..point(name, "sum", time_s)
    }
}

/// A number as a test reads it; `-` for a gap.
fn digits(value: f64) -> String {
    if value.is_nan() { "-".to_owned() } else { ((value * 1e4).round() / 1e4).to_string() }
}

/// The series that are ready, as `session start/step: points`, in seconds; they are settled.
fn show(station: &mut SeriesStation) -> Vec<String> {
    let windows = station.ready();
    let series = windows.iter().filter_map(Window::as_series).map(|window| {
        let points: Vec<String> = window.points.iter().map(|value| digits(*value)).collect();
        let (start, step) = (window.start_unix_nano / SECOND, window.step_nanos / SECOND);
        format!("{} {start}/{step}: {}", window.key.session, points.join(" "))
    });
    let shown = series.collect();
    drop(windows);
    station.settle();
    shown
}

/// The instances that are ready, as `session start/step: row | row`.
fn show_rows(station: &mut SeriesStation) -> Vec<String> {
    let windows = station.ready();
    let groups = windows.iter().filter_map(Window::as_group).map(|window| {
        let row = |idx| window.row(idx).iter().map(|value| digits(*value)).collect::<Vec<_>>().join(" ");
        let rows: Vec<String> = (0..window.n_rows).map(row).collect();
        let (start, step) = (window.start_unix_nano / SECOND, window.step_nanos / SECOND);
        format!("{} {start}/{step}: {}", window.key.session, rows.join(" | "))
    });
    let shown = groups.collect();
    drop(windows);
    station.settle();
    shown
}

fn push(station: &mut SeriesStation, points: &[MetricPoint<'_>]) -> Vec<String> {
    station.push_metrics(&batch(points));
    show(station)
}

const NOTHING: [&str; 0] = [];

#[test]
fn a_gauge_is_shown_step_by_step_once_its_step_is_known() {
    let mut station = station(SeriesConfig::default());
    for minute in 1..=3 {
        assert_eq!(push(&mut station, &[gauge("cpu", minute * 60, minute as f64)]), NOTHING);
    }
    assert_eq!(push(&mut station, &[gauge("cpu", 240, 4.0)]), ["cpu 60/60: 1 2 3 4"]);
    assert_eq!(push(&mut station, &[gauge("cpu", 300, 5.0)]), ["cpu 300/60: 5"]);
    assert_eq!(push(&mut station, &[gauge("cpu", 420, 7.0)]), ["cpu 360/60: - 7"], "a missed step is a gap");
    assert_eq!(push(&mut station, &[gauge("cpu", 420, 8.0)]), NOTHING);
    assert_eq!(push(&mut station, &[gauge("cpu", 330, 8.0)]), NOTHING);
    assert_eq!(push(&mut station, &[gauge("cpu", 480, f64::NAN), gauge("cpu", 481, f64::INFINITY)]), NOTHING);
    assert_eq!(push(&mut station, &[gauge("cpu", 540, 9.0)]), ["cpu 480/60: - 9"]);
    assert_eq!(push(&mut station, &[gauge("cpu", 4260, 1.0)]), ["cpu 4260/60: 1"], "61 gaps are one too many");
    let stats = station.stats();
    assert_eq!((stats.n_points, stats.n_duplicate, stats.n_late, stats.n_non_finite), (8, 1, 1, 2));
    assert_eq!((stats.n_gaps, stats.n_series, stats.n_sources, stats.n_instances), (2, 1, 1, 1));
}

#[test]
fn a_window_says_what_it_is_of() {
    let mut station = station(SeriesConfig::default());
    let resource = r#"{"service.name":"cart","k8s.pod.name":"cart-7"}"#;
    let points: Vec<_> = (1..=4)
        .map(|minute| {
            let attributes = r#"{"state":"idle","cpu":0}"#;
            MetricPoint { resource, attributes, ..gauge("cpu.time", minute * 60, 1.0) }
        })
        .collect();
    station.push_metrics(&batch(&points));
    let windows = station.ready();
    let series = windows[0].as_series().expect("a series");
    assert_eq!((&*series.key.stream, &*series.key.session), ("cart", "cpu.time{cpu=0,state=idle} @cart-7"));
    assert_eq!((&**series.service, series.records), ("cart", &[1, 2, 3, 4][..]));
    let group = windows[1].as_group().expect("its instance");
    assert_eq!((&*group.key.stream, &*group.key.session, group.n_rows), ("cart", "cart-7", 4));
    assert_eq!(group.columns[0], series.key.session);
}

#[test]
fn a_counter_is_a_rate_that_survives_resets_and_missed_points() {
    let mut station = station(SeriesConfig::default());
    let first: Vec<_> = (1..=5).map(|minute| counter("requests", minute * 60, minute * 60, 1)).collect();
    assert_eq!(
        push(&mut station, &first),
        ["requests rate 120/60: 1 1 1 1"],
        "the first point is where counting begins"
    );
    // It has fallen and says nothing of its start: counting begins again.
    assert_eq!(push(&mut station, &[counter("requests", 360, 30, 1)]), NOTHING);
    assert_eq!(push(&mut station, &[counter("requests", 420, 90, 1)]), ["requests rate 360/60: - 1"]);
    // Begun anew at 450: 15 in 30 seconds.
    assert_eq!(push(&mut station, &[counter("requests", 480, 15, 450)]), ["requests rate 480/60: 0.5"]);
    // A point is missing; the next one has what both counted.
    assert_eq!(push(&mut station, &[counter("requests", 600, 75, 450)]), ["requests rate 540/60: - 0.5"]);
    // Begun anew, and already beyond where the old one was.
    assert_eq!(push(&mut station, &[counter("requests", 660, 80, 620)]), ["requests rate 660/60: 2"]);
    // A start that wobbles but lies before the point before is no new start.
    assert_eq!(push(&mut station, &[counter("requests", 720, 140, 621)]), ["requests rate 720/60: 1"]);
    assert_eq!(station.stats().n_resets, 3);
    assert_eq!(push(&mut station, &[counter("requests", 700, 130, 621)]), NOTHING);
    assert_eq!(station.stats().n_late, 1);
}

#[test]
fn integers_are_subtracted_before_they_are_rounded() {
    let mut station = station(SeriesConfig::default());
    let points: Vec<_> = (1..=5).map(|minute| counter("bytes", minute * 60, i64::MAX - 600 + minute * 60, 1)).collect();
    assert_eq!(push(&mut station, &points), ["bytes rate 120/60: 1 1 1 1"]);
}

#[test]
fn deltas_add_up_and_are_divided_by_the_time_they_cover() {
    let config = SeriesConfig { step_ms: Some(60_000), ..SeriesConfig::default() };
    let mut station = station(config);
    let points: Vec<_> = (61..=73).map(|ten| delta("hits", ten * 10, 10.0, ten * 10 - 10)).collect();
    assert_eq!(push(&mut station, &points), ["hits rate 600/60: 1 1"]);
    station.finish();
    assert_eq!(show(&mut station), ["hits rate 720/60: 0.3333"], "two points cover a third of the last step");
    assert_eq!(push(&mut station, &[delta("hits", 900, -1.0, 890)]), NOTHING);
    assert_eq!(station.stats().n_resets, 1, "a sum that only grows has not shrunk");
}

#[test]
fn sums_that_may_fall_are_levels_or_changes() {
    let mut station = station(SeriesConfig::default());
    let up_down = |time_s: i64, temporality: &'static str| MetricPoint {
        temporality,
        monotonic: Some(false),
        value_int: Some(-30),
        start_time_unix_nano: (time_s - 60) * SECOND,
        ..point(temporality, "sum", time_s)
    };
    let points: Vec<_> =
        (2..=5).flat_map(|minute| [up_down(minute * 60, "cumulative"), up_down(minute * 60, "delta")]).collect();
    let expected = ["cumulative 120/60: -30 -30 -30 -30", "delta change 120/60: -0.5 -0.5 -0.5 -0.5"];
    assert_eq!(push(&mut station, &points), expected);
}

#[test]
fn points_of_one_batch_may_come_in_any_order() {
    let mut station = station(SeriesConfig::default());
    let points = [240, 60, 300, 180, 120].map(|time| gauge("cpu", time, time as f64));
    assert_eq!(push(&mut station, &points), ["cpu 60/60: 60 120 180 240 300"]);
    assert_eq!((station.stats().n_late, station.stats().n_backwards), (0, 3));
    // With lateness so may those of different batches; each step waits for the next point.
    let mut late = self::station(SeriesConfig { allowed_lateness_ms: 30_000, ..SeriesConfig::default() });
    assert_eq!(push(&mut late, &points), ["cpu 60/60: 60 120 180 240"]);
    assert_eq!(push(&mut late, &[gauge("cpu", 420, 420.0)]), ["cpu 300/60: 300"]);
    assert_eq!(push(&mut late, &[gauge("cpu", 360, 360.0)]), ["cpu 360/60: 360"]);
}

/// A histogram after `n` minutes of 8 values each, 12 in sum.
fn histogram(time_s: i64, n: u64, lists: &(Vec<u64>, Vec<f64>)) -> MetricPoint<'_> {
    MetricPoint {
        temporality: "cumulative",
        count: Some(n * 8),
        sum: Some(n as f64 * 12.0),
        bucket_counts: &lists.0,
        bounds: &lists.1,
        start_time_unix_nano: SECOND,
        ..point("latency", "histogram", time_s)
    }
}

#[test]
fn a_histogram_is_a_rate_a_mean_and_quantiles_of_what_has_come_since() {
    let mut station = station(SeriesConfig::default());
    let lists: Vec<_> = (0..=8u64).map(|n| (vec![n * 2, n * 4, n * 2, 0], vec![1.0, 2.0, 4.0])).collect();
    let points: Vec<_> = (1..=5).map(|minute| histogram(minute * 60, minute as u64, &lists[minute as usize])).collect();
    let four = |value: &str| [value; 4].join(" ");
    let expected = [
        format!("latency rate 120/60: {}", four("0.1333")),
        format!("latency mean 120/60: {}", four("1.5")),
        format!("latency p50 120/60: {}", four("1.5")),
        format!("latency p99 120/60: {}", four("3.92")),
    ];
    assert_eq!(push(&mut station, &points), expected);
    // Nothing has come: a rate of zero, and nothing to take a mean of.
    let idle = push(&mut station, &[histogram(360, 5, &lists[5])]);
    let expected =
        ["latency rate 360/60: 0", "latency mean 360/60: -", "latency p50 360/60: -", "latency p99 360/60: -"];
    assert_eq!(idle, expected);
    // Fewer than before, then other bounds: counting begins anew each time.
    assert_eq!(push(&mut station, &[histogram(420, 1, &lists[1])]), NOTHING);
    let others = (vec![9, 9, 9, 9], vec![1.0, 2.0, 8.0]);
    assert_eq!(push(&mut station, &[histogram(480, 2, &others)]), NOTHING);
    assert_eq!(station.stats().n_resets, 2);
    let others = (vec![9, 9, 17, 9], vec![1.0, 2.0, 8.0]);
    let after = push(&mut station, &[histogram(540, 3, &others)]);
    assert_eq!(after[2], "latency p50 420/60: - - 5");
}

#[test]
fn unusable_buckets_leave_count_and_mean() {
    let mut station = station(SeriesConfig::default());
    let lists: Vec<_> = (0..=5u64).map(|n| (vec![n, n], vec![f64::NAN])).collect();
    let points: Vec<_> = (1..=5).map(|minute| histogram(minute * 60, minute as u64, &lists[minute as usize])).collect();
    let shown = push(&mut station, &points);
    assert_eq!(shown[0], "latency rate 120/60: 0.1333 0.1333 0.1333 0.1333");
    assert_eq!(shown[2], "latency p50 120/60: - - - -");
    assert_eq!(station.stats().n_unusable_buckets, 5);
}

#[test]
fn a_delta_histogram_has_extremes_of_its_own() {
    let mut station = station(SeriesConfig { quantiles: vec![1.0], ..SeriesConfig::default() });
    let points = [60i64, 120, 180, 240].map(|time| MetricPoint {
        temporality: "delta",
        count: Some(4),
        min: Some(8.0),
        max: Some(40.0),
        bucket_counts: &[2, 0, 2],
        bounds: &[10.0, 20.0],
        start_time_unix_nano: (time - 60).max(1) * SECOND,
        ..point("latency", "histogram", time)
    });
    // No sum, no mean.
    assert_eq!(push(&mut station, &points)[1], "latency p100 60/60: 40 40 40 40");
}

fn exponential(time_s: i64, scale: i32, count: u64, bucket_counts: &[u64]) -> MetricPoint<'_> {
    MetricPoint {
        temporality: "cumulative",
        count: Some(count),
        sum: Some(0.0),
        scale: Some(scale),
        zero_count: Some(0),
        positive_offset: Some(0),
        bucket_counts,
        ..point("latency", "exponential_histogram", time_s)
    }
}

#[test]
fn an_exponential_histogram_may_change_its_scale() {
    let mut station = station(SeriesConfig { quantiles: vec![0.5], ..SeriesConfig::default() });
    let counts: Vec<[u64; 2]> = (0..=5).map(|n| [n * 4, n * 4]).collect();
    let points: Vec<_> = (1..=5).map(|n| exponential(n * 60, 1, n as u64 * 8, &counts[n as usize])).collect();
    let shown = push(&mut station, &points);
    assert_eq!(shown[2], "latency p50 120/60: 1.4142 1.4142 1.4142 1.4142", "the end of (1, 2^0.5]");
    // (1, 2] has 40 + 8, (2, 4] is new.
    let shown = push(&mut station, &[exponential(360, 0, 56, &[48, 8])]);
    assert_eq!(shown, ["latency rate 360/60: 0.2667", "latency mean 360/60: 0", "latency p50 360/60: 2"]);
    // From here on the old scale would be finer than what is kept; what has come is still seen.
    let shown = push(&mut station, &[exponential(420, 1, 64, &[24, 32, 8])]);
    assert_eq!(shown[0], "latency rate 420/60: 0.1333");
    assert_eq!(station.stats().n_resets, 0);
}

#[test]
fn a_summary_keeps_its_own_quantiles() {
    let mut station = station(SeriesConfig::default());
    let points: Vec<_> = (1..=5)
        .map(|minute| MetricPoint {
            count: Some(minute as u64 * 60),
            sum: Some(minute as f64 * 120.0),
            bounds: &[0.5, 0.9],
            quantile_values: &[2.0, f64::NAN],
            ..point("gc", "summary", minute * 60)
        })
        .collect();
    let expected =
        ["gc rate 120/60: 1 1 1 1", "gc mean 120/60: 2 2 2 2", "gc p50 120/60: 2 2 2 2", "gc p90 120/60: - - - -"];
    assert_eq!(push(&mut station, &points), expected);
}

#[test]
fn attributes_in_another_order_are_the_same_series_and_another_scope_is_another() {
    let mut station = station(SeriesConfig::default());
    let texts = [r#"{"a":1,"b":2}"#, r#"{"b":2,"a":1}"#];
    let points: Vec<_> = (1..=4)
        .map(|minute| MetricPoint { attributes: texts[minute as usize % 2], ..gauge("cpu", minute * 60, 1.0) })
        .collect();
    assert_eq!(push(&mut station, &points), ["cpu{a=1,b=2} 60/60: 1 1 1 1"]);
    let scoped: Vec<_> = (1..=4)
        .map(|minute| MetricPoint { attributes: texts[0], scope_name: "otel", ..gauge("cpu", minute * 60, 2.0) })
        .collect();
    assert_eq!(push(&mut station, &scoped), ["cpu{a=1,b=2} [otel] 60/60: 2 2 2 2"]);
    assert_eq!(station.stats().n_sources, 2);
}

#[test]
fn what_cannot_be_used_is_counted_by_what_is_wrong_with_it() {
    let mut station = station(SeriesConfig::default());
    let points = [
        gauge("cpu", 60, 1.0),
        MetricPoint { flags: 1, ..gauge("cpu", 120, 0.0) },
        MetricPoint { value_double: None, ..gauge("cpu", 120, 0.0) },
        counter("cpu", 120, 5, 1),
        point("cpu", "exotic", 120),
        MetricPoint { time_unix_nano: i64::MIN, ..gauge("cpu", 0, 1.0) },
        MetricPoint { count: None, ..point("latency", "histogram", 60) },
        gauge("cpu", 5 * 86_400, 1.0),
    ];
    assert_eq!(push(&mut station, &points), NOTHING);
    let stats = station.stats();
    assert_eq!((stats.n_points, stats.n_no_value, stats.n_conflicting, stats.n_unknown_kind), (1, 3, 1, 1));
    assert_eq!((stats.n_out_of_range, stats.n_strange), (1, 1));
}

#[test]
fn a_clock_that_is_set_back_is_believed_in_the_end() {
    let mut station = station(SeriesConfig::default());
    let year = 365 * 86_400;
    let ahead: Vec<_> = (1..=4).map(|minute| gauge("cpu", year + minute * 60, 1.0)).collect();
    assert_eq!(push(&mut station, &ahead).len(), 1);
    let back: Vec<_> = (1..=10).map(|minute| gauge("cpu", minute * 60, minute as f64)).collect();
    assert_eq!(push(&mut station, &back), ["cpu 480/60: 8 9 10"]);
    assert_eq!((station.stats().n_strange, station.stats().n_moved), (7, 1));
}

#[test]
fn series_beyond_the_limit_are_refused_until_silent_ones_are_dropped() {
    let config = SeriesConfig { max_series: 2, retire_after_ms: 3_600_000, ..SeriesConfig::default() };
    let mut station = station(config);
    let at = |time_s, names: &[&'static str]| names.iter().map(|name| gauge(name, time_s, 1.0)).collect::<Vec<_>>();
    push(&mut station, &at(0, &["a", "b", "c"]));
    push(&mut station, &at(60, &["a", "c"]));
    let stats = station.stats();
    assert_eq!((stats.n_series, stats.n_refused_series, stats.n_refused), (2, 1, 2));
    for minute in 2..130 {
        push(&mut station, &at(minute * 60, &["a"]));
    }
    assert_eq!((station.stats().n_series, station.stats().n_retired), (1, 1), "b has been silent for an hour");
    let mut shown = Vec::new();
    for minute in 130..134 {
        shown = push(&mut station, &at(minute * 60, &["a", "c"]));
    }
    assert_eq!(shown, ["a 7980/60: 1", "c 7800/60: 1 1 1 1"]);
}

#[test]
fn rows_have_all_series_of_an_instance_side_by_side() {
    let mut station = station(SeriesConfig { max_columns: 3, ..SeriesConfig::default() });
    let at = |minute: i64| {
        let resource = r#"{"host.name":"h1"}"#;
        // Not quite at the same time, around the full minute.
        let a = MetricPoint { resource, ..gauge("a", minute * 60, minute as f64) };
        let b = MetricPoint { resource, time_unix_nano: minute * 60 * SECOND - 1, ..gauge("b", 0, -minute as f64) };
        [a, b]
    };
    for minute in 1..=3 {
        station.push_metrics(&batch(&at(minute)));
    }
    assert_eq!(show_rows(&mut station), NOTHING);
    station.push_metrics(&batch(&at(4)));
    assert_eq!(show_rows(&mut station), ["h1 60/60: 1 -1 | 2 -2 | 3 -3 | 4 -4"]);
    // In two requests: the row waits for the second.
    let [a, b] = at(5);
    station.push_metrics(&batch(&[a]));
    assert_eq!(show_rows(&mut station), NOTHING);
    station.push_metrics(&batch(&[b]));
    assert_eq!(show_rows(&mut station), ["h1 300/60: 5 -5"]);
    // A step is missed: a row of gaps.
    station.push_metrics(&batch(&at(7)));
    assert_eq!(show_rows(&mut station), ["h1 360/60: - - | 7 -7"]);
    station.finish();
    assert_eq!(show_rows(&mut station), NOTHING);
    assert_eq!(station.stats().n_late_cells, 0);
}

#[test]
fn a_quiet_input_is_completed_by_the_time_that_passes() {
    let mut station = station(SeriesConfig { step_ms: Some(60_000), ..SeriesConfig::default() });
    // Two points a step: a step is complete when it is over.
    let points: Vec<_> = (2..=6).map(|half| gauge("cpu", half * 30, half as f64)).collect();
    assert_eq!(push(&mut station, &points), ["cpu 60/60: 3 5"]);
    station.advance_to(239 * SECOND);
    assert_eq!(show(&mut station), NOTHING);
    station.advance_to(240 * SECOND);
    assert_eq!(show(&mut station), ["cpu 180/60: 6"]);
}

#[test]
fn windows_are_shown_again_until_they_are_settled() {
    let mut station = station(SeriesConfig { groups: false, ..SeriesConfig::default() });
    let points: Vec<_> =
        (1..=4).flat_map(|minute| ["a", "b", "c"].map(|name| gauge(name, minute * 60, minute as f64))).collect();
    station.push_metrics(&batch(&points));
    let keys = |station: &mut SeriesStation| -> Vec<String> {
        station.ready().iter().map(|window| window.key().session.to_string()).collect()
    };
    assert_eq!(keys(&mut station), ["a", "b", "c"]);
    station.settle_first(2);
    station.push_metrics(&batch(&[gauge("a", 300, 5.0)]));
    assert_eq!(keys(&mut station), ["c", "a"]);
    station.settle();
    assert!(keys(&mut station).is_empty());
}

#[test]
fn a_series_takes_little_memory() {
    const N: usize = 20_000;
    let mut station = station(SeriesConfig::default());
    let texts: Vec<String> = (0..N)
        .map(|n| format!(r#"{{"http.request.method":"GET","http.route":"/api/v1/things/{n}","status":200}}"#))
        .collect();
    let resources: Vec<String> = (0..N / 100).map(|n| format!(r#"{{"service.instance.id":"cart-{n:08}"}}"#)).collect();
    for minute in 1..=6 {
        let points: Vec<_> = texts
            .iter()
            .enumerate()
            .map(|(n, attributes)| MetricPoint {
                attributes,
                resource: &resources[n / 100],
                ..counter("http.server.request.count", minute * 60, minute * 60, 1)
            })
            .collect();
        push(&mut station, &points);
    }
    assert_eq!(station.stats().n_series, N);
    let per_series = station.bytes() / N;
    assert!(per_series <= 600, "{per_series} bytes a series");
    assert!(size_of::<Option<Source>>() <= 176, "{} bytes a source", size_of::<Option<Source>>());
}

#[test]
fn a_bad_configuration_is_refused_by_the_key_to_change() {
    let default = SeriesConfig::default;
    let bad = [
        ("step_ms", SeriesConfig { step_ms: Some(0), ..default() }),
        ("min_step_ms", SeriesConfig { min_step_ms: 0, ..default() }),
        ("red_step_ms", SeriesConfig { red_step_ms: u64::MAX, ..default() }),
        ("max_series", SeriesConfig { max_series: 0, ..default() }),
        ("max_label_bytes", SeriesConfig { max_label_bytes: 8, ..default() }),
        ("quantiles", SeriesConfig { quantiles: vec![99.0], ..default() }),
        ("max_columns", SeriesConfig { max_columns: 0, ..default() }),
        ("max_operations", SeriesConfig { max_operations: 0, ..default() }),
        ("retire_after_ms", SeriesConfig { retire_after_ms: 0, ..default() }),
    ];
    for (expected, config) in bad {
        let Err(Error::Config { key, .. }) = SeriesStation::new(config) else { panic!("{expected} is taken") };
        assert_eq!(key, expected);
    }
}
