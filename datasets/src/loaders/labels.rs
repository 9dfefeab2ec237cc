//! Label files for `replay --labels` and the raw protocols: by session, or one label a line.
//!
//! A file with a header of two columns (`BlockId,Label`, `session,label`; comma or tab) labels sessions; a file
//! of one value a line labels lines. Labels read as 0, 1, normal, anomaly, abnormal, anomalous, true, false, `-`, in any
//! case. Labels stay here: nothing in this crate puts one into a window. Cost: one pass, one map entry a session.

use std::{collections::HashMap, path::Path};

use crate::{
    error::DatasetError,
    lines::{self, Flow},
    scan::is_session_column,
};

/// Labels of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Labels {
    /// By session id.
    Sessions(SessionLabels),
    /// By line, in order: true is anomalous.
    Lines(Vec<bool>),
}

/// Which sessions are anomalous.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionLabels {
    by_session: HashMap<String, bool>,
    n_anomalous: usize,
}

impl SessionLabels {
    /// Whether the session is anomalous; none when the file does not have it.
    #[must_use]
    pub fn get(&self, session: &str) -> Option<bool> {
        self.by_session.get(session).copied()
    }

    /// Sessions labelled.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_session.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_session.is_empty()
    }

    /// Sessions labelled anomalous.
    #[must_use]
    pub fn n_anomalous(&self) -> usize {
        self.n_anomalous
    }

    /// Every session with its label, in order of id.
    #[must_use]
    pub fn sorted(&self) -> Vec<(&str, bool)> {
        let mut all: Vec<(&str, bool)> = self.by_session.iter().map(|(id, label)| (id.as_str(), *label)).collect();
        all.sort_unstable();
        all
    }

    fn insert(&mut self, session: &str, anomalous: bool) -> Result<(), String> {
        match self.by_session.insert(session.to_owned(), anomalous) {
            Some(before) if before != anomalous => Err(format!("session `{session}` is labelled both ways")),
            Some(_) => Ok(()),
            None => {
                self.n_anomalous += usize::from(anomalous);
                Ok(())
            }
        }
    }
}

impl Labels {
    /// Reads a label file; which layout it has is told by its first line.
    ///
    /// # Errors
    /// When the file cannot be read, or a line is neither a label nor what its header promises; the error names file
    /// and line.
    pub fn read(path: &Path) -> Result<Self, DatasetError> {
        let mut labels: Option<Self> = None;
        let mut columns = Columns { separator: b',', session: 0, label: 1, n: 2 };
        lines::for_each(path, |number, line| {
            let at = |reason: String| DatasetError::record(path, number, reason);
            let text = std::str::from_utf8(line).map_err(|_| at("it is not UTF-8".to_owned()))?;
            let text = text.trim_start_matches('\u{feff}').trim();
            if text.is_empty() {
                return Ok(Flow::On);
            }
            match &mut labels {
                None => match Columns::of_header(text) {
                    Some(header) => {
                        columns = header;
                        labels = Some(Self::Sessions(SessionLabels::default()));
                    }
                    None if text.eq_ignore_ascii_case("label") => labels = Some(Self::Lines(Vec::new())),
                    None => {
                        let first = label(text).map_err(|reason| {
                            at(format!("{reason}; expected a header such as `BlockId,Label`, or one label a line"))
                        })?;
                        labels = Some(Self::Lines(vec![first]));
                    }
                },
                Some(Self::Sessions(sessions)) => {
                    let (session, value) = columns.split(text).map_err(at)?;
                    sessions.insert(session, label(value).map_err(at)?).map_err(at)?;
                }
                Some(Self::Lines(lines)) => lines.push(label(text).map_err(at)?),
            }
            Ok(Flow::On)
        })?;
        labels.ok_or_else(|| DatasetError::layout(path, "the label file is empty"))
    }

    /// Reads a file that must label sessions.
    ///
    /// # Errors
    /// As [`Labels::read`], and when it labels lines.
    pub fn read_sessions(path: &Path) -> Result<SessionLabels, DatasetError> {
        match Self::read(path)? {
            Self::Sessions(sessions) => Ok(sessions),
            Self::Lines(_) => Err(DatasetError::record(path, 1, "expected a header such as `BlockId,Label`")),
        }
    }

    /// Labels there are.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Sessions(sessions) => sessions.len(),
            Self::Lines(lines) => lines.len(),
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Labels that say anomalous.
    #[must_use]
    pub fn n_anomalous(&self) -> usize {
        match self {
            Self::Sessions(sessions) => sessions.n_anomalous(),
            Self::Lines(lines) => lines.iter().filter(|label| **label).count(),
        }
    }
}

/// Whether a raw line of Loghub's BGL, Thunderbird, Spirit or Liberty is an alert: its first field is the alert's category,
/// or `-` for none. None for an empty line.
#[must_use]
pub fn alert_in_first_field(line: &[u8]) -> Option<bool> {
    let field = line.split(|byte| byte.is_ascii_whitespace()).find(|field| !field.is_empty())?;
    Some(field != b"-")
}

struct Columns {
    separator: u8,
    session: usize,
    label: usize,
    n: usize,
}

impl Columns {
    fn of_header(text: &str) -> Option<Self> {
        let separator = if text.contains('\t') { b'\t' } else { b',' };
        let cells: Vec<&str> = cells(text, separator).collect();
        let session = cells.iter().position(|cell| is_session_column(cell))?;
        let label = cells.iter().position(|cell| cell.trim().eq_ignore_ascii_case("label"))?;
        Some(Self { separator, session, label, n: cells.len() })
    }

    fn split<'a>(&self, text: &'a str) -> Result<(&'a str, &'a str), String> {
        let cells: Vec<&str> = cells(text, self.separator).collect();
        match (cells.len() == self.n, cells.get(self.session), cells.get(self.label)) {
            (true, Some(session), Some(label)) if !session.is_empty() => Ok((session, label)),
            _ => Err(format!("expected {} columns, a session and its label among them", self.n)),
        }
    }
}

fn cells(text: &str, separator: u8) -> impl Iterator<Item = &str> {
    text.split(char::from(separator)).map(|cell| cell.trim().trim_matches('"').trim_start_matches('#'))
}

fn label(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "anomaly" | "abnormal" | "anomalous" | "true" => Ok(true),
        "0" | "normal" | "false" | "-" => Ok(false),
        _ => {
            let shown: String = text.chars().take(40).collect();
            Err(format!("`{shown}` is no label (0, 1, normal, anomaly)"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Labels, DatasetError> {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("labels.csv");
        std::fs::write(&path, text).expect("written");
        Labels::read(&path)
    }

    #[test]
    fn session_labels_read_in_every_documented_form() {
        for text in [
            "BlockId,Label\nblk_1,Normal\nblk_-2,Anomaly\n",
            "session,label\r\nblk_1,0\r\nblk_-2,1\r\n",
            "\u{feff}label\tsession_id\nfalse\tblk_1\nTRUE\tblk_-2",
            "\"BlockId\",\"Label\"\n\"blk_1\",\"normal\"\n\n\"blk_-2\",\"abnormal\"\n\"blk_-2\",\"anomaly\"\n",
        ] {
            let Ok(Labels::Sessions(labels)) = read(text) else { panic!("{text}") };
            assert_eq!(
                (labels.get("blk_1"), labels.get("blk_-2"), labels.get("blk_3")),
                (Some(false), Some(true), None)
            );
            assert_eq!((labels.len(), labels.n_anomalous()), (2, 1));
            assert_eq!(labels.sorted(), [("blk_-2", true), ("blk_1", false)]);
        }
    }

    #[test]
    fn line_labels_read_with_or_without_a_header() {
        for text in ["0\n1\n0\n", "label\n0\n1\n-\n", "normal\nanomaly\nnormal"] {
            assert_eq!(read(text).expect("readable"), Labels::Lines(vec![false, true, false]));
        }
    }

    #[test]
    fn errors_name_file_and_line() {
        for (text, expected) in [
            ("BlockId,Label\nblk_1,Normal\nblk_2,Perhaps\n", "labels.csv:3: `Perhaps` is no label"),
            ("BlockId,Label\nblk_1\n", "labels.csv:2: expected 2 columns"),
            ("BlockId,Label\na,0\na,1\n", "labels.csv:3: session `a` is labelled both ways"),
            ("0\n2\n", "labels.csv:2: `2` is no label"),
            ("what,ever\n", "labels.csv:1: `what,ever` is no label"),
            ("\n\n", "the label file is empty"),
        ] {
            let error = read(text).expect_err(text).to_string();
            assert!(error.contains(expected), "{error} lacks {expected}");
        }
    }

    #[test]
    fn the_first_field_of_a_raw_line_is_its_alert() {
        assert_eq!(alert_in_first_field(b"- 1117838570 x"), Some(false));
        assert_eq!(alert_in_first_field(b"APPREAD 1117869872 x"), Some(true));
        assert_eq!(alert_in_first_field(b"  "), None);
    }
}
