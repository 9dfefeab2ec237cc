//! Loghub's 2,000-line samples: content, true event and true template of every line, for 16 systems.
//!
//! Data: Zhu et al., Loghub (ISSRE 2023). Three ground truths of the same lines circulate (the original, Khan et al.'s
//! corrections, and Loghub-2.0's); GA hardly moves between them, PA and FTA do, so a result names which one it used.
//! Contents are those of the structured file, with the header already taken off, as every published figure has it.

use std::path::{Path, PathBuf};

use crate::{
    error::DatasetError,
    lines,
    metrics::Parsed,
    scan::{FileKind, scan},
};

/// Which labels a system carries, told by the folder it lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum GroundTruth {
    /// Loghub's own.
    Original,
    /// Khan et al.'s corrections.
    Corrected,
    /// Loghub-2.0's.
    Loghub20,
}

impl GroundTruth {
    /// Name for reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Original => "original",
            Self::Corrected => "corrected",
            Self::Loghub20 => "loghub-2.0",
        }
    }

    fn of(relative: &Path) -> Self {
        let path = relative.to_string_lossy().to_ascii_lowercase();
        if path.contains("corrected") {
            Self::Corrected
        } else if path.contains("2.0") {
            Self::Loghub20
        } else {
            Self::Original
        }
    }
}

/// One system with its ground truth.
#[derive(Clone, Debug)]
pub struct LabelledSystem {
    /// Name, such as `HDFS`.
    pub name: String,
    /// Which labels.
    pub truth: GroundTruth,
    /// The structured file.
    pub structured: PathBuf,
    /// The raw log beside it, where there is one.
    pub raw_log: Option<PathBuf>,
    /// Message of each line, header taken off.
    pub contents: Vec<String>,
    /// True event of each line.
    pub event_ids: Vec<String>,
    /// True template of each line.
    pub templates: Vec<String>,
}

impl LabelledSystem {
    /// Every labelled system under `data`, in order of ground truth and name.
    ///
    /// # Errors
    /// When there is none, or a file cannot be read; the error names file and line.
    pub fn load_all(data: &Path) -> Result<Vec<Self>, DatasetError> {
        let mut systems = Vec::new();
        for found in scan(data)?.iter().filter(|found| found.kind == FileKind::Structured) {
            systems.push(Self::read(&found.path, GroundTruth::of(&found.relative))?);
        }
        if systems.is_empty() {
            return Err(DatasetError::layout(data, "no `<System>_2k.log_structured.csv` in it"));
        }
        systems.sort_by(|a, b| (a.truth, &a.name).cmp(&(b.truth, &b.name)));
        Ok(systems)
    }

    /// Reads one structured file.
    ///
    /// # Errors
    /// When a column is missing or a row cannot be read; the error names file and line.
    pub fn read(path: &Path, truth: GroundTruth) -> Result<Self, DatasetError> {
        let mut reader = csv::ReaderBuilder::new().flexible(false).from_reader(lines::open(path)?);
        let bad = |line: u64, error: &csv::Error| DatasetError::record(path, line, format!("not valid CSV: {error}"));
        let headers = reader.headers().map_err(|error| bad(1, &error))?.clone();
        let column = |name: &str| {
            headers
                .iter()
                .position(|header| header.trim_start_matches('\u{feff}') == name)
                .ok_or_else(|| DatasetError::record(path, 1, format!("column `{name}` is missing")))
        };
        let (content, event, template) = (column("Content")?, column("EventId")?, column("EventTemplate")?);
        let file_name = path.file_name().unwrap_or_default().to_string_lossy();
        let log_name = file_name.split("_structured").next().unwrap_or_default();
        let mut system = Self {
            name: file_name.split(['_', '.']).next().unwrap_or_default().to_owned(),
            truth,
            structured: path.to_owned(),
            raw_log: Some(path.with_file_name(log_name)).filter(|log| log.is_file()),
            contents: Vec::new(),
            event_ids: Vec::new(),
            templates: Vec::new(),
        };
        let mut record = csv::StringRecord::new();
        loop {
            let line = reader.position().line();
            if !reader.read_record(&mut record).map_err(|error| bad(line, &error))? {
                break;
            }
            // `flexible(false)` guarantees as many cells as headers.
            system.contents.push(record[content].to_owned());
            system.event_ids.push(record[event].to_owned());
            system.templates.push(record[template].to_owned());
        }
        Ok(system)
    }

    /// The ground truth in the form [`crate::parsing_accuracy`] takes.
    #[must_use]
    pub fn truth_groups(&self) -> Vec<Parsed<'_>> {
        self.event_ids.iter().zip(&self.templates).map(|(group, template)| Parsed { group, template }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_system_reads_with_quotes_and_finds_its_raw_log() {
        let dir = tempfile::tempdir().expect("a folder");
        let folder = dir.path().join("original/Apache");
        fs::create_dir_all(&folder).expect("created");
        fs::write(folder.join("Apache_2k.log"), "raw\n").expect("written");
        let text = "\u{feff}LineId,Time,Content,EventId,EventTemplate\r\n1,x,\"a, \"\"b\"\" 7\",E2,\"a, \"\"b\"\" <*>\"\r\n2,y,c,E1,c\r\n";
        fs::write(folder.join("Apache_2k.log_structured.csv"), text).expect("written");
        let systems = LabelledSystem::load_all(dir.path()).expect("loads");
        let [system] = systems.as_slice() else { panic!("{systems:?}") };
        assert_eq!((system.name.as_str(), system.truth), ("Apache", GroundTruth::Original));
        assert_eq!(system.contents, ["a, \"b\" 7", "c"]);
        assert_eq!(system.truth_groups()[0], Parsed { group: "E2", template: "a, \"b\" <*>" });
        assert_eq!(system.raw_log.as_deref(), Some(&*folder.join("Apache_2k.log")));
    }

    #[test]
    fn a_missing_column_and_a_short_row_are_named() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("X_2k.log_structured.csv");
        fs::write(&path, "LineId,EventId,EventTemplate\n1,E1,a\n").expect("written");
        let error = LabelledSystem::read(&path, GroundTruth::Original).expect_err("no content").to_string();
        assert!(error.contains("csv:1: column `Content`"), "{error}");
        fs::write(&path, "Content,EventId,EventTemplate\na,E1,a\nb,E1\n").expect("written");
        let error = LabelledSystem::read(&path, GroundTruth::Original).expect_err("short").to_string();
        assert!(error.contains("csv:3:"), "{error}");
    }
}
