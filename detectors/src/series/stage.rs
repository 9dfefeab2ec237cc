//! What sources and operations show their steps on: the table of series, the instances, the steps that wait to be settled.

use super::{
    groups::Rest,
    identity::Instances,
    shown::Shown,
    stats::SeriesStats,
    table::{NO_COLUMN, Outputs, Table},
    track::{NEVER, Timing, Track},
};

/// See the file's documentation.
#[derive(Debug)]
pub(super) struct Stage {
    pub timing: Timing,
    /// Event time that has been reached whatever has come, [`NEVER`] at first.
    pub floor: i64,
    pub table: Table,
    pub instances: Instances,
    pub shown: Shown,
    pub stats: SeriesStats,
    /// Columns of an instance, 0 where there are to be no groups.
    max_columns: usize,
    touched: Vec<u32>,
}

impl Stage {
    pub fn new(timing: Timing, table: Table, instances: Instances, max_columns: usize) -> Self {
        Self {
            timing,
            floor: NEVER,
            table,
            instances,
            shown: Shown::default(),
            stats: SeriesStats::default(),
            max_columns,
            touched: Vec::new(),
        }
    }

    /// Step and phase of the series of an instance, as far as known.
    pub fn pace(&self, instance: u32) -> Option<(i64, i64)> {
        self.instances.get(instance)?.group.pace()
    }

    /// Makes series whose step has just been found columns of their instance.
    pub fn join(&mut self, instance: u32, outputs: &Outputs, track: &Track) {
        let Some(instance) = self.instances.get_mut(instance) else { return };
        instance.group.keep_pace(track.pace());
        if self.max_columns == 0 {
            return;
        }
        for output in outputs.as_slice() {
            let series = self.table.get_mut(*output);
            match instance.group.join(&series.key.session, track.step, self.max_columns) {
                Some(column) => series.column = column,
                None => {
                    series.column = NO_COLUMN;
                    self.stats.n_ungrouped += 1;
                }
            }
        }
    }

    /// Files a value in the row of its instance.
    pub fn set(&mut self, idx: u32, column: u32, step: i64, value: f64) {
        let Some(instance) = self.instances.get_mut(idx) else { return };
        if !instance.group.set(column, step, value) {
            self.stats.n_late_cells += 1;
        } else if !std::mem::replace(&mut instance.is_touched, true) {
            self.touched.push(idx);
        }
    }

    /// Shows the rows that are complete of instances with news.
    pub fn show_touched_rows(&mut self) {
        for idx in std::mem::take(&mut self.touched) {
            if let Some(instance) = self.instances.get_mut(idx) {
                instance.is_touched = false;
            }
            self.show_rows_of(idx, Rest::Waits);
        }
    }

    /// Shows the rows of all instances that are complete, or all rows.
    pub fn show_rows(&mut self, rest: Rest) {
        self.show_touched_rows();
        for idx in self.instances.all() {
            self.show_rows_of(idx, rest);
        }
    }

    fn show_rows_of(&mut self, idx: u32, rest: Rest) {
        let Some(instance) = self.instances.get_mut(idx) else { return };
        let group = &mut instance.group;
        while let Some(row) = group.take_complete(self.floor, rest) {
            let (n_gaps, n_columns, step_nanos) =
                (group.pass(&row, self.timing.max_gap), group.columns().len(), group.step_nanos);
            for step in row.step - n_gaps..row.step {
                self.shown.row(idx, step, step_nanos, std::iter::repeat_n(f64::NAN, n_columns));
            }
            self.shown.row(idx, row.step, step_nanos, group.cells(&row));
        }
    }
}
