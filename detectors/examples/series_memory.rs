//! Memory of the series station and of the detectors of metrics when there are many series: how much the resident set of a
//! process grows (VmRSS in /proc/self/status, so on Linux), a process for each so that none has what another gave back.
//!
//! `cargo run --release -p faultline-detectors --example series_memory [SERIES [POINTS [SUBJECT]]]`; all subjects, 100,000 series
//! and 470 points where not given. A point comes every quarter of an hour, so 470 are just under five days: after 480
//! `profile-forecast` gives back what it knows of the first days, and all other histories are full. A hundred series are an
//! instance. The detectors alone get windows with names that are there already; the last subject is the path as in service: the
//! station with the default detectors of series and instances behind it. The bars are 2 KiB a series
//! for a cheap detector and 512 MiB for the whole of the last subject. `change-point` is not cheap and gets 20,000 series, its
//! default bound.

use std::{error::Error, f64::consts::TAU, hint::black_box, ops::Range, process::Command, sync::Arc};

use faultline_core::{
    Detector, GroupWindow, MetricBatch, MetricBatchBuilder, MetricPoint, SeriesKind, SeriesWindow, Window, WindowKey,
};
use faultline_detectors::{
    entry,
    series::{SeriesConfig, SeriesStation},
};
use serde_json::{Value, json};

const STATION: &str = "series-station";
const DEFAULTS: &str = "station-and-defaults";
const BY_SERIES: [&str; 6] =
    ["robust-z", "moving-average", "holt-winters", "heavy-tail", "profile-forecast", "change-point"];
const BY_INSTANCE: [&str; 2] = ["birch", "mahalanobis"];

const STEP_NANOS: i64 = 900_000_000_000;
/// Series of an instance.
const PER_INSTANCE: usize = 100;
/// Points of a batch.
const BATCH: usize = 8_192;
/// Points of a window where detectors are alone.
const WINDOW: usize = 10;

fn main() -> Result<(), Box<dyn Error>> {
    let argument = |n: usize| std::env::args().nth(n);
    let number = |n: usize, default: usize| argument(n).map_or(Ok(default), |text| text.parse::<usize>());
    let (n_series, n_points) = (number(1, 100_000)?.max(PER_INSTANCE), number(2, 470)?.max(1));
    let Some(subject) = argument(3) else {
        for subject in [&[STATION][..], &BY_SERIES, &BY_INSTANCE, &[DEFAULTS]].concat() {
            let mut own = Command::new(std::env::current_exe()?);
            own.args([n_series.to_string().as_str(), n_points.to_string().as_str(), subject]);
            if !own.status()?.success() {
                return Err(format!("{subject} has failed").into());
            }
        }
        return Ok(());
    };
    let (n_series, n_points) =
        if subject == "change-point" { (n_series.min(20_000), n_points.min(120)) } else { (n_series, n_points) };
    let kib = match subject.as_str() {
        STATION => through_station(n_series, n_points, &[])?,
        DEFAULTS => through_station(n_series, n_points, &["profile-forecast", "mahalanobis"])?,
        name if BY_INSTANCE.contains(&name) => by_instance(name, n_series, n_points)?,
        name => by_series(name, n_series, n_points)?,
    };
    let (mib, each) = (kib as f64 / 1024.0, kib as f64 * 1024.0 / n_series as f64);
    println!("{subject:<22} {n_series:>8} series {n_points:>5} points {mib:>8.1} MiB {each:>7.0} bytes a series");
    Ok(())
}

/// A day with noise.
fn value(series: usize, step: usize) -> f64 {
    let noise = ((series * 7_919 + step * 104_729) as f64 * 0.618_034).sin();
    100.0 + 30.0 * (TAU * step as f64 / 96.0).sin() + 2.0 * noise
}

/// Room for all series or instances. `mahalanobis` is fitted early, so that it has a fit and the rows for the next one at a time.
fn config_of(name: &str, n_series: usize) -> Value {
    match name {
        "mahalanobis" => json!({"max_instances": n_series / PER_INSTANCE, "warm_up_rows": 240}),
        name if BY_INSTANCE.contains(&name) => json!({"max_instances": n_series / PER_INSTANCE}),
        _ => json!({"max_series": n_series}),
    }
}

/// What the resident set grows by, KiB.
fn by_series(name: &str, n_series: usize, n_points: usize) -> Result<u64, Box<dyn Error>> {
    let key = |series: usize| WindowKey {
        stream: Arc::from("cart"),
        session: Arc::from(format!("http.server.request{{http.route=/api/v1/{series}}} @cart-{}", series / 100)),
    };
    let keys: Vec<WindowKey> = (0..n_series).map(key).collect();
    let (service, config) = (Arc::from("cart"), config_of(name, n_series));
    let (mut model, mut scores) = (None::<Box<dyn Detector>>, Vec::new());
    let before = resident_kib()?;
    for first in (0..n_points).step_by(WINDOW) {
        for (series, key) in keys.iter().enumerate() {
            let steps = first..n_points.min(first + WINDOW);
            let points: Vec<f64> = steps.map(|step| value(series, step)).collect();
            let window = Window::Series(SeriesWindow {
                key,
                kind: SeriesKind::Gauge,
                start_unix_nano: first as i64 * STEP_NANOS,
                step_nanos: STEP_NANOS,
                points: &points,
                records: &[],
                service: &service,
            });
            if let Some(model) = &mut model {
                scores.clear();
                model.score(&[window], &mut scores);
            } else {
                model = Some(entry(name)?.fit(&config, &[window], 0)?);
            }
        }
    }
    let after = resident_kib()?;
    black_box((&model, &keys));
    Ok(after.saturating_sub(before))
}

/// The same for instances of a hundred series.
fn by_instance(name: &str, n_series: usize, n_points: usize) -> Result<u64, Box<dyn Error>> {
    let n_instances = n_series / PER_INSTANCE;
    let key = |instance: usize| WindowKey { stream: Arc::from("cart"), session: Arc::from(format!("cart-{instance}")) };
    let keys: Vec<WindowKey> = (0..n_instances).map(key).collect();
    let columns: Vec<Arc<str>> = (0..PER_INSTANCE).map(|column| Arc::from(format!("metric {column}"))).collect();
    let (service, config) = (Arc::from("cart"), config_of(name, n_series));
    let (mut model, mut scores) = (None::<Box<dyn Detector>>, Vec::new());
    let before = resident_kib()?;
    for first in (0..n_points).step_by(WINDOW) {
        for (instance, key) in keys.iter().enumerate() {
            let steps = first..n_points.min(first + WINDOW);
            let row = |step: usize| (0..PER_INSTANCE).map(move |column| value(instance * PER_INSTANCE + column, step));
            let values: Vec<f64> = steps.clone().flat_map(row).collect();
            let window = Window::Group(GroupWindow {
                key,
                columns: &columns,
                start_unix_nano: first as i64 * STEP_NANOS,
                step_nanos: STEP_NANOS,
                n_rows: steps.len(),
                values: &values,
                service: &service,
            });
            if let Some(model) = &mut model {
                scores.clear();
                model.score(&[window], &mut scores);
            } else {
                model = Some(entry(name)?.fit(&config, &[window], 0)?);
            }
        }
    }
    let after = resident_kib()?;
    black_box((&model, &keys));
    Ok(after.saturating_sub(before))
}

/// The same for the series station, names included, with these detectors behind it.
fn through_station(n_series: usize, n_points: usize, names: &[&str]) -> Result<u64, Box<dyn Error>> {
    let text = |series: usize| {
        let attributes = format!(r#"{{"http.request.method":"GET","http.route":"/api/v1/things/{series}"}}"#);
        let instance = series / PER_INSTANCE;
        (attributes, format!(r#"{{"service.name":"cart","service.instance.id":"cart-{instance:06}"}}"#))
    };
    let texts: Vec<(String, String)> = (0..n_series).map(text).collect();
    let before = resident_kib()?;
    let mut station = SeriesStation::new(SeriesConfig { max_series: n_series, ..SeriesConfig::default() })?;
    let fit = |name: &&str| entry(name)?.fit(&config_of(name, n_series), &[], 0);
    let mut detectors = names.iter().map(fit).collect::<Result<Vec<_>, _>>()?;
    let mut scores = Vec::new();
    for step in 0..n_points {
        for first in (0..n_series).step_by(BATCH) {
            station.push_metrics(&batch(&texts, first..n_series.min(first + BATCH), step));
            let windows = station.ready();
            for detector in &mut detectors {
                scores.clear();
                detector.score(&windows, &mut scores);
            }
            drop(windows);
            station.settle();
        }
    }
    let after = resident_kib()?;
    let stats = station.stats();
    if stats.n_series != n_series {
        return Err(format!("the station has {} series", stats.n_series).into());
    }
    black_box((&detectors, &texts));
    Ok(after.saturating_sub(before))
}

/// A point of each of these series.
fn batch(texts: &[(String, String)], series: Range<usize>, step: usize) -> MetricBatch {
    let mut builder = MetricBatchBuilder::default();
    for (idx, (attributes, resource)) in series.clone().zip(&texts[series]) {
        builder.push(&MetricPoint {
            name: "http.server.request",
            kind: "gauge",
            service_name: "cart",
            time_unix_nano: (step as i64 + 1) * STEP_NANOS,
            value_double: Some(value(idx, step)),
            attributes,
            resource,
            ..MetricPoint::default()
        });
    }
    builder.finish().numbered_from(1)
}

/// The resident set of this process, KiB.
fn resident_kib() -> Result<u64, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")).ok_or("no VmRSS in /proc/self/status")?;
    Ok(kib.trim().parse()?)
}
