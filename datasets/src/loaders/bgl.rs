//! BGL: the event stream with window labels, lines with alert labels, and raw lines.
//!
//! Data: Oliner and Stearley: "What Supercomputers Say: A Study of Five System Logs" (DSN 2007), as Loghub publishes it and
//! as two public repositories parsed it. The window labels are a reconstruction: inside runs of identical events a label
//! may be off by a few windows. Event 1 of the stream is "unknown to the authors' vocabulary". Cost: one pass each, two
//! bytes an event.

use std::path::{Path, PathBuf};

use super::{hdfs::only, sessions::parse_event};
use crate::{
    error::DatasetError,
    lines::{self, Flow},
    scan::{FileKind, Found, scan},
};

/// The event stream in windows.
#[derive(Clone, Debug, Default)]
pub struct BglWindows {
    /// Event numbers in order.
    pub events: Vec<u16>,
    /// Whether window `k`, the events from `k * STRIDE`, holds an alert.
    pub anomalous: Vec<bool>,
}

impl BglWindows {
    /// Events in a window.
    pub const WINDOW: usize = 20;
    /// Events between the starts of two windows.
    pub const STRIDE: usize = 10;

    /// Finds events and labels under `data` and reads them.
    ///
    /// # Errors
    /// When either is missing or ambiguous, a value cannot be read, or there are more labels than windows.
    pub fn load(data: &Path) -> Result<Self, DatasetError> {
        let found = scan(data)?;
        let label_file = only(data, &found, FileKind::BinaryLabels)?;
        let beside: Vec<Found> =
            found.iter().filter(|found| found.path.parent() == label_file.parent()).cloned().collect();
        let event_file = only(data, &beside, FileKind::SessionLines)?;
        let mut windows = Self::default();
        lines::for_each(event_file, |number, line| {
            for token in line.split(u8::is_ascii_whitespace).filter(|token| !token.is_empty()) {
                let event = parse_event(token).map_err(|reason| DatasetError::record(event_file, number, reason))?;
                windows.events.push(event);
            }
            Ok(Flow::On)
        })?;
        lines::for_each(label_file, |number, line| {
            match line.trim_ascii() {
                b"" => {}
                b"0" => windows.anomalous.push(false),
                b"1" => windows.anomalous.push(true),
                _ => return Err(DatasetError::record(label_file, number, "a window label is neither 0 nor 1")),
            }
            Ok(Flow::On)
        })?;
        let n = windows.n_windows();
        if windows.anomalous.len() > n {
            return Err(DatasetError::layout(
                label_file,
                format!("{} labels for {n} windows of {} events", windows.anomalous.len(), Self::WINDOW),
            ));
        }
        Ok(windows)
    }

    fn n_windows(&self) -> usize {
        self.events.len().checked_sub(Self::WINDOW).map_or(0, |rest| rest / Self::STRIDE + 1)
    }

    /// Windows that have a label.
    #[must_use]
    pub fn len(&self) -> usize {
        self.anomalous.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.anomalous.is_empty()
    }

    /// Every labelled window, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&[u16], bool)> + Clone {
        self.anomalous.iter().enumerate().map(|(k, label)| {
            let start = k * Self::STRIDE;
            (&self.events[start..start + Self::WINDOW], *label)
        })
    }
}

/// One event and one alert label a line.
#[derive(Clone, Debug, Default)]
pub struct BglLines {
    /// Event numbers in order.
    pub events: Vec<u16>,
    /// Whether each line is an alert.
    pub alerts: Vec<bool>,
}

impl BglLines {
    /// Finds the table under `data` and reads it.
    ///
    /// # Errors
    /// When there is none or more than one, or a row cannot be read; the error names file and line.
    pub fn load(data: &Path) -> Result<Self, DatasetError> {
        let found = scan(data)?;
        Self::read(only(data, &found, FileKind::LineTable)?)
    }

    /// Reads a table of event id and label (0 or 1), separated by a tab or a comma; a header line is skipped.
    ///
    /// # Errors
    /// When a row cannot be read; the error names file and line.
    pub fn read(path: &Path) -> Result<Self, DatasetError> {
        let mut table = Self::default();
        lines::for_each(path, |number, line| {
            let header = number == 1 && !line.first().is_some_and(u8::is_ascii_digit);
            if line.is_empty() || header || line[0] == b'#' {
                return Ok(Flow::On);
            }
            let at = |reason: String| DatasetError::record(path, number, reason);
            let separator = line.iter().position(|byte| matches!(byte, b'\t' | b','));
            let (event, label) = match separator {
                Some(at) => (&line[..at], &line[at + 1..]),
                None => return Err(at("expected two columns, event id and label".to_owned())),
            };
            table.events.push(parse_event(event.trim_ascii()).map_err(at)?);
            table.alerts.push(match label.trim_ascii() {
                b"0" => false,
                b"1" => true,
                _ => return Err(at("the label is neither 0 nor 1".to_owned())),
            });
            Ok(Flow::On)
        })?;
        Ok(table)
    }

    /// Lines there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Lines that are alerts.
    #[must_use]
    pub fn n_alerts(&self) -> usize {
        self.alerts.iter().filter(|alert| **alert).count()
    }
}

/// Raw logs with an alert label in the first field (see [`super::labels::alert_in_first_field`]) under `data`, in order of
/// path.
///
/// # Errors
/// When there is none.
pub fn raw_logs(data: &Path) -> Result<Vec<PathBuf>, DatasetError> {
    let logs: Vec<PathBuf> =
        scan(data)?.into_iter().filter(|found| found.kind == FileKind::AlertLog).map(|found| found.path).collect();
    if logs.is_empty() {
        return Err(DatasetError::layout(data, "no raw log with an alert label in its first field"));
    }
    Ok(logs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn windows_are_twenty_events_every_ten() {
        let dir = tempfile::tempdir().expect("a folder");
        let events: String = (0..45).map(|i| format!("{i}{}", if i % 10 == 9 { "\n" } else { " " })).collect();
        fs::write(dir.path().join("events.txt"), events).expect("written");
        fs::write(dir.path().join("labels.txt"), "0\n1\n0\n").expect("written");
        let windows = BglWindows::load(dir.path()).expect("loads");
        let all: Vec<_> = windows.iter().collect();
        assert_eq!(all.len(), 3);
        assert_eq!((all[1].0[0], all[1].0[19], all[1].1), (10, 29, true));
        fs::write(dir.path().join("labels.txt"), "0\n1\n0\n0\n").expect("written");
        let error = BglWindows::load(dir.path()).expect_err("too many").to_string();
        assert!(error.contains("4 labels for 3 windows"), "{error}");
    }

    #[test]
    fn lines_read_with_or_without_a_header() {
        let dir = tempfile::tempdir().expect("a folder");
        for text in ["#event_id\tlabel(1=alert)\n169\t0\n320\t1\n", "169,0\n320,1", "event,label\n169,0\n320,1\n"] {
            fs::write(dir.path().join("x.tsv"), text).expect("written");
            let table = BglLines::load(dir.path()).expect("loads");
            assert_eq!(
                (&table.events[..], &table.alerts[..], table.n_alerts()),
                (&[169, 320][..], &[false, true][..], 1)
            );
        }
        fs::write(dir.path().join("x.tsv"), "169\t0\n320\t2\n").expect("written");
        let error = BglLines::read(&dir.path().join("x.tsv")).expect_err("bad").to_string();
        assert!(error.contains("x.tsv:2: the label"), "{error}");
    }
}
