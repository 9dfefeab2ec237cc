//! Spans and logs, a minute after the other.
//!
//! Files overlap: what began late in one minute is often in the file of the next again, up to two files on, byte for byte.
//! So a record that one of the last few files had is dropped and counted. Within a minute records are in order of time.
//!
//! A log's text is the `log` of its JSON. Where writing of two lines got mixed up what follows the JSON is left out, and where
//! there is no JSON the text is the whole field. A time of the year 1754, which is how the collector wrote none, is replaced
//! by that of the column `Timestamp`.

use std::{
    collections::{HashSet, VecDeque},
    hash::{DefaultHasher, Hash, Hasher},
    path::Path,
    slice,
};

use serde::Deserialize;

use super::{Minute, service_of};
use crate::{error::DatasetError, lines, times::unix_nanos};

/// Files whose records are remembered.
const N_REMEMBERED: usize = 4;
/// Most spans, and most logs, of a minute.
const MAX_RECORDS: usize = 1 << 20;

const SPAN_COLUMNS: [&str; 8] =
    ["TraceID", "SpanID", "ParentID", "PodName", "OperationName", "StartTimeUnixNano", "EndTimeUnixNano", "Duration"];
const LOG_COLUMNS: [&str; 8] =
    ["Timestamp", "TimeUnixNano", "Node", "PodName", "Container", "TraceID", "SpanID", "Log"];

/// One call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// Its trace.
    pub trace_id: String,
    /// Its id, unique within the trace.
    pub span_id: String,
    /// The span that called it, of the same trace; none for a root.
    pub parent_id: Option<String>,
    /// The pod it ran in.
    pub pod: String,
    /// What it did.
    pub operation: String,
    /// Its start.
    pub start_unix_nano: i64,
    /// Its end, never before its start.
    pub end_unix_nano: i64,
}

impl Span {
    /// The service it ran in.
    #[must_use]
    pub fn service(&self) -> &str {
        service_of(&self.pod)
    }
}

/// One line that a pod wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRecord {
    /// When it was written.
    pub time_unix_nano: i64,
    /// The pod that wrote it.
    pub pod: String,
    /// The trace it was written for.
    pub trace_id: String,
    /// The span it was written for.
    pub span_id: String,
    /// The line without its end.
    pub body: String,
}

impl LogRecord {
    /// The service that wrote it.
    #[must_use]
    pub fn service(&self) -> &str {
        service_of(&self.pod)
    }
}

/// What one minute adds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MinuteRecords {
    /// [`Minute::time_unix_nano`].
    pub time_unix_nano: i64,
    /// [`Minute::is_fault_free`].
    pub is_fault_free: bool,
    /// Its spans, in order of start.
    pub spans: Vec<Span>,
    /// Its logs, in order of time.
    pub logs: Vec<LogRecord>,
    /// Records left out because a minute before had them.
    pub n_repeated: usize,
}

/// The records of `minutes`, one minute in memory at a time. A minute that cannot be read is an error that names file and line.
pub fn records(minutes: &[Minute]) -> Records<'_> {
    Records { minutes: minutes.iter(), spans: Seen::default(), logs: Seen::default() }
}

/// See [`records()`].
#[derive(Clone, Debug)]
pub struct Records<'m> {
    minutes: slice::Iter<'m, Minute>,
    spans: Seen,
    logs: Seen,
}

impl Iterator for Records<'_> {
    type Item = Result<MinuteRecords, DatasetError>;

    fn next(&mut self) -> Option<Self::Item> {
        let minute = self.minutes.next()?;
        Some(self.read(minute))
    }
}

impl Records<'_> {
    fn read(&mut self, minute: &Minute) -> Result<MinuteRecords, DatasetError> {
        let (mut spans, mut logs) = (Vec::new(), Vec::new());
        let mut n_repeated = 0;
        if let Some(path) = &minute.spans {
            self.spans.begin();
            rows(path, &SPAN_COLUMNS, |row| {
                if self.spans.is_new(&[&row[0], &row[1]]) {
                    spans.push(span(row)?);
                } else {
                    n_repeated += 1;
                }
                Ok(())
            })?;
        }
        if let Some(path) = &minute.logs {
            self.logs.begin();
            rows(path, &LOG_COLUMNS, |row| {
                if self.logs.is_new(&[&row[1], &row[3], &row[5], &row[6], &row[7]]) {
                    logs.push(log(row)?);
                } else {
                    n_repeated += 1;
                }
                Ok(())
            })?;
        }
        spans.sort_by_key(|span| span.start_unix_nano);
        logs.sort_by_key(|log| log.time_unix_nano);
        let Minute { time_unix_nano, is_fault_free, .. } = *minute;
        Ok(MinuteRecords { time_unix_nano, is_fault_free, spans, logs, n_repeated })
    }
}

/// What the last files held, by a hash of 64 bits.
#[derive(Clone, Debug, Default)]
struct Seen {
    files: VecDeque<HashSet<u64>>,
}

impl Seen {
    /// The next file begins.
    fn begin(&mut self) {
        if self.files.len() > N_REMEMBERED {
            self.files.pop_front();
        }
        self.files.push_back(HashSet::new());
    }

    fn is_new(&mut self, fields: &[&str]) -> bool {
        let mut hasher = DefaultHasher::new();
        fields.hash(&mut hasher);
        let hash = hasher.finish();
        let is_new = !self.files.iter().any(|file| file.contains(&hash));
        if let Some(file) = self.files.back_mut().filter(|_| is_new) {
            file.insert(hash);
        }
        is_new
    }
}

/// Calls `each` with every row after the header, which must name `columns`. A row may have more fields, which are left out.
fn rows(
    path: &Path,
    columns: &[&str; 8],
    mut each: impl FnMut(&csv::StringRecord) -> Result<(), String>,
) -> Result<(), DatasetError> {
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(lines::open(path)?);
    let refused = |line: u64, reason: String| DatasetError::record(path, line, reason);
    let headers = reader.headers().map_err(|error| refused(1, format!("not valid CSV: {error}")))?;
    let named = headers.iter().map(|header| header.trim_start_matches('\u{feff}'));
    if !named.take(columns.len()).eq(columns.iter().copied()) {
        return Err(refused(1, format!("the columns are not {}", columns.join(","))));
    }
    let mut row = csv::StringRecord::new();
    for n_rows in 0_usize.. {
        let line = reader.position().line();
        if !reader.read_record(&mut row).map_err(|error| refused(line, format!("not valid CSV: {error}")))? {
            break;
        }
        if n_rows == MAX_RECORDS {
            return Err(refused(line, format!("more than {MAX_RECORDS} records in a minute")));
        }
        if row.len() < columns.len() {
            return Err(refused(line, format!("{} fields, expected {}", row.len(), columns.len())));
        }
        each(&row).map_err(|reason| refused(line, reason))?;
    }
    Ok(())
}

fn span(row: &csv::StringRecord) -> Result<Span, String> {
    let (start_unix_nano, end_unix_nano) = (time(&row[5])?, time(&row[6])?);
    Ok(Span {
        trace_id: row[0].to_owned(),
        span_id: row[1].to_owned(),
        parent_id: Some(row[2].to_owned()).filter(|parent| parent != "root"),
        pod: row[3].to_owned(),
        operation: row[4].to_owned(),
        start_unix_nano,
        end_unix_nano: end_unix_nano.max(start_unix_nano),
    })
}

fn log(row: &csv::StringRecord) -> Result<LogRecord, String> {
    #[derive(Deserialize)]
    struct Line {
        log: String,
    }
    let written = time(&row[1])?;
    let time_unix_nano = if written > 0 {
        written
    } else {
        unix_nanos(&row[0]).ok_or_else(|| format!("neither `{written}` nor `{}` is a time", &row[0]))?
    };
    let line = serde_json::Deserializer::from_str(&row[7]).into_iter::<Line>().next();
    let body = match line {
        Some(Ok(line)) => line.log,
        _ => row[7].to_owned(),
    };
    Ok(LogRecord {
        time_unix_nano,
        pod: row[3].to_owned(),
        trace_id: row[5].to_owned(),
        span_id: row[6].to_owned(),
        body: body.trim_end().to_owned(),
    })
}

fn time(text: &str) -> Result<i64, String> {
    text.parse().map_err(|_| format!("`{text}` is no time"))
}
