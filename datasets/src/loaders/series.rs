//! Labelled series: tables of `timestamp,value,label`, as the AIOps 2018, WSD and Donut sets have them.
//!
//! Timestamps are seconds since the epoch, in any order and with holes. A series comes out at a regular step, the most
//! frequent distance between neighbours; a step without a point, and one whose value is empty or not finite, is a gap (NaN)
//! and normal. Of several points in one step the last counts; a step is anomalous when one of its points is.
//! Cost: a sort a file. Fails on a row it cannot read, naming file and line.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use crate::{
    error::DatasetError,
    lines::{self, Flow},
    scan::files_under,
};

/// Longest series, gaps included: 32 years of minutes.
const MAX_STEPS: i64 = 1 << 24;

/// One series with its truth.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LabelledSeries {
    /// Its file's name without the ending.
    pub name: String,
    /// Where the first step begins; a multiple of the step.
    pub start_unix_nano: i64,
    /// The step.
    pub step_nanos: i64,
    /// One value for each step, NaN for a gap.
    pub values: Vec<f64>,
    /// Whether the step is anomalous.
    pub anomalous: Vec<bool>,
}

/// Every labelled series under `root`, in order of path.
///
/// # Errors
/// When a file cannot be read, or there is no such table.
pub fn labelled_series(root: &Path) -> Result<Vec<LabelledSeries>, DatasetError> {
    let mut all = Vec::new();
    for path in files_under(root)? {
        if path.extension().is_some_and(|extension| extension == "csv")
            && let Some(series) = labelled(&path)?
        {
            all.push(series);
        }
    }
    if all.is_empty() {
        return Err(DatasetError::layout(root, "no table of timestamp,value,label (.csv) is in it"));
    }
    Ok(all)
}

/// One row: seconds, value, label.
struct Point {
    seconds: i64,
    value: f64,
    is_anomalous: bool,
}

/// The series of one file; none when its header is not that of a labelled series.
fn labelled(path: &Path) -> Result<Option<LabelledSeries>, DatasetError> {
    let mut points = Vec::new();
    let mut is_series = false;
    lines::for_each(path, |number, line| {
        let text = String::from_utf8_lossy(line);
        let fields: Vec<&str> = text.split(',').map(str::trim).collect();
        if number == 1 {
            is_series = fields == ["timestamp", "value", "label"];
            return Ok(if is_series { Flow::On } else { Flow::Stop });
        }
        let &[seconds, value, label] = fields.as_slice() else {
            return Err(DatasetError::record(path, number, "not three fields: timestamp,value,label"));
        };
        let Ok(seconds) = seconds.parse() else {
            return Err(DatasetError::record(path, number, format!("`{seconds}` is no number of seconds")));
        };
        let value = match value.parse::<f64>() {
            Ok(value) if value.is_finite() => value,
            Ok(_) => f64::NAN,
            Err(_) if value.is_empty() => f64::NAN,
            Err(_) => return Err(DatasetError::record(path, number, format!("`{value}` is no number"))),
        };
        let is_anomalous = match label {
            "0" | "0.0" | "" => false,
            "1" | "1.0" => true,
            other => return Err(DatasetError::record(path, number, format!("label `{other}` is neither 0 nor 1"))),
        };
        points.push(Point { seconds, value, is_anomalous });
        Ok(Flow::On)
    })?;
    if !is_series || points.is_empty() {
        return Ok(None);
    }
    let name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    regular(path, name, points).map(Some)
}

/// Points on a grid.
fn regular(path: &Path, name: String, mut points: Vec<Point>) -> Result<LabelledSeries, DatasetError> {
    points.sort_by_key(|point| point.seconds);
    let mut distances: BTreeMap<i64, usize> = BTreeMap::new();
    for pair in points.windows(2).filter(|pair| pair[1].seconds > pair[0].seconds) {
        *distances.entry(pair[1].seconds - pair[0].seconds).or_default() += 1;
    }
    // Of equally frequent distances the shortest.
    let step = distances.iter().max_by_key(|&(distance, n)| (n, -distance)).map_or(60, |(distance, _)| *distance);
    let first = points[0].seconds.div_euclid(step);
    let n_steps = points[points.len() - 1].seconds.div_euclid(step) - first + 1;
    if n_steps > MAX_STEPS {
        return Err(DatasetError::layout(path, format!("its times span {n_steps} steps of {step} s")));
    }
    let n_steps = usize::try_from(n_steps).unwrap_or(0);
    let (mut values, mut anomalous) = (vec![f64::NAN; n_steps], vec![false; n_steps]);
    for point in &points {
        let idx = usize::try_from(point.seconds.div_euclid(step) - first).unwrap_or(0);
        values[idx] = point.value;
        anomalous[idx] |= point.is_anomalous;
    }
    let step_nanos = step.saturating_mul(1_000_000_000);
    Ok(LabelledSeries { name, start_unix_nano: first.saturating_mul(step_nanos), step_nanos, values, anomalous })
}

/// One machine of a multivariate set: all its metrics, row after row.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Machine {
    /// Its name.
    pub name: String,
    /// Metrics a row.
    pub n_columns: usize,
    /// Rows to learn from.
    pub train: Vec<f64>,
    /// Rows to judge.
    pub test: Vec<f64>,
    /// Whether a row of `test` is anomalous.
    pub anomalous: Vec<bool>,
}

/// Every machine under `root`, in order of name: `train/<machine>`, `test/<machine>`, `test_label/<machine>`, as SMD
/// and ASD have them. The rows are 60 s apart by convention; the files have no times.
///
/// # Errors
/// When a file cannot be read, a part of a machine is missing, or rows differ in length.
pub fn machines(root: &Path) -> Result<Vec<Machine>, DatasetError> {
    let mut parts: BTreeMap<(String, &'static str), PathBuf> = BTreeMap::new();
    for path in files_under(root)? {
        let folder = path.parent().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
        let part = match folder.as_deref() {
            Some("train") => "train",
            Some("test") => "test",
            Some("test_label") => "test_label",
            _ => continue,
        };
        let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        parts.insert((stem, part), path);
    }
    let names: Vec<String> = parts.keys().filter(|key| key.1 == "train").map(|key| key.0.clone()).collect();
    if names.is_empty() {
        return Err(DatasetError::layout(root, "no train/<machine>, test/<machine>, test_label/<machine> in it"));
    }
    let part = |name: &str, part: &'static str| {
        parts.get(&(name.to_owned(), part)).ok_or_else(|| DatasetError::layout(root, format!("{part}/{name} lacks")))
    };
    names
        .iter()
        .map(|name| {
            let (n_columns, train) = rows(part(name, "train")?)?;
            let (n_test_columns, test) = rows(part(name, "test")?)?;
            let label_path = part(name, "test_label")?;
            let (_, labels) = rows(label_path)?;
            if n_test_columns != n_columns || labels.len() * n_columns != test.len() {
                let reason = format!(
                    "{} labels for {} test rows of {n_test_columns} metrics, trained on {n_columns}",
                    labels.len(),
                    test.len() / n_test_columns.max(1)
                );
                return Err(DatasetError::layout(label_path, reason));
            }
            let anomalous = labels.iter().map(|label| *label > 0.5).collect();
            Ok(Machine { name: name.clone(), n_columns, train, test, anomalous })
        })
        .collect()
}

/// Rows of numbers, and how many are in each.
fn rows(path: &Path) -> Result<(usize, Vec<f64>), DatasetError> {
    let (mut n_columns, mut values) = (0, Vec::new());
    lines::for_each(path, |number, line| {
        let text = String::from_utf8_lossy(line);
        if text.trim().is_empty() {
            return Ok(Flow::On);
        }
        let before = values.len();
        for field in text.split(',') {
            let Ok(value) = field.trim().parse::<f64>() else {
                return Err(DatasetError::record(path, number, format!("`{}` is no number", field.trim())));
            };
            values.push(if value.is_finite() { value } else { f64::NAN });
        }
        let n = values.len() - before;
        if before > 0 && n != n_columns {
            return Err(DatasetError::record(path, number, format!("{n} fields, {n_columns} in the row before")));
        }
        n_columns = n;
        Ok(Flow::On)
    })?;
    Ok((n_columns, values))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn points_come_out_on_a_grid_with_gaps() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("kpi.csv");
        // Out of order, twice the same time, a hole, an empty value, off the grid by a second.
        let rows = "timestamp,value,label\n120,1.5,0\n60,1,0\n180,2,1\n180,3,0\n361,,0\n420,5,0\n300,4,1\n";
        fs::write(&path, rows).expect("written");
        fs::write(folder.path().join("index.csv"), "file,points\na,3\n").expect("written");
        let all = labelled_series(folder.path()).expect("a series");
        assert_eq!(all.len(), 1, "the index is none");
        let series = &all[0];
        assert_eq!((series.name.as_str(), series.start_unix_nano), ("kpi", 60_000_000_000));
        assert_eq!(series.step_nanos, 60_000_000_000);
        let shown: Vec<String> = series.values.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["1", "1.5", "3", "NaN", "4", "NaN", "5"]);
        assert_eq!(series.anomalous, [false, false, true, false, true, false, false]);
        fs::write(&path, "timestamp,value,label\n60,1,0\n120,x,0\n").expect("written");
        let error = labelled_series(folder.path()).expect_err("x is no number").to_string();
        assert!(error.contains("kpi.csv:3") && error.contains('x'), "{error}");
    }

    #[test]
    fn a_machine_needs_its_three_parts() {
        let folder = tempfile::tempdir().expect("a folder");
        for (part, text) in [("train", "1,2\n3,4\n5,6\n"), ("test", "1,2\n3,4\n"), ("test_label", "0\n1\n")] {
            fs::create_dir(folder.path().join(part)).expect("made");
            fs::write(folder.path().join(part).join("m-1.txt"), text).expect("written");
        }
        let all = machines(folder.path()).expect("a machine");
        assert_eq!((all[0].name.as_str(), all[0].n_columns), ("m-1", 2));
        assert_eq!((all[0].train.len(), &all[0].anomalous[..]), (6, &[false, true][..]));
        fs::write(folder.path().join("test_label/m-1.txt"), "0\n").expect("written");
        let error = machines(folder.path()).expect_err("a label lacks").to_string();
        assert!(error.contains("1 labels for 2 test rows"), "{error}");
        fs::remove_file(folder.path().join("test_label/m-1.txt")).expect("removed");
        let error = machines(folder.path()).expect_err("a part lacks").to_string();
        assert!(error.contains("test_label/m-1 lacks"), "{error}");
    }
}
