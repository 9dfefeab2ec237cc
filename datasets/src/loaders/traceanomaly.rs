//! TraceAnomaly's service trace vectors of TrainTicket: a response time for each call path of a trace, most of them 0.
//!
//! Liu et al., "Unsupervised Detection of Microservice Trace Anomalies through Service-Level Deep Bayesian Networks" (ISSRE
//! 2020), as NetManAIOps/TraceAnomaly publishes it: a line a trace, `uuid:v1,...,v890`, milliseconds, 0 where the trace does
//! not take the path. What the paths are is not published, nor when a trace was. So the split is by the first digit of the
//! id, which is as good as chance and the same for everyone: normals 0 to 7 are learned from, 8 and 9 fix thresholds, a
//! to f are judged, and with them every abnormal.
//!
//! Which file holds what is told by its name (`abnormal`, else `normal` or `train`). Only what is not 0 is kept, 10 bytes
//! each: 5 MB instead of 200. Cost: one pass. Fails on a line it cannot read, naming file and line.

use std::path::Path;

use crate::{
    error::DatasetError,
    lines::{self, Flow},
    scan::files_under,
};

/// Longest vector.
const MAX_COLUMNS: usize = 1 << 16;
/// Longest id kept.
const MAX_ID_BYTES: usize = 128;

/// All traces by what they are for.
#[derive(Clone, Debug, Default)]
pub struct TraceVectors {
    /// Call paths a vector has.
    pub n_columns: usize,
    /// Normal traces to learn from.
    pub train: Vectors,
    /// Normal traces to fix thresholds on.
    pub calibrate: Vectors,
    /// Normal traces to judge.
    pub test_normal: Vectors,
    /// Abnormal traces to judge.
    pub test_abnormal: Vectors,
}

/// Vectors in order of their file, without their zeros.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Vectors {
    ids: Vec<Box<str>>,
    /// Where each vector ends in the two below.
    ends: Vec<usize>,
    columns: Vec<u16>,
    values: Vec<f64>,
}

/// One trace.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Vector<'a> {
    /// Its id.
    pub id: &'a str,
    /// Call paths that it takes, ascending.
    pub columns: &'a [u16],
    /// Milliseconds on each of them, never 0.
    pub values: &'a [f64],
}

impl Vectors {
    /// Traces there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The trace at `idx`.
    #[must_use]
    pub fn get(&self, idx: usize) -> Option<Vector<'_>> {
        let end = *self.ends.get(idx)?;
        let start = if idx == 0 { 0 } else { self.ends[idx - 1] };
        Some(Vector { id: &self.ids[idx], columns: &self.columns[start..end], values: &self.values[start..end] })
    }

    /// Every trace.
    pub fn iter(&self) -> impl Iterator<Item = Vector<'_>> {
        (0..self.len()).filter_map(|idx| self.get(idx))
    }
}

impl TraceVectors {
    /// Reads every file of vectors under `data`.
    ///
    /// # Errors
    /// When there is none, a line cannot be read, or vectors differ in length.
    pub fn load(data: &Path) -> Result<Self, DatasetError> {
        let mut all = Self::default();
        for path in files_under(data)? {
            let name = path.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
            let is_abnormal = name.contains("abnormal");
            if (is_abnormal || name.contains("normal") || name.contains("train")) && is_vectors(&path)? {
                all.read(&path, is_abnormal)?;
            }
        }
        if all.n_columns == 0 {
            return Err(DatasetError::layout(data, "no file of `id:v1,v2,...` named normal, train or abnormal in it"));
        }
        Ok(all)
    }

    fn read(&mut self, path: &Path, is_abnormal: bool) -> Result<(), DatasetError> {
        lines::for_each(path, |number, line| {
            let refused = |reason: String| DatasetError::record(path, number, reason);
            let text = str::from_utf8(line).map_err(|_| refused("it is not UTF-8".to_owned()))?.trim();
            if text.is_empty() {
                return Ok(Flow::On);
            }
            let (id, fields) = text.split_once(':').ok_or_else(|| refused("not `id:v1,v2,...`".to_owned()))?;
            if id.len() > MAX_ID_BYTES {
                return Err(refused(format!("an id of more than {MAX_ID_BYTES} bytes")));
            }
            let digit = id.chars().next().and_then(|first| first.to_digit(16));
            let digit = digit.ok_or_else(|| refused(format!("id `{id}` begins with no hexadecimal digit")))?;
            let part = match digit {
                _ if is_abnormal => &mut self.test_abnormal,
                0..=7 => &mut self.train,
                8..=9 => &mut self.calibrate,
                _ => &mut self.test_normal,
            };
            let mut n_columns = 0;
            for field in fields.split(',') {
                let column = u16::try_from(n_columns)
                    .map_err(|_| refused(format!("a vector of more than {MAX_COLUMNS} columns")))?;
                n_columns += 1;
                // Nearly every field, so told before anything is parsed.
                if field == "0" {
                    continue;
                }
                let value = field.trim().parse::<f64>().ok().filter(|value| value.is_finite());
                let value = value.ok_or_else(|| refused(format!("`{field}` is no number")))?;
                if value != 0.0 {
                    part.columns.push(column);
                    part.values.push(value);
                }
            }
            part.ids.push(id.into());
            part.ends.push(part.values.len());
            if self.n_columns != 0 && self.n_columns != n_columns {
                return Err(refused(format!("{n_columns} columns, {} in the vectors before", self.n_columns)));
            }
            self.n_columns = n_columns;
            Ok(Flow::On)
        })
    }
}

/// Whether the first line is a vector.
fn is_vectors(path: &Path) -> Result<bool, DatasetError> {
    let mut is = false;
    lines::for_each(path, |_, line| {
        let text = String::from_utf8_lossy(line);
        is = text.split_once(':').is_some_and(|(id, fields)| {
            let is_id = id.len() >= 8 && id.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
            is_id && fields.split(',').next().is_some_and(|first| first.trim().parse::<f64>().is_ok())
        });
        Ok(Flow::Stop)
    })?;
    Ok(is)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn traces_are_split_by_the_first_digit_of_their_id() {
        let folder = tempfile::tempdir().expect("a folder");
        let normal =
            "0a000000:0,1.5,0\n7b000000:0,0.0,0\n8c000000:2,0,0\n9d000000:0,0,1e1\nae000000:1,2,3\ncf000000:0,0,4\n";
        fs::write(folder.path().join("test_normal"), normal).expect("written");
        fs::write(folder.path().join("test_abnormal"), "1a000000:0,27783.945,0\r\n\n").expect("written");
        fs::write(folder.path().join("train_notes.txt"), "see: 1,2,3\n").expect("written");
        let all = TraceVectors::load(folder.path()).expect("loads");
        assert_eq!((all.n_columns, all.train.len(), all.calibrate.len()), (3, 2, 2));
        assert_eq!((all.test_normal.len(), all.test_abnormal.len()), (2, 1));
        let shown = |vectors: &Vectors| -> Vec<(String, Vec<u16>, Vec<f64>)> {
            vectors.iter().map(|it| (it.id.to_owned(), it.columns.to_vec(), it.values.to_vec())).collect()
        };
        assert_eq!(
            shown(&all.train),
            [("0a000000".to_owned(), vec![1], vec![1.5]), ("7b000000".to_owned(), vec![], vec![])]
        );
        assert_eq!(shown(&all.test_normal)[0], ("ae000000".to_owned(), vec![0, 1, 2], vec![1.0, 2.0, 3.0]));
        assert_eq!(shown(&all.test_normal)[1], ("cf000000".to_owned(), vec![2], vec![4.0]));
        assert_eq!(all.test_abnormal.get(0).expect("one").values, [27_783.945]);
        assert_eq!(all.test_abnormal.get(1), None);
    }

    #[test]
    fn a_line_that_cannot_be_read_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("test_normal");
        let first = "0a000000:0,1.5,0\n";
        for (second, reason) in [
            ("0b000000:0,1.5", "2 columns, 3 in the vectors before"),
            ("0b000000:0,x,1", "`x` is no number"),
            ("0b000000:0,NaN,1", "`NaN` is no number"),
            ("zb000000:0,1,1", "begins with no hexadecimal digit"),
            ("0b000000", "not `id:v1,v2,...`"),
        ] {
            fs::write(&path, format!("{first}{second}\n")).expect("written");
            let error = TraceVectors::load(folder.path()).expect_err("refused").to_string();
            assert!(error.contains("test_normal:2: ") && error.contains(reason), "{error}");
        }
        fs::write(&path, "no vectors\n").expect("written");
        assert!(TraceVectors::load(folder.path()).is_err());
    }
}
