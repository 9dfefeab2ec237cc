//! HDFS besides DeepLog's split: all sessions in time order with labels, and raw log lines with labels by block.
//!
//! Data: Xu, Huang, Fox, Patterson, Jordan: "Detecting Large-Scale System Problems by Mining Console Logs" (SOSP 2009),
//! as Loghub publishes it. A block's session is every line that names it; 40 normal sessions of the table are cut at 75
//! events (`truncated`), kept as they are. Cost: one pass each; the raw index holds one entry a block.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use super::{
    labels::{Labels, SessionLabels},
    sessions::Sessions,
};
use crate::{
    error::DatasetError,
    lines::{self, Flow},
    scan::{FileKind, Found, scan},
};

/// Every session in order of first appearance, labelled.
#[derive(Clone, Debug, Default)]
pub struct ChronologicalSessions {
    /// The events (Loghub's E-numbers).
    pub sessions: Sessions,
    /// Whether each is anomalous.
    pub anomalous: Vec<bool>,
    /// Whether each was cut at 75 events.
    pub truncated: Vec<bool>,
    /// Block ids, where the table has them (it has them for anomalies only).
    pub block_ids: Vec<Option<Box<str>>>,
}

impl ChronologicalSessions {
    /// Finds the table under `data` and reads it.
    ///
    /// # Errors
    /// When there is none or more than one, or a row cannot be read; the error names file and line.
    pub fn load(data: &Path) -> Result<Self, DatasetError> {
        let found = scan(data)?;
        Self::read(only(data, &found, FileKind::SessionTable)?)
    }

    /// Reads a table of five columns: idx, label, truncated, block id, events. Rows must be in order of idx.
    ///
    /// # Errors
    /// When a row cannot be read or is out of order; the error names file and line.
    pub fn read(path: &Path) -> Result<Self, DatasetError> {
        let mut table = Self::default();
        let mut previous = None;
        lines::for_each(path, |number, line| {
            if line.is_empty() || line[0] == b'#' {
                return Ok(Flow::On);
            }
            let at = |reason: String| DatasetError::record(path, number, reason);
            let mut cells = line.splitn(5, |byte| *byte == b'\t');
            let mut cell = |name: &str| cells.next().ok_or_else(|| at(format!("column `{name}` is missing")));
            let (idx, label, truncated) = (cell("idx")?, cell("label")?, cell("truncated")?);
            let (block, events) = (cell("block_id")?, cell("events")?);
            let idx: u64 = std::str::from_utf8(idx)
                .ok()
                .and_then(|text| text.parse().ok())
                .ok_or_else(|| at("idx is no number".to_owned()))?;
            if previous.is_some_and(|previous| previous >= idx) {
                return Err(at(format!("idx {idx} is not above the one before it, so the order in time is lost")));
            }
            previous = Some(idx);
            let flag = |name: &str, cell: &[u8]| match cell {
                b"0" => Ok(false),
                b"1" => Ok(true),
                _ => Err(at(format!("{name} is neither 0 nor 1"))),
            };
            table.anomalous.push(flag("label", label)?);
            table.truncated.push(flag("truncated", truncated)?);
            table.block_ids.push(match block {
                b"-" | b"" => None,
                id => Some(String::from_utf8_lossy(id).into()),
            });
            table.sessions.parse(events).map_err(at)?;
            table.sessions.close();
            Ok(Flow::On)
        })?;
        Ok(table)
    }
}

/// A raw log with labels by block.
#[derive(Clone, Debug)]
pub struct RawHdfs {
    /// The log.
    pub log: PathBuf,
    /// Labels by block id.
    pub labels: SessionLabels,
    /// The label file.
    pub label_file: PathBuf,
}

impl RawHdfs {
    /// Finds log and labels under `data`.
    ///
    /// A log with a label file beside it wins over one without, then the one whose name shares most with the labels'.
    ///
    /// # Errors
    /// When either is missing or the choice is not plain.
    pub fn load(data: &Path) -> Result<Self, DatasetError> {
        let found = scan(data)?;
        let logs = of_kind(&found, FileKind::HdfsLog);
        let labels = of_kind(&found, FileKind::SessionLabels);
        let beside: Vec<(&Found, &Found)> = logs
            .iter()
            .flat_map(|log| labels.iter().map(move |label| (*log, *label)))
            .filter(|(log, label)| near(&log.relative, &label.relative))
            .collect();
        match beside.as_slice() {
            [(log, label)] => Ok(Self {
                log: log.path.clone(),
                labels: Labels::read_sessions(&label.path)?,
                label_file: label.path.clone(),
            }),
            [] if logs.is_empty() => Err(DatasetError::layout(data, "no raw HDFS log in it")),
            [] => Err(DatasetError::layout(data, "no `BlockId,Label` file beside the raw log")),
            several => {
                let names: Vec<String> = several
                    .iter()
                    .map(|(log, label)| format!("{} with {}", log.relative.display(), label.relative.display()))
                    .collect();
                Err(DatasetError::layout(
                    data,
                    format!("several raw logs with labels ({}); pass the folder of one", names.join(", ")),
                ))
            }
        }
    }

    /// Reads the log once: its lines, and where each block begins and ends, in order of first appearance.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn index(&self) -> Result<RawIndex, DatasetError> {
        let mut index = RawIndex { n_lines: 0, blocks: Vec::new() };
        let mut known: HashMap<Box<str>, usize> = HashMap::new();
        lines::for_each(&self.log, |number, line| {
            index.n_lines = number;
            let Some(block) = block_id(line) else { return Ok(Flow::On) };
            if let Some(i) = known.get(block) {
                index.blocks[*i].last_line = number;
                index.blocks[*i].n_lines += 1;
            } else {
                known.insert(block.into(), index.blocks.len());
                index.blocks.push(BlockSpan {
                    id: block.into(),
                    first_line: number,
                    last_line: number,
                    n_lines: 1,
                    anomalous: self.labels.get(block),
                });
            }
            Ok(Flow::On)
        })?;
        Ok(index)
    }
}

/// Where the blocks of a raw log lie.
#[derive(Clone, Debug)]
pub struct RawIndex {
    /// Lines of the log.
    pub n_lines: u64,
    /// Its blocks, in order of first appearance.
    pub blocks: Vec<BlockSpan>,
}

impl RawIndex {
    /// The last line of the first `share` of the lines, rounded down: the training part ends after it.
    #[must_use]
    pub fn split_line(&self, share: f64) -> u64 {
        (self.n_lines as f64 * share.clamp(0.0, 1.0)) as u64
    }

    /// Blocks that first appear after line `split_line`, so that no line of theirs was trained on.
    pub fn blocks_after(&self, split_line: u64) -> impl Iterator<Item = &BlockSpan> + Clone {
        self.blocks.iter().filter(move |block| block.first_line > split_line)
    }
}

/// One block of a raw log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockSpan {
    /// `blk_...`.
    pub id: Box<str>,
    /// First line that names it, from 1.
    pub first_line: u64,
    /// Last line that names it.
    pub last_line: u64,
    /// Lines that name it first.
    pub n_lines: u64,
    /// Its label, where the label file has it.
    pub anomalous: Option<bool>,
}

/// The first block id (`blk_` and a signed number) in a raw line.
#[must_use]
pub fn block_id(line: &[u8]) -> Option<&str> {
    // Plain search: the lines are short, and this is off the live path.
    let mut from = 0;
    while let Some(at) = line[from..].windows(4).position(|window| window == b"blk_") {
        let start = from + at;
        let digits = start + 4 + usize::from(line.get(start + 4) == Some(&b'-'));
        let end = digits + line[digits..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        if end > digits {
            return std::str::from_utf8(&line[start..end]).ok();
        }
        from = start + 4;
    }
    None
}

fn of_kind(found: &[Found], kind: FileKind) -> Vec<&Found> {
    found.iter().filter(|found| found.kind == kind).collect()
}

/// Whether a label file belongs to a log: in the same folder or one directly below it.
fn near(log: &Path, label: &Path) -> bool {
    let (log, label) = (log.parent(), label.parent());
    log == label || label.and_then(Path::parent).is_some_and(|above| Some(above) == log)
}

/// The only file of a kind.
pub(crate) fn only<'a>(root: &Path, found: &'a [Found], kind: FileKind) -> Result<&'a Path, DatasetError> {
    match of_kind(found, kind).as_slice() {
        [one] => Ok(&one.path),
        [] => Err(DatasetError::layout(root, format!("nothing in it looks like this: {}", kind.describe()))),
        several => {
            let names: Vec<String> = several.iter().map(|found| found.relative.display().to_string()).collect();
            Err(DatasetError::layout(
                root,
                format!("several files look like this: {} ({}); pass the one meant", kind.describe(), names.join(", ")),
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_session_table_reads_with_labels_and_block_ids() {
        let dir = tempfile::tempdir().expect("a folder");
        let text = "#idx\tlabel(0 normal,1 anomaly)\ttruncated_at_75(0/1)\tblock_id\tevents\n\
                    0\t0\t1\t-\t5 22 5\n7\t1\t0\tblk_-35\t5 22\n";
        fs::write(dir.path().join("rest.tsv"), text).expect("written");
        let table = ChronologicalSessions::load(dir.path()).expect("loads");
        assert_eq!(table.sessions.iter().collect::<Vec<_>>(), [&[5, 22, 5][..], &[5, 22]]);
        assert_eq!(table.anomalous, [false, true]);
        assert_eq!(table.truncated, [true, false]);
        assert_eq!(table.block_ids, [None, Some("blk_-35".into())]);
    }

    #[test]
    fn rows_out_of_order_and_broken_rows_are_named() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("t.tsv");
        for (text, expected) in [
            ("3\t0\t0\t-\t5\n2\t0\t0\t-\t5\n", "t.tsv:2: idx 2 is not above"),
            ("3\t0\t0\t-\n", "t.tsv:1: column `events` is missing"),
            ("3\t2\t0\t-\t5\n", "t.tsv:1: label is neither"),
            ("3\t0\t0\t-\t5 x\n", "t.tsv:1: `x` is no event"),
        ] {
            fs::write(&path, text).expect("written");
            let error = ChronologicalSessions::read(&path).expect_err(text).to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_raw_log_is_indexed_by_block_and_split_by_line() {
        let dir = tempfile::tempdir().expect("a folder");
        let line =
            |block: &str| format!("081109 203518 143 INFO dfs.DataNode: Receiving block {block} src: /10.0.0.1\n");
        let text = line("blk_1") + &line("blk_-2") + &line("blk_1") + &line("blk_3");
        fs::create_dir(dir.path().join("preprocessed")).expect("created");
        fs::write(dir.path().join("HDFS.log"), text).expect("written");
        fs::write(dir.path().join("preprocessed/anomaly_label.csv"), "BlockId,Label\nblk_1,Normal\nblk_-2,Anomaly\n")
            .expect("written");
        let raw = RawHdfs::load(dir.path()).expect("loads");
        let index = raw.index().expect("readable");
        assert_eq!(index.n_lines, 4);
        let ids: Vec<_> = index.blocks.iter().map(|b| (&*b.id, b.first_line, b.last_line, b.anomalous)).collect();
        assert_eq!(ids, [("blk_1", 1, 3, Some(false)), ("blk_-2", 2, 2, Some(true)), ("blk_3", 4, 4, None)]);
        assert_eq!(index.split_line(0.5), 2);
        let after: Vec<_> = index.blocks_after(2).map(|block| &*block.id).collect();
        assert_eq!(after, ["blk_3"]);
    }

    #[test]
    fn block_ids_are_signed_and_a_bare_prefix_is_none() {
        assert_eq!(block_id(b"x blk_ blk_-16 y"), Some("blk_-16"));
        assert_eq!(block_id(b"blk_-"), None);
        assert_eq!(block_id(b""), None);
        assert_eq!(block_id(b"/a/blk_77: gone"), Some("blk_77"));
    }
}
