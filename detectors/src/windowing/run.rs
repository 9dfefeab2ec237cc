//! The records of a session, and beside each of them its numbers where they are kept.

use faultline_core::{LogEntry, Numbers, RecordNumbers};

/// Records in the order of the session. Every change keeps the numbers in step.
#[derive(Debug, Default)]
pub(super) struct Run {
    records: Vec<LogEntry>,
    /// As many as `records`, or none at all: the station keeps the numbers of every record or of no record.
    numbers: Vec<RecordNumbers>,
}

impl Run {
    pub fn len(&self) -> usize {
        self.records.len()
    }

    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    pub fn records(&self) -> &[LogEntry] {
        &self.records
    }

    pub fn numbers(&self) -> Numbers<'_> {
        Numbers::new(&self.numbers)
    }

    /// Appends a record, with its numbers where they are kept.
    pub fn push(&mut self, entry: LogEntry, numbers: Option<RecordNumbers>) {
        self.records.push(entry);
        self.numbers.extend(numbers);
    }

    /// Drops the first `n` records.
    pub fn cut_front(&mut self, n: usize) {
        self.records.drain(..n);
        self.numbers.drain(..n.min(self.numbers.len()));
    }

    /// Appends copies of the records of `other` from `first` on.
    pub fn extend_from(&mut self, other: &Self, first: usize) {
        self.records.extend_from_slice(&other.records[first..]);
        self.numbers.extend_from_slice(other.numbers().tail(first));
    }

    pub fn clear(&mut self) {
        self.records.clear();
        self.numbers.clear();
    }
}
