//! One instance: the rows that it is fitted on, what is usual for it, and how it does.

use std::sync::Arc;

use faultline_core::{GroupWindow, Score};

use super::{
    Config,
    rows::Rows,
    track::{Pace, Track, Tracked},
    usual::{Scratch, Usual},
};
use crate::bytes::{Reader, Writer};

/// Values end here, so that they are numbers in single precision.
const LIMIT: f64 = 1e17;

const DAY_NANOS: i64 = 86_400_000_000_000;

/// See the file's documentation.
#[derive(Clone, Debug)]
pub struct Instance {
    step_nanos: i64,
    /// The step after the last row that was taken.
    next_step: i64,
    /// All columns there have been, in the order in which they appeared.
    names: Vec<Arc<str>>,
    /// While it is not fitted for good.
    rows: Option<Rows>,
    /// Rows at which it is fitted next.
    due: u64,
    usual: Option<Usual>,
    track: Track,
    /// What was found of the row that its latest score names.
    pub finding: Option<Finding>,
}

/// What was found of a row that is worth telling.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    pub step: i64,
    /// The column that contributes most.
    pub column: Arc<str>,
    pub value: f64,
    pub mean: f64,
    pub deviation: f64,
    /// Its share of the square of the distance.
    pub share: f64,
    pub tracked: Tracked,
    pub n_columns: usize,
}

/// A row on its way, reused.
#[derive(Clone, Debug, Default)]
pub struct Desk {
    row: Vec<f64>,
    scratch: Scratch,
    /// Where a window has each of the columns; empty where it has them in the same order.
    places: Vec<Option<usize>>,
    /// Cells that an instance may keep for its next fit.
    pub max_cells: usize,
}

impl Instance {
    pub fn begin(config: &Config, step_nanos: i64) -> Self {
        Self {
            step_nanos,
            next_step: i64::MIN,
            names: Vec::new(),
            rows: Some(Rows::default()),
            due: config.warm_up_rows,
            usual: None,
            track: Track::default(),
            finding: None,
        }
    }

    /// Keeps the rows of a window without judging them: part of a training.
    pub fn keep(&mut self, window: &GroupWindow<'_>, config: &Config, desk: &mut Desk) {
        for idx in self.fresh_rows(window) {
            self.lay_out(window, idx, config, desk);
            if let Some(rows) = self.rows.as_mut().filter(|_| is_known(&desk.row)) {
                rows.limit(desk.max_cells);
                rows.push(&desk.row);
            }
        }
    }

    /// The training has ended: fits for good, if the rows suffice. Its windows can be scored then.
    pub fn settle(&mut self, config: &Config) {
        let enough = |rows: &&Rows| rows.n_seen() >= config.warm_up_rows;
        if let Some(usual) = self.rows.as_ref().filter(enough).and_then(Usual::of) {
            self.usual = Some(usual);
            self.rows = None;
            self.next_step = i64::MIN;
        }
    }

    pub fn is_fitted(&self) -> bool {
        self.usual.is_some()
    }

    /// Whether it keeps rows for another fit.
    pub fn is_collecting(&self) -> bool {
        self.rows.is_some()
    }

    /// The score of the most surprising row; none before it is fitted, and where nothing is known of any row. Keeps the rows
    /// for the next fit.
    pub fn score(&mut self, window: &GroupWindow<'_>, config: &Config, desk: &mut Desk) -> Option<Score> {
        if self.step_nanos != window.step_nanos.max(1) {
            self.step_nanos = window.step_nanos.max(1);
            self.next_step = i64::MIN;
        }
        let mut worst: Option<(f64, usize, Tracked)> = None;
        let mut pace = self.pace(config);
        for idx in self.fresh_rows(window) {
            self.lay_out(window, idx, config, desk);
            if !is_known(&desk.row) {
                continue;
            }
            if let Some(usual) = &self.usual {
                let distance = usual.distance(desk.row.iter().copied(), &mut desk.scratch);
                let tracked = self.track.observe(distance, &pace);
                let surprise = tracked.surprise(config);
                if worst.is_none_or(|(most, ..)| surprise > most) {
                    worst = Some((surprise, idx, tracked));
                }
            }
            if self.collect(config, desk) {
                pace = self.pace(config);
            }
        }
        let (value, idx, tracked) = worst?;
        let culprit = self.find(window, idx, tracked, config, desk);
        Some(Score { value, culprit })
    }

    fn pace(&self, config: &Config) -> Pace {
        let n_columns = self.usual.as_ref().map_or(1, Usual::n_columns);
        Pace::of(config, self.step_nanos as f64, n_columns)
    }

    /// Names the column that is most to blame for a row; its place in the window's values.
    fn find(
        &mut self,
        window: &GroupWindow<'_>,
        idx: usize,
        tracked: Tracked,
        config: &Config,
        desk: &mut Desk,
    ) -> usize {
        self.lay_out(window, idx, config, desk);
        let row_start = idx * window.columns.len();
        let Some(usual) = &self.usual else { return row_start };
        usual.distance(desk.row.iter().copied(), &mut desk.scratch);
        let (own, share) = usual.culprit(&desk.scratch);
        let column = if desk.places.is_empty() { Some(own) } else { desk.places.get(own).copied().flatten() };
        let column = column.filter(|column| *column < window.columns.len()).unwrap_or(0);
        self.finding = window.columns.get(column).map(|name| Finding {
            step: first_step(window).saturating_add(i64::try_from(idx).unwrap_or(i64::MAX)),
            column: Arc::clone(name),
            value: window.row(idx).get(column).copied().unwrap_or(f64::NAN),
            mean: usual.mean(own),
            deviation: usual.deviation(own),
            share,
            tracked,
            n_columns: usual.n_columns(),
        });
        row_start + column
    }

    /// Takes a row for the next fit, and fits where it is the last that was missing: at `warm_up_rows`, and each time that there
    /// are twice as many, up to `settle_rows`. Says whether it has.
    fn collect(&mut self, config: &Config, desk: &mut Desk) -> bool {
        let Some(rows) = &mut self.rows else { return false };
        rows.limit(desk.max_cells);
        rows.push(&desk.row);
        if rows.n_seen() < self.due {
            return false;
        }
        if let Some(usual) = Usual::of(rows) {
            // From now on distances are of another fit: so is their median.
            let row_nanos = self.step_nanos as f64 * rows.stride() as f64;
            let pace = Pace::of(config, row_nanos, usual.n_columns());
            let before = std::mem::take(&mut self.track);
            for row in rows.iter() {
                let row = row.iter().map(|cell| f64::from(*cell));
                self.track.observe(usual.distance(row, &mut desk.scratch), &pace);
            }
            self.track.carry(&before);
            self.usual = Some(usual);
        }
        self.due = self.due.saturating_mul(2);
        if self.due > config.settle_rows {
            self.rows = None;
        }
        true
    }

    /// The rows of a window that have not been taken before; they are, then.
    fn fresh_rows(&mut self, window: &GroupWindow<'_>) -> std::ops::Range<usize> {
        let first_step = first_step(window);
        let end = first_step.saturating_add(i64::try_from(window.n_rows).unwrap_or(i64::MAX));
        // So far back that the clock must have been set back.
        if self.next_step.saturating_sub(end).saturating_mul(self.step_nanos) > DAY_NANOS {
            self.next_step = first_step;
        }
        let n_known = usize::try_from(self.next_step.saturating_sub(first_step).max(0)).unwrap_or(usize::MAX);
        self.next_step = self.next_step.max(end);
        n_known.min(window.n_rows)..window.n_rows
    }

    /// Lays out a row in the order of the columns of the instance, a gap where there is nothing.
    fn lay_out(&mut self, window: &GroupWindow<'_>, idx: usize, config: &Config, desk: &mut Desk) {
        self.find_columns(window.columns, config, &mut desk.places);
        let row = window.row(idx);
        let cell = |column: usize| row.get(column).copied().unwrap_or(f64::NAN);
        desk.row.clear();
        if desk.places.is_empty() {
            desk.row.extend((0..self.names.len()).map(cell));
        } else {
            desk.row.extend(desk.places.iter().map(|place| place.map_or(f64::NAN, cell)));
        }
        for cell in &mut desk.row {
            *cell = if cell.is_finite() { cell.clamp(-LIMIT, LIMIT) } else { f64::NAN };
        }
    }

    /// Where a window has each column, new ones included. A window has the columns of the one before, and new ones at the end,
    /// unless the instance began anew.
    fn find_columns(&mut self, columns: &[Arc<str>], config: &Config, places: &mut Vec<Option<usize>>) {
        places.clear();
        let is_same = |(known, own): (&Arc<str>, &Arc<str>)| Arc::ptr_eq(known, own) || known == own;
        if self.names.iter().zip(columns).all(is_same) {
            let room = config.max_columns.saturating_sub(self.names.len());
            self.names.extend(columns.iter().skip(self.names.len()).take(room).cloned());
            return;
        }
        for column in columns {
            if self.names.len() < config.max_columns && !self.names.contains(column) {
                self.names.push(Arc::clone(column));
            }
        }
        places.extend(self.names.iter().map(|name| columns.iter().position(|column| column == name)));
    }

    /// Memory that it holds elsewhere; names are shared with the series station.
    pub fn heap_bytes(&self) -> usize {
        let names = self.names.capacity() * size_of::<Arc<str>>();
        names + self.rows.as_ref().map_or(0, Rows::bytes) + self.usual.as_ref().map_or(0, Usual::bytes)
    }

    pub fn write(&self, writer: &mut Writer) {
        writer.integer(self.step_nanos);
        writer.integer(self.next_step);
        writer.number(self.names.len() as u64);
        self.names.iter().for_each(|name| writer.text(name));
        writer.number(self.due);
        self.track.write(writer);
        writer.byte(u8::from(self.rows.is_some()));
        if let Some(rows) = &self.rows {
            rows.write(writer);
        }
        writer.byte(u8::from(self.usual.is_some()));
        if let Some(usual) = &self.usual {
            usual.write(writer);
        }
    }

    pub fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let [step_nanos, next_step] = [reader.integer()?, reader.integer()?];
        let names: Option<Vec<Arc<str>>> = (0..reader.length(8)?).map(|_| reader.text()).collect();
        let (names, due, track) = (names?, reader.number()?, Track::read(reader)?);
        let rows = if reader.is()? { Some(Rows::read(reader)?) } else { None };
        let usual = if reader.is()? { Some(Usual::read(reader)?) } else { None };
        let is_fine = step_nanos > 0
            && rows.as_ref().is_none_or(|rows| rows.n_columns() <= names.len())
            && usual.as_ref().is_none_or(|usual| usual.n_columns() <= names.len());
        is_fine.then_some(Self { step_nanos, next_step, names, rows, due, usual, track, finding: None })
    }
}

/// Number of the step of a window's first row, counted from the epoch.
pub fn first_step(window: &GroupWindow<'_>) -> i64 {
    window.start_unix_nano.div_euclid(window.step_nanos.max(1))
}

/// Whether there is anything in a row.
fn is_known(row: &[f64]) -> bool {
    row.iter().any(|cell| cell.is_finite())
}
