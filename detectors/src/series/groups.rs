//! All series of one instance side by side, a row for each step.
//!
//! A row is complete when every column that has been heard of lately is in it, when a later row has as many, or when two more
//! steps have passed. A series whose step is another than the instance's first one is no column.

use std::{collections::VecDeque, sync::Arc};

use super::track::{MAX_JUMP, NEVER};

/// Rows of one instance that wait at a time; one more releases the oldest.
const MAX_ROWS: usize = 64;

/// Rows without a column after which it is no longer waited for.
const PATIENCE: i64 = 4;

/// A row that is not complete yet.
#[derive(Debug)]
pub(super) struct Row {
    pub step: i64,
    n_filled: usize,
    cells: Vec<Option<f64>>,
}

/// See the file's documentation.
#[derive(Debug)]
pub(super) struct Group {
    columns: Vec<Arc<str>>,
    /// The latest row that each column was heard of in.
    heard: Vec<i64>,
    /// The step in nanoseconds, 0 while there is no column.
    pub step_nanos: i64,
    pace: Option<(i64, i64)>,
    /// The first row that has not been shown.
    next: i64,
    rows: VecDeque<Row>,
}

impl Default for Group {
    fn default() -> Self {
        Self { columns: Vec::new(), heard: Vec::new(), step_nanos: 0, pace: None, next: NEVER, rows: VecDeque::new() }
    }
}

impl Group {
    /// Names of the columns.
    pub fn columns(&self) -> &[Arc<str>] {
        &self.columns
    }

    /// Step and phase of its first series with one point a step.
    pub fn pace(&self) -> Option<(i64, i64)> {
        self.pace
    }

    /// Takes note of a series' pace, if it is the first that has one.
    pub fn keep_pace(&mut self, pace: Option<(i64, i64)>) {
        self.pace = self.pace.or(pace);
    }

    /// The column of a series; `None` when its step is another, or there are too many.
    pub fn join(&mut self, name: &Arc<str>, step_nanos: i64, max_columns: usize) -> Option<u32> {
        if self.step_nanos == 0 {
            self.step_nanos = step_nanos;
        }
        if self.step_nanos != step_nanos {
            return None;
        }
        // One that was dropped and has come back.
        let column = match self.columns.iter().position(|column| column == name) {
            Some(column) => column,
            None if self.columns.len() >= max_columns => return None,
            None => {
                self.columns.push(Arc::clone(name));
                self.heard.push(NEVER);
                self.columns.len() - 1
            }
        };
        u32::try_from(column).ok()
    }

    /// Files a value. `false` when its row has been shown.
    pub fn set(&mut self, column: u32, step: i64, value: f64) -> bool {
        let column = column as usize;
        self.follow(step);
        let Some(heard) = self.heard.get_mut(column) else { return false };
        *heard = (*heard).max(step);
        if self.next != NEVER && step < self.next {
            return false;
        }
        let place = self.rows.iter().rposition(|row| row.step <= step);
        let place = match place {
            Some(place) if self.rows[place].step == step => place,
            before => {
                let place = before.map_or(0, |before| before + 1);
                self.rows.insert(place, Row { step, n_filled: 0, cells: Vec::with_capacity(self.columns.len()) });
                place
            }
        };
        let row = &mut self.rows[place];
        if row.cells.len() <= column {
            row.cells.resize(column + 1, None);
        }
        row.n_filled += usize::from(row.cells[column].replace(value).is_none());
        true
    }

    /// Begins anew where the clock of the instance has been set back; its series have made sure of that.
    fn follow(&mut self, step: i64) {
        let n_back = if self.next == NEVER { 0 } else { self.next.saturating_sub(step) };
        if n_back > 0 && n_back.saturating_mul(self.step_nanos).unsigned_abs() > MAX_JUMP {
            self.next = NEVER;
            self.rows.clear();
            self.heard.fill(NEVER);
        }
    }

    /// Takes the oldest row out if it is complete; whatever it holds where all are to be shown. `until` is the event time that
    /// has been reached.
    pub fn take_complete(&mut self, until: i64, all: Rest) -> Option<Row> {
        let front = self.rows.front()?;
        let is_over = || (front.step.saturating_add(2)).saturating_mul(self.step_nanos) <= until;
        let is_overtaken = || self.rows.iter().skip(1).any(|later| later.n_filled >= front.n_filled);
        let is_full = || {
            let since = front.step.saturating_sub(PATIENCE);
            front.n_filled >= self.heard.iter().filter(|heard| **heard > since).count()
        };
        if all == Rest::Goes || self.rows.len() > MAX_ROWS || is_full() || is_overtaken() || is_over() {
            return self.rows.pop_front();
        }
        None
    }

    /// How many rows of gaps there are before a row that is about to be shown; none where it begins anew.
    pub fn pass(&mut self, row: &Row, max_gap: i64) -> i64 {
        let n_gaps = if self.next == NEVER { 0 } else { row.step - self.next };
        self.next = row.step + 1;
        if n_gaps > max_gap { 0 } else { n_gaps }
    }

    /// The row, a value for each column, NaN where there is none.
    pub fn cells<'a>(&self, row: &'a Row) -> impl ExactSizeIterator<Item = f64> + use<'a> {
        (0..self.columns.len()).map(|column| row.cells.get(column).copied().flatten().unwrap_or(f64::NAN))
    }

    /// Memory that it holds, roughly. Names are shared with the series.
    pub fn heap_bytes(&self) -> usize {
        let rows: usize = self.rows.iter().map(|row| row.cells.capacity() * size_of::<Option<f64>>()).sum();
        rows + self.rows.capacity() * size_of::<Row>()
            + self.columns.capacity() * size_of::<Arc<str>>()
            + self.heard.capacity() * size_of::<i64>()
    }
}

/// What becomes of rows that are not complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rest {
    /// They wait.
    Waits,
    /// They are shown as they are.
    Goes,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(n_columns: usize) -> Group {
        let mut group = Group::default();
        for idx in 0..n_columns {
            group.join(&Arc::from(format!("m{idx}")), 60, 3).expect("there is room");
        }
        group
    }

    /// Steps of the rows that are complete.
    fn complete(group: &mut Group) -> Vec<i64> {
        std::iter::from_fn(|| group.take_complete(NEVER, Rest::Waits)).map(|row| row.step).collect()
    }

    #[test]
    fn a_row_waits_for_the_columns_that_are_alive() {
        let mut group = group(2);
        assert!(group.set(0, 5, 1.0));
        assert!(group.set(1, 5, 2.0));
        assert_eq!(complete(&mut group), [5]);
        group.set(0, 6, 1.0);
        assert!(complete(&mut group).is_empty(), "the other one is yet to come");
        group.set(1, 6, 1.0);
        assert_eq!(complete(&mut group), [6]);
        // The second series has ended: the next rows are overtaken, then it is forgotten.
        group.set(0, 7, 1.0);
        assert!(complete(&mut group).is_empty());
        group.set(0, 8, 1.0);
        assert_eq!(complete(&mut group), [7]);
        group.set(0, 9, 1.0);
        group.set(0, 10, 1.0);
        assert_eq!(complete(&mut group), [8, 9, 10]);
    }

    #[test]
    fn gaps_are_counted_up_to_a_limit_and_a_shown_row_takes_no_more() {
        let mut group = group(1);
        group.set(0, 5, 1.0);
        let row = group.take_complete(NEVER, Rest::Waits).expect("it is full");
        assert_eq!(group.pass(&row, 3), 0);
        assert!(!group.set(0, 5, 2.0), "it has been shown");
        for (step, n_gaps) in [(8, 2), (12, 3), (17, 0)] {
            group.set(0, step, 1.0);
            let row = group.take_complete(NEVER, Rest::Goes).expect("a row");
            assert_eq!(group.pass(&row, 3), n_gaps);
        }
    }

    #[test]
    fn a_clock_that_was_set_back_begins_new_rows() {
        let mut group = group(1);
        let day = 2 * 86_400 * 1_000_000_000 / 60;
        group.set(0, day, 1.0);
        let row = group.take_complete(NEVER, Rest::Waits).expect("it is full");
        group.pass(&row, 3);
        assert!(group.set(0, 5, 1.0));
        assert_eq!(complete(&mut group), [5]);
    }

    #[test]
    fn another_step_or_one_too_many_is_no_column() {
        let mut group = group(2);
        let (again, new): (Arc<str>, Arc<str>) = (Arc::from("m1"), Arc::from("m3"));
        assert_eq!(group.join(&again, 60, 2), Some(1));
        assert_eq!(group.join(&new, 60, 2), None);
        assert_eq!(group.join(&new, 30, 9), None);
    }

    #[test]
    fn rows_that_never_fill_are_bounded() {
        let mut group = group(2);
        // The second column is always heard of before it would be forgotten, in rows of its own.
        for step in 0..1_000 {
            group.set(u32::from(step % 2 == 0), step, 1.0);
            while group.take_complete(NEVER, Rest::Waits).is_some() {}
            assert!(group.rows.len() <= MAX_ROWS);
        }
    }
}
