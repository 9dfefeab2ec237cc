//! Steps that are complete and wait to be settled: runs of points and of rows, side by side in a few long vectors, so that a
//! round of a hundred thousand series allocates nothing.

use faultline_core::{GroupWindow, RecordId, SeriesWindow, Window};

use super::{identity::Instances, table::Table};

/// Values that wait at a time; what would come beyond is not shown.
const MAX_VALUES: usize = 4 << 20;

/// Points of one series, step after step.
#[derive(Clone, Copy, Debug)]
struct Run {
    series: u32,
    first: usize,
    len: usize,
    start_unix_nano: i64,
    step_nanos: i64,
}

/// Rows of one instance, step after step.
#[derive(Clone, Copy, Debug)]
struct Rows {
    instance: u32,
    first: usize,
    n_rows: usize,
    n_columns: usize,
    start_unix_nano: i64,
    step_nanos: i64,
}

/// See the file's documentation.
#[derive(Debug, Default)]
pub(super) struct Shown {
    runs: Vec<Run>,
    points: Vec<f64>,
    records: Vec<RecordId>,
    rows: Vec<Rows>,
    cells: Vec<f64>,
    n_settled_runs: usize,
    n_settled_rows: usize,
    /// Points that were not shown because too much waited.
    pub n_lost: u64,
}

impl Shown {
    /// Begins a run of points; there must follow one at least.
    pub fn begin(&mut self, series: u32, step: i64, step_nanos: i64) {
        let start_unix_nano = step.saturating_mul(step_nanos);
        self.runs.push(Run { series, first: self.points.len(), len: 0, start_unix_nano, step_nanos });
    }

    /// The next point of the run that was begun last: finite, or NaN for a gap.
    pub fn point(&mut self, value: f64, record: RecordId) {
        if self.points.len() >= MAX_VALUES {
            self.n_lost += 1;
            return;
        }
        let Some(run) = self.runs.last_mut() else { return };
        run.len += 1;
        self.points.push(value);
        self.records.push(record);
    }

    /// The next row of an instance, all its columns.
    pub fn row(&mut self, instance: u32, step: i64, step_nanos: i64, cells: impl ExactSizeIterator<Item = f64>) {
        let (start_unix_nano, n_columns) = (step.saturating_mul(step_nanos), cells.len());
        if n_columns == 0 || self.cells.len() >= MAX_VALUES {
            self.n_lost += n_columns as u64;
            return;
        }
        let first = self.cells.len();
        self.cells.extend(cells);
        let n_settled = self.n_settled_rows;
        if let Some(rows) = self.rows.get_mut(n_settled..).and_then(<[Rows]>::last_mut) {
            let end = rows.start_unix_nano.saturating_add(step_nanos.saturating_mul(rows.n_rows as i64));
            let is_next = (rows.instance, rows.n_columns, rows.step_nanos) == (instance, n_columns, step_nanos);
            if is_next && end == start_unix_nano {
                rows.n_rows += 1;
                return;
            }
        }
        self.rows.push(Rows { instance, first, n_rows: 1, n_columns, start_unix_nano, step_nanos });
    }

    /// Everything that waits: series in the order in which their steps were complete, then instances.
    pub fn windows<'a>(&'a self, table: &'a Table, instances: &'a Instances) -> Vec<Window<'a>> {
        let runs = self.waiting_runs().iter().map(|run| {
            let series = table.get(run.series);
            let span = run.first..run.first + run.len;
            Window::Series(SeriesWindow {
                key: &series.key,
                kind: series.kind(),
                start_unix_nano: run.start_unix_nano,
                step_nanos: run.step_nanos,
                points: &self.points[span.clone()],
                records: &self.records[span],
                service: table.service(run.series),
            })
        });
        let rows = self.waiting_rows().iter().filter_map(|rows| {
            let instance = instances.get(rows.instance)?;
            Some(Window::Group(GroupWindow {
                key: &instance.key,
                columns: instance.group.columns().get(..rows.n_columns)?,
                start_unix_nano: rows.start_unix_nano,
                step_nanos: rows.step_nanos,
                n_rows: rows.n_rows,
                values: &self.cells[rows.first..rows.first + rows.n_rows * rows.n_columns],
                service: instance.service(),
            }))
        });
        let mut windows = Vec::with_capacity(self.waiting_runs().len() + self.waiting_rows().len());
        windows.extend(runs);
        windows.extend(rows);
        windows
    }

    /// Forgets the first `n` of [`Self::windows`].
    pub fn settle_first(&mut self, n: usize) {
        let n_runs = n.min(self.waiting_runs().len());
        self.n_settled_runs += n_runs;
        self.n_settled_rows += (n - n_runs).min(self.waiting_rows().len());
        if self.waiting_runs().is_empty() {
            self.runs.clear();
            self.points.clear();
            self.records.clear();
            self.n_settled_runs = 0;
        }
        if self.waiting_rows().is_empty() {
            self.rows.clear();
            self.cells.clear();
            self.n_settled_rows = 0;
        }
    }

    /// Ends the runs of a round: those that lost all their points to the limit are no windows.
    pub fn trim(&mut self) {
        if self.points.len() >= MAX_VALUES {
            let n_settled = self.n_settled_runs;
            let mut idx = 0;
            self.runs.retain(|run| {
                idx += 1;
                run.len > 0 || idx <= n_settled
            });
        }
    }

    pub fn is_empty(&self) -> bool {
        self.runs.is_empty() && self.rows.is_empty()
    }

    fn waiting_runs(&self) -> &[Run] {
        &self.runs[self.n_settled_runs..]
    }

    fn waiting_rows(&self) -> &[Rows] {
        &self.rows[self.n_settled_rows..]
    }
}
