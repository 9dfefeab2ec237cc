//! Sessions of event numbers, and the three-file split (train, test normal, test abnormal) that DeepLog introduced.
//!
//! Du, Li, Zheng, Srikumar: "DeepLog: Anomaly Detection and Diagnosis from System Logs through Deep Learning" (CCS
//! 2017); the files are those of its public re-implementations. Sessions lie in one flat array of 16-bit events with
//! offsets, so 575,061 sessions take 27 MB and iterate without following pointers. Published files end in a line that
//! was cut in the middle; it is a session like any other and is kept as it is, because every published count and figure
//! includes it.

use std::path::{Path, PathBuf};

use crate::{
    error::DatasetError,
    lines::{self, Flow},
    scan::{FileKind, Found, scan},
};

/// Many sessions of event numbers, in file order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sessions {
    events: Vec<u16>,
    /// `offsets[i]..offsets[i + 1]` are the events of session `i`; never empty.
    offsets: Vec<usize>,
}

impl Default for Sessions {
    fn default() -> Self {
        Self { events: Vec::new(), offsets: vec![0] }
    }
}

impl Sessions {
    /// Sessions there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Events of all sessions together.
    #[must_use]
    pub fn n_events(&self) -> usize {
        self.events.len()
    }

    /// The events of session `i`.
    #[must_use]
    pub fn get(&self, i: usize) -> Option<&[u16]> {
        Some(&self.events[*self.offsets.get(i)?..*self.offsets.get(i + 1)?])
    }

    /// Every session, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u16]> + Clone {
        self.offsets.windows(2).map(|pair| &self.events[pair[0]..pair[1]])
    }

    /// Adds a session.
    pub fn push(&mut self, events: &[u16]) {
        self.events.extend_from_slice(events);
        self.offsets.push(self.events.len());
    }

    /// Largest event number, plus one; 0 without events.
    #[must_use]
    pub fn n_event_numbers(&self) -> usize {
        self.events.iter().max().map_or(0, |max| usize::from(*max) + 1)
    }

    /// Reads one session a line: event numbers separated by blanks, optionally after `id,`. Empty lines are skipped.
    ///
    /// # Errors
    /// When the file cannot be read or a line holds something else; the error names file and line.
    pub fn read(path: &Path) -> Result<Self, DatasetError> {
        let mut sessions = Self::default();
        lines::for_each(path, |number, line| {
            let events = match line.iter().rposition(|byte| *byte == b',') {
                Some(comma) => &line[comma + 1..],
                None => line,
            };
            if sessions.parse(events).map_err(|reason| DatasetError::record(path, number, reason))? {
                sessions.offsets.push(sessions.events.len());
            }
            Ok(Flow::On)
        })?;
        Ok(sessions)
    }

    /// Appends the events of `text` without closing the session; false when there is none.
    pub(crate) fn parse(&mut self, text: &[u8]) -> Result<bool, String> {
        let before = self.events.len();
        for token in text.split(u8::is_ascii_whitespace).filter(|token| !token.is_empty()) {
            self.events.push(parse_event(token)?);
        }
        Ok(self.events.len() > before)
    }

    pub(crate) fn close(&mut self) {
        self.offsets.push(self.events.len());
    }
}

/// An event number, at most 65,535.
pub(crate) fn parse_event(token: &[u8]) -> Result<u16, String> {
    let mut value = 0_u32;
    for byte in token {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 || value > u32::from(u16::MAX) {
            return Err(bad_event(token));
        }
        value = value * 10 + u32::from(digit);
    }
    if token.is_empty() { Err(bad_event(token)) } else { u16::try_from(value).map_err(|_| bad_event(token)) }
}

fn bad_event(token: &[u8]) -> String {
    let shown: String = String::from_utf8_lossy(token).chars().take(40).collect();
    format!("`{shown}` is no event number between 0 and 65535")
}

/// A training part of normal sessions and a labelled test part.
#[derive(Clone, Debug)]
pub struct SessionSplit {
    /// Normal sessions to fit on, in time order.
    pub train: Sessions,
    /// Normal sessions to judge.
    pub test_normal: Sessions,
    /// Abnormal sessions to judge.
    pub test_abnormal: Sessions,
    /// The files they came from, in this order.
    pub files: [PathBuf; 3],
}

impl SessionSplit {
    /// Loads the split from `data`; the training part from `train_data` where that is given.
    ///
    /// Files are found by content (lines of event numbers) and told apart by name: `train`, `abnormal` or `anomal`,
    /// `normal`, anywhere in file or folder name. A folder named `deeplog...` wins where several hold a split.
    ///
    /// # Errors
    /// When a part is missing or two files could be it, naming them and the flag that settles it; when a file cannot be
    /// read.
    pub fn load(data: &Path, train_data: Option<&Path>) -> Result<Self, DatasetError> {
        let tests: Vec<Found> = session_files(data)?;
        let files = match train_data {
            None => {
                let [train, normal, abnormal] = pick(data, &tests, [Role::Train, Role::Normal, Role::Abnormal])?;
                [train, normal, abnormal]
            }
            Some(train_data) => {
                let trains = session_files(train_data)?;
                let train = match trains.as_slice() {
                    [only] => only.path.clone(),
                    _ => pick(train_data, &trains, [Role::Train])?[0].clone(),
                };
                let [normal, abnormal] = pick(data, &tests, [Role::Normal, Role::Abnormal])?;
                [train, normal, abnormal]
            }
        };
        Ok(Self {
            train: Sessions::read(&files[0])?,
            test_normal: Sessions::read(&files[1])?,
            test_abnormal: Sessions::read(&files[2])?,
            files,
        })
    }

    /// The test part in one: normal sessions first, then abnormal ones, each with its label.
    pub fn test(&self) -> impl Iterator<Item = (&[u16], bool)> + Clone {
        self.test_normal
            .iter()
            .map(|events| (events, false))
            .chain(self.test_abnormal.iter().map(|events| (events, true)))
    }

    /// Sessions in the test part.
    #[must_use]
    pub fn n_test(&self) -> usize {
        self.test_normal.len() + self.test_abnormal.len()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Train,
    Normal,
    Abnormal,
}

impl Role {
    fn of_name(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        if name.contains("train") {
            Some(Self::Train)
        } else if name.contains("abnormal") || name.contains("anomal") {
            Some(Self::Abnormal)
        } else {
            name.contains("normal").then_some(Self::Normal)
        }
    }

    /// By file name, else by the nearest folder that says.
    fn of(relative: &Path) -> Option<Self> {
        relative.iter().rev().find_map(|part| Self::of_name(&part.to_string_lossy()))
    }

    fn describe(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Normal => "test normal",
            Self::Abnormal => "test abnormal",
        }
    }
}

fn session_files(root: &Path) -> Result<Vec<Found>, DatasetError> {
    Ok(scan(root)?.into_iter().filter(|found| found.kind == FileKind::SessionLines).collect())
}

/// Whether the files make up a whole split.
pub(crate) fn holds_split(root: &Path, found: &[Found]) -> bool {
    let sessions: Vec<Found> = found.iter().filter(|found| found.kind == FileKind::SessionLines).cloned().collect();
    pick(root, &sessions, [Role::Train, Role::Normal, Role::Abnormal]).is_ok()
}

fn pick<const N: usize>(root: &Path, files: &[Found], roles: [Role; N]) -> Result<[PathBuf; N], DatasetError> {
    let candidates = |role: Role, within: Option<&Path>| -> Vec<&Found> {
        files
            .iter()
            .filter(|found| Role::of(&found.relative) == Some(role))
            .filter(|found| within.is_none_or(|folder| found.relative.parent() == Some(folder)))
            .collect()
    };
    // A folder in which every role has exactly one file.
    let mut folders: Vec<&Path> = files.iter().filter_map(|found| found.relative.parent()).collect();
    folders.sort();
    folders.dedup();
    folders.retain(|folder| roles.iter().all(|role| candidates(*role, Some(folder)).len() == 1));
    if folders.len() > 1 && folders.iter().any(|folder| folder.to_string_lossy().contains("deeplog")) {
        folders.retain(|folder| folder.to_string_lossy().contains("deeplog"));
    }
    let within = match folders.as_slice() {
        [] => None,
        [one] => Some(*one),
        several => {
            let names: Vec<String> = several.iter().map(|folder| folder.display().to_string()).collect();
            return Err(DatasetError::layout(
                root,
                format!("several folders hold a split ({}); pass one of them with `--data`", names.join(", ")),
            ));
        }
    };
    let mut picked = [const { PathBuf::new() }; N];
    for (slot, role) in picked.iter_mut().zip(roles) {
        match candidates(role, within).as_slice() {
            [one] => *slot = one.path.clone(),
            [] => {
                let flag = if role == Role::Train { "; `--train-data <folder>` names a separate one" } else { "" };
                return Err(DatasetError::layout(
                    root,
                    format!(
                        "no {} sessions: looked for lines of event numbers in a file or folder whose name says so{flag}",
                        role.describe()
                    ),
                ));
            }
            several => {
                let names: Vec<String> = several.iter().map(|found| found.relative.display().to_string()).collect();
                return Err(DatasetError::layout(
                    root,
                    format!(
                        "several files could be the {} sessions ({}); pass a folder that holds one",
                        role.describe(),
                        names.join(", ")
                    ),
                ));
            }
        }
    }
    Ok(picked)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fs;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a folder");
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().expect("a parent")).expect("created");
            fs::write(path, text).expect("written");
        }
        dir
    }

    #[test]
    fn the_published_layout_loads_and_a_cut_last_line_is_a_session() {
        let dir = folder(&[
            ("deeplog_split/hdfs_train", "5 5 22 \n22 5 5"),
            ("deeplog_split/hdfs_test_normal.reconstructed", "5 22\n"),
            ("deeplog_split/hdfs_test_abnormal", "9 9\n5 22 "),
            ("ait_sequences/hdfs_train", "1 2\n"),
            ("notes.txt", "hello\n"),
        ]);
        let split = SessionSplit::load(dir.path(), None).expect("loads");
        assert_eq!(split.train.iter().collect::<Vec<_>>(), [&[5, 5, 22][..], &[22, 5, 5]]);
        assert_eq!((split.test_normal.len(), split.test_abnormal.len(), split.n_test()), (1, 2, 3));
        let test: Vec<_> = split.test().collect();
        assert_eq!(test, [(&[5, 22][..], false), (&[9, 9], true), (&[5, 22], true)]);
    }

    #[test]
    fn other_names_load_as_long_as_the_kind_is_plain_and_ids_are_taken_off() {
        let dir = folder(&[("Train/part1.txt", "a,1 2\n"), ("normal/x", "b,1\n"), ("anomalies.zst", "c,7\n")]);
        let split = SessionSplit::load(dir.path(), None).expect("loads");
        assert_eq!(split.train.get(0), Some(&[1, 2][..]));
        assert_eq!(split.test_abnormal.get(0), Some(&[7][..]));
        assert_eq!(split.test_abnormal.get(1), None);
    }

    #[test]
    fn the_training_part_may_come_separately_under_any_name() {
        let test = folder(&[("n/test_normal", "1 4\n"), ("n/test_abnormal", "2\n")]);
        let train = folder(&[("whatever.txt", "3 3\n")]);
        let error = SessionSplit::load(test.path(), None).expect_err("no train").to_string();
        assert!(error.contains("no train sessions") && error.contains("--train-data"), "{error}");
        let split = SessionSplit::load(test.path(), Some(train.path())).expect("loads");
        assert_eq!(split.train.get(0), Some(&[3, 3][..]));
    }

    #[test]
    fn two_files_for_one_part_are_named() {
        let dir = folder(&[("train_a", "1\n2 3"), ("train_b", "1\n2 3"), ("normal", "1 2"), ("abnormal", "1 2")]);
        let error = SessionSplit::load(dir.path(), None).expect_err("ambiguous").to_string();
        assert!(error.contains("train_a, train_b"), "{error}");
    }

    #[test]
    fn a_bad_event_names_file_and_line() {
        let dir = folder(&[("t", "1 2\n\n3 70000\n")]);
        let error = Sessions::read(&dir.path().join("t")).expect_err("too large").to_string();
        assert!(error.contains("t:3:") && error.contains("`70000`"), "{error}");
        for token in ["-1", "x", "", "99999999999999999999"] {
            assert!(parse_event(token.as_bytes()).is_err(), "{token}");
        }
        assert_eq!(parse_event(b"65535"), Ok(65_535));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(sessions in prop::collection::vec(prop::collection::vec(any::<u16>(), 1..20), 0..20)) {
            let text: String = sessions
                .iter()
                .map(|events| events.iter().map(u16::to_string).collect::<Vec<_>>().join(" ") + " \r\n")
                .collect();
            let dir = folder(&[("s", &text)]);
            let read = Sessions::read(&dir.path().join("s")).expect("readable");
            prop_assert_eq!(read.iter().map(<[u16]>::to_vec).collect::<Vec<_>>(), sessions);
        }
    }
}
