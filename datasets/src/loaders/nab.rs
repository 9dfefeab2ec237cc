//! The Numenta Anomaly Benchmark: 58 series with windows around their anomalies, as numenta/NAB publishes them.
//!
//! `<category>/<series>.csv` holds `timestamp,value`, `combined_windows.json` the windows of each by the times of their first
//! and last row, `profiles.json` what the scorer weighs how (NAB's own three where there is none). Rows stay as they are and
//! are not put on a grid: [`crate::nab_scorer`] counts rows, and times in some files go back an hour or come twice. Times have
//! no zone and are taken for UTC. A value that is empty or not finite is NaN.
//!
//! Cost: one pass a file. Fails on a series without an entry among the windows, and on a window whose times no row has.

use std::{collections::BTreeMap, ops::Range, path::Path};

use serde::{Deserialize, de::DeserializeOwned};

use crate::{
    error::DatasetError,
    lines::{self, Flow},
    nab_scorer::{self, Profile},
    scan::files_under,
    times::unix_nanos,
};

/// The benchmark.
#[derive(Clone, Debug)]
pub struct Nab {
    /// Its series, in order of path.
    pub series: Vec<NabSeries>,
    /// Its profiles, `standard` first.
    pub profiles: Vec<Profile>,
}

/// One series with its truth.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NabSeries {
    /// Name of its folder, such as `realKnownCause`.
    pub category: String,
    /// Its file's name without the ending.
    pub name: String,
    /// When each row was measured.
    pub times_unix_nano: Vec<i64>,
    /// What was measured.
    pub values: Vec<f64>,
    /// Rows around anomalies, in order and without overlap.
    pub windows: Vec<Range<usize>>,
}

impl NabSeries {
    /// Rows at its begin that are not judged, and from which a detector may learn.
    #[must_use]
    pub fn n_probation(&self) -> usize {
        nab_scorer::n_probation(self.values.len())
    }

    /// Whether each row lies in a window.
    #[must_use]
    pub fn anomalous(&self) -> Vec<bool> {
        let mut anomalous = vec![false; self.values.len()];
        self.windows.iter().for_each(|window| anomalous[window.clone()].fill(true));
        anomalous
    }
}

impl Nab {
    /// Reads every series under `data`.
    ///
    /// # Errors
    /// When there is none, the windows lack, or a file cannot be read; the error names file and line.
    pub fn load(data: &Path) -> Result<Self, DatasetError> {
        let files = files_under(data)?;
        let named = |name: &str| files.iter().find(|path| path.file_name().is_some_and(|own| own == name));
        let Some(labels) = named("combined_windows.json") else {
            return Err(DatasetError::layout(data, "no combined_windows.json in it"));
        };
        let limits: BTreeMap<String, Vec<[String; 2]>> = json(labels)?;
        let profiles = match named("profiles.json") {
            Some(path) => profiles(path)?,
            None => Profile::published().to_vec(),
        };
        let mut all = Vec::new();
        for path in files.iter().filter(|path| path.extension().is_some_and(|extension| extension == "csv")) {
            if let Some(series) = series(path, &limits, labels)? {
                all.push(series);
            }
        }
        if all.is_empty() {
            return Err(DatasetError::layout(data, "no table of timestamp,value (.csv) is in it"));
        }
        Ok(Self { series: all, profiles })
    }
}

/// The series of one file; none when its header is not that of a series.
fn series(
    path: &Path,
    limits: &BTreeMap<String, Vec<[String; 2]>>,
    labels: &Path,
) -> Result<Option<NabSeries>, DatasetError> {
    let Some((times_unix_nano, values)) = rows(path)? else { return Ok(None) };
    let text = |part: Option<&std::ffi::OsStr>| part.map(|it| it.to_string_lossy().into_owned()).unwrap_or_default();
    let category = text(path.parent().and_then(Path::file_name));
    let key = format!("{category}/{}", text(path.file_name()));
    let limits = limits.get(&key).ok_or_else(|| DatasetError::layout(labels, format!("no entry for `{key}`")))?;
    let row_of = |time: &String| {
        let at = unix_nanos(time).and_then(|time| times_unix_nano.iter().position(|other| *other == time));
        at.ok_or_else(|| DatasetError::layout(labels, format!("`{key}` has no row at `{time}`")))
    };
    let mut windows = Vec::new();
    for [first, last] in limits {
        windows.push(row_of(first)?..row_of(last)? + 1);
    }
    windows.sort_by_key(|window| window.start);
    if windows.iter().any(Range::is_empty) || windows.windows(2).any(|pair| pair[1].start < pair[0].end) {
        return Err(DatasetError::layout(labels, format!("windows of `{key}` end before they begin, or overlap")));
    }
    let name = text(path.file_stem());
    Ok(Some(NabSeries { category, name, times_unix_nano, values, windows }))
}

/// Times and values, row by row.
type Rows = (Vec<i64>, Vec<f64>);

/// The rows of a file; none when the header is another.
fn rows(path: &Path) -> Result<Option<Rows>, DatasetError> {
    let (mut times, mut values) = (Vec::new(), Vec::new());
    let mut is_series = false;
    lines::for_each(path, |number, line| {
        let text = String::from_utf8_lossy(line);
        if number == 1 {
            is_series = text.trim_start_matches('\u{feff}').trim() == "timestamp,value";
            return Ok(if is_series { Flow::On } else { Flow::Stop });
        }
        if text.trim().is_empty() {
            return Ok(Flow::On);
        }
        let Some((time, value)) = text.split_once(',') else {
            return Err(DatasetError::record(path, number, "not two fields: timestamp,value"));
        };
        let Some(time) = unix_nanos(time) else {
            return Err(DatasetError::record(path, number, format!("`{time}` is no time")));
        };
        let value = match value.trim().parse::<f64>() {
            Ok(value) if value.is_finite() => value,
            Ok(_) => f64::NAN,
            Err(_) if value.trim().is_empty() => f64::NAN,
            Err(_) => return Err(DatasetError::record(path, number, format!("`{}` is no number", value.trim()))),
        };
        times.push(time);
        values.push(value);
        Ok(Flow::On)
    })?;
    Ok(is_series.then_some((times, values)))
}

#[derive(Deserialize)]
struct ProfileEntry {
    #[serde(rename = "CostMatrix")]
    cost_matrix: CostMatrix,
}

#[derive(Deserialize)]
struct CostMatrix {
    #[serde(rename = "tpWeight")]
    true_positive: f64,
    #[serde(rename = "fpWeight")]
    false_positive: f64,
    #[serde(rename = "fnWeight")]
    false_negative: f64,
}

fn profiles(path: &Path) -> Result<Vec<Profile>, DatasetError> {
    let entries: BTreeMap<String, ProfileEntry> = json(path)?;
    let mut profiles = Vec::new();
    for (name, ProfileEntry { cost_matrix: costs }) in entries {
        // What is between flagging nothing and perfection must not be nothing.
        if !(costs.true_positive > 0.0 && costs.false_negative >= 0.0 && costs.false_positive >= 0.0) {
            return Err(DatasetError::layout(path, format!("profile `{name}`: weights are not above 0")));
        }
        let CostMatrix { true_positive, false_positive, false_negative } = costs;
        profiles.push(Profile { name, true_positive, false_positive, false_negative });
    }
    profiles.sort_by_key(|profile| profile.name != "standard");
    Ok(profiles)
}

fn json<T: DeserializeOwned>(path: &Path) -> Result<T, DatasetError> {
    serde_json::from_reader(lines::open(path)?)
        .map_err(|error| DatasetError::record(path, error.line() as u64, format!("not what it should hold: {error}")))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn write(root: &Path, name: &str, text: &str) {
        let path = root.join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, text).expect("written");
    }

    const WINDOWS: &str = r#"{
        "real/a.csv": [["2014-04-01 00:20:00.000000", "2014-04-01 00:25:00.000000"],
                       ["2014-04-01 00:05:00.000000", "2014-04-01 00:10:00.000000"]],
        "real/b.csv": []
    }"#;

    #[test]
    fn series_keep_their_rows_and_windows_become_ranges_of_rows() {
        let folder = tempfile::tempdir().expect("a folder");
        // One row comes twice, and the clock goes back.
        let rows = "timestamp,value\r\n2014-04-01 00:00:00,1\r\n2014-04-01 00:05:00,2.5\r\n2014-04-01 00:05:00,\r\n\
                    2014-04-01 00:10:00,4\r\n2014-04-01 00:20:00,5\r\n2014-04-01 00:15:00,inf\r\n2014-04-01 00:25:00,-7e-3";
        write(folder.path(), "data/real/a.csv", rows);
        write(folder.path(), "data/real/b.csv", "timestamp,value\n2014-04-01 00:00:00,1\n");
        write(folder.path(), "results/x/real/a.csv", "timestamp,value,anomaly_score\n2014-04-01 00:00:00,1,0.5\n");
        write(folder.path(), "labels/combined_windows.json", WINDOWS);
        let nab = Nab::load(folder.path()).expect("loads");
        assert_eq!(nab.profiles, Profile::published());
        let [a, b] = nab.series.as_slice() else { panic!("{:?}", nab.series) };
        assert_eq!((a.category.as_str(), a.name.as_str(), b.name.as_str()), ("real", "a", "b"));
        assert_eq!(a.windows, [1..4, 4..7]);
        assert_eq!(a.anomalous(), [false, true, true, true, true, true, true]);
        assert_eq!((a.n_probation(), b.windows.len()), (1, 0));
        let shown: Vec<String> = a.values.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["1", "2.5", "NaN", "4", "5", "NaN", "-0.007"]);
        assert_eq!(a.times_unix_nano[5] - a.times_unix_nano[4], -300_000_000_000);
    }

    #[test]
    fn profiles_come_from_their_file_where_there_is_one() {
        let folder = tempfile::tempdir().expect("a folder");
        write(folder.path(), "data/real/b.csv", "timestamp,value\n2014-04-01 00:00:00,1\n");
        write(folder.path(), "labels/combined_windows.json", r#"{"real/b.csv": []}"#);
        let profile = |weight: &str| {
            format!(r#"{{"CostMatrix": {{"tpWeight": {weight}, "fnWeight": 2, "fpWeight": 0.5, "tnWeight": 1.0}}}}"#)
        };
        let both = format!(r#"{{"mine": {}, "standard": {}}}"#, profile("1.5"), profile("1"));
        write(folder.path(), "config/profiles.json", &both);
        let nab = Nab::load(folder.path()).expect("loads");
        let shown: Vec<_> =
            nab.profiles.iter().map(|it| (it.name.as_str(), it.true_positive, it.false_positive)).collect();
        assert_eq!(shown, [("standard", 1.0, 0.5), ("mine", 1.5, 0.5)]);
        write(folder.path(), "config/profiles.json", &format!(r#"{{"mine": {}}}"#, profile("0")));
        let error = Nab::load(folder.path()).expect_err("no weight").to_string();
        assert!(error.contains("profile `mine`"), "{error}");
    }

    #[test]
    fn what_does_not_fit_together_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let refused = |expected: &str| {
            let error = Nab::load(folder.path()).expect_err("refused").to_string();
            assert!(error.contains(expected), "{error}");
        };
        write(folder.path(), "data/real/a.csv", "timestamp,value\n2014-04-01 00:00:00,1\n");
        refused("no combined_windows.json");
        write(folder.path(), "labels/combined_windows.json", "{}");
        refused("no entry for `real/a.csv`");
        write(folder.path(), "labels/combined_windows.json", WINDOWS);
        refused("`real/a.csv` has no row at `2014-04-01 00:20:00.000000`");
        write(folder.path(), "labels/combined_windows.json", "[1]");
        refused("combined_windows.json:1: not what it should hold");
        write(folder.path(), "data/real/a.csv", "timestamp,value\n2014-04-01 00:00:00,x\n");
        refused("not what it should hold");
        write(folder.path(), "labels/combined_windows.json", WINDOWS);
        refused("a.csv:2: `x` is no number");
        write(folder.path(), "data/real/a.csv", "timestamp,value\n01/04/2014,1\n");
        refused("a.csv:2: `01/04/2014` is no time");
    }
}
