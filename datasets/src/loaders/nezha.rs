//! Nezha's TrainTicket and OnlineBoutique: logs, spans and metrics of pods with shared ids, and the faults injected meanwhile.
//!
//! Data: Yu et al., "Nezha: Interpretable Fine-Grained Root Causes Analysis for Microservices on Multi-modal Observability
//! Data" (FSE 2023), IntelligentDDS/Nezha, with further minutes from IntelligentDDS/TraStrainer. Under a folder named for
//! the day lie `HH_MM_trace.csv` and `HH_MM_log.csv`, a file a minute; `<pod>_metric.csv`, a row a minute for the whole day;
//! `front_service.csv`, the same for what users see; `*fault_list.json`, the faults. Whatever else lies between is of no
//! matter, so both applications and both sources read alike.
//!
//! **Time.** All times are UTC. A minute's file holds what began in a minute around the time in its name: from 51 s before to 8 s
//! after on the first day of TrainTicket, from 8 s before to 52 s after on the second, about 40 s before to 20 s after in
//! OnlineBoutique; two files of TrainTicket hold three minutes. Go by the times of records. A fault begins at its `inject_time`;
//! `inject_timestamp` is not read, as in TrainTicket it is eight hours off and one is copied from another. How long a fault lasts is not
//! published; the authors take the minute of the injection and the two after it.
//!
//! **Without a fault** are the minutes under `construct_data`, which the authors compare with, and the days of metrics
//! under `warm_up_metric`. Other minutes lie before, between and after faults: see [`Nezha::fault_before`]. OnlineBoutique is a
//! sample of whole traces, one in sixteen, but for its minute without a fault, which is complete.
//!
//! Reading goes minute by minute ([`records()`]), so memory is that of a few minutes; metrics go day by day ([`MetricDay`]).
//! Lists of trace ids, thresholds made by hand and tables of edges are not read.
//!
//! Cost: [`Nezha::load`] lists files and reads the faults. Fails on a minute without a day above it.

mod metrics;
mod records;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::Deserialize;

pub use metrics::{MetricDay, PodMetrics};
pub use records::{LogRecord, MinuteRecords, Records, Span, records};

use crate::{error::DatasetError, lines, scan::files_under, times::unix_nanos};

const MINUTE_NANOS: i64 = 60_000_000_000;

/// What there is to read.
#[derive(Clone, Debug, Default)]
pub struct Nezha {
    /// Injected faults, in order of time.
    pub faults: Vec<Fault>,
    /// Minutes with spans or logs, in order of time.
    pub minutes: Vec<Minute>,
    /// Days with metrics: those without a fault first, then in order of name.
    pub metric_days: Vec<MetricDay>,
}

/// An injected fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// When it was injected.
    pub time_unix_nano: i64,
    /// The pod it was injected into.
    pub pod: String,
    /// Its kind, such as `network_delay`, `cpu_contention`, `exception`, `return`.
    pub kind: String,
}

impl Fault {
    /// The service it was injected into: what a localizer has to find.
    #[must_use]
    pub fn service(&self) -> &str {
        service_of(&self.pod)
    }
}

/// One minute: which files hold it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Minute {
    /// The time in its files' names, somewhere within it.
    pub time_unix_nano: i64,
    /// Whether the authors say that it has no fault.
    pub is_fault_free: bool,
    spans: Option<PathBuf>,
    logs: Option<PathBuf>,
}

impl Minute {
    /// Whether there are spans of it.
    #[must_use]
    pub fn has_spans(&self) -> bool {
        self.spans.is_some()
    }

    /// Whether there are logs of it.
    #[must_use]
    pub fn has_logs(&self) -> bool {
        self.logs.is_some()
    }
}

impl Nezha {
    /// Finds faults, minutes and days of metrics under `data`.
    ///
    /// # Errors
    /// When there is no minute of spans, or a list of faults cannot be read.
    pub fn load(data: &Path) -> Result<Self, DatasetError> {
        let mut all = Self::default();
        let mut minutes: BTreeMap<i64, Minute> = BTreeMap::new();
        let mut days: BTreeMap<PathBuf, MetricDay> = BTreeMap::new();
        for path in files_under(data)? {
            let (Some(name), Some(folder)) = (path.file_name().and_then(|name| name.to_str()), path.parent()) else {
                continue;
            };
            let (spans, logs) = (name.strip_suffix("_trace.csv"), name.strip_suffix("_log.csv"));
            if name.ends_with("fault_list.json") {
                all.faults.extend(faults(&path)?);
            } else if name.ends_with("_metric.csv") || name == "front_service.csv" {
                days.entry(folder.to_owned()).or_insert_with(|| MetricDay::new(data, folder)).push(&path);
            } else if let Some(time_of_day) = spans.or(logs) {
                let time_unix_nano = time_of(folder, time_of_day).ok_or_else(|| {
                    DatasetError::layout(&path, "not HH_MM below a folder YYYY-MM-DD, so its day is not known")
                })?;
                let minute = minutes.entry(time_unix_nano).or_insert_with(|| Minute {
                    time_unix_nano,
                    is_fault_free: false,
                    spans: None,
                    logs: None,
                });
                minute.is_fault_free |= is_below(data, folder, "construct_data");
                let file = if spans.is_some() { &mut minute.spans } else { &mut minute.logs };
                file.get_or_insert_with(|| path.clone());
            }
        }
        all.minutes = minutes.into_values().collect();
        if !all.minutes.iter().any(Minute::has_spans) {
            return Err(DatasetError::layout(data, "no YYYY-MM-DD/trace/HH_MM_trace.csv in it"));
        }
        all.faults.sort_by(|a, b| (a.time_unix_nano, &a.pod).cmp(&(b.time_unix_nano, &b.pod)));
        all.metric_days = days.into_values().collect();
        all.metric_days.sort_by_key(|day| !day.is_fault_free);
        Ok(all)
    }

    /// The fault injected last at or before `time_unix_nano`.
    #[must_use]
    pub fn fault_before(&self, time_unix_nano: i64) -> Option<&Fault> {
        let n_before = self.faults.partition_point(|fault| fault.time_unix_nano <= time_unix_nano);
        self.faults[..n_before].last()
    }

    /// The minutes whose name lies between two times, the first inclusive: a part for [`records()`].
    #[must_use]
    pub fn minutes_between(&self, from_unix_nano: i64, to_unix_nano: i64) -> &[Minute] {
        let at = |time: i64| self.minutes.partition_point(|minute| minute.time_unix_nano < time);
        self.minutes.get(at(from_unix_nano)..at(to_unix_nano)).unwrap_or(&[])
    }

    /// What the authors take for the minutes of a fault: those named for the minute of its injection and for the two after it.
    /// Of the first, part or all is from before the injection.
    #[must_use]
    pub fn minutes_of(&self, fault: &Fault) -> &[Minute] {
        let from = fault.time_unix_nano - fault.time_unix_nano.rem_euclid(MINUTE_NANOS);
        self.minutes_between(from, from.saturating_add(3 * MINUTE_NANOS))
    }
}

/// The service of a pod: its name without what Kubernetes adds, `ts-basic-service` of
/// `ts-basic-service-5dc8d4f9fd-46997`. A name without that is its own service.
#[must_use]
pub fn service_of(pod: &str) -> &str {
    let is_plain = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_lowercase());
    let mut parts = pod.rsplitn(3, '-');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(instance), Some(template), Some(service))
            if instance.len() == 5
                && is_plain(instance)
                && (6..=10).contains(&template.len())
                && is_plain(template)
                && template.bytes().any(|byte| byte.is_ascii_digit()) =>
        {
            service
        }
        _ => pod,
    }
}

/// `08_43` in a folder somewhere below one named for a day.
fn time_of(folder: &Path, time_of_day: &str) -> Option<i64> {
    let (hour, minute) = time_of_day.split_once('_')?;
    let mut names = folder.ancestors().filter_map(|folder| folder.file_name()?.to_str());
    names.find_map(|day| unix_nanos(&format!("{day} {hour}:{minute}:00")))
}

/// Whether `folder` or a folder above it, up to `root`, is named so.
fn is_below(root: &Path, folder: &Path, name: &str) -> bool {
    folder.strip_prefix(root).unwrap_or(folder).components().any(|part| part.as_os_str() == name)
}

#[derive(Deserialize)]
struct FaultEntry {
    inject_time: String,
    inject_pod: String,
    inject_type: String,
}

/// A list of faults by hour.
fn faults(path: &Path) -> Result<Vec<Fault>, DatasetError> {
    let hours: BTreeMap<String, Vec<FaultEntry>> = serde_json::from_reader(lines::open(path)?)
        .map_err(|error| DatasetError::record(path, error.line() as u64, format!("no list of faults: {error}")))?;
    let fault = |FaultEntry { inject_time, inject_pod: pod, inject_type: kind }| match unix_nanos(&inject_time) {
        Some(time_unix_nano) => Ok(Fault { time_unix_nano, pod, kind }),
        None => Err(DatasetError::layout(path, format!("inject_time `{inject_time}` is no time"))),
    };
    hours.into_values().flatten().map(fault).collect()
}

#[cfg(test)]
mod tests;
