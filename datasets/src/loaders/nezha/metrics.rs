//! Metrics of pods, a row a minute.
//!
//! Rows come out in order of time; of two at the same time the last counts. A cell that is empty, not finite or no number at
//! all is a gap (NaN): the collector wrote NaN where there was no traffic, and one cell of a day holds the beginning of
//! another line. Which columns there are is said by the header of each file.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use super::{is_below, service_of};
use crate::{error::DatasetError, lines};

/// Most rows of a file: half a year of minutes.
const MAX_ROWS: usize = 1 << 18;

/// The metrics of one day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricDay {
    /// Its folder below the dataset's.
    pub name: String,
    /// Whether nothing was injected on it.
    pub is_fault_free: bool,
    pods: Vec<PathBuf>,
    front: Option<PathBuf>,
}

/// The metrics of one pod, or of what users see.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodMetrics {
    /// The pod; `Frontend` for what users see.
    pub pod: String,
    /// What its columns are, units in brackets: `CpuUsageRate(%)`.
    pub columns: Vec<String>,
    /// When each row was collected, about a minute apart.
    pub times_unix_nano: Vec<i64>,
    /// Row after row, as many as there are columns in each. NaN for a gap.
    pub values: Vec<f64>,
}

impl PodMetrics {
    /// The service of the pod.
    #[must_use]
    pub fn service(&self) -> &str {
        service_of(&self.pod)
    }

    /// The series of one column; none where there is no such column.
    #[must_use]
    pub fn series(&self, column: &str) -> Option<impl Iterator<Item = (i64, f64)>> {
        let at = self.columns.iter().position(|own| own == column)?;
        let values = self.values.iter().copied().skip(at).step_by(self.columns.len());
        Some(self.times_unix_nano.iter().copied().zip(values))
    }
}

impl MetricDay {
    pub(super) fn new(root: &Path, folder: &Path) -> Self {
        Self {
            name: folder.strip_prefix(root).unwrap_or(folder).to_string_lossy().into_owned(),
            is_fault_free: is_below(root, folder, "warm_up_metric"),
            pods: Vec::new(),
            front: None,
        }
    }

    pub(super) fn push(&mut self, path: &Path) {
        if path.file_name().is_some_and(|name| name == "front_service.csv") {
            self.front = Some(path.to_owned());
        } else {
            self.pods.push(path.to_owned());
        }
    }

    /// Pods it has metrics of.
    #[must_use]
    pub fn n_pods(&self) -> usize {
        self.pods.len()
    }

    /// Reads the metrics of one pod after the other, in order of name.
    pub fn pods(&self) -> impl Iterator<Item = Result<PodMetrics, DatasetError>> {
        self.pods.iter().map(|path| read(path))
    }

    /// Reads what users see: success rate and latency of the front end. None where there is no such file.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn front(&self) -> Result<Option<PodMetrics>, DatasetError> {
        self.front.as_deref().map(read).transpose()
    }
}

/// `Time,TimeStamp,PodName,...`, or `ServiceName` for the third.
fn read(path: &Path) -> Result<PodMetrics, DatasetError> {
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(lines::open(path)?);
    let refused = |line: u64, reason: String| DatasetError::record(path, line, reason);
    let headers = reader.headers().map_err(|error| refused(1, format!("not valid CSV: {error}")))?;
    let is_table = headers.get(1) == Some("TimeStamp") && matches!(headers.get(2), Some("PodName" | "ServiceName"));
    if !is_table {
        return Err(refused(1, "the columns are not Time,TimeStamp,PodName,...".to_owned()));
    }
    let columns: Vec<String> = headers.iter().skip(3).map(str::to_owned).collect();
    let mut pod = String::new();
    let mut by_time: BTreeMap<i64, Vec<f64>> = BTreeMap::new();
    let mut row = csv::StringRecord::new();
    loop {
        let line = reader.position().line();
        if !reader.read_record(&mut row).map_err(|error| refused(line, format!("not valid CSV: {error}")))? {
            break;
        }
        if row.len() != columns.len() + 3 {
            return Err(refused(line, format!("{} fields, expected {}", row.len(), columns.len() + 3)));
        }
        let seconds: i64 = row[1].parse().map_err(|_| refused(line, format!("`{}` is no time", &row[1])))?;
        if pod.is_empty() {
            row[2].clone_into(&mut pod);
        } else if pod != row[2] {
            return Err(refused(line, format!("`{}` among the metrics of `{pod}`", &row[2])));
        }
        let number = |cell: &str| cell.parse::<f64>().ok().filter(|value| value.is_finite()).unwrap_or(f64::NAN);
        by_time.insert(seconds.saturating_mul(1_000_000_000), row.iter().skip(3).map(number).collect());
        if by_time.len() > MAX_ROWS {
            return Err(refused(line, format!("more than {MAX_ROWS} rows")));
        }
    }
    let times_unix_nano = by_time.keys().copied().collect();
    Ok(PodMetrics { pod, columns, times_unix_nano, values: by_time.into_values().flatten().collect() })
}
