//! Telling what files a folder holds by looking into them, so that a dataset whose files are named otherwise loads too.
//!
//! Each file's first lines are read (up to 64 KiB after decompression) and matched against the layouts the loaders know.
//! Cost: one open and one read per file; bounded by depth, number of files and bytes read. Fails to recognise a layout
//! whose first lines are unusual; the loader's error then says what it looked for.

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
};

use crate::{error::DatasetError, lines};

/// Deepest folder looked into.
const MAX_DEPTH: usize = 8;
/// Most files looked at.
const MAX_FILES: usize = 50_000;
/// Bytes read from each.
const SNIFF_BYTES: u64 = 64 << 10;

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FileKind {
    /// One line of event numbers a session, optionally after `id,`.
    SessionLines,
    /// Table of idx, label, truncated, block id, events.
    SessionTable,
    /// `BlockId,Label` or `session,label`.
    SessionLabels,
    /// Table of event id and line label.
    LineTable,
    /// One 0 or 1 a line.
    BinaryLabels,
    /// `label,time,event id`.
    TimedEvents,
    /// Raw HDFS log lines.
    HdfsLog,
    /// Raw BGL or Thunderbird lines, alert label in the first field.
    AlertLog,
    /// Loghub's `..._structured.csv`: line, content, event id, template.
    Structured,
    /// `EventId,EventTemplate` or a template table.
    Templates,
    /// None of these.
    Other,
}

impl FileKind {
    /// What it is, for people.
    #[must_use]
    pub fn describe(self) -> &'static str {
        match self {
            Self::SessionLines => "sessions, one line of event numbers each",
            Self::SessionTable => "labelled session table",
            Self::SessionLabels => "labels by session",
            Self::LineTable => "event ids with line labels",
            Self::BinaryLabels => "labels, one 0 or 1 a line",
            Self::TimedEvents => "timed events with labels",
            Self::HdfsLog => "raw HDFS log",
            Self::AlertLog => "raw log with an alert label in the first field",
            Self::Structured => "structured log with ground-truth templates",
            Self::Templates => "templates",
            Self::Other => "other",
        }
    }
}

/// A file and what it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Where it is.
    pub path: PathBuf,
    /// The same relative to the folder scanned.
    pub relative: PathBuf,
    /// What it holds.
    pub kind: FileKind,
}

/// Looks into every file under `root` (or at `root` itself, if it is a file), in order of path. Hidden files and links
/// to folders are left out.
///
/// # Errors
/// When a folder or file cannot be read, or there are too many.
pub fn scan(root: &Path) -> Result<Vec<Found>, DatasetError> {
    let mut found = Vec::new();
    let metadata = fs::metadata(root).map_err(DatasetError::io("read", root))?;
    if metadata.is_file() {
        let relative = root.file_name().map(PathBuf::from).unwrap_or_default();
        found.push(Found { path: root.to_owned(), relative, kind: sniff(root)? });
        return Ok(found);
    }
    for path in files_under(root)? {
        let relative = path.strip_prefix(root).unwrap_or(&path).to_owned();
        let kind = sniff(&path)?;
        found.push(Found { path, relative, kind });
    }
    Ok(found)
}

/// Every file under `root`, sorted; hidden ones and links to folders left out.
///
/// # Errors
/// When a folder cannot be read, or there are too many files.
pub fn files_under(root: &Path) -> Result<Vec<PathBuf>, DatasetError> {
    let mut files = Vec::new();
    let mut folders = vec![(root.to_owned(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        for entry in fs::read_dir(&folder).map_err(DatasetError::io("read", &folder))? {
            let entry = entry.map_err(DatasetError::io("read", &folder))?;
            let name = entry.file_name();
            if name.to_string_lossy().starts_with('.') || name == "__MACOSX" {
                continue;
            }
            let path = entry.path();
            let kind = entry.file_type().map_err(DatasetError::io("read", &path))?;
            if kind.is_dir() {
                if depth < MAX_DEPTH {
                    folders.push((path, depth + 1));
                }
            } else if kind.is_file() || (kind.is_symlink() && path.is_file()) {
                if files.len() == MAX_FILES {
                    return Err(DatasetError::layout(root, format!("it holds more than {MAX_FILES} files")));
                }
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

/// What the file holds, by its first lines.
///
/// # Errors
/// When it cannot be read.
pub fn sniff(path: &Path) -> Result<FileKind, DatasetError> {
    let mut head = Vec::new();
    match lines::open(path)?.take(SNIFF_BYTES).read_to_end(&mut head) {
        Ok(_) => {}
        // Bytes that only look compressed.
        Err(error) if matches!(error.kind(), std::io::ErrorKind::InvalidData | std::io::ErrorKind::Other) => {}
        Err(source) => return Err(DatasetError::Io { operation: "read", path: path.to_owned(), source }),
    }
    Ok(kind_of(&head))
}

fn kind_of(head: &[u8]) -> FileKind {
    // Where reading stopped at the limit, the last line is cut; it is judged only when it is the only one.
    let cut = head.len() as u64 == SNIFF_BYTES;
    let complete = match head.iter().rposition(|byte| *byte == b'\n').filter(|_| cut) {
        Some(end) => &head[..end],
        None => head,
    };
    let text = String::from_utf8_lossy(complete);
    let text = text.trim_start_matches('\u{feff}');
    let sample: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).take(20).collect();
    let Some(first) = sample.first() else { return FileKind::Other };
    let columns: Vec<String> = first
        .split([',', '\t'])
        .map(|column| column.trim().trim_start_matches('#').trim_matches('"').to_ascii_lowercase())
        .collect();
    let has = |name: &str| columns.iter().any(|column| column == name);
    let starts = |i: usize, name: &str| columns.get(i).is_some_and(|column| column.starts_with(name));
    if has("eventtemplate") {
        return if has("lineid") || has("content") { FileKind::Structured } else { FileKind::Templates };
    }
    if starts(0, "event_id") && starts(1, "count") {
        return FileKind::Templates;
    }
    if starts(0, "idx") && starts(1, "label") {
        return FileKind::SessionTable;
    }
    if starts(0, "event") && starts(1, "label") {
        return FileKind::LineTable;
    }
    if columns.len() == 3 && starts(0, "label") && starts(1, "time") && starts(2, "event") {
        return FileKind::TimedEvents;
    }
    if columns.len() == 2 && starts(1, "label") && is_session_column(&columns[0]) {
        return FileKind::SessionLabels;
    }
    let body = if first.starts_with('#') { &sample[1..] } else { &sample[..] };
    let all = |test: fn(&str) -> bool| !body.is_empty() && body.iter().all(|line| test(line));
    let most = |test: fn(&str) -> bool| body.iter().filter(|line| test(line)).count() * 2 > body.len();
    if all(|line| matches!(line, "0" | "1")) {
        FileKind::BinaryLabels
    } else if all(is_line_row) {
        FileKind::LineTable
    } else if all(is_session_row) {
        FileKind::SessionTable
    } else if all(is_session_line) {
        FileKind::SessionLines
    } else if most(is_hdfs_line) {
        FileKind::HdfsLog
    } else if most(is_alert_line) {
        FileKind::AlertLog
    } else {
        FileKind::Other
    }
}

/// Whether a header cell names what a label belongs to.
pub(crate) fn is_session_column(name: &str) -> bool {
    let plain: String = name.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
    matches!(plain.as_str(), "blockid" | "block" | "session" | "sessionid" | "trace" | "traceid" | "id" | "key")
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_session_line(line: &str) -> bool {
    let events = line.rsplit_once(',').map_or(line, |(_, events)| events);
    let mut tokens = events.split_ascii_whitespace().peekable();
    tokens.peek().is_some() && tokens.all(is_number)
}

fn is_line_row(line: &str) -> bool {
    matches!(line.split_once(['\t', ',']), Some((event, label)) if is_number(event) && matches!(label.trim(), "0" | "1"))
}

fn is_session_row(line: &str) -> bool {
    let cells: Vec<&str> = line.split('\t').collect();
    matches!(cells.as_slice(), [idx, "0" | "1", "0" | "1", _, events] if is_number(idx) && is_session_line(events))
}

/// `081109 203518 143 INFO dfs.DataNode...`
fn is_hdfs_line(line: &str) -> bool {
    let mut tokens = line.split_ascii_whitespace();
    let mut digits = |n: usize| tokens.next().is_some_and(|token| token.len() == n && is_number(token));
    digits(6) && digits(6) && line.contains(" dfs.")
}

/// `- 1117838570 2005.06.03 node ...`
fn is_alert_line(line: &str) -> bool {
    let mut tokens = line.split_ascii_whitespace();
    tokens.next().is_some()
        && tokens.next().is_some_and(|time| time.len() == 10 && is_number(time))
        && tokens.next().is_some_and(|date| date.len() == 10 && date.split('.').count() == 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_are_told_by_their_first_lines() {
        for (text, kind) in [
            ("5 5 22 \n22 5\n", FileKind::SessionLines),
            ("4172a56c-c781,1 17 10\nbfde6bd3,1 17\n", FileKind::SessionLines),
            ("5 22", FileKind::SessionLines),
            ("0\n0\n1\n", FileKind::BinaryLabels),
            ("#event_id\tlabel(1=alert)\n169\t0\n", FileKind::LineTable),
            ("169\t0\n170\t1\n", FileKind::LineTable),
            (
                "#idx\tlabel(0 normal,1 anomaly)\ttruncated\tblock_id\tevents\n0\t0\t1\t-\t5 22\n",
                FileKind::SessionTable,
            ),
            ("7\t1\t0\tblk_1\t5 22\n", FileKind::SessionTable),
            ("BlockId,Label\nblk_1,Normal\n", FileKind::SessionLabels),
            ("session,label\r\nx,0\r\n", FileKind::SessionLabels),
            ("label,time,event_id\n-,2005-06-03-15.42.50.363779,E189\n", FileKind::TimedEvents),
            ("EventId,EventTemplate\nE1,a <*>\n", FileKind::Templates),
            ("#event_id\tcount\tcanonical_id\n2\t4\t1\n", FileKind::Templates),
            ("LineId,Label,Content,EventId,EventTemplate\n", FileKind::Structured),
            ("\u{feff}LineId,Time,Content,EventId,EventTemplate\n", FileKind::Structured),
            ("081109 203518 143 INFO dfs.DataNode$DataXceiver: Receiving block blk_1\n", FileKind::HdfsLog),
            ("- 1117838570 2005.06.03 R02 2005-06-03-15.42.50.363779 R02 RAS KERNEL INFO x\n", FileKind::AlertLog),
            ("hello world\n", FileKind::Other),
            ("", FileKind::Other),
        ] {
            assert_eq!(kind_of(text.as_bytes()), kind, "{text}");
        }
    }

    #[test]
    fn a_scan_is_sorted_and_leaves_out_hidden_files() {
        let dir = tempfile::tempdir().expect("a folder");
        fs::create_dir_all(dir.path().join("b")).expect("created");
        for name in ["b/z", "a", ".hidden", "b/._z"] {
            fs::write(dir.path().join(name), "1 2 3\n").expect("written");
        }
        let found = scan(dir.path()).expect("readable");
        let names: Vec<_> = found.iter().map(|found| found.relative.display().to_string()).collect();
        assert_eq!(names, ["a", "b/z"]);
        assert!(found.iter().all(|found| found.kind == FileKind::SessionLines));
    }
}
