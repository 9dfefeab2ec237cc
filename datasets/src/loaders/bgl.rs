//! BGL: the event stream with window labels, lines with alert labels, what the events are, and raw lines.
//!
//! Data: Oliner and Stearley: "What Supercomputers Say: A Study of Five System Logs" (DSN 2007), as Loghub publishes it and
//! as two public repositories parsed it. The window labels are a reconstruction: inside runs of identical events a label
//! may be off by a few windows. Event 1 of the stream is "unknown to the authors' vocabulary". Cost: one pass each, two
//! bytes an event.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

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

/// What the event numbers of a stream stand for, as far as the template table beside it tells.
#[derive(Clone, Debug, Default)]
pub struct BglTemplates {
    by_event: BTreeMap<u16, BglTemplate>,
}

/// What an event number stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BglTemplate {
    /// Canonical template: events that differ only in how their header was cut are one.
    pub id: u64,
    /// OpenTelemetry severity number of the level in the template's text, with the numbers that the parser gives: 0 where
    /// there is none.
    pub severity_number: u8,
}

impl BglTemplates {
    /// Templates of an event stream under `data`: the table in the folder of its window labels. Without one there is nothing
    /// known of any event.
    ///
    /// # Errors
    /// When there are several, or a row cannot be read; the error names file and line.
    pub fn of_windows(data: &Path) -> Result<Self, DatasetError> {
        Self::beside(data, FileKind::BinaryLabels)
    }

    /// The same for the table of lines.
    ///
    /// # Errors
    /// As [`Self::of_windows`].
    pub fn of_lines(data: &Path) -> Result<Self, DatasetError> {
        Self::beside(data, FileKind::LineTable)
    }

    fn beside(data: &Path, kind: FileKind) -> Result<Self, DatasetError> {
        let found = scan(data)?;
        let folder = only(data, &found, kind)?.parent();
        let tables: Vec<Found> = found
            .iter()
            .filter(|found| found.kind == FileKind::Templates && found.path.parent() == folder)
            .cloned()
            .collect();
        if tables.is_empty() {
            return Ok(Self::default());
        }
        Self::read(only(data, &tables, FileKind::Templates)?)
    }

    /// Reads a tab-separated table whose header names the columns: the event id first, `canonical_id` where there is one, and
    /// the text in the first column that begins with `canonical_template` or `template`.
    ///
    /// # Errors
    /// When there is no such header or a row cannot be read; the error names file and line.
    pub fn read(path: &Path) -> Result<Self, DatasetError> {
        let mut templates = Self::default();
        let mut columns: Option<(Option<usize>, usize)> = None;
        lines::for_each(path, |number, line| {
            let at = |reason: String| DatasetError::record(path, number, reason);
            let text = String::from_utf8_lossy(line);
            let cells: Vec<&str> = text.trim_end_matches(['\r', '\n']).split('\t').collect();
            let Some((canonical, template)) = columns else {
                let starts = |name: &str| cells.iter().position(|cell| cell.starts_with(name));
                let template = starts("canonical_template").or_else(|| starts("template"));
                let template = template.ok_or_else(|| at("the header names no column `template`".to_owned()))?;
                columns = Some((starts("canonical_id"), template));
                return Ok(Flow::On);
            };
            if text.trim().is_empty() {
                return Ok(Flow::On);
            }
            let cell = |idx: usize| cells.get(idx).ok_or_else(|| at(format!("it has no column {}", idx + 1)));
            let event = parse_event(cell(0)?.trim().as_bytes()).map_err(at)?;
            let id = match canonical {
                Some(idx) => cell(idx)?.trim().parse::<u64>().map_err(|error| at(format!("canonical_id: {error}")))?,
                None => u64::from(event),
            };
            templates.by_event.insert(event, BglTemplate { id, severity_number: severity_of(cell(template)?) });
            Ok(Flow::On)
        })?;
        Ok(templates)
    }

    /// What this event stands for. One that the table lacks is a template of its own, without a severity.
    #[must_use]
    pub fn of(&self, event: u16) -> BglTemplate {
        let own = if self.by_event.is_empty() { u64::from(event) } else { BEYOND_CANONICAL + u64::from(event) };
        self.by_event.get(&event).copied().unwrap_or(BglTemplate { id: own, severity_number: 0 })
    }

    /// Events that the table knows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_event.len()
    }

    /// Whether it knows none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_event.is_empty()
    }
}

/// Ids of events that the template table lacks begin here, so that none is a canonical one.
const BEYOND_CANONICAL: u64 = 1 << 16;

/// The level is among the first words: `RAS KERNEL FATAL data storage interrupt`.
fn severity_of(text: &str) -> u8 {
    let level = |word: &str| match word {
        "INFO" => Some(9),
        "WARNING" => Some(13),
        "ERROR" | "SEVERE" => Some(17),
        "FAILURE" => Some(18),
        "FATAL" => Some(21),
        _ => None,
    };
    text.split_ascii_whitespace().take(4).find_map(level).unwrap_or(0)
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
    fn templates_give_the_canonical_id_and_the_severity_of_an_event() {
        let dir = tempfile::tempdir().expect("a folder");
        let table = "#event_id\tcount\tcanonical_id\tcanonical_template(header stripped)\traw\n\
                     7\t3\t2\tRAS KERNEL FATAL machine check\tx\n\
                     8\t1\t2\tRAS KERNEL FATAL machine check\ty\n\
                     9\t1\t1\tRAS KERNEL <*> INFO an ERROR was corrected\tz\n";
        fs::write(dir.path().join("templates.tsv"), table).expect("written");
        fs::write(dir.path().join("labels.txt"), "0\n1\n").expect("written");
        let templates = BglTemplates::of_windows(dir.path()).expect("loads");
        let template = |id, severity_number| BglTemplate { id, severity_number };
        assert_eq!([7, 8, 9].map(|event| templates.of(event)), [template(2, 21), template(2, 21), template(1, 9)]);
        assert_eq!(templates.of(1), template(BEYOND_CANONICAL + 1, 0), "not canonical template 1");

        let lines = "#event_id\tcount\talert_count\ttemplate(recovered)\n5\t3\t0\t?\n6\t1\t1\tRAS APP FATAL x\n";
        fs::write(dir.path().join("templates.tsv"), lines).expect("written");
        let templates = BglTemplates::of_windows(dir.path()).expect("loads");
        assert_eq!([5, 6].map(|event| templates.of(event)), [template(5, 0), template(6, 21)]);

        fs::write(dir.path().join("templates.tsv"), "#event_id\tcount\ttemplate\nsix\t1\tRAS\n").expect("written");
        let error = BglTemplates::of_windows(dir.path()).expect_err("no number").to_string();
        assert!(error.contains("templates.tsv:2"), "{error}");
        fs::remove_file(dir.path().join("templates.tsv")).expect("there");
        let none = BglTemplates::of_windows(dir.path()).expect("no table is no error");
        assert_eq!((none.is_empty(), none.of(7)), (true, template(7, 0)));
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
